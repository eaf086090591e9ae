"""What watchers of a kernel are told: runs, cells run by hand, what tasks printed."""

from __future__ import annotations

from nbflow.kernel.feed import PRINTED, Audience
from nbflow.model import RunEnded, RunStarted, Snapshot, TaskChanged, TaskId, TaskOutput
from nbflow.render import cards

LOAD = TaskId(step="load")
START = RunStarted(run="hand", flow="f", at=1.0, session=True, steps=("load",), labels={"load": "load"})


def running(run: str, status: str = "running") -> Snapshot:
    return Snapshot(run=run, flow="f", status=status, started_at=1.0, steps=("load",), labels={}, tasks=())


def printed(text: str) -> TaskOutput:
    return TaskOutput(task=LOAD, output={"output_type": "stream", "name": "stdout", "text": text})


def test_each_change_is_told_until_the_watcher_leaves() -> None:
    audience, told = Audience(), []
    leave = audience.watch(lambda: told.append(1))
    run = running("a")
    audience.see_run(run, None)
    audience.see_run(run, None)
    assert len(told) == 1
    audience.see_by_hand(START)
    assert len(told) == 2
    leave()
    audience.see_by_hand(START)
    assert len(told) == 2


def test_cells_by_hand_are_a_run() -> None:
    audience = Audience()
    assert audience.by_hand is None
    audience.see_by_hand(START)
    audience.see_by_hand(TaskChanged(task=LOAD, state="running", at=2.0))
    assert audience.busy
    audience.see_by_hand(TaskChanged(task=LOAD, state="done", at=3.0, elapsed=1.0))
    assert not audience.busy
    hand = audience.by_hand
    assert hand is not None
    assert [view.state for view in hand.tasks] == ["done"]
    audience.see_by_hand(RunEnded(status="done", at=4.0))
    assert audience.by_hand is None


def test_a_loop_by_hand_has_the_turns_of_its_last_time() -> None:
    audience = Audience()
    audience.see_by_hand(START)
    for turn, state in ((0, "running"), (0, "done"), (1, "running"), (1, "failed"), (0, "running"), (0, "done")):
        audience.see_by_hand(TaskChanged(task=TaskId(step="load", turn=turn), state=state, at=2.0))
    hand = audience.by_hand
    assert hand is not None
    assert [(view.task.turn, view.state) for view in hand.tasks] == [(0, "done")]


def test_a_flow_run_is_busy_until_it_has_ended() -> None:
    audience = Audience()
    audience.see_run(running("a"), None)
    assert audience.busy
    audience.see_run(running("a", "failed"), None)
    assert not audience.busy


def test_the_cards_of_running_tasks_are_kept_as_they_are_now() -> None:
    audience, run = Audience(), running("a")

    def shown(name: str, words: str) -> TaskOutput:
        html = cards.inline("load", name, f"<p>{words}</p>")
        data = {"text/html": html, "text/plain": words}
        output = {"output_type": "display_data", "data": data, "metadata": {cards.NAME: name}}
        return TaskOutput(task=LOAD, output=output)

    for event in (shown("", "one"), shown("errors", "none"), shown("", "two"), printed("hello")):
        audience.see_run(run, event)
    assert audience.cards("a", LOAD) == {"": "<p>two</p>", "errors": "<p>none</p>"}
    assert audience.cards("b", LOAD) == {}


def test_the_end_of_what_was_printed_is_kept() -> None:
    audience, run = Audience(), running("a")
    assert audience.printed("a", LOAD) is None
    audience.see_run(run, printed("one "))
    audience.see_run(run, printed("two"))
    assert audience.printed("a", LOAD) == "one two"
    audience.see_run(run, printed("x" * PRINTED))
    assert audience.printed("a", LOAD) == "x" * PRINTED
    for number in range(1000):
        audience.see_run(running(str(number)), printed("y"))
    assert audience.printed("a", LOAD) is None
    assert audience.printed("999", LOAD) == "y"
