"""Cores, GPUs and memory that steps ask for: what a task sees, what waits, what can never run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow.engine import resources
from nbflow.engine.resources import Grant, Room
from nbflow.errors import PlanError
from nbflow.model import StepOptions
from nbflow.task import limits
from tests.engine.test_loops import write_notebook

ROOM = Room(("0", "1"), 16 << 30)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NBFLOW_GPUS", "2")
    limits.gpus.cache_clear()
    yield
    limits.gpus.cache_clear()


# ---------------------------------------------------------------- what fits

FITS = {
    "nothing runs": (StepOptions(gpu=1), [], ("0",)),
    "one is taken": (StepOptions(gpu=1), [{"0": 1.0}], ("1",)),
    "all are taken": (StepOptions(gpu=1), [{"0": 1.0}, {"1": 1.0}], None),
    "two wanted, one free": (StepOptions(gpu=2), [{"1": 1.0}], None),
    "two wanted": (StepOptions(gpu=2), [], ("0", "1")),
    "a half beside a half": (StepOptions(gpu=0.5), [{"1": 0.5}], ("1",)),
    "a half where all is full": (StepOptions(gpu=0.5), [{"0": 1.0}, {"1": 0.75}], None),
    "a whole one beside a half": (StepOptions(gpu=1), [{"0": 0.5}], ("1",)),
    "none asked for": (StepOptions(), [{"0": 1.0}, {"1": 1.0}], ()),
}


@pytest.mark.parametrize("case", FITS)
def test_which_gpus_a_task_gets(case: str) -> None:
    options, held, expected = FITS[case]
    found = resources.grant(options, 1.0, 8, ROOM, [Grant(1.0, devices) for devices in held])
    assert (None if found is None else tuple(found.devices)) == expected


def test_memory_and_cores_are_shared() -> None:
    big = StepOptions(memory=10 << 30)
    assert resources.grant(big, 1.0, 8, ROOM, [Grant(1.0, {}, 6 << 30)]) is not None
    assert resources.grant(big, 1.0, 8, ROOM, [Grant(1.0, {}, 7 << 30)]) is None
    assert resources.grant(StepOptions(), 2.0, 2, ROOM, [Grant(1.0, {})]) is None


# ---------------------------------------------------------------- in a run


def flow(tmp_path: Path, *cells: str) -> Path:
    return write_notebook(tmp_path / "flow.ipynb", ["%load_ext nbflow", *cells])


@pytest.mark.running
@pytest.mark.usefixtures("two_gpus")
def test_each_task_sees_its_own_gpus(tmp_path: Path) -> None:
    path = flow(
        tmp_path,
        "%%step work --foreach i in range(6) --gpu 1\n"
        "import os, time\nbegan = time.time()\ntime.sleep(0.4)\nended = time.time()\n"
        "mine = os.environ['CUDA_VISIBLE_DEVICES']",
        "%%step none\nimport os\nseen = os.environ['CUDA_VISIBLE_DEVICES']",
        "%%step both --gpu 2\nimport os\nall_of_them = os.environ['CUDA_VISIBLE_DEVICES']",
    )
    run = nbflow.run(path, store=str(tmp_path / "s"), workers=8)
    assert run.successful, run.error
    assert run.data.seen == ""
    assert run.data.all_of_them == "0,1"
    spans: dict[str, list[tuple[float, float]]] = {"0": [], "1": []}
    for task in run["work"].tasks:
        spans[task.data.mine].append((task.data.began, task.data.ended))
    assert all(spans.values()), "both were used"
    for each in spans.values():
        each.sort()
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(each)), "one task at a time"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("options", ["--gpu 3", "--memory 900T", "--nodes 2"])
def test_more_than_there_is_fails_before_anything_runs(tmp_path: Path, options: str) -> None:
    path = flow(tmp_path, "%%step first\nopen('ran', 'w').close()", f"%%step greedy {options}\nx = 1")
    with pytest.raises(PlanError) as caught:
        nbflow.run(path, store=str(tmp_path / "s"))
    assert caught.value.step == "greedy"
    assert "--on" in (caught.value.fix or "")
    assert options.split()[0] in caught.value.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.running
def test_tasks_wait_for_memory(tmp_path: Path) -> None:
    half = int((limits.memory() or 1 << 32) * 0.6)
    path = flow(
        tmp_path,
        f"%%step work --foreach i in range(2) --memory {half}\n"
        "import time\nbegan = time.time()\ntime.sleep(0.5)\nended = time.time()",
    )
    run = nbflow.run(path, store=str(tmp_path / "s"), workers=4)
    assert run.successful, run.error
    first, second = sorted((task.data.began, task.data.ended) for task in run["work"].tasks)
    assert first[1] <= second[0]


@pytest.mark.running
def test_a_task_over_its_memory_is_ended_and_named_and_the_others_live(tmp_path: Path) -> None:
    path = flow(
        tmp_path,
        "%%step work --foreach i in range(4) --memory 120M\nimport time\n"
        "x = bytearray(400_000_000 if i == 2 else 1000)\ntime.sleep(5 if i == 2 else 0)\ny = i",
    )
    began = time.monotonic()
    run = nbflow.run(path, store=str(tmp_path / "s"))
    assert not run.successful
    states = [task.state for task in run["work"].tasks]
    assert states == ["done", "done", "failed", "done"]
    error = run["work"][2].error
    assert error is not None
    assert error.type == "MemoryError"
    assert "--memory" in error.message
    assert "120000000" in error.message
    assert time.monotonic() - began < 60
