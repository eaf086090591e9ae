"""What the cell of each step bears: fresh, stale or new, by the plan of a run that nobody has asked for yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal

from nbflow.engine.forecast import REPEATS
from nbflow.errors import NbflowError
from nbflow.model import Flow, Frozen, Plan, PlanTask
from nbflow.page.messages import StepView
from nbflow.render import preview

Word = Literal["fresh", "stale", "new", "failed"]


class Mark(Frozen, frozen=True):
    """Whether a step's result is that of the notebook as it stands, and what has changed where it is not."""

    word: Word
    why: str


class Marks(Frozen, frozen=True):
    """The marks of a flow's steps, and when the plan that they come from was begun."""

    steps: Mapping[str, Mark] = {}
    at: float = 0.0
    verified: float = 0.0  # when the flow's code was verified


def of_plan(plan: Plan, flow: Flow, at: float = 0.0) -> Marks:
    """Return the marks of a flow's steps by a plan: of several items the first that would run speaks for its step.

    A step below one that has not run before has not run, either.
    """
    marks: dict[str, Mark] = {}
    needs = {step.name: step.needs for step in flow.steps}
    for task in plan.tasks:
        mark = _of_task(task)
        if mark.word == "stale" and any(marks[name].word == "new" for name in needs[task.step] if name in marks):
            mark = Mark("new", mark.why)
        if task.step not in marks or marks[task.step].word == "fresh":
            marks[task.step] = mark
    return Marks(marks, at, plan.verified)


def _of_task(task: PlanTask) -> Mark:
    why = preview.reasons(task.reasons)
    codes = {code for code, _ in task.reasons}
    if task.action == "reuse":
        return Mark("fresh", why)
    if codes and codes <= set(REPEATS):
        return Mark("fresh", f"runs each time: {why}")
    return Mark("new" if codes == {"new"} else "failed" if codes == {"failed"} else "stale", why)


def of_error(error: NbflowError, before: Marks, at: float) -> Marks:
    """Return marks where no plan can be made: what is wrong stands at its step, all else stays as it was."""
    if error.step is None:
        return Marks(before.steps, at)
    return Marks({**before.steps, error.step: Mark("stale", error.message)}, at)


def put(view: StepView, marks: Marks, *, running: bool, until: float) -> None:
    """Put on a step, as it is drawn, the word that its cell bears and why.

    `running` while a flow run is under way; `until` is when what is known of the step last changed: a plan that was
    begun before says nothing of it.
    """
    state, mark = view["state"], marks.steps.get(view["name"])
    if state in ("running", "queued") or (running and state == "pending"):
        view["mark"], view["why"] = state, view["note"]
    elif mark is None or marks.at < until or (running and view["total"]):
        view["mark"] = {"done": "fresh", "caught": "fresh", "pending": ""}.get(state, state)
        view["why"] = view["note"]
    elif mark.word == "fresh":
        view["mark"] = state if state in ("reused", "skipped") else "fresh"
        view["why"] = mark.why
    else:
        failed = mark.word == "failed" and view["failure"] is not None
        view["mark"], view["why"] = mark.word, view["note"] if failed else mark.why


class Planner:
    """Makes plans in a thread of its own, the newest that was asked for, and tells when there is one."""

    def __init__(self, told: Callable[[], None]) -> None:
        self.marks = Marks()
        self._told = told
        self._wanted: tuple[Callable[[Flow], Plan], Flow] | None = None
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ask(self, plan: Callable[[Flow], Plan], flow: Flow) -> None:
        """Make the plan of this flow instead of any other that waits."""
        self._wanted = plan, flow
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="nbflow-plans", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Make no plan any more."""
        self._closed = True
        self._wake.set()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closed:
                return
            wanted, self._wanted = self._wanted, None
            if wanted is None:
                continue
            at = time.time()
            try:
                self.marks = of_plan(wanted[0](wanted[1]), wanted[1], at)
            except NbflowError as error:
                self.marks = of_error(error, self.marks, at)
            except Exception:  # of the store, of a package's plug-in: the next run says it, and marks are no reason
                self.marks = Marks()
            self._told()
