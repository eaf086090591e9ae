"""What user code raised, as text that starts in the user's cell: no frame of ours, real lines."""

from __future__ import annotations

import dis
import linecache
import os
import traceback
import types
from collections.abc import Collection
from pathlib import Path

from nbflow.errors import NbflowError
from nbflow.jsonable import text
from nbflow.model import TaskFailure

OURS = str(Path(__file__).parent) + os.sep

INTERRUPTED = "interrupted by its own code or by a SIGINT from elsewhere, not by nbflow"
"""The message of an interrupt that is a failure; Python's own has none."""


def remember_lines(file: str, source: str, line: int = 1) -> None:
    """Let tracebacks and `inspect` find a piece of a cell's source, from `line` on, under `file`."""
    entry = linecache.cache.get(file)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    piece = source.splitlines(keepends=True)
    if piece and not piece[-1].endswith("\n"):
        piece[-1] += "\n"
    lines.extend(["\n"] * (line - 1 + len(piece) - len(lines)))
    lines[line - 1 : line - 1 + len(piece)] = piece
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


def without_ours(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Return a traceback cut behind the last frame that is not nbflow's: `input` raises in nbflow's."""
    last = None
    step = trace
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(OURS):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None
    return trace


def raised_at(error: BaseException) -> str:
    """Return the file of the `raise` that an exception comes from, "" where no such statement has raised it.

    An interrupt that arrives as a signal is raised between two instructions, never by one.
    """
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    opcode = code.co_code[trace.tb_lasti] if 0 <= trace.tb_lasti < len(code.co_code) else 0
    return code.co_filename if dis.opname[opcode] == "RAISE_VARARGS" else ""


def failure_of(
    error: BaseException, files: Collection[str], cell: str | None = None, kind: str = "error"
) -> TaskFailure:
    """Return what user code raised as a failure, as text.

    The traceback starts at the first frame in one of `files`, the file names of its cells; the line is that frame's.
    """
    trace: types.TracebackType | None = without_ours(error.__traceback__)
    while trace is not None and trace.tb_frame.f_code.co_filename not in files:
        trace = trace.tb_next
    line = trace.tb_lineno if trace is not None else None
    if isinstance(error, SyntaxError) and error.filename in files:
        line = error.lineno
    lines = traceback.format_exception(type(error), error, trace, chain=True)
    return TaskFailure(
        type=text(type(error).__name__),
        message=text_of(error) or (INTERRUPTED if isinstance(error, KeyboardInterrupt) and kind == "error" else ""),
        traceback=text("".join(lines)),
        cell=cell,
        line=line,
        kind=kind,
        bases=tuple(text(base.__name__) for base in type(error).__mro__[1:-1]),
        fix=getattr(error, "fix", None) if isinstance(getattr(error, "fix", None), str) else None,
    )


def unforeseen(error: BaseException, what: str) -> NbflowError:
    """Return an exception that nobody foresaw as an error that can be shown; `what` says what it has prevented.

    Such an exception is a fault of nbflow's, or comes from the user's objects while nbflow looks at them.
    """
    if isinstance(error, NbflowError):
        return error
    reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {text_of(error)}"
    report = NbflowError(f"{what}: {reason}", fix="run the cell once more; if it fails again, report it")
    report.__cause__ = error
    return report


def unforeseen_failure(error: BaseException, what: str, cell: str | None, kind: str = "error") -> TaskFailure:
    """Return such an exception as a task's failure, with every frame of its traceback, ours too."""
    report = unforeseen(error, what)
    return TaskFailure(
        type=text(type(error).__name__), message=text(report.message), cell=cell, fix=report.fix, kind=kind,
        traceback=text("".join(traceback.format_exception(error))),
    )  # fmt: skip


def text_of(error: object) -> str:
    """Return an exception's message, also when its class cannot say."""
    try:
        return text(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # the user's own __str__
        return f"<unprintable: {type(broken).__name__}>"
