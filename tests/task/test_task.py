"""The parts of a task, without a process: outputs folded, frames, context, random states, tracebacks, leftovers."""

from __future__ import annotations

import os
import pickle
import random
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from nbflow import tracebacks
from nbflow.errors import SerializationError
from nbflow.executors import wire
from nbflow.executors.attempt import lost
from nbflow.model import (
    Buffer,
    DefinitionRef,
    Ended,
    Group,
    Manifest,
    Output,
    Parallel,
    Ref,
    Started,
    TaskEvent,
    TaskFailure,
    TaskResult,
    TaskSpec,
)
from nbflow.store.serialize.registry import Registry
from nbflow.task import context, leftovers, limits, mutation, random_state, results
from nbflow.task.context import Context, current
from nbflow.task.outputs import Outputs, finish
from nbflow.task.secrets import hide
from nbflow.task.streams import Stream
from tests.support.tasks import Tasks, definition


def text(value: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": value}


def display(value: str, identity: str = "", kind: str = "display_data") -> dict[str, Any]:
    output = {"output_type": kind, "data": {"text/plain": value}, "metadata": {}}
    return {**output, "transient": {"display_id": identity}} if identity else output


CLEAR = {"output_type": "clear_output", "wait": False}
CLEAR_LATER = {"output_type": "clear_output", "wait": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([text("a"), text("b")], [text("ab")]),
        ([text("a"), text("b", "stderr"), text("c")], [text("a"), text("b", "stderr"), text("c")]),
        ([text("a"), display("x"), text("b")], [text("a"), display("x"), text("b")]),
        ([display("x", "i"), display("y", "i", "update_display_data")], [display("y")]),
        ([display("y", "i", "update_display_data")], []),
        ([text("a"), CLEAR, text("b")], [text("b")]),
        ([text("a"), CLEAR], []),
        ([text("a"), CLEAR_LATER], [text("a")]),
        ([text("a"), CLEAR_LATER, display("x")], [display("x")]),
    ],
)
def test_outputs_are_folded(given: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    outputs = Outputs()
    for output in given:
        outputs.add(output)
    assert list(outputs.items()) == expected
    assert not outputs.truncated


def test_outputs_are_capped_with_a_notice() -> None:
    outputs = Outputs(limit=100)
    for _ in range(50):
        outputs.add(text("x" * 9))
    outputs.add(display("y" * 200))
    outputs.add({"output_type": "error", "ename": "E", "evalue": "", "traceback": []})
    items = outputs.items()
    assert outputs.truncated
    assert items[0]["text"] == "x" * 100
    assert [item["output_type"] for item in items] == ["stream", "stream", "stream", "error"]
    assert "left out" in items[1]["text"]
    assert items[2]["text"] == "x" * 350  # the end of it is kept


def test_a_cleared_output_may_grow_again() -> None:
    outputs = Outputs(limit=10)
    outputs.add(text("x" * 50))
    outputs.add(CLEAR)
    outputs.add(text("short"))
    assert (outputs.items(), outputs.truncated) == ((text("short"),), False)


def test_finish_puts_outputs_into_the_result() -> None:
    outputs = Outputs()
    outputs.add(text("a"))
    result = finish(TaskResult(failure=TaskFailure(type="E", message="m")), outputs)
    assert result.outputs == (text("a"),)
    assert result.record is None


# ---------------------------------------------------------------- wire


def test_frames_come_back_whole_whatever_the_pieces() -> None:
    events: list[TaskEvent] = [Started(pid=1, at=2.0), Output(output=text("é" * 1000)), Ended(result=TaskResult())]
    data = b"".join(map(wire.frame, events))
    for size in (1, 3, 1000, len(data)):
        assembler = wire.Assembler()
        bodies = [body for at in range(0, len(data), size) for body in assembler.feed(data[at : at + size])]
        assert [wire.parse_event(body) for body in bodies] == events


def test_writers_of_several_threads_do_not_mix() -> None:
    read, write = os.pipe()
    writer = wire.FrameWriter(write)
    threads = [
        threading.Thread(target=lambda n=n: [writer.send(wire.Born(n, i)) for i in range(200)])  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    seen: dict[int, list[int]] = {}
    for _ in range(800):
        body = wire.read_frame(read)
        assert body is not None
        report = wire.parse_report(body)
        assert isinstance(report, wire.Born)
        seen.setdefault(report.task, []).append(report.pid)
    assert all(pids == list(range(200)) for pids in seen.values())
    os.close(write)
    assert wire.read_frame(read) is None
    os.close(read)


def test_a_spec_survives_the_wire(tmp_path: Path) -> None:
    spec = Tasks(None, tmp_path).spec("x = 1", replay=(definition("f", "def f(): pass"),), values={"a": [1, None]})  # type: ignore[arg-type]
    assert wire.parse_spec(wire.pack(spec)) == spec


# ---------------------------------------------------------------- context


def test_outside_a_step_current_is_empty() -> None:
    names = ("flow", "run", "step", "task", "attempt", "item", "index", "parameters", "tags", "parallel", "tempdir")
    assert [getattr(current, name) for name in names] == [None] * len(names)
    assert current.is_flow is False
    assert "no step" in repr(current)
    with pytest.raises(RuntimeError):
        context.emit(Started(pid=1, at=0.0))


def test_current_within_a_step(tmp_path: Path) -> None:
    sent: list[TaskEvent] = []
    spec = Tasks(None, tmp_path).spec("", parameters=pickle.dumps({"lr": 0.1}), index=(4, 2))  # type: ignore[arg-type]
    with context.running(Context.of(spec, sent.append, item="apple")):
        assert (current.task, current.index, current.item, current.is_flow) == ("s/4.2", 2, "apple", True)
        assert current.parameters is not None
        assert dict(current.parameters) == {"lr": 0.1}
        with pytest.raises(AttributeError, match="known: lr"):
            _ = current.parameters.rate
        assert current.parallel == Parallel(rank=0, world_size=1)
        folder = current.tempdir
        assert folder is not None
        assert current.tempdir == folder
        assert Path(folder).is_dir()
        context.emit(Started(pid=1, at=0.0))
    assert not Path(folder).exists()
    assert sent == [Started(pid=1, at=0.0)]
    assert current.step is None


# ---------------------------------------------------------------- random states


def test_states_are_restored_and_spawned() -> None:
    np = pytest.importorskip("numpy")
    for name, draw in (("<random>", random.random), ("<numpy.random>", lambda: float(np.random.rand()))):
        state = random_state.read(name)
        first = draw()
        random_state.restore(name, state)
        assert draw() == first
        items = []
        for index in ((0,), (1,), (0,)):
            random_state.restore(name, state, index)
            items.append(draw())
        assert items[0] == items[2] != items[1]
        assert first not in items


def test_draws_are_seen() -> None:
    np = pytest.importorskip("numpy")
    before = random_state.loaded()
    assert random_state.drawn(before) == set()
    random.random()
    assert random_state.drawn(before) == {"<random>"}
    np.random.rand()
    assert random_state.drawn(before) == {"<random>", "<numpy.random>"}


@pytest.mark.parametrize(
    ("act", "seeded"),
    [
        (lambda np: None, set()),
        (lambda np: random.random(), set()),
        (lambda np: [random.random() for _ in range(100_000)], set()),
        (lambda np: np.random.rand(100_000), set()),
        (lambda np: np.random.normal(size=7), set()),
        (lambda np: random.seed(5), {"<random>"}),
        (lambda np: (np.random.seed(5), np.random.rand(2000)), {"<numpy.random>"}),
        (lambda np: [f(5) for f in (random.seed, np.random.seed)], {"<random>", "<numpy.random>"}),
        (lambda np: random.setstate((3, (*range(1, 625), 3), None)), {"<random>"}),
        (lambda np: np.random.rand(1_000_000), {"<numpy.random>"}),  # in doubt: more draws than are followed
    ],
)
def test_seeds_are_told_from_draws(act: Callable[[Any], object], seeded: set[str]) -> None:
    np = pytest.importorskip("numpy")
    for name in ("<random>", "<numpy.random>"):
        random_state.STATES[name].seed(b"7" * 32)
    before = random_state.loaded()
    act(np)
    assert random_state.seeded(before) == seeded
    assert not random_state.seeded(before, {"<random>", "<numpy.random>", "<torch>"})


def test_fresh_entropy() -> None:
    draws = set()
    for _ in range(3):
        random_state.refresh()
        draws.add(random.random())
    assert len(draws) == 3


# ---------------------------------------------------------------- what a task leaves


class Tree:
    """Stands for a class of the notebook's own."""

    def predict(self) -> None: ...


class TestBaseLine:
    """Inputs compared with themselves."""

    def test_changes(self, tmp_path: Path) -> None:
        np = pytest.importorskip("numpy")
        values: dict[str, Any] = {"a": [1], "b": {"k": [1]}, "c": np.zeros(5), "d": 7, "e": [2], "f": np.zeros(3)}
        line = mutation.BaseLine(spec_with(tmp_path, "", values), values, Registry())
        values["a"].append(2)
        values["b"]["k"][0] = 9
        values["c"][3] = 1
        values |= {"a": [1], "d": 8, "e": [2, 3]}  # the object that it was given counts, whatever the name holds now
        assert line.compare() == {"a", "b", "c"}

    @pytest.mark.parametrize(
        ("source", "seen"),
        [
            ("y = rows[0] + 1", False),
            ("y = sum(row for row in rows)", True),
            ("y = [row + 1 for row in rows]", False),
            ("touch(rows)", True),
            ("for row in rows:\n    row.append(1)", True),
            ("use()", True),
        ],
    )
    def test_long_ones_only_where_the_text_hands_them_on(self, tmp_path: Path, source: str, *, seen: bool) -> None:
        values = {"rows": [[1]]}
        replay = (definition("use", "def use():\n    return change(rows)"),) if source == "use()" else ()
        line = mutation.BaseLine(spec_with(tmp_path, source, values, dear=True, replay=replay), values, Registry())
        values["rows"].append([2])
        assert line.compare() == ({"rows"} if seen else set())

    def test_long_ones_of_the_notebooks_own_objects(self, tmp_path: Path) -> None:
        values = {"rows": [[1]]}
        spec = spec_with(tmp_path, "y = rows[0] + 1", values, dear=True)
        own = tuple(replace(group, definitions=(DefinitionRef(id="Row@1", cell="c"),)) for group in spec.groups)
        line = mutation.BaseLine(replace(spec, groups=own), values, Registry())
        values["rows"].append([2])
        assert line.compare() == {"rows"}

    def test_long_ones_that_are_consumed_or_of_unknown_kinds(self, tmp_path: Path) -> None:
        tree = Tree()
        values = {"turns": iter([1, 2, 3]), "tree": tree}
        source = "y = [turn for turn in turns]\nz = tree.height"
        line = mutation.BaseLine(spec_with(tmp_path, source, values, dear=True), values, Registry())
        next(values["turns"])
        tree.height = 3  # type: ignore[attr-defined]
        assert line.compare() == {"turns", "tree"}

    @pytest.mark.parametrize(
        ("source", "seen"),
        [
            ("p = model.predict(X)[:, 0]\ns = model.score(X, y)", False),
            ("importances = dict(zip(names, model.feature_importances_))", False),
            ("model.fit(X, y)", True),
            ("p = model.predict(X)\nc = model.coef_\nc *= 2", True),
            ("refit(model)", True),
            ("model.predict(X); other = model; other.fit(X, y)", True),
        ],
    )
    def test_large_estimators(self, tmp_path: Path, source: str, *, seen: bool) -> None:
        linear = pytest.importorskip("sklearn.linear_model")
        model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
        line = mutation.BaseLine(spec_with(tmp_path, source, {"model": model}, dear=True), {"model": model}, Registry())
        model.coef_ = model.coef_ * 2
        assert line.compare() == ({"model"} if seen else set())


def spec_with(folder: Path, source: str, values: Mapping[str, Any], *, dear: bool = False, **fields: Any) -> TaskSpec:
    """The spec of a task that reads these values, which took megabytes in the store if `dear`."""
    stream = Buffer(length=mutation.DEAR + 1 if dear else 100)
    groups = tuple(Group(id=name, names=(name,), serializer="pickle", stream=stream) for name in values)
    inputs = {name: Ref(name=name, group=at) for at, name in enumerate(values)}
    return Tasks(None, folder).spec(source, groups=groups, inputs=inputs, **fields)  # type: ignore[arg-type]


def test_outputs_of(tmp_path: Path) -> None:
    tasks = Tasks(None, tmp_path)  # type: ignore[arg-type]
    same = [1]
    before = {"kept": same, "changed": [0], "open": open}
    after = {"kept": same, "changed": [1], "new": 2, "_p": 3, "sys": sys, "f": len, "open": open, "get_ipython": 5}
    spec = tasks.spec("", own=(definition("f", "f = len"),))
    assert set(results.outputs_of(spec, before, {**before, **after})) == {"changed", "new", "get_ipython"}
    assert set(results.outputs_of(spec, before, after, {"kept"})) == {"changed", "new", "kept", "get_ipython"}
    assert set(results.outputs_of(tasks.spec("", writes=("kept",), outputs=("kept",)), before, after)) == {"kept"}
    with pytest.raises(SerializationError, match="'gone'"):
        results.outputs_of(tasks.spec("", outputs=("gone",)), before, after)


def test_required_values_must_be_stored(tmp_path: Path) -> None:
    spec = Tasks(None, tmp_path).spec("", required=("lock",))  # type: ignore[arg-type]
    artifact = Manifest(name="lock", type="lock", group=-1, error="TypeError: cannot pickle")
    with pytest.raises(
        SerializationError, match=r"lock \(a lock\) of step s cannot be stored, and a later step reads it"
    ):
        results.check_required(spec, {"lock": artifact})
    results.check_required(spec, {"other": artifact})


# ---------------------------------------------------------------- failures


def test_a_traceback_starts_in_the_users_cell() -> None:
    tracebacks.remember_lines("cell 7", "def f():\n    raise ValueError('no')\n", line=3)
    code = compile("\n\ndef f():\n    raise ValueError('no')\n\nf()", "cell 7", "exec")
    try:
        exec(code, {})
    except ValueError as error:
        failure = tracebacks.failure_of(error, ("cell 7",), "id")
    assert (failure.type, failure.message, failure.line, failure.cell) == ("ValueError", "no", 6, "id")
    assert failure.bases == ("Exception", "BaseException")
    assert "    raise ValueError('no')" in failure.traceback
    assert __file__ not in failure.traceback


def test_lines_of_several_statements_of_a_cell() -> None:
    tracebacks.remember_lines("cell 8", "a = 1", line=2)
    tracebacks.remember_lines("cell 8", "b = 2\nc = 3\n", line=5)
    tracebacks.remember_lines("cell 8", "z = 0", line=1)
    stack = traceback.StackSummary.from_list([("cell 8", 6, "f", None), ("cell 8", 2, "f", None)])
    assert [frame.line for frame in stack] == ["c = 3", "a = 1"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (-9, "SIGKILL (kill -9 or out of memory)"),
        (-11, "segmentation fault"),
        (-6, "SIGABRT"),
        (3, "exit status 3 before the cell finished"),
    ],
)
def test_ends_without_a_result(tmp_path: Path, status: int, said: str) -> None:
    failure = lost(status, Tasks(None, tmp_path).spec(""))  # type: ignore[arg-type]
    assert said in failure.message
    assert (failure.kind, failure.cell) == ("lost", "abcd")


def test_secrets_are_hidden_the_longest_first() -> None:
    assert hide({"a": ["x abc abcd", 1], "b": None}, ["abcd", "abc"]) == {"a": ["x *** ***", 1], "b": None}


# ---------------------------------------------------------------- streams, leftovers, limits


def test_streams_emit_lines_and_keep_the_rest() -> None:
    sent: list[dict[str, Any]] = []
    stream = Stream("stdout", 1, sent.append)
    stream.write("a")
    assert sent == []
    stream.write("b\nc")
    assert sent == [text("ab\nc")]
    stream.write("d" * 10_000)
    stream.write("\ud800")
    stream.flush()
    assert "".join(output["text"] for output in sent) == "ab\nc" + "d" * 10_000 + "?"
    with pytest.raises(TypeError):
        stream.write(b"bytes")  # type: ignore[arg-type]


def test_threads_of_pools_are_left_to_their_pools() -> None:
    from concurrent.futures import ThreadPoolExecutor

    known = frozenset(thread.ident or 0 for thread in threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        assert leftovers.join_threads("s", "c", known, patience=0.1) == []


def test_a_thread_that_does_not_end_is_named() -> None:
    known = frozenset(thread.ident or 0 for thread in threading.enumerate())
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="stuck")
    thread.start()
    (finding,) = leftovers.join_threads("s", "c", known, patience=0.05)
    assert (finding.code, finding.step, finding.cell) == ("left-running", "s", "c")
    assert "stuck" in finding.message
    end.set()
    thread.join()


def test_thread_variables_are_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in limits.THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")
    limits.set_threads(0, {"OMP_NUM_THREADS": "3"})
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ
    limits.set_threads(2, {})
    assert {os.environ[name] for name in limits.THREAD_VARIABLES} == {"2"}
    for name in limits.THREAD_VARIABLES:
        monkeypatch.delenv(name)
