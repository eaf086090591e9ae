"""What every engine has from the common part, with workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from nbflow.errors import ExecutorError, PlanError, StoreError
from nbflow.executors import wire
from nbflow.executors.remote import attempt_files, probe
from nbflow.executors.remote import executor as remote
from nbflow.executors.remote import handle as handles
from nbflow.executors.remote.attempt_files import AttemptFiles
from nbflow.executors.remote.engine import NodeRoom, WorkerOrder, WorkerState
from nbflow.executors.remote.executor import RemoteExecutor, never
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.model import Ended, HeldUp, Noticed, Output, Started, StepOptions, TaskSpec
from nbflow.runs import integrity
from nbflow.store import location, records
from nbflow.store.files import segments_of
from tests.conformance.executor import ExecutorConformance, wait_gone
from tests.support.kernel import NotebookFile
from tests.support.ssh_server import hiding
from tests.support.tasks import Done, Tasks
from tests.support.worker_processes import WorkerProcesses

pytestmark = pytest.mark.running


@pytest.fixture(scope="module")
def executor() -> Iterator[RemoteExecutor]:
    executor = RemoteExecutor(WorkerProcesses())
    yield executor
    executor.close()


class TestRemote(ExecutorConformance):
    """Every promise of an executor, kept over a distance."""


@contextlib.contextmanager
def tasks_on(engine: WorkerProcesses, folder: Path) -> Iterator[Tasks]:
    executor = RemoteExecutor(engine)
    try:
        yield Tasks(executor, folder)
    finally:
        executor.close()


def files_of(spec: TaskSpec) -> AttemptFiles:
    return AttemptFiles.of(location.open_store(spec.store), spec)


def worker(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "nbflow", "worker", *words]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


# ---------------------------------------------------------------- the datastore is the truth


def test_all_that_comes_of_a_task_comes_through_the_store_where_the_engine_has_no_other_way(tmp_path: Path) -> None:
    with tasks_on(WorkerProcesses(is_live=False), tmp_path) as tasks:
        done = tasks.run("import sys\nprint('one')\nprint('two', file=sys.stderr)\nx = [1]\nx")
        assert isinstance(done.events[0], Started)
        assert (done.live(), done.live("stderr"), done.shown, done.value("x")) == ("one\n", "two\n", "[1]", [1])
        failed = tasks.run("print('before')\n1 / 0")
        assert (failed.failure.type, failed.failure.line, failed.live()) == ("ZeroDivisionError", 2, "before\n")


@pytest.mark.parametrize("way", ["url", "stdin"])
def test_a_worker_needs_nobody_but_the_store(tmp_path: Path, way: str) -> None:
    tasks = Tasks(RemoteExecutor(WorkerProcesses()), tmp_path)
    spec = tasks.spec("print('hello')\nx = 41 + 1")
    files = files_of(spec)
    if way == "url":
        files.write_spec(spec)
        done = worker(files.url)
    else:
        done = worker("-", input=wire.pack(spec))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    result = files.result()
    assert result is not None
    assert result.result.failure is None
    assert Done(spec, [Ended(result=result.result)], 0.0).value("x") == 42
    outputs = records.read_log(files.store, "f", "r", spec.execution)
    assert [output.output["text"] for output in outputs] == ["hello\n"]


ENDED_FROM_OUTSIDE = "import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"
ENDS = {"x = 1": 0, "1 / 0": 1, ENDED_FROM_OUTSIDE: 130}


@pytest.mark.parametrize("source", ENDS)
def test_a_worker_says_by_its_exit_code_how_the_task_ended(tmp_path: Path, source: str) -> None:
    spec = Tasks(RemoteExecutor(WorkerProcesses()), tmp_path).spec(source)
    files_of(spec).write_spec(spec)
    assert worker(files_of(spec).url).returncode == ENDS[source]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("nowhere", 2, "is not a task's spec"),
        ("{}/flows/f/runs/r/attempts/x/spec.msgpack", 2, "as this machine sees it"),
        ("s4://x/flows/f/runs/r/attempts/x/spec.msgpack", 3, "cannot open the datastore s4://x"),
    ],
)
def test_a_spec_that_is_not_there_is_told_in_one_message(tmp_path: Path, url: str, code: int, said: str) -> None:
    done = worker(url.format(tmp_path))
    assert done.returncode == code
    assert done.stderr.startswith(b"error: ")
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_task_that_ran_twice_counts_once(tmp_path: Path) -> None:
    """As after a cut connection two workers have the same attempt: what the first one to end says is the result."""
    spec = Tasks(RemoteExecutor(WorkerProcesses()), tmp_path).spec(
        "import os, time, pathlib\npathlib.Path(f'begun-{os.getpid()}').touch()\n"
        "while len(list(pathlib.Path().glob('begun-*'))) < 2:\n    time.sleep(0.05)\npid = os.getpid()"
    )
    files = files_of(spec)
    files.write_spec(spec)
    command = [sys.executable, "-m", "nbflow", "worker", files.url]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    result = files.result()
    assert result is not None
    folder = tmp_path / ".nbflow" / records.result_folder(spec.key)
    assert len([*folder.iterdir()]) == 1
    record = records.read_record(files.store, spec.key, spec.execution)
    assert record == result.result.record
    begun = {int(path.name.partition("-")[2]) for path in tmp_path.glob("begun-*")}
    assert Done(spec, [Ended(result=result.result)], 0.0).value("pid") in begun
    assert worker(files.url).returncode == 0  # a third one, later, does not even begin
    assert len([*tmp_path.glob("begun-*")]) == 2


def test_what_a_task_elsewhere_leaves_in_a_datastore_is_known_to_fsck(tmp_path: Path) -> None:
    with tasks_on(WorkerProcesses(), tmp_path) as tasks:
        done = tasks.run("print(1)\nx = 1")
    store = files_of(done.spec).store
    files = [entry.path for entry in store.list("flows")]
    assert {path.rpartition("/")[2].partition(".")[2] for path in files} == {"msgpack", "json", "jsonl"}
    assert integrity.examine(store, lambda *_: None).flaws == ()
    packed = [path for path in files if path.endswith(".msgpack")]
    for path in packed:
        store.write(path, store.read(path)[:-3])
    assert {flaw.path for flaw in integrity.examine(store, lambda *_: None).damaged} == {*packed}


def test_a_record_that_the_worker_did_not_come_to_write_is_written_by_the_driver(tmp_path: Path) -> None:
    with tasks_on(WorkerProcesses(), tmp_path) as tasks:
        first = tasks.run("x = 1")
        files = files_of(first.spec)
        path = f"{records.result_folder(first.spec.key)}/{first.spec.execution}.json"
        files.store.delete(path)
        again = tasks.executor.submit(first.spec)
        assert isinstance([*again.events()][-1], Ended)
        assert files.store.exists(path)


# ---------------------------------------------------------------- ends that the task does not say itself


class WithoutTheFolder(WorkerProcesses):
    """Its workers do not see the notebook's folder, but the datastore."""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        files, spec = attempt_files.read_spec(order.spec)
        files.write_spec(msgspec.structs.replace(spec, folder="/no/such/folder"))
        return super().start(order, live)


def test_files_that_a_step_writes_come_back_where_its_folder_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("before\n")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.txt"
    with tasks_on(WithoutTheFolder(), tmp_path) as tasks:
        done = tasks.run(
            "import os\nos.makedirs('deep')\nopen('deep/a.bin', 'wb').write(b'abc' * 10)\nopen('empty', 'w').close()\n"
            "with open('log.txt', 'a') as f:\n    _ = f.write('after\\n')\n"
            f"open({str(outside)!r}, 'w').write('x')\nfolder = os.getcwd()"
        )
    assert done.value("folder") != str(tmp_path)
    assert not Path(done.value("folder")).exists()
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"abc" * 10
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "log.txt").read_text() == "before\nafter\n"
    (finding,) = [each for each in done.result.findings if each.code == "file-elsewhere"]
    assert outside.name in finding.message


@hiding
def test_a_worker_whose_disk_is_full_says_so(
    s3_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its cache for what it reads of a store elsewhere is on it."""
    import fsspec

    cache = tmp_path / "cache"
    cache.mkdir()
    for name, value in {**s3_server, "NBFLOW_CACHE": str(cache)}.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").mkdir("full-disk")
    full = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=1m none {cache} && exec "$@"', "sh"]
    with tasks_on(WorkerProcesses(), tmp_path) as tasks:
        made = tasks.run("import os\nblock = os.urandom(7_000_000)", store="s3://full-disk/store")
    with tasks_on(WorkerProcesses(before=full), tmp_path) as tasks:
        failure = tasks.run("n = len(block)", after=made, store="s3://full-disk/store").failure
    assert "no space left" in failure.message.lower()
    assert failure.fix


class Forgetful(WorkerProcesses):
    """Says of every worker that it has lost it."""

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        return dict.fromkeys(ids, WorkerState(state="lost", message="no connection"))


def test_an_engine_that_has_lost_a_worker_is_not_believed_while_it_lives(tmp_path: Path) -> None:
    with tasks_on(Forgetful(is_live=False), tmp_path) as tasks:
        done = tasks.run("import time\nprint('go')\ntime.sleep(8)\nx = 5")
        assert done.value("x") == 5
        assert done.live() == "go\n"


class Away(WorkerProcesses):
    """Cannot be asked."""

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        raise ExecutorError("the engine is away")


def test_an_engine_that_is_away_loses_nothing(tmp_path: Path) -> None:
    with tasks_on(Away(is_live=False), tmp_path) as tasks:
        assert tasks.run("x = 5").value("x") == 5


class Interrupted(WorkerProcesses):
    """Is reached at first, and then refuses for a while to start workers."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        self.number -= 1
        if self.number >= 0:
            raise ExecutorError("processes does not answer")
        return super().start(order, live)


def test_a_place_that_is_away_when_a_task_is_submitted_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "START_EVERY", 0.2)
    with tasks_on(Interrupted(3), tmp_path) as tasks:
        done = tasks.run("x = 1")
        assert done.value("x") == 1
        assert [event.reason for event in done.events if isinstance(event, HeldUp)] == ["processes does not answer"]
    monkeypatch.setattr(remote, "START_FOR", 1.0)
    with tasks_on(Interrupted(1000), tmp_path) as tasks:
        done = tasks.run("x = 1")
        assert (done.failure.type, done.failure.kind) == ("ExecutorError", "lost")
        _, handle = tasks.submit("x = 1")
        handle.cancel(0.0)
        ended = [*handle.events()][-1]
        assert isinstance(ended, Ended)
        assert ended.result.failure is not None


def test_a_worker_killed_in_the_middle_takes_the_task_with_it(tmp_path: Path) -> None:
    engine = WorkerProcesses()
    with tasks_on(engine, tmp_path) as tasks:
        spec, handle = tasks.submit("import time\nprint('go')\ntime.sleep(60)")
        pid = 0
        for event in handle.events():
            if isinstance(event, Started):
                pid = event.pid
            if isinstance(event, Output):
                next(iter(engine.workers.values())).kill()
            if isinstance(event, Ended):
                failure = event.result.failure
                assert failure is not None
                assert (failure.type, failure.kind) == ("WorkerLost", "lost")
                assert "exit status -9" in failure.message
                assert "before the cell finished" in failure.message
        assert wait_gone(pid), spec


class Stillborn(WorkerProcesses):
    """Its first workers end before they have begun."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        self.number -= 1
        return super().start(order if self.number < 0 else msgspec.structs.replace(order, spec="nowhere"), live)


@pytest.mark.parametrize("number", [2, 9])
def test_a_worker_that_ends_before_the_task_has_begun_is_replaced_at_most_three_times(
    tmp_path: Path, number: int
) -> None:
    with tasks_on(Stillborn(number), tmp_path) as tasks:
        done = tasks.run("x = 1")
        if number == 2:
            assert done.value("x") == 1
        else:
            assert done.failure.kind == "lost"
            assert "before the cell had begun" in done.failure.message
            assert "3 before it ended too" in done.failure.message


def test_the_user_hears_of_a_worker_that_is_silent_and_of_its_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "SILENCE", 7.0)
    engine = WorkerProcesses()
    with tasks_on(engine, tmp_path) as tasks:
        _, handle = tasks.submit(
            "import pathlib, time\nprint('go')\nwhile not pathlib.Path('done').exists():\n    time.sleep(0.05)\nx = 1"
        )
        said: list[str] = []
        for event in handle.events():
            process = next(iter(engine.workers.values()))
            if isinstance(event, Output):
                process.send_signal(signal.SIGSTOP)
            if isinstance(event, Noticed):
                said.append(event.finding.message)
                process.send_signal(signal.SIGCONT)
                if len(said) == 2:
                    (tmp_path / "done").touch()
            if isinstance(event, Ended):
                assert event.result.failure is None
        assert "nothing has been heard of its worker" in said[0]
        assert "is heard of again" in said[1]


class Blocking(WorkerProcesses):
    """Starts its workers with SIGINT blocked, as Ray does."""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().start(order, live)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_worker_that_was_started_with_interrupts_blocked_hears_them(tmp_path: Path) -> None:
    with tasks_on(Blocking(), tmp_path) as tasks:
        source = "import time\ntry:\n    print('go')\n    time.sleep(60)\nfinally:\n    print('tidied')"
        done = tasks.cancel_when("go", 10.0, source)
        assert done.failure.kind == "cancelled"
        assert done.live() == "go\ntidied\n"


@pytest.mark.parametrize("whose", ["attempt", "run"])
def test_a_mark_in_the_store_cancels(tmp_path: Path, whose: str) -> None:
    with tasks_on(WorkerProcesses(), tmp_path) as tasks:
        spec, handle = tasks.submit(
            "import time\ntry:\n    print('go')\n    time.sleep(60)\nfinally:\n    print('tidied')"
        )
        shown = ""
        for event in handle.events():
            if isinstance(event, Output):
                shown += event.output.get("text", "")
                if shown == "go\n":
                    if whose == "attempt":
                        files_of(spec).ask_cancel(5.0)
                    else:
                        records.request_cancel(files_of(spec).store, "f", "r")
            if isinstance(event, Ended):
                assert event.result.failure is not None
                assert event.result.failure.kind == "cancelled"
        assert shown == "go\ntidied\n"


# ---------------------------------------------------------------- what is known before a run

ROOMS = [NodeRoom(name="a", cpu=8, gpu=2, memory=16_000_000_000), NodeRoom(name="b", cpu=64, memory=8_000_000_000)]
NEVER = {
    "fits": (StepOptions(cpu=8, gpu=2.0), ""),
    "gpus": (StepOptions(gpu=8.0), "no node has 8 GPUs; the largest has 2"),
    "cores": (StepOptions(cpu=65), "no node has 65 cores; the largest has 64"),
    "memory": (StepOptions(memory=32_000_000_000), "no node has 32 GB of memory; the largest has 16"),
    "two nodes": (StepOptions(cpu=8, nodes=2), ""),
    "one of two": (StepOptions(gpu=1.0, nodes=2), "2 nodes are wanted; 1 of 2 has what the step asks for on each"),
    "together": (StepOptions(cpu=9, gpu=1.0), "no node has all that it asks for at once (--cpu, --gpu, --memory)"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_what_no_machine_can_run_is_known_before(name: str) -> None:
    options, why = NEVER[name]
    assert never(options, ROOMS) == why
    assert never(options, []) == ""


def test_a_plan_names_the_step_that_is_too_large(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a\nx = 1", "b": "%%step b --gpu 8\ny = x"})
    flow = build_flow(read_notebook(notebook.path))
    executor = RemoteExecutor(WorkerProcesses())
    with pytest.raises(PlanError, match="no node has 8 GPUs; the largest has 2") as caught:
        executor.check(flow.steps)
    assert caught.value.step == "b"
    executor.check(flow.steps[:1])


class Unlike(WorkerProcesses):
    """It has machines of several kinds."""

    def nodes(self) -> list[NodeRoom]:
        return ROOMS


def test_a_plan_names_machines_on_which_some_steps_cannot_run(tmp_path: Path) -> None:
    notebook = NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a\nx = 1", "b": "%%step b --gpu 1\ny = x"})
    flow = build_flow(read_notebook(notebook.path))
    executor = RemoteExecutor(Unlike())
    assert executor.too_small(flow.steps) == ("b (64 cores, 0 GPUs) is too small for b",)
    assert executor.too_small(flow.steps[:1]) == ()


def test_what_the_datastore_has_is_not_sent(tmp_path: Path) -> None:
    store = location.open_store(tmp_path / "store")
    for name, data in (("a", b"a" * 5000), ("b", b"b" * 7000), ("zeros", bytes(9000))):
        (tmp_path / name).write_bytes(data)
    segments_of(tmp_path / "a", store)
    executor = RemoteExecutor(WorkerProcesses())
    segments = [segment for name in ("a", "b", "b", "zeros") for segment in segments_of(tmp_path / name)]
    assert executor.upload(store.url, segments) == 7000


def test_workers_say_whether_they_see_the_very_folder(tmp_path: Path) -> None:
    with contextlib.closing(WorkerProcesses()) as engine:
        executor = RemoteExecutor(engine)
        executor.admit(str(tmp_path / "store"), (), str(tmp_path))
        assert not executor.wants_files(str(tmp_path))
        executor.admit(str(tmp_path / "store"), (), str(tmp_path / "nowhere"))
        assert executor.wants_files(str(tmp_path / "nowhere"))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


class Elsewhere(WorkerProcesses):
    """Its workers see other files than this machine."""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        return super().start(msgspec.structs.replace(order, spec="/elsewhere" + order.spec), live)


def test_a_store_that_workers_cannot_reach_is_told_before_a_run(tmp_path: Path) -> None:
    def admitted(engine: WorkerProcesses, store: str) -> None:
        executor = RemoteExecutor(engine)
        try:
            executor.admit(store, (), "")
        finally:
            executor.close()

    store = str(tmp_path / ".nbflow")
    admitted(WorkerProcesses(), store)
    assert location.open_store(store).list("probes") == []
    with pytest.raises(StoreError, match="does not reach the datastore") as caught:
        admitted(Elsewhere(), store)
    assert "--store s3://" in (caught.value.fix or "")
    with pytest.raises(StoreError, match="seen by this process only"):
        admitted(WorkerProcesses(), "memory://x")


def test_workers_of_another_kind_are_told_before_a_run(tmp_path: Path) -> None:
    with contextlib.closing(WorkerProcesses()) as engine:
        (tmp_path / "beside.py").write_text("")
        modules = ("numpy", "beside", "sys", "no_such_thing")
        question = probe.Question(modules=modules, folder=str(tmp_path))
        answer = probe.ask(engine, location.open_store(tmp_path / "store"), question)
    ours = probe.versions(modules, str(tmp_path))
    assert answer.modules == ours == {"numpy": ours["numpy"], "beside": "", "sys": "", "no_such_thing": None}
    assert probe.compare(answer, ours, "here") == ()
    others = {
        "have Python 3.9": {"python": "3.9.1"},
        "nbflow 0.0.1": {"nbflow": "0.0.1"},
        "lack beside, numpy, which": {"modules": {"beside": None, "sys": "", "numpy": None, "no_such_thing": None}},
    }
    for said, fields in others.items():
        with pytest.raises(ExecutorError, match=said) as caught:
            probe.compare(msgspec.structs.replace(answer, **fields), ours, "here")
    assert f"numpy=={ours['numpy']}" in (caught.value.fix or "")
    older = msgspec.structs.replace(answer, modules={**answer.modules, "numpy": "1.0"})
    (finding,) = probe.compare(older, ours, "here")
    assert f"numpy is {ours['numpy']} here and 1.0 on here" in finding.message
