"""Lists of past runs and of artifacts, as plain text and as HTML."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from nbflow.model import Frozen, Manifest, RunStatus, TaskView
from nbflow.render import html, preview

WIDTH = 64
"""Columns that a preview may take."""

STATUS_MARKS: dict[str, str] = {"running": "▸", "done": "✓", "failed": "✗", "cancelled": "■", "lost": "?"}


class ListedRun(Frozen, frozen=True):
    """A run as a list shows it."""

    flow: str
    run: str
    status: RunStatus
    started_at: float
    elapsed: float | None
    tasks: str
    tags: tuple[str, ...] = ()
    note: str = ""


def runs_text(rows: Sequence[ListedRun], now: float) -> str:
    """Return a line for each run; `rows` come newest first."""
    cells = [
        (f"{STATUS_MARKS[row.status]} {row.flow}/{row.run}", row.status, when(row.started_at, now),
         preview.duration(row.elapsed), row.tasks, " ".join(f"#{tag}" for tag in row.tags),
         preview.clip(row.note, WIDTH))
        for row in rows
    ]  # fmt: skip
    return "\n".join(preview.grid(cells)) if cells else "no runs"


def left_out(count: int) -> str:
    """Return how many runs a list leaves out because they are not of the whole flow, and how to see them."""
    return f"{count} more {'are' if count > 1 else 'is'} cells run by hand or part of a flow: --all lists them"


def runs_html(title: str, rows: Sequence[ListedRun], now: float) -> str:
    """Return a list of runs as a block of HTML."""
    heads = ("run", "status", "started", "time", "tasks", "tags", "note")
    body = [
        (html.tag("code", row.run), html.state(row.status, STATUS_MARKS[row.status]), when(row.started_at, now),
         preview.duration(row.elapsed), row.tasks, " ".join(row.tags), preview.clip(row.note, WIDTH))
        for row in rows
    ]  # fmt: skip
    head = html.tag("div", html.tag("b", title), html.filter_box(len(rows)), cls="nbflow-head")
    return html.block(head, html.table(heads, body, numbers=(3,)) if rows else "no runs")


def artifacts_text(artifacts: Iterable[Manifest]) -> str:
    """Return a line for each artifact, from what is known without loading it."""
    cells = [
        (f"  {one.name}", one.type, preview.shape(one.shape), preview.size(one.nbytes) if one.group >= 0 else "",
         preview.artifact(one, WIDTH))
        for one in artifacts
    ]  # fmt: skip
    return "\n".join(preview.grid(cells))


def artifacts_html(title: html.Html | str, artifacts: Iterable[Manifest], *below: object) -> str:
    """Return artifacts as a block of HTML, with what stands `below` them."""
    body = [artifact_cells(one) for one in artifacts]
    table = html.table(ARTIFACT_HEADS, body, numbers=(3,)) if body else ""
    return html.block(html.tag("div", title, html.filter_box(len(body)), cls="nbflow-head"), table, *below)


ARTIFACT_HEADS = ("artifact", "type", "shape", "size", "preview")


def artifact_cells(one: Manifest) -> tuple[object, ...]:
    """Return an artifact's row below `ARTIFACT_HEADS`."""
    return (
        html.tag("code", one.name), html.tag("code", one.type), preview.shape(one.shape),
        preview.size(one.nbytes) if one.group >= 0 else "", html.tag("code", preview.artifact(one, WIDTH)),
    )  # fmt: skip


def summary(view: TaskView, cells: Mapping[str, int]) -> str:
    """Return the time that a task took and why, or its error, as they stand behind its state."""
    why = preview.failure(view.failure, cells) if view.failure is not None else preview.reasons(view.reasons)
    words = ", ".join(part for part in (preview.duration(view.elapsed), why) if part)
    return f", {words}" if words else ""


def when(at: float, now: float) -> str:
    """Return how long ago a time was, or its date; both in seconds since 1970."""
    if now - at < 36 * 3600:
        return preview.age(max(0.0, now - at))
    return date(at)


def date(at: float) -> str:
    """Return a time, in seconds since 1970, as people here write it, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
