"""What tasks take and leave: artifacts, records, specs, results. Field names are the file format."""

from __future__ import annotations

from typing import Any, Literal

from nbflow.model_flow import Finding, StepOptions
from nbflow.model_words import Frozen, Index

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


class Artifact(Frozen, frozen=True, kw_only=True):
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

    files: dict[str, str] = {}  # path -> content hash, "" for a file that was looked for and absent
    distributions: dict[str, str] = {}
    environment: dict[str, str] = {}  # variable -> hash of its value, "" when unset
    written: dict[str, str] = {}  # files written -> content hash, after "+" when only added to; "" when removed
    modules: tuple[str, ...] = ()  # top-level installed modules that were imported, for preloading
    volatile: tuple[str, ...] = ()  # "socket", "subprocess", "database", "clock", "random"
    asked: tuple[Asked, ...] = ()
    kernel: tuple[str, ...] = ()  # `module.name`s of the notebook's own modules that were not as their files have them


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
    artifacts: dict[str, Artifact] = {}
    unbound: tuple[str, ...] = ()  # names that it might have written and did not
    outputs: tuple[dict[str, Any], ...] = ()  # nbformat outputs, capped
    truncated: bool = False
    skipped: str | None = None  # its --if was false: the expression
    until: bool | None = None  # what its --until came to
    caught: bool = False  # it failed, and --catch kept what it had left
    observations: Observations = Observations()
    changed: tuple[str, ...] = ()  # inputs that it changed in place, or keeps together with what it left
    shares: tuple[str, ...] = ()  # inputs that share objects with what it left
    costs: dict[str, float] = {}  # seconds that went to its inputs, to checks and to storing
    stamp: float = 0.0  # its place in the order of records where `created_at` would put it before what its run had seen

    @property
    def order(self) -> tuple[float, str]:
        """What sorts the records of one key: the order in which they were made, whatever the machines' clocks said."""
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


class JoinItem(Frozen, frozen=True, kw_only=True):
    """One item of a fan-out as its join sees it: where its tasks' records lie, in the order of the body."""

    index: int
    item: Ref
    places: tuple[tuple[str, str], ...] = ()  # (key, execution)
    reads: dict[str, Ref] = {}  # names that its tasks took from outside the body


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
    evaluate: str | None = None  # only this expression, whose items are stored as 0, 1, …: the list of a --foreach
    targets: tuple[str, ...] = ()
    joined: tuple[JoinItem, ...] | None = None  # of a --join
    constants: tuple[str, ...] = ()  # names that the joined body read, and that are replayed
    item: Ref | None = None  # the innermost foreach's item, for `current.item`
    devices: tuple[str, ...] = ()  # the ids of the GPUs that it may use
    items: int = 0  # of the innermost fan-out that the task is in
    is_flow: bool = True  # False: a cell run by hand
    seen: float = 0.0  # the newest place in the order of records that was known of its key


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


class Started(Frozen, frozen=True, kw_only=True, tag="started"):
    """The task's process has begun with the cell."""

    pid: int
    at: float


class Output(Frozen, frozen=True, kw_only=True, tag="output"):
    """One nbformat output (a stream's text is a piece, not the whole), or an update of one."""

    output: dict[str, Any]
    at: float = 0.0


class Ended(Frozen, frozen=True, kw_only=True, tag="ended"):
    """Always the last event of a handle."""

    result: TaskResult


TaskEvent = Started | Output | Ended
