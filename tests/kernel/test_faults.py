"""Whatever goes wrong around a cell: its step is told as failed, with the cause, and the session goes on."""

from __future__ import annotations

import pytest

import nbflow
from tests.page.test_comm import Page
from tests.support.by_hand import Start, states

pytestmark = pytest.mark.running

CELLS = {"make": "%%step make\nmade = [1, 2]", "read": "%%step read\nprint(sum(made))", "plain": "free = 1"}
BREAK = "import nbflow.{module} as broken\nwhole, broken.{name} = broken.{name}, None"
FAULTS = "task.random_state.drew task.results.outputs_of store.artifacts.save task.results.check_required".split()
MEND = "broken.{name} = whole"


def state(page: Page, step: str) -> str:
    """How pages show a step."""
    return next(str(one["state"]) for one in page.snapshot()["steps"] if one["name"] == step)


@pytest.mark.parametrize("part", FAULTS)
def test_a_fault_after_a_cell_fails_its_step(part: str, start: Start) -> None:
    module, _, name = part.rpartition(".")
    kernel = start(CELLS)
    page = Page(kernel)
    kernel.execute(BREAK.format(module=module, name=name))
    executed = kernel.run("make")
    assert executed.status == "error"
    assert "error: what make left could not be kept: TypeError: 'NoneType'" in executed.traceback
    assert "fix: run the cell once more" in executed.traceback
    assert "callback" not in executed.text
    assert kernel.run("plain").status == "ok"
    assert state(page, "make") == "failed"
    kernel.execute(MEND.format(name=name))
    assert kernel.ok("make", "read").stdout == "3\n"
    assert state(page, "make") == "done"
    assert states(kernel) == [("make", "failed"), ("make", "done"), ("read", "done")]


def test_a_fault_while_values_are_stored_fails_their_step(start: Start) -> None:
    kernel = start({**CELLS, "large": "%%step large\nlarge = bytes(4_000_000)"})
    page = Page(kernel)
    kernel.execute(BREAK.format(module="store.records", name="publish"))
    kernel.ok("make", "large")
    told = kernel.run("plain").stderr
    assert "could not be stored: TypeError: 'NoneType'" in told
    assert [state(page, name) for name in ("make", "large")] == ["failed", "failed"]
    kernel.execute(MEND.format(name="publish"))
    kernel.ok("make", "large", "read")
    assert [state(page, name) for name in ("make", "large", "read")] == ["done", "done", "done"]


def test_a_fault_before_a_cell_stops_steps_only(start: Start) -> None:
    kernel = start(CELLS)
    session = "get_ipython().nbflow_extension[0]"
    kernel.execute(f"{session}.document.note = None")
    executed = kernel.execute("1 + 1")
    assert executed.result == "2"
    assert "nbflow is not ready for this cell: TypeError" in executed.stderr
    executed = kernel.run("make")
    assert executed.traceback.startswith("error: nbflow is not ready for this cell: TypeError")
    assert "made" not in kernel.execute("%who").stdout
    kernel.execute(f"del {session}.document.note")
    assert kernel.ok("make", "read").stdout == "3\n"


def test_a_store_that_is_gone(start: Start) -> None:
    kernel = start(CELLS)
    page = Page(kernel)
    kernel.ok("make")
    store = kernel.notebook.path.parent / ".nbflow"
    kernel.execute("%flow status")  # everything is stored
    store.rename(store.with_name("aside"))
    store.touch()
    kernel.run("read")
    assert "cannot write to the datastore" in kernel.run("plain").text
    assert state(page, "read") == "failed"
    store.unlink()
    store.with_name("aside").rename(store)
    assert kernel.ok("make", "read").stdout == "3\n"
    assert state(page, "read") == "done"


def test_an_interrupt_of_its_own_after_a_cell_fails_its_step(start: Start) -> None:
    stops = "class Stops:\n    def __reduce_ex__(self, protocol):\n        raise KeyboardInterrupt"
    kernel = start({"class": stops, "stop": "%%step stop\nstop = Stops()", "next": "%%step next\nprint('on')"})
    kernel.ok("class")
    assert "error: what stop left could not be kept: interrupted" in kernel.run("stop").traceback
    assert kernel.ok("next").stdout == "on\n"
    assert states(kernel) == [("stop", "failed"), ("next", "done")]


HOSTILE = {
    "answers nothing": "class G:\n    def __getattribute__(self, name): raise RuntimeError(name)\ng = G()",
    "has no class": "class K:\n    __class__ = property(lambda self: 1 / 0)\nk = K()",
    "has no hash": "class M(type):\n    def __hash__(cls): raise RuntimeError\nclass H(metaclass=M): pass\nh = H()",
    "exits": "class X:\n    def __reduce_ex__(self, protocol): raise SystemExit(3)\nx = X()",
    "comes from nowhere": "class N: pass\nN.__module__ = None\nn = N()",
    "compares with nothing": "class E:\n    __hash__ = None\n    def __eq__(self, other): raise OSError\ne = [E()]",
    "bound to no name": "globals()[3] = globals()['a', 'b'] = 'value'",
    "paths that are none": "import sys, pathlib\nsys.path += [None, pathlib.Path('here')]",
    "closed streams": "import io, sys\nsys.stdout = io.StringIO()\nsys.stdout.close()\nsys.stdout = sys.__stdout__",
}


def test_no_value_breaks_its_step(start: Start) -> None:
    names = {f"s{at}": name for at, name in enumerate(HOSTILE)}
    kernel = start({step: f"%%step {step}\n{HOSTILE[name]}\nlast{step} = 1" for step, name in names.items()})
    for step in names:
        executed = kernel.run(step)
        assert executed.status == "ok", names[step]
        assert "rror" not in executed.text, names[step]
    assert states(kernel) == [(step, "done") for step in names]
    run = nbflow.run(kernel.notebook.path, store=str(kernel.notebook.path.parent / "other"))
    assert run.successful, run.error
