"""Fan-outs, joins, conditions and turns mean the plain loops that they stand for: generated flows, run both ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from nbflow import reference
from nbflow.errors import PlanError
from nbflow.runs import launch
from nbflow.task.context import Caught
from tests.support.flows import generate
from tests.support.kernel import Kernel, NotebookFile

SEEDS = int(os.environ.get("NBFLOW_FLOWS", "12"))


def write_notebook(path: Path, cells: list[str]) -> Path:
    """Cells in; a notebook file that holds them out."""
    document = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell, id=f"c{at}") for at, cell in enumerate(cells)]
    )
    nbformat.write(document, path)
    return path


def plain(value: Any) -> Any:
    """What is compared: a caught error by its type and message, for tracebacks name different files."""
    return (value.type, value.message) if isinstance(value, Caught) else value


def leaves(run: nbflow.Run, path: Path) -> dict[str, Any]:
    """A run and its notebook in; what it leaves of every name that a step writes out."""
    written = {name for step in launch.check(path).steps for name in step.writes}  # the rest is scratch
    names = [name for name in dir(run.data) if name in written and not name.startswith("_")]
    return dict.fromkeys(sorted(written), "(none)") | {name: plain(getattr(run.data, name)) for name in names}


CASES: dict[str, list[str]] = {
    "the loop variable in a condition": [
        "%%step a --foreach x in [1, 2, 3] --if x > 1\ny = x * 2",
        "%%step j --join a\nys = [e.y for e in inputs]",
    ],
    "the loop variable of a skipped head": [
        "%%step z\nw = 5",
        "%%step a --foreach x in [2, 0, 1] --if x > 0\ny = x",
        "%%step b\nw = y * 10",
        "%%step c\nv = (x, w)",
        "%%step j --join c\nz = [e.v for e in inputs]",
        "%%step after\nlast = x",
    ],
    "a condition inside, seen by the join": [
        "%%step a --foreach x in [2, 0, 1]\ny = x",
        "%%step b --if y > 0\nw = y * 10",
        "%%step j --join b\nz = [getattr(e, 'w', None) for e in inputs]",
    ],
    "two steps make if and else": [
        "%%step a\nn = 3",
        "%%step b --if n > 2\nkind = 'big'",
        "%%step c --if not n > 2\nkind = 'small'",
        "%%step d\nm = kind",
    ],
    "what a skipped step would have written": [
        "%%step a --if False\ny = 1",
        "%%step w1\nw = 5",
        "%%step b\nw = y * 10",
        "%%step c\nv = w",
        "%%step d\nu = y",
        "%%step e --foreach x in [y]\nt = x",
    ],
    "a condition that fails and is caught": ["%%step z\nn = 0", "%%step a --if 1 // n --catch e\nm = 3"],
    "a caught step leaves what it had bound": [
        "%%step a\nn = 1\nk = 1",
        "%%step b --catch e\nk = 2\n1 / 0\nn = 2",
        "%%step c\nm = (n, k, e.type)",
    ],
    "a caught item takes nothing from the one before": [
        "%%step z\ny = 9",
        "%%step a --foreach x in [2, 0, 1] --catch err\ny = 4 // x",
        "%%step b\nw = y",
        "%%step j --join b\nz = [(e.err is None, e.w) for e in inputs]",
        "%%step k\nq = y",
    ],
    "the last item is caught": [
        "%%step a --foreach x in [2, 1, 0] --catch err\ny = 4 // x",
        "%%step b\nw = y",
        "%%step k\nq = (y, err is None)",
        "%%step j --join b\nz = [(e.err is None, getattr(e, 'w', None)) for e in inputs]",
    ],
    "caught in a carried name": [
        "%%step z\ny = 9",
        "%%step p --foreach x in [2, 0, 1, 0, 0]\ny0 = y",
        "%%step a --catch err\ny = 4 // x + y0",
        "%%step b\nw = y",
        "%%step j --join b\nz = [(e.err is None, e.w) for e in inputs]",
    ],
    "caught in a nested fan-out": [
        "%%step o --foreach i in [1, 2]\nu = i",
        "%%step a --foreach x in [u, 0, 1] --catch err\ny = 4 // x",
        "%%step b\nw = y",
        "%%step k --join b\nq = (y, err is None)",
        "%%step kk --join k\nqq = [e.q for e in inputs]\nlast = y",
    ],
    "turns until nothing fails": [
        "%%step a\nk = 0",
        "%%step b --until e is None --catch e --max 9\nk += 1\n1 // (k > 3)",
        "%%step c\nm = k",
    ],
    "the last question fails and is caught": ["%%step a --until 1 // (n - 2) > 5 --max 4 --catch e\nn = 2"],
    "a condition is asked once, turns go on": ["%%step a\nk = 0", "%%step b --if k == 0 --until k > 4\nk += 1"],
    "turns in a fan-out": ["%%step a\nt = 0", "%%step b --foreach x in [1, 2, 3] --until t > 5 * x\nt = t + x"],
    "a name that an early turn alone has bound": [
        "%%step a\nn = 0\nk, w = 1, 2",
        "%%step b --until n > 2\nif n == 0:\n    k = 'first'\nif n == 1:\n    w = late = 'second'\nn += 1",
        "%%step c\nm = (k, w, late, n)",
    ],
    "early turns of a fan-out": [
        "%%step a\nn, k = 0, 7",
        "%%step b --foreach x in [2, 1, 3] --until n % 4 == x\nif n % 4 == 0:\n    k = x * 10\nn += 1",
        "%%step c\nm = (k, n)",
        "%%step j --join c\nms = [each.m for each in inputs]",
        "%%step d\nlast = k",
    ],
    "values of a class of the loop's own cell": [
        "%%step a\nps = []",
        (
            "%%step b --until len(ps) > 2\n"
            "class P:\n    def __eq__(self, other):\n        return vars(self) == vars(other)\n\n"
            "class Q(P):\n    pass\n\nps.append(Q())\nps[-1].x = len(ps)\nxs = [p.x for p in ps]"
        ),
        "%%step d\nk = [p.x for p in ps]",
    ],
    "names in other scripts": [
        "%%step größe --foreach ñ in [1, 2]\nübung = ñ * 2",
        "%%step 合計 --join größe\n総和 = sum(e.übung for e in inputs)",
    ],
    "targets of several names over a generator": [
        "%%step b --foreach k, (u, v) in ((str(i), (i, i * i)) for i in range(4))\nw = k * u + k * v",
        "%%step j --join b\nall_of_them = [e.w for e in inputs]",
    ],
    "inner lists that are empty": [
        "%%step b --foreach k in [0, 2, 1]\nw = k",
        "%%step c --foreach i in range(w)\nz = i + w",
        "%%step j --join c\nzs = [e.z for e in inputs]",
        "%%step jj --join j\nevery = [e.zs for e in inputs]",
    ],
    "an empty list leaves names as they were": [
        "%%step a\nw = 7",
        "%%step b --foreach k in []\nw = k",
        "%%step c\nm = w",
        "%%step j --join b\nevery = [e.w for e in inputs]",
    ],
    "a join of several steps": [
        "%%step b --foreach k in [1, 2]\nw = k",
        "%%step c\nv = w + 1",
        "%%step d\nu = w + 2",
        "%%step j --join c,d\nevery = [(e.w, e.v, e.u, e.k, e.item) for e in inputs]\nshape = inputs.frame().shape",
    ],
}


@pytest.mark.running
@pytest.mark.parametrize("case", CASES)
def test_leaves_what_its_loops_leave(case: str, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "flow.ipynb", CASES[case])
    run = nbflow.run(path, store=str(tmp_path / "store"))
    assert run.successful, run.error
    expected = {name: plain(value) for name, value in reference.run(path).items()}
    assert leaves(run, path) == {name: expected.get(name, "(none)") for name in leaves(run, path)}


@pytest.mark.running
def test_a_join_sees_what_its_items_have_read(tmp_path: Path) -> None:
    for k in (1, 2):
        cells = [
            f"%%step a\nk = {k}",
            "%%step b --foreach x in [1, 2]\ny = x + (k > 0)",
            "%%step j --join b\nz = [e.k for e in inputs]",
        ]
        run = nbflow.run(write_notebook(tmp_path / "flow.ipynb", cells), store=str(tmp_path / "store"))
        assert run.data.z == [k, k], "the items left the same, but what they have read is another value"


@pytest.mark.running
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_generated_flow_leaves_what_its_loops_leave(seed: int, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "flow.ipynb", generate(seed))
    try:
        run = nbflow.run(path, store=str(tmp_path / "store"))
    except PlanError as error:
        pytest.fail(f"{error}\n" + "\n\n".join(generate(seed)))
    expected = {name: plain(value) for name, value in reference.run(path).items() if not callable(value)}
    told = f"{run.error}\n" + "\n\n".join(generate(seed))
    assert run.successful, told
    found = leaves(run, path)
    assert found == {name: expected.get(name, "(none)") for name in found}, told
    again = nbflow.run(path, store=str(tmp_path / "store"))
    states = {step.name: step.state for step in again.steps()}
    assert set(states.values()) <= {"reused", "skipped", "caught", "done"}, states


IN_A_KERNEL = [
    "%load_ext nbflow",
    "%%step start\nn = 1\nk = 1\nw = 7",
    "%%step risky --catch e\nk = 2\n1 / 0\nn = 2",
    "%%step below\nm = (n, k, e.type)",
    "%%step each --foreach x in [2, 1, 0] --catch err\ny = 4 // x",
    "%%step twice\nz = y * 2",
    "%%step close --join twice\nzs = [getattr(entry, 'z', None) for entry in inputs]",
    "%%step none --foreach v in []\nw = v",
    "%%step one --foreach at in [1, 2, 3]\nkept = at",
    "%%step two --if at == 1\nkept = 100",
    "%%step three\nseen = kept",
    "%%step some --foreach u in [1, 0] --if u > 0\nt = u",
]


@pytest.mark.running
def test_a_kernel_holds_what_the_loops_leave(tmp_path: Path) -> None:
    cells = {f"c{at}": source for at, source in enumerate(IN_A_KERNEL)}
    path = tmp_path / "flow.ipynb"
    with Kernel(NotebookFile(path, cells)) as kernel:
        assert kernel.execute(cells["c0"], "c0").status == "ok"
        assert kernel.execute("%flow run").status == "ok"
        expected = {name: plain(value) for name, value in reference.run(path).items()}
        for name in ("e", "err"):
            assert kernel.execute(f"({name}.type, {name}.message)").result == repr(expected.pop(name))
        assert {name: kernel.execute(f"print({name})").stdout for name in expected} == {
            name: f"{value}\n" for name, value in expected.items()
        }
