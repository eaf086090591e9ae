"""What of nbflow lives on a Ray cluster: an actor that starts workers there, and what a worker does."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from nbflow.executors.local import LocalExecutor
from nbflow.executors.remote import probe, task_worker
from nbflow.executors.remote.desk import desk_class


def actor_class() -> type[Any]:
    """Return the class of the actor; made here, so that it travels by value to a head that has no nbflow."""
    import ray

    desk = desk_class()

    def errand(spec: str, worker: str, own: Any) -> None:
        import importlib
        import socket

        work = importlib.import_module("nbflow.executors.ray_workers").work
        own.begin.remote(worker, socket.gethostname())
        work(spec, lambda data: own.put.remote(worker, data))

    class RayDesk(desk):  # type: ignore[misc, valid-type]
        """Its workers are tasks of Ray, which owns them for as long as the actor lives."""

        def __init__(self, idle: float) -> None:
            super().__init__(idle)
            self.refs: dict[str, Any] = {}

        async def serve(self, worker: str, spec: str, name: str) -> None:
            wants = self.wants[worker]
            memory = {"memory": wants["memory"]} if wants["memory"] else {}
            remote = ray.remote(max_retries=0)(errand).options(
                name=name, num_cpus=wants["CPU"], num_gpus=wants["GPU"], **memory
            )
            self.refs[worker] = ref = remote.remote(spec, worker, ray.get_runtime_context().current_actor)
            await ref

        async def stop(self, worker: str, hard: bool) -> None:
            if worker in self.refs:
                ray.cancel(self.refs[worker], force=hard)

        def read_end(self, error: BaseException) -> tuple[str, str] | None:
            names = {kind.__name__ for kind in type(error).__mro__}
            if "OutOfMemoryError" in names:
                return "memory", str(error).strip().partition("\n")[0]
            if names & {"TaskCancelledError", "CancelledError"}:
                return "cancelled", "cancelled"
            if "WorkerCrashedError" in names:
                return "crashed", "its process was ended (killed, out of memory, or a crash)"
            if names & {"NodeDiedError", "OwnerDiedError", "LocalRayletDiedError", "ObjectLostError"}:
                return "lost", "its node died or cannot be reached"
            if "RuntimeEnvSetupError" in names:
                return "refused", "its environment could not be made"
            return None

        async def free(self) -> dict[str, float]:
            return dict(ray.available_resources())

        def leave(self) -> None:
            ray.actor.exit_actor()

        async def put(self, worker: str, data: bytes) -> None:
            self.keep_piece(worker, data)

    return RayDesk


def work(spec: str, send: Callable[[bytes], None]) -> None:
    """Run a task, or answer a question, in a worker process of Ray."""
    if probe.is_question(spec):
        probe.answer(spec)
    else:
        task_worker.run(spec, _processes(os.getpid()), send, threading.Event())


@functools.cache
def _processes(pid: int) -> LocalExecutor:
    """Return what forks the tasks that this worker process of Ray gets one after another; it ends with it."""
    del pid
    return LocalExecutor(lane="zygote")
