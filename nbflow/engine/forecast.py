"""What a run would do: each task reused or run, and why, found by settling tasks as a run does, without running any."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from nbflow.engine.events import Decision, TaskNode
from nbflow.engine.lookup import Lookup
from nbflow.model import Flow, Index, PlanTask, Reason, TaskId

Action = Literal["run", "reuse"]

Outcome = Literal["stands", "same", "maybe", "unknown"]
"""What a task leaves: a past execution stands for it; or it runs, and leaves the same, maybe the same, or who knows."""

ORDER: tuple[Outcome, ...] = ("stands", "same", "maybe", "unknown")
"""From what is surest to what is least sure: a fan-out is as sure as the least sure of its items."""

REPEATS = ("fresh", "no-cache", "no-output", "expired", "only")
"""Reasons to run again that change nothing of what a task depends on."""


def rows(flow: Flow, lookup: Lookup) -> tuple[PlanTask, ...]:
    """Return a row for each task of a flow, in document order, then item order.

    What lies inside a fan-out whose list has to be computed first is one row a step, its index None.
    """
    forecast = _Forecast(flow, lookup)
    forecast.add(lookup.first())
    while forecast.advance():
        pass
    forecast.rest()
    order = {step.name: step.order for step in flow.steps}
    return tuple(sorted(forecast.rows.values(), key=lambda row: (order[row.step], row.index or ())))


class _Forecast:
    """The tasks that are known so far, and what would become of them.

    What a task that runs is going to leave nobody knows. Where nothing of what it depends on has changed, as with
    `--no-cache`, it leaves what it left before. Otherwise that is only assumed, to tell whether the tasks below would
    run even so.
    """

    def __init__(self, flow: Flow, lookup: Lookup) -> None:
        self.flow = flow
        self.lookup = lookup
        self.open: dict[TaskId, set[TaskId]] = {}  # task -> what it waits for
        self.lacking: dict[TaskId, set[TaskId]] = {}  # of that what has not settled
        self.below: dict[TaskId, list[TaskId]] = {}  # what has not settled -> who waits for it
        self.ready: set[TaskId] = set()  # those that lack nothing
        self.places: dict[TaskId, int] = {}  # in which order they became known
        self.settled: dict[TaskId, Outcome] = {}
        self.rows: dict[tuple[str, Index | None], PlanTask] = {}

    def add(self, nodes: Iterable[TaskNode]) -> None:
        """Add tasks that became known."""
        for node in nodes:
            self.open[node.task] = set()
            self.places.setdefault(node.task, len(self.places))
            self.wait(node.task, node.needs)

    def wait(self, task: TaskId, needs: Iterable[TaskId]) -> None:
        """Let a task wait for these, too."""
        self.open[task].update(needs)
        self.lacking[task] = {need for need in self.open[task] if need not in self.settled}
        for need in self.lacking[task]:
            self.below.setdefault(need, []).append(task)
        (self.ready.discard if self.lacking[task] else self.ready.add)(task)

    def advance(self) -> bool:
        """Settle every task that can be settled now; whether there was one."""
        progress = False
        for task in sorted(self.ready, key=self.places.__getitem__):
            progress = self.settle(task, self.open[task]) or progress
        return progress

    def settle(self, task: TaskId, needs: Collection[TaskId]) -> bool:
        """Settle a task whose needs are settled; return whether more is known of it now than before."""
        # A look-up answers as if what is assumed of the tasks above were so. Where nothing can be assumed, it would ask
        # for values that are not there: such a task waits, or is unknown where it needs all of a fan-out.
        running = [need for need in needs if self.settled[need] != "stands"]
        unknown = [need for need in running if self.settled[need] == "unknown"]
        whole = task.part != "" or self.flow.step(task.step).options.join  # asks for items that are not there
        if unknown and whole:
            self.put(task, "unknown", self._runs(running))
            return True
        prepared = self.lookup.prepare(task)
        if prepared.action == "wait":
            more = set(prepared.waits) - self.open[task]
            if not more and unknown:
                self.put(task, "unknown", self._runs(running))
                return True
            self.wait(task, more)
            return bool(more) or task.part == "all"
        if prepared.action == "run":
            self.put(task, self._left(task, prepared), prepared.reasons)
        elif prepared.action == "settle":
            self.put(task, max((self.settled[need] for need in needs), key=ORDER.index, default="stands"))
        elif prepared.action == "fail":
            failure = prepared.failure
            fails = (("fails", failure.message),) if failure is not None else ()
            self.put(task, "unknown", prepared.reasons or fails)
        else:
            if prepared.action == "skip" and not prepared.execution:
                self.lookup.settle(task, None)
            self._stand(task, prepared, running)
        if self.settled[task] in ("stands", "same"):
            self.add(self.lookup.unfold(task))
        return True

    def _stand(self, task: TaskId, prepared: Decision, running: Sequence[TaskId]) -> None:
        """Let a past execution stand for a task, if those above it that run leave what they left before."""
        changing = [need for need in running if self.settled[need] != "same" and self._depends(task, need)]
        if changing:
            # what it has is not even that of the last run: a name may have got another maker
            has_record = self.lookup.record(task) is not None and prepared.action != "skip"
            self.put(task, "maybe" if has_record else "unknown", self._if_changed(changing))
        elif any(self.settled[need] == "same" for need in running):
            self.put(task, "stands", (*prepared.reasons, *self._unless(running)))
        else:
            self.put(task, "stands", prepared.reasons)

    def _depends(self, task: TaskId, need: TaskId) -> bool:
        """Return whether what a task above leaves may matter: a value that is read, or a file that may be written.

        A task that only has to come after another one is the same whatever that one leaves.
        """
        step = self.flow.step(task.step)
        binds = [*step.bindings, *(b for order in step.definitions for b in self.flow.definitions[order].binds)]
        if need.part or any(source.step == need.step for bind in binds for source in bind.sources):
            return True
        record = self.lookup.record(task)
        if record is None or need.step in self.lookup.makers(task):
            return True
        before = self.lookup.previous(need)
        files = {*record.observations.files, *record.observations.written}
        return bool(files) and (before is None or not files.isdisjoint(before.observations.written))

    def _left(self, task: TaskId, prepared: Decision) -> Outcome:
        """Return how sure it is what a task that runs will leave; its last execution is taken for it."""
        listing = task.part == "list"
        before = self.lookup.newest_under(prepared.key) if listing else self.lookup.previous(task)
        step = self.flow.step(task.step)
        names = () if listing else step.writes
        if before is None or any(name not in before.artifacts and name not in before.unbound for name in names):
            return "unknown"
        by_request = bool(prepared.reasons) and prepared.reasons[0][0] in REPEATS
        same = by_request and before.key == prepared.key and not before.observations.volatile
        if not same and (task.turn is not None or step.scope):
            return "unknown"  # there may be more turns, or other items
        self.lookup.settle(task, before)
        return "same" if same else "maybe"

    # ------------------------------------------------------------ rows

    def put(self, task: TaskId, outcome: Outcome, reasons: tuple[Reason, ...] = ()) -> None:
        """Settle a task; for a list that would be computed, give every step of the fan-out its row."""
        del self.open[task]
        self.settled[task] = outcome
        self.ready.discard(task)
        for other in self.below.pop(task, ()):
            self.lacking[other].discard(task)
            if other in self.open and not self.lacking[other]:
                self.ready.add(other)
        action: Action = "reuse" if outcome == "stands" else "run"
        if not task.part:
            self._row(task.step, task.index, action, reasons)
        elif task.part == "list" and action == "run":
            for step in self.lookup.loops.bodies[task.step]:
                self._row(step.name, None, action, reasons)

    def _runs(self, running: Iterable[TaskId]) -> tuple[Reason, ...]:
        return tuple(("input", f"{label} runs") for label in self._labels(running))

    def _if_changed(self, changing: Iterable[TaskId]) -> tuple[Reason, ...]:
        return tuple(("input", f"if {label} changes") for label in self._labels(changing))

    def _unless(self, running: Iterable[TaskId]) -> tuple[Reason, ...]:
        return tuple(("input", f"{label} runs again and leaves the same") for label in self._labels(running))

    def _labels(self, tasks: Iterable[TaskId]) -> Iterable[str]:
        return dict.fromkeys(self.flow.step(task.step).label for task in tasks)

    def _row(self, step: str, index: Index | None, action: Action, reasons: tuple[Reason, ...]) -> None:
        """Put one row for all turns of an `--until`: it runs if one of them would."""
        row = self.rows.get((step, index))
        if row is None or row.action == "reuse":
            self.rows[step, index] = PlanTask(step=step, index=index, action=action, reasons=reasons)

    def rest(self) -> None:
        """Settle what waits for tasks that nobody knows yet: it would run."""
        for task in list(self.open):
            self.put(task, "unknown")
