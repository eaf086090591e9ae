"""What a run would do: each task reused or run, and why, found by settling tasks as a run does, without running any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from nbflow.happenings import Node
from nbflow.lookup import Lookup
from nbflow.model import Flow, Index, PlanTask, Reason, TaskId

Action = Literal["run", "reuse"]


def rows(flow: Flow, lookup: Lookup) -> tuple[PlanTask, ...]:
    """A flow and its look-up in; a row for each task out, in document order, then item order.

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
    """The tasks that are known so far, and what would become of them."""

    def __init__(self, flow: Flow, lookup: Lookup) -> None:
        self.flow = flow
        self.lookup = lookup
        self.open: dict[TaskId, set[TaskId]] = {}  # task -> what it waits for
        self.runs: dict[TaskId, bool] = {}  # settled tasks: whether they would run
        self.rows: dict[tuple[str, Index | None], PlanTask] = {}

    def add(self, nodes: Iterable[Node]) -> None:
        """Tasks that became known."""
        for node in nodes:
            self.open[node.task] = set(node.needs)

    def advance(self) -> bool:
        """Settle every task that can be settled now; whether there was one."""
        ready = [task for task, needs in self.open.items() if all(need in self.runs for need in needs)]
        moved = False
        for task in ready:
            moved = self.settle(task, self.open[task]) or moved
        return moved

    def settle(self, task: TaskId, needs: Iterable[TaskId]) -> bool:
        """A task whose needs are settled in; whether more is known of it now than before."""
        above = dict.fromkeys(self.flow.step(need.step).label for need in needs if self.runs[need])
        if above:
            self.put(task, "run", tuple(("input", f"{label} runs") for label in above))
            return True
        prepared = self.lookup.prepare(task)
        if prepared.action == "wait":
            more = set(prepared.waits) - self.open[task]
            self.open[task] |= more
            return bool(more) or task.part == "all"
        if prepared.action == "skip" and not prepared.execution:
            self.lookup.settle(task, None)
        stands = prepared.action in ("reuse", "done", "settle", "skip")
        failure = prepared.failure
        reasons = prepared.reasons if failure is None else (("fails", failure.message),)
        self.put(task, "reuse" if stands else "run", reasons)
        if stands:
            self.add(self.lookup.unfold(task))
        return True

    def put(self, task: TaskId, action: Action, reasons: tuple[Reason, ...]) -> None:
        """A settled task; for a list that would be computed, every step of the fan-out has its row."""
        del self.open[task]
        self.runs[task] = action == "run"
        if not task.part:
            self._row(task.step, task.index, action, reasons)
        elif task.part == "list" and action == "run":
            for step in self.lookup.loops.bodies[task.step]:
                self._row(step.name, None, action, reasons)

    def _row(self, step: str, index: Index | None, action: Action, reasons: tuple[Reason, ...]) -> None:
        """One row for all turns of an `--until`: it runs if one of them would."""
        known = self.rows.get((step, index))
        if known is None or known.action == "reuse":
            self.rows[step, index] = PlanTask(step=step, index=index, action=action, reasons=reasons)

    def rest(self) -> None:
        """What waits for tasks that nobody knows yet would run."""
        for task in list(self.open):
            self.put(task, "run", ())
