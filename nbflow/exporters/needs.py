"""What of a flow's definitions stands at the top of the file, and what each step has to bind before its cell."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from nbflow.exporters.interface import Notes
from nbflow.exporters.text import Piece, split_pieces
from nbflow.model import Binding, Definition, Flow, Step
from nbflow.scope import sources_of

UNSTORABLE_CALLS = frozenset("open Lock RLock Thread connect socket create_engine".split())


class Needs:
    """A flow's definitions sorted: `tops` are executed when the file is imported, the others within steps."""

    def __init__(self, flow: Flow, notes: Notes) -> None:
        self.flow, self.notes = flow, notes
        self.cells = {cell.id: cell for cell in flow.notebook.cells}
        self.alike = self._first_alike(flow.definitions)
        computing = [step.position for step in flow.steps if step.kind != "params"]
        self.first = min(computing, default=0)
        used = {order for step in [*flow.steps, *flow.lists.values()] for order in (*step.definitions, *step.own_definitions)}
        self.tops = tuple(d.order for d in flow.definitions if d.order in used and self._is_top(d, set()))
        self.last: dict[str, int] = {}  # name -> the definition that it stands for once the file is imported
        for order in self.tops:
            self.last.update(dict.fromkeys(flow.definitions[order].names, self.alike[order]))

    @staticmethod
    def _first_alike(definitions: Sequence[Definition]) -> Mapping[int, int]:
        """Each definition's order -> that of the first one that is the same: same text, same things behind it."""
        first: dict[tuple[object, ...], int] = {}
        alike: dict[int, int] = {}
        for d in definitions:
            key = (d.id, tuple(alike[order] for order in d.requires), d.binds)
            alike[d.order] = first.setdefault(key, d.order)
        return alike

    def _is_top(self, d: Definition, above: set[int]) -> bool:
        """Whether a definition can be executed on import: it needs no data, and is no set-up that steps stand above."""
        if d.binds or d.order in above:
            return False
        if d.kind == "setup" and "sys.path" not in d.source and (d.names or d.position > self.first):
            return False
        return all(self._is_top(self.flow.definitions[order], above | {d.order}) for order in d.requires)

    def inlined(self, step: Step) -> tuple[Definition, ...]:
        """The definitions that a step has to execute itself: older ones than the file's last, and those that need data."""
        found: set[int] = set()
        orders = sorted(step.definitions)
        at_end = {name: order for order in orders for name in self.flow.definitions[order].names}
        while True:
            now = set(found)
            for order in orders:
                d = self.flow.definitions[order]
                stale = any(self.last.get(name) != self.alike[order] for name in d.names if at_end[name] == order)
                wanted = any(order in self.flow.definitions[other].requires for other in found)
                hidden = any(self.last.get(name) != self.alike[order] for name in d.names)
                after = any(set(d.names) & set(self.flow.definitions[other].names) for other in found if other < order)
                if stale or (wanted and hidden) or after or (d.kind == "setup" and order not in self.tops):
                    now.add(order)
            if now == found:
                return tuple(self.flow.definitions[order] for order in sorted(found))
            found = now

    def lifted(self, step: Step) -> frozenset[int]:
        """Lines where a definition of a step's own cell begins that stands at the top of the file instead."""
        mine = [d for d in self.flow.definitions if d.cell == step.cell and d.order in self.tops]
        return frozenset(
            d.line for d in mine
            if not set(d.names) & set(step.writes) and all(self.last[name] == self.alike[d.order] for name in d.names)
        )  # fmt: skip

    def free(self, step: Step) -> frozenset[str]:
        """Names that functions used by a step read or write as globals."""
        orders = {*step.definitions, *(d.order for d in self.flow.definitions if d.cell == step.cell)}
        used = [self.flow.definitions[order] for order in orders]
        return frozenset(name for d in used for name in (*d.free, *d.free_writes) if not name.startswith("<"))

    # ------------------------------------------------------------ values that may be missing

    def can_miss(self, binding: Binding) -> bool:
        """Whether no step is sure to have given a name its value."""
        for source in binding.sources:
            if source.definition is not None or (source.sure and not self._may_not_give(source.step or "", binding.name)):
                return False
        return True

    def _may_not_give(self, step: str, name: str) -> bool:
        """Whether a step may be skipped, or fail before it has written a name."""
        options = self.steps[step].options
        failing = options.catch is not None and options.catch != name
        return bool(options.condition or failing or self.lost(self.steps[step]))

    def lost(self, step: Step) -> tuple[str, ...]:
        """Names without which a step is skipped, and which may be missing."""
        return tuple(bind.name for bind in step.bindings if bind.sure and bind.sources and self.can_miss(bind))

    def unsure(self, step: Step) -> frozenset[str]:
        """Names that a step may leave unbound."""
        bound = {bind.name for bind in step.bindings if bind.sources and (bind.sure or not self.can_miss(bind))}
        names = step.writes if step.options.catch else step.conditional
        return frozenset(names) - bound - set(step.targets)

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """Steps by name."""
        return {step.name: step for step in self.flow.steps}

    def check_versions(self, step: Step) -> None:
        """Refuse what needs a value that the flow does not hold any more: a default taken from a name rewritten since."""
        for d in self.inlined(step):
            for bind in d.binds:
                if sources_of(self.flow.writers.get(bind.name, ()), step.position)[0] != bind.sources:
                    self.notes.refused(
                        f"{', '.join(d.names) or 'set-up'} was made from {bind.name}, which is rewritten before {step.label}"
                        " uses it: a Metaflow run holds one value a name",
                        step=step.name, cell=d.cell, line=d.line, name=bind.name,
                        fix=f"keep the old value under a name of its own, and use that in cell {d.position}",
                    )  # fmt: skip


def pieces_of(source: str, skipped: Iterable[int]) -> list[Piece]:
    """A cell's source and first lines of statements in; its pieces without these out."""
    gone = set(skipped)
    return [
        piece for piece in split_pieces(source)
        if not piece.statements or not all(statement.line in gone for statement in piece.statements)
    ]  # fmt: skip


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


def function_names(tree: ast.Module, makers: frozenset[str]) -> frozenset[str]:
    """A cell, and functions that give functions, in; names that may hold functions made at run time out."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (_makes(node.value, makers | found)):
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
                if any(_makes(value, frozenset()) or (isinstance(value, ast.Name) and value.id in inner) for value in given):
                    found.add(function.name)
    return frozenset(found)


def _makes(value: ast.expr, makers: frozenset[str]) -> bool:
    """Whether an expression may hold a function that it makes; a `key=` is used up at once."""
    if isinstance(value, ast.Lambda):
        return True
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in makers:
        return True
    children = [child for child in ast.iter_child_nodes(value) if not (isinstance(child, ast.keyword) and child.arg == "key")]
    return any(
        _makes(child.value if isinstance(child, ast.keyword) else child, makers)
        for child in children if isinstance(child, ast.expr | ast.keyword)
    )  # fmt: skip
