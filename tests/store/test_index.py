"""The index answers fast, is made anew when it is gone or damaged, and is never trusted over the store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbflow.model import RunEnded, RunStarted, Tagged, TaskChanged, TaskId
from nbflow.store import records
from nbflow.store.index import Index, RunSummary, summarise
from nbflow.store.location import Store


@pytest.fixture
def index(store: Store, tmp_path: Path) -> Index:
    return Index(store.url, tmp_path / "cache")


def run(
    store: Store, run_id: str, *, flow: str = "f", at: float = 1.0, ended: bool = True, tags: tuple[str, ...] = ()
) -> None:
    writer = records.EventWriter(store, flow, run_id, "w")
    writer.put(RunStarted(run=run_id, flow=flow, at=at, tags=tags, notebook="n.ipynb"))
    writer.put(TaskChanged(task=TaskId(step="a"), state="running", at=at))
    writer.put(TaskChanged(task=TaskId(step="a"), state="done", at=at))
    writer.put(TaskChanged(task=TaskId(step="b"), state="failed", at=at))
    if ended:
        writer.put(RunEnded(status="failed", at=at + 1, error="boom"))
    writer.close()


def file_of(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache" / "index").glob("*.sqlite")
    return found


def test_summary() -> None:
    events = [
        RunStarted(run="r", flow="f", at=1.0, tags=("x", "y"), origin="o", session=True),
        TaskChanged(task=TaskId(step="a", index=(1,)), state="running", at=2.0),
        TaskChanged(task=TaskId(step="a", index=(1,)), state="done", at=3.0),
        TaskChanged(task=TaskId(step="a", index=(2,)), state="reused", at=3.0),
        Tagged(name="x", present=False, at=4.0),
        Tagged(name="z", present=True, at=4.0),
    ]
    assert summarise("f-1", "r", events) == RunSummary(
        folder="f-1", flow="f", run="r", status="running", created_at=1.0, tags=("y", "z"),
        counts={"done": 1, "reused": 1}, origin="o", session=True,
    )  # fmt: skip
    assert summarise("f", "r", events[1:]) is None
    ended = summarise("f", "r", [*events, RunEnded(status="done", at=9.0)])
    assert ended is not None
    assert (ended.status, ended.finished_at) == ("done", 9.0)


def test_runs_by_flow_and_tag_newest_first(store: Store, index: Index) -> None:
    run(store, "1", at=1.0, tags=("a", "b"))
    run(store, "2", at=2.0, tags=("a",))
    run(store, "3", flow="g", at=3.0)
    assert [each.run for each in index.runs(store)] == ["3", "2", "1"]
    assert [each.run for each in index.runs(store, ["f"])] == ["2", "1"]
    assert [each.run for each in index.runs(store, tags=["a", "b"])] == ["1"]
    assert index.runs(store, ["none"]) == []
    assert index.runs(store, []) == []
    (first,) = index.runs(store, ["g"])
    assert (first.status, first.error, first.counts, first.notebook) == (
        "failed",
        "boom",
        {"done": 1, "failed": 1},
        "n.ipynb",
    )


def test_changes_in_the_store_show(store: Store, index: Index) -> None:
    run(store, "1", ended=False)
    run(store, "2")
    old = time.time() - 100
    for each in ("1", "2"):
        os.utime(str(store.local_path(f"flows/f/runs/{each}/events")), (old, old))
    assert {each.run: each.status for each in index.runs(store)} == {"1": "running", "2": "failed"}
    run(store, "1")
    writer = records.EventWriter(store, "f", "2", "later")
    writer.put(Tagged(name="kept", present=True, at=5.0))
    writer.close()
    found = {each.run: each for each in index.runs(store)}
    assert found["1"].status == "failed"
    assert found["2"].tags == ("kept",)
    for entry in store.list(records.run_folder("f", "2")):
        store.delete(entry.path)
    assert [each.run for each in index.runs(store)] == ["1"]
    assert list(index.known()) == [("f", "1")]


def test_known_runs_are_not_read_again(store: Store, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        run(store, str(number), at=float(number))
        os.utime(str(store.local_path(f"flows/f/runs/{number}/events")), (1, 1))
    first = index.runs(store)
    monkeypatch.setattr(records, "read_events", None)
    assert index.runs(store) == first


def damage_bytes(place: Path) -> None:
    place.write_bytes(b"no database at all" * 1000)


def damage_middle(place: Path) -> None:
    data = bytearray(place.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    place.write_bytes(data)


def damage_tables(place: Path) -> None:
    with sqlite3.connect(place) as db:
        db.execute("DROP TABLE runs")
    db.close()


def damage_version(place: Path) -> None:
    with sqlite3.connect(place) as db:
        db.execute("PRAGMA user_version = 77")
    db.close()


def damage_rows(place: Path) -> None:
    with sqlite3.connect(place) as db:
        db.execute("UPDATE runs SET summary = '{'")
    db.close()


@pytest.mark.parametrize(
    "damage", [damage_bytes, damage_middle, damage_tables, damage_version, damage_rows, Path.unlink, shutil.rmtree]
)
def test_damage_is_mended_in_silence(store: Store, index: Index, tmp_path: Path, damage: object) -> None:
    run(store, "1")
    assert len(index.runs(store)) == 1
    index.add_duration("f", "a", 1.0, 1.0)
    place = file_of(tmp_path)
    damage(place.parent if damage is shutil.rmtree else place)  # type: ignore[operator]
    assert [each.run for each in index.runs(store)] == ["1"]
    index.add_duration("f", "a", 2.0, 2.0)
    assert index.durations("f")["a"] in {1.5, 2.0}
    assert [each.run for each in index.runs(store)] == ["1"]


def test_without_a_writable_cache_everything_still_answers(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    index = Index(store.url, tmp_path / "file")
    run(store, "1")
    assert [each.run for each in index.runs(store)] == ["1"]
    index.add_duration("f", "a", 1.0, 1.0)
    assert index.durations("f") == {}


def test_durations_are_the_median_of_the_last_ones(index: Index) -> None:
    for number in range(50):
        index.add_duration("f", "a", float(number), at=float(number))
    index.add_duration("f", "b", 3.0, at=1.0)
    index.add_duration("g", "a", 9.0, at=1.0)
    assert index.durations("f") == {"a": 39.5, "b": 3.0}
    assert index.durations("none") == {}


def test_stores_do_not_mix(store: Store, index: Index, tmp_path: Path) -> None:
    run(store, "1")
    index.runs(store)
    assert Index("s3://elsewhere", tmp_path / "cache").known() == {}


PROCESS = """
import sys
from pathlib import Path
from nbflow.store.index import Index, RunSummary
index = Index("url", Path(sys.argv[1]))
for number in range(60):
    run = f"{sys.argv[2]}-{number}"
    summary = RunSummary(folder="f", flow="f", run=run, status="done", created_at=float(number), finished_at=1.0)
    index.put_runs([(summary, 1)])
    index.add_duration("f", sys.argv[2], 1.0, float(number))
    index.known()
"""


@pytest.mark.running
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path), str(number)]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    index = Index("url", tmp_path)
    assert len(index.known()) == 180
    assert set(index.durations("f")) == {"0", "1", "2"}
