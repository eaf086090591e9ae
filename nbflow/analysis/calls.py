"""What the text of a call tells: whether it leaves its arguments alone, hides names, or has its result dropped."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping

from nbflow.analysis.magics import is_shell
from nbflow.analysis.result import (
    EXEMPT_CALLS,
    EXEMPT_FUNCTIONS,
    EXEMPT_MODULES,
    EXEMPT_ROOTS,
    INERT_DECORATORS,
    PLOT_METHODS,
    PURE_BUILTINS,
)
from nbflow.analysis.scopes import dotted_name, root_name

LOGGER = re.compile(r"(?:.*_)?log(?:ger)?", re.IGNORECASE)
"""What loggers are called, in every spelling that is usual: `log`, `LOGGER`, `self._log`, `audit_logger`."""

LOG_METHODS = frozenset("debug info warning warn error exception critical log setLevel addHandler".split())
_NAMESPACE_ATTRIBUTES = frozenset({"user_ns", "user_global_ns", "f_globals", "f_locals", "__globals__"})
_SHELL_CALLS = frozenset(
    {"run_cell", "run_cell_async", "run_code", "ex", "ev", "push", "del_var", "reset", "drop_by_id"}
)


def is_exempt(node: ast.Call, origins: Mapping[str, str], is_free: Callable[[str], bool]) -> bool:
    """Return whether a call leaves its arguments alone: print, display, plotting, logging, builtins that only look.

    `origins` maps the names that imports bind to what they import; `is_free` tells whether a name still means what it
    means in Python. What such a call is given needs no comparison.
    """
    func = node.func
    root = root_name(func)
    if root is not None and (origin := origins.get(root)):
        return origin.partition(".")[0] in EXEMPT_MODULES or dotted_name(func) in EXEMPT_CALLS
    if isinstance(func, ast.Name):
        return (func.id in EXEMPT_FUNCTIONS or func.id in PURE_BUILTINS) and is_free(func.id)
    if not isinstance(func, ast.Attribute):
        return False
    if isinstance(func.value, ast.Attribute) and func.value.attr == "plot":
        return True
    if func.attr in PLOT_METHODS and not node.args:  # a frame's own plot; axes are given what to draw
        return True
    if is_logger(func.value):  # a list that somebody calls log has other methods
        return func.attr in LOG_METHODS
    if dotted_name(func) in EXEMPT_CALLS:
        return is_free(root or "")
    return root in EXEMPT_ROOTS and dotted_name(func) is not None and is_free(root or "")


def is_logger(node: ast.expr) -> bool:
    """Return whether a value is named as loggers are, or made as they are."""
    if isinstance(node, ast.Call):
        return (dotted_name(node.func) or "").rpartition(".")[2] in ("getLogger", "get_logger")
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return LOGGER.fullmatch(name) is not None


def dynamic_attribute(node: ast.Attribute) -> str | None:
    """Return why an attribute makes the cell's names unknowable, or None."""
    if node.attr in _NAMESPACE_ATTRIBUTES:
        return f".{node.attr} reaches names that the cell does not show"
    if is_shell(node.value) and node.attr in _SHELL_CALLS:
        return f"get_ipython().{node.attr} runs or binds what the cell does not show"
    return None


def dynamic_call(
    node: ast.Call, origins: Mapping[str, str], is_free: Callable[[str], bool], *, in_function: bool
) -> str | None:
    """Return why a call hides names, or None; `origins` and `is_free` are as in `is_exempt`."""
    func = node.func
    if not (isinstance(func, ast.Name) and is_free(func.id)):
        return None
    match func.id:
        case "exec" | "eval" if len(node.args) < 2 and not any(word.arg in {None, "globals"} for word in node.keywords):
            return f"{func.id}() runs code that the cell does not show"
        case "globals":
            return "globals() reaches names that the cell does not show"
        case "locals" | "vars" if not node.args and not in_function:
            return f"{func.id}() reaches names that the cell does not show"
        case "setattr" | "delattr" if node.args and root_name(node.args[0]) in origins:
            return f"{func.id}() changes a module that every cell shares"
    return None


def is_inert(decorator: ast.expr) -> bool:
    """Return whether a decorator is known to keep the function uncalled."""
    func = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (dotted_name(func) or "").rpartition(".")[2] in INERT_DECORATORS


def discarded_calls(node: ast.expr) -> Iterator[int]:
    """Yield the ids of the calls that give the value of an expression whose value is dropped."""
    inner: list[ast.expr] = []
    match node:
        case ast.Call():
            yield id(node)
        case ast.Await():
            inner = [node.value]
        case ast.BoolOp():
            inner = node.values[-1:]
        case ast.IfExp():
            inner = [node.body, node.orelse]
        case ast.Tuple() | ast.List() | ast.Set():
            inner = node.elts
        case ast.ListComp() | ast.SetComp():
            inner = [node.elt]
    for each in inner:
        yield from discarded_calls(each)
