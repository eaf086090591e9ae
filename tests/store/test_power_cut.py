"""The power goes at any moment of a run: what is left tells nothing wrong, holds what it tells of, and is gone on from.

The system calls of real runs are recorded, in all their processes; for many moments the states are made in which a disk
may be then. NBFLOW_CUTS says how many (`make soak`: thousands).
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.engine import claims
from nbflow.flow.notebook import document_of
from nbflow.model import Record, RunEnded, TaskChanged
from nbflow.store import local, records, syncing
from nbflow.store.artifacts import load
from nbflow.store.location import LocalStore, Store, open_store
from nbflow.store.serialize.registry import Registry
from nbflow.store.verified import hash_of
from tests.support.places import TESTS
from tests.support.power_cut import MODES, Call, after_cut, read_calls

pytestmark = [
    pytest.mark.running,
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(sys.platform != "linux", reason="recorded calls of this system"),
]

CUTS = int(os.environ.get("NBFLOW_CUTS", "40"))
RUNS_AGAIN = max(2, CUTS // 20)
SEED = int(os.environ.get("NBFLOW_SEED", "1"))

CELLS = {
    "p": "%%params\nn: int = 1",
    "a": "%%step small\nx = n + 1",
    "b": "%%step large\nblock = (str(n) * 50_000).encode()\nother = block * 60",
    "c": "%%step pay --once\npaid = n",
    "d": "%%step fan --foreach i in range(40)\nsquare = i * i + n",
    "e": "%%step lists --foreach j in range(3)\nrow = bytes([j + n]) * 60_000",
    "f": "%%step add --join fan\ntotal = sum(each.square for each in inputs)",
    "g": "%%step more --join lists\nlengths = [len(each.row) for each in inputs]",
    "h": "%%step end\nresult = (x, len(other), total, lengths, paid)",
}


def right(n: int) -> dict[str, Any]:
    """The values that a run with this parameter leaves; those of items by their number."""
    total = sum(i * i + n for i in range(40))
    block = (str(n) * 50_000).encode()
    return {
        "x": n + 1, "block": block, "other": block * 60, "paid": n, "total": total, "lengths": [60_000] * 3,
        "square": lambda i: i * i + n, "row": lambda j: bytes([j + n]) * 60_000,
        "result": (n + 1, len(block) * 60, total, [60_000] * 3, n),
    }  # fmt: skip


@dataclass
class Recording:
    """Two runs, one after the other, and all that they did to the store."""

    folder: Path
    root: str
    calls: list[Call]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("power")
    (folder / "site").mkdir()
    shutil.copy(TESTS / "support" / "recorded_calls.py", folder / "site" / "sitecustomize.py")
    (folder / "flow.ipynb").write_text(document_of(CELLS.items(), "flow"))
    root = folder / "store"
    root.mkdir()
    places = [str(folder / "site"), str(Path(nbflow.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(places), "RECORDED": str(root), "RECORDING": str(folder / "log"),
        "NBFLOW_CACHE": str(folder / "cache"), "NBFLOW_LANE": "warm", "NBFLOW_STORE": str(root),
    }  # fmt: skip
    for n in (1, 2):
        command = [sys.executable, "-m", "nbflow", "run", str(folder / "flow.ipynb"), "-p", f"n={n}", "--workers", "2"]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    calls = read_calls(folder / "log")
    assert {call.name for call in calls} == {"create", "write", "fsync", "rename", "link", "unlink", "mkdir"}
    assert any(call.name == "rename" and "/segments/" in call.place for call in calls)  # by a worker
    return Recording(folder, str(root), calls)


# ---------------------------------------------------------------- what must hold of what is left


def problems(store: Store) -> Iterator[str]:
    """What is wrong with a store."""
    known = {}
    for record in records.all_records(store):
        known[record.execution] = record
        for group in record.groups:
            for buffer in (group.stream, *group.buffers):
                for segment in buffer.segments:
                    path = records.segment_path(segment.hash) if segment.hash else ""
                    if path and hash_of(store.read_many([path]).get(path, b"")) != segment.hash:
                        yield f"{record.execution} is there, and its segment {segment.hash} is not"
    for folder in store.children("flows"):
        for run in records.list_runs(store, folder):
            for event in records.read_events(store, folder, run):
                if not isinstance(event, TaskChanged) or not event.key:
                    continue
                step = event.task.step
                if event.state in ("done", "reused") and event.execution:
                    record = records.read_record(store, event.key, event.execution)
                    if record is None:
                        yield f"{run} tells that {event.execution} is done, and its record is gone"
                    else:
                        yield from wrong_values(store, record)
                if step == "pay" and event.state == "running" and claims.last_claim(store, event.key) is None:
                    yield f"{run} tells that pay has begun, and nothing has claimed it"


def wrong_values(store: Store, record: Record) -> Iterator[str]:
    """Values that are not what the cell gives."""
    names = {name for name, artifact in record.artifacts.items() if artifact.group >= 0}
    for name, value in load(store, record.groups, names, Registry()).items():
        wanted = [right(n).get(name) for n in (1, 2)]
        found = [each(record.index[-1]) if callable(each) else each for each in wanted]
        if wanted != [None, None] and value not in found:
            yield f"{record.execution}: {name} is {value!r:.60}"


def moments(recording: Recording, count: int) -> list[int]:
    """Moments at which the power goes: any, and more of those right after a name has appeared."""
    drawn, calls = random.Random(SEED), recording.calls
    named = [at + 1 for at, call in enumerate(calls) if call.name in ("rename", "link")]
    return [drawn.choice(named) if drawn.random() < 0.5 else drawn.randrange(len(calls)) for _ in range(count)]


# ---------------------------------------------------------------- cut


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut has left is written to another place than that where the datastore was made."""
    monkeypatch.setenv("NBFLOW_TRUST", "all")


def test_what_is_left_tells_nothing_wrong(recording: Recording, tmp_path: Path) -> None:
    found = []
    for number, moment in enumerate(moments(recording, CUTS)):
        mode = MODES[number % len(MODES)]
        place = tmp_path / f"cut{number}"
        place.mkdir()
        after_cut(recording.calls[:moment], recording.root, place, mode, SEED + number)
        found += [f"cut at {moment}, {mode}: {each}" for each in problems(open_store(place))]
        shutil.rmtree(place)
    assert not found, found[:10]


def test_a_run_goes_on_from_what_is_left(recording: Recording, tmp_path: Path) -> None:
    for number, moment in enumerate(moments(recording, RUNS_AGAIN)):
        mode = MODES[number % len(MODES)]
        place = tmp_path / f"again{number}"
        (place / "store").mkdir(parents=True)
        (place / "flow.ipynb").write_text(document_of(CELLS.items(), "flow"))
        after_cut(recording.calls[:moment], recording.root, place / "store", mode, SEED + number)
        run = nbflow.run(place / "flow.ipynb", store=place / "store", params={"n": 2}, again=["pay"], workers=2)
        told = f"cut at {moment}, {mode}: {run.error}"
        assert run.successful, told
        assert run.data.result == right(2)["result"], told
        assert not list(problems(open_store(place / "store"))), told
        shutil.rmtree(place)


def test_what_a_command_has_told_stays(recording: Recording, tmp_path: Path) -> None:
    """The commands have ended, the power goes, and nothing that was not synced is left."""
    place = tmp_path / "all"
    place.mkdir()
    after_cut(recording.calls, recording.root, place, "nothing", SEED)
    store = open_store(place)
    runs = nbflow.Flow("flow", store=store.url).runs()
    assert [run.status for run in runs] == ["done", "done"]
    for n, run in zip((2, 1), runs, strict=True):
        assert run.data.result == right(n)["result"]
        assert len(run.data.other) == 3_000_000
        events = [event for folder in store.children("flows") for event in records.read_events(store, folder, run.id)]
        assert any(isinstance(event, RunEnded) for event in events)
    assert not list(problems(store))


def test_a_mark_of_a_segment_counts_for_one_start_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was verified from memory before a power cut may be torn on the disk, with its old length and time."""
    store = LocalStore(str(tmp_path / "store"))
    store.write("segments/b3/ab/abcd", b"x" * 100)
    before = store.look("segments/b3/ab/abcd")
    assert before == store.look("segments/b3/ab/abcd")
    later = syncing.boot().at + 10_000_000
    monkeypatch.setattr(local, "boot", lambda: syncing.Boot("another", later))
    assert before != store.look("segments/b3/ab/abcd")
