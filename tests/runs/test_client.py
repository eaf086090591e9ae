"""The client on stores that the real records, artifacts and serializers wrote."""

from __future__ import annotations

import datetime as dt
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from nbflow.errors import AmbiguousTask, NotFoundError, TaskError
from nbflow.model import TaskFailure
from nbflow.runs import client
from nbflow.store import records
from nbflow.store.location import open_store
from nbflow.store.settings import write_setting
from tests.support.kernel import Kernel, NotebookFile
from tests.support.stored import StoredRun

CELLS = [
    "import math\nfrom dataclasses import dataclass",
    "SCALE = 3\ndef scaled(x):\n    return x * SCALE",
    """@dataclass
class Point:
    x: int
    y: int
    def size(self):
        return scaled(math.hypot(self.x, self.y)) + offset""",
    "%%step load\nprint('loading')\noffset = 100\npoints = [Point(3, 4), Point(6, 8)]\ntable = {'a': 1}",
    "%%step work\nbest = max(points, key=lambda p: p.size())\nshift = lambda v: v + offset\nfirst = points[0]",
    "%%step late\ntable = {'a': 2}\nhandle = (n for n in range(3))",
]


@pytest.fixture
def stored(tmp_path: Path) -> StoredRun:
    made = StoredRun(
        tmp_path, CELLS, tags=("nightly",), parameters={"lr": "0.5", "name": '"a\\"b"', "when": "2025-01-02"}
    )
    for step in ("load", "work", "late"):
        made.execute(step)
    return made


@pytest.fixture
def run(stored: StoredRun) -> client.Run:
    return client.Run(stored.end(), store=stored.store.url)


def test_run_tells_what_it_was(run: client.Run) -> None:
    assert (run.id, run.flow, run.status) == ("20250101-120000-aaaaaa", "demo", "done")
    assert run.successful
    assert run.finished
    assert run.error is None
    assert run.tags == ("nightly",)
    assert run.params == {"lr": 0.5, "name": 'a"b', "when": "2025-01-02"}
    assert run.params.lr == 0.5
    assert run.created_at <= run.finished_at
    assert run.created_at.tzinfo is not None
    assert isinstance(run.created_at, dt.datetime)
    assert [step.name for step in run.steps()] == ["load", "work", "late"]
    assert {step.state for step in run} == {"done"}


def test_data_is_the_last_version_in_document_order(run: client.Run) -> None:
    assert run.data.table == {"a": 2}
    assert run["load"].task.data.table == {"a": 1}
    assert run.data.offset == 100
    assert run.data.lr == 0.5
    assert "best" in run.data
    assert "SCALE" in dir(run.data)
    assert run.data["table"] == {"a": 2}


def test_classes_of_one_run_are_one_class(run: client.Run) -> None:
    best, points, point = run.data.best, run.data.points, run.data.Point
    assert type(best) is point
    assert all(isinstance(one, point) for one in points)
    again = client.Run("demo/latest", store=run.store)
    assert isinstance(again.data.first, point)
    assert isinstance(again["work"].task.data.first, point)
    assert best == point(6, 8)


def test_functions_find_their_globals(run: client.Run) -> None:
    assert run.data.best.size() == 130.0
    assert run.data.shift(1) == 101
    assert run.data.scaled(2) == 6
    assert run.data.math.pi > 3
    assert run.data.SCALE == 3
    assert inspect.getsource(run.data.scaled) == "def scaled(x):\n    return x * SCALE\n"


@pytest.mark.running
def test_works_in_a_plain_process(run: client.Run) -> None:
    code = (
        "import nbflow.runs.client as c, sys\n"
        f"run = c.Run('demo/latest', store={run.store!r})\n"
        "print(run.data.best.size(), run.data.shift(1), isinstance(run.data.best, run.data.Point))\n"
        "assert sys.modules['__main__'].__dict__ is globals() and 'Point' not in globals()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["130.0", "101", "True"]


def test_a_run_and_a_step_show_what_they_hold(run: client.Run) -> None:
    shown = run._repr_html_()
    for words in ("parameters", ">lr<", ">0.5<", "artifacts", ">points<"):
        assert words in shown
    assert ">best<" in run["work"]._repr_html_()
    assert "<table" in run["late"]._repr_html_()


def test_names_that_are_not_there_name_the_near_ones(run: client.Run) -> None:
    with pytest.raises(AttributeError, match="did you mean 'points'"):
        _ = run.data.point
    with pytest.raises(AttributeError, match="was not stored"):
        _ = run.data.handle
    with pytest.raises(NotFoundError, match="did you mean 'work'"):
        run["wrok"]
    assert not hasattr(run.data, "_repr_html_")
    assert not hasattr(run.data, "nothing")
    with pytest.raises(NotFoundError, match=r"no flow 'dmo'.*did you mean 'demo'"):
        client.Flow("dmo", store=run.store)
    with pytest.raises(NotFoundError, match="no run 'x'"):
        client.Run("demo/x", store=run.store)
    with pytest.raises(NotFoundError):
        client.Run("x", store=run.store)


def test_artifacts_are_seen_without_loading(run: client.Run) -> None:
    found = run["load"].task.artifacts
    assert list(found) == ["offset", "points", "table"]
    assert found["offset"].type == "int"
    assert found["offset"].preview == "100"
    assert found["offset"].nbytes > 0
    assert found["table"].content_id
    assert found["table"].value == {"a": 1}
    late = run["late"].task.artifacts["handle"]
    assert not late.stored
    with pytest.raises(NotFoundError, match="not stored"):
        _ = late.value


EVIL = """%%step bad
class Evil:
    def __reduce__(self):
        return (open, ({path!r}, "w"))
evil = Evil()
harmless = 1"""


def test_only_values_unpickle(tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    made = StoredRun(tmp_path, [EVIL.format(path=str(mark))])
    made.execute("bad")
    run = client.Run(made.end(), store=made.store.url)
    task = run["bad"].task
    for shown in (run, task, run["bad"], client.Flow("demo", store=run.store), *task.artifacts.values()):
        assert shown._repr_html_()
        assert repr(shown)
    assert task.stdout
    assert task.metadata
    assert dir(run.data)
    assert "evil" in run.data
    assert run.data.harmless == 1
    assert not mark.exists()
    with run.data.evil:
        assert mark.exists()


def test_failed_task_has_error_logs_and_attempts(tmp_path: Path) -> None:
    made = StoredRun(tmp_path, ["%%step a\nx = 1", "%%step b\ny = x"])
    made.execute("a")
    failure = TaskFailure(
        type="ValueError", message="no <b>", traceback="cell b, line 1\nValueError", cell="c2", line=1
    )
    for attempt in (1, 2):
        made.log(f"e{attempt}",
                 {"output_type": "stream", "name": "stdout", "text": f"try {attempt}\n"},
                 {"output_type": "stream", "name": "stderr", "text": "careful\n"},
                 {"output_type": "stream", "name": "stdout", "text": "end"})  # fmt: skip
        made.tell("b", "failed", failure=failure, attempt=attempt, execution=f"e{attempt}")
    run = client.Run(made.end("failed", "b: ValueError: no <b>"), store=made.store.url)
    task = run["b"].task
    assert (task.state, task.attempt, len(task.attempts)) == ("failed", 2, 2)
    assert (task.error.type, task.error.message, task.error.cell, task.error.line) == ("ValueError", "no <b>", "c2", 1)
    assert task.stdout == "try 2\nend"
    assert task.stderr == "careful\n"
    assert task.attempts[0].stdout == "try 1\nend"
    assert [output["output_type"] for output in task.outputs] == ["stream"] * 3
    assert task.artifacts == {}
    assert "no &lt;b&gt;" in task._repr_html_()
    assert "no <b>" not in run._repr_html_()
    assert not run.successful
    assert "no <b>" in run.error
    assert run.error.type == "ValueError"
    assert run.error.step == "b"
    with pytest.raises(AttributeError, match="'y'"):
        _ = run.data.y


def test_step_with_items(tmp_path: Path) -> None:
    made = StoredRun(tmp_path, ["%%step a\nn = 0\nxs = [1]", "%%step b --foreach n in xs\ny = n * 10"])
    made.execute("a")
    for place, number in enumerate((5, 7)):
        made.execute("b", (place,), item=str(number), n=number)
    run = client.Run(made.end(), store=made.store.url)
    step = run["b"]
    assert [task.index for task in step.tasks] == [(0,), (1,)]
    assert step[1].item == 7
    assert step[1].data.y == 70
    assert run.data.y == 70
    assert len(step) == 2
    with pytest.raises(AmbiguousTask):
        _ = step.task
    with pytest.raises(NotFoundError, match="no item 2"):
        step[2]
    assert isinstance(client.locate("demo/latest/b/1", run.store), client.Task)
    assert client.locate("demo/latest/b/1/y", run.store).value == 70
    assert client.locate(f"{run.id}/b/0/y", run.store).value == 50
    assert client.locate(f"{run.id}/xs", run.store).value == [1]


def test_runs_are_listed_filtered_and_tagged(tmp_path: Path) -> None:
    for number, (tags, status) in enumerate([(("x",), "done"), (("x", "y"), "failed"), ((), "done")]):
        made = StoredRun(
            tmp_path, ["%%step a\nx = 1"], run=f"2025010{number + 1}-120000-aaaaaa", tags=tags, at=1e9 + number
        )
        made.execute("a")
        made.end(status)
    by_hand = StoredRun(tmp_path, ["%%step a\nx = 1"], run="20250109-120000-aaaaaa", session=True)
    by_hand.execute("a")
    by_hand.end()
    flow = client.Flow("demo", store=made.store.url)
    assert flow.latest_run.id.startswith("20250103")
    assert flow.latest_successful_run == flow.latest_run
    assert [run.id[:8] for run in flow.runs("x")] == ["20250102", "20250101"]
    assert [run.id[:8] for run in flow.runs("x", "y")] == ["20250102"]
    assert [run.id[:8] for run in flow.runs(status="failed")] == ["20250102"]
    run = flow["20250103-120000-aaaaaa"]
    run.add_tag("best", "x")
    assert set(run.tags) == {"best", "x"}
    run.remove_tag("x")
    assert client.Run(f"demo/{run.id}", store=run.store).tags == ("best",)
    assert "20250103" in repr(flow)
    assert "cells run by hand" in flow._repr_html_()
    assert flow["latest"].id == flow.latest_run.id


def test_running_lost_cancelled(tmp_path: Path) -> None:
    made = StoredRun(tmp_path, ["%%step a\nx = 1", "%%step b\ny = x"])
    made.execute("a")
    made.tell("b", "running")
    name = f"{made.flow}/{made.run}"
    run = client.Run(name, store=made.store.url)
    assert run.status == "running"
    assert not run.finished
    assert run["b"].state == "running"
    with pytest.raises(TimeoutError):
        run.wait(timeout=0.05, every=0.01)
    run.cancel()
    assert records.cancel_requested(made.store, made.place.folder, made.run)
    made.tell("b", "cancelled")
    made.end("cancelled", "cancelled")
    assert run.wait(timeout=5).status == "cancelled"
    lost = StoredRun(tmp_path, ["%%step a\nx = 1"], run="20240101-120000-aaaaaa", at=1e9)
    lost.tell("a", "running")
    found = client.Run(f"demo/{lost.run}", store=made.store.url)
    assert found.status == "lost"
    assert found["a"].task.error.kind == "lost"


def test_definition_that_cannot_be_replayed_says_so(tmp_path: Path) -> None:
    counter = tmp_path / "gone.txt"
    counter.write_text("2")
    made = StoredRun(
        tmp_path,
        [f"import pathlib\nclass A:\n    size = int(pathlib.Path({str(counter)!r}).read_text())", "%%step a\nx = A()"],
    )
    made.execute("a")
    run = client.Run(made.end(), store=made.store.url)
    counter.unlink()
    with pytest.raises(TaskError, match="definition of A cannot be replayed: FileNotFoundError"):
        _ = run.data.x
    counter.write_text("3")
    assert run.data.x.size == 3


def test_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = StoredRun(tmp_path, ["%%step a\nx = 1"])
    made.execute("a")
    made.end()
    monkeypatch.setenv("NBFLOW_STORE", made.store.url)
    assert client.Flow("demo").latest_run.data.x == client.Flow(Path("demo")).latest_run.data.x == 1
    monkeypatch.delenv("NBFLOW_STORE")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError):
        client.Flow("demo")
    write_setting(tmp_path, "store", made.store.url)
    assert client.Run("demo/latest").data.x == 1


def test_reused_task_shows_the_logs_of_its_origin(tmp_path: Path) -> None:
    made = StoredRun(tmp_path, ["%%step a\nprint('hello')\nx = 1"])
    record = made.execute("a")
    made.log(record.execution, {"output_type": "stream", "name": "stdout", "text": "hello\n"})
    first = made.end()
    again = StoredRun(tmp_path, ["%%step a\nprint('hello')\nx = 1"], run="20250201-120000-aaaaaa")
    again.tell("a", "reused", record=record, reused_from=record.run, reasons=(("reused", "from there, 3 h old"),))
    run = client.Run(again.end(), store=open_store(again.store.url).url)
    task = run["a"].task
    assert task.stdout == "hello\n"
    assert task.reused_from == first.partition("/")[2]
    assert task.reasons == (("reused", "from there, 3 h old"),)
    assert task.data.x == 1


@pytest.mark.running
def test_a_kernel_gives_its_own_class_for_the_same_definition(tmp_path: Path) -> None:
    cells = {
        "setup": "class Point:\n    def __init__(self, x):\n        self.x = x",
        "make": "%%step make\nprint('made')\np = Point(3)",
        "read": "%%step read\nq = Point(p.x + 1)",
    }
    notebook = NotebookFile(tmp_path / "points.ipynb", cells)
    with Kernel(notebook) as kernel:
        for name, source in cells.items():
            assert kernel.execute(source, name).status == "ok"
        ran = kernel.execute("import nbflow, json\nrun = nbflow.run('points.ipynb')\nprint(run.status)")
        assert ran.stdout == "done\n", ran.text
        seen = kernel.execute(
            "print(type(run.data.q) is Point, isinstance(run.data.p, Point), run.data.Point is Point)"
        )
        assert seen.stdout.split() == ["True"] * 3, seen.text
        changed = cells["setup"] + "\n    def twice(self):\n        return self.x * 2"
        notebook.edit("setup", changed)
        assert kernel.execute(changed, "setup").status == "ok"
        seen = kernel.execute("print(isinstance(nbflow.Run('points/latest').data.q, Point), run.data.q.x)")
        assert seen.stdout.split()[1] == "4", seen.text
        by_hand = kernel.execute("print([r.metadata['session'] for r in nbflow.Flow('points').runs()])")
        assert "True" in by_hand.stdout, by_hand.text
