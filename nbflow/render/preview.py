"""Numbers, times and artifacts in the few words that a table has room for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

from nbflow.model import Index, Manifest, Reason, TaskFailure, TaskState

MARKS: dict[TaskState, str] = {
    "pending": "·",
    "queued": "○",
    "running": "▸",
    "done": "✓",
    "reused": "↺",
    "failed": "✗",
    "caught": "!",
    "skipped": "-",
    "cancelled": "■",
}
"""A state's mark: one column wide, of another shape for each state, so that colour is never needed."""


def mark(state: TaskState | None) -> str:
    """Return a state's one-column mark, a blank where no state is known."""
    return MARKS[state] if state else " "


def duration(seconds: float | None) -> str:
    """Return seconds as `12 ms`, `3.2 s`, `4 min 05 s` or `2 h 07 min`, an empty string for None."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def age(seconds: float) -> str:
    """Return how long ago something happened, from seconds: `just now`, `5 min ago`, `3 h ago` or `12 days ago`."""
    for limit, unit, word in ((90, 1, ""), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {word} ago" if word else "just now"
    return f"{seconds / 86400:.0f} days ago"


def size(nbytes: int) -> str:
    """Return a number of bytes as `17 B`, `4.2 kB` or `1.3 GB`, in powers of 1000."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def shape(dimensions: tuple[int, ...] | None) -> str:
    """Return an artifact's shape as `150 x 4`, an empty string for None."""
    return "" if dimensions is None else " x ".join(str(number) for number in dimensions)


def index(place: Index) -> str:
    """Return a task's place in its fan-outs as the command line takes it: `1` or `1.0`."""
    return ".".join(str(number) for number in place)


def item(variable: str, value: str) -> str:
    """Return a fan-out's item as `depth=4`, from its loop variable and its preview; empty where it is not known."""
    if not value:
        return ""
    return f"{variable}={clip(value, 40)}" if variable.isidentifier() else clip(value, 40)


def artifact(manifest: Manifest, width: int = 60) -> str:
    """Return an artifact's value in one line of at most `width` columns, or why it was not stored."""
    if manifest.group < 0:
        return clip(f"not stored: {manifest.error}" if manifest.error else "not stored", width)
    return clip(manifest.preview, width)


def reasons(codes: Iterable[Reason]) -> str:
    """Return the sentences of reasons to run or to reuse in one line."""
    return "; ".join(what or code for code, what in codes)


def failure(failed: TaskFailure, cells: Mapping[str, int] | None = None, width: int = 0) -> str:
    """Return a failure as `ValueError: its message (cell 4, line 2)`; `cells` are positions of cells by their ids.

    A message of more than `width` columns, if given, is cut, and not its place.
    """
    text, place = message(failed), where(failed, cells)
    text = clip(text, width) if width else text
    return f"{text} ({place})" if place else text


def message(failed: TaskFailure) -> str:
    """Return a failure's type and the first line of its message."""
    first = failed.message.strip().partition("\n")[0]
    return f"{failed.type}: {first}" if first else failed.type


def where(failed: TaskFailure, cells: Mapping[str, int] | None = None) -> str:
    """Return a failure's place as `cell 4, line 2`, empty where unknown; `cells` are their positions by ids."""
    place = cell(failed.cell, cells)
    return ", ".join(part for part in (place, f"line {failed.line}" if failed.line else "") if part)


def cell(identity: str | None, cells: Mapping[str, int] | None = None) -> str:
    """Return the words for a cell by its id or position; `cells` are positions of cells by their ids."""
    if not identity:
        return ""
    if cells and identity in cells:
        return f"cell {cells[identity]}"
    return identity if identity.startswith("cell") else f"cell {identity}"


def columns(text: str) -> int:
    """Return the columns that a text takes in a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def clip(text: str, width: int) -> str:
    """Return a text as one line of at most `width` columns, ended by `…` when something was left out."""
    return clip_line(" ".join(text.split()), width)


def clip_line(line: str, width: int) -> str:
    """Return at most `width` columns of a line, blanks as they are, ended by `…` when something was left out."""
    if columns(line) <= width:
        return line
    beginning = ""
    room = width - 1
    for char in line:
        room -= columns(char)
        if room < 0:
            break
        beginning += char
    return beginning.rstrip() + "…"


def pad(text: str, width: int) -> str:
    """Return a text filled with blanks to `width` columns."""
    return text + " " * (width - columns(text))


def grid(lines: Iterable[Iterable[str]], gap: str = "  ") -> list[str]:
    """Return rows as lines whose columns stand under each other, without columns that are empty."""
    rows = [list(line) for line in lines]
    if not rows:
        return []
    widths = [max(columns(row[number]) for row in rows) for number in range(len(rows[0]))]
    return [
        gap.join(pad(cell, width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in rows
    ]
