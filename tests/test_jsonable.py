"""What users' code hands over becomes JSON's own types, as Jupyter would send it."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import json
import types
from typing import Any

import markupsafe
import msgspec
import numpy as np
import pytest

from nbflow.jsonable import jsonable, text, to_json, to_msgpack


class Stubborn(str):
    """Text that says of itself that it is text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    __repr__ = __str__


class Whole(int):
    pass


class Ratio(float):
    pass


class Table(dict[str, object]):
    pass


class Rows(list[object]):
    pass


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


CASES: dict[str, tuple[Any, Any]] = {
    "text": (Stubborn("a"), "a"),
    "safe text": (markupsafe.Markup("<b>"), "<b>"),
    "numpy text": (np.str_("a"), "a"),
    "half a pair": ("a\udc80b\ud800", "a\ufffdb\ufffd"),
    "beyond the plane": ("\U0001f389", "\U0001f389"),
    "numbers": ([Whole(2), Ratio(0.5), Level.LOW, True], [2, 0.5, 1, True]),
    "numpy numbers": ([np.float64(0.5), np.float32(0.5), np.int64(2), np.bool_(True)], [0.5, 0.5, 2, True]),
    "arrays": (np.array([[1, 2]]), [[1, 2]]),
    "not finite": ([float("nan"), Ratio("inf"), np.array([np.nan])], ["nan", "inf", ["nan"]]),
    "large": ([2**63, 2**64, -(2**70)], [2**63, 2.0**64, -(2.0**70)]),
    "larger than any": (10**400, "1" + 400 * "0"),
    "containers": (Table(a=Rows([(1, Stubborn("x"))])), {"a": [[1, "x"]]}),
    "ordered": (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "a view": ({"a": types.MappingProxyType({"b": 1})}, {"a": {"b": 1}}),
    "sets and ranges": ([{1}, range(2)], [[1], [0, 1]]),
    "keys": ({Stubborn("a"): 1, 2: 3}, {"a": 1, "2": 3}),
    "odd keys": ({(1, 2): 1, np.int64(3): {None: 2}}, {"(1, 2)": 1, "3": {"None": 2}}),
    "bytes": ([b"abc", bytearray(b"abc")], ["YWJj", "YWJj"]),
    "dates": ([dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, tzinfo=dt.UTC)], ["2024-02-29", "2024-02-29T00:00:00Z"]),
    "what Jupyter refuses": ([Colour.RED, decimal.Decimal("1.5"), fractions.Fraction(1, 3)], ["red", "1.5", "1/3"]),
}


def types_in(value: Any) -> set[type]:
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return {type(value)}.union(*map(types_in, parts))


@pytest.mark.parametrize("case", CASES)
def test_becomes_what_json_knows(case: str) -> None:
    value, expected = CASES[case]
    found = jsonable(value)
    assert found == expected
    assert types_in(found) == types_in(expected)
    assert json.loads(msgspec.json.encode(found)) == found
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found)) == found


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises((ValueError, RecursionError)):
        jsonable(value)


def test_text_is_plain_text() -> None:
    assert type(text(Stubborn("a"))) is str
    assert type(text(Stubborn("\xe9\udcff"))) is str
    assert text(Stubborn("\xe9\udcff")) == "\xe9\ufffd"


class Message(msgspec.Struct):
    name: str
    count: int
    share: float
    parts: tuple[str, ...] = ()
    data: bytes = b""


def test_messages_hold_text_and_numbers_of_any_kind() -> None:
    message = Message(Stubborn("n"), Whole(2), Ratio(0.5), (np.str_("p"), "\udc80"), b"\x00")
    expected = Message("n", 2, 0.5, ("p", "\ufffd"), b"\x00")
    assert msgspec.json.decode(to_json(message), type=Message) == expected
    assert msgspec.msgpack.decode(to_msgpack(message), type=Message) == expected


def test_other_objects_in_messages_are_refused() -> None:
    with pytest.raises(TypeError, match="no values of type object"):
        to_json({"a": object()})
