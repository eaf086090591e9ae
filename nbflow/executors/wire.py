"""Frame messages between the driver, the process that forks tasks, and the tasks.

A frame is four bytes of length, big-endian, and that many bytes of msgpack. A task writes `TaskEvent`s, the last
one `Ended`; its supervisor passes them on unopened, between what it read from the raw descriptors.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from nbflow.jsonable import to_msgpack
from nbflow.model import TaskEvent, TaskSpec

LENGTH = struct.Struct(">I")
CHUNK = 1 << 16


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes between the driver and a supervisor."""


class SubmitTask(Message, frozen=True, tag="submit"):
    """Driver → supervisor: run this task; `spec` is a TaskSpec as msgpack, opened only by the task's process."""

    task: int
    spec: bytes
    timeout: float | None = None
    memory: int | None = None
    environment: dict[str, str] = {}  # its secrets: they are in no spec, which may be stored and shown
    hidden: dict[str, str] = {}  # secrets of other steps, which it does not get and must not show either


class CancelTask(Message, frozen=True, tag="cancel"):
    """Driver → supervisor: interrupt the task, end its whole tree after `grace` seconds."""

    task: int
    grace: float


class Close(Message, frozen=True, tag="close"):
    """Driver → supervisor: no more tasks will come; end when the running ones have ended."""


class Host(Message, frozen=True, tag="host"):
    """Driver → supervisor: fork a worker that runs one task after another; `task` is the worker's number."""

    task: int


class Give(Message, frozen=True, tag="give"):
    """Driver → supervisor: the worker's next tasks, `SubmitTask` frames as they go through its pipe."""

    task: int
    orders: bytes


class Recall(Message, frozen=True, tag="recall"):
    """Driver → supervisor: the worker ends before the next task that it was given."""

    task: int


class PreloadDone(Message, frozen=True, tag="ready"):
    """Supervisor → driver: imports are done; `unsafe` were left out because they start threads of their own."""

    pid: int
    unsafe: tuple[str, ...] = ()


class Born(Message, frozen=True, tag="born"):
    """Supervisor → driver: the task has this process, leader of a group of the same number."""

    task: int
    pid: int


class Frames(Message, frozen=True, tag="frames"):
    """Supervisor → driver: a piece of what the task wrote as frames."""

    task: int
    data: bytes


class Raw(Message, frozen=True, tag="raw"):
    """Supervisor → driver: a piece of what came through the task's descriptor 1 or 2."""

    task: int
    fd: int
    data: bytes


class Ending(Message, frozen=True, tag="ending"):
    """Supervisor → driver: the task is being ended; `why` is "timeout", "memory" or "cancelled"."""

    task: int
    why: str


class Gone(Message, frozen=True, tag="gone"):
    """Supervisor → driver: the task's process has ended; `status` as `os.waitstatus_to_exitcode` gives it."""

    task: int
    status: int


Order = SubmitTask | CancelTask | Close | Host | Give | Recall
Report = PreloadDone | Born | Frames | Raw | Ending | Gone


# Made at the first message: reading these types takes 5 ms, and a run that reuses everything sends none.
@cache
def _orders() -> msgspec.msgpack.Decoder[Order]:
    return msgspec.msgpack.Decoder(Order)


@cache
def _reports() -> msgspec.msgpack.Decoder[Report]:
    return msgspec.msgpack.Decoder(Report)


@cache
def _events() -> msgspec.msgpack.Decoder[TaskEvent]:
    return msgspec.msgpack.Decoder(TaskEvent)


@cache
def _specs() -> msgspec.msgpack.Decoder[TaskSpec]:
    return msgspec.msgpack.Decoder(TaskSpec)


def pack(value: Any) -> bytes:
    """Return the msgpack of a message, event or spec, without the length."""
    return to_msgpack(value)


def frame(value: Any) -> bytes:
    """Return the whole frame of a message, event or spec."""
    body = to_msgpack(value)
    return LENGTH.pack(len(body)) + body


def parse_order(body: bytes) -> Order:
    """Return what the driver asks for, from a frame's body."""
    return _orders().decode(body)


def parse_report(body: bytes) -> Report:
    """Return what a supervisor says, from a frame's body."""
    return _reports().decode(body)


def parse_event(body: bytes) -> TaskEvent:
    """Return the task's event, from a frame's body."""
    return _events().decode(body)


def parse_spec(body: bytes) -> TaskSpec:
    """Return the task's spec, from a frame's body."""
    return _specs().decode(body)


class Assembler:
    """The bodies of whole frames, put together from pieces of a byte stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece; return the bodies that are complete with it, in order."""
        self._buffer += data
        bodies: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer, at)
            end = at + LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[at + LENGTH.size : end]))
            at = end
        if at:
            del self._buffer[:at]
        return bodies


class FrameWriter:
    """Whole frames onto a blocking descriptor, one at a time whichever thread writes.

    `hold` is entered round each write: the task's process uses it to put an interrupt off, since half a frame
    would spoil everything after it. `before` runs first, with the lock held.
    """

    def __init__(self, fd: int, before: Callable[[], None] = lambda: None) -> None:
        self.fd = fd
        self._before = before
        self._lock = threading.Lock()

    def send(self, value: Any) -> None:
        """Send a message or event; raise OSError when the other end has gone."""
        data = memoryview(frame(value))
        with self._lock:
            self._before()
            while data:
                data = data[os.write(self.fd, data) :]


def read_frame(fd: int) -> bytes | None:
    """Return the body of the next frame of a blocking descriptor, None when it ended first."""
    head = _read(fd, LENGTH.size)
    return None if head is None else _read(fd, LENGTH.unpack(head)[0])


def _read(fd: int, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        piece = os.read(fd, min(length - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)
