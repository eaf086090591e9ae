"""Steps in their cells: what they show stands under them, their states in the margin; run by buttons and keys."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]
FLOW = [
    "%%params\nrate: float = 2.0",
    "%%step load\nrows = [1, 2, 3]\nprint('loaded', len(rows))",
    "%%step scale\nscaled = [rate * row for row in rows]\nsum(scaled)",
    "%%step other\nanswer = 42\nanswer",
]


def mark(book: Notebook, number: int) -> Locator:
    return book.cell(number).locator(".nbf-cell-mark")


def bears(book: Notebook, number: int, word: str, why: str = "") -> None:
    """The cell bears this mark, and says why to whoever points at it or has it read."""
    expect(mark(book, number)).to_have_attribute("data-mark", word, timeout=20_000)
    expect(mark(book, number)).to_have_attribute("title", re.compile(f"^{word}.*{re.escape(why)}"))


def shows(book: Notebook, number: int, text: str) -> None:
    expect(book.cell(number).locator(".jp-OutputArea").first).to_contain_text(text, timeout=20_000)


def test_a_cell_becomes_a_step_from_its_menu(notebook: Open, shoot: Shoot) -> None:
    book = notebook("menu.ipynb", ["rows = [1, 2]", "%%step total\nx = sum(rows)", "y = x + 1"])
    page, panel = book.page, book.open_panel()
    book.run(0)
    expect(panel.get_by_role("option", name=re.compile("^total"))).to_be_visible()
    book.cell(1).locator(".cm-content").click(button="right")
    page.get_by_role("menuitem", name="Make This Cell a Step").click()
    expect(panel.get_by_label("Name", exact=True)).to_have_value("rows")
    book.cell(3).locator(".cm-content").click()  # the form follows
    expect(panel.get_by_label("Name", exact=True)).to_have_value("y")
    book.cell(2).locator(".cm-content").click()
    book.cell(2).locator("[data-command='nbflow:declare']").click()
    expect(panel.get_by_label("Name", exact=True)).to_have_value("total")  # its line is read back

    # what is typed in the cell is in the form, and the other way; a wrong line is not written
    book.type_anew(2, "%%step total --retry 2 --workers 2  # why\nx = sum(rows)")
    expect(panel.get_by_label("Retry", exact=True)).to_have_value("2")
    expect(panel.get_by_label("Other options", exact=True)).to_have_value("--workers 2")
    header = book.cell(2).locator(".cm-line").first
    expect(header.locator(".nbf-header-option")).to_have_text(["--retry", "--workers"])
    panel.get_by_label("Cores", exact=True).fill("many")
    expect(panel.get_by_role("alert")).to_contain_text("'many' is no number")
    expect(panel.get_by_role("button", name="Write the line")).to_be_disabled()
    panel.get_by_label("Cores", exact=True).fill("2")
    shoot(page, "cells-declare")
    panel.get_by_role("button", name="Write the line").click()
    expect(header).to_have_text("%%step total --retry 2 --cpu 2 --workers 2 # why")

    # a cell and its step are selected together
    panel.get_by_role("tab", name="Steps").click()
    book.cell(3).locator(".cm-content").click()
    panel.get_by_role("option", name=re.compile("^total")).click()
    expect(book.cell(2)).to_have_class(re.compile("jp-mod-active"))
    expect(panel.get_by_role("listbox", name="Steps")).to_be_focused()
    page.keyboard.press("Escape")
    book.cell(1).locator(".cm-content").click()
    book.cell(2).locator(".cm-content").click()
    expect(panel.locator("[role=option][aria-selected=true]")).to_have_attribute("data-step", "total")
