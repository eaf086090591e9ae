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
    """Return what the code of a flow's steps was seen to change in place, by step."""
    return _changes(_facts_of(flow, store))


def remember_changes(store: Store, step: Step, names: Iterable[str]) -> None:
    """Add names that a step changes in place to what is known of its code."""
    facts = records.read_facts(store, step.code)
    changes = set(facts.get("changed", ())) | set(names)
    records.write_facts(store, step.code, {**facts, "changed": sorted(changes)})


def with_known_changes(flow: Flow, store: Store) -> Flow:
    """Return a flow as it is understood with what was seen of its code."""
    return _understood(flow, _facts_of(flow, store))


def checked(flow: Flow, store: Store) -> Flow:
    """Return a flow with what earlier runs have shown of it as findings, in document order."""
    facts = _facts_of(flow, store)
    flow = _understood(flow, facts)
    unstored = {name: each["unstored"] for name, each in facts.items() if each.get("unstored")}
    notes = [*flow.findings, *(findings.unstored(*each) for each in _needed(flow, unstored))]
    places = {cell.id: cell.position for cell in flow.notebook.cells}
    notes.sort(key=lambda finding: (places.get(finding.cell or "", 0), finding.line or 0))
    return msgspec.structs.replace(flow, findings=tuple(notes))


def _understood(flow: Flow, facts: Mapping[str, records.Facts]) -> Flow:
    changes = _changes(facts)
    return build_flow(flow.notebook, all_cells=flow.all_cells, changed=changes) if changes else flow


def _changes(facts: Mapping[str, records.Facts]) -> dict[str, frozenset[str]]:
    return {name: frozenset(each["changed"]) for name, each in facts.items() if each.get("changed")}


def _facts_of(flow: Flow, store: Store) -> dict[str, records.Facts]:
    codes = {name.removesuffix(".json") for name in store.children("facts")}
    return {step.name: records.read_facts(store, step.code) for step in flow.steps if step.code in codes}


def _needed(flow: Flow, unstored: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Step, Cell, str, str, str]]:
    """Give each step that reads a name its nearest writer could not store: step, its cell, name, writer, why."""
    for step in flow.steps:
        for binding in step.bindings:
            maker = binding.sources[0].step if binding.sources else None
            if maker is not None and binding.name in unstored.get(maker, {}):
                yield step, flow.notebook.cells[step.position - 1], binding.name, maker, unstored[maker][binding.name]
