"""What is typed behind `nbflow` and `%flow`: options that several commands share, words → RunOptions, errors → ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from nbflow.errors import NbflowError, OptionError, nearest
from nbflow.runs.face import Answer, Face
from nbflow.runs.run_options import RunOptions

ALL_CELLS = click.Option(["--all-cells"], is_flag=True, help="Take every cell that computes as a step.")
STEP = click.Option(["--step", "steps"], multiple=True, metavar="STEP", help="Up to this step; again for others.")
ONLY = click.Option(["--only"], metavar="STEP", help="This step alone, on what the last run left.")
PLAN = (
    click.Option(["-p", "--param", "params"], multiple=True, metavar="NAME=VALUE",
                 help="Set a parameter; again for others."),
    click.Option(["--params", "params_file"], metavar="FILE", help="Parameters from a YAML, TOML or JSON file."),
    click.Option(["--on"], metavar="URL", default="local", show_default=True, help="Where steps run."),
    click.Option(["--workers"], type=click.IntRange(1), metavar="N", help="Tasks at once; default: one a core."),
    click.Option(["--fresh"], is_flag=True, help="Reuse nothing; `--fresh STEP`: run that step again."),
    click.Option(["--fresh-step", "fresh_steps"], multiple=True, hidden=True),
    click.Option(["--again"], multiple=True, metavar="STEP",
                 help="This step may begin although it is --once and has begun before; again for others."),
    click.Option(["--with", "step_options"], multiple=True, metavar="OPTIONS",
                 help="Options for all steps, `retry=2,card`; a step's own go before them."),
    ALL_CELLS,
    click.Option(["--verified"], is_flag=True, help="Only where `verify` has found the notebook, as it is, equal."),
    click.Option(["--tag", "tags"], multiple=True, metavar="T", help="Tag the run; again for others."),
)  # fmt: skip
"""What says what a run would be."""


class Word(click.Argument):
    """A word that stands by itself; `noun` says what it names where it was left out: `a step`."""

    def __init__(self, name: str, metavar: str, noun: str = "", **more: Any) -> None:
        left_out = not more.get("required", True) and not metavar.startswith("[")
        super().__init__([name], metavar=f"[{metavar}]" if left_out else metavar, **more)
        self.noun = noun


class Command(click.Command):
    """A command of either face; what its words ask of a run goes on as one RunOptions, `options`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words: one right after `--fresh` or `--write` is its own, unless the command would then lack one."""
        words, flags = join_optional(args), join_optional(args, following=False)
        try:
            rest = super().parse_args(ctx, words)
        except click.MissingParameter:
            if words == flags:
                raise
            ctx.params.clear()
            rest = super().parse_args(ctx, flags)
        if "fresh" in ctx.params:
            ctx.params["options"] = _take_options(ctx.params)
        return rest


OPTIONAL: Mapping[str, str] = {"--fresh": "--fresh-step", "--write": "--write-to"}
"""Options that may have a word of their own or none, and the option that stands for them with one."""


def join_optional(words: Sequence[str], *, following: bool = True) -> list[str]:
    """Return words with `--fresh=WORD` and, if `following`, `--fresh WORD` written as `--fresh-step=WORD`."""
    split: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return [*split, word, *queue]
        option, equals, value = word.partition("=")
        if option in OPTIONAL and equals:
            split.append(f"{OPTIONAL[option]}={value}")
        elif word in OPTIONAL and following and queue and not queue[0].startswith("-"):
            split.append(f"{OPTIONAL[word]}={queue.pop(0)}")
        else:
            split.append(word)
    return split


def _take_options(values: dict[str, Any]) -> RunOptions:
    """Take what is asked of a run out of a command's values: those of PLAN, STEP and ONLY, and words for steps."""
    params = {}
    for word in values.pop("params"):
        name, separator, value = word.partition("=")
        if not separator or not name.strip():
            raise click.UsageError(f"-p {word}: a parameter is written NAME=VALUE")
        params[name.strip()] = value
    steps = (*values.pop("words", ()), *values.pop("steps", ()))
    fresh, fresh_steps = values.pop("fresh"), values.pop("fresh_steps")
    names = ("params_file", "on", "workers", "again", "all_cells", "tags", "step_options", "verified")
    others = {name: values.pop(name) for name in names}
    return RunOptions(
        params=params, fresh=fresh_steps or fresh, steps=steps or None, only=values.pop("only", None), **others
    )


def perform(group: click.Group, path: str, words: Sequence[str], face: Face) -> Answer | None:
    """Perform words and return what the command returns, None for a help text; raise OptionError for wrong words.

    `path` is what stands before the words, and `face` what the commands get. click's own `main` would turn an interrupt
    and the end of a file within the command into something else.
    """
    try:
        with group.make_context(path, list(words), obj=face) as ctx:
            answer: Answer | None = group.invoke(ctx)
            return answer
    except click.exceptions.Exit:
        return None
    except click.ClickException as error:
        raise usage_error(error, " ".join([path, *words[:1]])) from None


def usage_error(error: click.ClickException, path: str) -> NbflowError:
    """Return click's error on a command as ours, which lists what is known and names the nearest."""
    message = error.format_message().rstrip(".")
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        return OptionError(message[:1].lower() + message[1:], fix=f"`{path} --help` lists the options")
    if isinstance(error, click.NoSuchOption):
        shown = (each for each in ctx.command.params if not getattr(each, "hidden", False))
        options = sorted({word for each in shown for word in each.opts if word.startswith("-")})
        close = nearest(error.option_name, options)
        return OptionError(f"no option {error.option_name}{close}", fix=f"known: {', '.join(options) or 'none'}")
    if isinstance(ctx.command, click.Group) and message.startswith("No such command"):
        commands = ctx.command.list_commands(ctx)
        word = message.split("'")[1] if "'" in message else ""
        return OptionError(f"no command {word!r}{nearest(word, commands)}", fix=f"known: {', '.join(commands)}")
    if isinstance(error, click.MissingParameter) and isinstance(error.param, Word):
        metavars = (each.metavar for each in ctx.command.params if isinstance(each, Word))
        line = " ".join([ctx.command_path, *filter(None, metavars)])
        noun = error.param.noun
        return OptionError(f"no {noun} was given: `{ctx.command_path}` needs one", fix=f"write `{line}`")
    return OptionError(message[:1].lower() + message[1:], fix=f"`{ctx.command_path} --help` lists the options")


def add_commands(
    group: click.Group,
    commands: Mapping[str, tuple[Callable[..., Any], Sequence[click.Parameter]]],
    kind: type[Command] = Command,
) -> None:
    """Put commands into a group: by name what performs each, which is given the face first, and its parameters."""
    for name, (action, params) in commands.items():
        group.add_command(kind(name, callback=click.pass_obj(action), params=list(params), help=action.__doc__))
