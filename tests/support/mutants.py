"""Notebooks, sources, lines of options and cards that nobody would write: good ones changed at random.

python -m tests.support.mutants 5000 [SEED]     # checks, flows, plans and cards; lists what raised anything else
"""

from __future__ import annotations

import copy
import html
import json
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nbflow.analysis.cell import analyse
from nbflow.errors import NbflowError
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import parse_document
from nbflow.flow.options import OPTIONS
from nbflow.jsonable import readable
from nbflow.render import cards, sanitize
from nbflow.render.components import Drawn
from nbflow.runs.launch import Executors, plan_flow
from nbflow.runs.run_options import RunOptions

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**30, "", " ", "x" * 300, "\ud800", "\x00", "\ufeff", "a\nb", [], [1], [[["a"]]], {},
    {"a": {"b": None}}, "%", "%%", "!", "?", "%%step", "%%step a", "%%step a --", "%%params", "..", "/", "ш" * 90,
)  # fmt: skip
TOKENS = (
    "x", "y", "df", "inputs", "lambda", "def f(", "class C(", "):", "\n", "\n    ", "(", ")", "[", "]", "{", "}", "=",
    ":=", "==", "+", "-", "*", "**", "@", ",", ":", ";", ".", "...", "->", "'", '"', "'''", 'f"', "{x!r:>{y}}", "\\",
    "#", "%", "%%", "%%step a", "%%step b --foreach x in y", "%%params\n", "%%setup\n", "%time ", "!ls", "?x", "x?",
    "import ", "from x import *", "from . import y", "as ", "with ", "for ", "in ", "while ", "if ", "else:", "try:",
    "except* E:", "match x:", "case {**y}:", "async ", "await ", "yield ", "return ", "global x", "nonlocal y", "del ",
    "raise ", "assert ", "type X[T] = ", "pass", "break", "0x", "1_", "1e999", "0777", "\t", "\f", "\r", "\x00", "é",
    "变", "\u2028", "\ud800", "\ufeff", "__import__('os')", "exec(", "globals()[", "locals()", "eval(", "__class__",
    "--after a", "--join b", "--if x", "--until ", "--secret K", "--retry 99999999999999999999", "--timeout 1e999h",
)  # fmt: skip
SOURCES = (
    "import os\nimport numpy as np", "%%params\nlr: float = 0.1\nn: int = 3",
    "%%step load\nrows = [{'k': i, 'v': i * lr} for i in range(n)]", "scale = max(r['v'] for r in rows)",
    "%%step each --foreach r in rows --retry 2\ndef work(r, *, by=scale):\n    return r['v'] / by\nout = work(r)",
    "%%step all --join each\ntotal = sum(i.out for i in inputs)", "class Box:\n    items: list = []\n\nbox = Box()",
    "%%step last --if total > 0 --after load\nbox.items.append(total)\nwith open('x.txt') as f:\n    text = f.read()",
    "%matplotlib inline\n!ls", "try:\n    import zlib as z\nexcept ImportError:\n    z = None\nprint(z)",
)  # fmt: skip


MARKUP = (
    "<script>ran()</script>", "<img src=x onerror=ran()>", "<svg onload=ran()>", "<svg><style>", "<math><mtext>",
    "<style>", "</style>", "</script>", "<iframe srcdoc='<script>parent.ran()</script>'>", "<a href=javascript:ran()>",
    "<a href='", "<a href=' java\tscript:ran()'>", "<meta http-equiv=refresh content='0;url=http://far.test/'>",
    "<base href=//far.test/>", "<form action=http://far.test/><button autofocus onfocus=ran()>",
    "<link rel=stylesheet href=http://far.test/>", "<!--", "-->", "--!>", "<![CDATA[", "]]>", "<?php",
    "<!doctype html>", '<p title="', "<p style='background:url(//far.test)'>", "<p style='color:expression(ran())'>",
    "<b ", "</b", "/>", "<", ">", "=", "'", '"', "`", "&lt;script&gt;", "&#60;", "&#x3c", "&amp;lt;",
    "<table><tr><td>", "</table>", "<template>", "<noscript><p title='</noscript><img src=x onerror=ran()>'>",
    "<textarea>", "<title>", "<plaintext>", "<xmp>", "<object data=data:text/html,x>", "<embed src=x>",
    "<video onerror=ran()>", "<details open ontoggle=ran()>", "<input autofocus onfocus=ran()>",
    "<img src='data:image/png;base64,iVBO'>", "<img src=data:image/svg+xml;base64,PHN2Zy8+ onload=ran()>",
    "<IMG SRC=JaVaScRiPt:ran()>", "<a\x00b>", "<scr\x00ipt>", "\x00", "\u2028", "\ud800", "<ſcript>",
    "<p onclick\n=ran()>", "<p/onclick=ran()>", "words", " ", "\n", "$x_1$", "[a](", "](javascript:ran())",
    "![x](http://far.test/x.png)", "```", "# head", "| a | b |\n|---|---|\n", "* ", "> ", "\x1b[31m",
    "\x1b]8;;http://far.test\x07", "\x1b[38;5;", "m", "9" * 300, "\r", "\b", "<b>" * 200, "</p>" * 50,
)  # fmt: skip
"""What cards are made of that were made to harm: pieces of HTML, Markdown and of what terminals hear."""


def _document(sources: tuple[str, ...] = SOURCES) -> dict[str, Any]:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": "head", "metadata": {}, "source": ["# Title\n", "text"]}
    ]
    for at, source in enumerate(sources):
        cells.append({
            "cell_type": "code", "id": f"c{at}", "metadata": {"tags": ["a"]}, "execution_count": None, "outputs": [],
            "source": source.splitlines(keepends=True) if at % 2 else source,
        })  # fmt: skip
    return {
        "cells": cells,
        "metadata": {"kernelspec": {"name": "python3"}, "nbflow": {}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def sources(seed: int) -> Iterator[str]:
    """Yield texts without an end: tokens, bytes and cells that were cut, joined and changed."""
    chance = random.Random(seed)
    while True:
        kind = chance.randrange(5)
        if kind == 0:
            yield "".join(chance.choices(TOKENS, k=chance.randrange(1, 25)))
        elif kind == 1:
            yield "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(40)))
        elif kind == 2:
            yield bytes(chance.randrange(256) for _ in range(chance.randrange(60))).decode("latin-1")
        elif kind == 3:
            opening = chance.choice(["(", "[", "{", "-", "not ", "f(", "lambda: ", "x[", "if x:\n ", "'", "x.", "{1:"])
            yield "x = " * chance.randrange(2) + opening * chance.choice([3, 60, 120, 900, 30_000])
        else:
            yield changed(chance.choice(SOURCES), chance)


def changed(source: str, chance: random.Random) -> str:
    """Return a text with some of its parts left out, doubled or replaced."""
    for _ in range(chance.randrange(1, 5)):
        at, end = sorted((chance.randrange(len(source) + 1), chance.randrange(len(source) + 1)))
        part = chance.choice(["", "", *chance.choices(TOKENS, k=3), source[at:end] * 2])
        source = source[:at] + part + (source[end:] if chance.random() < 0.4 else source[at:])
    return source[:4000]


def headers(seed: int) -> Iterator[str]:
    """Yield cells without an end that begin with a line of options, most of them with values that are none."""
    chance = random.Random(seed)
    words = [f"--{name}" for name in OPTIONS]
    values = [
        *(each for each in ODD if isinstance(each, str)),
        *TOKENS,
        "a",
        "x in y",
        "2",
        "1h",
        "'",
        "a,b",
        "{n}",
        "4G",
    ]
    while True:
        line = " ".join(chance.choice(chance.choice([words, values])) for _ in range(chance.randrange(8)))
        opening = chance.choice(
            ["%%step a ", "%%step ", "# %%step b ", "%%params ", "%%config c ", "%%setup ", "%%step"]
        )
        yield f"{opening}{line}\n{chance.choice(SOURCES)}"


def markup(seed: int) -> Iterator[str]:
    """Yield HTML without an end that no browser was meant to be given."""
    chance = random.Random(seed)
    while True:
        yield "".join(chance.choices(MARKUP, k=chance.randrange(1, 20)))


def documents(seed: int) -> Iterator[str]:
    """Yield texts of notebooks without an end: their JSON's structure or their cells changed, or the text itself."""
    chance = random.Random(seed)
    while True:
        document = _document()
        for _ in range(chance.randrange(1, 4)):
            _change(document, chance)
        text = json.dumps(document)
        if chance.random() < 0.1:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(["", "\x00", "}", "[", '"', text[:at]]) + text[at + chance.randrange(3) :]
        yield text


def _change(document: dict[str, Any], chance: random.Random) -> None:
    holders: list[Any] = []
    waiting: list[Any] = [document]
    while waiting:
        found = waiting.pop()
        if found:
            holders.append(found)
            waiting += [
                each for each in (found.values() if isinstance(found, dict) else found) if isinstance(each, dict | list)
            ]
    holder = chance.choice(holders)
    key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    value = holder[key]
    if isinstance(value, str) and chance.random() < 0.5:
        holder[key] = changed(value, chance)
    elif isinstance(value, dict) and chance.random() < 0.3:
        holder[key] = {**value, chance.choice(["tags", "id", "source", "nbflow", "flow", "cells"]): chance.choice(ODD)}
    elif isinstance(value, list) and value and chance.random() < 0.6:
        value.insert(chance.randrange(len(value) + 1), copy.deepcopy(chance.choice([*value, *ODD])))
    elif chance.random() < 0.3:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(chance.choice(ODD))


# ---------------------------------------------------------------- what has to hold for each


def understand(text: str, folder: Path) -> None:
    """Check a notebook, make a flow of it and plan it, as the commands do."""
    notebook = parse_document(text, name="mutant", folder=str(folder))
    build_flow(notebook, all_cells=True)
    flow = build_flow(notebook)
    for finding in flow.findings:
        assert finding.message
        finding.message.encode()
    if flow.steps and not any(finding.level == "error" for finding in flow.findings):
        with Executors() as executors:
            plan_flow(flow, RunOptions(store=str(folder / "store")), executors)


TAG = re.compile(r"</?([a-z][a-z0-9]*)((?: [a-z-]+=\"[^\"<>]*\")*)>")
"""A tag as this package writes it: nothing of it can be read in two ways."""

OUTWARD = re.compile(r"(?:https?://|mailto:|#).*", re.IGNORECASE | re.DOTALL)
SENDING = frozenset({"srcdoc", "action", "formaction", "ping", "background"})
MIMES = ("text/html", "text/markdown", "text/plain", "image/svg+xml", "application/json", "image/png")


def drawn(text: str) -> list[Drawn]:
    """Return what cards make of a text, wherever on them it may stand."""
    outputs: list[dict[str, Any]] = [
        *({"output_type": "display_data", "data": {mime: text}, "metadata": {}} for mime in MIMES),
        {"output_type": "stream", "name": "stdout", "text": text},
        {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]},
    ]
    made: list[cards.Component] = [
        cards.HTML(text, title=text), cards.Markdown(text), cards.Table([{"a": text, text: 1}]),
        cards.JSON({text: [text]}), cards.Section(text, [text]), cards.ValueBox(text, text, text),
        cards.Code(text, text), cards.Progress(4, text, 1), cards.Error(ValueError(text)),
        cards.Timeline([(text, 0, 1)]), cards.Grid([text, text]), cards.YAML({text: [text]}),
    ]  # fmt: skip
    return [*(part for output in outputs if (part := cards.output_part(output))), *(each.drawn for each in made)]


def show_harmless(text: str) -> None:
    """See to it that what cards make of a text does nothing but show, however a browser reads it."""
    for part in drawn(text):
        see_harmless(part)
        readable(part.text).encode()
        readable(cards.document("t", "s", part.html)).encode()


def see_harmless(part: Drawn) -> None:
    """Raise AssertionError where a part of a card could do more than show."""
    for found in TAG.finditer(part.html):
        attributes = dict(re.findall(r' ([a-z-]+)="([^"]*)"', found[2]))
        assert found[1] in sanitize.SHOWN, found[0]
        assert not any(name.startswith("on") or name in SENDING for name in attributes), found[0]
        assert attributes.get("src", "data:image/").startswith("data:image/"), found[0]
        assert OUTWARD.fullmatch(html.unescape(attributes.get("href", "#"))), found[0]
        assert not re.search("url|expression", attributes.get("style", "")), found[0]
    assert "<" not in TAG.sub("", part.html), part.html


def broken_by(act: Callable[[str], object], text: str) -> str:
    """Return what an act on a text raised that is no message to its user, "" where all is well."""
    try:
        act(text)
    except NbflowError as error:
        "\n".join(error.report()).encode()
    except Exception:  # that is what is looked for
        return f"{text[:3000]!r}\n{traceback.format_exc()}"
    return ""


def change(count: int, seed: int) -> tuple[int, float]:
    """Try so many of each kind; return how many were broken, and the slowest's seconds."""
    bad, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        acts: tuple[tuple[Iterator[str], Callable[[str], object]], ...] = (
            (documents(seed), lambda text: understand(text, Path(folder))), (sources(seed), analyse),
            (headers(seed), lambda text: understand(json.dumps(_document((*SOURCES[:4], text))), Path(folder))),
            (markup(seed), show_harmless),
        )  # fmt: skip
        for made, act in acts:
            for _ in range(count):
                text = next(made)
                began = time.perf_counter()
                found = broken_by(act, text)
                slowest = max(slowest, time.perf_counter() - began)
                bad += bool(found)
                if found:
                    print(found, "\n", flush=True)
    return bad, slowest


if __name__ == "__main__":
    failed, longest = change(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"{failed} broken of {4 * int(sys.argv[1])}; the slowest took {longest:.2f} s")
    sys.exit(1 if failed else 0)
