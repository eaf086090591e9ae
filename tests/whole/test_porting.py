"""What porters stumble over: joins of branches, values of other steps, private names, effects that are not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow import reference
from nbflow.errors import PlanError
from nbflow.exporters.exporter import Environment, Options
from nbflow.exporters.metaflow import MetaflowExporter
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import document_of, parse_document
from nbflow.model import Flow
from tests.support.kernel import Kernel, NotebookFile

running = pytest.mark.running

BRANCHES = {
    "data": "%%step data\nxs = [3, 1, 2]",
    "left": "%%step left\nscore = max(xs)\nmodel = {'kind': 'left'}",
    "right": "%%step right-hand\nscore = min(xs)",
    "pick": "%%step pick --join left,right-hand\nboth = inputs.left.score - inputs['right-hand'].score\n"
            "best = max(inputs, key=lambda branch: branch.score)\nchosen, given = best.item, best.xs\n"
            "rows = inputs.frame()['score'].tolist()",
    "end": "%%step end\ndone = (both, chosen, given, rows, score)",
}  # fmt: skip
DONE = (2, "left", [3, 1, 2], [3, 1], 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))


def flow_of(*cells: str) -> Flow:
    text = document_of([(str(at), cell) for at, cell in enumerate(cells, start=1)], "ported")
    return build_flow(parse_document(text, name="ported", folder="/nowhere"))


# ---------------------------------------------------------------- joins of branches


@running
def test_a_join_of_branches_sees_what_each_has_left(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "branches.ipynb", BRANCHES)
    assert reference.run(notebook.path)["done"] == DONE
    run = nbflow.run(notebook.path)
    assert (run.successful, run.data.done) == (True, DONE), run.error
    again = nbflow.run(notebook.path)
    assert {step.state for step in again.steps()} == {"reused"}
    notebook.edit("left", BRANCHES["left"].replace("max(xs)", "max(xs) + 1"))
    third = nbflow.run(notebook.path)
    assert {step.name: step.state for step in third.steps()} == {
        "data": "reused", "left": "done", "right-hand": "reused", "pick": "done", "end": "done",
    }  # fmt: skip
    assert third.data.both == 3


@running
def test_a_join_of_branches_by_hand(tmp_path: Path) -> None:
    with Kernel(NotebookFile(tmp_path / "branches.ipynb", BRANCHES)) as kernel:
        kernel.ok(*BRANCHES)
        assert kernel.value("done") == repr(DONE)


@running
def test_what_a_branch_has_not_left_is_said(tmp_path: Path) -> None:
    cells = BRANCHES | {"pick": "%%step pick --join left,right-hand\nboth = inputs.left.scor"}
    del cells["end"]
    run = nbflow.run(NotebookFile(tmp_path / "branches.ipynb", cells).path)
    assert "left has no 'scor'; did you mean 'score'?; it has model, score, xs" in run.error
    cells["pick"] = "%%step pick --join left,right-hand\nboth = inputs.lef.score"
    run = nbflow.run(NotebookFile(tmp_path / "branches.ipynb", cells).path)
    assert "inputs has no 'lef'; did you mean 'left'?; it has the branches left, right-hand" in run.error


def test_a_join_of_branches_in_the_graph() -> None:
    flow = flow_of(*BRANCHES.values())
    assert not flow.findings
    assert flow.step("pick").needs == ("left", "right-hand")
    assert [(edge.frm, edge.why) for edge in flow.edges if edge.to == "pick"] == [
        ("left", "join"),
        ("right-hand", "join"),
    ]
    mixed = flow_of("%%step a --foreach x in [1, 2]\ny = x", "%%step b\nz = 1", "%%step c --join a,b\nw = len(inputs)")
    assert [finding.message for finding in mixed.findings] == ["--join b: b is in no fan-out, and the others are"]


def test_a_join_of_branches_is_no_metaflow() -> None:
    with pytest.raises(PlanError, match="--join of pick joins branches"):
        MetaflowExporter().export(flow_of(*BRANCHES.values()), Environment(), Options(file="flow.py"))


# ---------------------------------------------------------------- messages that say the remedy


def test_a_private_name_that_is_read_below() -> None:
    (finding,) = flow_of("%%step a\n_rows = [1]\nx = 1", "%%step b\ny = _rows + [x]").findings
    assert finding.message.startswith("b reads '_rows', which is private to a (cell 1)")
    assert finding.fix == "call it rows in both cells, or make it in a plain cell"


def test_what_is_carried_says_how_to_keep_each_items_own_copy() -> None:
    (finding,) = flow_of("%%step a\ntable = {}", "%%step b --foreach x in [1, 2]\ntable[x] = x").findings
    assert finding.code == "carried"
    assert "(`own = table.copy()`) to keep each item's own copy" in (finding.fix or "")


@running
def test_a_name_of_another_step_is_pointed_to(tmp_path: Path) -> None:
    cells = {
        "p": "%%params\nlr: float = 0.5",
        "a": "%%step a\nmodel = [1]",
        "end": "%%step end\nsize = len(model) * lr",
    }
    end = nbflow.run(NotebookFile(tmp_path / "ported.ipynb", cells).path)["end"].task
    for name in ("model", "lr"):
        with pytest.raises(AttributeError, match=rf"did not make '{name}': .*`run\.data\.{name}` has the run's last"):
            getattr(end.data, name)
    with pytest.raises(AttributeError, match=r"has no 'models'.*names: size"):
        end.data.models


@running
def test_an_effect_that_is_not_repeated_is_told(tmp_path: Path) -> None:
    cells = {
        "a": "%%step a\nx = [1]",
        "send": "%%step send\nimport subprocess\nsubprocess.run(['true'])\nprint('sent')",
    }
    path = NotebookFile(tmp_path / "ported.ipynb", cells).path
    nbflow.run(path)
    run = nbflow.run(path)
    assert [code for code, _ in run["send"].task.reasons] == ["reused", "effect"]
    assert [code for code, _ in run["a"].task.reasons] == ["reused"]
