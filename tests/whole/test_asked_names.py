"""Names that only a run shows to be read: the step gets them, runs again at most once, and the next run knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from tests.support.kernel import Kernel, NotebookFile

pytestmark = pytest.mark.running

TOP = (
    "import pickle\nimport pandas as pd",
    "class Model:\n    def __init__(self, w):\n        self.w = w",
    "%%step make\nlimit, frame = 5.5, pd.DataFrame({'price': [5.0, 6.0, 7.0]})",
    "%%step rule\nrule = 'price > @limit'",
)
CASES = {
    # the last cell, and what it leaves
    "a query whose text a cell above has": ("n = len(frame.query(rule))", "2"),
    "a text put together": ("n = eval(''.join(['li', 'mit']))", "5.5"),
    "an attribute of the main module": ("import sys\nn = getattr(sys.modules['__main__'], 'lim' + 'it', None)", "5.5"),
    "an error that comes of another": (
        "try:\n    eval('lim' + 'it')\nexcept NameError as e:\n    raise ValueError from e\nn = 1",
        "1",
    ),
    "a class that a file names": ("n = pickle.loads(b'\\x80\\x04c__main__\\nModel\\n.')(3).w", "3"),
}  # fmt: skip


def run(folder: Path, *cells: str, **options: object) -> nbflow.Run:
    path = folder / "flow.ipynb"
    path.write_text(document_of([(f"c{at}", source) for at, source in enumerate(cells)], "flow"))
    return nbflow.run(path, store=str(folder / "store"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_the_step_gets_it_and_runs_again_once(tmp_path: Path, name: str) -> None:
    body, value = CASES[name]
    first = run(tmp_path, *TOP, f"%%step use\n{body}")
    assert first.successful, first.error
    assert repr(first.data.n) == value
    assert first["use"].task.attempt == 1, "no attempt counts for it"
    again = run(tmp_path, *TOP, f"%%step use\n{body}")
    assert [step.state for step in again.steps()] == ["reused"] * 3
    fresh = run(tmp_path, *TOP, f"%%step use\n{body}", fresh=True)
    assert repr(fresh.data.n) == value


def test_it_is_an_input_from_then_on(tmp_path: Path) -> None:
    use = "%%step use\nn = len(frame.query(rule))"
    assert run(tmp_path, *TOP, use).data.n == 2
    changed = run(tmp_path, *TOP[:2], TOP[2].replace("5.5", "6.5"), TOP[3], use)
    assert (changed.data.n, changed["use"].state) == (1, "done")


def test_each_item_of_a_fan_out_gets_it(tmp_path: Path) -> None:
    done = run(tmp_path, *TOP, "%%step use --foreach k in [0, 1, 2]\nn = len(frame.query(rule)) + k",
               "%%step all --join use\nns = [each.n for each in inputs]")  # fmt: skip
    assert done.successful, done.error
    assert done.data.ns == [2, 3, 4]


def test_after_an_effect_it_is_said_and_the_next_run_knows(tmp_path: Path) -> None:
    use = "%%step use\nwith open('made.txt', 'a') as out:\n    _ = out.write('x')\nn = len(frame.query(rule))"
    first = run(tmp_path, *TOP, use)
    assert not first.successful
    assert (tmp_path / "made.txt").read_text() == "x", "what has had an effect is not executed twice"
    (finding,) = (each for each in first._past.snapshot.findings if each.code == "missing-name")
    assert finding.message == "use has looked for limit of a cell above, which its text does not show"
    assert run(tmp_path, *TOP, use).data.n == 2


def test_a_name_that_nobody_gives_fails_as_it_would(tmp_path: Path) -> None:
    failed = run(tmp_path, *TOP, "%%step use\nn = len(frame.query('price > @' + 'nothing'))")
    assert failed["use"].task.error.type == "UndefinedVariableError"
    assert len(failed["use"].task.attempts) == 1


def test_by_hand_the_cell_says_so_and_finds_it_the_next_time(tmp_path: Path) -> None:
    cells = {f"c{at}": source for at, source in enumerate((*TOP, "%%step use\nn = len(frame.query(rule))"))}
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **cells})) as kernel:
        for name in list(cells)[:-1]:
            kernel.ok(name)
        failed = kernel.run("c4")
        assert failed.status == "error"
        assert "use has looked for limit of a cell above" in failed.stderr
        assert kernel.ok("c4").status == "ok"
        assert kernel.value("n") == "2"
