"""Tables of any library → the first cells as text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbflow.model import Frozen
from nbflow.render import preview

CELL = 120
"""Columns of text that a cell may take."""


class Grid(Frozen, frozen=True):
    """Cells as text; `numbers` are the columns to be aligned to the right, `note` says what is left out."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    note: str = ""


def grid_of(data: Any, rows: int = 20, columns: int = 20) -> Grid:
    """A table of pandas, polars or Arrow, a list of dicts, a dict of columns or rows in; its first cells out.

    TypeError for what is no table. Only what is shown is converted.
    """
    root = type(data).__module__.partition(".")[0]
    if root == "pandas":
        return _pandas(data, rows, columns)
    if root == "polars":
        frame = data.to_frame() if not hasattr(data, "columns") else data
        frame = frame.collect() if hasattr(frame, "collect") else frame
        return _grid(frame.columns, frame.head(rows).rows(), frame.height, columns)
    if root == "pyarrow":
        names = list(data.schema.names)
        shown = data.slice(0, rows).to_pylist()
        return _grid(names, [tuple(row[name] for name in names) for row in shown], data.num_rows, columns)
    if isinstance(data, Mapping):
        values = {name: list(itertools.islice(column, rows)) for name, column in data.items()}
        height = max((len(column) for column in data.values()), default=0)
        return _grid(list(values), list(itertools.zip_longest(*values.values(), fillvalue="")), height, columns)
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise TypeError(f"a {type(data).__name__} is no table: give a data frame, a list of dicts or a dict of columns")
    return _of_rows(data, rows, columns)


def _of_rows(data: Iterable[Any], rows: int, columns: int) -> Grid:
    height = len(data) if isinstance(data, Sequence) else None
    first = list(itertools.islice(data, rows))
    if first and all(isinstance(row, Mapping) for row in first):
        names = list(dict.fromkeys(name for row in first for name in row))
        return _grid(names, [tuple(row.get(name, "") for name in names) for row in first], height, columns)
    lines = [tuple(row) if isinstance(row, Iterable) and not isinstance(row, str | bytes) else (row,) for row in first]
    width = max(map(len, lines), default=0)
    return _grid([""] * width, [line + ("",) * (width - len(line)) for line in lines], height, columns)


def _pandas(data: Any, rows: int, columns: int) -> Grid:
    frame = data.to_frame() if data.ndim == 1 and hasattr(data, "to_frame") else data
    height, width = frame.shape
    shown = frame.iloc[:rows, :columns]
    plain = str(type(frame.index).__name__) == "RangeIndex" and frame.index.name is None
    names = [_name(name) for name in shown.columns]
    body = [tuple(row) for row in shown.itertuples(index=False, name=None)]
    if not plain:
        # the index says what a row is about
        names = [_name(frame.index.name or ""), *names]
        body = [(_name(label), *row) for label, row in zip(shown.index, body, strict=True)]
    return _grid(names, body, height, columns + 1, width)


def _name(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _grid(
    names: Sequence[Any], body: Sequence[Sequence[Any]], height: int | None, columns: int, width: int | None = None
) -> Grid:
    kept = names[:columns]
    wide = len(names) if width is None else width
    numbers = frozenset(
        at for at in range(len(kept)) if body and all(_is_number(row[at]) or row[at] is None for row in body)
    )
    note = ""
    if (height is not None and height > len(body)) or wide > columns:
        note = f"{len(body):,} of {len(body) if height is None else height:,} rows"
        note += f", {len(kept)} of {wide:,} columns" if wide > columns else f", {wide} columns"
    cells = tuple(tuple(_cell(value) for value in row[:columns]) for row in body)
    return Grid(heads=tuple(map(_name, kept)), rows=cells, numbers=numbers, note=note)


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and hasattr(value, "__add__") and not isinstance(value, bool)


def _cell(value: Any) -> str:
    """A cell's value in; the text that a reader needs out."""
    if value is None:
        return ""
    if _is_number(value) and not isinstance(value, int):
        return f"{float(value):.6g}"
    return preview.clip(str(value), CELL)
