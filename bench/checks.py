"""What looking for changes in place costs: a gigabyte of arrays, a million small objects, and steps with small inputs.

Read from the tasks' own records, where every execution keeps what nbflow took beside the cell.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import nbflow
from bench.rows import Row
from nbflow.flow.notebook import document_of


def measure(*, quick: bool) -> list[Row]:
    """Rows of checks; `quick` takes a tenth of the data."""
    part = 10 if quick else 1
    cells = {
        "i": "import numpy as np",
        "f": "def look(value):\n    return len(value)",
        "big": f"%%step big\nbig = np.random.default_rng(0).random({2**27 // part})",
        "many": f"%%step many\nmany = [[n, str(n)] for n in range({1_000_000 // part})]",
        "small": "%%step small\nsmall = {'a': [1, 2], 'b': np.arange(10)}",
        "s_big": "%%step s_big\nn_big = look(big)",
        "s_many": "%%step s_many\nn_many = look(many)",
        "s_known": "%%step s_known\nn_known = sum(pair[0] for pair in many)",
        **{f"s{n}": f"%%step s{n}\nr{n} = look(small) + {n}" for n in range(20)},
    }
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "checks.ipynb"
        path.write_text(document_of(cells.items(), "checks"))
        run = nbflow.run(path, workers=1)
        if not run.successful:
            raise RuntimeError(f"the benchmark's own flow failed: {run.error}")

        def check(step: str) -> float:
            costs = run[step].task.metadata["costs"]
            return float(costs.get("base line", 0.0) + costs.get("comparison", 0.0))

        gigabytes = 8 * (2**27 // part) / 1e9
        smalls = median(check(f"s{n}") for n in range(20))
        return [
            Row("checks", "1 GB of arrays", 1e3 * check("s_big") / gigabytes, aim="< 150 ms"),
            Row("checks", "a million lists handed to a call", 1e3 * check("s_many") * part),
            Row("checks", "a million lists that the cell's text clears", 1e3 * check("s_known") * part),
            Row("checks", "small inputs", 1e3 * smalls, aim="< 1 ms"),
        ]
