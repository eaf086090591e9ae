"""A datastore that came with a folder: looked at, never unpickled, reused or written, until its owner says so once."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import NbflowError, StoreError, UntrustedError
from nbflow.flow.notebook import document_of
from nbflow.jsonable import to_json
from nbflow.model import Buffer, Group, Record
from nbflow.runs import client, compare, launch
from nbflow.runs.face import DONE, UNUSABLE
from nbflow.runs.run_options import RunOptions
from nbflow.store import artifacts, records, settings, trust
from nbflow.store.interface import About
from nbflow.store.location import open_store, safe_name, store_url
from tests.support.by_hand import Start

pytestmark = pytest.mark.usefixtures("folder")
running = pytest.mark.running

CELLS = {
    "params": "%%params\nlr: complex = 1j\nname: str = 'x'", "def": "class Ship:\n    pass",
    "make": "%%step make --card\nship = Ship()\nnumbers = list(range(9))\nlr2 = lr\nprint('made')",
    "each": "%%step each --foreach n in numbers\ndouble = n * 2",
    "total": "%%step total --join each\ntotal = sum(t.double for t in inputs)",
}  # fmt: skip


def write(cells: dict[str, str], path: str = "demo.ipynb") -> Path:
    Path(path).write_text(document_of(cells.items(), Path(path).stem))
    return Path(path)


@pytest.fixture
def cloned(folder: Path) -> Path:
    """A project that a colleague has run, as it comes from them; the working folder."""
    (folder / "theirs").mkdir()
    os.chdir(folder / "theirs")
    write({"make": "%%step make\nx = [1, 2]", "use": "%%step use\ny = sum(x)"})
    assert nbflow.run("demo.ipynb").successful
    shutil.copytree(folder / "theirs", folder / "mine")
    os.chdir(folder / "mine")
    return folder / "mine"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LOOKS = [
    "runs", "runs --json", "show demo/latest", "show demo/latest/make", "logs demo/latest/make", "check demo.ipynb",
    "dag demo.ipynb", "card demo/latest/make -o ../c.html", "diff demo/latest demo/latest", "gc --dry-run", "fsck",
]  # fmt: skip
ACTS = [
    "run demo.ipynb", "plan demo.ipynb", "why demo.ipynb use", "resume demo/latest", "gc", "fsck --repair",
    "tag demo/latest mine", "verify demo.ipynb",
]  # fmt: skip


@running
def test_it_is_looked_at_and_nothing_else(cloned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(cloned)
    for words in LOOKS:
        assert app.main(words.split()) == DONE, words
    for words in ACTS:
        capsys.readouterr()
        assert app.main(words.split()) == UNUSABLE, words
        said = capsys.readouterr().err
        assert f"error: the datastore {cloned / '.nbflow'} was not made by you" in said, words
        assert f"nbflow trust {cloned / '.nbflow'}" in said, words
    run = nbflow.Run("demo/latest")
    with pytest.raises(UntrustedError):
        _ = run.data.x
    assert run["make"].task.artifacts["x"].preview == "[1, 2]"
    assert files(cloned) == before
    assert app.main(["trust"]) == DONE
    again = nbflow.run("demo.ipynb")
    assert ({step.state for step in again.steps()}, again.data.y) == ({"reused"}, 3)


@running
def test_ci_says_it_with_a_variable(cloned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (str(cloned / ".nbflow"), f"/elsewhere{os.pathsep}{cloned}/.nbflow/", "all"):
        monkeypatch.setenv("NBFLOW_TRUST", value)
        assert {row.action for row in nbflow.plan("demo.ipynb").tasks} == {"reuse"}
    monkeypatch.setenv("NBFLOW_TRUST", "/elsewhere")
    with pytest.raises(UntrustedError):
        nbflow.plan("demo.ipynb")


@running
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
@pytest.mark.parametrize(("answer", "code", "trusted"), [("y\n", 0, True), ("n\n", 3, False)])
def test_a_person_is_asked(cloned: Path, answer: str, code: int, trusted: bool) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = subprocess.run(
        [sys.executable, "-m", "nbflow", "plan", "demo.ipynb"], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
        timeout=100, check=False,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "Trust it, and go on? [y/N]" in said
    assert done.returncode == code
    assert open_store(cloned / ".nbflow").is_trusted == trusted


@running
def test_in_a_kernel(folder: Path, start: Start) -> None:
    kernel = start({"make": "%%step make\nx = 1"})
    kernel.ok("make")
    (folder / "theirs").mkdir()
    shutil.move(folder / ".nbflow", folder / "theirs")
    shutil.copytree(folder / "theirs" / ".nbflow", folder / ".nbflow", dirs_exist_ok=True)
    about = json.loads((folder / ".nbflow" / "nbflow.json").read_text())
    (folder / ".nbflow" / "nbflow.json").write_text(json.dumps({**about, "id": "another"}))
    kernel.restart()
    said = kernel.execute(kernel.notebook.cells["make"], "make")
    assert "%flow trust" in said.text
    assert kernel.execute("x").status == "error", "the cell has not run"
    assert kernel.execute("%flow runs --all").status == "ok", "it may be looked at"
    told = kernel.execute("%flow trust")
    assert told.status == "ok", told.text
    kernel.ok("make")


# ---------------------------------------------------------------- settings that came with the folder


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            del words

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/loot", asked
        listening.shutdown()
        thread.join()


def test_settings_of_a_cloned_folder_send_nobody_elsewhere(folder: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    write({"a": "%%step a\nx = 1"})
    (folder / ".nbflow").mkdir()
    (folder / ".nbflow" / "config.json").write_text(json.dumps({"store": url, "id": "0" * 32}))
    assert [app.main(words.split()) for words in ("check demo.ipynb", "dag demo.ipynb")] == [DONE, DONE]
    for words in (
        "runs",
        "plan demo.ipynb",
        "run demo.ipynb",
        "show demo/latest",
        "gc",
        "export demo.ipynb --to script -o out.py",
    ):
        assert app.main(words.split()) in (DONE, UNUSABLE), words
    with pytest.raises(UntrustedError):
        nbflow.Flow("demo")
    with pytest.raises(UntrustedError):
        settings.write_setting(folder, "size", "1G")
    assert asked == []
    open_store(folder / ".nbflow").remember()
    with pytest.raises(NbflowError):
        nbflow.Flow("demo")
    assert asked != [], "its owner has said so"


def test_own_settings_count_at_once(folder: Path) -> None:
    settings.write_setting(folder, "store", str(folder / "elsewhere"))
    assert store_url(None, folder, {}) == str(folder / "elsewhere")
    shutil.copytree(folder / ".nbflow", folder / "clone" / ".nbflow")
    with pytest.raises(UntrustedError):
        store_url(None, folder / "clone", {})


# ---------------------------------------------------------------- what created means


def test_a_datastore_is_known_by_its_id_and_its_place(folder: Path) -> None:
    store = open_store(folder / "store")
    assert store.is_trusted, "nothing is there yet"
    store.write("a", b"1")
    assert open_store(folder / "store").is_trusted
    assert open_store(folder / "x" / ".." / "store").is_trusted
    (folder / "link").symlink_to(folder / "store")
    assert open_store(folder / "link").is_trusted, "the same place"
    shutil.copytree(folder / "store", folder / "copy")
    assert not open_store(folder / "copy").is_trusted
    about = msgspec.json.decode((folder / "store" / "nbflow.json").read_bytes(), type=About)
    for other in (About(about.format), About(about.format, "0" * 32)):
        (folder / "store" / "nbflow.json").write_bytes(msgspec.json.encode(other))
        assert not open_store(folder / "store").is_trusted


@pytest.mark.parametrize("planted", ["results/ab/cd/1.json", "segments/b3/00/00", "flows/f/flow.json", "facts/1.json"])
def test_what_was_there_before_is_not_made_by_writing_beside_it(folder: Path, planted: str) -> None:
    place = folder / "store" / planted
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    store = open_store(folder / "store")
    assert not store.is_trusted
    for act in (lambda: store.write("a", b"1"), lambda: store.create("a", b"1")):
        with pytest.raises(UntrustedError):
            act()
    assert not (folder / "store" / "nbflow.json").exists()


def test_where_nothing_can_be_kept_the_first_run_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("NBFLOW_STATE", str(folder / "file"))
    store = open_store(folder / "store")
    store.write("a", b"1")
    store.write("b", b"1")
    assert not open_store(folder / "store").is_trusted
    with pytest.raises(StoreError, match="cannot be kept"):
        open_store(folder / "store").remember()


def test_the_files_that_say_so_are_the_users_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_STATE", str(folder / "state"))
    open_store(folder / "store").write("a", b"1")
    (entry,) = (folder / "state" / "trusted").iterdir()
    assert entry.stat().st_mode & 0o077 == 0
    assert entry.parent.stat().st_mode & 0o077 == 0
    assert trust.is_known(str(folder / "store"), json.loads(entry.read_text())["id"])


def test_whoever_makes_one_at_the_same_moment_trusts_it(folder: Path) -> None:
    def use(place: Path) -> bool:
        store = open_store(place)
        store.write(f"facts/{threading.get_ident()}", b"1")
        return open_store(place).is_trusted

    def keep(place: Path) -> bool:
        settings.write_setting(place, "size", "1G")
        return settings.read_settings(place)["size"] == "1G" and open_store(place / ".nbflow").is_trusted

    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            places = [folder / f"store-{number}"] * 8
            assert all([*pool.map(use, places), *pool.map(keep, places)])


def test_a_user_without_a_home_is_told_what_to_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NBFLOW_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    open_store(folder / "store").write("a", b"1")
    assert not open_store(folder / "store").is_trusted
    with pytest.raises(StoreError) as told:
        open_store(folder / "store").remember()
    assert told.value.fix == "name a folder to be used instead in NBFLOW_STATE"
    monkeypatch.setenv("NBFLOW_TRUST", f"file://{folder}/st%6Fre")
    assert open_store(folder / "store").is_trusted


def test_what_is_being_made_is_kept_among_many_that_have_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_STATE", str(folder / "state"))
    trusted = folder / "state" / "trusted"
    for number in range(trust.MOST_KEPT + 1):
        trust.remember(str(folder / "gone" / str(number)), "id")
    for entry in list(trusted.iterdir())[:5]:
        os.utime(entry, (0, time.time() - trust.LONG_AGO - 60))
    trust.remember(str(folder / "plugged out"), "id")
    assert len(list(trusted.iterdir())) == trust.MOST_KEPT + 2 - 5
    open_store(folder / "store").write("a", b"1")
    assert open_store(folder / "store").is_trusted


# ---------------------------------------------------------------- poisoned pickles

MARK = "poison-ran"


def poison(at: int) -> bytes:
    """A pickle that makes a file when it is read, each in another way."""
    path = repr(MARK)
    ways = [
        f"cos\nsystem\n(S'touch {MARK}'\ntR.", f"cbuiltins\nexec\n(S\"open({path}, 'w')\"\ntR.",
        f"cbuiltins\neval\n(S\"open({path}, 'w')\"\ntR.", f"csubprocess\ncheck_call\n((lS'touch'\naS'{MARK}'\natR.",
        f"(S'touch {MARK}'\nios\nsystem\n.", f"cposix\nsystem\n(S'touch {MARK}'\ntR.",
    ]  # fmt: skip
    return ways[at % len(ways)].encode()


def poisoned(record: Record, at: int, *, only: int | None = None) -> Record:
    """A record whose groups are poison, with ids that agree with it."""
    groups = []
    for number, group in enumerate(record.groups):
        if only is not None and number != only:
            groups.append(group)
            continue
        stream = poison(at)
        forged = Group(
            id="", names=group.names, serializer="pickle", stream=Buffer(length=len(stream), inline=stream),
            definitions=group.definitions if at % 3 else (), free=group.free if at % 2 else (),
        )  # fmt: skip
        whole = (forged.stream, *forged.buffers)
        groups.append(msgspec.structs.replace(forged, id=artifacts._group_id(whole, forged.definitions)))
    return msgspec.structs.replace(record, groups=tuple(groups))


@pytest.fixture
def poisonous(folder: Path) -> Path:
    """A project whose every stored value is poison, in 23 records at least; the working folder."""
    (folder / "theirs").mkdir()
    os.chdir(folder / "theirs")
    write(CELLS)
    assert nbflow.run("demo.ipynb").successful
    edited = {**CELLS, "make": CELLS["make"] + "\nmore = {1, 2}", "last": "%%step last\nextra = ship"}
    write(edited)
    assert nbflow.run("demo.ipynb").successful
    store = open_store(".nbflow")
    count = 0
    for record in list(records.all_records(store)):
        count += len(record.groups)
        path = f"{records.result_folder(record.key)}/{safe_name(record.execution)}.json"
        assert store.exists(path)
        store.write(path, to_json(poisoned(record, count)))
    assert count >= 23
    shutil.copytree(folder / "theirs", folder / "mine")
    os.chdir(folder / "mine")
    return folder / "mine"


def shown(value: Any) -> str:
    return repr(value) + (value._repr_html_() or "") if hasattr(value, "_repr_html_") else repr(value)


PYTHON: dict[str, Callable[[client.Run], Any]] = {
    "flow": lambda run: shown(nbflow.Flow("demo")),
    "run": lambda run: (shown(run), run.error, run.tags, run.metadata, run.snapshot, dir(run.data), repr(run.data)),
    "params": lambda run: (repr(run.params), list(run.params), len(run.params), "lr" in run.params, dir(run.params)),
    "a parameter that JSON writes": lambda run: run.params["name"],
    "steps": lambda run: ([(shown(step), step.state) for step in run.steps()], dir(run["make"].data)),
    "tasks": lambda run: [(shown(t), t.outputs, t.metadata, repr(t.data)) for s in run.steps() for t in s.tasks],
    "artifacts": lambda run: [
        (shown(one), one.preview, one.type) for s in run.steps() for t in s.tasks for one in t.artifacts.values()
    ],
    "items": lambda run: [task.item for task in run["each"].tasks],
    "cards": lambda run: [(shown(task.card), str(task.card)) for s in run.steps() for task in s.tasks],
    "notebook": lambda run: run.notebook_with_outputs(),
    "diff": lambda run: [show(compare.compare(run, run)) for show in (compare.text, compare.as_html)],
    "check": lambda run: launch.check("demo.ipynb"),
}  # fmt: skip
LOADS: dict[str, Callable[[client.Run], Any]] = {
    "a value": lambda run: run.data.ship,
    "of an artifact": lambda run: run["make"].task.artifacts["ship"].value,
    "a parameter": lambda run: run.params["lr"],
    "all parameters": lambda run: dict(run.params),
    "inputs": lambda run: run["total"].task.load_inputs()["inputs"][0].double,
    "plan": lambda run: launch.plan("demo.ipynb"),
    "why": lambda run: launch.why("demo.ipynb", "make", RunOptions()),
    "run": lambda run: nbflow.run("demo.ipynb"),
    "resume": lambda run: nbflow.run("demo.ipynb", resume=run.id),
    "verify": lambda run: nbflow.verify("demo.ipynb"),
}


@running
def test_no_look_and_no_verb_runs_a_poisoned_pickle(poisonous: Path) -> None:
    run = nbflow.Run("demo/latest")
    for name, look in PYTHON.items():
        look(run)
        assert not Path(MARK).exists(), name
    for name, load in LOADS.items():
        with pytest.raises(UntrustedError):
            load(run)
        assert not Path(MARK).exists(), name
    for words in [
        *LOOKS,
        *ACTS,
        "show demo/latest/make/ship",
        "export demo.ipynb --to script -o out.py",
        "attach demo/latest",
    ]:
        assert app.main(words.split()) in (DONE, UNUSABLE), words
        assert not Path(MARK).exists(), words
    open_store(poisonous / ".nbflow").remember()
    for name, look in PYTHON.items():  # nor does looking where it is trusted
        look(nbflow.Run("demo/latest"))
        assert not Path(MARK).exists(), name
    for words in (*LOOKS, "plan demo.ipynb", "why demo.ipynb total"):
        assert app.main(words.split()) == DONE, words
        assert not Path(MARK).exists(), words
    with contextlib.suppress(Exception):  # whatever the poison has made of it
        _ = nbflow.Run("demo/latest").params["lr"]
    assert Path(MARK).exists(), "the poison works"


CODE = "%%params\nimport_name: str = __import__('pathlib').Path('computed').touch() or 'x'\nplain: int = 3"


@running
def test_planning_keeps_nothing_of_parameters_that_it_computes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write({"params": CODE, "a": "%%step a\ny = plain"})
    assert app.main(["check", "demo.ipynb"]) == DONE
    assert not Path("computed").exists()
    plan = nbflow.plan("demo.ipynb")
    assert [finding.code for finding in plan.findings] == ["parameters"]
    assert "notes" in launch.why("demo.ipynb", "a")
    assert app.main(["why", "demo.ipynb", "a"]) == DONE
    assert "note: defaults of this %%params cell are code, which was run to know them" in capsys.readouterr().out
    assert not Path(".nbflow").exists()
    run = nbflow.run("demo.ipynb")
    assert (run.successful, run.data.y, run.params["import_name"]) == (True, 3, "x")
