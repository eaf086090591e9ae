"""The box under the desk, on a real sshd: what executors promise, cut connections, and what is wrong in one message."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow.errors import ExecutorError
from nbflow.executors.remote import handle as handles
from nbflow.executors.remote import probe
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.executors.ssh.connection import Channel, Connection, parse_address
from nbflow.executors.ssh.engine import SshEngine
from nbflow.executors.ssh.engine import executor as ssh_executor
from nbflow.executors.ssh.messages import Request, SegmentPart
from nbflow.model import Ended, HeldUp, Output, Started, StepOptions
from nbflow.store import location
from tests.conformance.executor import ExecutorConformance, alive, wait_gone
from tests.support.drivers import pid_once_it_speaks
from tests.support.servers import free_port
from tests.support.ssh_server import SshServer, hiding, is_installed, serving
from tests.support.tasks import Tasks
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.remote,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not is_installed(), reason="needs OpenSSH's server and client: make remote"),
]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    folder = tmp_path_factory.mktemp("box")
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(serving(folder, NBFLOW_GPUS="2", TOKEN="s3cr3t-value"))


@pytest.fixture(scope="module")
def sharing(box: SshServer) -> Iterator[RemoteExecutor]:
    """Tasks on the box, which sees the datastore."""
    executor = ssh_executor(box.url)
    yield executor
    executor.close()


class Apart(SshEngine):
    """Its box sees none of the folders here."""

    def _reaches(self, *_: object) -> bool:
        return False


@pytest.fixture(scope="module")
def carrying(box: SshServer) -> Iterator[RemoteExecutor]:
    """Tasks on the box, whose values travel through the connection."""
    executor = RemoteExecutor(Apart(box.url))
    yield executor
    executor.close()


class TestSharedFolder(ExecutorConformance):
    """Every promise of an executor, where the box sees the datastore."""

    @pytest.fixture
    def executor(self, sharing: RemoteExecutor) -> RemoteExecutor:
        return sharing


class TestCarried(ExecutorConformance):
    """The same where values travel through the connection."""

    @pytest.fixture
    def executor(self, carrying: RemoteExecutor) -> RemoteExecutor:
        return carrying


@pytest.fixture(params=["sharing", "carrying"])
def executor(request: pytest.FixtureRequest) -> RemoteExecutor:
    executor: RemoteExecutor = request.getfixturevalue(request.param)
    return executor


# ---------------------------------------------------------------- what is wrong, in one message


def refused(url: str) -> ExecutorError:
    engine = SshEngine(url)
    with contextlib.closing(engine), pytest.raises(ExecutorError) as caught:
        engine.connect()
    assert caught.value.fix
    assert "Traceback" not in str(caught.value)
    return caught.value


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"ssh://box?python={path}"


def edited(folder: Path) -> Path:
    """A copy of nbflow with one line more."""
    package = Path(nbflow.__file__).parent
    shutil.copytree(package, folder / "tree" / "nbflow", ignore=shutil.ignore_patterns("labextension", "__pycache__"))
    with (folder / "tree" / "nbflow" / "model.py").open("a") as file:
        file.write("# edited\n")
    return folder / "tree"


WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "an unknown host key": (lambda _: "ssh://elsewhere", "the host key of ssh://elsewhere is not known here"),
    "a key that it does not know": (lambda _: "ssh://stranger", "ssh://stranger does not let this user in"),
    "a port where nobody listens": (lambda _: f"ssh://box:{free_port()}", "nothing listens at ssh://box"),
    "no such host": (lambda _: "ssh://no-such-host.invalid", "there is no host of the name no-such-host.invalid"),
    "no such Python": (lambda _: "ssh://box?python=/nowhere/python", "ssh://box has no /nowhere/python"),
    "another minor": (
        lambda folder: script(folder / "old", "echo 'nbflow desk: python 3.9'"),
        "is Python 3.9, this notebook has 3.1",
    ),
    "no nbflow": (
        lambda folder: script(folder / "bare", f'exec {os.path.realpath(sys.executable)} -I "$@"'),
        "has no nbflow",
    ),
    "nbflow of the same version and other code": (
        lambda folder: script(folder / "other", f'export PYTHONPATH={edited(folder)}; exec {sys.executable} "$@"'),
        "has no nbflow, or another one than",
    ),
    "no Python at all": (lambda folder: script(folder / "none", "echo no >&2; exit 3"), "cannot be used: no"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_box_is_told_in_one_message(box: SshServer, tmp_path: Path, what: str) -> None:
    url, said = WRONG[what]
    assert said in refused(url(tmp_path)).message


def test_a_machine_without_openssh(box: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_SSH", "/nowhere/ssh")
    assert "ssh cannot be started" in refused("ssh://box").message


@hiding
def test_a_disk_that_is_full_there_is_told(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    with serving(tmp_path, size="2m", hidden=(full,), NBFLOW_CACHE=str(full)) as box:
        executor = RemoteExecutor(Apart(box.url))
        with contextlib.closing(executor):
            tasks = Tasks(executor, tmp_path)
            failure = tasks.run("x = b'1234567' * 1_000_000").failure
            assert "no space left" in failure.message.lower()


def test_one_connection_is_made_however_many_ask_for_it(box: SshServer) -> None:
    connections = [Connection(parse_address(f"ssh://{getpass.getuser()}@box")) for _ in range(4)]
    threads = [threading.Thread(target=connection.open) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes())
    wanted = f"\0ControlPath={connections[0].socket}\0".encode()
    assert sum(wanted in command and b"\0-N\0" in command for command in commands) == 1
    box.cut(connections[0])


# ---------------------------------------------------------------- an environment of its own

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
NETWORK = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))}
TOOLS = "sh basename ln mkdir mktemp rm tar".split()


def path_with(folder: Path, programs: dict[str, str]) -> str:
    """A folder with a shell's tools and some programs, as all that a box has."""
    folder.mkdir()
    for name, place in {**{tool: shutil.which(tool) or "" for tool in TOOLS}, **programs}.items():
        (folder / name).symlink_to(place)
    return str(folder)


def test_a_box_without_python_and_without_uv(tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = path_with(tmp_path / "bin", {})
    with serving(_made(tmp_path / "box"), PATH=path, HOME=str(home), PYTHONPATH=""):
        assert f"has no Python {MINOR}, and no uv" in refused("ssh://box").message


BUILDERS = {
    "uv": {"uv": shutil.which("uv") or "", f"python{MINOR}": os.path.realpath(sys.executable)},
    "pip": {f"python{MINOR}": os.path.realpath(sys.executable)},
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_environment_is_built_there_once(tmp_path: Path, builder: str) -> None:
    if not all(BUILDERS[builder].values()):
        pytest.skip(f"{builder} is not installed")
    path = path_with(tmp_path / "bin", BUILDERS[builder])
    with serving(_made(tmp_path / "box"), PATH=path, HOME=str(tmp_path), PYTHONPATH="", **NETWORK) as box:
        for _ in range(2):
            executor = ssh_executor("ssh://box")
            with contextlib.closing(executor):
                where = Tasks(executor, tmp_path).run("import nbflow, sys\nwhere = nbflow.__file__").value("where")
            (environment,) = (box.cache / "environments").glob("[!.]*")
            assert where.startswith(str(environment))
            assert environment.name.startswith(f"{MINOR}-")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# ---------------------------------------------------------------- GPUs


def test_gpus_are_shared_out_among_notebooks_that_know_nothing_of_each_other(
    box: SshServer, tasks: Tasks, tmp_path: Path
) -> None:
    source = (
        "import os, pathlib, time\ng = os.environ['CUDA_VISIBLE_DEVICES']\npathlib.Path(f'gpu-{g}').touch()\n"
        "while not pathlib.Path('go').exists():\n    time.sleep(0.05)"
    )
    other = ssh_executor(box.url)
    with contextlib.closing(other):
        one = tasks.submit(source, options=StepOptions(gpu=1.0))
        two = Tasks(other, tmp_path).submit(source, options=StepOptions(gpu=1.0))
        eventually(lambda: len([*tmp_path.glob("gpu-*")]) == 2)
        third = tasks.submit("import os\ng = os.environ['CUDA_VISIBLE_DEVICES']", options=StepOptions(gpu=0.5))
        eventually(lambda: tasks.executor.engine.look([third[1].worker_id])[third[1].worker_id].state == "waiting")  # type: ignore[attr-defined]
        (tmp_path / "go").touch()
        assert {tasks.finish(*each).value("g") for each in (one, two)} == {"0", "1"}
        assert tasks.finish(*third).value("g") in {"0", "1"}


def test_a_task_that_waits_for_a_gpu_says_so_and_can_be_cancelled(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "PATIENCE", 0.5)
    first = tasks.submit("import time\nprint('go')\ntime.sleep(60)", options=StepOptions(gpu=2.0))
    for event in first[1].events():
        if isinstance(event, Output):
            break
    _, second = tasks.submit("x = 1", options=StepOptions(gpu=1.0))
    events = second.events()
    held = next(event for event in events if isinstance(event, HeldUp) and "GPU" in event.reason)
    assert "1 of 2 GPUs wanted" in held.reason
    second.cancel(0.0)
    ended = [*events][-1]
    assert isinstance(ended, Ended)
    assert ended.result.failure is not None
    assert ended.result.failure.kind == "cancelled"
    first[1].cancel(0.0)
    assert tasks.finish(*first).failure.kind == "cancelled"
    assert (
        tasks.run("import os\ng = os.environ['CUDA_VISIBLE_DEVICES']", options=StepOptions(gpu=2.0)).value("g") == "0,1"
    )


# ---------------------------------------------------------------- ends


def above(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_worker_that_is_killed_takes_its_task_with_it(box: SshServer, tasks: Tasks) -> None:
    _, handle = tasks.submit("import time\nprint('go')\ntime.sleep(60)")
    pid = 0
    for event in handle.events():
        if isinstance(event, Started):
            pid = event.pid
        if isinstance(event, Output):
            os.kill(above(above(pid)), signal.SIGKILL)  # what forks tasks is between them
        if isinstance(event, Ended):
            assert event.result.failure is not None
            assert (event.result.failure.type, event.result.failure.kind) == ("WorkerLost", "lost")
            assert "its process was ended" in event.result.failure.message
    assert wait_gone(pid)
    assert tasks.run("x = 1").value("x") == 1


WAITS = (
    "import pathlib, time\nwith open('begun', 'a') as file:\n    file.write('x')\nprint('one')\n"
    "while not pathlib.Path('go').exists():\n    time.sleep(0.05)\nprint('two')\nx = list(range(100_000))"
)


def test_a_cut_connection_loses_nothing(box: SshServer, tasks: Tasks) -> None:
    spec, handle = tasks.submit(WAITS)
    events = []
    for event in handle.events():
        events.append(event)
        if isinstance(event, Output) and "one" in event.output["text"]:
            box.cut(tasks.executor.engine.connection)  # type: ignore[attr-defined]
            (tasks.folder / "go").touch()
    done = type(tasks.run("y = 1"))(spec, events, 0.0)
    assert done.live() == "one\ntwo\n"
    assert done.value("x") == list(range(100_000))
    assert (tasks.folder / "begun").read_text() == "x"


def test_a_box_that_is_away_for_a_while_goes_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sshd ends and comes back; what was asked for meanwhile waits, and its user is told why."""
    monkeypatch.setattr(handles, "PATIENCE", 1.0)
    folder = tmp_path / "box"
    folder.mkdir()
    with serving(folder) as box:
        executor = RemoteExecutor(Apart(box.url))
        with contextlib.closing(executor):
            tasks = Tasks(executor, tmp_path)
            first, handle = tasks.submit(WAITS)
            events = handle.events()
            started = next(events)
            assert isinstance(started, Started)
            box.leave()
            box.cut(executor.engine.connection)
            second = tasks.submit("y = 5")
            waiting = second[1].events()
            held = next(waiting)
            assert isinstance(held, HeldUp)
            assert "nothing listens at ssh://box" in held.reason
            (tmp_path / "go").touch()
            assert wait_gone(started.pid, 30)
            box.start()
            done = type(tasks.finish(*second))(first, [*events], 0.0)
            assert done.value("x") == list(range(100_000))
            assert (tmp_path / "begun").read_text() == "x"


def test_a_task_outlives_its_driver_and_is_found_again(box: SshServer, tmp_path: Path) -> None:
    """The driver goes without a word; another one asks for the same attempt and gets the worker that has it."""
    first = RemoteExecutor(Apart(box.url))
    tasks = Tasks(first, tmp_path)
    spec, handle = tasks.submit(WAITS)
    pid = pid_once_it_speaks(handle)
    first.engine.close()
    assert alive(pid)
    second = RemoteExecutor(Apart(box.url))
    with contextlib.closing(second):
        again = second.submit(spec)
        started = next(again.events())
        assert isinstance(started, Started)
        assert started.pid == pid
        (tmp_path / "go").touch()
        done = Tasks(second, tmp_path).finish(spec, again)
        assert done.value("x") == list(range(100_000))
        assert done.live() == "one\ntwo\n"
        assert (tmp_path / "begun").read_text() == "x"
        third = Tasks(second, tmp_path).finish(spec, second.submit(spec))  # what it has published is not made again
        assert third.value("x") == list(range(100_000))
        assert (tmp_path / "begun").read_text() == "x"


# ---------------------------------------------------------------- what travels


def test_bytes_travel_once(carrying: RemoteExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[SegmentPart] = []
    send = Channel.send

    def counting(self: Channel, request: Request) -> None:
        sent.extend([request] if isinstance(request, SegmentPart) else [])
        send(self, request)

    monkeypatch.setattr(Channel, "send", counting)
    local = Tasks(carrying, tmp_path)
    made = local.run("import os\nx = os.urandom(8) * 500_000")
    assert len(made.value("x")) == 4_000_000  # its bytes have come here
    after = [local.submit("n = len(x)", after=made) for _ in range(6)]
    assert [local.finish(*each).value("n") for each in after] == [4_000_000] * 6
    assert sent == []  # what was made there is there


def test_a_worker_answers_for_a_datastore_that_it_does_not_see(carrying: RemoteExecutor, tmp_path: Path) -> None:
    store = location.open_store(tmp_path / "store")
    facts = probe.ask(carrying.engine, store, probe.Question(modules=("numpy", "no_such_thing")))
    assert facts.modules["numpy"]
    assert facts.modules["no_such_thing"] is None
    assert facts.is_carried
    assert "values travel between it and" in carrying.try_worker(store.url)
    assert store.list("probes") == []
