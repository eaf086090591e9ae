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
from nbflow.executors.remote import handle as handles
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.model import Ended, HeldUp, Noticed, Output, Started, StepOptions
from tests.conformance.executor import ExecutorConformance, alive, wait_gone
from tests.support.drivers import pid_once_it_speaks
from tests.support.kernel import NotebookFile
from tests.support.servers import Link, RayCluster, end_group, free_port
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


class TestRay(ExecutorConformance):
    """Every promise of an executor."""


# ---------------------------------------------------------------- resources


def test_gpus_are_shared_out(tasks: Tasks) -> None:
    source = (
        "import os, pathlib, time\ng = os.environ['CUDA_VISIBLE_DEVICES']\npathlib.Path(f'gpu-{g}').touch()\n"
        "while len(list(pathlib.Path().glob('gpu-*'))) < 2:\n    time.sleep(0.05)"
    )
    both = [tasks.submit(source, options=StepOptions(gpu=1.0, cpu=0.5)) for _ in range(2)]
    assert {tasks.finish(*each).value("g") for each in both} == {"0", "1"}
    assert tasks.run("import os\nos.environ['CUDA_VISIBLE_DEVICES']", options=StepOptions(gpu=2.0)).shown == "'0,1'"


def test_a_task_that_waits_says_for_what(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "PATIENCE", 1.0)
    first = tasks.submit(
        "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)",
        options=StepOptions(gpu=2.0),
    )
    assert isinstance(next(first[1].events()), Started)
    _, second = tasks.submit("x = 1", options=StepOptions(gpu=1.0))
    events = second.events()
    held = next(events)
    assert isinstance(held, HeldUp)
    assert "1 GPUs wanted, 0 free" in held.reason
    (tasks.folder / "go").touch()
    assert isinstance([*events][-1], Ended)
    assert tasks.finish(*first).result.failure is None


def test_a_task_that_waits_is_taken_from_the_queue(tasks: Tasks) -> None:
    first = tasks.submit("import time\nprint('go')\ntime.sleep(60)", options=StepOptions(gpu=2.0))
    for event in first[1].events():
        if isinstance(event, Output):
            break
    _, second = tasks.submit("x = 1", options=StepOptions(gpu=2.0))
    second.cancel(0.0)
    ended = [*second.events()][-1]
    assert isinstance(ended, Ended)
    assert ended.result.failure is not None
    assert ended.result.failure.kind == "cancelled"
    first[1].cancel(0.0)
    assert tasks.finish(*first).failure.kind == "cancelled"


def test_what_no_node_has_is_known_before(executor: RemoteExecutor, tmp_path: Path) -> None:
    flow = build_flow(read_notebook(NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a --gpu 8\nx = 1"}).path))
    with pytest.raises(PlanError, match="no node has 8 GPUs; the largest has 2"):
        executor.check(flow.steps)


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


def parents(pid: int) -> list[int]:
    """The processes above one, as far as they can be told."""
    above = []
    with contextlib.suppress(OSError):
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            above.append(pid)
    return above


def ray_worker_of(pid: int) -> int:
    """The worker process of Ray in which a task's process is supervised."""
    for above in parents(pid):
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


def test_a_task_outlives_its_driver(cluster: RayCluster, tmp_path: Path) -> None:
    """The driver goes without a word; another one takes the result from the datastore, from a task that went on."""
    first = ray_executor(cluster.url)
    tasks = Tasks(first, tmp_path)
    spec, handle = tasks.submit(
        "import pathlib, time\nprint('go')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\nx = 42"
    )
    pid = pid_once_it_speaks(handle)
    first.engine.close()
    assert alive(pid)
    (tmp_path / "go").touch()
    second = ray_executor(cluster.url)
    try:
        done = Tasks(second, tmp_path).finish(spec, second.submit(spec))
        assert done.value("x") == 42
        assert done.live() == "go\n"
    finally:
        second.close()


def test_a_link_that_is_cut_loses_nothing_and_is_told(cluster: RayCluster, tmp_path: Path) -> None:
    """What ends meanwhile counts at once, what is submitted meanwhile begins once it is healed."""
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(contextlib.closing(Link(cluster.client_port)))
        executor = ray_executor(f"ray://127.0.0.1:{link.port}")
        stack.callback(executor.close)
        stack.callback(link.heal)
        tasks = Tasks(executor, tmp_path)
        wait = "import pathlib, time\nprint('go')\nwhile not pathlib.Path('{}').exists():\n    time.sleep(0.05)\nx = 1"
        first, second = (tasks.submit(wait.format(name)) for name in ("first", "second"))
        for _, handle in (first, second):
            assert any(isinstance(event, Output) for event in handle.events())
        link.cut()
        (tmp_path / "first").touch()
        assert tasks.finish(*first).value("x") == 1
        told = next(event for event in second[1].events() if isinstance(event, Noticed))
        assert "has not answered for 20 s" in told.finding.message
        link.heal()
        told = next(event for event in second[1].events() if isinstance(event, Noticed))
        assert "answers again" in told.finding.message
        (tmp_path / "second").touch()
        assert tasks.finish(*second).value("x") == 1
        assert tasks.run("x = 2").value("x") == 2


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
