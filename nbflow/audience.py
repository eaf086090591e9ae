"""What a kernel's runs tell whoever watches them: fed and asked from any thread; each answer is a frozen value."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from nbflow.history import snapshot
from nbflow.model import Flow, Found, RunEnded, RunEvent, RunStarted, Snapshot, TaskChanged, TaskId, TaskOutput

PRINTED = 16_000
"""Characters of what a task has printed that are kept for watchers: the end of it; the whole is in the store."""
PRINTED_IN_ALL = 4_000_000


class Audience:
    """The newest flow run of a kernel, its cells run by hand, and the flow as it stands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._flow: Flow | None = None
        self._run: Snapshot | None = None
        self._start: RunStarted | None = None
        self._tasks: dict[TaskId, TaskChanged] = {}
        self._found: list[Found] = []
        self._printed: dict[tuple[str, TaskId], str] = {}

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told`, from any thread and without waiting, after each change; a function that ends it out."""
        self._watchers.append(told)
        return lambda: self._watchers.remove(told)

    # ------------------------------------------------------------ what is told

    def see_flow(self, flow: Flow) -> None:
        """The notebook as a flow, as it stands."""
        if flow is not self._flow:
            self._flow = flow
            self._tell()

    def see_run(self, run: Snapshot, event: RunEvent | TaskOutput | None) -> None:
        """A flow run at this moment, and what made it so."""
        if isinstance(event, TaskOutput):
            self._print(run.run, event.task, event.output)
        if run is not self._run:
            self._run = run
            self._tell()

    def see_by_hand(self, event: RunEvent) -> None:
        """An event of the cells that are run by hand."""
        with self._lock:
            if isinstance(event, RunStarted):
                if self._start is None or self._start.run != event.run:
                    self._tasks, self._found = {}, []
                self._start = event
            elif isinstance(event, TaskChanged):
                self._tasks[event.task] = event
            elif isinstance(event, Found):
                self._found.append(event)
            elif isinstance(event, RunEnded):
                self._start = None
        self._tell()

    def _print(self, run: str, task: TaskId, output: dict[str, Any]) -> None:
        text = output.get("text") if output.get("output_type") == "stream" else None
        if text is None:
            return
        whole = text if isinstance(text, str) else "".join(text)
        with self._lock:
            key = (run, task)
            self._printed[key] = (self._printed.pop(key, "") + whole)[-PRINTED:]
            while len(self._printed) * PRINTED > PRINTED_IN_ALL:
                self._printed.pop(next(iter(self._printed)))

    def _tell(self) -> None:
        for told in tuple(self._watchers):
            told()

    # ------------------------------------------------------------ what is asked

    @property
    def flow(self) -> Flow | None:
        """The notebook as a flow, None before it was looked at."""
        return self._flow

    @property
    def run(self) -> Snapshot | None:
        """The newest flow run of this kernel."""
        return self._run

    @property
    def by_hand(self) -> Snapshot | None:
        """The cells that were run by hand, as a run."""
        with self._lock:
            if self._start is None:
                return None
            events: list[RunEvent] = [self._start, *self._tasks.values(), *self._found]
        return snapshot(events, time.time(), alive=True)

    @property
    def busy(self) -> bool:
        """Whether a flow run or a step run by hand is under way."""
        run = self._run
        return (run is not None and run.status == "running") or self.step_by_hand is not None

    @property
    def step_by_hand(self) -> str | None:
        """The step that runs by hand now."""
        with self._lock:
            return next((event.task.step for event in self._tasks.values() if event.state == "running"), None)

    def printed(self, run: str, task: TaskId) -> str | None:
        """The end of what a task of a run of this kernel has printed; None when nothing was heard of it."""
        with self._lock:
            return self._printed.get((run, task))
