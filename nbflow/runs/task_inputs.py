"""What a past task was given: found again from its run's notebook and results, so that nothing had to be kept for it.

The notebook that is kept with the run says what a task reads; the run's events say which execution stood for each task
above it; the list of a fan-out is the run's own, or the last one that it could have reused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from nbflow.analysis.effects import owner_of
from nbflow.engine.earlier import graph_of, parameter_records
from nbflow.engine.events import TaskNode
from nbflow.engine.lookup import Lookup, RunFacts
from nbflow.errors import NotFoundError
from nbflow.flow.subflow import with_ancestors, without_params
from nbflow.model import FORMAT, Flow, Record, Ref, TaskId, TaskSpec, TaskView
from nbflow.runs.values import Values, values_with
from nbflow.store import records
from nbflow.store.stored_run import StoredRun
from nbflow.task import stages


def spec_of(past: StoredRun, view: TaskView) -> TaskSpec:
    """Return the spec that a past task was run from; raise NotFoundError when something that it read is gone."""
    return _spec(past, graph_of(past), view)


def _spec(past: StoredRun, graph: Flow, view: TaskView) -> TaskSpec:
    task = view.task
    flow = with_ancestors(graph, [task.step])
    pinned = {other.task: past.record(other) for other in past.snapshot.tasks if other.task != task}
    facts = RunFacts(run=past.run, store_url=past.store.url, tags=past.snapshot.tags, pinned=pinned)
    lookup = Lookup(without_params(flow), past.store, facts, parameter_records(past, graph))
    _retrace(lookup, task, past.snapshot.finished_at or time.time())
    prepared = lookup.prepare(task)
    if prepared.action not in ("run", "reuse"):
        why = prepared.failure.message if prepared.failure else "; ".join(what for _, what in prepared.reasons)
        raise NotFoundError(
            f"the inputs of {_name(task)} cannot be found again{f': {why}' if why else ''}",
            fix="run the flow once more: `nbflow resume`",
        )
    return lookup.spec(task, view.attempt, 0)


def _retrace(lookup: Lookup, target: TaskId, until: float) -> None:
    """Settle everything that the target reads from as it was settled then; the run had ended by `until`."""
    waiting: dict[TaskId, tuple[TaskId, ...]] = {}
    settled: set[TaskId] = set()

    def add(nodes: tuple[TaskNode, ...]) -> None:
        waiting.update({node.task: node.needs for node in nodes if node.task != target})

    def is_open(need: TaskId) -> bool:
        return need not in settled and need.step in lookup.loops.steps

    add(lookup.first())
    moved = True
    while moved:
        moved = False
        for task in [task for task, needs in waiting.items() if not any(map(is_open, needs))]:
            prepared = None if _is_lost(lookup, task) else lookup.prepare(task)
            moved = True
            if prepared is not None and prepared.action == "wait":
                moved = waiting[task] != prepared.waits
                waiting[task] = prepared.waits
                continue
            if prepared is not None and task.part == "list":
                lookup.settle(task, _list_of(lookup, task, until))
            elif prepared is None or prepared.action not in ("reuse", "settle"):
                lookup.settle(task, None)
            del waiting[task]
            settled.add(task)
            add(lookup.unfold(task))


def _list_of(lookup: Lookup, task: TaskId, until: float) -> Record | None:
    """Return the record that stood for a fan-out's list in the run, of whatever format; None where it is gone."""
    records_of = [
        record for version in range(FORMAT, 0, -1)
        for record in records.find(lookup.store, lookup.key(task, version), version=version)
        if record.created_at <= until
    ]  # fmt: skip
    return next(
        (record for record in records_of if record.run == lookup.facts.run), records_of[0] if records_of else None
    )


def _is_lost(lookup: Lookup, task: TaskId) -> bool:
    """Return whether a fan-out's end cannot be looked at: its list is no longer known."""
    return task.part == "all" and lookup.record(TaskId(step=task.step, index=task.index, part="list")) is None


def load_inputs(past: StoredRun, view: TaskView) -> dict[str, Any]:
    """Return the names that a past task's cell could read, with the values that it was given.

    Definitions that the values refer to are replayed in the run's own namespace; this unpickles.
    """
    graph = graph_of(past)
    spec = _spec(past, graph, view)
    states = {name: spec.groups[ref.group] for name, ref in spec.inputs.items() if owner_of(name) is not None}
    inputs = _Given(spec, values_with(past, graph, states))
    stages.bind(spec, inputs, inputs)
    constants = {name: inputs.values.last(name) for name in spec.constants}
    stages.bind_loop(spec, inputs, inputs, past.store, inputs.values.registry, constants)
    return inputs.found


class _Given:
    """A past task's inputs, and where they are put: into a mapping, and nothing into this process."""

    def __init__(self, spec: TaskSpec, values: Values) -> None:
        self.spec = spec
        self.values = values
        self.found: dict[str, Any] = {}

    def value(self, ref: Ref) -> Any:
        """Return the value of an input."""
        return self.values.load_group(self.spec.groups[ref.group], ref.name)

    def name(self, name: str, value: Any) -> None:
        """Keep a name's value."""
        self.found[name] = value

    def random(self, name: str, state: Any) -> None:
        """Leave this process's random state alone."""

    def definition(self, name: str, state: Mapping[str, Any]) -> None:
        """Leave it to the values: what cells have set on a definition is set as soon as it is replayed."""


def _name(task: TaskId) -> str:
    return "/".join((task.step, ".".join(map(str, task.index)))) if task.index else task.step
