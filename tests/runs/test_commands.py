"""`nbflow` and `%flow`: one set of commands and options, the same requests from the same words, the same errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from nbflow.cli import app
from nbflow.errors import OptionError
from nbflow.kernel import commands
from nbflow.runs.command_words import Word, usage_error
from nbflow.runs.run_options import RunOptions

SHELL, NOTEBOOK = app.cli, commands.flow
ONLY_SHELL = {"--write", "--store", "--json"}
ONLY_NOTEBOOK = {"--background"}


def options_of(command: click.Command) -> set[str]:
    return {word for each in command.params if isinstance(each, click.Option) and not each.hidden for word in each.opts}


def test_a_notebook_has_every_command_of_the_shell() -> None:
    assert NOTEBOOK.commands.keys() - SHELL.commands.keys() == {"load", "status", "config", "help"}
    assert SHELL.commands.keys() - NOTEBOOK.commands.keys() == {"worker", "serve", "tutorial"}


@pytest.mark.parametrize("name", sorted(SHELL.commands.keys() & NOTEBOOK.commands.keys()))
def test_both_faces_know_the_same_options(name: str) -> None:
    shell, notebook = SHELL.commands[name], NOTEBOOK.commands[name]
    assert options_of(shell) - ONLY_SHELL == options_of(notebook) - ONLY_NOTEBOOK
    assert "--store" in options_of(shell)
    assert not options_of(notebook) & ONLY_SHELL
    if name != "doctor":
        assert shell.help == notebook.help


@pytest.mark.parametrize("group", [SHELL, NOTEBOOK], ids=["shell", "notebook"])
def test_what_may_be_left_out_stands_in_brackets(group: click.Group) -> None:
    words = [each for command in group.commands.values() for each in command.params if isinstance(each, Word)]
    assert words
    assert all(
        (each.metavar or "").startswith("[") is not each.required
        for each in words
        if each.name not in ("place", "task")
    )
    assert all(each.noun for each in words if each.required)


# ---------------------------------------------------------------- words → what they ask for


def asked(group: click.Group, name: str, words: list[str]) -> dict[str, Any]:
    """What a command is given for words, and for the shell also its notebook."""
    face = app.CommandLine()
    command = group.commands[name]
    with click.Context(group, info_name="nbflow" if group is SHELL else "%flow", obj=face) as above:
        context = command.make_context(name, list(words), parent=above)
    return {**context.params, **({"notebook": face.notebook} if face.notebook else {})}


NB = "nb.ipynb"
REQUESTS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("run", [], {}),
    ("run", ["-p", "lr=0.1", "-p", "name=a=b"], {"params": {"lr": "0.1", "name": "a=b"}}),
    ("run", ["--param=lr=-1"], {"params": {"lr": "-1"}}),
    ("run", ["--params", "p.yaml", "--on", "ray://x:1", "--workers", "3"],
     {"params_file": "p.yaml", "on": "ray://x:1", "workers": 3}),
    ("run", ["--fresh"], {"fresh": True}),
    ("run", ["--fresh=a", "--fresh", "b", "--all-cells"], {"fresh": ("a", "b"), "all_cells": True}),
    ("run", ["--fresh", "a", "--tag", "t", "--tag", "u"], {"fresh": ("a",), "tags": ("t", "u")}),
    ("run", ["--step", "a", "--step", "b"], {"steps": ("a", "b")}),
    ("plan", ["--only", "a", "--again", "b"], {"only": "a", "again": ("b",)}),
]  # fmt: skip


def request_of(wishes: dict[str, Any]) -> RunOptions:
    return RunOptions(**{"again": (), "tags": (), **wishes})


@pytest.mark.parametrize(("name", "words", "wishes"), REQUESTS, ids=str)
def test_the_same_words_ask_for_the_same(name: str, words: list[str], wishes: dict[str, Any]) -> None:
    shell = asked(SHELL, name, [*words, NB])
    assert shell == asked(SHELL, name, [NB, *words])
    assert shell.pop("notebook") == NB
    notebook = asked(NOTEBOOK, name, words)
    notebook.pop("background", None)
    assert shell == notebook == {"options": request_of(wishes)}


@pytest.mark.parametrize(
    ("name", "words", "request_"),
    [
        ("run", ["--fresh", NB], {"notebook": NB, "options": request_of({"fresh": True})}),
        ("run", ["--fresh", "a", NB], {"notebook": NB, "options": request_of({"fresh": ("a",)})}),
        ("run", ["--fresh=a", "--fresh", NB], {"notebook": NB, "options": request_of({"fresh": ("a",)})}),
        ("why", ["--fresh", NB, "a"], {"notebook": NB, "step": "a", "options": request_of({"fresh": True})}),
        ("why", [NB, "--fresh", "a"], {"notebook": NB, "step": "a", "options": request_of({"fresh": True})}),
        ("why", [NB, "a", "--fresh", "b"], {"notebook": NB, "step": "a", "options": request_of({"fresh": ("b",)})}),
        ("resume", ["--fresh", "a"], {"run": None, "options": request_of({"fresh": ("a",)})}),
        ("show", ["latest", "--store", "s"], {"place": "latest", "target": None}),
        ("tag", ["flow/latest", "a=b", "--remove", "c"], {"run": "flow/latest", "tags": ("a=b",), "removed": ("c",)}),
    ],
    ids=str,
)
def test_words_of_a_shell(name: str, words: list[str], request_: dict[str, Any]) -> None:
    params = asked(SHELL, name, words)
    assert {key: value for key, value in params.items() if key != "cost"} == request_


@pytest.mark.parametrize(
    ("name", "words", "request_"),
    [
        ("run", ["a", "b", "--step", "c"], {"steps": ("a", "b", "c")}),
        ("run", ["a", "lr=2", "x=y=z"], {"steps": ("a",), "params": {"lr": "2", "x": "y=z"}}),
        ("run", ["--fresh", "lr=2"], {"fresh": True, "params": {"lr": "2"}}),
        ("run", ["--tag", "a=b", "c=d"], {"tags": ("a=b",), "params": {"c": "d"}}),
        ("run", ["a", "--background"], {"steps": ("a",)}),
        ("plan", ["lr=", "not-a-name=1"], {"params": {"lr": ""}, "steps": ("not-a-name=1",)}),
        ("why", ["lr=2", "a", "--cost"], {"params": {"lr": "2"}}),
        ("why", ["--fresh", "a"], {"fresh": True}),
        ("resume", ["latest", "lr=2"], {"params": {"lr": "2"}}),
    ],
    ids=str,
)
def test_words_of_a_notebook(name: str, words: list[str], request_: dict[str, Any]) -> None:
    params = asked(NOTEBOOK, name, words)
    assert params["options"] == request_of(request_)
    assert params.get("step", "a") == "a"
    assert params.get("background", False) is ("--background" in words)


@pytest.mark.parametrize(("name", "words"), [("tag", ["latest", "a=b"]), ("export", ["--to", "script", "--with=a=b"])])
def test_only_commands_with_parameters_take_them_bare(name: str, words: list[str]) -> None:
    assert "a=b" in str(asked(NOTEBOOK, name, words))
    assert "options" not in asked(NOTEBOOK, name, words)


# ---------------------------------------------------------------- words that are wrong


@pytest.mark.parametrize(
    ("name", "words", "message", "fix"),
    [
        ("run", ["--worker", "2"], "no option --worker; did you mean '--workers'?", "known: --again"),
        ("run", ["-p", "lr"], "-p lr: a parameter is written NAME=VALUE", "run --help` lists the options"),
        ("run", ["--workers", "none"], "'--workers': 'none' is not a valid integer", "run --help` lists the options"),
        ("run", ["--on"], "option '--on' requires an argument", "run --help` lists the options"),
        ("why", [], "no step was given: `", "why NB STEP`"),
        ("logs", [], "no step was given: `", "logs "),
        ("diff", ["a"], "no second run was given: `", "diff RUN RUN`"),
        ("export", [], "missing option '--to'", "export --help` lists the options"),
        ("gc", ["--size", "much"], "'--size': 'much' is no size", "gc --help` lists the options"),
        ("runs", ["--status", "ended"], "'ended' is not one of 'running'", "runs --help` lists the options"),
        ("check", ["one", "two"], "got unexpected extra argument", "check --help` lists the options"),
    ],
    ids=str,
)
@pytest.mark.parametrize("group", [SHELL, NOTEBOOK], ids=["shell", "notebook"])
def test_what_is_wrong_is_said_in_the_same_words(
    group: click.Group, name: str, words: list[str], message: str, fix: str
) -> None:
    given = [NB, *words] if group is SHELL and name in app.ON_NOTEBOOKS else words
    path = "nbflow" if group is SHELL else "%flow"
    with pytest.raises(click.ClickException) as caught:
        asked(group, name, given)
    error = usage_error(caught.value, f"{path} {name}")
    assert isinstance(error, OptionError)
    assert message in error.message
    assert (fix if group is SHELL else fix.replace("NB ", "")) in (error.fix or "")
    assert path in (error.fix or "") or error.fix.startswith("known: ")


def test_the_list_of_commands_says_how_each_is_written() -> None:
    lines = commands.commands_text().splitlines()
    assert len(lines) == len(NOTEBOOK.commands) + 1
    assert all(len(line) <= 120 and "..." not in line.replace("]...", "") for line in lines)


def test_a_shell_without_words_shows_its_help(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert app.main([]) == 0
    seen = capsys.readouterr()
    assert seen.out.startswith("Usage: nbflow [OPTIONS] COMMAND")
    assert seen.err == ""
