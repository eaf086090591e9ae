"""Which execution stands for each step above the one that is run by hand, and which steps have to run first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from nbflow.engine import reuse
from nbflow.engine.events import Decision
from nbflow.engine.lookup import Lookup, RunFacts
from nbflow.errors import NbflowError, PlanError
from nbflow.flow import findings
from nbflow.flow.loops import Loops, settled_id
from nbflow.model import Change, Finding, Flow, Record, Step, TaskId
from nbflow.plugins import Executor
from nbflow.runs.parameters import Wish, evaluate
from nbflow.store.location import Store

MOST_ROUNDS = 100_000
"""Turns and waits of one task after which something is wrong with us."""


class MissingStep(msgspec.Struct, frozen=True):
    """A step above that has to run first, and why."""

    step: str
    label: str
    why: str


Adopt = Callable[[Step, Decision, Lookup], Record | None]


class KernelState(msgspec.Struct, frozen=True):
    """What a kernel has executed so far: shared with it, so always as it is now."""

    executed: Mapping[str, Record]  # key -> the newest execution, of this kernel or of a run that it started
    failed: AbstractSet[str]  # steps whose last execution by hand has failed or was broken off
    variables: Callable[[], Mapping[str, str]]  # the environment as it was before any cell set one
    seen: AbstractSet[tuple[str, str]]  # (step, key) that ran or was reused by hand: the next time it is executed
    has: Callable[[Record, str], bool]  # whether a name holds what an execution left, which no store can hold


class HandLookup(Lookup):
    """A look-up that asks this kernel's executions before the store."""

    known: KernelState
    target: str = ""  # the step that is to run now
    _is_target = False  # it is the one that is asked for

    def know(self, known: KernelState) -> None:
        """Take what the kernel has: this process is also that of the steps whose values no store can hold."""
        self.known = known
        self._above = msgspec.structs.replace(self._above, held=self._finds)

    def prepare(self, task: TaskId) -> Decision:
        """Return what to do with a task whose needs have settled, and why."""
        self._is_target = task.step == self.target
        return super().prepare(task)

    def _finds(self, record: Record, name: str) -> bool:
        """Return whether a step finds what an execution left; one that has run had it then."""
        return not self._is_target or self.known.has(record, name)

    def choose(self, task: TaskId, key: str) -> reuse.Choice:
        """Return the past execution that stands for a task, if any."""
        if task.step == self.target and (task.step, key) in self.known.seen:
            if key in self.known.executed:
                self._seen_places[key] = self.known.executed[key].order[0]
            return reuse.Choice(None, (("fresh", "executed by hand once more"),))
        record = self.known.executed.get(key)
        if record is not None and task.step != self.target:
            return reuse.Choice(record, ())
        return super().choose(task, key)

    def changes(self, task: TaskId) -> tuple[Change, ...]:
        """Return what differs from a task's last execution, or that it failed."""
        return (Change(code="failed", what="it failed"),) if task.step in self.known.failed else super().changes(task)

    def previous(self, task: TaskId) -> Record | None:
        """Return the last execution of the task in this kernel, else that of the newest run."""
        executed = self.known.executed.values()
        mine = [record for record in executed if (record.step, record.turn) == (task.step, task.turn)]
        return max(mine, key=lambda record: record.order) if mine else super().previous(task)


class Upstream:
    """One version of the flow and all that was executed; what stands for a task is worked out once."""

    def __init__(
        self,
        flow: Flow,
        store: Store,
        run: str,
        known: KernelState,
        adopt: Adopt,
        executor_of: Callable[[str | None], Executor],
    ) -> None:
        self.flow = flow
        self.store = store
        self._facts = RunFacts(run=run, store_url=store.url, session=True, variables=known.variables)
        self._known = known
        self._adopt = adopt
        self._executor_of = executor_of
        self._steps = {step.name: step for step in flow.steps}
        self._standing: dict[TaskId, Record | None] = {}
        self._missing: dict[TaskId, str] = {}
        self._blocked: set[TaskId] = set()
        self._loops = Loops(flow)
        self.lookup = self._new_lookup()

    def _new_lookup(self) -> HandLookup:
        lookup = HandLookup(self.flow, self.store, self._facts, loops=self._loops)
        lookup.know(self._known)
        for task, record in self._standing.items():
            lookup.settle(task, record)
        return lookup

    def executed(self, record: Record) -> None:
        """Forget what was worked out below a step that was executed. A turn stands for itself from now on."""
        below, task = self._below(record.step), TaskId(step=record.step, index=record.index, turn=record.turn)
        self._standing = {
            other: standing for other, standing in self._standing.items()
            if other.step not in below and (other.step != record.step or _is_earlier(other, task))
        }  # fmt: skip
        if task.turn is not None:
            self._standing[task] = record
        self.retry()
        self.lookup = self._new_lookup()

    def _below(self, name: str) -> set[str]:
        below: set[str] = set()
        for step in self.flow.steps:
            if ({name} | below) & self._reads_from(step):
                below.add(step.name)
        return below

    def _reads_from(self, step: Step) -> set[str]:
        """Return the steps that a step reads from: of a join every step of the fan-out that it closes."""
        # A join reads its items' names through `inputs`, so that no edge leads to most steps of the body: each of them
        # has left something that the join may ask for.
        joined = [self._steps[name] for name in step.options.join if name in self._steps]
        heads = {each.scope[-1] for each in joined if each.scope}
        bodies = {each.name for each in self.flow.steps if heads & set(each.scope)}
        return {*step.needs, *step.scope, *step.options.join, *bodies} - {step.name}

    def retry(self) -> None:
        """Look again for what was missing: others may have written to the store."""
        self._missing, self._blocked = {}, set()

    # ------------------------------------------------------------ the step that is to run

    def prepare(self, task: TaskId, turns: Mapping[TaskId, Record]) -> Decision:
        """Return whether a task's inputs are there, its key, and its past; `turns` stand for those before it."""
        mine = {each: record for each, record in self._standing.items() if each.step == task.step}
        if mine != turns:
            # asked for anew: the look-up must not find the step's own last execution among what has settled
            others = {each: record for each, record in self._standing.items() if each not in mine}
            self._standing = {**others, **turns}
            self.lookup = self._new_lookup()
        self.lookup.target = task.step
        try:
            return self._ask(task)
        finally:
            self.lookup.target = ""

    def _ask(self, task: TaskId) -> Decision:
        """Return what the look-up says of a task once all that can be settled above it has been."""
        for _ in range(MOST_ROUNDS):
            needs = (*self.lookup.loops.needs(task, self.lookup.sizes), *self._asked_parameters(task))
            if not self._settle_all(needs):
                return Decision(task, time.time(), "wait", waits=needs)
            prepared = self.lookup.prepare(task)
            if prepared.action != "wait" or not self._settle_all(prepared.waits):
                return prepared
        raise PlanError(f"the inputs of {task.step} cannot be determined", step=task.step)

    def early(self, step: Step) -> Iterator[Finding]:
        """Yield findings for steps above that may change what a step reads, and for which nothing stands."""
        reads = {binding.name for binding in step.bindings}
        for writer in self.lookup.loops.possible_writers(step):
            names = reads.intersection(writer.escapes)
            if names and not writer.scope and not self._settle(settled_id(writer, ())):
                yield findings.not_run_yet(step, writer, names)
        self.retry()

    def _asked_parameters(self, task: TaskId) -> tuple[TaskId, ...]:
        """Return the cells of parameters that a step reads by `current.parameters`."""
        step = self._steps[task.step]
        if task.part or step.kind == "params" or not self.lookup.asks_for_parameters(step):
            return ()
        return tuple(TaskId(step=each.name) for each in self.flow.steps if each.kind == "params")

    def _settle_all(self, tasks: Iterable[TaskId]) -> bool:
        """Look at each of the tasks, so that all that is missing is named; return whether nothing is."""
        settled = [self._settle(task) for task in tasks]
        return all(settled)

    def _settle(self, task: TaskId) -> bool:
        """Return whether it is known what stands for a task above."""
        if task in self._standing:
            return True
        if task in self._missing or task in self._blocked:
            return False
        step = self._steps.get(task.step)
        if step is not None and step.kind == "params":
            return self._settle_parameters(task, step)
        target, self.lookup.target = self.lookup.target, ""
        prepared = self._ask(task)
        record = self._record(task, prepared)
        self.lookup.target = target
        if record is None and prepared.action not in ("skip", "settle"):
            if prepared.action == "wait":
                self._blocked.add(task)
            else:
                self._missing.setdefault(task, _why(prepared))
            return False
        self.lookup.settle(task, record)
        self._standing[task] = record
        return True

    def _record(self, task: TaskId, prepared: Decision) -> Record | None:
        if prepared.action in ("reuse", "settle"):
            return self.lookup.record(task)
        if prepared.action != "run" or task.part:
            return None
        return self._adopt(self._steps[task.step], prepared, self.lookup)

    def _settle_parameters(self, task: TaskId, step: Step) -> bool:
        """Take parameters from the notebook and the environment: no cell has to be run by hand for them."""
        alone = msgspec.structs.replace(self.flow, steps=(step,))
        try:
            _, parameters = evaluate(alone, self.store, Wish(), self._executor_of, self._facts.run)
        except NbflowError as error:
            self._missing[task] = error.message
            return False
        record = parameters.records[step.name]
        self.lookup.know_parameters(parameters.values)
        self._facts = self.lookup.facts
        self.lookup.settle(task, record)
        self._standing[task] = record
        return True

    # ------------------------------------------------------------ what has to run first

    def missing(self) -> list[MissingStep]:
        """Return the steps that have to run before the one that was asked for last, topmost first."""
        whys = {task.step: why for task, why in reversed(self._missing.items())}
        return [MissingStep(step.name, step.label, whys[step.name]) for step in self.flow.steps if step.name in whys]


def _is_earlier(task: TaskId, done: TaskId) -> bool:
    """Return whether a task is a turn before another one of the same loop."""
    return task.index == done.index and task.turn is not None and done.turn is not None and task.turn < done.turn


def _why(prepared: Decision) -> str:
    if prepared.failure is not None:
        return prepared.failure.message
    if prepared.reasons:
        return "; ".join(what for _, what in prepared.reasons[:2])
    return "it has not run"


def refuse(step: Step, missing: Iterable[MissingStep], prepared: Decision) -> PlanError:
    """Return the error that names the steps which have to run before this one."""
    missing = list(missing)
    if prepared.action == "wait" and missing:
        what = "; ".join(f"{each.label} has to run first ({each.why})" for each in missing)
        cells = ", ".join(each.label for each in missing)
        return PlanError(
            f"{step.label} cannot run yet: {what}",
            step=step.name,
            cell=step.cell,
            fix=f"run {cells}, or `%flow run {step.name}`, which runs {step.name} with all that it needs",
        )
    if prepared.failure is not None:
        failure = prepared.failure
        cell = failure.cell or step.cell
        return PlanError(failure.message, step=step.name, cell=cell, line=failure.line, fix=failure.fix)
    reasons = "; ".join(what for _, what in prepared.reasons) or "an input has no value"
    return PlanError(f"{step.label} cannot run: {reasons}", step=step.name, cell=step.cell)
