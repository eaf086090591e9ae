"""HTML and coloured text of users → HTML that can do nothing but show: known elements and attributes, no script."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

from nbflow.render.html import VOID, Html

SHOWN = frozenset(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6"
    " hr i img ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u"
    " ul var".split()
)
"""Elements that stay; others are left out and what is in them stays."""

HIDDEN = frozenset(
    "script style iframe object template noscript svg math title head textarea select button form noembed noframes"
    " plaintext xmp video audio canvas applet".split()
)
"""Elements that are left out with all that is in them."""

ATTRIBUTES = frozenset("align alt colspan height lang open rowspan scope start title valign width".split())
STYLES = frozenset(
    "background-color border border-bottom border-left border-right border-top color font-size font-style font-weight"
    " padding text-align text-decoration vertical-align white-space width".split()
)
SAFE_VALUE = re.compile(r"(?:[\w\s.,%#+-]|(?:rgb|hsl)a?\([\d\s.,%/]+\))*")
IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*")
LINK = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)


def clean(text: str) -> Html:
    """HTML of any origin in; the same without whatever could load, run or leave its place out; always balanced."""
    parser = _Cleaner()
    parser.feed(text)
    parser.close()
    return parser.end()


def words(text: str) -> str:
    """HTML in; the text that people would read out."""
    return html.unescape(re.sub(r"<[^>]*>", " ", clean(text))).strip()


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.append(tag)
        elif tag in HIDDEN:
            self._hidden.append(tag)
        elif tag in SHOWN:
            kept = "".join(f' {name}="{html.escape(value)}"' for name, value in _attributes(tag, dict(attrs)).items())
            if tag == "img" and "src=" not in kept:
                return
            self._out.append(f"<{tag}{kept}>")
            if tag not in VOID:
                self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in HIDDEN:
            self.handle_starttag(tag, attrs)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        if tag not in self._open:
            return
        while self._open:
            last = self._open.pop()
            self._out.append(f"</{last}>")
            if last == tag:
                break

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._out.append(html.escape(data, quote=False))

    def end(self) -> Html:
        self._out += [f"</{tag}>" for tag in reversed(self._open)]
        self._open.clear()
        return Html("".join(self._out))


def _attributes(tag: str, given: dict[str, str | None]) -> dict[str, str]:
    """An element's name and attributes in; those that stay out."""
    kept = {name: value or "" for name, value in given.items() if name in ATTRIBUTES}
    style = _style(given.get("style") or "")
    if style:
        kept["style"] = style
    if tag == "img" and IMAGE.fullmatch(given.get("src") or ""):
        kept["src"] = given["src"] or ""
    if tag == "a" and LINK.match((given.get("href") or "").strip()):
        kept |= {"href": (given["href"] or "").strip(), "target": "_blank", "rel": "noopener noreferrer"}
    return kept


def _style(text: str) -> str:
    """A style attribute in; its harmless declarations out."""
    kept = []
    for declaration in text.split(";"):
        name, _, value = declaration.partition(":")
        if name.strip().lower() in STYLES and SAFE_VALUE.fullmatch(value):
            kept.append(f"{name.strip()}:{value.strip()}")
    return ";".join(kept)


# ---------------------------------------------------------------- text with colours

SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.?")
COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def plain(text: str) -> str:
    """Text for a terminal in; the same without colours and movements, and of overwritten lines the last state, out."""
    return overwritten(SEQUENCE.sub("", text))


def overwritten(text: str) -> str:
    """Text with carriage returns and backspaces in; what a terminal would show in the end out."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        last = next((part for part in reversed(line.split("\r")) if SEQUENCE.sub("", part)), "")
        lines.append(_rubbed_out(last) if "\b" in last else last)
    return "\n".join(lines)


def _rubbed_out(line: str) -> str:
    """A line with backspaces in; without them, and without what stands before each, out."""
    kept: list[str] = []
    for char in line:
        if char != "\b":
            kept.append(char)
        elif kept:
            kept.pop()
    return "".join(kept)


def coloured(text: str) -> Html:
    """Text for a terminal in; HTML with its colours as JupyterLab's classes out."""
    parts: list[str] = []
    classes: tuple[str, ...] = ()
    at = 0
    text = overwritten(text)
    for found in SEQUENCE.finditer(text):
        parts.append(_span(text[at : found.start()], classes))
        at = found.end()
        if found[2] == "m":
            classes = _classes(found[1] or "0", classes)
    parts.append(_span(text[at:], classes))
    return Html("".join(parts))


def _span(text: str, classes: tuple[str, ...]) -> str:
    shown = html.escape(text, quote=False)
    return f'<span class="{" ".join(classes)}">{shown}</span>' if classes and text else shown


def _classes(codes: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """`1;31` and the classes so far in; the classes from here on out."""
    colour = next((name for name in before if name.endswith("-fg")), "")
    bold = "ansi-bold" in before
    numbers = [int(code or 0) for code in codes.split(";")]
    while numbers:
        number = numbers.pop(0)
        if number == 0:
            colour, bold = "", False
        elif number in (1, 22):
            bold = number == 1
        elif number in (38, 48):
            del numbers[: 2 if numbers[:1] == [5] else 4]  # one of 256 colours, or any: the text stays as it is
        elif 30 <= number <= 37:
            colour = f"ansi-{COLOURS[number - 30]}-fg"
        elif 90 <= number <= 97:
            colour = f"ansi-{COLOURS[number - 90]}-intense-fg"
        elif number == 39:
            colour = ""
    return tuple(name for name in (colour, "ansi-bold" if bold else "") if name)
