"""What runs leave in the store: published once, in order, whole after a kill, and read without being trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nbflow.errors import NotFoundError, StoreError
from nbflow.jsonable import to_json
from nbflow.model import (
    FORMAT,
    Buffer,
    Group,
    KeyParts,
    Manifest,
    Output,
    Record,
    RunEnded,
    RunEvent,
    RunStarted,
    Segment,
    Tagged,
    TaskChanged,
    TaskId,
)
from nbflow.store import jsonl, records
from nbflow.store.location import Store, open_store, safe_name
from tests.support.places import ROOT

KEY = "ab12cd"


def record(execution: str = "r.s.0", key: str = KEY, created_at: float = 1.0, **more: Any) -> Record:
    fields: dict[str, Any] = {
        "format": FORMAT, "key": key, "execution": execution, "flow": "f", "run": "r", "step": "s", "index": (0, 1),
        "turn": None, "attempt": 1, "created_at": created_at, "elapsed": 0.5, "source": "x = 1",
        "parts": KeyParts(code="c"),
    }  # fmt: skip
    return Record(**fields | more)


def task(number: int, at: float = 1.0) -> TaskChanged:
    return TaskChanged(task=TaskId(step="s", index=(number,)), state="done", at=at)


# ---------------------------------------------------------------- results and facts


def test_an_execution_publishes_once(store: Store) -> None:
    assert records.publish(store, record())
    assert not records.publish(store, record(source="x = 2"))
    published = records.read_record(store, KEY, "r.s.0")
    assert published is not None
    assert published.source == "x = 1"
    assert [entry.path for entry in store.list("results")] == [f"results/ab/{KEY}/r.s.0.json"]


def test_find_gives_the_newest_first_and_passes_over_what_it_cannot_read(store: Store) -> None:
    assert records.find(store, KEY) == []
    for number in range(3):
        records.publish(store, record(f"r{number}.s", created_at=float(number)))
    folder = f"results/ab/{KEY}"
    whole = store.read(f"{folder}/r1.s.json")
    store.write(f"{folder}/torn.json", whole[:-20])
    store.write(f"{folder}/empty.json", b"")
    store.write(f"{folder}/foreign.json", b'{"a":1}')
    store.write(f"{folder}/binary.json", b"\xff\xfe\x00")
    store.write(f"{folder}/notes.txt", b"hello")
    store.write(f"{folder}/other-key.json", whole.replace(KEY.encode(), b"ffffff"))
    store.write(f"{folder}/later.json", whole.replace(b'"format":%d' % FORMAT, b'"format":99'))
    store.write(f"{folder}/sub/deeper.json", whole)
    assert [each.execution for each in records.find(store, KEY)] == ["r2.s", "r1.s", "r0.s"]
    assert [records.read_record(store, KEY, name) for name in ("torn", "empty", "foreign", "none")] == [None] * 4


def test_a_record_that_does_not_fit_together_is_none(store: Store) -> None:
    artifact = Manifest(name="x", type="int", group=0)
    lost = Segment(hash="b3:../../../etc/passwd", length=3)
    for number, fields in enumerate(({}, {"groups": (Group(
        id="i", names=("x",), serializer="pickle", stream=Buffer(length=3, segments=(lost,))),)})):  # fmt: skip
        made = record(f"r{number}.s", artifacts={"x": artifact}, **fields)
        store.write(f"results/ab/{KEY}/{number}.json", to_json(made))
    assert records.find(store, KEY) == []


@pytest.mark.parametrize("name", ["a/../../b", "ü\n", "x" * 400, "r.step name.0.1.2", "", "b3:abc"])
def test_odd_names_stay_inside_the_store(store: Store, name: str, tmp_path: Path) -> None:
    assert records.publish(store, record(name, key=name))
    assert [each.execution for each in records.find(store, name)] == [name]
    folder = safe_name(name)
    writer = records.EventWriter(store, folder, name, name)
    writer.put(task(1))
    writer.close()
    assert records.read_events(store, folder, name) == [task(1)]
    assert store.children("flows") == [folder]
    if "~" not in folder:  # which holds all of the name
        assert records.list_runs(store, folder) == [name]
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_facts(store: Store) -> None:
    assert records.read_facts(store, "k") == {}
    records.write_facts(store, "k", {"changed": ["df"], "unstored": {"lock": "lock: no"}})
    assert records.read_facts(store, "k") == {"changed": ["df"], "unstored": {"lock": "lock: no"}}
    for damage in (b"", b'{"torn', b"[]", b"7", b'{"changed":5}', b'{"changed":[1]}', b"\xff\xfe"):
        store.write("facts/k.json", damage)
        assert records.read_facts(store, "k") == {}


# ---------------------------------------------------------------- events


def test_events_come_back_in_order(store: Store) -> None:
    events: list[RunEvent] = [
        RunStarted(run="r", flow="f", at=1.0, parameters={"a": "1"}, tags=("x",)),
        task(1),
        Tagged(name="t", present=True, at=2.0),
        RunEnded(status="done", at=3.0),
    ]
    writer = records.EventWriter(store, "f", "r", "main")
    for event in events:
        writer.put(event)
    writer.flush()
    assert records.read_events(store, "f", "r") == events
    writer.close()
    writer.close()
    assert records.read_events(store, "f", "r") == events
    assert records.read_events(store, "f", "none") == []
    with pytest.raises(StoreError, match="closed"):
        writer.put(events[0])


def test_events_of_several_writers_are_merged_by_time(store: Store) -> None:
    writers = [records.EventWriter(store, "f", "r", "same id") for _ in range(3)]
    for number in range(30):
        writers[number % 3].put(task(number))
        time.sleep(0.001)
    for writer in writers:
        writer.close()
    assert [event.task.index[0] for event in records.read_events(store, "f", "r")] == list(range(30))


def test_a_finished_run_has_few_files(store: Store) -> None:
    writer = records.EventWriter(store, "f", "r", "w")
    for number in range(2000):
        writer.put(task(number))
        if number % 100 == 0:
            writer.flush()
    assert len(store.list("flows")) > 5
    writer.close()
    assert len(store.list("flows")) == 1
    assert len(records.read_events(store, "f", "r")) == 2000


def test_events_are_written_soon_without_asking(store: Store) -> None:
    writer = records.EventWriter(store, "f", "r", "w")
    for number in range(3):
        writer.put(task(number))
        deadline = time.monotonic() + 5
        while len(records.read_events(store, "f", "r")) <= number:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    writer.close()


def test_a_follower_sees_every_event_once_while_files_are_joined(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "COMPACT", 4)
    writer = jsonl.ChunkWriter(store, "flows/f/runs/r/events", "w", every=0.001)
    reader = jsonl.ChunkReader(store, "flows/f/runs/r/events")
    count = 3000

    def write() -> None:
        for number in range(count):
            writer.put(b"%d" % number)
            if number % 10 == 0:
                time.sleep(0.001)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[int] = []
    deadline = time.monotonic() + 30
    while len(seen) < count and time.monotonic() < deadline:
        seen += [int(line) for _, _, line in reader.new()]
    thread.join()
    assert seen == list(range(count))
    assert reader.new() == []


def test_a_lost_file_does_not_hide_the_rest(store: Store) -> None:
    folder = "flows/f/runs/r/events"
    for number in range(4):
        store.write(f"{folder}/w-{number:08d}-{number:08d}.jsonl", b"%d\n" % number)
    store.delete(f"{folder}/w-00000001-00000001.jsonl")
    store.write(f"{folder}/notes.txt", b"x")
    store.write(f"{folder}/w-x-y.jsonl", b"x")
    assert [line for _, _, line in jsonl.ChunkReader(store, folder).new()] == [b"0", b"2", b"3"]


def test_unreadable_lines_are_passed_over(store: Store) -> None:
    writer = records.EventWriter(store, "f", "r", "w")
    writer.put(task(1))
    writer.close()
    store.write("flows/f/runs/r/events/z-00000000-00000003.jsonl", b'{"a"\n[1.0,{"type":"later"}]\n\n[9,"x"]\n')
    assert records.read_events(store, "f", "r") == [task(1)]


def test_a_failed_write_is_raised_at_the_next_call_and_made_up_for(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    writer = records.EventWriter(store, "f", "r", "w")
    writer.put(task(0))
    writer.flush()
    folder = Path(str(store.local_path("flows/f/runs/r/events")))
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    folder.write_text("in the way")
    writer.put(task(1))
    deadline = time.monotonic() + 5
    failed = None
    while failed is None and time.monotonic() < deadline:
        try:
            writer.put(task(2))
        except StoreError as error:
            failed = error
        time.sleep(0.01)
    assert "flows/f/runs/r/events" in str(failed)
    with pytest.raises(StoreError):
        writer.flush()
    folder.unlink()
    hidden.rename(folder)
    writer.close()
    found = records.read_events(store, "f", "r")
    assert [found[0], found[1]] == [task(0), task(1)]


def calls_of(work: Callable[[], object]) -> int:
    """Do something; return how many functions this thread called for it, Python's own included."""
    count = 0

    def see(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_ten_thousand_events_are_read_at_once(store: Store) -> None:
    """From one file, and with no more work for each than where they are few."""
    calls = {}
    for count in (1000, 10_000):
        writer, run = records.EventWriter(store, "f", f"r{count}", "w"), f"r{count}"
        events = [task(number) for number in range(count)]
        put = calls_of(lambda writer=writer, events=events: [writer.put(event) for event in events])
        writer.close()
        assert len(store.children(f"{records.run_folder('f', run)}/events")) == 1
        read = calls_of(lambda run=run: records.read_events(store, "f", run))
        assert records.read_events(store, "f", run) == events
        calls[count] = put / count, read / count
    assert all(many < few + 1 for few, many in zip(*calls.values(), strict=True)), calls
    assert max(calls[10_000]) < 20, calls


WRITER = """
import sys
from nbflow.store import records
from nbflow.model import TaskChanged, TaskId, Output
from nbflow.store.location import open_store
from tests.store.test_records import record
store = open_store(sys.argv[1])
events = records.EventWriter(store, "f", "r", "w")
log = records.LogWriter(store, "f", "r", sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    events.put(TaskChanged(task=TaskId(step="s", index=(int(sys.argv[2]), number)), state="done", at=1.0))
    log.put(Output(output={"output_type": "stream", "name": "stdout", "text": "x" * (number % 5000)}))
    records.publish(store, record(f"{sys.argv[2]}.{number}", source="y" * (number * 97 % 20000)))
    number += 1
"""


@pytest.mark.running
def test_a_killed_run_leaves_whole_events_and_records(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for turn in range(4):
        command = [sys.executable, "-c", WRITER, str(folder), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.02 + 0.06 * turn)
            writer.send_signal(signal.SIGKILL)
        store = open_store(folder)
        found = [each.task.index for each in records.read_events(store, "f", "r") if isinstance(each, TaskChanged)]
        for each in range(turn + 1):
            numbers = [number for owner, number in found if owner == each]
            assert numbers == list(range(len(numbers)))
        for entry in store.list("results"):
            name = entry.path.rpartition("/")[2].removesuffix(".json")
            found = records.read_record(store, KEY, name)
            assert found is not None
            assert found.execution == name
        assert all(output.output["output_type"] == "stream" for output in records.read_log(store, "f", "r", str(turn)))


# ---------------------------------------------------------------- logs, marks, runs


def test_logs(store: Store) -> None:
    outputs = [
        Output(output={"output_type": "stream", "name": "stdout", "text": f"line {number}\n"}, at=float(number))
        for number in range(300)
    ]
    writer = records.LogWriter(store, "f", "r", "r.s.1")
    reader = records.LogReader(store, "f", "r", "r.s.1")
    for output in outputs[:100]:
        writer.put(output)
    writer.flush()
    seen = reader.new()
    for output in outputs[100:]:
        writer.put(output)
    writer.close()
    assert seen + reader.new() == outputs == records.read_log(store, "f", "r", "r.s.1")
    assert records.read_log(store, "f", "r", "other") == []


def test_beats_and_cancel_marks(store: Store) -> None:
    assert records.last_beat(store, "f", "r") is None
    assert records.cancel_requested(store, "f", "r") is None
    records.beat(store, "f", "r", "w", at=5.0)
    records.beat(store, "f", "r", "w", at=7.0)
    records.beat(store, "f", "r", "v", at=6.0)
    store.write("flows/f/runs/r/beats/torn.json", b"{")
    assert records.last_beat(store, "f", "r") == 7.0
    records.request_cancel(store, "f", "r")
    assert abs((records.cancel_requested(store, "f", "r") or 0) - time.time()) < 60


def test_runs_are_listed_newest_first(store: Store) -> None:
    runs = [records.new_run_id(at=1_700_000_000 + 100 * number) for number in range(5)]
    assert runs == sorted(runs)
    assert records.new_run_id(at=1_700_000_000.2) < records.new_run_id(at=1_700_000_000.3)
    assert len({records.new_run_id(at=1.0) for _ in range(100)}) == 100
    for run in runs:
        records.write_notebook(store, "my-flow", run, '{"cells": []}')
    assert records.list_runs(store, "my-flow") == runs[::-1]
    assert records.list_runs(store, "none") == []
    assert records.read_notebook(store, "my-flow", runs[0]) == '{"cells": []}'
    for entry in store.list(records.run_folder("my-flow", runs[0])):
        store.delete(entry.path)
    assert records.list_runs(store, "my-flow") == runs[:0:-1]
    with pytest.raises(NotFoundError):
        records.read_notebook(store, "my-flow", runs[0])
