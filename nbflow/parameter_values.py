"""A flow's `%%params` cells evaluated once, before anything else runs: overrides put in, defaults computed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nbflow import artifacts, records
from nbflow.analysis import normalise
from nbflow.errors import ParameterError
from nbflow.lookup import Lookup, RunFacts, execution_id
from nbflow.model import FORMAT, Ended, Flow, KeyParts, Record, Step, TaskId
from nbflow.parameters import literal_values, override_source
from nbflow.planning import task_key
from nbflow.plugins import Executor
from nbflow.serialize import Registry, dump
from nbflow.storage import Store


@dataclass(frozen=True)
class Given:
    """Parameters with values: by name, and as records that steps read from, by params step."""

    values: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """(key, execution) of every record."""
        return tuple((record.key, record.execution) for record in self.records.values())


def evaluate(
    flow: Flow,
    store: Store,
    overrides: Mapping[str, Any],
    executor_of: Callable[[str | None], Executor],
    run: str,
) -> tuple[Flow, Given]:
    """A flow with params steps and typed overrides in; the flow without them, and their values, out.

    Literal defaults are read here; a default that is computed takes one task. ParameterError when it fails.
    """
    found: dict[str, Record] = {}
    values: dict[str, Any] = {}
    for declared in flow.steps:
        if declared.kind != "params":
            continue
        source = override_source(declared.source, overrides)
        step = msgspec.structs.replace(
            declared, source=source, code=hashlib.blake2b(normalise(source).encode(), digest_size=16).hexdigest()
        )
        literal = literal_values(source)
        if literal is not None:
            record = _literal_record(flow, step, literal, store, run)
            values.update(literal)
        else:
            record = _computed_record(flow, step, store, found, executor_of, run)
            values.update(_values_of(record, store, {**overrides}))
        found[step.name] = record
    return _without_params(flow), Given(values, found)


def _literal_record(flow: Flow, step: Step, values: Mapping[str, Any], store: Store, run: str) -> Record:
    """Literal values in; a published record that holds them out."""
    parts = KeyParts(code=step.code)
    key = task_key(parts)
    past = records.find(store, key)
    if past:
        return past[0]
    groups, entries = artifacts.save(store, dump(dict(values), Registry()))
    record = Record(
        format=FORMAT, key=key, execution=execution_id(run or "parameters", TaskId(step=step.name), 1), flow=flow.name,
        run=run, step=step.name, index=(), turn=None, attempt=1, created_at=time.time(), elapsed=0.0,
        source=step.source, parts=parts, groups=tuple(groups), artifacts=entries,
    )  # fmt: skip
    if run:
        records.publish(store, record)
    return record


def _computed_record(
    flow: Flow,
    step: Step,
    store: Store,
    given: Mapping[str, Record],
    executor_of: Callable[[str | None], Executor],
    run: str,
) -> Record:
    """A params step with computed defaults in; the record of its task out."""
    alone = msgspec.structs.replace(flow, steps=(step,))
    lookup = Lookup(alone, store, RunFacts(run=run or "parameters", store_url=store.url), given)
    task = TaskId(step=step.name)
    prepared = lookup.prepare(task)
    past = lookup.record(task)
    if past is not None:
        return past
    if prepared.action == "wait" or any(need not in given for need in step.needs):
        raise ParameterError(
            "a parameter's default reads a value that a step computes",
            cell=step.cell, fix="compute it in a step below instead; defaults may use imports, functions and constants",
        )  # fmt: skip
    handle = executor_of(None).submit(lookup.spec(task, 1, 1))
    for event in handle.events():
        if isinstance(event, Ended):
            failure = event.result.failure
            if event.result.record is None or failure is not None:
                text = f"{failure.type}: {failure.message}" if failure else "its process ended"
                raise ParameterError(
                    f"the parameters cannot be evaluated: {text}",
                    cell=step.cell,
                    line=failure.line if failure else None,
                )
            return event.result.record
    raise ParameterError("the parameters cannot be evaluated: the executor broke off", cell=step.cell)


def _values_of(record: Record, store: Store, overrides: dict[str, Any]) -> dict[str, Any]:
    """A computed params record in; its values as far as they are plain, else their previews, out."""
    plain = (
        "int",
        "float",
        "bool",
        "str",
        "NoneType",
        "list",
        "dict",
        "tuple",
        "pathlib.Path",
        "datetime.date",
        "datetime.datetime",
    )
    values = dict(overrides)
    for name, artifact in record.artifacts.items():
        if artifact.group >= 0 and artifact.type in plain:
            values.update(artifacts.load(store, record.groups, [name], Registry()))
        else:
            values[name] = artifact.preview
    return values


def _without_params(flow: Flow) -> Flow:
    """A flow in; the same without its params steps, whose values are known, out."""
    gone = {step.name for step in flow.steps if step.kind == "params"}
    steps = tuple(
        msgspec.structs.replace(step, order=order, needs=tuple(need for need in step.needs if need not in gone))
        for order, step in enumerate(step for step in flow.steps if step.name not in gone)
    )
    edges = tuple(edge for edge in flow.edges if edge.frm not in gone and edge.to not in gone)
    return msgspec.structs.replace(flow, steps=steps, edges=edges)
