# ruff: noqa: E501 - a line of a cell stands in one line
"""What steps do outside happens in document order, also where only a run shows what they touch, and never twice."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.model import RunEvent, Snapshot, TaskChanged, TaskOutput
from tests.support.equality import equal
from tests.support.plain import run_reference

pytestmark = pytest.mark.running

SLOW = "import time\nuntil = time.monotonic() + 1.5\nwhile time.monotonic() < until:\n    time.sleep(0.01)\ndel until\n"
HELPERS = """
import configparser, json, shelve, shutil, sqlite3, subprocess
from pathlib import Path

NAME = "state"


def put(value):
    Path(NAME + ".txt").write_text(str(value))


def add(value):
    with open(NAME + ".log", "a") as log:
        log.write(f"{value} ")


def get():
    return Path(NAME + ".txt").read_text()


def found():
    return Path(NAME + ".txt").exists()


def insert(value):
    with sqlite3.connect(NAME + ".sqlite") as base:
        base.execute("create table if not exists t (x)")
        base.execute("insert into t values (?)", (value,))
    base.close()


def total():
    with sqlite3.connect(NAME + ".sqlite") as base:
        base.execute("create table if not exists t (x)")
        sum, = base.execute("select sum(x) from t").fetchone()
    base.close()
    return sum


def set_option(value):
    parser = configparser.ConfigParser()
    parser.read(NAME + ".ini")
    parser["all"] = {**dict(parser["all"] if "all" in parser else {}), value: "on"}
    with open(NAME + ".ini", "w") as file:
        parser.write(file)


def options():
    parser = configparser.ConfigParser()
    parser.read(NAME + ".ini")
    return sorted(parser["all"]) if "all" in parser else []


def keep(key):
    with shelve.open(NAME) as shelf:
        shelf[key] = 1


def kept():
    with shelve.open(NAME) as shelf:
        return sorted(shelf)


def move(old, new):
    Path(old + ".txt").rename(new + ".txt")


def program(word):
    subprocess.run(f"echo {word} >> {NAME}.log", shell=True, check=True)


def log():
    path = Path(NAME + ".log")
    return path.read_text().split() if path.exists() else []
"""

RACES: dict[str, tuple[str, ...]] = {
    # name: cells; the first is slow, and a helper's code alone says what they touch
    "a file that is read": (f"{SLOW}helpers.put('new')", "text = helpers.get()", "twice = text * 2"),
    "a file that is looked for": (f"{SLOW}helpers.put('new')", "is_there = helpers.found()"),
    "written, read, written, read": (f"{SLOW}helpers.put('one')", "first = helpers.get()", "helpers.put('two')", "second = helpers.get()"),
    "a data base": (f"{SLOW}helpers.insert(5)\nk = 1", "sum_now = helpers.total()"),
    "a file of settings": (f"{SLOW}helpers.set_option('a')", "helpers.set_option('b')", "options = helpers.options()"),
    "a shelf": (f"{SLOW}helpers.keep('a')", "first = helpers.kept()", "helpers.keep('b')", "second = helpers.kept()"),
    "a file that is moved": (f"{SLOW}helpers.put('new')", "helpers.move('state', 'moved')\nk = 1", "is_there = helpers.found()"),
    "a program": (f"{SLOW}helpers.add('one')", "helpers.program('two')\nk = 1", "words = helpers.log()"),
    "an object's method": (f"{SLOW}out.flush('new')", "text = open('state.txt').read()"),
    "what depends on one that has read too early": (f"{SLOW}helpers.put('new')", "text = helpers.get()", "size = len(text)\nhelpers.add(size)", "words = helpers.log()"),
}  # fmt: skip


def write(folder: Path, cells: tuple[str, ...]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "helpers.py").write_text(HELPERS)
    (folder / "state.txt").write_text("old")
    load = "import helpers\nclass Out:\n    def __init__(self, path):\n        self.path = path\n    def flush(self, text):\n        open(self.path, 'w').write(text)\nout = Out('state.txt')"
    path = folder / "demo.ipynb"
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate((load, *cells))), "demo"))
    return path


@pytest.mark.parametrize("name", RACES)
def test_the_first_run_leaves_what_the_plain_notebook_leaves(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "flow", RACES[name])
    plain = run_reference(write(tmp_path / "other", RACES[name]), tmp_path / "plain").values
    monkeypatch.chdir(path.parent)
    values = {name: value for name, value in plain.items() if name != "out"}
    assert values
    run = nbflow.run(path, all_cells=True)
    assert run.successful, run.error
    differences = {n: equal(getattr(run.data, n, "nothing"), v) for n, v in values.items()}
    assert not any(differences.values()), differences
    logs = [[*folder.rglob("state.log")] for folder in (path.parent, tmp_path / "plain")]
    assert len({log[0].read_text() if log else "" for log in logs}) == 1  # nothing was done twice, or out of turn


def test_branches_that_save_through_one_helper_compute_side_by_side(tmp_path: Path) -> None:
    half = "import time\nstart = time.time()\nwhile time.time() - start < 1:\n    time.sleep(0.01)\n"
    path = write(tmp_path, (
        f"%%step a\n{half}end_a = time.time()\nhelpers.NAME = 'a'\nhelpers.put(1)",
        f"%%step b\nbegin_b = time.time()\n{half}helpers.NAME = 'b'\nhelpers.put(2)",
    ))  # fmt: skip
    run = nbflow.run(path)
    assert run.successful, run.error
    assert run.data.begin_b < run.data.end_a
    assert (tmp_path / "b.txt").stat().st_mtime >= (tmp_path / "a.txt").stat().st_mtime


def test_where_all_that_runs_waits_the_one_above_still_has_a_core(tmp_path: Path) -> None:
    path = write(tmp_path, (
        f"%%step first\n{SLOW}k = 1", "%%step second\nhelpers.add(k)\nw = k + 1",
        "%%step third\nhelpers.add(3)", "%%step fourth\nhelpers.add(4)", "%%step fifth\nhelpers.add(5)",
    ))  # fmt: skip
    run = nbflow.run(path, workers=2)
    assert run.successful, run.error
    assert (tmp_path / "state.log").read_text() == "1 3 4 5 "


LONG = "%%step slow\nimport time\nfor _ in range(1000):\n    time.sleep(0.03)\nhelpers.put(1)"


def test_a_failure_of_its_own_is_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, (LONG, "%%step b\nx = 1 / 0"))
    cancel = threading.Event()

    def watch(snapshot: Snapshot, event: RunEvent | TaskOutput | None) -> None:
        if isinstance(event, TaskChanged) and event.state == "failed":
            cancel.set()

    run = nbflow.run(path, watch=watch, cancel=cancel)
    assert (run["slow"].state, run["b"].state) == ("cancelled", "failed")


def test_who_waits_is_told_and_can_be_cancelled(tmp_path: Path) -> None:
    path = write(tmp_path, (LONG, "%%step b\nhelpers.add(1)"))
    cancel = threading.Event()
    reasons: list[str] = []

    def watch(snapshot: Snapshot, event: RunEvent | TaskOutput | None) -> None:
        for view in snapshot.tasks:
            if view.task.step == "b" and view.reasons and view.reasons[0][0] == "waiting":
                reasons.append(view.reasons[0][1])
                cancel.set()

    run = nbflow.run(path, watch=watch, cancel=cancel)
    assert (run["slow"].state, run["b"].state) == ("cancelled", "cancelled")
    assert reasons[0] == "waits before it touches state.log: slow above may do so first"
    assert not (tmp_path / "state.log").exists()
