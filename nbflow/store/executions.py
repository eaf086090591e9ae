"""Executions of tasks: what each is called, and which stood for a flow's tasks in its last runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from nbflow.model import TaskChanged, TaskId
from nbflow.store import records
from nbflow.store.flows import RunPlace
from nbflow.store.location import Store, hashed_name, safe_name

PART = "%5B%5D"
"""What marks the execution that made a fan-out's list."""


@lru_cache(maxsize=4096)  # asked for several times a task
def execution_id(run: str, task: TaskId, attempt: int, revision: int = 0) -> str:
    """Return the name under which a task's attempt in a run may publish, once.

    A hash of the step's name stands in it where its letters do not tell it from others everywhere: some file systems
    take `Load` for `load`, or one way of writing an accent for another.
    """
    index = "-".join(map(str, task.index))
    turn = "" if task.turn is None else str(task.turn)
    numbers = f"{PART if task.part else ''}.{index}.{turn}.{attempt}{f'r{revision}' if revision else ''}"
    if task.step == task.step.lower() and task.step.isascii():
        return safe_name(f"{run}.{task.step}") + numbers
    return f"{run}.{hashed_name(task.step)}{numbers}"


class Stood(msgspec.Struct, frozen=True):
    """The newest execution that stood for a task, and the run in which the task failed since: (run, its key then)."""

    place: tuple[str, str] | None = None  # (key, execution)
    failed: tuple[RunPlace, str] | None = None


def last_executions(
    store: Store, runs: Iterable[RunPlace], steps: set[str], besides: str = "", *, depth: int = 8
) -> dict[TaskId, Stood]:
    """Return for each task of some steps which execution stood for it last, and where it has failed since.

    `runs` are the flow's, newest first, of which at most `depth` are read; the run `besides` is passed over.
    """
    by_task: dict[TaskId, Stood] = {}
    for run in itertools.islice(runs, depth):
        if run.run == besides:
            continue
        for task, event in _last_changes(store, run).items():
            earlier = by_task.get(task, Stood())
            if event.state == "failed" and earlier == Stood():
                by_task[task] = Stood(failed=(run, event.key))
            elif event.state in ("done", "reused") and event.key and earlier.place is None:
                by_task[task] = msgspec.structs.replace(earlier, place=(event.key, event.execution))
        if steps <= {task.step for task, stood in by_task.items() if stood.place is not None}:
            break
    return by_task


def _last_changes(store: Store, run: RunPlace) -> dict[TaskId, TaskChanged]:
    return {
        event.task: event
        for event in records.read_events(store, run.folder, run.run)
        if isinstance(event, TaskChanged) and event.state in ("done", "reused", "failed")
    }
