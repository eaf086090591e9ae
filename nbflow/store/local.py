"""A datastore in a folder of this machine, by plain system calls.

The folder itself, and its own folders right below it, may be links, to a larger disk for instance. Below those nothing
but folders and plain files counts: a link, a fifo, a socket or a device is neither listed nor read. Nothing is ever
deleted through a link: whoever plants one leads no clean-up elsewhere.

What outlives a power cut is in the order in which one refers to the other: segments before the records that name them,
records before the events that tell of them (`settle`). A file whose loss would leave others without meaning is synced
before it bears its name.
"""
# ruff: noqa: PTH103, PTH105, PTH106, PTH108, PTH110, PTH116, PTH120
# pathlib costs as much as the calls that it wraps, and every small artifact would pay.

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from nbflow.errors import NotFoundError, StoreError
from nbflow.model import Segment
from nbflow.plain_files import TEMPORARY
from nbflow.store.interface import (
    ABOUT,
    FULL,
    REFUSED,
    Entries,
    FileEntry,
    Names,
    Store,
    check_path,
    is_safe,
    segment_path,
)
from nbflow.store.memory_map import MapPiece, stitch
from nbflow.store.syncing import OLD, boot, syncing_of
from nbflow.store.verified import Look, SegmentMark, hashes_of

NEW = 600.0
"""Seconds in which a segment counts as new by itself: well below what a clean-up leaves alone."""

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR})
"""What a system says where no file lies, or something that is none: a folder, a link, a socket."""

UNREADABLE = ABSENT | {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
"""What it says of one file that nobody can read: the store beside it is none the worse."""

DEEPEST = 16
"""Folders below each other in which files are looked for; a datastore's own are half as many."""

FOLDERS = frozenset({"segments", "results", "claims", "facts", "flows"})
"""The folders of a datastore."""

SETTLED = "results/"
"""What `settle` settles without being told: records, of which events tell."""

BY_DESCRIPTOR = {os.open, os.unlink, os.rmdir} <= os.supports_dir_fd
"""Whether this system opens and removes below an opened folder."""

READING = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"):  # the last one: a fifo must not make it wait
    READING |= getattr(os, _flag, 0)


class LocalStore(Store):
    """A folder of this machine."""

    def __init__(self, folder: str, *, mapped: bool = True, bare: bool = False) -> None:
        """Take a folder, which may not exist yet; a `bare` one holds segments only, without an `nbflow.json`."""
        super().__init__(folder, mapped=mapped)
        self._ready = bare
        self._folder = folder
        self._counter = itertools.count()
        self._token = secrets.token_hex(4)
        self._syncing = syncing_of(folder)

    def local_path(self, path: str) -> str | None:
        """Return the file's place in the folder."""
        return self._place(path)

    def _place(self, path: str) -> str:
        return f"{self._folder}/{check_path(path)}"

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        try:
            data = _read_file(self._place(path))
        except OSError as error:
            if error.errno not in ABSENT:
                raise self.trouble("read from", error, path) from error
            data = None
        if data is None:
            raise NotFoundError(f"{path} is not in the datastore {self.url}")
        return data

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those files that there are and that can be read."""
        contents = {}
        for path in paths:
            try:
                data = _read_file(self._place(path))
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise self.trouble("read from", error, path) from error
                continue
            if data is not None:
                contents[path] = data
        return contents

    def size(self, path: str) -> int | None:
        """Return a file's length in bytes, None when there is no such file."""
        try:
            about = os.lstat(self._place(path))
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise self.trouble("read from", error, path) from error
        return about.st_size if stat.S_ISREG(about.st_mode) else None

    def _put(self, path: str, data: bytes | memoryview) -> None:
        final = self._place(path)
        try:
            temporary = self._write_beside(final, data)
            try:
                os.replace(temporary, final)
            except OSError:
                _unlink(temporary)
                raise
            self._written(path)
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
            self._written(path)
            return True
        except OSError as error:
            raise self.trouble("write to", error, path) from error

    def _written(self, path: str) -> None:
        if _is_vital(path):
            self._syncing.settle([path])
        elif path.startswith(SETTLED):
            self._syncing.note(path)

    def settle(self, paths: Sequence[str] = ()) -> bool:
        """Return when these files, or all results that this process has written, outlive a power cut."""
        try:
            return self._syncing.settle([*map(check_path, paths)]) if paths else self._syncing.settle_noted()
        except OSError as error:
            raise self.trouble("write to", error) from error

    def creates_once(self) -> bool:
        """Return True: of several processes only one can make a link, or a mark."""
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
            if _is_vital(final[len(self._folder) + 1 :]):
                self._syncing.sync([temporary])
        except BaseException:  # a full disk, an interrupt: no torn file is left, whatever broke it off
            _unlink(temporary)
            raise
        return temporary

    def list(self, prefix: str) -> Entries:
        """Return every file below a folder."""
        entries: Entries = []
        pending = [(self._place(prefix) if prefix else self._folder, prefix)]
        while pending:
            folder, at = pending.pop()
            for item, is_folder in self._scan(folder, at):
                path = f"{at}/{item.name}" if at else item.name
                if not is_folder:
                    try:
                        about = item.stat(follow_symlinks=False)
                    except FileNotFoundError:  # removed meanwhile
                        continue
                    entries.append(FileEntry(path, about.st_size, about.st_mtime))
                elif path.count("/") < DEEPEST:
                    pending.append((item.path, path))
        return sorted(entries)

    def _scan(self, folder: str, prefix: str) -> Iterator[tuple[os.DirEntry[str], bool]]:
        """Yield the plain files and folders right below a folder, each with whether it is a folder."""
        if "/" in prefix and _is_beyond_link(self._folder, prefix):
            return
        try:
            with os.scandir(folder) as items:
                for item in items:
                    if item.name.startswith(TEMPORARY) or not is_safe(item.name):
                        continue
                    is_folder = item.is_dir(follow_symlinks=not prefix and item.name in FOLDERS)
                    if is_folder or item.is_file(follow_symlinks=False):
                        yield item, is_folder
        except OSError as error:
            if error.errno not in ABSENT:
                raise self.trouble("read from", error) from error

    def children(self, prefix: str) -> Names:
        """Return the names right below a folder."""
        return sorted(item.name for item, _ in self._scan(self._place(prefix) if prefix else self._folder, prefix))

    def linked(self) -> Names:
        """Return which of a datastore's folders are links: they are read through, and nothing is deleted in them."""
        try:
            with os.scandir(self._folder) as items:
                return sorted(item.name for item in items if item.name in FOLDERS and item.is_symlink())
        except OSError as error:
            if error.errno not in ABSENT:
                raise self.trouble("read from", error) from error
            return []

    def delete(self, path: str) -> None:
        """Remove a file, if there is one, and the folders that are empty now; StoreError where a link is in the way."""
        *folders, name = check_path(path).split("/")
        try:
            with _Descent(self._folder, folders) as descent:
                descent.remove(name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in ABSENT:
                raise StoreError(
                    f"cannot delete {path} in the datastore {self.url}: a folder above it is a link, or no folder",
                    fix="remove the link; nothing is deleted through one",
                ) from error
            raise self.trouble("write to", error, path) from error

    def look(self, path: str) -> Look | None:
        """Return how a file stands, None where there is none that can be read."""
        place = self._place(path)
        try:
            about = os.lstat(place)
        except OSError:
            return None
        if not stat.S_ISREG(about.st_mode) or not os.access(place, os.R_OK):
            return None
        # what was found before a power cut says nothing of what had not been synced
        start = boot()
        word = f" {start.id}" if about.st_mtime > start.at - OLD else ""
        return Look(about.st_size, f"{about.st_size} {about.st_mtime_ns} {about.st_ino}{word}")

    def has_segment(self, segment: Segment, *, verify: bool = False) -> bool:
        """Return whether the store holds a segment; if so it counts as new, so that no clean-up takes it now."""
        return super().has_segment(segment, verify=verify) and self._renew(segment.hash)

    def _renew(self, name: str) -> bool:
        """Give a segment the time of now, unless it is new; return whether it is there and ours to touch."""
        path = segment_path(name)
        place = self._place(path)
        try:
            if time.time() - os.stat(place).st_mtime < NEW:
                return True
            before = self.look(path)
            os.utime(place)
        except OSError:  # absent, or not ours to touch: written again, or found unreadable then
            return False
        after = self.look(path)
        if before is not None and after is not None:
            mark = self.verified.marks({name: before}).get(name)
            if mark is not None and mark.stamp == before.stamp:
                self.verified.put({name: SegmentMark(after.stamp, mark.whole)})
        return True

    def map_segments(self, segments: Sequence[Segment]) -> memoryview:
        """Return the bytes of segments in a row, each hashed where this machine has not done so since it was written.

        They are hashed as they are mapped: what is given out is what was verified, and it is in memory then.
        """
        looks = {each.hash: self._look_at(each) for each in segments if each.hash}
        marks = self.verified.marks(looks)
        pieces = [MapPiece(self._place(segment_path(s.hash)) if s.hash else None, s.length) for s in segments]
        try:
            memory = stitch(pieces, mapped=self.mapped)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            if isinstance(error, OSError) and number not in UNREADABLE:
                raise self.trouble("read from", error) from error
            lost = next((each for each in segments if each.hash and self.look(segment_path(each.hash)) is None), None)
            raise self.broken(lost or segments[0], "is missing" if lost else f"cannot be read ({error})") from error
        new: dict[str, memoryview] = {}
        start = 0
        for segment in segments:
            mark = marks.get(segment.hash)
            if segment.hash and (mark is None or mark != SegmentMark(looks[segment.hash].stamp, whole=True)):
                new[segment.hash] = memory[start : start + segment.length]
            start += segment.length
        if new:
            self._check(segments, new, looks)
        return memory

    def _look_at(self, segment: Segment) -> Look:
        path = segment_path(segment.hash)
        look = self.look(path)
        if look is None:
            raise self.broken(segment, "cannot be read" if os.path.lexists(self._place(path)) else "is missing")
        if look.size != segment.length:
            raise self.broken(segment, f"is damaged: {look.size:,} bytes instead of {segment.length:,}")
        return look

    def _check(self, segments: Sequence[Segment], new: Mapping[str, memoryview], looks: Mapping[str, Look]) -> None:
        """Hash what was mapped for the first time; raise DamagedError where a segment is not what its name says."""
        hashes = dict(zip(new, hashes_of(list(new.values())), strict=True))
        self.verified.put({name: SegmentMark(looks[name].stamp, name == is_now) for name, is_now in hashes.items()})
        damaged = next((each for each in segments if each.hash in hashes and hashes[each.hash] != each.hash), None)
        if damaged is not None:
            raise self.broken(damaged, "is damaged: its bytes are not what they were")

    def remove_temporary(self, older_than: float) -> int:
        """Remove what killed writers left before a time (seconds since 1970), and return how many files that were."""
        count = 0
        for folder, names in _left_overs(self._folder, older_than):
            try:
                with _Descent(self._folder, folder) as descent:
                    for name in names:
                        descent.unlink(name)
                        count += 1
            except OSError:  # removed meanwhile, or not ours
                continue
        return count


class _Descent:
    """The folders from a datastore's own down to one in it, each opened below the one before: no link is followed.

    What is removed is removed in the folder that was opened, whatever has taken its name since.
    """

    def __init__(self, root: str, folders: Sequence[str]) -> None:
        self._root = root
        self._names = folders
        self._descriptors: list[int] = []
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        """Open them; an OSError of ABSENT where one is a link."""
        with ExitStack() as stack:
            if not BY_DESCRIPTOR:
                place = self._root
                for name in self._names:
                    place = f"{place}/{name}"
                    if not stat.S_ISDIR(os.lstat(place).st_mode):
                        raise NotADirectoryError(errno.ENOTDIR, "not a folder", place)
                return self
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            for name in ("", *self._names):
                here = self._descriptors[-1] if name else None
                opened = os.open(name or self._root, flags | (os.O_NOFOLLOW if name else 0), dir_fd=here)
                stack.callback(os.close, opened)
                self._descriptors.append(opened)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._opened.close()

    def unlink(self, name: str) -> None:
        """Remove a file of the last folder, if there is one."""
        try:
            if self._descriptors:
                os.unlink(name, dir_fd=self._descriptors[-1])
            else:
                os.unlink("/".join((self._root, *self._names, name)))
        except FileNotFoundError:
            return

    def remove(self, name: str) -> None:
        """Remove a file of the last folder, if there is one, and the folders that are empty now."""
        self.unlink(name)
        for depth in range(len(self._names), 0, -1):
            try:
                if self._descriptors:
                    os.rmdir(self._names[depth - 1], dir_fd=self._descriptors[depth - 1])
                else:
                    os.rmdir("/".join((self._root, *self._names[:depth])))
            except OSError:  # not empty: the usual case
                return


def _is_beyond_link(root: str, path: str) -> bool:
    """Return whether a folder of a path is a link; the first one may be."""
    first, *rest = path.split("/")
    place = f"{root}/{first}"
    for name in rest:
        place = f"{place}/{name}"
        try:
            if stat.S_ISLNK(os.lstat(place).st_mode):
                return True
        except OSError:
            return False
    return False


def _left_overs(root: str, older_than: float) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the folders of a datastore that hold temporary files from before a time, each with their names."""
    for folder, _, files in os.walk(root):  # links to folders are not followed
        names = []
        for name in files:
            if name.startswith(TEMPORARY):
                try:
                    about = os.lstat(f"{folder}/{name}")
                except OSError:  # removed meanwhile
                    continue
                if stat.S_ISREG(about.st_mode) and about.st_mtime < older_than:
                    names.append(name)
        if names:
            yield [part for part in folder[len(root) :].split("/") if part], names


def _read_file(place: str) -> bytes | None:
    """Return the bytes of a file, None where something lies there that is no file."""
    descriptor = os.open(place, READING)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _is_vital(path: str) -> bool:
    """Return whether a file is synced before it bears its name: it is written over, or nothing makes it again."""
    return path == ABOUT or path.startswith("claims/") or path.endswith("/flow.json")


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
    """Give a written file its name unless that is taken, and return whether it was free: the first to claim it wins."""
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
