"""What was learnt about steps' code: kept beside the code's key, so that the next run knows it from the start."""

from __future__ import annotations

from collections.abc import Iterable

from nbflow import records
from nbflow.graph import build_flow
from nbflow.model import Flow, Step
from nbflow.storage import Store


def known_changes(flow: Flow, store: Store) -> dict[str, frozenset[str]]:
    """A flow in; what its steps' code was seen to change in place, by step, out."""
    kept = {name.removesuffix(".json") for name in store.children("facts")}
    found = {step.name: records.read_facts(store, step.code) for step in flow.steps if step.code in kept}
    return {name: frozenset(facts["changed"]) for name, facts in found.items() if facts.get("changed")}


def remember_changes(store: Store, step: Step, names: Iterable[str]) -> None:
    """A step and names that it changes in place in; kept with what was known of its code."""
    facts = records.read_facts(store, step.code)
    known = set(facts.get("changed", ())) | set(names)
    records.write_facts(store, step.code, {**facts, "changed": sorted(known)})


def with_known_changes(flow: Flow, store: Store) -> Flow:
    """A flow in; the same, understood with what was seen of its code, out."""
    known = known_changes(flow, store)
    return build_flow(flow.notebook, all_cells=flow.all_cells, changed=known) if known else flow
