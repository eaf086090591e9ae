"""Cards: what a task shows of itself, as one page without any script but ours; components, documents, bundles. Pure."""

from __future__ import annotations

import base64
import hashlib
import html as escaping
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nbflow import card_parts as parts
from nbflow.card_parts import (
    JSON,
    Artifact,
    Chart,
    Code,
    Component,
    Drawn,
    Error,
    Image,
    Markdown,
    Progress,
    Section,
    Table,
    Timeline,
    ValueBox,
)
from nbflow.model import Artifact as Manifest
from nbflow.model import Frozen, Index, Reason, TaskFailure, TaskState
from nbflow.render import html, preview, safe
from nbflow.render.card_style import SCRIPT, STYLE
from nbflow.render.card_table import grid_of
from nbflow.render.html import Html, tag

__all__ = [
    "JSON", "Artifact", "Card", "Chart", "Code", "Component", "Error", "Image", "Markdown", "Progress", "Section",
    "Table", "TaskSeen", "Template", "Timeline", "ValueBox",
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

    @property
    def name(self) -> str:
        """The task as people read it: `train`, `train/2`."""
        return f"{self.label}/{preview.index(self.index)}" if self.index else self.label


class Template(Protocol):
    """How else a task may be shown; plugs in under the entry point `nbflow.cards`."""

    def render(self, task_view: TaskSeen) -> Iterable[object]:
        """A task in; the parts of its card, or anything that a card takes, out."""


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
        """What a notebook shows, by MIME type; `live`: it will be drawn again soon, so nothing is loaded anew."""
        if live:
            return {"text/html": str(inline(self.title, self._subtitle, self.body)), "text/plain": self.text}
        page = self.html
        height = _height(self._drawn)
        data = {"version": VERSION, "title": self.title, "name": self.name, "step": self.step, "run": self.run}
        shown = framed(page, self.text, height)
        return {MIME: {**data, "height": height, "html": page}, "text/html": str(shown), "text/plain": self.text}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return self.bundle()

    def __repr__(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


def within(drawn: Iterable[Drawn], room: int = LARGEST) -> tuple[Drawn, ...]:
    """Parts in; those that a card has room for, and a notice of the others, out."""
    kept: list[Drawn] = []
    left_out = 0
    for part in drawn:
        if len(part.html) > room or left_out:
            left_out += 1
            continue
        room -= len(part.html)
        kept.append(part)
    if left_out:
        note = f"{left_out} more part{'s' if left_out > 1 else ''} left out: a card may take {preview.size(LARGEST)}"
        kept.append(Drawn(html=tag("p", note, cls="nbflow-note"), text=f"[{note}]"))
    return tuple(kept)


# ---------------------------------------------------------------- pages


def _policy() -> str:
    """What a card may do: show pictures that it holds, and run the one script that tells its height."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def document(title: str, subtitle: str, body: str) -> str:
    """A title and HTML made by this package in; a page that works alone, offline and in a sandbox, out."""
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
    told = tag("span", subtitle, cls="nbflow-dim") if subtitle else ""
    return tag("div", tag("b", title), " ", told, cls="nbflow-head")


def body_of(page: str) -> str:
    """A page or block of this package in; the HTML of its parts out, empty for any other HTML."""
    begin, end = page.find(BEGIN), page.rfind(END)
    return page[begin + len(BEGIN) : end] if 0 <= begin < end else ""


def inline(title: str, subtitle: str, body: str) -> str:
    """The same as a block of the notebook's own page, which can be replaced without a flicker: it has no script."""
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
    """A page, its text and a guess at its height in; it in a frame of its own origin out.

    Where a notebook is not trusted frames are taken away, and the text in it shows.
    """
    return tag(
        "iframe", tag("pre", text), sandbox=SANDBOX, srcdoc=page, onload=LISTEN, title="nbflow card",
        style=f"width:100%;height:{height}px;border:0;display:block",
    )  # fmt: skip


def _height(drawn: Sequence[Drawn]) -> int:
    """A card's parts in; about how many pixels they take out."""
    lines = sum(part.text.count("\n") + 2 for part in drawn)
    images = sum(part.html.count("<img ") for part in drawn)
    return min(900, 60 + 21 * lines + 320 * images)


# ---------------------------------------------------------------- the card that every task has


def default_parts(task: TaskSeen, made: Mapping[str, str] | None = None) -> list[Drawn]:
    """A task, and the bodies of cards that its code made, in; the parts of its own card out."""
    found = [_named(name, body) for name, body in (made or {}).items()]
    if task.failure is not None:
        told = preview.failure(task.failure)
        found.append(Error(told, task.failure.traceback).drawn)
    shown = [part for output in task.outputs if (part := output_part(output)) is not None]
    if shown:
        found.append(parts.section("Output", shown))
    found.append(parts.section("Task", [_facts(task)]))
    if task.parameters:
        rows = list(task.parameters.items())
        found.append(parts.section("Parameters", [parts.table(grid_of(rows))]))
    if task.inputs:
        found.append(parts.section("Inputs", [parts.artifacts(task.inputs, task.origins)]))
    if task.artifacts:
        found.append(parts.section("Artifacts", [parts.artifacts(task.artifacts)]))
    found.append(parts.section("Place in the flow", [_place(task)], opened=False))
    if task.source.strip():
        found.append(parts.section("Code", [Code(task.source.strip("\n")).drawn], opened=False))
    return found


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
    told = [(name, value) for name, value in facts.items() if value]
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in told]
    return Drawn(html=tag("table", tag("tbody", *rows), cls="nbflow-facts"), text="\n".join(preview.grid(told)))


def _place(task: TaskSeen) -> Drawn:
    above, below = ", ".join(task.above) or "nothing", ", ".join(task.below) or "nothing"
    told = tag("p", "reads from ", tag("b", above), "; read by ", tag("b", below))
    drawing = tag("div", Html(task.dag), cls="nbflow-scroll") if task.dag else ""
    return Drawn(html=html.join((told, drawing)), text=f"reads from {above}; read by {below}")


def text_of_body(body: str) -> str:
    """A card's HTML in; its text, for where nothing but text is shown, out."""
    lines = (line.strip() for line in safe.words(body.replace("</tr>", "\n").replace("</div>", "\n")).split("\n"))
    return "\n".join(" ".join(line.split()) for line in lines if line)


def output_part(output: Mapping[str, Any]) -> Drawn | None:
    """An nbformat output in; it as a part of a card out; None for what is a card itself, or nothing to see."""
    kind = output.get("output_type")
    if kind == "stream":
        text = _text(output.get("text")).rstrip("\n")
        return Drawn(html=tag("pre", safe.coloured(text)), text=safe.plain(text)) if text.strip() else None
    if kind == "error":
        trace = "\n".join(output.get("traceback") or ())
        return Error(f"{output.get('ename')}: {output.get('evalue')}", trace).drawn
    data = output.get("data") or {}
    return None if MIME in data or not data else parts.guarded(lambda: _displayed(data))


def shown_part(output: Mapping[str, Any]) -> Drawn | None:
    """The same for a page that has no other place for a card: one that the task's code shows is a part, too."""
    data = output.get("data") or {}
    body = body_of(str(data.get("text/html", ""))) if NAME in (output.get("metadata") or {}) else ""
    if MIME in data:
        body = body_of(str(data[MIME].get("html", "")))
    return _named(str((output.get("metadata") or {}).get(NAME, "")), body) if body else output_part(output)


VEGA = "application/vnd.vegalite."
PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def _displayed(data: Mapping[str, Any]) -> Drawn:
    """A MIME bundle in; the richest form that can do nothing but show out."""
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
        note = (
            "a Plotly figure: it moves in the notebook, and has a picture here where the renderer adds one (png, svg)"
        )
        return Drawn(html=tag("p", note, cls="nbflow-note"), text=f"[{note}]")
    if "text/html" in data:
        shown = safe.clean(_text(data["text/html"]))
        if safe.words(shown) or "<img" in shown:
            return Drawn(html=tag("div", shown, cls="nbflow-html"), text=plain)
    if "text/markdown" in data:
        return Markdown(_text(data["text/markdown"])).drawn
    if "application/json" in data:
        return JSON(data["application/json"]).drawn
    other = "" if plain else f"[{', '.join(data)}]"
    return Drawn(html=tag("pre", safe.coloured(plain or other)), text=safe.plain(plain or other))


def _text(value: Any) -> str:
    return (
        "".join(map(str, value))
        if isinstance(value, list | tuple)
        else value
        if isinstance(value, str)
        else json.dumps(value)
    )


def displayed(outputs: Iterable[Mapping[str, Any]], made: Mapping[str, str]) -> list[Drawn]:
    """A task's outputs and the bodies of its code's cards in; these and its displays, without what it printed, out."""
    found = [_named(name, body) for name, body in made.items()]
    shown = [output for output in outputs if output.get("output_type") in ("display_data", "execute_result")]
    return [*found, *(part for output in shown if (part := output_part(output)) is not None)]


def _named(name: str, body: str) -> Drawn:
    drawn = Drawn(html=body, text=text_of_body(body))
    return parts.section(name, [drawn]) if name else drawn


def made_cards(outputs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A task's outputs in; the bodies of the cards that its code made, by name, out."""
    found: dict[str, str] = {}
    for output in outputs:
        card = (output.get("data") or {}).get(MIME)
        if isinstance(card, Mapping) and isinstance(card.get("html"), str):
            found[str(card.get("name") or "")] = body_of(card["html"])
    return found
