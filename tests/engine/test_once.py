"""`--once`: over retries, failures, kills, runs side by side and by hand, a step begins at most once for each key."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.engine import claims
from nbflow.errors import PlanError, StoreError
from nbflow.flow.notebook import document_of
from nbflow.runs import garbage
from nbflow.store.location import open_store
from tests.support.kernel import Kernel, NotebookFile

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("folder")]

PAY = "with open('ledger.txt', 'a') as ledger:\n    ledger.write(f'{amount}\\n')"
WAIT = "import time\nwhile not __import__('os').path.exists('go'):\n    time.sleep(0.02)"
BOUGHT = "%%step bought\namount = 7"


def write(*cells: str) -> Path:
    path = Path("shop.ipynb")
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "shop"))
    return path


def pay(options: str = "", after: str = "receipt = amount * 10") -> Path:
    return write(BOUGHT, f"%%step pay --once {options}\n{PAY}\n{after}", "%%step thank\nthanks = receipt + 1")


def paid() -> int:
    return len(Path("ledger.txt").read_text().splitlines()) if Path("ledger.txt").exists() else 0


def message(run: nbflow.Run) -> str:
    assert run.error is not None
    return str(run.error)


def begin(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nbflow", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def at_it() -> int:
    """How many runs have come to the step and not left it."""
    seen = [run.snapshot.tasks for run in nbflow.Flow("shop").runs()]
    return sum(view.task.step == "pay" and view.state == "running" for tasks in seen for view in tasks)


def wait_for(count: int) -> None:
    deadline = time.monotonic() + 60
    while paid() < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert paid() == count


def test_fresh_asks_and_again_alone_reuses() -> None:
    path = pay()
    first = nbflow.run(path)
    assert (first.status, paid()) == ("done", 1)
    assert nbflow.run(path)["pay"].state == "reused"
    assert nbflow.run(path, again=["pay"])["pay"].state == "reused"
    for fresh in (["pay"], True):
        refused = nbflow.run(path, fresh=fresh)
        assert {refused["pay"].state, refused["thank"].state} == {"failed", "cancelled"}
        assert f"it was executed in {first.id}" in message(refused)
        failure = refused["pay"].task.error
        assert failure is not None
        assert "--fresh pay --again pay" in (refused.snapshot.tasks[1].failure.fix or "")
        assert paid() == 1
    planned = {
        row.step: (row.action, [code for code, _ in row.reasons]) for row in nbflow.plan(path, fresh=["pay"]).tasks
    }
    assert planned["pay"] == ("run", ["once"])
    assert nbflow.run(path, fresh=["pay"], again=["pay"]).status == "done"
    assert paid() == 2


def test_another_key_is_another_matter() -> None:
    nbflow.run(pay())
    write(BOUGHT.replace("7", "8"), f"%%step pay --once\n{PAY}\nreceipt = amount * 10")
    assert nbflow.run("shop.ipynb").data.receipt == 80
    assert Path("ledger.txt").read_text().split() == ["7", "8"]


@pytest.mark.parametrize("options", ["", "--retry 3", "--retry 2 --backoff 0.01 --retry-on ZeroDivisionError"])
def test_a_failure_is_not_tried_again(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = pay(options, "receipt = 1 / (amount - 7)")
    first = nbflow.run(path)
    assert (first.status, paid()) == ("failed", 1)
    assert first["pay"].task.attempt == 1
    second = nbflow.run(path)
    assert (second.status, paid()) == ("failed", 1)
    assert f"it began in {first.id}" in message(second)
    assert app.main(["resume"]) == 1
    told = capsys.readouterr()
    assert "nbflow resume --again pay" in told.out + told.err
    assert paid() == 1
    assert app.main(["resume", "--again", "pay"]) == 1  # it fails as before, and was executed
    assert paid() == 2


def test_a_caught_failure_has_begun_too() -> None:
    path = pay("--catch problem", "receipt = 1 / (amount - 7)")
    write(
        BOUGHT, f"%%step pay --once --catch problem\n{PAY}\nreceipt = 1 / (amount - 7)", "%%step told\nt = problem.type"
    )
    assert nbflow.run(path).data.t == "ZeroDivisionError"
    assert nbflow.run(path).status == "failed"
    assert paid() == 1


def test_a_killed_run_asks() -> None:
    pay("", f"{WAIT}\nreceipt = amount * 10")
    process = begin("run", "shop.ipynb")
    wait_for(1)
    process.kill()
    process.communicate()
    refused = nbflow.run("shop.ipynb")
    assert "left no result" in message(refused)
    assert refused["bought"].state == "reused"
    Path("go").touch()
    assert app.main(["resume"]) == 1
    assert paid() == 1
    assert app.main(["resume", "--again", "pay"]) == 0
    assert paid() == 2
    assert nbflow.run("shop.ipynb")["pay"].state == "reused"


def test_a_killed_worker_asks() -> None:
    path = pay(
        "--retry 2",
        "import os, signal\nif not os.path.exists('go'):\n    os.kill(os.getpid(), signal.SIGKILL)\nreceipt = 1",
    )
    assert nbflow.run(path).status == "failed"
    assert "left no result" in message(nbflow.run(path))
    assert paid() == 1
    Path("go").touch()
    assert nbflow.run(path, again=["pay"]).status == "done"
    assert paid() == 2


def test_runs_side_by_side_share_one_execution() -> None:
    pay("", f"{WAIT}\nreceipt = amount * 10")
    runs = [begin("run", "shop.ipynb") for _ in range(3)]
    wait_for(1)
    store = open_store(".nbflow")
    deadline = time.monotonic() + 60
    while at_it() < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    Path("go").touch()
    ended = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], ended
    assert paid() == 1
    assert [run.data.thanks for run in nbflow.Flow("shop").runs()] == [71, 71, 71]
    assert len(store.list("claims")) == 1


def test_who_waits_for_a_run_that_is_killed_asks() -> None:
    pay("", f"{WAIT}\nreceipt = amount * 10")
    first = begin("run", "shop.ipynb")
    wait_for(1)
    second = begin("run", "shop.ipynb")
    deadline = time.monotonic() + 60
    while at_it() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    told = second.communicate()[0]
    assert second.returncode == 1
    assert "left no result" in told
    assert paid() == 1


def test_equal_items_are_one_execution() -> None:
    write(BOUGHT, f"%%step pay --once --foreach amount in [3, 3, 4, 3]\n{PAY}\nreceipt = amount * 10")
    run = nbflow.run("shop.ipynb")
    assert [task.data.receipt for task in run["pay"].tasks] == [30, 30, 40, 30]
    assert sorted(Path("ledger.txt").read_text().split()) == ["3", "4"]


def test_claims_outlive_a_clean_up() -> None:
    path = pay()
    nbflow.run(path)
    store = open_store(".nbflow")
    garbage.clean(store, garbage.plan_cleaning(store, garbage.Policy(keep=0, force=True)))
    for entry in store.list("results"):  # a clean-up leaves these; whoever loses them has the claims yet
        store.delete(entry.path)
    refused = nbflow.run(path)
    assert "left no result" in message(refused)
    assert paid() == 1


def test_by_hand_it_asks() -> None:
    cells = {"ext": "%load_ext nbflow", "bought": BOUGHT, "pay": f"%%step pay --once\n{PAY}\nreceipt = amount * 10"}
    with Kernel(NotebookFile(Path("shop.ipynb").resolve(), cells)) as kernel:
        kernel.ok("bought", "pay")
        assert paid() == 1
        again = kernel.run("pay")
        assert again.status == "error"
        assert "it was executed in" in again.text
        assert "%flow run pay --fresh pay --again pay" in again.text
        assert (paid(), kernel.value("receipt")) == (1, "70")
        kernel.restart()
        assert (
            "reused" in kernel.ok("bought", "pay").text
        )  # files make no step volatile, and this one is never executed
        assert paid() == 1
        assert kernel.execute("%flow run pay --fresh pay --again pay").status == "ok"
        assert paid() == 2
    assert nbflow.run("shop.ipynb")["pay"].state == "reused"


def test_what_is_executed_whenever_it_is_run_by_hand_is_not() -> None:
    """A step that starts programs is executed by hand even where a result is known; with `--once` it is not."""
    call = "%%step pay --once\nimport subprocess\nsubprocess.run(['sh', '-c', 'echo 1 >> ledger.txt'])\nreceipt = 70"
    cells = {"ext": "%load_ext nbflow", "pay": call}
    with Kernel(NotebookFile(Path("shop.ipynb").resolve(), cells)) as kernel:
        kernel.ok("pay")
        kernel.restart()
        assert "reused" in kernel.ok("pay").text
    assert paid() == 1


def test_a_failure_by_hand_has_begun_too() -> None:
    cells = {"ext": "%load_ext nbflow", "bought": BOUGHT, "pay": f"%%step pay --once\n{PAY}\nreceipt = 1 / 0"}
    with Kernel(NotebookFile(Path("shop.ipynb").resolve(), cells)) as kernel:
        kernel.ok("bought")
        assert kernel.run("pay").ename == "ZeroDivisionError"
        again = kernel.run("pay")
        assert "left no result" in again.text
        assert paid() == 1
        refused = nbflow.run("shop.ipynb")  # the kernel lives, and does not execute it any more
        assert "left no result" in message(refused)
        assert paid() == 1


def test_a_store_that_cannot_promise_it_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pay()
    store = f"local://{folder}/plain"
    with pytest.raises(StoreError, match="--once"):
        nbflow.run(path, store=store)
    assert app.main(["run", str(path), "--store", store]) == 3
    assert "step pay" in capsys.readouterr().err
    assert paid() == 0
    shutil.rmtree(folder / "plain", ignore_errors=True)
    write(BOUGHT)
    assert nbflow.run(path, store=store).status == "done"


def test_a_torn_claim_is_said(folder: Path) -> None:
    path = pay()
    nbflow.run(path)
    (place,) = (folder / ".nbflow" / "claims").rglob("*.json")
    place.write_bytes(b"{")
    run = nbflow.run(path, fresh=["pay"])
    assert "cannot be read" in message(run)
    assert paid() == 1


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(PlanError, match="'pya'; did you mean 'pay'"):
        nbflow.run(pay(), again=["pya"])
    assert claims.last_claim(open_store(".nbflow"), "k") is None
