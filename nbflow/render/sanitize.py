"""HTML and coloured text of users → HTML that can do nothing but show: known elements and attributes, no script."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping

from nbflow.render.html import UNSHOWN, VOID, Html

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


RAW = {
    name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)
    for name in "script style textarea title iframe noembed noframes xmp".split()
}
"""Elements whose content is text up to their own end, whatever it holds."""

NAME = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)")
ATTRIBUTE = re.compile(r"[\s/]*+(?P<name>=?[^\s/>=]*+)(?:\s*+=\s*+(?P<value>\"[^\"]*+\"?|'[^']*+'?|[^\s>]*+))?+")


def clean(text: str) -> Html:
    """Return HTML of any origin without whatever could load, run or leave its place; it is always balanced.

    It takes time in proportion to the text, however broken that is, which `html.parser` does not promise.
    """
    cleaner = _Cleaner()
    at = 0
    while at < len(text):
        start = text.find("<", at)
        cleaner.take_text(text[at : start if start >= 0 else len(text)])
        at = _take_markup(cleaner, text, start) if start >= 0 else len(text)
    return cleaner.end()


def _take_markup(cleaner: _Cleaner, text: str, start: int) -> int:
    """Hand on what begins with `<` at a place, and return where it ends: what never ends, ends with the text."""
    found = NAME.match(text, start)
    if found is None:
        if text.startswith("<!--", start):
            return _behind(text, "-->", start + 2)
        if text.startswith(("<!", "<?", "</"), start):
            return _behind(text, ">", start)
        cleaner.take_text("<")
        return start + 1
    name, at = found[2].lower(), found.end()
    attributes: dict[str, str] = {}
    while at < len(text) and text[at] != ">":
        attribute = ATTRIBUTE.match(text, at)
        if attribute is None or attribute.end() == at:
            return len(text)
        at, value = attribute.end(), attribute["value"] or ""
        if value[:1] in ('"', "'") and (len(value) == 1 or value[-1] != value[0]):
            return len(text)
        plain_value = html.unescape(value[1:-1] if value[:1] in ('"', "'") else value)
        attributes.setdefault(attribute["name"].lower(), plain_value)
    if at >= len(text):
        return at
    if found[1]:
        cleaner.end_element(name)
        return at + 1
    is_closed = text[at - 1] == "/"
    cleaner.start_element(name, attributes)
    if is_closed and name not in HIDDEN:
        cleaner.end_element(name)
    elif name in RAW:
        end = RAW[name].search(text, at)
        return end.start() if end is not None else len(text)
    return at + 1


def _behind(text: str, mark: str, start: int) -> int:
    at = text.find(mark, start)
    return at + len(mark) if at >= 0 else len(text)


def words(text: str) -> str:
    """Return the text of HTML that people would read out."""
    return html.unescape(re.sub(r"<[^>]*>", " ", clean(text))).strip()


class _Cleaner:
    """What is left of elements and text, one after another."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._open: list[str] = []
        self._count: Counter[str] = Counter()  # of those that are open
        self._hidden: list[str] = []

    def start_element(self, tag: str, attributes: dict[str, str]) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.append(tag)
        elif tag in HIDDEN:
            self._hidden.append(tag)
        elif tag in SHOWN:
            kept = "".join(f' {name}="{html.escape(value)}"' for name, value in _attributes(tag, attributes).items())
            if tag == "img" and "src=" not in kept:
                return
            self._out.append(f"<{tag}{kept}>")
            if tag not in VOID:
                self._open.append(tag)
                self._count[tag] += 1

    def end_element(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        if not self._count[tag]:
            return
        last = ""
        while last != tag:
            last = self._open.pop()
            self._count[last] -= 1
            self._out.append(f"</{last}>")

    def take_text(self, data: str) -> None:
        if not self._hidden:
            self._out.append(html.escape(UNSHOWN.sub("", html.unescape(data)), quote=False))

    def end(self) -> Html:
        self._out += [f"</{tag}>" for tag in reversed(self._open)]
        self._open.clear()
        return Html("".join(self._out))


def _attributes(tag: str, attributes: Mapping[str, str]) -> dict[str, str]:
    """Return those of an element's attributes that stay."""
    harmless = {name: value for name, value in attributes.items() if name in ATTRIBUTES}
    style = _style(attributes.get("style", ""))
    if style:
        harmless["style"] = style
    if tag == "img" and IMAGE.fullmatch(attributes.get("src", "")):
        harmless["src"] = attributes["src"]
    if tag == "a" and LINK.match(attributes.get("href", "").strip()):
        harmless |= {"href": attributes["href"].strip(), "target": "_blank", "rel": "noopener noreferrer"}
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

SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])"  # CSI: colours, movements, modes
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS and their like
    r"|\x1b[ -/]*.?", re.DOTALL,
)  # fmt: skip
"""What a terminal does not show but does: set the clipboard, the title, its answers to programs."""

CONTROL = re.compile(r"[\x00-\x07\x0b-\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
"""Characters that a terminal does not show either, without the ends of lines, tabs, backspaces and the escape."""

COLOUR = re.compile(r"(?:\d{0,3}[;:]){0,15}\d{0,3}")
"""The numbers of a colour, as many and as long as there are any."""

COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def for_terminal(text: str) -> str:
    """Return text from a store or a notebook as a terminal may be given it: of all that is not shown only colours."""
    if text.isprintable():
        return text
    kept = SEQUENCE.sub(lambda found: found[0] if _is_colour(found) else "", text)
    return CONTROL.sub("", kept) if CONTROL.search(kept) else kept


def _is_colour(found: re.Match[str]) -> bool:
    return found[2] == "m" and found[0].startswith("\x1b") and COLOUR.fullmatch(found[1]) is not None


def plain(text: str) -> str:
    """Return text for a terminal without colours and movements, and of overwritten lines the last state."""
    return CONTROL.sub("", overwritten(SEQUENCE.sub("", text)))


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
        if _is_colour(sequence):
            classes = _classes(sequence[1] or "0", classes)
    parts.append(_span(text[at:], classes))
    return Html("".join(parts))


def _span(text: str, classes: tuple[str, ...]) -> str:
    escaped = html.escape(UNSHOWN.sub("", text), quote=False)
    return f'<span class="{" ".join(classes)}">{escaped}</span>' if classes and text else escaped


def _classes(codes: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that hold after a code such as `1;31`; `before` are those so far."""
    colour = next((name for name in before if name.endswith("-fg")), "")
    bold = "ansi-bold" in before
    numbers = [int(code or 0) for code in re.split("[;:]", codes)]
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
