"""Files → one writable stretch of memory, without reading them where the system allows it.

On Linux the files are mapped next to each other, copy-on-write: nothing is read until it is touched, writing to the
memory never reaches a file, and only the pages that are written take memory of their own. Elsewhere they are read.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ALIGNMENT = 2 << 20
"""The kernel maps the page cache in pieces of this size where the addresses allow it: twice as fast to touch."""

READ_BELOW = 256 << 10
"""A run of bytes this short is read: cheaper than a mapping and its page faults."""

READ_WRITE = 3  # PROT_READ | PROT_WRITE
HUGE_PAGES = 14  # MADV_HUGEPAGE
PRIVATE, FIXED, ANONYMOUS, NO_RESERVE = 0x02, 0x10, 0x20, 0x4000


class MapPiece(NamedTuple):
    """The next `length` bytes: those of a file, or zeros where `path` is None."""

    path: str | None
    length: int


def can_map() -> bool:
    """Return whether this system maps files next to each other."""
    return sys.platform == "linux"


def stitch(pieces: Sequence[MapPiece], *, mapped: bool = True) -> memoryview:
    """Return the bytes of pieces, one after another, as writable memory of this process's own.

    `mapped=False` reads them. Raise OSError when a file is missing, ValueError naming the file when its length is
    wrong.
    """
    total = sum(piece.length for piece in pieces)
    aligned = all(piece.length % mmap.PAGESIZE == 0 for piece in pieces[:-1])
    if mapped and can_map() and aligned and total >= READ_BELOW:
        try:
            return _map(pieces, total)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            # Too many mappings in this process (vm.max_map_count), or a file system that cannot map: read instead.
    return _read(pieces, total)


# ---------------------------------------------------------------- reading


def _read(pieces: Sequence[MapPiece], total: int) -> memoryview:
    if total == 0:
        return memoryview(bytearray())
    memory = memoryview(bytearray(total) if total < READ_BELOW else mmap.mmap(-1, total))
    start = 0
    for piece in pieces:
        if piece.path is not None:
            _read_into(piece, memory[start : start + piece.length])
        start += piece.length
    return memory


def _read_into(piece: MapPiece, memory: memoryview) -> None:
    with Path(str(piece.path)).open("rb", buffering=0) as file:
        check_length(piece, file.fileno())
        position = 0
        while position < piece.length:
            count = file.readinto(memory[position:])
            if not count:
                raise ValueError(f"{piece.path} ended early")
            position += count


def check_length(piece: MapPiece, descriptor: int) -> None:
    """Raise ValueError when an open file has another length than its piece: it was damaged after it was written."""
    length = os.fstat(descriptor).st_size
    if length != piece.length:
        raise ValueError(f"{piece.path} has {length:,} bytes instead of {piece.length:,}")


# ---------------------------------------------------------------- mapping


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


class _Reserved:
    """Addresses reserved for one stretch of memory; given back when nothing looks into it any more."""

    def __init__(self, length: int) -> None:
        self._unmap = _libc().munmap
        self._length = length + ALIGNMENT
        self._address = _mmap(None, self._length, PRIVATE | ANONYMOUS | NO_RESERVE, -1)
        self.start = -(-self._address // ALIGNMENT) * ALIGNMENT
        # Zeros that no file holds are read in large pages; a kernel without them says no, which changes nothing.
        _libc().madvise(self.start, length, HUGE_PAGES)

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            self._unmap(self._address, self._length)


def _mmap(address: int | None, length: int, flags: int, descriptor: int) -> int:
    start = _libc().mmap(address, length, READ_WRITE, flags, descriptor, 0)
    if start is None or start == ctypes.c_void_p(-1).value:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(start)


def _map(pieces: Sequence[MapPiece], total: int) -> memoryview:
    reserved = _Reserved(total)
    memory = (ctypes.c_ubyte * total).from_address(reserved.start)
    memory.owner = reserved  # type: ignore[attr-defined]  # views keep the array alive, the array keeps the mapping
    start = reserved.start
    for piece in pieces:
        if piece.path is not None:
            _map_file(piece, start)
        start += piece.length
    return memoryview(memory).cast("B")


def _map_file(piece: MapPiece, address: int) -> None:
    descriptor = os.open(str(piece.path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        check_length(piece, descriptor)
        _mmap(address, piece.length, PRIVATE | FIXED, descriptor)
    finally:
        os.close(descriptor)
