"""What of nbflow lives on a Dask cluster: a plugin of the scheduler that starts workers, and what a worker does."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from nbflow.engine import resources
from nbflow.errors import ExecutorError, NbflowError
from nbflow.executors.local import LocalExecutor
from nbflow.executors.remote import probe, task_worker
from nbflow.executors.remote.desk import desk_class
from nbflow.task import limits


def plugin(name: str, idle: float) -> Any:
    """Return the scheduler's plugin; made here, so that it travels by value to a scheduler that has no nbflow.

    `name` is also the scheduler's handler that passes calls on to the desk, and its stream of what workers say.
    """
    from collections.abc import Sequence

    from distributed import Client, Scheduler, SchedulerPlugin

    desk = desk_class()

    def errand(spec: str, worker: str, gpu: float) -> None:
        import importlib

        importlib.import_module("nbflow.executors.dask_workers").work(spec, worker, name, gpu)

    def end_task(worker: str) -> None:
        import importlib

        importlib.import_module("nbflow.executors.dask_workers").stop(worker)

    class DaskDesk(desk):  # type: ignore[misc, valid-type]
        """Its workers are tasks of a client in the scheduler itself, which no notebook takes with it."""

        def __init__(self, scheduler: Scheduler) -> None:
            super().__init__(idle)
            self.scheduler = scheduler
            self.client: Client | None = None
            self.futures: dict[str, Any] = {}

        async def serve(self, worker: str, spec: str, task: str) -> None:
            if self.client is None:
                security = self.scheduler.security
                self.client = Client(self.scheduler.address, security=security, asynchronous=True, set_as_default=False)
            client = await self.client
            wants = self.wants[worker]
            counted = {"GPU": wants["GPU"]} if wants["GPU"] else {}
            if any("CPU" in each.resources for each in self.scheduler.workers.values()):
                counted["CPU"] = wants["CPU"]
            self.futures[worker] = future = client.submit(
                errand, spec, worker, wants["GPU"], key=f"{task}-{worker}", resources=counted, retries=0, pure=False
            )
            try:
                error = await future.exception()
                if error is not None:
                    raise error
                if future.status != "finished":
                    raise RuntimeError(f"the scheduler says: {future.status}")
            finally:
                del self.futures[worker]

        async def stop(self, worker: str, hard: bool) -> None:
            where = self.begun.get(worker)
            if where is None:
                self.end(worker, "cancelled", "cancelled")
                await self.release(worker)
            elif hard and self.client is not None:
                await self.client.run(end_task, worker, workers=[where])

        async def release(self, worker: str) -> None:
            future = self.futures.get(worker)
            if future is not None and self.client is not None:
                await self.client.cancel([future], force=True)

        def lose(self, address: str) -> None:
            """Note that a worker of Dask has gone with all that it did; it may go on behind a cut connection."""
            for worker, where in self.begun.items():
                if where == address and worker not in self.ended:
                    self.end(worker, "lost", "its Dask worker was killed, has ended or cannot be reached")
                    self._keep(self.scheduler.loop.asyncio_loop.create_task(self.release(worker)))

        def read_end(self, error: BaseException) -> tuple[str, str] | None:
            names = {kind.__name__ for kind in type(error).__mro__}
            if "CancelledError" in names:
                return "cancelled", "cancelled"
            if "KilledWorker" in names:
                return "crashed", "the Dask workers that were to begin with it died"
            return None

        async def free(self) -> dict[str, float]:
            nodes = await self.nodes()
            free = {"CPU": 0.0, "GPU": 0.0, "memory": float("inf")}
            for each in nodes:
                free["CPU"] += each["cpu"]
                free["GPU"] += each["gpu"]
            for worker in self.begun:
                if worker not in self.ended:
                    free["CPU"] -= self.wants[worker]["CPU"]
                    free["GPU"] -= self.wants[worker]["GPU"]
            return free

        async def nodes(self) -> list[dict[str, Any]]:
            return [
                {
                    "name": each.host, "cpu": float(each.resources.get("CPU", each.nthreads)),
                    "gpu": float(each.resources.get("GPU", 0)), "memory": each.memory_limit or None,
                    "counts_cores": "CPU" in each.resources,
                }
                for each in self.scheduler.workers.values()
            ]  # fmt: skip

        def leave(self) -> None:
            if self.client is not None:
                self._keep(self.scheduler.loop.asyncio_loop.create_task(self.client.close()))
            self.scheduler.handlers.pop(name, None)
            self.scheduler.stream_handlers.pop(name, None)
            self.scheduler.remove_plugin(name)

    class DeskPlugin(SchedulerPlugin):  # type: ignore[misc]
        """The desk as the scheduler has it."""

        idempotent = True

        async def start(self, scheduler: Scheduler) -> None:
            self.desk = DaskDesk(scheduler)
            scheduler.handlers[name] = self.call
            scheduler.stream_handlers[name] = self.put

        async def call(self, method: str, words: Sequence[Any]) -> list[Any]:
            """Return a list that holds the desk's answer: where there is no desk, Dask answers with None."""
            return [await getattr(self.desk, method)(*words)]

        def put(self, of: str, data: bytes, worker: str) -> None:
            del worker  # Dask's own
            self.desk.keep_piece(of, data)

        def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
            del scheduler
            self.desk.lose(worker)

    return DeskPlugin()


def work(spec: str, worker: str, handler: str, gpu: float) -> None:
    """Run a task, or answer a question, in a thread of a worker of Dask."""
    from distributed import get_worker
    from distributed.utils import sync

    own = get_worker()

    async def begin() -> bool:
        answer = await getattr(own.scheduler, handler)(method="begin", words=[worker, own.address])
        return bool(answer and answer[0])

    def send(data: bytes) -> None:
        own.loop.add_callback(own.batched_send, {"op": handler, "of": worker, "data": data})

    if not sync(own.loop, begin):  # Dask has begun with it a second time, or it is no longer wanted
        return
    try:
        if probe.is_question(spec):
            probe.answer(spec)
        else:
            _post(os.getpid()).run(spec, worker, gpu, send)
    except NbflowError as error:  # the scheduler, which reads it, may have no nbflow
        raise RuntimeError(f"{error.message}; {error.fix}" if error.fix else error.message) from None


def stop(worker: str) -> None:
    """End the task of a worker in this process."""
    _post(os.getpid()).stop(worker)


@functools.cache
def _post(pid: int) -> _Post:
    """Return what runs the tasks of this worker process of Dask; it ends with it."""
    del pid
    return _Post()


class _Post:
    """A worker process of Dask: its threads share what tasks are forked from, and its GPUs."""

    def __init__(self) -> None:
        self._processes = LocalExecutor()
        self._lock = threading.Lock()
        self._grants: dict[str, resources.Grant] = {}
        self._stops: dict[str, task_worker.Stop] = {}

    def run(self, spec: str, worker: str, gpu: float, send: Callable[[bytes], None]) -> None:
        """Run a task to its end."""
        stop = self._stops[worker] = task_worker.Stop()
        try:
            devices = self._take(worker, gpu)
            task_worker.run(spec, self._processes, send, stop, devices)
        finally:
            self._grants.pop(worker, None)
            del self._stops[worker]

    def stop(self, worker: str) -> None:
        """End a task, if it still runs."""
        stop = self._stops.get(worker)
        if stop is not None:
            stop.set()

    def _take(self, worker: str, wanted: float) -> tuple[str, ...]:
        """Give a task GPUs of this process's own: Dask counts them, and does not say which."""
        if not wanted:
            return ()
        own = limits.gpus()
        with self._lock:
            devices = resources.pick(wanted, own, list(self._grants.values()))
            if devices is None:
                raise ExecutorError(
                    f"the Dask worker offers more GPUs than it sees, which is {len(own)}",
                    fix="start one worker for each GPU, with CUDA_VISIBLE_DEVICES, as dask-cuda does",
                )
            self._grants[worker] = resources.Grant(1.0, devices)
        return tuple(devices)
