"""`nbflow fsck`: what of a store is damaged, gone or of unknown name, whom it concerns, and its repair."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nbflow.cli import app
from nbflow.runs import integrity
from nbflow.runs.integrity import Integrity
from nbflow.store import records
from nbflow.store.location import open_store, store_at
from tests.store.test_old_stores import FIXTURE
from tests.support.stored import StoredRun

pytestmark = pytest.mark.usefixtures("folder")

CELLS = [
    "%%step grow\nimport numpy as np\nfruit = np.arange(100_000.0)\nkind = 'pear'",
    "%%step press\njuice = float(fruit.sum())",
]


def made(folder: Path) -> StoredRun:
    """A finished run of two steps, with a log, a fact and a sign of life."""
    run = StoredRun(folder, CELLS, flow="orchard")
    run.execute("grow")
    run.execute("press")
    records.write_facts(run.store, "c", {"changed": ["fruit"]})
    records.beat(run.store, run.place.folder, run.run, "w")
    run.end()
    return run


def examined(run: StoredRun) -> Integrity:
    return integrity.examine(store_at(run.store.url), lambda done, total: None)


def repaired(run: StoredRun) -> Integrity:
    return integrity.repair(store_at(run.store.url), examined(run))


def files(run: StoredRun) -> dict[str, bytes]:
    folder = Path(run.store.url)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def largest(run: StoredRun, part: str) -> Path:
    found = {path: len(data) for path, data in files(run).items() if part in path}
    return Path(run.store.url) / max(found, key=found.__getitem__)


def test_a_whole_store_is_clean(tmp_path: Path) -> None:
    run = made(tmp_path)
    found = examined(run)
    assert found.flaws == ()
    assert found.files == len(files(run))
    assert found.nbytes == sum(map(len, files(run).values()))
    before = files(run)
    assert repaired(run).flaws == ()
    assert files(run) == before
    assert integrity.text(found).endswith("nothing is damaged")


def test_an_older_store_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(FIXTURE / "store", tmp_path / "old")
    assert app.main(["fsck", "--store", str(tmp_path / "old")]) == 0
    assert "nothing is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("there", ["nothing", "a folder", "settings alone", "a file above it"])
@pytest.mark.parametrize("words", [(), ("--repair",), ("--json",)])
def test_where_there_is_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str, words: tuple[str, ...]
) -> None:
    """A wrong --store is told: that nothing of it is damaged would be no answer."""
    place = tmp_path / "none"
    if there == "a file above it":
        place.write_text("")
        place /= "x"
    elif there != "nothing":
        place.mkdir()
    if there == "settings alone":
        (place / "config.json").write_text('{"size": "1G"}')
    before = sorted(tmp_path.rglob("*"))
    assert app.main(["fsck", "--store", str(place), *words]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert str(place) in told.err
    assert "fix: " in told.err
    assert sorted(tmp_path.rglob("*")) == before


def flip(data: bytes) -> bytes:
    return data[:50] + bytes([data[50] ^ 4]) + data[51:]


@pytest.mark.parametrize("damage", [flip, lambda data: data[:-1], lambda data: b"", lambda data: None])
def test_a_damaged_segment_is_moved_aside_and_its_record_dropped(
    damage: Callable[[bytes], bytes | None], tmp_path: Path
) -> None:
    run = made(tmp_path)
    segment = largest(run, "segments/")
    data = damage(segment.read_bytes())
    segment.unlink()
    if data is not None:
        segment.write_bytes(data)
    found = examined(run)
    flaws = {flaw.path.partition("/")[0]: flaw for flaw in found.damaged}
    assert flaws.keys() == ({"segments", "results"} if data is not None else {"results"})
    label = (f"orchard/{run.run}/grow: fruit",)
    assert {flaw.concerns for flaw in flaws.values()} == {label}
    assert not repaired(run).damaged
    assert len([path for path in files(run) if path.startswith("segments/")]) == 1  # the other one is whole
    assert (f"damaged/{flaws['results'].path}" in files(run)) is True
    after = examined(run)
    assert not after.damaged
    assert [(flaw.kind, flaw.what) for flaw in after.flaws] == [("gone", "the result of grow is not there")]


@pytest.mark.parametrize("part", ["flow.json", "facts/", "beats/", "results/", "notebook.ipynb", "nbflow.json"])
@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_torn_file_is_moved_aside(part: str, data: bytes, tmp_path: Path) -> None:
    run = made(tmp_path)
    place = next(Path(run.store.url) / path for path in sorted(files(run)) if part in path)
    path = str(place.relative_to(run.store.url))
    place.write_bytes(data)
    assert [flaw.path for flaw in examined(run).damaged] == [path]
    mended = repaired(run)
    done = [(flaw.path, flaw.repaired) for flaw in mended.flaws if flaw.kind == "damaged"]
    assert done == [(path, "moved to damaged/")]
    assert files(run)[f"damaged/{path}"] == data
    assert not examined(run).damaged
    open_store(run.store.url)


def test_torn_lines_are_taken_out_and_the_others_stay(tmp_path: Path) -> None:
    run = made(tmp_path)
    place = largest(run, "/events/")
    lines = place.read_bytes().split(b"\n")
    place.write_bytes(b"\n".join([lines[0], b'{"torn', *lines[2:-2], lines[-2][:20]]))
    (flaw,) = examined(run).damaged
    assert flaw.lines == (1, len(lines) - 2)
    assert flaw.concerns == (f"{run.place.folder}/{run.run}",)
    before = records.read_events(run.store, run.place.folder, run.run)
    assert not repaired(run).damaged
    assert records.read_events(open_store(run.store.url), run.place.folder, run.run) == before
    assert not examined(run).damaged


def test_batches_lose_only_what_is_damaged(tmp_path: Path) -> None:
    run = made(tmp_path)
    good = files(run)
    path = Path(run.store.url) / "results/batches/c0de/r.abc-00000000-00000001.jsonl"
    path.parent.mkdir(parents=True)
    (press,) = (data for name, data in good.items() if "press" in name)
    path.write_bytes(press + b"\n{torn\n")
    (flaw,) = examined(run).damaged
    assert flaw.lines == (1,)
    assert not repaired(run).damaged
    assert path.read_bytes() == press + b"\n\n"


def test_what_is_unknown_or_gone_is_told_and_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path)
    (Path(run.store.url) / "notes.txt").write_text("mine")
    (Path(run.store.url) / "segments" / "b3" / "zz").mkdir()
    (Path(run.store.url) / "segments" / "b3" / "zz" / "top").write_text("mine")
    largest(run, "notebook.ipynb").unlink()
    assert app.main(["fsck", "--repair", "--store", run.store.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(flaw["kind"], flaw["path"].rpartition("/")[2]) for flaw in told["flaws"]] == [
        ("gone", "notebook.ipynb"), ("unknown", "notes.txt"), ("unknown", "top"),
    ]  # fmt: skip
    assert (Path(run.store.url) / "notes.txt").read_text() == "mine"


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path)
    words = ["fsck", "--store", run.store.url]
    assert app.main(words) == 0
    segment = largest(run, "segments/")
    segment.write_bytes(flip(segment.read_bytes()))
    assert app.main(words) == 1
    told = capsys.readouterr().out
    assert f"concerns orchard/{run.run}/grow: fruit" in told
    assert "fix: `nbflow fsck --repair`" in told
    assert app.main([*words, "--repair"]) == 0
    assert app.main(words) == 0
    (Path(run.store.url) / "nbflow.json").write_text('{"format": 99}')
    assert app.main(words) == 3


def test_an_elsewhere_store(tmp_path: Path) -> None:
    url = f"memory://fsck-{random.Random(str(tmp_path)).getrandbits(40)}"
    store = open_store(url)
    run = made(tmp_path)
    for path, data in files(run).items():
        store.write(path, data)
    assert integrity.examine(store, lambda done, total: None).flaws == ()
    path = str(largest(run, "segments/").relative_to(run.store.url))
    store.write(path, flip(store.read(path)))
    found = integrity.examine(store, lambda done, total: None)
    assert sorted(flaw.path.partition("/")[0] for flaw in found.damaged) == ["results", "segments"]
    assert not integrity.repair(store, found).damaged
    assert not integrity.examine(open_store(url), lambda done, total: None).damaged
