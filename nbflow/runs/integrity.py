"""A datastore read whole: what in it is damaged, torn, gone or of unknown name, whom that concerns, and its repair.

Beside running runs nothing is damage that is only being written: files appear whole, segments before the records that
name them, and what looks wrong is looked at once more. What is gone was removed, or never came to be: it is told and
nothing is to be done. What is damaged is in the way of nobody, but lies there until it is moved aside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import msgspec

from nbflow.engine.claims import Claim
from nbflow.errors import FormatError, NbflowError, StoreError
from nbflow.executors.remote.attempt_files import Beat, CancelMark, StartedWorker, WorkerResult
from nbflow.flow.notebook import read_document
from nbflow.jsonable import from_json
from nbflow.model import Frozen, Output, Record, Started, TaskChanged, TaskSpec
from nbflow.render import preview
from nbflow.store import records
from nbflow.store.artifacts import segments_in
from nbflow.store.batches import is_batch
from nbflow.store.flows import FlowFile, stored_flows
from nbflow.store.interface import ABOUT, SETTINGS, About, FileEntry, segment_path
from nbflow.store.jsonl import parse_name
from nbflow.store.location import Store, name_of
from nbflow.store.stored_run import summaries
from nbflow.store.verified import SegmentMark, hash_of

ASIDE = "damaged"
"""The folder of a datastore into which a repair moves what is damaged."""

RUN = r"flows/[^/]+/runs/[^/]+"
KINDS: tuple[tuple[re.Pattern[str], Any], ...] = tuple(
    (re.compile(pattern), kind) for pattern, kind in (
        (re.escape(ABOUT), About),
        (re.escape(SETTINGS), dict[str, Any]),
        (r"results/(?!batches/)[^/]+/[^/]+/[^/]+\.json", Record),
        (r"results/batches/[^/]+/[^/]+\.jsonl", Record),
        (r"facts/[^/]+\.json", records.Facts),
        (r"claims/[^/]+/[^/]+/\d+\.json", Claim),
        (r"flows/[^/]+/flow\.json", FlowFile),
        (rf"{RUN}/notebook\.ipynb", str),
        (rf"{RUN}/events/[^/]+\.jsonl", records.Stamped),
        (rf"{RUN}/logs/[^/]+/[^/]+\.jsonl", Started | Output),
        (rf"{RUN}/attempts/[^/]+/spec\.msgpack", TaskSpec),
        (rf"{RUN}/attempts/[^/]+/result\.msgpack", WorkerResult),
        (rf"{RUN}/attempts/[^/]+/beat-[^/]+\.json", Beat),
        (rf"{RUN}/attempts/[^/]+/cancel\.json", CancelMark),
        (rf"{RUN}/attempts/[^/]+/worker\.json", StartedWorker),
        (rf"{RUN}/(?:beats|cancel)/[^/]+\.json", records.Moment),
    )
)  # fmt: skip
"""What a file holds, by its path; those that end with `l` hold one on each line."""

SEGMENT = re.compile(r"segments/([^/]+)/[^/]+/([^/]+)")
AT_ONCE = 64

Told = Callable[[int, int], None]
"""Called with the bytes that were read, and how many there are."""


class Flaw(Frozen, frozen=True, kw_only=True, omit_defaults=True):
    """One file that is not as it should be; `lines` are those of a file of lines that are torn."""

    path: str
    kind: Literal["damaged", "gone", "unknown"]
    what: str
    concerns: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    repaired: str = ""


class Integrity(Frozen, frozen=True, kw_only=True):
    """What was read, and what is wrong with it."""

    files: int
    nbytes: int
    flaws: tuple[Flaw, ...] = ()

    @property
    def damaged(self) -> list[Flaw]:
        """What is damaged and has not been repaired."""
        return [flaw for flaw in self.flaws if flaw.kind == "damaged" and not flaw.repaired]


def examine(store: Store, told: Told) -> Integrity:
    """Read all files of a store.

    FormatError where a newer nbflow wrote it, StoreError where it cannot be used, or where there is none.
    """
    try:
        store.check_format()
    except FormatError:
        raise
    except StoreError:
        store.list("")  # it is there: what it says of itself is one of the things to be told
    files = store.list("")
    if not any(entry.path != SETTINGS for entry in files):
        raise StoreError(
            f"there is no datastore at {store.url}", fix="name it with --store; a notebook's first run makes one"
        )
    entries = [entry for entry in files if not entry.path.startswith((f"{ASIDE}/", "segments/"))]
    reading = _Inspection(store, told, sum(entry.size for entry in entries))
    for start in range(0, len(entries), AT_ONCE):
        reading.files(entries[start : start + AT_ONCE])
    reading.segments(store.list("segments"))  # last: a record is written after the segments that it names
    reading.references()
    reading.runs()
    return Integrity(files=reading.count, nbytes=reading.done, flaws=tuple(sorted(reading.flaws, key=lambda f: f.path)))


class _Inspection:
    """A store on its way through `examine`."""

    def __init__(self, store: Store, told: Told, total: int) -> None:
        self.store = store
        self.told = told
        self.total = total
        self.done = 0
        self.count = 0
        self.flaws: list[Flaw] = []
        self.owners: dict[str, list[tuple[str, Record]]] = {}  # segment -> the files and records that name it
        self.lengths: dict[str, int] = {}  # segment -> its length, as records say it
        self.executions: set[str] = set()

    def _read(self, size: int) -> None:
        self.count += 1
        self.done += size
        self.told(self.done, self.total)

    def _flaw(self, path: str, what: str, kind: Literal["damaged", "gone", "unknown"] = "damaged", **more: Any) -> None:
        self.flaws.append(Flaw(path=path, kind=kind, what=what, **more))

    # ------------------------------------------------------------ files

    def files(self, entries: Sequence[FileEntry]) -> None:
        """Read some files that are no segments."""
        kinds = {entry.path: kind for entry in entries if (kind := kind_of(entry.path)) is not None}
        data = self.store.read_many(list(kinds))
        for entry in entries:
            self._read(entry.size)
            if entry.path not in kinds:
                self._flaw(entry.path, "no file of a datastore bears such a name", "unknown")
            elif entry.path in data:
                self._look_at(entry.path, kinds[entry.path], data[entry.path])
            elif self.store.exists(entry.path):
                self._flaw(entry.path, "it cannot be read", concerns=_run_of(entry.path))

    def _look_at(self, path: str, kind: Any, data: bytes) -> None:
        if kind is Record:
            self._note(path, data)
        flaw = flaw_of(path, kind, data)
        if flaw is not None:
            self.flaws.append(flaw)

    def _note(self, path: str, data: bytes) -> None:
        for line in data.split(b"\n") if is_batch(path) else [data]:
            record = records.record_of(line)
            if record is None:
                continue
            self.executions.add(record.execution)
            for segment in segments_in(record.groups):
                self.owners.setdefault(segment.hash, []).append((path, record))
                self.lengths[segment.hash] = segment.length

    # ------------------------------------------------------------ segments

    def segments(self, entries: Sequence[FileEntry]) -> None:
        """Read all segments, several at a time."""
        self.total += sum(entry.size for entry in entries)
        with ThreadPoolExecutor(4, "nbflow-fsck") as pool:
            for entry, problem in zip(entries, pool.map(self._verify, entries), strict=True):
                self._read(entry.size)
                name = hash_at(entry.path)
                if name is None:
                    self._flaw(entry.path, "no segment bears such a name", "unknown")
                elif problem:
                    self._flaw(entry.path, problem, concerns=self._concerned(name))

    def _verify(self, entry: FileEntry) -> str:
        """Return what is wrong with a segment, an empty string where nothing is."""
        name = hash_at(entry.path)
        if name is None:
            return ""
        look = self.store.look(entry.path)
        data = self.store.read_many([entry.path]).get(entry.path)
        if data is None:
            return "it cannot be read" if self.store.exists(entry.path) else ""
        whole = hash_of(data) == name
        if look is not None:
            self.store.verified.put({name: SegmentMark(look.stamp, whole)})
        return "" if whole else "its bytes are not what its name says"

    def _concerned(self, name: str) -> tuple[str, ...]:
        labels = (label for _, record in self.owners.get(name, ()) for label in _parts_with(record, name))
        return tuple(dict.fromkeys(labels))

    # ------------------------------------------------------------ what belongs together

    def references(self) -> None:
        """Find records that name segments which are not there, and those which are damaged."""
        broken = {flaw.path for flaw in self.flaws if flaw.kind == "damaged"}
        lacking: dict[str, dict[str, None]] = {}  # a file of records -> the artifacts that it cannot give
        emptied = {run.run for run in summaries(self.store) if run.emptied_at is not None}
        for name, owners in self.owners.items():
            path = segment_path(name)
            size = self.store.size(path)
            if path not in broken and size == self.lengths[name]:
                continue
            for owner, record in owners:
                if size is None and record.run in emptied:  # a clean-up took it
                    continue
                lacking.setdefault(owner, {}).update(dict.fromkeys(_parts_with(record, name)))
        for owner, labels in lacking.items():
            if self.store.exists(owner):
                self._flaw(owner, "it names segments that are damaged or missing", concerns=tuple(labels))

    def runs(self) -> None:
        """Find what runs have lost: their notebook, lines of their events, results of their tasks."""
        for flow in stored_flows(self.store):
            for folder in flow.folders:
                for run in records.list_runs(self.store, folder):
                    self._run(flow.name, folder, run)

    def _run(self, flow: str, folder: str, run: str) -> None:
        place, label = records.run_folder(folder, run), f"{flow}/{run}"
        last = {
            event.task: event for event in records.read_events(self.store, folder, run)
            if isinstance(event, TaskChanged)
        }  # fmt: skip
        if not self.store.children(f"{place}/events"):
            return  # just begun, or just removed
        if self.store.size(f"{place}/notebook.ipynb") is None:
            self._flaw(f"{place}/notebook.ipynb", "it is not there", "gone", concerns=(label,))
        if _has_gap(place, self.store.children(f"{place}/events")):
            self._flaw(f"{place}/events", "some of its files are not there", "gone", concerns=(label,))
        steps = [
            task.step for task, event in last.items()
            if event.state in ("done", "reused", "caught") and event.key and event.execution not in self.executions
            and records.read_record(self.store, event.key, event.execution) is None
        ]  # fmt: skip
        for step in dict.fromkeys(steps):
            self._flaw(place, f"the result of {step} is not there", "gone", concerns=(f"{label}/{step}",))


def kind_of(path: str) -> Any:
    """Return what a file of a datastore holds, None where its name is none of ours."""
    return next((kind for pattern, kind in KINDS if pattern.fullmatch(path)), None)


def hash_at(path: str) -> str | None:
    """Return the hash that a segment's path says, None where it says none."""
    match = SEGMENT.fullmatch(path)
    name = f"{match[1]}:{match[2]}" if match else ""
    return name if match and name.startswith("b3:") and segment_path(name) == path else None


def flaw_of(path: str, kind: Any, data: bytes) -> Flaw | None:
    """Return what is wrong with the bytes of a file that holds such a thing, None where nothing is."""
    if path.endswith(".jsonl"):
        return _flaw_of_lines(path, kind, data)
    if kind is str:
        if _is_notebook(data):
            return None
        return Flaw(path=path, kind="damaged", what="it is no notebook", concerns=_run_of(path))
    if _is_packed(kind, data) if path.endswith(".msgpack") else _holds(kind, data):
        return None
    what = "it is empty" if not data.strip() else "it is torn, or is something else"
    if kind is Claim:
        what += "; it says that a step with --once has begun, and stays: delete it only if that is not so"
    return Flaw(path=path, kind="damaged", what=what, concerns=_run_of(path))


def _is_notebook(data: bytes) -> bool:
    """Return whether bytes are the text of a notebook: JSON, or cells in percent format, which is no JSON."""
    try:
        text = data.decode()
        if text.lstrip().startswith("{"):
            read_document(text, "")
            return True
    except (NbflowError, UnicodeDecodeError):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return bool(text.strip()) and "\0" not in text
    return False


def _holds(kind: Any, data: bytes) -> bool:
    return records.record_of(data) is not None if kind is Record else from_json(data, kind) is not None


def _is_packed(kind: Any, data: bytes) -> bool:
    try:
        msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _flaw_of_lines(path: str, kind: Any, data: bytes) -> Flaw | None:
    """Return which lines of a file are torn; an empty line is one that a repair has taken out."""
    folder, _, name = path.rpartition("/")
    chunk = parse_name(folder, name)
    if chunk is None:
        return Flaw(path=path, kind="unknown", what="no file of lines bears such a name")
    lines = data.split(b"\n")
    torn = [at for at, line in enumerate(lines) if line and not _holds(kind, line)]
    if lines[-1] and len(lines) - 1 not in torn:
        torn.append(len(lines) - 1)  # cut off just before its end
    expected = chunk.last - chunk.first + 1
    cut = kind is not Record and len(lines) - 1 < expected
    if not torn and not cut:
        return None
    what = f"{len(torn)} of its lines are torn" if torn else f"{expected - len(lines) + 1} of its lines are not there"
    return Flaw(path=path, kind="damaged", what=what, concerns=_run_of(path), lines=tuple(torn))


def _has_gap(place: str, names: Iterable[str]) -> bool:
    """Return whether lines are missing between the files of one writer."""
    chunks = sorted(chunk for name in names if (chunk := parse_name(f"{place}/events", name)) is not None)
    starts = {chunk.writer: chunk.first for chunk in reversed(chunks)}
    return any(starts.values()) or any(
        before.writer == after.writer and before.last + 1 < after.first for before, after in pairwise(chunks)
    )


def _parts_with(record: Record, name: str) -> Iterator[str]:
    """Yield what of a record a segment is a part of, as people read it."""
    for group in record.groups:
        if any(segment.hash == name for segment in segments_in([group])):
            yield f"{record.flow}/{record.run}/{record.step}: {', '.join(group.names)}"


def _run_of(path: str) -> tuple[str, ...]:
    """Return the run that a file belongs to, by its path."""
    parts = path.split("/")
    return (f"{parts[1]}/{name_of(parts[3])}",) if len(parts) > 4 and parts[0] == "flows" else ()


# ---------------------------------------------------------------- repair


def repair(store: Store, integrity: Integrity) -> Integrity:
    """Move aside what is damaged, and drop records that name such segments, so that their steps run again.

    Everything is looked at once more before it is touched: a run may have mended it meanwhile.
    """
    order = sorted(integrity.damaged, key=lambda flaw: (flaw.path != ABOUT, flaw.path.startswith("segments/")))
    repairs = {flaw.path: _repair(store, flaw) for flaw in order}
    flaws = tuple(
        msgspec.structs.replace(flaw, repaired=repairs[flaw.path]) if flaw.kind == "damaged" else flaw
        for flaw in integrity.flaws
    )
    return msgspec.structs.replace(integrity, flaws=flaws)


def _repair(store: Store, flaw: Flaw) -> str:
    """Repair one file; return what was done, an empty string where nothing can be."""
    data = store.read_many([flaw.path]).get(flaw.path)
    if data is None:
        return "" if store.exists(flaw.path) else "it is gone"
    kind = kind_of(flaw.path)
    if kind is Claim or flaw.path == SETTINGS:  # not ours to judge
        return ""
    if flaw.path == ABOUT:
        store.mend_format()
    if flaw.path.endswith(".jsonl"):
        return _without_lines(store, flaw, data)
    if kind is Record and (record := records.record_of(data)) is not None and _is_given(store, record):
        return "it has been made again"
    if flaw.path.startswith("segments/") and hash_of(data) == hash_at(flaw.path):
        return "it has been made again"
    store.write(f"{ASIDE}/{flaw.path}", data)
    if flaw.path != ABOUT:
        store.delete(flaw.path)
    return f"moved to {ASIDE}/"


def _is_given(store: Store, record: Record) -> bool:
    return all(store.has_segment(segment, verify=True) for segment in segments_in(record.groups))


def _without_lines(store: Store, flaw: Flaw, data: bytes) -> str:
    """Write a file of lines without those that are torn; an empty line keeps the place of each."""
    kind = kind_of(flaw.path)
    lines = data.split(b"\n")
    tail = lines.pop()
    chunk = parse_name(*flaw.path.rsplit("/", 1))
    is_whole = partial(_names_whole, store) if kind is Record else partial(_holds, kind)
    rest = [line if is_whole(line) else b"" for line in lines]
    if chunk is not None:
        rest += [tail if tail and _holds(kind, tail) else b""] if tail else []
        rest += [b""] * (chunk.last - chunk.first + 1 - len(rest))
    now = b"".join(line + b"\n" for line in rest)
    if now == data:
        return "it has been made again"
    store.write(f"{ASIDE}/{flaw.path}", data)
    store.write(flaw.path, now)
    return f"written without them; as it was it lies in {ASIDE}/"


def _names_whole(store: Store, line: bytes) -> bool:
    record = records.record_of(line)
    return record is not None and _is_given(store, record)


# ---------------------------------------------------------------- told


def as_object(integrity: Integrity) -> dict[str, Any]:
    """Return what was found for JSON."""
    return {
        "files": integrity.files, "nbytes": integrity.nbytes, "damaged": len(integrity.damaged),
        "flaws": msgspec.to_builtins(integrity.flaws),
    }  # fmt: skip


def text(integrity: Integrity) -> str:
    """Return what was found for a person."""
    lines = []
    for flaw in integrity.flaws:
        lines.append(f"{flaw.kind:8} {flaw.path}: {flaw.what}{f' ({flaw.repaired})' if flaw.repaired else ''}")
        lines += [f"         concerns {each}" for each in flaw.concerns[:5]]
        lines += [f"         and {len(flaw.concerns) - 5} more"] if len(flaw.concerns) > 5 else []
    read = f"{integrity.files} files read, {preview.size(integrity.nbytes)}"
    repaired = sum(bool(flaw.repaired) for flaw in integrity.flaws)
    flaws = len(integrity.damaged)
    what = [f"{flaws} damaged"] if flaws else []
    what += [f"{repaired} repaired"] if repaired else []
    lines.append(f"{read}: {', '.join(what) or 'nothing is damaged'}")
    if flaws:
        lines.append("fix: `nbflow fsck --repair` moves aside what is damaged; the steps that it concerns run again")
    elif repaired:
        lines.append(f"what was damaged lies in {ASIDE}/ of the datastore; delete it when nobody needs it any more")
    return "\n".join(lines)
