"""What a cell's names hold, as far as its text tells: open resources, items of a join, functions made at run time."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from itertools import pairwise

from nbflow.flow.parameters import bare_name
from nbflow.model import Definition

UNSTORABLE_CALLS = frozenset("open Lock RLock Thread connect socket create_engine".split())
_TAKING = frozenset("append add extend insert update remove discard index count write".split())  # leave what they get
_HOLDERS = frozenset("partial reduce dict list tuple set".split())


def parsed(text: str) -> ast.Module:
    """Return a cell's tree, an empty one for what is no Python."""
    try:
        tree = compile(text, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return ast.Module([], [])
    assert isinstance(tree, ast.Module)  # noqa: S101  # what this mode gives
    return tree


def unstorable(tree: ast.Module, entries: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return the names in a cell that cannot be pickled, with what they are; `entries` hold items of a join."""
    kinds: dict[str, str] = dict.fromkeys(entries, "an item of a join")
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            names = [item.optional_vars for item in node.items if isinstance(item.optional_vars, ast.Name)]
            kinds.update((name.id, "an open resource") for name in names)
        elif isinstance(node, ast.Assign):
            call = bare_name(node.value.func) if isinstance(node.value, ast.Call) else ""
            kind = f"what {call}() gives" if call in UNSTORABLE_CALLS else ""
            kind = "a generator" if isinstance(node.value, ast.GeneratorExp) else kind
            kinds.update((target.id, kind) for target in node.targets if kind and isinstance(target, ast.Name))
    return kinds


def entry_names(tree: ast.Module) -> frozenset[str]:
    """Return the names that may hold items of a join's `inputs` themselves, not what is in them."""
    entries = {"inputs"}
    passing = ("max", "min", "sorted", "list", "tuple", "reversed", "enumerate", "zip", "next", "iter", "filter")

    def holds(node: ast.expr | None) -> bool:
        match node:
            case ast.Name(id=name):
                return name in entries
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
                    entries |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
    return frozenset(entries - {"inputs"})


def inner_names(tree: ast.Module) -> frozenset[str]:
    """Return the names that a cell binds within expressions, as `(m := match(x))`."""
    return frozenset(
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.NamedExpr) and isinstance(node.target, ast.Name)
    )


def late_names(tree: ast.Module) -> frozenset[str]:
    """Return the names that functions made in a cell read when they are called."""
    functions = (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node for node in ast.walk(tree) if isinstance(node, functions)]
    return frozenset(node.id for body in bodies for node in ast.walk(body) if isinstance(node, ast.Name))


def late_outer_names(tree: ast.Module) -> frozenset[str]:
    """Return the names that lambdas and functions made in a cell take from outside when they are called."""
    names_outside: set[str] = set()
    for body in ast.walk(tree):
        if isinstance(body, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node for node in ast.walk(body) if isinstance(node, ast.Name)]
            own = {node.arg for node in ast.walk(body) if isinstance(node, ast.arg)}
            own |= {node.id for node in names if not isinstance(node.ctx, ast.Load)}
            names_outside |= {node.id for node in names} - own
    return frozenset(names_outside)


def aliases(tree: ast.Module) -> frozenset[tuple[str, str]]:
    """Return pairs of names of which one holds the other's object, as after `a = b` or `a = [b]`."""
    pairs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            value = node.value
            parts = [*value.values] if isinstance(value, ast.Dict) else [*getattr(value, "elts", [value])]
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            parts_held = [part.id for part in parts if isinstance(part, ast.Name)]
            pairs |= {(name, other) for name in names for other in parts_held}
            pairs |= {(one, other) for one, other in pairwise(names) if not isinstance(value, ast.Constant)}
    return frozenset(pairs)


def changed_names(tree: ast.Module) -> frozenset[str]:
    """Return the names whose objects a cell may change in place, as by `x[0] = 1`, `x += y`, `x.append(1)`."""
    targets: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            targets.append(node.value)
        elif isinstance(node, ast.AugAssign):
            targets.append(node.target)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            targets += [call.func.value] if isinstance(call.func, ast.Attribute) else []
            targets += [] if method in _TAKING else call.args
    return frozenset(name.id for each in targets for name in ast.walk(each) if isinstance(name, ast.Name))


def function_names(tree: ast.Module, makers: frozenset[str]) -> frozenset[str]:
    """Return the names in a cell that may hold functions made at run time; `makers` are functions that give some."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _makes(node.value, makers, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def function_makers(definitions: Sequence[Definition]) -> frozenset[str]:
    """Return the names of functions that give back functions of their own."""
    names: set[str] = set()
    for d in definitions:
        for function in parsed(d.source).body:
            if isinstance(function, ast.FunctionDef):
                inner = {n.name for n in ast.walk(function) if isinstance(n, ast.FunctionDef) and n is not function}
                values = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
                if any(
                    _makes(value, frozenset()) or (isinstance(value, ast.Name) and value.id in inner)
                    for value in values
                ):
                    names.add(function.name)
    return frozenset(names)


def _makes(value: ast.expr, makers: Collection[str], names: Collection[str] = ()) -> bool:
    """Return whether an expression may hold a function made at run time: of a call, what is known to give one."""
    match value:
        case ast.Lambda():
            return True
        case ast.Name(id=name):
            return name in names
        case ast.Call(func=function, args=arguments, keywords=keywords):
            name = bare_name(function)
            values = [*arguments, *(keyword.value for keyword in keywords)]
            return name in makers or (name in _HOLDERS and any(_makes(part, makers, names) for part in values))
    parts = (child for child in ast.iter_child_nodes(value) if isinstance(child, ast.expr))
    return any(_makes(part, makers, names) for part in parts)
