"""The examples, run by hand in JupyterLab: each cell as a reader runs it, none with an error but those that raise."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook, Server

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.ipynb") if path.stem != "remote")  # that one needs a cluster
LOAD = "%load_ext nbflow"
RAISING = {"resume": {"clean", "summarise", "compare"}}
"""Steps whose cells raise on purpose: a reading that cannot be true stops one, and the others need what it leaves."""
LONG = 120_000
"""Milliseconds that a cell may take on a busy machine."""


def write(server: Server, name: str) -> list[str]:
    """An example's copy in the server's folder, which loads nbflow in any case; its code cells out."""
    document = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    cells = [cell for cell in document.cells if cell.cell_type == "code"]
    if not any(LOAD in cell.source for cell in cells):
        cells.insert(0, nbformat.v4.new_code_cell(LOAD))
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    document.cells = cells
    nbformat.write(document, server.folder / f"{name}.ipynb")
    for data in EXAMPLES.glob(f"{name}.toml"):
        shutil.copy(data, server.folder)
    return [cell.source for cell in cells]


def saved(book: Notebook, server: Server) -> list[nbformat.NotebookNode]:
    """The notebook's code cells with their outputs, once the page has saved what it shows."""
    book.page.keyboard.press("Control+s")
    expect(book.page.locator(".jp-NotebookPanel .jp-mod-dirty, .jp-mod-current.jp-mod-dirty")).to_have_count(0)
    path = server.folder / book.name
    for _ in range(100):
        cells: list[nbformat.NotebookNode] = nbformat.read(path, 4).cells
        if all(cell.execution_count for cell in cells):
            return cells
        book.page.wait_for_timeout(100)
    raise AssertionError(f"{book.name} is not saved")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_by_hand(name: str, notebook: Open, server: Server, shoot: Shoot) -> None:
    sources = write(server, name)
    book = notebook(f"{name}.ipynb", [], write=lambda _: None)
    panel = book.open_panel()
    for number in range(len(sources)):
        book.run(number, wait=False)
        expect(book.cell(number).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=LONG)
    shoot(book.page, f"example-{name}")
    raising = RAISING.get(name, set())
    for cell in saved(book, server):
        step = re.match(r"%%step (\S+)", cell.source)
        printed = "".join(one.text for one in cell.outputs if one.output_type == "stream")
        errors = [one.ename for one in cell.outputs if one.output_type == "error"]
        if step is not None and step[1] in raising:
            assert errors == ["RunFailed"], cell.source
            assert "cannot be true" in printed, cell.source
        else:
            assert not errors, (cell.source, errors)
            assert not re.search("Traceback|callback|^error:", printed, re.MULTILINE), (cell.source, printed)
    expect(panel.locator("[data-state=running]")).to_have_count(0)
    expect(panel.locator("[data-step][data-state=failed]")).to_have_count(1 if raising else 0)
