"""Files of a task whose worker does not see the notebook's folder: on their way there, and back when it is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nbflow.engine.known_files import is_below
from nbflow.engine.reuse import OUTSIDE
from nbflow.model import FileContent, Finding, Frozen, Observations, Segment, TaskSpec
from nbflow.plain_files import write_whole
from nbflow.store.files import content_of, segments_of
from nbflow.store.location import Store

ADDED = "+"
"""What begins the mark of a file that was only added to."""


class WrittenFile(Frozen, frozen=True, kw_only=True):
    """What a task has left at a path below the notebook's folder, on its way back there."""

    path: str
    segments: tuple[Segment, ...] = ()
    is_added: bool = False  # to what the file held before
    is_folder: bool = False
    is_removed: bool = False


class SentFiles:
    """The files of one notebook's folder as they go to workers: each is read once as long as it stays as it is."""

    def __init__(self) -> None:
        self._segments: dict[tuple[str, str, int, int, int], tuple[Segment, ...]] = {}

    def packed(self, store: Store, folder: str, paths: Iterable[str]) -> tuple[FileContent, ...]:
        """Return files below a folder, which are in the datastore then; those that are gone are left out."""
        files = []
        for path in paths:
            place = Path(folder) / path
            try:
                status = place.stat()
                key = store.url, str(place), status.st_mtime_ns, status.st_size, status.st_ino
                known = self._segments.get(key)
                if known is None or not all(store.has_segment(each) for each in known if each.hash):  # gc takes some
                    self._segments[key] = segments_of(place, store)
            except OSError:
                continue
            files.append(FileContent(path=path, segments=self._segments[key], modified=status.st_mtime_ns))
        return tuple(files)


def unpack(store: Store, folder: str, files: Sequence[FileContent]) -> None:
    """Write files that were sent into a folder."""
    for file in files:
        if is_below(file.path):
            target = Path(folder) / file.path
            write_whole(target, content_of(store, file))
            os.utime(target, ns=(file.modified, file.modified))


def pack(
    store: Store, folder: str, written: Mapping[str, str], sent: Sequence[FileContent] = ()
) -> tuple[WrittenFile, ...]:
    """Store what a task has left in a folder of its own, in which nothing but what was `sent` stood before.

    `written` is what it was seen to write. What compiled code has written nobody has seen, but there it is.
    """
    before = {file.path: file for file in sent}
    files = []
    for path in _left_in(Path(folder)):
        place, mark, old = Path(folder) / path, written.get(path, ""), before.get(path)
        if place.is_dir():
            files.append(WrittenFile(path=path, is_folder=True))
        elif path in written or old is None or place.stat().st_mtime_ns != old.modified:
            is_added = mark.startswith(ADDED)
            start = sum(segment.length for segment in old.segments) if is_added and old is not None else 0
            files.append(WrittenFile(path=path, segments=segments_of(place, store, start), is_added=is_added))
    gone = (path for path in before if not (Path(folder) / path).exists())
    return (*files, *(WrittenFile(path=path, is_removed=True) for path in gone))


def _left_in(folder: Path) -> Iterator[str]:
    """Yield the files in a folder and the empty folders, without what Python keeps of modules."""
    for place in sorted(folder.rglob("*")):
        path = place.relative_to(folder)
        if "__pycache__" not in path.parts and (place.is_file() or (place.is_dir() and not any(place.iterdir()))):
            yield path.as_posix()


def place(store: Store, folder: str, files: Sequence[WrittenFile]) -> None:
    """Put what a task has left into the notebook's folder: files whole, or added to the end of what is there."""
    for each in files:
        target = Path(folder) / each.path
        if not is_below(each.path) or not Path(folder).is_dir():
            continue
        if each.is_removed:
            target.unlink(missing_ok=True)
        elif each.is_folder:
            target.mkdir(parents=True, exist_ok=True)
        else:
            before = target.read_bytes() if each.is_added and target.is_file() else b""
            write_whole(target, before + content_of(store, FileContent(path=each.path, segments=each.segments)))


def left_there(spec: TaskSpec, host: str, written: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return a finding for files beyond the notebook's folder: nobody brings them back."""
    paths = [path for path, mark in written.items() if mark and not is_below(path)]
    if not paths:
        return ()
    names = ", ".join(paths[:3]) + (" and others" if len(paths) > 3 else "")
    return (Finding(
        code="file-elsewhere", step=spec.step, cell=spec.cell, message=f"written on {host}, and stays there: {names}",
        fix="write below the notebook's folder, or to a URL that both machines reach",
    ),)  # fmt: skip


def has_effect(seen: Observations) -> bool:
    """Return whether a task has done anything beyond a folder of its own, which nobody else has seen."""
    return any(not is_below(path) for path in seen.written) or not OUTSIDE.isdisjoint(seen.volatile)
