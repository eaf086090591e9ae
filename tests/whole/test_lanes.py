"""One task, every lane: what a cell shows by hand, in a run and in any mixture is what it shows in a plain kernel."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbflow
from tests.support.kernel import Executed, Kernel, NotebookFile
from tests.support.plain import plain_source
from tests.whole.lane_notebooks import NOTEBOOKS, Lanes

pytestmark = pytest.mark.notebooks

OURS = re.compile(r"^(?:reused |caught: |skipped: ).*\n?", re.MULTILINE)
NAMED = re.compile(r"^(?:warning|note|finding): ", re.MULTILINE)
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Shown = tuple[str, ...]


# ---------------------------------------------------------------- what a cell shows


def shown(outputs: Iterable[Mapping[str, Any]]) -> Shown:
    """nbformat outputs as they are compared: what was printed, then displays in order, pictures by their pixels."""
    printed, displayed = "", []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            printed += "".join(output["text"])
        elif output["output_type"] in ("display_data", "execute_result"):
            data = output["data"]
            displayed.append(_pixels(data["image/png"]) if "image/png" in data else "".join(data["text/plain"]))
        elif output["output_type"] == "error":
            displayed.append(f"{output['ename']}: {output['evalue']}")
    return (OURS.sub("", printed), *displayed)


def _pixels(data: str) -> str:
    import matplotlib.image

    return hashlib.sha256(matplotlib.image.imread(io.BytesIO(base64.b64decode(data))).tobytes()).hexdigest()


def of_messages(executed: Executed) -> Shown:
    return shown({"output_type": m["msg_type"], **m["content"]} for m in executed.left)


# ---------------------------------------------------------------- a notebook in a folder of its own


@dataclass
class Place:
    """One notebook in a new folder with a new store."""

    lanes: Lanes
    folder: Path
    right: Mapping[str, Shown]
    problems: list[str]

    @property
    def path(self) -> Path:
        return self.folder / "flow.ipynb"

    @property
    def steps(self) -> list[str]:
        return [name for name, source in self.lanes.cells.items() if source.startswith("%%step")]

    def write(self, *, processes: int | None = None) -> NotebookFile:
        """The notebook; of its steps those at even or odd places are sent to a process."""
        cells = {"ext": "%load_ext nbflow"}
        for name, source in self.lanes.cells.items():
            head, _, body = source.partition("\n")
            away = processes is not None and name in self.steps and self.steps.index(name) % 2 == processes
            cells[name] = f"{head} --retry 1\n{body}" if away else source
        for name, text in self.lanes.files.items():
            (self.folder / name).write_text(text)
        return NotebookFile(self.path, cells)

    @contextlib.contextmanager
    def kernel(self, notebook: NotebookFile) -> Iterator[Kernel]:
        with Kernel(notebook, env=ENVIRONMENT) as kernel:
            yield kernel

    def execute(self, kernel: Kernel, names: Iterable[str], when: str) -> None:
        """Cells run by hand: each shows what it shows in a plain kernel."""
        for name in names:
            executed = kernel.run(name)
            self.compare(name, of_messages(executed), when, executed.stderr)

    def run(self, when: str) -> nbflow.Run:
        """Run the flow in processes with the environment of all lanes; what each step has shown, reused or not."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)
            run = nbflow.run(self.path, store=str(self.folder / ".nbflow"))
        if not run.successful:
            self.problems.append(f"{when}: {run.status}: {run.error}")
        for name in self.steps:
            self.compare(name, shown(run[name].task.outputs), when, "")
        return run

    def compare(self, name: str, found: Shown, when: str, said: str) -> None:
        right = self.right.get(name, ("",))
        if found != right and not (when in self.lanes.named and NAMED.search(said)):
            self.problems.append(f"{when}: {name} shows {found}, not {right}; {said[-300:]}")


@functools.cache
def plainly(name: str) -> Mapping[str, Shown]:
    """What the cells of a notebook show in a kernel that knows nothing of nbflow, run top to bottom."""
    lanes = NOTEBOOKS[name]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in lanes.files.items():
            (Path(folder) / file).write_text(text)
        cells = {cell: plain_source(source) for cell, source in lanes.cells.items()}
        with Kernel(NotebookFile(Path(folder) / "plain.ipynb", cells), load=False, env=ENVIRONMENT) as kernel:
            return {cell: of_messages(kernel.run(cell)) for cell in cells}


# ---------------------------------------------------------------- the ways


def by_hand(place: Place) -> None:
    """In order; then each step again, bottom to top; then all of it once more; then a run."""
    with place.kernel(place.write()) as kernel:
        place.execute(kernel, place.lanes.cells, "by hand")
        place.execute(kernel, reversed(place.steps), "by hand, bottom to top")
        place.execute(kernel, place.lanes.cells, "by hand, in order again")
    place.run("a run after all by hand")


def late(place: Place) -> None:
    """A run; in a new kernel the last step alone, reused and then executed; then a run."""
    place.write()
    place.run("a run")
    notebook = place.write()
    with place.kernel(notebook) as kernel:
        plain = [name for name in place.lanes.cells if name not in place.steps]
        for name in plain:
            if re.match(r"import|from|def|class", place.lanes.cells[name]):
                kernel.run(name)
        place.execute(kernel, [place.steps[-1]] * 2, "the last step alone")
    with place.kernel(notebook) as kernel:
        place.execute(kernel, [place.steps[-1]] * 2, "the last step alone, nothing else run")
        place.execute(kernel, place.steps, "the others after it")
    place.run("a run after the last step alone")


def mixed(place: Place, processes: int) -> None:
    """Every second step in a process, the others here; then again; then a run."""
    with place.kernel(place.write(processes=processes)) as kernel:
        place.execute(kernel, place.lanes.cells, "mixed")
        place.execute(kernel, place.steps, "mixed, again")
    place.run("a run after mixed")


def flow_then_hand(place: Place) -> None:
    """`%flow run` in a kernel, then cells by hand there; then a run."""
    with place.kernel(place.write()) as kernel:
        executed = kernel.execute("%flow run", timeout=120)
        assert executed.status == "ok", executed.text
        place.execute(kernel, place.lanes.cells, "by hand after %flow run")
        place.execute(kernel, place.steps, "by hand after %flow run, again")
    place.run("a run after %flow run and hand")


def loaded(place: Place) -> None:
    """`%flow load` of the last step in a new kernel, and `load_inputs()`: the cell's body shows the same there."""
    place.write()
    run = place.run("a run")
    last = place.steps[-1]
    body = place.lanes.cells[last].partition("\n")[2]
    given = run[last].task.load_inputs()
    with place.kernel(place.write()) as kernel:
        executed = kernel.execute(f"%flow load latest/{last}")
        assert executed.status == "ok", executed.text
        assert "<" not in executed.stdout.partition("loaded ")[2].partition("\n")[0], "only names of the user's"
        for name, value in given.items():
            if type(value) in (int, float, str, list, dict, tuple) and "0x" not in repr(value):
                assert kernel.value(name) == repr(value), name
        executed = kernel.execute(body)
        place.compare(last, of_messages(executed), "the body after %flow load", executed.stderr)


WAYS: dict[str, Callable[[Place], None]] = {
    "by hand": by_hand,
    "late": late,
    "mixed, even": functools.partial(mixed, processes=0),
    "mixed, odd": functools.partial(mixed, processes=1),
    "flow, then hand": flow_then_hand,
    "loaded": loaded,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NOTEBOOKS])
def test_every_lane_shows_the_same(name: str, way: str, tmp_path: Path) -> None:
    place = Place(NOTEBOOKS[name], tmp_path, plainly(name), [])
    WAYS[way](place)
    assert not place.problems, "\n".join(place.problems)


LOOPS = {
    "top": "import os\ndef configure(mode):\n    os.environ['MODE'] = mode\n\nclass Tally:\n    made = 0",
    "make": "%%step make\nconfigure('slow')\nxs, n = [3, 1, 2], 0\nTally.made += 2",
    "fit": "%%step fit --foreach x in xs\ny = x * 10 + len(os.environ['MODE']) + Tally.made",
    "plain": "z = [y, x]\nz.append(len(z))",
    "more": "%%step more\nw = sum(z)",
    "pick": "%%step pick --join more\nys = [each.y for each in inputs]\nws = [each.w for each in inputs]",
    "turn": "%%step turn --until n > 3\nn = n + max(1, len(ys) - 2)",
    "risky": "%%step risky --catch error\nleft = n\nn / 0",
    "maybe": "%%step maybe --if n > 99\nys = []",
    "end": "%%step end\nresult = (ys, ws, n, left, error.type, os.environ['MODE'], Tally.made)",
}
NAMES = ("xs", "ys", "ws", "n", "left", "result")


@pytest.mark.timeout(300)
def test_loops_give_what_the_reference_gives(tmp_path: Path) -> None:
    place = Place(Lanes(LOOPS), tmp_path, {}, [])
    notebook = place.write()
    right = {name: repr(value) for name, value in nbflow.reference.run(place.path).items() if name in NAMES}
    assert right.keys() == {*NAMES}

    def by_hand(kernel: Kernel, names: Iterable[str], when: str) -> None:
        for name in names:
            assert kernel.ok(name).status == "ok"
        assert {name: kernel.value(name) for name in NAMES} == right, when

    with place.kernel(notebook) as kernel:
        by_hand(kernel, LOOPS, "by hand")
        by_hand(kernel, ["make", "fit", "turn", "pick", "risky", "maybe", "end"], "again, in another order")
        kernel.restart()
        assert kernel.execute("%flow run", timeout=120).status == "ok"
        by_hand(kernel, ["top", "end"], "after %flow run")
    run = nbflow.run(place.path, store=str(tmp_path / ".nbflow"))
    assert {name: repr(getattr(run.data, name)) for name in NAMES} == right


def main() -> None:
    """Print the table of notebooks and ways: `python -m tests.whole.test_lanes [NAME…]`."""
    wanted = sys.argv[1:] or [*NOTEBOOKS]
    table = {}
    for name in NOTEBOOKS:
        if not any(word in name for word in wanted):
            continue
        for way, work in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                place = Place(NOTEBOOKS[name], Path(folder), plainly(name), [])
                try:
                    work(place)
                except Exception as error:
                    place.problems.append(f"{type(error).__name__}: {error}")
                table[name, way] = "equal" if not place.problems else "differs"
                print(f"{name} | {way} | {table[name, way]}", *place.problems, sep="\n    ", flush=True)
    print(json.dumps({f"{name} | {way}": result for (name, way), result in table.items()}, indent=1))


if __name__ == "__main__":
    main()
