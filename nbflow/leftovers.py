"""What a cell leaves running in its process: asyncio tasks, threads, child processes; awaited or ended, and named."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nbflow.model import Finding

if TYPE_CHECKING:
    import asyncio

PATIENCE = 60.0
"""Seconds that asyncio tasks and threads get to finish before the task ends without them."""

TRACKERS = ("resource_tracker", "semaphore_tracker")
"""Helpers that multiprocessing and joblib always leave behind; ended without a word."""


def await_tasks(step: str, cell: str, patience: float = PATIENCE) -> list[Finding]:
    """Run the loop until the cell's asyncio tasks are done; those that are not in time are cancelled and named."""
    loop = _loop()
    if loop is None or loop.is_running() or loop.is_closed():
        return []
    import asyncio

    pending = list(asyncio.all_tasks(loop))
    if not pending:
        return []
    loop.run_until_complete(asyncio.wait(pending, timeout=patience))
    late = [task for task in pending if not task.done()]
    for task in late:
        task.cancel()
    if late:
        loop.run_until_complete(asyncio.wait(late, timeout=1.0))
    names = ", ".join(sorted(map(_named, pending)))
    how = f"not done after {patience:.0f} s and cancelled" if late else "awaited"
    return [_finding(step, cell, f"asyncio tasks left by the cell were {how}: {names}")]


def _named(task: asyncio.Task[object]) -> str:
    name = getattr(task.get_coro(), "__qualname__", "?")
    error = task.exception() if task.done() and not task.cancelled() else None
    return name if error is None else f"{name} ({type(error).__name__}: {error})"


def _loop() -> asyncio.AbstractEventLoop | None:
    from IPython.core.async_helpers import get_asyncio_loop

    # a loop exists only once a cell has awaited something
    helpers = sys.modules["IPython.core.async_helpers"]
    if getattr(helpers, "_asyncio_event_loop", None) is None:
        return None
    found: asyncio.AbstractEventLoop = get_asyncio_loop()  # type: ignore[no-untyped-call]
    return found


def join_threads(step: str, cell: str, known: frozenset[int], patience: float = PATIENCE) -> list[Finding]:
    """Wait for the cell's threads that are no daemons; `known` are the idents of those that ran before it."""
    deadline = time.monotonic() + patience
    found = [t for t in threading.enumerate() if t.ident not in known and not t.daemon and not _pooled(t)]
    for thread in found:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = [thread.name for thread in found if thread.is_alive()]
    if late:
        return [
            _finding(step, cell, f"threads left by the cell ended with it after {patience:.0f} s: {', '.join(late)}")
        ]
    if found:
        return [_finding(step, cell, f"threads left by the cell were awaited: {', '.join(t.name for t in found)}")]
    return []


def _pooled(thread: threading.Thread) -> bool:
    """Whether a thread serves a pool: it waits for work for ever, until `end_pools`."""
    target = getattr(thread, "_target", None)
    homes = (type(thread).__module__, getattr(target, "__module__", None) or "")
    return any(home.startswith("concurrent.futures") for home in homes)


def end_pools(patience: float = PATIENCE) -> None:
    """Let the pools that are still open finish what they were given, and end them; nothing can be given them after."""
    if not any(map(_pooled, threading.enumerate())):
        return
    calls = list(reversed(getattr(threading, "_threading_atexits", [])))

    def end() -> None:
        for call in calls:
            call()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(patience)


def end_children(step: str, cell: str) -> list[Finding]:
    """Kill the processes that the cell has left behind, their children too, and name them."""
    if not _has_children():
        return []
    named = []
    for pid in descendants(os.getpid()):
        command = _settled_command_of(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            if command and not any(tracker in command for tracker in TRACKERS):
                named.append(f"{command} (pid {pid})")
    if not named:
        return []
    return [_finding(step, cell, f"processes left by the cell were ended: {'; '.join(named)}")]


def _has_children() -> bool:
    """Whether this process has any child, ended ones included."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    """A process in, the processes below it out, children before theirs; empty where the system does not tell."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    """A process in, its children out (Linux)."""
    try:
        threads = [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    found = []
    for thread in threads:
        with contextlib.suppress(OSError):
            found += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found


def _settled_command_of(pid: int) -> str:
    """The same; a process that is just becoming another program has none for a moment."""
    for _ in range(20):
        command = command_of(pid)
        if command or not Path(f"/proc/{pid}/cmdline").exists():
            return command
        time.sleep(0.001)
    return ""


def command_of(pid: int) -> str:
    """A process in, its command line out, shortened; empty for one that has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    if state == "Z":
        return ""
    text = b" ".join(words).decode(errors="replace").strip()
    return text if len(text) <= 80 else text[:77] + "..."


def _finding(step: str, cell: str, message: str) -> Finding:
    return Finding(code="left-running", message=message, level="note", step=step, cell=cell)
