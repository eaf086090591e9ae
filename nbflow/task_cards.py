"""Cards of past tasks, steps and runs, put together from what the datastore knows; nothing unpickles."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nbflow import card_parts as parts
from nbflow import plugins
from nbflow.card_parts import Drawn
from nbflow.cards import Card, TaskSeen, default_parts, made_cards, text_of_body
from nbflow.errors import NotFoundError
from nbflow.model import Artifact, Edge, Record, Snapshot, TaskView
from nbflow.render import dag, html, preview, table
from nbflow.stored_run import StoredRun

PATIENCE = 10.0
"""Seconds that a template of a plug-in may take."""
DRAWN_STEPS = 40
"""Steps of a flow that is drawn whole; of a larger one only a step's neighbours are."""
GATHERED = 200
"""Tasks whose cards stand in the card of their step or run."""

Outputs = Sequence[Mapping[str, Any]]


def card_of(past: StoredRun, view: TaskView, label: str, outputs: Outputs, template: str = "") -> Card:
    """A task and its outputs in; its card, or what a template makes of it, out; OptionError for an unknown template."""
    seen = seen_of(past, view, label, outputs)
    if template:
        drawn = _by_template(plugins.load("cards", template), seen)
    else:
        drawn = default_parts(seen, made_cards(outputs))
    return _card(seen, drawn)


def cards_of(past: StoredRun, view: TaskView, label: str, outputs: Outputs) -> dict[str, Card]:
    """A task and its outputs in; the cards that its code made, by name, out."""
    seen = seen_of(past, view, label, outputs)
    found = made_cards(outputs)
    return {name: _card(seen, [Drawn(html=body, text=text_of_body(body))], name) for name, body in found.items()}


def _card(seen: TaskSeen, drawn: Sequence[Drawn], name: str = "") -> Card:
    told = [name, f"{preview.mark(seen.state)} {seen.state}", preview.duration(seen.elapsed), f"{seen.flow}/{seen.run}"]
    subtitle = " · ".join(part for part in told if part)
    return Card(seen.name, drawn, step=seen.step, run=f"{seen.flow}/{seen.run}", subtitle=subtitle)


def _by_template(template: Any, seen: TaskSeen) -> list[Drawn]:
    """A plug-in's template and a task in; its parts out, or what went wrong, or that it takes too long."""
    answer: queue.SimpleQueue[list[Drawn]] = queue.SimpleQueue()

    def work() -> None:
        try:
            maker = template() if isinstance(template, type) else template
            answer.put([parts.component_of(part).drawn for part in maker.render(seen)])
        except Exception as error:  # a plug-in's code
            answer.put([parts.Error(error, title="the template failed").drawn])

    threading.Thread(target=work, name="nbflow-card", daemon=True).start()
    try:
        return answer.get(timeout=PATIENCE)
    except queue.Empty:
        return [parts.Error(f"the template has made no card in {PATIENCE:g} s").drawn]


# ---------------------------------------------------------------- what a card says of a task


def seen_of(past: StoredRun, view: TaskView, label: str, outputs: Outputs) -> TaskSeen:
    """A task and its outputs in; all that its card says of it out."""
    record = past.record(view)
    snapshot = past.snapshot
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
        dag=_drawing(snapshot, view.task.step),
    )  # fmt: skip


def _given(record: Record) -> dict[str, str]:
    """Parameters as people write them: in the parts of a key each has its digest behind it."""
    return {name: text.rpartition("#")[0] for name, text in record.parts.parameters.items()}


def _left(record: Record | None) -> tuple[Artifact, ...]:
    # `<random>` and its like are states that travel, not names of the user
    return tuple(record.artifacts[name] for name in sorted(record.artifacts) if name[0] != "<") if record else ()


def _around(snapshot: Snapshot, step: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    labels = snapshot.labels
    above = dict.fromkeys(labels.get(edge.frm) or edge.frm for edge in snapshot.edges if edge.to == step)
    below = dict.fromkeys(labels.get(edge.to) or edge.to for edge in snapshot.edges if edge.frm == step)
    return tuple(above), tuple(below)


def _inputs(past: StoredRun, snapshot: Snapshot, view: TaskView, record: Record | None) -> list[tuple[Artifact, str]]:
    """A task in; the artifacts that it read, each with the step that made it, out."""
    wanted = record.parts.inputs if record is not None else {}
    found: dict[str, tuple[Artifact, str]] = {}
    for edge in snapshot.edges:
        if edge.to != view.task.step:
            continue
        made = _record_above(past, snapshot, edge, view)
        for name in edge.names:
            artifact = made.artifacts.get(name) if made is not None else None
            if artifact is not None and (name not in found or artifact.content_id == wanted.get(name)):
                found[name] = (artifact, snapshot.labels.get(edge.frm) or edge.frm)
    return [found[name] for name in sorted(found)]


def _record_above(past: StoredRun, snapshot: Snapshot, edge: Edge, view: TaskView) -> Record | None:
    """An edge and the task that it leads to in; the record that it leads from: of the same item where there is one."""
    views = [one for one in snapshot.tasks if one.task.step == edge.frm]
    same = [one for one in views if view.task.index[: len(one.task.index)] == one.task.index]
    return next((record for one in reversed(same or views) if (record := past.record(one)) is not None), None)


def _drawing(snapshot: Snapshot, step: str) -> str:
    """A run and one of its steps in; the flow, or a large flow's part around the step, as SVG out."""
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


def gathered(past: StoredRun, title: str, views: Sequence[TaskView], outputs: Callable[[TaskView], Outputs]) -> Card:
    """Tasks of a run in; one card with all of theirs out: a table first, then each task's own."""
    snapshot = past.snapshot
    shown = views[:GATHERED]
    labels = snapshot.labels
    drawn = [Drawn(html=_overview(snapshot, views), text=table.summary(_counts(views)))]
    for view in shown:
        label = labels.get(view.task.step) or view.task.step
        seen = seen_of(past, view, label, outputs(view))
        content = default_parts(msgspec.structs.replace(seen, dag=""), made_cards(seen.outputs))
        told = f"{seen.name}{f' · {view.item}' if view.item else ''} · {view.state} {preview.duration(view.elapsed)}"
        drawn.append(parts.section(told.strip(), content, opened=len(shown) <= 1))
    if len(views) > len(shown):
        note = f"{len(views) - len(shown)} more tasks: `nbflow card {past.flow}/{past.run}/STEP/ITEM -o FILE`"
        drawn.append(Drawn(html=html.tag("p", note, cls="nbflow-note"), text=note))
    return Card(title, drawn, run=f"{past.flow}/{past.run}", subtitle=f"{past.flow}/{past.run} · {snapshot.status}")


def _counts(views: Iterable[TaskView]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for view in views:
        found[view.state] = found.get(view.state, 0) + 1
    return found


def _overview(snapshot: Snapshot, views: Sequence[TaskView]) -> str:
    """Tasks in; a table with a row for each out, the first of many."""
    labels = snapshot.labels
    body = [
        (html.marked(_name(labels.get(view.task.step) or view.task.step, view), view.state, preview.mark(view.state)),
         html.state(view.state), preview.clip(view.item, 60), preview.duration(view.elapsed),
         preview.clip(preview.failure(view.failure) if view.failure else preview.reasons(view.reasons), table.NOTE))
        for view in views[:GATHERED]
    ]  # fmt: skip
    return html.table(("task", "state", "item", "time", "why"), body, numbers=(3,))


def _name(label: str, view: TaskView) -> str:
    return f"{label}/{preview.index(view.task.index)}" if view.task.index else label


def of_step(past: StoredRun, step: str, outputs: Callable[[TaskView], Outputs]) -> Card:
    """A step's name in; the card of its only task, or one with the cards of all its items, out."""
    views = [view for view in past.snapshot.tasks if view.task.step == step]
    label = past.snapshot.labels.get(step) or step
    if not views:
        raise NotFoundError(f"step {step} has no task, and so no card")
    if len(views) == 1:
        return card_of(past, views[0], label, outputs(views[0]))
    return gathered(past, label, views, outputs)
