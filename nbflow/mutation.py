"""Inputs that a cell changes in place though nothing in its text says so: compared with themselves after it."""

from __future__ import annotations

import time
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbflow.fingerprint import fingerprint
from nbflow.registry import Registry

BUDGET = 0.05
"""Seconds that taking the base line may cost; comparing costs about the same again."""

SECONDS_PER_BYTE = 0.3e-9
"""What a fingerprint costs by the size of the stored value: arrays less, many small objects more."""


@dataclass(frozen=True)
class Verdict:
    """Names of inputs that are not as they were, and of those that it would have cost too much to compare."""

    changed: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


class BaseLine:
    """What inputs looked like before the cell: small ones first, as many as the budget allows."""

    def __init__(
        self, values: Mapping[str, Any], sizes: Mapping[str, int], registry: Registry, budget: float = BUDGET
    ) -> None:
        """Named inputs, their stored sizes in bytes, and the registry that knows their classes, in."""
        self._registry = registry
        self._values = {name: value for name, value in values.items() if not is_fixed(value)}
        self._before: dict[str, str | None] = {}
        started = time.monotonic()
        for name in sorted(self._values, key=lambda each: sizes.get(each, 0)):
            left = budget - (time.monotonic() - started)
            if left <= 0 or sizes.get(name, 0) * SECONDS_PER_BYTE > left:
                break
            self._before[name] = fingerprint(self._values[name], registry)

    def compare(self, namespace: Mapping[str, Any]) -> Verdict:
        """The namespace after the cell in; what became of the inputs that it still holds out."""
        changed, unknown = set(), set()
        for name, value in self._values.items():
            if namespace.get(name) is not value:
                continue  # bound anew or deleted: a write like others
            before = self._before.get(name)
            if before is None:
                unknown.add(name)
            elif fingerprint(value, self._registry) != before:
                changed.add(name)
        return Verdict(frozenset(changed), frozenset(unknown))


def is_fixed(value: Any) -> bool:
    """Whether a value cannot change, or is no data. A function changes with what it closes over."""
    if isinstance(value, types.FunctionType):
        return not (value.__closure__ or value.__defaults__ or value.__kwdefaults__ or vars(value))
    fixed = (int, float, complex, str, bytes, bool, type(None), range, type, types.ModuleType)
    return isinstance(value, fixed)
