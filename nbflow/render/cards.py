"""Cards: what a task shows of itself, as one page without any script but ours; components, documents, bundles. Pure."""

from __future__ import annotations

import base64
import hashlib
import html as escaping
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nbflow.model import Frozen, Index, Manifest, Reason, TaskFailure, TaskState
from nbflow.render import components as parts
from nbflow.render import html, preview, sanitize
from nbflow.render.components import (
    HTML,
    JSON,
    YAML,
    Artifact,
    Chart,
    Code,
    Component,
    Drawn,
    Error,
    Grid,
    Image,
    Markdown,
    Progress,
    Section,
    Table,
    Timeline,
    ValueBox,
    grid_of,
)
from nbflow.render.html import Html, tag

STYLE = (
    """
.nbflow-card{max-width:1000px;--nbflow-soft:rgba(128,128,128,.13)}
.nbflow-page{padding:14px 18px;margin:0 auto;font-family:var(--jp-ui-font-family,system-ui,sans-serif)}
:root{color-scheme:light dark;--page:#fff;--ink:#1f2328}
@media (prefers-color-scheme:dark){:root{--page:#111418;--ink:#dfe3e8}}
:root[data-theme=light]{color-scheme:light;--page:#fff;--ink:#1f2328}
:root[data-theme=dark]{color-scheme:dark;--page:#111;--ink:#e0e0e0}
:root[data-inside]{--page:transparent}
body:has(>.nbflow-page){margin:0;background:var(--page);color:var(--ink)}
.nbflow-page{color:var(--ink)!important}
:root[data-theme] .nbflow-page{padding:4px 2px;margin:0}
:root[data-theme=dark] .nbflow{--nbflow-good:#4cb87a;--nbflow-bad:#f4756b;--nbflow-warn:#dba13a;--nbflow-busy:#58a6ff}
.nbflow-card .nbflow-head{margin:0 0 8px;font-size:14px}
.nbflow-card p{margin:4px 0}
.nbflow-card figure{margin:8px 0}
.nbflow-card figcaption{font-weight:600;margin-bottom:4px}
.nbflow-card img{max-width:100%;height:auto;background:#fff;border-radius:4px}
.nbflow-card pre{margin:4px 0;padding:8px 10px;background:var(--nbflow-soft);border-radius:4px;overflow:auto;
 max-height:420px;font-size:12px;line-height:1.4;font-family:var(--jp-code-font-family,ui-monospace,monospace);
 color:inherit;white-space:pre}
.nbflow-card details.nbflow-section{margin:10px 0 0;border-top:1px solid var(--nbflow-line);padding-top:8px}
.nbflow-card details.nbflow-section>summary{cursor:pointer;font-weight:600;margin-bottom:6px}
.nbflow-card summary{cursor:pointer}
.nbflow-card .nbflow-section .nbflow-section{border-top:0;padding-left:14px;margin-top:4px}
.nbflow-card .nbflow-grid{display:grid;gap:12px;margin:8px 0}
.nbflow-card .nbflow-grid>div{min-width:0}
.nbflow-card .nbflow-of-2{grid-template-columns:repeat(2,minmax(0,1fr))}
.nbflow-card .nbflow-of-3{grid-template-columns:repeat(3,minmax(0,1fr))}
.nbflow-card .nbflow-of-4{grid-template-columns:repeat(4,minmax(0,1fr))}
.nbflow-card .nbflow-of-5{grid-template-columns:repeat(5,minmax(0,1fr))}
.nbflow-card .nbflow-of-6{grid-template-columns:repeat(6,minmax(0,1fr))}
.nbflow-card td .nbflow-progress{min-width:180px}
.nbflow-card td img{max-width:320px}
.nbflow-card .nbflow-boxes{display:flex;flex-wrap:wrap;gap:10px;margin:8px 0}
.nbflow-card .nbflow-box{border:1px solid var(--nbflow-line);border-radius:6px;padding:8px 14px;min-width:96px}
.nbflow-card .nbflow-value{font-size:22px;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.nbflow-card table.nbflow-table th.nbflow-number{text-align:right}
.nbflow-card .nbflow-good{color:var(--nbflow-good)}
.nbflow-card .nbflow-bad{color:var(--nbflow-bad)}
.nbflow-card .nbflow-note{font-style:italic;opacity:.8}
.nbflow-card .nbflow-progress{margin:8px 0;max-width:560px}
.nbflow-card .nbflow-ends{display:flex;justify-content:space-between;gap:12px}
.nbflow-card .nbflow-bar{height:8px;border-radius:4px;background:var(--nbflow-soft);overflow:hidden;margin-top:3px}
.nbflow-card .nbflow-bar>div{height:100%;background:var(--nbflow-busy);border-radius:4px}
.nbflow-card .nbflow-json ul{list-style:none;margin:0;padding-left:18px}
.nbflow-card .nbflow-json details{display:inline-block;vertical-align:top}
.nbflow-card table.nbflow-timeline{border-collapse:collapse;width:100%;font-size:inherit;color:inherit}
.nbflow-card table.nbflow-timeline td{padding:2px 12px 2px 0;border:0;text-align:left;background:none}
.nbflow-card table.nbflow-timeline td.nbflow-span{width:70%;padding-right:0;background:var(--nbflow-soft)}
.nbflow-card table.nbflow-timeline td.nbflow-number{text-align:right;padding:0 0 0 10px;white-space:nowrap}
.nbflow-card .nbflow-span>div{height:10px;background:var(--nbflow-busy);border-radius:3px;min-width:2px}
.nbflow-card table.nbflow-facts{border-collapse:collapse;font-size:inherit;color:inherit}
.nbflow-card table.nbflow-facts th,.nbflow-card table.nbflow-facts td{text-align:left;padding:1px 18px 1px 0;border:0;
 background:none;font-weight:normal;vertical-align:top}
.nbflow-card table.nbflow-facts th{opacity:.72}
.nbflow-card .nbflow-html{overflow-x:auto}
.nbflow-card .nbflow-html table,.nbflow-card .nbflow-text table{border-collapse:collapse;border:0;font-size:12px;
 color:inherit}
.nbflow-card .nbflow-html td,.nbflow-card .nbflow-html th,.nbflow-card .nbflow-text td,.nbflow-card .nbflow-text th{
 border:0;border-bottom:1px solid var(--nbflow-line);padding:2px 12px 2px 0;text-align:right;background:none}
.nbflow-card .nbflow-text td,.nbflow-card .nbflow-text th{text-align:left}
.nbflow-card .nbflow-text h1{font-size:18px;margin:10px 0 6px}
.nbflow-card .nbflow-text h2{font-size:16px;margin:10px 0 4px}
.nbflow-card .nbflow-text h3{font-size:14px;margin:8px 0 4px}
.nbflow-card .nbflow-text ul,.nbflow-card .nbflow-text ol{margin:4px 0;padding-left:22px}
.nbflow-card .ansi-bold{font-weight:bold}
.nbflow-card .ansi-red-fg,.nbflow-card .ansi-red-intense-fg{color:var(--nbflow-bad)}
.nbflow-card .ansi-green-fg,.nbflow-card .ansi-green-intense-fg{color:var(--nbflow-good)}
.nbflow-card .ansi-yellow-fg,.nbflow-card .ansi-yellow-intense-fg{color:var(--nbflow-warn)}
.nbflow-card .ansi-blue-fg,.nbflow-card .ansi-cyan-fg{color:var(--nbflow-busy)}
""".strip()
    .replace("\n ", "")
    .replace("\n", "")
)
"""On top of `html.STYLE`; the variables that it reads fall back to colours that read on white and on black."""

SCRIPT = (
    "(function(){if(window.parent===window)return;"
    "function tell(){parent.postMessage({nbflowHeight:document.querySelector('main').offsetHeight+4},'*')}"
    "addEventListener('message',function(e){var t=e.data&&e.data.nbflowTheme;"
    "if(t==='dark'||t==='light')document.documentElement.dataset.theme=t;tell()});"
    "new ResizeObserver(tell).observe(document.querySelector('main'));tell()})()"
)
"""Tells the page around it how high the card is, and takes the theme from there; it reads and sends nothing else."""


__all__ = [
    "HTML", "JSON", "YAML", "Artifact", "Card", "Chart", "Code", "Component", "Error", "Grid", "Image", "Markdown",
    "Progress", "Section", "Table", "TaskSeen", "Template", "Timeline", "ValueBox",
]  # fmt: skip

MIME = "application/vnd.nbflow.card+json"
NAME = "nbflow_card"
"""In the metadata of a card that a task's code shows: the card's name."""
VERSION = 1
LARGEST = 1_500_000
"""Characters of HTML that a card may take; what is beyond is left out with a notice."""

BEGIN, END = "<!--nbflow:begin-->", "<!--nbflow:end-->"
"""What the parts of a card stand between; nothing else in a card can hold these, as all text is escaped."""


class TaskSeen(Frozen, frozen=True):
    """A task as its card and the templates of plug-ins see it: manifests and texts, no values."""

    flow: str
    run: str
    step: str
    label: str
    state: TaskState
    index: Index = ()
    item: str = ""
    turn: int | None = None
    attempt: int = 1
    started_at: float | None = None
    elapsed: float | None = None
    reasons: tuple[Reason, ...] = ()
    reused_from: str | None = None
    failure: TaskFailure | None = None
    parameters: dict[str, str] = {}  # noqa: RUF012  # msgspec copies it for each instance
    inputs: tuple[Manifest, ...] = ()
    origins: dict[str, str] = {}  # noqa: RUF012  # input -> the step that made it
    artifacts: tuple[Manifest, ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()  # nbformat's
    source: str = ""
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    dag: str = ""  # an SVG of the flow
    cells: dict[str, int] = {}  # noqa: RUF012  # the positions of code cells by their ids

    @property
    def name(self) -> str:
        """The task as people read it: `train`, `train/2`."""
        return f"{self.label}/{preview.index(self.index)}" if self.index else self.label


class Template(Protocol):
    """How else a task may be shown; plugs in under the entry point `nbflow.cards`."""

    def render(self, task_view: TaskSeen) -> Iterable[object]:
        """Return the parts of a task's card, or anything else that a card takes."""


class Card:
    """One card: a title and drawn parts. A notebook shows it; `.html` is one page that needs nothing from elsewhere."""

    def __init__(
        self, title: str, drawn: Sequence[Drawn], *, name: str = "", step: str = "", run: str = "", subtitle: str = ""
    ) -> None:
        self.title = title
        self.name = name
        self.step = step
        self.run = run
        self._subtitle = subtitle
        self._drawn = within(drawn)

    @property
    def body(self) -> str:
        """Its parts as HTML, without the page around them."""
        return parts.joined(self._drawn).html

    @property
    def html(self) -> str:
        """The whole card as a page of its own."""
        return document(self.title, self._subtitle, self.body)

    @property
    def text(self) -> str:
        """The whole card as plain text."""
        head = " · ".join(part for part in (self.title, self._subtitle) if part)
        return f"{head}\n{parts.joined(self._drawn).text}".rstrip()

    @property
    def parts(self) -> tuple[Drawn, ...]:
        """Its parts in order."""
        return self._drawn

    def bundle(self, *, live: bool = False) -> dict[str, Any]:
        """Return what a notebook shows, by MIME type; `live`: it is drawn again soon, so nothing is loaded anew."""
        if live:
            return {"text/html": str(inline(self.title, self._subtitle, self.body)), "text/plain": self.text}
        page = self.html
        height = _height(self._drawn)
        data = {"version": VERSION, "title": self.title, "name": self.name, "step": self.step, "run": self.run}
        frame = framed(page, self.text, height)
        return {MIME: {**data, "height": height, "html": page}, "text/html": str(frame), "text/plain": self.text}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return self.bundle()

    def __repr__(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


def within(drawn: Iterable[Drawn], room: int = LARGEST) -> tuple[Drawn, ...]:
    """Return the parts that a card has room for, with a notice of the others."""
    fitting: list[Drawn] = []
    left_out = 0
    for part in drawn:
        if len(part.html) > room or left_out:
            left_out += 1
            continue
        room -= len(part.html)
        fitting.append(part)
    if left_out:
        note = (
            f"{left_out} more part{'s' if left_out > 1 else ''} left out: a card holds {preview.size(LARGEST)} at most"
        )
        fitting.append(Drawn(html=tag("p", note, cls="nbflow-note"), text=f"[{note}]"))
    return tuple(fitting)


# ---------------------------------------------------------------- pages


def _policy() -> str:
    """Return what a card may do: show pictures that it holds, and run the one script that tells its height."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def document(title: str, subtitle: str, body: str) -> str:
    """Return a page around HTML made by this package, which works alone, offline and in a sandbox."""
    head = [
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escaping.escape(_policy())}">'),
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        tag("title", title),
        Html(f"<style>{html.STYLE}{STYLE}</style>"),
    ]
    main = tag("main", _heading(title, subtitle), Html(BEGIN + body + END), cls="nbflow nbflow-card nbflow-page")
    return f"<!doctype html><html><head>{html.join(head)}</head><body>{main}<script>{SCRIPT}</script></body></html>"


def _heading(title: str, subtitle: str) -> Html:
    if not title:
        return Html("")
    detail = tag("span", subtitle, cls="nbflow-dim") if subtitle else ""
    return tag("div", tag("b", title), " ", detail, cls="nbflow-head")


def body_of(page: str) -> str:
    """Return the HTML of the parts of a page or block of this package, empty for any other HTML."""
    begin, end = page.find(BEGIN), page.rfind(END)
    return page[begin + len(BEGIN) : end] if 0 <= begin < end else ""


def inline(title: str, subtitle: str, body: str) -> str:
    """Return a card as a block of the notebook's own page: without a script it can be replaced without a flicker."""
    style = Html(f"<style>{html.STYLE}{STYLE}</style>")
    return tag("div", style, _heading(title, subtitle), Html(BEGIN + body + END), cls="nbflow nbflow-card")


SANDBOX = "allow-scripts allow-popups allow-popups-to-escape-sandbox"
"""What a frame with a card may do: run the card's own script and open its links, without the page's origin."""

LISTEN = (
    "var f=this,d=document.body.dataset,t=(d.jpThemeLight==='false'||/dark|contrast/.test(d.vscodeThemeKind||''))"
    "?'dark':'light';f.contentWindow.postMessage({nbflowTheme:t},'*');"
    "window.addEventListener('message',function(e){var h=e.data&&e.data.nbflowHeight;"
    "if(e.source===f.contentWindow&&h>0)f.style.height=Math.min(h,4000)+'px'});"
    "f.contentWindow.postMessage({nbflowTheme:t},'*')"
)
"""Runs in the notebook's page: tells the card the theme, takes its height. The card itself cannot reach that page."""


def framed(page: str, text: str, height: int) -> str:
    """Return a page in a frame of its own origin; `height` is a guess.

    Where a notebook is not trusted frames are taken away, and the text in it shows.
    """
    return tag(
        "iframe", tag("pre", text), sandbox=SANDBOX, srcdoc=page, onload=LISTEN, title="nbflow card",
        style=f"width:100%;height:{height}px;border:0;display:block",
    )  # fmt: skip


def _height(drawn: Sequence[Drawn]) -> int:
    """Return about how many pixels a card's parts take."""
    lines = sum(part.text.count("\n") + 2 for part in drawn)
    images = sum(part.html.count("<img ") for part in drawn)
    return min(900, 60 + 21 * lines + 320 * images)


# ---------------------------------------------------------------- the card that every task has


def default_parts(task: TaskSeen, made: Mapping[str, str] | None = None) -> list[Drawn]:
    """Return the parts of a task's own card; `made` are the bodies of the cards that its code made, by name."""
    own_parts = [_named(name, body) for name, body in (made or {}).items()]
    if task.failure is not None:
        text = preview.failure(task.failure, task.cells)
        own_parts.append(Error(text, task.failure.traceback).drawn)
    shown = (each for each in task.outputs if task.failure is None or each.get("output_type") != "error")  # said above
    displays = [part for output in shown if (part := output_part(output)) is not None]
    if displays:
        own_parts.append(parts.section("Output", displays))
    own_parts.append(parts.section("Task", [_facts(task)]))
    if task.parameters:
        rows = list(task.parameters.items())
        own_parts.append(parts.section("Parameters", [parts.table(grid_of(rows))]))
    if task.inputs:
        own_parts.append(parts.section("Inputs", [parts.artifacts(task.inputs, task.origins)]))
    if task.artifacts:
        own_parts.append(parts.section("Artifacts", [parts.artifacts(task.artifacts)]))
    own_parts.append(parts.section("Place in the flow", [_place(task)], opened=False))
    if task.source.strip():
        own_parts.append(parts.section("Code", [Code(task.source.strip("\n")).drawn], opened=False))
    return own_parts


def _facts(task: TaskSeen) -> Drawn:
    started = "" if task.started_at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(task.started_at))
    facts = {
        "state": f"{preview.mark(task.state)} {task.state}",
        "why": preview.reasons(task.reasons),
        "item": task.item,
        "turn": "" if task.turn is None else str(task.turn),
        "attempt": str(task.attempt) if task.attempt > 1 else "",
        "started": started,
        "took": preview.duration(task.elapsed),
        "run": f"{task.flow}/{task.run}",
        "result of run": task.reused_from or "",
    }
    lines = [(name, value) for name, value in facts.items() if value]
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in lines]
    return Drawn(html=tag("table", tag("tbody", *rows), cls="nbflow-facts"), text="\n".join(preview.grid(lines)))


def _place(task: TaskSeen) -> Drawn:
    above, below = ", ".join(task.above) or "nothing", ", ".join(task.below) or "nothing"
    words = tag("p", "reads from ", tag("b", above), "; read by ", tag("b", below))
    drawing = tag("div", Html(task.dag), cls="nbflow-scroll") if task.dag else ""
    return Drawn(html=html.join((words, drawing)), text=f"reads from {above}; read by {below}")


def text_of_body(body: str) -> str:
    """Return the text of a card's HTML, for where nothing but text is shown."""
    lines = (line.strip() for line in sanitize.words(body.replace("</tr>", "\n").replace("</div>", "\n")).split("\n"))
    return "\n".join(" ".join(line.split()) for line in lines if line)


def output_part(output: Mapping[str, Any]) -> Drawn | None:
    """Return an nbformat output as a part of a card, None for what is a card itself, or nothing to see."""
    kind = output.get("output_type")
    if kind == "stream":
        text = _text(output.get("text")).rstrip("\n")
        return Drawn(html=tag("pre", sanitize.coloured(text)), text=sanitize.plain(text)) if text.strip() else None
    if kind == "error":
        trace = "\n".join(output.get("traceback") or ())
        return Error(f"{output.get('ename')}: {output.get('evalue')}", trace).drawn
    data = output.get("data") or {}
    return None if MIME in data or not data else parts.guarded(lambda: _displayed(data))


def shown_part(output: Mapping[str, Any]) -> Drawn | None:
    """Return the same for a page without another place for cards: one that the task's code shows is a part, too."""
    data = output.get("data") or {}
    body = body_of(str(data.get("text/html", ""))) if NAME in (output.get("metadata") or {}) else ""
    if MIME in data:
        body = body_of(str(data[MIME].get("html", "")))
    return _named(str((output.get("metadata") or {}).get(NAME, "")), body) if body else output_part(output)


VEGA = "application/vnd.vegalite."
PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def _displayed(data: Mapping[str, Any]) -> Drawn:
    """Return a MIME bundle in its richest form that can do nothing but show."""
    plain = _text(data.get("text/plain", ""))
    chart = next((data[mime] for mime in sorted(data, reverse=True) if mime.startswith(VEGA)), None)
    if isinstance(chart, Mapping):
        return Chart(chart).drawn
    for mime in PICTURES:
        if mime in data:
            return parts.picture(base64.b64decode(_text(data[mime])), alt=plain)
    if "image/svg+xml" in data:
        return parts.picture(_text(data["image/svg+xml"]).encode(), alt=plain)
    if PLOTLY in data:
        note = "a Plotly figure: interactive in the notebook, a picture here where its renderer makes one (png, svg)"
        return Drawn(html=tag("p", note, cls="nbflow-note"), text=f"[{note}]")
    if "text/html" in data:
        markup = sanitize.clean(_text(data["text/html"]))
        if sanitize.words(markup) or "<img" in markup:
            return Drawn(html=tag("div", markup, cls="nbflow-html"), text=plain)
    if "text/markdown" in data:
        return Markdown(_text(data["text/markdown"])).drawn
    if "application/json" in data:
        return JSON(data["application/json"]).drawn
    other = "" if plain else f"[{', '.join(data)}]"
    return Drawn(html=tag("pre", sanitize.coloured(plain or other)), text=sanitize.plain(plain or other))


def _text(value: Any) -> str:
    return (
        "".join(map(str, value))
        if isinstance(value, list | tuple)
        else value
        if isinstance(value, str)
        else json.dumps(value)
    )


def displayed(outputs: Iterable[Mapping[str, Any]], made: Mapping[str, str]) -> list[Drawn]:
    """Return the cards that a task's code made and what it displayed, without what it printed."""
    cards = [_named(name, body) for name, body in made.items()]
    displays = [output for output in outputs if output.get("output_type") in ("display_data", "execute_result")]
    return [*cards, *(part for output in displays if (part := output_part(output)) is not None)]


def _named(name: str, body: str) -> Drawn:
    drawn = Drawn(html=body, text=text_of_body(body))
    return parts.section(name, [drawn]) if name else drawn


def made_cards(outputs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the bodies of the cards that a task's code made, by name."""
    bodies: dict[str, str] = {}
    for output in outputs:
        card = (output.get("data") or {}).get(MIME)
        if isinstance(card, Mapping) and isinstance(card.get("html"), str):
            bodies[str(card.get("name") or "")] = body_of(card["html"])
    return bodies
