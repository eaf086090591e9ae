"""`verify` on the examples and the notebooks of tests/wild, and how many of their cells run together.

python -m bench.verified [NAME …]       # one line for each notebook, then the sums

Those of tests/wild are taken with every cell as a step. Under 2 % of all cells are to run together: soundness is not
bought with serial runs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from nbflow.errors import NbflowError
from nbflow.runs.launch import load_flow
from nbflow.runs.verification import Verified, verify

ROOT = Path(__file__).parents[1]
BESIDE = (".csv", ".tsv", ".txt", ".json", ".toml", ".yaml", ".py", ".log")


class Line(msgspec.Struct, frozen=True):
    """What was seen of one notebook: what `verify` says, its steps, and those that run with others."""

    name: str
    verdict: str
    equal: bool
    steps: int = 0
    together: int = 0


def notebooks() -> list[Path]:
    """Return the notebooks that are verified."""
    return [*sorted((ROOT / "examples").glob("*.ipynb")), *sorted((ROOT / "tests" / "wild").glob("*.ipynb"))]


def line_of(path: Path) -> Line:
    """Verify a copy of a notebook, with the files beside it."""
    all_cells = path.parent.name == "wild" or "%%step" not in path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        for beside in path.parent.iterdir():
            if beside.is_file() and (beside.suffix in BESIDE or beside == path):
                shutil.copy2(beside, name)
        copy = Path(name, path.name)
        try:
            seen = verify(copy, all_cells=all_cells, store=str(Path(name, ".nbflow")), yes=True)
            steps = sum(step.kind != "params" for step in load_flow(copy, all_cells=all_cells).steps)
        except NbflowError as error:
            return Line(path.name, f"refused: {error.message}", equal=False)
    return Line(path.name, _words(seen), seen.equal, steps, len({step for group in seen.groups for step in group}))


def _words(seen: Verified) -> str:
    lines = str(seen).splitlines()
    return "; ".join(line.strip() for line in lines if not line.startswith("certified"))


def main() -> int:
    """Verify notebooks and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="stems of notebooks; default: all")
    given = parser.parse_args()
    lines = []
    for path in notebooks():
        if given.names and path.stem not in given.names:
            continue
        lines.append(line_of(path))
        print(f"{lines[-1].name}: {lines[-1].verdict}", flush=True)
    steps, together = sum(line.steps for line in lines), sum(line.together for line in lines)
    share = f"{together} of {steps} steps run together ({100 * together / max(steps, 1):.1f} %)"
    print(f"{sum(line.equal for line in lines)} of {len(lines)} notebooks equal; {share}")
    return 0 if all(line.equal for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
