"""A notebook run plainly: top to bottom in a fresh kernel that knows nothing of nbflow; every name that it leaves, out.

The header lines of `%%step`, `%%params` and `%%setup` become comments, lines that speak to nbflow are dropped. What
remains is the notebook as its author would run it by hand: the measure for everything that nbflow does with it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.support.nursery import ONE_THREAD, Nursery

HEADER = re.compile(r"%%(step|params|setup)\b(.*)")
CONTROL = re.compile(r"^\s*%(flow\b|(re)?load_ext\s+nbflow\b|unload_ext\s+nbflow\b).*$", re.MULTILINE)
NOT_PLAIN = re.compile(r"--(foreach|join|if|until|catch)\b")
COPIED = (".csv", ".tsv", ".txt", ".json", ".toml", ".py", ".log")

# Runs in the kernel after the last cell, in a dict of its own. Values are pickled one by one; classes and functions of
# the notebook go by value, so that they can be looked at from outside. (cloudpickle loses a Flag's zero member on the
# way; no notebook here has one.)
COLLECT = """
def _collect(space, hidden, target):
    import inspect, pickle, types
    import cloudpickle
    known = lambda name: name.startswith("_") or name in hidden
    left = {"values": {}, "modules": {}, "sources": {}, "unpicklable": {}}
    for name, value in list(space.items()):
        if known(name):
            continue
        if isinstance(value, types.ModuleType):
            left["modules"][name] = value.__name__
            continue
        if getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__"):
            try:
                left["sources"][name] = inspect.getsource(value)
            except (OSError, TypeError):
                pass
        try:
            left["values"][name] = cloudpickle.dumps(value, protocol=5)
        except BaseException as error:
            left["unpicklable"][name] = f"{type(error).__name__}: {error}"
    with open(target, "wb") as file:
        pickle.dump(left, file)
"""


@dataclass(frozen=True)
class Plain:
    """What a plain run left: values loaded, names of modules, sources of functions and classes, names not picklable."""

    values: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unpicklable: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.values) | frozenset(self.modules) | frozenset(self.unpicklable)


def plain_source(source: str) -> str:
    """A cell's source as its author would have written it without nbflow; the number of lines stays."""
    lines = source.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    header = HEADER.match(lines[first])
    if header is not None:
        if NOT_PLAIN.search(header[2]):
            raise ValueError(f"has no plain meaning: {lines[first]}")
        # IPython knows a cell magic only in the first line, so nothing but emptiness may stand above it
        below = next((line for line in lines[first + 1 :] if line.strip()), "")
        lines[first] = "" if below.startswith("%%") else "# " + lines[first]
    return CONTROL.sub("pass", "\n".join(lines))


def plain_document(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path` with every cell's source made plain."""
    document = nbformat.read(path, as_version=4)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.source = plain_source(cell.source)
    return document


def copy_with_data(path: Path, folder: Path) -> Path:
    """Copies a notebook, and the data files that lie beside it, into a folder of its own; the copy's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for beside in path.parent.iterdir():
        if beside.is_file() and beside.suffix in COPIED:
            shutil.copy2(beside, folder / beside.name)
    return Path(shutil.copy2(path, folder / path.name))


def run_plainly(path: Path, folder: Path, *, timeout: int = 120, manager: Any = None) -> Plain:
    """Runs the notebook in `folder`, which gets a copy of it; CellExecutionError when a cell fails.

    `manager` is a kernel manager that has not started its kernel yet; without one a python3 kernel is started.
    """
    copy = copy_with_data(path, folder)
    document, target = plain_document(copy), folder / ".left.pickle"
    call = f"_collect(get_ipython().user_ns, get_ipython().user_ns_hidden, {str(target)!r})\n"
    document.cells.append(nbformat.v4.new_code_cell(f"{COLLECT}\n{call}"))
    execute(document, folder, timeout=timeout, manager=manager)
    nbformat.write(document, folder / ("plain-" + path.name))
    return _loaded(pickle.loads(target.read_bytes()), folder)


def execute(document: nbformat.NotebookNode, folder: Path, *, timeout: int = 120, manager: Any = None) -> None:
    """Executes a document's cells in `folder`, one thread a library."""
    client = NotebookClient(
        document, km=manager, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.owns_km = True
    client.execute(env={key: value for key, value in os.environ.items() if key != "MPLBACKEND"} | ONE_THREAD)


def run_reference(path: Path, folder: Path, *, timeout: int = 120) -> Plain:
    """What `nbflow.reference.run` leaves, in a process of its own; CalledProcessError when that fails."""
    copy, target = copy_with_data(path, folder), folder / ".left.pickle"
    code = f"{COLLECT}\nimport nbflow.reference\n_collect(nbflow.reference.run({str(copy)!r}), (), {str(target)!r})\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=timeout, cwd=folder, stdout=subprocess.DEVNULL)
    return _loaded(pickle.loads(target.read_bytes()), folder)


def _loaded(left: dict[str, Any], folder: Path) -> Plain:
    """What the kernel collected, its values loaded with the notebook's folder on the path."""
    values, unpicklable = {}, dict(left["unpicklable"])
    sys.path.insert(0, str(folder))
    try:
        for name, data in left["values"].items():
            try:
                values[name] = pickle.loads(data)
            except Exception as error:  # any class may refuse to be loaded
                unpicklable[name] = f"{type(error).__name__}: {error}"
    finally:
        sys.path.remove(str(folder))
    return Plain(values, left["modules"], left["sources"], unpicklable)


class PlainRuns:
    """Plain runs, each made once per content of a notebook and of the data beside it."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self._done: dict[str, Plain] = {}

    def __call__(self, path: Path) -> Plain:
        beside = sorted(other for other in path.parent.iterdir() if other.suffix in COPIED)
        key = hashlib.sha256(b"".join(one.read_bytes() for one in [path, *beside])).hexdigest()
        if key not in self._done:
            folder = self._folder / f"{path.stem}-{key[:12]}"
            self._done[key] = run_plainly(path, folder, manager=self._nursery.manager())
        return self._done[key]
