"""Calls that are given code as text, `df.query("price > @limit")` → the names of the notebook that the text means.

The table goes by the full names of functions, and by the names of methods where nobody knows what they are called on.
A package adds to it by an entry point in the group `nbflow.calls`: its own import name → a mapping like `CALLS`.
"""

import ast
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Literal

import msgspec

from nbflow import plugins
from nbflow.analysis.scopes import dotted_name
from nbflow.analysis.source import parse_python
from nbflow.analysis.sql import ASKS, tables_of

Language = Literal["python", "main", "timed", "marked", "sql", "formula", "module"]
"""How a text names things.

`python`: as Python does where the call stands; `main`: as Python in the main module, which it may change; `timed`: as
`timeit` takes a statement and its set-up; `marked`: behind an @; `sql`: as tables; `formula`: as functions and numbers
of a model's formula; `module`: there is no text, the call looks through the whole main module for what is defined.
"""

MAIN = "<main>"
"""Stands among the names that code reads for all that is defined in the main module."""

CALLS: Mapping[str, Language] = MappingProxyType({
    "eval": "python", "exec": "python", "pandas.eval": "python", "numexpr.evaluate": "python",
    "cProfile.run": "main", "profile.run": "main", "cProfile.runctx": "main", "profile.runctx": "main",
    "timeit.timeit": "timed", "timeit.repeat": "timed", "timeit.Timer": "timed",
    "duckdb.sql": "sql", "duckdb.query": "sql", "duckdb.execute": "sql", "polars.sql": "sql",
    "pandasql.sqldf": "sql", "fugue_sql.fugue_sql": "sql", "fugue.api.fugue_sql": "sql",
    "patsy.dmatrix": "formula", "patsy.dmatrices": "formula", "formulaic.model_matrix": "formula",
    "formulaic.Formula": "formula", "statsmodels.formula.api": "formula", "bambi.Model": "formula",
    "linearmodels": "formula",
    "unittest.main": "module", "doctest.testmod": "module", "ipytest.run": "module",
})  # fmt: skip
"""Functions by their full names, and modules all of whose functions are meant, with how their text names things."""

METHODS: Mapping[str, Language] = MappingProxyType({
    "query": "marked", "eval": "marked", "sql": "sql", "execute": "sql", "from_formula": "formula",
})  # fmt: skip
"""Methods of whatever object; a text that asks as SQL does counts as such in all of them."""

USUAL_NAMES: Mapping[str, str] = MappingProxyType({
    "pd": "pandas", "pl": "polars", "ne": "numexpr", "smf": "statsmodels.formula.api", "bmb": "bambi",
})  # fmt: skip
"""What modules are called in cells that do not import them themselves."""

BARE = MappingProxyType({"timeit": "timeit.timeit", "dmatrix": "patsy.dmatrix", "dmatrices": "patsy.dmatrices",
                         "sqldf": "pandasql.sqldf", "testmod": "doctest.testmod"})  # fmt: skip
"""The same of functions."""

_MARKED = re.compile(r"@([A-Za-z_]\w*)")
_WORD = re.compile(r"(?<![\w.\"'])[A-Za-z_]\w*")


class Quoted(msgspec.Struct, frozen=True):
    """What the text that a call is given means: code that runs, names that are read, and what may be a name."""

    language: Language
    code: ast.Module | None = None
    reads: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()
    spaces: tuple[ast.expr, ...] = ()  # arguments that hand over this very namespace: `globals()`


def read_quoted(node: ast.Call, origins: Mapping[str, str], is_free: Callable[[str], bool]) -> Quoted | None:
    """Return what the text means that a call is given; None for any other call, or where nobody can read it.

    `origins` maps names to what the cell's imports bind them to; `is_free` tells whether a name still means what it
    meant before the cell.
    """
    language = _language_of(node, origins, is_free)
    if language is None:
        return None
    if language == "module":
        return Quoted(language, reads=(MAIN,))
    words = {keyword.arg: keyword.value for keyword in node.keywords}
    if language == "timed":
        return _timed(node, words)
    given = node.args[0] if node.args else next((words[name] for name in _NAMED if name in words), None)
    texts = _texts_of(given)
    if not texts:
        return None
    if language in ("python", "main"):
        spaces = (*node.args[1:], *(words[name] for name in ("globals", "locals") if name in words))
        ours = tuple(space for space in spaces if _is_ours(space))
        tree = parse_python(texts[0].strip()).tree if not isinstance(given, ast.JoinedStr) else None
        if tree is None or (language == "python" and spaces[:1] and not _is_ours(spaces[0])):
            return None
        return Quoted(language, code=tree, spaces=ours)
    if language == "marked" and not ASKS.match(texts[0]):
        return Quoted(language, reads=tuple(name for text in texts for name in _MARKED.findall(text)))
    if language == "formula":
        return Quoted(language, perhaps=tuple(word for text in texts if "~" in text for word in _WORD.findall(text)))
    return Quoted("sql", perhaps=tables_of(" ".join(texts))) if ASKS.match(texts[0]) else None


_NAMED = ("expr", "formula", "query", "statement", "source")
"""What parameters are called that take the text."""


def _language_of(node: ast.Call, origins: Mapping[str, str], is_free: Callable[[str], bool]) -> Language | None:
    name = dotted_name(node.func)
    root, _, rest = (name or "").partition(".")
    if root in origins:
        return _listed(f"{origins[root]}.{rest}".rstrip("."))
    if root and is_free(root):
        usual = USUAL_NAMES.get(root, root) if rest else BARE.get(root, root)
        language = _listed(f"{usual}.{rest}".rstrip("."))
        if language is not None:
            return language
    return METHODS.get(node.func.attr) if isinstance(node.func, ast.Attribute) else None


def _listed(name: str) -> Language | None:
    """Return the language of a function by its full name, or by that of a module that it is of."""
    while name:
        if name in CALLS:
            return CALLS[name]
        if name in _plugged_in(name.partition(".")[0]):
            return _plugged_in(name.partition(".")[0])[name]
        name = name.rpartition(".")[0]
    return None


@cache
def _plugged_in(library: str) -> Mapping[str, Language]:
    """Return what an installed package adds to the table for a library."""
    known = ("calls", library) in plugins.installed()
    return dict(plugins.load("calls", library)) if known else {}


def _texts_of(node: ast.expr | None) -> list[str]:
    """Return the text of a literal, or the parts of an f-string that are written out."""
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in _texts_of(value)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_texts_of(node.left), *_texts_of(node.right)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _timed(node: ast.Call, words: Mapping[str | None, ast.expr]) -> Quoted | None:
    """Return what timeit's statement and set-up read: of a namespace that is not this one only what they import."""
    given: dict[str | None, ast.expr] = dict(words)
    given.update(zip(("stmt", "setup"), node.args, strict=False))
    sources = [_texts_of(given.get(name)) for name in ("setup", "stmt")]
    trees = [parse_python("".join(texts)).tree for texts in sources if texts]
    code = ast.Module([part for tree in trees if tree is not None for part in tree.body], [])
    space = words.get("globals")
    if space is not None and _is_ours(space):
        return Quoted("timed", code=code, spaces=(space,))
    taken = [part for part in code.body if isinstance(part, ast.ImportFrom) and part.module == "__main__"]
    return Quoted("timed", code=ast.Module(list(taken), [])) if taken else None


def spelled_name(node: ast.expr) -> str | None:
    """Return the name that code at the top of a cell spells: `x` of `globals()["x"]`."""
    match node:
        case ast.Subscript(value=space, slice=ast.Constant(value=str(name))) if _is_ours(space) and name.isidentifier():
            return name
    return None


def _is_ours(node: ast.expr) -> bool:
    """Return whether an argument hands over the namespace of the code that calls."""
    return isinstance(node, ast.Call) and dotted_name(node.func) in ("globals", "locals", "vars") and not node.args
