"""What starting, a small step and reused runs cost, beside another commit: python -m bench.compare REV [--quick].

Importing is measured in processor time, a `%%step` in a shell by what it takes more than the same plain cell. Of runs
those count in which everything is reused: the examples as they are, the notebooks of tests/wild with every cell as a
step, from the shell. Each commit has its own copies and stores, and its files are compiled before; the two take turns,
and each one's best time counts. `make bench COMPARE=REV` calls it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rows import Row, table
from tests.support.plain import copy_with_data

HERE = Path(__file__).resolve().parent.parent
LARGEST = 1.1
"""Times the other commit's time that a reused run may take, over all notebooks."""

AIM = f"ratio ≥ {1 / LARGEST:.2f}"
BESIDE = "other commit"
IMPORTS = {
    "import nbflow": ("nbflow",),
    "import the session": ("nbflow.kernel.session", "nbflow.session"),
    "import the command line": ("nbflow.cli.app", "nbflow.cli"),
}
"""What is imported: the first of these modules that a commit has."""

FIRST = """
import sys
for name in sys.argv[1:]:
    try:
        __import__(name)
        break
    except ModuleNotFoundError:
        pass
else:
    sys.exit(1)
"""
STEPS = "import json, runpy, sys\nprint(json.dumps(runpy.run_path(sys.argv[1])['measure'](int(sys.argv[2]))))"


class Side:
    """One commit: its tree, and a folder for its copies of notebooks, its stores and its cache."""

    def __init__(self, tree: Path, folder: Path) -> None:
        compileall.compile_dir(tree / "nbflow", quiet=1)
        folder.mkdir()
        self.folder = folder
        self.environment = {
            **os.environ, "PYTHONPATH": str(tree), "NBFLOW_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }  # fmt: skip
        self.environment.pop("NBFLOW_STORE", None)
        self.places: dict[Path, Path] = {}

    def python(self, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Let an interpreter of this commit do something."""
        return subprocess.run(
            [sys.executable, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.environment,
            cwd=folder or self.folder, check=False,
        )  # fmt: skip

    def imported(self, modules: tuple[str, ...]) -> float:
        """Import the first of some modules that there is; return the ms of the processor that it took."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.python("-c", FIRST, *modules).check_returncode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def steps(self, rounds: int) -> dict[str, float]:
        """Return the ms that steps take more than the same plain cells, by what they are."""
        done = self.python("-c", STEPS, str(HERE / "bench" / "overhead.py"), str(rounds))
        done.check_returncode()
        return {what: between for what, _, _, between in json.loads(done.stdout.splitlines()[-1])}

    def run(self, notebook: Path) -> float:
        """Run a notebook from the shell; return the seconds that it took, -1 where it did not end well."""
        if notebook not in self.places:
            self.places[notebook] = copy_with_data(notebook, self.folder / notebook.stem)
        place = self.places[notebook]
        words = ["--all-cells"] if "wild" in notebook.parts else []
        began = time.perf_counter()
        done = self.python("-m", "nbflow", "run", place.name, *words, folder=place.parent)
        return -1.0 if done.returncode else time.perf_counter() - began


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """Give a tree of another commit, for as long as it is needed."""
    place = folder / "tree"
    subprocess.run(["git", "-C", HERE, "worktree", "add", "--detach", "--quiet", place, revision], check=True)
    try:
        yield place
    finally:
        subprocess.run(["git", "-C", HERE, "worktree", "remove", "--force", place], check=True)


def started(ours: Side, theirs: Side, rounds: int) -> list[Row]:
    """Return a row for each thing that is imported."""
    rows = []
    for what, modules in IMPORTS.items():
        times = [(ours.imported(modules), theirs.imported(modules)) for _ in range(rounds)]
        mine, other = (min(side) for side in zip(*times, strict=True))
        rows.append(Row("start, processor time", what, mine, beside=other, against=BESIDE, aim=AIM))
    return rows


def stepped(ours: Side, theirs: Side, rounds: int) -> list[Row]:
    """Return a row for each kind of step."""
    times = [(ours.steps(rounds), theirs.steps(rounds)) for _ in range(3)]
    rows = []
    for what in times[0][0]:
        mine, other = (min(side[what] for side in sides) for sides in zip(*times, strict=True))
        rows.append(Row("%%step over a plain cell", what, mine, beside=other, against=BESIDE, aim=AIM))
    return rows


def compared(ours: Side, theirs: Side, notebook: Path, rounds: int) -> Row | None:
    """Return a notebook's reused run beside the other commit's; None where it does not run to its end on both."""
    if ours.run(notebook) < 0 or theirs.run(notebook) < 0:
        return None
    times = [(ours.run(notebook), theirs.run(notebook)) for _ in range(rounds)]
    mine, other = (min(side) for side in zip(*times, strict=True))
    return Row(notebook.parent.name, notebook.stem, 1000 * mine, beside=1000 * other, against=BESIDE)


def measure(revision: str, *, quick: bool = False) -> list[Row]:
    """Return rows for starting and for steps, one for each notebook, and the last one for all of these."""
    notebooks = [*sorted(HERE.glob("examples/*.ipynb")), *sorted(HERE.glob("tests/wild/*.ipynb"))]
    with tempfile.TemporaryDirectory() as name, checkout(revision, Path(name)) as tree:
        ours, theirs = Side(HERE, Path(name) / "ours"), Side(tree, Path(name) / "theirs")
        rows = [*started(ours, theirs, 5 if quick else 15), *stepped(ours, theirs, 20 if quick else 60)]
        runs = [compared(ours, theirs, each, 3) for each in notebooks[:: 4 if quick else 1]]
    ended = [row for row in runs if row is not None]
    mine, other = sum(row.value for row in ended), sum(row.beside or 0.0 for row in ended)
    whole = Row("all", f"{len(ended)} notebooks, all reused", mine, beside=other, against=BESIDE, aim=AIM)
    return [*rows, *ended, whole]


def main() -> int:
    """Print the table; 1 where a reused run takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", metavar="REV")
    parser.add_argument("--quick", action="store_true", help="every fourth notebook")
    given = parser.parse_args()
    rows = measure(given.revision, quick=given.quick)
    print(table(rows))
    whole = rows[-1]
    return int(whole.ratio is not None and whole.ratio < 1 / LARGEST)


if __name__ == "__main__":
    sys.exit(main())
