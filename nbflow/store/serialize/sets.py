"""Sets ↔ their elements in the order of iteration: rebuilt so that a process of the same hash seed iterates them alike.

In which order a set is iterated depends on the hashes of its elements, the size of its table and, where elements want
one place in it, on who came first. Most sets come back by adding their elements in order. For the others it is read
from the set's table in which order they have to be added.
"""

from __future__ import annotations

import ctypes
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations, permutations
from typing import Any

import msgspec

from nbflow.store.serialize.rebuild import SMALLEST, Way, fill_set, keeps, make_frozenset

FIXED_HASHES = frozenset({int, float, bool, complex})
"""Types whose hashes are the same in every process."""

NEAR = 9
"""How many places behind its first one are tried for an element before a far one is (CPython's `LINEAR_PROBES`)."""

SHIFT = 5
"""By how many bits a hash is shifted for the next place (CPython's `PERTURB_SHIFT`)."""

GONE = -1
"""In a table, instead of a hash: an element was taken out here."""

WORD = 8
"""The bytes of a number in a table."""


PLAIN: Way = ((), 0, ())


class Ordered:
    """A set on its way into a stream."""

    __slots__ = ("items", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.items = [*value]

    def reduction(self) -> tuple[Any, ...]:
        """Return how the set is pickled; a set is there before its elements, which may hold it."""
        state = (self.items, way_of(self.value, self.items))
        if type(self.value) is frozenset:
            return make_frozenset, state
        return set, (), state, None, None, fill_set


def is_ordered(value: Any) -> bool:
    """Return whether a value is a set whose order needs care: pickle's own way may lose it, or nobody would know."""
    if (type(value) is not set and type(value) is not frozenset) or len(value) < 2:
        return False
    return not set(map(type, value)) <= FIXED_HASHES or not keeps(type(value)(items := [*value]), items)


# ---------------------------------------------------------------- finding the way


def way_of(value: Any, items: list[Any]) -> Way:
    """Return how a set's elements come to lie in their order again, `PLAIN` where that is not known."""
    kind = type(value)
    if keeps(kind(items), items):
        return PLAIN
    return next((way for way in _ways(value, items) if _serves(kind, items, way)), PLAIN)


def _ways(value: Any, items: list[Any]) -> Iterator[Way]:
    """Yield the ways that a set's table suggests, simple ones first."""
    table = _Table.of(value, items)
    if table is None:
        return
    late = tuple(_late(table))
    size = len(table.hashes)
    ways: list[Way] = [(late, size, ()), (late, 0, ())]
    yield from ways if len(items) >= size // 4 else reversed(ways)
    yield late, size, tuple(place for place, hashed in enumerate(table.hashes) if hashed == GONE)
    if size == SMALLEST:
        yield from _searched(len(items))


def _searched(count: int) -> Iterator[Way]:
    """Yield the ways into a smallest table in which an element took the place of one that was taken out.

    Two elements may then each lie where the other wanted to, which no order of adding explains; there are few to try.
    """
    for gone in chain.from_iterable(combinations(range(SMALLEST), number) for number in (1, 2)):
        for late in permutations(range(count)):
            for after in range(1, count):
                yield late, SMALLEST, gone, after


def _serves(kind: type, items: list[Any], way: Way) -> bool:
    if kind is frozenset:
        return keeps(make_frozenset(items, way), items)
    return fill_set(set(), (items, way))


class _Table(msgspec.Struct, frozen=True):
    """Where the elements of a set lie: the hash at each place of its table, and the places of its elements in order."""

    hashes: Sequence[int]
    taken: Sequence[int]

    @classmethod
    def of(cls, value: Any, items: list[Any]) -> _Table | None:
        """Return the table of a set, None when memory is not laid out as it is known to be.

        It is only read.
        """
        head = object.__basicsize__
        if sys.implementation.name != "cpython" or head + 23 * WORD != set.__basicsize__:
            return None
        _, used, mask, start = (ctypes.c_int64 * 4).from_address(id(value) + head)
        size = (sys.getsizeof(value) - sys.getsizeof(set())) // (2 * WORD) or SMALLEST
        if used != len(items) or mask + 1 != size:
            return None
        words = memoryview((ctypes.c_int64 * (2 * size)).from_address(start)).cast("B").cast("q")
        keys, hashes = words[::2].tolist(), words[1::2].tolist()
        places = [place for place, key in enumerate(keys) if key and hashes[place] != GONE]
        return cls(hashes, places) if [keys[place] for place in places] == [*map(id, items)] else None


def _late(table: _Table) -> list[int]:
    """Return the elements (by their places in the order) that have to be added last, in that order.

    Whoever does not lie at its first place came after all that lie at its places before. Added in order, those do who
    lie a little behind their first place, unless one that they pass is late.
    """
    hashes, mask = table.hashes, len(table.hashes) - 1
    places = {*table.taken}
    displaced = [place for place in table.taken if hashes[place] & mask != place]
    far = {place for place in displaced if not _is_near(hashes[place] & mask, place, mask)}
    places_before = {place: [each for each in _passed(hashes[place], place, mask) if each in places] for place in far}
    passing: dict[int, list[int]] = {}
    for place, others in places_before.items():
        for other in others:
            passing.setdefault(other, []).append(place)
    late: set[int] = set()
    waiting = [place for place, others in places_before.items() if any(other > place for other in others)]
    while waiting:
        place = waiting.pop()
        if place in late:
            continue
        late.add(place)
        behind = range(place + 1, min(place + NEAR, mask) + 1)
        waiting += [each for each in behind if each in places and each not in far and hashes[each] & mask <= place]
        waiting += passing.get(place, ())
    order: dict[int, None] = {}
    for place in sorted(late):
        waiting = [place]
        while waiting:
            before: Iterable[int] = places_before.get(waiting[-1]) or range(hashes[waiting[-1]] & mask, waiting[-1])
            first = next(
                (other for other in before if other in late and other not in order and other not in waiting), None
            )
            if first is None:
                order[waiting.pop()] = None
            else:
                waiting.append(first)
    return [bisect_left(table.taken, place) for place in order]


def _is_near(home: int, place: int, mask: int) -> bool:
    """Return whether a place is one of those behind the first one of an element that are tried next."""
    return home < place <= home + NEAR <= mask


def _passed(hashed: int, place: int, mask: int) -> Iterator[int]:
    """Yield the places of a table where an element with a hash is looked for before its own."""
    rest = hashed & ((1 << (8 * WORD)) - 1)
    at = hashed & mask
    while True:
        for each in range(at, at + NEAR + 1 if at + NEAR <= mask else at + 1):
            if each == place:
                return
            yield each
        rest >>= SHIFT
        at = (at * 5 + 1 + rest) & mask
