"""An effect happens as often as in the plain notebook: ten kinds of them are counted in every lane."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.kernel import Kernel, NotebookFile
from tests.support.plain import plain_source

pytestmark = [pytest.mark.notebooks, pytest.mark.xdist_group("effects")]

LEDGER = """
import os

def note(kind):
    with open(os.path.join(os.path.dirname(__file__), "ledger.txt"), "a") as file:
        file.write(kind + "\\n")
    return kind

def configure(kind): note(kind)

class Shop:
    def register(self, kind): note(kind)

shop = Shop()
"""

CELLS = {
    "top": "import ledger, logging, os, sqlite3, subprocess, sys, urllib.request\nfrom ledger import note",
    "plain": "note('a call in a plain cell')",
    "log": "logging.basicConfig(filename='log.txt', force=True)",
    "one": "%%step one\nledger.configure('a call named like a setting')\nledger.shop.register('a method')\nx = 1",
    "two": "%%step two\nledger.last = note('an attribute that a call makes')\ny = x + 1\nlogging.warning('a message')",
    "three": "%%step three\nwith open('file.txt', 'a') as file:\n    file.write('a file\\n')\nz = y + 1",
    "four": "%%step four\n"
    "subprocess.run([sys.executable, '-c', \"open('program.txt', 'a').write('a program\\\\n')\"])\n"
    "w = z + 1",
    "five": "%%step five\nos.environ['EFFECT_Q'] = os.environ.get('EFFECT_Q', '') + 'a variable '\n"
    "os.makedirs('inner', exist_ok=True)\nos.chdir('inner')\nv = w + 1",
    "six": "%%step six\nopen('folder.txt', 'a').write('the folder\\n')\nu = v + 1",
    "seven": "%%step seven\nos.chdir('..')\nbase = sqlite3.connect('base.sqlite')\n"
    "base.execute('create table if not exists t (x)')\nbase.execute(\"insert into t values ('a data base')\")\n"
    "base.commit()\nbase.close()\ndel base\nt = u + 1",
    "eight": "%%step eight\nurllib.request.urlopen(os.environ['EFFECT_URL'], data=b'a request').read()\ns = t + 1",
    "fan": "%%step fan --foreach i in range(3)\nnote(f'item {i}')\nr = i + s",
    "join": "%%step join --join fan\nq = [each.r for each in inputs]",
    "end": "%%step end\nopen('end.txt', 'a').write(os.environ['EFFECT_Q'] + '\\n')\np = q, u",
}
"""Each cell below the first is there to be executed once; what stands above another one must not be executed for it."""

FILES = ("ledger.txt", "log.txt", "file.txt", "program.txt", "inner/folder.txt", "end.txt")


class _Requests(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Place:
    """A notebook in a folder of its own, and what was done to the world."""

    folder: Path
    server: http.server.HTTPServer
    cells: dict[str, str] = field(default_factory=lambda: {"ext": "%load_ext nbflow", **CELLS})

    def notebook(self) -> NotebookFile:
        (self.folder / "ledger.py").write_text(LEDGER)
        return NotebookFile(self.folder / "flow.ipynb", self.cells)

    @property
    def environment(self) -> dict[str, str]:
        return {"EFFECT_URL": f"http://127.0.0.1:{self.server.server_port}/", "PYTHONHASHSEED": "0"}

    def run(self, *options: str) -> str:
        command = [sys.executable, "-m", "nbflow", *(options or ("run", str(self.folder / "flow.ipynb")))]
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kernel(self, notebook: NotebookFile, *, load: bool = True) -> Kernel:
        return Kernel(notebook, load=load, env=self.environment)

    def effects(self) -> Counter[str]:
        """Return how often each effect has happened."""
        effects: Counter[str] = Counter(self.server.bodies)  # type: ignore[attr-defined]
        for name in FILES:
            text = (self.folder / name).read_text() if (self.folder / name).exists() else ""
            effects.update(f"{name}: {line}" for line in text.splitlines())
        if (self.folder / "base.sqlite").exists():
            import sqlite3

            base = sqlite3.connect(self.folder / "base.sqlite")
            effects.update(row[0] for row in base.execute("select x from t"))
            base.close()
        return effects


@contextlib.contextmanager
def serving() -> Iterator[http.server.HTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Requests) as server:
        server.bodies = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with serving() as server:
        yield Place(tmp_path, server)


@pytest.fixture(scope="module")
def plainly(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """Return the effects of the notebook run top to bottom in a plain kernel."""
    loops = {
        "fan": "for i in range(3):\n    note(f'item {i}')\n    r = i + s",
        "join": "q = [i + s for i in range(3)]",
    }
    cells = {name: plain_source(text) for name, text in (CELLS | loops).items()}
    with serving() as server:
        place = Place(tmp_path_factory.mktemp("plain"), server, cells)
        with place.kernel(place.notebook(), load=False) as kernel:
            for cell in place.cells:
                assert kernel.run(cell).status == "ok", cell
        effects = place.effects()
    assert len(effects) == 14, effects
    assert set(effects.values()) == {1}, effects
    return effects


def test_in_runs(place: Place, plainly: Counter[str]) -> None:
    place.notebook()
    place.run()
    assert place.effects() == plainly
    place.run()  # all reused
    assert place.effects() == plainly


def test_by_hand(place: Place, plainly: Counter[str]) -> None:
    notebook = place.notebook()
    with place.kernel(notebook) as kernel:
        for cell in place.cells:
            kernel.ok(cell)
    assert place.effects() == plainly


def test_by_hand_and_in_processes_in_turns(place: Place, plainly: Counter[str]) -> None:
    for at, (name, text) in enumerate(place.cells.items()):
        if at % 2 and text.startswith("%%step") and "--foreach" not in text and "--join" not in text:
            place.cells[name] = re.sub(r"^(%%step \w+)", r"\1 --retry 1", text)
    notebook = place.notebook()
    with place.kernel(notebook) as kernel:
        for cell in place.cells:
            kernel.ok(cell)
    assert place.effects() == plainly


def test_a_flow_run_in_the_kernel(place: Place, plainly: Counter[str]) -> None:
    notebook = place.notebook()
    with place.kernel(notebook) as kernel:
        executed = kernel.execute("%flow run", timeout=120)
        assert executed.status == "ok", executed.text
    assert place.effects() == plainly


def test_below_retries_and_turns(place: Place, plainly: Counter[str]) -> None:
    """What a step does again is its own: no attempt and no turn executes what stands above it."""
    place.cells["retried"] = "%%step retried --retry 2\nif current.attempt < 3:\n    raise ValueError(q)\no, n = 1, 0"
    place.cells["top"] += "\nfrom nbflow import current"
    place.cells["turns"] = "%%step turns --until n > 2\nn = n + o"
    place.notebook()
    place.run()
    assert place.effects() == plainly


def test_a_step_that_failed_is_resumed(place: Place, plainly: Counter[str]) -> None:
    last = place.cells["end"]
    place.cells["end"] = "%%step end\nraise ValueError(q)"
    place.notebook()
    with pytest.raises(AssertionError, match="ValueError"):
        place.run()
    place.cells["end"] = last
    place.notebook()
    place.run("resume")
    assert place.effects() == plainly
