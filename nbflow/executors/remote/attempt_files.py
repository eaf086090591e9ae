"""What the driver and a worker say to each other through the datastore, about one attempt at a task.

`<run>/attempts/<execution>/` holds the task's spec, a beat of each worker that has begun with it, a cancel mark, and
the result, which only one of them can publish. What the task shows is the run's log of that execution.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from nbflow.errors import NotFoundError, StoreError
from nbflow.executors import wire
from nbflow.executors.remote.task_files import WrittenFile
from nbflow.jsonable import from_json, to_json, to_msgpack
from nbflow.model import Ended, Frozen, Output, Started, TaskEvent, TaskResult, TaskSpec
from nbflow.store import records
from nbflow.store.jsonl import ChunkReader, ChunkWriter
from nbflow.store.location import Store, open_store, safe_name

SPEC = "spec.msgpack"
RESULT = "result.msgpack"
CANCEL = "cancel.json"
WORKER = "worker.json"
BEAT = "beat-"

GRACE = 3.0
"""Seconds that a task has to tidy up where whoever ended it did not say."""

LOG_EVERY = 1.0
"""Seconds that lines of a log wait for others where writing is a request; live they come through the engine."""


class Beat(Frozen, frozen=True, kw_only=True):
    """A worker's sign of life."""

    at: float  # by its own clock: only that it changes counts
    host: str
    pid: int


class StartedWorker(Frozen, frozen=True, kw_only=True):
    """The worker that was started for an attempt, for whoever takes the run up when its driver has gone."""

    place: str
    worker: str  # as its engine calls it


class CancelMark(Frozen, frozen=True, kw_only=True):
    """Somebody wants the task to end: how long it may take to tidy up."""

    grace: float


class WorkerResult(Frozen, frozen=True, kw_only=True):
    """How an attempt ended, as the one worker says whose word counts."""

    worker: str
    lines: int  # of its log
    result: TaskResult
    files: tuple[WrittenFile, ...] = ()


class LiveEvent(Frozen, frozen=True, kw_only=True):
    """An event on its short way through an engine; `number` is its line in the worker's log."""

    worker: str
    number: int
    event: TaskEvent
    files: tuple[WrittenFile, ...] = ()  # with the last one
    is_published: bool = False  # of the last one: its record stands in the datastore of whoever hears it


class Numbered(Frozen, frozen=True, kw_only=True):
    """A line of a worker's log."""

    worker: str
    number: int
    event: Started | Output


_LINE: msgspec.json.Decoder[Started | Output] = msgspec.json.Decoder(Started | Output)
_RESULT = msgspec.msgpack.Decoder(WorkerResult)
_LIVE = msgspec.msgpack.Decoder(LiveEvent)


def parse_live(body: bytes) -> LiveEvent:
    """Return the event that came live, from a frame's body."""
    return _LIVE.decode(body)


def home_of(spec: TaskSpec) -> str:
    """Return the folder of a task's run in the datastore, or one for tasks of no run."""
    return spec.home or f"flows/{safe_name(spec.flow)}/runs/{safe_name(spec.run)}"


class AttemptFiles:
    """The files of one attempt."""

    def __init__(self, store: Store, home: str, execution: str) -> None:
        self.store = store
        self.home = home
        self.execution = execution
        self.folder = f"{home}/attempts/{safe_name(execution)}"
        self.log = records.log_folder(home, execution)
        self._reader = ChunkReader(store, self.log)

    @classmethod
    def of(cls, store: Store, spec: TaskSpec) -> AttemptFiles:
        """Return the files of a spec's attempt."""
        return cls(store, home_of(spec), spec.execution)

    def of_rank(self, rank: int) -> AttemptFiles:
        """Return the same files with the log of one of several nodes that run the attempt together."""
        files = AttemptFiles(self.store, self.home, self.execution)
        files.log = records.log_folder(self.home, self.execution, rank)
        return files

    @property
    def url(self) -> str:
        """Where the spec lies."""
        return f"{self.store.url}/{self.folder}/{SPEC}"

    # ------------------------------------------------------------ written by the driver

    def write_spec(self, spec: TaskSpec) -> None:
        """Put the task where a worker finds it."""
        self.store.write(f"{self.folder}/{SPEC}", wire.pack(spec))

    def write_worker(self, place: str, worker: str) -> None:
        """Keep which worker was started."""
        self.store.write(f"{self.folder}/{WORKER}", to_json(StartedWorker(place=place, worker=worker)))

    def ask_cancel(self, grace: float) -> None:
        """Ask the worker, wherever it is, to end the task."""
        self.store.write(f"{self.folder}/{CANCEL}", to_json(CancelMark(grace=grace)))

    # ------------------------------------------------------------ written by a worker

    def beat(self, worker: str, beat: Beat) -> None:
        """Say that a worker is alive."""
        self.store.write(f"{self.folder}/{BEAT}{worker}.json", to_json(beat))

    def writer(self, worker: str) -> ChunkWriter:
        """Return what writes a worker's events into the log."""
        every = LOG_EVERY if "://" in self.store.url else 0.05
        return ChunkWriter(self.store, self.log, worker, every=every)

    def publish(self, result: WorkerResult) -> WorkerResult:
        """Publish how the attempt ended, and its record; return what counts, which may be another worker's word.

        The result comes first, and whoever makes its file has published: of two workers that run the same attempt,
        as after a cut connection, one counts. Should this worker end before its record is written, the driver writes
        it from the result.
        """
        record = result.result.record
        if record is not None:
            records.settle(self.store, record)
        if not self.store.create(f"{self.folder}/{RESULT}", to_msgpack(result)):
            result = self.result() or result
        if result.result.record is not None:
            records.publish(self.store, result.result.record)
        return result

    # ------------------------------------------------------------ read by either

    def result(self) -> WorkerResult | None:
        """Return how the attempt ended, None while nobody has published it."""
        data = self.store.read_many([path := f"{self.folder}/{RESULT}"]).get(path)
        try:
            return None if data is None else _RESULT.decode(data)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"{path} in {self.store.url} cannot be read: {error}", fix="run the step again") from error

    def beats(self) -> dict[str, Beat]:
        """Return the last beat of each worker."""
        names = [name for name in self.store.children(self.folder) if name.startswith(BEAT)]
        data = self.store.read_many([f"{self.folder}/{name}" for name in names])
        beats = {
            name[len(BEAT) : -len(".json")]: from_json(data.get(f"{self.folder}/{name}", b""), Beat) for name in names
        }
        return {worker: beat for worker, beat in beats.items() if beat is not None}

    def worker(self) -> StartedWorker | None:
        """Return which worker was started last."""
        path = f"{self.folder}/{WORKER}"
        return from_json(self.store.read_many([path]).get(path, b""), StartedWorker)

    def cancel_mark(self) -> CancelMark | None:
        """Return the wish that the task ends: the attempt's own, or one that the whole run does."""
        path = f"{self.folder}/{CANCEL}"
        mark = from_json(self.store.read_many([path]).get(path, b""), CancelMark)
        if mark is None and self.store.children(f"{self.home}/cancel"):
            return CancelMark(grace=GRACE)
        return mark

    def new_lines(self) -> Iterable[Numbered]:
        """Return the lines of the log since the last call, each worker's in order."""
        for worker, number, line in self._reader.new():
            try:
                yield Numbered(worker=worker, number=number, event=_LINE.decode(line))
            except (msgspec.MsgspecError, ValueError):
                continue  # not a worker's


def earlier(store: Store, spec: TaskSpec) -> tuple[AttemptFiles, TaskSpec] | None:
    """Return the last attempt at the same task in the run that this one continues, None where there was none."""
    if not spec.origin:
        return None
    home = f"{home_of(spec).rpartition('/')[0]}/{safe_name(spec.origin)}"
    name = safe_name(spec.origin + spec.execution.removeprefix(spec.run)).rpartition(".")[0]
    attempts = [each for each in store.children(f"{home}/attempts") if each.rpartition(".")[0] == name]
    for attempt in sorted(attempts, key=lambda each: (len(each), each), reverse=True):
        data = store.read_many([path := f"{home}/attempts/{attempt}/{SPEC}"]).get(path)
        if data is not None:
            before = parse_spec(data, path)
            same = before.key == spec.key and before.evaluate == spec.evaluate
            return (AttemptFiles(store, home, before.execution), before) if same else None
    return None


def live(worker: str, number: int, event: TaskEvent) -> bytes:
    """Return the frame of an event on its way through an engine."""
    return wire.frame(LiveEvent(worker=worker, number=number, event=event))


def ended(result: WorkerResult, *, is_published: bool = False) -> bytes:
    """Return the frame of a worker's last event."""
    return wire.frame(LiveEvent(
        worker=result.worker, number=result.lines, event=Ended(result=result.result), files=result.files,
        is_published=is_published,
    ))  # fmt: skip


def read_spec(url: str) -> tuple[AttemptFiles, TaskSpec]:
    """Return the task whose spec lies at a URL or path, and its files; StoreError or NotFoundError when there is none.

    The datastore is the one that the spec lies in, by the way that leads to it from here.
    """
    root, separator, rest = url.rpartition("/flows/")
    if not separator:
        raise NotFoundError(f"{url} is not a task's spec", fix=f"give the URL of a {SPEC} in a datastore")
    store = open_store(root).trust()
    data = store.read_many([path := f"flows/{rest}"]).get(path)
    if data is None:
        raise NotFoundError(
            f"there is no {path} in the datastore {store.url} as this machine sees it",
            fix="use a datastore that this machine and the notebook's both reach: --store s3://…, or a shared folder",
        )
    spec = parse_spec(data, url)
    return AttemptFiles.of(store, msgspec.structs.replace(spec, store=store.url)), spec


def parse_spec(data: bytes, url: str) -> TaskSpec:
    """Return the spec that was written by `write_spec`; StoreError when another version wrote what this one lacks."""
    try:
        return wire.parse_spec(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreError(
            f"the spec {url} cannot be understood here: {error}",
            fix="install the same nbflow on the worker as beside the notebook",
        ) from error


def now(host: str, pid: int) -> Beat:
    """Return a beat of this moment."""
    return Beat(at=time.time(), host=host, pid=pid)
