"""`page/messages.py` and `labextension/src/messages.ts` say the same, field by field; so do the tables of marks."""

from __future__ import annotations

import json
import re
import typing

from nbflow.model import WORST_FIRST
from nbflow.page import messages
from nbflow.render.listing import STATUS_MARKS
from nbflow.render.preview import MARKS
from tests.support.places import ROOT

SOURCES = ROOT / "labextension" / "src"
PLAIN = {"str": "string", "int": "number", "float": "number", "bool": "boolean", "NoneType": "null", "Any": "unknown"}


def written(annotation: object) -> str:
    """A field's annotation in; its TypeScript out."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(f"'{value}'" for value in inner)
    if origin is list:
        return f"{written(inner[0])}[]"
    if origin is dict:
        return f"Record<{written(inner[0])}, {written(inner[1])}>"
    if inner:
        return " | ".join(written(one) for one in inner)
    name = annotation.__name__  # type: ignore[attr-defined]
    return PLAIN.get(name, name)


def of_python() -> dict[str, dict[str, str]]:
    found = (one for one in vars(messages).values() if typing.is_typeddict(one))
    return {one.__name__: {name: written(of) for name, of in typing.get_type_hints(one).items()} for one in found}


def of_typescript() -> dict[str, dict[str, str]]:
    text = (SOURCES / "messages.ts").read_text()
    found = re.findall(r"export interface (\w+) \{\n(.*?)\n\}", text, re.DOTALL)
    return {name: dict(re.findall(r"^\s*(\w+): (.+);$", body, re.MULTILINE)) for name, body in found}


def test_both_sides_have_the_same_messages() -> None:
    assert of_typescript() == of_python()


def test_both_sides_know_the_same_unions_and_constants() -> None:
    text = (SOURCES / "messages.ts").read_text()
    for name in ("KernelMessage", "Command"):
        members = re.search(rf"export type {name} =([^;]+);", text)
        assert members is not None
        assert set(re.findall(r"\w+", members[1])) == {one.__name__ for one in typing.get_args(getattr(messages, name))}
    for name in ("PROTOCOL", "EVENTS", "CONTROL"):
        constant = re.search(rf"export const {name} = (.+);", text)
        assert constant is not None
        assert json.loads(constant[1].replace("'", '"')) == getattr(messages, name)


def table(name: str) -> dict[str, str]:
    found = re.search(
        rf"export const {name}.*?= \{{(.*?)\}};", (SOURCES / "drawing" / "words.ts").read_text(), re.DOTALL
    )
    assert found is not None
    return dict(re.findall(r"(\w+): '(.)'", found[1]))


def test_states_have_the_same_marks_in_terminals_and_panels() -> None:
    assert table("MARKS") == MARKS
    assert table("STATUS_MARKS") == STATUS_MARKS
    order = re.search(r"WORST_FIRST.*?= \[(.*?)\];", (SOURCES / "drawing" / "words.ts").read_text(), re.DOTALL)
    assert order is not None
    assert tuple(re.findall(r"'(\w+)'", order[1])) == WORST_FIRST
