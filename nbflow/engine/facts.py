"""What was learnt about steps' code: kept beside the code's key, so that the next run knows it from the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from nbflow.flow.graph import build_flow
from nbflow.flow.together import with_together
from nbflow.model import Flow, Frozen, Step
from nbflow.store import records
from nbflow.store.location import Store


class Known(Frozen, frozen=True, kw_only=True):
    """What runs have shown of a flow's steps, by step.

    `changed`: names that they change in place; `unstored`: names that they could not store, each with why.
    """

    changed: dict[str, frozenset[str]] = {}  # noqa: RUF012  # msgspec copies both for each instance
    unstored: dict[str, dict[str, str]] = {}  # noqa: RUF012

    def also(self, changed: Mapping[str, frozenset[str]], unstored: Mapping[str, Mapping[str, str]]) -> Known:
        """Return this with what else has turned out."""
        return Known(
            changed={name: self.changed.get(name, frozenset()) | more for name, more in changed.items()}
            | {name: names for name, names in self.changed.items() if name not in changed},
            unstored={name: {**self.unstored.get(name, {}), **more} for name, more in unstored.items()}
            | {name: names for name, names in self.unstored.items() if name not in unstored},
        )


def known_of(flow: Flow, store: Store) -> Known:
    """Return what was seen of the code of a flow's steps."""
    codes = {name.removesuffix(".json") for name in store.children("facts")}
    facts = {step.name: records.read_facts(store, step.code) for step in flow.steps if step.code in codes}
    return Known(
        changed={name: frozenset(each["changed"]) for name, each in facts.items() if each.get("changed")},
        unstored={name: each["unstored"] for name, each in facts.items() if each.get("unstored")},
    )


def remember_changes(store: Store, step: Step, names: Iterable[str]) -> None:
    """Add names that a step changes in place to what is known of its code."""
    facts = records.read_facts(store, step.code)
    changes = set(facts.get("changed", ())) | set(names)
    records.write_facts(store, step.code, {**facts, "changed": sorted(changes)})


def remember_unstored(store: Store, step: Step, names: Mapping[str, str]) -> None:
    """Add names that a step could not store to what is known of its code."""
    facts = records.read_facts(store, step.code)
    records.write_facts(store, step.code, {**facts, "unstored": {**facts.get("unstored", {}), **names}})


def with_known_changes(flow: Flow, store: Store) -> Flow:
    """Return a flow as it is with what its steps were seen to change in place."""
    changed = known_of(flow, store).changed
    return build_flow(flow.notebook, all_cells=flow.all_cells, changed=changed) if changed else flow


def checked(flow: Flow, store: Store) -> Flow:
    """Return a flow with what earlier runs have shown of it as findings, in document order."""
    known = known_of(flow, store)
    if known.changed:
        flow = build_flow(flow.notebook, all_cells=flow.all_cells, changed=known.changed)
    flow = with_together(flow, known.unstored)
    places = {cell.id: cell.position for cell in flow.notebook.cells}
    order = sorted(flow.findings, key=lambda finding: (places.get(finding.cell or "", 0), finding.line or 0))
    return msgspec.structs.replace(flow, findings=tuple(order))
