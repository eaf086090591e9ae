"""A store that has lost or changed bytes: nothing wrong is handed out, what made it runs again, nobody fails for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import DamagedError, NotFoundError
from nbflow.flow.notebook import document_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("folder")

HARVEST = [
    "import numpy as np",
    "%%step harvest\nyields = np.arange(300_000.0)",
    "%%step weigh\ntotal = float(yields.sum())",
    "%%step sort --foreach lot in range(3)\nheap = yields[lot::3] + 0.5",
    "%%step store --join sort\ncrates = [float(entry.heap.sum()) for entry in inputs]",
]
TOTAL = float(sum(range(300_000)))


def write(cells: list[str], name: str = "farm") -> Path:
    path = Path(f"{name}.ipynb")
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), name))
    return path


def flip(place: Path) -> None:
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 0x10
    place.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "cut off": lambda place: os.truncate(place, 100),
    "empty": lambda place: os.truncate(place, 0),
    "gone": Path.unlink,
}


def segments() -> list[Path]:
    return sorted(place for place in Path(".nbflow/segments").rglob("*") if place.is_file())


def reasons(run: nbflow.Run) -> dict[str, str]:
    """Why each step ran that was not reused."""
    return {step.name: step.tasks[0].reasons[0][1] for step in run.steps() if step.state == "done"}


@pytest.mark.running
@pytest.mark.parametrize(
    ("damage", "machine"), [*((damage, "that wrote it") for damage in DAMAGES), ("a flipped bit", "another one")]
)
def test_a_run_makes_again_what_its_store_has_lost(
    damage: str, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by its look where this machine knows it, else when a step is about to read it, in the same run."""
    path = write(HARVEST)
    nbflow.run(path)
    for place in segments():
        DAMAGES[damage](place)
    if machine == "another one":
        monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "elsewhere"))
        shutil.copytree(".nbflow", "copied")
        shutil.rmtree(".nbflow")
        Path("copied").rename(".nbflow")
    edited = [*HARVEST[:2], HARVEST[2] + " + 0", *HARVEST[3:4], HARVEST[4] + "[:]"]
    run = nbflow.run(write(edited))
    assert run.status == "done", run.error
    assert run.data.total == TOTAL
    assert sum(run.data.crates) == TOTAL + 150_000
    assert "yields is missing or damaged" in reasons(run)["harvest"]
    again = nbflow.run(path)
    assert [step.name for step in again.steps() if step.state == "done"] == []


@pytest.mark.running
def test_a_damaged_value_is_told_and_fresh_mends_it() -> None:
    path = write(HARVEST[:2])
    run = nbflow.run(path)
    flip(segments()[0])
    with pytest.raises(DamagedError, match=r"yields cannot be loaded: segment b3:\w+ is damaged") as caught:
        _ = nbflow.Run(run.id).data.yields
    assert "--fresh" in (caught.value.fix or "")
    assert app.main(["run", str(path), "--fresh", "harvest"]) == 0
    assert float(nbflow.Run(run.id).data.yields.sum()) == TOTAL


@pytest.mark.running
@pytest.mark.parametrize("size", [3, 30_000])
@pytest.mark.parametrize("effect", ["", "with open('seen', 'a') as book:\n    book.write('x')\n"])
def test_a_join_whose_items_are_gone_runs_again_unless_it_had_an_effect(effect: str, size: int) -> None:
    """Its items are lost while it runs, as to a clean-up: they are read when its cell asks for them."""
    wait = "import time\nfrom pathlib import Path\nwhile not Path('go').exists():\n    time.sleep(0.02)\n"
    path = write([
        f"%%step sort --foreach lot in range(3)\nheap = [float(lot)] * {size}",
        f"%%step store --join sort\n{effect}{wait}total = sum(sum(entry.heap) for entry in inputs)",
    ])  # fmt: skip
    ended: list[nbflow.Run] = []
    thread = threading.Thread(target=lambda: ended.append(nbflow.run(path)), daemon=True)
    thread.start()
    seen = Path("seen")
    while not _is_running("store") and thread.is_alive():
        time.sleep(0.02)
    while effect and not seen.exists() and thread.is_alive():
        time.sleep(0.02)
    for place in Path(".nbflow/results").rglob("*"):
        if place.is_file() and b'"step":"sort"' in place.read_bytes():
            place.unlink()
    Path("go").touch()
    thread.join()
    (run,) = ended
    if effect:
        assert seen.read_text() == "x"
        assert run.status == "failed"
        assert run.error is not None
        assert run.error.type == "DamagedError"
        run = nbflow.run(path)
    assert run.status == "done", run.error
    assert run.data.total == 3.0 * size


def _is_running(step: str) -> bool:
    with suppress(NotFoundError):  # not yet begun
        return any(each.name == step and each.state == "running" for each in nbflow.Run("farm/latest").steps())
    return False


@pytest.mark.running
def test_what_is_being_written_is_no_damage(capsys: pytest.CaptureFixture[str]) -> None:
    loop = "%%step tick --foreach n in range(12)\nimport time\ntime.sleep(0.05)\nrows = list(range(n, 30_000))"
    path = write([*HARVEST, loop])
    process = subprocess.Popen([sys.executable, "-m", "nbflow", "run", str(path)], stdout=subprocess.DEVNULL)
    looks = 0
    eventually(Path(".nbflow", "nbflow.json").exists)
    while process.poll() is None:
        assert app.main(["fsck", "--json"]) == 0, capsys.readouterr()
        looks += 1
    assert process.returncode == 0
    assert looks > 3
    assert '"flaws":[]' in capsys.readouterr().out.splitlines()[-1].replace(" ", "")


@pytest.mark.running
def test_a_step_that_begins_once_is_given_whole_values_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [
        *HARVEST[:2],
        "%%step pay --once\nwith open('paid', 'a') as book:\n    book.write('x')\nsum = yields.sum()",
    ]
    nbflow.run(write(cells[:2]))
    for place in segments():
        flip(place)
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "elsewhere"))
    run = nbflow.run(write(cells))
    assert run.status == "done", run.error
    assert float(run.data.sum) == TOTAL
    assert Path("paid").read_text() == "x"
