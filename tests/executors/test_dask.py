"""A real Dask cluster on this machine: what every executor promises, and how Dask's own ways are told to a user."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.errors import ExecutorError, PlanError
from nbflow.executors.dask import DaskEngine
from nbflow.executors.dask import executor as dask_executor
from nbflow.executors.remote import handle as handles
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.model import Ended, Output, Started
from tests.conformance.cluster import ClusterConformance, connected, refused
from tests.conformance.executor import wait_gone
from tests.support.clusters import DaskCluster
from tests.support.processes import processes_above
from tests.support.servers import end_group, free_port
from tests.support.tasks import Tasks

pytest.importorskip("distributed", reason="Dask has an environment of its own: make remote")

pytestmark = [
    pytest.mark.remote, pytest.mark.timeout(300),
    # Dask's client leaves sockets to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask"), TOKEN="s3cr3t-value") as cluster:  # for the conformance suite
        cluster.start()
        cluster.add()
        yield cluster


class TestDask(ClusterConformance):
    """Every promise of an executor, and of a cluster."""


# ---------------------------------------------------------------- what Dask cannot do


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--nodes 2", "Dask starts no tasks together on several nodes (--nodes 2)"),
        ("--gpu 0.5", "Dask counts whole GPUs (--gpu 0.5)"),
        ("--cpu 2", "Dask gives each task one thread, and workers there do not count cores (--cpu 2)"),
    ],
)
def test_what_dask_cannot_do_is_refused_before(
    executor: RemoteExecutor, tmp_path: Path, options: str, said: str
) -> None:
    assert said in refused(executor, tmp_path, options)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("url", ["dask://", "dask:host", "dask://host:port", "dask://u:secret@host:1", "dask://host/x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(PlanError, match="not a Dask address") as caught:
        dask_executor(url)
    assert "secret" not in caught.value.message


def test_nobody_listens() -> None:
    with pytest.raises(ExecutorError, match="nothing answers at dask://127"):
        DaskEngine(f"dask://127.0.0.1:{free_port()}").connect()


def test_something_else_listens(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's own port, and one that says nothing of Dask's."""
    monkeypatch.setattr("nbflow.executors.dask.CONNECT", 1.0)
    worker = cluster.log(1).partition("Start worker at:")[2].split()[0].rpartition(":")[2]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (worker, silent.getsockname()[1]):
            with pytest.raises(ExecutorError, match="answers, but not as a Dask scheduler") as caught:
                DaskEngine(f"dask://127.0.0.1:{port}").connect()
            assert "8786" in (caught.value.fix or "")


def test_another_version(tmp_path: Path) -> None:
    preload = tmp_path / "older.py"
    preload.write_text(
        "from distributed import versions\nversions.get_package_info = lambda names: {'distributed': '2020.1.0'}\n"
    )
    with DaskCluster(tmp_path) as cluster:
        cluster.start("--preload", str(preload))
        with pytest.raises(ExecutorError, match=r"has distributed 2020\.1\.0, this notebook has 20") as caught:
            DaskEngine(cluster.url).connect()
        assert "same distributed on both sides" in (caught.value.fix or "")


def test_the_users_own_dask_is_left_alone(cluster: DaskCluster) -> None:
    import distributed

    engine = DaskEngine(cluster.url)
    engine.connect()
    with pytest.raises(ValueError, match="No clients found"):
        distributed.default_client()
    engine.close()


# ---------------------------------------------------------------- ends


def test_a_scheduler_that_is_started_anew_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbflow.executors.remote.executor.START_EVERY", 0.5)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(DaskCluster(tmp_path))
        cluster.start()
        cluster.add()
        tasks = Tasks(stack.enter_context(contextlib.closing(connected(cluster.url))), tmp_path)
        assert tasks.run("x = 1").value("x") == 1
        cluster.stop()
        submitted = tasks.submit("x = 2")  # it waits for the place
        cluster.processes.clear()
        cluster.start()
        cluster.add()
        assert tasks.finish(*submitted).value("x") == 2


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that Dask has lost counts as gone after a moment without a sign of life."""
    monkeypatch.setattr(handles, "GIVEN_UP", 1.0)


@pytest.mark.usefixtures("short_silence")
def test_a_worker_that_is_killed_takes_its_task_with_it(tasks: Tasks) -> None:
    """It is not begun a second time, though Dask would; the nanny starts another worker."""
    _, handle = tasks.submit("import time\nopen('ran', 'a').write('x')\nprint('go')\ntime.sleep(60)")
    pid = 0
    for event in handle.events():
        if isinstance(event, Started):
            pid = event.pid
        if isinstance(event, Output):
            _, worker = processes_above(pid)[:2]
            os.kill(worker, signal.SIGKILL)
        if isinstance(event, Ended):
            assert event.result.failure is not None
            assert (event.result.failure.type, event.result.failure.kind) == ("WorkerLost", "lost")
            assert "was killed" in event.result.failure.message
    assert wait_gone(pid)
    assert tasks.run("x = 1").value("x") == 1
    assert (tasks.folder / "ran").read_text() == "x"


@pytest.mark.usefixtures("short_silence")
def test_a_worker_that_goes_for_good(cluster: DaskCluster, executor: RemoteExecutor, tmp_path: Path) -> None:
    """What it was given and had not begun goes to another one."""
    with contextlib.ExitStack() as stack:
        second = cluster.add(threads=1, gpus=0)
        stack.callback(end_group, second)
        tasks = Tasks(executor, tmp_path)
        wait = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\nx = 1"
        waiting = [tasks.submit(wait) for _ in range(3)]
        for _, handle in waiting:
            assert isinstance(next(handle.events()), Started)
        more = [tasks.submit("x = 2") for _ in range(3)]
        end_group(second)
        (tmp_path / "go").touch()
        failures = [tasks.finish(*each).result.failure for each in waiting]
        assert sorted(failure.kind if failure else "" for failure in failures) == ["", "", "lost"]
        assert [tasks.finish(*each).value("x") for each in more] == [2, 2, 2]
