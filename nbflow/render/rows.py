"""Nodes of a flow → rows as people read them: the cells of one step are one row. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from nbflow.flow.spans import cells_of, steps_of_rows
from nbflow.model import SETTLED, WORST_FIRST, Edge, Flow, Index, PlanTask, Snapshot, Step, TaskId, TaskState, TaskView


def of_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return a run with one task for all cells of a step in one place, and one step for all of them."""
    if not snapshot.rows:
        return snapshot
    rows = snapshot.rows
    tasks: dict[TaskId, list[TaskView]] = {}
    for view in snapshot.tasks:
        step = rows.get(view.task.step, view.task.step)
        tasks.setdefault(msgspec.structs.replace(view.task, step=step), []).append(view)
    return msgspec.structs.replace(
        snapshot, rows={}, steps=tuple(name for name in snapshot.steps if name not in rows),
        tasks=tuple(_of_views(task, views) for task, views in tasks.items()), edges=_edges(snapshot.edges, rows),
    )  # fmt: skip


def _of_views(task: TaskId, views: Sequence[TaskView]) -> TaskView:
    """Return one task for those of a step's cells in one place: the worst state, all their time, why they ran."""
    if len(views) == 1:
        return views[0]
    state = _state([view.state for view in views])
    started = [view.started_at for view in views if view.started_at is not None]
    times = [view.elapsed for view in views if view.elapsed is not None]
    told = [view for view in views if view.state != "reused"] or views[:1]
    return msgspec.structs.replace(
        views[0], task=task, cells=tuple(views), state=state, attempt=max(view.attempt for view in views),
        started_at=min(started, default=None), elapsed=sum(times) if times else None,
        reasons=tuple(dict.fromkeys(reason for view in told for reason in view.reasons)),
        failure=next((view.failure for view in views if view.failure is not None), None),
        reused_from=views[0].reused_from if state == "reused" else None,
        execution=views[-1].execution, key=views[-1].key,
    )  # fmt: skip


def _state(states: Sequence[TaskState]) -> TaskState:
    """Return the worst of the states of a step's cells; one whose first cells are over, and others not, runs."""
    state = next(each for each in WORST_FIRST if each in states)
    over = any(each in SETTLED and each != "reused" for each in states)
    return "running" if state in ("queued", "pending") and over else state


def of_flow(flow: Flow) -> Flow:
    """Return a flow with one step for all cells of a step, for people to look at: nothing can be run from it."""
    rows = steps_of_rows(flow.steps)
    if not rows:
        return flow
    steps = tuple(_whole(flow, step) for step in flow.steps if step.name not in rows)
    return msgspec.structs.replace(flow, steps=steps, edges=_edges(flow.edges, rows))


def _whole(flow: Flow, step: Step) -> Step:
    """Return a step with what its further cells read and write."""
    cells = [flow.step(name) for name in cells_of(flow.steps, step.name)]
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    for cell in cells:
        reads.update((name, None) for name in cell.reads if name not in writes)
        writes.update(dict.fromkeys(cell.writes))
    needs = {name for cell in cells for name in cell.needs} - {cell.name for cell in cells}
    return msgspec.structs.replace(
        step, reads=tuple(sorted(reads)), writes=tuple(sorted(writes)), needs=tuple(sorted(needs))
    )


def of_plan(tasks: Iterable[PlanTask], steps: Iterable[Step]) -> tuple[PlanTask, ...]:
    """Return a plan's tasks, one for all cells of a step in one place: it runs where any of them would."""
    rows = steps_of_rows(steps)
    places: dict[tuple[str, Index | None], list[PlanTask]] = {}
    for task in tasks:
        places.setdefault((rows.get(task.step, task.step), task.index), []).append(task)
    return tuple(_planned(step, each) for (step, _), each in places.items())


def _planned(step: str, tasks: Sequence[PlanTask]) -> PlanTask:
    told = [task for task in tasks if task.action == "run"] or tasks[:1]
    reasons = dict.fromkeys(reason for task in told for reason in task.reasons)
    return msgspec.structs.replace(told[0], step=step, reasons=tuple(reasons))


def _edges(edges: Iterable[Edge], rows: Mapping[str, str]) -> tuple[Edge, ...]:
    """Return edges between rows, one for each pair and kind."""
    names: dict[tuple[str, str, str], dict[str, None]] = {}
    for edge in edges:
        frm, to = rows.get(edge.frm, edge.frm), rows.get(edge.to, edge.to)
        if frm != to:
            names.setdefault((frm, to, edge.why), {}).update(dict.fromkeys(edge.names))
    reads = {(frm, to) for frm, to, why in names if why == "reads"}
    return tuple(
        Edge(frm=frm, to=to, names=tuple(sorted(each)), why=why)
        for (frm, to, why), each in names.items() if why == "reads" or (frm, to) not in reads
    )  # fmt: skip
