"""A cell's statements and expressions, walked along every path in the order they run.

The walk finds what may be taken from before, what is bound, changed or deleted at the end, which functions are called
or let go, and which objects are handed to calls. Paths meet by joining their states; loops may run zero times; `try`
may stop after any statement that binds.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from nbflow.analysis.calls import discarded_calls, dynamic_attribute, dynamic_call, is_exempt, is_inert
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
from nbflow.analysis.quoted import MAIN, Quoted, read_quoted, spelled_name
from nbflow.analysis.result import (
    ADVICE,
    BUILTINS,
    MODULE_GLOBALS,
    NO_NAMES,
    NO_STARS,
    USUAL_MODULES,
    Diagnostic,
    DiscardedCall,
    Pairs,
    is_hidden_state,
)
from nbflow.analysis.scopes import (
    MODULE_SCOPE,
    Function,
    Scope,
    arguments_of,
    block_names,
    descend,
    dotted_name,
    import_pairs,
    mangle,
    module_of,
    root_name,
    target_names,
    type_params,
)
from nbflow.analysis.source import parse_python

Diagnostics = dict[tuple[str, int, int, str], Diagnostic]

_DEEP = 4  # nested loops and finally blocks walked more than once; deeper ones are walked once
_SUPPRESSORS = frozenset({"suppress", "raises", "assertRaises", "assertRaisesRegex", "ExitStack", "AsyncExitStack"})


class CellFacts(msgspec.Struct):
    """What a walk has seen so far, on whichever path."""

    reads: set[str] = msgspec.field(default_factory=set)
    expanded: set[str] = msgspec.field(default_factory=set)  # names in the `{expr}` and `$name` of shell lines
    builtin_reads: set[str] = msgspec.field(default_factory=set)
    stores: set[str] = msgspec.field(default_factory=set)
    drops: set[str] = msgspec.field(default_factory=set)
    changed: set[str] = msgspec.field(default_factory=set)  # names whose objects are changed through them
    possible: set[str] = msgspec.field(default_factory=set)  # whose objects may be changed: by a call, or a shared one
    escapes: set[str] = msgspec.field(default_factory=set)  # names whose objects other code gets hold of
    iterated: set[str] = msgspec.field(default_factory=set)
    definitions: set[str] = msgspec.field(default_factory=set)
    functions: list[LocalFunction] = msgspec.field(default_factory=list)  # made on the way
    calls: dict[tuple[int, int], DiscardedCall] = msgspec.field(default_factory=dict)
    magics: dict[str, None] = msgspec.field(default_factory=dict)
    awaits: bool = False


class WalkContext(msgspec.Struct):
    """What all walks over one cell share: bodies walked, imports of the cell, diagnostics found in bodies."""

    forks: bool  # whether expressions bind names (`:=`), so that their branches matter
    lazy_annotations: bool
    postponed: bool = False  # annotations are text: `from __future__ import annotations` here or above
    hints: set[str] = msgspec.field(default_factory=set)  # names in such annotations
    origins: dict[str, str] = msgspec.field(default_factory=dict)  # name bound by an import in the cell -> where from
    stars: Mapping[str, Pairs] = NO_STARS  # what is known of star imports, by module
    bodies: dict[int, LocalFunction] = msgspec.field(default_factory=dict)
    asked: bool = False  # whether one of those was asked for
    parsed: dict[int, ast.Module] = msgspec.field(default_factory=dict)
    diagnostics: Diagnostics = msgspec.field(default_factory=dict)
    places: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)  # of history names loaded in bodies


class ClassFrame(msgspec.Struct):
    """A class body being walked: its own names are kept in the state under a prefix that no name can have."""

    prefix: str
    names: frozenset[str]


class Jumps(msgspec.Struct):
    """States at which `break` and `continue` leave a loop's body, and `return` a function's."""

    breaks: list[Paths | None] = msgspec.field(default_factory=list)
    continues: list[Paths | None] = msgspec.field(default_factory=list)
    returns: list[Paths | None] = msgspec.field(default_factory=list)


class Walk:
    """A walk along the paths of a cell or of a function's body, expression by expression and statement by statement.

    `state` is where the walk stands, `facts` what it has seen. Each kind of expression has a method `on_` and the
    node's name, which returns what the value may be; each kind of statement has a method `do_` and the node's name.
    """

    def __init__(self, context: WalkContext, scope: Scope = MODULE_SCOPE, class_name: str | None = None) -> None:
        self.context = context
        self.scope = scope
        self.class_name = class_name
        self.state = Paths()
        self.dead = False
        self.facts = CellFacts()
        self.sink = self.facts.reads
        self.diagnostics = context.diagnostics
        self.hidden: frozenset[str] = NO_NAMES
        self.frame: ClassFrame | None = None
        self.unsure = 0
        self.catchers: list[dict[str, Slot]] = []
        self.discarded: set[int] = set()
        self.escaped: set[str] = set()
        self.origins = context.origins
        self.place: tuple[int, int] | None = None
        self.jumps = Jumps()
        self.raised: list[Paths | None] = []
        self.nesting = 0
        self.in_loop = 0
        self.loose: list[LocalFunction] = []  # annotations that are evaluated on request
        for name in scope.own:
            self.state.slots["\2" + name] = UNBOUND

    # ---------------------------------------------------------------- paths

    def end(self) -> Paths | None:
        """Return the state reached; None where this point is never reached."""
        return None if self.dead else self.state

    def go(self, state: Paths | None) -> None:
        """Go on from a state; None: from nowhere."""
        self.dead = state is None
        if state is not None:
            self.state = state

    def diagnose(self, node: ast.AST | None, code: str, name: str, message: str) -> None:
        """Keep what is wrong at a place as a diagnostic, once."""
        line, column = self.place or (getattr(node, "lineno", 1), getattr(node, "col_offset", 0))
        self.diagnostics.setdefault(
            (code, line, column, name), Diagnostic(code, line, column, name, message, ADVICE[code])
        )

    # ---------------------------------------------------------------- names

    def key(self, name: str) -> str:
        """Return the key of a mangled name's slot: the name itself only where it means the module's name here."""
        # One name may stand for several variables at once. A prefix that no name can have keeps them apart in one
        # state: \1 for a comprehension's or a type parameter's, \0 for a class body's, \2 for a function's own.
        if name in self.hidden:
            return "\1" + name
        frame, scope = self.frame, self.scope
        if frame is not None and name in frame.names:
            return frame.prefix + name
        if scope.is_function and name not in scope.declared_global and (name in scope.own or name in scope.outer):
            return "\2" + name
        return name

    def is_global(self, name: str) -> bool:
        """Return whether a mangled name means the module's name here."""
        return self.key(name) is name

    def load(self, name: str, node: ast.AST | None = None) -> Content:
        """Load a mangled name and return what it may be."""
        slot = UNBOUND
        if (key := self.key(name)) is not name:
            slot = self.state.slots.get(key, UNBOUND)
            if not (key[0] == "\0" and slot.bits & GONE):  # a class body falls back on the module's name
                return Content(*slot[1:]) if slot is not BOUND else NOTHING
        outer = self.state.slots.get(name, UNTOUCHED)
        if outer.bits & PREVIOUS:
            self.take(name, outer, node, sure=not is_bound(slot))
            if outer is UNTOUCHED and name in BUILTINS:
                return NOTHING
        if slot is not UNBOUND:
            outer = join_slots(slot, outer)
        if outer is UNTOUCHED or outer is BOUND:
            return Content(NO_BODIES, frozenset((name,)), NO_NAMES)
        return Content(outer.bodies, outer.roots | {name}, outer.held)

    def load_outer(self, name: str, node: ast.AST) -> None:
        """Load the main module's name, whatever it means here."""
        slot = self.state.slots.get(name, UNTOUCHED)
        if slot.bits & PREVIOUS and name.isidentifier():
            self.take(name, slot, node)

    def take(self, name: str, slot: Slot, node: ast.AST | None, *, sure: bool = True) -> None:
        """Keep a global name, whose earlier value may be loaded here, as a read or as what is wrong with it."""
        if name in MODULE_GLOBALS:
            return
        hidden = is_hidden_state(name)
        if self.scope.is_function:  # what the name is, is settled where the function is called
            if hidden and node is not None:
                self.context.places.setdefault(name, (getattr(node, "lineno", 1), getattr(node, "col_offset", 0)))
        elif hidden:
            line, column = self.context.places.get(name, (1, 0))
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
        """Bind a mangled name to a content."""
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
        """Delete a mangled name."""
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
        """Hide names meanwhile behind those of an inner scope: targets of a comprehension, type parameters."""
        keys = ["\1" + name for name in names]
        before, frame, slots = self.hidden, self.frame, [self.state.slots.get(key) for key in keys]
        self.hidden = before.union(key[1:] for key in keys)
        self.state.slots.update(dict.fromkeys(keys, BOUND))
        yield
        self.hidden, self.frame = before, frame
        for key, slot in zip(keys, slots, strict=True):
            if slot is None:
                self.state.slots.pop(key, None)
            else:
                self.state.slots[key] = slot

    # ---------------------------------------------------------------- functions made here

    def use(self, content: Content) -> None:
        """Let a content's functions take their names now: it is called, or leaves our sight."""
        if content.bodies:
            self.resolve(content.bodies)

    def resolve(self, bodies: Iterable[LocalFunction], *, called: bool = True) -> None:
        """Keep as read what functions, and those that they may call, take from before."""
        # When a function made here is called is not known, once it is out of sight: from now on each name that its body
        # loads may be asked for. Where the name may still hold the earlier value, that value is read; where it holds
        # another function made here, that one may be called too.
        todo = list(bodies)
        visited: set[LocalFunction] = set()
        while todo:
            body = todo.pop()
            if body in visited:
                continue
            visited.add(body)
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
        """Keep what a function that may run from now on may do to names."""
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
        """Return the names whose objects some names may share here."""
        slots = self.state.slots
        return NO_NAMES.union(*(slots[name].roots for name in names if name in slots))

    def call_surely(self, body: LocalFunction) -> None:
        """Keep the effects of the one function that surely runs now, the sure ones as such."""
        for name in body.sure_loads:
            slot = self.state.slots.get(name, UNTOUCHED)
            if slot.bits & PREVIOUS:
                self.take(name, slot, None)
        self.resolve([body])
        for name in body.sure_stores:
            self._set(name, BOUND._replace(bits=AGAIN) if name in self.state.read else BOUND)

    def keep_function(self, body: LocalFunction, *, held: frozenset[str] = NO_NAMES) -> Content:
        """Return the content of a function made here.

        Inside a function it counts as called: nobody follows it there.
        """
        self.facts.functions.append(body)
        if self.scope.is_function:
            self.resolve([body])
            return NOTHING
        return Content(frozenset({body}), NO_NAMES, held)

    # ---------------------------------------------------------------- blocks and functions

    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Walk statements one after another as long as they can be reached."""
        for node in statements:
            if self.dead:
                return
            getattr(self, "do_" + type(node).__name__.lower(), self.do_other)(node)

    def finish(self) -> Paths:
        """Return the state at the block's end: what all ways out have in common, normal ones before raised ones."""
        ends = [*self.jumps.returns, self.end()]
        state = join_states(ends)
        if state is None:  # it never ends by itself: what it had bound by the time it stops is not known
            state = join_states(self.raised) or self.state
            for name in self.facts.stores:
                state.weaken(name, BOUND)
        for other in (*ends, *self.raised):
            if other is not None:
                state.read &= other.read
        self.go(state)
        return state

    def summarise(self, node: Function) -> LocalFunction:
        """Return what a function's body does to the names around it, found once for each function."""
        self.context.asked = True
        if (body := self.context.bodies.get(id(node))) is not None:
            return body
        statements: list[ast.stmt] = [ast.Return(node.body)] if isinstance(node, ast.Lambda) else node.body
        parameters = frozenset(mangle(arg.arg, self.class_name) for arg in arguments_of(node))
        body = self._summarise(statements, parameters)
        if isinstance(node, ast.AsyncFunctionDef):
            body = msgspec.structs.replace(body, plain=False)
        self.context.bodies[id(node)] = body
        return body

    def summarise_block(self, statements: list[ast.stmt], owner: ast.AST) -> LocalFunction:
        """Return what statements that run as a function without parameters do to the names around them."""
        self.context.asked = True
        if (body := self.context.bodies.get(id(owner))) is None:
            body = self.context.bodies[id(owner)] = self._summarise(statements, NO_NAMES)
        return body

    def _summarise(self, statements: list[ast.stmt], parameters: frozenset[str]) -> LocalFunction:
        names = block_names(statements)
        declared = frozenset(mangle(name, self.class_name) for name in names.global_)
        own = parameters.union(mangle(name, self.class_name) for name in names.bound)
        outer = (self.scope.outer | self.scope.own | self.hidden) - declared
        inner = Walk(self.context, Scope(True, own, outer, declared), self.class_name)
        inner.state.slots.update(dict.fromkeys(("\2" + name for name in parameters), BOUND))
        inner.place = self.place
        inner.origins = {name: origin for name, origin in self.origins.items() if name not in own}
        inner.run(statements)
        end = inner.finish()
        facts = inner.facts
        return LocalFunction(
            loads=frozenset(facts.reads | facts.expanded),
            sure_loads=frozenset(end.read),
            stores=frozenset(facts.stores),
            sure_stores=frozenset(name for name in facts.stores if is_surely_bound(end.slots.get(name, UNTOUCHED))),
            drops=frozenset(facts.drops),
            changed=frozenset(facts.changed),
            possible=frozenset(facts.possible),
            escapes=frozenset(facts.escapes),
            iterated=frozenset(facts.iterated),
            plain=not names.yields,
        )

    def later(self, nodes: Sequence[ast.AST], hidden: frozenset[str]) -> LocalFunction:
        """Return the names in expressions that are evaluated on request (annotations, type aliases) as a body."""
        names = {
            mangle(part.id, self.class_name)
            for node in nodes
            for part in descend(node)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
        }
        loads = frozenset(name for name in names - hidden if self.is_global(name))
        return LocalFunction(loads=loads, plain=False)

    def define(self, name: str, content: Content) -> None:
        """Bind a name by an import, `def` or `class`, and keep it as a definition where it is one."""
        name = mangle(name, self.class_name)
        self.bind(name, content)
        if self.frame is None and not self.scope.is_function and not self.in_loop:
            self.facts.definitions.add(name)

    # ---------------------------------------------------------------- expressions

    def expr(self, node: ast.expr) -> Content:
        """Walk an expression and return what its value may be."""
        content: Content = getattr(self, "on_" + type(node).__name__.lower(), self.on_other)(node)
        return content

    def value(self, node: ast.expr | None) -> None:
        """Walk an expression whose value goes nowhere that we follow."""
        if node is not None:
            self.use(self.expr(node))

    def sometimes(self, nodes: Iterable[ast.expr]) -> list[Content]:
        """Walk expressions of which each runs only if the one before did, the first surely; return their contents."""
        contents: list[Content] = []
        exits: list[Paths | None] = []
        first, *rest = nodes
        contents.append(self.expr(first))
        self.unsure += 1
        for node in rest:
            if self.context.forks:
                exits.append(self.state.copy())
            contents.append(self.expr(node))
        self.unsure -= 1
        if exits:
            self.go(join_states([*exits, self.state]))
        return contents

    def test(self, node: ast.expr) -> tuple[Paths | None, Paths | None]:
        """Walk a condition and return the states where it holds and where it does not."""
        truth = _constant_truth(node)
        if truth is not None:
            return (self.state, None) if truth else (None, self.state)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self.test(node.operand)[::-1]
        if isinstance(node, ast.BoolOp) and self.context.forks:
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
        """Use the parts of an expression that has no rule of its own; its value is new."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
        return NOTHING

    def on_constant(self, _node: ast.Constant) -> Content:
        """Return nothing: a constant takes nothing."""
        return NOTHING

    def on_name(self, node: ast.Name) -> Content:
        """Load a name."""
        return self.load(mangle(node.id, self.class_name), node)

    def on_attribute(self, node: ast.Attribute) -> Content:
        """Return a part of the object whose attribute is asked for."""
        return self.receiver(node).as_element()

    def receiver(self, node: ast.Attribute) -> Content:
        """Return the content of what an attribute is looked up on; those of `__main__` are names of the notebook."""
        root = node.value.id if isinstance(node.value, ast.Name) else ""
        if self.origins.get(root) == "__main__" and isinstance(node.ctx, ast.Load):
            self.load_outer(node.attr, node)
        if message := dynamic_attribute(node):
            self.diagnose(node, "dynamic", node.attr, message)
        return self.expr(node.value)

    def on_subscript(self, node: ast.Subscript) -> Content:
        """Return a part of the object that is subscripted."""
        if dotted_name(node.value) == "sys.modules":
            self.diagnose(node, "dynamic", "sys.modules", "sys.modules[...] reaches names that the cell does not show")
        if (name := self.spelled(node)) is not None:
            return self.load(name, node)
        content = self.expr(node.value)
        self.value(node.slice)
        return content.as_element()

    def spelled(self, node: ast.expr) -> str | None:
        """Return the notebook's name that an item of its namespace stands for: `globals()["x"]` outside functions."""
        if self.scope.is_function or self.frame is not None or self.hidden or self.class_name is not None:
            return None
        name = spelled_name(node)
        return name if name is not None and all(map(self.is_free, ("globals", "locals", "vars"))) else None

    def on_starred(self, node: ast.Starred) -> Content:
        """Return the elements of a starred value."""
        content = self.expr(node.value)
        self.facts.iterated |= content.roots
        return content.as_element()

    def on_tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Content:
        """Return a new container that holds the elements."""
        return merge_contents(self.expr(element) for element in node.elts).as_container()

    on_list = on_tuple
    on_set = on_tuple

    def on_dict(self, node: ast.Dict) -> Content:
        """Return a new container that holds the values."""
        contents = []
        for key, value in zip(node.keys, node.values, strict=True):
            self.value(key)
            contents.append(self.expr(value))
        return merge_contents(contents).as_container()

    def on_binop(self, node: ast.BinOp) -> Content:
        """Return a new object; sums and unions may hold the operands' elements. Long sums are walked in a row."""
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
        """Return one of the operands of `and` or `or`."""
        return merge_contents(self.sometimes(node.values))

    def on_compare(self, node: ast.Compare) -> Content:
        """Walk a comparison, which stops at the first part that fails."""
        first = [node.left, node.comparators[0]]
        self.value(first[0])
        for content in self.sometimes([first[1], *node.comparators[1:]]):
            self.use(content)
        return NOTHING

    def on_ifexp(self, node: ast.IfExp) -> Content:
        """Walk both branches, of which one runs."""
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
        """Bind `:=` in the block around, out of comprehensions too."""
        content = self.expr(node.value)
        self.bind(mangle(node.target.id, self.class_name), content)
        return content

    def on_await(self, node: ast.Await) -> Content:
        """Run what is awaited."""
        self._note_await()
        content = self.expr(node.value)
        self.hand_over(content)
        return NOTHING

    def on_yield(self, node: ast.Yield) -> Content:
        """Let what is yielded leave our sight."""
        if node.value is not None:
            self.hand_over(self.expr(node.value))
        return NOTHING

    def on_yieldfrom(self, node: ast.YieldFrom) -> Content:
        """Let what is yielded leave our sight."""
        self.hand_over(self.expr(node.value))
        return NOTHING

    def on_lambda(self, node: ast.Lambda) -> Content:
        """Keep a lambda's names for later."""
        return self.keep_function(self.summarise(node), held=self.defaults(node))

    def defaults(self, node: Function) -> frozenset[str]:
        """Walk a function's defaults and return the names whose objects they hold."""
        contents = merge_contents(
            self.expr(default) for default in (*node.args.defaults, *filter(None, node.args.kw_defaults))
        )
        self.use(contents)
        return contents.all_roots

    def hand_over(self, content: Content) -> None:
        """Give a content to other code: its functions take their names, its objects may be changed."""
        self.use(content)
        self.facts.escapes |= content.all_roots

    def _note_await(self) -> None:
        if not self.scope.is_function:
            self.facts.awaits = True

    # ---------------------------------------------------------------- comprehensions

    def on_listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Content:
        """Walk a comprehension: its first iterable here, the rest in a scope of its own, maybe never."""
        return self._comprehend(node.generators, [node.elt])

    on_setcomp = on_listcomp
    on_generatorexp = on_listcomp

    def on_dictcomp(self, node: ast.DictComp) -> Content:
        """Walk a dict comprehension, likewise."""
        return self._comprehend(node.generators, [node.key, node.value])

    def _comprehend(self, generators: list[ast.comprehension], results: list[ast.expr]) -> Content:
        content = self.iterated(generators[0].iter)
        before = self.state.copy() if self.context.forks else None
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
                self._change_inside(each.target, content)
                for condition in each.ifs:
                    self.value(condition)
            contents = merge_contents([self.expr(result) for result in results])
            self.unsure -= 1
        if before is not None:
            self.go(join_states([before, self.state]))
        return contents.as_container()

    def _change_inside(self, target: ast.expr, content: Content) -> None:
        """Take in what a comprehension's target changes: `for xs[0] in …`."""
        if isinstance(target, ast.Tuple | ast.List | ast.Starred):
            for each in [target.value] if isinstance(target, ast.Starred) else target.elts:
                self._change_inside(each, content.as_element())
        elif not isinstance(target, ast.Name):
            self.use(content)
            self.change(target, content)

    def iterated(self, node: ast.expr) -> Content:
        """Walk an iterable and return the content of its elements."""
        content = self.expr(node)
        self.use(content)
        self.facts.iterated |= content.roots
        return content.as_element()

    # ---------------------------------------------------------------- calls

    def on_call(self, node: ast.Call) -> Content:
        """Run the callee and hand it the arguments."""
        func = node.func
        if isinstance(func, ast.Attribute) and is_shell(func.value) and (magic := read_magic(node)):
            return self._on_magic(node, magic)
        is_method = isinstance(func, ast.Attribute)
        callee = self.receiver(func) if isinstance(func, ast.Attribute) else self.expr(func)
        quoted = read_quoted(node, self.origins, self.is_free)
        seen = quoted.spaces if quoted is not None else ()  # what is taken from them stands in the text
        given = [(None, argument) for argument in node.args] + [(each.arg, each.value) for each in node.keywords]
        arguments_by_name: list[tuple[str | None, Content]] = [
            (name, self.expr(value)) for name, value in given if value not in seen
        ]
        arguments = merge_contents(content for _, content in arguments_by_name)
        self.use(arguments)
        if (surely := self._sole_body(func, callee)) is not None:
            self.call_surely(surely)
        else:
            self.use(callee)
        if not is_exempt(node, self.origins, self.is_free):
            self._hand_to_call(node, callee, arguments, is_method=is_method)
        self._note_in_place(node, callee, arguments_by_name)
        if quoted is not None:
            self._on_quoted(node, quoted)
        if quoted is not None and quoted.code is not None:
            return NOTHING
        if message := dynamic_call(node, self.origins, self.is_free, in_function=self.scope.is_function):
            self.diagnose(node, "dynamic", root_name(func) or "", message)
        return NOTHING

    def _on_quoted(self, node: ast.Call, quoted: Quoted) -> None:
        """Read what a text reads that a call is given, and run what it runs."""
        for name in quoted.reads:
            if name == MAIN:
                self.sink.add(name)
            else:
                self.load(name, node)
        names = (ast.Name(name, ast.Load(), lineno=node.lineno, col_offset=node.col_offset) for name in quoted.perhaps)
        self.expand(names)
        if quoted.code is not None:
            code = self.context.parsed.setdefault(id(node), quoted.code)
            self._run_text(node, code, leaks=quoted.language != "timed")

    def _run_text(self, node: ast.Call, code: ast.Module, *, leaks: bool) -> None:
        """Run code that stands in a text: in the block around it where its names stay, else as in a function."""
        before, self.place = self.place, self.place or (node.lineno, node.col_offset)
        if leaks and not self.scope.is_function and self.frame is None and not self.hidden:
            self.run(code.body)
        else:
            self.call_surely(self.summarise_block(code.body, code))
        self.place = before

    def _sole_body(self, func: ast.expr, callee: Content) -> LocalFunction | None:
        """Return the one function that a callee surely is; None where it may be another or may not run."""
        if self.unsure or len(callee.bodies) != 1 or not isinstance(func, ast.Name):
            return None
        (body,) = callee.bodies
        slot = self.state.slots.get(self.key(mangle(func.id, self.class_name)), UNTOUCHED)
        return body if body.plain and is_surely_bound(slot) else None

    def is_free(self, name: str) -> bool:
        """Return whether a name still means what it meant before this code."""
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
        """Return the receiver of `x.f().g()`, through the calls: x and what x may be."""
        if root in BUILTINS or not any(isinstance(part, ast.Attribute) for part in _callees(func)):
            return NO_NAMES
        slot = self.state.slots.get(self.key(root), UNTOUCHED)
        return slot.roots | {root} if self.is_global(root) else slot.roots

    def _note_in_place(self, node: ast.Call, callee: Content, passed: list[tuple[str | None, Content]]) -> None:
        """Keep what is changed whatever becomes of the result: the receiver by `inplace=True`, x by `out=x`."""
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
            tree = self.context.parsed.get(id(node)) or parse_python(magic.code).tree or ast.Module([], [])
            self.context.parsed[id(node)] = tree
            self._run_text(node, tree, leaks=magic.leaks)
        for name in magic.binds:
            self.bind(name)
        self.place = before
        return NOTHING

    def expand(self, fields: Iterable[ast.expr]) -> None:
        """Keep what the `{expr}` and `$name` of a shell line take apart: the line runs without it too."""
        before, self.sink = self.sink, self.facts.expanded
        self.unsure += 1
        for each in fields:
            self.value(each)
        self.unsure -= 1
        self.sink = before

    # ---------------------------------------------------------------- simple statements

    def do_other(self, node: ast.stmt) -> None:
        """Do nothing: pass, global and nonlocal have no effect here."""

    def do_expr(self, node: ast.Expr) -> None:
        """Drop a value; the last one is shown. What a call was for is then its effect."""
        self.discarded.update(discarded_calls(node.value))
        self.value(node.value)

    def do_assign(self, node: ast.Assign) -> None:
        """Bind values from left to right, those of `a, b = x, y` pairwise."""
        value = node.value
        parts: list[Content] | None = None
        if isinstance(value, ast.Tuple | ast.List) and not any(isinstance(part, ast.Starred) for part in value.elts):
            parts = [self.expr(part) for part in value.elts]
            content = Content(
                NO_BODIES.union(*(part.bodies for part in parts)),
                NO_NAMES,
                NO_NAMES.union(*(part.all_roots for part in parts)),
            )
        else:
            content = self.expr(value)
        origins = self.origins.copy() if isinstance(value, ast.Constant) else None
        for target in node.targets:
            pairs = target.elts if isinstance(target, ast.Tuple | ast.List) else []
            if (
                pairs
                and parts is not None
                and len(pairs) == len(parts)
                and not any(isinstance(t, ast.Starred) for t in pairs)
            ):
                for each, part in zip(pairs, parts, strict=True):
                    self.assign(each, part)
            else:
                self.assign(target, content)
        if origins is not None:  # `x = None` where an import fails: what is called on x is still the module
            self.origins.update(origins)

    def do_annassign(self, node: ast.AnnAssign) -> None:
        """Bind an annotated name that has a value; an annotation alone binds nothing."""
        if node.value is not None:
            self.assign(node.target, self.expr(node.value))
        elif isinstance(node.target, ast.Attribute | ast.Subscript):
            self.value(node.target.value)
        if not self.scope.is_function:
            self.annotations([node.annotation])

    def annotations(self, nodes: Sequence[ast.expr]) -> LocalFunction | None:
        """Evaluate annotations here, or return a body for those that wait for a request; text is not evaluated."""
        if self.context.postponed:
            self.context.hints |= self.later(nodes, NO_NAMES).loads
            return None
        if not self.context.lazy_annotations:
            for node in nodes:
                self.value(node)
            return None
        if nodes:
            self.loose.append(body := self.later(nodes, NO_NAMES))
            self.facts.functions.append(body)
            return body
        return None

    def do_augassign(self, node: ast.AugAssign) -> None:
        """Read and write x of `x += y`, whose object may change in place."""
        target = node.target
        if not isinstance(target, ast.Name):
            base = self.look_up(target)
            added = self.expr(node.value)
            self.use(added)
            self.mark_change(target, base, added)
            return
        name = mangle(target.id, self.class_name)
        before = self.load(name, target)
        self.use(before)
        added = self.expr(node.value)
        self.use(added)
        # in a class body the object may be the module's, the new name is the class's
        self.facts.possible |= before.roots - {name} if self.is_global(name) else before.roots
        self.bind(name, Content(before.bodies, before.roots - {name}, before.held | added.all_roots))

    def assign(self, target: ast.expr, content: Content) -> None:
        """Bind a target to a content, or change its object."""
        if isinstance(target, ast.Name):
            self.bind(mangle(target.id, self.class_name), content)
        elif isinstance(target, ast.Tuple | ast.List):
            self.facts.iterated |= content.roots
            for each in target.elts:
                self.assign(each, content.as_element())
        elif isinstance(target, ast.Starred):
            self.assign(target.value, content.as_container())
        elif (name := self.spelled(target)) is not None:
            self.bind(name, content)
        else:
            self.use(content)
            self.change(target, content)

    def change(self, target: ast.expr, content: Content = NOTHING) -> None:
        """Read and write x of the target `x[k]` or `x.a`, which may hold the content from now on."""
        if isinstance(target, ast.Attribute | ast.Subscript):
            self.mark_change(target, self.look_up(target), content)

    def look_up(self, target: ast.Attribute | ast.Subscript) -> Content:
        """Walk what a target is looked up on and return its content."""
        if isinstance(target, ast.Attribute):
            base = self.receiver(target)
        else:
            base = self.expr(target.value)
            self.value(target.slice)
        self.use(base)
        return base

    def mark_change(self, target: ast.Attribute | ast.Subscript, base: Content, content: Content) -> None:
        """Keep the change of a target, by what it is looked up on and what it is given."""
        # The name that is written down has surely changed its object; other names that may share it possibly have.
        # What it is given lives on inside it: a later change through it may reach that too.
        root = root_name(target.value)
        if root is None:
            self.facts.possible |= base.roots
            return
        root = mangle(root, self.class_name)
        if self.is_global(root):
            self.facts.changed.add(root)
            if not self.unsure:
                self.state.changed.add(root)
        self.facts.possible |= base.roots - {root} if self.is_global(root) else base.roots
        slot = self.state.slots.get(key := self.key(root), UNTOUCHED if self.is_global(root) else BOUND)
        if content.all_roots:
            self.state.slots[key] = slot._replace(held=slot.held | content.all_roots)

    def do_delete(self, node: ast.Delete) -> None:
        """Unbind x of `del x`, which needs x; `del x[k]` changes x."""
        for target in node.targets:
            self._delete(target)

    def _delete(self, target: ast.expr) -> None:
        if isinstance(target, ast.Name):
            name = mangle(target.id, self.class_name)
            self.load(name, target)
            self.unbind(name)
        elif isinstance(target, ast.Tuple | ast.List):
            for each in target.elts:
                self._delete(each)
        else:
            self.change(target)

    def do_import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Bind an import's names; an unknown `*` binds what nobody sees, and what is of `__main__` is read there."""
        if getattr(node, "module", None) == "__main__":
            for alias in node.names:
                self.load_outer(alias.name, node)
        for name, origin in import_pairs(node, self.context.stars):
            self.define(name, NOTHING)
            self.origins[mangle(name, self.class_name)] = origin
        for alias in node.names:
            if isinstance(node, ast.ImportFrom) and alias.name == "*":
                module = module_of(node)
                if module not in self.context.stars:
                    what = f"from {module} import * binds names that the cell does not show"
                    self.diagnose(node, "star-import", module, what)
            elif alias.name == "__main__" and isinstance(node, ast.Import):
                self.diagnose(node, "dynamic", "__main__", "__main__ reaches names that the cell does not show")

    do_importfrom = do_import

    def do_typealias(self, node: ast.stmt) -> None:
        """Keep the names of `type X = ...` for later: it is evaluated on request."""
        parameters = frozenset(str(getattr(each, "name", "")) for each in type_params(node))
        body = self.later([node.value, *type_params(node)], parameters)  # type: ignore[attr-defined]
        self.define(node.name.id, self.keep_function(body))  # type: ignore[attr-defined]

    def do_raise(self, node: ast.Raise) -> None:
        """Go nowhere: nothing runs after `raise`."""
        self.value(node.exc)
        self.value(node.cause)
        if not self.catchers:
            self.raised.append(self.state)
        self.dead = True

    def do_assert(self, node: ast.Assert) -> None:
        """Walk an assertion; its message is evaluated only where it fails."""
        holds, fails = self.test(node.test)
        if fails is not None and node.msg is not None:
            self.go(fails)
            self.value(node.msg)
        self.go(holds)

    def do_return(self, node: ast.Return) -> None:
        """Let what a function returns leave our sight."""
        if node.value is not None:
            self.hand_over(self.expr(node.value))
        self.jumps.returns.append(self.state)
        self.dead = True

    def do_break(self, _node: ast.Break) -> None:
        """Leave the loop."""
        self.jumps.breaks.append(self.state)
        self.dead = True

    def do_continue(self, _node: ast.Continue) -> None:
        """Go on to the loop's next turn."""
        self.jumps.continues.append(self.state)
        self.dead = True

    # ---------------------------------------------------------------- definitions

    def do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Walk a function's decorators and defaults now, its body later; a decorator may call it at once."""
        inner, decorators = self._decorators(node.decorator_list)
        held = self.defaults(node)
        parameters = {mangle(str(getattr(each, "name", "")), self.class_name) for each in type_params(node)}
        bounds = [self.later(type_params(node), frozenset(parameters))] if parameters else []
        self.facts.functions.extend(bounds)
        annotations = [arg.annotation for arg in arguments_of(node) if arg.annotation is not None]
        annotations += [node.returns] if node.returns is not None else []
        if parameters:
            with self.hide(parameters):
                late = self.annotations(annotations)
                body = self.summarise(node)
        else:
            late = self.annotations(annotations)
            body = self.summarise(node)
        if node.decorator_list:
            body = msgspec.structs.replace(body, plain=False)
        content = self.keep_function(body, held=held)
        if content.bodies:
            content = content._replace(bodies=content.bodies.union(inner, bounds, [late] if late else []))
        self._decorate(content, decorators)
        self.define(node.name, content)

    do_asyncfunctiondef = do_functiondef

    def _decorators(self, decorators: Sequence[ast.expr]) -> tuple[frozenset[LocalFunction], list[Content]]:
        """Return functions that live on in what the decorators make (`x.setter`), and decorators that are called."""
        bodies = NO_BODIES
        calls = []
        for decorator in decorators:
            content = self.expr(decorator)
            if is_inert(decorator):
                bodies |= content.bodies
            else:
                calls.append(content)
        return bodies, calls

    def _decorate(self, content: Content, decorators: list[Content]) -> None:
        """Hand what has been defined to the decorators that are called with it; they may do anything with it."""
        for decorator in decorators:
            self.use(content)
            self.hand_over(decorator)

    def do_classdef(self, node: ast.ClassDef) -> None:
        """Walk a class: its body runs now in a scope that its methods do not see."""
        _, decorators = self._decorators(node.decorator_list)
        parameters = {mangle(str(getattr(each, "name", "")), self.class_name) for each in type_params(node)}
        if parameters:
            with self.hide(parameters):
                bodies = self._class_body(node)
            bodies |= {bounds := self.later(type_params(node), frozenset(parameters))}
            self.facts.functions.append(bounds)
        else:
            bodies = self._class_body(node)
        content = Content(bodies, NO_NAMES, NO_NAMES) if bodies else NOTHING
        self._decorate(content, decorators)
        self.define(node.name, content)

    def _class_body(self, node: ast.ClassDef) -> frozenset[LocalFunction]:
        """Walk a class's bases and body and return the functions that it holds."""
        for expression in (*node.bases, *(keyword.value for keyword in node.keywords)):
            content = self.expr(expression)
            if not isinstance(expression, ast.Name):
                self.use(content)
        outside = self.frame, self.class_name
        names = frozenset(mangle(name, node.name) for name in block_names(node.body).bound)
        self.frame = frame = ClassFrame(f"\0{id(node)}.", names)
        self.class_name = node.name
        for name in names:
            self.state.slots[frame.prefix + name] = UNBOUND
        self.run(node.body)
        self.frame, self.class_name = outside
        slots = [self.state.slots.pop(frame.prefix + name, UNBOUND) for name in names]
        return frozenset(msgspec.structs.replace(body, plain=False) for slot in slots for body in slot.bodies)

    # ---------------------------------------------------------------- branches

    def do_if(self, node: ast.If) -> None:
        """Walk both branches, or one where the condition is written down."""
        holds, fails = self.test(node.test)
        ends = []
        for state, branch in ((holds, node.body), (fails, node.orelse)):
            self.go(state)
            self.run(branch)
            ends.append(self.end())
        self.go(join_states(ends))

    def do_match(self, node: ast.Match) -> None:
        """Try cases in order; a pattern that fits binds before its guard is asked."""
        subject = self.expr(node.subject)
        self.use(subject)
        ends: list[Paths | None] = []
        for case in node.cases:
            missed: Paths | None = self.state.copy()
            self._pattern(case.pattern, subject)
            if case.guard is not None:
                holds, fails = self.test(case.guard)
                missed = fails if _is_irrefutable(case.pattern) else join_states([missed, fails])
                self.go(holds)
            elif _is_irrefutable(case.pattern):
                missed = None
            self.run(case.body)
            ends.append(self.end())
            self.go(missed)
            if missed is None:
                break
        self.go(join_states([*ends, self.end()]))

    def _pattern(self, pattern: ast.pattern, subject: Content) -> None:
        self.unsure += 1  # which parts are looked at depends on the subject
        names: list[str] = []
        for part in ast.walk(pattern):
            if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name is not None:
                names.append(part.name)
            elif isinstance(part, ast.MatchMapping):
                names += [part.rest] if part.rest is not None else []
                for key in part.keys:
                    self.value(key)
            elif isinstance(part, ast.MatchValue):
                self.value(part.value)
            elif isinstance(part, ast.MatchClass):
                self.value(part.cls)
        self.unsure -= 1
        for name in names:
            self.bind(mangle(name, self.class_name), subject.as_element())

    # ---------------------------------------------------------------- loops

    def do_for(self, node: ast.For | ast.AsyncFor) -> None:
        """Walk the body any number of times, at least once where the iterable is written down."""
        if isinstance(node, ast.AsyncFor):
            self._note_await()
        element = self.iterated(node.iter)
        surely = self._has_elements(node.iter)

        def turn() -> Paths | None:
            if not surely:
                entry: Paths | None = self.state.copy()
            else:
                entry = None
            self.assign(node.target, element)
            return entry

        self._loop(turn, node.body, node.orelse, first_exit=not surely)

    do_asyncfor = do_for

    def do_while(self, node: ast.While) -> None:
        """Walk the body while the condition holds; `while True` ends only by `break`."""

        def turn() -> Paths | None:
            holds, fails = self.test(node.test)
            self.go(holds)
            return fails

        self._loop(turn, node.body, node.orelse, first_exit=True)

    def _loop(
        self, turn: Callable[[], Paths | None], body: list[ast.stmt], orelse: list[ast.stmt], *, first_exit: bool
    ) -> None:
        """Walk a loop's turns until the state at their start stays the same.

        What one turn binds so reaches the next. `turn` walks a turn's head, leaves the body's state and returns the
        state in which the loop ends; `first_exit` tells whether the body may not run at all.
        """
        # A turn may read what the turn before it bound, so one pass is not enough. Each pass starts from the join of
        # all passes so far; slots only gain bits, so this settles, and four passes are a bound for chains of names.
        outside, self.jumps = self.jumps, Jumps(returns=self.jumps.returns)
        self.nesting += 1
        self.in_loop += 1
        entry = self.state
        first_read: set[str] | None = None
        ending: Paths | None = None
        for _ in range(4 if self.nesting <= _DEEP else 1):
            self.jumps = Jumps(returns=outside.returns)
            self.go(entry.copy())
            ending = turn()
            if not self.dead:
                self.run(body)
            end = join_states([self.end(), *self.jumps.continues])
            if end is None:
                break
            if not first_exit:
                first_read = end.read.copy() if first_read is None else first_read
                end.read |= first_read
                ending = end  # at least one turn is behind us
            following = join_states([entry, end])
            if following is None or following.slots == entry.slots:
                break
            entry = following
        else:
            ending = join_states([ending, entry.copy()]) if ending is not None and first_exit else ending
        self.in_loop -= 1
        self.nesting -= 1
        breaks, self.jumps = self.jumps.breaks, outside
        self.go(ending.copy() if ending is not None else None)
        if not self.dead:
            self.run(orelse)
        self.go(join_states([self.end(), *breaks]))

    def _has_elements(self, node: ast.expr) -> bool:
        """Return whether an iterable surely has an element: a display, or `range` of a positive number."""
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(not isinstance(each, ast.Starred) for each in node.elts)
        if isinstance(node, ast.Dict):
            return any(key is not None for key in node.keys)
        match node:
            case ast.Constant(str(text)):
                return bool(text)
            case ast.Call(ast.Name("range"), [ast.Constant(int(count))], []):
                return count > 0 and self.is_free("range")
            case ast.Call(ast.Name("enumerate" as name), [inner, *_]):
                return self.is_free(name) and self._has_elements(inner)
        return False

    # ---------------------------------------------------------------- with and try

    def do_with(self, node: ast.With | ast.AsyncWith) -> None:
        """Enter objects, which may change; the body runs to its end unless its exceptions are known to be swallowed."""
        suppressed = False
        for item in node.items:
            content = self.expr(item.context_expr)
            self.hand_over(content)
            if isinstance(item.context_expr, ast.Call):
                func = item.context_expr.func
                name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
                suppressed = suppressed or name in _SUPPRESSORS
            if item.optional_vars is not None:
                self.assign(item.optional_vars, content)
        if isinstance(node, ast.AsyncWith):
            self._note_await()
        if suppressed:
            stopped = self._guarded(node.body)
            self.go(join_states([self.end(), stopped]))
        else:
            self.run(node.body)

    do_asyncwith = do_with

    def _guarded(self, body: list[ast.stmt]) -> Paths:
        """Walk statements that may stop anywhere and return the state in which an exception finds the names."""
        start = self.state.copy()
        catcher: dict[str, Slot] = start.slots.copy()
        self.catchers.append(catcher)
        self.run(body)
        self.catchers.pop()
        return Paths(catcher, start.read, start.changed)

    def do_try(self, node: ast.Try) -> None:
        """Walk a body that may stop anywhere, handlers, and `finally`, which runs on every way out."""
        if not node.finalbody:
            self._try(node)
            return
        # `finally` runs once after a normal end and once on the way out of an exception or a jump, with other states.
        # It is walked for both, the second only so that jumps go on from behind it and what it reads is seen.
        outside = self.jumps
        self.jumps = Jumps()
        start = self.state.copy()
        catcher = start.slots.copy()
        self.catchers.append(catcher)
        self._try(node)
        self.catchers.pop()
        normal, jumps, self.jumps = self.end(), self.jumps, outside
        abnormal = join_states(
            [Paths(catcher, start.read, start.changed), *jumps.breaks, *jumps.continues, *jumps.returns]
        )
        if self.nesting >= _DEEP:
            normal = abnormal = join_states([normal, abnormal])
        self.nesting += 1
        self.go(abnormal.copy() if abnormal is not None else None)
        self.run(node.finalbody)
        after = self.end()
        for target, states in (
            (outside.breaks, jumps.breaks),
            (outside.continues, jumps.continues),
            (outside.returns, jumps.returns),
        ):
            target.extend([after.copy()] if states and after is not None else [])
        self.go(normal)
        if not self.dead:
            self.run(node.finalbody)
        self.nesting -= 1

    do_trystar = do_try

    def _try(self, node: ast.Try) -> None:
        if not node.handlers:
            self.run([*node.body, *node.orelse])
            return
        stopped = self._guarded(node.body)
        ends: list[Paths | None] = []
        if not self.dead:
            self.run(node.orelse)
        ends.append(self.end())
        for handler in node.handlers:
            self.go(stopped.copy())
            if handler.type is not None:
                self.value(handler.type)
            self._handle(handler)
            ends.append(self.end())
        self.go(join_states(ends))

    def _handle(self, handler: ast.ExceptHandler) -> None:
        """Walk a handler's body. The name of the exception ends with it, on jumps out of it too."""
        if handler.name is None:
            self.run(handler.body)
            return
        name = mangle(handler.name, self.class_name)
        self.bind(name)
        ways_out = (self.jumps.breaks, self.jumps.continues, self.jumps.returns, self.raised)
        before = [len(states) for states in ways_out]
        self.run(handler.body)
        for states, count in zip(ways_out, before, strict=True):
            for state in states[count:]:
                if state is not None:
                    state.slots[self.key(name)] = UNBOUND
        self.unbind(name)  # also where nothing goes on from here: an exception may be on its way out


def _callees(func: ast.expr) -> Iterator[ast.expr]:
    """Yield the callees inside a callee, itself left out."""
    while isinstance(func, ast.Attribute | ast.Subscript | ast.Call | ast.Await):
        func = func.func if isinstance(func, ast.Call) else func.value
        yield func


def _constant_truth(node: ast.expr) -> bool | None:
    """Return a condition's truth where it is written down (`True`, `0`, `__name__ == "__main__"`), else None."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    match node:
        case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
            return True  # a cell always runs as the main module
    return None


def _is_irrefutable(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _is_irrefutable(pattern.pattern)
    return isinstance(pattern, ast.MatchOr) and any(_is_irrefutable(each) for each in pattern.patterns)
