"""From an empty notebook to an exported flow: once by mouse in JupyterLab, once by keyboard alone in Notebook 7."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import SHOTS, Shoot
from tests.browser.jupyter import Notebook, Server
from tests.browser.test_cells import bears, shows

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]
CELLS = [
    "%load_ext nbflow",
    "rows = [1, 2, 3]\nprint('loaded', len(rows))",
    "scaled = [2 * row for row in rows]\nsum(scaled)",
    "answer = 42\nanswer",
]


class Mouse:
    """A person who points; what is typed is typed all the same."""

    def __init__(self, book: Notebook, panel: Locator) -> None:
        self.book, self.page, self.panel = book, book.page, panel

    def cell(self, number: int, source: str) -> None:
        self.book.type_anew(number, source)

    def below(self, number: int) -> None:
        self.book.cell(number).locator(".cm-content").click()
        self.page.locator("[data-command='notebook:insert-cell-below']:visible").first.click()

    def execute(self, number: int) -> None:
        self.book.cell(number).locator(".cm-content").click()
        self.page.locator("[data-command='notebook:run-cell-and-select-next']:visible").first.click()

    def declare(self, number: int, name: str) -> None:
        self.book.cell(number).locator(".cm-content").click()
        self.book.cell(number).locator("[data-command='nbflow:declare']").click()
        self.panel.get_by_label("Name", exact=True).fill(name)
        self.panel.get_by_role("button", name="Declare as a step").click()

    def command(self, label: str) -> None:
        self.panel.get_by_role(
            "button", name={"Run the Flow": "Run", "Run Stale Steps": "Run stale"}[label], exact=True
        ).click()

    def resume(self) -> None:
        self.panel.get_by_role("button", name="Resume").click()

    def menu(self, name: str, item: str) -> None:
        self.panel.get_by_role("button", name=name).click()
        self.panel.get_by_role("menuitem", name=re.compile(item)).first.click()


class Keyboard:
    """A person who never touches a mouse."""

    def __init__(self, book: Notebook, panel: Locator) -> None:
        self.book, self.page, self.panel = book, book.page, panel
        self.at = 0

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def go(self, number: int) -> None:
        """Be at a cell, in command mode."""
        moves = number - self.at
        self.keys("Escape", *(["ArrowDown"] * moves if moves > 0 else ["ArrowUp"] * -moves))
        self.at = number
        expect(self.book.cell(number)).to_have_class(re.compile("jp-mod-active"))

    def palette(self, label: str) -> None:
        """Choose a command by its name."""
        self.keys("Control+Shift+c")
        expect(self.page.locator(".lm-CommandPalette-input")).to_be_focused()
        self.page.keyboard.type(label)
        expect(self.page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text(label)
        self.keys("Enter")

    def cell(self, number: int, source: str) -> None:
        self.go(number)
        self.keys("Enter", "Control+a")
        self.page.keyboard.insert_text(source)
        self.keys("Escape")

    def below(self, number: int) -> None:
        self.go(number)
        self.keys("b")
        self.at = number + 1

    def execute(self, number: int) -> None:
        self.go(number)
        self.keys("Control+Enter")

    def declare(self, number: int, name: str) -> None:
        self.go(number)
        self.palette("Make This Cell a Step")
        expect(self.panel.get_by_label("Name", exact=True)).to_be_focused()
        self.keys("Control+a")
        self.page.keyboard.type(name)
        self.keys("Enter")  # the keyboard is in the notebook again

    def command(self, label: str) -> None:
        if label == "Run Stale Steps":
            self.keys("Control+Alt+Enter")
        else:
            self.palette(label)

    def resume(self) -> None:
        self.palette("Resume the Last Run")

    def menu(self, name: str, item: str) -> None:
        self.palette({"Export": "Export the Flow", "Compare": "Compare Runs"}[name])
        wanted = self.panel.get_by_role("menuitem", name=re.compile(item)).first
        expect(wanted).to_be_visible()
        while not wanted.evaluate("one => one === document.activeElement"):
            self.keys("ArrowDown")
        self.keys("Enter")


def write(hand: Mouse | Keyboard) -> None:
    """Type the cells, one below the other, and run the first, as in any notebook."""
    for number, source in enumerate(CELLS):
        if number:
            hand.below(number - 1)
        hand.cell(number, source)
    hand.execute(0)
    expect(hand.panel.locator(".nbf-panel")).to_have_attribute("data-link", "linked")


def compared(page: Page, panel: Locator, lab: bool) -> None:
    frame = (
        page.frame_locator(".nbf-card-page .nbf-card-frame")
        if lab
        else panel.frame_locator(".nbf-history .nbf-card-frame")
    )
    expect(frame.get_by_text("two runs compared")).to_be_visible()


@pytest.mark.parametrize(("lab", "dark"), [(True, False), (False, True)], ids=["lab-mouse", "notebook-keyboard"])
def test_a_journey(notebook: Open, server: Server, shoot: Shoot, lab: bool, dark: bool) -> None:
    name = "lab" if lab else "notebook7"
    book = notebook("journey.ipynb", [""], load=False, lab=lab, dark=dark)
    page, panel = book.page, book.open_panel()
    began = time.monotonic()
    hand = Mouse(book, panel) if lab else Keyboard(book, panel)
    write(hand)
    for number, step in ((1, "load"), (2, "scale"), (3, "other")):
        hand.declare(number, step)
        expect(book.cell(number).locator(".cm-line").first).to_have_text(f"%%step {step}")
    for number, why in ((1, "not run before"), (2, "load runs"), (3, "not run before")):
        bears(book, number, "new", why)
    hand.command("Run the Flow")
    for number, text in ((1, "loaded 3"), (2, "12"), (3, "42")):
        shows(book, number, text)
        bears(book, number, "fresh")
    shoot(page, f"journey-fresh-{name}")

    # editing turns what depends on it stale before anything runs; run stale runs that alone
    hand.cell(1, "%%step load\nrows = [1, 2, 3, 4]\nprint('loaded', len(rows))")
    bears(book, 1, "stale", "line 2")
    bears(book, 2, "stale", "load")
    bears(book, 3, "fresh")
    shoot(page, f"journey-stale-{name}")
    hand.command("Run Stale Steps")
    shows(book, 1, "loaded 4")
    shows(book, 2, "20")
    for number in (1, 2, 3):
        bears(book, number, "fresh")
    expect(panel.get_by_role("button", name="Run stale")).to_be_disabled()

    # what fails says so at its cell; mended, the run is resumed
    hand.cell(2, "%%step scale\nscaled = rows / 0\nsum(scaled)")
    bears(book, 2, "stale", "line 2")
    hand.command("Run Stale Steps")
    shows(book, 2, "TypeError")
    bears(book, 2, "failed", "TypeError")
    shoot(page, f"journey-failed-{name}")
    hand.cell(2, "%%step scale\nscaled = [3 * row for row in rows]\nsum(scaled)")
    bears(book, 2, "stale", "line 2")
    hand.resume()
    shows(book, 2, "30")
    bears(book, 2, "fresh")

    hand.menu("Compare", "With .*failed")
    compared(page, panel, lab)
    shoot(page, f"journey-compared-{name}")
    hand.menu("Export", "A Python script")
    expect(panel.get_by_role("status").filter(has_text="wrote journey_script.py")).to_be_visible()
    assert "scaled = [3 * row for row in rows]" in (server.folder / "journey_script.py").read_text()
    if SHOTS:
        print(f"the journey in {name} took {time.monotonic() - began:.1f} s")
    if lab:
        renamed(book, panel)


def renamed(book: Notebook, panel: Locator) -> None:
    """Under another name the notebook goes on: it has its runs, and all is reused."""
    page = book.page
    page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="journey.ipynb").first.click()
    page.keyboard.press("Control+s")
    page.locator(".lm-MenuBar-item", has_text="File").click()
    page.get_by_role("menuitem", name="Rename Notebook").click()
    box = page.locator(".jp-Dialog input").first
    box.fill("arrived.ipynb")
    page.keyboard.press("Enter")
    expect(page.locator('#nbflow-panel[data-notebook="arrived.ipynb"]')).to_be_visible()
    panel.get_by_role("tab", name="Steps").click()
    panel.get_by_role("button", name="Run", exact=True).click()
    for step in ("load", "scale", "other"):
        expect(panel.get_by_role("option", name=re.compile(f"^{step}: reused"))).to_be_visible()
    panel.get_by_role("tab", name="Runs").click()
    expect(panel.locator(".nbf-run[data-status=done]")).to_have_count(4)
