"""Generated flows that fail at some place, then mended and resumed: the plain loops' result, and nothing done twice."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow import reference
from nbflow.model import TaskId
from nbflow.runs import launch
from tests.engine.test_loops import leaves, plain, write_notebook
from tests.support.flows import Break, broken

pytestmark = pytest.mark.running

SEEDS = int(os.environ.get("NBFLOW_RESUMES", "8"))


def failing(seed: int, path: Path) -> tuple[list[str], Break]:
    """A seed in; the notebook written as the first of three flows that fails, run top to bottom, out."""
    for rest in range(3):
        cells, fault = broken(seed, rest)
        write_notebook(path, cells)
        with contextlib.suppress(ValueError, KeyError):
            reference.run(path)
            continue
        break
    return cells, fault


def ended(run: nbflow.Run) -> dict[TaskId, str]:
    """Each task's state by its place."""
    tasks = [(step.name, task) for step in run.steps() for task in step.tasks]
    return {TaskId(step=step, index=task.index, turn=task.turn): task.state for step, task in tasks}


def expected(path: Path) -> dict[str, Any] | None:
    """What the plain loops leave; None where they fail."""
    try:
        return {name: plain(value) for name, value in reference.run(path).items() if not callable(value)}
    except ValueError:
        return None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_broken_flow_is_mended_and_goes_on(seed: int, tmp_path: Path) -> None:
    path, store = tmp_path / "flow.ipynb", str(tmp_path / "store")
    cells, fault = failing(seed, path)
    text = "\n\n".join([repr(fault), *cells])
    first = nbflow.run(path, store=store)
    wanted = expected(path)
    assert first.successful == (wanted is not None), f"{first.error}\n{text}"
    write_notebook(path, fault.mended(cells))
    if fault.mend == "file":
        (tmp_path / "mended").touch()
    resumed = nbflow.run(path, store=store, resume=first.id)
    wanted = expected(path)
    assert wanted is not None
    assert resumed.successful, f"{resumed.error}\n{text}"
    assert leaves(resumed, path) == {n: wanted.get(n, "(none)") for n in leaves(resumed, path)}, text
    if fault.caught:
        return  # what is below has seen the failure
    before, after = ended(first), ended(resumed)
    again = {task for task, state in before.items() if state == "done" and after.get(task) not in ("reused", "skipped")}
    joins = {step.name for step in launch.check(path).steps if step.options.join}  # they see what the body has used
    touched = fault.touched | (set() if fault.mend == "file" else joins)
    assert {task for task in again if task.step not in touched} == set(), text
