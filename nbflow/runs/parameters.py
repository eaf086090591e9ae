"""Evaluate a flow's `%%params` cells once, before anything else runs: overrides put in, defaults computed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nbflow.analysis.cell import normalise
from nbflow.engine import file_parameters
from nbflow.engine.keys import task_key
from nbflow.engine.lookup import Lookup, RunFacts
from nbflow.errors import NotFoundError, ParameterError, PlanError
from nbflow.flow.config import parse_values
from nbflow.flow.parameters import gather_overrides, is_constant, literal_values, override_source
from nbflow.flow.subflow import without_params
from nbflow.model import FORMAT, Ended, Finding, Flow, KeyParts, Record, Step, TaskId
from nbflow.plugins import Executor
from nbflow.store import artifacts, records
from nbflow.store.executions import execution_id
from nbflow.store.location import Store, open_store
from nbflow.store.serialize.pickler import Registry, dump
from nbflow.store.stored_run import StoredRun, find_run


def read_params_file(path: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    """Return the values of a YAML, TOML or JSON file by name, none for None; raise ParameterError where it is wrong."""
    if path is None:
        return {}
    place = Path(path)
    try:
        return parse_values(place.read_text(encoding="utf-8"), place.suffix)
    except OSError as error:
        raise ParameterError(
            f"the parameter file {str(path)!r} cannot be read: {error.strerror}", fix="check the path"
        ) from None
    except ImportError:
        raise ParameterError("reading YAML needs the package pyyaml", fix="pip install pyyaml, or write JSON") from None
    except ValueError as error:
        raise ParameterError(
            f"the parameter file {str(path)!r} cannot be understood: {error}",
            fix="write `name: value` lines, or TOML or JSON that maps names to values",
        ) from None


class Wish(msgspec.Struct, frozen=True):
    """What the user says of a run's parameters: values given now, those of a file, the run whose others count."""

    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    from_file: Mapping[str, Any] = msgspec.field(default_factory=dict)
    resume: str | None = None


class SettledParameters(msgspec.Struct, frozen=True):
    """Typed overrides, and the records of the run that is resumed: their values are the real ones."""

    overrides: Mapping[str, Any]
    earlier: tuple[Record, ...] = ()


def settle(flow: Flow, store: Store, wish: Wish, environment: Mapping[str, str]) -> SettledParameters:
    """Return the values that count: given now, in a file, in the environment, or by the run that is resumed.

    Raises one ParameterError that lists everything that is wrong, and PlanError when there is no such run to resume.
    """
    folder = Path(flow.notebook.folder)

    def exists(path: str) -> bool:
        return (folder / path).is_file()

    if wish.resume is None:
        return SettledParameters(gather_overrides(flow.parameters, wish.params, wish.from_file, environment, exists))
    past = _past(store, wish.resume)
    now = {**wish.from_file, **wish.params}
    names = {parameter.name for parameter in flow.parameters}
    texts = {name: from_text(text) for name, text in past.started.parameters.items() if name in names}
    overrides = gather_overrides(flow.parameters, {**texts, **now}, {}, environment, exists)
    return SettledParameters(overrides, _records(past, now))


def _past(store: Store, run: str) -> StoredRun:
    try:
        past = find_run(store, run)
        past.started  # noqa: B018  # raises where the run has no beginning
    except NotFoundError as error:
        raise PlanError(f"the run cannot be resumed: {error.message}", fix="`nbflow runs` lists all runs") from None
    return past


def _records(past: StoredRun, besides: Collection[str]) -> tuple[Record, ...]:
    """Return the records of a run's parameters without these names."""
    stored = (past.given(key, execution) for key, execution in past.started.given)
    return tuple(
        msgspec.structs.replace(record, artifacts={n: a for n, a in record.artifacts.items() if n not in besides})
        for record in stored if record is not None
    )  # fmt: skip


def as_text(value: Any) -> str:
    """Return a parameter's value as JSON where it is of JSON's types, else as its text."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)


def from_text(text: str) -> Any:
    """Return the value, or the text, that `as_text` was given."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class Given(msgspec.Struct, frozen=True):
    """Parameters with values: by name, and as records that steps read from, by params step."""

    values: Mapping[str, Any] = msgspec.field(default_factory=dict)
    records: Mapping[str, Record] = msgspec.field(default_factory=dict)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """(key, execution) of every record."""
        return tuple((record.key, record.execution) for record in self.records.values())


class ParameterPlace(msgspec.Struct, frozen=True):
    """Where parameters are evaluated and kept: the datastore, the executors, the run ("" for a plan).

    `scratch` is where they are kept meanwhile: the datastore itself in a run, a place that goes away for a plan.
    """

    store: Store
    scratch: Store
    executor_of: Callable[[str | None], Executor]
    run: str


def evaluate(
    flow: Flow,
    store: Store,
    wish: Wish,
    executor_of: Callable[[str | None], Executor],
    run: str,
) -> tuple[Flow, Given]:
    """Return a flow without its params steps, and their values.

    Literal defaults are read here; a default that is computed takes one task. Raises a ParameterError that lists what
    is wrong with the values given, or names the default that fails, before anything else runs.
    """
    if run:
        return _evaluated(flow, ParameterPlace(store, store, executor_of, run), wish)
    with tempfile.TemporaryDirectory(prefix="nbflow-plan-") as folder:
        scratch = open_store(folder)
        try:
            return _evaluated(flow, ParameterPlace(store, scratch, executor_of, run), wish)
        finally:
            scratch.forget()


def _evaluated(flow: Flow, place: ParameterPlace, wish: Wish) -> tuple[Flow, Given]:
    settled = settle(flow, place.store, wish, os.environ)
    overrides = settled.overrides
    run, computed = place.run, []
    by_step: dict[str, Record] = {}
    values: dict[str, Any] = {}
    for declared in flow.steps:
        if declared.kind != "params":
            continue
        earlier = _kept(declared, settled.earlier)
        source = override_source(declared.source, overrides)
        step = msgspec.structs.replace(
            declared, source=source, code=hashlib.blake2b(normalise(source).encode(), digest_size=16).hexdigest()
        )
        literal = literal_values(source)
        if earlier is not None and set(earlier.artifacts) >= set(declared.writes):
            record = _merged(msgspec.structs.replace(earlier, groups=(), artifacts={}), earlier, place)
        else:
            if literal is None and not run:
                computed.append(_computing(step))
            record = (
                _literal_record(flow, step, literal, place)
                if literal is not None
                else _computed_record(flow, step, place, by_step)
            )
            record = record if earlier is None else _merged(record, earlier, place)
        # what the notebook says needs no store: reading one unpickles
        plain = _values_of(record, place) if literal is None or earlier is not None else literal
        by_step[step.name] = file_parameters.with_content(flow, record, plain, place.store if run else None)
        values.update(plain)
    for record in by_step.values():
        if run:
            records.publish(place.store, record)
    part = without_params(flow)
    return msgspec.structs.replace(part, findings=(*part.findings, *computed)), Given(values, by_step)


def _computing(step: Step) -> Finding:
    """Return what a plan says of parameters' defaults that it has had to compute, as a run would have."""
    return Finding(
        code="parameters", level="note", step=step.name, cell=step.cell,
        message="defaults of this %%params cell are code, which was run to know them; nothing of it is kept",
    )  # fmt: skip


def _kept(step: Step, earlier: Sequence[Record]) -> Record | None:
    """Return what the run that is resumed has of a params step."""
    for record in earlier:
        artifacts = {
            n: artifact for n, artifact in record.artifacts.items() if n in step.writes and artifact.group >= 0
        }
        if artifacts:
            return msgspec.structs.replace(record, step=step.name, artifacts=artifacts)
    return None


def _merged(record: Record, kept: Record, place: ParameterPlace) -> Record:
    """Return a record of this run that holds the values of both records, the earlier ones first."""
    start = len(record.groups)
    moved = {name: msgspec.structs.replace(a, group=a.group + start) for name, a in kept.artifacts.items()}
    inputs = {name: artifact.content_id for name, artifact in kept.artifacts.items()}
    parts = msgspec.structs.replace(record.parts, inputs=inputs, files={})
    return msgspec.structs.replace(
        record, format=FORMAT, key=task_key(parts), parts=parts, run=place.run,
        execution=execution_id(place.run or "parameters", TaskId(step=record.step), 1),
        groups=(*record.groups, *kept.groups), artifacts={**record.artifacts, **moved}, created_at=time.time(),
    )  # fmt: skip


def _literal_record(flow: Flow, step: Step, values: Mapping[str, Any], place: ParameterPlace) -> Record:
    """Return a record that holds literal values."""
    parts = KeyParts(code=step.code)
    key = task_key(parts)
    past = (record for record in records.find(place.store, key) if artifacts.is_whole(place.scratch, record.groups))
    if (newest := next(past, None)) is not None:
        return newest
    groups, entries = artifacts.save(place.scratch, dump(dict(values), Registry()))
    return Record(
        format=FORMAT, key=key, execution=execution_id(place.run or "parameters", TaskId(step=step.name), 1),
        flow=flow.name, run=place.run, step=step.name, index=(), turn=None, attempt=1, created_at=time.time(),
        elapsed=0.0, source=step.source, parts=parts, groups=tuple(groups), artifacts=entries,
    )  # fmt: skip


def _computed_record(flow: Flow, step: Step, place: ParameterPlace, given: Mapping[str, Record]) -> Record:
    """Return the record of the task that computes a params step's defaults.

    Defaults are evaluated once a run: only those that can never come out differently are reused.
    """
    alone = msgspec.structs.replace(flow, steps=(step,))
    facts = RunFacts(run=place.run or "parameters", store_url=place.scratch.url, fresh=not is_constant(step.source))
    lookup = Lookup(alone, place.store, facts, given)
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
    handle = place.executor_of(None).submit(lookup.spec(task, 1, 1))
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
    raise ParameterError("the parameters cannot be evaluated: the executor stopped first", cell=step.cell)


PLAIN = frozenset(
    "int float bool str NoneType list dict tuple set pathlib.Path pathlib.PosixPath pathlib.WindowsPath datetime.date"
    " datetime.datetime nbflow.flow.parameters.File nbflow.File nbflow.flow.parameters.Config"
    " nbflow.Config".split()
)
"""Types whose values are read here; of others the preview is enough."""


def _values_of(record: Record, place: ParameterPlace) -> dict[str, Any]:
    """Return the values of a params record where they are plain, else their previews."""
    values: dict[str, Any] = {}
    for name, artifact in record.artifacts.items():
        if name.startswith("<"):
            continue
        if artifact.group >= 0 and artifact.type in PLAIN:
            groups = [record.groups[artifact.group]]
            store = place.store if artifacts.is_whole(place.store, groups) else place.scratch
            values.update(artifacts.load(store, groups, [name], Registry()))
        else:
            values[name] = artifact.preview
    return values
