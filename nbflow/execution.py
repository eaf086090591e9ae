"""Executions of tasks: what each is called, and which stood for a flow's tasks in its last runs."""

from __future__ import annotations

from functools import lru_cache

from nbflow import records
from nbflow.model import TaskChanged, TaskId
from nbflow.storage import Store, safe_name


@lru_cache(maxsize=4096)  # asked for several times a task
def execution_id(run: str, task: TaskId, attempt: int, revision: int = 0) -> str:
    """A run, a task and an attempt in; the name under which this attempt may publish once, out."""
    index = "-".join(map(str, task.index))
    turn = "" if task.turn is None else str(task.turn)
    return safe_name(
        f"{run}.{task.step}{'[]' if task.part else ''}.{index}.{turn}.{attempt}{f'r{revision}' if revision else ''}"
    )


def last_executions(
    store: Store, flow: str, steps: set[str], besides: str = "", *, depth: int = 8
) -> dict[TaskId, tuple[str, str]]:
    """A flow in; for each task the (key, execution) that stood for it in the newest of its last runs, out."""
    found: dict[TaskId, tuple[str, str]] = {}
    for run in records.list_runs(store, flow)[:depth]:
        if run == besides:
            continue
        newest: dict[TaskId, tuple[str, str]] = {}
        for event in records.read_events(store, flow, run):
            if isinstance(event, TaskChanged) and event.state in ("done", "reused") and event.key:
                newest[event.task] = (event.key, event.execution)
        for task, place in newest.items():
            found.setdefault(task, place)
        if steps <= {task.step for task in found}:
            break
    return found
