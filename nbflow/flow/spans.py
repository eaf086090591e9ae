"""Cells in document order → those of them that are one step: consecutive cells of one name, and what is between. Pure.

Each cell of such a step is a node of its own, `load`, `load.2`, `load.3`: it has its key, is reused without the others,
and shows what it shows under itself. What people read has one row for all of them (`render/rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from nbflow.analysis.lines import header_of
from nbflow.errors import OptionError
from nbflow.flow.options import parse_header
from nbflow.flow.tags import RAISED
from nbflow.model import Cell, Finding, Notebook, Step, StepOptions

OWN = ("inputs", "outputs")
"""Options that each cell of a step may have: they are about the names of one cell."""

OF_FIRST = ("foreach", "condition", "after", "until", "max", "late", *OWN)
"""Options of a step that its further cells do not have: what they ask has been answered once the first one runs."""

DEFAULTS = StepOptions()


def with_spans(notebook: Notebook, *, between: bool = True) -> Notebook:
    """Return a notebook whose cells of one step are bound to one another, with what is wrong with their options.

    Plain cells `between` two of a step belong to it, unless only those cells are known that have been executed: whether
    one is between two is known too late then.
    """
    cells, findings = _spanned(notebook.cells, between=between)
    return msgspec.structs.replace(notebook, cells=cells, findings=(*notebook.findings, *findings))


def _spanned(cells: Sequence[Cell], *, between: bool) -> tuple[tuple[Cell, ...], list[Finding]]:
    spans = _spans(cells, between=between)
    names: dict[int, str] = {}
    for name, places in spans.items():
        names.update((at, f"{name}.{number}" if number > 1 else name) for number, at in enumerate(places, start=1))
    result, findings = list(cells), list[Finding]()
    for name, places in spans.items():
        first = cells[places[0]]
        for above, at in pairwise(places):
            cell = cells[at]
            result[at] = msgspec.structs.replace(
                cell, kind="step", name=names[at], follows=names[above], spans=True,
                options=_inherited(first.options, cell.options, names[above]),
            )  # fmt: skip
            findings += _misplaced(name, first, cell)
        if len(places) > 1:
            result[places[0]] = msgspec.structs.replace(first, spans=True)
            findings += _unfit(name, first)
    for at, cell in enumerate(result):
        after = tuple(_last(spans, names, word, at) for word in cell.options.after)
        if after != cell.options.after:
            result[at] = msgspec.structs.replace(cell, options=msgspec.structs.replace(cell.options, after=after))
    return tuple(result), findings


def _spans(cells: Sequence[Cell], *, between: bool) -> dict[str, list[int]]:
    """Return the places of each step's cells; a step that is declared anew further below keeps its first ones."""
    coming, names = "", list[str]()
    for cell in reversed(cells):
        names.append(coming)
        coming = cell.name or "" if cell.kind == "step" else coming
    below = names[::-1]
    spans: dict[str, list[int]] = {}
    current = ""
    for at, cell in enumerate(cells):
        name = cell.name or ""
        if cell.kind == "step":
            if name == current or cell.gathers or name not in spans:
                spans.setdefault(name, []).append(at)
            current = name
        elif cell.kind == "plain" and between and current and below[at] == current:
            spans[current].append(at)
    return spans


def _inherited(first: StepOptions, own: StepOptions, above: str) -> StepOptions:
    """Return a further cell's options: its step's, and those that its own tags stand for."""
    given = {name: getattr(own, name) for name in StepOptions.__struct_fields__}
    set_here = {name: value for name, value in given.items() if value != getattr(DEFAULTS, name)}
    options = {name: getattr(first, name) for name in given if name not in OF_FIRST}
    if first.catch == RAISED:  # a cell's own tag, and not its step's option
        options["catch"] = None
    late = tuple(pair for pair in first.late if pair[0] not in ("foreach", "if", "until"))
    return StepOptions(**{**options, "late": late, **set_here, "after": (*own.after, above)})


def _last(spans: Mapping[str, Sequence[int]], names: Mapping[int, str], word: str, at: int) -> str:
    """Return the last cell of the step that `--after` names: those before it are over by then."""
    places = spans.get(word, ())
    return names[max((place for place in places if place < at), default=places[-1])] if len(places) > 1 else word


def _misplaced(name: str, first: Cell, cell: Cell) -> Iterable[Finding]:
    """Yield what is wrong with options in the header of a further cell."""
    header = header_of(cell.source.split("\n"))
    try:
        options = parse_header(header.rest, cell=cell.id)[1] if header is not None else DEFAULTS
    except OptionError:  # a finding of its own
        return
    set_here = [field for field in StepOptions.__struct_fields__ if getattr(options, field) != getattr(DEFAULTS, field)]
    if set(set_here) - {*OWN}:
        yield Finding(
            code="option", level="error", step=name, cell=cell.id, line=1,
            message=f"cell {cell.position} goes on with the step {name!r}: its options stand on cell {first.position}",
            fix=f"write them there, and `%%step {name}` here",
        )  # fmt: skip


def _unfit(name: str, first: Cell) -> Iterable[Finding]:
    if first.options.until is not None:
        yield Finding(
            code="option", level="error", step=name, cell=first.id, line=1,
            message=f"--until repeats one cell, and the step {name!r} has several",
            fix="put them into one cell, or give the others another name",
        )  # fmt: skip


def steps_of_rows(steps: Iterable[Step]) -> dict[str, str]:
    """Return for each further cell of a step the name of the step."""
    firsts: dict[str, str] = {}
    for step in steps:
        if step.follows:
            firsts[step.name] = firsts.get(step.follows, step.follows)
    return firsts


def cells_of(steps: Iterable[Step], name: str) -> tuple[str, ...]:
    """Return the nodes of a step of this name in document order: its own, and those of its further cells."""
    firsts = steps_of_rows(steps)
    return (name, *(other for other, first in firsts.items() if first == name))


def in_one_cell(notebook: Notebook) -> Notebook:
    """Return a notebook in which each step is one cell, for targets that know no others: the further ones are empty.

    A step with a cell magic in one of its cells stays as it is: nothing can stand above or below it.
    """
    bodies: dict[str, list[str]] = {}
    firsts: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.spans and cell.name:
            firsts[cell.name] = firsts.get(cell.follows, cell.name)
            bodies.setdefault(firsts[cell.name], []).append(cell.body)
    apart = {name for name, texts in bodies.items() if any(text.lstrip().startswith("%%") for text in texts)}
    firsts = {name: first for name, first in firsts.items() if first not in apart}

    def joined(cell: Cell) -> Cell:
        name = cell.name or ""
        if cell.spans and name in firsts and firsts[name] != name:
            return msgspec.structs.replace(cell, kind="control", name=None, body="")
        body = "\n".join(bodies[name]) if cell.spans and name in firsts else cell.body
        after = tuple(dict.fromkeys(firsts.get(word, word) for word in cell.options.after))
        return msgspec.structs.replace(cell, body=body, options=msgspec.structs.replace(cell.options, after=after))

    return msgspec.structs.replace(notebook, cells=tuple(map(joined, notebook.cells))) if firsts else notebook
