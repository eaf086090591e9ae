"""Steps in document order → which fan-outs each of them is in: a foreach's body, up to a join. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from nbflow.analysis.effects import PROCESS
from nbflow.flow.ancestors import Ancestors
from nbflow.model import Definition, Edge, Finding, Step


class _Placing(msgspec.Struct):
    """What stands above the step that is being placed."""

    scopes: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    joined: set[str] = msgspec.field(default_factory=set)  # heads whose join stands above
    findings: list[Finding] = msgspec.field(default_factory=list)


def place_steps(
    steps: Sequence[Step],
    lists: Mapping[str, Step],
    definitions: Sequence[Definition],
    resolve: Callable[[str], str],
) -> tuple[tuple[Step, ...], tuple[Finding, ...]]:
    """Return steps with their `scope`, and what is wrong with their joins.

    `resolve` turns a step as people write it into its name. A step that reads, directly or not, what a fan-out's body
    writes is in the body too, until the fan-out is joined; below the join the names hold the last item's values. The
    cells of one step stand in the same fan-outs.
    """
    placing = _Placing()
    placed = []
    for step in steps:
        producers = _producers(step, definitions)
        if step.name in lists:
            producers += _producers(lists[step.name], definitions)
        scope = _scope(step, producers, resolve, placing)
        if step.options.foreach is not None:
            scope = (*scope, step.name)
        placing.scopes[step.name] = scope
        placed.append(msgspec.structs.replace(step, scope=scope))
    return tuple(placed), tuple(placing.findings)


def _scope(step: Step, producers: Sequence[str], resolve: Callable[[str], str], placing: _Placing) -> tuple[str, ...]:
    closed = _close(step, resolve, placing)
    longest: tuple[str, ...] = closed if closed is not None else placing.scopes.get(step.follows, ())
    for producer in producers:
        scope = _open_part(placing.scopes.get(producer, ()), placing.joined)
        if scope[: len(longest)] == longest:
            longest = scope
        elif longest[: len(scope)] != scope:
            message = f"{step.label} reads from two fan-outs that are not nested: {longest[-1]} and {scope[-1]}"
            fix = f"join one of them first: a step with --join {scope[-1]}"
            placing.findings.append(_join_error(step, message, fix))
    return longest


def _open_part(scope: tuple[str, ...], joined: set[str]) -> tuple[str, ...]:
    """Return the fan-outs of a producer that are still open: up to the first that has been joined."""
    for at, head in enumerate(scope):
        if head in joined:
            return scope[:at]
    return scope


def _close(step: Step, resolve: Callable[[str], str], placing: _Placing) -> tuple[str, ...] | None:
    """Return a join's scope, that of its fan-out without the innermost; None for any other step."""
    scopes = set()
    for word in step.options.join:
        name = resolve(word)
        if name not in placing.scopes:
            continue  # an unknown step is a finding of its own
        scope = placing.scopes[name]
        scopes.add(scope)
    if scopes <= {()}:
        return None  # of branches
    if () in scopes:
        word = next(word for word in step.options.join if not placing.scopes.get(resolve(word), (word,)))
        message = f"--join {word}: {word} is in no fan-out, and the others are"
        fix = "name steps of one --foreach's body, or steps that are in none"
        placing.findings.append(_join_error(step, message, fix, name=word))
        scopes.discard(())
    if len({scope[-1] for scope in scopes}) > 1:
        heads = " and ".join(sorted({scope[-1] for scope in scopes}))
        message = f"--join names steps of different fan-outs: {heads}"
        placing.findings.append(_join_error(step, message, "join the inner one first, in a step of its own"))
    scope = min(scopes)
    placing.joined.add(scope[-1])
    return scope[:-1]


def _producers(step: Step, definitions: Sequence[Definition]) -> list[str]:
    binds = [*step.bindings, *(bind for order in step.definitions for bind in definitions[order].binds)]
    steps = {source.step: None for bind in binds for source in bind.sources if source.step is not None}
    return [name for name in steps if name != step.name]


def _join_error(step: Step, message: str, fix: str, name: str | None = None) -> Finding:
    return Finding(
        code="join", level="error", step=step.name, cell=step.cell, line=1, name=name, message=message, fix=fix
    )


def carried_names(steps: Sequence[Step]) -> Mapping[str, tuple[str, ...]]:
    """Return for each fan-out the names that its items hand on to the next one.

    A name is carried when a step of the body may read it before the body has surely written it, and a step of the
    body writes it. That a step with `--catch` may fail does not count.
    """
    names_by_head: dict[str, set[str]] = {}
    by_name = {step.name: step for step in steps}
    for step in steps:
        for depth, head in enumerate(step.scope):
            body = {other.name for other in steps if other.scope[: depth + 1] == step.scope[: depth + 1]}
            for binding in step.bindings:
                if binding.name == PROCESS:
                    continue  # each item sets its own
                sure_inside = any(
                    source.step in body and source.step != step.name and meant(by_name[source.step], binding.name)
                    for source in binding.sources if source.step is not None
                )  # fmt: skip
                written = any(binding.name in by_name[name].writes for name in body)
                if written and not sure_inside:
                    names_by_head.setdefault(head, set()).add(binding.name)
    return {head: tuple(sorted(names)) for head, names in names_by_head.items()}


def own_names(steps: Sequence[Step]) -> Mapping[str, frozenset[str]]:
    """Return for each fan-out the names that are an item's own.

    Where a step with `--catch` has failed before it bound one of them, readers in the item take it from above the
    fan-out, never from the item before: items run side by side.
    """
    carried = carried_names(steps)
    names_by_head: dict[str, set[str]] = {}
    for step in steps:
        if PROCESS in step.writes:
            for head in step.scope:
                names_by_head.setdefault(head, set()).add(PROCESS)
        if step.options.catch is not None:
            names = {name for name in step.writes if meant(step, name) and not surely(step, name)}
            for head in step.scope:
                names_by_head.setdefault(head, set()).update(names - set(carried.get(head, ())))
    return {head: frozenset(names) for head, names in names_by_head.items()}


def meant(step: Step, name: str) -> bool:
    """Return whether a step writes a name whenever it does not fail."""
    return name in step.writes and name not in step.conditional and step.options.condition is None


def surely(step: Step, name: str) -> bool:
    """Return whether a step that has ended well, or was caught, has written a name."""
    return meant(step, name) and (step.options.catch in (None, name) or name in step.targets)


def edges_of(steps: Sequence[Step], lists: Mapping[str, Step], definitions: Sequence[Definition]) -> tuple[Edge, ...]:
    """Return who reads what from whom, in document order."""
    names: dict[tuple[str, str], set[str]] = {}
    present = {step.name for step in steps}
    for step in steps:
        listed = lists[step.name].bindings if step.name in lists else ()
        binds = [*step.bindings, *listed, *(b for order in step.definitions for b in definitions[order].binds)]
        for bind in binds:
            for source in bind.sources:
                if source.step in present and source.step != step.name:
                    names.setdefault((source.step or "", step.name), set()).add(bind.name)
    edges = [Edge(frm=frm, to=to, names=tuple(sorted(read_names))) for (frm, to), read_names in names.items()]
    after = [
        Edge(frm=need, to=step.name, why="join" if need in step.options.join else "after")
        for step in steps for need in step.needs if (need, step.name) not in names
    ]  # fmt: skip
    joined = [
        Edge(frm=name, to=step.name, why="join")
        for step in steps for name in step.options.join
        if name in present and (name, step.name) not in names and name not in step.needs
    ]  # fmt: skip
    edges += [*after, *joined]
    edges += _file_edges(steps, edges)
    place = {step.name: step.order for step in steps}
    return tuple(sorted(edges, key=lambda edge: (place[edge.frm], place[edge.to])))


def _file_edges(steps: Sequence[Step], edges: Sequence[Edge]) -> list[Edge]:
    """Return an edge for each wait for another step's files that no way along other edges stands for."""
    direct: dict[str, set[str]] = {}
    for edge in edges:
        direct.setdefault(edge.to, set()).add(edge.frm)
    ancestors = Ancestors()
    waits = []
    for step in steps:
        reached = ancestors.reached(direct.get(step.name, ()))
        for name in reversed(step.ordered):  # the nearest first: it has waited for those above it
            if ancestors.bit(name) & ~reached:
                waits.append(Edge(frm=name, to=step.name, why="files"))
                reached |= ancestors.reached([name])
        ancestors.add(step.name, reached)
    return waits
