"""Two machines on one store, their clocks an hour apart: what was made later is newer, whatever either clock says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nbflow
from nbflow.engine import keys
from nbflow.flow.notebook import document_of
from nbflow.model import Record
from nbflow.store import records
from nbflow.store.flows import RunPlace, named_flow, runs_of
from nbflow.store.location import open_store
from nbflow.store.stored_run import summaries
from tests.support.stored import StoredRun

CLOCK = """
import os, time
ahead = float(os.environ.get("AHEAD") or 0)
seconds, nanoseconds = time.time, time.time_ns
if ahead:
    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)
"""

CELLS = [
    "import os",
    "%%step draw\nx = int.from_bytes(os.urandom(4), 'big')",
    "%%step fan --foreach i in range(3)\nmany = int.from_bytes(os.urandom(4), 'big') + i",
    "%%step add --join fan\ntotal = sum(each.many for each in inputs)",
    "%%step after\ny = (x, total)",
]

HOUR = 3600.0


class Machine:
    """A machine: its clock is ahead by some seconds, or behind."""

    def __init__(self, folder: Path, ahead: float) -> None:
        site = folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(CLOCK)
        self.folder = folder
        path = os.pathsep.join(
            filter(None, (str(site), os.environ.get("PYTHONPATH"), str(Path(nbflow.__file__).parents[1])))
        )
        self.environment = {
            **os.environ, "PYTHONPATH": path, "AHEAD": str(ahead), "NBFLOW_CACHE": str(folder / f"cache{ahead}"),
        }  # fmt: skip

    def nbflow(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command on this machine."""
        command = [sys.executable, "-m", "nbflow", *words, "--store", str(self.folder / "store")]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=300
        )


def notebook(folder: Path, *cells: str, name: str = "demo") -> str:
    path = folder / f"{name}.ipynb"
    path.write_text(document_of(((f"{name}{at}", cell) for at, cell in enumerate(cells)), name))
    return str(path)


@pytest.mark.running
@pytest.mark.parametrize(("first", "second"), [(HOUR, 0.0), (0.0, -HOUR)], ids=["one ahead", "one behind"])
def test_the_run_that_came_later_is_newer(tmp_path: Path, first: float, second: float) -> None:
    ahead, behind = Machine(tmp_path, first), Machine(tmp_path, second)
    path = notebook(tmp_path, *CELLS)
    for machine, more in ((ahead, ()), (behind, ("--fresh",)), (behind, ()), (ahead, ())):
        done = machine.nbflow("run", path, *more)
        assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "store")
    oldest, fresh, *later = [nbflow.Run(f"demo/{each.run}", store=store.url) for each in reversed(_runs(tmp_path))]
    assert oldest.data.y != fresh.data.y
    for run in later:
        assert run.data.y == fresh.data.y
        assert {step.state for step in run.steps()} == {"reused"}
    latest = nbflow.Flow("demo", store=store.url).latest_run
    assert latest is not None
    assert latest.id == later[-1].id
    assert [run.id for run in nbflow.Flow("demo", store=store.url).runs()] == [run.run for run in _runs(tmp_path)]
    # what loses its values is what ran first
    assert behind.nbflow("gc", "--keep", "1").returncode == 0
    assert [run.run for run in summaries(store) if run.emptied_at is None] == [later[-1].id]


def _runs(folder: Path) -> list[RunPlace]:
    store = open_store(folder / "store")
    return runs_of(store, named_flow(store, "demo"))


@pytest.mark.running
def test_a_copy_of_the_notebook_sees_what_the_other_made_last(tmp_path: Path) -> None:
    """Results are shared between the flows of a store, and so is the order of their runs."""
    ahead, here = Machine(tmp_path, HOUR), Machine(tmp_path, 0.0)
    first, copy = notebook(tmp_path, *CELLS[:2]), notebook(tmp_path, *CELLS[:2], name="copy")
    assert ahead.nbflow("run", first).returncode == 0
    assert here.nbflow("run", copy, "--fresh").returncode == 0
    assert here.nbflow("run", first).returncode == 0
    store = str(tmp_path / "store")
    first_run, copied = (nbflow.Flow(name, store=store).latest_run for name in ("demo", "copy"))
    assert first_run is not None
    assert copied is not None
    assert first_run.data.x == copied.data.x


@pytest.mark.running
def test_resume_goes_on_from_the_run_that_failed_last(tmp_path: Path) -> None:
    ahead, here = Machine(tmp_path, HOUR), Machine(tmp_path, 0.0)
    path = notebook(tmp_path, "%%params\nn: int = 1", "%%step a\nx = n\nif n < 3:\n    raise ValueError(n)")
    assert ahead.nbflow("run", path, "-p", "n=1").returncode == 1
    assert here.nbflow("run", path, "-p", "n=2").returncode == 1
    last = _runs(tmp_path)[0].run
    notebook(tmp_path, "%%params\nn: int = 1", "%%step a\nx = n")
    done = here.nbflow("resume")
    assert done.returncode == 0, done.stderr
    assert f"resume of demo/{last}" in done.stdout + done.stderr
    run = nbflow.Flow("demo", store=str(tmp_path / "store")).latest_run
    assert run is not None
    assert run.data.x == 2


@pytest.mark.running
def test_a_tag_that_was_taken_off_later_is_gone(tmp_path: Path) -> None:
    ahead, here = Machine(tmp_path, HOUR), Machine(tmp_path, 0.0)
    path = notebook(tmp_path, "%%step a\nx = 1")
    assert here.nbflow("run", path).returncode == 0
    assert ahead.nbflow("tag", "demo/latest", "good").returncode == 0
    assert "no tags" in here.nbflow("tag", "demo/latest", "--remove", "good").stdout


@pytest.mark.running
def test_a_result_from_the_future_does_not_stay_fresh(tmp_path: Path) -> None:
    ahead, here = Machine(tmp_path, HOUR), Machine(tmp_path, 0.0)
    path = notebook(tmp_path, "import os", "%%step a --expires 10m\nx = os.urandom(4)")
    assert ahead.nbflow("run", path).returncode == 0
    told = here.nbflow("plan", path).stdout
    assert "the clock of the machine that made it was ahead" in told
    assert here.nbflow("run", path).returncode == 0
    here.nbflow("run", path)
    run = nbflow.Flow("demo", store=str(tmp_path / "store")).latest_run
    assert run is not None
    assert {step.state for step in run.steps()} == {"reused"}


def test_run_ids_go_on_from_the_newest_of_the_store(tmp_path: Path) -> None:
    at = time.time() + 5 * HOUR
    made = StoredRun(tmp_path, ["%%step a\nx = 1"], run=records.new_run_id(at=at))
    store = made.store
    for word in ("99991231-235959-fffaaaaaa", "99999999-999999-fffaaaaaa", "no-run"):
        (tmp_path / "store" / "flows" / made.place.folder / "runs" / word).mkdir()
    first = records.new_run_id(store)
    assert made.run < first < records.new_run_id(at=at + 1)
    StoredRun(tmp_path, ["%%step a\nx = 1"], run=first)
    assert first < records.new_run_id(store) < records.new_run_id(at=at + 1)
    assert records.new_run_id(open_store(tmp_path / "other")) < records.new_run_id(at=time.time() + 1)


def test_the_place_of_a_record_is_behind_what_was_seen(tmp_path: Path) -> None:
    run = StoredRun(tmp_path, ["%%step a\nx = 1"])
    record: Record = run.execute("a")
    assert records.newest_place(run.store, record.key) == record.created_at
    assert records.stamp_after(record.created_at + 1, record.created_at) == 0.0
    assert records.stamp_after(record.created_at - HOUR, record.created_at) > record.created_at
    assert records.newest_place(run.store, "nothing") == 0.0
    assert keys.AHEAD < HOUR
