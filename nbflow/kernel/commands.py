"""`%flow`: the commands of `runs/commands` on the live notebook, and those that only a notebook has."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbflow.errors import OptionError, nearest
from nbflow.flow.options import parse_size
from nbflow.kernel.document import ORIGINS
from nbflow.model import Flow, Plan
from nbflow.render import preview, sanitize
from nbflow.runs import client
from nbflow.runs.command_words import Command, Word, add_commands, perform
from nbflow.runs.commands import shared
from nbflow.runs.face import Answer
from nbflow.runs.place_trial import try_place
from nbflow.runs.printed import tell
from nbflow.runs.run_options import RunOptions
from nbflow.store import settings
from nbflow.store.flows import find_flow, word_for
from nbflow.store.location import store_url

if TYPE_CHECKING:
    from nbflow.kernel.session import Session


class LiveNotebook:
    """The face of `%flow`: the notebook that the kernel belongs to, its datastore, answers as objects of the cell."""

    live = True

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def store(self) -> str:
        """The datastore that the kernel uses."""
        return self.session.known.store().url

    @property
    def folder(self) -> Path:
        """The notebook's folder."""
        return Path(self.session.flow().notebook.folder)

    def own(self) -> str:
        """Return the word for this notebook's flow in its datastore, where another one may bear the same name."""
        store, flow = self.session.known.store(), self.session.flow()
        entry = find_flow(store, flow.notebook)
        return word_for(store, entry) if entry is not None else flow.name

    def path(self, word: str | None) -> str:
        """Return what a word names: `latest`, nothing and a step mean this flow's last run."""
        if word is None:
            return f"{self.own()}/latest"
        first = word.partition("/")[0]
        if first == "latest":
            return f"{self.own()}/{word}"
        return f"{self.own()}/latest/{word}" if first in {step.name for step in self.session.flow().steps} else word

    def flow(self, *, all_cells: bool) -> Flow:
        """Return the notebook's flow."""
        return self.session.flow(all_cells=all_cells)

    def plan(self, options: RunOptions) -> Plan:
        """Return what a run would do."""
        return self.session.plan(options)

    def why(self, step: str, options: RunOptions, *, cost: bool) -> dict[str, Any]:
        """Return whether a step would run, and what changed."""
        return self.session.why(step, options, cost=cost)

    def tell(self, text: Callable[[], str]) -> None:
        """Show a person what is about to happen."""
        tell(text())

    def take_up(self, past: client.Run) -> None:
        """Leave the notebook as it is: a kernel has one."""

    def run(self, options: RunOptions, *, background: bool) -> Answer:
        """Run the flow, drawn in the cell; the cell shows it only once."""
        run = self.session.run_flow(options, background=background)
        return Answer(value=lambda: _drawn_already(run))

    def follow(self, past: client.Run) -> Answer:
        """Draw a run that goes on elsewhere until it has ended."""
        self.session.follow(past)
        return Answer()

    def learn(self) -> None:
        """Have the notebook understood again, with what is known of it now."""
        self.session.known.understand_anew()

    def cancel(self) -> bool:
        """End the run that goes on in the background; whether there was one."""
        return self.session.cancel()


def _drawn_already(run: Any) -> Any:
    """Return a run whose table stands in the cell so that the cell does not draw it once more as its result."""
    if run is not None:

        def once() -> None:
            del run._ipython_display_

        run._ipython_display_ = once
    return run


# ---------------------------------------------------------------- what only a notebook has


def load(face: LiveNotebook, task: str, cell: bool) -> None:
    """Load what a past task was given into this notebook, to debug its cell.

    Of several items it is the first that failed.
    """
    from nbflow.kernel.load_task import revisit

    past = _find_task(face.path(task), face.store)
    task_inputs = revisit(face.session.known, past.spec())
    tell(f"{past.name}: {past.summary}")
    tell(f"loaded {', '.join(task_inputs.inputs) or 'nothing'}")
    if task_inputs.definitions:
        tell(f"defined {', '.join(task_inputs.definitions)}")
    if cell:
        face.session.ip.set_next_input(task_inputs.source)


def _find_task(path: str, store: str) -> client.Task:
    place = client.locate(path, store)
    if isinstance(place, client.Step):
        failures = [task for task in place.tasks if task.state == "failed"]
        return failures[0] if failures else place.task
    if not isinstance(place, client.Task):
        raise OptionError(f"{path!r} names no task", fix="write RUN/STEP or RUN/STEP/ITEM")
    return place


def explain(face: LiveNotebook, verb: str | None) -> Answer:
    """Say what a verb of `%flow` does, or what verbs there are."""
    del face
    text = commands_text() if verb is None else verb_text(verb)
    return Answer(text=lambda: text)


def status(face: LiveNotebook) -> Answer:
    """Show the run that goes on or was last, and which names wait or are bound."""
    return Answer(text=lambda: "\n".join(face.session.status()))


def doctor(face: LiveNotebook, on: str | None) -> None:
    """Say what is installed and works, here and, with --on, elsewhere."""
    document = face.session.document
    print(f"document: {ORIGINS[document.origin]}" + (f" ({document.path})" if document.path else ""))
    if document.problem:
        print(f"  {document.problem}")
    print(f"python: {sys.version.split()[0]}, process {os.getpid()}")
    print("\n".join(face.session.settings()))
    for each in try_place(on, store_url(face.store, face.folder)) if on is not None else ():
        print(f"{each.part}: {each.found}" if each.works else f"{each.part}: MISSING: {each.found} → {each.fix}")


def config(face: LiveNotebook, setting: str | None, value: tuple[str, ...]) -> None:
    """Show or set the notebook, its datastore and the cells that are left out.

    Write `notebook PATH`, `store URL`, `size SIZE` or `ignore CELL`.
    """
    if setting is None:
        print("\n".join(face.session.settings()))
        return
    if not value or setting not in SETTINGS:
        what = "%flow config sets `notebook PATH`, `store URL`, `size SIZE` or `ignore CELL`"
        raise OptionError(what, fix="write one of the four")
    SETTINGS[setting](face, " ".join(value))


def _set_notebook(face: LiveNotebook, path: str) -> None:
    face.session.use_notebook(Path(path))


def _set_store(face: LiveNotebook, url: str) -> None:
    face.session.use_store(url)
    settings.write_setting(face.folder, "store", url)


def _set_size(face: LiveNotebook, size: str) -> None:
    try:
        parse_size(size)
    except ValueError as error:
        raise OptionError(f"%flow config size: {error}", fix="write a size, such as `50G`") from None
    settings.write_setting(face.folder, "size", size)


def _ignore(face: LiveNotebook, cell: str) -> None:
    print(f"cell {face.session.ignore(cell).position} takes no part in runs from now on")


SETTINGS: Mapping[str, Callable[[LiveNotebook, str], None]] = {
    "notebook": _set_notebook,
    "store": _set_store,
    "size": _set_size,
    "ignore": _ignore,
}


class FlowCommand(Command):
    """A command of `%flow`: a bare `name=value` sets a parameter."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `-p` before each bare `name=value` of a command that takes parameters."""
        options = [each for each in self.params if isinstance(each, click.Option)]
        if any(each.name == "params" for each in options):
            with_value = {word for each in options if not each.is_flag for word in each.opts}
            pairs = zip(["", *args], args, strict=False)
            args = [word for before, each in pairs for word in _as_parameter(before, each, with_value)]
        return super().parse_args(ctx, args)


def _as_parameter(before: str, word: str, with_value: set[str]) -> list[str]:
    name, equals, _ = word.partition("=")
    return ["-p", word] if equals and name.isidentifier() and before not in with_value else [word]


STEPS = Word("words", "[STEP]... [NAME=VALUE]...", nargs=-1, required=False)
BACKGROUND = click.Option(["--background"], is_flag=True, help="Return at once; the run goes on below its cell.")
MORE: Mapping[str, tuple[click.Parameter, ...]] = {
    "run": (STEPS, BACKGROUND),
    "resume": (BACKGROUND,),
    "plan": (STEPS,),
}
"""Words of shared commands that only a notebook takes."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def flow() -> None:
    """Run this notebook as a flow."""


add_commands(
    flow,
    {
        **{name: (action, (*MORE.get(name, ()), *params)) for name, (action, params) in shared(live=True).items()},
        "load": (load, (
            Word("task", "[RUN/]STEP[/ITEM]", "task"),
            click.Option(["--cell"], is_flag=True, help="Put the task's code into a new cell below."),
        )),
        "help": (explain, (Word("verb", "[VERB]", required=False),)),
        "status": (status, ()),
        "config": (config, (
            Word("setting", "[SETTING]", required=False), Word("value", "[VALUE]", nargs=-1, required=False),
        )),
        "doctor": (doctor, (
            click.Option(["--on"], metavar="URL", help="Try this place, too: a worker starts and works there."),
        )),
    },
    FlowCommand,
)  # fmt: skip


# ---------------------------------------------------------------- the line


def perform_line(session: Session, line: str) -> Any:
    """Do what stands behind `%flow` and return what is to be shown; raise OptionError for wrong words."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise OptionError(f"the line cannot be read: {error}", fix="close the quotes") from None
    if not words:
        return ShownText(commands_text())
    session.known.flush()
    return shown(perform(flow, "%flow", words, LiveNotebook(session)))


def shown(answer: Answer | None) -> Any:
    """Return an answer as what the cell shows: the object itself, else its text and page."""
    if answer is None:
        return None
    if answer.value is not None:
        return answer.value()
    return ShownText(answer.text(), answer.html() if answer.html is not None else "") if answer.text else None


class ShownText:
    """Text for terminals and saved notebooks, and HTML where there is a page."""

    def __init__(self, text: str, html: str = "") -> None:
        self.text = sanitize.for_terminal(text)
        self.html = html

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str | None:
        return self.html or None


def verb_text(verb: str) -> str:
    """Return what a verb does, with its options; OptionError names the known ones."""
    command = flow.commands.get(verb)
    if command is None:
        known = ", ".join(flow.commands)
        raise OptionError(f"no command {verb!r}{nearest(verb, flow.commands)}", fix=f"known: {known}")
    with click.Context(command, info_name=f"%flow {verb}", max_content_width=100) as context:
        return command.get_help(context)


def commands_text() -> str:
    """Return a line for each command: how it is written, and what it does."""
    lines = []
    for name, command in flow.commands.items():
        words = " ".join(each.metavar or "" for each in command.params if isinstance(each, Word))
        lines.append((f"%flow {name} {words}".rstrip(), command.get_short_help_str(80)))
    return "\n".join([*preview.grid(lines), "`%flow help COMMAND` lists its options; `%%step?` those of a step."])
