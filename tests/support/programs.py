# ruff: noqa: E501 - a move stands in one line
"""Random notebooks as people grow them: names bound again, aliases, patches, files, seeds, what cannot be stored.

A program is cells of moves. Each move is a few lines that could stand in a person's cell; what they touch is printed.
Every file is written anew before it is read or added to, and every draw comes after a seed: executed plainly, a program
leaves the same each time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from string import Formatter

HELPER = """
import random

rate = 2
table = {"k": 1}
calls = []


def price(n):
    return n * rate + table["k"]


def put(name, text):
    with open(name + ".txt", "w") as file:
        file.write(str(text))


def add(name, text):
    with open(name + ".txt", "a") as file:
        file.write(str(text))


def get(name):
    with open(name + ".txt") as file:
        return file.read()


def seed_all(n):
    random.seed(n)


def remember(x):
    calls.append(x)
    return len(calls)
"""

PRELUDE = (
    """import decimal
import json
import os
import random
from pathlib import Path

import helper""",
    """class Box:
    shared = []
    limit = 3

    def __init__(self, x):
        self.x = x
        self.seen = []

    def add(self, v):
        self.seen.append(v)
        Box.shared.append(v)
        return len(self.seen)

    def __repr__(self):
        return f'Box({self.x}, {self.seen}, {Box.limit})'""",
    """def push(xs, v):
    xs.append(v)
    return xs


def adder(k):
    def plus(v):
        return v + k

    return plus


def counter():
    n = 0

    def step():
        nonlocal n
        n += 1
        return n

    return step


def keep(v, into=[]):
    into.append(v)
    return len(into)


def narrow(n):
    decimal.getcontext().prec = n


def bump(v):
    global total
    total += v
    return total


OPS = {'push': push, 'keep': keep}""",
)

START = (
    """random.seed(5)
total = 1
n0, n1 = 3, 8
l0, l1 = [3, 1, 2], [5]
d0 = {'a': 1, 'b': l1}
b0 = Box(4)
x0 = set()""",
    """helper.put('one', 'start')
helper.put('two', '')
Path('three.txt').write_text('7')""",
)

FILES = ("one", "two", "three")


@dataclass(frozen=True)
class ProgramCell:
    """One cell: its header line, none for a plain cell, and its moves."""

    id: str
    head: str
    moves: tuple[str, ...]

    @property
    def source(self) -> str:
        """The cell as it stands in the notebook."""
        return "\n".join([*([self.head] if self.head else []), *self.moves])


READS = {"n": "number", "m": "number", "xs": "list", "ys": "list", "d": "dict", "b": "box", "c": "box", "x": "set",
         "f": "function", "it": "iterator", "p": "push", "r": "draw", "count": "counter"}  # fmt: skip
"""Places of a move where a name of a kind stands that is there already."""

WRITES = {"N": "number", "L": "list", "D": "dict", "B": "box", "F": "function", "I": "iterator", "P": "push",
          "R": "draw", "C": "counter"}  # fmt: skip
"""Places where a name is bound: a new one, or one that is bound again."""

SHOWN = frozenset({"number", "list", "dict", "box", "set"})
"""Kinds that a cell prints at its end."""

MOVES: dict[str, tuple[int, tuple[str, ...]]] = {
    "a number": (4, ("{N} = {n} + {k}", "{N} = len({xs}) + {k}", "{N} = {n} * {k} % 97", "{N} = sum({xs}) % 89")),
    "bound again": (4, (
        "{n} += {m}", "{n} = {n} * 2 % 71", "if {m} % 2:\n    {n} = {k}", "for {n} in range({k} + 1):\n    pass",
        "globals()['{n}'] = {k}", "exec('{n} = {k}')", "{n}, {m} = {m}, {n}", "del {gone}", "{n} = {k}",
        "try:\n    {n} = 9 // ({m} % 3)\nexcept ZeroDivisionError:\n    pass",
    )),
    "a list": (3, (
        "{L} = [{n}, {k}]", "{L} = list({xs})", "{L} = {xs}[1:] + [{n}]", "{L} = [v + 1 for v in {xs}]", "{L} = list({x})",
    )),
    "a box": (2, ("{B} = Box({n})", "{B} = Box({xs})")),
    "an alias": (5, (
        "{L} = {xs}", "{d}['{k}'] = {xs}", "{b}.x = {xs}", "{D} = {{'a': {xs}, 'b': {xs}}}", "{B} = {b}", "{b}.seen = {xs}",
        "{D} = {d}", "{B} = Box({b})", "{D} = {{'a': {b}}}", "{L} = {b}.seen", "{D} = vars({b})",
    )),
    "in turn": (1, ("{xs}, {ys} = {ys}, {xs}",)),
    "a bound method": (2, ("{P} = {xs}.append", "{p}({n})", "{P} = {b}.add")),
    "a change": (8, (
        "{xs}.append({n})", "{xs}.sort()", "{xs} += [{n}]", "{xs}[:0] = [{n}]", "push({xs}, {n})", "OPS['push']({xs}, {n})",
        "for each in ({xs}, {ys}):\n    each.append({k})", "_ = [each.append({n}) for each in [{xs}]]", "{b}.add({n})",
        "{d}['{k}'] = {n}", "{d}.pop('a', None)", "list(map({xs}.append, [{n}]))", "setattr({b}, 'x', {n})",
        "{x}.update([{n}, {k}, {n} * 31 % 64])", "{x}.discard({n})", "random.shuffle({xs})",
        "for value in {d}.values():\n    if isinstance(value, list):\n        value.append({k})",
    )),
    "changed, then bound": (2, ("{xs}.append({n})\n{xs} = [{k}]", "{b}.add({n})\n{b} = Box({k})")),
    "a function": (4, (
        "{F} = adder({n})", "{F} = lambda v: v + {n}", "{F} = lambda v: v + len({xs})", "{F} = lambda v, by={n}: v * by",
        "{F} = lambda v: v + (push({xs}, v) is not None)", "{N} = {f}({n}) % 83", "{N} = {f}({n}) % 83", "{f}.seen = {n}",
        "{N} = getattr({f}, 'seen', 0)", "{C} = counter()", "{N} = {count}()", "{count}()",
        "def {F}(v, k={n}):\n    return v * {k} + k", "def {F}(v, k=len({xs})):\n    return v + k + {m}",
    )),
    "held by a class or function": (4, (
        "Box.limit = {n}", "Box.shared.append({n})", "push.calls = {n}", "keep({n})", "OPS['keep']({n})", "{N} = keep({n})",
        "{N} = len(Box.shared) + Box.limit", "{N} = getattr(push, 'calls', 0)", "bump({n})", "{N} = bump(1)",
        "{L} = Box.shared", "Box.shared = {xs}", "OPS['push'] = OPS['push'] if {n} % 2 else lambda xs, v: xs.insert(0, v)",
        "print(Box.shared, Box.limit, total)", "total = {n}",
        "class K{k}:\n    number = random.randrange(50)\n    xs = {xs}\n\n\n{N} = K{k}.number + len(K{k}.xs)",
    )),
    "a patch": (4, (
        "helper.rate = {n}", "helper.table['k'] = {n}", "helper.price = lambda n: n + {n}", "helper.remember({n})",
        "helper.calls.clear()", "{N} = helper.price({n}) % 97", "{N} = helper.remember({n})", "{L} = helper.calls",
        "{N} = helper.price({n}) % 97", "helper.extra = {n}", "{N} = getattr(helper, 'extra', 0)",
        "os.environ['PROGRAM'] = str({n})", "{N} = len(os.environ.get('PROGRAM', ''))", "narrow({n} % 9 + 2)",
        "print(str(decimal.Decimal(1) / 3))", "json.extra = {n}", "print(getattr(json, 'extra', 0))",
    )),
    "a file": (5, (
        "helper.put('{file}', {n})", "helper.add('{file}', {n})", "{N} = len(helper.get('{file}'))", "print(helper.get('{file}'))",
        "Path('{file}.txt').write_text(str({n}))", "{N} = len(Path('{file}.txt').read_text())",
        "with open('{file}.txt', 'a') as file:\n    file.write('{k}')", "with open('{file}.txt') as file:\n    {N} = len(file.read())",
        "helper.put('{file}', helper.get('{other}') + '!')", "os.replace('{file}.txt', 'spare.txt')\nos.replace('spare.txt', '{file}.txt')",
        "Path('{file}.txt').write_text(json.dumps({xs}))", "print(os.path.getsize('{file}.txt'))",
    )),
    "seeds and draws": (3, (
        "random.seed({n})", "helper.seed_all({n})", "{N} = random.randrange(80)", "{N} = random.randrange(80)",
        "{R} = random.Random({n})", "{L} = random.sample(range(30), 3)", "{N} = {r}.randrange(60)", "{N} = {r}.randrange(60)",
        "helper.rng = random.Random({n})\n{N} = helper.rng.randrange(60)",
    )),
    "what cannot be stored": (1, (
        "{I} = (v * 2 for v in {xs})", "{N} = next({it}, {k})", "{N} = next({it}, {k})", "{I} = iter({xs})",
    )),
}  # fmt: skip
"""What people do, how often, and in which words."""


@dataclass
class Maker:
    """A program in the making: which names there are, by kind."""

    rng: random.Random
    names: dict[str, list[str]] = field(default_factory=lambda: {
        "number": ["n0", "n1"], "list": ["l0", "l1"], "dict": ["d0"], "box": ["b0"], "set": ["x0"],
    })  # fmt: skip
    shown: list[str] = field(default_factory=list)
    count: int = 1

    def move(self) -> str:
        """A move whose places are filled in."""
        while True:
            weights = [weight for weight, _ in MOVES.values()]
            ((_, texts),) = self.rng.choices([*MOVES.values()], weights)
            text = self.rng.choice(texts)
            places = {place for _, place, _, _ in Formatter().parse(text) if place}
            if "gone" in places and len(self.names["number"]) < 4:
                continue
            if all(self.names.get(READS[place]) for place in places if place in READS):
                return self.filled(text, sorted(places, key=lambda place: (place in WRITES, place)))

    def filled(self, text: str, places: list[str]) -> str:
        """A move's text with names, those that it reads first."""
        words: dict[str, str] = {}
        for place in places:
            if place in READS:
                words[place] = self.show(READS[place], self.rng.choice(self.names[READS[place]]))
            elif place in WRITES:
                words[place] = self.show(WRITES[place], self.bound(WRITES[place]))
            elif place == "gone":
                words[place] = self.rng.choice(self.names["number"][2:])
                self.names["number"].remove(words[place])
                self.shown = [name for name in self.shown if name != words[place]]
            else:
                words[place] = self.rng.choice(FILES) if place in ("file", "other") else str(self.rng.randrange(9))
        return text.format(**words)

    def bound(self, kind: str) -> str:
        """A new name of a kind, or one that is bound again."""
        names = self.names.setdefault(kind, [])
        if names and self.rng.random() < 0.4:
            return self.rng.choice(names)
        self.count += 1
        names.append(f"{kind[0]}{self.count}" if kind not in ("dict", "draw") else f"{kind[:2]}{self.count}")
        return names[-1]

    def show(self, kind: str, name: str) -> str:
        """Have a name printed when the cell ends."""
        if kind in SHOWN and name not in self.shown:
            self.shown.append(name)
        return name

    def cell(self, number: int, step: bool) -> ProgramCell:
        """A cell of one to three moves."""
        self.shown = []
        moves = [self.move() for _ in range(self.rng.randrange(1, 4))]
        if self.shown and step:
            moves.append(f"print({', '.join(self.shown[-4:])})")
        return ProgramCell(f"c{number}", f"%%step s{number}" if step else "", tuple(moves))


def generate(seed: int, size: int = 0) -> list[ProgramCell]:
    """Return the cells of a program."""
    rng = random.Random(f"program {seed}")
    maker = Maker(rng)
    cells = [ProgramCell(f"p{at}", "", (text,)) for at, text in enumerate(PRELUDE)]
    cells.append(ProgramCell("start", "%%step start", START))
    cells += [maker.cell(at, step=rng.random() < 0.75) for at in range(size or rng.randrange(4, 11))]
    held = [name for kind in sorted(SHOWN) for name in maker.names[kind]]
    return [*cells, ProgramCell("end", "%%step end", (f"print({', '.join(held)})",))]


def edited(cells: list[ProgramCell], seed: int) -> list[ProgramCell]:
    """Return a program after a change as people make them: a line more or less, a number, two cells in turn."""
    rng = random.Random(f"edit {seed}")
    first = len(PRELUDE) + 1
    at = rng.randrange(first, len(cells))
    cell, changed = cells[at], list(cells)
    kind = rng.randrange(4)
    if kind == 0:
        changed[at] = replace(cell, moves=("n0 = n0 + 1", *cell.moves))
    elif kind == 1 and len(cell.moves) > 1:
        changed[at] = replace(cell, moves=cell.moves[1:])
    elif kind == 2 and at + 1 < len(cells):
        changed[at : at + 2] = changed[at + 1], cell
    else:
        changed[first - 1] = replace(
            cells[first - 1], moves=(START[0].replace("[3, 1, 2], [5]", "[3, 1, 2], [6]"), START[1])
        )
    return changed
