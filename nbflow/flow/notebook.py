"""A document's text → its code cells, each understood as step, parameters, set-up, plain or control cell."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nbflow import jsonable
from nbflow.analysis.lines import Misplaced, header_line, header_of, misplaced_header
from nbflow.errors import NotebookError, OptionError
from nbflow.flow.config import parse_config, parse_values, with_values
from nbflow.flow.options import parse_header
from nbflow.flow.percent import flow_name, read_percent
from nbflow.flow.spans import with_spans
from nbflow.flow.tags import SKIPPED, Tags
from nbflow.model import Cell, Finding, Notebook
from nbflow.plain_files import read_text

CONTROL = re.compile(
    r"^(?:%flow\b|%(?:re)?load_ext\s+nbflow\b|%unload_ext\s+nbflow\b|[!%](?:pip3?|conda|mamba|uv)\b|!\S*python\S*\s+-m\s+pip\b)"
)
HALF = re.compile("[\ud800-\udfff]")
UNWRITABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of characters that a line of text cannot hold: controls, halves of pairs, line ends."""

REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make what stands after them read as something else."""

LONGEST_NAME = 255
_CELL_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


class RawCell(msgspec.Struct, frozen=True):
    """A code cell before it is understood, with the Markdown right above it."""

    id: str | None
    source: str
    tags: tuple[str, ...] = ()
    markdown: str = ""


def read_notebook(path: str | Path) -> Notebook:
    """Read an .ipynb or a percent-format .py; NotebookError where it cannot be read."""
    return with_spans(read_cells(path))


def read_cells(path: str | Path) -> Notebook:
    """Read a notebook as `read_notebook` does, each cell by itself: which of them are one step is not said yet."""
    place = Path(path)
    try:
        text = read_text(place)
    except FileNotFoundError:
        near = _others(place)
        raise NotebookError(
            f"there is no notebook {str(path)!r}",
            fix=f"in that folder: {', '.join(near[:5])}" if near else "check the path",
        ) from None
    except IsADirectoryError:
        raise NotebookError(f"{str(path)!r} is a folder", fix="name a notebook inside it") from None
    except UnicodeDecodeError:
        raise NotebookError(f"{str(path)!r} is not text in UTF-8", fix="save it as a notebook again") from None
    except OSError as error:
        raise NotebookError(f"{str(path)!r} cannot be read: {error.strerror}", fix="check its permissions") from None
    except ValueError:  # a NUL character: the shell hands none over, other programs may
        raise NotebookError(f"{str(path)!r} cannot be a path", fix="check it") from None
    return _parsed(text, name=place.stem, folder=str(place.resolve().parent), path=str(place.resolve()))


def _others(place: Path) -> list[str]:
    """Return the words for the notebooks of the folder that a path leads to."""
    try:
        return sorted(other.name for other in place.parent.iterdir() if other.suffix == (place.suffix or ".ipynb"))
    except OSError:
        return []


def parse_document(text: str, *, name: str, folder: str, path: str | None = None) -> Notebook:
    """Parse the text of an .ipynb (JSON) or of a percent-format .py."""
    return with_spans(_parsed(text, name=name, folder=folder, path=path))


def _parsed(text: str, *, name: str, folder: str, path: str | None) -> Notebook:
    if path is not None and path.endswith(".py"):
        name = flow_name(text) or name
        return separate_cells(parse_percent(text), name=name, folder=folder, path=path, document=text)
    document = read_document(text, path or name)
    own_name = _mapping(document["metadata"].get("nbflow")).get("flow")
    if own_name and not isinstance(own_name, str):
        raise NotebookError(
            f"{path or name}: `nbflow.flow` in its metadata is no text", fix="correct it, or take it out"
        )
    cells = _code_cells(document["cells"])
    return separate_cells(cells, name=own_name or name, folder=folder, path=path, document=text)


def read_document(text: str, where: str) -> dict[str, Any]:
    """Return the JSON of an .ipynb of any format in format 4, each cell's parts of the types that they should have.

    A part of another type counts as absent; NotebookError where there are no cells.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotebookError(
            f"{where} is not a notebook: {_json_problem(text, error)}", fix="open it in Jupyter and save it"
        ) from None
    if not isinstance(document, dict) or ("cells" not in document and "worksheets" not in document):
        raise NotebookError(f"{where} is JSON but not a notebook: it has no list of cells", fix="name an .ipynb file")
    if not isinstance(document.get("cells", []), list):
        raise NotebookError(f"{where} is not a notebook: its cells are no list", fix="open it in Jupyter and save it")
    written = document.get("nbformat")
    if written != 4:
        document = _upgrade(text, where)
    if isinstance(written, int) and written < 4:  # those that converting has made are others each time
        document["cells"] = [{key: part for key, part in cell.items() if key != "id"} for cell in document["cells"]]
    cells = [_cell_of(cell, where) for cell in document["cells"]]
    return {**document, "metadata": _mapping(document.get("metadata")), "cells": cells}


def _cell_of(cell: object, where: str) -> dict[str, Any]:
    if not isinstance(cell, dict):
        raise NotebookError(
            f"{where} holds a cell that is no cell: {str(cell)[:40]!r}", fix="open it in Jupyter and save it"
        )
    metadata = _mapping(cell.get("metadata"))
    tags = metadata.get("tags")
    if "tags" in metadata:
        words = [jsonable.text(tag) for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        metadata = {**metadata, "tags": words}
    kind = cell.get("cell_type")
    parts = {
        **cell, "metadata": metadata, "source": _text_of(cell.get("source")),
        "cell_type": kind if kind in ("code", "markdown") else "raw",
    }  # fmt: skip
    if not isinstance(cell.get("id", ""), str):
        del parts["id"]
    return parts


def _mapping(part: object) -> dict[str, Any]:
    """Return a part of a document, empty where it is no mapping: nothing of nbflow's is in it then."""
    return part if isinstance(part, dict) else {}


def _json_problem(text: str, error: Exception) -> str:
    if not text.strip():
        return "the file is empty"
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    return f"it is not JSON ({error})"


def _upgrade(text: str, where: str) -> dict[str, Any]:
    import nbformat

    try:
        return dict(nbformat.reads(text, as_version=4))  # type: ignore[no-untyped-call]
    except Exception as error:  # nbformat raises many kinds for documents that it cannot convert
        raise NotebookError(
            f"{where} has a notebook format that cannot be read: {jsonable.text(str(error))}",
            fix="save it with a current Jupyter",
        ) from None


def _code_cells(document: Iterable[Mapping[str, Any]]) -> list[RawCell]:
    cells: list[RawCell] = []
    above: list[str] = []
    for cell in document:
        if cell["cell_type"] == "markdown":
            above.append(jsonable.text(cell["source"]))
        elif cell["cell_type"] == "code":
            tags = tuple(cell["metadata"].get("tags", ()))
            cells.append(RawCell(cell.get("id"), cell["source"], tags, "\n\n".join(above)))
            above = []
    return cells


def _text_of(source: object) -> str:
    """Return a cell's source, a text or a list of lines in a document, as text; whatever else it is, as no text."""
    if isinstance(source, list):
        return "".join(each if isinstance(each, str) else str(each) for each in source)
    return source if isinstance(source, str) else "" if source is None else str(source)


def parse_percent(text: str) -> list[RawCell]:
    """Return the code cells of percent-format Python; Markdown cells' comment marks are taken off."""
    cells: list[RawCell] = []
    above: list[str] = []
    for cell in read_percent(text):
        if cell.kind == "markdown":
            above.append(cell.source)
        elif cell.kind == "code":
            cells.append(RawCell(cell.id, cell.source, cell.tags, "\n\n".join(above)))
            above = []
    return cells


def parse_cells(
    cells: Sequence[RawCell], *, name: str, folder: str, path: str | None = None, document: str = ""
) -> Notebook:
    """Return the Notebook of raw code cells in document order, with each cell's kind, options and body."""
    return with_spans(separate_cells(cells, name=name, folder=folder, path=path, document=document))


def separate_cells(
    cells: Sequence[RawCell], *, name: str, folder: str, path: str | None = None, document: str = ""
) -> Notebook:
    """Return what `parse_cells` does, each cell by itself: which of them are one step is not said yet."""
    check_flow_name(name)
    reading = _Reading(folder, Tags.over(raw.tags for raw in cells), frozenset(raw.id for raw in cells if raw.id))
    parsed = tuple(reading.read(raw, position) for position, raw in enumerate(cells, start=1))
    return Notebook(
        name=name, folder=folder, path=path, cells=parsed, findings=tuple(reading.findings), document=document
    )


def check_flow_name(name: str) -> str:
    """Return a flow's name; NotebookError where it cannot be written into a line, or would lead elsewhere.

    Letters and signs of every script may stand in it: joiners, wide and narrow spaces too, which are not printable.
    """
    bad = any(unicodedata.category(each) in UNWRITABLE or each in REORDERING or each in "/\\" for each in name)
    if bad or not name.strip(". ") or len(name) > LONGEST_NAME:
        raise NotebookError(
            f"{name[:60]!r} cannot be a flow's name", fix="rename the file, or correct `nbflow.flow` in its metadata"
        )
    return name


class _Reading(msgspec.Struct):
    """What has been read so far, cell by cell in order."""

    folder: str
    tags: Tags
    given: frozenset[str]
    ids: set[str] = msgspec.field(default_factory=set)
    findings: list[Finding] = msgspec.field(default_factory=list)

    def read(self, raw: RawCell, position: int) -> Cell:
        identity = raw.id or ""
        if identity in self.ids or not _CELL_ID.match(identity):
            identity = str(position)
            while identity in self.ids or identity in self.given:  # another cell bears that number
                identity += "_"
        self.ids.add(identity)
        cell = Cell(id=identity, position=position, source=raw.source, kind="control", markdown=raw.markdown)
        try:
            return msgspec.structs.replace(cell, **self._understand(raw, identity))
        except OptionError as error:
            self.findings.append(_as_finding(error, identity, header_line(raw.source)))
            return cell

    def _understand(self, raw: RawCell, identity: str) -> dict[str, Any]:
        """Return what a cell's text and tags say of it, as a Cell's fields; OptionError where they cannot be read."""
        if SKIPPED in raw.tags:
            return {}
        if (half := HALF.search(raw.source)) is not None:
            self.findings.append(_as_unwritable(raw.source, half, identity))
            return {}
        misplaced = misplaced_header(raw.source)
        if misplaced is not None:
            self.findings.append(_as_misplaced(misplaced, identity))
            return {}
        header, body = split_header(raw.source)
        body = without_control_lines(body)
        if header is None:
            return self._tagged(raw, identity, body)
        kind, rest = header
        if kind == "step":
            name, options = parse_header(rest, cell=identity)
            return {"kind": kind, "name": name, "options": self.tags.with_options(options, raw.tags), "body": body}
        if kind == "config":
            said = parse_config(rest)
            values = self._values(said.file) if said.file else {}
            return {"kind": "params", "body": with_values(said, body, values), "file": said.file}
        return {"kind": kind, "body": body}

    def _tagged(self, raw: RawCell, identity: str, body: str) -> dict[str, Any]:
        """Return the fields of a cell without a header: what its tags make of it, else a plain or an empty cell."""
        tagged = self.tags.read(raw.tags, identity, empty=not body.strip())
        if tagged.kind == "control":
            return {}
        if not tagged.kind and not body.strip():
            return {"kind": "control" if raw.source.strip() else "empty"}
        fields = {name: getattr(tagged, name) for name in ("options", "injected", "gathers")}
        return {**fields, "kind": tagged.kind or "plain", "name": tagged.name or None, "body": body}

    def _values(self, file: str) -> dict[str, Any]:
        """Return what a config's file holds now."""
        place = Path(self.folder) / file
        try:
            return parse_values(read_text(place), place.suffix)
        except OSError as error:
            raise OptionError(
                f"the config {file!r} cannot be read: {error.strerror}", fix=f"check its path, from {self.folder} on"
            ) from None
        except ImportError:
            raise OptionError(
                "reading YAML needs the package pyyaml", fix="pip install pyyaml, or write TOML"
            ) from None
        except ValueError as error:
            raise OptionError(f"the config {file!r} cannot be understood: {error}", fix=f"correct {file}") from None


def split_header(source: str) -> tuple[tuple[str, str] | None, str]:
    """Return a cell's header as (kind, rest of the line), or None, and the source with all up to that line emptied."""
    lines = source.split("\n")
    header = header_of(lines)
    if header is None:
        return None, source
    return (header.kind, header.rest), "\n".join([*("" for _ in lines[: header.at + 1]), *lines[header.at + 1 :]])


def without_control_lines(source: str) -> str:
    """Return a cell's source with `%flow`, `%load_ext nbflow` and package installs emptied."""
    if (
        "flow" not in source
        and "pip" not in source
        and "conda" not in source
        and "mamba" not in source
        and "uv" not in source
    ):
        return source
    return "\n".join("" if CONTROL.match(line) else line for line in source.split("\n"))


def _as_finding(error: OptionError, cell: str, line: int) -> Finding:
    return Finding(
        code="option", message=error.message, level="error", step=error.step, cell=cell, line=line, fix=error.fix
    )


def _as_unwritable(source: str, half: re.Match[str], cell: str) -> Finding:
    line = source.count("\n", 0, half.start()) + 1
    return Finding(
        code="syntax", level="error", cell=cell, line=line,
        message=f"the cell holds half of a character (U+{ord(half[0]):04X}), which Python reads nowhere",
        fix="write the character anew",
    )  # fmt: skip


def _as_misplaced(misplaced: Misplaced, cell: str) -> Finding:
    return Finding(
        code="misplaced-header", level="error", cell=cell, line=misplaced.number,
        message=misplaced.why, fix=misplaced.fix,
    )  # fmt: skip


def document_of(cells: Iterable[tuple[str, str]], name: str) -> str:
    """Return the text of a notebook that holds cells of these ids and sources."""
    return json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "id": identity,
                    "metadata": {},
                    "source": source,
                    "outputs": [],
                    "execution_count": None,
                }
                for identity, source in cells
            ],
            "metadata": {"nbflow": {"flow": name}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )
