"""What a kernel's runs tell whoever watches them: fed and asked from any thread; each answer is a frozen value."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from nbflow.model import FindingFound, Flow, RunEnded, RunEvent, RunStarted, Snapshot, TaskChanged, TaskId, TaskOutput
from nbflow.render import cards
from nbflow.store.history import ended_by, snapshot

PRINTED = 16_000
"""Characters of what a task has printed that are kept for watchers: the end of it; the whole is in the store."""
PRINTED_IN_ALL = 4_000_000
CARDS = 20
"""Tasks whose cards are kept while they run, the newest ones."""


class Audience:
    """The newest flow run of a kernel, its cells run by hand, and the flow as it stands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._flow: Flow | None = None
        self._run: Snapshot | None = None
        self._start: RunStarted | None = None
        self._tasks: dict[TaskId, TaskChanged] = {}
        self._found: list[FindingFound] = []
        self._printed: dict[tuple[str, TaskId], str] = {}
        self._cards: dict[tuple[str, TaskId], dict[str, str]] = {}

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` after each change, from any thread and without waiting; return a function that ends it."""
        self._watchers.append(told)
        return lambda: self._watchers.remove(told)

    # ------------------------------------------------------------ what is told

    def see_flow(self, flow: Flow) -> None:
        """Take the notebook's flow as it is now."""
        if flow is not self._flow:
            self._flow = flow
            self._tell()

    def see_run(self, run: Snapshot, event: RunEvent | TaskOutput | None) -> None:
        """Take a flow run as it is at this moment, and what made it so."""
        if isinstance(event, TaskOutput):
            self._print(run.run, event.task, event.output)
            self._keep_card(run.run, event.task, event.output)
        if run is not self._run:
            self._run = run
            self._tell()

    def see_by_hand(self, event: RunEvent) -> None:
        """Take an event of the cells that are run by hand."""
        with self._lock:
            if isinstance(event, RunStarted):
                if self._start is None or self._start.run != event.run:
                    self._tasks, self._found = {}, []
                self._start = event
            elif isinstance(event, TaskChanged):
                self._tasks[event.task] = event
                for over in ended_by(event, self._tasks):
                    del self._tasks[over]
            elif isinstance(event, FindingFound):
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

    def _keep_card(self, run: str, task: TaskId, output: dict[str, Any]) -> None:
        """Keep what a card of a running task looks like now; in the end the task's record has it."""
        name = (output.get("metadata") or {}).get(cards.NAME)
        body = cards.body_of(str((output.get("data") or {}).get("text/html", ""))) if name is not None else ""
        if body:
            with self._lock:
                self._cards[run, task] = {**self._cards.pop((run, task), {}), str(name): body}
                while len(self._cards) > CARDS:
                    self._cards.pop(next(iter(self._cards)))

    def _tell(self) -> None:
        for watch in tuple(self._watchers):
            watch()

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
        """Return the end of what a task of a run of this kernel has printed; None when nothing was heard of it."""
        with self._lock:
            return self._printed.get((run, task))

    def cards(self, run: str, task: TaskId) -> dict[str, str]:
        """Return the cards that a running task's code shows, by name, as HTML."""
        with self._lock:
            return self._cards.get((run, task), {})
