"""`verify`: the plain notebook beside the flow, fresh and reused; what it says, and what it does about a difference."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import nbflow
from nbflow.errors import PlanError, TaskError
from tests.support.kernel import Kernel, NotebookFile
from tests.support.plain import copy_with_data

pytestmark = [pytest.mark.running, pytest.mark.timeout(600)]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

DROPS = """class Model:
    def __init__(self):
        self.cache = []
    def __reduce__(self):
        return (Model, ())"""


def write(folder: Path, *cells: str) -> Path:
    path = folder / "demo.ipynb"
    NotebookFile(path, {f"c{at}": cell for at, cell in enumerate(cells)})
    return path


def test_what_is_equal_is_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path, "import random\nimport pandas as pd", "%%step a\nxs = [3, 1, 2]\nu = random.random()",
        "%%step b\nframe = pd.DataFrame({'x': xs})\nopen('out.txt', 'w').write(str(xs))",
        "%%step c\ntotal = frame.x.sum()\ng = (x for x in xs)\nprint(total)\ndisplay(frame)\nprint(u)",
    )  # fmt: skip
    seen = nbflow.verify(path)
    assert seen.equal
    assert (seen.values, seen.displays, seen.files, seen.not_compared) == (3, 3, 1, ("g",))
    assert seen.not_reproducible == ("display 3 of c", "u")
    assert str(seen).splitlines()[:3] == [
        "equal: 3 values, 3 displays, 1 file", "not reproducible: display 3 of c, u", "not compared: g"
    ]  # fmt: skip
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != ".nbflow") == ["demo.ipynb"]


def test_what_does_not_come_back_as_it_was_runs_together_from_then_on(tmp_path: Path) -> None:
    cells = (
        DROPS,
        "%%step a\nmodel = Model()\nmodel.cache.append(9)\nk = 5",
        "%%step b\nn = len(model.cache) + k",
        "%%step c\nm = 2 * n",
    )
    path = write(tmp_path, *cells)
    assert nbflow.run(path).data.m == 10  # what nobody sees without it
    seen = nbflow.verify(path)
    assert seen.equal
    assert seen.together == (("a", "b"),)
    assert [each[:2] for each in seen.mended] == [("b", "n"), ("c", "m")]
    assert "run together from now on: a, b" in str(seen)
    run = nbflow.run(path)
    assert run.data.m == 12
    assert run["b"].task.together == ("a", "b")
    assert nbflow.verify(path).together == ()


def test_what_cannot_be_mended_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        DROPS,
        "%%step a\nmodel = Model()\nmodel.cache.append(9)",
        "%%step b --timeout 60s\nn = len(model.cache)",
    )
    seen = nbflow.verify(path)
    assert not seen.equal
    assert seen.differences == (("b", "n", "1", "0"),)
    assert seen.together == ()
    assert str(seen) == "different: n (b)\n  plain: 1\n  flow:  0"
    done = subprocess.run(
        [sys.executable, "-m", "nbflow", "verify", path, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert (said["equal"], said["differences"]) == (False, [["b", "n", "1", "0"]])
    assert not list((tmp_path / ".nbflow").glob("facts/*"))


def test_what_may_not_run_four_times_is_refused(tmp_path: Path) -> None:
    once = write(tmp_path, "%%step pay --once\nreceipt = 1")
    with pytest.raises(PlanError, match="pay has --once: it may not be executed four times"):
        nbflow.verify(once)
    outside = write(tmp_path, "import subprocess", "%%step ask\nx = subprocess.run(['true']).returncode")
    with pytest.raises(PlanError, match="ask uses programs, and a verification executes it four times"):
        nbflow.verify(outside)
    assert nbflow.verify(outside, yes=True).equal
    broken = write(tmp_path, "%%step a\nx = 1 / 0")
    with pytest.raises(TaskError, match="the plain notebook fails: ZeroDivisionError"):
        nbflow.verify(broken)


def test_a_live_notebook_is_verified_as_it_is(tmp_path: Path) -> None:
    document = NotebookFile(tmp_path / "demo.ipynb", {"a": "%%step a\nx = 1", "b": "%%step b\ny = x + 1"})
    with Kernel(document) as kernel:
        assert "equal: 2 values, 0 displays, 0 files" in kernel.execute("%flow verify").text


@pytest.mark.parametrize("name", ["quickstart", "sweep", "together", "until"])
def test_examples_are_equal(tmp_path: Path, name: str) -> None:
    seen = nbflow.verify(copy_with_data(EXAMPLES / f"{name}.ipynb", tmp_path / "copy"))
    assert seen.differences == ()
    assert seen.values > 2


def test_parameters_count(tmp_path: Path) -> None:
    path = write(tmp_path, "%%params\nn: int = 1", "%%step a --foreach i in range(n)\ny = i * i",
                 "%%step b --join a\ntotal = sum(each.y for each in inputs)")  # fmt: skip
    params: Mapping[str, int] = {"n": 4}
    assert nbflow.verify(path, params=params).equal


def test_what_cells_show_is_compared(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "%%step a\nimport os\nprint('one')\n'two'",
        "%%step b\nprint('python' if 'plain_run' in ' '.join(__import__('sys').orig_argv) else 'flow')",
    )
    seen = nbflow.verify(path)
    assert seen.differences == (("b", "display 1", "python", "flow"),)
    assert "different: display 1 (b)\n  plain: python\n  flow:  flow" in str(seen)


def test_a_loop_shows_what_its_items_show(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "%%step a --foreach i in range(3)\nprint('item', i)\nx = i",
        "%%step b --join a\nprint(sum(each.x for each in inputs))",
        "%%step c --until n > 2\nn = globals().get('n', 0) + 1\nprint(n)",
    )
    seen = nbflow.verify(path)
    assert seen.equal, str(seen)
    assert seen.displays == 3


def test_a_certificate_holds_for_this_code_and_these_packages(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("rate = 2")
    cells = ["import shop\nimport pandas as pd", "%%step a\nx = pd.Series([shop.rate]).sum()", "%%step b\ny = x + 1"]
    path = write(tmp_path, *cells)
    with pytest.raises(PlanError, match=r"demo.ipynb has no certificate: it was never verified") as refusal:
        nbflow.run(path, verified=True)
    assert "nbflow verify demo.ipynb" in (refusal.value.fix or "")
    assert not nbflow.run(path).snapshot.verified
    certified = nbflow.verify(path).certified
    run = nbflow.run(path, verified=True)
    assert run.successful
    assert (run.snapshot.verified, run.metadata["verified"]) == (certified, certified)
    assert "verified 20" in run.card.html
    assert nbflow.plan(path).verified == certified
    path = write(tmp_path, *cells[:2], "%%step b  # the same\ny = x+1")
    assert nbflow.run(path, verified=True).successful
    path = write(tmp_path, *cells[:2], "%%step b\ny = x + 2")
    with pytest.raises(PlanError, match=r"it was verified before it was changed: cell 3 \(b\)"):
        nbflow.run(path, verified=True)
    path = write(tmp_path, *cells)
    (tmp_path / "shop.py").write_text("rate = 30")
    with pytest.raises(PlanError, match=r"it was verified with something else: shop.py has changed"):
        nbflow.run(path, verified=True)
    assert not nbflow.run(path).snapshot.verified


def test_a_stale_result_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "%%step a\nx = 5\nprint(x)", "%%step b\ny = x + 1")
    run = nbflow.run(path)
    (record,) = (tmp_path / ".nbflow" / "results").glob(f"*/*/*{run.id}*.a.*.json")
    record.write_text(record.read_text().replace('"text":"5\\n"', '"text":"6\\n"'))
    seen = nbflow.verify(path)
    assert seen.equal
    assert (seen.dropped, seen.mended) == (("a",), (("a", "display 1", "5", "6"),))
    assert "stale results dropped: a" in str(seen)
    again = nbflow.run(path)
    assert {step.name: step.state for step in again.steps()} == {"a": "done", "b": "reused"}
    assert nbflow.verify(path).dropped == ()
