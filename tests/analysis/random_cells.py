"""Random cells for `test_analysis_property`, and values that go along with whatever the cells do to them."""

import types
from collections.abc import Callable, Iterator
from typing import Any

NAMES = ("a", "b", "c", "d", "e")
FUNCTIONS = ("p", "q", "r")
CLASSES = ("K", "L")
POOL = NAMES + FUNCTIONS + CLASSES

Choose = Callable[[int], int]  # n -> a number below n


class CellWriter:
    """Draws one cell, statement by statement."""

    def __init__(self, choose: Choose, *, straight: bool = False) -> None:
        self.choose = choose
        self.straight = straight  # one statement after another, nothing that may not run
        self.budget = 24  # statements
        self.loops = 0
        self.in_function = 0
        self.in_class = False
        self.comprehension = 0

    def pick(self, options: Any) -> Any:
        return options[self.choose(len(options))]

    def name(self) -> str:
        return self.pick(NAMES)

    def any_name(self) -> str:
        return self.pick(POOL) if self.choose(3) == 0 else self.name()

    # -------------------------------------------------------------- expressions

    def expr(self, depth: int = 2) -> str:
        if depth == 0 or self.choose(3) == 0:
            return self.any_name() if self.choose(4) else self.pick(("1", "'s'", "None"))
        e = lambda: self.expr(depth - 1)
        n = self.name
        kind = self.choose(22) if not self.straight else self.pick((0, 1, 3, 4, 5, 6, 7, 8, 12, 15, 20, 21))
        simple: tuple[Callable[[], str], ...] = (
            lambda: f"{e()} + {e()}",
            lambda: f"{n()}({e()})",
            lambda: f"{self.pick(FUNCTIONS)}()",
            lambda: f"{n()}.m({e()})",
            lambda: f"{n()}[{e()}]",
            lambda: f"{n()}.x",
            lambda: f"({e()}, {e()})",
            lambda: f"[{e()}, *{n()}]",
            lambda: "{1: " + e() + ", **{}}",
            lambda: f"({e()} if {e()} else {e()})",
            lambda: f"({e()} and {e()})",
            lambda: f"({e()} or {e()} or {e()})",
            lambda: f"(not {e()})",
            lambda: f"({e()} < {e()} < {e()})",
            lambda: f"(lambda u={e()}, *_: {self.function_expr()})",
            lambda: f'f"{{{n()}!r:>{{{n()}.w}}}}"',
            lambda: self.comprehension_expr(depth),
            lambda: f"{self.pick(CLASSES)}()",
            lambda: f"{n()}({self.pick(FUNCTIONS)}, k={e()})",
            lambda: f"{self.pick(CLASSES)}().m()",
            lambda: f"len({n()})",
        )
        if kind == 21:
            if self.comprehension or self.in_class:
                return e()
            return f"({self.any_name()} := {e()})"
        return simple[kind]()

    def function_expr(self) -> str:
        outside, self.in_function, in_class, self.in_class = (
            self.in_function,
            self.in_function + 1,
            self.in_class,
            False,
        )
        text = self.expr(1)
        self.in_function, self.in_class = outside, in_class
        return text

    def comprehension_expr(self, depth: int) -> str:
        first = self.expr(depth - 1)
        self.comprehension += 1
        target, element = self.name(), self.expr(1)
        condition = f" if {self.expr(1)}" if self.choose(3) == 0 else ""
        second = f" for {self.name()} in {self.expr(1)}" if self.choose(4) == 0 else ""
        self.comprehension -= 1
        if self.choose(4) == 0 and not self.comprehension and not self.in_class and target != "e":
            element = f"(e := {element})" if " e " not in second else element
        form = self.pick(("[{}]", "{{1: {}}}", "list({})", "any({})"))
        return form.format(f"{element} for {target} in {first}{condition}{second}")

    # -------------------------------------------------------------- statements

    def block(self, indent: int) -> list[str]:
        lines: list[str] = []
        for _ in range(1 + self.choose(3)):
            lines += self.statement(indent)
        return lines

    def cell(self) -> str:
        lines: list[str] = []
        while self.budget > 0:
            lines += self.statement(0)
            if self.choose(6) == 0:
                break
        return "\n".join(lines) + "\n"

    def statement(self, indent: int) -> list[str]:
        self.budget -= 1
        pad = "    " * indent
        compound = (
            self.if_, self.for_, self.while_, self.try_, self.with_, self.match_, self.def_, self.class_, self.def_,
        )  # fmt: skip
        if not self.straight and self.budget > 0 and indent < 4 and self.choose(5) < 2:
            return self.pick(compound)(indent)
        return [pad + self.simple()]

    def simple(self) -> str:
        e, n, m = self.expr, self.name, self.any_name
        options: list[Callable[[], str]] = [
            lambda: f"{m()} = {e()}",
            lambda: f"{m()} = {e()}",
            lambda: f"{m()} = {e(1)}",
            lambda: f"{n()}, {n()} = {e()}, {e()}",
            lambda: f"{n()}, *{n()} = {n()}",
            lambda: f"{n()} = {n()} = {e()}",
            lambda: f"{n()} += {e()}",
            lambda: f"{n()}[{e(1)}] = {e()}",
            lambda: f"{n()}.x = {e()}",
            lambda: f"{n()}[{e(1)}] += {e()}",
            lambda: f"del {m()}",
            lambda: f"del {n()}[{e(1)}]",
            lambda: e(),
            lambda: f"{n()}.append({e()})",
            lambda: f"{n()}({m()})",
            lambda: f"{self.pick(FUNCTIONS)}()",
            lambda: f"{self.pick(FUNCTIONS)}()",
            lambda: f"{n()} = {self.pick(FUNCTIONS)}",
            lambda: f"assert {e()}, {1 if self.straight else e(1)}",
            lambda: f"import cell_module as {n()}",
            lambda: f"{n()}: {n()} = {e()}",
            lambda: f"{n()}: {n()}",
            lambda: "pass",
            lambda: f"{m()} = {n()}({e()}, out={n()})",
        ]
        if self.choose(12) == 0:
            options = [lambda: "raise ValueError"] if not self.straight else [lambda: "pass"]
            if self.loops:
                options += [lambda: "break", lambda: "continue"] * 2
            if self.in_function and not self.in_class:
                options += [lambda: f"return {e()}"] * 2
        return self.pick(options)()

    def if_(self, indent: int) -> list[str]:
        pad = "    " * indent
        test = self.pick(("True", "0")) if self.choose(15) == 0 else self.expr()
        lines = [f"{pad}if {test}:", *self.block(indent + 1)]
        if self.choose(4) == 0:
            lines += [f"{pad}elif {self.expr()}:", *self.block(indent + 1)]
        if self.choose(2):
            lines += [f"{pad}else:", *self.block(indent + 1)]
        return lines

    def for_(self, indent: int) -> list[str]:
        pad = "    " * indent
        over = self.pick((self.expr(), self.name(), "(1, 2)", "range(2)", self.name()))
        target = self.pick((self.any_name(), self.name(), f"{self.name()}, {self.name()}", f"{self.name()}[0]"))
        return self._loop(f"{pad}for {target} in {over}:", indent)

    def while_(self, indent: int) -> list[str]:
        pad = "    " * indent
        return self._loop(f"{pad}while {'True' if self.choose(4) == 0 else self.expr()}:", indent)

    def _loop(self, head: str, indent: int) -> list[str]:
        pad = "    " * indent
        self.loops += 1
        lines = [head, *self.block(indent + 1)]
        if self.choose(3) == 0:
            lines += [
                f"{pad}    if {self.expr(1)}:",
                f"{pad}        {self.pick(('break', 'continue'))}",
                *self.block(indent + 1),
            ]
        self.loops -= 1
        if self.choose(4) == 0:
            lines += [f"{pad}else:", *self.block(indent + 1)]
        return lines

    def try_(self, indent: int) -> list[str]:
        pad = "    " * indent
        lines = [f"{pad}try:", *self.block(indent + 1)]
        handlers = self.choose(4)
        for number in range(min(handlers, 2)):
            what = self.pick(("NameError", "TypeError", "Exception")) if number == 0 else "Exception"
            bound = f" as {self.name()}" if self.choose(2) else ""
            lines += [f"{pad}except {what}{bound}:", *self.block(indent + 1)]
        if handlers and self.choose(3) == 0:
            lines += [f"{pad}else:", *self.block(indent + 1)]
        if not handlers or self.choose(3) == 0:
            lines += [f"{pad}finally:", *self.block(indent + 1)]
        return lines

    def with_(self, indent: int) -> list[str]:
        pad = "    " * indent
        bound = f" as {self.name()}" if self.choose(2) else ""
        return [f"{pad}with {self.expr(1)}{bound}:", *self.block(indent + 1)]

    def match_(self, indent: int) -> list[str]:
        pad = "    " * indent
        lines = [f"{pad}match {self.expr()}:"]
        n = self.name
        for _ in range(1 + self.choose(3)):
            pattern = self.pick(
                ("1", f"[{n()}, 1]", "[_, *_]", f"{{1: {n()}}}", f"{n()}.x", f"int() as {n()}", "(1 | 's')")
            )
            guard = f" if {self.expr()}" if self.choose(3) == 0 else ""
            lines += [f"{pad}    case {pattern}{guard}:", *self.block(indent + 2)]
        if self.choose(2):
            pattern = self.pick(("_", n()))
            lines += [f"{pad}    case {pattern}:", *self.block(indent + 2)]
        return lines

    def def_(self, indent: int) -> list[str]:
        pad = "    " * indent
        decorated = [f"{pad}@{self.name()}"] if self.choose(8) == 0 else []
        default = f"u={self.expr(1)}, " if self.choose(3) == 0 else ""
        parameter = f"{self.name()}=None, " if self.choose(3) == 0 else ""
        outside = self.loops, self.in_function, self.in_class
        self.loops, self.in_function, self.in_class = 0, self.in_function + 1, False
        body = [f"{pad}    global {self.any_name()}"] if self.choose(3) == 0 and not parameter else []
        if body and self.choose(2):
            body.append(f"{pad}    {body[0].split()[-1]} = {self.expr()}")
        body += self.block(indent + 1)
        if self.choose(3) == 0:
            body.append(f"{pad}    return {self.expr()}")
        if self.choose(10) == 0:
            body.append(f"{pad}    yield {self.expr()}")
        self.loops, self.in_function, self.in_class = outside
        name = "m" if self.in_class else self.pick(FUNCTIONS)
        signature = f"self=None, {parameter}{default}*_, **__" if self.in_class else f"{parameter}{default}*_, **__"
        return [*decorated, f"{pad}def {name}({signature}):", *body]

    def class_(self, indent: int) -> list[str]:
        pad = "    " * indent
        outside = self.loops, self.in_class
        self.loops, self.in_class = 0, True
        body = self.block(indent + 1)
        if self.choose(2):
            body += self.def_(indent + 1)
        self.loops, self.in_class = outside
        return [f"{pad}class {self.pick(CLASSES)}:", *body]


class World:
    """Decides what values do: a fixed row of numbers, the same in every run of one cell."""

    def __init__(self, row: list[int]) -> None:
        self.row = row
        self.at = 0
        self.kept: list[Any] = []  # functions and classes that unknown code got hold of
        self.depth = 0

    def next(self, below: int) -> int:
        self.at += 1
        return self.row[self.at % len(self.row)] % below

    def maybe_fail(self) -> None:
        if self.next(4 + self.row[0] % 60) == 0:
            raise TypeError("as it happens")

    def get_hold(self, values: Any) -> None:
        """What unknown code may do with values: keep functions and call all that it has kept, change the rest."""
        for value in reachable(values):
            if isinstance(value, Thing):
                value.touch()
            elif isinstance(value, list | dict):
                pass
            else:
                self.kept.append(value)
        if self.depth < 2:
            self.depth += 1
            try:
                for value in list(self.kept[-3:]):
                    if isinstance(value, type):
                        value().m()
                    else:
                        value()
            finally:
                self.depth -= 1


def reachable(values: Any) -> Iterator[Any]:
    """Values, containers opened, that are functions, classes of the cell, methods or things."""
    for value in values:
        if isinstance(value, list | tuple | set):
            yield from reachable(value)
        elif isinstance(value, dict):
            yield from reachable(value.values())
        elif isinstance(value, Thing | types.FunctionType | types.MethodType) or (
            isinstance(value, type) and value.__module__ == "cell"
        ):
            yield value


class Thing:
    """A value that can do everything, and counts how often it, or a part of it, was changed in place."""

    def __init__(self, world: World, owner: "Thing | None" = None) -> None:
        self.__dict__.update(_world=world, _owners=[owner] if owner is not None else [], _changes=0, _parts={})

    def touch(self, seen: tuple[int, ...] = ()) -> None:
        self.__dict__["_changes"] += 1
        for owner in self.__dict__["_owners"]:
            if id(owner) not in seen:
                owner.touch((*seen, id(self)))

    def _part(self, key: object) -> Any:
        self._world.maybe_fail()
        parts = self.__dict__["_parts"]
        if key not in parts:
            parts[key] = Thing(self._world, self)
        return parts[key]

    def _put(self, key: object, value: Any) -> None:
        self._world.maybe_fail()
        self.touch()
        self._world.get_hold([each for each in reachable([value]) if not isinstance(each, Thing)])
        self.__dict__["_parts"][key] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._part(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._put(name, value)

    def __getitem__(self, key: object) -> Any:
        return self._part("item")

    def __setitem__(self, key: object, value: Any) -> None:
        self._put("item", value)

    def __delitem__(self, key: object) -> None:
        self._world.maybe_fail()
        self.touch()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._world.maybe_fail()
        self.touch()
        self._world.get_hold([args, kwargs])
        if self._world.next(4) == 0 and args:
            return args[0]
        return Thing(self._world)

    def __iter__(self) -> Iterator[Any]:
        count = self._world.next(4)
        self._world.maybe_fail()
        for number in range(count):
            yield self._part(number % 2)

    def __bool__(self) -> bool:
        self._world.maybe_fail()
        return bool(self._world.next(2))

    def __len__(self) -> int:
        return self._world.next(3)

    def __enter__(self) -> Any:
        self.touch()
        return self

    def __exit__(self, *_: object) -> None:
        self._world.maybe_fail()

    def _operate(self, other: object) -> Any:
        self._world.maybe_fail()
        self._world.get_hold([each for each in reachable([other]) if not isinstance(each, Thing)])
        return Thing(self._world)

    __add__ = __radd__ = _operate

    def __iadd__(self, other: object) -> Any:
        self._world.maybe_fail()
        self.touch()
        return self

    def __lt__(self, other: object) -> bool:
        self._world.maybe_fail()
        return bool(self._world.next(2))

    __gt__ = __lt__

    def __format__(self, spec: str) -> str:
        return "thing"

    def __repr__(self) -> str:
        return "thing"

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other
