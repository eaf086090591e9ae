"""`%flow` knows every command and every option of the command line."""

from __future__ import annotations

import click
import pytest

from nbflow.cli.app import cli
from nbflow.kernel.commands import COMMANDS, FLAGS

ELSEWHERE = {"store", "json", "fresh-step"}
"""The kernel has its own store, shows objects instead of lines of JSON, and splits `--fresh STEP`."""
NAMES = {"params": "param", "params_file": "params"}
"""Options whose word differs from the name of their value on the command line."""


def options_of(command: click.Command) -> dict[str, click.Option]:
    options = [each for each in command.params if isinstance(each, click.Option)]
    words = [[word[2:] for word in each.opts if word.startswith("--")] for each in options]
    named = {NAMES.get(each.name or "", (word or [""])[0]): each for each, word in zip(options, words, strict=True)}
    return {word: option for word, option in named.items() if word not in ELSEWHERE}


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_both_know_the_same_options(name: str) -> None:
    assert name in COMMANDS
    options = options_of(cli.commands[name])
    assert set(options) <= set(COMMANDS[name].options)
    flags = {word for word, option in options.items() if option.is_flag and word != "fresh"}
    assert flags == set(options) & set(FLAGS)
