"""What of nbflow lives on a Ray cluster: an actor that starts workers there, and what a worker does."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from nbflow.executors.local import LocalExecutor
from nbflow.executors.remote import probe, task_worker

LEFT = 60.0
"""Seconds after which a driver that takes nothing counts as gone: the datastore has everything for the next one."""


def desk_class() -> type:
    """Return the class of the actor; made here, so that it travels by value to a head that has no nbflow."""
    import asyncio
    import contextlib
    import time as clock

    import ray

    def errand(spec: str, worker: str, desk: Any) -> None:
        import importlib

        work = importlib.import_module("nbflow.executors.ray_workers").work
        work(spec, lambda data: desk.put.remote(worker, data))

    left = LEFT

    class Desk:
        """Starts workers and keeps what comes from them until their driver takes it."""

        def __init__(self, idle: float) -> None:
            self.idle = idle
            self.asked = clock.monotonic()
            self.drivers: dict[str, str] = {}
            self.wants: dict[str, dict[str, float]] = {}
            self.refs: dict[str, Any] = {}
            self.begun: dict[str, str] = {}
            self.ended: dict[str, tuple[str, str]] = {}
            self.pieces: dict[str, list[tuple[str, bytes]]] = {}
            self.news: dict[str, asyncio.Event] = {}
            self.taken: dict[str, float] = {}
            self.tasks: set[Any] = set()

        async def start(self, driver: str, worker: str, spec: str, name: str, resources: dict[str, float]) -> None:
            self.asked = clock.monotonic()
            if not self.tasks:
                self._keep(asyncio.ensure_future(self._leave()))
            self.drivers[worker], self.wants[worker] = driver, resources
            own = ray.get_runtime_context().current_actor
            remote = ray.remote(max_retries=0)(errand).options(name=name, **resources)
            self.refs[worker] = ref = remote.remote(spec, worker, own)
            self._keep(asyncio.ensure_future(self._follow(worker, ref)))

        def _keep(self, task: Any) -> None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        async def _follow(self, worker: str, ref: Any) -> None:
            try:
                await ref
                self.ended[worker] = "done", ""
            except BaseException as error:  # what ended it decides what the driver is told, a cancelled await included
                names = {kind.__name__ for kind in type(error).__mro__}
                text = str(error).strip()
                if "OutOfMemoryError" in names:
                    self.ended[worker] = "memory", text.partition("\n")[0]
                elif names & {"TaskCancelledError", "CancelledError"}:
                    self.ended[worker] = "cancelled", "cancelled"
                elif "WorkerCrashedError" in names:
                    self.ended[worker] = "crashed", "its process was ended (killed, out of memory, or a crash)"
                elif names & {"NodeDiedError", "OwnerDiedError", "LocalRayletDiedError", "ObjectLostError"}:
                    self.ended[worker] = "lost", "its node died or cannot be reached"
                elif "RuntimeEnvSetupError" in names or "No module named 'nbflow" in text:
                    self.ended[worker] = "refused", "nbflow is not installed on the worker: pip install 'nbflow[ray]'"
                else:
                    self.ended[worker] = "crashed", text.splitlines()[-1] if text else type(error).__name__
            self._ring(self.drivers[worker])

        def _ring(self, driver: str) -> None:
            self.news.setdefault(driver, asyncio.Event()).set()

        async def _leave(self) -> None:
            while len(self.ended) < len(self.refs) or clock.monotonic() - self.asked < self.idle:  # noqa: ASYNC110
                await asyncio.sleep(self.idle / 20)
            ray.actor.exit_actor()

        async def put(self, worker: str, data: bytes) -> None:
            self.begun.setdefault(worker, "")
            driver = self.drivers.get(worker, "")
            if data and clock.monotonic() - self.taken.get(driver, self.asked) < left:  # else it has gone
                self.pieces.setdefault(driver, []).append((worker, data))
                self._ring(driver)

        async def take(self, driver: str, patience: float) -> list[tuple[str, bytes]]:
            self.asked = self.taken[driver] = clock.monotonic()
            news = self.news.setdefault(driver, asyncio.Event())
            if not self.pieces.get(driver):
                news.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), patience)
            return self.pieces.pop(driver, [])

        async def look(self, ids: list[str]) -> list[tuple[str, str, str, str]]:
            self.asked = clock.monotonic()
            free: Any = None
            answers = []
            for worker in ids:
                if worker in self.ended:
                    answers.append((worker, *self.ended[worker], ""))
                elif worker not in self.refs:
                    answers.append((worker, "lost", "the cluster knows nothing of it: its head was started anew", ""))
                elif worker in self.begun:
                    answers.append((worker, "running", "", ""))
                else:
                    free = ray.available_resources() if free is None else free
                    answers.append((worker, "waiting", self._why(worker, free), ""))
            return answers

        def _why(self, worker: str, free: dict[str, float]) -> str:
            words = {"num_cpus": ("CPU", "cores"), "num_gpus": ("GPU", "GPUs"), "memory": ("memory", "bytes of memory")}
            lacks = [
                f"{self.wants[worker][option]:g} {word} wanted, {free.get(key, 0):g} free"
                for option, (key, word) in words.items()
                if self.wants[worker].get(option, 0) > free.get(key, 0)
            ]
            return "waits for " + " and ".join(lacks) if lacks else "waits for a worker process to start"

        async def cancel(self, worker: str, hard: bool) -> None:
            ref = self.refs.get(worker)
            if ref is not None and worker not in self.ended and (hard or worker not in self.begun):
                ray.cancel(ref, force=hard)

    return Desk


def work(spec: str, send: Callable[[bytes], None]) -> None:
    """Run a task, or answer a question, in a worker process of Ray."""
    send(b"")  # it has begun
    if probe.is_question(spec):
        probe.answer(spec)
    else:
        task_worker.run(spec, _processes(os.getpid()), send, threading.Event())


@functools.cache
def _processes(pid: int) -> LocalExecutor:
    """Return what forks the tasks that this worker process of Ray gets one after another; it ends with it."""
    del pid
    return LocalExecutor(lane="zygote")
