"""Many rounds of what could go wrong, and the report of it.

python -m bench.soak [--part NAME …] [--scale 0.1 | --count N]; make soak PART=power COUNT=200.

kills: worker, driver and kernel killed at random moments; power: the power goes at random moments, what was not synced
is gone or torn; runs: many runs at once on one store; gcs: clean-ups beside runs; clocks: machines whose clocks differ;
full: disks that fill up; seeds: one flow under many hash seeds, reused under each other one; flows: generated flows
against plain loops; resumes: generated flows that fail, mended and resumed; exports: generated flows, run by Metaflow;
cells: generated cells, run and analysed; tasks: one fan-out of 10,000; large: an artifact of 1 GB; notebooks: those of
tests/wild under other hash seeds; mutants: notebooks, sources, lines of options and cards changed
at random; troubles: sweeps on Ray, Dask and a box behind ssh, on hosts of their own, while links are cut, workers,
nodes and drivers are killed and the store fails; slurm: what every executor promises, on a real Slurm; programs:
generated notebooks that bind names again, alias, patch, write files and seed, beside their plain execution; verified:
`verify` on the examples and on the notebooks of tests/wild.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.flows import wide
from bench.foreach import driver
from bench.overhead import write_notebook
from tests.support.mutants import change

REPORT = Path(__file__).parents[1] / "docs" / "soak.md"
COUNTS = {
    "kills": 1000, "power": 5000, "runs": 50, "gcs": 100, "clocks": 200, "full": 100, "seeds": 100, "flows": 300,
    "resumes": 200, "exports": 60, "cells": 10_000, "tasks": 10_000, "large": 1000, "notebooks": 3,
    "mutants": 4000, "troubles": 3, "slurm": 5, "programs": 5000, "verified": 1,
}  # fmt: skip
"""How much the full form of each part is."""

LEAST = {"kills": 5, "power": 20, "runs": 3, "seeds": 3, "flows": 5, "resumes": 5, "exports": 4, "tasks": 200}

HASHED = {
    "kinds": "words = {'a', 'b', 'c', 'd'}\n\n"
    "class Point:\n    def __init__(self, x):\n        self.x = x\n\n"
    "def known(word, among=frozenset({'x', 'y', 'z'})):\n    return word in among or word in {'u', 'v', 'w'}",
    "make": "%%step make\nletters = set('abcdefghij')\ntable = {word: len(word) for word in letters}\n"
    "p = Point(letters)\nf = lambda w: w in {'k', 'l', 'm'}",
    "use": "%%step use\nfound = sorted(w for w in letters | words if not known(w) and not f(w))\nsame = p.x == letters",
    "fan": "%%step fan --foreach w in sorted(words)\nn = table.get(w, 0)",
    "end": "%%step end --join fan\ntotal = sum(t.n for t in inputs), len(found), same",
}

LARGE = {
    "make": "%%step make\nimport numpy as np\nrng = np.random.default_rng(1)\nxs = rng.random({count})",
    "use": "%%step use\ntotal = float(xs.sum())\nsize = xs.nbytes",
    "change": "%%step change\nxs[0] = 0\nfirst, second = float(xs[0]), float(xs[1])",
}


@dataclass(frozen=True)
class Part:
    """What was done, how much of it, and what came of it."""

    name: str
    what: str
    result: str
    seconds: float
    passed: bool


def pytest(
    words: list[str], before: Sequence[str] = (), python: str = sys.executable, **environment: str
) -> tuple[bool, str]:
    """Words for pytest, what its command begins with, and variables in; whether all passed and its last line out."""
    command = [*before, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "14400", *words]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        print("\n".join(lines[-40:]), file=sys.stderr)
    return done.returncode == 0, re.sub(r" in [\d.]+s.*", "", lines[-1]) if lines else "pytest said nothing"


def seed() -> str:
    """Return another seed each second: what failed can be tried again with the one that is told."""
    return os.environ.get("NBFLOW_SEED") or str(int(time.time()))


def kills(count: int) -> tuple[str, str, bool]:
    """Random kills: of five two are of the driver, two of a worker, one of a kernel."""
    rounds, drawn = max(2, round(count / 2.5)), seed()
    passed, said = pytest(["tests/executors/test_kills.py"], NBFLOW_KILLS=str(rounds), NBFLOW_SEED=drawn)
    what = f"{rounds} kills of the driver, {rounds} of a worker, {max(1, rounds // 2)} of a kernel (seed {drawn})"
    return what, f"0 lost, 0 doubled; {said}" if passed else said, passed


def power(count: int) -> tuple[str, str, bool]:
    """The power goes at random moments of recorded runs."""
    drawn = seed()
    passed, said = pytest(["tests/store/test_power_cut.py"], NBFLOW_CUTS=str(count), NBFLOW_SEED=drawn)
    return f"{count:,} cuts, {max(2, count // 20)} of them gone on from (seed {drawn})", said, passed


def shared(test: str, variable: str, count: int) -> tuple[bool, str, str]:
    """A test of `test_shared_store` in, and how much of it; whether it passed, what it said, and its seed out."""
    drawn = seed()
    passed, said = pytest(
        ["tests/store/test_shared_store.py", "-k", test], **{variable: str(count), "NBFLOW_SEED": drawn}
    )
    return passed, said, drawn


def runs(count: int) -> tuple[str, str, bool]:
    """Many runs at once on one store."""
    passed, said, _ = shared("test_many_runs_at_once", "NBFLOW_RUNS", count)
    return f"{count} runs at once, five parameters", said, passed


def gcs(count: int) -> tuple[str, str, bool]:
    """Clean-ups, one after the other, beside runs on a store in which everything looks old."""
    passed, said, drawn = shared("test_clean_ups_beside_runs", "NBFLOW_GCS", count)
    return f"{count} times two runs, clean-ups all the while (seed {drawn})", said, passed


def clocks(count: int) -> tuple[str, str, bool]:
    """Machines whose clocks differ take turns."""
    passed, said, drawn = shared("test_clocks_that_differ", "NBFLOW_CLOCKS", count)
    return f"{count} runs on three machines, clocks 2.5 h apart (seed {drawn})", said, passed


def full(count: int) -> tuple[str, str, bool]:
    """Disks that fill up somewhere in a run."""
    passed, said, drawn = shared("test_a_full_disk", "NBFLOW_FULL", count)
    return f"{count} disks of 16 to 500 kB (seed {drawn})", said, passed


def seeds(count: int) -> tuple[str, str, bool]:
    """One flow under many hash seeds."""
    with tempfile.TemporaryDirectory() as name:
        path = write_notebook(Path(name), HASHED)
        wrong = []
        for number in range(count):
            os.environ["PYTHONHASHSEED"] = str(number)
            found = driver(path, Path(name) / "store")
            states = found["states"]
            if found["status"] != "done" or (number and set(states) != {"reused"}):
                wrong.append(f"seed {number}: {found['status']}, {states}")
        os.environ.pop("PYTHONHASHSEED")
    return f"{count} hash seeds, one store", "; ".join(wrong[:5]) or "reused under every other seed", not wrong


def flows(count: int) -> tuple[str, str, bool]:
    """Generated flows against the loops that they stand for."""
    passed, said = pytest(["tests/engine/test_loops.py"], NBFLOW_FLOWS=str(count))
    return f"{count} generated flows", said, passed


def resumes(count: int) -> tuple[str, str, bool]:
    """Generated flows that fail at some place, then mended and resumed."""
    passed, said = pytest(["tests/engine/test_resume_property.py"], NBFLOW_RESUMES=str(count))
    return f"{count} generated flows, each broken, mended in one of four ways, resumed", said, passed


def exports(count: int) -> tuple[str, str, bool]:
    """Generated flows, exported, run by Metaflow."""
    passed, said = pytest(["tests/exporters/test_export_property.py"], NBFLOW_EXPORT_FLOWS=str(count))
    return f"{count} generated flows, exported, run by Metaflow; twice as many of two kinds read", said, passed


def cells(count: int) -> tuple[str, str, bool]:
    """Generated cells, run and analysed."""
    passed, said = pytest(["tests/analysis/test_analysis_property.py"], NBFLOW_CELLS=str(count))
    return f"{count} generated cells of two kinds: what each does is foreseen", said, passed


def tasks(count: int) -> tuple[str, str, bool]:
    """One wide fan-out, then reused."""
    with tempfile.TemporaryDirectory() as name:
        path = write_notebook(Path(name), wide(count))
        first, second = driver(path, Path(name) / "store"), driver(path, Path(name) / "store")
    passed = (first["status"], second["status"]) == ("done", "done") and set(second["states"]) == {"reused"}
    said = f"{count / first['seconds']:,.0f} tasks/s, driver's peak {first['driver']:,.0f} MiB; "
    return f"a fan-out of {count:,}", said + f"all reused in {second['seconds']:.1f} s", passed


def large(count: int) -> tuple[str, str, bool]:
    """One large artifact: written, read, changed by a reader, reused."""
    count = count * 1_000_000 // 8  # megabytes -> numbers
    with tempfile.TemporaryDirectory() as name:
        cells = {key: text.replace("{count}", str(count)) for key, text in LARGE.items()}
        path = write_notebook(Path(name), cells)
        first, second = driver(path, Path(name) / "store"), driver(path, Path(name) / "store")
        stored = sum(entry.stat().st_size for entry in Path(name).rglob("segments/**/*") if entry.is_file())
    passed = (first["status"], second["status"]) == ("done", "done") and set(second["states"]) == {"reused"}
    said = f"run in {first['seconds']:.1f} s, {stored / 1e6:,.0f} MB stored for two versions; "
    said += f"driver's peak {first['driver']:,.0f} MiB; reused in {second['seconds']:.1f} s"
    return f"{count * 8 / 1e6:,.0f} MB", said, passed


def notebooks(count: int) -> tuple[str, str, bool]:
    """Notebooks from the wild, every cell as a step, under other hash seeds."""
    del count
    passed, said = pytest(["tests/whole/test_wild.py", "-m", "soak"])
    return "notebooks that were not written for nbflow, against plain runs, 3 hash seeds", said, passed


def mutants(count: int) -> tuple[str, str, bool]:
    """Notebooks, sources, lines of options and cards changed at random: checked, planned, drawn."""
    chosen = int(seed())
    bad, slowest = change(count, chosen)
    what = f"{count} notebooks, sources, lines of options and cards each, changed at random (seed {chosen})"
    return what, f"{bad} ended otherwise than in a message of ours; the slowest took {slowest:.1f} s", not bad


def troubles(count: int) -> tuple[str, str, bool]:
    """Sweeps elsewhere while things break, with each engine's own Python."""
    pythons = {"Ray": ".peers/ray/bin/python", "Dask": ".peers/dask/bin/python", "ssh": sys.executable}
    passed, said, seconds = True, [], [0.0]
    with tempfile.TemporaryDirectory() as name:
        told = Path(name) / "told"
        told.touch()
        for engine, python in pythons.items():
            went_well, words = pytest(
                ["tests/whole/test_troubles.py"], ["unshare", "--net"], python, NBFLOW_ROUNDS=str(count),
                NBFLOW_TOLD=str(told),
            )  # fmt: skip
            passed = passed and went_well
            said.append(f"{engine}: {words}")
        seconds += map(float, told.read_text().split())
    what = (
        f"{count} times: links of notebook and worker cut for 90 s, worker, node and driver killed, S3 failing and slow"
    )
    said.append(f"nothing lost, nothing counted twice, told after {max(seconds):.0f} s at most" if passed else "")
    return what, "; ".join(filter(None, said)), passed


def slurm(count: int) -> tuple[str, str, bool]:
    """The suite on a real Slurm, started anew each time."""
    said = ""
    for _ in range(count):
        passed, said = pytest(["tests/executors/test_slurm.py"])
        if not passed:
            return f"{count} times the suite", said, False
    return f"{count} times the suite", said, True


def programs(count: int) -> tuple[str, str, bool]:
    """Generated programs as flows, fresh, again, edited and by hand, beside their plain execution."""
    first = int(seed())
    passed, said = module("tests.support.program_runs", f"{first}:{first + count}")
    return f"{count:,} generated programs (from seed {first})", said, passed


def verified(count: int) -> tuple[str, str, bool]:
    """Notebooks of ours and of others, verified."""
    del count
    passed, said = module("bench.verified")
    return "the examples, and the notebooks of tests/wild", said, passed


def module(name: str, *words: str) -> tuple[bool, str]:
    """A module of ours and its words in; whether it has ended well, and its last line, out."""
    done = subprocess.run([sys.executable, "-m", name, *words], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:
        print("\n".join(lines[-40:]), done.stderr[-2000:], file=sys.stderr)
    return done.returncode == 0, lines[-1] if lines else "it said nothing"


PARTS: dict[str, Callable[[int], tuple[str, str, bool]]] = {
    "kills": kills, "power": power, "runs": runs, "gcs": gcs, "clocks": clocks, "full": full, "seeds": seeds,
    "flows": flows, "resumes": resumes, "exports": exports, "cells": cells, "tasks": tasks, "large": large,
    "notebooks": notebooks, "mutants": mutants, "troubles": troubles, "slurm": slurm,
    "programs": programs, "verified": verified,
}  # fmt: skip


def report(parts: list[Part], form: str) -> str:
    """What was done in; the text of docs/soak.md out."""
    rows = [f"| {part.name} | {part.what} | {_verdict(part)} | {part.seconds:.0f} s |" for part in parts]
    head = (
        "# Soak\n\nMany rounds of what could go wrong; `make soak` runs it and writes this page. What each part does is"
        " told at the top of `bench/soak.py`; `make soak PART=power COUNT=500` runs one alone.\n\n"
    )
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    told = f"Last run: {time.strftime('%Y-%m-%d')}, {form}, on {machine}, with other work on the same cores.\n\n"
    return head + told + "| part | how much | what came of it | time |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _verdict(part: Part) -> str:
    return f"{'passed' if part.passed else '**failed**'}: {part.result}"


def _form(given: argparse.Namespace) -> str:
    return f"--count {given.count}" if given.count else f"--scale {given.scale:g}"


def main() -> None:
    """Run the parts, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part; again for others")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the full form")
    parser.add_argument("--count", type=int, help="how much of each part, instead of --scale")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    done = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NBFLOW_CACHE"] = cache
        for name in given.part or PARTS:
            began = time.monotonic()
            count = given.count or max(LEAST.get(name, 1), round(COUNTS[name] * given.scale))
            what, result, passed = PARTS[name](count)
            done.append(Part(name, what, result, time.monotonic() - began, passed))
            print(f"{name}: {what}: {'passed' if passed else 'FAILED'}: {result}", flush=True)
    form = "the full form" if given.scale == 1 and not given.count else f"a reduced form (`{_form(given)}`)"
    given.report.write_text(report(done, form))
    sys.exit(0 if all(part.passed for part in done) else 1)


if __name__ == "__main__":
    main()
