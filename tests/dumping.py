"""Values through the serializer and back, in this process, as a notebook's cells would have them."""

from __future__ import annotations

import dataclasses
import enum
import sys
import textwrap
from typing import Any

import pytest

from nbflow.serialize import Dumped, Registry, Unstorable, dump, load

MAIN = sys.modules["__main__"].__dict__


def dumped(registry: Registry | None = None, /, **values: Any) -> dict[tuple[str, ...], Dumped]:
    """The stored groups by their names; fails when a value cannot be stored."""
    found = dump(values, registry or Registry())
    assert not [each for each in found if isinstance(each, Unstorable)], found
    return {each.names: each for each in found if isinstance(each, Dumped)}


def loaded(groups: dict[tuple[str, ...], Dumped], registry: Registry | None = None) -> dict[str, Any]:
    """The groups' values from copies of their bytes, as another process would get them."""
    result: dict[str, Any] = {}
    for each in groups.values():
        buffers = [bytearray(buffer) for buffer in each.buffers]
        result |= load(bytes(each.stream), buffers, registry or Registry(), each.names)
    return result


def through(value: Any) -> Any:
    return loaded(dumped(value=value))["value"]


def in_main(source: str) -> dict[str, Any]:
    """Run source in `__main__`'s own namespace, as a notebook's cell is; the names that it bound."""
    before = dict(MAIN)
    exec(textwrap.dedent(source), MAIN)
    return {name: value for name, value in MAIN.items() if before.get(name) is not value}


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: float
    y: list[int]


@pytest.fixture(autouse=True)
def clean_main() -> Any:
    """`__main__` is put back after each test of a file that imports this."""
    before = dict(MAIN)
    yield
    MAIN.clear()
    MAIN.update(before)
