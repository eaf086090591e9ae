"""Code → the texts and hashes that keys are made of: layout, comments and places do not count."""

from __future__ import annotations
import __future__

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache

from nbflow.analysis import Analysis, normalise
from nbflow.model import Cell, StepOptions


def identity_of(name: str, source: str) -> str:
    """A definition's names and source in; its id, the same wherever that text stands, out."""
    return f"{name}@{hashlib.blake2b(_normal_text(source).encode(), digest_size=12).hexdigest()}"


@lru_cache(maxsize=8192)
def _normal_text(source: str) -> str:
    """Kept by text: of a cell that was edited only the edited statements are read again."""
    return normalise(source)


def normal_text(cell: Cell, analysis: Analysis) -> str:
    """A cell's code for its key: its statements', one by one, or the whole where a cell magic has them."""
    if analysis.cell_magic is not None or not analysis.statements:
        return normalise(cell.body)
    return "\n".join(_normal_text(statement.source) for statement in analysis.statements)


def hash_of(*texts: str) -> str:
    """Texts in; the hash of all of them out."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def behaviour_of(options: StepOptions) -> list[str]:
    """What of a step's options belongs to its code: the loops and conditions that they stand for."""
    texts = {
        "foreach": options.foreach.target if options.foreach is not None else None,
        "if": options.condition and normalise(options.condition),
        "until": options.until and f"{normalise(options.until)} {options.max}",
        "catch": options.catch,
        "join": "join" if options.join else None,
    }
    return [f"{name} {text}" for name, text in texts.items() if text]


def future_flags(sources: Iterable[str]) -> int:
    """Statements in document order in; the compiler's flags that their `from __future__` lines set for what follows."""
    found = 0
    for source in sources:
        if source.startswith("from __future__ "):
            names = [alias.name for node in ast.walk(ast.parse(source)) for alias in getattr(node, "names", ())]
            found |= sum(getattr(__future__, name).compiler_flag for name in names)
    return found
