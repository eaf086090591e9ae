"""Notebooks whose cells are run by hand, and what that left in the store."""

from __future__ import annotations

from collections.abc import Callable

from nbflow.model import RunStarted, TaskChanged
from nbflow.store import location, records
from nbflow.store.flows import named_flow, runs_of
from tests.support.kernel import Kernel

Start = Callable[..., Kernel]


def executions(kernel: Kernel) -> list[str]:
    """Every execution in the store, oldest first, by its step's name; parameters left out."""
    kernel.execute("%flow status")  # whatever is being stored is stored before a cell begins
    store = location.open_store(kernel.notebook.path.parent / ".nbflow")
    found = sorted(records.all_records(store), key=lambda record: record.created_at)
    return [
        record.step
        for record in found
        if not (record.step.startswith("cell:") and not record.outputs and not record.elapsed)
    ]


def states(kernel: Kernel) -> list[tuple[str, str]]:
    """(step, state) of every event in the session runs, in order, without `running`."""
    kernel.execute("%flow status")
    store = location.open_store(kernel.notebook.path.parent / ".nbflow")
    found: list[tuple[str, str]] = []
    for place in reversed(runs_of(store, named_flow(store, "flow"))):
        events = records.read_events(store, place.folder, place.run)
        if any(isinstance(event, RunStarted) and event.session for event in events):
            changes = [event for event in events if isinstance(event, TaskChanged) and event.state != "running"]
            found += [(event.task.step, event.state) for event in changes]
    return found


CHAIN = {
    "load": "%%step load\nxs = [1, 2, 3]",
    "double": "%%step double\nys = [x * 2 for x in xs]",
    "total": "%%step total\ntotal = sum(ys)\ntotal",
}


PLAIN = {
    "load": "%%step load\nxs = [1, 2, 3]",
    "plain": "ys = [x + 1 for x in xs]",
    "total": "%%step total\ntotal = sum(ys)\ntotal",
}
