"""Events, plans and findings → the objects of `--json`, one a line.

Every object starts with `v` (version), `t` (unix seconds), `run` (id) and `kind`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nbflow.model import (
    Finding,
    Flow,
    Plan,
    Reason,
    Snapshot,
    StepOptions,
    TaskChanged,
    TaskFailure,
    TaskId,
    TaskOutput,
)
from nbflow.render import table

VERSION = 1
COUNTED = ("done", "reused", "failed", "caught", "skipped", "cancelled")


def line(kind: str, at: float, run: str | None, content: dict[str, Any]) -> str:
    """An object's kind, time, run and content in; its line of JSON, without the line's end, out."""
    # anything that JSON has no word for is shown, not refused: a line must never be lost
    whole = {"v": VERSION, "t": at, "run": run, "kind": kind, **content}
    return msgspec.json.encode(whole, enc_hook=repr).decode()


def plain(content: dict[str, Any]) -> str:
    """An object that stands alone in; its line of JSON out."""
    return msgspec.json.encode(content, enc_hook=repr).decode()


def plan(planned: Plan) -> dict[str, Any]:
    """A plan in; `{tasks: [{step, index, action, reasons}]}` out."""
    return {
        "tasks": [
            {
                "step": task.step,
                "index": None if task.index is None else list(task.index),
                "action": task.action,
                "reasons": reasons(task.reasons),
            }
            for task in planned.tasks
        ]
    }


def task(event: TaskChanged) -> dict[str, Any]:
    """A task's change in; `{step, index, attempt, state, reasons?, error?, elapsed?, reused_from?}` out."""
    content = {**_which(event.task), "attempt": event.attempt, "state": event.state}
    if event.reasons:
        content["reasons"] = reasons(event.reasons)
    if event.failure is not None:
        content["error"] = error(event.failure)
    if event.elapsed is not None:
        content["elapsed"] = event.elapsed
    if event.reused_from:
        content["reused_from"] = event.reused_from
    return content


def output(event: TaskOutput) -> dict[str, Any]:
    """A piece of a task's output in; `{step, index, attempt}` and nbformat's own fields out."""
    return {**_which(event.task), "attempt": event.attempt, **event.output}


def finding(found: Finding) -> dict[str, Any]:
    """A finding in; `{code, level, step, cell, line, name, message, fix}` out."""
    return {
        "code": found.code,
        "level": found.level,
        "step": found.step,
        "cell": found.cell,
        "line": found.line,
        "name": found.name,
        "message": found.message,
        "fix": found.fix,
    }


def summary(snapshot: Snapshot, store: str) -> dict[str, Any]:
    """A run that has ended and its store in; `{flow, run, status, elapsed, counts, error?, store}` out."""
    found = table.counts(snapshot)
    end = snapshot.finished_at if snapshot.finished_at is not None else snapshot.started_at
    content: dict[str, Any] = {
        "flow": snapshot.flow,
        "run": snapshot.run,
        "status": snapshot.status,
        "elapsed": max(0.0, end - snapshot.started_at),
        "counts": {state: found.get(state, 0) for state in COUNTED},  # type: ignore[call-overload]
    }
    if snapshot.error:
        content["error"] = snapshot.error
    return {**content, "store": store}


def check(flow: Flow) -> dict[str, Any]:
    """A flow in; `{ok, findings}` out: ok when no finding keeps it from running."""
    serious = any(found.level == "error" for found in flow.findings)
    return {"ok": not serious, "findings": [finding(found) for found in flow.findings]}


def dag(flow: Flow) -> dict[str, Any]:
    """A flow in; `{steps: [{name, cell, kind, reads, writes, options}], edges: [{from, to, names, why}]}` out."""
    return {
        "steps": [
            {
                "name": step.name,
                "cell": step.cell,
                "kind": step.kind,
                "reads": list(step.reads),
                "writes": list(step.writes),
                "options": options(step.options),
            }
            for step in flow.steps
        ],
        "edges": [{"from": edge.frm, "to": edge.to, "names": list(edge.names), "why": edge.why} for edge in flow.edges],
    }


def options(given: StepOptions) -> dict[str, Any]:
    """A step's options in; those that differ from their defaults out."""
    content = msgspec.to_builtins(given)
    return content if isinstance(content, dict) else {}


def reasons(told: tuple[Reason, ...]) -> list[dict[str, str]]:
    """Reasons in; `[{code, what}]` out."""
    return [{"code": code, "what": what} for code, what in told]


def error(failure: TaskFailure) -> dict[str, Any]:
    """A task's failure in; `{type, message, traceback, cell, line, kind, fix}` out."""
    return {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "cell": failure.cell,
        "line": failure.line,
        "kind": failure.kind,
        "fix": failure.fix,
    }


def _which(task: TaskId) -> dict[str, Any]:
    """A task in; `{step, index}`, and `turn` in a loop, out."""
    content: dict[str, Any] = {"step": task.step, "index": list(task.index)}
    return content if task.turn is None else {**content, "turn": task.turn}
