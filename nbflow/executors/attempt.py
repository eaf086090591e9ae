"""Follow one submitted attempt in the driver: a supervisor's reports become the task's events."""

from __future__ import annotations

import codecs
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from nbflow.executors.wire import Assembler, Born, Ending, Frames, Gone, Raw, Report, parse_event
from nbflow.model import Ended, HeldUp, Output, Started, TaskEvent, TaskFailure, TaskResult, TaskSpec
from nbflow.task.outputs import Outputs, finish
from nbflow.task.secrets import Mask

Publish = Callable[[TaskSpec, TaskResult, Callable[[TaskResult], None]], None]
"""Publishes an attempt's result; calls the last argument once its record is stored, maybe in another thread."""

Carry = Callable[[Callable[[], None]], None]

FIX_KILLED = "give the step less data or more memory (--memory), or run fewer tasks at once (--workers)"
ENDINGS = {
    "timeout": ("TimeoutError", "the task took longer than its --timeout of {timeout:g} s"),
    "memory": ("MemoryError", "the task used more memory than its --memory of {memory} bytes"),
    "cancelled": ("Cancelled", "the task was cancelled"),
}


REPLACED = 3
"""Processes that may end before a task's first line has begun, each replaced by another one."""


class AttemptHandle:
    """A handle: events as they come, the record published before `Ended`; fed by one thread, read by another."""

    def __init__(
        self, spec: TaskSpec, publish: Publish, secrets: Iterable[str] = (), carry: Carry | None = None
    ) -> None:
        """Take `secrets`, values never to be shown, kept or logged; `carry` runs elsewhere what may take long."""
        self.spec = spec
        self._carry = carry
        self._lock = threading.RLock()
        self._sink: Callable[[TaskEvent], None] | None = None
        self._outputs: dict[str, Outputs] = {}  # of each step that its process runs, "" for its own
        self._step = ""  # which of them runs
        self._complete = False  # its last event
        self._mask = Mask(secrets)
        self.pid = 0
        self.over = threading.Event()
        self._cancel: Callable[[float], None] = lambda _: None
        self._publish = publish
        self._queue: queue.SimpleQueue[TaskEvent] = queue.SimpleQueue()
        self._assembler = Assembler()
        self._text: dict[int, codecs.IncrementalDecoder] = {}  # of each descriptor that something came through
        self._why = ""
        self._result: TaskResult | None = None
        self._begun = time.monotonic()
        self.on_end: Callable[[], None] = lambda: None
        self._started = False  # its first line has begun
        self._replaced = 0
        self._again: Callable[[], None] | None = None

    # ------------------------------------------------------------ for whoever submitted it

    def events(self) -> Iterator[TaskEvent]:
        """Give its events as they come; a record is in the store when `Ended` is given."""
        while True:
            event = self._queue.get()
            if isinstance(event, Ended):
                break
            yield self._shown(event)
        yield from self._rest()
        published: queue.SimpleQueue[TaskResult] = queue.SimpleQueue()
        self._publish(self.spec, self._finished(event.result), published.put)
        yield Ended(result=published.get())

    def push(self, sink: Callable[[TaskEvent], None]) -> None:
        """Give each event to a function instead, called by the thread that has the event."""
        with self._lock:
            self._sink = sink
            while not self._queue.empty():
                self._give(self._queue.get())

    def _put(self, event: TaskEvent) -> None:
        with self._lock:
            if self._complete:
                return
            self._complete = isinstance(event, Ended)
            if self._sink is None:
                self._queue.put(event)
            else:
                self._give(event)

    def _give(self, event: TaskEvent) -> None:
        if self._carry is not None and isinstance(event, Ended):
            self._carry(lambda: self._hand(event))
        else:
            self._hand(event)

    def _hand(self, event: TaskEvent) -> None:
        sink = self._sink
        if sink is None:
            return
        if not isinstance(event, Ended):
            sink(self._shown(event))
            return
        for each in self._rest():
            sink(each)
        self._publish(self.spec, self._finished(event.result), lambda result: sink(Ended(result=result)))

    def _shown(self, event: TaskEvent) -> TaskEvent:
        """Return an event as whoever submitted it may see it."""
        if isinstance(event, Started):
            self._step = event.step
        if isinstance(event, Output):
            output = self._mask.output(event.output) if self._mask else event.output
            event = msgspec.structs.replace(event, output=output, step=event.step or self._step)
            self._outputs_of(event.step).add(event.output)
        return event

    def _outputs_of(self, step: str) -> Outputs:
        return self._outputs.setdefault(step, Outputs())

    def _rest(self) -> Iterator[TaskEvent]:
        """Give output that was held back, as it might have become a secret."""
        for output in self._mask.rest():
            self._outputs_of(self._step).add(output)
            yield Output(output=output, at=time.time(), step=self._step)

    def _finished(self, result: TaskResult) -> TaskResult:
        """Return a result with all that the task has shown, and without secrets."""
        result = finish(self._mask.result(result) if self._mask else result, self._outputs_of(""))
        others = zip(self.spec.then, result.then, strict=False)
        then = (finish(self._mask.result(r) if self._mask else r, self._outputs_of(spec.step)) for spec, r in others)
        return msgspec.structs.replace(result, then=tuple(then)) if result.then else result

    def cancel(self, grace: float) -> None:
        """Interrupt the task, and end its whole process tree after `grace` seconds; returns at once."""
        if not self.over.is_set():
            self._why = self._why or "cancelled"
            self._cancel(grace)

    @property
    def cancelling(self) -> bool:
        """Whether somebody wants it to end, or it is being ended."""
        return bool(self._why)

    def bind(self, cancel: Callable[[float], None]) -> None:
        """Take where cancelling goes, known once a supervisor has the task."""
        self._cancel = cancel

    def renew(self, again: Callable[[], None]) -> None:
        """Take what gives the task to another process when the first one ends before the task has begun."""
        self._again = again

    def replace(self) -> bool:
        """Give the task to another process if its own ended before it began; return whether it goes there."""
        if self._again is None or self._started or self._why or self._replaced >= REPLACED or self.over.is_set():
            return False
        self._replaced += 1
        self.pid = 0
        self._assembler = Assembler()
        self._text.clear()
        self._again()
        return True

    # ------------------------------------------------------------ for the thread that reads the supervisor

    def feed(self, report: Report) -> None:
        """Take the next report about this task."""
        if isinstance(report, Frames):
            self.take(map(parse_event, self._assembler.feed(report.data)))
        elif isinstance(report, Raw):
            self._feed_raw(report.fd, report.data)
        elif isinstance(report, Born):
            self.pid = report.pid
        elif isinstance(report, Ending):
            self._why = report.why
        elif isinstance(report, Gone):
            self._conclude(report.status)

    def take(self, events: Iterable[TaskEvent]) -> None:
        """Take what the task itself says next."""
        stream: dict[str, Any] | None = None
        for event in events:
            if isinstance(event, Output) and event.output["output_type"] == "stream":
                # lines printed in a burst become one event
                if stream is not None and stream["name"] == event.output["name"]:
                    stream["parts"].append(event.output["text"])
                    continue
                self._put_stream(stream)
                stream = {"name": event.output["name"], "parts": [event.output["text"]], "at": event.at}
                continue
            self._put_stream(stream)
            stream = None
            self._started = self._started or isinstance(event, Started)
            if isinstance(event, Ended):
                self._result = event.result
                if not self._why:
                    self.end(event.result)
            else:
                self._put(event)
        self._put_stream(stream)

    def _put_stream(self, stream: dict[str, Any] | None) -> None:
        if stream is not None:
            output = {"output_type": "stream", "name": stream["name"], "text": "".join(stream["parts"])}
            self._put(Output(output=output, at=stream["at"]))

    def _feed_raw(self, fd: int, data: bytes, final: bool = False) -> None:
        if fd not in self._text:
            if not data:
                return
            self._text[fd] = codecs.getincrementaldecoder("utf-8")("replace")
        text = self._text[fd].decode(data, final)
        if text:
            name = "stdout" if fd == 1 else "stderr"
            self._put(Output(output={"output_type": "stream", "name": name, "text": text}, at=time.time()))

    def _conclude(self, status: int) -> None:
        """End the attempt with what its process said, unless that was made to end or said nothing."""
        for fd in (1, 2):
            self._feed_raw(fd, b"", final=True)
        if self._result is not None and not self._why:
            self.end(self._result)
            return
        if self._result is None and self.replace():
            return
        partial = self._result or TaskResult(elapsed=time.monotonic() - self._begun)
        self.end(
            TaskResult(
                failure=self._ending()
                if self._why
                else lost(status, self.spec, 0 if self._started else self._replaced),
                elapsed=partial.elapsed,
                observations=partial.observations,
                findings=partial.findings,
            )
        )

    def _ending(self) -> TaskFailure:
        options = self.spec.options
        kind, text = ENDINGS[self._why]
        failure = self._result.failure if self._result is not None else None
        return TaskFailure(
            type=kind,
            message=text.format(timeout=options.timeout or 0.0, memory=options.memory),
            traceback=failure.traceback if failure is not None else "",
            cell=self.spec.cell,
            line=failure.line if failure is not None else None,
            kind=self._why,
        )

    def hold_up(self, reason: str) -> None:
        """Say for what it waits before a process can begin with it."""
        self._put(HeldUp(reason=reason))

    def give_up(self, failure: TaskFailure) -> None:
        """End without a process that could run it: as what it was asked to end as, else with this failure."""
        self.end(TaskResult(failure=self._ending() if self._why else failure))

    def end(self, result: TaskResult) -> None:
        """Put its last event; drop later ones."""
        if not self.over.is_set():
            self.over.set()
            self._put(Ended(result=result))
            self.on_end()


def lost(status: int, spec: TaskSpec, replaced: int = 0) -> TaskFailure:
    """Return the failure of a task whose process ended with this status and gave no result.

    `replaced`: how many processes before it had ended before the task's first line, as it did.
    """
    fix: str | None = None
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        if name == "SIGKILL":
            message, fix = "the task's process was ended by SIGKILL (kill -9 or out of memory)", FIX_KILLED
        elif name == "SIGSEGV":
            message = "the task's process was ended by a segmentation fault (SIGSEGV) in compiled code"
        else:
            message = f"the task's process was ended by {name}"
    else:
        message = f"the process ended with exit status {status} before the cell finished"
    if replaced:
        message += f"; {replaced} before it ended too, each while definitions, set-up and inputs were made ready"
    return TaskFailure(type="WorkerLost", message=message, cell=spec.cell, kind="lost", fix=fix)


def lost_supervisor(spec: TaskSpec, problem: str | None = None) -> TaskFailure:
    """Return the failure of a task whose supervisor ended under it; `problem` says why it never started."""
    message = "the process that supervises tasks ended (killed, or out of memory), and the task with it"
    if problem is not None:
        message = f"the process that tasks are forked from did not start: {problem}"
    return TaskFailure(type="WorkerLost", message=message, cell=spec.cell, kind="lost", fix="run the step again")
