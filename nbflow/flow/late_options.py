"""Options that are known only when a run begins: those that take parameters' values, those for all steps at once. Pure.

Neither kind shapes the flow: which steps there are and what they read stands before any value is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from nbflow.errors import OptionError, PlanError, nearest
from nbflow.flow.options import OPTIONS, PLACEHOLDER, is_late, parse_value
from nbflow.model import Flow, Parameter, Step, StepOptions


def parse_for_all(words: Sequence[str]) -> StepOptions:
    """Return the options that all steps are to have, written `retry=2,card`; OptionError where one cannot be."""
    values: dict[str, Any] = {}
    late: dict[str, str] = {}
    for key, value in (pair for word in words for pair in _pairs(word)):
        option = OPTIONS.get(key)
        if option is None or option.shape:
            known = [name for name, each in OPTIONS.items() if not each.shape]
            why = "shapes the flow: its step alone can have it"
            why = why if option is not None else f"is no option of a step{nearest(key, known)}"
            raise OptionError(f"--with {key}: it {why}", fix=f"known: {', '.join(known)}")
        if is_late(option, value):
            late[key] = value
        else:
            values[option.field] = parse_value(key, value)
    return StepOptions(**values, late=tuple(late.items()))


def _pairs(word: str) -> Iterator[tuple[str, str]]:
    """Yield the options of one text with their values; a value may itself hold commas: `retry-on=OSError,KeyError`."""
    parts: list[str] = []
    for part in word.split(","):
        name = part.partition("=")[0].strip()
        takes_more = bool(parts) and "," in OPTIONS.get(parts[-1].partition("=")[0].strip(), OPTIONS["card"]).value
        if takes_more and name not in OPTIONS:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    for part in filter(str.strip, parts):
        name, _, value = part.partition("=")
        yield name.strip().removeprefix("--"), value.strip()


def with_for_all(flow: Flow, options: StepOptions) -> Flow:
    """Return a flow whose steps have these options, too, each where it does not say the same option itself."""
    if options == StepOptions():
        return flow
    steps = (step if step.kind == "params" else _with(step, options) for step in flow.steps)
    return msgspec.structs.replace(flow, steps=tuple(steps))


def _with(step: Step, options: StepOptions) -> Step:
    plain, own = StepOptions(), step.options
    said = {OPTIONS[key].field for key, _ in own.late}
    said |= {name for name in StepOptions.__struct_fields__ if getattr(own, name) != getattr(plain, name)}
    values = {name: getattr(options, name) for name in StepOptions.__struct_fields__ if name not in said}
    late = (*own.late, *(pair for pair in options.late if OPTIONS[pair[0]].field not in said))
    return msgspec.structs.replace(step, options=msgspec.structs.replace(own, **{**values, "late": late}))


def unknown_names(step: Step, parameters: Mapping[str, Parameter]) -> Iterator[tuple[str, str]]:
    """Yield each option of a step, as it is written, with a name in it that is no parameter."""
    for key, text in step.options.late:
        for match in PLACEHOLDER.finditer(text):
            if match[1] not in parameters:
                yield f"--{key} {text}", match[1]


def filled(flow: Flow, values: Mapping[str, Any]) -> Flow:
    """Return a flow whose options hold these values of parameters; PlanError names the option where one is none."""
    if not any(step.options.late for step in flow.steps):
        return flow
    return msgspec.structs.replace(flow, steps=tuple(_filled(step, values) for step in flow.steps))


def _filled(step: Step, values: Mapping[str, Any]) -> Step:
    fields: dict[str, Any] = {}
    for key, text in step.options.late:
        where: dict[str, Any] = {"step": step.name, "cell": step.cell, "line": 1}
        try:
            value = PLACEHOLDER.sub(lambda match: _text(_part(match, values)), text)
        except (LookupError, AttributeError, TypeError) as error:
            fix = "name a parameter, or a part of one, that the notebook has"
            raise PlanError(f"--{key} {text} of {step.label} has no value: {error}", **where, fix=fix) from None
        try:
            fields[OPTIONS[key].field] = parse_value(key, value, step.name, step.cell)
        except OptionError as error:
            message = f"--{key} {text} of {step.label} is {value!r} in this run: {error.message}"
            raise PlanError(message, **where, fix=error.fix) from None
    return msgspec.structs.replace(step, options=msgspec.structs.replace(step.options, **fields, late=()))


def _part(match: re.Match[str], values: Mapping[str, Any]) -> Any:
    """Return the value of a parameter, or the part of it that is meant: an attribute, a key, a place."""
    value = values[match[1]]
    for dot, word in re.findall(r"(\.|\[)(\w+)", match[2]):
        value = (
            value[int(word) if word.isdigit() and not isinstance(value, dict) else word]
            if dot == "["
            else getattr(value, word)
        )
    return value


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
