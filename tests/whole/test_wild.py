"""Notebooks that were not written for nbflow: with `--all-cells` they leave what a plain run leaves, or it is said.

Each is run plainly, as a flow, once more (all reused), and in another process with other hashes. Every name that
the plain run leaves is compared, with the sources of functions and classes. A difference has to be named by a finding
of that very run, or by its error. A notebook's metadata may hold `nbflow_test`: `reported`, the names that nbflow says
it cannot keep; `without`, names of kinds that have no equality; `again`, code cells (from 1) that are rightly not
reused; `fails`, those that cannot run and say why; `refused`, those that are named before anything runs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from nbflow.runs.client import Run
from tests.support.difference import NO_EQUALITY
from tests.support.equality import equal
from tests.support.nursery import ONE_THREAD, Nursery
from tests.support.places import TESTS
from tests.support.plain import Plain, copy_with_data, run_plainly

HERE = TESTS / "wild"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
SOAK_SEEDS = (1, 2, 3)

each_notebook = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem)) for path in NOTEBOOKS]
)


class Bench:
    """One hash seed: plain kernels, and a process of its own for third runs."""

    def __init__(self, seed: int, nursery: Nursery) -> None:
        self.nursery = nursery
        self.environment = {**ONE_THREAD, "PYTHONHASHSEED": str(seed)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONHASHSEED", str(seed + 100))
            self.elsewhere = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self.elsewhere.submit(os.getpid).result()

    def close(self) -> None:
        self.elsewhere.shutdown()


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, nursery_of: Callable[[int], Nursery]) -> Iterator[Bench]:
    made = Bench(request.param, nursery_of(request.param))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.delenv("MPLBACKEND", raising=False)
        yield made
    made.close()


@pytest.mark.notebooks
@pytest.mark.parametrize("bench", [0], indirect=True, scope="module")
@each_notebook
def test_every_cell_as_a_step_leaves_what_a_plain_run_leaves(path: Path, bench: Bench, tmp_path: Path) -> None:
    check(path, bench, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("bench", SOAK_SEEDS, indirect=True, scope="module")
@each_notebook
def test_it_does_under_other_hash_seeds(path: Path, bench: Bench, tmp_path: Path) -> None:
    check(path, bench, tmp_path)


def test_there_are_forty_notebooks_of_many_kinds() -> None:
    assert len(NOTEBOOKS) >= 42
    cells = [cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    assert not [source for source in cells if "nbflow" in source or "%%step" in source]


def check(path: Path, bench: Bench, folder: Path) -> None:
    """One notebook through all of it: plainly, as a flow, again, and elsewhere."""
    expected = expectations(path)
    if expected["refused"]:
        with pytest.raises(nbflow.PlanError) as refusal:
            nbflow.run(path, store=str(folder / "store"), all_cells=True)
        cells = {f"cell:{finding.cell}" for finding in refusal.value.findings}
        assert places(path, cells) == expected["refused"], refusal.value.findings
        return
    left = run_plainly(path, folder / "plain", manager=bench.nursery.manager())
    copy, store = copy_with_data(path, folder / "flow"), str(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(copy.parent)
        first = nbflow.run(copy, store=store, all_cells=True)
        if not first.successful:
            failed = {step.name for step in first.steps() if step.state == "failed"}
            assert places(copy, failed) == expected["fails"], failures(first)
            return
        assert (found := differences(first, left, expected)) == {}, found
        again = nbflow.run(copy, store=store, all_cells=True)
        assert again.successful, failures(again)
        assert (found := executed(again, copy, expected)) == {}, found
        assert (found := differences(again, left, expected)) == {}, found
        name = bench.elsewhere.submit(third_run, copy, store).result(timeout=100)
        third = nbflow.Run(name, store=store)
        assert third.successful, failures(third)
        assert (found := executed(third, copy, expected)) == {}, found


def third_run(path: Path, store: str) -> str:
    """In another process: the notebook once more, its run's name out."""
    run = nbflow.run(path, store=store, all_cells=True)
    return f"{run.flow}/{run.id}"


def expectations(path: Path) -> dict[str, Any]:
    known = dict(nbformat.read(path, as_version=4).metadata.get("nbflow_test", {}))
    return {"reported": [], "without": [], "again": [], "fails": [], "refused": []} | known


# ---------------------------------------------------------------- what a run is held to


def findings(run: Run) -> list[Any]:
    return list(run._past.snapshot.findings)


def differences(run: Run, left: Plain, expected: dict[str, Any]) -> dict[str, str]:
    """Every name that parts from the plain run without nbflow having said so, or that was said in vain, out."""
    told = {
        finding.name: finding
        for finding in findings(run)
        if finding.name and finding.code not in ("mutation", "sharing")
    }
    found, reported = {}, set()
    for name in sorted(left.names):
        problem = difference(name, run, left, expected["without"])
        if problem is not None and name in told:
            reported.add(name)
        elif problem is not None:
            found[name] = problem
    if reported != set(expected["reported"]):
        found["(reported)"] = f"{sorted(reported)}, expected {expected['reported']}"
    more = {name for name in dir(run.data) if not name.startswith("_")} - left.names
    found |= dict.fromkeys(more, "left by the flow, but not by a plain run")
    return found


def difference(name: str, run: Run, left: Plain, without: list[str]) -> str | None:
    """One name in; how the flow's value parts from the plain one out, None where it does not."""
    try:
        value = getattr(run.data, name)
    except Exception as error:  # whatever it is, it belongs in the table of differences
        alike = name in left.unpicklable and "not stored" in str(error)  # neither side could keep it
        return None if name in without or alike else f"run.data gives {type(error).__name__}: {error}"
    if name in left.modules:
        return None if value.__name__ == left.modules[name] else f"another module: {value.__name__}"
    if name in left.sources:
        try:
            source = inspect.getsource(value)
        except (OSError, TypeError) as error:
            return f"its source cannot be read: {error}"
        if source.strip() != left.sources[name].strip():
            return f"another source:\n{source}"
    if name in left.values:
        parted = equal(left.values[name], value, name)
        if parted is None or (parted.kind == NO_EQUALITY and name in without):
            return None
        return str(parted)
    return None if name in left.sources or name in without else f"cannot be compared: {left.unpicklable[name]}"


def executed(run: Run, path: Path, expected: dict[str, Any]) -> dict[str, str]:
    """Steps of a later run that were executed again and leave something that could have been reused, out."""
    found = {}
    for step in run.steps():
        for task in step.tasks:
            nothing = {code for code, _ in task.reasons} == {"no-output"}
            if task.state != "reused" and not nothing and places(path, {step.name})[0] not in expected["again"]:
                found[step.name] = f"{task.state}: {task.reasons}"
    return found


def places(path: Path, steps: set[str]) -> list[int]:
    """Unnamed steps in; their cells' places among the code cells, from 1, out."""
    cells = [cell.id for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return sorted(cells.index(step.removeprefix("cell:")) + 1 for step in steps)


def failures(run: Run) -> str:
    """A run that did not succeed, told step by step."""
    lines = [f"run {run.id} is {run.status}: {run.error}"]
    for step in run.steps():
        for task in step.tasks:
            if task.state not in ("done", "reused"):
                told = f"{task.error.type}: {task.error.message}" if task.error else ""
                lines.append(f"  {step.name}: {task.state} {told}")
                lines += [f"    {line}" for line in (task.error.traceback.splitlines() if task.error else [])]
    return "\n".join(lines)
