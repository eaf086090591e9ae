"""What cells set on classes and functions (`Account.count += 1`, `f.calls`, lists as defaults): carried beside them.

Definitions are replayed in every task, so each task has them as their source says. What an earlier cell has changed
on them since is data: it travels under the definition's name in angle brackets and is put back after the replay.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable, Mapping
from typing import Any

from nbflow.effects import state_of
from nbflow.fingerprint import fingerprint
from nbflow.registry import Registry

CODE = (
    types.FunctionType, staticmethod, classmethod, property, types.MemberDescriptorType, types.GetSetDescriptorType,
    types.WrapperDescriptorType, types.MethodDescriptorType, types.BuiltinFunctionType, type,
)  # fmt: skip
OWN = frozenset(
    "_abc_impl _member_map_ _member_names_ _value2member_map_ _member_type_ _unhashable_values_ _use_args_ _new_member_"
    " _value_repr_ _generate_next_value_ _hashable_values_ _unhashable_values_map_".split()
)
"""What Python's own metaclasses keep on a class, besides names with two underscores around them."""


class Definitions:
    """The classes and functions of a task, as they were after the replay, and as the cell leaves them."""

    def __init__(self, names: Iterable[str], namespace: Mapping[str, Any], registry: Registry) -> None:
        """Names that definitions bind, the namespace that holds them, and their registry, in."""
        self._registry = registry
        self._found = {name: namespace[name] for name in names if _may_hold(namespace.get(name))}
        self._fresh = {name: self._prints(value) for name, value in self._found.items()}
        self._before = dict(self._fresh)

    def put(self, name: str, state: Mapping[str, Any]) -> None:
        """A definition's name and what earlier cells have set on it in; it has it from now on."""
        value = self._found.get(name)
        if value is None:
            return
        put_state(value, state)
        self._before[name] = self._prints(value)

    def add(self, source: str, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
        """A definition that the cell itself has made in: what its source says is found by making it once more.

        Only where that has no effects: no decorators, no bases, nothing but displays of constants as defaults.
        """
        tree = _quiet_definition(source)
        for name in names if tree is not None else ():
            if not _may_hold(namespace.get(name)):
                continue
            space = dict(namespace)
            exec(compile(ast.Module([tree], []), "<definition>", "exec", dont_inherit=True), space)
            self._found[name] = namespace[name]
            self._fresh[name] = self._before[name] = self._prints(space[name])

    def changed(self) -> dict[str, dict[str, Any]]:
        """The definitions that the cell has changed, each with all that differs from its source, out."""
        found = {}
        for name, value in self._found.items():
            now = self._prints(value)
            if now != self._before[name]:
                found[state_of(name)] = self._state(name)
        return found

    def state(self, name: str) -> dict[str, Any] | None:
        """A definition's name in; what differs from its source now out, None for a name that holds none."""
        return self._state(name) if name in self._found else None

    def _state(self, name: str) -> dict[str, Any]:
        value, fresh = self._found[name], self._fresh[name]
        now = _attributes(value)
        prints = self._prints(value)
        left: dict[str, Any] = {key: now[key] for key in now if fresh.get(key) != prints[key]}
        return {"set": left, "gone": sorted(fresh.keys() - now.keys())}

    def _prints(self, value: Any) -> dict[str, str | None]:
        return {key: fingerprint(each, self._registry) for key, each in _attributes(value).items()}


def _quiet_definition(source: str) -> Any:
    """A definition's source in; its tree, None where making it once more might have effects, out."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return None
    tree = body[0] if len(body) == 1 else None
    if not isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or tree.decorator_list:
        return None
    if isinstance(tree, ast.ClassDef):
        methods = ast.FunctionDef | ast.AsyncFunctionDef
        assigned = [part for part in tree.body if isinstance(part, ast.Assign | ast.AnnAssign | ast.Expr)]
        inner = [part.value for part in assigned if part.value is not None]
        parts = [each for part in tree.body if isinstance(part, methods) for each in _defaults(part)] + inner
        plain = all(isinstance(part, methods | ast.Assign | ast.AnnAssign | ast.Expr | ast.Pass) for part in tree.body)
        if tree.bases or tree.keywords or not plain:
            return None
    else:
        parts = _defaults(tree)
    return tree if all(_is_display(part) for part in parts) else None


def _defaults(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    return [*tree.args.defaults, *(each for each in tree.args.kw_defaults if each is not None)]


def _is_display(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError):
        return isinstance(value, ast.Call) and ast.unparse(value) in ("list()", "dict()", "set()")
    return True


def _may_hold(value: Any) -> bool:
    if isinstance(value, type):
        return value.__module__ == "__main__"
    return isinstance(value, types.FunctionType) and value.__module__ == "__main__"


def _attributes(value: Any) -> dict[str, Any]:
    """A class or function in; what cells may set on it, by name, out: no code, nothing of Python's own."""
    if isinstance(value, type):
        return {key: each for key, each in vars(value).items() if _is_set(key, each)}
    found = {key: each for key, each in vars(value).items() if _is_set(key, each)}
    if value.__defaults__:
        found["()defaults"] = value.__defaults__
    if value.__kwdefaults__:
        found["()kwdefaults"] = value.__kwdefaults__
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
        try:
            held = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if not isinstance(held, CODE):
            found[f"(){name}"] = held
    return found


def _is_set(key: str, value: Any) -> bool:
    """Whether an attribute is data: neither code nor Python's own."""
    return not (key in OWN or (key.startswith("__") and key.endswith("__")) or isinstance(value, CODE))


def put_state(value: Any, state: Mapping[str, Any]) -> None:
    """A class or function and what cells have set on it in; it has it from now on."""
    for key, each in state["set"].items():
        if key == "()defaults":
            value.__defaults__ = each
        elif key == "()kwdefaults":
            value.__kwdefaults__ = each
        elif key.startswith("()"):
            cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=False))
            if key[2:] in cells:
                cells[key[2:]].cell_contents = each
        else:
            setattr(value, key, each)
    for key in state["gone"]:
        if not key.startswith("()") and key in vars(value):
            delattr(value, key)
