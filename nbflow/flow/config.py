"""A `%%config` cell: the values of a file, or its own, put into its lines as if they were written there. Pure.

What comes out is a params cell, whose defaults are the values that count when the notebook is read: keys, types, `-p`,
exports and whatever else is made of parameters knows no config.
"""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from nbflow.errors import OptionError, nearest
from nbflow.flow.parameters import Config, convert, literal_of, override_source, read_parameters, source_of
from nbflow.model import Cell, Frozen, Parameter

USAGE = "%%config [FILE [--as NAME]]"


class ConfigHeader(Frozen, frozen=True, kw_only=True):
    """What stands behind `%%config`: a file, and the one name that all of it is to have, if any."""

    file: str = ""
    name: str = ""


def parse_config(rest: str) -> ConfigHeader:
    """Return what the line of a `%%config` cell says; OptionError where it says something else."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise OptionError(f"`%%config {rest}` cannot be read: {error}", fix=f"write `{USAGE}`") from None
    match words:
        case []:
            return ConfigHeader()
        case [file] if not file.startswith("--"):
            return ConfigHeader(file=file)
        case [file, "--as", name] if name.isidentifier() and not name.startswith("_"):
            return ConfigHeader(file=file, name=name)
    raise OptionError(f"`%%config {rest}` cannot be read", fix=f"write `{USAGE}`")


def parse_values(text: str, suffix: str) -> dict[str, Any]:
    """Return the values of a JSON, YAML or TOML text by name; ValueError says what is wrong with it.

    ImportError where it is YAML, for which there is no reader.
    """
    content = _READERS.get(suffix.lower(), json.loads)(text)
    if not isinstance(content, dict):
        raise ValueError("it is no mapping of names to values")  # noqa: TRY004  # the text is wrong
    return {str(name): value for name, value in content.items()}


def _toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


_READERS: Mapping[str, Callable[[str], Any]] = {".toml": _toml, ".yaml": _yaml, ".yml": _yaml}


def with_values(header: ConfigHeader, body: str, values: Mapping[str, Any]) -> str:
    """Return the body of a params cell that says what a config cell and the values of its file come to.

    Each line of the cell takes the file's value of its name, its own where the file has none; OptionError says which
    has neither, or is of another type.
    """
    try:
        statements = ast.parse(body).body
    except (SyntaxError, ValueError):
        return body  # the flow says so of its cell
    if header.name:
        if statements:
            raise OptionError(
                f"`--as {header.name}` gives all of {header.file} one name, and the cell has lines of its own",
                fix="leave the lines out, or `--as`",
            )
        _, *rest = body.split("\n")
        return "\n".join([f"{header.name} = {source_of(Config(values))}", *rest])
    parameters = read_parameters(Cell(id="", position=1, source=body, body=body))
    if header.file and not parameters:
        raise OptionError(
            f"the cell does not say which values of {header.file} it takes",
            fix="write a line for each, `limit: int`, or `--as NAME` behind the file for one name that holds all",
        )
    texts: dict[str, Any] = {}
    for each in parameters:
        if each.name in values:
            texts[each.name] = _typed(header.file, each, values[each.name])
        elif each.default is None:
            raise _missing(header.file, each.name, values)
        elif isinstance(default := literal_of(each.default), dict):
            texts[each.name] = Config(default)
    return override_source(body, texts)


def _typed(file: str, parameter: Parameter, value: Any) -> Any:
    try:
        typed = convert(value, parameter.annotation) if parameter.annotation is not None else value
    except (ValueError, TypeError) as error:
        name = parameter.name
        raise OptionError(f"{file}: {name} = {value!r}: {error}", fix=f"correct {name} in {file}") from None
    return Config(typed) if isinstance(typed, dict) else typed


def _missing(file: str, name: str, values: Mapping[str, Any]) -> OptionError:
    if not file:
        return OptionError(f"{name} has no value", fix=f"write it behind the name: `{name} = …`")
    return OptionError(
        f"{file} has no {name!r}{nearest(name, values)}", fix=f"add it to {file}, or write a value behind the name"
    )
