"""What a step's tasks print, while they print it: the last lines, folded once the step is over."""

from __future__ import annotations

from collections import deque

from nbflow.model import Index
from nbflow.render import html, preview, sanitize

KEPT = 300
"""Lines of a step that are kept; the store has them all."""
WIDEST = 2000
LIVE = 8
"""Lines that are shown of a step that runs."""
SHORT = 4
"""Lines that are not folded."""

Source = tuple[Index, str]
"""The place of a task in its fan-outs, and a stream's name."""


class Log:
    """The end of a step's log, from pieces of text that are added as they come."""

    def __init__(self) -> None:
        self._lines: deque[tuple[Index, str]] = deque(maxlen=KEPT)
        self._open: dict[Source, str] = {}  # lines that have not ended yet
        self._count = 0

    def add(self, source: Source, text: str) -> None:
        """Take the next piece of a task's stream."""
        whole = self._open.pop(source, "") + text
        *lines, rest = whole.replace("\r\n", "\n").split("\n")
        for line in lines[-KEPT:]:
            self._lines.append((source[0], sanitize.overwritten(line)[:WIDEST]))
        self._count += len(lines)
        if rest:
            # a progress bar writes its line again and again: only the last state counts
            start = rest.rstrip("\r").rfind("\r") + 1
            self._open[source] = rest[start:][-WIDEST:]

    def clear(self, index: Index) -> None:
        """Forget what a task has printed: it has cleared its output."""
        others = [line for line in self._lines if line[0] != index]
        self._count -= len(self._lines) - len(others)
        self._lines = deque(others, maxlen=KEPT)
        for source in [source for source in self._open if source[0] == index]:
            del self._open[source]

    def _shown(self, *, over: bool) -> list[str]:
        unended = [(source[0], sanitize.overwritten(text)) for source, text in self._open.items()]
        lines = [*self._lines, *unended]
        return [f"[{preview.index(index)}] {line}" if index else line for index, line in lines[0 if over else -LIVE :]]

    def text(self, step: str, *, over: bool) -> str:
        """Return `train │ line` for each line that is shown."""
        return "\n".join(f"{step} │ {sanitize.plain(line)}" for line in self._shown(over=over))

    @property
    def lines(self) -> str:
        """How many lines were printed, as words: `3 lines`."""
        whole = self._count + len(self._open)
        return f"{whole:,} line{'s' if whole != 1 else ''}"

    def body(self, way: str, *, over: bool = True) -> html.Html:
        """Return the lines that are shown as HTML; `way` is the command that prints all of them."""
        lines = self._shown(over=over)
        left_out = self._count + len(self._open) - len(lines)
        more = html.tag("div", f"{left_out:,} earlier lines: ", html.tag("code", way), cls="nbflow-dim")
        log = html.tag("pre", sanitize.coloured("\n".join(lines)), cls="nbflow-log")
        return html.join((more, log)) if over and left_out > 0 else log

    def as_html(self, label: str, way: str, *, over: bool) -> str:
        """Return the log as a block that a click unfolds; `way` is the command that prints all of it."""
        lines = self._shown(over=over)
        last = preview.clip(sanitize.plain(lines[-1]), 80) if lines and over and len(lines) > SHORT else ""
        head = html.tag(
            "summary", html.tag("b", label), " ", html.tag("span", f"printed {self.lines}", cls="nbflow-dim"),
            *([" ", html.tag("span", f"… {last}", cls="nbflow-dim nbflow-last")] if last else []),
        )  # fmt: skip
        opened = {} if over and len(lines) > SHORT else {"open": ""}
        return html.block(html.tag("details", head, self.body(way, over=over), cls="nbflow-folded", **opened))
