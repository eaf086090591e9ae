"""An earlier run understood again: its notebook as a flow, and the records of its parameters."""

from __future__ import annotations

from nbflow.engine.facts import with_known
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import parse_document
from nbflow.model import Flow, Record
from nbflow.store.own_modules import with_modules
from nbflow.store.stored_run import StoredRun


def graph_of(run: StoredRun) -> Flow:
    """Return the notebook of a run as a flow, with what has been learnt of its code since."""
    started = run.started
    notebook = with_modules(parse_document(run.document, name=run.flow, folder=started.folder, path=started.notebook))
    return with_known(build_flow(notebook, all_cells=started.all_cells), run.store)


def parameter_records(run: StoredRun, flow: Flow) -> dict[str, Record]:
    """Return a run's `%%params` steps, each with the record that holds its values: equal cells share one.

    Run by hand a params cell is a task like others.
    """
    steps = [step.name for step in flow.steps if step.kind == "params"]
    values = [run.given(key, execution) for key, execution in run.started.given]
    records = {name: record for name, record in zip(steps, values, strict=False) if record is not None}
    by_hand = {name: run.last_record(name) for name in steps if name not in records}
    return records | {name: record for name, record in by_hand.items() if record is not None}
