"""Many tasks: a fan-out of 10,000 trivial items, and 1,000 tasks resumed after one has failed."""

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
from bench.rows import Row

RUN = """
import json, resource, sys, time
import nbflow
began = time.perf_counter()
run = nbflow.run(sys.argv[1], store=sys.argv[2])
seconds = time.perf_counter() - began
states = [task.state for step in run.steps() for task in step.tasks]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
print(json.dumps({"seconds": seconds, "peak": peak, "cpu": cpu, "status": run.status, "error": run.error,
                  "states": {state: states.count(state) for state in set(states)}}))
"""


def driver(path: Path, store: Path) -> dict[str, Any]:
    """A notebook and a store in; seconds, peak memory (MiB), CPU seconds, status and states of the run out."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(store)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def large(folder: Path, size: int) -> list[Row]:
    """A fan-out of trivial items: fresh, then reused."""
    path, topic = write_notebook(folder, wide(size)), f"foreach of {size:,}"
    took = driver(path, folder / "store")
    again = driver(path, folder / "store")
    if took["status"] != "done":
        raise RuntimeError(f"{topic}: {took}")
    return [
        Row(topic, "tasks a second", size / took["seconds"], "/s"),
        Row(topic, "driver: CPU a task", took["cpu"] / size * 1000),
        Row(topic, "driver: peak memory", took["peak"], "MiB"),
        Row(topic, "all reused", again["seconds"] * 1000, beside=took["seconds"] * 1000, against="the run itself"),
    ]


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
        return [*large(Path(one), 300 if quick else 10_000), *resumed(Path(two), 100 if quick else 1_000)]
