"""All measurements: python -m bench [TOPIC …] [--quick] [--json]."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from bench.rows import Row, plain, table

TOPICS = ("start", "cells", "flows", "foreach", "live", "durability", "checks", "remote")
"""Modules with `measure(quick=…)`, which gives rows."""

TEXTS = ("artifacts",)
"""Modules that print a table of their own kind."""


def artifacts_text() -> str:
    """The table of `bench.artifacts`."""
    from bench import artifacts

    with tempfile.TemporaryDirectory() as name:
        return "\n".join([*artifacts.large(Path(name)), "small values:", *artifacts.small(Path(name))])


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join((*TOPICS, *TEXTS)))
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller flows")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    os.environ.setdefault("NBFLOW_CACHE", tempfile.mkdtemp(prefix="nbflow-bench-"))
    wanted = given.topics or (*TOPICS, *TEXTS)
    if set(wanted) - {*TOPICS, *TEXTS}:
        parser.error(f"known topics: {', '.join((*TOPICS, *TEXTS))}")
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    if not given.json:
        print(f"{machine}; ratios are of one run")
    rows: list[Row] = []
    for name in (each for each in TOPICS if each in wanted):
        began = time.monotonic()
        found = importlib.import_module(f"bench.{name}").measure(quick=given.quick)
        rows += found
        if not given.json:
            print(f"\n{table(found)}\n({time.monotonic() - began:.0f} s)", flush=True)
    texts = {name: globals()[f"{name}_text"]() for name in TEXTS if name in wanted}
    if given.json:
        print(json.dumps({"machine": machine, "rows": [plain(row) for row in rows], "texts": texts}))
        return
    for name, text in texts.items():
        print(f"\n[{name}]\n{text}")


if __name__ == "__main__":
    main()
