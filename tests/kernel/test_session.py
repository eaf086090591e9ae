"""Cells run by hand, in any order: right values or a clear error, and exactly what had to run is in the records."""

from __future__ import annotations

import pytest

from tests.support.by_hand import CHAIN, PLAIN, Start, executions, states

pytestmark = pytest.mark.running

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
    first = kernel.ok("env", "a")
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


def test_what_no_store_can_hold_is_read_where_it_was_made(start: Start) -> None:
    kernel = start({"a": "%%step a\ng = (i for i in range(3))\nx = 1", "b": "%%step b\nx + 1"})
    assert kernel.ok("a", "b").result == "2"
    kernel.notebook.edit("b", "%%step b\nlist(g)")
    kernel.ok("a")
    assert kernel.ok("b").result == "[0, 1, 2]"
    refused = kernel.run("b")  # `g` is not what a left any more
    assert refused.ename == "PlanError"
    assert "b needs 'g' of a, which could not be stored" in refused.traceback
    assert "run a in this kernel, or `%flow run b`, which runs both in one process" in refused.traceback
    kernel.ok("a")
    assert kernel.ok("b").result == "[0, 1, 2]"
    kernel.restart()
    assert kernel.run("b").ename == "PlanError"
    assert "[0, 1, 2]" in kernel.execute("%flow run b").text
