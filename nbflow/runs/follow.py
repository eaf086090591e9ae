"""A run that goes on elsewhere → the same snapshots and events that its own process shows: read from the datastore."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nbflow.model import SETTLED, RunEvent, RunStarted, Snapshot, TaskChanged, TaskId, TaskOutput, TaskView
from nbflow.store import records
from nbflow.store.executions import execution_id
from nbflow.store.history import advance
from nbflow.store.history import snapshot as fold
from nbflow.store.stored_run import StoredRun, is_alive

EVERY = 0.2
"""Seconds between two looks at the store."""

Watch = Callable[[Snapshot, RunEvent | TaskOutput | None], None]


class Follower:
    """One run as it goes on; each `look` shows what is new."""

    def __init__(self, past: StoredRun, watch: Watch) -> None:
        self.past = past
        self.watch = watch
        self._events = records.EventReader(past.store, past.folder, past.run)
        self._logs: dict[TaskId, tuple[int, records.LogReader]] = {}
        self._views: dict[TaskId, TaskView] = {}
        self._seen: list[RunEvent] = []

    def look(self) -> Snapshot:
        """Show everything that has come since the last time; return the run as it is now."""
        past = self.past
        events = self._events.new()
        self._seen += events
        started = next((event for event in self._seen if isinstance(event, RunStarted)), None)
        if started is None:
            return past.snapshot  # says that there is no such run
        beat = records.last_beat(past.store, past.folder, past.run)
        snapshot = fold(self._seen, time.time(), beat, is_alive(started))
        for event in events:
            if isinstance(event, TaskChanged):
                self._show_outputs(snapshot)
                self._views[event.task] = advance(self._views.get(event.task), event)
                self._attend(event)
            self.watch(snapshot, event)
        self._show_outputs(snapshot)
        self.watch(snapshot, None)
        return snapshot

    def _attend(self, event: TaskChanged) -> None:
        """Read the log of a task that runs from now on."""
        if event.state == "running":
            execution = event.execution or execution_id(self.past.run, event.task, event.attempt)
            log = records.LogReader(self.past.store, self.past.folder, self.past.run, execution)
            self._logs[event.task] = (event.attempt, log)

    def _show_outputs(self, snapshot: Snapshot) -> None:
        for task, (attempt, log) in list(self._logs.items()):
            for piece in log.new():
                self.watch(snapshot, TaskOutput(task=task, output=piece.output, at=piece.at, attempt=attempt))
            if self._views[task].state in SETTLED:
                del self._logs[task]


def follow(past: StoredRun, watch: Watch, stop: threading.Event | None = None, every: float = EVERY) -> Snapshot:
    """Show a run until it has ended, or `stop` is set, and return it as it is then. The run itself is left alone."""
    follower = Follower(past, watch)
    while True:
        snapshot = follower.look()
        if snapshot.status != "running" or (stop is not None and stop.is_set()):
            return follower.look()
        if stop is not None:
            stop.wait(every)
        else:
            time.sleep(every)
