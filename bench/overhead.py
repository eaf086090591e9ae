"""What a `%%step` cell costs over the same plain cell, and what `%load_ext nbflow` costs: medians in one run.

python -m bench.overhead [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SMALL = "a = 1\nb = a + 1\nc = [a, b]"
ROUNDS = 150
WARM = 5


def long_cell(lines: int = 100) -> str:
    """A number of lines in; a cell of that length with branches, calls and containers out."""
    parts = ["rows = []"]
    number = 0
    while len(parts) < lines - 4:
        number += 1
        parts += [
            f"v{number} = {number} * 2",
            f"w{number} = [i + v{number} for i in range(3)]",
            f"if v{number} > 5:",
            f"    rows.append((v{number}, len(w{number})))",
        ]
    return "\n".join([*parts, "total = sum(a for a, _ in rows)"])


def write_notebook(folder: Path, cells: dict[str, str]) -> Path:
    """Sources by cell id in; the path of a notebook that holds them out."""
    path = folder / "bench.ipynb"
    found: list[dict[str, Any]] = [
        {"cell_type": "code", "id": name, "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for name, source in cells.items()
    ]
    path.write_text(json.dumps({"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def timed(work: Callable[[], Any]) -> float:
    """A call in; the milliseconds that it takes out."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def shells(cells: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    """Sources by cell id in; a plain IPython, and one with nbflow that belongs to a notebook with these cells, out."""
    from IPython.core.interactiveshell import InteractiveShell

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JPY_SESSION_NAME"] = str(write_notebook(Path(folder), cells))
        os.chdir(folder)
        both: tuple[Any, Any] = (InteractiveShell(), InteractiveShell())  # type: ignore[no-untyped-call]
        for ip in both:
            ip.history_manager.enabled = False
        both[1].run_line_magic("load_ext", "nbflow")
        try:
            yield both
        finally:
            both[1].run_line_magic("unload_ext", "nbflow")
            os.chdir(before)


def compare(ips: tuple[Any, Any], body: str, name: str, rounds: int, *, new: bool) -> tuple[float, float, float]:
    """A cell's body in; ms of the plain cell, ms of the step, the median of the differences, out.

    With `new` its text is another one each time; the two are run in turns.
    """
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + WARM):
        text = f"{body}\nnew = {number}" if new else body
        sources = (text, f"%%step {name}\n{text}")
        for which in (0, 1) if number % 2 else (1, 0):
            took[which].append(timed(lambda: ips[which].run_cell(sources[which], cell_id=name, store_history=True)))  # noqa: B023
    plain, step = (found[WARM:] for found in took)
    between = [b - a for a, b in zip(plain, step, strict=True)]
    return statistics.median(plain), statistics.median(step), statistics.median(between)


def load_time(rounds: int = 5) -> float:
    """Ms of `%load_ext nbflow` in a fresh IPython that has imported what a kernel imports."""
    code = (
        "import ipykernel.ipkernel, time\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "ip = InteractiveShell.instance()\nbegan = time.perf_counter()\nip.run_line_magic('load_ext', 'nbflow')\n"
        "print((time.perf_counter() - began) * 1000)"
    )
    done = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(rounds)
    ]
    return statistics.median(float(each.stdout.split()[-1]) for each in done)


def measure(rounds: int = ROUNDS) -> list[tuple[str, float, float, float]]:
    """(what, ms plain, ms as step, ms between) for a small and a 100-line cell, unchanged and edited."""
    bodies = {"small": SMALL, "long": long_cell()}
    cells = {name: f"%%step {name}\n{body}" for name, body in bodies.items()}
    rows = []
    for name, body in bodies.items():
        for new in (False, True):
            with shells(cells) as ips:
                what = f"{len(body.splitlines())} lines, {'new text' if new else 'unchanged'}"
                rows.append((what, *compare(ips, body, name, rounds, new=new)))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"{'cell':28}{'plain':>12}{'%%step':>12}{'overhead':>12}")
    for what, plain, step, between in measure(rounds):
        print(f"{what:28}{plain:>9.2f} ms{step:>9.2f} ms{between:>9.2f} ms")
    print(f"{'%load_ext nbflow':52}{load_time():>9.0f} ms")


if __name__ == "__main__":
    main()
