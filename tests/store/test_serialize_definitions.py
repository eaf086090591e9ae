"""Classes and functions of the notebook are stored by name, and found again where they were replayed."""

from __future__ import annotations

import copyreg
import inspect
import linecache
import os
import pickle
import subprocess
import sys
import threading

import pytest

from nbflow.errors import OutdatedError
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.pickler import Registry
from nbflow.tracebacks import remember_lines
from tests.support.dumping import MAIN, dumped, in_main, loaded

pytestmark = pytest.mark.usefixtures("clean_main")


WHOLE = """
    class Model:
        def __init__(self, handle=None):
            self.weights, self.cache, self.handle = [1], {"a": 1}, handle
        def __getstate__(self):
            return {"weights": self.weights, "cache": {}, "handle": None}
        def __setstate__(self, state):
            self.__dict__.update(state)
            self.again = True

    class Slotted(Model):
        __slots__ = ("extra",)
"""


def test_objects_are_stored_whole_where_that_is_possible() -> None:
    """A later step finds what the notebook has, whatever `__getstate__` would leave out; else what it gives."""
    registry = Registry()
    registry.add("m@1", in_main(WHOLE), "cell 1")
    model, slotted = MAIN["Model"], MAIN["Slotted"]
    one, other = model(), slotted()
    other.extra = [one]
    groups = dumped(registry, one=one, other=other, weights=one.weights)
    assert [*groups] == [("one", "other", "weights")]
    assert [each.partial for each in groups.values()] == [()]
    found = loaded(groups, registry)
    assert vars(found["one"]) == vars(one)
    assert found["other"].extra[0] is found["one"]
    assert found["one"].weights is found["weights"]
    stored = dumped(registry, one=model(threading.Lock()))
    assert [each.partial for each in stored.values()] == [("Model",)]
    assert vars(loaded(stored, registry)["one"]) == {"weights": [1], "cache": {}, "handle": None, "again": True}
    before = fingerprint(one, registry), fingerprint(held := model(threading.Lock()), registry)
    assert None not in before
    one.cache["b"] = 2
    held.weights.append(2)
    after = fingerprint(one, registry), fingerprint(held, registry)
    assert not {*before} & {*after}


def test_what_copyreg_would_make_of_an_object_is_for_copies() -> None:
    registry = Registry()
    registry.add("q@1", in_main("""
        import copyreg
        class Quantity:
            def __init__(self, n): self.n = n
        copyreg.pickle(Quantity, lambda q: (Quantity, (q.n + 1,)))
    """), "cell 1")  # fmt: skip
    try:
        stored = dumped(registry, one=MAIN["Quantity"](1))
        assert loaded(stored, registry)["one"].n == 1
    finally:
        del copyreg.dispatch_table[MAIN["Quantity"]]


def test_definitions_go_by_reference() -> None:
    source = """
        import functools, typing
        class Outer:
            class Inner:
                def method(self): return 1
            def __init__(self): self.inner = self.Inner()
        def plain(): return Outer
        @functools.cache
        def cached(): return 2
        T = typing.TypeVar("T")
        Money = typing.NewType("Money", int)
    """
    registry = Registry()
    registry.add("all@1", in_main(source), "cell 1")
    outer, cached = MAIN["Outer"], MAIN["cached"]
    values = {
        "instance": outer(),
        "inner": [outer.Inner()],
        "cls": outer,
        "nested": outer.Inner,
        "plain": MAIN["plain"],
        "method": outer.Inner.method,
        "bound": outer().inner.method,
        "cached": cached,
        "T": MAIN["T"],
        "money": MAIN["Money"],
    }
    groups = dumped(registry, **values)
    assert all(ref.id == "all@1" and ref.cell == "cell 1" for each in groups.values() for ref in each.definitions)
    assert all(each.definitions for each in groups.values())
    result = loaded(groups, registry)
    assert type(result["instance"]) is outer
    assert type(result["inner"][0]) is outer.Inner
    assert result["bound"]() == 1
    for name in ("cls", "nested", "plain", "method", "cached", "T", "money"):
        assert result[name] is values[name], name
    fresh = Registry()
    fresh.add("all@1", in_main(source), "cell 1")
    assert isinstance(loaded(groups, fresh)["instance"], MAIN["Outer"])
    assert MAIN["Outer"] is not outer


def test_instance_of_an_edited_class_is_refused_with_its_cell() -> None:
    registry = Registry()
    registry.add("A@1", in_main("class A: x = 1"), "cell 1")
    old = MAIN["A"]()
    groups = dumped(registry, old=old)
    registry.add("A@2", in_main("class A: x = 2"), "cell 3")
    assert dumped(registry, old=old)["old",].definitions[0].id == "A@1"
    fresh = Registry()
    fresh.add("A@2", {"A": MAIN["A"]}, "cell 3")
    with pytest.raises(OutdatedError) as caught:
        loaded(groups, fresh)
    assert caught.value.cell == "cell 3"
    assert "edited" in caught.value.message
    with pytest.raises(OutdatedError, match="not defined here"):
        loaded(groups, Registry())


def test_same_text_run_again_is_the_same_definition() -> None:
    registry = Registry()
    registry.add("A@1", in_main("class A: x = 1"))
    groups = dumped(registry, a=MAIN["A"]())
    registry.add("A@1", in_main("class A: x = 1"))
    assert type(loaded(groups, registry)["a"]) is MAIN["A"]


def test_functions_that_are_data_look_up_globals_late() -> None:
    in_main("""
        rate = 2
        scale = lambda x, *, by=3: x * rate * by + len([0])
        def make():
            count = 0
            def step():
                nonlocal count
                count += helper()
                return count
            def peek():
                return count
            def fact(n): return 1 if n == 0 else n * fact(n - 1)
            step.note = "hi"
            return step, peek, fact
        def helper(): return 1
        step, peek, fact = make()
    """)
    groups = dumped(scale=MAIN["scale"], step=MAIN["step"], peek=MAIN["peek"], fact=MAIN["fact"])
    assert sorted(groups) == [("fact",), ("peek", "step"), ("scale",)]
    assert groups["scale",].free == ("rate",)
    assert groups["peek", "step"].free == ("helper",)
    result = loaded(groups)
    MAIN["rate"] = 10
    assert result["scale"](2) == 61
    assert result["scale"].__globals__ is MAIN
    assert (result["step"](), result["step"](), result["peek"]()) == (1, 2, 2)
    assert result["step"].note == "hi"
    assert result["fact"](5) == 120
    assert result["step"].__qualname__ == "make.<locals>.step"
    assert MAIN["peek"]() == 0


def test_functions_that_are_data_bring_their_source() -> None:
    text = "def make(n):\n    def grow(x):\n        return x + n\n    return grow\n\n"
    remember_lines("cell 7 of a test", text)
    exec(compile(text, "cell 7 of a test", "exec"), MAIN)
    groups = dumped(grow=MAIN["make"](2))
    same = loaded(groups)["grow"]
    assert same.__code__.co_filename == "cell 7 of a test"
    linecache.cache.pop("cell 7 of a test")
    assert inspect.getsource(loaded(groups)["grow"]) == "    def grow(x):\n        return x + n\n"
    remember_lines("cell 7 of a test", text.replace("x + n", "x - n"))
    other = loaded(groups)["grow"]
    assert inspect.getsource(other) == "    def grow(x):\n        return x + n\n"
    assert other(1) == 3
    assert inspect.getsource(loaded(dumped(grow=other))["grow"]) == inspect.getsource(other)


def test_local_classes_go_by_value() -> None:
    in_main("""
        def make():
            class Local:
                def __init__(self, v): self.v = v
                def get(self): return super().__init__ and self.v + offset
            return Local
        offset = 5
        thing = make()(2)
    """)
    groups = dumped(thing=MAIN["thing"])
    MAIN["offset"] = 7
    assert loaded(groups)["thing"].get() == 9
    assert groups["thing",].free == ("offset",)


WRITER = """
import pickle, sys
from nbflow.store.serialize.pickler import Registry, dump
import numpy as np, pandas as pd
registry = Registry()
source = "class Model:\\n    def __init__(self): self.w = {'b': 1, 'a': 2}\\n"
source += "    def go(self): return self.w['a'] * factor\\n"
exec(source, globals())
registry.add("Model@1", {"Model": Model}, "cell 1")
factor = 3
values = {"model": Model(), "f": (lambda q: q * factor), "n": 1, "x": np.arange(30000.0), "t": "text", "l": [1, "a"],
          "d": {"k": 1.5}, "df": pd.DataFrame({"a": range(9), "s": ["x"] * 9, "t": pd.date_range("2024", periods=9)}),
          "big": pd.DataFrame({"a": range(20000), "s": ["x"] * 20000}), "ser": pd.Series([1.5, 2], name="q")}
groups = [(g.names, bytes(g.stream), [bytes(b) for b in g.buffers], g.definitions) for g in dump(values, registry)]
sys.stdout.buffer.write(pickle.dumps(groups))
"""

READER = """
import pickle, sys
from nbflow.store.serialize.pickler import Registry, load
registry = Registry()
source = "class Model:\\n    def __init__(self): self.w = {}\\n    def go(self): return self.w['a'] * factor\\n"
exec(source, globals())
registry.add("Model@1", {"Model": Model}, "cell 1")
factor = 50
values = {}
for names, stream, buffers, _ in pickle.loads(sys.stdin.buffer.read()):
    values |= load(stream, [bytearray(b) for b in buffers], registry, names)
assert isinstance(values["model"], Model)
assert values["model"].go() == 100, values["model"].go()
assert values["f"](2) == 100
assert values["x"].sum() == sum(range(30000))
print("fine")
"""


def _python(source: str, seed: str, data: bytes = b"") -> bytes:
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", source], env=environment, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.running
def test_processes_with_other_hash_seeds_agree() -> None:
    first, second = _python(WRITER, "1"), _python(WRITER, "2")
    ours, theirs = pickle.loads(first), pickle.loads(second)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other, mine[0]
    assert _python(READER, "3", first).strip() == b"fine"
