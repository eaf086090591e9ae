"""Nothing of nbflow's disturbs a cell that runs: its picture is whole while sidebar and panel talk to the kernel."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook, Server
from tests.browser.test_sidebar import FAST, step

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]

FIGURE = """import matplotlib.pyplot as plt, pathlib, time
fig, ax = plt.subplots(figsize=(4, 2))
print("begun")
while not pathlib.Path("{go}").exists(): time.sleep(0.05)
ax.plot([0, 1, 0], linewidth=12, color="black"); plt.show()"""


def dark_pixels(picture: Locator) -> float:
    """The share of a picture, as the page shows it, that is nearly black."""
    image = Image.open(io.BytesIO(picture.screenshot())).convert("L")
    return sum(image.histogram()[:60]) / (image.width * image.height)


def talk(book: Notebook, panels: list[Locator]) -> None:
    """Make the sidebar and a panel in a cell ask things of the kernel, while a cell runs."""
    for panel in panels:
        for tab in ("Runs", "Graph", "Steps"):
            panel.get_by_role("tab", name=tab).click()
        step(panel, "before", "done").click()
        expect(panel.get_by_role("log")).to_contain_text("was here", timeout=FAST)  # the kernel has answered


def type_into(book: Notebook, number: int, source: str) -> None:
    """Type a cell's text, which the page tells the kernel."""
    book.cell(number).locator(".cm-content").click()
    book.page.keyboard.press("Control+a")
    book.page.keyboard.insert_text(source)


@pytest.mark.parametrize(("lab", "dark"), [(True, False), (False, True)], ids=["lab-light", "notebook-dark"])
def test_the_picture_of_a_cell_is_whole(notebook: Open, server: Server, shoot: Shoot, lab: bool, dark: bool) -> None:
    cells = ["import nbflow\nnbflow.panel()", "%%step before\nprint('was here')", "# a plain cell", "# a step"]
    book = notebook("figures.ipynb", cells, lab=lab, dark=dark)
    sidebar = book.open_panel()
    for number in (0, 1, 2):
        book.run(number)
    panels = [sidebar, book.cell(1).locator(".nbf-panel")]
    for number, header in ((3, ""), (4, "%%step drawing\n")):
        go = Path(server.folder, f"go-{number}-{lab}")
        type_into(book, number, header + FIGURE.format(go=go.name))
        book.run(number, wait=False)
        output = book.cell(number).locator(".jp-OutputArea")
        expect(output).to_contain_text("begun", timeout=FAST)
        talk(book, panels)
        go.touch()
        picture = output.locator("img[src^='data:image/png']")
        expect(picture).to_have_count(1, timeout=FAST)
        book.idle()
        expect(picture).to_have_count(1)
        picture.scroll_into_view_if_needed()
        shoot(book.page, f"figure-{'lab' if lab else 'notebook'}-{number}")
        assert dark_pixels(picture) > 0.03
