"""Which flow a notebook is: renamed and moved ones keep their runs, copies have their own, wherever the store lies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import AmbiguousFlow, FormatError, NotFoundError, UntrustedError
from nbflow.flow.notebook import document_of, read_notebook
from nbflow.model import FORMAT
from nbflow.runs import client
from nbflow.store import flows
from nbflow.store.flows import SoughtFlow, StoredFlow, claim_flow, find_flow, match
from nbflow.store.location import Store, open_store
from tests.support.kernel import Kernel, NotebookFile
from tests.support.places import STORE

CELLS = {"pick": "%%step pick\nxs = [3, 1, 2]", "sort": "%%step sort\nys = sorted(xs)\nys"}


@pytest.fixture(autouse=True)
def folder(inner_folder: Path) -> Path:
    return inner_folder


def write(path: str, cells: dict[str, str] | None = None, name: str = "") -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(document_of((cells or CELLS).items(), name))
    document["metadata"] = {"nbflow": {"flow": name}} if name else {}
    place.write_text(json.dumps(document), encoding="utf-8")
    return place


def claim(store: Store, path: str) -> StoredFlow:
    return claim_flow(store, read_notebook(path))


# ---------------------------------------------------------------- the rule


@dataclass(frozen=True)
class Case:
    """A notebook at a path with these cells, what the store knows, files that are there; which flow it is."""

    path: str
    cells: str = "abcd"
    known: tuple[StoredFlow, ...] = ()
    there: tuple[str, ...] = ()
    expected: str | None = None
    host: str = "here"
    replaced: bool = False


def flow(folder: str, *paths: str, cells: str = "abcd", host: str = "here") -> StoredFlow:
    return StoredFlow(folder, "train", paths, tuple(cells), host, id="1")


CASES = {
    "the same path": Case("../train.ipynb", known=(flow("f", "../train.ipynb"),), expected="f"),
    "the same path, every cell rewritten": Case("../n.ipynb", "wxyz", (flow("f", "../n.ipynb"),), expected="f"),
    "the same path, another notebook in its place": Case(
        "../n.ipynb", "wxyz", (flow("f", "../n.ipynb"),), replaced=True
    ),
    "nothing is known": Case("../train.ipynb"),
    "moved": Case("../b.ipynb", known=(flow("f", "../a.ipynb"),), expected="f"),
    "moved and half of it rewritten": Case("../b.ipynb", "abyz", (flow("f", "../a.ipynb"),), expected="f"),
    "moved and most of it rewritten": Case("../b.ipynb", "axyz", (flow("f", "../a.ipynb"),)),
    "a longer one that holds all its cells": Case("../b.ipynb", "abcdefghij", (flow("f", "../a.ipynb"),), expected="f"),
    "a copy beside its original": Case("../b.ipynb", known=(flow("f", "../a.ipynb"),), there=("../a.ipynb",)),
    "moved back": Case("../a.ipynb", known=(flow("f", "../a.ipynb", "../b.ipynb"),), expected="f"),
    "a copy where it was before it moved": Case(
        "../a.ipynb", known=(flow("f", "../a.ipynb", "../b.ipynb"),), there=("../b.ipynb",)
    ),
    "another notebook where it was before it moved": Case(
        "../a.ipynb", "wxyz", (flow("f", "../a.ipynb", "../b.ipynb"),), ("../b.ipynb",)
    ),
    "one of two that are gone: the one of its name": Case(
        "../new/b.ipynb", known=(flow("f", "../a.ipynb"), flow("g", "../b.ipynb")), expected="g"
    ),
    "one of two that are gone: the one that shares most": Case(
        "../c.ipynb", "abxy", (flow("f", "../a.ipynb", cells="abzw"), flow("g", "../b.ipynb", cells="abxw")),
        expected="g",
    ),
    "the same path on another machine, another notebook": Case("/home/jo/n.ipynb", "wxyz", (
        flow("f", "/home/jo/n.ipynb", host="there"),
    )),
    "the same path on another machine, the same notebook": Case("/home/jo/n.ipynb", "abcz", (
        flow("f", "/home/jo/n.ipynb", host="there"),
    ), expected="f"),
    "the same checkout on another machine": Case("/home/al/n.ipynb", known=(
        flow("f", "/home/jo/n.ipynb", host="there"),
    ), expected="f"),
    "one that had no file is saved": Case("../train.ipynb", known=(flow("f"),), expected="f"),
    "without a file": Case("", "ab", (flow("f", cells="ab"),), expected="f"),
    "without a file, others have one": Case("", known=(flow("f", "../train.ipynb"),)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_which_flow_a_notebook_is(case: Case) -> None:
    found = match(
        case.known,
        SoughtFlow("train", case.path, tuple(case.cells), case.host),
        lambda _, path: path in case.there,
        lambda _: case.replaced,
    )
    assert (found.folder if found else None) == case.expected


# ---------------------------------------------------------------- in a store


@pytest.mark.running
def test_the_layout(folder: Path) -> None:
    run = nbflow.run(write("train.ipynb"))
    (name,) = (each.name for each in (folder / ".nbflow" / "flows").iterdir())
    stem, _, identity_ = name.rpartition("-")
    assert stem == "train"
    about = json.loads((folder / ".nbflow" / "flows" / name / "flow.json").read_text())
    assert about == {
        "id": identity_, "name": "train", "paths": ["../train.ipynb"], "cells": ["pick", "sort"], "host": about["host"],
    }  # fmt: skip
    inside = {each.name for each in (folder / ".nbflow" / "flows" / name / "runs" / run.id).iterdir()}
    assert {"events", "notebook.ipynb"} <= inside <= {"events", "notebook.ipynb", "logs", "beats"}
    assert json.loads((folder / ".nbflow" / "nbflow.json").read_text())["format"] == FORMAT
    assert json.loads(Path("train.ipynb").read_text())["metadata"] == {}  # nothing of it stands in the notebook


@pytest.mark.running
def test_a_renamed_and_moved_notebook_keeps_its_runs(folder: Path) -> None:
    write("train.ipynb")
    first = nbflow.run("train.ipynb")
    Path("models").mkdir()
    Path("train.ipynb").rename("models/fit.ipynb")
    store = str(folder / ".nbflow")
    second = nbflow.run("models/fit.ipynb", store=store)
    assert {step.state for step in second} == {"reused"}
    assert [run.id for run in client.Flow("fit").runs()] == [second.id, first.id]
    assert {run.flow for run in client.Flow("fit")} == {"fit"}
    assert client.Run(first.id).flow == "fit"
    assert repr(client.Run(first.id)).startswith(f"fit · {first.id}")
    assert client.Run(f"fit/{first.id}").data.ys == [1, 2, 3]
    with pytest.raises(NotFoundError, match="no flow 'train'"):
        client.Flow("train")
    write("train.ipynb", {"other": "%%step other\nz = 1"})
    third = nbflow.run("train.ipynb")
    assert [run.id for run in client.Flow("train").runs()] == [third.id]
    assert len(client.Flow("fit").runs()) == 2


@pytest.mark.running
@pytest.mark.parametrize("new_first", [True, False])
def test_a_new_notebook_in_the_place_of_a_renamed_one_has_no_runs(folder: Path, new_first: bool) -> None:
    """JupyterLab asks for a name at the first save and calls the next notebook Untitled.ipynb again."""
    first = nbflow.run(write("Untitled.ipynb"))
    Path("Untitled.ipynb").rename("analysis.ipynb")
    write("Untitled.ipynb", {"8d2e": "%%step load\nx = 1"})
    store = open_store(".nbflow")
    assert find_flow(store, read_notebook("Untitled.ipynb")) is None
    order = ["Untitled.ipynb", "analysis.ipynb"] if new_first else ["analysis.ipynb", "Untitled.ipynb"]
    runs = {path: nbflow.run(path) for path in order}
    assert [run.id for run in client.Flow("analysis").runs()] == [runs["analysis.ipynb"].id, first.id]
    assert [run.id for run in client.Flow("Untitled").runs()] == [runs["Untitled.ipynb"].id]
    assert {step.state for step in runs["analysis.ipynb"]} == {"reused"}


@pytest.mark.running
def test_a_notebook_whose_cells_have_new_ids_is_the_same(folder: Path) -> None:
    """Tools that convert notebooks make all ids anew."""
    first = nbflow.run(write("train.ipynb"))
    write("train.ipynb", {f"new-{name}": source for name, source in CELLS.items()})
    assert nbflow.run("train.ipynb").id in client.Flow("train")
    assert first.id in client.Flow("train")


@pytest.mark.running
def test_a_copy_is_a_flow_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("train.ipynb")
    first = nbflow.run("train.ipynb")
    Path("copy").mkdir()
    shutil.copy("train.ipynb", "copy/train.ipynb")
    second = nbflow.run("copy/train.ipynb", store=".nbflow")
    assert {step.state for step in second} == {"reused"}  # what it computes is the same
    with pytest.raises(AmbiguousFlow) as caught:
        client.Flow("train")
    places = [str(folder / "train.ipynb"), str(folder / "copy" / "train.ipynb")]
    assert all(place in str(caught.value) for place in places)
    words = {flow.paths[-1]: flow.folder for flow in flows.stored_flows(open_store(".nbflow"))}
    assert all(word in (caught.value.fix or "") for word in words.values())
    assert [run.id for run in client.Flow(words["../train.ipynb"]).runs()] == [first.id]
    assert client.Flow(words["../copy/train.ipynb"]).name == "train"
    assert client.Run(f"train/{second.id}") == second  # a run's id says which
    assert client.Run(f"{words['../copy/train.ipynb']}/latest") == second
    assert app.main(["show", "train/latest"]) == 2
    told = capsys.readouterr().err
    assert "2 flows" in told
    assert all(place in told for place in places)
    assert app.main(["runs"]) == 0
    assert capsys.readouterr().out.count("train/") == 2
    assert app.main(["show", f"{words['../train.ipynb']}/latest/sort/ys"]) == 0


@pytest.mark.running
def test_two_of_one_stem_are_kept_apart(tmp_path: Path) -> None:
    store = f"memory://{tmp_path.name}"
    one = write("a/train.ipynb", {"here": "%%step load\nx = 1"})
    two = write("b/train.ipynb", {"there": "%%step load\nx = 2"})
    first, second = nbflow.run(one, store=store), nbflow.run(two, store=store)
    known = flows.stored_flows(open_store(store))
    assert sorted(flow.paths[-1] for flow in known) == sorted(str(place.resolve()) for place in (one, two))
    plan = nbflow.plan(two, store=store)
    assert [task.action for task in plan.tasks] == ["reuse"]
    assert (first.data.x, second.data.x) == (1, 2)
    assert {run.id for flow in known for run in client.Flow(flow.folder, store=store)} == {first.id, second.id}


@pytest.mark.running
def test_a_whole_folder_may_move_or_be_copied(folder: Path) -> None:
    """A store beside its notebook knows it by where it lies from there."""
    write("train.ipynb")
    first = nbflow.run("train.ipynb")
    shutil.copytree(folder, folder.parent / "copied")
    shutil.move(folder, folder.parent / "moved")
    for name in ("copied", "moved"):
        place = folder.parent / name
        with pytest.raises(UntrustedError):
            nbflow.plan(place / "train.ipynb")
        assert app.main(["trust", str(place)]) == 0
        run = nbflow.run(place / "train.ipynb")
        assert {step.state for step in run} == {"reused"}
        assert [one.id for one in client.Flow("train", store=place / ".nbflow").runs()] == [run.id, first.id]


@pytest.mark.running
def test_cells_without_ids_are_known_by_their_sources(folder: Path) -> None:
    Path("flow.py").write_text("# %%\n# %%step a\nx = 1\n\n# %%\n# %%step b\ny = x + 1\n")
    first = nbflow.run("flow.py")
    Path("flow.py").rename("other.py")
    Path("other.py").write_text(Path("other.py").read_text().replace("x + 1", "x + 2"))
    second = nbflow.run("other.py")
    assert [run.id for run in client.Flow("other").runs()] == [second.id, first.id]


@pytest.mark.running
def test_a_name_in_the_notebook_may_change(folder: Path) -> None:
    first = nbflow.run(write("n.ipynb", name="spring"))
    write("n.ipynb", name="summer")
    second = nbflow.run("n.ipynb")
    assert [run.id for run in client.Flow("summer").runs()] == [second.id, first.id]
    assert app.main(["show", f"spring/{first.id}"]) == 2


@pytest.mark.running
def test_by_hand_and_in_a_run_it_is_the_same_flow(folder: Path) -> None:
    with Kernel(NotebookFile(folder / "train.ipynb", {"ext": "%load_ext nbflow", **CELLS})) as kernel:
        kernel.ok("pick", "sort")
        assert kernel.execute("%flow run").status == "ok"
        shown = kernel.execute("%flow runs --all").text
        assert shown.count("train/") == 2
        shutil.copy(folder / "train.ipynb", folder / "copy.ipynb")
        again = json.loads((folder / "copy.ipynb").read_text())
        again["metadata"] = {"nbflow": {"flow": "train"}}
        (folder / "copy.ipynb").write_text(json.dumps(again))
        nbflow.run("copy.ipynb")
        assert kernel.execute("%flow show latest/sort/ys").result == "[1, 2, 3]"  # its own, though two bear the name
        assert kernel.execute("%flow runs --all").text.count("train/") == 2
    assert len(flows.stored_flows(open_store(".nbflow"))) == 2


# ---------------------------------------------------------------- several processes, old and newer stores

CLAIM = """
import sys
from nbflow.store.flows import claim_flow
from nbflow.flow.notebook import read_notebook
from nbflow.store.location import open_store
store, notebook = open_store(sys.argv[1]), read_notebook(sys.argv[2])
sys.stdin.readline()
store.write("x/" + sys.argv[3], b"1")
print(claim_flow(store, notebook).folder)
"""


@pytest.mark.running
@pytest.mark.parametrize("old", [False, True])
def test_processes_that_come_first_at_once_agree(folder: Path, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder / ".nbflow"
    if old:
        shutil.copytree(STORE / "store", store)
        monkeypatch.setenv("NBFLOW_TRUST", str(store))  # a copy
    shutil.copy(STORE / "harbour.ipynb", folder)
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(store), "harbour.ipynb", str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    told = {process.communicate("go\n")[0].strip() for process in begun}
    assert [process.returncode for process in begun] == [0] * 4
    assert len(told) == 1
    about = json.loads((store / "nbflow.json").read_text())
    assert about.pop("id", "") or old
    assert about == {"format": FORMAT}
    (found,) = flows.stored_flows(open_store(store))
    assert found.folder in told
    assert found.earlier == (("harbour",) if old else ())
    assert len(flows.runs_of(open_store(store), found)) == (4 if old else 0)


def test_a_newer_store_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("train.ipynb")
    (folder / ".nbflow").mkdir()
    (folder / ".nbflow" / "nbflow.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(FormatError):
        nbflow.run("train.ipynb")
    for words in (["run", "train.ipynb"], ["runs"], ["plan", "train.ipynb"]):
        assert app.main(words) == 3
        told = capsys.readouterr().err
        assert f"format {FORMAT + 1}" in told
        assert "upgrade nbflow" in told
    assert [each.name for each in (folder / ".nbflow").iterdir()] == ["nbflow.json"]


@pytest.mark.running
def test_a_torn_file_costs_nothing_but_the_name(folder: Path) -> None:
    write("train.ipynb")
    first = nbflow.run("train.ipynb")
    store = open_store(".nbflow")
    known = find_flow(store, read_notebook("train.ipynb"))
    assert known is not None
    place = folder / ".nbflow" / "flows" / known.folder / "flow.json"
    place.write_bytes(place.read_bytes()[:-10])
    second = nbflow.run("train.ipynb")
    assert [run.id for run in client.Flow("train").runs()] == [second.id, first.id]


def test_what_a_file_says_leads_nowhere_else(folder: Path) -> None:
    write("train.ipynb")
    store = open_store(".nbflow")
    known = claim(store, "train.ipynb")
    place = f"flows/{known.folder}/flow.json"
    store.write(place, json.dumps({**json.loads(store.read(place)), "earlier": ["../..", "a/b", ""]}).encode())
    assert flows.runs_of(store, claim(store, "train.ipynb")) == []
