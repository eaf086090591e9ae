"""Descriptions and fingerprints of values: what they show, and whether they have changed."""

from __future__ import annotations

import datetime as dt
import functools
import io
import random
import threading
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from nbflow.store.serialize.describe import describe
from nbflow.store.serialize.fingerprint import fingerprint
from tests.support.dumping import IN_BLOCKS, Point, blocks_of, dumped, in_blocks, loaded


class Endless:
    def __repr__(self) -> str:
        raise AssertionError("never called")

    def __init__(self) -> None:
        self.weights = [1] * 1_000_000


@pytest.mark.parametrize(
    ("value", "kind", "shape", "preview"),
    [
        (3, "int", None, "3"),
        ("a\nb", "str", None, r"'a\nb'"),
        ([1, 2], "list", (2,), "[1, 2]"),
        ((1,), "tuple", (1,), "(1,)"),
        ({}, "dict", (0,), "{}"),
        (set(), "set", (0,), "set()"),
        (list(range(10_000)), "list", (10_000,), "[0, 1, 2, 3, 4, 5, … 10,000 items]"),
        ({"a": [1, {"b": ()}]}, "dict", (1,), "{'a': [1, {'b': ()}]}"),
        (np.zeros((1000, 4)), "numpy.ndarray", (1000, 4), "1,000 × 4 float64"),
        (np.arange(3), "numpy.ndarray", (3,), "int64 × 3: [0, 1, 2]"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), "pandas.DataFrame", (1, 2), "1 × 2: a int64, b str"),
        (pd.Series([1.5] * 99, name="s"), "pandas.Series", (99,), "s: float64 × 99"),
        (pl.DataFrame({"a": [1]}), "polars.DataFrame", (1, 1), "1 × 1: a Int64"),
        (Point(1.0, [2]), f"{Point.__module__}.Point", None, "Point(x=1.0, y=[2])"),
        (Endless(), f"{__name__}.Endless", None, "Endless(weights=[1, 1, 1, 1, 1, 1, … 1,000,000 items])"),
        (Point, "type", None, "class Point"),
        (np, "module", None, "module numpy"),
        (1 << 9999, "int", None, "an integer of 10,000 bits"),
        (dt.date(2024, 1, 2), "datetime.date", None, "datetime.date(2024, 1, 2)"),
    ],
)
def test_describe(value: Any, kind: str, shape: tuple[int, ...] | None, preview: str) -> None:
    found = describe("x", value)
    assert (found.type, found.shape, found.preview) == (kind, shape, preview)


def test_descriptions_are_short_cheap_and_about_right() -> None:
    import time

    wide = pd.DataFrame(np.zeros((3, 5000)))
    for value in (
        wide,
        ["x" * 1000] * 100_000,
        {i: i for i in range(100_000)},
        "x" * 10**6,
        Endless(),
        [[["x" * 99] * 9] * 9] * 9,
    ):
        best = 1.0
        for _ in range(5):
            start = time.perf_counter()
            found = describe("x", value)
            best = min(best, time.perf_counter() - start)
        assert len(found.preview) <= 200
        assert best < 0.002
    assert describe("x", np.zeros(1000)).nbytes == 8000
    assert 5_000_000 < describe("x", [1.5] * 200_000).nbytes < 8_000_000
    recursive: list[Any] = []
    recursive.append(recursive)
    assert describe("x", recursive).preview == "[[[[…]]]]"


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [1, [2]], lambda v: v[1].append(3)),
        (lambda: {"a": 1}, lambda v: v.update(a=2)),
        (lambda: {1}, lambda v: v.add(2)),
        (lambda: bytearray(b"x"), lambda v: v.append(1)),
        (lambda: Point(1, [1]), lambda v: v.y.append(1)),
        (lambda: np.arange(100_000.0), lambda v: v.__setitem__(5, -1)),
        (lambda: np.arange(100.0)[::2], lambda v: v.__setitem__(5, -1)),
        (lambda: np.zeros(9, [("a", "i1"), ("b", "f8")]), lambda v: v["b"].__setitem__(5, -1)),
        (lambda: np.array([[1], {}], dtype=object), lambda v: v[0].append(2)),
        (lambda: pd.DataFrame({"a": [1.0], "s": ["x"]}), lambda v: v.__setitem__("b", 1)),
        (lambda: pd.DataFrame({"a": range(20_000)}), lambda v: v.pop("a")),
        (lambda: pd.Series([1, 2]), lambda v: v.__setitem__(0, 5)),
        (lambda: random.Random(1), lambda v: v.random()),
        (lambda: np.random.default_rng(1), lambda v: v.random()),
    ],
)
def test_fingerprint_tells_a_change(make: Any, change: Any) -> None:
    value = make()
    before = fingerprint(value)
    assert before is not None
    assert fingerprint(value) == before
    change(value)
    assert fingerprint(value) != before


def test_fingerprint_survives_use() -> None:
    from matplotlib.figure import Figure
    from sklearn.ensemble import RandomForestClassifier

    frame = pd.DataFrame({"a": range(100), "s": [str(i) for i in range(100)]}, index=[f"k{i}" for i in range(100)])
    features = np.random.default_rng(0).random((100, 3))
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(features, features[:, 0] > 0.5)
    figure = Figure()
    axes = figure.subplots()
    (line,) = axes.plot([1, 3, 2], label="a")
    axes.scatter([1, 2], [3, 4])
    axes.legend()

    def use() -> None:
        frame.loc["k3"]
        frame.groupby("s")["a"].sum()
        frame.describe()
        repr(frame)
        frame.index.get_indexer(["k4"])
        model.predict(features)
        model.feature_importances_
        figure.savefig(io.BytesIO(), format="png")

    values = (frame, model, figure)
    before = [fingerprint(value) for value in values]
    use()
    assert [fingerprint(value) for value in values] == before
    line.set_ydata([1, 3, 3])
    assert fingerprint(figure) != before[2]


def test_fingerprint_by_value_does_not_see_which_equal_strings_are_one_object() -> None:
    """A loaded value's strings are those that its process has interned, or others: which ones, nobody can tell."""
    text, again, once_more = (str(b"criterion", "ascii") for _ in range(3))
    one = {"keys": [text, text, b"bytes"], "parts": (text, 1.5)}
    other = {"keys": [text, again, b"bytes"], "parts": (once_more, 1.5)}
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one, by_value=True) == fingerprint(other, by_value=True)
    for changed in ({**one, "parts": ("criterium", 1.5)}, {**one, "keys": [text, b"bytes", text]}):
        assert fingerprint(one, by_value=True) != fingerprint(changed, by_value=True)


def test_fingerprint_of_what_cannot_be_told_is_none() -> None:
    assert fingerprint(threading.Lock()) is None
    assert fingerprint(i for i in ()) is None
    assert fingerprint(float("nan")) == fingerprint(float("nan"))
    assert fingerprint(1) != fingerprint(True)
    assert fingerprint(-0.0) != fingerprint(0.0)


def test_torch_shares_storages() -> None:
    torch = pytest.importorskip("torch")
    tensor, array = torch.arange(100_000.0), np.arange(50_000.0)
    model = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 9))
    model[1].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    data = torch.randn(2, 9)
    values = {"t": tensor, "part": tensor[:5], "a": array, "over": torch.from_numpy(array)}
    values |= {"model": model, "opt": optimizer}
    values["loss"] = model(data).sum()
    values["other"] = torch.ones(3)
    groups = dumped(**values)
    assert sorted(groups) == [("a", "over"), ("loss",), ("model", "opt"), ("other",), ("part", "t")]
    result = loaded(groups)
    result["t"][0] = result["over"][0] = -1
    assert result["part"][0] == result["a"][0] == -1
    assert torch.equal(result["model"](data), model(data))
    assert result["model"][1].weight is result["model"][0].weight
    assert result["opt"].param_groups[0]["params"][0] is result["model"][0].weight
    assert result["loss"].item() == values["loss"].item()
    with pytest.raises(RuntimeError, match="another step"):
        result["loss"].backward()


def build(rng: random.Random, pool: list[Any], depth: int) -> Any:
    """A random value of lists, dicts, tuples, arrays and views, some of it met before."""
    kind = rng.random()
    if pool and kind < 0.3:
        return rng.choice(pool)
    if depth == 0 or kind < 0.45:
        return rng.choice([1, "a", 2.5, None, (1, 2), b"x"])
    value: Any
    if kind < 0.6:
        value = [build(rng, pool, depth - 1) for _ in range(rng.randint(0, 3))]
    elif kind < 0.7:
        value = {rng.choice("abc"): build(rng, pool, depth - 1) for _ in range(2)}
    elif kind < 0.8:
        value = (build(rng, pool, depth - 1), build(rng, pool, depth - 1))
    else:
        base = np.arange(float(rng.choice([20, 20_000]))).reshape(-1, 2)
        pool.append(base)
        value = rng.choice([base, base[2:5], base[:, 1], base[::-1], base.T, base[1:]])
    pool.append(value)
    return value


def structure(values: dict[str, Any]) -> tuple[list[Any], list[tuple[int, int]]]:
    """Named values in; what they are, which parts are one object, and which arrays share memory, out."""
    seen: dict[int, int] = {}
    found: list[Any] = []
    held: list[Any] = []

    def visit(value: Any) -> None:
        if isinstance(value, list | dict | np.ndarray):
            if id(value) in seen:
                found.append(("again", seen[id(value)]))
                return
            seen[id(value)] = len(seen)
        found.append(type(value).__name__)
        if isinstance(value, np.ndarray):
            held.append(value)
            found.append((value.shape, value.tobytes()))
        elif isinstance(value, dict | list | tuple):
            found.append(tuple(value) if isinstance(value, dict) else len(value))
            for part in value.values() if isinstance(value, dict) else value:
                visit(part)
        else:
            found.append(value)

    for name in sorted(values):
        visit(values[name])
    return found, [(i, j) for i in range(len(held)) for j in range(i) if np.shares_memory(held[i], held[j])]


@pytest.mark.parametrize("seed", range(40))
def test_random_values_keep_what_they_share(seed: int) -> None:
    rng, pool = random.Random(seed), []  # type: ignore[var-annotated]
    values = {f"v{number}": build(rng, pool, 3) for number in range(rng.randint(1, 6))}
    assert structure(loaded(dumped(**values))) == structure(values)


def test_what_an_estimator_counts_while_it_predicts_is_no_change() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    grid = np.arange(40.0).reshape(20, 2)
    model = neighbors.KNeighborsRegressor(2, algorithm="kd_tree").fit(grid, grid[:, 0])
    ball = neighbors.BallTree(grid, leaf_size=2)
    words = text.TfidfVectorizer().fit(["one two", "two three"])
    for value, use in ((model, model.predict), (ball, ball.query), (words, words.transform)):
        before = fingerprint(value), fingerprint(value, by_value=True)
        use(["one two"] if value is words else grid[:3])
        assert (fingerprint(value), fingerprint(value, by_value=True)) == before
    before = fingerprint(model), fingerprint(words)
    model.fit(grid + 1, grid[:, 0])
    words.fit(["four five"])
    assert fingerprint(model) != before[0]
    assert fingerprint(words) != before[1]


@functools.cache
def fingerprints(rows: int) -> dict[str, str | None]:
    """Those of all frames of so many rows."""
    return {name: fingerprint(in_blocks(name, rows)) for name in IN_BLOCKS}


@pytest.mark.parametrize("rows", [6, 20_000])
def test_frames_in_blocks_are_told_from_one_another(rows: int) -> None:
    assert len(set(fingerprints(rows).values())) == len(fingerprints(rows))


@pytest.mark.parametrize("rows", [6, 20_000])
@pytest.mark.parametrize("name", IN_BLOCKS)
def test_merging_blocks_is_no_change(name: str, rows: int) -> None:
    frame = in_blocks(name, rows)
    before, blocks = (fingerprint(frame), fingerprint(frame, by_value=True)), len(blocks_of(frame))
    assert before[0] == fingerprints(rows)[name]
    manager: Any = getattr(frame, "_mgr", None)
    manager._consolidate_inplace()
    assert len(blocks_of(frame)) <= blocks
    assert (fingerprint(frame), fingerprint(frame, by_value=True)) == before
    frame.iloc[0, 0], frame.iloc[1, 0] = frame.iloc[1, 0], frame.iloc[0, 0]
    assert fingerprint(frame) != before[0]


def test_a_column_in_another_place_is_a_change() -> None:
    frame = in_blocks("several", 6)
    before = fingerprint(frame)
    frame["a"], frame["b"] = frame["b"], frame["a"]
    assert fingerprint(frame) != before
