"""Records of many small tasks share files: written at once, found by key, by execution and by clean-ups."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.model import FORMAT, KeyParts, Record
from nbflow.runs import garbage
from nbflow.store import batches, records
from nbflow.store.batches import BatchReader, BatchWriter
from nbflow.store.location import Store, open_store

pytestmark = pytest.mark.usefixtures("folder")

RUN = "20250101-120000-aaaaaa"


def record(number: int, *, run: str = RUN, code: str = "c0de") -> Record:
    return Record(
        format=FORMAT, key=f"{number:040x}", execution=f"{run}.s.{number}..1", flow="f", run=run, step="s",
        index=(number,), turn=None, attempt=1, created_at=float(number), elapsed=0.0, source="",
        parts=KeyParts(code=code),
    )  # fmt: skip


def write(store: Store, *made: Record) -> list[object]:
    """Records, written as an executor does; what their writers were told."""
    writer = BatchWriter(store)
    told: list[object] = []
    for each in made:
        records.publish_among_others(store, writer, each, told.append)
    writer.close()
    return told


def found(store: Store, number: int, code: str = "c0de") -> list[str]:
    return [each.execution for each in records.find(store, f"{number:040x}", among=code)]


# ---------------------------------------------------------------- files


def test_many_records_are_few_files(store: Store) -> None:
    told = write(store, *map(record, range(1000)))
    assert told == [None] * 1000
    assert len(store.list("results")) == 1
    assert found(store, 7) == [f"{RUN}.s.7..1"]
    assert found(store, 7, "other") == found(store, 7, "") == found(store, 1000) == []
    assert records.read_record(store, f"{999:040x}", f"{RUN}.s.999..1") == record(999)
    assert sorted(each.index for each in records.all_records(store)) == [(number,) for number in range(1000)]


def test_steps_and_runs_have_files_of_their_own(store: Store) -> None:
    later = "20250102-120000-bbbbbb"
    write(store, record(1), record(2, code="else"), record(1, run=later))
    assert sorted(found(store, 1)) == [f"{RUN}.s.1..1", f"{later}.s.1..1"]
    assert found(store, 2) == []
    assert found(store, 2, "else") == [f"{RUN}.s.2..1"]
    record_later = records.read_record(store, f"{1:040x}", f"{later}.s.1..1")
    assert record_later is not None
    assert record_later.run == later
    assert len(store.list("results")) == 3


def test_it_is_found_as_soon_as_its_writer_is_told(store: Store) -> None:
    """By others, too, while the files are being joined."""
    writer = BatchWriter(store)
    other = BatchReader(open_store(store.url))
    for number in range(300):
        there = threading.Event()
        records.publish_among_others(store, writer, record(number), lambda _, there=there: there.set())
        assert there.wait(30)
        assert len(other.find("c0de", f"{number:040x}")) == 1
        assert other.read(f"{number // 2:040x}", f"{RUN}.s.{number // 2}..1") is not None
    writer.close()
    assert len(store.list("results")) < 10


def test_files_are_joined_once_it_is_quiet(store: Store) -> None:
    writer = BatchWriter(store)
    for number in range(5):
        there = threading.Event()
        records.publish_among_others(store, writer, record(number), lambda _, there=there: there.set())
        assert there.wait(30)
    deadline = time.monotonic() + 30
    while len(store.list("results")) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    records.publish_among_others(store, writer, record(5), lambda _: None)
    writer.close()
    assert [len(found(store, number)) for number in range(6)] == [1] * 6
    assert len(store.list("results")) == 2


def test_torn_lines_and_parts_beside_the_whole_are_no_records(store: Store) -> None:
    write(store, *map(record, range(3)))
    (entry,) = store.list("results")
    data = store.read(entry.path)
    lines = data.split(b"\n")
    stem = entry.path.rpartition("/")[0]
    store.write(f"{stem}/{RUN}.part-00000000-00000000.jsonl", lines[0] + b"\n")  # its writer was killed while joining
    store.write(f"{stem}/{RUN}.torn-00000000-00000001.jsonl", lines[1].replace(b"..1", b"..2") + b"\n" + lines[2][:-20])
    store.write(f"{stem}/{RUN}.odd-00000000-00000001.jsonl", b'{"a":1}\n\xff\n\n[]\n')
    store.write(f"{stem}/notes.txt", b"hello")
    again = open_store(store.url)
    assert found(again, 0) == [f"{RUN}.s.0..1"]
    assert sorted(found(again, 1)) == [f"{RUN}.s.1..1", f"{RUN}.s.1..2"]
    assert found(again, 2) == [f"{RUN}.s.2..1"]
    assert len(list(records.all_records(again))) == 4


def test_what_cannot_be_written_is_told(store: Store, folder: Path) -> None:
    store.write("results/batches", b"a file is in the way")
    told = write(store, record(1))
    assert "in the way" in str(told[0])


def test_memory_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "KEPT_BYTES", 2000)
    for number in range(10):
        write(store, *(record(each, code=f"c{number}") for each in range(10)))
    reader = BatchReader(store)
    for number in (*range(10), *range(10)):
        assert len(reader.find(f"c{number}", f"{3:040x}")) == 1
    assert len(reader._contents) == 1


# ---------------------------------------------------------------- runs

MANY = 120


def notebook(*more: str) -> Path:
    cells = [
        f"%%step sizes\nsizes = list(range({MANY}))", "%%step area --foreach size in sizes\narea = size * size",
        "%%step half\nhalf = area / 2",
        "%%step total --join half\ntotal = sum(each.half for each in inputs)", *more,
    ]  # fmt: skip
    path = Path("wide.ipynb")
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "wide"))
    return path


def states(run: nbflow.Run) -> set[str]:
    return {task.state for step in run for task in step.tasks}


@pytest.mark.running
def test_a_wide_run_leaves_few_files_and_everything_is_found(folder: Path) -> None:
    run = nbflow.run(notebook())
    expected = sum(size * size for size in range(MANY)) / 2
    assert run.data.total == expected
    store = open_store(".nbflow")
    files = [entry.path for entry in store.list("results")]
    shared = [path for path in files if batches.is_batch(path)]
    assert shared
    assert len(files) < MANY
    assert len(list(records.all_records(store))) >= 2 * MANY
    assert run["area"][MANY - 1].data.area == (MANY - 1) ** 2
    assert run["half"][5].artifacts["half"].value == 12.5
    again = nbflow.run(notebook())
    assert states(again) == {"reused"}
    assert again.data.total == expected
    code = "import json, nbflow\ntasks = nbflow.Flow('wide').latest_run['half'].tasks"
    code += "\nprint(json.dumps([task.data.half for task in tasks]))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [size * size / 2 for size in range(MANY)]
    more = nbflow.run(notebook("%%step told\ntold = total + 1"))
    assert {step.name for step in more if step.state == "done"} == {"told"}


@pytest.mark.running
def test_a_clean_up_takes_batches_that_nobody_reaches(folder: Path) -> None:
    first = nbflow.run(notebook())
    second = nbflow.run(notebook())
    store = open_store(".nbflow")
    garbage.clean(store, garbage.plan_cleaning(store, garbage.Policy(keep=1, force=True)))
    assert [run.id for run in nbflow.Flow("wide").runs()] == [second.id, first.id]
    assert second["half"][MANY - 1].data.half == (MANY - 1) ** 2 / 2  # which the first run made
    for entry in store.list("flows"):
        if "/runs/" in entry.path:
            store.delete(entry.path)
    plan = garbage.plan_cleaning(store, garbage.Policy(keep=0, force=True))
    assert {entry.path for entry in plan.records} == {entry.path for entry in store.list("results")}
    garbage.clean(store, plan)
    assert store.list("results") == []
    assert states(nbflow.run(notebook())) == {"done"}
