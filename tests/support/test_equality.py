"""The measure itself: a comparison that misses a difference, or sees one where there is none, proves nothing."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import math
import pickle
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from tests.support.difference import DIFFERS, NO_EQUALITY
from tests.support.equality import compare, equal
from tests.support.plain import plain_source

NAN = float("nan")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


Point = namedtuple("Point", "x y")


class Account:
    def __init__(self, balance: float) -> None:
        self.balance = balance
        self.owner = self  # a circle


class Sly:
    """Says that it is equal to everything."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: int) -> None:
        self.a = a


@dataclass
class Row:
    name: str
    values: list[float]


class Words(list):
    language = "en"


def words(language: str) -> Words:
    made = Words(["a"])
    made.language = language
    return made


def fresh(value: Any) -> Any:
    """As from another process: nothing is the same object."""
    return pickle.loads(cloudpickle.dumps(value, protocol=5))


def adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def frame(**changes: Any) -> pd.DataFrame:
    data = {"a": [1, 2, 3], "b": [0.5, NAN, -0.0], "c": ["x", None, "z"]} | changes
    return pd.DataFrame(data, index=pd.Index([10, 20, 30], name="id"))


def from_cell(source: str, name: str = "thing") -> Any:
    """What a cell that holds `source` leaves as `name`."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(source, space)
    return space[name]


def figure(height: float = 2.0, title: str = "t") -> Any:
    from matplotlib.figure import Figure

    made = Figure(figsize=(2, 2))
    axes = made.subplots()
    axes.plot([0, 1], [0, height])
    axes.set_title(title)
    return made


def forest(**changes: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    x = np.arange(40.0).reshape(20, 2)
    return RandomForestClassifier(**({"n_estimators": 3, "random_state": 0} | changes)).fit(x, np.arange(20) % 2)


def sparse(values: np.ndarray) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix(values)


class Made:
    """A value that its test makes: whoever only collects tests imports neither scikit-learn nor Matplotlib for it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def made(value: Any) -> Any:
    return value.make() if isinstance(value, Made) else value


EQUAL: dict[str, Any] = {
    "none": None,
    "numbers": [1, True, 1.0, -0.0, NAN, 1j, complex(NAN, -0.0), 10**40, math.inf],
    "text": ["ä", b"\x00", bytearray(b"x"), ""],
    "containers": {"a": [1, (2, {3, 4})], (1, 2): {"x": None}, 3: deque([1], maxlen=2)},
    "nan as a key": {NAN: 1},
    "set of mixed": {1, "a", (2.5, None), frozenset({3})},
    "subclasses": [OrderedDict(a=1), defaultdict(list, a=[1]), Counter("abca"), words("de")],
    "exact values": [Decimal("1.10"), Fraction(1, 3), dt.timedelta(1), dt.datetime(2024, 1, 1, fold=1)],
    "enums": [Colour.RED, Level.LOW],
    "named tuple": Point(1, 2.0),
    "objects": [Row("a", [1.0]), Slotted(3), types.SimpleNamespace(a=1), ValueError("bad", 3)],
    "circle": Account(3.0),
    "arrays": [np.arange(6).reshape(2, 3), np.array([NAN, -0.0]), np.array(["a", None], dtype=object)],
    "array kinds": [np.array("2024-01-01", "M8[D]"), np.array(["NaT"], "m8[s]"), np.array([b"ab"]), np.array(["ü"])],
    "structured": np.array([(1, 2.0), (3, NAN)], dtype=[("a", "i1"), ("b", "f8")]),
    "long double": np.array([1.5, NAN], dtype=np.longdouble),
    "empty": [np.zeros((0, 3)), pd.DataFrame(), pd.Series(dtype="float64"), [], {}],
    "masked": np.ma.array([1.0, 2.0], mask=[False, True]),
    "scalars": [np.float64(1.0), np.int8(3), np.str_("a"), np.bool_(1), np.datetime64("NaT")],
    "generators": [np.random.default_rng(0), np.random.RandomState(3)],
    "frame": frame(),
    "frame of kinds": pd.DataFrame(
        {
            "when": pd.date_range("2024-01-01", periods=2, tz="Europe/Paris"),
            "kind": pd.Categorical(["a", None], categories=["b", "a"], ordered=True),
            "gaps": pd.array([1, None], dtype="Int64"),
            "cut": pd.cut([1, 5], [0, 2, 6]),
            "list": [[1], {"a": 2}],
        }
    ),
    "series": pd.Series([1.0, NAN], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None]), name="s"),
    "index": [pd.RangeIndex(3), pd.Index([1, 2]), pd.date_range("2024-01-01", periods=2), pd.Index(["a"], name="n")],
    "pandas scalars": [pd.NA, pd.NaT, pd.Timestamp("2024-01-01", tz="UTC"), pd.Period("2024-01"), pd.Timedelta(3)],
    "sparse": Made(lambda: sparse(np.eye(3))),
    "forest": Made(forest),
    "figure": Made(figure),
    "axes": Made(lambda: figure().axes[0]),
    "code": [len, np.sin, functools.partial(max, key=abs), str.upper, [].append, pd.DataFrame],
    "closure": adder(3),
    "class of a cell": from_cell("class thing:\n    n = 1\n    @property\n    def twice(self): return 2 * self.n"),
    "instance of it": from_cell("class C:\n    def __init__(self): self.n = 1\nthing = C()"),
    "dataclass of a cell": from_cell(
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    n: int = 1\nthing = [C, C()]"
    ),
}


@pytest.mark.parametrize("value", EQUAL.values(), ids=EQUAL)
def test_a_value_is_equal_to_its_copy_from_another_process(value: Any) -> None:
    value = made(value)
    assert equal(value, fresh(value)) is None
    assert equal(value, value) is None


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "1 and True": (1, True),
    "1 and 1.0": (1, 1.0),
    "0.0 and -0.0": (0.0, -0.0),
    "last bit": (0.1 + 0.2, 0.3),
    "nan and None": (NAN, None),
    "complex sign": (complex(0, 0.0), complex(0, -0.0)),
    "text and bytes": ("a", b"a"),
    "list and tuple": ([1], (1,)),
    "deep inside": ({"a": [1, {"b": (1, 2)}]}, {"a": [1, {"b": (1, 3)}]}),
    "deep type": ({"a": [1]}, {"a": [True]}),
    "type of a key": ({1: "x"}, {True: "x"}),
    "type of an element": ({1, 2}, {1.0, 2}),
    "missing key": ({"a": 1}, {"b": 1}),
    "order of an ordered dict": (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    "default factory": (defaultdict(list), defaultdict(set)),
    "bound of a deque": (deque([1], maxlen=1), deque([1], maxlen=2)),
    "attribute of a list": (words("en"), words("de")),
    "decimal places": (Decimal("1.0"), Decimal("1.00")),
    "fold of a time": (dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, fold=1)),
    "enum member": (Colour.RED, Colour.BLUE),
    "enum and its value": (Level.LOW, 1),
    "object's state": (Row("a", [1.0]), Row("a", [1.5])),
    "a sly ==": (Sly(1), Sly(2)),
    "slots": (Slotted(1), Slotted(2)),
    "in a circle": (Account(1.0), Account(2.0)),
    "error's text": (ValueError("a"), ValueError("b")),
    "array's dtype": (np.array([1], "i4"), np.array([1], "i8")),
    "array's shape": (np.zeros(4), np.zeros((2, 2))),
    "array's zero sign": (np.array([0.0]), np.array([-0.0])),
    "array's value": (np.array([1.0, NAN]), np.array([NAN, 1.0])),
    "byte order": (np.array([1], "<i4"), np.array([1], ">i4")),
    "object array": (np.array([1, None], dtype=object), np.array([True, None], dtype=object)),
    "array and list": (np.array([1]), [1]),
    "array and scalar": (np.float64(1), 1.0),
    "mask": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    "state of a generator": (np.random.default_rng(0), np.random.default_rng(1)),
    "frame's value": (frame(), frame(a=[1, 2, 4])),
    "frame's dtype": (frame(), frame(a=[1.0, 2.0, 3.0])),
    "frame's narrow dtype": (frame(), frame(a=np.array([1, 2, 3], "i4"))),
    "frame's zero sign": (frame(), frame(b=[0.5, NAN, 0.0])),
    "frame's index name": (frame(), frame().rename_axis("key")),
    "frame's index type": (frame().reset_index(), frame().reset_index().set_axis(pd.Index([0, 1, 2]))),
    "frame's column order": (frame(), frame()[["b", "a", "c"]]),
    "frame's column name": (frame(), frame().rename_axis(columns="n")),
    "frame's attrs": (frame(), frame().assign().pipe(lambda d: d.attrs.update(a=1) or d)),
    "None and nan in objects": (pd.Series([None, 1], dtype=object), pd.Series([NAN, 1], dtype=object)),
    "string and object": (pd.Series(["a"], dtype="str"), pd.Series(["a"], dtype=object)),
    "order of categories": (pd.Categorical(["a"], ["a", "b"]), pd.Categorical(["a"], ["b", "a"])),
    "ordered categories": (pd.Categorical(["a"], ordered=True), pd.Categorical(["a"], ordered=False)),
    "series' name": (pd.Series([1], name="a"), pd.Series([1], name="b")),
    "frequency": (pd.date_range("2024", periods=2), pd.DatetimeIndex(["2024-01-01", "2024-01-02"])),
    "time zone": (pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-01")),
    "unit": (pd.Timestamp("2024-01-01").as_unit("s"), pd.Timestamp("2024-01-01").as_unit("ns")),
    "levels": (pd.MultiIndex.from_arrays([[1], ["a"]]), pd.MultiIndex.from_arrays([[1], ["b"]])),
    "sparse": (Made(lambda: sparse(np.eye(2))), Made(lambda: sparse(np.ones((2, 2))))),
    "parameter": (Made(forest), Made(lambda: forest(max_depth=2))),
    "fitted": (Made(forest), Made(lambda: forest(random_state=1))),
    "fitted and not": (Made(forest), Made(lambda: type(forest())(n_estimators=3, random_state=0))),
    "figure": (Made(figure), Made(lambda: figure(height=3.0))),
    "figure's title": (Made(figure), Made(lambda: figure(title="u"))),
    "axes": (Made(lambda: figure().axes[0]), Made(lambda: figure(height=3.0).axes[0])),
    "function's body": (from_cell("def thing(x): return x + 1"), from_cell("def thing(x): return x + 2")),
    "function's default": (from_cell("def thing(x=1): return x"), from_cell("def thing(x=2): return x")),
    "closed-over value": (adder(1), adder(2)),
    "function or generator": (from_cell("def thing(): return 1"), from_cell("def thing(): yield 1")),
    "partial": (functools.partial(max, 1), functools.partial(max, 2)),
    "bound method": ([1].append, [2].append),
    "class": (from_cell("class thing:\n    n = 1"), from_cell("class thing:\n    n = 2")),
    "enum's members": (
        from_cell("from enum import Enum\nclass thing(Enum):\n    A = 1"),
        from_cell("from enum import Enum\nclass thing(Enum):\n    A = 2"),
    ),
    "class's method": (
        from_cell("class thing:\n    def f(self): return 1"),
        from_cell("class thing:\n    def f(self): return 2"),
    ),
    "class's property": (
        from_cell("class thing:\n    @property\n    def f(self): return 1"),
        from_cell("class thing:\n    @property\n    def f(self): return 2"),
    ),
    "class of an instance": (
        from_cell("class A:\n    pass\nthing = A()"),
        from_cell("class B:\n    pass\nthing = B()"),
    ),
    "two builtins": (len, max),
    "two modules": (np, pd),
}


@pytest.mark.parametrize(("left", "right"), DIFFERENT.values(), ids=DIFFERENT)
def test_a_difference_is_found_from_both_sides(left: Any, right: Any) -> None:
    left, right = made(left), made(right)
    for a, b in ((left, right), (right, left), (left, fresh(right)), ([left], [right]), ({"k": left}, {"k": right})):
        difference = equal(a, b)
        assert difference is not None
        assert difference.kind == DIFFERS
        assert "!=" in str(difference)


twice_loaded = fresh(fresh(functools.partial(max, key=abs)))

used_flags, fresh_flags = (from_cell("from enum import Flag\nclass thing(Flag):\n    A = 1\n    B = 2") for _ in "ab")
used_flags.A | used_flags.B

SAME: dict[str, tuple[Any, Any]] = {
    "order of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "order of a set": ({1, 2, 3}, {3, 2, 1}),
    "memory order": (np.arange(4).reshape(2, 2), np.asfortranarray(np.arange(4).reshape(2, 2))),
    "comments and place": (
        from_cell("def thing(x):\n    return x + 1"),
        from_cell("\n\n# a\ndef thing(x):\n    return  x+1  # b"),
    ),
    "value under a mask": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 9], mask=[0, 1])),
    "a partial loaded once and twice": (functools.partial(max, key=abs), twice_loaded),
    "combinations of flags that were used": (used_flags, fresh_flags),
    "two loads of a class": (
        from_cell("class A:\n    n = 1\nthing = A()"),
        from_cell("class A:\n    n = 1\nthing = A()"),
    ),
}


@pytest.mark.parametrize(("left", "right"), SAME.values(), ids=SAME)
def test_what_is_no_difference(left: Any, right: Any) -> None:
    assert equal(left, right) is None


WITHOUT: dict[str, Callable[[], Any]] = {
    "generator": lambda: (i for i in ()),
    "lock": threading.Lock,
    "groups": lambda: frame().groupby("a"),
    "memory": lambda: memoryview(b"a"),
    "inside": lambda: {"a": [threading.Lock()]},
}


@pytest.mark.parametrize("make", WITHOUT.values(), ids=WITHOUT)
def test_what_has_no_equality_is_listed(make: Callable[[], Any]) -> None:
    found = equal(make(), make())
    assert found is not None
    assert found.kind == NO_EQUALITY
    assert "no equality" in str(found)


def test_a_difference_says_where() -> None:
    assert str(equal({"a": [1, 2]}, {"a": [1, 3]}, "x")) == "at x['a'][1]: 2 (int) != 3 (int)"
    assert "x.index.names[0]" in str(equal(frame(), frame().rename_axis("key"), "x"))
    assert "x['b'].flat[2]" in str(equal(frame(), frame(b=[0.5, NAN, 0.0]), "x"))


def test_every_name_of_two_namespaces_is_accounted_for() -> None:
    lock = threading.Lock()
    left = {"same": [1], "other": 1, "lock": lock, "mine": 0}
    right = {"same": [1], "other": True, "lock": threading.Lock(), "yours": 0}
    found = compare(left, right)
    assert found.equal == ("same",)
    assert set(found.differences) == {"other"}
    assert set(found.without) == {"lock"}
    assert (found.only_left, found.only_right) == (("mine",), ("yours",))


PLAIN_SOURCES = {
    "step": ("%%step load --retry 2\nx = 1", "# %%step load --retry 2\nx = 1"),
    "params": ("%%params\nlr: float = 0.1", "# %%params\nlr: float = 0.1"),
    "setup": ("\n%%setup\nimport os", "\n# %%setup\nimport os"),
    "inner cell magic": ("%%step a\n%%time\nx = 1", "\n%%time\nx = 1"),
    "other cell magic": ("%%time\nx = 1", "%%time\nx = 1"),
    "comment form": ("# %%step a\nx = 1", "# %%step a\nx = 1"),
    "load": ("%load_ext nbflow", "pass"),
    "load of another": ("%load_ext autoreload", "%load_ext autoreload"),
    "flow": ("x = 1\n%flow run train\ny = 2", "x = 1\npass\ny = 2"),
    "no header in a string": ("s = '''\n%%step a\n'''", "s = '''\n%%step a\n'''"),
}


@pytest.mark.parametrize(("source", "expected"), PLAIN_SOURCES.values(), ids=PLAIN_SOURCES)
def test_plain_source(source: str, expected: str) -> None:
    assert plain_source(source) == expected


def test_a_fan_out_has_no_plain_meaning() -> None:
    with pytest.raises(ValueError, match="no plain meaning"):
        plain_source("%%step a --foreach x in [1]\ny = x")
