"""What a run would mean for the places that its steps are sent to: tasks, bytes, seconds, machines too small for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nbflow import plugins
from nbflow.engine.lookup import Lookup
from nbflow.model import Flow, PlannedPlace, PlanTask, Segment, Step, TaskId
from nbflow.store.files import segments_of
from nbflow.store.flows import find_flow
from nbflow.store.index import Index


class Places(Protocol):
    """Where the executors of a flow's places are found."""

    def get(self, url: str | None = None) -> Any:
        """Return the executor of a place."""

    def slots(self, url: str | None = None) -> int:
        """Return the number of cores of a place."""


def planned_places(
    flow: Flow, lookup: Lookup, rows: Sequence[PlanTask], places: Mapping[str, Sequence[Step]], executors: Places
) -> tuple[PlannedPlace, ...]:
    """Return what a run that does these rows would mean for each place of a flow."""
    took = _durations(flow, lookup, rows)
    counts = {step.name: _tasks_of(step.name, rows, lookup) for step in flow.steps}
    ends: dict[str, float] = {}
    planned = []
    for url, steps in places.items():
        for step in steps:
            width = max(1, min(executors.slots(url), step.options.workers or counts[step.name]))
            rounds = math.ceil(counts[step.name] / width)
            ends[step.name] = rounds * took.get(step.name, 0.0)
    for step in flow.steps:  # in document order: what it waits for stands above
        ends[step.name] = ends.get(step.name, 0.0) + max((ends.get(need, 0.0) for need in step.needs), default=0.0)
    for url, steps in places.items():
        names = {step.name for step in steps}
        running = [row for row in rows if row.step in names and row.action == "run"]
        known = [row.step for row in running if row.step in took]
        executor = executors.get(url)
        segments, all_known = _segments(running, lookup, executor, flow)
        upload = executor.upload(lookup.store.url, segments) if isinstance(executor, plugins.SupportsPlans) else 0
        too_small = executor.too_small(steps) if isinstance(executor, plugins.SupportsPlans) else ()
        planned.append(PlannedPlace(
            place=url, run=sum(counts[name] for name in {row.step for row in running}),
            reuse=sum(row.step in names and row.action == "reuse" for row in rows), upload=upload,
            seconds=max(ends[name] for name in known) if known else None,
            sends_more=not all_known, takes_longer=len(known) < len(running), too_small=too_small,
        ))  # fmt: skip
    return tuple(each for each in planned if each.run or each.reuse)


def _durations(flow: Flow, lookup: Lookup, rows: Sequence[PlanTask]) -> dict[str, float]:
    """Return how long a task of a step takes, in seconds: as this machine has seen it, else as the last one took."""
    entry = find_flow(lookup.store, flow.notebook)
    took = Index(lookup.store.url).durations(entry.folder) if entry is not None else {}
    for row in rows:
        if row.step not in took and row.action == "run":
            before = lookup.previous(TaskId(step=row.step, index=row.index or ()))
            took |= {row.step: before.elapsed} if before is not None else {}
    return took


def _tasks_of(step: str, rows: Sequence[PlanTask], lookup: Lookup) -> int:
    """Return how many tasks of a step would run; of a fan-out whose list is not known yet as many as the last time."""
    indexes = Counter(row.index is None for row in rows if row.step == step and row.action == "run")
    return indexes[False] + (max(1, lookup.last_tasks(step)) if indexes[True] else 0)


def _segments(running: Sequence[PlanTask], lookup: Lookup, executor: object, flow: Flow) -> tuple[list[Segment], bool]:
    """Return the segments that tasks need, of values, files and environments, and whether all of them are known."""
    segments: list[Segment] = []
    all_known = True
    sends_files = isinstance(executor, plugins.SupportsFiles) and executor.wants_files(flow.notebook.folder)
    files: set[str] = set()
    for row in running:
        task = TaskId(step=row.step, index=row.index or ())
        inputs = lookup.segments(task) if row.index is not None else None
        all_known = all_known and inputs is not None
        segments += inputs or ()
        if sends_files and inputs is not None:
            files.update(str(Path(flow.notebook.folder) / path) for path in lookup.known_files(task))
        source = lookup.environment(flow.step(row.step))
        files.update(source.files.values() if source is not None else ())
    segments += [segment for path in files for segment in segments_of(Path(path))]
    return segments, all_known
