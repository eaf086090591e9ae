"""Which steps are over once a step begins: the closure of a flow's edges, in time that grows with their number."""

from __future__ import annotations

from collections.abc import Iterable


class Ancestors:
    """The steps so far, in document order, each a bit of an integer: a thousand are joined as quickly as ten."""

    def __init__(self) -> None:
        self._bits: dict[str, int] = {}
        self._above: dict[str, int] = {}

    def add(self, step: str, reached: int) -> None:
        """Add the next step, with all that is over once it begins."""
        self._bits[step] = 1 << len(self._bits)
        self._above[step] = reached

    def bit(self, step: str) -> int:
        """Return a step's own bit, 0 where it does not stand above."""
        return self._bits.get(step, 0)

    def above(self, step: str) -> int:
        """Return the steps that are over once a step begins."""
        return self._above.get(step, 0)

    def reached(self, steps: Iterable[str]) -> int:
        """Return steps with all above them; those that do not stand above count for nothing."""
        reached = 0
        for step in steps:
            reached |= self.bit(step) | self.above(step)
        return reached

    def between(self, steps: frozenset[str]) -> frozenset[str]:
        """Return steps with all that stand on a way between two of them."""
        inside = above = 0
        for step in steps:
            inside |= self.bit(step)
            above |= self.above(step)
        more = (step for step, bit in self._bits.items() if bit & above and self._above[step] & inside)
        return steps.union(more)
