"""One run's knowledge of its tasks: inputs found, keys made, past executions looked up, task specs built."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec

from nbflow.analysis.effects import state_of
from nbflow.engine import claims, inputs, keys, reuse
from nbflow.engine.earlier import graph_of, parameter_records
from nbflow.engine.events import Decision, TaskNode, not_held
from nbflow.errors import NbflowError
from nbflow.flow.loops import Loops, Sizes, next_turn, settled_id
from nbflow.flow.subflow import preload_of, without_params
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
    Step,
    TaskFailure,
    TaskId,
    TaskSpec,
)
from nbflow.store import records
from nbflow.store.artifacts import lost_of, save
from nbflow.store.executions import Stood, execution_id, last_executions
from nbflow.store.flows import RunPlace, find_flow, runs_of
from nbflow.store.location import Store
from nbflow.store.serialize.pickler import dump
from nbflow.store.serialize.registry import Registry
from nbflow.store.stored_run import StoredRun
from nbflow.task.context import Caught, said
from nbflow.task.observe import inquiries


@dataclass(frozen=True)
class RunFacts:
    """What every task of a run is told."""

    run: str
    store_url: str
    values: Mapping[str, Any] = field(default_factory=dict)  # parameters by name
    tags: tuple[str, ...] = ()
    origin: str | None = None
    fresh: frozenset[str] | bool = False  # True: all; names: these steps
    again: frozenset[str] = frozenset()  # steps with --once that may begin although they have begun before
    only: bool = False  # `fresh` names the one step that runs
    session: bool = False
    variables: Callable[[], Mapping[str, str]] = lambda: os.environ  # as tasks find them that no step has set any for
    whole: bool = True  # the whole flow runs, not a part of it
    pinned: Mapping[TaskId, Record | None] = field(default_factory=dict)  # taken as they are; None: it left nothing


@dataclass(frozen=True)
class _JoinedItem:
    """One item as a join sees it: its value, its body's tasks in order, and the names that those took from outside."""

    index: int
    item: inputs.InputValue
    tasks: tuple[tuple[TaskId, Record], ...]
    reads: Mapping[str, inputs.InputValue]

    def content(self) -> list[object]:
        """What identifies all that the join may see of it."""
        names = {name: value.artifact.content_id for name, value in self.reads.items()}
        names |= {name: artifact.content_id for _, record in self.tasks for name, artifact in record.artifacts.items()}
        return [self.item.artifact.content_id, sorted(names.items())]


@dataclass(frozen=True)
class _Known:
    """A task whose inputs were all found."""

    resolved: inputs.Resolved
    parts: KeyParts
    key: str
    joined: tuple[_JoinedItem, ...] | None = None


class Lookup:
    """Answers Prepare; holds the records of settled tasks, so that what reads from them finds them."""

    def __init__(self, flow: Flow, store: Store, facts: RunFacts, given: Mapping[str, Record] | None = None) -> None:
        self.flow = flow
        self.store = store
        self.facts = facts
        self.loops = Loops(flow)
        self._records: dict[TaskId, Record | None] = {
            TaskId(step=name): record for name, record in (given or {}).items()
        }
        self._given = dict(self._records)
        self._own: dict[tuple[str, int | None], Record] = {}  # what this run itself has executed, by key and turn
        self._stood: dict[str, int] = {}  # executions that stand for a turn: the first one that they stand for
        self._written: set[str] = set()  # files that this run itself has written
        self._revised: set[TaskId] = set()  # tasks that started before a writer was known
        self.revision = 0
        self._sizes: dict[tuple[str, Index], int] = {}
        self._known: dict[TaskId, _Known] = {}
        self._seen_places: dict[str, float] = {}  # of keys: the newest place in the order of their records
        self._waited: set[TaskId] = set()
        self._earlier: dict[str, Lookup | None] = {}  # past runs in which a task failed
        self._above = inputs.SettledTasks(has=self._has, record=self._records.get, sizes=self._sizes)

    # ------------------------------------------------------------ what has settled

    def settle(self, task: TaskId, record: Record | None) -> None:
        """A task ended with this record; None: it left nothing, as it was skipped, failed or cancelled."""
        self._records[task] = record if record is None or record.skipped is None or record.artifacts else None
        if task.part == "list" and record is not None:
            self._sizes[task.step, task.index] = len(record.artifacts)
        if task.turn is not None:
            place = task.step, task.index
            self._sizes[place] = max(self._sizes.get(place, 0), task.turn + 1)
        if task.turn is not None and record is not None:
            self._stood[record.execution] = min(task.turn, self._stood.get(record.execution, task.turn))

    def keep(self, record: Record) -> None:
        """An execution of this run: it stands for its key even where none could be reused later."""
        self._own[record.key, record.turn] = record
        self._written |= record.observations.written.keys()

    def drop_lost(self) -> bool:
        """Whether values that tasks have settled with are gone or damaged; such results of this run count no longer.

        Those of earlier runs are not taken again: they have been read here, and are known for what they are.
        """
        settled = {record.execution: record for record in self._records.values() if record is not None}
        fixed = (*self._given.values(), *self.facts.pinned.values())
        for record in fixed:  # nothing makes these again
            settled.pop(record.execution if record is not None else "", None)
        lost = {
            name for name, record in settled.items()
            if lost_of(self.store, record.groups, verify=True)
            or records.read_record(self.store, record.key, record.execution) is None
        }  # fmt: skip
        self._own = {key: record for key, record in self._own.items() if record.execution not in lost}
        return bool(lost)

    def revise(self, flow: Flow, revised: Iterable[TaskId]) -> None:
        """The flow is understood anew: everything is looked up again, what has run is found by its key."""
        self.flow = flow
        self.loops = Loops(flow)
        self._revised |= set(revised)
        self.revision += 1
        for known in (self._records, self._sizes, self._known, self._waited, self._stood):
            known.clear()
        self._records.update(self._given)
        self.__dict__.pop("_required", None)

    def early(self, task: TaskId, settled: Callable[[TaskId], bool]) -> bool:
        """Whether a step above that might still change an input of this task has not settled."""
        if task.part:
            return False
        writers = self.loops.possible_writers(self.loops.step_of(task))
        return any(not settled(self.loops.whole(writer.name, task)) for writer in writers)

    def affected(self, task: TaskId, by: Step, names: Iterable[str]) -> bool:
        """Whether a task reads one of these names below the step that turned out to change them."""
        step = self.loops.step_of(task)
        reads = {binding.name for binding in step.bindings}
        if (known := self._known.get(task)) is not None:  # what its inputs refer to is found only with them
            orders = known.resolved.definitions
            reads |= known.resolved.inputs.keys()
            reads |= {state_of(name) for order in orders for name in self.flow.definitions[order].names}
        below = step.position > by.position or bool(set(step.scope) & set(by.scope))
        return below and not reads.isdisjoint(names)

    def record(self, task: TaskId) -> Record | None:
        """The record of a settled task."""
        return self._records.get(task)

    @property
    def sizes(self) -> Sizes:
        """How many items each fan-out has, and how many turns each loop, as far as they have settled."""
        return self._sizes

    def _size(self, task: TaskId) -> int:
        """How many items a fan-out has at its place; none where its list was skipped."""
        return self._sizes.get((task.step, task.index), 0)

    def _is_lost(self, items: TaskId) -> bool:
        """Whether a fan-out's list was skipped: there is no fan-out, which is more than one without items."""
        return items in self._records and self._records[items] is None

    def _lost_fan_out(self, task: TaskId, step: Step) -> Step | None:
        """The fan-out that a task stands for as a whole, or joins, where its list was skipped."""
        if task.part:
            return None
        heads = [self.loops.steps[name] for name in step.scope[len(task.index) :][:1]]
        joined = self.loops.joined(step)
        heads += [joined] if joined is not None else []
        lists = ((head, TaskId(step=head.name, index=task.index[: len(head.scope) - 1], part="list")) for head in heads)
        return next((head for head, items in lists if self._is_lost(items)), None)

    def newest(self, name: str) -> Record | None:
        """What holds a name's value at the end of the notebook; None where a definition does, or nobody knows."""
        for version in self.loops.versions(name, self._sizes):
            record = self._records.get(version) if isinstance(version, TaskId) else None
            if record is not None and name in record.artifacts:
                return record
        return None

    def _has(self, task: TaskId) -> bool:
        return task in self._records or task.step not in self.loops.steps

    def first(self) -> tuple[TaskNode, ...]:
        """The tasks that are known before anything has run."""
        return self._nodes(self.loops.first())

    def unfold(self, task: TaskId) -> tuple[TaskNode, ...]:
        """A settled task in; the tasks that are known because of it out: a list's items, another turn."""
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
        return tuple(TaskNode(task, self._needs(task), self._item_preview(task)) for task in tasks)

    def _needs(self, task: TaskId) -> tuple[TaskId, ...]:
        """What a task reads from; with --once, or once it started too early, also all that might change it."""
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
        """A task whose needs have settled in; what to do with it, and why, out."""
        if task.part in ("all", "last"):
            return self._gate(task)
        step = self.loops.step_of(task)
        now = time.time()
        pinned = self.facts.pinned.get(task)
        lost = self._lost_fan_out(task, step)
        if lost is not None:
            return Decision(task, now, "skip", reasons=(("skipped", f"{lost.name} was skipped"),))
        if pinned is None and task in self.facts.pinned:
            return Decision(task, now, "skip", reasons=(("only", "it left nothing then"),))
        joined = self._joined(task, step)
        below = [group for entry in joined or () for _, record in entry.tasks for group in record.groups]
        items = [item.group for item in (self._item(task),) if item is not None]
        resolved = inputs.resolve(self.loops, task, self._above, [*below, *items], self._body_definitions(task, step))
        if resolved.waits:
            return Decision(task, now, "wait", waits=resolved.waits)
        if resolved.failure is not None:
            return Decision(task, now, "fail", failure=resolved.failure)
        if resolved.skip is not None:
            return Decision(task, now, "skip", reasons=(("skipped", resolved.skip),))
        parts = self._parts(task, step, resolved, joined)
        key = keys.task_key(parts)
        self._known[task] = _Known(resolved, parts, key, joined)
        own = self._own.get((key, task.turn))
        if own is not None and not own.caught and reuse.apart(own, self.loops.tracked(step)) is None:
            self.settle(task, own)
            if own.skipped is not None:
                return _skip(task, own)
            return Decision(task, now, "done", key=key, execution=own.execution, elapsed=own.elapsed)
        taken = (("only", f"taken as {pinned.run} left it"),) if pinned is not None else ()
        choice = reuse.Choice(pinned, taken) if pinned else self.choose(task, key)
        record = choice.record
        if record is not None:
            self.settle(task, record)
            if record.skipped is not None:
                return _skip(task, record)
            return Decision(
                task, now, "reuse", key=key, execution=record.execution, reused_from=record.run, reasons=choice.reasons
            )
        begun = self._begun_before(task, step, key)
        if begun is not None:
            return Decision(task, now, "fail", key=key, reasons=(("once", begun.message),), failure=begun)
        if self.facts.only and choice.reasons and choice.reasons[0][0] == "fresh":
            choice = reuse.Choice(None, (("only", "--only runs this step, whatever is known of it"),))
        return Decision(task, now, "run", key=key, reasons=self._reasons(task, choice))

    def _reasons(self, task: TaskId, choice: reuse.Choice) -> tuple[Reason, ...]:
        """Why a prepared task runs: what was asked for, else what has changed since it was executed or failed."""
        if choice.reasons and choice.reasons[0][0] in ("fresh", "no-cache", "only"):
            return choice.reasons
        failed = reuse.as_reasons(self.changes(task)) if self._failed(task) is not None else ()
        if failed and choice.reasons:
            return (failed[0], *choice.reasons)
        return failed or choice.reasons or reuse.as_reasons(self.changes(task)) or (("new", "it has not run before"),)

    def _begun_before(self, task: TaskId, step: Step, key: str) -> TaskFailure | None:
        """Why a task with `--once` may not run; None where it may, or where a run that lives will have its result."""
        if not step.options.once or task.part or step.name in self.facts.again:
            return None
        made = claims.last_claim(self.store, key)
        if made is None or (not self.facts.session and claims.is_under_way(self.store, made)):
            return None
        return claims.asks(self.store, step, made, by_hand=self.facts.session)

    def _gate(self, task: TaskId) -> Decision:
        """The end of a fan-out waits for its items, the end of an --until for its last turn."""
        now = time.time()
        if task.part == "all":
            if task in self._waited:
                self.settle(task, None)
                return Decision(task, now, "settle")
            self._waited.add(task)
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
        """The item of a task's innermost fan-out, or of an outer one."""
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
        """What a join sees of each item that is done."""
        head = self.loops.joined(step) if not task.part else None
        if head is None:
            return None
        place = task.index[: len(head.scope) - 1]
        listing = self._records.get(TaskId(step=head.name, index=place, part="list"))
        found = []
        if listing is None:
            return ()
        for at in range(len(listing.artifacts)):
            index = (*place, at)
            tasks = tuple(self._body_tasks(head, index))
            if not tasks:
                continue  # every step of the body was skipped
            artifact = listing.artifacts[str(at)]
            item = inputs.InputValue(listing.groups[artifact.group], artifact, head.name)
            found.append(_JoinedItem(at, item, tasks, self._outside_reads(tasks)))
        return tuple(found)

    def _body_definitions(self, task: TaskId, step: Step) -> tuple[int, ...]:
        """Constants, functions and classes that the body of a join's fan-out reads: its items have them too."""
        head = self.loops.joined(step) if not task.part else None
        if head is None:
            return ()
        orders = {order for other in self.loops.bodies[head.name] for order in other.definitions}
        found = [self.flow.definitions[order] for order in sorted(orders)]
        return tuple(d.order for d in found if d.kind == "definition" and not d.origins and d.position < step.position)

    def _body_records(self, step: Step, index: Index) -> Iterator[tuple[TaskId, Record | None]]:
        for place in self._places(step.scope, index):
            task = settled_id(step, place)
            turns = msgspec.structs.replace(task, part="")
            yield turns, self._records.get(task)

    def _places(self, scope: tuple[str, ...], index: Index) -> Iterator[Index]:
        """Every index of a scope that begins with this one."""
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
        """Everything that a task's key is made of: its inputs, its item where it sees one, its join's items."""
        item = ""
        if task.part != "list" and step.scope:
            own = self._item(task) if step.options.foreach is not None else None
            item = own.artifact.content_id if own is not None else ""
            if self._mentions(step, "current"):
                whole = self._item(task)
                item = f"{whole.artifact.content_id if whole else ''} {task.index}"
        if task.turn and step.options.condition is not None:
            item = f"{item} after the first turn"  # which alone asks --if
        parts = keys.key_parts(self.flow, step, resolved, item=item)
        if self.asks_for_parameters(step):
            given = {name: f"{value!r}#{keys.digest(repr(value))}" for name, value in self.facts.values.items()}
            parts = msgspec.structs.replace(parts, parameters=given | parts.parameters)
        if joined is None:
            return parts
        content = [entry.content() for entry in joined]
        known = {**parts.inputs, "inputs": f"{len(content)} items {keys.digest(content)}"}
        return msgspec.structs.replace(parts, inputs=known)

    def asks_for_parameters(self, step: Step) -> bool:
        """Whether a step may read `current.parameters`."""
        return self._mentions(step, "current") and self._mentions(step, "parameters")

    def know_parameters(self, values: Mapping[str, Any]) -> None:
        """Parameters have been evaluated only now, as a step asks for them."""
        self.facts = replace(self.facts, values={**self.facts.values, **values})
        self.__dict__.pop("_parameters", None)

    def _mentions(self, step: Step, word: str) -> bool:
        """Whether a step's text, or that of a definition that it uses, holds a word."""
        return word in step.source or any(word in self.flow.definitions[order].source for order in step.definitions)

    def choose(self, task: TaskId, key: str) -> reuse.Choice:
        """A task and its key in; the past execution that stands for it, if any, out."""
        step, listing, fresh = self.loops.step_of(task), task.part == "list", self.facts.fresh
        wishes = reuse.Wishes(
            fresh=fresh is True or (fresh is not False and step.name in fresh),
            no_cache=step.options.no_cache,
            expires=step.options.expires,
            required=frozenset() if listing else self.required(step.name),
            tracked=() if listing else self.loops.tracked(step),
            empty=listing,
            silent=step.kind == "cell",
            now=time.time(),
        )
        many = step.code if step.scope and not task.part else ""
        unread = wishes.fresh or wishes.no_cache
        found = [] if unread else records.find(self.store, key, among=many)
        if unread:
            self._seen_places[key] = records.newest_place(self.store, key, among=many)
        if found:
            self._seen_places[key] = found[0].order[0]
        if task.turn is not None:
            found = self._of_turn(task.turn, found)
        choice = reuse.choose(found, wishes, lambda seen: self._holds(task, seen))
        lost = lost_of(self.store, choice.record.groups) if choice.record is not None else None
        return choice if lost is None else reuse.Choice(None, (("no-output", lost),))

    def _of_turn(self, turn: int, found: Iterable[Record]) -> list[Record]:
        """Return the executions that may stand for a turn, those of the same turn first.

        Turns that read equal inputs differ by the world alone (a file that is waited for, a number that is drawn): what
        one of them has found is not what the next one would find.
        """
        free = [record for record in found if self._stood.get(record.execution, turn) >= turn]
        return sorted(free, key=lambda record: record.turn != turn)

    def _holds(self, task: TaskId, seen: Observations) -> Reason | None:
        """A task, and what an execution of it was seen to depend on, in; why that no longer holds out."""
        changed = reuse.holds(seen, self.flow.notebook.folder, self.facts.variables(), self._written)
        if changed is not None or not seen.asked:
            return changed
        facts = self.facts
        now = said(self.flow.name, facts.run, task.step, task.index, facts.tags, is_flow=not facts.session)
        planned = self.flow.name if facts.whole and not facts.run else ""
        return inquiries.changed(seen.asked, self.store, now, planned)

    def changes(self, task: TaskId) -> tuple[Change, ...]:
        """A prepared task in; what differs from its last execution out: from the one that failed, if it did."""
        known = self._known[task]
        step = self.loops.step_of(task)
        failed = self._failed(task)
        if failed is None:
            return reuse.changes(known.parts, step.source, self.previous(task))
        place, key = failed
        told = Change(code="failed", what=f"failed in {place.run}")
        past = self._lookup_of(place) if key != known.key else None
        then = past.attempted(task, known.parts) if past is not None else None
        return (told, *(reuse.differences(*then, known.parts, step.source) if then is not None else ()))

    def key(self, task: TaskId, version: int) -> str:
        """A prepared task in; its key in a datastore of that format out."""
        return keys.task_key(self._known[task].parts, version=version)

    def previous(self, task: TaskId) -> Record | None:
        """The record that stood for the task in the newest run that had one."""
        stood = self._history.get(task)
        return records.read_record(self.store, *stood.place) if stood is not None and stood.place is not None else None

    def newest_under(self, key: str) -> Record | None:
        """A key in; its newest record, whether or not it still stands for the task, out."""
        return next(iter(records.find(self.store, key)), None)

    def makers(self, task: TaskId) -> frozenset[str]:
        """A prepared task in; the steps that made what it is given out."""
        resolved = self._known[task].resolved if task in self._known else inputs.Resolved()
        values = (*resolved.inputs.values(), *resolved.along.values(), *resolved.binds.values())
        return frozenset(value.step for value in values)

    def _failed(self, task: TaskId) -> tuple[RunPlace, str] | None:
        """The run in which a task failed after its last execution, with its key there; None where it did not."""
        stood = self._history.get(task)
        return stood.failed if stood is not None else None

    def attempted(self, task: TaskId, now: KeyParts) -> tuple[KeyParts, str] | None:
        """A task of a past run and its parts now in; its parts and source in that run, None where it had none, out.

        An attempt that fails leaves no record. What it was made of is worked out from its run's notebook and records;
        where those do not say it, as within a fan-out, it counts as what it is now.
        """
        if task.step not in self.loops.steps:
            return None
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
        """A past run in; a look-up that knows what settled in it out, None where its notebook is gone."""
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
        known = find_flow(self.store, self.flow.notebook)
        runs = runs_of(self.store, known) if known is not None else ()
        return last_executions(self.store, runs, {step.name for step in self.flow.steps}, self.facts.run)

    def required(self, step: str) -> frozenset[str]:
        """Names of a step that other steps read."""
        return self._required.get(step, frozenset())

    @cached_property
    def _required(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for step in self.flow.steps:
            binds = [*step.bindings, *(b for order in step.definitions for b in self.flow.definitions[order].binds)]
            for binding in binds:
                for source in binding.sources:
                    if source.step is not None and source.step != step.name:
                        found.setdefault(source.step, set()).add(binding.name)
        return {name: frozenset(names) for name, names in found.items()}

    # ------------------------------------------------------------ specs

    def execution(self, task: TaskId, attempt: int) -> str:
        """A task and its attempt in; the attempt's execution id out."""
        return execution_id(self.facts.run, task, attempt, self.revision)

    def spec(self, task: TaskId, attempt: int, threads: int) -> TaskSpec:
        """A prepared task in; everything that a worker needs out."""
        step = self.loops.step_of(task)
        known = self._known[task]
        resolved = known.resolved
        item = self._item(task) if task.part != "list" else None
        values = [*resolved.inputs.values(), *resolved.along.values(), *resolved.binds.values()]
        values += [item] if item else []
        values += [entry.item for entry in known.joined or ()]
        values += [value for entry in known.joined or () for value in entry.reads.values()]
        groups, ref = keys.pack(values)
        replay, own = keys.replay_of(self.flow, step, resolved, ref)
        joined = None if known.joined is None else tuple(
            JoinItem(
                index=entry.index, item=ref(entry.item), reads={name: ref(v) for name, v in entry.reads.items()},
                places=tuple((record.key, record.execution) for _, record in entry.tasks),
            )
            for entry in known.joined
        )  # fmt: skip
        return TaskSpec(
            flow=self.flow.name, run=self.facts.run, step=step.name, execution=self.execution(task, attempt),
            key=known.key, parts=known.parts, source=step.source, code_name=step.label,
            cell=step.cell.partition("#")[0], position=step.position, store=self.facts.store_url,
            folder=self.flow.notebook.folder, index=task.index, turn=task.turn, attempt=attempt, replay=replay,
            places=self.loops.setting, own=own, groups=groups,
            inputs={name: ref(value) for name, value in resolved.inputs.items()},
            along={name: ref(value) for name, value in resolved.along.items()},
            tracked=() if task.part else self.loops.kept_together(step),
            writes=step.writes, outputs=step.options.outputs,
            required=() if task.part else tuple(sorted(self.required(step.name))),
            parameters=self._parameters, tags=self.facts.tags, origin=self.facts.origin, threads=threads,
            preload=self.preload, options=step.options, secrets=step.options.secret,
            items=self._sizes.get((step.scope[-1], task.index[:-1]), 0) if step.scope and task.index else 0,
            evaluate=step.source if task.part == "list" else None, item=ref(item) if item is not None else None,
            targets=step.targets, joined=joined, seen=self._seen_places.get(known.key, 0.0),
            constants=tuple(
                name for order in self._body_definitions(task, step) for name in self.flow.definitions[order].names
            ),
        )  # fmt: skip

    @cached_property
    def _parameters(self) -> bytes:
        """The parameters' values as tasks get them, to be read when a cell asks for them."""
        return pickle.dumps(dict(self.facts.values))

    def caught(self, task: TaskId, attempt: int, failure: TaskFailure) -> Record:
        """A task that its worker left without a word in; the published record that holds its `--catch` out."""
        step, known = self.loops.step_of(task), self._known[task]
        left = {step.options.catch or "": Caught(failure.type, failure.message, failure.traceback)}
        groups, entries = save(self.store, dump(left, Registry()))
        now = time.time()
        record = Record(
            format=FORMAT, key=known.key, execution=self.execution(task, attempt), flow=self.flow.name,
            run=self.facts.run, step=step.name, index=task.index, turn=task.turn, attempt=attempt,
            created_at=now, elapsed=0.0, source=step.source, parts=known.parts, groups=groups,
            artifacts=entries, caught=True, stamp=records.stamp_after(now, self._seen_places.get(known.key, 0.0)),
        )  # fmt: skip
        records.publish(self.store, record)
        return record

    def _outside_reads(self, tasks: Iterable[tuple[TaskId, Record]]) -> dict[str, inputs.InputValue]:
        """Names that an item's tasks took from outside: what they did not write themselves."""
        written = {name for _, record in tasks for name in record.artifacts}
        found: dict[str, inputs.InputValue] = {}
        for task, _ in tasks:
            known = self._known.get(task)
            if known is not None:
                found.update((name, value) for name, value in known.resolved.inputs.items() if name not in written)
        return found

    @cached_property
    def preload(self) -> tuple[str, ...]:
        """The modules that the flow's cells import."""
        return preload_of(self.flow)


def _plain(text: str, now: Any) -> Any:
    """A parameter as a run's start tells it, and its value now, in; the value then where that is JSON out."""
    try:
        return json.loads(text)
    except ValueError:
        return now


def _skip(task: TaskId, record: Record) -> Decision:
    """A task and the record of its condition, which does not hold, in; what the run is told out."""
    reasons = (not_held(record.skipped or ""),)
    return Decision(task, time.time(), "skip", key=record.key, execution=record.execution, reasons=reasons)
