"""The drawing alone, in a plain page, with recorded snapshots: what it shows, keys, screen readers, size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from nbflow.page.messages import PROTOCOL
from tests.browser import accessibility, recorded
from tests.browser.conftest import SHOTS, Console, Shoot
from tests.browser.test_sidebar import within

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
    const answer = { nbflow: 2, kind: 'ack', session: 'recorded', seq: 0, reply_to: command.id, ok: true };
    setTimeout(() => this.heard['msg:custom']?.({ ...answer, text: '', fix: '', ...(window.answer ?? {}) }), 5);
  },
};
window.model = model;
window.tell = snapshot => { model.snapshot = snapshot; model.heard['change:snapshot']?.(); };
window.say = message => model.heard['msg:custom']?.(message);
window.close_ = widget.render({ model, el: document.getElementById('here') });
window.ready = true;
</script></body></html>"""

GAPS = """async () => {
    let base = window.model.snapshot, longest = 0, last = performance.now(), going = true;
    const frame = now => {
        longest = Math.max(longest, now - last);
        last = now;
        if (going) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    window.turn = window.turn ?? 1;
    for (let round = 0; round < 30; round += 1) {
        const running = { state: 'running', started_at: base.now };
        const steps = base.steps.slice(round, round + 5).map(one => ({ ...one, ...running }));
        window.turn += 1;
        window.say({ nbflow: 2, kind: 'change', session: 'recorded', seq: window.turn, base: window.turn - 1,
                     now: base.now, busy: true, run: base.run, steps, workers: {} });
        await new Promise(resolve => setTimeout(resolve, 30));
    }
    going = false;
    return longest;
}"""
"""A second of changes in; the longest time between two frames out."""

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
    for width in (250, 320, 600):
        page.set_viewport_size({"width": width, "height": 760})
        page.get_by_role("tab", name="Steps").click()
        page.get_by_role("option", name="train: failed").click()
        for tab in ("Steps", "Graph", "Parameters", "Runs", "Declare"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(120)
            shoot(page, f"drawing-{width}-{tab.lower()}-{theme}")
            accessibility.check(page, ".nbf-panel")
            accessibility.check_width(page, ".nbf-panel")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def pressed(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_everything_is_within_reach_of_the_keyboard(plain: Open) -> None:
    page = plain()
    flow = recorded.digits()
    tell(page, recorded.moment(flow, recorded.FAILED, status="failed"))
    focused = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    stops = []
    for _ in range(8):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))
    # the buttons that live, the menus, the views, the list
    assert stops == ["Run", "Run stale", "Resume", "Verify", "Export", "Compare", "Steps", "Steps"]
    steps = page.get_by_role("listbox", name="Steps")
    expect(steps).to_be_focused()
    chosen = page.locator('[role=option][aria-selected="true"]')
    expect(chosen).to_have_attribute("data-step", "cell:c2")
    pressed(page, "ArrowDown", "ArrowDown")
    expect(chosen).to_have_attribute("data-step", "clean")
    pressed(page, "End")
    expect(chosen).to_have_attribute("data-step", "report")
    page.keyboard.type("tr")
    expect(chosen).to_have_attribute("data-step", "train")
    assert steps.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    expect(page.get_by_role("region", name="Step")).to_be_visible()
    pressed(page, "Enter")
    expect(page.get_by_role("status").filter(has_text="code cell 6")).to_be_visible()

    page.get_by_role("tab", name="Steps").focus()
    pressed(page, "ArrowRight")
    expect(page.get_by_role("tab", name="Graph")).to_be_focused()
    node = page.get_by_role("button", name="train: failed")
    node.focus()
    pressed(page, "ArrowUp")
    assert "features" in page.evaluate(focused) or "load" in page.evaluate(focused)
    before = page.locator(".nbf-zoom-level").inner_text()
    pressed(page, "+")
    assert page.locator(".nbf-zoom-level").inner_text() != before
    pressed(page, "0")
    page.get_by_role("button", name="Close details").focus()
    pressed(page, "Escape")
    expect(page.get_by_role("region", name="Step")).to_be_hidden()


def test_a_screen_reader_hears_changes_and_reads_states(plain: Open) -> None:
    page = plain()
    flow = recorded.digits()
    tell(page, recorded.moment(flow, {**recorded.MID_RUN, "features": "running"}))
    live = page.locator(".nbf-live")
    expect(live).to_have_attribute("aria-live", "polite")
    tell(page, recorded.moment(flow, recorded.FAILED, status="failed", seq=2))
    expect(live).to_contain_text("Run failed after")
    expect(live).to_contain_text("train failed")
    row = page.get_by_role("option", name="train: failed, 4/4, 1 failed")
    assert row.get_attribute("aria-posinset") == "5"
    assert row.get_attribute("aria-setsize") == "8"
    bar = page.get_by_role("progressbar", name="Tasks that have ended")
    assert 0 < int(bar.get_attribute("aria-valuenow") or 0) <= 100
    for mark in page.locator(".nbf-mark").all():
        assert mark.get_attribute("aria-hidden") == "true"
    page.get_by_role("tab", name="Graph").click()
    expect(page.get_by_role("button", name="train: failed, 4/4, 1 failed")).to_have_attribute(
        "aria-label", re.compile("reads .*X from features")
    )


@pytest.mark.parametrize("count", [60, 2000])
def test_long_flows_stay_smooth(plain: Open, shoot: Shoot, count: int) -> None:
    page = plain(width=420, height=800)
    flow = recorded.long_flow(count)
    running = {step.name: "done" for step in flow.steps[: count // 2]}
    tell(page, recorded.moment(flow, running))
    assert page.get_by_role("option").count() < 60
    page.get_by_role("listbox", name="Steps").focus()
    pressed(page, "End")
    expect(page.get_by_role("option", name=flow.steps[-1].name)).to_be_in_viewport()
    shoot(page, f"drawing-{count}-list")
    began = page.evaluate("performance.now()")
    page.get_by_role("tab", name="Graph").click()
    expect(page.locator(".nbf-node").first).to_be_visible()
    assert page.evaluate("performance.now()") - began < 2500
    assert page.locator(".nbf-node").count() < 400
    pressed(page, "Escape")
    shoot(page, f"drawing-{count}-graph")
    in_graph = page.evaluate(GAPS)
    page.get_by_role("tab", name="Steps").click()
    in_list = page.evaluate(GAPS)
    expect(page.locator(".nbf-tally")).to_contain_text("running")
    if SHOTS:
        print(f"{count} steps, longest frame: {in_list:.0f} ms in the list, {in_graph:.0f} ms in the graph")
    assert in_list < within(0.06) * 1000
    assert in_graph < within(0.12) * 1000


def test_it_draws_ten_times_a_second_at_most_and_only_where_it_is_seen(plain: Open) -> None:
    page = plain()
    flow = recorded.digits()
    tell(page, recorded.moment(flow, recorded.MID_RUN))
    page.get_by_role("option", name="pick").click()
    storm = """async () => {
        const list = document.querySelector('.nbf-panel');
        let drawn = 0;
        const watch = new MutationObserver(() => { drawn += 1; });
        watch.observe(document.querySelector('.nbf-tally'), { childList: true, characterData: true, subtree: true });
        const base = window.model.snapshot;
        for (let turn = 0; turn < 100; turn += 1) {
            const steps = base.steps.map((one, at) => ({ ...one, state: (at + turn) % 2 ? 'done' : 'queued' }));
            steps[turn % steps.length].state = 'failed';
            window.tell({ ...base, seq: (window.seq = (window.seq ?? 10) + 1), steps: steps.slice(turn % 3) });
            await new Promise(resolve => setTimeout(resolve, 10));
        }
        await new Promise(resolve => setTimeout(resolve, 150));
        return drawn;
    }"""
    assert 3 <= page.evaluate(storm) <= 20
    page.evaluate("document.getElementById('here').style.display = 'none'")
    page.wait_for_timeout(100)
    assert page.evaluate(storm) <= 1
    page.evaluate("document.getElementById('here').style.display = ''")
    expect(page.locator(".nbf-tally")).to_contain_text("1 failed")


def test_commands_and_their_answers(plain: Open) -> None:
    page = plain()
    flow = recorded.digits()
    tell(page, recorded.moment(flow, recorded.FAILED, status="failed"))
    page.get_by_role("button", name="Resume").click()
    assert sent(page, "resume")[-1]["run"] == ""
    page.evaluate("window.answer = { ok: false, text: 'a run is under way', fix: 'wait for it' }")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".nbf-notice")).to_have_text("a run is under way (wait for it)")
    page.evaluate("window.answer = {}")
    page.get_by_role("option", name="train").click()
    page.get_by_role("button", name="Run to here").click()
    assert sent(page, "run")[-1]["steps"] == ["train"]
    expect(page.locator(".nbf-notice")).to_be_hidden()
    page.evaluate("window.silent = true")
    tell(page, recorded.moment(flow, recorded.MID_RUN, seq=2))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    expect(page.locator(".nbf-notice")).to_contain_text("stop button")
    expect(page.get_by_role("button", name="Cancel")).to_be_enabled()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_datastore_that_came_with_the_folder_is_asked_about(plain: Open, shoot: Shoot, dark: bool) -> None:
    page = plain(dark=dark, width=320)
    moment = recorded.moment(recorded.digits(), {})
    tell(page, moment)
    question = page.get_by_role("group", name="Trust")
    expect(question).to_be_hidden()
    tell(page, {**moment, "seq": 2, "untrusted": "/home/me/cloned <b>project</b>/.nbflow"})
    expect(question).to_contain_text("/home/me/cloned <b>project</b>/.nbflow came from elsewhere")
    shoot(page, f"trust-{'dark' if dark else 'light'}")
    question.get_by_role("button", name="Trust this datastore").click()
    assert sent(page, "trust")[-1]["place"] == "/home/me/cloned <b>project</b>/.nbflow"
    tell(page, {**moment, "seq": 3})
    expect(question).to_be_hidden()


def test_an_earlier_run_and_the_way_back(plain: Open, shoot: Shoot) -> None:
    page = plain(width=420)
    flow = recorded.digits()
    now = recorded.moment(flow, recorded.MID_RUN, status="done")
    tell(page, now)
    page.get_by_role("tab", name="Runs").click()
    assert sent(page, "runs")
    answer = {"nbflow": PROTOCOL, "session": "recorded", "seq": 0, "reply_to": ""}
    rows = [
        {"run": f"20261122-1015{at}0-a1b2c3", "status": status, "by_hand": at == 2, "elapsed": 12.5,
         "started_at": now["now"] - 3600 * at, "tasks": "6 done, 1 failed", "tags": ["nightly"][:at], "note": ""}
        for at, status in enumerate(["done", "failed", "running", "lost"])
    ]  # fmt: skip
    page.evaluate("message => window.say(message)", {**answer, "kind": "runs", "runs": rows})
    expect(page.locator(".nbf-run")).to_have_count(4)
    shoot(page, "drawing-runs")
    page.locator(f'[data-run="{rows[1]["run"]}"]').click()
    assert sent(page, "past")[-1]["run"] == rows[1]["run"]
    past = {**recorded.moment(flow, recorded.FAILED, status="failed"), "seq": 0}
    past["run"]["run"] = rows[1]["run"]
    page.evaluate("message => window.say(message)", {**answer, "kind": "past", "snapshot": past})
    expect(page.get_by_text(f"Run {rows[1]['run']}")).to_be_visible()
    expect(page.get_by_role("option", name="train: failed")).to_be_visible()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    shoot(page, "drawing-past")
    page.get_by_role("button", name="Back to the present").click()
    expect(page.get_by_role("option", name="train: running")).to_be_visible()


def test_nothing_of_a_step_is_taken_for_markup(plain: Open) -> None:
    page = plain()
    flow = recorded.flow_of(["%%step a\nx = 1"], "<img src=x onerror=alert(1)>")
    message = recorded.moment(flow, {"a": "failed"}, status="failed")
    message["steps"][0]["note"] = "<script>window.hacked = 1</script>"
    message["steps"][0]["failure"]["message"] = "<img src=x onerror='window.hacked = 1'>"
    tell(page, message)
    page.get_by_role("option", name="a: failed").click()
    expect(page.get_by_text("<img src=x onerror='window.hacked = 1'>")).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#here img, #here script").count() == 0
