"""How fast artifacts are written and read, against copying memory in the same run: `python bench/artifacts.py`.

Under a minute and about 3.5 GB of memory; the datastore is made in a temporary folder (`--folder` for another disk).
Read the ratios: they hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbflow.store import artifacts
from nbflow.store.location import Store, open_store
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.pickler import Registry, dump

GB = 1_000_000_000
MIB = 1 << 20


def best(act: Callable[[], Any], times: int = 3) -> float:
    """Something to do in; the seconds of the quickest of a few tries out."""
    found = []
    for _ in range(times):
        gc.collect()
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return min(found)


def frame(rows: int) -> pd.DataFrame:
    """A number of rows in; a frame of about 80 bytes a row, strings included, out."""
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {f"f{number}": rng.random(rows) for number in range(6)}
    columns |= {f"i{number}": rng.integers(0, 1000, rows) for number in range(2)}
    columns["s"] = pd.Series(rng.integers(0, 100_000, rows).astype(str))
    columns["t"] = pd.date_range("2024", periods=rows, freq="s")
    return pd.DataFrame(columns)


def touch(value: Any) -> None:
    """A loaded value in; every byte of its numbers has been read afterwards."""
    if isinstance(value, pd.DataFrame):
        value.select_dtypes("number").sum()
    elif isinstance(value, np.ndarray):
        value.sum()


def measure(folder: Path, name: str, value: Any, nbytes: int, copy: float) -> tuple[str, ...]:
    """A value and the time of copying 1 GB in; one row of the table out."""
    registry = Registry()
    store = open_store(folder / name.replace(" ", "-"))
    saved: list[Any] = []
    write = 9e9
    for _ in range(3):
        clear(store)
        write = min(write, best(lambda: saved.append(artifacts.save(store, dump({"x": value}, registry))[0]), 1))
    groups = saved[0]
    again = best(lambda: artifacts.save(store, dump({"x": value}, registry)))
    read = best(lambda: artifacts.load(store, groups, None, registry))
    touched = best(lambda: touch(artifacts.load(store, groups, None, registry)["x"]))
    in_memory = best(lambda: touch(value))
    unit = copy * nbytes / GB
    clear(store)
    ratios = [f"{write / unit:.1f}", f"{again / unit:.1f}"]
    reads = [f"{read * 1000:.1f}", f"{touched:.3f}", f"{touched / in_memory:.1f}"]
    return (name, f"{nbytes / 1e6:,.0f}", f"{write:.3f}", *ratios, *reads)


def time_of_write(folder: Path, values: np.ndarray[Any, Any]) -> float:
    """1 GB in; the seconds to write it into one file, as plainly as can be, out."""
    data = memoryview(values).cast("B")

    def write() -> None:
        place = folder / "plain"
        with place.open("wb", buffering=0) as file:
            for start in range(0, data.nbytes, 4 * MIB):
                file.write(data[start : start + 4 * MIB])
        place.unlink()

    return best(write)


def clear(store: Store) -> None:
    """A datastore in; its segments are gone."""
    for entry in store.list("segments"):
        store.delete(entry.path)


def small(folder: Path) -> list[str]:
    """What many small values cost, in microseconds each."""
    store, registry = open_store(folder / "small"), Registry()
    lines = []
    for label, values in (
        ("numbers", {f"n{number}": number for number in range(2000)}),
        ("lists", {f"n{number}": [number, "a"] for number in range(2000)}),
        ("dicts of 8", {f"n{number}": {f"k{each}": each for each in range(8)} for number in range(2000)}),
    ):
        groups: list[Any] = []
        write = best(
            lambda values=values, groups=groups: groups.append(artifacts.save(store, dump(values, registry))[0])
        )
        read = best(lambda groups=groups: artifacts.load(store, groups[0], None, registry))
        lines.append(f"  {label:12} write {write / 2000 * 1e6:5.1f} us, read {read / 2000 * 1e6:5.1f} us each")
    return lines


def large(folder: Path) -> list[str]:
    """The table: 1 GB of random numbers, 1 GB of zeros, a frame."""
    random = np.random.default_rng(0).random(GB // 8)
    copy, plain = time_of_copy(random), time_of_write(folder, random)
    heads = ("value", "MB", "write s", "/copy", "again /copy", "read ms", "touched s", "/in memory")
    table = frame(4_000_000)
    rows = [
        heads,
        measure(folder, "1 GB random", random, GB, copy),
        measure(folder, "1 GB zeros", np.zeros(GB // 8), GB, copy),
        measure(folder, "frame", table, int(table.memory_usage().sum()), copy),
    ]
    hashed = best(lambda: fingerprint(random))
    return [
        f"copying 1 GB of memory: {copy:.3f} s ({1 / copy:.1f} GB/s); `/copy` is a multiple of that",
        f"writing 1 GB to one plain file, no hash: {plain:.3f} s ({plain / copy:.1f} x copy)\n",
        *("  ".join(f"{cell:>11}" for cell in row) for row in rows),
        f"\nfingerprint of 1 GB: {hashed:.3f} s ({hashed / copy:.1f} x copy)",
    ]


def time_of_copy(values: np.ndarray[Any, Any]) -> float:
    """1 GB in; the seconds to copy it into warm memory out."""
    target = np.ones_like(values)
    return best(lambda: np.copyto(target, values))


def main() -> None:
    """Print what was measured."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, default=None)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        print("\n".join(large(Path(name))))
        print("small values:")
        print("\n".join(small(Path(name))))


if __name__ == "__main__":
    main()
