"""What may stand behind each name at one point of a cell, and how that joins where paths meet."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from nbflow.analysis.result import NO_NAMES

PREVIOUS = 1  # the value from before may be there
HERE = 2  # a value bound by this code may be there
GONE = 4  # the name may be unbound
AGAIN = 8  # a value bound here after the earlier one was surely read may be there


class LocalFunction(msgspec.Struct, frozen=True, eq=False):
    """A function made in the cell, seen from outside: what calling it does to the names around it."""

    loads: frozenset[str] = NO_NAMES  # taken from outside, unless surely bound before
    sure_loads: frozenset[str] = NO_NAMES
    stores: frozenset[str] = NO_NAMES  # `global` names that it may bind
    sure_stores: frozenset[str] = NO_NAMES
    drops: frozenset[str] = NO_NAMES  # `global` names that it may delete
    changed: frozenset[str] = NO_NAMES
    possible: frozenset[str] = NO_NAMES
    escapes: frozenset[str] = NO_NAMES
    iterated: frozenset[str] = NO_NAMES
    plain: bool = True  # calling it runs it: neither generator nor coroutine


NO_BODIES: frozenset[LocalFunction] = frozenset()


class Slot(NamedTuple):
    """What a name may hold: origin bits, and the fields of Content."""

    bits: int
    bodies: frozenset[LocalFunction]
    roots: frozenset[str]
    held: frozenset[str]


def is_bound(slot: Slot) -> bool:
    """Return whether this code may have bound a slot's name."""
    return bool(slot.bits & (HERE | AGAIN))


def is_surely_bound(slot: Slot) -> bool:
    """Return whether this code has bound a slot's name on every path."""
    return not slot.bits & (PREVIOUS | GONE)


UNTOUCHED = Slot(PREVIOUS, NO_BODIES, NO_NAMES, NO_NAMES)
BOUND = Slot(HERE, NO_BODIES, NO_NAMES, NO_NAMES)
UNBOUND = Slot(GONE, NO_BODIES, NO_NAMES, NO_NAMES)


class Content(NamedTuple):
    """What an expression's value may be: functions made in the cell, objects of names, a new container of such."""

    bodies: frozenset[LocalFunction]
    roots: frozenset[str]  # names whose object, or a part of it, the value may be
    held: frozenset[str]  # names whose object the value may hold without being it

    @property
    def all_roots(self) -> frozenset[str]:
        """Return the names whose objects can be reached from the value."""
        return self.roots | self.held if self.held else self.roots

    def as_element(self) -> "Content":
        """Return the content of one element of the value."""
        return Content(self.bodies, self.all_roots, self.held) if self.held else self

    def as_container(self) -> "Content":
        """Return the content of a new container with the value in it."""
        return Content(self.bodies, NO_NAMES, self.all_roots) if self.roots else self


NOTHING = Content(NO_BODIES, NO_NAMES, NO_NAMES)


def merge_contents(contents: Iterable[Content]) -> Content:
    """Return the content of a value that may be any of these."""
    bodies, roots, held = NO_BODIES, NO_NAMES, NO_NAMES
    for content in contents:
        if content is not NOTHING:
            bodies |= content.bodies
            roots |= content.roots
            held |= content.held
    return Content(bodies, roots, held) if bodies or roots or held else NOTHING


class Paths(msgspec.Struct):
    """One point of a path: a slot for each name touched so far, and what surely happened on the way."""

    slots: dict[str, Slot] = msgspec.field(default_factory=dict)
    read: set[str] = msgspec.field(default_factory=set)
    changed: set[str] = msgspec.field(default_factory=set)

    def copy(self) -> "Paths":
        """Return a state that changes on its own."""
        return Paths(self.slots.copy(), self.read.copy(), self.changed.copy())

    def weaken(self, name: str, slot: Slot) -> Slot:
        """Let a name hold another slot as well; return the joined slot."""
        self.slots[name] = joined = join_slots(self.slots.get(name, UNTOUCHED), slot)
        return joined


def join_slots(one: Slot, other: Slot) -> Slot:
    """Return a slot that may be either of two."""
    if one is other:
        return one
    return Slot(one.bits | other.bits, one.bodies | other.bodies, one.roots | other.roots, one.held | other.held)


def join_states(states: Iterable[Paths | None]) -> Paths | None:
    """Return the state where the ends of paths meet (None: never reached); None where none arrives."""
    alive = [state for state in states if state is not None]
    if len(alive) < 2:
        return alive[0] if alive else None
    slots: dict[str, Slot] = {}
    for name in {name: None for state in alive for name in state.slots}:  # a dict: its order is the same in every run
        first = alive[0].slots.get(name, UNTOUCHED)
        for state in alive[1:]:
            first = join_slots(first, state.slots.get(name, UNTOUCHED))
        slots[name] = first
    return Paths(
        slots, set.intersection(*(state.read for state in alive)), set.intersection(*(state.changed for state in alive))
    )
