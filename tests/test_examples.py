"""The examples with loops leave what the plain loops leave, and run again without running."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nbflow
from nbflow import launch, reference
from tests.equality import compare

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.notebooks
@pytest.mark.parametrize("name", ["sweep", "until"])
def test_an_example_with_loops_leaves_what_its_loops_leave(name: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(EXAMPLES / f"{name}.ipynb", tmp_path))
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
