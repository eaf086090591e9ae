"""The driver's side of the zygote: one process that forks tasks, one thread that reads what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from nbflow.errors import ExecutorError
from nbflow.executors import wire
from nbflow.executors.attempt import AttemptHandle, lost_supervisor
from nbflow.executors.spawn import command, environment
from nbflow.model import TaskResult


class Guest(Protocol):
    """A worker of a zygote that runs one task after another, as its owner sees it."""

    pid: int

    def feed(self, report: wire.Report) -> None:
        """Take the next report about it."""

    def lose(self) -> None:
        """End with its zygote."""


class Zygote:
    """A zygote that has imported `preload`; tasks given to it before it is ready wait in its socket."""

    def __init__(
        self,
        preload: frozenset[str],
        again: Callable[[AttemptHandle, wire.SubmitTask], None],
        variables: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        """Start the process; `again` gets the tasks that wait when it breaks while it imports."""
        self.preload = preload
        self._again = again
        self.ready = threading.Event()
        self.unsafe: frozenset[str] = frozenset()
        self.closing = False
        self._told = False
        self._attempts: dict[int, tuple[AttemptHandle, wire.SubmitTask]] = {}
        self._guests: dict[int, Guest] = {}
        self._lock = threading.Lock()
        self._next = 0
        self._alive = True
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process ends before it is ready
        with theirs:
            self.process = subprocess.Popen(
                command("nbflow.executors.zygote_main", theirs.fileno(), preload, python),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env=environment(variables),
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours
        self._writer = wire.FrameWriter(ours.fileno())
        self._reader = threading.Thread(target=self._read, name="nbflow-zygote", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether tasks can be given to it."""
        return self._alive and not self.closing

    def submit(self, attempt: AttemptHandle, order: wire.SubmitTask) -> bool:
        """Give it a task under a number of its own; return False when the zygote has ended."""
        with self._lock:
            if not self.alive:
                return False
            self._next += 1
            number = self._next
            order = msgspec.structs.replace(order, task=number)
            self._attempts[number] = attempt, order
        attempt.bind(lambda grace: self.send(wire.CancelTask(number, grace)))
        self.send(order)
        return True

    def starting(self) -> str:
        """Return what is to be said, once, while tasks wait for what is imported for them; "" for nothing."""
        packages = {name.partition(".")[0] for name in self.preload} - sys.stdlib_module_names
        if self.ready.is_set() or self._told or not packages:
            return ""
        self._told = True
        return f"starting workers (importing {', '.join(sorted(packages))})…"

    def host(self, guest: Guest) -> int | None:
        """Fork a worker for `guest`; return its number, None when the zygote has ended."""
        with self._lock:
            if not self.alive:
                return None
            self._next += 1
            number = self._next
            self._guests[number] = guest
        self.send(wire.Host(number))
        return number

    def send(self, message: wire.Order) -> None:
        """Send it an order."""
        with contextlib.suppress(OSError):  # it has ended: the reader sees that too and ends the attempts
            self._writer.send(message)

    def retire(self) -> None:
        """Take no new tasks, and end when the running ones have ended."""
        self.closing = True
        self.send(wire.Close())

    def close(self) -> None:
        """End it and everything that it started."""
        self.closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if threading.current_thread() is not self._reader:
            self._reader.join(5.0)

    # ------------------------------------------------------------ the reader's thread

    def _read(self) -> None:
        assembler = wire.Assembler()
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            for body in assembler.feed(data):
                self._take(wire.parse_report(body))
        self._lose()

    def _take(self, report: wire.Report) -> None:
        if isinstance(report, wire.PreloadDone):
            self.unsafe = frozenset(report.unsafe)
            self.ready.set()
            return
        guest = self._guests.get(report.task)
        if guest is not None:
            if isinstance(report, wire.Gone):
                del self._guests[report.task]
            guest.feed(report)
            return
        entry = self._attempts.get(report.task)
        if entry is not None:
            entry[0].feed(report)
            if isinstance(report, wire.Gone):
                del self._attempts[report.task]

    def _lose(self) -> None:
        """Kill what children of the zygote, which died with it, have left; tell the attempts."""
        with self._lock:
            self._alive = False
            attempts = list(self._attempts.values())
            self._attempts.clear()
            guests = list(self._guests.values())
            self._guests.clear()
        for pid in filter(None, [*(attempt.pid for attempt, _ in attempts), *(guest.pid for guest in guests)]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.process.wait()
        self._socket.close()
        problem = None if self.ready.is_set() else self._problem()
        self._log.close()
        if problem is not None:
            self.unsafe = self.preload
        self.ready.set()
        # Where it broke before it was ready, nothing of its tasks has run, and what it imported may be why: they go to
        # one that imports nothing. Else each attempt knows whether its task has begun.
        for attempt, order in attempts:
            if problem is not None and self.preload and not self.closing:
                self._again(attempt, order)
            elif self.closing or not attempt.replace():
                attempt.end(TaskResult(failure=lost_supervisor(attempt.spec, problem)))
        for guest in guests:
            guest.lose()

    def _problem(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self.process.returncode}"


class ZygoteLane:
    """The zygotes of one executor: one at a time but for the moments when the modules to preload change."""

    def __init__(self, python: str = sys.executable) -> None:
        if sys.platform != "linux":
            raise ExecutorError("tasks can be forked from a zygote on Linux only", fix="use NBFLOW_LANE=spare")
        self.variables: Callable[[], Mapping[str, str]] = lambda: os.environ
        self._python = python
        self._lock = threading.Lock()
        self._zygotes: list[Zygote] = []
        self._unsafe: frozenset[str] = frozenset()
        self._closed = False

    def prepare(self, preload: frozenset[str]) -> None:
        """Start a zygote with these modules, unless there is one."""
        with self._lock:
            self._choose(preload)

    def submit(self, attempt: AttemptHandle, order: wire.SubmitTask, preload: frozenset[str]) -> None:
        """Run a task in a process forked from a zygote that has imported `preload`, if one has."""
        with self._lock:
            while not (zygote := self._choose(preload)).submit(attempt, order):
                pass
            starting = zygote.starting()
        if starting:
            attempt.hold_up(starting)

    def host(self, guest: Guest, preload: frozenset[str]) -> tuple[Zygote, int]:
        """Fork a worker whose tasks import `preload`; return its zygote and its number there."""
        with self._lock:
            while True:
                zygote = self._choose(preload)
                number = zygote.host(guest)
                if number is not None:
                    return zygote, number

    def _again(self, attempt: AttemptHandle, order: wire.SubmitTask) -> None:
        """Give a task of a zygote that broke while it imported to one that imports nothing of that."""
        try:
            self.submit(attempt, order, frozenset())
        except ExecutorError as error:
            attempt.end(TaskResult(failure=lost_supervisor(attempt.spec, error.message)))

    def _choose(self, preload: frozenset[str]) -> Zygote:
        """Return the newest zygote that is ready; when it lacks modules, start another one beside it.

        Until that one is ready the old one serves: what it lacks, the task imports itself.
        """
        if self._closed:
            raise ExecutorError("the executor is closed")
        for zygote in self._zygotes:
            self._unsafe |= zygote.unsafe
        self._zygotes = [zygote for zygote in self._zygotes if zygote.alive]
        modules = frozenset().union(*(zygote.preload for zygote in self._zygotes))
        if not self._zygotes or preload - modules - self._unsafe:
            self._zygotes.append(
                Zygote((modules | preload) - self._unsafe, self._again, self.variables(), self._python)
            )
        ready = [zygote for zygote in self._zygotes if zygote.ready.is_set()]
        if not ready:
            return self._zygotes[0]
        for old in self._zygotes[: self._zygotes.index(ready[-1])]:
            old.retire()
        return ready[-1]

    def close(self) -> None:
        """End everything that it started."""
        with self._lock:
            self._closed = True
            zygotes, self._zygotes = self._zygotes, []
        for zygote in zygotes:
            zygote.close()
