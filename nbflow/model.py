"""The types that everything else is made of: frozen, comparable, JSON in and out through msgspec.

A change of a value is a new value. Types that are written to the store or sent between processes say so;
their field names are the file format.
"""

from __future__ import annotations

from nbflow.model_flow import (
    Binding,
    Cell,
    Definition,
    Edge,
    Finding,
    Flow,
    Foreach,
    Notebook,
    Parameter,
    Source,
    Step,
    StepOptions,
    Writer,
)
from nbflow.model_runs import (
    Change,
    Found,
    Plan,
    PlanTask,
    RunEnded,
    RunEvent,
    RunStarted,
    Snapshot,
    Tagged,
    TaskChanged,
    TaskId,
    TaskOutput,
    TaskView,
)
from nbflow.model_tasks import (
    Artifact,
    Asked,
    Buffer,
    DefinitionRef,
    Ended,
    Group,
    JoinItem,
    KeyParts,
    Observations,
    Output,
    Question,
    Record,
    Ref,
    Replay,
    Segment,
    Started,
    TaskEvent,
    TaskFailure,
    TaskResult,
    TaskSpec,
)
from nbflow.model_words import (
    FORMAT,
    NO_TASKS,
    SETTLED,
    WORST_FIRST,
    CellKind,
    Frozen,
    Index,
    Joins,
    Reason,
    RunStatus,
    StepKind,
    TaskState,
)

__all__ = [
    "FORMAT", "NO_TASKS", "SETTLED", "WORST_FIRST", "Artifact", "Asked", "Binding", "Buffer", "Cell", "CellKind",
    "Change", "Definition", "DefinitionRef", "Edge", "Ended", "Finding", "Flow", "Foreach", "Found", "Frozen", "Group",
    "Index", "JoinItem", "Joins", "KeyParts", "Notebook", "Observations", "Output", "Parameter", "Plan", "PlanTask",
    "Question", "Reason", "Record", "Ref", "Replay", "RunEnded", "RunEvent", "RunStarted", "RunStatus", "Segment",
    "Snapshot", "Source", "Started", "Step", "StepKind", "StepOptions", "Tagged", "TaskChanged", "TaskEvent",
    "TaskFailure", "TaskId", "TaskOutput", "TaskResult", "TaskSpec", "TaskState", "TaskView", "Writer",
]  # fmt: skip
