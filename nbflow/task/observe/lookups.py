"""What no audit event tells: variables looked up, and files and folders asked for without being opened."""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

FOLDER = "folder"
SEEN = "file of "
ADDED = "+"
"""Before the id of a file that was only added to."""


def watch_environment(read: Callable[[str, str | None], None], written: Callable[[str], object]) -> Callable[[], None]:
    """Call back for each variable looked up, and for each one set or deleted; return what ends the watch."""
    kind = type(os.environ)
    originals = {name: kind.__dict__[name] for name in ("__getitem__", "__setitem__", "__delitem__", "__iter__")}
    # variables that an iteration over all of them has named: looked up next and in that order, they are being copied
    copied: collections.deque[Any] = collections.deque()

    def get(self: Any, key: Any) -> Any:
        try:
            value = originals["__getitem__"](self, key)
        except KeyError:
            if isinstance(key, str):
                read(key, None)
            raise
        if copied and copied[0] == key:
            copied.popleft()
            return value
        copied.clear()
        if isinstance(key, str):
            read(key, value)
        return value

    def put(self: Any, key: Any, value: Any) -> None:
        originals["__setitem__"](self, key, value)
        written(key)

    def remove(self: Any, key: Any) -> None:
        originals["__delitem__"](self, key)
        written(key)

    def iterate(self: Any) -> Iterator[Any]:
        copied.clear()
        for key in originals["__iter__"](self):
            copied.append(key)
            yield key

    for name, method in (("__getitem__", get), ("__setitem__", put), ("__delitem__", remove), ("__iter__", iterate)):
        setattr(kind, name, method)

    def end() -> None:
        for name, method in originals.items():
            setattr(kind, name, method)

    return end


def watch_looks(looked: Callable[[Any, str | None], None]) -> Callable[[], None]:
    """Call back with each path asked for and what is there, None for nothing; return what ends the watch.

    `exists`, `is_file`, `getsize` and their like all end in `os.stat`.
    """
    original = os.stat

    def look(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        try:
            status = original(path, *arguments, **options)
        except FileNotFoundError:
            looked(path, None)
            raise
        looked(path, seen_as(status))
        return status

    os.stat = look

    def end() -> None:
        os.stat = original

    return end


def seen_as(status: os.stat_result) -> str:
    """Return what those see of a path who ask `os.stat` about it and do not open it."""
    return FOLDER if stat.S_ISDIR(status.st_mode) else f"{SEEN}{status.st_size} bytes"
