"""gc: values that only old runs reached go, and the runs stay listed; tags, runs in progress, what is young stay."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import StoreError
from nbflow.flow.notebook import document_of
from nbflow.model import RunStarted, TaskChanged, TaskId
from nbflow.runs.garbage import Cleaning, Policy, clean, plan_cleaning
from nbflow.runs.integrity import examine
from nbflow.store import records
from nbflow.store.artifacts import is_whole
from nbflow.store.flows import named_flow, runs_of
from nbflow.store.index import Index
from nbflow.store.location import Store, open_store
from nbflow.store.settings import write_setting
from tests.support.stored import StoredRun

pytestmark = pytest.mark.usefixtures("own_cache")
running = pytest.mark.running
HOURS = 7200.0


def made(folder: Path, number: int, value: str, *, at: float, end: bool = True, **more: object) -> StoredRun:
    """A run with a value of a megabyte of its own."""
    run = StoredRun(
        folder, [f"%%step a\nbig = {value!r}.encode() * 200_000"], run=f"2025010{number}-120000-aaaaaa", at=at, **more
    )  # type: ignore[arg-type]
    run.execute("a")
    if end:
        run.end()
    return run


def age(store: Store, seconds: float) -> None:
    """Every file of the store as old as this."""
    for entry in store.list(""):
        place = store.local_path(entry.path)
        assert place is not None
        os.utime(place, (time.time() - seconds,) * 2)


def gone(found: Cleaning) -> set[str]:
    return {run.run for run, _, _ in found.runs}


def rest(store: Store) -> tuple[int, int]:
    return len(store.list("results")), len(store.list("segments"))


def test_runs_beyond_the_last_ones_go_with_what_only_they_reach(tmp_path: Path) -> None:
    now = time.time()
    runs = [made(tmp_path, number, f"v{number}", at=now - HOURS * (10 - number)) for number in range(1, 5)]
    store = runs[0].store
    tagged = nbflow.Run(f"demo/{runs[0].run}", store=store.url)
    tagged.add_tag("keep")
    age(store, HOURS)
    before = store.list("")
    found = plan_cleaning(store, Policy(keep=2))
    assert store.list("") == before
    assert gone(found) == {runs[1].run}
    assert (len(found.segments), found.kept_runs) == (1, 3)
    assert found.nbytes > 400_000
    clean(store, found)
    assert plan_cleaning(store, Policy(keep=2)).nbytes == 0
    assert [run.id for run in nbflow.Flow("demo", store=store.url).runs()] == [run.run for run in reversed(runs)]
    assert rest(store) == (4, 3)
    emptied = nbflow.Run(f"demo/{runs[1].run}", store=store.url)
    assert emptied.status == "done"
    assert emptied["a"].task.artifacts["big"].nbytes > 400_000
    with pytest.raises(AttributeError, match="'big' of step a was removed by `nbflow gc` on"):
        emptied.data.big
    assert not [flaw for flaw in examine(store, lambda _, __: None).flaws if flaw.kind == "damaged"]
    for run in (runs[0], runs[2], runs[3]):
        assert nbflow.Run(f"demo/{run.run}", store=store.url).data.big
        assert is_whole(store, next(r for r in records.all_records(store) if r.run == run.run).groups)


def test_a_shared_result_stays_while_one_run_reaches_it(tmp_path: Path) -> None:
    now = time.time()
    first = made(tmp_path, 1, "same", at=now - HOURS * 2)
    second = StoredRun(tmp_path, first.cells, run="20250102-120000-bbbbbb", at=now - HOURS)
    record = next(iter(records.all_records(first.store)))
    second.tell("a", "reused", record=record, reused_from=first.run)
    second.end()
    age(first.store, HOURS)
    clean(first.store, plan_cleaning(first.store, Policy(keep=1)))
    assert [run.id for run in nbflow.Flow("demo", store=first.store.url).runs()] == [second.run, first.run]
    assert nbflow.Run(f"demo/{first.run}", store=first.store.url).data.big  # another run keeps it
    assert len(nbflow.Run(f"demo/{second.run}", store=first.store.url).data.big) == 800_000


def test_what_is_young_stays_unless_forced(tmp_path: Path) -> None:
    now = time.time()
    first, second = made(tmp_path, 1, "old", at=now - 9), made(tmp_path, 2, "new", at=now - 5)
    store = first.store
    found = plan_cleaning(store, Policy(keep=1))
    assert gone(found) == {first.run}
    assert (found.records, found.segments) == ((), ())
    assert found.young > 0
    clean(store, found)
    assert rest(store) == (2, 2)
    clean(store, plan_cleaning(store, Policy(keep=1, force=True)))
    assert rest(store) == (2, 1)
    assert nbflow.Run(f"demo/{second.run}", store=store.url).data.big


def test_a_run_in_progress_keeps_all_that_it_names(tmp_path: Path) -> None:
    now = time.time()
    old = made(tmp_path, 1, "old", at=now - HOURS * 3)
    busy = made(tmp_path, 2, "busy", at=now - 3, end=False, pid=os.getpid())
    newest = made(tmp_path, 3, "new", at=now - 1)
    store = old.store
    age(store, HOURS)
    found = plan_cleaning(store, Policy(keep=1, force=True))
    assert gone(found) == {old.run}
    # after the plan was made the run in progress takes up the old result
    record = next(record for record in records.all_records(store) if record.run == old.run)
    busy.tell("a", "reused", index=(7,), record=record)
    for group in record.groups:
        for part in (group.stream, *group.buffers):
            assert all(store.has_segment(segment) for segment in part.segments)
    clean(store, found)
    assert rest(store) == (3, 3)
    assert {run.id for run in nbflow.Flow("demo", store=store.url).runs()} == {old.run, busy.run, newest.run}


def test_the_oldest_go_where_the_store_is_too_large(tmp_path: Path) -> None:
    now = time.time()
    runs = [made(tmp_path, number, f"v{number}", at=now - HOURS * (10 - number)) for number in range(1, 5)]
    other = made(tmp_path, 5, "other", at=now - HOURS * 20, flow="other")
    age(runs[0].store, HOURS)
    found = plan_cleaning(runs[0].store, Policy(most=1_500_000))
    assert gone(found) == {runs[0].run, runs[1].run, runs[2].run}
    assert {why for _, _, why in found.runs} == {"the store is larger than 1.5 MB"}
    clean(other.store, found)
    assert nbflow.Run(f"other/{other.run}", store=other.store.url).data.big


def test_kernels_runs_count_for_themselves(tmp_path: Path) -> None:
    now = time.time()
    runs = [
        made(tmp_path, number, f"v{number}", at=now - HOURS * (10 - number), session=number % 2 == 0)
        for number in range(1, 6)
    ]
    assert gone(plan_cleaning(runs[0].store, Policy(keep=1))) == {runs[0].run, runs[1].run, runs[2].run}


def test_parameters_and_lists_are_reached_too(tmp_path: Path) -> None:
    run = made(tmp_path, 1, "x", at=time.time() - HOURS)
    store = open_store(tmp_path / "store")
    record = next(iter(records.all_records(store)))
    writer = records.EventWriter(store, run.place.folder, "20250109-120000-cccccc", "w")
    writer.put(
        RunStarted(run="20250109-120000-cccccc", flow="demo", at=time.time(), given=((record.key, record.execution),))
    )
    writer.put(TaskChanged(task=TaskId(step="a"), state="skipped", at=time.time()))
    writer.close()
    age(store, HOURS)
    clean(store, plan_cleaning(store, Policy(keep=1)))
    assert rest(store) == (1, 1)


# ---------------------------------------------------------------- real runs

CELLS = [
    "%%params\nlr: float = 0.1",
    "%%step a\nxs = [1, 2]\nbig = str(lr).encode() * 300_000",
    "%%step b --foreach x in xs\ny = x * lr",
    "%%step c --join b\ntotal = sum(entry.y for entry in inputs)",
]


@running
def test_gc_after_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "demo.ipynb"
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(CELLS)), "demo"))
    store = str(tmp_path / ".nbflow")
    for lr in (1, 2):
        assert nbflow.run(path, params={"lr": lr}).successful
    kept = nbflow.run(path, params={"lr": 2})
    assert {step.state for step in kept.steps()} == {"reused"}
    assert app.main(["gc", "--store", store, "--keep", "1", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["runs"]), told["kept"]["runs"], told["segments"]) == (2, 1, 0)
    assert app.main(["gc", "--store", store, "--keep", "1", "--force"]) == 0
    assert "removed; 1 runs kept" in capsys.readouterr().out
    assert kept.data.total == 6
    again = nbflow.run(path, params={"lr": 2})
    assert {step.state for step in again.steps()} == {"reused"}
    first = nbflow.Flow("demo", store=store).runs()[-1]
    assert (first.data.total, first.params.lr) == (3, 1)  # what is so small that it lies in a record stays
    again = nbflow.run(path, params={"lr": 1})
    assert {step.name: step.state for step in again.steps()}["a"] == "done"  # `big` is made again


@running
def test_a_large_store_is_told_of_once_and_keeps_its_runs(tmp_path: Path) -> None:
    """Nothing goes by itself, however many runs there are; what gc would take is said by one run."""
    path = tmp_path / "demo.ipynb"
    path.write_text(
        document_of([("c1", "%%params\nn: int = 1"), ("c2", "%%step a\nx = str(n).encode() * 90_000")], "demo")
    )
    write_setting(tmp_path, "size", "1M")
    told: list[str] = []

    def run(number: int) -> list[str]:
        seen: set[str] = set()
        index.put_mark("size", 0, index.mark("size")[1])  # it is time to look again
        nbflow.run(
            path, params={"n": number}, watch=lambda snapshot, _: seen.update(f.message for f in snapshot.findings)
        )
        return [each for each in seen if "datastore" in each]

    index = Index(str(tmp_path / ".nbflow"))
    for number in range(100_000, 100_013):
        told += run(number)
    opened = open_store(tmp_path / ".nbflow")
    assert len(runs_of(opened, named_flow(opened, "demo"))) == 13
    assert len(told) == 1
    assert "nothing is deleted by itself" in told[0]
    assert "`nbflow gc` would free" in told[0]


# ---------------------------------------------------------------- links, and what is no file


def strange(folder: Path) -> None:
    """What a folder may hold besides files: a fifo, a socket, loops, links that lead out."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "fifo.json")
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path must be short
        made.bind("socket.json")
        os.chdir(here)
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "up").symlink_to("..")
    (folder / "out").symlink_to("/")
    (folder / "gone.json").symlink_to("nowhere")


@pytest.mark.skipif(os.name != "posix", reason="links and fifos")
def test_a_planted_link_leads_no_clean_up_out_of_the_store(tmp_path: Path) -> None:
    now = time.time()
    runs = [made(tmp_path, number, f"v{number}", at=now - HOURS * (10 - number)) for number in range(1, 4)]
    store, folder = runs[0].store, tmp_path / "store"
    outside = tmp_path / "Documents"
    flow = folder / "flows" / runs[0].place.folder
    shutil.copytree(flow / "runs" / runs[0].run, outside / "run")
    shutil.copytree(folder / "results", outside / "results")
    shutil.copytree(folder / "segments", outside / "segments")
    (outside / "thesis.txt").write_text("years of work")
    (flow / "runs" / "20240101-120000-aaaaaa").symlink_to(outside / "run")
    (flow / "runs" / runs[0].run / "logs").symlink_to(outside)
    (folder / "flows" / "other").symlink_to(outside)
    (folder / "results" / "zz").symlink_to(outside / "results")
    (folder / "segments" / "b4").symlink_to(outside / "segments")
    (folder / "segments" / ".tmp-x").symlink_to(outside / "thesis.txt")
    before = {place: place.read_bytes() for place in outside.rglob("*") if place.is_file()}
    for place in (*outside.rglob("*"), *folder.rglob("*")):
        if place.is_file():
            os.utime(place, (now - HOURS * 48,) * 2)
    cleaning = plan_cleaning(store, Policy(keep=1))
    assert gone(cleaning) == {runs[0].run, runs[1].run}
    clean(store, cleaning)
    assert {place: place.read_bytes() for place in outside.rglob("*") if place.is_file()} == before
    assert rest(store) == (3, 1)
    assert nbflow.Flow("demo", store=store.url).latest_run.data.big
    with pytest.raises(StoreError, match="a folder above it is a link"):
        store.delete("results/zz/results/x.json")


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_store_on_a_larger_disk_is_used_through_its_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder itself may be a link; where one of its folders is one, what that holds is read, and never removed."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    now = time.time()
    runs = [made(tmp_path, number, f"v{number}", at=now - HOURS * (10 - number)) for number in range(1, 4)]
    store = runs[0].store
    age(store, HOURS)
    clean(store, plan_cleaning(store, Policy(keep=2)))
    assert rest(store) == (3, 2)
    (tmp_path / "disk" / "segments").rename(tmp_path / "segments")
    (tmp_path / "disk" / "segments").symlink_to(tmp_path / "segments")
    assert app.main(["gc", "--store", str(tmp_path / "store"), "--keep", "1"]) == 0
    assert "segments/ is a link: nothing is removed in it" in capsys.readouterr().out
    assert rest(store) == (3, 2)
    assert nbflow.Flow("demo", store=store.url).latest_run.data.big


@pytest.mark.skipif(os.name != "posix", reason="links and fifos")
@pytest.mark.timeout(60)
def test_what_is_no_file_makes_nothing_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path, 1, "x", at=time.time())
    store, folder = run.store, tmp_path / "store"
    record = next(iter(records.all_records(store)))
    strange(folder)
    for place in [each for each in folder.rglob("*") if each.is_dir() and not each.is_symlink()]:
        if place != folder:
            strange(place)
    strange(folder / "facts")
    os.mkfifo(folder / "facts" / "c.json")
    assert [each.execution for each in records.find(store, record.key)] == [record.execution]
    assert records.read_facts(store, "c") == {}
    for words in (["runs"], ["show", "demo/latest"], ["gc", "--keep", "1"]):
        assert app.main([*words, "--store", str(folder)]) == 0, capsys.readouterr()
    assert nbflow.Flow("demo", store=store.url).latest_run.data.big
    assert not [entry for entry in store.list("") if any(word in entry.path for word in ("fifo", "loop", "socket"))]
    deep = folder / "results"
    for _ in range(100):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x.json").write_text("{}")
    assert not [entry for entry in store.list("results") if entry.path.endswith("/x.json")]
