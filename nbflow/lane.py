"""Cells run by hand: what a step may see is found, put in place, and what it leaves is stored; plain cells are followed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from nbflow import artifacts, outcome, outputs, replay, serialize, storage
from nbflow.analysis import analyse
from nbflow.audience import Audience
from nbflow.collected import Outputs
from nbflow.document import Document
from nbflow.errors import NbflowError
from nbflow.executors.kernel import Before, KernelTask, Left
from nbflow.flowrun import FlowRun, failed, say, told
from nbflow.graph import build_flow
from nbflow.happenings import Prepared
from nbflow.journal import Journal
from nbflow.lookup import Lookup
from nbflow.model import (
    Artifact,
    Cell,
    Flow,
    Group,
    Reason,
    Record,
    Replay,
    Step,
    StepOptions,
    TaskFailure,
    TaskId,
    TaskSpec,
    TaskState,
)
from nbflow.namespace import MISSING, is_own
from nbflow.planning import Value
from nbflow.plugins import Executor
from nbflow.registry import Registry
from nbflow.scratch import VAGUE, Scratch
from nbflow.serialize import Dumped, Unstorable
from nbflow.storage import Store
from nbflow.tracebacks import failure_of
from nbflow.upstream import Known, Upstream, refuse
from nbflow.versions import Ledger
from nbflow.waiting import Waiting, as_replay

if TYPE_CHECKING:
    from nbflow.launch import Executors

NOT_HERE = (
    "foreach", "join", "condition", "until", "retry", "timeout", "memory", "catch", "gpu", "nodes", "env", "pip", "on",
    "secret",
)  # fmt: skip
"""Options that a cell in the kernel cannot honour: its step goes to a process."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a header line's cell."""

    in_place: bool = False
    step: Step | None = None
    key: str = ""
    reasons: tuple[Reason, ...] = ()
    reuse: Record | None = None
    error: Exception | None = None


class Lane:
    """The kernel lane of one session."""

    def __init__(self, ip: Any, document: Document, registry: Registry, recorder: outputs.Recorder, audience: Audience) -> None:
        self.ip = ip
        self.audience = audience
        self.document = document
        self.registry = registry
        self.recorder = recorder
        self.ledger = Ledger(ip.user_ns, registry, self._same_content)
        self._executors: dict[str, Executors] = {}
        self.waiting = Waiting(ip, self.ledger, registry, self.flow, self._load)
        self.scratch = Scratch(ip.user_ns, self.ledger, registry)
        self.done: dict[str, Record] = {}  # key -> the newest execution of this kernel, or of a run that it started
        self.store_option: str | None = None
        self._seen: set[tuple[str, str]] = set()
        self._elsewhere: set[str] = set()
        self._notebook: Any = None
        self._flow: Flow | None = None
        self._journal: Journal | None = None
        self._upstream: Upstream | None = None
        self._plain: KernelTask | None = None
        self._reasons: tuple[Reason, ...] = ()

    # ------------------------------------------------------------ the flow and what is known of it

    def flow(self) -> Flow:
        """The notebook as it stands as a flow; built again only when it has changed."""
        notebook = self.document.notebook()
        if self._flow is None or self._notebook is not notebook:
            self._notebook, self._flow, self._upstream = notebook, build_flow(notebook), None
        return self._flow

    def store(self) -> Store:
        """The datastore in use."""
        return self.journal().store

    def journal(self) -> Journal:
        """The session run; made with the first thing that it has to tell."""
        if self._journal is None:
            self._journal = Journal(storage.open_store(self._store_url()), self.flow(), self.audience)
        return self._journal

    def _store_url(self) -> str:
        return storage.store_url(self.store_option, self.flow().notebook.folder)

    def upstream(self) -> Upstream:
        """What stands for each step of the flow as it is now."""
        flow = self.flow()
        if self._upstream is None:
            journal = self.journal()
            self._upstream = Upstream(
                flow, journal.store, journal.run, Known(self.done, self._seen), self._adopt, self._executor
            )
        return self._upstream

    def _executor(self, url: str | None) -> Executor:
        return self.executors().get(url)

    def executors(self, on: str | None = None) -> Executors:
        """The executors of this kernel's runs at one place; what they start stays warm between runs."""
        from nbflow.launch import Executors

        return self._executors.setdefault(on or "local", Executors(on or "local"))

    def whole_flow(self, *, all_cells: bool = False) -> Flow:
        """The flow as a run of its own keeps it: with the text of the notebook as it stands."""
        flow = build_flow(self.document.notebook(), all_cells=True) if all_cells else self.flow()
        notebook = msgspec.structs.replace(flow.notebook, document=self.document.text())
        return msgspec.structs.replace(flow, notebook=notebook)

    def use_store(self, url: str | None) -> None:
        """Another datastore from now on; what was executed here counts no longer."""
        self.close()
        self.store_option, self._journal, self._upstream = url, None, None
        self.done.clear()

    def close(self) -> None:
        """Everything that is under way is stored; the session run ends."""
        self.settle()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        for executors in self._executors.values():
            executors.close()
        self._executors.clear()

    def settle(self) -> None:
        """Wait until what earlier cells left may change, and say what went wrong meanwhile."""
        if self._journal is None:
            return
        for saving, ended in self._journal.settled():
            if isinstance(ended, NbflowError):
                say(ended)
            else:
                self._know(ended, saving.values)
        self._report(self._journal.problems())

    def flush(self) -> None:
        """Everything that cells run by hand have left is in the store."""
        self.settle()
        if self._journal is not None:
            self._report(self._journal.problems(wait=True))

    def _report(self, problems: Iterable[BaseException]) -> None:
        for problem in problems:
            if not isinstance(problem, NbflowError):
                raise problem
            say(problem)

    def _know(self, record: Record, values: Mapping[str, Any]) -> None:
        """An execution that is stored counts from now on; its names hold its values."""
        self.done[record.key] = record
        if self._upstream is not None:
            self._upstream.executed(record)
        self.ledger.bind_record(record, values)

    def _same_content(self, group: Group, values: Mapping[str, Any]) -> bool:
        """A stored group and the objects that its names hold now in; whether they would be stored as the same bytes."""
        dumped = serialize.dump(values, self.registry)
        if len(dumped) != 1 or not isinstance(dumped[0], Dumped):
            return False
        groups, _ = artifacts.save(cast("Store", _Present()), dumped)
        return groups[0].id == group.id

    # ------------------------------------------------------------ before a step

    def decide(self, step: Step) -> Decision:
        """A step whose cell is about to run in; what is to be done out; errors name the steps to run first."""
        if (elsewhere_options(step.options) or step.scope) and not step.options.here:
            return Decision(step=step)
        upstream = self.upstream()
        prepared = upstream.prepare(step.name)
        if prepared.action not in ("run", "reuse"):
            upstream.retry()
            prepared = upstream.prepare(step.name)
        if prepared.action not in ("run", "reuse"):
            raise refuse(step, upstream.missing(), prepared)
        decision = Decision(step=step, key=prepared.key, reasons=prepared.reasons)
        record = upstream.lookup.record(TaskId(step=step.name)) if prepared.action == "reuse" else None
        if record is not None and step.kind == "step" and not record.observations.volatile:
            return replace(decision, reuse=record)
        if record is not None:
            decision = replace(decision, reasons=(("fresh", "executed by hand"),))
        return replace(decision, in_place=True)

    def start(self, decision: Decision, file: str) -> KernelTask:
        """A decision to run here in; the task, ready to be entered, out."""
        step = decision.step
        assert step is not None
        self._seen.add((step.name, decision.key))
        task = self._task(step, file)
        self._reasons = decision.reasons
        journal = self.journal()
        journal.announce(self.flow(), self.document.text)
        journal.tell(TaskId(step=step.name), "running", attempt=task.spec.attempt, key=decision.key, reasons=decision.reasons)
        return task

    def enter(self, task: KernelTask, *, isolated: bool) -> None:
        """The namespace as the task's step may see it; from here on what is shown belongs to it."""
        before = self._before(task)
        self.recorder.start()
        task.enter(before, isolated=isolated)

    def _task(self, step: Step, file: str) -> KernelTask:
        lookup = self.upstream().lookup
        identity = TaskId(step=step.name)
        spec = lookup.spec(identity, self.journal().attempt(identity), 0)
        spec = msgspec.structs.replace(spec, code_name=file, is_flow=False)
        return KernelTask(spec, self.ip, self.registry, self._load)

    def _load(self, group: Group, names: frozenset[str]) -> Mapping[str, Any]:
        return artifacts.load(self.store(), (group,), names, self.registry)

    def _before(self, task: KernelTask) -> Before:
        """What of a task's definitions, set-up and inputs the namespace holds already."""
        spec = task.spec
        by_id = {definition.id: definition for definition in self.flow().definitions}
        live: set[str] = set()
        stale: set[int] = set()
        setup = self._live_setup([statement for statement in spec.replay if statement.kind == "setup"])
        for statement in spec.replay:
            definition = by_id[statement.id]
            binds = content_ids(spec, statement)
            requires = [self.flow().definitions[order] for order in definition.requires]
            in_force = statement.id in setup if statement.kind == "setup" else self.ledger.is_live(definition, requires, binds)
            if in_force and not stale & set(definition.requires):
                live.add(statement.id)
            else:
                stale.add(definition.order)
        wanted = {name: Value(spec.groups[ref.group], as_artifact(spec.groups[ref.group], ref.name), "") for name, ref in spec.inputs.items()}
        replayed = {by_id[statement.id].id for statement in spec.replay if statement.id not in live}
        usable = {name: value for name, value in wanted.items() if not replayed & {ref.id for ref in value.group.definitions}}
        return Before(live=live, values=self.ledger.current(usable))

    def _live_setup(self, wanted: list[Replay]) -> set[str]:
        """Set-up statements in the order of the document in; those that are in force, nothing else having followed, out."""
        log = self.ledger.setup
        ids = [statement.id for statement in wanted]
        if log == ids[: len(log)] and all(self.ledger.holds(each.id, each.names) for each in wanted[: len(log)]):
            return set(log)
        log.clear()
        return set()

    # ------------------------------------------------------------ reuse

    def reuse(self, decision: Decision) -> None:
        """The past execution's outputs shown again, its artifacts bound to be loaded when they are read."""
        began = time.perf_counter()
        record, step = decision.reuse, decision.step
        assert record is not None and step is not None
        self._seen.add((step.name, decision.key))
        outputs.show(self.ip, record.outputs)
        self.done[record.key] = record
        self.waiting.add(values_of(record))
        for order in step.own_definitions:
            self.waiting.add_definition(self.flow().definitions[order])
        journal = self.journal()
        journal.announce(self.flow(), self.document.text)
        identity = TaskId(step=step.name)
        journal.tell(
            identity, "reused", attempt=journal.attempt(identity), key=record.key, execution=record.execution,
            reasons=decision.reasons, reused_from=record.run,
        )  # fmt: skip
        age = decision.reasons[0][1].partition(", ")[2]
        milliseconds = (time.perf_counter() - began) * 1000
        print(f"reused from {record.run}, {age} ({milliseconds:.0f} ms); run the cell once more to execute it")

    # ------------------------------------------------------------ runs and processes

    def elsewhere(self, decision: Decision) -> None:
        """A step whose options the kernel cannot honour: it runs in a process, and what it shows is shown here."""
        step = decision.step
        assert step is not None
        from nbflow.launch import begin

        again = step.name in self._elsewhere
        self._elsewhere.add(step.name)
        run = FlowRun(self.ip, self.audience)
        runner = begin(
            self.whole_flow(), store=self.store_option, executors=self.executors(), steps=[step.name],
            fresh=[step.name] if again else False, watch=run.watch,
        )  # fmt: skip
        run.start(runner)
        run.wait(None)
        self.absorb(run)
        if run.status != "done" and run.snapshot is not None:
            for text in told(run.snapshot):
                print(text, file=sys.stderr)
            raise failed(run.snapshot)

    def absorb(self, run: FlowRun) -> None:
        """A run that has ended in: what it executed counts here, and its names are bound when they are read."""
        if run.runner is None or run.snapshot is None or run.absorbed:
            return
        run.absorbed = True
        lookup = run.runner.lookup
        values: dict[str, Value] = {}
        for view in run.snapshot.tasks:  # in document order, then item order: the last version of a name counts
            record = lookup.record(view.task)
            if record is None or view.state not in ("done", "reused"):
                continue
            self.done[record.key] = record
            for name, value in values_of(record).items():
                if view.state == "done" or name not in self.ip.user_ns:
                    values[name] = value
        self._upstream = None
        self.waiting.add(values)
        for definition in run.runner.flow.definitions:
            if definition.kind == "definition":
                self.waiting.add_definition(definition)

    # ------------------------------------------------------------ after a step

    def finish(self, task: KernelTask, *, succeeded: bool, error: BaseException | None) -> NbflowError | None:
        """A task whose cell is over in; its outputs are being stored; what makes it a failure after all out."""
        shown = self.recorder.stop()
        left = task.leave(succeeded=succeeded)
        ledger, spec = self.ledger, task.spec
        ledger.code_ran()
        self._know_loaded(task, left.loaded)
        for statement in left.replayed:
            self._know_replayed(statement, content_ids(spec, statement))
        ledger.sweep()
        ledger.forget(spec.writes)
        if not succeeded:
            self._tell_failure(task, error, left.elapsed)
            return None
        self.waiting.drop(left.values)
        for statement in spec.own:
            self._know_replayed(statement, {})
        dumped = serialize.dump(left.values, self.registry)
        try:
            outcome.check_required(spec, {each.name: _unstored(each) for each in dumped if isinstance(each, Unstorable)})
        except NbflowError as problem:
            self._tell_failure(task, problem, left.elapsed)
            return problem
        self._save(task, left, dumped, shown)
        return None

    def _save(self, task: KernelTask, left: Left, dumped: Any, shown: Outputs) -> None:
        record = self.journal().save(task, left, dumped, shown, self._reasons)
        if record is not None:
            self._know(record, left.values)

    def _know_loaded(self, task: KernelTask, loaded: Mapping[str, Any]) -> None:
        for name, value in loaded.items():
            if self.ip.user_ns.get(name, MISSING) is value:
                group = task.spec.groups[task.spec.inputs[name].group]
                self.ledger.bind_value(name, value, Value(group, as_artifact(group, name), ""), touched=True)
                self.waiting.drop([name])

    def _know_replayed(self, statement: Replay, binds: Mapping[str, str]) -> None:
        self.ledger.bind_definition(statement.id, statement.names, binds)
        if statement.kind == "setup":
            self.ledger.setup.append(statement.id)
        self.waiting.drop(statement.names)

    def _tell_failure(self, task: KernelTask, error: BaseException | None, elapsed: float) -> None:
        spec = task.spec
        failure = TaskFailure(type="Interrupted", message="the cell did not end", cell=spec.cell, kind="cancelled")
        if error is not None:
            kind = "cancelled" if isinstance(error, KeyboardInterrupt) else "error"
            failure = failure_of(error, (spec.code_name,), spec.cell, kind=kind)
        state: TaskState = "cancelled" if failure.kind == "cancelled" else "failed"
        self.journal().tell(
            TaskId(step=spec.step), state, attempt=spec.attempt, key=spec.key, failure=failure, elapsed=elapsed,
            reasons=self._reasons,
        )  # fmt: skip

    # ------------------------------------------------------------ plain cells

    def before_plain(self, source: str, cell: Cell | None) -> None:
        """A cell that is no step is about to run: what it reads is bound; where the flow needs it, it is watched."""
        self._plain = None
        if self.waiting:
            self.waiting.bind(analyse(source).reads, cell)
        if cell is None or cell.kind != "plain":
            return
        step = next((step for step in self.flow().steps if step.cell == cell.id), None)
        if step is None:
            self.scratch.before(cell, analyse(cell.body), self.flow(), self._store_url())
            return
        if VAGUE & {problem.code for problem in analyse(cell.body).diagnostics}:
            return
        try:
            prepared = self.upstream().prepare(step.name)
            if prepared.action not in ("run", "reuse"):
                return
            task = self._task(step, f"cell {step.position}")
            before = self._before(task)
        except NbflowError as error:
            print("\n".join(error.report()), file=sys.stderr)
            return
        definitions = {statement.id for statement in task.spec.replay}
        states = {name for name in task.spec.inputs if name.startswith("<")}
        if before.live == definitions and before.values.keys() | states == task.spec.inputs.keys():
            self._plain = task
            self._reasons = prepared.reasons
            self.recorder.start()
            task.watch()

    def after_plain(self, cell: Cell | None, before: Mapping[str, Any], *, succeeded: bool) -> None:
        """A cell that is no step has ended: names that it changed hold new versions."""
        task, self._plain = self._plain, None
        namespace, ledger = self.ip.user_ns, self.ledger
        changed = {name for name, value in namespace.items() if before.get(name, MISSING) is not value and not is_own(name)}
        ledger.code_ran()
        ledger.sweep()
        analysis = analyse(cell.body) if cell is not None else None
        if analysis is not None:
            ledger.forget((analysis.writes | analysis.may_mutate) - analysis.definitions)
        self.waiting.drop(changed)
        if cell is not None and cell.kind in ("plain", "setup"):
            self._know_definitions(cell, changed, succeeded=succeeded)
        if task is not None:
            self._finish_plain(task, succeeded=succeeded)
        elif cell is not None and analysis is not None:
            self.scratch.after(cell, analysis, changed, succeeded=succeeded)

    def _know_definitions(self, cell: Cell, changed: set[str], *, succeeded: bool) -> None:
        for definition in self.flow().definitions:
            if definition.cell != cell.id or not (succeeded or changed.intersection(definition.names)):
                continue
            binds = {bind.name: self.ledger.content_of(bind.name) for bind in definition.binds}
            statement = as_replay(definition)
            self.ledger.forget(name for name in definition.names if name in changed)
            self._know_replayed(statement, binds)
            if definition.kind == "definition":
                replay.register(statement, self.ip.user_ns, self.registry)

    def _finish_plain(self, task: KernelTask, *, succeeded: bool) -> None:
        shown = self.recorder.stop()
        left = task.leave(succeeded=succeeded)
        if not succeeded:
            return
        journal = self.journal()
        journal.announce(self.flow(), self.document.text)
        dumped = serialize.dump(left.values, self.registry)
        self._save(task, left, dumped, shown)

    def _adopt(self, step: Step, prepared: Prepared, lookup: Lookup) -> Record | None:
        """A plain cell that the flow needs now in; the record of its last execution, if that still counts, out."""
        if step.kind != "cell":
            return None
        identity = TaskId(step=step.name)
        journal = self.journal()
        spec = msgspec.structs.replace(lookup.spec(identity, journal.attempt(identity), 0), is_flow=False)
        found = self.scratch.adopt(spec)
        if found is None:
            return None
        trace, values = found
        unbound = tuple(name for name in spec.writes if name not in values)
        left = Left(values, unbound, trace.observations, trace.began, trace.elapsed)
        journal.announce(self.flow(), self.document.text)
        task = KernelTask(spec, self.ip, self.registry, self._load)
        record = journal.save(task, left, serialize.dump(values, self.registry), Outputs(), prepared.reasons)
        if record is None:
            _, saved = journal.settled()[0]
            if isinstance(saved, NbflowError):
                raise saved
            record = saved
        trace.record = record
        self.done[record.key] = record
        self.ledger.bind_record(record, values)
        return record


class _Present:
    """Stands where segments are written: all are there, so that hashing is all that is done."""

    def has_segment(self, segment: Any) -> bool:
        del segment
        return True


def _unstored(each: Unstorable) -> Artifact:
    return Artifact(name=each.name, type=each.type, group=-1, error=each.reason)


def as_artifact(group: Group, name: str) -> Artifact:
    """A stored group and one of its names in; as much of its artifact as tells which version it is out."""
    return Artifact(name=name, type="", group=0, content_id=artifacts.content_id(group, name))


def values_of(record: Record) -> dict[str, Value]:
    """A record in; its names that were stored, with their values as they are read, out."""
    found = {name: artifact for name, artifact in record.artifacts.items() if artifact.group >= 0}
    return {name: Value(record.groups[artifact.group], artifact, record.step) for name, artifact in found.items()}


def content_ids(spec: TaskSpec, statement: Replay) -> dict[str, str]:
    """The data that a replayed statement reads, each with its content id."""
    return {name: artifacts.content_id(spec.groups[ref.group], ref.name) for name, ref in statement.binds.items()}


def elsewhere_options(options: StepOptions) -> list[str]:
    """A step's options in; those that a cell in the kernel cannot honour out."""
    default = StepOptions()
    return [name for name in NOT_HERE if getattr(options, name) != getattr(default, name)]
