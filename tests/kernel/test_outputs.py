"""What cells show by hand is kept as it was shown, whatever it is made of: it can be stored, and stands there again."""

from __future__ import annotations

import re
from typing import Any

import pytest

import nbflow
from tests.support.by_hand import Start, states
from tests.support.kernel import Executed

pytestmark = pytest.mark.running

HEAD = """import datetime, os, sys, markupsafe, numpy as np
from IPython.display import display
from nbflow import card
class Label(str):
    def __str__(self): return self
    __repr__ = __str__
class Count(int): pass
class Options(dict): pass
class Shown:
    def __init__(self, **parts): self.parts = {name.replace("_", "/"): part for name, part in parts.items()}
    def _repr_mimebundle_(self, **_): return self.parts, {name: {"wide": Count(3)} for name in self.parts}"""
CELLS = {
    "component": "card.append('words')",
    "components": "parts = [card.append(word) for word in ('one', 'two')]\nparts[0]",
    "markup": "Shown(text_plain='v', text_html=markupsafe.Markup('<b>v</b>'))",
    "label": "Label('words')",
    "labels": "Shown(text_plain=Label('v'), application_json=Options(a=[Label('x'), Count(2)]))",
    "numbers": "Shown(text_plain='v', application_json={'a': np.float64(0.5), 'b': [np.int64(3)], 'c': 2.5})",
    "keys": "Shown(text_plain='v', application_json={Label('a'): 1, 2: 3})",
    "dates": "Shown(text_plain='v', application_json=[datetime.date(2024, 2, 29)])",
    "half": "Shown(text_plain='name: \\udce9')",
    "printed": "print('name: \\udce9', Label('words'))\nsys.stderr.write(Label('more'));",
    "changed": "bundle = {'text/plain': 'then'}\ndisplay(bundle, raw=True)\nbundle['text/plain'] = 'now'",
    "value": "made = Label('words')\nOdd = type(Label('Odd'), (), {})\nodd = Odd()\nbyte = os.fsdecode(b'\\xe9')",
}
FAILING = {"label": "raise ValueError(Label('words'))", "half": "raise ValueError('name: \\udce9')"}
CARD = "application/vnd.nbflow.card+json"
REUSED = re.compile(r"reused from .*\n")


def shown(executed: Executed) -> list[Any]:
    """What a cell showed, without the line that says where it comes from, and without cards, which grow in place.

    A kernel sends text whenever it comes to it: a line may come in two pieces.
    """
    found: list[Any] = []
    for message in executed.messages:
        content = message["content"]
        if "text" in content:
            before = found.pop() if found and isinstance(found[-1], str) else ""
            found.append(before + content["text"])
        elif CARD not in content["data"] and "nbflow_card" not in content["metadata"]:
            found.append((message["msg_type"], content["data"], content["metadata"]))
    texts = [REUSED.sub("", each) if isinstance(each, str) else each for each in found]
    return [each for each in texts if each]


def test_whatever_a_cell_shows_is_kept(start: Start) -> None:
    cells = {"head": HEAD, **{name: f"%%step {name}\n{source}" for name, source in CELLS.items()}}
    kernel = start(cells)
    kernel.ok("head")
    first = {name: shown(kernel.ok(name)) for name in CELLS}
    assert [name for name, found in first.items() if not found] == ["value"]
    assert "callback" not in str(first)
    assert states(kernel) == [(name, "done") for name in CELLS]
    kernel.restart()
    again = {name: shown(kernel.ok(name)) for name in CELLS}
    assert again == first
    assert states(kernel)[-len(CELLS) :] == [(name, "reused") for name in CELLS]
    run = nbflow.run(kernel.notebook.path)
    assert {step.state for step in run.steps()} == {"reused"}


def test_what_a_cell_raised_is_kept(start: Start) -> None:
    kernel = start({"head": HEAD, **{name: f"%%step {name}\n{source}" for name, source in FAILING.items()}})
    kernel.ok("head")
    for name in FAILING:
        assert kernel.run(name).ename == "ValueError"
    assert states(kernel) == [(name, "failed") for name in FAILING]
    run = nbflow.run(kernel.notebook.path)
    assert not run.successful
    assert [step.task.error.message for step in run.steps() if step.task.error] == ["words", "name: \ufffd"]
