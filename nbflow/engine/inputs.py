"""What a task reads, resolved: which earlier result each name comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from nbflow.analysis.effects import LIVE, state_of
from nbflow.flow.findings import line_of_text
from nbflow.flow.loops import Candidate, Gate, Loops, Sizes
from nbflow.flow.scope import closed, defined, gather
from nbflow.model import (
    Binding,
    Definition,
    Group,
    Manifest,
    Record,
    TaskFailure,
    TaskId,
)


class InputValue(msgspec.Struct, frozen=True):
    """A stored value that an input is bound to, and the step that made it."""

    group: Group
    artifact: Manifest
    step: str


class Resolved(msgspec.Struct, frozen=True):
    """A step's inputs and replay, found; `waits` names tasks that must settle before all of it is known."""

    inputs: Mapping[str, InputValue] = msgspec.field(default_factory=dict)
    # names that share objects with inputs and hold them yet
    along: Mapping[str, InputValue] = msgspec.field(default_factory=dict)
    # (definition, name) -> value while defining
    binds: Mapping[tuple[int, str], InputValue] = msgspec.field(default_factory=dict)
    definitions: tuple[int, ...] = ()
    again: frozenset[int] = frozenset()  # of them those of the step's own cell that values refer to
    waits: tuple[TaskId, ...] = ()
    failure: TaskFailure | None = None
    skip: str | None = None  # why: a name that it surely reads was left by nobody, as its maker was skipped or caught
    # names that it finds in its process as a task before it there left them -> that execution, where it is known
    live: Mapping[str, str] = msgspec.field(default_factory=dict)


class SettledTasks(msgspec.Struct, frozen=True):
    """What is known of the tasks above: which have settled, with which record, and how long fan-outs are."""

    has: Callable[[TaskId], bool]
    record: Callable[[TaskId], Record | None]  # None where it was skipped or failed
    sizes: Sizes
    together: frozenset[TaskId] = frozenset()  # tasks that the same process runs: what they leave need not be stored
    held: Callable[[Record, str], bool] | None = None  # by hand: whether the kernel has what an execution left


def resolve(
    loops: Loops, task: TaskId, settled: SettledTasks, also: Sequence[Group] = (), extra: Sequence[int] = ()
) -> Resolved:
    """Return a task's inputs and replay, from what has settled above it.

    `also` are values that it may load itself, `extra` definitions that it needs besides those that it names.

    Values that refer to definitions, and functions stored by value, need more names at this step's place: those are
    looked up as if the step had read them, until nothing new appears.
    """
    finding = _Resolving(loops, task, settled)
    step = finding.step
    finding.bind(step.bindings)
    finding.define([*step.definitions, *extra])
    # What a value refers to is known once the value is found, and following that finds more values: a function stored
    # by value reads `g`, and what is stored as `g` refers to the class `C`. Each name is followed once, so that those
    # that refer to each other come to an end; a failure ends it at once, as nothing found after it would be used.
    names: set[str] = set()
    while not finding.failure:
        wanted = finding.wanted(also) - names
        if not wanted:
            break
        names |= wanted
        finding.follow(wanted)
    # Only now, as it goes by the groups of all inputs.
    finding.join()
    return Resolved(
        inputs=finding.inputs,
        along=finding.along,
        binds=finding.binds,
        definitions=tuple(sorted(finding.definitions)),
        again=frozenset(finding.again),
        waits=tuple(sorted(finding.waits, key=lambda need: (need.step, need.index, need.part))),
        failure=finding.failure or (finding.missing if finding.skip is None else None),
        skip=finding.skip,
        live=dict(sorted(finding.live.items())),
    )


class _Resolving:
    """What has been found of one task's inputs so far."""

    def __init__(self, loops: Loops, task: TaskId, settled: SettledTasks) -> None:
        self.loops, self.task, self.settled = loops, task, settled
        self.flow = loops.flow
        self.step = loops.step_of(task)
        self.inputs: dict[str, InputValue] = {}
        self.along: dict[str, InputValue] = {}
        self.binds: dict[tuple[int, str], InputValue] = {}
        self.definitions: set[int] = set()
        self.again: set[int] = set()  # of this very cell: values of an earlier turn or item refer to them
        self.waits: set[TaskId] = set()
        self.live: dict[str, str] = {}
        # steps whose values it finds in its process: those may read whatever their cells read
        self.makers = {each.step for each in settled.together if loops.step_of(each).position < self.step.position}
        self.failure: TaskFailure | None = None
        self.skip: str | None = None
        self.missing: TaskFailure | None = None  # what it surely reads, and nobody left

    def bind(self, bindings: Sequence[Binding]) -> None:
        """Bind each name from the nearest task that has it."""
        for binding in bindings:
            value = self._value(binding, self.loops.candidates(self.task, binding.name, self.settled.sizes))
            if value is not None:
                self.inputs[binding.name] = value

    def join(self) -> None:
        """Find the names that share objects with an input, as far as they still hold them at this place."""
        # A group holds what was stored together, as its names shared objects then. A name may have got another value
        # since: it still shares them only where the value that it has here comes out of the very same group.
        for value in (*self.inputs.values(), *self.binds.values()):
            for name in value.group.names:
                if name in self.inputs or name in self.along:
                    continue
                binding = Binding(name=name, sources=(), sure=False)
                other = self._value(binding, self.loops.candidates(self.task, name, self.settled.sizes))
                if other is not None and (other.group.id, other.group.names) == (value.group.id, value.group.names):
                    self.along[name] = other

    def define(self, orders: Sequence[int]) -> None:
        """Replay these definitions, with the data that they read while defining."""
        for order in orders:
            if order in self.definitions:
                continue
            self.definitions.add(order)
            for binding in self.flow.definitions[order].binds:
                value = self._value(
                    binding, self.loops.of_sources(self.task, binding.name, binding.sources, self.settled.sizes)
                )
                if value is not None:
                    # what it changes while it is replayed has to be as it was before that
                    changes = binding.name in self.flow.definitions[order].changes
                    self.binds[order, binding.name] = value if changes else self._as_it_is(binding.name, value)

    def _as_it_is(self, name: str, value: InputValue) -> InputValue:
        """Return the last version of an object that a definition has bound, as cells since then have changed it."""
        later: list[Record] = []
        for candidate in self.loops.candidates(self.task, name, self.settled.sizes):
            if not self.settled.has(candidate.task):
                self.waits.add(candidate.task)
                return value
            record = self.settled.record(candidate.task) if isinstance(candidate, Candidate) else None
            if record is None or name not in record.artifacts:
                continue
            group = record.artifacts[name].group
            if group >= 0 and record.groups[group] is value.group:
                break
            later.append(record)
        else:
            return value
        for record in reversed(later):
            artifact = record.artifacts[name]
            if name not in record.same or artifact.group < 0:
                break  # from here on the name holds something else, and only the definition has the object
            value = InputValue(record.groups[artifact.group], artifact, record.step)
        return value

    # Candidates come nearest first, and the first that left the name is where a plain run would have its value from.
    # So one that has not settled ends the search, although one behind it has the name: it may still leave it. One that
    # left no such name is passed over, and why is kept: if nobody has left the name, that tells a step to be skipped
    # from a notebook that is wrong.
    def _value(self, binding: Binding, candidates: Iterable[Candidate | Gate]) -> InputValue | None:
        excuse = ""  # why one that would have left the name did not come to it
        silent: dict[str, None] = {}  # steps that ran to their end and left no such name
        for candidate in candidates:
            if isinstance(candidate, Candidate) and candidate.task in self.settled.together:
                self.live[binding.name] = ""
                if candidate.sure:
                    return None
                continue  # where it leaves none, the process has that of the next candidate
            if not self.settled.has(candidate.task):
                self.waits.add(candidate.task)
                return None
            if isinstance(candidate, Gate):
                excuse = excuse or self._without_items(candidate.task)
                continue
            record = self.settled.record(candidate.task)
            if record is None or binding.name not in record.artifacts:
                if candidate.task.step in self.loops.steps:  # else no part of what runs
                    excuse = excuse or _excuse(candidate.task.step, record)
                    silent[candidate.task.step] = None
                continue
            artifact = record.artifacts[binding.name]
            if artifact.group < 0 and self.settled.held is not None and self.settled.held(record, binding.name):
                self.live[binding.name] = record.execution
                self.makers.add(candidate.task.step)
                return None
            if binding.name == LIVE:
                return None  # where no group could be formed its finding has said so
            if artifact.group < 0:
                self._unstored(binding.name, artifact, candidate.task.step)
                return None
            return InputValue(record.groups[artifact.group], artifact, candidate.task.step)
        if any(source.definition is not None for source in binding.sources):
            return None  # replayed
        if binding.sure and binding.name not in self.step.conditional and binding.name not in self.live:
            self._miss(binding.name, excuse, [*silent])
        return None

    def _without_items(self, gate: TaskId) -> str:
        """Return why a fan-out that has settled has left nothing, where it had no items."""
        items = TaskId(step=gate.step, index=gate.index, part="list")
        if self.settled.has(items) and self.settled.record(items) is None:
            return f"{gate.step} was skipped"
        return "" if self.settled.sizes.get((gate.step, gate.index)) else f"the list of {gate.step} is empty"

    def _miss(self, name: str, excuse: str, silent: Sequence[str]) -> None:
        """Take down that a name that the step surely reads has no value.

        The rule follows the cause: who should have left it was skipped, had no items or was caught, and the step is
        skipped in turn; else the notebook is wrong there, as a plain run would say by a NameError. A step with
        `--catch` comes to just that.
        """
        if excuse:
            self.skip = self.skip or f"{name} has no value: {excuse}"
        elif self.step.options.catch is None and self.missing is None:
            makers = " and ".join(self.flow.step(step).label for step in silent[:2])
            self.missing = TaskFailure(
                type="NameError",
                message=f"{self.step.label} reads {name!r}, and "
                + (f"{makers} ended without leaving it" if makers else "no cell above left it"),
                cell=self.step.cell.partition("#")[0],
                line=line_of_text(self.step.source, name),
                fix=f"bind {name} on every path of {makers}, or in a cell above" if makers else f"bind {name} above",
            )

    def _unstored(self, name: str, artifact: Manifest, maker: str) -> None:
        self.failure = self.failure or TaskFailure(
            type="SerializationError",
            message=f"{self.step.label} needs {name!r} of {maker}, which could not be stored: {artifact.error}",
            cell=self.step.cell,
            fix=f"make it in a %%setup cell, or keep it inside {maker} with --out"
            if self.settled.held is None
            else f"run {maker} in this kernel, or `%flow run {self.step.name}`, which runs both in one process",
        )

    def wanted(self, also: Sequence[Group]) -> set[str]:
        """Return the definitions (by id) and global names that the values found so far refer to."""
        groups = [*also, *(value.group for value in (*self.inputs.values(), *self.binds.values()))]
        ids = {f"@{ref.id}" for group in groups for ref in group.definitions}
        makers = [self.loops.steps[name] for name in self.makers if name in self.loops.steps]
        names = {name for step in makers for name in (*step.writes, *(each.name for each in step.bindings))}
        orders = {order for step in makers for order in (*step.definitions, *step.own_definitions)}
        names |= {name for order in orders for name in self.flow.definitions[order].names}
        return ids | {name for group in groups for name in group.free} | {n for n in names if not n.startswith("<")}

    def follow(self, wanted: set[str]) -> None:
        """Bind and replay what values refer to, at this step's place."""
        names: dict[str, bool] = {}
        for word in sorted(wanted):
            if not word.startswith("@"):
                names[word] = False
                continue
            definition = self._definition(word[1:])
            if definition is None:
                continue
            # A definition brings those that its own replay needs. Names that its body or annotations read later, and
            # what cells have set on it, are not sure to be read: without a value they are left out, and the cell
            # itself fails if it comes to them.
            orders = sorted(closed(self.flow.definitions, [definition.order]))
            self.define(orders)
            self.again |= {order for order in orders if self.flow.definitions[order].cell == self.step.cell}
            definitions = [self.flow.definitions[order] for order in orders]
            names.update((free, False) for each in definitions for free in each.free)
            hint_groups = (defined(each.hints, self.flow.writers, self.step.position) for each in definitions)
            names.update((hint, False) for hints in hint_groups for hint in hints)
            states = {state_of(name) for each in definitions for name in each.names}  # what cells have set on them
            names.update(dict.fromkeys(states & self.flow.writers.keys(), False))
        need = gather(self.flow.writers, self.flow.definitions, names, position=self.step.position)
        self.define(sorted(need.definitions))
        self.bind([binding for name, binding in sorted(need.bindings.items()) if name not in self.inputs])

    def _definition(self, identity: str) -> Definition | None:
        definition = self.loops.definitions_by_id.get(identity)
        if definition is not None:
            return definition
        name = identity.partition("@")[0]
        now = next((d for d in self.flow.definitions if d.id.partition("@")[0] == name), None)
        maker = next((v.step for v in self.inputs.values() if any(r.id == identity for r in v.group.definitions)), "?")
        self.failure = self.failure or TaskFailure(
            type="OutdatedError",
            message=f"{self.step.label} reads a value that refers to {name!r} as it was before it was "
            + (f"edited (now in cell {now.position})" if now else "removed"),
            cell=now.cell if now else self.step.cell,
            line=now.line if now else None,
            fix=f"run {maker} again",
        )
        return None


def _excuse(step: str, record: Record | None) -> str:
    """Return why a task that has settled did not come to leave a name, "" where it ran to its end."""
    if record is None or record.skipped is not None:
        return f"{step} was skipped"
    return f"{step} failed, and was caught" if record.caught else ""
