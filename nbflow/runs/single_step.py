"""One step on the results of an earlier run: what stands for every task above it, taken as it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from nbflow.errors import NotFoundError, PlanError
from nbflow.model import FORMAT, Flow, Record, TaskId
from nbflow.store.flows import find_flow, runs_of
from nbflow.store.location import Store
from nbflow.store.stored_run import StoredRun, find_run

ENDED = ("done", "reused", "caught", "skipped")
DEPTH = 20
"""Runs that are looked at, newest first."""


class Pins(msgspec.Struct, frozen=True):
    """The run whose results count, what stood for its tasks, and the steps that run now."""

    run: str | None = None
    records: Mapping[TaskId, Record | None] = msgspec.field(default_factory=dict)
    steps: frozenset[str] = frozenset()


def last_results(store: Store, flow: Flow, wanted: Collection[str], run: str | None = None) -> Pins:
    """Return the newest run that has the results of all steps above the wanted ones.

    `flow` holds the wanted steps with their ancestors; `run` names a run instead. Raises PlanError, which names the
    steps that have no result.
    """
    above = [step.name for step in flow.steps if step.kind != "params" and step.name not in wanted]
    missing: list[str] | None = None
    for past in _runs(store, flow, run):
        lacking, results = _results(past, above)
        if not lacking:
            return Pins(past.run, results, frozenset(wanted))
        missing = missing if missing is not None else lacking
    word = ", ".join(wanted)
    if missing is None:
        raise PlanError(
            f"--only {word}: there is no earlier run of {flow.name}", fix=f"`--step {word}` runs it with its ancestors"
        )
    raise PlanError(
        f"--only {word}: {', '.join(missing)} left no result in {run or 'the last run'}",
        step=missing[0], fix=f"`--step {word}` runs it with its ancestors",
    )  # fmt: skip


def _runs(store: Store, flow: Flow, run: str | None) -> list[StoredRun]:
    if run is None:
        entry = find_flow(store, flow.notebook)
        runs = [StoredRun(store, place) for place in (runs_of(store, entry) if entry is not None else [])[:DEPTH]]
        return [past for past in runs if _is_flow_run(past)]
    try:
        return [find_run(store, run)]
    except NotFoundError as error:
        raise PlanError(error.message, fix=error.fix) from None


def _is_flow_run(past: StoredRun) -> bool:
    try:
        return not past.started.session
    except NotFoundError:  # it was killed before it had begun
        return False


def _results(past: StoredRun, above: Collection[str]) -> tuple[list[str], dict[TaskId, Record | None]]:
    """Return the steps without a result in a run, and the records that stood for the tasks of the others."""
    results: dict[TaskId, Record | None] = {}
    lacking = set(above)
    snapshot = past.snapshot
    for step in above:
        views = [view for view in snapshot.tasks if view.task.step == step]
        if (
            (views or snapshot.status == "done")
            and step in snapshot.steps
            and all(view.state in ENDED for view in views)
        ):
            lacking.discard(step)
        for view in views:
            record = past.record(view)
            results[view.task] = record if record is not None and record.format == FORMAT else None
            if results[view.task] is None and view.state != "skipped":
                lacking.add(step)
    return [step for step in above if step in lacking], results
