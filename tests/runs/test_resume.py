"""Failed runs taken up again: resume, single steps on past results, past inputs in a process and in a live kernel."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow import reference
from nbflow.cli import app
from nbflow.errors import NotFoundError, PlanError
from nbflow.flow.notebook import document_of
from tests.support.kernel import Kernel, NotebookFile
from tests.support.places import EXAMPLES

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("folder")]

EXAMPLE = EXAMPLES / "resume.ipynb"
CELLS = {
    "load": "%load_ext nbflow",
    "params": "%%params\nlr: float = 0.5",
    "box": "class Box:\n    def __init__(self, v):\n        self.v = v\n\ndef scale(b, by):\n    return b.v * by",
    "a": "%%step a\nxs = [1, 0, 4]\nbox = Box(10)",
    "b": "%%step b --foreach x in xs\nhalf = scale(box, lr)",
    "d": "%%step d\nq = half / x",
    "j": "%%step j --join d\ntotal = sum(e.q for e in inputs)",
    "k": "%%step k\nlast = total + box.v",
}
MENDED = CELLS | {"d": "%%step d\nq = half / max(x, 1)"}


def write(cells: dict[str, str]) -> Path:
    path = Path("demo.ipynb")
    path.write_text(document_of(cells.items(), "demo"))
    return path


def states(run: nbflow.Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps()}


def test_the_inputs_of_any_past_task() -> None:
    run = nbflow.run(write(CELLS), params={"lr": 2})
    assert states(run) == {"a": "done", "b": "done", "d": "failed", "j": "cancelled", "k": "cancelled"}
    assert run["d"][1].state == "failed"
    assert run["d"][1].load_inputs() == {"half": 20.0, "x": 0}
    assert run["d"][2].load_inputs() == {"half": 20.0, "x": 4}
    found = run["b"][2].load_inputs()
    assert (found["lr"], found["x"], type(found["box"]).__name__, found["box"].v) == (2.0, 4, "Box", 10)
    assert run["a"].task.load_inputs() == {}
    with pytest.raises(NotFoundError, match="the inputs of k cannot be found again: total has no value"):
        run["k"].task.load_inputs()
    resumed = nbflow.run(write(MENDED), resume=run.id)
    assert states(resumed) == {"a": "reused", "b": "reused", "d": "done", "j": "done", "k": "done"}
    inputs = resumed["j"].task.load_inputs()["inputs"]
    assert [(entry.item, entry.half, entry.q) for entry in inputs] == [(1, 20.0, 20.0), (0, 20.0, 20.0), (4, 20.0, 5.0)]
    assert run["d"][1].load_inputs() == {"half": 20.0, "x": 0}, "an older run keeps its own"


def test_a_list_that_came_out_differently_later() -> None:
    cells = {"s": "%%step s\nn = 1", "f": "%%step f --foreach x in [len(open('log').read()), n]\ny = 1 // (x - n)"}
    Path("log").write_text("aaaa")
    first = nbflow.run(write(cells))
    Path("log").write_text("bb")
    second = nbflow.run(write(cells), fresh=True)
    assert [[task.load_inputs()["x"] for task in run["f"].tasks] for run in (first, second)] == [[4, 1], [2, 1]]


def test_turns_have_their_own_inputs() -> None:
    cells = {"s": "%%step s\nn = 1", "u": "%%step u --until n > 8\nn = n * 2\nassert n < 8, n"}
    run = nbflow.run(write(cells))
    assert [task.state for task in run["u"].tasks] == ["done", "done", "failed"]
    assert [task.load_inputs() for task in run["u"].tasks] == [{"n": 1}, {"n": 2}, {"n": 4}]
    resumed = nbflow.run(write(cells | {"u": cells["u"].replace("n < 8", "n < 80")}), resume=run.id)
    assert resumed.data.n == 16


def test_one_step_on_the_last_runs_results() -> None:
    with pytest.raises(PlanError, match="no earlier run of demo"):
        nbflow.run(write(MENDED), only="k")
    first = nbflow.run(write(MENDED), params={"lr": 1})
    changed = MENDED | {
        "a": "%%step a\nxs = []\nbox = None\nraise SystemExit('it is not run')",
        "k": "%%step k\nlast = -total",
    }
    alone = nbflow.run(write(changed), only="k")
    assert states(alone) == {"a": "reused", "b": "reused", "d": "reused", "j": "reused", "k": "done"}
    assert (alone.data.last, alone.params.lr) == (-22.5, 1.0)
    assert ("only", f"taken as {first.id} left it") in alone["j"].task.reasons
    assert alone["k"].task.reasons == (("only", "--only runs this step, whatever is known of it"),)
    body = nbflow.run(write(changed | {"d": "%%step d\nq = half"}), only="d")
    assert states(body) == {"a": "reused", "b": "reused", "d": "done"}
    assert [task.data.q for task in body["d"].tasks] == [10.0, 10.0, 10.0]
    joined = nbflow.run(write(MENDED | {"j": "%%step j --join d\ntotal = [e.half for e in inputs]"}), only="j")
    assert joined.data.total == [10.0] * 3
    failed = nbflow.run(write(CELLS), params={"lr": 7})
    with pytest.raises(PlanError, match="d, j left no result"):
        nbflow.run(write(CELLS), only="k", resume=failed.id)


def test_resume_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["run", str(write(CELLS)), "-p", "lr=2"]) == 1
    failed = nbflow.Run("demo/latest")
    write(MENDED)
    capsys.readouterr()
    assert app.main(["resume", "--tag", "again"]) == 0
    told = capsys.readouterr().out
    assert told.index("resume of demo/") < told.index("plan of demo") < told.index("running")
    plan = told[told.index("plan of") : told.index("running")]
    assert re.search(r"↺ a\s+reuse", plan)
    assert re.search(r"○ d\S*\s+run\s+line 2 changed", plan)
    resumed = nbflow.Run("demo/latest")
    assert (resumed.origin, resumed.params.lr, resumed.tags) == (failed.id, 2.0, ("again",))
    assert app.main(["run", "demo.ipynb", "--only", "k"]) == 0
    assert "1 done, 8 reused" in capsys.readouterr().out
    assert app.main(["run", "demo.ipynb", "--only", "kk"]) == 2


def test_the_example_fails_and_goes_on(folder: Path) -> None:
    path = Path(shutil.copy2(EXAMPLE, folder))
    failed = nbflow.run(path, params={"hours": 100})
    assert states(failed)["clean"] == "failed"
    assert [task.state for task in failed["clean"].tasks] == ["done", "done", "failed", "done"]
    assert [task.state for task in failed["summarise"].tasks] == ["done", "done", "cancelled", "done"]
    assert failed["clean"][2].load_inputs()["name"] == "forest"
    resumed = nbflow.run(path, resume=failed.id, params={"strict": False})
    assert resumed.successful, resumed.error
    assert (states(resumed)["stations"], states(resumed)["read"]) == ("reused", "reused")
    assert [task.state for task in resumed["summarise"].tasks] == ["reused", "reused", "done", "reused"]
    assert resumed.data.rows == reference.run(path, {"hours": 100, "strict": False})["rows"]


# ---------------------------------------------------------------- in a live kernel


@pytest.fixture
def kernel(folder: Path) -> Iterator[Kernel]:
    with Kernel(NotebookFile(folder / "demo.ipynb", CELLS)) as running:
        yield running


def test_load_and_resume_in_a_kernel(kernel: Kernel) -> None:
    for cell in ("params", "box"):
        assert kernel.execute(CELLS[cell], cell).status == "ok"
    assert kernel.execute("mine = Box(1)").status == "ok"
    failed = kernel.execute("%flow run lr=2")
    assert failed.ename == "RunFailed"
    hint = re.search(r"`(%flow load \S+)`", failed.traceback)
    assert hint is not None, failed.traceback
    assert kernel.execute(hint[1]).stdout.startswith("d/1: failed")
    loaded = kernel.execute("%flow load latest/d")
    assert "d/1: failed" in loaded.stdout
    assert "loaded half, x" in loaded.stdout
    assert kernel.execute("(half, x)").result == "(20.0, 0)"
    assert kernel.execute("q = half / x").ename == "ZeroDivisionError"
    assert kernel.execute("%flow load latest/b/2").status == "ok"
    assert kernel.execute("(x, lr, type(box) is Box, type(mine) is Box)").result == "(4, 2.0, True, True)"
    kernel.notebook.edit("d", MENDED["d"])
    resumed = kernel.execute("%flow resume")
    assert resumed.status == "ok", resumed.text
    assert resumed.stdout.index("resume of demo/") < resumed.stdout.index("plan of demo")
    assert kernel.execute("total").result == "45.0"
    assert "✓ d" in kernel.execute("%flow attach").text
    diff = kernel.execute("%flow diff latest latest")
    assert "alike" in diff.text
    assert "#good" in kernel.execute("%flow tag latest good").stdout
    assert "would be removed" in kernel.execute("%flow gc --dry-run --keep 1").text
    assert kernel.execute("%flow run --only k").status == "ok"
    missing = kernel.execute("%flow load latest/nope")
    assert "no step 'nope'" in missing.text or "neither a step" in missing.text


def test_load_what_a_step_run_by_hand_was_given(kernel: Kernel) -> None:
    kernel.notebook.insert("bad", "%%step bad\nparts = [lr / x for x in xs]", before="b")
    for cell in ("params", "box", "a"):
        assert kernel.execute(kernel.notebook.cells[cell], cell).status == "ok"
    assert kernel.execute(kernel.notebook.cells["bad"], "bad").ename == "ZeroDivisionError"
    assert kernel.execute("%flow status").status == "ok"  # stores all that cells have left: it is written behind them
    (by_hand,) = nbflow.Flow("demo").runs()
    assert by_hand["bad"].task.load_inputs() == {"lr": 0.5, "xs": [1, 0, 4]}
    assert kernel.execute("xs = lr = None").status == "ok"
    loaded = kernel.execute(f"%flow load {by_hand.id}/bad --cell")
    assert "loaded lr, xs" in loaded.stdout
    assert loaded.reply["payload"][0]["text"] == "parts = [lr / x for x in xs]"
    assert kernel.execute("(lr, xs)").result == "(0.5, [1, 0, 4])"


def test_a_run_in_the_background_tells_its_end(kernel: Kernel) -> None:
    kernel.notebook.edit("d", MENDED["d"])
    kernel.notebook.edit("a", "%%step a\nimport time\ntime.sleep(1)\nxs = [1, 0, 4]\nbox = Box(10)")
    begun = kernel.execute("%flow run --background")
    assert "runs in the background" in begun.stdout
    assert not re.search(r"demo · \S+ · done", begun.text), "the prompt came back when the run had ended"
    (place,) = [message for message in begun.messages if message["msg_type"] == "display_data"]
    assert kernel.execute("1 + 1").result == "2"
    waited = kernel.execute(
        "import time\nsession = get_ipython().nbflow_extension[0]\n"
        "for _ in range(200):\n    time.sleep(0.05 * session.is_running)"
    )
    assert waited.status == "ok"
    told = begun.text + waited.text + kernel.execute("total").text
    assert "11.25" in told
    assert re.search(r"demo · \S+ · done", told), told
    drawn = [message["content"] for message in waited.messages if message["msg_type"] == "update_display_data"]
    assert {one["transient"]["display_id"] for one in drawn} == {place["content"]["transient"]["display_id"]}
    assert "done" in drawn[-1]["data"]["text/plain"]


def test_debug_after_a_failed_step(kernel: Kernel) -> None:
    kernel.notebook.insert("bad", "%%step bad\nsum_of = sum(xs)\nratio = sum_of / (sum_of - 5)", before="b")
    for cell in ("params", "box", "a"):
        assert kernel.execute(kernel.notebook.cells[cell], cell).status == "ok"
    assert kernel.execute(kernel.notebook.cells["bad"], "bad").ename == "ZeroDivisionError"
    told = kernel.execute("%debug", answers=("p ('seen', xs, sum_of)", "q"))
    assert "('seen', [1, 0, 4], 5)" in told.text
