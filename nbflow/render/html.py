"""HTML that notebooks show: escaping, the one place for styles, and small tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

STYLE = (
    """
.nbflow{color:var(--jp-ui-font-color1,var(--vscode-foreground,inherit));font-size:13px;line-height:1.45;
 --nbflow-line:var(--jp-border-color2,rgba(128,128,128,.4));
 --nbflow-back:var(--jp-layout-color1,var(--vscode-editor-background,Canvas));
 --nbflow-good:var(--jp-success-color1,#2b8a4b);--nbflow-bad:var(--jp-error-color1,#d64545);
 --nbflow-warn:var(--jp-warn-color1,#c77700);--nbflow-busy:var(--jp-brand-color1,#2f81d6)}
.nbflow .nbflow-head{margin:2px 0 4px}
.nbflow .nbflow-dim{opacity:.72}
.nbflow .nbflow-scroll{overflow-x:auto;max-width:100%}
.nbflow table.nbflow-table{border-collapse:collapse;margin:0;font-size:inherit;border:0;color:inherit;table-layout:auto}
.nbflow table.nbflow-table th,.nbflow table.nbflow-table td{text-align:left;vertical-align:top;padding:2px 14px 2px 0;
 border:0;border-bottom:1px solid var(--nbflow-line);background:none;font-weight:normal;max-width:560px;
 white-space:nowrap;overflow:hidden;text-overflow:ellipsis;color:inherit}
.nbflow table.nbflow-table thead th{opacity:.72;font-size:12px}
.nbflow table.nbflow-table tbody tr,.nbflow table.nbflow-table tbody tr:hover,
.nbflow table.nbflow-table tbody tr:nth-child(n){background:none}
.nbflow table.nbflow-table td.nbflow-number{text-align:right;font-variant-numeric:tabular-nums}
.nbflow table.nbflow-table td.nbflow-wrap{white-space:normal}
.nbflow.nbflow.nbflow code{background:none;color:inherit;padding:0;font-size:12px;
 font-family:var(--jp-code-font-family,monospace)}
.nbflow .nbflow-mark{display:inline-block;width:1em;font-weight:bold}
.nbflow .nbflow-done,.nbflow .nbflow-reused{color:var(--nbflow-good)}
.nbflow .nbflow-failed,.nbflow .nbflow-lost{color:var(--nbflow-bad)}
.nbflow .nbflow-caught,.nbflow .nbflow-cancelled{color:var(--nbflow-warn)}
.nbflow .nbflow-running,.nbflow .nbflow-queued{color:var(--nbflow-busy)}
.nbflow .nbflow-meter{height:3px;min-width:60px;border-radius:2px;background:var(--nbflow-line);overflow:hidden}
.nbflow .nbflow-meter>div{height:100%;background:var(--nbflow-busy)}
.nbflow .nbflow-foot{margin-top:4px}
.nbflow details.nbflow-folded>summary{cursor:pointer;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.nbflow pre.nbflow-log{margin:2px 0 6px;padding:0 0 0 12px;border-left:2px solid var(--nbflow-line);max-height:360px;
 overflow:auto;font-size:12px;line-height:1.4;background:none;color:inherit;white-space:pre;
 font-family:var(--jp-code-font-family,ui-monospace,monospace)}
.nbflow details.nbflow-folded{margin-top:6px}
.nbflow .nbflow-title{margin:8px 0 2px}
.nbflow ul.nbflow-list{margin:4px 0;padding-left:1.3em}
.nbflow .nbflow-in{color:var(--nbflow-good)}
.nbflow .nbflow-out{color:var(--nbflow-bad)}
.nbflow table.nbflow-pair{border:0;border-collapse:collapse;margin:2px 0 8px}
.nbflow table.nbflow-pair>tbody>tr>td{border:0;padding:0 28px 0 0;vertical-align:top;background:none;text-align:left}
.nbflow input.nbflow-filter{font:inherit;font-size:12px;color:inherit;background:none;padding:1px 6px;margin-left:12px;
 border:1px solid var(--nbflow-line);border-radius:4px;width:11em}
.nbflow .nbflow-node rect{fill:var(--nbflow-back);stroke:var(--nbflow-line);stroke-width:1.4}
.nbflow .nbflow-node text{fill:currentColor;font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:12.5px;
 text-anchor:middle}
.nbflow .nbflow-node text.nbflow-detail{font-size:10.5px;opacity:.72}
.nbflow .nbflow-node.nbflow-cell rect,.nbflow .nbflow-node.nbflow-params rect{stroke-dasharray:4 3}
.nbflow .nbflow-node.nbflow-is-done rect,.nbflow .nbflow-node.nbflow-is-reused rect{stroke:var(--nbflow-good)}
.nbflow .nbflow-node.nbflow-is-failed rect{stroke:var(--nbflow-bad);stroke-width:2.2}
.nbflow .nbflow-node.nbflow-is-caught rect,.nbflow .nbflow-node.nbflow-is-cancelled rect{stroke:var(--nbflow-warn)}
.nbflow .nbflow-node.nbflow-is-running rect{stroke:var(--nbflow-busy);stroke-width:2.2}
.nbflow .nbflow-node.nbflow-is-pending,.nbflow .nbflow-node.nbflow-is-skipped{opacity:.6}
.nbflow .nbflow-edge path{fill:none;stroke:currentColor;stroke-opacity:.45;stroke-width:1.2}
.nbflow .nbflow-edge.nbflow-order path{stroke-dasharray:3 3}
.nbflow .nbflow-edge:hover path{stroke-opacity:1;stroke-width:2}
.nbflow .nbflow-arrow{fill:currentColor;fill-opacity:.6}
""".strip()
    .replace("\n ", "")
    .replace("\n", "")
)
"""Every rule that our HTML and SVG need. Colours come from JupyterLab's and VS Code's variables; the values behind them
are for other pages and read on white and on black. Without styles everything stays readable as words."""


VOID = frozenset({"br", "col", "hr", "img", "input"})
"""Elements without content and end."""


UNSHOWN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that have no place in HTML; in a terminal that a page is printed to they may do anything."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Return a value's text with no markup and nothing unshown in it; `Html` stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(UNSHOWN.sub("", str(text)), quote=True))


def tag(name: str, *content: object, cls: str = "", **attributes: object) -> Html:
    """Return an element; content that is not `Html` is escaped."""
    if cls:
        attributes = {"class": cls, **attributes}
    pairs = "".join(f' {key.replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{pairs}>" if name in VOID else f"<{name}{pairs}>{join(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """Return parts as one piece of HTML; what is not `Html` is escaped, `between` too."""
    return Html(escape(between).join(escape(part) for part in parts))


def block(*content: object) -> Html:
    """Return content with its styles, as one output of a cell."""
    return tag("div", Html(f"<style>{STYLE}</style>"), *content, cls="nbflow")


def state(word: str, mark: str = "") -> Html:
    """Return a state's mark and word in the state's colour."""
    head = [tag("span", mark, cls="nbflow-mark", aria_hidden="true"), " "] if mark else []
    return tag("span", *head, word, cls=f"nbflow-{word}")


def marked(text: object, word: str, mark: str) -> Html:
    """Return a text behind the mark of a state, which is in the state's colour."""
    return join((tag("span", mark, cls=f"nbflow-mark nbflow-{word}", aria_hidden="true"), " ", text))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Html:
    """Return a table with heads over rows of cells; the columns `numbers` are aligned to the right.

    A column whose cells are all empty is left out.
    """
    lines = [[escape(cell) for cell in row] for row in rows]
    filled = [place for place in range(len(heads)) if any(line[place] for line in lines)]
    right = frozenset(numbers)
    body = [
        tag("tr", *(tag("td", line[at], cls="nbflow-number") if at in right else tag("td", line[at]) for at in filled))
        for line in lines
    ]
    head = tag("thead", tag("tr", *(tag("th", heads[at], scope="col") for at in filled)))
    return tag("div", tag("table", head, tag("tbody", *body), cls="nbflow-table"), cls="nbflow-scroll")


MANY = 15
"""Rows from which on a table can be filtered."""
FILTER = (
    "var w=this.value.toLowerCase();this.closest('.nbflow').querySelectorAll('table.nbflow-table>tbody>tr')"
    ".forEach(function(r){r.hidden=r.textContent.toLowerCase().indexOf(w)<0})"
)
"""Runs in the notebook's page, where the notebook is trusted; nothing of the user's is in it."""


def filter_box(rows: int) -> Html:
    """Return a box that leaves those of a block's rows that hold the words typed, where they are many."""
    if rows < MANY:
        return Html("")
    return tag("input", type="search", placeholder=f"filter {rows:,} rows", aria_label="Filter rows", oninput=FILTER,
               cls="nbflow-filter")  # fmt: skip
