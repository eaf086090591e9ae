"""Follow one attempt that runs elsewhere: what comes live, what stands in the datastore and what the engine says."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from nbflow.errors import ExecutorError, NbflowError
from nbflow.executors.attempt import FIX_KILLED, REPLACED
from nbflow.executors.remote import task_files
from nbflow.executors.remote.attempt_files import AttemptFiles, Beat, WorkerResult, parse_live
from nbflow.executors.remote.engine import WorkerState
from nbflow.executors.wire import Assembler
from nbflow.model import Ended, Finding, HeldUp, Noticed, Started, TaskEvent, TaskFailure, TaskResult, TaskSpec

PATIENCE = 30.0
"""Seconds that a task waits for its worker before its user is told why."""

SILENCE = 20.0
"""Seconds without a sign of life after which the user is told."""

GIVEN_UP = 20.0
"""Seconds without a sign of life after which a worker that its engine has lost counts as gone."""


class Courier(Protocol):
    """What a handle asks of the executor that follows it."""

    def start(self, handle: RemoteHandle) -> None:
        """Start a worker for the attempt, the first or another one; ExecutorError when it is refused."""

    def stop(self, handle: RemoteHandle, *, hard: bool) -> None:
        """End the worker: taken from the queue, or killed."""

    def completes(self, handle: RemoteHandle, result: TaskResult) -> TaskResult | None:
        """Return how the attempt ends; None where it runs again, with files that its worker has looked for in vain."""


class RemoteHandle:
    """A handle: events in the order of the worker's log, each once, whichever way they came first."""

    def __init__(
        self, spec: TaskSpec, files: AttemptFiles, courier: Courier, place: str, *, keeps_log: bool = True
    ) -> None:
        """Take the attempt's files; `keeps_log` is false where it is not the one that was submitted."""
        self.spec = spec
        self.files = files
        self.keeps_log = keeps_log
        self.place = place
        self.worker_id = ""  # as the engine calls it
        self.over = threading.Event()
        self._courier = courier
        self._lock = threading.RLock()
        self._queue: queue.SimpleQueue[TaskEvent] = queue.SimpleQueue()
        self._sink: Callable[[TaskEvent], None] | None = None
        self._assembler = Assembler()
        self._worker = ""  # whose log is shown: the first one that was heard of
        self._next = 0
        self._ahead: dict[int, TaskEvent] = {}
        self._begun = False
        self._past: set[str] = set()  # workers of earlier executions
        self.completed = 0  # executions before this one, which lacked files
        self._replaced = 0
        self._cancelling: float | None = None  # since when
        self._grace = 0.0
        self._kills = 0
        self._submitted = time.monotonic()
        self._heard = time.monotonic()  # the last sign of life
        self._beats: dict[str, Beat] = {}
        self._reason = ""
        self._silent = False
        self._gone: WorkerState | None = None
        self._where = ""

    # ------------------------------------------------------------ for whoever submitted it

    def events(self) -> Iterator[TaskEvent]:
        """Yield its events as they come; a record is in the store when `Ended` is given."""
        while True:
            event = self._queue.get()
            yield event
            if isinstance(event, Ended):
                return

    def push(self, sink: Callable[[TaskEvent], None]) -> None:
        """Pass its events to a function instead."""
        with self._lock:
            self._sink = sink
            while not self._queue.empty():
                sink(self._queue.get())

    def cancel(self, grace: float) -> None:
        """Ask the worker to interrupt the task; after `grace` seconds and its way there its whole tree is ended."""
        with self._lock:
            if self.over.is_set():
                return
            first = self._cancelling is None
            self._cancelling = self._cancelling or time.monotonic()
            self._grace = grace if first else min(grace, self._grace)
        self._courier.stop(self, hard=False)

    @property
    def grace(self) -> float:
        """The seconds that the task may take to tidy up once it is asked to end."""
        return self._grace

    def give_up(self, error: NbflowError) -> None:
        """End an attempt whose worker has ended and whose result cannot be read."""
        self.end(TaskResult(failure=self._failure(type(error).__name__, error.message, "lost", error.fix)))

    def hold_up(self, error: ExecutorError, longest: float = math.inf) -> None:
        """Say why no worker could be started; end an attempt that is cancelled, or has waited `longest` seconds."""
        with self._lock:
            if self._cancelling is not None:
                self.end(TaskResult(failure=self._failure("Cancelled", "the task was cancelled", "cancelled")))
            elif time.monotonic() - self._submitted > longest:
                self.give_up(error)
            elif error.message != self._reason:
                self._reason = error.message
                self._put(HeldUp(reason=error.message))

    def _put(self, event: TaskEvent) -> None:
        if self._sink is None:
            self._queue.put(event)
        else:
            self._sink(event)

    # ------------------------------------------------------------ what comes in

    @property
    def heard(self) -> bool:
        """Whether a worker has given a sign of life."""
        return bool(self._worker or self._beats)

    @property
    def quiet(self) -> float:
        """The seconds since the last sign of life."""
        return time.monotonic() - self._heard

    def feed(self, data: bytes) -> None:
        """Take the next piece of what comes through the engine."""
        with self._lock:
            self._heard = time.monotonic()
            for body in self._assembler.feed(data):
                message = parse_live(body)
                if isinstance(message.event, Ended):
                    result = WorkerResult(
                        worker=message.worker, lines=message.number, result=message.event.result, files=message.files
                    )
                    self.finish(result, is_published=message.is_published)
                else:
                    self._take(message.worker, message.number, message.event)

    def _take(self, worker: str, number: int, event: TaskEvent) -> None:
        """Take a line of a worker's log; put it and those after it that are there once those before it are."""
        if self.over.is_set() or worker in self._past:
            return
        self._worker = self._worker or worker
        if worker != self._worker or number < self._next:
            return
        self._ahead[number] = event
        while self._next in self._ahead:
            each = self._ahead.pop(self._next)
            self._next += 1
            if isinstance(each, Started) and not each.step:
                if not self._begun:
                    self._put(each)
                self._begun = True
            else:
                self._put(each)

    def read(self) -> None:
        """Look at what stands in the datastore: the result, the log, signs of life; StoreError when it is away."""
        result = self.files.result()
        if result is not None:
            self.finish(result)
            return
        for line in self.files.new_lines():
            with self._lock:
                self._heard = time.monotonic()
                self._take(line.worker, line.number, line.event)
        beats = self.files.beats()
        with self._lock:
            if beats != self._beats:
                self._beats, self._heard = beats, time.monotonic()
                self._where = next(iter(beats.values())).host

    def finish(self, result: WorkerResult, *, is_published: bool = False) -> None:
        """End with what a worker has published, after all that it has shown.

        Its record is written here unless the worker says that it stands: it may have been killed before it came to it.
        """
        with self._lock:
            if self.over.is_set() or result.worker in self._past:
                return
            self._worker = self._worker or result.worker
            if result.worker == self._worker:
                if self._next < result.lines:
                    for line in self.files.new_lines():
                        self._take(line.worker, line.number, line.event)
                for number in sorted(self._ahead):  # what is missing before them was never written
                    self._put(self._ahead.pop(number))
            counted = result.result if self._cancelling is not None else self._courier.completes(self, result.result)
            if counted is None:
                return
            if counted.record is not None and not is_published:
                self.files.publish(result)
            task_files.place(self.files.store, self.spec.folder, result.files)
            self.end(counted)

    def begin_again(self, spec: TaskSpec, files: AttemptFiles, missing: Sequence[str]) -> None:
        """Follow another execution from now on: the task runs again with files that it has looked for in vain."""
        with self._lock:
            self.completed += 1
            self._past.add(self._worker)
            self.spec, self.files, self.keeps_log = spec, files, False
            self._assembler, self._worker, self._next, self._ahead = Assembler(), "", 0, {}
            self._beats, self._gone, self._heard = {}, None, time.monotonic()
            names = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
            self.notice(Finding(
                code="file-sent", level="note", step=spec.step, cell=spec.cell,
                message=f"{names} turned out to be read on {self.place}: it runs again with what was missing",
            ))  # fmt: skip

    def end(self, result: TaskResult) -> None:
        """Put the last event; drop later ones."""
        with self._lock:
            if not self.over.is_set():
                self.over.set()
                self._put(Ended(result=result))

    # ------------------------------------------------------------ what time and the engine say

    def see(self, state: WorkerState | None) -> None:
        """Take what the engine says of the worker, None when it cannot be asked; end the attempt where that is due."""
        with self._lock:
            if self.over.is_set():
                return
            if state is not None and state.state == "waiting" and not self.heard:
                self._tell_waiting(state.message)
            elif state is None or state.state in {"waiting", "running"}:
                self._watch_silence()
            else:
                self._judge(state)
            if self._cancelling is not None and not self.over.is_set():
                self._insist()

    def _tell_waiting(self, reason: str) -> None:
        if time.monotonic() - self._submitted > PATIENCE and reason and reason != self._reason:
            self._reason = reason
            self._put(HeldUp(reason=f"{self.place}: {reason}"))

    def _watch_silence(self) -> None:
        """Tell the user once that nothing is heard of a worker; it may be cut off, and is not started again yet."""
        silent = self.heard and self.quiet > SILENCE
        if silent and not self._silent:
            where = self._where or self.place
            self._notice(
                f"nothing has been heard of its worker on {where} for {SILENCE:g} s: it may be cut off or stopped",
                "wait: what it finishes counts as soon as it is heard of again; `nbflow cancel RUN` ends the run",
            )
        elif self._silent and not silent:
            self._notice(f"its worker on {self._where or self.place} is heard of again", None)
        self._silent = silent

    def _notice(self, message: str, fix: str | None) -> None:
        self.notice(Finding(code="silent-worker", message=message, step=self.spec.step, cell=self.spec.cell, fix=fix))

    def notice(self, finding: Finding) -> None:
        """Tell the user something while the task runs."""
        with self._lock:
            if not self.over.is_set():
                self._put(Noticed(finding=finding))

    def _judge(self, state: WorkerState) -> None:
        """End the attempt of a worker that has ended, by its engine's word, without a result.

        The engine may be wrong: a worker that it has lost may go on behind a cut connection, and what one has
        published may be read a moment later. So the attempt ends at the second look, and that of a lost worker only
        once nothing is heard of it either.
        """
        first, self._gone = self._gone is None, state
        if first or (state.state == "lost" and self.heard and self.quiet < GIVEN_UP):
            return
        if self._cancelling is not None:
            self.end(TaskResult(failure=self._failure("Cancelled", "the task was cancelled", "cancelled")))
        elif state.state == "refused":
            self.end(TaskResult(failure=self._failure("ExecutorError", f"{self.place}: {state.message}", "lost")))
        elif state.state == "memory":
            message = f"{self._machine(state)} ended the task's process for want of memory: {state.message}"
            self.end(TaskResult(failure=self._failure("MemoryError", message, "memory", FIX_KILLED)))
        elif not self._may_have_begun and self._replaced < REPLACED:
            self._replaced += 1
            self._gone = None
            self._courier.start(self)
        else:
            self.end(TaskResult(failure=self._lost(state), elapsed=time.monotonic() - self._submitted))

    @property
    def _may_have_begun(self) -> bool:
        """Whether something of the cell may have run: a worker beats once it has given the task to a process."""
        return self._begun or bool(self._beats)

    def _lost(self, state: WorkerState) -> TaskFailure:
        after = "before the cell finished" if self._may_have_begun else "before the cell had begun"
        what = "was lost" if state.state == "lost" else "ended"
        message = f"the worker on {self._machine(state)} {what} {after}: {state.message or 'no reason was given'}"
        if self._replaced:
            message += f"; {self._replaced} before it ended too"
        return self._failure("WorkerLost", message, "lost", "run the step again, with --retry N where that may happen")

    def _machine(self, state: WorkerState) -> str:
        return state.where or self._where or self.place

    def _failure(self, kind: str, message: str, how: str, fix: str | None = None) -> TaskFailure:
        return TaskFailure(type=kind, message=message, cell=self.spec.cell, kind=how, fix=fix)

    def _insist(self) -> None:
        """Kill a worker that was asked to end, once its time is over; the way to it takes a second or two."""
        since = time.monotonic() - (self._cancelling or 0.0)
        if since > self._grace + 3.0 + 5.0 * self._kills:
            self._kills += 1
            self._courier.stop(self, hard=True)
