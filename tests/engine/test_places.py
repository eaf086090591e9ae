"""Tasks of several places: each place's cores are its own."""

from __future__ import annotations

import pytest

from nbflow.engine import events, state
from nbflow.model import StepOptions, TaskId

FAR = "ray://far:10001"


def begun(options: dict[str, StepOptions], *, slots: int, places: dict[str, int], items: int = 4) -> list[str]:
    """The steps of the tasks that are started at once, of so many items of each step."""
    empty = state.RunState(
        run="r", flow="f", order={name: at for at, name in enumerate(options)}, labels={}, options=options,
        slots=slots, started_at=0.0, places=places,
    )  # fmt: skip
    tasks = [TaskId(step=name, index=(item,)) for name in options for item in range(items)]
    now, actions = state.apply(empty, events.Added(tuple(events.TaskNode(task) for task in tasks), 0.0))
    started: list[str] = []
    for task in tasks:
        now, actions = state.apply(now, events.Decision(task, 0.0, "run"))
        started += [action.task.step for action in actions if isinstance(action, events.Submit)]
    return sorted(started)


@pytest.mark.parametrize(
    ("far", "places", "expected"),
    [
        (StepOptions(on=FAR), {FAR: 3}, ["far"] * 3 + ["here"] * 2),
        (StepOptions(on=FAR, cpu=2), {FAR: 3}, ["far"] + ["here"] * 2),
        (StepOptions(on=FAR, workers=1), {FAR: 3}, ["far"] + ["here"] * 2),
        (StepOptions(on=FAR), {}, ["here"] * 2),  # the run's own place
        (StepOptions(on=FAR, cpu=64), {FAR: 3}, ["far"] + ["here"] * 2),
    ],
)
def test_each_place_has_its_own_cores(far: StepOptions, places: dict[str, int], expected: list[str]) -> None:
    assert begun({"here": StepOptions(), "far": far}, slots=2, places=places) == expected


def test_a_task_that_waits_where_it_is_to_run_says_why_until_it_begins() -> None:
    task = TaskId(step="far")
    now = state.RunState(
        run="r", flow="f", order={"far": 0}, labels={}, options={"far": StepOptions(on=FAR)}, slots=1, started_at=0.0
    )
    now, _ = state.apply(now, events.Added((events.TaskNode(task),), 0.0))
    now, _ = state.apply(now, events.Decision(task, 0.0, "run", reasons=(("new", ""),)))
    now, told = state.apply(now, events.Delayed(task, 1.0, "1 GPU wanted, 0 free"))
    assert now.tasks[task].reasons == (("waiting", "1 GPU wanted, 0 free"), ("new", ""))
    assert len(told) == 1
    now, _ = state.apply(now, events.Delayed(task, 2.0, "1 core wanted, 0 free"))
    assert now.tasks[task].reasons[0] == ("waiting", "1 core wanted, 0 free")
    now, _ = state.apply(now, events.Began(task, 3.0))
    assert now.tasks[task].reasons == (("new", ""),)
    now, told = state.apply(now, events.Delayed(task, 4.0, "late"))
    assert (now.tasks[task].reasons, told) == ((("new", ""),), ())
