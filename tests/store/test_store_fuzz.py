"""Every file of a store in turn emptied, cut off, overwritten or gone: nothing of ours fails for it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import NbflowError
from nbflow.flow.notebook import document_of

pytestmark = pytest.mark.running

MILL = [
    "%%params\ngrain: int = 3",
    "%%step mill\nflour = [float(n) * grain for n in range(20_000)]\nprint('milled')",
    "%%step bake --foreach oven in range(3)\nbread = sum(flour[oven::3])",
    "%%step shelf --join bake\ntotal = sum(entry.bread for entry in inputs)\nprint('shelved', total)",
    "%%step till --once\npaid = total / 2",
]
TOTAL = 3.0 * sum(range(20_000))


def flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :] if data else data


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "empty": lambda data, rng: b"",
    "cut": lambda data, rng: data[: len(data) // 2],
    "random": lambda data, rng: rng.randbytes(len(data)),
    "other": lambda data, rng: rng.choice([b"[]\n", b"null\n", b'{"format":1}\n', b'"text"\n', b"7\n", b"{}\n"]),
    "flipped": flip,
    "gone": lambda data, rng: None,
}


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a notebook that has run twice, the second time with a step that failed."""
    folder = tmp_path_factory.mktemp("mill")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        write(MILL)
        assert app.main(["run", "mill.ipynb"]) == 0
        write([*MILL, "%%step close\nraise ValueError('shut')"])
        assert app.main(["run", "mill.ipynb"]) == 1
    return folder


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.delenv("NBFLOW_STORE", raising=False)
    patch.setenv("NBFLOW_CACHE", str(folder / "cache"))


def write(cells: list[str]) -> None:
    Path("mill.ipynb").write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "mill"))


def files_of(folder: Path) -> list[str]:
    store = folder / ".nbflow"
    return sorted(str(place.relative_to(store)) for place in store.rglob("*") if place.is_file())


def look_at(damaged: str, runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that only looks ends with a code of its own, and every property of the client with a value."""
    words = [["plan", "mill.ipynb"], ["why", "mill.ipynb", "shelf"], ["check", "mill.ipynb"], ["runs", "--all"],
             ["gc", "--dry-run"], ["fsck"], *(["show", run] for run in runs),
             *(["show", f"{run}/shelf"] for run in runs),
             ["show", f"{runs[0]}/shelf/total"], ["logs", f"{runs[0]}/shelf"], ["diff", *runs]]  # fmt: skip
    for each in words:
        code = app.main(each)
        told = capsys.readouterr()
        fine = {0} if each[0] in ("plan", "why", "check", "runs", "gc") else {0, 1} if each[0] == "fsck" else {0, 2, 3}
        assert code in fine, (each, code, told)
        assert "itself failed" not in told.out + told.err, (each, told)
        assert "Traceback" not in told.out + told.err, (each, told)
        assert code == 0 or "error: " in told.err or each[0] == "fsck", (each, told)
    for name in runs:
        # of a run whose events are damaged half of the names may be known; all else is told as what it is
        with suppress(NbflowError, *([AttributeError] if "/events/" in damaged else [])):
            run = nbflow.Run(name)
            _ = (repr(run), run._repr_html_(), run.status, run.error, run.tags, run.metadata, run.params, run.card.html)
            for step in run.steps():
                for task in step.tasks:
                    _ = (task.stdout, task.artifacts, task.outputs, task.error, task.reasons, task.card.html, task.lost)
            assert run.data.total == TOTAL


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_no_file(
    damage: str, mill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(damage)
    runs = sorted({Path(name).parts[3] for name in files_of(mill) if "/runs/" in name})
    for number, name in enumerate(files_of(mill)):
        if name == "nbflow.json":
            continue
        folder = tmp_path / str(number)
        shutil.copytree(mill, folder)
        monkeypatch.setenv("NBFLOW_TRUST", str(folder / ".nbflow"))  # a copy
        enter(folder, monkeypatch)
        place = folder / ".nbflow" / name
        data = DAMAGES[damage](place.read_bytes(), rng)
        place.unlink()
        if data is not None:
            place.write_bytes(data)
        print(damage, name)
        look_at(name, runs, capsys)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)


@pytest.mark.parametrize("start", range(0, len(DAMAGES), 2))
def test_a_run_makes_again_what_is_damaged(
    start: int, mill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever file it is, a run ends well with the right values, and the next one reuses them."""
    rng = random.Random(start)
    names = [name for name in files_of(mill) if name != "nbflow.json"]
    for number, name in enumerate(names):
        if number % 3 != start // 2:
            continue
        kind = rng.choice(list(DAMAGES))
        folder = tmp_path / str(number)
        shutil.copytree(mill, folder)
        monkeypatch.setenv("NBFLOW_TRUST", str(folder / ".nbflow"))  # a copy
        enter(folder, monkeypatch)
        place = folder / ".nbflow" / name
        data = DAMAGES[kind](place.read_bytes(), rng)
        place.unlink()
        if data is not None:
            place.write_bytes(data)
        write(MILL)
        if number % 2:
            assert app.main(["fsck", "--repair"]) == ("claims/" in name and data is not None), (kind, name)
            assert app.main(["fsck"]) == ("claims/" in name and data is not None), (kind, name)
        capsys.readouterr()
        code = app.main(["run", "mill.ipynb"])
        told = capsys.readouterr()
        if code == 1:  # whether it has been paid nobody knows: it is asked, and not done twice
            assert name.startswith("results/"), (kind, name, told)
            assert ".till." in name, (kind, name, told)
            assert "--once: it began in" in told.err, (kind, name, told)
            code = app.main(["run", "mill.ipynb", "--again", "till"])
        assert code == 0, (kind, name, told, capsys.readouterr())
        assert nbflow.Flow("mill").latest_run.data.total == TOTAL, (kind, name)
        assert nbflow.Flow("mill").latest_run.data.paid == TOTAL / 2, (kind, name)
        assert app.main(["run", "mill.ipynb"]) == 0
        again = nbflow.Flow("mill").latest_run
        assert [step.name for step in again.steps() if step.state == "done"] == [], (kind, name)
        assert app.main(["resume"]) in (0, 1, 2)  # the last run that failed, where it is still known
        told = capsys.readouterr()
        assert "itself failed" not in told.out + told.err, (kind, name, told)
        assert app.main(["gc", "--force"]) == 0
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
