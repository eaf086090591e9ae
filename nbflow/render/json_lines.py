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
from nbflow.render import rows, sanitize, table

VERSION = 1
COUNTED = ("done", "reused", "failed", "caught", "skipped", "cancelled")


def line(kind: str, at: float, run: str | None, content: dict[str, Any]) -> str:
    """Return an object as a line of JSON, without the line's end."""
    # anything that JSON has no word for is shown, not refused: a line must never be lost
    whole = {"v": VERSION, "t": at, "run": run, "kind": kind, **content}
    return _encoded(whole)


def plain(content: dict[str, Any]) -> str:
    """Return an object that stands alone as a line of JSON."""
    return _encoded(content)


def _encoded(content: dict[str, Any]) -> str:
    """Return an object as JSON that does nothing to a terminal: in texts, where it may stand, it is escaped."""
    text = msgspec.json.encode(content, enc_hook=repr).decode()
    return sanitize.CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plan(planned: Plan) -> dict[str, Any]:
    """Return a plan as `{tasks: [{step, index, action, reasons}], places?}`."""
    places = {"places": [msgspec.structs.asdict(place) for place in planned.places]} if planned.places else {}
    return {
        **places,
        "tasks": [
            {
                "step": task.step,
                "index": None if task.index is None else list(task.index),
                "action": task.action,
                "reasons": reasons(task.reasons),
            }
            for task in planned.tasks
        ],
    }


def task(event: TaskChanged) -> dict[str, Any]:
    """Return a task's change as `{step, index, attempt, state, reasons?, error?, elapsed?, reused_from?}`."""
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
    """Return a piece of a task's output as `{step, index, attempt}` and nbformat's own fields."""
    return {**_which(event.task), "attempt": event.attempt, **event.output}


def finding(one: Finding) -> dict[str, Any]:
    """Return a finding as `{code, level, step, cell, line, name, message, fix}`."""
    return {
        "code": one.code,
        "level": one.level,
        "step": one.step,
        "cell": one.cell,
        "line": one.line,
        "name": one.name,
        "message": one.message,
        "fix": one.fix,
    }


def summary(snapshot: Snapshot, store: str) -> dict[str, Any]:
    """Return a run that has ended as `{flow, run, status, elapsed, counts, error?, store}`."""
    counts = table.counts(snapshot)
    end = snapshot.finished_at if snapshot.finished_at is not None else snapshot.started_at
    content: dict[str, Any] = {
        "flow": snapshot.flow,
        "run": snapshot.run,
        "status": snapshot.status,
        "elapsed": max(0.0, end - snapshot.started_at),
        "counts": {state: counts.get(state, 0) for state in COUNTED},  # type: ignore[call-overload]
    }
    if snapshot.error:
        content["error"] = snapshot.error
    return {**content, "store": store}


def check(flow: Flow) -> dict[str, Any]:
    """Return a flow's findings as `{ok, findings}`: ok when none of them keeps it from running."""
    serious = any(each.level == "error" for each in flow.findings)
    return {"ok": not serious, "findings": [finding(each) for each in flow.findings]}


def dag(flow: Flow) -> dict[str, Any]:
    """Return a flow as `{steps: [{name, cell, kind, reads, writes, options}], edges: [{from, to, names, why}]}`."""
    flow = rows.of_flow(flow)
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


def options(step_options: StepOptions) -> dict[str, Any]:
    """Return those of a step's options that differ from their defaults."""
    content = msgspec.to_builtins(step_options)
    return content if isinstance(content, dict) else {}


def reasons(pairs: tuple[Reason, ...]) -> list[dict[str, str]]:
    """Return reasons as `[{code, what}]`."""
    return [{"code": code, "what": what} for code, what in pairs]


def error(failure: TaskFailure) -> dict[str, Any]:
    """Return a task's failure as `{type, message, traceback, cell, line, kind, fix}`."""
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
    """Return a task as `{step, index}`, with `turn` in a loop."""
    content: dict[str, Any] = {"step": task.step, "index": list(task.index)}
    return content if task.turn is None else {**content, "turn": task.turn}
