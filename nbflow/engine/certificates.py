"""What verifications have shown of flows' code: kept beside the facts of steps, asked before a run, said of it."""

from __future__ import annotations

import os
import platform

from nbflow.analysis.cell import normalise
from nbflow.engine import reuse
from nbflow.engine.keys import digest
from nbflow.flow.identity import behaviour_of
from nbflow.model import Cell, Certificate, Flow, Observations
from nbflow.store import records
from nbflow.store.location import Store

PREFIX = "flow-"
"""What the names of a flow's facts begin with: most datastores have none, and then no code is read."""

APART = frozenset({"control", "empty"})
"""Kinds of cells that take no part in a flow."""


def cell_codes(flow: Flow) -> dict[str, str]:
    """Return the code of each cell of a flow's notebook by what people call it, in document order.

    Layout and comments do not count, nor what runs have shown of the code: it is the same for as long as the text is.
    """
    return {_name(cell): digest(_texts(cell)) for cell in flow.notebook.cells if cell.kind not in APART}


def _name(cell: Cell) -> str:
    return f"cell {cell.position}" + (f" ({cell.name})" if cell.name else "")


def _texts(cell: Cell) -> list[str]:
    options = cell.options
    edges = [
        f"{word} {names}" for word, names in (("in", options.inputs), ("out", options.outputs)) if names is not None
    ]
    return [
        cell.kind,
        normalise(cell.body),
        *behaviour_of(options),
        *edges,
        *(f"after {name}" for name in options.after),
    ]


def code_of(flow: Flow) -> str:
    """Return the key of a flow's whole code: its cells in order, whatever they are called."""
    return PREFIX + digest([flow.all_cells, *cell_codes(flow).values()])


def certify(store: Store, flow: Flow, certificate: Certificate | None) -> None:
    """Keep what a verification has shown of a flow's code; None takes back what an earlier one has."""
    code = code_of(flow)
    if certificate is not None or records.read_facts(store, code):
        records.write_facts(store, code, {} if certificate is None else {"verified": certificate})


def certificate_of(store: Store, flow: Flow) -> Certificate | None:
    """Return the certificate of a flow's code, as long as its packages and modules are what they were."""
    certificate = _certificate(store, flow)
    return certificate if certificate is not None and not _change(certificate, flow) else None


def refusal(store: Store, flow: Flow) -> str:
    """Return why a flow has no certificate that holds, in one sentence; empty where it has one."""
    certificate = _certificate(store, flow)
    if certificate is not None:
        change = _change(certificate, flow)
        return f"it was verified with something else: {change}" if change else ""
    others = (records.read_facts(store, code).get("verified") for code in _codes(store))
    own = [each for each in others if each is not None and each.flow == flow.name]
    if not own:
        return "it was never verified"
    last, now = max(own, key=lambda each: each.at), cell_codes(flow)
    new = [name for name, code in now.items() if code not in last.cells.values()]
    gone = [name for name, code in last.cells.items() if code not in now.values()]
    what = ", ".join(new) or ", ".join(f"{name} as it was then" for name in gone) or "the order of its cells"
    return f"it was verified before it was changed: {what}"


def _certificate(store: Store, flow: Flow) -> Certificate | None:
    codes = _codes(store)
    code = code_of(flow) if codes else ""
    return records.read_facts(store, code).get("verified") if code in codes else None


def _codes(store: Store) -> list[str]:
    return [name.removesuffix(".json") for name in store.children("facts") if name.startswith(PREFIX)]


def _change(certificate: Certificate, flow: Flow) -> str:
    """Return what has become another since a verification, an empty string where nothing has."""
    if certificate.python != python():
        return f"Python {certificate.python} → {python()}"
    seen = Observations(distributions=certificate.packages, files=certificate.modules)
    reason = reuse.holds(seen, flow.notebook.folder, os.environ)
    return reason[1] if reason is not None else ""


def python() -> str:
    """Return Python's version as far as a certificate depends on it."""
    return ".".join(platform.python_version_tuple()[:2])
