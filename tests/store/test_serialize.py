"""Values survive a round trip through buffers."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import functools
import gc
import io
import os
import pathlib
import threading
import weakref
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nbflow.store.serialize import rebuild
from nbflow.store.serialize.pickler import Registry
from tests.support.dumping import IN_BLOCKS, Colour, Point, assert_same, blocks_of, dumped, in_blocks, loaded, through


@functools.cache
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
    assert_same(result, frame)
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
    assert_same(through(SERIES[name]), SERIES[name])


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
    assert result.strides == array.strides or not array.size


@pytest.mark.parametrize(
    "cut", ["grid[:, 2:5]", "grid[::2]", "grid[:, 3]", "grid[::-1]", "grid.T[2:5]", "grid[5:9, ::-2]"]
)
def test_what_is_cut_from_an_array_adds_up_as_before(cut: str) -> None:
    """Sums and products of floats depend on how far they lie apart; the array that they were cut from is gone."""
    view = eval(cut, {"grid": np.random.default_rng(0).normal(size=(3_000, 9))})
    result = through(view)
    assert result.strides == view.strides
    assert result.sum() == view.sum()
    assert (result.T @ result == view.T @ view).all()
    assert [each.nbytes for each in dumped(Registry(), view=view)["view",].buffers] in ([], [view.nbytes])


@pytest.mark.parametrize("size", [6, 60_000])
def test_an_array_in_a_file_is_stored_as_it_is_now(size: int, tmp_path: pathlib.Path) -> None:
    np.arange(size).tofile(tmp_path / "numbers")
    array = np.memmap(tmp_path / "numbers", dtype=int, mode="r")
    group = dumped(array=array)["array",]
    result = loaded({group.names: group})["array"]
    assert group.mapped == (str(tmp_path / "numbers"),)
    assert type(result) is np.memmap
    assert not result.flags.writeable
    np.testing.assert_array_equal(result, array)
    assert dumped(half=array / 2)["half",].mapped == ()


def test_little_of_a_large_array_takes_little_memory() -> None:
    column = np.arange(2_000_000.0).reshape(2_000, 1_000)[:, 0]
    result = through(column)
    np.testing.assert_array_equal(result, column)
    assert result.strides == (8,)


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
    assert type(result) is np.memmap  # equal means: of the same type
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
    for value, count in ((array, 1), (frame, 1), ({"k": [array]}, 1)):
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


@pytest.mark.parametrize("rows", [6, 20_000])
@pytest.mark.parametrize("name", IN_BLOCKS)
def test_a_frame_keeps_its_blocks(name: str, rows: int) -> None:
    frame = in_blocks(name, rows)
    again = through(frame)
    assert_same(again, frame)
    assert blocks_of(again) == blocks_of(frame)
    assert again.to_numpy().flags.writeable == frame.to_numpy().flags.writeable
    assert blocks_of(through(again)) == blocks_of(frame)
    numbers = frame.select_dtypes("number")
    if numbers.size:
        assert again.select_dtypes("number").to_numpy().sum() == numbers.to_numpy().sum()


def test_loaded_blocks_are_changed_each_for_itself() -> None:
    frame = in_blocks("several", 20_000)
    first, second = through([frame, frame[["a"]]])
    first.loc[0, "a"] = -1.0
    values = first.to_numpy()
    values[0, :] = 9
    assert second.loc[0, "a"] == 0 == frame.loc[0, "a"]
    assert first.loc[0, "a"] == -1


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


NAMES = set(
    "definition plugged fill_cell fill_function fill_node fill_own fill_parser fill_set fill_whole make_apart "
    "make_array "
    "make_cell make_context make_dict_iterator make_dict_view make_frame make_frozenset make_function make_mark "
    "make_masked make_match make_memory make_of_kind make_part make_polars_frame make_polars_series make_region "
    "make_series make_storage make_strided make_tensor make_view".split()
)


def test_what_streams_call_is_where_it_was() -> None:
    """These names are in every store: one that is renamed, moved or gone makes values unreadable."""
    functions = {name for name, value in vars(rebuild).items() if getattr(value, "__module__", "") == rebuild.__name__}
    assert {name for name in functions if name.split("_")[0] in ("make", "fill", "definition", "plugged")} == NAMES
    assert rebuild.__name__ == "nbflow.store.serialize.rebuild"
