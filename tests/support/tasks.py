"""Tasks for tests of executors: specs made from a few words, run to their end, their values loaded again."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbflow.model import (
    Ended,
    KeyParts,
    Output,
    Ref,
    Replay,
    Started,
    StepOptions,
    TaskEvent,
    TaskFailure,
    TaskResult,
    TaskSpec,
)
from nbflow.plugins import Executor, Handle
from nbflow.store import artifacts, location
from nbflow.store.serialize.registry import Registry

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Done:
    """A task that has ended: its events, its result and how long it took."""

    spec: TaskSpec
    events: list[TaskEvent]
    seconds: float

    @property
    def result(self) -> TaskResult:
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last.result

    @property
    def failure(self) -> TaskFailure:
        assert self.result.failure is not None, self.result.outputs
        return self.result.failure

    def live(self, name: str = "stdout") -> str:
        """What came as stream events, joined."""
        outputs = (event.output for event in self.events if isinstance(event, Output))
        return "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == name)

    @property
    def stdout(self) -> str:
        """What the result holds of the stream."""
        return "".join(o["text"] for o in self.result.outputs if o.get("name") == "stdout")

    @property
    def shown(self) -> str:
        """The text of the cell's last expression, on one line."""
        texts = [o["data"]["text/plain"] for o in self.result.outputs if o["output_type"] == "execute_result"]
        assert texts, (self.result.failure, self.result.outputs)
        return " ".join(texts[0].split())

    def value(self, name: str) -> Any:
        """An artifact's value, loaded in this process."""
        record = self.result.record
        assert record is not None, self.result.failure
        group = record.groups[record.artifacts[name].group]
        return artifacts.load(location.open_store(self.spec.store), (group,), {name}, Registry())[name]


class Tasks:
    """Makes specs for one store and folder, and runs them in one executor."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder

    def spec(self, source: str, *, after: Done | None = None, **fields: Any) -> TaskSpec:
        """A cell's source, the task whose values it reads, and other fields in; the spec out."""
        number = next(_NUMBERS)
        given: dict[str, Any] = {
            "flow": "f", "run": "r", "step": "s", "execution": f"r.s..{number}", "key": f"{number:040x}",
            "parts": KeyParts(code="c"), "source": source, "code_name": "train", "cell": "abcd", "position": 3,
            "store": str(self.folder / ".nbflow"), "folder": str(self.folder),
        }  # fmt: skip
        if after is not None:
            record = after.result.record
            assert record is not None, after.result.failure
            given["groups"] = record.groups
            given["inputs"] = {n: Ref(name=n, group=a.group) for n, a in record.artifacts.items() if a.group >= 0}
        return TaskSpec(**{**given, **fields})

    def submit(self, source: str, **fields: Any) -> tuple[TaskSpec, Handle]:
        spec = self.spec(source, **fields)
        return spec, self.executor.submit(spec)

    def run(self, source: str, **fields: Any) -> Done:
        """A cell's source in, run to its end."""
        began = time.monotonic()
        spec, handle = self.submit(source, **fields)
        return Done(spec, list(handle.events()), time.monotonic() - began)

    def finish(self, spec: TaskSpec, handle: Handle) -> Done:
        began = time.monotonic()
        return Done(spec, list(handle.events()), time.monotonic() - began)

    def cancel_when(self, text: str, grace: float, source: str, **fields: Any) -> Done:
        """Cancel the task once it has printed the text."""
        spec, handle = self.submit(source, **fields)
        events: list[TaskEvent] = []
        began = time.monotonic()
        for event in handle.events():
            events.append(event)
            if isinstance(event, Output) and text in event.output.get("text", ""):
                began = time.monotonic()
                handle.cancel(grace)
        return Done(spec, events, time.monotonic() - began)


def definition(name: str, source: str, **fields: Any) -> Replay:
    """A definition to replay: its one name, its source."""
    given: dict[str, Any] = {
        "id": f"{name}@{abs(hash(source)):x}", "kind": "definition", "cell": "first", "position": 1, "line": 1,
        "source": source, "names": (name,),
    }  # fmt: skip
    return Replay(**{**given, **fields})


def setup(source: str, **fields: Any) -> Replay:
    """A set-up statement to replay."""
    return definition("setup", source, **{"kind": "setup", "names": (), **fields})


def started(done: Done) -> Started:
    return next(event for event in done.events if isinstance(event, Started))


OPTIONS = StepOptions()
