"""The process that tasks are forked from: imports what the flow imports, computes nothing, forks and supervises.

Started by `zygote.py`, never forked from a kernel. One thread, one loop over the driver's socket and the tasks'
pipes and pidfds. It ends with the driver, whose end it sees on the socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import itertools
import mmap
import os
import select
import selectors
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec

from nbflow.executors import wire, worker
from nbflow.executors.spawn import PIPE, take_back
from nbflow.executors.supervisor import Child, Supervisor, kill_tree
from nbflow.executors.warm_worker import serve
from nbflow.plugins import installed
from nbflow.task import leftovers, limits, shell
from nbflow.task.execute import WarmShell
from nbflow.task.observe import observer

SAFE_THREADS = ("jemalloc_bg_thd", "polars-", "rayon", "tokio")
"""Names of threads that compiled libraries start at import and that do no harm to a fork."""

SPARES = 2
QUIET = 0.01
"""Seconds without a new task after which spares are forked."""

ROOM = 16 << 20
"""Bytes waiting for the driver beyond which the tasks wait too."""


class Pipes(msgspec.Struct):
    """The ends that a child keeps and those that we keep."""

    theirs: tuple[int, int, int, int]  # order, frames, 1, 2
    ours: tuple[int, int, int, int]

    @classmethod
    def make(cls) -> Pipes:
        """Make four fresh pipes."""
        order = os.pipe()
        frames, out, err = os.pipe(), os.pipe(), os.pipe()
        return cls((order[0], frames[1], out[1], err[1]), (order[1], frames[0], out[0], err[0]))


class Hosted(msgspec.Struct):
    """A worker that runs one task after another: its pipe, and the byte that tells it to take no more."""

    pipe: int
    stop: mmap.mmap


class Spare(msgspec.Struct):
    """A child forked ahead that waits for its task on a pipe."""

    pid: int
    pipes: Pipes


class ZygoteLoop:
    """The loop and what it knows."""

    def __init__(self, fd: int, preload: tuple[str, ...]) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.preload = preload
        self.orders = wire.Assembler()
        self.waiting = bytearray()
        self.supervisor = Supervisor(self.report)
        self.supervisor.selector.register(self.socket, selectors.EVENT_READ, "driver")
        self.spares: list[Spare] = []
        self.hosted: dict[int, Hosted] = {}
        self.last_task = time.monotonic()
        self.closing = False
        self.strays = False  # there may be some
        self.warming: Iterator[None] | None = None

    # ------------------------------------------------------------ the loop

    def run(self) -> NoReturn:
        """Prepare, then serve until the driver is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Python 3.12 warns of every fork beside a thread, those of compiled libraries included
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"nbflow\.executors\.zygote_main")
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans of tasks come back here
        self._prepare()
        while True:
            for key in self.supervisor.wait(self._idle_time()):
                if key.data == "driver":
                    self._serve_driver()
            if self.closing and not self.supervisor.children:
                self._end()
            self._when_quiet()

    def _prepare(self) -> None:
        made = shell.make_shell()  # before the imports: some libraries look at it then
        unsafe = self._import()
        own = take_back()
        self.prepared = WarmShell(made, limits.controller(), own)
        if self.preload:
            installed()  # looked through for serializers once here, not in every task
        self._freeze()
        self.warming = itertools.chain(shell.warming(self.prepared.shell), observer.warming())
        self.report(wire.PreloadDone(os.getpid(), unsafe))

    def _import(self) -> tuple[str, ...]:
        """Import the flow's modules; one that starts a thread that a fork would lose is left out by starting anew."""
        unsafe = tuple(filter(None, os.environ.get("NBFLOW_ZYGOTE_UNSAFE", "").split(",")))
        for name in self.preload:
            if name in unsafe:
                continue
            with contextlib.suppress(Exception):  # the task's own import will say what is wrong
                importlib.import_module(name)
            if strange_threads():
                os.environ["NBFLOW_ZYGOTE_UNSAFE"] = ",".join((*unsafe, name))
                os.set_inheritable(self.socket.fileno(), True)
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # our own command line
        os.environ.pop("NBFLOW_ZYGOTE_UNSAFE", None)
        return unsafe

    def _freeze(self) -> None:
        gc.collect()
        gc.disable()
        gc.freeze()

    def _idle_time(self) -> float | None:
        """Return the seconds after which there is something to do for ourselves."""
        if self.strays:
            return QUIET
        if len(self.supervisor.children) > 1 or self.closing:
            return None
        if self.warming is None and len(self.spares) >= SPARES:
            return None
        return max(0.0, QUIET - (time.monotonic() - self.last_task))

    def _when_quiet(self) -> None:
        """Pay ahead, a piece at a time, for what the next tasks need, when none is being started."""
        self._reap_strays()
        if len(self.supervisor.children) > 1 or self.closing or time.monotonic() - self.last_task < QUIET:
            return
        if self.warming is not None:
            if next(self.warming, self) is self:
                self.warming = None
                self.prepared.pools = limits.controller()
                self._freeze()
        elif len(self.spares) < SPARES:
            self.spares.append(self._fork_spare())

    # ------------------------------------------------------------ the driver

    def report(self, message: wire.Report) -> None:
        """Send something to the driver now as far as it takes it; keep the rest."""
        if isinstance(message, wire.Gone):
            self.strays = True
            self._recall(message.task)
        self.waiting += wire.frame(message)
        self._send()
        while len(self.waiting) > ROOM:
            select.select([], [self.socket], [])
            self._send()

    def _send(self) -> None:
        try:
            count = self.socket.send(self.waiting)
        except BlockingIOError:
            count = 0
        except OSError:
            self._end()
        del self.waiting[:count]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.waiting else 0)
        if self.supervisor.selector.get_key(self.socket).events != events:
            self.supervisor.selector.modify(self.socket, events, "driver")

    def _serve_driver(self) -> None:
        if self.waiting:
            self._send()
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
        for body in self.orders.feed(data):
            order = wire.parse_order(body)
            if isinstance(order, wire.SubmitTask):
                self._start(order, body)
            elif isinstance(order, wire.CancelTask):
                self.supervisor.cancel(order.task, order.grace)
            elif isinstance(order, wire.Host):
                self._host(order.task)
            elif isinstance(order, wire.Give):
                self._give(order)
            elif isinstance(order, wire.Recall):
                self._recall(order.task)
            else:
                self.closing = True
                for number in tuple(self.hosted):
                    self._recall(number)

    def _end(self) -> NoReturn:
        """End with all that was started here, as the driver has gone or wants no more."""
        self.supervisor.kill_all()
        for spare in self.spares:
            kill_tree(spare.pid)
        for pid in leftovers.descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(0)

    # ------------------------------------------------------------ tasks

    def _start(self, order: wire.SubmitTask, body: bytes) -> None:
        self.last_task = time.monotonic()
        if self.spares:
            spare = self.spares.pop()
            pid, pipes = spare.pid, spare.pipes
            self._watch(order.task, pid, pipes, order.timeout, order.memory)
            _hand_over(pipes.ours[0], body)
        else:
            pipes = Pipes.make()
            pid = self._fork(pipes)
            if pid == 0:
                self._be_child(pipes, order)
            for fd in pipes.theirs:
                os.close(fd)
            os.close(pipes.ours[0])
            self._watch(order.task, pid, pipes, order.timeout, order.memory)

    def _host(self, number: int) -> None:
        """Fork a worker that runs what comes through its pipe, until that is shut."""
        self.last_task = time.monotonic()
        stop = mmap.mmap(-1, 1)  # shared with the worker
        pipes = Pipes.make()
        with contextlib.suppress(OSError):  # the system's limit: then less fits, and writing waits for the worker
            fcntl.fcntl(pipes.ours[0], fcntl.F_SETPIPE_SZ, PIPE)
        pid = self._fork(pipes)
        if pid == 0:
            orders, frames, _, _ = pipes.theirs
            gc.enable()
            serve(orders, frames, number, stop, self.prepared)
        for fd in pipes.theirs:
            os.close(fd)
        self.hosted[number] = Hosted(pipes.ours[0], stop)
        self._watch(number, pid, pipes)

    def _give(self, order: wire.Give) -> None:
        self.last_task = time.monotonic()
        hosted = self.hosted.get(order.task)
        data = memoryview(order.orders)
        with contextlib.suppress(BrokenPipeError):  # it has ended: so the driver will hear
            while data and hosted is not None:
                data = data[os.write(hosted.pipe, data) :]

    def _recall(self, number: int) -> None:
        hosted = self.hosted.pop(number, None)
        if hosted is not None:
            hosted.stop[0] = 1
            os.close(hosted.pipe)

    def _watch(
        self, number: int, pid: int, pipes: Pipes, timeout: float | None = None, memory: int | None = None
    ) -> None:
        _, frames, out, err = pipes.ours
        self.report(wire.Born(number, pid))
        self.supervisor.watch(
            Child(
                task=number,
                pid=pid,
                frames=frames,
                raw={out: 1, err: 2},
                ended=lambda: _reap(pid),
                pidfd=os.pidfd_open(pid),
                timeout=timeout,
                memory=memory,
            )
        )

    def _fork(self, pipes: Pipes) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            # both do it: whoever comes first
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(pid, pid)
            return pid
        worker.lead_group()
        worker.die_with_parent(parent)
        order, frames, out, err = pipes.theirs
        worker.take_output(out, err)
        # a copy of the driver's socket left open here would hide our end from it
        keep = sorted((order, frames))
        os.closerange(3, keep[0])
        os.closerange(keep[0] + 1, keep[1])
        os.closerange(keep[1] + 1, 1 << 20)
        return 0

    def _fork_spare(self) -> Spare:
        pipes = Pipes.make()
        pid = self._fork(pipes)
        if pid == 0:
            # its page faults are paid for before the task comes
            shell.rehearse(self.prepared.shell)
            self._be_child(pipes, worker.await_order(pipes.theirs[0]))
        for fd in pipes.theirs:
            os.close(fd)
        return Spare(pid, pipes)

    def _be_child(self, pipes: Pipes, order: wire.SubmitTask) -> NoReturn:
        order_fd, frames, _, _ = pipes.theirs
        os.close(order_fd)
        gc.enable()
        worker.run(order, frames, self.prepared)

    def _reap_strays(self) -> None:
        """End processes that left a task's group: they come back here when their parent ends.

        Their environment tells whose they are; those without a mark wait until no task runs.
        """
        if not self.strays:
            return
        self.strays = False
        running = self.supervisor.children
        pids = {spare.pid for spare in self.spares} | {child.pid for child in running.values()}
        for pid in leftovers.children(os.getpid()):
            if pid in pids:
                continue
            mark = _mark(pid)
            if not running or (mark is not None and mark not in running):
                kill_tree(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.strays = True
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _mark(pid: int) -> int | None:
    """Return the task that a process was started by, None when that cannot be told."""
    with contextlib.suppress(OSError, ValueError):
        for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = word.partition(b"=")
            if name == limits.TASK_VARIABLE.encode():
                return int(value)
    return None


def _hand_over(fd: int, body: bytes) -> None:
    """Write a task to a spare's pipe, which blocks: the spare reads all of it at once."""
    data = memoryview(wire.LENGTH.pack(len(body)) + body)
    with contextlib.suppress(BrokenPipeError):  # it has died: its end is reported as the task's
        while data:
            data = data[os.write(fd, data) :]
    os.close(fd)


def _reap(pid: int) -> int | None:
    """Return a child's exit status once it has ended (negative: by that signal), else None."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if done else None


def strange_threads() -> list[str]:
    """Return the names of this process's threads that a fork would lose and that may matter."""
    names = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            name = (thread / "comm").read_text().strip()
            if int(thread.name) != os.getpid() and not name.startswith(SAFE_THREADS):
                names.append(name)
    return names


def main(fd: int, preload: str) -> NoReturn:
    """Serve the driver at the other end of `fd` until it ends; `preload` are modules, separated by commas."""
    ZygoteLoop(fd, tuple(filter(None, preload.split(",")))).run()
