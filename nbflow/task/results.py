"""A task's namespace after its cell → what it left: groups, artifacts, names that stayed unbound."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nbflow.analysis.effects import said_of_made
from nbflow.analysis.source import star_modules
from nbflow.errors import SerializationError
from nbflow.model import Manifest, TaskSpec
from nbflow.task import random_state

NEVER = frozenset({"In", "Out", "exit", "quit", "open", "get_ipython"})


def outputs_of(
    spec: TaskSpec, before: Mapping[str, Any], after: Mapping[str, Any], changed: Collection[str] = ()
) -> dict[str, Any]:
    """Return the values that a cell leaves, from the namespace before and after it and the inputs changed in place.

    Those are the names it was expected to write, and those newly bound or bound to another object; `--out` narrows.
    """
    # A name that the text shows as written counts even where it holds the object that it held, as after `xs.append(1)`;
    # any other counts only where it holds a new one. IPython's own names never do unless the cell has bound them.
    own = ({name for replay in spec.own for name in replay.names} | star_names(spec.source)) - {*spec.writes}
    expected = {*spec.writes, *changed}
    values: dict[str, Any] = {}
    for name, value in after.items():
        fresh = name not in before or before[name] is not value
        if not fresh and name not in expected:
            continue  # most names, of whatever kind
        if name in own or (name not in expected and (not is_public(name) or issubclass(type(value), types.ModuleType))):
            continue
        if fresh or name not in NEVER:
            values[name] = value
    for name in spec.writes:
        if name in random_state.STATES:
            values[name] = random_state.read(name)
    if spec.outputs is not None:
        values = {name: value for name, value in values.items() if name in spec.outputs}
        _check_bound(spec, values, after)
    return values


def star_names(source: str) -> set[str]:
    """Return the names that star imports in a source bring, of modules that are loaded."""
    return set(star_values(source))


def star_values(source: str) -> dict[str, Any]:
    """Return what star imports in a source bring, of modules that are loaded."""
    values: dict[str, Any] = {}
    for name in star_modules(source):
        if (module := sys.modules.get(name)) is not None:
            names = getattr(module, "__all__", None) or [each for each in vars(module) if each[:1] != "_"]
            values.update({each: getattr(module, each, None) for each in names})
    return values


def users(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return a namespace without IPython's own names."""
    return {name: value for name, value in namespace.items() if name not in NEVER and is_public(name)}


def _check_bound(spec: TaskSpec, values: dict[str, Any], after: Mapping[str, Any]) -> None:
    for name in spec.outputs or ():
        if name not in after:
            raise SerializationError(
                f"step {spec.step} left no value for {name!r}, which its --out names",
                step=spec.step,
                cell=spec.cell,
                fix=f"bind {name} in the cell, or take it out of --out",
            )
        values.setdefault(name, after[name])


def is_public(name: object) -> bool:
    """Return whether a name may be an artifact: `_x` is the cell's own business, other keys of `globals()` no names."""
    return isinstance(name, str) and not name.startswith("_")


def check_required(spec: TaskSpec, artifacts: Mapping[str, Manifest]) -> None:
    """Raise SerializationError when a value that another step needs could not be stored."""
    needed = {*spec.required, *(spec.outputs or ())}
    for name, artifact in artifacts.items():
        if artifact.error and name in needed:
            why = "its --out names it" if name in (spec.outputs or ()) else "a later step reads it"
            label = said_of_made(name)
            raise SerializationError(
                f"{label} (a {artifact.type}) of step {spec.step} cannot be stored, and {why}: {artifact.error}",
                step=spec.step,
                cell=spec.cell,
                fix=f"make {label.rpartition(' ')[2]} in a %%setup cell, so that every step makes its own; leave it "
                "out with --out; or register a serializer for its type",
            )


class Costs:
    """Seconds by what they went to: "inputs", "base line", "comparison", "storing"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start

    def rounded(self) -> dict[str, float]:
        """Return the seconds rounded to the microsecond, as records keep them."""
        return {what: round(seconds, 6) for what, seconds in self.seconds.items()}
