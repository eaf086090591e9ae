"""Task processes watched: output in exact order, their end, interrupts, time and memory limits, whole trees killed.

Used by the zygote for the children that it forks, and by the spare lane for the workers that it starts.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from nbflow.executors.wire import CHUNK, Ending, Frames, Gone, Raw, Report
from nbflow.task.leftovers import descendants

TURN = 1 << 20
"""Bytes of frames read from one task before the others get their turn."""

WINDOW = 0.01
"""Seconds in which a task that says much, little by little, is listened to `READS` times at once, then all together."""

READS = 6
LITTLE = CHUNK // 4

STARTING = 10.0
"""Seconds that a task may take, beyond its --timeout, until it says that its cell begins: processes have to start."""

TIMEOUT_GRACE = 5.0
"""Seconds between the interrupt and the end of a task that takes longer than its --timeout."""

MEMORY_PERIOD = 0.2
POLL_PERIOD = 0.02


class Child(msgspec.Struct, eq=False):
    """One task's process: where it writes, how its end is learnt, and what it may use.

    `ended` gives the exit status once the process has ended, else None; `pidfd` is readable from then on, and is -1
    where the system has none, so that `ended` must be asked again and again.
    """

    task: int
    pid: int
    frames: int
    raw: dict[int, int]  # our descriptor -> 1 or 2
    ended: Callable[[], int | None]
    pidfd: int = -1
    timeout: float | None = None
    memory: int | None = None
    why: str = ""
    begun: bool = False  # it has said something
    deadline: float | None = None
    kill_at: float | None = None
    open: set[int] = msgspec.field(default_factory=set)
    window: float = 0.0  # when the present one began
    reads: int = 0  # in it
    last: int = 0  # bytes that were read at once
    paused: bool = False  # until its end; what is written meanwhile waits in the pipe


class Supervisor:
    """Running tasks' processes; what happens to them goes to `report`, in order."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        self.report = report
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}
        self._memory_at = 0.0
        self._own_memory = 0

    def watch(self, child: Child) -> None:
        """Watch a process that has just begun with a task."""
        self.children[child.task] = child
        for fd in (child.frames, *child.raw):
            os.set_blocking(fd, False)
            child.open.add(fd)
            self.selector.register(fd, selectors.EVENT_READ, child)
        if child.pidfd >= 0:
            self.selector.register(child.pidfd, selectors.EVENT_READ, child)
        if child.timeout is not None:
            child.deadline = time.monotonic() + child.timeout + STARTING
        if child.memory is not None:
            self._own_memory = _anonymous(os.getpid())

    def cancel(self, task: int, grace: float) -> None:
        """Interrupt a task, and end its tree after `grace` seconds; unknown ones have ended already."""
        child = self.children.get(task)
        if child is not None:
            # before its cell has begun there is nothing to tidy up, and nobody yet to hear of an interrupt
            self._end(child, "cancelled", grace if child.begun else 0.0)

    def _end(self, child: Child, why: str, grace: float) -> None:
        if not child.why:
            child.why = why
            self.report(Ending(child.task, why))
        _signal_group(child.pid, getattr(signal, "SIGINT", signal.SIGTERM))
        at = time.monotonic() + grace
        child.kill_at = at if child.kill_at is None else min(child.kill_at, at)

    def wait(self, timeout: float | None) -> list[selectors.SelectorKey]:
        """Pass on what tasks write within `timeout` seconds; return selector keys that are not theirs."""
        self._resume()
        events = self.selector.select(self._patience(timeout))
        foreign: list[selectors.SelectorKey] = []
        ready: dict[Child, set[int]] = {}
        for key, _ in events:
            if isinstance(key.data, Child):
                ready.setdefault(key.data, set()).add(key.fd)
            else:
                foreign.append(key)
        for child, fds in ready.items():
            self._read(child, fds)
        for child in list(self.children.values()):
            if child.pidfd < 0 or child.pidfd in ready.get(child, ()):
                self._check_end(child)
        self._enforce()
        return foreign

    def _patience(self, timeout: float | None) -> float | None:
        limits = [] if timeout is None else [timeout]
        now = time.monotonic()
        for child in self.children.values():
            if child.paused:
                limits.append(max(0.0, child.window + WINDOW - now))
            limits += [max(0.0, at - now) for at in (child.deadline, child.kill_at) if at is not None]
            if child.pidfd < 0:
                limits.append(POLL_PERIOD)
            if child.memory is not None:
                limits.append(MEMORY_PERIOD)
        return min(limits, default=None)

    def _read(self, child: Child, ready: set[int]) -> None:
        """Read frames before raw output that is ready too; raw output once only.

        The task writes a frame only when the raw pipes are empty: reading them again here could take what was
        written after a frame that we have not read.
        """
        all_read = self._read_frames(child, TURN)
        self._pace(child)
        if all_read:
            for fd in child.raw:
                if fd in ready and fd in child.open:
                    self._read_raw(child, fd)

    def _pace(self, child: Child) -> None:
        """Pause a task that writes line by line: each line wakes everybody, so many are passed on at once.

        Nothing is lost when it ends meanwhile: what it has written is read from the pipe.
        """
        now = time.monotonic()
        if now - child.window > WINDOW:
            child.window, child.reads = now, 0
        child.reads += child.last < LITTLE
        if child.reads >= READS and not child.paused and child.frames in child.open:
            child.paused = True
            self.selector.unregister(child.frames)

    def _resume(self) -> None:
        now = time.monotonic()
        for child in self.children.values():
            if child.paused and now >= child.window + WINDOW:
                child.paused = False
                self.selector.register(child.frames, selectors.EVENT_READ, child)

    def _read_frames(self, child: Child, limit: int) -> bool:
        """Pass on at most about `limit` bytes of frames; return whether that was all there was."""
        child.last = 0
        while child.frames in child.open and limit > 0:
            try:
                data = os.read(child.frames, CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self._shut(child, child.frames)
                return True
            limit -= len(data)
            child.last += len(data)
            if child.timeout is not None and not child.begun:
                child.deadline = time.monotonic() + child.timeout
            child.begun = True
            self.report(Frames(child.task, data))
        return limit > 0

    def _read_raw(self, child: Child, fd: int) -> bool:
        """Pass on one piece; return whether there may be more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._shut(child, fd)
            return False
        self.report(Raw(child.task, child.raw[fd], data))
        return True

    def _shut(self, child: Child, fd: int) -> None:
        child.open.discard(fd)
        if fd == child.frames and child.paused:
            child.paused = False
        else:
            self.selector.unregister(fd)
        os.close(fd)

    def _check_end(self, child: Child) -> None:
        status = child.ended()
        if status is None:
            return
        kill_tree(child.pid)
        self._read_frames(child, 1 << 62)
        for fd in child.raw:
            while fd in child.open and self._read_raw(child, fd):
                pass
        for fd in tuple(child.open):
            self._shut(child, fd)
        if child.pidfd >= 0:
            self.selector.unregister(child.pidfd)
            os.close(child.pidfd)
        del self.children[child.task]
        self.report(Gone(child.task, status))

    def _enforce(self) -> None:
        now = time.monotonic()
        for child in self.children.values():
            if child.deadline is not None and now >= child.deadline:
                child.deadline = None
                self._end(child, "timeout", TIMEOUT_GRACE)
            if child.kill_at is not None and now >= child.kill_at:
                child.kill_at = now + 1.0
                kill_tree(child.pid)
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_PERIOD
            for child in self.children.values():
                if child.memory is not None and not child.why and self._used(child) > child.memory:
                    child.why = "memory"
                    self.report(Ending(child.task, "memory"))
                    kill_tree(child.pid)

    def _used(self, child: Child) -> int:
        """Return the bytes that the task's processes hold beyond what the process they come from holds."""
        own = max(0, _anonymous(child.pid) - (self._own_memory if child.pidfd >= 0 else 0))
        return own + sum(map(_anonymous, descendants(child.pid)))

    def kill_all(self) -> None:
        """End every task's tree."""
        for child in self.children.values():
            kill_tree(child.pid)


def kill_tree(pid: int) -> None:
    """Kill a group leader, its group and what left the group."""
    strays = descendants(pid)
    _signal_group(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    for stray in strays:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(stray, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _anonymous(pid: int) -> int:
    """Return the bytes of a process's anonymous memory (Linux; 0 elsewhere)."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                return int(line.split()[1]) * 1024
    return 0
