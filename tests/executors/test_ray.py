"""A real Ray cluster on this machine: what every executor promises, and how Ray's own ways are told to a user."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.errors import ExecutorError, PlanError
from nbflow.executors.ray import RayEngine
from nbflow.executors.ray import executor as ray_executor
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.model import Ended, Output, Started, StepOptions
from tests.conformance.cluster import ClusterConformance
from tests.conformance.executor import wait_gone
from tests.support.processes import processes_above
from tests.support.servers import RayCluster, end_group, free_port
from tests.support.tasks import Tasks
from tests.support.waiting import eventually

pytest.importorskip("ray", reason="Ray has an environment of its own: make remote")

pytestmark = [pytest.mark.remote, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    cluster = RayCluster(tmp_path_factory.mktemp("r") / "ray", {"TOKEN": "s3cr3t-value"})  # for the conformance suite
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def executor(cluster: RayCluster) -> Iterator[RemoteExecutor]:
    executor = ray_executor(cluster.url)
    yield executor
    executor.close()


@pytest.fixture
def tasks(executor: RemoteExecutor, tmp_path: Path) -> Tasks:
    return Tasks(executor, tmp_path)


class TestRay(ClusterConformance):
    """Every promise of an executor, and of a cluster."""


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize("url", ["ray://", "ray:host", "ray://host:port", "ray://user:secret@host:1", "ray://host/x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(PlanError, match="not a Ray address") as caught:
        ray_executor(url)
    assert "secret" not in caught.value.message


def test_nobody_listens() -> None:
    with pytest.raises(ExecutorError, match="nothing answers at ray://127"):
        RayEngine(f"ray://127.0.0.1:{free_port()}").connect()
    with pytest.raises(ExecutorError, match=r"nothing answers at ray://no-such-host\.invalid:10001"):
        RayEngine("ray://no-such-host.invalid").connect()


def test_something_else_listens(cluster: RayCluster) -> None:
    with pytest.raises(ExecutorError, match="answers, but not as a Ray client server") as caught:
        RayEngine(f"ray://{socket.gethostbyname(socket.gethostname())}:{cluster.port}").connect()
    assert "10001" in (caught.value.fix or "")


def test_the_users_own_ray_is_left_alone(cluster: RayCluster) -> None:
    import ray

    engine = RayEngine(cluster.url)
    before = signal.getsignal(signal.SIGTERM)
    engine.connect()
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before
    engine.close()


# ---------------------------------------------------------------- ends


def ray_worker_of(pid: int) -> int:
    """The worker process of Ray in which a task's process is supervised."""
    for above in processes_above(pid):
        if Path(f"/proc/{above}/cmdline").read_bytes().startswith(b"ray::"):
            return above
    raise AssertionError(f"{pid} is not below a worker of Ray")


def test_a_worker_of_ray_that_is_killed_takes_its_task_with_it(tasks: Tasks) -> None:
    _, handle = tasks.submit("import time\nprint('go')\ntime.sleep(60)")
    pid = 0
    for event in handle.events():
        if isinstance(event, Started):
            pid = event.pid
        if isinstance(event, Output):
            os.kill(ray_worker_of(pid), signal.SIGKILL)
        if isinstance(event, Ended):
            assert event.result.failure is not None
            assert (event.result.failure.type, event.result.failure.kind) == ("WorkerLost", "lost")
            assert "killed" in event.result.failure.message
    assert wait_gone(pid)
    assert tasks.run("x = 1").value("x") == 1


def test_a_node_that_dies(cluster: RayCluster, executor: RemoteExecutor, tmp_path: Path) -> None:
    """Its task is lost, and that is told; the cluster goes on."""
    node = cluster.add(cpus=4)
    with contextlib.ExitStack() as stack:
        stack.callback(end_group, node)
        eventually(lambda: any(room.cpu == 4 for room in executor.engine.nodes()), 90)
        tasks = Tasks(executor, tmp_path)
        _, handle = tasks.submit("import time\nprint('go')\ntime.sleep(90)", options=StepOptions(cpu=4))
        for event in handle.events():
            if isinstance(event, Output):
                end_group(node)
            if isinstance(event, Ended):
                assert event.result.failure is not None
                assert event.result.failure.kind == "lost"
                assert event.result.failure.type == "WorkerLost"
    assert Tasks(executor, tmp_path).run("x = 1").value("x") == 1
