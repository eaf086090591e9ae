"""The drawing alone, in a plain page, with recorded snapshots: what it shows, keys, screen readers, size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser import recorded
from tests.browser.conftest import Console, Shoot

pytestmark = pytest.mark.browser
STATIC = Path(__file__).resolve().parents[2] / "nbflow" / "static"
ADDRESS = "http://nbflow.test/"
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>panel</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="panel.css">
<style>:root{color-scheme:light dark} body{margin:0;background:Canvas} #here{margin:12px}</style></head>
<body><div id="here"></div><script type="module">
import widget from './widget.js';
const model = {
  snapshot: {}, heard: {}, sent: [],
  get() { return this.snapshot; },
  on(name, callback) { this.heard[name] = callback; },
  off(name) { delete this.heard[name]; },
  send(command) {
    this.sent.push(command);
    if (window.silent) return;
    const answer = { nbflow: 1, kind: 'ack', session: 'recorded', seq: 0, reply_to: command.id, ok: true };
    setTimeout(() => this.heard['msg:custom']?.({ ...answer, text: '', fix: '', ...(window.answer ?? {}) }), 5);
  },
};
window.model = model;
window.tell = snapshot => { model.snapshot = snapshot; model.heard['change:snapshot']?.(); };
window.say = message => model.heard['msg:custom']?.(message);
window.close_ = widget.render({ model, el: document.getElementById('here') });
window.ready = true;
</script></body></html>"""

Open = Callable[..., Page]


@pytest.fixture
def plain(context: BrowserContext, console: Console) -> Open:
    """Open a plain page that shows the panel: `plain(width=…, dark=…)`."""

    def serve(route: Route) -> None:
        name = route.request.url.removeprefix(ADDRESS)
        if name:
            route.fulfill(path=STATIC / name)
        else:
            route.fulfill(body=PAGE, content_type="text/html")

    def make(width: int = 760, height: int = 620, *, dark: bool = False) -> Page:
        page = context.new_page()
        console.watch(page)
        page.route(ADDRESS + "**", serve)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto(ADDRESS)
        page.wait_for_function("window.ready")
        return page

    return make


def tell(page: Page, snapshot: Any) -> None:
    """A recorded snapshot into the page; drawn when this returns."""
    page.evaluate("snapshot => window.tell(snapshot)", snapshot)
    page.wait_for_timeout(150)


def sent(page: Page, kind: str) -> list[dict[str, Any]]:
    """The commands of a kind that the page has sent."""
    found: list[dict[str, Any]] = page.evaluate("kind => window.model.sent.filter(one => one.kind === kind)", kind)
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_run_is_seen(plain: Open, shoot: Shoot, dark: bool) -> None:
    theme = "dark" if dark else "light"
    page = plain(dark=dark)
    flow = recorded.digits()
    tell(page, recorded.moment(flow, recorded.MID_RUN))
    train = page.get_by_role("option", name="train: running")
    expect(train).to_be_visible()
    expect(page.get_by_role("heading", name="digits")).to_be_visible()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Cancel")).to_be_enabled()
    shoot(page, f"drawing-list-{theme}")
    train.click()
    expect(page.get_by_role("region", name="Step")).to_contain_text("reads")
    shoot(page, f"drawing-details-{theme}")
    page.get_by_role("tab", name="Graph").click()
    expect(page.get_by_role("button", name="train: running")).to_be_visible()
    shoot(page, f"drawing-graph-{theme}")
    tell(page, recorded.moment(flow, recorded.FAILED, status="failed", seq=2))
    page.get_by_role("tab", name="Steps").click()
    expect(page.get_by_text("ZeroDivisionError: division by zero (line 3)")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_enabled()
    shoot(page, f"drawing-failed-{theme}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_as_narrow_as_a_sidebar(plain: Open, shoot: Shoot, dark: bool) -> None:
    theme = "dark" if dark else "light"
    page = plain(width=320, height=760, dark=dark)
    tell(page, recorded.moment(recorded.digits(), recorded.FAILED, status="failed"))
    shoot(page, f"drawing-narrow-{theme}")
    page.get_by_role("option", name="train: failed").click()
    shoot(page, f"drawing-narrow-details-{theme}")
    for tab in ("Graph", "Parameters", "Declare"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(120)
        shoot(page, f"drawing-narrow-{tab.lower()}-{theme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
