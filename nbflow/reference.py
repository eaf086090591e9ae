"""The rule as code: a notebook run top to bottom in a fresh namespace. Plain, sequential, no cache, no processes."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nbflow.model import Notebook
from nbflow.notebook import read_notebook
from nbflow.parameters import File, gather_overrides, override_source, read_parameters
from nbflow.shell import Compiler, Shell, enter, run_cell

_SHELL_NAMES = frozenset({"In", "Out", "exit", "quit", "open", "get_ipython", "display"})


def run(path: str | os.PathLike[str], params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A notebook and parameters in; every name that it leaves, with its value, out; modules and `_names` left out.

    Raises what a cell raises, NotebookError and ParameterError. The working directory is the notebook's folder
    while it runs, and `__main__` is a module of its own.
    """
    notebook = read_notebook(Path(path))
    overrides = _overrides(notebook, params or {})
    with _place(notebook.folder) as module:
        shell = Shell()
        shell.compile = Compiler()
        enter(shell, module)
        for cell in notebook.cells:
            if cell.kind in ("control", "empty"):
                continue
            source = cell.body
            if cell.kind == "params":
                module.__dict__.setdefault("File", File)
                source = override_source(source, overrides)
            error = run_cell(shell, source, f"cell {cell.position}", cell.name or "").error
            if error is not None:
                raise error
        own = set(types.ModuleType("x").__dict__) | _SHELL_NAMES
        return {name: value for name, value in module.__dict__.items() if name not in own and _is_left(name, value)}


def _overrides(notebook: Notebook, params: Mapping[str, Any]) -> dict[str, Any]:
    found = [parameter for cell in notebook.cells if cell.kind == "params" for parameter in read_parameters(cell)]
    return gather_overrides(tuple(found), params, {}, os.environ)


def _is_left(name: str, value: Any) -> bool:
    return not name.startswith("_") and not isinstance(value, types.ModuleType) and value is not File


@contextlib.contextmanager
def _place(folder: str) -> Iterator[types.ModuleType]:
    """The notebook's folder as working directory and first import place, and a `__main__` of its own."""
    module = types.ModuleType("__main__")
    before = sys.modules["__main__"], os.getcwd(), list(sys.path)
    sys.path.insert(0, folder)
    os.chdir(folder)
    try:
        yield module
    finally:
        sys.modules["__main__"] = before[0]
        os.chdir(before[1])
        sys.path[:] = before[2]
