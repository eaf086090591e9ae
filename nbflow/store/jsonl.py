"""Lines of JSON that grow while a run lives ↔ small immutable files: one for each flush, one in all at the end.

Object stores have no append, and several processes write at the same time; so each writer puts files of its own,
`<writer>-<first>-<last>.jsonl`, and readers put the lines in order again.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from nbflow.errors import StoreError
from nbflow.store.interface import patiently
from nbflow.store.location import Store, name_of, safe_name

EVERY = 0.05
"""Seconds that a line waits for others before it is written."""

MOST = 256
"""Lines that are written at once without waiting."""

RESTS, LONGEST_REST = 9.0, 0.5
"""Lines wait so many times as long as settling took the last time, and at most so many seconds."""

COMPACT = 64
"""Files of one writer after which they are joined while it still writes."""

FULL_FILE = 4 << 20
"""A joined file of this many bytes is left as it is; later lines go into another one."""

SUFFIX = ".jsonl"
CHUNK_NAME = re.compile(r"(.+)-(\d+)-(\d+)\.jsonl")


class Chunk(NamedTuple):
    """One file of lines `first` to `last` of a writer."""

    writer: str
    first: int
    last: int
    path: str


class WriterFiles:
    """The files of one writer: one for each time that it writes, joined into larger ones."""

    def __init__(self, store: Store, folder: str, writer: str) -> None:
        self._store = store
        self._folder = folder
        self.settled = False
        """Whether what is joined outlives a power cut before its parts go."""
        self._writer = safe_name(writer)
        self._next = 0
        self._written: list[tuple[int, int, bytes]] = []

    def write(self, lines: Sequence[bytes]) -> None:
        """Write some lines, at least one, to a file of their own; raise StoreError when it cannot be written."""
        data = b"\n".join(lines) + b"\n"
        first, last = self._next, self._next + len(lines) - 1
        self._store.write(self._path(first, last), data)
        self._next = last + 1
        self._written.append((first, last, data))

    @property
    def are_many(self) -> bool:
        """Return whether it is time to join them while the writer goes on."""
        return len(self._written) >= COMPACT or sum(len(part[2]) for part in self._written) >= FULL_FILE

    def join(self) -> None:
        """Join what has been written; the whole stands before the parts go, so readers miss nothing."""
        if len(self._written) < 2:
            self._settle(self._written)
            return
        parts = self._written
        first, last = parts[0][0], parts[-1][1]
        data = b"".join(part[2] for part in parts)
        self._store.write(self._path(first, last), data)
        self._settle([(first, last, data)])
        self._written = [(first, last, data)] if len(data) < FULL_FILE else []
        for part in parts:
            self._store.delete(self._path(part[0], part[1]))

    def _settle(self, parts: Sequence[tuple[int, int, bytes]]) -> None:
        if self.settled and parts:
            self._store.settle([self._path(first, last) for first, last, _ in parts])

    def _path(self, first: int, last: int) -> str:
        return f"{self._folder}/{self._writer}-{first:08d}-{last:08d}{SUFFIX}"


class ChunkWriter:
    """Writes lines to files below `folder`, in a thread that starts with the first line.

    An error of that thread is raised at the next call; the lines are kept and tried again, so an outage loses nothing.
    A store that is away is waited for, five minutes at the end of a run. `writer` must be another one for each writer
    of the folder.

    With `settled`, lines tell of results and are written once those outlive a power cut. From the first result on the
    files that it names are settled too, and so are all lines at the end.
    """

    def __init__(
        self, store: Store, folder: str, writer: str, *, every: float = EVERY, settled: Sequence[str] | None = None
    ) -> None:
        self._store = store
        self._settled = settled
        self._folder = folder
        self._files = WriterFiles(store, folder, writer)
        self._every = every
        self._lines: list[bytes] = []
        self._error: StoreError | None = None
        self._closed = False
        self._rest = 0.0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._writing = threading.Lock()

    def put(self, line: bytes) -> None:
        """Take one line without its line end; written within about 50 ms. StoreError when an earlier write failed."""
        with self._changed:
            self._raise_error()
            if self._closed:
                raise StoreError(f"the writer of {self._folder} is closed")
            self._lines.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="nbflow-chunks", daemon=True)
                self._thread.start()
            if len(self._lines) in {1, MOST}:
                self._changed.notify_all()

    def flush(self) -> None:
        """Write everything put so far and return when it is in the store; raise StoreError when that fails."""
        with self._changed:
            self._error = None
        patiently(self._write)

    def close(self) -> None:
        """Flush, stop the thread and join this writer's files into one."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._changed:
            self._error = None
        patiently(self._write)
        try:
            self._join()
        except StoreError:
            return  # the parts are whole and stay; joining them only spares files

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while not self._closed:
            with self._changed:
                wait = max(self._every, self._rest)
                self._changed.wait_for(lambda: self._closed or (len(self._lines) >= MOST and not self._rest), wait)
                if not self._lines:
                    self._changed.wait_for(lambda: self._closed or bool(self._lines))
                    continue
            try:
                self._write()
                if self._files.are_many:
                    self._join()
            except StoreError as error:
                if not error.is_away:
                    with self._changed:
                        self._error = error
                time.sleep(self._every)

    def _write(self) -> None:
        with self._writing:
            with self._changed:
                lines = self._lines[:]
            if not lines:
                return
            began = time.monotonic()
            if self._settled is not None and self._store.settle() and not self._files.settled:
                self._store.settle(self._settled)
                self._files.settled = True
            # a disk that takes long for it is asked less often: what comes meanwhile is settled together
            self._rest = min(RESTS * (time.monotonic() - began), LONGEST_REST)
            self._files.write(lines)
            with self._changed:
                del self._lines[: len(lines)]

    def _join(self) -> None:
        with self._writing:
            self._files.join()


class ChunkReader:
    """Reads the lines of a folder of chunks, those that are new with each call."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._next: dict[str, int] = {}

    def new(self) -> list[tuple[str, int, bytes]]:
        """Return the lines since the last call as (writer, number, line), each writer's in order."""
        lines: list[tuple[str, int, bytes]] = []
        for patient in (True, True, True, False):
            chunks = self._wanted()
            if not chunks:
                break
            data = self._store.read_many([chunk.path for chunk in chunks])
            for chunk in chunks:
                # Files that their writer has just joined are gone; the joined one is found in the next round. What is
                # missing even then has been lost, and the rest is read without it.
                gap = self._next.get(chunk.writer, 0) < chunk.first
                if chunk.path in data and not (gap and patient):
                    self._take(chunk, data[chunk.path], lines)
        return lines

    def _take(self, chunk: Chunk, data: bytes, unread: list[tuple[str, int, bytes]]) -> None:
        start = self._next.get(chunk.writer, 0)
        lines = data.split(b"\n")[:-1]
        for number, line in enumerate(lines, chunk.first):
            if number >= start:
                unread.append((chunk.writer, number, line))
        self._next[chunk.writer] = max(start, chunk.last + 1)

    def _wanted(self) -> list[Chunk]:
        """Return the fewest chunks that hold all unread lines: joined files rather than their parts."""
        chunks = [chunk for name in self._store.children(self._folder) if (chunk := parse_name(self._folder, name))]
        needed: list[Chunk] = []
        reached: dict[str, int] = dict(self._next)
        for chunk in sorted(chunks, key=lambda each: (each.writer, each.first, -each.last)):
            if chunk.last >= reached.get(chunk.writer, 0):
                needed.append(chunk)
                reached[chunk.writer] = chunk.last + 1
        return needed


def parse_name(folder: str, name: str) -> Chunk | None:
    """Return the chunk that a file of a folder is, None when its name is none of a chunk."""
    match = CHUNK_NAME.fullmatch(name)
    if match is None:
        return None
    writer, first, last = match.groups()
    return Chunk(name_of(writer), int(first), int(last), f"{folder}/{name}")
