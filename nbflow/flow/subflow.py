"""A flow → a part of it: some steps with all that they need, or all but its parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterable

import msgspec

from nbflow.model import Flow, Step


def with_ancestors(flow: Flow, names: Iterable[str]) -> Flow:
    """Return some steps with all that they need, plain cells that may change what they read, and parameters."""
    by_name = {step.name: step for step in flow.steps}
    keep: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in keep:
            keep.add(name)
            queue.extend((*by_name[name].needs, *by_name[name].scope, *_joined_by(by_name[name], flow)))
            queue.extend(cell.name for cell in flow.steps if name in cell.affects)
    steps = tuple(step for step in flow.steps if step.name in keep or step.kind == "params")
    beyond = (*flow.beyond, *(step for step in flow.steps if step not in steps))
    edges = tuple(edge for edge in flow.edges if edge.frm in keep and edge.to in keep)
    return msgspec.structs.replace(flow, steps=steps, edges=edges, beyond=beyond)


def _joined_by(step: Step, flow: Flow) -> list[str]:
    """Return every step of the fan-out that a step closes; none where it is no join."""
    heads = {each.scope[-1] for each in flow.steps if each.name in step.options.join and each.scope}
    return [each.name for each in flow.steps if heads & set(each.scope)]


def without_params(flow: Flow) -> Flow:
    """Return a flow without its params steps, whose values are known."""
    params = {step.name for step in flow.steps if step.kind == "params"}
    steps = tuple(
        msgspec.structs.replace(step, order=order, needs=tuple(need for need in step.needs if need not in params))
        for order, step in enumerate(step for step in flow.steps if step.name not in params)
    )
    edges = tuple(edge for edge in flow.edges if edge.frm not in params and edge.to not in params)
    return msgspec.structs.replace(flow, steps=steps, edges=edges)


def preload_of(flow: Flow, steps: Iterable[Step] | None = None) -> tuple[str, ...]:
    """Return the modules that a flow's cells, or those of some steps, import at top level, in document order."""
    used = {
        order
        for step in (flow.steps if steps is None else steps)
        for order in (*step.definitions, *step.own_definitions)
    }
    return imported_modules(
        [flow.definitions[order].source for order in sorted(used) if flow.definitions[order].origins]
    )


def imported_modules(sources: list[str]) -> tuple[str, ...]:
    """Return the absolute names of the modules that import statements load, each once, without `__main__`."""
    modules: dict[str, None] = {}
    for source in sources:
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        for node in body:
            if isinstance(node, ast.Import):
                modules.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules[node.module] = None
    modules.pop("__main__", None)  # the notebook itself
    return tuple(modules)
