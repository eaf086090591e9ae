"""A worker on the box: runs a task, then others that need the same, and ends by itself. No connection is its parent.

It is a task's supervisor while the task runs, one task at a time. The process that its tasks are forked from stays
between them, so all but the first begin in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import sys
import time
from pathlib import Path

from nbflow.errors import NbflowError
from nbflow.executors.local import LocalExecutor
from nbflow.executors.remote import probe, task_worker
from nbflow.executors.ssh.box_files import BoxFiles, OrderFiles, WorkerEnd
from nbflow.executors.ssh.gpu_shares import GpuShare, GpuShares
from nbflow.plain_files import TEMPORARY
from nbflow.task import limits

IDLE = 600.0
"""Seconds without work after which it ends."""

ASK_EVERY = 0.2
"""Seconds between two tries for a GPU."""

LOOK_EVERY = 5.0
"""Seconds between two looks whether its folder is still there."""


def main(folder: str, token: str, first: str) -> None:
    """Run the first order, if there is one, and then others until none has come for a while."""
    box = BoxFiles(Path(folder))
    devices = limits.gpus()  # before a task's own are shown to it
    executor = LocalExecutor(lane=None if sys.platform == "linux" else "single")
    stop = task_worker.Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        if not first:
            executor.prepare()
        worker: str | None = first or _next(box, token, stop)
        while worker:
            _OrderRun(box.order(worker), GpuShares(box.gpus, devices), stop).run(executor)
            worker = _next(box, token, stop)
    finally:
        executor.close()
        (box.workers / token).unlink(missing_ok=True)


def _next(box: BoxFiles, token: str, stop: task_worker.Stop) -> str | None:
    """Return the next order, None when it is time to end."""
    path = box.idle / token
    made = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}")
    try:
        os.mkfifo(made, 0o600)
        opened = os.open(made, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        made.rename(path)  # from now on it can be taken
    except OSError:  # the folder is gone
        return None
    try:
        until = time.monotonic() + IDLE
        while time.monotonic() < until and not stop.is_set():
            if select.select([opened], [], [], LOOK_EVERY)[0]:
                return os.read(opened, 4096).decode().strip()
            if not path.exists():  # taken by a desk that has ended before it said what for, or swept away
                return None
        return None
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(opened)


class _OrderRun:
    """One order on its way through this worker."""

    def __init__(self, files: OrderFiles, gpus: GpuShares, stop: task_worker.Stop) -> None:
        self.files = files
        self.gpus = gpus
        self.stop = stop

    def run(self, executor: LocalExecutor) -> None:
        """Do what the order says, and note how that ended. An OSError where that cannot be noted ends the worker."""
        order = self.files.read()
        if order is None:
            return
        trouble = ""
        with contextlib.ExitStack() as stack:
            if order.gpu and not self._take_gpus(order.gpu, stack):
                self.files.end(WorkerEnd("cancelled"))
                return
            events = stack.enter_context(self.files.events.open("ab", buffering=0))
            try:
                if probe.is_question(order.spec):
                    probe.answer(order.spec)
                else:
                    task_worker.run(order.spec, executor, lambda data: _append(events.fileno(), data), self.stop)
            except NbflowError as error:
                trouble = f"{error.message}; {error.fix}" if error.fix else error.message
        self.files.end(WorkerEnd(trouble))

    def _take_gpus(self, wanted: float, stack: contextlib.ExitStack) -> bool:
        """Wait for GPUs and show them to the task; False when nobody wants it any more."""
        share: GpuShare | None = None
        while (share := self.gpus.take(self.files.folder.name, wanted)) is None:
            if self.files.is_refused() or self.stop.is_set():
                return False
            if not self.files.reason():
                self.files.wait(self.gpus.waits_for(wanted))
            time.sleep(ASK_EVERY)
        stack.enter_context(share)
        before = os.environ.get(limits.GPU_VARIABLE)
        os.environ[limits.GPU_VARIABLE] = ",".join(share.devices)
        stack.callback(_restore, before)
        self.files.wait("")
        return True


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(limits.GPU_VARIABLE, None)
    else:
        os.environ[limits.GPU_VARIABLE] = before


def _append(descriptor: int, data: bytes) -> None:
    """Write whole, or not at all as far as a reader of frames is concerned: half a frame would spoil what follows."""
    start = os.lseek(descriptor, 0, os.SEEK_END)
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, start)
        raise


if __name__ == "__main__":
    main(*sys.argv[1:4])
