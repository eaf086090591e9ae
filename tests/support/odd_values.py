"""Values that answer no question, or wrongly: mocks, proxies, lazy and half made objects."""

from __future__ import annotations

import contextvars
import functools
import io
import sys
import threading
import types
from collections import ChainMap, defaultdict, deque
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd


class Refusal(BaseException):
    """What no `except Exception` stops."""


def no(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no")


def never(*_: Any, **__: Any) -> Any:
    raise Refusal("never")


def leave(*_: Any, **__: Any) -> Any:
    raise SystemExit(3)


def made(answer: Any, *names: str, base: type = object, **more: Any) -> type:
    """Return a class whose methods of these names do the same."""
    return type(
        "Odd", (base,), {**dict.fromkeys(names, answer), "__module__": __name__, "__hash__": base.__hash__, **more}
    )


def claiming(kind: Any) -> Any:
    """Return an object that says to be of another class."""
    return made(no, __class__=property(lambda _: kind() if isinstance(kind, types.FunctionType) else kind))()


class Deeper:
    def __getattr__(self, name: str) -> Any:
        return getattr(self, name + "_")


class Anything:
    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __iter__(self) -> Any:
        return iter([self])


class Slotted:
    __slots__ = ("left", "right")


class Kind(type):
    def __repr__(cls) -> str:
        raise Refusal("repr of a class")

    def __instancecheck__(cls, _: Any) -> bool:
        raise Refusal("isinstance")

    def __subclasscheck__(cls, _: Any) -> bool:
        raise Refusal("issubclass")


class Silent(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class OfKind(metaclass=Kind):
    pass


class OfSilent(metaclass=Silent):
    pass


class Holding:
    def __init__(self, value: Any) -> None:
        self.value = value


def _closed(file: Any) -> Any:
    file.close()
    return file


def _module(name: Any) -> Any:
    found = made(no)
    found.__module__ = name
    return found()


def _function(value: Any) -> Any:
    def inner(given: Any = value) -> Any:
        return value, given

    return inner


ATTRIBUTES = "__getattr__", "__getattribute__"
WHOLE = (
    "__repr__",
    "__str__",
    "__eq__",
    "__ne__",
    "__bool__",
    "__len__",
    "__sizeof__",
    "__dir__",
    "__format__",
    "__contains__",
)
CONTAINER = "items", "keys", "values", "__iter__", "__len__", "__getitem__", "__contains__", "copy", "get"
PICKLED = "__reduce__", "__reduce_ex__", "__getstate__", "__deepcopy__", "__copy__"
SHOWN = "_repr_html_", "_repr_mimebundle_"
NUMERIC = "__array__", "__array_interface__", "__index__", "__int__", "__float__", "__buffer__"

KINDS: dict[str, Callable[[], Any]] = {
    "a mock of a dict": lambda: mock.Mock(spec=dict),
    "a mock of a class": lambda: mock.Mock(spec=type),
    "a mock of an array": lambda: mock.MagicMock(spec=np.ndarray),
    "a mock": mock.MagicMock,
    "an asynchronous mock": mock.AsyncMock,
    "a sentinel of mock": lambda: mock.sentinel.nothing,
    "a call of mock": lambda: mock.call.one.two,
    **{
        f"{names[0]} and others: {act.__name__}": functools.partial(lambda names, act: made(act, *names)(), names, act)
        for names in (ATTRIBUTES[:1], ATTRIBUTES, WHOLE, PICKLED, NUMERIC, ("__del__",), SHOWN)
        for act in (no, never, leave)
    },
    **{
        f"a {base.__name__} whose methods {act.__name__}": functools.partial(
            lambda base, act: made(act, *CONTAINER, base=base)(), base, act
        )
        for base in (dict, list, tuple, set, frozenset, deque)
        for act in (no, never)
    },
    "a text that cannot be read": lambda: made(never, *WHOLE, "encode", "__getitem__", base=str)("text"),
    "a number that cannot be read": lambda: made(never, *WHOLE, "bit_length", "__hash__", base=int)(3),
    "wrong answers": lambda: made(lambda *_: 3, *WHOLE[:2], *WHOLE[6:], *PICKLED)(),
    "a size that is a text": lambda: made(lambda *_: "much", "__sizeof__", nbytes="much", shape=(1, "a"), dtype=3)(),
    "one that says to be a dict": lambda: claiming(dict),
    "one that says to be a list": lambda: claiming(list),
    "one that says to be a class": lambda: claiming(type),
    "one that says to be a module": lambda: claiming(types.ModuleType),
    "one that says to be a function": lambda: claiming(types.FunctionType),
    "one that says to be an array": lambda: claiming(np.ndarray),
    "one that does not say what it is": lambda: claiming(lambda: no()),
    "one that never says what it is": lambda: claiming(lambda: never()),
    "attributes without an end": Deeper,
    "every attribute": Anything,
    "half made": lambda: object.__new__(Slotted),
    "a frame that is half made": lambda: object.__new__(pd.DataFrame),
    "a series that is half made": lambda: object.__new__(pd.Series),
    "of a class that is not asked": OfKind,
    "of a class that answers nothing": lambda: type.__call__(OfSilent),
    "the class that is not asked": lambda: OfKind,
    "of no module": lambda: _module(None),
    "of a module that is a number": lambda: _module(5),
    "no __dict__": lambda: made(no, __dict__=property(never))(),
    "a long repr": lambda: made(lambda _: "x" * 20_000_000, "__repr__")(),
    "a closed file": lambda: _closed(open(__file__)),  # noqa: SIM115, PTH123
    "a closed text": lambda: _closed(io.StringIO("x")),
    "structured rows": lambda: np.zeros(3, dtype=[("a", "V5"), ("b", "O"), ("c", [("d", "f4", (2, 2))])]),
    "objects in an array": lambda: np.array([made(never, *WHOLE)(), None], dtype=object),
    "no texts": lambda: np.empty((0, 3), dtype="S0"),
    "odd moments": lambda: np.array(["NaT"], "M8[fs]"),
    "in a frame": lambda: pd.DataFrame({"a": [made(never, *WHOLE[:2], *PICKLED)(), 1], ("b", 1): [1, 2]}),
    "in a series": lambda: pd.Series([made(no, *ATTRIBUTES[:1])(), made(never, *PICKLED)()]),
    "in a dict": lambda: {"a": made(never, *ATTRIBUTES)(), "b": [made(no, *WHOLE)()]},
    "in a tuple": lambda: (made(never, *ATTRIBUTES)(),),
    "in an object": lambda: Holding(made(never, *ATTRIBUTES, *PICKLED)()),
    "in a namespace": lambda: types.SimpleNamespace(a=made(never, *ATTRIBUTES)()),
    "in a chain": lambda: ChainMap({"a": made(never, *ATTRIBUTES)()}),
    "in a function": lambda: _function(made(never, *ATTRIBUTES)()),
    "in a partial": lambda: functools.partial(no, made(never, *WHOLE)()),
    "in an error": lambda: RuntimeError(made(never, *WHOLE[:2])()),
    "defaults": lambda: defaultdict(never, a=1),
    "a view of a mapping": lambda: types.MappingProxyType(made(no, *CONTAINER, base=dict)(a=1)),
    "a lock": threading.Lock,
    "a generator": lambda: (number for number in [1]),
    "a frame of calls": sys._getframe,
    "a context": contextvars.copy_context,
    "an empty cell": types.CellType,
    "an odd module": lambda: types.ModuleType("odd\x00name"),
    "half a character": lambda: "a\ud800",
    "a long number": lambda: 10**50_000,
}  # fmt: skip
