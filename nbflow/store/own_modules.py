"""What the modules beside a notebook do when they are imported and called, as their texts have it; nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from nbflow.analysis.cell import analyse
from nbflow.analysis.computing import acting_names, computes_anew
from nbflow.analysis.source import parse_cell
from nbflow.model import Notebook, OwnModule
from nbflow.store.star_imports import Texts, with_stars


def with_modules(notebook: Notebook) -> Notebook:
    """Return a notebook with what is known of the modules that it imports: what stars bring, what its own ones do."""
    texts = Texts(notebook)
    known = (_said(name, texts.text(name)) for name in _imported(notebook) if texts.has(name))
    return msgspec.structs.replace(with_stars(notebook), modules=tuple(known))


def _imported(notebook: Notebook) -> Iterator[str]:
    """Yield the names that may be modules of all that a notebook imports, each once."""
    statements = (statement for cell in notebook.cells for statement in analyse(cell.body).statements)
    origins = (origin for statement in statements for _, origin in statement.imports)
    parts = (origin.split(".") for origin in origins if not origin.startswith("."))
    yield from dict.fromkeys(".".join(each[: at + 1]) for each in parts for at in range(len(each)))


@lru_cache(maxsize=256)
def _said(module: str, text: str | None) -> OwnModule:
    """Return what the text of a module says of what it holds; of one without a text it may be anything."""
    if text is None:
        return OwnModule(module)
    origins: dict[str, str] = {}
    acts, defined, values, computed = set[str](), set[str](), set[str](), set[str]()
    for statement in analyse(text).statements:
        origins.update(statement.imports)
        tree = parse_cell(statement.source)
        if tree is None or len(tree.body) != 1:
            continue
        (node,) = tree.body
        if statement.kind in ("def", "class"):
            defined |= statement.writes
            acts.update(acting_names(node, origins, values.__contains__, acts.__contains__, _changes_globals))
        elif statement.kind == "import":
            defined |= statement.writes
        else:
            values |= statement.writes
            computed |= statement.writes if computes_anew(node, origins) else set()
    return OwnModule(module, *(tuple(sorted(each)) for each in (acts, defined - values, computed)))


def _changes_globals(tree: ast.stmt) -> bool:
    """Return whether calling a function, or making an object of a class, changes what its module keeps."""
    methods = tree.body if isinstance(tree, ast.ClassDef) else [tree]
    return any(analyse(ast.unparse(each)).statements[0].deferred_writes for each in methods)
