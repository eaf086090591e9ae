"""Every way in which a task can end badly, in a run: what it is called, alone, retried, caught, in nested fan-outs."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from tests.engine.test_loops import write_notebook

pytestmark = pytest.mark.running

ENDINGS = {
    "raise": ("raise KeyError('gone')", "", "KeyError", "gone"),
    "sys-exit": ("import sys; sys.exit(3)", "", "SystemExit", "3"),
    "os-exit": ("import os; os._exit(3)", "", "WorkerLost", "exit status 3"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "", "WorkerLost", "segmentation fault"),
    "abort": ("import os; os.abort()", "", "WorkerLost", "SIGABRT"),
    "kill": ("import os; os.kill(os.getpid(), 9)", "", "WorkerLost", "SIGKILL"),
    "memory": ("import time; b = bytearray(500_000_000); time.sleep(30)", " --memory 150M", "MemoryError", "--memory"),
    "timeout": ("import time; time.sleep(60)", " --timeout 1s", "TimeoutError", "--timeout"),
    "timeout-in-c": ("import ctypes; ctypes.PyDLL(None).sleep(60)", " --timeout 1s", "TimeoutError", "--timeout"),
}
"""What a cell does, the options that it needs for it, the failure's type, and a part of its message."""


def run(tmp_path: Path, *cells: str) -> nbflow.Run:
    path = write_notebook(tmp_path / "flow.ipynb", ["%load_ext nbflow", *cells])
    return nbflow.run(path, store=str(tmp_path / "store"))


@pytest.mark.parametrize("case", ENDINGS)
def test_fails_under_its_own_name(case: str, tmp_path: Path) -> None:
    deed, options, kind, said = ENDINGS[case]
    done = run(
        tmp_path,
        f"%%step bad{options}\nprint('before')\n{deed}\nx = 1",
        "%%step reader\ny = x",
        "%%step other\nz = 3",
    )
    assert done.status == "failed"
    task = done["bad"].task
    assert task.error is not None
    assert task.error.type == kind
    assert said in task.error.message
    assert task.stdout == "before\n"
    assert done["reader"].state == "cancelled"
    assert done["other"].state == "done", done["other"].task.error
    assert kind in (done.error or "")


@pytest.mark.parametrize("case", ENDINGS)
def test_is_tried_again(case: str, tmp_path: Path) -> None:
    deed, options, kind, _ = ENDINGS[case]
    done = run(
        tmp_path,
        f"%%step shaky --retry 1 --retry-on {kind} --backoff 0.1{options}\n"
        f"from nbflow import current\nprint('attempt', current.attempt)\nif current.attempt == 1:\n    {deed}\nx = 7",
    )
    assert done.successful, done.error
    assert done["shaky"].task.attempt == 2
    assert done["shaky"].task.stdout == "attempt 2\n"
    assert done.data.x == 7


@pytest.mark.parametrize("case", ENDINGS)
def test_is_not_tried_again_for_another_type(case: str, tmp_path: Path) -> None:
    deed, options, _, _ = ENDINGS[case]
    done = run(tmp_path, f"%%step shaky --retry 2 --retry-on ConnectionError{options}\n{deed}")
    assert done.status == "failed"
    assert done["shaky"].task.attempt == 1


@pytest.mark.parametrize("case", ENDINGS)
def test_is_caught_at_once_for_another_type(case: str, tmp_path: Path) -> None:
    deed, options, kind, _ = ENDINGS[case]
    header = f"%%step shaky --retry 2 --retry-on ConnectionError --catch problem{options}"
    done = run(tmp_path, f"{header}\n{deed}", "%%step told\nkind = problem.type")
    assert done.successful, done.error
    assert (done["shaky"].task.attempt, done["shaky"].state, done.data.kind) == (1, "caught", kind)


@pytest.mark.parametrize("case", ENDINGS)
def test_is_caught_in_nested_fan_outs(case: str, tmp_path: Path) -> None:
    """One task of six ends badly in each of its attempts; the flow goes on, and the others know nothing of it."""
    deed, options, kind, said = ENDINGS[case]
    done = run(
        tmp_path,
        "%%step rows --foreach i in range(2)\nbase = i * 10",
        "%%step cells --foreach j in range(3) --retry 1 --catch problem" + options + "\n"
        f"if (i, j) == (1, 1):\n    {deed}\nvalue = base + j",
        "%%step told\nkind = '' if problem is None else problem.type\n"
        "said = '' if problem is None else problem.message",
        "%%step row --join told\nkinds = [entry.kind for entry in inputs]\nsaids = [entry.said for entry in inputs]\n"
        "values = [getattr(entry, 'value', None) for entry in inputs]",
        "%%step table --join row\nall_kinds = [entry.kinds for entry in inputs]\n"
        "all_saids = [entry.saids for entry in inputs]\nall_values = [entry.values for entry in inputs]",
    )
    assert done.successful, done.error
    assert done.data.all_kinds == [["", "", ""], ["", kind, ""]]
    assert said in done.data.all_saids[1][1]
    assert done.data.all_values == [[0, 1, 2], [10, None, 12]]
    assert [task.state for task in done["cells"].tasks] == ["done"] * 4 + ["caught", "done"]
    assert done["cells"][1, 1].attempt == 2


def test_a_wide_fan_out_with_every_kind_of_end(tmp_path: Path) -> None:
    """Small items share workers; those that end badly take nobody with them."""
    deeds = [deed for deed, options, _, _ in ENDINGS.values() if not options]
    kinds = [kind for _, options, kind, _ in ENDINGS.values() if not options]
    cell = "".join(f"if i == {10 + 20 * at}:\n    {deed}\n" for at, deed in enumerate(deeds))
    done = run(tmp_path, f"%%step wide --foreach i in range(150)\n{cell}y = i * i")
    tasks = done["wide"].tasks
    assert len(tasks) == 150
    failed = {task.index[0]: task.error.type for task in tasks if task.error is not None}
    assert failed == {10 + 20 * at: kind for at, kind in enumerate(kinds)}
    assert [task.data.y for task in tasks if task.state == "done"] == [i * i for i in range(150) if i not in failed]
    again = run(tmp_path, f"%%step wide --foreach i in range(150)\n{cell}y = i * i")  # what was done is not done again
    states = [task.state for task in again["wide"].tasks]
    assert states.count("reused") == 150 - len(kinds)
    assert states.count("failed") == len(kinds)


def test_a_wide_fan_out_with_retries(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "%%step wide --foreach i in range(120) --retry 2 --backoff 0.05\nimport os\nfrom nbflow import current\n"
        "if i % 17 == 0 and current.attempt < 3:\n    os._exit(1)\ny = (i, current.attempt)",
        "%%step all --join wide\nys = [entry.y for entry in inputs]",
    )
    assert done.successful, done.error
    assert done.data.ys == [(i, 3 if i % 17 == 0 else 1) for i in range(120)]
