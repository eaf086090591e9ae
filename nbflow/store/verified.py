"""Segments that were read on this machine and are what their names say, or are not: known again by how they look.

A look is a file's size, time and place on the disk: as long as those stand, its bytes need not be read again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import blake3

from nbflow.store.index_file import IndexFile

DIGEST = 20

PARALLEL = 8 << 20
"""From this many bytes on several threads hash and write."""

ASKED_AT_ONCE = 500
"""Segments in one question to the index."""


FEW = 4
"""Questions of a process that are answered one by one."""

MOST = 100_000
"""Marks that a process keeps at most without having asked for each."""


class Look(NamedTuple):
    """A file as it stands: its length, and all that tells it from another one."""

    size: int
    stamp: str


class SegmentMark(NamedTuple):
    """What was found when a segment was read: how it looked then, and whether it was whole."""

    stamp: str
    whole: bool


def hash_of(data: bytes | memoryview) -> str:
    """Return the hash of bytes as `algo:hex`."""
    return f"b3:{blake3.blake3(data).hexdigest(DIGEST)}"


def hashes_of(pieces: Sequence[bytes | memoryview]) -> list[str]:
    """Return the hash of each piece; many bytes are hashed by a few threads."""
    if len(pieces) < 2 or sum(memoryview(piece).nbytes for piece in pieces) < PARALLEL:
        return [hash_of(piece) for piece in pieces]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "nbflow-verify") as pool:
        return list(pool.map(hash_of, pieces))


class Verified:
    """The marks of one place's segments: in memory, and in the user's index for other processes and later ones."""

    def __init__(self, url: str) -> None:
        self._file = IndexFile(url)
        self._marks: dict[str, SegmentMark] = {}
        self._questions = 0
        self._loaded = float("-inf")
        self._is_large = False

    def marks(self, looks: Mapping[str, Look]) -> dict[str, SegmentMark]:
        """Return what is known of these segments; the index is asked where memory does not know them as they look."""
        unknown = [name for name, look in looks.items() if self._stamp(name) != look.stamp]
        if unknown:
            self._learn(unknown)
        return {name: self._marks[name] for name in looks if name in self._marks}

    def put(self, marks: Mapping[str, SegmentMark]) -> None:
        """Remember what was found."""
        self._marks.update(marks)
        rows = [(name, mark.stamp, mark.whole) for name, mark in marks.items()]
        self._file.use(lambda db: db.executemany("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", rows), None)

    def _stamp(self, name: str) -> str:
        return self._marks[name].stamp if name in self._marks else ""

    def _learn(self, names: Sequence[str]) -> None:
        """Ask the index for some segments; who asks often, as a run's look-ups do, gets all, once a second at most."""
        self._questions += 1
        if self._questions > FEW and not self._is_large:
            if time.monotonic() - self._loaded > 1.0:
                self._load()
            return
        for start in range(0, len(names), ASKED_AT_ONCE):
            self._ask(names[start : start + ASKED_AT_ONCE])

    def _load(self) -> None:
        query = f"SELECT * FROM segments LIMIT {MOST}"  # noqa: S608  # constant text
        self._is_large = self._take(query) == MOST
        self._loaded = time.monotonic()

    def _ask(self, names: Iterable[str]) -> None:
        hashes = tuple(names)
        query = f"SELECT * FROM segments WHERE hash IN ({', '.join('?' for _ in hashes)})"  # noqa: S608  # constant text
        self._take(query, hashes)

    def _take(self, query: str, values: tuple[str, ...] = ()) -> int:
        """Take the rows that answer a question into memory, and return how many there are."""
        rows: list[tuple[str, str, int]] = self._file.use(lambda db: db.execute(query, values).fetchall(), [])
        self._marks.update((name, SegmentMark(stamp, bool(whole))) for name, stamp, whole in rows)
        return len(rows)
