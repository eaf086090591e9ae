"""The same flows in Metaflow, from an environment of its own in `.peers/metaflow` (`make bench` makes it)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PYTHON = Path(__file__).parents[1] / ".peers" / "metaflow" / "bin" / "python"

THREE = """
from metaflow import FlowSpec, step

class ThreeFlow(FlowSpec):
    @step
    def start(self):
        self.x = 1
        self.next(self.middle)

    @step
    def middle(self):
        self.y = self.x + 1
        self.next(self.end)

    @step
    def end(self):
        self.z = self.y + 1

if __name__ == "__main__":
    ThreeFlow()
"""

WIDE = """
from metaflow import FlowSpec, step

class WideFlow(FlowSpec):
    @step
    def start(self):
        self.items = list(range(SIZE))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.y = self.input * 2
        self.next(self.close)

    @step
    def close(self, inputs):
        self.total = sum(each.y for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    WideFlow()
"""


def installed() -> bool:
    """Whether there is something to compare with."""
    return PYTHON.exists()


def run(folder: Path, source: str, size: int = 0) -> None:
    """A folder and a flow in; it has run to its end in that folder's store."""
    path = folder / "flow.py"
    path.write_text(source.replace("SIZE", str(size)))
    environment = {
        **os.environ, "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder), "METAFLOW_USER": "bench", "USERNAME": "bench",
        "METAFLOW_HOME": str(folder),
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    command = [
        str(PYTHON),
        str(path),
        "--quiet",
        "run",
        "--max-workers",
        str(os.cpu_count() or 1),
        "--max-num-splits",
        "1000",
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
