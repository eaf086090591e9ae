"""`dask://host:8786`: tasks as workers on a Dask cluster, started and watched by one small plugin of its scheduler.

Dask ends the tasks of a client that has gone. The plugin's are its own: they outlive the notebook, and another process
finds them by their ids. Dask runs tasks in threads and cannot end one; ours are processes below those threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Any

from nbflow.errors import ExecutorError
from nbflow.executors import dask_workers
from nbflow.executors.remote.desk import IDLE
from nbflow.executors.remote.desk_engine import ANSWER, DeskEngine
from nbflow.executors.remote.engine import NodeRoom
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.model import StepOptions

CONNECT = 10.0
"""Seconds in which what answers at the address has to be a scheduler."""

PLUGIN = f"nbflow-{version('nbflow')}"


def executor(url: str) -> RemoteExecutor:
    """Return the executor for `dask://host:port`; PlanError for another form, ExecutorError without Dask here."""
    return RemoteExecutor(DaskEngine(url))


class DaskEngine(DeskEngine):
    """One Dask cluster, reached through its scheduler."""

    scheme, usual_port = "dask", 8786
    when_nothing_answers = (
        "see that `dask scheduler` runs there, and that its port can be reached from here: 8786 unless it was started "
        "with --port"
    )

    def __init__(self, url: str) -> None:
        super().__init__(url)
        try:
            import distributed
        except ImportError:
            raise ExecutorError(f"{self.place}: Dask is not installed here", fix='pip install "nbflow[dask]"') from None
        self._distributed = distributed
        self._counts_cores = False

    # ------------------------------------------------------------ connected

    def _holds(self, client: Any) -> bool:
        return bool(client.status in {"running", "connecting"})

    def _disconnect(self, client: Any) -> None:
        with contextlib.suppress(Exception), _quiet_dask():  # the scheduler may be gone
            client.close(timeout=2.0)

    def _connected(self) -> Any:
        client = None
        try:
            self._compare(_from_thread(partial(_facts, f"tcp://{self.host}:{self.port}")))
            with _quiet_dask():
                client = self._distributed.Client(
                    f"tcp://{self.host}:{self.port}", timeout=CONNECT, set_as_default=False, name="nbflow"
                )
                _bring_desk(client)
        except BaseException as error:  # an interrupt, too, must not leave the half-made client's threads
            if client is not None:
                self._disconnect(client)
            if not isinstance(error, Exception) or isinstance(error, ExecutorError):
                raise
            text = " ".join(str(error).split())[:300]  # Dask raises whatever the other side has raised
            raise self._no_scheduler(f"{type(error).__name__}: {text}") from error
        return client

    def _no_scheduler(self, why: str) -> ExecutorError:
        return ExecutorError(
            f"{self.place} answers, but not as a Dask scheduler: {why}",
            fix="use the scheduler's own port (8786 by default, not the dashboard's 8787 or a worker's)",
        )

    def _compare(self, facts: Mapping[str, Any]) -> None:
        """Raise ExecutorError for no scheduler, or one that would not understand the code that travels to it."""
        if facts["type"] != "Scheduler":
            raise self._no_scheduler(f"it is a {facts['type']}")
        pairs = {
            "Python": (facts["python"], ".".join(platform.python_version_tuple()[:2])),
            "distributed": (facts["distributed"], version("distributed")),
        }
        for name, (their, own) in pairs.items():
            if their != own:
                raise ExecutorError(
                    f"{self.place} has {name} {their}, this notebook has {own}",
                    fix=f"install the same {name} on both sides",
                )

    def _ask(self, method: str, *words: Any, longest: float = ANSWER) -> Any:
        """Return what the desk answers; ExecutorError where it cannot be asked."""
        client = self._client
        try:
            if client is None or client.status != "running":  # it connects again by itself, for a while
                raise OSError("there is no connection")
            answer = client.sync(self._call, client, method, words, callback_timeout=longest)
            if answer is None:  # the scheduler was started anew, and the client has connected again by itself
                _bring_desk(client)
                answer = client.sync(self._call, client, method, words, callback_timeout=longest)
            return answer[0]
        except Exception as error:  # as above
            text = " ".join(str(error).split())[:300]
            raise ExecutorError(
                f"{self.place} does not answer: {type(error).__name__}: {text}",
                fix="see whether the scheduler still runs; `nbflow attach RUN` takes the run up again",
            ) from error

    @staticmethod
    async def _call(client: Any, method: str, words: Sequence[Any]) -> Any:
        return await getattr(client.scheduler, PLUGIN)(method=method, words=list(words))

    # ------------------------------------------------------------ the engine

    def nodes(self) -> Sequence[NodeRoom]:
        """Return the cluster's worker processes: a task is on one of them."""
        nodes = self._ask("nodes")
        self._counts_cores = any(node.pop("counts_cores") for node in nodes)
        return [NodeRoom(**node) for node in nodes]

    def refuses(self, options: StepOptions) -> str:
        """Return what Dask has no way for."""
        if options.nodes > 1:
            return f"Dask starts no tasks together on several nodes (--nodes {options.nodes}); Ray does"
        if options.gpu % 1:
            return f"Dask counts whole GPUs (--gpu {options.gpu:g}); Ray shares one among several tasks"
        if (options.cpu or 1) > 1 and not self._counts_cores:
            return (
                f"Dask gives each task one thread, and workers there do not count cores (--cpu {options.cpu:g}): "
                'start them with --resources "CPU=8"'
            )
        return ""


async def _facts(address: str) -> dict[str, Any]:
    """Return what answers at an address, as it says of itself in Dask's language.

    Dask's own client would wait without an end where something else answers.
    """
    from distributed.core import rpc

    async with asyncio.timeout(CONNECT), rpc(address) as there:
        identity, versions = await there.identity(), await there.versions()
    python = ".".join(str(versions["host"]["python"]).split(".")[:2])
    return {
        "type": identity["type"], "python": python, "distributed": versions["packages"].get("distributed"),
    }  # fmt: skip


def _from_thread(ask: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    """Return what a coroutine returns, run in a thread: that of a kernel has an event loop that runs."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(ask())).result()


def _bring_desk(client: Any) -> None:
    """Have the desk at the scheduler, if it is not there."""
    client.register_plugin(dask_workers.plugin(PLUGIN, IDLE), name=PLUGIN)


@contextlib.contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keep Dask's warnings off the user's cell: the error that follows says it all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
