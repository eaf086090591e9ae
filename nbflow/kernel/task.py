"""The kernel lane: a step's cell runs where the user typed it, in the one namespace; before and after it we work."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import sys
import time
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Protocol

import msgspec

from nbflow.analysis.effects import owner_of, state_of
from nbflow.errors import TaskError
from nbflow.kernel.carried import DefinitionVersions, ProcessVersions, switch_random, wanted_states
from nbflow.kernel.namespace import Aside
from nbflow.kernel.stand_in import StandIn
from nbflow.model import (
    MISSING,
    Finding,
    Group,
    Manifest,
    Observations,
    Record,
    Ref,
    Replay,
    TaskEvent,
    TaskId,
    TaskSpec,
)
from nbflow.store.serialize.registry import Registry
from nbflow.task import module_state, process_state, replay, results, stages
from nbflow.task.context import Context, running
from nbflow.task.definition_parts import is_stateful
from nbflow.task.definition_state import Definitions, names_of
from nbflow.task.mutation import is_fixed
from nbflow.task.observe.observer import HOOK, Observer
from nbflow.task.replay import Place, place_of
from nbflow.task.secrets import Mask
from nbflow.task.stages import Left, Stages
from nbflow.tracebacks import failure_of, remember_lines

Load = Callable[[Group, frozenset[str]], Mapping[str, Any]]


class Statements:
    """Calls something after each top-level statement of the cell that runs; `run_code` of the shell runs one."""

    def __init__(self, ip: Any) -> None:
        self.stand_in = StandIn(ip, "run_code", self._followed)
        self._calls: list[Callable[[], None]] = []

    skipping = False  # the rest of the cell that runs

    def _followed(self, run_code: Any) -> Callable[..., Any]:
        async def run(code: Any, *args: Any, **options: Any) -> Any:
            if self.skipping:
                return False
            raised = await run_code(code, *args, **options)
            for call in self._calls:
                call()
            return raised

        return run

    @contextlib.contextmanager
    def followed(self, call: Callable[[], None]) -> Iterator[None]:
        """Call `call` after each statement within the block."""
        self._calls.append(call)
        try:
            yield
        finally:
            self._calls.remove(call)


class Kernel:
    """What the kernel's tasks share: the shell, its definitions, and the versions of all that travels beside names."""

    def __init__(self, ip: Any, registry: Registry, load: Load) -> None:
        self.ip = ip
        self.registry = registry
        self.load = load
        self.process = ProcessVersions()
        self.definitions = DefinitionVersions(registry)
        self.statements = Statements(ip)
        self.fresh_modules: dict[tuple[str, str], str | None] = {}  # what own modules held when they were seen first


class Before(msgspec.Struct, frozen=True):
    """What the namespace already has of what a task asks for."""

    live: Collection[Place]  # where the definitions and set-up stand that are in force
    values: Mapping[str, Any]  # inputs, and what shares objects with them, that are there, unchanged
    others: Mapping[str, Any] = msgspec.field(default_factory=dict)  # what other names hold, as it is stored


class PlainTrace(Protocol):
    """How a plain cell ran that was only followed."""

    @property
    def began(self) -> float:
        """When it began, in seconds since 1970."""

    @property
    def elapsed(self) -> float:
        """How many seconds it took."""

    @property
    def observations(self) -> Observations:
        """What it was seen to depend on."""

    @property
    def same(self) -> frozenset[str]:
        """Which of the names that it may have changed hold the objects that they held before it."""


class LiveInputs:
    """A kernel task's inputs: the user's own objects where they are what the plan asks for, else loaded."""

    def __init__(self, spec: TaskSpec, load: Load) -> None:
        self._stored = replay.StoredInputs(spec.groups, load)
        self._spec = spec
        self.is_live = True  # nothing has been loaded so far
        self._live: dict[tuple[int, str], Any] = {}
        self.loaded: dict[str, Any] = {}  # inputs that came from the store

    def use(self, values: Mapping[str, Any]) -> None:
        """Take these values from the namespace."""
        for name, value in values.items():
            for ref in (self._spec.inputs.get(name), self._spec.along.get(name)):
                if ref is not None:
                    self._live[ref.group, ref.name] = value

    def value(self, ref: Ref) -> Any:
        """Return the value of an input."""
        place = (ref.group, ref.name)
        if place in self._live:
            return self._live[place]
        self.is_live = False
        value = self._stored.value(ref)
        if self._spec.inputs.get(ref.name) == ref:
            self.loaded[ref.name] = value
        return value


class KernelTask:
    """One task in the kernel: `enter` by the cell's first line, `leave` after it, whatever happened in between."""

    def __init__(self, spec: TaskSpec, kernel: Kernel) -> None:
        self.spec = spec
        self.kernel = kernel
        self.namespace: dict[str, Any] = kernel.ip.user_ns
        self.aside = Aside(self.namespace)
        self.inputs = LiveInputs(spec, kernel.load)
        self.stages = Stages(
            spec, self.namespace, kernel.registry, self.inputs, kernel.load, Observer(spec), HOOK.local_modules,
            kernel.process.imports,
            {name: os.environ[name] for name in (*spec.secrets, *spec.withheld) if name in os.environ},
        )  # fmt: skip
        self.stages.is_apart = False
        self.observations = Observations()
        self.replayed: list[tuple[Replay, dict[str, Any]]] = []  # with what they bound
        self._context = contextlib.ExitStack()  # what holds while the cell runs
        self._put_back: list[Callable[[], object]] = []
        self._begun = 0.0
        self._found: process_state.Taken | None = None  # the process where nothing had to be set in it
        self._skipped: str | None = None  # the condition that does not hold
        self._last: bool | None = None  # what its --until came to
        self._foreign: tuple[str, ...] = ()
        self._live: AbstractSet[str] = frozenset()  # inputs, and what shares objects with them, that were there

    @property
    def identity(self) -> TaskId:
        """Which task of the session run it is."""
        return TaskId(step=self.spec.step, index=self.spec.index, turn=self.spec.turn)

    # ------------------------------------------------------------ before the cell

    def enter(self, before: Before, *, isolated: bool = True) -> None:
        """Give the cell definitions, set-up and inputs as the plan asks for them, and nothing else of the user's.

        Without `isolated` the user's other names stay where they are: somebody else may be reading them.
        """
        self.bring(before, isolated=isolated)
        self.watch()

    def bring(self, before: Before, *, isolated: bool) -> None:
        """Bind all that the task asks for, where it is not there already."""
        spec = self.spec
        live = [statement for statement in spec.replay if place_of(statement) in before.live]
        if isolated:
            names = {name for statement in live for name in (*statement.names, *results.star_names(statement.source))}
            self.aside.take(names | before.values.keys() | {*spec.live})
        self.inputs.use(before.values)
        self._live = before.values.keys()
        self.stages.others = before.others
        self._withhold()
        self.bring_process()  # imports look where the cells above have said
        if self._replay_all(before.live):
            self._found = None
            self.bring_process()
        with self.stages.costs.of("inputs"):
            stages.bind(spec, self.inputs, self)
        self._take_definitions()

    def _withhold(self) -> None:
        """Take secrets out of the environment that the step does not declare, and others do, while it runs."""
        for name in self.spec.withheld:
            if name in os.environ:
                self._undo(partial(os.environ.setdefault, name, os.environ.pop(name)))

    def bring_process(self) -> None:
        """Set in the process what the cells above have set, and nothing that a cell below has."""
        process = self.kernel.process
        found = process_state.take()
        now = process.imports.without(found)
        settings = process.at(self.spec, stages.changes_above(self.spec, self.inputs), now)
        self.stages.observer.given(name for part, name in settings if part == "environment")
        if differences := process.differences(settings, now):
            self._put_back.append(process.switch(differences, now))
        else:
            self._found = found

    def is_entered(self, before: Before) -> bool:
        """Return whether all that a task asks for is in force already, so that a plain cell stands for it."""
        spec = self.spec
        self.inputs.use(before.values)
        self.stages.others = before.others
        states = {name for name in spec.inputs if name.startswith("<")}
        if not all(place_of(statement) in before.live for statement in spec.replay):
            return False
        if before.values.keys() - spec.along.keys() != spec.inputs.keys() - states:
            return False
        process = self.kernel.process
        now = process.take()
        if process.differences(process.at(spec, stages.changes_above(spec, self.inputs), now), now):
            return False
        held = (
            self.kernel.definitions.holds(self.namespace.get(name), content)
            for name, content in wanted_states(spec).items() if self._keeps(name)
        )  # fmt: skip
        if not all(held):
            return False
        self._take_definitions()
        return True

    def _keeps(self, name: str) -> bool:
        """Return whether a definition keeps what cells set on it."""
        return self.kernel.definitions.fresh(self.namespace.get(name)) is not None

    def watch(self) -> None:
        """Watch the cell's own code from here on; for a plain cell this is all that there is to do."""
        stage = self.stages
        stage.created_at = time.time()
        self._context.enter_context(running(Context.of(self.spec, _ignore)))
        stage.observer.start()
        # loading and replaying may import, and an import sets options
        stage.look(self._found if self.inputs.is_live and not self.replayed else None)
        self._see_modules()
        if self.spec.own:
            self._context.enter_context(self.kernel.statements.followed(self._see))
        stage.take_base_line()
        self._begun = time.perf_counter()

    def _see_modules(self) -> None:
        """Say what a worker would not find: own modules stay as cells have made them, and the result stays here."""
        stage, spec = self.stages, self.spec
        sources = [spec.source, *(statement.source for statement in spec.replay)]
        self._foreign = module_state.unlike_files(self.kernel.fresh_modules, stage.module_state, sources)
        if self._foreign:
            stage.findings.append(Finding(
                code="module-state", level="warning", step=spec.step, cell=spec.cell, name=self._foreign[0],
                message=f"{', '.join(self._foreign)} is as a cell has made it in this kernel, not as its file has it",
                fix=f"restart the kernel, or `%flow run {spec.step}`: the result counts in this kernel alone",
            ))  # fmt: skip

    def holds(self, expression: str) -> bool:
        """Return whether an option's expression is true in the task's namespace; raise what it raises."""
        __tracebackhide__ = True
        return bool(eval(compile(expression.strip(), self.spec.code_name, "eval"), self.namespace))  # noqa: S307

    def skip(self, condition: str) -> None:
        """Leave out the rest of the cell, as its condition does not hold."""
        self._skipped = condition
        self.kernel.statements.skipping = True

    @property
    def has_turns(self) -> bool:
        """Whether its cell, once it has run, is to be asked whether it runs again."""
        return self.spec.turn is not None and self._skipped is None

    @property
    def is_last(self) -> bool:
        """Whether no other turn follows this one."""
        return self._last is not False or (self.spec.turn or 0) + 1 >= self.spec.options.max

    def ask(self) -> None:
        """Ask, the cell's statements having run, whether this was the last turn; raise what its --until raises."""
        __tracebackhide__ = True
        self._last = self.holds(self.spec.options.until or "True")

    def _see(self) -> None:
        """Look at what a statement of the cell has done."""
        names = names_of(self.spec.own)
        self.kernel.definitions.see(names, self.namespace)
        self.stages.definitions.see(names, self.namespace)

    def _take_definitions(self) -> None:
        """Take down how the definitions are; those that no cell above has set anything on are as their source says."""
        known = self.kernel.definitions
        names = names_of(self.spec.replay)
        known.see(names, self.namespace)
        for name, content in wanted_states(self.spec).items():
            if not content and self._keeps(name):
                self._undo(known.switch(self.namespace[name], "", dict))
        self.stages.definitions = Definitions(names, self.namespace, self.kernel.registry, known.fresh)

    def _undo(self, put_back: Callable[[], object] | None) -> None:
        """Call this when the cell is over."""
        if put_back is not None:
            self._put_back.append(put_back)

    # ------------------------------------------------------------ where inputs go

    def name(self, name: str, value: Any) -> None:
        """Bind a name for the cell."""
        self.aside.bind(name, value)

    def random(self, name: str, state: Any) -> None:
        """Make a library's global random state this one."""
        self._undo(switch_random(name, state))

    def definition(self, name: str, state: Mapping[str, Any]) -> None:
        """Set on a class or function what earlier cells have set on it."""
        value = self.namespace.get(name)
        if is_stateful(value):
            spec = self.spec
            group = spec.inputs[state_of(name)].group
            refs = (*spec.inputs.items(), *spec.along.items())
            beside = {each for each, ref in refs if ref.group == group and owner_of(each) is None}
            anew = not beside <= self._live
            self._undo(self.kernel.definitions.switch(value, wanted_states(spec)[name], lambda: state, anew=anew))

    # ------------------------------------------------------------ replay

    def _replay_all(self, live: Collection[Place]) -> bool:
        """Replay what is not in force, in document order; what stands below it in the document keeps its name.

        Return whether anything was.
        """
        last = {name: statement for statement in self.spec.replay for name in statement.names}
        later = {n: self.namespace[n] for n, s in last.items() if place_of(s) in live and n in self.namespace}
        for statement in self.spec.replay:
            if place_of(statement) not in live:
                taken = process_state.take() if statement.kind == "setup" else {}
                self._replay(statement)
                if statement.kind == "setup":
                    self.kernel.process.ran([place_of(statement)], taken)
        for name, value in later.items():
            if self.namespace.get(name) is not value:
                self.namespace[name] = value
        return bool(self.replayed)

    def _replay(self, statement: Replay) -> None:
        """Run one definition or set-up statement in the user's namespace, with what it reads bound just for it."""
        binds = {name: self.inputs.value(ref) for name, ref in statement.binds.items()}
        hidden = {name: self.namespace[name] for name in binds if name in self.namespace}
        for name in statement.names:
            self.aside.hold(name)
        self.namespace.update(binds)
        try:
            if not replay.put_made(statement.names, binds, self.namespace):
                with muted("stdout"), muted("stderr"):
                    execute(self.kernel.ip, statement)  # what it shows was shown by its own cell
        except Exception as error:  # the user's code
            raise _failed(statement, error) from error
        finally:
            for name, value in binds.items():
                if name not in statement.names and self.namespace.get(name) is value:
                    del self.namespace[name]
            self.namespace.update({name: value for name, value in hidden.items() if name not in statement.names})
        self.replayed.append((statement, {n: self.namespace[n] for n in statement.names if n in self.namespace}))
        self.aside.note(statement.names or results.star_names(statement.source))
        if statement.kind == "definition":
            replay.register(statement, self.namespace, self.kernel.registry)
            self.kernel.definitions.see(names_of([statement]), self.namespace)

    # ------------------------------------------------------------ after the cell

    def leave(self, *, succeeded: bool) -> Left | None:
        """Collect what the cell left, the user's other names back in place; None where it failed.

        A second call finds nothing to do.
        """
        stage = self.stages
        begun, self._begun = self._begun, 0.0
        stage.elapsed = time.perf_counter() - begun if begun else 0.0
        if begun:
            stage.see_draws()
        self._context.close()
        self.kernel.statements.skipping = False
        outcome = None
        try:
            if begun:
                seen = stage.observer.stop(self._seen())
                orders = (f"the order of {name}" for name in stage.disordered)
                self.observations = msgspec.structs.replace(seen, kernel=(*self._foreign, *orders))
                self.kernel.process.see(stage.process, stage.process_after)
            if succeeded and begun:
                outcome = self._left() if self._skipped is None else stage.skipped(self._skipped)
        finally:
            while self._put_back:
                self._put_back.pop()()
            bound = outcome is not None and self._skipped is None
            self.aside.restore({*self.spec.writes, *outcome.values} if bound and outcome is not None else ())
        if outcome is not None:
            self.namespace.update({name: value for name, value in outcome.values.items() if self._is_new(name, value)})
        return outcome

    def _left(self) -> Left:
        outcome = self.stages.collect()
        return outcome if self._last is None else msgspec.structs.replace(outcome, facts={"until": self._last})

    def _is_new(self, name: str, value: Any) -> bool:
        """Return whether a value's name shares objects with an input, so that the cell itself has not bound it."""
        return name in self.spec.along and not name.startswith("<") and self.namespace.get(name, MISSING) is not value

    def _seen(self) -> dict[str, Any]:
        """Return the names that count for what the cell depends on: a plain cell sees the whole namespace."""
        replayed = {name for statement in self.spec.replay for name in statement.names}
        names = {*self.spec.inputs, *self.spec.writes, *replayed}
        return {
            name: value for name, value in self.namespace.items()
            if name in names or self.stages.before.get(name, MISSING) is not value
        }  # fmt: skip

    def adopt(self, values: Mapping[str, Any], held: Mapping[str, Any], trace: PlainTrace) -> Left:
        """Return what a past execution of a plain cell left: values, and inputs that the namespace still has."""
        stage = self.stages
        stage.created_at, stage.elapsed, self.observations = trace.began, trace.elapsed, trace.observations
        outcome = stage.taken_apart(values, {n: v for n, v in held.items() if n not in values and not is_fixed(v)})
        return msgspec.structs.replace(outcome, same=(trace.same | outcome.joined.keys()) & self.spec.inputs.keys())

    def record(self, outcome: Left, groups: tuple[Group, ...], manifests: dict[str, Manifest], **shown: Any) -> Record:
        """Return the execution's record: what the cell left, as it was stored, and what it showed."""
        record = self.stages.record(outcome, groups, manifests, observations=self.observations, **shown)
        return Mask(self.stages.secrets.values()).record(record) if self.stages.secrets else record


@contextlib.contextmanager
def muted(name: str) -> Iterator[None]:
    """Let nothing come out of a standard stream within the block; it stays the object that handlers may keep."""
    stream = getattr(sys, name)
    try:
        stream.write = len
    except AttributeError:  # outside a kernel: a file of Python's own
        with getattr(contextlib, f"redirect_{name}")(io.StringIO()):
            yield
        return
    try:
        yield
    finally:
        del stream.write


def _failed(statement: Replay, error: Exception) -> TaskError:
    """Return the error that names a statement of another cell and what it raised."""
    names = ", ".join(statement.names) or "set-up"
    failure = failure_of(error, (f"cell {statement.position}",), statement.cell)
    return TaskError(
        f"{names} of cell {statement.position} cannot be made: {type(error).__name__}: {error}",
        cell=f"cell {statement.position}",
        line=failure.line or statement.line,
        fix=f"run cell {statement.position}, and correct it",
    )


def execute(ip: Any, statement: Replay) -> None:
    """Run a definition or set-up statement in the kernel's namespace; errors name its own cell and line."""
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
    """Run a set-up statement with a top-level await in a loop of its own: the kernel's is busy with the cell."""
    import asyncio
    import threading

    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:  # the user's code: raised again by whoever waits for the thread
            errors.append(error)

    thread = threading.Thread(target=run, name="nbflow-await")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _ignore(event: TaskEvent) -> None:
    """Drop what a task emits in the kernel: it is on the page already."""
    del event
