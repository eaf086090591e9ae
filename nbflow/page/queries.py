"""Past runs as pages draw them: lists of runs, one earlier run, what a task printed and left. Nothing unpickles."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, TypedDict

from nbflow.errors import NotFoundError
from nbflow.kernel.feed import Audience
from nbflow.model import SETTLED, Flow, TaskView
from nbflow.page.messages import ArtifactView, RunRow, SnapshotMessage
from nbflow.page.snapshot import PageRun, past
from nbflow.render import cards, preview
from nbflow.render.components import joined
from nbflow.runs import client, compare
from nbflow.store.flows import find_flow
from nbflow.store.location import open_store
from nbflow.store.stored_run import find_run, summaries

LISTED = 50
LOG = 20_000
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class TaskDetails(TypedDict):
    """What a detail message says of a task."""

    log: str
    truncated: bool
    artifacts: list[ArtifactView]


def runs(store: str, flow: Flow) -> list[RunRow]:
    """Return the runs of a flow, newest first; none where the datastore does not know it."""
    opened = open_store(store)
    entry = find_flow(opened, flow.notebook)
    rows = []
    for summary in (summaries(opened, entry) if entry is not None else [])[:LISTED]:
        row = client.row(summary)
        rows.append(RunRow(
            run=row.run, status=row.status, by_hand=summary.session, started_at=row.started_at, elapsed=row.elapsed,
            tasks=row.tasks, tags=list(row.tags), note=row.note,
        ))  # fmt: skip
    return rows


def last_unfinished(store: str, flow: Flow) -> str:
    """Return the id of a flow's newest whole run that did not end well, or raise NotFoundError."""
    opened = open_store(store)
    entry = find_flow(opened, flow.notebook)
    failed = client.last_failed(summaries(opened, entry) if entry is not None else ())
    if failed is None:
        raise NotFoundError("no run has failed", fix="run the flow")
    return failed.run


def past_run(store: str, flow: Flow, run: str) -> SnapshotMessage:
    """Return an earlier run as a page draws it beside the flow of today."""
    stored = find_run(open_store(store), run)
    return past(flow, PageRun(snapshot=stored.snapshot, by_hand=stored.started.session))


class Heard(NamedTuple):
    """What this kernel heard of its own runs."""

    audience: Audience

    def task(self, run: str, step: str, index: tuple[int, ...]) -> TaskView | None:
        """Return the task's last turn, None when nothing was heard of it."""
        for snapshot in (self.audience.run, self.audience.by_hand):
            for view in reversed(snapshot.tasks if snapshot is not None and snapshot.run == run else ()):
                if view.task.step == step and view.task.index == index:
                    return view
        return None


class ShownCard(NamedTuple):
    """A card as a page of its own; both are empty where there is nothing to show."""

    title: str = ""
    page: str = ""

    @property
    def digest(self) -> str:
        """A text that changes with the page."""
        return hashlib.sha256(self.page.encode()).hexdigest()[:16]


def detail(store: str, run: str, step: str, index: tuple[int, ...], heard: Heard) -> TaskDetails:
    """Return what a task printed and left; `heard` is what this kernel knows of it before the store does."""
    view = heard.task(run, step, index)
    live = heard.audience.printed(run, view.task) if view is not None else None
    task = _task(store, run, step, index)
    if task is None:
        return _cut(live or "", [])
    log = live if live is not None and task.state in ("running", "queued") else task.stdout + task.stderr
    artifacts = [
        ArtifactView(
            name=artifact.name, type=artifact.type, shape=preview.shape(artifact.shape),
            size=preview.size(artifact.nbytes), preview=preview.clip(artifact.preview, 120),
        )
        for artifact in task.artifacts.values()
    ]  # fmt: skip
    return _cut("\n".join(filter(None, (log or live, task.lost))), artifacts)


def card(store: str, run: str, step: str, index: tuple[int, ...], heard: Heard, *, whole: bool) -> ShownCard:
    """Return a task's card, or what its code shows while it runs."""
    view = heard.task(run, step, index)
    live = view is not None and view.state not in SETTLED and not whole
    task = None if live else _task(store, run, step, index)
    name = f"{step}/{preview.index(index)}" if index else step
    pieces = []
    if whole and task is not None:
        whole_card = task.card
        return ShownCard(whole_card.title, whole_card.html)
    if task is not None and task.state in SETTLED:
        outputs = task.outputs
        pieces = cards.displayed(outputs, cards.made_cards(outputs))
    elif view is not None:
        pieces = cards.displayed((), heard.audience.cards(run, view.task))
    return ShownCard(name, cards.document("", "", joined(cards.within(pieces)).html)) if pieces else ShownCard(name)


def compared(store: str, before: str, after: str) -> ShownCard:
    """Return two runs side by side as a page; nothing is loaded."""
    comparison = compare.compare(client.Run(before, store), client.Run(after, store))
    title = f"{before} and {after}"
    return ShownCard(title, cards.document("", "", compare.as_html(comparison)))


def _task(store: str, run: str, step: str, index: tuple[int, ...]) -> client.Task | None:
    try:
        stored_step = client.Run(run, store=store)[step]
    except NotFoundError:
        return None
    tasks = [task for task in stored_step.tasks if task.index == index]
    return tasks[-1] if tasks else None


def _cut(log: str, artifacts: list[ArtifactView]) -> TaskDetails:
    plain = _COLOUR.sub("", log)
    return TaskDetails(log=plain[-LOG:], truncated=len(plain) > LOG, artifacts=artifacts)
