"""The global random states of `random`, NumPy and torch: fresh for a task, or as an earlier step left them."""

from __future__ import annotations

import hashlib
import marshal
import os
import random
import sys
from collections.abc import Callable, Collection, Mapping
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

BLOCK = 624
"""Words that a Mersenne Twister makes at once."""

BLOCKS = (1, 9, 90, 900)
"""As far is followed whether draws lead from one state to another, piece by piece: 600,000 words in all, 30 ms."""

OWN_SEEDS = 1 << 32
"""Below it lie the seeds that people set; one that torch takes from the system lies above, but for one in 2 million."""

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


def loaded() -> dict[str, Any]:
    """Return the state of each loaded library, to be compared with later."""
    return {name: state.get() for name, state in STATES.items() if state.module in sys.modules}


def mark(name: str) -> bytes:
    """Return a library's state as bytes: equal before and after means that nothing was drawn."""
    return _bytes(STATES[name].get())


def drew(spec: TaskSpec, before: Mapping[str, Any]) -> bool:
    """Return whether a cell drew numbers that another execution would not draw; `before` is what `loaded` gave.

    States that travel as inputs, and those that a cell seeds itself, give the same numbers again.
    """
    sources = (spec.source, *(statement.source for statement in spec.replay))
    if any(f"{call}(" in source for source in sources for call in SEEDING):
        return False
    return bool(drawn(before) - {*spec.inputs, *spec.writes})


def drawn(before: Mapping[str, Any]) -> set[str]:
    """Return the states from which numbers were drawn, or that were seeded, since `loaded` gave `before`."""
    names = {name for name, state in loaded().items() if name in before and not _is_same(before[name], state)}
    if "<numpy.random>" not in before and "numpy" in sys.modules and read("<numpy.random>")[2] != UNUSED:
        names.add("<numpy.random>")
    return names


# ---------------------------------------------------------------- seeded, by whatever call


def seeded(before: Mapping[str, Any], known: Collection[str] = ()) -> set[str]:
    """Return the states that were seeded since `loaded` gave `before`: no draws lead from then to now.

    Where nobody can tell (a library that was loaded since, more draws than are followed), they count as seeded.
    States that are `known` to be written are not looked at.
    """
    names = drawn(before) - {*known}
    names = {name for name in names if name not in before or not _leads(name, before[name], read(name))}
    if "<torch>" not in before and "torch" in sys.modules and _torch().initial_seed() < OWN_SEEDS:
        names.add("<torch>")
    return names


def _leads(name: str, before: Any, now: Any) -> bool:
    """Return whether draws alone may have made one state of a library of another one."""
    if name == "<torch>":  # its first eight bytes are the seed
        return bool((before[:8] == now[:8]).all())
    then, key = _twister(before), _twister(now)
    if then[0] == key[0]:
        return then[1] <= key[1]
    # What a generator gives after its block is used up are the next blocks: the words of the later one are among them.
    # Python's generator is NumPy's, so it follows both.
    source, target = random.Random(), random.Random()  # noqa: S311  # the very generator that is meant
    source.setstate((3, (*then[0], BLOCK), None))
    target.setstate((3, (*key[0], 0), None))
    words = target.getrandbits(BLOCK * 32).to_bytes(BLOCK * 4, "little")
    for blocks in BLOCKS:
        at = source.getrandbits(blocks * BLOCK * 32).to_bytes(blocks * BLOCK * 4, "little").find(words)
        if at >= 0 and at % (BLOCK * 4) == 0:
            return True
    return False


def _twister(state: Any) -> tuple[tuple[int, ...], int]:
    """Return the words of a Mersenne Twister's block, and how many of them are used up."""
    if len(state) == 3:  # Python's
        return state[1][:-1], state[1][-1]
    return tuple(state[1].tolist()), int(state[2])


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two states are equal; Python's is a tuple of numbers, which are compared where they are."""
    if isinstance(one, tuple) and not any(hasattr(part, "tobytes") for part in one):
        return bool(one == other)
    return _bytes(one) == _bytes(other)


def _bytes(value: Any) -> bytes:
    """Return bytes that are equal for equal states."""
    if isinstance(value, tuple) and any(hasattr(part, "tobytes") for part in value):
        return b"(" + b",".join(map(_bytes, value)) + b")"
    if hasattr(value, "numpy"):  # a tensor
        value = value.numpy()
    return bytes(value.tobytes()) if hasattr(value, "tobytes") else marshal.dumps(value)
