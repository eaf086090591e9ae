"""Names whose values are in the store and that no cell has read yet: bound when one does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping

from nbflow.analysis.effects import PROCESS, is_made, made_by, owner_of, state_of
from nbflow.engine.inputs import InputValue
from nbflow.engine.keys import as_replay
from nbflow.flow.scope import gather
from nbflow.kernel.task import Kernel, execute
from nbflow.kernel.versions import Ledger
from nbflow.model import Cell, Definition, Flow, Group, Manifest
from nbflow.store import artifacts
from nbflow.task import random_state, replay
from nbflow.task.definition_parts import is_stateful
from nbflow.task.definition_state import names_of

SMALL = 1_000_000
"""Bytes of a group of values that is bound at once."""


def size_of(group: Group) -> int:
    """Return the bytes of a stored group."""
    return group.stream.length + sum(buffer.length for buffer in group.buffers)


class Waiting:
    """What a run, or a reused step, has left for the namespace: stored values, and definitions to replay."""

    def __init__(self, kernel: Kernel, ledger: Ledger, flow: Callable[[], Flow]) -> None:
        self.ip = kernel.ip
        self.kernel = kernel
        self.ledger = ledger
        self._flow = flow
        self._values: dict[str, InputValue] = {}
        self._states: dict[str, InputValue] = {}  # class or function that is not there yet -> what cells have set on it
        self._made: dict[str, InputValue] = {}  # what definitions that compute have made
        self._definitions: dict[str, str] = {}  # name -> the definition's id

    def __bool__(self) -> bool:
        return bool(self._values or self._definitions)

    def names(self) -> list[str]:
        """Return the names that wait, sorted."""
        return sorted({*self._values, *self._definitions})

    def manifest(self, name: str) -> Manifest | None:
        """Return what is known of a stored value that waits, None for any other name."""
        value = self._values.get(name)
        return value.artifact if value is not None else None

    def bind_small(self) -> None:
        """Bind the values that take no time, so that completion, debuggers and variable inspectors find them.

        What would import a package first waits, and so does what cannot be loaded: the cell that reads it says so.
        """
        for name, value in tuple(self._values.items()):
            package = value.artifact.type.partition(".")[0]
            quick = "." not in value.artifact.type or package in sys.modules
            if name in self._values and quick and size_of(value.group) <= SMALL:
                with contextlib.suppress(Exception):  # the user's classes and definitions may raise anything
                    self._bind_value(name)

    def drop(self, names: Iterable[str]) -> None:
        """Forget names that have got other values meanwhile."""
        for name in names:
            self._values.pop(name, None)
            self._states.pop(name, None)
            self._definitions.pop(name, None)

    def add(self, values: Mapping[str, InputValue]) -> None:
        """Have these names wait for their stored values, unless the namespace holds exactly these already.

        What travels beside the names is put where it belongs at once.
        """
        current = self.ledger.current({n: value for n, value in values.items() if not n.startswith("<")})
        for name, value in values.items():
            if name.startswith("<"):
                continue
            self.drop([name])
            if name in current:
                continue
            self.ip.user_ns.pop(name, None)
            self._values[name] = value
        for name, value in values.items():  # last: names that share objects with it are bound along with it
            if name.startswith("<"):
                self._put(name, value)

    def _put(self, name: str, stored: InputValue) -> None:
        """Put random states, and what steps have set in the process and on definitions, in force from now on."""
        owner = owner_of(name)
        if owner is not None:
            self._states[owner] = stored
            self._set_state(owner)
            return
        if is_made(name):
            self._made[name] = stored
            return
        value = self.kernel.load(stored.group, frozenset({name}))[name]
        if name == PROCESS:
            self.kernel.process.put(value)
        else:
            random_state.restore(name, value)

    def _set_state(self, name: str) -> None:
        """Set on a class or function, if it is there, what cells have set on it."""
        value = self.ip.user_ns.get(name)
        if name in self._states and is_stateful(value):
            stored, of = self._states.pop(name), state_of(name)
            content, group = stored.artifact.content_id, stored.group
            definitions = self.kernel.definitions
            if len(group.names) == 1:
                definitions.switch(value, content, lambda: self.kernel.load(group, frozenset({of}))[of])
                return
            loaded = self.kernel.load(group, frozenset(group.names))
            definitions.switch(value, content, lambda: loaded[of], anew=True)
            for each, other in loaded.items():
                content = artifacts.content_id(group, each)
                waiting = self._values.get(each)
                held = waiting.artifact.content_id if waiting is not None else self.ledger.content_of(each)
                if owner_of(each) is None and held == content:
                    self._values.pop(each, None)
                    self.ip.user_ns[each] = other
                    artifact = Manifest(name=each, type="", group=0, content_id=content)
                    self.ledger.bind_value(each, other, InputValue(group, artifact, stored.step))

    def add_definition(self, definition: Definition) -> None:
        """Let a definition be replayed when its names are read, where the namespace has none of that name."""
        for name in definition.names:
            if name not in self.ip.user_ns and name not in self._values:
                self._definitions[name] = definition.id

    def bind(self, names: Iterable[str], cell: Cell | None = None) -> None:
        """Bind those of the names that a cell reads which wait, and what the functions behind them read."""
        flow = self._flow()
        reads = {name: False for name in names if name in flow.writers}
        need = gather(flow.writers, flow.definitions, reads, position=cell.position if cell else None)
        for name in dict.fromkeys([*reads, *need.bindings]):
            if name in self._values:
                self._bind_value(name)
        queue = [order for order in need.definitions if self._definitions.keys() & set(flow.definitions[order].names)]
        for order in sorted(queue):
            self._define(flow.definitions[order])

    def _bind_value(self, name: str) -> None:
        values = self._values[name]
        by_id = {definition.id: definition for definition in self._flow().definitions}
        for reference in values.group.definitions:
            definition = by_id.get(reference.id)
            if definition is not None:
                self._define(definition)
        for each, value in self.kernel.load(values.group, frozenset(values.group.names)).items():
            waiting = self._values.get(each)
            if waiting is not None and waiting.group.id == values.group.id:
                del self._values[each]
                self.ip.user_ns[each] = value
                self.ledger.bind_value(each, value, waiting)

    def _define(self, definition: Definition) -> None:
        """Replay a definition in the user's namespace, after what it requires."""
        definitions = self._flow().definitions
        for order in sorted({*definition.requires, definition.order}):
            each = definitions[order]
            if each.kind != "definition" or self.ledger.holds(each.id, each.names):
                continue
            for binding in each.binds:
                if binding.name in self._values:
                    self._bind_value(binding.name)
            statement = as_replay(each)
            stored = {name: value for name, value in self._made.items() if name == made_by(each.names)}
            made = {n: self.kernel.load(v.group, frozenset(v.group.names))[n] for n, v in stored.items()}
            if not replay.put_made(each.names, made, self.ip.user_ns):
                execute(self.ip, statement)
            binds = {bind.name: self.ledger.content_of(bind.name) for bind in each.binds}
            binds |= {name: value.artifact.content_id for name, value in stored.items()}
            self.ledger.bind_definition(each.id, each.names, binds)
            replay.register(statement, self.ip.user_ns, self.kernel.registry)
            self.kernel.definitions.see(names_of([each]), self.ip.user_ns)
            for name in each.names:
                self._set_state(name)
            self.drop(each.names)
