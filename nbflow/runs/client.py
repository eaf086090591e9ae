"""Past and present runs, read from the datastore: `Flow`, `Run` and `Step`; tasks and artifacts are in `tasks`.

Nothing but `.value` and `.data.NAME` unpickles: listings, states, previews, logs and reprs read manifests.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from nbflow.engine.earlier import graph_of
from nbflow.engine.file_parameters import read_file
from nbflow.errors import AmbiguousTask, NotFoundError, nearest
from nbflow.flow.identity import step_name
from nbflow.flow.notebook import parse_document
from nbflow.flow.options import check_tag
from nbflow.model import Flow as Graph
from nbflow.model import Index, RunStatus, Snapshot, Tagged, TaskState, TaskView
from nbflow.render import html, listing, preview, sanitize, table
from nbflow.render.cards import Card
from nbflow.runs.display import document_with, hints_of, of_step, report, run_html, step_html, step_views
from nbflow.runs.follow import Watch, follow
from nbflow.runs.tasks import Artifact, Data, Failure, Task, failure_of, moment
from nbflow.runs.values import StoredParameters, parameters_of, values_of
from nbflow.store import records, search
from nbflow.store.flows import named_flow, stored_flows
from nbflow.store.history import step_state
from nbflow.store.index import RunSummary
from nbflow.store.location import Store
from nbflow.store.stored_run import StoredRun, place_of, summaries
from nbflow.task import context
from nbflow.task.observe import inquiries


class RunError(str):
    """Why a run failed, in one line; the first failed task's error is in the attributes."""

    __slots__ = ("cell", "line", "message", "step", "traceback", "type")

    type: str
    message: str
    traceback: str
    step: str | None
    cell: str | None
    line: int | None


class RunParameters(context.Parameters):
    """A past run's parameters: shown as the dict that they are, without loading any."""

    def __init__(self, values: StoredParameters) -> None:
        super().__init__(values)
        self._shown = values.shown

    def __repr__(self) -> str:
        return sanitize.for_terminal(f"{{{', '.join(f'{name!r}: {text}' for name, text in self._shown().items())}}}")

    def __reduce__(self) -> tuple[Any, ...]:
        return context.Parameters, (dict(self),)

    def shown(self) -> dict[str, str]:
        """Return what each looks like; nothing is loaded."""
        return self._shown()


def error_of(view: Snapshot) -> RunError | None:
    """Return why a run failed, by its first failed task's error; None when nothing failed."""
    failed = next((task for task in view.tasks if task.state == "failed"), None)
    if view.error is None and failed is None:
        return None
    failure = failure_of(failed.failure) if failed is not None else None
    error = RunError(view.error or f"{failed.task.step if failed else ''}: {failure}")
    error.type, error.message = (failure.type, failure.message) if failure else ("", str(error))
    error.traceback = failure.traceback if failure else ""
    error.step = failed.task.step if failed is not None else None
    error.cell, error.line = (failure.cell, failure.line) if failure else (None, None)
    return error


def content_of(past: StoredRun, name: str) -> bytes:
    """Return the content that the file of a file parameter had when the run began."""
    for key, execution in past.started.given:
        record = past.given(key, execution)
        if record is not None and name in record.artifacts:
            return read_file(record, name, past.store)
    names = past.started.parameters
    raise NotFoundError(f"run {past.run} has no parameter {name!r}{nearest(name, names)}")


__all__ = ["Artifact", "Data", "Failure", "Flow", "Run", "Step", "Task", "locate"]

RUN_ID = re.compile(r"\d{8}-\d{6}-")
"""How run ids begin."""

ENDED_BADLY: tuple[RunStatus, ...] = ("failed", "cancelled", "lost")

SHOWN_RUNS = 20
"""Runs that a flow's repr lists."""


class Flow:
    """A flow's runs: those of the flow that bears the name now, under whatever name they ran.

    NotFoundError when the store knows no flow of that name, AmbiguousFlow when two bear it: the error says where their
    notebooks lie, and by which word each is meant.

    `store` is a folder or URL; without one it is NBFLOW_STORE, else what `%flow config store` wrote to
    `.nbflow/config.json` in the working directory, else that `.nbflow/`, else the one of a folder below it.
    """

    def __init__(self, name: str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> None:
        self._word = word = os.fspath(name)
        self._store, self._flow = search.find(store, Path.cwd(), word, lambda one: (one, inquiries.flow_of(one, word)))
        self.name = self._flow.name

    @property
    def latest_run(self) -> Run | None:
        """Its newest run, whatever its status; None when it has none.

        Only runs of the whole flow count: neither cells run by hand nor runs of some steps (`--step`, `--only`).
        """
        return self._newest(None)

    @property
    def latest_successful_run(self) -> Run | None:
        """Its newest run of the whole flow that is done; None when there is none."""
        return self._newest("done")

    def _newest(self, status: RunStatus | None) -> Run | None:
        past = inquiries.newest(self._store, self._word, status)
        return self._run(past) if past is not None else None

    def runs(self, *tags: str, status: str | None = None) -> list[Run]:
        """Return its runs that carry all these tags, newest first; `status` leaves only those with that status.

        Runs of some steps only, and those of cells run by hand, one for each kernel, are among them.
        """
        return [self._run(summary) for summary in inquiries.runs_of(self._store, self._word, tags, status)]

    def _run(self, summary: RunSummary) -> Run:
        return Run(StoredRun(self._store, place_of(summary)))

    def __getitem__(self, run_id: str) -> Run:
        return Run(inquiries.named(self._store, f"{self._word}/{run_id}"))

    def __contains__(self, run: object) -> bool:
        """Return whether it has a run of that id, or that Run."""
        if isinstance(run, Run):
            return run.store == self._store.url and run.id in self
        return isinstance(run, str) and inquiries.has_run(self._store, self._word, run)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs())

    def _rows(self) -> list[listing.ListedRun]:
        return [row(summary) for summary in inquiries.runs_of(self._store, self._word)[:SHOWN_RUNS]]

    def __repr__(self) -> str:
        return sanitize.for_terminal(f"Flow({self.name})\n{listing.runs_text(self._rows(), time.time())}")

    def _repr_html_(self) -> str:
        return listing.runs_html(self.name, self._rows(), time.time())


class Run:
    """One run: `Run("flow/id")`, `Run("flow/latest")` or `Run("id")`. NotFoundError when there is none.

    `store` as for `Flow`.
    """

    def __init__(self, name: str | StoredRun, store: str | os.PathLike[str] | None = None) -> None:
        self._past = (
            name
            if isinstance(name, StoredRun)
            else search.find(store, Path.cwd(), name, lambda one: inquiries.named(one, name))
        )

    # ------------------------------------------------------------ what it is

    @property
    def id(self) -> str:
        """Its id, unique within the store."""
        return self._past.run

    @property
    def flow(self) -> str:
        """Its flow's name."""
        return self._past.flow

    @property
    def store(self) -> str:
        """The folder or URL of the datastore that it is read from."""
        return self._past.store.url

    @property
    def snapshot(self) -> Snapshot:
        """All its tasks at this moment, as tables and pages draw them."""
        inquiries.watch_status(self._past)
        return self._past.snapshot

    @property
    def status(self) -> RunStatus:
        """Running, done, failed, cancelled or lost: not finished and without a sign of life."""
        return self.snapshot.status

    @property
    def finished(self) -> bool:
        """Whether it has ended, lost runs included."""
        return self.status != "running"

    @property
    def successful(self) -> bool:
        """Whether it has ended and no task failed."""
        return self.status == "done"

    @property
    def error(self) -> RunError | None:
        """Why it failed, None when it did not: text, with the first failed task's error in its attributes."""
        return error_of(self.snapshot)

    @property
    def params(self) -> RunParameters:
        """The parameters that it ran with, real values."""
        return RunParameters(parameters_of(self._past))

    def file(self, name: str) -> bytes:
        """Return the content that the file of a file parameter had when the run began."""
        return content_of(self._past, name)

    @property
    def tags(self) -> tuple[str, ...]:
        """The user's tags."""
        return inquiries.tags_of(self._past)

    @property
    def created_at(self) -> dt.datetime:
        """When it began."""
        return moment(self._past.snapshot.started_at)

    @property
    def finished_at(self) -> dt.datetime | None:
        """When it ended, None before, and where it was lost."""
        end = self.snapshot.finished_at
        return None if end is None else moment(end)

    @property
    def origin(self) -> str | None:
        """The run that it resumed."""
        return self._past.started.origin

    @property
    def metadata(self) -> dict[str, Any]:
        """Who ran it, where, from which notebook and commit."""
        started = self._past.started
        return {
            "notebook": started.notebook,
            "folder": started.folder,
            "user": started.user,
            "host": started.host,
            "pid": started.pid,
            "commit": started.commit,
            "on": started.on,
            "origin": started.origin,
            "session": started.session,
            "asked": list(started.asked),
            "all_cells": started.all_cells,
            "versions": dict(started.versions),
            "verified": started.verified,
        }

    @property
    def was_elsewhere(self) -> bool:
        """Whether tasks of it were sent to other machines, which may go on without the process that sent them."""
        return bool(self._past.store.children(f"{records.run_folder(self._past.folder, self._past.run)}/attempts"))

    @property
    def notebook(self) -> str:
        """The text of the notebook as it was run."""
        return self._past.document

    def source_of(self, step: str) -> str:
        """Return the text of a step's cell as it was run, an empty string where there is no such cell."""
        return self._sources.get(step, "")

    @cached_property
    def _sources(self) -> dict[str, str]:
        started = self._past.started  # as text: nothing has to be understood for it
        notebook = parse_document(self._past.document, name=self.flow, folder=started.folder, path=started.notebook)
        cells = (cell for cell in notebook.cells if cell.kind not in ("control", "empty"))
        return {step_name(cell): cell.body.strip("\n") for cell in cells}

    @cached_property
    def _graph(self) -> Graph:
        return graph_of(self._past)

    def notebook_with_outputs(self) -> str:
        """Return that notebook as an .ipynb whose cells show what their tasks displayed and printed."""
        outputs: dict[str, list[dict[str, Any]]] = {}
        for view in self.snapshot.tasks:
            outputs.setdefault(view.task.step, []).extend(Task(self._past, view, "").outputs)
        return document_with(self._past, self._graph, outputs)

    # ------------------------------------------------------------ what it holds

    def steps(self) -> list[Step]:
        """Return its steps in document order."""
        view = self.snapshot
        names = dict.fromkeys([*view.steps, *(task.task.step for task in view.tasks)])
        return [Step(self._past, name) for name in names if name not in view.rows]

    def __getitem__(self, name: str) -> Step:
        steps = self.steps()
        for step in steps:
            if name in (step.name, step.label):
                return step
        if name in self.snapshot.rows:
            return Step(self._past, name)
        names = [step.name for step in steps]
        raise NotFoundError(
            f"run {self.id} has no step {name!r}{nearest(name, names)}", fix=f"steps: {', '.join(names) or 'none'}"
        )

    def __contains__(self, name: object) -> bool:
        """Return whether it has a step of that name or label."""
        return any(name in (step.name, step.label) for step in self.steps())

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps())

    @property
    def data(self) -> Data:
        """`run.data.NAME` loads the name's last version in document order, or replays the definition that made it."""
        return Data(f"{self.flow}/{self.id}", self._names, self._load)

    def _names(self) -> list[str]:
        return sorted({*values_of(self._past).names(), *self._past.started.parameters})

    def _load(self, name: str) -> Any:
        inquiries.watch_status(self._past)
        try:
            return values_of(self._past).last(name)
        except NotFoundError:
            if name in self._past.started.parameters:
                return parameters_of(self._past)[name]
            raise

    @property
    def card(self) -> Card:
        """One card with its graph, who ran when, and those of all its tasks."""
        return report(self._past, _outputs(self._past))

    # ------------------------------------------------------------ what can be done to it

    def add_tag(self, *tags: str) -> None:
        """Add tags; those that it has stay."""
        self._tag(tags, present=True)

    def remove_tag(self, *tags: str) -> None:
        """Remove tags; those that it has not are passed over."""
        self._tag(tags, present=False)

    def _tag(self, tags: Iterable[str], *, present: bool) -> None:
        past, tags = self._past, [check_tag(tag) for tag in tags]
        reader = records.EventReader(past.store, past.folder, past.run)
        reader.new()
        name = f"client-{secrets.token_hex(6)}"
        writer = records.EventWriter(past.store, past.folder, past.run, name, reader.last)
        try:
            for tag in tags:
                writer.put(Tagged(name=tag, present=present, at=time.time()))
        finally:
            writer.close()
        past.forget()

    def cancel(self) -> None:
        """Ask it to stop: returns at once, `wait()` waits for the end. A run that has ended is left as it is."""
        if not self.finished:
            records.request_cancel(self._past.store, self._past.folder, self._past.run)

    def follow(self, watch: Watch, stop: threading.Event | None = None) -> Run:
        """Show a run that goes on elsewhere until it has ended, or `stop` is set; `watch` gets snapshots and events."""
        follow(self._past, watch, stop)
        return self

    def wait(self, timeout: float | None = None, every: float = 0.2) -> Run:
        """Wait until it has ended; TimeoutError after `timeout` seconds; looks at the store `every` so many seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.finished:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"run {self.id} has not ended after {timeout} s")
            time.sleep(every)
        return self

    # ------------------------------------------------------------ as people see it

    def __repr__(self) -> str:
        return sanitize.for_terminal(table.text(self.snapshot, time.time(), known=hints_of(self._past)))

    def _repr_html_(self) -> str:
        return run_html(self._past)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.store, self.id) == (other.store, other.id)

    def __hash__(self) -> int:
        return hash((self.store, self.id))


class Step:
    """One step of a run: its tasks, and its only task's parts."""

    def __init__(self, past: StoredRun, name: str) -> None:
        self._past = past
        self.name = name

    @property
    def label(self) -> str:
        """The step as people read it: its name, or `cell 3: df`."""
        return self._past.snapshot.labels.get(self.name) or self.name

    @property
    def state(self) -> TaskState:
        """The worst of its tasks' states; an empty foreach is done."""
        return step_state(self._views(), self._past.snapshot.status)

    @property
    def tasks(self) -> list[Task]:
        """Its tasks in item order, then turn."""
        return [Task(self._past, view, self.label) for view in self._views()]

    @property
    def task(self) -> Task:
        """Its only task, or the last turn of an `--until`; AmbiguousTask when it has several items."""
        tasks = self.tasks
        if not tasks:
            raise NotFoundError(f"step {self.name} has no task: it is {self.state}")
        if len({task.index for task in tasks}) > 1:
            raise AmbiguousTask(
                f"step {self.name} has {len(tasks)} tasks", step=self.name, fix="name one: step[0], or use step.tasks"
            )
        return tasks[-1]

    def __getitem__(self, index: int | Index) -> Task:
        tasks = self.tasks
        place = index if isinstance(index, tuple) else (index,)
        matches = [task for task in tasks if task.index == place or (not task.index and place == (0,))]
        if matches:
            return matches[-1]
        deeper = [task for task in tasks if task.index[: len(place)] == place]
        if deeper:
            raise AmbiguousTask(
                f"step {self.name} is in a nested foreach: item {preview.index(place)} has {len(deeper)} tasks",
                step=self.name,
                fix=f"name one: step[{', '.join(map(str, deeper[0].index))}]",
            )
        raise NotFoundError(f"step {self.name} has no item {preview.index(place)}; it has {len(tasks)} tasks")

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self._views())

    def __bool__(self) -> bool:
        return True

    @property
    def data(self) -> Data:
        """`step.data.NAME`: its only task's."""
        return self.task.data

    @property
    def card(self) -> Card:
        """Its only task's card, or one with the cards of all its items."""
        return of_step(self._past, self.name, _outputs(self._past))

    def _views(self) -> list[TaskView]:
        return step_views(self._past, self.name)

    def __repr__(self) -> str:
        lines = [f"Step({self._past.flow}/{self._past.run}/{self.name}: {self.state})"]
        loop = self._past.snapshot.loops.get(self.name, "")
        rows = [
            (f"  {task.name}", preview.item(loop, view.item), task.summary)
            for task, view in zip(self.tasks, self._views(), strict=True)
        ]
        return sanitize.for_terminal("\n".join([*lines, *preview.grid(rows)]))

    def _repr_html_(self) -> str:
        return step_html(self._past, self.label, html.state(self.state, preview.mark(self.state)), self._views())


def _outputs(past: StoredRun) -> Callable[[TaskView], list[dict[str, Any]]]:
    """Return a function that gives the outputs of each of a run's tasks."""
    return lambda view: Task(past, view, "").outputs


def list_runs(
    store: str | os.PathLike[str] | None = None, flow: str | None = None, tags: Iterable[str] = ()
) -> list[RunSummary]:
    """Return summaries of runs, newest first: those of a flow (None: all) that have all these tags.

    `store` as for `Flow`; where none is named, runs of the folder's own and of those below are listed.
    """
    return newest_first(runs for _, runs in runs_by_store(store, flow, tags))


def newest_first(runs: Iterable[Iterable[RunSummary]]) -> list[RunSummary]:
    """Return the runs of several datastores in one order."""
    return sorted(itertools.chain.from_iterable(runs), key=lambda each: each.run, reverse=True)


def runs_by_store(
    store: str | os.PathLike[str] | None = None, flow: str | None = None, tags: Iterable[str] = ()
) -> list[tuple[str, list[RunSummary]]]:
    """Return the URL of each datastore that was looked into with its runs, newest first, as `list_runs` means them.

    Raise NotFoundError where none of them knows the flow.
    """
    tags = list(tags)
    known: list[tuple[str, list[RunSummary]]] = []
    unknown: NotFoundError | None = None
    for one in search.stores_for(store, Path.cwd()):
        try:
            known.append((one.url, summaries(one, named_flow(one, flow) if flow is not None else None, tags)))
        except NotFoundError as error:
            unknown = unknown or error
    if not known and unknown is not None:
        raise unknown
    return known


def last_failed(runs: Iterable[RunSummary]) -> RunSummary | None:
    """Return the first of some runs, newest first, that can be resumed: a whole one that did not end well."""
    return next((run for run in runs if run.is_whole and run.status in ENDED_BADLY), None)


def _note_of(summary: RunSummary) -> str:
    note = (summary.error or "").partition("\n")[0] or _part_of(summary)
    return note if summary.emptied_at is None else ", ".join(part for part in (EMPTIED, note) if part)


EMPTIED = "values removed by gc"


def row(summary: RunSummary) -> listing.ListedRun:
    """Return a run's row in a list of runs."""
    return listing.ListedRun(
        flow=summary.flow,
        run=summary.run,
        status=summary.status,
        started_at=summary.created_at,
        elapsed=None if summary.finished_at is None else max(0.0, summary.finished_at - summary.created_at),
        tasks=table.summary(summary.counts),
        tags=summary.tags,
        note=_note_of(summary),
    )


def _part_of(summary: RunSummary) -> str:
    """Return what a run is where it is not one of the whole flow, an empty string where it is."""
    if summary.session:
        return "cells run by hand"
    return f"part of the flow: {', '.join(summary.asked)}" if summary.asked else ""


def locate(path: str, store: str | os.PathLike[str] | None = None) -> Run | Step | Task | Artifact:
    """Return what `RUN[/STEP[/ITEM]][/NAME]` names. RUN is `ID`, `FLOW/ID` or `FLOW/latest`, ITEM is `1` or `1.0`.

    Raises NotFoundError, which says which part is wrong and what there is instead.
    """
    parts = path.strip("/").split("/")

    def find_run(opened: Store) -> tuple[Run, list[str]]:
        whole = len(parts) > 1 and any(parts[0] in (flow.name, flow.folder) for flow in stored_flows(opened))
        # without such a flow, two parts are ID/STEP only if they begin like an id
        named = len(parts) > 1 and not RUN_ID.match(parts[0])
        run = Run(inquiries.named(opened, "/".join(parts[:2]) if whole or named else parts[0]))
        return run, parts[2:] if whole else parts[1:]

    run, rest = search.find(store, Path.cwd(), path, find_run)
    if not rest:
        return run
    names = {step.name for step in run.steps()} | {step.label for step in run.steps()}
    if len(rest) == 1 and rest[0] not in names:
        return _last_artifact(run, rest[0])
    step = run[rest[0]]
    rest = rest[1:]
    if rest and all(number.isdigit() for number in rest[0].split(".")):
        task = step[tuple(int(number) for number in rest[0].split("."))]
        rest = rest[1:]
    elif not rest:
        return step
    else:
        task = step.task
    if not rest:
        return task
    if len(rest) > 1:
        raise NotFoundError(f"{path!r} has too many parts", fix="write RUN/STEP/ITEM/NAME")
    artifacts = task.artifacts
    if rest[0] not in artifacts:
        raise NotFoundError(
            f"{task.name} left no artifact {rest[0]!r}{nearest(rest[0], artifacts)}",
            fix=f"it left: {', '.join(artifacts) or 'none'}",
        )
    return artifacts[rest[0]]


def card_at(path: str, template: str = "", store: str | os.PathLike[str] | None = None) -> Card:
    """Return the card of `RUN[/STEP[/ITEM]]`, or what a plug-in's template of that name makes of the task."""
    place = locate(path, store)
    if isinstance(place, Artifact):
        raise NotFoundError(f"{path!r} is an artifact, which has no card", fix="write RUN, RUN/STEP or RUN/STEP/ITEM")
    if not template:
        return place.card
    task = place if isinstance(place, Task) else place.task if isinstance(place, Step) else None
    if task is None:
        raise NotFoundError("a template makes the card of a task, not of a run", fix="write RUN/STEP or RUN/STEP/ITEM")
    return task.card_by(template)


def _last_artifact(run: Run, name: str) -> Artifact:
    """Return the last artifact of a name in document order."""
    for step in reversed(run.steps()):
        for task in reversed(step.tasks):
            if name in task.artifacts:
                return task.artifacts[name]
    names = [step.name for step in run.steps()]
    raise NotFoundError(
        f"run {run.id} has neither a step nor an artifact {name!r}{nearest(name, names)}",
        fix=f"steps: {', '.join(names) or 'none'}",
    )
