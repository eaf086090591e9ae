"""Tasks in the order that the plain loops would run them in: what a task reads from, what it waits for. Pure.

A flow with fan-outs means nested for loops, `--until` a loop in its step. A name that a task reads has the value
that the nearest task before it, in that order, gave it. Everything here is that one sentence.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec

from nbflow.analysis.effects import AXES, PROCESS, names_axes, owner_of
from nbflow.flow.fanouts import own_names, surely
from nbflow.flow.spans import cells_of
from nbflow.flow.subflow import preload_of
from nbflow.model import Definition, Flow, Index, Record, Source, Step, TaskId, Writer

Sizes = Mapping[tuple[str, Index], int]
"""(foreach step, its own place) -> number of items; (step with turns, its place) -> number of turns: what is known."""


class Candidate(msgspec.Struct, frozen=True):
    """A task that may have given a name its value; `sure`: it has, unless it was skipped."""

    task: TaskId
    sure: bool


class Gate(msgspec.Struct, frozen=True):
    """A fan-out that must have settled before the tasks in it are known."""

    task: TaskId


Search = Generator[Candidate | Gate, None, bool]
"""Candidates, nearest first; it returns whether what stands behind them does not count any more."""


class Loops:
    """A flow as nested loops."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.steps = {step.name: step for step in flow.steps}
        self._tracked: dict[str, tuple[Step, tuple[str, ...]]] = {}  # worked out once a step, not once a task

    @cached_property
    def bodies(self) -> Mapping[str, tuple[Step, ...]]:
        """Return each foreach step's body in document order, inner bodies included."""
        heads = [step for step in self.flow.steps if step.options.foreach is not None]
        return {
            head.name: tuple(s for s in self.flow.steps if s.scope[: len(head.scope)] == head.scope) for head in heads
        }

    @cached_property
    def own(self) -> Mapping[str, frozenset[str]]:
        """Return for each fan-out the names that an item never takes from the one before it."""
        return own_names(self.flow.steps)

    def step_of(self, task: TaskId) -> Step:
        """Return what a task is made of: its step, or the list that a foreach step runs over."""
        return self.flow.lists[task.step] if task.part == "list" else self.steps[task.step]

    @cached_property
    def preload(self) -> tuple[str, ...]:
        """Return the modules that the flow's cells import."""
        return preload_of(self.flow)

    @cached_property
    def setting(self) -> dict[str, int]:
        """Return the steps that are known to set something in their process, with their positions."""
        return {step.name: step.position for step in self.flow.steps if PROCESS in step.writes}

    @cached_property
    def definitions_by_id(self) -> Mapping[str, Definition]:
        """Return each definition by its id; the first of several alike."""
        return {definition.id: definition for definition in reversed(self.flow.definitions)}

    # ------------------------------------------------------------ which task a name comes from

    def candidates(self, task: TaskId, name: str, sizes: Sizes) -> Iterator[Candidate | Gate]:
        """Yield the tasks that may have given a name the value that this task reads, nearest first."""
        # The nearest writer before a task, if fan-outs were nested for loops: an earlier turn of the step itself; then,
        # from the innermost loop outwards, what stands above in the same item, what earlier items of that loop left,
        # and what stands above the loop. Names that are an item's own are never taken from an earlier item.
        step = self.step_of(task)
        writers = self.flow.writers.get(name, ())
        if task.turn and name in step.writes:
            for turn in range(task.turn - 1, -1, -1):
                yield Candidate(TaskId(step=step.name, index=task.index, turn=turn), surely(step, name))
        position = step.position
        for depth in range(len(step.scope), -1, -1):
            frame = step.scope[:depth]
            inner = step.scope[depth] if depth < len(step.scope) else None
            if inner is not None and name not in self.own.get(inner, ()):
                for before in range(task.index[depth] - 1, -1, -1):
                    place = (*task.index[:depth], before)
                    yield from self._block(name, step.scope[: depth + 1], place, sizes)
            low = self.steps[frame[-1]].position if frame else 0
            nearby = tuple(writer for writer in writers if low <= writer.position < position)
            if (yield from self._above(name, nearby, frame, inner, task.index[:depth], sizes)):
                return

    def _above(
        self,
        name: str,
        writers: tuple[Writer, ...],
        frame: tuple[str, ...],
        besides: str | None,
        index: Index,
        sizes: Sizes,
    ) -> Search:
        """Yield the writers in this frame, nearest first; return whether what stands behind them counts no more."""
        heads: set[str] = set()
        for writer in reversed(writers):
            if writer.step is None:
                return True  # a definition, or a deletion: nothing behind it counts
            step = self.steps.get(writer.step)
            if step is None:
                yield Candidate(TaskId(step=writer.step), writer.sure)
                continue
            if step.scope[: len(frame)] != frame or (besides is not None and besides in step.scope):
                continue
            yield from self._writer(name, step, writer.sure, frame, index, sizes, heads)
        return False

    def _writer(
        self,
        name: str,
        step: Step,
        sure: bool,
        frame: tuple[str, ...],
        index: Index,
        sizes: Sizes,
        heads: set[str],
    ) -> Iterator[Candidate | Gate]:
        """Yield one writer in a frame; the first in a fan-out below stands for all its items, the last one first."""
        depth = len(frame)
        if len(step.scope) == depth:
            yield Candidate(settled_id(step, index), sure)
            for turn in range(sizes.get((step.name, index), 0) - 2, -1, -1):  # the last one is the first candidate
                yield Candidate(TaskId(step=step.name, index=index, turn=turn), sure)
            return
        head = step.scope[depth]
        if head in heads:
            return
        heads.add(head)
        yield Gate(TaskId(step=head, index=index, part="all"))
        for item in range(sizes.get((head, index), 0) - 1, -1, -1):
            yield from self._block(name, (*frame, head), (*index, item), sizes)

    def _block(self, name: str, frame: tuple[str, ...], index: Index, sizes: Sizes) -> Iterator[Candidate | Gate]:
        """Yield every writer of a name in one item of a body, last first."""
        heads: set[str] = set()
        for step in reversed(self.bodies[frame[-1]]):
            if name in step.writes:
                yield from self._writer(name, step, surely(step, name), frame, index, sizes, heads)

    def of_sources(
        self, task: TaskId, name: str, sources: Sequence[Source], sizes: Sizes
    ) -> Iterator[Candidate | Gate]:
        """Yield the tasks of known steps, those that a definition reads from while defining, as `candidates` does."""
        scope = self.step_of(task).scope
        for source in sources:
            if source.step is None:
                return
            step = self.steps.get(source.step)
            if step is None:
                yield Candidate(TaskId(step=source.step), source.sure)
                continue
            shared = _shared(step.scope, scope)
            frame, index = scope[:shared], task.index[:shared]
            yield from self._writer(name, step, source.sure, frame, index, sizes, set())

    def versions(self, name: str, sizes: Sizes) -> Iterator[TaskId | tuple[int, ...]]:
        """Yield where a name's value at the notebook's end may lie: tasks, nearest first, or orders of definitions."""
        heads: set[str] = set()
        for writer in reversed(self.flow.writers.get(name, ())):
            if writer.definitions:
                yield writer.definitions
                return
            if writer.step is None:
                return
            step = self.steps.get(writer.step)
            if step is None:
                yield TaskId(step=writer.step)
                continue
            candidates = self._writer(name, step, False, (), (), sizes, heads)
            yield from (candidate.task for candidate in candidates if isinstance(candidate, Candidate))

    # ------------------------------------------------------------ what must settle first

    def needs(self, task: TaskId, sizes: Sizes) -> tuple[TaskId, ...]:
        """Return the tasks that must have settled before this one's inputs can be looked up, or its files touched."""
        return (*self.sources(task, sizes), *self.turns(task, sizes))

    def turns(self, task: TaskId, sizes: Sizes) -> tuple[TaskId, ...]:
        """Return the tasks that must be over before this one only because both touch the same files, if they do."""
        step = self.step_of(task)
        names = [name for name in step.ordered if name in self.steps and name not in step.file_sources]
        if not names or task != self.members(task)[0] or task.part:
            return ()
        sources = {task, *self.sources(task, sizes)}
        tasks = dict.fromkeys(self.whole(name, task) for name in names)
        return tuple(each for each in tasks if each not in sources)

    def sources(self, task: TaskId, sizes: Sizes) -> tuple[TaskId, ...]:
        """Return the tasks from which this one takes what it reads: where one of them has failed, it cannot run."""
        if task.part == "all":
            return (msgspec.structs.replace(task, part="list"),)
        if task.part == "last":
            return (TaskId(step=task.step, index=task.index, turn=0),)
        members = self.members(task)
        at = members.index(task)
        if at:
            return (members[at - 1],)
        tasks = dict.fromkeys(need for member in members for need in self._own_needs(member, sizes))
        return tuple(need for need in tasks if need not in members)

    def members(self, task: TaskId) -> tuple[TaskId, ...]:
        """Return the tasks that one process runs together with this one, in order; this one alone for most."""
        step = None if task.part else self.steps[task.step]
        if step is None or not step.together:
            return (task,)
        return tuple(msgspec.structs.replace(task, step=name) for name in step.together)

    def _own_needs(self, task: TaskId, sizes: Sizes) -> tuple[TaskId, ...]:
        step = self.step_of(task)
        tasks: dict[TaskId, None] = {}
        binds = [*step.bindings, *(b for order in step.definitions for b in self.flow.definitions[order].binds)]
        names = sorted({bind.name for bind in step.bindings})
        looks = [self.candidates(task, name, sizes) for name in names]
        looks += [self.of_sources(task, bind.name, bind.sources, sizes) for bind in binds[len(step.bindings) :]]
        for look in looks:
            tasks.update((c.task, None) for c in _up_to_sure(look) if c.task.step in self.steps)
        branches = (self.cells(branch)[-1].name for branch in self.branches(step))
        for word in (*step.options.after, *(name for name in step.file_sources if name in self.steps), *branches):
            tasks[self.whole(word, task)] = None
        for head in self._joined(step):
            tasks[TaskId(step=head.name, index=task.index[: len(head.scope) - 1], part="all")] = None
        if step.options.until is not None and task.turn:
            tasks[TaskId(step=step.name, index=task.index, turn=task.turn - 1)] = None
        tasks.pop(task, None)
        return tuple(tasks)

    @cached_property
    def _changes(self) -> Mapping[str, tuple[Step, ...]]:
        """Return for each name the steps that may change the value that they read, whether they run now or later."""
        changers: dict[str, list[Step]] = {}
        for step in (*self.flow.steps, *self.flow.beyond):
            for name in {binding.name for binding in step.bindings}.intersection(step.writes):
                changers.setdefault(name, []).append(step)
        return {name: tuple(steps) for name, steps in changers.items()}

    def changed_below(self, step: Step, name: str) -> bool:
        """Return whether a step below, or one in the same fan-out, may change what the name holds after this step."""
        return any(self._is_below(step, other) for other in self._changes.get(name, ()))

    def _is_below(self, step: Step, other: Step) -> bool:
        """Return whether another step stands below, or in the same fan-out."""
        return other.name != step.name and (
            other.position > step.position or not set(step.scope).isdisjoint(other.scope)
        )

    def tracked(self, step: Step) -> tuple[str, ...]:
        """Return the names that a step below may change: what shares objects with them has to stay with them.

        All (`*`), where that is one of its own: whatever shares objects with it changes too.
        """
        cached = self._tracked.get(step.name)
        if cached is None or cached[0] is not step:
            cached = self._tracked[step.name] = step, self._tracked_of(step)
        return cached[1]

    def kept_together(self, step: Step) -> tuple[str, ...]:
        """Return the names stored with what shares objects with them; a later cell may change what is not known yet."""
        return ("*", AXES) if self.flow.notebook.grows else self.tracked(step)

    def _tracked_of(self, step: Step) -> tuple[str, ...]:
        axes = (AXES,) if any(self._is_below(step, other) for other in self._naming) else ()
        if any(self.changed_below(step, name) for name in step.writes if _holds_objects(name)):
            return ("*", *axes)
        return (*(n for n in sorted(self._changes) if _holds_objects(n) and self.changed_below(step, n)), *axes)

    @cached_property
    def _naming(self) -> tuple[Step, ...]:
        """Return the steps that may name the levels of an index in place."""
        return tuple(step for step in (*self.flow.steps, *self.flow.beyond) if names_axes(step.source))

    def possible_writers(self, step: Step) -> tuple[Step, ...]:
        """Return the steps above that hand something that this one reads to calls, which might change it in place."""
        reads = {binding.name for binding in step.bindings}
        return tuple(
            s for s in self.flow.steps
            if s.position < step.position and (step.name in s.affects or reads.intersection(s.escapes))
        )  # fmt: skip

    def whole(self, word: str, task: TaskId) -> TaskId:
        """Return all of a step that `--after` names, as far as it concerns this task."""
        name = next(
            (s.name for s in self.flow.steps if word in (s.name, f"cell {s.position}", f"cell:{s.position}")), word
        )
        other, step = self.steps[name], self.step_of(task)
        shared = _shared(other.scope, step.scope)
        if shared == len(other.scope):
            return settled_id(other, task.index[:shared])
        return TaskId(step=other.scope[shared], index=task.index[:shared], part="all")

    def _joined(self, step: Step) -> tuple[Step, ...]:
        """Return the foreach steps whose fan-outs a join closes."""
        heads = {
            self.steps[name].scope[-1] for name in step.options.join if name in self.steps and self.steps[name].scope
        }
        return tuple(self.steps[head] for head in sorted(heads))

    def joined(self, step: Step) -> Step | None:
        """Return the foreach step whose fan-out this step closes; None when it is no join."""
        return next(iter(self._joined(step)), None)

    def branches(self, step: Step) -> tuple[Step, ...]:
        """Return the steps that a join names which are in no fan-out, in the order in which it names them."""
        names = [name for name in step.options.join if name in self.steps]
        return () if self._joined(step) else tuple(self.steps[name] for name in names)

    def cells(self, step: Step) -> tuple[Step, ...]:
        """Return a step with its further cells, in document order."""
        return tuple(self.steps[name] for name in cells_of(self.flow.steps, step.name))

    # ------------------------------------------------------------ which tasks there are

    def first(self) -> tuple[TaskId, ...]:
        """Return the tasks outside every fan-out, and the lists of the outermost ones."""
        return self._tasks_in((), ())

    def items(self, head: str, index: Index, size: int) -> tuple[TaskId, ...]:
        """Return the tasks of a fan-out whose list is known."""
        scope = self.steps[head].scope
        return tuple(task for item in range(size) for task in self._tasks_in(scope, (*index, item)))

    def places(self, head: str, index: Index) -> tuple[TaskId, ...]:
        """Return one task for each step of a fan-out's body: they stand for a fan-out that has no list."""
        return tuple(TaskId(step=step.name, index=index) for step in self.bodies[head])

    def gate_needs(self, gate: TaskId, size: int) -> tuple[TaskId, ...]:
        """Return what the end of a fan-out waits for: every task of every item, inner fan-outs as a whole."""
        scope = self.steps[gate.step].scope
        tasks: list[TaskId] = []
        for item in range(size):
            index = (*gate.index, item)
            for step in self.bodies[gate.step]:
                if step.scope == scope:
                    tasks.append(settled_id(step, index))
                elif len(step.scope) == len(scope) + 1 and step.scope[-1] == step.name:
                    tasks.append(TaskId(step=step.name, index=index, part="all"))
        return tuple(tasks)

    def _tasks_in(self, scope: tuple[str, ...], index: Index) -> tuple[TaskId, ...]:
        tasks: list[TaskId] = []
        for step in self.flow.steps:
            if step.scope == scope:
                tasks.extend(own_tasks(step, index))
            elif step.options.foreach is not None and step.scope[:-1] == scope:
                tasks.append(TaskId(step=step.name, index=index, part="list"))
                tasks.append(TaskId(step=step.name, index=index, part="all"))
        return tuple(tasks)


def settled_id(step: Step, index: Index) -> TaskId:
    """Return the task whose end is the step's end at this place: of an --until, the gate after its last turn."""
    return TaskId(step=step.name, index=index, part="last" if step.options.until is not None else "")


def _up_to_sure(look: Iterable[Candidate | Gate]) -> Iterator[Candidate | Gate]:
    """Yield the tasks that have to settle before it is known where a name comes from."""
    for each in look:
        yield each
        if isinstance(each, Candidate) and each.sure:
            return


def own_tasks(step: Step, index: Index) -> tuple[TaskId, ...]:
    """Return a step's tasks at one place that are known before it has run."""
    if step.options.until is None:
        return (TaskId(step=step.name, index=index),)
    return (TaskId(step=step.name, index=index, turn=0), TaskId(step=step.name, index=index, part="last"))


def next_turn(step: Step, task: TaskId, record: Record) -> TaskId | None:
    """Return the turn that follows a task for which this record stands; None where it is no turn, or the last."""
    if task.turn is None or record.until is not False or task.turn + 1 >= step.options.max:
        return None
    return msgspec.structs.replace(task, turn=task.turn + 1)


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many fan-outs two scopes have in common."""
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return shared


def _holds_objects(name: str) -> bool:
    """Return whether what a name stands for may share objects: values, and what classes and functions keep."""
    return not name.startswith("<") or owner_of(name) is not None
