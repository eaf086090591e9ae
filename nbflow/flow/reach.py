"""Cells in document order → which plain cells may change what a step below reads, and so belong to the flow. Pure.

Objects go by numbers: each statement that binds names makes one, and the names that it binds may hold it and whatever
it was given. What two names may both hold they may share. A plain cell is part of the flow where it may change an
object that a step below it may be given.

A set of objects is an integer with their bits: in a chain each name may hold all that stand above it, and a thousand
bits are joined or compared as fast as a few.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from operator import or_

import msgspec

from nbflow.analysis.cell import Analysis
from nbflow.analysis.effects import is_made
from nbflow.analysis.touching import NOBODY, PACKAGES, Above, Act, FunctionEffects, Touch, body_of, touch_of
from nbflow.flow.definitions import Piece, parse_statement
from nbflow.flow.findings import BARRED, places_that_wait
from nbflow.flow.identity import step_name
from nbflow.model import Cell, Flow, Notebook, Step

Objects = int
NOTHING: Objects = 0

_METHOD = re.compile(r"^[ \t]+(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_CLASS = re.compile(r"^[ \t]*class[ \t]+(\w+)", re.MULTILINE)
_COUNTING = re.compile(r"\bcls\b|\b__class__\b|\btype\(self\)|\b__new__\b")


class Reached(msgspec.Struct, frozen=True):
    """What a cell may get hold of: objects that it is given, objects that it may change, what else it does."""

    given: Objects = NOTHING
    touched: Objects = NOTHING
    escapes: frozenset[str] = NOBODY  # the inputs through which it gets hold of those
    act: Act = ""
    line: int = 1
    able: bool = True  # whether the cell can take part at all


class Text(msgspec.Struct, frozen=True):
    """What a notebook's text tells as a whole: names that its classes define, and which of them need care."""

    methods: frozenset[str]
    classes: frozenset[str]
    counting: frozenset[str]  # classes that may change themselves when an object is made
    defaults: bool  # looking an element up may add one
    iterators: bool


@lru_cache(maxsize=64)
def text_of(source: str) -> Text:
    """Return what the code of a notebook tells as a whole."""
    classes = frozenset(_CLASS.findall(source))
    itself = re.compile(rf"^[ \t]+.*\b({'|'.join(classes)})\.\w", re.MULTILINE) if classes else None
    return Text(
        methods=frozenset(_METHOD.findall(source)),
        classes=classes,
        counting=classes if _COUNTING.search(source) else frozenset(itself.findall(source) if itself else ()),
        defaults=any(word in source for word in ("defaultdict", "__missing__", "__getitem__")),
        iterators="__next__" in source,
    )


class BoundNames:
    """The names that cells above have bound, and those of the cell that is read, as far as it has been read."""

    def __init__(self, above: Container[str]) -> None:
        self.above = above
        self.here: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self.here or name in self.above


class Reach(msgspec.Struct):
    """The notebook so far: the objects that each name may hold."""

    text: Text
    holds: dict[str, Objects] = msgspec.field(default_factory=dict)
    lazy: Objects = NOTHING  # those that may be iterators
    bodies: dict[str, FunctionEffects] = msgspec.field(default_factory=dict)  # of functions, by their names here
    by_order: dict[int, tuple[FunctionEffects, ...]] = msgspec.field(default_factory=dict)  # of definitions
    count: int = 0  # of objects so far

    @classmethod
    def over(cls, notebook: Notebook) -> Reach:
        """Return the reading of a notebook, before its first cell."""
        return cls(text_of("\n".join(cell.body for cell in notebook.cells)))

    def objects(self, names: Iterable[str]) -> Objects:
        """Return all that some names may hold."""
        return _joined(self.holds.get(name, NOTHING) for name in names)

    # ------------------------------------------------------------ statements

    def read(
        self, pieces: Iterable[Piece], origins: Mapping[str, str], writers: Mapping[str, object]
    ) -> tuple[Touch | None, ...]:
        """Return what each statement of a cell may do, functions taken in on the way."""
        text, origins, bound = self.text, dict(origins), BoundNames(writers)
        touches = []
        for piece in pieces:
            around = Above(
                origins,
                self.bodies,
                bound,
                text.classes,
                text.counting,
                text.methods,
                text.defaults,
                text.iterators,
            )
            tree = parse_statement(piece.statement)
            touch = _magic(piece) if piece.statement.kind == "magic" else touch_of(tree, around)
            touches.append(touch)
            for name in piece.writes:
                self.bodies.pop(name, None)
                origins.pop(name, None)
            if piece.kind == "definition" and isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
                body = body_of(tree, around)
                act: Act = "outside" if piece.files.may_write else body.act
                self.bodies[tree.name] = FunctionEffects(body.quiet, body.lazy, act, body.touched, body.kept)
            origins.update(piece.origins)
            bound.here |= piece.writes
        return tuple(touches)

    def keep_definition(self, order: int, piece: Piece, touch: Touch | None) -> None:
        """Take in a definition: its body counts where a cell uses it, what it was made of is held by its names."""
        if piece.kind != "definition":
            return
        own = self._new(lazy=False) if piece.statement.kind in ("class", "def") else NOTHING
        objects = self.objects(piece.reads) | own
        for name in piece.writes:
            self.holds[name] = objects
        bodies = [self.bodies[name] for name in piece.writes if name in self.bodies]
        if not bodies and touch is not None and piece.statement.kind in ("class", "def"):
            bodies = [
                FunctionEffects(quiet=False, lazy=True, act="", touched=touch.touched | touch.drained, kept=piece.free)
            ]
        self.by_order[order] = tuple(bodies)

    # ------------------------------------------------------------ cells

    def add(
        self,
        cell: Cell,
        analysis: Analysis,
        pieces: Iterable[Piece],
        touches: Iterable[Touch | None],
        inputs: Iterable[str],
        definitions: Mapping[int, Iterable[str]],
    ) -> Reached:
        """Take in a cell, what it is given and the names of definitions that it uses; return what it reaches."""
        before = {name: self.holds.get(name, NOTHING) for name in inputs}
        inputs_held = _joined((*before.values(), *(self.objects(names) for names in definitions.values())))
        used = [body for order in definitions for body in self.by_order.get(order, ())]
        around = NOBODY.union(*(body.kept | body.touched for body in used))
        changed: Objects = NOTHING
        act: Act = ""
        line, calls = 1, False
        unsure = cell.options.condition is not None or cell.options.catch is not None
        for piece, known_touch in zip(pieces, touches, strict=True):
            if piece.kind != "data":
                continue
            touch = known_touch or Touch(touched=piece.reads, kept=piece.reads, lazy=True)
            calls = calls or touch.calls
            binds = frozenset(
                name for name in piece.writes - piece.changes if is_made(name) or not name.startswith("<")
            )
            sure = not unsure and piece.statement.kind == "assign"
            changed |= self._apply(touch, binds, around if touch.calls else NOBODY, sure=sure)
            does: Act = touch.act or ("call" if piece.acts else "")
            does = "outside" if piece.files.may_write and not PACKAGES.match(piece.statement.source) else does
            if does and act not in ("outside", does):
                act, line = does, piece.statement.line + max(touch.line - 1, 0)
        if calls:
            changed |= self.objects(NOBODY.union(*(body.touched for body in used)))
        for name in analysis.deletes - analysis.writes:
            self.holds.pop(name, None)
        for target in (cell.options.catch, *_targets(cell)):
            if target is not None:
                self.holds[target] = self.holds.get(target, NOTHING) | self._new(lazy=True) | inputs_held
        able = {problem.code for problem in analysis.diagnostics}.isdisjoint(BARRED)
        able = able and not any(places_that_wait(cell.body, self.holds))
        escapes = frozenset(name for name, objects in before.items() if objects & changed)
        return Reached(inputs_held, changed, escapes, act, line, able)

    def _apply(self, touch: Touch, binds: frozenset[str], around: frozenset[str], *, sure: bool) -> Objects:
        """Take in a statement; return the objects that it may change."""
        sources = self.objects(touch.kept | around)
        drained = self.objects(touch.drained) & self.lazy
        changed = self.objects(touch.touched) | drained
        for name in touch.touched:
            if name in self.holds:
                self.holds[name] |= sources
        objects = NOTHING if touch.fixed else self._new(lazy=touch.lazy) | sources if binds else NOTHING
        for name in binds:
            self.holds[name] = objects if sure else self.holds.get(name, NOTHING) | objects
        return changed

    def _new(self, *, lazy: bool) -> Objects:
        self.count += 1
        made = 1 << self.count
        if lazy:
            self.lazy |= made
        return made


def _joined(objects: Iterable[Objects]) -> Objects:
    return reduce(or_, objects, NOTHING)


def _magic(piece: Piece) -> Touch:
    """Return what a line magic may do: what its code reads is in its hands."""
    reads = piece.statement.reads
    return Touch(touched=reads, kept=reads, lazy=True)


def _targets(cell: Cell) -> tuple[str, ...]:
    foreach = cell.options.foreach
    if foreach is None:
        return ()
    return tuple(re.findall(r"\w+", foreach.target))


# ---------------------------------------------------------------- which cells belong to the flow


def belonging(
    steps: Sequence[Step],
    reached: Mapping[str, Reached],
    wanted: Collection[str],
    bodies: Iterable[frozenset[str]],
) -> dict[str, Act]:
    """Return the plain cells that belong to a flow because of what they may do, each with what it acts on.

    `wanted` are the steps that belong to it already; `bodies` those of fan-outs, whose cells come round.
    """
    last = max((at for at, step in enumerate(steps) if step.name in wanted and step.kind != "cell"), default=-1)
    around: dict[str, Objects] = {}
    for body in bodies:
        inputs = _joined(reached[name].given for name in body if name in wanted)
        around.update((name, around.get(name, NOTHING) | inputs) for name in body)
    # From the last cell up, so that all that joins below a cell is known when the cell is looked at: what a joined cell
    # is given must be right too, and so a cell above that may change it joins in turn.
    below = NOTHING
    cells: dict[str, Act] = {}
    for at in range(len(steps) - 1, -1, -1):
        name, reach = steps[at].name, reached[steps[at].name]
        if name not in wanted and steps[at].kind == "cell" and reach.able:
            meets = reach.touched & (below | around.get(name, NOTHING))
            if meets or (reach.act and at < last):
                cells[name] = reach.act
        if name in wanted or name in cells:
            below |= reach.given
    return cells


def affected(
    steps: Sequence[Step], reached: Mapping[str, Reached], bodies: Iterable[frozenset[str]]
) -> dict[str, tuple[str, ...]]:
    """Return for each plain cell that joined a flow because of what it may do the steps that it may do it to."""
    around = list(bodies)
    steps_by_cell = {}
    for at, cell in enumerate(steps):
        if not cell.joins:
            continue
        reach = reached[cell.name]
        names = {
            step.name for place, step in enumerate(steps)
            if step.name != cell.name
            and (place > at or any(cell.name in body and step.name in body for body in around))
            and ((reach.act and place > at) or reach.touched & reached[step.name].given)
        }  # fmt: skip
        steps_by_cell[cell.name] = tuple(step.name for step in steps if step.name in names)
    return steps_by_cell


def left_out(
    cells: Sequence[Cell], steps: Sequence[Step], reached: Mapping[str, Reached]
) -> Iterator[tuple[Cell, int]]:
    """Yield the plain cells below the last step that have an effect, each with the line of it: no run does it."""
    present = {step.cell for step in steps}
    last = max((step.position for step in steps if step.kind == "step"), default=len(cells))
    for cell in cells[last:]:
        reach = reached.get(step_name(cell))
        if cell.kind == "plain" and cell.id not in present and reach is not None and reach.act:
            yield cell, reach.line


def folded(flow: Flow) -> tuple[str, ...]:
    """Return the plain cells that belong to a flow only because they may change something."""
    return tuple(step.name for step in flow.steps if step.joins == "possible")
