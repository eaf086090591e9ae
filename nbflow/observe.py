"""What an execution depends on, seen while it runs, and whether that still holds."""

from __future__ import annotations

from nbflow.model import Observations, Reason, TaskSpec


class Observer:
    """Watches one task between `start` and `stop`."""

    def __init__(self, spec: TaskSpec) -> None:
        self._volatile: set[str] = set()

    def start(self) -> None:
        """Begin."""

    def stop(self) -> Observations:
        """What was seen."""
        return Observations(volatile=tuple(sorted(self._volatile)))

    def add_volatile(self, what: str) -> None:
        """Another execution would not do the same."""
        self._volatile.add(what)


def holds(observations: Observations, folder: str) -> Reason | None:
    """Observations and the notebook's folder in; why they no longer hold, None where they do, out."""
    del observations, folder
    return None
