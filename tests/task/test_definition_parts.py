"""What stands on classes, functions and decorated objects: seen when it was set, put on the same definition again."""

from __future__ import annotations

from typing import Any

import pytest

from nbflow.errors import TaskError
from nbflow.store.serialize.registry import Registry
from nbflow.task.definition_state import Definitions, DefinitionState, put_state, reset

IMPORTS = "import abc, dataclasses, enum, functools\n"
LEVEL = "class Level(enum.Enum):\n    LOW = 1\n    HIGH = 2\n"
PLAN = (
    "class Plan:\n    'drafted'\n    hours: int = 1\n    class Limits:\n        top = 1\n"
    "    def cost(self, seen=[]):\n        return seen\n"
)
ADD = "def add(a, b=1, *, c=2) -> int:\n    'adds'\n    return a + b + c\n"
TALLY = (
    "class Tally:\n    def __init__(self, function):\n        self.function, self.calls = function, 0\n"
    "    def __call__(self, *given):\n        self.calls += 1\n        return self.function(*given)\n"
)
COUNTED = (
    "def counted(function):\n    total = 0\n    def call(*given):\n        nonlocal total\n        total += 1\n"
    "        return total\n    def again():\n        return total\n    call.again = again\n    return call\n"
)
JOINED = "class Sized(abc.ABC):\n    pass\nclass Box:\n    pass\n"
BASES = "class Cheap:\n    price = 1\nclass Dear:\n    price = 9\nclass Offer(Cheap):\n    pass\n"

KINDS = {
    "an attribute": (PLAN, "Plan", "Plan.hours = 8", "Plan.hours"),
    "a type": (PLAN, "Plan", "Plan.unit = int", "Plan.unit"),
    "a function of Python": (PLAN, "Plan", "Plan.shout = str.upper", "Plan.shout('a')"),
    "a nested class": (PLAN, "Plan", "Plan.Limits.top = 3", "Plan.Limits.top"),
    "a method's attribute": (PLAN, "Plan", "Plan.cost.checked = True", "Plan.cost.checked"),
    "a method's default": (PLAN, "Plan", "Plan.cost.__defaults__[0].append(1)", "Plan().cost()"),
    "another method": (PLAN, "Plan", "Plan.cost = lambda self: 7", "Plan().cost()"),
    "a docstring": (PLAN, "Plan", "Plan.__doc__ = 'agreed'", "Plan.__doc__"),
    "a name": (PLAN, "Plan", "Plan.__name__ = 'Scheme'", "Plan.__name__"),
    "annotations": (PLAN, "Plan", "Plan.__annotations__['name'] = str", "Plan.__annotations__"),
    "no hash": (PLAN, "Plan", "Plan.__hash__ = None", "Plan.__hash__"),
    "a name of the user's own kind": (PLAN, "Plan", "Plan.__version__ = 2", "Plan.__version__"),
    "a member as a value": (LEVEL + PLAN, "Plan", "Plan.hours = Level.HIGH", "Plan.hours.name"),
    "a member's attribute": (LEVEL, "Level", "Level.HIGH.note = 'steep'", "Level(2).note"),
    "a metaclass": ("class Kind(type):\n    made = 0\n", "Kind", "Kind.made += 1", "Kind.made"),
    "another metaclass": (
        "class Old(type):\n    pass\nclass New(type):\n    pass\nclass Plan(metaclass=Old):\n    pass\n",
        "Plan", "Plan.__class__ = New", "type(Plan)",
    ),
    "other bases": (BASES, "Offer", "Offer.__bases__ = (Dear,)", "Offer.price"),
    "a class that joins": (JOINED, "Sized", "Sized.register(dict)", "isinstance({}, Sized)"),
    "a field": (
        "@dataclasses.dataclass\nclass Point:\n    x: int = 0\n", "Point",
        "dataclasses.fields(Point)[0].default = 4", "dataclasses.fields(Point)[0].default",
    ),
    "a function's attribute": (ADD, "add", "add.calls = [1]", "add.calls"),
    "a function's name": (ADD, "add", "add.__name__, add.__doc__ = 'plus', 'more'", "add.__name__, add.__doc__"),
    "a function's defaults": (ADD, "add", "add.__defaults__ = (10,)", "add(1)"),
    "its keywords' defaults": (ADD, "add", "add.__kwdefaults__['c'] = 7", "add(1)"),
    "its annotations": (ADD, "add", "add.__annotations__['a'] = int", "add.__annotations__"),
    "its code": (ADD, "add", "add.__code__ = (lambda a, b=1, *, c=2: 0).__code__", "add(1)"),
    "what it closes over": (COUNTED + "f = counted(None)\n", "f", "f()", "f(), f.again()"),
    "what a function in it keeps": (COUNTED + "f = counted(None)\n", "f", "f.again.seen = 1", "f.again.seen"),
    "a decorator's object": (TALLY + "@Tally\ndef f(x):\n    return x\n", "f", "f(1)", "f.calls"),
    "functions by type": (
        "@functools.singledispatch\ndef f(x):\n    return 'thing'\ndef number(x):\n    return 'number'\n", "f",
        "f.register(int, number)", "f(1), f('a'), len(f.registry)",
    ),
    "a function with arguments": (
        ADD + "f = functools.partial(add, 1)\n", "f", "f.keywords['c'] = 5\nf.note = 1", "f(), f.note",
    ),
    "something taken away": (PLAN, "Plan", "del Plan.cost", "hasattr(Plan, 'cost')"),
}  # fmt: skip


def made(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(IMPORTS + source, namespace)
    return namespace


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_set_on_a_definition_is_put_on_it_again(kind: str) -> None:
    source, name, change, look = KINDS[kind]
    here, there = made(source), made(source)
    seen = Definitions([name], here, Registry())
    assert seen.changed() == {}
    exec(change, here)
    (state,) = seen.changed().values()
    assert state == seen.state(name)
    put_state(there[name], state)
    assert repr(eval(look, there)) == repr(eval(look, here))


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_becomes_what_it_was(kind: str) -> None:
    source, name, change, _ = KINDS[kind]
    namespace, registry = made(source), Registry()
    fresh = DefinitionState.of(namespace[name], registry).copied()
    exec(change, namespace)
    assert DefinitionState.of(namespace[name], registry).prints != fresh.prints
    reset(namespace[name], fresh)
    assert DefinitionState.of(namespace[name], registry).prints == fresh.prints


QUIET = {
    "a call": (PLAN, "Plan", "Plan().cost()"),
    "annotations that are asked for": ("class Plan:\n    pass\n", "Plan", "Plan.__annotations__"),
    "a look-up by type": ("@functools.singledispatch\ndef f(x):\n    return 1\n", "f", "f(1), f('a')"),
    "a question to an abstract class": (JOINED, "Sized", "isinstance(Box(), Sized)"),
    "a flag": ("class Right(enum.Flag):\n    READ = 1\n    WRITE = 2\n", "Right", "Right.READ | Right.WRITE, Right(3)"),
    "a member": (LEVEL, "Level", "Level(1), Level['LOW'], list(Level)"),
    "an instance": ("@dataclasses.dataclass\nclass Point:\n    x: int = 0\n", "Point", "Point(3) == Point()"),
    "another function's state": (ADD + "f = functools.partial(add, 1)\n", "f", "setattr(add, 'calls', 1)"),
}


@pytest.mark.parametrize("kind", QUIET)
def test_what_sets_nothing_is_no_change(kind: str) -> None:
    source, name, use = QUIET[kind]
    namespace = made(source)
    seen = Definitions([name], namespace, Registry())
    exec(use, namespace)
    assert seen.changed() == {}


def test_a_generator_that_went_on_is_seen() -> None:
    namespace = made("class Plan:\n    turns = iter(x for x in range(3))\n")
    seen = Definitions(["Plan"], namespace, Registry())
    next(namespace["Plan"].turns)
    assert seen.changed()["<of Plan>"]["set"].keys() == {"turns"}


def test_what_a_class_refuses_is_named() -> None:
    namespace = made("class Plan:\n    pass\n")
    with pytest.raises(TaskError, match="__bases__ of Plan"):
        put_state(namespace["Plan"], {"set": {"__bases__": (int,)}, "gone": []})


def test_keys_of_older_stores_are_read() -> None:
    namespace = made(ADD)
    put_state(namespace["add"], {"set": {"()defaults": (10,), "()kwdefaults": {"c": 5}}, "gone": []})
    assert namespace["add"](1) == 16
