"""One measurement as a row, many as a table: values beside what they are compared with in the same run."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """What was measured; `beside` is what it is compared with, `ratio` says beside / value."""

    topic: str
    what: str
    value: float
    unit: str = "ms"
    beside: float | None = None
    against: str = ""
    aim: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times larger the other one is."""
        return self.beside / self.value if self.beside is not None and self.value else None


HEADS = ("what", "value", "against", "its value", "ratio", "aim")


def table(rows: Sequence[Row]) -> str:
    """Rows in; a table with a line for each topic out."""
    lines = [HEADS]
    topics = {row.topic: [each for each in rows if each.topic == row.topic] for row in rows}
    for topic, members in topics.items():
        lines.append((f"[{topic}]", "", "", "", "", ""))
        lines += [_cells(row) for row in members]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADS))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells and the columns' widths in; one line out, numbers to the right."""
    padded = (
        cell.rjust(width) if at in {1, 3, 4} else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.1f} x"
    beside = "" if row.beside is None else _number(row.beside, row.unit)
    return (f"  {row.what}", _number(row.value, row.unit), row.against, beside, ratio, row.aim)


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def plain(row: Row) -> dict[str, Any]:
    """A row in; what `--json` says of it out."""
    return {**dataclasses.asdict(row), "ratio": row.ratio}


def timed(work: Callable[[], Any]) -> float:
    """A call in; the milliseconds that it takes out."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def in_turns(rounds: int, **works: Callable[[], Any]) -> dict[str, float]:
    """Calls by name in; the median ms of each out: one round of all after the other, so that load falls on all."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            took[name].append(timed(work))
    return {name: statistics.median(found) for name, found in took.items()}
