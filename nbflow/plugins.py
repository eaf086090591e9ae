"""Where others plug in: one small Protocol a kind, and one look-up by name that loads on first use."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from nbflow.errors import OptionError, nearest
from nbflow.model import Finding, Segment, Step, TaskEvent, TaskSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KINDS = ("executors", "serializers", "exporters", "cards", "secrets", "calls")

BUILT_IN: dict[str, dict[str, str]] = {
    "executors": {
        "dask": "nbflow.executors.dask:executor",
        "local": "nbflow.executors.local:LocalExecutor",
        "ray": "nbflow.executors.ray:executor",
        "slurm": "nbflow.executors.slurm:executor",
        "ssh": "nbflow.executors.ssh.engine:executor",
    },
    "serializers": {},
    "exporters": {
        "metaflow": "nbflow.exporters.metaflow:MetaflowExporter",
        "script": "nbflow.exporters.script:ScriptExporter",
    },
    "cards": {},
    "secrets": {},
    "calls": {},
}
"""Our own plug-ins, kind -> name -> `module:object`: found without asking the installed packages."""


@runtime_checkable
class Handle(Protocol):
    """One submitted attempt."""

    def events(self) -> Iterator[TaskEvent]:
        """Yield its events as they come, blocking in between; the last one is always `Ended`."""

    def cancel(self, grace: float) -> None:
        """Interrupt the task, and end its whole process tree after `grace` seconds; returns at once."""


@runtime_checkable
class SupportsPush(Protocol):
    """A handle that passes on its events by itself: for small tasks a thread for each would cost more than the task."""

    def push(self, sink: Callable[[TaskEvent], None]) -> None:
        """Pass its events, from now on, to a function that returns at once; the last one is always `Ended`."""


@runtime_checkable
class SupportsLog(Protocol):
    """A handle whose task may write its log itself, where it goes on when this process has ended."""

    keeps_log: bool
    """Whether it does, under the name of the attempt that was submitted."""


@runtime_checkable
class Executor(Protocol):
    """A place where tasks run; made by `factory(url)`, must be safe to call from several threads."""

    def submit(self, spec: TaskSpec) -> Handle:
        """Start one attempt; ExecutorError when the place cannot be used."""

    def close(self) -> None:
        """End everything that it started."""


@runtime_checkable
class SupportsPreparation(Protocol):
    """An executor that starts tasks sooner when it knows what they import."""

    def prepare(self, preload: tuple[str, ...] = ()) -> None:
        """Start what tasks come from, with these modules; returns at once."""


@runtime_checkable
class SupportsEnvironment(Protocol):
    """An executor whose tasks begin with the variables of the process that it stands in."""

    def inherit(self, variables: Callable[[], Mapping[str, str]]) -> None:
        """Take the variables from here from now on: a kernel's cells have set some of its own."""


@runtime_checkable
class SupportsGates(Protocol):
    """An executor whose tasks wait for a file of this machine before they do anything outside (`TaskSpec.gate`)."""

    def waits(self, spec: TaskSpec) -> bool:
        """Return whether a task like this one would."""


@runtime_checkable
class SupportsCapacity(Protocol):
    """An executor that knows how many tasks it can run at once."""

    def slots(self) -> int:
        """Return how many tasks of one core each fit at the same time."""


@runtime_checkable
class SupportsRoom(Protocol):
    """An executor on one machine, whose GPUs and memory its tasks share."""

    def gpus(self) -> tuple[str, ...]:
        """Return the ids of its GPUs."""

    def memory(self) -> int | None:
        """Return its memory in bytes; None where that cannot be told."""


@runtime_checkable
class SupportsChecks(Protocol):
    """An executor elsewhere, which can tell before a run what would go wrong there."""

    def check(self, steps: Sequence[Step]) -> None:
        """Reach the place; raise ExecutorError where that fails, PlanError for a step that no machine there can run."""

    def admit(self, store: str, modules: Sequence[str], folder: str) -> tuple[Finding, ...]:
        """Return what differs there and may make a difference to a run.

        Raise StoreError where tasks there could not read and write the datastore, ExecutorError where they lack modules
        that steps import, which may stand in the notebook's folder.
        """


@runtime_checkable
class SupportsPlans(Protocol):
    """An executor elsewhere, which can tell what a run would mean there."""

    def upload(self, store: str, segments: Sequence[Segment]) -> int:
        """Return how many bytes of these would be sent: what the datastore, or the place itself, has not yet."""

    def too_small(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Return a line on each machine that cannot run some of these steps."""


@runtime_checkable
class SupportsFiles(Protocol):
    """An executor whose tasks may find none of the files beside the notebook."""

    def wants_files(self, folder: str) -> bool:
        """Return whether tasks do not see this folder, so that what they read below it has to be sent along."""


@runtime_checkable
class SupportsBatches(Protocol):
    """An executor that runs small tasks faster when it gets them ahead of time."""

    def ahead(self, spec: TaskSpec) -> int:
        """Return how many tasks like this one may be submitted for each core; 1 for those that are not small."""


@runtime_checkable
class Serializer(Protocol):
    """A way to turn values of some kind into buffers and back."""

    def can_write(self, value: Any) -> bool:
        """Return whether this serializer is the one for the value."""

    def write(self, value: Any) -> tuple[dict[str, Any], Sequence[memoryview]]:
        """Return JSON-able facts and the buffers of a value."""

    def read(self, meta: dict[str, Any], buffers: Sequence[memoryview]) -> Any:
        """Return a value equal to the one that `write` turned into these facts and buffers."""


class SecretProvider(Protocol):
    """Where the values of `--secret NAME` come from."""

    def get(self, name: str) -> str:
        """Return the secret's value; KeyError when there is none."""


def stamp() -> tuple[tuple[str, int], ...]:
    """Return the folders of installed distributions, each with a time that changes when one is installed or removed."""
    stamps = []
    for folder in sys.path:
        if isinstance(folder, str) and folder.endswith(("site-packages", "dist-packages")):
            try:
                stamps.append((folder, os.stat(folder).st_mtime_ns))  # noqa: PTH116  # asked with every look-up
            except OSError:
                stamps.append((folder, 0))
    return tuple(stamps)


def installed() -> dict[tuple[str, str], EntryPoint]:
    """Return what installed packages plug in, by kind and name; looking through all of them takes 10 ms, done once."""
    return _installed(stamp())


@lru_cache(maxsize=4)
def _installed(stamp: tuple[tuple[str, int], ...]) -> dict[tuple[str, str], EntryPoint]:
    from importlib.metadata import entry_points

    del stamp
    points = entry_points()
    return {(kind, point.name): point for kind in BUILT_IN for point in points.select(group=f"nbflow.{kind}")}


def names(kind: str) -> list[str]:
    """Return the known names of a kind, nbflow's own and those of installed packages, sorted."""
    return sorted({*BUILT_IN[kind], *(name for of, name in installed() if of == kind)})


def load(kind: str, name: str) -> Any:
    """Return the object that plugs in as `name`; OptionError listing the known names when there is none."""
    target = BUILT_IN[kind].get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)
    point = installed().get((kind, name))
    if point is not None:
        return point.load()
    known_names = names(kind)
    raise OptionError(
        f"no {kind.rstrip('s')} named {name!r}{nearest(name, known_names)}",
        fix=f"known: {', '.join(known_names) or 'none'}; install a package that brings one, or correct the name",
    )
