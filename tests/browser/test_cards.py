"""Cards in a real JupyterLab and Notebook 7: in the cell, in the panel, beside the notebook; what they may not do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

from nbflow.render import cards
from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook, Server
from tests.browser.test_sidebar import FAST, root, step

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]
CHART = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json", "mark": "line", "title": "Losses",
    "data": {"values": [{"epoch": n, "loss": 1 / (n + 1)} for n in range(9)]},
    "encoding": {"x": {"field": "epoch", "type": "quantitative"}, "y": {"field": "loss", "type": "quantitative"}},
}  # fmt: skip
TRAIN = f"""%%step train --retry 1
import time
import matplotlib.pyplot as plt
from nbflow import card
_bar = card.append(card.Progress(12, "epochs"))
card.append({CHART!r})
card["errors"].append([{{"word": "<img src=x onerror=alert(1)>", "count": 3}}])
for _epoch in range(12):
    time.sleep(0.25)
    _bar.update(_epoch + 1)
    print("epoch", _epoch)
plt.figure(figsize=(3, 2))
plt.plot([1, 3, 2])
plt.show()
model = 1"""


def test_a_card_moves_while_its_step_runs_and_stays(notebook: Open, shoot: Shoot) -> None:
    book = notebook("train.ipynb", [TRAIN])
    page, panel = book.page, book.open_panel()
    book.run(0)
    book.run(1, wait=False)
    step(panel, "train", "running").click(timeout=FAST)
    expect(book.cell(1).locator(".nbflow-card")).to_have_count(2, timeout=FAST)
    expect(book.cell(1).locator(".nbflow-progress")).to_contain_text("of 12")
    inside = panel.frame_locator(".nbf-card-frame:not(.nbf-behind)")
    expect(inside.locator(".nbflow-progress")).to_contain_text(re.compile("[1-9] of 12"), timeout=FAST)
    shoot(page, "card-live")
    expect(book.cell(1).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=FAST)

    frames = book.cell(1).locator("iframe.nbf-card-frame")
    expect(frames).to_have_count(2)
    assert "allow-same-origin" not in (frames.first.get_attribute("sandbox") or "")
    first = frames.first.content_frame
    expect(first.locator(".nbflow-progress")).to_contain_text("12 of 12")
    expect(first.locator(".nbflow-chart > img")).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    expect(frames.nth(1).content_frame.get_by_role("cell", name="<img src=x onerror=alert(1)>")).to_be_visible()
    expect(inside.locator(".nbflow-progress")).to_contain_text("12 of 12", timeout=FAST)
    expect(inside.locator("img[src^='data:image/png']")).to_have_count(2)  # the chart, and the figure that it displayed
    shoot(page, "card-done")
    panel.get_by_role("button", name="Card", exact=True).click()
    beside = page.frame_locator(".nbf-card-page .nbf-card-frame")
    expect(beside.get_by_text("Place in the flow")).to_be_visible()
    expect(beside.get_by_text("epoch 11")).to_be_visible()
    shoot(page, "card-beside")


def test_the_panel_shows_the_whole_card_where_there_is_no_other_place(notebook: Open, shoot: Shoot) -> None:
    book = notebook("in-place.ipynb", [TRAIN.replace("range(12)", "range(2)")], lab=False, dark=True)
    panel = book.open_panel()
    book.run(0)
    book.run(1)
    step(panel, "train", "done").click(timeout=FAST)
    inside = panel.frame_locator(".nbf-card-frame:not(.nbf-behind)")
    expect(inside.locator(".nbflow-progress")).to_be_visible(timeout=FAST)
    expect(inside.get_by_text("Place in the flow")).to_have_count(0)
    panel.get_by_role("button", name="Card", exact=True).click()
    expect(inside.get_by_text("Place in the flow")).to_be_visible(timeout=FAST)
    expect(root(panel)).to_have_attribute("data-status", "done")
    shoot(book.page, "card-notebook7")


EVIL = """<main class="nbflow nbflow-card nbflow-page"><b>harmless words</b>
<script>parent.document.title = 'taken'; parent.postMessage({nbflowHeight: 3999}, '*')</script>
<img src="http://evil.test/a.png" onerror="fetch('http://evil.test/b')"><b onclick="alert(1)"><link rel="stylesheet" href="http://evil.test/c">
<meta http-equiv="refresh" content="0;url=http://evil.test/d"><iframe src="http://evil.test/e"></iframe></b></main>"""


def untrusted(server: Server, name: str) -> None:
    """A notebook with outputs that came from elsewhere: a card of ours, and one that somebody has made up."""
    good = cards.Card("train", [cards.Markdown("## Fine words").drawn], step="train", run="f/r").bundle()
    bad: dict[str, Any] = {**good, cards.MIME: {**good[cards.MIME], "html": EVIL}}
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    cell["id"] = "cell-0"
    cell.outputs = [nbformat.v4.new_output("display_data", data=data) for data in (good, bad)]
    document = nbformat.v4.new_notebook(cells=[cell])
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(document, server.folder / name)


@pytest.mark.parametrize("lab", [True, False], ids=["lab", "notebook7"])
def test_a_notebook_from_elsewhere_runs_nothing(notebook: Open, server: Server, shoot: Shoot, lab: bool) -> None:
    asked: list[str] = []

    def watch(page: Page) -> None:
        page.on("request", lambda request: asked.append(request.url) if "evil.test" in request.url else None)

    book = notebook("theirs.ipynb", [], lab=lab, write=lambda name: untrusted(server, name), watch=watch)
    frames = book.cell(0).locator("iframe")
    expect(frames).to_have_count(2)
    for at, words in enumerate(("Fine words", "harmless words")):
        assert frames.nth(at).get_attribute("sandbox") == ""
        expect(frames.nth(at).content_frame.get_by_text(words)).to_be_visible()
    book.page.wait_for_timeout(500)
    evil = frames.nth(1).content_frame
    for tag in ("script", "link", "iframe", "img", "[onclick]", "meta[http-equiv=refresh]"):
        expect(evil.locator(tag)).to_have_count(0)
    assert book.page.title() != "taken"
    assert asked == []
    shoot(book.page, f"card-untrusted-{'lab' if lab else 'notebook7'}")
