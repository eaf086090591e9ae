"""Expressions, walked in the order they run → names taken, functions called or let go, objects handed to calls."""

import ast
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nbflow.analysis.magics import LineMagic, is_shell, read_magic
from nbflow.analysis.paths import (
    AGAIN,
    BOUND,
    GONE,
    HERE,
    NO_BODIES,
    NOTHING,
    PREVIOUS,
    UNBOUND,
    UNTOUCHED,
    Content,
    LocalFunction,
    Paths,
    Slot,
    is_bound,
    is_surely_bound,
    join_slots,
    join_states,
    merge_contents,
)
from nbflow.analysis.result import (
    ADVICE,
    BUILTINS,
    EXEMPT_CALLS,
    EXEMPT_FUNCTIONS,
    EXEMPT_MODULES,
    EXEMPT_ROOTS,
    INERT_DECORATORS,
    MODULE_GLOBALS,
    NO_NAMES,
    PLOT_METHODS,
    PURE_BUILTINS,
    USUAL_MODULES,
    Diagnostic,
    DiscardedCall,
    is_hidden_state,
)
from nbflow.analysis.scopes import MODULE_SCOPE, Function, Scope, dotted_name, mangle, root_name, target_names
from nbflow.analysis.source import parse_python

Diagnostics = dict[tuple[str, int, int, str], Diagnostic]


@dataclass(slots=True)
class CellFacts:
    """What a walk has seen so far, on whichever path."""

    reads: set[str] = field(default_factory=set)
    expanded: set[str] = field(default_factory=set)
    builtin_reads: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    drops: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    possible: set[str] = field(default_factory=set)
    escapes: set[str] = field(default_factory=set)
    iterated: set[str] = field(default_factory=set)
    definitions: set[str] = field(default_factory=set)
    made: list[LocalFunction] = field(default_factory=list)
    calls: dict[tuple[int, int], DiscardedCall] = field(default_factory=dict)
    magics: dict[str, None] = field(default_factory=dict)
    awaits: bool = False


@dataclass(slots=True)
class WalkContext:
    """What all walks over one cell share: bodies seen, imports of the cell, diagnostics found in bodies."""

    forks: bool  # whether expressions bind names (`:=`), so that their branches matter
    lazy_annotations: bool
    postponed: bool = False  # annotations are text: `from __future__ import annotations` here or above
    hints: set[str] = field(default_factory=set)  # names in such annotations
    origins: dict[str, str] = field(default_factory=dict)  # name bound by an import in the cell -> where from
    bodies: dict[int, LocalFunction] = field(default_factory=dict)
    parsed: dict[int, ast.Module] = field(default_factory=dict)
    diagnostics: Diagnostics = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)  # of history names loaded in bodies


@dataclass(slots=True)
class ClassFrame:
    """A class body being walked: its own names are kept in the state under a prefix that no name can have."""

    prefix: str
    names: frozenset[str]


class NameFlow:
    """A walk along the paths of one block; `state` is where it stands, `facts` what it has seen."""

    def __init__(self, session: WalkContext, scope: Scope = MODULE_SCOPE, class_name: str | None = None) -> None:
        self.session = session
        self.scope = scope
        self.class_name = class_name
        self.state = Paths()
        self.dead = False
        self.facts = CellFacts()
        self.sink = self.facts.reads
        self.diagnostics = session.diagnostics
        self.hidden: frozenset[str] = NO_NAMES
        self.frame: ClassFrame | None = None
        self.unsure = 0
        self.catchers: list[dict[str, Slot]] = []
        self.discarded: set[int] = set()
        self.escaped: set[str] = set()
        self.origins = session.origins
        self.place: tuple[int, int] | None = None

    @abstractmethod
    def summarise(self, node: Function) -> LocalFunction:
        """A function in; what its body does to the names around it out."""

    @abstractmethod
    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Statements in; walked from the present state."""

    @abstractmethod
    def summarise_block(self, statements: list[ast.stmt], owner: ast.AST) -> LocalFunction:
        """Statements that run as a function of their own in; what they do to the names around it out."""

    # ---------------------------------------------------------------- paths

    def end(self) -> Paths | None:
        """The state reached, out; None where this point is never reached."""
        return None if self.dead else self.state

    def go(self, state: Paths | None) -> None:
        """A state in; the walk goes on from there (None: from nowhere)."""
        self.dead = state is None
        if state is not None:
            self.state = state

    def diagnose(self, node: ast.AST | None, code: str, name: str, message: str) -> None:
        """A place and what is wrong there in; kept as a diagnostic, once."""
        line, column = self.place or (getattr(node, "lineno", 1), getattr(node, "col_offset", 0))
        self.diagnostics.setdefault(
            (code, line, column, name), Diagnostic(code, line, column, name, message, ADVICE[code])
        )

    # ---------------------------------------------------------------- names

    def key(self, name: str) -> str:
        """A mangled name in; the key of its slot out: the name itself only where it means the module's name here."""
        if name in self.hidden:
            return "\1" + name
        frame, scope = self.frame, self.scope
        if frame is not None and name in frame.names:
            return frame.prefix + name
        if scope.is_function and name not in scope.declared_global and (name in scope.own or name in scope.outer):
            return "\2" + name
        return name

    def is_global(self, name: str) -> bool:
        """A mangled name in, whether it means the module's name here."""
        return self.key(name) is name

    def load(self, name: str, node: ast.AST | None = None) -> Content:
        """A mangled name that is loaded in; what it may be out."""
        slot = UNBOUND
        if (key := self.key(name)) is not name:
            slot = self.state.slots.get(key, UNBOUND)
            if not (key[0] == "\0" and slot.bits & GONE):  # a class body falls back on the module's name
                return Content(*slot[1:]) if slot is not BOUND else NOTHING
        found = self.state.slots.get(name, UNTOUCHED)
        if found.bits & PREVIOUS:
            self.take(name, found, node, sure=not is_bound(slot))
            if found is UNTOUCHED and name in BUILTINS:
                return NOTHING
        if slot is not UNBOUND:
            found = join_slots(slot, found)
        if found is UNTOUCHED or found is BOUND:
            return Content(NO_BODIES, frozenset((name,)), NO_NAMES)
        return Content(found.bodies, found.roots | {name}, found.held)

    def take(self, name: str, slot: Slot, node: ast.AST | None, *, sure: bool = True) -> None:
        """A global name whose earlier value may be loaded here in; kept as a read, or as what is wrong with it."""
        if name in MODULE_GLOBALS:
            return
        hidden = is_hidden_state(name)
        if self.scope.is_function:  # what the name is, is settled where the function is called
            if hidden and node is not None:
                self.session.places.setdefault(name, (getattr(node, "lineno", 1), getattr(node, "col_offset", 0)))
        elif hidden:
            line, column = self.session.places.get(name, (1, 0))
            place = node or ast.Pass(lineno=line, col_offset=column)
            what = f"{name} is IPython's record of this session, not a value that a run has"
            self.diagnose(place, "hidden-state", name, what)
            return
        elif name in BUILTINS and slot.bits == PREVIOUS:
            self.facts.builtin_reads.add(name)
            return
        self.sink.add(name)
        if sure and not slot.bits & (HERE | GONE) and not self.unsure:  # read now, or on this path before it was bound
            self.state.read.add(name)

    def bind(self, name: str, content: Content = NOTHING) -> None:
        """A mangled name and what it is bound to in; kept in the state."""
        key = self.key(name)
        if name in self.state.read:
            self._set(key, Slot(AGAIN, *content))
        else:
            self._set(key, BOUND if content is NOTHING else Slot(HERE, *content))
        if key is name:
            self.facts.stores.add(name)
            self.origins.pop(name, None)
            if content.bodies and name in self.escaped:
                self.use(content)

    def unbind(self, name: str) -> None:
        """A mangled name that is deleted in; kept in the state."""
        key = self.key(name)
        self._set(key, UNBOUND)
        if key is name:
            self.facts.drops.add(name)

    def _set(self, key: str, slot: Slot) -> None:
        self.state.slots[key] = slot
        for catcher in self.catchers:  # an exception may leave the block right after this
            catcher[key] = join_slots(catcher.get(key, UNTOUCHED), slot)

    @contextmanager
    def hide(self, names: Iterable[str]) -> Iterator[None]:
        """Names of an inner scope in (comprehension targets, type parameters); they hide others meanwhile."""
        keys = ["\1" + name for name in names]
        before, frame, saved = self.hidden, self.frame, [self.state.slots.get(key) for key in keys]
        self.hidden = before.union(key[1:] for key in keys)
        self.state.slots.update(dict.fromkeys(keys, BOUND))
        yield
        self.hidden, self.frame = before, frame
        for key, slot in zip(keys, saved, strict=True):
            if slot is None:
                self.state.slots.pop(key, None)
            else:
                self.state.slots[key] = slot

    # ---------------------------------------------------------------- functions made here

    def use(self, content: Content) -> None:
        """Content that leaves our sight or is called in; its functions take their names now."""
        if content.bodies:
            self.resolve(content.bodies)

    def resolve(self, bodies: Iterable[LocalFunction], *, called: bool = True) -> None:
        """Functions in; what they, and those that they may call, take from before is kept as read."""
        todo = list(bodies)
        seen: set[LocalFunction] = set()
        while todo:
            body = todo.pop()
            if body in seen:
                continue
            seen.add(body)
            slots = self.state.slots
            for name in body.loads:
                slot = slots.get(name, UNTOUCHED)
                if slot.bits & PREVIOUS:
                    self.take(name, slot, None, sure=False)
                if slot.bodies:
                    todo.extend(slot.bodies)
            if called:
                self.escaped |= body.loads
                self._apply(body)

    def _apply(self, body: LocalFunction) -> None:
        """A function that may run from now on in; what it may do to names is kept."""
        for names, slot in ((body.stores, BOUND), (body.drops, UNBOUND)):
            for name in names:
                self._set(name, join_slots(self.state.slots.get(name, UNTOUCHED), slot))
        facts = self.facts
        facts.stores |= body.stores
        facts.drops |= body.drops
        facts.changed |= body.changed
        facts.possible |= body.possible | (self.aliases(body.changed) - body.changed) | self.aliases(body.possible)
        facts.escapes |= body.escapes | self.aliases(body.escapes)
        facts.iterated |= body.iterated

    def aliases(self, names: Iterable[str]) -> frozenset[str]:
        """Names in; the names whose objects they may share here out."""
        slots = self.state.slots
        return NO_NAMES.union(*(slots[name].roots for name in names if name in slots))

    def call_surely(self, body: LocalFunction) -> None:
        """The one function that surely runs now in; its effects are kept, the sure ones as such."""
        for name in body.sure_loads:
            slot = self.state.slots.get(name, UNTOUCHED)
            if slot.bits & PREVIOUS:
                self.take(name, slot, None)
        self.resolve([body])
        for name in body.sure_stores:
            self._set(name, BOUND._replace(bits=AGAIN) if name in self.state.read else BOUND)

    def keep_function(self, body: LocalFunction, *, held: frozenset[str] = NO_NAMES) -> Content:
        """A function made here in; its content out. Inside a function it counts as called: nobody follows it there."""
        self.facts.made.append(body)
        if self.scope.is_function:
            self.resolve([body])
            return NOTHING
        return Content(frozenset({body}), NO_NAMES, held)


LOGGER = re.compile(r"(?:.*_)?log(?:ger)?", re.IGNORECASE)
"""What loggers are called, in every spelling that is usual: `log`, `LOGGER`, `self._log`, `audit_logger`."""

LOG_METHODS = frozenset("debug info warning warn error exception critical log setLevel addHandler".split())
_NAMESPACE_ATTRIBUTES = frozenset({"user_ns", "user_global_ns", "f_globals", "f_locals", "__globals__"})
_SHELL_CALLS = frozenset(
    {"run_cell", "run_cell_async", "run_code", "ex", "ev", "push", "del_var", "reset", "drop_by_id"}
)


def is_exempt(node: ast.Call, origins: Mapping[str, str], is_free: Callable[[str], bool]) -> bool:
    """A call, the cell's imports and a test for untouched names in; whether it leaves its arguments alone out.

    print, display, plotting, logging and builtins that only look: what they are given needs no comparison.
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
    """Whether a value is called as loggers are, or asked for as they are."""
    if isinstance(node, ast.Call):
        return (dotted_name(node.func) or "").rpartition(".")[2] in ("getLogger", "get_logger")
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return LOGGER.fullmatch(name) is not None


def dynamic_attribute(node: ast.Attribute) -> str | None:
    """An attribute in; why it makes the cell's names unknowable out, else None."""
    if node.attr in _NAMESPACE_ATTRIBUTES:
        return f".{node.attr} reaches names that the cell does not show"
    if is_shell(node.value) and node.attr in _SHELL_CALLS:
        return f"get_ipython().{node.attr} runs or binds what the cell does not show"
    return None


def dynamic_call(
    node: ast.Call, origins: Mapping[str, str], is_free: Callable[[str], bool], *, in_function: bool
) -> str | None:
    """A call, the cell's imports and a test for untouched names in; why it hides names out, else None."""
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
    """A decorator in, whether it is known to keep the function uncalled."""
    func = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (dotted_name(func) or "").rpartition(".")[2] in INERT_DECORATORS


def discarded_calls(node: ast.expr) -> Iterator[int]:
    """An expression whose value is dropped in; the ids of the calls that give this value out."""
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


class ExpressionFlow(NameFlow):
    """A walk that knows expressions: one method for each kind, `on_` and the node's name."""

    def expr(self, node: ast.expr) -> Content:
        """An expression in; walked, and what its value may be out."""
        content: Content = getattr(self, "on_" + type(node).__name__.lower(), self.on_other)(node)
        return content

    def value(self, node: ast.expr | None) -> None:
        """An expression whose value goes nowhere we follow in; walked."""
        if node is not None:
            self.use(self.expr(node))

    def sometimes(self, nodes: Iterable[ast.expr]) -> list[Content]:
        """Expressions of which each runs only if the one before did, the first surely, in; their contents out."""
        contents: list[Content] = []
        exits: list[Paths | None] = []
        first, *rest = nodes
        contents.append(self.expr(first))
        self.unsure += 1
        for node in rest:
            if self.session.forks:
                exits.append(self.state.copy())
            contents.append(self.expr(node))
        self.unsure -= 1
        if exits:
            self.go(join_states([*exits, self.state]))
        return contents

    def test(self, node: ast.expr) -> tuple[Paths | None, Paths | None]:
        """A condition in; walked, and the states where it holds and where it does not out."""
        known = constant_truth(node)
        if known is not None:
            return (self.state, None) if known else (None, self.state)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self.test(node.operand)[::-1]
        if isinstance(node, ast.BoolOp) and self.session.forks:
            return self._test_bool(node)
        self.value(node)
        return self.state, self.state.copy()

    def _test_bool(self, node: ast.BoolOp) -> tuple[Paths | None, Paths | None]:
        is_and = isinstance(node.op, ast.And)
        exits: list[Paths | None] = []
        going: Paths | None = self.state
        for operand in node.values:
            if going is None:
                break
            self.go(going)
            holds, fails = self.test(operand)
            going, leaving = (holds, fails) if is_and else (fails, holds)
            exits.append(leaving)
        left = join_states(exits)
        return (going, left) if is_and else (left, going)

    def on_other(self, node: ast.AST) -> Content:
        """Any expression without a rule of its own: its parts are used, its value is new."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
        return NOTHING

    def on_constant(self, _node: ast.Constant) -> Content:
        """A constant takes nothing."""
        return NOTHING

    def on_name(self, node: ast.Name) -> Content:
        """A name is loaded."""
        return self.load(mangle(node.id, self.class_name), node)

    def on_attribute(self, node: ast.Attribute) -> Content:
        """An attribute is a part of its object."""
        return self.receiver(node).as_element()

    def receiver(self, node: ast.Attribute) -> Content:
        """An attribute in; the content of what it is looked up on out."""
        if message := dynamic_attribute(node):
            self.diagnose(node, "dynamic", node.attr, message)
        return self.expr(node.value)

    def on_subscript(self, node: ast.Subscript) -> Content:
        """A subscript is a part of its object."""
        if dotted_name(node.value) == "sys.modules":
            self.diagnose(node, "dynamic", "sys.modules", "sys.modules[...] reaches names that the cell does not show")
        content = self.expr(node.value)
        self.value(node.slice)
        return content.as_element()

    def on_starred(self, node: ast.Starred) -> Content:
        """A starred value gives its elements."""
        content = self.expr(node.value)
        self.facts.iterated |= content.roots
        return content.as_element()

    def on_tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Content:
        """A display is a new container."""
        return merge_contents(self.expr(element) for element in node.elts).as_container()

    on_list = on_tuple
    on_set = on_tuple

    def on_dict(self, node: ast.Dict) -> Content:
        """A dict display is a new container."""
        contents = []
        for key, value in zip(node.keys, node.values, strict=True):
            self.value(key)
            contents.append(self.expr(value))
        return merge_contents(contents).as_container()

    def on_binop(self, node: ast.BinOp) -> Content:
        """An operator makes a new object; sums and unions may hold the operands' elements. Long sums stand in a row."""
        chain: list[ast.expr] = []
        left: ast.expr = node
        joins = False
        while isinstance(left, ast.BinOp):
            joins = joins or isinstance(left.op, ast.Add | ast.BitOr)
            chain.append(left.right)
            left = left.left
        contents = [self.expr(part) for part in (left, *reversed(chain))]
        merged = merge_contents(contents)
        self.use(merged)
        return merged.as_container() if joins else Content(merged.bodies, NO_NAMES, merged.held)

    def on_boolop(self, node: ast.BoolOp) -> Content:
        """`and`, `or` give one of their operands."""
        return merge_contents(self.sometimes(node.values))

    def on_compare(self, node: ast.Compare) -> Content:
        """A comparison stops at the first that fails."""
        first = [node.left, node.comparators[0]]
        self.value(first[0])
        for content in self.sometimes([first[1], *node.comparators[1:]]):
            self.use(content)
        return NOTHING

    def on_ifexp(self, node: ast.IfExp) -> Content:
        """One of the two branches runs."""
        holds, fails = self.test(node.test)
        contents = []
        ends = []
        self.unsure += 1
        for state, branch in ((holds, node.body), (fails, node.orelse)):
            if state is not None:
                self.go(state)
                contents.append(self.expr(branch))
                ends.append(self.state)
        self.unsure -= 1
        self.go(join_states(ends))
        return merge_contents(contents)

    def on_namedexpr(self, node: ast.NamedExpr) -> Content:
        """`:=` binds in the block around, out of comprehensions too."""
        content = self.expr(node.value)
        self.bind(mangle(node.target.id, self.class_name), content)
        return content

    def on_await(self, node: ast.Await) -> Content:
        """What is awaited runs."""
        self._note_await()
        content = self.expr(node.value)
        self.hand_over(content)
        return NOTHING

    def on_yield(self, node: ast.Yield) -> Content:
        """What is yielded leaves our sight."""
        if node.value is not None:
            self.hand_over(self.expr(node.value))
        return NOTHING

    def on_yieldfrom(self, node: ast.YieldFrom) -> Content:
        """What is yielded leaves our sight."""
        self.hand_over(self.expr(node.value))
        return NOTHING

    def on_lambda(self, node: ast.Lambda) -> Content:
        """A lambda keeps its names for later."""
        return self.keep_function(self.summarise(node), held=self.defaults(node))

    def defaults(self, node: Function) -> frozenset[str]:
        """A function in; its defaults walked, and the names whose objects they hold out."""
        contents = merge_contents(
            self.expr(default) for default in (*node.args.defaults, *filter(None, node.args.kw_defaults))
        )
        self.use(contents)
        return contents.all_roots

    def hand_over(self, content: Content) -> None:
        """Content that other code gets hold of in; its functions take their names, its objects may be changed."""
        self.use(content)
        self.facts.escapes |= content.all_roots

    def _note_await(self) -> None:
        if not self.scope.is_function:
            self.facts.awaits = True

    # ---------------------------------------------------------------- comprehensions

    def on_listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Content:
        """A comprehension: its first iterable here, the rest in a scope of its own, maybe never."""
        return self._comprehend(node.generators, [node.elt])

    on_setcomp = on_listcomp
    on_generatorexp = on_listcomp

    def on_dictcomp(self, node: ast.DictComp) -> Content:
        """A dict comprehension, likewise."""
        return self._comprehend(node.generators, [node.key, node.value])

    def _comprehend(self, generators: list[ast.comprehension], results: list[ast.expr]) -> Content:
        content = self.iterated(generators[0].iter)
        before = self.state.copy() if self.session.forks else None
        names = [mangle(name, self.class_name) for each in generators for name in target_names(each.target)]
        with self.hide(names):
            self.frame = None  # a class's own names are not seen from inside
            self.unsure += 1
            for index, each in enumerate(generators):
                if each.is_async:
                    self._note_await()
                if index:
                    content = self.iterated(each.iter)
                for name in target_names(each.target):
                    slot = Slot(HERE, *content)
                    self.state.slots["\1" + mangle(name, self.class_name)] = slot
                for condition in each.ifs:
                    self.value(condition)
            contents = merge_contents([self.expr(result) for result in results])
            self.unsure -= 1
        if before is not None:
            self.go(join_states([before, self.state]))
        return contents.as_container()

    def iterated(self, node: ast.expr) -> Content:
        """An iterable in; walked, and the content of its elements out."""
        content = self.expr(node)
        self.use(content)
        self.facts.iterated |= content.roots
        return content.as_element()

    # ---------------------------------------------------------------- calls

    def on_call(self, node: ast.Call) -> Content:
        """A call runs its callee and hands it the arguments."""
        func = node.func
        if isinstance(func, ast.Attribute) and is_shell(func.value) and (magic := read_magic(node)):
            return self._on_magic(node, magic)
        is_method = isinstance(func, ast.Attribute)
        callee = self.receiver(func) if isinstance(func, ast.Attribute) else self.expr(func)
        passed: list[tuple[str | None, Content]] = [(None, self.expr(argument)) for argument in node.args]
        passed += [(keyword.arg, self.expr(keyword.value)) for keyword in node.keywords]
        arguments = merge_contents(content for _, content in passed)
        self.use(arguments)
        if (surely := self._sole_body(func, callee)) is not None:
            self.call_surely(surely)
        else:
            self.use(callee)
        if not is_exempt(node, self.origins, self.is_free):
            self._hand_to_call(node, callee, arguments, is_method=is_method)
        self._note_in_place(node, callee, passed)
        if message := dynamic_call(node, self.origins, self.is_free, in_function=self.scope.is_function):
            self.diagnose(node, "dynamic", root_name(func) or "", message)
        return NOTHING

    def _sole_body(self, func: ast.expr, callee: Content) -> LocalFunction | None:
        """A callee in; the one function that it surely is out, None where it may be others or is not surely called."""
        if self.unsure or len(callee.bodies) != 1 or not isinstance(func, ast.Name):
            return None
        (body,) = callee.bodies
        slot = self.state.slots.get(self.key(mangle(func.id, self.class_name)), UNTOUCHED)
        return body if body.plain and is_surely_bound(slot) else None

    def is_free(self, name: str) -> bool:
        """A name in, whether it still means what it meant before this code."""
        return self.is_global(name) and name not in self.state.slots

    def _hand_to_call(self, node: ast.Call, callee: Content, arguments: Content, *, is_method: bool) -> None:
        facts, root = self.facts, root_name(node.func, through_calls=True)
        is_module = root is not None and (root in self.origins or (root in USUAL_MODULES and self.is_free(root)))
        facts.escapes |= arguments.all_roots
        if not is_module and not callee.bodies:
            facts.escapes |= callee.all_roots
        if id(node) not in self.discarded:
            return
        if root is not None and is_method:
            receiver = callee.roots | (self._reached(node.func, root) if not callee.roots else NO_NAMES)
            facts.possible |= arguments.all_roots if is_module else receiver
        else:
            facts.possible |= arguments.all_roots | (callee.all_roots - {root} if root else callee.all_roots)
        call = DiscardedCall(
            line=self.place[0] if self.place else node.lineno,
            root=root if root is not None and self.is_global(root) else None,
            callee=dotted_name(node.func),
            is_method=is_method,
            arguments=arguments.all_roots,
        )
        facts.calls.setdefault((call.line, node.col_offset), call)

    def _reached(self, func: ast.expr, root: str) -> frozenset[str]:
        """The receiver of `x.f().g()`, through the calls: x and what x may be."""
        if root in BUILTINS or not any(isinstance(part, ast.Attribute) for part in _callees(func)):
            return NO_NAMES
        slot = self.state.slots.get(self.key(root), UNTOUCHED)
        return slot.roots | {root} if self.is_global(root) else slot.roots

    def _note_in_place(self, node: ast.Call, callee: Content, passed: list[tuple[str | None, Content]]) -> None:
        """`inplace=True` changes the receiver, `out=x` and `file=x` change x, whatever becomes of the result."""
        for keyword in node.keywords:
            if keyword.arg == "inplace" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
                self.facts.possible |= callee.roots
        for name, content in passed:
            if name in {"out", "file"}:
                self.facts.possible |= content.all_roots

    def _on_magic(self, node: ast.Call, magic: LineMagic) -> Content:
        before, self.place = self.place, self.place or (node.lineno, node.col_offset)
        if not self.scope.is_function:
            self.facts.magics.setdefault(magic.name)
        if magic.diagnostic:
            self.diagnose(node, magic.diagnostic[0], "%" + magic.name, magic.diagnostic[1])
        for name in magic.uses:
            self.load(name)
        self.expand(magic.expansions)
        if magic.code:
            tree = self.session.parsed.get(id(node)) or parse_python(magic.code).tree or ast.Module([], [])
            self.session.parsed[id(node)] = tree
            if magic.leaks and not self.scope.is_function and self.frame is None and not self.hidden:
                self.run(tree.body)
            else:
                self.call_surely(self.summarise_block(tree.body, tree))
        for name in magic.binds:
            self.bind(name)
        self.place = before
        return NOTHING

    def expand(self, fields: Iterable[ast.expr]) -> None:
        """The `{expr}` and `$name` of a shell line in; what they take is kept apart: the line runs without it too."""
        before, self.sink = self.sink, self.facts.expanded
        self.unsure += 1
        for each in fields:
            self.value(each)
        self.unsure -= 1
        self.sink = before


def _callees(func: ast.expr) -> Iterator[ast.expr]:
    """A callee in; the callees inside it, itself left out, out."""
    while isinstance(func, ast.Attribute | ast.Subscript | ast.Call | ast.Await):
        func = func.func if isinstance(func, ast.Call) else func.value
        yield func


def constant_truth(node: ast.expr) -> bool | None:
    """A condition in; its truth out where it is written down (`True`, `0`, `__name__ == "__main__"`), else None."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    match node:
        case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
            return True  # a cell always runs as the main module
    return None
