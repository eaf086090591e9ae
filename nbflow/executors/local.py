"""`local`: tasks as processes on this machine, forked from a zygote on Linux, in spare workers elsewhere."""

from __future__ import annotations

import os
import sys
import threading

import msgspec

from nbflow import limits, plugins, records, storage, wire
from nbflow.errors import ExecutorError, NbflowError
from nbflow.executors.attempt import Attempt
from nbflow.executors.zygote import Zygote
from nbflow.model import TaskFailure, TaskResult, TaskSpec

LANES = ("zygote", "spare")


class LocalExecutor:
    """Each task in a process of its own on this machine; safe to call from several threads."""

    def __init__(self, url: str = "local", lane: str | None = None) -> None:
        self.url = url
        self.lane = lane or os.environ.get("NBFLOW_LANE") or ("zygote" if sys.platform == "linux" else "spare")
        if self.lane not in LANES:
            raise ExecutorError(f"no lane named {self.lane!r}", fix=f"NBFLOW_LANE is one of: {', '.join(LANES)}")
        self._lock = threading.Lock()
        self._zygotes: list[Zygote] = []
        self._unsafe: frozenset[str] = frozenset()
        self._closed = False

    def slots(self) -> int:
        """Tasks of one core each that fit at the same time."""
        return limits.cores()

    def prepare(self, preload: tuple[str, ...] = ()) -> None:
        """Start what tasks will be forked from, so that the first one does not wait for it."""
        with self._lock:
            self._zygote(frozenset(preload))

    def submit(self, spec: TaskSpec) -> Attempt:
        """Start one attempt; ExecutorError when the executor is closed or a secret is missing."""
        attempt = Attempt(spec, publish)
        order = wire.Submit(0, wire.pack(spec), spec.options.timeout, spec.options.memory, _secrets(spec))
        with self._lock:
            while not self._zygote(frozenset(spec.preload)).submit(attempt, order):
                pass
        return attempt

    def _zygote(self, preload: frozenset[str]) -> Zygote:
        """The newest zygote that is ready; when it lacks modules, another one is started beside it.

        Until that one is ready the old one serves: what it lacks, the task imports itself.
        """
        if self._closed:
            raise ExecutorError("the executor is closed")
        self._zygotes = [zygote for zygote in self._zygotes if zygote.alive]
        for zygote in self._zygotes:
            self._unsafe |= zygote.unsafe
        known = frozenset().union(*(zygote.preload for zygote in self._zygotes))
        if not self._zygotes or preload - known - self._unsafe:
            self._zygotes.append(Zygote((known | preload) - self._unsafe))
        ready = [zygote for zygote in self._zygotes if zygote.ready.is_set()]
        if not ready:
            return self._zygotes[0]
        for old in self._zygotes[: self._zygotes.index(ready[-1])]:
            old.retire()
        return ready[-1]

    def close(self) -> None:
        """End everything that it started."""
        with self._lock:
            self._closed = True
            zygotes, self._zygotes = self._zygotes, []
        for zygote in zygotes:
            zygote.close()


def publish(spec: TaskSpec, result: TaskResult) -> TaskResult:
    """A finished attempt in; its record is in the store when the result comes out, else the result is a failure."""
    if result.record is None:
        return result
    try:
        records.publish(storage.open_store(spec.store), result.record)
    except NbflowError as error:
        failure = TaskFailure(type=type(error).__name__, message=error.message, cell=spec.cell, fix=error.fix)
        return msgspec.structs.replace(result, record=None, failure=failure)
    return result


def _secrets(spec: TaskSpec) -> dict[str, str]:
    """A spec in; the values of its secrets out, from the environment or else from a provider."""
    return {name: _secret(name, spec) for name in spec.secrets}


def _secret(name: str, spec: TaskSpec) -> str:
    if name in os.environ:
        return os.environ[name]
    for provider in plugins.names("secrets"):
        try:
            return str(plugins.load("secrets", provider)().get(name))
        except KeyError:
            continue
    raise ExecutorError(
        f"the secret {name!r} is set nowhere", step=spec.step, cell=spec.cell, fix=f"export {name}=… and start again"
    )
