"""The types that everything else is made of: frozen, comparable, JSON in and out through msgspec.

A change of a value is a new value. Types that are written to the store or sent between processes say so;
their field names are the file format.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import msgspec

__all__ = [
    "FORMAT",
    "MISSING",
    "NO_TASKS",
    "SETTLED",
    "WORST_FIRST",
    "Asked",
    "Binding",
    "Buffer",
    "Cell",
    "CellKind",
    "Change",
    "Definition",
    "DefinitionRef",
    "Edge",
    "Emptied",
    "Ended",
    "Finding",
    "FindingFound",
    "Flow",
    "Foreach",
    "Frozen",
    "Group",
    "Index",
    "JoinItem",
    "Joins",
    "KeyParts",
    "Manifest",
    "Notebook",
    "Observations",
    "Output",
    "Parameter",
    "Plan",
    "PlanTask",
    "PlannedPlace",
    "Question",
    "Reason",
    "Record",
    "Ref",
    "Replay",
    "RunEnded",
    "RunEvent",
    "RunStarted",
    "RunStatus",
    "Segment",
    "Snapshot",
    "Source",
    "Started",
    "Step",
    "StepKind",
    "StepOptions",
    "Tagged",
    "TaskChanged",
    "TaskEvent",
    "TaskFailure",
    "TaskId",
    "TaskOutput",
    "TaskResult",
    "TaskSpec",
    "TaskState",
    "TaskView",
    "Writer",
]  # fmt: skip


FORMAT = 2
"""Version of the datastore's layout and of the task key; a newer one is refused, an older one is not reused."""

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING"})()
"""Stands for a name without a value; None is a value."""

CellKind = Literal["step", "params", "setup", "plain", "control", "empty"]
StepKind = Literal["step", "cell", "params"]
Joins = Literal["", "possible", "effect"]
"""Why a plain cell is part of a flow: a step needs what it makes; it may change what one reads; it has an effect."""

TaskState = Literal["pending", "queued", "running", "done", "reused", "failed", "caught", "skipped", "cancelled"]
RunStatus = Literal["running", "done", "failed", "cancelled", "lost"]
SETTLED: frozenset[str] = frozenset({"done", "reused", "failed", "caught", "skipped", "cancelled"})
WORST_FIRST: tuple[TaskState, ...] = (
    "failed", "cancelled", "running", "queued", "pending", "caught", "skipped", "done", "reused",
)  # fmt: skip

NO_TASKS: dict[RunStatus, TaskState] = {
    "running": "pending", "done": "done", "failed": "cancelled", "cancelled": "cancelled", "lost": "cancelled",
}  # fmt: skip
"""How a step without tasks stands in a run: a fan-out, over an empty list, or whose list was never known."""

Index = tuple[int, ...]
"""The place of a task in its step's fan-outs, outermost first; () outside a foreach."""

Reason = tuple[str, str]
"""(code, what): why a task runs or is reused."""


class Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every type here: immutable, keyword-only, defaults left out of JSON."""


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
    at_most: bool = False  # its amounts are limits: where there is less, it runs with that
    late: tuple[tuple[str, str], ...] = ()  # options whose texts take parameters' values: (`timeout`, `{limit}`)


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
    file: str = ""  # that a %%config cell takes its values from
    injected: bool = False  # its parameters have been given by another tool: they count, not those of a cell above
    spans: bool = False  # its step has other cells, too
    follows: str = ""  # the node of the cell above it that belongs to the same step; "" of a step's first cell
    gathers: bool = False  # it belongs to the step of its name wherever above that stands, as Kale means it


class StarImport(Frozen, frozen=True):
    """What `from module import *` brings: names, each with what is imported under it (`sqrt`: `math.sqrt`)."""

    module: str
    pairs: tuple[tuple[str, str], ...]


class OwnModule(Frozen, frozen=True):
    """What the text of a module of the notebook's own says of what it holds; names without their module's."""

    module: str
    acts: tuple[str, ...] = ()  # functions that change what the module keeps, or give something else each time
    defined: tuple[str, ...] = ()  # functions, classes, and what it imports; all else that it holds is data
    computed: tuple[str, ...] = ()  # values that are others each time that it is imported


class Notebook(Frozen, frozen=True, kw_only=True):
    """A document's code cells in order; `folder` is where its relative paths start."""

    name: str
    folder: str
    path: str | None
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...] = ()
    document: str = ""  # the notebook's own JSON, kept with each run
    grows: bool = False  # only cells that were executed are known: others may follow
    stars: tuple[StarImport, ...] = ()  # its star imports, as far as their modules could be asked
    modules: tuple[OwnModule, ...] = ()  # those of its own that it imports, as far as their texts are known

    @property
    def positions(self) -> dict[str, int]:
        """The positions of its cells by their ids."""
        return {cell.id: cell.position for cell in self.cells}


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
    changes: tuple[str, ...] = ()  # data that it changes in place while defining

    @property
    def label(self) -> str:
        """What people call it: the names that it binds, `math.*` for all of a module's."""
        return self.id.partition("@")[0].replace(",", ", ")


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
    file_sources: tuple[str, ...] = ()  # those of them that may write what it reads: it does not run where they fail
    scope: tuple[str, ...] = ()  # the foreach steps around it, outermost first; its own name last if it is one
    targets: tuple[str, ...] = ()  # names that its --foreach binds
    label: str = ""  # as people read it: the step's name, or `cell 3: df`
    joins: Joins = ""
    affects: tuple[str, ...] = ()  # steps that read what this plain cell may change, where it joins for that
    together: tuple[str, ...] = ()  # the steps that one process runs with it, itself too, in document order
    follows: str = ""  # the node of the cell above it that belongs to the same step; "" of a step's first cell


class Writer(Frozen, frozen=True, kw_only=True):
    """One cell that gives a name its value: as a step's artifact, by definitions, or by deleting it."""

    position: int
    step: str | None = None
    definitions: tuple[int, ...] = ()
    sure: bool = True


class Edge(Frozen, frozen=True, kw_only=True):
    """`to` reads `names` from `frm`, or is ordered after it: `why` is "reads", "after", "join" or "files"."""

    frm: str
    to: str
    names: tuple[str, ...] = ()
    why: str = "reads"


class Flow(Frozen, frozen=True, kw_only=True, dict=True):
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
    secrets: tuple[str, ...] = ()  # that any step of the notebook declares

    def step(self, name: str) -> Step:
        """Return the step of that name; KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Step]:
        return {step.name: step for step in reversed(self.steps)}  # of two of a name, which is a finding, the first


# ---------------------------------------------------------------- artifacts (written to the store)


class Segment(Frozen, frozen=True, kw_only=True):
    """Immutable bytes in the store: `hash` is `algo:hex`; an empty hash is that many zero bytes."""

    hash: str
    length: int
    codec: str = ""


class Buffer(Frozen, frozen=True, kw_only=True):
    """A run of bytes: small ones inline, larger ones as segments."""

    length: int
    inline: bytes | None = None
    segments: tuple[Segment, ...] = ()


class DefinitionRef(Frozen, frozen=True, kw_only=True):
    """A definition that a stored value refers to instead of holding its code."""

    id: str
    cell: str = ""


class Group(Frozen, frozen=True, kw_only=True):
    """Outputs of one task that share objects: one serialized stream, loaded together.

    `id` is the content id: a hash over the stream's and the buffers' bytes.
    """

    id: str
    names: tuple[str, ...]
    serializer: str  # "pickle", or a plug-in's name
    stream: Buffer
    buffers: tuple[Buffer, ...] = ()
    meta: dict[str, Any] = {}
    definitions: tuple[DefinitionRef, ...] = ()
    free: tuple[str, ...] = ()  # global names that functions stored by value read when called


class Manifest(Frozen, frozen=True, kw_only=True):
    """One name that a task left, seen without loading it; `group` is -1 for a value that was not stored."""

    name: str
    type: str
    group: int
    content_id: str = ""
    nbytes: int = 0
    shape: tuple[int, ...] | None = None
    preview: str = ""
    error: str = ""  # why it was not stored


Question = Literal["latest_run", "latest_successful_run", "runs", "run", "flow", "tags", "status", "current"]


class Asked(Frozen, frozen=True, kw_only=True):
    """What a step asked nbflow itself, and the answer that it got."""

    what: Question
    of: str  # a flow, FLOW/ID, or the attribute of `current`
    answer: str
    words: tuple[str, ...] = ()  # tags and a status
    store: str = ""  # another one than its own


class Observations(Frozen, frozen=True, kw_only=True):
    """What an execution was seen to depend on; file paths below the notebook's folder are relative to it."""

    files: dict[str, str] = {}  # path -> content hash, "" for what was looked for and absent, "link to …" for a link
    distributions: dict[str, str] = {}
    environment: dict[str, str] = {}  # variable -> hash of its value, "" when unset; "*" where all were read
    looks: dict[str, str] = {}  # "time PATH", "entries PATH", "access4 PATH" -> what was said
    imports: dict[str, str] = {}  # module looked for -> where it came from: a file, "installed", "" for nowhere
    written: dict[str, str] = {}  # files written -> content hash, after "+" when only added to; "" when removed
    modules: tuple[str, ...] = ()  # top-level installed modules that were imported, for preloading
    volatile: tuple[str, ...] = ()  # "socket", "subprocess", "database", "clock", "random"
    asked: tuple[Asked, ...] = ()
    kernel: tuple[str, ...] = ()  # what it read as only a kernel had it: changed modules, sets' order


class KeyParts(Frozen, frozen=True, kw_only=True):
    """Everything that a task's key is made of, kept so that `why` can name what changed."""

    code: str
    definitions: dict[str, str] = {}  # "cell <position>: name" -> hash
    setup: tuple[str, ...] = ()
    inputs: dict[str, str] = {}  # name -> content id
    parameters: dict[str, str] = {}  # name -> repr of the value
    item: str = ""
    environment: str = ""
    options: dict[str, str] = {}
    files: dict[str, str] = {}


class Record(Frozen, frozen=True, kw_only=True):
    """What one execution produced and depended on: `results/<ab>/<key>/<execution>.json`."""

    format: int
    key: str
    execution: str
    flow: str
    run: str
    step: str
    index: Index
    turn: int | None
    attempt: int
    created_at: float  # by the clock of its machine
    elapsed: float
    source: str
    parts: KeyParts
    groups: tuple[Group, ...] = ()
    artifacts: dict[str, Manifest] = {}
    unbound: tuple[str, ...] = ()  # names that it might have written and did not
    outputs: tuple[dict[str, Any], ...] = ()  # nbformat outputs, capped
    truncated: bool = False
    skipped: str | None = None  # its --if was false: the expression
    until: bool | None = None  # what its --until came to
    caught: bool = False  # it failed, and --catch kept what it had left
    observations: Observations = Observations()
    changed: tuple[str, ...] = ()  # inputs that it changed in place, or keeps together with what it left
    shares: tuple[str, ...] = ()  # inputs that share objects with what it left
    same: tuple[str, ...] = ()  # names that it left holding the very objects that it was given under them
    costs: dict[str, float] = {}  # seconds that went to its inputs, to checks and to storing
    findings: tuple[Finding, ...] = ()  # what it brought to light: said again where it is reused
    stamp: float = 0.0  # its place in the order of records where `created_at` would put it before what its run had seen
    together: tuple[str, ...] = ()  # the steps that ran in its process with it

    @property
    def order(self) -> tuple[float, str]:
        """Return what sorts the records of one key: the order in which they were made, whatever the clocks said."""
        return (self.stamp or self.created_at, self.run)


# ---------------------------------------------------------------- tasks (sent to workers)


class Ref(Frozen, frozen=True, kw_only=True):
    """An input of a task: `name` in group number `group` of the TaskSpec."""

    name: str
    group: int


class Replay(Frozen, frozen=True, kw_only=True):
    """One definition or set-up statement to run before the step, with names bound just for it."""

    id: str
    kind: Literal["definition", "setup"]
    cell: str
    position: int
    line: int
    source: str
    names: tuple[str, ...]
    binds: dict[str, Ref] = {}
    above: tuple[str, ...] = ()  # of a star import that nobody knows: the inputs that cells above it give


class FileContent(Frozen, frozen=True, kw_only=True):
    """A file and its bytes, on their way to another machine; `path` is relative, with `/`."""

    path: str
    segments: tuple[Segment, ...]
    modified: int = 0  # when, in nanoseconds since 1970; 0: it does not matter


class StepEnvironment(Frozen, frozen=True, kw_only=True):
    """Packages that a step asks for, and all that it takes to make them available in another place.

    `tool` reads them: pip (or uv in its place) by `arguments`, uv by a lock file, conda by an environment.yml.
    """

    id: str  # what results depend on: the requirements, and the content of the files that they name
    label: str  # as people write it
    tool: Literal["pip", "uv", "conda"] = "pip"
    arguments: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()  # a Python that has these need not be made; none: it has to be
    files: tuple[FileContent, ...] = ()


class JoinItem(Frozen, frozen=True, kw_only=True):
    """One item of a fan-out, or one branch, as a join sees it: where its tasks' records lie, in order."""

    index: int
    item: Ref | None = None  # None for a branch
    name: str = ""  # of a branch's step
    places: tuple[tuple[str, str], ...] = ()  # (key, execution)
    reads: dict[str, Ref] = {}  # names that its tasks took from outside the body


class Parallel(Frozen, frozen=True, kw_only=True):
    """The place of a process among those that run a step together, one on each of its `--nodes`."""

    rank: int = 0
    world_size: int = 1
    master_address: str = "127.0.0.1"  # of the first one's machine, as the others reach it
    master_port: int = 0  # free there when the step began; 0, any, where it runs alone

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which torchrun tells it, and `torch.distributed` reads it."""
        return {
            "RANK": str(self.rank), "WORLD_SIZE": str(self.world_size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": self.master_address, "MASTER_PORT": str(self.master_port),
        }  # fmt: skip


class TaskSpec(Frozen, frozen=True, kw_only=True):
    """All that a worker needs to run one task: source text and references, never code of ours."""

    flow: str
    run: str
    step: str
    execution: str
    key: str
    parts: KeyParts
    source: str
    code_name: str  # the file name of the cell's code in tracebacks
    cell: str
    position: int
    store: str
    folder: str
    index: Index = ()
    turn: int | None = None
    attempt: int = 1
    replay: tuple[Replay, ...] = ()
    places: dict[str, int] = {}  # steps that set something in the process -> their positions
    own: tuple[Replay, ...] = ()  # definitions that this cell itself makes: stored by reference
    groups: tuple[Group, ...] = ()
    inputs: dict[str, Ref] = {}
    along: dict[str, Ref] = {}  # names that share objects with inputs: not seen by the cell, changed with them
    tracked: tuple[str, ...] = ()  # names, or all (`*`), that a step below may change: stored with what shares them
    values: dict[str, Any] = {}  # plain JSON values bound as they are (parameters)
    writes: tuple[str, ...] = ()
    outputs: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()
    parameters: bytes = b""  # the run's, pickled
    tags: tuple[str, ...] = ()
    origin: str | None = None
    threads: int = 0  # of numeric libraries; 0: all cores
    preload: tuple[str, ...] = ()  # installed modules that the flow imports
    options: StepOptions = StepOptions()
    secrets: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()  # secrets that other steps of the notebook declare, and it does not
    evaluate: str | None = None  # only this expression, whose items are stored as 0, 1, …: the list of a --foreach
    targets: tuple[str, ...] = ()
    joined: tuple[JoinItem, ...] | None = None  # of a --join
    constants: tuple[str, ...] = ()  # names that the joined body read, and that are replayed
    item: Ref | None = None  # the innermost foreach's item, for `current.item`
    devices: tuple[str, ...] = ()  # the ids of the GPUs that it may use
    parallel: Parallel = Parallel()
    items: int = 0  # of the innermost fan-out that the task is in
    is_flow: bool = True  # False: a cell run by hand
    home: str = ""  # the run's folder in the store
    seen: float = 0.0  # the newest place in the order of records that was known of its key
    then: tuple[TaskSpec, ...] = ()  # tasks that its process runs after it
    live: tuple[str, ...] = ()  # names that it reads as the tasks before it in its process left them
    hidden: tuple[str, ...] = ()  # names of those tasks that have another value at its place
    together: tuple[str, ...] = ()  # the steps that its process runs, its own too
    is_apart: bool = False  # its place does not see the folder
    reads: tuple[str, ...] = ()  # files below the folder that it is known to read there
    files: tuple[FileContent, ...] = ()  # the same with what they hold
    environment: StepEnvironment | None = None  # None: what the worker's own Python has
    gate: str = ""  # the file that it waits for before it does anything outside its process; "" where it need not


class TaskFailure(Frozen, frozen=True, kw_only=True):
    """An error of the user's cell, or a worker's end, as text.

    `kind` is "error", "lost", "timeout", "memory" or "cancelled".
    """

    type: str
    message: str
    traceback: str = ""
    cell: str | None = None
    line: int | None = None
    kind: str = "error"
    fix: str | None = None
    bases: tuple[str, ...] = ()  # names of the exception's base classes, for --retry-on


class TaskResult(Frozen, frozen=True, kw_only=True):
    """The end of an attempt: a record on success, a failure otherwise; outputs are there in both cases."""

    record: Record | None = None
    failure: TaskFailure | None = None
    outputs: tuple[dict[str, Any], ...] = ()
    truncated: bool = False
    elapsed: float = 0.0
    observations: Observations = Observations()
    findings: tuple[Finding, ...] = ()
    unstored: dict[str, str] = {}  # names that other steps need and that could not be stored, with why
    asked: tuple[str, ...] = ()  # names that its code has looked for in vain, whether or not it failed for that
    then: tuple[TaskResult, ...] = ()  # of the tasks that its process ran after it, as far as it came


class Started(Frozen, frozen=True, kw_only=True, tag="started"):
    """The task's process has begun with the cell."""

    pid: int
    at: float
    step: str = ""  # where it is one that the process runs after the task's own


class Output(Frozen, frozen=True, kw_only=True, tag="output"):
    """One nbformat output (a stream's text is a piece, not the whole), or an update of one."""

    output: dict[str, Any]
    at: float = 0.0
    step: str = ""  # as for Started


class Ended(Frozen, frozen=True, kw_only=True, tag="ended"):
    """Always the last event of a handle."""

    result: TaskResult


class HeldUp(Frozen, frozen=True, kw_only=True, tag="held-up"):
    """The task has not begun, and the place where it is to run says why."""

    reason: str


class Noticed(Frozen, frozen=True, kw_only=True, tag="noticed"):
    """Something about the task that its user should hear while it runs."""

    finding: Finding


class Halted(Frozen, frozen=True, kw_only=True, tag="halted"):
    """The task is about to do something outside its process, and waits for its gate to come (`TaskSpec.gate`)."""

    what: str  # a file, or in words
    reads: tuple[str, ...] = ()  # the files that it has read so far
    step: str = ""  # as for Started


TaskEvent = Started | Output | HeldUp | Noticed | Halted | Ended


# ---------------------------------------------------------------- runs (written to the store)


class TaskId(Frozen, frozen=True, kw_only=True, order=True):
    """One task of a run: a step, its place in the fan-outs, and the turn of an --until.

    With a `part` it is something else that a run has to settle: the evaluation of a foreach's list, the end of all
    its items, the end of an --until.
    """

    step: str
    index: Index = ()
    turn: int | None = None
    part: Literal["", "list", "all", "last"] = ""


class RunStarted(Frozen, frozen=True, kw_only=True, tag="run"):
    """The first event of a run."""

    run: str
    flow: str
    at: float
    notebook: str | None = None
    folder: str = ""
    parameters: dict[str, str] = {}  # JSON text where the value is JSON, its repr otherwise
    given: tuple[tuple[str, str], ...] = ()  # (key, execution) of the records that hold the parameters' values
    tags: tuple[str, ...] = ()
    user: str = ""
    host: str = ""
    pid: int = 0
    commit: str = ""
    origin: str | None = None
    session: bool = False  # cells run by hand, not a flow run
    asked: tuple[str, ...] = ()  # of a run of a part: the steps that --step, --only or a cell run by hand named
    steps: tuple[str, ...] = ()  # in document order
    labels: dict[str, str] = {}
    cells: dict[str, int] = {}  # the positions of code cells by their ids
    loops: dict[str, str] = {}  # the loop variable of each step in a fan-out
    folded: tuple[str, ...] = ()  # plain cells that are there only because they may change something: drawn as one
    rows: dict[str, str] = {}  # further cells of steps -> the step in whose row they are
    all_cells: bool = False
    edges: tuple[Edge, ...] = ()
    on: str = "local"
    versions: dict[str, str] = {}
    verified: float = 0.0  # when a verification has shown of this code that it is as plain; 0 where none holds


class TaskChanged(Frozen, frozen=True, kw_only=True, tag="task"):
    """A task is in a new state."""

    task: TaskId
    state: TaskState
    at: float
    attempt: int = 1
    key: str = ""
    execution: str = ""  # of the record: its own, or the one that is reused
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    elapsed: float | None = None
    reused_from: str | None = None  # run id
    item: str = ""  # preview of the foreach item
    pid: int = 0


class FindingFound(Frozen, frozen=True, kw_only=True, tag="finding"):
    """A finding that a run brought to light."""

    finding: Finding
    at: float


class Tagged(Frozen, frozen=True, kw_only=True, tag="tag"):
    """A tag was added or removed after the start."""

    name: str
    present: bool
    at: float


class RunEnded(Frozen, frozen=True, kw_only=True, tag="end"):
    """The last event of a run."""

    status: RunStatus
    at: float
    error: str | None = None


class Emptied(Frozen, frozen=True, kw_only=True, tag="emptied"):
    """A clean-up has taken what was large of its values, and its logs; the rest of it stays."""

    at: float


RunEvent = RunStarted | TaskChanged | FindingFound | Tagged | RunEnded | Emptied


class TaskOutput(Frozen, frozen=True, kw_only=True):
    """A piece of what a task displays, on its way to whoever watches the run; `output` is nbformat's."""

    task: TaskId
    output: dict[str, Any]
    at: float = 0.0
    attempt: int = 1


# ---------------------------------------------------------------- what people are shown


class PlanTask(Frozen, frozen=True, kw_only=True):
    """One row of a plan; index None: a fan-out whose list is not known yet."""

    step: str
    index: Index | None
    action: Literal["run", "reuse"]
    reasons: tuple[Reason, ...] = ()


class Change(Frozen, frozen=True, kw_only=True):
    """One reason why a task runs, with what it was and what it is."""

    code: str
    what: str
    before: str = ""
    after: str = ""


class PlannedPlace(Frozen, frozen=True, kw_only=True):
    """What a run would do in one place: how many tasks would run and be reused there, what is sent, how long it takes.

    `upload` is in bytes, `seconds` go by how long tasks took before; None where no step that runs has run before.
    """

    place: str
    run: int
    reuse: int
    upload: int = 0
    seconds: float | None = None
    sends_more: bool = False  # what some tasks are given is not known yet
    takes_longer: bool = False  # some steps have not run before
    too_small: tuple[str, ...] = ()  # machines on which some of the steps cannot run


class Certificate(Frozen, frozen=True, kw_only=True):
    """What a verification has shown of a flow's code: as a flow it leaves what its notebook leaves, run plainly."""

    flow: str
    at: float
    values: int
    displays: int
    files: int
    cells: dict[str, str]  # what people call a cell -> its code
    python: str
    packages: dict[str, str]  # distribution -> version
    modules: dict[str, str] = {}  # files of modules beside the notebook -> content hash


class Plan(Frozen, frozen=True, kw_only=True):
    """What a run would do, in document order."""

    flow: str
    tasks: tuple[PlanTask, ...]
    findings: tuple[Finding, ...] = ()
    labels: dict[str, str] = {}
    cells: dict[str, int] = {}  # the positions of code cells by their ids
    places: tuple[PlannedPlace, ...] = ()  # where steps are sent to; none where all runs here
    verified: float = 0.0  # as in `RunStarted`


class TaskView(Frozen, frozen=True, kw_only=True):
    """A task as the run table draws it."""

    task: TaskId
    state: TaskState
    attempt: int = 1
    started_at: float | None = None
    elapsed: float | None = None
    reasons: tuple[Reason, ...] = ()
    failure: TaskFailure | None = None
    reused_from: str | None = None
    execution: str = ""
    key: str = ""
    item: str = ""
    pid: int = 0  # of the process that ran it, on whatever machine; 0 where none is known
    cells: tuple[TaskView, ...] = ()  # where it stands for several cells of one step: the tasks of those


class Snapshot(Frozen, frozen=True, kw_only=True):
    """A run at one moment: all that a table, a panel or the page draws from."""

    run: str
    flow: str
    status: RunStatus
    started_at: float
    steps: tuple[str, ...]
    labels: dict[str, str]
    tasks: tuple[TaskView, ...]
    cells: dict[str, int] = {}
    loops: dict[str, str] = {}
    folded: tuple[str, ...] = ()
    rows: dict[str, str] = {}
    edges: tuple[Edge, ...] = ()
    finished_at: float | None = None
    error: str | None = None
    parameters: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    emptied_at: float | None = None  # when a clean-up took its values
    verified: float = 0.0  # as in `RunStarted`
