"""`ssh://[user@]host[:port]`: tasks as workers on one machine, reached by the user's own OpenSSH.

A worker is nobody's child and outlives the connection. What it writes lies there until it has been read, so a cut
loses nothing: the next connection goes on at the byte where the last one ended.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from nbflow.engine.threads import Carriers
from nbflow.errors import ExecutorError, NbflowError
from nbflow.executors import wire
from nbflow.executors.remote import attempt_files, probe
from nbflow.executors.remote.attempt_files import LiveEvent
from nbflow.executors.remote.engine import NodeRoom, WorkerOrder, WorkerState
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.executors.ssh import interpreter, messages
from nbflow.executors.ssh.carried import CarriedAttempt, origin_of
from nbflow.executors.ssh.connection import LONGEST, Channel, Connection, ConnectionCut, cut, parse_address
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
    SegmentPart,
    StopWorker,
)
from nbflow.executors.ssh.own_source import source_id
from nbflow.model import Ended, Segment, StepOptions, TaskResult
from nbflow.store.location import Store, open_store
from nbflow.store.verified import hash_of

PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between tries to connect again; the last one for as long as it takes."""

LOOK_LONGEST = 20.0
"""Seconds that the box may take to say how its workers stand."""


def executor(url: str) -> RemoteExecutor:
    """Return the executor for `ssh://[user@]host[:port][?python=PATH]`; PlanError for another form."""
    return RemoteExecutor(SshEngine(url))


class SshEngine:
    """One machine, through one connection that is made anew whenever it is cut."""

    queues = False

    def __init__(self, url: str) -> None:
        self.address = parse_address(url)
        self.place = self.address.place
        self.connection = Connection(self.address)
        self._facts: BoxFacts | None = None
        self._channel: Channel | None = None
        self._trouble = ""  # why there is no connection at the moment
        self._dispatches: dict[str, _Dispatch] = {}
        self._reach: dict[str, bool] = {}  # datastores -> whether the box reaches them by the same path
        self._there: set[str] = set()  # segments that the box is known to have
        self._expected: dict[str, Store] = {}  # segments on their way here -> where they belong
        self._unkept: NbflowError | None = None  # why one of them could not be written
        self._lock = threading.RLock()
        self._connecting = threading.Lock()
        self._fetching = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._courier: threading.Thread | None = None
        self._carriers = Carriers("nbflow ssh")

    # ------------------------------------------------------------ connected

    def connect(self) -> None:
        """Reach the box; ExecutorError says what is wrong. A connection that was cut while tasks run mends itself."""
        if self._is_open() or (self._facts is not None and self._running()):
            return
        self._connect()

    def _is_open(self) -> bool:
        return self._channel is not None and self._channel.is_open

    def _running(self) -> list[_Dispatch]:
        with self._lock:
            return [dispatch for dispatch in self._dispatches.values() if not dispatch.is_over]

    def _connect(self) -> Channel:
        """Return an open channel; the one that there is, or a new one."""
        with self._connecting:
            if self._channel is not None and self._channel.is_open:
                return self._channel
            if self._channel is not None:
                self._channel.close()
            self.connection.open()
            channel = interpreter.desk(self.connection)
            facts = self._listen(channel)
            if facts is None:
                raise interpreter.trouble(self.connection, channel)
            try:
                probe.compare(facts.worker, {}, self.place)
                if facts.source != source_id():
                    raise interpreter.another_nbflow(self.connection)
            except ExecutorError:
                channel.close()
                raise
            self._facts = facts
            self._channel = channel
            self._trouble = ""
            self._there.clear()  # its cache may have been emptied meanwhile
            with self._lock:
                for dispatch in self._dispatches.values():
                    if dispatch.is_sent and not dispatch.is_over:
                        channel.send(FollowWorker(dispatch.worker, dispatch.offset))
            return channel

    def _listen(self, channel: Channel) -> BoxFacts | None:
        """Take what comes through a channel from now on; return what the box is, None where it does not say so."""
        ready = threading.Event()
        facts: list[BoxFacts] = []
        segments = messages.SegmentAssembler()

        def take(report: BoxFacts | EventBytes | SegmentPart) -> None:
            match report:
                case BoxFacts():
                    facts.append(report)
                    ready.set()
                case EventBytes():
                    self._take(report)
                case SegmentPart():
                    self._keep(segments, report)

        def ended() -> None:
            ready.set()
            self._wake.set()

        channel.listen(take, ended)
        ready.wait(LONGEST)
        return facts[0] if facts else None

    # ------------------------------------------------------------ the engine

    def nodes(self) -> Sequence[NodeRoom]:
        """Return the one machine."""
        facts = self._facts
        if facts is None:
            return []
        return [NodeRoom(name=facts.worker.host, cpu=facts.cores, gpu=facts.gpus, memory=facts.memory)]

    def refuses(self, options: StepOptions) -> str:
        """Return what one machine has no way for."""
        return f"--nodes {options.nodes}: it is one machine; Ray has several" if options.nodes > 1 else ""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        """Have a worker started; return its id at once: what it needs is sent meanwhile."""
        dispatch = _Dispatch(secrets.token_hex(8), order, live)
        with self._lock:
            self._dispatches[dispatch.worker] = dispatch
            self._keep_connected()
        self._wake.set()
        return dispatch.worker

    def follow(self, order: WorkerOrder, worker: str, live: Callable[[bytes], None]) -> None:
        """Pass on what a worker says that another process has started, from its first word on."""
        channel = self._connect()
        dispatch = _Dispatch(worker, order, live)
        dispatch.is_sent = True
        if not self._reaches(channel, _split(order.spec)[0]):
            dispatch.carried = CarriedAttempt(order.spec)
        with self._lock:
            self._dispatches[worker] = dispatch
            self._keep_connected()
        channel.send(FollowWorker(worker, 0))

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        """Return how workers stand."""
        states: dict[str, WorkerState] = {}
        asked: list[_Dispatch] = []
        with self._lock:
            for worker in ids:
                dispatch = self._dispatches.get(worker)
                if dispatch is None:
                    states[worker] = WorkerState(state="lost", message="this process did not start it")
                elif dispatch.state is not None:
                    states[worker] = dispatch.state
                elif not dispatch.is_sent:
                    states[worker] = WorkerState(state="waiting", message=self._trouble or dispatch.progress)
                else:
                    asked.append(dispatch)
        if asked:
            channel = self._channel
            workers = tuple(dispatch.worker for dispatch in asked)
            try:
                if channel is None:
                    raise cut()
                answers = channel.ask(lambda number: AskState(number, workers), dict[str, BoxState], LOOK_LONGEST)
            except ExecutorError:
                if states:  # what is known of those that have not been sent does not wait for the others
                    return states
                raise
            states |= {dispatch.worker: self._seen(dispatch, answers[dispatch.worker]) for dispatch in asked}
        return states

    def _seen(self, dispatch: _Dispatch, answer: BoxState) -> WorkerState:
        """Return how a worker stands here: it has ended once all that it said has come."""
        place = self._facts.worker.host if self._facts is not None else ""
        state = msgspec.structs.replace(answer.state, where=place)
        if state.state in {"waiting", "running"}:
            if answer.is_alive:
                dispatch.live(b"")
            return state
        if dispatch.offset < answer.size or dispatch.is_delivering:
            return WorkerState(state="running", where=place)
        dispatch.state = state
        return state

    def cancel(self, worker: str, *, hard: bool) -> None:
        """Ask a worker to end its task, or kill it."""
        with self._lock:
            dispatch = self._dispatches.get(worker)
            if dispatch is None or dispatch.is_over:
                return
            if not dispatch.is_sent:
                dispatch.state = WorkerState(state="cancelled", message="cancelled before it was sent")
                return
        mark = dispatch.carried.files.cancel_mark() if dispatch.carried is not None else None
        grace = attempt_files.GRACE if mark is None else mark.grace
        channel = self._channel
        if channel is not None:
            channel.ask(lambda number: StopWorker(number, worker, hard=hard, grace=grace), type(None))

    def close(self) -> None:
        """Let go of the box; the shared connection closes by itself after a while."""
        self._closed.set()
        self._wake.set()
        with self._connecting:
            if self._channel is not None:
                self._channel.close()
        if self._courier is not None:
            self._courier.join(5.0)
        self._carriers.close()

    # ------------------------------------------------------------ the thread that brings things there

    def _keep_connected(self) -> None:
        if self._courier is None:
            self._courier = threading.Thread(target=self._carry, name="nbflow ssh courier", daemon=True)
            self._courier.start()

    def _carry(self) -> None:
        tries = 0
        while not self._closed.is_set():
            running = self._running()
            if not running:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                channel = self._connect()
                tries = 0
                for dispatch in running:
                    if not dispatch.is_sent and not dispatch.is_over:
                        self._send(channel, dispatch)
            except ExecutorError as error:
                self._trouble = error.message
                self._closed.wait(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
                continue
            self._wake.wait(5.0)
            self._wake.clear()

    def _send(self, channel: Channel, dispatch: _Dispatch) -> None:
        """Send one order with what it needs; ConnectionCut when that is to be tried again."""
        order = dispatch.order
        try:
            root, kind, rest = _split(order.spec)
            sent: list[str] = []
            if self._reaches(channel, root):
                dispatch.progress = "is being started"
                begin = BeginWorker(0, dispatch.worker, order.spec, gpu=order.gpu)
            elif kind == "probes":
                self._answer_question(channel, dispatch, root, rest)
                return
            else:
                dispatch.carried = carried = dispatch.carried or CarriedAttempt(order.spec)
                sent = self._send_segments(channel, dispatch, carried)
                if dispatch.is_over:  # cancelled on the way
                    return
                begin = BeginWorker(
                    0, dispatch.worker, carried.path, origin_of(carried.store), carried.packed_files(), order.gpu
                )
            channel.ask(lambda number: msgspec.structs.replace(begin, number=number), type(None))
            self._there.update(sent)
            channel.send(FollowWorker(dispatch.worker, dispatch.offset))
        except ConnectionCut:
            raise
        except NbflowError as error:
            dispatch.state = WorkerState(
                state="refused", message=f"{error.message}{f'; {error.fix}' if error.fix else ''}"
            )
        dispatch.is_sent = True

    def _reaches(self, channel: Channel, root: str) -> bool:
        """Return whether the box sees the same datastore under this URL: a folder is tried with a file of ours."""
        if "://" in root and not root.startswith("file://"):
            return True  # its workers find out, and say so
        if root not in self._reach:
            store = open_store(root).trust()
            path, word = f"probes/{secrets.token_hex(8)}", secrets.token_bytes(16)
            store.write(path, word)
            try:
                found = channel.ask(lambda number: AskFile(number, f"{store.url}/{path}"), bytes | None)  # type: ignore[arg-type]
            finally:
                store.delete(path)
            self._reach[root] = found == word
        return self._reach[root]

    def lacking(self, store: str, segments: Sequence[Segment]) -> Sequence[Segment] | None:
        """Return which segments the box has not; None where it reaches the datastore itself."""
        channel = self._connect()
        if self._reaches(channel, store):
            return None
        hashes = set(channel.ask(lambda number: AskLacking(number, tuple(segments)), list[str]))
        return [segment for segment in segments if segment.hash in hashes]

    def _answer_question(self, channel: Channel, dispatch: _Dispatch, root: str, rest: str) -> None:
        """Answer a question into a datastore that the box does not reach: by what its desk says of itself."""
        store = open_store(root).trust()
        folder = f"probes/{rest.rpartition('/')[0]}"
        question = probe.question_of(store, folder)
        facts = channel.ask(lambda number: AskFacts(number, question), probe.WorkerFacts)
        probe.put_answer(store, folder, msgspec.structs.replace(facts, is_carried=True))
        dispatch.state = WorkerState(state="done")
        dispatch.is_sent = True

    def _send_segments(self, channel: Channel, dispatch: _Dispatch, carried: CarriedAttempt) -> list[str]:
        """Send the segments that the box has not; return those that it was asked about, which it has then."""
        unknown = tuple(each for each in carried.segments() if each.hash not in self._there)
        lacking = set(channel.ask(lambda number: AskLacking(number, unknown), list[str])) if unknown else set()
        wanted = [each for each in unknown if each.hash in lacking]
        total, done = sum(each.length for each in wanted), 0
        for segment in wanted:
            if dispatch.is_over:
                return []
            dispatch.progress = f"its inputs are being sent: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            data = carried.bytes_of(segment)
            if data is not None:
                for part in messages.parts_of(segment, data):
                    channel.send(part)
            done += segment.length
        return [each.hash for each in unknown]

    # ------------------------------------------------------------ what comes from there

    def _take(self, piece: EventBytes) -> None:
        """Take the next bytes of what a worker has written."""
        with self._lock:
            dispatch = self._dispatches.get(piece.worker)
            if dispatch is None or piece.offset > dispatch.offset:
                return
            data = piece.data[dispatch.offset - piece.offset :]
            dispatch.offset += len(data)
        if dispatch.carried is None:
            _give(dispatch, data)
            return
        for body in dispatch.assembler.feed(data):
            self._bring(dispatch, dispatch.carried, attempt_files.parse_live(body))

    def _bring(self, dispatch: _Dispatch, carried: CarriedAttempt, event: LiveEvent) -> None:
        """Pass on an event of an attempt whose datastore is here, once what it tells of is here, too."""
        with contextlib.suppress(NbflowError):  # the disk here is full: its result will say so
            carried.note(event)
        if not isinstance(event.event, Ended):
            dispatch.live(wire.frame(event))
            return
        result = carried.judged(event.event.result, self.place)
        dispatch.is_delivering = True
        self._carriers.run(lambda: self._deliver(dispatch, carried, event, result))

    def _deliver(self, dispatch: _Dispatch, carried: CarriedAttempt, event: LiveEvent, result: TaskResult) -> None:
        """Fetch what a result is made of, through as many connections as it takes, and pass it on."""
        while not self._closed.is_set():
            try:
                missing = carried.missing(result, event.files)
                if missing:
                    self._fetch(carried.store, missing)
                dispatch.live(wire.frame(_fetched(event, result)))
                break
            except ConnectionCut:
                self._wake.set()
                self._closed.wait(1.0)
            except NbflowError as error:
                failed = carried.unpublished(result, error)
                dispatch.live(wire.frame(_fetched(event, failed)))
                break
        dispatch.is_delivering = False

    def _fetch(self, store: Store, segments: Sequence[Segment]) -> None:
        """Return once segments are in the datastore here; raise what keeps them out."""
        channel = self._channel
        if channel is None:
            raise cut()
        with self._fetching:
            self._unkept = None
            self._expected.update(dict.fromkeys((each.hash for each in segments), store))
            channel.ask(lambda number: AskFetch(number, tuple(segments)), type(None), longest=3600.0)
            if self._unkept is not None:
                raise self._unkept
            self._there.update(each.hash for each in segments)

    def _keep(self, segments: messages.SegmentAssembler, part: SegmentPart) -> None:
        """Take a part of a segment that was asked for."""
        data = segments.add(part)
        if data is None:
            return
        store = self._expected.pop(part.segment.hash, None)
        if store is not None and hash_of(data) == part.segment.hash:
            try:
                store.write_segment(part.segment, data)
            except NbflowError as error:
                self._unkept = error


class _Dispatch:
    """A worker that is wanted, on its way there and back."""

    def __init__(self, worker: str, order: WorkerOrder, live: Callable[[bytes], None]) -> None:
        self.worker = worker
        self.order = order
        self.live = live
        self.carried: CarriedAttempt | None = None
        self.assembler = wire.Assembler()
        self.offset = 0  # bytes of what it has written that have come
        self.is_sent = False
        self.is_delivering = False
        self.progress = "is being sent"
        self.state: WorkerState | None = None  # its last one

    @property
    def is_over(self) -> bool:
        return self.state is not None


def _fetched(event: LiveEvent, result: TaskResult) -> LiveEvent:
    """Return a worker's last event as it counts here, where its record does not stand yet."""
    return msgspec.structs.replace(event, event=Ended(result=result), is_published=False)


def _give(dispatch: _Dispatch, data: bytes) -> None:
    """Pass on what comes live; what the datastore does not take is read there later."""
    with contextlib.suppress(NbflowError):
        dispatch.live(data)


def _split(url: str) -> tuple[str, str, str]:
    """Return the datastore of a spec or question, which of both it is, and its path below that."""
    for kind in ("flows", "probes"):
        root, found, rest = url.rpartition(f"/{kind}/")
        if found:
            return root, kind, rest
    return str(Path(url).parent), "", ""
