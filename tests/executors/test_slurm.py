"""A real Slurm on this machine: what every executor promises, and how Slurm's own ways are told to a user."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow.errors import ExecutorError, PlanError
from nbflow.executors.remote import handle as handles
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.executors.slurm import SlurmEngine
from nbflow.executors.slurm import executor as slurm_executor
from nbflow.model import Ended, HeldUp, Output
from nbflow.runs import launch
from tests.conformance.cluster import connected, refused
from tests.conformance.executor import ExecutorConformance, alive
from tests.support.drivers import pid_once_it_speaks
from tests.support.kernel import NotebookFile
from tests.support.slurm_server import is_installed, slurm
from tests.support.tasks import Tasks
from tests.whole.elsewhere import SOME, shows_the_same

pytestmark = [
    pytest.mark.remote,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not is_installed(), reason="needs root and Slurm: apt-get install slurm-wlm munge"),
]

WAIT = "import pathlib, time\nprint('go')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\nx = 42"


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN", "s3cr3t-value")  # for the conformance suite: jobs have the variables of who submits them
        with slurm(tmp_path_factory.mktemp("slurm")) as configuration:
            yield configuration


@pytest.fixture(scope="module")
def executor(configuration: Path) -> Iterator[RemoteExecutor]:
    with contextlib.closing(connected("slurm://debug?time=0:10:00")) as executor:
        yield executor


class TestSlurm(ExecutorConformance):
    """Every promise of an executor."""


def jobs(*words: str) -> list[str]:
    """Rows of the queue."""
    command = ["squeue", "--noheader", "--array", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


# ---------------------------------------------------------------- before a run


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("slurm://debug/x", "not a Slurm address"),
        ("slurm://debug:1", "not a Slurm address"),
        ("slurm://debug?tme=1:00", "no option 'tme'; did you mean 'time'?"),
    ],
)
def test_an_address_that_is_none(url: str, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        slurm_executor(url)
    assert said in caught.value.message


def test_no_such_partition(configuration: Path) -> None:
    with pytest.raises(ExecutorError, match=r"slurm://debgu: there is no such partition; did you mean 'debug'\?"):
        SlurmEngine("slurm://debgu").connect()


def test_no_slurm(configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExecutorError, match="there is no sbatch on this machine"):
        SlurmEngine("slurm://debug").connect()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--nodes 2", "--nodes 2: jobs of several nodes are not started here"),
        ("--gpu 0.5", "Slurm gives whole GPUs"),
        ("--gpu 1", "no node has 1 GPU; none has any"),
        ("--cpu 4000", "no node has 4000 cores"),
    ],
)
def test_what_cannot_run_is_refused_before(executor: RemoteExecutor, tmp_path: Path, options: str, said: str) -> None:
    assert said in refused(executor, tmp_path, options)


def test_what_slurm_refuses_is_told_in_its_words(configuration: Path, tmp_path: Path) -> None:
    with contextlib.closing(connected("slurm://debug?account=nobody&time=nonsense")) as executor:
        failure = Tasks(executor, tmp_path).run("x = 1").failure
    assert (failure.kind, failure.type) == ("lost", "ExecutorError")
    assert "Invalid --time specification" in failure.message


# ---------------------------------------------------------------- jobs


def test_what_is_submitted_together_is_one_array(tasks: Tasks) -> None:
    submitted = [tasks.submit(f"import os\nx = {n}\njob = os.environ['SLURM_ARRAY_JOB_ID']") for n in range(8)]
    done = [tasks.finish(*each) for each in submitted]
    assert [each.value("x") for each in done] == [*range(8)]
    assert len({each.value("job") for each in done}) == 1


def test_a_task_that_waits_says_for_what_and_is_taken_from_the_queue(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "PATIENCE", 1.0)
    busy = [tasks.submit(WAIT) for _ in range(os.cpu_count() or 1)]
    for _, handle in busy:
        pid_once_it_speaks(handle)
    _, waiting = tasks.submit("x = 1")
    events = waiting.events()
    held = next(events)
    assert isinstance(held, HeldUp)
    assert "slurm://debug: waits for free nodes (Resources)" in held.reason
    waiting.cancel(0.0)
    ended = [*events][-1]
    assert isinstance(ended, Ended)
    assert ended.result.failure is not None
    assert ended.result.failure.kind == "cancelled"
    (tasks.folder / "go").touch()
    assert {tasks.finish(*each).value("x") for each in busy} == {42}


def test_a_job_that_is_preempted_is_a_lost_attempt(tasks: Tasks) -> None:
    """Slurm would begin it again once the other job is done: it does not, and `--retry` decides."""
    _, handle = tasks.submit("import time\nopen('ran', 'a').write('x')\nprint('go')\ntime.sleep(60)")
    for event in handle.events():
        if isinstance(event, Output):
            command = ["sbatch", "--partition=first", "--exclusive", "--output=/dev/null", "--wrap=true"]
            subprocess.run(command, check=True, capture_output=True)
        if isinstance(event, Ended):
            assert event.result.failure is not None
            assert event.result.failure.kind == "lost"
            assert "preempted" in event.result.failure.message
    assert tasks.run("x = 1").value("x") == 1
    assert (tasks.folder / "ran").read_text() == "x"


def test_a_job_that_somebody_cancels_is_not_submitted_again(tasks: Tasks) -> None:
    spec, handle = tasks.submit("import time\nprint('go')\ntime.sleep(60)")
    pid_once_it_speaks(handle)
    (job,) = jobs("--format=%i", "--states=RUNNING")
    subprocess.run(["scancel", job], check=True)
    failure = tasks.finish(spec, handle).failure
    assert failure.kind in {"lost", "cancelled"}


def test_a_worker_that_cannot_start_says_why(configuration: Path, tmp_path: Path) -> None:
    with contextlib.closing(connected("slurm://debug?python=/nowhere/python")) as executor:
        failure = Tasks(executor, tmp_path).run("x = 1").failure
    assert failure.kind == "lost"
    assert "/nowhere/python: not found" in failure.message


def test_a_task_outlives_its_driver(configuration: Path, tmp_path: Path) -> None:
    first = connected("slurm://debug")
    spec, handle = Tasks(first, tmp_path).submit(WAIT)
    pid = pid_once_it_speaks(handle)
    first.engine.close()
    assert alive(pid)
    (tmp_path / "go").touch()
    with contextlib.closing(connected("slurm://debug")) as second:
        assert Tasks(second, tmp_path).finish(spec, second.submit(spec)).value("x") == 42


@pytest.mark.parametrize("name", SOME[::4])
def test_every_cell_shows_there_what_it_shows_here(
    name: str, configuration: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # jobs have the variables of who submits them
    with launch.Executors("slurm://debug?time=0:10:00") as executors:
        shows_the_same(name, executors, tmp_path)


def test_a_whole_flow(configuration: Path, tmp_path: Path) -> None:
    cells = {
        "a": "%%step a\nxs = list(range(6))",
        "b": "%%step b --foreach x in xs\nimport os\ny = x * x\nprint('item', x)\n"
             "job = os.environ['SLURM_ARRAY_JOB_ID']",
        "j": "%%step j --join b\ntotal = sum(each.y for each in inputs)\njobs = {each.job for each in inputs}",
    }  # fmt: skip
    run = nbflow.run(NotebookFile(tmp_path / "flow.ipynb", cells).path, on="slurm://debug?time=0:10:00")
    assert run.status == "done", run.error
    assert run.data.total == 55
    assert len(run.data.jobs) == 1  # one array for the whole fan-out
    assert [task.stdout for task in run["b"].tasks] == [f"item {x}\n" for x in range(6)]
