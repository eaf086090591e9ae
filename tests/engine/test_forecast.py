"""What a run would do, told before it does it: the plan's rows against what the run then does."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from tests.support.notebook_files import write_cells

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
    return write_cells(folder / "flow.ipynb", {**CELLS, **changed})


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


def told(path: Path, store: str, **wishes: object) -> dict[str, tuple[str, list[str]]]:
    """What the plan says of each step, its reasons in words; of a fan-out what it says of its first item."""
    rows = nbflow.plan(path, store=store, **wishes).tasks  # type: ignore[arg-type]
    return {row.step: (row.action, [what for _, what in row.reasons]) for row in reversed(rows)}


def flow(folder: Path, **cells: str) -> Path:
    return write_cells(folder / "flow.ipynb", cells)


REPEATED = {
    "no-cache": ({"a": "%%step a --no-cache\nx = 1", "b": "%%step b\ny = x"}, {}),
    "fresh": ({"a": "%%step a\nx = 1", "b": "%%step b\ny = x"}, {"fresh": ["a"]}),
    "only files": (
        {
            "a": "%%step a\nwith open('made.txt', 'w') as file:\n    _ = file.write('1')",
            "b": "%%step b --after a\nwith open('made.txt') as file:\n    y = file.read()",
        },
        {},
    ),
    "two steps": ({"a": "%%step a --no-cache\nx = 1", "m": "%%step m --no-cache\nz = x", "b": "%%step b\ny = z"}, {}),
    "a list": (
        {"a": "%%step a --no-cache\nx = [1, 2]", "e": "%%step e --foreach i in x\nz = i", "b": "%%step b\ny = z"}, {},
    ),
    "a fan-out": (
        {"a": "%%step a --foreach i in [1, 2] --no-cache\nx = i", "b": "%%step b --join a\ny = len(inputs)"}, {},
    ),
    "a fresh fan-out": (
        {"a": "%%step a --foreach i in [1, 2]\nx = i", "b": "%%step b --join a\ny = len(inputs)"}, {"fresh": ["a"]},
    ),
    "turns": ({"a": "%%step a\nx = 0", "u": "%%step u --until x > 2 --no-cache\nx += 1", "b": "%%step b\ny = x"}, {}),
}  # fmt: skip


@pytest.mark.running
@pytest.mark.parametrize("name", REPEATED)
def test_a_step_that_runs_again_as_it_is_changes_nothing_below(name: str, folder: Path) -> None:
    cells, wishes = REPEATED[name]
    path, store = flow(folder, **cells), str(folder / "store")
    assert nbflow.run(path, store=store).successful
    said = told(path, store, **wishes)
    run = nbflow.run(path, store=store, **wishes)  # type: ignore[arg-type]
    assert run.successful, run.error
    assert {step.name: "reuse" if step.state == "reused" else "run" for step in run} == {
        step: action for step, (action, _) in said.items()
    }
    assert said["b"][0] == "reuse"
    assert name != "no-cache" or said["b"][1][-1] == "a runs again and leaves the same"


@pytest.mark.running
def test_a_step_below_one_that_changed_runs_if_that_leaves_something_else(folder: Path) -> None:
    cells = {"a": "%%step a\nx = 1", "b": "%%step b\ny = x", "c": "%%step c\nz = y", "d": "%%step d --after a\nw = 5"}
    path, store = flow(folder, **cells), str(folder / "store")
    assert nbflow.run(path, store=store).successful
    path = flow(folder, **cells | {"a": "%%step a\nx = 3 - 2"})
    assert told(path, store) == {
        "a": ("run", ["line 2 changed"]),
        "b": ("run", ["if a changes"]),
        "c": ("run", ["if b changes"]),
        "d": ("reuse", [told(path, store)["d"][1][0]]),
    }
    path = flow(folder, **cells | {"a": "%%step a\nx = 3 - 2", "c": "%%step c\nz = -y"})
    assert told(path, store)["c"] == ("run", ["line 2 changed"])
    path = flow(folder, **cells | {"a": "%%step a\nx, y = 3 - 2, 8", "b": "%%step b\nk = 1"})
    assert told(path, store)["c"][0] == "run", "another cell makes y now"
    run = nbflow.run(path, store=store)
    assert {step.name: step.state for step in run} == {"a": "done", "b": "done", "c": "done", "d": "reused"}


@pytest.mark.running
def test_random_draws_may_leave_something_else(folder: Path) -> None:
    cells = {"a": "%%step a --no-cache\nimport random\nx = random.random()", "b": "%%step b\ny = x"}
    path, store = flow(folder, **cells), str(folder / "store")
    assert nbflow.run(path, store=store).successful
    assert told(path, store)["b"] == ("run", ["if a changes"])


@pytest.mark.running
def test_what_reads_a_file_that_a_changed_step_writes(folder: Path) -> None:
    cells = {
        "a": "%%step a\nx = 1\nwith open('made.txt', 'w') as file:\n    _ = file.write('1')",
        "b": "%%step b --after a\nwith open('made.txt') as file:\n    y = file.read()",
        "c": "%%step c --after a\nwith open('given.txt') as file:\n    z = file.read()",
    }
    (folder / "given.txt").write_text("given")
    path, store = flow(folder, **cells), str(folder / "store")
    assert nbflow.run(path, store=store).successful
    said = told(flow(folder, **cells | {"a": cells["a"].replace("write('1')", "write('2')")}), store)
    assert said["b"] == ("run", ["if a changes"])
    assert said["c"][0] == "reuse"


@pytest.mark.running
def test_what_is_skipped_keeps_what_reads_it_from_running(folder: Path) -> None:
    cells = {"a": "%%step a\nx = 1", "b": "%%step b --if x > 5\ny = x", "c": "%%step c\nz = y", "d": "%%step d\nw = z"}
    path, store = flow(folder, **cells), str(folder / "store")
    run = nbflow.run(path, store=store)
    assert {step.name: step.state for step in run} == {"a": "done", "b": "skipped", "c": "skipped", "d": "skipped"}
    assert {step: action for step, (action, _) in told(path, store).items()} == dict.fromkeys(cells, "reuse")
