"""Dumped values ↔ segments in the store and manifests: hashed first, written only if absent, mapped when loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import blake3

from nbflow.errors import DamagedError, OutdatedError
from nbflow.model import Buffer, DefinitionRef, Group, Manifest, Segment
from nbflow.store.location import Store
from nbflow.store.serialize.pickler import Dumped, Unstorable
from nbflow.store.serialize.pickler import load as unpickle
from nbflow.store.serialize.registry import Registry
from nbflow.store.verified import DIGEST, PARALLEL, hash_of

INLINE = 32 << 10
"""A group below this many bytes in all stands in the record itself."""

SEGMENT_MIN, SEGMENT_MAX = 1 << 20, 64 << 20
ZEROS = bytes(128 << 10)


def save(store: Store, dumped: Sequence[Dumped | Unstorable]) -> tuple[tuple[Group, ...], dict[str, Manifest]]:
    """Write dumped values and return their groups and one manifest for each name, once all bytes are in the store.

    Large values use a few threads for the time of the call: not for a process that will fork meanwhile.
    Raise StoreError where the bytes cannot be written.
    """
    return _groups_and_manifests(dumped, lambda piece: save_segment(store, piece))


def identify(dumped: Sequence[Dumped | Unstorable]) -> tuple[tuple[Group, ...], dict[str, Manifest]]:
    """Return the groups and manifests that `save` gives for dumped values, with their content ids; nothing is written.

    Large values use a few threads for the time of the call: not for a process that will fork meanwhile.
    """
    return _groups_and_manifests(dumped, segment_of)


def load(store: Store, groups: Sequence[Group], names: Iterable[str] | None, registry: Registry) -> dict[str, Any]:
    """Return the wanted names of groups (None: all) with their values; names of one group are loaded together, as one.

    This unpickles: UntrustedError where nobody has said to trust the store. Raise OutdatedError where a value needs a
    class whose cell was edited (it names the cell), DamagedError or StoreError where bytes are missing or damaged.
    """
    names_wanted = None if names is None else set(names)
    values: dict[str, Any] = {}
    for group in groups:
        if names_wanted is None or names_wanted.intersection(group.names):
            values.update(_load_group(store, group, registry))
    return values if names_wanted is None else {name: values[name] for name in values if name in names_wanted}


def segments_of(groups: Iterable[Group]) -> Iterator[str]:
    """Yield the hashes of all segments that groups consist of: they must be kept as long as the groups are."""
    return (segment.hash for segment in segments_in(groups))


def segments_in(groups: Iterable[Group]) -> Iterator[Segment]:
    """Return all segments that groups are made of; zeros have none."""
    for group in groups:
        for buffer in (group.stream, *group.buffers):
            yield from (segment for segment in buffer.segments if segment.hash)


def is_whole(store: Store, groups: Iterable[Group]) -> bool:
    """Return whether the datastore holds every segment that groups consist of."""
    return lost_of(store, groups) is None


def lost_of(store: Store, groups: Iterable[Group], *, verify: bool = False) -> str | None:
    """Return which segment of which names the datastore no longer holds as it was, None where it holds all.

    With `verify` those that this machine has neither written nor read are read; otherwise their length counts.
    """
    for group in groups:
        if not _is_itself(group):
            return f"what is stored of {', '.join(group.names)} is damaged"
        for segment in segments_in([group]):
            if not store.has_segment(segment, verify=verify):
                return f"segment {segment.hash} of {', '.join(group.names)} is missing or damaged"
    return None


def content_id(group: Group, name: str) -> str:
    """Return the id of a name's content: of a name alone that of its group, so that the name does not count."""
    return group.id if len(group.names) == 1 else hash_of(f"{group.id}\0{name}".encode())


# ---------------------------------------------------------------- saving

_Map = Callable[..., Iterable[Segment]]
_Keep = Callable[[memoryview], Segment]  # one segment's bytes -> the segment: hashed, or hashed and written


def _groups_and_manifests(
    dumped: Sequence[Dumped | Unstorable], keep: _Keep
) -> tuple[tuple[Group, ...], dict[str, Manifest]]:
    storable = [each for each in dumped if isinstance(each, Dumped)]
    large = sum(_size(each) for each in storable if _size(each) >= INLINE)
    if large < PARALLEL:
        groups = [_group(each, keep, map) for each in storable]
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "nbflow-save") as pool:
            groups = [_group(each, keep, pool.map) for each in storable]
    manifests = {
        name: _manifest(name, number, group, each)
        for number, (group, each) in enumerate(zip(groups, storable, strict=True))
        for name in group.names
    }
    manifests |= {each.name: _unstored_manifest(each) for each in dumped if isinstance(each, Unstorable)}
    return tuple(groups), manifests


def _size(dumped: Dumped) -> int:
    return len(dumped.stream) + sum(buffer.nbytes for buffer in dumped.buffers)


def _group(dumped: Dumped, keep: _Keep, mapper: _Map) -> Group:
    parts = [memoryview(dumped.stream), *dumped.buffers]
    if _size(dumped) < INLINE:
        buffers = [Buffer(length=part.nbytes, inline=bytes(part)) for part in parts]
    else:
        buffers = _buffers(parts, keep, mapper)
    return Group(
        id=_group_id(buffers, dumped.definitions),
        names=dumped.names,
        serializer="pickle",
        stream=buffers[0],
        buffers=tuple(buffers[1:]),
        definitions=dumped.definitions,
        free=dumped.free,
    )


def _buffers(parts: Sequence[memoryview], keep: _Keep, mapper: _Map) -> list[Buffer]:
    pieces: list[memoryview] = []
    counts = []
    for part in parts:
        length = segment_length(part.nbytes)
        cut = [part[start : start + length] for start in range(0, part.nbytes, length)]
        pieces.extend(cut)
        counts.append(len(cut))
    segments = iter(list(mapper(keep, pieces)))
    return [
        Buffer(length=part.nbytes, segments=tuple(next(segments) for _ in range(count)))
        for part, count in zip(parts, counts, strict=True)
    ]


def segment_length(nbytes: int) -> int:
    """Return how long a buffer's segments are, in bytes: a power of two, so that a buffer that grows shares them."""
    return min(max(1 << max(-(-nbytes // 64) - 1, 0).bit_length(), SEGMENT_MIN), SEGMENT_MAX)


def save_segment(store: Store, piece: memoryview) -> Segment:
    """Return the segment that holds these bytes, written unless the store has it; zeros are never written."""
    segment = segment_of(piece)
    if segment.hash and not store.has_segment(segment, verify=True):
        store.write_segment(segment, piece)
    return segment


def segment_of(piece: memoryview) -> Segment:
    """Return the segment that these bytes make; one of zeros alone has no hash, only a length."""
    return Segment(hash="" if is_zero(piece) else hash_of(piece), length=piece.nbytes)


def is_zero(piece: memoryview) -> bool:
    """Return whether bytes are all zero, which the first of them mostly answer."""
    if piece.nbytes < 4096 or piece[:64] != ZEROS[:64]:
        return False
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        whole = piece.nbytes // 8 * 8
        words = numpy.frombuffer(piece[:whole], dtype=numpy.int64)
        return not numpy.count_nonzero(words) and not any(piece[whole:])
    step = len(ZEROS)
    return all(piece[at : at + step].tobytes() == ZEROS[: piece.nbytes - at] for at in range(0, piece.nbytes, step))


def _group_id(buffers: Sequence[Buffer], definitions: Sequence[DefinitionRef]) -> str:
    digest = blake3.blake3(b"group")
    for buffer in buffers:
        digest.update(b"%d:" % buffer.length)
        if buffer.inline is not None:
            digest.update(buffer.inline)
        for segment in buffer.segments:
            digest.update(f"{segment.hash}+{segment.length};".encode())
    for definition in definitions:
        digest.update(f"|{definition.id}".encode())
    return f"b3:{digest.hexdigest(DIGEST)}"


def _is_itself(group: Group) -> bool:
    """Return whether a group's content agrees with its id: of inline values no segment's name tells."""
    return _group_id((group.stream, *group.buffers), group.definitions) == group.id


def _manifest(name: str, number: int, group: Group, dumped: Dumped) -> Manifest:
    about = dumped.described[name]
    return Manifest(
        name=name,
        type=about.type,
        group=number,
        content_id=content_id(group, name),
        nbytes=about.nbytes,
        shape=about.shape,
        preview=about.preview,
    )


def _unstored_manifest(failed: Unstorable) -> Manifest:
    about = failed.described
    return Manifest(
        name=failed.name,
        type=about.type,
        group=-1,
        nbytes=about.nbytes,
        shape=about.shape,
        preview=about.preview,
        error=failed.reason,
    )


# ---------------------------------------------------------------- loading


def _load_group(store: Store, group: Group, registry: Registry) -> dict[str, Any]:
    store.require_trust()
    for definition in group.definitions:
        if not registry.has(definition.id):
            raise registry.outdated(definition.id, definition.id.partition("@")[0], definition.cell)
    if not _is_itself(group):
        raise DamagedError(
            f"{', '.join(group.names)} cannot be loaded: what is stored of it is damaged in {store.url}",
            fix="run the step that made it again with --fresh STEP",
        )
    try:
        stream = _bytes_of(store, group.stream)
        return unpickle(stream, [_bytes_of(store, buffer) for buffer in group.buffers], registry, group.names)
    except OutdatedError as error:
        if error.cell is None:
            error.cell = next((each.cell for each in group.definitions if each.cell), None)
        raise
    except DamagedError as error:
        raise DamagedError(f"{', '.join(group.names)} cannot be loaded: {error.message}", fix=error.fix) from error


def _bytes_of(store: Store, buffer: Buffer) -> memoryview:
    if buffer.inline is not None:
        return memoryview(bytearray(buffer.inline))
    return store.map_segments(buffer.segments)
