"""What the graph knows of cells that were not written for nbflow: each as a step, before anything runs."""

from __future__ import annotations

import pytest

from nbflow.flow.findings import mutated
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow, Step


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


RNG = "import numpy as np\nrng = np.random.default_rng(0)"


@pytest.mark.parametrize(
    ("cells", "writes"),
    [
        ((RNG, "x = rng.normal()"), [["rng"], ["rng", "x"]]),
        ((RNG, "def draw():\n    return rng.random()", "y = draw()"), [["rng"], ["rng", "y"]]),
        ((RNG, "def draw():\n    return rng.random()\ny = draw()"), [["rng"], ["rng", "y"]]),
        ((RNG, "def draw(rng):\n    return rng.random()", "y = draw(rng)"), [["rng"], ["rng", "y"]]),
        ((RNG, "rng = 3", "y = round(rng)"), [["rng"], ["y"]]),
    ],
)
def test_who_uses_a_generator_changes_it(cells: tuple[str, ...], writes: list[list[str]]) -> None:
    assert [[*step.writes] for step in flow_of(*cells).steps] == writes


def test_annotations_that_are_put_off_above_are_not_read_below() -> None:
    cells = ("class Node:\n    def join(self, other: Node) -> Node: ...", "n = Node()")
    flow = flow_of("from __future__ import annotations", *cells)
    assert flow.findings == ()
    assert [flow.definitions[order].kind for order in at(flow, 3).definitions] == ["definition"] * 2


SHOW = "from functools import singledispatch\n@singledispatch\ndef show(x):\n    return 'any'"
WRITTEN = "with open('pkg/core.py', 'w') as f:\n    f.write('x = 1')"


@pytest.mark.parametrize(
    ("cells", "ordered"),
    [
        ((WRITTEN, "from pkg import x\ny = [x]"), ("cell:c1",)),
        ((WRITTEN, "import pkg.core\ny = [pkg.core.x]"), ("cell:c1",)),
        ((WRITTEN, "import json\ny = json.dumps(1)"), ()),
    ],
)
def test_a_module_is_imported_after_it_was_written(cells: tuple[str, ...], ordered: tuple[str, ...]) -> None:
    assert at(flow_of(*cells), 2).ordered == ordered


CASE = "@show.register\ndef _(x: int):\n    return 'int'"
BASE = "class Base:\n    known = []\n    def __init_subclass__(cls):\n        Base.known.append(cls)"
MADE = "class Deeper(Base):\n    pass", "class Deepest(Deeper):\n    pass"
LISTED = "class Base:\n    pass"


@pytest.mark.parametrize(
    ("cells", "cells_replayed"),
    [
        ((SHOW, CASE, "a = show(1)"), [1, 1, 2]),
        ((SHOW, "b = show(1)", CASE), [1, 1]),
        ((BASE, *MADE, "names = Base.known"), [1, 2, 3]),
        ((BASE, *MADE, "names = Deeper.known"), [1, 2, 3]),
        ((LISTED, *MADE, "names = [Base]"), [1]),
        ((LISTED, *MADE, "names = Base.__subclasses__()"), [1, 2, 3]),
    ],
)
def test_what_definitions_leave_with_others_comes_along(cells: tuple[str, ...], cells_replayed: list[int]) -> None:
    flow = flow_of(*cells)
    step = flow.steps[-1]
    assert [flow.definitions[order].position for order in step.definitions] == cells_replayed


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


@pytest.mark.parametrize(
    ("cells", "code", "line"),
    [
        (("n = 1\nname = input('who? ')",), "interactive", 2),
        (("import getpass\nword = getpass.getpass()",), "interactive", 2),
        (("from getpass import getpass as ask, getpass\nword = getpass()",), "interactive", 2),
        (("x = 1\nbreakpoint()",), "interactive", 2),
        (("import pdb\npdb.set_trace()\nx = 2",), "interactive", 2),
        (("x = 1\n%debug",), "interactive", None),
        (("def ask():\n    return input()", "x = 2\nname = ask()"), "interactive", None),
        (("from jupyter_ui_poll import ui_events\nwith ui_events() as poll:\n    poll(1)",), "interactive", 2),
        (("%run other.py",), "run-magic", 1),
        (("1 + 1", "x = _ * 2"), "hidden-state", 1),
        (("1 + 1", "x = Out[1]"), "hidden-state", 1),
        (("x = = 2",), "syntax", 1),
    ],
)
def test_cells_that_cannot_take_part_are_named_before_anything_runs(
    cells: tuple[str, ...], code: str, line: int | None
) -> None:
    (found,) = [finding for finding in flow_of(*cells).findings if finding.level == "error"]
    assert (found.code, found.line, found.cell) == (code, line, f"c{len(cells)}")
    assert found.message
    assert found.fix


@pytest.mark.parametrize(
    "cells",
    [
        ("def ask():\n    return input()", "x = 2"),  # never called
        ("def input(text):\n    return 7", "x = input('who? ')"),
        ("class Files:\n    pass", "bucket = Files()", "bucket.upload('a')"),
        ("word = 'input(1)'  # breakpoint()",),
        ("for _ in range(3):\n    x = 1", "_, y = 1, 2"),
    ],
)
def test_cells_that_only_look_as_if_they_waited(cells: tuple[str, ...]) -> None:
    assert [finding for finding in flow_of(*cells).findings if finding.level == "error"] == []


def test_changes_in_place_are_told_in_words() -> None:
    found = mutated(at(flow_of("df = 1\nx = f(df)"), 1), ["df"])
    assert found.message == "cell 1: x changes df in place (f(df)): steps below read the changed value"
