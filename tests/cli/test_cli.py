"""The command line as it is used: words in, text, lines of JSON and exit codes out."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from nbflow.cli import app
from nbflow.flow.notebook import document_of
from nbflow.runs import client
from nbflow.runs.command_words import join_optional
from tests.support.stored import StoredRun

RUN_ID = r"\d{8}-\d{6}-[0-9a-f]{9}"
running = pytest.mark.running

DEMO = [
    "%load_ext nbflow",
    "%%params\n# how fast\nlr: float = 0.1\nname: str = 'x'  # what it is called",
    "def area(r):\n    return 3 * r * r",
    "%%step load\nprint('loading')\nxs = [1, 2, 3]",
    "%%step left\ny = sum(xs) * lr",
    "%%step right\nz = area(len(xs))",
    "%%step pick\nbest = max(y, z)\nbest",
]
FAILING = [
    "%%step load\nxs = [0, 1]",
    "%%step bad\nprint('before')\ny = 1 / xs[0]",
    "%%step after\nz = y",
    "%%step other\nw = len(xs)",
]
SLOW = ["%%step quick\nx = 1", "%%step slow\nimport time\nprint('begun', flush=True)\ntime.sleep(60)\ny = x"]


@pytest.fixture(autouse=True)
def folder(folder: Path) -> Path:
    for name, cells in (("demo", DEMO), ("failing", FAILING), ("slow", SLOW)):
        text = document_of(((f"c{number}", source) for number, source in enumerate(cells, 1)), name)
        (folder / f"{name}.ipynb").write_text(text)
    return folder


def nbflow(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "nbflow", *words], capture_output=True, text=True, timeout=100, **more)


def told(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def no_traceback_of_ours(err: str) -> bool:
    return "nbflow/" not in err


# ---------------------------------------------------------------- words that are wrong: nothing runs


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "nope.ipynb"], 2, r"error: there is no notebook 'nope.ipynb'\n  fix: .*demo.ipynb"),
        (["run"], 2, r"error: no notebook was given"),
        (["rnu", "demo.ipynb"], 2, r"error: no command 'rnu'; did you mean 'run'\?\n  fix: known: attach, cancel"),
        (["run", "demo.ipynb", "--worker", "2"], 2, r"error: no option --worker; .*'--workers'\?\n  fix: .*--store"),
        (["run", "demo.ipynb", "--workers", "0"], 2, r"error: .*--workers"),
        (["run", "demo.ipynb", "-p", "lr"], 2, r"error: -p lr: a parameter is written NAME=VALUE"),
        (["run", "demo.ipynb", "-p", "rl=1", "-p", "lr=fast"], 2, r"error: unknown parameter 'rl'.*lr = 'fast'"),
        (["run", "demo.ipynb", "--params", "no.json"], 2, r"error: the parameter file 'no.json' cannot be read"),
        (["run", "demo.ipynb", "--on", "nowhere://x"], 2, r"error: .*nowhere"),
        (["run", "demo.ipynb", "--step", "lood"], 2, r"error: there is no step named 'lood'; did you mean 'load'"),
        (["run", "demo.ipynb", "--fresh", "pikc"], 2, r"error: there is no step named 'pikc'; did you mean 'pick'"),
        (["why", "demo.ipynb", "pikc"], 2, r"error: there is no step named 'pikc'"),
        (["show", "nothing"], 2, r"error: there is no run 'nothing'"),
        (["show", "demo/latest"], 2, r"error: there is no flow 'demo'"),
        (["resume"], 2, r"error: no run has failed in \.nbflow"),
        (["run", "demo.ipynb", "--store", "/proc/nbflow"], 3, r"error: cannot .* the datastore"),
        (["--nope"], 2, r"error: no option --nope"),
    ],
)  # fmt: skip
def test_errors_are_three_lines(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(words) == code
    seen = capsys.readouterr()
    assert seen.out == ""
    assert re.search(message, seen.err), seen.err
    assert no_traceback_of_ours(seen.err)
    assert len(seen.err.splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        ('{"cells": 3, "nbformat": 4}', "its cells are no list"),
        ('{"cells": 3}', "its cells are no list"),
        ('{"cells": [], "nbformat": 4, "metadata": {}}', "no code cells"),
        (document_of([("a", "x = 1")], "n"), "declares no step"),
        (document_of([("a", "%%step a\nx = ")], "n"), "syntax"),
        (document_of([("a", "%%step a --nope 1\nx = 1")], "n"), "nope"),
        (
            document_of([("a", "%%step a\nx = 1"), ("b", "%%step b\ny = x"), ("c", "%%step a\nx = 2")], "n"),
            "both declare",
        ),
        (document_of([("a", "%%step a\nx = y"), ("b", "%%step b\ny = 2")], "n"), "y"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_broken_notebooks(
    command: str, text: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.ipynb").write_text(text)
    assert app.main([command, "broken.ipynb"]) == 2
    seen = capsys.readouterr()
    assert message.lower() in (seen.out + seen.err).lower()
    assert no_traceback_of_ours(seen.err)
    assert not (folder / ".nbflow" / "flows").exists()


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (["--fresh"], ["--fresh"]),
        (["--fresh", "a", "nb"], ["--fresh-step=a", "nb"]),
        (["nb", "--fresh", "--json"], ["nb", "--fresh", "--json"]),
        (["nb", "--fresh=a", "--fresh", "b"], ["nb", "--fresh-step=a", "--fresh-step=b"]),
        (["--write", "out.ipynb", "nb"], ["--write-to=out.ipynb", "nb"]),
        (["--", "--fresh", "a"], ["--", "--fresh", "a"]),
    ],
)
def test_options_that_take_the_next_word(words: list[str], split: list[str]) -> None:
    assert join_optional(words) == split


# ---------------------------------------------------------------- what needs no run


def test_help_lists_the_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", "demo.ipynb", "--help"], ["run", "--help", "demo.ipynb"]):
        assert app.main(words) == 0
        text = capsys.readouterr().out
        assert text.index("--workers") < text.index("Parameters of demo.ipynb")
        assert re.search(r"lr: float\s+how fast \[default 0.1\]", text)
        assert re.search(r"name: str\s+what it is called \[default 'x'\]", text)
    assert app.main(["run", "--help"]) == 0
    assert "Parameters of" not in capsys.readouterr().out


def test_check(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert app.main(["check", "demo.ipynb"]) == 0
    assert capsys.readouterr().out == "ok: demo, 4 steps, 2 parameters\n"
    assert app.main(["check", "demo.ipynb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "findings": []}
    (folder / "broken.ipynb").write_text(document_of([("a", "%%step a\nx = y"), ("b", "%%step b\ny = 2")], "n"))
    assert app.main(["check", "--json", "broken.ipynb"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert {"code", "step", "cell", "line", "name", "message"} <= found["findings"][0].keys()
    assert (found["findings"][0]["code"], found["findings"][0]["name"]) == ("later-only", "y")


def test_dag(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["dag", "demo.ipynb"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"pick\s+← y from left; z from right", text)
    assert app.main(["dag", "demo.ipynb", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in found["steps"] if step["kind"] == "step"] == ["load", "left", "right", "pick"]
    assert found["steps"][-1].keys() == {"name", "cell", "kind", "reads", "writes", "options"}
    assert {"from": "left", "to": "pick", "names": ["y"], "why": "reads"} in found["edges"]


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in ("python", "store", "kernel", "labextension", "document order"):
        assert re.search(rf"(works|missing)\s+{part}", text)
    assert "is writable" in text
    assert app.main(["doctor", "--store", "/proc/nbflow"]) == 1
    assert re.search(r"missing\s+store", capsys.readouterr().out)


def test_past_runs(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = StoredRun(folder, ["%%step a\nprint('x')\nxs = [1, 2]\ngen = (n for n in xs)"], tags=("nightly",))
    record = made.execute("a")
    made.log(record.execution, {"output_type": "stream", "name": "stdout", "text": "out\n"},
             {"output_type": "stream", "name": "stderr", "text": "\x1b[31merr\x1b[0m\n"})  # fmt: skip
    made.log(record.execution, {"output_type": "stream", "name": "stdout", "text": "beside\n"}, rank=1)
    made.end()
    monkeypatch.setenv("NBFLOW_STORE", made.store.url)
    assert app.main(["runs", "--tag", "nightly"]) == 0
    assert re.search(rf"✓ demo/{RUN_ID.replace('[0-9a-f]{9}', '[a-z]{6}')}\s+done", capsys.readouterr().out)
    assert app.main(["runs", "--tag", "weekly"]) == 0
    assert capsys.readouterr().out == "no runs\nlooked in store\n"
    assert app.main(["runs", "--json"]) == 0
    assert told(capsys.readouterr().out)[0]["status"] == "done"
    assert app.main(["show", "demo/latest"]) == 0
    assert "nightly" in capsys.readouterr().out
    assert app.main(["show", f"{made.run}/a"]) == 0
    assert re.search(r"xs\s+list\s+2.*\[1, 2\]", capsys.readouterr().out)
    assert app.main(["show", "demo/latest/a/xs"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "[1, 2]"
    assert app.main(["show", "demo/latest/gen"]) == 0
    assert "not stored" in capsys.readouterr().out
    assert app.main(["show", "demo/latest/a/ys"]) == 2
    assert "did you mean 'xs'" in capsys.readouterr().err
    assert app.main(["logs", "demo/latest/a"]) == 0
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("out\n", "err\n")
    assert app.main(["logs", "demo/latest/a", "--attempt", "3"]) == 2
    assert app.main(["logs", "demo/latest/a", "--rank", "1"]) == 0
    assert capsys.readouterr().out == "beside\n"
    assert app.main(["logs", "demo/latest/a", "--rank", "2"]) == 2
    assert "a has no rank 2" in (said := capsys.readouterr().err)
    assert "its ranks are 0, 1" in said
    assert app.main(["logs", "demo/latest"]) == 2
    assert app.main(["cancel", "demo/latest"]) == 0
    assert app.main(["show", "demo/latest", "--notebook", "written.ipynb"]) == 0
    written = nbformat.read("written.ipynb", 4)
    nbformat.validate(written)
    assert written.cells[0].outputs[0].text == "a printed\n"
    assert app.main(["show", "demo/latest/a", "--notebook", "x.ipynb"]) == 2


# ---------------------------------------------------------------- real runs


@running
def test_run_reuse_plan_why() -> None:
    first = nbflow("run", "-p", "lr=10", "demo.ipynb", "--tag", "t")
    assert (first.returncode, first.stderr) == (0, "")
    assert "load | loading" in first.stdout
    assert re.search(r"4 done; details: nbflow show demo/" + RUN_ID, first.stdout)
    run = client.Run("demo/latest")
    assert (run.data.best, run.params.lr, run.tags) == (60.0, 10.0, ("t",))
    again = nbflow("run", "demo.ipynb", "-p", "lr=10")
    assert "4 reused" in again.stdout
    assert f"from {run.id}" in again.stdout
    plan = told(nbflow("plan", "demo.ipynb", "-p", "lr=0.5", "--json").stdout)[0]
    actions = {task["step"]: task["action"] for task in plan["tasks"]}
    assert actions == {"load": "reuse", "left": "run", "right": "reuse", "pick": "run"}
    why = told(nbflow("why", "demo.ipynb", "left", "-p", "lr=0.5", "--json").stdout)[0]
    assert why["action"] == "run"
    reason = why["reasons"][0]
    assert (reason["code"], reason["before"], reason["after"]) == ("parameter", "10.0", "0.5")
    assert "parameter: lr: 10.0 → 0.5" in nbflow("why", "demo.ipynb", "left", "-p", "lr=0.5").stdout
    fresh = nbflow("run", "demo.ipynb", "-p", "lr=10", "--fresh", "right")
    assert "1 done, 3 reused" in fresh.stdout
    assert "4 done" in nbflow("run", "--fresh", "demo.ipynb", "-p", "lr=10").stdout
    partly = told(nbflow("run", "demo.ipynb", "--step", "right", "--json").stdout)[-1]
    assert partly["counts"]["reused"] == 2


@running
def test_failing_run_and_resume(folder: Path) -> None:
    failed = nbflow("run", "failing.ipynb")
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr
    assert re.search(
        r"error: bad failed: ZeroDivisionError: division by zero\n  where: step bad, .*line 3\n", failed.stderr
    )
    assert no_traceback_of_ours(failed.stderr)
    assert "1 failed, 1 cancelled, 2 done" in failed.stdout
    logs = nbflow("logs", "failing/latest/bad")
    assert logs.stdout == "before\n"
    assert "ZeroDivisionError" in logs.stderr
    assert "\x1b" not in logs.stderr
    text = (folder / "failing.ipynb").read_text().replace("1 / xs[0]", "1 / xs[1]")
    (folder / "failing.ipynb").write_text(text)
    resumed = nbflow("resume")
    assert resumed.returncode == 0
    assert re.search(r"resume of failing/.*, failed\nplan of failing\n  ↺ load", resumed.stdout)
    assert "2 done, 2 reused" in resumed.stdout
    assert "4 reused" in nbflow("resume").stdout


@running
def test_json_lines_hold_the_whole_run() -> None:
    found = nbflow("run", "failing.ipynb", "--json")
    assert found.returncode == 1
    events = told(found.stdout)
    assert {event["v"] for event in events} == {1}
    assert len({event["run"] for event in events}) == 1
    assert all(isinstance(event["t"], float) for event in events)
    assert events[0]["kind"] == "plan"
    assert [task["step"] for task in events[0]["tasks"]] == ["load", "bad", "after", "other"]
    assert events[0]["tasks"][0].keys() == {"step", "index", "action", "reasons"}
    tasks = [event for event in events if event["kind"] == "task"]
    last = {event["step"]: event for event in tasks}
    assert {name: event["state"] for name, event in last.items()} == {
        "load": "done", "bad": "failed", "after": "cancelled", "other": "done",
    }  # fmt: skip
    assert last["bad"]["error"]["type"] == "ZeroDivisionError"
    assert last["bad"]["error"]["line"] == 3
    assert last["load"]["elapsed"] >= 0
    outputs = [event for event in events if event["kind"] == "output"]
    assert (
        "".join(event["text"] for event in outputs if event["step"] == "bad" and event.get("name") == "stdout")
        == "before\n"
    )
    summary = events[-1]
    assert summary["kind"] == "summary"
    assert (summary["flow"], summary["status"]) == ("failing", "failed")
    assert summary["counts"] == {"done": 2, "reused": 0, "failed": 1, "caught": 0, "skipped": 0, "cancelled": 1}
    assert "ZeroDivisionError" in summary["error"]
    assert Path(summary["store"]).name == ".nbflow"


def begin(words: Sequence[str], **more: Any) -> subprocess.Popen[str]:
    """A run of the slow notebook that has begun with its slow step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nbflow", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )
    for line in process.stdout or ():
        if "begun" in line:
            return process
    raise AssertionError(process.communicate())


@running
def test_interrupt_cancels(folder: Path) -> None:
    process = begin(["run", "slow.ipynb"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, (out, err)
    assert "press Ctrl-C again to kill" in err
    run = client.Run("slow/latest")
    assert run.status == "cancelled"
    assert {step.name: step.state for step in run} == {"quick": "done", "slow": "cancelled"}
    assert nbflow("plan", "slow.ipynb").stdout.splitlines()[1].split()[1:3] == ["quick", "reuse"]


@running
def test_second_interrupt_kills() -> None:
    process = begin(["run", "slow.ipynb", "--json"])
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started < 10


@running
def test_cancel_from_outside() -> None:
    process = begin(["run", "slow.ipynb"])
    asked = nbflow("cancel", "slow/latest")
    assert "was asked to stop" in asked.stdout
    process.communicate(timeout=40)
    assert process.returncode == 130


@running
def test_live_table_in_a_terminal() -> None:
    """In a terminal the table is drawn in place, and what is left is the table at the end."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nbflow", "run", "demo.ipynb"], stdout=other, stderr=other,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )  # fmt: skip
    os.close(other)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "\x1b[?25l" in text
    assert "load │ " in re.sub(r"\x1b\[[0-9;]*m", "", text)
    final = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text[text.rindex("\x1b[?25h") :])
    assert re.search(r"✓ pick\s+done", final)


@running
def test_output_that_nobody_reads_any_more() -> None:
    process = subprocess.Popen(
        f"{sys.executable} -m nbflow runs --json | head -c 0; {sys.executable} -m nbflow dag demo.ipynb | head -n 1",
        shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


@running
def test_the_executed_notebook_is_written_and_can_be_run(folder: Path) -> None:
    done = nbflow("run", "--write", "demo.ipynb", "-p", "lr=0.5")
    assert done.returncode == 0, done.stderr
    assert "wrote demo.executed.ipynb" in done.stdout + done.stderr
    again = nbflow("run", "demo.executed.ipynb", "-p", "name=y", "--write", "again.ipynb", "--json")
    assert again.returncode == 0, again.stderr
    assert told(again.stdout)[-1]["counts"]["reused"] == 4  # the values of the first run are the notebook's own now
    for name, lines in (("demo.executed.ipynb", "lr = 0.5\n"), ("again.ipynb", "lr = 0.5\nname = 'y'\n")):
        written = nbformat.read(folder / name, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(written)
        injected, load, pick = written.cells[2], written.cells[4], written.cells[-1]
        assert (injected.metadata["tags"], injected.source) == (["injected-parameters"], f"# Parameters\n{lines}")
        assert [one.text for one in load.outputs] == ["loading\n"]
        assert [one.data["text/plain"] for one in pick.outputs] == ["27"]
    failed = nbflow("run", "failing.ipynb", "--write", "failed.ipynb")
    assert failed.returncode == 1
    bad = nbformat.read(folder / "failed.ipynb", as_version=4).cells[1]  # type: ignore[no-untyped-call]
    assert [one.output_type for one in bad.outputs] == ["stream", "error"]
