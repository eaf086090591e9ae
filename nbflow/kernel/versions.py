"""Which version each of the user's names holds: the stored value or the definition that its object came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from nbflow.analysis.effects import is_made, owner_of
from nbflow.engine.inputs import InputValue
from nbflow.model import MISSING, Definition, Group, Manifest, Record
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.registry import Registry

_UNCHANGING = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis), range)
_DEPTH = 3
_WIDTH = 1000


class BoundVersion(msgspec.Struct, frozen=True):
    """The object that a name was seen to hold, and what it is.

    `serial` counts bindings, so that of two objects the later one is known; `seen` is the ledger's clock when the
    content was last known to be that of the stored value.
    """

    value: Any
    serial: int
    content_id: str = ""
    group: Group | None = None
    step: str = ""
    definition: str = ""
    binds: Mapping[str, str] = msgspec.field(default_factory=dict)  # data that a definition read -> content id
    # the same -> the object that it was, and how that looked
    bound: Mapping[str, tuple[Any, str | None]] = msgspec.field(default_factory=dict)
    seen: int = 0
    execution: str = ""  # that left it, where no store can hold it


class Ledger:
    """What is known about the names in the one namespace; unknown is the default, and is never wrong."""

    def __init__(
        self,
        namespace: dict[str, Any],
        registry: Registry,
        same: Callable[[Group, Mapping[str, Any]], bool],
        state: Callable[[Group, str], Any] = lambda _, __: MISSING,
    ) -> None:
        """Know nothing yet; `state` says what cells have set on the definition that a group's name stands for."""
        self.namespace = namespace
        self.registry = registry
        self._same = same
        self._state = state
        self._made: dict[str, tuple[str, Mapping[str, Any]]] = {}  # of definitions: execution, values
        self._entries: dict[str, BoundVersion] = {}
        self._serial = 0
        self._clock = 0

    # ------------------------------------------------------------ what happens

    def code_ran(self) -> None:
        """Look at contents again from now on: the user's code may have changed any object in place."""
        self._clock += 1

    def sweep(self) -> None:
        """Forget names that are gone or hold another object."""
        namespace = self.namespace
        stale = [name for name, entry in self._entries.items() if namespace.get(name, MISSING) is not entry.value]
        for name in stale:
            del self._entries[name]

    def forget(self, names: Iterable[str]) -> None:
        """Forget names that hold values which no plan knows."""
        for name in names:
            self._entries.pop(name, None)

    def bind_value(self, name: str, value: Any, stored: InputValue, *, touched: bool = False) -> None:
        """Note that a name holds exactly this stored value, or did before code that had it in hand ran (`touched`)."""
        self._serial += 1
        self._entries[name] = BoundVersion(
            value=value, serial=self._serial, content_id=stored.artifact.content_id, group=stored.group,
            step=stored.step, seen=-1 if touched else self._clock,
        )  # fmt: skip

    def bind_record(self, record: Record, values: Mapping[str, Any]) -> None:
        """Note values that a task has just left, and that are stored as its record says."""
        for name, value in values.items():
            artifact = record.artifacts.get(name)
            if artifact is None:
                self._entries.pop(name, None)
            elif artifact.group < 0:
                self._serial += 1
                self._entries[name] = BoundVersion(
                    value=value, serial=self._serial, step=record.step, execution=record.execution
                )
            else:
                self.bind_value(name, value, InputValue(record.groups[artifact.group], artifact, record.step))

    def bind_definition(
        self, definition_id: str, names: Iterable[str], binds: Mapping[str, str] | None = None,
        bound: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Note a definition that was just executed or replayed; the same object bound again stays as old as it was.

        `bound` are the objects that it has read, those of the namespace where they are not given.
        """
        objects = bound if bound is not None else {n: self.namespace[n] for n in binds or () if n in self.namespace}
        looks = {n: (each, fingerprint(each, self.registry)) for n, each in objects.items() if names}
        for name in names:
            value = self.namespace.get(name, MISSING)
            if value is MISSING:
                continue
            before = self._entries.get(name)
            if before is not None and before.value is value and before.definition == definition_id:
                continue
            self._serial += 1
            self._entries[name] = BoundVersion(
                value=value, serial=self._serial, definition=definition_id, binds=dict(binds or {}), bound=looks
            )

    def know_made(self, name: str, record: Record, values: Mapping[str, Any]) -> None:
        """Note that names hold what the definition that computes them has made, which an execution has left."""
        content_id = record.artifacts[name].content_id
        self._made[name] = record.execution, values
        for each, value in values.items():
            entry = self._entry(each)
            if entry is not None and entry.value is value and entry.definition:
                self._entries[each] = msgspec.structs.replace(entry, binds={**entry.binds, name: content_id})

    # ------------------------------------------------------------ what is asked

    def step_of(self, name: str) -> str:
        """Return the step whose value a name holds, an empty string when it is not known."""
        entry = self._entries.get(name)
        return entry.step if entry is not None and self.namespace.get(name, MISSING) is entry.value else ""

    def has(self, record: Record, name: str) -> bool:
        """Return whether a name holds the very object that an execution left, which no store can hold."""
        if is_made(name):
            execution, values = self._made.get(name, ("", {}))
            return execution == record.execution and all(self.namespace.get(n) is v for n, v in values.items())
        entry = self._entry(name)
        return entry is not None and entry.execution == record.execution

    def names(self) -> dict[str, BoundVersion]:
        """Return every name whose version is known."""
        self.sweep()
        return dict(self._entries)

    def content_of(self, name: str) -> str:
        """Return the content id of what a name holds, as far as it is known; an empty string when it is not."""
        entry = self._entry(name)
        return entry.content_id if entry is not None else ""

    def verified(self, name: str) -> str:
        """Look again at what a name holds and return its content id, "" when it is not known or has changed."""
        entry = self._entry(name)
        if entry is None or entry.group is None:
            return ""
        artifact = Manifest(name=name, type="", group=0, content_id=entry.content_id)
        return entry.content_id if self.current({name: InputValue(entry.group, artifact, entry.step)}) else ""

    def holds(self, definition_id: str, names: Iterable[str]) -> bool:
        """Return whether every one of these names holds what that definition gave it."""
        entries = [self._entry(name) for name in names]
        return all(entry is not None and entry.definition == definition_id for entry in entries)

    def is_live(
        self, definition: Definition, requires: Iterable[Definition], binds: Mapping[str, str],
        given: Collection[str] = (),
    ) -> bool:  # fmt: skip
        """Return whether a definition's names hold what it defines, made from what it asks for.

        Data that a task is `given` beside it has to be the very object that the definition holds.
        """
        entries = [self._entry(name) for name in definition.names]
        # A function holds the objects that its cell found, as decorators, defaults or base classes. It is the one of
        # the document only if these were bound before it: what was bound since then is not in it.
        own = [entry for entry in entries if entry is not None and entry.definition == definition.id]
        if not definition.names or len(own) != len(entries):
            return False
        oldest = min(entry.serial for entry in own)
        wanted = {name: content for name, content in binds.items() if name not in definition.changes}
        looks = ((entry, name, content) for entry in own for name, content in wanted.items())
        if not all(self._binds(entry, name, content, alone=name not in given) for entry, name, content in looks):
            return False
        newest = [
            entry.serial for other in requires for name in other.names if (entry := self._entry(name)) is not None
        ]
        return all(serial <= oldest for serial in newest)

    def _binds(self, entry: BoundVersion, name: str, content: str, *, alone: bool) -> bool:
        """Return whether a definition has bound this version of a name: as it was then, or changed in place since.

        `alone`: nobody else is given it, so that another object would do that is the same.
        """
        if name not in entry.binds or is_made(name):
            return entry.binds.get(name) == content
        value, mark = entry.bound.get(name, (MISSING, None))
        if value is not MISSING and self.namespace.get(name, MISSING) is value:
            return self.verified(name) == content
        if entry.binds[name] != content:
            return False
        if value is MISSING or is_unchanging(value):
            return True
        return alone and mark is not None and fingerprint(value, self.registry) == mark

    def current(self, wanted: Mapping[str, InputValue]) -> dict[str, Any]:
        """Return those of the names and stored values that a task asks for which the namespace holds, unchanged.

        Names of one group are taken together or not at all: they may share objects.
        """
        # Two names may share an object. If one of them is loaded anew and the other is taken as it is, they share it
        # no longer, and a change by one name is not seen by the other.
        groups: dict[str, list[str]] = {}
        for name, value in wanted.items():
            groups.setdefault(value.group.id, []).append(name)
        values: dict[str, Any] = {}
        for names in groups.values():
            if all(self._holds(name, wanted[name]) for name in names) and self._unchanged(names, wanted):
                values.update({name: self.namespace[name] for name in names})
        return values

    def _entry(self, name: str) -> BoundVersion | None:
        entry = self._entries.get(name)
        return entry if entry is not None and self.namespace.get(name, MISSING) is entry.value else None

    def _holds(self, name: str, wanted: InputValue) -> bool:
        entry = self._entry(name)
        if entry is None or entry.group is None or entry.content_id != wanted.artifact.content_id:
            return False
        # an instance of a class is only right while that class is the one in force
        return all(self._older(ref.id, entry.serial) for ref in wanted.group.definitions)

    def _older(self, definition_id: str, serial: int) -> bool:
        names = [entry for entry in self._entries.values() if entry.definition == definition_id]
        return bool(names) and all(entry.serial < serial for entry in names)

    def _unchanged(self, names: Collection[str], wanted: Mapping[str, InputValue]) -> bool:
        entries = {name: self._entries[name] for name in names}
        group = wanted[next(iter(names))].group
        apart = all(owner_of(name) is None for name in group.names)
        if apart and all(entry.seen == self._clock or is_unchanging(entry.value) for entry in entries.values()):
            return True
        alive = {
            name: entry.value
            for name in group.names
            if (entry := self._entry(name)) is not None and entry.group is not None and entry.group.id == group.id
        }
        # What a class or function keeps is part of the group where it shares objects with these names. It may hold
        # that version and yet other objects, so such a group is looked at each time.
        states = {name: self._state(group, name) for name in group.names if owner_of(name) is not None}
        if len(alive) + len(states) != len(group.names) or any(each is MISSING for each in states.values()):
            return False
        if not self._same(group, alive | states):
            return False
        for name in alive:
            entry = self._entries[name]
            self._entries[name] = msgspec.structs.replace(entry, seen=self._clock)
        return True


def is_unchanging(value: Any, depth: int = _DEPTH) -> bool:
    """Return whether a value can never change in place: numbers, text, and small tuples and frozensets of such."""
    kind = type(value)
    if kind in _UNCHANGING:
        return True
    if kind in (tuple, frozenset) and depth and len(value) <= _WIDTH:
        return all(is_unchanging(part, depth - 1) for part in value)
    return False
