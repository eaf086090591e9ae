"""A fan-out of trivial items, 300 and 10,000; 1,000 tasks resumed after one failed: python -m bench.foreach [--quick].

Beside tasks that share workers stand tasks of a process each (`NBFLOW_LANE=zygote`), in turns in one run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.flows import wide
from bench.overhead import write_notebook
from bench.rows import Row, table

RUN = """
import json, resource, sys, threading, time
from pathlib import Path
import nbflow

peak = {"workers": 0}

def look():
    me = str(__import__("os").getpid())
    while True:
        found, below = 0, {me}
        for place in sorted(Path("/proc").glob("[0-9]*"), key=lambda each: int(each.name)):
            try:
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                lines = (place / "status").read_text()
            except OSError:
                continue
            if parent in below:
                below.add(place.name)
                found = max(found, int(lines.partition("RssAnon:")[2].split()[0]) if "RssAnon:" in lines else 0)
        peak["workers"] = max(peak["workers"], found)
        time.sleep(0.25)

threading.Thread(target=look, daemon=True).start()
began = time.perf_counter()
run = nbflow.run(sys.argv[1], store=sys.argv[2])
seconds = time.perf_counter() - began
own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
states = [task.state for step in run.steps() for task in step.tasks]
print(json.dumps({
    "status": run.status, "error": run.error, "seconds": seconds,
    "total": run.data.total if run.successful else None,
    "states": {state: states.count(state) for state in set(states)},
    "driver": own.ru_maxrss / 1024, "worker": peak["workers"] / 1024,
    "driver_cpu": own.ru_utime + own.ru_stime, "workers_cpu": below.ru_utime + below.ru_stime,
}))
"""


def driver(path: Path, store: Path, lane: str | None = None) -> dict[str, Any]:
    """A notebook, a store, and the lane where it is not chosen by itself, in; what a run took out."""
    environment = {name: value for name, value in os.environ.items() if name != "NBFLOW_LANE"}
    if lane is not None:
        environment["NBFLOW_LANE"] = lane
    command = [sys.executable, "-c", RUN, str(path), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def once(folder: Path, size: int, lane: str | None = None) -> dict[str, Any]:
    """A number of items in; what a run over them took out."""
    found = driver(write_notebook(folder, wide(size)), folder / f"store-{size}-{lane}", lane)
    if found["status"] != "done" or found["total"] != size * (size - 1):
        raise RuntimeError(f"foreach of {size}: {found}")
    return found


def resumed(folder: Path, size: int) -> list[Row]:
    """One failed task among many: mended, the rest is reused."""
    cells = wide(size)
    cells["work"] = "%%step work --foreach item in items\nimport pathlib\ny = item * 2\n"
    cells["work"] += f"if item == {size // 2}:\n    assert pathlib.Path('mended').exists()"
    path, topic = write_notebook(folder, cells), f"resume of {size:,} tasks, one failed"
    first = driver(path, folder / "store")
    (folder / "mended").touch()
    second = driver(path, folder / "store")
    if (first["status"], second["status"]) != ("failed", "done"):
        raise RuntimeError(f"{topic}: {first} {second}")
    return [Row(topic, "resume", second["seconds"] * 1000, beside=first["seconds"] * 1000, against="the failed run")]


def measure(*, quick: bool) -> list[Row]:
    """The rows of this topic."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        rows = [row for size in ((300,) if quick else (300, 10_000)) for row in fan_out(Path(one), size)]
        return [*rows, *resumed(Path(two), 100 if quick else 1_000)]


def fan_out(folder: Path, size: int) -> list[Row]:
    """So many trivial items: fresh, then reused."""
    topic = f"foreach of {size:,}"
    shared = once(folder, size)
    again = once(folder, size)
    # of a process each, 10,000 would take minutes: as many as for the small one
    apart_size = min(size, 300)
    apart = once(folder, apart_size, "zygote")
    each, alone = shared["seconds"] / size * 1000, apart["seconds"] / apart_size * 1000
    return [
        Row(topic, "tasks a second", size / shared["seconds"], "/s"),
        Row(topic, "a task, all included", each, beside=alone, against="a process each"),
        Row(topic, "CPU a task: driver", shared["driver_cpu"] / size * 1000),
        Row(topic, "CPU a task: workers", shared["workers_cpu"] / size * 1000),
        Row(topic, "peak memory: driver", shared["driver"], "MiB"),
        Row(topic, "peak memory: largest worker, its own", shared["worker"], "MiB"),
        Row(topic, "all reused", again["seconds"] * 1000, beside=shared["seconds"] * 1000, against="the run itself"),
    ]


def main() -> None:
    """Print what was measured."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(table(measure(quick="--quick" in sys.argv[1:])))


if __name__ == "__main__":
    main()
