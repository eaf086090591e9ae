"""What cells set on classes and functions (`Account.count += 1`, `f.calls`, lists as defaults): carried beside them.

Definitions are replayed in every task, so each task has them as their source says. What an earlier cell has changed
on them since is data: it travels under the definition's name in angle brackets and is put back after the replay.
"""

from __future__ import annotations

import copy
import gc
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from nbflow.analysis.effects import state_of
from nbflow.model import MISSING, Definition, Replay
from nbflow.store.serialize.inspection import answered, is_a
from nbflow.store.serialize.registry import Registry
from nbflow.task.definition_parts import (
    METHODS,
    SLOTS,
    Standing,
    by_identity,
    is_same,
    is_stateful,
    looks_of,
    parts_of,
    prints_of,
    put_part,
)

FIXED = (
    int, float, complex, str, bytes, bool, type(None), types.WrapperDescriptorType, types.MethodDescriptorType,
    types.BuiltinFunctionType, types.CodeType, type, *SLOTS,
)  # fmt: skip


class DefinitionState(msgspec.Struct, frozen=True):
    """A class or function as it was at one time: what stood on it, and how that looked."""

    value: Any
    attributes: Mapping[str, Any]
    prints: Mapping[str, str]
    data: tuple[Any, ...] = ()  # objects on it that are those of names too: their versions go by these

    @classmethod
    def of(
        cls, value: Any, registry: Registry, namespace: Mapping[str, Any] = types.MappingProxyType({})
    ) -> DefinitionState:
        """Return how a class or function is now, with the very objects that stand on it and what names hold of them."""
        attributes = attributes_of(value)
        parts = [*attributes.values()]
        parts += [each for key, held in attributes.items() if key.endswith("__defaults__") for each in held or ()]
        parts += [
            e for key, held in attributes.items() if key.endswith("__kwdefaults__") for e in (held or {}).values()
        ]
        held = {id(each) for each in namespace.values()}
        data = tuple(each for each in parts if id(each) in held and not is_a(each, (*METHODS, *FIXED)))
        return cls(value, attributes, prints_of(value, registry), data)

    def copied(self) -> DefinitionState:
        """Return the same with copies of what can change in place, as far as it can be copied, data as it is."""
        memo: dict[int, Any] = {id(each): each for each in self.data}  # one for all parts, which share objects
        copies = {key: _copied(each, memo, self.prints.get(key)) for key, each in self.attributes.items()}
        return msgspec.structs.replace(self, attributes=copies)


def _copied(value: Any, memo: dict[int, Any], look: str | None) -> Any:
    if is_a(value, (*METHODS, *FIXED)) or look == by_identity(value):
        return value
    if is_a(value, types.MappingProxyType):
        (owner,) = gc.get_referents(value)
        return types.MappingProxyType(_copied(owner, memo, None))
    return answered(lambda: copy.deepcopy(value, memo), value)  # what cannot be copied stays what it is


def reset(value: Any, state: DefinitionState) -> None:
    """Make a class or function what it was."""
    now = attributes_of(value)
    put_state(value, {
        "set": {key: each for key, each in state.attributes.items() if not is_same(now.get(key, MISSING), each)},
        "gone": sorted(now.keys() - state.attributes.keys()),
    })  # fmt: skip


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the value of each part of a class, function or object, by key."""
    return {key: part.value for key, part in parts_of(value).items()}


def names_of(statements: Iterable[Replay | Definition]) -> list[str]:
    """Return the names that definitions bind, without those of imports: what those bind belongs to its module."""
    return [
        name for statement in statements if statement.kind == "definition" and not _imports(statement.source)
        for name in statement.names
    ]  # fmt: skip


def _imports(source: str) -> bool:
    return source.lstrip().startswith(("import ", "from "))


class Definitions:
    """The classes and functions of a task: as their source says, before the cell, and as it leaves them."""

    def __init__(
        self, names: Iterable[str], namespace: Mapping[str, Any], registry: Registry,
        fresh: Callable[[Any], DefinitionState | None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Take down the definitions of these names; `fresh` says how one was when it was defined, if not as now."""
        self._registry = registry
        self._values = {name: namespace[name] for name in names if is_stateful(namespace.get(name))}
        self._parts: list[Mapping[str, Standing]] = []  # alive: nothing new comes to lie where they lie
        self._before = {name: self._looks(value) for name, value in self._values.items()}
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
        self._before[name] = self._looks(value)

    def _looks(self, value: Any) -> dict[str, str]:
        """Return how each part of a definition looks now, to be compared with later."""
        self._parts.append(parts_of(value))
        return looks_of(self._parts[-1], self._registry)

    def see(self, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
        """Take down what the cell itself defines, after each of its statements: what is new is as its source says."""
        for name in names:
            value = namespace.get(name)
            if is_stateful(value) and self._values.get(name) is not value:
                self._values[name] = value
                self._fresh[name] = self._before[name] = self._looks(value)

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
        now, fresh = parts_of(self._values[name]), self._fresh[name]
        looks = looks_of(now, self._registry)
        values = {key: part.value for key, part in now.items() if fresh.get(key) != looks[key]}
        return {"set": values, "gone": sorted(fresh.keys() - now.keys())}


def put_state(value: Any, state: Mapping[str, Any]) -> None:
    """Set on a class, function or object what cells have set on it."""
    for key, each in state["set"].items():
        put_part(value, key, each)
    for key in state["gone"]:
        put_part(value, key, MISSING)
