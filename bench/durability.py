"""What it costs that results outlive a power cut: each flow with syncing, and with `os.fsync` doing nothing, in turns.

python -m bench.durability [--quick]
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.flows import wide
from bench.foreach import driver
from bench.overhead import write_notebook
from bench.rows import Row, in_turns, table

WITHOUT = "import os\nos.fsync = lambda descriptor: None\n"

GIGABYTE = {
    "make": "%%step make\nimport numpy as np\nxs = np.random.default_rng(1).random({count})",
    "close": "%%step close\ntotal = float(xs[:10].sum())",
}

ARRAYS = {
    "start": "%%step start\nimport numpy as np\nitems = list(range({count}))",
    "work": "%%step work --foreach item in items\nys = np.full(20_000, item, dtype=float) + np.arange(20_000.0)",
    "close": "%%step close --join work\ntotal = sum(float(each.ys[0]) for each in inputs)",
}


def steps(count: int) -> dict[str, str]:
    """Tiny steps below each other."""
    first = {"s0": "%%step s0\nx0 = 1"}
    return first | {f"s{at}": f"%%step s{at}\nx{at} = x{at - 1} + 1" for at in range(1, count)} | {
        "close": f"%%step close\ntotal = x{count - 1}"
    }  # fmt: skip


def compared(folder: Path, name: str, cells: dict[str, str], rounds: int, *, again: bool = False) -> Row:
    """A flow in; how long its runs take, beside those without syncing, out; `again`: everything is reused."""
    (folder / "without").mkdir(exist_ok=True)
    (folder / "without" / "sitecustomize.py").write_text(WITHOUT)
    path = write_notebook(folder, cells)
    number = itertools.count()

    def run(*, synced: bool) -> Callable[[], object]:
        def once() -> object:
            before = os.environ.get("PYTHONPATH", "")
            if not synced:
                os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "without"), before])
            try:
                place = folder / (f"store-{synced}" if again else f"store-{next(number)}")
                found = driver(path, place)
            finally:
                os.environ["PYTHONPATH"] = before
            if found["status"] != "done":
                raise RuntimeError(f"{name}: {found}")
            return found

        return once

    if again:
        run(synced=True)()
        run(synced=False)()
    took = in_turns(rounds, synced=run(synced=True), without=run(synced=False))
    return Row("outliving a power cut", name, took["synced"], beside=took["without"], against="no fsync", aim="0.95 x")


def measure(*, quick: bool) -> list[Row]:
    """The rows of this topic."""
    small, many, arrays, count = (20, 300, 50, 4_000_000) if quick else (100, 3000, 500, 125_000_000)
    rounds = 3 if quick else 5
    flows: list[tuple[str, dict[str, str], int, bool]] = [
        (f"{small} tiny steps", steps(small), rounds, False),
        (f"{small} tiny steps, all reused", steps(small), rounds, True),
        (f"a fan-out of {many:,}", wide(many), rounds, False),
        (f"a fan-out of {arrays} arrays of 160 kB", _filled(ARRAYS, arrays), rounds, False),
        (f"a value of {count * 8 / 1e6:,.0f} MB", _filled(GIGABYTE, count), 3, False),
    ]
    rows = []
    for name, cells, turns, again in flows:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compared(Path(folder), name, cells, turns, again=again))
    return rows


def _filled(cells: dict[str, str], count: int) -> dict[str, str]:
    return {name: text.replace("{count}", str(count)) for name, text in cells.items()}


def main() -> None:
    """Print what was measured."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(table(measure(quick="--quick" in sys.argv[1:])))


if __name__ == "__main__":
    main()
