"""`from __future__ import annotations`: annotations are text, here and in every cell below; nobody reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow import reference
from nbflow.analysis.cell import analyse
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import document_of, parse_document
from nbflow.model import Flow, Step
from nbflow.runs import launch
from tests.support.kernel import Kernel, NotebookFile

FUTURE = "from __future__ import annotations"


def flow_of(*cells: str) -> Flow:
    document = document_of(((f"c{at}", source) for at, source in enumerate(cells, 1)), "flow")
    return build_flow(parse_document(document, name="flow", folder="/nowhere"))


def needs(step: Step) -> set[str]:
    return set(step.needs)


@pytest.mark.parametrize(
    "source",
    [
        "def f(a: A, *b: B, c: C = 1, **d: D) -> R:\n    x: X = 1\n    return a",
        "async def f(a: A) -> R: ...",
        "class K:\n    x: A\n    y: B = 1\n    def m(self, other: K) -> R: ...",
        "x: A = 1",
        "x: A",
        "def f():\n    def g(a: A): ...\n    return g",
    ],
)
def test_annotations_are_not_read(source: str) -> None:
    assert analyse(f"{FUTURE}\n{source}").reads == frozenset()
    assert analyse(source, postponed=True).reads == frozenset()
    assert all(statement.reads | statement.deferred == set() for statement in analyse(f"{FUTURE}\n{source}").statements)


def test_everything_else_is_read() -> None:
    source = "@wrap\nclass K(Base):\n    x: A = value\n    def m(self, a: B = default) -> R:\n        return body"
    assert analyse(f"{FUTURE}\n{source}").reads == {"wrap", "Base", "value", "default", "body"}
    assert analyse(source).reads == {"wrap", "Base", "value", "default", "body", "A", "B", "R"}


def test_names_that_nobody_has_are_no_finding() -> None:
    body = "%%step b\ndef f(x: Nowhere, y: late) -> Elsewhere:\n    return 1\nn: Never = f(1, 2)"
    assert not [each for each in flow_of(FUTURE, body, "%%step c\nlate = n").findings if each.level == "error"]
    assert [each.name for each in flow_of(body, "%%step c\nlate = n").findings if each.level == "error"]
    said = flow_of("note = 'from __future__ import annotations'", body, "%%step c\nlate = n")
    assert [each for each in said.findings if each.level == "error"], "a text is no import"


def test_data_in_an_annotation_is_no_edge() -> None:
    cells = ("%%step a\ndf = 1", "%%step b\ndef f(x: df) -> df:\n    return 2\ny = f(1)")
    assert needs(flow_of(FUTURE, *cells).step("b")) == set()
    assert needs(flow_of(*cells).step("b")) == {"a"}


@pytest.mark.running
def test_what_asks_for_hints_finds_the_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    cells = {
        "future": f"{FUTURE}\nfrom dataclasses import dataclass\nfrom typing import get_type_hints",
        "point": "@dataclass\nclass Point:\n    x: Number\n    def far(self) -> Number:\n        return self.x * scale",
        "number": "class Number(int): ...",
        "scale": "%%step scale\nscale = 10",
        "box": (
            "@dataclass\nclass Box:\n    corner: Point\n    def hints(self):\n        return get_type_hints(type(self))"
        ),
        "use": (
            "%%step use\nbox = Box(2)\nfound = box.hints()['corner'](3).far()\n"
            "def own(a: Point, b: Missing) -> Box: ...\nnames = sorted(own.__annotations__.values())"
        ),
        "late": "%%step late\nhints = sorted(get_type_hints(box.hints()['corner']))\ncorner = box.corner",
    }
    path = tmp_path / "flow.ipynb"
    path.write_text(document_of(cells.items(), "flow"))
    expected = reference.run(path)
    assert (expected["found"], expected["names"], expected["hints"]) == (30, ["Box", "Missing", "Point"], ["x"])
    run = nbflow.run(path)
    assert run.successful, run.error
    assert {name: run.data[name] for name in ("found", "names", "hints", "corner")} == {
        name: expected[name] for name in ("found", "names", "hints", "corner")
    }
    with Kernel(NotebookFile(path, cells)) as kernel:
        kernel.ok(*cells)
        assert kernel.value("found, names, hints") == "(30, ['Box', 'Missing', 'Point'], ['x'])"


@pytest.mark.running
def test_pydantic_models_across_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydantic")
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    cells = (
        f"{FUTURE}\nfrom pydantic import BaseModel",
        "class Point(BaseModel):\n    x: int",
        "class Box(BaseModel):\n    corner: Point",
        "%%step make\nbox = Box(corner={'x': '4'})",
        "%%step read\nx = box.corner.x",
    )
    path = tmp_path / "flow.ipynb"
    path.write_text(document_of(((f"c{at}", source) for at, source in enumerate(cells)), "flow"))
    run = nbflow.run(path)
    assert run.successful, run.error
    assert run.data.x == 4


@pytest.mark.running
def test_editing_what_only_an_annotation_names_reuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "flow.ipynb"
    body = "%%step b\ndef f(x: limit):\n    return 2\ny = f(1)"
    for limit, action in ((1, "run"), (2, "reuse")):
        cells = {"future": FUTURE, "a": f"%%step a\nlimit = {limit}", "b": body}
        path.write_text(document_of(cells.items(), "flow"))
        assert launch.why(path, "b")["action"] == action
        assert nbflow.run(path).successful
