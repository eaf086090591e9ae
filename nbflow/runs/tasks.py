"""What a past task left, for users: `Task`, `Attempt`, `Failure`, `Artifact`, `Data`.

Only `.value` and `.data.NAME` unpickle.
"""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbflow import model
from nbflow.errors import NotFoundError, nearest
from nbflow.model import Record, TaskFailure, TaskState, TaskView
from nbflow.render import html, listing, preview, sanitize
from nbflow.render.cards import Card
from nbflow.runs.display import card_of, cards_of
from nbflow.runs.task_inputs import load_inputs, spec_of
from nbflow.runs.values import values_of
from nbflow.store.stored_run import StoredRun
from nbflow.task.outputs import Outputs


@dataclass(frozen=True)
class Failure:
    """Why a task failed, as text: the exception's class name, message and traceback, the cell's id and its line."""

    type: str
    message: str
    traceback: str
    cell: str | None = None
    line: int | None = None
    kind: str = "error"
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def failure_of(failure: TaskFailure | None) -> Failure | None:
    """Return the model's failure as users see it."""
    if failure is None:
        return None
    return Failure(
        type=failure.type,
        message=failure.message,
        traceback=failure.traceback,
        cell=failure.cell,
        line=failure.line,
        kind=failure.kind,
        fix=failure.fix,
    )


class Data:
    """Values by name: `data.NAME` loads one, `dir(data)` and `name in data` load none."""

    __slots__ = ("_elsewhere", "_load", "_names", "_of")

    def __init__(
        self, of: str, names: Callable[[], Iterable[str]], load: Callable[[str], Any],
        elsewhere: Callable[[str], str] = lambda _: "",
    ) -> None:  # fmt: skip
        """Take what they are of, their names and how one is loaded; `elsewhere` says where one is that is not here."""
        self._of = of
        self._elsewhere = elsewhere
        self._names = names
        self._load = load

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # private names are never artifacts; front ends ask for many such attributes
            raise AttributeError(name)
        try:
            return self._load(name)
        except NotFoundError as error:
            names = sorted(self._names())
            if name in names:
                raise AttributeError(error.message) from error
            if place := self._elsewhere(name):
                raise AttributeError(f"{self._of} did not make {name!r}: {place}") from None
            shown_names = ", ".join(names[:20]) or "none"
            raise AttributeError(f"{self._of} has no {name!r}{nearest(name, names)} (names: {shown_names})") from None

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise NotFoundError(str(error)) from None

    def __contains__(self, name: object) -> bool:
        return name in set(self._names())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names()))

    def __dir__(self) -> list[str]:
        return sorted(self._names())

    def __repr__(self) -> str:
        return f"<data of {self._of}: {', '.join(self) or 'nothing'}>"


class Artifact:
    """One name that a task left, seen through its manifest; `.value` loads it."""

    def __init__(self, manifest: model.Manifest, load: Callable[[], Any]) -> None:
        self._manifest = manifest
        self._load = load

    manifest = property(lambda self: self._manifest, doc="All that is known of it without loading it.")
    name = property(lambda self: self._manifest.name, doc="The variable's name.")
    type = property(lambda self: self._manifest.type, doc="Its type's full name, such as `pandas.DataFrame`.")
    shape = property(lambda self: self._manifest.shape, doc="Lengths along its axes, None for what has none.")
    nbytes = property(lambda self: self._manifest.nbytes, doc="Bytes that it takes in the datastore.")
    preview = property(lambda self: self._manifest.preview, doc="Its value in one line of text.")
    content_id = property(lambda self: self._manifest.content_id, doc="Equal contents have equal ids.")
    stored = property(lambda self: self._manifest.group >= 0, doc="Whether it can be loaded.")

    @property
    def value(self) -> Any:
        """The value itself, loaded from the datastore; NotFoundError when it was not stored."""
        return self._load()

    def __repr__(self) -> str:
        parts = [self.type, preview.shape(self.shape), preview.artifact(self._manifest, listing.WIDTH)]
        return sanitize.for_terminal(f"Artifact({self.name}: {', '.join(part for part in parts if part)})")

    def _repr_html_(self) -> str:
        return listing.artifacts_html(html.tag("b", self.name), [self._manifest])


class _Executed:
    """What the outputs of an execution look like from outside; `_pieces` gives them in order."""

    def pieces(self, rank: int = 0) -> list[Mapping[str, Any]]:
        """Return the nbformat outputs in order as they came, streams in pieces.

        `rank` is whose they are where the step runs on several nodes.
        """
        raise NotImplementedError

    @property
    def ranks(self) -> int:
        """How many processes ran it together, one on each of its `--nodes`."""
        raise NotImplementedError

    @property
    def stdout(self) -> str:
        """What was printed to standard output."""
        return _stream(self.pieces(), "stdout")

    @property
    def stderr(self) -> str:
        """What was printed to standard error."""
        return _stream(self.pieces(), "stderr")

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What was displayed and printed, as nbformat outputs in order; very long text is cut, `.stdout` has it all."""
        collected = Outputs()
        for piece in self.pieces():
            collected.add(dict(piece))
        return list(collected.items())


class PastAttempt(_Executed):
    """One attempt of a task: `.attempt` counts from 1."""

    def __init__(self, past: StoredRun, view: TaskView, changes: list[model.TaskChanged]) -> None:
        self._past = past
        self._view = view
        last = changes[-1]
        self.attempt: int = last.attempt
        self.state: TaskState = last.state
        self.error = failure_of(last.failure)
        self.started_at = next((moment(change.at) for change in changes if change.state == "running"), None)
        self.finished_at = moment(last.at) if last.state in model.SETTLED else None
        self.elapsed: float | None = last.elapsed

    def pieces(self, rank: int = 0) -> list[Mapping[str, Any]]:
        """Return what this attempt printed and displayed, as it came."""
        return self._past.outputs(self._view, self.attempt, rank)

    @property
    def ranks(self) -> int:
        """How many processes ran this attempt together, one on each of the step's `--nodes`."""
        return self._past.ranks(self._view, self.attempt)

    def __repr__(self) -> str:
        error = f", {self.error}" if self.error else ""
        return sanitize.for_terminal(f"Attempt({self.attempt}: {self.state}{error})")


class Task(_Executed):
    """One task of a past run: a step, or one item or turn of it. What it left is loaded by `.data.NAME`."""

    def __init__(self, past: StoredRun, view: TaskView, label: str) -> None:
        self._past = past
        self._view = view
        self._label = label

    @property
    def _cells(self) -> tuple[TaskView, ...]:
        """The tasks of the cells that it is made of: itself, for most."""
        return self._view.cells or (self._view,)

    # ------------------------------------------------------------ what it is

    @property
    def step(self) -> str:
        """The step's name."""
        return self._view.task.step

    @property
    def index(self) -> model.Index:
        """Its place in the fan-outs, outermost first; () outside a foreach."""
        return self._view.task.index

    @property
    def turn(self) -> int | None:
        """Its turn in an `--until`, from 0; None elsewhere."""
        return self._view.task.turn

    @property
    def item(self) -> Any:
        """The foreach's item: itself where its preview is a literal, else that preview; None outside a foreach."""
        if not self.index:
            return None
        try:
            return ast.literal_eval(self._view.item)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return self._view.item

    @property
    def name(self) -> str:
        """The task as the command line takes it: `train`, `train/2`, `train/1.0`."""
        return f"{self.step}/{preview.index(self.index)}" if self.index else self.step

    # ------------------------------------------------------------ what happened

    @property
    def state(self) -> TaskState:
        """Where it stands: pending, queued, running, done, reused, failed, caught, skipped or cancelled."""
        return self._view.state

    @property
    def attempt(self) -> int:
        """The last attempt's number, from 1."""
        return self._view.attempt

    @property
    def attempts(self) -> tuple[PastAttempt, ...]:
        """Every attempt, in order, each with its own logs."""
        return tuple(attempt for view in self._cells for attempt in _attempts(self._past, view))

    @property
    def error(self) -> Failure | None:
        """Why it failed, None when it did not."""
        return failure_of(self._view.failure)

    @property
    def started_at(self) -> dt.datetime | None:
        """When its cell began to run, None when it did not."""
        return None if self._view.started_at is None else moment(self._view.started_at)

    @property
    def finished_at(self) -> dt.datetime | None:
        """When it reached its last state, None before."""
        if self.state not in model.SETTLED:
            return None
        changes = [change for view in self._cells for change in self._past.changes(view.task)]
        return moment(max(change.at for change in changes)) if changes else None

    @property
    def elapsed(self) -> float | None:
        """Seconds that its last attempt took."""
        return self._view.elapsed

    @property
    def reasons(self) -> tuple[model.Reason, ...]:
        """(code, what) pairs: why it ran, was reused, skipped or cancelled."""
        return self._view.reasons

    @property
    def together(self) -> tuple[str, ...]:
        """The names of the steps that ran in its process with it, its own too; () where it ran alone."""
        return self._record.together if self._record is not None else ()

    @property
    def reused_from(self) -> str | None:
        """The id of the run whose result it is, None when it ran itself."""
        return self._view.reused_from

    @property
    def metadata(self) -> dict[str, Any]:
        """Key, execution, who, host, commit, versions, what it was seen to depend on, seconds that nbflow took."""
        started = self._past.started
        record = self._record
        facts: dict[str, Any] = {
            "flow": self._past.flow,
            "run": self._past.run,
            "key": self._view.key,
            "execution": self._view.execution,
            "user": started.user,
            "host": started.host,
            "commit": started.commit,
            "on": started.on,
            "versions": dict(started.versions),
        }
        if record is not None:
            observations = record.observations
            facts |= {
                "created_at": record.created_at,
                "files": dict(observations.files),
                "distributions": dict(observations.distributions),
                "environment": sorted(observations.environment),
                "written": dict(observations.written),
                "volatile": list(observations.volatile),
                "changed": list(record.changed),
                "costs": dict(record.costs),
            }
        return facts

    # ------------------------------------------------------------ what it left

    @property
    def _record(self) -> Record | None:
        return self._past.record(self._view)

    @property
    def lost(self) -> str:
        """What has become of its result where that is missing or damaged; an empty string otherwise."""
        return self._past.lost(self._view)

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """Name → Artifact; nothing is loaded."""
        record = self._record
        if record is None:
            return {}
        return {manifest.name: self._artifact(record, manifest.name) for manifest in self._manifests}

    @property
    def _manifests(self) -> list[model.Manifest]:
        record = self._record
        # `<random>` and its like are states that travel, not names of the user
        return [record.artifacts[name] for name in sorted(record.artifacts) if name[0] != "<"] if record else []

    def _artifact(self, record: Record, name: str) -> Artifact:
        return Artifact(record.artifacts[name], lambda: values_of(self._past).load(record, name))

    @property
    def data(self) -> Data:
        """`task.data.NAME` loads what the task left under that name, or replays a definition of its cell."""
        return Data(f"{self._past.flow}/{self._past.run}/{self.name}", self._names, self._load, self._elsewhere)

    def _elsewhere(self, name: str) -> str:
        """Return where a name is that another step has left: people look for all they know in the last task."""
        values = values_of(self._past)
        known = name in values.names() or name in self._past.started.parameters
        return f"a task's data is what its own cell left; `run.data.{name}` has the run's last value" if known else ""

    def _names(self) -> set[str]:
        record = self._record
        return set(record.artifacts if record else ()) | self._definers.keys()

    @property
    def _definers(self) -> dict[str, str]:
        """The names that its cells define, each with the node that does last."""
        values = values_of(self._past)
        return {name: view.task.step for view in self._cells for name in values.defined_in(view.task.step)}

    def _load(self, name: str) -> Any:
        record = self._record
        if (record is None or name not in record.artifacts) and (definer := self._definers.get(name)) is not None:
            return values_of(self._past).definition(definer, name)
        if record is None:
            raise NotFoundError(self.lost or f"{self.name} left nothing: it is {self.state}")
        return values_of(self._past).load(record, name)

    def spec(self) -> model.TaskSpec:
        """Return what it was run from: source and references to what it read; raise NotFoundError when that is gone.

        Of a step of several cells it is the first one's.
        """
        return spec_of(self._past, self._cells[0])

    def load_inputs(self) -> dict[str, Any]:
        """Return the names that its cell could read, with the values that it was given; of a failed task, too.

        Raises NotFoundError when something that it read is gone.
        """
        inputs: dict[str, Any] = {}
        for view in reversed(self._cells):
            record = self._past.record(view)
            left = record.artifacts if record is not None else {}
            inputs = {name: value for name, value in inputs.items() if name not in left}
            inputs |= load_inputs(self._past, view)
        return inputs

    @property
    def card(self) -> Card:
        """Its card: what its code put on cards, what it displayed and left, how it went; shown by a notebook."""
        return card_of(self._past, self._view, self._label, self.outputs)

    @property
    def cards(self) -> dict[str, Card]:
        """The cards that its code made by `card.append` and `card[NAME].append`, by name; that without one is ""."""
        return cards_of(self._past, self._view, self._label, self.outputs)

    def card_by(self, template: str) -> Card:
        """Return its card by a template that a package plugs in under `nbflow.cards`.

        Raises OptionError when there is no such template; the card of one that fails or takes too long says so.
        """
        return card_of(self._past, self._view, self._label, self.outputs, template)

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What it displayed and printed, as nbformat outputs in order; very long text is cut, `.stdout` has it all."""
        record = self._record
        return super().outputs if record is None else [dict(output) for output in record.outputs]

    def pieces(self, rank: int = 0) -> list[Mapping[str, Any]]:
        """Return what its last attempt printed and displayed, as it came."""
        return self._past.outputs(self._view, rank=rank)

    @property
    def ranks(self) -> int:
        """How many processes ran its last attempt together, one on each of the step's `--nodes`."""
        return self._past.ranks(self._view)

    # ------------------------------------------------------------ as people see it

    def __repr__(self) -> str:
        head = f"Task({self._past.flow}/{self._past.run}/{self.name}: {self.summary})"
        artifacts = listing.artifacts_text(self._manifests)
        return sanitize.for_terminal(f"{head}\n{artifacts}" if artifacts else head)

    @property
    def summary(self) -> str:
        """Its state, the time it took and why, or its error, in one line."""
        parts = [self.state, preview.duration(self.elapsed), preview.reasons(self.reasons)]
        if self._view.failure is not None:
            parts[2] = preview.failure(self._view.failure, self._past.snapshot.cells)
        return ", ".join(part for part in parts if part)

    def _repr_html_(self) -> str:
        name = f"{self._label}/{preview.index(self.index)}" if self.index else self._label
        summary = self.summary.removeprefix(self.state)
        title = html.join((
            html.tag("b", name), " ", html.state(self.state, preview.mark(self.state)),
            html.tag("span", summary, cls="nbflow-dim"),
        ))  # fmt: skip
        return listing.artifacts_html(title, self._manifests)


def _attempts(past: StoredRun, view: TaskView) -> Iterator[PastAttempt]:
    by_number: dict[int, list[model.TaskChanged]] = {}
    for change in past.changes(view.task):
        by_number.setdefault(change.attempt, []).append(change)
    for _, changes in sorted(by_number.items()):
        yield PastAttempt(past, view, changes)


def moment(at: float) -> dt.datetime:
    """Return Unix seconds as a time with this machine's time zone."""
    return dt.datetime.fromtimestamp(at, tz=dt.UTC).astimezone()


def _stream(pieces: Iterable[Mapping[str, Any]], name: str) -> str:
    """Return all text of `stdout` or `stderr` in outputs."""
    texts = []
    for piece in pieces:
        if piece.get("output_type") == "stream" and piece.get("name") == name:
            text = piece.get("text", "")
            texts.append(text if isinstance(text, str) else "".join(text))
    return "".join(texts)
