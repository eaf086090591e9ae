"""Orders in which people run cells: right values each time, and the records hold exactly what had to run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.store import location, records
from tests.support.by_hand import Start, states
from tests.support.kernel import Kernel, NotebookFile

pytestmark = pytest.mark.running

CELLS = {
    "ext": "%load_ext nbflow",
    "def": "SCALE = 2\n\ndef grow(x):\n    return x * SCALE",
    "load": "%%step load\nimport pandas as pd\ndf = pd.DataFrame({'a': [3, 1, 2], 'b': [1, None, 2]})",
    "clean": "%%step clean\ndf.sort_values('a', inplace=True)\ndf.fillna(0, inplace=True)",
    "extra": "%%step extra\nn = len(df)",
    "total": "%%step total\ntotal = grow(df.a.sum() + df.b.sum()) + n",
    "show": "%%step show\nlabel = f'{total:.0f}'\nlabel",
}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(Kernel(NotebookFile(tmp_path / "flow.ipynb", CELLS)))


def executions(kernel: Kernel) -> list[str]:
    """Every execution in the store, oldest first, by its step's name."""
    kernel.execute("%flow status")  # whatever is being stored is stored before a cell begins
    store = location.open_store(kernel.notebook.path.parent / ".nbflow")
    found = sorted(records.all_records(store), key=lambda record: record.created_at)
    return [record.step for record in found if not record.step.startswith("cell:")]


ORDER = ["load", "clean", "extra", "total", "show"]


def test_top_to_bottom_then_again(kernel: Kernel) -> None:
    assert kernel.ok("def", *ORDER).result == "'21'"
    assert executions(kernel) == ORDER
    assert kernel.ok("def", *ORDER).result == "'21'"
    assert executions(kernel) == [*ORDER, *ORDER], "a cell that is run by hand once more is executed once more"


def test_in_place_twice(kernel: Kernel) -> None:
    kernel.ok("def", "load", "clean", "clean", "clean", "extra", "total")
    assert kernel.value("float(total)") == "21.0"
    assert kernel.value("list(df.b)") == "[0.0, 2.0, 1.0]"
    assert executions(kernel) == ["load", "clean", "clean", "clean", "extra", "total"]


def test_an_earlier_cell_after_a_later_one(kernel: Kernel) -> None:
    kernel.ok("def", "load", "clean", "extra", "total")
    assert kernel.ok("extra", "show").result == "'21'", "the same value again: what reads it need not run"
    assert executions(kernel) == ["load", "clean", "extra", "total", "extra", "show"]
    assert kernel.ok("load").status == "ok"
    assert kernel.ok("show").result == "'21'", "load left what it had left before"
    assert executions(kernel)[6:] == ["load", "show"]


def test_a_later_cell_before_an_earlier_one_is_refused(kernel: Kernel) -> None:
    kernel.ok("def", "load")
    refused = kernel.run("total")
    assert refused.status == "error"
    assert "clean has to run first" in refused.traceback
    kernel.ok("clean")
    assert "extra has to run first" in kernel.run("total").traceback
    kernel.ok("extra", "total", "show")
    assert executions(kernel) == ORDER
    assert kernel.value("label") == "'21'"


def test_edited_upstream(kernel: Kernel) -> None:
    kernel.ok("def", *ORDER)
    kernel.notebook.edit("load", CELLS["load"].replace("[3, 1, 2]", "[30, 10, 20]"))
    assert "load has to run first" in kernel.run("show").traceback
    kernel.ok("load")
    assert "clean has to run first" in kernel.run("show").traceback
    assert kernel.ok("clean", "extra").status == "ok"
    assert "total has to run first" in kernel.run("show").traceback
    assert kernel.ok("total", "show").result == "'129'"
    assert executions(kernel) == [*ORDER, "load", "clean", "extra", "total", "show"]


def test_an_edit_that_changes_nothing_goes_no_further(kernel: Kernel) -> None:
    kernel.ok("def", *ORDER)
    kernel.notebook.edit("clean", CELLS["clean"] + "\nassert len(df) == 3")
    assert "clean has to run first" in kernel.run("total").traceback
    kernel.ok("clean")
    assert kernel.ok("total", "show").result == "'21'"
    assert executions(kernel) == [*ORDER, "clean", "total", "show"]
    kernel.notebook.edit("extra", "%%step extra\n# how many\nn = len(df)")
    assert kernel.ok("show").result == "'21'", "a comment is no change"


def test_an_edited_definition(kernel: Kernel) -> None:
    kernel.ok("def", *ORDER)
    kernel.notebook.edit("def", CELLS["def"].replace("SCALE = 2", "SCALE = 5"))
    kernel.ok("def")
    assert "total has to run first" in kernel.run("show").traceback
    assert kernel.ok("total", "show").result == "'48'"
    assert executions(kernel) == [*ORDER, "total", "show"], "load, clean and extra do not use it"


def test_restart_and_run_all(kernel: Kernel) -> None:
    kernel.ok("def", *ORDER)
    kernel.restart()
    assert kernel.ok("def", *ORDER).result == "'21'"
    assert executions(kernel) == ORDER, "after a restart everything comes from the store"
    assert kernel.value("list(df.b), n, float(total)") == "([0.0, 2.0, 1.0], 3, 21.0)"


def test_restart_in_the_middle_and_go_on(kernel: Kernel) -> None:
    kernel.ok("def", "load", "clean")
    kernel.restart()
    kernel.ok("def", "extra")
    assert executions(kernel) == ["load", "clean", "extra"], "its inputs came from the store"
    kernel.restart()
    assert kernel.ok("def", "load", "clean", "extra", "total", "show").result == "'21'"
    assert executions(kernel) == ORDER


def test_restart_after_an_edit(kernel: Kernel) -> None:
    kernel.ok("def", *ORDER)
    kernel.notebook.edit("extra", "%%step extra\nn = 100")
    kernel.restart()
    assert kernel.ok("def", *ORDER).result == "'118'"
    assert executions(kernel) == [*ORDER, "extra", "total", "show"]


def test_a_name_of_the_users_own_does_not_leak(kernel: Kernel) -> None:
    kernel.ok("def", "load", "clean", "extra")
    kernel.execute("n = 1000")
    assert kernel.ok("total", "show").result == "'21'"
    assert executions(kernel) == ORDER


def test_flow_run_after_cells_by_hand_runs_the_rest(kernel: Kernel) -> None:
    kernel.ok("def", "load", "clean")
    assert kernel.execute("%flow run").status == "ok"
    assert sorted(executions(kernel)) == sorted(ORDER)
    assert kernel.value("label") == "'21'"
    assert "reused" in kernel.ok("show").text
    assert kernel.ok("show").result == "'21'"
    assert executions(kernel)[5:] == ["show"], "once more executes it"


def test_a_module_edited_after_its_import(tmp_path: Path) -> None:
    """The kernel goes on with what it has imported, as any notebook does; nobody takes that for the new text."""
    (tmp_path / "helper.py").write_text("FACTOR = 3\n")
    cells = {"i": "import helper", "a": "%%step a\nx = helper.FACTOR"}
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", cells)) as kernel:
        kernel.ok("i")
        (tmp_path / "helper.py").write_text("FACTOR = 44\n")
        kernel.ok("a")
        assert kernel.value("x") == "3"
        assert "helper.py has changed" in kernel.execute("%flow why a").text
        assert kernel.execute("%flow run").status == "ok"
        assert kernel.value("x") == "44"


def test_names_follow_the_run_that_was_asked_for_last(tmp_path: Path) -> None:
    cells = {"p": "%%params\nrate: float = 0.5", "a": "%%step a\na = rate * 10\nb = 1"}
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", cells)) as kernel:
        for command, expected in (("%flow run", "5.0"), ("%flow run rate=2", "20.0"), ("%flow run", "5.0")):
            assert kernel.execute(command).status == "ok"
            assert kernel.value("a") == expected
        kernel.execute("a = 'mine'")
        assert kernel.execute("%flow run").status == "ok"
        assert kernel.value("a") == "'mine'", "nothing of it is new, and it is the user's own"


def test_what_is_bound_beside_a_background_run_stays(tmp_path: Path) -> None:
    cells = {
        "s": "%%step s\nimport pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\ns = t = 1"
    }
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", cells)) as kernel:
        assert kernel.execute("%flow run --background").status == "ok"
        kernel.execute("s = 'mine'")
        (tmp_path / "go").write_text("")
        kernel.execute("%flow attach latest")
        assert "s: bound here since flow/" in kernel.execute("(s, t)").text + kernel.execute("(s, t)").text
        assert kernel.value("(s, t)") == "('mine', 1)"


def workers(kernel: Kernel) -> list[str]:
    """The command lines of the kernel's children that tasks are forked from, once there are some, for two seconds."""
    pid = kernel.value("__import__('os').getpid()")
    end = time.monotonic() + 2
    found: list[str] = []
    while not found and time.monotonic() < end:
        time.sleep(0.05)
        with contextlib.suppress(OSError):  # a thread or child that has just ended
            children = [
                one for each in Path(f"/proc/{pid}/task").glob("*/children") for one in each.read_text().split()
            ]
            found = [text for one in children if "zygote" in (text := Path(f"/proc/{one}/cmdline").read_text())]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_are_there_before_the_first_cell_that_asks_for_one(tmp_path: Path) -> None:
    """They import what the notebook imports while the user's own first cells run; not where there are no steps."""
    plain = {"i": "import json", "a": "x = [1, 2]"}
    with Kernel(NotebookFile(tmp_path / "plain.ipynb", plain)) as kernel:
        kernel.ok("i", "a")
        assert workers(kernel) == []
    wide = {
        "i": "import json, textwrap",
        "a": "%%step a\nx = [1, 2]",
        "b": "%%step b --foreach n in x\ny = json.dumps(n)",
    }
    with Kernel(NotebookFile(tmp_path / "wide.ipynb", wide)) as kernel:  # which has loaded nbflow: that is enough
        (found,) = workers(kernel)
        assert "json" in found
        kernel.ok("a", "b")
        assert kernel.value("y") == "'2'"


def test_a_condition_is_asked_in_the_kernel(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nx, y = 1, 'above'",
        "b": "%%step b --if x > 5\nimport os\ny = os.getpid()\nprint('ran')\ny",
        "c": "%%step c\ny",
        "d": "%%step d --if x / 0 > 1\nz = 1",
        "e": "%%step e --if x < 5\n[x]",
    })  # fmt: skip
    kernel.ok("a")
    assert kernel.ok("b").stdout == "skipped: x > 5 is False\n"
    assert kernel.ok("c").result == "'above'", "a reader takes what stands above"
    assert kernel.ok("b").stdout == "skipped: x > 5 is False\n", "asked again"
    assert kernel.value("y") == "'above'"
    assert kernel.ok("e").result == "[1]"
    failed = kernel.run("d")
    assert failed.ename == "ZeroDivisionError"
    assert "nbflow/" not in failed.traceback, "only the user's own lines"
    kernel.notebook.edit("a", "%%step a\nx, y = 9, 'above'")
    ran = kernel.ok("a", "b")
    assert (ran.stdout, ran.result) == ("ran\n", kernel.value("__import__('os').getpid()"))
    assert kernel.ok("c").result == ran.result
    assert ("b", "skipped") in states(kernel)


def test_what_the_kernel_cannot_put_back_is_said(start: Start) -> None:
    kernel = start({
        "top": "import math, helper_of_hand as own",
        "one": "%%step one\nwith open('log.txt', 'w') as f:\n    f.write('1')\nxs = [getattr(math, 'extra', 0)]",
        "two": "%%step two\nn = int(open('log.txt').read())\nn",
        "sly": "%%step sly\ngetattr(xs, 'append')(5)",
        "late": "%%step late\nwith open('log.txt', 'a') as f:\n    f.write('2')\nown.SEEN.append(len(xs))\nlen(xs)",
        "patch": "%%step patch\nmath.extra = 5\nk = 1",
    })  # fmt: skip
    (kernel.notebook.path.parent / "helper_of_hand.py").write_text("SEEN = []\n")
    kernel.ok("top", "one", "two")
    early = kernel.ok("late")
    assert "sly may change xs and has not run" in early.stderr
    assert "late changes SEEN of the module helper_of_hand" in early.stderr
    kernel.ok("sly", "patch")
    again = kernel.ok("two")
    assert again.result == "12"
    assert "two read log.txt as late below it has left it" in again.stderr
    assert "late has added to log.txt once more" in kernel.ok("late").stderr
    assert "`math.extra = 5` of cell 7 below has run" in kernel.ok("one").stderr
    for name in ("one", "two"):
        assert "log.txt" not in kernel.ok(name).stderr


def test_what_a_later_cell_set_on_a_module_is_said_and_reused_nowhere(start: Start) -> None:
    kernel = start({
        "top": "import settings_of_hand as settings",
        "a": "%%step a\nx = settings.RATE\nx",
        "b": "%%step b\nsettings.RATE = 6\nsettings.RATE",
        "c": "%%step c\n(x, settings.RATE)",
    })  # fmt: skip
    (kernel.notebook.path.parent / "settings_of_hand.py").write_text("RATE = 5\n")
    kernel.ok("top", "a", "b")
    assert kernel.ok("c").result == "(5, 6)"
    assert "settings_of_hand.RATE is as a cell has made it in this kernel" in kernel.ok("a").stderr
    kernel.restart()
    kernel.ok("top")
    assert kernel.ok("a").result == "5"
    assert kernel.ok("b", "c").result == "(5, 6)"


def test_a_plain_cell_that_runs_on_what_a_later_one_has_left_says_what_to_run(start: Start) -> None:
    kernel = start({
        "a": "%%step a\nxs = [1]", "plain": "xs.append(2)", "c": "%%step c\nxs.append(9)\nxs",
    })  # fmt: skip
    assert kernel.ok("a", "plain", "c").result == "[1, 2, 9]"
    kernel.notebook.edit("plain", "xs.append(3)")
    told = kernel.ok("plain").stderr
    assert "runs on xs as another cell has left it" in told
    assert "run a again, then this cell" in told
    assert kernel.run("c").ename == "PlanError"
    assert kernel.ok("a", "plain", "c").result == "[1, 3, 9]"


def test_a_step_that_has_failed_here_is_said_to_have_failed(start: Start) -> None:
    kernel = start({"a": "%%step a\nx = 1 / 0", "b": "%%step b\nx"})
    assert kernel.run("a").ename == "ZeroDivisionError"
    assert "a has to run first (it failed)" in kernel.run("b").traceback
    kernel.notebook.edit("a", "%%step a\nx = 1")
    assert kernel.ok("a", "b").result == "1"


SHARED = {
    "a": "a = [1]",
    "build": "%%step build --retry 1\nb = a",
    "grow": "%%step grow\na.append(2)",
    "show": "%%step show\nprint(b, b is a)",
}


@pytest.mark.parametrize("told", [True, False], ids=["told of the notebook", "not told"])
def test_a_step_in_a_process_shares_with_what_cells_below_it_change(start: Start, told: bool) -> None:
    """Its run is of it alone: what the others will change is known from the notebook, or anything may be changed."""
    kernel = start(SHARED, env={} if told else {"JPY_SESSION_NAME": ""})
    assert kernel.ok("a", "build", "grow", "show").stdout == "[1, 2] True\n"
    kernel.restart()
    assert "[1, 2] True\n" in kernel.ok("a", "build", "grow", "show").stdout


def test_what_saw_another_order_of_a_set_counts_in_this_kernel_alone(start: Start) -> None:
    cells = {
        "words": "%%step words\nwords = {f'w{i}' for i in range(50)}\nfirst = next(iter(words))",
        "place": "%%step place\nplace = list(words).index(first)",
    }
    kernel = start(cells, env={"PYTHONHASHSEED": "7"})
    assert nbflow.run(kernel.notebook.path)["place"].task.data.place == 0
    kernel.ok("place")  # reused
    assert "sets there have another order" in kernel.ok("place").stderr
    assert kernel.value("place") != "0"
    kernel.execute("%flow status")  # stored
    assert nbflow.run(kernel.notebook.path)["place"].task.data.place == 0


HELD = {
    "make": "%%step make\nrows = []",
    "def": "class Repo:\n    rows = rows\n\n    def add(self, x):\n        self.rows.append(x)",
    "use": "%%step use\nrepo = Repo()\nrepo.add(1)",
    "plain": "rows.append('plain')",
    "again": "%%step again\nprint(Repo.rows, repo.rows, rows)",
}


@pytest.mark.parametrize("first", ["", "%flow run"], ids=["by hand", "after a run"])
def test_a_plain_cell_changes_what_a_class_holds(start: Start, first: str) -> None:
    kernel = start(HELD)
    if first:
        assert kernel.execute(first, timeout=120).status == "ok"
    for _ in range(2):
        shown = kernel.ok(*HELD)
        assert "[1, 'plain'] [1, 'plain'] [1, 'plain']\n" in shown.stdout
        assert "as another cell has left it" not in shown.stderr


def test_a_class_with_a_destructor_is_named_once(start: Start) -> None:
    kernel = start({
        "def": "log = []\n\nclass Handle:\n    def __del__(self):\n        log.append('gone')",
        "a": "%%step a\nhandle = Handle()\nprint('made')", "b": "%%step b\nhandle = None\nprint('let go')",
    })  # fmt: skip
    kernel.ok("def")
    assert "Handle.__del__ runs where a step's own copy of an object goes" in kernel.ok("a").stderr
    assert "__del__" not in kernel.ok("b").stderr
    flow = build_flow(read_notebook(kernel.notebook.path))
    told = [(each.name, each.line) for each in flow.findings if each.code == "destructor"]
    assert told == [("Handle", 4)]
