"""The user's namespace while a step runs: what a step may not see is moved aside and put back."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any

from nbflow.model import MISSING

_OWN = frozenset(
    {"In", "Out", "exit", "quit", "open", "get_ipython", "_", "__", "___", "_i", "_ii", "_iii", "_ih", "_oh", "_dh"}
)
_NUMBERED = re.compile(r"_i?\d+\Z")


@lru_cache(maxsize=1 << 16)
def is_own(name: object) -> bool:
    """Return whether a name belongs to Python or IPython and not to the user; keys that are no names are nobody's."""
    if not isinstance(name, str):
        return True
    if name[:1] != "_" and name not in _OWN:
        return False
    return name in _OWN or (name.startswith("__") and name.endswith("__")) or _NUMBERED.match(name) is not None


class Aside:
    """A step's view of the user's one namespace: made by `take` and `bind`, undone by `restore`; twice does no harm.

    The dict stays the same object, so that functions keep their globals; only its entries change.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.held: dict[str, Any] = {}  # moved out: name -> the user's value
        self.bound: dict[str, Any] = {}  # put in for the step: name -> value

    def take(self, visible: Collection[str]) -> None:
        """Leave only `visible` names and IPython's own."""
        namespace = self.namespace
        # first written down, then taken away: nothing is lost wherever this is broken off
        self.held = {name: value for name, value in namespace.items() if name not in visible and not is_own(name)}
        if not self.held:
            return
        with without_interrupts():
            for name in self.held:
                namespace.pop(name, None)

    def bind(self, name: str, value: Any) -> None:
        """Give a name its value for the step."""
        present = self.namespace.get(name, MISSING)
        if present is value:
            return
        if present is not MISSING:
            self.held.setdefault(name, present)
        self.bound[name] = value
        self.namespace[name] = value

    def hold(self, name: str) -> None:
        """Write down a name's value before something else takes its place."""
        if name in self.namespace:
            self.held.setdefault(name, self.namespace[name])

    def note(self, names: Iterable[str]) -> None:
        """Note names that have just been bound for the step, by a definition that was replayed."""
        self.bound.update({name: self.namespace[name] for name in names if name in self.namespace})

    def restore(self, written: Collection[str]) -> None:
        """Put back what was moved aside; the cell's own bindings and its `written` names win."""
        if not self.held:
            self.bound = {}
            return
        with without_interrupts():
            namespace = self.namespace
            for name, value in self.held.items():
                if name not in self.bound:
                    namespace.setdefault(name, value)
                elif name not in written and namespace.get(name, MISSING) is self.bound[name]:
                    namespace[name] = value
            self.held, self.bound = {}, {}


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold SIGINT back for a moment: it is delivered right after. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def running_elsewhere(namespace: dict[str, Any]) -> str:
    """Return what of the user's could see names missing while a step runs here; "" when nothing can.

    That is a thread from an earlier cell, which shares this namespace, or this very thread when it is not the main one
    (a subshell beside other cells).
    """
    current = threading.current_thread()
    if current is not threading.main_thread():
        return "the cell runs in a subshell"
    if threading.active_count() > 1:
        frames = sys._current_frames()  # noqa: SLF001  # there is no other way
        for thread in threading.enumerate():
            if thread is not current and _uses(thread, frames.get(thread.ident or 0), namespace):
                return f"the thread {thread.name!r} that an earlier cell started is still running"
    return ""


def _uses(thread: threading.Thread, frame: FrameType | None, namespace: dict[str, Any]) -> bool:
    if type(thread).__module__ == "__main__":
        return True
    for attribute in ("_target", "function"):  # of Thread and Timer: what will run
        if getattr(getattr(thread, attribute, None), "__globals__", None) is namespace:
            return True
    while frame is not None:
        if frame.f_globals is namespace:
            return True
        frame = frame.f_back
    return False


def waiting_elsewhere(namespace: dict[str, Any]) -> str:
    """Return the same for asyncio tasks from earlier cells: they go on while a step awaits, and only then."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return ""
    for task in asyncio.all_tasks(loop):
        waiting: Any = task.get_coro()
        while task is not asyncio.current_task(loop) and (frame := getattr(waiting, "cr_frame", None)) is not None:
            if frame.f_globals is namespace:
                return f"the asyncio task {task.get_name()!r} that an earlier cell started is still running"
            waiting = waiting.cr_await
    return ""
