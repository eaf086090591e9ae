"""A notebook understood: cells, options, steps, definitions, edges, findings."""

from __future__ import annotations

from typing import Literal

from nbflow.model_words import CellKind, Frozen, Joins, StepKind

# ---------------------------------------------------------------- the notebook


class Foreach(Frozen, frozen=True, kw_only=True):
    """`--foreach TARGET in EXPR`."""

    target: str
    expr: str


class StepOptions(Frozen, frozen=True, kw_only=True):
    """The options of a `%%step` line; times in seconds, memory in bytes."""

    foreach: Foreach | None = None
    join: tuple[str, ...] = ()
    condition: str | None = None
    until: str | None = None
    max: int = 1000
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    cpu: float | None = None
    gpu: float = 0
    memory: int | None = None
    nodes: int = 1
    on: str | None = None
    retry: int = 0
    backoff: float = 0.0
    retry_on: tuple[str, ...] = ()
    timeout: float | None = None
    catch: str | None = None
    once: bool = False
    workers: int | None = None
    serial: bool = False
    no_cache: bool = False
    expires: float | None = None
    pure: bool = False
    card: bool = False
    env: str | None = None
    pip: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    here: bool = False


class Finding(Frozen, frozen=True, kw_only=True):
    """Something to tell the user about a cell: data, never raised by the file that finds it.

    `level` "error" keeps the flow from running; "warning" and "note" are shown.
    """

    code: str
    message: str
    level: Literal["error", "warning", "note"] = "warning"
    step: str | None = None
    cell: str | None = None
    line: int | None = None
    name: str | None = None
    fix: str | None = None


class Cell(Frozen, frozen=True, kw_only=True):
    """One code cell as the document holds it; `position` counts code cells from 1."""

    id: str
    position: int
    source: str
    kind: CellKind = "plain"
    name: str | None = None  # of a step
    options: StepOptions = StepOptions()
    body: str = ""  # what IPython runs: the header line replaced by an empty one, so that line numbers stay
    markdown: str = ""  # the text cells right above


class Notebook(Frozen, frozen=True, kw_only=True):
    """A document's code cells in order; `folder` is where its relative paths start."""

    name: str
    folder: str
    path: str | None
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...] = ()
    document: str = ""  # the notebook's own JSON, kept with each run
    grows: bool = False  # only cells that were executed are known: others may follow


# ---------------------------------------------------------------- the flow


class Parameter(Frozen, frozen=True, kw_only=True):
    """One assignment of a `%%params` cell; `default` is its source text, None when it has none."""

    name: str
    annotation: str | None
    default: str | None
    line: int
    cell: str
    help: str = ""


class Source(Frozen, frozen=True, kw_only=True):
    """One place that a name may come from: a step's artifact, or a definition (its `order`)."""

    step: str | None = None
    definition: int | None = None
    sure: bool = True  # False: a conditional write; the next source is asked when it has none


class Binding(Frozen, frozen=True, kw_only=True):
    """A name that must be bound, and where it may come from, nearest first; empty: nowhere above."""

    name: str
    sources: tuple[Source, ...]
    sure: bool = True  # surely read: a missing value is an error before the step runs


class Definition(Frozen, frozen=True, kw_only=True):
    """A whole top-level statement that is replayed where it is needed: a definition or set-up.

    `id` is `name@hash` of the normalised source: the same text is the same definition wherever it stands.
    """

    id: str
    kind: Literal["definition", "setup"]
    cell: str
    position: int
    order: int  # over the whole document: (cell, statement) flattened
    line: int
    source: str
    names: tuple[str, ...]  # bound by it
    reads: tuple[str, ...] = ()  # while defining: resolved at the definition's own place
    free: tuple[str, ...] = ()  # in bodies: resolved at the place of the step that uses it
    hints: tuple[str, ...] = ()  # names in annotations that are kept as text: of use only where definitions bear them
    free_writes: tuple[str, ...] = ()  # names that bodies write or change
    origins: dict[str, str] = {}  # for imports: bound name -> what is imported
    requires: tuple[int, ...] = ()  # `order`s of the definitions that must be replayed before it
    binds: tuple[Binding, ...] = ()  # data that it reads while defining, resolved at its own place


class Step(Frozen, frozen=True, kw_only=True):
    """One cell of the flow as a node: what it reads and writes, and where its reads come from."""

    name: str
    kind: StepKind
    cell: str
    position: int
    order: int
    options: StepOptions
    source: str  # as IPython runs it
    code: str  # normalised, for the key
    reads: tuple[str, ...]
    writes: tuple[str, ...]  # data names, possible writes included
    conditional: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    definitions: tuple[int, ...] = ()  # `order`s of what is replayed before it: set-up, and definitions that it names
    own_definitions: tuple[int, ...] = ()  # made by this very cell
    escapes: tuple[str, ...] = ()  # names handed to calls that might change them in place
    bindings: tuple[Binding, ...] = ()
    needs: tuple[str, ...] = ()  # steps that must have settled before: producers and --after
    ordered: tuple[str, ...] = ()  # steps above that touch the same files: over before it starts
    scope: tuple[str, ...] = ()  # the foreach steps around it, outermost first; its own name last if it is one
    targets: tuple[str, ...] = ()  # names that its --foreach binds
    label: str = ""  # as people read it: the step's name, or `cell 3: df`
    joins: Joins = ""
    affects: tuple[str, ...] = ()  # steps that read what this plain cell may change, where it joins for that


class Writer(Frozen, frozen=True, kw_only=True):
    """One cell that gives a name its value: as a step's artifact, by definitions, or by deleting it."""

    position: int
    step: str | None = None
    definitions: tuple[int, ...] = ()
    sure: bool = True


class Edge(Frozen, frozen=True, kw_only=True):
    """`to` reads `names` from `frm`, or is ordered after it by `--after`."""

    frm: str
    to: str
    names: tuple[str, ...] = ()
    why: str = "reads"


class Flow(Frozen, frozen=True, kw_only=True):
    """A notebook understood: every step in document order, definitions, edges and findings."""

    name: str
    notebook: Notebook
    steps: tuple[Step, ...]
    definitions: tuple[Definition, ...]
    parameters: tuple[Parameter, ...] = ()
    edges: tuple[Edge, ...] = ()
    findings: tuple[Finding, ...] = ()
    lists: dict[str, Step] = {}  # of a foreach step: what its list is evaluated from, as a step of its own
    all_cells: bool = False  # every code cell that computes was taken as a step
    writers: dict[str, tuple[Writer, ...]] = {}  # every name's writers in document order, scratch cells included
    beyond: tuple[Step, ...] = ()  # of a part of a notebook's flow: the other steps, which do not run

    def step(self, name: str) -> Step:
        """The step of that name; KeyError when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)
