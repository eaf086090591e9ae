"""Expressions, walked in the order they run → names taken, functions called or let go, objects handed to calls."""

import ast
from collections.abc import Iterable, Iterator

from nbflow.analysis_calls import dynamic_attribute, dynamic_call, is_exempt
from nbflow.analysis_cells import parse_python
from nbflow.analysis_facts import BUILTINS, NO_NAMES, USUAL_MODULES, DiscardedCall
from nbflow.analysis_magics import LineMagic, is_shell, read_magic
from nbflow.analysis_names import NameFlow
from nbflow.analysis_scopes import Function, dotted_name, mangle, root_name, target_names
from nbflow.analysis_state import (
    HERE,
    NOTHING,
    UNTOUCHED,
    Body,
    Content,
    Slot,
    State,
    is_surely_bound,
    join_states,
    merge_contents,
)


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
        exits: list[State | None] = []
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

    def test(self, node: ast.expr) -> tuple[State | None, State | None]:
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

    def _test_bool(self, node: ast.BoolOp) -> tuple[State | None, State | None]:
        is_and = isinstance(node.op, ast.And)
        exits: list[State | None] = []
        going: State | None = self.state
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

    def _sole_body(self, func: ast.expr, callee: Content) -> Body | None:
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
