"""Names loaded, bound and deleted along the paths of a block → what each may hold, and which are taken from before.

The state is a map from names to slots (analysis_state). A name is a read where its value from before may still be
there when it is loaded. Functions made in the cell take their names when they are called or leave our sight.
"""

import ast
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nbflow.analysis_facts import (
    ADVICE,
    BUILTINS,
    MODULE_GLOBALS,
    NO_NAMES,
    Diagnostic,
    DiscardedCall,
    is_hidden_state,
)
from nbflow.analysis_scopes import (
    MODULE_SCOPE,
    Function,
    Scope,
)
from nbflow.analysis_state import (
    AGAIN,
    BOUND,
    GONE,
    HERE,
    NO_BODIES,
    NOTHING,
    PREVIOUS,
    UNBOUND,
    UNTOUCHED,
    Body,
    Content,
    Slot,
    State,
    is_bound,
    join_slots,
)

Diagnostics = dict[tuple[str, int, int, str], Diagnostic]


@dataclass(slots=True)
class Facts:
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
    made: list[Body] = field(default_factory=list)
    calls: dict[tuple[int, int], DiscardedCall] = field(default_factory=dict)
    magics: dict[str, None] = field(default_factory=dict)
    awaits: bool = False


@dataclass(slots=True)
class Session:
    """What all walks over one cell share: bodies seen, imports of the cell, diagnostics found in bodies."""

    forks: bool  # whether expressions bind names (`:=`), so that their branches matter
    lazy_annotations: bool
    postponed: bool = False  # annotations are text: `from __future__ import annotations` here or above
    hints: set[str] = field(default_factory=set)  # names in such annotations
    origins: dict[str, str] = field(default_factory=dict)  # name bound by an import in the cell -> where from
    bodies: dict[int, Body] = field(default_factory=dict)
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

    def __init__(self, session: Session, scope: Scope = MODULE_SCOPE, class_name: str | None = None) -> None:
        self.session = session
        self.scope = scope
        self.class_name = class_name
        self.state = State()
        self.dead = False
        self.facts = Facts()
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
    def summarise(self, node: Function) -> Body:
        """A function in; what its body does to the names around it out."""

    @abstractmethod
    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Statements in; walked from the present state."""

    @abstractmethod
    def summarise_block(self, statements: list[ast.stmt], owner: ast.AST) -> Body:
        """Statements that run as a function of their own in; what they do to the names around it out."""

    # ---------------------------------------------------------------- paths

    def end(self) -> State | None:
        """The state reached, out; None where this point is never reached."""
        return None if self.dead else self.state

    def go(self, state: State | None) -> None:
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

    def resolve(self, bodies: Iterable[Body], *, called: bool = True) -> None:
        """Functions in; what they, and those that they may call, take from before is kept as read."""
        todo = list(bodies)
        seen: set[Body] = set()
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

    def _apply(self, body: Body) -> None:
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

    def call_surely(self, body: Body) -> None:
        """The one function that surely runs now in; its effects are kept, the sure ones as such."""
        for name in body.sure_loads:
            slot = self.state.slots.get(name, UNTOUCHED)
            if slot.bits & PREVIOUS:
                self.take(name, slot, None)
        self.resolve([body])
        for name in body.sure_stores:
            self._set(name, BOUND._replace(bits=AGAIN) if name in self.state.read else BOUND)

    def keep_function(self, body: Body, *, held: frozenset[str] = NO_NAMES) -> Content:
        """A function made here in; its content out. Inside a function it counts as called: nobody follows it there."""
        self.facts.made.append(body)
        if self.scope.is_function:
            self.resolve([body])
            return NOTHING
        return Content(frozenset({body}), NO_NAMES, held)
