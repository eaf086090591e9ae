"""Past runs as pages draw them: lists of runs, one earlier run, what a task printed and left. Nothing unpickles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from nbflow import client
from nbflow.errors import NotFoundError
from nbflow.messages import ArtifactView, RunRow, SnapshotMessage
from nbflow.model import Flow, Snapshot, TaskId
from nbflow.past import find_run, summaries
from nbflow.render import preview
from nbflow.render.page import Seen, past
from nbflow.storage import open_store

LISTED = 50
LOG = 20_000
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Found(TypedDict):
    """What a detail message says of a task."""

    log: str
    truncated: bool
    artifacts: list[ArtifactView]


def runs(store: str, flow: str) -> list[RunRow]:
    """A datastore and a flow in; its runs, newest first, out; none where the store knows no such flow."""
    found = []
    for summary in summaries(open_store(store), flow)[:LISTED]:
        row = client.row(summary)
        found.append(RunRow(
            run=row.run, status=row.status, by_hand=summary.session, started_at=row.started_at, elapsed=row.elapsed,
            tasks=row.tasks, tags=list(row.tags), note=row.note,
        ))  # fmt: skip
    return found


def last_unfinished(store: str, flow: str) -> str:
    """A datastore and a flow in; the id of its newest run that did not end well out; NotFoundError for none."""
    for row in runs(store, flow):
        if row["status"] in ("failed", "cancelled", "lost") and not row["by_hand"]:
            return row["run"]
    raise NotFoundError("no run has failed", fix="run the flow")


def past_run(store: str, flow: Flow, run: str) -> SnapshotMessage:
    """A datastore, the flow of today and a run's id in; the run as a page draws it out."""
    found = find_run(open_store(store), f"{flow.name}/{run}")
    return past(flow, Seen(snapshot=found.snapshot, by_hand=found.started.session))


class Heard(NamedTuple):
    """What this kernel heard of its own runs: the end of what tasks printed, and where the tasks stand."""

    printed: Callable[[str, TaskId], str | None]
    snapshots: Sequence[Snapshot]

    def of(self, run: str, step: str, index: tuple[int, ...]) -> str | None:
        """What the task's last turn printed; None when nothing was heard of it."""
        for snapshot in self.snapshots:
            for view in reversed(snapshot.tasks):
                if snapshot.run == run and view.task.step == step and view.task.index == index:
                    return self.printed(run, view.task)
        return None


def detail(store: str, flow: str, run: str, step: str, index: tuple[int, ...], heard: Heard) -> Found:
    """Where a task is, and what this kernel heard of it, in; what it printed and left out."""
    live = heard.of(run, step, index)
    try:
        found = client.Run(f"{flow}/{run}", store=store)[step]
        tasks = [task for task in found.tasks if task.index == index]
    except NotFoundError:
        tasks = []
    if not tasks:
        return _cut(live or "", [])
    task = tasks[-1]
    log = live if live is not None and task.state in ("running", "queued") else task.stdout + task.stderr
    artifacts = [
        ArtifactView(
            name=one.name, type=one.type, shape=preview.shape(one.shape), size=preview.size(one.nbytes),
            preview=preview.clip(one.preview, 120),
        )
        for one in task.artifacts.values()
    ]  # fmt: skip
    return _cut(log or live or "", artifacts)


def _cut(log: str, artifacts: list[ArtifactView]) -> Found:
    plain = _COLOUR.sub("", log)
    return Found(log=plain[-LOG:], truncated=len(plain) > LOG, artifacts=artifacts)
