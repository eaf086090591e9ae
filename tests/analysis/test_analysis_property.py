"""Random cells, run and analysed: whatever a run takes, binds or changes must have been foreseen.

NBFLOW_CELLS sets how many cells are drawn (100; the soak draws thousands);
`python -m tests.analysis.test_analysis_property [N [SEED]]` draws N (10,000).
"""

import builtins
import os
import random
import symtable
import sys
import threading
import types
import warnings
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nbflow.analysis.cell import Analysis, analyse, normalise, transform
from tests.analysis.cases import CASES
from tests.analysis.random_cells import POOL, CellWriter, Thing, World

CELLS = int(os.environ.get("NBFLOW_CELLS", "100"))


class TooLong(BaseException):
    """A cell that runs on and on is stopped."""


class Namespace(dict[str, Any]):
    """A namespace that notes which of the values it started with are taken, and which names are bound."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values, __builtins__=builtins, __name__="cell")
        self.first = dict(values)
        self.bound: set[str] = set()
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if name not in self.bound and name in self.first and self.first[name] is value:
            self.taken.add(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self.bound.add(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self[name]  # what is deleted must be there
        self.bound.add(name)
        super().__delitem__(name)


@dataclass
class Ran:
    """What one run of a cell did."""

    error: str | None
    namespace: Namespace
    things: dict[str, Thing]
    lines: list[int] = field(default_factory=list)
    events: int = 0

    def rebound(self) -> set[str]:
        names = {name for name in self.namespace if not name.startswith("__")}
        return {name for name in names if self.namespace.get(name) is not self.things.get(name, self)} | (
            self.namespace.bound & names
        )

    def gone(self) -> set[str]:
        return set(self.things) - set(self.namespace)

    def changed(self) -> set[str]:
        return {name for name, thing in self.things.items() if thing.__dict__["_changes"]}


def run_cell(code: Any, row: list[int], absent: str | None = None) -> Ran:
    world = World(row)
    things = {name: Thing(world) for name in POOL if name != absent}
    namespace = Namespace(things)
    ran = Ran(None, namespace, things)

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != "<cell>":
            return None
        if ran.lines[-1:] != [frame.f_lineno]:  # the interpreter may report a line twice, once it has warmed up
            ran.lines.append(frame.f_lineno)
        ran.events += 1
        if ran.events > 400:
            raise TooLong
        return trace

    sys.modules["cell_module"] = types.ModuleType("cell_module")  # a new one: cells set attributes on it
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        exec(code, namespace)
    except (Exception, TooLong) as error:
        ran.error = type(error).__name__
    finally:
        sys.settrace(previous)
    return ran


def compile_cell(source: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, "<cell>", "exec", dont_inherit=True)


def check(source: str, row: list[int]) -> bool:
    """A cell and its row of fate: run and compared with its analysis; whether it ran to its end."""
    try:
        code = compile_cell(source)
    except SyntaxError:
        assert [each.code for each in analyse(source).diagnostics if each.code == "syntax"], source
        return False
    found = analyse(source)
    check_scopes(source, found)
    assert not [each for each in found.diagnostics if each.code == "syntax"], (source, found.diagnostics)
    ran = run_cell(code, row)
    check_soundness(source, found, ran)
    matters = {name: differs(ran, run_cell(code, row, name)) for name in POOL if name not in found.reads}
    wrong = [name for name, differ in matters.items() if differ]
    assert not wrong, f"{wrong} matter but are not read in\n{source}"
    if ran.error is None:
        check_certainty(source, found, ran, code, row)
    return ran.error is None


def check_soundness(source: str, found: Analysis, ran: Ran) -> None:
    missed = ran.namespace.taken - found.reads
    assert not missed, f"{missed} taken but not read in\n{source}"
    if ran.error is not None:
        return  # a cell that fails stops halfway and publishes nothing
    missed = ran.rebound() - found.writes
    assert not missed, f"{missed} bound but not written in\n{source}"
    missed = ran.gone() - found.deletes
    assert not missed, f"{missed} gone but not deleted in\n{source}"
    missed = ran.changed() - found.writes - found.may_mutate - found.deletes
    assert not missed, f"{missed} changed but not foreseen in\n{source}"


def differs(one: Ran, other: Ran) -> bool:
    keep = {"__builtins__", "__name__", "__annotations__", "__doc__"}
    names = set(one.namespace) ^ set(other.namespace)
    untouched = {name for name in POOL if name not in other.things}
    return (one.error, one.lines) != (other.error, other.lines) or bool(names - keep - untouched)


def check_certainty(source: str, found: Analysis, ran: Ran, code: Any, row: list[int]) -> None:
    for name in found.sure_reads - ran.namespace.taken:
        # loads in class bodies go past Namespace: then the name's absence must show
        assert differs(ran, run_cell(code, row, name)), f"{name} is no sure read in\n{source}"
    for name in found.writes - found.conditional:
        # `global x` anywhere in a cell makes CPython store x past Namespace, here too
        seen = (
            ran.rebound()
            | ran.changed()
            | ({name} if f"global {name}" in source or f"({name} := " in source else set())
        )
        assert name in seen & set(ran.namespace) | found.deletes, f"{name} is no sure write in\n{source}"
    for name in found.deletes - found.conditional:
        assert name not in ran.namespace, f"{name} is not surely deleted in\n{source}"
    statements = found.statements
    written = frozenset().union(*(each.writes | each.deferred_writes for each in statements))
    assert found.writes <= written, f"{found.writes - written} written by no statement of\n{source}"
    taken = frozenset().union(*(each.reads | each.deferred for each in statements))
    assert found.reads <= taken, f"{found.reads - taken} read by no statement of\n{source}"


def check_scopes(source: str, found: Analysis) -> None:
    """A cell in; every read must be a name that Python's own symbol table calls global somewhere."""
    tables, known = [symtable.symtable(source, "<cell>", "exec")], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        is_module = table.get_type() == "module"
        known |= {
            each.get_name()
            for each in table.get_symbols()
            if each.is_global() or is_module or _may_be_global(table, each)
        }
    assert found.reads <= known, f"{found.reads - known} cannot be global in\n{source}"
    assert found.writes <= known, f"{found.writes - known} cannot be global in\n{source}"


def _may_be_global(table: symtable.SymbolTable, symbol: symtable.Symbol) -> bool:
    """Names bound in a class body fall back on the module's."""
    return table.get_type() == "class" and symbol.is_local()


@st.composite
def cells(draw: st.DrawFn) -> tuple[str, list[int]]:
    seed = draw(st.integers(0, 2**32))
    chance = random.Random(seed)
    choose = chance.randrange if draw(st.booleans()) else lambda below: draw(st.integers(0, below - 1))
    source = CellWriter(choose).cell()
    return source, [chance.randrange(1000) for _ in range(97)]


@settings(
    max_examples=CELLS, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink], derandomize=CELLS <= 300,
)  # fmt: skip
@given(cells())
def test_what_a_run_does_is_foreseen(cell: tuple[str, list[int]]) -> None:
    check(*cell)


def check_straight(source: str, row: list[int]) -> None:
    """A cell without branches in; analysed exactly: what it reads is what its run took."""
    code = compile_cell(source)
    ran = run_cell(code, row)
    found = analyse(source)
    if ran.error is None:
        assert found.reads == found.sure_reads == ran.namespace.taken, (source, found.reads, ran.namespace.taken)
        assert found.writes - ran.changed() == ran.rebound() - ran.changed(), (source, found.writes, ran.rebound())
        assert found.deletes == ran.gone(), source
        assert not found.conditional, source


def test_straight_cells_are_known_exactly() -> None:
    for seed in range(CELLS):
        chance = random.Random(seed)
        source = CellWriter(chance.randrange, straight=True).cell()
        check_straight(source, [998, *(chance.randrange(1000) for _ in range(96))])


def shrink(source: str, row: list[int]) -> str:
    """A failing cell in; one that still fails with as few lines as leaving out blocks of them gives, out."""
    lines = source.splitlines()
    size = max(len(lines) // 2, 1)
    while size:
        at = 0
        while at < len(lines):
            shorter = lines[:at] + lines[at + size :]
            if fails("\n".join(shorter) + "\n", row):
                lines = shorter
            else:
                at += 1
        size //= 2
    return "\n".join(lines) + "\n"


def fails(source: str, row: list[int]) -> bool:
    try:
        compile_cell(source)
        check(source, row)
    except SyntaxError:
        return False
    except AssertionError:
        return True
    return False


def mutate(source: str, chance: random.Random) -> str:
    alphabet = "()[]{}:=,.\\'\"#%!?$@;\n\t\r\x0c\0 abx01\ud800é"
    for _ in range(1 + chance.randrange(6)):
        at = chance.randrange(len(source) + 1)
        end = min(len(source), at + chance.randrange(4))
        source = source[:at] + "".join(chance.choices(alphabet, k=chance.randrange(4))) + source[end:]
    return source


def test_no_text_makes_it_raise() -> None:
    chance = random.Random(7)
    sources = [case.source for case in CASES]
    for number in range(int(os.environ.get("NBFLOW_TEXTS", "300"))):
        if number % 3:
            source = mutate(chance.choice(sources), chance)
        else:
            source = "".join(
                chr(chance.choice((10, 32, 37, 33, chance.randrange(0x3000)))) for _ in range(chance.randrange(60))
            )
        found = analyse(source)
        lines = max(source.count("\n") + source.count("\r") + 1, 1)
        assert all(1 <= each.line <= lines for each in found.diagnostics), (source, found.diagnostics)
        assert isinstance(normalise(source), str)
        assert isinstance(transform(source), str)


def test_it_needs_no_main_thread() -> None:
    found: list[Analysis] = []
    thread = threading.Thread(target=lambda: found.append(analyse("%time x = thread_y")))
    thread.start()
    thread.join()
    assert found[0].writes == {"x"}


def main(count: int, start: int = 0) -> int:
    """How many cells to draw, and the first seed, in; the first that fails is printed, shortened; 0 out for none."""
    ended = 0
    for seed in range(start, start + count):
        chance = random.Random(seed)
        source = CellWriter(chance.randrange).cell()
        row = [chance.randrange(1000) for _ in range(97)]
        try:
            ended += check(source, row)
        except AssertionError:
            short = shrink(source, row)
            print(f"seed {seed}")
            try:
                check(short, row)
            except AssertionError as error:
                print(error)
            return 1
    print(f"{count} cells as foreseen, {ended} of them ran to their end")
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:] or ["10000"])))
