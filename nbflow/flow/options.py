"""The option line of a step: `NAME --foreach x in xs --gpu 1` → a name and StepOptions."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from typing import Any

import msgspec

from nbflow.errors import OptionError, nearest
from nbflow.model import Foreach, StepOptions, TaskFailure

_UNITS_TIME = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_UNITS_SIZE = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)((?:\.\w+|\[\w+\])*)\}")
"""A parameter in an option's text, and what of it is meant: `{limit}`, `{settings.limits[0]}`."""

_BAD_NAME = re.compile(r"[\x00-\x1f\x7f\"'`\\/<>|*?#{}\[\],;=]|\.\.|^-|^\.|\s")


class Option(msgspec.Struct, frozen=True):
    """One option: the field of StepOptions that it sets, what its value looks like, and how that is read.

    `parse` is None for a flag; `expression` values run on to the next known option. One that is no `shape` of the flow
    may take parameters' values, `{limit}`, and may be given to all steps at once. `help` is a sentence for people,
    `example` as it stands behind a step's name.
    """

    field: str
    value: str = ""
    parse: Callable[[str], Any] | None = None
    expression: bool = False
    shape: bool = False
    help: str = ""
    example: str = ""


def parse_duration(text: str) -> float:
    """Return `90s`, `1.5h`, `2d`, or a plain number of seconds, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if not match or (match[2] and match[2] not in _UNITS_TIME):
        raise ValueError(f"{text!r} is no duration: write a number with one of {', '.join(_UNITS_TIME)}")
    return float(match[1]) * _UNITS_TIME.get(match[2], 1)


def parse_size(text: str) -> int:
    """Return `512M`, `8G`, `8GiB`, or a plain number of bytes, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if not match or match[2] not in _UNITS_SIZE:
        raise ValueError(f"{text!r} is no size: write a number with K, M, G or T (Ki, Mi … for powers of two)")
    return int(float(match[1]) * _UNITS_SIZE[match[2]])


def _names(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError("names are missing")
    return parts


def _count(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _positive(text: str) -> int:
    number = _count(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not 0 <= number < float("inf"):
        raise ValueError("must be zero or more")
    return number


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(f"{text!r} is no variable name")
    return text


def _expression(text: str) -> str:
    try:
        _binds_nothing(ast.parse(text.strip(), mode="eval"))
    except SyntaxError as error:
        raise ValueError(f"{text.strip()!r} is no Python expression: {error.msg}") from None
    return text.strip()


class _Mended(ValueError):
    """A value that cannot be used, with what to write instead of it."""

    def __init__(self, message: str, instead: str) -> None:
        super().__init__(message)
        self.instead = instead


def _condition(text: str) -> str:
    """Return an expression that is no string: whatever its words say, one would always be true (an empty one false)."""
    expression = _expression(text)
    tree = ast.parse(expression, mode="eval").body
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        inner = tree.value.strip()
        raise _Mended(f"{expression} is a string, which is always {bool(tree.value)}", inner or "EXPR")
    if isinstance(tree, ast.JoinedStr):
        raise _Mended(f"{expression} is a string, which is true whatever it says", "EXPR")
    return expression


def _binds_nothing(expression: ast.AST) -> None:
    """Raise ValueError for `:=`: whether the name is bound would depend on where the expression is evaluated."""
    for node in ast.walk(expression):
        if isinstance(node, ast.NamedExpr):
            raise ValueError(f"`{ast.unparse(node)}` would bind {node.target.id}: bind it in the cell, or in one above")  # noqa: TRY004  # the text is wrong


def _foreach(text: str) -> Foreach:
    try:
        (loop,) = ast.parse(f"for {text.strip()}: pass").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{text.strip()!r} is not `NAME in EXPRESSION`: {getattr(error, 'msg', error)}") from None
    if not isinstance(loop, ast.For):
        raise ValueError(f"{text.strip()!r} is not `NAME in EXPRESSION`")  # noqa: TRY004  # the text is wrong
    _binds_nothing(loop.iter)
    return Foreach(target=ast.unparse(loop.target), expr=ast.unparse(loop.iter))


OPTIONS: dict[str, Option] = {
    "foreach": Option(
        "foreach",
        "TARGET in EXPR",
        _foreach,
        expression=True,
        shape=True,
        help="Run once for each item, side by side, this step and those that read what it writes, up to a `--join`.",
        example="--foreach depth in [2, 4, 8]",
    ),
    "join": Option(
        "join",
        "STEP[,STEP]",
        _names,
        shape=True,
        help="Close a fan-out: `inputs` holds what each item left. Over other steps: `inputs.STEP.NAME`.",
        example="--join fit",
    ),
    "if": Option(
        "condition",
        "EXPR",
        _condition,
        expression=True,
        shape=True,
        help="Skip the step where this is false; readers fall back to earlier cells.",
        example="--if retrain",
    ),
    "until": Option(
        "until",
        "EXPR",
        _condition,
        expression=True,
        shape=True,
        help="Run again, on what the last turn left, until this is true.",
        example="--until loss < 0.01 --max 20",
    ),
    "max": Option(
        "max",
        "N",
        _positive,
        shape=True,
        help="The most turns of an `--until`; 1000 without it.",
        example="--until loss < 0.01 --max 20",
    ),
    "after": Option(
        "after",
        "STEP[,STEP]",
        _names,
        shape=True,
        help="Run after these steps although nothing is read from them.",
        example="--after load,clean",
    ),
    "in": Option(
        "inputs",
        "NAME[,NAME]",
        _names,
        shape=True,
        help="What the step reads, instead of what its text says.",
        example="--in X,y",
    ),
    "out": Option(
        "outputs",
        "NAME[,NAME]",
        _names,
        shape=True,
        help="What the step leaves, instead of all public names that it writes.",
        example="--out model",
    ),
    "cpu": Option(
        "cpu",
        "N",
        _amount,
        help="Cores that the step takes.",
        example="--cpu 4",
    ),
    "gpu": Option(
        "gpu",
        "N",
        _amount,
        help="GPUs that the step takes.",
        example="--gpu 1",
    ),
    "memory": Option(
        "memory",
        "SIZE",
        parse_size,
        help="Memory that the step may take.",
        example="--memory 8G",
    ),
    "nodes": Option(
        "nodes",
        "N",
        _positive,
        help="Machines that the step takes.",
        example="--nodes 2",
    ),
    "on": Option(
        "on",
        "URL",
        str,
        help="Where the step runs, if not where the run does.",
        example="--on ray://gpu-box:10001",
    ),
    "retry": Option(
        "retry",
        "N",
        _count,
        help="Attempts after one that failed.",
        example="--retry 2",
    ),
    "backoff": Option(
        "backoff",
        "SECONDS",
        parse_duration,
        help="Time before another attempt.",
        example="--retry 3 --backoff 10s",
    ),
    "retry-on": Option(
        "retry_on",
        "TYPE[,TYPE]",
        _names,
        help="Errors after which there is another attempt; any without it.",
        example="--retry 2 --retry-on ConnectionError",
    ),
    "timeout": Option(
        "timeout",
        "90s",
        parse_duration,
        help="The longest that an attempt may take.",
        example="--timeout 90s",
    ),
    "catch": Option(
        "catch",
        "NAME",
        _identifier,
        shape=True,
        help="Go on after a failure; NAME holds it, or None.",
        example="--catch problem",
    ),
    "once": Option(
        "once",
        shape=True,
        help="Begin at most one execution, whatever fails or is killed.",
        example="--once",
    ),
    "workers": Option(
        "workers",
        "N",
        _positive,
        help="The most items at once.",
        example="--workers 4",
    ),
    "serial": Option(
        "serial",
        help="Items one after another, in order.",
        example="--serial",
    ),
    "no-cache": Option(
        "no_cache",
        help="Never reuse its result.",
        example="--no-cache",
    ),
    "expires": Option(
        "expires",
        "1d",
        parse_duration,
        help="Reuse its result only while it is younger than this.",
        example="--expires 1d",
    ),
    "pure": Option(
        "pure",
        help="It changes nothing that it is given: do not look.",
        example="--pure",
    ),
    "card": Option(
        "card",
        help="Show its card below what it shows.",
        example="--card",
    ),
    "env": Option(
        "env",
        "FILE",
        str,
        help="Packages from a file of requirements, in an environment of its own.",
        example="--env gpu.txt",
    ),
    "pip": Option(
        "pip",
        '"pkg==1"',
        lambda text: tuple(shlex.split(text)),
        help="Packages in an environment of its own.",
        example='--pip "polars==1.9"',
    ),
    "secret": Option(
        "secret",
        "NAME[,NAME]",
        _names,
        help="Environment variables that only this step gets, masked in all that is shown or kept.",
        example="--secret API_TOKEN",
    ),
    "here": Option(
        "here",
        shape=True,
        help="Run in the kernel, whatever the other options ask for.",
        example="--here",
    ),
}
"""Every option of a step by its name on the line."""


def parse_header(line: str, *, cell: str | None = None) -> tuple[str, StepOptions]:
    """Return the step's name and options of what follows `%%step`; OptionError says what cannot be read."""
    name, words = header_words(line, cell=cell)
    values: dict[str, Any] = {}
    late: dict[str, str] = {}
    for key, text in words:
        option = OPTIONS[key]
        value = text if option.expression else _unquote(text)
        if option.field in values or key in late:
            raise OptionError(f"--{key} is given twice", step=name, cell=cell, line=1, fix="keep one of them")
        if is_late(option, value):
            late[key] = value
        else:
            values[option.field] = parse_value(key, value, name, cell)
    if late and values.get("here"):
        key, value = next(iter(late.items()))
        raise OptionError(
            f"--{key} {value} and --here exclude each other: a cell in the kernel begins before there is a run to give "
            "its options their values", step=name, cell=cell, line=1, fix="leave --here out, or write the value itself",
        )  # fmt: skip
    if values.get("secret") and values.get("here"):
        raise OptionError(
            "--secret and --here exclude each other: what is shown in the kernel itself cannot be masked",
            step=name, cell=cell, line=1, fix="leave --here out: the step then runs in a process",
        )  # fmt: skip
    return name, StepOptions(**values, late=tuple(late.items()))


def header_words(line: str, *, cell: str | None = None) -> tuple[str, list[tuple[str, str]]]:
    """Return the step's name and its options, each with the text that stands behind it, of what follows `%%step`."""
    text = line.strip()
    head = re.match(r"\"[^\"]*\"|'[^']*'|\S+", text)
    if not head or head[0].startswith("--"):
        raise OptionError(
            "the step has no name", cell=cell, line=1, fix="write `%%step NAME`, for example `%%step load`"
        )
    name = check_name(head[0].strip("\"'"), cell=cell)
    return name, _split(text[head.end() :], name, cell)


def check_name(name: str, *, cell: str | None = None) -> str:
    """Return a step's name; OptionError when it holds what no name may hold."""
    if not name or len(name) > 100 or _BAD_NAME.search(name):
        raise OptionError(
            f"{name!r} cannot be a step's name",
            cell=cell,
            line=1,
            fix="use letters, digits, `_`, `-`, `.` or `:`, without spaces, quotes, slashes or `..`",
        )
    return name


def check_tag(tag: str) -> str:
    """Return a run's tag; OptionError when it is empty or holds blanks or control characters."""
    if not tag or len(tag) > 100 or not tag.isprintable() or " " in tag:
        raise OptionError(f"{tag!r} cannot be a tag", fix="use up to 100 characters, without blanks and line ends")
    return tag


def is_late(option: Option, value: str) -> bool:
    """Return whether an option's text takes the value of a parameter."""
    return option.parse is not None and not option.shape and PLACEHOLDER.search(value) is not None


def parse_value(key: str, value: str, step: str | None = None, cell: str | None = None) -> Any:
    """Return what an option's text says, as its field holds it; OptionError says what it should be."""
    option = OPTIONS[key]
    if option.parse is None:
        if value:
            raise OptionError(
                f"--{key} takes no value, but {value!r} follows it",
                step=step,
                cell=cell,
                line=1,
                fix=f"write `--{key}`",
            )
        return True
    if not value:
        raise OptionError(f"--{key} needs a value", step=step, cell=cell, line=1, fix=f"write `--{key} {option.value}`")
    try:
        return option.parse(value)
    except ValueError as error:
        instead = (
            f"--{key} {error.instead}`, without quotes" if isinstance(error, _Mended) else f"--{key} {option.value}`"
        )
        raise OptionError(f"--{key}: {error}", step=step, cell=cell, line=1, fix=f"write `{instead}") from None


def _split(text: str, step: str, cell: str | None) -> list[tuple[str, str]]:
    """Yield (option, value text) pairs of the text after the name, cut at ` --known` outside brackets and quotes."""
    starts = [at for at in _dashes(text) if not _inside_expression(text, at)]
    leading = text[: starts[0]].strip() if starts else text.strip()
    if leading:
        raise OptionError(
            f"{leading!r} after the step's name is no option",
            step=step, cell=cell, line=1, fix="options begin with `--`; a step's name is one word",
        )  # fmt: skip
    pairs = []
    for at, end in zip(starts, [*starts[1:], len(text)][: len(starts)], strict=True):
        key, _, value = re.sub(r"[\s=]", " ", text[at + 2 : end], count=1).partition(" ")
        if key not in OPTIONS:
            raise OptionError(
                f"unknown option --{key}{nearest(key, OPTIONS)}",
                step=step, cell=cell, line=1, fix=f"known options: {', '.join('--' + name for name in OPTIONS)}",
            )  # fmt: skip
        pairs.append((key, value.strip()))
    return pairs


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _dashes(text: str) -> list[int]:
    """Yield the places of `--` at the start of a word, outside brackets and quotes."""
    places: list[int] = []
    depth, quote, at = 0, "", 0
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth <= 0 and text.startswith("--", at) and (at == 0 or text[at - 1].isspace()):
            places.append(at)
            at += 1
        at += 1
    return places


def _inside_expression(text: str, at: int) -> bool:
    """Return whether a `--` belongs to an expression (`x - --y`): no option's name, behind an expression option."""
    word = re.match(r"--([\w-]*)", text[at:])
    if word is None or word[1] in OPTIONS:
        return False
    before = [place for place in _dashes(text) if place < at]
    options = [re.match(r"--([\w-]*)", text[place:]) for place in before]
    names = [match[1] for match in options if match and match[1] in OPTIONS]
    looks_like_option = bool(re.match(r"--[a-z][a-z-]+(\s|=|$)", text[at:]))
    return bool(names) and OPTIONS[names[-1]].expression and not looks_like_option


def tries_again(options: StepOptions, attempt: int, failure: TaskFailure) -> bool:
    """Return whether `--retry` asks for another attempt after one (counted from 1) that failed.

    With `--once` there is no other one: what has begun may have done its work.
    """
    if attempt > options.retry or failure.kind == "cancelled" or options.once:
        return False
    names = {failure.type, failure.type.rsplit(".", 1)[-1], *failure.bases}
    return not options.retry_on or bool(names & set(options.retry_on))
