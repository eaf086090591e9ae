"""Try the place that `--on` names: it is reached, a worker starts there, and reads and writes the datastore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nbflow import plugins
from nbflow.errors import NbflowError
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.model import Frozen


class Trial(Frozen, frozen=True):
    """One thing that was tried: whether it works, what was found, what to do."""

    part: str
    works: bool
    found: str
    fix: str = ""


def try_place(on: str, store: str) -> Iterator[Trial]:
    """Yield what was tried at a URL, with the datastore at another; nothing of it raises."""
    executor: Any = None
    try:
        executor = plugins.load("executors", on.partition(":")[0])(on)
    except NbflowError as error:
        yield Trial("place", works=False, found=error.message, fix=error.fix or "")
        return
    try:
        if not isinstance(executor, RemoteExecutor):
            yield Trial("place", works=True, found=f"{on}: tasks are processes of this machine")
            return
        reached = _tried("place", lambda: f"{on}: {executor.describe()}")
        yield reached
        if reached.works:
            yield _tried("worker", lambda: executor.try_worker(store))
    finally:
        executor.close()


def _tried(part: str, attempt: Callable[[], str]) -> Trial:
    try:
        return Trial(part, works=True, found=attempt())
    except NbflowError as error:
        return Trial(part, works=False, found=error.message, fix=error.fix or "")
