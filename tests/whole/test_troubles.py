"""Sweeps elsewhere while things break: cut links, killed workers, nodes and drivers, a store that fails and is slow.

The notebook, the cluster's head and its workers are hosts of their own, with links that can be cut. Nothing is lost,
nothing counts twice, and the user hears of it within 30 s. `make soak PART=troubles` runs it, each engine with its own
Python; NBFLOW_ROUNDS says how often.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nbflow
from tests.support.clusters import DaskCluster, RayCluster
from tests.support.hosts import HERE, Host, has_own_network, hosts
from tests.support.kernel import NotebookFile
from tests.support.processes import processes_above
from tests.support.servers import end_group, faulty, new_store, s3
from tests.support.ssh_server import is_installed, serving
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.soak, pytest.mark.timeout(900),
    pytest.mark.skipif(not has_own_network(), reason="needs a network of its own: unshare --net, as make soak does"),
    # s3fs and the engines' clients leave sockets to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip

ROUNDS = range(int(os.environ.get("NBFLOW_ROUNDS", "1")))
CUT = 90.0
"""Seconds that a link is cut for."""

TOLD = 30.0
"""Seconds within which the user hears of it."""

ITEMS = 4
CELLS = {
    "a": f"%%step a --on local\nxs = list(range({ITEMS}))",
    "b": "%%step b --foreach x in xs --retry 2\nimport os, pathlib, time, uuid\n"
         "marks = pathlib.Path('MARKS')\nmarks.joinpath(f'{x}-{uuid.uuid4().hex}').write_text(str(os.getpid()))\n"
         "print('item', x)\nwhile not marks.joinpath('go').exists():\n    time.sleep(0.05)\ny = x * x",
    "j": "%%step j --join b --on local\ntotal = sum(each.y for each in inputs)",
}  # fmt: skip


@dataclass
class Place:
    """An engine on hosts of its own, and the notebook's host."""

    url: str
    notebook: Host
    worker: Host  # one of those that tasks are on, the only one of a box
    kill_node: Callable[[], None]


@dataclass
class Driver:
    """`nbflow` with some words, on the notebook's host; what it says as it says it."""

    host: Host
    words: tuple[str, ...]
    lines: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        command = [*self.host.command, sys.executable, "-m", "nbflow", *self.words, "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.lines.append((time.monotonic(), json.loads(line)))
            except ValueError:
                self.rest.append(line)

    def told_after(self, moment: float) -> float | None:
        """The seconds after a moment at which the user heard that something is wrong."""
        return next((at - moment for at, line in [*self.lines] if at > moment and _is_trouble(line)), None)

    def said(self, since: float) -> str:
        """What it has said, each with the seconds since a moment."""
        return "\n".join([*(f"{at - since:.1f} {line}" for at, line in [*self.lines]), *self.rest])

    def ended(self, seconds: float) -> str:
        """Wait for its end; the last lines that it said."""
        self.process.wait(seconds)
        self.reader.join(10)
        return self.said(time.monotonic())


def _is_trouble(line: Mapping[str, Any]) -> bool:
    if line["kind"] == "finding":
        return line["code"] == "silent-worker"
    return line["kind"] == "task" and (line["attempt"] > 1 or line["state"] == "failed")


# ---------------------------------------------------------------- the places


@pytest.fixture(scope="module")
def network() -> Iterator[dict[str, Host]]:
    with hosts("notebook", "head", "first", "second") as made:
        yield made


@pytest.fixture(scope="module")
def s3_at_the_bridge(network: dict[str, Host]) -> Iterator[dict[str, str]]:
    with s3(HERE) as variables:
        yield variables


@contextlib.contextmanager
def on_ray(folder: Path, network: dict[str, Host], variables: Mapping[str, str]) -> Iterator[Place]:
    with RayCluster(folder, network["head"], **variables) as cluster:
        cluster.start(cpus=0, gpus=0)
        first, _ = (cluster.add(cpus=2, on=network[name]) for name in ("first", "second"))
        logs = [folder / f"node-{number}.log" for number in (1, 2)]  # a run asks once how many cores there are
        eventually(lambda: all("Ray runtime started" in log.read_text() for log in logs), 180)
        yield Place(cluster.url, network["notebook"], network["first"], lambda: end_group(first))


@contextlib.contextmanager
def on_dask(folder: Path, network: dict[str, Host], variables: Mapping[str, str]) -> Iterator[Place]:
    with DaskCluster(folder, network["head"], **variables) as cluster:
        cluster.start()
        first, _ = (cluster.add(on=network[name]) for name in ("first", "second"))
        yield Place(cluster.url, network["notebook"], network["first"], lambda: end_group(first))


@contextlib.contextmanager
def on_a_box(folder: Path, network: dict[str, Host], variables: Mapping[str, str]) -> Iterator[Place]:
    own = {name: value for name, value in variables.items() if name != "NBFLOW_CACHE"}  # a box has one by itself
    with serving(folder, host=network["head"], **own) as box:

        def restart() -> None:
            box.stop()
            box.start()

        yield Place(box.url, network["notebook"], network["head"], restart)


PLACES = {"ray": ("ray", on_ray), "distributed": ("dask", on_dask)}
MODULE = next((name for name in PLACES if importlib.util.find_spec(name) is not None), "")
PLACE, STARTED = PLACES[MODULE] if MODULE else ("ssh", on_a_box)


@pytest.fixture
def store(s3_at_the_bridge: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    return new_store(s3_at_the_bridge, monkeypatch, tmp_path)


@pytest.fixture
def place(
    network: dict[str, Host], s3_at_the_bridge: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A cluster for each test: what was cut off from one may have to be started again."""
    if PLACE == "ssh" and not is_installed():
        pytest.skip("needs OpenSSH's server and client")
    folder = tmp_path_factory.mktemp("p")
    with STARTED(folder, network, {**s3_at_the_bridge, "NBFLOW_CACHE": str(folder / "there")}) as place:
        yield place


@dataclass
class Sweep:
    """A sweep that waits at its place for a word."""

    folder: Path
    place: Place
    store: str

    def __post_init__(self) -> None:
        self.marks = self.folder / "marks"
        self.marks.mkdir()
        cells = {name: source.replace("MARKS", str(self.marks)) for name, source in CELLS.items()}
        path = NotebookFile(self.folder / "flow.ipynb", cells).path
        self.driver = Driver(self.place.notebook, ("run", str(path), "--on", self.place.url, "--store", self.store))
        eventually(lambda: self.begun() or self.driver.process.poll() is not None, 180)
        assert self.begun(), self.driver.ended(10)

    def begun(self) -> list[Path]:
        """What those that have begun have left."""
        return [path for path in self.marks.glob("*-*") if path.read_text()]

    def is_everywhere(self) -> None:
        """Wait until all items have begun: some of them are on each host. A box runs as many as it has cores."""
        eventually(lambda: len(self.begun()) == ITEMS or PLACE == "ssh", 120)

    def go(self) -> None:
        self.marks.joinpath("go").touch()

    def ends_whole(self) -> None:
        """The driver ends well, and all is whole."""
        said = self.driver.ended(240)
        assert self.driver.process.returncode == 0, said
        self.is_whole()

    def is_whole(self) -> None:
        """Nothing is lost, and nothing counts twice."""
        run = nbflow.Flow("flow", store=self.store).latest_run
        assert run is not None
        assert run.status == "done", run.error
        assert run.data.total == sum(x * x for x in range(ITEMS))
        tasks = run["b"].tasks
        assert [task.stdout for task in tasks] == [f"item {x}\n" for x in range(ITEMS)]
        executions = [sum(path.name.startswith(f"{x}-") for path in self.begun()) for x in range(ITEMS)]
        assert all(1 <= count <= task.attempt for count, task in zip(executions, tasks, strict=True)), executions


@pytest.fixture
def sweep(place: Place, store: str, tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path, place, store)
    yield sweep
    sweep.driver.process.kill()


def hears(sweep: Sweep, since: float) -> None:
    """The user hears of it in time; how long it took is kept for the soak's report."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: sweep.driver.told_after(since) or sweep.driver.process.poll() is not None, CUT)
    seconds = sweep.driver.told_after(since)
    assert seconds is not None, sweep.driver.said(since)
    assert seconds < TOLD, sweep.driver.said(since)
    kept = os.environ.get("NBFLOW_TOLD")
    if kept:
        with Path(kept).open("a") as file:
            file.write(f"{seconds:.1f}\n")


# ---------------------------------------------------------------- what breaks


@pytest.mark.parametrize("round_", ROUNDS)
@pytest.mark.parametrize("whose", ["notebook", "worker"])
def test_a_link_that_is_cut_and_healed(sweep: Sweep, whose: str, round_: int) -> None:
    host: Host = getattr(sweep.place, whose)
    sweep.is_everywhere()
    began = time.monotonic()
    host.cut()
    with contextlib.ExitStack() as stack:
        stack.callback(host.heal)
        hears(sweep, began)
        sweep.go()  # what ends, ends behind the cut
        time.sleep(max(0.0, began + CUT - time.monotonic()))
    sweep.ends_whole()


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_worker_that_is_killed(sweep: Sweep, round_: int) -> None:
    _, worker = processes_above(int(sweep.begun()[0].read_text()))[:2]
    began = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    hears(sweep, began)
    sweep.go()
    sweep.ends_whole()


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_node_that_is_killed(sweep: Sweep, round_: int) -> None:
    sweep.is_everywhere()
    began = time.monotonic()
    sweep.place.kill_node()
    hears(sweep, began)
    sweep.go()
    sweep.ends_whole()


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_driver_that_is_killed(sweep: Sweep, round_: int) -> None:
    """Another one takes the run up: what runs is awaited, and not run again."""
    sweep.driver.process.kill()
    sweep.driver.ended(10)
    run = nbflow.Flow("flow", store=sweep.store).latest_run
    assert run is not None
    eventually(lambda: nbflow.Run(f"flow/{run.id}", store=sweep.store).status == "lost", 60)
    sweep.driver = Driver(sweep.place.notebook, ("attach", f"flow/{run.id}", "--store", sweep.store))
    sweep.go()
    sweep.ends_whole()
    assert len(sweep.begun()) == ITEMS


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_store_that_fails_and_is_slow(
    network: dict[str, Host], s3_at_the_bridge: Mapping[str, str], store: str, tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, round_: int,
) -> None:  # fmt: skip
    """Every third answer is an error, every second one of those a lie; each takes up to half a second."""
    folder = tmp_path_factory.mktemp("p")
    with faulty(s3_at_the_bridge["AWS_ENDPOINT_URL"], slow=0.5) as endpoint:
        variables = {**s3_at_the_bridge, "AWS_ENDPOINT_URL": endpoint, "NBFLOW_CACHE": str(folder / "there")}
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with STARTED(folder, network, variables) as place:
            sweep = Sweep(tmp_path, place, store)
            sweep.go()
            said = sweep.driver.ended(400)
            assert sweep.driver.process.returncode == 0, said
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_at_the_bridge["AWS_ENDPOINT_URL"])
    sweep.is_whole()
    assert len(sweep.begun()) == ITEMS
