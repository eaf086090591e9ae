"""Give a task standard streams: text becomes outputs, in exact order with what comes through descriptors 1 and 2."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

if sys.platform != "win32":
    import fcntl
    import termios

FLUSH_AT = 8192
"""Characters without a newline after which a stream emits what it has."""

DRAIN_SECONDS = 1.0

Emit = Callable[[dict[str, Any]], None]


class Interrupts:
    """SIGINT as KeyboardInterrupt, put off while a frame is being written."""

    def __init__(self) -> None:
        self._holds = 0
        self._pending = False

    def install(self) -> None:
        """Take SIGINT from now on, which whoever started this process may have blocked (Ray does); main thread only."""
        signal.signal(signal.SIGINT, self._arrive)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if self._holds:
            self._pending = True
        else:
            signal.default_int_handler(number, frame)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Put off an interrupt within the block; raise it at the block's end, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._pending and not self._holds:
                self._pending = False
                raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore interrupts from now on: the task's end is being written."""
        self._holds += 1

    def heed(self) -> bool:
        """Count interrupts again, as another task begins; return whether one has come meanwhile."""
        self._holds -= 1
        return self._pending


class PipesRead:
    """Waits until the supervisor has read what is in the pipes behind descriptors 1 and 2.

    Without this, text printed after a child's output could overtake it: they go through different pipes.
    """

    def __init__(self, fds: tuple[int, ...]) -> None:
        self._fds = fds
        self._room = bytearray(4)

    def __call__(self) -> None:
        """Return when the pipes are empty, at the latest after `DRAIN_SECONDS`."""
        deadline = 0.0
        while any(map(self._waiting, self._fds)):
            now = time.monotonic()
            deadline = deadline or now + DRAIN_SECONDS
            if now > deadline:
                return
            time.sleep(50e-6)

    def _waiting(self, fd: int) -> bool:
        if sys.platform == "win32":
            return False
        try:
            fcntl.ioctl(fd, termios.FIONREAD, self._room)
        except OSError:
            return False
        return any(self._room)


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a task: emits at each newline; nothing printed is lost with the process."""

    def __init__(self, name: str, fd: int, emit: Emit) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self._stream = name
        self._fd = fd
        self._emit = emit
        self._parts: list[str] = []
        self._size = 0
        self._lock = threading.RLock()
        self._home = os.getpid()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What cannot be encoded is replaced."""
        return "replace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return False."""
        return False

    def fileno(self) -> int:
        """Return the raw descriptor, for subprocesses."""
        return self._fd

    def write(self, text: str, /) -> int:
        """Write text and return its length; emit at a newline or beyond `FLUSH_AT` characters."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._home:
            # a process that the cell forked: frames are its parent's, the raw descriptor is everybody's
            _write_raw(self._fd, text)
            return len(text)
        with self._lock:
            self._parts.append(text)
            self._size += len(text)
            if "\n" in text or self._size > FLUSH_AT:
                self._send()
        return len(text)

    def flush(self) -> None:
        """Emit what has been written."""
        if os.getpid() == self._home:
            with self._lock:
                self._send()

    def _send(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            self._size = 0
            # lone surrogates cannot be sent as UTF-8
            text = text.encode("utf-8", "replace").decode("utf-8")
            if text:
                self._emit({"output_type": "stream", "name": self._stream, "text": text})


def _write_raw(fd: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "replace"))
    while data:
        data = data[os.write(fd, data) :]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Show nothing within the block of what reaches descriptors 1 and 2 or the streams.

    The streams stay the same objects: a logging handler made here must write to them afterwards.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        stream.flush()
    copies = [os.dup(fd) for fd in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    restore = [_hush(stream) for stream in streams]
    try:
        for fd in (1, 2):
            os.dup2(null, fd)
        yield
    finally:
        for put_back in restore:
            put_back()
        for fd, old in zip((1, 2), copies, strict=True):
            os.dup2(old, fd)
            os.close(old)
        os.close(null)


def _hush(stream: Any) -> Callable[[], None]:
    """Make a stream drop what is written; return what undoes that."""
    own = vars(stream).get("write") if hasattr(stream, "__dict__") else None

    def put_back() -> None:
        if own is None:
            del stream.write
        else:
            stream.write = own

    try:
        stream.write = len
    except AttributeError:  # one of Python's own, which writes to a descriptor: silent already
        return stream.flush  # type: ignore[no-any-return]
    return put_back
