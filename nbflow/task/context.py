"""The running task's context: `current` for the user's code, `emit` for components that update while a task runs."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from nbflow.errors import nearest
from nbflow.model import Asked, Index, Parallel, TaskEvent, TaskSpec


class Parameters(Mapping[str, Any]):
    """A run's parameters, read as `parameters.lr` or `parameters["lr"]`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            names = self.__dict__.get("_values", {})  # not there yet while it is being unpickled
            raise AttributeError(
                f"no parameter named {name!r}{nearest(name, names)}; known: {', '.join(names) or 'none'}"
            )
        return self._values[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # as any mapping

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._values})

    def __repr__(self) -> str:
        return f"Parameters({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"


@dataclass(frozen=True)
class Caught:
    """What `--catch NAME` leaves in NAME: the exception as text; None stands where nothing failed."""

    type: str
    message: str
    traceback: str


def task_name(step: str, index: Index) -> str:
    """Return a task's name within its run: `train`, `train/3`, nested `train/3.0`."""
    return f"{step}/{'.'.join(map(str, index))}" if index else step


def said(
    flow: str, run: str, step: str, index: Index, tags: tuple[str, ...], *, nodes: int, is_flow: bool
) -> dict[str, str]:
    """Return what `current` tells a task's code, by attribute and as text; other tasks may get other answers.

    Attempts, addresses and temporary folders are left out: whatever another execution would get there, this one is as
    good.
    """
    answers = {"flow": flow, "run": run, "step": step, "task": task_name(step, index), "tags": " ".join(tags)}
    index_text = str(index[-1]) if index else ""
    return {**answers, "index": index_text, "parallel": str(nodes), "is_flow": str(is_flow)}


class Context(msgspec.Struct):
    """One task as the code that runs in it may see it; `emit` sends an event to whoever watches the run."""

    flow: str
    run: str
    step: str
    emit: Callable[[TaskEvent], None]
    attempt: int = 1
    item: Any = None
    indices: Index = ()
    parameters: Parameters = msgspec.field(default_factory=lambda: Parameters({}))
    tags: tuple[str, ...] = ()
    is_flow: bool = True
    parallel: Parallel = Parallel()
    folder: str | None = None  # the temporary folder, once somebody asked for it
    closing: list[Callable[[], None]] = msgspec.field(default_factory=list)  # called once the task's own code is over
    asked: dict[Asked, None] = msgspec.field(default_factory=dict)  # what it asked nbflow itself, in order

    @property
    def task(self) -> str:
        """The task's name within its run: `train`, `train/3`, nested `train/3.0`."""
        return task_name(self.step, self.indices)

    def note(self, asked: Asked) -> None:
        """Note what the task's code asked nbflow, with the answer: reuse needs the same answer."""
        self.asked[asked] = None

    def says(self) -> dict[str, str]:
        """Return what `current` tells the task's code of its run and its place there, as text."""
        nodes = self.parallel.world_size
        return said(self.flow, self.run, self.step, self.indices, self.tags, nodes=nodes, is_flow=self.is_flow)

    def close(self) -> None:
        """Call what waits for the end of the task's own code, once."""
        while self.closing:
            self.closing.pop()()

    @classmethod
    def of(cls, spec: TaskSpec, emit: Callable[[TaskEvent], None], item: Any = None) -> Context:
        """Return the context of a task, whose events go to `emit`."""
        return cls(
            flow=spec.flow,
            run=spec.run,
            step=spec.step,
            emit=emit,
            attempt=spec.attempt,
            item=item,
            indices=spec.index,
            parameters=Parameters(pickle.loads(spec.parameters) if spec.parameters else {}),  # this run's own
            tags=spec.tags,
            is_flow=spec.is_flow,
            parallel=spec.parallel,
        )


class Current:
    """The task that runs now: `from nbflow import current`; every attribute is None outside a step, `is_flow` False.

    One task runs in a process at a time, its threads included: `running` sets `context`.
    """

    __slots__ = ("context",)

    def __init__(self) -> None:
        self.context: Context | None = None

    @property
    def flow(self) -> str | None:
        """The flow's name."""
        return None if (context := self._asked("flow")) is None else context.flow

    @property
    def run(self) -> str | None:
        """The run's id."""
        return None if (context := self._asked("run")) is None else context.run

    @property
    def step(self) -> str | None:
        """The step's name."""
        return None if (context := self._asked("step")) is None else context.step

    @property
    def task(self) -> str | None:
        """The task's name within its run: the step's, and the place in its fan-outs."""
        return None if (context := self._asked("task")) is None else context.task

    @property
    def attempt(self) -> int | None:
        """The attempt, from 1."""
        return None if self.context is None else self.context.attempt

    @property
    def item(self) -> Any:
        """The value of the innermost foreach."""
        return None if self.context is None else self.context.item

    @property
    def index(self) -> int | None:
        """The place of the item in the innermost foreach, from 0."""
        context = self._asked("index")
        return context.indices[-1] if context is not None and context.indices else None

    @property
    def parameters(self) -> Parameters | None:
        """The run's parameters, by attribute and by key."""
        return None if self.context is None else self.context.parameters

    @property
    def tags(self) -> tuple[str, ...] | None:
        """The run's tags when the task began."""
        return None if (context := self._asked("tags")) is None else context.tags

    @property
    def parallel(self) -> Parallel | None:
        """The place among the processes that run the step on several nodes; rank 0 of 1 without `--nodes`."""
        return None if (context := self._asked("parallel")) is None else context.parallel

    @property
    def tempdir(self) -> str | None:
        """A folder of this task's own, made when first asked for and removed after the task."""
        if self.context is None:
            return None
        if self.context.folder is None:
            self.context.folder = tempfile.mkdtemp(prefix=f"nbflow-{os.getpid()}-")
        return self.context.folder

    @property
    def is_flow(self) -> bool:
        """Whether the task belongs to a flow run; False for a cell run by hand."""
        return (context := self._asked("is_flow")) is not None and context.is_flow

    def _asked(self, name: str) -> Context | None:
        """Return the running task's context, and note that its code asked for what may differ in another task."""
        context = self.context
        if context is not None:
            context.note(Asked(what="current", of=name, answer=context.says()[name]))
        return context

    def __repr__(self) -> str:
        if self.context is None:
            return "<current: no step is running>"
        return f"<current: task {self.task}, attempt {self.attempt}, run {self.run}>"


current = Current()


@contextmanager
def running(context: Context) -> Iterator[Context]:
    """Show a context as `current` within the block; remove its temporary folder after it."""
    before = current.context
    current.context = context
    try:
        yield context
    finally:
        context.close()
        current.context = before
        if context.folder is not None:
            shutil.rmtree(context.folder, ignore_errors=True)


def emit(event: TaskEvent) -> None:
    """Send an event of the running task to whoever watches the run; raise RuntimeError outside a step."""
    if current.context is None:
        raise RuntimeError("no step is running")
    current.context.emit(event)
