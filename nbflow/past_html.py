"""Past runs and steps as notebooks show them: tables with filters, previews from manifests; nothing unpickles."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbflow import jsonable
from nbflow.earlier import graph_of
from nbflow.errors import NbflowError
from nbflow.model import Artifact, TaskView
from nbflow.notebook import document_of, parse_document, read_document
from nbflow.render import html, listing, preview, table
from nbflow.stored_run import StoredRun

OPENED = 60
"""Tasks of a run whose artifacts are listed."""
VALUED = 300
"""Items of a step whose small values stand in the table."""
ROWS = 2000
COLUMNS = 6
PLAIN = frozenset({"int", "float", "bool", "str", "numpy.float64", "numpy.float32", "numpy.int64", "numpy.int32"})
"""Types whose preview is their value."""


def run_html(past: StoredRun) -> str:
    """A run in; its table, with parameters and artifacts folded below it, out."""
    snapshot = past.snapshot
    below: list[html.Html] = []
    if snapshot.parameters:
        rows = [(html.tag("code", name), html.tag("code", value)) for name, value in snapshot.parameters.items()]
        below.append(_folded("parameters", len(rows), html.table(("name", "value"), rows)))
    listed = []
    for view in [view for view in snapshot.tasks if view.state in ("done", "reused", "caught")][:OPENED]:
        name = f"{view.task.step}/{preview.index(view.task.index)}" if view.task.index else view.task.step
        listed += [(name, *listing.artifact_cells(one)) for one in _artifacts(past, view)]
    if listed:
        heads = ("step", *listing.ARTIFACT_HEADS)
        below.append(_folded("artifacts", len(listed), html.table(heads, listed, numbers=(4,))))
    return table.as_html(snapshot, time.time(), cells_of(past), below=below)


def _folded(title: str, count: int, content: html.Html) -> html.Html:
    summary = html.tag("summary", title, " ", html.tag("span", f"{count:,}", cls="nbflow-dim"))
    return html.tag("details", summary, content, cls="nbflow-folded")


def step_html(past: StoredRun, label: str, state: html.Html, views: Sequence[TaskView]) -> str:
    """A step's name, state and tasks in; its artifacts, or a row for each of its items with their values, out."""
    title = html.join((html.tag("b", label), " ", state))
    if len(views) == 1 and not views[0].task.index:
        told = listing.summary(views[0])
        return listing.artifacts_html(
            html.join((title, html.tag("span", told, cls="nbflow-dim"))), _artifacts(past, views[0])
        )
    values = [_values(past, view) for view in views[:VALUED]]
    # the loop's own variable stands in the column of values already
    telling = (name for view, found in zip(views, values, strict=False) for name in found if found[name] != view.item)
    names = list(dict.fromkeys(telling))[:COLUMNS]
    body = []
    for at, view in enumerate(views[:ROWS]):
        found = values[at] if at < len(values) else {}
        cells = [found.get(name, "") for name in names]
        body.append((
            preview.index(view.task.index), preview.clip(view.item, 60),
            "" if view.task.turn is None else str(view.task.turn), html.state(view.state, preview.mark(view.state)),
            preview.duration(view.elapsed), *cells,
            preview.failure(view.failure) if view.failure else preview.reasons(view.reasons),
        ))  # fmt: skip
    heads = ("item", "value", "turn", "state", "time", *names, "why")
    head = html.tag("div", title, html.filter_box(len(body)), cls="nbflow-head")
    more = [html.tag("div", f"and {len(views) - ROWS:,} more", cls="nbflow-dim")] if len(views) > ROWS else []
    return html.block(head, html.table(heads, body, numbers=(4, *range(5, 5 + len(names)))), *more)


def _artifacts(past: StoredRun, view: TaskView) -> list[Artifact]:
    """A task in; what it left, without the states that travel beside names, out."""
    record = past.record(view)
    return [record.artifacts[name] for name in sorted(record.artifacts) if name[0] != "<"] if record else []


def _values(past: StoredRun, view: TaskView) -> dict[str, str]:
    return {one.name: _short(one.preview) for one in _artifacts(past, view) if one.type in PLAIN}


def _short(value: str) -> str:
    """A value as text in; it in few columns out, numbers to six digits."""
    try:
        return value if len(value) <= 10 else f"{float(value):.6g}"
    except ValueError:
        return preview.clip(value, 24)


def cells_of(run: StoredRun) -> table.Known:
    """Return where a run's cells stand, if something failed in it: only then tables say it."""
    if not any(view.failure is not None for view in run.snapshot.tasks):
        return table.NOTHING
    path = run.started.notebook or ""
    try:
        notebook = parse_document(run.document, name=run.flow, folder=run.started.folder, path=path)
    except NbflowError:  # it is damaged: the table says the cells' ids
        return table.NOTHING
    return table.Known(cells={cell.id: cell.position for cell in notebook.cells}, notebook=Path(path).name)


def document_with(run: StoredRun, shown: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return a run's notebook as JSON, its cells with the outputs that are given by step."""
    flow, text = graph_of(run), run.document
    if not text.lstrip().startswith("{"):  # percent format
        text = document_of(((cell.id, cell.source) for cell in flow.notebook.cells), flow.notebook.name)
    document = read_document(text, run.flow)
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    named = {step.cell: step.name for step in flow.steps}
    for known, cell in zip(flow.notebook.cells, cells, strict=False):
        cell["outputs"] = [_saved(output) for output in shown.get(named.get(known.id, ""), ())]
        cell["execution_count"] = None
    return jsonable.text(json.dumps(document, indent=1, ensure_ascii=False)) + "\n"


def _saved(output: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output as a saved notebook holds it."""
    saved = {name: value for name, value in output.items() if name != "transient"}
    if saved["output_type"] == "execute_result":
        saved["execution_count"] = None
    if saved["output_type"] in ("execute_result", "display_data"):
        saved.setdefault("metadata", {})
    return saved
