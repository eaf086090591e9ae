"""Values that a task leaves and inputs that share objects with them → what is stored together.

`first = items[0]`, `row = grid[1]`, `bank.accounts.append(ada)`: a later cell that changes one of the two changes both.
Stored in one group they stay one object. That is done only where a step below may change either: whoever reads such
an input below has to wait for the step, which a model that remembers its training data should not cost. Frames and
series share their index with much that is made from them; of it only the names can be changed, and only where the text
of a step below looks as if it does that they are stored together.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nbflow.analysis.effects import AXES
from nbflow.store.serialize.inspection import attribute
from nbflow.store.serialize.pickler import Dumped, Unstorable, dump
from nbflow.store.serialize.registry import Registry

MANY = 1000
"""How many parts of a list or dict are looked at."""


class Together(msgspec.Struct, frozen=True):
    """What is to be stored, the inputs that share objects with outputs, and those of them that are stored too."""

    dumped: list[Dumped | Unstorable]
    shares: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()


def dump_together(
    values: Mapping[str, Any], beside: Mapping[str, Any], tracked: tuple[str, ...], registry: Registry
) -> Together:
    """Return outputs as they are stored, with those unchanged inputs `beside` them that share objects with them.

    `tracked` are the names (or `*`) that a step below may change: inputs are stored too where it may change one of
    them. The inputs' memory is not touched; their small objects are looked at once.
    """
    axes = _axes({**values, **beside})
    names_together = axes if AXES in tracked else ()
    dumped = dump({**values, **beside}, registry, names_together)
    groups = [each for each in dumped if not values.keys().isdisjoint(_names(each))]
    shares = frozenset(name for each in groups for name in _names(each)) - values.keys()
    # all or none: what shares objects with a name that is changed below would be parted from it by the new version
    joining = shares if "*" in tracked or not shares.isdisjoint(tracked) else frozenset[str]()
    if joining != shares:
        groups = dump(values, registry, names_together)
    apart = not names_together and any(not values.keys().isdisjoint(each) for each in axes)
    return Together(groups, frozenset({*shares, AXES}) if apart else shares, joining)


def _axes(values: Mapping[str, Any]) -> list[frozenset[str]]:
    """Return which frames, series and indexes share an index or columns: by name, alone or in a list or dict."""
    pandas: Any = sys.modules.get("pandas")
    if not hasattr(pandas, "Index"):  # not loaded, or being so by another thread
        return []
    holders: dict[int, tuple[Any, set[str]]] = {}  # with the axis, so that it keeps its id
    for name, value in values.items():
        parts = value.values() if type(value) is dict else value if type(value) in (list, tuple) else (value,)
        for each in itertools.islice(parts, MANY):
            for axis in [each] if issubclass(type(each), pandas.Index) else _axes_of(each, pandas):
                holders.setdefault(id(axis), (axis, set()))[1].add(name)
    return [frozenset(names) for _, names in holders.values() if len(names) > 1]


def _axes_of(value: Any, pandas: Any) -> Sequence[Any]:
    kinds = (pandas.DataFrame, pandas.Series)
    return attribute(value, "axes", ()) if issubclass(type(value), kinds) else ()  # a half made frame has none


def _names(each: Dumped | Unstorable) -> tuple[str, ...]:
    return each.names if isinstance(each, Dumped) else (each.name,)
