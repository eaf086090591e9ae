# ruff: noqa: E501 - a line of a cell stands in one line
"""Steps that share what cannot travel run in one process: what each leaves is what the plain notebook leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import document_of, parse_document
from nbflow.flow.together import with_together
from tests.support.equality import equal
from tests.support.kernel import Kernel, NotebookFile
from tests.support.plain import run_reference

pytestmark = pytest.mark.running

SHARED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # name: cells, and the steps that run together
    "a generator of the text": (
        ("%%step a\nit = (x * x for x in range(10))\nk = 3", "%%step b\nfirst = next(it)",
         "%%step c\nsecond = [next(it), next(it)]", "%%step d\ntotal = first + sum(second) + k"),
        ("a", "b", "c"),
    ),
    "a generator that only a run shows": (
        ("def squares():\n    yield from (x * x for x in range(10))\ndef start():\n    return squares()",
         "%%step a\nit = start()", "%%step b\nfirst = next(it)", "%%step c\nrest = [*it]", "%%step d\nn = len(rest) + first"),
        ("a", "b", "c"),
    ),
    "an open file": (
        ("%%step a\nout = open('out.txt', 'w')", "%%step b\nn = out.write('one ')",
         "%%step c\nm = out.write('two')\nout.close()", "%%step d --after c\ntext = open('out.txt').read()"),
        ("a", "b", "c"),
    ),
    "a data base in memory": (
        ("import sqlite3", "%%step a\ndb = sqlite3.connect(':memory:')",
         "%%step fill\n_ = db.execute('create table t (x)')\n_ = db.executemany('insert into t values (?)', [(1,), (2,)])\nrows = 2",
         "%%step ask\ntotal = db.execute('select sum(x) from t').fetchone()[0] + rows"),
        ("a", "fill", "ask"),
    ),
    "a lock, and a step between that has nothing to do with it": (
        ("import threading", "%%step a\nlock = threading.Lock()\nxs = [1]", "%%step between\nys = [x + 1 for x in xs]",
         "%%step other\nzs = [5]", "%%step b\nwith lock:\n    total = sum(ys) + sum(zs)"),
        ("a", "between", "b"),
    ),
    "lists that are changed on the way": (
        ("%%step a\nit = iter_of = (x for x in range(5))\nxs = [1]\nalias = xs", "%%step b\nxs.append(next(it))\nq = 1",
         "%%step c\nxs.append(next(it))\ndone = len(xs)", "%%step d\nresult = [xs, alias, xs is alias, done]"),
        ("a", "b", "c"),
    ),
    "a seed that the last of them to end shows": (
        ("import json, random", "%%step first\nrandom.seed(5)\nxs = [3, 1, 2]\nn = 3", "%%step box\nbox = [xs]",
         "%%step a\njson.extra = n\nk = 1", "%%step b\ngetattr(random, 'seed')(8)\nm = json.extra", "%%step c\nrandom.shuffle(xs)\norder = [[*xs], box, json.extra]"),
        ("a", "b", "c"),
    ),
    "classes and what is set on them": (
        ("class Count:\n    seen = 0\ndef up():\n    Count.seen += 1\n    return Count.seen",
         "%%step a\nit = (x for x in range(5))\none = up()", "%%step b\ntwo = (up(), next(it))", "%%step c\nthree = up()"),
        ("a", "b"),
    ),
    "a class with a connection": (
        ("import sqlite3",
         "%%step a\nclass Shop:\n    db = sqlite3.connect(':memory:')\n    @classmethod\n    def total(cls):\n        return cls.db.execute('select sum(x) from t').fetchone()[0]\nk = 1",
         "%%step b\n_ = Shop.db.execute('create table t (x)')\n_ = Shop.db.execute('insert into t values (4)')\nfirst = Shop.total()",
         "%%step c\n_ = Shop.db.execute('insert into t values (5)')\nsecond = Shop.total() + first", "%%step d\ne = k + 1"),
        ("a", "b", "c"),
    ),
    "random numbers": (
        ("import random", "%%step a\nrandom.seed(3)\nit = (random.random() for _ in range(9))\nu = random.random()",
         "%%step b\nv = next(it)", "%%step c\nw = random.random()"),
        ("a", "b"),
    ),
    "a name that another cell gives between": (
        ("%%step a\nit = (x for x in range(5))\nx = 1", "%%step other\nx = 50", "%%step b\ny = next(it) + x"),
        ("a", "b"),
    ),
    "a writer that may not come to it": (
        ("%%step a\nit = (x for x in range(5))\nx = 1", "%%step b\nif next(it) > 3:\n    x = 2", "%%step c\ny = [x, next(it)]"),
        ("a", "b", "c"),
    ),
    "what a cell does not hold of": (
        ("%%step a\nit = (x for x in range(5))\nx = 1", "%%step b --if x > 3\nx = next(it)", "%%step c\ny = [x, next(it)]"),
        ("a", "b", "c"),
    ),
    "a function that a cell makes": (
        ("%%step a\ndef twice(x):\n    return 2 * x\nit = (twice(x) for x in range(5))", "%%step b\ny = [next(it), twice(4)]",
         "%%step c\nz = twice(y[1]) + next(it)"),
        ("a", "b", "c"),
    ),
    "a list that another name holds": (
        ("class Box:\n    def __init__(self, xs):\n        self.xs = xs\n        self.it = (x for x in xs)\ndef add(box, n):\n    box.xs.append(n)",
         "%%step a\nxs = [1, 2]\nbox = Box(xs)", "%%step b\nadd(box, 3)\nfirst = next(box.it)",
         "%%step c\nn = [x * 2 for x in xs]\nrest = [*box.it]", "%%step d\ntotal = sum(xs) + sum(n)"),
        ("a", "b", "c"),
    ),
    "an option of the process": (
        ("import decimal", "%%step a\ndef narrow(n):\n    decimal.getcontext().prec = n\nnarrow(4)\nit = (x for x in range(3))",
         "%%step b\ny = str(decimal.Decimal(1) / 3)\nk = next(it)\nnarrow(6)", "%%step c\nz = str(decimal.Decimal(1) / 3)"),
        ("a", "b"),
    ),
}  # fmt: skip


def write(folder: Path, cells: tuple[str, ...]) -> Path:
    path = folder / "demo.ipynb"
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(("%load_ext nbflow", *cells))), "demo"))
    return path


def unequal(run: nbflow.Run, plain: Mapping[str, object]) -> list[str]:
    """The names that differ from those that the plain notebook leaves."""
    values = {name: getattr(run.data, name, "nothing") for name in plain}
    return [f"{name}: {values[name]!r} not {value!r}" for name, value in plain.items() if equal(values[name], value)]


@pytest.mark.parametrize("name", SHARED)
def test_they_run_in_one_process(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells, group = SHARED[name]
    path = write(tmp_path, cells)
    plain = run_reference(path, tmp_path / "plain").values
    assert plain
    first = nbflow.run(path)
    assert first.successful, first.error
    assert unequal(first, plain) == []
    assert {step.name for step in first.steps() if step.task.together} == {*group}
    assert first[group[0]].task.together == group
    again = nbflow.run(path)
    assert {step.state for step in again.steps()} <= {"reused", "skipped"}
    assert unequal(again, plain) == []


@pytest.mark.parametrize("name", SHARED)
def test_by_hand_the_kernel_is_their_process(tmp_path: Path, name: str) -> None:
    cells, _ = SHARED[name]
    path = write(tmp_path, cells)
    plain = run_reference(path, tmp_path / "plain").values
    document = NotebookFile(path, {f"c{at}": cell for at, cell in enumerate(("%load_ext nbflow", *cells))})
    with Kernel(document) as kernel:
        for at in range(len(cells) + 1):
            kernel.ok(f"c{at}")
        for each, value in plain.items():
            if callable(value):
                continue
            assert kernel.execute(f"print(repr({each}))").stdout.strip() == repr(value), each
        kernel.execute("%flow status")
    run = nbflow.run(path)
    assert run.successful, run.error
    assert unequal(run, plain) == []


def test_an_edit_runs_all_of_them_again(tmp_path: Path) -> None:
    cells = list(SHARED["a generator of the text"][0])
    assert nbflow.run(write(tmp_path, tuple(cells))).successful
    cells[2] = "%%step c\nsecond = [next(it), next(it), next(it)]"
    path = write(tmp_path, tuple(cells))
    plan = {task.step: task for task in nbflow.plan(path).tasks}
    assert {step: task.action for step, task in plan.items()} == {"a": "run", "b": "run", "c": "run", "d": "run"}
    assert plan["a"].reasons == (("together", "runs with c, which runs again"),)
    assert "line 2" in plan["c"].reasons[0][1]
    run = nbflow.run(path)
    assert (run.data.second, run.data.total) == ([1, 4, 9], 17)


def test_one_that_fails_is_the_one_that_is_said_to_fail(tmp_path: Path) -> None:
    path = write(tmp_path, (
        "%%step a\nprint('in a')\nit = (x for x in range(5))", "%%step b\nprint('in b')\nfirst = next(it)\n1 / 0",
        "%%step c\nsecond = next(it)", "%%step d\nother = 1",
    ))  # fmt: skip
    run = nbflow.run(path)
    assert {step.name: step.state for step in run.steps()} == {
        "a": "done",
        "b": "failed",
        "c": "cancelled",
        "d": "done",
    }
    error = run["b"].task.error
    assert (error.type, error.line, error.cell) == ("ZeroDivisionError", 4, "c2")
    assert (run["a"].task.stdout, run["b"].task.stdout) == ("in a\n", "in b\n")
    path.write_text(path.read_text().replace("1 / 0", "1 / 1"))
    mended = nbflow.run(path)
    assert mended.successful
    assert (mended.data.first, mended.data.second) == (0, 1)


def test_a_retry_begins_with_the_first_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, (
        "from nbflow import current", "%%step a\nit = (x for x in range(5))\nstarts = current.attempt",
        "%%step b --retry 2\nfirst = next(it)\nif current.attempt < 3:\n    raise OSError('not yet')",
        "%%step c --catch problem\nsecond = next(it)\nraise ValueError('caught')", "%%step d\nthird = [problem.type, next(it)]",
    ))  # fmt: skip
    run = nbflow.run(path)
    assert run.successful, run.error
    assert (run.data.starts, run.data.first, run.data.second, run.data.third) == (3, 0, 1, ["ValueError", 2])
    assert run["c"].state == "caught"


def test_each_item_of_a_fan_out_has_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, (
        "%%step a --foreach n in range(1, 40)\nit = (x * n for x in range(5))\n_ = next(it)", "%%step b\nfirst = next(it)\nprint(n)",
        "%%step c --join b\nfirsts = [each.first for each in inputs]",
    ))  # fmt: skip
    run = nbflow.run(path)
    assert run.successful, run.error
    assert run.data.firsts == [*range(1, 40)]
    assert [task.stdout for task in run["b"].tasks[:2]] == ["1\n", "2\n"]
    assert {step.state for step in nbflow.run(path).steps()} == {"reused"}


def test_what_cannot_be_together_says_why(tmp_path: Path) -> None:
    path = write(tmp_path, ("%%step a\nit = (x for x in range(5))", "%%step b --timeout 5s\nfirst = next(it)"))
    run = nbflow.run(path)
    assert run["a"].task.error.type == "SerializationError"
    noted = [finding.message for finding in nbflow.plan(path).findings if finding.code == "unserializable"]
    assert noted
    assert "cannot run together: b has --timeout" in noted[0]


def test_a_cell_with_an_effect_is_not_executed_twice(tmp_path: Path) -> None:
    path = write(tmp_path, (
        "def start():\n    with open('log.txt', 'a') as log:\n        log.write('started\\n')\n    return (x for x in range(5))",
        "%%step a\nit = start()", "%%step b\nfirst = next(it)",
    ))  # fmt: skip
    failed = nbflow.run(path)
    assert failed["a"].state == "failed"
    assert (tmp_path / "log.txt").read_text() == "started\n"
    run = nbflow.run(path)  # what it cannot store is known now
    assert run.successful
    assert run["b"].task.together == ("a", "b")
    assert (tmp_path / "log.txt").read_text() == "started\n" * 2


def test_effects_happen_once_whatever_a_run_finds_out(tmp_path: Path) -> None:
    path = write(tmp_path, (
        "class Box:\n    def __init__(self, xs):\n        self.xs = xs\ndef add(box, n):\n    box.xs.append(n)",
        "%%step a\nxs = [1]\nbox = Box(xs)\nit = (x for x in range(5))",
        "%%step b\nadd(box, next(it) + 7)\nwith open('log.txt', 'a') as log:\n    log.write('b ')",
        "%%step c\nn = next(it)\nwith open('log.txt', 'a') as log:\n    log.write('c ')",
        "%%step d\ntotal = sum(xs) + n",
    ))  # fmt: skip
    run = nbflow.run(path)
    assert run.successful, run.error
    assert (tmp_path / "log.txt").read_text() == "b c "
    assert (run.data.xs, run.data.box.xs, run.data.total) == ([1, 7], [1, 7], 9)
    assert {step.state for step in nbflow.run(path).steps()} == {"reused"}
    assert (tmp_path / "log.txt").read_text() == "b c "


def test_what_has_had_an_effect_joins_them_in_the_next_run(tmp_path: Path) -> None:
    path = write(tmp_path, (
        "%%step a\nn = iter([7])",
        "%%step b\nwith open('log.txt', 'a') as log:\n    log.write('b ')\nglobals().update(n=(x for x in range(5)))",
        "%%step c\nfirst = next(n)",
    ))  # fmt: skip
    failed = nbflow.run(path)
    assert {step.name: step.state for step in failed.steps()} == {"a": "done", "b": "done", "c": "failed"}
    assert "'n' of b, which could not be stored" in failed["c"].task.error.message
    assert (tmp_path / "log.txt").read_text().split() == ["b"]
    run = nbflow.run(path)
    assert run.successful, run.error
    assert run["c"].task.together == ("b", "c")
    assert run.data.first == 0
    assert (tmp_path / "log.txt").read_text().split() == ["b", "b"]


def test_what_is_in_a_temporary_folder_runs_with_it() -> None:
    cells = [
        "import json, tempfile\nfrom pathlib import Path",
        "%%step make\ntmp = tempfile.TemporaryDirectory()\npath = Path(tmp.name) / 'data.json'",
        "%%step write\nsize = path.write_text('[1, 2]')",
        "%%step read\ndata = json.loads(path.read_text())",
        "%%step use\ntotal = sum(data)",
    ]
    text = document_of([(str(at), cell) for at, cell in enumerate(cells, start=1)], "folders")
    flow = build_flow(parse_document(text, name="folders", folder="/nowhere"))
    assert {step.name: step.together for step in with_together(flow, {}).steps} == {
        "make": ("make", "write", "read"), "write": ("make", "write", "read"), "read": ("make", "write", "read"),
        "use": (),
    }  # fmt: skip
