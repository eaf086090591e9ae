"""What was learnt about steps' code: kept beside the code's key, so that the next run knows it from the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from nbflow.flow import findings
from nbflow.flow.graph import build_flow
from nbflow.model import Cell, Flow, Step
from nbflow.store import records
from nbflow.store.location import Store


def known_changes(flow: Flow, store: Store) -> dict[str, frozenset[str]]:
    """A flow in; what its steps' code was seen to change in place, by step, out."""
    return _changes(_known(flow, store))


def remember_changes(store: Store, step: Step, names: Iterable[str]) -> None:
    """A step and names that it changes in place in; kept with what was known of its code."""
    facts = records.read_facts(store, step.code)
    known = set(facts.get("changed", ())) | set(names)
    records.write_facts(store, step.code, {**facts, "changed": sorted(known)})


def with_known_changes(flow: Flow, store: Store) -> Flow:
    """A flow in; the same, understood with what was seen of its code, out."""
    return _understood(flow, _known(flow, store))


def checked(flow: Flow, store: Store) -> Flow:
    """A flow in; the same with what earlier runs have shown of it as findings, in document order, out."""
    known = _known(flow, store)
    flow = _understood(flow, known)
    unstored = {name: each["unstored"] for name, each in known.items() if each.get("unstored")}
    found = [*flow.findings, *(findings.unstored(*each) for each in _needed(flow, unstored))]
    places = {cell.id: cell.position for cell in flow.notebook.cells}
    found.sort(key=lambda finding: (places.get(finding.cell or "", 0), finding.line or 0))
    return msgspec.structs.replace(flow, findings=tuple(found))


def _understood(flow: Flow, known: Mapping[str, records.Facts]) -> Flow:
    changed = _changes(known)
    return build_flow(flow.notebook, all_cells=flow.all_cells, changed=changed) if changed else flow


def _changes(known: Mapping[str, records.Facts]) -> dict[str, frozenset[str]]:
    return {name: frozenset(each["changed"]) for name, each in known.items() if each.get("changed")}


def _known(flow: Flow, store: Store) -> dict[str, records.Facts]:
    kept = {name.removesuffix(".json") for name in store.children("facts")}
    return {step.name: records.read_facts(store, step.code) for step in flow.steps if step.code in kept}


def _needed(flow: Flow, unstored: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Step, Cell, str, str, str]]:
    """Each step that reads a name which its nearest writer could not store: step, its cell, name, writer, why."""
    for step in flow.steps:
        for binding in step.bindings:
            maker = binding.sources[0].step if binding.sources else None
            if maker is not None and binding.name in unstored.get(maker, {}):
                yield step, flow.notebook.cells[step.position - 1], binding.name, maker, unstored[maker][binding.name]
