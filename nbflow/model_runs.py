"""What happens in a run, as it is written to the store, and what people are shown of it."""

from __future__ import annotations

from typing import Any, Literal

from nbflow.model_flow import Edge, Finding
from nbflow.model_tasks import TaskFailure
from nbflow.model_words import Frozen, Index, Reason, RunStatus, TaskState

# ---------------------------------------------------------------- runs (written to the store)


class TaskId(Frozen, frozen=True, kw_only=True, order=True):
    """One task of a run: a step, its place in the fan-outs, and the turn of an --until.

    With a `part` it is something else that a run has to settle: the evaluation of a foreach's list, the end of all
    its items, the end of an --until.
    """

    step: str
    index: Index = ()
    turn: int | None = None
    part: Literal["", "list", "all", "last"] = ""


class RunStarted(Frozen, frozen=True, kw_only=True, tag="run"):
    """The first event of a run."""

    run: str
    flow: str
    at: float
    notebook: str | None = None
    folder: str = ""
    parameters: dict[str, str] = {}  # JSON text where the value is JSON, its repr otherwise
    given: tuple[tuple[str, str], ...] = ()  # (key, execution) of the records that hold the parameters' values
    tags: tuple[str, ...] = ()
    user: str = ""
    host: str = ""
    pid: int = 0
    commit: str = ""
    origin: str | None = None
    session: bool = False  # cells run by hand, not a flow run
    asked: tuple[str, ...] = ()  # of a run of a part: the steps that --step, --only or a cell run by hand named
    steps: tuple[str, ...] = ()  # in document order
    labels: dict[str, str] = {}
    folded: tuple[str, ...] = ()  # plain cells that are there only because they may change something: drawn as one
    all_cells: bool = False
    edges: tuple[Edge, ...] = ()
    on: str = "local"
    versions: dict[str, str] = {}


class TaskChanged(Frozen, frozen=True, kw_only=True, tag="task"):
    """A task is in a new state."""

    task: TaskId
    state: TaskState
    at: float
    attempt: int = 1
    key: str = ""
    execution: str = ""  # of the record: its own, or the one that is reused
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    elapsed: float | None = None
    reused_from: str | None = None  # run id
    item: str = ""  # preview of the foreach item
    pid: int = 0


class Found(Frozen, frozen=True, kw_only=True, tag="finding"):
    """A finding that a run brought to light."""

    finding: Finding
    at: float


class Tagged(Frozen, frozen=True, kw_only=True, tag="tag"):
    """A tag was added or removed after the start."""

    name: str
    present: bool
    at: float


class RunEnded(Frozen, frozen=True, kw_only=True, tag="end"):
    """The last event of a run."""

    status: RunStatus
    at: float
    error: str | None = None


RunEvent = RunStarted | TaskChanged | Found | Tagged | RunEnded


class TaskOutput(Frozen, frozen=True, kw_only=True):
    """A piece of what a task displays, on its way to whoever watches the run; `output` is nbformat's."""

    task: TaskId
    output: dict[str, Any]
    at: float = 0.0
    attempt: int = 1


# ---------------------------------------------------------------- what people are shown


class PlanTask(Frozen, frozen=True, kw_only=True):
    """One row of a plan; index None: a fan-out whose list is not known yet."""

    step: str
    index: Index | None
    action: Literal["run", "reuse"]
    reasons: tuple[Reason, ...] = ()


class Change(Frozen, frozen=True, kw_only=True):
    """One reason why a task runs, with what it was and what it is."""

    code: str
    what: str
    before: str = ""
    after: str = ""


class Plan(Frozen, frozen=True, kw_only=True):
    """What a run would do, in document order."""

    flow: str
    tasks: tuple[PlanTask, ...]
    findings: tuple[Finding, ...] = ()


class TaskView(Frozen, frozen=True, kw_only=True):
    """A task as the run table draws it."""

    task: TaskId
    state: TaskState
    attempt: int = 1
    started_at: float | None = None
    elapsed: float | None = None
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    reused_from: str | None = None
    execution: str = ""
    key: str = ""
    item: str = ""


class Snapshot(Frozen, frozen=True, kw_only=True):
    """A run at one moment: all that a table, a panel or the page draws from."""

    run: str
    flow: str
    status: RunStatus
    started_at: float
    steps: tuple[str, ...]
    labels: dict[str, str]
    tasks: tuple[TaskView, ...]
    folded: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    finished_at: float | None = None
    error: str | None = None
    parameters: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
