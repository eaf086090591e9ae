"""The command line: commands call `launch` and `client`, show what came of it and return an exit code.

Exit codes: 0 success; 1 a step failed; 2 usage, notebook, parameter or plan error, nothing ran; 3 store or executor
unusable; 130 cancelled. Errors go to standard error as `error: WHAT`, `  where: …`, `  fix: …`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from nbflow.cli import terminal
from nbflow.cli.exit_codes import CANCELLED, DONE, FAILED, UNUSABLE, USAGE, code_of, exit_code, interrupts
from nbflow.cli.runs import (
    attach,
    cancel,
    card,
    diff,
    fsck,
    gc,
    json_option,
    logs,
    runs,
    show,
    store_option,
    tag,
)
from nbflow.errors import NbflowError, NotFoundError, OptionError, PlanError, nearest
from nbflow.model import Parameter
from nbflow.render import dag, json_lines, preview, table
from nbflow.runs import client, exporting, launch
from nbflow.runs.run_options import RunOptions


@click.command()
@click.argument("notebook", metavar="NB")
@click.option("--to", "target", metavar="TARGET", required=True, help="The tool to write for: script or metaflow.")
@click.option("-o", "--output", metavar="PATH", help="The file to write, or a folder.")
@click.option("--with", "words", multiple=True, metavar="WORD", help="What the target takes: kubernetes, batch, pypi.")
@click.option("--check", is_flag=True, help="Write nothing; say what would be lost or changed.")
@click.option("--force", is_flag=True, help="Replace a file that no export has left so.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def export(
    notebook: str, target: str, output: str | None, words: Sequence[str], check: bool, force: bool, as_json: bool
) -> int:
    """Write a notebook as a script or for another tool."""
    done = exporting.export(notebook, target, output, words=words, check=check, force=force)
    if as_json:
        print(json_lines.plain(as_object(done)))
    else:
        print(done)
    return USAGE if done.refused else DONE


def as_object(done: exporting.Exported) -> dict[str, Any]:
    """Return an export as `{ok, files, findings}`."""
    findings = [msgspec.to_builtins(finding) for finding in done.findings]
    return {"ok": not done.refused, "files": [str(file) for file in done.files], "findings": findings}


_ARGUMENTS = "nbflow.arguments"


class NotebookCommand(click.Command):
    """A command on a notebook; a word right after `--fresh` goes to `--fresh-step`, the command decides what it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words of the command line for the help text, and split `--fresh STEP` before click sees it."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, split_fresh(args) if self._takes("fresh_steps") else args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters of the notebook that stands on the command line below the options."""
        if self._takes("params"):
            for word in ctx.meta.get(_ARGUMENTS, ()):
                if word.endswith((".ipynb", ".py")) and Path(word).is_file():
                    _write_parameters(word, formatter)
                    break
        super().format_epilog(ctx, formatter)

    def _takes(self, name: str) -> bool:
        return any(param.name == name for param in self.params)


def split_fresh(words: Sequence[str]) -> list[str]:
    """Return words with `--fresh WORD` and `--fresh=WORD` written as `--fresh-step=WORD`."""
    split: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return [*split, word, *queue]
        if word.startswith("--fresh="):
            split.append(f"--fresh-step={word.removeprefix('--fresh=')}")
        elif word == "--fresh" and queue and not queue[0].startswith("-"):
            split.append(f"--fresh-step={queue.pop(0)}")
        else:
            split.append(word)
    return split


def _write_parameters(path: str, formatter: click.HelpFormatter) -> None:
    """Write a notebook's parameters as a list: name, type, default, help."""
    try:
        parameters = launch.check(path).parameters
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
    default = "required" if parameter.default is None else f"default {preview.clip(parameter.default, 40)}"
    return f"{parameter.help} [{default}]" if parameter.help else f"[{default}]"


def usage_error(error: click.ClickException) -> NbflowError:
    """Return click's error as ours, which lists what is known and names the nearest."""
    message = error.format_message()
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and ctx is not None:
        names = [word for param in ctx.command.params if not getattr(param, "hidden", False) for word in param.opts]
        options = sorted({word for word in names if word.startswith("-")})
        close = nearest(error.option_name, options)
        return OptionError(f"no option {error.option_name}{close}", fix=f"known: {', '.join(options)}")
    if ctx is not None and isinstance(ctx.command, click.Group) and message.startswith("No such command"):
        commands = ctx.command.list_commands(ctx)
        word = message.split("'")[1] if "'" in message else ""
        return OptionError(f"no command {word!r}{nearest(word, commands)}", fix=f"known: {', '.join(commands)}")
    path = f"{ctx.command_path} --help" if ctx is not None else "nbflow --help"
    message = message.rstrip(".")
    return OptionError(message[:1].lower() + message[1:], fix=f"`{path}` lists the options")


_F = TypeVar("_F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="nbflow", message="nbflow %(version)s")
def cli() -> None:
    """Run Jupyter notebooks as flows: versioned, cached, resumable and parallel.

    RUN is ID, FLOW/ID or FLOW/latest.
    """


for command in (attach, cancel, card, diff, fsck, gc, logs, runs, show, tag):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform a command line (None: this process's) and return its exit code; never show a traceback of ours."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a mark must not end the run
    try:
        code = cli.main(args=arguments, prog_name="nbflow", standalone_mode=False)
        with terminal.lasting(sys.stdout):
            sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        terminal.show_error(usage_error(error))
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return CANCELLED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone; nothing more can be told
        return DONE
    except NbflowError as error:
        terminal.show_error(error)
        return code_of(error)
    except Exception as error:  # the last resort: a fault of nbflow's own is told in one line, too
        terminal.show_error(
            NbflowError(f"nbflow itself failed: {type(error).__name__}: {error}", fix="please report it with this line")
        )
        return UNUSABLE


# ---------------------------------------------------------------- options that several commands share


def plan_options(command: _F) -> _F:
    """Add the options that say what a run would be to a command."""
    for option in reversed((
        click.option("-p", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter; again for others."),
        click.option("--params", "params_file", metavar="FILE", help="Parameters from a YAML or JSON file."),
        click.option("--on", metavar="URL", default="local", show_default=True, help="Where steps run."),
        store_option,
        click.option("--workers", type=click.IntRange(1), metavar="N", help="Tasks at once; default: one a core."),
        click.option("--fresh", is_flag=True, help="Reuse nothing; `--fresh STEP`: run that step again."),
        click.option("--fresh-step", "fresh_steps", multiple=True, hidden=True),
        click.option("--again", multiple=True, metavar="STEP",
                     help="This step may begin although it is --once and has begun before; again for others."),
        click.option("--all-cells", is_flag=True, help="Take every cell that computes as a step."),
        click.option("--tag", "tags", multiple=True, metavar="T", help="Tag the run; again for others."),
        json_option,
    )):  # fmt: skip
        command = option(command)
    return command


def steps_option(command: _F) -> _F:
    """Add `--step` to a command."""
    return click.option("--step", "steps", multiple=True, metavar="STEP", help="Up to this step; again for others.")(
        command
    )


def only_option(command: _F) -> _F:
    """Add `--only` to a command."""
    return click.option("--only", metavar="STEP", help="This step alone, on what the last run left.")(command)


# ---------------------------------------------------------------- running


@cli.command(cls=NotebookCommand)
@click.argument("notebook", metavar="NB", required=False)
@plan_options
@steps_option
@only_option
def run(notebook: str | None, as_json: bool, **options: Any) -> int:
    """Run a notebook, reusing what has not changed.

    `nbflow run NB --help` lists the notebook's parameters.
    """
    path, run_options = _run_options(notebook, **options)
    return _run(path, run_options, as_json)


@cli.command(cls=NotebookCommand)
@click.argument("name", metavar="RUN", required=False)
@plan_options
def resume(name: str | None, as_json: bool, fresh_steps: tuple[str, ...], **options: Any) -> int:
    """Run again what has failed.

    Without RUN it is the last run that did not end well. The parameters are that run's, the notebook is taken as it
    is now.
    """
    if name is None and fresh_steps and not _is_step_of(_last_failed(options["store"]), fresh_steps[0]):
        name, fresh_steps, options["fresh"] = fresh_steps[0], fresh_steps[1:], True
    earlier = client.Run(name, options["store"]) if name else _last_failed(options["store"])
    path = earlier.metadata["notebook"]
    if not path:
        raise PlanError(f"run {earlier.id} has no notebook file", fix="save the notebook, then `nbflow run NB`")
    path, run_options = _run_options(path, fresh_steps=fresh_steps, **{**options, "store": earlier.store})
    all_cells = run_options.all_cells or earlier.metadata["all_cells"]
    run_options = msgspec.structs.replace(run_options, resume=f"{earlier.flow}/{earlier.id}", all_cells=all_cells)
    if not as_json:
        terminal.tell(f"resume of {earlier.flow}/{earlier.id}, {earlier.status}")
        terminal.tell(table.plan_text(launch.plan_notebook(path, run_options)))
    return _run(path, run_options, as_json)


def _last_failed(store: str | None) -> client.Run:
    """Return the newest run of a whole flow that did not end well; raise NotFoundError where there is none."""
    failed = client.last_failed(client.list_runs(store))
    if failed is None:
        raise NotFoundError("no run has failed in this store", fix="`nbflow runs --all` lists all runs")
    return client.Run(f"{failed.flow}/{failed.run}", store)


def _is_step_of(run: client.Run, word: str) -> bool:
    return any(word in (step.name, step.label) for step in run.steps())


def _run_options(
    notebook: str | None, *, params: Sequence[str], fresh: bool, fresh_steps: Sequence[str],
    steps: Sequence[str] = (), **others: Any,
) -> tuple[str, RunOptions]:  # fmt: skip
    """Return the notebook's path and what a command's words ask of its run.

    A word after `--fresh` is its step only if there is another word for the notebook.
    """
    if notebook is None and fresh_steps:
        notebook, fresh_steps, fresh = fresh_steps[0], fresh_steps[1:], True
    if notebook is None:
        raise click.UsageError("no notebook was given")
    values = {}
    for word in params:
        name, separator, value = word.partition("=")
        if not separator or not name.strip():
            raise click.UsageError(f"-p {word}: a parameter is written NAME=VALUE")
        values[name.strip()] = value
    return notebook, RunOptions(params=values, fresh=fresh_steps or fresh, steps=steps or None, **others)


def _run(path: str, options: RunOptions, as_json: bool) -> int:
    """Run a notebook, show the run, and return the exit code."""
    cancel = threading.Event()
    watcher = terminal.watcher(as_json, lambda: launch.plan_notebook(path, options))
    with interrupts(cancel.set, "cancelling; press Ctrl-C again to kill\n"), watcher:
        finished = launch.run_notebook(path, options, watch=watcher, cancel=cancel)
    snapshot = finished.snapshot
    if isinstance(watcher, terminal.JsonLines):
        watcher.finish(snapshot, finished.store)
    else:
        terminal.tell(table.text(snapshot))
        terminal.tell(f"{table.summary(table.counts(snapshot))}; details: nbflow show {finished.flow}/{finished.id}")
        terminal.show_failures(snapshot)
    return exit_code(snapshot)


# ---------------------------------------------------------------- a notebook, without running it


@cli.command(cls=NotebookCommand)
@click.argument("notebook", metavar="NB")
@click.option("--all-cells", is_flag=True, help="Take every cell that computes as a step.")
@json_option
def check(notebook: str, all_cells: bool, as_json: bool) -> int:
    """Say what is wrong with a notebook."""
    flow = launch.check(notebook, all_cells=all_cells)
    verdicts = json_lines.check(flow)
    if verdicts["ok"]:
        launch.check_flow(flow)  # a notebook without steps has no finding, and nothing to run either
    if as_json:
        print(json_lines.plain(verdicts))
    else:
        for finding in flow.findings:
            print("\n".join(table.finding_text(finding)))
        serious = sum(finding.level == "error" for finding in flow.findings)
        verdict = f"{serious} error{'s' if serious > 1 else ''}" if serious else "ok"
        steps = sum(step.kind != "params" for step in flow.steps)
        print(f"{verdict}: {flow.name}, {steps} steps, {len(flow.parameters)} parameters")
    return DONE if verdicts["ok"] else USAGE


@cli.command("dag", cls=NotebookCommand)
@click.argument("notebook", metavar="NB")
@click.option("--all-cells", is_flag=True, help="Take every cell that computes as a step.")
@json_option
def dag_command(notebook: str, all_cells: bool, as_json: bool) -> int:
    """Draw steps and what they read from each other."""
    flow = launch.check(notebook, all_cells=all_cells)
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    print(json_lines.plain(json_lines.dag(flow)) if as_json else dag.text(dag.of_flow(flow), width))
    return DONE


@cli.command(cls=NotebookCommand)
@click.argument("notebook", metavar="NB", required=False)
@plan_options
@steps_option
@only_option
def plan(notebook: str | None, as_json: bool, **options: Any) -> int:
    """Say which steps would run, and why."""
    path, run_options = _run_options(notebook, **options)
    result = launch.plan_notebook(path, run_options)
    print(json_lines.line("plan", time.time(), None, json_lines.plan(result)) if as_json else table.plan_text(result))
    return DONE


@cli.command(cls=NotebookCommand)
@click.argument("notebook", metavar="NB")
@click.argument("step", metavar="STEP")
@click.option("--cost", is_flag=True, help="Say too what nbflow took beside the step's own time.")
@plan_options
def why(notebook: str, step: str, cost: bool, as_json: bool, **options: Any) -> int:
    """Say why a step would run or be reused.

    Names what changed: the line, input, parameter, file or package.
    """
    path, run_options = _run_options(notebook, **options)
    answer = launch.why(path, step, run_options, cost=cost)
    print(json_lines.plain(answer) if as_json else table.why_text(step, answer))
    return DONE


@cli.command()
@store_option
def doctor(store: str | None) -> int:
    """Say what works and what is missing."""
    from importlib.metadata import version

    from nbflow.cli import diagnosis

    checks = diagnosis.diagnose(store, Path.cwd())
    print(f"nbflow {version('nbflow')}")
    print(diagnosis.text(checks))
    return DONE if diagnosis.is_well(checks) else FAILED


cli.add_command(export)


def run_script(path: str, arguments: Sequence[str] | None = None) -> int:
    """Run a script that `export --to script` wrote, with words (None: this process's), and return an exit code.

    `python flow.py run -p lr=0.2` is `nbflow run flow.py -p lr=0.2`; without words it is run.
    """
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["run"]
    return main([command] if command.startswith("-") else [command, path, *rest])
