"""Two runs compared: twice the steps take twice the work. Calls are counted, no time is."""

import cProfile
from pathlib import Path

import pytest

from nbflow.runs import client
from nbflow.runs.compare import compare
from tests.support.stored import StoredRun


def _work(folder: Path, count: int) -> int:
    """Return how many functions are called while two runs of so many steps that all differ are compared."""
    names = []
    for number, run in enumerate(("20250101-120000-aaaaaa", "20250101-120001-bbbbbb")):
        made = StoredRun(folder, [f"%%step s{at}\nx{at} = {at}, {number}" for at in range(count)], run=run)
        for step in made.graph.steps:
            made.execute(step.name)
        names.append(made.end())
    before, after = (client.Run(name, store=folder / "store") for name in names)
    profile = cProfile.Profile()
    profile.enable()
    comparison = compare(before, after)
    profile.disable()
    assert [step.step for step in comparison.steps] == [f"s{at}" for at in range(count)]
    assert all(step.code and step.artifacts for step in comparison.steps)
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.running  # no process is started, but counting takes seconds
def test_twice_the_steps_take_twice_the_work(tmp_path: Path) -> None:
    once, twice = _work(tmp_path / "once", 100), _work(tmp_path / "twice", 200)
    assert twice < 2.2 * once
