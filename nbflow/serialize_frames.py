"""Frames ↔ buffers: pandas one buffer a column, polars through Arrow, so that equal columns are stored once.

pandas tracks who shares memory and copies on write; a stored copy must therefore never share memory with other
values. Everything of a frame stands between two marks, which tell the pickler to leave its arrays alone.
The functions named `make_…` are written into stored streams: renaming one makes older artifacts unreadable.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from nbflow.serialize_arrays import SMALL


class Mark:
    """Where the parts of a frame begin (+1) and end (-1) in the pickler's order of work."""

    __slots__ = ("step",)

    def __init__(self, step: int) -> None:
        self.step = step


def make_mark() -> None:
    """What a mark is after loading."""


# ---------------------------------------------------------------- pandas


def reduce_pandas(value: Any, *, alone: bool) -> Any:
    """A pandas object, and whether none came before it in its stream, in; its reduction out."""
    pandas = sys.modules["pandas"]
    kind = type(value)
    if kind is pandas.DataFrame and hasattr(pandas.api, "internals"):
        return reduce_frame(value)
    if kind is pandas.Series:
        return reduce_series(value)
    if not alone and isinstance(value, (pandas.DataFrame, pandas.Series)):
        # A subclass pickles pandas' own blocks; two values that hold the same one would be loaded as one memory.
        value = value.copy()
    return reduce_apart(value)


def reduce_frame(frame: Any) -> Any:
    """A pandas DataFrame in; a reduction by columns, whatever blocks pandas happens to keep them in, out."""
    manager: Any = getattr(frame, "_mgr", None)
    if not hasattr(manager, "iget_values"):
        return reduce_apart(frame)
    rows = _row_major(manager)
    kept = {place for _, places in rows for place in places}
    columns = {at: manager.iget_values(at) for at in range(frame.shape[1]) if at not in kept}
    blocks = rows + (_one_by_one(columns) if len(frame) * 8 >= SMALL else _by_dtype(columns))
    extra = _extra(frame)
    return make_frame, (Mark(1), blocks, frame.index, frame.columns, extra, Mark(-1))


def _row_major(manager: Any) -> list[tuple[Any, list[int]]]:
    """Blocks whose memory runs along the rows, as of a frame made from one array: they stay whole.

    Sums over such a frame add up in another order than over columns, so that the last bits differ.
    """
    import numpy as np

    found = []
    for block in getattr(manager, "blocks", ()):
        values = block.values
        if (
            isinstance(values, np.ndarray)
            and values.ndim == 2
            and min(values.shape) > 1
            and not values.flags.c_contiguous
        ):
            found.append((values[:], [int(place) for place in block.mgr_locs.as_array]))
    return found


def _one_by_one(columns: Mapping[int, Any]) -> list[tuple[Any, list[int]]]:
    return [(_loose(column), [position]) for position, column in columns.items()]


def _by_dtype(columns: Mapping[int, Any]) -> list[tuple[Any, list[int]]]:
    """Short columns: NumPy ones of a dtype together, so that a wide frame stays quick and has one stored form."""
    import numpy as np

    together: dict[Any, list[int]] = {}
    blocks: list[tuple[Any, list[int]]] = []
    for position, column in columns.items():
        loose = _loose(column)
        if isinstance(loose, np.ndarray):
            together.setdefault(loose.dtype, []).append(position)
        else:
            blocks.append((loose, [position]))
    for positions in together.values():
        stacked = np.stack([_loose(columns[position]) for position in positions])
        blocks.append((stacked, positions))
    return blocks


def _loose(column: Any) -> Any:
    """A column's array in; a new object over the same memory (naive dates as NumPy) out."""
    import numpy as np

    if isinstance(column, np.ndarray):
        return column[:]
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "mM":
        return np.asarray(column)
    return column[:]


def _extra(value: Any) -> tuple[dict[Any, Any], bool] | None:
    """What hangs on a frame or series besides its data: attrs, and whether labels may repeat; None when as usual."""
    unique = not value.flags.allows_duplicate_labels
    return (value.attrs, unique) if value.attrs or unique else None


def _put_extra(value: Any, extra: tuple[dict[Any, Any], bool] | None) -> Any:
    if extra is not None:
        value.attrs = extra[0]
        if extra[1]:
            value.flags.allows_duplicate_labels = False
    return value


def make_frame(_begin: None, blocks: Any, index: Any, columns: Any, extra: Any, _end: None) -> Any:
    """Columns with their places, index, labels and extras in; the pandas DataFrame over the same memory out."""
    import numpy as np
    from pandas.api.internals import (  # type: ignore[import-not-found]  # absent from the stubs
        create_dataframe_from_blocks,
    )

    placed = []
    for values, places in blocks:
        shaped = values.reshape(1, -1) if isinstance(values, np.ndarray) and values.ndim == 1 else values
        placed.append((shaped, np.array(places, dtype=np.intp)))
    return _put_extra(create_dataframe_from_blocks(placed, index=index, columns=columns), extra)


def reduce_series(series: Any) -> Any:
    """A pandas Series in; a reduction over its array out."""
    manager: Any = getattr(series, "_mgr", None)
    if not hasattr(manager, "blocks"):
        return reduce_apart(series)
    values = _loose(manager.blocks[0].values)
    return make_series, (Mark(1), values, series.index, series.name, _extra(series), Mark(-1))


def make_series(_begin: None, values: Any, index: Any, name: Any, extra: Any, _end: None) -> Any:
    """An array, index, name and extras in; the pandas Series over the same memory out."""
    import pandas as pd

    return _put_extra(pd.Series(values, index=index, name=name, dtype=values.dtype, copy=False), extra)


def reduce_apart(value: Any) -> Any:
    """A value with its own way of pickling in; the same between two marks out."""
    parts = value.__reduce_ex__(5)
    if isinstance(parts, str) or len(parts) > 3:
        return parts
    make, arguments, *rest = parts
    return make_apart, (Mark(1), make, arguments, rest[0] if rest else None, Mark(-1))


def make_apart(_begin: None, make: Callable[..., Any], arguments: Any, state: Any, _end: None) -> Any:
    """What `reduce_apart` took apart in; the value out."""
    value = make(*arguments)
    if state is None:
        return value
    if hasattr(value, "__setstate__"):
        value.__setstate__(state)
    else:
        value.__dict__.update(state)
    return value


# ---------------------------------------------------------------- polars


def reduce_polars(frame: Any) -> Any:
    """A polars frame or series in; a reduction through Arrow, or NotImplemented where Arrow would change it, out."""
    polars = sys.modules["polars"]
    is_frame = type(frame) is polars.DataFrame
    dtypes = frame.schema.dtypes() if is_frame else [frame.dtype]
    if importlib.util.find_spec("pyarrow") is None or not all(map(_travels, dtypes)):
        return NotImplemented
    arrow = frame.to_arrow(compat_level=polars.CompatLevel.newest())
    return (make_polars_frame, (arrow,)) if is_frame else (make_polars_series, (frame.name, arrow))


def _travels(dtype: Any) -> bool:
    """Whether Arrow gives exactly this polars type back."""
    inner = getattr(dtype, "inner", None)
    fields = getattr(dtype, "fields", None)
    if inner is not None:
        return _travels(inner)
    if fields is not None:
        return all(_travels(field.dtype) for field in fields)
    return str(dtype.base_type()) not in {"Object", "Categorical", "Enum", "Unknown", "Decimal", "Int128"}


def make_polars_frame(table: Any) -> Any:
    """An Arrow table in; the polars DataFrame over the same memory out."""
    import polars as pl

    return pl.from_arrow(table, rechunk=False)


def make_polars_series(name: str, array: Any) -> Any:
    """A name and an Arrow array in; the polars Series over the same memory out."""
    import polars as pl

    return pl.Series(name, array)
