"""Runs in which everything is reused, beside those of another commit: python -m bench.compare REV [--quick].

The examples run as they are, the notebooks of tests/wild with every cell as a step. `nbflow run` is timed from the
shell, each commit with its own copies and stores; the two take turns, and each one's best time counts.
`make bench COMPARE=REV` calls it.
"""

from __future__ import annotations

import argparse
import os
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


class Side:
    """One commit: its tree, and a folder for its copies of notebooks, its stores and its cache."""

    def __init__(self, tree: Path, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.environment = {
            **os.environ, "PYTHONPATH": str(tree), "NBFLOW_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }  # fmt: skip
        self.environment.pop("NBFLOW_STORE", None)
        self.places: dict[Path, Path] = {}

    def run(self, notebook: Path) -> float:
        """Run a notebook from the shell; return the seconds that it took, -1 where it did not end well."""
        if notebook not in self.places:
            self.places[notebook] = copy_with_data(notebook, self.folder / notebook.stem)
        place = self.places[notebook]
        words = ["--all-cells"] if "wild" in notebook.parts else []
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "nbflow", "run", place.name, *words],
            stdin=subprocess.DEVNULL, capture_output=True, env=self.environment, cwd=place.parent, check=False,
        )  # fmt: skip
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


def compared(ours: Side, theirs: Side, notebook: Path, rounds: int) -> Row | None:
    """Return a notebook's reused run beside the other commit's; None where it does not run to its end on both."""
    if ours.run(notebook) < 0 or theirs.run(notebook) < 0:
        return None
    times = [(ours.run(notebook), theirs.run(notebook)) for _ in range(rounds)]
    mine, other = min(one for one, _ in times), min(other for _, other in times)
    return Row(notebook.parent.name, notebook.stem, 1000 * mine, beside=1000 * other, against="other commit")


def measure(revision: str, *, quick: bool = False) -> list[Row]:
    """Return a row for each notebook, and one for all of them."""
    notebooks = [*sorted(HERE.glob("examples/*.ipynb")), *sorted(HERE.glob("tests/wild/*.ipynb"))]
    with tempfile.TemporaryDirectory() as name, checkout(revision, Path(name)) as tree:
        ours, theirs = Side(HERE, Path(name) / "ours"), Side(tree, Path(name) / "theirs")
        found = (compared(ours, theirs, each, 3) for each in notebooks[:: 4 if quick else 1])
        rows = [row for row in found if row is not None]
    mine, other = sum(row.value for row in rows), sum(row.beside or 0.0 for row in rows)
    whole = Row("all", f"{len(rows)} notebooks, all reused", mine, beside=other, against="other commit",
                aim=f"ratio ≥ {1 / LARGEST:.2f}")  # fmt: skip
    return [*rows, whole]


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
