"""Which value a name has at a place in the document: the nearest earlier cell that wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from nbflow.analysis.effects import STATES, state_of
from nbflow.analysis.quoted import MAIN
from nbflow.model import Binding, Definition, Source, Writer


class Gathered(msgspec.Struct):
    """What a set of names needs at one place: definitions to replay, data to bind, names that nobody gives."""

    definitions: set[int] = msgspec.field(default_factory=set)
    bindings: dict[str, Binding] = msgspec.field(default_factory=dict)
    missing: dict[str, bool] = msgspec.field(default_factory=dict)  # name -> surely read
    replayed: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)  # name -> the definitions that give it
    changes: set[str] = msgspec.field(default_factory=set)  # names that the bodies of those definitions write
    draws: set[str] = msgspec.field(default_factory=set)  # random states that those bodies draw from


def gather(
    writers: Mapping[str, Sequence[Writer]],
    definitions: Sequence[Definition],
    names: Mapping[str, bool],
    *,
    position: int | None = None,
    inner: Mapping[str, tuple[Source, ...]] | None = None,
    own: Mapping[str, list[int]] | None = None,
) -> Gathered:
    """Return what names, each with whether it is surely read, need above `position` (None: the end).

    `inner` and `own` are data and definitions further up in the same cell. Free names of definitions are followed, for
    they are read at this place when the definition is used here.
    """
    # A definition is replayed where it is used and reads its free names there: they are looked up at this place, not at
    # the definition's. Each of them may lead to further definitions, so the queue runs until no name is new.
    needs = Gathered()
    followed: set[int] = set()
    queue = sorted(names.items())
    while queue:
        name, sure = queue.pop()
        if name == MAIN:  # `unittest.main()` finds what stands above it
            queue.extend((each, False) for each in defined(writers, writers, position) if each not in (own or ()))
            continue
        if name in needs.bindings or name in needs.missing or name in needs.replayed:
            continue
        if inner and name in inner:
            needs.bindings[name] = Binding(name=name, sources=inner[name], sure=sure)
            continue
        steps, orders = (
            sources_of(writers.get(name, ()), position) if not own or name not in own else ((), tuple(own[name]))
        )
        if not steps and not orders:
            needs.missing[name] = sure
            continue
        if steps:
            everything = (*steps, *(Source(definition=order) for order in orders))
            needs.bindings[name] = Binding(name=name, sources=everything, sure=sure)
        else:
            needs.replayed[name] = orders
        # what a definition requires is followed too: a decorator's body lives on in the function that it has made
        for order in closed(definitions, orders) - followed:
            followed.add(order)
            definition = definitions[order]
            needs.changes |= set(definition.free_writes)
            needs.draws |= STATES.intersection(definition.free)
            queue.extend((free, False) for free in definition.free if free not in STATES)
            # The definition goes on holding the objects that it bound (`def f(x, into=acc)`), so whoever uses it is
            # given those as cells below have changed them.
            queue.extend((bind.name, False) for bind in definition.binds)
            queue.extend((hint, False) for hint in defined(definition.hints, writers, position))
            carried = (state_of(name) for name in definition.names if not definition.origins)
            queue.extend((name, False) for name in carried if name in writers)
    needs.definitions = followed
    return needs


def defined(names: Iterable[str], writers: Mapping[str, Sequence[Writer]], position: int | None) -> tuple[str, ...]:
    """Return the names in annotations kept as text that only definitions bear above `position`.

    pydantic and `get_type_hints` look up classes by them; data has no business there.
    """
    sources = ((name, *sources_of(writers.get(name, ()), position)) for name in names)
    return tuple(name for name, steps, orders in sources if orders and not steps)


def sources_of(writers: Sequence[Writer], position: int | None) -> tuple[tuple[Source, ...], tuple[int, ...]]:
    """Return the steps that may give a name, nearest first, and the definitions behind them.

    A conditional write is followed by the writer before it, until one surely writes.
    """
    steps: list[Source] = []
    for writer in reversed(writers):
        if position is not None and writer.position >= position:
            continue
        if writer.definitions:
            return tuple(steps), writer.definitions
        if writer.step is None:  # deleted
            break
        steps.append(Source(step=writer.step, sure=writer.sure))
        if writer.sure:
            break
    return tuple(steps), ()


def closed(definitions: Sequence[Definition], orders: Iterable[int]) -> set[int]:
    """Return the orders of definitions with all that their own replay requires."""
    required: set[int] = set()
    queue = list(orders)
    while queue:
        order = queue.pop()
        if order not in required:
            required.add(order)
            queue.extend(definitions[order].requires)
    return required
