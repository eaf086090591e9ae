"""The command line: the commands of `runs/commands` on notebook files, shown on a terminal, ended with an exit code.

Exit codes: 0 success; 1 a step failed; 2 usage, notebook, parameter or plan error, nothing ran; 3 store or executor
unusable; 130 cancelled. Errors go to standard error as `error: WHAT`, `  where: …`, `  fix: …`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from nbflow.cli import terminal
from nbflow.cli.exit_codes import code_of, exit_code, interrupts
from nbflow.cli.tutorial import tutorial
from nbflow.cli.workers import worker
from nbflow.errors import NbflowError, PlanError, UntrustedError
from nbflow.flow.notebook import read_notebook
from nbflow.flow.parameters import default_text
from nbflow.flow.subflow import preload_of
from nbflow.model import Flow, Parameter, Plan, Snapshot
from nbflow.render import preview, sanitize, table
from nbflow.runs import client, launch
from nbflow.runs.command_words import Command, Word, add_commands, perform
from nbflow.runs.commands import shared
from nbflow.runs.face import CANCELLED, DONE, FAILED, UNUSABLE, Answer
from nbflow.runs.printed import write_text
from nbflow.runs.run_options import RunOptions
from nbflow.store import search, trust


class CommandLine:
    """The face of a shell: a notebook's file and a datastore by name, answers as text or as lines of JSON."""

    live = False
    folder = Path()

    def __init__(self) -> None:
        self.notebook = ""
        self.store: str | None = None
        self.as_json = False
        self.write = False
        self.write_to: str | None = None

    def own(self) -> str | None:
        """Return None: every flow of the datastore is meant where none is named."""
        return None

    def path(self, word: str | None) -> str:
        """Return the word: a command line names everything in full."""
        return word or ""

    def flow(self, *, all_cells: bool) -> Flow:
        """Return the notebook's flow."""
        return launch.load_flow(self.notebook, all_cells=all_cells)

    def plan(self, options: RunOptions) -> Plan:
        """Return what a run would do."""
        return launch.plan_notebook(self.notebook, self._in_store(options))

    def why(self, step: str, options: RunOptions, *, cost: bool) -> dict[str, Any]:
        """Return whether a step would run, and what changed."""
        return launch.why(self.notebook, step, self._in_store(options), cost=cost)

    def _in_store(self, options: RunOptions) -> RunOptions:
        return msgspec.structs.replace(options, store=self.store)

    def tell(self, text: Callable[[], str]) -> None:
        """Show a person what is about to happen."""
        if not self.as_json:
            terminal.tell(text())

    def take_up(self, past: client.Run) -> None:
        """Take the notebook and the datastore of an earlier run."""
        path = past.metadata["notebook"]
        if not path:
            raise PlanError(f"run {past.id} has no notebook file", fix="save the notebook, then `nbflow run NB`")
        self.notebook, self.store = path, past.store

    def run(self, options: RunOptions, *, background: bool) -> Answer:
        """Run the notebook, and show the run until it has ended."""
        del background
        options = self._in_store(options)
        cancel = threading.Event()
        watcher = terminal.watcher(
            self.as_json, lambda: launch.plan_notebook(self.notebook, options), lambda: self._imports(options)
        )
        with interrupts(cancel.set, "cancelling; press Ctrl-C again to kill\n"), watcher:
            finished = launch.run_notebook(self.notebook, options, watch=watcher, cancel=cancel)
        snapshot = finished.snapshot
        name = f"{finished.flow}/{finished.id}{search.store_words(finished.store, Path.cwd())}"
        counts = table.summary(table.counts(snapshot))
        below = [f"{counts}; details: nbflow show {name}"]
        if finished.status in client.ENDED_BADLY:
            below.append(f"to go on once it is mended: nbflow resume {name}")
        if target := self._written(finished):
            below.append(f"wrote {target}")
        self._show_end(watcher, snapshot, finished.store, *below)
        return Answer(code=exit_code(snapshot))

    def _written(self, finished: client.Run) -> str:
        """Write the run's notebook with its outputs if that was asked for, and return its path."""
        if not (self.write or self.write_to):
            return ""
        target = self.write_to or f"{Path(self.notebook).with_suffix('')}.executed.ipynb"
        write_text(target, finished.notebook_with_outputs())
        return target

    def _imports(self, options: RunOptions) -> Sequence[str]:
        """Return the modules that the workers of this machine begin with."""
        return preload_of(launch.load_flow(self.notebook, all_cells=options.all_cells))

    def follow(self, past: client.Run) -> Answer:
        """Show a run that goes on elsewhere until it has ended."""
        stop = threading.Event()
        watcher = terminal.watcher(self.as_json, lambda: None, tuple)
        words = f"nbflow cancel {past.id}{search.store_words(past.store, Path.cwd())}"
        with interrupts(stop.set, f"the run goes on; `{words}` ends it\n"), watcher:
            past.follow(watcher, stop)
        snapshot = past.snapshot
        self._show_end(watcher, snapshot, past.store)
        return Answer(code=DONE if snapshot.status == "running" else exit_code(snapshot))

    def _show_end(self, watcher: terminal.Watcher, snapshot: Snapshot, store: str, *below: str) -> None:
        if isinstance(watcher, terminal.JsonLines):
            watcher.finish(snapshot, store)
            return
        for text in (table.text(snapshot), *below):
            terminal.tell(text)
        if snapshot.status != "running":
            terminal.show_failures(snapshot)

    def learn(self) -> None:
        """Do nothing: each command reads what is known."""

    def placed(self, error: NbflowError) -> NbflowError:
        """Return an error with its cell's number in the notebook that was named."""
        if error.cell and self.notebook:
            with contextlib.suppress(NbflowError):
                error.cell = preview.cell(error.cell, read_notebook(self.notebook).positions)
        return error

    def cancel(self) -> bool:
        """Return False: a command line has no run of its own in the background."""
        return False

    def show(self, answer: Answer | None) -> int:
        """Print an answer and return its exit code."""
        if answer is None:
            return DONE
        if self.as_json and answer.lines is not None:
            for line in answer.lines():
                print(line)
        elif answer.text is not None:
            print(sanitize.for_terminal(answer.text()))
        return answer.code


# ---------------------------------------------------------------- what only a command line has


_ARGUMENTS = "nbflow.arguments"


class ShellCommand(Command):
    """A command whose help lists the parameters of the notebook that stands on the command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words for the help text."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notebook's parameters below the options that set them."""
        if any(param.name == "params" for param in self.params):
            for word in ctx.meta.get(_ARGUMENTS, ()):
                if word.endswith((".ipynb", ".py")) and Path(word).is_file():
                    _write_parameters(word, formatter)
                    break
        super().format_epilog(ctx, formatter)


def _write_parameters(path: str, formatter: click.HelpFormatter) -> None:
    """Write a notebook's parameters as a list: name, type, default, help."""
    try:
        parameters = launch.load_flow(path).parameters
    except NbflowError as error:  # help must not fail: the run will say it in full
        formatter.write(f"\n{error.report()[0]}\n")
        return
    with formatter.section(f"Parameters of {Path(path).name}"):
        if parameters:
            formatter.write_dl([(_declared(parameter), _explained(parameter)) for parameter in parameters])
        else:
            formatter.write_text("none: a %%params cell declares them")


def _declared(parameter: Parameter) -> str:
    return f"{parameter.name}: {parameter.annotation}" if parameter.annotation else parameter.name


def _explained(parameter: Parameter) -> str:
    default = "required" if parameter.default is None else f"default {preview.clip(default_text(parameter), 40)}"
    return f"{parameter.help} [{default}]" if parameter.help else f"[{default}]"


def doctor(face: CommandLine, on: str | None) -> Answer:
    """Say what works and what is missing, here and, with --on, where steps are to run."""
    from importlib.metadata import version

    from nbflow.cli import diagnosis

    checks = diagnosis.diagnose(face.store, Path.cwd(), on=on)
    return Answer(
        text=lambda: f"nbflow {version('nbflow')}\n{diagnosis.text(checks)}",
        code=DONE if diagnosis.is_well(checks) else FAILED,
    )


def serve(face: CommandLine, port: int) -> None:
    """Show runs and their cards as pages, for this machine only.

    It reads and never writes. The address that it prints holds a token without which it answers nobody.
    """
    from nbflow.cli.server import CardServer

    with CardServer(face.store, port) as server:
        end = threading.Thread(target=server.shutdown).start  # it waits for the loop below
        with interrupts(end, "the server ends\n"):  # also in the background of a shell, which ignores Ctrl-C there
            terminal.tell(f"{server.url}\nruns and their cards, for this machine only; Ctrl-C ends it")
            server.serve_forever()


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep with the face what is said to the shell and not to the command."""
    setattr(ctx.obj, str(param.name), value)


NOTEBOOK = Word("notebook", "NB", "notebook", expose_value=False, callback=_keep)
STORE = click.Option(["--store"], metavar="URL", expose_value=False, callback=_keep,
                     help="The datastore: a folder or an fsspec URL.")  # fmt: skip
JSON = click.Option(["--json", "as_json"], is_flag=True, expose_value=False, callback=_keep,
                    help="One JSON object a line, and nothing else.")  # fmt: skip

WRITE = (
    click.Option(["--write"], is_flag=True, expose_value=False, callback=_keep,
                 help="Write the notebook with the run's outputs and parameters beside NB; `--write OUT`: to OUT."),
    click.Option(["--write-to"], hidden=True, expose_value=False, callback=_keep),
)  # fmt: skip
PORT = click.Option(["--port"], type=click.IntRange(0, 65535), default=0, metavar="N",
                    help="The port; default: a free one.")  # fmt: skip
ON = click.Option(["--on"], metavar="URL", help="Try this place, too: a worker starts and works there.")

ON_NOTEBOOKS = frozenset({"run", "plan", "why", "check", "dag", "verify", "export"})
"""Commands that take a notebook's path."""
IN_TEXT = frozenset({"trust", "show", "logs", "card", "tag", "cancel", "doctor", "serve"})
"""Commands that have no form for programs."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="nbflow", message="nbflow %(version)s")
def cli() -> None:
    """Run Jupyter notebooks as flows: versioned, cached, resumable and parallel.

    RUN is ID, FLOW/ID or FLOW/latest.
    """


add_commands(
    cli,
    {
        name: (
            action,
            (
                *((NOTEBOOK,) if name in ON_NOTEBOOKS else ()),
                *params,
                *(WRITE if name == "run" else ()),
                STORE,
                *(() if name in IN_TEXT else (JSON,)),
            ),
        )
        for name, (action, params) in {
            **shared(live=False),
            "doctor": (doctor, (ON,)),
            "serve": (serve, (PORT,)),
        }.items()
    },
    ShellCommand,
)
cli.add_command(worker)
cli.add_command(tutorial)


def _is_agreed() -> bool:
    """Return whether whoever sits at the terminal trusts a datastore that came from elsewhere; nobody can say no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm("Trust it, and go on?", default=False, err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform a command line (None: this process's) and return its exit code; never show a traceback of ours."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a mark must not end the run
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    shell = CommandLine()
    try:
        code = shell.show(perform(cli, "nbflow", words, shell))
        with terminal.lasting(sys.stdout):
            sys.stdout.flush()
    except KeyboardInterrupt:
        return CANCELLED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone; nothing more can be told
        return DONE
    except UntrustedError as error:
        terminal.show_error(error)
        if not _is_agreed():
            return code_of(error)
        trust.remember(error.place, error.identity)
        return main(words)
    except NbflowError as error:
        terminal.show_error(shell.placed(error))
        return code_of(error)
    except Exception as error:  # the last resort: a fault of nbflow's own is told in one line, too
        terminal.show_error(
            NbflowError(f"nbflow itself failed: {type(error).__name__}: {error}", fix="please report it with this line")
        )
        return UNUSABLE
    return code


def run_script(path: str, arguments: Sequence[str] | None = None) -> int:
    """Run a script that `export --to script` wrote, with words (None: this process's), and return an exit code.

    `python flow.py run -p lr=0.2` is `nbflow run flow.py -p lr=0.2`; without words it is run.
    """
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["run"]
    return main([command] if command.startswith("-") else [command, path, *rest])
