"""What a task is made of, its key, and whether a past execution can stand for it. Pure: records come in as data."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from nbflow.analysis.effects import PROCESS
from nbflow.analysis.source import is_star_import
from nbflow.engine.inputs import InputValue, Resolved
from nbflow.model import (
    FORMAT,
    Definition,
    Flow,
    Group,
    KeyParts,
    Ref,
    Replay,
    Step,
    StepEnvironment,
)

# ---------------------------------------------------------------- spec parts and key


def pack(values: Sequence[InputValue]) -> tuple[tuple[Group, ...], Callable[[InputValue], Ref]]:
    """Return the groups of values, each once, and a function from a value to its Ref."""
    groups: dict[tuple[str, tuple[str, ...]], int] = {}
    order: list[Group] = []
    for value in values:
        identity = (value.group.id, value.group.names)
        if identity not in groups:
            groups[identity] = len(order)
            order.append(value.group)
    return tuple(order), lambda value: Ref(name=value.artifact.name, group=groups[value.group.id, value.group.names])


def as_replay(definition: Definition, binds: Mapping[str, Ref] | None = None) -> Replay:
    """Return what replays a definition, with these names bound just for it."""
    return Replay(
        id=definition.id, kind=definition.kind, cell=definition.cell, position=definition.position,
        line=definition.line, source=definition.source, names=definition.names, binds=dict(binds or {}),
    )  # fmt: skip


def replay_of(
    flow: Flow, step: Step, resolved: Resolved, ref: Callable[[InputValue], Ref]
) -> tuple[tuple[Replay, ...], tuple[Replay, ...]]:
    """Return what is replayed before a step, and the definitions that it makes itself."""

    def entry(definition: Definition) -> Replay:
        binds = {name: ref(value) for (order, name), value in resolved.binds.items() if order == definition.order}
        replay = as_replay(definition, binds)
        if definition.names or not is_star_import(definition.source):
            return replay
        above = {each.name for each in flow.steps if each.position < definition.position}
        names = (
            each.name for each in step.bindings
            if each.sources and above.issuperset(source.step or step.name for source in each.sources)
        )  # fmt: skip
        return msgspec.structs.replace(replay, above=tuple(names))

    before = tuple(
        entry(flow.definitions[order]) for order in resolved.definitions
        if flow.definitions[order].cell != step.cell or order in resolved.again
    )  # fmt: skip
    own = tuple(
        entry(definition) for definition in flow.definitions
        if definition.cell == step.cell and definition.kind == "definition"
    )  # fmt: skip
    return before, own


def key_parts(
    flow: Flow, step: Step, resolved: Resolved, environment: StepEnvironment | None = None, *, item: str = ""
) -> KeyParts:
    """Return everything that a step's key is made of."""
    changes = [each.position for each in flow.steps if PROCESS in each.writes and PROCESS in resolved.inputs]
    definitions, setup = _replayed([flow.definitions[order] for order in resolved.definitions], step, changes)
    parameters = {parameter.name for parameter in flow.parameters}
    settings: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for name, value in resolved.inputs.items():
        if name in parameters:
            settings[name] = f"{value.artifact.preview}#{value.artifact.content_id}"
        else:
            inputs[name] = value.artifact.content_id
    for (order, name), value in resolved.binds.items():
        inputs[f"{name} while defining {flow.definitions[order].label}"] = value.artifact.content_id
    options = {} if step.options.outputs is None else {"out": ",".join(step.options.outputs)}
    if resolved.along:
        options["along"] = ",".join(sorted(resolved.along))
    return KeyParts(
        code=step.code, definitions=definitions, setup=setup, inputs=inputs, parameters=settings,
        item=item, environment=environment_id(environment), options=options,
    )  # fmt: skip


def _replayed(
    definitions: Sequence[Definition], step: Step, changes: Sequence[int]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the definitions that are replayed for a step by label, and its set-up.

    Imports and set-up run code and keep their order. Where each name is defined once, all else may stand anywhere, but
    what reads something while it is defined stands behind so many of the `changes` to the process, by their positions.
    """
    # Moving a function to another cell must not run everything again, so definitions enter the key by their content.
    # Their order counts where a name is defined twice, as then the later one stands.
    others = [each for each in definitions if each.cell != step.cell]
    declarations = [each for each in others if each.kind == "definition"]
    imports = [each for each in declarations if each.origins]
    names = [name for each in declarations for name in each.names]
    if len(names) == len({*names}):
        declarations = [
            *imports,
            *sorted((each for each in declarations if not each.origins), key=lambda each: each.id),
        ]
    setup = (
        f"{each.id} after {sum(one.order < each.order for one in imports)}" for each in others if each.kind == "setup"
    )
    behind = {each.id: sum(at < each.position for at in changes) for each in declarations if each.reads or each.origins}
    ids = {_place(each): f"{each.id} behind {n}" if (n := behind.get(each.id)) else each.id for each in declarations}
    return ids, tuple(setup)


def _place(definition: Definition) -> str:
    return f"{definition.label} (cell {definition.position}, line {definition.line})"


def environment_id(environment: StepEnvironment | None) -> str:
    """Return what a result may depend on before anything has run: Python, platform, the packages that are asked for."""
    words = [f"python {sys.version_info[0]}.{sys.version_info[1]}", sys.platform, platform.machine()]
    own = [environment.label, f"({environment.id[:12]})"] if environment is not None else []
    return " ".join([*words, *own])


def parts_of(identity: str) -> list[str]:
    """Return what `environment_id` has put together: three words on the machine, then the packages, "" for none."""
    python, version, platform_name, machine, packages = f"{identity}    ".split(" ", 4)
    return [f"{python} {version}", platform_name, machine, packages.strip()]


def task_key(parts: KeyParts, *, version: int = FORMAT) -> str:
    """Return a task's key: names of cells, steps and places in the document do not enter.

    `version`: the datastore's format that a past run had.
    """
    # Labels are for people: `(cell 4, line 1)` and previews are cut off here, so that inserting a cell, or another way
    # to show a value, leaves every key as it is. Where order means nothing it is made one by sorting.
    material = [
        version,
        parts.code,
        list(parts.definitions.values()),
        list(parts.setup),
        [[name.partition(" while defining ")[0], identity] for name, identity in sorted(parts.inputs.items())],
        sorted((name, text.rpartition("#")[2]) for name, text in parts.parameters.items()),
        parts.item,
        parts.environment,
        sorted(parts.options.items()),
        sorted(parts.files.items()),
    ]
    return digest(material)


def digest(material: Any) -> str:
    """Return the hash of anything that JSON holds."""
    return hashlib.blake2b(msgspec.json.encode(material), digest_size=20).hexdigest()


# ---------------------------------------------------------------- reuse


AHEAD = 60.0
"""Seconds that a clock may be ahead before the ages that it tells count for nothing."""
