"""The examples with loops leave what the plain loops leave, and run again without running."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow import reference
from nbflow.runs import launch
from tests.support.equality import compare
from tests.support.nursery import Nursery
from tests.support.places import EXAMPLES
from tests.support.plain import copy_with_data, run_plainly
from tests.whole.test_wild import differences, expectations, failures


@pytest.mark.notebooks
@pytest.mark.parametrize("name", ["sweep", "until", "config"])
def test_an_example_with_loops_leaves_what_its_loops_leave(name: str, tmp_path: Path) -> None:
    path = copy_with_data(EXAMPLES / f"{name}.ipynb", tmp_path)
    store = str(tmp_path / "store")
    run = nbflow.run(path, store=store)
    assert run.successful, run.error
    expected = reference.run(path)
    written = {name for step in launch.check(path).steps for name in step.writes} - {"best"}  # an entry of inputs
    found = {name: getattr(run.data, name) for name in written if name in run.data}
    assert written & expected.keys() == found.keys()
    comparison = compare({name: expected[name] for name in found}, found)
    assert not comparison.differences, comparison.differences
    again = nbflow.run(path, store=store)
    assert {step.state for step in again.steps()} <= {"reused", "skipped"}


@pytest.mark.notebooks
def test_an_ordinary_notebook_runs_with_every_cell_as_a_step(tmp_path: Path, nursery: Nursery) -> None:
    path, store = EXAMPLES / "unchanged.ipynb", str(tmp_path / "store")
    assert "%%step" not in path.read_text()
    left = run_plainly(path, tmp_path / "plain", manager=nursery.manager())
    copy = copy_with_data(path, tmp_path / "flow")
    run = nbflow.run(copy, store=store, all_cells=True)
    assert run.successful, failures(run)
    assert differences(run, left, expectations(path)) == {}
    again = nbflow.run(copy, store=store, all_cells=True)
    assert {step.state for step in again.steps()} == {"reused"}
