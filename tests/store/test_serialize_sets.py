"""Sets keep the order in which they are iterated; where they cannot, that is said."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.store.serialize.pickler import Registry, load
from tests.support.by_hand import Start
from tests.support.dumping import dumped, through
from tests.support.kernel import NotebookFile

WORDS = "ash birch cedar elm fir hazel larch lime maple oak pine rowan spruce willow yew".split()


def words(chance: random.Random, count: int) -> list[Any]:
    return ["".join(chance.choices("abcdefgh", k=5)) for _ in range(count)]


def numbers(chance: random.Random, count: int) -> list[Any]:
    return [chance.randrange(-count, count * 3) for _ in range(count)]


def pairs(chance: random.Random, count: int) -> list[Any]:
    return [(word, number % 5) for word, number in zip(words(chance, count), numbers(chance, count), strict=True)]


def grown(elements: list[Any], chance: random.Random) -> set[Any]:
    value: set[Any] = set()
    for each in elements:
        value.add(each)
        if chance.random() < 0.1:
            value.pop()
    return value


def thinned(elements: list[Any], chance: random.Random) -> set[Any]:
    value = set(elements)
    for each in chance.sample([*value], len(value) // 2):
        value.discard(each)
    return value


HISTORIES: dict[str, Callable[[list[Any], random.Random], Any]] = {
    "from a list": lambda elements, _: set(elements),
    "grown": grown,
    "thinned": thinned,
    "copied": lambda elements, _: set(elements).copy(),
    "united": lambda elements, _: set(elements[::2]) | set(elements),
    "parted": lambda elements, chance: set(elements) - {*chance.sample(elements, len(elements) // 3)},
    "crossed": lambda elements, _: set(elements) & set(elements[1:]),
    "frozen": lambda elements, _: frozenset(elements),
    "frozen from a set": lambda elements, _: frozenset(set(elements)),
    "frozen and thinned": lambda elements, chance: frozenset(thinned(elements, chance)),
}


@pytest.mark.parametrize("kind", [words, numbers, pairs], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("history", HISTORIES)
def test_a_set_comes_back_in_its_order(history: str, kind: Callable[[random.Random, int], list[Any]]) -> None:
    chance = random.Random(f"{history} {kind.__name__}")
    for count in (2, 3, 4, 5, 6, 7, 12, 19, 20, 25, 31, 40, 80, 100, 400, 3_000):
        for _ in range(1 if count > 200 else 12):
            value = HISTORIES[history](kind(chance, count), chance)
            again = through(value)
            assert type(again) is type(value)
            assert [*again] == [*value], (count, [*value])
            assert [*through(again)] == [*value]


def test_sets_inside_of_other_values_do_too() -> None:
    class Holder:
        def __init__(self) -> None:
            self.tags = {*WORDS}
            self.same = self.tags
            self.mine = {self, "x", 3}

    value = {"a": [{*WORDS[:6]}, {7, 15}], "b": {"k": frozenset(WORDS)}, "nested": {frozenset("ab"), frozenset("cd")}}
    again = through(value)
    assert repr(again) == repr(value)
    names = {"ours": {*WORDS}, "others": {*WORDS[3:]}}
    names["both"] = names["ours"]
    registry = Registry()
    groups = dumped(registry, **names)
    assert ("both", "ours") in groups
    holder = Holder()
    back: Holder = through(holder)
    assert back.tags is back.same
    assert [*back.tags] == [*holder.tags]
    assert back in back.mine


def test_what_has_no_choice_is_written_as_pickle_does() -> None:
    for value in ({1, 2, 3}, frozenset({1.5}), {"one"}, set(), [frozenset(range(1_000))], lambda x: x in {"a", "b"}):
        (group,) = dumped(value=value).values()
        assert b"fill_set" not in group.stream
        assert b"make_frozenset" not in group.stream


def test_sets_of_older_streams_are_read() -> None:
    assert load(pickle.dumps({*WORDS}, 5), [], Registry(), ["x"]) == {"x": {*WORDS}}


READER = """
import pickle, sys
from nbflow.store.serialize.pickler import Registry, load
registry = Registry()
groups = pickle.load(sys.stdin.buffer)
values = {}
for names, stream in groups:
    values |= load(stream, [], registry, names)
print(sorted(registry.disordered), [*values['trees']], sorted(values['trees']) == sorted(values['frozen']))
"""


@pytest.mark.running
def test_another_order_is_told_by_name() -> None:
    values = {"trees": {*WORDS}, "frozen": frozenset(WORDS), "holder": [{*WORDS}], "few": {1, 2, 3}, "one": {"x"}}
    data = pickle.dumps([(names, group.stream) for names, group in dumped(**values).items()])

    def read(seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", READER], input=data, env=os.environ | {"PYTHONHASHSEED": seed}, check=True,
            capture_output=True,
        )  # fmt: skip
        return done.stdout.decode().strip()

    told = {read(seed) for seed in ("1", "2", "3")}
    assert len(told) == 3
    for line in told:
        assert line.startswith("['frozen', 'holder', 'trees'] [")
        assert line.endswith("] True")


CELLS = {
    "make": f"%%step make\nimport os, sys\ntrees = {{*{WORDS!r}}}\norder = [*trees]\nfew = {{1, 2, 3}}\n"
    "seed = os.environ.get('PYTHONHASHSEED')",
    "use": "%%step use\nsame = [*trees] == order\nagain = os.environ.get('PYTHONHASHSEED')\nhash_ = hash('oak')",
    "more": "%%step more --foreach k in few\nparts = [*trees] == order, hash('oak')",
}


@pytest.mark.running
@pytest.mark.parametrize("lane", ["zygote", "spare"])
def test_all_tasks_iterate_a_set_alike(lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setenv("NBFLOW_LANE", lane)
    path = NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **CELLS}).path
    first = nbflow.run(path, store=str(tmp_path / ".nbflow"))
    assert (first.data.seed, first.data.again, first.data.same) == (None, None, True)
    assert {task.data.parts for task in first["more"].tasks} == {(True, first.data.hash_)}
    afresh = nbflow.run(path, store=str(tmp_path / ".nbflow"), fresh=["make"])
    assert afresh["use"].task.state == "reused"  # what was made again is the same to the byte


@pytest.mark.running
def test_the_users_own_seed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "11")
    path = NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **CELLS}).path
    run = nbflow.run(path, store=str(tmp_path / ".nbflow"))
    assert (run.data.seed, run.data.again, run.data.same) == ("11", "11", True)


@pytest.mark.running
def test_a_kernel_of_another_seed_says_so_once(start: Start, tmp_path: Path) -> None:
    cells = {
        "make": f"%%step make\ntrees = {{*{WORDS!r}}}\norder = [*trees]\nfew = {{1, 2, 3}}",
        "use": "%%step use\nsame = [*trees] == order",
        "sum": "%%step sum\nlength = len(order) + len(few)",
    }
    NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **cells})
    nbflow.run(tmp_path / "flow.ipynb", store=str(tmp_path / ".nbflow"))
    kernel = start({**cells, "sum": cells["sum"] + " + 1"}, env={"PYTHONHASHSEED": "7"})
    assert "another order" not in kernel.ok("sum").stderr
    kernel.notebook.edit("use", "%%step use\nsame = order == [*trees]")
    said = kernel.ok("use").stderr
    assert said.count("another order") == 1
    assert "use reads trees: sets there" in said
