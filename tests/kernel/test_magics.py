"""A `%%step` cell is a plain cell in all that IPython does with it: every row is tried in a real kernel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.kernel.magics import transform
from tests.support.kernel import Executed, Kernel, NotebookFile

pytestmark = pytest.mark.running


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder: Path = tmp_path_factory.mktemp("magics")
    with Kernel(NotebookFile(folder / "flow.ipynb", {"first": "%load_ext nbflow"})) as started:
        yield started


def step(kernel: Kernel, source: str, **options: object) -> Executed:
    """A cell that the notebook does not hold yet, with an id of its own."""
    name = source.split("\n")[0].split()[1] if source.startswith("%%step ") else "cell"
    return kernel.execute(source, f"{name}-{abs(hash(source)) % 10**8}", **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the transformer


TRANSFORMED = {
    "plain cells stay": ("x = 1\n", "x = 1\n"),
    "a step": ("%%step a --gpu 1\nx = 1\n", "get_ipython().nbflow_enter('step', 'a --gpu 1')\nx = 1\n"),
    "parameters": ("%%params\nx = 1\n", "get_ipython().nbflow_enter('params', '')\nx = 1\n"),
    "set-up": ("%%setup\nx = 1\n", "get_ipython().nbflow_enter('setup', '')\nx = 1\n"),
    "as a comment": ("# %%step a\nx = 1\n", "get_ipython().nbflow_enter('step', 'a')\nx = 1\n"),
    "no body": ("%%step a\n", "get_ipython().nbflow_enter('step', 'a')\n"),
    "quotes": ("%%step a --if x == 'b'\n", "get_ipython().nbflow_enter('step', \"a --if x == 'b'\")\n"),
    "an open bracket": (
        "%%step a --foreach x in [1,\n2]\ny = 1\n",
        "get_ipython().nbflow_enter('step', 'a --foreach x in [1,')\n",
    ),
    "another word": ("%%stepping a\nx = 1\n", "%%stepping a\nx = 1\n"),
    "not on the first line": ("x = 1\n%%step a\n", "x = 1\n%%step a\n"),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed(name: str) -> None:
    before, after = TRANSFORMED[name]
    assert "".join(transform(before.splitlines(keepends=True))) == after


def test_nested_magic_keeps_its_body() -> None:
    text = "".join(transform(["%%step a\n", "\n", "%%time\n", "x = 1\n"]))
    assert text == "get_ipython().nbflow_enter('step', 'a')\n\nget_ipython().run_cell_magic('time', '', 'x = 1\\n')\n"


# ---------------------------------------------------------------- a step is a plain cell


def test_last_expression_is_shown_and_kept(kernel: Kernel) -> None:
    assert step(kernel, "%%step shown\n40 + 2").result == "42"
    assert kernel.value("_") == "42"


def test_semicolon_silences(kernel: Kernel) -> None:
    executed = step(kernel, "%%step silenced\n3;")
    assert (executed.status, executed.result) == ("ok", "")


def test_await_works(kernel: Kernel) -> None:
    executed = step(kernel, "%%step awaits\nimport asyncio\nawait asyncio.sleep(0.01)\nawaited = 5")
    assert executed.status == "ok", executed.text
    assert kernel.value("awaited") == "5"


@pytest.mark.parametrize(
    "body",
    ["import time\nfor _ in range(80):\n    time.sleep(0.05)", "n = 0\nwhile n < 10**9:\n    n += 1"],
    ids=["sleep", "busy"],
)
def test_interrupt_ends_the_cell_at_once(kernel: Kernel, body: str) -> None:
    kernel.execute("outside = 'kept'")
    request = kernel.send(f"%%step interrupted\nprint('begun', flush=True)\n{body}", "interrupted-cell")
    while kernel.client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass  # no file tells that it has begun: steps below that start programs would read what this one has written
    began = time.monotonic()
    kernel.interrupt()
    executed = kernel.collect(request)
    assert executed.ename == "KeyboardInterrupt"
    assert time.monotonic() - began < 2
    assert kernel.value("outside") == "'kept'"


def test_traceback_begins_in_the_users_cell(kernel: Kernel) -> None:
    executed = step(kernel, "%%step fails\na = 1\nb = a / 0\n")
    assert executed.ename == "ZeroDivisionError"
    assert "nbflow" not in executed.traceback
    assert "----> 3 b = a / 0" in executed.traceback
    assert "#%%step fails" in executed.traceback


def test_syntax_error_is_a_plain_one(kernel: Kernel) -> None:
    kernel.execute("outside = 'kept'")
    executed = step(kernel, "%%step broken\nx = 1\ny = = 2\n")
    assert executed.ename == "SyntaxError"
    assert "line 3" in executed.traceback
    assert "nbflow" not in executed.traceback
    assert kernel.value("outside") == "'kept'"


def test_names_in_in_and_getsource(kernel: Kernel) -> None:
    executed = step(kernel, "%%step source\nimport inspect\ndef f(x):\n    return x\nprint(inspect.getsource(f))")
    assert executed.stdout.strip() == "def f(x):\n    return x"


def test_system_exit_is_reported_and_the_kernel_lives(kernel: Kernel) -> None:
    executed = step(kernel, "%%step exits\nraise SystemExit(3)")
    assert executed.ename == "SystemExit"
    assert kernel.value("1 + 1") == "2"


@pytest.mark.parametrize(
    ("magic", "expected"),
    [("%%time", "Wall time"), ("%%bash", "from bash"), ("%%capture caught", "")],
    ids=["time", "bash", "capture"],
)
def test_nested_cell_magics(kernel: Kernel, magic: str, expected: str) -> None:
    body = "echo from bash" if magic == "%%bash" else "print('inside')\nnested = 7"
    executed = step(kernel, f"%%step nested_{magic[2:6]}\n{magic}\n{body}")
    assert executed.status == "ok", executed.text
    assert expected in executed.stdout
    if magic != "%%bash":
        assert kernel.value("nested") == "7"


@pytest.mark.parametrize("body", ["!echo shell", "lines = !echo shell\nprint(lines[0])", "%time print('shell')"])
def test_line_magics_and_shell(kernel: Kernel, body: str) -> None:
    executed = step(kernel, f"%%step lines{abs(hash(body)) % 1000}\n{body}")
    assert executed.status == "ok", executed.text
    assert "shell" in executed.stdout


def test_empty_body(kernel: Kernel) -> None:
    assert step(kernel, "%%step empty\n").status == "ok"


def test_future_import(kernel: Kernel) -> None:
    assert step(kernel, "%%step future\nfrom __future__ import annotations\nz: 'int' = 1").status == "ok"


def test_help(kernel: Kernel) -> None:
    assert step(kernel, "%%step helped\n?print").status == "ok"


def test_debug_after_a_failure_shows_the_users_frames(kernel: Kernel) -> None:
    step(kernel, "%%step debugged\ndef inner(v):\n    return v / 0\ninner(6)\n")
    executed = kernel.execute("%debug", answers=("p v", "where", "q"))
    assert "6" in executed.stdout
    assert "nbflow" not in executed.text


def test_step_by_comment(kernel: Kernel) -> None:
    assert step(kernel, "# %%step commented\ncommented = 3").status == "ok"
    assert kernel.value("commented") == "3"


def test_step_by_tag(kernel: Kernel) -> None:
    executed = kernel.execute("tagged = 11\nhid = [1]", "tag-cell", metadata={"tags": ["step:by_tag"]})
    assert executed.status == "ok", executed.text
    assert kernel.value("tagged") == "11"
    assert "by_tag" in kernel.execute("%flow status").text


def test_silent_request_puts_the_names_back(kernel: Kernel) -> None:
    kernel.execute("outside = 'kept'")
    kernel.execute("%%step silently\nsilent_value = 1", "silent-cell", silent=True)
    assert kernel.value("outside") == "'kept'"
    assert kernel.value("silent_value") == "1"


def test_nested_run_cell_does_not_end_the_step(kernel: Kernel) -> None:
    kernel.execute("outside = 'kept'")
    executed = step(
        kernel,
        "%%step nests\nget_ipython().run_cell('inner = 1 + 1')\nget_ipython().run_cell('')\n"
        "seen = 'outside' in globals()\nprint(seen, inner)",
    )
    assert executed.stdout.strip() == "False 2", executed.text
    assert kernel.value("outside") == "'kept'"


def test_step_inside_a_step_is_refused(kernel: Kernel) -> None:
    executed = step(kernel, "%%step outer\nget_ipython().run_cell('%%step within\\nx = 1')\nafter = 1")
    assert "inside another cell's code" in executed.text
    assert kernel.value("after") == "1"


def test_user_thread_keeps_its_names(kernel: Kernel) -> None:
    kernel.execute(
        "import threading, time\nheard = []\nstop = False\ndef listen():\n    while not stop:\n"
        "        heard.append(time.time())\n        time.sleep(0.01)\n"
        "listener = threading.Thread(target=listen); listener.start()"
    )
    executed = step(kernel, "%%step beside\nimport time as t\nt.sleep(0.2)")
    assert executed.status == "ok"
    assert "earlier cell started is still running" in executed.stderr
    assert kernel.value("listener.is_alive()") == "True"
    kernel.execute("stop = True; listener.join()")
    assert "still running" not in step(kernel, "%%step alone\nalone = 1").stderr


def test_deleting_an_input_stays(kernel: Kernel) -> None:
    step(kernel, "%%step makes\ngone = [1]\nstays = 2")
    assert step(kernel, "%%step deletes\nkept = gone[0]\ndel gone").status == "ok"
    assert kernel.value("'gone' in globals(), stays, kept") == "(False, 2, 1)"


# ---------------------------------------------------------------- errors of ours


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("%%step bad --gpus 1\nx = 1", "unknown option --gpus; did you mean 'gpu'?"),
        ("%%step\nx = 1", "the step has no name"),
        ("%%step open --foreach x in [1,\n2]\ny = 1", "is not `NAME in EXPRESSION`"),
        ("x = 1\n%%step late\ny = 1", "`%%step late` stands below code"),
        ("%flow nothing", "no command 'nothing'"),
        ("%flow rum", "did you mean 'run'?"),
        ("%flow run --frsh", "did you mean '--fresh'?"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(kernel: Kernel, source: str, message: str) -> None:
    executed = kernel.execute(source, f"wrong-{abs(hash(source)) % 10**6}")
    assert executed.status == "error"
    assert message in executed.traceback
    assert "Traceback" not in executed.traceback
    assert ".py" not in executed.traceback
    assert executed.traceback.startswith("error: ")


def test_completeness_in_a_terminal(kernel: Kernel) -> None:
    texts = ("%%step a\n", "%%step a\nx = 1\n", "%%step a\nx = 1\n\n")
    found = kernel.value(f"[get_ipython().check_complete(text)[0] for text in {texts!r}]")
    assert found == "['incomplete', 'incomplete', 'complete']"


def test_loading_twice_and_unloading(kernel: Kernel) -> None:
    assert kernel.execute("%load_ext nbflow").status == "ok"
    assert kernel.execute("%reload_ext nbflow").status == "ok"
    transforms = "get_ipython().input_transformer_manager.line_transforms"
    assert kernel.value(f"[t.__module__ for t in {transforms}].count('nbflow.kernel.magics')") == "1"
    assert step(kernel, "%%step again\nagain = 1").status == "ok"
    assert kernel.execute("%unload_ext nbflow").status == "ok"
    assert kernel.execute("%%step never\nx = 1").status == "error"
    assert kernel.execute("%load_ext nbflow").status == "ok"
    assert step(kernel, "%%step anew\nanew = 1").status == "ok"
