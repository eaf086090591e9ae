"""Statements, walked along every path → what may be taken from before, what is bound, changed or deleted at the end.

Paths meet by joining their states; loops may run zero times; `try` may stop after any statement that binds.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nbflow.analysis.expressions import ClassFrame, ExpressionFlow, WalkContext, discarded_calls, is_inert
from nbflow.analysis.paths import (
    BOUND,
    NO_BODIES,
    NOTHING,
    UNBOUND,
    UNTOUCHED,
    Content,
    LocalFunction,
    Paths,
    Slot,
    is_surely_bound,
    join_states,
)
from nbflow.analysis.result import NO_NAMES
from nbflow.analysis.scopes import (
    MODULE_SCOPE,
    Function,
    Scope,
    arguments_of,
    block_names,
    descend,
    import_pairs,
    mangle,
    root_name,
    type_params,
)


@dataclass(slots=True)
class Jumps:
    """States at which `break` and `continue` leave a loop's body, and `return` a function's."""

    breaks: list[Paths | None] = field(default_factory=list)
    continues: list[Paths | None] = field(default_factory=list)
    returns: list[Paths | None] = field(default_factory=list)


class BlockFlow(ExpressionFlow):
    """A walk that knows blocks, plain statements and definitions: one method for each, `do_` and the node's name."""

    def __init__(self, session: WalkContext, scope: Scope = MODULE_SCOPE, class_name: str | None = None) -> None:
        super().__init__(session, scope, class_name)
        self.jumps = Jumps()
        self.raised: list[Paths | None] = []
        self.nesting = 0
        self.in_loop = 0
        self.loose: list[LocalFunction] = []  # annotations that are evaluated on request
        for name in scope.own:
            self.state.slots["\2" + name] = UNBOUND

    # ---------------------------------------------------------------- blocks and functions

    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Statements in; walked one after another as long as they can be reached."""
        for node in statements:
            if self.dead:
                return
            getattr(self, "do_" + type(node).__name__.lower(), self.do_other)(node)

    def finish(self) -> Paths:
        """The state at the end of the block, out: what all ways out have in common, normal ones before raised ones."""
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
        """A function in; what its body does to the names around it out. Found once for each function."""
        if (known := self.session.bodies.get(id(node))) is not None:
            return known
        statements: list[ast.stmt] = [ast.Return(node.body)] if isinstance(node, ast.Lambda) else node.body
        parameters = frozenset(mangle(arg.arg, self.class_name) for arg in arguments_of(node))
        body = self._summarise(statements, parameters)
        if isinstance(node, ast.AsyncFunctionDef):
            body = replace(body, plain=False)
        self.session.bodies[id(node)] = body
        return body

    def summarise_block(self, statements: list[ast.stmt], owner: ast.AST) -> LocalFunction:
        """Statements that run as a function without parameters in; what they do to the names around them out."""
        if (known := self.session.bodies.get(id(owner))) is None:
            known = self.session.bodies[id(owner)] = self._summarise(statements, NO_NAMES)
        return known

    def _summarise(self, statements: list[ast.stmt], parameters: frozenset[str]) -> LocalFunction:
        names = block_names(statements)
        declared = frozenset(mangle(name, self.class_name) for name in names.global_)
        own = parameters.union(mangle(name, self.class_name) for name in names.bound)
        outer = (self.scope.outer | self.scope.own | self.hidden) - declared
        flow = type(self)(self.session, Scope(True, own, outer, declared), self.class_name)
        flow.state.slots.update(dict.fromkeys(("\2" + name for name in parameters), BOUND))
        flow.place = self.place
        flow.origins = {name: origin for name, origin in self.origins.items() if name not in own}
        flow.run(statements)
        end = flow.finish()
        facts = flow.facts
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
        """Expressions that are evaluated on request (annotations, type aliases) in; their names as a body out."""
        names = {
            mangle(part.id, self.class_name)
            for node in nodes
            for part in descend(node)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
        }
        loads = frozenset(name for name in names - hidden if self.is_global(name))
        return LocalFunction(loads=loads, plain=False)

    def define(self, name: str, content: Content) -> None:
        """A name that an import, `def` or `class` binds in; bound, and kept as a definition where it is one."""
        name = mangle(name, self.class_name)
        self.bind(name, content)
        if self.frame is None and not self.scope.is_function and not self.in_loop:
            self.facts.definitions.add(name)

    # ---------------------------------------------------------------- simple statements

    def do_other(self, node: ast.stmt) -> None:
        """Any statement without a rule of its own (pass, global, nonlocal) does nothing."""

    def do_expr(self, node: ast.Expr) -> None:
        """A value is dropped, the last one shown: what a call was for is then its effect."""
        self.discarded.update(discarded_calls(node.value))
        self.value(node.value)

    def do_assign(self, node: ast.Assign) -> None:
        """Values are bound from left to right; `a, b = x, y` pairwise."""
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
        known = self.origins.copy() if isinstance(value, ast.Constant) else None
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
        if known is not None:  # `x = None` where an import fails: what is called on x is still the module
            self.origins.update(known)

    def do_annassign(self, node: ast.AnnAssign) -> None:
        """An annotation without a value binds nothing."""
        if node.value is not None:
            self.assign(node.target, self.expr(node.value))
        elif isinstance(node.target, ast.Attribute | ast.Subscript):
            self.value(node.target.value)
        if not self.scope.is_function:
            self.annotations([node.annotation])

    def annotations(self, nodes: Sequence[ast.expr]) -> LocalFunction | None:
        """Annotations in; evaluated here, or a body for those that wait for a request out; text is not evaluated."""
        if self.session.postponed:
            self.session.hints |= self.later(nodes, NO_NAMES).loads
            return None
        if not self.session.lazy_annotations:
            for node in nodes:
                self.value(node)
            return None
        if nodes:
            self.loose.append(body := self.later(nodes, NO_NAMES))
            self.facts.made.append(body)
            return body
        return None

    def do_augassign(self, node: ast.AugAssign) -> None:
        """`x += y` reads and writes x, and may change the object in place."""
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
        """A target and what it is given in; bound, or its object changed."""
        if isinstance(target, ast.Name):
            self.bind(mangle(target.id, self.class_name), content)
        elif isinstance(target, ast.Tuple | ast.List):
            self.facts.iterated |= content.roots
            for each in target.elts:
                self.assign(each, content.as_element())
        elif isinstance(target, ast.Starred):
            self.assign(target.value, content.as_container())
        else:
            self.use(content)
            self.change(target, content)

    def change(self, target: ast.expr, content: Content = NOTHING) -> None:
        """`x[k]`, `x.a` as a target in; x is read and written, and may hold the content from now on."""
        if isinstance(target, ast.Attribute | ast.Subscript):
            self.mark_change(target, self.look_up(target), content)

    def look_up(self, target: ast.Attribute | ast.Subscript) -> Content:
        """A target in; what it is looked up on walked, and its content out."""
        if isinstance(target, ast.Attribute):
            base = self.receiver(target)
        else:
            base = self.expr(target.value)
            self.value(target.slice)
        self.use(base)
        return base

    def mark_change(self, target: ast.Attribute | ast.Subscript, base: Content, content: Content) -> None:
        """A target, what it is looked up on and what it is given in; the change is kept."""
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
        """`del x` needs x and unbinds it; `del x[k]` changes x."""
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
        """An import binds names; `*` binds names that nobody sees."""
        for name, origin in import_pairs(node):
            self.define(name, NOTHING)
            self.origins[mangle(name, self.class_name)] = origin
        for alias in node.names:
            if alias.name == "*":
                module = getattr(node, "module", None) or "."
                what = f"from {module} import * binds names that the cell does not show"
                self.diagnose(node, "star-import", module, what)
            elif alias.name == "__main__" and isinstance(node, ast.Import):
                self.diagnose(node, "dynamic", "__main__", "__main__ reaches names that the cell does not show")

    do_importfrom = do_import

    def do_typealias(self, node: ast.stmt) -> None:
        """`type X = ...` is evaluated on request."""
        parameters = frozenset(str(getattr(each, "name", "")) for each in type_params(node))
        body = self.later([node.value, *type_params(node)], parameters)  # type: ignore[attr-defined]
        self.define(node.name.id, self.keep_function(body))  # type: ignore[attr-defined]

    def do_raise(self, node: ast.Raise) -> None:
        """Nothing runs after `raise`."""
        self.value(node.exc)
        self.value(node.cause)
        if not self.catchers:
            self.raised.append(self.state)
        self.dead = True

    def do_assert(self, node: ast.Assert) -> None:
        """The message is evaluated only where the assertion fails."""
        holds, fails = self.test(node.test)
        if fails is not None and node.msg is not None:
            self.go(fails)
            self.value(node.msg)
        self.go(holds)

    def do_return(self, node: ast.Return) -> None:
        """What a function returns leaves our sight."""
        if node.value is not None:
            self.hand_over(self.expr(node.value))
        self.jumps.returns.append(self.state)
        self.dead = True

    def do_break(self, _node: ast.Break) -> None:
        """The loop ends here."""
        self.jumps.breaks.append(self.state)
        self.dead = True

    def do_continue(self, _node: ast.Continue) -> None:
        """The loop's next turn begins."""
        self.jumps.continues.append(self.state)
        self.dead = True

    # ---------------------------------------------------------------- definitions

    def do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A function: decorators and defaults now, its body later; a decorator may call it at once."""
        inner, decorators = self._decorators(node.decorator_list)
        held = self.defaults(node)
        parameters = {mangle(str(getattr(each, "name", "")), self.class_name) for each in type_params(node)}
        bounds = [self.later(type_params(node), frozenset(parameters))] if parameters else []
        self.facts.made.extend(bounds)
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
            body = replace(body, plain=False)
        content = self.keep_function(body, held=held)
        if content.bodies:
            content = content._replace(bodies=content.bodies.union(inner, bounds, [late] if late else []))
        self._decorate(content, decorators)
        self.define(node.name, content)

    do_asyncfunctiondef = do_functiondef

    def _decorators(self, decorators: Sequence[ast.expr]) -> tuple[frozenset[LocalFunction], list[Content]]:
        """Decorators in; functions that go on living in what they make (`x.setter`), and those to be called, out."""
        kept = NO_BODIES
        called = []
        for decorator in decorators:
            content = self.expr(decorator)
            if is_inert(decorator):
                kept |= content.bodies
            else:
                called.append(content)
        return kept, called

    def _decorate(self, content: Content, decorators: list[Content]) -> None:
        """What has been defined and the decorators that are called with it in; they may do anything with it."""
        for decorator in decorators:
            self.use(content)
            self.hand_over(decorator)

    def do_classdef(self, node: ast.ClassDef) -> None:
        """A class: its body runs now in a scope that its methods do not see."""
        _, decorators = self._decorators(node.decorator_list)
        parameters = {mangle(str(getattr(each, "name", "")), self.class_name) for each in type_params(node)}
        if parameters:
            with self.hide(parameters):
                bodies = self._class_body(node)
            bodies |= {bounds := self.later(type_params(node), frozenset(parameters))}
            self.facts.made.append(bounds)
        else:
            bodies = self._class_body(node)
        content = Content(bodies, NO_NAMES, NO_NAMES) if bodies else NOTHING
        self._decorate(content, decorators)
        self.define(node.name, content)

    def _class_body(self, node: ast.ClassDef) -> frozenset[LocalFunction]:
        """A class in; its bases and body walked, and the functions that it holds out."""
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
        return frozenset(replace(body, plain=False) for slot in slots for body in slot.bodies)


_DEEP = 4  # nested loops and finally blocks walked more than once; deeper ones are walked once
_SUPPRESSORS = frozenset({"suppress", "raises", "assertRaises", "assertRaisesRegex", "ExitStack", "AsyncExitStack"})


class Walk(BlockFlow):
    """A walk over the statements of a cell or of a function's body."""

    # ---------------------------------------------------------------- branches

    def do_if(self, node: ast.If) -> None:
        """Either branch; one of them where the condition is written down."""
        holds, fails = self.test(node.test)
        ends = []
        for state, branch in ((holds, node.body), (fails, node.orelse)):
            self.go(state)
            self.run(branch)
            ends.append(self.end())
        self.go(join_states(ends))

    def do_match(self, node: ast.Match) -> None:
        """Cases are tried in order; a pattern that fits binds before its guard is asked."""
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
        """The body runs any number of times, at least once where the iterable is written down."""
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
        """The body runs while the condition holds; `while True` ends only by `break`."""

        def turn() -> Paths | None:
            holds, fails = self.test(node.test)
            self.go(holds)
            return fails

        self._loop(turn, node.body, node.orelse, first_exit=True)

    def _loop(
        self, turn: Callable[[], Paths | None], body: list[ast.stmt], orelse: list[ast.stmt], *, first_exit: bool
    ) -> None:
        """A turn's head (leaves the body's state, gives the state in which the loop ends) and blocks in; walked.

        Turns are walked until the state at their start stays the same, so that what one turn binds reaches the next.
        """
        outside, self.jumps = self.jumps, Jumps(returns=self.jumps.returns)
        self.nesting += 1
        self.in_loop += 1
        entry = self.state
        first_read: set[str] | None = None
        left: Paths | None = None
        for _ in range(4 if self.nesting <= _DEEP else 1):
            self.jumps = Jumps(returns=outside.returns)
            self.go(entry.copy())
            left = turn()
            if not self.dead:
                self.run(body)
            end = join_states([self.end(), *self.jumps.continues])
            if end is None:
                break
            if not first_exit:
                first_read = end.read.copy() if first_read is None else first_read
                end.read |= first_read
                left = end  # at least one turn is behind us
            following = join_states([entry, end])
            if following is None or following.slots == entry.slots:
                break
            entry = following
        else:
            left = join_states([left, entry.copy()]) if left is not None and first_exit else left
        self.in_loop -= 1
        self.nesting -= 1
        breaks, self.jumps = self.jumps.breaks, outside
        self.go(left.copy() if left is not None else None)
        if not self.dead:
            self.run(orelse)
        self.go(join_states([self.end(), *breaks]))

    def _has_elements(self, node: ast.expr) -> bool:
        """An iterable in, whether it surely has an element: a display, or `range` of a positive number."""
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
        """Entered objects may change; the body runs to its end unless its exceptions are known to be swallowed."""
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
        """Statements that may stop anywhere in; walked, and the state in which an exception finds the names out."""
        start = self.state.copy()
        catcher: dict[str, Slot] = start.slots.copy()
        self.catchers.append(catcher)
        self.run(body)
        self.catchers.pop()
        return Paths(catcher, start.read, start.changed)

    def do_try(self, node: ast.Try) -> None:
        """The body may stop anywhere; handlers that raise do not go on; `finally` runs on every way out."""
        if not node.finalbody:
            self._try(node)
            return
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
        """A handler in; its body walked. The name of the exception ends with it, on jumps out of it too."""
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


def _is_irrefutable(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _is_irrefutable(pattern.pattern)
    return isinstance(pattern, ast.MatchOr) and any(_is_irrefutable(each) for each in pattern.patterns)
