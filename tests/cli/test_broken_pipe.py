"""A run that somebody watches who goes away: `nbflow run NB | head -2` runs to its end, with the run's exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

import nbflow
from nbflow.flow.notebook import document_of

pytestmark = [
    pytest.mark.running,
    pytest.mark.usefixtures("folder"),
    pytest.mark.skipif(sys.platform == "win32", reason="closes pipes"),
]

TALK = "%%step talk\nfor number in range(300):\n    print('line', number, 'x' * 200)"
WAIT = "%%step wait\nimport os, time\nwhile not os.path.exists(os.path.join('stop', 'go')):\n    time.sleep(0.01)"
LAST = "%%step last\nprint('after')\ncount = number"


def begin(*words: str, last: str = LAST, out: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    cells = (TALK, WAIT, last)
    Path("long.ipynb").write_text(document_of(((f"c{at}", source) for at, source in enumerate(cells)), "long"))
    command = [sys.executable, "-m", "nbflow", "run", "long.ipynb", *words]
    return subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)


def go(folder: Path) -> None:
    (folder / "stop").mkdir()
    (folder / "stop" / "go").touch()


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["lines", "json"])
@pytest.mark.parametrize(
    ("last", "code", "status"),
    [(LAST, 0, "done"), ("%%step last\n1 / (number - 299)", 1, "failed")],
    ids=["works", "fails"],
)
def test_the_reader_goes(words: tuple[str, ...], last: str, code: int, status: str, folder: Path) -> None:
    with begin(*words, last=last) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        go(folder)
        told = process.stderr.read()
        assert process.wait(timeout=100) == code
    assert "Broken" not in told
    assert ("ZeroDivisionError" in told) == (code == 1 and not words), "standard error is still read"
    run = nbflow.Run("long/latest")
    assert (run.status, run["wait"].state) == (status, "done")


def test_nobody_reads_errors(folder: Path) -> None:
    with begin(last="%%step last\n1 / 0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        go(folder)
        told = process.stdout.read()
        assert process.wait(timeout=100) == 1
    assert "last" in told
    assert nbflow.Run("long/latest").status == "failed"


def test_cancelled_where_nobody_reads() -> None:
    with begin() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "wait" not in process.stdout.readline():
            pass
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=100) == 130
    assert nbflow.Run("long/latest").status == "cancelled"


def test_a_full_disk_behind_standard_output(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    go(folder)
    with Path("/dev/full").open("w") as full, begin("--json", out=full) as process:
        _, told = process.communicate(timeout=100)
    assert (process.returncode, nbflow.Run("long/latest").status) == (0, "done"), told
