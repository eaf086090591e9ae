"""What a cell leaves running: asyncio tasks, threads, pools, child processes; awaited or ended, and named.

A task's process ends by `os._exit`, and nothing that Python does at an interpreter's end would happen. `end` does it in
Python's order, each part within bounds: the callbacks by which libraries end their pools, exit hooks, what
multiprocessing left open and its processes; then whatever children are left, the resource trackers last.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from nbflow.model import Finding

if TYPE_CHECKING:
    import asyncio

PATIENCE = 60.0
"""Seconds that asyncio tasks, threads, pools and exit hooks get to finish before the task ends without them."""

GRACE = 5.0
"""Seconds that processes get which multiprocessing would wait for, and trackers that tidy up."""

HELPERS = ("resource_tracker", "semaphore_tracker", "multiprocessing.forkserver")
"""Processes that multiprocessing and joblib always leave behind; ended without a word."""

MULTIPROCESSING = ("multiprocessing", "multiprocess", "billiard")
"""The standard library's package, and those that are made from it."""


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
    loop: asyncio.AbstractEventLoop = get_asyncio_loop()  # type: ignore[no-untyped-call]
    return loop


def join_threads(step: str, cell: str, known: frozenset[int], patience: float = PATIENCE) -> list[Finding]:
    """Wait for the cell's threads that are no daemons; `known` are the idents of those that ran before it."""
    deadline = time.monotonic() + patience
    threads = [t for t in threading.enumerate() if t.ident not in known and not t.daemon and not _pooled(t)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = [thread.name for thread in threads if thread.is_alive()]
    if late:
        return [
            _finding(step, cell, f"threads left by the cell ended with it after {patience:.0f} s: {', '.join(late)}")
        ]
    if threads:
        return [_finding(step, cell, f"threads left by the cell were awaited: {', '.join(t.name for t in threads)}")]
    return []


def _pooled(thread: threading.Thread) -> bool:
    """Return whether a thread serves a pool: it waits for work for ever, until its library's callback in `end`."""
    target = getattr(thread, "_target", None)
    homes = {_top(type(thread)), _top(target)}
    return bool(homes & {_top(call) for call in _callbacks()} - {"__main__", ""})


def _top(value: Any) -> str:
    """Return the top-level name of the module that a function, class or partial call comes from."""
    module = getattr(getattr(value, "func", value), "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _callbacks() -> list[Callable[[], object]]:
    """Return what `threading` calls before it waits for threads, in the order in which it does."""
    return list(reversed(getattr(threading, "_threading_atexits", [])))


# ---------------------------------------------------------------- the end of a process


def anything(known: frozenset[int], hooks: int) -> bool:
    """Return whether there is something to end: threads not in `known`, more than `hooks` exit hooks, or children."""
    return (
        any(thread.ident not in known for thread in threading.enumerate())
        or atexit._ncallbacks() > hooks  # noqa: SLF001
        or _has_children()
    )


def end(step: str, cell: str) -> list[Finding]:
    """Do what an interpreter's end does, in the main thread; nothing can be given to a pool after.

    What does not end in time is broken off or killed, and named.
    """
    messages: list[str] = []
    for part in (_end_pools, _run_hooks, _end_multiprocessing, _end_children):
        try:
            messages.extend(part())
        except Exception as error:  # a library's own, or what a signal handler of the cell's raises
            messages.append(f"not all that the cell left could be ended: {type(error).__name__}: {error}")
    return [_finding(step, cell, message) for message in messages]


class _Late(BaseException):
    """What runs in the main thread has taken too long."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[list[bool]]:
    """Break off what the block does after so many seconds, and what it goes on with every second after.

    The list says whether anything was broken off. Where a system has no such alarm, nothing is.
    """
    late: list[bool] = []
    if not hasattr(signal, "setitimer"):
        yield late
        return
    inside = True

    def ring(number: int, frame: FrameType | None) -> None:
        del number
        if inside and not _writes(frame):
            late.append(True)
            raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield late
    except _Late:
        pass
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _writes(frame: FrameType | None) -> bool:
    """Return whether our own code has called this frame: a message that is half sent must not be broken off."""
    while frame is not None and frame.f_globals is not globals():
        if str(frame.f_globals.get("__name__", "")).startswith("nbflow."):
            return True
        frame = frame.f_back
    return False


def _end_pools() -> Iterator[str]:
    """Let the pools that are still open finish what they were given, and end them."""
    deadline, late = time.monotonic() + PATIENCE, False
    for call in _callbacks():
        problem = ""
        with _at_most(max(0.1, deadline - time.monotonic())) as broken:
            try:
                call()
            except Exception as error:  # a library's own
                problem = f"{type(error).__name__}: {error}"
        if problem:
            yield f"{_named_call(call)}, which ends what the cell left open, failed: {problem}"
        late = late or bool(broken)
    threads = [thread for thread in threading.enumerate() if not thread.daemon and _pooled(thread)]
    if not late:  # a thread whose `join` was broken off says that it has ended (bpo-45274)
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        threads = [thread for thread in threads if thread.is_alive()]
    if threads:
        names = ", ".join(thread.name for thread in threads)
        yield f"pools left by the cell ended with it after {PATIENCE:.0f} s: {names}"


def _named_call(call: object) -> str:
    function = getattr(call, "func", call)
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__name__)}"


def _run_hooks() -> Iterator[str]:
    """Run what was registered with `atexit`, but what multiprocessing would do: it waits for its processes for ever."""
    for name in MULTIPROCESSING:
        waits = getattr(sys.modules.get(f"{name}.util"), "_exit_function", None)
        if waits is not None:
            atexit.unregister(waits)
    broken: list[str] = []
    tell = sys.unraisablehook

    def hear(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, _Late):
            broken.append(_named_call(unraisable.object) if unraisable.object is not None else str(unraisable.err_msg))
        else:
            tell(unraisable)

    sys.unraisablehook = hear
    try:
        with _at_most(PATIENCE):
            atexit._run_exitfuncs()  # noqa: SLF001  # `os._exit` ends the process: nobody else runs them
    finally:
        sys.unraisablehook = tell
    if broken:
        yield f"exit hooks left by the cell were broken off after {PATIENCE:.0f} s: {', '.join(broken)}"


def _end_multiprocessing() -> Iterator[str]:
    """Close what each such package has left open, end its daemons, and give its other processes a moment."""
    for name in MULTIPROCESSING:
        util, process = sys.modules.get(f"{name}.util"), sys.modules.get(f"{name}.process")
        if util is None or process is None:
            continue
        deadline = time.monotonic() + GRACE
        with _at_most(GRACE):
            util._run_finalizers(0)  # noqa: SLF001  # managers, pools, locks
        yield from _end_processes(process, deadline)
        with _at_most(max(1.0, deadline - time.monotonic())):
            util._run_finalizers()  # noqa: SLF001  # queues: what is in them goes on its way


def _end_processes(process: ModuleType, deadline: float) -> Iterator[str]:
    """Wait for processes that are no daemons until the deadline; those that are late are ended with other children."""
    children = process.active_children()
    for child in children:
        if child.daemon:
            child.terminate()
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
    daemons = [child.name for child in children if child.daemon]
    if daemons:
        yield f"processes left by the cell were ended, as daemons are: {', '.join(daemons)}"
    awaited = [child.name for child in children if not child.daemon and not child.is_alive()]
    if awaited:
        yield f"processes left by the cell were awaited: {', '.join(awaited)}"


def _end_children() -> Iterator[str]:
    """Kill the processes that the cell has left behind, their children too; helpers end by themselves."""
    if not _has_children():
        return
    commands, trackers = [], []
    own = {tracker._pid: tracker for tracker in _trackers()}  # noqa: SLF001
    for pid in descendants(os.getpid()):
        if pid in own:
            trackers.append(pid)
            continue
        command = _settled_command_of(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            if command and not any(helper in command for helper in HELPERS):
                commands.append(f"{command if len(command) <= 80 else command[:77] + '...'} (pid {pid})")
    for pid in trackers:
        # shared memory and folders that nobody has removed are removed once nobody holds its pipe
        os.close(own[pid]._fd)  # noqa: SLF001
        own[pid]._fd = own[pid]._pid = None  # noqa: SLF001
    _await_end(trackers)
    if commands:
        yield f"processes left by the cell were ended: {'; '.join(commands)}"


def _trackers() -> Iterator[Any]:
    """Give the resource trackers that this process writes to, those of libraries too."""
    for name, module in list(sys.modules.items()):
        if name.endswith("resource_tracker"):
            tracker = getattr(module, "_resource_tracker", None)
            if isinstance(getattr(tracker, "_pid", None), int) and isinstance(getattr(tracker, "_fd", None), int):
                yield tracker


def _await_end(pids: Iterable[int]) -> None:
    """Wait for children; those that take too long are killed."""
    deadline = time.monotonic() + GRACE
    for pid in pids:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    break
                time.sleep(0.002)


def _has_children() -> bool:
    """Return whether this process has any child, ended ones included."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, children before theirs; none where the system does not tell."""
    pids: list[int] = []
    for child in children(pid):
        pids += [child, *descendants(child)]
    return pids


def children(pid: int) -> list[int]:
    """Return a process's children (Linux)."""
    try:
        threads = [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    pids = []
    for thread in threads:
        with contextlib.suppress(OSError):
            pids += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return pids


def _settled_command_of(pid: int) -> str:
    """Return a process's command line; wait a moment for one that is just becoming another program."""
    for _ in range(20):
        command = command_of(pid)
        if command or not Path(f"/proc/{pid}/cmdline").exists():
            return command
        time.sleep(0.001)
    return ""


def command_of(pid: int) -> str:
    """Return a process's command line, empty for one that has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    if state == "Z":
        return ""
    return b" ".join(words).decode(errors="replace").strip()


def _finding(step: str, cell: str, message: str) -> Finding:
    return Finding(code="left-running", message=message, level="note", step=step, cell=cell)
