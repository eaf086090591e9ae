"""A notebook run plainly in a process of its own, which then says where a run of it as a flow left something else.

`python -m nbflow.plain_run` takes one line of JSON after the other and answers each with one: first the notebook, then
runs to compare with. What the notebook itself prints goes nowhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nbflow import reference
from nbflow.errors import NbflowError
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.model import Flow
from nbflow.runs.client import Run
from nbflow.runs.values import values_of
from nbflow.runs.verification import PlainEnd, PlainJob, RunComparison
from nbflow.store import artifacts
from nbflow.store.location import Store, open_store
from nbflow.store.serialize import pickler
from nbflow.store.serialize.describe import describe
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.registry import Registry
from nbflow.store.star_imports import with_stars
from nbflow.store.stored_run import StoredRun, find_run

MISSING = "nothing"

KNOWN = frozenset("__main__ builtins collections datetime decimal fractions numpy pandas polars pyarrow".split())
"""Packages of whose values two marks that differ say that the values do. A fitted model may be equal even so."""


class PlainNames:
    """What the plain notebook left: its names but for definitions, which are what their source says."""

    def __init__(self, flow: Flow, values: Mapping[str, Any], store: Store) -> None:
        """Take what a flow's notebook left, and a store of this process's own."""
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
        """Return the names that hold something else in a run, each as it is here and there."""
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
        return RunComparison(different=different, unknown=tuple(unknown), error=str(client.error or ""))

    def _stored(self, name: str) -> str | None:
        """Return the mark of a value once it was stored and loaded: memory may lie in another order then."""
        groups, manifests = artifacts.save(self.store, pickler.dump({name: self.values[name]}, self.registry))
        if manifests[name].group < 0:
            return None
        return fingerprint(
            artifacts.load(self.store, groups, [name], self.registry)[name], self.registry, by_value=True
        )


def main() -> None:
    """Answer requests until there are none."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def answer(what: Any) -> None:
        answers.write(msgspec.json.encode(what) + b"\n")
        answers.flush()

    job = msgspec.json.decode(sys.stdin.readline(), type=PlainJob)
    flow = build_flow(with_stars(read_notebook(Path(job.notebook))), all_cells=job.all_cells)
    try:
        values = reference.run(job.notebook, job.params)
    except BaseException as error:  # the notebook's own
        answer(PlainEnd(error=f"{type(error).__name__}: {error}"))
        return
    names = PlainNames(flow, values, open_store(job.store))
    answer(PlainEnd(prints=names.prints))
    for line in sys.stdin:
        store, run = msgspec.json.decode(line, type=tuple[str, str])
        opened = open_store(store)
        answer(names.compare(find_run(opened, run)))


if __name__ == "__main__":
    main()
