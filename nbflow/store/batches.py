"""Records of many small tasks in few files: one file a flush, joined into larger ones once it is quiet.

`results/batches/<code>/<run>.<writer>-<first>-<last>.jsonl`: a line is a record. A look-up that knows a step's code
reads the few files of that folder, whatever else the store holds; whoever knows an execution, and so its run, finds its
files by their names. A file appears whole or not at all; a line that is torn or foreign is no record.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import msgspec

from nbflow.errors import StoreError
from nbflow.jsonable import from_json
from nbflow.store.jsonl import MOST, SUFFIX, WriterFiles
from nbflow.store.location import LocalStore, Store, name_of, safe_name

FOLDER = "results/batches"

WAIT = 0.005
"""Seconds that a record waits for others before it is written."""

QUIET = 0.5
"""Seconds without a record after which the files are joined."""

SEEN_FOR = 1.0
"""Seconds that a listing of a store elsewhere counts as new."""

KEPT_BYTES = 64 << 20
"""Bytes of files that a reader keeps in memory."""

Then = Callable[[StoreError | None], None]
"""What is called once a record is in the store, or with what kept it out."""


class _Waiting(NamedTuple):
    """A record on its way."""

    code: str
    run: str
    line: bytes
    then: Then
    segments: Sequence[str]


class _Head(msgspec.Struct):
    """As much of a record as a reader looks at."""

    key: str
    execution: str


class _BatchFile(NamedTuple):
    """A batch in memory: its size, and the (execution, line) pairs of each key."""

    size: int
    by_key: dict[str, list[tuple[str, bytes]]]


class BatchWriter:
    """Writes records as lines of batch files, in a thread that lives while there is something to write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._files: dict[tuple[str, str], WriterFiles] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, code: str, run: str, line: bytes, then: Then, segments: Sequence[str] = ()) -> None:
        """Take a record of a step's code as one line of JSON; `then` is called in another thread once it is written.

        `segments` are the paths of the segments that it names: they are settled before.
        """
        with self._changed:
            self._waiting.append(_Waiting(code, run, line, then, segments))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="nbflow-batches", daemon=True)
                self._thread.start()
            if len(self._waiting) in {1, MOST}:
                self._changed.notify_all()

    def close(self) -> None:
        """Write everything that waits, join the files, and return when that is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting), QUIET)
                if self._waiting:
                    self._changed.wait_for(lambda: self._closed or len(self._waiting) >= MOST, WAIT)
                batch, self._waiting = self._waiting, []
            self._write(batch)
            if batch:
                continue
            for files in self._files.values():
                with suppress(StoreError):  # the parts are whole and stay; joining them only spares files
                    files.join()
            self._files.clear()  # what comes later is another writer's
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return

    def _write(self, batch: Sequence[_Waiting]) -> None:
        groups: dict[tuple[str, str], list[_Waiting]] = {}
        for each in batch:
            groups.setdefault((each.code, each.run), []).append(each)
        for (code, run), group in groups.items():
            if (code, run) not in self._files:
                writer = f"{run}.{secrets.token_hex(3)}"
                self._files[code, run] = files = WriterFiles(self._store, folder_of(code), writer)
                files.settled = True
            error: StoreError | None = None
            files = self._files[code, run]
            segments = [path for each in group for path in each.segments]
            try:
                if segments:
                    self._store.settle(segments)
                files.write([each.line for each in group])
            except StoreError as problem:
                error = problem
            for each in group:
                each.then(error)
            if files.are_many:
                with suppress(StoreError):
                    files.join()


# ---------------------------------------------------------------- read


class BatchReader:
    """A store's batches, each file read once; may be used by several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._contents: OrderedDict[str, _BatchFile] = OrderedDict()
        self._listed: dict[str, tuple[float, list[str]]] = {}  # a folder's files elsewhere, and when they were listed
        self._runs: dict[str, list[str]] = {}  # a run -> its files

    def find(self, code: str, key: str) -> list[bytes]:
        """Return the records of a task key's executions, as they were written, from the batches of its step's code."""
        with self._lock:
            files: list[_BatchFile] = []
            for _ in range(3):  # files that have just been joined are found again under another name
                paths = self._paths(folder_of(code))
                files = self._opened(paths)
                if len(files) == len(paths):
                    break
                self._listed.clear()
            return list({e: line for file in files for e, line in file.by_key.get(key, ())}.values())

    def known(self, key: str, execution: str) -> bytes | None:
        """Return an execution's record as it was written, None where no batch read so far holds it."""
        with self._lock:
            for file in self._opened(self._runs.get(execution.partition(".")[0], ())):
                for each, line in file.by_key.get(key, ()):
                    if each == execution:
                        return line
            return None

    def read(self, key: str, execution: str) -> bytes | None:
        """Return an execution's record as `known` does, after listing all batches of the store anew."""
        with self._lock:
            self._list_runs()
            return self.known(key, execution)

    def _paths(self, folder: str) -> list[str]:
        if isinstance(self._store, LocalStore):
            return _paths(folder, self._store.children(folder))
        at, paths = self._listed.get(folder, (0.0, []))
        if time.monotonic() - at > SEEN_FOR:
            paths = _paths(folder, self._store.children(folder))
            self._listed[folder] = (time.monotonic(), paths)
        return paths

    def _list_runs(self) -> None:
        self._runs = {}
        for entry in self._store.list(FOLDER):
            run = name_of(entry.path.rpartition("/")[2]).partition(".")[0]
            self._runs.setdefault(run, []).append(entry.path)

    def _opened(self, paths: Sequence[str]) -> list[_BatchFile]:
        """Return what files hold, without those that are gone or cannot be read."""
        missing = [path for path in paths if path not in self._contents]
        for path, data in self._store.read_many(missing).items() if missing else ():
            self._contents[path] = _parse(data)
        files = [self._contents[path] for path in paths if path in self._contents]
        for path in paths:
            if path in self._contents:
                self._contents.move_to_end(path)
        while len(self._contents) > len(paths) and sum(file.size for file in self._contents.values()) > KEPT_BYTES:
            self._contents.popitem(last=False)
        return files


@lru_cache(maxsize=16)  # a store that is used again has its files in memory
def reader_of(store: Store) -> BatchReader:
    """Return the reader of a store's batches: one for each store."""
    return BatchReader(store)


def lines_of(data: bytes) -> list[bytes]:
    """Return the records of a batch as they were written; a last line without its end is left out."""
    return data.split(b"\n")[:-1]


def is_batch(path: str) -> bool:
    """Return whether a file below `results` holds the records of several executions."""
    return path.startswith(f"{FOLDER}/")


def folder_of(code: str) -> str:
    """Return the folder of the batches of a step's code."""
    return f"{FOLDER}/{safe_name(code)}"


def _paths(folder: str, names: Iterable[str]) -> list[str]:
    return [f"{folder}/{name}" for name in names if name.endswith(SUFFIX)]


def _parse(data: bytes) -> _BatchFile:
    lines: dict[str, list[tuple[str, bytes]]] = {}
    for line in lines_of(data):
        head = from_json(line, _Head)
        if head is not None:
            lines.setdefault(head.key, []).append((head.execution, line))
    return _BatchFile(len(data), lines)
