"""A past task's inputs put into the live kernel, so that its cell can be run and debugged there."""

from __future__ import annotations

from typing import Any

import msgspec

from nbflow.errors import OutdatedError
from nbflow.kernel.task import Before, KernelTask
from nbflow.kernel.workspace import Knowledge
from nbflow.model import TaskSpec
from nbflow.task import stages
from nbflow.task.replay import Place, place_of


class Revisited(msgspec.Struct, frozen=True):
    """What was bound: names of inputs, names of definitions; and the source of the task's cell."""

    inputs: tuple[str, ...]
    definitions: tuple[str, ...]
    source: str


def revisit(known: Knowledge, spec: TaskSpec) -> Revisited:
    """Put into the kernel what a past task was run from: definitions replayed, inputs bound, states set.

    The session counts none of these names as the notebook's own version: a step that needs one loads its own.
    """
    task = KernelTask(spec, known.kernel)
    namespace: dict[str, Any] = known.ip.user_ns
    live = _defined(known, spec)
    task.bring(Before(live=live, values={}), isolated=False)
    constants = {name: namespace[name] for name in spec.constants if name in namespace}
    stages.bind_loop(spec, task.inputs, task, known.store(), known.registry, constants)
    definitions = [statement for statement in spec.replay if statement.kind == "definition"]
    defined = dict.fromkeys(name for statement in definitions for name in statement.names)
    names = {name for name in (*spec.inputs, *spec.values, *spec.targets) if not name.startswith("<")}
    names |= {"inputs"} if spec.joined is not None else set()
    known.waiting.drop({*names, *defined})
    known.ledger.forget({*names, *(name for statement, _ in task.replayed for name in statement.names)})
    return Revisited(tuple(sorted(names)), tuple(defined), spec.source.strip("\n"))


def _defined(known: Knowledge, spec: TaskSpec) -> set[Place]:
    """Bind definitions that this kernel has executed already; return where they stand: instances keep their class."""
    process = known.kernel.process
    places = {place_of(each) for each in spec.replay if each.kind == "setup" and process.has_run(place_of(each))}
    for statement in spec.replay:
        if statement.kind != "definition" or not known.registry.has(statement.id):
            continue
        try:
            objects = {name: known.registry.object(statement.id, name) for name in statement.names}
        except OutdatedError:  # an import, a constant: nothing that a pickle refers to
            continue
        known.ip.user_ns.update(objects)
        places.add(place_of(statement))
    return places
