"""Random flows: steps with loops, conditions, turns and failures over a few numbers and lists, as notebook cells.

`broken` is one that fails at some place until it is mended.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

MENDS = ("cell", "constant", "step", "file")
"""How a broken flow is mended: its cell is edited, a definition that it uses, a step above it; or a file appears."""

OPTION = re.compile(r"(--(?:foreach \w+ in|if|until) )(.*?)(?= --|$)")


@dataclass
class Break:
    """Where a flow fails: at its `at`-th step, for numbers that leave `rest` when divided by three."""

    rng: random.Random
    mend: str
    at: int
    rest: int
    step: str = ""
    seen: int = 0
    caught: bool = False

    def cells(self) -> list[str]:
        """What the failing step uses."""
        asked = "Path('mended').exists()" if self.mend == "file" else "mended"
        check = (
            f"def check(n):\n    if n % 3 == {self.rest} and not {asked}:\n        raise ValueError(n)\n    return n"
        )
        given = {"file": "from pathlib import Path", "step": "%%step gate\nmended = False"}
        return [given.get(self.mend, "mended = False"), check]

    def put(self, name: str, header: str, body: str, number: str) -> tuple[str, str]:
        """A step as it would be in; when it is the one, the same with a place where it fails, out."""
        self.seen += 1
        if self.seen <= self.at or self.step:
            return header, body
        self.step, self.caught = name, "--catch" in header
        if self.rng.random() < 0.4:
            header += self.rng.choice([" --retry 1", " --retry 2 --backoff 0.01", " --retry 1 --retry-on ValueError"])
        options = list(OPTION.finditer(header))
        if options and self.rng.random() < 0.5:
            one = self.rng.choice(options)
            return f"{header[: one.start(2)]}(check({number}), {one[2]})[1]{header[one.end(2) :]}", body
        return header, f"check({number})\n{body}" if self.rng.random() < 0.5 else f"{body}\ncheck({number})"

    def mended(self, cells: list[str]) -> list[str]:
        """The cells of the broken flow in; those of the mended one out."""
        if self.mend == "cell":
            broken = f"%%step {self.step} "
            return [
                re.sub(r"check\((\w+)\)", r"\1", cell) if f"{cell.splitlines()[0]} ".startswith(broken) else cell
                for cell in cells
            ]
        return [cell.replace("mended = False", "mended = True") for cell in cells]

    @property
    def touched(self) -> frozenset[str]:
        """The steps that are other ones once the flow is mended."""
        return frozenset() if self.mend == "file" else frozenset({"gate", self.step})


@dataclass
class Generator:
    """One flow in the making; `open` holds the fan-outs that are not joined yet, each with its last step."""

    rng: random.Random
    cells: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    open: list[tuple[str, list[str]]] = field(default_factory=list)  # (last step of the body, numbers made in it)
    count: int = 0
    deepest: int = 2
    fault: Break | None = None
    caught_options: bool = True  # --catch beside --if and --until

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def number(self) -> str:
        """A number made by the innermost body where there is one, so that the new step belongs to it."""
        inner = self.open[-1][1] if self.open else []
        return self.rng.choice(inner or self.numbers)

    def step(self, header: str, body: str, number: str = "") -> str:
        name = self.name("s")
        if self.fault is not None and (self.numbers or number):
            header, body = self.fault.put(name, header, body, number or self.number())
        self.cells.append(f"%%step {name}{header}\n{body}")
        if self.open:
            self.open[-1] = (name, self.open[-1][1])
        return name

    def made(self, name: str) -> None:
        (self.open[-1][1] if self.open else self.numbers).append(name)

    def start(self) -> None:
        self.cells.append("%load_ext nbflow")
        self.cells.append("base = 3\nlog = []\ntotal = 0\n\ndef mix(a, b):\n    return (a * 7 + b * 3 + base) % 101")
        self.step("", "n0 = 5\nl0 = [1, 2, 3]")
        self.numbers, self.lists = ["n0"], ["l0"]

    def compute(self) -> None:
        new = self.name("n")
        self.step("", f"{new} = mix({self.number()}, {self.rng.randrange(9)})")
        self.made(new)

    def rewrite(self) -> None:
        name = self.number()
        self.step("", f"{name} = mix({name}, 2) + {self.rng.randrange(4)}")

    def listing(self) -> None:
        new = self.name("l")
        free = [] if self.open else ["3", "0", "2"]  # inside a body, of the body
        size = self.rng.choice([*free, f"{self.number()} % 4"])
        self.step("", f"{new} = list(range({size}))\n{(mark := self.name('n'))} = len({new})")
        self.made(mark)
        if not self.open:
            self.lists.append(new)

    def foreach(self) -> None:
        if len(self.open) < self.deepest:
            self.loop(f"range({self.open[-1][1][0]} % 3 + 1)" if self.open else self.rng.choice(self.lists))

    def loop(self, over: str) -> None:
        new, item = self.name("n"), self.name("i")
        outside = self.number()
        self.open.append(("", []))
        holds = f" --if {item} != 1" if self.rng.random() < 0.15 else ""
        body = f"{new} = mix({item}, {self.rng.choice(self.numbers)})"
        self.step(f" --foreach {item} in {over}{holds}", body, outside)
        self.made(new)
        if holds:
            self.made(item)

    def join(self) -> None:
        if not self.open:
            return
        last, numbers = self.open.pop()
        new, pick = self.name("n"), self.rng.choice(numbers)
        body = f"{new} = sum(getattr(entry, {pick!r}, 1) * (entry.index + 1) for entry in inputs) + len(inputs)"
        self.step(f" --join {last}", body)
        self.made(new)

    def carry(self) -> None:
        if self.open:
            number = self.number()
            self.step("", self.rng.choice([f"log.append({number})", f"total += {number}", f"total = total + {number}"]))

    def condition(self) -> None:
        name, other = self.number(), self.number()
        holds = f"{other} % 2 == {self.rng.randrange(2)}"
        if self.caught_options and self.rng.random() < 0.3:
            holds = f"12 // ({other} % 3) > 6 --catch {self.name('e')}"
        self.step(f" --if {holds}", f"{name} = {name} + 100")

    def turns(self) -> None:
        name, body, most = self.number(), "", self.rng.randrange(1, 5)
        until = f"{name} % {self.rng.randrange(2, 5)} == 0"
        if self.caught_options and self.rng.random() < 0.3:
            error = self.name("e")
            until = self.rng.choice([f"12 // ({name} % 3) > 6", f"{error} is None"]) + f" --catch {error}"
            body = f"\n{name} // ({name} % 2)"
        self.step(f" --until {until} --max {most}", f"{name} = {name} + 1{body}")

    def catch(self) -> None:
        new, error, number = self.name("n"), self.name("e"), self.number()
        first = self.rng.choice([f"{new} = 1\n", ""])  # else a failure leaves it without a value
        self.step(f" --catch {error}", f"{first}{new} = 10 // ({number} % 2)")
        if self.rng.random() < 0.5:
            self.made(new)
        told = self.name("n")
        self.step("", f"{told} = 0 if {error} is None else len({error}.type)")
        self.made(told)

    def kinds(self) -> dict[Callable[[], None], int]:
        """What the next step may be, with how likely it is."""
        return {
            self.compute: 3, self.rewrite: 2, self.listing: 1, self.foreach: 3, self.join: 2, self.carry: 2,
            self.condition: 1, self.turns: 1, self.catch: 1,
        }  # fmt: skip

    def moves(self, count: int) -> None:
        """So many steps of any kind."""
        kinds = self.kinds()
        for _ in range(count):
            self.rng.choices(list(kinds), list(kinds.values()))[0]()


def generate(seed: int, size: int = 9, fault: Break | None = None, *, caught_options: bool = True) -> list[str]:
    """A seed in; the cells of a flow out."""
    made = Generator(random.Random(seed), fault=fault, caught_options=caught_options)
    made.start()
    made.moves(size)
    while made.open and made.rng.random() < 0.8:
        made.join()
    return made.cells


def nested(seed: int, fault: Break | None = None) -> list[str]:
    """A seed in; the cells of a fan-out of 3 x 2 x 6 with conditions, turns and caught failures at any depth, out."""
    made = Generator(random.Random(seed), fault=fault)
    made.start()
    extra = [made.condition, made.turns, made.catch, made.rewrite]
    made.rng.shuffle(extra)
    for size in (3, 2, 6):
        made.loop(f"range({size}{f' + 0 * {made.number()}' if made.open else ''})")
        extra.pop()()
    for _ in range(3):
        made.join()
    extra.pop()()
    return made.cells


def broken(seed: int, rest: int) -> tuple[list[str], Break]:
    """A seed and 0, 1 or 2 in; a flow that may fail somewhere, and where, out. One flow of four is deep."""
    fault = Break(random.Random(f"break {seed}"), MENDS[(seed // 4 + seed) % 4], seed * 5 % 8, rest)
    cells = nested(seed, fault) if seed % 4 == 3 else generate(seed, 9, fault)
    return [*cells[:2], *fault.cells(), *cells[2:]], fault


@dataclass
class Wide(Generator):
    """The same with parameters, files, classes, closures, helper modules and names that are rewritten later."""

    boxes: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.cells.append("%load_ext nbflow\n%matplotlib inline")
        self.cells.append("import asyncio\nfrom dataclasses import dataclass\n\nimport shop")
        self.cells.append(
            "@dataclass\nclass Box:\n    n: int\n    by: str = 'ü\"'\n\n    def grown(self, by):\n"
            '        return Box((self.n * by + FACTOR) % 97, self.by + "\'")\n\n\n'
            "def adder(k):\n    def add(v):\n        return v + k\n    return add\n\n\n"
            "async def later(v):\n    await asyncio.sleep(0)\n    return v + FACTOR"
        )
        self.cells.append("FACTOR = 2")
        self.cells.append("%%params\nrate: int = 2  # of growth\nsizes: list = [1, 2, 3]\ntable: File = 'table.csv'")
        super().start()
        self.step("", "n1 = len(open(table).read()) + rate\nl1 = list(sizes)")
        self.numbers.append("n1")
        self.lists.append("l1")

    def box(self) -> None:
        new, number = self.name("b"), self.number()
        self.step("", f"{new} = Box({number}).grown({self.rng.randrange(1, 4)})\n{(mark := self.name('n'))} = {new}.n")
        self.made(mark)
        if not self.open:
            self.boxes.append(new)

    def change(self) -> None:
        if self.boxes and not self.open:
            box, new = self.rng.choice(self.boxes), self.name("n")
            self.step("", f"{box}.n += {self.number()} % 5\n{new} = {box}.grown(2).n")
            self.made(new)

    def helper(self) -> None:
        new = self.name("n")
        self.step("", f"{new} = shop.price({self.number()}, {self.rng.choice(['rate', 'shop.TAX'])})")
        self.made(new)

    def redefine(self) -> None:
        if not self.open:
            self.cells.append(f"FACTOR = {self.rng.randrange(9)}")

    def closure(self) -> None:
        add, new = self.name("f"), self.name("n")
        self.step("", f"{add} = adder({self.number()})\n{new} = {add}(1)")
        self.made(new)
        if self.rng.random() < 0.5:
            again = self.name("n")
            self.step("", f"{again} = {add}({new})")
            self.made(again)

    def waiting(self) -> None:
        new = self.name("n")
        self.step("", f"{new} = (await later({self.number()})) % 50\n%time {new} += 1\n!true {{{new}}}")
        self.made(new)

    def unnamed(self) -> None:
        if not self.open:
            new, again = self.name("u"), self.name("n")
            self.cells.append(f"{new} = [{self.number()}]\n{new}.append(len({new}))")
            self.step("", f"{again} = sum({new}) % 60")
            self.made(again)

    def text(self) -> None:
        new, told = self.name("t"), self.name("n")
        self.step("", f"{new} = '''{{\n \"ä\" \\n'''\n{told} = len({new} + f\"{{{self.number()}!r:>4}}\")")
        self.made(told)

    def kinds(self) -> dict[Callable[[], None], int]:
        more = [self.box, self.change, self.helper, self.redefine, self.closure, self.waiting, self.unnamed, self.text]
        return super().kinds() | dict.fromkeys(more, 1)


WIDE_FILES = {"table.csv": "a,b\n1,2\n", "shop.py": "TAX = 3\n\n\ndef price(n, rate):\n    return n * rate % 53\n"}


def wide(seed: int, size: int = 9) -> list[str]:
    """A seed in; the cells of a flow with everything that a notebook may hold out; `WIDE_FILES` lie beside it."""
    made = Wide(random.Random(seed), caught_options=False)
    made.start()
    made.moves(size)
    while made.open and made.rng.random() < 0.8:
        made.join()
    return made.cells
