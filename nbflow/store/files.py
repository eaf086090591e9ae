"""Whole files ↔ segments: the way of a file to another machine, and back."""

from __future__ import annotations

from pathlib import Path

from nbflow.model import FileContent, Segment
from nbflow.store.artifacts import save_segment, segment_of
from nbflow.store.location import Store

PIECE = 16 << 20
"""Bytes of a file in one segment."""


def segments_of(path: Path, store: Store | None = None, start: int = 0) -> tuple[Segment, ...]:
    """Return the segments that a file consists of from a byte on, kept in a datastore if one is given."""
    segments = []
    with path.open("rb") as file:
        file.seek(start)
        while data := memoryview(file.read(PIECE)):
            segments.append(segment_of(data) if store is None else save_segment(store, data))
    return tuple(segments)


def content_of(store: Store, file: FileContent) -> bytes:
    """Return a file's bytes; DamagedError where the datastore lacks some of them."""
    return bytes(store.map_segments(file.segments)) if file.segments else b""
