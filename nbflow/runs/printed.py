"""What tasks of a past run printed and displayed, as text: `nbflow logs` and `%flow logs`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nbflow.errors import NotFoundError, OptionError
from nbflow.render import sanitize
from nbflow.runs import client
from nbflow.runs.tasks import Task

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def tell(text: str) -> None:
    """Print a line that may hold words of a store or a notebook."""
    print(sanitize.for_terminal(text))


def print_logs(
    path: str, attempt: int | None = None, store: str | os.PathLike[str] | None = None, rank: int = 0
) -> None:
    """Print what `RUN/STEP[/ITEM]` printed and displayed: its last attempt, or the one of that number.

    Of a step that runs on several nodes it is what the process of that rank did. Displays are their text: a stored page
    may hold scripts, and a notebook that shows it would run them. What went to standard error goes there. Raises
    NotFoundError where the path names no step, or the task has no such attempt or rank.
    """
    place = client.locate(path, store)
    if not isinstance(place, client.Step | Task):
        raise NotFoundError(f"{path!r} names no step", fix="write RUN/STEP or RUN/STEP/ITEM")
    tasks = place.tasks if isinstance(place, client.Step) else [place]
    for task in tasks:
        if len(tasks) > 1:
            tell(f"== {task.name}{'' if task.turn is None else f', turn {task.turn}'}")
        _print_task(task, attempt, rank)


def _print_task(task: Task, number: int | None, rank: int) -> None:
    attempts = {attempt.attempt: attempt for attempt in task.attempts}
    if number is not None and number not in attempts:
        raise NotFoundError(f"{task.name} has no attempt {number}", fix=f"it has {len(attempts)}")
    executed = task if number is None else attempts[number]
    if rank >= executed.ranks:
        ranks = ", ".join(map(str, range(executed.ranks)))
        raise NotFoundError(f"{task.name} has no rank {rank}", fix=f"its ranks are {ranks}")
    pieces = executed.pieces(rank)
    print_outputs(pieces)
    error = executed.error
    if error is not None and not any(piece.get("output_type") == "error" for piece in pieces):
        print(sanitize.for_terminal((error.traceback or str(error)).rstrip()), file=sys.stderr, flush=True)


def print_outputs(outputs: Iterable[Mapping[str, Any]]) -> None:
    """Print a task's nbformat outputs in order; what went to standard error, and errors, go there."""
    for output in outputs:
        is_error = output.get("output_type") == "error" or output.get("name") == "stderr"
        target = sys.stderr if is_error else sys.stdout
        text = sanitize.for_terminal(output_text(output))
        target.write(text if target.isatty() else COLOURS.sub("", text))
        target.flush()


def output_text(output: Mapping[str, Any]) -> str:
    """Return the plain text of an nbformat output, an empty string where it has none."""
    if output.get("output_type") == "stream":
        return _joined(output.get("text", ""))
    if output.get("output_type") == "error":
        return "\n".join(output.get("traceback") or ()) + "\n"
    data = output.get("data")
    return _joined(data.get("text/plain", "")) + "\n" if isinstance(data, dict) and "text/plain" in data else ""


def _joined(text: object) -> str:
    """Return a text that nbformat may hold as a list of lines."""
    return "".join(map(str, text)) if isinstance(text, list | tuple) else str(text)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write a text that a person asked for to a file; raise OptionError where it cannot be written."""
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{target} cannot be written: {error.strerror}", fix="name another file") from None
