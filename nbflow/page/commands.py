"""What a page may ask of the kernel: each command is done or begun at once, and acknowledged, whatever the thread."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from nbflow.analysis.lines import header_of
from nbflow.errors import NbflowError
from nbflow.flow.options import parse_header
from nbflow.model import Flow
from nbflow.page import marks
from nbflow.page.messages import AckMessage
from nbflow.page.publisher import Pages
from nbflow.runs.run_options import RunOptions
from nbflow.tracebacks import text_of

Command = Mapping[str, Any]
LONGEST_ID = 200
"""Characters of a command's id that its answer repeats; pages count from 1."""


def receive(pages: Pages, command: Any) -> AckMessage:
    """Do or begin what a page asks for and return its acknowledgement; never wait."""
    request: Command = command if isinstance(command, Mapping) else {}
    kind, identity = str(request.get("kind")), _id(request)
    try:
        if kind not in COMMANDS:
            raise NbflowError(f"there is no command {kind!r}", fix="reload the page")
        text = COMMANDS[kind](pages, request) or ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a page of another version may send anything, and waits for an answer
        problem = _told(error)
        return pages.acknowledge(identity, problem.message, problem.fix or "", ok=False)
    return pages.acknowledge(identity, text, "", ok=True)


def _told(error: BaseException) -> NbflowError:
    """Return the error that a command ended with as a page shows it."""
    if isinstance(error, NbflowError):
        return error
    return NbflowError(f"{type(error).__name__}: {text_of(error)}", fix="reload the page")


def _id(command: Command) -> str:
    return str(command.get("id", ""))[:LONGEST_ID]


# ---------------------------------------------------------------- the page and its document


def hello(pages: Pages, command: Command) -> None:
    """Tell everything anew, since a page has come; one that says which client it is puts outputs under cells."""
    if client := str(command.get("client", "")):
        pages.session.cell_pages.arrived(client)
    pages.repeat()


def document(pages: Pages, command: Command) -> None:
    """Take the front end's cells as the document from now on."""
    cells = [(str(cell["id"]), str(cell["source"]), tuple(map(str, cell["tags"]))) for cell in command.get("cells", ())]

    def update() -> None:
        pages.session.update_document(cells)
        pages.look()

    pages.main(update)


def placed(pages: Pages, command: Command) -> None:
    """Take note that a page shows all of a run's outputs."""
    pages.session.cell_pages.placed(str(command.get("run", "")))


def check(pages: Pages, command: Command) -> None:
    """Raise OptionError for a header line that cannot be understood."""
    del pages
    line = str(command.get("header", ""))
    header = header_of([line])
    parse_header(header.rest if header is not None else line)


def trust(pages: Pages, command: Command) -> None:
    """Trust the datastore that the page has asked about; another one is asked about first."""
    pages.trust(str(command.get("place", "")))


# ---------------------------------------------------------------- runs


def run(pages: Pages, command: Command) -> str:
    """Run the flow, or steps of it with all that they need, in the background; with `stale` what is not fresh."""
    if command.get("stale"):
        return _begin(pages, command, lambda: RunOptions(steps=_stale(pages)))
    steps = tuple(str(step) for step in command.get("steps", ()))
    params = {str(name): str(value) for name, value in command.get("params", {}).items()}
    fresh: bool | tuple[str, ...] = (steps or True) if command.get("fresh") else False
    return _begin(pages, command, lambda: RunOptions(params=params, steps=steps or None, fresh=fresh))


def _stale(pages: Pages) -> tuple[str, ...]:
    """Return the steps whose results are not those of the notebook as it stands; NbflowError where all are."""
    planned = marks.of_plan(pages.session.plan(RunOptions()), pages.session.flow())
    stale = tuple(step for step, mark in planned.steps.items() if mark.word != "fresh")
    if not stale:
        raise NbflowError("nothing is stale", fix="`Run` runs what runs each time, too")
    return stale


def resume(pages: Pages, command: Command) -> str:
    """Run once more what did not end well, with the parameters of that run."""
    from nbflow.page import queries
    from nbflow.runs.client import ENDED_BADLY

    last = pages.audience.run  # also one of a part, as `Run stale` begins them
    shown = last.run if last is not None and last.status in ENDED_BADLY else ""
    past = str(command.get("run", "")) or shown or queries.last_unfinished(pages.store, pages.flow)
    return _begin(pages, command, lambda: RunOptions(resume=past))


def _begin(pages: Pages, command: Command, options: Callable[[], RunOptions]) -> str:
    """Start a run as soon as no cell runs; what cannot be known before that is refused later."""
    if pages.audience.busy:
        raise NbflowError("a run is under way", fix="wait for it, or cancel it")

    def start() -> None:
        try:
            pages.session.run_beside(options(), str(command.get("client", "")))
            pages.look()  # a notebook that was renamed runs, and is looked for, under its new path
        except Exception as error:  # defaults of parameters are the user's code
            refuse(pages, command, error)

    pages.main(start)
    return "The run starts when the cell that runs now has ended." if pages.session.in_cell else ""


def refuse(pages: Pages, command: Command, error: BaseException) -> None:
    """Tell the page that a command which was acknowledged has turned out to be impossible."""
    problem = _told(error)
    pages.answer("refused", _id(command), text=problem.message, fix=problem.fix or "")


def cancel(pages: Pages, command: Command) -> None:
    """End the run; where a cell runs a step by hand, interrupt that cell."""
    del command
    if pages.session.cancel():
        return
    if not pages.audience.busy:
        raise NbflowError("no run is under way")
    interrupt()


def interrupt() -> None:
    """End the cell that runs, as the stop button does."""
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)  # also ends a sleep


# ---------------------------------------------------------------- what was


def detail(pages: Pages, command: Command) -> None:
    """Answer with what a task printed and left."""
    from nbflow.page import queries

    place = _place(command)

    def answer() -> None:
        details = queries.detail(pages.store, *place, queries.Heard(pages.audience))
        pages.answer("detail", _id(command), run=place[0], step=place[1], index=list(place[2]), **details)

    _later(pages, command, answer)


def card(pages: Pages, command: Command) -> None:
    """Answer with a task's card, or with what its code shows while it runs."""
    from nbflow.page import queries

    place, whole, known = _place(command), bool(command.get("whole")), str(command.get("known", ""))

    def answer() -> None:
        heard = queries.Heard(pages.audience)
        shown = queries.card(pages.store, *place, heard, whole=whole)
        digest = shown.digest
        pages.answer(
            "card", _id(command), run=place[0], step=place[1], index=list(place[2]), whole=whole, title=shown.title,
            digest=digest, page=None if digest == known else shown.page,
        )  # fmt: skip

    _later(pages, command, answer)


def _place(command: Command) -> tuple[str, str, tuple[int, ...]]:
    """Return the run, step and index that a command names."""
    return str(command["run"]), str(command["step"]), tuple(int(number) for number in command.get("index", ()))


def runs(pages: Pages, command: Command) -> None:
    """Answer with the flow's runs."""
    from nbflow.page import queries

    _later(
        pages,
        command,
        lambda: pages.answer("runs", _id(command), runs=queries.runs(pages.store, pages.flow)),
    )


def past(pages: Pages, command: Command) -> None:
    """Answer with an earlier run."""
    from nbflow.page import queries

    def answer() -> None:
        snapshot = queries.past_run(pages.store, pages.flow, str(command["run"]))
        pages.answer("past", _id(command), snapshot={**snapshot, **pages.stamp()})

    _later(pages, command, answer)


def compare(pages: Pages, command: Command) -> None:
    """Answer with what differs between two runs."""
    from nbflow.page import queries

    before, after = str(command["before"]), str(command["after"])

    def answer() -> None:
        shown = queries.compared(pages.store, before, after)
        pages.answer("page", _id(command), title=shown.title, page=shown.page)

    _later(pages, command, answer)


def export(pages: Pages, command: Command) -> None:
    """Write the notebook for another tool, beside it, and say where."""
    from nbflow.runs import exporting

    target = str(command["target"])

    def answer() -> None:
        flow = pages.flow
        exported = exporting.export_flow(flow, target, exporting.usual_place(flow, target))
        pages.answer("said", _id(command), text=exporting.in_words(exported), fix="")

    _later(pages, command, answer)


def verify(pages: Pages, command: Command) -> str:
    """Compare the flow with the plain notebook, in a thread of its own: it takes as long as several runs."""
    from nbflow.runs import verification

    if pages.audience.busy:
        raise NbflowError("a run is under way", fix="wait for it, or cancel it")

    def work(flow: Flow, options: RunOptions) -> None:
        try:
            text = str(verification.verify_flow(flow, options))
        except Exception as error:  # the page waits for an answer
            refuse(pages, command, error)
        else:
            pages.answer("said", _id(command), text=text, fix="")
        pages.understand_anew()

    def start() -> None:
        known = pages.session.known
        options = RunOptions(store=known.store_option)
        threading.Thread(target=work, args=(known.whole_flow(), options), name="nbflow-verify", daemon=True).start()

    pages.main(start)
    return "The notebook runs plainly and as a flow, each twice: this takes a while."


def _later(pages: Pages, command: Command, work: Callable[[], None]) -> None:
    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # the page waits for an answer, whatever the store holds
            refuse(pages, command, error)

    pages.later(guarded)


COMMANDS: Mapping[str, Callable[[Pages, Command], str | None]] = {
    "hello": hello,
    "document": document,
    "placed": placed,
    "trust": trust,
    "check": check,
    "run": run,
    "resume": resume,
    "cancel": cancel,
    "detail": detail,
    "card": card,
    "runs": runs,
    "past": past,
    "compare": compare,
    "export": export,
    "verify": verify,
}
"""What a page may ask for; each may return a sentence that its acknowledgement carries."""
