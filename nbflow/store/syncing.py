"""What a process has written to a folder and what of it outlives a power cut: files, and the folders that name them.

Several are synced at once, which a journalling file system turns into one or two writes.
"""
# ruff: noqa: PTH120, PTH123
# Paths are text here, thousands a run.

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

OLD = 600.0
"""Seconds after which a system has written what it was given, synced or not (Linux: 30)."""

UNABLE = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR, errno.EPERM})
"""What a system says that cannot sync a file, or a folder, of this kind."""

TOGETHER = 8
"""Files that are synced at the same time."""


class Syncing:
    """What this process has written to a folder and not yet synced."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._any = False
        self._unsettled: dict[str, None] = {}
        self._lasting: set[tuple[str, int]] = set()  # folders whose names in the folders above are known to stay

    def note(self, path: str) -> None:
        """Keep in mind that a file has been written."""
        with self._lock:
            self._unsettled[path] = None

    def settle_noted(self) -> bool:
        """Settle the files that were noted, by whichever thread; return whether there have ever been any."""
        with self._settling:  # who comes while another one settles them waits for that
            with self._lock:
                pending, self._unsettled = self._unsettled, {}
            self._any = self._any or bool(pending)
            try:
                self.settle([*pending])
            except OSError:
                with self._lock:
                    self._unsettled = {**pending, **self._unsettled}
                raise
            return self._any

    def settle(self, paths: Sequence[str]) -> bool:
        """Return when files outlive a power cut under their names; the answer is whether any of them had to be synced.

        What is gone, or was written long ago, is done. Raise OSError when the system cannot.
        """
        young = [path for path in dict.fromkeys(paths) if self._is_young(path)]
        if not young:
            return False
        folders, lasting = self._folders_of(young)
        self.sync([*(f"{self._folder}/{path}" for path in young), *folders])
        self._lasting |= lasting
        return True

    def sync(self, places: Iterable[str]) -> None:
        """Sync files and folders, several at once."""
        targets = [*places]
        if len(targets) < 2:
            for place in targets:
                _sync(place)
            return
        with ThreadPoolExecutor(min(TOGETHER, len(targets)), "nbflow-sync") as pool:
            list(pool.map(_sync, targets))

    def _is_young(self, path: str) -> bool:
        try:
            about = os.lstat(f"{self._folder}/{path}")
        except OSError:  # removed, or joined with others
            return False
        return stat.S_ISREG(about.st_mode) and time.time() - about.st_mtime < OLD

    def _folders_of(self, paths: Iterable[str]) -> tuple[list[str], set[tuple[str, int]]]:
        """Return the folders that files are new in, and those whose own names stay once these are synced."""
        # A file's name stays once its folder is synced, the folder's own name once the folder above it is. The way up
        # ends at a folder that is known to stay, at an old one, and above the store.
        folders: dict[str, None] = {}
        lasting: set[tuple[str, int]] = set()
        for folder in dict.fromkeys(os.path.dirname(f"{self._folder}/{path}") for path in paths):
            place = folder
            while place not in folders:
                folders[place] = None
                about = os.lstat(place)
                mark = (place, about.st_ino)
                if mark in self._lasting or time.time() - about.st_ctime > OLD or len(place) < len(self._folder):
                    break
                lasting.add(mark)
                place = os.path.dirname(place)
        return [*folders], lasting


class Boot(NamedTuple):
    """When this system was started, and what tells that from other times."""

    id: str
    at: float


@lru_cache(maxsize=1)
def boot() -> Boot:
    """Return the last start of this system; of those that do not tell it nothing."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file, open("/proc/uptime") as ago:
            return Boot(file.read().strip()[:13], time.time() - float(ago.read().split()[0]))
    except (OSError, ValueError, IndexError):
        return Boot("", 0.0)


@lru_cache(maxsize=64)
def syncing_of(folder: str) -> Syncing:
    """Return what this process knows of a folder: one for all stores that are opened there."""
    return Syncing(folder)


def _sync(place: str) -> None:
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY | os.O_NONBLOCK
    try:
        descriptor = os.open(place, flags | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno in UNABLE:  # removed meanwhile; Windows opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    finally:
        os.close(descriptor)
