"""GPUs of one machine, shared among tasks of several notebooks that know nothing of each other.

Who has one holds a lock on a file that names it. The system lets go of the lock with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from nbflow.engine.resources import Grant, pick
from nbflow.jsonable import from_json, to_json


class GpuShare:
    """GPUs, or a part of one, that a task has until it is closed."""

    def __init__(self, devices: Sequence[str], held: int, path: Path) -> None:
        self.devices = tuple(devices)
        self._held = held
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of them."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._held)


class GpuShares:
    """Who has which GPU of this machine."""

    def __init__(self, folder: Path, devices: Sequence[str]) -> None:
        self._folder = folder
        self._devices = tuple(devices)

    def take(self, name: str, wanted: float) -> GpuShare | None:
        """Return as many GPUs as are wanted, None while too few are free."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / "lock"):
            others = [Grant(0.0, devices) for devices in self._others()]
            devices = pick(wanted, self._devices, others)
            if devices is None:
                return None
            path = self._folder / f"{name}.json"
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.write(held, to_json(devices))
            return GpuShare(tuple(devices), held, path)

    def waits_for(self, wanted: float) -> str:
        """Return for what a task waits that has not got its GPUs."""
        return f"{wanted:g} of {len(self._devices)} GPUs wanted, too few are free"

    def _others(self) -> Iterator[dict[str, float]]:
        for path in self._folder.glob("*.json"):
            if not is_locked(path):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            with contextlib.suppress(OSError):
                yield from filter(None, [from_json(path.read_bytes(), dict[str, float])])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock on a file."""
    try:
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(opened)
