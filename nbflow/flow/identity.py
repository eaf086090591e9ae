"""Code → the texts and hashes that keys are made of: layout, comments and places do not count."""

from __future__ import annotations
import __future__

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache

from nbflow.analysis.cell import Analysis, normalise
from nbflow.analysis.result import is_hidden_state
from nbflow.analysis.source import star_modules
from nbflow.flow.definitions import Piece
from nbflow.flow.scope import Gathered
from nbflow.model import Binding, Cell, Definition, StepOptions


def identity_of(name: str, source: str) -> str:
    """Return a definition's id, the same wherever its text stands."""
    return f"{name}@{hashlib.blake2b(_normal_text(source).encode(), digest_size=12).hexdigest()}"


@lru_cache(maxsize=32_768)
def _normal_text(source: str) -> str:
    """Return a statement's normal text, kept by source: of an edited cell only edited statements are read again."""
    return normalise(source)


def normal_text(cell: Cell, analysis: Analysis) -> str:
    """Return a cell's code for its key: its statements' one by one, or the whole where a cell magic has them."""
    if analysis.cell_magic is not None or not analysis.statements:
        return normalise(cell.body)
    return "\n".join(_normal_text(statement.source) for statement in analysis.statements)


def hash_of(*texts: str) -> str:
    """Return one hash of several texts."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def behaviour_of(options: StepOptions) -> list[str]:
    """Return what of a step's options belongs to its code: the loops and conditions that they stand for."""
    texts = {
        "foreach": options.foreach.target if options.foreach is not None else None,
        "if": options.condition and normalise(options.condition),
        "until": options.until and f"{normalise(options.until)} {options.max}",
        "catch": options.catch,
        "join": "join" if options.join else None,
    }
    return [f"{name} {text}" for name, text in texts.items() if text]


def future_flags(sources: Iterable[str]) -> int:
    """Return the compiler's flags that `from __future__` lines set for what follows."""
    flags = 0
    for source in sources:
        if source.startswith("from __future__ "):
            names = [alias.name for node in ast.walk(ast.parse(source)) for alias in getattr(node, "names", ())]
            flags |= sum(getattr(__future__, name).compiler_flag for name in names)
    return flags


def step_name(cell: Cell) -> str:
    """Return the name of the step that a cell is or may become."""
    return cell.name if cell.kind == "step" and cell.name else f"cell:{cell.id}"


def is_travelling(name: str, cell: Cell) -> bool:
    """Return whether a name that a cell binds is an artifact: `_x` is its step's own, IPython's nobody's."""
    if not name.startswith("_"):
        return True
    return (cell.kind == "plain" or cell.spans) and not is_hidden_state(name) and not name.startswith("__")


def keeps_state(definition: Definition) -> bool:
    """Return whether a definition makes a class or function, on which cells may set something."""
    return not definition.origins and definition.source.lstrip().startswith(("class ", "def ", "async def ", "@"))


def label_of(cell: Cell, writes: frozenset[str]) -> str:
    """Return what people call a plain cell that writes these names: `cell 3: df`."""
    names = ", ".join(sorted(name for name in writes if not name.startswith("<") and name != cell.options.catch))
    kind = "parameters" if cell.kind == "params" else f"cell {cell.position}"
    return f"{kind}: {names}" if names else kind


def bindings_of(need: Gathered) -> tuple[Binding, ...]:
    """Return the bindings of what names need, by name."""
    return tuple(need.bindings[name] for name in sorted(need.bindings))


def union(sets: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return all names of several sets, sorted."""
    return tuple(sorted({name for names in sets for name in names}))


def definition_of(cell: Cell, piece: Piece, order: int, need: Gathered) -> Definition:
    """Return the Definition of a statement that is replayed, with its place and what it needs."""
    names = tuple(sorted(piece.writes))
    stars = [f"{module}.*" for module in star_modules(piece.statement.source)]  # they may bring a thousand names
    return Definition(
        id=identity_of(",".join(stars or names) or "setup", piece.statement.source),
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
        changes=tuple(sorted(piece.changes)),
    )


def target_names(target: str) -> tuple[str, ...]:
    """Return the names that a loop target (`x`, `a, (b, c)`) binds."""
    return tuple(node.id for node in ast.walk(ast.parse(target, mode="eval")) if isinstance(node, ast.Name))
