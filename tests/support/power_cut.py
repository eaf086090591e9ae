"""Recorded system calls → what a disk may hold after a power cut: what was not synced is there, torn, or not there.

What POSIX promises and no more: a file's bytes stay once that file was synced, a name once its folder was. Names that
were not synced may stay each for itself, a move is one thing, and a file's bytes that were not synced may be empty, cut
or whole.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["nothing", "names", "torn", "mixed"]
MODES: tuple[Mode, ...] = ("nothing", "names", "torn", "mixed")
"""What stays of what was not synced: nothing, all names of empty files, of cut files, or anything."""


@dataclass
class File:
    """A file's bytes, how many of them have been synced, and when which were written: a line's place, their end."""

    data: bytes = b""
    synced: int = 0
    writes: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """One call; `at`: where its line begins."""

    at: int
    name: str
    place: str
    source: str = ""
    data: bytes = b""
    since: int = 0


def read_calls(log: Path) -> list[Call]:
    """The recording in; its calls in order out."""
    found: list[Call] = []
    at = 0
    for line in log.read_bytes().splitlines(keepends=True):
        told: dict[str, Any] = json.loads(line)
        data = base64.b64decode(told.get("data", ""))
        found.append(Call(at, told["call"], told["place"], told.get("source", ""), data, told.get("since", 0)))
        at += len(line)
    return found


@dataclass
class Disk:
    """The names on the disk: files, and None for folders."""

    names: dict[str, File | None] = field(default_factory=dict)

    def apply(self, call: Call, file: File | None) -> None:
        """One change of names has reached the disk."""
        match call.name:
            case "create" | "link":
                self.names[call.place] = file
            case "rename":
                self.names.pop(call.source, None)
                self.names[call.place] = file
            case "mkdir":
                self.names[call.place] = None
            case _:  # unlink, rmdir
                self.names.pop(call.place, None)


def _folder(place: str) -> str:
    return place.rpartition("/")[0]


def after_cut(calls: Sequence[Call], root: str, target: Path, mode: Mode, seed: int) -> None:
    """The calls until the power went, and the folder that they were about, in; what is left stands in `target`."""
    drawn = random.Random(seed)
    synced = {}  # folder -> the latest moment before which its names are on the disk
    for call in calls:
        if call.name == "fsync":
            synced[call.place] = max(synced.get(call.place, 0), call.since)
    live: dict[str, File] = {}
    disk = Disk({root: None})
    for call in calls:
        file: File | None = None
        match call.name:
            case "create":
                file = live[call.place] = File()
            case "write":
                file = live[call.place]
                file.data += call.data
                file.writes.append((call.at, len(file.data)))
                continue
            case "fsync":
                file = live.get(call.place)
                if file is not None:
                    known = [end for at, end in file.writes if at < call.since]
                    file.synced = max(file.synced, *known, 0)
                continue
            case "rename":
                file = live[call.place] = live.pop(call.source)
            case "link":
                file = live[call.place] = live[call.source]
            case "unlink":
                live.pop(call.place, None)
        kept = call.at < synced.get(_folder(call.place), 0)
        if kept or mode in ("names", "torn") or (mode == "mixed" and drawn.random() < 0.6):
            disk.apply(call, file)
    for place, file in sorted(disk.names.items()):
        parts = place[len(root) :].strip("/").split("/")
        above = [f"{root}/{'/'.join(parts[:depth])}" for depth in range(1, len(parts))]
        if not all(each in disk.names and disk.names[each] is None for each in above):
            continue  # the folder that names it is not there
        to = target / place[len(root) :].strip("/")
        if file is None:
            to.mkdir(parents=True, exist_ok=True)
        else:
            to.write_bytes(_left(file, mode, drawn))


def _left(file: File, mode: Mode, drawn: random.Random) -> bytes:
    rest = len(file.data) - file.synced
    if mode in ("nothing", "names") or not rest:
        return file.data[: file.synced]
    kind = drawn.randrange(4) if mode == "mixed" else 1
    if kind == 0:
        return file.data[: file.synced]
    if kind == 1:
        return file.data[: file.synced + drawn.randrange(rest)]
    if kind == 2:  # its length is known, its bytes are not there
        return file.data[: file.synced] + bytes(rest)
    return file.data
