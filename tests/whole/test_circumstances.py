"""Flows in circumstances that happen: much output, two runs at once, clocks set back, odd names and values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow import reference
from nbflow.flow.notebook import document_of
from nbflow.runs import client

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("own_cache")]


def write(folder: Path, *sources: str, name: str = "flow") -> Path:
    """Cells in; the path of a notebook that holds them out."""
    path = folder / f"{name}.ipynb"
    path.write_text(document_of(((f"c{at}", source) for at, source in enumerate(sources, 1)), name), encoding="utf-8")
    return path


def states(run: client.Run) -> Mapping[str, int]:
    return Counter(task.state for step in run.steps() for task in step.tasks)


# ---------------------------------------------------------------- output


TALK = """%%step talk --foreach i in range(32)
import sys
for n in range(5000):
    print(f'{i} {n} out')
    if n % 7 == 0:
        sys.stdout.flush()
    print(f'{i} {n} err', file=sys.stderr)
said = i"""


def test_320_000_lines_of_32_tasks_are_all_kept_in_order(tmp_path: Path) -> None:
    seen: Counter[tuple[int, ...]] = Counter()

    def watch(snapshot: Any, event: Any) -> None:
        if type(event).__name__ == "TaskOutput":
            seen[event.task.index] += 1

    path = write(tmp_path, TALK)
    run = nbflow.run(path, store=str(tmp_path / "store"), watch=watch)
    assert run.successful, run.error
    again = client.Run(f"{run.flow}/{run.id}", str(tmp_path / "store"))
    for i in range(32):
        task = again["talk"][i]
        assert task.stdout == "".join(f"{i} {n} out\n" for n in range(5000))
        assert task.stderr == "".join(f"{i} {n} err\n" for n in range(5000))
        assert len(task.outputs) < 20_000, "what a notebook shows stays usable"
    assert set(seen) == {(i,) for i in range(32)}


# ---------------------------------------------------------------- many items


def test_twelve_hundred_items_keep_their_order_and_one_that_failed_is_run_again(tmp_path: Path) -> None:
    cells = (
        "%%step start\nitems = [(i * 7919) % 1200 for i in range(1200)]",
        "%%step work --foreach item in items\nimport os\ny = item * item\nassert item != 600 or os.path.exists('ok')",
        "%%step close --join work\nys = [each.y for each in inputs]\nplaces = [each.index for each in inputs]",
    )
    path, store = write(tmp_path, *cells), str(tmp_path / "store")
    failed = nbflow.run(path, store=store)
    states = [task.state for task in failed["work"].tasks]
    assert (states.count("done"), states.count("failed")) == (1199, 1)
    (tmp_path / "ok").touch()
    run = nbflow.run(path, store=store, resume=failed.id)
    states = [task.state for task in run["work"].tasks]
    assert (states.count("reused"), states.count("done")) == (1199, 1)
    expected = reference.run(path)
    assert (run.data.ys, run.data.places) == (expected["ys"], expected["places"])


# ---------------------------------------------------------------- two runs at once


def test_two_runs_of_one_flow_at_once_on_one_store(tmp_path: Path) -> None:
    cells = (
        "%%step start\nimport time\nxs = list(range(20))",
        "%%step work --foreach x in xs\ntime.sleep(0.02)\ny = [x] * 10_000",
        "%%step join --join work\ntotal = sum(sum(t.y) for t in inputs)",
    )
    path, store = write(tmp_path, *cells), str(tmp_path / "store")
    found: list[client.Run] = []
    threads = [threading.Thread(target=lambda: found.append(nbflow.run(path, store=store))) for _ in range(2)]
    command = [sys.executable, "-m", "nbflow", "run", str(path), "--store", store, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        out, err = other.communicate(timeout=100)
    assert other.returncode == 0, err
    assert len({run.id for run in found} | {json.loads(out.splitlines()[-1])["run"]}) == 3
    for run in found:
        assert run.successful, run.error
        assert run.data.total == 190 * 10_000
        assert sum(states(run).values()) == 22
    assert {one.status for one in client.list_runs(store)} == {"done"}
    assert states(nbflow.run(path, store=store)) == {"reused": 22}


# ---------------------------------------------------------------- clocks


BACKWARDS = """
import sys, time
real, begun = time.time, time.time()
def earlier():  # an hour less with every half second that passes
    return real() - 3600 * int((real() - begun) * 2)
time.time = earlier
from nbflow.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    cells = [
        f"%%step s{n}\nimport time\ntime.sleep(0.25)\nprint({n})\nx{n} = {f'x{n - 1}' if n else '0'} + 1"
        for n in range(5)
    ]
    path, store = write(tmp_path, *cells), str(tmp_path / "store")
    command = [sys.executable, "-c", BACKWARDS, "run", str(path), "--store", store, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    order = [
        (line["step"], line["state"])
        for line in lines
        if line["kind"] == "task" and line["state"] in ("running", "done")
    ]
    assert order == [(f"s{n}", state) for n in range(5) for state in ("running", "done")]
    run = client.Run(f"flow/{lines[-1]['run']}", store)
    assert (run.status, run.data.x4) == ("done", 5)
    assert [step.task.stdout for step in run.steps()] == [f"{n}\n" for n in range(5)]
    assert all((step.task.metadata or True) and step.state == "done" for step in run.steps())
    assert repr(run)
    assert states(nbflow.run(path, store=store)) == {"reused": 5}


# ---------------------------------------------------------------- odd names and values


NAMES = ("größe", "步骤", "étape-1", "шаг.2", "🙂", "ﬁn")


def test_step_names_in_unicode(tmp_path: Path) -> None:
    cells = [
        f"%%step {name}\nv{at} = {f'v{at - 1}' if at else '0'} + 1\nprint({name!r})" for at, name in enumerate(NAMES)
    ]
    path, store = write(tmp_path, *cells, name="flüsse 流"), str(tmp_path / "speicher ü")
    run = nbflow.run(path, store=store)
    assert run.successful, run.error
    assert [step.name for step in run.steps()] == list(NAMES)
    for name in NAMES:
        assert run[name].task.stdout == f"{name}\n"
    flow = nbflow.Flow("flüsse 流", store)
    assert flow.latest_run is not None
    assert flow.latest_run.data.v5 == 6
    assert states(nbflow.run(path, store=store)) == {"reused": 6}
    for command in (["show", f"flüsse 流/latest/{NAMES[1]}"], ["logs", f"flüsse 流/latest/{NAMES[4]}"], ["runs"]):
        told = subprocess.run(
            [sys.executable, "-m", "nbflow", *command, "--store", store], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        assert told.returncode == 0, told.stderr


TEXTS = [
    "it's",
    'say "hi"',
    "two\nlines",
    "tab\tand \\ back",
    "'''",
    '"""',
    "{braces} %s $HOME",
    "",
    " ",
    "ü流🙂",
    "\r\n",
    "--x",
]


@pytest.mark.parametrize("door", ["python", "shell", "environment"])
def test_parameters_with_quotes_and_newlines(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"p{at}" for at in range(len(TEXTS))]
    declared = "\n".join(f"{name}: str = 'default'" for name in names)
    given = dict(zip(names, TEXTS, strict=True))
    path, store = (
        write(tmp_path, f"%%params\n{declared}", f"%%step a\nseen = [{', '.join(names)}]"),
        str(tmp_path / "store"),
    )
    if door == "python":
        run = nbflow.run(path, params=given, store=store)
    elif door == "shell":
        words = [word for name, text in given.items() for word in ("-p", f"{name}={text}")]
        command = [sys.executable, "-m", "nbflow", "run", str(path), "--store", store, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        run = client.Run("flow/latest", store)
    else:
        for name, text in given.items():
            monkeypatch.setenv(f"NBFLOW_PARAM_{name.upper()}", text)
        run = nbflow.run(path, store=store)
    assert run.successful, run.error
    assert run.data.seen == TEXTS
    assert run.params == given
    monkeypatch.undo()
    resumed = nbflow.run(path, store=store, params=given)
    assert states(resumed) == {"reused": 1}


# ---------------------------------------------------------------- values between steps


DEFINED = """import math

class Point:
    def __init__(self, x):
        self.x = x

class Far(Point):
    pass

def double(v):
    return v * 2
"""
MADE = """%%step make
import json as codec
import math as maths
p = Far(3)
points = [p, Point(4)]
f = lambda v: v + p.x
g = double
kind = Point
module = maths
"""
USED = """%%step use
same = [isinstance(p, Point), isinstance(points[0], Far), points[0] is p, type(p) is Far, kind is Point, g is double]
values = f(1), g(21), module.sqrt(4.0), codec.dumps([1])
"""


def test_instances_functions_lambdas_and_modules_cross_steps(tmp_path: Path) -> None:
    run = nbflow.run(write(tmp_path, DEFINED, MADE, USED), store=str(tmp_path / "store"))
    assert run.successful, run.error
    assert run.data.same == [True] * 6
    assert run.data.values == (4, 42, 2.0, "[1]")


OPENED = """%%step make
import os
import threading
numbers = (n for n in range(3))
file = open(os.devnull)
lock = threading.Lock()
x = 1
"""


def test_what_nobody_reads_need_not_be_stored(tmp_path: Path) -> None:
    path, store = write(tmp_path, OPENED, "%%step use\ny = x + 1"), str(tmp_path / "store")
    run = nbflow.run(path, store=store)
    assert run.successful, run.error
    found = run["make"].task.artifacts
    assert {name: artifact.stored for name, artifact in found.items()} == {
        "numbers": False, "file": False, "lock": False, "x": True,
    }  # fmt: skip
    assert run.data.y == 2
    assert states(nbflow.run(path, store=store)) == {"reused": 2}


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("values = (n for n in range(3))", "list(values)"),
        ("values = open(__import__('os').devnull)", "values.read()"),
        ("import threading\nvalues = {'lock': threading.Lock()}", "list(values)"),
    ],
)
def test_what_a_later_step_reads_must_be_stored(source: str, reads: str, tmp_path: Path) -> None:
    cells = (f"%%step make\nother = 1\n{source}", f"%%step use --timeout 90s\ny = {reads}", "%%step apart\nz = other")
    run = nbflow.run(write(tmp_path, *cells), store=str(tmp_path / "store"))
    assert run.status == "failed"
    error = run["make"].task.error
    assert error is not None
    assert error.type == "SerializationError"
    assert "values" in error.message
    assert "a later step reads it" in error.message
    assert "%%setup" in error.traceback
    assert "--out" in error.traceback
    assert "nbflow/" not in error.traceback
    assert run["use"].state == "cancelled"
