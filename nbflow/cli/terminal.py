"""A run as it is watched from a terminal: a live table, plain lines where output goes elsewhere, or lines of JSON."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TextIO

from nbflow.errors import NbflowError
from nbflow.model import (
    SETTLED,
    Finding,
    FindingFound,
    Plan,
    RunEvent,
    RunStarted,
    Snapshot,
    TaskChanged,
    TaskId,
    TaskOutput,
)
from nbflow.render import json_lines, preview, sanitize, table
from nbflow.runs.printed import output_text

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

STYLES = {
    "done": "green",
    "reused": "green",
    "failed": "bold red",
    "lost": "bold red",
    "caught": "yellow",
    "cancelled": "yellow",
    "running": "cyan",
    "queued": "cyan",
    "pending": "dim",
    "skipped": "dim",
}
"""What sets colours in a terminal, and is left out where output goes elsewhere."""

FRAMES = 10.0
"""Drawings a second."""

Event = RunEvent | TaskOutput | None


@contextmanager
def lasting(out: IO[str]) -> Iterator[None]:
    """Write within the block; when whoever reads has gone, or nothing fits any more, the rest goes nowhere.

    `nbflow run NB | head -2` reads two lines and ends: what is being run goes on, and its exit code counts.
    """
    try:
        yield
    except OSError:
        with suppress(OSError, ValueError):  # no file of the system's
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, out.fileno())
            os.close(null)


def tell(text: str, out: IO[str] | None = None) -> None:
    """Write lines to standard output, or elsewhere, at once; control sequences of notebooks and stores are left out."""
    out = sys.stdout if out is None else out
    with lasting(out):
        print(sanitize.for_terminal(text), file=out, flush=True)


class Watcher(Protocol):
    """Whoever shows a run while it runs."""

    def __call__(self, snapshot: Snapshot, event: Event) -> None:
        """Take the run as it is now, and the event that made it so, from the runner's thread."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def watcher(as_json: bool, plan: Callable[[], Plan | None], imports: Callable[[], Sequence[str]]) -> Watcher:
    """Return who shows a run on standard output.

    `plan` gives what it would do, for the first line of JSON; `imports` the modules that its workers begin with.
    """
    if as_json:
        return JsonLines(sys.stdout, plan)
    if sys.stdout.isatty():
        from rich.console import Console  # here and below: imported only where a person watches

        return LiveTable(Console(), imports)
    return PlainLines(sys.stdout, imports)


class JsonLines:
    """One object a line and nothing else; the plan, if there is one, stands first, `finish` writes the summary."""

    def __init__(self, out: TextIO, plan: Callable[[], Plan | None]) -> None:
        self._out = out
        self._plan = plan()
        self._run: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, snapshot: Snapshot, event: Event) -> None:
        """Write the line of what happened."""
        if self._run is None:
            self._run = snapshot.run
            if self._plan is not None:
                self._write("plan", snapshot.started_at, json_lines.plan(self._plan))
            for finding in self._known:
                self._write("finding", snapshot.started_at, json_lines.finding(finding))
        if isinstance(event, TaskChanged):
            self._write("task", event.at, json_lines.task(event))
        elif isinstance(event, TaskOutput):
            self._write("output", event.at or time.time(), json_lines.output(event))
        elif isinstance(event, FindingFound) and event.finding not in self._known:
            self._write("finding", event.at, json_lines.finding(event.finding))

    @property
    def _known(self) -> tuple[Finding, ...]:
        """What was found before the run."""
        return self._plan.findings if self._plan is not None else ()

    def finish(self, snapshot: Snapshot, store: str) -> None:
        """Write the summary of a run that has ended as the last line."""
        self(snapshot, None)
        self._write("summary", snapshot.finished_at or time.time(), json_lines.summary(snapshot, store))

    def _write(self, kind: str, at: float, content: dict[str, Any]) -> None:
        tell(json_lines.line(kind, at, self._run, content), self._out)


class Pieces:
    """Pieces of what tasks print, put together to whole lines; what a carriage return overwrites is left out."""

    def __init__(self) -> None:
        self._open: dict[tuple[TaskId, str], str] = {}
        self._items: dict[TaskId, str] = {}

    def lines(self, snapshot: Snapshot, event: Event) -> list[tuple[str, str]]:
        """Return (task's name, line) for each line that is whole now: all of them once a task ends."""
        if isinstance(event, TaskOutput):
            # the traceback of a failed task is shown at the end, once
            untold = event.output.get("output_type") == "error" or _redrawn(event.output)
            text = "" if untold else output_text(event.output)
            key = (event.task, str(event.output.get("name", "")))
            *whole, rest = (self._open.pop(key, "") + text).split("\n")
            if rest:
                self._open[key] = rest
        elif isinstance(event, TaskChanged):
            self._items[event.task] = event.item
            if event.state not in SETTLED:
                return []
            whole = [self._open.pop(key) for key in list(self._open) if key[0] == event.task]
        else:
            return []
        name = task_name(snapshot, event.task, self._items.get(event.task, ""))
        return [(name, line.rstrip("\r").rpartition("\r")[2]) for line in whole]


def _redrawn(output: Mapping[str, Any]) -> bool:
    """Return whether a display is drawn again and again in one place, as lines cannot be."""
    return bool((output.get("transient") or {}).get("display_id")) or output.get("output_type") == "update_display_data"


class PlainLines:
    """One line for each change worth telling, for logs: starts, ends, findings, and the text that tasks print."""

    def __init__(self, out: TextIO, imports: Callable[[], Sequence[str]]) -> None:
        self._out = out
        self._pieces = Pieces()
        self._starting = Starting(imports)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, snapshot: Snapshot, event: Event) -> None:
        """Write a line where what happened is worth one."""
        for name, text in self._pieces.lines(snapshot, event):
            tell(f"    {name} | {text}", self._out)
        if isinstance(event, RunStarted):
            tell(f"{event.flow} · {event.run} · running", self._out)
        elif isinstance(event, TaskChanged):
            if self._starting.begins(event):
                tell(f"  {self._starting.line}", self._out)
            if event.state not in ("pending", "queued") or any(code == "waiting" for code, _ in event.reasons):
                tell(task_line(snapshot, event), self._out)
        elif isinstance(event, FindingFound):
            for text in table.finding_text(event.finding, snapshot.cells):
                tell(text, self._out)


class Starting:
    """What a first run waits for while no task of it has begun: its workers import what the notebook does."""

    def __init__(self, imports: Callable[[], Sequence[str]]) -> None:
        self._imports = imports
        self.line = ""
        self._over = False

    def begins(self, event: TaskChanged) -> bool:
        """Take the next event; return whether workers are started from now on. It ends with the first that works."""
        if event.state == "running":
            self._over, self.line = True, ""
        if event.state != "queued" or self._over or self.line:
            return False
        names = sorted({name.partition(".")[0] for name in self._imports()} - sys.stdlib_module_names)
        self.line = f"starting workers (importing {', '.join(names)})…" if names else "starting workers…"
        return True


class LiveTable:
    """The table of steps drawn in place, ten times a second; what tasks print scrolls by above it."""

    def __init__(self, console: Console, imports: Callable[[], Sequence[str]]) -> None:
        from rich.live import Live

        self._starting = Starting(imports)
        self._console = console
        self._seen: Snapshot | None = None
        self._live = Live(console=console, refresh_per_second=FRAMES, transient=True, get_renderable=self._draw)
        self._pieces = Pieces()
        self._lines: list[tuple[str, str]] = []
        self._printed = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._print()
        with lasting(self._live.console.file):
            self._live.stop()

    def __call__(self, snapshot: Snapshot, event: Event) -> None:
        """Keep the run as it is now; it is drawn the next time that it is due."""
        self._seen = snapshot
        self._lines += self._pieces.lines(snapshot, event)
        if isinstance(event, TaskChanged):
            self._starting.begins(event)
        if time.monotonic() - self._printed >= 1 / FRAMES:
            self._print()

    def _draw(self) -> RenderableType:
        seen = self._seen
        return "" if seen is None else rich_table(seen, time.time(), self._console.height, self._starting.line)

    def _print(self) -> None:
        """Write the lines that have gathered, all at once: one by one they would take longer than the tasks."""
        from rich.text import Text

        self._printed = time.monotonic()
        whole = Text()
        for name, text in self._lines:
            line = sanitize.for_terminal(text)
            whole.append(f"{name} │ ", "dim")
            whole.append_text(Text.from_ansi(line)) if "\x1b" in line else whole.append(line)
            whole.append("\n")
        self._lines.clear()
        if whole:
            with lasting(self._live.console.file):
                self._live.console.print(whole, end="", soft_wrap=True)


def rich_table(snapshot: Snapshot, now: float, height: int, below: str = "") -> Group:
    """Return the table of a run that fits a screen of so many lines: settled steps give way first; and a line below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = list(table.rows(snapshot, now))
    room = max(4, height - 5)
    left_out = 0
    if len(rows) > room:
        busy = [row for row in rows if row.state in ("failed", "running", "queued", "caught")]
        rest = [row for row in rows if row not in busy]
        names = {row.step for row in (busy + rest)[: room - 1]}
        left_out = len(rows) - len(names)
        rows = [row for row in rows if row.step in names]
    grid = Table(box=None, pad_edge=False)
    for heading in ("step", "state", "tasks", "time"):
        grid.add_column(heading, header_style="dim", no_wrap=True, justify="right" if heading == "time" else "left")
    grid.add_column("why", header_style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        style = STYLES.get(row.state, "")
        # Text, not markup: names and messages are the user's
        grid.add_row(
            Text(f"{preview.mark(row.state)} {sanitize.plain(row.label)}", style=style),
            Text(row.state, style=style),
            Text(row.count),
            Text(preview.duration(row.elapsed)),
            Text(sanitize.plain(row.note)),
        )
    if left_out:
        grid.add_row(Text(f"  and {left_out} more", style="dim"))
    title = Text(sanitize.plain(table.title(snapshot, now)), style="bold", no_wrap=True, overflow="ellipsis")
    return Group(title, grid, *([Text(f"  {below}", style="dim")] if below else []))


def task_name(snapshot: Snapshot, task: TaskId, item: str) -> str:
    """Return a task's name: `train`, or `train/2 depth=4` inside a fan-out."""
    label = snapshot.labels.get(task.step) or task.step
    if not task.index:
        return label
    return f"{label}/{preview.index(task.index)} {preview.item(snapshot.loops.get(task.step, ''), item)}".rstrip()


def task_line(snapshot: Snapshot, event: TaskChanged) -> str:
    """Return a task's change as `  ✓ train  done  3.2 s  why`."""
    parts = [f"  {preview.mark(event.state)} {task_name(snapshot, event.task, event.item)}", event.state]
    if event.attempt > 1:
        parts.append(f"attempt {event.attempt}")
    if event.elapsed is not None and event.state != "running":
        parts.append(preview.duration(event.elapsed))
    if event.failure is not None and event.failure.kind != "cancelled":
        parts.append(preview.failure(event.failure, snapshot.cells))
    elif event.state != "done":
        parts.append(preview.reasons(reason for reason in event.reasons if reason[0] != "new"))
    return "  ".join(part for part in parts if part)


def show_error(error: NbflowError) -> None:
    """Write a user's error to standard error: `error: WHAT`, `  where: …` and `  fix: …`."""
    tell("\n".join(error.report()), sys.stderr)


def show_failures(snapshot: Snapshot) -> None:
    """Write the traceback of each failed task to standard error, the user's cell first."""
    for view in snapshot.tasks:
        if view.state != "failed" or view.failure is None:
            continue
        failure = view.failure
        error = NbflowError(
            f"{task_name(snapshot, view.task, view.item)} failed: {failure.type}: {failure.message}",
            step=view.task.step,
            cell=preview.cell(failure.cell, snapshot.cells) or None,
            line=failure.line,
            fix=failure.fix,
        )
        if failure.traceback:
            tell(failure.traceback.rstrip(), sys.stderr)
        show_error(error)
