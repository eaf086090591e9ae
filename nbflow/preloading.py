"""Which modules a flow's tasks import: processes that tasks come from import them ahead."""

from __future__ import annotations

import ast

from nbflow.model import Flow


def preload_of(flow: Flow) -> tuple[str, ...]:
    """A flow in; the modules that its cells import at top level, in document order, out."""
    used = {order for step in flow.steps for order in (*step.definitions, *step.own_definitions)}
    return imported_modules(
        [flow.definitions[order].source for order in sorted(used) if flow.definitions[order].origins]
    )


def imported_modules(sources: list[str]) -> tuple[str, ...]:
    """Import statements as text in; the absolute names of the modules that they load, each once, out."""
    found: dict[str, None] = {}
    for source in sources:
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        for node in body:
            if isinstance(node, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = None
    return tuple(found)
