"""What cells set on classes and functions (`Account.count += 1`, `f.calls`, lists as defaults): carried beside them.

Definitions are replayed in every task, so each task has them as their source says. What an earlier cell has changed
on them since is data: it travels under the definition's name in angle brackets and is put back after the replay.
"""

from __future__ import annotations

import copy
import enum
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from nbflow.analysis.effects import state_of
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.inspection import answered, attribute, is_a
from nbflow.store.serialize.registry import Registry

CODE = (
    types.FunctionType, staticmethod, classmethod, property, types.MemberDescriptorType, types.GetSetDescriptorType,
    types.WrapperDescriptorType, types.MethodDescriptorType, types.BuiltinFunctionType, type,
)  # fmt: skip
FIXED = (int, float, complex, str, bytes, bool, type(None), *CODE)
METHODS = (types.FunctionType, staticmethod, classmethod, property)
OWN = frozenset(
    "_abc_impl _member_map_ _member_names_ _value2member_map_ _member_type_ _unhashable_values_ _use_args_ _new_member_"
    " _value_repr_ _generate_next_value_ _hashable_values_ _unhashable_values_map_".split()
)
"""What Python's own metaclasses keep on a class, besides names with two underscores around them."""


class DefinitionState(msgspec.Struct, frozen=True):
    """A class or function as it was at one time: what stood on it, and how that looked."""

    value: Any
    attributes: Mapping[str, Any]
    prints: Mapping[str, str | None]
    data: tuple[Any, ...] = ()  # objects on it that are those of names too: their versions go by these

    @classmethod
    def of(
        cls, value: Any, registry: Registry, namespace: Mapping[str, Any] = types.MappingProxyType({})
    ) -> DefinitionState:
        """Return how a class or function is now, with the very objects that stand on it and what names hold of them."""
        attributes = _attributes(value)
        parts = [*attributes.values(), *attributes.get("()defaults", ()), *attributes.get("()kwdefaults", {}).values()]
        held = {id(each) for each in namespace.values()}
        data = tuple(each for each in parts if id(each) in held and not is_a(each, (*METHODS, *FIXED)))
        return cls(value, attributes, prints_of(value, registry), data)

    def copied(self) -> DefinitionState:
        """Return the same with copies of what can change in place, as far as it can be copied, data as it is."""
        data = {id(each): each for each in self.data}
        copies = {key: _copied(each, data) for key, each in self.attributes.items()}
        return msgspec.structs.replace(self, attributes=copies)


def _copied(value: Any, data: Mapping[int, Any]) -> Any:
    if is_a(value, (*METHODS, *FIXED)):
        return value
    return answered(lambda: copy.deepcopy(value, {**data}), value)  # what cannot be copied stays what it is


def reset(value: Any, state: DefinitionState) -> None:
    """Make a class or function what it was."""
    now = _attributes(value)
    put_state(value, {
        "set": {key: each for key, each in state.attributes.items() if now.get(key) is not each},
        "gone": sorted(now.keys() - state.attributes.keys()),
    })  # fmt: skip


def is_stateful(value: Any) -> bool:
    """Return whether a value is a class or function of the notebook's own, on which cells may set something."""
    return is_a(value, type | types.FunctionType) and attribute(value, "__module__") == "__main__"


def prints_of(value: Any, registry: Registry) -> dict[str, str | None]:
    """Return a fingerprint of each thing that stands on a class or function."""
    return {key: _code_of(each) or fingerprint(each, registry) for key, each in _attributes(value).items()}


class Definitions:
    """The classes and functions of a task: as their source says, before the cell, and as it leaves them."""

    def __init__(
        self, names: Iterable[str], namespace: Mapping[str, Any], registry: Registry,
        fresh: Callable[[Any], DefinitionState | None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Take down the definitions of these names; `fresh` says how one was when it was defined, if not as now."""
        self._registry = registry
        self._values = {name: namespace[name] for name in names if is_stateful(namespace.get(name))}
        self._before = {name: prints_of(value, registry) for name, value in self._values.items()}
        states = {name: fresh(value) for name, value in self._values.items()}
        self._fresh = {name: state.prints if state else self._before[name] for name, state in states.items()}

    def origin(self, value: Any) -> DefinitionState | None:
        """Return how a class or function is by its source, None for one that is not of this task."""
        prints = next((self._fresh[name] for name, each in self._values.items() if each is value), None)
        return None if prints is None else DefinitionState(value, {}, prints)

    def put(self, name: str, state: Mapping[str, Any]) -> None:
        """Set on a definition what earlier cells have set on it."""
        value = self._values.get(name)
        if value is None:
            return
        put_state(value, state)
        self._before[name] = prints_of(value, self._registry)

    def see(self, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
        """Take down what the cell itself defines, after each of its statements: what is new is as its source says."""
        for name in names:
            value = namespace.get(name)
            if is_stateful(value) and self._values.get(name) is not value:
                self._values[name] = value
                self._fresh[name] = self._before[name] = prints_of(value, self._registry)

    def changed(self) -> dict[str, dict[str, Any]]:
        """Return the definitions that the cell has changed, each with all that differs from its source."""
        states = {}
        for name, value in self._values.items():
            now = prints_of(value, self._registry)
            if now != self._before[name]:
                states[state_of(name)] = self._state(name)
        return states

    def state(self, name: str) -> dict[str, Any] | None:
        """Return what differs from a definition's source now, None for a name that holds none."""
        return self._state(name) if name in self._values else None

    def value(self, name: str) -> Any:
        """Return the class or function that a name stands for, None where it stands for none."""
        return self._values.get(name)

    def _state(self, name: str) -> dict[str, Any]:
        value, fresh = self._values[name], self._fresh[name]
        now = _attributes(value)
        prints = prints_of(value, self._registry)
        values: dict[str, Any] = {key: now[key] for key in now if fresh.get(key) != prints[key]}
        return {"set": values, "gone": sorted(fresh.keys() - now.keys())}


def _attributes(value: Any) -> dict[str, Any]:
    """Return what cells may set on a class or function, by name, without what is Python's own."""
    if isinstance(value, type):
        return {key: each for key, each in vars(value).items() if _is_set(key, each)}
    attributes = {key: each for key, each in vars(value).items() if _is_set(key, each)}
    if value.__defaults__:
        attributes["()defaults"] = value.__defaults__
    if value.__kwdefaults__:
        attributes["()kwdefaults"] = value.__kwdefaults__
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if not is_a(content, CODE):
            attributes[f"(){name}"] = content
    return attributes


def _is_set(key: str, value: Any) -> bool:
    """Return whether a cell may have set an attribute: Python's own are not, methods with such names may be."""
    own = key in OWN or (key.startswith("__") and key.endswith("__") and not is_a(value, METHODS))
    return not own and (is_a(value, METHODS) or not is_a(value, (*CODE, enum.Enum)))


def _code_of(value: Any) -> str:
    """Return a text that is equal for equal code of a method, or of what wraps methods; "" for anything else."""
    if is_a(value, types.FunctionType):
        return f"code {hash(value.__code__)}"
    if is_a(value, staticmethod | classmethod):
        return f"{type(value).__name__} {_code_of(value.__func__)}"
    if is_a(value, property):
        return f"property {_code_of(value.fget)} {_code_of(value.fset)} {_code_of(value.fdel)}"
    return ""


def put_state(value: Any, state: Mapping[str, Any]) -> None:
    """Set on a class or function what cells have set on it."""
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
