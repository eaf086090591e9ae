"""What happens in a run and what is to be done about it: the events and actions of its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nbflow.model import Reason, RunStatus, TaskChanged, TaskFailure, TaskId

# ---------------------------------------------------------------- events


@dataclass(frozen=True)
class TaskNode:
    """A task that the run has to settle, after `needs` have."""

    task: TaskId
    needs: tuple[TaskId, ...] = ()
    item: str = ""


@dataclass(frozen=True)
class Added:
    """Tasks became known: at the start, or when a fan-out's list was evaluated."""

    nodes: tuple[TaskNode, ...]
    at: float


@dataclass(frozen=True)
class Decision:
    """A task's inputs were looked up: what to do with it."""

    task: TaskId
    at: float
    action: Literal["run", "reuse", "done", "skip", "fail", "wait", "settle"]
    key: str = ""
    execution: str = ""
    reused_from: str | None = None
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    waits: tuple[TaskId, ...] = ()
    elapsed: float | None = None


@dataclass(frozen=True)
class Began:
    """A submitted task's process runs the cell."""

    task: TaskId
    at: float
    pid: int = 0


@dataclass(frozen=True)
class Finished:
    """An attempt ended: with an execution's record, or with a failure."""

    task: TaskId
    at: float
    elapsed: float
    execution: str = ""
    failure: TaskFailure | None = None
    skipped: str | None = None  # its --if was false


@dataclass(frozen=True)
class Due:
    """The time before another attempt is over."""

    task: TaskId
    at: float


@dataclass(frozen=True)
class Cancel:
    """The user wants the run to stop."""

    at: float
    reason: str = "cancelled"


@dataclass(frozen=True)
class HeldAttempt:
    """An attempt ended, but what came of it does not count yet: its cores are free."""

    task: TaskId
    at: float


@dataclass(frozen=True)
class Batched:
    """A step's tasks are so small that this many may be submitted for each core."""

    step: str
    ahead: int
    at: float


Event = Added | Decision | Began | Finished | Due | Cancel | HeldAttempt | Batched

# ---------------------------------------------------------------- actions


@dataclass(frozen=True)
class Prepare:
    """Look the task's inputs and key up; answer with a Decision."""

    task: TaskId


@dataclass(frozen=True)
class Submit:
    """Start this attempt, which may use these GPUs; answer with Began and Finished."""

    task: TaskId
    attempt: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Abort:
    """End a running task."""

    task: TaskId


@dataclass(frozen=True)
class Delay:
    """Answer with Due after so many seconds."""

    task: TaskId
    seconds: float


@dataclass(frozen=True)
class Tell:
    """Write the event to the run and show it."""

    event: TaskChanged


@dataclass(frozen=True)
class End:
    """Every task has settled."""

    status: RunStatus
    error: str | None


Action = Prepare | Submit | Abort | Delay | Tell | End


def not_held(condition: str) -> Reason:
    """Return the reason for which a step is skipped whose `--if` does not hold."""
    return ("condition", f"{condition} is False")
