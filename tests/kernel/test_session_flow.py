"""The flow as a whole in a live kernel: runs, document order, what is seen meanwhile, fan-outs and commands."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.by_hand import CHAIN, PLAIN, Start, executions
from tests.support.kernel import Kernel, NotebookFile
from tests.support.waiting import eventually

pytestmark = pytest.mark.running

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
    slow = "import pathlib, time\npathlib.Path('begun').touch()\nfor _ in range(200):\n    time.sleep(0.1)\nx = 1"
    kernel = start({"slow": f"%%step slow\n{slow}"})
    request = kernel.send("%flow run")
    eventually(kernel.notebook.path.with_name("begun").exists)
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


def test_renamed_while_its_kernel_runs(start: Start, tmp_path: Path) -> None:
    """And another notebook is made under the old name, as JupyterLab does with Untitled.ipynb."""
    kernel = start(CHAIN)
    kernel.ok("load")
    assert kernel.execute("%flow run").status == "ok"
    kernel.notebook.path = (tmp_path / "flow.ipynb").rename(tmp_path / "analysis.ipynb")
    NotebookFile(tmp_path / "flow.ipynb", {"new": "%%step other\nx = 1"})
    kernel.notebook.edit("total", CHAIN["total"] + "\n")
    assert kernel.execute("%flow run").status == "ok"
    assert "analysis.ipynb" in kernel.execute("%flow status").text
    assert kernel.execute("%flow runs").text.count("analysis/") == 2


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
        ("%flow check", "ok: flow, 3 steps, 0 parameters"),
        ("%flow dag", "double"),
        ("%flow plan", "total"),
        ("%flow why total", "total: "),
        ("%flow runs", "cells run by hand"),
        ("%flow status", "document order: the saved notebook"),
        ("%flow doctor", "python:"),
        ("%flow config", ".nbflow, reported beyond 20G"),
        ("%flow config size 50G\n%flow config", ".nbflow, reported beyond 50G"),
        ("%flow cancel", "no run is under way"),
        ("%flow fsck --repair", "damaged"),
        ("%flow plan double --all-cells --tag t", "double"),
        ("%flow why total --fresh", "run"),
        ("%flow check --all-cells", "ok: flow, 3 steps"),
        ("%flow runs --all --status running", "cells run by hand"),
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


def test_what_a_notebook_prints_works_in_a_cell(start: Start) -> None:
    many = "%%step many --timeout 60s\nfor n in range(60_000):\n    print('line', n)"
    kernel = start({"many": many, "bad": "%%step bad\n1 / 0"})
    told = [kernel.run("many").text, kernel.execute("%flow run").text, kernel.execute("%flow show nothing").traceback]
    assert kernel.execute("%flow show nothing").traceback.splitlines()[-1] == "  fix: `%flow runs` lists all runs"
    commands = re.findall(r"%flow (?:logs|load|show|runs)[^`)\]\n]*", "\n".join(told))
    assert {command.split()[1] for command in commands} >= {"logs", "load", "runs"}
    assert not re.search(r"\bnbflow (?:logs|show|card|runs)\b", "\n".join(told))
    for command in dict.fromkeys(commands):
        assert kernel.execute(command).status == "ok", command


def test_logs_and_the_notebook_of_a_run(start: Start, tmp_path: Path) -> None:
    shown = "%%step shown\nimport sys\nprint('counted', 3)\nprint('careful', file=sys.stderr)\nn = 3\nn"
    each = "%%step each --foreach k in range(n)\nprint('item', k)\nsquare = k * k"
    bad = "%%step bad --retry 1\nprint('before')\n1 / (n - 3)"
    kernel = start({"shown": shown, "each": each, "bad": bad})
    assert kernel.execute("%flow run shown each").status == "ok"
    assert kernel.execute("%flow run").ename == "RunFailed"
    logs = kernel.execute("%flow logs shown")
    assert logs.status == "ok", logs.text
    assert logs.stdout == "counted 3\n3\n"
    assert logs.stderr == "careful\n"
    assert kernel.execute("%flow logs latest/each/1").stdout == "item 1\n"
    assert kernel.execute("%flow logs flow/latest/each").stdout.splitlines()[:2] == ["== each/0", "item 0"]
    first = kernel.execute("%flow logs bad --attempt 1")
    assert first.stdout == "before\n"
    assert "ZeroDivisionError" in first.stderr
    target = tmp_path / "seen.ipynb"
    assert f"wrote {target}" in kernel.execute(f"%flow show latest --notebook {target}").stdout
    assert "counted 3" in target.read_text()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("%flow logs", "no step was given: `%flow logs` needs one"),
        ("%flow logs latest", "names no step"),
        ("%flow logs double --attempt 7", "has no attempt 7"),
        ("%flow logs double --attempt two", "'two' is not a valid integer"),
        ("%flow runs --status finished", "'finished' is not one of 'running', 'done'"),
        ("%flow show double --notebook x.ipynb", "needs a run, not a part of it"),
        ("%flow show latest --notebook no/such/folder/x.ipynb", "cannot be written"),
        ("%flow card double --output no/such/folder/x.html", "cannot be written"),
    ],
)
def test_commands_that_cannot_be_done(commands: Kernel, command: str, message: str) -> None:
    assert commands.execute("%flow run").status == "ok"
    executed = commands.execute(command)
    assert executed.status == "error"
    assert message in executed.traceback


def test_commands_before_and_after_the_first_run(start: Start) -> None:
    """What needs a run says that there is none; a word after `--fresh` is the step to run again, or else the run."""
    kernel = start({"base": "%%step base\nn = 0", "bad": "%%step bad\nif not n:\n    raise ValueError(n)\nm = n"})
    assert "no run has failed" in kernel.execute("%flow resume").traceback
    assert "no run has failed" in kernel.execute("%flow resume --fresh base").traceback
    assert kernel.execute("%flow runs").text.strip() == "no runs"
    assert "there is no" in kernel.execute("%flow show").traceback
    assert "--background" in kernel.execute("%flow run --help").stdout
    assert kernel.execute("%flow run").ename == "RunFailed"
    again = kernel.execute("%flow resume --fresh base")
    assert again.ename == "RunFailed"
    assert re.search(r"base\s+run\s", again.stdout), again.stdout
    by_name = kernel.execute("%flow resume --fresh latest")
    assert by_name.ename == "RunFailed"
    assert "resume of flow/" in by_name.stdout


def test_run_in_the_background(start: Start) -> None:
    kernel = start({"slow": "%%step slow\nimport time\ntime.sleep(1)\nslow = 5", **CHAIN})
    executed = kernel.execute("%flow run --background")
    assert "in the background" in executed.stdout
    assert "a run is under way" in kernel.execute("%flow run").traceback
    for _ in range(50):
        if "done in" in kernel.execute("%flow status").text:
            break
        time.sleep(0.2)
    assert kernel.value("slow") == "5"
    assert "done" in kernel.execute("%flow status").text


BROKEN = """
from nbflow.kernel.screen import BackgroundScreen
whole, tries = BackgroundScreen.update, []

def broken(self, *_, **__):
    tries.append(1)
    raise SystemExit(3)

BackgroundScreen.update = broken
"""


def until(kernel: Kernel, source: str, wanted: str) -> None:
    for _ in range(100):
        if wanted in kernel.execute(source).text:
            return
        time.sleep(0.1)
    raise AssertionError(f"{source!r} never gave {wanted!r}")


def test_what_cannot_be_drawn_does_not_end_the_drawing(start: Start) -> None:
    """A run in the background goes on and draws itself again, whatever one drawing raised."""
    waits = "%%step waits\nimport pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\nleft = 5"
    kernel = start({"waits": waits})
    kernel.execute(BROKEN)
    assert kernel.execute("%flow run --background").status == "ok"
    until(kernel, "len(tries) > 2", "True")
    kernel.execute("BackgroundScreen.update = whole\nopen('go', 'w').close()")
    until(kernel, "%flow status", "done in")
    assert kernel.value("left") == "5"
    assert kernel.value("len([t for t in __import__('threading').enumerate() if t.name == 'nbflow-run'])") == "0"


SLOW_END = """
import time
from nbflow.engine.runner import Runner
close = Runner.close

def slow(self):
    time.sleep(1)  # as a store whose disk is busy
    close(self)

Runner.close = slow
"""


def test_cell_after_a_run_that_shows_as_done_has_its_names(start: Start) -> None:
    kernel = start({"load": "%%step load\nfrom_run = 5"})
    kernel.execute(SLOW_END)
    assert kernel.execute("%flow run --background").status == "ok"
    until(kernel, "%flow status", "done in")
    assert kernel.value("from_run") == "5"
    assert kernel.execute("%flow run").status == "ok"


def test_run_table_reads_as_text_in_nbclient(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    sources = ["%load_ext nbflow", *CHAIN.values(), "%flow run"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[-1].outputs
    (reused,) = outputs[1:]  # shown again, folded
    assert reused["data"]["text/plain"].startswith("total: reused; showed 1 display when it ran (%flow show ")
    assert "<details" in reused["data"]["text/html"]
    assert ">12</pre>" in reused["data"]["text/html"]
    text = outputs[0]["data"]["text/plain"]
    assert "done" in text
    assert all(name in text for name in CHAIN)
    assert (tmp_path / ".nbflow").is_dir()
