"""Fan-outs, joins, conditions and turns mean the plain loops that they stand for: generated flows, run both ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from nbflow import launch, reference
from nbflow.context import Caught
from nbflow.errors import PlanError
from tests.flows import generate

SEEDS = int(os.environ.get("NBFLOW_FLOWS", "12"))


def write_notebook(path: Path, cells: list[str]) -> Path:
    """Cells in; a notebook file that holds them out."""
    document = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell, id=f"c{at}") for at, cell in enumerate(cells)]
    )
    nbformat.write(document, path)
    return path


def plain(value: Any) -> Any:
    """What is compared: a caught error by its type and message, for tracebacks name different files."""
    return (value.type, value.message) if isinstance(value, Caught) else value


@pytest.mark.running
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_generated_flow_leaves_what_its_loops_leave(seed: int, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "flow.ipynb", generate(seed))
    try:
        run = nbflow.run(path, store=str(tmp_path / "store"))
    except PlanError as error:
        pytest.fail(f"{error}\n" + "\n\n".join(generate(seed)))
    expected = {name: plain(value) for name, value in reference.run(path).items() if not callable(value)}
    names = [name for name in dir(run.data) if not name.startswith("_") and name != "mix"]
    found = {name: plain(getattr(run.data, name)) for name in names}
    told = f"{run.error}\n" + "\n\n".join(generate(seed))
    assert run.successful, told
    written = {name for step in launch.check(path).steps for name in step.writes}  # the rest is scratch
    assert {name: found.get(name, "(none)") for name in written} == {n: expected.get(n, "(none)") for n in written}, (
        told
    )
    again = nbflow.run(path, store=str(tmp_path / "store"))
    states = {step.name: step.state for step in again.steps()}
    assert set(states.values()) <= {"reused", "skipped", "caught", "done"}, states
