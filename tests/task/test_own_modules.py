"""Modules beside the notebook are imported as their files are, whatever Python has kept of them compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from tests.support.kernel import Kernel, NotebookFile

pytestmark = pytest.mark.running

CELLS = {
    "read": "%%step read\nimport helper\nfrom tools import inner\nvalue = helper.value, inner.value",
    "each": "%%step each --foreach i in range(40)\nfrom helper import value as taken\nseen = taken",
    "late": (
        "%%step late\nimport importlib.util\nspec = importlib.util.spec_from_file_location('again', 'helper.py')\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "found = module.value\ndel module"
    ),
}


def edit(folder: Path, number: int) -> None:
    """The modules with another value, of the same size and with the same time as before."""
    (folder / "tools").mkdir(exist_ok=True)
    for name in ("helper.py", "tools/__init__.py", "tools/inner.py"):
        path = folder / name
        path.write_text(f"value = {number}\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))


def compiled(folder: Path) -> list[Path]:
    return [*folder.rglob("*.pyc")]


@pytest.fixture(autouse=True)
def folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    return folder


@pytest.mark.parametrize("lane", ["", "spare", "warm"])
def test_edited_within_a_second(lane: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lane and sys.platform != "linux":
        pytest.skip("lanes of Linux")
    monkeypatch.setenv("NBFLOW_LANE", lane)
    path = folder / "flow.ipynb"
    items = 3 if lane == "spare" else 40  # wide enough for workers that are used again
    path.write_text(document_of((CELLS | {"each": CELLS["each"].replace("40", str(items))}).items(), "flow"))
    for number in (1, 2, 3):
        edit(folder, number)
        if number == 2:  # what a person's own Python leaves
            subprocess.run([sys.executable, "-m", "compileall", "-q", "helper.py", "tools"], check=True)
            edit(folder, 3)
            edit(folder, 2)
        run = nbflow.run(path)
        assert run.successful, run.error
        assert (run.data.value, run.data.found) == ((number, number), number)
        assert {task.data.seen for task in run["each"]} == {number}
        assert bool(compiled(folder)) == (number > 1), "nothing is left compiled"
    assert {step.state for step in nbflow.run(path)} == {"reused"}


def test_in_the_kernel(folder: Path) -> None:
    cells = {**CELLS, "plain": "import helper\nprint('plain', helper.value)"}
    with Kernel(NotebookFile(folder / "flow.ipynb", cells)) as kernel:
        for number in (4, 5):
            edit(folder, number)
            kernel.restart()
            assert kernel.ok("plain").stdout == f"plain {number}\n"
            kernel.ok("read", "late")
            assert kernel.value("value, found") == f"(({number}, {number}), {number})"
        assert not compiled(folder)
        kernel.execute("%unload_ext nbflow")
        kernel.execute("import sys\ndel sys.modules['helper']\nimport helper")
        assert len(compiled(folder)) == 1, "without nbflow Python imports as ever"


def test_what_a_step_said_of_a_module_is_said_again_where_it_is_reused(folder: Path) -> None:
    (folder / "notes.py").write_text("seen = []\ndef note(x):\n    seen.append(x)\n    return len(seen)\n")
    path = folder / "flow.ipynb"
    path.write_text(document_of([("imports", "import notes"), ("one", "%%step one\nn = notes.note(1)")], "flow"))
    code = [sys.executable, "-m", "nbflow", "run", str(path)]
    for state in ("done", "reused"):
        said = subprocess.run(code, check=True, capture_output=True, text=True)
        assert f"1 {state}" in said.stdout
        assert "notes" in said.stdout + said.stderr


def test_what_registers_with_a_module_is_made_once_and_found_below(folder: Path) -> None:
    (folder / "desk.py").write_text(
        "waiting, rate = [], 2\n\ndef take(function):\n    waiting.append(function)\n    return function\n\n"
        "class Desk:\n    opened = 0\n    def open(self):\n        Desk.opened += 1\n"
    )
    cells = (
        "import desk\n@desk.take\ndef first():\n    return 1", "rate = desk.rate",
        "@desk.take\ndef second():\n    return 2\nmine = desk.Desk()\nmine.open()",
        "open('desk.py', 'a').write('rate = 9\\n')\nlater = [0]", "opened = desk.Desk.opened",
        "found = [[each() for each in desk.waiting], first(), second(), rate, opened]",
    )  # fmt: skip
    path = folder / "flow.ipynb"
    path.write_text(document_of(((f"c{at}", text) for at, text in enumerate(cells)), "flow"))
    for _ in ("executed", "reused"):
        run = nbflow.run(path, all_cells=True)
        assert run.successful, run.error
        assert run.data.found[:3] == [[1, 2], 1, 2]
        assert run.data.found[4] == 1
        assert run.data.found[3] == run.data.rate
    (folder / "desk.py").write_text((folder / "desk.py").read_text().replace("rate = 9\n", ""))
    assert nbflow.run(path, all_cells=True).data.rate == 2
