"""What a kernel knows: the notebook as a flow, its datastore, which version each name holds, what was executed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from nbflow.analysis.effects import is_made, owner_of, state_of
from nbflow.analysis.source import is_star_import
from nbflow.engine import facts
from nbflow.engine.events import Decision
from nbflow.engine.inputs import InputValue
from nbflow.engine.keys import as_replay
from nbflow.engine.lookup import Lookup
from nbflow.errors import NbflowError
from nbflow.flow import findings
from nbflow.flow.graph import build_flow
from nbflow.kernel.document import Document
from nbflow.kernel.feed import Audience
from nbflow.kernel.flow_run import FlowRun, say
from nbflow.kernel.lazy_names import Waiting
from nbflow.kernel.recorder import Recorder
from nbflow.kernel.scratch_cells import Scratch
from nbflow.kernel.session_run import Journal
from nbflow.kernel.task import Before, Kernel, KernelTask
from nbflow.kernel.upstream import KernelState, Upstream
from nbflow.kernel.versions import Ledger
from nbflow.model import MISSING, Finding, Flow, Group, Manifest, Reason, Record, Replay, Step, TaskId, TaskSpec
from nbflow.plugins import Executor
from nbflow.render import table
from nbflow.store import artifacts, location
from nbflow.store.location import Store
from nbflow.store.own_modules import with_modules
from nbflow.store.serialize import pickler
from nbflow.store.serialize.fingerprint import show_as_drawn
from nbflow.store.serialize.pickler import Dumped
from nbflow.store.serialize.registry import Registry
from nbflow.store.settings import without_ignored
from nbflow.task import results
from nbflow.task.outputs import Outputs
from nbflow.task.replay import Place, place_of
from nbflow.task.stages import Left

if TYPE_CHECKING:
    from nbflow.runs.launch import Executors


class Knowledge:
    """One kernel's; changed by its main thread alone."""

    def __init__(self, ip: Any, document: Document, registry: Registry, recorder: Recorder, audience: Audience) -> None:
        self.ip = ip
        self.audience = audience
        self.document = document
        self.registry = registry
        self.recorder = recorder
        self.ledger = Ledger(ip.user_ns, registry, self._same_content, self._state)
        self.kernel = Kernel(ip, registry, self.load)
        self.waiting = Waiting(self.kernel, self.ledger, self.flow)
        self.scratch = Scratch(ip.user_ns, self.ledger, registry)
        self.done: dict[str, Record] = {}  # key -> the newest execution of this kernel, or of a run that it started
        self.failed: set[str] = set()  # steps whose last execution by hand did not end well
        self.seen: set[tuple[str, str]] = set()  # (step, key) that ran or was reused by hand
        self.store_option: str | None = None
        self._executors: dict[str, Executors] = {}
        self._notebook: Any = None
        self._held: Any = None  # the notebook that counts while a cell with turns runs
        self._flow: Flow | None = None
        self._journal: Journal | None = None
        self._store: Store | None = None
        self._upstream: Upstream | None = None

    # ------------------------------------------------------------ the flow and what is known of it

    def flow(self) -> Flow:
        """Return the notebook's flow as it is now; it is built again only when the notebook has changed."""
        notebook = self._held or self.document.notebook()
        if self._flow is None or self._notebook is not notebook:
            self._flow = build_flow(with_modules(without_ignored(notebook)))
            self._notebook, self._upstream = notebook, None
            with contextlib.suppress(NbflowError):  # a store that cannot be used is told of where it is needed
                self._flow = facts.with_known(self._flow, self.store())
        return self._flow

    def hold(self) -> None:
        """Let the notebook count as it is now, whatever becomes of it, until `let_go`."""
        self._held = self.document.notebook()

    def let_go(self) -> None:
        """Let the flow change again: the cell that ran on one state of the notebook is over."""
        self._held = None

    def understand_anew(self) -> None:
        """Build the flow again when it is asked for next: what it is made of has changed."""
        self._flow = None

    def store(self) -> Store:
        """Return the datastore in use."""
        if self._store is None:
            folder = self.document.notebook().folder
            self._store = location.open_store(location.store_url(self.store_option, folder))
        return self._store

    def journal(self) -> Journal:
        """Return the session run, made with the first thing that it has to tell; UntrustedError in a strange store."""
        if self._journal is None:
            self.store().require_trust()
            self._journal = Journal(self.store(), self.flow(), self.audience)
        return self._journal

    def store_url(self) -> str:
        """Return the folder or URL of the datastore; it need not exist."""
        return location.store_url(self.store_option, self.flow().notebook.folder)

    def upstream(self) -> Upstream:
        """Return what stands for each step of the flow as it is now."""
        flow = self.flow()
        if self._upstream is None:
            journal = self.journal()
            known = KernelState(self.done, self.failed, self.kernel.process.environment, self.seen, self.ledger.has)
            self._upstream = Upstream(flow, journal.store, journal.run, known, self._adopt, self._executor)
        return self._upstream

    def _executor(self, url: str | None) -> Executor:
        return self.executors().get(url)

    def executors(self, on: str | None = None) -> Executors:
        """Return the executors of this kernel's runs at one place; what they start stays warm between runs."""
        from nbflow.runs.launch import Executors

        return self._executors.setdefault(on or "local", Executors(on or "local", self.kernel.process.environment))

    def whole_flow(self, *, all_cells: bool = False) -> Flow:
        """Return the flow as a run of its own keeps it: with the text of the notebook as it is now."""
        notebook = with_modules(without_ignored(self.document.notebook()))
        flow = build_flow(notebook, all_cells=True) if all_cells else self.flow()
        notebook = msgspec.structs.replace(flow.notebook, document=self.document.text())
        return msgspec.structs.replace(flow, notebook=notebook)

    def use_store(self, url: str | None) -> None:
        """Use another datastore from now on; what was executed here counts no longer."""
        self.close()
        self.store_option, self._journal, self._upstream, self._store, self._flow = url, None, None, None, None
        self.done.clear()

    def close(self) -> None:
        """Store everything that is under way, and end the session run."""
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
        for saving, outcome in self._journal.settled():
            if isinstance(outcome, NbflowError):
                say(outcome)
            else:
                self.know(outcome, saving.values)
        for problem in self._journal.problems():
            say(problem)

    def flush(self) -> None:
        """Wait until everything that cells run by hand have left is in the store."""
        self.settle()
        if self._journal is not None:
            for problem in self._journal.problems(wait=True):
                say(problem)

    def know(self, record: Record, values: Mapping[str, Any]) -> None:
        """Let an execution that is stored count from now on; its names hold its values."""
        self.done[record.key] = record
        self.failed.discard(record.step)
        for name, artifact in record.artifacts.items():
            if (owner := owner_of(name)) is not None:
                self.kernel.definitions.keep(self.ip.user_ns.get(owner), artifact.content_id, values.get(name, {}))
            elif is_made(name) and name in values:
                self.ledger.know_made(name, record, values[name].values)
        if self._upstream is not None:
            self._upstream.executed(record)
        self.ledger.bind_record(record, values)
        self._discover(record)

    def _discover(self, record: Record) -> None:
        """Take a step as a writer of a name that it changed in place though nothing said so."""
        flow = self.flow()
        step = next((step for step in flow.steps if step.name == record.step), None)
        names = sorted(findings.unforeseen(flow, step, record)) if step is not None else []
        if step is None or not names:
            return
        facts.remember_changes(self.store(), step, names)
        self.tell(findings.discovered(step, names, record))
        self._flow = None

    def tell(self, new: Iterable[Finding]) -> None:
        """Say under the cell what its execution has brought to light, and keep it with the session run."""
        for finding in new:
            self.journal().find(finding)
            print("\n".join(table.finding_text(finding, self.document.notebook().positions)), file=sys.stderr)

    def _state(self, group: Group, name: str) -> Any:
        """Return what cells have set on a definition where that is still what a stored group holds of it."""
        value = self.ip.user_ns.get(owner_of(name) or "")
        return self.kernel.definitions.state(value, artifacts.content_id(group, name))

    def _same_content(self, group: Group, values: Mapping[str, Any]) -> bool:
        """Return whether the objects that a stored group's names hold now would be stored as the same bytes."""
        dumped = pickler.dump(values, self.registry, [frozenset(values)])
        if len(dumped) != 1 or not isinstance(dumped[0], Dumped):
            return False
        groups, _ = artifacts.identify(dumped)
        return groups[0].id == group.id

    # ------------------------------------------------------------ one task

    def task(self, identity: TaskId, file: str) -> KernelTask:
        """Return what runs a prepared task; `file` is the file name of its cell's code."""
        lookup = self.upstream().lookup
        spec = lookup.spec(identity, self.journal().attempt(identity), 0)
        spec = msgspec.structs.replace(spec, code_name=file, is_flow=False)
        return KernelTask(spec, self.kernel)

    def load(self, group: Group, names: frozenset[str]) -> Mapping[str, Any]:
        """Load names of a stored group; a figure among them is shown as in the kernel that drew it."""
        values = artifacts.load(self.store(), (group,), names, self.registry)
        show_as_drawn(values.values())
        return values

    def before(self, task: KernelTask) -> Before:
        """Return what of a task's definitions and inputs the namespace holds already."""
        spec = task.spec
        by_place = {(each.id, each.cell, each.line): each for each in self.flow().definitions}
        last = {name: statement for statement in spec.replay for name in statement.names}
        live: set[Place] = set()
        stale: set[int] = set()
        for statement in spec.replay:
            if statement.kind == "setup":
                has_run = self.kernel.process.has_run(place_of(statement))
                if has_run and self.ledger.holds(statement.id, statement.names) and self._brings(statement):
                    live.add(place_of(statement))
                continue
            definition = by_place[statement.id, statement.cell, statement.line]
            requires = [self.flow().definitions[order] for order in definition.requires]
            if all(last[name] is not statement for name in statement.names):
                # below it all its names are defined again: only values that are kept refer to it
                in_force = self.registry.has(statement.id)
            else:
                given = {*spec.inputs.values(), *spec.along.values()}
                shared = {name for name, ref in statement.binds.items() if ref in given}
                in_force = self.ledger.is_live(definition, requires, content_ids(spec, statement), shared)
            if in_force and not stale & set(definition.requires):
                live.add(place_of(statement))
            else:
                stale.add(definition.order)
        anew = [s for s in spec.replay if s.kind == "definition" and place_of(s) not in live]
        replayed = {statement.id for statement in anew}
        states = {state_of(name) for statement in anew for name in statement.names}
        usable = {}
        for name, ref in (*spec.inputs.items(), *spec.along.items()):
            group = spec.groups[ref.group]
            if owner_of(name) is not None or not states.isdisjoint(group.names):
                continue
            if not replayed & {each.id for each in group.definitions}:
                usable[name] = InputValue(group, as_artifact(group, ref.name), "")
        others = {
            name: entry.value for name, entry in self.ledger.names().items()
            if entry.group is not None and name not in usable and name not in spec.inputs
        }  # fmt: skip
        values = self.ledger.current(usable)
        for name, ref in spec.along.items():  # what definitions keep that share objects with names that are there
            group = spec.groups[ref.group]
            if owner_of(name) is None or values.keys().isdisjoint(group.names):
                continue
            if (state := self._state(group, name)) is not MISSING:
                values[name] = state
            else:
                values = {each: value for each, value in values.items() if each not in group.names}
        return Before(live=live, values=values, others=others)

    def _brings(self, statement: Replay) -> bool:
        """Return whether the user's names hold what a star import that nobody knows has brought; else it runs again."""
        values = results.star_values(statement.source) if is_star_import(statement.source) else {}
        return all(self.ip.user_ns.get(name, MISSING) is value for name, value in values.items())

    # ------------------------------------------------------------ what was executed

    def left(self, task: KernelTask) -> None:
        """Note what was loaded and replayed for a task whose cell is over; its names may hold anything now."""
        ledger = self.ledger
        ledger.code_ran()
        self.know_loaded(task)
        for statement, values in task.replayed:
            bound = {name: task.inputs.value(ref) for name, ref in statement.binds.items()}
            self.know_replayed(statement, content_ids(task.spec, statement), values, bound)
        ledger.sweep()
        ledger.forget(task.spec.writes)
        for statement in task.spec.own:
            self.know_replayed(statement, {})
        flow = self.flow()
        own = [as_replay(each) for each in flow.definitions if each.cell == task.spec.cell and each.kind == "setup"]
        self.kernel.process.executed(map(place_of, own))

    def save(self, task: KernelTask, outcome: Left, shown: Outputs, reasons: tuple[Reason, ...]) -> None:
        """Store what a cell left; it is known from then on."""
        record = self.journal().save(task, outcome, shown, reasons)
        if record is not None:
            self.know(record, {**outcome.values, **outcome.joined})

    def kept(self, task: KernelTask) -> Record:
        """Wait until what a turn left is stored; return its record. NbflowError where it could not be stored."""
        self.settle()
        record = self.done.get(task.spec.key)
        if record is None or record.execution != task.spec.execution:
            raise NbflowError(
                f"what turn {task.spec.turn} of {task.spec.step} left is not stored, so there is no next one",
                step=task.spec.step, cell=task.spec.cell, fix="see what is said above",
            )  # fmt: skip
        return record

    def know_loaded(self, task: KernelTask) -> None:
        """Note inputs that were loaded for a task and are still there; its cell had them in hand."""
        for name, value in task.inputs.loaded.items():
            if self.ip.user_ns.get(name, MISSING) is value:
                ref = task.spec.inputs[name]
                group = task.spec.groups[ref.group]
                self.ledger.bind_value(name, value, InputValue(group, as_artifact(group, ref.name), ""), touched=True)
                self.waiting.drop([name])

    def know_replayed(
        self, statement: Replay, binds: Mapping[str, str], made: Mapping[str, Any] | None = None,
        bound: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Note a definition or set-up statement that was just executed with these data; what it `made` counts."""
        there = [n for n in statement.names if made is None or self.ip.user_ns.get(n, MISSING) is made.get(n)]
        self.ledger.bind_definition(statement.id, there, binds, bound)
        self.waiting.drop(there)

    def absorb(self, run: FlowRun) -> None:
        """Let what a run that has ended executed count here; its names are bound when they are read."""
        if run.runner is None or run.absorbed:
            return
        run.absorbed = True
        reused: set[str] = set()
        last_records: dict[str, Record] = {}  # name -> what left it last in document order, then item order
        for view, record in run.records():
            if view.state in ("done", "reused", "caught", "skipped"):
                self.done[record.key] = record
            if view.state == "reused":
                reused.add(record.execution)
            last_records.update(dict.fromkeys(record.artifacts, record))
        values: dict[str, InputValue] = {}
        for name, last in last_records.items():
            record = run.runner.lookup.newest(name) or last
            # what the user has made of a name stays where nothing of it is new; what is of a step follows the run
            if record.execution not in reused or name not in self.ip.user_ns or self.ledger.step_of(name):
                values.update({name: value for name, value in [(name, values_of(record).get(name))] if value})
        bound_here = sorted(run.bound_since() & values.keys())
        for name in bound_here:
            del values[name]
        if bound_here:
            names = ", ".join(bound_here)
            print(
                f"{names}: bound here since {run.name} began, and kept; `run.data` has what the run left",
                file=sys.stderr,
            )
        self._upstream = None
        if run.runner.changed:
            self._flow = None  # what the run has shown of its steps
        self.waiting.add(values)
        for definition in run.runner.flow.definitions:
            if definition.kind == "definition":
                self.waiting.add_definition(definition)
        self.waiting.bind_small()

    def _adopt(self, step: Step, prepared: Decision, lookup: Lookup) -> Record | None:
        """Return the record of the last execution of a plain cell that the flow needs now, if that still counts."""
        if step.kind != "cell":
            return None
        identity = TaskId(step=step.name)
        journal = self.journal()
        spec = msgspec.structs.replace(lookup.spec(identity, journal.attempt(identity), 0), is_flow=False)
        past = self.scratch.adopt(spec)
        if past is None:
            return None
        trace, values = past
        journal.announce(self.flow(), self.document.text)
        task = KernelTask(spec, self.kernel)
        outcome = task.adopt(values, self.before(task).values, trace)
        record = journal.save(task, outcome, Outputs(), prepared.reasons)
        if record is None:
            record = self._wait_for(task)
        trace.record = record
        self.done[record.key] = record
        self.ledger.bind_record(record, {**outcome.values, **outcome.joined})
        return record

    def _wait_for(self, task: KernelTask) -> Record:
        """Wait for the values of a task that are being stored, and return its record."""
        result: Record | NbflowError | None = None
        for saving, outcome in self.journal().settled():
            if saving.task is task:
                result = outcome
            elif isinstance(outcome, Record):
                self.know(outcome, saving.values)
        if not isinstance(result, Record):
            raise result or NbflowError("a plain cell's values were not stored")
        return result


def as_artifact(group: Group, name: str) -> Manifest:
    """Return as much of the artifact of a name in a stored group as tells which version it is."""
    return Manifest(name=name, type="", group=0, content_id=artifacts.content_id(group, name))


def values_of(record: Record) -> dict[str, InputValue]:
    """Return the names of a record that were stored, with their values as they are read."""
    stored = {name: artifact for name, artifact in record.artifacts.items() if artifact.group >= 0}
    return {name: InputValue(record.groups[artifact.group], artifact, record.step) for name, artifact in stored.items()}


def content_ids(spec: TaskSpec, statement: Replay) -> dict[str, str]:
    """Return the data that a replayed statement reads, each with its content id."""
    return {name: artifacts.content_id(spec.groups[ref.group], ref.name) for name, ref in statement.binds.items()}
