"""What nbflow itself takes of a task's time, by what it is for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Costs:
    """Seconds by what they went to: "inputs", "base line", "comparison", "storing"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """The time that the block takes is added."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - begun

    def rounded(self) -> dict[str, float]:
        """The same to the microsecond, as records keep it."""
        return {what: round(seconds, 6) for what, seconds in self.seconds.items()}
