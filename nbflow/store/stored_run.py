"""One run as the datastore holds it: its events, records, logs and the text of its notebook, read when asked for."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from nbflow.errors import NotFoundError, nearest
from nbflow.flow import findings
from nbflow.model import (
    Finding,
    Record,
    RunEnded,
    RunEvent,
    RunStarted,
    Snapshot,
    TaskChanged,
    TaskId,
    TaskView,
)
from nbflow.store import records
from nbflow.store.flows import RunPlace, StoredFlow, named_flow, runs_of, stored_flows
from nbflow.store.history import snapshot
from nbflow.store.index import Index as RunIndex
from nbflow.store.index import RunSummary
from nbflow.store.location import Store


class StoredRun:
    """A run, with all that the store holds of it; what can still change is read anew each time."""

    def __init__(self, store: Store, place: RunPlace) -> None:
        self.store = store
        self.place = place
        self.flow, self.folder, self.run = place
        self._ended: list[RunEvent] | None = None
        self._final: Snapshot | None = None
        self._by_step: tuple[Snapshot, Mapping[str, list[TaskView]]] | None = None
        self._changes: dict[TaskId, list[TaskChanged]] | None = None
        self._records: dict[tuple[str, str], Record] = {}

    @property
    def events(self) -> list[RunEvent]:
        """Its events in order; NotFoundError when there is no such run."""
        if self._ended is not None:
            return self._ended
        events = records.read_events(self.store, self.folder, self.run)
        if not any(isinstance(event, RunStarted) for event in events):
            raise NotFoundError(f"there is no run {self.run!r} of {self.flow!r} in {self.store.url}")
        if any(isinstance(event, RunEnded) for event in events):
            self._ended = events
        return events

    def forget(self) -> None:
        """Read everything anew the next time: something was added to a run that has ended."""
        self._ended = self._final = None

    @property
    def started(self) -> RunStarted:
        """Its first event, or the last one that announced its steps anew."""
        return [event for event in self.events if isinstance(event, RunStarted)][-1]

    @property
    def snapshot(self) -> Snapshot:
        """The run now."""
        events = self.events
        if self._ended is not None:
            self._final = self._final or self._named(snapshot(events, time.time()))
            return self._final
        beat = records.last_beat(self.store, self.folder, self.run)
        return self._named(snapshot(events, time.time(), beat, is_alive(self.started)))

    def tasks_of(self, step: str) -> list[TaskView]:
        """Return a step's tasks now, in item order, then turn."""
        now = self.snapshot
        if self._by_step is None or self._by_step[0] is not now:
            tasks: dict[str, list[TaskView]] = {}
            for view in now.tasks:
                tasks.setdefault(view.task.step, []).append(view)
            self._by_step = now, tasks
        return self._by_step[1].get(step, [])

    def _named(self, now: Snapshot) -> Snapshot:
        return msgspec.structs.replace(now, flow=self.flow)

    # ------------------------------------------------------------ records

    def record(self, view: TaskView) -> Record | None:
        """Return the record of the execution that stands for a task, None where there is none.

        Of a step of several cells it is one with all that they have left.
        """
        if view.cells:
            return records.joined([record for cell in view.cells if (record := self.record(cell)) is not None])
        return self._record(view.key, view.execution) if view.key and view.execution else None

    def _record(self, key: str, execution: str) -> Record | None:
        if (key, execution) not in self._records:
            record = records.read_record(self.store, key, execution)
            if record is None:  # cleaned up since, damaged, or never published: its run was killed
                return None
            self._records[key, execution] = record
        return self._records[key, execution]

    @property
    def emptied_at(self) -> float | None:
        """When a clean-up took what was large of its values (seconds since 1970); None where it has them."""
        return self.snapshot.emptied_at

    def lost(self, view: TaskView) -> str:
        """Return what has become of a task's result where that is missing or damaged, an empty string otherwise."""
        if view.cells:
            return next((lost for cell in view.cells if (lost := self.lost(cell))), "")
        if view.state not in ("done", "reused", "caught") or self.record(view) is not None:
            return ""
        return f"the result of {view.task.step} in {self.run} is missing or damaged: run the step again"

    def last_record(self, step: str) -> Record | None:
        """Return the record of the last item's last turn of a step that left one."""
        views = reversed(self.tasks_of(step))
        return next((record for view in views if (record := self.record(view)) is not None), None)

    def given(self, key: str, execution: str) -> Record | None:
        """Return the record with parameters' values at a place of `RunStarted.given`, None where it is gone."""
        return self._record(key, execution)

    # ------------------------------------------------------------ the notebook

    @cached_property
    def document(self) -> str:
        """The text of the notebook as it was run."""
        return records.read_notebook(self.store, self.folder, self.run)

    # ------------------------------------------------------------ logs

    def outputs(self, view: TaskView, attempt: int | None = None, rank: int = 0) -> list[Mapping[str, Any]]:
        """Return a task's nbformat outputs in order, streams in pieces, of its last attempt or the one that is named.

        They come from the log, which holds everything; where an execution has none (by hand), from its record. Those
        of other ranks than 0 of a step that runs on several nodes stand in logs alone.
        """
        if view.cells:
            return [piece for cell in view.cells for piece in self.outputs(cell, attempt)]
        record = self.record(view)
        folder, run, execution = self._executed(view, attempt, record)
        logged = records.read_log(self.store, folder, run, execution, rank) if execution else []
        if logged or record is None or rank or attempt not in (None, view.attempt):
            return [piece.output for piece in logged]
        return list(record.outputs)

    def ranks(self, view: TaskView, attempt: int | None = None) -> int:
        """Return how many processes ran a task's attempt together, one on each of its nodes."""
        folder, run, execution = self._executed(view, attempt, self.record(view))
        home = records.run_folder(folder, run)
        name = records.log_folder(home, execution).rpartition("/")[2]
        return 1 + sum(each.startswith(f"{name}-rank") for each in self.store.children(f"{home}/logs"))

    def _executed(self, view: TaskView, attempt: int | None, record: Record | None) -> tuple[str, str, str]:
        """Return flow's folder, run and id of the execution that was a task's attempt, "" for an id that it has not."""
        if attempt is None and record is not None and record.run != self.run:
            return folder_of(self.store, record.run, self.folder), record.run, record.execution
        changes = [change for change in self.changes(view.task) if change.attempt == (attempt or view.attempt)]
        return self.folder, self.run, next((each.execution for each in reversed(changes) if each.execution), "")

    def changes(self, task: TaskId) -> list[TaskChanged]:
        """Return everything that happened to a task, in order."""
        events = self.events
        if self._changes is None or self._ended is None:
            self._changes = {}
            for event in events:
                if isinstance(event, TaskChanged):
                    self._changes.setdefault(event.task, []).append(event)
        return self._changes.get(task, [])


def is_alive(started: RunStarted) -> bool | None:
    """Return whether a run's process exists, None when it ran elsewhere or this system cannot tell."""
    if not started.pid or started.host != socket.gethostname() or os.name != "posix":
        return None
    try:
        os.kill(started.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


LOOK_BACK = 20
"""Newest runs, among which a whole one is looked for."""


def lost_before(store: Store, flow: StoredFlow) -> Finding | None:
    """Return what is to be said of a flow's newest run when that broke off; a kernel's session ends as it likes."""
    for place in runs_of(store, flow)[:LOOK_BACK]:
        past = StoredRun(store, place)
        with contextlib.suppress(NotFoundError):  # killed before it wrote anything
            if not past.started.session:
                return _told_lost(past)
    return None


def _told_lost(past: StoredRun) -> Finding | None:
    now = past.snapshot
    if now.status != "lost":
        return None
    lost_steps = dict.fromkeys(v.task.step for v in now.tasks if v.failure is not None and v.failure.kind == "lost")
    return findings.lost_run(past.place.run, [now.labels.get(step, step) for step in lost_steps])


def folder_of(store: Store, run: str, likely: str) -> str:
    """Return the folder that holds a run; the flow's folder that it is `likely` in is looked at first."""
    others = (folder for folder in store.children("flows") if folder != likely)
    holding = (folder for folder in (likely, *others) if run in records.list_runs(store, folder))
    return next(holding, likely)


def find_run(store: Store, name: str) -> StoredRun:
    """Return the run that `ID`, `FLOW/ID` or `FLOW/latest` names; raise NotFoundError, which lists what there is.

    FLOW is the name that the flow bears now, or its folder. Raise AmbiguousFlow where it names several flows and no
    run's id says which.
    """
    word, separator, run = name.rpartition("/")
    flows = stored_flows(store)
    if not separator:
        places = [place for flow in flows for place in runs_of(store, flow)]
        hit = next((place for place in places if place.run == run), None)
        if hit is not None:
            return StoredRun(store, hit)
        if any(name in (flow.name, flow.folder) for flow in flows):
            raise NotFoundError(f"{name!r} is a flow, not a run", fix=f"name a run: {name}/latest")
        raise NotFoundError(
            f"there is no run {run!r} in {store.url}{nearest(run, [place.run for place in places])}",
            fix="`nbflow runs` lists all runs",
        )
    namesakes = [flow for flow in flows if flow.name == word]
    places = [place for flow in namesakes for place in runs_of(store, flow)]
    hit = next((place for place in places if place.run == run), None)
    if hit is not None:
        return StoredRun(store, hit)
    flow = named_flow(store, word)
    if run == "latest":
        newest = next((one for one in _summaries(store, [flow]) if one.is_whole), None)
        if newest is None:
            what = "has no run of the whole flow" if runs_of(store, flow) else "has no run"
            raise NotFoundError(f"the flow {word!r} {what} in {store.url}", fix="`nbflow runs --all` lists all runs")
        return StoredRun(store, place_of(newest))
    places = runs_of(store, flow)
    hit = next((place for place in places if place.run == run), None)
    if hit is None:
        raise NotFoundError(
            f"there is no run {run!r} of {word!r} in {store.url}{nearest(run, [place.run for place in places])}",
            fix=f"`nbflow runs` lists them; the newest is {word}/latest",
        )
    return StoredRun(store, hit)


def place_of(summary: RunSummary) -> RunPlace:
    """Return the place of a run from its summary."""
    return RunPlace(summary.flow, summary.folder, summary.run)


def summaries(store: Store, flow: StoredFlow | None = None, tags: Iterable[str] = ()) -> list[RunSummary]:
    """Return the runs of a flow (None: of all) that have all of some tags, newest first, under the flows' names now.

    The status of a run that has not ended is looked up: it may be lost.
    """
    runs = _summaries(store, stored_flows(store) if flow is None else [flow], tags)
    return [one if one.finished_at is not None else _looked_up(store, one) for one in runs]


def _summaries(store: Store, flows: Iterable[StoredFlow], tags: Iterable[str] = ()) -> list[RunSummary]:
    names = {folder: flow.name for flow in flows for folder in flow.folders}
    runs = RunIndex(store.url).runs(store, list(names), tags)
    return [msgspec.structs.replace(one, flow=names[one.folder]) for one in runs]


def _looked_up(store: Store, summary: RunSummary) -> RunSummary:
    status = StoredRun(store, place_of(summary)).snapshot.status
    return msgspec.structs.replace(summary, status=status)
