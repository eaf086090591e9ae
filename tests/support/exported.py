"""Exported flows, run by the tool that they were exported to, and what they left, loaded for comparison."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

import nbflow
from nbflow.exporters.exporter import Notes
from nbflow.exporters.metaflow_steps import Names
from nbflow.model import Flow
from nbflow.runs import exporting
from tests.support.difference import NO_EQUALITY
from tests.support.equality import equal
from tests.support.places import ROOT

METAFLOW = ROOT / ".peers" / "metaflow" / "bin" / "python"

# Runs in Metaflow's own environment: every task's artifacts, each pickled by itself, classes of the flow by value.
COLLECT = """
import pickle, sys
sys.path.insert(0, ".")
import cloudpickle
file, run_id, target = sys.argv[1:]
main = sys.modules["__main__"]
main.__file__ = file
source = open(file, encoding="utf-8").read().replace('if __name__ == "__main__":', "if False:")
exec(compile(source, file, "exec"), main.__dict__)
space = dict(main.__dict__)
import metaflow
metaflow.namespace(None)
is_flow = lambda value: isinstance(value, type) and value.__mro__[1].__name__ == "FlowSpec"
flow = next(name for name, value in space.items() if is_flow(value))
left = []
for step in metaflow.Run(f"{flow}/{run_id}"):
    for task in step:
        stack = task["_foreach_stack"].data or []
        values = {}
        for artifact in task:
            if not artifact.id.startswith("_"):
                value = artifact.data
                if isinstance(value, bytes) and value[:2] == b"\\x80\\x05":
                    value = cloudpickle.loads(value)
                if type(value).__name__ == "MetaflowExceptionWrapper":
                    value = ("caught", value.type.rpartition(".")[2], value.exception)
                try:
                    values[artifact.id] = cloudpickle.dumps(value)
                except Exception as error:
                    values[artifact.id] = pickle.dumps(f"{type(error).__name__}: {error}")
        left.append((step.id, tuple(frame.index for frame in stack), task.created_at.timestamp(), values))
with open(target, "wb") as out:
    pickle.dump(left, out)
"""


@dataclass(frozen=True)
class Left:
    """One task of the other tool: its step, its place in the fan-outs, when it began, and its artifacts, loaded."""

    step: str
    index: tuple[int, ...]
    at: float
    values: Mapping[str, Any]


def write_notebook(cells: Sequence[str | tuple[str, str]], path: Path) -> Path:
    """Code cells, or (kind, text) pairs, in; the notebook written; its path out."""
    made = []
    for at, cell in enumerate(cells):
        kind, text = cell if isinstance(cell, tuple) else ("code", cell)
        new = nbformat.v4.new_markdown_cell(text) if kind == "markdown" else nbformat.v4.new_code_cell(text)
        new["id"] = f"c{at}"
        made.append(new)
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Texts by path in; written into a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def environment() -> dict[str, str]:
    """What Metaflow's processes get: one thread, a user's name, no messages about cards."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("METAFLOW_", "PYTHONDONTWRITE"))}
    return own | {
        "USERNAME": "tester",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "METAFLOW_CARD_NO_WARNING": "1",
    }


def metaflow(file: Path, *words: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """A flow file and the words behind it in; the finished process out."""
    command = [str(METAFLOW), file.name, "--quiet", "--no-pylint", *words]
    return subprocess.run(
        command, cwd=file.parent, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def run_metaflow(file: Path, *words: str) -> list[Left]:
    """A flow file in; it is run; what its tasks left out; AssertionError with its output when it fails."""
    done = metaflow(file, "run", "--run-id-file", "run.txt", *words)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:] + file.read_text()
    return collect(file, (file.parent / "run.txt").read_text())


def collect(file: Path, run: str) -> list[Left]:
    """A flow file and a run's id in; what its tasks left out."""
    target = file.parent / "left.pickle"
    subprocess.run(
        [str(METAFLOW), "-c", COLLECT, file.name, run, str(target)],
        cwd=file.parent,
        env=environment(),
        check=True,
        timeout=60,
    )
    sys.path.insert(0, str(file.parent))
    try:
        return [
            Left(step, index, at, {name: pickle.loads(data) for name, data in values.items()})
            for step, index, at, values in pickle.loads(target.read_bytes())
        ]
    finally:
        sys.path.remove(str(file.parent))


def problems(run: Any, flow: Flow, left: Sequence[Left], without: Sequence[str] = ()) -> list[str]:
    """A run of nbflow's and what the other tool's tasks left in; every artifact that is missing or differs, told, out.

    Each task's artifacts are compared with those of the same step and item, and what the run leaves in the end with
    what its last step holds. `without` are names that the export has said to lose.
    """
    names = Names(flow, Notes())
    tasks = {(one.step, one.index): one.values for one in sorted(left, key=lambda one: one.at)}
    found = []
    for step in run.steps():
        for task in step.tasks:
            values = tasks.get((names.steps[step.name], task.index))
            if values is not None and task.state == "skipped" and task.turn is None:
                found.append(f"{step.name}{list(task.index)} ran, nbflow skips it")
            for name, artifact in task.artifacts.items():
                if name.startswith("<") or name in without or not artifact.stored or values is None:
                    continue
                problem = _problem(values, names.of(name), artifact.value)
                found += (
                    [f"{step.name}{list(task.index)}.{name}: {problem}"] if problem and _is_last(step, task) else []
                )
    (end,) = (one for one in left if one.step == "end")
    for name in sorted({name for step in run.steps() for task in step.tasks for name in task.artifacts}):
        defined = bool(flow.writers[name][-1].definitions)  # its last version is no artifact, but stands in the file
        deleted = flow.writers[name][-1].step is None or not hasattr(run.data, name)
        if not name.startswith("<") and name not in without and not defined and not deleted:
            problem = _problem(end.values, names.of(name), getattr(run.data, name))
            found += [f"end.{name}: {problem}"] if problem else []
    return found


def _is_last(step: Any, task: Any) -> bool:
    """Whether a task is the last turn of its step at its place."""
    return task.turn is None or task.turn == max(other.turn for other in step.tasks if other.index == task.index)


def _problem(values: Mapping[str, Any], name: str, expected: Any) -> str:
    if name not in values:
        return f"missing, expected {expected!r}"
    value = values[name]
    if type(expected).__name__ == "Caught":
        told = value if isinstance(value, tuple) else ("caught", value.type, value.message)  # in a loop: a namespace
        return "" if told == ("caught", expected.type, expected.message) else repr(value)
    expected = list(expected) if type(expected).__name__ == "SList" else expected  # `!ls` gives a plain list elsewhere
    difference = equal(expected, value, name)
    return "" if difference is None or difference.kind == NO_EQUALITY else str(difference)


def compare_export(cells: Sequence[str | tuple[str, str]], folder: Path, *, params: Mapping[str, Any] | None = None,
                   files: Mapping[str, str] | None = None) -> tuple[list[str], str]:  # fmt: skip
    """Cells in; run by nbflow and, exported, by Metaflow; what differs, and the exported text, out."""
    write_files(files or {}, folder)
    path = write_notebook(cells, folder / "made.ipynb")
    done = exporting.export(path, "metaflow", folder / "flow.py")
    run = nbflow.run(path, store=str(folder / "store"), params=params or {})
    assert run.successful, (run.error, [(s.name, s.state) for s in run.steps()])
    words = [word for name, value in (params or {}).items()
             for word in (f"--{name}", value if isinstance(value, str) else json.dumps(value))]  # fmt: skip
    lost = [finding.name for finding in done.findings if finding.code == "left-out" and finding.name]
    left = run_metaflow(folder / "flow.py", *words)
    return problems(run, nbflow.runs.launch.check(path), left, lost), (folder / "flow.py").read_text()
