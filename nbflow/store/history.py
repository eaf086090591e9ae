"""A run's events folded into what people are shown: pure, for live runs and for old ones alike."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable

import msgspec

from nbflow.model import (
    NO_TASKS,
    SETTLED,
    WORST_FIRST,
    Emptied,
    FindingFound,
    RunEnded,
    RunEvent,
    RunStarted,
    RunStatus,
    Snapshot,
    Tagged,
    TaskChanged,
    TaskFailure,
    TaskId,
    TaskState,
    TaskView,
)

BEGUN = frozenset({"running", "reused", "skipped"})
"""States of the first event of a task that was not there before."""

HEARTBEAT_LIMIT = 20.0
"""Seconds without a heartbeat after which a run that has not ended counts as lost."""

LOST = TaskFailure(
    type="WorkerLost",
    message="the run ended before this task did",
    kind="lost",
    fix="resume the run: finished tasks are reused",
)


def snapshot(
    events: Iterable[RunEvent], now: float, heartbeat: float | None = None, alive: bool | None = None
) -> Snapshot:
    """Return a run as its events and signs of life show it at a moment.

    `now` and `heartbeat` (the last one, None when there was none) are seconds since 1970; `alive` says whether the
    run's process exists, None when that cannot be known from here. Raise ValueError when no event starts a run.
    """
    start: RunStarted | None = None
    begun = 0.0
    end: RunEnded | None = None
    emptied_at: float | None = None
    tags: dict[str, bool] = {}
    tasks: dict[TaskId, TaskView] = {}
    findings = []
    for event in events:
        if isinstance(event, RunStarted):
            # a run by hand announces itself again when its notebook has new steps
            begun = event.at if start is None else begun
            start = event
            tags.update(dict.fromkeys(event.tags, True))
        elif isinstance(event, TaskChanged):
            tasks[event.task] = advance(tasks.get(event.task), event)
            for later in ended_by(event, tasks):
                del tasks[later]
        elif isinstance(event, FindingFound):
            if event.finding not in findings:
                findings.append(event.finding)
        elif isinstance(event, Tagged):
            tags[event.name] = event.present
        elif isinstance(event, Emptied):
            emptied_at = event.at
        else:
            end = event
    if start is None:
        raise ValueError("no event starts a run")
    status = end.status if end else _status(start, begun, now, heartbeat, alive)
    return Snapshot(
        run=start.run,
        flow=start.flow,
        status=status,
        started_at=begun,
        steps=start.steps,
        labels=start.labels,
        cells=start.cells,
        loops=start.loops,
        folded=start.folded,
        rows=start.rows,
        tasks=tuple(settle(view, status, now) for view in _in_order(start, _without_placeholders(tasks))),
        edges=start.edges,
        finished_at=end.at if end else None,
        error=end.error if end else None,
        parameters=start.parameters,
        tags=tuple(name for name, present in tags.items() if present),
        findings=tuple(findings),
        emptied_at=emptied_at,
        verified=start.verified,
    )


def advance(view: TaskView | None, event: TaskChanged) -> TaskView:
    """Return a task after its next event; an event of an attempt that a later one has replaced changes nothing."""
    if view is not None and event.attempt < view.attempt:
        return view
    same = view if view is not None and view.attempt == event.attempt else None
    started = same.started_at if same else None
    if event.state == "running":
        started = event.at
    elapsed = event.elapsed
    if elapsed is None and event.state in SETTLED and started is not None:
        elapsed = max(0.0, event.at - started)
    return TaskView(
        task=event.task,
        state=event.state,
        attempt=event.attempt,
        started_at=started,
        elapsed=elapsed,
        reasons=event.reasons or (view.reasons if view else ()),
        failure=event.failure,
        reused_from=event.reused_from,
        execution=event.execution or (same.execution if same else ""),
        key=event.key or (view.key if view else ""),
        item=event.item or (view.item if view else ""),
        pid=event.pid or (same.pid if same else 0),
    )


def ended_by(event: TaskChanged, tasks: Container[TaskId]) -> list[TaskId]:
    """Return the tasks that count no longer now that an event has come: later turns of a loop that begins anew.

    A step run by hand once more, or with another header, may have fewer turns than the last time, or none.
    """
    if event.state not in BEGUN or event.task.part:
        return []
    first = 0 if event.task.turn is None else event.task.turn + 1
    later = (msgspec.structs.replace(event.task, turn=turn) for turn in itertools.count(first))
    return list(itertools.takewhile(tasks.__contains__, later))


def settle(view: TaskView, status: RunStatus, now: float) -> TaskView:
    """Return a task as its run's status makes it: with the time that it has been running, or failed in a lost run."""
    if view.state == "queued" and status == "lost":
        return msgspec.structs.replace(view, state="pending")
    if view.state != "running":
        return view
    if status == "lost":
        return msgspec.structs.replace(view, state="failed", failure=LOST)
    if view.started_at is None:
        return view
    return msgspec.structs.replace(view, elapsed=max(0.0, now - view.started_at))


def worst(states: Iterable[TaskState]) -> TaskState | None:
    """Return which of some tasks' states a person must know first, None for no task."""
    present = set(states)
    return next((state for state in WORST_FIRST if state in present), None)


def step_state(tasks: Iterable[TaskView], status: RunStatus) -> TaskState:
    """Return the worst state of a step's tasks in a run of that status.

    A step without tasks is a fan-out: over an empty list where its run has ended well, else one never reached.
    """
    return worst(view.state for view in tasks) or NO_TASKS[status]


def _status(start: RunStarted, begun: float, now: float, heartbeat: float | None, alive: bool | None) -> RunStatus:
    if alive is False:
        return "lost"
    if alive and start.session:
        return "running"  # a kernel at rest sends no heartbeat
    last_sign = max(begun, start.at, heartbeat or 0.0)
    return "lost" if now - last_sign > HEARTBEAT_LIMIT else "running"


def _without_placeholders(tasks: dict[TaskId, TaskView]) -> list[TaskView]:
    """Return tasks without those that stood for a whole fan-out or loop whose own tasks are known now."""
    prefixes = {(task.step, task.index[:depth]) for task in tasks for depth in range(len(task.index))}
    turned = {(task.step, task.index) for task in tasks if task.turn is not None}
    return [
        view
        for task, view in tasks.items()
        if (task.step, task.index) not in prefixes and not (task.turn is None and (task.step, task.index) in turned)
    ]


def _in_order(start: RunStarted, views: list[TaskView]) -> list[TaskView]:
    place = {name: number for number, name in enumerate(start.steps)}
    return sorted(
        views,
        key=lambda view: (
            place.get(view.task.step, len(place)),
            view.task.step,
            view.task.index,
            -1 if view.task.turn is None else view.task.turn,
        ),
    )
