"""Why a step that failed before runs again: the run in which it failed, and what has changed since."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.runs import launch
from tests.support.notebook_files import write_cells

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("folder")]

CELLS = {
    "params": "%%params\nlimit: int = 3",
    "draw": "%%step draw\nnumbers = [1, 2, 0]",
    "check": "def check(number):\n    return 1 / number",
    "sum": "%%step sum\ntotal = 0\nfor number in numbers[:limit]:\n    total += check(number)",
    "each": "%%step each --foreach number in numbers\nhalf = 1 / number",
    "end": "%%step end\nresult = total",
}


def write(**changed: str) -> Path:
    return write_cells(Path("sums.ipynb"), CELLS | changed)


def why(step: str, **changed: str) -> list[str]:
    found = launch.why(write(**changed), step)
    assert found["action"] == "run"
    return [reason["what"] for reason in found["reasons"]]


def test_a_failed_step_says_what_has_changed_since() -> None:
    run = nbflow.run(write())
    assert run["sum"].state == "failed"
    failed = f"failed in {run.id}"
    assert why("sum") == [failed]
    assert why("each") == [failed]
    assert why("sum", sum=CELLS["sum"].replace("+= check", "-= check")) == [failed, "line 4 changed"]
    rows = nbflow.plan(write(each=CELLS["each"].replace("1 /", "2 /"))).tasks
    changed = ("code", "line 2 changed")
    assert [row.reasons for row in rows if row.step == "each"] == [
        (changed,),
        (changed,),
        (("failed", failed), changed),
    ]
    assert why("sum", check="def check(number):\n    return number") == [failed, "check (cell 3, line 1) changed"]
    assert why("sum", params="%%params\nlimit: int = 2") == [failed, "limit: 3 → 2"]
    nbflow.run(write(draw="%%step draw\nnumbers = [4, 0]"), steps=["draw"])
    assert why("sum", draw="%%step draw\nnumbers = [4, 0]") == [failed, "numbers changed"]


def test_a_step_that_has_succeeded_since_says_nothing_of_it() -> None:
    nbflow.run(write())
    mended = CELLS["draw"].replace("0", "5")
    done = nbflow.run(write(draw=mended))
    assert done.successful
    changed = CELLS["sum"].replace("total = 0", "total = 1")
    assert why("sum", draw=mended, sum=changed) == ["line 2 changed"]
    broken = nbflow.run(write(draw=mended, sum=changed.replace("(number)", "(number) / 0")))
    assert broken["sum"].task.reasons == (("code", "line 2 changed"),)
    assert why("sum", draw=mended, sum=changed) == [f"failed in {broken.id}", "line 4 changed"]
    resumed = nbflow.run(write(draw=mended, sum=changed), resume=broken.id)
    assert resumed["sum"].task.reasons == (("failed", f"failed in {broken.id}"), ("code", "line 4 changed"))


def test_a_file_that_changed_since_a_failure() -> None:
    read = {"draw": "%%step draw\nnumbers = [int(open('number').read())]\n1 / numbers[0]"}
    Path("number").write_text("1")
    nbflow.run(write(**read), steps=["draw"])
    Path("number").write_text("0")
    broken = nbflow.run(write(**read), steps=["draw"])
    Path("number").write_text("2")
    assert why("draw", **read) == [f"failed in {broken.id}", "number has changed"]
