"""Runs beside and after each other: several at once, cancelled and followed from elsewhere, tagged, compared."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import OptionError
from nbflow.flow.notebook import document_of
from nbflow.model import Snapshot, TaskChanged, TaskOutput
from nbflow.runs import compare
from tests.support.waiting import eventually

pytestmark = pytest.mark.running

CELLS = [
    "%%params\nlr: float = 0.5\nslow: float = 0.0",
    "%%step load\nxs = [1, 2]\nprint('loaded', len(xs))",
    (
        "%%step fit --foreach x in xs\nimport time\nfor turn in range(4):\n    print('turn', turn, flush=True)\n"
        "    time.sleep(slow)\nscore = x * lr"
    ),
    "%%step pick --join fit\nbest = max(entry.score for entry in inputs)\nbest",
]


@pytest.fixture(autouse=True)
def folder(folder: Path) -> Path:
    write(CELLS)
    return folder


def write(cells: list[str], name: str = "demo") -> Path:
    path = Path(f"{name}.ipynb")
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), name))
    return path


def begin(*words: str) -> subprocess.Popen[str]:
    """A run in a process of its own that has begun to print."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nbflow", "run", "demo.ipynb", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout or ():
        if "turn" in line:
            return process
    raise AssertionError(process.communicate())


def test_several_runs_at_once_on_one_store() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "nbflow", "run", "demo.ipynb", "-p", f"lr={lr}", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for lr in (1, 2, 2)
    ]  # fmt: skip
    told = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    ids = [json.loads(out.splitlines()[-1])["run"] for out, _ in told]
    assert [nbflow.Run(run).data.best for run in ids] == [2.0, 4.0, 4.0]
    assert len(nbflow.Flow("demo").runs(status="done")) == 3


def test_follow_and_cancel_from_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    process = begin("-p", "slow=0.3", "--workers", "1")
    run = nbflow.Run("demo/latest")
    assert run.status == "running"
    seen: list[Any] = []

    def watch(snapshot: Snapshot, event: object) -> None:
        seen.append((snapshot.status, event))

    follower = threading.Thread(target=run.follow, args=(watch,))
    follower.start()
    eventually(lambda: any(isinstance(e, TaskOutput) and "turn 0" in e.output.get("text", "") for _, e in seen))
    assert app.main(["cancel", run.id]) == 0
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    follower.join(30)
    assert not follower.is_alive()
    assert (run.status, seen[-1][0]) == ("cancelled", "cancelled")
    states = [(e.task.step, e.state) for _, e in seen if isinstance(e, TaskChanged)]
    assert ("load", "done") in states
    assert ("pick", "cancelled") in states
    text = "".join(e.output["text"] for _, e in seen if isinstance(e, TaskOutput) and e.output.get("name") == "stdout")
    assert text.startswith("loaded 2\nturn 0\n")
    stored = "".join(task.stdout for step in run.steps() for task in step.tasks)
    assert text == stored
    assert app.main(["attach", run.id]) == 130, "a run that has ended is shown from its beginning"
    assert "fit/0 x=1 | turn 0" in capsys.readouterr().out


def test_attach_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    run = nbflow.run("demo.ipynb")
    assert app.main(["attach", run.id, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["run"] for one in told} == {run.id}
    assert [one["kind"] for one in told].count("summary") == 1
    outputs = [one["text"] for one in told if one["kind"] == "output" and one["step"] == "load"]
    assert outputs == ["loaded 2\n"]


def test_tags(capsys: pytest.CaptureFixture[str]) -> None:
    first = nbflow.run("demo.ipynb", tags=("a", "b"))
    second = nbflow.run("demo.ipynb", tags=("b",))
    second.add_tag("c")
    second.remove_tag("b", "never")
    assert (first.tags, second.tags) == (("a", "b"), ("c",))
    assert nbflow.Flow("demo").runs("b") == [first]
    assert app.main(["tag", "demo/latest", "d", "--remove", "c"]) == 0
    assert capsys.readouterr().out.split()[1:] == ["#d"]
    assert app.main(["runs", "--tag", "d"]) == 0
    assert second.id in capsys.readouterr().out
    assert app.main(["runs", "--tag", "c"]) == 0
    assert "no runs" in capsys.readouterr().out
    for bad in ("", "two words", "new\nline", "\x1b[31m", "x" * 200):
        with pytest.raises(OptionError):
            second.add_tag(bad)
        with pytest.raises(OptionError):
            nbflow.run("demo.ipynb", tags=(bad,))


def test_origin_and_metadata(folder: Path) -> None:
    for words in (["init", "-q"], ["add", "demo.ipynb"],
                  ["-c", "user.email=a@b.c", "-c", "user.name=a", "commit", "-qm", "x"]):  # fmt: skip
        subprocess.run(["git", *words], check=True, cwd=folder)
    first = nbflow.run("demo.ipynb")
    second = nbflow.run("demo.ipynb")
    assert {task.reused_from for step in second.steps() for task in step.tasks} == {first.id}
    about = first.metadata
    assert about["commit"].rstrip("+") == subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    assert about["notebook"] == str(folder / "demo.ipynb")
    assert about["user"]
    assert about["host"]
    assert about["pid"]


def test_the_difference_between_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    first = nbflow.run("demo.ipynb")
    write([*CELLS[:3], CELLS[3].replace("max(", "min(").replace("best", "least"), "%%step more\nname = 'x'"])
    second = nbflow.run("demo.ipynb", params={"lr": 2}, tags=("new",))
    found = compare.compare(first, second)
    assert [(one.name, one.before, one.after, one.delta) for one in found.parameters] == [("lr", "0.5", "2.0", 1.5)]
    steps = {step.step: step for step in found.steps}
    assert set(steps) == {"fit", "pick", "more"}
    assert [(one.name, one.before, one.after, one.delta) for one in steps["fit"].artifacts] == [
        ("0/score", "0.5", "2.0", 1.5), ("1/score", "1.0", "4.0", 3.0),
    ]  # fmt: skip
    assert steps["pick"].code == (
        "-best = max(entry.score for entry in inputs)", "-best",
        "+least = min(entry.score for entry in inputs)", "+least",
    )  # fmt: skip
    assert (steps["more"].before, steps["more"].after) == ("", "done")
    shown = compare.as_html(found)
    for words in ("1/score", "+3", "nbflow-out", "absent", "+least = min("):
        assert words in shown
    assert app.main(["diff", first.id, second.id]) == 0
    told = capsys.readouterr().out
    assert "1/score" in told
    assert "(+3)" in told
    assert "absent → done" in told
    assert app.main(["diff", first.id, first.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == []


def test_any_runs_notebook_can_be_written_with_its_outputs(folder: Path) -> None:
    cells = [*CELLS, "%%step bad\nprint('so far')\n1 / (best - best)", "# a plain cell\n'not run'"]
    run = nbflow.run(write(cells))
    assert run.status == "failed"
    write(CELLS[:2])
    assert app.main(["show", f"demo/{run.id}", "--notebook", "out.ipynb"]) == 0
    written = nbformat.read(folder / "out.ipynb", 4)
    nbformat.validate(written)
    assert [cell.source for cell in written.cells] == cells
    shown = {cell.source.split()[1]: cell.outputs for cell in written.cells if cell.source.startswith("%%step")}
    assert shown["load"][0].text == "loaded 2\n"
    assert shown["fit"][0].text == "turn 0\nturn 1\nturn 2\nturn 3\n"
    assert len(shown["fit"]) == 2
    assert shown["pick"][0].data["text/plain"] == "1.0"
    assert [output.output_type for output in shown["bad"]] == ["stream", "error"]
    assert shown["bad"][1].ename == "ZeroDivisionError"


def test_values_are_read_where_their_modules_are_found_by_what_a_cell_has_set(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "beside_it.py").write_text("VALUE = 4")
    (folder / "lib" / "deeper.py").write_text("VALUE = 5")
    path = list(sys.path)
    run = nbflow.run(write([
        f"import sys\nsys.path.insert(0, {str(folder / 'lib')!r})",
        "import beside_it as beside\nimport deeper\ndef total():\n    return beside.VALUE + deeper.VALUE",
        "%%step a\nx = total()",
    ], "paths"))  # fmt: skip
    assert (run.data.x, run.data.total()) == (9, 9)
    assert sys.path == path
