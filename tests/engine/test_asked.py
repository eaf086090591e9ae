"""What a step asked nbflow itself is part of what it depends on: which run a look-up gave, tags, its own run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.runs import launch
from nbflow.runs.run_options import RunOptions
from tests.support.kernel import Kernel, NotebookFile

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("folder")]


def write(name: str, *cells: str) -> Path:
    path = Path(f"{name}.ipynb")
    path.write_text(document_of(((f"c{at}", source) for at, source in enumerate(cells)), name))
    return path


def model(size: int) -> Path:
    return write("model", f"%%step fit\nsize = {size}", "%%step check\nassert size < 100")


def state(run: nbflow.Run, step: str = "read") -> str:
    assert run.error is None, run.error
    return run[step].state


def why(path: Path, step: str = "read", **wishes: Any) -> tuple[str, list[str]]:
    found = launch.why(path, step, RunOptions(**wishes))
    return found["action"], [reason["what"] for reason in found["reasons"]]


LATEST = "from nbflow import Flow, Run\n"


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("Flow('model').latest_run.data.size", "model/latest is a different run now"),
        ("Flow('model').latest_successful_run.data.size", "the latest successful run of model is a different run now"),
        ("Run('model/latest').data.size", "model/latest is a different run now"),
        ("Flow('model')['latest'].data.size", "model/latest is a different run now"),
        ("max(run.data.size for run in Flow('model'))", "the runs of model are different now"),
        ("len(Flow('model').runs(status='done'))", "the runs of model with done are different now"),
        ("len(Flow('model').runs('good'))", "the runs of model with good are different now"),
    ],
)
def test_another_run_since(expression: str, told: str) -> None:
    nbflow.run(model(1), tags=["good"])
    path = write("report", f"%%step read\n{LATEST}seen = {expression}")
    first = nbflow.run(path)
    assert first.data.seen == 1
    assert state(nbflow.run(path)) == "reused"
    assert why(path)[0] == "reuse"
    nbflow.run(model(2), tags=["good"], steps=["fit"])  # a part: the latest run is the same
    if "latest" in expression:
        assert state(nbflow.run(path)) == "reused"
    nbflow.run(model(3), tags=["good"])
    assert why(path) == ("run", [told])
    again = nbflow.run(path)
    assert state(again) == "done"
    assert again.data.seen != first.data.seen
    assert state(nbflow.run(path)) == "reused"


def test_a_failed_run_is_the_latest_and_not_the_latest_successful_one() -> None:
    nbflow.run(model(1))
    latest = write("latest", f"%%step read\n{LATEST}seen = Flow('model').latest_run.status")
    good = write("good", f"%%step read\n{LATEST}seen = Flow('model').latest_successful_run.data.size")
    assert [nbflow.run(path).data.seen for path in (latest, good)] == ["done", 1]
    assert nbflow.run(model(100)).status == "failed"
    runs = [nbflow.run(path) for path in (latest, good)]
    assert [(state(run), run.data.seen) for run in runs] == [("done", "failed"), ("reused", 1)]


def test_what_was_not_there_yet() -> None:
    cell = (
        "%%step read\nfrom nbflow import Flow\nfrom nbflow.errors import NotFoundError\n"
        "try:\n    seen = Flow('model').latest_run.data.size\nexcept NotFoundError:\n    seen = None"
    )
    path = write("report", cell)
    assert nbflow.run(path).data.seen is None
    assert state(nbflow.run(path)) == "reused"
    nbflow.run(model(5))
    assert why(path) == ("run", ["whether the store knows model has changed"])
    assert nbflow.run(path).data.seen == 5


def test_tags_that_are_given_later() -> None:
    run = nbflow.run(model(1))
    path = write("report", f"%%step read\n{LATEST}seen = Run('model/{run.id}').tags", "%%step other\nx = 1")
    assert nbflow.run(path).data.seen == ()
    assert state(nbflow.run(path)) == "reused"
    run.add_tag("best")
    assert why(path) == ("run", [f"the tags of model/{run.id} have changed"])
    again = nbflow.run(path)
    assert (again.data.seen, state(again, "other")) == (("best",), "reused")


def test_a_run_of_its_own_flow() -> None:
    cell = "%%step read\nfrom nbflow import Flow\nseen = Flow('own').latest_run.id"
    path = write("own", cell, "%%step other\nx = 1")
    first = nbflow.run(path)
    assert first.data.seen == first.id, "the run that goes on is the latest"
    assert why(path) == ("run", ["own/latest is a different run now"])
    second = nbflow.run(path)
    assert (second.data.seen, state(second, "other")) == (second.id, "reused")


def test_what_current_says() -> None:
    cells = (
        "%%step tags\nfrom nbflow import current\ntags = current.tags",
        "%%step run\nfrom nbflow import current\nrun = current.run",
        "%%step flow\nfrom nbflow import current\nis_flow, flow = current.is_flow, current.flow",
        "%%step attempt\nfrom nbflow import current\nattempt = current.attempt",
        "%%step name\nfrom nbflow import current\nname = current.step",
    )
    path = write("said", *cells)
    first = nbflow.run(path, tags=["a"])
    assert (first.data.tags, first.data.run) == (("a",), first.id)
    assert [why(path, step, tags=["a"])[0] for step in ("tags", "run", "flow", "attempt")] == [
        "reuse", "run", "reuse", "reuse",
    ]  # fmt: skip
    assert why(path, "run", tags=["a"])[1] == [f"current.run: {first.id} → another one"]
    assert why(path, "tags", tags=["b"]) == ("run", ["current.tags: a → b"])
    second = nbflow.run(path, tags=["a"])
    assert {step.name: step.state for step in second} == {
        "tags": "reused", "run": "done", "flow": "reused", "attempt": "reused", "name": "reused",
    }  # fmt: skip
    assert second.data.run == second.id
    third = nbflow.run(path, tags=["b", "c"])
    assert third.data.tags == ("b", "c")
    renamed = nbflow.run(write("said", *cells[:-1], cells[-1].replace("%%step name", "%%step title")), tags=["a"])
    assert (state(renamed, "title"), renamed.data.name) == ("done", "title")


def test_a_module_asks(folder: Path) -> None:
    (folder / "asking.py").write_text(
        "from nbflow import current\ndef place():\n    return current.index, current.task"
    )
    path = write("asks", "%%step each --foreach x in [7, 7]\nfrom asking import place\nseen = place()")
    for _ in range(2):
        run = nbflow.run(path)
        assert [task.data.seen for task in run["each"]] == [(0, "each/0"), (1, "each/1")]


def test_by_hand(folder: Path) -> None:
    nbflow.run(model(1))
    cells = {
        "read": "%%step read\nfrom nbflow import Flow\nsize = Flow('model').latest_run.data.size",
        "said": "%%step said\nfrom nbflow import current\nflow, run = current.is_flow, current.run",
        "use": "%%step use\ndouble = size * 2",
    }
    notebook = NotebookFile(folder / "report.ipynb", cells)
    with Kernel(notebook) as kernel:
        kernel.ok("read", "said", "use")
        hand = json.loads(kernel.value("run").replace("'", '"'))
        run = nbflow.run(notebook.path)
        assert [run[step].state for step in cells] == ["reused", "done", "reused"]
        assert (run.data.flow, run.data.run) == (True, run.id)
        kernel.restart()
        assert "reused from" in kernel.ok("read").stdout
        assert "reused" not in kernel.ok("said").stdout
        assert json.loads(kernel.value("run").replace("'", '"')) not in (hand, run.id)
        nbflow.run(model(4))
        kernel.restart()
        assert "reused" not in kernel.ok("read").stdout
        assert kernel.value("size") == "4"
    run = nbflow.run(notebook.path)
    assert (run["read"].state, run.data.double) == ("reused", 8)


def test_another_store(folder: Path) -> None:
    nbflow.run(model(1), store="elsewhere")
    path = write(
        "report", "%%step read\nfrom nbflow import Flow\nseen = Flow('model', store='elsewhere').latest_run.data.size"
    )
    assert nbflow.run(path).data.seen == 1
    assert state(nbflow.run(path)) == "reused"
    nbflow.run(model(2), store="elsewhere")
    assert nbflow.run(path).data.seen == 2
