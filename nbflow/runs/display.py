"""Cards of past tasks, steps and runs, put together from what the datastore knows; nothing unpickles."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nbflow import jsonable, plugins
from nbflow.errors import NotFoundError
from nbflow.flow.notebook import document_of, read_document
from nbflow.flow.parameters import literal_of, literal_values
from nbflow.flow.tags import INJECTED
from nbflow.model import Edge, Flow, Manifest, Record, Snapshot, TaskView
from nbflow.render import components as parts
from nbflow.render import dag, html, listing, preview, rows, table
from nbflow.render.cards import Card, TaskSeen, default_parts, made_cards, text_of_body
from nbflow.render.components import Drawn
from nbflow.store.stored_run import StoredRun

PATIENCE = 10.0
"""Seconds that a template of a plug-in may take."""
DRAWN_STEPS = 40
"""Steps of a flow that is drawn whole; of a larger one only a step's neighbours are."""
GATHERED = 200
"""Tasks whose cards stand in the card of their step or run."""

Outputs = Sequence[Mapping[str, Any]]


def card_of(past: StoredRun, view: TaskView, label: str, outputs: Outputs, template: str = "") -> Card:
    """Return a task's card, or what a plug-in's template makes of it; raise OptionError for an unknown template."""
    content = seen_of(past, view, label, outputs)
    if template:
        pieces = _by_template(plugins.load("cards", template), content)
    else:
        pieces = default_parts(content, made_cards(outputs))
    return _card(content, pieces)


def cards_of(past: StoredRun, view: TaskView, label: str, outputs: Outputs) -> dict[str, Card]:
    """Return the cards that a task's code made, by name."""
    content = seen_of(past, view, label, outputs)
    bodies = made_cards(outputs)
    return {name: _card(content, [Drawn(html=body, text=text_of_body(body))], name) for name, body in bodies.items()}


def _card(content: TaskSeen, pieces: Sequence[Drawn], name: str = "") -> Card:
    words = [
        name,
        f"{preview.mark(content.state)} {content.state}",
        preview.duration(content.elapsed),
        f"{content.flow}/{content.run}",
    ]
    subtitle = " · ".join(part for part in words if part)
    return Card(content.name, pieces, step=content.step, run=f"{content.flow}/{content.run}", subtitle=subtitle)


def _by_template(template: Any, content: TaskSeen) -> list[Drawn]:
    """Return the parts that a template makes of a task, or one that says that it failed or takes too long."""
    answer: queue.SimpleQueue[list[Drawn]] = queue.SimpleQueue()

    def work() -> None:
        try:
            maker = template() if isinstance(template, type) else template
            answer.put([parts.component_of(part).drawn for part in maker.render(content)])
        except Exception as error:  # a plug-in's code
            answer.put([parts.Error(error, title="the template failed").drawn])

    threading.Thread(target=work, name="nbflow-card", daemon=True).start()
    try:
        return answer.get(timeout=PATIENCE)
    except queue.Empty:
        return [parts.Error(f"the template took longer than {PATIENCE:g} s").drawn]


# ---------------------------------------------------------------- what a card says of a task


def seen_of(past: StoredRun, view: TaskView, label: str, outputs: Outputs) -> TaskSeen:
    """Return all that a task's card says of it."""
    record = past.record(view)
    snapshot = rows.of_snapshot(past.snapshot)
    above, below = _around(snapshot, view.task.step)
    inputs = _inputs(past, snapshot, view, record)
    return TaskSeen(
        flow=past.flow, run=past.run, step=view.task.step, label=label, state=view.state, index=view.task.index,
        item=view.item, turn=view.task.turn, attempt=view.attempt, started_at=view.started_at,
        elapsed=view.elapsed if view.elapsed is not None or record is None else record.elapsed,
        reasons=view.reasons, reused_from=view.reused_from, failure=view.failure,
        parameters=_given(record) if record is not None else dict(past.started.parameters),
        inputs=tuple(one for one, _ in inputs), origins={one.name: step for one, step in inputs},
        artifacts=_left(record), outputs=tuple(dict(output) for output in outputs),
        source=record.source if record is not None else "", above=above, below=below,
        dag=_drawing(snapshot, view.task.step), cells=snapshot.cells,
    )  # fmt: skip


def _given(record: Record) -> dict[str, str]:
    """Return parameters as people write them: in the parts of a key each has its digest behind it."""
    return {name: text.rpartition("#")[0] for name, text in record.parts.parameters.items()}


def _left(record: Record | None) -> tuple[Manifest, ...]:
    # `<random>` and its like are states that travel, not names of the user
    return tuple(record.artifacts[name] for name in sorted(record.artifacts) if name[0] != "<") if record else ()


def _around(snapshot: Snapshot, step: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    labels = snapshot.labels
    above = dict.fromkeys(labels.get(edge.frm) or edge.frm for edge in snapshot.edges if edge.to == step)
    below = dict.fromkeys(labels.get(edge.to) or edge.to for edge in snapshot.edges if edge.frm == step)
    return tuple(above), tuple(below)


def _inputs(past: StoredRun, snapshot: Snapshot, view: TaskView, record: Record | None) -> list[tuple[Manifest, str]]:
    """Return the artifacts that a task read, each with the step that made it."""
    # Several edges may lead to one name, as where an `if` decides which step made it. The task's key holds the content
    # that it really read, so that this tells which of them it was.
    ids = record.parts.inputs if record is not None else {}
    artifacts: dict[str, tuple[Manifest, str]] = {}
    for edge in snapshot.edges:
        if edge.to != view.task.step:
            continue
        above = _record_above(past, snapshot, edge, view)
        for name in edge.names:
            artifact = above.artifacts.get(name) if above is not None else None
            if artifact is not None and (name not in artifacts or artifact.content_id == ids.get(name)):
                artifacts[name] = (artifact, snapshot.labels.get(edge.frm) or edge.frm)
    return [artifacts[name] for name in sorted(artifacts)]


def _record_above(past: StoredRun, snapshot: Snapshot, edge: Edge, view: TaskView) -> Record | None:
    """Return the record that an edge leads from: of the same item as the task, where there is one."""
    views = [above for above in snapshot.tasks if above.task.step == edge.frm]
    same = [above for above in views if view.task.index[: len(above.task.index)] == above.task.index]
    return next((record for above in reversed(same or views) if (record := past.record(above)) is not None), None)


def _drawing(snapshot: Snapshot, step: str) -> str:
    """Return a flow as SVG; of a large one only the part around a step."""
    graph = dag.of_snapshot(snapshot)
    nodes = graph.nodes
    if len(nodes) > DRAWN_STEPS:
        near = {step, *(e.frm for e in graph.edges if e.to == step), *(e.to for e in graph.edges if e.frm == step)}
        nodes = tuple(node for node in nodes if node.name in near)[:DRAWN_STEPS]
    names = {node.name for node in nodes}
    if len(names) < 2:
        return ""
    marked = tuple(msgspec.structs.replace(node, detail="this step") if node.name == step else node for node in nodes)
    edges = tuple(edge for edge in graph.edges if edge.frm in names and edge.to in names)
    return dag.svg(msgspec.structs.replace(graph, nodes=marked, edges=edges))


# ---------------------------------------------------------------- many tasks in one card


DISPLAYS = frozenset({"display_data", "execute_result"})


def report(past: StoredRun, outputs: Callable[[TaskView], Outputs]) -> Card:
    """Return the card of a whole run: its graph, who ran when, its tasks, what they showed."""
    snapshot = rows.of_snapshot(past.snapshot)
    labels = snapshot.labels
    above = []
    if graph := _drawing(snapshot, ""):
        drawing = html.tag("div", html.Html(graph), cls="nbflow-scroll")
        above.append(parts.section("Graph", [Drawn(html=drawing, text="")]))
    begun = [view for view in snapshot.tasks if view.started_at is not None]
    if len(begun) > 1:
        spans = sorted(
            (view.started_at or 0.0, _name(labels.get(view.task.step) or view.task.step, view), view.elapsed or 0.0)
            for view in begun
        )
        timeline = parts.Timeline((name, start, start + length) for start, name, length in spans)
        above.append(parts.section("Timeline", [timeline.drawn]))
    return gathered(past, past.flow, snapshot.tasks, outputs, above=above)


def gathered(
    past: StoredRun, title: str, views: Sequence[TaskView], outputs: Callable[[TaskView], Outputs],
    *, above: Sequence[Drawn] = (),
) -> Card:  # fmt: skip
    """Return one card for several tasks of a run: a table first, below what stands `above`, then each task's own card.

    Those of tasks that showed something, or failed, are open.
    """
    snapshot = past.snapshot
    first = views[:GATHERED]
    labels = snapshot.labels
    pieces = [*above, Drawn(html=_overview(snapshot, views), text=table.summary(_counts(views)))]
    for view in first:
        label = labels.get(view.task.step) or view.task.step
        content = seen_of(past, view, label, outputs(view))
        inner = default_parts(msgspec.structs.replace(content, dag=""), made_cards(content.outputs))
        heading = (
            f"{content.name}{f' · {view.item}' if view.item else ''} · {view.state} {preview.duration(view.elapsed)}"
        )
        telling = view.failure is not None or any(each.get("output_type") in DISPLAYS for each in content.outputs)
        pieces.append(parts.section(heading.strip(), inner, opened=telling or len(first) <= 1))
    if len(views) > len(first):
        note = f"{len(views) - len(first)} more tasks: `nbflow card {past.flow}/{past.run}/STEP/ITEM -o FILE`"
        pieces.append(Drawn(html=html.tag("p", note, cls="nbflow-note"), text=note))
    verified = f"verified {listing.date(snapshot.verified)}" if snapshot.verified else ""
    words = f"{past.flow}/{past.run}", snapshot.status, verified
    return Card(title, pieces, run=f"{past.flow}/{past.run}", subtitle=" · ".join(filter(None, words)))


def _counts(views: Iterable[TaskView]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for view in views:
        counts[view.state] = counts.get(view.state, 0) + 1
    return counts


def _why(snapshot: Snapshot, view: TaskView) -> str:
    return preview.failure(view.failure, snapshot.cells) if view.failure else preview.reasons(view.reasons)


def _overview(snapshot: Snapshot, views: Sequence[TaskView]) -> str:
    """Return a table with a row for each task; of many, only the first ones."""
    labels = snapshot.labels
    body = [
        (html.marked(_name(labels.get(view.task.step) or view.task.step, view), view.state, preview.mark(view.state)),
         html.state(view.state), preview.clip(view.item, 60), preview.duration(view.elapsed),
         preview.clip(_why(snapshot, view), table.NOTE))
        for view in views[:GATHERED]
    ]  # fmt: skip
    return html.table(("task", "state", "item", "time", "why"), body, numbers=(3,))


def _name(label: str, view: TaskView) -> str:
    return f"{label}/{preview.index(view.task.index)}" if view.task.index else label


def of_step(past: StoredRun, step: str, outputs: Callable[[TaskView], Outputs]) -> Card:
    """Return the card of a step's only task, or one with the cards of all its items."""
    views = step_views(past, step)
    label = past.snapshot.labels.get(step) or step
    if not views:
        raise NotFoundError(f"step {step} has no task, and so no card")
    if len(views) == 1:
        return card_of(past, views[0], label, outputs(views[0]))
    return gathered(past, label, views, outputs)


def step_views(past: StoredRun, step: str) -> list[TaskView]:
    """Return a step's tasks in item order, then turn; one stands for all of the step's cells."""
    now = past.snapshot
    if step not in now.rows.values():
        return past.tasks_of(step)
    return [view for view in rows.of_snapshot(now).tasks if view.task.step == step]


OPENED = 60
"""Tasks of a run whose artifacts are listed."""
VALUED = 300
"""Items of a step whose small values stand in the table."""
ROWS = 2000
COLUMNS = 6
PLAIN = frozenset({"int", "float", "bool", "str", "numpy.float64", "numpy.float32", "numpy.int64", "numpy.int32"})
"""Types whose preview is their value."""


def run_html(past: StoredRun) -> str:
    """Return a run's table, with parameters and artifacts folded below it."""
    snapshot = rows.of_snapshot(past.snapshot)
    below: list[html.Html] = []
    if snapshot.parameters:
        values = [(html.tag("code", name), html.tag("code", value)) for name, value in snapshot.parameters.items()]
        below.append(_folded("parameters", len(values), html.table(("name", "value"), values)))
    artifact_rows = []
    for view in [view for view in snapshot.tasks if view.state in ("done", "reused", "caught")][:OPENED]:
        name = f"{view.task.step}/{preview.index(view.task.index)}" if view.task.index else view.task.step
        artifact_rows += [(name, *listing.artifact_cells(artifact)) for artifact in _artifacts(past, view)]
    if artifact_rows:
        heads = ("step", *listing.ARTIFACT_HEADS)
        below.append(_folded("artifacts", len(artifact_rows), html.table(heads, artifact_rows, numbers=(4,))))
    return table.as_html(snapshot, time.time(), hints_of(past), below=below)


def _folded(title: str, count: int, content: html.Html) -> html.Html:
    summary = html.tag("summary", title, " ", html.tag("span", f"{count:,}", cls="nbflow-dim"))
    return html.tag("details", summary, content, cls="nbflow-folded")


def step_html(past: StoredRun, label: str, state: html.Html, views: Sequence[TaskView]) -> str:
    """Return a step's artifacts, or a row for each of its items with their values."""
    title, snapshot = html.join((html.tag("b", label), " ", state)), past.snapshot
    if len(views) == 1 and not views[0].task.index:
        summary = listing.summary(views[0], snapshot.cells)
        return listing.artifacts_html(
            html.join((title, html.tag("span", summary, cls="nbflow-dim"))), _artifacts(past, views[0])
        )
    values = [_values(past, view) for view in views[:VALUED]]
    # the loop's own variable stands in the column of values already
    telling = (
        name for view, shorts in zip(views, values, strict=False) for name in shorts if shorts[name] != view.item
    )
    names = list(dict.fromkeys(telling))[:COLUMNS]
    body = []
    for at, view in enumerate(views[:ROWS]):
        shorts = values[at] if at < len(values) else {}
        cells = [shorts.get(name, "") for name in names]
        body.append((
            preview.index(view.task.index), preview.clip(view.item, 60),
            "" if view.task.turn is None else str(view.task.turn), html.state(view.state, preview.mark(view.state)),
            preview.duration(view.elapsed), *cells,
            _why(snapshot, view),
        ))  # fmt: skip
    heads = ("item", "value", "turn", "state", "time", *names, "why")
    head = html.tag("div", title, html.filter_box(len(body)), cls="nbflow-head")
    more = [html.tag("div", f"and {len(views) - ROWS:,} more", cls="nbflow-dim")] if len(views) > ROWS else []
    return html.block(head, html.table(heads, body, numbers=(4, *range(5, 5 + len(names)))), *more)


def _artifacts(past: StoredRun, view: TaskView) -> list[Manifest]:
    """Return what a task left, without the states that travel beside names."""
    return list(_left(past.record(view)))


def _values(past: StoredRun, view: TaskView) -> dict[str, str]:
    return {artifact.name: _short(artifact.preview) for artifact in _artifacts(past, view) if artifact.type in PLAIN}


def _short(value: str) -> str:
    """Return the text of a value in few columns, numbers to six digits."""
    try:
        return value if len(value) <= 10 else f"{float(value):.6g}"
    except ValueError:
        return preview.clip(value, 24)


def hints_of(run: StoredRun) -> table.RunHints:
    """Return what tables say of a run besides its state: the file that links to failed cells lead into."""
    return table.RunHints(notebook=Path(run.started.notebook or "").name)


def document_with(run: StoredRun, flow: Flow, shown: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return a run's notebook as JSON, its cells with the outputs that are given by step."""
    text = run.document
    if not text.lstrip().startswith("{"):  # percent format
        text = document_of(((cell.id, cell.source) for cell in flow.notebook.cells), flow.notebook.name)
    document = read_document(text, run.flow)
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    named = {step.cell: step.name for step in flow.steps}
    for declared, cell in zip(flow.notebook.cells, cells, strict=False):
        cell["outputs"] = [_saved(output) for output in shown.get(named.get(declared.id, ""), ())]
        cell["execution_count"] = None
    given = _changed(run.started.parameters, flow)
    if given:
        last = max(each.position for each in flow.notebook.cells if each.kind == "params")
        _inject(document["cells"], cells[last - 1], given)
    return jsonable.text(json.dumps(document, indent=1, ensure_ascii=False)) + "\n"


def _changed(parameters: Mapping[str, str], flow: Flow) -> dict[str, str]:
    """Return the source of each parameter's value that is not the notebook's own, as far as JSON can express it."""
    given = {}
    for parameter in flow.parameters:
        try:
            value = json.loads(parameters[parameter.name])
        except (KeyError, ValueError):
            continue
        if repr(value) != parameter.default and value != literal_of(parameter.default):
            given[parameter.name] = repr(value)
    return given


def _inject(cells: list[dict[str, Any]], below: dict[str, Any], given: Mapping[str, str]) -> None:
    """Put a cell with the values of a run's parameters below the last cell that declares some, as papermill does.

    It takes the place of the one that an earlier run has left, and keeps what that says of other parameters.
    """
    earlier = [cell for cell in cells if INJECTED in cell["metadata"].get("tags", ())]
    for cell in earlier:
        given = {name: repr(value) for name, value in (literal_values(cell["source"]) or {}).items()} | dict(given)
    lines = "".join(f"{name} = {source}\n" for name, source in given.items())
    injected: dict[str, Any] = {
        "cell_type": "code", "execution_count": None, "metadata": {"tags": [INJECTED]}, "outputs": [],
        "source": f"# Parameters\n{lines}",
    }  # fmt: skip
    if "id" in below:
        injected["id"] = uuid.uuid4().hex[:8]
    cells.insert(next(at for at, cell in enumerate(cells) if cell is below) + 1, injected)
    for cell in earlier:
        cells.remove(cell)


def _saved(output: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output as a saved notebook holds it."""
    saved = {name: value for name, value in output.items() if name != "transient"}
    if saved["output_type"] == "execute_result":
        saved["execution_count"] = None
    if saved["output_type"] in ("execute_result", "display_data"):
        saved.setdefault("metadata", {})
    return saved


def artifact_text(manifest: Manifest) -> str:
    """Return one line of what is known of an artifact without loading it, and why it was not stored."""
    parts = [manifest.name, manifest.type, preview.shape(manifest.shape)]
    parts.append(preview.size(manifest.nbytes) if manifest.group >= 0 else preview.artifact(manifest, 200))
    return "  ".join(part for part in parts if part)


def facts_text(params: Mapping[str, str], tags: Iterable[str], metadata: Mapping[str, Any]) -> str:
    """Return a line for each of a run's parameters, as they look, its tags and its metadata."""
    facts = {
        "parameters": ", ".join(f"{name} = {preview.clip(text, 40)}" for name, text in params.items()),
        "tags": ", ".join(tags),
        "notebook": metadata.get("notebook"),
        "by": "@".join(filter(None, (metadata.get("user"), metadata.get("host")))),
        "commit": metadata.get("commit"),
        "resumes": metadata.get("origin"),
        "verified": listing.date(metadata["verified"]) if metadata.get("verified") else "",
    }
    return "\n".join(preview.grid((f"  {name}", str(value)) for name, value in facts.items() if value))
