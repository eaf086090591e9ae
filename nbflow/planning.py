"""What a task is made of, its key, and whether a past execution can stand for it. Pure: records come in as data."""

from __future__ import annotations

import difflib
import hashlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nbflow.effects import AXES, state_of
from nbflow.looping import Candidate, Gate, Loops, Sizes
from nbflow.model import (
    FORMAT,
    Artifact,
    Binding,
    Change,
    Definition,
    Flow,
    Group,
    KeyParts,
    Observations,
    Reason,
    Record,
    Ref,
    Replay,
    Step,
    TaskFailure,
    TaskId,
)
from nbflow.problems import line_of_text
from nbflow.scope import closed, defined, gather


@dataclass(frozen=True)
class Value:
    """A stored value that an input is bound to, and the step that made it."""

    group: Group
    artifact: Artifact
    step: str


@dataclass(frozen=True)
class Resolved:
    """A step's inputs and replay, found; `waits` names tasks that must settle before all of it is known."""

    inputs: Mapping[str, Value] = field(default_factory=dict)
    along: Mapping[str, Value] = field(default_factory=dict)  # names that share objects with inputs and hold them yet
    binds: Mapping[tuple[int, str], Value] = field(default_factory=dict)  # (definition, name) -> value while defining
    definitions: tuple[int, ...] = ()
    again: frozenset[int] = frozenset()  # of them those of the step's own cell that values refer to
    waits: tuple[TaskId, ...] = ()
    failure: TaskFailure | None = None
    skip: str | None = None  # why: a name that it surely reads was left by nobody, as its maker was skipped or caught


@dataclass(frozen=True)
class Settled:
    """What is known of the tasks above: which have settled, with which record, and how long fan-outs are."""

    has: Callable[[TaskId], bool]
    record: Callable[[TaskId], Record | None]  # None where it was skipped or failed
    sizes: Sizes


# ---------------------------------------------------------------- inputs


def resolve(
    loops: Loops, task: TaskId, settled: Settled, also: Sequence[Group] = (), extra: Sequence[int] = ()
) -> Resolved:
    """A task and what has settled above it in; its inputs and replay out.

    `also` are values that it may load itself, `extra` definitions that it needs besides those that it names.

    Values that refer to definitions, and functions stored by value, need more names at this step's place: those are
    looked up as if the step had read them, until nothing new appears.
    """
    finding = _Resolving(loops, task, settled)
    step = finding.step
    finding.bind(step.bindings)
    finding.define([*step.definitions, *extra])
    seen: set[str] = set()
    while not finding.failure:
        wanted = finding.wanted(also) - seen
        if not wanted:
            break
        seen |= wanted
        finding.follow(wanted)
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
    )


class _Resolving:
    def __init__(self, loops: Loops, task: TaskId, settled: Settled) -> None:
        self.loops, self.task, self.settled = loops, task, settled
        self.flow = loops.flow
        self.step = loops.step_of(task)
        self.inputs: dict[str, Value] = {}
        self.along: dict[str, Value] = {}
        self.binds: dict[tuple[int, str], Value] = {}
        self.definitions: set[int] = set()
        self.again: set[int] = set()  # of this very cell: values of an earlier turn or item refer to them
        self.waits: set[TaskId] = set()
        self.failure: TaskFailure | None = None
        self.skip: str | None = None
        self.missing: TaskFailure | None = None  # what it surely reads, and nobody left

    def bind(self, bindings: Sequence[Binding]) -> None:
        """Each name from the nearest task that has it."""
        for binding in bindings:
            value = self._value(binding, self.loops.candidates(self.task, binding.name, self.settled.sizes))
            if value is not None:
                self.inputs[binding.name] = value

    def join(self) -> None:
        """Names that share objects with an input, as far as they still hold them at this place."""
        for value in list(self.inputs.values()):
            for name in value.group.names:
                if len(value.group.names) == 1 or name in self.inputs or name in self.along:
                    continue
                binding = Binding(name=name, sources=(), sure=False)
                other = self._value(binding, self.loops.candidates(self.task, name, self.settled.sizes))
                if other is not None and (other.group.id, other.group.names) == (value.group.id, value.group.names):
                    self.along[name] = other

    def define(self, orders: Sequence[int]) -> None:
        """These definitions are replayed, with the data that they read while defining."""
        for order in orders:
            if order in self.definitions:
                continue
            self.definitions.add(order)
            for binding in self.flow.definitions[order].binds:
                value = self._value(
                    binding, self.loops.of_sources(self.task, binding.name, binding.sources, self.settled.sizes)
                )
                if value is not None:
                    self.binds[order, binding.name] = value

    def _value(self, binding: Binding, candidates: Iterable[Candidate | Gate]) -> Value | None:
        excuse = ""  # why one that would have left the name did not come to it
        silent: dict[str, None] = {}  # steps that ran to their end and left no such name
        for candidate in candidates:
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
            if artifact.group < 0:
                self._unstored(binding.name, artifact, candidate.task.step)
                return None
            return Value(record.groups[artifact.group], artifact, candidate.task.step)
        if any(source.definition is not None for source in binding.sources):
            return None  # replayed
        if binding.sure and binding.name not in self.step.conditional:
            self._miss(binding.name, excuse, [*silent])
        return None

    def _without_items(self, gate: TaskId) -> str:
        """Why a fan-out that has settled has left nothing, where it had no items."""
        items = TaskId(step=gate.step, index=gate.index, part="list")
        if self.settled.has(items) and self.settled.record(items) is None:
            return f"{gate.step} was skipped"
        return "" if self.settled.sizes.get((gate.step, gate.index)) else f"the list of {gate.step} is empty"

    def _miss(self, name: str, excuse: str, silent: Sequence[str]) -> None:
        """A name that the step surely reads has no value.

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

    def _unstored(self, name: str, artifact: Artifact, maker: str) -> None:
        self.failure = self.failure or TaskFailure(
            type="SerializationError",
            message=f"{self.step.label} needs {name!r} of {maker}, which could not be stored: {artifact.error}",
            cell=self.step.cell,
            fix=f"make it in a %%setup cell, or keep it inside {maker} with --out",
        )

    def wanted(self, also: Sequence[Group]) -> set[str]:
        """Definitions (by id) and global names that the values found so far refer to."""
        groups = [*also, *(value.group for value in (*self.inputs.values(), *self.binds.values()))]
        ids = {f"@{ref.id}" for group in groups for ref in group.definitions}
        return ids | {name for group in groups for name in group.free}

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
            orders = sorted(closed(self.flow.definitions, [definition.order]))
            self.define(orders)
            self.again |= {order for order in orders if self.flow.definitions[order].cell == self.step.cell}
            made = [self.flow.definitions[order] for order in orders]
            names.update((free, False) for each in made for free in each.free)
            asked = (defined(each.hints, self.flow.writers, self.step.position) for each in made)
            names.update((hint, False) for hints in asked for hint in hints)
            kept = {state_of(name) for each in made for name in each.names}  # what cells have set on them
            names.update(dict.fromkeys(kept & self.flow.writers.keys(), False))
        need = gather(self.flow.writers, self.flow.definitions, names, position=self.step.position)
        self.define(sorted(need.definitions))
        self.bind([binding for name, binding in sorted(need.bindings.items()) if name not in self.inputs])

    def _definition(self, identity: str) -> Definition | None:
        found = self.loops.definitions_by_id.get(identity)
        if found is not None:
            return found
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
    """Why a task that has settled did not come to leave a name, an empty string where it ran to its end."""
    if record is None or record.skipped is not None:
        return f"{step} was skipped"
    return f"{step} failed, and was caught" if record.caught else ""


# ---------------------------------------------------------------- spec parts and key


def pack(values: Sequence[Value]) -> tuple[tuple[Group, ...], Callable[[Value], Ref]]:
    """Values in; their groups, each once, and a function from a value to its Ref, out."""
    groups: dict[tuple[str, tuple[str, ...]], int] = {}
    order: list[Group] = []
    for value in values:
        identity = (value.group.id, value.group.names)
        if identity not in groups:
            groups[identity] = len(order)
            order.append(value.group)
    return tuple(order), lambda value: Ref(name=value.artifact.name, group=groups[value.group.id, value.group.names])


def replay_of(
    flow: Flow, step: Step, resolved: Resolved, ref: Callable[[Value], Ref]
) -> tuple[tuple[Replay, ...], tuple[Replay, ...]]:
    """A step with its inputs found in; what is replayed before it, and the definitions that it makes itself, out."""

    def entry(definition: Definition) -> Replay:
        binds = {name: ref(value) for (order, name), value in resolved.binds.items() if order == definition.order}
        return Replay(
            id=definition.id, kind=definition.kind, cell=definition.cell, position=definition.position,
            line=definition.line, source=definition.source, names=definition.names, binds=binds,
        )  # fmt: skip

    before = tuple(
        entry(flow.definitions[order]) for order in resolved.definitions
        if flow.definitions[order].cell != step.cell or order in resolved.again
    )  # fmt: skip
    own = tuple(
        entry(definition) for definition in flow.definitions
        if definition.cell == step.cell and definition.kind == "definition"
    )  # fmt: skip
    return before, own


def key_parts(flow: Flow, step: Step, resolved: Resolved, *, code: str | None = None, item: str = "") -> KeyParts:
    """A step with its inputs found in; everything that its key is made of out."""
    definitions, setup = _replayed([flow.definitions[order] for order in resolved.definitions], step)
    parameters = {parameter.name for parameter in flow.parameters}
    given: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for name, value in resolved.inputs.items():
        if name in parameters:
            given[name] = f"{value.artifact.preview}#{value.artifact.content_id}"
        else:
            inputs[name] = value.artifact.content_id
    for (order, name), value in resolved.binds.items():
        inputs[f"{name} while defining {', '.join(flow.definitions[order].names)}"] = value.artifact.content_id
    options = {} if step.options.outputs is None else {"out": ",".join(step.options.outputs)}
    if resolved.along:
        options["along"] = ",".join(sorted(resolved.along))
    return KeyParts(
        code=code or step.code, definitions=definitions, setup=setup, inputs=inputs, parameters=given,
        item=item, environment=environment_id(step), options=options,
    )  # fmt: skip


def _replayed(found: Sequence[Definition], step: Step) -> tuple[dict[str, str], tuple[str, ...]]:
    """What is replayed for a step, in document order, in; its definitions by label, and its set-up, out.

    Imports and set-up run code and keep their order. Where each name is defined once, all else may stand anywhere.
    """
    others = [each for each in found if each.cell != step.cell]
    made = [each for each in others if each.kind == "definition"]
    imports = [each for each in made if each.origins]
    names = [name for each in made for name in each.names]
    if len(names) == len({*names}):
        made = [*imports, *sorted((each for each in made if not each.origins), key=lambda each: each.id)]
    setup = (
        f"{each.id} after {sum(one.order < each.order for one in imports)}" for each in others if each.kind == "setup"
    )
    return {_place(each): each.id for each in made}, tuple(setup)


def _place(definition: Definition) -> str:
    return f"{', '.join(definition.names)} (cell {definition.position}, line {definition.line})"


def environment_id(step: Step) -> str:
    """What of the machine a result may depend on before anything has run: Python, platform, the step's own packages."""
    words = [f"python {sys.version_info[0]}.{sys.version_info[1]}", sys.platform, platform.machine()]
    return " ".join([*words, *step.options.pip, step.options.env or ""]).strip()


def task_key(parts: KeyParts, *, version: int = FORMAT) -> str:
    """A task's parts in; its key out: names of cells, steps and places in the document do not enter.

    `version`: the datastore's format that a past run had.
    """
    material = [
        version,
        parts.code,
        list(parts.definitions.values()),
        list(parts.setup),
        [[name.partition(" while defining ")[0], identity] for name, identity in sorted(parts.inputs.items())],
        sorted((name, text.rpartition("#")[2]) for name, text in parts.parameters.items()),
        parts.item,
        parts.environment,
        sorted(parts.options.items()),
        sorted(parts.files.items()),
    ]
    return digest(material)


def digest(material: Any) -> str:
    """Anything that JSON holds in; its hash out."""
    return hashlib.blake2b(msgspec.json.encode(material), digest_size=20).hexdigest()


# ---------------------------------------------------------------- reuse


@dataclass(frozen=True)
class Choice:
    """The record that stands for a task, or None, with the reasons."""

    record: Record | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Wishes:
    """What the user said about reuse of one task."""

    fresh: bool = False
    no_cache: bool = False
    expires: float | None = None
    required: frozenset[str] = frozenset()
    tracked: tuple[str, ...] = ()  # names that are changed below: what shares objects with them is stored with them
    empty: bool = False  # an execution that left nothing may be reused too: a list without items
    silent: bool = False  # the same where it did nothing outside either: a plain cell that changes nothing
    now: float = 0.0


def choose(records: Sequence[Record], wishes: Wishes, holds: Callable[[Observations], Reason | None]) -> Choice:
    """The records under a task's key, newest first, in; the newest whose observations still hold out."""
    if wishes.fresh:
        return Choice(None, (("fresh", "run again because --fresh asked for it"),))
    if wishes.no_cache:
        return Choice(None, (("no-cache", "never reused: --no-cache"),))
    refusals: list[Reason] = []
    for record in records:
        refusal = _refusal(record, wishes) or apart(record, wishes.tracked) or holds(record.observations)
        if refusal is None:
            age = describe_age((wishes.now or time.time()) - record.created_at)
            return Choice(record, (("reused", f"from {record.run}, {age}"),))
        refusals.append(refusal)
    return Choice(None, tuple(refusals[:1]))


def apart(record: Record, tracked: Sequence[str]) -> Reason | None:
    """A record and the names that a step below may change in; why it cannot stand for its task, None where it can.

    What it left shares objects with such an input, and the two were stored apart.
    """
    if AXES in tracked and AXES in record.shares:
        return ("input", "what it left shares an index, whose names a step below sets")
    lost = [name for name in record.shares if name not in record.artifacts and name != AXES]
    if not lost or ("*" not in tracked and set(tracked).isdisjoint(record.shares)):
        return None
    return ("input", f"{', '.join(lost)} shares objects with what it left, which a step below changes")


AHEAD = 60.0
"""Seconds that a clock may be ahead before the ages that it tells count for nothing."""


def _refusal(record: Record, wishes: Wishes) -> Reason | None:
    age = (wishes.now or time.time()) - record.created_at
    if wishes.expires is not None and age > wishes.expires:
        return ("expired", f"older than --expires: {describe_age(age)}")
    if wishes.expires is not None and age < -AHEAD:
        return ("expired", "its age is not known: the clock of the machine that made it was ahead")
    if record.skipped is not None:
        return None
    if record.caught:
        return ("failed", f"it failed in {record.run}, and was caught")
    if (
        not wishes.empty
        and not (wishes.silent and _did_nothing(record.observations))
        and not record.outputs
        and not any(artifact.group >= 0 for artifact in record.artifacts.values())
    ):
        return ("no-output", "it left nothing that could be reused: no artifact, nothing shown")
    lost = [name for name in sorted(wishes.required) if name in record.artifacts and record.artifacts[name].group < 0]
    if lost:
        return ("no-output", f"{', '.join(lost)} was not stored by the earlier execution")
    return None


def _did_nothing(seen: Observations) -> bool:
    """Return whether an execution was not seen to do anything outside its process."""
    return not seen.written and {"socket", "subprocess", "database"}.isdisjoint(seen.volatile)


def describe_age(seconds: float) -> str:
    """Seconds in; `3 h old` out."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} old"
    return f"{max(seconds, 0):.0f} s old"


def changes(parts: KeyParts, source: str, previous: Record | None) -> tuple[Change, ...]:
    """A task's parts now, its source, and the record that stood for it last time in; what differs out."""
    if previous is None:
        return (Change(code="new", what="it has not run before"),)
    older = Change(code="new", what="an older nbflow ran it: its results are read, not reused")
    found = differences(previous.parts, previous.source, parts, source)
    return (older, *found) if previous.format != FORMAT else found


def differences(old: KeyParts, before: str, parts: KeyParts, source: str) -> tuple[Change, ...]:
    """A task's parts and source then and now in; what differs out."""
    found: list[Change] = []
    if parts.code != old.code:
        found.append(_code_change(before, source))
    found.extend(_definition_changes(old, parts))
    if parts.setup != old.setup:
        found.append(Change(code="code", what="the set-up above it changed"))
    found.extend(_named("parameter", old.parameters, parts.parameters))
    found.extend(_named("input", old.inputs, parts.inputs))
    if parts.item != old.item:
        found.append(Change(code="input", what="the item changed"))
    if parts.environment != old.environment:
        what = "Python or the machine changed"
        found.append(Change(code="environment", what=what, before=old.environment, after=parts.environment))
    if parts.options.get("along") != old.options.get("along"):
        found.append(Change(code="input", what="other names share objects with its inputs now"))
    if parts.options.get("out") != old.options.get("out"):
        found.append(
            Change(
                code="code", what="--out changed", before=old.options.get("out", ""), after=parts.options.get("out", "")
            )
        )
    found.extend(_named("file", old.files, parts.files))
    return tuple(found)


def _code_change(before: str, after: str) -> Change:
    """The first line that differs between two sources."""
    old, new = before.split("\n"), after.split("\n")
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            was, now = "\n".join(old[i1:i2]), "\n".join(new[j1:j2])
            if not was.strip() and not now.strip():
                continue
            return Change(code="code", what=f"line {j1 + 1} changed", before=was, after=now)
    return Change(code="code", what="the cell's code changed")


def _definition_changes(old: KeyParts, new: KeyParts) -> list[Change]:
    was = {identity: label for label, identity in old.definitions.items()}
    now = {identity: label for label, identity in new.definitions.items()}
    gone = {identity.partition("@")[0]: label for identity, label in was.items() if identity not in now}
    found = []
    for identity, label in now.items():
        if identity not in was:
            name = identity.partition("@")[0]
            what = f"{label} changed" if name in gone else f"{label} is used now"
            gone.pop(name, None)
            found.append(Change(code="code", what=what))
    found.extend(Change(code="code", what=f"{label} is no longer used") for label in gone.values())
    if not found and list(old.definitions.values()) != list(new.definitions.values()):
        found.append(Change(code="code", what="the order of the definitions above it changed"))
    return found


def _named(code: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    found = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        before, after = (_shown(code, side.get(name)) for side in (old, new))
        if name not in old:
            what = f"{name} is read now"
        elif name not in new:
            what = f"{name} is no longer read"
        else:
            what = f"{name}: {before} → {after}" if code == "parameter" else f"{name} changed"
        found.append(Change(code=code, what=what, before=before, after=after))
    return found


def _shown(code: str, text: str | None) -> str:
    if text is None:
        return ""
    return text.rpartition("#")[0] if code == "parameter" else text


def as_reasons(found: Sequence[Change]) -> tuple[Reason, ...]:
    """Changes in; (code, what) pairs out."""
    return tuple((change.code, change.what) for change in found)
