"""Many small tasks of a fan-out in workers that are used again: the driver's side.

A worker is forked from the zygote like a task, and gets tasks ahead of time through a pipe. It runs them in order,
so what it says belongs to the first of them that has not ended. When it ends, that one has failed if it had begun;
the others run elsewhere.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial

import msgspec

from nbflow.errors import ExecutorError
from nbflow.executors import wire
from nbflow.executors.attempt import AttemptHandle
from nbflow.executors.spawn import PIPE
from nbflow.executors.zygote import Zygote, ZygoteLane
from nbflow.model import Ended, Replay, Started, TaskFailure, TaskResult, TaskSpec

WIDE = 32
"""Items of a fan-out from which reused workers are worth it."""

SMALL = 0.05
"""Seconds that a task's cell may take to count as small."""

TRIED = 2
"""Tasks of a step that run in processes of their own first, to learn how long they take."""

AHEAD = 32
"""Small tasks that are asked for ahead for each core."""

BATCH = 0.05
"""Seconds of work that a worker is given ahead."""

STRIKES = 3
"""Workers that a step may use up after a task or two before it is left to processes of its own."""


class Order(msgspec.Struct, eq=False):
    """A task on its way to a worker."""

    attempt: AttemptHandle
    order: wire.SubmitTask
    preload: frozenset[str]
    body: bytes
    kind: tuple[str, ...]
    given: int = 0  # how often
    begun: bool = False


class Habit(msgspec.Struct):
    """What is known of a step's tasks."""

    seen: int = 0
    seconds: float = 0.0  # of a task's cell, lately
    strikes: int = 0

    @property
    def small(self) -> bool:
        """Whether reused workers are worth it."""
        return self.seen >= TRIED and self.seconds < SMALL and self.strikes < STRIKES


class WarmWorker:
    """One worker as the driver sees it; its methods are called with the lane's lock held, but `feed` and `lose`."""

    def __init__(self, lane: WarmLane, kind: tuple[str, ...]) -> None:
        self.lane = lane
        self.kind = kind
        self.pid = 0
        self.orders: deque[Order] = deque()
        self.bytes = 0
        self.served = 0
        self.recalled = False
        self.interrupted = False
        self.place: tuple[Zygote, int] | None = None
        self._assembler = wire.Assembler()

    def give(self, orders: list[Order]) -> None:
        """Give it these tasks next."""
        if self.place is None:
            raise RuntimeError("the worker has not been forked")
        for order in orders:
            order.given += 1
            self.orders.append(order)
            self.bytes += len(order.body)
        zygote, number = self.place
        zygote.send(wire.Give(number, b"".join(order.body for order in orders)))

    def recall(self) -> None:
        """Let it take no more tasks, and end after the one that it runs."""
        if self.place is not None and not self.recalled:
            self.recalled = True
            zygote, number = self.place
            zygote.send(wire.Recall(number))

    def interrupt(self, grace: float) -> None:
        """Interrupt the task that it runs; the worker ends with it."""
        self.interrupted = True
        if self.place is not None:
            zygote, number = self.place
            zygote.send(wire.CancelTask(number, grace))

    # ------------------------------------------------------------ the zygote's reader

    def feed(self, report: wire.Report) -> None:
        """Take the next report about it."""
        if isinstance(report, wire.Born):
            self.pid = report.pid
        elif isinstance(report, wire.Frames):
            for body in self._assembler.feed(report.data):
                self._take(body)
        elif isinstance(report, wire.Gone):
            self.lane.gone(self, report.status)
        elif self.orders:
            self.orders[0].attempt.feed(report)

    def _take(self, body: bytes) -> None:
        if not self.orders:
            return
        event = wire.parse_event(body)
        order = self.orders[0]
        if isinstance(event, Started):
            order.begun = True
            order.attempt.pid = self.pid
            self.lane.begun(self, order)
        if isinstance(event, Ended):
            self.lane.ended(self, order, event)
        else:
            order.attempt.take((event,))

    def lose(self) -> None:
        """End with its zygote."""
        self.lane.gone(self, -9)


class WarmLane:
    """The workers of one executor; safe to call from several threads."""

    def __init__(self, zygotes: ZygoteLane, slots: int, *, always: bool = False) -> None:
        """Host workers in `zygotes`, at most `slots` at once; `always` counts every task as small."""
        self._zygotes = zygotes
        self._slots = slots
        self._always = always
        self._queue: deque[Order] = deque()
        self._apart: deque[Order] = deque()  # those that get a process of their own
        self._alone: set[AttemptHandle] = set()  # those that have one
        self._workers: list[WarmWorker] = []
        self._habits: dict[str, Habit] = {}
        self._lock = threading.RLock()
        self._closed = False

    # ------------------------------------------------------------ which tasks

    def learn(self, spec: TaskSpec, result: TaskResult) -> None:
        """Learn how long the cell of a fan-out's task took."""
        if (spec.items >= WIDE or self._always) and result.failure is None:
            habit = self._habits.setdefault(_step(spec), Habit())
            habit.seconds = result.elapsed if not habit.seen else 0.8 * habit.seconds + 0.2 * result.elapsed
            habit.seen += 1

    def takes(self, spec: TaskSpec) -> bool:
        """Return whether a task is one of many small ones."""
        if self._always:
            return True
        habit = self._habits.get(_step(spec))
        return spec.items >= WIDE and habit is not None and habit.small and may_share(spec, attempts=True)

    def ahead(self, spec: TaskSpec) -> int:
        """Return how many tasks like this one may be submitted for each core."""
        return AHEAD if self.takes(spec) and not self._always else 1

    def _suits(self, order: Order) -> bool:
        """Return whether a task can run in a worker that others use too."""
        habit = self._habits.get(_step(order.attempt.spec))
        struck = habit is not None and habit.strikes >= STRIKES and not self._always
        return not struck and order.given < TRIED and len(order.body) <= PIPE // 4 and may_share(order.attempt.spec)

    # ------------------------------------------------------------ tasks

    def submit(self, attempt: AttemptHandle, order: wire.SubmitTask, preload: frozenset[str]) -> None:
        """Queue a task for a worker; `preload` are the modules that its flow imports."""
        waiting = Order(attempt, order, preload, wire.frame(order), _kind(attempt.spec))
        attempt.bind(lambda grace: self._cancel(waiting, grace))
        with self._lock:
            if self._closed:
                raise ExecutorError("the executor is closed")
            self._alone.discard(attempt)  # it had a process of its own, which ended before the task had begun
            (self._queue if self._suits(waiting) else self._apart).append(waiting)
            self._pump()

    def _pump(self) -> None:
        """Give waiting tasks to workers that have room, or processes of their own."""
        while self._apart and len(self._alone) < self._slots and not self._closed:
            order = self._apart.popleft()
            self._alone.add(order.attempt)
            order.attempt.on_end = partial(self._ended_alone, order.attempt)
            self._zygotes.submit(order.attempt, order.order, order.preload)
        self._share()

    def _ended_alone(self, attempt: AttemptHandle) -> None:
        with self._lock:
            self._alone.discard(attempt)
            self._pump()

    def _share(self) -> None:
        while self._queue and not self._closed:
            order = self._queue[0]
            depth = self._depth(order)
            fitting = [w for w in self._workers if w.kind == order.kind and not w.recalled]
            worker = min(fitting, key=lambda each: len(each.orders), default=None)
            if (worker is None or worker.orders) and len(self._workers) < self._slots:
                worker = self._start(order)
            elif worker is None:
                idle = next((each for each in self._workers if not each.orders), None)
                if idle is not None:
                    idle.recall()  # of another kind: a new one takes its place when it has ended
                return
            if len(worker.orders) > depth // 2:
                return
            batch: list[Order] = []
            room = PIPE // 2 - worker.bytes
            # what waits is shared among the workers
            fair = -(-(len(self._queue) + sum(len(w.orders) for w in fitting)) // self._slots)
            while self._queue and len(worker.orders) + len(batch) < max(1, min(depth, fair)):
                if self._queue[0].kind != order.kind or len(self._queue[0].body) > room:
                    break
                room -= len(self._queue[0].body)
                batch.append(self._queue.popleft())
            if not batch:
                return
            worker.give(batch)

    def _depth(self, order: Order) -> int:
        """Return how many tasks a worker is given ahead."""
        seconds = self._habits.get(_step(order.attempt.spec), Habit()).seconds
        return max(2, min(AHEAD, int(BATCH / max(seconds, 1e-4))))

    def _start(self, order: Order) -> WarmWorker:
        worker = WarmWorker(self, order.kind)
        worker.place = self._zygotes.host(worker, order.preload)
        self._workers.append(worker)
        return worker

    def _cancel(self, order: Order, grace: float) -> None:
        with self._lock:
            if order in self._queue:
                self._queue.remove(order)
            elif order in self._apart:
                self._apart.remove(order)
            else:
                worker = next((each for each in self._workers if order in each.orders), None)
                if worker is None:
                    return
                if order.begun:
                    worker.interrupt(grace)
                    return
                worker.recall()
        order.attempt.end(TaskResult(failure=_cancelled(order)))

    # ------------------------------------------------------------ what workers say

    def begun(self, worker: WarmWorker, order: Order) -> None:
        """Interrupt a worker that begins with a task that has been cancelled since."""
        if order.attempt.over.is_set():
            worker.interrupt(1.0)

    def ended(self, worker: WarmWorker, order: Order, event: Ended) -> None:
        """Conclude a task that a worker has ended."""
        failure = event.result.failure
        with self._lock:
            stray = failure is not None and failure.type == KeyboardInterrupt.__name__ and worker.interrupted
            if stray and not order.attempt.cancelling:
                # the interrupt was meant for the task before it
                self._leave(worker, order)
                self._again(order)
                return
            worker.served += 1
            if not order.attempt.cancelling or order.attempt.over.is_set():
                self._leave(worker, order)
            if failure is not None:
                worker.recalled = True  # it ends by itself
            self._pump()
        self.learn(order.attempt.spec, event.result)
        order.attempt.take((event,))

    def _leave(self, worker: WarmWorker, order: Order) -> None:
        worker.orders.remove(order)
        worker.bytes -= len(order.body)

    def gone(self, worker: WarmWorker, status: int) -> None:
        """Take a worker's end: the task that it ran has ended with it, the others run elsewhere."""
        with self._lock:
            if worker in self._workers:
                self._workers.remove(worker)
            orders = list(worker.orders)
            worker.orders.clear()
            # A worker that ends between two tasks does so with status 0, and nothing of the next one has run. With any
            # other status the first one counts as begun, for it may have been.
            victim = orders.pop(0) if orders and (orders[0].begun or status != 0) else None
            if worker.served <= 2 and not worker.recalled and orders:
                self._habits.setdefault(_step(orders[0].attempt.spec), Habit()).strikes += 1
            for order in reversed(orders):
                if not order.attempt.over.is_set():
                    self._again(order)
            self._pump()
        if victim is not None:
            victim.attempt.feed(wire.Gone(victim.order.task, status))

    def _again(self, order: Order) -> None:
        """Queue a task that did not run after all first, or, after that has happened twice, run it by itself."""
        order.begun = False
        if self._closed:
            order.attempt.end(TaskResult(failure=_cancelled(order)))
        else:
            (self._queue if self._suits(order) else self._apart).appendleft(order)

    def close(self) -> None:
        """Take no new tasks; the zygotes end the workers."""
        with self._lock:
            self._closed = True
            orders = [*self._queue, *self._apart]
            self._queue.clear()
            self._apart.clear()
        for order in orders:
            order.attempt.end(TaskResult(failure=_cancelled(order)))


def may_share(spec: TaskSpec, *, attempts: bool = False) -> bool:
    """Return whether a task can run in a process that others use too: it asks nothing of the process itself.

    Further attempts get a process of their own, unless `attempts` says that they count as the first one.
    """
    options = spec.options
    demands = (options.timeout, options.memory, options.gpu, spec.environment, options.secret, spec.secrets)
    if any(demands) or options.once or options.join or options.nodes > 1 or spec.evaluate is not None:
        return False
    return (attempts or spec.attempt == 1) and not any(map(_connects, spec.replay))


def _connects(replay: Replay) -> bool:
    """Return whether set-up binds names: connections and clients, which a task must not find used."""
    return replay.kind == "setup" and bool(replay.names)


def _step(spec: TaskSpec) -> str:
    return f"{spec.run}/{spec.step}"


def _kind(spec: TaskSpec) -> tuple[str, ...]:
    """Return a task's kind: those with the same set-up, store and folder may share a worker."""
    return (spec.run, spec.store, spec.folder, *(each.id for each in spec.replay if each.kind == "setup"))


def _cancelled(order: Order) -> TaskFailure:
    return TaskFailure(
        type="Cancelled", message="the task was cancelled", cell=order.attempt.spec.cell, kind="cancelled"
    )
