"""Frames ↔ buffers: pandas one buffer a block, polars through Arrow.

pandas tracks who shares memory and copies on write; a stored copy must therefore never share memory with other
values. Everything of a frame stands between two marks, which tell the pickler to leave its arrays alone.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import xxhash

from nbflow.store.serialize.rebuild import make_apart, make_frame, make_polars_frame, make_polars_series, make_series


class Boundary:
    """Where the parts of a frame begin (+1) and end (-1) in the pickler's order of work.

    What is `guarded` stays apart from arrays over the same memory too: pandas copies it before it writes to it.
    """

    __slots__ = ("guarded", "step")

    def __init__(self, step: int, *, guarded: bool) -> None:
        self.step = step
        self.guarded = guarded


# ---------------------------------------------------------------- pandas


def reduce_pandas(value: Any, *, alone: bool) -> Any:
    """Return the reduction of a pandas object; `alone`: no other one came before it in its stream."""
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
    """Return a reduction of a pandas DataFrame by its blocks: which columns lie together is seen by whoever reads it.

    `frame.values` of one block looks into the frame and cannot be written to, of several it is a copy; sums add up in
    the order of a block's memory; a frame of many blocks warns of them.
    """
    manager: Any = getattr(frame, "_mgr", None)
    if not hasattr(manager, "blocks"):
        return reduce_apart(frame)
    blocks = [(_loose(block.values), block.mgr_locs.as_array.tolist()) for block in manager.blocks]
    begin, end = _around(manager)
    return make_frame, (begin, blocks, frame.index, frame.columns, _extra(frame), end)


def _around(manager: Any) -> tuple[Boundary, Boundary]:
    """Return the marks around a frame's parts: guarded while others look into its blocks by way of pandas."""
    guarded = any(block.refs.has_reference() for block in manager.blocks)
    return Boundary(1, guarded=guarded), Boundary(-1, guarded=guarded)


def _loose(values: Any) -> Any:
    """Return a new object over the same memory as a block's values; naive dates as NumPy."""
    import numpy as np

    if isinstance(values, np.ndarray):
        return values[:]
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "mM":
        return np.asarray(values)
    return values[0] if values.ndim == 2 and len(values) == 1 else values[:]


def reduce_content(frame: Any) -> Any:
    """Return a reduction that says what is in a pandas DataFrame, whatever blocks it lies in: never to be loaded.

    A mere read may merge blocks. Only in which order the memory of the merged block would run counts: sums see that.
    """
    import numpy as np

    manager: Any = getattr(frame, "_mgr", None)
    if type(frame) is not sys.modules["pandas"].DataFrame or not hasattr(manager, "blocks"):
        return reduce_pandas(frame, alone=True)
    content: list[Any] = []
    together: dict[Any, list[tuple[Any, Any]]] = {}
    for block in manager.blocks:
        values, places = _loose(block.values), block.mgr_locs.as_array
        if isinstance(values, np.ndarray) and not values.dtype.hasobject:
            together.setdefault(values.dtype, []).append((values, places))
        else:
            content += [(int(place), manager.iget_values(place)[:]) for place in places]
    content.sort(key=lambda column: column[0])
    content += sorted((dtype.str, *_digest(blocks)) for dtype, blocks in together.items())
    begin, end = Boundary(1, guarded=True), Boundary(-1, guarded=True)
    return make_frame, (begin, content, frame.index, frame.columns, _extra(frame), end)


def _digest(blocks: Sequence[tuple[Any, Any]]) -> tuple[list[int], str, str]:
    """Return the places, the order of memory and a hash of the block that some blocks of one dtype would merge into."""
    import numpy as np

    digest = xxhash.xxh3_128()
    places = np.concatenate([places for _, places in blocks])
    ordered = bool((np.diff(places) > 0).all())
    # as np.concatenate lays out what it merges; sorting it afterwards, as pandas does, puts it along the columns
    layouts = {_is_row_major(values) for values, _ in blocks if len(values) > 1}
    if layouts == {True} and (ordered or len(blocks) == 1):
        step = max(1, (1 << 20) // (len(places) * blocks[0][0].itemsize))
        for start in range(0, blocks[0][0].shape[1], step):
            rows = [values[:, start : start + step] for values, _ in blocks]
            digest.update(_bytes(np.concatenate(rows).T if len(rows) > 1 else rows[0].T))
        return places.tolist(), "rows", digest.hexdigest()
    if len(blocks) == 1:
        digest.update(_bytes(blocks[0][0]))
        return places.tolist(), "columns", digest.hexdigest()
    columns = [column for values, _ in blocks for column in values]
    order = np.argsort(places)
    for place in order:
        digest.update(_bytes(columns[place]))
    return places[order].tolist(), "columns", digest.hexdigest()


def _is_row_major(values: Any) -> bool:
    """Return whether a block's memory runs along the rows, as of a frame that was made from one array."""
    return bool(abs(values.strides[0]) < abs(values.strides[1]))


def _bytes(values: Any) -> Any:
    """Return the bytes of an array; a copy of them where they do not lie together."""
    import numpy as np

    return np.ascontiguousarray(values).view(np.uint8).data if values.size else b""


PANDAS_OWN = frozenset({"_mgr", "_attrs", "_flags", "_name", "_item_cache", "_cacher"})
"""What pandas itself keeps on a frame or series."""


def _extra(value: Any) -> tuple[Any, ...] | None:
    """Return what belongs to a frame besides its data: attrs, whether labels are unique, attributes that users set.

    None when all is as usual.
    """
    unique = not value.flags.allows_duplicate_labels
    own = {name: each for name, each in vars(value).items() if name not in PANDAS_OWN}
    if own:
        return value.attrs, unique, own
    return (value.attrs, unique) if value.attrs or unique else None


def reduce_series(series: Any) -> Any:
    """Return a reduction of a pandas Series over its array."""
    manager: Any = getattr(series, "_mgr", None)
    if not hasattr(manager, "blocks"):
        return reduce_apart(series)
    values = _loose(manager.blocks[0].values)
    begin, end = _around(manager)
    return make_series, (begin, values, series.index, series.name, _extra(series), end)


def reduce_apart(value: Any) -> Any:
    """Return a value's own reduction between two marks."""
    parts = value.__reduce_ex__(5)
    if isinstance(parts, str) or len(parts) > 3:
        return parts
    make, arguments, *rest = parts
    guarded = not isinstance(value, sys.modules["pandas"].Index)
    begin, end = Boundary(1, guarded=guarded), Boundary(-1, guarded=guarded)
    return make_apart, (begin, make, arguments, rest[0] if rest else None, end)


# ---------------------------------------------------------------- polars


def reduce_polars(frame: Any) -> Any:
    """Return a reduction of a polars object through Arrow, or NotImplemented where Arrow would change it."""
    polars = sys.modules["polars"]
    is_frame = type(frame) is polars.DataFrame
    dtypes = frame.schema.dtypes() if is_frame else [frame.dtype]
    if importlib.util.find_spec("pyarrow") is None or not all(map(_travels, dtypes)):
        return NotImplemented
    arrow = frame.to_arrow(compat_level=polars.CompatLevel.newest())
    return (make_polars_frame, (arrow,)) if is_frame else (make_polars_series, (frame.name, arrow))


def _travels(dtype: Any) -> bool:
    """Return whether Arrow gives exactly this polars type back."""
    inner = getattr(dtype, "inner", None)
    fields = getattr(dtype, "fields", None)
    if inner is not None:
        return _travels(inner)
    if fields is not None:
        return all(_travels(field.dtype) for field in fields)
    return str(dtype.base_type()) not in {"Object", "Categorical", "Enum", "Unknown", "Decimal", "Int128"}
