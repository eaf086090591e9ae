"""Run tasks in their own process, forked or started for it, and end the process."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from typing import NoReturn

from nbflow.executors import wire
from nbflow.model import Ended, TaskEvent, TaskFailure, TaskResult, TaskSpec
from nbflow.task import limits
from nbflow.task.execute import WarmShell, execute
from nbflow.task.streams import Interrupts, PipesRead
from nbflow.tracebacks import INTERRUPTED


class Process:
    """This process as one that runs tasks: how it is interrupted, and the way for its events."""

    def __init__(self, frames: int) -> None:
        """Take `frames`, which leads to the supervisor, and so must descriptors 1 and 2; main thread only."""
        self.home = os.getpid()
        self.interrupts = Interrupts()
        self.interrupts.install()
        # copies: the cell may turn 1 and 2 elsewhere
        self._writer = wire.FrameWriter(frames, before=PipesRead((os.dup(1), os.dup(2))))
        faulthandler.enable(2)

    def emit(self, event: TaskEvent) -> None:
        """Send an event; do nothing in a process that a cell has forked."""
        if os.getpid() == self.home:
            with self.interrupts.hold():
                self._writer.send(event)

    def run(self, order: wire.SubmitTask, prepared: WarmShell) -> TaskResult:
        """Run a task here and return its result."""
        started = time.monotonic()
        spec: TaskSpec | None = None
        try:
            spec = wire.parse_spec(order.spec)
            for name in spec.withheld:
                os.environ.pop(name, None)
            os.environ.update(order.environment)
            result = execute(spec, self.emit, prepared, {**order.hidden, **order.environment})
        except KeyboardInterrupt as error:  # whether anybody asked for it knows who is told of it
            result = _failed(type(error).__name__, INTERRUPTED, spec, started)
        except BaseException as error:  # the run has to hear of whatever ended the task, a fault of ours included
            if os.getpid() == self.home:
                sys.excepthook(type(error), error, error.__traceback__)
            result = _failed(type(error).__name__, f"the task could not be run: {error}", spec, started)
        if os.getpid() != self.home:
            # a process that the cell forked has come out of the cell: the result is its parent's
            os._exit(0)
        return result

    def finish(self, result: TaskResult) -> None:
        """Send a result behind all that the task has written; interrupts no longer count."""
        self.interrupts.ignore()
        with contextlib.suppress(Exception):
            for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    stream.flush()
            ctypes.CDLL(None).fflush(None)
        self.emit(Ended(result=result))


def run(order: wire.SubmitTask, frames: int, prepared: WarmShell) -> NoReturn:
    """Run a task in this process, which ends with it; descriptors 1 and 2 must lead to the supervisor."""
    process = Process(frames)
    os.environ[limits.TASK_VARIABLE] = str(order.task)
    process.finish(process.run(order, prepared))
    os._exit(0)


def _failed(name: str, message: str, spec: TaskSpec | None, started: float) -> TaskResult:
    cell = spec.cell if spec is not None else None
    failure = TaskFailure(type=name, message=message, cell=cell)
    return TaskResult(failure=failure, elapsed=time.monotonic() - started)


def await_order(fd: int) -> wire.SubmitTask:
    """Return the task that the driver writes to a descriptor; end the process when the driver ends before."""
    body = wire.read_frame(fd)
    order = wire.parse_order(body) if body is not None else None
    if not isinstance(order, wire.SubmitTask):
        os._exit(0)
    return order


def lead_group() -> None:
    """Make this process the leader of a group of its own, which an interrupt or a kill reaches as a whole."""
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)


def take_output(out: int, err: int) -> None:
    """Make the supervisor's pipes descriptors 1 and 2; 0 is at its end from now on."""
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((null, 0), (out, 1), (err, 2)):
        os.dup2(fd, place)
    for fd in (null, out, err):
        if fd > 2:
            os.close(fd)


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that forked it ends (Linux); `parent` is who that was."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
