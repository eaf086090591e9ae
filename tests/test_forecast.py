"""What a run would do, told before it does it: the plan's rows against what the run then does."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.notebook import document_of

CELLS = {
    "start": "%%step start\nn = 3\nbase = 10",
    "each": "%%step each --foreach i in range(n)\nm = i + 1",
    "inner": "%%step inner --foreach j in range(m)\nv = base + i + j",
    "close": "%%step close --join inner\nsums = sum(t.v for t in inputs)",
    "join": "%%step join --join each\ntotal = sum(t.sums for t in inputs)",
    "turns": "%%step turns --until k > 2\nk = globals().get('k', 0) + 1 if False else 3",
    "maybe": "%%step maybe --if total < 0\ntotal = 0",
    "end": "%%step end\nresult = total, k",
}


def write(folder: Path, **changed: str) -> Path:
    path = folder / "flow.ipynb"
    path.write_text(document_of({**CELLS, **changed}.items(), "flow"), encoding="utf-8")
    return path


@pytest.mark.running
def test_rows_are_what_the_run_does(tmp_path: Path) -> None:
    path, store = write(tmp_path), str(tmp_path / "store")
    rows = nbflow.plan(path, store=store).tasks
    assert [(row.step, row.index) for row in rows] == [
        ("start", ()), ("each", None), ("inner", None), ("close", None), ("join", ()), ("turns", ()), ("maybe", ()),
        ("end", ()),
    ]  # fmt: skip
    assert {row.action for row in rows} == {"run"}
    assert nbflow.run(path, store=store).successful
    for changed, runs in (
        ({}, set()),
        (
            {"close": "%%step close --join inner\nsums = 1 + sum(t.v for t in inputs)"},
            {"close", "join", "maybe", "end"},
        ),
        ({"start": "%%step start\nn = 4\nbase = 10"}, {step for step in CELLS if step != "turns"}),
    ):
        path = write(tmp_path, **changed)
        rows = nbflow.plan(path, store=store).tasks
        assert {row.step for row in rows if row.action == "run"} == runs
        run = nbflow.run(path, store=store)
        assert run.successful, run.error
        states = {(task.step, task.index): task.state for step in run.steps() for task in step.tasks}
        told = {(row.step, row.index): row.action for row in rows if row.index is not None}
        assert all(states[at] in ("reused", "skipped") for at, action in told.items() if action == "reuse")
    assert [row.index for row in nbflow.plan(path, store=store).tasks if row.step == "inner"][:3] == [
        (0, 0),
        (1, 0),
        (1, 1),
    ]
