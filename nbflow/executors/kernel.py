"""The kernel lane: a step's cell runs where the user typed it, in the one namespace; before and after it we work."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import time
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbflow import outcome, randomness, replay
from nbflow.collected import Outputs
from nbflow.context import Context, running
from nbflow.costs import Costs
from nbflow.errors import TaskError
from nbflow.fingerprint import fingerprint
from nbflow.model import FORMAT, Artifact, Group, Observations, Record, Ref, Replay, TaskEvent, TaskSpec
from nbflow.mutation import BaseLine
from nbflow.namespace import MISSING, Aside, is_own
from nbflow.observe import Observer
from nbflow.registry import Registry
from nbflow.tracebacks import failure_of, remember_lines

Load = Callable[[Group, frozenset[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Before:
    """What the namespace already has of what a task asks for."""

    live: Collection[str]  # ids of definitions and set-up that are in force
    values: Mapping[str, Any]  # inputs that are there, unchanged


@dataclass(frozen=True)
class Left:
    """What a cell left, its names already put back: values to be stored, and how it went."""

    values: Mapping[str, Any]
    unbound: tuple[str, ...]
    observations: Observations
    started_at: float
    elapsed: float
    changed: frozenset[str] = frozenset()  # inputs changed in place, though nothing in the text says so
    loaded: Mapping[str, Any] = field(default_factory=dict)  # inputs that came from the store
    replayed: tuple[Replay, ...] = ()


class KernelTask:
    """One task in the kernel: `enter` by the cell's first line, `leave` after it, whatever happened in between."""

    def __init__(self, spec: TaskSpec, ip: Any, registry: Registry, load: Load) -> None:
        self.spec = spec
        self.ip = ip
        self.registry = registry
        self.namespace: dict[str, Any] = ip.user_ns
        self.aside = Aside(self.namespace)
        self.observer = Observer(spec)
        self._load = load
        self._context = contextlib.ExitStack()
        self._replayed: list[Replay] = []
        self._loaded: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._states: dict[str, bytes] = {}
        self._inputs = BaseLine(spec, {}, registry)
        self.created_at = time.time()
        self._begun = 0.0
        self.costs = Costs()
        self._stored = replay.Inputs(spec.groups, load)

    # ------------------------------------------------------------ before the cell

    def enter(self, before: Before, *, isolated: bool = True) -> None:
        """Definitions, set-up and inputs as the plan asks for them, and nothing else of the user's.

        Without `isolated` the user's other names stay where they are: somebody else may be reading them.
        """
        spec = self.spec
        stale = [statement for statement in spec.replay if statement.id not in before.live]
        if isolated:
            kept = {name for statement in spec.replay if statement.id in before.live for name in statement.names}
            self.aside.take(kept | before.values.keys())
        inputs = replay.Inputs(spec.groups, self._load)
        self._stored = inputs
        for statement in stale:
            self._replay(statement, inputs)
        with self.costs.of("inputs"):
            self._bind(inputs, before.values)
        self.watch()

    def watch(self) -> None:
        """From here on the cell's own code runs; for a plain cell this is all that there is to do."""
        self.created_at = time.time()
        self._context.enter_context(running(Context.of(self.spec, _ignore)))
        self._before = dict(self.namespace)
        with self.costs.of("base line"):
            self._inputs = self._base_line()
        self._states = randomness.loaded()
        self.observer.start()
        self._begun = time.perf_counter()

    def _base_line(self) -> BaseLine:
        """Inputs that the cell is not known to write, as they are now."""
        spec = self.spec
        names = [name for name in spec.inputs if name not in spec.writes and name in self.namespace]
        values = {} if spec.options.pure else {name: self.namespace[name] for name in names}
        return BaseLine(spec, values, self.registry)

    def _bind(self, inputs: replay.Inputs, values: Mapping[str, Any]) -> None:
        for name, ref in self.spec.inputs.items():
            if name in randomness.STATES:
                randomness.restore(name, inputs.value(ref))
            elif name in values:
                self.aside.bind(name, values[name])
            else:
                self._loaded[name] = inputs.value(ref)
                self.aside.bind(name, self._loaded[name])

    def _replay(self, statement: Replay, inputs: replay.Inputs) -> None:
        """One definition or set-up statement, run in the user's namespace with what it reads bound just for it."""
        binds = {name: inputs.value(ref) for name, ref in statement.binds.items()}
        hidden = {name: self.namespace[name] for name in binds if name in self.namespace}
        for name in statement.names:
            self.aside.hold(name)
        self.namespace.update(binds)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                execute(self.ip, statement)  # what it shows was shown by its own cell
        except Exception as error:  # the user's code
            raise _failed(statement, error) from error
        finally:
            for name, value in binds.items():
                if name not in statement.names and self.namespace.get(name) is value:
                    del self.namespace[name]
            self.namespace.update({name: value for name, value in hidden.items() if name not in statement.names})
        self._replayed.append(statement)
        self.aside.note(statement.names)
        if statement.kind == "definition":
            replay.register(statement, self.namespace, self.registry)

    # ------------------------------------------------------------ after the cell

    def leave(self, *, succeeded: bool) -> Left:
        """The cell is over: what it left, the user's other names back in place. A second call finds nothing to do."""
        elapsed = time.perf_counter() - self._begun if self._begun else 0.0
        spec = self.spec
        if self._begun and randomness.drew(spec, self._states):
            self.observer.add_volatile("random")
        observations = self.observer.stop() if self._begun else Observations()
        after = {name: value for name, value in self.namespace.items() if not is_own(name)}
        self._context.close()
        values: dict[str, Any] = {}
        changed: frozenset[str] = frozenset()
        if succeeded:
            for statement in spec.own:
                replay.register(statement, after, self.registry)
            with self.costs.of("comparison"):
                changed = self._inputs.compare(after)
                shared = self._shared_changes(after, changed)
            changed |= shared.keys()
            values = {**shared, **outcome.outputs_of(spec, self._before, after, changed)}
        self.aside.restore(spec.writes if succeeded else ())
        unbound = tuple(name for name in spec.writes if name not in values and name not in after)
        return Left(
            values=values, unbound=unbound, observations=observations, started_at=self.created_at, elapsed=elapsed,
            changed=changed, loaded=self._loaded, replayed=tuple(self._replayed),
        )  # fmt: skip

    def _shared_changes(self, after: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
        """Names that share objects with an input that was changed in place, and changed with it.

        A step that only knows `guests` may change the list that is `everyone` too: both have a new version then.
        """
        found: dict[str, Any] = {}
        for name, ref in self.spec.inputs.items():
            group = self.spec.groups[ref.group]
            kept = name in after and after[name] is self._before.get(name)
            if len(group.names) == 1 or not kept or (name not in changed and name not in self.spec.writes):
                continue
            for other in group.names:
                if other in after or other in found:
                    continue  # an input of its own, or bound by the cell
                value = self._sibling(other, name, ref.group)
                if value is not MISSING and not self._is_as_stored(other, value, group):
                    found[other] = value
        return found

    def _sibling(self, other: str, name: str, group: int) -> Any:
        """Another name of an input's group: loaded with it, or aside in the user's namespace where it came from."""
        if name in self._loaded:
            return self._stored.value(Ref(name=other, group=group))
        return self.aside.held.get(other, MISSING)

    def _is_as_stored(self, name: str, value: Any, group: Group) -> bool:
        stored = self._load(group, frozenset({name}))[name]
        mark = fingerprint(value, self.registry, by_value=True)
        return mark is not None and mark == fingerprint(stored, self.registry, by_value=True)

    def record(self, left: Left, groups: tuple[Group, ...], found: dict[str, Artifact], outputs: Outputs) -> Record:
        """What the cell left, as it was stored, and its outputs in; the execution's record out."""
        spec = self.spec
        return Record(
            format=FORMAT, key=spec.key, execution=spec.execution, flow=spec.flow, run=spec.run, step=spec.step,
            index=spec.index, turn=spec.turn, attempt=spec.attempt, created_at=left.started_at, elapsed=left.elapsed,
            source=spec.source, parts=spec.parts, groups=groups, artifacts=found, unbound=left.unbound,
            outputs=outputs.items(), truncated=outputs.truncated, observations=left.observations,
            changed=tuple(sorted(left.changed)), costs=self.costs.rounded(),
        )  # fmt: skip


def _failed(statement: Replay, error: Exception) -> TaskError:
    """A statement of another cell and what it raised in; the error that names them out."""
    names = ", ".join(statement.names) or "set-up"
    failure = failure_of(error, (f"cell {statement.position}",), statement.cell)
    return TaskError(
        f"{names} of cell {statement.position} cannot be made: {type(error).__name__}: {error}",
        cell=f"cell {statement.position}",
        line=failure.line or statement.line,
        fix=f"run cell {statement.position}, and correct it",
    )


def execute(ip: Any, statement: Replay) -> None:
    """A definition or set-up statement in, run in the kernel's namespace; errors name its own cell and line."""
    file = f"cell {statement.position}"
    remember_lines(file, statement.source, statement.line)
    tree = ast.increment_lineno(ast.parse(ip.transform_cell(statement.source), file), statement.line - 1)
    with ip.builtin_trap:
        code = compile(tree, file, "exec", ip.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            _await(types.FunctionType(code, ip.user_ns)())
        else:
            exec(code, ip.user_ns)


def _await(coroutine: Any) -> None:
    """A set-up statement with a top-level await: the kernel's own loop is busy with the cell, another one runs it."""
    import asyncio
    import threading

    ended: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:  # the user's code: raised again by whoever waits for the thread
            ended.append(error)

    thread = threading.Thread(target=run, name="nbflow-await")
    thread.start()
    thread.join()
    if ended:
        raise ended[0]


def _ignore(event: TaskEvent) -> None:
    """What a task emits in the kernel is on the page already."""
    del event
