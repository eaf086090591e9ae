"""A run's state as a pure function: `apply(state, event) -> (state, actions)`.

The runner performs the actions and feeds back what came of them. Nothing here knows of stores, processes or clocks:
times come in with the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from immutables import Map
from msgspec import Struct, field
from msgspec.structs import replace

from nbflow.engine.events import (
    Abort,
    Action,
    Added,
    Batched,
    Began,
    Cancel,
    Decision,
    Delay,
    Delayed,
    Due,
    End,
    Event,
    Finished,
    HeldAttempt,
    Paused,
    Prepare,
    Resumed,
    Submit,
    TaskNode,
    Tell,
    not_held,
)
from nbflow.engine.resources import Grant, Room, grant
from nbflow.flow.options import tries_again
from nbflow.model import (
    SETTLED,
    Edge,
    Finding,
    Reason,
    RunStatus,
    Snapshot,
    StepOptions,
    TaskChanged,
    TaskFailure,
    TaskId,
    TaskState,
    TaskView,
)

LITTLE = 1e-9
"""Part of a core that is none: parts are added up."""

# ---------------------------------------------------------------- state


class TaskEntry(Struct, frozen=True):
    """One task: where it stands."""

    node: TaskNode
    state: TaskState = "pending"
    left: int = 0  # needs that have not settled
    attempt: int = 1
    key: str = ""
    execution: str = ""
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    reused_from: str | None = None
    started_at: float | None = None
    elapsed: float | None = None
    pid: int = 0


class RunState(Struct, frozen=True):
    """Every task of a run, the queue, and what is free."""

    run: str
    flow: str
    order: Mapping[str, int]
    labels: Mapping[str, str]
    options: Mapping[str, StepOptions]
    slots: int  # cores of the place where steps run that name none
    started_at: float
    edges: tuple[Edge, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    verified: float = 0.0
    folded: tuple[str, ...] = ()
    rows: Mapping[str, str] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    loops: Mapping[str, str] = field(default_factory=dict)
    tasks: Map[TaskId, TaskEntry] = field(default_factory=Map)
    dependents: Map[TaskId, tuple[TaskId, ...]] = field(default_factory=Map)
    queue: tuple[TaskId, ...] = ()
    running: Map[TaskId, Grant] = field(default_factory=Map)
    paused: frozenset[TaskId] = frozenset()  # of those that run: they wait for others
    room: Room = Room()
    places: Mapping[str, int] = field(default_factory=dict)  # cores of the others, by the URL that steps name
    ahead: Mapping[str, int] = field(default_factory=dict)  # tasks of a step for each core, where it is not one
    open: int = 0  # tasks that have not settled
    cancelled: str | None = None
    status: RunStatus = "running"
    finished_at: float | None = None
    error: str | None = None


Step = tuple[RunState, tuple[Action, ...]]


def apply(state: RunState, event: Event) -> Step:
    """Return the next state, and what is to be done, after an event."""
    return _then(_apply(state, event), _end(event.at))


def _apply(state: RunState, event: Event) -> Step:
    match event:
        case Added():
            return _added(state, event)
        case Decision():
            return _prepared(state, event)
        case Began():
            return _began(state, event)
        case Delayed():
            return _delayed(state, event)
        case Finished():
            return _finished(state, event)
        case Due():
            return _due(state, event)
        case Cancel():
            return _cancel(state, event)
        case Batched(step=step, ahead=ahead):
            return _fill(replace(state, ahead={**state.ahead, step: ahead}))
        case HeldAttempt(task=task):
            return _fill(_freed(state, task))
        case Paused(task=task, at=at, reason=reason):
            return _then(_with_reason(replace(state, paused=state.paused | {task}), task, at, reason), _fill)
        case Resumed(task=task, at=at):
            return _with_reason(replace(state, paused=state.paused - {task}), task, at)


def _then(step: Step, change: Callable[[RunState], Step]) -> Step:
    state, actions = step
    after, more = change(state)
    return after, (*actions, *more)


def _put(state: RunState, entry: TaskEntry) -> RunState:
    return replace(state, tasks=state.tasks.set(entry.node.task, entry))


def _tell(entry: TaskEntry, at: float) -> tuple[Action, ...]:
    """Return the event for an entry; none for what only holds others together."""
    if not _is_shown(entry):
        return ()
    return (Tell(TaskChanged(
        task=entry.node.task, state=entry.state, at=at, attempt=entry.attempt, key=entry.key, execution=entry.execution,
        reasons=entry.reasons, failure=entry.failure, elapsed=entry.elapsed, reused_from=entry.reused_from,
        item=entry.node.item, pid=entry.pid,
    )),)  # fmt: skip


def _is_shown(entry: TaskEntry) -> bool:
    """Return whether a task is shown: a step's own are, and a list that could not be evaluated."""
    return not entry.node.task.part or (entry.node.task.part == "list" and entry.state == "failed")


def _is_settled(state: RunState, task: TaskId) -> bool:
    entry = state.tasks.get(task)
    return entry is not None and entry.state in SETTLED


def _added(state: RunState, event: Added) -> Step:
    # A need may not be known yet. It counts as one that has not settled: `dependents` finds the task when it has.
    tasks = state.tasks.mutate()
    dependents = state.dependents.mutate()
    actions: list[Action] = []
    for node in event.nodes:
        count = 0
        for need in node.needs:
            entry = tasks.get(need)
            if entry is None or entry.state not in SETTLED:
                count += 1
                dependents[need] = (*dependents.get(need, ()), node.task)
        tasks[node.task] = TaskEntry(node=node, left=count)
        if count == 0:
            actions.append(Prepare(node.task))
    state = replace(state, tasks=tasks.finish(), dependents=dependents.finish(), open=state.open + len(event.nodes))
    if state.cancelled is not None:
        return _cancel(state, Cancel(event.at, state.cancelled))
    return _give_up_hopeless(state, event, tuple(actions))


def _give_up_hopeless(state: RunState, event: Added, actions: tuple[Action, ...]) -> Step:
    """Give up new tasks some of whose needs have already failed."""
    for node in event.nodes:
        failure = _lost_need(state, (need for need in node.needs if need not in node.turns))
        entry = state.tasks[node.task]
        if failure is not None and entry.state == "pending":
            state, more = _settle(state, _given_up(state, entry, failure), event.at)
            actions = (*actions, *more)
    return state, actions


def _lost_need(state: RunState, needs: Iterable[TaskId]) -> TaskEntry | None:
    for need in needs:
        entry = state.tasks.get(need)
        if entry is not None and entry.state in ("failed", "cancelled"):
            return entry
    return None


def _given_up(state: RunState, entry: TaskEntry, because: TaskEntry) -> TaskEntry:
    """Return a task as one that cannot run because of another; a chain of such tasks names its first cause."""
    passed_on = because.reasons[:1] if because.state == "cancelled" and because.reasons else ()
    reasons = passed_on or (("upstream", f"{_label(state, because)} {_did(because)}"),)
    return replace(entry, state="cancelled", reasons=reasons)


def _prepared(state: RunState, event: Decision) -> Step:
    entry = state.tasks[event.task]
    if entry.state in SETTLED:  # cancelled meanwhile
        return state, ()
    entry = replace(entry, key=event.key, reasons=event.reasons)
    match event.action:
        case "wait":
            return _wait(state, entry, event)
        case "reuse":
            entry = replace(entry, state="reused", execution=event.execution, reused_from=event.reused_from)
        case "settle":
            entry = replace(entry, state="done")
        case "done":  # earlier in this very run
            entry = replace(entry, state="done", execution=event.execution, elapsed=event.elapsed)
        case "skip":
            entry = replace(entry, state="skipped", execution=event.execution)
        case "fail" | "caught":
            state_now: TaskState = "caught" if event.action == "caught" else "failed"
            entry = replace(
                entry, state=state_now, execution=event.execution, failure=event.failure, elapsed=event.elapsed
            )
        case "run":
            entry = replace(entry, state="queued")
            state = replace(_put(state, entry), queue=_enqueue(state, event.task))
            return _then((state, _tell(entry, event.at)), _fill)
    return _settle(state, entry, event.at)


def _wait(state: RunState, entry: TaskEntry, event: Decision) -> Step:
    """Let a task wait for needs that came to light, as far as they have not settled."""
    task = entry.node.task
    failure = _lost_need(state, event.waits)
    if failure is not None:
        return _settle(state, _given_up(state, entry, failure), event.at)
    # Needs may have settled between the look-up and now; if all have, there is nothing whose end would wake the task.
    open_needs = [need for need in event.waits if not _is_settled(state, need)]
    if not open_needs:
        return state, (Prepare(task),)
    dependents = state.dependents
    for need in open_needs:
        dependents = dependents.set(need, (*dependents.get(need, ()), task))
    return replace(_put(state, replace(entry, left=len(open_needs))), dependents=dependents), ()


def _enqueue(state: RunState, task: TaskId) -> tuple[TaskId, ...]:
    """Return the queue with a task in it, in document order, then item order."""
    place = _place(state, task)
    at = len(state.queue)
    while at > 0:
        before = state.queue[at - 1]
        if _place(state, before) <= place:
            break
        at -= 1
    return (*state.queue[:at], task, *state.queue[at:])


def _place(state: RunState, task: TaskId) -> tuple[int, tuple[int, ...], int]:
    """Return the place in document order, then item order, then turn."""
    return state.order[task.step], task.index, task.turn or 0


def _cores(state: RunState, task: TaskId) -> float:
    return min(max(_options(state, task).cpu or 1.0, 0.01), float(_slots(state, task))) / _ahead(state, task)


def _place_of(state: RunState, task: TaskId) -> str:
    """Return where a task runs: the URL that its step names, if that is another place than the run's own, else ""."""
    on = state.options[task.step].on or ""
    return on if on in state.places else ""


def _slots(state: RunState, task: TaskId) -> int:
    """Return how many cores there are where a task runs."""
    return state.places.get(_place_of(state, task), state.slots)


def _ahead(state: RunState, task: TaskId) -> int:
    """Return how many of a step's tasks share a core: they may be submitted ahead, the step's list not."""
    return 1 if task.part else state.ahead.get(task.step, 1)


def _options(state: RunState, task: TaskId) -> StepOptions:
    """Return a task's options: a step's count for its own tasks, not for the evaluation of its list."""
    return StepOptions() if task.part else state.options[task.step]


def _fill(state: RunState) -> Step:
    """Start queued tasks while cores are free and their step's own limit allows."""
    if not state.queue:
        return state, ()
    free = _free_cores(state)
    if max(free.values()) <= LITTLE:
        return state, ()
    counts: dict[str, int] = {}
    for task in state.running:
        counts[task.step] = counts.get(task.step, 0) + 1
    actions: list[Action] = []
    queue: list[TaskId] = []
    running = state.running
    # In the order of the queue, but one that waits for a GPU, for memory or for its step's own limit does not hold up
    # those behind it; only where all cores of all places are taken nobody else is asked.
    for at, task in enumerate(state.queue):
        if max(free.values()) <= LITTLE:
            queue.extend(state.queue[at:])
            break
        options = _options(state, task)
        limit = 1 if options.serial else options.workers
        place = _place_of(state, task)
        full = free[place] <= LITTLE or (limit is not None and counts.get(task.step, 0) >= limit)
        room = state.room if options.on in {None, "local"} else Room()
        granted = None if full else _grant(state, task, room, running)
        if granted is None:
            queue.append(task)
            continue
        free[place] -= granted.cores
        counts[task.step] = counts.get(task.step, 0) + 1
        running = running.set(task, granted)
        actions.append(Submit(task, state.tasks[task].attempt, tuple(granted.devices)))
    return replace(state, queue=tuple(queue), running=running), tuple(actions)


def _free_cores(state: RunState) -> dict[str, float]:
    """Return the cores of each place that no task has, or only tasks that wait.

    Each of those keeps a process, so they are not many: as many as there are cores. But where all that runs waits there
    is one core left, for the one that they wait for.
    """
    free: dict[str, float] = {"": float(state.slots), **state.places}
    waiting = 0
    for task, granted in state.running.items():
        waiting += task in state.paused
        if task not in state.paused or waiting > state.slots:
            free[_place_of(state, task)] -= granted.cores
    if state.paused and len(state.paused) == len(state.running):
        free[""] = max(free[""], 1.0)
    return free


def _grant(state: RunState, task: TaskId, room: Room, running: Mapping[TaskId, Grant]) -> Grant | None:
    """Return what a task may use beside those that run where it runs, None while it has to wait."""
    place = _place_of(state, task)
    # Those that wait have nothing but cores: they would not wait with a GPU, or with memory of their own.
    others = {task: granted for task, granted in running.items() if task not in state.paused}
    beside = (granted for other, granted in others.items() if _place_of(state, other) == place)
    return grant(_options(state, task), _cores(state, task), _slots(state, task), room, beside)


def _began(state: RunState, event: Began) -> Step:
    entry = state.tasks[event.task]
    if entry.state != "queued":
        return state, ()
    begun = replace(entry, state="running", started_at=event.at, pid=event.pid)
    return _with_reason(_put(state, begun), event.task, event.at)


def _delayed(state: RunState, event: Delayed) -> Step:
    if state.tasks[event.task].state != "queued":
        return state, ()
    return _with_reason(state, event.task, event.at, event.reason)


def _with_reason(state: RunState, task: TaskId, at: float, reason: str = "") -> Step:
    """Say of a task why it waits, or no longer that it does."""
    entry = state.tasks[task]
    waits: tuple[Reason, ...] = (("waiting", reason),) if reason else ()
    entry = replace(entry, reasons=(*waits, *(each for each in entry.reasons if each[0] != "waiting")))
    return _put(state, entry), _tell(entry, at)


def _freed(state: RunState, task: TaskId) -> RunState:
    """Give back the cores of a task whose process has ended."""
    running = state.running.delete(task) if task in state.running else state.running
    return replace(state, running=running, paused=state.paused - {task})


def _finished(state: RunState, event: Finished) -> Step:
    entry = state.tasks[event.task]
    # The attempt's cores are free whatever comes of it, so they are given back first. A task that was cancelled
    # meanwhile keeps that state: its dependents have been told already.
    state = _freed(state, event.task)
    if entry.state in SETTLED:
        return _fill(state)
    options = _options(state, event.task)
    entry = replace(entry, elapsed=event.elapsed, started_at=entry.started_at or event.at - event.elapsed)
    if event.skipped is not None:
        reasons = (not_held(event.skipped),)
        entry = replace(entry, state="skipped", execution=event.execution, reasons=reasons)
    elif event.failure is None:
        entry = replace(entry, state="done", execution=event.execution, failure=None)
    elif state.cancelled is not None or event.failure.kind == "cancelled":
        entry = replace(entry, state="cancelled", failure=event.failure)
    elif tries_again(options, entry.attempt, event.failure):
        return _again(state, entry, event, options)
    else:
        entry = replace(entry, state="caught" if options.catch else "failed", failure=event.failure)
    return _then(_settle(state, entry, event.at), _fill)


def _again(state: RunState, entry: TaskEntry, event: Finished, options: StepOptions) -> Step:
    actions = _tell(replace(entry, state="failed", failure=event.failure), event.at)
    entry = replace(entry, state="pending", attempt=entry.attempt + 1, failure=event.failure, started_at=None)
    return _then((_put(state, entry), (*actions, Delay(event.task, options.backoff))), _fill)


def _due(state: RunState, event: Due) -> Step:
    entry = state.tasks[event.task]
    if entry.state != "pending":
        return state, ()
    entry = replace(entry, state="queued")
    state = replace(_put(state, entry), queue=_enqueue(state, event.task))
    return _then((state, _tell(entry, event.at)), _fill)


def _settle(state: RunState, entry: TaskEntry, at: float) -> Step:
    """Put an entry in its last state; bring its dependents one need nearer, or give them up after a failure."""
    # A failure also settles all that waits for it, and what waits for that, in this one step. The stack holds what has
    # settled and has not told its dependents; a dependent that is no longer pending was given up on another way.
    state = replace(_put(state, entry), open=state.open - 1)
    actions = [*_tell(entry, at)]
    stack = [entry]
    while stack:
        settled = stack.pop()
        for task in state.dependents.get(settled.node.task, ()):
            dependent = state.tasks[task]
            if dependent.state != "pending":
                continue
            if settled.state in ("failed", "cancelled") and settled.node.task not in dependent.node.turns:
                given_up = _given_up(state, dependent, settled)
                state = replace(_put(state, given_up), open=state.open - 1)
                actions.extend(_tell(given_up, at))
                stack.append(given_up)
                continue
            dependent = replace(dependent, left=dependent.left - 1)
            state = _put(state, dependent)
            if dependent.left <= 0:
                actions.append(Prepare(task))
    return state, tuple(actions)


def _label(state: RunState, entry: TaskEntry) -> str:
    return state.labels.get(entry.node.task.step, entry.node.task.step)


def _did(entry: TaskEntry) -> str:
    return "failed" if entry.state == "failed" else "did not run"


def _cancel(state: RunState, event: Cancel) -> Step:
    # What runs is asked to end and settles by its own `Finished`; only what holds no process settles here.
    state = replace(state, cancelled=event.reason, queue=())
    actions: list[Action] = [Abort(task) for task in state.running]
    for task, entry in list(state.tasks.items()):
        if entry.state in ("pending", "queued") and task not in state.running:
            stopped = replace(entry, state="cancelled", reasons=(("cancelled", event.reason),))
            state = replace(_put(state, stopped), open=state.open - 1)
            actions.extend(_tell(stopped, event.at))
    return state, tuple(actions)


def _end(at: float) -> Callable[[RunState], Step]:
    """Return what ends the run once every task has settled and every process has ended."""

    def end(state: RunState) -> Step:
        if state.status != "running" or state.open or state.running or not state.tasks:
            return state, ()
        failed = first_failure(state.tasks.values(), state.order)
        # a task that was cancelled has not run: such a run is never done, whoever has ended the task
        broken = state.cancelled is not None or any(entry.state == "cancelled" for entry in state.tasks.values())
        status: RunStatus = "failed" if failed and state.cancelled is None else "cancelled" if broken else "done"
        error = None
        if failed is not None and failed.failure is not None:
            error = f"{_label(state, failed)}: {failed.failure.type}: {failed.failure.message}"
        elif state.cancelled is not None:
            error = state.cancelled
        return replace(state, status=status, finished_at=at, error=error), (End(status, error),)

    return end


def first_failure(entries: Iterable[TaskEntry], order: Mapping[str, int]) -> TaskEntry | None:
    """Return the failed task that stands first in the document."""
    failed = [entry for entry in entries if entry.state == "failed"]
    return min(failed, key=lambda e: (order[e.node.task.step], e.node.task.index), default=None)


def snapshot(state: RunState, findings: tuple[Finding, ...] = ()) -> Snapshot:
    """Return all that a table or a page draws from."""
    views = sorted(state.tasks.values(), key=lambda entry: _place(state, entry.node.task))
    return Snapshot(
        run=state.run, flow=state.flow, status=state.status, started_at=state.started_at,
        steps=tuple(sorted(state.order, key=lambda name: state.order[name])), labels=dict(state.labels),
        cells=dict(state.cells), loops=dict(state.loops), folded=state.folded, rows=dict(state.rows),
        tasks=tuple(_view(entry) for entry in views if _is_shown(entry)), edges=state.edges,
        finished_at=state.finished_at,
        error=state.error, parameters=dict(state.parameters), tags=state.tags, findings=findings,
        verified=state.verified,
    )  # fmt: skip


def _view(entry: TaskEntry) -> TaskView:
    return TaskView(
        task=entry.node.task, state=entry.state, attempt=entry.attempt, started_at=entry.started_at,
        elapsed=entry.elapsed, reasons=entry.reasons, failure=entry.failure, reused_from=entry.reused_from,
        execution=entry.execution, key=entry.key, item=entry.node.item, pid=entry.pid,
    )  # fmt: skip
