"""What a cell's names hold, as far as its text tells: open resources, items of a join, functions made at run time."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from itertools import pairwise

from nbflow.model import Definition

UNSTORABLE_CALLS = frozenset("open Lock RLock Thread connect socket create_engine".split())
_TAKING = frozenset("append add extend insert update remove discard index count write".split())  # leave what they get
_HOLDERS = frozenset("partial reduce dict list tuple set".split())


def parsed(text: str) -> ast.Module:
    """A cell's text in; its tree out, an empty one for what is no Python."""
    try:
        tree = compile(text, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return ast.Module([], [])
    assert isinstance(tree, ast.Module)  # noqa: S101  # what this mode gives
    return tree


def unstorable(tree: ast.Module, entries: frozenset[str] = frozenset()) -> dict[str, str]:
    """A cell, and names that hold items of a join, in; names of what cannot be pickled, with what it is, out."""
    found: dict[str, str] = dict.fromkeys(entries, "an item of a join")
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            names = [item.optional_vars for item in node.items if isinstance(item.optional_vars, ast.Name)]
            found.update((name.id, "an open resource") for name in names)
        elif isinstance(node, ast.Assign):
            call = ast.unparse(node.value.func).rpartition(".")[2] if isinstance(node.value, ast.Call) else ""
            kind = f"what {call}() gives" if call in UNSTORABLE_CALLS else ""
            kind = "a generator" if isinstance(node.value, ast.GeneratorExp) else kind
            found.update((target.id, kind) for target in node.targets if kind and isinstance(target, ast.Name))
    return found


def entry_names(tree: ast.Module) -> frozenset[str]:
    """A join's cell in; names that may hold items of `inputs` themselves, not what is in them, out."""
    found = {"inputs"}
    passing = ("max", "min", "sorted", "list", "tuple", "reversed", "enumerate", "zip", "next", "iter", "filter")

    def holds(node: ast.expr | None) -> bool:
        match node:
            case ast.Name(id=name):
                return name in found
            case ast.Subscript(value=value) | ast.Starred(value=value) | ast.NamedExpr(value=value):
                return holds(value)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return name in passing and any(holds(argument) for argument in arguments)
            case ast.ListComp(elt=element, generators=loops) | ast.GeneratorExp(elt=element, generators=loops):
                inner = {n.id for g in loops if holds(g.iter) for n in ast.walk(g.target) if isinstance(n, ast.Name)}
                return isinstance(element, ast.Name) and element.id in inner
            case ast.IfExp(body=one, orelse=other):
                return holds(one) or holds(other)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return any(holds(part) for part in parts)
        return False

    for _ in range(3):  # a name may be taken from one that is assigned further down in a loop
        for node in ast.walk(tree):
            pairs: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.For | ast.AsyncFor):
                pairs = [(node.target, node.iter)]
            elif isinstance(node, ast.NamedExpr):
                pairs = [(node.target, node.value)]
            for target, value in pairs:
                if holds(value):
                    found |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
    return frozenset(found - {"inputs"})


def inner_names(tree: ast.Module) -> frozenset[str]:
    """A cell in; names that it binds within expressions, as `(m := match(x))`, out."""
    return frozenset(
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.NamedExpr) and isinstance(node.target, ast.Name)
    )


def late_names(tree: ast.Module) -> frozenset[str]:
    """A cell in; names that functions made in it read when they are called, out."""
    made = (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node for node in ast.walk(tree) if isinstance(node, made)]
    return frozenset(node.id for body in bodies for node in ast.walk(body) if isinstance(node, ast.Name))


def late_outer_names(tree: ast.Module) -> frozenset[str]:
    """A cell in; names that lambdas and functions made in it take from outside when they are called, out."""
    found: set[str] = set()
    for body in ast.walk(tree):
        if isinstance(body, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node for node in ast.walk(body) if isinstance(node, ast.Name)]
            own = {node.arg for node in ast.walk(body) if isinstance(node, ast.arg)}
            own |= {node.id for node in names if not isinstance(node.ctx, ast.Load)}
            found |= {node.id for node in names} - own
    return frozenset(found)


def aliases(tree: ast.Module) -> frozenset[tuple[str, str]]:
    """A cell in; pairs of names of which one holds the other's object, as after `a = b` or `a = [b]`, out."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            value = node.value
            parts = [*value.values] if isinstance(value, ast.Dict) else [*getattr(value, "elts", [value])]
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            held = [part.id for part in parts if isinstance(part, ast.Name)]
            found |= {(name, other) for name in names for other in held}
            found |= {(one, other) for one, other in pairwise(names) if not isinstance(value, ast.Constant)}
    return frozenset(found)


def changed_names(tree: ast.Module) -> frozenset[str]:
    """A cell in; names whose objects it may change in place, as by `x[0] = 1`, `x += y`, `x.append(1)`, out."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found.append(node.value)
        elif isinstance(node, ast.AugAssign):
            found.append(node.target)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            found += [call.func.value] if isinstance(call.func, ast.Attribute) else []
            found += [] if method in _TAKING else call.args
    return frozenset(name.id for each in found for name in ast.walk(each) if isinstance(name, ast.Name))


def function_names(tree: ast.Module, makers: frozenset[str]) -> frozenset[str]:
    """A cell, and functions that give functions, in; names that may hold functions made at run time out."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _makes(node.value, makers, found):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(found)


def function_makers(definitions: Sequence[Definition]) -> frozenset[str]:
    """Definitions in; names of functions that give back functions of their own out."""
    found: set[str] = set()
    for d in definitions:
        try:
            body = ast.parse(d.source).body
        except SyntaxError:
            continue
        for function in body:
            if isinstance(function, ast.FunctionDef):
                inner = {n.name for n in ast.walk(function) if isinstance(n, ast.FunctionDef) and n is not function}
                given = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
                if any(
                    _makes(value, frozenset()) or (isinstance(value, ast.Name) and value.id in inner) for value in given
                ):
                    found.add(function.name)
    return frozenset(found)


def _makes(value: ast.expr, makers: Collection[str], held: Collection[str] = ()) -> bool:
    """Whether an expression may hold a function that is made at run time: of a call, what is known to give one."""
    match value:
        case ast.Lambda():
            return True
        case ast.Name(id=name):
            return name in held
        case ast.Call(func=function, args=arguments, keywords=keywords):
            name = ast.unparse(function).rpartition(".")[2]
            given = [*arguments, *(keyword.value for keyword in keywords)]
            return name in makers or (name in _HOLDERS and any(_makes(part, makers, held) for part in given))
    parts = (child for child in ast.iter_child_nodes(value) if isinstance(child, ast.expr))
    return any(_makes(part, makers, held) for part in parts)
