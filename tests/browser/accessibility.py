"""What eyes and readers get at: axe-core's rules of WCAG 2.1 AA, and text that is cut with no way to see it all."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
CHECK = """async selector => {
    const found = await axe.run(selector, {
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'],
        // what a person would say to a row is its step's name, with which what readers say of it begins
        rules: { 'label-content-name-mismatch': { enabled: false } },
    });
    if (!found.passes.some(rule => rule.id === 'color-contrast')) {
        return ['no text was looked at'];
    }
    const told = (rule, node) => `${rule.id}: ${node.html} (${node.failureSummary})`;
    return found.violations.flatMap(rule => rule.nodes.map(node => told(rule, node)));
}"""
CUT = """selector => [...document.querySelectorAll(`${selector} *`)].filter(one => {
    const style = getComputedStyle(one);
    const hidden = style.overflowX === 'hidden' || style.overflowX === 'clip';
    const cut = hidden && one.clientWidth > 1 && one.scrollWidth > one.clientWidth + 1;
    return cut && one.textContent.trim() && !one.closest('[title]') && !one.querySelector('[title]');
}).map(one => `${one.className}: ${one.textContent}`)"""


def check(page: Page, selector: str) -> None:
    """Everything within the selector keeps the rules; what does not is listed."""
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(AXE.read_text())
    broken = page.evaluate(CHECK, selector)
    assert not broken, "\n".join(broken)


def check_width(page: Page, selector: str) -> None:
    """No text within the selector is cut unless a title holds all of it, and nothing reaches beyond it."""
    cut = page.evaluate(CUT, selector)
    assert not cut, "\n".join(cut)
    assert page.locator(selector).evaluate("one => one.scrollWidth <= one.clientWidth + 1")
