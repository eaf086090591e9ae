"""A datastore in a folder of this machine, by plain system calls."""
# ruff: noqa: PTH103, PTH105, PTH106, PTH108, PTH110, PTH116, PTH120, PTH123
# pathlib costs as much as the calls that it wraps, and every small artifact would pay.

from __future__ import annotations

import errno
import itertools
import os
import secrets
from collections.abc import Iterator, Sequence

from nbflow.errors import NotFoundError
from nbflow.model import Segment
from nbflow.storage_interface import FULL, REFUSED, TEMPORARY, Entries, Entry, Names, Store, check_path, segment_path


class LocalStore(Store):
    """A folder of this machine."""

    def __init__(self, folder: str, *, mapped: bool = True, bare: bool = False) -> None:
        """`bare`: a folder of segments only, without an `nbflow.json`."""
        super().__init__(folder, mapped=mapped)
        self._ready = bare
        self._folder = folder
        self._counter = itertools.count()
        self._token = secrets.token_hex(4)

    def local_path(self, path: str) -> str | None:
        """A path in; the file's place in the folder out."""
        return self._place(path)

    def _place(self, path: str) -> str:
        return f"{self._folder}/{check_path(path)}"

    def read(self, path: str) -> bytes:
        """A path in, its bytes out."""
        try:
            with open(self._place(path), "rb", buffering=0) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"{path} is not in the datastore {self.url}") from error
        except OSError as error:
            raise self.trouble("read from", error, path) from error

    def size(self, path: str) -> int | None:
        """A path in; its length, None when there is none, out."""
        try:
            return os.stat(self._place(path)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.trouble("read from", error, path) from error

    def _put(self, path: str, data: bytes | memoryview) -> None:
        final = self._place(path)
        try:
            temporary = self._write_beside(final, data)
            try:
                os.replace(temporary, final)
            except OSError:
                _unlink(temporary)
                raise
        except OSError as error:
            raise self.trouble("write to", error, path) from error

    def _create(self, path: str, data: bytes | memoryview) -> bool:
        final = self._place(path)
        try:
            if os.path.exists(final):
                return False
            temporary = self._write_beside(final, data)
            try:
                os.link(temporary, final)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (FULL | REFUSED) - {errno.EPERM}:
                    raise
                return _claim(temporary, final)  # a file system without hard links
            finally:
                _unlink(temporary)
            return True
        except OSError as error:
            raise self.trouble("write to", error, path) from error

    def creates_once(self) -> bool:
        """True: a link, or a mark, can be made by one of them only."""
        return True

    def _write_beside(self, final: str, data: bytes | memoryview) -> str:
        folder = os.path.dirname(final)
        temporary = f"{folder}/{TEMPORARY}{self._token}-{os.getpid()}-{next(self._counter)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        descriptor = _open_new(temporary, flags)
        try:
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
        except BaseException:  # a full disk, an interrupt: no torn file is left, whatever broke it off
            _unlink(temporary)
            raise
        return temporary

    def list(self, prefix: str) -> Entries:
        """A folder in; every file below it out."""
        found: Entries = []
        self._walk(self._place(prefix) if prefix else self._folder, prefix, found)
        return sorted(found)

    def _walk(self, folder: str, prefix: str, found: Entries) -> None:
        for item in self._scan(folder):
            path = f"{prefix}/{item.name}" if prefix else item.name
            try:
                if item.is_dir(follow_symlinks=False):
                    self._walk(item.path, path, found)
                    continue
                about = item.stat()
            except FileNotFoundError:  # removed meanwhile
                continue
            found.append(Entry(path, about.st_size, about.st_mtime))

    def _scan(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as items:
                yield from (item for item in items if not item.name.startswith(TEMPORARY))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self.trouble("read from", error) from error

    def children(self, prefix: str) -> Names:
        """A folder in; the names right below it out."""
        return sorted(item.name for item in self._scan(self._place(prefix) if prefix else self._folder))

    def delete(self, path: str) -> None:
        """Remove a file, if there is one, and the folders that are empty now."""
        place = self._place(path)
        try:
            _unlink(place)
        except OSError as error:
            raise self.trouble("write to", error, path) from error
        for _ in range(path.count("/")):
            place = os.path.dirname(place)
            try:
                os.rmdir(place)
            except OSError:  # not empty: the usual case
                return

    def has_segment(self, segment: Segment) -> bool:
        """Whether the store holds that segment; if so it counts as new, so that no clean-up takes it now."""
        place = self._place(segment_path(segment.hash))
        try:
            if os.stat(place).st_size != segment.length:
                return False
            os.utime(place)
        except OSError:  # absent, or not ours to touch: written again, or found unreadable then
            return False
        return True

    def remove_temporary(self, older_than: float) -> int:
        """A time (seconds since 1970) in; how many left-overs of killed writers from before it were removed out."""
        count = 0
        for folder, _, files in os.walk(self._folder):
            for name in files:
                place = f"{folder}/{name}"
                if name.startswith(TEMPORARY) and os.stat(place).st_mtime < older_than:
                    _unlink(place)
                    count += 1
        return count

    def segment_files(self, segments: Sequence[Segment]) -> Names:
        """Segments in; their places in the folder out."""
        return [self._place(segment_path(segment.hash)) for segment in segments]


def _open_new(place: str, flags: int) -> int:
    for _ in range(3):  # a clean-up may remove the folder between making and using it
        try:
            return os.open(place, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), exist_ok=True)
    return os.open(place, flags, 0o666)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B") if data else memoryview(b"")
    while rest:
        rest = rest[os.write(descriptor, rest[: 8 << 20]) :]


def _claim(temporary: str, final: str) -> bool:
    """A written file and its name to be in; whether the name was free: the first of several to claim it wins."""
    folder, _, name = final.rpartition("/")
    mark = f"{folder}/{TEMPORARY}claim-{name}"
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    try:
        if os.path.exists(final):
            return False
        os.replace(temporary, final)
        return True
    finally:
        _unlink(mark)


def _unlink(place: str) -> None:
    try:
        os.unlink(place)
    except FileNotFoundError:
        return
