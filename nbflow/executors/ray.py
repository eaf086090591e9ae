"""`ray://host:10001`: tasks as workers on a Ray cluster, started and watched by one small actor of ours there.

A Ray driver's tasks end with it. The actor is detached and so are the tasks that it starts: they outlive the notebook,
and another process finds them by their ids. It holds no core, and ends by itself once nothing is left to do.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from nbflow.errors import ExecutorError
from nbflow.executors.ray_workers import actor_class
from nbflow.executors.remote.desk import IDLE
from nbflow.executors.remote.desk_engine import ANSWER, DeskEngine
from nbflow.executors.remote.engine import NodeRoom
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.model import StepOptions

NAMESPACE = "nbflow"

CONNECTING = threading.Lock()
"""Held while Ray's client connects, which changes what is global to it."""


def executor(url: str) -> RemoteExecutor:
    """Return the executor for `ray://host:port`; PlanError for another form, ExecutorError without Ray here."""
    return RemoteExecutor(RayEngine(url))


class RayEngine(DeskEngine):
    """One Ray cluster, reached through its client port."""

    scheme, usual_port = "ray", 10001
    when_nothing_answers = (
        "see that the cluster runs (`ray status` there) and that its client port, 10001 unless it was started with "
        "--ray-client-server-port, can be reached from here"
    )

    def __init__(self, url: str) -> None:
        super().__init__(url)
        try:
            import ray
        except ImportError:
            raise ExecutorError(f"{self.place}: Ray is not installed here", fix='pip install "nbflow[ray]"') from None
        self._ray = ray
        self._context: Any = None
        self._desk: Any = None

    # ------------------------------------------------------------ connected

    def _disconnect(self, client: Any) -> None:
        with contextlib.suppress(Exception), _quiet_ray():  # the cluster may be gone
            client.disconnect()

    def _connected(self) -> Any:
        client = self._twice()
        self._context = client._context_to_restore  # noqa: SLF001  # there is no public way for threads
        try:
            with self._here():
                self._desk = self._find_desk()
        except BaseException:  # Ctrl-C as well: a client that nobody holds would keep its server on the cluster
            self._disconnect(client)
            raise
        return client

    def _twice(self) -> Any:
        try:
            return self._try_connect()
        except ConnectionAbortedError:  # the cluster did not get a server for us ready: one time in a dozen, by itself
            pass
        except Exception as error:  # Ray's client raises whatever its server has raised
            raise self._trouble(error) from error
        try:
            return self._try_connect()
        except Exception as error:  # as above
            raise self._trouble(error) from error

    def _try_connect(self) -> Any:
        from ray._private import client_mode_hook

        was_client = client_mode_hook.is_client_mode_enabled
        with CONNECTING, _own_sigterm(), _quiet_ray():
            try:
                return self._ray.init(
                    self.place, allow_multiple=True, log_to_driver=False, namespace=NAMESPACE, logging_level="ERROR"
                )
            finally:
                if not was_client:  # the user's own `import ray` stays as it was
                    client_mode_hook._explicitly_disable_client_mode()  # noqa: SLF001

    def _trouble(self, error: Exception) -> ExecutorError:
        """Return what went wrong while connecting, as an error that says what to do."""
        text = " ".join(str(error).split())
        if _mismatch(error):
            return ExecutorError(
                f"{self.place}: {text[:300]}", fix="install the same Ray, for the same Python minor, on both sides"
            )
        if "auth" in text.lower() or "token" in text.lower():
            return ExecutorError(
                f"{self.place} refuses this client: {text[:300]}",
                fix="set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's own",
            )
        return ExecutorError(
            f"{self.place} answers, but not as a Ray client server: {type(error).__name__}: {text[:300]}",
            fix="use the client port (10001 by default, not the dashboard's 8265 or the head's 6379); where the "
            "cluster asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN",
        )

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """Speak to this cluster inside, whatever the user's own Ray in this process is connected to."""
        api = self._ray.util.client.ray
        before = api.set_context(self._context)
        try:
            yield
        except ExecutorError:
            raise
        except Exception as error:  # Ray's client raises whatever its server has raised, and gRPC's own
            text = " ".join(str(error).split())[:300]
            if not self._context.is_connected():
                self._lose()
            raise ExecutorError(
                f"{self.place} does not answer: {type(error).__name__}: {text}",
                fix="see whether the cluster still runs; `nbflow attach RUN` takes the run up again",
            ) from error
        finally:
            api.set_context(before)

    def _find_desk(self) -> Any:
        name = f"nbflow-{version('nbflow')}"
        try:
            return self._context.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            options = {
                "name": name, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0,
                "max_restarts": 0, "max_concurrency": 1000, "resources": self._at_head(),
            }  # fmt: skip
            return self._context.remote(actor_class()).options(**options).remote(IDLE)

    def _at_head(self) -> dict[str, float]:
        """Return what keeps the actor on the head, which the cluster would not survive anyway."""
        return {"node:__internal_head__": 0.001} if "node:__internal_head__" in self._resources() else {}

    def _resources(self) -> dict[str, float]:
        return dict(self._context.cluster_resources())

    # ------------------------------------------------------------ the engine

    def nodes(self) -> Sequence[NodeRoom]:
        """Return the cluster's machines."""
        with self._here():
            nodes = self._context.nodes()
        rooms = []
        for node in nodes:
            resources = node.get("Resources", {})
            if node.get("Alive") and resources.get("CPU"):
                memory = resources.get("memory")
                rooms.append(NodeRoom(
                    name=node.get("NodeManagerHostname", ""), cpu=resources["CPU"], gpu=resources.get("GPU", 0.0),
                    memory=int(memory) if memory else None,
                ))  # fmt: skip
        return rooms

    def refuses(self, options: StepOptions) -> str:
        """Return nothing: what a step may ask for Ray has a way for."""
        del options
        return ""

    def _ask(self, method: str, *words: Any, longest: float = ANSWER) -> Any:
        if self._client is None:  # the connection was lost, and may come back
            raise ExecutorError(f"there is no connection to {self.place}")
        with self._here():
            return self._context.get(getattr(self._desk, method).remote(*words), timeout=longest)

    def _order(self, *words: Any) -> None:
        """Have the desk start a worker; its answer is not awaited.

        Of an order that did not arrive `look` says that nobody knows it, and it is sent again.
        """
        with self._here():
            self._desk.start.remote(*words)


def _mismatch(error: BaseException) -> bool:
    return "mismatch" in str(error).lower() or "incompatible" in str(error).lower()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does when it is asked to end: Ray would have it exit at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    """Keep Ray's warnings and its logger off the user's cell while connecting: the error that follows says it all."""
    import logging
    import warnings

    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
