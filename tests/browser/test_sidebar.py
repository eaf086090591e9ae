"""The sidebar in a real JupyterLab, with real kernels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Shoot
from tests.browser.jupyter import Notebook, Server

pytestmark = pytest.mark.browser
Open = Callable[..., Notebook]

FLOW = [
    "%%params\nrate: float = 0.1  # how fast it learns\npause: float = 0.4",
    "%%step load\nimport time\nrows = list(range(100))\nprint('loaded', len(rows))",
    "scaled = [row * rate for row in rows]",
    "%%step features\ntime.sleep(pause)\nX = [row ** 2 for row in scaled]",
    "%%step train\nfor turn in range(3):\n    time.sleep(pause)\n    print('turn', turn)\nmodel = sum(X)",
    "%%step report\nprint(f'{model:.1f}')",
    "%flow run",
]
SLOW = [
    "%%step slow\nimport time\nfor second in range(60):\n    print('second', second)\n    time.sleep(1)\ndone = 1",
    "%flow run",
]
FAST = 10_000


def within(seconds: float) -> float:
    """A time that an idle machine keeps; the time that this one may take, as busy as it is."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def step(panel: Locator, name: str, state: str) -> Locator:
    """The row of a step in a state."""
    return panel.get_by_role("option", name=re.compile(f"^{name}: {state}"))


def root(panel: Locator) -> Locator:
    return panel.locator(".nbf-panel")


def seconds_to_cancel(panel: Locator) -> float:
    """Press Cancel; the seconds until the page shows the step as cancelled, by the page's own clock."""
    panel.evaluate("""panel => {
        window.cancelled = new Promise(resolve => {
            let began = 0;
            panel.addEventListener('click', () => { began = performance.now(); }, { once: true, capture: true });
            const watch = new MutationObserver(() => {
                if (panel.querySelector('[data-step][data-state=cancelled]')) {
                    watch.disconnect();
                    resolve((performance.now() - began) / 1000);
                }
            });
            watch.observe(panel, { subtree: true, childList: true, attributes: true });
        });
    }""")
    panel.get_by_role("button", name="Cancel").click()
    expect(step(panel, "slow", "cancelled")).to_be_visible()
    return float(panel.page.evaluate("window.cancelled"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_steps_by_hand_and_a_run(notebook: Open, shoot: Shoot, dark: bool) -> None:
    theme = "dark" if dark else "light"
    book = notebook("digits.ipynb", FLOW, dark=dark)
    page, panel = book.page, book.open_panel()
    expect(panel).to_contain_text("nbflow is not loaded")
    expect(panel.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    shoot(page, f"lab-empty-{theme}")
    book.run(0)
    expect(root(panel)).to_have_attribute("data-link", "linked")
    expect(panel.get_by_role("option")).to_have_count(6)
    for number in (1, 2, 3):
        book.run(number)
    expect(step(panel, "load", "done")).to_be_visible()
    shoot(page, f"lab-by-hand-{theme}")
    panel.get_by_role("button", name="Run", exact=True).click()
    expect(step(panel, "train", "running")).to_be_visible(timeout=FAST)
    step(panel, "train", "").click()
    expect(panel.get_by_role("log")).to_contain_text("turn 0")
    shoot(page, f"lab-running-{theme}")
    expect(root(panel)).to_have_attribute("data-status", "done", timeout=FAST)
    expect(panel.get_by_role("log")).to_contain_text("turn 2")
    expect(panel.get_by_role("row", name=re.compile("^model float"))).to_be_visible()
    shoot(page, f"lab-done-{theme}")
    panel.get_by_role("tab", name="Graph").click()
    expect(panel.get_by_role("button", name=re.compile("^report: done"))).to_be_visible()
    shoot(page, f"lab-graph-{theme}")
    panel.get_by_role("tab", name="Runs").click()
    expect(panel.get_by_role("button", name=re.compile("done.*just now"))).to_be_visible()
    shoot(page, f"lab-runs-{theme}")


def test_parameters_declaring_and_the_way_to_a_cell(notebook: Open, shoot: Shoot) -> None:
    hide = (  # as in a kernel that has no nbflow
        "import sys\nclass Hidden:\n    def find_spec(name, *_):\n        if name == 'nbflow':\n"
        "            raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, Hidden)"
    )
    book = notebook("form.ipynb", [*FLOW[:-1], "# the end\n" * 40, "%flow run"])
    page, panel = book.page, book.open_panel()
    book.type_anew(0, hide)
    book.run(0)
    panel.get_by_role("button", name="Load nbflow").click()
    expect(panel.get_by_role("status").filter(has_text="nbflow was not loaded")).to_contain_text("install nbflow")
    book.type_anew(0, "sys.meta_path.remove(Hidden)")
    book.run(0)
    panel.get_by_role("button", name="Load nbflow").click()
    panel.get_by_role("tab", name="Declare").click()
    panel.get_by_label("Cell", exact=True).select_option(label="4: scaled = [row * rate for row in rows]")
    expect(panel.get_by_label("Name", exact=True)).to_have_value("scaled")
    panel.get_by_label("Name", exact=True).fill("scale it")
    expect(panel.get_by_role("alert")).to_contain_text("one word")
    panel.get_by_label("Name", exact=True).fill("scale")
    panel.get_by_text("Options", exact=True).click()
    panel.get_by_label("Retry", exact=True).fill("2")
    expect(panel.locator(".nbf-header-line")).to_have_text("%%step scale --retry 2")
    shoot(page, "lab-declare")
    panel.get_by_role("button", name="Declare as a step").click()
    expect(book.cell(3).locator(".cm-line").first).to_have_text("%%step scale --retry 2")
    expect(panel.get_by_role("status").filter(has_text="begins with")).to_be_visible()
    panel.get_by_role("tab", name="Steps").click()
    expect(step(panel, "scale", "pending")).to_be_visible()
    panel.get_by_role("tab", name="Parameters").click()
    box = panel.get_by_label("rate: float")
    box.evaluate("input => { input.type = 'text'; }")
    box.fill("fast")
    panel.get_by_role("button", name="Run with these values").click()
    expect(panel.get_by_role("status").filter(has_text="rate")).to_be_visible(timeout=FAST)
    expect(panel.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    box.fill("0.5")
    panel.get_by_label("pause: float").fill("0")
    shoot(page, "lab-parameters")
    panel.get_by_role("button", name="Run with these values").click()
    panel.get_by_role("tab", name="Steps").click()
    expect(root(panel)).to_have_attribute("data-status", "done", timeout=FAST)
    step(panel, "report", "stale").click()  # the notebook itself says 0.1
    expect(panel.get_by_role("log")).to_contain_text("82087.5")
    book.cell(7).locator(".cm-content").click()
    step(panel, "load", "").dblclick()
    expect(book.cell(2)).to_be_in_viewport()
    expect(book.cell(2)).to_have_class(re.compile("jp-mod-active"))


def test_cancel_while_a_cell_blocks_and_a_reload_in_mid_run(notebook: Open, shoot: Shoot) -> None:
    book = notebook("slow.ipynb", SLOW)
    page, panel = book.page, book.open_panel()
    book.run(0)
    book.run(2, wait=False)
    expect(step(panel, "slow", "running")).to_be_visible(timeout=FAST)
    assert seconds_to_cancel(panel) < within(1)
    expect(book.cell(2).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"))
    shoot(page, "lab-cancelled")
    expect(panel.get_by_role("button", name="Resume")).to_be_enabled()

    book.run(1, wait=False)  # by hand
    expect(step(panel, "slow", "running")).to_be_visible(timeout=FAST)
    assert seconds_to_cancel(panel) < within(1)
    expect(book.cell(1).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"))

    book.run(2, wait=False)
    expect(step(panel, "slow", "running")).to_be_visible(timeout=FAST)
    page.wait_for_timeout(1500)  # the page saves what it has before it goes
    page.reload()
    expect(book.cell(0)).to_be_visible(timeout=40_000)
    panel = book.open_panel()
    expect(step(panel, "slow", "running")).to_be_visible(timeout=15_000)
    shoot(page, "lab-reloaded")
    assert seconds_to_cancel(panel) < within(
        2.5
    )  # nobody answers this page yet: an interrupt, after a second without one


def test_a_restarted_kernel_and_two_notebooks(notebook: Open, server: Server, shoot: Shoot) -> None:
    server.write("other.ipynb", ["%%step elsewhere\nvalue = 2"])
    book = notebook("one.ipynb", ["%%step here\nvalue = 1"])
    page, panel = book.page, book.open_panel()
    book.run(0)
    book.run(1)
    expect(step(panel, "here", "done")).to_be_visible()
    page.locator('.jp-DirListing-item[title*="other.ipynb"]').dblclick()
    expect(page.locator('#nbflow-panel[data-notebook="other.ipynb"]')).to_be_visible()
    book.ready("other.ipynb")
    expect(panel).to_contain_text("nbflow is not loaded")
    book.run(0)
    book.run(1)
    expect(step(panel, "elsewhere", "done")).to_be_visible()
    expect(step(panel, "here", "")).to_have_count(0)
    shoot(page, "lab-two-notebooks")
    page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="one.ipynb").click()
    expect(step(panel, "here", "done")).to_be_visible()
    server.restart("one.ipynb")  # which the page may not hear of
    server.wait_until_idle("one.ipynb")
    page.wait_for_timeout(2100)
    page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="other.ipynb").click()
    expect(step(panel, "elsewhere", "done")).to_be_visible()
    page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="one.ipynb").click()
    expect(panel).to_contain_text("nbflow is not loaded")
    expect(panel.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    book.run(0)
    expect(step(panel, "here", "")).to_be_visible()
    book.run(1)
    expect(step(panel, "here", "reused")).to_be_visible()
