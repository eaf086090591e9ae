"""Parts of steps and definitions that follow from their cell alone: names, labels, identities. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from nbflow.analysis_facts import is_hidden_state
from nbflow.codes import identity_of
from nbflow.definitions import Piece
from nbflow.model import Binding, Cell, CellKind, Definition
from nbflow.scope import Gathered


def step_name(cell: Cell) -> str:
    """A cell in; the name of the step that it is or may become out."""
    return cell.name if cell.kind == "step" and cell.name else f"cell:{cell.id}"


def is_travelling(name: str, kind: CellKind) -> bool:
    """Whether a name that a cell of this kind binds is an artifact: `_x` is a step's own, IPython's are nobody's."""
    if not name.startswith("_"):
        return True
    return kind == "plain" and not is_hidden_state(name) and not name.startswith("__")


def keeps_state(definition: Definition) -> bool:
    """Whether a definition makes a class or function, on which cells may set something."""
    return not definition.origins and definition.source.lstrip().startswith(("class ", "def ", "async def ", "@"))


def label_of(cell: Cell, writes: frozenset[str]) -> str:
    """A plain cell and what it writes in; what people call it, `cell 3: df`, out."""
    names = ", ".join(sorted(name for name in writes if not name.startswith("<")))
    kind = "parameters" if cell.kind == "params" else f"cell {cell.position}"
    return f"{kind}: {names}" if names else kind


def bindings_of(need: Gathered) -> tuple[Binding, ...]:
    """What names need in; their bindings by name out."""
    return tuple(need.bindings[name] for name in sorted(need.bindings))


def union(sets: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Sets of names in; all names, sorted, out."""
    return tuple(sorted({name for names in sets for name in names}))


def definition_of(cell: Cell, piece: Piece, order: int, need: Gathered) -> Definition:
    """A statement that is replayed, its place and what it needs in; the Definition out."""
    names = tuple(sorted(piece.writes))
    return Definition(
        id=identity_of(",".join(names) or "setup", piece.statement.source),
        kind="setup" if piece.kind == "setup" else "definition",
        cell=cell.id,
        position=cell.position,
        order=order,
        line=piece.statement.line,
        source=piece.statement.source,
        names=names,
        reads=tuple(sorted(piece.reads)),
        free=tuple(sorted(piece.free)),
        hints=tuple(sorted(piece.statement.hints)),
        free_writes=tuple(sorted(piece.free_writes)),
        origins=dict(piece.origins),
        requires=tuple(sorted(need.definitions)),
        binds=bindings_of(need),
    )


def target_names(target: str) -> tuple[str, ...]:
    """A loop target (`x`, `a, (b, c)`) in; the names that it binds out."""
    return tuple(node.id for node in ast.walk(ast.parse(target, mode="eval")) if isinstance(node, ast.Name))
