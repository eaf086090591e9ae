"""What was learnt about steps' code: kept beside the code's key, so that the next run knows it from the start."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import msgspec

from nbflow.analysis.files import NO_FILES, Files, meet
from nbflow.engine.keys import digest
from nbflow.flow.graph import Changed, Seen, build_flow
from nbflow.flow.together import with_together
from nbflow.model import Flow, Frozen, Observations, Step
from nbflow.store import records
from nbflow.store.location import Store

MANY = 2_000
"""More names of files than this are not kept of a step: then its text decides."""

DATABASE = "<data base>"
"""Stands for whatever a data base keeps where: the audit hook tells that one was opened."""


class Known(Frozen, frozen=True, kw_only=True):
    """What runs have shown of a flow's steps, by step.

    `changed`: names that they change in place; `asked`: names that they read though no text shows it; `unstored`: names
    that they could not store, each with why; `seen`: files that they touch; `early`: executions that were at a file
    before a step above had written it.
    """

    changed: dict[str, frozenset[str]] = {}  # noqa: RUF012  # msgspec copies all three for each instance
    asked: dict[str, frozenset[str]] = {}  # noqa: RUF012
    unstored: dict[str, dict[str, str]] = {}  # noqa: RUF012
    seen: dict[str, Files] = {}  # noqa: RUF012
    early: frozenset[str] = frozenset()

    def also(self, other: Known) -> Known:
        """Return this with what else has turned out."""
        return Known(
            changed=_both(self.changed, other.changed),
            asked=_both(self.asked, other.asked),
            unstored={
                name: {**self.unstored.get(name, {}), **other.unstored.get(name, {})}
                for name in {**self.unstored, **other.unstored}
            },
            seen={**self.seen, **other.seen},
            early=self.early | other.early,
        )


def _both(before: Changed, more: Changed) -> dict[str, frozenset[str]]:
    steps = {**before, **more}
    return {name: before.get(name, frozenset()) | more.get(name, frozenset()) for name in steps}


def known_of(flow: Flow, store: Store) -> Known:
    """Return what was seen of the code of a flow's steps."""
    codes = {name.removesuffix(".json") for name in store.children("facts")}
    facts = {step.name: records.read_facts(store, step.code) for step in flow.steps if step.code in codes}
    seen = {step.name: _seen(flow, step, facts[step.name]) for step in flow.steps if step.name in facts}
    return Known(
        changed={name: frozenset(each["changed"]) for name, each in facts.items() if each.get("changed")},
        asked={name: frozenset(each["asked"]) for name, each in facts.items() if each.get("asked")},
        unstored={name: both for name, each in facts.items() if (both := _bound(each))},
        seen={name: files for name, files in seen.items() if files is not None},
        early=frozenset(execution for each in facts.values() for execution in each.get("early", ())),
    )


def _bound(each: records.Facts) -> dict[str, str]:
    return {**each.get("unstored", {}), **each.get("apart", {})}


def remember_apart(store: Store, step: Step, names: Mapping[str, str]) -> None:
    """Add names of a step that do not come back from a store as they were: whoever reads them runs with it."""
    facts = records.read_facts(store, step.code)
    records.write_facts(store, step.code, {**facts, "apart": {**facts.get("apart", {}), **names}})


def remember_changes(store: Store, step: Step, names: Iterable[str]) -> None:
    """Add names that a step changes in place to what is known of its code."""
    facts = records.read_facts(store, step.code)
    changes = set(facts.get("changed", ())) | set(names)
    records.write_facts(store, step.code, {**facts, "changed": sorted(changes)})


def remember_asked(store: Store, step: Step, names: Iterable[str]) -> None:
    """Add names that a step reads though its text does not show it to what is known of its code."""
    facts = records.read_facts(store, step.code)
    records.write_facts(store, step.code, {**facts, "asked": sorted({*facts.get("asked", ()), *names})})


def remember_unstored(store: Store, step: Step, names: Mapping[str, str]) -> None:
    """Add names that a step could not store to what is known of its code."""
    facts = records.read_facts(store, step.code)
    records.write_facts(store, step.code, {**facts, "unstored": {**facts.get("unstored", {}), **names}})


def remember_files(store: Store, flow: Flow, step: Step, files: Files) -> None:
    """Add files that a step was seen to touch to what is known of its code, with the definitions that it uses."""
    facts = records.read_facts(store, step.code)
    files |= _seen(flow, step, facts) or NO_FILES
    names = records.FileFacts(reads=sorted(files.reads or ()), writes=sorted(files.writes or ()), of=_uses(flow, step))
    if facts.get("files") != names and len(names["reads"]) + len(names["writes"]) <= MANY:
        records.write_facts(store, step.code, {**facts, "files": names})


def remember_early(store: Store, step: Step, executions: Iterable[str]) -> None:
    """Keep in mind executions of a step that no later run may take the results of: they came before their turn."""
    facts = records.read_facts(store, step.code)
    records.write_facts(store, step.code, {**facts, "early": sorted({*facts.get("early", ()), *executions})[-MANY:]})


def is_whole(observations: Observations) -> bool:
    """Return whether all files are known that an execution touched: programs may have touched others."""
    return "subprocess" not in observations.volatile


def touched(observations: Observations) -> Files:
    """Return the files that an execution was seen to touch."""
    bases = {DATABASE} if "database" in observations.volatile else set()
    reads = frozenset(observations.files) | frozenset(look.partition(" ")[2] for look in observations.looks)
    return Files(reads=reads | bases, writes=frozenset(observations.written) | bases)


def _seen(flow: Flow, step: Step, facts: records.Facts) -> Files | None:
    """Return the files that a step's code was seen to touch; None where it uses other definitions now."""
    names = facts.get("files")
    if not names or names["of"] != _uses(flow, step):
        return None
    return Files(reads=frozenset(names["reads"]), writes=frozenset(names["writes"]))


def _uses(flow: Flow, step: Step) -> str:
    return digest([flow.definitions[order].id for order in step.definitions])


def with_known(flow: Flow, store: Store) -> Flow:
    """Return a flow as it is with what its steps were seen to change in place and which files they touch."""
    return understood(flow, known_of(flow, store))


def understood(flow: Flow, known: Known) -> Flow:
    """Return a flow with what is known of its steps, the flow itself where that changes nothing."""
    if known.changed or known.asked or _orders(flow, known.seen):
        return build_flow(
            flow.notebook, all_cells=flow.all_cells, changed=known.changed, seen=known.seen, asked=known.asked
        )
    return flow


def _orders(flow: Flow, seen: Seen) -> bool:
    """Return whether what was seen of files may order steps in another way than their text does."""
    if any(step.ordered for step in flow.steps):
        return bool(seen)
    return any(meet(one, other) for one, other in itertools.combinations(seen.values(), 2))


def checked(flow: Flow, store: Store) -> Flow:
    """Return a flow with what earlier runs have shown of it as findings, in document order."""
    known = known_of(flow, store)
    flow = with_together(understood(flow, known), known.unstored)
    places = {cell.id: cell.position for cell in flow.notebook.cells}
    order = sorted(flow.findings, key=lambda finding: (places.get(finding.cell or "", 0), finding.line or 0))
    return msgspec.structs.replace(flow, findings=tuple(order))
