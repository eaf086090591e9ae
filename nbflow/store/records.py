"""What runs leave in the store besides artifacts: results, facts, events, logs, heartbeats; written once, read by all.

Nothing here unpickles. A file that is missing, empty, torn, foreign or of another format is passed over, never fatal.
"""

from __future__ import annotations

import calendar
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypedDict

import msgspec

from nbflow.errors import NotFoundError
from nbflow.jsonable import from_json, to_json
from nbflow.model import FORMAT, Buffer, Certificate, Emptied, Group, Manifest, Output, Record, RunEvent
from nbflow.store import batches
from nbflow.store.batches import BatchWriter, Then
from nbflow.store.interface import segment_path
from nbflow.store.jsonl import ChunkReader, ChunkWriter
from nbflow.store.location import LocalStore, Store, name_of, safe_name

SEGMENT = re.compile(r"\w+:\w{4,}|")
"""A segment's hash, empty for zeros."""


class FileFacts(TypedDict):
    """The files that a step was seen to read and write, and the hash of the definitions that it used."""

    reads: list[str]
    writes: list[str]
    of: str


class Facts(TypedDict, total=False):
    """What was learnt about a step's code.

    Names that it changes in place; those that could not be stored, and those that do not come back as they were, each
    with why; those that it reads though its text does not show it; files that it was seen to use. Of a whole flow's
    code: what a verification has shown.
    """

    changed: list[str]
    unstored: dict[str, str]
    apart: dict[str, str]
    asked: list[str]
    files: FileFacts
    early: list[str]
    verified: Certificate


LAST = 8
"""Records of a key that are read to find the newest: their names begin with their runs, which are in order."""

TICK = 1e-5
"""Seconds between the places of two records in their order."""

RUN_ID = re.compile(r"(\d{8}-\d{6})-([0-9a-f]{3})[0-9a-f]+")
PARTS = 4096
"""Parts of a second in a run's id."""


class Stamped(msgspec.Struct, frozen=True, array_like=True):
    """A line of an event file: when it was put (seconds since 1970), and the event."""

    at: float
    event: RunEvent


class _RecordPlace(msgspec.Struct, frozen=True):
    """As much of a record as its place in the order of records needs."""

    created_at: float
    stamp: float = 0.0


class Moment(msgspec.Struct, frozen=True):
    """A sign of life, or a request to end: when it was given."""

    at: float


# ---------------------------------------------------------------- results


def result_folder(key: str) -> str:
    """Return the folder of the executions of a task's key."""
    name = safe_name(key)
    return f"results/{safe_name(key.rpartition(':')[2][:2])}/{name}"


def publish(store: Store, record: Record) -> bool:
    """Write a record whose segments are in the store; return False when its execution has published one already."""
    path = f"{result_folder(record.key)}/{safe_name(record.execution)}.json"
    _note_unstored(store, record)
    store.settle(_segments(record))
    return store.create(path, to_json(record))


def publish_among_others(store: Store, writer: BatchWriter, record: Record, then: Then) -> None:
    """Write a record of one of many small tasks; call `then` once it is in the store, or with what kept it out."""
    _note_unstored(store, record)
    writer.put(record.parts.code, record.run, to_json(record), then, _segments(record))


def settle(store: Store, record: Record) -> None:
    """Return when the bytes that a record names outlive a power cut: only then may anything name it."""
    store.settle(_segments(record))


def has_segments(record: Record) -> bool:
    """Return whether a record names bytes that lie beside it: publishing it waits until the disk has them."""
    return bool(_segments(record))


def _segments(record: Record) -> list[str]:
    buffers = (buffer for group in record.groups for buffer in (group.stream, *group.buffers))
    return [segment_path(segment.hash) for buffer in buffers for segment in buffer.segments if segment.hash]


def unstored(artifacts: Mapping[str, Manifest]) -> dict[str, str]:
    """Return the names of what an execution left that could not be stored, each with its type and why."""
    return {name: f"{each.type}: {each.error}" for name, each in artifacts.items() if each.group < 0}


def _note_unstored(store: Store, record: Record) -> None:
    names = unstored(record.artifacts)
    if names and (facts := read_facts(store, record.parts.code)).get("unstored") != names:
        write_facts(store, record.parts.code, {**facts, "unstored": names})


def find(store: Store, key: str, *, among: str = "", version: int = FORMAT) -> list[Record]:
    """Return the records of a task key's executions, newest first, without those of other formats than `version`.

    `among` is the code of its step where it may be one of many small tasks, whose records share files.
    """
    folder = result_folder(key)
    paths = [f"{folder}/{name}" for name in store.children(folder) if name.endswith(".json")]
    lines = [*store.read_many(paths).values(), *(batches.reader_of(store).find(among, key) if among else ())]
    records = map(record_of, lines)
    matching = [record for record in records if record and record.key == key and record.format == version]
    return sorted(matching, key=lambda record: record.order, reverse=True)


def stamp_after(created_at: float, seen: float) -> float:
    """Return a record's own place in the order of records, 0 where its time says it.

    `seen` is the newest place that its run had seen: a record made after that one stands behind it, whatever clocks
    say.
    """
    return 0.0 if created_at > seen else seen + TICK


def newest_place(store: Store, key: str, *, among: str = "") -> float:
    """Return the place of a key's newest record in the order of records, 0 where it has none; `among` as for `find`.

    A step that is never reused has many records: those of its last runs are enough.
    """
    folder = result_folder(key)
    paths = [f"{folder}/{name}" for name in store.children(folder) if name.endswith(".json")]
    lines = [*store.read_many(paths[-LAST:]).values(), *(batches.reader_of(store).find(among, key) if among else ())]
    return max(
        (place.stamp or place.created_at for line in lines if (place := from_json(line, _RecordPlace))), default=0.0
    )


def read_record(store: Store, key: str, execution: str) -> Record | None:
    """Return the record of an execution under a task's key, None where there is none that can be read."""
    path = f"{result_folder(key)}/{safe_name(execution)}.json"
    reader = batches.reader_of(store)
    data = reader.known(key, execution) or store.read_many([path]).get(path) or reader.read(key, execution)
    return record_of(data) if data else None


def record_of(data: bytes) -> Record | None:
    """Return the record that a file or a line of a batch holds, None where it is none or does not fit together."""
    record = from_json(data, Record)
    if record is None or not all(artifact.group < len(record.groups) for artifact in record.artifacts.values()):
        return None
    buffers = (buffer for group in record.groups for buffer in (group.stream, *group.buffers))
    return record if all(_is_sound(buffer) for buffer in buffers) else None


def _is_sound(buffer: Buffer) -> bool:
    if buffer.inline is not None:
        return True
    pieces = buffer.segments
    return buffer.length == sum(s.length for s in pieces) and all(
        s.length >= 0 and SEGMENT.fullmatch(s.hash) for s in pieces
    )


def all_records(store: Store) -> Iterable[Record]:
    """Yield every readable record of the store, for a clean-up: all of it is read."""
    executions: set[str] = set()
    for entry in store.list("results"):
        for record in read_entry(store, entry.path):
            if record.execution not in executions:  # files that were joined may stand beside their parts
                executions.add(record.execution)
                yield record


def read_entry(store: Store, path: str) -> list[Record]:
    """Return the records in a file of results, none when it is gone or cannot be read."""
    data = store.read_many([path]).get(path, b"")
    lines = batches.lines_of(data) if batches.is_batch(path) else [data]
    return [record for line in lines if (record := record_of(line)) is not None]


def read_facts(store: Store, code_key: str) -> Facts:
    """Return what was learnt about a step's code, empty when nothing was."""
    path = f"facts/{safe_name(code_key)}.json"
    return from_json(store.read_many([path]).get(path, b""), Facts) or {}


def write_facts(store: Store, code_key: str, facts: Facts) -> None:
    """Write what was learnt about a step's code in place of what was known before."""
    store.write(f"facts/{safe_name(code_key)}.json", to_json(facts))


# ---------------------------------------------------------------- runs, in the folder of their flow below `flows/`


def new_run_id(store: Store | None = None, at: float | None = None) -> str:
    """Return an id that no other run has and that sorts behind all runs of the store.

    `20250131-094501-3f9c2a1b4`: three digits of the last word are the second's parts. Where a machine whose clock was
    ahead has run something the id is one part later than that one's: ids tell the order of runs, not the time.
    """
    ticks = int((time.time() if at is None else at) * PARTS)
    if store is not None:
        ticks = max(ticks, _newest_ticks(store) + 1)
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(ticks // PARTS))
    return f"{moment}-{ticks % PARTS:03x}{secrets.token_hex(3)}"


def _newest_ticks(store: Store) -> int:
    """Return the moment in the id of the store's newest run, of any flow: flows share results."""
    folders = store.children("flows")
    if isinstance(store, LocalStore) or len(folders) < 2:
        runs_by_folder = [list_runs(store, folder) for folder in folders]
    else:
        with ThreadPoolExecutor(min(16, len(folders)), "nbflow-runs") as pool:
            runs_by_folder = list(pool.map(lambda folder: list_runs(store, folder), folders))
    for run in sorted((run for runs in runs_by_folder for run in runs), reverse=True):
        parts = RUN_ID.fullmatch(run)
        if parts is None or run.startswith("9999"):
            continue
        with suppress(ValueError):  # not a date
            return calendar.timegm(time.strptime(parts[1], "%Y%m%d-%H%M%S")) * PARTS + int(parts[2], 16)
    return 0


def run_folder(folder: str, run: str) -> str:
    """Return the folder of a run of a flow's folder."""
    return f"flows/{folder}/runs/{safe_name(run)}"


def list_runs(store: Store, folder: str) -> list[str]:
    """Return the ids of the runs in a flow's folder, newest first: `new_run_id` makes ids that are in order."""
    return sorted((name_of(name) for name in store.children(f"flows/{folder}/runs")), reverse=True)


def empty_run(store: Store, folder: str, run: str) -> None:
    """Note that the values of a run that has ended go, and delete its logs; all else that it left stays."""
    writer = EventWriter(store, folder, run, "gc")
    writer.put(Emptied(at=time.time()))
    writer.close()
    for name in ("logs", "beats", "cancel"):
        for entry in store.list(f"{run_folder(folder, run)}/{name}"):
            store.delete(entry.path)


def write_notebook(store: Store, folder: str, run: str, document: str) -> None:
    """Keep the notebook's JSON as it was run."""
    store.write(f"{run_folder(folder, run)}/notebook.ipynb", document.encode())


def read_notebook(store: Store, folder: str, run: str) -> str:
    """Return the text of a run's notebook; NotFoundError when it kept none that can be read."""
    path = f"{run_folder(folder, run)}/notebook.ipynb"
    try:
        return store.read_many([path])[path].decode()
    except (KeyError, UnicodeDecodeError):
        raise NotFoundError(
            f"the notebook of run {run} is missing or damaged: {path} in {store.url}", fix="run the flow once more"
        ) from None


class EventWriter:
    """Writes the events of one run, in at most one file every 50 ms; see `ChunkWriter` for errors."""

    def __init__(self, store: Store, folder: str, run: str, writer_id: str, after: float = 0.0) -> None:
        """Open the events of a run; `after` is the time of its last event known so far: new ones come later."""
        # The same writer may come back (a resumed run, a tag added later): each time it is a writer of its own.
        writer = f"{writer_id}.{secrets.token_hex(3)}"
        home = run_folder(folder, run)
        self._chunks = ChunkWriter(store, f"{home}/events", writer, settled=(f"{home}/notebook.ipynb",))
        self._last = after + TICK if after else 0.0

    def put(self, event: RunEvent) -> None:
        """Take one event; it is in the store within about 50 ms."""
        self._last = max(self._last, time.time())  # a clock that is set back must not reorder events
        self._chunks.put(to_json(Stamped(self._last, event)))

    def flush(self) -> None:
        """Write all events put so far and return when they are in the store."""
        self._chunks.flush()

    def close(self) -> None:
        """Flush and join this writer's files into one."""
        self._chunks.close()


class EventReader:
    """Reads the events of a run as they come, those that are new with each call."""

    def __init__(self, store: Store, folder: str, run: str) -> None:
        self._chunks = ChunkReader(store, f"{run_folder(folder, run)}/events")
        self.last = 0.0
        """When the last event was put, by the clock of who put it."""

    def new(self) -> list[RunEvent]:
        """Return the events since the last call, ordered by time, then by each writer's own order."""
        stamped = []
        for writer, number, line in self._chunks.new():
            each = from_json(line, Stamped)
            if each is not None:
                stamped.append((each.at, writer, number, each.event))
                self.last = max(self.last, each.at)
        return [each[3] for each in sorted(stamped, key=lambda each: each[:3])]


def read_events(store: Store, folder: str, run: str) -> list[RunEvent]:
    """Return all events of a run in order, none for a run that is not there."""
    return EventReader(store, folder, run).new()


def log_folder(home: str, execution: str, rank: int = 0) -> str:
    """Return the folder of an execution's log in its run's; of several nodes that run it each one has its own."""
    return f"{home}/logs/{safe_name(execution)}{f'-rank{rank}' if rank else ''}"


class LogWriter:
    """Writes what one execution prints and displays, in at most one file every 50 ms."""

    def __init__(self, store: Store, folder: str, run: str, execution: str, rank: int = 0) -> None:
        self._chunks = ChunkWriter(store, log_folder(run_folder(folder, run), execution, rank), "log")

    def put(self, output: Output) -> None:
        """Take one piece of output; it is in the store within about 50 ms."""
        self._chunks.put(to_json(output))

    def flush(self) -> None:
        """Write all output put so far and return when it is in the store."""
        self._chunks.flush()

    def close(self) -> None:
        """Flush and join the files into one."""
        self._chunks.close()


class LogReader:
    """Reads the output of an execution as it comes, what is new with each call."""

    def __init__(self, store: Store, folder: str, run: str, execution: str, rank: int = 0) -> None:
        self._chunks = ChunkReader(store, log_folder(run_folder(folder, run), execution, rank))

    def new(self) -> list[Output]:
        """Return the pieces of output since the last call, in order."""
        outputs = (from_json(line, Output) for _, _, line in self._chunks.new())
        return [output for output in outputs if output is not None]


def read_log(store: Store, folder: str, run: str, execution: str, rank: int = 0) -> list[Output]:
    """Return all that an execution printed and displayed, in order; on several nodes the one of that rank."""
    return LogReader(store, folder, run, execution, rank).new()


# ---------------------------------------------------------------- heartbeats and cancel marks


def beat(store: Store, folder: str, run: str, writer_id: str, at: float | None = None) -> None:
    """Say that whoever runs this run is alive at this time (now)."""
    data = msgspec.json.encode(Moment(time.time() if at is None else at))
    store.write(f"{run_folder(folder, run)}/beats/{safe_name(writer_id)}.json", data)


def last_beat(store: Store, folder: str, run: str) -> float | None:
    """Return when a run was last alive (seconds since 1970, by its runner's clock), None where it never said so."""
    return _last_moment(store, f"{run_folder(folder, run)}/beats")


def request_cancel(store: Store, folder: str, run: str) -> None:
    """Ask whoever runs this run, wherever that is, to end it."""
    data = msgspec.json.encode(Moment(time.time()))
    store.write(f"{run_folder(folder, run)}/cancel/{secrets.token_hex(4)}.json", data)


def cancel_requested(store: Store, folder: str, run: str) -> float | None:
    """Return when a run was last asked to end (seconds since 1970), None if never."""
    return _last_moment(store, f"{run_folder(folder, run)}/cancel")


def _last_moment(store: Store, folder: str) -> float | None:
    data = store.read_many([f"{folder}/{name}" for name in store.children(folder)])
    moments = [moment.at for each in data.values() if (moment := from_json(each, Moment)) is not None]
    return max(moments, default=None)


def joined(cells: Sequence[Record]) -> Record | None:
    """Return one record with what the cells of a step have left, None where none has left any: for people to read."""
    if len(cells) < 2:
        return next(iter(cells), None)
    groups: list[Group] = []
    artifacts: dict[str, Manifest] = {}
    for cell in cells:
        moved = {
            name: msgspec.structs.replace(each, group=each.group + len(groups)) if each.group >= 0 else each
            for name, each in cell.artifacts.items()
        }
        artifacts.update(moved)
        groups += cell.groups
    seen = [cell.observations for cell in cells]
    own = {name for cell in cells for name in cell.artifacts}
    inputs = {n: i for cell in reversed(cells) for n, i in cell.parts.inputs.items() if n not in own}
    return msgspec.structs.replace(
        cells[-1], source="\n\n".join(cell.source.strip("\n") for cell in cells), groups=tuple(groups),
        artifacts=artifacts, outputs=tuple(output for cell in cells for output in cell.outputs),
        elapsed=sum(cell.elapsed for cell in cells), caught=any(cell.caught for cell in cells),
        changed=tuple(dict.fromkeys(name for cell in cells for name in cell.changed)),
        together=tuple(dict.fromkeys(name for cell in cells for name in cell.together)),
        parts=msgspec.structs.replace(cells[0].parts, inputs=inputs | cells[0].parts.inputs),
        observations=msgspec.structs.replace(
            seen[-1], **{
                name: {path: mark for each in seen for path, mark in getattr(each, name).items()}
                for name in ("files", "distributions", "environment", "looks", "imports", "written")
            },
            volatile=tuple(dict.fromkeys(mark for each in seen for mark in each.volatile)),
        ),
    )  # fmt: skip
