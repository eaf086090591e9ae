"""What stored streams call when they are read: these names are in every store and never change or move."""

from __future__ import annotations

import inspect
import linecache
import operator
import pickle
import re
import sys
import tokenize
import types
import zlib
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from typing import Any

from nbflow.tracebacks import remember_lines


class Made:
    """What a definition that computes has made: classes and functions, which are stored as they are, and its id."""

    def __init__(self, identity: str, values: dict[str, Any]) -> None:
        self.identity = identity
        self.values = values


def take_dict(value: Any, attributes: dict[str, Any]) -> None:
    """Have an object keep its attributes in this very dict, which a name holds too."""
    value.__dict__ = attributes


def make_array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any, writable: bool = True) -> Any:
    """Return an array over bytes; `order` is that of its memory."""
    import numpy as np

    if memoryview(buffer).readonly:
        buffer = bytearray(buffer)
    array = np.ndarray(shape, np.dtype(dtype), buffer=buffer, order=order)
    array.flags.writeable = writable
    return array


def make_strided(
    buffer: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], start: int, writable: bool
) -> Any:
    """Return an array whose elements lie `strides` apart, the first one `start` bytes into its memory."""
    import numpy as np

    kind = np.dtype(dtype)
    size = kind.itemsize + sum((count - 1) * abs(step) for count, step in zip(shape, strides, strict=True))
    array = np.ndarray(shape, kind, buffer=np.zeros(size, np.uint8), offset=start, strides=strides)
    array[...] = np.frombuffer(buffer, np.uint8).view(kind).reshape(shape)
    array.flags.writeable = writable
    return array


def make_region(buffer: Any) -> Any:
    """Return the memory that `make_view` cuts arrays from."""
    import numpy as np

    return np.frombuffer(bytearray(buffer) if memoryview(buffer).readonly else buffer, dtype=np.uint8)


def make_view(
    region: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writable: bool = True
) -> Any:
    """Return an array that shares a region's memory."""
    import numpy as np

    array = np.ndarray(shape, np.dtype(dtype), buffer=region, offset=offset, strides=strides)
    array.flags.writeable = writable
    return array


def make_part(root: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writable: bool) -> Any:
    """Return an array of objects that shares the memory of the array `root`."""
    import numpy as np

    array = np.ndarray(shape, root.dtype, buffer=root.ravel(order="K"), offset=offset, strides=strides)
    array.flags.writeable = writable
    return array


def make_of_kind(array: Any, kind: type) -> Any:
    """Return a view of an array as a subclass of arrays."""
    return array.view(kind)


def fill_own(value: Any, attributes: dict[str, Any]) -> None:
    """Give an object the attributes that it had."""
    vars(value).update(attributes)


def fill_whole(value: Any, state: Any) -> None:
    """Give an object all the attributes that it had, by no method of its class."""
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        vars(value).update(attributes)
    for name, each in (slots or {}).items():
        object.__setattr__(value, name, each)


def make_masked(data: Any, mask: Any, fill_value: Any, hard: bool) -> Any:
    """Return a masked array; `hard` says whether its mask is."""
    import numpy as np

    return np.ma.MaskedArray(data, mask=mask, fill_value=fill_value, hard_mask=hard, copy=False)


def make_storage(buffer: Any, offset: int, length: int) -> Any:
    """Return a torch storage over a part of some memory."""
    import torch

    if length == 0:
        return torch.UntypedStorage(0)
    if memoryview(buffer).readonly:
        buffer = bytearray(buffer)
    return torch.frombuffer(buffer, dtype=torch.uint8, offset=offset, count=length).untyped_storage()


def make_tensor(
    storage: Any,
    dtype: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    gradient: bool,
    kind: str,
    attributes: dict[str, Any],
) -> Any:
    """Return a tensor over a storage, a parameter or a computation's result where it was one."""
    import torch

    tensor = torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)
    if kind == "parameter":
        tensor = torch.nn.Parameter(tensor, requires_grad=gradient)
    elif kind == "result":
        tensor = _without_graph(tensor)
    elif gradient:
        tensor.requires_grad_(True)
    tensor.__dict__.update(attributes)
    return tensor


def make_mark() -> None:
    """Return what a mark is after loading: None."""


def make_frame(_begin: None, blocks: Any, index: Any, columns: Any, extra: Any, _end: None) -> Any:
    """Return a pandas DataFrame over the memory of its blocks."""
    import numpy as np
    from pandas.api.internals import (  # type: ignore[import-not-found]  # absent from the stubs
        create_dataframe_from_blocks,
    )

    columns_at = []
    for values, places in blocks:
        shaped = values.reshape(1, -1) if isinstance(values, np.ndarray) and values.ndim == 1 else values
        columns_at.append((shaped, np.array(places, dtype=np.intp)))
    return _put_extra(create_dataframe_from_blocks(columns_at, index=index, columns=columns), extra)


def make_series(_begin: None, values: Any, index: Any, name: Any, extra: Any, _end: None) -> Any:
    """Return a pandas Series over the memory of its array."""
    import pandas as pd

    return _put_extra(pd.Series(values, index=index, name=name, dtype=values.dtype, copy=False), extra)


def make_apart(_begin: None, make: Callable[..., Any], arguments: Any, state: Any, _end: None) -> Any:
    """Return the value that `reduce_apart` took apart."""
    value = make(*arguments)
    if state is None:
        return value
    if hasattr(value, "__setstate__"):
        value.__setstate__(state)
    else:
        value.__dict__.update(state)
    return value


def make_polars_frame(table: Any) -> Any:
    """Return a polars DataFrame over the memory of an Arrow table."""
    import polars as pl

    return pl.from_arrow(table, rechunk=False)


def make_polars_series(name: str, array: Any) -> Any:
    """Return a polars Series over the memory of an Arrow array."""
    import polars as pl

    return pl.Series(name, array)


def make_function(
    code: types.CodeType, name: str, closure: tuple[types.CellType, ...] | None, text: str = ""
) -> types.FunctionType:
    """Return a bare function with this process's notebook globals; `text` is its source.

    `inspect` and tracebacks find the source; under another file name where this process knows other lines by it.
    """
    if text and source_of(code) != text:
        cached = linecache.cache.get(code.co_filename)
        first = code.co_firstlineno - 1
        if cached is not None and len(cached) == 4 and "".join(cached[2][first : first + text.count("\n")]).strip():
            code = code.replace(co_filename=f"{code.co_filename} ({zlib.crc32(text.encode()):08x})")
        remember_lines(code.co_filename, text, code.co_firstlineno)
    return types.FunctionType(code, main_globals(), name, None, closure)


def source_of(code: types.CodeType) -> str:
    """Return the lines that a function's code was made from, where this process has them, else an empty text."""
    cached = linecache.cache.get(code.co_filename)
    if cached is None or len(cached) != 4:
        return ""
    lines = cached[2][code.co_firstlineno - 1 :]
    try:
        return "".join(inspect.getblock(lines))
    except (SyntaxError, tokenize.TokenError):  # a lambda within a statement
        return "".join(lines)


def fill_function(function: types.FunctionType, state: tuple[Any, ...]) -> None:
    """Complete a bare function by what `reduce_function` kept beside it."""
    (
        function.__qualname__,
        function.__module__,
        function.__defaults__,
        function.__kwdefaults__,
        function.__annotations__,
        function.__doc__,
        attributes,
    ) = state
    function.__dict__.update(attributes)


def make_cell() -> types.CellType:
    """Return an empty closure cell."""
    return types.CellType()


def fill_cell(cell: types.CellType, state: tuple[Any]) -> None:
    """Put the content into a closure cell."""
    cell.cell_contents = state[0]


def make_match(pattern: re.Pattern[Any], text: Any, start: int, end: int, places: tuple[Any, ...]) -> re.Match[Any]:
    """Return the match of a pattern in a text whose groups lie at the same places; raise TypeError where none does."""
    matches: list[re.Match[Any] | None] = [*pattern.finditer(text, start, end)]
    matches += [pattern.match(text, start, end), pattern.fullmatch(text, start, end)]
    for match in matches:
        if match is not None and match.regs == places:
            return match
    raise TypeError("this re.Match cannot be found again in its text")


def make_dict_view(owner: dict[Any, Any], method: str) -> Any:
    """Return the view that a method of a dict gives."""
    return getattr(owner, method)()


def make_dict_iterator(owner: dict[Any, Any], method: str, backwards: bool, taken: int) -> Any:
    """Return an iterator over what a method of a dict gives, from which some have been taken."""
    view = getattr(owner, method)()
    iterator = reversed(view) if backwards else iter(view)
    for _ in range(taken):
        next(iterator)
    return iterator


def make_context(*made_from: Any) -> Any:
    """Return the context of decimal numbers in force where it has these settings, else one of its own."""
    import decimal

    context, now = decimal.Context(*made_from), decimal.getcontext()
    settings = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")
    return now if all(getattr(now, name) == getattr(context, name) for name in settings) else context


def make_memory(memory: bytes | bytearray, form: str, shape: tuple[int, ...]) -> memoryview:
    """Return a memoryview over bytes with an item format and a shape."""
    return memoryview(memory).cast("B").cast(form, shape)  # type: ignore[call-overload,no-any-return]


def fill_node(node: Any, state: dict[str, Any]) -> None:
    """Complete a bare node, which then knows those above it by their places in this process."""
    above = [each for each in state["_parents"].values() if each is not None]
    node.__setstate__({**state, "_parents": {id(each): each for each in above}})


def definition(reference: str, qualname: str = "") -> Any:
    """Stand in streams for a class or function of the notebook; the unpickler puts the registry's look-up here."""
    raise pickle.UnpicklingError(f"{reference} {qualname} can only be loaded by nbflow".replace("\n", " "))


def plugged(name: str, *_: Any) -> Any:
    """Stand in streams for a value that a plug-in wrote; the unpickler puts the plug-in's `read` here."""
    raise pickle.UnpicklingError(f"a value of the serializer {name!r} can only be loaded by nbflow")


def _without_graph(tensor: Any) -> Any:
    """Return a tensor that refuses `backward`: the graph that it came from stayed in its process."""
    import torch

    def forward(_: Any, values: Any) -> Any:
        return values.view_as(values)

    def backward(_: Any, *_gradients: Any) -> Any:
        raise RuntimeError(
            "this tensor was computed in another step, and its autograd graph stayed there: "
            "call backward() in the step that computes it"
        )

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    lost_graph: Any = type("LostGraph", (torch.autograd.Function,), members)
    return lost_graph.apply(tensor.requires_grad_(True))


def _put_extra(value: Any, extra: tuple[Any, ...] | None) -> Any:
    if extra is not None:
        value.attrs = extra[0]
        if extra[1]:
            value.flags.allows_duplicate_labels = False
        for own in extra[2:]:
            vars(value).update(own)
    return value


def main_globals() -> dict[str, Any]:
    """Return the namespace that notebook code runs in."""
    return sys.modules["__main__"].__dict__


SMALLEST = 8
"""The places of a small set's table."""


Way = tuple[tuple[int, ...], int, tuple[int, ...]] | tuple[tuple[int, ...], int, tuple[int, ...], int]
"""Which elements (by their places in the order) are added last, the size of the table (0: as it grows by itself), at
which of its places elements have lain that were taken out again, and how many were added only after that (none)."""


def keeps(value: Iterable[Any], items: Iterable[Any]) -> bool:
    """Return whether a set is iterated in this order."""
    return all(map(operator.is_, value, items))


def fill_set(value: set[Any], state: tuple[list[Any], Way]) -> bool:
    """Add elements to an empty set in a way that keeps their order, and return whether they lie in it."""
    items, way = state
    _add(value, items, way)
    return keeps(value, items)


def make_frozenset(items: list[Any], way: Way) -> frozenset[Any]:
    """Return a frozenset of elements, added in a way that keeps their order."""
    first, rest, fillers, after = _parts(items, way)
    if after:
        value: set[Any] = set()
        _add(value, items, way)
        return frozenset(value)
    frozen = frozenset().union(first, rest) if first else frozenset(rest)
    return frozen.difference(fillers) if fillers else frozen


class _Filler:
    """Takes a place in a table for a while."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    def __hash__(self) -> int:
        return self.place + (3 << 59)  # that of no element: so nothing is compared with it


def _add(value: set[Any], items: list[Any], way: Way) -> None:
    first, rest, fillers, after = _parts(items, way)
    value.update(first)
    value.update(rest)
    for filler in fillers:
        value.discard(filler)
    value.update(after)


def _parts(items: list[Any], way: Way) -> tuple[dict[Any, None], list[Any], list[_Filler], list[Any]]:
    """Return what is added at once, then one by one, what of that is taken out again, and what is added after that.

    A set's table is made larger than twice the dict that it is to take.
    """
    late, size, fill_places, *last = way
    if late:
        ends = [-1, *sorted(late), len(items)]
        others = [items[start + 1 : end] for start, end in pairwise(ends)]
        items = [*chain.from_iterable(others), *(items[at] for at in late)]
    ahead = len(items) - sum(last)
    items, after = items[:ahead], items[ahead:]
    if not size:
        return {}, items, [], after
    fillers = [_Filler(place) for place in fill_places]
    arranged = [*fillers, *items]
    if size == SMALLEST:
        return {}, arranged, fillers, after
    at_once = max(size // 4, 5)
    more = [_Filler(-1 - place) for place in range(at_once - len(arranged))]
    return dict.fromkeys([*arranged[:at_once], *more]), arranged[at_once:], [*fillers, *more], after


def fill_parser(value: Any, state: dict[str, Any]) -> None:
    """Fill a part of an argument parser; the text that marks what is left out is the module's own."""
    import argparse

    def own(part: Any) -> Any:
        return argparse.SUPPRESS if type(part) is str and part == argparse.SUPPRESS else part

    for part in state.values():
        if type(part) is dict:  # groups of arguments share it with their parser
            part.update((key, own(each)) for key, each in [*part.items()])
    value.__dict__.update((name, own(part)) for name, part in state.items())
