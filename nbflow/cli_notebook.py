"""Commands that take a notebook: `--fresh [STEP]`, the notebook's parameters in `--help`; and usage errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from nbflow import launch
from nbflow.errors import NbflowError, OptionError, nearest
from nbflow.model import Parameter
from nbflow.render import preview

_ARGUMENTS = "nbflow.arguments"


class NotebookCommand(click.Command):
    """A command on a notebook; a word right after `--fresh` goes to `--fresh-step`, the command decides what it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words of the command line in, click's leftovers out."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, split_fresh(args) if self._takes("fresh_steps") else args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Below the options: the parameters of the notebook that stands on the command line."""
        if self._takes("params"):
            for word in ctx.meta.get(_ARGUMENTS, ()):
                if word.endswith((".ipynb", ".py")) and Path(word).is_file():
                    _write_parameters(word, formatter)
                    break
        super().format_epilog(ctx, formatter)

    def _takes(self, name: str) -> bool:
        return any(param.name == name for param in self.params)


def split_fresh(words: Sequence[str]) -> list[str]:
    """Words in; with `--fresh WORD` and `--fresh=WORD` written as `--fresh-step=WORD` out."""
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*found, word, *left]
        if word.startswith("--fresh="):
            found.append(f"--fresh-step={word.removeprefix('--fresh=')}")
        elif word == "--fresh" and left and not left[0].startswith("-"):
            found.append(f"--fresh-step={left.pop(0)}")
        else:
            found.append(word)
    return found


def _write_parameters(path: str, formatter: click.HelpFormatter) -> None:
    """A notebook's path in; its parameters are written as a list: name, type, default, help."""
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
    """Click's error in; ours, which lists what is known and names the nearest, out."""
    message = error.format_message()
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and ctx is not None:
        known = [word for param in ctx.command.params if not getattr(param, "hidden", False) for word in param.opts]
        options = sorted({word for word in known if word.startswith("-")})
        close = nearest(error.option_name, options)
        return OptionError(f"no option {error.option_name}{close}", fix=f"known: {', '.join(options)}")
    if ctx is not None and isinstance(ctx.command, click.Group) and message.startswith("No such command"):
        commands = ctx.command.list_commands(ctx)
        word = message.split("'")[1] if "'" in message else ""
        return OptionError(f"no command {word!r}{nearest(word, commands)}", fix=f"known: {', '.join(commands)}")
    path = f"{ctx.command_path} --help" if ctx is not None else "nbflow --help"
    message = message.rstrip(".")
    return OptionError(message[:1].lower() + message[1:], fix=f"`{path}` lists what can be said")
