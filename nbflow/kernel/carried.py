"""What travels beside the names, in the live kernel: which version of it is there, and how a step gets its own.

A process of a task's own has all of it as the steps above have left it. The kernel has it as the cell that ran last has
left it, whatever its place in the document. So each step is given the version of its place, and what the user has made
of it meanwhile is put back after the step, as with names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from nbflow.analysis.effects import state_of
from nbflow.model import MISSING, TaskSpec
from nbflow.store import artifacts
from nbflow.store.serialize.registry import Registry
from nbflow.task import process_state, random_state
from nbflow.task.definition_parts import is_same, is_stateful, prints_of
from nbflow.task.definition_state import DefinitionState, attributes_of, names_of, put_state, reset
from nbflow.task.import_settings import ImportSettings
from nbflow.task.process_state import Change, Changes, Taken
from nbflow.task.replay import Place, place_of

Key = tuple[str, str]
"""A part of the process, and a key in it."""


class ProcessVersions:
    """What cells have set in the kernel's process, and what was there before any of them did."""

    def __init__(self) -> None:
        self.imports = ImportSettings()
        self._base: dict[Key, Any] = {}
        self.taken: Taken = {}  # before the cell that runs now
        self._setup: dict[Place, Change] = {}  # set-up statements that have run here, and what each has set

    def take(self) -> Taken:
        """Return the process as it is now, without what imports have set by themselves."""
        return self.imports.without(process_state.take())

    # ------------------------------------------------------------ what happens

    def ran(self, statements: Sequence[Place], before: Taken) -> None:
        """Take down that set-up statements have run one after the other, in a process that was as `before`."""
        last = self._setup.get(statements[-1], ("", {}, {}))
        change = self.see(before)
        self.executed(statements)
        self._setup[statements[-1]] = self._with_what_stands(change, last)

    def _with_what_stands(self, change: Change, last: Change) -> Change:
        """Return what a statement has set, with what it set when it ran last and has found to be so still."""
        _, settings, removals = change
        settings, now = {part: {**values} for part, values in settings.items()}, self.take()
        for part, values in last[1].items():
            for name, value in values.items():
                is_edit = part in process_state.LISTS
                if is_edit or _same(now.get(part, {}).get(name, MISSING), value):
                    settings.setdefault(part, {}).setdefault(name, value)
        return "", settings, {**last[2], **removals}

    def executed(self, statements: Iterable[Place]) -> None:
        """Take down that set-up statements have run in a step: what they set is the step's own change."""
        for place in statements:
            self._setup[place] = ("", {}, {})

    def has_run(self, statement: Place) -> bool:
        """Return whether a set-up statement has run in this kernel: it is never executed a second time."""
        return statement in self._setup

    def see(self, before: Taken, now: Taken | None = None) -> Change:
        """Take down how the process was before what it differs from now; return the difference."""
        before = self.imports.without(before)
        now = self.take() if now is None else self.imports.without(now)
        for part, name in _touched(before, now):
            self._base.setdefault((part, name), before[part].get(name, MISSING))
        return ("", *process_state.difference(before, now))

    def rebase(self, before: Taken) -> None:
        """Take what a cell that is no part of the flow has set for what was there from the start."""
        before, now = self.imports.without(before), self.take()
        for key in _touched(before, now) & self._base.keys():
            part, name = key
            if _same(before[part].get(name, MISSING), self._base[key]):
                self._base[key] = now[part].get(name, MISSING)

    def environment(self) -> dict[str, str]:
        """Return the environment's variables as they were before any cell set one."""
        variables = dict(os.environ)
        for (part, name), value in [*self._base.items()]:  # runs ask for it in threads of their own
            if part == "environment":
                variables.pop(name, None)
                variables |= {} if value is MISSING else {name: value}
        return variables

    # ------------------------------------------------------------ what a step is to find

    def at(self, spec: TaskSpec, above: Changes, now: Taken) -> dict[Key, Any]:
        """Return what a process that is as `now` holds at a task's place, where cells above have set anything."""
        # Set-up statements and steps set the same options, so only document order says which of two values counts.
        # What has been set by cells below the task is not among them: a run would not have set it yet.
        setup = [(s.position, self._setup[place_of(s)]) for s in spec.replay if self.has_run(place_of(s))]
        steps = [(spec.places.get(change[0], spec.position), change) for change in above]
        return self._overlaid((change for _, change in sorted([*setup, *steps], key=lambda each: each[0])), now)

    def _overlaid(self, changes: Iterable[Change], now: Taken) -> dict[Key, Any]:
        """Return what changes have set, one after the other; MISSING for what they took away."""
        settings: dict[Key, Any] = {}
        for _, new, gone in changes:
            for part, values in new.items():
                for name, value in values.items():
                    key = (part, name)
                    here = now.get(part, {}).get(name, MISSING)
                    is_unkept = part == process_state.ENVIRONMENT and value is process_state.UNKEPT
                    before = settings.get(key, self._base.get(key, here))
                    settings[key] = here if is_unkept else process_state.applied(part, value, before)
            settings.update({(part, name): MISSING for part, names in gone.items() for name in names})
        return settings

    def differences(self, wanted: Mapping[Key, Any], now: Taken, *, only: bool = False) -> dict[Key, Any]:
        """Return what has to be set for the process to be as wanted, and as it was at the start in all else.

        With `only` all else stays as it is.
        """
        differences = {}
        for key in wanted if only else {**self._base, **wanted}:
            part, name = key
            if part not in now:
                continue  # nobody has imported the library: it is set once somebody has
            target = wanted.get(key, self._base.get(key, MISSING))
            there = now.get(part, {}).get(name, MISSING)
            if not _same(there, target):
                differences[key] = target
        return differences

    def switch(self, found: Mapping[Key, Any], now: Taken) -> Callable[[], None]:
        """Set what `differences` found; return what sets again what the user had, where a cell has left alone this."""
        had = {}
        for key, target in found.items():
            part, name = key
            there = now.get(part, {}).get(name, MISSING)
            if not _same(there, self._base.setdefault(key, there)):
                had[key] = there
            self._set(key, target)

        def put_back() -> None:
            after = self.take() if had else {}
            for key, value in had.items():
                if _same(after.get(key[0], {}).get(key[1], MISSING), found[key]):
                    self._set(key, value)

        return put_back

    def _set(self, key: Key, value: Any) -> None:
        part, name = key
        if value is MISSING:
            process_state.put(("", {}, {part: (name,)}))
        else:
            process_state.put(("", {part: {name: self.imports.added(part, value)}}, {}))

    def put(self, above: Changes) -> None:
        """Set what steps have set that have not run here."""
        now = self.take()
        self.switch(self.differences(self._overlaid(above, now), now, only=True), now)
        self.taken = self.take()  # the cell that asked for it has not set it itself


def _same(one: Any, other: Any) -> bool:
    if one is MISSING or other is MISSING:
        return one is other
    return not process_state.differs(one, other)


def _touched(before: Taken, now: Taken) -> set[Key]:
    """Return the keys that differ between two times; of a library that was not loaded before nothing does."""
    return {
        (part, name) for part, values in now.items() if part in before and process_state.differs(before[part], values)
        for name in values.keys() | before[part].keys()
        if not _same(before[part].get(name, MISSING), values.get(name, MISSING))
    }  # fmt: skip


# ---------------------------------------------------------------- classes and functions


class SetState(msgspec.Struct, frozen=True):
    """Which version of what cells set on it a class or function has: a content id, "" as its source says."""

    value: Any
    content_id: str
    prints: Mapping[str, str]
    keys: Mapping[str, Any] = MappingProxyType({})  # the state that stands in the store, by its keys


class DefinitionVersions:
    """What cells have set on the kernel's classes and functions, and how each was when it was defined."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._fresh: dict[int, DefinitionState] = {}
        self._held: dict[int, SetState] = {}

    def see(self, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
        """Take down classes and functions that have just been defined; what is known already stays."""
        for name in names:
            value = namespace.get(name)
            if is_stateful(value) and self.fresh(value) is None:
                self._fresh[id(value)] = DefinitionState.of(value, self._registry, namespace).copied()
                self._held[id(value)] = SetState(value, "", self._fresh[id(value)].prints)

    def fresh(self, value: Any) -> DefinitionState | None:
        """Return how a class or function was when it was defined, None where nobody saw it."""
        entry = self._fresh.get(id(value))
        return entry if entry is not None and entry.value is value else None

    def holds(self, value: Any, content_id: str) -> bool:
        """Return whether a class or function has exactly this version of what cells set on it."""
        entry = self._held.get(id(value))
        return (
            entry is not None and entry.value is value and entry.content_id == content_id
            and prints_of(value, self._registry) == entry.prints
        )  # fmt: skip

    def bind(self, value: Any, content_id: str, state: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Take down that a class or function has this version now, which stands in the store as `state`."""
        if is_stateful(value):
            keys = {"set": tuple(state.get("set", ())), "gone": state.get("gone", [])}
            self._held[id(value)] = SetState(value, content_id, prints_of(value, self._registry), keys)

    def keep(self, value: Any, content_id: str, state: Mapping[str, Any]) -> None:
        """Take down that a class or function is as a task has left it, where it is the one that the task had."""
        if is_stateful(value):
            now = attributes_of(value)
            if all(is_same(now.get(key, MISSING), each) for key, each in state.get("set", {}).items()):
                self.bind(value, content_id, state)

    def state(self, value: Any, content_id: str) -> Any:
        """Return what cells have set on a class or function where that is this version, else MISSING."""
        if not self.holds(value, content_id):
            return MISSING
        keys, now = self._held[id(value)].keys, attributes_of(value)
        return {"set": {key: now[key] for key in keys.get("set", ()) if key in now}, "gone": keys.get("gone", [])}

    def switch(
        self, value: Any, content_id: str, state: Callable[[], Mapping[str, Any]], *, anew: bool = False
    ) -> Callable[[], None] | None:
        """Give a class or function a version of what cells set on it; return what puts back a later one.

        `anew`: with the objects of `state` also where it has that version, as others are given the same objects.
        """
        self.see(["it"], {"it": value})
        if not anew and self.holds(value, content_id):
            return None
        fresh, held = self._fresh[id(value)], self._held[id(value)]
        had = DefinitionState.of(value, self._registry)
        reset(value, fresh.copied())
        marks = state() if content_id else {}
        if marks:
            put_state(value, marks)
        self.bind(value, content_id, marks)
        bound = self._held[id(value)]
        if had.prints == fresh.prints:
            return None

        def put_back() -> None:
            if self._held.get(id(value)) is bound and prints_of(value, self._registry) == bound.prints:
                reset(value, had)
                self._held[id(value)] = held

        return put_back


def wanted_states(spec: TaskSpec) -> dict[str, str]:
    """Return the version of what cells set on it that a task needs of each definition: a content id, "" for none."""
    names = names_of(spec.replay)
    states = dict.fromkeys(names, "")
    for name in names:
        ref = spec.inputs.get(state_of(name))
        if ref is not None:
            states[name] = artifacts.content_id(spec.groups[ref.group], ref.name)
    return states


# ---------------------------------------------------------------- random states


def switch_random(name: str, state: Any) -> Callable[[], None]:
    """Make a global random state this one; return what puts back the user's where nothing has been drawn since."""
    had = random_state.read(name)
    random_state.restore(name, state)
    as_put = random_state.mark(name)

    def put_back() -> None:
        if random_state.mark(name) == as_put:
            random_state.restore(name, had)

    return put_back
