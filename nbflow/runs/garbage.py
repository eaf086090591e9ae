"""What a datastore may lose: values of runs beyond those that are kept, and what no run reaches. Nothing is unpickled.

A run whose values go stays listed: its events, its notebook and the records of its results stay, and with these the
values that are so small that they lie in the records.

Safe beside runs in progress: they count as kept, and what nobody refers to stays for an hour, for whoever is just
about to refer to it; a segment that a writer finds already there counts as new. A link in the store is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nbflow.flow import findings
from nbflow.flow.options import parse_size
from nbflow.model import Finding, Record, RunStarted, TaskChanged
from nbflow.render import listing, preview
from nbflow.store import records
from nbflow.store.artifacts import segments_of
from nbflow.store.executions import PART
from nbflow.store.flows import stored_flows
from nbflow.store.index import Index, RunSummary
from nbflow.store.interface import segment_path
from nbflow.store.location import FileEntry, LocalStore, Store
from nbflow.store.settings import MOST
from nbflow.store.stored_run import summaries

KEEP = 10
DEFAULT = parse_size(MOST)
GRACE = 3600.0
"""Seconds that what nobody refers to is left alone."""


class Policy(msgspec.Struct, frozen=True):
    """How many runs of each flow are kept, at most how many bytes of a store; `force`: young left-overs go, too."""

    keep: int = KEEP
    most: int = DEFAULT
    force: bool = False


class Cleaning(msgspec.Struct, frozen=True):
    """What would go: values of runs, with the bytes of their logs and why; records that no run reaches; segments.

    `emptied` are the files of the records that stay and whose segments go.
    """

    runs: tuple[tuple[RunSummary, int, str], ...] = ()
    records: tuple[FileEntry, ...] = ()
    segments: tuple[FileEntry, ...] = ()
    emptied: tuple[FileEntry, ...] = ()
    links: tuple[str, ...] = ()  # folders of the store that are links: nothing is removed in them
    kept_runs: int = 0
    kept_bytes: int = 0
    young: int = 0  # bytes that nobody refers to, and that are too young to go

    @property
    def nbytes(self) -> int:
        """Bytes that would be free."""
        files = sum(entry.size for entry in (*self.records, *self.segments))
        return files + sum(size for _, size, _ in self.runs)


class _Contents(msgspec.Struct):
    """A store as one listing saw it."""

    runs: Sequence[RunSummary]
    sizes: Mapping[tuple[str, str], int]  # of each run's logs
    records: Sequence[tuple[FileEntry, tuple[Record, ...]]]  # files of results, of many small tasks or of one
    segments: Mapping[str, FileEntry]  # by path
    homes: Mapping[str, str]  # a folder of runs -> the folder of their flow
    reached: dict[tuple[str, str], frozenset[str]] = msgspec.field(default_factory=dict)  # run -> executions


def plan_cleaning(store: Store, policy: Policy | None = None, now: float | None = None) -> Cleaning:
    """Return what would be removed from a store; nothing is changed."""
    policy = policy or Policy()
    now = time.time() if now is None else now
    contents = _read(store)
    links = tuple(store.linked()) if isinstance(store, LocalStore) else ()
    dropped = {} if "flows" in links else _beyond(contents, policy.keep)
    dropped |= {} if "flows" in links else _too_large(contents, dropped, policy.most)
    staying = [run for run in contents.runs if _id(run) not in dropped and not _is_emptied(run)]
    executions, all_executions = _reached(contents, staying), _reached(contents, contents.runs)
    limit = now if policy.force else now - GRACE

    def is_young(entry: FileEntry, created: float = 0.0) -> bool:
        return (entry.mtime or created) >= limit and not policy.force

    # the results of many small tasks go together, once none of them is reached
    loose = _without(contents, all_executions)
    removable = [entry for entry, contained in loose if not is_young(entry, max(each.created_at for each in contained))]
    removable = [] if "results" in links else removable
    paths = {entry.path for entry in removable}
    empty = {entry.path for entry, _ in _without(contents, executions)} - {entry.path for entry, _ in loose}
    whole_records = (contained for entry, contained in contents.records if entry.path not in paths | empty)
    needed = _segments(each for contained in whole_records for each in contained)
    free = [entry for path, entry in contents.segments.items() if path not in needed]
    segments = [] if "segments" in links else [entry for entry in free if not is_young(entry)]
    going = {entry.path for entry in segments}
    emptied = [
        entry for entry, contained in contents.records
        if entry.path in empty and not going.isdisjoint(_segments(contained))
    ]  # fmt: skip
    whole = sum(contents.sizes.values()) + sum(entry.size for entry, _ in contents.records)
    whole += sum(entry.size for entry in contents.segments.values())
    young = sum(entry.size for entry, _ in loose if entry.path not in paths)
    young += sum(entry.size for entry in free) - sum(entry.size for entry in segments)
    runs = [run for run in contents.runs if _id(run) in dropped]
    cleaning = Cleaning(
        runs=tuple((run, contents.sizes.get(_id(run), 0), dropped[_id(run)]) for run in runs),
        records=tuple(removable), segments=tuple(segments), emptied=tuple(emptied), links=links,
        kept_runs=len(staying), young=young,
    )  # fmt: skip
    return msgspec.structs.replace(cleaning, kept_bytes=whole - cleaning.nbytes)


def clean(store: Store, cleaning: Cleaning) -> None:
    """Remove what `plan_cleaning` listed, except what a run that began since then has come to use."""
    for run, _, _ in cleaning.runs:
        records.empty_run(store, run.folder, run.run)
    ids = {run.run for run, _, _ in cleaning.runs}
    used = _used_now(store, ids)
    needed: set[str] = set()
    for entry in (*cleaning.records, *cleaning.emptied):
        contained = records.read_entry(store, entry.path)
        if any(record.execution in used for record in contained):
            needed |= _segments(contained)
        elif entry not in cleaning.emptied:
            store.delete(entry.path)
    for entry in cleaning.segments:
        place = entry.path
        if place not in needed and _is_unchanged(store, entry):
            store.delete(place)
    if isinstance(store, LocalStore):
        store.remove_temporary(time.time() - 24 * GRACE)


def as_object(cleaning: Cleaning) -> dict[str, Any]:
    """Return what is removed as objects for JSON."""
    return {
        "runs": [
            {"flow": run.flow, "run": run.run, "status": run.status, "nbytes": size, "why": why}
            for run, size, why in cleaning.runs
        ],
        "records": len(cleaning.records), "segments": len(cleaning.segments), "nbytes": cleaning.nbytes,
        "links": list(cleaning.links),
        "kept": {"runs": cleaning.kept_runs, "nbytes": cleaning.kept_bytes, "young": cleaning.young},
    }  # fmt: skip


def text(cleaning: Cleaning, *, done: bool) -> str:
    """Return what would be, or has been, removed as lines for a person."""
    cells = [
        (f"  {run.flow}/{run.run}", run.status, listing.when(run.created_at, time.time()), preview.size(size), why)
        for run, size, why in cleaning.runs
    ]
    lines = preview.grid(cells)
    for what, entries in (("results", cleaning.records), ("segments", cleaning.segments)):
        if entries:
            size = preview.size(sum(entry.size for entry in entries))
            whose = "no kept run" if what == "segments" else "no run"
            lines.append(f"  {len(entries)} {what} that {whose} reaches, {size}")
    lines += [f"  {name}/ is a link: nothing is removed in it" for name in cleaning.links]
    word = "removed" if done else "would be removed"
    remaining = f"{cleaning.kept_runs} runs kept whole, {preview.size(cleaning.kept_bytes)}"
    head = f"{preview.size(cleaning.nbytes)} {word}; {remaining}"
    if cleaning.young:
        head += f", of which {preview.size(cleaning.young)} are not referred to and younger than an hour"
    return "\n".join([*lines, head])


# ---------------------------------------------------------------- which runs


def _id(run: RunSummary) -> tuple[str, str]:
    return run.folder, run.run


def _is_held(run: RunSummary) -> bool:
    return bool(run.tags) or run.status == "running"


def _is_emptied(run: RunSummary) -> bool:
    """Return whether an earlier clean-up took a run's values; one that was resumed or goes on has new ones."""
    return run.emptied_at is not None and run.status != "running"


def _without(contents: _Contents, executions: set[str]) -> list[tuple[FileEntry, tuple[Record, ...]]]:
    """Return the files of records that hold none of these executions."""
    return [pair for pair in contents.records if executions.isdisjoint(each.execution for each in pair[1])]


def _beyond(contents: _Contents, keep: int) -> dict[tuple[str, str], str]:
    """Return the runs beyond the last ones of their flow, with the reason.

    Kernels' runs count apart, and so do runs of a part: many of them must not push out those of the whole flow.
    """
    counts: dict[tuple[str, bool, bool], int] = {}
    dropped = {}
    for run in (run for run in contents.runs if not _is_emptied(run)):
        group = (contents.homes[run.folder], run.session, bool(run.asked))
        counts[group] = counts.get(group, 0) + 1
        if counts[group] > keep and not _is_held(run):
            dropped[_id(run)] = f"beyond the last {keep}"
    return dropped


def _too_large(contents: _Contents, dropped: Mapping[tuple[str, str], str], most: int) -> dict[tuple[str, str], str]:
    """Return the runs, oldest first, that have to go until the store is small enough; a flow's last run stays."""
    homes = contents.homes
    newest = {homes[run.folder]: run for run in reversed([run for run in contents.runs if run.is_whole])}
    staying = [run for run in contents.runs if _id(run) not in dropped and not _is_emptied(run)]
    more: dict[tuple[str, str], str] = {}
    for run in reversed([*staying]):
        if _size(contents, staying) <= most:
            break
        if not _is_held(run) and newest.get(homes[run.folder]) is not run:
            staying.remove(run)
            more[_id(run)] = f"the store is larger than {preview.size(most)}"
    return more


def _size(contents: _Contents, kept: Iterable[RunSummary]) -> int:
    """Return the bytes that these runs reach."""
    runs = list(kept)
    executions = _reached(contents, runs)
    pairs = [pair for pair in contents.records if not executions.isdisjoint(each.execution for each in pair[1])]
    paths = _segments(each for _, records_of in pairs for each in records_of)
    size = sum(contents.sizes.get(_id(run), 0) for run in runs) + sum(entry.size for entry, _ in pairs)
    return size + sum(entry.size for path, entry in contents.segments.items() if path in paths)


# ---------------------------------------------------------------- what they reach


def _read(store: Store) -> _Contents:
    """Return all that is in a store, runs with the executions that stand for their tasks."""
    segments = {entry.path: entry for entry in store.list("segments")}
    entries = ((entry, tuple(records.read_entry(store, entry.path))) for entry in store.list("results"))
    files = [(entry, contained) for entry, contained in entries if contained]
    runs = summaries(store)  # last: what a run refers to has been written before
    homes = {folder: flow.folder for flow in stored_flows(store) for folder in flow.folders}
    contents = _Contents(runs, _run_sizes(store), files, segments, homes)
    contents.reached = {_id(run): _executions(store, *_id(run)) for run in runs}
    return contents


def _run_sizes(store: Store) -> dict[tuple[str, str], int]:
    return {
        (folder, run): sum(entry.size for entry in store.list(f"{records.run_folder(folder, run)}/logs"))
        for folder in store.children("flows")
        for run in records.list_runs(store, folder)
    }


def _executions(store: Store, folder: str, run: str) -> frozenset[str]:
    """Return the executions that a run's events name."""
    executions: set[str] = set()
    for event in records.read_events(store, folder, run):
        if isinstance(event, TaskChanged) and event.execution:
            executions.add(event.execution)
        elif isinstance(event, RunStarted):
            executions.update(execution for _, execution in event.given)
    return frozenset(executions)


def _reached(contents: _Contents, runs: Iterable[RunSummary]) -> set[str]:
    """Return the executions that runs reach: those in their events, their own, and the lists of fan-outs."""
    # A run refers to results of earlier runs that it has reused, by its events, and what it executed itself is found
    # by its id. The parts of a fan-out's list have no event of their own: they stay as long as the list does.
    ids = [_id(run) for run in runs]
    named = {execution for each in ids for execution in contents.reached.get(each, ())}
    own = {run for _, run in ids}
    records_of = [each for _, contained in contents.records for each in contained]
    named |= {record.execution for record in records_of if record.run in own}
    bodies = {(record.run, record.step) for record in records_of if record.execution in named}
    return named | {r.execution for r in records_of if PART in r.execution and (r.run, r.step) in bodies}


def _segments(found: Iterable[Record]) -> set[str]:
    return {segment_path(name) for record in found for name in segments_of(record.groups)}


def _used_now(store: Store, gone: set[str]) -> set[str]:
    """Return the executions that runs which have not ended name by now."""
    alive = [run for run in summaries(store) if run.status == "running" and run.run not in gone]
    return {execution for run in alive for execution in _executions(store, *_id(run))}


def _is_unchanged(store: Store, entry: FileEntry) -> bool:
    """Return whether a file is as it was listed: one that a writer has just counted on is newer now."""
    if not isinstance(store, LocalStore):
        return True
    folder, _, name = entry.path.rpartition("/")
    return any(now.mtime == entry.mtime for now in store.list(folder) if now.path.endswith(name))


EVERY = 600.0
"""Seconds between two looks at how large a datastore in a folder is."""

ELSEWHERE = 86_400.0
"""The same for one that is far away."""

MARK = "size"


def grown(store: Store, most: int) -> Finding | None:
    """Return what is to be said of a store that holds more than `most` bytes.

    It is said once: the user's index knows it, until the store has become smaller than that. Values are most of what a
    store holds, so that only their bytes are counted, and seldom.
    """
    index = Index(store.url)
    at, is_known = index.mark(MARK)
    now = time.time()
    if 0 <= now - at < (EVERY if isinstance(store, LocalStore) else ELSEWHERE):
        return None
    nbytes = sum(entry.size for entry in store.list("segments"))
    index.put_mark(MARK, now, nbytes > most)
    if nbytes <= most or is_known:
        return None
    gain = plan_cleaning(store, Policy(most=most)).nbytes
    return findings.grown(*map(preview.size, (nbytes, most, gain)))
