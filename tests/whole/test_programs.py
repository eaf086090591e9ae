"""Generated programs of names bound again, aliases, patches, files, seeds leave what they leave plainly, or it is said.

`bench.soak`'s part `programs` runs thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.program_runs import SILENT, Place, outcome
from tests.support.programs import generate

pytestmark = pytest.mark.running
SEEDS = (1000, 1001, 2013)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "0")
        made = Place()
        yield made
        made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_program_ends_as_it_does_plainly(place: Place, seed: int) -> None:
    cells = generate(seed)
    found = outcome(place, cells, seed)
    assert found.verdict != SILENT, found
