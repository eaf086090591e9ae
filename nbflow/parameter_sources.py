"""Where a run's parameters come from besides the command line: a file, or the run that is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from nbflow.errors import NotFoundError, ParameterError, PlanError
from nbflow.model import Flow, Record
from nbflow.parameters import gather_overrides
from nbflow.storage import Store
from nbflow.stored_run import StoredRun, find_run


def read_params_file(path: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    """A YAML or JSON file's path (None: none) in; its names with values out; ParameterError says what is wrong."""
    if path is None:
        return {}
    place = Path(path)
    try:
        found = _parse(place.read_text(encoding="utf-8"), place.suffix)
    except OSError as error:
        raise ParameterError(
            f"the parameter file {str(path)!r} cannot be read: {error.strerror}", fix="check the path"
        ) from None
    except ImportError:
        raise ParameterError("reading YAML needs the package pyyaml", fix="pip install pyyaml, or write JSON") from None
    except Exception as error:  # the YAML reader's own kinds of error
        raise ParameterError(
            f"the parameter file {str(path)!r} cannot be understood: {error}", fix="write YAML or JSON"
        ) from None
    if not isinstance(found, dict):
        raise ParameterError(
            f"the parameter file {str(path)!r} holds no names with values", fix="write `name: value` lines"
        )
    return {str(name): value for name, value in found.items()}


def _parse(text: str, suffix: str) -> Any:
    if suffix not in (".yaml", ".yml"):
        return json.loads(text)
    import yaml

    return yaml.safe_load(text)


@dataclass(frozen=True)
class Wish:
    """What the user says of a run's parameters: values given now, those of a file, the run whose others count."""

    params: Mapping[str, Any] = field(default_factory=dict)
    from_file: Mapping[str, Any] = field(default_factory=dict)
    resume: str | None = None


@dataclass(frozen=True)
class Settled:
    """Typed overrides, and the records of the run that is resumed: their values are the real ones."""

    overrides: Mapping[str, Any]
    earlier: tuple[Record, ...] = ()


def settle(flow: Flow, store: Store, wish: Wish, environment: Mapping[str, str]) -> Settled:
    """A flow and what the user says of its parameters in; what counts out.

    One ParameterError lists everything that is wrong; PlanError when there is no such run to resume.
    """
    folder = Path(flow.notebook.folder)

    def exists(path: str) -> bool:
        return (folder / path).is_file()

    if wish.resume is None:
        return Settled(gather_overrides(flow.parameters, wish.params, wish.from_file, environment, exists))
    past = _past(store, wish.resume)
    asked = {**wish.from_file, **wish.params}
    known = {parameter.name for parameter in flow.parameters}
    texts = {name: from_text(text) for name, text in past.started.parameters.items() if name in known}
    overrides = gather_overrides(flow.parameters, {**texts, **asked}, {}, environment, exists)
    return Settled(overrides, _records(past, asked))


def _past(store: Store, run: str) -> StoredRun:
    try:
        past = find_run(store, run)
        past.started  # noqa: B018  # raises where the run has no beginning
    except NotFoundError as error:
        raise PlanError(f"nothing can be resumed: {error.message}", fix="`nbflow runs` lists all runs") from None
    return past


def _records(past: StoredRun, besides: Collection[str]) -> tuple[Record, ...]:
    """A run in; the records of its parameters without these names out."""
    found = (past.given(key, execution) for key, execution in past.started.given)
    return tuple(
        msgspec.structs.replace(record, artifacts={n: a for n, a in record.artifacts.items() if n not in besides})
        for record in found if record is not None
    )  # fmt: skip


def as_text(value: Any) -> str:
    """A parameter's value in; JSON where it is of JSON's types, else its text, out."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)


def from_text(text: str) -> Any:
    """What `as_text` gave in; the value, or the text, out."""
    try:
        return json.loads(text)
    except ValueError:
        return text
