"""Why a step does not run: skipped only where an `--if`, an empty list or a caught failure says so, else a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import nbflow
from tests.support.by_hand import Start
from tests.support.notebook_files import write_cells

pytestmark = pytest.mark.running


@dataclass(frozen=True)
class Case:
    """A notebook of steps by name, and how each ends that does not end well: its state, and a part of why."""

    cells: Mapping[str, str]
    ends: Mapping[str, tuple[str, str]]
    values: Mapping[str, object] = field(default_factory=dict)


def steps(**bodies: str) -> dict[str, str]:
    """Cells by the step's name: options before a bar, the body behind it; without a bar a plain cell."""
    cells = {}
    for name, text in bodies.items():
        options, bar, body = text.partition("|")
        cells[name] = f"%%step {name} {options.strip()}".rstrip() + f"\n{body.strip()}" if bar else text
    return cells


SKIPPED = {
    "an earlier writer stands in": Case(
        steps(a="|n = 1; x = 1", b="--if n > 5|x = 2", c="|y = x + 1"), {"b": ("skipped", "n > 5 is False")}, {"y": 2}
    ),
    "a condition, and its readers in turn": Case(
        steps(a="|n = 1", b="--if n > 5|x = 2", c="|y = x", d="|z = y", e="|w = n"),
        {
            "b": ("skipped", "n > 5 is False"), "c": ("skipped", "x has no value: b was skipped"),
            "d": ("skipped", "y has no value: c was skipped"),
        },
        {"w": 1},
    ),
    "a caught failure": Case(
        steps(a="--catch err|k = 3\nx = {}['x']", b="|y = x", c="|said = err.type; k2 = k"),
        {"a": ("caught", "KeyError"), "b": ("skipped", "x has no value: a failed, and was caught")},
        {"said": "KeyError", "k2": 3},
    ),
    "an empty list": Case(
        steps(a="|xs = []", b="--foreach x in xs|y = x", c="--join b|n = len(inputs)", d="|last = y"),
        {"d": ("skipped", "y has no value: the list of b is empty")},
        {"n": 0},
    ),
    "a list whose maker was skipped": Case(
        steps(
            a="|n = 1", list="--if n > 5|xs = [1, 2]", b="--foreach x in xs|y = x", inner="|z = y + 1",
            c="--join b|m = len(inputs)", d="|k = m", other="|w = n",
        ),
        {
            "list": ("skipped", "n > 5 is False"), "b": ("skipped", "b was skipped"),
            "inner": ("skipped", "b was skipped"), "c": ("skipped", "b was skipped"),
            "d": ("skipped", "m has no value: c was skipped"),
        },
        {"w": 1},
    ),
    "a list that was caught": Case(
        steps(a="--catch err|xs = [1, 1 / 0]", b="--foreach x in xs|y = x", c="--join b|m = len(inputs)"),
        {"a": ("caught", "ZeroDivisionError"), "b": ("skipped", "b was skipped"), "c": ("skipped", "b was skipped")},
    ),
    "one of two that may have left it was skipped": Case(
        steps(a="|n = 1", b="--if n > 5|x = 2", c="|\nif n > 7:\n    x = 3", d="|y = x"),
        {"b": ("skipped", "n > 5 is False"), "d": ("skipped", "x has no value: b was skipped")},
    ),
    "a reader in the items of a fan-out": Case(
        steps(
            b="--foreach x in [1, 2]|k = x", c="--if x > 1|y = x", d="|z = y",
            e="--join b|zs = [each.z for each in inputs if each.x > 1]",
        ),
        {"c": ("skipped", "x > 1 is False"), "d": ("skipped", "y has no value: c was skipped")},
        {"zs": [2]},
    ),
}  # fmt: skip

FAILED = {
    "a condition in the cell": Case(
        steps(a="|n = 1\nif n > 5:\n    x = 2", b="|\ny = 1\nz = x", c="|w = z", d="|v = n"),
        {"b": ("failed", "b reads 'x', and a ended without leaving it"), "c": ("cancelled", "b failed")},
    ),
    "a loop that had no turn": Case(
        steps(a="|n = 0\nfor at in range(n):\n    x = at", b="|z = x"), {"b": ("failed", "a ended without leaving it")}
    ),
    "an attempt that was silenced": Case(
        steps(a="|\ntry:\n    x = int('one')\nexcept ValueError:\n    pass", b="|z = x"),
        {"b": ("failed", "a ended without leaving it")},
    ),
    "a plain cell": Case(
        steps(a="|n = 1", p="if n > 5:\n    x = n", b="|z = x"), {"b": ("failed", "x ended without leaving it")}
    ),
    "the list of a fan-out": Case(
        steps(a="|n = 1\nif n > 5:\n    xs = [1]", b="--foreach x in xs|y = x", c="--join b|m = len(inputs)"),
        {"b": ("failed", "reads 'xs', and a ended without leaving it"), "c": ("cancelled", "b failed")},
    ),
    "what a reader catches": Case(
        steps(a="|n = 1\nif n > 5:\n    x = 2", b="--catch err|y = x", c="|said = err.type"),
        {"b": ("caught", "name 'x' is not defined")}, {"said": "NameError"},
    ),
    "an earlier writer gives it": Case(
        steps(a="|n = 1; x = 1", b="|\nif n > 5:\n    x = 2", c="|y = x + 1"), {}, {"y": 2}
    ),
}  # fmt: skip
CASES = SKIPPED | FAILED


def write(folder: Path, cells: Mapping[str, str]) -> Path:
    return write_cells(folder / "flow.ipynb", cells)


@pytest.mark.parametrize("name", CASES)
def test_in_a_run_and_in_the_plan_of_the_next(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path = write(tmp_path, case.cells)
    run = nbflow.run(path)
    states = {step.name: step.state for step in run.steps()}
    assert {step: state for step, state in states.items() if state != "done"} == {
        step: state for step, (state, _) in case.ends.items()
    }
    for step, (state, why) in case.ends.items():
        task = next(task for task in run[step].tasks if task.state == state)
        told = task.error.message if task.error is not None else "; ".join(what for _, what in task.reasons)
        assert why in told or (task.error is not None and why == task.error.type), (step, told)
    failed = "failed" in states.values()
    assert run.status == ("failed" if failed else "done")
    for value, expected in case.values.items():
        assert getattr(run.data, value) == expected
    rows = [(row.step, row.action, what) for row in nbflow.plan(path).tasks for _, what in row.reasons]
    for step, (state, why) in case.ends.items():
        told = [(action, what) for name, action, what in rows if name == step and not what.endswith(" runs")]
        if state in ("skipped", "failed") and told:  # nobody knows below what runs again
            assert any(why in what and (action == "run") == (state == "failed") for action, what in told), told
    assert {step.name: step.state.replace("reused", "done") for step in nbflow.run(path).steps()} == states
    if failed:
        with pytest.raises(NameError):
            nbflow.reference.run(path)
    else:
        plain = nbflow.reference.run(path)
        assert {value: plain[value] for value in case.values} == dict(case.values)


def test_the_failure_names_cell_line_and_what_to_do(tmp_path: Path) -> None:
    run = nbflow.run(write(tmp_path, FAILED["a condition in the cell"].cells))
    error = run["b"].task.error
    assert error is not None
    assert (error.type, error.cell, error.line) == ("NameError", "b", 3)
    assert "b: NameError: b reads 'x', and a ended without leaving it" in (run.error or "")


def test_a_list_that_is_skipped_for_one_item_only(tmp_path: Path) -> None:
    cells = steps(
        outer="--foreach k in [1, 2]|n = k", list="--if n > 1|xs = [n, n]", inner="--foreach x in xs|y = x * 10",
        close="--join inner|ys = [each.y for each in inputs]", all="--join outer|found = [each.k for each in inputs]",
    )  # fmt: skip
    path = write(tmp_path, cells)
    run = nbflow.run(path)
    assert run.status == "done", run.error
    assert [(task.index, task.state) for task in run["inner"].tasks] == [
        ((0,), "skipped"), ((1, 0), "done"), ((1, 1), "done"),
    ]  # fmt: skip
    assert [task.state for task in run["close"].tasks] == ["skipped", "done"]
    assert (run.data.ys, run.data.found) == ([20, 20], [1, 2])
    assert nbflow.reference.run(path)["ys"] == [20, 20]


BY_HAND = (
    "an earlier writer stands in", "a condition, and its readers in turn", "a caught failure", "an empty list",
    "a list whose maker was skipped", "a condition in the cell", "what a reader catches",
)  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand_in_order(start: Start, name: str) -> None:
    """The same rules, and the cell says in one line what became of its step."""
    case = CASES[name]
    kernel = start(dict(case.cells))
    in_table = ("b", "inner") if "foreach" in "".join(case.cells.values()) else ()
    for cell in case.cells:
        executed = kernel.run(cell)
        state, why = case.ends.get(cell, ("done", ""))
        if state == "skipped" and cell not in in_table:
            assert f"skipped: {why}" in executed.stdout, (cell, executed.text)
        if state == "caught":
            assert "caught: " in executed.stdout, (cell, executed.text)
        if state in ("failed", "cancelled"):
            assert executed.status == "error", (cell, executed.text)
            assert state == "cancelled" or why in executed.traceback
        else:
            assert executed.status == "ok", (cell, executed.text)
    for value, expected in case.values.items():
        assert kernel.value(value) == repr(expected)
