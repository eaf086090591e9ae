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
from collections.abc import Mapping
from pathlib import Path

from nbflow import limits, wire
from nbflow.errors import ExecutorError
from nbflow.executors.attempt import Attempt, lost_supervisor
from nbflow.model import TaskResult

CODE = """\
import sys
home = sys.argv[3]
try:
    import nbflow
except ImportError:
    sys.path.append(home)
from nbflow.executors.zygote_main import main
main(int(sys.argv[1]), sys.argv[2])
"""


class Zygote:
    """A zygote that has imported `preload`; tasks given to it before it is ready wait in its socket."""

    def __init__(self, preload: frozenset[str]) -> None:
        self.preload = preload
        self.ready = threading.Event()
        self.unsafe: frozenset[str] = frozenset()
        self.closing = False
        self._attempts: dict[int, Attempt] = {}
        self._lock = threading.Lock()
        self._next = 0
        self._alive = True
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process ends before it is ready
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", CODE, str(theirs.fileno()), ",".join(sorted(preload)), _home()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env=_environment(os.environ),
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours
        self._writer = wire.Writer(ours.fileno())
        self._reader = threading.Thread(target=self._read, name="nbflow-zygote", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether tasks can be given to it."""
        return self._alive and not self.closing

    def submit(self, attempt: Attempt, order: wire.Submit) -> bool:
        """A new attempt and what to run, its number left open, in; False when the zygote has ended."""
        with self._lock:
            if not self.alive:
                return False
            self._next += 1
            number = self._next
            self._attempts[number] = attempt
        attempt.bind(lambda grace: self._send(wire.Cancel(number, grace)))
        self._send(wire.Submit(number, order.spec, order.timeout, order.memory, order.environment))
        return True

    def _send(self, message: wire.Order) -> None:
        with contextlib.suppress(OSError):  # it has ended: the reader sees that too and ends the attempts
            self._writer.send(message)

    def retire(self) -> None:
        """No new tasks; it ends when the running ones have ended."""
        self.closing = True
        self._send(wire.Close())

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
        if isinstance(report, wire.Ready):
            self.unsafe = frozenset(report.unsafe)
            self.ready.set()
            return
        attempt = self._attempts.get(report.task)
        if attempt is not None:
            attempt.feed(report)
            if isinstance(report, wire.Gone):
                del self._attempts[report.task]

    def _lose(self) -> None:
        """The zygote has ended: its children died with it, theirs are ended here, and the attempts are told."""
        with self._lock:
            self._alive = False
            attempts = list(self._attempts.values())
            self._attempts.clear()
        for attempt in attempts:
            if attempt.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(attempt.pid, signal.SIGKILL)
        self.process.wait()
        self._socket.close()
        problem = None if self.ready.is_set() else self._problem()
        self.ready.set()
        for attempt in attempts:
            attempt.end(TaskResult(failure=lost_supervisor(attempt.spec, problem)))

    def _problem(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self.process.returncode}"


def _home() -> str:
    return str(Path(__file__).parents[2])


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The driver's environment in; the zygote's out: one thread for numeric libraries, the user's wishes kept aside."""
    kept = {f"NBFLOW_OWN_{name}": own[name] for name in limits.THREAD_VARIABLES if name in own}
    return {**own, **kept, **dict.fromkeys(limits.THREAD_VARIABLES, "1")}


def check() -> None:
    """ExecutorError when this system cannot fork from a zygote."""
    if sys.platform != "linux":
        raise ExecutorError("the zygote needs Linux", fix="use NBFLOW_LANE=spare")
