"""Random flows: steps with loops, conditions, turns and failures over a few numbers and lists, as notebook cells."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Generator:
    """One flow in the making; `open` holds the fan-outs that are not joined yet, each with its last step."""

    rng: random.Random
    cells: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    open: list[tuple[str, list[str]]] = field(default_factory=list)  # (last step of the body, numbers made in it)
    count: int = 0

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def number(self) -> str:
        """A number made by the innermost body where there is one, so that the new step belongs to it."""
        inner = self.open[-1][1] if self.open else []
        return self.rng.choice(inner or self.numbers)

    def step(self, header: str, body: str) -> str:
        name = self.name("s")
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
        if len(self.open) >= 2:
            return
        new, item = self.name("n"), self.name("i")
        inner = f"range({self.open[-1][1][0]} % 3 + 1)" if self.open else self.rng.choice(self.lists)
        self.open.append(("", []))
        self.step(f" --foreach {item} in {inner}", f"{new} = mix({item}, {self.rng.choice(self.numbers)})")
        self.made(new)

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
        self.step(f" --if {other} % 2 == {self.rng.randrange(2)}", f"{name} = {name} + 100")

    def turns(self) -> None:
        name = self.number()
        self.step(
            f" --until {name} % {self.rng.randrange(2, 5)} == 0 --max {self.rng.randrange(1, 5)}",
            f"{name} = {name} + 1",
        )

    def catch(self) -> None:
        new, error, number = self.name("n"), self.name("e"), self.number()
        self.step(f" --catch {error}", f"{new} = 1\n{new} = 10 // ({number} % 2)")
        told = self.name("n")
        self.step("", f"{told} = 0 if {error} is None else len({error}.type)")
        self.made(told)


def generate(seed: int, size: int = 9) -> list[str]:
    """A seed in; the cells of a flow out."""
    made = Generator(random.Random(seed))
    made.start()
    moves = [
        made.compute,
        made.rewrite,
        made.listing,
        made.foreach,
        made.join,
        made.carry,
        made.condition,
        made.turns,
        made.catch,
    ]
    weights = [3, 2, 1, 3, 2, 2, 1, 1, 1]
    for _ in range(size):
        made.rng.choices(moves, weights)[0]()
    while made.open and made.rng.random() < 0.8:
        made.join()
    return made.cells
