"""Threads that wait so that others need not; they are used again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Carriers:
    """Daemon threads, as many as are busy at once: starting one for each small task would cost more than the task."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self._started = 0

    def run(self, work: Callable[[], None]) -> None:
        """Begin work that raises nothing at once, in a thread that is free or a new one."""
        with self._lock:
            reused = self._free > 0
            if reused:
                self._free -= 1
            else:
                self._started += 1
        if not reused:
            threading.Thread(target=self._serve, daemon=True, name=f"{self._name} {self._started}").start()
        self._work.put(work)

    def close(self) -> None:
        """End each thread once it is free."""
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # what it holds need not live until the next one comes
            with self._lock:
                self._free += 1
