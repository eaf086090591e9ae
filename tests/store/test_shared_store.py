"""Many at one store: runs at once, clean-ups beside runs, machines whose clocks differ, a disk that is full.

Small here; `make soak` says how many by NBFLOW_RUNS, NBFLOW_GCS, NBFLOW_CLOCKS and NBFLOW_FULL.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.model import TaskChanged
from nbflow.runs import client
from nbflow.store import records
from nbflow.store.artifacts import hash_of
from nbflow.store.location import open_store
from tests.store.test_order import Machine, notebook

pytestmark = [pytest.mark.running, pytest.mark.skipif(sys.platform == "win32", reason="processes as POSIX has them")]

RUNS = int(os.environ.get("NBFLOW_RUNS", "3"))
CLEAN_UPS = int(os.environ.get("NBFLOW_GCS", "1"))
CLOCKS = int(os.environ.get("NBFLOW_CLOCKS", "4"))
FULL = int(os.environ.get("NBFLOW_FULL", "1"))
SEED = int(os.environ.get("NBFLOW_SEED", "1"))

CELLS = {
    "p": "%%params\nn: int = 1",
    "a": "%%step base\nimport time\ntime.sleep(0.05)\nwords = [str(i) * 1000 for i in range(100)]",
    "b": "%%step mine\nblock = (str(n) * 40_000).encode()\ntime.sleep(0.05)",
    "c": "%%step fan --foreach i in range(12)\npart = (i * n, words[i][:10])",
    "d": "%%step add --join fan\ntotal = sum(each.part[0] for each in inputs)",
    "e": "%%step end\nresult = (total, len(block), sum(map(len, words)))",
}


def right(n: int) -> tuple[int, int, int]:
    """What a run with this parameter comes to."""
    return (sum(i * n for i in range(12)), 40_000 * len(str(n)), sum(len(str(i)) * 1000 for i in range(100)))


@pytest.fixture
def folder(tmp_path: Path, own_cache: None) -> Path:
    (tmp_path / "flow.ipynb").write_text(document_of(CELLS.items(), "flow"))
    return tmp_path


def command(folder: Path, *words: str, store: Path | None = None) -> subprocess.Popen[str]:
    """A command at the store, in a process of its own."""
    line = [sys.executable, "-m", "nbflow", *words, "--store", str(store or folder / "store")]
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Processes in; how each ended and what it said out."""
    said = [process.communicate(timeout=1800)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def wrong(store_url: str) -> Iterator[str]:
    """What is lost or doubled in a store, or tells of what is not there."""
    store = open_store(store_url)
    seen: dict[str, str] = {}
    for entry in store.list("results"):
        for record in records.read_entry(store, entry.path):
            if seen.setdefault(record.execution, entry.path) != entry.path:
                yield f"{record.execution} stands in {entry.path} and in {seen[record.execution]}"
    for entry in store.list("segments"):
        if not entry.path.endswith(hash_of(store.read(entry.path)).partition(":")[2]):
            yield f"{entry.path} holds other bytes"
    for one in client.list_runs(store_url):
        ids = set()
        for event in records.read_events(store, one.folder, one.run):
            if isinstance(event, TaskChanged) and event.state == "done" and event.execution:
                if (event.task, event.execution) in ids:
                    yield f"{one.run} tells twice that {event.execution} is done"
                ids.add((event.task, event.execution))


def values(store_url: str) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    """The runs that are done: each with its parameter and what it came to."""
    for one in client.list_runs(store_url):
        if one.status == "done":
            run = client.Run(f"{one.flow}/{one.run}", store_url)
            yield one.run, run.params["n"], run.data.result


def test_many_runs_at_once(folder: Path) -> None:
    store = str(folder / "store")
    runs = [command(folder, "run", "flow.ipynb", "-p", f"n={1 + at % 5}", "--workers", "1") for at in range(RUNS)]
    for code, said in ended(runs):
        assert code == 0, said
    found = list(values(store))
    assert len(found) == RUNS
    assert [each for each in found if each[2] != right(each[1])] == []
    assert list(wrong(store)) == []


def test_clean_ups_beside_runs(folder: Path) -> None:
    """What a run has just found, or is about to write, is never taken from it, however old it looks."""
    store, drawn = folder / "store", random.Random(SEED)
    for _ in range(CLEAN_UPS):
        for entry in open_store(store).list(""):
            os.utime(store / entry.path, (time.time() - 86_400,) * 2)
        runs = [command(folder, "run", "flow.ipynb", "-p", f"n={drawn.randrange(1, 5)}") for _ in range(2)]
        while any(run.poll() is None for run in runs):
            ((code, said),) = ended([command(folder, "gc", "--keep", str(drawn.randrange(1, 3)))])
            assert code == 0, said
        for code, said in ended(runs):
            assert code == 0, said
    assert [each for each in values(str(store)) if each[2] != right(each[1])] == []
    assert list(wrong(str(store))) == []


def test_clocks_that_differ(tmp_path: Path) -> None:
    """Whoever runs the flow, and whatever that machine's clock says, gets what was made last."""
    drawn = random.Random(SEED)
    machines = [Machine(tmp_path, ahead) for ahead in (0.0, 3600.0, -5400.0)]
    path = notebook(tmp_path, "import os", "%%step draw\nx = int.from_bytes(os.urandom(6), 'big')")
    store, last, names = str(tmp_path / "store"), None, []
    for _ in range(CLOCKS):
        fresh = last is None or drawn.random() < 0.5
        done = drawn.choice(machines).nbflow("run", path, *(["--fresh"] if fresh else []))
        assert done.returncode == 0, done.stderr
        run = nbflow.Flow("demo", store=store).latest_run
        assert run is not None
        assert run.id not in names, "the newest run is the one that was begun last"
        names.append(run.id)
        if not fresh:
            assert run.data.x == last, "what is reused is what was made last"
        last = run.data.x
    assert [run.id for run in nbflow.Flow("demo", store=store).runs()] == names[::-1]


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small file system")
def test_a_full_disk_and_then_space(folder: Path) -> None:
    """Wherever it fills up, the command says so, and the next one, with space, comes to the right end."""
    drawn = random.Random(SEED)
    for number in range(FULL):
        place = folder / f"disk{number}"
        with small_disk(place, drawn.randrange(16 << 10, 500 << 10)):
            ((code, said),) = ended([command(folder, "run", "flow.ipynb", "-p", "n=7", store=place / "store")])
            assert code in (0, 1, 3), said
            assert "Traceback" not in said
            assert code == 0 or "no space left" in said, said
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            ((code, said),) = ended([command(folder, "run", "flow.ipynb", "-p", "n=7", store=place / "store")])
            assert code == 0, said
            latest = nbflow.Flow("flow", store=str(place / "store")).latest_run
            assert latest is not None
            assert latest.data.result == right(7)
            assert list(wrong(str(place / "store"))) == []
