"""Which execution stands for each step above the one that is run by hand, and which steps have to run first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from nbflow.errors import NbflowError, PlanError
from nbflow.lookup import Lookup, RunFacts
from nbflow.model import Flow, Record, Step, TaskId
from nbflow.parameter_values import evaluate
from nbflow.parameters import gather_overrides
from nbflow.plugins import Executor
from nbflow.state import Prepared
from nbflow.storage import Store


@dataclass(frozen=True)
class Missing:
    """A step above that has to run first, and why."""

    step: str
    label: str
    why: str


class Upstream:
    """One version of the flow and all that was executed; what stands for a step is worked out once."""

    def __init__(
        self, flow: Flow, store: Store, run: str, executed: Mapping[str, Record],
        adopt: Callable[[Step, Prepared, Lookup], Record | None], executor_of: Callable[[str | None], Executor],
    ) -> None:  # fmt: skip
        self.flow = flow
        self.store = store
        self._facts = RunFacts(run=run, store_url=store.url, session=True)
        self._executed = executed
        self._adopt = adopt
        self._executor_of = executor_of
        self._steps = {step.name: step for step in flow.steps}
        self._standing: dict[str, Record] = {}
        self._missing: dict[str, str] = {}
        self._above: dict[str, tuple[Step, ...]] = {}
        self.lookup = Lookup(flow, store, self._facts)

    def executed(self, record: Record) -> None:
        """A step was executed: what was worked out below it no longer counts."""
        self._missing = {}
        self._standing[record.step] = record
        stale = self._below(record.step)
        self._standing = {name: standing for name, standing in self._standing.items() if name not in stale}
        self.lookup = Lookup(self.flow, self.store, self._facts, self._standing)

    def retry(self) -> None:
        """Look again for what was missing: others may have written to the store."""
        self._missing = {}

    def prepare(self, name: str) -> Prepared:
        """A step in; whether its inputs are there, its key, and a past execution of it, out."""
        if name in self._standing:
            # asked for anew: the look-up must not find the step's own last execution among what has settled
            self._standing.pop(name)
            self.lookup = Lookup(self.flow, self.store, self._facts, self._standing)
        for step in self.above(name):
            self._stand(step)
        return self.lookup.prepare(TaskId(step=name))

    def above(self, name: str) -> tuple[Step, ...]:
        """A step in; every step that it reads from, directly or not, in document order, out."""
        if name not in self._above:
            found: set[str] = set()
            queue = list(self._steps[name].needs)
            while queue:
                need = queue.pop()
                if need not in found:
                    found.add(need)
                    queue.extend(self._steps[need].needs)
            self._above[name] = tuple(step for step in self.flow.steps if step.name in found)
        return self._above[name]

    def missing(self, name: str) -> list[Missing]:
        """A step that cannot run in; the steps that have to run first, topmost first, out."""
        absent = [step for step in self.above(name) if step.name not in self._standing]
        names = {step.name for step in absent}
        roots = [step for step in absent if not names & set(step.needs)] or absent
        return [Missing(step.name, step.label, self._missing.get(step.name, "it has not run")) for step in roots]

    def record(self, name: str) -> Record | None:
        """The execution that stands for a step now."""
        if name not in self._standing:
            for step in (*self.above(name), self._steps[name]):
                self._stand(step)
        return self._standing.get(name)

    def _stand(self, step: Step) -> None:
        if step.name in self._standing or step.name in self._missing:
            return
        task = TaskId(step=step.name)
        prepared = self.lookup.prepare(task)
        record = self._executed.get(prepared.key) if prepared.key else None
        if record is None and prepared.action == "reuse":
            record = self.lookup.record(task)
        if record is None and prepared.key:
            record = self._given(step) if step.kind == "params" else self._adopt(step, prepared, self.lookup)
        if record is None:
            self._missing.setdefault(step.name, _why(prepared))
            return
        self.lookup.settle(task, record)
        self._standing[step.name] = record

    def _given(self, step: Step) -> Record | None:
        """Parameters need no cell to be run by hand: their values are in the notebook and the environment."""
        overrides = gather_overrides(self.flow.parameters, {}, {}, os.environ)
        alone = msgspec.structs.replace(self.flow, steps=(step,))
        try:
            _, given = evaluate(alone, self.store, overrides, self._executor_of, self._facts.run)
        except NbflowError as error:
            self._missing[step.name] = error.message
            return None
        return given.records.get(step.name)

    def _below(self, name: str) -> set[str]:
        below: set[str] = set()
        for step in self.flow.steps:
            if name in step.needs or below & set(step.needs):
                below.add(step.name)
        return below


def _why(prepared: Prepared) -> str:
    if prepared.failure is not None:
        return prepared.failure.message
    if prepared.reasons:
        return "; ".join(what for _, what in prepared.reasons[:2])
    return "it has not run"


def refuse(step: Step, missing: Iterable[Missing], prepared: Prepared) -> PlanError:
    """A step and what it lacks in; the error that names the steps to run, out."""
    missing = list(missing)
    if missing:
        what = "; ".join(f"{each.label} has to run first ({each.why})" for each in missing)
        cells = ", ".join(each.label for each in missing)
        return PlanError(
            f"{step.label} cannot run yet: {what}",
            step=step.name, cell=step.cell,
            fix=f"run {cells}, or `%flow run {step.name}`, which runs {step.name} with all that it needs",
        )  # fmt: skip
    if prepared.failure is not None:
        failure = prepared.failure
        return PlanError(failure.message, step=step.name, cell=failure.cell or step.cell, line=failure.line, fix=failure.fix)
    reasons = "; ".join(what for _, what in prepared.reasons) or "an input has no value"
    return PlanError(f"{step.label} cannot run: {reasons}", step=step.name, cell=step.cell)
