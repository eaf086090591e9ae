"""Values through the serializer and back, in this process, as a notebook's cells would have them."""

from __future__ import annotations

import dataclasses
import enum
import sys
import textwrap
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


def in_blocks(rows: int) -> dict[str, pd.DataFrame]:
    """Frames whose columns lie together in other ways than their dtypes say."""
    grid = np.arange(rows * 4.0).reshape(rows, 4)
    one = pd.DataFrame({"a": grid[:, 0], "b": grid[:, 1], "c": grid[:, 2]})
    several = one.copy()
    several.insert(0, "first", grid[:, 3] / 7)
    several["d"] = several["a"] * 2
    several["c"] = several["c"] + 1
    dates = pd.DataFrame({"s": pd.date_range("2024", periods=rows), "t": pd.date_range("2020", periods=rows)})
    dates["u"] = dates["s"]
    dates["z"] = pd.date_range("2024", periods=rows, tz="Europe/Oslo")
    objects = pd.DataFrame({"o": [[each] for each in range(rows)], "p": [None] * rows}).astype(object)
    objects["q"] = objects["o"]
    by_rows = pd.DataFrame(grid, copy=False)
    wider = by_rows.copy(deep=False)
    wider["e"], wider["n"] = 1.0, 1
    beside = by_rows.copy(deep=False)
    beside.insert(2, "e", 1.0)
    return {
        "one": one,
        "several": several,
        "dates": dates,
        "objects": objects,
        "by rows": by_rows,
        "by rows, wider": wider,
        "by rows, beside": beside,
        "some rows": several.iloc[1 : rows // 2],
        "some columns": several.iloc[:, 1:3],
        "every other": by_rows.iloc[::2, 1:],
        "mixed": pd.concat([several, dates, objects, by_rows], axis=1),
        "turned": pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}).T,
        "categories": several.assign(k=pd.Categorical(["x"] * rows), l="text", m=pd.array([1] * rows, dtype="Int64")),
    }
