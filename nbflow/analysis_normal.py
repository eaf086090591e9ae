"""A cell's source → the same text for the same code, whatever its comments, blank lines and layout; for hashing."""

import ast
from collections.abc import Iterator
from inspect import cleandoc

from nbflow.analysis_cells import read_cell

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def normalise(source: str) -> str:
    """A cell's source in; its code without header, comments, layout and positions out, source that is not Python bare.

    The same in every process and for Python 3.11 to 3.14: fields without a value are left out, so those that a later
    version adds do not show.
    """
    cell = read_cell(source)
    if cell.tree is None:
        first = max(cell.magic_line - 1, 0)
        lines = cell.lines[first:] if cell.magics else cell.python.splitlines(keepends=True)
        return "".join(lines).strip()
    try:
        return "\n".join([*cell.magics, "".join(_dump(cell.tree))])
    except RecursionError:
        return cell.python.strip()


def _dump(node: ast.AST) -> Iterator[str]:
    """A tree in; its text out, piece by piece."""
    yield f"{type(node).__name__}("
    for name, value in ast.iter_fields(node):
        if name in _LEFT_OUT or value is None or value == []:
            continue
        if name == "body" and isinstance(node, _DOCUMENTED):
            value = _with_clean_docstring(value)  # noqa: PLW2901 - the same field, tidied
        if name == "values" and isinstance(node, ast.JoinedStr):
            value = _with_joined_texts(value)  # noqa: PLW2901 - the same field, tidied
        yield f"{name}="
        yield from _dump_field(value)
        yield ","
    yield ")"


def _dump_field(value: object) -> Iterator[str]:
    if isinstance(value, ast.Constant):
        yield _constant(value.value)
    elif isinstance(value, ast.AST):
        yield from _dump(value)
    elif isinstance(value, list):
        yield "["
        for each in value:
            yield from _dump_field(each)
            yield ","
        yield "]"
    else:
        yield _constant(value)


def _constant(value: object) -> str:
    # repr refuses integers of more than 4300 digits
    return hex(value) if type(value) is int else repr(value)


def _with_joined_texts(values: list[ast.expr]) -> list[ast.expr]:
    """An f-string's parts in; the same with neighbouring texts as one, which Python 3.12 leaves apart, out."""
    parts: list[ast.expr] = []
    for value in values:
        match parts[-1:], value:
            case [ast.Constant(str(before))], ast.Constant(str(after)):
                parts[-1] = ast.Constant(before + after)
            case _, ast.Constant(""):
                pass
            case _:
                parts.append(value)
    return parts


def _with_clean_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(ast.Constant(str(text))), *rest]:
            return [ast.Expr(ast.Constant(cleandoc(text))), *rest]
    return body
