"""Two runs → what differs between them: parameters, steps, code, artifacts. From manifests, but for tables in HTML."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import msgspec

from nbflow.model import Manifest
from nbflow.render import html, preview
from nbflow.render.components import grid_of, guarded, table
from nbflow.runs.client import Run, Step
from nbflow.runs.tasks import Artifact as StoredArtifact
from nbflow.runs.tasks import Task

NUMBERS = ("int", "float", "bool", "numpy.float64", "numpy.float32", "numpy.int64", "numpy.int32")
MOST_ROWS = 200
TABLES = ("pandas.DataFrame", "pandas.Series", "polars.DataFrame", "pyarrow.Table")
MOST_TABLES = 6
LARGEST_TABLE = 100_000_000
"""Bytes of a table that is loaded to be shown."""
TABLE_ROWS = 5


class Difference(msgspec.Struct, frozen=True):
    """One name as it was in both runs, "" where it was not there; `delta` for numbers: how much it grew."""

    name: str
    before: str
    after: str
    delta: float | None = None
    loaded: tuple[str, str] | None = None
    """The first rows of both as HTML, where they are tables and were asked for."""


class StepDifference(msgspec.Struct, frozen=True):
    """A step that differs: its state in both runs, lines of its code as a diff, artifacts by task and name."""

    step: str
    before: str  # state, "" where the run has no such step
    after: str
    code: tuple[str, ...] = ()
    artifacts: tuple[Difference, ...] = ()
    same: int = 0  # artifacts that are alike


class Comparison(msgspec.Struct, frozen=True):
    """All that differs between two runs."""

    before: str
    after: str
    facts: tuple[Difference, ...]  # status, commit, host, …
    parameters: tuple[Difference, ...]
    steps: tuple[StepDifference, ...]

    @property
    def same(self) -> bool:
        """Whether parameters, code and artifacts are alike."""
        return not self.parameters and not any(step.code or step.artifacts for step in self.steps)


def compare(before: Run, after: Run, *, tables: bool = False) -> Comparison:
    """Return what differs between two runs; with `tables` the first rows of tables that differ are loaded."""
    old, new = ({step.name: step for step in run.steps()} for run in (before, after))
    codes = {name: tuple(_code(before.source_of(name), after.source_of(name))) for name in old | new}
    room = [MOST_TABLES if tables else 0]
    steps = [_compare_step(name, old.get(name), new.get(name), code, room) for name, code in codes.items()]
    return Comparison(
        before=f"{before.flow}/{before.id}", after=f"{after.flow}/{after.id}",
        facts=tuple(_differences(_facts(before), _facts(after))),
        parameters=tuple(_differences(_texts(before), _texts(after))),
        steps=tuple(step for step in steps if step is not None),
    )  # fmt: skip


def _facts(run: Run) -> dict[str, str]:
    metadata = run.metadata
    elapsed = "" if run.finished_at is None else preview.duration((run.finished_at - run.created_at).total_seconds())
    facts = {name: str(metadata[name] or "") for name in ("notebook", "user", "host", "commit", "on")}
    return {"status": run.status, "elapsed": elapsed, "tags": ", ".join(run.tags), **facts}


def _texts(run: Run) -> dict[str, str]:
    return dict(run.snapshot.parameters)


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[Difference]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            yield Difference(name, old, new, _delta(old, new))


def _compare_step(
    name: str, before: Step | None, after: Step | None, code: tuple[str, ...], room: list[int]
) -> StepDifference | None:
    states = (before.state if before is not None else "", after.state if after is not None else "")
    artifacts, same = _compare_tasks(_tasks(before), _tasks(after), room)
    # a step that was executed once and reused the other time has done the same
    reached = {"done": "done", "reused": "done"}
    alike = reached.get(states[0], states[0]) == reached.get(states[1], states[1])
    if alike and not code and not artifacts:
        return None
    return StepDifference(name, *states, code=code, artifacts=tuple(artifacts[:MOST_ROWS]), same=same)


def _tasks(step: Step | None) -> dict[str, Task]:
    """Return a step's tasks by their name, the last turn of each."""
    return {task.name: task for task in step.tasks} if step is not None else {}


def _code(before: str, after: str) -> Iterable[str]:
    """Return the lines that were taken out, and those that came in."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _compare_tasks(old: Mapping[str, Task], new: Mapping[str, Task], room: list[int]) -> tuple[list[Difference], int]:
    rows: list[Difference] = []
    same = 0
    for task in dict.fromkeys([*old, *new]):
        before_artifacts = old[task].artifacts if task in old else {}
        after_artifacts = new[task].artifacts if task in new else {}
        place = f"{task.partition('/')[2]}/" if "/" in task else ""
        for name in dict.fromkeys([*before_artifacts, *after_artifacts]):
            one, other = (side[name].manifest if name in side else None for side in (before_artifacts, after_artifacts))
            if one is not None and other is not None and _alike(one, other):
                same += 1
                continue
            before, after = _shown(one), _shown(other)
            delta = _delta(before, after) if one and other and {one.type, other.type} <= {*NUMBERS} else None
            loaded = None
            if room[0] and one is not None and other is not None and _is_table(one) and _is_table(other):
                room[0] -= 1
                loaded = (_first_rows(before_artifacts[name]), _first_rows(after_artifacts[name]))
            rows.append(Difference(f"{place}{name}", before, after, delta, loaded))
    return rows, same


def _is_table(manifest: Manifest) -> bool:
    return manifest.type in TABLES and manifest.group >= 0 and manifest.nbytes <= LARGEST_TABLE


def _first_rows(artifact: StoredArtifact) -> str:
    return guarded(lambda: table(grid_of(artifact.value, rows=TABLE_ROWS, columns=8))).html


def _alike(one: Manifest, other: Manifest) -> bool:
    if one.content_id and other.content_id:
        return one.content_id == other.content_id
    return (one.type, one.preview, one.error) == (other.type, other.preview, other.error)


def _shown(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    text = preview.artifact(manifest)
    shape = preview.shape(manifest.shape)
    if manifest.type in NUMBERS or not shape:
        return text
    return f"{manifest.type}: {text}" if text[:1].isdigit() else f"{manifest.type} {shape}: {text}"


def _delta(before: str, after: str) -> float | None:
    try:
        return float(after) - float(before)
    except ValueError:
        return None


# ---------------------------------------------------------------- as text


def text(comparison: Comparison) -> str:
    """Return a comparison as lines for a person: what was beside what is."""
    lines = [f"{comparison.before} → {comparison.after}"]
    lines += _section("", comparison.facts)
    lines += _section("parameters", comparison.parameters)
    for step in comparison.steps:
        states = step.before if step.before == step.after else f"{step.before or 'absent'} → {step.after or 'absent'}"
        lines.append(f"{step.step}  {states}" + (f"  ({step.same} artifacts alike)" if step.same else ""))
        lines += [f"    {line}" for line in step.code]
        lines += _rows(step.artifacts)
    if comparison.same:
        lines.append("parameters, code and artifacts are alike")
    return "\n".join(lines)


def _section(title: str, rows: tuple[Difference, ...]) -> list[str]:
    return [*([title] if title and rows else []), *_rows(rows)]


def _rows(rows: Iterable[Difference]) -> list[str]:
    return preview.grid(
        (
            f"  {row.name}", preview.clip(row.before, 48) or "-", "→", preview.clip(row.after, 48) or "-",
            "" if row.delta is None else f"({row.delta:+.6g})",
        )
        for row in rows
    )  # fmt: skip


# ---------------------------------------------------------------- as HTML


def as_html(comparison: Comparison) -> str:
    """Return a comparison as a block of HTML that needs no script: both runs side by side."""
    flows = (comparison.before.partition("/")[0], comparison.after.partition("/")[0])
    title = html.join((html.tag("b", flows[0]), " two runs compared" if flows[0] == flows[1] else f" and {flows[1]}"))
    parts: list[object] = [html.tag("div", title, cls="nbflow-head")]
    heads = ("run", comparison.before.partition("/")[2], comparison.after.partition("/")[2], "change")
    if comparison.facts:
        parts.append(_side_by_side(heads, comparison.facts))
    if comparison.parameters:
        parts += [
            html.tag("div", html.tag("b", "parameters"), cls="nbflow-title"),
            _side_by_side(("name", *heads[1:]), comparison.parameters),
        ]
    parts += [_step_html(step, heads) for step in comparison.steps]
    if comparison.same:
        parts.append(html.tag("div", "Parameters, code and artifacts are alike.", cls="nbflow-dim"))
    return html.block(*parts)


def _side_by_side(heads: tuple[str, ...], rows: Iterable[Difference]) -> html.Html:
    body = [
        (row.name, html.tag("code", row.before or "-"), html.tag("code", row.after or "-"),
         "" if row.delta is None else f"{row.delta:+.6g}")
        for row in rows
    ]  # fmt: skip
    return html.table(heads, body, numbers=(3,))


def _step_html(step: StepDifference, heads: tuple[str, ...]) -> html.Html:
    """Return the states, code and artifacts of a step that differs; a click folds them."""
    states: list[object] = [html.state(step.before) if step.before else "absent"]
    if step.before != step.after:
        states += [" → ", html.state(step.after) if step.after else "absent"]
    alike = f" · {step.same} artifact{'s' if step.same != 1 else ''} alike" if step.same else ""
    summary = html.tag("summary", html.tag("b", step.step), " ", *states, html.tag("span", alike, cls="nbflow-dim"))
    parts: list[object] = [summary]
    if step.code:
        # + and - say what the colours repeat
        lines = (html.tag("span", line, cls="nbflow-in" if line[:1] == "+" else "nbflow-out") for line in step.code)
        parts.append(html.tag("pre", html.join(lines, "\n"), cls="nbflow-log"))
    if step.artifacts:
        parts.append(_side_by_side(("artifact", *heads[1:]), step.artifacts))
    for row in step.artifacts:
        if row.loaded is not None:
            sides = [html.tag("td", html.Html(side), valign="top") for side in row.loaded]
            pair = html.tag("table", html.tag("tbody", html.tag("tr", *sides)), cls="nbflow-pair")
            parts.append(html.tag("div", html.tag("code", row.name), html.tag("div", pair, cls="nbflow-scroll")))
    return html.tag("details", *parts, open="", cls="nbflow-folded")
