"""The one rule on whole notebooks: a flow leaves what a plain top-to-bottom run leaves, on the first run and on reuse.

A notebook's metadata may hold `nbflow_test`: `scratch`, names that only cells outside the flow write; `without`, names
of kinds that have no equality. Both lists have to be exact.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from tests.support.difference import NO_EQUALITY
from tests.support.equality import compare, equal
from tests.support.nursery import ONE_THREAD, Nursery
from tests.support.places import TESTS
from tests.support.plain import Plain, PlainRuns, copy_with_data, run_plainly, run_reference

HERE = TESTS
NOTEBOOKS = [*sorted((HERE / "notebooks").glob("*.ipynb")), HERE.parent / "examples" / "quickstart.ipynb"]

each_notebook = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem)) for path in NOTEBOOKS]
)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> PlainRuns:
    return PlainRuns(tmp_path_factory.mktemp("plain"), nursery)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)


def expectations(path: Path) -> dict[str, list[str]]:
    return {"scratch": [], "without": []} | dict(nbformat.read(path, as_version=4).metadata.get("nbflow_test", {}))


def code_cells(path: Path) -> Iterator[str]:
    yield from (cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def last_writer(path: Path, name: str) -> str:
    """For messages: the header of the last cell that seems to bind the name."""
    bound = re.compile(rf"(?m)^\s*(?:.*\b(?:for|as|import|def|class)\s+(?:.*,\s*)?)?\*?{name}\b")
    found = [source for source in code_cells(path) if bound.search(source)]
    return repr(found[-1].strip().splitlines()[0]) if found else "an unknown cell"


# ---------------------------------------------------------------- the notebooks themselves


@each_notebook
def test_notebook_is_of_the_size_that_people_write(path: Path) -> None:
    document = nbformat.read(path, as_version=4)
    nbformat.validate(document)
    steps = [source for source in code_cells(path) if source.startswith("%%step")]
    assert 6 <= len(document.cells) <= 20
    assert len(steps) >= 3
    assert any(cell.cell_type == "markdown" for cell in document.cells)
    assert next(code_cells(path)) == "%load_ext nbflow"


def test_there_are_notebooks_of_many_kinds() -> None:
    assert len(NOTEBOOKS) >= 13


@pytest.mark.notebooks
@each_notebook
def test_two_plain_runs_agree(path: Path, plain: PlainRuns, tmp_path: Path) -> None:
    """Else the notebook is no measure. The second kernel is started as Jupyter does, with hashes of its own."""
    first, second = plain(path), run_plainly(path, tmp_path / "second")
    found = compare(first.values, second.values)
    assert not found.differences, _lines({name: str(one) for name, one in found.differences.items()})
    assert (found.only_left, found.only_right) == ((), ())
    unknown = {*first.unpicklable, *found.without} - set(first.sources)
    assert unknown == set(expectations(path)["without"])


# ---------------------------------------------------------------- the flow


@pytest.mark.notebooks
@each_notebook
def test_a_flow_leaves_what_a_plain_run_leaves(
    path: Path, plain: PlainRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = plain(path)
    copy, store = copy_with_data(path, tmp_path / "notebook"), str(tmp_path / "store")
    monkeypatch.syspath_prepend(copy.parent)

    first = nbflow.run(copy, store=store)
    assert first.successful, failures(first)
    found = disagreements(path, first, left)
    assert found == {}, _lines(found)

    second = nbflow.run(copy, store=store)
    assert second.successful, failures(second)
    executed = {name: reasons(second, name) for name in step_names(second) if not is_reused(second, name)}
    assert executed == {}, "steps of the second run that were not reused:\n" + _lines(executed)
    found = disagreements(path, second, left)
    assert found == {}, _lines(found)


@pytest.mark.notebooks
@each_notebook
def test_the_reference_leaves_what_a_plain_run_leaves(path: Path, plain: PlainRuns, tmp_path: Path) -> None:
    left, reference = plain(path), run_reference(path, tmp_path / "reference")
    found = compare(left.values, reference.values)
    problems = {name: str(one) for name, one in found.differences.items()}
    problems |= dict.fromkeys(found.only_left, "left by the plain run only")
    problems |= dict.fromkeys(found.only_right, "left by the reference only")
    assert problems == {}, _lines(problems)
    assert set(found.without) | set(left.unpicklable) >= set(reference.unpicklable)


def step_names(run: Any) -> list[str]:
    return [step if isinstance(step, str) else step.name for step in run.steps()]


def stored_names(run: Any) -> set[str]:
    return {name for step in step_names(run) for task in run[step].tasks for name in task.artifacts}


def disagreements(path: Path, run: Any, left: Plain) -> dict[str, str]:
    """Every name of the plain run in; those in which the flow's run parts from it, each with how, out.

    Nothing is passed over: a name is equal, or it is listed as scratch or as without equality, or it is here.
    """
    expected = expectations(path)
    known, found = stored_names(run), {}
    for name in sorted(left.names):
        if name in expected["scratch"]:
            if name in known:
                found[name] = "listed as scratch, but the flow has stored it"
            continue
        if name in expected["without"]:
            if name not in known:
                found[name] = f"no equality, but it should be known as an artifact of {last_writer(path, name)}"
            continue
        problem = _disagreement(name, run, left)
        if problem is not None:
            found[name] = f"{problem} (last written by {last_writer(path, name)})"
    found |= dict.fromkeys(known - left.names, "stored by the flow, but the plain run does not leave it")
    return found


def _disagreement(name: str, run: Any, left: Plain) -> str | None:
    try:
        value = getattr(run.data, name)
    except Exception as error:  # whatever it is, it belongs in the table of disagreements
        return f"the plain run leaves it, run.data gives {type(error).__name__}: {error}"
    if name in left.modules:
        return None if value.__name__ == left.modules[name] else f"another module: {value.__name__}"
    if name in left.values:
        difference = equal(left.values[name], value, name)
        if difference is None:
            return None
        what = "no equality, and not listed as such" if difference.kind == NO_EQUALITY else "plain and flow differ"
        return f"{what}: {difference}"
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError) as error:
        return f"its source cannot be read: {error}"
    return None if source.strip() == left.sources[name].strip() else f"another source:\n{source}"


def failures(run: Any) -> str:
    """A run that did not succeed, told step by step."""
    lines = [f"run {run.id} is {run.status}: {run.error}"]
    for name in step_names(run):
        for task in run[name].tasks:
            if task.state not in ("done", "reused"):
                lines.append(
                    f"  {name}: {task.state} {task.error.type + ': ' + task.error.message if task.error else ''}"
                )
                lines += [f"    {line}" for line in (task.error.traceback.splitlines() if task.error else [])]
    return "\n".join(lines)


def is_reused(run: Any, step: str) -> bool:
    """Every task reused; one that left neither artifact nor display never is, and is allowed to run again."""
    return all(
        task.state == "reused" or (not task.artifacts and {code for code, _ in task.reasons} == {"no-output"})
        for task in run[step].tasks
    )


def reasons(run: Any, step: str) -> str:
    return "; ".join(f"{task.state}: {task.reasons}" for task in run[step].tasks)


def _lines(found: dict[str, str]) -> str:
    return "\n" + "\n".join(f"  {name}: {text}" for name, text in found.items())
