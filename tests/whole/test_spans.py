"""A step of several cells: one row, one set of options, and each cell reused by itself with what it shows under it."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow import reference
from nbflow.exporters.exporter import Environment, Options
from nbflow.exporters.script import ScriptExporter
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import document_of, parse_document
from nbflow.model import Flow, RunStarted, TaskChanged, TaskId
from nbflow.page.snapshot import PageRun, page
from nbflow.render import dag, json_lines, rows, table
from nbflow.runs import client
from nbflow.runs.exporting import export
from nbflow.store.history import snapshot
from tests.support.kernel import Kernel, NotebookFile

running = pytest.mark.running

LOADED = {
    "load": "%%step load --retry 1\n_start = 3\nrows = list(range(_start))\nprint('one')",
    "middle": "rows.append(_start * 10)\nlen(rows)",
    "total": "%%step load\ndef double(x):\n    return x * 2\ntotal = sum(rows)\nprint('three', total)",
    "each": "%%step each --foreach k in rows[:2]\na = k + total",
    "same": "%%step each\nb = 7",
    "sum": "%%step each\nc = a + b",
    "done": "%%step done --join each\nsums = [item.c for item in inputs]",
    "more": "%%step done\nmore = double(len(inputs)) + sum(sums)",
    "use": "%%step use --after load\nanswer = more + total",
}
SHARED = {"more": 85, "answer": 118, "sums": [40, 41]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))


def flow_of(*cells: str) -> Flow:
    text = document_of([(f"c{at}", cell) for at, cell in enumerate(cells, start=1)], "spans")
    return build_flow(parse_document(text, name="spans", folder="/nowhere"))


# ---------------------------------------------------------------- which cells are one step


def test_consecutive_cells_of_one_name_are_one_step_with_the_plain_cells_between_them() -> None:
    flow = flow_of("import math", *LOADED.values(), "math.pi")
    assert not [finding for finding in flow.findings if finding.level == "error"], flow.findings
    assert {step.name: step.follows for step in flow.steps if step.follows} == {
        "load.2": "load", "load.3": "load.2", "each.2": "each", "each.3": "each.2", "done.2": "done",
    }  # fmt: skip
    assert flow.step("load.3").options.retry == 1
    assert flow.step("each.2").scope == ("each",)
    assert flow.step("use").options.after == ("load.3",)


@pytest.mark.parametrize(
    ("cells", "code", "words"),
    [
        (("%%step a\nx = len('x')", "%%step b\ny = x", "%%step a\nz = x"), "duplicate-step", "cell 1 and cell 3 both"),
        (("%%step a\nx = len('x')", "%%step a --gpu 1\nz = x"), "option", "its options stand on cell 1"),
        (("%%step a --until x > 3\nx = len('x')", "%%step a\nz = x"), "option", "--until repeats one cell"),
    ],
)
def test_what_is_no_step_of_several_cells_is_named(cells: tuple[str, ...], code: str, words: str) -> None:
    (finding,) = [finding for finding in flow_of(*cells).findings if finding.level == "error"]
    assert finding.code == code
    assert words in finding.message


def test_each_cell_may_say_what_it_reads_and_leaves() -> None:
    flow = flow_of("%%step a\nx = len('x')\ny = x + 1", "%%step a --out z\nz = x\nw = 1", "%%step b\nv = (y, z)")
    assert not flow.findings
    assert (flow.step("a.2").writes, flow.step("b").reads) == (("z",), ("y", "z"))


# ---------------------------------------------------------------- one row


def test_people_read_one_row() -> None:
    flow = flow_of(*LOADED.values())
    names = ["load", "each", "done", "use"]
    assert [step["name"] for step in json_lines.dag(flow)["steps"]] == names
    assert [node.name for node in dag.of_flow(flow).nodes] == names
    assert {(edge.frm, edge.to) for edge in rows.of_flow(flow).edges} >= {("load", "each"), ("done", "use")}
    assert rows.of_flow(flow).step("load").writes == ("_start", "rows", "total")
    task = TaskId(step="load")
    events = [
        RunStarted(run="r", flow="spans", at=0.0, steps=tuple(step.name for step in flow.steps),
                   rows={"load.2": "load", "load.3": "load"}),
        TaskChanged(task=task, state="running", at=1.0), TaskChanged(task=task, state="done", at=2.0, elapsed=1.0),
        TaskChanged(task=TaskId(step="load.2"), state="pending", at=1.0),
    ]  # fmt: skip
    drawn = {row.step: row for row in table.rows(snapshot(events, 3.0, 3.0))}
    assert (drawn["load"].state, "load.2" in drawn) == ("running", False)
    message = page(flow, PageRun(snapshot(events, 3.0, 3.0)))
    assert [step["name"] for step in message["steps"]] == names
    assert {cell for cell, name in message["further"].items() if name == "load"} == {"c2", "c3"}


@running
def test_a_run_is_the_plain_notebook_and_one_row(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "spans.ipynb", LOADED)
    expected = {name: value for name, value in reference.run(notebook.path).items() if name in SHARED}
    assert expected == SHARED
    run = nbflow.run(notebook.path)
    assert run.successful, run.error
    assert {name: getattr(run.data, name) for name in SHARED} == SHARED
    assert [(step.name, len(step.tasks)) for step in run.steps()] == [("load", 1), ("each", 2), ("done", 1), ("use", 1)]
    load = run["load"].task
    assert load.stdout == "one\nthree 33\n"
    assert (load.data.total, load.data.double(2), load.data.rows) == (33, 4, [0, 1, 2, 30])
    assert run["use"].task.load_inputs() == {"more": 85, "total": 33}
    assert run["each"][1].load_inputs()["total"] == 33
    assert "three 33" in load.card.html
    assert run["load.2"].task.data.rows == [0, 1, 2, 30]
    # each cell is reused by itself: what stands above an edited one is not executed again
    notebook.edit("total", LOADED["total"].replace("three", "3"))
    assert {(task.step, task.action) for task in nbflow.plan(notebook.path).tasks if task.step == "load"} == {
        ("load", "run")
    }
    again = nbflow.run(notebook.path)
    assert {step.name: step.state for step in again.steps()} == {
        "load": "done", "each": "reused", "done": "reused", "use": "reused",
    }  # fmt: skip
    assert [again[name].state for name in ("load.2", "load.3")] == ["reused", "done"]
    assert again["load"].task.stdout == "one\n3 33\n"
    fresh = nbflow.run(notebook.path, fresh=["load"])
    assert [fresh[name].state for name in ("load", "load.2", "load.3")] == ["done"] * 3
    assert client.locate("spans/latest/load/total", tmp_path / ".nbflow").value == 33


ENDS = {
    "base": "%%step base\nflag = len('')\nleft = 'l'.upper()",
    "maybe": "%%step maybe --if flag\nflag = 5",
    "rest": "%%step maybe\nleft = 'changed'.upper()",
    "risky": "%%step risky --catch err\ngot = len('x')",
    "fails": "%%step risky\ngot = got + 1\n1 / 0",
    "never": "%%step risky\nleft = 'never'.upper()",
    "one": "%%step one\np = len('1')",
    "two": "%%step one\nq = p + 1",
    "other": "%%step other\np = 10 + len('')",
    "join": "%%step join --join one,other\nboth = (inputs.one.p, inputs.one.q, inputs.other.p)",
    "end": "%%step end\nend = (flag, left, got, err.type, both)",
}


@running
def test_a_condition_and_a_caught_failure_are_of_the_whole_step(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "ends.ipynb", ENDS)
    expected = (0, "L", 2, "ZeroDivisionError", (1, 2, 10))
    run = nbflow.run(notebook.path)
    assert run.successful, run.error
    assert run.data.end == expected
    assert {step.name: step.state for step in run.steps()} == {
        "base": "done", "maybe": "skipped", "risky": "caught", "one": "done", "other": "done", "join": "done",
        "end": "done",
    }  # fmt: skip
    with Kernel(notebook) as kernel:
        kernel.ok(*notebook.cells)
        assert kernel.value("end") == repr(expected)


@running
def test_by_hand_each_cell_shows_its_own(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "spans.ipynb", LOADED)
    with Kernel(notebook) as kernel:
        assert kernel.ok("load").text.strip() == "one"
        assert "4" in kernel.ok("middle").text
        assert kernel.ok("total").text.strip() == "three 33"
        kernel.ok(*list(notebook.cells)[3:])
        assert kernel.value("(more, answer, sums)") == repr((85, 118, [40, 41]))
        assert "load.2" not in kernel.execute("%flow dag").text
        kernel.execute("%flow run")
        assert "3 reused" not in kernel.execute("%flow run").text
        kernel.ok("middle")  # once more: it changes what the cell above left, not what it has left itself
        assert kernel.value("rows") == "[0, 1, 2, 30]"


@pytest.mark.export
def test_an_export_has_one_step(tmp_path: Path) -> None:
    notebook = NotebookFile(
        tmp_path / "spans.ipynb", {k: v for k, v in LOADED.items() if k in ("load", "middle", "total")}
    )
    export(notebook.path, "metaflow", tmp_path / "flow.py")
    text = (tmp_path / "flow.py").read_text()
    assert "def load(self)" in text
    assert "load_2" not in text
    flow = build_flow(parse_document(document_of(notebook.cells.items(), "spans"), name="spans", folder="/nowhere"))
    script = ScriptExporter().export(flow, Environment(python="3.11"), Options(file="s.py"))["s.py"]
    assert build_flow(parse_document(script, name="spans", folder="/nowhere", path="s.py")).step("load.3").follows
