"""What a statement does besides binding names: draws of random numbers, settings of the process. Pure.

These go by names of their own, which no variable can have: `<numpy.random>` is NumPy's global state.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from nbflow.analysis.scopes import children_of, dotted_name

RANDOM_STATES: Mapping[str, tuple[str, frozenset[str]]] = {
    "random.": ("<random>", frozenset({"seed", "setstate"})),
    "numpy.random.": ("<numpy.random>", frozenset({"seed", "set_state"})),
    "torch.": ("<torch>", frozenset({"manual_seed", "set_rng_state", "seed"})),
}
"""Import prefix -> the name that its global random state goes by, and the calls that seed it."""

STATES = frozenset(name for name, _ in RANDOM_STATES.values())

AXES = "<axes>"
"""Stands among names that a step below may change for the names of indexes, which frames and series share."""

NAMING = re.compile(r"(?<!\bself)\.names?\s*=(?!=)|\.set_names\(")
AXIS = re.compile(r"\.(?:index|columns|axes|levels)\b")

PROCESS = "<process>"
"""What a cell has set in its process besides its set-up statements: options, folder, environment."""

LIVE = "<live>"
"""What a cell has set in its process and no other process can be given: handlers, patches, what own modules keep."""

_NO_DRAW = frozenset(
    "Random SystemRandom getstate get_state default_rng Generator RandomState SeedSequence BitGenerator PCG64 PCG64DXSM"
    " MT19937 Philox SFC64".split()
)
_TORCH_DRAWS = frozenset(
    "rand randn randint randperm bernoulli multinomial normal poisson rand_like randn_like randint_like dropout".split()
)


class Random(msgspec.Struct, frozen=True):
    """Random states that a statement seeds and draws from at once, and that bodies made in it do when called."""

    seeds: frozenset[str] = frozenset()
    draws: frozenset[str] = frozenset()
    late_seeds: frozenset[str] = frozenset()
    late_draws: frozenset[str] = frozenset()


NO_DRAWS = Random()


# ---------------------------------------------------------------- names


def state_of(name: str) -> str:
    """Return the name that stands for what cells set on a class or function: `<of Account>`."""
    return f"<of {name}>"


def owner_of(name: str) -> str | None:
    """Return the class or function that a name of `state_of` stands for; None for any other name."""
    return name[4:-1] if name.startswith("<of ") else None


def made_by(names: Iterable[str]) -> str:
    """Return the name of what a definition that computes has made of its names: `<made Settings>`."""
    return f"<made {','.join(sorted(names))}>"


def is_made(name: str) -> bool:
    """Return whether a name is one of `made_by`."""
    return name.startswith("<made ")


def said_of_made(name: str) -> str:
    """Return what people call what stands under a name of `made_by`, any other name as it is."""
    return f"what its cell has made of {name[6:-1]}" if is_made(name) else name


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` as text, "" for any other expression."""
    return dotted_name(node) or ""


def full_name(node: ast.expr, origins: Mapping[str, str]) -> str:
    """Return a dotted expression with its root as it was imported: `numpy.random` for `np.random`."""
    root, dot, rest = dotted(node).partition(".")
    return f"{origins.get(root, root)}{dot}{rest}"


@lru_cache(maxsize=32_768)
def calls_in(tree: ast.AST) -> tuple[tuple[ast.Call, bool], ...]:
    """Return every call below a node, with whether it stands in the body of a function made there."""
    calls: list[tuple[ast.Call, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Call):
            calls.append((node, inside))
        body: list[ast.AST] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [*node.body]
        elif isinstance(node, ast.Lambda):
            body = [node.body]
        for child in children_of(node):  # decorators, defaults and annotations are evaluated at once
            visit(child, inside or any(child is each for each in body))

    visit(tree, inside=False)
    return tuple(calls)


# ---------------------------------------------------------------- random states


def random_uses(tree: ast.AST, origins: Mapping[str, str]) -> Random:
    """Return which global random states a statement uses, and how."""
    states: dict[tuple[bool, bool], set[str]] = {}
    for call, inside in calls_in(tree):
        state, seeding = _random_call(full_name(call.func, origins))
        if state:
            states.setdefault((inside, seeding), set()).add(state)
    return Random(
        seeds=frozenset(states.get((False, True), ())),
        draws=frozenset(states.get((False, False), ())),
        late_seeds=frozenset(states.get((True, True), ())),
        late_draws=frozenset(states.get((True, False), ())),
    )


def _random_call(name: str) -> tuple[str, bool]:
    for prefix, (state, seeding) in RANDOM_STATES.items():
        if not name.startswith(prefix):
            continue
        call = name[len(prefix) :]
        if call in seeding:
            return state, True
        if prefix == "torch." and call.rsplit(".", 1)[-1] not in _TORCH_DRAWS:
            return "", False
        return ("", False) if ("." in call and prefix != "torch.") or call in _NO_DRAW else (state, False)
    return "", False


GENERATORS = frozenset({
    "numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.Generator", "random.Random",
    "torch.Generator",
})  # fmt: skip
"""What makes a generator of random numbers: every use of one changes it."""


def made_generators(tree: ast.AST | None, origins: Mapping[str, str]) -> frozenset[str]:
    """Return the names that a statement binds to generators of random numbers."""
    if not isinstance(tree, ast.Assign) or not isinstance(tree.value, ast.Call):
        return frozenset()
    is_generator = full_name(tree.value.func, origins) in GENERATORS
    return frozenset(target.id for target in tree.targets if is_generator and isinstance(target, ast.Name))


def generator_uses(tree: ast.AST | None, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the generators that a statement draws from or passes on, at once and in bodies made there."""
    uses: dict[bool, set[str]] = {False: set(), True: set()}
    for call, inside in calls_in(tree) if tree is not None and names else ():
        values = [call.func.value] if isinstance(call.func, ast.Attribute) else []
        values += [*call.args, *(keyword.value for keyword in call.keywords)]
        uses[inside] |= {part.id for part in values if isinstance(part, ast.Name)} & names
    return frozenset(uses[False]), frozenset(uses[True])


@lru_cache(maxsize=1024)
def names_axes(source: str) -> bool:
    """Return whether a cell may name an index's levels in place: whatever has that index has the name then."""
    return bool(NAMING.search(source) and AXIS.search(source))
