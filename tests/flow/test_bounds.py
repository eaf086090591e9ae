"""Reading a cell that is twice as long takes twice the work: calls and what is compiled are counted, no time is."""

import builtins
import cProfile
from collections.abc import Callable

import pytest

from nbflow.analysis import cell
from nbflow.flow import definitions
from nbflow.flow.definitions import parsed
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells

pytestmark = pytest.mark.running  # no process is started, but counting takes seconds: `make unit` has 30

LINES: dict[str, Callable[[int], str]] = {
    "line magics": lambda number: "%matplotlib inline",
    "shell lines": lambda number: f"!echo it's {number}",
    "shell lines with values": lambda number: f"files_{number} = !ls {number}",
    "shell lines in a block": lambda number: f"{'' if number else 'if True:'}\n    !echo {number}",
    "numbers": lambda number: f"x_{number} = {number}",
    "two statements in a line": lambda number: f"x_{number} = {number}; y_{number} = x_{number}",
    "calls": lambda number: f"values[{number}] = make({number})",
    "functions that call the one above": lambda number: f"def f_{number}():\n    return f_{max(number - 1, 0)}()",
}


LONG = {"numbers": 700, "functions that call the one above": 300}
"""Lines for what calls few functions in each."""


def _work(line: Callable[[int], str], count: int, patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return how many functions are called, and characters compiled, while a cell of so many lines is read."""
    source = "values = {}\n" + "\n".join(map(line, range(count))) + "\n"
    cells = [RawCell(id="a", source=f"%%step a\n{source}"), RawCell(id="b", source="%%step b\nprint(values)")]
    cell._known_analysis.cache_clear()
    cell._STATEMENTS.clear()
    cell.read_cell.cache_clear()
    definitions._SPLIT.clear()
    parsed.cache_clear()
    compiled = 0
    compile_text = builtins.compile

    def counted(text: object, *args: object, **options: object) -> object:
        nonlocal compiled
        compiled += len(text) if isinstance(text, str) else 0
        return compile_text(text, *args, **options)  # type: ignore[call-overload]

    profile = cProfile.Profile()
    with patch.context() as context:
        context.setattr(builtins, "compile", counted)
        profile.enable()
        build_flow(parse_cells(cells, name="bounds", folder=""))
        profile.disable()
    return sum(entry.callcount for entry in profile.getstats()), compiled


@pytest.mark.parametrize("kind", LINES)
def test_twice_the_lines_take_twice_the_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = LONG.get(kind, 120)
    _work(LINES[kind], 5, monkeypatch)  # imports, tables
    calls, compiled = _work(LINES[kind], count, monkeypatch)
    more_calls, more_compiled = _work(LINES[kind], 2 * count, monkeypatch)
    assert more_calls < 2.2 * calls
    assert more_compiled < 2.2 * compiled
