"""What steps in processes print and display, in real pages: floods of lines, figures, warnings, widgets."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook
from tests.browser.test_sidebar import FAST, step, within

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]
FLOOD = "%%step flood --retry 1\nfor number in range(100_000):\n    print('line', number)"
SHOWS = """%%step shows --retry 1
import sys, time, warnings
import ipywidgets, matplotlib.pyplot as plt
from IPython.display import HTML, Markdown, display
warnings.warn("mind the gap")
print("to stderr", file=sys.stderr)
plt.figure(figsize=(3, 2)); plt.plot([1, 3, 2]); plt.show()
display(Markdown("**bold words**"), HTML("<i>slanted words</i>"))
display(ipywidgets.IntSlider(value=7))
points = {"values": [{"a": 1, "b": 2}, {"a": 2, "b": 1}]}
axes = {"x": {"field": "a", "type": "quantitative"}, "y": {"field": "b", "type": "quantitative"}}
display({"application/vnd.vegalite.v5+json": {"data": points, "mark": "bar", "encoding": axes}}, raw=True)
for _part in range(4):
    sys.stderr.write(f"\\r{25 * (_part + 1)}%|####| {_part + 1}/4"); sys.stderr.flush(); time.sleep(0.1)
shown = 1"""
FRAME = """async () => {
  const at = performance.now();
  await new Promise(requestAnimationFrame);
  return performance.now() - at;
}"""


@pytest.mark.parametrize("way", ["by-hand", "in-a-run"])
def test_a_hundred_thousand_lines(notebook: Open, shoot: Shoot, way: str) -> None:
    book = notebook("flood.ipynb", [FLOOD, "%flow run", "1 + 1"], lab=way == "by-hand")
    panel = book.open_panel()
    book.run(0)
    book.run(1 if way == "by-hand" else 2)
    output = book.cell(1).locator(".jp-OutputArea")
    expect(output).to_contain_text("line 99999")
    expect(output).to_contain_text(re.compile(r"characters more: %flow logs flood/\S+/flood"))
    assert len(output.inner_text()) < 250_000
    shoot(book.page, f"flood-{way}")
    step(panel, "flood", "done").click(timeout=FAST)
    expect(panel.get_by_role("log")).to_contain_text("line 99999", timeout=FAST)
    usable(book, 3)


def usable(book: Notebook, number: int) -> None:
    """The page draws at once, and the next cell runs."""
    waited = book.page.evaluate(FRAME)
    assert waited < within(0.5) * 1000
    book.run(number)
    expect(book.cell(number).locator(".jp-OutputArea")).to_contain_text("2")


def test_displays_of_a_process_stand_in_the_cell(notebook: Open, shoot: Shoot) -> None:
    book = notebook("shows.ipynb", [SHOWS, "%flow run"])
    book.run(0)
    output = book.cell(1).locator(".jp-OutputArea").first
    for number, way in ((2, "flow-run"), (1, "by-hand")):
        book.run(number)
        shoot(book.page, f"displays-{way}")
        expect(output.locator("img[src^='data:image/png']")).to_have_count(1)
        expect(output.locator("strong", has_text="bold words")).to_be_visible()
        expect(output.locator("i", has_text="slanted words")).to_be_visible()
        expect(output).to_contain_text("IntSlider(value=7)")
        expect(output.locator(".vega-embed canvas, .vega-embed svg").first).to_be_visible()
        expect(output).to_contain_text("UserWarning: mind the gap")
        expect(output).to_contain_text("100%|####| 4/4")
        expect(output).not_to_contain_text("25%|####| 1/4")
        expect(output).not_to_contain_text("Error displaying widget")
    expect(book.cell(2).locator(".jp-OutputArea-output")).to_have_count(1)  # the table alone
