"""kill -9 of a worker, of the driver and of the kernel, anywhere in a run: what had finished counts, nothing else does.

NBFLOW_KILLS says how many random moments are tried (`make soak`: hundreds).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow import Flow
from nbflow.flow.notebook import document_of
from nbflow.runs import client
from nbflow.store import records
from nbflow.store.artifacts import hash_of, is_whole
from nbflow.store.location import open_store
from tests.support.kernel import Kernel, NotebookFile

pytestmark = [pytest.mark.running, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

ROUNDS = int(os.environ.get("NBFLOW_KILLS", "2"))
SEED = int(os.environ.get("NBFLOW_SEED", "1"))

CELLS = {
    "ext": "%load_ext nbflow",
    "load": "%%step load\nimport numpy as np\nimport time\ntime.sleep(0.05)\nxs = np.arange(400_000.0)",
    "left": "%%step left\nprint('left\\n' * 50)\nys = xs * 2\ntime.sleep(0.1)\na = float(ys.sum())",
    "right": "%%step right\nzs = [xs + i for i in range(3)]\ntime.sleep(0.1)\nb = float(sum(z.sum() for z in zs))",
    "each": "%%step each --foreach i in range(6)\ntime.sleep(0.03)\npart = xs[:1000 * (i + 1)] + i",
    "join": "%%step join --join each\ntotal = float(sum(entry.part.sum() for entry in inputs))",
    "end": "%%step end\nresult = (a, b, total)",
}
RESULT = (
    float(sum(range(400_000)) * 2),
    float(sum(range(400_000)) * 3 + 3 * 400_000),
    float(sum(sum(range(1000 * (i + 1))) + 1000 * (i + 1) * i for i in range(6))),
)
TASKS = 11


@dataclass
class Place:
    """A folder with the notebook, and the store beside it."""

    folder: Path

    def __post_init__(self) -> None:
        self.path = self.folder / "flow.ipynb"
        self.path.write_text(document_of(CELLS.items(), "flow"), encoding="utf-8")
        self.store = str(self.folder / "store")

    @contextlib.contextmanager
    def driver(self) -> Iterator[subprocess.Popen[bytes]]:
        """`nbflow run` in a process of its own, killed at the end if it still lives."""
        command = [
            sys.executable,
            "-m",
            "nbflow",
            "run",
            str(self.path),
            "--store",
            self.store,
            "--json",
            "--workers",
            "2",
        ]
        with (self.folder / "out").open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def told(self) -> list[dict[str, Any]]:
        """Whole lines that the last driver wrote."""
        lines = (self.folder / "out").read_text(errors="replace").splitlines()
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


@pytest.fixture
def place(tmp_path: Path, own_cache: None) -> Place:
    return Place(tmp_path)


# ---------------------------------------------------------------- processes


def parents() -> dict[int, int]:
    """Every process's parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def below(pid: int) -> set[int]:
    """All processes that descend from one."""
    known, found = parents(), {pid}
    while True:
        more = {child for child, parent in known.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return (Path(f"/proc/{pid}") / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_gone(pids: set[int], seconds: float = 10.0) -> bool:
    """Whether these processes end by themselves."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(alive, pids))


# ---------------------------------------------------------------- what must hold afterwards


def executions(place: Place) -> set[tuple[str, tuple[int, ...]]]:
    """The tasks that have a record: (step, index); lists of items left out."""
    found = records.all_records(open_store(place.store))
    return {
        (record.step, record.index)
        for record in found
        if "[]" not in record.execution and "%5B" not in record.execution
    }


def check_store(place: Place, *states: str) -> None:
    """The store lists and reads cleanly, and every record in it is whole and loads."""
    store = open_store(place.store)
    found = list(records.all_records(store))
    assert len(found) == len([entry for entry in store.list("results") if entry.path.endswith(".json")])
    for record in found:
        assert is_whole(store, record.groups), f"{record.execution} names bytes that are not there"
    for entry in store.list("segments"):
        data = store.read(entry.path)
        assert entry.path.endswith(hash_of(data).partition(":")[2]), f"{entry.path} holds other bytes"
    for one in client.list_runs(place.store):
        run = client.Run(f"{one.flow}/{one.run}", place.store)
        assert run.status in ("done", "failed", "cancelled", "lost", *states), run.status
        assert repr(run)
        for task in (task for step in run.steps() for task in step.tasks):
            assert isinstance(task.stdout, str)
            if task.state in ("done", "reused"):
                assert [artifact.value is not None for artifact in task.artifacts.values()]


def finish(place: Place) -> client.Run:
    """Run the flow to its end: what has a record is reused, everything else runs, the values are right."""
    check_store(place)
    before = executions(place)
    earlier = client.list_runs(place.store)
    run = nbflow.run(place.path, store=place.store)
    assert run.successful, run.error
    assert run.data.result == RESULT
    states = {(task.step, task.index): task.state for step in run.steps() for task in step.tasks}
    assert len(states) == TASKS
    assert {at: state for at, state in states.items() if state != "done"} == dict.fromkeys(before, "reused")
    told = [finding.message for finding in run.snapshot.findings if finding.code == "lost-run"]
    if earlier and earlier[0].status == "lost":
        assert len(told) == 1
        assert earlier[0].run in told[0]
        assert "killed" in told[0]
    else:
        assert told == []
    check_store(place)
    return run


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    """Wait until a condition holds or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)


# ---------------------------------------------------------------- the driver


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_driver_is_killed(number: int, place: Place) -> None:
    rng = random.Random(f"driver {SEED} {number}")
    for _ in range(rng.choice([1, 1, 2])):
        lines = rng.randrange(0, 34)
        with place.driver() as process:
            wait_for(lambda lines=lines: len(place.told()) >= lines, process)
            time.sleep(rng.random() * (0.5 if lines == 0 else 0.05))
            family = below(process.pid)
            kill(process.pid)
            process.wait()
            assert all_gone(family), "processes of a killed run are left"
        check_store(place)
    finish(place)


def test_the_driver_is_killed_after_the_result_and_before_the_end(place: Place) -> None:
    with place.driver() as process:
        wait_for(lambda: ("left", ()) in executions(place), process)
        kill(process.pid)
        process.wait()
    before = executions(place)
    assert ("left", ()) in before
    assert ("end", ()) not in before
    run = finish(place)
    assert run["left"].task.stdout == "left\n" * 50 + "\n", "what a reused task printed comes with it"


# ---------------------------------------------------------------- workers


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_worker_is_killed(number: int, place: Place) -> None:
    rng = random.Random(f"worker {SEED} {number}")
    lines = rng.randrange(3, 30)
    with place.driver() as process:
        wait_for(lambda: len(place.told()) >= lines, process)
        time.sleep(rng.random() * 0.05)
        family = sorted(below(process.pid))
        if family:
            kill(rng.choice(family))
        assert process.wait(60) in (0, 1), place.told()
        assert all_gone(set(family)), "processes of a run are left"
    summary = place.told()[-1]
    assert summary["kind"] == "summary"
    if summary["status"] == "failed":
        assert "WorkerLost" in summary["error"], summary
        assert re.search("SIGKILL|killed", summary["error"]), summary
    finish(place)


def test_a_killed_task_is_tried_again(place: Place) -> None:
    source = "import os, signal\nfrom nbflow import current\nprint(current.attempt)\n"
    cells = {
        "a": f"%%step a --retry 2\n{source}if current.attempt < 3:\n    os.kill(os.getpid(), signal.SIGKILL)\nx = 1",
        "b": "%%step b\ny = x + 1",
    }
    place.path.write_text(document_of(cells.items(), "flow"), encoding="utf-8")
    run = nbflow.run(place.path, store=place.store)
    assert run.successful, run.error
    task = run["a"].task
    assert (task.attempt, task.stdout) == (3, "3\n")
    assert [one.stdout for one in task.attempts] == ["1\n", "2\n", "3\n"]
    assert [one.error is not None and one.error.type for one in task.attempts] == ["WorkerLost", "WorkerLost", False]
    check_store(place)


# ---------------------------------------------------------------- the kernel


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 2)))
def test_the_kernel_is_killed_in_a_flow_run(number: int, place: Place) -> None:
    rng = random.Random(f"kernel {SEED} {number}")
    with Kernel(NotebookFile(place.path, CELLS), env={"NBFLOW_STORE": place.store}) as kernel:
        provisioner: Any = kernel.manager.provisioner
        pid = provisioner.process.pid
        sent = kernel.send("%flow run")
        end = time.monotonic() + rng.random() * 2.0
        with contextlib.suppress(TimeoutError):
            kernel.collect(sent, timeout=max(0.0, end - time.monotonic()))
        family = below(pid)
        kill(pid)
        assert all_gone(family), "processes of a killed kernel are left"
        kernel.kill()
        check_store(place)
        before = executions(place)
        assert kernel.execute("%flow run", timeout=100).status == "ok"
        assert kernel.value("result") == repr(RESULT)
        assert executions(place) >= before
    finish(place)


def test_the_kernel_is_killed_in_a_cell(place: Place) -> None:
    cells = {**CELLS, "load": "%%step load\nimport time\nimport numpy as np\nxs = np.arange(400_000.0)"}
    cells["left"] = cells["left"] + "\nprint('here', flush=True)\ntime.sleep(60 * (not marked()))"
    cells["setup"] = "import pathlib\n\ndef marked():\n    return pathlib.Path('mark').exists()"
    order = ("ext", "load", "setup", "left", "right")
    notebook = NotebookFile(place.path, {name: cells[name] for name in order})
    with Kernel(notebook, env={"NBFLOW_STORE": place.store}) as kernel:
        provisioner: Any = kernel.manager.provisioner
        kernel.ok("load", "setup")
        sent = kernel.send(cells["left"], "left")
        with contextlib.suppress(TimeoutError):
            kernel.collect(sent, timeout=3.0)
        kill(provisioner.process.pid)
        kernel.kill()
        check_store(place)
        (place.folder / "mark").touch()
        shown = kernel.ok("load")
        assert "reused" in shown.text
        assert "reused" not in kernel.ok("setup", "left").text
        assert kernel.value("a") == repr(RESULT[0])
        check_store(place, "running")


def test_latest_run_after_a_kill(place: Place) -> None:
    with place.driver() as process:
        wait_for(lambda: ("load", ()) in executions(place), process)
        kill(process.pid)
        process.wait()
    lost = Flow("flow", place.store).latest_run
    assert lost is not None
    assert (lost.status, lost.finished, lost.successful) == ("lost", True, False)
    assert Flow("flow", place.store).latest_successful_run is None
    finish(place)
