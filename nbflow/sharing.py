"""Values that a task leaves and inputs that share objects with them → what is stored together.

`first = items[0]`, `row = grid[1]`, `bank.accounts.append(ada)`: a later cell that changes one of the two changes both.
Stored in one group they stay one object. That is done only where a step below may change either: whoever reads such
an input below has to wait for the step, which a model that remembers its training data should not cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbflow.registry import Registry
from nbflow.serialize import Dumped, Unstorable, dump


@dataclass(frozen=True)
class Together:
    """What is to be stored, the inputs that share objects with outputs, and those of them that are stored too."""

    dumped: list[Dumped | Unstorable]
    shares: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()


def dump_together(
    values: Mapping[str, Any], beside: Mapping[str, Any], tracked: tuple[str, ...], registry: Registry
) -> Together:
    """Outputs, unchanged inputs beside them, and the names (or `*`) that a step below may change, in; groups out.

    The inputs' memory is not touched; their small objects are looked at once.
    """
    dumped = dump({**values, **beside}, registry)
    kept = [each for each in dumped if not values.keys().isdisjoint(_names(each))]
    shares = frozenset(name for each in kept for name in _names(each)) - values.keys()
    # all or none: what shares objects with a name that is changed below would be parted from it by the new version
    joined = shares if "*" in tracked or not shares.isdisjoint(tracked) else frozenset[str]()
    if joined != shares:
        kept = dump(values, registry)
    return Together(kept, shares, joined)


def _names(each: Dumped | Unstorable) -> tuple[str, ...]:
    return each.names if isinstance(each, Dumped) else (each.name,)
