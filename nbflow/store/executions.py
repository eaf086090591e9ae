"""Executions of tasks: what each is called, and which stood for a flow's tasks in its last runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from nbflow.model import TaskChanged, TaskId
from nbflow.store import records
from nbflow.store.flows import RunPlace
from nbflow.store.location import Store, hashed_name, safe_name

PART = "%5B%5D"
"""What marks the execution that made a fan-out's list."""


@lru_cache(maxsize=4096)  # asked for several times a task
def execution_id(run: str, task: TaskId, attempt: int, revision: int = 0) -> str:
    """A run, a task and an attempt in; the name under which this attempt may publish once, out.

    Where file systems do not tell `Load` from `load`, nor letters that are written in two ways, hashes do.
    """
    index = "-".join(map(str, task.index))
    turn = "" if task.turn is None else str(task.turn)
    numbers = f"{PART if task.part else ''}.{index}.{turn}.{attempt}{f'r{revision}' if revision else ''}"
    if task.step == task.step.lower() and task.step.isascii():
        return safe_name(f"{run}.{task.step}") + numbers
    return f"{run}.{hashed_name(task.step)}{numbers}"


@dataclass(frozen=True)
class Stood:
    """The newest execution that stood for a task, and the run in which the task failed since: (run, its key then)."""

    place: tuple[str, str] | None = None  # (key, execution)
    failed: tuple[RunPlace, str] | None = None


def last_executions(
    store: Store, runs: Iterable[RunPlace], steps: set[str], besides: str = "", *, depth: int = 8
) -> dict[TaskId, Stood]:
    """A flow's runs, newest first, in; for each task what stood for it last, and where it has failed since, out."""
    found: dict[TaskId, Stood] = {}
    for run in itertools.islice(runs, depth):
        if run.run == besides:
            continue
        for task, event in _last_changes(store, run).items():
            known = found.get(task, Stood())
            if event.state == "failed" and known == Stood():
                found[task] = Stood(failed=(run, event.key))
            elif event.state in ("done", "reused") and event.key and known.place is None:
                found[task] = replace(known, place=(event.key, event.execution))
        if steps <= {task.step for task, stood in found.items() if stood.place is not None}:
            break
    return found


def _last_changes(store: Store, run: RunPlace) -> dict[TaskId, TaskChanged]:
    """A run in; the state in which it left each task that it came to out."""
    return {
        event.task: event
        for event in records.read_events(store, run.folder, run.run)
        if isinstance(event, TaskChanged) and event.state in ("done", "reused", "failed")
    }
