"""Cells run by hand, in any order: right values or a clear error, and exactly what had to run is in the records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbflow import records, storage
from nbflow.model import RunStarted, TaskChanged
from tests.kernel import Kernel, NotebookFile

pytestmark = pytest.mark.running

Start = Callable[..., Kernel]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A kernel for a notebook of these cells, by id."""
    with contextlib.ExitStack() as stack:

        def begin(cells: dict[str, str], **options: object) -> Kernel:
            notebook = NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **cells})
            return stack.enter_context(Kernel(notebook, **options))  # type: ignore[arg-type]

        yield begin


def executions(kernel: Kernel) -> list[str]:
    """Every execution in the store, oldest first, by its step's name; parameters left out."""
    kernel.execute("%flow status")  # whatever is being stored is stored before a cell begins
    store = storage.open_store(kernel.notebook.path.parent / ".nbflow")
    found = sorted(records.all_records(store), key=lambda record: record.created_at)
    return [
        record.step
        for record in found
        if not (record.step.startswith("cell:") and not record.outputs and not record.elapsed)
    ]


def states(kernel: Kernel) -> list[tuple[str, str]]:
    """(step, state) of every event in the session runs, in order, without `running`."""
    kernel.execute("%flow status")
    store = storage.open_store(kernel.notebook.path.parent / ".nbflow")
    found: list[tuple[str, str]] = []
    for run in reversed(records.list_runs(store, "flow")):
        events = records.read_events(store, "flow", run)
        if any(isinstance(event, RunStarted) and event.session for event in events):
            changes = [event for event in events if isinstance(event, TaskChanged) and event.state != "running"]
            found += [(event.task.step, event.state) for event in changes]
    return found


CHAIN = {
    "load": "%%step load\nxs = [1, 2, 3]",
    "double": "%%step double\nys = [x * 2 for x in xs]",
    "total": "%%step total\ntotal = sum(ys)\ntotal",
}


# ---------------------------------------------------------------- in order, again, edited


def test_in_order(start: Start) -> None:
    kernel = start(CHAIN)
    assert kernel.ok(*CHAIN).result == "12"
    assert executions(kernel) == ["load", "double", "total"]
    assert states(kernel) == [("load", "done"), ("double", "done"), ("total", "done")]


def test_run_again_executes_again(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load", "double", "total", "total", "load")
    assert executions(kernel) == ["load", "double", "total", "total", "load"]
    assert kernel.ok("total").result == "12"


def test_out_of_order_is_a_clear_error(start: Start) -> None:
    kernel = start(CHAIN)
    executed = kernel.run("total")
    assert executed.status == "error"
    assert executed.traceback.startswith("error: total cannot run yet: load has to run first")
    assert "%flow run total" in executed.traceback
    kernel.ok("load")
    assert "double has to run first" in kernel.run("total").traceback
    assert executions(kernel) == ["load"]


def test_edited_upstream(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok(*CHAIN)
    kernel.notebook.edit("load", "%%step load\nxs = [10]")
    executed = kernel.run("total")
    assert "load has to run first" in executed.traceback
    assert "line 2 changed" in executed.traceback
    kernel.ok("load")
    assert "double has to run first" in kernel.run("total").traceback
    assert kernel.ok("double", "total").result == "20"
    assert executions(kernel) == ["load", "double", "total", "load", "double", "total"]


def test_edited_upstream_with_equal_outcome_spreads_no_further(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok(*CHAIN)
    kernel.notebook.edit("load", "%%step load\nxs = list(range(1, 4))")
    assert kernel.ok("load", "total").result == "12"
    assert executions(kernel) == ["load", "double", "total", "load", "total"]


def test_edited_and_not_saved(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load")
    executed = kernel.execute("%%step double\nys = [x * 5 for x in xs]", "double")
    assert executed.status == "ok", executed.text
    assert kernel.ok("total").result == "30"
    assert "another text than the saved notebook" in kernel.execute("%flow status").text
    kernel.notebook.edit("double", "%%step double\nys = [x * 5 for x in xs]")
    assert "another text" not in kernel.execute("%flow status").text


def test_back_to_an_earlier_text(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok(*CHAIN)
    before = kernel.notebook.cells["load"]
    kernel.notebook.edit("load", "%%step load\nxs = [10]")
    kernel.ok("load", "double")
    kernel.notebook.edit("load", before)
    assert kernel.ok("total").result == "12"
    assert kernel.value("ys") == "[20]"


def test_name_written_by_several_cells(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nx = 1",
        "b": "%%step b\ny = x + 1",
        "c": "%%step c\nx = 100",
        "d": "%%step d\nz = x + 1\nz",
    })  # fmt: skip
    kernel.ok("a", "b", "c")
    assert kernel.ok("d").result == "101"
    kernel.ok("b")
    assert kernel.value("y, x") == "(2, 100)"
    assert executions(kernel) == ["a", "b", "c", "d", "b"]


# ---------------------------------------------------------------- changed in place


INPLACE = {
    "load": "%%step load\nxs = [3, 1, 2]",
    "sort": "%%step sort\nxs.sort()\nxs.append(len(xs))\nxs",
    "use": "%%step use\nlast = xs[-1]\nlast",
}


def test_changed_in_place_twice_gives_the_same_twice(start: Start) -> None:
    kernel = start(INPLACE)
    assert kernel.ok("load", "sort").result == "[1, 2, 3, 3]"
    assert kernel.ok("sort").result == "[1, 2, 3, 3]"
    assert kernel.ok("sort").result == "[1, 2, 3, 3]"
    assert kernel.ok("use").result == "3"
    assert executions(kernel) == ["load", "sort", "sort", "sort", "use"]


def test_frame_changed_in_place_twice(start: Start) -> None:
    kernel = start({
        "imports": "import pandas as pd",
        "load": "%%step load\ndf = pd.DataFrame({'a': [1, None, 3]})",
        "clean": "%%step clean\ndf.dropna(inplace=True)\ndf['b'] = df['a'] * 2\nlen(df), list(df)",
    })  # fmt: skip
    assert kernel.ok("imports", "load", "clean").result == "(2, ['a', 'b'])"
    assert kernel.ok("clean").result == "(2, ['a', 'b'])"
    assert kernel.value("list(df['b'])") == "[2.0, 6.0]"


def test_changed_behind_our_back(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load")
    kernel.execute("alias = globals()['xs']; alias.append(1000)")
    kernel.ok("double")
    assert kernel.ok("total").result == "12"


def test_rebound_behind_our_back(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load")
    kernel.execute("xs = [1000]")
    assert kernel.ok("double", "total").result == "12"
    assert kernel.value("xs") == "[1000]"


# ---------------------------------------------------------------- what a step sees


def test_hidden_name_fails_at_once(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nx = 1",
        "b": "%%step b\nname = 'scra' + 'tch'\ny = x + eval(name)",
    })  # fmt: skip
    kernel.execute("scratch = 5")
    executed = kernel.run("a")
    executed = kernel.run("b")
    assert executed.ename == "NameError"
    assert "name 'scratch' is not defined" in executed.traceback
    assert "----> 3 y = x + eval(name)" in executed.traceback
    assert kernel.value("scratch") == "5"


def test_name_of_no_cell_is_an_error_with_its_line(start: Start) -> None:
    kernel = start({"a": "%%step a\nx = 1\ny = x + elsewhere"})
    kernel.execute("elsewhere = 5")
    executed = kernel.run("a")
    assert executed.status == "error"
    assert "reads 'elsewhere', which no cell above writes" in executed.traceback
    assert "line 3" in executed.traceback


def test_name_of_a_later_cell(start: Start) -> None:
    kernel = start({"a": "%%step a\ny = later + 1", "b": "%%step b\nlater = 1"})
    kernel.ok("b")
    executed = kernel.run("a")
    assert "which only cell 3 (b) below it writes" in executed.traceback


def test_definitions_of_the_right_place(start: Start) -> None:
    kernel = start({
        "first": "def f(x):\n    return x + K\nK = 1",
        "a": "%%step a\np = f(10)\np",
        "second": "def f(x):\n    return x * K\nK = 5",
        "b": "%%step b\nq = f(10)\nq",
    })  # fmt: skip
    kernel.ok("first", "second")
    assert kernel.ok("a").result == "11"
    assert kernel.ok("b").result == "50"
    assert kernel.value("f(1), K") == "(5, 5)"


def test_definitions_without_their_cell(start: Start) -> None:
    defs = "import math\ndef area(r):\n    return math.floor(r * 3)"
    kernel = start({"defs": defs, "a": "%%step a\nv = area(2)\nv"})
    assert kernel.ok("a").result == "6"


def test_edited_definition(start: Start) -> None:
    kernel = start({"defs": "def f(x):\n    return x + 1", "a": "%%step a\nv = f(1)\nv"})
    assert kernel.ok("defs", "a").result == "2"
    kernel.notebook.edit("defs", "def f(x):\n    return x + 100")
    assert kernel.ok("a").result == "101"
    assert kernel.ok("defs", "a").result == "101"


def test_default_of_an_edited_constant(start: Start) -> None:
    kernel = start({"k": "K = 1", "f": "def f(x, k=K):\n    return x + k", "a": "%%step a\nv = f(1)\nv"})
    assert kernel.ok("k", "f", "a").result == "2"
    kernel.notebook.edit("k", "K = 50")
    kernel.ok("k")
    assert kernel.ok("a").result == "51"


CLASSES = {
    "cls": (
        "class Point:\n    def __init__(self, x):\n        self.x = x\n    def twice(self):\n        return self.x * 2"
    ),
    "make": "%%step make\np = Point(4)",
    "use": "%%step use\nisinstance(p, Point), p.twice()",
}


def test_instances_of_own_classes(start: Start) -> None:
    kernel = start(CLASSES)
    assert kernel.ok("cls", "make", "use").result == "(True, 8)"
    kernel.ok("cls")  # the same class, made anew: instances must follow
    assert kernel.ok("use").result == "(True, 8)"


def test_edited_class_asks_for_its_step(start: Start) -> None:
    kernel = start(CLASSES)
    kernel.ok("cls", "make", "use")
    kernel.notebook.edit("cls", CLASSES["cls"].replace("* 2", "* 3"))
    kernel.ok("cls")
    executed = kernel.run("use")
    assert "make" in executed.traceback, executed.text
    assert kernel.ok("make", "use").result == "(True, 12)"


def test_setup_is_replayed_once(start: Start) -> None:
    kernel = start({
        "env": "import os\nos.environ['MODE'] = 'fast'",
        "conn": "%%setup\nconnection = object()\nprint('connected')",
        "a": "%%step a\nmode = os.environ['MODE'], type(connection).__name__\nmode",
    })  # fmt: skip
    first = kernel.ok("a")
    assert first.result == "('fast', 'object')"
    assert "connected" not in first.stdout
    assert "connected" not in kernel.ok("a").stdout
    kernel.ok("env", "conn")
    assert kernel.ok("a").result == "('fast', 'object')"


def test_names_stay_after_errors(start: Start) -> None:
    kernel = start({"a": "%%step a\nx = 1", "b": "%%step b\ny = x\n1 / 0"})
    kernel.ok("a")
    kernel.execute("scratch = [1]")
    assert kernel.run("b").ename == "ZeroDivisionError"
    assert kernel.value("scratch, x, y") == "([1], 1, 1)"
    assert states(kernel) == [("a", "done"), ("b", "failed")]


# ---------------------------------------------------------------- plain cells between steps


PLAIN = {
    "load": "%%step load\nxs = [1, 2, 3]",
    "plain": "ys = [x + 1 for x in xs]",
    "total": "%%step total\ntotal = sum(ys)\ntotal",
}


def test_plain_cell_between_steps(start: Start) -> None:
    kernel = start(PLAIN)
    assert kernel.ok(*PLAIN).result == "9"
    assert executions(kernel) == ["load", "cell:plain", "total"]


def test_plain_cell_has_to_run_again(start: Start) -> None:
    kernel = start(PLAIN)
    kernel.ok(*PLAIN)
    kernel.notebook.edit("load", "%%step load\nxs = [10]")
    kernel.ok("load")
    assert "cell 3: ys has to run first" in kernel.run("total").traceback
    assert kernel.ok("plain", "total").result == "11"


def test_plain_cell_on_other_values_does_not_count(start: Start) -> None:
    kernel = start(PLAIN)
    kernel.ok("load")
    kernel.execute("xs = [50]")
    kernel.ok("plain")
    assert kernel.value("ys") == "[51]"
    assert "has to run first" in kernel.run("total").traceback


def test_plain_cell_changes_in_place(start: Start) -> None:
    kernel = start({"load": "%%step load\nxs = [1]", "plain": "xs.append(5)", "use": "%%step use\nsum(xs)"})
    assert kernel.ok("load", "plain", "use").result == "6"
    kernel.ok("plain")  # a plain cell is plain: it appends once more
    assert kernel.value("xs") == "[1, 5, 5]"
    assert kernel.ok("use").result == "6"


def test_scratch_is_followed_only_when_a_step_needs_it(start: Start) -> None:
    kernel = start({"scratch": "zs = [7]", "a": "%%step a\nx = 1"})
    kernel.ok("scratch", "a")
    assert executions(kernel) == ["a"]
    kernel.notebook.edit("a", "%%step a\nx = zs[0]\nx")
    assert kernel.ok("a").result == "7"


# ---------------------------------------------------------------- restart


def test_restart_reuses_and_shows_again(start: Start) -> None:
    shows = "%%step show\nprint('printed', total)\nfrom IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))"
    kernel = start({**CHAIN, "show": shows})
    kernel.ok("load", "double", "total", "show")
    kernel.restart()
    executed = kernel.ok("total")
    assert executed.result == "12"
    assert "reused from" in executed.stdout
    assert "run the cell once more to execute it" in executed.stdout
    shown = kernel.ok("show")
    assert "printed 12" in shown.stdout
    assert any("<b>x</b>" in data.get("text/html", "") for data in shown.displayed)
    assert executions(kernel) == ["load", "double", "total", "show"]
    assert "reused" not in kernel.ok("total").stdout
    assert executions(kernel) == ["load", "double", "total", "show", "total"]


def test_reused_names_are_bound_when_they_are_read(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok(*CHAIN)
    kernel.restart()
    kernel.ok(*CHAIN)
    assert kernel.execute("print(ys, [y for y in ys])").stdout.strip() == "[2, 4, 6] [2, 4, 6]"
    assert kernel.execute("def read():\n    return xs\nprint(read())").stdout.strip() == "[1, 2, 3]"


def test_reused_instances_bring_their_class(start: Start) -> None:
    kernel = start(CLASSES)
    kernel.ok(*CLASSES)
    kernel.restart()
    kernel.ok("make")
    assert kernel.execute("print(p.twice(), isinstance(p, Point))").stdout.strip() == "8 True"


def test_volatile_steps_are_always_executed_by_hand(start: Start) -> None:
    kernel = start({"draw": "%%step draw\nimport random\nr = random.random()\nr"})
    kernel.ok("draw")
    kernel.restart()
    assert "reused" not in kernel.ok("draw").stdout


def test_a_step_that_leaves_nothing_is_executed(start: Start) -> None:
    kernel = start({"nothing": "%%step nothing\nopen('left.txt', 'w').write('x');"})
    kernel.ok("nothing")
    kernel.restart()
    assert "reused" not in kernel.ok("nothing").text
    assert executions(kernel) == ["nothing", "nothing"]


def test_changed_file_is_read_again(start: Start) -> None:
    kernel = start({"read": "%%step read\ntext = open('data.txt').read()\ntext"})
    data = kernel.notebook.path.parent / "data.txt"
    data.write_text("one")
    assert kernel.ok("read").result == "'one'"
    kernel.restart()
    assert "reused" in kernel.ok("read").stdout
    data.write_text("two")
    kernel.restart()
    assert kernel.ok("read").result == "'two'"


def test_killed_kernel(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load", "double")
    kernel.execute("%flow status")
    kernel.kill()
    assert kernel.ok("load", "double", "total").result == "12"
    assert executions(kernel) == ["load", "double", "total"]


# ---------------------------------------------------------------- parameters


PARAMS = {"params": "%%params\nrate: float = 0.5\nn: int = 4", "use": "%%step use\nv = rate * n\nv"}


def test_params_by_hand(start: Start) -> None:
    kernel = start(PARAMS)
    assert kernel.ok("use").result == "2.0"
    assert kernel.ok("params", "use").result == "2.0"
    kernel.notebook.edit("params", "%%params\nrate: float = 2.0\nn: int = 4")
    assert kernel.ok("params", "use").result == "8.0"


def test_params_from_the_environment(start: Start) -> None:
    kernel = start(PARAMS, env={"NBFLOW_PARAM_RATE": "10"})
    assert kernel.ok("params").status == "ok"
    assert kernel.value("rate") == "10.0"
    assert kernel.ok("use").result == "40.0"


# ---------------------------------------------------------------- outputs that cannot be stored


def test_unserializable_is_an_error_only_where_it_is_needed(start: Start) -> None:
    kernel = start({"a": "%%step a\ng = (i for i in range(3))\nx = 1", "b": "%%step b\nx + 1"})
    assert kernel.ok("a", "b").result == "2"
    kernel.notebook.edit("b", "%%step b\nlist(g)")
    executed = kernel.run("a")
    assert executed.ename == "SerializationError"
    assert "g (a generator) of step a cannot be stored" in executed.traceback
    assert "%%setup" in executed.traceback


# ---------------------------------------------------------------- the flow as a whole


def test_flow_run_reuses_what_was_run_by_hand(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load", "double")
    executed = kernel.execute("%flow run")
    assert executed.status == "ok", executed.text
    assert executions(kernel) == ["load", "double", "total"]
    assert kernel.execute("print(total + len(xs))").stdout.strip() == "15"
    assert kernel.ok("total").result == "12"


def test_flow_run_then_by_hand(start: Start) -> None:
    kernel = start(PLAIN)
    assert kernel.execute("%flow run").status == "ok"
    assert kernel.value("ys") == "[2, 3, 4]"
    assert "reused" in kernel.ok("total").stdout
    assert kernel.ok("total").result == "9"
    assert executions(kernel).count("load") == 1


def test_flow_run_of_one_step(start: Start) -> None:
    kernel = start(CHAIN)
    assert kernel.execute("%flow run double").status == "ok"
    assert executions(kernel) == ["load", "double"]
    assert kernel.ok("total").result == "12"


def test_failed_flow_run_raises(start: Start) -> None:
    kernel = start({**CHAIN, "bad": "%%step bad\n1 / total / 0"})
    executed = kernel.execute("%flow run")
    assert executed.ename == "RunFailed"
    assert executed.traceback.startswith("error: bad failed: ZeroDivisionError")
    assert kernel.value("total") == "12"


def test_interrupt_cancels_the_run(start: Start) -> None:
    kernel = start({"slow": "%%step slow\nimport time\nfor _ in range(200):\n    time.sleep(0.1)\nx = 1"})
    request = kernel.send("%flow run")
    time.sleep(3)
    began = time.monotonic()
    kernel.interrupt()
    executed = kernel.collect(request)
    assert executed.ename == "RunFailed"
    assert "cancelled" in executed.evalue
    assert time.monotonic() - began < 10
    assert kernel.value("1 + 1") == "2"


def test_timeout_goes_to_a_process(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nx = 20",
        "b": "%%step b --timeout 60s\nimport os\npid = os.getpid()\nprint('in a process')\ny = x + 1\ny",
        "c": "%%step c\ny * 2",
    })  # fmt: skip
    kernel.ok("a")
    executed = kernel.ok("b")
    assert "in a process" in executed.stdout
    assert executed.result == "21"
    assert kernel.value("pid == __import__('os').getpid()") == "False"
    assert kernel.ok("c").result == "42"
    assert executions(kernel) == ["a", "b", "c"]


def test_here_forces_the_kernel(start: Start) -> None:
    kernel = start({"b": "%%step b --timeout 60s --here\nimport os\npid = os.getpid()"})
    kernel.ok("b")
    assert kernel.value("pid == __import__('os').getpid()") == "True"


# ---------------------------------------------------------------- document order


def test_without_a_file_the_order_of_execution_counts(start: Start) -> None:
    kernel = start(CHAIN, env={"JPY_SESSION_NAME": ""})
    for source in CHAIN.values():
        assert kernel.execute(source).status == "ok"
    assert "order in which cells were first executed" in kernel.execute("%flow status").text
    assert kernel.value("total") == "12"


def test_config_notebook(start: Start) -> None:
    kernel = start(CHAIN, env={"JPY_SESSION_NAME": ""})
    assert kernel.execute("%flow config notebook flow.ipynb").status == "ok"
    assert "the saved notebook" in kernel.execute("%flow status").text
    assert "load has to run first" in kernel.run("total").traceback


def test_name_without_its_file(start: Start) -> None:
    kernel = start({**CHAIN}, env={"JPY_SESSION_NAME": "/nowhere/gone.ipynb"})
    assert "gone.ipynb is not there" in kernel.execute("%flow doctor").text
    assert kernel.execute(CHAIN["load"]).status == "ok"


def test_new_cell_that_is_not_saved_yet(start: Start) -> None:
    kernel = start(CHAIN)
    kernel.ok("load")
    assert kernel.execute("%%step between\nmiddle = xs + [4]\nlen(middle)", "unsaved").result == "4"
    assert kernel.ok("double", "total").result == "12"
    assert "does not hold this cell yet" in kernel.execute("%flow status").text


# ---------------------------------------------------------------- seen while it runs


ESCAPES = {
    "load": "%%step load\nxs = [3, 1, 2]",
    "hide": "%%step hide\nholder = [xs]\nfor part in holder:\n    part.sort()\nn = len(holder)",
    "use": "%%step use\nfirst = xs[0]\nfirst",
}


def test_change_in_place_that_nothing_says_is_found(start: Start) -> None:
    kernel = start(ESCAPES)
    kernel.ok("load")
    executed = kernel.ok("hide")
    assert "xs" in executed.stderr
    assert kernel.ok("use").result == "1"
    assert kernel.ok("hide", "use").result == "1"
    kernel.restart()
    assert kernel.ok("load", "hide", "use").result == "1"


def test_names_that_share_a_changed_object_follow_it(start: Start) -> None:
    kernel = start({
        "make": "%%step make\neveryone = [3, 1]\nguests = everyone",
        "add": "%%step add\nguests.append(2)",
        "use": "%%step use\ntotal = sum(everyone)\ntotal",
    })  # fmt: skip
    kernel.ok("make", "add")
    assert kernel.ok("use").result == "6"
    assert kernel.ok("add", "use").result == "6"
    kernel.restart()
    assert kernel.ok("use").result == "6"


def test_definition_that_fails_is_named(start: Start) -> None:
    kernel = start({"defs": "import no_such_module", "a": "%%step a\nx = no_such_module.y"})
    executed = kernel.run("a")
    assert executed.traceback.startswith("error: no_such_module of cell 2 cannot be made: ModuleNotFoundError")


def test_waiting_asyncio_task_keeps_its_names(start: Start) -> None:
    kernel = start({"a": "%%step a\nimport asyncio\nawait asyncio.sleep(0.3)\ndone = 1"})
    kernel.execute(
        "import asyncio\nticks = []\nasync def tick():\n    for _ in range(200):\n        ticks.append(1)\n"
        "        await asyncio.sleep(0.01)\nticking = asyncio.ensure_future(tick())"
    )
    executed = kernel.run("a")
    assert executed.status == "ok", executed.text
    assert "asyncio task" in executed.stderr
    assert kernel.value("ticking.done() and ticking.exception() is not None") == "False"


def test_interrupt_while_values_are_stored(start: Start) -> None:
    kernel = start(
        {"a": "%%step a\nimport numpy as np\nbig = np.zeros(5_000_000) + 1", "b": "%%step b\nfloat(big.sum())"}
    )
    kernel.ok("a")
    kernel.interrupt()
    assert kernel.ok("b").result == "5000000.0"


def test_large_values_are_not_torn(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nimport numpy as np\nbig = np.ones(4_000_000)",
        "plain": "big[:] = 7",
        "b": "%%step b\nfloat(big.sum())",
    })  # fmt: skip
    assert kernel.ok("a", "plain", "b").result == "28000000.0"
    assert kernel.ok("a", "plain", "b").result == "28000000.0"
    kernel.restart()
    kernel.ok("a")
    assert kernel.execute("print(big.sum())").stdout.strip() == "4000000.0"


def test_current_by_hand(start: Start) -> None:
    kernel = start(
        {"a": "%%step a\nfrom nbflow import current\nseen = current.step, current.is_flow, current.attempt\nseen"}
    )
    assert kernel.ok("a").result == "('a', False, 1)"
    assert kernel.ok("a").result == "('a', False, 2)"
    assert kernel.value("current.step") == "None"


# ---------------------------------------------------------------- fan-outs and conditions, by hand


LOOPS = {
    "base": "%%step base\nxs = [1, 2, 3]",
    "fit": "%%step fit --foreach k in [1, 2, 3]\nprint('item', k)\nscore = sum(xs) * k",
    "pick": "%%step pick --join fit\nbest = max(inputs, key=lambda each: each.score)\nbest_k = best.item\nbest_k",
    "maybe": "%%step maybe --if best_k > 100\nbig = 1",
    "after": "%%step after\nresult = best_k * 10\nresult",
}


def test_fan_out_by_hand(start: Start) -> None:
    kernel = start(LOOPS)
    kernel.ok("base")
    text = kernel.ok("fit").text
    assert all(f"fit │ [{at}] item {at + 1}" in text for at in range(3))
    assert kernel.ok("pick").result == "3"
    kernel.ok("maybe")
    assert kernel.ok("after").result == "30"
    assert kernel.value("score") == "18"


def test_step_below_a_fan_out_needs_it(start: Start) -> None:
    kernel = start(LOOPS)
    kernel.ok("base")
    assert "fit has to run first" in kernel.run("after").traceback
    assert kernel.execute("%flow run after").status == "ok"
    assert "reused" in kernel.ok("after").stdout
    kernel.notebook.edit("base", "%%step base\nxs = [10]")
    kernel.ok("base")
    assert "has to run first" in kernel.run("after").traceback


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("%flow", "%flow run"),
        ("%flow check", "3 steps, 0 errors"),
        ("%flow dag", "double"),
        ("%flow plan", "total"),
        ("%flow why total", "total: "),
        ("%flow runs", "cells run by hand"),
        ("%flow status", "document order: the saved notebook"),
        ("%flow doctor", "python:"),
        ("%flow config", "datastore:"),
        ("%flow cancel", "no run is going on"),
    ],
)
def test_commands(commands: Kernel, command: str, shown: str) -> None:
    executed = commands.execute(command)
    assert executed.status == "ok", executed.text
    assert shown in executed.text


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel whose three steps have run by hand."""
    notebook = NotebookFile(tmp_path_factory.mktemp("commands") / "flow.ipynb", {"ext": "%load_ext nbflow", **CHAIN})
    with Kernel(notebook) as kernel:
        kernel.ok(*CHAIN)
        yield kernel


def test_show_and_load(commands: Kernel) -> None:
    assert commands.execute("%flow run").status == "ok"
    assert commands.execute("%flow show flow/latest/total/total").result == "12"
    assert commands.execute("del xs\n%flow load flow/latest/double\nprint(xs)").stdout.endswith("[1, 2, 3]\n")


def test_run_in_the_background(start: Start) -> None:
    kernel = start({"slow": "%%step slow\nimport time\ntime.sleep(1)\nslow = 5", **CHAIN})
    executed = kernel.execute("%flow run --background")
    assert "in the background" in executed.stdout
    assert "a run is going on" in kernel.execute("%flow run").traceback
    for _ in range(50):
        if "done in" in kernel.execute("%flow status").text:
            break
        time.sleep(0.2)
    assert kernel.value("slow") == "5"
    assert "done" in kernel.execute("%flow status").text


def test_run_table_reads_as_text_in_nbclient(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    sources = ["%load_ext nbflow", *CHAIN.values(), "%flow run"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[-1].outputs
    assert [each["data"]["text/plain"] for each in outputs[1:]] == ["total:", "12"]  # reused, and shown again
    text = outputs[0]["data"]["text/plain"]
    assert "done" in text
    assert all(name in text for name in CHAIN)
    assert (tmp_path / ".nbflow").is_dir()
