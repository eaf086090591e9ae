"""Files that a step wrote where the notebook's folder is not seen → the notebook's folder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from nbflow.model import Finding, Frozen, Segment, TaskSpec
from nbflow.store.artifacts import save_segment
from nbflow.store.location import Store

ADDED = "+"
"""What begins the mark of a file that was only added to."""

PIECE = 16 << 20
"""Bytes of a file in one segment."""


class WrittenFile(Frozen, frozen=True, kw_only=True):
    """A file below the notebook's folder, on its way back there."""

    path: str
    segments: tuple[Segment, ...]
    is_added: bool = False  # to what the file held before


def pack(store: Store, folder: str, written: Mapping[str, str]) -> tuple[WrittenFile, ...]:
    """Store the files below a folder that a task has written, as its observations have them."""
    return tuple(
        WrittenFile(path=path, segments=_segments(store, Path(folder) / path), is_added=mark.startswith(ADDED))
        for path, mark in written.items()
        if _is_below(path) and (Path(folder) / path).is_file()
    )


def _segments(store: Store, path: Path) -> tuple[Segment, ...]:
    segments = []
    with path.open("rb") as file:
        while data := file.read(PIECE):
            segments.append(save_segment(store, memoryview(data)))
    return tuple(segments)


def _is_below(path: str) -> bool:
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts


def place(store: Store, folder: str, files: Sequence[WrittenFile]) -> None:
    """Write files into the notebook's folder: whole, or to the end of what is there."""
    for each in files:
        target = Path(folder) / each.path
        if not _is_below(each.path) or not Path(folder).is_dir():
            continue
        data = bytes(store.map_segments(each.segments)) if each.segments else b""
        if each.is_added and target.is_file():
            data = target.read_bytes() + data
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        temporary.write_bytes(data)
        temporary.replace(target)


def left_there(spec: TaskSpec, host: str, written: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return a finding for files beyond the notebook's folder: nobody brings them back."""
    paths = [path for path, mark in written.items() if mark and not _is_below(path)]
    if not paths:
        return ()
    names = ", ".join(paths[:3]) + (" and others" if len(paths) > 3 else "")
    return (Finding(
        code="file-elsewhere", step=spec.step, cell=spec.cell, message=f"written on {host}, and stays there: {names}",
        fix="write below the notebook's folder, or to a URL that both machines reach",
    ),)  # fmt: skip
