"""`local`: tasks as processes on this machine, forked from a zygote on Linux, in spare workers elsewhere."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from nbflow.engine import resources
from nbflow.engine.environments import is_met
from nbflow.engine.threads import Carriers
from nbflow.errors import ExecutorError, NbflowError, PlanError
from nbflow.executors import environments, wire
from nbflow.executors.attempt import AttemptHandle, Carry, Publish, lost_supervisor
from nbflow.executors.spare import SpareLane
from nbflow.executors.warm import WarmLane
from nbflow.executors.zygote import ZygoteLane
from nbflow.model import TaskFailure, TaskResult, TaskSpec
from nbflow.store import location, records
from nbflow.store.batches import BatchWriter
from nbflow.store.interface import patiently
from nbflow.task import limits, secrets

FIX_ELSEWHERE = "ask for less, or run the step where there is more: --on ray://…"


class ProcessLane(Protocol):
    """A way to run tasks as processes of this machine; safe to call from several threads."""

    variables: Callable[[], Mapping[str, str]]  # the environment of what it starts

    def submit(self, attempt: AttemptHandle, order: wire.SubmitTask, preload: frozenset[str]) -> None:
        """Run a task: its events go to the attempt."""

    def prepare(self, preload: frozenset[str]) -> None:
        """Have what the next task starts from, with these modules."""

    def close(self) -> None:
        """End everything that it started."""


LANES: dict[str, Callable[[str], ProcessLane]] = {
    "zygote": ZygoteLane, "spare": SpareLane, "single": partial(SpareLane, spares=0),
}  # fmt: skip


class LocalExecutor:
    """Each task in a process of its own on this machine; safe to call from several threads."""

    def __init__(self, url: str = "local", lane: str | None = None) -> None:
        self.url = url
        name = lane or os.environ.get("NBFLOW_LANE") or ("zygote" if sys.platform == "linux" else "spare")
        if name not in (*LANES, "warm"):
            raise ExecutorError(f"no lane named {name!r}", fix=f"NBFLOW_LANE is one of: {', '.join(LANES)}, warm")
        self._lane_of = LANES["zygote" if name == "warm" else name]
        self.lane: ProcessLane = self._lane_of(sys.executable)
        self._others: dict[str, ProcessLane] = {}  # those of environments, by their interpreter
        self.warm: WarmLane | None = None  # small tasks of wide fan-outs share workers
        if isinstance(self.lane, ZygoteLane) and name != lane:
            self.warm = WarmLane(self.lane, self.slots())
        if name == "warm" and isinstance(self.lane, ZygoteLane):
            self.warm = WarmLane(self.lane, self.slots(), always=True)
        self.carriers = Carriers("nbflow publish")
        self._stores: dict[str, location.Store] = {}  # kept open: one in the cloud takes a while to reach
        self._batches: dict[str, BatchWriter] = {}  # of each of them
        self._opening = threading.Lock()
        self._given: dict[str, str] = {}  # secrets that tasks have been given: those without them must not show them

    def inherit(self, variables: Callable[[], Mapping[str, str]]) -> None:
        """Start workers with these variables."""
        self.lane.variables = variables

    def slots(self) -> int:
        """Return how many tasks of one core each fit at the same time."""
        return limits.cores()

    def gpus(self) -> tuple[str, ...]:
        """Return the ids of this machine's GPUs."""
        return limits.gpus()

    def memory(self) -> int | None:
        """Return this machine's memory in bytes."""
        return limits.memory()

    def prepare(self, preload: tuple[str, ...] = ()) -> None:
        """Start what tasks come from, so that the first one does not wait for it."""
        self.lane.prepare(frozenset(preload))

    def submit(self, spec: TaskSpec, publish: Publish | None = None) -> AttemptHandle:
        """Start one attempt; ExecutorError when the executor is closed or a secret is missing.

        `publish` where its result does not count by the record in the datastore alone.
        """
        if spec.options.nodes > spec.parallel.world_size:
            why = resources.never(spec.options, resources.Room())
            raise ExecutorError(why, step=spec.step, cell=spec.cell, fix=FIX_ELSEWHERE)
        values = _secrets(spec)
        self._given |= values
        hidden = {name: value for name in spec.withheld if (value := os.environ.get(name) or self._given.get(name))}
        if spec.environment is not None and is_met(spec.environment):
            spec = msgspec.structs.replace(spec, environment=None)
        if spec.options.gpu and not spec.devices:
            spec = _with_devices(spec)
        learning = partial(self._learn, publish or self._publish)
        attempt = AttemptHandle(spec, learning, [*values.values(), *hidden.values()], self._carry(spec))
        order = wire.SubmitTask(0, wire.pack(spec), spec.options.timeout, spec.options.memory, values, hidden)
        attempt.renew(lambda: self.carriers.run(partial(self._again, attempt, order)))
        if spec.environment is None:
            self._give(attempt, order)
        else:  # it may have to be made first
            attempt.bind(lambda _: attempt.give_up(lost_supervisor(spec)))
            self.carriers.run(partial(self._again, attempt, order))
        return attempt

    def waits(self, spec: TaskSpec) -> bool:
        """Return whether a task like this one waits for its gate: it has a process to itself then."""
        return self.warm is None or not self.warm.takes(spec)

    def _give(self, attempt: AttemptHandle, order: wire.SubmitTask) -> None:
        spec = attempt.spec
        if spec.environment is not None:
            try:
                python = environments.made(spec.environment, self._store(spec.store), attempt.hold_up)
            except NbflowError as error:
                kind = type(error).__name__
                attempt.give_up(TaskFailure(type=kind, message=error.message, cell=spec.cell, fix=error.fix))
                return
            if not attempt.over.is_set():
                self._lane_in(python).submit(attempt, order, frozenset(spec.preload))
            return
        lane = self.warm if self.warm is not None and self.warm.takes(spec) else self.lane
        lane.submit(attempt, order, frozenset(spec.preload))

    def _again(self, attempt: AttemptHandle, order: wire.SubmitTask) -> None:
        """Give a task whose process ended before its first line to another process: nothing of it has run."""
        if not attempt.cancelling:
            try:
                self._give(attempt, order)
            except ExecutorError as error:
                attempt.give_up(lost_supervisor(attempt.spec, error.message))
        if attempt.cancelling:  # before there was a process that could have heard of it
            attempt.cancel(0.0)
            attempt.give_up(lost_supervisor(attempt.spec))

    def _lane_in(self, python: str) -> ProcessLane:
        """Return the lane of an environment, by its interpreter."""
        with self._opening:
            if python not in self._others:
                self._others[python] = self._lane_of(python)
            self._others[python].variables = self.lane.variables
            return self._others[python]

    def _carry(self, spec: TaskSpec) -> Carry | None:
        """Return what publishes in another thread, None for a store in a folder, where publishing takes no time."""
        return self.carriers.run if "://" in spec.store else None

    def ahead(self, spec: TaskSpec) -> int:
        """Return how many tasks like this one may be submitted for each core."""
        return 1 if self.warm is None else self.warm.ahead(spec)

    def _learn(self, publish: Publish, spec: TaskSpec, result: TaskResult, done: Callable[[TaskResult], None]) -> None:
        """Publish a result; how long its cell took tells whether tasks like it are to share workers."""
        if self.warm is not None:
            self.warm.learn(spec, result)
        publish(spec, result, done)

    def _publish(self, spec: TaskSpec, result: TaskResult, done: Callable[[TaskResult], None]) -> None:
        if result.record is None:
            done(result)
            return
        try:
            store = self._store(spec.store)
            if self._is_small(spec):
                records.publish_among_others(
                    store, self._batches[spec.store], result.record,
                    lambda error: done(result if error is None else unpublished(spec, result, error)),
                )  # fmt: skip
                return
        except NbflowError as error:
            done(unpublished(spec, result, error))
            return
        if "://" not in spec.store and records.has_segments(result.record):
            self.carriers.run(lambda: _publish_alone(store, spec, result, done))  # others need not wait for the disk
        else:
            _publish_alone(store, spec, result, done)

    def _store(self, url: str) -> location.Store:
        with self._opening:
            if url not in self._stores:
                self._stores[url] = location.open_store(url).trust()  # as its specs name it
                self._batches[url] = BatchWriter(self._stores[url])
            return self._stores[url]

    def _is_small(self, spec: TaskSpec) -> bool:
        """Return whether a task is one of many small ones, whose records share files."""
        alone = spec.items > 0 and spec.evaluate is None and not spec.then
        return self.warm is not None and alone and self.warm.takes(spec)

    def close(self) -> None:
        """End everything that it started."""
        if self.warm is not None:
            self.warm.close()
        for lane in (self.lane, *self._others.values()):
            lane.close()
        self.carriers.close()
        for writer in self._batches.values():
            writer.close()


def _publish_alone(
    store: location.Store, spec: TaskSpec, result: TaskResult, done: Callable[[TaskResult], None]
) -> None:
    try:
        for each in (result, *result.then):
            if each.record is not None:
                patiently(partial(records.publish, store, each.record))
    except NbflowError as error:
        result = unpublished(spec, result, error)
    done(result)


def unpublished(spec: TaskSpec, result: TaskResult, error: NbflowError) -> TaskResult:
    """Return what a task comes to whose result the datastore did not take."""
    failure = TaskFailure(type=type(error).__name__, message=error.message, cell=spec.cell, fix=error.fix)
    return msgspec.structs.replace(result, record=None, failure=failure, then=())


def _with_devices(spec: TaskSpec) -> TaskSpec:
    """Return a task that nobody has given GPUs, as a cell run by hand, with the first ones."""
    devices = resources.pick(spec.options.gpu, limits.gpus(), ())
    if devices is None:
        why = resources.never(spec.options, resources.Room(limits.gpus()))
        raise ExecutorError(why, step=spec.step, cell=spec.cell, fix=FIX_ELSEWHERE)
    return msgspec.structs.replace(spec, devices=tuple(devices))


def _secrets(spec: TaskSpec) -> dict[str, str]:
    """Return the values of a task's secrets, from the environment or else from a provider."""
    return {name: _secret(name, spec) for name in spec.secrets}


def _secret(name: str, spec: TaskSpec) -> str:
    try:
        value = secrets.find(name)
    except PlanError as error:
        raise ExecutorError(error.message, step=spec.step, cell=spec.cell, fix=error.fix) from None
    if value is None:
        fix = f"export {name}=… and start again"
        raise ExecutorError(f"the secret {name!r} is set nowhere", step=spec.step, cell=spec.cell, fix=fix)
    return value
