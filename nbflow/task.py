"""The one task entry: a TaskSpec in, its cell run in this process's `__main__`, a TaskResult out.

The process is the task's own: it was made for it and ends after it. What it depends on is brought about here in
the order that the notebook has: definitions and set-up replayed, inputs bound last, the cell, its outputs.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nbflow import (
    artifacts,
    leftovers,
    limits,
    module_state,
    outcome,
    process_state,
    randomness,
    replay,
    serialize,
    shell,
    storage,
)
from nbflow.context import Caught, Context, running
from nbflow.costs import Costs
from nbflow.definition_state import Definitions
from nbflow.effects import PROCESS, owner_of
from nbflow.errors import NbflowError, SerializationError
from nbflow.fingerprint import fingerprint, holds_artists
from nbflow.joining import open_inputs
from nbflow.model import (
    FORMAT,
    Finding,
    Group,
    Output,
    Record,
    Started,
    TaskEvent,
    TaskFailure,
    TaskResult,
    TaskSpec,
)
from nbflow.mutation import BaseLine, is_fixed
from nbflow.observe import Observer
from nbflow.options import tries_again
from nbflow.outcome import Outcome
from nbflow.prepared import Prepared
from nbflow.registry import Registry
from nbflow.secrecy import withhold
from nbflow.sharing import dump_together
from nbflow.streams import Stream
from nbflow.tracebacks import failure_of, text_of

OURS = shell.VARIABLES | {*limits.THREAD_VARIABLES, limits.GPU_VARIABLE, limits.TASK_VARIABLE}

MANY_OBJECTS = 500_000
"""Bytes of a value's stream, arrays not counted, that are pickled in about 50 ms."""

Emit = Callable[[TaskEvent], None]
_T = TypeVar("_T")


def execute(spec: TaskSpec, emit: Emit, prepared: Prepared | None = None) -> TaskResult:
    """A spec and the way for events in; the result out, never an exception but KeyboardInterrupt.

    Outputs travel as events; `finish` puts them into the record. Segments are in the store when this returns, the
    record is not: the supervisor publishes it.
    """
    return _Task(spec, emit, prepared or Prepared.make()).run()


class _Task:
    """One task on its way; each method is one stage."""

    def __init__(self, spec: TaskSpec, emit: Emit, prepared: Prepared) -> None:
        self.spec = spec
        self.emit = emit
        self.prepared = prepared
        self.shell = prepared.shell
        self.module = types.ModuleType("__main__")
        self.registry = Registry()
        self.kept = prepared.kept
        self.store = storage.open_store(spec.store) if self.kept is None else self.kept.store(spec.store)
        self.inputs = replay.Inputs(spec.groups, self._load)
        self.observer = Observer(spec, OURS, fresh=True)
        self.definitions = Definitions((), {}, self.registry)
        self.states: Mapping[str, bytes] = {}
        self.before: process_state.Taken = {}
        self.modules: module_state.Taken = {}  # what the notebook's own modules held
        self.process: process_state.Changes = ()  # what steps above have set in the process
        self.findings: list[Finding] = []
        self.failure: TaskFailure | None = None  # that was caught
        self.created_at = time.time()
        self.elapsed = 0.0
        self.costs = Costs()

    def run(self) -> TaskResult:
        """All stages; what user code raises becomes a failure."""
        started = time.monotonic()
        try:
            record = self._stages()
            failure = self.failure
        except _Failed as failed:
            record, failure = None, failed.failure
        except replay.ReplayFailed as failed:
            record, failure = None, failed.failure
        except NbflowError as error:
            record, failure = None, self._failure_of_ours(error)
        observations = self.observer.stop(outcome.users(self.module.__dict__))
        self._tidy()
        if record is not None:
            record = msgspec.structs.replace(record, observations=observations)
        return TaskResult(
            record=record,
            failure=failure,
            elapsed=self.elapsed or time.monotonic() - started,
            observations=observations,
            findings=tuple(self.findings),
        )

    def _stages(self) -> Record:
        self._enter_process()
        item = self.inputs.value(self.spec.item) if self.spec.item is not None else None
        with running(Context.of(self.spec, self.emit, item)):
            self.observer.start()
            self._replay()
            if self.kept is not None:
                self.kept.replayed()
            with self.costs.of("inputs"):
                self._bind()
            if self.spec.evaluate is not None:
                return self._evaluate_list(self.spec.evaluate)
            self._bind_loop(item)
            self._look()
            before = dict(self.shell.user_ns)
            condition = self.spec.options.condition if not self.spec.turn else None
            if condition is not None and self._caught(lambda: self._holds(condition)) is False:
                return self._skipped(condition)
            with self.costs.of("base line"):
                inputs = self._base_line()
            last = self._turn()
            record = self._collect(before, inputs)
            return msgspec.structs.replace(record, caught=self.failure is not None, until=last)

    def _bind_loop(self, item: Any) -> None:
        """The loop variable of a foreach, `inputs` of a join."""
        options = self.spec.options
        namespace = self.shell.user_ns
        if options.foreach is not None:
            binding = f"{options.foreach.target} = __item"
            namespace["__item"] = item
            try:
                self._guarded(lambda: exec(binding, namespace))
            finally:
                del namespace["__item"]
        if self.spec.joined is not None:
            constants = {name: namespace[name] for name in self.spec.constants if name in namespace}
            namespace["inputs"] = open_inputs(self.spec.joined, self.inputs.value, self.store, self.registry, constants)

    def _evaluate(self, expression: str) -> Any:
        """An option's expression in, its value in the task's namespace out."""
        code = compile(expression.strip(), self.spec.code_name, "eval")
        return self._guarded(lambda: eval(code, self.shell.user_ns))  # noqa: S307  # the user's own line

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """User code outside the cell: what it raises is the task's failure."""
        try:
            return call()
        except BaseException as error:  # the user's code
            raise _Failed(failure_of(error, self._files(), self.spec.cell)) from error

    def _evaluate_list(self, expression: str) -> Record:
        """A foreach's expression in; the record of its items, named 0, 1, …, out."""
        self.emit(Started(pid=os.getpid(), at=time.time()))
        items = self._evaluate(f"[*({expression})]")
        with self.observer.paused():
            # each item by itself: what items share is copied, as each has its own copy of everything
            dumped = [part for at, item in enumerate(items) for part in serialize.dump({str(at): item}, self.registry)]
            groups, found = artifacts.save(self.store, self._storable(dumped))
        for name, artifact in found.items():
            if artifact.error:
                raise SerializationError(
                    f"item {name} of --foreach (a {artifact.type}) cannot be stored: {artifact.error}",
                    step=self.spec.step,
                    cell=self.spec.cell,
                    line=1,
                    fix="loop over names or numbers, and make the object in the step",
                )
        return self._record(Outcome(groups, found, ()))

    def _skipped(self, condition: str) -> Record:
        """The record of a condition that does not hold: of a loop its variable, which the rest of the body may read."""
        targets = {name: self.shell.user_ns[name] for name in self.spec.targets}
        with self.observer.paused():
            together = dump_together(targets, {}, (), self.registry)
            groups, found = artifacts.save(self.store, self._storable(together.dumped))
        return msgspec.structs.replace(self._record(Outcome(groups, found, ())), skipped=condition)

    def _turn(self) -> bool | None:
        """The cell run, unless the condition has failed; whether it was the last turn, None where nobody knows."""
        options = self.spec.options
        if self.failure is not None:
            return None
        self._caught(self._run_cell)
        if options.catch is not None and self.failure is None:
            self.shell.user_ns[options.catch] = None
        self._await()
        until = options.until
        return self._caught(lambda: self._holds(until)) if until is not None else None

    def _holds(self, expression: str) -> bool:
        value = self._evaluate(expression)
        return bool(self._guarded(lambda: bool(value)))

    def _caught(self, work: Callable[[], _T]) -> _T | None:
        """What some work gives; with `--catch`, in the last attempt, None where it fails: the name holds why."""
        options = self.spec.options
        try:
            return work()
        except _Failed as failed:
            again = tries_again(options, self.spec.attempt, failed.failure)
            if options.catch is None or again or failed.failure.kind == "cancelled":
                raise
            if self.failure is None:
                self.failure = failed.failure
                caught = Caught(failed.failure.type, failed.failure.message, failed.failure.traceback)
                self.shell.user_ns[options.catch] = caught
            return None

    def _enter_process(self) -> None:
        """Folder, path, environment, threads, randomness and streams as the task must find them."""
        spec = self.spec
        if Path(spec.folder).is_dir():
            os.chdir(spec.folder)
            sys.path.insert(0, spec.folder)
        sys.argv = [""]
        limits.set_threads(spec.threads, self.prepared.thread_variables, self.prepared.pools)
        limits.show_gpus(spec.devices)
        randomness.refresh()
        shell.enter(self.shell, self.module)
        self.shell.use(self._show)
        self.streams = Stream("stdout", 1, self._show), Stream("stderr", 2, self._show)
        sys.stdout, sys.stderr = self.streams

    def _show(self, output: dict[str, Any]) -> None:
        self.emit(Output(output=output, at=time.time()))

    def _replay(self) -> None:
        """Definitions and set-up in the order of the document, and between them what steps have set in the process."""
        ref = self.spec.inputs.get(PROCESS)
        self.process = self.inputs.value(ref) if ref is not None else ()
        waiting = list(self.process)
        self.shell.compile.flags &= ~replay.FUTURE  # of the task before, in a process that runs several
        for statement in self.spec.replay:
            while waiting and waiting[0][0] < statement.position:
                process_state.put(waiting.pop(0))
            file = replay.file_of(statement, self.spec.position, self.spec.code_name)
            replay.run(statement, file, self.shell, self.inputs, self.registry)
        for change in waiting:
            process_state.put(change)

    def _bind(self) -> None:
        """Inputs come last: they win over what definitions have bound."""
        names = [name for statement in self.spec.replay if statement.kind == "definition" for name in statement.names]
        self.definitions = Definitions(names, self.shell.user_ns, self.registry)
        for name, ref in self.spec.inputs.items():
            if name == PROCESS:
                continue
            value = self.inputs.value(ref)
            if name in randomness.STATES:
                randomness.restore(name, value, self.spec.index if self.spec.options.foreach else ())
            elif (owner := owner_of(name)) is not None:
                self.definitions.put(owner, value)
            else:
                self.shell.user_ns[name] = value
        self.shell.user_ns.update(self.spec.values)

    def _base_line(self) -> BaseLine:
        """Inputs that the cell is not known to write, as they are now."""
        spec = self.spec
        names = [name for name in spec.inputs if name not in spec.writes and not name.startswith("<")]
        values = {} if spec.options.pure else {name: self.shell.user_ns[name] for name in names}
        return BaseLine(spec, values, self.registry)

    def _look(self) -> None:
        """What is there before anything of the step runs: random states, the process's settings, threads."""
        self.states = randomness.loaded()
        self.before = process_state.take()
        self.modules = module_state.take(self.observer.new_modules(), self.registry)
        self.threads = frozenset(thread.ident or 0 for thread in threading.enumerate())

    def _run_cell(self) -> None:
        self.emit(Started(pid=os.getpid(), at=time.time()))
        begun = time.monotonic()
        made = [name for definition in self.spec.own for name in definition.names]
        with self.shell.after_statements(lambda: self.definitions.see(made, self.shell.user_ns)):
            result = shell.run_cell(self.shell, self.spec.source, self.spec.code_name, self._title())
        self.elapsed = time.monotonic() - begun
        if self._drew(self.states):
            self.observer.add_volatile("random")
        if result.error is not None:
            if isinstance(result.error, KeyboardInterrupt):
                raise _Failed(failure_of(result.error, self._files(), self.spec.cell, kind="cancelled"))
            raise _Failed(failure_of(result.error, self._files(), self.spec.cell))

    def _title(self) -> str:
        """What tracebacks call the cell: `step train`, or `cell 3: df`."""
        name = self.spec.code_name
        return name if name.startswith("cell ") else f"step {name}"

    def _files(self) -> tuple[str, ...]:
        return (self.spec.code_name,)

    def _drew(self, states: Mapping[str, bytes]) -> bool:
        """Whether numbers were drawn that another execution would not draw again."""
        sources = (self.spec.source, *(statement.source for statement in self.spec.replay))
        if any(f"{call}(" in source for source in sources for call in randomness.SEEDING):
            return False
        return bool(randomness.drawn(states) - {*self.spec.inputs, *self.spec.writes})

    def _await(self) -> None:
        spec = self.spec
        self.findings += leftovers.await_tasks(spec.step, spec.cell)
        self.findings += leftovers.join_threads(spec.step, spec.cell, self.threads)

    def _collect(self, before: Mapping[str, Any], inputs: BaseLine) -> Record:
        spec = self.spec
        namespace = self.shell.user_ns
        for definition in spec.own:
            replay.register(definition, namespace, self.registry)
        with self.costs.of("comparison"):
            changed = {*inputs.compare(namespace)}
            loaded = self.observer.new_modules() if self.modules else ()
            self.findings += module_state.changes(self.modules, loaded, spec, self.registry)
            shared = self._shared_changes(before, namespace, changed)
        changed |= shared.keys()
        effects = self._effects()
        changed |= effects.keys()
        values = {**shared, **outcome.outputs_of(spec, before, namespace, changed), **effects}
        with self.costs.of("storing"), self.observer.paused():
            beside = self._beside(before, namespace, values)
            together = dump_together(values, beside, spec.tracked, self.registry)
            groups, found = artifacts.save(self.store, self._storable(together.dumped))
        outcome.check_required(spec, found)
        unbound = tuple(name for name in spec.writes if name not in found and name not in namespace)
        changed |= together.joined
        return self._record(Outcome(groups, found, unbound, tuple(sorted(changed)), tuple(sorted(together.shares))))

    def _beside(
        self, before: Mapping[str, Any], namespace: Mapping[str, Any], values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Inputs that the cell has left as they were, and names that share objects with them: outputs may hold parts.

        Many small objects take long to look at, which is done only where it matters.
        """
        spec = self.spec
        found = {}
        for name, ref in (*spec.inputs.items(), *spec.along.items()):
            if name.startswith("<") or name in values or (name in namespace and name not in spec.inputs):
                continue
            value = self.inputs.value(ref)
            live = name not in spec.inputs or (namespace.get(name) is value and before.get(name) is value)
            dear = spec.groups[ref.group].stream.length > MANY_OBJECTS and not {"*", name}.intersection(spec.tracked)
            if live and not dear and not is_fixed(value):
                found[name] = value
        return found

    def _effects(self) -> dict[str, Any]:
        """What the cell did besides binding and changing names: random states, definitions, the process."""
        spec = self.spec
        drawn = randomness.drawn(self.states) & spec.inputs.keys()
        found: dict[str, Any] = {name: randomness.read(name) for name in drawn}
        found |= self.definitions.changed()
        for name in spec.writes:
            state = self.definitions.state(owner_of(name) or "")
            if state is not None:
                found[name] = state
        process = process_state.changes(self.before, spec.position, self.process)
        if process != self.process or PROCESS in spec.writes:
            found[PROCESS] = process
        return found

    def _storable(self, dumped: list[serialize.Dumped | serialize.Unstorable]) -> list[Any]:
        """What holds a secret of this step is not stored."""
        if not self.spec.secrets:
            return [*dumped]
        return withhold(dumped, {name: os.environ.get(name, "") for name in self.spec.secrets})

    def _is_as_stored(self, name: str, value: Any, group: int) -> bool:
        """Whether a value is still equal to what it was loaded from: loaded once more and compared."""
        stored = self._load(self.spec.groups[group], frozenset({name}))[name]
        print_now = fingerprint(value, self.registry, by_value=True)
        return print_now is not None and print_now == fingerprint(stored, self.registry, by_value=True)

    def _shared_changes(
        self, before: Mapping[str, Any], namespace: Mapping[str, Any], changed: Collection[str]
    ) -> dict[str, Any]:
        """Names that share objects with an input that was changed in place, and changed with it.

        A step that only knows `guests` may change the list that is `everyone` too: both have a new version then.
        """
        found: dict[str, Any] = {}
        for name, ref in self.spec.inputs.items():
            kept = name in namespace and namespace[name] is before.get(name)
            if not kept or (name not in changed and name not in self.spec.writes):
                continue
            for other, place in self.spec.along.items():
                if place.group != ref.group or other in namespace or other in found:
                    continue  # it shares nothing, or the cell has bound it
                value = self.inputs.value(place)
                together = holds_artists(value) and holds_artists(namespace[name])
                if together or other in self.spec.writes or not self._is_as_stored(other, value, ref.group):
                    found[other] = value
        return found

    def _record(self, left: Outcome) -> Record:
        spec = self.spec
        return Record(
            format=FORMAT,
            key=spec.key,
            execution=spec.execution,
            flow=spec.flow,
            run=spec.run,
            step=spec.step,
            index=spec.index,
            turn=spec.turn,
            attempt=spec.attempt,
            created_at=self.created_at,
            elapsed=self.elapsed,
            source=spec.source,
            parts=spec.parts,
            groups=left.groups,
            artifacts=left.artifacts,
            unbound=left.unbound,
            changed=left.changed,
            shares=left.shares,
            costs=self.costs.rounded(),
        )

    def _load(self, group: Group, names: frozenset[str]) -> Mapping[str, Any]:
        with self.observer.paused():
            try:
                loaded: Mapping[str, Any] = artifacts.load(self.store, (group,), names, self.registry)
            except NbflowError:
                raise
            except Exception as error:  # the user's own __setstate__ runs here, and may raise anything
                raise SerializationError(
                    f"{', '.join(sorted(names))} could not be loaded: {type(error).__name__}: {error}",
                    step=self.spec.step,
                    cell=self.spec.cell,
                    fix="run the step that made it again, or mend what its class does when it is unpickled",
                ) from error
        return loaded

    def _tidy(self) -> None:
        """Pools, exit hooks and child processes end with the task; what they print still counts."""
        leftovers.end_pools()
        if self.kept is None or atexit._ncallbacks() > self.kept.exit_hooks:  # noqa: SLF001
            atexit._run_exitfuncs()  # noqa: SLF001  # `os._exit` ends the process: nobody else runs them
        self.findings += leftovers.end_children(self.spec.step, self.spec.cell)
        for stream in self.streams:
            stream.flush()

    def _failure_of_ours(self, error: NbflowError) -> TaskFailure:
        return TaskFailure(
            type=type(error).__name__,
            message=text_of(error),
            traceback="\n".join(error.report()),
            cell=error.cell or self.spec.cell,
            line=error.line,
            fix=error.fix,
        )


class _Failed(Exception):
    """The cell failed."""

    def __init__(self, failure: TaskFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure
