"""Commits in document order: who touched which files when, who waits before doing anything outside, who came too early.

What a step will touch is known from its text, or once a run has shown it. Where it is not, its task starts all the
same, and stops before the first thing that it would do outside its process (open a file for writing, connect, start a
program) until all steps above have ended that might touch the same. One that has only read is validated when it ends,
and when one above it does: it runs again where that one has written since what it had read.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from nbflow.analysis.files import NO_FILES, Files, common
from nbflow.engine import facts
from nbflow.engine.lookup import Lookup
from nbflow.engine.reuse import has_effect
from nbflow.flow import findings
from nbflow.model import Finding, Flow, Halted, Observations, Record, Step, StepOptions, TaskId, TaskSpec

PLAIN = StepOptions()
HELD = ("gpu", "memory", "timeout")
"""Options of what a task may not wait with: others need it, or its time runs."""


class FileSpan(msgspec.Struct, frozen=True):
    """When a step's executions began and ended in this run, and the files that they were seen to touch."""

    began: float
    ended: float = 0.0
    files: Files = NO_FILES
    executions: tuple[str, ...] = ()  # those without an effect, which may be executed again
    has_effect: bool = False
    is_whole: bool = True  # no programs may have touched others
    is_executed: bool = False  # in this run, and not only reused

    def also(self, seen: Observations, began: float, ended: float, execution: str = "") -> FileSpan:
        """Return this with what another execution of the step was seen to do."""
        effect = has_effect(seen)
        return FileSpan(
            min(self.began, began),
            max(self.ended, ended),
            self.files | facts.touched(seen),
            (*self.executions, *((execution,) if execution and not effect else ())),
            self.has_effect or (effect and bool(execution)),
            self.is_whole and facts.is_whole(seen),
            self.is_executed or bool(execution),
        )

    @property
    def needs(self) -> frozenset[str]:
        """The files that nobody above may write once it has begun: those that it has read, or is reused with."""
        reads = self.files.reads or frozenset()
        return reads if self.is_executed else reads | (self.files.writes or frozenset())


class TooEarly(msgspec.Struct, frozen=True):
    """A step that read files before one above it had written them."""

    above: Step
    below: Step
    names: frozenset[str]
    executions: tuple[str, ...] = ()  # of the one below, whose results do not count


class Commits:
    """What one run knows of the order in which its steps touch anything outside."""

    def __init__(self, lookup: Lookup, is_settled: Callable[[TaskId], bool]) -> None:
        self.lookup = lookup
        self.is_settled = is_settled
        self.spans: dict[str, FileSpan] = {}  # of steps that were executed
        self.halts: dict[TaskId, Halted] = {}  # tasks that wait, each before what
        self.learnt: dict[str, Files] = {}  # files of steps that came too early, and of those that wrote them
        self._waited = False  # some task has
        self._settled = 0  # how many steps, from the first one on, have settled
        self._gates: dict[TaskId, Path] = {}
        self._since: dict[TaskId, float] = {}  # when tasks began to wait
        self._waits: dict[TaskId, tuple[float, float]] = {}  # when they went on, and for how many seconds they waited
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._upstream: dict[str, frozenset[str]] = {}  # of a step: itself, and all that it depends on

    @property
    def flow(self) -> Flow:
        """The flow as it is understood now."""
        return self.lookup.flow

    # ------------------------------------------------------------ before anything is done outside

    def gate(self, task: TaskId, spec: TaskSpec) -> str:
        """Return the file whose coming lets a task do what it does outside, "" where it need not wait."""
        options = spec.options
        if task.part or spec.items or any(getattr(options, name) != getattr(PLAIN, name) for name in HELD):
            return ""
        if next(self.open_above(task), None) is None:
            return ""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="nbflow-gates-"))
        self._gates[task] = self._folder / str(next(self._numbers))
        return str(self._gates[task])

    def open_above(self, task: TaskId) -> Iterator[Step]:
        """Yield the steps above a task that have not settled, and may touch what it touches."""
        steps, seen = self.flow.steps, self.lookup.facts.seen
        step = self.flow.step(task.step)
        own = {step.name, *step.together}
        last = max(self.flow.step(name).position for name in own)
        while self._settled < len(steps) and self._has_settled(steps[self._settled], task):
            self._settled += 1
        for other in steps[self._settled :]:
            if other.position >= last:
                return
            if other.name in own or {*other.scope} & {*step.scope} or self._has_settled(other, task):
                continue
            # Where it is known what both touch they wait for each other by an edge, if it is one thing. So must all be
            # known that the task depends on: one of those might run again because of the other.
            if other.name not in seen or any(name not in seen for each in own for name in self._depends(each)):
                yield other

    def _depends(self, name: str) -> frozenset[str]:
        if name not in self._upstream:
            step = self.flow.step(name)
            above = [self._depends(each) for each in {*step.needs, *step.ordered} if each in self.lookup.loops.steps]
            self._upstream[name] = frozenset({name}).union(*above)
        return self._upstream[name]

    def _has_settled(self, step: Step, task: TaskId) -> bool:
        return not {*step.scope} & {*self.flow.step(task.step).scope} and self.is_settled(
            self.lookup.loops.whole(step.name, task)
        )

    def halt(self, task: TaskId, halted: Halted) -> str:
        """Take down that a task waits; return for whom."""
        self.halts[task] = halted
        self._since[task] = time.time()
        self._waited = True
        first = next(self.open_above(task), None)
        return f"waits before it touches {halted.what}: {first.label} above may do so first" if first else ""

    def is_free(self, task: TaskId) -> bool:
        """Return whether a task that waits may go on."""
        return next(self.open_above(task), None) is None

    def overtaken(self, task: TaskId, began: float) -> TooEarly | None:
        """Return which step above has written, since a task that waits began, what it has read."""
        reads = frozenset(self.halts[task].reads)
        early = self._written_since(task, began, reads)
        if early is not None:
            self.spans[early.below.name] = FileSpan(began, began, Files(reads=reads), is_whole=False)
        return early

    def _written_since(self, task: TaskId, began: float, reads: frozenset[str]) -> TooEarly | None:
        below = self.flow.step(task.step)
        position = max(self.flow.step(name).position for name in (below.name, *below.together))
        for name, span in self.spans.items():
            above, names = self.flow.step(name), (span.files.writes or frozenset()) & reads
            is_late = span.is_executed and span.ended > began
            if names and is_late and above.position < position and name not in below.together:
                return TooEarly(above, below, names)
        return None

    def release(self, task: TaskId) -> None:
        """Let a task go on."""
        del self.halts[task]
        now = time.time()
        self._waits[task] = now, now - self._since[task]
        self._gates[task].touch()

    def forget(self) -> None:
        """Forget who waits, and how far the flow has come: it begins anew."""
        self.halts.clear()
        self._upstream.clear()
        self._settled = 0

    def close(self) -> None:
        """Remove what the run has left here."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------ after it

    def note(self, task: TaskId, record: Record) -> None:
        """Take down which files an execution touched, and when."""
        if task.part:  # a fan-out's list is evaluated before its items
            return
        # What it had read before it waited was looked at when it went on.
        released, waited = self._waits.get(task, (0.0, 0.0))
        began, ended = max(record.created_at, released), record.created_at + record.elapsed + waited
        self._add(record.step, record.observations, began, ended, record.execution)

    def note_reused(self, task: TaskId, record: Record) -> None:
        """Take down a past execution that stands for a task: what it has touched may still be written above it."""
        if not task.part and next(self.open_above(task), None) is not None:
            now = time.time()
            self._add(record.step, record.observations, now, now)

    def _add(self, step: str, seen: Observations, began: float, ended: float, execution: str = "") -> None:
        self.spans[step] = self.spans.get(step, FileSpan(began)).also(seen, began, ended, execution)

    def too_early(self, task: TaskId) -> list[TooEarly]:
        """Return who has read, of the steps around one that has just ended, what a step above wrote only then."""
        names = [name for name in self.lookup.loops.step_of(task).together or (task.step,) if name in self.spans]
        pairs = [self._pair(self.flow.step(name), self.flow.step(other)) for name in names for other in self.spans]
        return [pair for pair in pairs if pair is not None]

    def _pair(self, one: Step, other: Step) -> TooEarly | None:
        above, below = (one, other) if one.position < other.position else (other, one)
        before, span = self.spans[above.name], self.spans[below.name]
        if span.has_effect or span.began >= before.ended:
            return None
        names = (before.files.writes or frozenset()) & span.needs if before.is_executed else frozenset()
        if not names or {*above.scope} & {*below.scope} or above.name in below.together:
            return None
        if any(self.spans[name].has_effect for name in below.together if name in self.spans):
            return None
        return TooEarly(above, below, names, span.executions)

    def missed(self, task: TaskId, began: float, seen: Observations) -> TooEarly | None:
        """Return which step above has written, since a task began that failed, what it had read or looked for."""
        if has_effect(seen):
            return None
        early = self._written_since(task, began, facts.touched(seen).reads or frozenset())
        if early is not None:
            self._add(early.below.name, seen, began, began)
        return early

    def take_back(self, early: Sequence[TooEarly]) -> None:
        """Let results that came too early not count, in this run or later; keep what has been learnt of files."""
        for each in early:
            for step in (each.above, each.below):
                if (span := self.spans.get(step.name)) is not None:
                    self.learnt[step.name] = self.learnt.get(step.name, NO_FILES) | span.files
                    self._remember(self.flow, step, span)
            facts.remember_early(self.lookup.store, each.below, each.executions)
            self.lookup.drop({*each.executions})
        for each in early:
            self.spans.pop(each.below.name, None)

    def _remember(self, flow: Flow, step: Step, span: FileSpan) -> None:
        if span.is_whole:  # else its text decides
            facts.remember_files(self.lookup.store, flow, step, span.files)

    def learn(self, flow: Flow) -> Iterator[Finding]:
        """Keep which files steps have touched; yield what is to be said of those that touched one out of turn."""
        ordering = {name for step in flow.steps if step.ordered for name in (step.name, *step.ordered)}
        spans = [(step, self.spans[step.name]) for step in flow.steps if step.name in self.spans]
        for step, span in spans:
            if self._waited or span.files.touches or step.name in ordering:
                self._remember(flow, step, span)
        writers = [(step, span) for step, span in spans if span.files.touches and span.is_executed]
        for at, (step, span) in enumerate(writers):
            for above, before in writers[:at]:
                if span.began < before.ended and not {*step.scope} & {*above.scope}:
                    names = common(before.files, span.files)
                    if names:
                        facts.remember_early(self.lookup.store, step, span.executions)
                        yield findings.out_of_turn(step, above, names)
