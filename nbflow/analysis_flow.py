"""Statements, walked along every path → what may be taken from before, what is bound, changed or deleted at the end.

Paths meet by joining their states; loops may run zero times; `try` may stop after any statement that binds.
"""

import ast
from collections.abc import Callable

from nbflow.analysis_blocks import BlockFlow, Jumps
from nbflow.analysis_scopes import mangle
from nbflow.analysis_state import UNBOUND, Content, Slot, State, join_states

_DEEP = 4  # nested loops and finally blocks walked more than once; deeper ones are walked once
_SUPPRESSORS = frozenset({"suppress", "raises", "assertRaises", "assertRaisesRegex", "ExitStack", "AsyncExitStack"})


class Flow(BlockFlow):
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
        ends: list[State | None] = []
        for case in node.cases:
            missed: State | None = self.state.copy()
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

        def turn() -> State | None:
            if not surely:
                entry: State | None = self.state.copy()
            else:
                entry = None
            self.assign(node.target, element)
            return entry

        self._loop(turn, node.body, node.orelse, first_exit=not surely)

    do_asyncfor = do_for

    def do_while(self, node: ast.While) -> None:
        """The body runs while the condition holds; `while True` ends only by `break`."""

        def turn() -> State | None:
            holds, fails = self.test(node.test)
            self.go(holds)
            return fails

        self._loop(turn, node.body, node.orelse, first_exit=True)

    def _loop(
        self, turn: Callable[[], State | None], body: list[ast.stmt], orelse: list[ast.stmt], *, first_exit: bool
    ) -> None:
        """A turn's head (leaves the body's state, gives the state in which the loop ends) and blocks in; walked.

        Turns are walked until the state at their start stays the same, so that what one turn binds reaches the next.
        """
        outside, self.jumps = self.jumps, Jumps(returns=self.jumps.returns)
        self.nesting += 1
        self.in_loop += 1
        entry = self.state
        first_read: set[str] | None = None
        left: State | None = None
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

    def _guarded(self, body: list[ast.stmt]) -> State:
        """Statements that may stop anywhere in; walked, and the state in which an exception finds the names out."""
        start = self.state.copy()
        catcher: dict[str, Slot] = start.slots.copy()
        self.catchers.append(catcher)
        self.run(body)
        self.catchers.pop()
        return State(catcher, start.read, start.changed)

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
            [State(catcher, start.read, start.changed), *jumps.breaks, *jumps.continues, *jumps.returns]
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
        ends: list[State | None] = []
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
