"""Run one task here for a notebook elsewhere: the spec comes from the datastore, all that comes of it goes there.

The task's process, its limits and its end are the local executor's business. This adds what distance needs: a log in
the datastore, a sign of life, a look for a cancel mark, and a result that counts once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from nbflow.errors import NbflowError, StoreError
from nbflow.executors.attempt import AttemptHandle
from nbflow.executors.local import LocalExecutor, unpublished
from nbflow.executors.remote import attempt_files, task_files
from nbflow.executors.remote.attempt_files import AttemptFiles, WorkerResult, live, now
from nbflow.jsonable import to_json
from nbflow.model import Ended, Output, Parallel, Started, TaskEvent, TaskFailure, TaskResult, TaskSpec
from nbflow.store.interface import patiently
from nbflow.store.jsonl import ChunkWriter
from nbflow.task import limits

BEAT_EVERY = 5.0
LOOK_EVERY = 1.0
"""Seconds between two looks for a cancel mark."""

Live = Callable[[bytes], None]


class Stop(threading.Event):
    """Set from elsewhere, it ends the task: cancelled, or lost where whoever set it had a reason of its own."""

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


def run(
    url: str,
    executor: LocalExecutor,
    live: Live,
    stop: Stop,
    devices: Sequence[str] | None = None,
    gang: Gang | None = None,
) -> TaskResult:
    """Run the task whose spec lies at a URL in a process of `executor`, and return the result that counts.

    Raise NbflowError only where there is no spec that can be read. Events go to `live` too, as frames; `stop`, set
    from elsewhere, ends the task. `devices` are its GPUs; without them it has those that this process is shown.
    `gang` is there where it runs on several nodes at once: what the first of them shows and leaves is the task's.
    """
    files, spec = attempt_files.read_spec(url)
    if gang is not None:
        spec = msgspec.structs.replace(spec, parallel=gang.parallel)
        if gang.parallel.rank:
            files, live = files.of_rank(gang.parallel.rank), _nowhere
    if spec.options.gpu and devices is None:
        devices = os.environ.get(limits.GPU_VARIABLE, "").split(",")
    spec = msgspec.structs.replace(spec, devices=tuple(filter(None, devices or ())))
    before = files.result()
    published = before or _Errand(files, spec, live, stop, gang).run(executor)
    live(attempt_files.ended(published, is_published=before is None))
    return published.result


class Gang(Protocol):
    """Those that run a task together, on several nodes, as one of them sees it."""

    parallel: Parallel

    def wait(self) -> None:
        """Return once all the others have finished well; whoever fails ends the others, this one too."""


def _nowhere(_: bytes) -> None:
    """Take what is said live and let it go."""


class _Errand:
    """One task on its way through this worker."""

    def __init__(self, files: AttemptFiles, spec: TaskSpec, live: Live, stop: Stop, gang: Gang | None) -> None:
        self.files = files
        self.spec = spec
        self.live = live
        self.stop = stop
        self.gang = gang
        self.name = secrets.token_hex(4)
        self.lines = 0  # of its log

    def run(self, executor: LocalExecutor) -> WorkerResult:
        """Run the task and return what counts."""
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(contextlib.closing(self.files.writer(self.name)))
            try:
                spec = self._at_home(stack)
            except (NbflowError, OSError) as error:
                return self.files.publish(self._word(TaskResult(failure=_not_begun(self.spec, _as_ours(error)))))
            published: list[WorkerResult] = []

            def publish(spec: TaskSpec, result: TaskResult, done: Callable[[TaskResult], None]) -> None:
                try:
                    log.flush()
                    published.append(patiently(lambda: self._published(spec, result)))
                except (NbflowError, OSError) as error:
                    published.append(self._word(unpublished(spec, result, _as_ours(error))))
                done(published[0].result)

            try:
                handle = executor.submit(spec, publish)
            except NbflowError as error:
                return self.files.publish(self._word(TaskResult(failure=_not_begun(spec, error))))
            with self._watched(handle):
                self._follow(handle, log)
            return published[0]

    def _published(self, spec: TaskSpec, result: TaskResult) -> WorkerResult:
        """Publish a result, and return what counts.

        Of several nodes the first one publishes what they have done together, once all have; one that fails publishes
        that at once.
        """
        if result.failure is not None and self.stop.is_set() and self.stop.reason:
            failure = _lost(spec, self.stop.reason)
            return self.files.publish(self._word(msgspec.structs.replace(result, failure=failure)))
        if self.gang is None:
            return self.files.publish(self._with_files(spec, result))
        if result.failure is not None:
            failure = _of_rank(result.failure, self.gang.parallel)
            return self.files.publish(self._word(msgspec.structs.replace(result, failure=failure)))
        if self.gang.parallel.rank:
            return self._word(result)
        word = self._with_files(spec, result)
        self.gang.wait()
        return self.files.publish(word)

    def _word(self, result: TaskResult) -> WorkerResult:
        return WorkerResult(worker=self.name, lines=self.lines, result=result)

    def _with_files(self, spec: TaskSpec, result: TaskResult) -> WorkerResult:
        """Return what is published; where the notebook's folder is not seen here, with the files written below it."""
        if spec.folder == self.spec.folder:
            return self._word(result)
        written = result.observations.written
        findings = task_files.left_there(spec, socket.gethostname(), written)
        result = msgspec.structs.replace(result, findings=(*result.findings, *findings))
        files = task_files.pack(self.files.store, spec.folder, written, spec.files)
        return msgspec.structs.replace(self._word(result), files=files)

    def _at_home(self, stack: contextlib.ExitStack) -> TaskSpec:
        """Return the task as it is run here: with this machine's way to the datastore, and a folder."""
        spec = msgspec.structs.replace(self.spec, store=self.files.store.url)
        if spec.is_apart or not Path(spec.folder).is_dir():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nbflow-"))
            # one of a fan-out is alone here: no process can be shared with one that stands in another folder
            spec = msgspec.structs.replace(spec, folder=os.path.realpath(folder), items=0)
            task_files.unpack(self.files.store, folder, spec.files)
        return spec

    def _follow(self, handle: AttemptHandle, log: ChunkWriter) -> None:
        """Pass every event on until the last one."""
        events = handle.events()
        while True:
            try:
                for event in events:
                    if isinstance(event, Ended):
                        return
                    self._pass_on(event, log)
            except KeyboardInterrupt:  # whoever started the worker wants it to end
                handle.cancel(attempt_files.GRACE)
                events = handle.events()

    def _pass_on(self, event: TaskEvent, log: ChunkWriter) -> None:
        if not isinstance(event, Started | Output):
            return
        line = to_json(event)
        try:
            log.put(line)
        except StoreError:  # of an earlier write, which is tried again by itself: this line was not taken
            with contextlib.suppress(StoreError):
                log.put(line)
        self.live(live(self.name, self.lines, event))
        self.lines += 1

    @contextlib.contextmanager
    def _watched(self, handle: AttemptHandle) -> Iterator[None]:
        """Beat meanwhile, and look whether somebody wants the task to end."""
        over = threading.Event()

        def watch() -> None:
            ticks = 0
            while True:
                with contextlib.suppress(NbflowError):  # the datastore is away for a moment: it is tried again
                    if ticks % int(BEAT_EVERY / LOOK_EVERY) == 0:
                        self.files.beat(self.name, now(socket.gethostname(), os.getpid()))
                    mark = self.files.cancel_mark()
                    if mark is not None or self.stop.is_set():
                        handle.cancel(attempt_files.GRACE if mark is None else mark.grace)
                ticks += 1
                if over.wait(LOOK_EVERY):
                    return

        thread = threading.Thread(target=watch, name="nbflow beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()


def _of_rank(failure: TaskFailure, parallel: Parallel) -> TaskFailure:
    who = f"rank {parallel.rank} of {parallel.world_size}, on {socket.gethostname()}"
    return msgspec.structs.replace(failure, message=f"{who}: {failure.message}")


def _lost(spec: TaskSpec, reason: str) -> TaskFailure:
    message = f"the worker on {socket.gethostname()} was told to end: {reason}"
    fix = "run the step again, with --retry N where that may happen"
    return TaskFailure(type="WorkerLost", message=message, cell=spec.cell, kind="lost", fix=fix)


def _as_ours(error: NbflowError | OSError) -> NbflowError:
    """Return an error of the system, as of a disk that is full, in our words."""
    if isinstance(error, NbflowError):
        return error
    return StoreError(f"files of the task on {socket.gethostname()}: {error}", fix="see whether its disk is full")


def _not_begun(spec: TaskSpec, error: NbflowError) -> TaskFailure:
    return TaskFailure(type=type(error).__name__, message=error.message, cell=spec.cell, kind="lost", fix=error.fix)
