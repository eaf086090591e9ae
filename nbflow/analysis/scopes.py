"""Syntax trees → which names a block binds, how names are mangled, dotted names and roots of expressions."""

import ast
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from nbflow.analysis.result import NO_NAMES, NO_STARS, Pairs

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class BlockNames(msgspec.Struct, frozen=True):
    """The names that one block (a function's or class's own statements) binds and declares."""

    bound: frozenset[str]
    global_: frozenset[str]
    nonlocal_: frozenset[str]
    yields: bool


class Scope(msgspec.Struct, frozen=True):
    """Where code runs: at module level, or in a function with its own names inside others' names."""

    is_function: bool = False
    own: frozenset[str] = NO_NAMES  # bound in the function, `global` ones left out
    outer: frozenset[str] = NO_NAMES  # bound in the functions around it
    declared_global: frozenset[str] = NO_NAMES


MODULE_SCOPE = Scope()

_LEAVES = frozenset({"ctx", "id", "attr", "kind", "type_comment"})
"""Fields in which no node stands, or only a marker of context."""


def mangle(name: str, class_name: str | None) -> str:
    """Return a name as Python stores it inside a class: `__x` in `class C` is `_C__x`."""
    if class_name is None or not name.startswith("__") or name.endswith("__"):
        return name
    stripped = class_name.lstrip("_")
    return f"_{stripped}{name}" if stripped else name


def block_names(block: Iterable[ast.AST]) -> BlockNames:
    """Return the names that a block's statements, or a lambda's expression, bind themselves."""
    bound: set[str] = set()
    global_: set[str] = set()
    nonlocal_: set[str] = set()
    yields = False
    todo: list[ast.AST] = list(block)
    while todo:
        node = todo.pop()
        match node:
            case ast.Name():
                if type(node.ctx) is not ast.Load:
                    bound.add(node.id)
                continue
            case ast.Constant():
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.add(node.name)
            case ast.Import() | ast.ImportFrom():
                bound.update(name for name, _ in import_pairs(node))
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.Global():
                global_.update(node.names)
            case ast.Nonlocal():
                nonlocal_.update(node.names)
            case ast.Yield() | ast.YieldFrom():
                yields = True
        todo += _children_in_block(node)
    return BlockNames(frozenset(bound - global_ - nonlocal_), frozenset(global_), frozenset(nonlocal_), yields)


def _children_in_block(node: ast.AST) -> list[ast.AST]:
    """Return the children of a node that run in the same block: no inner bodies, no targets of comprehensions."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [*node.decorator_list, *defaults_of(node)]
    if isinstance(node, ast.Lambda):
        return [*defaults_of(node)]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]
    if isinstance(node, ast.comprehension):
        return [node.iter, *node.ifs]
    if type(node).__name__ == "TypeAlias":
        return [node.name]  # type: ignore[attr-defined]
    return children_of(node)


def children_of(node: ast.AST) -> list[ast.AST]:
    """Return the child nodes of a node, without markers of context: ast.iter_child_nodes, faster."""
    children: list[ast.AST] = []
    for name in node._fields:
        if name in _LEAVES:
            continue
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            children.append(value)
        elif isinstance(value, list):
            children += [each for each in value if isinstance(each, ast.AST)]
    return children


def defaults_of(node: Function) -> list[ast.expr]:
    """Return the expressions of a function's defaults, in the order in which they are evaluated."""
    return [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]


def arguments_of(node: Function) -> list[ast.arg]:
    """Return all parameters of a function."""
    args = node.args
    extra = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]


def descend(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes of a tree, in no order to rely on: ast.walk, in half the time."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        todo += children_of(node)


def target_names(target: ast.AST) -> list[str]:
    """Return the plain names in an assignment's target."""
    return [node.id for node in descend(target) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]


def module_of(node: ast.ImportFrom) -> str:
    """Return the module that an import takes names from, with the dots of a relative one."""
    return "." * node.level + (node.module or "")


def import_pairs(node: ast.Import | ast.ImportFrom, stars: Mapping[str, Pairs] = NO_STARS) -> list[tuple[str, str]]:
    """Return an import's (bound name, full origin) pairs; `stars` has those of `*`, dots of relative ones are kept."""
    if isinstance(node, ast.Import):
        return [
            (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2 for alias in node.names
        ]
    module = module_of(node)
    if any(alias.name == "*" for alias in node.names):
        return list(stars.get(module, ()))
    joint = "" if module.endswith(".") else "."
    return [(alias.asname or alias.name, f"{module}{joint}{alias.name}") for alias in node.names]


def dotted_name(node: ast.expr) -> str | None:
    """Return "a.b.c" for a name with attributes, None for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def root_name(node: ast.expr, *, through_calls: bool = False) -> str | None:
    """Return the name at the bottom of an expression's attributes, subscripts and, if asked, calls."""
    while True:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif through_calls and isinstance(node, ast.Call):
            node = node.func
        elif through_calls and isinstance(node, ast.Await):
            node = node.value
        else:
            return None


def type_params(node: ast.AST) -> list[ast.AST]:
    """Return the type parameters (Python 3.12+) of a function, class or type alias."""
    return list(getattr(node, "type_params", ()))
