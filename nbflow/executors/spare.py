"""Tasks in workers started ahead, one task each: for systems without a safe fork, and in tests on Linux."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO

import msgspec

from nbflow.errors import ExecutorError
from nbflow.executors import wire
from nbflow.executors.attempt import AttemptHandle
from nbflow.executors.spawn import command, environment
from nbflow.executors.supervisor import Child, Supervisor, kill_tree

SPARES = 2


class SpareWorker(msgspec.Struct):
    """A process that waits for its task on a socket, or has it already."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    @classmethod
    def start(cls, preload: frozenset[str], variables: Mapping[str, str], python: str) -> SpareWorker:
        """Start a process, which imports IPython and `preload` before it asks for a task."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                command("nbflow.executors.spare_main", theirs.fileno(), preload, python),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(variables),
                cwd=os.sep,
                process_group=0,
            )
        return cls(process, ours)


class SpareLane:
    """Workers, and one thread that supervises those with a task."""

    def __init__(self, python: str = sys.executable, spares: int = SPARES) -> None:
        if sys.platform == "win32":
            raise ExecutorError("local tasks need Linux or macOS", fix="run nbflow under WSL, or with --on ray://…")
        self.variables: Callable[[], Mapping[str, str]] = lambda: os.environ
        self._python = python
        self._spares = spares
        self._lock = threading.Lock()
        self._idle: deque[SpareWorker] = deque()
        self._preload: frozenset[str] = frozenset()
        self._attempts: dict[int, AttemptHandle] = {}
        self._workers: dict[int, SpareWorker] = {}
        self._next = 0
        self._closed = False
        self._todo: deque[tuple[wire.SubmitTask, SpareWorker] | wire.CancelTask] = deque()
        self._wake, self._woken = socket.socketpair()
        self._supervisor = Supervisor(self._take)
        self._supervisor.selector.register(self._woken, selectors.EVENT_READ, "wake")
        self._thread = threading.Thread(target=self._supervise, name="nbflow-spare", daemon=True)
        self._thread.start()

    def prepare(self, preload: frozenset[str]) -> None:
        """Have spare workers with these modules; those that lack some are replaced."""
        with self._lock:
            self._check_open()
            self._fill(preload)

    def submit(self, attempt: AttemptHandle, order: wire.SubmitTask, preload: frozenset[str]) -> None:
        """Run a task in a worker started ahead; `preload` are the modules that its flow imports."""
        with self._lock:
            self._check_open()
            worker = self._idle.popleft() if self._idle else SpareWorker.start(preload, self.variables(), self._python)
            self._next += 1
            number = self._next
            self._attempts[number] = attempt
            self._workers[number] = worker
            attempt.bind(lambda grace: self._tell(wire.CancelTask(number, grace)))
            self._tell((msgspec.structs.replace(order, task=number), worker))
            self._fill(preload)

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutorError("the executor is closed")

    def _fill(self, preload: frozenset[str]) -> None:
        if preload - self._preload:
            self._preload |= preload
            while self._idle:
                _discard(self._idle.popleft())
        while len(self._idle) < self._spares:
            self._idle.append(SpareWorker.start(self._preload, self.variables(), self._python))

    def _tell(self, what: tuple[wire.SubmitTask, SpareWorker] | wire.CancelTask) -> None:
        self._todo.append(what)
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def close(self) -> None:
        """End everything that it started."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(OSError):
            self._wake.shutdown(socket.SHUT_RDWR)
        self._thread.join(10.0)

    # ------------------------------------------------------------ the supervising thread

    def _supervise(self) -> None:
        while True:
            for _ in self._supervisor.wait(None):
                if not self._woken.recv(1024):
                    self._end()
                    return
            while self._todo:
                what = self._todo.popleft()
                if isinstance(what, wire.CancelTask):
                    self._supervisor.cancel(what.task, what.grace)
                else:
                    self._begin(*what)

    def _begin(self, order: wire.SubmitTask, worker: SpareWorker) -> None:
        process = worker.process
        with contextlib.suppress(OSError):  # it has died: its end is reported as the task's
            worker.socket.sendall(wire.frame(order))
        self._take(wire.Born(order.task, process.pid))
        self._supervisor.watch(
            Child(
                task=order.task,
                pid=process.pid,
                frames=worker.socket.detach(),
                raw={_own(process.stdout): 1, _own(process.stderr): 2},
                ended=process.poll,
                timeout=order.timeout,
                memory=order.memory,
            )
        )

    def _take(self, report: wire.Report) -> None:
        if isinstance(report, wire.PreloadDone):
            return
        self._attempts[report.task].feed(report)
        if isinstance(report, wire.Gone):
            with self._lock:
                del self._attempts[report.task], self._workers[report.task]

    def _end(self) -> None:
        self._supervisor.kill_all()
        for worker in self._idle:
            _discard(worker)
        while self._supervisor.children:
            self._supervisor.wait(0.1)
        self._supervisor.selector.close()
        self._wake.close()
        self._woken.close()


def _own(stream: IO[bytes] | None) -> int:
    """Return a descriptor of our own for a pipe's file object, and close the object."""
    if stream is None:
        raise ValueError("the worker was started without pipes")
    fd = os.dup(stream.fileno())
    stream.close()
    return fd


def _discard(worker: SpareWorker) -> None:
    """End a worker that had no task."""
    worker.socket.close()
    kill_tree(worker.process.pid)
    worker.process.wait()
    for stream in (worker.process.stdout, worker.process.stderr):
        if stream is not None:
            stream.close()
