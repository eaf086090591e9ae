"""A sqlite file in the user's cache folder that spares reading every run again: run summaries and step durations.

Nothing in it is true by itself: it is made from the store, may be deleted at any time, and is made anew when damaged.
Several processes may use it at once.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nbflow.model import (
    Emptied,
    Frozen,
    RunEnded,
    RunEvent,
    RunStarted,
    RunStatus,
    Snapshot,
    Tagged,
    TaskChanged,
    TaskState,
)
from nbflow.store import records
from nbflow.store.index_file import IndexFile
from nbflow.store.location import LocalStore, Store

if TYPE_CHECKING:
    import sqlite3

KEPT_DURATIONS = 20


class RunSummary(Frozen, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a list of runs; `folder` is its flow's, `counts` has the number of tasks in each state."""

    folder: str
    flow: str
    run: str
    status: RunStatus
    created_at: float
    finished_at: float | None = None
    tags: tuple[str, ...] = ()
    counts: dict[TaskState, int] = {}  # noqa: RUF012  # msgspec copies it for each instance
    notebook: str | None = None
    origin: str | None = None
    session: bool = False
    asked: tuple[str, ...] = ()
    error: str | None = None
    emptied_at: float | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether it ran the whole flow: neither cells by hand nor a part of it."""
        return not self.session and not self.asked


def summarise(folder: str, run: str, events: Iterable[RunEvent]) -> RunSummary | None:
    """Return the summary of a run's events, None when the run never started; it is "running" while it has no end."""
    started: RunStarted | None = None
    ended: RunEnded | None = None
    emptied_at: float | None = None
    tags: dict[str, None] = {}
    states: dict[tuple[object, ...], TaskState] = {}
    for event in events:
        if isinstance(event, RunStarted):
            started = started or event
            ended = None
            tags |= dict.fromkeys(event.tags)
        elif isinstance(event, TaskChanged):
            states[event.task.step, event.task.index, event.task.turn] = event.state
        elif isinstance(event, Tagged):
            tags = {**tags, event.name: None} if event.present else {tag: None for tag in tags if tag != event.name}
        elif isinstance(event, RunEnded):
            ended = event
        elif isinstance(event, Emptied):
            emptied_at = event.at
    if started is None:
        return None
    counts: dict[TaskState, int] = {}
    for state in states.values():
        counts[state] = counts.get(state, 0) + 1
    return RunSummary(
        folder=folder,
        flow=started.flow,
        run=run,
        status=ended.status if ended else "running",
        created_at=started.at,
        finished_at=ended.at if ended else None,
        tags=tuple(tags),
        counts=counts,
        notebook=started.notebook,
        origin=started.origin,
        session=started.session,
        asked=started.asked,
        error=ended.error if ended else None,
        emptied_at=emptied_at,
    )


class Index:
    """The index of one store; every method works without the file too, only slower the next time."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        self._file = IndexFile(url, folder)

    # -- runs

    def put_runs(self, summaries: Sequence[tuple[RunSummary, int]]) -> None:
        """Remember runs as they are now, each with when its events changed last (ns), 0 to read them again."""
        rows = [(each.folder, each.run, each.created_at, stamp, msgspec.json.encode(each)) for each, stamp in summaries]
        self._file.use(lambda db: db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", rows), None)

    def forget_run(self, folder: str, run: str) -> None:
        """Drop a run that is no longer in the store."""
        self._file.use(lambda db: db.execute("DELETE FROM runs WHERE folder = ? AND run = ?", (folder, run)), None)

    def known(self, folders: Sequence[str] | None = None) -> dict[tuple[str, str], tuple[RunSummary, int]]:
        """Return the remembered runs of flows' folders (None: all) with their stamps, by folder and run."""
        where = "" if folders is None else f"WHERE folder IN ({', '.join('?' for _ in folders)})"
        query = f"SELECT stamp, summary FROM runs {where}"  # noqa: S608  # constant text
        rows: list[tuple[int, bytes]] = self._file.use(lambda db: db.execute(query, folders or ()).fetchall(), [])
        decoder = msgspec.json.Decoder(RunSummary)
        try:
            summaries = [(decoder.decode(data), stamp) for stamp, data in rows]
        except (ValueError, RecursionError):
            self._file.remove()
            return {}
        return {(summary.folder, summary.run): (summary, stamp) for summary, stamp in summaries}

    def runs(self, store: Store, folders: Sequence[str] | None = None, tags: Iterable[str] = ()) -> list[RunSummary]:
        """Return the runs of flows' folders (None: all) that have all of some tags, newest first.

        Lists the store, and reads only the runs that are new, unfinished or changed since they were read. (A tag given
        later on another machine to a run in a remote store shows once that run is read again.)
        """
        remembered = self.known(folders)
        flows = store.children("flows") if folders is None else folders
        present = [(folder, run) for folder in flows for run in records.list_runs(store, folder)]
        for removed in remembered.keys() - set(present):
            self.forget_run(*removed)
        current: dict[tuple[str, str], RunSummary] = {}
        stale: dict[tuple[str, str], int] = {}
        for key in present:
            summary, read_at = remembered.get(key, (None, 0))
            stamp = _stamp(store, *key)
            if summary is None or summary.finished_at is None or stamp != read_at:
                stale[key] = stamp
            else:
                current[key] = summary
        fresh = _read_summaries(store, list(stale))
        if fresh:
            self.put_runs([(summary, stale[summary.folder, summary.run]) for summary in fresh])
        required = set(tags)
        matching = [each for each in (*current.values(), *fresh) if required <= set(each.tags)]
        return sorted(matching, key=lambda each: (each.run, each.created_at), reverse=True)

    # -- durations

    def add_duration(self, folder: str, step: str, seconds: float, at: float) -> None:
        """Remember how long a task of a step took; only the last ones are kept."""

        def add(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO durations VALUES (?, ?, ?, ?)", (folder, step, at, seconds))
            db.execute(
                "DELETE FROM durations WHERE folder = ?1 AND step = ?2 AND at < (SELECT min(at) FROM (SELECT at FROM"
                " durations WHERE folder = ?1 AND step = ?2 ORDER BY at DESC LIMIT ?3))",
                (folder, step, KEPT_DURATIONS),
            )

        self._file.use(add, None)

    def add_run(self, folder: str, snapshot: Snapshot) -> None:
        """Remember how long the tasks that a run executed took: what the next run is expected to take."""
        by_step: dict[str, list[tuple[float, float]]] = {}
        for view in snapshot.tasks:
            if view.state == "done" and view.elapsed is not None:
                by_step.setdefault(view.task.step, []).append((view.started_at or 0.0, view.elapsed))
        for step, durations in by_step.items():
            for at, seconds in sorted(durations)[-3:]:  # a wide fan-out must not push out all earlier runs
                self.add_duration(folder, step, seconds, at)

    def durations(self, folder: str) -> dict[str, float]:
        """Return the median duration of a task, in seconds, for each step of a flow's folder that has ended once."""
        rows: list[tuple[str, float]] = self._file.use(
            lambda db: db.execute("SELECT step, seconds FROM durations WHERE folder = ?", (folder,)).fetchall(), []
        )
        steps: dict[str, list[float]] = {}
        for step, seconds in rows:
            steps.setdefault(step, []).append(seconds)
        return {step: statistics.median(values) for step, values in steps.items()}

    # -- what the user has been told

    def mark(self, name: str) -> tuple[float, bool]:
        """Return when a mark was set last (seconds since 1970, 0: never), and whether the user has been told."""
        query = "SELECT at, told FROM marks WHERE name = ?"
        rows: list[tuple[float, int]] = self._file.use(lambda db: db.execute(query, (name,)).fetchall(), [])
        return (rows[0][0], bool(rows[0][1])) if rows else (0.0, False)

    def put_mark(self, name: str, at: float, told: bool) -> None:
        """Set a mark."""
        self._file.use(lambda db: db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (name, at, told)), None)


def _stamp(store: Store, folder: str, run: str) -> int:
    """Return when a run's folder of events changed last, in nanoseconds, 0 where that is not known.

    A change of the last second gives a number that no other call gives, as another may follow within the clock's tick.
    """
    place = store.local_path(f"{records.run_folder(folder, run)}/events")
    if place is None:
        return 0
    try:
        changed = os.stat(place).st_mtime_ns  # noqa: PTH116  # once for each of many runs
    except OSError:  # no events yet
        return 0
    now = time.time_ns()
    return changed if now - changed > 1_000_000_000 else -now


def _read_summaries(store: Store, runs: Sequence[tuple[str, str]]) -> list[RunSummary]:
    def read(key: tuple[str, str]) -> RunSummary | None:
        return summarise(*key, records.read_events(store, *key))

    if isinstance(store, LocalStore) or len(runs) < 2:
        summaries = [read(key) for key in runs]
    else:
        with ThreadPoolExecutor(min(16, len(runs)), "nbflow-index") as pool:
            summaries = list(pool.map(read, runs))
    return [summary for summary in summaries if summary is not None]
