"""What a `%%step` cell costs over the same plain cell, in one table with the other topics."""

from __future__ import annotations

from bench import overhead
from bench.rows import Row

AIMS = {"unchanged": "< 0.2 ms of ours", "new text": "< 2 ms, < 5 ms for 100 lines"}


def measure(*, quick: bool) -> list[Row]:
    """The rows of this topic."""
    rows = []
    for what, plain, step, between in overhead.measure(25 if quick else overhead.ROUNDS):
        aim = next((text for word, text in AIMS.items() if word in what), "")
        rows.append(
            Row("%%step over a plain cell", f"overhead, {what}", between, beside=plain, against="plain cell", aim=aim)
        )
        rows.append(Row("%%step over a plain cell", f"the step, {what}", step, beside=plain, against="plain cell"))
    return rows
