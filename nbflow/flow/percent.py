"""Percent-format Python ↔ cells: markers, ids and tags; magics as comments, so that the file is valid Python."""

from __future__ import annotations

import json
import re

import msgspec

from nbflow.analysis.lines import LINE_MAGIC, PYTHON_CELL_MAGICS, header_of, is_header, parsed_texts

MARKER = re.compile(r"^# %%(?:\s+(?P<title>.*?))?(?P<kind>\[markdown\]|\[md\]|\[raw\])?\s*(?P<meta>(?:[\w-]+=.*)?)$")
ELSEWHERE = re.compile(
    r"^#\s*%%+(?!\w)(?P<title>.*?)(?P<kind>\[markdown\]|\[md\]|\[raw\])?\s*(?P<meta>(?:[\w-]+=.*)?)$"
    r"|^# (?:In ?\[[\d ]*\]:?|<codecell>|<markdowncell>)\s*$"
)
"""What begins a cell for VS Code, Spyder and nbconvert, too, in a file that has no header of Jupytext's."""

_CELL_MAGIC = re.compile(r"^%%\w")
_COMMENTED = re.compile(
    r"^(?:# )+(?=%{1,2}\w|!|\?{1,2}\s*\w|[A-Za-z_][\w.]*\?{1,2}\s*$|[A-Za-z_][\w, ]*\s*=\s*(?:!|%[A-Za-z]))"
)
_IN_BLOCK = re.compile(r"^(\s+)pass  # (.*)$")
_HEADER = re.compile(r"\A(?:# ---\n(?P<lines>(?:#.*\n)*?)# ---\n)")


class PercentCell(msgspec.Struct, frozen=True):
    """A cell of a percent-format file: its kind, id, tags and source as the notebook has it."""

    kind: str  # code, markdown, raw
    source: str
    id: str | None = None
    tags: tuple[str, ...] = ()


def read_percent(text: str) -> list[PercentCell]:
    """Return the cells of percent-format Python in order, Markdown and magics without their comment marks.

    Jupytext's header and cells that are active only in the script (`active-py`) are no cells; nor are empty cells
    without an id.
    """
    header = _HEADER.match(text)
    marker = MARKER if header is not None else ELSEWHERE
    text = text[header.end() :] if header is not None else text
    cells: list[PercentCell] = []
    kind, identity = "code", None
    tags: tuple[str, ...] = ()
    lines: list[str] = []
    for line in [*text.splitlines(), None]:
        match = None
        if line is not None:
            match = marker.match(line) if line.startswith("#") and not is_header(line) else None
            if match is None:
                lines.append(line)
                continue
        source = "\n".join(lines).strip("\n")
        if (source.strip() or identity is not None) and "active-py" not in tags:
            cells.append(PercentCell(kind, _uncommented(kind, source), identity, tags))
        if match is not None and line is not None:
            kind, identity, tags = _marker(match, line)
            lines = []
    return cells


def flow_name(text: str) -> str | None:
    """Return the name that the header of percent-format Python gives the flow, or None."""
    header = _HEADER.match(text)
    match = re.search(r"^#\s+nbflow:\s*\n#\s+flow:\s*(.+)$", header["lines"], re.MULTILINE) if header else None
    return match[1].strip().strip("\"'") if match else None


def _marker(match: re.Match[str], line: str) -> tuple[str, str | None, tuple[str, ...]]:
    mark = (match["kind"] or "") + (match["title"] or "")
    is_text = any(word in mark for word in ("[markdown]", "[md]")) or "<markdowncell>" in line
    kind = "markdown" if is_text else "raw" if "[raw]" in mark else "code"
    identity = re.search(r'\bid="([^"]*)"', line)
    labels = re.search(r"\btags=(\[[^\]]*\])", line)
    return kind, identity[1] if identity else None, _words(labels[1]) if labels else ()


def _words(labels: str) -> tuple[str, ...]:
    """Return a list of tags written as JSON; none where it is no such list."""
    try:
        return tuple(tag for tag in json.loads(labels) if isinstance(tag, str))
    except (ValueError, RecursionError):
        return ()


def _uncommented(kind: str, source: str) -> str:
    if kind == "code":
        return uncomment_magics(source)
    return "\n".join(re.sub(r"^# ?", "", line) for line in source.splitlines())


# ---------------------------------------------------------------- magics


def comment_magics(source: str) -> str:
    """Return a code cell's source as valid Python: header line, magics, `!` and `?` lines as comments."""
    lines = source.split("\n")
    header = header_of(lines)
    own = header.at if header is not None else -1
    if header is not None and not header.line.startswith("#"):
        lines[own] = f"# {header.line}"
    texts, is_python = parsed_texts(lines)
    at = _first(lines, own + 1)
    foreign = len(lines)
    if at is not None and _CELL_MAGIC.match(lines[at]) and _magic_name(lines[at]) not in PYTHON_CELL_MAGICS:
        texts, foreign = frozenset(), at
    return "\n".join([
        *(
            line if number == own or number + 1 in texts else _commented(line, is_python)
            for number, line in enumerate(lines[:foreign])
        ),
        *(f"# {line}".rstrip() for line in lines[foreign:]),
    ])  # fmt: skip


def uncomment_magics(source: str) -> str:
    """Return a cell's source from what `comment_magics` made of it. A `# %%step` header stays as it is.

    Below one that is commented out it would not be the header: there it becomes `%%step` again.
    """
    lines = source.split("\n")
    header = header_of(lines)
    if header is not None and any(is_header(line.removeprefix("# ")) for line in lines[: header.at]):
        lines[header.at] = header.line.lstrip("# ")
    texts = parsed_texts(lines)[0]
    at = _first(lines, header.at + 1 if header is not None else 0)
    foreign = len(lines)
    if at is not None and re.match(r"# %%\w", lines[at]) and not is_header(lines[at]):
        foreign = at if _magic_name(lines[at]) not in PYTHON_CELL_MAGICS else foreign
    return "\n".join([
        *(line if number in texts else _restored(line) for number, line in enumerate(lines[:foreign], start=1)),
        *(re.sub(r"^# ?", "", line) for line in lines[foreign:]),
    ])  # fmt: skip


def _magic_name(line: str) -> str:
    return re.split(r"\W", line.lstrip("# %"), maxsplit=1)[0]


def _first(lines: list[str], start: int = 0) -> int | None:
    return next((at for at in range(start, len(lines)) if lines[at].strip()), None)


def _commented(line: str, is_python: bool) -> str:
    """Return a line of IPython's as a comment; what looks like such a comment already gets one mark more."""
    if _COMMENTED.match(line):
        return f"# {line}"
    block = _IN_BLOCK.match(line)
    if block is not None and (LINE_MAGIC.match(block[2]) or _COMMENTED.match(block[2])):
        return f"{block[1]}pass  # # {block[2]}"
    if is_python or not (LINE_MAGIC.match(line) or _CELL_MAGIC.match(line)):
        return line
    inner = line.lstrip()
    indent = line[: len(line) - len(inner)]
    return f"{indent}pass  # {inner}" if indent else f"# {line}"


def _restored(line: str) -> str:
    block = _IN_BLOCK.match(line)
    if block is not None and LINE_MAGIC.match(block[2]):
        return block[1] + block[2]
    if block is not None and _COMMENTED.match(block[2]):
        return f"{block[1]}pass  # {block[2][2:]}"
    return line[2:] if _COMMENTED.match(line) and not is_header(line) else line
