"""A notebook's cells → a Flow: steps, definitions, edges and findings. Pure: problems are data, nothing is raised.

Cells are taken in document order, so that the table of writers holds, at each cell, exactly what stands above it:
looking a name up is then the rule itself, "the value that the nearest earlier cell gave it".
"""

from __future__ import annotations
import __future__

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile

import msgspec

from nbflow.analysis.cell import Analysis, analyse, normalise
from nbflow.analysis.effects import LIVE, PROCESS, STATES, is_made, state_of
from nbflow.analysis.files import NO_FILES, Files, Touches, Waits
from nbflow.analysis.quoted import MAIN
from nbflow.analysis.result import BUILTINS
from nbflow.analysis.source import star_modules
from nbflow.analysis.touching import Touch
from nbflow.flow import findings, late_options
from nbflow.flow.definitions import (
    Piece,
    Surroundings,
    attached_to,
    generators_after,
    global_names,
    parse_statement,
    sets_here,
    split_cell,
)
from nbflow.flow.fanouts import edges_of, place_steps
from nbflow.flow.findings import HIDING, diagnosed, waiting
from nbflow.flow.identity import (
    behaviour_of,
    bindings_of,
    definition_of,
    future_flags,
    hash_of,
    identity_of,
    is_travelling,
    keeps_state,
    label_of,
    normal_text,
    step_name,
    target_names,
    union,
)
from nbflow.flow.parameters import read_parameters, with_file
from nbflow.flow.reach import Reach, Reached, affected, belonging, left_out
from nbflow.flow.scope import Gathered, closed, defined, gather, sources_of
from nbflow.flow.spans import cells_of
from nbflow.model import (
    Binding,
    Cell,
    Definition,
    Finding,
    Flow,
    Joins,
    Notebook,
    Source,
    Step,
    StepOptions,
    Writer,
)

Changed = Mapping[str, frozenset[str]]
"""Steps by name, and what they were seen to change in place though nothing in their text says so."""

Asked = Changed
"""Steps by name, and the names that they were seen to read though nothing in their text says so."""

Seen = Mapping[str, Files]
"""Steps by name, and the files that runs have seen their code touch."""

NOTHING_SEEN: Seen = {}

_TEXTS = re.compile(r"[\"'](\w+)[\"']")
"""Texts in a decorator's line."""


def _without_looks(pieces: tuple[Piece, ...], touches: tuple[Touch | None, ...]) -> tuple[Piece, ...]:
    """Return a cell's pieces; a call that only looks at what it is given (`df.head()`) writes nothing."""
    return tuple(
        msgspec.structs.replace(piece, possible=frozenset())
        if piece.statement.kind == "call" and touch is not None and not touch.touched
        else piece
        for piece, touch in zip(pieces, touches, strict=True)
    )


def _called(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Return the set-up of a cell, and those of its own definitions that its other statements get hold of."""
    writers: dict[str, list[int]] = {}  # of the definitions, each by its place
    for at, piece in enumerate(pieces):
        if piece.kind == "definition":
            for name in piece.writes:
                writers.setdefault(name, []).append(at)
    called = {at for at, piece in enumerate(pieces) if piece.kind == "setup"}
    names = [name for piece in pieces if piece.kind == "data" for name in piece.reads]
    while names:
        for at in writers.pop(names.pop(), ()):
            if at not in called:
                called.add(at)
                names += pieces[at].reads | pieces[at].free
    return tuple(pieces[at] for at in sorted(called))


def build_flow(
    notebook: Notebook,
    *,
    all_cells: bool = False,
    changed: Changed | None = None,
    seen: Seen = NOTHING_SEEN,
    asked: Asked | None = None,
    replays_settings: bool = False,
) -> Flow:
    """Return the flow that a notebook is; with `all_cells` every code cell that computes is a step.

    With `replays_settings` what cells set in the process is set-up, for targets whose processes cannot be given it.
    """
    builder = _Builder(notebook, all_cells, changed or {}, seen, asked or {}, replays_settings=replays_settings)
    for cell in notebook.cells:
        builder.add(cell)
    return builder.finish()


class _Builder:
    """The notebook read so far: who wrote which name, and the candidates for steps."""

    def __init__(
        self,
        notebook: Notebook,
        all_cells: bool,
        changed: Changed,
        seen: Seen,
        asked: Asked,
        *,
        replays_settings: bool,
    ) -> None:
        self.changed = changed
        self.replays_settings = replays_settings
        self.notebook = notebook
        self.all_cells = all_cells
        self.definitions: list[Definition] = []
        self.writers: dict[str, list[Writer]] = {}
        self.candidates: list[Step] = []
        self.declared: dict[str, Cell] = {}
        self.findings: list[Finding] = list(notebook.findings)
        self.missing: list[findings.MissingName] = []
        self.origins: dict[str, str] = {}
        self.setup: list[int] = []
        self.lists: dict[str, Step] = {}
        self.replayed: dict[str, dict[str, tuple[int, ...]]] = {}  # step -> what it takes from definitions
        self.touches = Touches()
        self.files: list[Files] = []  # what each definition may do to files
        self.seen = seen
        self.asked = asked
        self.abilities: dict[str, Files] = {}  # what the methods of a value, or a class, may do to files
        self.bodies: dict[str, Files] = {}  # what calling a function may do to them
        self.variables = frozenset(union(global_names(cell.body) for cell in notebook.cells))
        self.attached: dict[str, tuple[int, ...]] = {}  # in this cell: name -> its definitions with what they were left
        self.listed = any("__subclasses__" in cell.body for cell in notebook.cells)
        self.generators: frozenset[str] = frozenset()  # names of generators of random numbers
        # names whose call gives something else each time; functions of its own modules by their full names
        self.computing = {f"{each.module}.{name}" for each in notebook.modules for name in each.acts}
        self.modules = tuple((each.module, frozenset(each.defined)) for each in notebook.modules)
        self.postponed = False  # annotations, by a `from __future__` above
        self.hidden = BUILTINS.intersection(union(self._analyse(cell).writes for cell in notebook.cells))
        self.alike: Counter[str] = Counter()  # cells with the same code
        self.reach = Reach.over(notebook)
        self.reached: dict[str, Reached] = {}
        self.learnt: dict[tuple[str, str], frozenset[str]] = {}  # a write that no text shows -> who wrote before it
        self.set_here: list[findings.SetHere] = []
        self.vague = False  # something above that hides names: a missing one may be there after all
        self.starred = False  # among that a star import: any missing name may well be its own

    # ------------------------------------------------------------ one cell

    def add(self, cell: Cell) -> None:
        if cell.kind in ("control", "empty"):
            return
        if cell.kind == "step" and not self._declare(cell):
            return
        if cell.kind == "params" and "File" not in self.writers:
            cell = msgspec.structs.replace(cell, body=with_file(cell.body))
        analysis = self._analyse(cell)
        futures = future_flags(statement.source for statement in analysis.statements)
        self.postponed |= bool(futures & __future__.annotations.compiler_flag)
        self.findings.extend(diagnosed(cell, analysis, all_cells=self.all_cells))
        codes = {problem.code for problem in analysis.diagnostics}
        self.vague |= not codes.isdisjoint(HIDING)
        self.starred |= "star-import" in codes
        if cell.kind == "setup":
            self._add_setup_cell(cell, analysis)
            return
        # of a cell that may break off nobody knows which of its assignments were made: all of them are data
        pieces = split_cell("step" if cell.options.catch is not None else cell.kind, analysis, self._around)
        touches = self.reach.read(pieces, self.origins, self.writers)
        own = self._define(cell, pieces, touches)
        self._add_candidate(cell, analysis, _without_looks(pieces, touches), touches, own)
        self._pass_abilities(pieces)
        for piece in pieces:
            self.origins.update(piece.origins)
            self.computing.difference_update(*({name, f"{name}()"} for name in piece.writes))
            self.computing |= piece.computes
            what = sets_here(piece, self.origins)
            if what:
                self.set_here.append(findings.SetHere(cell, piece.statement.line, what.partition(".")[0]))
        self.generators = generators_after(pieces, self.generators, self.origins)

    def _around(self, words: frozenset[str]) -> Surroundings:
        """Return what surrounds the next cell, as far as it has words for it."""
        written = words & self.writers.keys()
        definitions = {name: orders for name in written if (orders := self._definitions_of(name))}
        return Surroundings(
            origins=tuple(sorted((name, self.origins[name]) for name in words & self.origins.keys())),
            definitions=frozenset(definitions),
            variables=self.variables & words,
            hidden=self.hidden & words,
            generators=self.generators & words,
            data=frozenset(name for name in written - definitions.keys() if self.writers[name]),
            acting=frozenset(
                name for name, orders in definitions.items()
                if any(self.definitions[order].free_writes for order in orders)
            ),
            computing=frozenset(each for each in self.computing if "." in each or each.removesuffix("()") in words),
            modules=self.modules,
            replays_settings=self.replays_settings,
        )  # fmt: skip

    def _analyse(self, cell: Cell) -> Analysis:
        stars = self.notebook.stars if star_modules(cell.body) else ()
        return analyse(cell.body, postponed=self.postponed, stars=stars)

    def _declare(self, cell: Cell) -> bool:
        name = cell.name or ""
        other = self.declared.get(name)
        if other is not None:
            self.findings.append(findings.duplicate_step(name, other, cell))
            return False
        self.declared[name] = cell
        return True

    # ------------------------------------------------------------ definitions and set-up

    def _define(self, cell: Cell, pieces: tuple[Piece, ...], touches: tuple[Touch | None, ...]) -> dict[str, list[int]]:
        """Add the definitions of a cell; return the names that they bind, with their orders.

        While a statement is looked up, what stands above it in the same cell is in the table too.
        """
        own: dict[str, list[int]] = {}
        last_data = {
            name: at
            for at, piece in enumerate(pieces)
            if piece.kind == "data"
            for name in piece.writes | piece.possible
        }
        data_above: set[str] = set()
        for at, piece in enumerate(pieces):
            if piece.kind == "data":
                data_above |= piece.writes
                continue
            above = (name for name in piece.reads if name in data_above and last_data[name] < at)
            inner = {name: (Source(step=step_name(cell)),) for name in above}
            hints = dict.fromkeys(defined(piece.statement.hints, self.writers, None), False)
            reads = dict.fromkeys(piece.reads, True)
            if any(map(is_made, reads)):  # its cell has used the data
                reads = {n: True for n in reads if is_made(n) or n in own or self._definitions_of(n)}
            need = self._gather(hints | reads, inner, own)
            order = len(self.definitions)
            self.definitions.append(definition_of(cell, piece, order, need))
            self.files.append(piece.files)
            if piece.kind == "setup" or piece.registers or piece.statement.source.startswith("from __future__ "):
                self.setup.append(order)
            self._attach(piece, order, own)
            self.reach.keep_definition(order, piece, touches[at])
            for name in piece.writes:
                own.setdefault(name, []).append(order)
        return own

    def _attach(self, piece: Piece, order: int, own: Mapping[str, list[int]]) -> None:
        """Add a definition to the names with which it leaves something: whoever uses those below needs it too."""

        def orders(name: str) -> tuple[int, ...]:
            return (*self.attached.get(name, ()), *(own.get(name) or self._definitions_of(name)))

        tree = parse_statement(piece.statement)
        needs = attached_to(
            tree, self.definitions, lambda name: closed(self.definitions, orders(name)), listed=self.listed
        )
        for name in needs:
            replays = orders(name)
            if replays and not self.definitions[replays[-1]].origins:
                self.attached[name] = (*replays, order)

    def _add_setup_cell(self, cell: Cell, analysis: Analysis) -> None:
        order = len(self.definitions)
        need = self._gather(dict.fromkeys(analysis.reads, True))
        origins = {name: origin for statement in analysis.statements for name, origin in statement.imports}
        names = tuple(sorted(analysis.writes))
        self.definitions.append(Definition(
            id=identity_of("setup", cell.body), kind="setup", cell=cell.id, position=cell.position, order=order, line=1,
            source=cell.body, names=names, reads=tuple(sorted(analysis.reads)),
            free=union(statement.deferred for statement in analysis.statements),
            free_writes=union(statement.deferred_writes for statement in analysis.statements),
            origins=origins, requires=tuple(sorted(need.definitions)), binds=bindings_of(need),
        ))  # fmt: skip
        self.files.append(NO_FILES)
        self.setup.append(order)
        self.origins.update(origins)
        for name in names:
            self.writers.setdefault(name, []).append(Writer(position=cell.position, definitions=(order,)))
        self._note_missing(f"set-up in cell {cell.position}", cell, need, frozenset(names))

    def _definitions_of(self, name: str) -> tuple[int, ...]:
        writers = self.writers.get(name)
        return writers[-1].definitions if writers else ()

    # ------------------------------------------------------------ steps

    def _add_candidate(
        self,
        cell: Cell,
        analysis: Analysis,
        pieces: tuple[Piece, ...],
        touches: tuple[Touch | None, ...],
        own: dict[str, list[int]],
    ) -> None:
        """Add a cell as a possible step: its inputs are looked up, then its writes enter the table."""
        options = cell.options
        reads = self._reads(cell, analysis, pieces)
        if options.inputs is not None:
            reads = {
                name: name in options.inputs and sure
                for name, sure in reads.items() if self._definitions_of(name) or name.startswith("<")
            }  # fmt: skip
            reads.update(dict.fromkeys(options.inputs, True))
        need = self._gather(reads)
        step = step_name(cell)
        writes = self._data_writes(cell, analysis, pieces, need, own)
        learnt = self._learnt_writes(cell, analysis, writes)
        self.learnt.update({(step, name): self._makers(name) for name in learnt})
        writes |= learnt
        data = [piece for piece in pieces if piece.kind == "data"]
        orders = {order for orders in own.values() for order in orders}
        used = {order: self.definitions[order].names for order in need.definitions | orders}
        reach = self.reach.add(cell, analysis, pieces, touches, need.bindings, used)
        if cell.kind != "plain" or writes or data:
            self._add_list(cell)
            self.replayed[step] = need.replayed
            self.reached[step] = reach
            candidate = self._step(cell, analysis, need, writes, own)
            waits = self._order(candidate, pieces)
            self.candidates.append(msgspec.structs.replace(candidate, ordered=waits.order, file_sources=waits.sources))
            self._note_missing(step, cell, need, writes)
        self._record_writes(cell, analysis, writes, own, step)

    def _reads(self, cell: Cell, analysis: Analysis, pieces: tuple[Piece, ...]) -> dict[str, bool]:
        """Return the names that a cell takes from above, each with whether it surely does.

        Random states, what cells have set in the process, and builtins count only where a cell above has set them: any
        library may draw numbers or look at options. `inputs` is the join's own.
        """
        reads = set(analysis.reads)
        if any(piece.kind == "data" or piece.changes for piece in pieces):
            reads |= {name for name in (*STATES, PROCESS, LIVE) if name in self.writers}
        reads |= {name for name in analysis.builtin_reads if name in self.writers}
        reads |= {MAIN for piece in pieces if MAIN in piece.reads}
        names = dict.fromkeys(defined(analysis.hints, self.writers, None), False) | {
            name: name in analysis.sure_reads
            for name in reads if name not in analysis.optional_reads or name in self.writers
        }  # fmt: skip
        names = dict.fromkeys((*self._registered(cell), *self.asked.get(step_name(cell), ())), False) | names
        options = cell.options
        if options.condition is not None:
            names.update(dict.fromkeys(analyse(options.condition).reads, True))
        if options.until is not None:
            names = self._asked(options, analysis) | names
        if options.foreach is not None:
            names = {name: sure for name, sure in names.items() if name not in target_names(options.foreach.target)}
        if options.join:
            names.pop("inputs", None)
        return names

    def _registered(self, cell: Cell) -> Iterator[str]:
        """Yield what the bodies read that libraries have got hold of above: a line magic's, an accessor's.

        Definitions are there wherever such a body may run; data where the cell speaks of it, by its name or by the text
        that it was registered under.
        """
        for definition in (self.definitions[order] for order in self.setup):
            if definition.kind == "definition" and definition.free:
                words = {*definition.names, *_TEXTS.findall(definition.source.partition("\n")[0])}
                spoken = any(word in cell.body for word in words)
                yield from definition.free if spoken else defined(definition.free, self.writers, None)

    def _asked(self, options: StepOptions, analysis: Analysis) -> dict[str, bool]:
        """Return the names that `--until` takes from above, not from the cell; the cell may have failed before."""
        names = analyse(options.until or "").reads - {options.catch}
        if options.catch is None:
            return dict.fromkeys(names - (analysis.writes - analysis.conditional), True)
        return {name: name not in analysis.writes for name in names - analysis.writes | names & self.writers.keys()}

    def _data_writes(
        self, cell: Cell, analysis: Analysis, pieces: tuple[Piece, ...], need: Gathered, own: Mapping[str, list[int]]
    ) -> frozenset[str]:
        """Return the names whose versions travel from this cell on: what its data statements bind or may change."""
        foreach = cell.options.foreach
        from_options = frozenset(target_names(foreach.target)) if foreach is not None else frozenset()
        from_options |= {cell.options.catch} if cell.options.catch is not None else set()
        if cell.kind == "params":
            # `lr: float` binds nothing in the text, and gets its value from outside
            from_options |= {parameter.name for parameter in read_parameters(cell)}
        if cell.options.outputs is not None:
            return frozenset(cell.options.outputs) | from_options
        # A name travels where data binds it, or where data may change its object in place: a reader below must then get
        # the changed object. What is replayed never travels, neither modules nor functions and classes; what is set on
        # a class or function goes by a name of its own (`state_of`), beside its replayed definition.
        data = [piece for piece in pieces if piece.kind == "data"]
        bound = frozenset[str]().union(*(piece.writes - piece.changes for piece in data))
        by_definition = frozenset(own) - bound
        settings = (piece for piece in pieces if piece.kind == "setup" or PROCESS in piece.writes)
        modules = frozenset[str]().union(*(piece.statement.writes for piece in settings))
        names = bound | (frozenset(analysis.writes) - by_definition - modules if data else frozenset())
        names -= frozenset[str]().union(*(piece.changes for piece in data)) & self.origins.keys()
        drawn = (p.free_writes & self.generators for p in pieces if p.kind != "data" and data)
        possible = frozenset[str]().union(*(piece.possible for piece in data), *drawn) | need.changes
        possible |= frozenset().union(*(piece.changes for piece in pieces if piece.kind == "definition"))
        changed = {name for name in possible if name not in by_definition and not self._is_replayed(name, bound)}
        inner = frozenset[str]().union(*(p.free_writes for p in pieces if p.kind != "data" and data)) & own.keys()
        touched = frozenset[str]().union(possible, inner, *(piece.changes for piece in data)) - bound
        definitions = {name for name in touched if self._keeps_state(own.get(name) or self._definitions_of(name))}
        changed |= {state_of(name) for name in definitions}
        return (
            frozenset(
                name for name in (names - definitions) | changed if is_travelling(name, cell)
            ) - analysis.deletes - STATES | self._random_writes(data, pieces, need, own) | from_options
        )  # fmt: skip

    def _learnt_writes(self, cell: Cell, analysis: Analysis, writes: frozenset[str]) -> frozenset[str]:
        """Return the names that the cell was seen to change though its text does not say so."""
        if cell.options.outputs is not None:
            return frozenset()
        names = self.changed.get(step_name(cell), frozenset())
        return frozenset(
            name for name in names - writes
            if name in STATES or (is_travelling(name, cell) and name not in analysis.deletes)
        )  # fmt: skip

    def _random_writes(
        self, data: list[Piece], pieces: tuple[Piece, ...], need: Gathered, own: Mapping[str, list[int]]
    ) -> frozenset[str]:
        """Return the random states that a cell seeds, or draws from after somebody has seeded them."""
        called = any(piece.reads & own.keys() for piece in data)
        inner = [piece for piece in pieces if piece.kind != "data"] if called else []
        seeds = frozenset[str]().union(*(p.random.seeds for p in data), *(p.random.late_seeds for p in inner))
        draws = frozenset[str]().union(*(p.random.draws for p in data), *(p.random.late_draws for p in inner))
        seeds |= (need.changes if data else frozenset[str]()) & STATES
        draws |= (need.draws if data else frozenset[str]()) & STATES
        return seeds | (draws & self.writers.keys())

    def _keeps_state(self, orders: Iterable[int]) -> bool:
        """Return whether definitions make a class or function: what is set on it is carried beside its definition."""
        return any(keeps_state(self.definitions[order]) for order in orders)

    def _order(self, step: Step, pieces: tuple[Piece, ...]) -> Waits:
        """Return the steps above that have to be over because of the files that both touch."""
        data = [piece.files for piece in pieces if piece.kind == "data"]
        replayed = [self.definitions[order] for order in step.definitions]
        imports = {origin.partition(".")[0] for d in replayed for origin in d.origins.values()}
        imports |= {origin.partition(".")[0] for piece in pieces for _, origin in piece.origins}
        sources = (*(each.source for each in replayed), step.source)
        imports |= {module.partition(".")[0] for source in sources for module in star_modules(source)}
        used = [self.files[d.order] for d in replayed]
        own = [piece.files for piece in _called(pieces)]
        given = [self.abilities.get(binding.name, NO_FILES) for binding in step.bindings]
        files = Files.all([*data, *own, *used, *given]) if data else Files.all(used)
        # What a run has seen of the code counts instead of what its text leaves open. Where the text writes and nothing
        # was seen, a library writes in compiled code: then both count.
        seen = self.seen.get(step.name)
        if seen is not None:
            files = seen | (files.written_out if seen.may_write or not files.may_write else files)
        return self.touches.add(step.name, files, imports)

    def _pass_abilities(self, pieces: tuple[Piece, ...]) -> None:
        """Take down what the methods of values may do to files: what those of their classes and of their parts do."""
        for piece in pieces:
            names = piece.reads | piece.free if piece.kind == "definition" else piece.reads
            files = Files.all(self.abilities[name] for name in names if name in self.abilities)
            files |= Files.all(self.bodies[name] for name in piece.free if name in self.bodies)
            if piece.statement.kind in ("class", "def"):
                files |= piece.files
                able = self.abilities if piece.statement.kind == "class" else self.bodies
                able.update(dict.fromkeys(piece.writes, files))
            elif piece.kind == "data":
                for name in piece.writes:
                    before = self.abilities.pop(name, NO_FILES) if name in piece.changes else NO_FILES
                    self.abilities[name] = files | before

    def _is_replayed(self, name: str, bound: frozenset[str]) -> bool:
        """Return whether a changed name is no data here: an import, a class, a constant, or nothing that is known."""
        if name in bound:
            return False
        writers = self.writers.get(name)
        return not writers or bool(writers[-1].definitions)

    def _add_list(self, cell: Cell) -> None:
        """Add a foreach cell's expression as a step of its own, which is evaluated before there are any items."""
        if cell.options.foreach is None:
            return
        expression = cell.options.foreach.expr
        analysis = analyse(expression)
        need = self._gather({**dict.fromkeys(analysis.reads, True), **self._shadowed(analysis)})
        name = step_name(cell)
        self._note_missing(name, cell, need, frozenset())
        replayed = closed(self.definitions, need.definitions | set(self.setup))
        bindings = bindings_of(need)
        self.lists[name] = Step(
            name=name, kind="step", cell=f"{cell.id}#list", position=cell.position, order=len(self.candidates),
            options=StepOptions(), source=expression, code=hash_of("list of items", normalise(expression)),
            reads=tuple(sorted(need.bindings)), writes=(), definitions=tuple(sorted(replayed)), bindings=bindings,
            needs=self._producers(bindings, replayed, name), label=f"{name}: the list of its items",
        )  # fmt: skip

    def _shadowed(self, analysis: Analysis) -> dict[str, bool]:
        return {name: False for name in analysis.builtin_reads if name in self.writers}

    def _step(
        self, cell: Cell, analysis: Analysis, need: Gathered, writes: frozenset[str], own: Mapping[str, list[int]]
    ) -> Step:
        name = step_name(cell)
        bindings = bindings_of(need)
        mine = tuple(sorted({order for orders in own.values() for order in orders}))
        mine_all = tuple(d.order for d in takewhile(lambda each: each.cell == cell.id, reversed(self.definitions)))
        replayed = (need.definitions | set(self.setup)) - set(mine_all)
        every = closed(self.definitions, replayed) - set(mine_all)
        return Step(
            name=name,
            kind="step" if cell.kind == "step" else "params" if cell.kind == "params" else "cell",
            cell=cell.id,
            position=cell.position,
            order=len(self.candidates),
            options=cell.options,
            source=cell.body,
            code=self._code(cell, analysis),
            reads=tuple(sorted(need.bindings)),
            writes=tuple(sorted(writes)),
            conditional=tuple(sorted(analysis.conditional & writes)),
            deletes=tuple(sorted(analysis.deletes)),
            private=tuple(sorted(analysis.private)),
            definitions=tuple(sorted(every)),
            own_definitions=mine,
            escapes=tuple(sorted((analysis.may_mutate & need.bindings.keys()) | self.reached[name].escapes)),
            bindings=bindings,
            needs=tuple(
                sorted(
                    {*self._producers(bindings, every, name), *(self.lists[name].needs if name in self.lists else ())}
                )
            ),
            targets=target_names(cell.options.foreach.target) if cell.options.foreach is not None else (),
            label=name if cell.kind == "step" else label_of(cell, writes),
            follows=cell.follows,
        )

    def _code(self, cell: Cell, analysis: Analysis) -> str:
        """Return the hash of what a cell does; a second cell with the same text counts apart: it acts once more."""
        code = hash_of(normal_text(cell, analysis), *behaviour_of(cell.options))
        self.alike[code] += 1
        return code if self.alike[code] == 1 else hash_of(code, str(self.alike[code]))

    def _makers(self, name: str) -> frozenset[str]:
        """Return the steps that, by their text, may have given a name the value that it has here."""
        return self._by_text(name, sources_of(self.writers.get(name, ()), None)[0])

    def _by_text(self, name: str, sources: Iterable[Source]) -> frozenset[str]:
        steps = (source.step for source in sources if source.step is not None)
        return frozenset().union(*(self.learnt.get((step, name), {step}) for step in steps))

    def _producers(self, bindings: Iterable[Binding], definitions: Iterable[int], itself: str) -> tuple[str, ...]:
        binds = [*bindings, *(bind for order in definitions for bind in self.definitions[order].binds)]
        steps = {source.step for bind in binds for source in bind.sources if source.step is not None}
        return tuple(sorted(steps - {itself}))

    def _record_writes(
        self, cell: Cell, analysis: Analysis, writes: frozenset[str], own: Mapping[str, list[int]], step: str
    ) -> None:
        options = cell.options
        always = {options.catch, *(target_names(options.foreach.target) if options.foreach is not None else ())}
        for name in writes:
            sure = name not in analysis.conditional and options.condition is None
            sure = sure and (options.catch is None or name in always)
            self.writers.setdefault(name, []).append(Writer(position=cell.position, step=step, sure=sure))
            self.origins.pop(name, None)
        for name, orders in own.items():
            if name not in writes:
                self.writers.setdefault(name, []).append(Writer(position=cell.position, definitions=tuple(orders)))
        for name, attached in self.attached.items():
            if name not in writes:
                every = tuple(sorted({*attached}))
                self.writers.setdefault(name, []).append(Writer(position=cell.position, definitions=every))
        self.attached.clear()
        for name in analysis.deletes - analysis.writes:
            self.writers.setdefault(name, []).append(Writer(position=cell.position))

    # ------------------------------------------------------------ looking names up

    def _gather(
        self,
        names: Mapping[str, bool],
        inner: Mapping[str, tuple[Source, ...]] | None = None,
        own: Mapping[str, list[int]] | None = None,
    ) -> Gathered:
        return gather(self.writers, self.definitions, names, inner=inner, own=own)

    def _note_missing(self, step: str, cell: Cell, need: Gathered, writes: frozenset[str]) -> None:
        for name, sure in need.missing.items():
            if name.startswith("<") or name in BUILTINS:
                continue
            self.missing.append(findings.MissingName(name, step, cell, sure and not self.vague, writes, self.starred))

    # ------------------------------------------------------------ the whole

    def finish(self) -> Flow:
        self._bind_turns()
        steps, crossings = place_steps(self._needed(), self.lists, self.definitions, self._resolve_step)
        self.findings.extend(crossings)
        names = {step.name for step in steps}
        self.findings.extend(findings.unknown_steps(steps, self._resolve_step))
        for missing in self.missing:
            if not missing.sure and missing.name in missing.writes:
                continue  # bound by the cell itself, on some path
            if missing.starred and missing.name not in self.writers:
                continue  # the star import may bring it, and its cell says that nobody knows
            if missing.step in names or missing.step.startswith("set-up"):
                self.findings.append(findings.missing_name(missing, self.writers, self.notebook.cells))
        parameters, problems = findings.parameters_of(self.notebook.cells, self.writers)
        self.findings.extend(problems)
        known = {parameter.name: parameter for parameter in parameters}
        for step in steps:
            unknown = late_options.unknown_names(step, known)
            self.findings.extend(findings.not_a_parameter(step, option, name, known) for option, name in unknown)
        branches = {step.name for step in steps if not step.scope}
        steps = tuple(
            msgspec.structs.replace(step, order=order, needs=self._needs(step, names, branches))
            for order, step in enumerate(steps)
        )
        return Flow(
            name=self.notebook.name,
            notebook=self.notebook,
            steps=steps,
            definitions=tuple(self.definitions),
            parameters=parameters,
            secrets=tuple(sorted({name for step in steps for name in step.options.secret})),
            edges=edges_of(steps, self.lists, self.definitions),
            findings=findings.at_headers(
                (
                    *self.findings,
                    *findings.of_steps(steps, self.definitions),
                    *findings.made_anew(steps, self.definitions, self.notebook.modules),
                    *findings.set_here(self.set_here, steps, self.definitions),
                    *waiting(steps, self.definitions, all_cells=self.all_cells),
                    *(findings.left_out(*each) for each in left_out(self.notebook.cells, steps, self.reached)),
                ),
                self.notebook.cells,
            ),
            lists={
                step.name: msgspec.structs.replace(self.lists[step.name], scope=step.scope[:-1], order=step.order)
                for step in steps
                if step.name in self.lists
            },
            all_cells=self.all_cells,
            writers={name: tuple(writers) for name, writers in self.writers.items()},
        )

    def _bind_turns(self) -> None:
        """Bind names that only the step itself, or its fan-out, may have written before: in an earlier turn or item."""
        own: dict[str, dict[str, tuple[Source, ...]]] = {}
        for missing in self.missing:
            if not missing.sure and missing.name in self.writers:
                own.setdefault(missing.step, {})[missing.name] = ()
        for name, replayed in self.replayed.items():
            for constant, orders in replayed.items():
                if any(writer.step is not None for writer in self.writers[constant]):
                    sources = tuple(Source(definition=order) for order in orders)
                    own.setdefault(name, {})[constant] = sources
        for at, step in enumerate(self.candidates):
            earlier = sorted(own.get(step.name, {}).items())
            more = (Binding(name=name, sources=sources, sure=False) for name, sources in earlier)
            self.candidates[at] = msgspec.structs.replace(step, bindings=(*step.bindings, *more))

    def _needed(self) -> tuple[Step, ...]:
        """Return declared steps, parameters, and the plain cells that belong to them, in document order.

        A plain cell belongs to the flow where a step needs what it makes, where it may change what a step below it
        reads, and where it has an effect before the last step.
        """
        by_name = {step.name: step for step in self.candidates}
        needed = self._closed(by_name, (s.name for s in self.candidates if self.all_cells or s.kind != "cell"))
        if len(needed) == len(by_name):
            return tuple(self.candidates)
        joins: dict[str, Joins] = dict.fromkeys(needed, "")
        bodies = self._bodies() if self.lists else ()
        while cells := belonging(self.candidates, self.reached, joins.keys(), bodies):
            joins.update((name, "effect" if act else "possible") for name, act in cells.items())
            for name in self._closed(by_name, joins):
                joins.setdefault(name, "possible")
        for step in reversed(self.candidates):
            for name in step.needs if step.name in joins else ():
                joins.setdefault(name, "possible")
        steps = [
            msgspec.structs.replace(step, joins=joins[step.name]) for step in self.candidates if step.name in joins
        ]
        if len(steps) == len(needed):
            return tuple(steps)
        affects = affected(steps, self.reached, bodies)
        return tuple(msgspec.structs.replace(step, affects=affects.get(step.name, ())) for step in steps)

    def _closed(self, steps: Mapping[str, Step], names: Iterable[str]) -> set[str]:
        """Return steps with all that they need, as far as their text tells."""
        queue, needed = list(names), set[str]()
        while queue:
            name = queue.pop()
            if name in needed or name not in steps:
                continue
            needed.add(name)
            queue.extend(self._needs_by_text(steps[name]))
            queue.extend(self._resolve_step(word) for word in steps[name].options.after)
        return needed

    def _needs_by_text(self, step: Step) -> Iterator[str]:
        for each in (step, *(self.lists[name] for name in (step.name,) if name in self.lists)):
            replayed = (bind for order in each.definitions for bind in self.definitions[order].binds)
            for bind in (*each.bindings, *replayed):
                yield from self._by_text(bind.name, bind.sources)

    def _bodies(self) -> tuple[frozenset[str], ...]:
        """Return the bodies of all fan-outs, as they were if every plain cell took part."""
        placed, _ = place_steps(self.candidates, self.lists, self.definitions, self._resolve_step)
        return tuple(frozenset(step.name for step in placed if head in step.scope) for head in self.lists)

    def _resolve_step(self, word: str) -> str:
        """Return the name of a step as people write it: its name, `cell:<id>`, or `cell 3`."""
        if word.startswith(("cell ", "cell:")):
            tail = word[5:].split(":", maxsplit=1)[0].strip()
            for step in self.candidates:
                if step.name == f"cell:{tail}" or str(step.position) == tail:
                    return step.name
        return word

    def _needs(self, step: Step, names: set[str], branches: set[str]) -> tuple[str, ...]:
        """Return the steps that have to be over before a step, among them the branches that it joins."""
        after = {self._resolve_step(word) for word in step.options.after}
        joined = {self._resolve_step(word) for word in step.options.join} & branches
        after |= {cells_of(self.candidates, name)[-1] for name in joined}
        return tuple(sorted((set(step.needs) | after) & names))
