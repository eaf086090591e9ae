"""What a kernel knows: the notebook as a flow, its datastore, which version each name holds, what was executed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from nbflow import artifacts, facts, outputs, problems, serialize, storage
from nbflow.audience import Audience
from nbflow.collected import Outputs
from nbflow.document import Document
from nbflow.errors import NbflowError
from nbflow.executors.kernel import Before, KernelTask, Left
from nbflow.flowrun import FlowRun, say
from nbflow.graph import build_flow
from nbflow.happenings import Prepared
from nbflow.journal import Journal
from nbflow.lookup import Lookup
from nbflow.model import Artifact, Flow, Group, Reason, Record, Replay, Step, TaskId, TaskSpec
from nbflow.namespace import MISSING
from nbflow.planning import Value
from nbflow.plugins import Executor
from nbflow.registry import Registry
from nbflow.render import table
from nbflow.scratch import Scratch
from nbflow.serialize import Dumped
from nbflow.settings import without_ignored
from nbflow.storage import Store
from nbflow.upstream import Known, Upstream
from nbflow.versions import Ledger
from nbflow.waiting import Waiting

if TYPE_CHECKING:
    from nbflow.launch import Executors


class Knowledge:
    """One kernel's; changed by its main thread alone."""

    def __init__(
        self, ip: Any, document: Document, registry: Registry, recorder: outputs.Recorder, audience: Audience
    ) -> None:
        self.ip = ip
        self.audience = audience
        self.document = document
        self.registry = registry
        self.recorder = recorder
        self.ledger = Ledger(ip.user_ns, registry, self._same_content)
        self.waiting = Waiting(ip, self.ledger, registry, self.flow, self.load)
        self.scratch = Scratch(ip.user_ns, self.ledger, registry)
        self.done: dict[str, Record] = {}  # key -> the newest execution of this kernel, or of a run that it started
        self.seen: set[tuple[str, str]] = set()  # (step, key) that ran or was reused by hand
        self.store_option: str | None = None
        self._executors: dict[str, Executors] = {}
        self._notebook: Any = None
        self._flow: Flow | None = None
        self._journal: Journal | None = None
        self._store: Store | None = None
        self._upstream: Upstream | None = None

    # ------------------------------------------------------------ the flow and what is known of it

    def flow(self) -> Flow:
        """The notebook as it stands as a flow; built again only when it has changed."""
        notebook = self.document.notebook()
        if self._flow is None or self._notebook is not notebook:
            self._notebook, self._flow, self._upstream = notebook, build_flow(without_ignored(notebook)), None
            with contextlib.suppress(NbflowError):  # a store that cannot be used is told of where it is needed
                self._flow = facts.with_known_changes(self._flow, self.store())
        return self._flow

    def understand_anew(self) -> None:
        """Build the flow again when it is asked for next: what it is made of has changed."""
        self._flow = None

    def store(self) -> Store:
        """The datastore in use."""
        if self._store is None:
            folder = self.document.notebook().folder
            self._store = storage.open_store(storage.store_url(self.store_option, folder))
        return self._store

    def journal(self) -> Journal:
        """The session run; made with the first thing that it has to tell."""
        if self._journal is None:
            self._journal = Journal(self.store(), self.flow(), self.audience)
        return self._journal

    def store_url(self) -> str:
        """The folder or URL of the datastore; it need not exist."""
        return storage.store_url(self.store_option, self.flow().notebook.folder)

    def upstream(self) -> Upstream:
        """What stands for each step of the flow as it is now."""
        flow = self.flow()
        if self._upstream is None:
            journal = self.journal()
            self._upstream = Upstream(
                flow, journal.store, journal.run, Known(self.done, self.seen), self._adopt, self._executor
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
        notebook = without_ignored(self.document.notebook())
        flow = build_flow(notebook, all_cells=True) if all_cells else self.flow()
        notebook = msgspec.structs.replace(flow.notebook, document=self.document.text())
        return msgspec.structs.replace(flow, notebook=notebook)

    def use_store(self, url: str | None) -> None:
        """Another datastore from now on; what was executed here counts no longer."""
        self.close()
        self.store_option, self._journal, self._upstream, self._store, self._flow = url, None, None, None, None
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
                self.know(ended, saving.values)
        for problem in self._journal.problems():
            say(problem)

    def flush(self) -> None:
        """Everything that cells run by hand have left is in the store."""
        self.settle()
        if self._journal is not None:
            for problem in self._journal.problems(wait=True):
                say(problem)

    def know(self, record: Record, values: Mapping[str, Any]) -> None:
        """An execution that is stored counts from now on; its names hold its values."""
        self.done[record.key] = record
        if self._upstream is not None:
            self._upstream.executed(record)
        self.ledger.bind_record(record, values)
        self._discover(record)

    def _discover(self, record: Record) -> None:
        """What a step changed in place though nothing said so is known from now on: it is a writer of that name."""
        step = next((step for step in self.flow().steps if step.name == record.step), None)
        names = sorted(set(record.changed) - set(step.writes)) if step is not None else []
        if step is None or not names:
            return
        facts.remember_changes(self.store(), step, names)
        finding = problems.mutated(step, names)
        self.journal().find(finding)
        print("\n".join(table.finding_text(finding)), file=sys.stderr)
        self._flow = None

    def _same_content(self, group: Group, values: Mapping[str, Any]) -> bool:
        """A stored group and the objects that its names hold now in; whether they would be stored as the same bytes."""
        dumped = serialize.dump(values, self.registry)
        if len(dumped) != 1 or not isinstance(dumped[0], Dumped):
            return False
        groups, _ = artifacts.save(cast("Store", _Present()), dumped)
        return groups[0].id == group.id

    # ------------------------------------------------------------ one task

    def task(self, step: Step, file: str) -> KernelTask:
        """A prepared step and the file name of its cell's code in; its task out."""
        lookup = self.upstream().lookup
        identity = TaskId(step=step.name)
        spec = lookup.spec(identity, self.journal().attempt(identity), 0)
        spec = msgspec.structs.replace(spec, code_name=file, is_flow=False)
        return KernelTask(spec, self.ip, self.registry, self.load)

    def load(self, group: Group, names: frozenset[str]) -> Mapping[str, Any]:
        """A stored group and names of it in; their values out."""
        return artifacts.load(self.store(), (group,), names, self.registry)

    def before(self, task: KernelTask) -> Before:
        """What of a task's definitions, set-up and inputs the namespace holds already."""
        spec = task.spec
        by_place = {(each.id, each.cell, each.line): each for each in self.flow().definitions}
        live: set[str] = set()
        stale: set[int] = set()
        setup = self._live_setup([statement for statement in spec.replay if statement.kind == "setup"])
        for statement in spec.replay:
            definition = by_place[statement.id, statement.cell, statement.line]
            binds = content_ids(spec, statement)
            requires = [self.flow().definitions[order] for order in definition.requires]
            if statement.kind == "setup":
                in_force = statement.id in setup
            else:
                in_force = self.ledger.is_live(definition, requires, binds)
            if in_force and not stale & set(definition.requires):
                live.add(statement.id)
            else:
                stale.add(definition.order)
        replayed = {statement.id for statement in spec.replay if statement.id not in live}
        usable = {}
        for name, ref in spec.inputs.items():
            group = spec.groups[ref.group]
            if not replayed & {each.id for each in group.definitions}:
                usable[name] = Value(group, as_artifact(group, ref.name), "")
        return Before(live=live, values=self.ledger.current(usable))

    def _live_setup(self, wanted: list[Replay]) -> set[str]:
        """Set-up statements in document order in; those that are in force, nothing else having followed, out."""
        log = self.ledger.setup
        ids = [statement.id for statement in wanted]
        if log == ids[: len(log)] and all(self.ledger.holds(each.id, each.names) for each in wanted[: len(log)]):
            return set(log)
        log.clear()
        return set()

    # ------------------------------------------------------------ what was executed

    def save(self, task: KernelTask, left: Left, dumped: Any, shown: Outputs, reasons: tuple[Reason, ...]) -> None:
        """What a cell left, taken apart, in; stored, and known from then on."""
        record = self.journal().save(task, left, dumped, shown, reasons)
        if record is not None:
            self.know(record, left.values)

    def know_loaded(self, task: KernelTask, loaded: Mapping[str, Any]) -> None:
        """Inputs that were loaded for a task and are still there; its cell had them in hand."""
        for name, value in loaded.items():
            if self.ip.user_ns.get(name, MISSING) is value:
                ref = task.spec.inputs[name]
                group = task.spec.groups[ref.group]
                self.ledger.bind_value(name, value, Value(group, as_artifact(group, ref.name), ""), touched=True)
                self.waiting.drop([name])

    def know_replayed(self, statement: Replay, binds: Mapping[str, str]) -> None:
        """A definition or set-up statement has just been executed, with these data in it."""
        self.ledger.bind_definition(statement.id, statement.names, binds)
        if statement.kind == "setup":
            self.ledger.setup.append(statement.id)
        self.waiting.drop(statement.names)

    def absorb(self, run: FlowRun) -> None:
        """A run that has ended, in: what it executed counts here, and its names are bound when they are read."""
        if run.runner is None or run.absorbed:
            return
        run.absorbed = True
        reused: set[str] = set()
        left: dict[str, Record] = {}  # name -> what left it last in document order, then item order
        for view, record in run.records():
            if view.state in ("done", "reused", "caught", "skipped"):
                self.done[record.key] = record
            if view.state == "reused":
                reused.add(record.execution)
            left.update(dict.fromkeys(record.artifacts, record))
        values: dict[str, Value] = {}
        for name, last in left.items():
            record = run.runner.lookup.newest(name) or last
            # what the user has made of a name stays where nothing of it is new; what is of a step follows the run
            if record.execution not in reused or name not in self.ip.user_ns or self.ledger.step_of(name):
                values.update({name: value for name, value in [(name, values_of(record).get(name))] if value})
        kept = sorted(run.bound_since() & values.keys())
        for name in kept:
            del values[name]
        if kept:
            names = ", ".join(kept)
            print(
                f"{names}: bound here since {run.name} began, and kept; `run.data` has what the run left",
                file=sys.stderr,
            )
        self._upstream = None
        self.waiting.add(values)
        for definition in run.runner.flow.definitions:
            if definition.kind == "definition":
                self.waiting.add_definition(definition)

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
        task = KernelTask(spec, self.ip, self.registry, self.load)
        record = journal.save(task, left, serialize.dump(values, self.registry), Outputs(), prepared.reasons)
        if record is None:
            record = self._wait_for(task)
        trace.record = record
        self.done[record.key] = record
        self.ledger.bind_record(record, values)
        return record

    def _wait_for(self, task: KernelTask) -> Record:
        """A task whose values are being stored in; its record, once they are, out."""
        found: Record | NbflowError | None = None
        for saving, ended in self.journal().settled():
            if saving.task is task:
                found = ended
            elif isinstance(ended, Record):
                self.know(ended, saving.values)
        if not isinstance(found, Record):
            raise found or NbflowError("a plain cell's values were not stored")
        return found


class _Present:
    """Stands where segments are written: all are there, so that hashing is all that is done."""

    def has_segment(self, segment: Any) -> bool:
        del segment
        return True


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
