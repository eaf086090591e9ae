"""A process that ends before its task's first line has begun is replaced: nothing of the task has run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow.executors.local import LocalExecutor
from nbflow.executors.spare import SpareLane
from nbflow.executors.zygote import ZygoteLane
from nbflow.flow.notebook import document_of
from nbflow.task import leftovers
from tests.support.tasks import Tasks

pytestmark = [pytest.mark.running, pytest.mark.skipif(sys.platform != "linux", reason="kills forked processes")]


@pytest.fixture(params=["zygote", "spare", "warm"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tasks]:
    executor = LocalExecutor(lane=request.param)
    yield Tasks(executor, tmp_path)
    executor.close()


def waiting(executor: LocalExecutor) -> list[int]:
    """The processes that wait for a task."""
    lane = executor.lane
    if isinstance(lane, SpareLane):
        return [worker.process.pid for worker in lane._idle]
    assert isinstance(lane, ZygoteLane)
    return [*leftovers.children(lane._zygotes[-1].process.pid)]


def kill_waiting(executor: LocalExecutor) -> None:
    """All of them, once there are some."""
    end = time.monotonic() + 60
    while len(found := waiting(executor)) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def test_workers_that_end_while_they_wait(own: Tasks) -> None:
    executor = own.executor
    assert isinstance(executor, LocalExecutor)
    assert own.run("print('first')").stdout == "first\n"
    kill_waiting(executor)
    done = [own.run(f"print({number})") for number in range(3)]
    assert [one.stdout for one in done] == ["0\n", "1\n", "2\n"]


def test_the_zygote_ends_while_it_waits(tmp_path: Path) -> None:
    executor = LocalExecutor(lane="zygote")
    own = Tasks(executor, tmp_path)
    try:
        own.run("1")
        lane = executor.lane
        assert isinstance(lane, ZygoteLane)
        for number in range(3):
            os.kill(lane._zygotes[-1].process.pid, signal.SIGKILL)
            assert own.run(f"print({number})").stdout == f"{number}\n"
    finally:
        executor.close()


def test_cancelled_while_it_has_no_process(own: Tasks) -> None:
    executor = own.executor
    assert isinstance(executor, LocalExecutor)
    own.run("1")
    kill_waiting(executor)
    spec, handle = own.submit("import time\ntime.sleep(600)")
    handle.cancel(0.0)
    assert own.finish(spec, handle).failure.kind == "cancelled"


DEADLY = (
    "%%setup\nimport os, signal\nwith open('tries', 'a') as tries:\n    tries.write('x')\n"
    "if os.path.getsize('tries') <= {times}:\n    os.kill(os.getpid(), signal.SIGKILL)"
)


def run(folder: Path, times: int, step: str) -> tuple[nbflow.Run, int]:
    path = folder / "flow.ipynb"
    cells = {"setup": DEADLY.format(times=times), "step": step}
    path.write_text(document_of(cells.items(), "flow"))
    found = nbflow.run(path, store=str(folder / "store"))
    return found, (folder / "tries").stat().st_size


STEP = "%%step work\nwith open('begun', 'a') as begun:\n    begun.write('x')\nleft = os.getpid()"


def test_no_attempt_is_counted(tmp_path: Path) -> None:
    found, tries = run(tmp_path, 2, STEP)
    assert found.successful, found.error
    assert (found["work"].task.attempt, len(found["work"].task.attempts), tries) == (1, 1, 3)
    assert (tmp_path / "begun").read_text() == "x"


def test_it_is_not_tried_for_ever(tmp_path: Path) -> None:
    found, tries = run(tmp_path, 100, STEP)
    assert (found.status, tries) == ("failed", 4)
    assert "SIGKILL" in str(found.error)
    assert "3 before it ended too, each while definitions, set-up and inputs were made ready" in str(found.error)
    assert not (tmp_path / "begun").exists()


def test_a_task_that_has_begun_is_never_run_twice(tmp_path: Path) -> None:
    found, tries = run(tmp_path, 0, f"{STEP}\nos.kill(os.getpid(), signal.SIGKILL)")
    assert (found.status, tries) == ("failed", 1)
    assert (tmp_path / "begun").read_text() == "x"
