"""Every exception that nbflow raises, as one tree.

NbflowError
├── NotebookError          the notebook cannot be read or holds no flow
├── OptionError            an option line that cannot be understood
├── ParameterError         parameters that are missing, unknown or of the wrong type
├── PlanError              the flow's steps cannot be put together
├── StoreError             the datastore cannot be used
│   ├── FormatError        the datastore was written by a newer nbflow
│   ├── UntrustedError     the datastore came from elsewhere, and nobody has said to trust it
│   └── DamagedError       bytes of a stored value are missing or are not what they were
├── ExecutorError          the place where tasks run cannot be used
├── NotFoundError          no such flow, run, step, task or artifact (a KeyError too)
├── AmbiguousTask          a step with several tasks was asked for its only one
├── AmbiguousFlow          two flows bear the name that was asked for
├── TaskError              a step's task failed
│   ├── SerializationError a value that another step needs cannot be stored
│   ├── OutdatedError      a value is an instance of a class that has been edited since
│   └── WorkerLost         the process that ran the task ended without a result
└── RunFailed              a run ended with at least one failed task
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any


class NbflowError(Exception):
    """What went wrong, where (step, cell, line) and how to mend it; survives pickling."""

    def __init__(
        self,
        message: str,
        *,
        step: str | None = None,
        cell: str | None = None,
        line: int | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.cell = cell
        self.line = line
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))

    def __str__(self) -> str:
        return self.message

    @property
    def where(self) -> str:
        """Return the place as a reader would say it: `step train, cell 4, line 2`, or an empty string."""
        parts = []
        if self.step and not self.step.startswith("cell:"):  # a cell without a name is a step by its cell
            parts.append(f"step {self.step}")
        if self.cell:
            parts.append(self.cell if self.cell.startswith("cell") else f"cell {self.cell}")
        if self.line is not None:
            parts.append(f"line {self.line}")
        return ", ".join(parts)

    def report(self, *, in_notebook: bool = False) -> list[str]:
        """Return the lines shown to a person: `error: …`, then `  where: …` and `  fix: …` when known.

        Commands in them are those of a shell, `in_notebook` those of a cell.
        """
        lines = [f"error: {self.message}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return [as_typed_in_cells(line) for line in lines] if in_notebook else lines

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback through nbflow's frames."""
        return self.report(in_notebook=True)


COMMAND = re.compile(r"`nbflow (?!worker|serve|tutorial)([a-z]+)( NB\b)?")
"""A command as messages hold it, those left out that only a shell has."""


def as_typed_in_cells(text: str) -> str:
    """Return a message whose commands are `%flow COMMAND` instead of `nbflow COMMAND NB`."""
    return COMMAND.sub(r"`%flow \1", text)


def _rebuild(kind: type[NbflowError], args: tuple[Any, ...], state: dict[str, Any]) -> NbflowError:
    """Return an error of a class with these arguments and attributes."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class NotebookError(NbflowError):
    """The notebook cannot be read or holds no flow."""


class OptionError(NbflowError):
    """An option line that cannot be understood."""


class ParameterError(NbflowError):
    """Parameters that are missing, unknown or of the wrong type; lists all of them at once."""


class PlanError(NbflowError):
    """The flow's steps cannot be put together; `findings` holds every reason."""

    findings: tuple[Any, ...] = ()


class StoreError(NbflowError):
    """The datastore cannot be used."""

    is_away: bool = False  # nobody answers: it may be back in a moment


class FormatError(StoreError):
    """The datastore was written by a newer nbflow."""


class UntrustedError(StoreError):
    """The datastore was not made by this user at this place, and they have not said to trust it."""

    place: str = ""  # its folder or URL
    identity: str = ""


class DamagedError(StoreError):
    """Bytes of a stored value are missing, cannot be read, or are not what they were when they were written."""


class ExecutorError(NbflowError):
    """The place where tasks run cannot be used."""


class NotFoundError(NbflowError, KeyError):
    """No such flow, run, step, task or artifact."""


class AmbiguousTask(NbflowError):
    """A step with several tasks was asked for its only one."""


class AmbiguousFlow(NbflowError):
    """Two flows bear the name that was asked for."""


class TaskError(NbflowError):
    """A step's task failed."""


class SerializationError(TaskError):
    """A value that another step needs cannot be stored."""


class OutdatedError(TaskError):
    """A value is an instance of a class that has been edited since."""


class WorkerLost(TaskError):
    """The process that ran the task ended without a result."""


class RunFailed(NbflowError):
    """A run ended with at least one failed task."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for a misspelt word that is near a known one, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
