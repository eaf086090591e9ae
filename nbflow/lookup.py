"""One run's knowledge of its tasks: inputs found, keys made, past executions looked up, task specs built."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from nbflow import observe, planning, records
from nbflow.artifacts import is_whole
from nbflow.model import Change, Flow, KeyParts, Record, Step, TaskChanged, TaskId, TaskSpec
from nbflow.state import Prepared
from nbflow.storage import Store, safe_name


@dataclass(frozen=True)
class RunFacts:
    """What every task of a run is told."""

    run: str
    store_url: str
    values: Mapping[str, Any] = field(default_factory=dict)  # parameters by name
    tags: tuple[str, ...] = ()
    origin: str | None = None
    fresh: frozenset[str] | bool = False  # True: all; names: these steps
    volatile_is_fresh: bool = False
    session: bool = False


@dataclass(frozen=True)
class _Known:
    """A task whose inputs were all found."""

    resolved: planning.Resolved
    parts: KeyParts
    key: str


class Lookup:
    """Answers Prepare; holds the records of settled tasks, so that what reads from them finds them."""

    def __init__(self, flow: Flow, store: Store, facts: RunFacts, given: Mapping[str, Record] | None = None) -> None:
        self.flow = flow
        self.store = store
        self.facts = facts
        self._steps = {step.name: step for step in flow.steps}
        self._records: dict[TaskId, Record | None] = {
            TaskId(step=name): record for name, record in (given or {}).items()
        }
        self._known: dict[TaskId, _Known] = {}

    # ------------------------------------------------------------ what has settled

    def settle(self, task: TaskId, record: Record | None) -> None:
        """A task ended with this record; None: skipped, failed or cancelled."""
        self._records[task] = record

    def record(self, task: TaskId) -> Record | None:
        """The record of a settled task."""
        return self._records.get(task)

    def _look(self, step: str) -> Record | None:
        return self._records.get(TaskId(step=step))

    def _settled(self, step: str) -> bool:
        return TaskId(step=step) in self._records or step not in self._steps

    # ------------------------------------------------------------ prepare

    def prepare(self, task: TaskId) -> Prepared:
        """A task whose needs have settled in; what to do with it, and why, out."""
        step = self._steps[task.step]
        resolved = planning.resolve(self.flow, step, self._look, self._settled)
        now = time.time()
        if resolved.waits:
            return Prepared(task, now, "wait", waits=tuple(TaskId(step=name) for name in resolved.waits))
        if resolved.failure is not None:
            return Prepared(task, now, "fail", failure=resolved.failure)
        if resolved.skip is not None:
            return Prepared(task, now, "skip", reasons=(("skipped", resolved.skip),))
        parts = planning.key_parts(self.flow, step, resolved)
        key = planning.task_key(parts)
        self._known[task] = _Known(resolved, parts, key)
        choice = self.choose(step, key)
        if choice.record is not None:
            self.settle(task, choice.record)
            return Prepared(
                task, now, "reuse", key=key, execution=choice.record.execution,
                reused_from=choice.record.run, reasons=choice.reasons,
            )  # fmt: skip
        reasons = choice.reasons or planning.as_reasons(self.changes(task)) or (("new", "it has not run before"),)
        return Prepared(task, now, "run", key=key, reasons=reasons)

    def choose(self, step: Step, key: str) -> planning.Choice:
        """A step and its key in; the past execution that stands for it, if any, out."""
        fresh = self.facts.fresh
        wishes = planning.Wishes(
            fresh=fresh is True or (fresh is not False and step.name in fresh),
            no_cache=step.options.no_cache,
            expires=step.options.expires,
            required=self.required(step.name),
            now=time.time(),
        )
        found = [] if wishes.fresh or wishes.no_cache else records.find(self.store, key)
        choice = planning.choose(found, wishes, lambda seen: observe.holds(seen, self.flow.notebook.folder))
        if choice.record is not None and not is_whole(self.store, choice.record.groups):
            return planning.Choice(None, (("no-output", "its stored values are gone"),))
        return choice

    def changes(self, task: TaskId) -> tuple[Change, ...]:
        """A prepared task in; what differs from the execution that stood for it last time, out."""
        known = self._known[task]
        step = self._steps[task.step]
        return planning.changes(known.parts, step.source, self.previous(task))

    def previous(self, task: TaskId) -> Record | None:
        """The record that stood for the task in the newest run that had one."""
        place = self._history.get(task)
        return records.read_record(self.store, *place) if place is not None else None

    @cached_property
    def _history(self) -> Mapping[TaskId, tuple[str, str]]:
        return last_executions(self.store, self.flow.name, {step.name for step in self.flow.steps}, self.facts.run)

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
        return execution_id(self.facts.run, task, attempt)

    def spec(self, task: TaskId, attempt: int, threads: int) -> TaskSpec:
        """A prepared task in; everything that a worker needs out."""
        step = self._steps[task.step]
        known = self._known[task]
        resolved = known.resolved
        groups, ref = planning.pack([*resolved.inputs.values(), *resolved.binds.values()])
        replay, own = planning.replay_of(self.flow, step, resolved, ref)
        return TaskSpec(
            flow=self.flow.name, run=self.facts.run, step=step.name,
            execution=self.execution(task, attempt), key=known.key, parts=known.parts,
            source=step.source, code_name=step.label, cell=step.cell, position=step.position,
            store=self.facts.store_url, folder=self.flow.notebook.folder, index=task.index, turn=task.turn,
            attempt=attempt, replay=replay, own=own, groups=groups,
            inputs={name: ref(value) for name, value in resolved.inputs.items()},
            writes=step.writes, outputs=step.options.outputs, required=tuple(sorted(self.required(step.name))),
            parameters=_plain(self.facts.values), tags=self.facts.tags, origin=self.facts.origin, threads=threads,
            preload=self.preload, options=step.options, secrets=step.options.secret,
        )  # fmt: skip

    @cached_property
    def preload(self) -> tuple[str, ...]:
        """The modules that the flow's cells import at top level, in document order."""
        used = {order for step in self.flow.steps for order in (*step.definitions, *step.own_definitions)}
        return imported_modules(
            [self.flow.definitions[order].source for order in sorted(used) if self.flow.definitions[order].origins]
        )


def imported_modules(sources: list[str]) -> tuple[str, ...]:
    """Import statements as text in; the absolute names of the modules that they load, each once, out."""
    found: dict[str, None] = {}
    for source in sources:
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        for node in body:
            if isinstance(node, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = None
    return tuple(found)


def execution_id(run: str, task: TaskId, attempt: int) -> str:
    """A run, a task and an attempt in; the name under which this attempt may publish once, out."""
    index = "-".join(map(str, task.index))
    turn = "" if task.turn is None else str(task.turn)
    return safe_name(f"{run}.{task.step}.{index}.{turn}.{attempt}")


def last_executions(
    store: Store, flow: str, steps: set[str], besides: str = "", *, depth: int = 8
) -> dict[TaskId, tuple[str, str]]:
    """A flow in; for each task the (key, execution) that stood for it in the newest of its last runs, out."""
    found: dict[TaskId, tuple[str, str]] = {}
    for run in records.list_runs(store, flow)[:depth]:
        if run == besides:
            continue
        newest: dict[TaskId, tuple[str, str]] = {}
        for event in records.read_events(store, flow, run):
            if isinstance(event, TaskChanged) and event.state in ("done", "reused") and event.key:
                newest[event.task] = (event.key, event.execution)
        for task, place in newest.items():
            found.setdefault(task, place)
        if steps <= {task.step for task in found}:
            break
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameter values as JSON holds them; what JSON has no type for goes as text."""
    return {name: msgspec.to_builtins(value, enc_hook=str, str_keys=True) for name, value in values.items()}
