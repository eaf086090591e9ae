"""What the driver and its desk on the box say to each other, as frames through one connection.

A desk lives as long as its connection. What it is asked may come a second time, after a cut: so nothing that it does
twice is done twice.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec

from nbflow.executors.remote.engine import WorkerState
from nbflow.executors.remote.probe import Question, WorkerFacts
from nbflow.executors.wire import Message
from nbflow.model import Segment

GREETING = b"nbflow desk: python "
"""Begins the line before the first frame; what the box prints above it, as some start-up files do, is skipped."""

PART = 1 << 20
"""Bytes of a segment in one frame at most: what else is said need not wait for the whole."""


class BoxFacts(Message, frozen=True, tag="box"):
    """Desk → driver, first of all: what the box is."""

    worker: WorkerFacts
    source: str  # what tells its nbflow's code from another one's
    cores: int
    gpus: int
    memory: int | None = None


class Reply(Message, frozen=True, tag="reply"):
    """Desk → driver: the answer to a request, or what is wrong and what to do about it."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""
    fix: str | None = None


class EventBytes(Message, frozen=True, tag="piece"):
    """Desk → driver: the next bytes of what a worker writes for whoever follows it."""

    worker: str
    offset: int
    data: bytes


class SegmentPart(Message, frozen=True, tag="segment"):
    """Either way: bytes of a segment in order; `is_last` with its end."""

    segment: Segment
    data: bytes
    is_last: bool


class AskLacking(Message, frozen=True, tag="lacking"):
    """Driver → desk: which of these segments has the box not? A list of hashes."""

    number: int
    segments: tuple[Segment, ...]


class AskFetch(Message, frozen=True, tag="fetch"):
    """Driver → desk: send these segments; the answer follows the last of them."""

    number: int
    segments: tuple[Segment, ...]


class AskFile(Message, frozen=True, tag="file"):
    """Driver → desk: what does this file of the box hold? Bytes, or None where there is none."""

    number: int
    path: str


class AskFacts(Message, frozen=True, tag="facts"):
    """Driver → desk: what are you, and what have you of some modules? WorkerFacts."""

    number: int
    question: Question


class BeginWorker(Message, frozen=True, tag="begin"):
    """Driver → desk: have a worker run the task of a spec.

    With `origin`, the spec and other `files` go into the box's own copy of the datastore of that name; without, the
    spec is a URL that the box reaches.
    """

    number: int
    worker: str
    spec: str
    origin: str = ""
    files: dict[str, bytes] = msgspec.field(default_factory=dict)
    gpu: float = 0.0


class FollowWorker(Message, frozen=True, tag="follow"):
    """Driver → desk: send what a worker writes, from this byte on."""

    worker: str
    offset: int


class AskState(Message, frozen=True, tag="look"):
    """Driver → desk: how do these workers stand? A mapping of `BoxState`s."""

    number: int
    workers: tuple[str, ...]


class StopWorker(Message, frozen=True, tag="stop"):
    """Driver → desk: interrupt a task, which has `grace` seconds to tidy up, or kill its worker at once."""

    number: int
    worker: str
    hard: bool
    grace: float = 0.0


class BoxState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a worker stands: `size` bytes are there to be followed; `is_alive` where it has lately given a sign of it."""

    state: WorkerState
    size: int = 0
    is_alive: bool = False


Request = AskLacking | AskFetch | AskFile | AskFacts | BeginWorker | FollowWorker | AskState | StopWorker | SegmentPart
Report = BoxFacts | Reply | EventBytes | SegmentPart

_T = TypeVar("_T")


@cache
def _requests() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


@cache
def _reports() -> msgspec.msgpack.Decoder[Report]:
    return msgspec.msgpack.Decoder(Report)


def parse_request(body: bytes) -> Request:
    """Return what the driver asks for, from a frame's body."""
    return _requests().decode(body)


def parse_box_report(body: bytes) -> Report:
    """Return what the desk says, from a frame's body."""
    return _reports().decode(body)


def packed(value: Any) -> msgspec.Raw:
    """Return a value as it stands in a reply."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


def unpacked(value: msgspec.Raw, kind: type[_T]) -> _T:
    """Return a reply's value."""
    return msgspec.msgpack.decode(bytes(value), type=kind)


def parts_of(segment: Segment, data: memoryview) -> list[SegmentPart]:
    """Return a segment's bytes as messages."""
    starts = range(0, max(data.nbytes, 1), PART)
    return [
        SegmentPart(segment, bytes(data[start : start + PART]), is_last=start + PART >= data.nbytes) for start in starts
    ]


class SegmentAssembler:
    """Whole segments from their parts."""

    def __init__(self) -> None:
        self._parts: dict[str, bytearray] = {}

    def add(self, part: SegmentPart) -> bytes | None:
        """Take the next part; return the segment's bytes with its last one."""
        data = self._parts.setdefault(part.segment.hash, bytearray())
        data += part.data
        return bytes(self._parts.pop(part.segment.hash)) if part.is_last else None
