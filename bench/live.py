"""How soon a line that a task prints reaches the page, and what 100,000 lines cost; beside the same plain cell."""

from __future__ import annotations

import queue
import re
import statistics
import tempfile
import time
from pathlib import Path

from bench.rows import Row
from tests.support.kernel import Kernel, NotebookFile

TOPIC = "live output"
CLOCK = "import time\nfor _ in range({lines}):\n    time.sleep(0.23)\n    print('at', time.time())\n"
FLOOD = "for _number in range(100_000):\n    print('line', _number)\n"


def delays(kernel: Kernel, cell: str) -> list[float]:
    """A cell that prints clock times in; the ms from each print to the message that shows it out."""
    sent = kernel.send(kernel.notebook.cells[cell], cell)
    seen: dict[str, float] = {}
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            message = kernel.client.get_iopub_msg(timeout=0.2)
        except queue.Empty:
            continue
        now, content = time.time(), message["content"]
        if message["parent_header"].get("msg_id") != sent:
            continue
        text = content.get("text", "") or content.get("data", {}).get("text/plain", "")
        for at in re.findall(r"at (\d+\.\d+)", text):
            seen.setdefault(at, (now - float(at)) * 1000)
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            break
    return list(seen.values())


def measure(*, quick: bool) -> list[Row]:
    """The rows of this topic."""
    clock = CLOCK.format(lines=8 if quick else 20)
    cells = {
        "plain": clock,
        "by_hand": f"%%step a --retry 1\n{clock}a = 1",
        "flow_run": "%flow run a --fresh",
        "plain_lines": FLOOD,
        "lines_by_hand": f"%%step b --retry 1\n{FLOOD}b = 1",
        "lines_in_flow_run": "%flow run b --fresh",
    }
    found = []
    with tempfile.TemporaryDirectory() as folder, Kernel(NotebookFile(Path(folder) / "live.ipynb", cells)) as kernel:
        took = {name: delays(kernel, name) for name in ("plain", "by_hand", "flow_run")}
        for name in ("by_hand", "flow_run"):
            for word, of in (("median", statistics.median), ("longest", max)):
                what = f"a line of a process, {name.replace('_', ' ')}, {word}"
                found.append(
                    Row(TOPIC, what, of(took[name]), beside=of(took["plain"]), against="plain cell", aim="< 200 ms")
                )
        seconds = {
            name: kernel.run(name, timeout=120).seconds
            for name in ("plain_lines", "lines_by_hand", "lines_in_flow_run")
        }
        beside = seconds["plain_lines"] * 1000
        found += [
            Row(TOPIC, f"100,000 {name.replace('_', ' ')}", seconds[name] * 1000, beside=beside, against="plain cell")
            for name in ("lines_by_hand", "lines_in_flow_run")
        ]
    return found
