"""Events folded into snapshots: every case is a list of events and what a person should see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from nbflow.model import (
    Edge,
    Finding,
    FindingFound,
    RunEnded,
    RunEvent,
    RunStarted,
    Tagged,
    TaskChanged,
    TaskFailure,
    TaskId,
)
from nbflow.store import history

START = RunStarted(run="r", flow="f", at=100.0, steps=("a", "b"), labels={"a": "a", "b": "b"}, tags=("t",))
FAILURE = TaskFailure(type="ValueError", message="no")


def told(
    step: str, state: Any, at: float, *, index: tuple[int, ...] = (), turn: int | None = None, **more: Any
) -> TaskChanged:
    return TaskChanged(task=TaskId(step=step, index=index, turn=turn), state=state, at=at, **more)


@dataclass(frozen=True)
class Case:
    events: list[RunEvent]
    states: dict[str, str]
    status: str = "running"
    now: float = 110.0
    beat: float | None = None
    alive: bool | None = None
    elapsed: dict[str, float | None] = field(default_factory=dict)


CASES = {
    "nothing has run": Case([], {}),
    "running counts the time": Case([told("a", "running", 103)], {"a": "running"}, elapsed={"a": 7.0}),
    "done keeps what it took": Case(
        [told("a", "running", 103), told("a", "done", 105, elapsed=1.5)], {"a": "done"}, elapsed={"a": 1.5}
    ),
    "done without a duration takes the times": Case(
        [told("a", "running", 103), told("a", "done", 105)], {"a": "done"}, elapsed={"a": 2.0}
    ),
    "a clock that goes backwards gives no negative time": Case(
        [told("a", "running", 103), told("a", "done", 99)], {"a": "done"}, elapsed={"a": 0.0}
    ),
    "running ahead of the clock": Case([told("a", "running", 120)], {"a": "running"}, elapsed={"a": 0.0}),
    "ended": Case([told("a", "done", 101), RunEnded(status="done", at=102.0)], {"a": "done"}, status="done", now=1e6),
    "no sign of life": Case([told("a", "running", 103)], {"a": "failed"}, status="lost", now=200.0),
    "what waited in a lost run never began": Case(
        [told("a", "queued", 103)], {"a": "pending"}, status="lost", now=200.0
    ),
    "a heartbeat keeps it": Case([told("a", "running", 103)], {"a": "running"}, now=200.0, beat=185.0),
    "its process is gone": Case([told("a", "running", 103)], {"a": "failed"}, status="lost", beat=109.0, alive=False),
    "its process is there but does not beat": Case(
        [told("a", "done", 103)], {"a": "done"}, status="lost", now=200.0, alive=True
    ),
    "a second attempt": Case(
        [told("a", "running", 101), told("a", "failed", 102, failure=FAILURE), told("a", "running", 104, attempt=2)],
        {"a": "running"}, elapsed={"a": 6.0},
    ),
    "a late event of the first attempt is void": Case(
        [told("a", "running", 104, attempt=2), told("a", "failed", 105, failure=FAILURE)], {"a": "running"}
    ),
    "items take the place of the fan-out": Case(
        [told("b", "pending", 100), told("b", "done", 101, index=(0,)), told("b", "running", 101, index=(1,))],
        {"b/0": "done", "b/1": "running"},
    ),
    "turns take the place of the loop": Case(
        [told("b", "pending", 100), told("b", "done", 101, turn=0), told("b", "running", 102, turn=1)],
        {"b:0": "done", "b:1": "running"},
    ),
    "a loop that begins anew has no later turns": Case(
        [*(told("b", "done", 100, turn=turn) for turn in range(4)), told("b", "reused", 101, turn=0),
         told("b", "running", 102, turn=1)],
        {"b:0": "reused", "b:1": "running"},
    ),
    "a step that is no loop any more has no turns": Case(
        [*(told("b", "done", 100, turn=turn) for turn in range(2)), told("b", "running", 101)], {"b": "running"},
    ),
}  # fmt: skip


def name(task: TaskId) -> str:
    place = "".join(f"/{number}" for number in task.index)
    return task.step + place + ("" if task.turn is None else f":{task.turn}")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_fold(case: Case) -> None:
    seen = history.snapshot([START, *case.events], case.now, case.beat, case.alive)
    assert {name(view.task): view.state for view in seen.tasks} == case.states
    assert seen.status == case.status
    found = {name(view.task): view.elapsed for view in seen.tasks}
    assert {key: found[key] for key in case.elapsed} == case.elapsed


def test_order_is_the_documents_then_the_items() -> None:
    events = [
        told("b", "done", 1, index=(10,)),
        told("b", "done", 1, index=(9,)),
        told("a", "done", 2),
        told("zz", "done", 0),
    ]
    seen = history.snapshot([START, *events], 3)
    assert [name(view.task) for view in seen.tasks] == ["a", "b/9", "b/10", "zz"]


def test_what_was_told_once_stays() -> None:
    queued = told("a", "queued", 101, key="k", reasons=(("code", "line 2 changed"),), item="7")
    seen = history.snapshot([START, queued, told("a", "running", 102), told("a", "done", 103, execution="e")], 104)
    view = seen.tasks[0]
    assert (view.key, view.execution, view.item, view.reasons) == ("k", "e", "7", (("code", "line 2 changed"),))
    assert view.failure is None


def test_tags_findings_and_steps() -> None:
    finding = Finding(code="mutation", message="m")
    again = RunStarted(run="r", flow="f", at=105.0, steps=("a", "b", "c"), edges=(Edge(frm="a", to="c"),))
    events = [
        Tagged(name="u", present=True, at=1),
        Tagged(name="t", present=False, at=2),
        FindingFound(finding=finding, at=3),
    ]
    seen = history.snapshot([START, *events, FindingFound(finding=finding, at=4), again], 106)
    assert seen.tags == ("u",)
    assert seen.findings == (finding,)
    assert seen.steps == ("a", "b", "c")
    assert seen.started_at == 100.0


def test_step_states() -> None:
    events = [told("a", "done", 1, index=(0,)), told("a", "caught", 1, index=(1,)), told("a", "reused", 1, index=(2,))]
    seen = history.snapshot([START, *events], 2)
    assert history.step_state(seen.tasks, seen.status) == "caught"
    assert history.step_state((), seen.status) == "pending"
    ended = history.snapshot([START, *events, RunEnded(status="done", at=3)], 4)
    assert history.step_state((), ended.status) == "done"


def test_a_kernel_at_rest_is_not_lost() -> None:
    start = RunStarted(run="r", flow="f", at=100.0, session=True)
    assert history.snapshot([start], 1e6, alive=True).status == "running"
    assert history.snapshot([start], 1e6, alive=False).status == "lost"
    assert history.snapshot([start], 1e6).status == "lost"


def test_events_without_a_start_are_refused() -> None:
    with pytest.raises(ValueError, match="no event starts a run"):
        history.snapshot([told("a", "done", 1)], 2)
