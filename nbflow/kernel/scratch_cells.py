"""Plain cells that no step needs yet: followed at little cost, so that their execution counts once a step does."""

from __future__ import annotations

import time
import types
from collections.abc import Mapping
from typing import Any

import msgspec

from nbflow.analysis.cell import Analysis
from nbflow.flow.scope import gather
from nbflow.kernel.namespace import is_own
from nbflow.kernel.versions import Ledger
from nbflow.model import MISSING, Cell, Flow, KeyParts, Observations, Record, Replay, TaskSpec
from nbflow.store import artifacts
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.inspection import answered, is_a
from nbflow.store.serialize.registry import Registry
from nbflow.task.observe.observer import Observer

VAGUE = frozenset({"dynamic", "hidden-state", "run-magic", "syntax"})
"""Diagnostics of a cell whose reads or writes are not all known."""

LARGEST = 64 << 20
"""Bytes, about, of a value beyond which a scratch cell's result is not looked at again."""


class ScratchTrace(msgspec.Struct):
    """One execution of a plain cell: what it read, and what it left."""

    number: int
    source: str
    reads: Mapping[str, str]  # name -> what it held: a content id, `trace N`, or "" when it is not known
    live: frozenset[str]  # ids of the definitions that were in force
    observer: Observer
    began: float = msgspec.field(default_factory=time.time)
    started: float = msgspec.field(default_factory=time.perf_counter)
    elapsed: float = 0.0
    values: dict[str, tuple[Any, str | None]] = msgspec.field(default_factory=dict)  # name -> value and its fingerprint
    same: frozenset[str] = frozenset()  # names that hold the objects that they held before it
    observations: Observations = msgspec.field(default_factory=Observations)
    record: Record | None = None


class Scratch:
    """The last execution of each plain cell that is no part of the flow."""

    def __init__(self, namespace: dict[str, Any], ledger: Ledger, registry: Registry) -> None:
        self.namespace = namespace
        self.ledger = ledger
        self.registry = registry
        self._traces: dict[str, ScratchTrace] = {}
        self._by_number: dict[int, ScratchTrace] = {}
        self._running: ScratchTrace | None = None
        self._number = 0

    # ------------------------------------------------------------ while it runs

    def before(self, cell: Cell, analysis: Analysis, flow: Flow, store: str) -> None:
        """Note what a plain cell that is about to run may read."""
        self._running = None
        self._traces.pop(cell.id, None)
        if VAGUE & {problem.code for problem in analysis.diagnostics} or not (analysis.writes or analysis.may_mutate):
            return
        reads = dict.fromkeys(analysis.reads, True)
        need = gather(flow.writers, flow.definitions, reads, position=cell.position)
        live = {flow.definitions[order].id for order in need.definitions if self._in_force(flow, order)}
        self._number += 1
        self._running = ScratchTrace(
            number=self._number,
            source=cell.body,
            reads={name: self.token(name) for name in need.bindings},
            live=frozenset(live),
            observer=Observer(_spec(cell, flow, store)),
        )
        self._running.observer.start()

    def _in_force(self, flow: Flow, order: int) -> bool:
        definition = flow.definitions[order]
        return definition.kind == "setup" or self.ledger.holds(definition.id, definition.names)

    def token(self, name: str) -> str:
        """Return what a name holds now: the id of its content, the trace that left it, or "" when that is not known."""
        content = self.ledger.verified(name)
        if content:
            return content
        value = self.namespace.get(name, MISSING)
        for trace in self._traces.values():
            if name in trace.values and self._intact(trace, name, value):
                return f"trace {trace.number}"
        return ""

    def _intact(self, trace: ScratchTrace, name: str, value: Any) -> bool:
        before, mark = trace.values[name]
        return value is before and mark is not None and self._mark(value) == mark

    def _mark(self, value: Any) -> str | None:
        if _bytes_of(value) > LARGEST:
            return None
        return fingerprint(value, self.registry)

    def after(self, cell: Cell, analysis: Analysis, changed: set[str], *, succeeded: bool) -> None:
        """Keep what a plain cell did; `changed` are the names that hold another object now."""
        trace, self._running = self._running, None
        if trace is None:
            return
        trace.elapsed = time.perf_counter() - trace.started
        trace.observations = trace.observer.stop(self.namespace)
        if not succeeded:
            return
        for name in {*changed, *analysis.writes, *analysis.may_mutate} - analysis.definitions:
            value = self.namespace.get(name, MISSING)
            if value is MISSING or name.startswith("_") or is_own(name) or is_a(value, types.ModuleType):
                continue
            trace.values[name] = (value, self._mark(value))
        trace.same = frozenset(trace.values.keys() - changed)
        self._traces[cell.id] = trace
        self._by_number[trace.number] = trace

    # ------------------------------------------------------------ once a step needs it

    def adopt(self, spec: TaskSpec) -> tuple[ScratchTrace, dict[str, Any]] | None:
        """Return a plain cell's execution, and the values it left, if they still count for this task of the flow."""
        trace = self._traces.get(spec.cell)
        if (
            trace is None
            or trace.source != spec.source
            or any(name.startswith("<") for name in (*spec.inputs, *spec.writes))
        ):
            return None
        for name, ref in spec.inputs.items():
            if not self._read(trace, name, artifacts.content_id(spec.groups[ref.group], ref.name)):
                return None
        if not all(statement.kind == "setup" or statement.id in trace.live for statement in spec.replay):
            return None
        intact = {
            name: value
            for name, (value, _) in trace.values.items()
            if self._intact(trace, name, self.namespace.get(name, MISSING))
        }
        if any(name in trace.values and name not in intact for name in spec.writes):
            return None
        return trace, intact

    def _read(self, trace: ScratchTrace, name: str, content: str) -> bool:
        token = trace.reads.get(name, "")
        if token.startswith("trace "):
            source = self._by_number.get(int(token[6:]))
            record = source.record if source is not None else None
            return record is not None and name in record.artifacts and record.artifacts[name].content_id == content
        return token == content


def _spec(cell: Cell, flow: Flow, store: str) -> TaskSpec:
    """Return as much of a task as an observer asks for."""
    replay: tuple[Replay, ...] = ()
    name = f"cell:{cell.id}"
    return TaskSpec(
        flow=flow.name, run="", step=name, execution="", key="", parts=KeyParts(code=""), source=cell.body,
        code_name=f"cell {cell.position}", cell=cell.id, position=cell.position, store=store,
        folder=flow.notebook.folder, replay=replay,
    )  # fmt: skip


def _bytes_of(value: Any) -> int:
    """Return about how many bytes a value takes, as far as that is cheap to tell and it answers."""
    return answered(lambda: _bytes_told(value), 64)


def _bytes_told(value: Any) -> int:
    for attribute in ("nbytes", "memory_usage"):
        size = getattr(value, attribute, None)
        if attribute == "memory_usage" and callable(size):
            size = size(index=False) if not hasattr(value, "columns") else int(size(index=False).sum())
        if isinstance(size, int):
            return size
    try:
        return 64 * len(value)
    except TypeError:
        return 64
