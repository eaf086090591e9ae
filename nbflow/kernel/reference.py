"""What may be typed, for people: every option of a step and every verb of `%flow`, made from what reads them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

import click

from nbflow.flow.options import OPTIONS, Option
from nbflow.kernel.commands import commands_text, flow, verb_text
from nbflow.render import preview
from nbflow.runs.command_words import Word

EXAMPLES: Mapping[str, str] = {
    "run": "%flow run lr=0.2",
    "resume": "%flow resume",
    "plan": "%flow plan lr=0.2",
    "why": "%flow why train",
    "check": "%flow check",
    "dag": "%flow dag",
    "verify": "%flow verify",
    "export": "%flow export --to metaflow -o train_flow.py",
    "cancel": "%flow cancel",
    "attach": "%flow attach 20260101-120000-0a1b2c3d4",
    "runs": "%flow runs --status failed",
    "show": "%flow show train/2",
    "logs": "%flow logs train",
    "card": "%flow card train -o card.html",
    "tag": "%flow tag latest best",
    "diff": "%flow diff 20260101-120000-0a1b2c3d4 latest",
    "gc": "%flow gc --dry-run",
    "fsck": "%flow fsck",
    "load": "%flow load train/2",
    "help": "%flow help run",
    "status": "%flow status",
    "config": "%flow config store s3://bucket/flows",
    "doctor": "%flow doctor",
    "trust": "%flow trust",
}
"""A line for each verb."""

HEADERS: Mapping[str, str] = {
    "step": "This cell is a step: `%%step NAME [OPTIONS]`.",
    "params": "This cell's typed assignments, `lr: float = 0.1`, are parameters of runs.",
    "config": "This cell's parameters have the values of a file: `%%config FILE [--as NAME]`.",
    "setup": "This cell runs in every step's process: connections, clients, options of libraries.",
}
"""What a header line makes of its cell."""


def spelt(name: str, option: Option) -> str:
    """Return an option as it is written: `--retry N`."""
    return f"--{name} {option.value}".rstrip()


def option_text(name: str) -> str:
    """Return what an option of a step is for, with an example."""
    option = OPTIONS[name]
    return f"{spelt(name, option)}\n  {option.help}\n  example: %%step train {option.example}"


def header_text(kind: str) -> str:
    """Return what a header line makes of its cell; of a step, with all its options."""
    options = preview.grid((f"  {spelt(name, option)}", option.help) for name, option in OPTIONS.items())
    return "\n".join([HEADERS[kind], *(options if kind == "step" else ())])


def flow_text(verb: str) -> str:
    """Return what a verb does where there is one of that name; else a line for each."""
    return verb_text(verb) if verb in flow.commands else commands_text()


def options_page() -> str:
    """Return docs/options.md."""
    lines = [
        "# Options and verbs", "",
        "Made from the tables that read them (`python -m nbflow.kernel.reference > docs/options.md`). In a notebook",
        "`%%step?`, `%flow help`, `%flow run?` and Tab say the same.", "",
        "## Header lines", "",
        *_table(("line", "meaning"), ((f"`%%{kind}`", text) for kind, text in HEADERS.items())), "",
        "## Options of `%%step`", "",
        *_table(("option", "meaning", "example"), (
            (f"`{spelt(name, option)}`", option.help, f"`%%step train {option.example}`")
            for name, option in OPTIONS.items()
        )), "",
        "An expression's text ends at the next known option. Options without a value are flags.", "",
        "## Verbs of `%flow`", "",
        "`nbflow` has the same commands in a shell, behind which the notebook's path stands: `nbflow run NB`.", "",
    ]  # fmt: skip
    for verb, command in flow.commands.items():
        words = " ".join(each.metavar or "" for each in command.params if isinstance(each, Word))
        lines += [f"### {f'`%flow {verb} {words}'.rstrip()}`", "", inspect.cleandoc(str(command.help)), ""]
        options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
        if options:
            lines += [*_table(("option", "meaning"), ((f"`{_spelt(each)}`", each.help or "") for each in options)), ""]
        lines += [f"Example: `{EXAMPLES[verb]}`", ""]
    return "\n".join(lines)


def _spelt(option: click.Option) -> str:
    kind = "" if option.is_flag else f" {option.metavar or '|'.join(getattr(option.type, 'choices', ()))}"
    return f"{', '.join(option.opts)}{kind}"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [heads, tuple("---" for _ in heads), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


if __name__ == "__main__":
    print(options_page(), end="")
