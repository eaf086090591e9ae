"""A run in a store, made by the real records, artifacts and serializers, its cells executed in this process."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import document_of, parse_document
from nbflow.model import (
    FORMAT,
    Flow,
    KeyParts,
    Output,
    Record,
    RunEnded,
    RunEvent,
    RunStarted,
    TaskChanged,
    TaskFailure,
    TaskId,
)
from nbflow.store import artifacts, records
from nbflow.store.flows import RunPlace, claim_flow
from nbflow.store.location import Store, open_store
from nbflow.store.serialize.pickler import Registry, dump


@dataclass
class StoredRun:
    """A store and a run in it that is written event by event."""

    folder: Path
    cells: Sequence[str]
    flow: str = "demo"
    run: str = "20250101-120000-aaaaaa"
    tags: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    session: bool = False
    at: float = 0.0
    pid: int = 0

    def __post_init__(self) -> None:
        self.at = self.at or time.time()
        self.store: Store = open_store(self.folder / "store")
        document = document_of(((f"c{number}", source) for number, source in enumerate(self.cells, 1)), self.flow)
        self.graph: Flow = build_flow(parse_document(document, name=self.flow, folder=str(self.folder)))
        assert not [finding for finding in self.graph.findings if finding.level == "error"], self.graph.findings
        self.main = types.ModuleType("__main__")
        self.registry = Registry()
        self._defined: set[int] = set()
        self.place = RunPlace(self.flow, claim_flow(self.store, self.graph.notebook).folder, self.run)
        records.write_notebook(self.store, self.place.folder, self.run, document)
        self._events = records.EventWriter(self.store, self.place.folder, self.run, "test")
        steps = tuple(step.name for step in self.graph.steps)
        self.put(RunStarted(
            run=self.run, flow=self.flow, at=self.at, folder=str(self.folder), tags=self.tags, steps=steps,
            labels={step.name: step.label for step in self.graph.steps}, edges=self.graph.edges, user="ada",
            host="elsewhere", pid=self.pid, parameters=dict(self.parameters), session=self.session,
        ))  # fmt: skip

    def put(self, *events: RunEvent) -> None:
        for event in events:
            self._events.put(event)
        self._events.flush()

    def execute(self, step: str, index: tuple[int, ...] = (), item: str = "", **given: Any) -> Record:
        """Run a step's cell in a `__main__` of its own; its record is published and its task done."""
        node = self.graph.step(step)
        before = sys.modules["__main__"]
        sys.modules["__main__"] = self.main
        try:
            space = self.main.__dict__
            for definition in self.graph.definitions:
                if definition.order in self._defined or definition.position > node.position:
                    continue
                self._defined.add(definition.order)
                exec(definition.source, space)
                made = {name: space[name] for name in definition.names}
                self.registry.add(definition.id, made, definition.cell)
            space.update(given)
            exec(node.source, space)
            dumped = dump({name: space[name] for name in node.writes if name in space}, self.registry)
        finally:
            sys.modules["__main__"] = before
        groups, entries = artifacts.save(self.store, dumped)
        place = "-".join(map(str, index))
        record = Record(
            format=FORMAT, key=f"key-{step}-{place}", execution=f"{self.run}.{step}.{place}..1", flow=self.flow,
            run=self.run, step=step, index=index, turn=None, attempt=1, created_at=time.time(), elapsed=0.25,
            source=node.source, parts=KeyParts(code=node.code), groups=tuple(groups), artifacts=entries,
            outputs=({"output_type": "stream", "name": "stdout", "text": f"{step} printed\n"},),
        )  # fmt: skip
        assert records.publish(self.store, record)
        self.tell(step, "done", index=index, record=record, item=item)
        return record

    def tell(
        self, step: str, state: Any, *, index: tuple[int, ...] = (), record: Record | None = None,
        failure: TaskFailure | None = None, attempt: int = 1, execution: str = "", item: str = "", **more: Any
    ) -> None:  # fmt: skip
        if state in ("done", "failed"):
            running = TaskChanged(task=TaskId(step=step, index=index), state="running", at=time.time(), attempt=attempt)
            self.put(running)
        self.put(TaskChanged(
            task=TaskId(step=step, index=index), state=state, at=time.time(), attempt=attempt, item=item,
            failure=failure, key=record.key if record else "", execution=record.execution if record else execution,
            elapsed=0.25 if state in ("done", "failed") else None, **more,
        ))  # fmt: skip

    def log(self, execution: str, *outputs: dict[str, Any], rank: int = 0) -> None:
        writer = records.LogWriter(self.store, self.place.folder, self.run, execution, rank)
        for output in outputs:
            writer.put(Output(output=output))
        writer.close()

    def end(self, status: Any = "done", error: str | None = None) -> str:
        """End the run; its full name."""
        self.put(RunEnded(status=status, at=time.time(), error=error))
        self._events.close()
        return f"{self.flow}/{self.run}"
