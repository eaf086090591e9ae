"""Performs what `state.apply` decides: looks up, submits, writes events and logs. The only threads of a run."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import msgspec

from nbflow.engine import claims, events, facts, state
from nbflow.engine.commits import Commits, TooEarly
from nbflow.engine.lookup import Lookup, MemberFailure
from nbflow.engine.resources import Room
from nbflow.engine.reuse import has_effect
from nbflow.engine.threads import Carriers
from nbflow.errors import DamagedError, NbflowError
from nbflow.flow import findings
from nbflow.flow.options import tries_again
from nbflow.flow.reach import folded
from nbflow.flow.spans import steps_of_rows
from nbflow.model import (
    SETTLED,
    Ended,
    FindingFound,
    Flow,
    Halted,
    HeldUp,
    Noticed,
    Output,
    Record,
    RunEnded,
    RunEvent,
    RunStarted,
    RunStatus,
    Snapshot,
    Started,
    TaskChanged,
    TaskEvent,
    TaskFailure,
    TaskId,
    TaskOutput,
    TaskResult,
    TaskSpec,
)
from nbflow.plugins import Executor, Handle, SupportsBatches, SupportsFiles, SupportsGates, SupportsLog, SupportsPush
from nbflow.store import records
from nbflow.store.artifacts import lost_of
from nbflow.store.flows import RunPlace, StoredFlow
from nbflow.task.observe.environment import ABSENT

Spent = Mapping[str, tuple[str, ...]]
Understand = Callable[[facts.Known, Spent], Flow]
"""Gives the flow as it is with what steps turned out to be, and those that have had an effect in this run."""

Watch = Callable[[Snapshot, RunEvent | TaskOutput | None], None]
DRAW_EVERY = 0.1
BEAT_EVERY = 5.0
HEALS = 10
"""Times that a run makes again what its store has lost, before it fails instead."""
GRACE = 3.0
LOGGED = ("running", "done", "failed", "caught")
"""States that name the execution whose log there is."""


class AllEnded(msgspec.Struct, frozen=True):
    """Nothing runs any more while the flow waits to be understood anew."""


class AttemptEvent(msgspec.Struct, frozen=True):
    """An event of a running attempt, on its way from its thread to the loop."""

    task: TaskId
    event: TaskEvent | AllEnded


class Runner:
    """One run: `run()` blocks until it has ended; `cancel()` may be called from any thread."""

    def __init__(
        self,
        flow: Flow,
        lookup: Lookup,
        home: StoredFlow,
        started: RunStarted,
        executor_of: Callable[[str | None], Executor],
        slots: int,
        watch: Watch | None = None,
        understand: Understand | None = None,
        room: Room = Room(),  # noqa: B008  # frozen
        places: Mapping[str, int] | None = None,
    ) -> None:
        """Begin a run in `home`, the flow in the store; `places` are the cores of other places that steps name."""
        self.place = RunPlace(flow.name, home.folder, started.run)
        self.flow = flow
        self.room = room
        self.places = places or {}
        self.understand = understand
        self.changed: dict[str, frozenset[str]] = {}  # what steps turned out to change in place
        self.asked: dict[str, frozenset[str]] = {}  # what they turned out to read
        self.unstored: dict[str, dict[str, str]] = {}  # what others need and steps could not store
        self.spent: dict[str, tuple[str, ...]] = {}  # steps that had an effect, with those that they ran together with
        self.revised: set[TaskId] = set()
        self.told: dict[TaskId, tuple[str, str]] = {}  # the last state that was written, with its execution
        self.held: list[tuple[TaskId, TaskResult]] = []
        self.healed = 0
        self.draining = False  # until what still runs has ended, nothing new is started
        self.lookup = lookup
        self.commits = Commits(lookup, self.is_settled)
        self.started = started
        self.executor_of = executor_of
        self.watch = watch
        self.inbox: queue.SimpleQueue[events.Event | AttemptEvent] = queue.SimpleQueue()
        self.handles: dict[TaskId, Handle] = {}
        self.carriers = Carriers("nbflow task")
        self.logs: dict[TaskId, records.LogWriter] = {}
        self.claims: dict[TaskId, claims.Claim] = {}  # of tasks with --once that run
        self.findings: list[FindingFound] = []
        self.timers: list[threading.Timer] = []
        self.writer_id = f"{started.host}-{started.pid}"
        self.writer = records.EventWriter(lookup.store, home.folder, started.run, self.writer_id)
        self.drawn_at = 0.0
        self.behind = False  # something has changed that was not drawn yet
        self.slots = slots
        self.batches: dict[int, bool] = {}
        self.senders: dict[int, bool] = {}
        self.pushes: dict[type, bool] = {}
        self.log_keepers: dict[type, bool] = {}
        self.state = self.new_state()
        self.drawn = state.snapshot(self.state)

    def new_state(self) -> state.RunState:
        """Return the state of the run before any of its tasks is known."""
        flow, started = self.flow, self.started
        return state.RunState(
            run=started.run, flow=flow.name, order={step.name: step.order for step in flow.steps},
            labels={step.name: step.label for step in flow.steps}, folded=folded(flow), rows=steps_of_rows(flow.steps),
            cells=started.cells, loops=started.loops,
            options={step.name: step.options for step in flow.steps}, slots=self.slots, started_at=started.at,
            edges=flow.edges, parameters=started.parameters, tags=started.tags, room=self.room,
            verified=started.verified,
            places=self.places,
        )  # fmt: skip

    # ------------------------------------------------------------ outside

    def cancel(self, reason: str = "cancelled") -> None:
        """Ask the run to stop; returns at once."""
        self.inbox.put(events.Cancel(time.time(), reason))

    def run(self) -> RunStatus:
        """Run to the end; StoreError when the run's own events cannot be written."""
        records.write_notebook(self.lookup.store, self.place.folder, self.started.run, self.flow.notebook.document)
        self.tell(self.started)
        for finding in self.flow.findings:
            self.tell(FindingFound(finding=finding, at=time.time()))
        self.writer.flush()
        beat = _Heartbeat(self)
        beat.start()
        try:
            self.handle(events.Added(self.lookup.first(), time.time()))
            while self.state.tasks and (self.state.status == "running" or self.begins_anew):
                self.take(self.next_event())
            for finding in self.commits.learn(self.flow):
                self.tell(FindingFound(finding=finding, at=time.time()))
        finally:
            beat.stop()
            self.close()
        return self.state.status if self.state.tasks else "done"

    def close(self) -> None:
        """End what still runs, write what is left."""
        for timer in self.timers:
            timer.cancel()
        for handle in self.handles.values():
            handle.cancel(0)
        for log in self.logs.values():
            log.close()
        self.carriers.close()
        self.commits.close()
        status = self.state.status if self.state.status != "running" or not self.state.tasks else "failed"
        status = "done" if status == "running" else status
        self.tell(RunEnded(status=status, at=time.time(), error=self.state.error))
        self.writer.close()
        self.draw(None, force=True)

    # ------------------------------------------------------------ the loop

    def next_event(self) -> events.Event | AttemptEvent:
        """Return the next event from the inbox; draw what the last drawing left out once nothing comes."""
        if self.behind:
            try:
                return self.inbox.get(timeout=DRAW_EVERY)
            except queue.Empty:
                self.draw(None, force=True)
        return self.inbox.get()

    def take(self, event: events.Event | AttemptEvent) -> None:
        """Take one event from the inbox, and do all that follows from it."""
        if not isinstance(event, AttemptEvent):
            self.handle(event)
            return
        match event.event:
            case Started(pid=pid, at=at, step=""):
                self.handle(events.Began(event.task, at, pid))
            case Output(output=output, step=step):
                task = msgspec.structs.replace(event.task, step=step or event.task.step)
                if not self.keeps_log(event.task):
                    self.log(task, self.state.tasks[event.task].attempt).put(event.event)
                self.draw(TaskOutput(task=task, output=output))
            case HeldUp(reason=reason):
                self.handle(events.Delayed(event.task, time.time(), reason))
            case Noticed(finding=finding):
                self.tell(FindingFound(finding=finding, at=time.time()))
            case Halted() as halted:
                self.halt(event.task, halted)
            case Ended(result=result):
                self.ended(event.task, result)
            case AllEnded():
                if not self.handles:
                    self.rebuild()
        self.release()

    def handle(self, event: events.Event) -> None:
        """Apply an event to the state, and perform the actions that follow."""
        todo = [event]
        while todo:
            self.state, actions = state.apply(self.state, todo.pop(0))
            for action in actions:
                todo.extend(self.perform(action))

    def perform(self, action: events.Action) -> Iterable[events.Event]:
        """Perform one action; return the events that answer it at once."""
        match action:
            case events.Prepare(task=task):
                return self.prepare(task)
            case events.Submit(task=task, attempt=attempt, devices=devices):
                return self.submit(task, attempt, devices)
            case events.Abort(task=task):
                handle = self.handles.get(task)
                if handle is not None:
                    handle.cancel(GRACE)
            case events.Delay(task=task, seconds=seconds):
                if seconds <= 0:
                    return (events.Due(task, time.time()),)
                timer = threading.Timer(seconds, lambda: self.inbox.put(events.Due(task, time.time())))
                timer.daemon = True
                self.timers.append(timer)
                timer.start()
            case events.Tell(event=event):
                self.tell(event)
            case events.End():
                pass
        return ()

    def prepare(self, task: TaskId) -> Iterable[events.Event]:
        """Return what the look-up says of a task; a broken store fails the task, not the loop."""
        try:
            prepared = self.lookup.prepare(task)
        except NbflowError as error:
            failure = TaskFailure(type=type(error).__name__, message=error.message, fix=error.fix, kind="lost")
            prepared = events.Decision(task, time.time(), "fail", failure=failure)
        if prepared.action in ("skip", "fail") and not prepared.execution:
            self.lookup.settle(task, None)
        if task.part == "last" and prepared.action == "settle":
            record = self.lookup.record(task)
            if record is not None and record.until is False:
                self.tell(FindingFound(finding=findings.gave_up(self.flow.step(task.step)), at=time.time()))
        if prepared.action == "skip" and task.part == "list":
            return (*self.unfold(task), prepared)
        if prepared.action not in ("reuse", "done"):
            return (prepared,)
        record = self.lookup.record(task)
        if prepared.action == "reuse" and record is not None:
            self.commits.note_reused(task, record)
            known = [each.finding for each in self.findings]
            for finding in record.findings:
                if finding not in known:
                    self.tell(FindingFound(finding=finding, at=time.time()))
        self.discover(task, record)
        return (*self.unfold(task), prepared)

    def unfold(self, task: TaskId) -> tuple[events.Event, ...]:
        """Return the tasks that are known now that this one has a record."""
        nodes = self.lookup.unfold(task)
        return (events.Added(nodes, time.time()),) if nodes else ()

    def submit(self, task: TaskId, attempt: int, devices: tuple[str, ...] = ()) -> Iterable[events.Event]:
        """Start an attempt, and let a thread carry its events here."""
        if self.draining:
            return ()
        step = self.flow.step(task.step)
        alone = len(self.state.running) <= 1 and not self.state.queue
        threads = int(step.options.cpu or 0) or (
            0 if alone else max(1, self.state.slots // max(1, len(self.state.running)))
        )
        home = records.run_folder(self.place.folder, self.place.run)
        try:
            spec = msgspec.structs.replace(self.lookup.spec(task, attempt, threads), home=home, devices=devices)
        except NbflowError as error:  # the datastore does not take what the task's environment is made from
            return self.not_begun(task, error)
        if step.options.once and not task.part:
            if lost_of(self.lookup.store, spec.groups, verify=True) and self.heals(task):  # before it has begun
                return ()
            try:
                claim = claims.claim(self.lookup.store, spec, self.place, again=step.name in self.lookup.facts.again)
            except NbflowError as error:
                return self.not_begun(task, error)
            if claim.execution != spec.execution:  # whoever made it executes the task, and this one takes the result
                self.handles[task] = awaited = claims.Awaited(self.lookup.store, step, claim)
                self.follow(task, awaited)
                return ()
            self.claims[task] = claim
        try:
            executor = self.executor_of(step.options.on)
            spec = self.gated(task, executor, self.with_files(task, executor, spec))
            handle = executor.submit(spec)
        except NbflowError as error:
            return self.not_begun(task, error)
        self.handles[task] = handle
        self.follow(task, handle)
        return self.batched(task, executor, spec) if spec.items and not task.part else ()

    def with_files(self, task: TaskId, executor: Executor, spec: TaskSpec) -> TaskSpec:
        """Return a task with the files that it is known to read, where it goes to a place that does not see them."""
        if id(executor) not in self.senders:
            self.senders[id(executor)] = isinstance(executor, SupportsFiles)  # slow: not for each task
        if not self.senders[id(executor)] or not cast("SupportsFiles", executor).wants_files(spec.folder):
            return spec
        return msgspec.structs.replace(spec, is_apart=True, reads=self.lookup.known_files(task))

    def not_begun(self, task: TaskId, error: NbflowError) -> Iterable[events.Event]:
        """Return the end of a task that could not be started, as an event."""
        failure = TaskFailure(type=type(error).__name__, message=error.message, kind="lost", fix=error.fix)
        self.lookup.settle(task, None)
        return (events.Finished(task, time.time(), 0.0, failure=failure),)

    def batched(self, task: TaskId, executor: Executor, spec: TaskSpec) -> Iterable[events.Event]:
        """Return an event where more tasks like one that was submitted are wanted ahead of time, or fewer."""
        if id(executor) not in self.batches:
            self.batches[id(executor)] = isinstance(executor, SupportsBatches)  # slow: not for each task
        ahead = cast("SupportsBatches", executor).ahead(spec) if self.batches[id(executor)] else 1
        same = ahead == self.state.ahead.get(task.step, 1)
        return () if same else (events.Batched(task.step, ahead, time.time()),)

    def follow(self, task: TaskId, handle: Handle) -> None:
        """Send every event of a handle to the inbox: pushed by the handle itself, or carried by a thread."""
        kind = type(handle)
        if kind not in self.pushes:
            self.pushes[kind] = isinstance(handle, SupportsPush)  # slow: not for each task
        if self.pushes[kind]:
            put = self.inbox.put
            cast("SupportsPush", handle).push(lambda event: put(AttemptEvent(task, event)))
        else:
            self.carriers.run(partial(self.carry, task, handle))

    def carry(self, task: TaskId, handle: Handle) -> None:
        """Carry every event of a handle into the inbox; end the attempt where the handle breaks off."""
        complete = False
        try:
            for event in handle.events():
                complete = complete or isinstance(event, Ended)
                self.inbox.put(AttemptEvent(task, event))
        finally:
            if not complete:
                failure = TaskFailure(type="WorkerLost", message="the executor broke off without a result", kind="lost")
                self.inbox.put(AttemptEvent(task, Ended(result=TaskResult(failure=failure))))

    def ended(self, task: TaskId, result: TaskResult) -> None:
        """Take an attempt's result: the look-up learns of its record, and the state moves on."""
        self.handles.pop(task, None)
        self.commits.halts.pop(task, None)
        for member in self.lookup.members(task):
            log = self.logs.pop(member, None)
            if log is not None:
                log.close()
        claim = self.claims.pop(task, None)
        if claim is not None:
            claims.end(self.lookup.store, claim, "failed" if result.record is None else "done")
        for each in (result, *result.then):
            for finding in each.findings:
                self.tell(FindingFound(finding=finding, at=time.time()))
            if each.record is not None:
                self.lookup.keep(each.record)
                self.commits.note(task, each.record)
                if has_effect(each.record.observations):
                    self.spent[each.record.step] = self.flow.step(each.record.step).together
                if unstored := records.unstored(each.record.artifacts):
                    self.unstored.setdefault(each.record.step, {}).update(unstored)
        for member, each in zip(self.lookup.members(task)[1:], result.then, strict=False):
            if each.failure is not None:
                failure = findings.with_way_out(self.flow.step(member.step), each.failure)
                execution = self.lookup.execution(member, self.state.tasks[task].attempt)
                self.lookup.fail(member, MemberFailure(failure, execution, each.elapsed))
        if self.serves(task, result) or self.unites(task, result):
            return
        self.discover(task, result.record)
        self.run_again(self.commits.too_early(task))
        if result.failure is not None and result.failure.type == DamagedError.__name__ and self.heals(task, result):
            return
        if self.draining:
            if not self.handles:
                self.rebuild()
            return
        # A step above that has not settled may turn out to change what this one has read. It would then have failed on
        # the wrong value, and runs again: so its failure is held until those steps have settled.
        if self.comes_too_soon(task, result):
            self.held.append((task, result))
            self.handle(events.HeldAttempt(task, time.time()))
            return
        self.conclude(task, result)
        results, self.held = self.held, []
        for other, later in results:
            if self.draining or self.comes_too_soon(other, later):
                self.held.append((other, later))
            elif (missed := self.commits.missed(other, self.began(other), later.observations)) is not None:
                self.run_again([missed])
            else:
                self.conclude(other, later)

    def comes_too_soon(self, task: TaskId, result: TaskResult) -> bool:
        """Return whether a failure may be one of what steps above, which have not settled, have not left yet."""
        if result.failure is None:
            return False
        missing = any(identity == ABSENT for identity in result.observations.files.values())
        is_early = missing and next(self.commits.open_above(task), None) is not None
        return is_early or self.lookup.early(task, self.is_settled)

    def began(self, task: TaskId) -> float:
        """Return when a task's attempt began."""
        return self.state.tasks[task].started_at or self.started.at

    def conclude(self, task: TaskId, result: TaskResult) -> None:
        """Settle a task with an attempt's result that counts, and move the state on."""
        record, failure = result.record, result.failure
        if failure is not None:
            failure = findings.with_way_out(self.flow.step(task.step), failure)
        if record is None and failure is not None:
            record = self.caught(task, failure)
        if record is not None:
            self.lookup.settle(task, record)
            for event in self.unfold(task):
                self.handle(event)
        self.handle(events.Finished(
            task, time.time(), result.elapsed, execution=record.execution if record else "",
                skipped=record.skipped if record else None, failure=failure
        ))  # fmt: skip

    # ------------------------------------------------------------ what turns out on the way

    def is_settled(self, task: TaskId) -> bool:
        """Return whether a task, or all that a gate stands for, has settled."""
        entry = self.state.tasks.get(task)
        return entry is not None and entry.state in SETTLED

    def discover(self, task: TaskId, record: Record | None) -> None:
        """Run readers below again where a step changed inputs in place that nobody foresaw.

        What runs and does not read them goes on to its end first; then the flow is understood anew.
        """
        if record is None or self.understand is None or self.state.cancelled is not None:
            return
        step = self.flow.step(task.step)
        names = findings.unforeseen(self.flow, step, record) - self.changed.get(step.name, frozenset())
        if not names or task.part:
            return
        self.changed[step.name] = names | self.changed.get(step.name, frozenset())
        facts.remember_changes(self.lookup.store, step, self.changed[step.name])
        for finding in findings.discovered(step, names - self.unstored.get(step.name, {}).keys(), record):
            self.tell(FindingFound(finding=finding, at=time.time()))
        # The flow is not changed under tasks that run. Those on the wrong value are ended, the others may finish, and
        # once nothing runs `rebuild` begins again with what is known by then.
        affected = {other for other in self.state.tasks if not other.part and self.lookup.affected(other, step, names)}
        self.revised |= affected
        for other in affected & self.handles.keys():
            self.handles[other].cancel(0.5)
        self.drain(task)

    def serves(self, task: TaskId, result: TaskResult) -> bool:
        """Return whether a task runs again, given the names of cells above that it has looked for; begin it if so.

        A cell that had an effect on anything else is not executed twice: it is given them from the next run on.
        """
        results = (result, *result.then)
        asking = next((each for each in results if each.asked), None)
        if asking is None or self.understand is None or self.state.cancelled is not None:
            return False
        step = self.flow.step(self.lookup.members(task)[results.index(asking)].step)
        known = self.asked.get(step.name, frozenset())
        names = findings.unserved(self.flow, step, asking.asked) - known
        if not names:
            return False
        facts.remember_asked(self.lookup.store, step, names)
        if any(has_effect(each.observations) for each in results) or step.options.once:
            self.tell(FindingFound(finding=findings.served_late(step, names), at=time.time()))
            return False
        self.asked[step.name] = known | names
        self.drain(task)
        return True

    def run_again(self, early: Sequence[TooEarly]) -> None:
        """Run steps again that read files before steps above had written them, once those have ended."""
        if not early or self.understand is None or self.state.cancelled is not None:
            return
        self.commits.take_back(early)
        for each in early:
            self.tell(FindingFound(finding=findings.too_early(each.below, each.above, each.names), at=time.time()))
            self.revised |= {task for task in self.state.tasks if task.step == each.below.name}
        self.drain(next(task for task in self.state.tasks if task.step == early[0].below.name))

    # ------------------------------------------------------------ what waits before it does anything outside

    def gated(self, task: TaskId, executor: Executor, spec: TaskSpec) -> TaskSpec:
        """Return a task's spec with the gate that it waits for before it does anything outside, if it has to."""
        if self.understand is None or not isinstance(executor, SupportsGates) or not executor.waits(spec):
            return spec
        gate = self.commits.gate(task, spec)
        then = tuple(msgspec.structs.replace(each, gate=gate) for each in spec.then)
        return msgspec.structs.replace(spec, gate=gate, then=then) if gate else spec

    def halt(self, task: TaskId, halted: Halted) -> None:
        """Take down that a task waits; one that runs again anyway is ended."""
        reason = self.commits.halt(task, halted)
        if self.draining:
            self.handles[task].cancel(0.5)
        elif reason:
            self.handle(events.Paused(task, time.time(), reason))

    def release(self) -> None:
        """Let tasks go on that wait for nobody any more; one that has read what was written since runs again."""
        for task in [*self.commits.halts]:
            if self.draining or task not in self.handles or not self.commits.is_free(task):
                continue
            if (early := self.commits.overtaken(task, self.began(task))) is not None:
                self.run_again([early])
            else:
                self.commits.release(task)
                if task in self.state.paused:
                    self.handle(events.Resumed(task, time.time()))

    def unites(self, task: TaskId, result: TaskResult) -> bool:
        """Return whether a task runs again, together with steps that need what it cannot store; begin it if so.

        A cell that had an effect on anything else is not executed twice: it fails, and what it could not store is
        known from the next run on.
        """
        failed = next((each for each in (result, *result.then) if each.unstored), None)
        if failed is None or self.understand is None or self.state.cancelled is not None:
            return False
        at = (result, *result.then).index(failed)
        step = self.flow.step(self.lookup.members(task)[at].step)
        facts.remember_unstored(self.lookup.store, step, failed.unstored)
        if step.name in self.unstored or any(has_effect(each.observations) for each in (result, *result.then)):
            return False
        self.unstored[step.name] = failed.unstored
        if not self.understood().step(step.name).together:
            return False
        self.drain(task)
        return True

    def heals(self, task: TaskId, result: TaskResult | None = None) -> bool:
        """Return whether what made the values that a task lacks runs again, and then the task; begin it if so.

        A store loses bytes to whoever cleans it up, and to disks; that is nothing that a step could be blamed for. A
        cell that has begun (items of a join are read in it) runs again only where it had no effect on anything else.
        """
        is_running = self.state.tasks[task].state == "running"
        once = self.flow.step(task.step).options.once
        if is_running and (once or result is None or has_effect(result.observations)):
            return False
        if self.state.cancelled is not None or self.healed >= HEALS:
            return False
        if not self.lookup.drop_lost():
            return False
        self.healed += 1
        self.drain(task)
        return True

    @property
    def begins_anew(self) -> bool:
        """Whether the flow is about to be understood anew: the last tasks that ended have shown something of it."""
        return self.draining and self.state.cancelled is None

    def drain(self, task: TaskId) -> None:
        """Start nothing new; once what runs has ended, because of this task, the flow is understood anew."""
        self.draining = True
        for other in self.commits.halts.keys() & self.handles.keys():  # they would wait for what does not start
            self.revised.add(other)
            self.handles[other].cancel(0.5)
        if not self.handles:
            self.inbox.put(AttemptEvent(task, AllEnded()))

    def understood(self) -> Flow:
        """Return the flow with all that has turned out of it."""
        assert self.understand is not None  # noqa: S101
        found = facts.Known(
            changed=self.changed, asked=self.asked, unstored=self.unstored, seen=self.commits.learnt
        )  # fmt: skip
        return self.understand(found, self.spent)

    def rebuild(self) -> None:
        """Understand the flow anew; what has run is found again by its key."""
        if not self.draining:
            return
        if self.understand is not None:
            for name in self.spent.keys() & self.unstored.keys():
                facts.remember_unstored(self.lookup.store, self.flow.step(name), self.unstored[name])
            told = [each.finding for each in self.findings]
            self.flow = self.understood()
            for finding in self.flow.findings:
                if finding.code in ("together", "unserializable") and finding not in told:
                    self.tell(FindingFound(finding=finding, at=time.time()))
        self.draining = False
        self.held.clear()
        self.commits.forget()
        self.lookup.revise(self.flow, self.revised)
        self.state = self.new_state()
        self.handle(events.Added(self.lookup.first(), time.time()))

    def caught(self, task: TaskId, failure: TaskFailure) -> Record | None:
        """Return what `--catch` leaves of a task whose process could not say it; None where nothing is caught."""
        step = self.flow.step(task.step)
        entry = self.state.tasks[task]
        if (
            step.options.catch is None
            or task.part
            or failure.kind == "cancelled"
            or tries_again(step.options, entry.attempt, failure)
        ):
            return None
        return self.lookup.caught(task, entry.attempt, failure)

    def keeps_log(self, task: TaskId) -> bool:
        """Return whether a task writes its log itself, where it runs."""
        handle = self.handles.get(task)
        kind = type(handle)
        if kind not in self.log_keepers:
            self.log_keepers[kind] = isinstance(handle, SupportsLog)  # slow: not for each piece
        return self.log_keepers[kind] and cast("SupportsLog", handle).keeps_log

    def log(self, task: TaskId, attempt: int) -> records.LogWriter:
        """Return the writer of the output of a task's attempt."""
        if task not in self.logs:
            execution = self.lookup.execution(task, attempt)
            self.logs[task] = records.LogWriter(self.lookup.store, self.place.folder, self.started.run, execution)
        return self.logs[task]

    # ------------------------------------------------------------ telling

    def tell(self, event: RunEvent) -> None:
        """Write an event to the run and show it."""
        if isinstance(event, FindingFound):
            self.findings.append(event)
        if (
            isinstance(event, TaskChanged)
            and event.state in ("failed", "cancelled", "skipped")
            and event.task.turn is None
            and not (event.state == "skipped" and event.execution)
        ):
            self.lookup.settle(event.task, None)
        if isinstance(event, TaskChanged) and event.state in LOGGED and not event.execution:
            event = _with_execution(event, self.lookup)
        if isinstance(event, TaskChanged):
            mark = (event.state, event.execution)
            if event.state == "done" and self.told.get(event.task) == mark:
                return  # found again when the flow was understood anew
            self.told[event.task] = mark
        self.writer.put(event)
        self.draw(event)

    def draw(self, event: RunEvent | TaskOutput | None, *, force: bool = False) -> None:
        """Show the event, with a snapshot at most ten times a second."""
        if self.watch is None:
            return
        now = time.monotonic()
        if force or now - self.drawn_at >= DRAW_EVERY or self.state.status != "running":
            self.drawn = state.snapshot(self.state, tuple(each.finding for each in self.findings))
            self.drawn_at = now
            self.behind = False
        else:
            self.behind = True
        self.watch(self.drawn, event)


def _with_execution(event: TaskChanged, lookup: Lookup) -> TaskChanged:
    return msgspec.structs.replace(event, execution=lookup.execution(event.task, event.attempt))


class _Heartbeat(threading.Thread):
    """Writes the run's heartbeat, and turns a cancel mark in the store into a cancel."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(daemon=True, name="nbflow heartbeat")
        self.runner = runner
        self.done = threading.Event()

    def run(self) -> None:
        store, (_, folder, run) = self.runner.lookup.store, self.runner.place
        beaten = 0.0
        while True:
            try:
                if time.monotonic() - beaten >= BEAT_EVERY:
                    records.beat(store, folder, run, self.runner.writer_id)
                    beaten = time.monotonic()
                if records.cancel_requested(store, folder, run) is not None:
                    self.runner.cancel("cancelled from outside")
                    return
            except NbflowError:
                beaten = 0.0  # the store is away for a moment: the next beat tries again
            if self.done.wait(1.0):
                return

    def stop(self) -> None:
        """End the thread."""
        self.done.set()
