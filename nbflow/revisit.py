"""A past task's inputs put into the live kernel, so that its cell can be run and debugged there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbflow import randomness, replay
from nbflow.errors import OutdatedError
from nbflow.executors.kernel import execute
from nbflow.joining import open_inputs
from nbflow.knowledge import Knowledge
from nbflow.model import Replay, TaskSpec
from nbflow.past_inputs import loop_names


@dataclass(frozen=True)
class Revisited:
    """What was bound: names of inputs, names of definitions; and the source of the task's cell."""

    inputs: tuple[str, ...]
    definitions: tuple[str, ...]
    source: str


def revisit(known: Knowledge, spec: TaskSpec) -> Revisited:
    """What a past task was run from in; definitions replayed, inputs bound in the kernel; what was bound out.

    The session counts none of these names as the notebook's own version: a step that needs one loads its own.
    """
    inputs = replay.Inputs(spec.groups, known.load)
    defined = [name for statement in spec.replay for name in _define(known, statement, inputs)]
    namespace: dict[str, Any] = known.ip.user_ns
    found: dict[str, Any] = {}
    for name, ref in spec.inputs.items():
        if name in randomness.STATES:
            randomness.restore(name, inputs.value(ref), spec.index if spec.options.foreach else ())
        else:
            found[name] = inputs.value(ref)
    found |= loop_names(spec, inputs.value(spec.item) if spec.item is not None else None)
    if spec.joined is not None:
        constants = {name: namespace[name] for name in spec.constants if name in namespace}
        found["inputs"] = open_inputs(spec.joined, inputs.value, known.store(), known.registry, constants)
    namespace.update(found)
    known.waiting.drop(found)
    known.ledger.forget(found)
    return Revisited(tuple(sorted(found)), tuple(dict.fromkeys(defined)), spec.source.strip("\n"))


def _define(known: Knowledge, statement: Replay, inputs: replay.Inputs) -> tuple[str, ...]:
    """A definition or set-up statement in, in force from here on; the names that it bound out.

    What this kernel has executed already stays the same object: instances that are there keep their class.
    """
    namespace: dict[str, Any] = known.ip.user_ns
    if statement.kind == "setup" and statement.id in known.ledger.setup:
        return ()
    if statement.kind == "definition" and known.registry.has(statement.id):
        try:
            namespace.update({name: known.registry.object(statement.id, name) for name in statement.names})
        except OutdatedError:  # an import, a constant: nothing that a pickle refers to
            pass
        else:
            return statement.names
    binds = {name: inputs.value(ref) for name, ref in statement.binds.items()}
    hidden = {name: namespace[name] for name in binds if name in namespace}
    namespace.update(binds)
    execute(known.ip, statement)
    for name in binds.keys() - {*statement.names}:
        del namespace[name]
    namespace.update({name: value for name, value in hidden.items() if name not in statement.names})
    if statement.kind == "definition":
        replay.register(statement, namespace, known.registry)
    known.waiting.drop(statement.names)
    known.ledger.forget(statement.names)
    return statement.names
