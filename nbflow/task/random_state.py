"""The global random states of `random`, NumPy and torch: fresh for a task, or as an earlier step left them."""

from __future__ import annotations

import hashlib
import marshal
import os
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nbflow.model import Index, TaskSpec


def _numpy() -> Any:
    import numpy as np

    return np


def _torch() -> Any:
    import torch

    return torch


def _seed_numpy(entropy: bytes) -> None:
    _numpy().random.seed([int.from_bytes(entropy[at : at + 4], "big") for at in range(0, 32, 4)])


class Generator(msgspec.Struct, frozen=True):
    """One library's global state: how it is read, put back and seeded with 32 bytes."""

    module: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]
    seed: Callable[[bytes], Any]


STATES: dict[str, Generator] = {
    "<random>": Generator("random", random.getstate, random.setstate, random.seed),
    "<numpy.random>": Generator(
        "numpy",
        lambda: _numpy().random.get_state(),  # noqa: PLW0108  # NumPy is loaded when it is called
        lambda state: _numpy().random.set_state(state),  # noqa: PLW0108
        _seed_numpy,
    ),
    "<torch>": Generator(
        "torch",
        lambda: _torch().get_rng_state(),
        lambda state: _torch().set_rng_state(state),
        lambda entropy: _torch().manual_seed(int.from_bytes(entropy[:7], "big")),
    ),
}
"""The name that a state goes by in a flow -> the state; named in `definitions.RANDOM_STATES` too."""


SEEDING = ("seed", "set_state", "setstate", "manual_seed", "set_rng_state")
"""Names of the calls after which draws are the same in every execution."""

UNUSED = 623
"""The position of NumPy's global generator after its import; after `seed` it is 624."""


def refresh() -> None:
    """Seed every library that is loaded with fresh entropy: forked processes would draw equal numbers."""
    for state in STATES.values():
        if state.module in sys.modules:
            state.seed(os.urandom(32))


def restore(name: str, value: Any, index: Index = ()) -> None:
    """Make a value the global state of a library.

    With an index, a state of its own for that item is spawned from the value instead.
    """
    state = STATES[name]
    state.put(value)
    if index:
        state.seed(hashlib.sha256(_bytes(value) + repr(index).encode()).digest())


def read(name: str) -> Any:
    """Return a library's global state."""
    return STATES[name].get()


def loaded() -> dict[str, bytes]:
    """Return each loaded library's state as bytes: equal before and after means that nothing was drawn."""
    return {name: _bytes(state.get()) for name, state in STATES.items() if state.module in sys.modules}


def drew(spec: TaskSpec, before: Mapping[str, bytes]) -> bool:
    """Return whether a cell drew numbers that another execution would not draw; `before` is what `loaded` gave.

    States that travel as inputs, and those that a cell seeds itself, give the same numbers again.
    """
    sources = (spec.source, *(statement.source for statement in spec.replay))
    if any(f"{call}(" in source for source in sources for call in SEEDING):
        return False
    return bool(drawn(before) - {*spec.inputs, *spec.writes})


def drawn(before: Mapping[str, bytes]) -> set[str]:
    """Return the states from which numbers were drawn, or that were seeded, since `loaded` gave `before`."""
    names = {name for name, state in loaded().items() if before.get(name, state) != state}
    if "<numpy.random>" not in before and "numpy" in sys.modules and read("<numpy.random>")[2] != UNUSED:
        names.add("<numpy.random>")
    return names


def _bytes(value: Any) -> bytes:
    """Return bytes that are equal for equal states."""
    if isinstance(value, tuple) and any(hasattr(part, "tobytes") for part in value):
        return b"(" + b",".join(map(_bytes, value)) + b")"
    if hasattr(value, "numpy"):  # a tensor
        value = value.numpy()
    return bytes(value.tobytes()) if hasattr(value, "tobytes") else marshal.dumps(value)
