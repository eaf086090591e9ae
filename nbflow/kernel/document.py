"""The notebook as the kernel knows it: which cells there are, in which order, and what was executed instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import msgspec

from nbflow.errors import NbflowError
from nbflow.flow.notebook import RawCell, document_of, read_cells, read_notebook, separate_cells, split_header
from nbflow.flow.options import parse_header
from nbflow.flow.spans import with_spans
from nbflow.model import Cell, Finding, Notebook

Origin = Literal["live", "file", "executed"]
ORIGINS: Mapping[Origin, str] = {
    "live": "the cells in the front end",
    "file": "the saved notebook",
    "executed": "the order in which cells were first executed",
}
"""Where the document order comes from, best first, as people read it."""

HALF = 0.5
"""The part of its cells by which a renamed notebook is known."""


class Executed(msgspec.Struct, frozen=True):
    """A cell's source as it was executed here, and the document's text for the cell at that time."""

    raw: RawCell
    document: str | None
    after: str | None  # the cell that was executed before it: where an unknown cell is put


class Document:
    """One kernel's notebook; `notebook()` is the same object until something changes."""

    def __init__(self, path: Path | None, folder: Path, *, in_order: bool = False) -> None:
        """Begin with a saved notebook, if any; `in_order`: a client that names no cells runs each of them once."""
        self.path = path
        self._in_order = in_order
        self.folder = folder
        self.problem = ""  # why the saved notebook cannot be used
        self._live: tuple[RawCell, ...] | None = None
        self._executed: dict[str, Executed] = {}
        self._last: str | None = None
        self._failed: set[str] = set()  # cells whose last execution has failed
        self._searched: frozenset[tuple[str, int]] = frozenset()  # files that were looked into for a renamed notebook
        self._stamp: tuple[int, int] | None = None
        self._saved: Notebook | None = None
        self._notebook: Notebook | None = None
        self._configs: dict[Path, tuple[int, int] | None] = {}  # files of %%config cells, as they were when read

    @property
    def origin(self) -> Origin:
        """Where the order comes from now."""
        if self._live is not None:
            return "live"
        return "file" if self._saved is not None else "executed"

    def follow(self, path: Path) -> None:
        """Use another saved notebook."""
        self.path, self._stamp, self._saved, self._notebook = path, None, None, None
        self.refresh()

    def update_live(self, cells: Iterable[RawCell]) -> None:
        """Take the front end's code cells, in order, as the document from now on."""
        live = tuple(cells)
        if live != self._live:
            self._live, self._notebook = live, None
            if self._saved is not None:
                self._follow_renamed({cell.id for cell in self._saved.cells})

    def refresh(self) -> None:
        """Read the saved notebook again where it, under its new name too, or a file of its configs has changed."""
        if self._configs != (now := {place: _stamp(place) for place in self._configs}):
            self._configs, self._stamp, self._notebook = now, None, None
        if self.path is None:
            return
        stamp = _stamp(self.path)
        if stamp is None:
            if self._follow_renamed(set()):
                return
            if self._stamp is not None or not self.problem:
                self.problem = f"{self.path} is not there"
                self._stamp, self._saved, self._notebook = None, None, None
            return
        if stamp == self._stamp:
            return
        self._stamp, self._notebook = stamp, None
        try:
            saved = read_cells(self.path)
        except NbflowError as error:
            # a save may be half done; what was read before still counts
            self.problem = error.message
            return
        if not self._follow_renamed({cell.id for cell in saved.cells}):
            self._saved, self.problem = saved, ""

    def _follow_renamed(self, there: AbstractSet[str]) -> bool:
        """Follow the notebook to its new name if none of its cells is among those that lie `there`, at its old one.

        JupyterLab asks for a name at the first save, and then makes another Untitled.ipynb: no kernel hears of it.
        """
        cells = self._cell_ids()
        if self.path is None or not cells or cells & there:
            return False
        others = [path for path in self.path.parent.glob("*.ipynb") if path != self.path]
        mark = frozenset((str(path), path.stat().st_mtime_ns) for path in others if path.exists())
        if mark == self._searched:
            return False
        self._searched = mark
        shares = {path: len(cells & _ids_in(path)) / len(cells) for path in others}
        path = max(shares, key=shares.__getitem__, default=None)
        if path is None or shares[path] < HALF:
            return False
        self.follow(path)
        return True

    def _cell_ids(self) -> frozenset[str]:
        """Return the ids of the notebook's cells as they are known best; none where cells bear no ids."""
        if self._live is not None:
            return frozenset(raw.id for raw in self._live if raw.id is not None)
        if self._saved is not None:
            return frozenset(cell.id for cell in self._saved.cells if cell.id != str(cell.position))
        return frozenset(name for name in self._executed if not name.isdigit())

    # ------------------------------------------------------------ executed cells

    def note(self, source: str, cell_id: str | None, tags: tuple[str, ...] = ()) -> str | None:
        """Note a cell that is about to run; return its id in the document, None for code that belongs to no cell."""
        self.refresh()
        notebook = self.notebook()
        known = {cell.id: cell for cell in notebook.cells}
        identity = cell_id if cell_id is not None else self._match(source, notebook)
        if identity is None and (self.origin == "executed" or split_header(source)[0] is not None):
            identity = self._new_id(known)
        if identity is None:
            return None
        cell = known.get(identity)
        if cell is None or cell.source != source:
            before = self._executed.get(identity)
            self._executed[identity] = Executed(
                RawCell(identity, source, tags),
                self._document_source(identity),
                before.after if before is not None else self._last,
            )
            self._notebook = None
        self._last = identity
        return identity

    def ended(self, identity: str, *, succeeded: bool) -> None:
        """Note how a cell has ended."""
        self._failed = self._failed - {identity} if succeeded else self._failed | {identity}

    def forget(self, identities: Iterable[str]) -> None:
        """Forget what was executed in cells that the user has deleted."""
        for identity in identities:
            if self._executed.pop(identity, None) is not None:
                self._notebook = None

    def _match(self, source: str, notebook: Notebook) -> str | None:
        """Return the cell that a source without an id belongs to: the same text, else the same step's name."""
        for cell in notebook.cells:
            if cell.source.strip() == source.strip():
                return cell.id
        header = split_header(source)[0]
        if header is None:
            return None
        name = _step_name(header[1]) if header[0] == "step" else None
        headers = ((cell, split_header(cell.source)[0]) for cell in notebook.cells if cell.name == name)
        alike = [cell for cell, said in headers if said is not None and said[0] == header[0]]
        if len(alike) != 1 or self._goes_on(alike[0], notebook):
            return None
        return alike[0].id

    def _goes_on(self, cell: Cell, notebook: Notebook) -> bool:
        """Return whether a cell of that step's name is its next one, not an edited one: of those that name no cells.

        Such clients (nbclient, papermill) run each cell once, in order; whoever mends a cell that failed runs it again.
        """
        if not (notebook.grows and self._in_order):
            return False
        steps = {each.name: each for each in notebook.cells if each.kind == "step"}
        last = first = next(reversed(steps.values()))
        while first.follows:
            first = steps[first.follows]
        return first.id == cell.id and last.id not in self._failed

    def _new_id(self, known: Mapping[str, Cell]) -> str:
        number = len(known) + 1
        while str(number) in known:
            number += 1
        return str(number)

    def _document_source(self, identity: str) -> str | None:
        if self._live is not None:
            return next((raw.source for raw in self._live if raw.id == identity), None)
        if self._saved is not None:
            return next((cell.source for cell in self._saved.cells if cell.id == identity), None)
        return None

    # ------------------------------------------------------------ the notebook

    def notebook(self) -> Notebook:
        """Return the notebook with what was executed in place of what is stored."""
        if self._notebook is None:
            self._notebook = self._assemble()
            places = (Path(self._notebook.folder) / cell.file for cell in self._notebook.cells if cell.file)
            self._configs = {place: _stamp(place) for place in places}
        return self._notebook

    def _assemble(self) -> Notebook:
        base = self._base()
        cells = list(base.cells)
        findings = list(base.findings)
        for identity, executed in list(self._executed.items()):
            at = next((at for at, cell in enumerate(cells) if cell.id == identity), None)
            if at is not None and not self._still_counts(identity, executed, cells[at]):
                del self._executed[identity]
                continue
            parsed = separate_cells([executed.raw], name=base.name, folder=base.folder)
            findings = [finding for finding in findings if finding.cell != identity] + list(parsed.findings)
            if at is not None:
                cells[at] = parsed.cells[0]
            else:
                place = len(cells) if self.origin == "executed" else _place(cells, executed.after)
                cells.insert(place, parsed.cells[0])
            if self.origin != "executed" and parsed.cells[0].kind != "control":  # `%flow` lines change no flow
                findings.append(_differs(identity, parsed.cells[0], known=at is not None))
        numbered = tuple(
            msgspec.structs.replace(cell, position=position) for position, cell in enumerate(cells, start=1)
        )
        notebook = msgspec.structs.replace(base, cells=numbered, findings=tuple(findings))
        return with_spans(notebook, between=not notebook.grows)

    def _base(self) -> Notebook:
        if self._live is not None:
            saved = self._saved
            return separate_cells(
                self._live,
                name=saved.name if saved else self._name(),
                folder=str(self.folder),
                path=str(self.path) if self.path else None,
            )
        if self._saved is not None:
            return self._saved
        return Notebook(name=self._name(), folder=str(self.folder), path=None, cells=(), grows=True)

    def _name(self) -> str:
        return self.path.stem if self.path is not None else "notebook"

    def _still_counts(self, identity: str, executed: Executed, cell: Cell) -> bool:
        """Return whether what was executed is newer than the document, which may have caught up or moved on."""
        # a cell is often executed before it is saved: its text counts until the file holds it. Where the file has
        # changed in any other way since, somebody has edited it later, and the file is right.
        return cell.source != executed.raw.source and executed.document == self._document_source(identity)

    def text(self) -> str:
        """Return the notebook's JSON as it would run now, to be kept with a run."""
        notebook = self.notebook()
        if notebook.document and not self._executed:
            return notebook.document
        return document_of(((cell.id, cell.source) for cell in notebook.cells), notebook.name)


def _ids_in(path: Path) -> frozenset[str]:
    try:
        return frozenset(cell.id for cell in read_notebook(path).cells)
    except NbflowError:
        return frozenset()


def _stamp(place: Path) -> tuple[int, int] | None:
    """Return what changes with a file's content, None where there is no file."""
    try:
        status = os.stat(place)  # noqa: PTH116  # asked before every cell
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _step_name(header: str) -> str | None:
    try:
        return parse_header(header)[0]
    except NbflowError:
        return None


def _place(cells: list[Cell], after: str | None) -> int:
    """Return where an unknown cell is put: below the one that was executed before it, else last."""
    return next((at + 1 for at, cell in enumerate(cells) if cell.id == after), len(cells))


def _differs(identity: str, cell: Cell, *, known: bool) -> Finding:
    return Finding(
        code="source-differs",
        level="note",
        step=cell.name,
        cell=identity,
        message="the cell ran with another text than the saved notebook holds"
        if known
        else "the saved notebook does not hold this cell yet",
        fix="save the notebook",
    )


def find_path(namespace: Mapping[str, Any], environment: Mapping[str, str]) -> Path | None:
    """Return the notebook's path as the front end tells it by the user's names or the environment, or None."""
    for path in (namespace.get("__vsc_ipynb_file__"), environment.get("JPY_SESSION_NAME")):
        if isinstance(path, str) and path.endswith((".ipynb", ".py")):
            return Path(path).absolute()
    return None
