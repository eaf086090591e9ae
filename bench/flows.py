"""A flow of three trivial steps and a fan-out of 300: in a live kernel, from the shell, reused; beside Metaflow."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import metaflow
from bench.overhead import write_notebook
from bench.rows import Row, in_turns, timed
from tests.support.kernel import Kernel, NotebookFile

THREE = {
    "ext": "%load_ext nbflow",
    "start": "%%step start\nx = 1",
    "middle": "%%step middle\ny = x + 1",
    "end": "%%step end\nz = y + 1",
}


def wide(size: int) -> dict[str, str]:
    """A number of items in; the cells of a fan-out over them out."""
    return {
        "ext": "%load_ext nbflow",
        "start": f"%%step start\nitems = list(range({size}))",
        "work": "%%step work --foreach item in items\ny = item * 2",
        "close": "%%step close --join work\ntotal = sum(each.y for each in inputs)",
    }


def shell(path: Path, store: str) -> None:
    """A notebook and a store in; `nbflow run` has run it."""
    command = [sys.executable, "-m", "nbflow", "run", str(path), "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])


def fresh(folder: Path, name: str) -> Callable[[], Path]:
    """A folder in; a function that makes a new empty folder in it each time out."""
    numbers = itertools.count()

    def make() -> Path:
        place = folder / f"{name}-{next(numbers)}"
        place.mkdir()
        return place

    return make


def three(folder: Path, rounds: int) -> list[Row]:
    """The three steps everywhere."""
    path = write_notebook(folder, THREE)
    ours, theirs = fresh(folder, "nbflow"), fresh(folder, "metaflow")
    notebook = NotebookFile(folder / "live.ipynb", THREE)
    again = str(ours())
    shell(path, again)
    with Kernel(notebook) as kernel:

        def live(code: str) -> None:
            done = kernel.execute(code, timeout=300)
            if done.status != "ok":
                raise RuntimeError(done.text)

        first = timed(lambda: live("%flow run"))
        works: dict[str, Callable[[], object]] = {
            "live": lambda: live("%flow run --fresh"),
            "live again": lambda: live("%flow run"),
            "shell": lambda: shell(path, str(ours())),
            "shell again": lambda: shell(path, again),
        }
        if metaflow.installed():
            metaflow.run(theirs(), metaflow.THREE)
            works["metaflow"] = lambda: metaflow.run(theirs(), metaflow.THREE)
        took = in_turns(rounds, **works)
    other = took.get("metaflow")
    against = "Metaflow" if other is not None else "(Metaflow is not installed)"
    return [
        Row("three steps", "live kernel, first run", first, beside=other, against=against),
        Row("three steps", "live kernel", took["live"], beside=other, against=against, aim="10 x"),
        Row("three steps", "live kernel, all reused", took["live again"], beside=other, against=against),
        Row("three steps", "shell", took["shell"], beside=other, against=against, aim="2 x"),
        Row("three steps", "shell, all reused", took["shell again"], beside=other, against=against),
    ]


def fan_out(folder: Path, size: int) -> list[Row]:
    """The fan-out, and the same in Metaflow."""
    path = write_notebook(folder, wide(size))
    store = str(folder / "store")
    took = timed(lambda: shell(path, store))
    again = timed(lambda: shell(path, store))
    other = None
    if metaflow.installed():
        other = timed(lambda: metaflow.run(fresh(folder, "metaflow")(), metaflow.WIDE, size))
    against = "Metaflow" if other is not None else "(Metaflow is not installed)"
    return [
        Row(f"foreach of {size}", "shell", took, beside=other, against=against),
        Row(f"foreach of {size}", "shell, a task", took / size, beside=other and other / size, against=against),
        Row(f"foreach of {size}", "shell, all reused", again, beside=other, against=against),
    ]


def measure(*, quick: bool) -> list[Row]:
    """The rows of this topic."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        return [*three(Path(one), 2 if quick else 7), *fan_out(Path(two), 30 if quick else 300)]
