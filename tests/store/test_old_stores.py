"""Stores of an older format: read whole, written to, and never taken for what is stored now."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.model import FORMAT
from nbflow.runs import client
from nbflow.store import records
from nbflow.store.location import open_store
from tests.support.equality import equal
from tests.support.places import STORE
from tests.support.plain import run_reference

FIXTURE = STORE
BY_HAND, HALF, BROKEN, WHOLE = (
    "20261130-200447-6a999f", "20261130-200446-0c2870", "20261130-200443-3a5178", "20261130-200440-bd20ab",
)  # fmt: skip
DEFINED = {"SCALE", "Ship", "Fleet", "adder", "dt", "functools", "dataclass", "field", "plt", "np", "pd", "card"}
BYTE_CODE = {"scaled", "plus"} if sys.version_info[:2] != (3, 11) else set()


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the notebook and a copy of the store that it left."""
    folder = tmp_path / "port"
    folder.mkdir()
    shutil.copy(FIXTURE / "harbour.ipynb", folder)
    shutil.copytree(FIXTURE / "store", folder / ".nbflow")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NBFLOW_STORE", raising=False)
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NBFLOW_TRUST", str(folder / ".nbflow"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(place.relative_to(folder)): place.read_bytes() for place in folder.rglob("*") if place.is_file()}


def expected_of(folder: Path) -> dict[str, object]:
    """What the whole run left, as a plain run leaves it; of the fan-out's names the last item's."""
    left = run_reference(FIXTURE / "harbour.ipynb", folder)
    values = {name: value for name, value in left.values.items() if name not in DEFINED | {"inputs"}}
    return {**values, "load": 3, "weight": 0.75}


def same(run: nbflow.Run, expected: dict[str, object]) -> dict[str, str]:
    """A run and values by name in; each name that is missing or differs, with how, out."""
    names = set(dir(run.data)) - DEFINED
    found = dict.fromkeys(names - expected.keys(), "not expected")
    found |= dict.fromkeys(expected.keys() - names, "not there")
    for name in names & expected.keys() - BYTE_CODE - {"problem"}:  # its traceback names the lane
        difference = equal(run.data[name], expected[name], name)
        if difference is not None:
            found[name] = str(difference)
    return found


# ---------------------------------------------------------------- read


@pytest.mark.running
def test_every_value_is_there(port: Path, tmp_path: Path) -> None:
    run = client.Run(f"harbour/{WHOLE}")
    assert same(run, expected_of(tmp_path / "reference")) == {}
    assert run.data.fleet.masts() == 15
    assert isinstance(run.data.ship, run.data.Ship)
    groups = {name: one.manifest.group for name, one in run["fleet"].task.artifacts.items()}
    assert groups["crew"] == groups["watch"]  # shared objects lie together
    assert groups["ship"] == groups["fleet"] == groups["flagship"]
    assert groups["crew"] != groups["ship"]
    assert [task.data.weight for task in run["weigh"].tasks] == [0.25, 0.5, 0.75]
    problem = run["risky"].task.data.problem
    assert (problem.type, problem.message) == ("ZeroDivisionError", "division by zero")
    assert run["weigh"][2].load_inputs() == {"load": 3, "rate": 0.25}
    assert [entry.weight for entry in run["total"].task.load_inputs()["inputs"]] == [0.25, 0.5, 0.75]
    assert client.Run(BROKEN)["last"].task.load_inputs()["broken"] is True
    half = client.Run(HALF)
    assert (half.data.total, half.params.rate) == (3.0, 0.5)


def test_every_listing_is_there(port: Path) -> None:
    flow = client.Flow("harbour")
    assert [run.id for run in flow.runs()] == [BY_HAND, HALF, BROKEN, WHOLE]
    assert [run.status for run in flow.runs()] == ["done", "done", "failed", "done"]
    assert [run.id for run in flow.runs("spring", "kept")] == [WHOLE]
    assert client.Run("harbour/latest").id == HALF
    whole, broken, by_hand = (client.Run(each) for each in (WHOLE, BROKEN, BY_HAND))
    assert whole.tags == ("first", "spring", "kept")
    assert {step.name: step.state for step in whole} == {
        "sums": "done", "fleet": "done", "arrays": "done", "model": "done", "picture": "done", "weigh": "done",
        "total": "done", "storm": "skipped", "risky": "caught", "ashore": "done", "rise": "done", "tide": "done",
        "last": "done",
    }  # fmt: skip
    assert [task.turn for task in whole["tide"].tasks] == [0, 1, 2]
    assert broken.params == {"rate": 0.25, "port": "Whitby", "broken": True}
    assert broken.error is not None
    assert (broken.error.step, broken.error.type, broken.error.line) == ("last", "ValueError", 3)
    assert {step.state for step in broken if step.name not in {"last", "risky", "storm"}} == {"reused"}
    assert [step.name for step in by_hand if step.state in {"done", "reused"} and step.tasks] == [
        "cell:params", "sums", "fleet", "arrays", "rise",
    ]  # fmt: skip
    assert by_hand.metadata["session"]
    assert by_hand["rise"].task.attempt == 2
    shapes = {name: one.shape for name, one in whole["arrays"].task.artifacts.items()}
    assert shapes == {"small": (3, 4), "large": (4500,), "half": (2000,), "masked": (3,), "frame": (3, 4), "tons": (3,)}


def test_what_was_printed_displayed_and_run_is_there(port: Path) -> None:
    whole = client.Run(WHOLE)
    assert whole["sums"].task.stdout == "sums of Whitby\n"
    assert [task.stdout for task in whole["weigh"].tasks] == ["weighed 1\n", "weighed 2\n", "weighed 3\n"]
    assert client.Run(BROKEN)["sums"].task.stdout == "sums of Whitby\n"
    assert client.Run(BY_HAND)["sums"].task.stdout == "sums of Whitby\n"
    kinds = {kind for output in whole["picture"].task.outputs for kind in output.get("data", ())}
    assert "image/png" in kinds
    assert "ZeroDivisionError" in whole["ashore"].task.card.html
    assert json.loads(whole.notebook) == json.loads((FIXTURE / "harbour.ipynb").read_text(encoding="utf-8"))
    cells = json.loads(whole.notebook_with_outputs())["cells"]
    assert [bool(cell["outputs"]) for cell in cells if cell["id"] in {"sums", "rise", "tide"}] == [True, False, True]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs"], "#first #spring #kept"),
        (["show", f"harbour/{BROKEN}"], "the harbour is closed"),
        (["show", f"{WHOLE}/arrays/frame"], "Hilda"),
        (["show", f"{WHOLE}/weigh/2/weight"], "0.75"),
        (["logs", f"harbour/{WHOLE}/tide"], "level 3"),
        (["diff", WHOLE, HALF], "rate"),
    ],
)
def test_commands_read_it(port: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    before = contents(port / ".nbflow")
    assert app.main(words) == 0
    assert told in capsys.readouterr().out
    assert contents(port / ".nbflow") == before  # reading changes nothing


# ---------------------------------------------------------------- written to


@pytest.mark.running
def test_a_run_takes_nothing_from_it(port: Path, tmp_path: Path) -> None:
    """Its records may hold what was stored wrongly: they are read, and never reused."""
    expected = expected_of(tmp_path / "reference")
    before = contents(port / ".nbflow")
    plan = nbflow.plan("harbour.ipynb").tasks
    assert {task.reasons[0] for task in plan if task.step in ("sums", "rise")} == {
        ("new", "an older nbflow ran it: its results are read, not reused")
    }
    run = nbflow.run("harbour.ipynb")
    assert {task.state for step in run for task in step.tasks} == {"done", "skipped", "caught"}
    assert same(run, expected) == {}
    again = nbflow.run("harbour.ipynb")
    assert {task.state for step in again for task in step.tasks} == {"reused", "skipped", "caught"}
    after = contents(port / ".nbflow")
    assert {name for name in before if after.get(name) != before[name]} == {"nbflow.json"}
    assert json.loads(after["nbflow.json"])["format"] == FORMAT
    assert [one.id for one in client.Flow("harbour").runs()] == [again.id, run.id, BY_HAND, HALF, BROKEN, WHOLE]
    assert client.Run(WHOLE).data.number == 42
    assert len(list(records.all_records(open_store(port / ".nbflow")))) > 40
