"""The worker's shell shows what a Jupyter kernel shows: each cell's outputs compared with nbclient's."""

# ruff: noqa: E501  # a table: one case a line
from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from nbflow.executors.local import LocalExecutor
from tests.support.tasks import Tasks

pytestmark = pytest.mark.running


@dataclass(frozen=True)
class Case:
    """A cell; `unordered` where stdout and stderr of a kernel keep no order between them."""

    name: str
    source: str
    unordered: bool = False


CASES = (
    Case("interactive", "import matplotlib.pyplot as plt\nprint(plt.isinteractive(), plt.get_backend())"),
    Case("print", "print('a')\nprint('b', end='')"),
    Case("stderr", "import sys\nprint('oops', file=sys.stderr)"),
    Case("write", "import sys\nsys.stdout.write('x\\ny')"),
    Case("no newline", "print('a', end='')\nprint('b', end='')"),
    Case("result", "{'a': [1, 2], 'b': 'text'}"),
    Case("none", "None"),
    Case("silenced", "5;"),
    Case("assigned", "x = 5"),
    Case("display", "display({'a': 1}, 'b')\nprint('between')\ndisplay(3)"),
    Case("html", "from IPython.display import HTML\nHTML('<b>x</b>')"),
    Case("markdown", "from IPython.display import Markdown, display\ndisplay(Markdown('**x**'), metadata={'k': 1})"),
    Case("png", "from IPython.display import Image\nImage(data=bytes.fromhex('89504e470d0a1a0a'), format='png')"),
    Case("svg", "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"),
    Case("json", "from IPython.display import JSON\nJSON({'a': [1, None, True]})"),
    Case("javascript", "%%javascript\nconsole.log(1)"),
    Case("bundle", "class V:\n    def _repr_mimebundle_(self, **k): return {'text/plain': 'v', 'application/vnd.x+json': {'k': 1}}\nV()"),
    Case("safe html", "import markupsafe\nclass V:\n    def _repr_html_(self): return markupsafe.Markup('<i>v</i>')\n    def __repr__(self): return 'v'\nV()"),
    Case("own text", "class T(str):\n    def __str__(self): return self\n    __repr__ = __str__\nprint(T('t'))\ndisplay({T('text/plain'): T('t')}, raw=True)\nT('t')"),
    Case("own parts", "class N(int): pass\nclass D(dict): pass\nclass L(list): pass\ndisplay({'application/json': D(a=N(3), b=L([True, None, (1, 2)]))}, metadata=D(w=N(4)), raw=True)"),
    Case("numbers of NumPy", "import numpy as np\ndisplay({'application/json': {'a': np.float64(0.5), 'b': np.int8(1), 'c': np.arange(2)}}, raw=True)"),
    Case("dates", "import datetime as dt\ndisplay({'application/json': [dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, tzinfo=dt.UTC)]}, raw=True)"),
    Case("changed later", "d = {'text/plain': 'then'}\ndisplay(d, raw=True)\nd['text/plain'] = 'now'"),
    Case("own error text", "class T(str):\n    def __str__(self): return self\nclass E(Exception):\n    def __str__(self): return T('t')\nraise E"),
    Case("repr html", "class V:\n    def _repr_html_(self): return '<i>v</i>'\n    def __repr__(self): return 'v'\nV()"),
    Case("update", "h = display('first', display_id='i')\nprint('x')\nh.update('second')"),
    Case("clear", "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('kept')"),
    Case("clear later", "from IPython.display import clear_output\nprint('gone')\nclear_output(wait=True)\nprint('kept')"),
    Case("frame", "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', None]})"),
    Case("frame after print", "import pandas as pd\nprint('frame')\npd.Series([1.5, 2], name='s')"),
    Case("figure", "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 2), dpi=50)\nplt.plot([1, 3, 2]);"),
    Case("figure and result", "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 2), dpi=50)\nplt.plot([1, 3, 2])\n7"),
    Case("figure shown", "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 2), dpi=50)\nplt.bar([1], [2])\nplt.show()\nprint('after')"),
    Case("inline magic", "%matplotlib inline\nimport matplotlib.pyplot as plt\nfig = plt.figure(figsize=(1, 1), dpi=50)\nprint('x')"),
    Case("figure result", "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(figsize=(1, 1), dpi=50)\nplt.close(fig)\nfig"),
    Case("pandas plot", "import pandas as pd\nax = pd.Series([1, 2]).plot(figsize=(1, 1))"),
    Case("await", "import asyncio\nawait asyncio.sleep(0.01)\nprint('slept')\nawait asyncio.sleep(0, 'value')"),
    Case("command", "!echo hello"),
    Case("command captured", "x = !echo hello\nx"),
    Case("bash", "%%bash\necho one\necho two >&2", unordered=True),
    Case("capture", "%%capture c\nprint('hidden')"),
    Case("capture shown", "from IPython.utils.capture import capture_output\nwith capture_output() as c:\n    print('a'); display(1)\nc.show()"),
    Case("redirect", "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f: print('a')\nf.getvalue()"),
    Case("raw descriptor", "import os, sys\nsys.stdout.flush()\nos.write(1, b'raw\\n')\nimport time; time.sleep(0.3)"),
    Case("subprocess", "import subprocess\nprint('before', flush=True)\nsubprocess.run(['echo', 'sub'])\nimport time; time.sleep(0.3)"),
    Case("thread", "import threading\nt = threading.Thread(target=print, args=('in thread',)); t.start(); t.join()"),
    Case("who", "a = 1\nb = 'x'\n%who"),
    Case("Out", "Out, _"),
    Case("help", "len?"),
    Case("logging", "import logging\nlogging.warning('careful')"),
    Case("warning", "import warnings\nwarnings.simplefilter('always')\nwarnings.warn_explicit('careful', UserWarning, 'f.py', 1)"),
    Case("unicode", "print('é ü 漢 🎉')\n'é'"),
    Case("long list", "list(range(1500))"),
    Case("error", "print('before')\n1 / 0"),
    Case("error in function", "def f():\n    return g()\ndef g():\n    raise ValueError('no')\nf()"),
    Case("error chained", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e"),
    Case("error in library", "import json\njson.loads('{')"),
    Case("syntax error", "x = 1\ny = ("),
    Case("indentation error", "def f():\nreturn 1"),
    Case("unknown name", "undefined_name"),
    Case("unknown magic", "%nonsense"),
    Case("usage error", "%matplotlib nonsense_backend"),
    Case("own exception", "class MyError(Exception): pass\nraise MyError('mine', 2)"),
    Case("rendered exception", "class E(Exception):\n    def _render_traceback_(self): return ['mine']\nraise E('x')"),
    Case("group", "raise ExceptionGroup('g', [ValueError(1), KeyError('k')])"),
    Case("error in await", "import asyncio\nasync def f():\n    raise ValueError('later')\nawait f()"),
    Case("assertion", "assert 1 == 2, 'not equal'"),
    Case("broken repr", "class B:\n    def __repr__(self): raise ValueError('bad repr')\nB()"),
    Case("keyboard", "raise KeyboardInterrupt"),
)  # fmt: skip

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PLACES = (
    (re.compile(r"Cell In\[\d+\]|step train"), "CELL"),
    (re.compile(r"File [^\s\"]*ipykernel_\d+/\d+\.py|File train"), "File CELL"),
    (re.compile(r'"\S*ipykernel_\d+/\d+\.py"|"train"'), '"CELL"'),
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"\S*ipykernel_\d+/\d+\.py"), "CELL"),
    (re.compile(r"\((\d+\.py|train), line"), "(CELL, line"),
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Every case's outputs from a fresh kernel each would take a minute; one kernel, its state put back, takes seconds."""
    reset = "%reset -f"
    cells = []
    for case in CASES:
        cells += [nbformat.v4.new_code_cell(reset), nbformat.v4.new_code_cell(case.source)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("plain"))}}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST")  # with it ipykernel does not watch descriptors 1 and 2
        NotebookClient(notebook, allow_errors=True, timeout=60, resources=resources).execute()
    return {case.name: notebook.cells[2 * n + 1].outputs for n, case in enumerate(CASES)}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tasks]:
    executor = LocalExecutor()
    yield Tasks(executor, tmp_path_factory.mktemp("worker"))
    executor.close()


def comparable(outputs: Any) -> list[Any]:
    """Outputs without what must differ: execution counts, colours, names of cells and addresses."""
    found = []
    for output in outputs:
        output = dict(output)
        output.pop("execution_count", None)
        if output["output_type"] == "error":
            # IPython 9.18 shows plainer frames in a kernel, and wrong lines in chains: only the ends are compared
            lines = ANSI.sub("", "\n".join(output["traceback"])).splitlines()
            output["traceback"] = [_without_places(line) for line in (*lines[:2], lines[-1])]
            output["evalue"] = _without_places(output["evalue"])
        if output["output_type"] == "stream":
            output["text"] = _without_places(ANSI.sub("", output["text"]))
            if found and found[-1].get("name") == output["name"]:
                found[-1]["text"] += output["text"]
                continue
        if "data" in output:
            output["data"] = {
                kind: _without_places(v) if isinstance(v, str) else v for kind, v in output["data"].items()
            }
            output["metadata"] = dict(output["metadata"])
        found.append(output)
    return found


def _without_places(text: str) -> str:
    for pattern, name in PLACES:
        text = pattern.sub(name, text)
    return text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_outputs_are_those_of_a_kernel(case: Case, plain: dict[str, list[Any]], tasks: Tasks) -> None:
    expected = comparable(plain[case.name])
    found = comparable(tasks.run(case.source).result.outputs)
    if case.unordered:
        expected, found = (sorted(each, key=lambda output: str(output)) for each in (expected, found))
    assert found == expected


def test_exports_of_figures_are_images(tasks: Tasks) -> None:
    done = tasks.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])")
    kinds = [set(output.get("data", {})) for output in done.result.outputs]
    assert {"text/plain", "image/png"} in kinds
    assert done.result.failure is None


def test_a_plain_traceback_shows_source_lines(tasks: Tasks) -> None:
    trace = tasks.run("def f(x):\n    return 1 / x\n\nf(0)").failure.traceback
    assert "    return 1 / x" in trace
    assert 'File "train", line 4, in <module>' in trace


def test_inspect_finds_the_source(tasks: Tasks) -> None:
    done = tasks.run("import inspect\ndef f(x):\n    return x + 1\nprint(inspect.getsource(f), end='')")
    assert done.stdout == "def f(x):\n    return x + 1\n"


def test_unnamed_steps_are_called_by_their_label(tasks: Tasks) -> None:
    done = tasks.run("1 / 0", code_name="cell 3: df")
    assert "cell 3: df, line 1" in ANSI.sub("", "".join(done.result.outputs[-1]["traceback"]))


def test_gui_loops_are_left_alone(tasks: Tasks) -> None:
    assert tasks.run("get_ipython().enable_gui('qt')\n1").shown == "1"


def test_stdin_is_at_its_end(tasks: Tasks) -> None:
    assert tasks.run("import sys\nsys.stdin.read()").shown == "''"


def test_folder_is_the_notebooks(tasks: Tasks) -> None:
    assert Path(eval(tasks.run("import os\nos.getcwd()").shown)) == tasks.folder
    assert sys.platform


def test_a_widget_is_shown_as_its_text(tasks: Tasks) -> None:
    done = tasks.run("import ipywidgets\nfrom IPython.display import display\ndisplay(ipywidgets.IntSlider(value=7))")
    (shown,) = done.result.outputs
    assert shown["data"] == {"text/plain": "IntSlider(value=7)"}


def test_what_is_started_without_an_await_runs_as_in_a_kernel(tasks: Tasks) -> None:
    done = tasks.run(
        "import asyncio\nheard = []\nasync def listen(word):\n    await asyncio.sleep(0.01)\n    heard.append(word)\n"
        "tasks = [asyncio.create_task(listen(word)) for word in 'ab']"
    )
    assert done.result.record.artifacts["heard"].preview == "['a', 'b']"
    assert [finding.code for finding in done.result.record.findings] == ["left-running"]


def test_a_loop_runs_around_a_cell_that_asks_for_one_but_not_around_a_cell_within(tasks: Tasks) -> None:
    done = tasks.run(
        "import asyncio\nprint(asyncio.get_running_loop().is_running())\nget_ipython().run_cell('1 + 1').success"
    )
    assert [each.get("text") or each["data"]["text/plain"] for each in done.result.outputs] == ["True\n", "2", "True"]


def test_a_cell_finds_what_it_finds_in_a_notebook(tasks: Tasks) -> None:
    done = tasks.run(
        "import sys\nip = get_ipython()\nprint(type(ip), hasattr(ip, 'kernel'), 'ipykernel' in sys.modules)\nprint(sys.argv[1])"
    )
    assert done.stdout == "<class 'ipykernel.zmqshell.ZMQInteractiveShell'> True True\n-f\n"
