"""Values that pickle refuses, or would cut from what they look into, ↔ what they are made from: matches, views."""

from __future__ import annotations

import gc
import re
from typing import Any


def reduce_match(match: re.Match[Any]) -> tuple[Any, ...]:
    """A regular expression's match in; its reduction out: it is found again in its text. TypeError when it is not."""
    made_from = (match.re, match.string, match.pos, match.endpos, match.regs)
    make_match(*made_from)
    return make_match, made_from


def make_match(pattern: re.Pattern[Any], text: Any, start: int, end: int, places: tuple[Any, ...]) -> re.Match[Any]:
    """A pattern, its text, where the search began and ended, and where all groups lie, in; that match out."""
    found: list[re.Match[Any] | None] = [*pattern.finditer(text, start, end)]
    found += [pattern.match(text, start, end), pattern.fullmatch(text, start, end)]
    for match in found:
        if match is not None and match.regs == places:
            return match
    raise TypeError("this re.Match cannot be found again in its text")


KINDS_OF_VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


def reduce_dict_view(view: Any) -> tuple[Any, ...]:
    """What `keys`, `values` or `items` of a dict gave in; its reduction out: it goes on looking into the dict."""
    (owner,) = (each for each in gc.get_referents(view) if isinstance(each, dict))
    return make_dict_view, (owner, KINDS_OF_VIEWS[type(view)])


def make_dict_view(owner: dict[Any, Any], method: str) -> Any:
    """A dict and the name of a method in; the view out."""
    return getattr(owner, method)()


def reduce_memory(view: memoryview) -> tuple[Any, ...]:
    """A memoryview in; its reduction out: over the whole of its bytearray it goes on looking into it, else a copy."""
    if type(view.obj) is bytearray and view.contiguous and view.nbytes == len(view.obj):
        return make_memory, (view.obj, view.format, view.shape)
    return make_memory, (bytes(view) if view.readonly else bytearray(view), view.format, view.shape)


def make_memory(memory: bytes | bytearray, form: str, shape: tuple[int, ...]) -> memoryview:
    """Bytes, item format and shape in; the memoryview out."""
    return memoryview(memory).cast("B").cast(form, shape)  # type: ignore[call-overload,no-any-return]


def reduce_node(node: Any) -> tuple[Any, ...]:
    """A node of matplotlib's transforms in; its reduction out.

    Nodes know those above them by `id`, and keep the ids of the process that pickled them: a new node that comes to
    lie at one of those places would take the older one's part, which is told of no change any more.
    """
    make, made_from, state = node.__reduce_ex__(5)[:3]
    return make, made_from, state, None, None, fill_node


def fill_node(node: Any, state: dict[str, Any]) -> None:
    """A bare node and its state in; the node is complete, and knows those above it by their places here."""
    above = [each for each in state["_parents"].values() if each is not None]
    node.__setstate__({**state, "_parents": {id(each): each for each in above}})
