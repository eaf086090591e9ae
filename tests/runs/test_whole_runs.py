"""Which runs count as the latest: those of a whole flow, not parts of it and not cells run by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import NotFoundError
from tests.support.kernel import Kernel, NotebookFile
from tests.support.notebook_files import write_cells

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("folder")]

CELLS = {
    "load": "%load_ext nbflow",
    "draw": "%%step draw\nnumbers = [3, 1, 2]",
    "halve": "%%step halve --foreach number in numbers\nhalf = number / 2",
    "gather": "%%step gather --join halve\ntotal = sum(each.half for each in inputs)",
}


def write(**changed: str) -> Path:
    return write_cells(Path("sums.ipynb"), CELLS | changed)


def test_parts_of_a_flow_are_never_the_latest_run(capsys: pytest.CaptureFixture[str]) -> None:
    part = nbflow.run(write(), steps=["draw"])
    flow = nbflow.Flow("sums")
    assert (flow.latest_run, flow.latest_successful_run) == (None, None)
    with pytest.raises(NotFoundError, match="has no run of the whole flow"):
        nbflow.Run("sums/latest")
    whole = nbflow.run(write())
    alone = nbflow.run(write(), only="gather")
    failed = nbflow.run(write(draw="%%step draw\nnumbers = [3, 1, 2]\n1 / 0"), steps=["draw"])
    assert (failed.status, flow.latest_run, flow.latest_successful_run) == ("failed", whole, whole)
    assert nbflow.Run("sums/latest") == whole
    assert [run.metadata["asked"] for run in (part, whole, alone)] == [["draw"], [], ["gather"]]
    assert app.main(["resume"]) == 2, "no run of the whole flow has failed"
    capsys.readouterr()
    assert app.main(["runs"]) == 0
    told = capsys.readouterr().out
    assert [run.id in told for run in (part, whole, alone, failed)] == [False, True, False, False]
    assert "3 more are cells run by hand or part of a flow: --all lists them" in told
    assert app.main(["runs", "--all"]) == 0
    told = capsys.readouterr().out
    assert all(run.id in told for run in (part, whole, alone, failed))
    assert "part of the flow: gather" in told


def test_resume_takes_the_last_failed_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    broken = write(gather="%%step gather --join halve\ntotal = 1 / 0")
    failed = nbflow.run(broken)
    nbflow.run(broken, steps=["gather"])
    write()
    assert app.main(["resume"]) == 0
    assert f"resume of sums/{failed.id}, failed" in capsys.readouterr().out
    assert nbflow.Run("sums/latest").origin == failed.id


def test_steps_and_runs_are_looked_for_by_name() -> None:
    run = nbflow.run(write())
    assert "halve" in run
    assert "half" not in run
    assert None not in run
    flow = nbflow.Flow("sums")
    assert run.id in flow
    assert run in flow
    assert "20200101-000000-abcdef" not in flow


def test_cells_by_hand_are_never_the_latest_run(folder: Path) -> None:
    with Kernel(NotebookFile(folder / "sums.ipynb", CELLS)) as kernel:
        kernel.ok("draw", "halve")  # the second one, a fan-out, is a run of its own in processes
        flow = nbflow.Flow("sums")
        assert (flow.latest_run, len(flow.runs())) == (None, 2)
        assert "no run has failed" in kernel.execute("%flow resume").text
        assert "2 more are cells run by hand" in kernel.execute("%flow runs").text
        listed = kernel.execute("%flow runs --all").text
        assert "cells run by hand" in listed
        assert "part of the flow: halve" in listed
        assert kernel.execute("%flow run").status == "ok"
        whole = flow.latest_run
        assert whole is not None
        kernel.notebook.edit("halve", "%%step halve --foreach number in numbers\nhalf = number / 0")
        assert kernel.run("halve").status == "error"
        assert flow.latest_run == whole
        assert "no run has failed" in kernel.execute("%flow resume").text
