"""Flows and runs at chosen moments, as the kernel sends them to a page: what the drawing is tested with."""

from __future__ import annotations

import time
from typing import Any

from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Finding, Flow, Snapshot, TaskFailure, TaskId, TaskView
from nbflow.page.snapshot import PageRun, page

DIGITS = [
    "import time\nfrom math import sqrt",
    "%%params\nrate: float = 0.1  # how fast it learns\ndepth: int = 4\nname: str = 'digits'\nquick: bool = False",
    "%%step load\nraw = list(range(1000))\nlabels = [n % 10 for n in raw]",
    "%%step clean --after load\nrows = [n * rate for n in raw]",
    "%%step features\nX = [sqrt(n) for n in rows]\nmeans = sum(X) / len(X)",
    "%%step train --foreach size in [2, 4, 8, 16]\nmodel = (size, depth, X, labels)\nscore = sum(X) / size",
    "%%step pick --join train\nbest = max(inputs, key=lambda one: one.score)",
    "summary = str(best)[:40]",
    "%%step report --retry 2\ntext = f'{summary}: {means}'\nprint(text)",
]


def digits() -> Flow:
    """The flow that most screenshots show: nine cells, seven steps, one of them a plain cell, a foreach of four."""
    return flow_of(DIGITS, "digits")


def flow_of(sources: list[str], name: str) -> Flow:
    """Sources of code cells in; their flow out."""
    cells = [RawCell(f"c{number}", source, ()) for number, source in enumerate(sources, start=1)]
    return build_flow(parse_cells(cells, name=name, folder="."))


def long_flow(steps: int) -> Flow:
    """A flow of that many steps in branches of eight."""
    sources = ["%%step start\nv0 = 1"]
    for number in range(1, steps):
        reads = [number - 1] if number % 8 else [number - 8]
        if number % 24 == 0:
            reads.append(max(0, number - 1))
        sources.append(f"%%step stage_{number:04d}\nv{number} = {' + '.join(f'v{one}' for one in reads)} + 1")
    return flow_of(sources, "long")


FAILURE = TaskFailure(
    type="ZeroDivisionError", message="division by zero", cell="c6", line=3, fix="the item size=0 divides by it",
    traceback="Traceback (most recent call last):\n  cell 6, line 3\n    score = sum(X) / size\nZeroDivisionError: …",
)  # fmt: skip


def moment(flow: Flow, states: dict[str, Any], *, status: str = "running", started: float = 12.0, seq: int = 1) -> Any:
    """A flow and its steps' states (a list of them for a foreach) in; the message at that moment out."""
    now = time.time()
    tasks = []
    for step in flow.steps:
        found = states.get(step.name, "pending")
        many = isinstance(found, list)
        for number, state in enumerate(found if many else [found]):
            tasks.append(TaskView(
                task=TaskId(step=step.name, index=(number,) if many else ()), state=state,
                started_at=now - 4.0 if state not in ("pending", "queued", "reused") else None,
                elapsed={"done": 1.234, "failed": 0.4, "reused": 0.012}.get(state),
                reasons=(("reused", "from 20261122-101500-a1b2c3, 3 h old"),) if state == "reused" else (),
                failure=FAILURE if state == "failed" else None,
                item=f"size={2 ** (number + 1)}" if many else "",
            ))  # fmt: skip
    snapshot = Snapshot(
        run="20261123-014500-3f9a2c", flow=flow.name, status=status, started_at=now - started,
        finished_at=None if status == "running" else now, steps=tuple(step.name for step in flow.steps),
        labels={step.name: step.label for step in flow.steps}, tasks=tuple(tasks), edges=flow.edges,
        parameters={"rate": "0.2"}, findings=(),
    )  # fmt: skip
    message = page(flow, PageRun(snapshot=snapshot), order="the cells in the front end", busy=status == "running")
    return {**message, "session": "recorded", "seq": seq, "now": now}


MID_RUN = {
    "cell:c2": "done", "params": "done", "load": "reused", "clean": "reused", "features": "done",
    "train": ["done", "done", "running", "queued"], "pick": "pending", "report": "pending",
}  # fmt: skip
FAILED = {**MID_RUN, "train": ["done", "failed", "done", "done"], "pick": "skipped", "report": "cancelled"}
NOTE = Finding(code="source-differs", level="note", cell="c4", message="the cell ran with another text", fix="save it")
