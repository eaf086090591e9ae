"""How a command ends: exit codes, and what Ctrl-C does meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from nbflow.errors import ExecutorError, NbflowError, RunFailed, StoreError, TaskError
from nbflow.model import Snapshot
from nbflow.runs.face import CANCELLED, DONE, FAILED, UNUSABLE, USAGE


def code_of(error: NbflowError) -> int:
    """Return an error's exit code."""
    if isinstance(error, StoreError | ExecutorError):
        return UNUSABLE
    return FAILED if isinstance(error, RunFailed | TaskError) else USAGE


def exit_code(snapshot: Snapshot) -> int:
    """Return the exit code of a run that has ended."""
    if snapshot.status == "done":
        return DONE
    if snapshot.status == "cancelled":
        return CANCELLED
    failures = [view.failure for view in snapshot.tasks if view.failure is not None and view.failure.kind == "lost"]
    return UNUSABLE if any(failure.type in ("ExecutorError", "StoreError") for failure in failures) else FAILED


@contextmanager
def interrupts(stop: Callable[[], None], message: str) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C (or SIGTERM) inside and say so; end this process at once at the second.

    Workers notice that their parent has gone and end themselves.
    """
    stopped = threading.Event()

    def hear(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if stopped.is_set():
            with suppress(OSError):
                os.write(2, b"\x1b[?25h" if os.isatty(2) else b"")  # the live table hides the cursor
            os._exit(CANCELLED)
        stopped.set()
        stop()
        with suppress(OSError):  # nobody listens any more
            os.write(2, message.encode())

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
