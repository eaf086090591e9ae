"""A flow and its runs → what a page draws from, as the messages hold it: pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from nbflow import plugins
from nbflow.analysis.lines import header_of
from nbflow.flow.options import header_words
from nbflow.flow.parameters import default_text
from nbflow.flow.spans import steps_of_rows
from nbflow.model import SETTLED, Cell, Edge, Finding, Flow, Frozen, Parameter, Snapshot, Step, TaskFailure, TaskView
from nbflow.page import marks
from nbflow.page.marks import Marks
from nbflow.page.messages import (
    PROTOCOL,
    CellView,
    EdgeView,
    FailureView,
    FindingView,
    HeaderView,
    LayoutView,
    LineView,
    ParameterView,
    PlaceView,
    RunView,
    SnapshotMessage,
    StepView,
    TaskItem,
)
from nbflow.render import dag, preview, rows, table
from nbflow.render.layout import lay_out

NO_MARKS = Marks()
ITEMS = 100
"""Tasks of a step that are listed one by one."""
TRACEBACKS = 20
"""Failed steps whose traceback is sent along."""
TRACEBACK = 6000
TITLE = 48
BOX = 40.0
"""Pixels that a step's box in the graph is high; `drawing/graph.ts` writes two lines into it."""
NARROWEST, WIDEST = 96, 220
GAP = (20.0, 34.0)
FRAME = 8.0
"""Pixels around the graph, for borders that are thicker."""
LONGEST = 26
"""Columns of a step's label in its box."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_HEADING = re.compile(r"^#+\s+(.+)$", re.MULTILINE)


class PageRun(Frozen, frozen=True):
    """A run as a page sees it; `by_hand` marks the kernel's own run of single cells."""

    snapshot: Snapshot
    by_hand: bool = False


def page(
    flow: Flow, run: PageRun | None, hand: PageRun | None = None, *, order: str = "", busy: bool = False,
    planned: Marks = NO_MARKS,
) -> SnapshotMessage:  # fmt: skip
    """Return a snapshot message, without its place in the series, of a flow, its newest run and cells run by hand.

    A step's state is that of whatever ran it last; while the run is under way it is the run's. `busy` says that the run
    or a step by hand is under way; `planned` is what the newest plan says of steps.
    """
    further, flow = _further(flow), rows.of_flow(flow)
    under_way = run is not None and run.snapshot.status == "running"
    snapshots = [each.snapshot for each in (run, None if under_way else hand) if each is not None]
    runs = [_by_step(snapshot, flow) for snapshot in snapshots]
    steps = [_drawn(step, step.name, _newest(step.name, runs), begun=run is not None) for step in flow.steps]
    finished = (run.snapshot.finished_at or 0.0) if run is not None else 0.0
    for step in steps:
        ended = max(finished, (step["started_at"] or 0.0) + (step["elapsed"] or 0.0))
        marks.put(step, planned, running=under_way, until=ended)
    return _message(flow.name, run or hand, steps, flow, further, order=order, busy=busy, verified=planned.verified)


def past(flow: Flow, run: PageRun) -> SnapshotMessage:
    """Return an earlier run's own steps, with what the flow of today says of those that it still has."""
    further, flow = _further(flow), rows.of_flow(flow)
    today = {step.name: step for step in flow.steps}
    by_step = _by_step(run.snapshot, flow)
    steps = [_drawn(today.get(name), name, by_step[name], begun=True) for name in by_step]
    edges = rows.of_snapshot(run.snapshot).edges
    return _message(run.snapshot.flow, run, steps, flow, further, order="", busy=False, edges=edges,
                    verified=run.snapshot.verified)  # fmt: skip


def _message(
    name: str, run: PageRun | None, steps: list[StepView], flow: Flow, further: dict[str, str], *, order: str,
    busy: bool, verified: float, edges: Sequence[Edge] | None = None,
) -> SnapshotMessage:  # fmt: skip
    values = run.snapshot.parameters if run is not None else {}
    findings = list(flow.findings)
    if run is not None:
        findings += [finding for finding in run.snapshot.findings if finding not in findings]
    _limit_tracebacks(steps)
    flow_edges = flow.edges if edges is None else edges
    return SnapshotMessage(
        nbflow=PROTOCOL, kind="snapshot", session="", seq=0, now=0.0, flow=name, order=order, busy=busy, untrusted="",
        verified=verified or None, run=_run(run) if run is not None else None, steps=steps, workers=_workers(run, flow),
        edges=[_edge(edge) for edge in flow_edges],
        layout=_layout(
            tuple((step["name"], step["label"]) for step in steps), tuple((edge.frm, edge.to) for edge in flow_edges)
        ),
        parameters=[_parameter(parameter, values) for parameter in flow.parameters],
        findings=[_finding(finding) for finding in findings],
        cells=list(_declarable(flow)),
        headers=list(_headers(flow.notebook.cells)),
        exporters=plugins.names("exporters"),
        further=further,
    )  # fmt: skip


# ---------------------------------------------------------------- steps


def _further(flow: Flow) -> dict[str, str]:
    """Return the ids of the cells that steps have besides their first one, each with its step."""
    return {flow.step(name).cell: first for name, first in steps_of_rows(flow.steps).items()}


_Found = tuple[table.Row, list[TaskView]]


def _by_step(snapshot: Snapshot, flow: Flow) -> dict[str, _Found]:
    """Return the row and tasks of each step of a run; the flow says where its cells stand now."""
    snapshot = rows.of_snapshot(snapshot)
    snapshot = msgspec.structs.replace(snapshot, cells={**snapshot.cells, **flow.notebook.positions})
    tasks: dict[str, list[TaskView]] = {name: [] for name in snapshot.steps}
    for view in snapshot.tasks:
        tasks.setdefault(view.task.step, []).append(view)
    return {row.step: (row, tasks[row.step]) for row in table.rows(snapshot, fold=False)}


def _newest(name: str, runs: Sequence[Mapping[str, _Found]]) -> _Found | None:
    """Return what the run that ran a step last knows of it."""
    candidates = [run[name] for run in runs if name in run]
    ran = [candidate for candidate in candidates if any(view.state != "pending" for view in candidate[1])]
    ran.sort(key=lambda candidate: max((view.started_at or 0.0 for view in candidate[1]), default=0.0), reverse=True)
    return next(iter(ran or candidates), None)


def _drawn(step: Step | None, name: str, entry: _Found | None, *, begun: bool) -> StepView:
    """Return a step as it is drawn. Parameters are evaluated before a run has tasks."""
    row, tasks = entry or (table.Row(step=name, label=name, state="pending"), [])
    if begun and not tasks and step is not None and step.kind == "params":
        row = table.Row(step=name, label=name, state="done")
    return _view(step, row, tasks)


def _view(step: Step | None, row: table.Row, tasks: Sequence[TaskView]) -> StepView:
    settled = len({view.task.index for view in tasks if view.state in SETTLED})
    started = [view.started_at for view in tasks if view.started_at is not None]
    failed = next((view.failure for view in tasks if view.failure is not None and view.state == row.state), None)
    by_cell = row.step.startswith("cell:")
    return StepView(
        name=row.step,
        label=(step.label if step else "") or row.label,
        kind=step.kind if step else "cell" if by_cell else "step",
        cell=step.cell if step else "",
        position=step.position if step else 0,
        detail=dag.detail(step.options) if step else "",
        reads=list(step.reads) if step else [],
        writes=list(step.writes) if step else [],
        state=row.state,
        count=row.count,
        settled=settled,
        total=len({view.task.index for view in tasks}),
        started_at=min(started) if started else None,
        elapsed=row.elapsed,
        note=row.note,
        mark="",
        why="",
        failure=_failure(failed) if failed is not None else None,
        tasks=[_item(view, step) for view in sorted(tasks, key=_is_well)[:ITEMS]] if len(tasks) > 1 else [],
    )


def _is_well(view: TaskView) -> bool:
    """Return whether a task need not stand before the others of its step."""
    return view.state not in ("failed", "cancelled")


def _workers(run: PageRun | None, flow: Flow) -> dict[str, str]:
    """Return which processes run the tasks that are their step's only ones, as far as that is known."""
    steps = {step.name: step for step in flow.steps}
    alone = (view for view in (run.snapshot.tasks if run is not None else ()) if view.pid and not view.task.index)
    return {view.task.step: _worker(view, steps.get(view.task.step)) for view in alone}


def _worker(view: TaskView, step: Step | None) -> str:
    """Return which process runs a task, or has, and where; empty where that is not known."""
    place = f" on {step.options.on}" if step is not None and step.options.on else ""
    return f"process {view.pid}{place}" if view.pid else ""


def _item(view: TaskView, step: Step | None) -> TaskItem:
    note = preview.message(view.failure) if view.failure is not None else preview.reasons(view.reasons)
    return TaskItem(
        index=list(view.task.index), turn=view.task.turn, item=preview.clip(view.item, TITLE), state=view.state,
        attempt=view.attempt, started_at=view.started_at, elapsed=view.elapsed, worker=_worker(view, step),
        note=preview.clip(note, table.NOTE),
    )  # fmt: skip


def _failure(failure: TaskFailure) -> FailureView:
    text = _COLOUR.sub("", failure.traceback)
    return FailureView(
        type=failure.type, message=preview.clip(failure.message, 500),
        traceback=text if len(text) <= TRACEBACK else "…\n" + text[-TRACEBACK:],
        cell=failure.cell, line=failure.line, fix=failure.fix,
    )  # fmt: skip


def _limit_tracebacks(steps: Iterable[StepView]) -> None:
    failures = [step["failure"] for step in steps if step["failure"] is not None]
    for failure in failures[TRACEBACKS:]:
        failure["traceback"] = ""


# ---------------------------------------------------------------- the graph


@lru_cache(maxsize=8)  # most snapshots differ in states alone; those of a few past runs are looked at in turn
def _layout(labels: tuple[tuple[str, str], ...], edges: tuple[tuple[str, str], ...]) -> LayoutView:
    """Return where the graph's steps, in document order with their labels, and its edges stand."""
    texts = {name: preview.clip(label, LONGEST) for name, label in labels}
    widths = {name: _width(text) for name, text in texts.items()}
    layout = lay_out(list(texts), edges, widths, BOX, GAP)
    return LayoutView(
        width=_pixels(layout.width + 2 * FRAME),
        height=_pixels(layout.height + 2 * FRAME),
        box=BOX,
        places=[
            PlaceView(name=name, text=texts[name], x=_pixels(x + FRAME), y=_pixels(y + FRAME), width=widths[name])
            for name, (x, y) in layout.nodes.items()
        ],
        lines=[
            LineView(frm=frm, to=to, points=[[_pixels(x + FRAME), _pixels(y + FRAME)] for x, y in points])
            for (frm, to), points in layout.edges.items()
        ],
    )


def _pixels(number: float) -> float:
    """Return a number to a tenth, and without a fraction that is none: long messages are full of them."""
    tenths = round(number, 1)
    return int(tenths) if tenths.is_integer() else tenths


def _width(text: str) -> float:
    """Return the pixels that a box needs for a mark and a text, a little more than most fonts take."""
    return float(min(WIDEST, max(NARROWEST, math.ceil((preview.columns(text) + 2) * 7.2) + 38)))


# ---------------------------------------------------------------- the rest


def _run(shown: PageRun) -> RunView:
    snapshot = shown.snapshot
    return RunView(
        run=snapshot.run, status=snapshot.status, by_hand=shown.by_hand, started_at=snapshot.started_at,
        finished_at=snapshot.finished_at, error=snapshot.error, tags=list(snapshot.tags),
    )  # fmt: skip


def _edge(edge: Edge) -> EdgeView:
    return EdgeView(frm=edge.frm, to=edge.to, names=list(edge.names), why=edge.why)


def _parameter(parameter: Parameter, values: Mapping[str, str]) -> ParameterView:
    return ParameterView(
        name=parameter.name, annotation=parameter.annotation or "", default=default_text(parameter),
        help=parameter.help, value=values.get(parameter.name, ""),
    )  # fmt: skip


def _finding(finding: Finding) -> FindingView:
    return FindingView(
        level=finding.level, code=finding.code, message=finding.message, step=finding.step, cell=finding.cell,
        line=finding.line, fix=finding.fix,
    )  # fmt: skip


def _declarable(flow: Flow) -> Iterable[CellView]:
    """Yield a flow's plain cells, each with what it writes and a free name for a step."""
    taken = {step.name for step in flow.steps}
    for cell in flow.notebook.cells:
        if cell.kind != "plain" or not cell.source.strip():
            continue
        names = [
            name for name, bindings in flow.writers.items() if any(one.position == cell.position for one in bindings)
        ]
        yield CellView(
            id=cell.id, position=cell.position, title=_title(cell), names=names[:8], name=_free_name(cell, names, taken)
        )


def _headers(cells: Iterable[Cell]) -> Iterable[HeaderView]:
    """Yield what stands behind the names of steps on their lines, where anything does."""
    for cell in cells:
        if cell.kind != "step":
            continue
        header = header_of(cell.source.split("\n"))
        if header is None or header.line.startswith("#"):
            yield HeaderView(cell=cell.id, is_line=False, options=[], comment="")
            continue
        options = [list(pair) for pair in header_words(header.rest)[1]]
        comment = header.line[header.line.index(header.rest) + len(header.rest) :].strip()
        if options or comment:
            yield HeaderView(cell=cell.id, is_line=True, options=options, comment=comment)


def _title(cell: Cell) -> str:
    lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
    return preview.clip(next((line for line in lines if not line.startswith("#")), lines[0]), TITLE)


def _free_name(cell: Cell, names: Sequence[str], taken: set[str]) -> str:
    """Return a name for a step: from the heading above its cell, else from the first name that the cell writes."""
    heading = _HEADING.search(cell.markdown)
    words = re.findall(r"[a-z0-9]+", heading[1].lower()) if heading else []
    name = "_".join(words[:3]) if words and not words[0].isdigit() else next(iter(names), "step")
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
