"""What happens in a run and what is to be done about it: the events and actions of its state."""

from __future__ import annotations

from typing import Literal

import msgspec

from nbflow.model import Reason, RunStatus, TaskChanged, TaskFailure, TaskId

# ---------------------------------------------------------------- events


class TaskNode(msgspec.Struct, frozen=True):
    """A task that the run has to settle, after `needs` have; it runs whatever became of those in `turns`."""

    task: TaskId
    needs: tuple[TaskId, ...] = ()
    item: str = ""
    turns: tuple[TaskId, ...] = ()


class Added(msgspec.Struct, frozen=True):
    """Tasks became known: at the start, or when a fan-out's list was evaluated."""

    nodes: tuple[TaskNode, ...]
    at: float


class Decision(msgspec.Struct, frozen=True):
    """A task's inputs were looked up: what to do with it."""

    task: TaskId
    at: float
    action: Literal["run", "reuse", "done", "caught", "skip", "fail", "wait", "settle"]
    key: str = ""
    execution: str = ""
    reused_from: str | None = None
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    waits: tuple[TaskId, ...] = ()
    elapsed: float | None = None


class Began(msgspec.Struct, frozen=True):
    """A submitted task's process runs the cell."""

    task: TaskId
    at: float
    pid: int = 0


class Delayed(msgspec.Struct, frozen=True):
    """A submitted task has to wait where it is to run: why."""

    task: TaskId
    at: float
    reason: str


class Finished(msgspec.Struct, frozen=True):
    """An attempt ended: with an execution's record, or with a failure."""

    task: TaskId
    at: float
    elapsed: float
    execution: str = ""
    failure: TaskFailure | None = None
    skipped: str | None = None  # its --if was false


class Due(msgspec.Struct, frozen=True):
    """The time before another attempt is over."""

    task: TaskId
    at: float


class Cancel(msgspec.Struct, frozen=True):
    """The user wants the run to stop."""

    at: float
    reason: str = "cancelled"


class HeldAttempt(msgspec.Struct, frozen=True):
    """An attempt ended, but what came of it does not count yet: its cores are free."""

    task: TaskId
    at: float


class Paused(msgspec.Struct, frozen=True):
    """A running task waits for others before it does anything outside its process: its cores are free meanwhile."""

    task: TaskId
    at: float
    reason: str


class Resumed(msgspec.Struct, frozen=True):
    """A task that waited goes on."""

    task: TaskId
    at: float


class Batched(msgspec.Struct, frozen=True):
    """A step's tasks are so small that this many may be submitted for each core."""

    step: str
    ahead: int
    at: float


Event = Added | Decision | Began | Delayed | Finished | Due | Cancel | HeldAttempt | Paused | Resumed | Batched

# ---------------------------------------------------------------- actions


class Prepare(msgspec.Struct, frozen=True):
    """Look the task's inputs and key up; answer with a Decision."""

    task: TaskId


class Submit(msgspec.Struct, frozen=True):
    """Start this attempt, which may use these GPUs; answer with Began and Finished."""

    task: TaskId
    attempt: int
    devices: tuple[str, ...] = ()


class Abort(msgspec.Struct, frozen=True):
    """End a running task."""

    task: TaskId


class Delay(msgspec.Struct, frozen=True):
    """Answer with Due after so many seconds."""

    task: TaskId
    seconds: float


class Tell(msgspec.Struct, frozen=True):
    """Write the event to the run and show it."""

    event: TaskChanged


class End(msgspec.Struct, frozen=True):
    """Every task has settled."""

    status: RunStatus
    error: str | None


Action = Prepare | Submit | Abort | Delay | Tell | End


def not_held(condition: str) -> Reason:
    """Return the reason for which a step is skipped whose `--if` does not hold."""
    return ("condition", f"{condition} is False")
