"""The session run of a kernel: what cells run by hand left, stored in the background, and told as a run's events."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import msgspec

from nbflow.engine import claims
from nbflow.engine.claims import Claim
from nbflow.errors import NbflowError, PlanError, StoreError
from nbflow.kernel.feed import Audience
from nbflow.kernel.task import KernelTask
from nbflow.model import (
    Finding,
    FindingFound,
    Flow,
    Reason,
    Record,
    RunEnded,
    RunEvent,
    Step,
    TaskChanged,
    TaskFailure,
    TaskId,
    TaskSpec,
    TaskState,
)
from nbflow.runs.launch import run_started
from nbflow.store import artifacts, records
from nbflow.store.flows import RunPlace, claim_flow
from nbflow.store.location import LocalStore, Store
from nbflow.store.serialize.pickler import Dumped, Unstorable
from nbflow.task.outputs import Outputs
from nbflow.task.stages import Left
from nbflow.tracebacks import unforeseen, unforeseen_failure


class Saving(msgspec.Struct, frozen=True):
    """One execution that is being stored: its record, or what keeps it from being stored, and the values it left."""

    task: KernelTask
    values: Mapping[str, Any]
    future: Future[Record]


class Journal:
    """The one session run of a kernel in one store; made when the first cell is run by hand."""

    def __init__(self, store: Store, flow: Flow, audience: Audience) -> None:
        self.store = store
        self.audience = audience
        self.flow = flow.name
        self._notebook = flow.notebook
        # a store elsewhere is not asked for its runs here: the first cell would wait for it
        self.run = records.new_run_id(store if isinstance(store, LocalStore) else None)
        self.pending: list[Saving] = []  # values that must not change before they are stored
        self._attempts: dict[TaskId, int] = {}
        self._steps: tuple[str, ...] = ()
        self._jobs: list[Future[Any]] = []
        self._kept: set[str] = set()  # executions whose record is being stored
        # one thread: what it does stands in the store in the order in which it was asked for
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbflow-store")

    @cached_property
    def place(self) -> RunPlace:
        """Where the run lies: found when something is written first, which happens in the background."""
        return RunPlace(self.flow, claim_flow(self.store, self._notebook).folder, self.run)

    @cached_property
    def _writer(self) -> records.EventWriter:
        return records.EventWriter(self.store, self.place.folder, self.run, f"kernel-{os.getpid()}")

    def attempt(self, task: TaskId) -> int:
        """Return the number that the next execution of a task by hand has, from 1."""
        return self._attempts.get(task, 0) + 1

    def claim(self, step: Step, spec: TaskSpec) -> Claim:
        """Claim a step with `--once` that is about to run; raise PlanError where it has begun before."""
        claims.check_store(self.store, [step])
        claim = claims.claim(self.store, spec, self.place, again=False)
        if claim.execution != spec.execution:
            failure = claims.asks(self.store, step, claim, by_hand=True)
            raise PlanError(failure.message, step=step.name, cell=step.cell, line=1, fix=failure.fix)
        return claim

    def end_claim(self, made: Claim, *, succeeded: bool) -> None:
        """Say in the store that the step is over."""
        self._submit(lambda: claims.end(self.store, made, "done" if succeeded else "failed"))

    def announce(self, flow: Flow, document: Callable[[], str]) -> None:
        """Tell the run's steps, at first and whenever the notebook has others."""
        self.audience.see_flow(flow)
        steps = tuple(step.name for step in flow.steps)
        if steps == self._steps:
            return
        self._steps = steps
        started = run_started(flow, self.run, session=True)
        self.audience.see_by_hand(started)
        text = document()

        def work() -> None:
            records.write_notebook(self.store, self.place.folder, self.run, text)
            self._writer.put(started)

        self._submit(work)

    def tell(
        self,
        task: TaskId,
        state: TaskState,
        *,
        attempt: int,
        key: str = "",
        execution: str = "",
        reasons: tuple[Reason, ...] = (),
        failure: TaskFailure | None = None,
        elapsed: float | None = None,
        reused_from: str | None = None,
    ) -> None:
        """Write a task's new state behind whatever is being stored."""
        event = TaskChanged(
            task=task, state=state, at=time.time(), attempt=attempt, key=key, execution=execution, reasons=reasons,
            failure=failure, elapsed=elapsed, reused_from=reused_from, pid=os.getpid(),
        )  # fmt: skip
        self._attempts[task] = max(attempt, self._attempts.get(task, 0))
        self.audience.see_by_hand(event)
        self._write(event)

    def find(self, finding: Finding) -> None:
        """Write a finding that an execution brought to light."""
        event = FindingFound(finding=finding, at=time.time())
        self.audience.see_by_hand(event)
        self._write(event)

    def _write(self, event: RunEvent) -> None:
        """Write an event behind whatever is being stored: at once where nothing is, as nobody has to be woken then."""
        if self.pending or "_writer" not in self.__dict__ or not all(job.done() for job in self._jobs):
            self._submit(lambda: self._writer.put(event))
            return
        try:
            self._writer.put(event)
        except Exception as error:  # told with what else went wrong in the background
            failed = Future[Any]()
            failed.set_exception(error)
            self._jobs.append(failed)

    def save(self, task: KernelTask, outcome: Left, outputs: Outputs, reasons: tuple[Reason, ...]) -> Record | None:
        """Store what a cell left and return its record, None while its values are still being read.

        Small values are in the record itself and need no waiting. Of large ones the memory is read in the background,
        before anything may change it: `settled` waits for that.
        """
        identity = task.identity
        self._attempts[identity] = max(task.spec.attempt, self._attempts.get(identity, 0))

        def build() -> Record:
            groups, manifests = artifacts.save(self.store, outcome.dumped)
            return task.record(outcome, groups, manifests, outputs=outputs.items(), truncated=outputs.truncated)

        event = TaskChanged(
            task=identity, state="skipped" if "skipped" in outcome.facts else "done", at=time.time(),
            attempt=task.spec.attempt, key=task.spec.key, execution=task.spec.execution, reasons=reasons,
            elapsed=task.stages.elapsed, pid=os.getpid(),
        )  # fmt: skip

        def publish(made: Callable[[], Record]) -> Record:
            try:
                record = made()
                records.publish(self.store, record)
                self._tell_kept(event)
            except Exception as error:  # whatever it is: nobody may wait for this step
                self._tell_lost(event, error, task.spec.cell)
                raise
            return record

        if all(isinstance(each, Unstorable) or _is_small(each) for each in outcome.dumped):
            record = build()
            self._submit(lambda: publish(lambda: record))
        else:
            record = None
            self.pending.append(
                Saving(task, {**outcome.values, **outcome.joined}, self._thread.submit(lambda: publish(build)))
            )
        self._kept.add(task.spec.execution)
        return record

    def keeps(self, execution: str) -> bool:
        """Return whether an execution has been given to `save`: what becomes of it is told from there."""
        return execution in self._kept

    def _tell_kept(self, event: TaskChanged) -> None:
        self._writer.put(event)
        self.audience.see_by_hand(event)

    def _tell_lost(self, event: TaskChanged, error: Exception, cell: str | None) -> None:
        """Tell that what a cell left could not be stored: its step has failed after all."""
        failure = unforeseen_failure(error, f"what {event.task.step} left could not be stored", cell)
        lost = msgspec.structs.replace(event, state="failed", at=time.time(), failure=failure)
        self.audience.see_by_hand(lost)
        with contextlib.suppress(StoreError):  # which may be why
            self._writer.put(lost)

    def settled(self) -> list[tuple[Saving, Record | NbflowError]]:
        """Wait for values that are being stored; return each execution with its record, or with what prevented it."""
        pending, self.pending = self.pending, []
        ended: list[tuple[Saving, Record | NbflowError]] = []
        for saving in pending:
            try:
                ended.append((saving, saving.future.result()))
            except Exception as error:  # told in the cell that runs next
                ended.append((saving, unforeseen(error, f"what {saving.task.spec.step} left could not be stored")))
        return ended

    def problems(self, *, wait: bool = False) -> list[NbflowError]:
        """Return what went wrong in the background since the last call; with `wait`, once everything has been done."""
        jobs = self._jobs
        self._jobs = [] if wait else [job for job in jobs if not job.done()]
        ended = jobs if wait else [job for job in jobs if job.done()]
        failed = [error for job in ended if (error := job.exception()) is not None]
        errors = [unforeseen(error, "what a cell left could not be stored") for error in failed]
        if wait and not errors and self._steps:
            try:
                self._writer.flush()
            except NbflowError as error:
                errors.append(error)
        return errors

    def _submit(self, work: Callable[[], Any]) -> None:
        self._jobs.append(self._thread.submit(work))

    def close(self) -> None:
        """Write what is left, and end the run."""
        self._thread.shutdown(wait=True)
        if self._steps:
            self._writer.put(RunEnded(status="done", at=time.time()))
            self._writer.close()


def _is_small(dumped: Dumped) -> bool:
    """Return whether a group stands in its record, so that nothing refers to the values' own memory."""
    return len(dumped.stream) + sum(buffer.nbytes for buffer in dumped.buffers) < artifacts.INLINE
