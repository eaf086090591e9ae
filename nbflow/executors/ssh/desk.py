"""The box's end of a connection: begins workers, says how they stand, passes on what they write, takes and gives bytes.

It ends with its connection; the workers do not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from nbflow.errors import NbflowError, StoreError
from nbflow.executors import wire
from nbflow.executors.remote import attempt_files, probe
from nbflow.executors.remote.engine import WorkerState
from nbflow.executors.remote.probe import Question
from nbflow.executors.ssh import box_worker, messages
from nbflow.executors.ssh.box_files import BoxFiles, OrderFiles, WorkerOrderFile, kind_of, new_token
from nbflow.executors.ssh.messages import (
    AskFacts,
    AskFetch,
    AskFile,
    AskLacking,
    AskState,
    BeginWorker,
    BoxFacts,
    BoxState,
    EventBytes,
    FollowWorker,
    Reply,
    Request,
    SegmentPart,
    StopWorker,
)
from nbflow.executors.ssh.own_source import source_id
from nbflow.model import Segment
from nbflow.plain_files import TEMPORARY
from nbflow.store.verified import hash_of
from nbflow.task import limits

TICK = 0.02
"""Seconds between two looks at what workers have written."""

ALIVE = 15.0
"""Seconds that a worker's last beat counts as a sign of life."""

FULL = 4 << 20
"""Bytes of free space below which a disk counts as full."""

LARGEST_FILE = 1 << 20


def main() -> None:
    """Serve the driver at the other end of standard input and output, which nothing else uses from now on."""
    out = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Desk(BoxFiles(), wire.FrameWriter(out)).serve(0)


class Desk:
    """What one driver is told, and what it has done here."""

    def __init__(self, box: BoxFiles, out: wire.FrameWriter) -> None:
        self._box = box
        self._out = out
        self._kind = kind_of()
        self._followed: dict[str, int] = {}  # workers -> bytes that have been passed on
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._segments = messages.SegmentAssembler()
        self._trouble: NbflowError | None = None  # of what came without a request

    def serve(self, source: int) -> None:
        """Do what is asked until the connection ends."""
        try:
            self._box.make()
        except OSError as error:
            raise SystemExit(f"{self._box.folder}: {error}") from error
        self._out.send(
            BoxFacts(
                worker=probe.own_facts(Question()),
                source=source_id(),
                cores=limits.cores(),
                gpus=len(limits.gpus()),
                memory=limits.memory(),
            )
        )
        threading.Thread(target=self._pass_on, name="nbflow desk", daemon=True).start()
        assembler = wire.Assembler()
        while data := os.read(source, 1 << 18):
            for body in assembler.feed(data):
                self._answer(messages.parse_request(body))

    def _answer(self, request: Request) -> None:
        number = getattr(request, "number", 0)
        try:
            value = self._do(request)
        except NbflowError as error:
            reply = Reply(number, error=error.message, fix=error.fix)
        except OSError as error:
            reply = Reply(number, error=self._trouble_of(error))
        else:
            reply = Reply(number, messages.packed(value))
        if number:
            self._out.send(reply)

    def _trouble_of(self, error: OSError) -> str:
        return self._full() or f"{self._box.folder}: {error}"

    def _do(self, request: Request) -> object:
        match request:
            case AskLacking(segments=segments):
                return self._lacking(segments)
            case SegmentPart():
                self._take(request)
            case AskFetch(segments=segments):
                self._give(segments)
            case AskFile(path=path):
                return _content(path)
            case AskFacts(question=question):
                return probe.own_facts(question)
            case BeginWorker():
                self._begin(request)
            case FollowWorker(worker=worker, offset=offset):
                self._follow(worker, offset)
            case AskState(workers=workers):
                return {worker: self._state(worker) for worker in workers}
            case StopWorker():
                self._stop(request)
        return None

    # ------------------------------------------------------------ segments

    def _lacking(self, segments: Sequence[Segment]) -> list[str]:
        store = self._box.segments()
        return [segment.hash for segment in segments if not store.has_segment(segment)]

    def _take(self, part: SegmentPart) -> None:
        data = self._segments.add(part)
        if data is None:
            return
        try:
            if hash_of(data) != part.segment.hash:
                raise StoreError(f"segment {part.segment.hash} has changed on its way here")
            self._box.segments().write_segment(part.segment, data)
        except NbflowError as error:
            self._trouble = self._trouble or error

    def _give(self, segments: Sequence[Segment]) -> None:
        store = self._box.segments()
        for segment in segments:
            for part in messages.parts_of(segment, store.map_segments([segment])):
                self._out.send(part)

    # ------------------------------------------------------------ workers

    def _begin(self, request: BeginWorker) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        order = self._box.order(request.worker)
        if order.read() is not None:  # asked before the connection was cut
            return
        spec = request.spec
        if request.origin:
            store = self._box.copy_of(request.origin)
            for path, data in request.files.items():
                store.write(path, data)
            spec = f"{store.url}/{request.spec}"
        latest = self._box.latest(spec)
        going = OrderFiles(latest)
        if going.read() is not None and going.ended() is None and self._box.is_alive(going.token()):
            order.folder.symlink_to(latest.resolve())  # its driver has ended: this one follows the same worker
            return
        order.write(WorkerOrderFile(spec, request.gpu, is_carried=bool(request.origin)))
        latest.unlink(missing_ok=True)
        latest.symlink_to(order.folder)
        self._hand_out(request.worker, order)

    def _hand_out(self, worker: str, order: OrderFiles) -> None:
        """Give an order to a worker that waits for one, or to a new one."""
        for path in self._box.idle.glob(f"{self._kind}-*"):
            taken = path.with_name(f"{TEMPORARY}{path.name}")
            try:
                path.rename(taken)  # of several desks one gets it
            except OSError:
                continue
            try:
                opened = os.open(taken, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # nobody reads: it has been killed
                continue
            finally:
                taken.unlink(missing_ok=True)
            order.give(path.name)
            with contextlib.suppress(OSError):
                os.write(opened, f"{worker}\n".encode())
            os.close(opened)
            return
        token = new_token()
        order.give(token)
        self._start(token, worker)

    def _start(self, token: str, worker: str) -> None:
        held = self._box.birth(token)
        try:
            with (self._box.folder / "workers.log").open("ab") as log:
                command = [sys.executable, "-P", "-m", box_worker.__name__, str(self._box.folder), token, worker]
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[held],
                )  # fmt: skip
            os.write(held, str(process.pid).encode())
        finally:
            os.close(held)

    def _state(self, worker: str) -> BoxState:
        files = self._box.order(worker)
        order = files.read()
        if order is None:
            return BoxState(WorkerState(state="lost", message="the box knows nothing of it: its cache was emptied"))
        end = files.ended()
        if end is None and not self._box.is_alive(files.token()):
            end = files.ended()  # it may have ended between the two looks
            if end is None:
                self._recover(order, files)
                message = self._full() or "its process was ended (killed, out of memory, or the box was started anew)"
                return BoxState(WorkerState(state="crashed", message=message), files.size())
        if end is not None:
            cancelled = end.trouble == "cancelled"
            state = WorkerState(state="cancelled" if cancelled else "done", message=end.trouble)
            return BoxState(state, files.size())
        reason = files.reason()
        if reason:
            return BoxState(WorkerState(state="waiting", message=reason), files.size())
        is_alive = order.is_carried and time.time() - _last_beat(order.spec) < ALIVE
        return BoxState(WorkerState(state="running"), files.size(), is_alive=is_alive)

    def _recover(self, order: WorkerOrderFile, files: OrderFiles) -> None:
        """Write down a result that a worker has published before it could say so: in a copy nobody else sees it."""
        if not order.is_carried:
            return
        with contextlib.suppress(NbflowError, OSError):
            result = attempt_files.read_spec(order.spec)[0].result()
            if result is not None:
                with files.events.open("ab", buffering=0) as events:
                    events.write(attempt_files.ended(result))

    def _full(self) -> str:
        free = shutil.disk_usage(self._box.folder).free
        return f"no space left on its disk: {free >> 10:,} KiB are free at {self._box.folder}" if free < FULL else ""

    def _stop(self, request: StopWorker) -> None:
        files = self._box.order(request.worker)
        order = files.read()
        token = files.token()
        if order is None or files.ended() is not None:
            return
        files.refuse()
        if order.is_carried and not request.hard:
            attempt_files.read_spec(order.spec)[0].ask_cancel(request.grace)
        if request.hard and self._box.is_alive(token):
            pid = _pid_of(self._box, token)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------ what workers write

    def _follow(self, worker: str, offset: int) -> None:
        with self._lock:
            self._followed[worker] = offset
        self._news.set()

    def _pass_on(self) -> None:
        """Send what workers write as they write it."""
        with contextlib.suppress(OSError):
            self._box.sweep()
        with contextlib.suppress(OSError):  # the connection has ended
            while True:
                with self._lock:
                    followed = dict(self._followed)
                if not followed:
                    self._news.wait()
                    self._news.clear()
                for worker, offset in followed.items():
                    self._pass_on_of(worker, offset)
                time.sleep(TICK)

    def _pass_on_of(self, worker: str, offset: int) -> None:
        files = self._box.order(worker)
        if files.size() <= offset:
            if files.ended() is not None and files.size() <= offset:
                with self._lock:
                    if self._followed.get(worker) == offset:
                        del self._followed[worker]
            return
        with files.events.open("rb") as events:
            events.seek(offset)
            data = events.read(messages.PART)
        self._out.send(EventBytes(worker, offset, data))
        with self._lock:
            if self._followed.get(worker) == offset:
                self._followed[worker] = offset + len(data)


def _content(path: str) -> bytes | None:
    """Return a small file's bytes, None where there is none that can be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path of another machine, as it is
            return file.read(LARGEST_FILE)
    except OSError:
        return None


def _last_beat(spec: str) -> float:
    """Return when a beat was last written beside a spec, in seconds since 1970."""
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(spec)) as items:  # noqa: PTH120
        beats = [item.stat().st_mtime for item in items if item.name.startswith(attempt_files.BEAT)]
        return max(beats, default=0.0)
    return 0.0


def _pid_of(box: BoxFiles, token: str) -> int:
    try:
        return int((box.workers / token).read_text())
    except (OSError, ValueError):
        return 0
