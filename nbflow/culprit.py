"""A value that cannot be pickled → the part of it that is at fault, as a path people can follow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

BUDGET = 0.2
"""Seconds that the search may take: it is only for the message."""

DEPTH = 5
PARTS = 200


def find_culprit(name: str, value: Any, fails: Callable[[Any], bool]) -> str:
    """A name, its value and a test for values that cannot be pickled in; the path to the innermost part that fails out.

    The name itself when no part of it fails alone, or the search takes too long.
    """
    end = time.monotonic() + BUDGET
    path = name
    for _ in range(DEPTH):
        for step, part in itertools.islice(_parts(value), PARTS):
            if time.monotonic() > end:
                return path
            if fails(part):
                path, value = path + step, part
                break
        else:
            return path
    return path


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """A value in; what it is made of, each with the text that leads there, out."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]" if isinstance(key, str | int) else "[…]", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type):
        yield from ((f".{key}", part) for key, part in vars(value).items())
        if hasattr(value, "__code__"):
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
            yield from ((f"'s {variable}", cell.cell_contents) for variable, cell in cells if cell != type(cell)())
