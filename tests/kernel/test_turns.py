"""`--until` run by hand: each turn a task of its own, in the kernel, as in a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import nbflow
from nbflow.store import location, records
from tests.support.by_hand import Start, states
from tests.support.kernel import Kernel

pytestmark = pytest.mark.running

COUNT = {
    "first": "%%step first\nimport random\nn, seen = 0, []\nrandom.seed(11)",
    "count": (
        "%%step count --until n > 2\nimport os\npid = os.getpid()\n"
        "n += 1\nseen.append(n)\ndrawn = random.random()\nprint('turn', n)\n(n, drawn)"
    ),
    "below": "%%step below\n(n, seen, drawn)",
}


def store_of(kernel: Kernel) -> str:
    return str(kernel.notebook.path.parent / ".nbflow")


def past(kernel: Kernel) -> nbflow.Run:
    """The cells run by hand, as a run."""
    kernel.execute("%flow status")
    return next(run for run in nbflow.Flow("flow", store=store_of(kernel)).runs() if run.metadata["session"])


def turns(step: nbflow.Step) -> list[tuple[int | None, str]]:
    return [(task.turn, task.state) for task in step.tasks]


def displayed(kernel: Kernel, cell: str) -> list[str]:
    return [data["text/plain"] for data in kernel.ok(cell).displayed]


def right(cells: Mapping[str, str], folder: Path) -> dict[str, object]:
    """What the loops leave, run plainly."""
    path = folder / "plain.ipynb"
    path.write_text(nbflow.flow.notebook.document_of(cells.items(), "plain"))
    return dict(nbflow.reference.run(path))


def test_each_turn_shows_and_leaves_its_own(start: Start, tmp_path: Path) -> None:
    kernel = start(COUNT)
    plain = right(COUNT, tmp_path)
    kernel.ok("first")
    for _ in range(2):
        executed = kernel.ok("count")
        assert executed.stdout == "turn 1\nturn 2\nturn 3\n"
        assert len(executed.displayed) == 3
        assert executed.displayed[-1]["text/plain"] == repr((3, plain["drawn"]))
        assert kernel.ok("below").result == repr((3, [1, 2, 3], plain["drawn"]))
        step = past(kernel)["count"]
        assert turns(step) == [(0, "done"), (1, "done"), (2, "done")]
        assert [task.data.n for task in step.tasks] == [1, 2, 3]
        assert [task.data.seen for task in step.tasks] == [[1], [1, 2], [1, 2, 3]]
        assert [task.outputs[0]["text"] for task in step.tasks] == ["turn 1\n", "turn 2\n", "turn 3\n"]
        assert step.task.turn == 2
    pids = {task.data.pid for task in past(kernel)["count"].tasks}
    assert [str(pid) for pid in pids] == [kernel.value("__import__('os').getpid()")], "here, in no process of its own"


def test_a_run_takes_what_was_done_by_hand_and_the_other_way_round(start: Start) -> None:
    kernel = start(COUNT)
    kernel.ok("first", "count", "below")
    kernel.execute("%flow status")
    run = nbflow.run(kernel.notebook.path, store=store_of(kernel))
    assert {state for step in run.steps() for _, state in turns(step)} == {"reused"}
    assert turns(run["count"]) == [(0, "reused"), (1, "reused"), (2, "reused")]
    by_hand = [data["text/plain"] for data in kernel.ok("count").displayed]
    kernel.restart()
    kernel.ok("ext")
    reused = kernel.ok("first", "count")
    assert reused.stdout.startswith("turn 1\nturn 2\nturn 3\nreused from ")
    assert [data["text/plain"] for data in reused.displayed] == by_hand
    assert "reused" not in kernel.ok("count").stdout, "once more it is executed"
    assert kernel.ok("below").result.startswith("(3, [1, 2, 3], ")
    fresh = nbflow.run(kernel.notebook.path, store=store_of(kernel), fresh=True)
    assert turns(fresh["count"]) == [(0, "done"), (1, "done"), (2, "done")]
    kernel.restart()
    kernel.ok("ext")
    assert "reused from " in kernel.ok("below").stdout
    assert "reused from " in kernel.ok("count").stdout
    assert [data["text/plain"] for data in kernel.ok("count").displayed] == by_hand


def test_out_of_order_and_with_other_steps_between(start: Start) -> None:
    kernel = start({
        **COUNT,
        "more": "%%step more --until len(seen) > 5\nseen.append(n * 10)\nlen(seen)",
        "apart": "%%step apart --retry 1\nn, total = n + 100, sum(seen)\ntotal",
        "end": "%%step end --until n > 104\nn += 1\n(n, total)",
    })  # fmt: skip
    kernel.ok("first", "count", "more", "apart")
    assert displayed(kernel, "end") == ["(104, 96)", "(105, 96)"]
    assert displayed(kernel, "more") == ["4", "5", "6"]
    assert kernel.ok("count").displayed[-1]["text/plain"].startswith("(3, ")
    assert kernel.ok("below").result.startswith("(3, [1, 2, 3], ")
    assert displayed(kernel, "end") == ["(104, 96)", "(105, 96)"]
    assert kernel.value("(n, seen)") == "(105, [1, 2, 3])"
    kernel.notebook.edit("first", COUNT["first"].replace("n, seen = 0", "n, seen = 1"))
    assert kernel.run("below").ename == "PlanError"
    assert kernel.ok("first", "count").stdout == "turn 2\nturn 3\n"
    assert turns(past(kernel)["count"]) == [(0, "done"), (1, "done")], "the third turn of the last time is gone"
    run = nbflow.run(kernel.notebook.path, store=store_of(kernel))
    assert run.successful
    assert (run.data.n, run.data.seen) == (105, [2, 3, 30, 30, 30, 30])
    assert turns(run["count"]) == [(0, "reused"), (1, "reused")]


def test_a_loop_that_does_not_end_is_ended_and_says_so(start: Start) -> None:
    kernel = start({"a": "%%step a\nn = 0", "b": "%%step b --until n > 9 --max 3\nn += 1\nn", "c": "%%step c\nn"})
    kernel.ok("a")
    for _ in range(2):
        assert "b stopped after 3 turns, and n > 9 is still false" in kernel.ok("b").stderr
    assert kernel.ok("c").result == "3"
    kernel.restart()
    kernel.ok("ext")
    assert "b stopped after 3 turns" in kernel.ok("b").stderr


FAILING = {
    "the cell": ("n > 5", "n += 1\nif n == 3:\n    1 // 0\nn", "line 4"),
    "the question": ("1 // (n - 3) > 5", "n += 1\nn", "line 1"),
    "a cell that awaits": (
        "n > 5",
        "import asyncio\nawait asyncio.sleep(0)\nn += 1\nassert n < 3 or 1 // 0\nn",
        "line 5",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_in_a_turn_ends_the_cell(start: Start, case: str) -> None:
    until, body, where = FAILING[case]
    kernel = start({"a": "%%step a\nn = 0", "b": f"%%step b --until {until}\n{body}", "c": "%%step c\nn"})
    kernel.ok("a")
    failed = kernel.run("b")
    assert failed.ename == "ZeroDivisionError"
    assert where in failed.traceback
    assert "nbflow/" not in failed.traceback, "only the user's own lines"
    assert [data["text/plain"] for data in failed.displayed][:2] == ["1", "2"]
    step = past(kernel)["b"]
    assert turns(step) == [(0, "done"), (1, "done"), (2, "failed")]
    assert step.task.error is not None
    assert step.task.error.type == "ZeroDivisionError"
    assert "b has to run first (it failed)" in kernel.run("c").traceback
    kernel.notebook.edit("b", "%%step b --until n > 1\nn += 1\nn")
    assert displayed(kernel, "b") == ["1", "2"]
    assert kernel.ok("c").result == "2"
    assert turns(past(kernel)["b"]) == [(0, "done"), (1, "done")]


def test_a_loop_that_has_failed_goes_on_in_a_new_kernel_where_it_was(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nn = 0",
        "b": "%%step b --until n > 3\nn += 1\nprint('turn', n)\nassert n < 3 or open('there').read()",
    })  # fmt: skip
    kernel.ok("a")
    assert kernel.run("b").ename == "FileNotFoundError"
    (kernel.notebook.path.parent / "there").write_text("yes")
    kernel.restart()
    kernel.ok("ext")
    executed = kernel.ok("b")
    assert executed.stdout.startswith("turn 1\nturn 2\nreused 2 turns from ")
    assert executed.stdout.endswith("\nturn 3\nturn 4\n")
    step = past(kernel)["b"]
    assert turns(step) == [(0, "reused"), (1, "reused"), (2, "done"), (3, "done")]
    assert step.tasks[2].outputs[0]["text"] == "turn 3\n", "and nothing of what was said before"


@pytest.mark.parametrize("wait", ["time.sleep(0.01)", "await asyncio.sleep(0.01)"])
def test_an_interrupt_ends_the_turn_that_runs(start: Start, wait: str) -> None:
    body = f"import asyncio, time\nn += 1\nprint('turn', n, flush=True)\nwhile n == 2:\n    {wait}"
    kernel = start({"a": "%%step a\nn = 0", "b": f"%%step b --until n > 5\n{body}"})
    kernel.ok("a")
    sent = kernel.send(kernel.notebook.cells["b"], "b")
    while True:
        message = kernel.client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "stream" and "turn 2" in message["content"]["text"]:
            break
    kernel.interrupt()
    ended = kernel.collect(sent)
    assert ended.reply["status"] == "error"
    assert turns(past(kernel)["b"])[0] == (0, "done")
    assert turns(past(kernel)["b"])[1][1] in ("cancelled", "failed")
    assert all(state != "running" for _, state in states(kernel))
    assert kernel.value("n") == "2" or kernel.value("n") == "1"


def test_a_condition_is_asked_before_the_first_turn_alone(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nk = 0",
        "b": "%%step b --if k == 0 --until k > 2\nk += 1\nk",
        "c": "%%step c --if k == 0 --until k > 9\nk += 1\nk",
        "d": "%%step d\nk",
    })  # fmt: skip
    kernel.ok("a")
    assert displayed(kernel, "b") == ["1", "2", "3"]
    assert kernel.ok("c").stdout == "skipped: k == 0 is False\n"
    assert kernel.ok("d").result == "3"
    assert turns(past(kernel)["c"]) == [(0, "skipped")]
    run = nbflow.run(kernel.notebook.path, store=store_of(kernel))
    assert turns(run["b"]) == [(0, "reused"), (1, "reused"), (2, "reused")]
    assert turns(run["c"]) == [(0, "skipped")]


def test_figures_and_large_values_of_each_turn(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nimport numpy as np\nimport matplotlib.pyplot as plt\nn, big = 0, np.zeros(300_000)",
        "b": "%%step b --until n > 1\nn += 1\nbig = big + n\nfig, ax = plt.subplots(figsize=(1, 1))\nax.plot([n])",
        "c": "%%step c\n(n, float(big.sum()))",
    })  # fmt: skip
    kernel.ok("a")
    executed = kernel.ok("b")
    assert sum("image/png" in data for data in executed.displayed) == 2
    for task in past(kernel)["b"].tasks:
        assert sum("image/png" in output.get("data", {}) for output in task.outputs) == 1
    assert kernel.ok("c").result == "(2, 900000.0)"


def test_each_way_to_write_a_header(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nn = 0",
        "comment": "# %%step comment --until n > 1\nn += 1\nn",
        "lines": "\n# counts on\n\n%%step lines --until n > 3\n%%time\nn += 1\nprint(n)",
        "tagged": "n += 1\nn",
        "nested": "%%step nested --until n > 7\nn += 1\nget_ipython().run_cell('n * 10').result",
    })  # fmt: skip
    kernel.notebook.tags["tagged"] = ["step:tagged --until n > 5"]
    kernel.notebook.save()
    kernel.ok("a")
    assert displayed(kernel, "comment") == ["1", "2"]
    assert kernel.ok("lines").stdout.replace(" ", "").count("Walltime") == 2
    assert displayed(kernel, "tagged") == ["5", "6"]
    assert displayed(kernel, "nested") == ["70", "70", "80", "80"]
    silent = kernel.execute(kernel.notebook.cells["comment"], "comment", silent=True)
    assert silent.reply["status"] == "ok"
    assert kernel.ok("nested").status == "ok"


def test_the_notebook_may_be_edited_while_turns_run(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nn = 0",
        "b": "%%step b --until n > 2\nimport pathlib, time\nn += 1\nprint('turn', n, flush=True)\n"
             "while n == 2 and not pathlib.Path('go').exists():\n    time.sleep(0.01)",
    })  # fmt: skip
    kernel.ok("a")
    source = kernel.notebook.cells["b"]
    sent = kernel.send(source, "b")
    while True:
        message = kernel.client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "stream" and "turn 2" in message["content"]["text"]:
            break
    kernel.notebook.edit("b", "%%step b --until n > 9\nn += 5")
    kernel.notebook.edit("a", "%%step a\nn = 7")
    (kernel.notebook.path.parent / "go").touch()
    ended = kernel.collect(sent)
    assert ended.reply["status"] == "ok"
    assert ended.stdout.endswith("turn 3\n")
    step = past(kernel)["b"]
    assert turns(step) == [(0, "done"), (1, "done"), (2, "done")]
    found = [record for record in records.all_records(location.open_store(store_of(kernel))) if record.step == "b"]
    assert {record.source.strip() for record in found} == {source.partition("\n")[2]}


DRAWS = {
    "draw": "%%step draw --until mark % 8 == 0 --max 500\nimport os\nmark = int.from_bytes(os.urandom(8), 'big')\nmark",
    "told": "%%step told\nmark % 8",
}
COUNTS = {
    "count": "%%step count --until seen == 4 --max 9\nfrom pathlib import Path\n"
             "seen = len(Path('log').read_text()) if Path('log').exists() else 0\n"
             "Path('log').write_text('.' * (seen + 1))\nseen",
    "told": "%%step told\nseen",
}  # fmt: skip


def test_turns_that_read_the_same_look_at_the_world_anew(tmp_path: Path) -> None:
    for name, cells in (("draws", DRAWS), ("counts", COUNTS)):
        path = tmp_path / f"{name}.ipynb"
        path.write_text(nbflow.flow.notebook.document_of(cells.items(), name))
        run = nbflow.run(path, store=str(tmp_path / "store"))
        assert run.successful, run.error
        first, told = run[next(iter(cells))], run["told"].task.outputs[-1]["data"]["text/plain"]
        assert {each for _, each in turns(first)} == {"done"}
        if name == "counts":
            assert (told, len(first.tasks)) == ("4", 5)
            continue
        marks = [task.data.mark for task in first.tasks]
        assert len({*marks}) == len(marks)
        assert [mark % 8 == 0 for mark in marks] == [False] * (len(marks) - 1) + [True]
        assert told == "0"
        again = nbflow.run(path, store=str(tmp_path / "store"))
        assert [(task.turn, task.data.mark) for task in again[first.name].tasks] == [*enumerate(marks)]
        assert {each for _, each in turns(again[first.name])} == {"reused"}


def test_by_hand_they_do_too_and_a_run_takes_them(start: Start) -> None:
    kernel = start(DRAWS)
    kernel.ok("draw")
    marks = displayed(kernel, "draw")
    assert len({*marks}) == len(marks)
    assert kernel.ok("told").result == "0"
    kernel.execute("%flow status")  # all is stored before the run looks
    run = nbflow.run(kernel.notebook.path, store=store_of(kernel))
    assert int(run.data.mark) == int(marks[-1])
    assert {state for step in run.steps() for _, state in turns(step)} == {"reused"}
