"""The cell that loads nbflow counts with all its lines, and cells above it do, whatever the kernel is told of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from nbflow.flow.notebook import document_of
from tests.support.kernel import Kernel, NotebookFile

pytestmark = pytest.mark.running


@dataclass(frozen=True)
class Case:
    """A notebook, and what its last cell's expression gives."""

    cells: tuple[str, ...]
    shows: str


CASES = {
    "imports below": Case(
        ("%load_ext nbflow\nimport math\nfrom math import pi as P", "%%step a\nround(P, math.floor(2.9))"), "3.14"
    ),
    "in the middle": Case(("import math\n%load_ext nbflow\nk = 4", "%%step a\nmath.sqrt(k)"), "2.0"),
    "a class, kept one and the same": Case(
        (
            "class Point:\n    pass\n%load_ext nbflow\ndef make():\n    return Point()\norigin = Point()",
            "%%step a\np = make()",
            "%%step b\nisinstance(p, Point), isinstance(origin, Point)",
        ),
        "(True, True)",
    ),
    "data made above, without a call, and below": Case(
        ("xs = [3, 1]\nys = xs + [2]\n%load_ext nbflow\nzs = sorted(ys)", "%%step a\nzs[-1], ys[-1]"), "(3, 2)"
    ),
    "loaded again, set-up and magics": Case(
        (
            "# first\n%config InlineBackend.rc = {}\n%load_ext nbflow",
            "%reload_ext nbflow\nimport logging\nlogging.basicConfig(level=logging.ERROR)",
            "%%step a\nlogging.root.level",
        ),
        "40",
    ),
    "cells above": Case(
        (
            "import math", "1 +", "def half(x):\n    return 0", "def half(x):\n    return math.floor(x / 2)",
            "%load_ext nbflow\nk = 5", "%%step a\nhalf(7) * k",
        ),
        "15",
    ),
}  # fmt: skip


def by_ids(folder: Path, cells: tuple[str, ...]) -> list[str]:
    """As JupyterLab executes cells: the kernel knows the notebook, each request its cell."""
    notebook = NotebookFile(folder / "flow.ipynb", {f"c{at}": source for at, source in enumerate(cells)})
    with Kernel(notebook, load=False) as kernel:
        return [kernel.run(name).text for name in notebook.cells]


def by_text(folder: Path, cells: tuple[str, ...]) -> list[str]:
    """A kernel that knows the notebook, and requests that name no cell."""
    notebook = NotebookFile(folder / "flow.ipynb", {f"c{at}": source for at, source in enumerate(cells)})
    with Kernel(notebook, load=False) as kernel:
        return [kernel.execute(source).text for source in cells]


def by_client(folder: Path, cells: tuple[str, ...]) -> list[str]:
    """As nbconvert and papermill execute a notebook: the kernel is told of neither notebook nor cells."""
    text = document_of([(f"c{at}", source) for at, source in enumerate(cells)], "flow")
    document = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(document, timeout=120, allow_errors=True, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return ["\n".join(str(output) for output in cell.outputs) for cell in document.cells]


WAYS: dict[str, Callable[[Path, tuple[str, ...]], list[str]]] = {
    "by ids": by_ids, "by text": by_text, "by a client": by_client,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_all_lines_count(tmp_path: Path, name: str, way: str) -> None:
    case = CASES[name]
    shown = WAYS[way](tmp_path, case.cells)
    assert case.shows in shown[-1], shown
    assert "error" not in shown[-1].lower()


@pytest.mark.parametrize("how", [{"silent": True}, {"store_history": False}], ids=["silent", "beside the history"])
def test_a_page_that_loads_it_adds_no_cell(tmp_path: Path, how: dict[str, bool]) -> None:
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a\nx = 1"}), load=False) as kernel:
        kernel.client.execute_interactive("%load_ext nbflow", output_hook=lambda _: None, **how)
        kernel.ok("a")
        assert "x: of a" in kernel.execute("%flow status").text
        assert "source-differs" not in kernel.execute("%flow check").text


def test_a_call_that_nobody_saw_asks_for_the_cell_once_more(tmp_path: Path) -> None:
    """What it read is not known: its result could be reused after its file has changed."""
    (tmp_path / "n.txt").write_text("8")
    loads = "n = int(open('n.txt').read())\n%load_ext nbflow"
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", {"ext": loads, "a": "%%step a\nn + 1"}), load=False) as kernel:
        kernel.ok("ext")
        assert "cell 1: n has to run first" in kernel.run("a").text
        kernel.ok("ext")
        assert kernel.ok("a").result == "9"


@pytest.mark.parametrize("way", WAYS)
def test_a_run_started_there_knows_them_too(tmp_path: Path, way: str) -> None:
    cells = (
        "import math\n%load_ext nbflow\nSIDES = [1, 4]",
        "%%step roots --foreach n in SIDES\nroot = math.sqrt(n)",
        "%%step total --join roots\ntotal = sum(each.root for each in inputs)",
        "%flow run",
        "print(total)",
    )
    shown = WAYS[way](tmp_path, cells)
    assert "3.0" in shown[-1], shown


@pytest.mark.parametrize("way", WAYS)
def test_a_header_below_the_line_that_loads_is_refused(tmp_path: Path, way: str) -> None:
    shown = WAYS[way](tmp_path, ("%load_ext nbflow\n%%step a\nran = True", "print('ran' in globals())"))
    assert "`%%step a` stands below code" in shown[0]
    assert "False" in shown[1]
