"""Values through the serializer and back, in this process, as a notebook's cells would have them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from nbflow.store.serialize.pickler import Dumped, Registry, Unstorable, dump, load

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


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: float
    y: list[int]


def blocks_of(frame: pd.DataFrame) -> list[Any]:
    manager: Any = getattr(frame, "_mgr", None)
    return [(str(block.dtype), block.mgr_locs.as_array.tolist(), _layout(block.values)) for block in manager.blocks]


def _layout(values: Any) -> str:
    if not isinstance(values.dtype, np.dtype) or min(values.shape) < 2:
        return ""
    first, second = np.asarray(values).strides
    return "rows" if first < second else "columns"


class _Blocks:
    """Frames of so many rows whose columns lie together in other ways than their dtypes say."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.grid = np.arange(rows * 4.0).reshape(rows, 4)

    def one(self) -> pd.DataFrame:
        return pd.DataFrame({"a": self.grid[:, 0], "b": self.grid[:, 1], "c": self.grid[:, 2]})

    def several(self) -> pd.DataFrame:
        several = self.one()
        several.insert(0, "first", self.grid[:, 3] / 7)
        several["d"] = several["a"] * 2
        several["c"] = several["c"] + 1
        return several

    def dates(self) -> pd.DataFrame:
        range_from = functools.partial(pd.date_range, periods=self.rows)
        dates = pd.DataFrame({"s": range_from("2024"), "t": range_from("2020")})
        dates["u"] = dates["s"]
        dates["z"] = range_from("2024", tz="Europe/Oslo")
        return dates

    def objects(self) -> pd.DataFrame:
        lists = [[each] for each in range(self.rows)]
        objects = pd.DataFrame({"o": lists, "p": [None] * self.rows}).astype(object)
        objects["q"] = objects["o"]
        return objects

    def by_rows(self) -> pd.DataFrame:
        return pd.DataFrame(self.grid, copy=False)

    def wider(self) -> pd.DataFrame:
        wider = self.by_rows().copy(deep=False)
        wider["e"], wider["n"] = 1.0, 1
        return wider

    def beside(self) -> pd.DataFrame:
        beside = self.by_rows().copy(deep=False)
        beside.insert(2, "e", 1.0)
        return beside

    def mixed(self) -> pd.DataFrame:
        return pd.concat([self.several(), self.dates(), self.objects(), self.by_rows()], axis=1)

    def categories(self) -> pd.DataFrame:
        ones = pd.array([1] * self.rows, dtype="Int64")
        return self.several().assign(k=pd.Categorical(["x"] * self.rows), l="text", m=ones)


IN_BLOCKS: dict[str, Callable[[_Blocks], pd.DataFrame]] = {
    "one": _Blocks.one,
    "several": _Blocks.several,
    "dates": _Blocks.dates,
    "objects": _Blocks.objects,
    "by rows": _Blocks.by_rows,
    "by rows, wider": _Blocks.wider,
    "by rows, beside": _Blocks.beside,
    "some rows": lambda blocks: blocks.several().iloc[1 : blocks.rows // 2],
    "some columns": lambda blocks: blocks.several().iloc[:, 1:3],
    "every other": lambda blocks: blocks.by_rows().iloc[::2, 1:],
    "mixed": _Blocks.mixed,
    "turned": lambda _: pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}).T,
    "categories": _Blocks.categories,
}


def in_blocks(name: str, rows: int) -> pd.DataFrame:
    """A frame of so many rows whose columns lie together as its name says."""
    return IN_BLOCKS[name](_Blocks(rows))


def assert_same(again: Any, value: Any) -> None:
    """Frames or series are equal in every value; flags and the like are looked at on the first rows.

    pandas' own assertions make an object of every value of a category or a date.
    """
    assert type(again) is type(value)
    assert again.equals(value)
    if isinstance(value, pd.Series):
        pd.testing.assert_series_equal(again.head(), value.head(), check_flags=True)
    else:
        pd.testing.assert_frame_equal(again.head(), value.head(), check_flags=True)
