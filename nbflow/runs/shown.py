"""What a cell shows, as far as two executions of it can be compared: what it printed and displayed, in order.

What goes to standard error is left out: warnings and logs name files and lines, which are others in each process. So
are cards: they name the task that made them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from nbflow.engine.keys import digest
from nbflow.render import cards, preview

NOTHING = "nothing"
WIDTH = 200
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Display(msgspec.Struct, frozen=True):
    """One of the things that a cell shows: equal ones bear the same mark; `text` is what people read of it."""

    mark: str
    text: str


class ShownDifference(msgspec.Struct, frozen=True):
    """The `number`-th thing (from 1) that a cell shows, as two executions show it."""

    number: int
    plain: str
    flow: str


def displays_of(outputs: Iterable[Mapping[str, Any]]) -> list[Display]:
    """Return what a cell shows by its nbformat outputs."""
    shown: list[Display] = []
    printed: list[str] = []

    def end_of_text() -> None:
        text = "".join(printed)
        printed.clear()
        if text:
            shown.append(Display(digest(text), preview.clip(text.strip(), WIDTH)))

    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            if output["name"] == "stdout":
                printed.append("".join(output["text"]))
            continue
        end_of_text()
        if cards.NAME in (output.get("metadata") or {}):
            continue
        if kind == "error":
            text = f"{output['ename']}: {_COLOUR.sub('', output['evalue'])}"
            shown.append(Display(digest(text), preview.clip(text, WIDTH)))
        else:
            data = output["data"]
            text = "".join(data.get("text/plain", "")) or ", ".join(data)
            shown.append(Display(digest([kind, data]), preview.clip(text, WIDTH)))
    end_of_text()
    return shown


def differences(plain: Sequence[Display], flow: Sequence[Display]) -> list[ShownDifference]:
    """Return where two executions of a cell show something else."""
    return [
        ShownDifference(number, one.text if one else NOTHING, other.text if other else NOTHING)
        for number, (one, other) in enumerate(zip_longest(plain, flow), 1)
        if one is None or other is None or one.mark != other.mark
    ]
