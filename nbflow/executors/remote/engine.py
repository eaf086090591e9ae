"""What starts workers elsewhere: the protocol that each engine implements, and the words it speaks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from nbflow.model import Frozen, Segment, StepOptions


class NodeRoom(Frozen, frozen=True, kw_only=True):
    """A machine of a cluster, or a kind of machine: what a task on it can have at most."""

    name: str
    cpu: float
    gpu: float = 0.0
    memory: int | None = None  # bytes; None: not known


class WorkerOrder(Frozen, frozen=True, kw_only=True):
    """A worker that is wanted: `nbflow worker SPEC` in a process with these resources."""

    name: str  # what people may see in the engine's own lists
    spec: str  # the URL or path of its task's spec
    cpu: float = 1.0
    gpu: float = 0.0
    memory: int | None = None
    nodes: int = 1  # as many processes together, each with these resources on a machine of its own


class WorkerState(Frozen, frozen=True, kw_only=True):
    """How a worker stands, as its engine says.

    `crashed`: its process has ended, that is certain. `lost`: the engine has lost it, and it may still run. `memory`:
    its machine ended it for want of memory. `refused`: it can never start.
    """

    state: Literal["waiting", "running", "done", "crashed", "lost", "memory", "cancelled", "refused"]
    message: str = ""  # why it waits, or how it ended, in the engine's words
    where: str = ""  # the machine


class Engine(Protocol):
    """One cluster or machine. Methods may be called from several threads; none may block for long but `connect`.

    An engine never starts a worker a second time by itself: the datastore says what has become of a task.
    """

    place: str
    """Its name for people: the URL without secrets."""

    queues: bool
    """Whether a worker may wait for minutes until it starts, so that nothing is tried out before a run."""

    def connect(self) -> None:
        """Reach the place; return at once when it is reached already. ExecutorError says what is wrong, and the fix."""

    def nodes(self) -> Sequence[NodeRoom]:
        """Return its machines; none where that is not known."""

    def refuses(self, options: StepOptions) -> str:
        """Return why no step with these options can run there, whatever machines it has; "" when one may."""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        """Start a worker; return the id under which `look` and `cancel` know it. ExecutorError when it is refused.

        Whatever the worker writes to its standard output with `--live` goes to `live`, piece by piece and in order,
        where the engine has a way for it; pieces may be lost.
        """

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        """Return how workers stand, as far as the engine knows; asked about once a second for all that have not ended.

        ExecutorError when the engine cannot be asked at the moment: what runs goes on, and it is asked again.
        """

    def cancel(self, worker: str, *, hard: bool) -> None:
        """Take a worker out of the queue, or, if `hard`, end it with its whole process tree. Ended ones are left."""

    def close(self) -> None:
        """Let go of the place; workers that still run are ended by whoever closes."""


@runtime_checkable
class CarriesSegments(Protocol):
    """An engine that takes values to its workers itself where those do not reach the datastore."""

    def lacking(self, store: str, segments: Sequence[Segment]) -> Sequence[Segment] | None:
        """Return those that workers have not; None where they reach the datastore."""


@runtime_checkable
class FollowsWorkers(Protocol):
    """An engine without which nothing is heard of a worker that another process has started."""

    def follow(self, order: WorkerOrder, worker: str, live: Callable[[bytes], None]) -> None:
        """Pass on what a worker says, from its first word on, as `start` does; the worker is known by its id."""
