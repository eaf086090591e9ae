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
from nbflow.model import Ended, HeldUp, Output, Started, StepOptions
from tests.conformance.cluster import ClusterConformance, connected, refused
from tests.conformance.executor import wait_gone
from tests.support.clusters import RayCluster
from tests.support.drivers import pid_once_it_speaks
from tests.support.processes import processes_above
from tests.support.servers import end_group, free_port
from tests.support.tasks import Tasks
from tests.support.waiting import eventually

pytest.importorskip("ray", reason="Ray has an environment of its own: make remote")

pytestmark = [pytest.mark.remote, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with RayCluster(tmp_path_factory.mktemp("r"), TOKEN="s3cr3t-value") as cluster:  # for the conformance suite
        cluster.start()
        yield cluster


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


# ---------------------------------------------------------------- several nodes together


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteExecutor]:
    """Two nodes of one core each."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(RayCluster(tmp_path_factory.mktemp("p")))
        cluster.start(cpus=1, gpus=0)
        cluster.add(cpus=1)
        executor = stack.enter_context(contextlib.closing(connected(cluster.url)))
        executor.engine.connect()
        eventually(lambda: len(executor.engine.nodes()) == 2, 90)
        yield executor


ALL_REDUCE = """\
import socket, struct
from nbflow import current
p = current.parallel
def all_reduce(value):
    address = (p.master_address, p.master_port)
    if p.rank == 0:
        with socket.create_server(('', p.master_port)) as server:
            others = [server.accept()[0] for _ in range(p.world_size - 1)]
        total = value + sum(struct.unpack('d', other.recv(8))[0] for other in others)
        for other in others:
            other.sendall(struct.pack('d', total))
            other.close()
        return total
    while True:
        try:
            with socket.create_connection(address, 1) as first:
                first.sendall(struct.pack('d', value))
                return struct.unpack('d', first.recv(8))[0]
        except ConnectionRefusedError:
            pass
total = all_reduce(10.0 ** (p.rank + 1))
print('rank', p.rank, 'of', p.world_size)
variables = p.environment
"""


def test_two_ranks_on_two_nodes_reduce_by_the_given_address(pair: RemoteExecutor, tmp_path: Path) -> None:
    tasks = Tasks(pair, tmp_path)
    done = tasks.run(ALL_REDUCE, options=StepOptions(nodes=2), outputs=("total", "variables"))
    assert done.result.failure is None, done.result.failure
    assert done.value("total") == 110.0
    assert done.live() == "rank 0 of 2\n"  # what the first one shows is what the step shows
    variables = done.value("variables")
    assert (variables["RANK"], variables["WORLD_SIZE"]) == ("0", "2")
    socket.create_server((variables["MASTER_ADDR"], 0)).close()  # it is an address of this machine
    assert tasks.run("x = 1").value("x") == 1  # both nodes are free again


def test_none_starts_before_all_are_there(
    pair: RemoteExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "PATIENCE", 1.0)
    tasks = Tasks(pair, tmp_path)
    first = tasks.submit(
        "import pathlib, time\nprint('go')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)"
    )
    pid_once_it_speaks(first[1])
    source = "from nbflow import current\nopen(f'began-{current.parallel.rank}', 'w').close()"
    both = tasks.submit(source, options=StepOptions(nodes=2))
    held = next(both[1].events())
    assert isinstance(held, HeldUp)
    assert "2 cores wanted, 1 free" in held.reason
    assert not [*tmp_path.glob("began-*")]
    (tmp_path / "go").touch()
    assert tasks.finish(*both).result.failure is None
    assert {path.name for path in tmp_path.glob("began-*")} == {"began-0", "began-1"}
    assert tasks.finish(*first).result.failure is None


DEATHS = {
    "an error": ("raise ValueError('no')", "ValueError", "error", "rank 1 of 2, on {host}: no"),
    "its process": ("os.kill(os.getpid(), 9)", "WorkerLost", "lost", "rank 1 of 2, on {host}: the task's process was"),
    "its worker of Ray": ("kill_worker()", "WorkerLost", "lost", "rank 1 of 2, on {host}: its process was ended"),
}  # fmt: skip


@pytest.mark.parametrize("death", DEATHS)
def test_the_death_of_one_ends_all_and_is_named(pair: RemoteExecutor, tmp_path: Path, death: str) -> None:
    what, kind, how, said = DEATHS[death]
    source = (
        "import os, pathlib, time\nfrom nbflow import current\n"
        "def kill_worker():\n"
        "    pid = os.getpid()\n"
        "    while not pathlib.Path(f'/proc/{pid}/cmdline').read_bytes().startswith(b'ray::'):\n"
        "        pid = int(pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])\n"
        "    os.kill(pid, 9)\n"
        "pathlib.Path(f'pid-{current.parallel.rank}').write_text(str(os.getpid()))\n"
        "while not pathlib.Path('pid-0').exists():\n    time.sleep(0.05)\n"
        f"if current.parallel.rank:\n    {what}\n    time.sleep(60)\n"
        "else:\n    time.sleep(60)"
    )
    done = Tasks(pair, tmp_path).run(source, options=StepOptions(nodes=2), outputs=())
    assert (done.failure.type, done.failure.kind) == (kind, how)
    assert said.format(host=socket.gethostname()) in done.failure.message
    assert done.seconds < 50  # the other one did not sleep to its end
    assert wait_gone(int((tmp_path / "pid-0").read_text()))
    assert wait_gone(int((tmp_path / "pid-1").read_text()))


def test_both_are_cancelled(pair: RemoteExecutor, tmp_path: Path) -> None:
    source = (
        "import os, pathlib, time\nfrom nbflow import current\n"
        "pathlib.Path(f'pid-{current.parallel.rank}').write_text(str(os.getpid()))\n"
        "while len(list(pathlib.Path().glob('pid-*'))) < 2:\n    time.sleep(0.05)\nprint('go')\ntime.sleep(60)"
    )
    done = Tasks(pair, tmp_path).cancel_when("go", 0.5, source, options=StepOptions(nodes=2))
    assert done.failure.kind == "cancelled"
    assert wait_gone(int((tmp_path / "pid-0").read_text()), 10)
    assert wait_gone(int((tmp_path / "pid-1").read_text()), 10)


def test_more_nodes_than_there_are(pair: RemoteExecutor, tmp_path: Path) -> None:
    assert "3 nodes are wanted; 2 of 2 has what the step asks for" in refused(pair, tmp_path, "--nodes 3")
