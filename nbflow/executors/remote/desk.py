"""What starts workers at the head of a cluster whose engine ends the tasks of a driver that has gone: pure asyncio."""

from __future__ import annotations

from typing import Any

from nbflow.executors.remote.engine import WorkerOrder

IDLE = 600.0
"""Seconds without work and questions after which a desk ends."""

LEFT = 60.0
"""Seconds after which a driver that takes nothing counts as gone: the datastore has everything for the next one."""

LONG_POLL = 10.0
"""Seconds that a driver's question for news waits at the desk."""


def wants(order: WorkerOrder) -> dict[str, float]:
    """Return what a worker wants, as a desk reads it."""
    return {"CPU": order.cpu, "GPU": order.gpu, "memory": order.memory or 0, "nodes": order.nodes}


def desk_class() -> type[Any]:
    """Return the class that an engine's own desk derives from.

    It is made here, and needs nothing of nbflow, so that it travels by value to a head that has no nbflow.
    """
    import asyncio
    import contextlib
    import time as clock
    from collections.abc import Mapping

    left = LEFT

    class Desk:
        """Starts workers and keeps what comes from them until their driver takes it.

        An engine says how a worker is run (`serve`), ended (`stop`) and refused (`read_end`), what is free (`free`)
        and how a desk ends (`leave`).
        """

        def __init__(self, idle: float) -> None:
            self.idle = idle
            self.asked = clock.monotonic()
            self.drivers: dict[str, str] = {}
            self.wants: dict[str, dict[str, float]] = {}
            self.begun: dict[str, str] = {}  # worker -> the machine that it has begun on
            self.ended: dict[str, tuple[str, str]] = {}
            self.pieces: dict[str, list[tuple[str, bytes]]] = {}
            self.news: dict[str, asyncio.Event] = {}
            self.taken: dict[str, float] = {}
            self.tasks: set[Any] = set()

        # ------------------------------------------------------------ an engine's own

        async def serve(self, worker: str, spec: str, name: str) -> None:
            """Run a worker to its end; raise what has ended it."""
            raise NotImplementedError

        async def stop(self, worker: str, hard: bool) -> None:
            """End a worker: taken from the queue, or killed."""
            raise NotImplementedError

        def read_end(self, error: BaseException) -> tuple[str, str] | None:
            """Return state and words for what has ended a worker, None where the engine has none of its own."""
            raise NotImplementedError

        async def free(self) -> Mapping[str, float]:
            """Return what nobody uses at the moment: CPU, GPU, memory."""
            raise NotImplementedError

        def leave(self) -> None:
            """End."""
            raise NotImplementedError

        # ------------------------------------------------------------ for drivers

        async def start(self, driver: str, worker: str, spec: str, name: str, wants: dict[str, float]) -> None:
            self.asked = clock.monotonic()
            if not self.tasks:
                self._keep(asyncio.ensure_future(self._watch_idle()))
            self.drivers[worker], self.wants[worker] = driver, wants
            self._keep(asyncio.ensure_future(self._follow(worker, spec, name)))

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
            free: Mapping[str, float] | None = None
            answers = []
            for worker in ids:
                if worker in self.ended:
                    answers.append((worker, *self.ended[worker], self.begun.get(worker, "")))
                elif worker not in self.drivers:
                    answers.append((worker, "lost", "the cluster knows nothing of it: its head was started anew", ""))
                elif worker in self.begun:
                    answers.append((worker, "running", "", self.begun[worker]))
                else:
                    free = await self.free() if free is None else free
                    answers.append((worker, "waiting", self._why(worker, free), ""))
            return answers

        async def cancel(self, worker: str, hard: bool) -> None:
            if worker in self.drivers and worker not in self.ended and (hard or worker not in self.begun):
                await self.stop(worker, hard)

        # ------------------------------------------------------------ for workers

        async def begin(self, worker: str, where: str) -> bool:
            """Note where a worker begins; return whether it may: it is the first, and still wanted."""
            if worker in self.begun or worker in self.ended or worker not in self.drivers:
                return False
            self.begun[worker] = where
            return True

        def keep_piece(self, worker: str, data: bytes) -> None:
            driver = self.drivers.get(worker, "")
            if clock.monotonic() - self.taken.get(driver, self.asked) < left:  # else it has gone
                self.pieces.setdefault(driver, []).append((worker, data))
                self.ring(driver)

        # ------------------------------------------------------------ inside

        def ring(self, driver: str) -> None:
            self.news.setdefault(driver, asyncio.Event()).set()

        def end(self, worker: str, state: str, text: str) -> None:
            """Note how a worker has ended; the first word counts."""
            self.ended.setdefault(worker, (state, text))
            self.ring(self.drivers[worker])

        def _keep(self, task: Any) -> None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        async def _follow(self, worker: str, spec: str, name: str) -> None:
            try:
                await self.serve(worker, spec, name)
                self.end(worker, "done", "")
            except BaseException as error:  # what ended it decides what the driver is told, a cancelled await included
                self.end(worker, *(self.read_end(error) or self.read_text(error)))

        def read_text(self, error: BaseException) -> tuple[str, str]:
            text = str(error).strip()
            if "No module named 'nbflow" in text:
                return (
                    "refused",
                    "nbflow is not installed on the workers: install the version there that the notebook has",
                )
            return "crashed", text.splitlines()[-1] if text else type(error).__name__

        async def _watch_idle(self) -> None:
            while len(self.ended) < len(self.drivers) or clock.monotonic() - self.asked < self.idle:  # noqa: ASYNC110
                await asyncio.sleep(self.idle / 20)
            self.leave()

        def _why(self, worker: str, free: Mapping[str, float]) -> str:
            words = {"CPU": "cores", "GPU": "GPUs", "memory": "bytes of memory"}
            wants = self.wants[worker]
            lacks = [
                f"{wants[key] * wants['nodes']:g} {word} wanted, {free.get(key, 0):g} free"
                for key, word in words.items()
                if wants[key] * wants["nodes"] > free.get(key, 0)
            ]
            if lacks:
                return "waits for " + " and ".join(lacks)
            several = f"{wants['nodes']:g} machines at once, and for " if wants["nodes"] > 1 else ""
            return f"waits for {several}a worker process to start"

    return Desk
