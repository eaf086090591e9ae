"""Whatever a value does when it is looked at: its step is done, and who reads it is told what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.store.serialize.describe import PREVIEW, describe
from nbflow.store.serialize.fingerprint import fingerprint, holds_artists
from nbflow.store.serialize.pickler import Dumped, Unstorable, dump
from nbflow.store.serialize.registry import Registry, is_defined_here
from nbflow.task.definition_state import DefinitionState
from nbflow.task.join import is_scalar
from nbflow.task.mutation import is_fixed
from tests.support.by_hand import Start
from tests.support.odd_values import KINDS, _function
from tests.support.places import TESTS

NAMES = {f"v{number}": name for number, name in enumerate(KINDS)}
SLOW = {"a mock": pytest.mark.running}
"""No process is started, but each question makes the mock that is stored a larger one."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of `__del__`: Python's own word on it
@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in KINDS])
def test_every_question_has_an_answer(name: str) -> None:
    value, registry = KINDS[name](), Registry()
    told = describe("value", value)
    assert len(told.preview) <= PREVIEW
    assert fingerprint(value, registry) is None or fingerprint(value, registry, by_value=True) is not None
    for ask in (is_fixed, is_defined_here, is_scalar, holds_artists):
        assert ask(value) in (True, False)
    registry.reference(value)
    left = dump({"value": value, "same": value, "held": [value]}, registry)
    assert sorted(name for each in left for name in (each.names if isinstance(each, Dumped) else (each.name,))) == [
        "held", "same", "value",
    ]  # fmt: skip
    assert all(each.reason for each in left if isinstance(each, Unstorable))
    DefinitionState.of(_function(value), registry).copied()


def write(place: Path, *cells: str) -> Path:
    shutil.copy(TESTS / "support" / "odd_values.py", place / "odd.py")
    found = [
        {"cell_type": "code", "id": f"c{at}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for at, source in enumerate(cells)
    ]
    notebook = place / "odd.ipynb"
    notebook.write_text(json.dumps({"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return notebook


ALL = "\n".join(f"{name} = KINDS[{kind!r}]()" for name, kind in NAMES.items())
LANES = {
    "a process": "",
    "one of many": " --foreach number in range(3)",
    "with a time limit": " --timeout 5m",
}


def failures(run: nbflow.Run) -> dict[str, Any]:
    return {step.name: str(task.error) for step in run.steps() for task in step.tasks if task.error is not None}


@pytest.mark.running
@pytest.mark.parametrize("lane", LANES)
def test_a_step_that_leaves_them_is_done(lane: str, folder: Path) -> None:
    below = "%%step below\nend = 1" if "foreach" in LANES[lane] else "%%step below\nend = fine + 1"
    run = nbflow.run(write(folder, "from odd import KINDS", f"%%step make{LANES[lane]}\n{ALL}\nfine = 1", below))
    assert failures(run) == {}
    kept = run["make"].tasks[0].artifacts
    assert kept.keys() >= {*NAMES, "fine"} - {name for name, kind in NAMES.items() if "module" in kind}
    assert kept["fine"].stored
    assert not kept["v0"].stored
    assert {step.state for step in nbflow.run("odd.ipynb")} <= {"reused", "done"}


@pytest.mark.running
def test_who_reads_one_is_told(folder: Path) -> None:
    cells = [f"%%step make\nodd = KINDS['a mock of a dict']()\nlazy = KINDS[{[*KINDS][8]!r}]()\nfine = 1"]
    cells += ["%%step read --timeout 90s\nlen(odd)\nshown = 1", "%%step other\nend = fine"]
    run = nbflow.run(write(folder, "from odd import KINDS", *cells))
    (told,) = failures(run).values()
    assert "odd" in told
    assert "cannot be stored" in told


@pytest.mark.running
def test_by_hand(start: Start) -> None:
    kernel = start(
        {
            "kinds": "from odd import KINDS", "make": f"%%step make\n{ALL}\nfine = 1", "plain": "other = fine + 1",
            "below": "%%step below\nend = other", "again": "%%step last\nlast = end + 1\nlast",
        }
    )  # fmt: skip
    shutil.copy(TESTS / "support" / "odd_values.py", kernel.notebook.path.parent / "odd.py")
    kernel.ok("ext", "kinds", "make", "plain", "below")
    assert kernel.run("again").text.strip().endswith("3")
    kernel.ok("make", "plain", "below")
    status = kernel.execute("%flow status")
    assert status.status == "ok"
    assert "failed" not in status.text


@pytest.mark.running
def test_beside_the_notebook(folder: Path) -> None:
    """In a module of its own, in a list that another name shares, in what a function and a class hold."""
    (folder / "held.py").write_text(
        "from odd import KINDS\nALL = {name: make() for name, make in KINDS.items()}\nNAME = 1\n"
    )
    run = nbflow.run(write(
        folder, "import held\nfrom odd import KINDS\nclass Held:\n    pass\ndef keep(given=[]):\n    return given",
        "%%step make\nparts = [1]\nheld_here = [parts, held.ALL]\nHeld.all = list(held.ALL.values())\n"
        "keep().extend(held.ALL.values())\nheld.NAME = 2\nfine = 1",
        "%%step below\nend = fine + len(parts)",
    ))  # fmt: skip
    assert failures(run) == {}
    assert run.data.end == 2
