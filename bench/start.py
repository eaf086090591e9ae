"""What starting costs: `import nbflow`, `%load_ext nbflow`, the command line; beside a bare interpreter."""

from __future__ import annotations

import subprocess
import sys

from bench.overhead import load_time
from bench.rows import Row, in_turns


def python(*words: str) -> None:
    """Words for an interpreter in; it has run."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def measure(*, quick: bool) -> list[Row]:
    """The rows of this topic."""
    rounds = 3 if quick else 9
    python("-m", "nbflow", "--version")
    took = in_turns(
        rounds,
        bare=lambda: python("-c", "pass"),
        package=lambda: python("-c", "import nbflow"),
        everything=lambda: python("-c", "import nbflow.cli"),
        version=lambda: python("-m", "nbflow", "--version"),
        ipython=lambda: python("-c", "import IPython"),
    )
    bare = took["bare"]
    return [
        Row(
            "start",
            "import nbflow",
            max(took["package"] - bare, 0.01),
            beside=bare,
            against="bare python",
            aim="< 150 ms",
        ),
        Row(
            "start",
            "import nbflow.cli",
            took["everything"] - bare,
            beside=took["ipython"] - bare,
            against="import IPython",
        ),
        Row("start", "nbflow --version", took["version"], beside=bare, against="bare python"),
        Row("start", "%load_ext nbflow", load_time(2 if quick else 5)),
    ]
