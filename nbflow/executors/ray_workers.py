"""What of nbflow lives on a Ray cluster: an actor that starts workers there, and what a worker does."""

from __future__ import annotations

import functools
import os
import socket
from typing import Any

from nbflow.executors.local import LocalExecutor
from nbflow.executors.remote import probe, task_worker
from nbflow.executors.remote.desk import desk_class
from nbflow.model import Parallel

KILLED = 5.0
"""Seconds that a worker which is killed may take to be gone."""


def actor_class() -> type[Any]:
    """Return the class of the actor; made here, so that it travels by value to a head that has no nbflow."""
    import asyncio
    import contextlib

    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    desk = desk_class()

    def errand(spec: str, worker: str, own: Any, rank: int, nodes: int) -> bool:
        import importlib

        return bool(importlib.import_module("nbflow.executors.ray_workers").work(spec, worker, own, rank, nodes))

    class Gathering:
        """The processes that run a task together: who has come, who has finished well."""

        def __init__(self, nodes: int) -> None:
            self.nodes = nodes
            self.hosts: dict[int, str] = {}
            self.master = ("", 0)
            self.finished: set[int] = set()
            self.changed = asyncio.Condition()

        async def until(self, count: int, of: dict[int, str] | set[int]) -> None:
            async with self.changed:
                await self.changed.wait_for(lambda: len(of) >= count)

        async def notify(self) -> None:
            async with self.changed:
                self.changed.notify_all()

    class RayDesk(desk):  # type: ignore[misc, valid-type]
        """Its workers are tasks of Ray, which owns them for as long as the actor lives."""

        def __init__(self, idle: float) -> None:
            super().__init__(idle)
            self.serving: dict[str, Any] = {}  # worker -> what runs `serve` for it
            self.gatherings: dict[str, Gathering] = {}
            self.errand = ray.remote(max_retries=0)(errand)  # made once: each one is pickled and handed to all nodes

        async def serve(self, worker: str, spec: str, name: str) -> None:
            self.serving[worker] = asyncio.current_task()
            refs: list[Any] = []
            try:
                if self.wants[worker]["nodes"] > 1:
                    await self.serve_together(worker, spec, name, refs)
                else:
                    refs.append(self.begin_rank(worker, spec, name, 0))
                    await refs[0]
            except BaseException:  # the wish that it ends included
                await self.kill(refs)
                raise

        def begin_rank(self, worker: str, spec: str, name: str, rank: int, **place: Any) -> Any:
            wants = self.wants[worker]
            memory = {"memory": wants["memory"]} if wants["memory"] else {}
            options = {"name": name, "num_cpus": wants["CPU"], "num_gpus": wants["GPU"], **memory, **place}
            own = ray.get_runtime_context().current_actor
            return self.errand.options(**options).remote(spec, worker, own, rank, int(wants["nodes"]))

        async def serve_together(self, worker: str, spec: str, name: str, refs: list[Any]) -> None:
            """Run one process on each of several nodes: all begin together, and the first that fails ends them all."""
            wants = self.wants[worker]
            gathering = self.gatherings[worker] = Gathering(int(wants["nodes"]))
            bundle = {key: amount for key, amount in wants.items() if amount and key != "nodes"}
            group = ray.util.placement_group([bundle] * gathering.nodes, "STRICT_SPREAD")
            try:
                await group.ready()
                for rank in range(gathering.nodes):
                    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
                    refs.append(self.begin_rank(worker, spec, name, rank, scheduling_strategy=place))
                ranks = [asyncio.ensure_future(self.watch_rank(worker, rank, ref)) for rank, ref in enumerate(refs)]
                for each in asyncio.as_completed(ranks):
                    if not await each:
                        await self.kill(refs)
                        break
                await asyncio.gather(*ranks)
            finally:
                ray.util.remove_placement_group(group)

        async def watch_rank(self, worker: str, rank: int, ref: Any) -> bool:
            """Return whether one of several has finished well; what has ended it first is what has ended all."""
            gathering = self.gatherings[worker]
            try:
                is_good = await ref
            except BaseException as error:  # as with a worker that is alone
                state, text = self.read_end(error) or self.read_text(error)
                who = f"rank {rank} of {gathering.nodes}, on {gathering.hosts.get(rank, 'a node')}"
                self.end(worker, state, f"{who}: {text}")
                return False
            if is_good:
                gathering.finished.add(rank)
                await gathering.notify()
            return bool(is_good)

        async def kill(self, refs: list[Any]) -> None:
            for ref in refs:
                ray.cancel(ref, force=True)
            for ref in refs:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(asyncio.wrap_future(ref.future()), KILLED)

        async def stop(self, worker: str, hard: bool) -> None:
            del hard  # nobody asks for a soft end of one that has begun
            if worker in self.serving:
                self.serving[worker].cancel()

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

        async def meet(self, worker: str, rank: int, host: str, address: tuple[str, int]) -> tuple[str, int]:
            """Return the first one's address once all are there that run a task together."""
            gathering = self.gatherings[worker]
            gathering.hosts[rank] = host
            if rank == 0:
                gathering.master = address
            await gathering.notify()
            await gathering.until(gathering.nodes, gathering.hosts)
            await self.begin(worker, gathering.hosts[0])
            return gathering.master

        async def wait_for_others(self, worker: str) -> None:
            """Return once all but the first one have finished well."""
            gathering = self.gatherings[worker]
            await gathering.until(gathering.nodes - 1, gathering.finished)

    return RayDesk


class RayGang:
    """Those that run a task together, as one of them reaches them through the desk."""

    def __init__(self, worker: str, own: Any, rank: int, nodes: int) -> None:
        import ray

        self._worker, self._own = worker, own
        here = (ray.util.get_node_ip_address(), _free_port())
        address, port = ray.get(own.meet.remote(worker, rank, socket.gethostname(), here))
        self.parallel = Parallel(rank=rank, world_size=nodes, master_address=address, master_port=port)

    def wait(self) -> None:
        """Return once all the others have finished well."""
        import ray

        ray.get(self._own.wait_for_others.remote(self._worker))


def _free_port() -> int:
    """Return a port that nobody uses at the moment, for the first of several to listen at."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def work(spec: str, worker: str, own: Any, rank: int, nodes: int) -> bool:
    """Run a task, or answer a question, in a worker process of Ray; return whether that went well."""
    gang = RayGang(worker, own, rank, nodes) if nodes > 1 else None
    if gang is None:
        own.begin.remote(worker, socket.gethostname())
    if probe.is_question(spec):
        probe.answer(spec)
        return True
    processes = _processes(os.getpid())
    result = task_worker.run(spec, processes, lambda data: own.put.remote(worker, data), task_worker.Stop(), None, gang)
    return result.failure is None


@functools.cache
def _processes(pid: int) -> LocalExecutor:
    """Return what forks the tasks that this worker process of Ray gets one after another; it ends with it."""
    del pid
    return LocalExecutor()
