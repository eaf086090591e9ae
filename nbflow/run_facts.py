"""What a past run says of itself: why it failed, its parameters and the files that they named."""

from __future__ import annotations

from nbflow import context
from nbflow.errors import NotFoundError, nearest
from nbflow.files import read_file
from nbflow.model import Snapshot
from nbflow.past_tasks import failure_of
from nbflow.stored_run import StoredRun


class RunError(str):
    """Why a run failed, in one line; the first failed task's error is in the attributes."""

    __slots__ = ("cell", "line", "message", "step", "traceback", "type")

    type: str
    message: str
    traceback: str
    step: str | None
    cell: str | None
    line: int | None


class Parameters(context.Parameters):
    """A past run's parameters: shown as the dict that they are."""

    def __repr__(self) -> str:
        return repr(self._values)


def error_of(view: Snapshot) -> RunError | None:
    """A run in; why it failed out: its first failed task's error, None when nothing failed."""
    failed = next((task for task in view.tasks if task.state == "failed"), None)
    if view.error is None and failed is None:
        return None
    found = failure_of(failed.failure) if failed is not None else None
    error = RunError(view.error or f"{failed.task.step if failed else ''}: {found}")
    error.type, error.message = (found.type, found.message) if found else ("", str(error))
    error.traceback = found.traceback if found else ""
    error.step = failed.task.step if failed is not None else None
    error.cell, error.line = (found.cell, found.line) if found else (None, None)
    return error


def content_of(past: StoredRun, name: str) -> bytes:
    """A run and a file parameter's name in; the content that its file had when the run began out."""
    for key, execution in past.started.given:
        record = past.given(key, execution)
        if record is not None and name in record.artifacts:
            return read_file(record, name, past.store)
    known = past.started.parameters
    raise NotFoundError(f"run {past.run} has no parameter {name!r}{nearest(name, known)}")
