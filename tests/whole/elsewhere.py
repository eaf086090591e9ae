"""Whole notebooks whose steps run in another place, with an executor that is connected already."""

from __future__ import annotations

from pathlib import Path

import nbflow
from nbflow.runs import launch
from nbflow.runs.run_options import RunOptions
from tests.support.kernel import NotebookFile
from tests.whole.lane_notebooks import NOTEBOOKS
from tests.whole.test_lanes import plainly, shown

EXAMPLES = Path(__file__).parents[2] / "examples"

SOME = [*NOTEBOOKS][::4]
"""A fourth of the notebooks that hold the local lanes together: what differs elsewhere is the way, not the lane."""


def run(path: Path, executors: launch.Executors, store: str = "", **options: object) -> nbflow.Run:
    """Run a notebook; its datastore stands beside it unless another one is named."""
    store = store or str(path.parent / ".nbflow")
    runner = launch.begin(launch.load_flow(path), RunOptions(on=executors.on, store=store, **options), executors)  # type: ignore[arg-type]
    runner.run()
    return nbflow.Run(f"{runner.place.flow}/{runner.place.run}", store=store)


def shows_the_same(name: str, executors: launch.Executors, folder: Path) -> None:
    """Every cell of one of the lanes' notebooks shows there what it shows in a plain kernel here."""
    lanes = NOTEBOOKS[name]
    for file, text in lanes.files.items():
        (folder / file).write_text(text)
    NotebookFile(folder / "flow.ipynb", {"ext": "%load_ext nbflow", **lanes.cells})
    done = run(folder / "flow.ipynb", executors)
    assert done.status == "done", done.error
    right = plainly(name)
    steps = [cell for cell, source in lanes.cells.items() if source.startswith("%%step")]
    assert {step: shown(done[step].task.outputs) for step in steps} == {step: right.get(step, ("",)) for step in steps}


def runs_the_quickstart(path: Path, executors: launch.Executors, store: str = "") -> None:
    """It gives there what it gives top to bottom here, and its results are reused."""
    params = {"trees": 20}
    first = run(path, executors, store, params=params)
    assert first.status == "done", first.error
    right = nbflow.reference.run(str(path), params)
    assert first.data.scores.equals(right["scores"])
    assert first["load"].task.stdout.startswith("569 biopsies")
    assert "image/png" in next(each["data"] for each in first["curves"].task.outputs if "data" in each)
    again = run(path, executors, store, params=params)
    assert {step.state for step in again.steps()} == {"reused"}
