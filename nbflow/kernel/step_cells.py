"""Steps run by hand: what one may see is found and put in place, what it leaves is stored."""

from __future__ import annotations

import ast
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from nbflow.engine import facts
from nbflow.engine.claims import Claim
from nbflow.engine.environments import environment_for, is_met
from nbflow.engine.events import not_held
from nbflow.engine.keys import as_replay
from nbflow.errors import NbflowError, PlanError
from nbflow.flow import findings
from nbflow.flow.definitions import parsed
from nbflow.flow.loops import next_turn, own_tasks
from nbflow.kernel import recorder
from nbflow.kernel.flow_run import FlowRun, say
from nbflow.kernel.screen import RunScreen, StepScreen
from nbflow.kernel.task import KernelTask
from nbflow.kernel.upstream import refuse
from nbflow.kernel.workspace import Knowledge, values_of
from nbflow.model import (
    Finding,
    Flow,
    Manifest,
    Reason,
    Record,
    Step,
    StepOptions,
    TaskFailure,
    TaskId,
    TaskState,
    TaskView,
)
from nbflow.runs.run_options import RunOptions
from nbflow.store.serialize.pickler import Unstorable
from nbflow.task import results
from nbflow.task.context import current
from nbflow.task.main_module import missing_names
from nbflow.task.observe.environment import origin_of
from nbflow.task.observe.lookups import ADDED
from nbflow.task.replay import place_of
from nbflow.tracebacks import failure_of, raised_at, unforeseen, unforeseen_failure

NOT_HERE = (
    "foreach", "join", "retry", "timeout", "memory", "catch", "gpu", "nodes", "env", "pip", "on",
    "secret", "late",
)  # fmt: skip
"""Options that a cell in the kernel cannot honour: its step goes to a process."""

PLAIN = StepOptions()

TOLD = ("reused", "caught", "skipped")
"""States of which a cell says in one line that they are those of its step."""


class Reused(msgspec.Struct, frozen=True):
    """A past execution that stands for a task."""

    task: TaskId
    record: Record
    reasons: tuple[Reason, ...]


class CellDecision(msgspec.Struct, frozen=True):
    """What becomes of a header line's cell: tasks that are reused, then at most one that runs."""

    in_place: bool = False
    step: Step | None = None
    task: TaskId | None = None
    key: str = ""
    reasons: tuple[Reason, ...] = ()
    reuse: tuple[Reused, ...] = ()
    error: Exception | None = None
    skipped: str = ""  # why it does not run, as it would not in a run


class KernelLane:
    """The kernel lane of one session."""

    def __init__(self, known: Knowledge) -> None:
        self.known = known
        self._reasons: tuple[Reason, ...] = ()
        self._claim: Claim | None = None  # of the step with --once that runs
        self._turns: dict[TaskId, Record] = {}  # of the step with --until that runs: those that are over
        self._elsewhere: set[str] = set()
        self._told: list[Finding] = []  # of classes that are no step's
        self._looked_at: Flow | None = None  # whether workers are wanted was asked of it

    def prepare(self) -> bool:
        """Have what workers come from made ready, in the background, where the notebook has steps; whether it has."""
        flow = self.known.flow()
        if flow is self._looked_at:
            return False
        self._looked_at = flow
        if not any(step.kind == "step" for step in flow.steps):
            return False
        executors = self.known.executors()
        threading.Thread(target=executors.prepare, args=(flow,), name="nbflow-prepare", daemon=True).start()
        return True

    # ------------------------------------------------------------ before a step

    def decide(self, step: Step) -> CellDecision:
        """Decide what is to be done with a step whose cell is about to run; errors name the steps to run first."""
        try:
            apart = elsewhere_options(step.options) or step.scope or self._lacks_packages(step)
        except PlanError as error:
            return CellDecision(error=error)
        if apart and not step.options.here:
            return CellDecision(step=step)
        self._turns = {}
        if step.options.once:
            self.known.flush()  # what it left may be on its way into the store: then it has a result
        if step.options.until is not None:
            self.known.hold()  # the notebook may be edited while the turns run
        return self._from(step, own_tasks(step, ())[0])

    def _lacks_packages(self, step: Step) -> bool:
        """Return whether the notebook's metadata asks for packages that this kernel has not."""
        source = environment_for(self.known.flow().notebook, step)
        return source is not None and not is_met(source.environment)

    def _from(self, step: Step, task: TaskId) -> CellDecision:
        """Decide for a step from one of its tasks on: as long as turns can be reused, they are."""
        reused: list[Reused] = []
        while True:
            turns = self._turns | {each.task: each.record for each in reused}
            decision, record = self._ask(step, task, turns)
            decision = msgspec.structs.replace(decision, reuse=tuple(reused))
            if record is None:
                return decision
            reused.append(Reused(task, record, decision.reasons))
            following = next_turn(step, task, record)
            if following is None:
                return msgspec.structs.replace(decision, reuse=tuple(reused))
            task = following

    def _ask(self, step: Step, task: TaskId, turns: Mapping[TaskId, Record]) -> tuple[CellDecision, Record | None]:
        """Return what becomes of a task, and what stands for it, if any; `turns` stand for those before it."""
        upstream = self.known.upstream()
        prepared = upstream.prepare(task, turns)
        if prepared.action not in ("run", "reuse"):
            upstream.retry()
            prepared = upstream.prepare(task, turns)
        decision = CellDecision(step=step, task=task, key=prepared.key, reasons=prepared.reasons)
        if prepared.action == "skip":
            return msgspec.structs.replace(decision, skipped=prepared.reasons[0][1]), None
        if prepared.action not in ("run", "reuse"):
            raise refuse(step, upstream.missing(), prepared)
        record = upstream.lookup.record(task) if prepared.action == "reuse" else None
        if record is not None and step.kind == "step" and (step.options.once or not record.observations.volatile):
            return decision, record
        if record is not None:
            decision = msgspec.structs.replace(decision, reasons=(("fresh", "executed by hand"),))
        return msgspec.structs.replace(decision, in_place=True), None

    def start(self, step: Step, decision: CellDecision, file: str) -> KernelTask:
        """Return the task of a step that is to run here, ready to be entered."""
        self.known.seen.add((step.name, decision.key))
        if not self._turns:
            self.known.tell([*self.known.upstream().early(step), *self._patched(step), *self._destructors(step)])
        identity = decision.task or TaskId(step=step.name)
        task = self.known.task(identity, file)
        self._reasons = decision.reasons
        journal = self.known.journal()
        self._claim = journal.claim(step, task.spec) if step.options.once else None
        journal.announce(self.known.flow(), self.known.document.text)
        journal.tell(identity, "running", attempt=task.spec.attempt, key=decision.key, reasons=decision.reasons)
        return task

    def _patched(self, step: Step) -> Iterator[Finding]:
        """Yield findings for modules that a cell below has changed here already: nothing can put that back."""
        process = self.known.kernel.process
        for each in self.known.flow().definitions:
            below = (
                each.kind == "setup" and each.position > step.position and process.has_run(place_of(as_replay(each)))
            )
            if below and isinstance(parsed(each.source), ast.Assign | ast.AugAssign | ast.Delete):
                yield findings.patched(step, each)

    def _destructors(self, step: Step) -> Iterator[Finding]:
        """Yield findings for classes above a step that have a `__del__`, each once in a kernel."""
        above = [each for each in self.known.flow().definitions if each.position < step.position]
        for finding in findings.destructors(above):
            if finding not in self._told:
                self._told.append(finding)
                yield finding

    def enter(self, task: KernelTask, *, isolated: bool) -> None:
        """Show the step's code the namespace that its task may see; what is shown from here on belongs to it."""
        __tracebackhide__ = True
        task.enter(self.known.before(task), isolated=isolated)
        condition = task.spec.options.condition if not task.spec.turn else None
        if condition is not None and not task.holds(condition):
            task.skip(condition)
            self._reasons = (not_held(condition),)
            print(f"skipped: {self._reasons[0][1]}")
            return
        self.known.recorder.start()

    # ------------------------------------------------------------ reuse

    def reuse(self, step: Step, decision: CellDecision) -> None:
        """Show the past executions' outputs again, and bind their artifacts to be loaded when they are read."""
        began = time.perf_counter()
        journal = self.known.journal()
        journal.announce(self.known.flow(), self.known.document.text)
        for each in decision.reuse:
            record = each.record
            self.known.seen.add((step.name, record.key))
            recorder.show(self.known.ip, record.outputs)
            self.known.done[record.key] = record
            self.known.waiting.add(values_of(record))
            self._turns[each.task] = record
            self.known.tell(record.findings)
            journal.tell(
                each.task, "reused", attempt=journal.attempt(each.task), key=record.key, execution=record.execution,
                reasons=each.reasons, reused_from=record.run,
            )  # fmt: skip
        for order in step.own_definitions:
            self.known.waiting.add_definition(self.known.flow().definitions[order])
        self.known.waiting.bind_small()
        last = decision.reuse[-1]
        where = f"from {last.record.run}, {last.reasons[0][1].partition(', ')[0]}"
        milliseconds = (time.perf_counter() - began) * 1000
        if decision.in_place:
            count = len(decision.reuse)
            print(f"reused {count} turn{'s' if count > 1 else ''} {where} ({milliseconds:.0f} ms)")
            return
        if last.record.until is False:
            self.known.tell([findings.gave_up(step)])
        more = "".join(f"; {what}" for _, what in last.reasons[1:])
        print(f"reused {where} ({milliseconds:.0f} ms){more}; run the cell once more to execute it")

    def skip(self, step: Step, decision: CellDecision) -> None:
        """Skip a step by hand as a run would; its cell says why."""
        journal = self.known.journal()
        journal.announce(self.known.flow(), self.known.document.text)
        identity = decision.task or TaskId(step=step.name)
        journal.tell(identity, "skipped", attempt=journal.attempt(identity), key=decision.key, reasons=decision.reasons)
        print(f"skipped: {decision.skipped}")

    # ------------------------------------------------------------ runs and processes

    def elsewhere(self, step: Step) -> None:
        """Run a step whose options the kernel cannot honour in a process; what it shows is shown here."""
        from nbflow.runs.launch import begin

        self.known.flush()  # what cells above have left may be on its way into the store: the process reads it there
        again = step.name in self._elsewhere
        self._elsewhere.add(step.name)
        run = FlowRun(self.known.ip, self.known.audience)
        alone = (f"cell:{step.cell}",)
        options = RunOptions(store=self.known.store_option, steps=alone, fresh=alone if again else False)
        runner = begin(self.known.whole_flow(), options, self.known.executors(), watch=run.watch)
        run.start(runner)
        many = bool(step.scope)  # the items of a fan-out run at once: their outputs need a place each
        run.wait(RunScreen(self.known.ip, run.name) if many else StepScreen(self.known.ip, run.name, step.name))
        self.known.absorb(run)
        run.show_cards()
        run.finish()
        views = [view for view in run.snapshot.tasks if view.task.step == step.name] if run.snapshot is not None else []
        if ending := _ending(views, alone=not many):
            print(ending)

    # ------------------------------------------------------------ after a step

    def finish(self, task: KernelTask, *, succeeded: bool, error: BaseException | None) -> NbflowError | None:
        """Store what a step's cell left that is over; return what makes it a failure after all."""
        if current.context is not None:
            current.context.close()  # what it still shows belongs to it
        outputs = self.known.recorder.stop()
        if self._claim is not None:
            self.known.journal().end_claim(self._claim, succeeded=succeeded)
            self._claim = None
        outcome = task.leave(succeeded=succeeded)
        self.known.left(task)
        if outcome is None:
            self._tell_failure(task, error)
            return None
        spec = task.spec
        self.known.waiting.drop(outcome.values)
        try:
            results.check_required(  # what no store can hold, steps below find here
                msgspec.structs.replace(spec, required=()),
                {each.name: _unstored(each) for each in outcome.dumped if isinstance(each, Unstorable)},
            )
        except NbflowError as problem:
            self._tell_failure(task, problem)
            return problem
        self.known.tell([*task.stages.findings, *self._overtaken(task)])
        self.known.save(task, outcome, outputs, self._reasons)
        if task.is_last:
            self._show_card(spec.step, spec.options)
        return None

    def follow(self, task: KernelTask) -> CellDecision | None:
        """Return what becomes of a step after a turn that is over and stored; None where it was the last."""
        record = self.known.kept(task)
        step = self.known.flow().step(task.spec.step)  # what the turn has shown of it is known now
        self._turns[task.identity] = record
        following = next_turn(step, task.identity, record)
        if following is not None:
            return self._from(step, following)
        if record.until is False:
            self.known.tell([findings.gave_up(step)])
        return None

    def give_up(self, task: KernelTask, error: BaseException) -> NbflowError | None:
        """Record a step as failed whose cell has ended, but not what it left, because of `error`.

        Return what makes the cell a failure; None where all is being stored already, and only what came after failed.
        """
        spec, knowledge = task.spec, self.known
        what = f"what {spec.step} left could not be kept"
        ends: list[Callable[[], object]] = [
            knowledge.recorder.stop, lambda: task.leave(succeeded=False), lambda: task.aside.restore(()),
            knowledge.ledger.code_ran, knowledge.ledger.sweep, lambda: knowledge.ledger.forget(spec.writes),
        ]  # fmt: skip
        for end in ends:
            with contextlib.suppress(Exception):  # one of them may be what went wrong: the others are still due
                end()
        if current.context is not None:
            current.context.close()
        problem, journal = unforeseen(error, what), knowledge.journal()
        if journal.keeps(spec.execution):
            say(problem)
            return None
        failure = unforeseen_failure(error, what, spec.cell, _kind(error))
        state: TaskState = "cancelled" if failure.kind == "cancelled" else "failed"
        journal.tell(task.identity, state, attempt=spec.attempt, key=spec.key, failure=failure, reasons=self._reasons)
        return problem

    def _overtaken(self, task: KernelTask) -> Iterator[Finding]:
        """Yield findings for files that are not as a run has them: left by a step below, or added to once more."""
        places = {step.name: step for step in self.known.flow().steps}
        step = places.get(task.spec.step)
        if step is None:
            return
        writers: dict[str, Step] = {}  # of each file the last one here
        for record in sorted(self.known.done.values(), key=lambda record: record.order):
            if record.step in places:
                writers |= dict.fromkeys(record.observations.written, places[record.step])
        written = task.observations.written
        added = {name for name, content in written.items() if content.startswith(ADDED)}
        mine = {name for record in self._turns.values() for name in record.observations.written}
        again = {name for name in added - mine if writers.get(name) is step}
        if again:
            yield findings.added_again(step, again)
        # modules are imported once, and watched for themselves
        read = {name for name in task.observations.files.keys() - written.keys() if not name.endswith(".py")}
        below = {name: writers[name] for name in read & writers.keys() if writers[name].position > step.position}
        for writer in dict.fromkeys(below.values()):
            yield findings.overtaken(step, writer, [name for name in below if below[name] is writer])

    def _show_card(self, step: str, options: StepOptions) -> None:
        """Show the card of what has just run below its cell, with `--card`."""
        if not options.card:
            return
        from nbflow.runs.client import Run

        self.known.flush()  # the card tells what was stored
        journal = self.known.journal()
        past = Run(journal.run, store=journal.store.url)
        self.known.ip.display_pub.publish(past[step].card.bundle(), {})

    def _tell_failure(self, task: KernelTask, error: BaseException | None) -> None:
        spec = task.spec
        failure = TaskFailure(type="Interrupted", message="the cell did not end", cell=spec.cell, kind="cancelled")
        if error is not None:
            failure = failure_of(error, (spec.code_name,), spec.cell, kind=_kind(error))
            self._learn_asked(spec.step, error)
        state: TaskState = "cancelled" if failure.kind == "cancelled" else "failed"
        self.known.failed.add(spec.step)
        self.known.journal().tell(
            task.identity, state, attempt=spec.attempt, key=spec.key, failure=failure,
            elapsed=task.stages.elapsed, reasons=self._reasons,
        )  # fmt: skip

    def _learn_asked(self, name: str, error: BaseException) -> None:
        """Give a step, from now on, the names of cells above that it has failed for not finding."""
        flow = self.known.flow()
        step = flow.step(name)
        names = findings.unserved(flow, step, missing_names(error))
        if names:
            facts.remember_asked(self.known.store(), step, names)
            self.known.understand_anew()
            self.known.tell([findings.served_late(step, names)])


def _kind(error: BaseException) -> str:
    """Return the kind of failure that a cell's error is.

    An interrupt cancels the step, wherever it comes from: a kernel cannot tell who sent it. One that the notebook's own
    code raises, with no signal behind it, is a failure like any other; libraries raise it once a signal has come.
    """
    if not isinstance(error, KeyboardInterrupt):
        return "error"
    place = raised_at(error)
    return "error" if place and origin_of(place) in {"local", "none"} else "cancelled"


def _ending(views: Sequence[TaskView], *, alone: bool) -> str:
    """Return the line that says how a step in a process ended, where its outputs do not.

    Of a fan-out the table says what was caught and what was skipped.
    """
    last = next((view for view in reversed(views) if view.state in TOLD), None)
    if last is None or (last.state != "reused" and not alone):
        return ""
    if last.state == "caught" and last.failure is not None:
        return f"caught: {last.failure.type}: {last.failure.message}"
    why = last.reasons[0][1] if last.reasons else ""
    if last.state == "skipped":
        return f"skipped: {why}"
    age, _, origin = why.partition(", ")
    return f"reused {origin}, {age}; run the cell once more to execute it"


def _unstored(each: Unstorable) -> Manifest:
    return Manifest(name=each.name, type=each.type, group=-1, error=each.reason)


def elsewhere_options(options: StepOptions) -> list[str]:
    """Return those of a step's options that a cell in the kernel cannot honour."""
    if options == PLAIN:
        return []
    return [name for name in NOT_HERE if getattr(options, name) != getattr(PLAIN, name)]
