"""A cell's lines: which one is its header, which are IPython's own, which begin within a string. Pure."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

HeaderKind = Literal["step", "params", "config", "setup"]
LINE_MAGIC = re.compile(r"^\s*(?:%\w|!|\?{1,2}\s*\w|[A-Za-z_][\w.]*\?{1,2}\s*$|[A-Za-z_][\w, ]*\s*=\s*(?:!|%[A-Za-z]))")
MISPLACED = "misplaced"
"""What stands in a header's place for a cell whose header is where none may be."""

PYTHON_CELL_MAGICS = frozenset("time timeit capture prun".split())
"""Cell magics whose body is Python, which IPython reads as it reads a cell."""

_HEADER = re.compile(r"^(?P<mark>#\s*)?%%(?P<kind>step|params|config|setup)(?![\w?])[ \t]*(?P<rest>.*)$")
_LIKE_A_HEADER = re.compile(r"^\s*(?:%%?(?:step|params|setup)|%%config)(?![\w?])")  # `%config` is IPython's own
_COMMENTED = re.compile(r"^#\s*%%(?:(?:step|config)[ \t]+\S+(?:[ \t]+--.*)?|params|config|setup)\s*$")
"""A comment below code that is meant as a header, and no sentence that begins with the word."""


class Header(msgspec.Struct, frozen=True):
    """A line that says what its cell is: its place among the lines from 0, and what it says."""

    at: int
    kind: HeaderKind
    rest: str
    line: str


class Misplaced(msgspec.Struct, frozen=True):
    """A line that looks like a header and stands where none may be: its number from 1, why it is none, what to do."""

    number: int
    why: str
    fix: str


def is_header(line: str) -> bool:
    """Return whether a line is a header by itself; a comment counts too."""
    return _HEADER.match(line.rstrip()) is not None


def header_of(lines: Sequence[str]) -> Header | None:
    """Return a cell's header, or None; only empty lines and comments may stand above it.

    Where both forms are there, `%%step` counts and not `# %%step`, which may be what it was before.
    """
    commented: Header | None = None
    for at, line in enumerate(lines):
        text = line.rstrip()
        match = _HEADER.match(text)
        if match is not None:
            header = Header(at, match["kind"], _without_comment(match["rest"]), text)  # type: ignore[arg-type]  # one of these words
            if match["mark"] is None:
                return header
            commented = commented or header
        elif text and not text.lstrip().startswith("#"):
            break
    return commented


def _without_comment(text: str) -> str:
    """Return what stands before a comment behind a header's words; a `#` in quotes begins none."""
    for at, char in outside_quotes(text):
        if char == "#" and (at == 0 or text[at - 1].isspace()):
            return text[:at].rstrip()
    return text


def outside_quotes(text: str) -> Iterator[tuple[int, str]]:
    """Yield the characters of a header's words that stand outside quotes, with their places."""
    quote, skip = "", False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            yield at, char


def header_line(source: str) -> int:
    """Return the number of the line that holds a cell's header; 1 where it has none."""
    header = header_of(source.split("\n"))
    return header.at + 1 if header is not None else 1


def misplaced_header(source: str) -> Misplaced | None:
    """Return the first line of a cell that is meant as a header and stands where it would be none, or None.

    Lines within a string are text, and so is the body of a cell magic of another language (`%%writefile`). Above code
    `# %%step old` is a comment where the cell has a header; below code it is where a step was meant to begin.
    """
    if not any(word in source for word in ("%step", "%params", "%%config", "%setup")):
        return None
    lines = source.split("\n")
    header = header_of(lines)
    if _is_foreign(lines, header):
        return None
    code = False
    for at, line in enumerate(lines):
        text = line.strip()
        if not text or (header is not None and at == header.at):
            continue
        meant = _LIKE_A_HEADER.match(line) or (code and _COMMENTED.match(line))
        if meant and not _is_within(lines, at):
            return _explained(text, at + 1, header, code=code)
        code = code or not text.startswith("#")
    return None


def _is_foreign(lines: Sequence[str], header: Header | None) -> bool:
    """Return whether a cell magic makes the cell's lines something else than Python."""
    rest = lines[header.at + 1 :] if header is not None else lines
    first = next((line for line in rest if line.strip()), "")
    magic = re.match(r"%%(\w+)", first)
    return magic is not None and magic[1] not in PYTHON_CELL_MAGICS and not is_header(first)


def _explained(text: str, number: int, header: Header | None, *, code: bool) -> Misplaced:
    words = text.lstrip("# ")
    apart = f"put `{words}` and what belongs to it into a cell of its own"
    if text.startswith("#"):
        apart += "; in a .py file a line `# %%` begins one"
    if re.match(r"%\w", text):
        return Misplaced(number, f"`{text}` is no header", f"write `%{text}`, at the top of its cell")
    if header is not None:
        return Misplaced(number, f"`{words}` stands below `{header.line.lstrip('# ')}`: a cell has one header", apart)
    if not code:
        return Misplaced(number, f"`{words}` is indented", "write it at the beginning of its line")
    why = f"`{words}` stands below code: only empty lines and comments may be above it"
    return Misplaced(number, why, f"move it to the top, or {apart}")


def _is_within(lines: Sequence[str], at: int) -> bool:
    """Return whether a line that looks like a header is text within a string, or goes on with a statement."""
    if lines[at].startswith("#"):
        return at + 1 in parsed_texts([_as_code(line) for line in lines])[0]
    for in_blocks in (True, False):
        rest = [line if number == at else _masked(_as_code(line), in_blocks) for number, line in enumerate(lines)]
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            ast.parse("\n".join(rest))
            return True
    return False


def _as_code(line: str) -> str:
    """Return a line as it is, and `pass` for one that looks like a header, so that the rest can be parsed."""
    return f"{line[: len(line) - len(line.lstrip())]}pass" if _LIKE_A_HEADER.match(line) or line[:2] == "%%" else line


def parsed_texts(lines: Sequence[str]) -> tuple[frozenset[int], bool]:
    """Return the numbers, from 1, of the lines that begin within a string, and whether all lines are Python."""
    for candidate in (lines, [_masked(line, True) for line in lines], [_masked(line, False) for line in lines]):
        try:
            tree = ast.parse("\n".join(candidate))
        except (SyntaxError, ValueError, RecursionError):
            continue
        inside = (
            range(node.lineno + 1, node.end_lineno + 1)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno and node.end_lineno > node.lineno
        )
        return frozenset(number for numbers in inside for number in numbers), candidate is lines
    return frozenset(), False


def _masked(line: str, in_blocks: bool) -> str:
    """Return `pass` for a line that is IPython's, within a block only when asked; any other line as it is."""
    indent = line[: len(line) - len(line.lstrip())]
    return f"{indent}pass" if (in_blocks or not indent) and LINE_MAGIC.match(line) else line
