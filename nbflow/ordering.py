"""Steps that touch the same files → which of them have to be over before another may start. Pure.

A step that may write a file waits for every step above that touches it, and whoever touches it below waits for the
step. Files are told apart where their names are written out in the code.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from nbflow.effects import Files


@dataclass
class Touches:
    """The steps so far that touch files, in document order."""

    known: list[tuple[str, Files]] = field(default_factory=list)

    def add(self, step: str, files: Files, imports: Collection[str]) -> tuple[str, ...]:
        """A step, its files and the modules that it imports in; the steps above that it has to wait for out."""
        found = []
        for other, before in self.known:
            importing = not before.modules.isdisjoint(imports)
            if importing or ((files.writes or before.writes) and _meet(files, before)):
                found.append(other)
        if files.reads or files.writes:
            self.known.append((step, files))
        return tuple(found)


def _meet(one: Files, other: Files) -> bool:
    """Whether two pieces of code may touch one file."""
    if not (one.reads or one.writes) or not (other.reads or other.writes):
        return False
    if one.paths is None or other.paths is None:
        return True
    return any(_related(a, b) for a in one.paths for b in other.paths)


def _related(one: str, other: str) -> bool:
    """Whether two paths are the same, or one is a folder above the other."""
    short, long = sorted((_parts(one), _parts(other)), key=len)
    return long[: len(short)] == short


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
