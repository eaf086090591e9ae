"""Jupyter notebooks as flows: `%%step` cells versioned, cached, resumable and parallel.

In a notebook: `%load_ext nbflow`. From Python: `nbflow.run(path)`, `nbflow.Flow(name).latest_run.data`.
Every name is loaded on first use, so that importing nbflow costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbflow.errors import (
        AmbiguousFlow,
        AmbiguousTask,
        DamagedError,
        ExecutorError,
        FormatError,
        NbflowError,
        NotebookError,
        NotFoundError,
        OptionError,
        OutdatedError,
        ParameterError,
        PlanError,
        RunFailed,
        SerializationError,
        StoreError,
        TaskError,
        UntrustedError,
        WorkerLost,
    )
    from nbflow.flow.parameters import Config, File
    from nbflow.page.widget import panel
    from nbflow.runs.client import Flow, Run, Step
    from nbflow.runs.launch import plan, run
    from nbflow.runs.tasks import Artifact, Task
    from nbflow.runs.verification import Verified, verify
    from nbflow.task.context import current
    from nbflow.task.live_card import card

__all__ = [
    "AmbiguousFlow",
    "AmbiguousTask",
    "Artifact",
    "Config",
    "DamagedError",
    "ExecutorError",
    "File",
    "Flow",
    "FormatError",
    "NbflowError",
    "NotFoundError",
    "NotebookError",
    "OptionError",
    "OutdatedError",
    "ParameterError",
    "PlanError",
    "Run",
    "RunFailed",
    "SerializationError",
    "Step",
    "StoreError",
    "Task",
    "TaskError",
    "UntrustedError",
    "Verified",
    "WorkerLost",
    "card",
    "current",
    "panel",
    "plan",
    "run",
    "verify",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "runs.client": ("Flow", "Run", "Step"),
    "task.context": ("current",),
    "errors": (
        "AmbiguousFlow",
        "AmbiguousTask",
        "DamagedError",
        "ExecutorError",
        "FormatError",
        "NbflowError",
        "NotFoundError",
        "NotebookError",
        "OptionError",
        "OutdatedError",
        "ParameterError",
        "PlanError",
        "RunFailed",
        "SerializationError",
        "StoreError",
        "TaskError",
        "UntrustedError",
        "WorkerLost",
    ),
    "runs.launch": ("plan", "run"),
    "task.live_card": ("card",),
    "page.widget": ("panel",),
    "flow.parameters": ("Config", "File"),
    "runs.tasks": ("Artifact", "Task"),
    "runs.verification": ("Verified", "verify"),
}
"""Module -> its public names."""

_HOME: dict[str, str] = {name: module for module, names in _HOMES.items() for name in names}
_MODULES: frozenset[str] = frozenset({"analysis", "reference"})  # public as `nbflow.reference.run`


def __getattr__(name: str) -> Any:
    """Return the object behind a public name, imported on first use; raise AttributeError for any other name."""
    if name == "__version__":
        from importlib.metadata import version

        return version("nbflow")
    if name in _MODULES:
        return importlib.import_module(f"nbflow.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'nbflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nbflow.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES, "__version__"})


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where JupyterLab finds the side panel of an editable install."""
    return [{"src": "labextension", "dest": "nbflow"}]


def load_ipython_extension(ip: Any) -> None:
    """`%load_ext nbflow`: the magics, transformers and hooks go into this IPython."""
    importlib.import_module("nbflow.extension").load(ip)


def unload_ipython_extension(ip: Any) -> None:
    """`%unload_ext nbflow`: whatever `load_ipython_extension` put in is taken out again."""
    importlib.import_module("nbflow.extension").unload(ip)
