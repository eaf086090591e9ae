"""Generated programs as flows beside their plain execution: fresh, again, edited, by hand; which end otherwise unsaid.

python -m tests.support.program_runs 0:500            # one line for each program that is not equal
python -m tests.support.program_runs 17 --shrink      # what is left of a program that still ends otherwise
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nbflow
from nbflow.errors import NbflowError
from nbflow.runs import launch
from nbflow.runs.run_options import RunOptions
from tests.support import bare
from tests.support.kernel import Kernel, NotebookFile
from tests.support.orders import OURS
from tests.support.programs import HELPER, ProgramCell, edited, generate

EQUAL, NAMED, SILENT = "equal", "named", "silent"
LIVING = frozenset({"generator", "TextIOWrapper", "list_iterator"})
"""What the plain notebook leaves of kinds without an equality."""

HAND_EVERY = 12
"""Of so many programs one is executed by hand, too: a kernel takes longer than everything else."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `stage` is when, `text` what differs or what was said."""

    verdict: str
    stage: str = ""
    text: str = ""


@dataclass(frozen=True)
class PlainEnd:
    """What the cells print and leave without nbflow."""

    printed: dict[str, str]
    left: dict[str, str]
    files: dict[str, str]


class PlainFailure(Exception):
    """The program fails by itself, and says nothing of nbflow."""


def write(folder: Path, cells: Sequence[ProgramCell]) -> Path:
    """Write a program into a folder and return its notebook."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "helper.py").write_text(HELPER)
    return NotebookFile(folder / "program.ipynb", {cell.id: cell.source for cell in cells}).path


def plain_end(folder: Path, cells: Sequence[ProgramCell]) -> PlainEnd:
    """Return what a program leaves without nbflow; PlainFailure where it fails."""
    path = write(folder, cells)
    done = subprocess.run(
        [sys.executable, bare.__file__, str(path)], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    told = json.loads(done.stdout)
    if told["error"]:
        raise PlainFailure(told["error"])
    return PlainEnd(told["printed"], told["left"], files(folder))


def files(folder: Path) -> dict[str, str]:
    """Return the texts that lie in a program's folder."""
    return {path.name: path.read_text() for path in sorted(folder.glob("*.txt"))}


# ---------------------------------------------------------------- as a flow


class Place:
    """A folder in which one program after the other runs as a flow: its workers' process serves all of them."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="programs-"))
        self.folder = self.base / "flow"
        self.folder.mkdir()
        self.executors = launch.Executors()

    def run(self, path: Path, *, all_cells: bool) -> nbflow.Run:
        """Run a notebook of this place."""
        options = RunOptions(store=str(self.folder / "store"), all_cells=all_cells)
        runner = launch.begin(launch.load_flow(path, all_cells=all_cells), options, self.executors)
        runner.run()
        return nbflow.Run(f"{path.stem}/{runner.place.run}", options.store)

    def clear(self) -> None:
        """Forget the last program; the folder itself stays, where workers stand."""
        for part in (*self.folder.iterdir(), *(each for each in self.base.iterdir() if each != self.folder)):
            shutil.rmtree(part) if part.is_dir() else part.unlink()

    def close(self) -> None:
        """End the workers."""
        self.executors.close()
        shutil.rmtree(self.base, ignore_errors=True)


def as_flow(place: Place, cells: Sequence[ProgramCell], plain: PlainEnd, *, all_cells: bool) -> Outcome:
    """Run a program as a flow and compare all that it leaves."""
    folder = place.folder
    path = write(folder, cells)
    try:
        run = place.run(path, all_cells=all_cells)
    except NbflowError as error:
        return Outcome(NAMED, text=f"refused: {error}")
    if not run.successful:
        return Outcome(NAMED, text=f"failed: {run.error}")
    flow = launch.load_flow(path, all_cells=all_cells)
    findings = run.snapshot.findings
    named = {finding.name for finding in findings if finding.name and finding.code not in ("mutation", "sharing")}
    parted = {**_values(run, flow, plain), **_printed(run, flow, plain)}
    if not any(finding.code == "left-out" for finding in findings):
        there = files(folder)
        names = there.keys() | plain.files.keys()
        parted |= {
            n: f"{there.get(n)!r} not {plain.files.get(n)!r}" for n in names if there.get(n) != plain.files.get(n)
        }
    unsaid = {name: text for name, text in parted.items() if name not in named}
    if unsaid:
        return Outcome(SILENT, text="; ".join(f"{name}: {text}" for name, text in unsaid.items()))
    return Outcome(NAMED, text=f"said: {sorted(parted)}") if parted else Outcome(EQUAL)


def _values(run: nbflow.Run, flow: nbflow.model.Flow, plain: PlainEnd) -> dict[str, str]:
    """Return the names that a run left otherwise; where a plain cell did not take part, nobody knows what it left."""
    parted: dict[str, str] = {}
    taking_part = {step.cell for step in flow.steps if step.name in run}
    if any(cell.id not in taking_part for cell in flow.notebook.cells if cell.id[0] == "c"):
        return parted
    for name, text in plain.left.items():
        writers = flow.writers.get(name)
        if not writers or writers[-1].step is None or writers[-1].step not in run or text in LIVING:
            continue
        try:
            value = bare.show(getattr(run.data, name))
        except Exception as error:  # whatever it is, the plain notebook has a value
            value = f"{type(error).__name__}: {error}"
        if value != text:
            parted[name] = f"{value} not {text}"
    return parted


def _printed(run: nbflow.Run, flow: nbflow.model.Flow, plain: PlainEnd) -> dict[str, str]:
    parted = {}
    for step in flow.steps:
        told = "".join(task.stdout for task in run[step.name].tasks) if step.name in run else None
        if told is not None and told != plain.printed[step.cell]:
            parted[f"output of {step.name}"] = f"{told!r} not {plain.printed[step.cell]!r}"
    return parted


# ---------------------------------------------------------------- by hand


def by_hand(folder: Path, cells: Sequence[ProgramCell], plain: PlainEnd, rng: random.Random) -> Outcome:
    """Execute a program's cells in a kernel, top to bottom and then some again; compare what each prints."""
    path = write(folder, cells)
    document = NotebookFile(path, {"ext": "%load_ext nbflow", **{cell.id: cell.source for cell in cells}})
    steps = [cell.id for cell in cells if cell.head]
    order = [*(cell.id for cell in cells), *rng.choices(steps, k=4)]
    with Kernel(document, load=False) as kernel:
        kernel.ok("ext")
        for place, name in enumerate(order):
            executed = kernel.run(name)
            shown = OURS.sub("", executed.stdout)
            if executed.status != "ok":
                return Outcome(NAMED, text=f"{place} {name}: {executed.ename}: {executed.evalue}")
            if name in steps and shown != plain.printed[name]:
                if executed.stderr.strip():
                    return Outcome(NAMED, text=f"{place} {name}: {executed.stderr}")
                return Outcome(
                    SILENT, text=f"{place} {name} of {' '.join(order)} shows {shown!r} not {plain.printed[name]!r}"
                )
    return Outcome(EQUAL)


# ---------------------------------------------------------------- all of it


def stages(
    place: Place, cells: Sequence[ProgramCell], seed: int, *, all_cells: bool, hand: bool
) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Yield what is done with a program, in turn."""
    plain = plain_end(place.base / "plain", cells)
    yield "fresh", lambda: as_flow(place, cells, plain, all_cells=all_cells)
    yield "again", lambda: as_flow(place, cells, plain, all_cells=all_cells)
    changed = edited([*cells], seed)
    try:
        after = plain_end(place.base / "plain", changed)
    except PlainFailure:
        changed, after = [*cells], plain_end(place.base / "plain", cells)
    yield "edited", lambda: as_flow(place, changed, after, all_cells=all_cells)
    if hand:
        yield "by hand", lambda: by_hand(place.base / "hand", cells, plain, random.Random(seed))


def outcome(place: Place, cells: Sequence[ProgramCell], seed: int, *, only: str = "") -> Outcome:
    """Return how a program ends: the first stage that is not equal."""
    try:
        worst = Outcome(EQUAL)
        hand = only == "by hand" or (not only and seed % HAND_EVERY == 0)
        for stage, work in stages(place, cells, seed, all_cells=seed % 2 == 1, hand=hand):
            if only == "by hand" and stage != only:
                continue
            found = replace(work(), stage=stage)
            if found.verdict == SILENT:
                return found
            if found.verdict == NAMED:
                worst = found if worst.verdict == EQUAL else worst
                if stage == "fresh":
                    break
            if stage == only:
                break
        return worst
    finally:
        place.clear()


def shrunk(place: Place, cells: Sequence[ProgramCell], seed: int, stage: str, verdict: str) -> list[ProgramCell]:
    """Return what is left of a program when all goes without which it still ends so."""

    def still(candidate: list[ProgramCell]) -> bool:
        try:
            found = outcome(place, candidate, seed, only=stage)
        except (PlainFailure, IndexError):
            return False
        return (found.verdict, found.stage) == (verdict, stage)

    left, again = [*cells], True
    while again:
        again = False
        for at in range(len(left) - 1, -1, -1):
            cell = left[at]
            smaller = [[*left[:at], *left[at + 1 :]]] if cell.id != "start" else []
            smaller += [
                [*left[:at], replace(cell, moves=(*cell.moves[:k], *cell.moves[k + 1 :])), *left[at + 1 :]]
                for k in range(len(cell.moves) - 1, -1, -1) if len(cell.moves) > 1
            ]  # fmt: skip
            fitting = next((candidate for candidate in smaller if still(candidate)), None)
            if fitting is not None:
                left, again = fitting, True
    return left


def text_of(cells: Sequence[ProgramCell]) -> str:
    """Return a program as a person reads it."""
    return "\n".join(f"# --- {cell.id}\n{cell.source}" for cell in cells if not cell.id.startswith("p"))


def main() -> int:
    """Run programs and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", help="one seed, or FROM:TO")
    parser.add_argument("--shrink", action="store_true")
    given = parser.parse_args()
    first, _, last = given.seeds.partition(":")
    os.environ["PYTHONHASHSEED"] = "0"
    counts: Counter[str] = Counter()
    began = time.monotonic()
    place = Place()
    for seed in range(int(first), int(last or int(first) + 1)):
        cells = generate(seed)
        try:
            found = outcome(place, cells, seed)
        except PlainFailure:
            counts["fails plainly"] += 1
            continue
        except Exception:
            found = Outcome("broken", text=traceback.format_exc())
        counts[found.verdict] += 1
        if found.verdict != EQUAL:
            print(f"{seed} {found.verdict} {found.stage}: {found.text}", flush=True)
        if given.shrink and found.verdict != EQUAL:
            print(text_of(shrunk(place, cells, seed, found.stage, found.verdict)), flush=True)
    place.close()
    print(f"{dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if counts[SILENT] or counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
