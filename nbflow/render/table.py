"""A run's snapshot → the table of its steps, as plain text and as HTML: one row a step, a fan-out's tasks counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from nbflow.model import (
    NO_TASKS,
    SETTLED,
    WORST_FIRST,
    Finding,
    Frozen,
    Plan,
    PlannedPlace,
    PlanTask,
    Snapshot,
    TaskFailure,
    TaskState,
    TaskView,
)
from nbflow.render import html, preview
from nbflow.render.rows import of_snapshot

NOTE = 72
"""Columns that a message may take in a row's last cell; reasons may take two lines of that."""


class RunHints(Frozen, frozen=True):
    """What is known of a run besides its state: the usual time of a task of each step, what reuse has saved.

    `notebook` is the name of the file that links lead into.
    """

    expected: dict[str, float] = {}  # noqa: RUF012  # msgspec copies it for each instance
    saved: float = 0.0
    notebook: str = ""


NOTHING = RunHints()


class Row(Frozen, frozen=True):
    """One step of a run as it is drawn; `count` is empty for a step of one task, `share` what of it has settled."""

    step: str
    label: str
    state: TaskState
    count: str = ""
    elapsed: float | None = None
    note: str = ""
    expected: float | None = None
    share: float | None = None
    failure: TaskFailure | None = None


def rows(
    snapshot: Snapshot, now: float | None = None, known: RunHints = NOTHING, *, fold: bool = True
) -> tuple[Row, ...]:
    """Return a run's steps in document order; `now` is the time while it runs, `known` what else is known of it.

    With `fold`, plain cells that are there only because they may change something are one row; one that fails is not.
    """
    snapshot = of_snapshot(snapshot)
    tasks: dict[str, list[TaskView]] = {name: [] for name in snapshot.steps}
    for view in snapshot.tasks:
        tasks.setdefault(view.task.step, []).append(_timed(view, now))
    empty = NO_TASKS[snapshot.status]
    labels = {name: snapshot.labels.get(name) or name for name in tasks}
    hidden = _hidden(snapshot, tasks) if fold else ()
    if hidden:
        labels[hidden[0]] = _folded_label(snapshot, hidden)
        tasks[hidden[0]] = [view for name in hidden for view in tasks[name]]
    steps = (name for name in tasks if name not in hidden[1:])
    waits = _waits(snapshot, tasks, labels)
    return tuple(
        _row(name, labels[name], tasks[name], empty, known, snapshot.cells, waits.get(name, "")) for name in steps
    )


def _waits(snapshot: Snapshot, tasks: Mapping[str, Sequence[TaskView]], labels: Mapping[str, str]) -> dict[str, str]:
    """Return for each step that waits for others because of files what is said of that while it does."""
    open_steps = {name for name, views in tasks.items() if any(view.state not in SETTLED for view in views)}
    names: dict[str, list[str]] = {}
    for edge in snapshot.edges:
        if edge.why == "files" and edge.frm in open_steps:
            names.setdefault(edge.to, []).append(labels.get(edge.frm, edge.frm))
    return {step: f"after {', '.join(above)}: files" for step, above in names.items()}


def _hidden(snapshot: Snapshot, tasks: Mapping[str, Sequence[TaskView]]) -> tuple[str, ...]:
    """Return the steps that are drawn as one row; none where it would be a lone one."""
    names = [name for name in snapshot.folded if not any(view.state == "failed" for view in tasks.get(name, ()))]
    return tuple(name for name in names if name in tasks) if len(names) > 1 else ()


def _folded_label(snapshot: Snapshot, names: Sequence[str]) -> str:
    """Return `9 plain cells, 2 change data`: those that a run has seen change something."""
    changing = {edge.frm for edge in snapshot.edges if edge.names and edge.to not in names}
    changing |= {finding.step for finding in snapshot.findings if finding.code == "mutation" and finding.step}
    count = len(changing.intersection(names))
    if not count and snapshot.status == "running":
        return f"{len(names)} plain cells"  # nobody knows yet
    return f"{len(names)} plain cells, {count or 'none'} change{'s' if count == 1 else ''} data"


def title(snapshot: Snapshot, now: float | None = None) -> str:
    """Return a run's title: `digits · RUN · done in 3.2 s`."""
    return f"{snapshot.flow} · {snapshot.run} · {_status(snapshot, now)}"


def summary(by_state: Mapping[TaskState, int]) -> str:
    """Return the number of tasks in each state as `4 done, 2 reused`."""
    return ", ".join(f"{by_state[state]} {state}" for state in WORST_FIRST if by_state.get(state))


def counts(snapshot: Snapshot) -> dict[TaskState, int]:
    """Return the number of a run's tasks in each state that occurs."""
    by_state: dict[TaskState, int] = {}
    for view in of_snapshot(snapshot).tasks:
        by_state[view.state] = by_state.get(view.state, 0) + 1
    return by_state


def totals(snapshot: Snapshot, saved: float = 0.0) -> str:
    """Return a run's counts and what reuse has saved, in seconds: `4 done, 2 reused, which saved 12 s`."""
    words = summary(counts(snapshot))
    return f"{words}, which saved {preview.duration(saved)}" if words and saved >= 0.1 else words


def text(snapshot: Snapshot, now: float | None = None, width: int = 0, known: RunHints | None = None) -> str:
    """Return a run's title, table, error and findings as plain text, lines clipped to `width` columns if given.

    With what else is `known` of it, times that are expected and, at the end, the totals are said, too.
    """
    lines = [title(snapshot, now)]
    lines += [f"  {line}" for line in preview.grid(_cells(row) for row in rows(snapshot, now, known or NOTHING))]
    lines += [line for finding in snapshot.findings for line in finding_text(finding, snapshot.cells)]
    if _untold(snapshot):
        lines.append(f"error: {_untold(snapshot)}")
    if known is not None and snapshot.status != "running":
        lines.append(totals(snapshot, known.saved))
    return "\n".join(preview.clip_line(line, width) if width else line for line in lines)


def as_html(
    snapshot: Snapshot, now: float | None = None, known: RunHints | None = None, *, below: Iterable[object] = ()
) -> str:
    """Return a run as a block of HTML, as `text` does, with what stands `below` it; what failed stands first.

    Where the run is over and long, its rows can be filtered.
    """
    drawn = sorted(rows(snapshot, now, known or NOTHING), key=lambda row: row.state != "failed")
    body = [
        (html.marked(row.label, row.state, preview.mark(row.state)), html.state(row.state), _progress(row),
         _time(row), _why(row, known or NOTHING, snapshot.cells))
        for row in drawn
    ]  # fmt: skip
    head = html.join(
        (html.tag("b", snapshot.flow), " ", html.tag("code", snapshot.run), " ", html.state(snapshot.status),
         html.tag("span", _status(snapshot, now).removeprefix(snapshot.status), cls="nbflow-dim"))
    )  # fmt: skip
    box = html.filter_box(len(body)) if snapshot.status != "running" else ""
    parts = [html.tag("div", head, box, cls="nbflow-head")]
    parts.append(html.table(("step", "state", "tasks", "time", "why"), body, numbers=(3,)))
    if snapshot.findings:
        items = [
            html.tag("li", html.join(finding_text(finding, snapshot.cells), "; ")) for finding in snapshot.findings
        ]
        count = html.tag("summary", f"{len(items)} finding{'s' if len(items) > 1 else ''}", cls="nbflow-dim")
        parts.append(html.tag("details", count, html.tag("ul", *items, cls="nbflow-list"), cls="nbflow-folded"))
    if _untold(snapshot):
        parts.append(html.tag("div", _untold(snapshot), cls="nbflow-failed"))
    if known is not None and snapshot.status != "running":
        parts.append(html.tag("div", totals(snapshot, known.saved), cls="nbflow-dim nbflow-foot"))
    return html.block(*parts, *below)


def _progress(row: Row) -> html.Html:
    """Return a row's count, over a bar while its tasks run."""
    if row.share is None or row.state not in ("running", "queued"):
        return html.escape(row.count)
    bar = html.tag("div", html.tag("div", "", style=f"width:{row.share:.0%}"), cls="nbflow-meter", aria_hidden="true")
    return html.join((row.count, bar))


def _why(row: Row, known: RunHints, cells: Mapping[str, int]) -> html.Html | str:
    """Return a row's note, with a link to the cell where an error has its place."""
    if not row.note:
        return ""
    failed = row.failure
    place = preview.where(failed, cells) if failed is not None else ""
    if failed is None or not known.notebook or failed.cell not in cells or not row.note.endswith(f" ({place})"):
        return html.tag("span", row.note, title=row.note)
    message = row.note.removesuffix(f" ({place})")
    # JupyterLab follows it to the cell; nbflow's extension does so in Notebook 7, too
    link = html.tag("a", place, href=f"{quote(known.notebook)}#cell-id={quote(failed.cell or '')}")
    return html.join((html.tag("span", message, title=message), " (", link, ")"))


def _time(row: Row) -> str:
    """Return the time that a row took, or is expected to take while that is not known."""
    expected = f"~{preview.duration(row.expected)}" if row.expected is not None and row.expected >= 0.1 else ""
    if row.state == "running" and row.elapsed is not None:
        return preview.duration(row.elapsed) + (f" of {expected}" if expected else "")
    return expected if row.state in ("pending", "queued") else preview.duration(row.elapsed)


def plan_text(plan: Plan) -> str:
    """Return what would run and what would be reused, and why, as plain text."""
    lines = [f"plan of {plan.flow}"]
    cells = [
        (f"  {preview.mark('reused' if task.action == 'reuse' else 'queued')} {_task_name(plan, task)}",
         task.action, preview.reasons(task.reasons))
        for task in plan.tasks
    ]  # fmt: skip
    lines += preview.grid(cells)
    for place in plan.places:
        lines += [f"  {place.place}: {_outlook(place)}", *(f"    {line}" for line in place.too_small)]
    lines += [line for finding in plan.findings for line in finding_text(finding, plan.cells)]
    return "\n".join(lines)


def _outlook(place: PlannedPlace) -> str:
    """Return what a run would mean for a place: `12 tasks run, 3 are reused; 1.2 MB to send; about 4 min`."""
    tasks = f"{place.run} task{'s' if place.run != 1 else ''} run{'s' if place.run == 1 else ''}"
    parts = [f"{tasks}, {place.reuse} {'is' if place.reuse == 1 else 'are'} reused"]
    if place.run:
        parts.append(_to_send(place))
        least = "at least " if place.takes_longer else ""
        expected = f"{least}about {preview.duration(place.seconds)}"
        parts.append(expected if place.seconds is not None else "how long it takes is not known yet")
    return "; ".join(parts)


def _to_send(place: PlannedPlace) -> str:
    if not place.upload:
        return "what is sent is not known yet" if place.sends_more else "nothing to send"
    return f"{'at least ' if place.sends_more else ''}{preview.size(place.upload)} to send"


def finding_text(finding: Finding, cells: Mapping[str, int]) -> list[str]:
    """Return the lines of a finding: `warning: …`, and its place and fix where known.

    `cells` are the positions of cells by their ids.
    """
    place = [f"step {finding.step}"] if finding.step and not finding.step.startswith("cell:") else []
    if finding.cell:
        place.append(preview.cell(finding.cell, cells))
    if finding.line is not None:
        place.append(f"line {finding.line}")
    lines = [f"{finding.level}: {finding.message}"]
    if place:
        lines.append(f"  where: {', '.join(place)}")
    if finding.fix:
        lines.append(f"  fix: {finding.fix}")
    return lines


def _task_name(plan: Plan, task: PlanTask) -> str:
    """Return a planned task's name: `train`, `train/2` or, before the list is known, `train/*`."""
    label = plan.labels.get(task.step) or task.step
    if task.index is None:
        return f"{label}/*"
    return f"{label}/{preview.index(task.index)}" if task.index else label


def _cells(row: Row) -> tuple[str, ...]:
    return (f"{preview.mark(row.state)} {row.label}", row.state, row.count, _time(row), row.note)


def _timed(view: TaskView, now: float | None) -> TaskView:
    """Return a task with the time that it has been running by `now`."""
    if view.state != "running" or view.started_at is None or now is None:
        return view
    return msgspec.structs.replace(view, elapsed=max(0.0, now - view.started_at))


def _row(
    name: str, label: str, tasks: Sequence[TaskView], empty: TaskState, known: RunHints, cells: Mapping[str, int],
    waits: str,
) -> Row:  # fmt: skip
    """Return the row of a step's tasks; `empty` is its state when it has none, `waits` what it waits for."""
    usual = known.expected.get(name)
    states = {view.state for view in tasks}
    state = next((each for each in WORST_FIRST if each in states), empty)
    elapsed, share = _elapsed(tasks), _share(tasks)
    if share is not None:
        # how many tasks run at once is not known before some have ended
        usual = elapsed / share if share and elapsed else None
    return Row(
        step=name, label=label, state=state, count=_count(tasks), elapsed=elapsed,
        note=_note(state, tasks, cells) or (waits if state == "pending" else ""),
        expected=usual, share=share, failure=_failure(state, tasks),
    )  # fmt: skip


def _share(tasks: Sequence[TaskView]) -> float | None:
    """Return which part of a step's items has settled, None for a step of one task."""
    items = {view.task.index for view in tasks}
    if items <= {()}:
        return None
    return len({view.task.index for view in tasks if view.state in SETTLED}) / len(items)


def _count(tasks: Sequence[TaskView]) -> str:
    """Return `3/4`, and how many failed, of a step's tasks: empty for a lone task."""
    items = {view.task.index for view in tasks}
    turns = max((view.task.turn + 1 for view in tasks if view.task.turn is not None), default=0)
    if items <= {()}:
        return f"{turns} turn{'s' if turns > 1 else ''}" if turns else ""
    ended = len({view.task.index for view in tasks if view.state in SETTLED})
    failed = sum(view.state == "failed" for view in tasks)
    return f"{ended}/{len(items)}" + (f", {failed} failed" if failed else "")


def _elapsed(tasks: Sequence[TaskView]) -> float | None:
    """Return the seconds from a step's first start to its last end, None before any task has started."""
    if len(tasks) == 1:
        return tasks[0].elapsed
    spans = [(view.started_at, view.elapsed or 0.0) for view in tasks if view.started_at is not None]
    if not spans:
        return sum(view.elapsed or 0.0 for view in tasks) if any(view.elapsed for view in tasks) else None
    return max(start + length for start, length in spans) - min(start for start, _ in spans)


def _failure(state: TaskState, tasks: Sequence[TaskView]) -> TaskFailure | None:
    """Return the failure that a step's row tells."""
    telling = next((view for view in tasks if view.state == state), None)
    failure = telling.failure if telling is not None else None
    return failure if failure is not None and failure.kind != "cancelled" else None


def _note(state: TaskState, tasks: Sequence[TaskView], cells: Mapping[str, int]) -> str:
    """Return the one thing worth saying about a step."""
    telling = next((view for view in tasks if view.state == state), None)
    if telling is None:
        return ""
    tries = f"attempt {telling.attempt}: " if telling.attempt > 1 else ""
    if telling.failure is not None and telling.failure.kind != "cancelled":
        return tries + preview.failure(telling.failure, cells, NOTE)
    # on a first run every step is new: saying so at each would only be noise
    why = preview.reasons(reason for reason in telling.reasons if reason[0] != "new")
    if not why and telling.reused_from:
        why = f"from {telling.reused_from}"
    return preview.clip(f"{tries}{why}".removesuffix(": "), 2 * NOTE)


def _untold(snapshot: Snapshot) -> str:
    """Return a run's error, empty where its status or a failed step's row says as much."""
    is_said = snapshot.error == snapshot.status or any(view.state == "failed" for view in snapshot.tasks)
    return "" if is_said or not snapshot.error else snapshot.error


def _status(snapshot: Snapshot, now: float | None) -> str:
    """Return a run's status and the time that it took, or has taken by `now`."""
    if snapshot.status == "lost":
        return "lost: it did not end and shows no sign of life; resume it to finish"
    end = snapshot.finished_at if snapshot.finished_at is not None else now
    if end is None:
        return snapshot.status
    between = " for " if snapshot.status == "running" else " in " if snapshot.status == "done" else " after "
    return snapshot.status + between + preview.duration(max(0.0, end - snapshot.started_at))


def why_text(step: str, answer: Mapping[str, Any]) -> str:
    """Return what `launch.why` says of a step as sentences, with what was and what is where both are short."""
    said = [f"{step}: {'would be reused' if answer['action'] == 'reuse' else 'would run'}"]
    for reason in answer["reasons"]:
        said.append(f"  {reason['code']}: {reason['what']}")
        if reason["code"] == "code" and (reason["before"] or reason["after"]):
            said += [f"    - {line}" for line in reason["before"].splitlines()]
            said += [f"    + {line}" for line in reason["after"].splitlines()]
    said += [f"  note: {note}" for note in answer.get("notes", ())]
    if "costs" in answer:
        said.append(f"  its last execution took {preview.duration(answer['elapsed'])}; nbflow's own part took")
        said += [f"    {name}: {1000 * seconds:.1f} ms" for name, seconds in answer["costs"].items()] or ["    nothing"]
    return "\n".join(said)
