"""What the graph knows of cells that were not written for nbflow: each as a step, before anything runs."""

from __future__ import annotations

import pytest

from nbflow.graph import build_flow
from nbflow.model import Flow, Step
from nbflow.notebook import RawCell, parse_cells


def flow_of(*sources: str) -> Flow:
    """Cells in, each as a step where it computes; their flow out."""
    cells = [RawCell(f"c{number}", source, ()) for number, source in enumerate(sources, start=1)]
    return build_flow(parse_cells(cells, name="plain", folder="."), all_cells=True)


def at(flow: Flow, position: int) -> Step:
    """The step that the cell at a place is."""
    return next(step for step in flow.steps if step.position == position)


COUNTING = ("calls = 0", "def count():\n    global calls\n    calls += 1", "count()", "count()\ndone = calls")


def test_a_name_that_a_function_binds_anew_is_data() -> None:
    flow = flow_of(*COUNTING)
    assert at(flow, 1).writes == ("calls",)
    assert at(flow, 3).writes == ("calls",)
    assert at(flow, 4).writes == ("calls", "done")
    assert at(flow, 4).needs == ("cell:c3",)


def test_a_constant_that_no_function_binds_is_replayed() -> None:
    flow = flow_of("LIMIT = 3", "def small(x):\n    return x < LIMIT", "found = small(2)")
    assert [step.position for step in flow.steps] == [3]


def test_a_second_cell_with_the_same_text_is_another_step() -> None:
    flow = flow_of(
        "n = 1", "with open('log', 'a') as f:\n    f.write('x')", "with open('log', 'a') as f:\n    f.write('x')"
    )
    assert at(flow, 2).code != at(flow, 3).code
    assert at(flow, 3).ordered == ("cell:c2",)


CACHED = "from functools import lru_cache\n@lru_cache\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)"
DRAWN = "import random, functools\nrandom.seed(1)\n@functools.cache\ndef draw(n):\n    return random.random()"


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ((CACHED, "a = fib(10)", "b = fib(10)"), []),
        ((CACHED, "a = fib(10)", "info = fib.cache_info()"), ["info"]),
        ((CACHED, "a = fib(10)", "fib.cache_info()"), ["fib"]),
        ((DRAWN, "a = draw(1)"), []),
        ((DRAWN, "a = draw(1)", "b = draw(1)"), ["draw", "draw"]),
    ],
)
def test_functions_that_remember_are_told_where_it_matters(cells: tuple[str, ...], named: list[str]) -> None:
    assert [finding.name for finding in flow_of(*cells).findings if finding.code == "cache"] == named
