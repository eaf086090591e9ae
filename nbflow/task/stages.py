"""The stages of a task around its cell, in the order in which they happen and in which this file has them.

1. `bind`, `bind_loop`: each input goes where the cell will look for it.
2. `Stages.look`: what is there before the cell is taken down, so that what it does can be told from it.
3. `Stages.take_base_line`: so is how those inputs look that the cell may change without saying so.
4. The lane runs the cell.
5. `Stages.see_draws`, `Stages.wait`: were numbers drawn that nothing fixes; what the cell left running is awaited.
6. `Stages.collect` (`skipped` where its `--if` does not hold): what the cell left, compared with 2 and 3.
7. The lane stores that; `Stages.record` makes the record.

The lanes are a process of the task's own (`execute`) and the live kernel (`kernel.task`). Each says where values come
from (`InputSource`) and where they belong (`InputPlace`), and runs the cell. A kernel goes on after the cell, so its
lane waits for nothing in 5, and has a loop to bind only where a task of a past run is loaded. What travels beside the
names (what cells set in the process or on definitions, random states) is bound and collected here and nowhere else.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Protocol

import msgspec

from nbflow.analysis.effects import AXES, LIVE, PROCESS, is_made, made_by, names_axes, owner_of
from nbflow.model import FORMAT, MISSING, Finding, Group, Manifest, Observations, Record, Ref, TaskSpec
from nbflow.store import records
from nbflow.store.location import Store
from nbflow.store.serialize.fingerprint import fingerprint, holds_artists, holds_classes
from nbflow.store.serialize.pickler import Dumped, Unstorable
from nbflow.store.serialize.rebuild import Made
from nbflow.store.serialize.registry import Registry
from nbflow.store.serialize.sharing import dump_together
from nbflow.task import leftovers, live_state, module_state, process_state, random_state, replay, results
from nbflow.task.definition_state import Definitions
from nbflow.task.import_settings import ImportSettings
from nbflow.task.join import open_inputs
from nbflow.task.mutation import BaseLine, is_fixed
from nbflow.task.observe.environment import looks_secret
from nbflow.task.observe.observer import Observer
from nbflow.task.results import Costs
from nbflow.task.secrets import withhold

MANY_OBJECTS = 500_000
"""Bytes of a value's stream, arrays not counted, that are pickled in about 50 ms."""

IN_SECRET = re.compile(r"\bgetpass\b")
"""In code that asks a person for what nobody else may see."""

ENV_FILE = re.compile(r"(?:^|[/\\])(?:\.env(?:\.\w+)?|\w+\.env)$")
"""Files that variables are kept in."""

NOTHING_SEEN = Observations()

Guard = Callable[[Callable[[], Any]], Any]
"""Calls user code outside the cell: what it raises becomes the task's failure."""


def _unguarded(call: Callable[[], Any]) -> Any:
    return call()


class InputSource(Protocol):
    """Where a task's inputs come from."""

    def value(self, ref: Ref) -> Any:
        """Return the value of an input, the same object each time; raise whatever loading it raises."""


class InputPlace(Protocol):
    """Where a lane puts what it binds."""

    def name(self, name: str, value: Any) -> None:
        """Bind a name of the user's."""

    def random(self, name: str, state: Any) -> None:
        """Make a library's global random state this one."""

    def definition(self, name: str, state: Mapping[str, Any]) -> None:
        """Set on a class or function what earlier cells have set on it."""


# ---------------------------------------------------------------- what the cell reads


def bind(spec: TaskSpec, values: InputSource, place: InputPlace) -> None:
    """Bind a task's inputs, each where it belongs; what steps set in the process belongs to the replay."""
    stars = [statement for statement in spec.replay if statement.above]
    bound_again = {name for star in stars for name in results.star_names(star.source).intersection(star.above)}
    for name, ref in spec.inputs.items():
        if name == PROCESS or is_made(name) or name in bound_again:  # those of the replay
            continue
        value = values.value(ref)
        if name in random_state.STATES:
            place.random(name, value)
        elif (owner := owner_of(name)) is not None:
            place.definition(owner, value)
        else:
            place.name(name, value)
    for name, value in spec.values.items():
        place.name(name, value)


def bind_loop(
    spec: TaskSpec, values: InputSource, place: InputPlace, store: Store, registry: Registry,
    constants: Mapping[str, Any],
    guard: Guard = _unguarded,
) -> None:  # fmt: skip
    """Bind the loop variable of a foreach, and `inputs` of a join, whose `constants` its items have too."""
    if spec.options.foreach is not None and spec.item is not None:
        item = values.value(spec.item)
        for name, value in guard(lambda: unpacked(spec.options.foreach.target, item)).items():  # type: ignore[union-attr]
            place.name(name, value)
    if spec.joined is not None:
        place.name("inputs", open_inputs(spec.joined, values.value, store, registry, constants))


def unpacked(target: str, item: Any) -> dict[str, Any]:
    """Return the names that a loop target (`x`, `a, (b, c)`) binds to an item's parts; raise what unpacking raises."""
    space: dict[str, Any] = {"__item": item}
    exec(f"{target} = __item", space)
    names = {node.id for node in ast.walk(ast.parse(target, mode="eval")) if isinstance(node, ast.Name)}
    return {name: space[name] for name in names}


def changes_above(spec: TaskSpec, values: InputSource) -> process_state.Changes:
    """Return what the steps above a task have set in the process."""
    ref = spec.inputs.get(PROCESS)
    changes: process_state.Changes = values.value(ref) if ref is not None else ()
    return changes


# ---------------------------------------------------------------- what the cell leaves


class Left(msgspec.Struct, frozen=True):
    """What a cell left, taken apart but not stored."""

    values: Mapping[str, Any]  # names, and what travels beside them
    dumped: tuple[Dumped | Unstorable, ...]
    unbound: tuple[str, ...] = ()
    changed: frozenset[str] = frozenset()  # inputs changed in place, or stored with what shares objects with them
    joined: Mapping[str, Any] = msgspec.field(default_factory=dict)  # the latter
    shares: frozenset[str] = frozenset()  # inputs that share objects with what is left
    same: frozenset[str] = frozenset()  # names that hold the very objects that the task was given under them
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)  # of its record: `skipped`, `until`, `caught`


class Stages:
    """One task around its cell. `look` before it and `collect` after it see the namespace as the cell does."""

    def __init__(
        self,
        spec: TaskSpec,
        namespace: dict[str, Any],
        registry: Registry,
        values: InputSource,
        reload: replay.Load,
        observer: Observer,
        modules: Callable[[], Iterable[str]],
        imports: ImportSettings,
        secrets: Mapping[str, str],
    ) -> None:
        self.spec = spec
        self.secrets = secrets  # those of the whole flow that are known here, by name
        self.namespace = namespace
        self.registry = registry
        self.values = values
        self.reload = reload  # a group loaded once more, to compare with
        self.observer = observer
        self.modules = modules  # the names of loaded modules, the notebook's own ones among them
        self.imports = imports
        self.definitions = Definitions((), {}, registry)
        self.findings: list[Finding] = []
        self.disordered: tuple[str, ...] = ()  # inputs whose sets are iterated in another order here
        self.costs = Costs()
        self.created_at = time.time()
        self.elapsed = 0.0
        self.before: dict[str, Any] = {}
        self.others: Mapping[str, Any] = {}  # what names of other cells hold where the task runs
        self.process: process_state.Taken = {}
        self.states: Mapping[str, Any] = {}
        self.module_state: module_state.Taken = {}
        self.live: live_state.Taken = {}
        self._inputs = BaseLine(spec, {}, registry)
        self.above: process_state.Changes | None = None  # where the tasks before it in its process have set it
        self.process_left: process_state.Changes = ()
        self._loaded = 0  # modules of this process
        self.threads: frozenset[int] = frozenset()
        self.is_apart = True  # in a process that other steps do not share

    # ------------------------------------------------------------ before the cell

    def look(self, process: process_state.Taken | None = None) -> None:
        """Take down what is there before anything of the cell runs: names, states, options, modules, threads.

        `process` is what has just been taken of it, where nothing can have changed that since.
        """
        self.before = dict(self.namespace)
        self.states = random_state.loaded()
        self.process = process if process is not None else process_state.take()
        self.module_state = module_state.take(self.modules(), self.registry)
        self._loaded = len(sys.modules)
        self.live = live_state.take(self.namespace, self._sources())
        self.threads = frozenset(thread.ident or 0 for thread in threading.enumerate())
        self._see_order()

    def see_statement(self, names: Iterable[str]) -> None:
        """Take down, after each statement of the cell, how that is which it has just defined and imported."""
        self.definitions.see(names, self.namespace)
        if len(sys.modules) != self._loaded:
            self._loaded = len(sys.modules)
            known = {module for module, _ in self.module_state}
            now = module_state.take(self.modules(), self.registry)
            self.module_state = {**self.module_state, **{key: now[key] for key in now if key[0] not in known}}

    def _see_order(self) -> None:
        """Say which inputs hold sets that are iterated in another order here than where they were made."""
        spec = self.spec
        self.disordered = names = tuple(sorted(self.registry.disordered & spec.inputs.keys()))
        self.registry.disordered.clear()
        if names:
            self.findings.append(Finding(
                code="set-order", level="warning", step=spec.step, cell=spec.cell, name=names[0],
                message=f"{spec.step} reads {', '.join(names)}: sets there have another order here than where they "
                "were made", fix="use sorted(…) where the order counts; for text, start Jupyter with PYTHONHASHSEED=0",
            ))  # fmt: skip

    def take_base_line(self) -> None:
        """Take down how inputs look that the cell is not known to write."""
        spec = self.spec
        reads = (*spec.inputs, *spec.live)
        names = [n for n in reads if n not in spec.writes and not n.startswith("<") and n in self.namespace]
        values = {} if spec.options.pure else {name: self.namespace[name] for name in names}
        with self.costs.of("base line"):
            self._inputs = BaseLine(spec, values, self.registry)

    # ------------------------------------------------------------ after the cell

    @cached_property
    def process_after(self) -> process_state.Taken:
        """The process as the cell has left it; asked for when it has ended."""
        return process_state.take()

    def see_draws(self) -> None:
        """Say that another execution would not do the same, where numbers were drawn that nothing fixes."""
        if random_state.drew(self.spec, self.states):
            self.observer.add_volatile("random")

    def wait(self) -> None:
        """Wait for the asyncio tasks and threads that the cell has left behind."""
        spec = self.spec
        self.findings += leftovers.await_tasks(spec.step, spec.cell)
        self.findings += leftovers.join_threads(spec.step, spec.cell, self.threads)

    def collect(self, hold: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Left:
        """Return what the cell left: outputs, inputs that it changed in place, and what shares objects with both."""
        spec, namespace = self.spec, self.namespace
        for definition in spec.own:
            replay.register(definition, namespace, self.registry)
        # First all that was changed in place, for a changed input is an output too: `outputs_of` has to know of it.
        # Only then what is beside the outputs, for that is whatever has not become one of them.
        effects = self._effects()
        self._see_refused()
        with self.costs.of("comparison"):
            touched = self._inputs.compare()
            shared = self._shared_changes(touched, effects)
            shared |= self._changed_beside(touched)
        # a name that holds something else by now is a write like others; whoever shares its object is found by that
        changed = {name for name in touched if namespace.get(name, MISSING) is self.before[name]} | shared.keys()
        changed |= effects.keys()
        outputs = results.outputs_of(spec, self.before, namespace, changed)
        changed |= outputs.keys() - {*spec.writes}  # bound in a way that the text does not show
        values = {**shared, **outputs, **effects}
        with self.costs.of("storing"), hold():
            left = self.taken_apart(values, self._beside(values), changed)
        return msgspec.structs.replace(
            left, same=frozenset(n for n, v in (*values.items(), *left.joined.items()) if self._is_given(n, v))
        )

    def taken_apart(self, values: Mapping[str, Any], beside: Mapping[str, Any], changed: Collection[str] = ()) -> Left:
        """Return values as they will be stored, with those `beside` them that they share objects with."""
        spec = self.spec
        together = dump_together(values, beside, spec.tracked, self.registry)
        self._see_partial(together.dumped)
        unbound = tuple(name for name in spec.writes if name not in values and name not in self.namespace)
        return Left(
            values=values, dumped=self._storable(together.dumped), unbound=unbound,
            changed=frozenset({*changed} | together.joined), shares=together.shares,
            joined={name: beside[name] for name in together.joined},
        )  # fmt: skip

    def _is_given(self, name: str, value: Any) -> bool:
        """Return whether a value is the very object that the task was given under a name."""
        ref = self.spec.inputs.get(name) or self.spec.along.get(name)
        return ref is not None and self.values.value(ref) is value

    def skipped(self, condition: str) -> Left:
        """Return what a condition leaves that does not hold: of a loop its variable, which the rest may read."""
        targets = {name: self.namespace[name] for name in self.spec.targets}
        together = dump_together(targets, {}, (), self.registry)
        return msgspec.structs.replace(self.plain(together.dumped, targets), facts={"skipped": condition})

    def plain(self, dumped: Iterable[Dumped | Unstorable], values: Mapping[str, Any] | None = None) -> Left:
        """Return values that have been taken apart as all that the task leaves."""
        return Left(values=values or {}, dumped=self._storable(dumped))

    def _beside(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs that the cell has left as they were, and names that share objects with them.

        Outputs may hold parts of them. Many small objects take long to look at, which is done only where it matters.
        """
        spec = self.spec
        neighbours = {
            name: self.namespace[name] for name in spec.live
            if name in self.namespace and name not in values and not is_fixed(self.namespace[name])
        }  # fmt: skip
        for name, ref in (*spec.inputs.items(), *spec.along.items()):
            is_state = owner_of(name) is not None
            if name in values or (name.startswith("<") and not is_state):
                continue
            if name not in spec.inputs and self._is_bound(name):
                continue
            value = self.values.value(ref)
            held = self.namespace.get(name) is value and self.before.get(name) is value
            live = held or is_state or name not in spec.inputs
            dear = spec.groups[ref.group].stream.length > MANY_OBJECTS and not {"*", name}.intersection(spec.tracked)
            if live and not dear and not is_fixed(value):
                neighbours[name] = value
        return neighbours

    def _is_bound(self, name: str) -> bool:
        value = self.namespace.get(name, MISSING)
        return value is not MISSING and value is not self.before.get(name, MISSING)

    def _shared_changes(self, changed: Collection[str], effects: Mapping[str, Any]) -> dict[str, Any]:
        """Return names that share objects with an input that was changed in place, and changed with it.

        A step that only knows `guests` may change the list that is `everyone` too: both have a new version then. So may
        one that calls a function whose default that list is.
        """
        spec, namespace = self.spec, self.namespace
        inputs: dict[int, list[str]] = {}  # group -> inputs of it that the cell may have changed
        for name, ref in spec.inputs.items():
            if name in changed or name in spec.writes or name in effects:
                inputs.setdefault(ref.group, []).append(name)
        if any(owner_of(name) is not None for name in effects):
            for statement in spec.replay:
                for ref in statement.binds.values():
                    inputs.setdefault(ref.group, [])
        values: dict[str, Any] = {}
        for other, along in spec.along.items():
            if along.group not in inputs or self._is_bound(other):
                continue  # it shares nothing, or the cell has bound it
            value = self.values.value(along)
            # Artists refer to each other, axes to their figure: one that was changed has changed the others. What
            # the step writes counts as changed too; anything else is compared with what was stored.
            together = holds_artists(value) and any(holds_artists(namespace.get(n)) for n in inputs[along.group])
            if together or other in spec.writes or not self._is_as_stored(other, value, along.group):
                values[other] = value
        return values

    def _changed_beside(self, changed: Collection[str]) -> dict[str, Any]:
        """Return names of other cells whose objects the changed inputs hold too, where that was not known.

        A task in a process has no other names: there the cell that made the second name is executed again.
        """
        inputs = {name: self.values.value(self.spec.inputs[name]) for name in changed if name in self.spec.inputs}
        live = {*self.spec.live} & {*changed, *self.spec.writes} & self.before.keys()
        inputs |= {name: self.before[name] for name in live if not name.startswith("<")}
        others = {n: v for n, v in self.others.items() if not self._is_bound(n) and not is_fixed(v)}
        if not inputs or not others:
            return {}
        axes = (AXES,) if names_axes(self.spec.source) else ()
        together = dump_together(inputs, others, axes, self.registry)
        return {name: others[name] for name in together.shares if name != AXES}

    def _is_as_stored(self, name: str, value: Any, group: int) -> bool:
        """Return whether a value is still equal to what it was loaded from: it is loaded once more and compared.

        A class that is data would be made again out of the one that is here, and cannot be compared with itself.
        """
        if holds_classes(value, self.registry):
            return False
        stored = self.reload(self.spec.groups[group], frozenset({name}))[name]
        mark = fingerprint(value, self.registry, by_value=True)
        return mark is not None and mark == fingerprint(stored, self.registry, by_value=True)

    def _effects(self) -> dict[str, Any]:
        """Return what the cell did besides binding and changing names: random states, definitions, the process."""
        spec = self.spec
        reads = {*spec.inputs, *spec.live}
        states = (random_state.drawn(self.states) & reads) | random_state.seeded(self.states, spec.writes)
        effects: dict[str, Any] = {name: random_state.read(name) for name in states}
        effects |= self.definitions.changed()
        for name in spec.writes:
            state = self.definitions.state(owner_of(name) or "")
            if state is not None:
                effects[name] = state
        for statement in spec.own:
            if (made := made_by(statement.names)) in spec.writes:
                values = {name: self.namespace[name] for name in statement.names if name in self.namespace}
                effects[made] = Made(statement.id, values)
        # A step passes on what the steps above have set, its own behind it: one value tells the steps below all.
        above = changes_above(spec, self.values) if self.above is None else self.above
        self.process_left = process = process_state.changes(
            self._own(self.process), self._own(self.process_after), spec.step, above, self._is_secret
        )
        self._see_unkept(above)
        if process != above or PROCESS in spec.writes:
            effects[PROCESS] = process
        effects |= self._live_effects()
        return effects

    def _is_secret(self, name: str, value: str) -> bool:
        """Return whether what the cell has set a variable to is never to be kept."""
        asked = any(IN_SECRET.search(source) for source in self._sources())
        held = any(secret and secret in value for secret in self.secrets.values())
        return asked or held or looks_secret(name) or any(ENV_FILE.search(path) for path in self.observer.read)

    def _see_unkept(self, above: process_state.Changes) -> None:
        """Say which variables steps below do not get, as what they hold is a secret."""
        spec = self.spec
        names = [name for change in self.process_left[len(above) :] for name in process_state.unkept_of(change)]
        if names:
            self.findings.append(Finding(
                code="secret", level="note", step=spec.step, cell=spec.cell, name=names[0],
                message=f"{spec.code_name} sets {', '.join(names)}: secrets are not kept, steps below that run in "
                "processes have what the environment holds",
                fix=f"export {names[0]}=… and declare it where it is read: --secret {names[0]}",
            ))  # fmt: skip

    def _see_refused(self) -> None:
        """Say which secrets the cell has asked for without declaring them, where it went on without."""
        spec = self.spec
        for name in sorted(self.observer.asked_in_vain):
            self.findings.append(Finding(
                code="secret", level="warning", step=spec.step, cell=spec.cell, name=name,
                message=f"{spec.code_name} asks for {name}, a secret that it does not declare, and finds none",
                fix=self.observer.fix_for(name),
            ))  # fmt: skip

    def _live_effects(self) -> dict[str, Any]:
        """Return what the cell did in this process that no other can be given; say so where it stays behind.

        A cell that did something outside is not executed once more for it, only to be together with those below.
        """
        spec, observer = self.spec, self.observer
        own = module_state.changes(self.module_state, self.modules(), spec, self.registry) if self.module_state else ()
        names = (*own, *live_state.changes(self.live, live_state.take(self.namespace, self._sources())))
        if not names:
            return {}
        outside = observer.written or observer.removed or observer.volatile & {"socket", "subprocess", "database"}
        if not spec.together:
            self.findings += [module_state.finding(spec, name) for name in own]
            self.findings += [live_state.finding(spec, names[len(own) :])] if len(names) > len(own) else []
        return {LIVE: live_state.Live(names)} if self.is_apart and (spec.together or not outside) else {}

    def _sources(self) -> list[str]:
        return [self.spec.source, *(statement.source for statement in self.spec.replay)]

    def _own(self, taken: process_state.Taken) -> process_state.Taken:
        return self.imports.without(taken)

    def _see_partial(self, dumped: Iterable[Dumped | Unstorable]) -> None:
        """Say which values that steps below read are stored as something less than they are here."""
        spec = self.spec
        for each in dumped:
            names = sorted({*each.names} & {*spec.required}) if isinstance(each, Dumped) else []
            if not isinstance(each, Dumped) or not names:
                continue
            listing = ", ".join(names)
            if each.partial:
                self.findings.append(Finding(
                    code="not-whole", level="warning", step=spec.step, cell=spec.cell, name=names[0],
                    message=f"{listing} of {spec.step} holds what cannot be stored: steps below get what "
                    f"{', '.join(each.partial)} keeps when it is pickled",
                    fix="make what cannot be stored in a %%setup cell, or where it is used",
                ))  # fmt: skip
            if each.mapped:
                self.findings.append(Finding(
                    code="not-whole", level="note", step=spec.step, cell=spec.cell, name=names[0],
                    message=f"{listing} of {spec.code_name} looks into {', '.join(each.mapped)}: steps below in other "
                    "processes get what that holds now, and change it there in vain", fix="open it where it is used",
                ))  # fmt: skip

    def _storable(self, dumped: Iterable[Dumped | Unstorable]) -> tuple[Dumped | Unstorable, ...]:
        """Return what was taken apart without what holds a secret of the flow."""
        return tuple(withhold([*dumped], self.secrets, declared=bool(self.spec.secrets)) if self.secrets else dumped)

    # ------------------------------------------------------------ the record

    def record(
        self, left: Left, groups: tuple[Group, ...], artifacts: dict[str, Manifest],
        observations: Observations = NOTHING_SEEN, **shown: Any,
    ) -> Record:  # fmt: skip
        """Return the execution's record: what the cell left, as it was stored, and `outputs` where they are known."""
        spec = self.spec
        return Record(
            format=FORMAT, key=spec.key, execution=spec.execution, flow=spec.flow, run=spec.run, step=spec.step,
            index=spec.index, turn=spec.turn, attempt=spec.attempt, created_at=self.created_at, elapsed=self.elapsed,
            source=spec.source, parts=spec.parts, groups=groups, artifacts=artifacts, unbound=left.unbound,
            changed=tuple(sorted(left.changed)), shares=tuple(sorted(left.shares)), same=tuple(sorted(left.same)),
            costs=self.costs.rounded(), together=spec.together, observations=observations,
            findings=tuple(self.findings), stamp=records.stamp_after(self.created_at, spec.seen), **left.facts, **shown,
        )  # fmt: skip
