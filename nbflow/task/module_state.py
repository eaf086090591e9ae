"""What a cell changes in modules of the notebook's own: each task imports them anew, so it is said, not carried."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterable, Mapping

from nbflow.model import Finding, TaskSpec
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.inspection import is_a
from nbflow.store.serialize.registry import Registry
from nbflow.task.observe.observer import local_modules

CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)

Taken = Mapping[tuple[str, str], str | None]
"""(module, name in it) -> fingerprint of its value."""


def take(loaded: Iterable[str], registry: Registry) -> Taken:
    """Return a fingerprint of all data in modules of the notebook's own, among the names of `loaded` ones."""
    return {
        (module, name): fingerprint(value, registry)
        for module in local_modules(loaded) if module != "__main__"
        for name, value in list(vars(sys.modules[module]).items())
        if not (name.startswith("__") or is_a(value, CODE))
    }  # fmt: skip


def unlike_files(fresh: dict[tuple[str, str], str | None], now: Taken, sources: Iterable[str]) -> tuple[str, ...]:
    """Return what modules hold that is not as it was when they were seen first, which is taken down in `fresh`.

    What the sources of the cells above set is as a worker has it too.
    """
    text = "\n".join(sources)
    return tuple(
        f"{module}.{name}"
        for (module, name), mark in now.items()
        if fresh.setdefault((module, name), mark) != mark and not _is_set(name, text)
    )


def _is_set(name: str, source: str) -> bool:
    return re.search(rf"\.{re.escape(name)}\s*[-+*/|&]?=(?!=)", source) is not None


def changes(before: Taken, loaded: Iterable[str], spec: TaskSpec, registry: Registry) -> list[Finding]:
    """Return a finding for each name of a module that is not as `take` saw it before the cell.

    An assignment in the cell (`settings.RATE = 2`) is set-up, which is replayed.
    """
    now = take(loaded, registry)
    who = spec.code_name if spec.step.startswith("cell:") else spec.step
    return [
        Finding(
            code="module-state", level="warning", step=spec.step, cell=spec.cell, name=f"{module}.{name}",
            message=f"{who} changes {name} of the module {module}: steps below import it as its file has it",
            fix=f"keep {name} in the notebook, or set it by a statement of its own (`{module}.{name} = …`)",
        )
        for (module, name), mark in before.items()
        if now.get((module, name)) != mark and not _is_set(name, spec.source)
    ]  # fmt: skip
