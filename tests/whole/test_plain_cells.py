"""Plain cells between steps: whatever they may do to what a step reads, runs mean what the notebook means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow, Step
from nbflow.render import table
from nbflow.runs import exporting, launch
from nbflow.runs.client import Run
from tests.support.by_hand import Start
from tests.support.kernel import Kernel, NotebookFile
from tests.support.nursery import Nursery
from tests.support.plain import run_plainly
from tests.support.plain_kinds import KINDS, SHARED, Kind, cells_of

GROUP = 12
GROUPS = [range(at, min(at + GROUP, len(KINDS))) for at in range(0, len(KINDS), GROUP)]

each_group = pytest.mark.parametrize("numbers", GROUPS, ids=lambda group: f"kinds {group[0]} to {group[-1]}")


def flow_of(*sources: str) -> Flow:
    """Return the flow of some cells."""
    cells = [RawCell(f"c{number}", source, ()) for number, source in enumerate(sources, start=1)]
    return build_flow(parse_cells(cells, name="plain", folder="."))


def plain_steps(flow: Flow) -> dict[int, Step]:
    """Return the plain cells that belong to a flow, by position."""
    return {step.position: step for step in flow.steps if step.kind == "cell"}


# ---------------------------------------------------------------- which cells belong to a flow


@pytest.mark.parametrize("each", KINDS, ids=lambda each: each.name)
def test_a_plain_cell_belongs_to_the_flow_by_what_it_may_do(each: Kind) -> None:
    flow = flow_of(*SHARED, *cells_of(1, each).values())
    last = len(SHARED) + 1 + len(each.plain)
    found = plain_steps(flow).get(last)
    assert (found.joins if found is not None else None) == each.joins


LOAD, READ = "%%step load\nxs = make()", "%%step read\nys = list(xs)"
MAKE = "def make():\n    return [[1], [2]]"


@pytest.mark.parametrize(
    ("cells", "joined"),
    [
        ((MAKE, LOAD, READ, "got = xs.pop()"), []),  # below the last reader
        ((MAKE, LOAD, "zs = [0]", "got = zs.pop()", READ), []),  # other objects
        ((MAKE, LOAD, "xs = [0]", "got = xs.pop()", READ), [3, 4]),  # the objects that the step reads
        ((MAKE, LOAD, "old = xs", "%%step other\nxs = [5]", "got = old.pop()", READ), []),  # objects of an older value
        ((MAKE, LOAD, "a = xs[0]", "b = [a]", "c = b[-1]", "got = c.pop()", READ), [3, 4, 5, 6]),
        ((MAKE, LOAD, "got = xs.pop()", "%%step keep\nzs = xs", "%%step read\nys = list(zs)"), [3]),
        ((MAKE, LOAD, "got = xs.pop()", "%%step keep\nzs = 3", "%%step read\nys = list(range(zs))"), []),
        ((MAKE, LOAD, "n = len(xs)", "%%step read\nys = list(range(n))", "got = xs.pop()"), [3]),
        ((MAKE, "%%step each --foreach i in range(2)\nxs = make()\nseen = xs", "got = seen.pop()", READ), [3]),
        ((MAKE, "pool = make()", "%%step each --foreach i in range(2)\nn = len(pool)",
          "got = pool.pop() if n else 0", "%%step all --join each\nm = len(inputs)"), [2, 4]),
    ],
)  # fmt: skip
def test_the_reading_follows_objects_through_names_and_cells(cells: tuple[str, ...], joined: list[int]) -> None:
    assert sorted(plain_steps(flow_of(*cells))) == joined


def test_a_cell_that_joins_only_for_what_it_may_do_keeps_nobody_waiting() -> None:
    flow = flow_of(MAKE, LOAD, "got = xs.pop()", READ)
    assert flow.step("read").needs == ("load",)
    cell = plain_steps(flow)[3]
    assert (cell.needs, cell.escapes, cell.affects) == (("load",), ("xs",), ("read",))


def test_what_a_run_has_shown_orders_readers_and_the_cell_still_joins_for_what_it_may_do() -> None:
    cells = [RawCell(f"c{at}", text, ()) for at, text in enumerate((MAKE, LOAD, "got = xs.pop()", READ), start=1)]
    notebook = parse_cells(cells, name="plain", folder=".")
    flow = build_flow(notebook, changed={"cell:c3": frozenset({"xs"})})
    assert flow.step("read").needs == ("cell:c3",)
    assert plain_steps(flow)[3].joins == "possible"


BELOW = "%load_ext nbflow", "%%step one\nx = [1]"


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("open('out.txt', 'w').write('x')", 1),
        ("import requests\nprint('now')\nrequests.post('http://localhost', json=x)", 3),
        ("y = 1\n\nif y:\n    print(y)\n    open('out.txt', 'w').write('x')", 5),
        ("!touch done", 1),
        ("import shop\nshop.publish(x)", 2),
        ("print(x)", None),
        ("x.head()", None),
        ("import nbflow\nnbflow.Flow('plain').latest_run", None),
        ("last = x.pop()", None),
        ("%pip --version", None),
    ],
)
def test_an_effect_below_the_last_step_is_named(cell: str, line: int | None) -> None:
    found = [(finding.cell, finding.line) for finding in flow_of(*BELOW, cell).findings if finding.code == "left-out"]
    assert found == ([("c3", line)] if line is not None else [])


def test_a_cell_that_waits_for_a_person_does_not_join_for_what_it_may_do() -> None:
    assert plain_steps(flow_of(MAKE, LOAD, "got = xs.pop(int(input('which? ')))", READ)) == {}


# ---------------------------------------------------------------- runs


def written(folder: Path, numbers: Sequence[int]) -> NotebookFile:
    """Return a notebook with these kinds, each with names of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = {"ext": "%load_ext nbflow", **{f"shared{at}": text for at, text in enumerate(SHARED)}}
    for number in numbers:
        cells |= cells_of(number, KINDS[number])
    return NotebookFile(folder / "flow.ipynb", cells)


def wanted(notebook: NotebookFile, numbers: Sequence[int], folder: Path, nursery: Nursery) -> dict[str, object]:
    """Return what a plain run sees, by kind."""
    left = run_plainly(notebook.path, folder, manager=nursery.manager())
    return {KINDS[number].name: left.values[f"seen_{number}"] for number in numbers}


def seen(run: Run, numbers: Sequence[int]) -> dict[str, object]:
    """Return what a run has seen, by kind."""
    assert run.successful, run.error
    return {KINDS[number].name: getattr(run.data, f"seen_{number}") for number in numbers}


@pytest.mark.running
@each_group
def test_runs_see_what_a_plain_run_sees(numbers: Sequence[int], nursery: Nursery, tmp_path: Path) -> None:
    notebook = written(tmp_path / "flow", numbers)
    expected = wanted(notebook, numbers, tmp_path / "plain", nursery)
    assert seen(nbflow.run(notebook.path), numbers) == expected
    again = nbflow.run(notebook.path)
    assert seen(again, numbers) == expected
    ran = {task.step: task.reasons for step in again.steps() for task in step.tasks if task.state != "reused"}
    # a line for the shell leaves nothing that could stand for it; a variable that a cell above has set is not there yet
    told = {code for step, ((code, _), *_) in ran.items()}
    assert told <= {"no-output", "environment"}, ran
    assert len(ran) <= sum(each.joins == "effect" for each in map(KINDS.__getitem__, numbers)), ran
    assert seen(nbflow.run(notebook.path, fresh=True), numbers) == expected  # known from the start now


@pytest.mark.running
@each_group
def test_by_hand_they_do_what_a_plain_kernel_does(numbers: Sequence[int], nursery: Nursery, tmp_path: Path) -> None:
    notebook = written(tmp_path / "flow", numbers)
    expected = wanted(notebook, numbers, tmp_path / "plain", nursery)
    with Kernel(notebook) as kernel:
        kernel.ok(*list(notebook.cells)[1:])
        names = {KINDS[number].name: f"seen_{number}" for number in numbers}
        text = kernel.value("{" + ", ".join(f"{name!r}: {value}" for name, value in names.items()) + "}")
    assert eval(text) == expected
    assert seen(nbflow.run(notebook.path), numbers) == expected


CHAIN = {"def": MAKE, "load": LOAD, "plain": "got = xs.pop()", "read": READ}


@pytest.mark.running
def test_a_step_alone_is_run_with_the_plain_cells_that_may_change_what_it_reads(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "flow.ipynb", {**CHAIN, "below": "%%step below\nzs = 1"})
    run = nbflow.run(notebook.path, steps=["read"])
    assert (run.data.ys, [step.name for step in run.steps()]) == ([[1]], ["load", "cell:plain", "read"])


@pytest.mark.running
def test_a_failure_of_a_step_that_started_before_its_plain_writer_does_not_count(tmp_path: Path) -> None:
    cells = {
        **CHAIN, "plain": "import time\ntime.sleep(0.5)\ngot = xs.pop()\nxs[0].clear()",
        "read": "%%step read\nassert len(xs) == 1\nys = xs",
    }  # fmt: skip
    run = nbflow.run(NotebookFile(tmp_path / "flow.ipynb", cells).path, workers=4)
    assert run.successful
    assert run.data.ys == [[]]


@pytest.mark.running
def test_a_plain_cell_that_changes_nothing_and_shows_nothing_is_reused(tmp_path: Path) -> None:
    cells = {**CHAIN, "plain": "if xs is None:\n    got = xs.pop()"}
    notebook = NotebookFile(tmp_path / "flow.ipynb", cells)
    nbflow.run(notebook.path)
    states = {task.step: task.state for step in nbflow.run(notebook.path).steps() for task in step.tasks}
    assert states == {"load": "reused", "cell:plain": "reused", "read": "reused"}


@pytest.mark.running
def test_a_plain_cell_that_fails_names_the_way_out(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "flow.ipynb", {**CHAIN, "plain": "got = xs.pop(9)"})
    run = nbflow.run(notebook.path)
    assert run.status == "failed"
    (failed,) = [view for view in run._past.snapshot.tasks if view.state == "failed"]
    assert failed.task.step == "cell:plain"
    assert "%flow config ignore 3" in ((failed.failure and failed.failure.fix) or "")


@pytest.mark.running
def test_those_that_join_only_in_doubt_are_one_row_of_the_table(tmp_path: Path) -> None:
    path = NotebookFile(tmp_path / "flow.ipynb", {**CHAIN, "tail": "got = xs.pop()", "end": "%%step end\nzs = xs"}).path
    run = nbflow.run(path)
    assert "2 plain cells, 2 change data" in table.text(run._past.snapshot)
    assert "2 plain cells, 2 change data" in table.text(nbflow.run(path)._past.snapshot)


def test_an_export_takes_what_a_plain_cell_may_do_for_done(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "flow.ipynb", CHAIN)
    exporting.export(notebook.path, "metaflow", tmp_path / "flow_flow.py")
    lines = [line.strip() for line in (tmp_path / "flow_flow.py").read_text().splitlines()]
    assert [line for line in lines if line.startswith("self.next")] == [
        "self.next(self.load)", "self.next(self.cell_3)", "self.next(self.read)", "self.next(self.end)",
    ]  # fmt: skip


# ---------------------------------------------------------------- cells that are left out on purpose


@pytest.mark.running
def test_an_ignored_cell_takes_no_part(start: Start) -> None:
    kernel = start({**CHAIN, "plain": "got = xs.pop(9)"})
    path = kernel.notebook.path
    assert "cell 4 takes no part" in kernel.execute("%flow config ignore 4").stdout
    assert json.loads((path.parent / ".nbflow" / "config.json").read_text())["ignore"] == {"flow": ["plain"]}
    (said,) = [finding for finding in launch.check(path).findings if finding.code == "ignored"]
    assert (said.cell, said.level) == ("plain", "note")
    run = nbflow.run(path)
    assert run.successful
    assert [step.name for step in run.steps()] == ["load", "read"]
    assert kernel.execute("%flow run").status == "ok"
    assert kernel.value("ys") == "[[1], [2]]"


@pytest.mark.running
@pytest.mark.parametrize(("word", "said"), [("load", "is not a plain cell"), ("99", "there is no cell '99'")])
def test_only_plain_cells_can_be_ignored(word: str, said: str, start: Start) -> None:
    kernel = start(CHAIN)
    assert said in kernel.execute(f"%flow config ignore {word}").traceback
