"""What a page draws from: states of steps from runs and from cells run by hand, forms, sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow, Plan, PlanTask, Snapshot, TaskFailure, TaskId, TaskView
from nbflow.page import marks, snapshot

SOURCES = [
    "import math",
    "%%params\nrate: float = 0.1  # how fast it learns",
    "%%step load\nrows = [rate]",
    "total = sum(rows)",
    "%%step train --foreach size in [1, 2]\nmodel = (size, total)",
    "scratch = 1",
]


def flow_of(sources: list[str]) -> Flow:
    cells = [RawCell(f"c{number}", source, ()) for number, source in enumerate(sources, start=1)]
    return build_flow(parse_cells(cells, name="digits", folder="."))


FLOW = flow_of(SOURCES)
FAILURE = TaskFailure(type="E", message="m", traceback="\x1b[31m" + "x" * 9000)


def seen(
    tasks: dict[str, Any], *, at: float = 10.0, status: str = "running", by_hand: bool = False
) -> snapshot.PageRun:
    views = []
    for name, states in tasks.items():
        for number, state in enumerate(states if isinstance(states, list) else [states]):
            index = (number,) if isinstance(states, list) else ()
            failure = FAILURE if state == "failed" else None
            views.append(TaskView(task=TaskId(step=name, index=index), state=state, started_at=at, failure=failure))
    return snapshot.PageRun(
        snapshot=Snapshot(
            run="r", flow="digits", status=status, started_at=at, steps=tuple(step.name for step in FLOW.steps),
            labels={}, tasks=tuple(views), edges=FLOW.edges, parameters={"rate": "0.5"},
        ),
        by_hand=by_hand,
    )  # fmt: skip


def states(message: Any) -> dict[str, str]:
    return {step["name"]: step["state"] for step in message["steps"]}


def test_without_a_run_everything_is_to_come() -> None:
    message = snapshot.page(FLOW, None)
    assert set(states(message).values()) == {"pending"}
    assert message["run"] is None
    assert not message["busy"]


def test_parameters_are_done_once_a_run_has_begun() -> None:
    message = snapshot.page(FLOW, seen({"load": "running"}))
    assert states(message)["cell:c2"] == "done"
    assert message["parameters"] == [
        {"name": "rate", "annotation": "float", "default": "0.1", "help": "how fast it learns", "value": "0.5"}
    ]


def test_a_step_shows_whatever_ran_it_last() -> None:
    run = seen({"load": "done", "cell:c4": "done"}, at=10, status="done")
    later = seen({"load": "failed"}, at=20, by_hand=True)
    assert states(snapshot.page(FLOW, run, later))["load"] == "failed"
    assert states(snapshot.page(FLOW, run, later))["cell:c4"] == "done"
    earlier = seen({"load": "failed"}, at=5, by_hand=True)
    assert states(snapshot.page(FLOW, run, earlier))["load"] == "done"


def test_a_run_under_way_is_all_that_is_shown() -> None:
    later = seen({"load": "failed"}, at=20, by_hand=True)
    assert states(snapshot.page(FLOW, seen({"load": "queued"}), later, busy=True))["load"] == "queued"


def test_a_step_by_hand_is_shown_while_it_runs() -> None:
    old = seen({"load": "done"}, at=10, status="done")
    now = seen({"load": "running"}, at=20, by_hand=True)
    assert states(snapshot.page(FLOW, old, now, busy=True))["load"] == "running"


def test_items_of_a_foreach_are_counted_and_listed() -> None:
    step = next(s for s in snapshot.page(FLOW, seen({"train": ["done", "failed"]}))["steps"] if s["name"] == "train")
    assert (step["state"], step["settled"], step["total"]) == ("failed", 2, 2)
    assert [task["index"] for task in step["tasks"]] == [[1], [0]]  # what has failed is looked at first
    assert step["detail"] == "foreach size in [1, 2]"
    failure = step["failure"]
    assert failure is not None
    assert failure["traceback"].startswith("…\n")
    assert len(failure["traceback"]) < 7000
    assert "\x1b" not in failure["traceback"]


def test_plain_cells_can_be_declared_under_free_names() -> None:
    cells = snapshot.page(FLOW, None)["cells"]
    assert [(cell["id"], cell["name"]) for cell in cells] == [("c1", "math"), ("c4", "total"), ("c6", "scratch")]
    taken = flow_of(["%%step load\nx = 1", "load = 2"])
    assert snapshot.page(taken, None)["cells"][0]["name"] == "load_2"


def test_the_line_of_a_step_is_read_word_for_word() -> None:
    line = '# first\n%%step fit --foreach d in [1, 2] --pip "a==1 b" --retry {n} --card  # why so\nx = d'
    flow = flow_of(["%%params\nn: int = 2", line, "# %%step commented\ny = 1", "%%step plain\nz = 1"])
    fit, commented = snapshot.page(flow, None)["headers"]  # of the last one there is nothing to say
    assert (fit["cell"], fit["is_line"], fit["comment"]) == ("c2", True, "# why so")
    assert fit["options"] == [["foreach", "d in [1, 2]"], ["pip", '"a==1 b"'], ["retry", "{n}"], ["card", ""]]
    assert (commented["cell"], commented["is_line"]) == ("c3", False)


def test_a_task_says_which_process_ran_it() -> None:
    flow = flow_of(["%%step fit --on ray://box:1\nx = 1"])
    view = TaskView(task=TaskId(step="fit"), state="running", pid=41)
    run = Snapshot(run="r", flow="f", status="running", started_at=1, steps=("fit",), labels={}, tasks=(view,))
    assert snapshot.page(flow, snapshot.PageRun(snapshot=run))["workers"] == {"fit": "process 41 on ray://box:1"}


def test_an_earlier_run_shows_its_own_steps() -> None:
    run = seen({"load": "done", "gone": "failed"}, status="failed")
    message = snapshot.past(FLOW, run)
    assert states(message)["gone"] == "failed"
    assert next(step for step in message["steps"] if step["name"] == "gone")["cell"] == ""


def test_messages_are_json_and_small() -> None:
    many = flow_of(["%%step s0\nv0 = 1", *(f"%%step s{n}\nv{n} = v{n - 1}" for n in range(1, 200))])
    run = Snapshot(
        run="r", flow="digits", status="running", started_at=1.0, steps=tuple(step.name for step in many.steps),
        labels={}, tasks=tuple(TaskView(task=TaskId(step=step.name), state="done", elapsed=1.0) for step in many.steps),
    )  # fmt: skip
    text = json.dumps(snapshot.page(many, snapshot.PageRun(snapshot=run)))
    assert len(text) < 500 * 200


def test_the_graph_is_laid_out_for_the_page() -> None:
    message = snapshot.page(FLOW, seen({"load": "running"}))
    layout = message["layout"]
    places = {place["name"]: place for place in layout["places"]}
    assert list(places) == [step["name"] for step in message["steps"]]
    assert {(line["frm"], line["to"]) for line in layout["lines"]} == {(e["frm"], e["to"]) for e in message["edges"]}
    half = layout["box"] / 2
    for place in places.values():
        assert place["x"] - place["width"] / 2 >= snapshot.FRAME
        assert place["x"] + place["width"] / 2 <= layout["width"] - snapshot.FRAME
        assert half + snapshot.FRAME <= place["y"] <= layout["height"] - half - snapshot.FRAME
    for line in layout["lines"]:
        frm, to = places[line["frm"]], places[line["to"]]
        assert line["points"][0] == [frm["x"], frm["y"] + half]
        assert line["points"][-1] == [to["x"], to["y"] - half]


def test_the_graph_is_laid_out_once_for_all_states() -> None:
    first = snapshot.page(FLOW, None)
    assert snapshot.page(FLOW, seen({"load": "failed"}))["layout"] is first["layout"]
    other = snapshot.page(flow_of([*SOURCES, "%%step more\nrows"]), None)
    assert [place["name"] for place in other["layout"]["places"]][-1] == "more"
    assert snapshot.page(FLOW, None)["layout"] == first["layout"]


@pytest.mark.parametrize(
    ("label", "text", "width"),
    [
        ("load", "load", 96),
        ("features", "features", 110),
        ("f" * 26, "f" * 26, 220),
        ("f" * 27, "f" * 25 + "…", 220),
        ("数据" * 10, "数据" * 6 + "…", 220),
    ],
)
def test_a_box_has_room_for_what_stands_in_it(label: str, text: str, width: float) -> None:
    [place] = snapshot.page(flow_of([f"%%step {label}\nx = 1"]), None)["layout"]["places"]
    assert (place["text"], place["width"]) == (text, width)


def test_an_earlier_run_has_the_layout_of_its_own_steps() -> None:
    message = snapshot.past(FLOW, seen({"load": "done", "gone": "failed"}, status="failed"))
    assert [place["name"] for place in message["layout"]["places"]] == [step["name"] for step in message["steps"]]
    assert "gone" in {place["name"] for place in message["layout"]["places"]}


def planned(*rows: tuple[str, str, str, str], at: float = 0.0) -> marks.Marks:
    """Marks of a plan whose rows are (step, action, code, what)."""
    tasks = [
        PlanTask(step=step, index=(number,) if step == "train" else (), action=action, reasons=((code, what),))
        for number, (step, action, code, what) in enumerate(rows)
    ]
    return marks.of_plan(Plan(flow="digits", tasks=tuple(tasks)), FLOW, at)


@pytest.mark.parametrize(
    ("action", "code", "what", "mark", "why"),
    [
        ("reuse", "reused", "from r, 3 h old", "fresh", "from r, 3 h old"),
        ("run", "no-cache", "never reused: --no-cache", "fresh", "runs each time: never reused: --no-cache"),
        ("run", "code", "line 3 changed", "stale", "line 3 changed"),
        ("run", "parameter", "rate: 0.1 → 1", "stale", "rate: 0.1 → 1"),
        ("run", "new", "it has not run before", "new", "it has not run before"),
        ("run", "failed", "failed in r", "failed", "failed in r"),
    ],
)
def test_a_cell_bears_what_a_run_would_do(action: str, code: str, what: str, mark: str, why: str) -> None:
    message = snapshot.page(
        FLOW, seen({"load": "done"}, status="done"), planned=planned(("load", action, code, what), at=99.0)
    )
    (load,) = (step for step in message["steps"] if step["name"] == "load")
    assert (load["mark"], load["why"], load["state"]) == (mark, why, "done")


def test_of_several_items_the_first_that_would_run_speaks_for_its_step() -> None:
    found = planned(("train", "reuse", "reused", "r"), ("train", "run", "code", "line 1"), ("train", "run", "new", "x"))
    assert found.steps["train"] == marks.Mark("stale", "line 1")


def test_what_is_below_a_step_that_never_ran_has_not_run_either() -> None:
    rows = [("load", "run", "new", "it has not run before"), ("cell:c4", "run", "input", "load runs")]
    assert planned(*rows).steps["cell:c4"] == marks.Mark("new", "load runs")


def test_a_run_that_is_newer_than_the_plan_counts_more() -> None:
    stale = planned(("load", "run", "code", "line 3 changed"), at=9.0)
    for state, mark in (("running", "running"), ("pending", "pending"), ("done", "fresh"), ("failed", "failed")):
        message = snapshot.page(FLOW, seen({"load": state}), planned=stale)
        assert next(step["mark"] for step in message["steps"] if step["name"] == "load") == mark
