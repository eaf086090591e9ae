"""`check`: what can be known before a run, at its cell and line, in document order, with the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.model import Finding
from nbflow.runs import launch

CELLS = {
    "i": "import pandas as pd",
    "a": "%%step a\ndf = pd.DataFrame({'x': [1, 2]})",
    "out": "%%step out\ny = df.x.sum() + Out[3]\nz = _ + 1",
    "near": "%%step near\nw = dff.x.sum()",
    "early": "%%step early\n\nq = later + 1",
    "late": "%%step late\nlater = 2",
    "deleted": "%%step deleted\ngone = 1\ndel gone",
    "after": "%%step after\nkept = gone",
    "twice": "%%step near\nk = 1",
    "star": "%%step star\nfrom os.path import *\nr = joinn(basename('a'))",
    "unknown": "%%step unknown\nfrom not_installed_here import *\nu = perhaps_its_own + 1",
    "broken": "%%step broken\nx = (1,\n",
    "closes": "%%step closes --join nosuch\nn = 1",
    "hidden": "%%step hidden\nexec(str(3))\nx = globals()[str(3)]",
    "never": "%%step never --if False\nnot_made = 1",
    "reader": "%%step reader\nuse = not_made + 1",
    "nothing": "%%step nothing --foreach x in []\nm = x",
    "runs": "%%step runs\n%run other.py",
}


def findings(folder: Path, cells: dict[str, str]) -> list[Finding]:
    path = folder / "demo.ipynb"
    path.write_text(document_of(cells.items(), "demo"))
    return list(launch.check(path).findings)


def test_each_is_named_at_its_place_and_in_order(tmp_path: Path) -> None:
    found = [(each.code, each.level, each.cell, each.line, each.name) for each in findings(tmp_path, CELLS)]
    assert found == [
        ("hidden-state", "error", "out", 2, "Out"),
        ("hidden-state", "error", "out", 3, "_"),
        ("missing-name", "error", "near", 2, "dff"),
        ("later-only", "error", "early", 3, "later"),
        ("missing-name", "error", "after", 2, "gone"),
        ("duplicate-step", "error", "twice", 1, "near"),
        ("missing-name", "error", "star", 3, "joinn"),
        ("star-import", "warning", "unknown", 2, "not_installed_here"),
        ("syntax", "error", "broken", 2, None),
        ("missing-name", "error", "closes", 1, "nosuch"),
        ("dynamic", "warning", "hidden", 2, "exec"),
        ("dynamic", "warning", "hidden", 3, "globals"),
        ("unreachable", "warning", "never", 1, None),
        ("unreachable", "warning", "reader", 1, None),
        ("unreachable", "warning", "nothing", 1, None),
        ("run-magic", "warning", "runs", 2, "%run"),
    ]


def test_each_says_what_to_do(tmp_path: Path) -> None:
    by_cell = {each.cell: each for each in findings(tmp_path, CELLS)}
    assert by_cell["near"].message == "near reads 'dff', which no cell above writes; did you mean 'df'?"
    assert by_cell["early"].message == ("cell 5 (early) reads 'later', which only cell 6 (late) below it writes")
    assert by_cell["never"].message == "never is never run: its --if False is never true"
    assert by_cell["reader"].message == "reader is never run: it reads 'not_made' of never, which is never run"
    assert by_cell["nothing"].message == "nothing is never run: its --foreach goes over [], which is empty"
    assert all(each.fix for each in by_cell.values())


def test_a_broken_step_keeps_only_those_that_need_it_from_running(tmp_path: Path) -> None:
    cells = {"good": "%%step good\nx = 1", "bad": "%%step bad\nq = nowhere + 1", "more": "%%step more\ny = q"}
    path = tmp_path / "demo.ipynb"
    path.write_text(document_of(cells.items(), "demo"))
    assert [row.step for row in nbflow.plan(path, steps=["good"]).tasks] == ["good"]
    for steps in (None, ["more"]):
        with pytest.raises(nbflow.PlanError, match="bad reads 'nowhere'"):
            nbflow.plan(path, steps=steps)


def test_a_good_notebook_has_no_finding(tmp_path: Path) -> None:
    good = {"a": "%%step a\nx = 1", "b": "%%step b --if x > 0\ny = x", "c": "%%step c\nz = [y for _ in range(2)]"}
    assert findings(tmp_path, good) == []


@pytest.mark.running
def test_what_an_earlier_run_could_not_store(tmp_path: Path) -> None:
    """Nobody needed it then; the step that does now runs together with it, or is named before it fails."""
    cells = {"make": "%%step make\nparts = (i for i in range(3))\nx = 1", "use": "%%step use\ny = x"}
    assert findings(tmp_path, cells) == []
    assert nbflow.run(tmp_path / "demo.ipynb").successful
    assert findings(tmp_path, cells) == []
    (note,) = findings(tmp_path, cells | {"use": "%%step use\n\ny = list(parts)"})
    assert (note.code, note.level, note.step, note.name) == ("together", "note", "make", "parts")
    (found,) = findings(tmp_path, cells | {"use": "%%step use --timeout 5s\n\ny = list(parts)"})
    assert (found.code, found.level, found.step, found.cell, found.line, found.name) == (
        "unserializable", "warning", "use", "use", 3, "parts",
    )  # fmt: skip
    assert "generator" in found.message
    assert "use has --timeout" in found.message
    assert "%%setup" in str(found.fix)
    mended = cells | {"make": "%%step make\nparts = [0, 1, 2]\nx = 1", "use": "%%step use\ny = list(parts)"}
    assert findings(tmp_path, mended) == []
