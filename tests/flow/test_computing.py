"""Definitions that compute while they are made are executed once, by their cell; any other is replayed."""

from __future__ import annotations

import pytest

from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow

IMPORTS = (
    "import datetime as dt, enum, functools, json, os, pathlib, random, sqlite3, subprocess, tempfile, time, uuid\n"
    "import numpy as np, pandas as pd\nfrom dataclasses import dataclass, field\nfrom time import time as now\n"
    "rng = np.random.default_rng(0)\nnumbers = iter(range(9))\nwaiting, frame = [3, 4], pd.DataFrame({'a': [1]})"
)
HELPERS = (
    "def fresh():\n    return uuid.uuid4().hex\n\ndef deeper():\n    return fresh()\n\n"
    "def twice(x):\n    return 2 * x\n\n"
    "def stamped(function):\n    function.at = time.time()\n    return function\n\n"
    "def timed(function):\n    def call():\n        return time.time(), function()\n    return call\n\n"
    "def marked(word):\n    def mark(function):\n        function.key = word, uuid.uuid4()\n        return function\n"
    "    return mark\n\n"
    "class Ticket:\n    def __init__(self):\n        self.at = time.time()\n\nclass Point:\n    def where(self):\n"
    "        return time.time()"
)

COMPUTE = {
    "a clock in a body": "class A:\n    at = dt.datetime.now()",
    "a clock in a default": "def f(at=time.time()):\n    return at",
    "a clock by its own name": "def f(at=now()):\n    return at",
    "a clock in a string": "class A:\n    name = f'run {dt.datetime.now():%H}'",
    "an id": "class A:\n    key = str(uuid.uuid4())",
    "a draw": "class A:\n    x = random.random()",
    "a draw of a generator": "def f(x=rng.normal()):\n    return x",
    "a generator of its own": "class A:\n    rng = np.random.default_rng()",
    "a file": "class A:\n    rates = json.load(open('rates.json'))",
    "a file by its path": "class A:\n    text = pathlib.Path('a.txt').read_text()",
    "a table": "def f(df=pd.read_csv('a.csv')):\n    return df",
    "a folder": "def f(place=tempfile.mkdtemp()):\n    return place",
    "an iterator": "def f(*, x=next(numbers)):\n    return x",
    "a process": "class A:\n    version = subprocess.check_output(['git', 'rev-parse', 'HEAD'])",
    "a function of the notebook": "class A:\n    key = fresh()",
    "a function behind it": "def f(key=deeper()):\n    return key",
    "an object of the notebook": "def f(ticket=Ticket()):\n    return ticket",
    "a decorator's argument": "@functools.partial(print, time.time())\ndef f():\n    pass",
    "a method's default": "class A:\n    def f(self, at=time.time()):\n        return at",
    "a nested class": "class A:\n    class B:\n        at = time.time()",
    "a member": "class Code(enum.Enum):\n    ONE = next(numbers)",
    "under a condition": "try:\n    import fast\nexcept ImportError:\n    def fast(at=time.time()):\n        return at",
    "a method of data": "def f(x=waiting.pop()):\n    return x",
    "a decorator": "@stamped\ndef f():\n    pass",
    "what a decorator gives": "@marked('x')\ndef f():\n    pass",
    "a base": "class A(type(fresh(), (), {})):\n    pass",
}
REPLAYED = {
    "a function that does it later": "def f():\n    return time.time()",
    "a method": "class A:\n    def f(self):\n        return uuid.uuid4()",
    "a factory": "@dataclass\nclass A:\n    key: str = field(default_factory=lambda: uuid.uuid4().hex)",
    "a reference": "class A:\n    clock = time.time",
    "a seeded generator": "class A:\n    rng = np.random.default_rng(3)",
    "a given time": "class A:\n    day = dt.datetime(2024, 1, 1).strftime('%d')",
    "a path": "class A:\n    place = pathlib.Path('data') / 'a.csv'",
    "the environment": "class A:\n    mode = os.environ.get('MODE', 'slow')",
    "an array": "class A:\n    weights = np.zeros(3)",
    "a function of the notebook": "class A:\n    x = twice(2)",
    "an object of the notebook": "class A:\n    origin = Point()",
    "members": "class Code(enum.Enum):\n    ONE = enum.auto()",
    "a look at data": "class A:\n    names = frame.copy()",
    "a decorator that wraps": "@timed\ndef f():\n    pass",
    "a cache": "@functools.lru_cache(maxsize=None)\ndef f(x):\n    return x",
}


def flow_of(source: str) -> Flow:
    cells = [
        IMPORTS,
        HELPERS,
        source,
        "%%step last\nz = A if 'A' in globals() else f if 'f' in globals() else (Code, fast)",
    ]
    return build_flow(parse_cells([RawCell(f"c{at}", text) for at, text in enumerate(cells)], name="n", folder="."))


@pytest.mark.parametrize("what", COMPUTE)
def test_this_is_executed_once(what: str) -> None:
    flow = flow_of(COMPUTE[what])
    (made,) = [definition for definition in flow.definitions if definition.cell == "c2"]
    (bind,) = [bind for bind in made.binds if bind.name.startswith("<made ")]
    assert [source.step for source in bind.sources] == ["cell:c2"]
    assert bind.name in flow.step("cell:c2").writes
    assert "cell:c2" in flow.step("last").needs


@pytest.mark.parametrize("what", REPLAYED)
def test_this_is_replayed(what: str) -> None:
    flow = flow_of(REPLAYED[what])
    assert not any(bind.name.startswith("<made ") for definition in flow.definitions for bind in definition.binds)


def test_a_builtin_that_the_notebook_has_taken_is_none() -> None:
    flow = flow_of("def next(x):\n    return 1\n\ndef f(x=next(3)):\n    return x")
    assert not any(bind.name.startswith("<made ") for definition in flow.definitions for bind in definition.binds)
