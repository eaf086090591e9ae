"""Which steps wait for each other because of files, by their text and by what runs have seen."""

from __future__ import annotations

import pytest

from nbflow.analysis.files import NO_FILES, Files, meet
from nbflow.flow.graph import Seen, build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow

TOP = """
import os, json, shelve
import numpy as np
import xml.etree.ElementTree as ET
from pathlib import Path
import tools
OUT = Path("out")
class Store:
    def __init__(self, path): self.path = path
    def put(self, text):
        with open(self.path, "w") as file: file.write(text)
def save(name, value):
    (OUT / f"{name}.json").write_text(value)
"""
DATA = "n = len(os.sys.argv)"
STORE = "store = Store('kv.txt')"


def flow_of(*sources: str, seen: Seen | None = None) -> Flow:
    cells = [RawCell(f"c{at}", text) for at, text in enumerate(sources)]
    return build_flow(parse_cells(cells, name="n", folder="."), seen=seen or {})


APART = {
    "other names": ("open('a.txt', 'w')", "open('b.txt', 'w')"),
    "both read": ("x = open('a.txt').read()", "y = open('a.txt').read()"),
    "beginnings of names": ("(OUT / f'a_{n}.json').write_text('1')", "(OUT / f'b_{n}.json').write_text('2')"),
    "ends of names": ("open(f'{n}.csv', 'w')", "open(f'{n}.json', 'w')"),
    "folders": ("open(f'left/{n}.csv', 'w')", "open(f'right/{n}.csv', 'w')"),
    "joined": ("open(os.path.join('left', f'{n}.csv'), 'w')", "open('right/' + str(n) + '.csv', 'w')"),
    "below an unknown folder": ("(OUT / 'a.json').write_text('1')", "(OUT / 'b.json').write_text('2')"),
    "a file and a call with text": ("open('a.txt', 'w')", "print('b.txt')\ny = tools.parse('c.txt')"),
}
TOGETHER = {
    "one name": ("open('a.txt', 'w')", "y = open('a.txt').read()"),
    "read, then written": ("x = open('a.txt').read()", "open('a.txt', 'w')"),
    "another way to say it": ("Path('out/a.txt').write_text('1')", "y = open('./out/' + 'a.txt').read()"),
    "a part is unknown": ("(OUT / 'a.json').write_text('1')", "y = open('out/a.json').read()"),
    "both unknown": ("open(f'a{n}.csv', 'w')", "y = open(f'{n}.csv').read()"),
    "from the root": ("open('/data/a.csv', 'w')", "y = open('a.csv').read()"),
    "a folder": ("open('out/a.csv', 'w')", "y = os.listdir('out')"),
    "an unknown folder": ("(OUT / 'a.csv').write_text('1')", "y = os.listdir('out')"),
    "a folder that is made": ("os.makedirs('out')", "open(f'out/{n}.csv', 'w')"),
    "named in calls": ("ET.ElementTree(tools.root).write('a.xml')", "y = ET.parse('a.xml')"),
    "a shelf": ("with shelve.open('s') as s: s['a'] = 1", "with shelve.open('s') as s: y = dict(s)"),
    "mapped": ("y = np.fromfile('a.dat')", "m = np.memmap('a.dat', dtype='int8', mode='r+')"),
    "methods of an object": ("store.put('one')", "y = open('kv.txt').read()"),
    "one helper": ("save('a', '1')", "save('b', '2')"),
    "a link": ("os.symlink('a.txt', 'b.txt')", "y = os.path.lexists('b.txt')"),
}


@pytest.mark.parametrize("how", APART)
def test_files_that_the_text_tells_apart_order_nothing(how: str) -> None:
    one, two = APART[how]
    flow = flow_of(TOP, DATA, f"%%step a\n{one}\np = 1", f"%%step b\n{two}\nq = 2")
    assert [step.ordered for step in flow.steps if step.name == "b"] == [()]
    assert not [edge for edge in flow.edges if edge.why == "files"]


@pytest.mark.parametrize("how", TOGETHER)
def test_files_that_may_be_the_same_order_two_steps(how: str) -> None:
    one, two = TOGETHER[how]
    flow = flow_of(TOP, DATA, STORE, f"%%step a\n{one}\np = 1", f"%%step b\n{two}\nq = 2")
    assert [(edge.frm, edge.to) for edge in flow.edges if edge.why == "files"][-1:] == [("a", "b")]


def test_an_edge_stands_for_those_behind_it() -> None:
    """Four steps that touch one file are a chain of three edges, and none where a name orders them anyway."""
    flow = flow_of(
        "%%step a\nopen('f', 'w')\nx = 1",
        "%%step b\nopen('f', 'a')\ny = x",
        "%%step c\nopen('f', 'a')\nz = 1",
        "%%step d\nw = open('f').read()",
    )
    assert [(edge.frm, edge.to, edge.why) for edge in flow.edges] == [
        ("a", "b", "reads"), ("b", "c", "files"), ("c", "d", "files"),
    ]  # fmt: skip


def test_what_runs_have_seen_counts_instead_of_the_text() -> None:
    cells = (TOP, "%%step a\nsave('a', '1')\np = 1", "%%step b\nsave('b', '2')\nq = 2", "%%step c\nr = tools.total()")

    def edges(seen: Seen) -> list[tuple[str, str]]:
        return [(edge.frm, edge.to) for edge in flow_of(*cells, seen=seen).edges if edge.why == "files"]

    a, b = (Files(writes=frozenset({f"out/{name}.json"})) for name in "ab")
    assert edges({}) == [("a", "b")]
    assert edges({"a": a, "b": b}) == []
    assert edges({"a": a, "b": a}) == [("a", "b")]
    assert edges({"a": a, "b": b, "c": Files(reads=frozenset({"out/b.json"}))}) == [("b", "c")]
    named = flow_of(
        "%%step a\nopen('f.txt', 'w')\nx = 1", "%%step b\ny = open('f.txt').read()",
        seen={"a": Files(writes=frozenset({"f.txt"})), "b": NO_FILES},
    )  # fmt: skip
    assert named.steps[1].ordered == ("a",), "what is written out is meant, seen or not"
    assert edges({"a": a, "b": NO_FILES}) == [("a", "b")], "the text writes, and nothing was seen: in compiled code"


@pytest.mark.parametrize(
    ("one", "other", "does"),
    [
        (Files(writes=None), Files(reads=frozenset({"a"})), True),
        (Files(writes=None), NO_FILES, False),
        (Files(reads=None), Files(reads=None), False),
        (Files(writes=frozenset({"a/b"})), Files(reads=frozenset({"a"})), True),
        (Files(writes=frozenset({"a/b"})), Files(reads=frozenset({"a/c"})), False),
        (Files(writes=frozenset({"a/b"})), Files(reads=frozenset({"*/b"})), True),
        (Files(named=frozenset({"a"})), Files(reads=frozenset({"a"})), True),
    ],
)
def test_two_pieces_of_code_meet(one: Files, other: Files, does: bool) -> None:
    assert meet(one, other) is meet(other, one) is does
