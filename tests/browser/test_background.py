"""Runs in the background: under their cell, in the panel, without a page, and there again when one is opened."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook, Server
from tests.browser.test_sidebar import FAST, root, step

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]
FIRST = """%%step first
import time
import matplotlib.pyplot as plt
plt.figure(figsize=(3, 2)); plt.plot([1, 3, 2]); plt.show()
for turn in range(8):
    time.sleep(0.5)
    print('turn', turn)
a = 1"""
FLOW = [
    FIRST,
    "%%step second\ntime.sleep(3)\nb = a + 1\nprint('b is', b)",
    "%flow run --background",
    "print(b)",
]


def test_a_run_outlives_its_tab(notebook: Open, server: Server, context: BrowserContext, shoot: Shoot) -> None:
    book = notebook("away.ipynb", FLOW)
    book.run(0)
    book.run(3)
    output = book.cell(1).locator(".jp-OutputArea")
    expect(output).to_contain_text("turn 0", timeout=FAST)
    expect(output.locator("img[src^='data:image/png']")).to_have_count(1)
    expect(book.cell(3).locator("tr", has_text="first")).to_contain_text("running")
    shoot(book.page, "background-running")
    book.page.keyboard.press("Control+s")
    book.page.wait_for_timeout(300)
    book.page.close(run_before_unload=False)

    page = context.new_page()
    back = Notebook(page, server, "away.ipynb")
    panel = back.open_panel()
    expect(root(panel)).to_have_attribute("data-status", re.compile("running|done"), timeout=FAST)
    expect(step(panel, "second", "done")).to_be_visible(timeout=FAST)
    expect(root(panel)).to_have_attribute("data-status", "done", timeout=FAST)
    step(panel, "second", "done").click()
    expect(panel.get_by_role("log")).to_contain_text("b is 2", timeout=FAST)
    expect(back.cell(1).locator(".jp-OutputArea")).to_contain_text("turn 7")  # this page has taken the run over
    expect(back.cell(2).locator(".jp-OutputArea")).to_contain_text("b is 2")
    back.run(4)
    expect(back.cell(4).locator(".jp-OutputArea")).to_contain_text("2")
    shoot(page, "background-back")
