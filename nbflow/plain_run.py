"""A notebook run plainly in a process of its own, which then says where a run of it as a flow left something else.

`python -m nbflow.plain_run` takes one line of JSON after the other and answers each with one: first the notebook, then
runs to compare with. What the notebook itself prints is kept for the comparison.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from nbflow import reference
from nbflow.errors import NbflowError
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.model import Cell, Flow
from nbflow.runs.client import Run, Step
from nbflow.runs.shown import Display, differences, displays_of
from nbflow.runs.values import values_of
from nbflow.runs.verification import PlainEnd, PlainJob, RunComparison
from nbflow.store import artifacts
from nbflow.store.location import Store, open_store
from nbflow.store.own_modules import with_modules
from nbflow.store.serialize import pickler
from nbflow.store.serialize.describe import describe
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.registry import Registry
from nbflow.store.stored_run import StoredRun, find_run
from nbflow.task.outputs import Outputs

MISSING = "nothing"

KNOWN = frozenset("__main__ builtins collections datetime decimal fractions numpy pandas polars pyarrow".split())
"""Packages of whose values two marks that differ say that the values do. A fitted model may be equal even so."""


class PlainScreen:
    """What each cell shows: what this process prints lies in a file, whose new part belongs to the cell that runs."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        os.dup2(self._file.fileno(), 1)
        self._read = 0
        self._whole: dict[str, list[dict[str, Any]]] = {}
        self._outputs = Outputs()

    def __call__(self, cell: Cell, output: dict[str, Any] | None) -> None:
        """Take an output of a cell; None when it has run."""
        printed = os.pread(1, 1 << 30, self._read)
        self._read += len(printed)
        if printed:
            text = printed.decode("utf-8", "replace")
            self._outputs.add({"output_type": "stream", "name": "stdout", "text": text})
        if output is not None:
            self._outputs.add(output)
            return
        self._whole.setdefault(cell.id, []).extend(self._outputs.items())
        self._outputs = Outputs()

    def shown(self) -> dict[str, list[Display]]:
        """Return what each cell has shown."""
        return {cell: displays_of(outputs) for cell, outputs in self._whole.items()}


class PlainNames:
    """What the plain notebook left: its names but for definitions, which are what their source says."""

    def __init__(self, flow: Flow, values: Mapping[str, Any], shown: Mapping[str, list[Display]], store: Store) -> None:
        """Take what a flow's notebook left and showed, and a store of this process's own."""
        self.flow = flow
        self.shown = shown
        self.store = store
        self.registry = Registry()
        for definition in flow.definitions:
            bound = {name: values[name] for name in definition.names if name in values}
            if definition.kind == "definition" and bound:
                self.registry.add(definition.id, bound, definition.cell)
        data = {name for name, writers in flow.writers.items() if writers and writers[-1].step is not None}
        self.values = {name: value for name, value in values.items() if name in data}
        self.prints = {name: fingerprint(value, self.registry, by_value=True) for name, value in self.values.items()}

    def compare(self, run: StoredRun) -> RunComparison:
        """Return the names that hold something else in a run, each as it is here and there, and what cells show."""
        others, client = values_of(run), Run(run)
        different: dict[str, tuple[str, str]] = {}
        unknown: list[str] = []
        for name, mark in self.prints.items():
            if mark is None:
                continue
            try:
                value = others.last(name)
            except NbflowError as error:
                different[name] = (describe(name, self.values[name]).preview, f"{MISSING}: {error.message}")
                continue
            there = fingerprint(value, others.registry, by_value=True)
            if there == mark or there == self._stored(name):
                continue
            if type(value) is type(self.values[name]) and type(value).__module__.partition(".")[0] not in KNOWN:
                unknown.append(name)
            else:
                different[name] = (describe(name, self.values[name]).preview, describe(name, value).preview)
        shown = {
            step.cell: differences(self.shown.get(step.cell, ()), displays_of(_outputs(client[step.name])))
            for step in self.flow.steps if step.kind != "params" and step.name in client
        }  # fmt: skip
        return RunComparison(
            different=different, shown={cell: each for cell, each in shown.items() if each}, unknown=tuple(unknown),
            error=str(client.error or ""),
        )  # fmt: skip

    def _stored(self, name: str) -> str | None:
        """Return the mark of a value once it was stored and loaded: memory may lie in another order then."""
        groups, manifests = artifacts.save(self.store, pickler.dump({name: self.values[name]}, self.registry))
        if manifests[name].group < 0:
            return None
        return fingerprint(
            artifacts.load(self.store, groups, [name], self.registry)[name], self.registry, by_value=True
        )


def _outputs(step: Step) -> Iterator[Mapping[str, Any]]:
    """Yield all that a step's items and turns show, as a loop would."""
    for task in step.tasks:
        yield from task.outputs


def main() -> None:
    """Answer requests until there are none."""
    answers = os.fdopen(os.dup(1), "wb")
    screen = PlainScreen()

    def answer(what: Any) -> None:
        answers.write(msgspec.json.encode(what) + b"\n")
        answers.flush()

    job = msgspec.json.decode(sys.stdin.readline(), type=PlainJob)
    flow = build_flow(with_modules(read_notebook(Path(job.notebook))), all_cells=job.all_cells)
    try:
        values = reference.run(job.notebook, job.params, watch=screen)
    except BaseException as error:  # the notebook's own
        answer(PlainEnd(error=f"{type(error).__name__}: {error}"))
        return
    names = PlainNames(flow, values, screen.shown(), open_store(job.store))
    marks = {cell: [each.mark for each in shown] for cell, shown in names.shown.items()}
    answer(PlainEnd(prints=names.prints, shown=marks))
    for line in sys.stdin:
        store, run = msgspec.json.decode(line, type=tuple[str, str])
        opened = open_store(store)
        answer(names.compare(find_run(opened, run)))


if __name__ == "__main__":
    main()
