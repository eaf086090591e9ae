"""Execute one TaskSpec: run its cell in this process's `__main__` and give a TaskResult.

The process is the task's own: it was made for it and ends after it. What it depends on is brought about here in
the order that the notebook has: definitions and set-up replayed, inputs bound last, the cell, its outputs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nbflow.analysis.effects import PROCESS
from nbflow.errors import NbflowError, SerializationError
from nbflow.flow.options import tries_again
from nbflow.model import Finding, Group, Halted, Output, Record, Started, TaskEvent, TaskFailure, TaskResult, TaskSpec
from nbflow.store import artifacts, location, records
from nbflow.store.serialize import pickler
from nbflow.store.serialize.fingerprint import show_as_drawn
from nbflow.store.serialize.registry import Registry
from nbflow.task import leftovers, limits, process_state, random_state, replay, results, shell, stages
from nbflow.task.context import Caught, Context, running
from nbflow.task.definition_state import Definitions, names_of
from nbflow.task.import_settings import ImportSettings
from nbflow.task.main_module import Main, missing_names
from nbflow.task.observe.observer import Observer
from nbflow.task.stages import Left, Stages
from nbflow.task.streams import Stream
from nbflow.tracebacks import failure_of, text_of


class Kept(msgspec.Struct):
    """What a process that runs one task after another keeps between them."""

    replayed: Callable[[], None] = lambda: None  # called when definitions and set-up of a task have been replayed
    stores: dict[str, location.Store] = msgspec.field(default_factory=dict)
    exit_hooks: int = 0  # those that are not the task's
    ended: bool = False  # a task has left something that was ended with the process's exit hooks and pools
    imports: ImportSettings = msgspec.field(default_factory=ImportSettings)

    def store(self, url: str) -> location.Store:
        """Return the store at a URL, opened once."""
        if url not in self.stores:
            self.stores[url] = location.open_store(url).trust()
        return self.stores[url]


class WarmShell(msgspec.Struct):
    """What a worker has made ahead of its task: a warm shell, thread pools' controls, the user's thread variables.

    `kept` only in a process that is not the task's own.
    """

    shell: shell.Shell
    pools: Any = None
    thread_variables: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    kept: Kept | None = None

    @classmethod
    def make(cls) -> WarmShell:
        """Make everything ready for a task, in about 0.3 s; the environment must still be the user's."""
        own = {name: os.environ.get(name) for name in limits.THREAD_VARIABLES}
        return cls(shell.make_shell(), limits.controller(), own)


OURS = shell.VARIABLES | {*limits.THREAD_VARIABLES, limits.GPU_VARIABLE, limits.TASK_VARIABLE}

GATE_PERIOD = 0.01
"""Seconds between two looks for the gate."""

Emit = Callable[[TaskEvent], None]
NO_SECRETS: Mapping[str, str] = types.MappingProxyType({})
_T = TypeVar("_T")


def execute(
    spec: TaskSpec, emit: Emit, prepared: WarmShell | None = None, secrets: Mapping[str, str] = NO_SECRETS
) -> TaskResult:
    """Execute a task and return its result; raise nothing but a KeyboardInterrupt that comes outside the cell.

    `secrets` are those of the whole flow, by name: nothing that is kept of the task may hold one.
    Outputs travel as events; `finish` puts them into the record. Segments are in the store when this returns, the
    record is not: the supervisor publishes it.
    """
    return _run(_Task(spec, emit, prepared or WarmShell.make(), secrets))


def _run(first: _Task) -> TaskResult:
    """Run a task, and those that its process runs after it, as long as they end well."""
    spec, task, outcome = first.spec, first, first.run()
    tasks: list[_Task] = [first]
    others: list[TaskResult] = []
    for other in spec.then if outcome.record is not None else ():
        task = _Task(other, first.emit, first.prepared, first.secrets, task)
        tasks.append(task)
        result = task.run()
        failure = None if result.record is not None or result.unstored else result.failure
        if failure is not None and tries_again(spec.options, spec.attempt, failure):  # from the first of them on
            outcome, others = msgspec.structs.replace(outcome, record=None, failure=failure), []
            break
        others.append(result)
        if result.record is None:
            break
    more = task.tidy()
    if others:  # what one of them opened another one may have written to
        outcome, *others = [task.seen_now(each) for task, each in zip(tasks, (outcome, *others), strict=True)]
    return msgspec.structs.replace(outcome, findings=(*outcome.findings, *more), then=tuple(others))


class _Task:
    """One task on its way, in a process of its own, or behind another one in its process."""

    def __init__(
        self, spec: TaskSpec, emit: Emit, prepared: WarmShell, secrets: Mapping[str, str], behind: _Task | None = None
    ) -> None:
        self.spec = spec
        self.secrets = secrets
        self.behind = behind
        self.label = spec.step if behind is not None else ""  # of its events
        self.emit = emit
        self.prepared = prepared
        self.shell = prepared.shell
        self.module: Main = Main() if behind is None else behind.module
        self.registry: Registry = Registry() if behind is None else behind.registry
        self.replayed: set[replay.Place] = set() if behind is None else behind.replayed
        self.set_by: set[str] = set() if behind is None else behind.set_by  # steps whose process changes are there
        self.kept = prepared.kept
        # a worker trusts the datastore that its spec names: whoever wrote the spec has been asked
        self.store = location.open_store(spec.store).trust() if self.kept is None else self.kept.store(spec.store)
        self.inputs: replay.StoredInputs = replay.StoredInputs(
            spec.groups, self._load, behind.inputs if behind is not None else None
        )
        self.observer = Observer(spec, OURS, fresh=behind is None, before_effect=self._wait)
        self.home = os.getpid()
        self.waited = 0.0  # seconds
        self.at_gate = threading.Lock()
        self.imports = ImportSettings() if self.kept is None else self.kept.imports
        self.stages = Stages(
            spec,
            self.module.__dict__,
            self.registry,
            self.inputs,
            self._load,
            self.observer,
            self.observer.new_modules,
            self.imports,
            secrets,
        )
        self.failure: TaskFailure | None = None  # that was caught
        self.unstored: dict[str, str] = {}

    def run(self) -> TaskResult:
        """Go through all stages; what user code raises becomes a failure."""
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
        observations = self.observer.stop(results.users(self.module.__dict__))
        for stream in self.streams:
            stream.flush()
        if record is not None:
            record = msgspec.structs.replace(record, observations=observations, findings=tuple(self.stages.findings))
        return TaskResult(
            record=record,
            failure=failure,
            elapsed=self.stages.elapsed or time.monotonic() - started,
            observations=observations,
            findings=tuple(self.stages.findings),
            unstored=self.unstored,
            asked=tuple(sorted(self.module.asked)),
        )

    def seen_now(self, result: TaskResult) -> TaskResult:
        """Return a result with the files that the task has written as they are now."""
        seen = msgspec.structs.replace(result.observations, written=self.observer.written_now())
        record = result.record and msgspec.structs.replace(result.record, observations=seen)
        return msgspec.structs.replace(result, observations=seen, record=record)

    def _stages(self) -> Record:
        if self.behind is None:
            self._enter_process()
        else:
            self._follow(self.behind)
        item = self.inputs.value(self.spec.item) if self.spec.item is not None else None
        with running(Context.of(self.spec, self.emit, item)), self.imports.followed():
            self.observer.start()
            self._replay()
            if self.kept is not None:
                self.kept.replayed()
            with self.stages.costs.of("inputs"):
                self._bind()
            if self.spec.evaluate is not None:
                return self._evaluate_list(self.spec.evaluate)
            self._bind_loop()
            if self.behind is not None:
                left = results.users(self.module.__dict__)
                seen = {*self.spec.inputs, *self.spec.live}
                self.stages.others = {name: value for name, value in left.items() if name not in seen}
            self.stages.look()
            condition = self.spec.options.condition if not self.spec.turn else None
            if condition is not None and self._caught(lambda: self._holds(condition)) is False:
                return self._skipped(condition)
            self.stages.take_base_line()
            last = self._turn()
            outcome = self.stages.collect(self.observer.paused)
            outcome = msgspec.structs.replace(outcome, facts={"caught": self.failure is not None, "until": last})
            with self.stages.costs.of("storing"):
                return self._saved(outcome)

    def _saved(self, outcome: Left) -> Record:
        """Store what the cell left; return its record."""
        with self.observer.paused():
            groups, manifests = artifacts.save(self.store, outcome.dumped)
        needed = self.spec.required
        self.unstored = {name: why for name, why in records.unstored(manifests).items() if name in needed}
        results.check_required(self.spec, manifests)
        return self.stages.record(outcome, groups, manifests)

    def _bind_loop(self) -> None:
        """Bind the loop variable of a foreach, and `inputs` of a join."""
        namespace = self.shell.user_ns
        constants = {name: namespace[name] for name in self.spec.constants if name in namespace}
        place = _Place(self)
        stages.bind_loop(self.spec, self.inputs, place, self.store, self.registry, constants, self._guarded)

    def _evaluate(self, expression: str) -> Any:
        """Return the value of an option's expression in the task's namespace."""
        code = compile(expression.strip(), self.spec.code_name, "eval")
        return self._guarded(lambda: eval(code, self.shell.user_ns))  # noqa: S307  # the user's own line

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Call user code outside the cell: what it raises is the task's failure."""
        try:
            return call()
        except BaseException as error:  # the user's code
            raise _Failed(failure_of(error, self._files(), self.spec.cell)) from error

    def _evaluate_list(self, expression: str) -> Record:
        """Return the record of a foreach's items, named 0, 1, …."""
        self.emit(Started(pid=os.getpid(), at=time.time()))
        items = self._evaluate(f"[*({expression})]")
        with self.observer.paused():
            # each item by itself: what items share is copied, as each has its own copy of everything
            dumped = [part for at, item in enumerate(items) for part in pickler.dump({str(at): item}, self.registry)]
            outcome = self.stages.plain(dumped)
            groups, manifests = artifacts.save(self.store, outcome.dumped)
        for name, artifact in manifests.items():
            if artifact.error:
                raise SerializationError(
                    f"item {name} of --foreach (a {artifact.type}) cannot be stored: {artifact.error}",
                    step=self.spec.step,
                    cell=self.spec.cell,
                    line=1,
                    fix="loop over names or numbers, and make the object in the step",
                )
        return self.stages.record(outcome, groups, manifests)

    def _skipped(self, condition: str) -> Record:
        """Return the record of a condition that does not hold."""
        with self.observer.paused():
            return self._saved(self.stages.skipped(condition))

    def _turn(self) -> bool | None:
        """Run the cell, unless the condition has failed; whether it was the last turn, None where nobody knows."""
        options = self.spec.options
        if self.failure is not None:
            return None
        self._caught(self._run_cell)
        if options.catch is not None and self.failure is None:
            self.shell.user_ns[options.catch] = None
        self.stages.wait()
        until = options.until
        return self._caught(lambda: self._holds(until)) if until is not None else None

    def _holds(self, expression: str) -> bool:
        value = self._evaluate(expression)
        return bool(self._guarded(lambda: bool(value)))

    def _caught(self, work: Callable[[], _T]) -> _T | None:
        """Return what some work gives; with `--catch`, in the last attempt, None where it fails: the name holds why."""
        options = self.spec.options
        try:
            return work()
        except _Failed as failed:
            again = tries_again(options, self.spec.attempt, failed.failure)
            if options.catch is None or again:
                raise
            if self.failure is None:
                self.failure = failed.failure
                caught = Caught(failed.failure.type, failed.failure.message, failed.failure.traceback)
                self.shell.user_ns[options.catch] = caught
            return None

    def _enter_process(self) -> None:
        """Set folder, path, environment, threads, randomness and streams as the task must find them."""
        spec = self.spec
        if Path(spec.folder).is_dir():
            os.chdir(spec.folder)
            sys.path.insert(0, spec.folder)
        sys.argv = shell.kernel_words()
        limits.set_threads(spec.threads, self.prepared.thread_variables, self.prepared.pools)
        limits.show_gpus(spec.devices)
        random_state.refresh()
        shell.enter(self.shell, self.module)
        self._take_output()

    def _follow(self, behind: _Task) -> None:
        """Begin where the task before has ended: what it made is there, but for what has another value here."""
        self._take_output(behind.streams)
        self.observer.given(behind.observer.own_variables)
        self.set_by.add(behind.spec.step)
        for definition in behind.spec.own:
            self.replayed.add(replay.place_of(definition))
        # The task before did not name these, but may have changed them: they share objects with what it was given.
        for name, ref in behind.spec.along.items():
            if not name.startswith("<"):
                self.shell.user_ns.setdefault(name, behind.inputs.value(ref))
        for name in self.spec.hidden:
            self.shell.user_ns.pop(name, None)

    def _take_output(self, before: tuple[Stream, ...] = ()) -> None:
        """Take what is printed, unless a task before has put something else in the place of its own streams."""
        self.shell.use(self._show)
        self.streams = out, err = Stream("stdout", 1, self._show), Stream("stderr", 2, self._show)
        sys.stdout = out if not before or sys.stdout is before[0] else sys.stdout
        sys.stderr = err if not before or sys.stderr is before[1] else sys.stderr

    def _show(self, output: dict[str, Any]) -> None:
        self.emit(Output(output=output, at=time.time(), step=self.label))

    def _replay(self) -> None:
        """Replay definitions and set-up in the order of the document, between them what steps have set."""
        above = stages.changes_above(self.spec, self.inputs)
        if self.behind is not None and PROCESS in self.spec.live:
            self.stages.above = self.behind.stages.process_left
        pending = [change for change in above if change[0] not in self.set_by]
        self.set_by.update(step for step, _, _ in above)
        self.shell.compile.flags &= ~replay.FUTURE  # of the task before, in a process that runs several
        for statement in self.spec.replay:
            if replay.place_of(statement) in self.replayed:  # by a task before it in this process
                continue
            self.replayed.add(replay.place_of(statement))
            # `sys.path.append("src")` stands above `import tools` in the same cell
            while pending and self.spec.places.get(pending[0][0], self.spec.position) <= statement.position:
                self._put(pending.pop(0))
            file = replay.file_of(statement, self.spec.position, self.spec.code_name)
            replay.run(statement, file, self.shell, self.inputs, self.registry)
        for change in pending:
            self._put(change)

    def _put(self, change: process_state.Change) -> None:
        """Set what a step above has set; from here on its variables are the flow's own."""
        process_state.put(change)
        self.observer.given(process_state.variables_of(change))
        self.observer.refused.update(dict.fromkeys(process_state.unkept_of(change), change[0]))

    def _bind(self) -> None:
        """Bind inputs last: they win over what definitions have bound."""
        names = names_of(self.spec.replay)
        behind = self.behind
        fresh = behind.stages.definitions.origin if behind is not None else lambda _: None
        self.stages.definitions = Definitions(names, self.shell.user_ns, self.registry, fresh)
        stages.bind(self.spec, self.inputs, _Place(self))

    def _run_cell(self) -> None:
        self.emit(Started(pid=os.getpid(), at=time.time(), step=self.label))
        start = time.monotonic()
        names = names_of(self.spec.own)
        shell.suit(self.shell, [self.spec.source, *(statement.source for statement in self.spec.replay)])
        with self.shell.after_statements(lambda: self.stages.see_statement(names)):
            result = shell.run_cell(self.shell, self.spec.source, self.spec.code_name, self._title())
        self.stages.elapsed = time.monotonic() - start - self.waited
        self.stages.see_draws()
        if result.error is not None:
            self.module.asked.update(missing_names(result.error))
            raise _Failed(failure_of(result.error, self._files(), self.spec.cell))

    def _wait(self, what: str) -> None:
        """Wait, before the cell touches anything outside, until its gate has come; what it has forked does not."""
        if not self.spec.gate or os.getpid() != self.home:
            return
        with self.at_gate:
            if os.path.exists(self.spec.gate):  # noqa: PTH110  # called within the audit hook
                return
            started = time.monotonic()
            self.emit(Halted(what=what, reads=self.observer.reads_now(), step=self.label))
            while not os.path.exists(self.spec.gate):  # noqa: PTH110
                time.sleep(GATE_PERIOD)
            self.waited += time.monotonic() - started

    def _title(self) -> str:
        """Return what tracebacks call the cell: `step train`, or `cell 3: df`."""
        name = self.spec.code_name
        return name if name.startswith("cell ") else f"step {name}"

    def _files(self) -> tuple[str, ...]:
        return (self.spec.code_name,)

    def _load(self, group: Group, names: frozenset[str]) -> Mapping[str, Any]:
        with self.observer.paused():
            try:
                loaded: Mapping[str, Any] = artifacts.load(self.store, (group,), names, self.registry)
                show_as_drawn(loaded.values())
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

    def tidy(self) -> list[Finding]:
        """End pools, exit hooks and child processes with the task; what they print still counts."""
        found: list[Finding] = []
        if self.kept is None or leftovers.anything(self.stages.threads, self.kept.exit_hooks):
            found = leftovers.end(self.spec.step, self.spec.cell)
            if self.kept is not None:
                self.kept.ended = True
        for stream in self.streams:
            stream.flush()
        return found

    def _failure_of_ours(self, error: NbflowError) -> TaskFailure:
        return TaskFailure(
            type=type(error).__name__,
            message=text_of(error),
            traceback="\n".join(error.report()),
            cell=error.cell or self.spec.cell,
            line=error.line,
            fix=error.fix,
        )


class _Place:
    """A process of the task's own: everything goes where the cell will look for it."""

    def __init__(self, task: _Task) -> None:
        self._task = task

    def name(self, name: str, value: Any) -> None:
        self._task.shell.user_ns[name] = value

    def random(self, name: str, state: Any) -> None:
        spec = self._task.spec
        random_state.restore(name, state, spec.index if spec.options.foreach else ())

    def definition(self, name: str, state: Mapping[str, Any]) -> None:
        self._task.stages.definitions.put(name, state)


class _Failed(Exception):
    """The cell failed."""

    def __init__(self, failure: TaskFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure
