"""The session run of a kernel: what cells run by hand left, stored in the background, and told as a run's events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from nbflow import artifacts, records
from nbflow.errors import NbflowError
from nbflow.executors.kernel import KernelTask, Left
from nbflow.model import Finding, Flow, Found, Reason, Record, RunEnded, TaskChanged, TaskFailure, TaskId, TaskState
from nbflow.runner import run_started
from nbflow.storage import Store


@dataclass(frozen=True)
class Saving:
    """One execution that is being stored: its record, or what kept it from being stored, and the values it left."""

    task: KernelTask
    values: Mapping[str, Any]
    future: Future[Record]


class Journal:
    """The one session run of a kernel in one store; made when the first cell is run by hand."""

    def __init__(self, store: Store, flow: Flow) -> None:
        self.store = store
        self.flow = flow.name
        self.run = records.new_run_id()
        self.pending: list[Saving] = []
        self._attempts: dict[TaskId, int] = {}
        self._steps: tuple[str, ...] = ()
        # one thread: what it does stands in the store in the order in which it was asked for
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbflow-store")
        self._writer = records.EventWriter(store, flow.name, self.run, f"kernel-{os.getpid()}")

    def attempt(self, task: TaskId) -> int:
        """The number that the next execution of a task by hand has, from 1."""
        return self._attempts.get(task, 0) + 1

    def announce(self, flow: Flow, document: Callable[[], str]) -> None:
        """Tell the run's steps, at first and whenever the notebook has others."""
        steps = tuple(step.name for step in flow.steps)
        if steps == self._steps:
            return
        self._steps = steps
        started = run_started(flow, self.run, session=True)
        text = document()

        def work() -> None:
            records.write_notebook(self.store, self.flow, self.run, text)
            self._writer.put(started)

        self._submit(work)

    def tell(
        self, task: TaskId, state: TaskState, *, attempt: int, key: str = "", execution: str = "",
        reasons: tuple[Reason, ...] = (), failure: TaskFailure | None = None, elapsed: float | None = None,
        reused_from: str | None = None,
    ) -> None:  # fmt: skip
        """A task's new state, written behind whatever is being stored."""
        event = TaskChanged(
            task=task, state=state, at=time.time(), attempt=attempt, key=key, execution=execution, reasons=reasons,
            failure=failure, elapsed=elapsed, reused_from=reused_from, pid=os.getpid(),
        )  # fmt: skip
        self._attempts[task] = max(attempt, self._attempts.get(task, 0))
        self._submit(lambda: self._writer.put(event))

    def find(self, finding: Finding) -> None:
        """A finding that an execution brought to light."""
        event = Found(finding=finding, at=time.time())
        self._submit(lambda: self._writer.put(event))

    def save(self, task: KernelTask, left: Left, dumped: Any, outputs: Any, reasons: tuple[Reason, ...]) -> Saving:
        """What a cell left, already taken apart, in; stored in the background: segments, then the record, then the event."""
        identity = TaskId(step=task.spec.step, index=task.spec.index)
        self._attempts[identity] = max(task.spec.attempt, self._attempts.get(identity, 0))

        def work() -> Record:
            groups, found = artifacts.save(self.store, dumped)
            record = task.record(left, tuple(groups), found, outputs)
            records.publish(self.store, record)
            self._writer.put(TaskChanged(
                task=identity, state="done", at=time.time(), attempt=task.spec.attempt, key=record.key,
                execution=record.execution, reasons=reasons, elapsed=left.elapsed, pid=os.getpid(),
            ))  # fmt: skip
            return record

        saving = Saving(task, left.values, self._thread.submit(work))
        self.pending.append(saving)
        return saving

    def settled(self) -> list[tuple[Saving, Record | NbflowError]]:
        """Wait for all that is being stored; each execution with its record, or with what kept it from being stored."""
        pending, self.pending = self.pending, []
        ended: list[tuple[Saving, Record | NbflowError]] = []
        for saving in pending:
            try:
                ended.append((saving, saving.future.result()))
            except NbflowError as error:
                ended.append((saving, error))
        return ended

    def _submit(self, work: Callable[[], None]) -> None:
        self._thread.submit(work)

    def close(self) -> None:
        """Write what is left, and end the run."""
        if self._steps:
            self._submit(lambda: self._writer.put(RunEnded(status="done", at=time.time())))
        self._submit(self._writer.close)
        self._thread.shutdown(wait=True)

