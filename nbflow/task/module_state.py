"""What a cell changes in modules of the notebook's own: each task imports them anew, so it is said, not carried."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from nbflow.model import Finding, TaskSpec
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.inspection import attribute, is_a
from nbflow.store.serialize.registry import Registry
from nbflow.task.definition_parts import prints_of
from nbflow.task.observe.observer import local_modules

CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)

Taken = Mapping[tuple[str, str], str | None]
"""(module, name in it) -> fingerprint of its value."""


def take(loaded: Iterable[str], registry: Registry) -> Taken:
    """Return a fingerprint of all data in modules of the notebook's own, among the names of `loaded` ones."""
    return {
        (module, name): _mark(value, registry)
        for module in local_modules(loaded) if module != "__main__"
        for name, value in list(vars(sys.modules[module]).items())
        if not (name.startswith("__") or (is_a(value, CODE) and not _is_own(value, module)))
    }  # fmt: skip


def _is_own(value: Any, module: str) -> bool:
    return is_a(value, types.FunctionType | type) and attribute(value, "__module__") == module


def _mark(value: Any, registry: Registry) -> str | None:
    """Return what tells whether a name of a module holds something else: of a class or function what stands on it."""
    if is_a(value, types.FunctionType | type):
        return repr(sorted(prints_of(value, registry).items()))
    if is_a(value, types.GeneratorType):
        frame = value.gi_frame
        return "ended" if frame is None else f"{frame.f_lasti} {fingerprint(dict(frame.f_locals), registry)}"
    return fingerprint(value, registry)


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


def changes(before: Taken, loaded: Iterable[str], spec: TaskSpec, registry: Registry) -> tuple[str, ...]:
    """Return the names in modules that are not as `take` saw them before the cell.

    An assignment in the cell (`settings.RATE = 2`) is set-up, which is replayed.
    """
    now = take(loaded, registry)
    return tuple(
        f"{module}.{name}"
        for (module, name), mark in before.items()
        if now.get((module, name)) != mark and not _is_set(name, spec.source)
    )


def finding(spec: TaskSpec, name: str) -> Finding:
    """Return what is to be said where a cell has changed a name of a module, and no step below finds it."""
    module, _, short = name.rpartition(".")
    who = spec.code_name if spec.step.startswith("cell:") else spec.step
    return Finding(
        code="module-state", level="warning", step=spec.step, cell=spec.cell, name=name,
        message=f"{who} changes {short} of the module {module}: steps below import it as its file has it",
        fix=f"keep {short} in the notebook, or set it by a statement of its own (`{name} = …`)",
    )  # fmt: skip
