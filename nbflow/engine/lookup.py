"""One run's knowledge of its tasks: inputs found, keys made, past executions looked up, task specs built."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec

from nbflow.analysis.effects import LIVE, state_of
from nbflow.analysis.files import Files
from nbflow.engine import claims, environments, inputs, keys, known_files, reuse
from nbflow.engine.earlier import graph_of, parameter_records
from nbflow.engine.events import Decision, TaskNode, not_held
from nbflow.errors import NbflowError
from nbflow.flow.loops import Loops, Sizes, next_turn, settled_id
from nbflow.flow.subflow import without_params
from nbflow.flow.tags import RAISED
from nbflow.model import (
    FORMAT,
    Change,
    Flow,
    Index,
    JoinItem,
    KeyParts,
    Observations,
    Reason,
    Record,
    Segment,
    Step,
    StepEnvironment,
    TaskFailure,
    TaskId,
    TaskSpec,
)
from nbflow.store import records
from nbflow.store.artifacts import lost_of, save, segments_in
from nbflow.store.executions import Stood, execution_id, last_executions
from nbflow.store.flows import RunPlace, find_flow, runs_of
from nbflow.store.location import Store
from nbflow.store.serialize.pickler import dump
from nbflow.store.serialize.registry import Registry
from nbflow.store.stored_run import StoredRun
from nbflow.task.context import Caught, said
from nbflow.task.observe import inquiries
from nbflow.task.observe.environment import version_of
from nbflow.task.observe.modules import INSTALLED


class RunFacts(msgspec.Struct, frozen=True):
    """What every task of a run is told."""

    run: str
    store_url: str
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)  # parameters by name
    tags: tuple[str, ...] = ()
    origin: str | None = None
    fresh: frozenset[str] | bool = False  # True: all; names: these steps
    again: frozenset[str] = frozenset()  # steps with --once that may begin although they have begun before
    early: frozenset[str] = frozenset()  # executions that came before their turn: their results are not taken
    seen: Mapping[str, Files] = msgspec.field(default_factory=dict)  # files that runs have seen steps touch
    only: bool = False  # `fresh` names the one step that runs
    session: bool = False
    variables: Callable[[], Mapping[str, str]] = lambda: os.environ  # as tasks find them that no step has set any for
    whole: bool = True  # the whole flow runs, not a part of it
    pinned: Mapping[TaskId, Record | None] = msgspec.field(default_factory=dict)  # taken so; None: it left nothing


class _JoinedItem(msgspec.Struct, frozen=True):
    """One item as a join sees it: its value, its body's tasks in order, and the names that those took from outside."""

    index: int
    item: inputs.InputValue | None
    tasks: tuple[tuple[TaskId, Record], ...]
    reads: Mapping[str, inputs.InputValue]
    branch: str = ""

    def content(self) -> list[object]:
        """Return what identifies all that the join may see of it."""
        names = {name: value.artifact.content_id for name, value in self.reads.items()}
        names |= {name: artifact.content_id for _, record in self.tasks for name, artifact in record.artifacts.items()}
        return [self.branch if self.item is None else self.item.artifact.content_id, sorted(names.items())]


class _Resolution(msgspec.Struct, frozen=True):
    """What was worked out of a task whose inputs were all found."""

    resolved: inputs.Resolved
    parts: KeyParts
    key: str
    joined: tuple[_JoinedItem, ...] | None = None


class MemberFailure(msgspec.Struct, frozen=True):
    """How a task ended that failed in the process of another one."""

    failure: TaskFailure
    execution: str
    elapsed: float


class _Company(msgspec.Struct, frozen=True):
    """Tasks that one process runs: those of them that can run, in order, and what stands for each."""

    tasks: tuple[TaskId, ...]
    choices: tuple[reuse.Choice, ...]


NO_COMPANY = _Company((), ())


class Lookup:
    """Answers Prepare; holds the records of settled tasks, so that what reads from them finds them."""

    def __init__(
        self, flow: Flow, store: Store, facts: RunFacts, given: Mapping[str, Record] | None = None,
        loops: Loops | None = None,
    ) -> None:  # fmt: skip
        """Know nothing yet but the records that are `given` by step; `loops` where the flow's are there already."""
        self.flow = flow
        self.store = store
        self.facts = facts
        self.loops = loops or Loops(flow)
        self._records: dict[TaskId, Record | None] = {
            TaskId(step=name): record for name, record in (given or {}).items()
        }
        self._parameter_records = dict(self._records)
        self._own: dict[tuple[str, int | None], Record] = {}  # what this run itself has executed, by key and turn
        self._first_turns: dict[str, int] = {}  # executions that stand for a turn: the first one that they stand for
        self._dropped: set[str] = set()  # executions that are not taken, nor are those of `facts.early`
        self._written: set[str] = set()  # files that this run itself has written
        self._writes: list[tuple[str, frozenset[str]]] = []  # the same, in order, with the steps that did
        self._taken: dict[tuple[TaskId, str], tuple[reuse.Choice, int]] = {}  # what was reused, after which writes
        self._revised: set[TaskId] = set()  # tasks that started before a writer was known
        self.revision = 0
        self._sizes: dict[tuple[str, Index], int] = {}
        self._resolutions: dict[TaskId, _Resolution] = {}
        self._seen_places: dict[str, float] = {}  # of keys: the newest place in the order of their records
        self._gates: set[TaskId] = set()  # ends of fan-outs that already wait for their items
        self._companies: dict[TaskId, _Company] = {}  # by the first task of each
        self._failures: dict[TaskId, MemberFailure] = {}  # of tasks that another one's process has run
        self._environments: dict[tuple[str | None, tuple[str, ...]], environments.EnvironmentSource | None] = {}
        self._stored_environments: dict[str, StepEnvironment] = {}  # by their ids
        self._earlier: dict[str, Lookup | None] = {}  # past runs in which a task failed
        self._above = inputs.SettledTasks(has=self._has, record=self._records.get, sizes=self._sizes)

    # ------------------------------------------------------------ what has settled

    def settle(self, task: TaskId, record: Record | None) -> None:
        """Settle a task with this record; None: it left nothing, as it was skipped, failed or cancelled."""
        # Where a condition did not hold nothing was left, except of a loop's step, whose variable the rest may read.
        self._records[task] = record if record is None or record.skipped is None or record.artifacts else None
        if task.part == "list" and record is not None:
            self._sizes[task.step, task.index] = len(record.artifacts)
        if task.turn is not None:
            place = task.step, task.index
            self._sizes[place] = max(self._sizes.get(place, 0), task.turn + 1)
        if task.turn is not None and record is not None:
            self._first_turns[record.execution] = min(task.turn, self._first_turns.get(record.execution, task.turn))

    def keep(self, record: Record) -> None:
        """Keep an execution of this run: it stands for its key even where none could be reused later."""
        self._own[record.key, record.turn] = record
        self._written |= record.observations.written.keys()
        if record.observations.written:
            self._writes.append((record.step, frozenset(record.observations.written)))

    def drop(self, executions: Collection[str]) -> None:
        """Let executions of this run count for nothing: what stands for their keys is found anew."""
        self._dropped |= {*executions}
        self._forget(executions)

    def _forget(self, executions: Collection[str]) -> None:
        self._own = {key: record for key, record in self._own.items() if record.execution not in executions}

    def drop_lost(self) -> bool:
        """Drop this run's results whose values are gone or damaged; return whether any settled task had such values.

        Those of earlier runs are not taken again: they have been read here, and are known for what they are.
        """
        # Forgetting an execution of this run's own is enough to have it made again: its key then finds no record whose
        # values are there.
        settled = {record.execution: record for record in self._records.values() if record is not None}
        fixed = (*self._parameter_records.values(), *self.facts.pinned.values())
        for record in fixed:  # nothing makes these again
            settled.pop(record.execution if record is not None else "", None)
        executions = {
            name for name, record in settled.items()
            if lost_of(self.store, record.groups, verify=True)
            or records.read_record(self.store, record.key, record.execution) is None
        }  # fmt: skip
        self._forget(executions)
        self._taken = {
            place: taken for place, taken in self._taken.items()
            if taken[0].record is not None and taken[0].record.execution not in executions
        }  # fmt: skip
        return bool(executions)

    def revise(self, flow: Flow, revised: Iterable[TaskId]) -> None:
        """Begin again with a flow understood anew: everything is looked up, what has run is found by its key."""
        # Nothing that was worked out from the old flow may stay, or a task would keep an input that another step gives
        # now. `_own` may: it goes by keys, and a task that comes to the same key is the same task.
        self.flow = flow
        self.loops = Loops(flow)
        self._revised |= set(revised)
        self.revision += 1
        for mapping in (
            self._records, self._sizes, self._resolutions, self._gates, self._first_turns, self._companies,
            self._failures,
        ):  # fmt: skip
            mapping.clear()
        self._records.update(self._parameter_records)
        self.__dict__.pop("_required", None)

    def early(self, task: TaskId, settled: Callable[[TaskId], bool]) -> bool:
        """Return whether a step above that might still change an input of this task has not settled."""
        if task.part:
            return False
        writers = self.loops.possible_writers(self.loops.step_of(task))
        return any(not settled(self.loops.whole(writer.name, task)) for writer in writers)

    def affected(self, task: TaskId, by: Step, names: Iterable[str]) -> bool:
        """Return whether a task reads one of these names below the step that turned out to change them."""
        step = self.loops.step_of(task)
        reads = {binding.name for binding in step.bindings}
        if (resolution := self._resolutions.get(task)) is not None:  # what its inputs refer to is found only with them
            orders = resolution.resolved.definitions
            reads |= resolution.resolved.inputs.keys()
            definitions = [self.flow.definitions[order] for order in orders]
            reads |= {state_of(name) for each in definitions for name in each.names}
            reads |= {bind.name for each in definitions for bind in each.binds}
        below = step.position > by.position or bool(set(step.scope) & set(by.scope))
        return below and not reads.isdisjoint(names)

    def record(self, task: TaskId) -> Record | None:
        """Return the record of a settled task."""
        return self._records.get(task)

    @property
    def sizes(self) -> Sizes:
        """How many items each fan-out has, and how many turns each loop, as far as they have settled."""
        return self._sizes

    def _size(self, task: TaskId) -> int:
        """Return how many items a fan-out has at its place; none where its list was skipped."""
        return self._sizes.get((task.step, task.index), 0)

    def _is_lost(self, items: TaskId) -> bool:
        """Return whether a fan-out's list was skipped: there is no fan-out then, not one without items."""
        return items in self._records and self._records[items] is None

    def _lost_fan_out(self, task: TaskId, step: Step) -> Step | None:
        """Return the fan-out that a task stands for as a whole, or joins, where its list was skipped."""
        if task.part:
            return None
        heads = [self.loops.steps[name] for name in step.scope[len(task.index) :][:1]]
        joined = self.loops.joined(step)
        heads += [joined] if joined is not None else []
        lists = ((head, TaskId(step=head.name, index=task.index[: len(head.scope) - 1], part="list")) for head in heads)
        return next((head for head, items in lists if self._is_lost(items)), None)

    def _broken_off(self, task: TaskId, step: Step) -> str | None:
        """Return why a further cell of a step is skipped, as the rest of one cell would be; None where it is not."""
        above = msgspec.structs.replace(task, step=step.follows)
        if task.part or not step.follows or above not in self._records:
            return None
        record = self._records[above]
        if record is None:
            return f"{self.loops.steps[step.follows].label}, the cell of the same step above it, was skipped"
        if record.caught and self.loops.steps[step.follows].options.catch != RAISED:
            return f"{self.loops.steps[step.follows].label}, the cell of the same step above it, has failed"
        return None

    def newest(self, name: str) -> Record | None:
        """Return the record that holds a name's value at the end of the notebook; None for a definition, or unknown."""
        for version in self.loops.versions(name, self._sizes):
            record = self._records.get(version) if isinstance(version, TaskId) else None
            if record is not None and name in record.artifacts:
                return record
        return None

    def _has(self, task: TaskId) -> bool:
        return task in self._records or task.step not in self.loops.steps

    def first(self) -> tuple[TaskNode, ...]:
        """Return the tasks that are known before anything has run."""
        return self._nodes(self.loops.first())

    def unfold(self, task: TaskId) -> tuple[TaskNode, ...]:
        """Return the tasks that are known because a task has settled: a list's items, another turn."""
        record = self._records.get(task)
        if task.part == "list" and self._is_lost(task):
            return self._nodes(self.loops.places(task.step, task.index))
        if record is None:
            return ()
        if task.part == "list":
            return self._nodes(self.loops.items(task.step, task.index, len(record.artifacts)))
        following = next_turn(self.loops.steps[task.step], task, record)
        return self._nodes((following,)) if following is not None else ()

    def _nodes(self, tasks: Iterable[TaskId]) -> tuple[TaskNode, ...]:
        return tuple(
            TaskNode(task, self._needs(task), self._item_preview(task), self.loops.turns(task, self._sizes))
            for task in tasks
        )

    def _needs(self, task: TaskId) -> tuple[TaskId, ...]:
        """Return what a task reads from; with --once, or once it started too early, also all that might change it."""
        if not task.part and len(task.index) < len(self.loops.step_of(task).scope):
            return ()  # it stands for a fan-out that was skipped
        needs = self.loops.needs(task, self._sizes)
        step = self.loops.step_of(task)
        if task.part or not (step.options.once or task in self._revised):
            return needs
        writers = self.loops.possible_writers(step)
        return tuple(dict.fromkeys((*needs, *(self.loops.whole(writer.name, task) for writer in writers))))

    # ------------------------------------------------------------ prepare

    def prepare(self, task: TaskId) -> Decision:
        """Return what to do with a task whose needs have settled, and why."""
        # The order counts. In a fan-out that was skipped there are no inputs to look up, and without inputs there is no
        # key. This run's own execution comes before the store's, as it stands even where reuse is refused: `--fresh`
        # asks for one execution, not for one each look. Whether a task with `--once` has begun before comes last, as
        # it matters only for one that would run.
        if task.part in ("all", "last"):
            return self._gate(task)
        step = self.loops.step_of(task)
        now = time.time()
        pinned = self.facts.pinned.get(task)
        head = self._lost_fan_out(task, step)
        if head is not None:
            return Decision(task, now, "skip", reasons=(("skipped", f"{head.name} was skipped"),))
        if (reason := self._broken_off(task, step)) is not None:
            return Decision(task, now, "skip", reasons=(("skipped", reason),))
        if pinned is None and task in self.facts.pinned:
            return Decision(task, now, "skip", reasons=(("only", "it left nothing then"),))
        members = self.members(task)
        if task != members[0] and task in self._companies.get(members[0], NO_COMPANY).tasks:
            return self._prepare_member(task, members[0])
        resolution = self._resolve(task, step, members)
        if isinstance(resolution, Decision):
            return resolution
        key = resolution.key
        if len(members) > 1 and task == members[0]:
            company = self._company(members)
            if isinstance(company, Decision):
                return msgspec.structs.replace(company, task=task)
            return self._prepare_company(task, company)
        own = self._own.get((key, task.turn))
        if own is not None and self._answers(task, own.observations) is not None:
            own = None  # of another item, which was told something else of itself
        if own is not None and not own.caught and reuse.apart(own, self.loops.tracked(step)) is None:
            self.settle(task, own)
            if own.skipped is not None:
                return _skip(task, own)
            return Decision(task, now, "done", key=key, execution=own.execution, elapsed=own.elapsed)
        reasons = (("only", f"taken as {pinned.run} left it"),) if pinned is not None else ()
        choice = reuse.Choice(pinned, reasons) if pinned else self.choose(task, key)
        if choice.record is not None:
            return self._stands(task, choice)
        failure = self._begun_before(task, step, key)
        if failure is not None:
            return Decision(task, now, "fail", key=key, reasons=(("once", failure.message),), failure=failure)
        if self.facts.only and choice.reasons and choice.reasons[0][0] == "fresh":
            choice = reuse.Choice(None, (("only", "--only runs this step, whatever is known of it"),))
        return Decision(task, now, "run", key=key, reasons=self._reasons(task, choice))

    def _stands(self, task: TaskId, choice: reuse.Choice) -> Decision:
        """Settle a prepared task with the past execution that was chosen for it."""
        record, key = choice.record, self._resolutions[task].key
        assert record is not None  # noqa: S101
        self._taken.setdefault((task, key), (choice, len(self._writes)))
        self.settle(task, record)
        if record.skipped is not None:
            return _skip(task, record)
        return Decision(
            task, time.time(), "reuse", key=key, execution=record.execution, reused_from=record.run,
            reasons=choice.reasons,
        )  # fmt: skip

    def _resolve(self, task: TaskId, step: Step, members: Sequence[TaskId], behind: str = "") -> Decision | _Resolution:
        """Return a task's inputs and key, or what is to be done where they cannot be found.

        `behind`: the key of the task that runs before it in its process.
        """
        now = time.time()
        above = self._above
        if len(members) > 1 and (behind or task == members[0]):
            above = msgspec.structs.replace(above, together=frozenset(members) - {task})
        joined = self._joined(task, step)
        below = [group for entry in joined or () for _, record in entry.tasks for group in record.groups]
        items = [item.group for item in (self._item(task),) if item is not None]
        resolved = inputs.resolve(self.loops, task, above, [*below, *items], self._body_definitions(task, step))
        if resolved.waits:
            return Decision(task, now, "wait", waits=resolved.waits)
        if resolved.failure is not None:
            return Decision(task, now, "fail", failure=resolved.failure)
        if resolved.skip is not None:
            return Decision(task, now, "skip", reasons=(("skipped", resolved.skip),))
        parts = self._parts(task, step, resolved, joined)
        # What the process holds follows from what it has run before, and not from what is known of single names: a
        # change that a run finds out would else execute all of them twice.
        lives = {name: keys.digest([execution, name]) for name, execution in resolved.live.items() if execution}
        if behind:
            lives["what its process holds"] = keys.digest([behind])
        if lives:
            parts = msgspec.structs.replace(parts, inputs={**parts.inputs, **lives})
        resolution = self._resolutions[task] = _Resolution(resolved, parts, keys.task_key(parts), joined)
        return resolution

    # ------------------------------------------------------------ tasks that one process runs

    def members(self, task: TaskId) -> tuple[TaskId, ...]:
        """Return the tasks that one process runs together with this one, in order; this one alone for most."""
        return (task,) if self.facts.session else self.loops.members(task)

    def fail(self, task: TaskId, failure: MemberFailure) -> None:
        """Keep how a task ended that the process of another one has run."""
        self._failures[task] = failure

    def _company(self, members: tuple[TaskId, ...]) -> Decision | _Company:
        """Return the tasks of a group that can run; a Decision where some have to wait.

        One whose inputs from elsewhere are missing ends the group before it: what is to be said of it is said when it
        is its turn.
        """
        tasks, behind = [members[0]], self._resolutions[members[0]].key
        for task in members[1:]:
            found = self._resolve(task, self.loops.step_of(task), members, behind)
            if isinstance(found, Decision):
                if found.action == "wait":
                    return found
                break
            behind = found.key
            tasks.append(task)
        return _Company(tuple(tasks), tuple(self.choose(task, self._resolutions[task].key) for task in tasks))

    def _prepare_company(self, task: TaskId, company: _Company) -> Decision:
        """Return what to do with the first task of a group: it is reused where all of them are."""
        now, key = time.time(), self._resolutions[task].key
        own = self._own.get((key, None))
        if own is not None and all((self._resolutions[each].key, None) in self._own for each in company.tasks):
            self._companies[task] = company
            self.settle(task, own)
            return Decision(task, now, "done", key=key, execution=own.execution, elapsed=own.elapsed)
        self._companies[task] = company
        choice = company.choices[0]
        if all(each.record is not None for each in company.choices):
            return self._stands(task, choice)
        other = next(t for t, each in zip(company.tasks, company.choices, strict=True) if each.record is None)
        if choice.record is None:
            return Decision(task, now, "run", key=key, reasons=self._reasons(task, choice))
        label = self.loops.step_of(other).label
        return Decision(task, now, "run", key=key, reasons=(("together", f"runs with {label}, which runs again"),))

    def _prepare_member(self, task: TaskId, first: TaskId) -> Decision:
        """Return what has become of a task that the process of another one has run, or what stands for it."""
        now, company = time.time(), self._companies[first]
        key = self._resolutions[task].key
        own, failure = self._own.get((key, None)), self._failures.get(task)
        choice = company.choices[company.tasks.index(task)]
        if own is not None:
            self.settle(task, own)
            if own.skipped is not None:
                return _skip(task, own)
            reasons = self._reasons(task, choice) if choice.record is None else ()
            action: Literal["caught", "done"] = "caught" if own.caught else "done"
            return Decision(
                task, now, action, key=key, execution=own.execution, elapsed=own.elapsed,
                failure=failure.failure if failure is not None else None,
                reasons=reasons or (("together", f"runs with {self.loops.step_of(first).label}"),),
            )  # fmt: skip
        if failure is not None:
            return Decision(
                task, now, "fail", key=key, failure=failure.failure, execution=failure.execution,
                elapsed=failure.elapsed, reasons=self._reasons(task, choice),
            )  # fmt: skip
        if any(each.record is None for each in company.choices):  # nothing has run: somebody asks what would
            together = (("together", f"runs with {self.loops.step_of(first).label}"),)
            reasons = together if choice.record is not None else self._reasons(task, choice)
            return Decision(task, now, "run", key=key, reasons=reasons)
        return self._stands(task, choice)

    def _reasons(self, task: TaskId, choice: reuse.Choice) -> tuple[Reason, ...]:
        """Return why a prepared task runs: what was asked for, else what has changed since its last execution."""
        if choice.reasons and choice.reasons[0][0] in ("fresh", "no-cache", "only"):
            return choice.reasons
        failed = reuse.as_reasons(self.changes(task)) if self._failed(task) is not None else ()
        if failed and choice.reasons:
            return (failed[0], *choice.reasons)
        return failed or choice.reasons or reuse.as_reasons(self.changes(task)) or (("new", "it has not run before"),)

    def _begun_before(self, task: TaskId, step: Step, key: str) -> TaskFailure | None:
        """Return why a task with `--once` may not run; None where it may, or where a live run will give its result."""
        if not step.options.once or task.part or step.name in self.facts.again:
            return None
        claim = claims.last_claim(self.store, key)
        if claim is None or (not self.facts.session and claims.is_under_way(self.store, claim)):
            return None
        return claims.asks(self.store, step, claim, by_hand=self.facts.session)

    def _gate(self, task: TaskId) -> Decision:
        """Let the end of a fan-out wait for its items, the end of an --until for its last turn."""
        # A gate's needs are not known when it is added. The end of a fan-out is asked twice: once its list has settled
        # it waits for the items, then it settles. That of an --until is asked after each turn, which may have another
        # one behind it.
        now = time.time()
        if task.part == "all":
            if task in self._gates:
                self.settle(task, None)
                return Decision(task, now, "settle")
            self._gates.add(task)
            return Decision(task, now, "wait", waits=self.loops.gate_needs(task, self._size(task)))
        last = TaskId(step=task.step, index=task.index, turn=0)
        while (more := msgspec.structs.replace(last, turn=(last.turn or 0) + 1)) in self._records:
            last = more
        record = self._records[last]
        following = next_turn(self.loops.steps[task.step], last, record) if record is not None else None
        if following is not None:
            return Decision(task, now, "wait", waits=(following,))
        self.settle(task, record)
        return Decision(task, now, "settle")

    # ------------------------------------------------------------ items and joins

    def _item(self, task: TaskId, depth: int = -1) -> inputs.InputValue | None:
        """Return the item of a task's innermost fan-out, or of an outer one."""
        scope = self.loops.step_of(task).scope
        if not scope or (task.part == "list" and depth == -1 and not task.index):
            return None
        at = len(scope) - 1 if depth == -1 else depth
        record = self._records.get(TaskId(step=scope[at], index=task.index[:at], part="list"))
        if record is None:
            return None
        artifact = record.artifacts[str(task.index[at])]
        return inputs.InputValue(record.groups[artifact.group], artifact, scope[at])

    def _item_preview(self, task: TaskId) -> str:
        item = self._item(task) if not task.part else None
        return item.artifact.preview if item is not None else ""

    def _joined(self, task: TaskId, step: Step) -> tuple[_JoinedItem, ...] | None:
        """Return what a join sees of each item that is done, None for a task that joins nothing."""
        head = self.loops.joined(step) if not task.part else None
        if head is None:
            return self._branches(step) if not task.part else None
        place = task.index[: len(head.scope) - 1]
        listing = self._records.get(TaskId(step=head.name, index=place, part="list"))
        entries = []
        if listing is None:
            return ()
        for at in range(len(listing.artifacts)):
            index = (*place, at)
            tasks = tuple(self._body_tasks(head, index))
            if not tasks:
                continue  # every step of the body was skipped
            artifact = listing.artifacts[str(at)]
            item = inputs.InputValue(listing.groups[artifact.group], artifact, head.name)
            entries.append(_JoinedItem(at, item, tasks, self._outside_reads(tasks)))
        return tuple(entries)

    def _branches(self, step: Step) -> tuple[_JoinedItem, ...] | None:
        """Return what a join of steps in no fan-out sees of each, None for a step that joins none."""
        entries = []
        for at, branch in enumerate(self.loops.branches(step)):
            settled = [each for cell in self.loops.cells(branch) for each in self._body_records(cell, ())]
            tasks = tuple((task, record) for task, record in settled if record is not None and record.skipped is None)
            entries.append(_JoinedItem(at, None, tasks, self._outside_reads(tasks), branch.name))
        return tuple(entries) or None

    def _body_definitions(self, task: TaskId, step: Step) -> tuple[int, ...]:
        """Return the constants, functions and classes that a join's fan-out reads: its items have them too."""
        head = self.loops.joined(step) if not task.part else None
        if head is None:
            return ()
        orders = {order for other in self.loops.bodies[head.name] for order in other.definitions}
        definitions = [self.flow.definitions[order] for order in sorted(orders)]
        return tuple(
            d.order for d in definitions if d.kind == "definition" and not d.origins and d.position < step.position
        )

    def _body_records(self, step: Step, index: Index) -> Iterator[tuple[TaskId, Record | None]]:
        for place in self._places(step.scope, index):
            task = settled_id(step, place)
            turns = msgspec.structs.replace(task, part="")
            yield turns, self._records.get(task)

    def _places(self, scope: tuple[str, ...], index: Index) -> Iterator[Index]:
        """Give every index of a scope that begins with this one."""
        if len(index) == len(scope):
            yield index
            return
        for at in range(self._sizes.get((scope[len(index)], index), 0)):
            yield from self._places(scope, (*index, at))

    def _body_tasks(self, head: Step, index: Index) -> Iterator[tuple[TaskId, Record]]:
        for step in self.loops.bodies[head.name]:
            for task, record in self._body_records(step, index):
                if record is not None and record.skipped is None:
                    yield task, record

    def _parts(
        self, task: TaskId, step: Step, resolved: inputs.Resolved, joined: tuple[_JoinedItem, ...] | None
    ) -> KeyParts:
        """Return everything that a task's key is made of: its inputs, its item where it sees one, its join's items."""
        # The item is in the key only where the step sees it, in its own loop variable or in `current`. Other steps of
        # the body are the same task for the same inputs, whichever item they stand in.
        item = ""
        if task.part != "list" and step.scope:
            own = self._item(task) if step.options.foreach is not None else None
            item = own.artifact.content_id if own is not None else ""
            if self._mentions(step, "current"):
                whole = self._item(task)
                item = f"{whole.artifact.content_id if whole else ''} {task.index}"
        if task.turn and step.options.condition is not None:
            item = f"{item} after the first turn"  # which alone asks --if
        source = self.environment(step)
        environment = source.environment if source is not None else None
        parts = keys.key_parts(self.flow, step, resolved, environment, item=item)
        if self.asks_for_parameters(step):
            values = {name: f"{value!r}#{keys.digest(repr(value))}" for name, value in self.facts.values.items()}
            parts = msgspec.structs.replace(parts, parameters=values | parts.parameters)
        if joined is None:
            return parts
        content = [entry.content() for entry in joined]
        contents = {**parts.inputs, "inputs": f"{len(content)} items {keys.digest(content)}"}
        return msgspec.structs.replace(parts, inputs=contents)

    def environment(self, step: Step) -> environments.EnvironmentSource | None:
        """Return the environment that a step asks for; its files are read once a run."""
        asked = step.options.env, step.options.pip
        if asked not in self._environments:
            self._environments[asked] = environments.environment_for(self.flow.notebook, step)
        return self._environments[asked]

    def _stored_environment(self, step: Step) -> StepEnvironment | None:
        """Return a step's environment, whose files are in the datastore."""
        source = self.environment(step)
        if source is None:
            return None
        if source.environment.id not in self._stored_environments:
            self._stored_environments[source.environment.id] = source.stored(self.store)
        return self._stored_environments[source.environment.id]

    def asks_for_parameters(self, step: Step) -> bool:
        """Return whether a step may read `current.parameters`."""
        return self._mentions(step, "current") and self._mentions(step, "parameters")

    def know_parameters(self, values: Mapping[str, Any]) -> None:
        """Take parameters that have been evaluated only now, as a step asks for them."""
        self.facts = msgspec.structs.replace(self.facts, values={**self.facts.values, **values})
        self.__dict__.pop("_parameters", None)

    def _mentions(self, step: Step, word: str) -> bool:
        """Return whether a step's text, or that of a definition that it uses, holds a word."""
        return word in step.source or any(word in self.flow.definitions[order].source for order in step.definitions)

    def _settled(self, task: TaskId, key: str) -> reuse.Choice | None:
        """Return the execution that was reused for a task before the flow was understood anew, if it still stands.

        Its files may have been written by steps below since, which is nothing to it; not by steps above.
        """
        choice, since = self._taken.get((task, key), (None, 0))
        if choice is None or choice.record is None:
            return None
        step, seen = self.loops.step_of(task), choice.record.observations
        files = seen.files.keys() | seen.looks.keys() | seen.written.keys()
        above = (
            names for name, names in self._writes[since:]
            if (other := self.loops.steps.get(name)) is not None
            and (other.position < step.position or not set(other.scope).isdisjoint(step.scope))
        )  # fmt: skip
        stands = all(files.isdisjoint(names) for names in above)
        return choice if stands and reuse.apart(choice.record, self.loops.tracked(step)) is None else None

    def choose(self, task: TaskId, key: str) -> reuse.Choice:
        """Return the past execution that stands for a task, if any, with the reasons."""
        if (settled := self._settled(task, key)) is not None:
            return settled
        step, listing, fresh = self.loops.step_of(task), task.part == "list", self.facts.fresh
        wishes = reuse.Wishes(
            fresh=fresh is True or (fresh is not False and step.name in fresh),
            no_cache=step.options.no_cache,
            expires=step.options.expires,
            required=frozenset() if listing else self.required(step.name),
            tracked=() if listing else self.loops.tracked(step),
            empty=listing or len(self.members(task)) > 1,
            silent=step.kind == "cell",
            now=time.time(),
        )
        # The record that this task may make has to come after all that are there, whatever the clocks say: so the
        # newest place among them is kept, also where `--fresh` lets none of them be read.
        many = step.code if step.scope and not task.part else ""
        unread = wishes.fresh or wishes.no_cache
        candidates = [] if unread else records.find(self.store, key, among=many)
        if unread:
            self._seen_places[key] = records.newest_place(self.store, key, among=many)
        if candidates:
            self._seen_places[key] = candidates[0].order[0]
        unwanted = self.facts.early | self._dropped
        candidates = [record for record in candidates if record.execution not in unwanted]
        if task.turn is not None:
            candidates = self._of_turn(task.turn, candidates)
        choice = reuse.choose(candidates, wishes, lambda seen: self._holds(task, seen))
        problem = lost_of(self.store, choice.record.groups) if choice.record is not None else None
        return choice if problem is None else reuse.Choice(None, (("no-output", problem),))

    def _of_turn(self, turn: int, candidates: Iterable[Record]) -> list[Record]:
        """Return the executions that may stand for a turn, those of the same turn first.

        Turns that read equal inputs differ by the world alone (a file that is waited for, a number that is drawn): what
        one of them has found is not what the next one would find.
        """
        free = [record for record in candidates if self._first_turns.get(record.execution, turn) >= turn]
        return sorted(free, key=lambda record: record.turn != turn)

    def _holds(self, task: TaskId, seen: Observations) -> Reason | None:
        """Return why what an execution of a task was seen to depend on no longer holds, None where it does."""
        source = self.environment(self.loops.step_of(task))
        version = environments.versions_in(source.environment) if source is not None else version_of
        reason = reuse.holds(seen, self.flow.notebook.folder, self.facts.variables(), self._written, version)
        return reason or self._answers(task, seen)

    def _answers(self, task: TaskId, seen: Observations) -> Reason | None:
        """Return which of its questions about runs, and about itself, a task would get another answer to now."""
        if not seen.asked:
            return None
        facts = self.facts
        nodes = self.loops.step_of(task).options.nodes
        now = said(self.flow.name, facts.run, task.step, task.index, facts.tags, nodes=nodes, is_flow=not facts.session)
        planned = self.flow.name if facts.whole and not facts.run else ""
        return inquiries.changed(seen.asked, self.store, now, planned)

    def changes(self, task: TaskId) -> tuple[Change, ...]:
        """Return what differs between a prepared task and its last execution, or the one after it that failed."""
        resolution = self._resolutions[task]
        step = self.loops.step_of(task)
        failed = self._failed(task)
        if failed is None:
            return reuse.changes(resolution.parts, step.source, self.previous(task))
        place, key = failed
        first = Change(code="failed", what=f"failed in {place.run}")
        past = self._lookup_of(place) if key != resolution.key else None
        then = past.attempted(task, resolution.parts) if past is not None else None
        return (first, *(reuse.differences(*then, resolution.parts, step.source) if then is not None else ()))

    def key(self, task: TaskId, version: int) -> str:
        """Return the key of a prepared task in a datastore of that format."""
        return keys.task_key(self._resolutions[task].parts, version=version)

    def previous(self, task: TaskId) -> Record | None:
        """Return the record that stood for the task in the newest run that had one."""
        last = self._history.get(task)
        return records.read_record(self.store, *last.place) if last is not None and last.place is not None else None

    def newest_under(self, key: str) -> Record | None:
        """Return the newest record of a key, whether or not it still stands for the task."""
        return next(iter(records.find(self.store, key)), None)

    def makers(self, task: TaskId) -> frozenset[str]:
        """Return the steps that made the inputs of a prepared task."""
        resolved = self._resolutions[task].resolved if task in self._resolutions else inputs.Resolved()
        values = (*resolved.inputs.values(), *resolved.along.values(), *resolved.binds.values())
        return frozenset(value.step for value in values)

    def _failed(self, task: TaskId) -> tuple[RunPlace, str] | None:
        """Return the run in which a task failed after its last execution, with its key there; None where it did not."""
        last = self._history.get(task)
        return last.failed if last is not None else None

    def attempted(self, task: TaskId, now: KeyParts) -> tuple[KeyParts, str] | None:
        """Return the parts and source of a task in this past run, None where it had none; `now` are its parts now.

        An attempt that fails leaves no record. What it was made of is worked out from its run's notebook and records;
        where those do not say it, as within a fan-out, it counts as what it is now.
        """
        if task.step not in self.loops.steps:
            return None
        # What cannot be worked out takes the value of now, so that it never shows as a difference: "the item changed"
        # must not be said because nobody knows which item it was.
        step = self.loops.step_of(task)
        resolved = inputs.resolve(self.loops, task, self._above)
        parts = self._parts(task, step, resolved, None)
        if task.part or step.scope or step.options.join or resolved.waits or resolved.failure or resolved.skip:
            options = {**parts.options, "along": now.options.get("along", "")}
            parts = msgspec.structs.replace(
                parts, inputs=now.inputs | {n: i for n, i in parts.inputs.items() if n in now.inputs}, item=now.item,
                options={name: text for name, text in options.items() if text},
            )  # fmt: skip
        return parts, step.source

    def _lookup_of(self, place: RunPlace) -> Lookup | None:
        """Return a look-up that knows what settled in a past run, None where the run's notebook is gone."""
        run = place.run
        if run not in self._earlier:
            past = StoredRun(self.store, place)
            try:
                flow = graph_of(past)
            except NbflowError:  # removed meanwhile, or a notebook that this version cannot read
                self._earlier[run] = None
                return None
            # values that JSON has no word for are not loaded for this: those count as what they are now
            values = {name: _plain(text, self.facts.values.get(name)) for name, text in past.started.parameters.items()}
            facts = RunFacts(run=run, store_url=self.store.url, values=values)
            self._earlier[run] = then = Lookup(without_params(flow), self.store, facts, parameter_records(past, flow))
            for view in past.snapshot.tasks:
                then.settle(view.task, past.record(view))
        return self._earlier[run]

    @cached_property
    def _history(self) -> Mapping[TaskId, Stood]:
        flow = find_flow(self.store, self.flow.notebook)
        runs = runs_of(self.store, flow) if flow is not None else ()
        return last_executions(self.store, runs, {step.name for step in self.flow.steps}, self.facts.run)

    def required(self, step: str) -> frozenset[str]:
        """Return the names of a step that other steps read."""
        return self._required.get(step, frozenset())

    @cached_property
    def _required(self) -> Mapping[str, frozenset[str]]:
        needs: dict[str, set[str]] = {}
        for step in self.flow.steps:
            binds = [*step.bindings, *(b for order in step.definitions for b in self.flow.definitions[order].binds)]
            for binding in binds:
                for source in binding.sources:
                    outside = source.step not in (step.name, *step.together)
                    if source.step is not None and outside and binding.name != LIVE:
                        needs.setdefault(source.step, set()).add(binding.name)
        return {name: frozenset(names) for name, names in needs.items()}

    # ------------------------------------------------------------ specs

    def execution(self, task: TaskId, attempt: int) -> str:
        """Return the execution id of a task's attempt."""
        return execution_id(self.facts.run, task, attempt, self.revision)

    def spec(self, task: TaskId, attempt: int, threads: int) -> TaskSpec:
        """Return everything that a worker needs for a prepared task."""
        step = self.loops.step_of(task)
        resolution = self._resolutions[task]
        resolved = resolution.resolved
        item = self._item(task) if task.part != "list" else None
        groups, ref = keys.pack(self._values(task))
        replay, own = keys.replay_of(self.flow, step, resolved, ref)
        joined = None if resolution.joined is None else tuple(
            JoinItem(
                index=entry.index, item=ref(entry.item) if entry.item is not None else None, name=entry.branch,
                reads={name: ref(v) for name, v in entry.reads.items()},
                places=tuple((record.key, record.execution) for _, record in entry.tasks),
            )
            for entry in resolution.joined
        )  # fmt: skip
        return TaskSpec(
            flow=self.flow.name, run=self.facts.run, step=step.name, execution=self.execution(task, attempt),
            key=resolution.key, parts=resolution.parts, source=step.source, code_name=step.label,
            cell=step.cell.partition("#")[0], position=step.position, store=self.facts.store_url,
            folder=self.flow.notebook.folder, index=task.index, turn=task.turn, attempt=attempt, replay=replay,
            places=self.loops.setting, own=own, groups=groups,
            inputs={name: ref(value) for name, value in resolved.inputs.items()},
            along={name: ref(value) for name, value in resolved.along.items()},
            tracked=() if task.part else self.loops.kept_together(step),
            writes=step.writes, outputs=step.options.outputs,
            required=() if task.part else tuple(sorted(self.required(step.name))),
            parameters=self._parameters, tags=self.facts.tags, origin=self.facts.origin, threads=threads,
            preload=self.loops.preload, options=step.options, secrets=step.options.secret,
            withheld=tuple(name for name in self.flow.secrets if name not in step.options.secret),
            items=self._sizes.get((step.scope[-1], task.index[:-1]), 0) if step.scope and task.index else 0,
            evaluate=step.source if task.part == "list" else None, item=ref(item) if item is not None else None,
            targets=step.targets, joined=joined, seen=self._seen_places.get(resolution.key, 0.0),
            constants=tuple(
                name for order in self._body_definitions(task, step) for name in self.flow.definitions[order].names
            ),
            then=tuple(self.spec(each, attempt, threads) for each in self._companies.get(task, NO_COMPANY).tasks[1:]),
            live=tuple(resolved.live), hidden=self._hidden(step), together=step.together,
            environment=self._stored_environment(step),
        )  # fmt: skip

    def _values(self, task: TaskId) -> list[inputs.InputValue]:
        """Return the values that a prepared task is given."""
        resolution, item = self._resolutions[task], self._item(task) if task.part != "list" else None
        resolved = resolution.resolved
        values = [*resolved.inputs.values(), *resolved.along.values(), *resolved.binds.values()]
        values += [item] if item else []
        values += [entry.item for entry in resolution.joined or () if entry.item is not None]
        values += [value for entry in resolution.joined or () for value in entry.reads.values()]
        return values

    def segments(self, task: TaskId) -> list[Segment] | None:
        """Return the segments that a task's inputs consist of, as far as they are known; None where they are not."""
        resolution = self._resolutions.get(task)
        if resolution is None:
            return None
        below = (record for entry in resolution.joined or () for _, record in entry.tasks)
        groups = [*keys.pack(self._values(task))[0], *(group for record in below for group in record.groups)]
        return [*segments_in(groups)]

    def imported(self, step: Step) -> frozenset[str]:
        """Return the installed modules that a step's own code was seen to import the last time."""
        task = next((task for task in self._history if task.step == step.name and not task.part), None)
        record = self.previous(task) if task is not None else None
        imports = record.observations.imports if record is not None else {}
        return frozenset(name for name, place in imports.items() if place == INSTALLED)

    def last_tasks(self, step: str) -> int:
        """Return how many tasks a step had in its last run, 0 where it had none."""
        return sum(task.step == step and not task.part for task in self._history)

    def known_files(self, task: TaskId) -> tuple[str, ...]:
        """Return the files below the notebook's folder that a prepared task is known to read."""
        members = self.members(task)
        before = [self.previous(each) for each in members if not each.part]
        sources = [text for each in members for text in known_files.sources_of(self.flow, self.loops.step_of(each))]
        seen = [record.observations for record in before if record is not None]
        return known_files.known_files(self.flow.notebook.folder, sources, self.facts.values, seen)

    def _hidden(self, step: Step) -> tuple[str, ...]:
        """Return the names of a step's group that cells outside of it write between the step before it and itself."""
        if not step.together or step.name == step.together[0]:
            return ()
        places = [self.loops.steps[name].position for name in step.together]
        names = []
        for name, writers in self.flow.writers.items():
            nearest = next((each for each in reversed(writers) if each.position < step.position), None)
            if nearest is not None and nearest.position > places[0] and nearest.position not in places:
                names.append(name)
        return tuple(names)

    @cached_property
    def _parameters(self) -> bytes:
        """Return the parameters' values as tasks get them, to be read when a cell asks for them."""
        return pickle.dumps(dict(self.facts.values))

    def caught(self, task: TaskId, attempt: int, failure: TaskFailure) -> Record:
        """Publish and return the record that holds a task's `--catch`, where its worker ended without a word."""
        step, resolution = self.loops.step_of(task), self._resolutions[task]
        values = {step.options.catch or "": Caught(failure.type, failure.message, failure.traceback)}
        groups, entries = save(self.store, dump(values, Registry()))
        now = time.time()
        record = Record(
            format=FORMAT, key=resolution.key, execution=self.execution(task, attempt), flow=self.flow.name,
            run=self.facts.run, step=step.name, index=task.index, turn=task.turn, attempt=attempt,
            created_at=now, elapsed=0.0, source=step.source, parts=resolution.parts, groups=groups,
            artifacts=entries, caught=True,
            stamp=records.stamp_after(now, self._seen_places.get(resolution.key, 0.0)),
        )  # fmt: skip
        records.publish(self.store, record)
        return record

    def _outside_reads(self, tasks: Iterable[tuple[TaskId, Record]]) -> dict[str, inputs.InputValue]:
        """Return the names that an item's tasks took from outside: what they did not write themselves."""
        names = {name for _, record in tasks for name in record.artifacts}
        values: dict[str, inputs.InputValue] = {}
        for task, _ in tasks:
            resolution = self._resolutions.get(task)
            if resolution is not None:
                values.update((name, value) for name, value in resolution.resolved.inputs.items() if name not in names)
        return values


def _plain(text: str, now: Any) -> Any:
    """Return the value that a run's start tells of a parameter where that is JSON, else its value now."""
    try:
        return json.loads(text)
    except ValueError:
        return now


def _skip(task: TaskId, record: Record) -> Decision:
    """Return what the run is told of a task whose condition does not hold; `record` is the condition's."""
    reasons = (not_held(record.skipped or ""),)
    return Decision(task, time.time(), "skip", key=record.key, execution=record.execution, reasons=reasons)
