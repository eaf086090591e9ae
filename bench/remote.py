"""What a task elsewhere costs: its latency, and the bytes that travel for it.

On a box behind a real sshd of this machine here, on Ray and Dask by `bench.clusters` where their environments are
(`make remote` makes them). python -m bench remote [--quick]; NBFLOW_INPUT is the large input's size in MB, 1000.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench.rows import Row, timed
from nbflow.executors.local import LocalExecutor
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.executors.ssh import messages
from nbflow.executors.ssh.connection import Channel, Connection, parse_address
from nbflow.executors.ssh.engine import SshEngine
from nbflow.plugins import Executor
from tests.support.ssh_server import SshServer, is_installed, serving
from tests.support.tasks import Done, Tasks

ROOT = Path(__file__).parents[1]
INPUT = 64_000_000
WIDE = 300
"""Tasks that read one large input."""


class Apart(SshEngine):
    """A box that sees none of the folders here: values travel through the connection."""

    def _reaches(self, *_: object) -> bool:
        return False


class Traffic:
    """The frames of one connection, counted on this side, without what OpenSSH adds."""

    def __init__(self) -> None:
        self.sent = self.received = self.requests = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what goes through any channel meanwhile; questions about how workers stand are not a task's."""
        send, parse = Channel.send, messages.parse_box_report

        def counting_send(channel: Channel, request: messages.Request) -> None:
            if not isinstance(request, messages.AskState):
                self.requests += 1
                self.sent += len(msgspec.msgpack.encode(request)) + 4
            send(channel, request)

        def counting_parse(body: bytes) -> messages.Report:
            self.received += len(body) + 4
            return parse(body)

        Channel.send, messages.parse_box_report = counting_send, counting_parse  # type: ignore[method-assign]
        try:
            yield
        finally:
            Channel.send, messages.parse_box_report = send, parse  # type: ignore[method-assign]


def measure(*, quick: bool = False) -> list[Row]:
    """Return the rows of those places whose programs are installed."""
    megabytes = int(os.environ.get("NBFLOW_INPUT") or (100 if quick else 1000))
    rows = _ssh(megabytes, quick=quick) if is_installed() else []
    for engine in ("ray", "dask"):
        python = ROOT / ".peers" / engine / "bin" / "python"
        if python.exists():
            command = [python, "-m", "bench.clusters", engine, f"--input={megabytes}", *(["--quick"] if quick else [])]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
            found = json.loads(done.stdout.splitlines()[-1])
            rows += [Row(**{name: value for name, value in row.items() if name != "ratio"}) for row in found]
    return rows


def _ssh(megabytes: int, *, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="nbflow-") as name:
        folder = Path(name)
        (folder / "box").mkdir()
        with serving(folder / "box") as box:
            return [*_latency(box, folder, 5 if quick else 15), *_bytes(box, folder, megabytes)]


def _latency(box: SshServer, folder: Path, rounds: int) -> list[Row]:
    """Return what a task takes from submitting it to its end, all ways in turns."""
    connection = Connection(parse_address(box.url))
    connection.open()
    places: dict[str, Executor] = {
        "a task here": LocalExecutor(),
        "a task there": RemoteExecutor(SshEngine(box.url)),
        "there, its values carried": RemoteExecutor(Apart(box.url)),
    }
    ways: dict[str, Callable[[], object]] = {
        "`true` through the connection": lambda: subprocess.run(connection.command("true"), check=True)
    }
    for what, executor in places.items():
        tasks = Tasks(executor, folder)
        tasks.run("x = 1")  # the first one starts what the others are forked from
        ways[what] = lambda tasks=tasks: tasks.run("x = 1")  # type: ignore[misc]
    took: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(rounds):
        for what, way in ways.items():
            took[what].append(timed(way))
    for executor in places.values():
        executor.close()
    medians = {what: statistics.median(times) for what, times in took.items()}
    noop = medians.pop("`true` through the connection")
    return [
        Row("ssh: latency, warm", what, ms, beside=noop, against="`true` through the connection", aim="< 500 ms")
        for what, ms in medians.items()
    ]


def _bytes(box: SshServer, folder: Path, megabytes: int) -> list[Row]:
    """Return what travels where the box does not see the datastore."""
    here = Tasks(LocalExecutor(), folder)
    made = here.run(f"import os\nblock = os.urandom({INPUT})\nsmall = 1")
    there = RemoteExecutor(Apart(box.url))
    tasks = Tasks(there, folder)
    tasks.run("x = 1")
    rows = [
        _row("a task with a small value", lambda: tasks.run("y = 1"), 0),
        _row("a task that reads 64 MB from here", lambda: tasks.run("n = len(block)", after=made), INPUT),
        _row("another one that reads it", lambda: tasks.run("n = len(block)", after=made), 0),
        _row("a task that leaves 64 MB", lambda: tasks.run(f"import os\nb = os.urandom({INPUT})"), INPUT),
    ]
    large = here.run(f"import os\nblock = os.urandom({megabytes} * 1_000_000)")
    rows.append(_row(f"{megabytes} MB read by {WIDE} tasks", lambda: _wide(tasks, large), megabytes * 1_000_000))
    for executor in (here.executor, there):
        executor.close()
    return rows


def _wide(tasks: Tasks, large: Done) -> Done:
    """Return the first of many tasks that read one value and has failed, else the last one."""
    submitted = [tasks.submit("n = len(block)", after=large) for _ in range(WIDE)]
    ended = [tasks.finish(*each) for each in submitted]
    return next((each for each in ended if each.result.failure is not None), ended[-1])


def _row(what: str, task: Callable[[], Done], least: int) -> Row:
    traffic = Traffic()
    with traffic.counted():
        failure = task().result.failure
    if failure is not None:
        raise RuntimeError(failure.message)
    total = (traffic.sent + traffic.received) / 1000
    return Row(
        "ssh: what travels", f"{what} ({traffic.requests} messages)", total, "kB",
        beside=least / 1000 or None, against="the value alone" if least else "", aim="",
    )  # fmt: skip
