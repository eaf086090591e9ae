"""`nbflow.panel()` in JupyterLab and in Notebook 7, and the sidebar there."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook
from tests.browser.test_sidebar import FLOW, SLOW, root, seconds_to_cancel, step, within

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]
PANEL = "import nbflow\nnbflow.panel()"


@pytest.mark.parametrize(("lab", "dark"), [(True, True), (False, False), (False, True)], ids=["lab", "light", "dark"])
def test_the_widget_runs_the_flow(notebook: Open, shoot: Shoot, lab: bool, dark: bool) -> None:
    name = f"{'lab' if lab else 'notebook7'}-{'dark' if dark else 'light'}"
    book = notebook(f"widget-{name}.ipynb", [PANEL, *FLOW], lab=lab, dark=dark)
    page = book.page
    book.run(0)
    book.run(1)
    panel = book.cell(1).locator(".jp-OutputArea")
    expect(root(panel)).to_have_attribute("data-link", "linked", timeout=15_000)
    panel.get_by_role("button", name="Run", exact=True).click()
    expect(step(panel, "train", "running")).to_be_visible(timeout=10_000)
    shoot(page, f"widget-running-{name}")
    expect(root(panel)).to_have_attribute("data-status", "done", timeout=10_000)
    step(panel, "train", "done").click()
    expect(panel.get_by_role("log")).to_contain_text("turn 2")
    shoot(page, f"widget-done-{name}")
    panel.get_by_role("tab", name="Graph").click()
    expect(panel.get_by_role("button", name=re.compile("^report: done"))).to_be_visible()
    shoot(page, f"widget-graph-{name}")
    panel.get_by_role("button", name="Go to cell").click()
    expect(book.cell(6)).to_have_class(re.compile("jp-mod-active"))


def test_the_widget_cancels_while_a_cell_blocks(notebook: Open) -> None:
    book = notebook("widget-slow.ipynb", [PANEL, *SLOW])
    book.run(0)
    book.run(1)
    panel = book.cell(1).locator(".jp-OutputArea")
    expect(root(panel)).to_have_attribute("data-link", "linked", timeout=15_000)
    book.run(3, wait=False)
    expect(step(panel, "slow", "running")).to_be_visible(timeout=10_000)
    assert seconds_to_cancel(panel) < within(1)


def test_the_sidebar_in_notebook_7(notebook: Open, shoot: Shoot) -> None:
    book = notebook("side.ipynb", FLOW, lab=False)
    panel = book.open_panel()
    book.run(0)
    expect(root(panel)).to_have_attribute("data-link", "linked")
    book.run(1)
    book.run(2)
    expect(step(panel, "load", "done")).to_be_visible()
    shoot(book.page, "notebook7-sidebar")
