"""The messages between the kernel and a page: JSON objects, mirrored by `labextension/src/messages.ts`.

Two comms carry them. On `nbflow.events` the kernel speaks: what has changed, and a whole snapshot every two seconds
while a run is under way, so that a page that was loaded in mid-run can draw. On `nbflow.control` a page sends
commands, and the kernel answers each with an acknowledgement from inside its handler, never with anything else: the
channel's replies decide which thread of the kernel hears the page's next command. What a command asks for comes on
`nbflow.events`. A widget carries the same messages in its `snapshot` trait and its custom messages.

Times are unix seconds of the kernel's clock, durations seconds.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

PROTOCOL = 2
"""The value of `nbflow` in every message of the kernel; a page ignores any other."""

EVENTS = "nbflow.events"
"""The comm target on which the kernel speaks."""

CONTROL = "nbflow.control"
"""The comm target on which a page sends commands."""


# ---------------------------------------------------------------- what messages hold


class FailureView(TypedDict):
    """A task's failure; `cell` is an id, `traceback` text without colours."""

    type: str
    message: str
    traceback: str
    cell: str | None
    line: int | None
    fix: str | None


class TaskItem(TypedDict):
    """One item or turn of a step; `worker` says which process runs it, or has, and where."""

    index: list[int]
    turn: int | None
    item: str
    state: str
    attempt: int
    started_at: float | None
    elapsed: float | None
    worker: str
    note: str


class StepView(TypedDict):
    """One step with its state; `count` says how many items are done, `tasks` lists several, those that failed first.

    `mark` is what its cell bears: fresh, stale, new, or a state; empty where nothing is known. `why` says why.
    """

    name: str
    label: str
    kind: str
    cell: str
    position: int
    detail: str
    reads: list[str]
    writes: list[str]
    state: str
    count: str
    settled: int
    total: int
    started_at: float | None
    elapsed: float | None
    note: str
    mark: str
    why: str
    failure: FailureView | None
    tasks: list[TaskItem]


class EdgeView(TypedDict):
    """`to` reads `names` from `frm`, or is ordered after it."""

    frm: str
    to: str
    names: list[str]
    why: str


class PlaceView(TypedDict):
    """A step's box in the graph: its centre and width in pixels, and as much of its label as it has room for."""

    name: str
    text: str
    x: float
    y: float
    width: float


class LineView(TypedDict):
    """An edge's line in the graph: points (x, y) from its source's border to its target's, upright at each of them."""

    frm: str
    to: str
    points: list[list[float]]


class LayoutView(TypedDict):
    """Where the graph's steps and edges stand, in a frame of that many pixels; boxes are `box` high."""

    width: float
    height: float
    box: float
    places: list[PlaceView]
    lines: list[LineView]


class ParameterView(TypedDict):
    """A parameter with its default's source text, and its value in the run that is shown, as text."""

    name: str
    annotation: str
    default: str
    help: str
    value: str


class FindingView(TypedDict):
    """Something that a person should know about a cell."""

    level: str
    code: str
    message: str
    step: str | None
    cell: str | None
    line: int | None
    fix: str | None


class CellView(TypedDict):
    """A plain cell that a header line would make a step; `name` is a step name that is free."""

    id: str
    position: int
    title: str
    names: list[str]
    name: str


class HeaderView(TypedDict):
    """What stands behind a step's name on its `%%step` line: pairs of an option and its text, and a comment.

    Steps whose line says no more than their name have none. Where no line but a tag or a comment makes the cell a step,
    `is_line` is false.
    """

    cell: str
    is_line: bool
    options: list[list[str]]
    comment: str


class RunView(TypedDict):
    """The run that is shown; `by_hand` is the kernel's own run of single cells."""

    run: str
    status: str
    by_hand: bool
    started_at: float
    finished_at: float | None
    error: str | None
    tags: list[str]


class RunRow(TypedDict):
    """A past run in a list."""

    run: str
    status: str
    by_hand: bool
    started_at: float
    elapsed: float | None
    tasks: str
    tags: list[str]
    note: str


class ArtifactView(TypedDict):
    """An artifact as its manifest tells it."""

    name: str
    type: str
    shape: str
    size: str
    preview: str


class CellOutputs(TypedDict):
    """What a cell shows: `whole`, or what comes after what it has; as nbformat has it, with updates of displays."""

    cell: str
    whole: bool
    outputs: list[dict[str, Any]]


class CellText(TypedDict):
    """One code cell of the front end."""

    id: str
    source: str
    tags: list[str]


# ---------------------------------------------------------------- kernel to page


class SnapshotMessage(TypedDict):
    """Everything that a page draws from, whole; `busy` while a run is under way, `order` says whose order it is.

    `workers` says of steps with one task which process runs it, or has, where that is known.
    `untrusted` is the datastore that came with the folder and that nobody has said to trust, empty where there is none.
    `verified` is when the notebook as it stands was verified, None where no certificate of it holds.
    `further` are the ids of cells that go on with a step of a cell above, each with its name.
    """

    nbflow: int
    kind: Literal["snapshot"]
    session: str
    seq: int
    now: float
    flow: str
    order: str
    busy: bool
    untrusted: str
    verified: float | None
    run: RunView | None
    steps: list[StepView]
    workers: dict[str, str]
    edges: list[EdgeView]
    layout: LayoutView
    parameters: list[ParameterView]
    findings: list[FindingView]
    cells: list[CellView]
    headers: list[HeaderView]
    exporters: list[str]
    further: dict[str, str]


class ChangeMessage(TypedDict):
    """What is new since the message `base`, a snapshot or a change: the run, and the steps that differ, with workers.

    A page that does not hold `base` waits for the next snapshot.
    """

    nbflow: int
    kind: Literal["change"]
    session: str
    seq: int
    base: int
    now: float
    busy: bool
    run: RunView | None
    steps: list[StepView]
    workers: dict[str, str]


class AckMessage(TypedDict):
    """A command was taken (`ok`) or refused; `text` says what is wrong, or what a person should know."""

    nbflow: int
    kind: Literal["ack"]
    session: str
    seq: int
    reply_to: str
    ok: bool
    text: str
    fix: str


class RefusedMessage(TypedDict):
    """A command that was taken turned out to be impossible."""

    nbflow: int
    kind: Literal["refused"]
    session: str
    seq: int
    reply_to: str
    text: str
    fix: str


class SaidMessage(TypedDict):
    """What came of a command that was taken and done later, in words."""

    nbflow: int
    kind: Literal["said"]
    session: str
    seq: int
    reply_to: str
    text: str
    fix: str


class PageMessage(TypedDict):
    """A page of its own that a command asked for, such as two runs compared."""

    nbflow: int
    kind: Literal["page"]
    session: str
    seq: int
    reply_to: str
    title: str
    page: str


class DetailMessage(TypedDict):
    """What a task printed, without colours, and what it left; `truncated` when the beginning of the log is left out."""

    nbflow: int
    kind: Literal["detail"]
    session: str
    seq: int
    reply_to: str
    run: str
    step: str
    index: list[int]
    log: str
    truncated: bool
    artifacts: list[ArtifactView]


class CardMessage(TypedDict):
    """A task's card as a page of its own, or, unless it is wanted `whole`, what its code showed; empty for nothing.

    `digest` names the content: a page that has it already gets it without `page`.
    """

    nbflow: int
    kind: Literal["card"]
    session: str
    seq: int
    reply_to: str
    run: str
    step: str
    index: list[int]
    whole: bool
    title: str
    digest: str
    page: str | None


class OutputsMessage(TypedDict):
    """What steps of a run show under their cells, for the page of one client; `last` when the run has ended."""

    nbflow: int
    kind: Literal["outputs"]
    session: str
    seq: int
    client: str
    run: str
    last: bool
    cells: list[CellOutputs]


class RunsMessage(TypedDict):
    """The flow's runs, newest first."""

    nbflow: int
    kind: Literal["runs"]
    session: str
    seq: int
    reply_to: str
    runs: list[RunRow]


class PastMessage(TypedDict):
    """An earlier run as a page draws it."""

    nbflow: int
    kind: Literal["past"]
    session: str
    seq: int
    reply_to: str
    snapshot: SnapshotMessage


KernelMessage = (
    SnapshotMessage
    | ChangeMessage
    | AckMessage
    | RefusedMessage
    | SaidMessage
    | PageMessage
    | DetailMessage
    | CardMessage
    | OutputsMessage
    | RunsMessage
    | PastMessage
)


# ---------------------------------------------------------------- page to kernel


class HelloCommand(TypedDict):
    """A page is there and wants a snapshot; `client` as the kernel knows it, empty where it cannot change cells."""

    kind: Literal["hello"]
    id: str
    client: str


class DocumentCommand(TypedDict):
    """The front end's code cells in their order."""

    kind: Literal["document"]
    id: str
    cells: list[CellText]


class RunCommand(TypedDict):
    """Run the flow in the background: `steps` with their ancestors, or all; `fresh` executes those steps anew.

    With `stale`, those that are not fresh. The page of `client` shows under cells what steps show.
    """

    kind: Literal["run"]
    id: str
    client: str
    steps: list[str]
    params: dict[str, str]
    fresh: bool
    stale: bool


class ResumeCommand(TypedDict):
    """Run again with the parameters of a run, the last failed one where `run` is empty."""

    kind: Literal["resume"]
    id: str
    client: str
    run: str


class CancelCommand(TypedDict):
    """Stop the run that is under way."""

    kind: Literal["cancel"]
    id: str


class DetailCommand(TypedDict):
    """A task's log and artifacts, of the run that is shown."""

    kind: Literal["detail"]
    id: str
    run: str
    step: str
    index: list[int]


class CardCommand(TypedDict):
    """A task's card: `whole`, or what its code showed; `known` is the digest of what the page has of it."""

    kind: Literal["card"]
    id: str
    run: str
    step: str
    index: list[int]
    whole: bool
    known: str


class RunsCommand(TypedDict):
    """The flow's runs."""

    kind: Literal["runs"]
    id: str


class PastCommand(TypedDict):
    """An earlier run."""

    kind: Literal["past"]
    id: str
    run: str


class CompareCommand(TypedDict):
    """Two runs, by their ids, as a page that shows what differs."""

    kind: Literal["compare"]
    id: str
    before: str
    after: str


class ExportCommand(TypedDict):
    """Write the notebook for another tool, beside itself."""

    kind: Literal["export"]
    id: str
    target: str


class VerifyCommand(TypedDict):
    """Compare what the notebook leaves, run plainly, with what it leaves as a flow."""

    kind: Literal["verify"]
    id: str


class PlacedCommand(TypedDict):
    """The page shows under its cells all that the steps of a run have shown."""

    kind: Literal["placed"]
    id: str
    run: str


class TrustCommand(TypedDict):
    """Trust the datastore that the page has asked about, from now on."""

    kind: Literal["trust"]
    id: str
    place: str


class CheckCommand(TypedDict):
    """Whether a header line can be understood: the answer is the acknowledgement."""

    kind: Literal["check"]
    id: str
    header: str


Command = (
    HelloCommand
    | DocumentCommand
    | RunCommand
    | ResumeCommand
    | CancelCommand
    | DetailCommand
    | CardCommand
    | RunsCommand
    | PastCommand
    | CompareCommand
    | ExportCommand
    | VerifyCommand
    | PlacedCommand
    | TrustCommand
    | CheckCommand
)
