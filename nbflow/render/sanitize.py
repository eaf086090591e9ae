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
    """Return HTML of any origin without whatever could load, run or leave its place; it is always balanced."""
    parser = _Cleaner()
    parser.feed(text)
    parser.close()
    return parser.end()


def words(text: str) -> str:
    """Return the text of HTML that people would read out."""
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
            attributes = "".join(
                f' {name}="{html.escape(value)}"' for name, value in _attributes(tag, dict(attrs)).items()
            )
            if tag == "img" and "src=" not in attributes:
                return
            self._out.append(f"<{tag}{attributes}>")
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


def _attributes(tag: str, attributes: dict[str, str | None]) -> dict[str, str]:
    """Return those of an element's attributes that stay."""
    harmless = {name: value or "" for name, value in attributes.items() if name in ATTRIBUTES}
    style = _style(attributes.get("style") or "")
    if style:
        harmless["style"] = style
    if tag == "img" and IMAGE.fullmatch(attributes.get("src") or ""):
        harmless["src"] = attributes["src"] or ""
    if tag == "a" and LINK.match((attributes.get("href") or "").strip()):
        harmless |= {"href": (attributes["href"] or "").strip(), "target": "_blank", "rel": "noopener noreferrer"}
    return harmless


def _style(text: str) -> str:
    """Return the harmless declarations of a style attribute."""
    harmless = []
    for declaration in text.split(";"):
        name, _, value = declaration.partition(":")
        if name.strip().lower() in STYLES and SAFE_VALUE.fullmatch(value):
            harmless.append(f"{name.strip()}:{value.strip()}")
    return ";".join(harmless)


# ---------------------------------------------------------------- text with colours

SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.?")
COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def plain(text: str) -> str:
    """Return text for a terminal without colours and movements, and of overwritten lines the last state."""
    return overwritten(SEQUENCE.sub("", text))


def overwritten(text: str) -> str:
    """Return what a terminal would show in the end of text with carriage returns and backspaces."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        last = next((part for part in reversed(line.split("\r")) if SEQUENCE.sub("", part)), "")
        lines.append(_rubbed_out(last) if "\b" in last else last)
    return "\n".join(lines)


def _rubbed_out(line: str) -> str:
    """Return a line without backspaces, and without what stands before each."""
    chars: list[str] = []
    for char in line:
        if char != "\b":
            chars.append(char)
        elif chars:
            chars.pop()
    return "".join(chars)


def coloured(text: str) -> Html:
    """Return text for a terminal as HTML with its colours as JupyterLab's classes."""
    parts: list[str] = []
    classes: tuple[str, ...] = ()
    at = 0
    text = overwritten(text)
    for sequence in SEQUENCE.finditer(text):
        parts.append(_span(text[at : sequence.start()], classes))
        at = sequence.end()
        if sequence[2] == "m":
            classes = _classes(sequence[1] or "0", classes)
    parts.append(_span(text[at:], classes))
    return Html("".join(parts))


def _span(text: str, classes: tuple[str, ...]) -> str:
    escaped = html.escape(text, quote=False)
    return f'<span class="{" ".join(classes)}">{escaped}</span>' if classes and text else escaped


def _classes(codes: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that hold after a code such as `1;31`; `before` are those so far."""
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
