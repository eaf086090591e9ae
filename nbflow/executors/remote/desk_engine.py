"""The driver's side of a cluster with a desk at its head: what engines of that kind have in common."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbflow.errors import ExecutorError
from nbflow.executors.remote.address import parse_address, reach
from nbflow.executors.remote.desk import LONG_POLL, wants
from nbflow.executors.remote.engine import WorkerOrder, WorkerState

ANSWER = 30.0
"""Seconds that a desk may take to answer a question."""


class DeskEngine:
    """One cluster: orders go to its desk, and what workers say live comes from there.

    An engine says how it connects (`_connected`, `_disconnect`), whether a connection holds (`_holds`), and how a
    method of the desk is called (`_ask`).
    """

    queues = False

    scheme: str
    usual_port: int
    when_nothing_answers: str
    """What to do where nobody listens at the address."""

    def __init__(self, url: str) -> None:
        """Take the address; PlanError where it is none."""
        self.host, self.port = parse_address(url, self.scheme, self.usual_port)
        self.place = f"{self.scheme}://{self.host}:{self.port}"
        self._driver = secrets.token_hex(8)
        self._lock = threading.RLock()  # a connection may be lost again while it is made
        self._client: Any = None
        self._listener: threading.Thread | None = None
        self._live: dict[str, Callable[[bytes], None]] = {}
        self._closed = threading.Event()

    # ------------------------------------------------------------ an engine's own

    def _connected(self) -> Any:
        """Return a new client of the engine, with the desk at its other end; ExecutorError says what is wrong."""
        raise NotImplementedError

    def _holds(self, client: Any) -> bool:  # noqa: ARG002  # the answer where an engine says itself that it is lost
        """Return whether a client's connection holds, or mends itself."""
        return True

    def _disconnect(self, client: Any) -> None:
        """Let go of a client, whatever has become of its other end."""
        raise NotImplementedError

    def _ask(self, method: str, *words: Any, longest: float = ANSWER) -> Any:
        """Return what a method of the desk answers; ExecutorError where it cannot be asked."""
        raise NotImplementedError

    # ------------------------------------------------------------ the engine

    def connect(self) -> None:
        """Reach the cluster; ExecutorError says what is wrong."""
        with self._lock:
            if self._client is not None and self._holds(self._client):
                return
            if self._closed.is_set():
                raise ExecutorError(f"{self.place} was closed")
            reach(self.host, self.port, self.place, self.when_nothing_answers)
            self._lose()
            self._client = self._connected()
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name=f"nbflow {self.scheme}", daemon=True)
                self._listener.start()

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        """Start a worker; return its id."""
        worker = secrets.token_hex(8)
        self._live[worker] = live
        self._order(self._driver, worker, order.spec, order.name, wants(order))
        return worker

    def _order(self, *words: Any) -> None:
        """Have the desk start a worker."""
        self._ask("start", *words)

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        """Return how workers stand."""
        answers = self._ask("look", list(ids))
        return {worker: WorkerState(state=state, message=text, where=where) for worker, state, text, where in answers}

    def cancel(self, worker: str, *, hard: bool) -> None:
        """Take a worker out of the queue, or end its task with all its processes."""
        self._ask("cancel", worker, hard)

    def close(self) -> None:
        """Disconnect."""
        self._closed.set()
        self._lose()

    def _lose(self) -> None:
        """Drop the connection; `connect` makes another one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            self._disconnect(client)

    def _listen(self) -> None:
        """Take what comes live, for as long as the desk answers; without it the datastore has everything."""
        while not self._closed.is_set():
            try:
                pieces = self._ask("take", self._driver, LONG_POLL, longest=LONG_POLL + ANSWER)
            except ExecutorError:
                if self._closed.wait(1.0):
                    return
                continue
            for worker, data in pieces:
                live = self._live.get(worker)
                if live is not None:
                    live(bytes(data))
