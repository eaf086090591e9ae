"""The zygote lane: what every executor does, and what its own processes must survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.executors.local import LocalExecutor
from nbflow.executors.zygote import ZygoteLane
from nbflow.model import Ended, Output, Started
from tests.conformance.executor import ExecutorConformance, wait_gone
from tests.support.places import ROOT
from tests.support.tasks import Tasks
from tests.support.waiting import eventually

pytestmark = [pytest.mark.running, pytest.mark.skipif(sys.platform != "linux", reason="forks from a zygote")]


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(lane="zygote")
    yield executor
    executor.close()


def zygote_pid(executor: LocalExecutor) -> int:
    lane = executor.lane
    assert isinstance(lane, ZygoteLane)
    return lane._zygotes[-1].process.pid


class TestZygote(ExecutorConformance):
    """Forked from one zygote."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Tasks]:
    """An executor of the test's own."""
    executor = LocalExecutor(lane="zygote")
    yield Tasks(executor, tmp_path)
    executor.close()


def test_modules_are_preloaded(own: Tasks) -> None:
    own.run("1", preload=("decimal", "no_such_module"))
    done = own.run("import sys\n'decimal' in sys.modules")
    assert done.shown == "True"


def test_modules_of_the_folder_are_not_preloaded(own: Tasks) -> None:
    (own.folder / "mine.py").write_text("value = 1\n")
    assert own.run("import mine\nmine.value", preload=("mine",)).shown == "1"
    (own.folder / "mine.py").write_text("value = 22\n")
    assert own.run("import mine\nmine.value", preload=("mine",)).shown == "22"


def test_new_modules_start_a_new_zygote_beside_the_old_one(own: Tasks) -> None:
    executor = own.executor
    assert isinstance(executor, LocalExecutor)
    assert isinstance(executor.lane, ZygoteLane)
    own.run("1")
    first = zygote_pid(executor)
    spec, running = own.submit(
        "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.01)\nprint('still here')"
    )
    own.run("1", preload=("decimal",))
    assert executor.lane._zygotes[-1].ready.wait(20)
    assert own.run("import sys\n'decimal' in sys.modules", preload=("decimal",)).shown == "True"
    assert zygote_pid(executor) != first
    (own.folder / "go").touch()
    assert own.finish(spec, running).stdout == "still here\n"
    assert wait_gone(first)


def test_a_module_that_starts_threads_is_left_out(own: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "threadful.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    done = own.run(
        "import sys\n('threadful' in sys.modules, 'decimal' in sys.modules)", preload=("decimal", "threadful")
    )
    assert done.shown == "(False, True)"
    assert isinstance(own.executor, LocalExecutor)
    assert isinstance(own.executor.lane, ZygoteLane)
    assert own.executor.lane._zygotes[-1].unsafe == {"threadful"}


def test_a_module_that_breaks_the_zygote_is_left_out(
    own: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "deadly.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    assert own.run("6 * 7", preload=("deadly",)).shown == "42"
    assert own.run("6 * 8", preload=("deadly",)).shown == "48"


def test_the_zygote_killed(own: Tasks) -> None:
    executor = own.executor
    assert isinstance(executor, LocalExecutor)
    spec, handle = own.submit(
        "import subprocess, time\np = subprocess.Popen(['sleep', '60'])\nprint(p.pid)\ntime.sleep(60)"
    )
    pids = []
    for event in handle.events():
        if isinstance(event, Started):
            pids.append(event.pid)
        if isinstance(event, Output):
            pids.append(int(event.output["text"]))
            os.kill(zygote_pid(executor), signal.SIGKILL)
        if isinstance(event, Ended):
            assert event.result.failure is not None
            assert event.result.failure.kind == "lost"
            assert spec.cell == event.result.failure.cell
    assert len(pids) == 2
    assert all(map(wait_gone, pids))
    assert own.run("x = 1").result.failure is None, "a new zygote takes over"


DRIVER = """
import sys
from pathlib import Path
from nbflow.executors.local import LocalExecutor
from nbflow.model import Output, Started
from tests.support.tasks import Tasks
tasks = Tasks(LocalExecutor(lane=sys.argv[1]), Path(sys.argv[2]))
cell = "import subprocess, time\\np = subprocess.Popen(['sleep', '60'])\\nprint(p.pid)\\ntime.sleep(60)"
spec, handle = tasks.submit(cell)
for event in handle.events():
    if isinstance(event, Started):
        print(event.pid, flush=True)
    if isinstance(event, Output):
        print(event.output["text"], end="", flush=True)
"""


@pytest.mark.parametrize("lane", ["zygote", "spare"])
def test_the_driver_killed(lane: str, tmp_path: Path) -> None:
    root = ROOT
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), lane, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    assert driver.stdout is not None
    pids = [int(driver.stdout.readline()) for _ in range(2)]
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert all(map(wait_gone, pids))


def test_closing_ends_everything(tmp_path: Path) -> None:
    executor = LocalExecutor(lane="zygote")
    tasks = Tasks(executor, tmp_path)
    spec, handle = tasks.submit("import time\nprint('go')\ntime.sleep(60)")
    pid = 0
    zygote = 0
    for event in handle.events():
        if isinstance(event, Started):
            pid = event.pid
            zygote = zygote_pid(executor)
        if isinstance(event, Output):
            executor.close()
        if isinstance(event, Ended):
            assert event.result.failure is not None
    assert wait_gone(pid)
    assert wait_gone(zygote)
    assert spec.step == "s"


def test_strays_that_left_the_group_are_ended(own: Tasks) -> None:
    done = own.run("import os, subprocess\np = subprocess.Popen(['setsid', 'sleep', '88'])\nprint(p.pid)\nos._exit(1)")
    pid = int(done.stdout)
    assert wait_gone(pid)


def test_strays_are_ended_while_other_tasks_run(own: Tasks) -> None:
    spec, other = own.submit("import subprocess, time\np = subprocess.Popen(['sleep', '1.5'])\nprint(p.wait())")
    own_spec, handle = own.submit("import os, subprocess\np = subprocess.Popen(['setsid', 'sleep', '99'])\n"
                                  "print(p.pid, flush=True)\nos._exit(1)")  # fmt: skip
    assert wait_gone(int(own.finish(own_spec, handle).stdout))
    assert own.finish(spec, other).stdout == "0\n"


def test_latency(own: Tasks) -> None:
    """Not the benchmark: a wide bound that a broken spare or a busy loop would miss."""
    began = time.monotonic()
    own.run("1")
    assert time.monotonic() - began < 5.0
    time.sleep(1.0)
    seconds = sorted(own.run("1").seconds for _ in range(9))
    assert seconds[4] < 0.2


def test_nothing_is_left_after_many_tasks(own: Tasks) -> None:
    executor = own.executor
    assert isinstance(executor, LocalExecutor)
    for _ in range(30):
        own.run("x = 1")
    pid = zygote_pid(executor)

    def open_files() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    def children() -> list[str]:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    eventually(lambda: len(children()) <= 2)
    before = open_files()
    for _ in range(60):
        own.run("x = 1")
    eventually(lambda: open_files() <= before + 8 and len(children()) <= 2)
