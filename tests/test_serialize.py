"""Values survive a round trip through buffers, share what they shared, and refer to definitions by name."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import gc
import inspect
import io
import linecache
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import textwrap
import threading
import weakref
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nbflow.describe import describe
from nbflow.errors import OutdatedError
from nbflow.fingerprint import fingerprint
from nbflow.serialize import Dumped, Registry, Unstorable, dump, load
from nbflow.tracebacks import remember_lines

MAIN = sys.modules["__main__"].__dict__


def dumped(registry: Registry | None = None, /, **values: Any) -> dict[tuple[str, ...], Dumped]:
    """The stored groups by their names; fails when a value cannot be stored."""
    found = dump(values, registry or Registry())
    assert not [each for each in found if isinstance(each, Unstorable)], found
    return {each.names: each for each in found if isinstance(each, Dumped)}


def loaded(groups: dict[tuple[str, ...], Dumped], registry: Registry | None = None) -> dict[str, Any]:
    """The groups' values from copies of their bytes, as another process would get them."""
    result: dict[str, Any] = {}
    for each in groups.values():
        buffers = [bytearray(buffer) for buffer in each.buffers]
        result |= load(bytes(each.stream), buffers, registry or Registry(), each.names)
    return result


def through(value: Any) -> Any:
    return loaded(dumped(value=value))["value"]


def in_main(source: str) -> dict[str, Any]:
    """Run source in `__main__`'s own namespace, as a notebook's cell is; the names that it bound."""
    before = dict(MAIN)
    exec(textwrap.dedent(source), MAIN)
    return {name: value for name, value in MAIN.items() if before.get(name) is not value}


@pytest.fixture(autouse=True)
def _clean_main() -> Any:
    before = dict(MAIN)
    yield
    MAIN.clear()
    MAIN.update(before)


# ---------------------------------------------------------------- round trips


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: float
    y: list[int]


def frames() -> dict[str, pd.DataFrame]:
    days = pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin")
    mixed = pd.DataFrame(
        {
            "i": [1, 2, 3],
            "f": [0.5, np.nan, 2],
            "s": ["a", None, "c"],
            "b": [True, False, True],
            "c": pd.Categorical(["x", "y", "x"], categories=["y", "x"], ordered=True),
            "t": days,
            "n": pd.array([1, None, 3], dtype="Int64"),
            "o": [{"a": 1}, [2], None],
            "d": pd.to_timedelta([1, 2, 3], unit="s"),
            "p": pd.period_range("2024", periods=3, freq="M"),
            "u": np.arange(3, dtype="uint8"),
            "z": np.array([1, 2, 3], dtype="complex64"),
            "naive": pd.date_range("2024", periods=3),
        }
    )
    attrs = mixed.copy()
    attrs.attrs = {"unit": "m", "list": [1]}
    flagged = mixed.set_flags(allows_duplicate_labels=False)
    duplicated = mixed[["i", "f", "i"]]
    multi = pd.DataFrame(
        np.arange(12.0).reshape(3, 4),
        index=pd.MultiIndex.from_product([["a"], [1, 2, 3]], names=["k", None]),
        columns=pd.MultiIndex.from_product([["p", "q"], ["x", "y"]]),
    )
    big = pd.DataFrame({name: np.arange(20_000) * 1.5 for name in "abc"} | {"s": ["x", "yy"] * 10_000})
    big["t"] = pd.date_range("2024", periods=20_000, freq="s", tz="UTC")
    big["o"] = [[i] for i in range(20_000)]
    return {
        "mixed": mixed,
        "attrs": attrs,
        "flagged": flagged,
        "duplicated": duplicated,
        "multi": multi,
        "big": big,
        "no rows": mixed.iloc[:0],
        "no columns": mixed[[]],
        "nothing": pd.DataFrame(),
        "sliced": big.iloc[10:50],
        "strided": pd.DataFrame(np.arange(80_000.0).reshape(20_000, 4)),
        "every other": big.iloc[::2],
        "object labels": pd.DataFrame([[1, 2]], columns=[("a", 1), None]),
        "frequency": mixed.set_index("naive"),
    }


@pytest.mark.parametrize("name", list(frames()))
def test_frames(name: str) -> None:
    frame = frames()[name]
    result = through(frame)
    pd.testing.assert_frame_equal(result, frame, check_freq=True, check_flags=True)
    assert result.attrs == frame.attrs
    assert [str(kind) for kind in result.dtypes] == [str(kind) for kind in frame.dtypes]
    if frame.shape[0] and "i" in frame and frame.columns.is_unique:
        result.loc[result.index[0], "i"] = 77
        assert result["i"].iloc[0] == 77
        assert frame["i"].iloc[0] != 77


class Marked(pd.DataFrame):
    """A frame with a fact of its own, as libraries make them."""

    _metadata = ["fact"]

    @property
    def _constructor(self) -> Any:
        return Marked


def test_subclasses_keep_their_own_way() -> None:
    frame = Marked({"a": np.arange(20_000.0), "s": ["x"] * 20_000})
    frame.fact = {"k": 1}
    result = loaded(dumped(frame=frame, part=frame[["a"]]))
    assert type(result["frame"]) is type(result["part"]) is Marked
    assert result["frame"].fact == {"k": 1}
    pd.testing.assert_frame_equal(result["frame"], frame)
    result["part"].loc[0, "a"] = -1
    assert result["frame"].loc[0, "a"] == 0
    first, second = through([frame, frame[["a"]]])
    first.loc[0, "a"] = -1
    assert second.loc[0, "a"] == 0


SERIES = {
    "ints": pd.Series([1, 2], name="n"),
    "strings": pd.Series(["a", None]),
    "objects": pd.Series(["a", 1], dtype=object),
    "dates": pd.Series(pd.date_range("2024", periods=3)),
    "zones": pd.Series(pd.date_range("2024", periods=3, tz="UTC")),
    "big": pd.Series(np.arange(50_000.0), index=np.arange(50_000) + 3, name=("a", 1)),
    "sparse": pd.Series(pd.arrays.SparseArray([0, 0, 1])),
    "big strings": pd.Series(["x" * 20] * 10_000),
    "category": pd.Series(["a", "b"] * 50_000, dtype="category"),
    "intervals": pd.Series(pd.interval_range(0, 3)),
}


@pytest.mark.parametrize("name", list(SERIES))
def test_series(name: str) -> None:
    pd.testing.assert_series_equal(through(SERIES[name]), SERIES[name])


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    grid = np.arange(60_000.0).reshape(200, 300)
    return {
        "small": np.arange(3),
        "scalar": np.array(5.0),
        "empty": np.zeros((0, 4)),
        "big": grid,
        "fortran": np.asfortranarray(grid),
        "transposed": grid.T,
        "strided": grid[:, ::3],
        "reversed": grid[::-1],
        "bool": grid > 3,
        "complex": grid + 1j,
        "text": np.array(["a", "bcd"] * 20_000),
        "bytes": np.array([b"a", b"bcd"] * 20_000),
        "half": grid.astype("f2"),
        "swapped": grid.astype(">f8"),
        "dates": np.arange(20_000).astype("M8[h]"),
        "times": np.arange(20_000).astype("m8[ms]"),
        "fields": np.zeros(9000, dtype=[("a", "i1"), ("b", "f8")]),
        "aligned": np.zeros(9000, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        "objects": np.array([1, "a", None], dtype=object),
        "broadcast": np.broadcast_to(np.arange(300.0), (200, 300)),
        "strings": np.array(["a", "bb"], dtype=np.dtypes.StringDType()),
        "three": np.arange(24_000).reshape(20, 30, 40).transpose(2, 0, 1),
    }


@pytest.mark.parametrize("name", list(arrays()))
def test_arrays(name: str) -> None:
    array = arrays()[name]
    result = through(array)
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert result.flags.writeable == array.flags.writeable
    if array.size and result.flags.writeable:
        result[...] = result.flat[0]  # and the original is not touched
        np.testing.assert_array_equal(array, arrays()[name])
    if name in {"big", "fortran", "transposed"}:
        assert result.flags.f_contiguous == array.flags.f_contiguous


def test_what_may_not_be_written_stays_so() -> None:
    """Alone and with views, small and large: code that fails in the notebook fails in the flow."""
    small, large = np.arange(3), np.arange(100_000)
    for array in (small, large):
        array.flags.writeable = False
    values = {"small": small, "view": small[:2], "large": large, "wide": np.broadcast_to(np.arange(3), (2, 3))}
    result = loaded(dumped(Registry(), **values), Registry())
    assert [name for name in values if result[name].flags.writeable] == []
    assert loaded(dumped(Registry(), kept=np.arange(3)), Registry())["kept"].flags.writeable


def test_mapped_and_masked_arrays(tmp_path: pathlib.Path) -> None:
    mapped = np.memmap(tmp_path / "data", dtype="f4", mode="w+", shape=(200, 200))
    mapped[:] = 3
    result = through(mapped)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, mapped)
    for masked in (np.ma.masked_less(np.arange(40_000), 7), np.ma.array([1, 2], mask=False), np.ma.array([1.5])):
        again = through(masked)
        assert type(again) is np.ma.MaskedArray
        np.testing.assert_array_equal(again.data, masked.data)
        np.testing.assert_array_equal(np.ma.getmaskarray(again), np.ma.getmaskarray(masked))
        assert again.fill_value == masked.fill_value


OTHERS: dict[str, Any] = {
    "int": 3,
    "big int": 10**300,
    "float": 0.1,
    "text": "häé\ud800",
    "bytes": b"\x00" * 100_000,
    "none": None,
    "bool": True,
    "complex": 1j,
    "list": [1, [2, "x"]],
    "tuple": (1, (2,)),
    "dict": {"a": 1, 2: [3]},
    "set": {1, 2},
    "frozen": frozenset({1}),
    "bytearray": bytearray(b"x" * 100_000),
    "deque": collections.deque([1], maxlen=3),
    "counter": collections.Counter("aab"),
    "default": collections.defaultdict(list, a=[1]),
    "ordered": collections.OrderedDict(a=1),
    "path": pathlib.Path("/a/b"),
    "date": dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    "decimal": decimal.Decimal("1.10"),
    "range": range(3),
    "slice": slice(1, 2),
    "enum": Colour.RED,
    "point": Point(1.0, [2]),
    "type": int,
    "class": Point,
    "function": os.path.join,
    "module": np,
    "scalar": np.float32(1.5),
    "dtype": np.dtype("f4"),
    "timestamp": pd.Timestamp("2024", tz="UTC"),
    "index": pd.Index(["a", "b"], name="i"),
    "interval": pd.Interval(0, 1),
    "error": ValueError("x", 1).args,
    "array type": pa.int64(),
    "memory": memoryview(b"abc"),
    "ellipsis": ...,
    "bound": [1, 2].count,
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_values(name: str) -> None:
    value = OTHERS[name]
    result = through(value)
    assert type(result) is type(value)
    if name == "index":
        pd.testing.assert_index_equal(result, value)
    elif name == "bound":
        assert result(1) == 1
    else:
        assert result == value


def test_polars_and_arrow_keep_types() -> None:
    frame = pl.DataFrame(
        {
            "a": [1, None],
            "s": ["x", "y"],
            "l": [[1], [2, 3]],
            "t": [dt.datetime(2024, 1, 1)] * 2,
            "st": [{"q": 1}] * 2,
        }
    ).with_columns(pl.col("s").cast(pl.Categorical).alias("c"), pl.col("s").cast(pl.Enum(["y", "x"])).alias("e"))
    for value in (frame, frame.select("a", "s", "l", "t", "st"), frame["a"], frame.lazy().collect(), frame.clear()):
        result = through(value)
        assert type(result) is type(value)
        assert result.equals(value)
        assert (result.schema if isinstance(result, pl.DataFrame) else result.dtype) == (
            value.schema if isinstance(value, pl.DataFrame) else value.dtype
        )
    large = pl.DataFrame({"a": np.arange(100_000)})
    (group,) = dumped(x=large).values()
    assert len(group.stream) < 5000
    assert through(large).equals(large)
    table = pa.table({"a": np.arange(50_000), "s": ["x"] * 50_000})
    assert through(table).equals(table)


def test_estimators_and_figures() -> None:
    from matplotlib.figure import Figure
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.random.default_rng(0).random((100, 3))
    for model in (
        make_pipeline(StandardScaler(), LinearRegression()).fit(features, features[:, 0]),
        RandomForestClassifier(n_estimators=5, random_state=0).fit(features, features[:, 0] > 0.5),
    ):
        np.testing.assert_array_equal(through(model).predict(features), model.predict(features))
    figure = Figure()
    figure.subplots().plot([1, 3, 2], label="a")
    shown, again = io.BytesIO(), io.BytesIO()
    figure.savefig(shown, format="png")
    through(figure).savefig(again, format="png")
    assert shown.getvalue() == again.getvalue()


def test_large_memory_is_out_of_band_and_not_copied() -> None:
    array = np.arange(100_000.0)
    frame = pd.DataFrame({"a": array.copy(), "b": array.copy()})
    for value, count in ((array, 1), (frame, 2), ({"k": [array]}, 1)):
        (group,) = dumped(v=value).values()
        assert len(group.buffers) == count
        assert len(group.stream) < 2000
    (group,) = dumped(v=array).values()
    array[0] = 42
    assert np.frombuffer(group.buffers[0])[0] == 42


def test_dump_keeps_nothing_alive() -> None:
    gc.disable()
    try:
        array = np.arange(100_000.0)
        gone = weakref.ref(array)
        groups = dumped(v=[array], w={"k": array})
        del array, groups
        assert gone() is None
    finally:
        gc.enable()


def test_what_was_loaded_is_changed_and_stored_as_the_original_would_be() -> None:
    frame = pd.DataFrame({"a": [3, 1, 2], "b": [1, None, 2]})
    again = through(frame)
    for change in (lambda f: f.sort_values("a"), lambda f: f.fillna(0), lambda f: f.assign(d=f.a * 2.5)):
        assert dumped(x=change(again))[("x",)].stream == dumped(x=change(frame))[("x",)].stream
    for array in (np.arange(5), np.arange(5.0), np.array(["a", None], dtype=object)):
        assert through(array).dtype is array.dtype


def test_columns_are_stored_alike_whatever_blocks_hold_them() -> None:
    whole = pd.DataFrame({"a": np.arange(20_000.0), "b": np.arange(20_000.0) * 2})
    apart = pd.DataFrame({"a": np.arange(20_000.0)})
    apart["b"] = np.arange(20_000.0) * 2
    for size in (20_000, 100):
        first, second = whole.iloc[:size].copy(), apart.iloc[:size].copy()
        second["c"], first["c"] = 1, 1
        streams = [next(iter(dumped(x=frame).values())).stream for frame in (first, second)]
        assert streams[0] == streams[1]


# ---------------------------------------------------------------- sharing

SHARED = [1, 2]


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        (lambda: {"a": SHARED, "b": SHARED}, [("a", "b")]),
        (lambda: {"a": [SHARED], "b": {"k": SHARED}, "c": [1, 2]}, [("a", "b"), ("c",)]),
        (lambda: {"a": (s := {1}), "b": [s], "c": [b := bytearray(b"x")], "d": (b,)}, [("a", "b"), ("c", "d")]),
        (lambda: {"a": (x := Point(1, [])), "b": [x]}, [("a", "b")]),
        (lambda: {"a": (x := Point(1, [])).y, "b": x}, [("a", "b")]),
        (lambda: {"a": ["text"], "b": {"text": "text"}, "c": ("text",)}, [("a",), ("b",), ("c",)]),
        (lambda: {"a": [int, np.dtype("f8"), Colour.RED], "b": [int, np.dtype("f8"), Colour.RED]}, [("a",), ("b",)]),
        (
            lambda: {"a": [p := pathlib.Path("x")], "b": [p], "c": [d := dt.date.today()], "d": [d]},
            [("a",), ("b",), ("c",), ("d",)],
        ),
        (lambda: {"a": [np, len, os.path.join], "b": {"m": np, "f": len, "j": os.path.join}}, [("a",), ("b",)]),
        (lambda: {"a": (x := np.arange(9)), "b": x}, [("a", "b")]),
        (lambda: {"a": (x := np.arange(9)), "b": x[:3], "c": x.copy()}, [("a", "b"), ("c",)]),
        (lambda: {"a": (x := np.arange(9))[:3], "b": x[3:]}, [("a",), ("b",)]),
        (lambda: {"a": (f := pd.DataFrame({"a": [1]})), "b": f}, [("a", "b")]),
        (
            lambda: {
                "a": (f := pd.DataFrame({"a": [1], "s": ["x"]})),
                "b": f[["a"]],
                "c": f["s"],
                "d": f.copy(deep=False),
            },
            [("a",), ("b",), ("c",), ("d",)],
        ),
        (
            lambda: {
                "a": (f := pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("x", 1)]))),
                "b": f + 1,
                "c": f.index,
            },
            [("a",), ("b",), ("c",)],
        ),
        (lambda: {"a": (c := pd.Categorical(["x"])), "b": [c], "c": pd.Series(c)}, [("a", "b"), ("c",)]),
        (lambda: {"a": pd.DataFrame({"o": [SHARED]}), "b": SHARED}, [("a", "b")]),
        (
            lambda: {"a": pl.DataFrame({"a": [1]}), "b": pd.DataFrame({"s": ["x"]}), "c": pa.table({"a": [1]})},
            [("a",), ("b",), ("c",)],
        ),
        (
            lambda: {
                "a": (r := random.Random(1)),
                "b": [r],
                "c": np.random.default_rng(1),
                "d": np.random.default_rng(1),
            },
            [("a", "b"), ("c",), ("d",)],
        ),
        (lambda: {name: [number] for number, name in enumerate("abcdef")}, [(name,) for name in "abcdef"]),
    ],
)
def test_groups(values: Any, groups: list[tuple[str, ...]]) -> None:
    assert sorted(dumped(**values())) == groups


def test_identity_survives_within_a_group() -> None:
    inner = [1]
    point = Point(1, inner)
    result = loaded(dumped(a=[inner, point], b=inner, c=point))
    assert result["a"][0] is result["b"]
    assert result["c"].y is result["b"]
    assert result["a"][1] is result["c"]


@pytest.mark.parametrize("size", [100, 100_000])
def test_views_share_memory_after_loading(size: int) -> None:
    whole = np.arange(float(size)).reshape(-1, 10)
    values = {"whole": whole, "head": whole[:2], "column": whole[:, -1], "rest": whole[:, :-1], "back": whole[::-1]}
    groups = dumped(**values)
    assert sorted(groups) == [tuple(sorted(values))]
    assert sum(buffer.nbytes for buffer in next(iter(groups.values())).buffers) <= whole.nbytes
    result = loaded(groups)
    for name, value in values.items():
        np.testing.assert_array_equal(result[name], value)
    result["whole"][0, 9] = -1
    assert result["head"][0, 9] == result["column"][0] == result["back"][-1, 9] == -1
    result["rest"][1, 1] = -2
    assert result["whole"][1, 1] == -2
    again = loaded(dumped(**result))
    again["whole"][0, 0] = -3
    assert again["head"][0, 0] == -3


def test_views_inside_one_value_share_memory_too() -> None:
    whole = np.arange(20_000.0)
    result = through({"whole": whole, "half": whole[:10_000]})
    result["whole"][0] = -1
    assert result["half"][0] == -1


def test_views_of_dicts_and_of_bytes_go_on_looking_into_them() -> None:
    table, memory = {"a": 1}, bytearray(b"abcd")
    values = {
        "table": table,
        "keys": table.keys(),
        "items": table.items(),
        "memory": memory,
        "look": memoryview(memory),
    }
    found = loaded(dumped(**values))
    found["table"]["b"] = 2
    found["look"][0] = 90
    assert [*found["keys"]] == ["a", "b"]
    assert [*found["items"]] == [("a", 1), ("b", 2)]
    assert found["memory"] == b"Zbcd"


def test_matches_are_found_again() -> None:
    text = "the age of wisdom, the age of foolishness"
    found = [*re.finditer(r"age of (?P<what>\w+)", text), re.match("the|then", text), re.compile("a?").fullmatch("a")]
    for match in (*found, re.compile("(?<=a)g").search(text, 4, 9)):
        back = through(match)
        assert (back.regs, back.string, back.re, back.pos, back.endpos) == (
            match.regs, match.string, match.re, match.pos, match.endpos,
        )  # fmt: skip


def test_a_loaded_figure_takes_part_in_every_change() -> None:
    """Transforms know those above them by `id`: with the ids of another process one would take another's place."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot([1, 2])
    found = through(figure)
    nodes = [found.dpi_scale_trans, found.bbox, found.axes[0].transData, found.axes[0].bbox]
    for node in nodes:
        assert node._parents
        assert all(key == id(reference()) for key, reference in node._parents.items())


def test_frames_that_shared_memory_stay_independent() -> None:
    frame = pd.DataFrame({"a": np.arange(20_000.0), "s": ["x"] * 20_000})
    result = loaded(dumped(frame=frame, part=frame[["a", "s"]], tie=[frame], series=frame["s"]))
    result["part"].loc[0, "a"] = -1
    result["part"].loc[0, "s"] = "changed"
    assert result["frame"].loc[0, "a"] == 0
    assert result["frame"].loc[0, "s"] == result["series"][0] == "x"
    assert result["tie"][0] is result["frame"]


def test_bad_values_do_not_hide_good_ones() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("not today")

    point = Point(1.0, [])
    point.inner = {"k": [0, threading.Lock()]}  # type: ignore[attr-defined]
    shared = [1]
    with pathlib.Path(__file__).open(encoding="utf-8") as file:
        found = dump(
            {
                "lock": threading.Lock(),
                "good": 1,
                "file": file,
                "gen": (i for i in ()),
                "bad": [shared, Refuses()],
                "x": [shared],
                "y": shared,
                "point": point,
            },
            Registry(),
        )
    failed = {each.name: each for each in found if isinstance(each, Unstorable)}
    assert set(failed) == {"lock", "file", "gen", "bad", "point"}
    assert failed["point"].reason == "TypeError: cannot pickle '_thread.lock' object (in point.inner['k'][1])"
    assert "_thread.lock" in failed["lock"].reason
    assert "open file" in failed["file"].reason
    assert failed["bad"].reason == "RuntimeError: not today (in bad[1])"
    assert failed["gen"].type == "generator"
    good = {each.names: each for each in found if isinstance(each, Dumped)}
    assert sorted(good) == [("good",), ("x", "y")]
    result = loaded(good)
    assert result["x"][0] is result["y"]


def test_deeply_nested_value_is_a_reason() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    (found,) = dump({"deep": value}, Registry())
    assert isinstance(found, Unstorable)
    while value:
        value = value[0]


# ---------------------------------------------------------------- definitions


def test_definitions_go_by_reference() -> None:
    source = """
        import functools, typing
        class Outer:
            class Inner:
                def method(self): return 1
            def __init__(self): self.inner = self.Inner()
        def plain(): return Outer
        @functools.cache
        def cached(): return 2
        T = typing.TypeVar("T")
        Money = typing.NewType("Money", int)
    """
    registry = Registry()
    registry.add("all@1", in_main(source), "cell 1")
    outer, cached = MAIN["Outer"], MAIN["cached"]
    values = {
        "instance": outer(),
        "inner": [outer.Inner()],
        "cls": outer,
        "nested": outer.Inner,
        "plain": MAIN["plain"],
        "method": outer.Inner.method,
        "bound": outer().inner.method,
        "cached": cached,
        "T": MAIN["T"],
        "money": MAIN["Money"],
    }
    groups = dumped(registry, **values)
    assert all(ref.id == "all@1" and ref.cell == "cell 1" for each in groups.values() for ref in each.definitions)
    assert all(each.definitions for each in groups.values())
    result = loaded(groups, registry)
    assert type(result["instance"]) is outer
    assert type(result["inner"][0]) is outer.Inner
    assert result["bound"]() == 1
    for name in ("cls", "nested", "plain", "method", "cached", "T", "money"):
        assert result[name] is values[name], name
    fresh = Registry()
    fresh.add("all@1", in_main(source), "cell 1")
    assert isinstance(loaded(groups, fresh)["instance"], MAIN["Outer"])
    assert MAIN["Outer"] is not outer


def test_instance_of_an_edited_class_is_refused_with_its_cell() -> None:
    registry = Registry()
    registry.add("A@1", in_main("class A: x = 1"), "cell 1")
    old = MAIN["A"]()
    groups = dumped(registry, old=old)
    registry.add("A@2", in_main("class A: x = 2"), "cell 3")
    assert dumped(registry, old=old)["old",].definitions[0].id == "A@1"
    fresh = Registry()
    fresh.add("A@2", {"A": MAIN["A"]}, "cell 3")
    with pytest.raises(OutdatedError) as caught:
        loaded(groups, fresh)
    assert caught.value.cell == "cell 3"
    assert "edited" in caught.value.message
    with pytest.raises(OutdatedError, match="not defined here"):
        loaded(groups, Registry())


def test_same_text_run_again_is_the_same_definition() -> None:
    registry = Registry()
    registry.add("A@1", in_main("class A: x = 1"))
    groups = dumped(registry, a=MAIN["A"]())
    registry.add("A@1", in_main("class A: x = 1"))
    assert type(loaded(groups, registry)["a"]) is MAIN["A"]


def test_functions_that_are_data_look_up_globals_late() -> None:
    in_main("""
        rate = 2
        scale = lambda x, *, by=3: x * rate * by + len([0])
        def make():
            count = 0
            def step():
                nonlocal count
                count += helper()
                return count
            def peek():
                return count
            def fact(n): return 1 if n == 0 else n * fact(n - 1)
            step.note = "hi"
            return step, peek, fact
        def helper(): return 1
        step, peek, fact = make()
    """)
    groups = dumped(scale=MAIN["scale"], step=MAIN["step"], peek=MAIN["peek"], fact=MAIN["fact"])
    assert sorted(groups) == [("fact",), ("peek", "step"), ("scale",)]
    assert groups["scale",].free == ("rate",)
    assert groups["peek", "step"].free == ("helper",)
    result = loaded(groups)
    MAIN["rate"] = 10
    assert result["scale"](2) == 61
    assert result["scale"].__globals__ is MAIN
    assert (result["step"](), result["step"](), result["peek"]()) == (1, 2, 2)
    assert result["step"].note == "hi"
    assert result["fact"](5) == 120
    assert result["step"].__qualname__ == "make.<locals>.step"
    assert MAIN["peek"]() == 0


def test_functions_that_are_data_bring_their_source() -> None:
    text = "def make(n):\n    def grow(x):\n        return x + n\n    return grow\n\n"
    remember_lines("cell 7 of a test", text)
    exec(compile(text, "cell 7 of a test", "exec"), MAIN)
    groups = dumped(grow=MAIN["make"](2))
    linecache.cache.pop("cell 7 of a test")
    assert inspect.getsource(loaded(groups)["grow"]) == "    def grow(x):\n        return x + n\n"
    remember_lines("cell 7 of a test", text.replace("x + n", "x - n"))
    other = loaded(groups)["grow"]
    assert inspect.getsource(other) == "    def grow(x):\n        return x + n\n"
    assert other(1) == 3
    assert inspect.getsource(loaded(dumped(grow=other))["grow"]) == inspect.getsource(other)


def test_local_classes_go_by_value() -> None:
    in_main("""
        def make():
            class Local:
                def __init__(self, v): self.v = v
                def get(self): return super().__init__ and self.v + offset
            return Local
        offset = 5
        thing = make()(2)
    """)
    groups = dumped(thing=MAIN["thing"])
    MAIN["offset"] = 7
    assert loaded(groups)["thing"].get() == 9
    assert groups["thing",].free == ("offset",)


WRITER = """
import pickle, sys
from nbflow.serialize import Registry, dump
import numpy as np, pandas as pd
registry = Registry()
source = "class Model:\\n    def __init__(self): self.w = {'b': 1, 'a': 2}\\n"
source += "    def go(self): return self.w['a'] * factor\\n"
exec(source, globals())
registry.add("Model@1", {"Model": Model}, "cell 1")
factor = 3
values = {"model": Model(), "f": (lambda q: q * factor), "n": 1, "x": np.arange(30000.0), "t": "text", "l": [1, "a"],
          "d": {"k": 1.5}, "df": pd.DataFrame({"a": range(9), "s": ["x"] * 9, "t": pd.date_range("2024", periods=9)}),
          "big": pd.DataFrame({"a": range(20000), "s": ["x"] * 20000}), "ser": pd.Series([1.5, 2], name="q")}
groups = [(g.names, bytes(g.stream), [bytes(b) for b in g.buffers], g.definitions) for g in dump(values, registry)]
sys.stdout.buffer.write(pickle.dumps(groups))
"""

READER = """
import pickle, sys
from nbflow.serialize import Registry, load
registry = Registry()
source = "class Model:\\n    def __init__(self): self.w = {}\\n    def go(self): return self.w['a'] * factor\\n"
exec(source, globals())
registry.add("Model@1", {"Model": Model}, "cell 1")
factor = 50
values = {}
for names, stream, buffers, _ in pickle.loads(sys.stdin.buffer.read()):
    values |= load(stream, [bytearray(b) for b in buffers], registry, names)
assert isinstance(values["model"], Model)
assert values["model"].go() == 100, values["model"].go()
assert values["f"](2) == 100
assert values["x"].sum() == sum(range(30000))
print("fine")
"""


def _python(source: str, seed: str, data: bytes = b"") -> bytes:
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", source], env=environment, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.running
def test_processes_with_other_hash_seeds_agree() -> None:
    first, second = _python(WRITER, "1"), _python(WRITER, "2")
    ours, theirs = pickle.loads(first), pickle.loads(second)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other, mine[0]
    assert _python(READER, "3", first).strip() == b"fine"


# ---------------------------------------------------------------- plug-ins


class Opaque:
    """A value that pickle cannot store, for which a serializer is plugged in."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.lock = threading.Lock()


class OpaqueSerializer:
    def can_write(self, value: Any) -> bool:
        return isinstance(value, Opaque)

    def write(self, value: Opaque) -> tuple[dict[str, Any], list[memoryview]]:
        return {"size": len(value.data)}, [memoryview(value.data)]

    def read(self, meta: dict[str, Any], buffers: list[memoryview]) -> Opaque:
        assert meta["size"] == len(buffers[0])
        return Opaque(bytes(buffers[0]))


def test_plugged_serializers(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    about = site / "opaque-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: opaque\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[nbflow.serializers]\nopaque = {__name__}:OpaqueSerializer\n")
    monkeypatch.syspath_prepend(str(site))
    registry = Registry()
    groups = dumped(registry, one=Opaque(b"x"), many={"k": [Opaque(b"y" * 100_000)]})
    assert [buffer.nbytes for buffer in groups["many",].buffers] == [100_000]
    result = loaded(groups, registry)
    assert result["one"].data == b"x"
    assert result["many"]["k"][0].data == b"y" * 100_000


# ---------------------------------------------------------------- descriptions and fingerprints


class Endless:
    def __repr__(self) -> str:
        raise AssertionError("never called")

    def __init__(self) -> None:
        self.weights = [1] * 1_000_000


@pytest.mark.parametrize(
    ("value", "kind", "shape", "preview"),
    [
        (3, "int", None, "3"),
        ("a\nb", "str", None, r"'a\nb'"),
        ([1, 2], "list", (2,), "[1, 2]"),
        ((1,), "tuple", (1,), "(1,)"),
        ({}, "dict", (0,), "{}"),
        (set(), "set", (0,), "set()"),
        (list(range(10_000)), "list", (10_000,), "[0, 1, 2, 3, 4, 5, … 10,000 items]"),
        ({"a": [1, {"b": ()}]}, "dict", (1,), "{'a': [1, {'b': ()}]}"),
        (np.zeros((1000, 4)), "numpy.ndarray", (1000, 4), "1,000 × 4 float64"),
        (np.arange(3), "numpy.ndarray", (3,), "int64 × 3: [0, 1, 2]"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), "pandas.DataFrame", (1, 2), "1 × 2: a int64, b str"),
        (pd.Series([1.5] * 99, name="s"), "pandas.Series", (99,), "s: float64 × 99"),
        (pl.DataFrame({"a": [1]}), "polars.DataFrame", (1, 1), "1 × 1: a Int64"),
        (Point(1.0, [2]), f"{__name__}.Point", None, "Point(x=1.0, y=[2])"),
        (Endless(), f"{__name__}.Endless", None, "Endless(weights=[1, 1, 1, 1, 1, 1, … 1,000,000 items])"),
        (Point, "type", None, "class Point"),
        (np, "module", None, "module numpy"),
        (1 << 9999, "int", None, "an integer of 10,000 bits"),
        (dt.date(2024, 1, 2), "datetime.date", None, "datetime.date(2024, 1, 2)"),
    ],
)
def test_describe(value: Any, kind: str, shape: tuple[int, ...] | None, preview: str) -> None:
    found = describe("x", value)
    assert (found.type, found.shape, found.preview) == (kind, shape, preview)


def test_descriptions_are_short_cheap_and_about_right() -> None:
    import time

    wide = pd.DataFrame(np.zeros((3, 5000)))
    for value in (
        wide,
        ["x" * 1000] * 100_000,
        {i: i for i in range(100_000)},
        "x" * 10**6,
        Endless(),
        [[["x" * 99] * 9] * 9] * 9,
    ):
        best = 1.0
        for _ in range(5):
            start = time.perf_counter()
            found = describe("x", value)
            best = min(best, time.perf_counter() - start)
        assert len(found.preview) <= 200
        assert best < 0.002
    assert describe("x", np.zeros(1000)).nbytes == 8000
    assert 5_000_000 < describe("x", [1.5] * 200_000).nbytes < 8_000_000
    recursive: list[Any] = []
    recursive.append(recursive)
    assert describe("x", recursive).preview == "[[[[…]]]]"


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [1, [2]], lambda v: v[1].append(3)),
        (lambda: {"a": 1}, lambda v: v.update(a=2)),
        (lambda: {1}, lambda v: v.add(2)),
        (lambda: bytearray(b"x"), lambda v: v.append(1)),
        (lambda: Point(1, [1]), lambda v: v.y.append(1)),
        (lambda: np.arange(100_000.0), lambda v: v.__setitem__(5, -1)),
        (lambda: np.arange(100.0)[::2], lambda v: v.__setitem__(5, -1)),
        (lambda: np.zeros(9, [("a", "i1"), ("b", "f8")]), lambda v: v["b"].__setitem__(5, -1)),
        (lambda: np.array([[1], {}], dtype=object), lambda v: v[0].append(2)),
        (lambda: pd.DataFrame({"a": [1.0], "s": ["x"]}), lambda v: v.__setitem__("b", 1)),
        (lambda: pd.DataFrame({"a": range(20_000)}), lambda v: v.pop("a")),
        (lambda: pd.Series([1, 2]), lambda v: v.__setitem__(0, 5)),
        (lambda: random.Random(1), lambda v: v.random()),
        (lambda: np.random.default_rng(1), lambda v: v.random()),
    ],
)
def test_fingerprint_tells_a_change(make: Any, change: Any) -> None:
    value = make()
    before = fingerprint(value)
    assert before is not None
    assert fingerprint(value) == before
    change(value)
    assert fingerprint(value) != before


def test_fingerprint_survives_use() -> None:
    from matplotlib.figure import Figure
    from sklearn.ensemble import RandomForestClassifier

    frame = pd.DataFrame({"a": range(100), "s": [str(i) for i in range(100)]}, index=[f"k{i}" for i in range(100)])
    features = np.random.default_rng(0).random((100, 3))
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(features, features[:, 0] > 0.5)
    figure = Figure()
    axes = figure.subplots()
    (line,) = axes.plot([1, 3, 2], label="a")
    axes.scatter([1, 2], [3, 4])
    axes.legend()

    def use() -> None:
        frame.loc["k3"]
        frame.groupby("s")["a"].sum()
        frame.describe()
        repr(frame)
        frame.index.get_indexer(["k4"])
        model.predict(features)
        model.feature_importances_
        figure.savefig(io.BytesIO(), format="png")

    values = (frame, model, figure)
    before = [fingerprint(value) for value in values]
    use()
    assert [fingerprint(value) for value in values] == before
    line.set_ydata([1, 3, 3])
    assert fingerprint(figure) != before[2]


def test_fingerprint_by_value_does_not_see_which_equal_strings_are_one_object() -> None:
    """A loaded value's strings are those that its process has interned, or others: which ones, nobody can tell."""
    text, again, once_more = (str(b"criterion", "ascii") for _ in range(3))
    one = {"keys": [text, text, b"bytes"], "parts": (text, 1.5)}
    other = {"keys": [text, again, b"bytes"], "parts": (once_more, 1.5)}
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one, by_value=True) == fingerprint(other, by_value=True)
    for changed in ({**one, "parts": ("criterium", 1.5)}, {**one, "keys": [text, b"bytes", text]}):
        assert fingerprint(one, by_value=True) != fingerprint(changed, by_value=True)


def test_fingerprint_of_what_cannot_be_told_is_none() -> None:
    assert fingerprint(threading.Lock()) is None
    assert fingerprint(i for i in ()) is None
    assert fingerprint(float("nan")) == fingerprint(float("nan"))
    assert fingerprint(1) != fingerprint(True)
    assert fingerprint(-0.0) != fingerprint(0.0)


def test_torch_shares_storages() -> None:
    torch = pytest.importorskip("torch")
    tensor, array = torch.arange(100_000.0), np.arange(50_000.0)
    model = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 9))
    model[1].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    data = torch.randn(2, 9)
    values = {"t": tensor, "part": tensor[:5], "a": array, "over": torch.from_numpy(array)}
    values |= {"model": model, "opt": optimizer}
    values["loss"] = model(data).sum()
    values["other"] = torch.ones(3)
    groups = dumped(**values)
    assert sorted(groups) == [("a", "over"), ("loss",), ("model", "opt"), ("other",), ("part", "t")]
    result = loaded(groups)
    result["t"][0] = result["over"][0] = -1
    assert result["part"][0] == result["a"][0] == -1
    assert torch.equal(result["model"](data), model(data))
    assert result["model"][1].weight is result["model"][0].weight
    assert result["opt"].param_groups[0]["params"][0] is result["model"][0].weight
    assert result["loss"].item() == values["loss"].item()
    with pytest.raises(RuntimeError, match="another step"):
        result["loss"].backward()


def build(rng: random.Random, pool: list[Any], depth: int) -> Any:
    """A random value of lists, dicts, tuples, arrays and views, some of it met before."""
    kind = rng.random()
    if pool and kind < 0.3:
        return rng.choice(pool)
    if depth == 0 or kind < 0.45:
        return rng.choice([1, "a", 2.5, None, (1, 2), b"x"])
    value: Any
    if kind < 0.6:
        value = [build(rng, pool, depth - 1) for _ in range(rng.randint(0, 3))]
    elif kind < 0.7:
        value = {rng.choice("abc"): build(rng, pool, depth - 1) for _ in range(2)}
    elif kind < 0.8:
        value = (build(rng, pool, depth - 1), build(rng, pool, depth - 1))
    else:
        base = np.arange(float(rng.choice([20, 20_000]))).reshape(-1, 2)
        pool.append(base)
        value = rng.choice([base, base[2:5], base[:, 1], base[::-1], base.T, base[1:]])
    pool.append(value)
    return value


def structure(values: dict[str, Any]) -> tuple[list[Any], list[tuple[int, int]]]:
    """Named values in; what they are, which parts are one object, and which arrays share memory, out."""
    seen: dict[int, int] = {}
    found: list[Any] = []
    held: list[Any] = []

    def visit(value: Any) -> None:
        if isinstance(value, list | dict | np.ndarray):
            if id(value) in seen:
                found.append(("again", seen[id(value)]))
                return
            seen[id(value)] = len(seen)
        found.append(type(value).__name__)
        if isinstance(value, np.ndarray):
            held.append(value)
            found.append((value.shape, value.tobytes()))
        elif isinstance(value, dict | list | tuple):
            found.append(tuple(value) if isinstance(value, dict) else len(value))
            for part in value.values() if isinstance(value, dict) else value:
                visit(part)
        else:
            found.append(value)

    for name in sorted(values):
        visit(values[name])
    return found, [(i, j) for i in range(len(held)) for j in range(i) if np.shares_memory(held[i], held[j])]


@pytest.mark.parametrize("seed", range(40))
def test_random_values_keep_what_they_share(seed: int) -> None:
    rng, pool = random.Random(seed), []  # type: ignore[var-annotated]
    values = {f"v{number}": build(rng, pool, 3) for number in range(rng.randint(1, 6))}
    assert structure(loaded(dumped(**values))) == structure(values)
