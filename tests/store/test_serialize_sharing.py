"""What names share stays shared after loading, what they do not share is stored alone."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import os
import pathlib
import random
import re
import threading
import types
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import nbflow
from nbflow.analysis.effects import AXES, names_axes
from nbflow.store.serialize.pickler import Dumped, Registry, Unstorable, dump
from nbflow.store.serialize.sharing import dump_together
from tests.support.dumping import Colour, Point, dumped, loaded, through
from tests.support.kernel import NotebookFile

SHARED = [1, 2]


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        (lambda: {"a": SHARED, "b": SHARED}, [("a", "b")]),
        (lambda: {"a": [SHARED], "b": {"k": SHARED}, "c": [1, 2]}, [("a", "b"), ("c",)]),
        (lambda: {"a": (s := {1}), "b": [s], "c": [b := bytearray(b"x")], "d": (b,)}, [("a", "b"), ("c", "d")]),
        (lambda: {"a": (x := Point(1, [])), "b": [x]}, [("a", "b")]),
        (lambda: {"a": (x := Point(1, [])).y, "b": x}, [("a", "b")]),
        (lambda: {"a": ["text"], "b": {"text": "text"}, "c": ("text",)}, [("a",), ("b",), ("c",)]),
        (lambda: {"a": [int, np.dtype("f8"), Colour.RED], "b": [int, np.dtype("f8"), Colour.RED]}, [("a",), ("b",)]),
        (
            lambda: {"a": [p := pathlib.Path("x")], "b": [p], "c": [d := dt.date.today()], "d": [d]},
            [("a",), ("b",), ("c",), ("d",)],
        ),
        (lambda: {"a": [np, len, os.path.join], "b": {"m": np, "f": len, "j": os.path.join}}, [("a",), ("b",)]),
        (lambda: {"a": (x := np.arange(9)), "b": x}, [("a", "b")]),
        (lambda: {"a": (x := np.arange(9)), "b": x[:3], "c": x.copy()}, [("a", "b"), ("c",)]),
        (lambda: {"a": (x := np.arange(9))[:3], "b": x[3:]}, [("a",), ("b",)]),
        (lambda: {"a": (f := pd.DataFrame({"a": [1]})), "b": f}, [("a", "b")]),
        (
            lambda: {
                "a": (f := pd.DataFrame({"a": [1], "s": ["x"]})),
                "b": f[["a"]],
                "c": f["s"],
                "d": f.copy(deep=False),
            },
            [("a",), ("b",), ("c",), ("d",)],
        ),
        (
            lambda: {
                "a": (f := pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("x", 1)]))),
                "b": f + 1,
                "c": f.index,
            },
            [("a",), ("b",), ("c",)],
        ),
        (lambda: {"a": (c := pd.Categorical(["x"])), "b": [c], "c": pd.Series(c)}, [("a", "b"), ("c",)]),
        (lambda: {"a": pd.DataFrame({"o": [SHARED]}), "b": SHARED}, [("a", "b")]),
        (
            lambda: {"a": pl.DataFrame({"a": [1]}), "b": pd.DataFrame({"s": ["x"]}), "c": pa.table({"a": [1]})},
            [("a",), ("b",), ("c",)],
        ),
        (
            lambda: {
                "a": (r := random.Random(1)),
                "b": [r],
                "c": np.random.default_rng(1),
                "d": np.random.default_rng(1),
            },
            [("a", "b"), ("c",), ("d",)],
        ),
        (lambda: {name: [number] for number, name in enumerate("abcdef")}, [(name,) for name in "abcdef"]),
    ],
)
def test_groups(values: Any, groups: list[tuple[str, ...]]) -> None:
    assert sorted(dumped(**values())) == groups


def test_identity_survives_within_a_group() -> None:
    inner = [1]
    point = Point(1, inner)
    result = loaded(dumped(a=[inner, point], b=inner, c=point))
    assert result["a"][0] is result["b"]
    assert result["c"].y is result["b"]
    assert result["a"][1] is result["c"]


@pytest.mark.parametrize("names", [("point", "parts"), ("parts", "point")])
def test_what_an_object_keeps_its_attributes_in_is_that_again(names: tuple[str, ...]) -> None:
    point = Point(1, [])
    values = loaded(dumped(**{name: point if name == "point" else vars(point) for name in names}))
    assert vars(values["point"]) is values["parts"]


@pytest.mark.parametrize("size", [100, 100_000])
def test_views_share_memory_after_loading(size: int) -> None:
    whole = np.arange(float(size)).reshape(-1, 10)
    values = {"whole": whole, "head": whole[:2], "column": whole[:, -1], "rest": whole[:, :-1], "back": whole[::-1]}
    groups = dumped(**values)
    assert sorted(groups) == [tuple(sorted(values))]
    assert sum(buffer.nbytes for buffer in next(iter(groups.values())).buffers) <= whole.nbytes
    result = loaded(groups)
    for name, value in values.items():
        np.testing.assert_array_equal(result[name], value)
    result["whole"][0, 9] = -1
    assert result["head"][0, 9] == result["column"][0] == result["back"][-1, 9] == -1
    result["rest"][1, 1] = -2
    assert result["whole"][1, 1] == -2
    again = loaded(dumped(**result))
    again["whole"][0, 0] = -3
    assert again["head"][0, 0] == -3


def test_views_inside_one_value_share_memory_too() -> None:
    whole = np.arange(20_000.0)
    result = through({"whole": whole, "half": whole[:10_000]})
    result["whole"][0] = -1
    assert result["half"][0] == -1


def test_views_of_dicts_and_of_bytes_go_on_looking_into_them() -> None:
    table, memory = {"a": 1}, bytearray(b"abcd")
    values = {
        "table": table,
        "keys": table.keys(),
        "items": table.items(),
        "memory": memory,
        "look": memoryview(memory),
    }
    found = loaded(dumped(**values))
    found["table"]["b"] = 2
    found["look"][0] = 90
    assert [*found["keys"]] == ["a", "b"]
    assert [*found["items"]] == [("a", 1), ("b", 2)]
    assert found["memory"] == b"Zbcd"


def test_matches_are_found_again() -> None:
    text = "the age of wisdom, the age of foolishness"
    found = [*re.finditer(r"age of (?P<what>\w+)", text), re.match("the|then", text), re.compile("a?").fullmatch("a")]
    for match in (*found, re.compile("(?<=a)g").search(text, 4, 9)):
        back = through(match)
        assert (back.regs, back.string, back.re, back.pos, back.endpos) == (
            match.regs, match.string, match.re, match.pos, match.endpos,
        )  # fmt: skip


def test_a_loaded_figure_takes_part_in_every_change() -> None:
    """Transforms know those above them by `id`: with the ids of another process one would take another's place."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot([1, 2])
    found = through(figure)
    nodes = [found.dpi_scale_trans, found.bbox, found.axes[0].transData, found.axes[0].bbox]
    for node in nodes:
        assert node._parents
        assert all(key == id(reference()) for key, reference in node._parents.items())


def test_frames_that_shared_memory_stay_independent() -> None:
    frame = pd.DataFrame({"a": np.arange(20_000.0), "s": ["x"] * 20_000})
    result = loaded(dumped(frame=frame, part=frame[["a", "s"]], tie=[frame], series=frame["s"]))
    result["part"].loc[0, "a"] = -1
    result["part"].loc[0, "s"] = "changed"
    assert result["frame"].loc[0, "a"] == 0
    assert result["frame"].loc[0, "s"] == result["series"][0] == "x"
    assert result["tie"][0] is result["frame"]


class Measured(np.ndarray):
    """An array with an attribute, as NumPy's own pages show it."""

    def __array_finalize__(self, other: Any) -> None:
        self.unit = getattr(other, "unit", None)


def of_array() -> dict[str, Any]:
    array = np.arange(3.0)
    return {"array": array, "look": pd.Series(array, copy=False)}


def of_frame() -> dict[str, Any]:
    frame = pd.DataFrame({"a": [1, 2, 3], "s": ["x", "y", "z"]})
    return {"frame": frame, "look": frame["a"].to_numpy()}


def of_objects() -> dict[str, Any]:
    grid = np.array([None] * 4, dtype=object).reshape(2, 2)
    return {"grid": grid, "look": grid[::-1, 1]}


def of_records() -> dict[str, Any]:
    table = np.zeros(3, dtype=[("x", "i4"), ("y", "f8")])
    return {"table": table, "look": table.view(np.recarray)}


def of_kind(kind: type) -> dict[str, Any]:
    array = np.eye(2)
    return {"array": array, "look": array.view(kind)}


def of_dict(look: Any) -> dict[str, Any]:
    table = {"a": 1, "b": 2, "c": 3}
    return {"table": table, "look": look(table)}


def after_one(iterator: Any) -> Any:
    next(iterator)
    return iterator


def appending() -> dict[str, Any]:
    items: list[int] = []
    return {"items": items, "look": items.append}


SEEN: dict[str, tuple[Any, Any, Any]] = {
    "a series over an array": (of_array, lambda v: v["array"].__setitem__(0, 9), lambda v: v["look"].tolist()),
    "an array over a frame": (of_frame, lambda v: v["frame"].__setitem__("a", 9), lambda v: v["look"].tolist()),
    "a frame's column in place": (
        of_frame, lambda v: v["frame"].loc.__setitem__((0, "a"), 9), lambda v: v["look"].tolist(),
    ),
    "an index over an array": (
        lambda: {"array": (a := np.arange(3.0)), "look": pd.Index(a, copy=False)},
        lambda v: v["array"].__setitem__(0, 9), lambda v: v["look"].tolist(),
    ),
    "arrays of objects": (of_objects, lambda v: v["look"].__setitem__(0, "x"), lambda v: v["grid"].tolist()),
    "objects out of which views were cut": (
        of_objects, lambda v: v["grid"].__setitem__((1, 1), [5]), lambda v: v["look"].tolist(),
    ),
    "records": (of_records, lambda v: v["table"]["x"].__setitem__(1, 5), lambda v: v["look"].x.tolist()),
    "a matrix": (
        lambda: of_kind(np.matrix), lambda v: v["array"].__setitem__((0, 1), 5), lambda v: v["look"].tolist(),
    ),
    "a subclass of arrays": (
        lambda: of_kind(Measured), lambda v: v["look"].__setitem__((0, 1), 5), lambda v: v["array"].tolist(),
    ),
    "a bound method": (appending, lambda v: v["look"](1), lambda v: v["items"]),
    "a mapping's read-only view": (
        lambda: of_dict(types.MappingProxyType), lambda v: v["table"].__setitem__("d", 4), lambda v: dict(v["look"]),
    ),
    **{
        f"an iterator over a dict: {name}": (
            functools.partial(of_dict, look), lambda v: v["table"].__setitem__("b", 9), lambda v: list(v["look"]),
        )
        for name, look in {
            "its keys": iter,
            "its values, one taken": lambda d: after_one(iter(d.values())),
            "its items": lambda d: iter(d.items()),
            "its values from the end": lambda d: after_one(reversed(d.values())),
            "its items from the end": lambda d: reversed(d.items()),
            "its keys from the end": reversed,
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", SEEN)
def test_what_changes_one_is_seen_through_the_other(kind: str, times: int) -> None:
    """Two values over one object or memory do after loading what the same two do that were never stored."""
    make, change, look = SEEN[kind]
    here, there = make(), make()
    for _ in range(times):
        there = loaded(dumped(**there))
    change(here)
    change(there)
    assert repr(look(there)) == repr(look(here))


def test_what_pandas_copies_before_a_write_stays_apart() -> None:
    """A frame and one cut from it see nothing of each other's writes, whatever array looks into both."""
    frame = pd.DataFrame({"p": [1.0, 2.0], "q": [3.0, 4.0]})
    there = loaded(dumped(frame=frame, cut=frame[["q"]], look=frame["q"].to_numpy()))
    there["frame"].loc[0, "q"] = 9.0
    frame_cut = frame[["q"]]
    look = frame["q"].to_numpy()
    frame.loc[0, "q"] = 9.0
    assert there["cut"].equals(frame_cut)
    assert there["look"].tolist() == look.tolist()


def test_attributes_that_users_set_are_kept() -> None:
    array = np.arange(3).view(Measured)
    array.unit = "m"
    frame, series = pd.DataFrame({"a": [1]}), pd.Series([1])
    for value in (frame, series):
        object.__setattr__(value, "source", ["web"])
    there = loaded(dumped(array=array, frame=frame, series=series))
    assert (type(there["array"]), there["array"].unit, there["array"].tolist()) == (Measured, "m", [0, 1, 2])
    assert there["frame"].source == there["series"].source == ["web"]
    assert there["frame"].attrs == {}


def test_the_context_of_decimal_numbers_in_force_is_that_again() -> None:
    here = decimal.getcontext()
    assert through(here) is here
    stored = dumped(value=here)
    with decimal.localcontext(prec=5):
        assert (loaded(stored)["value"].prec, decimal.getcontext().prec) == (here.prec, 5)


def test_bad_values_do_not_hide_good_ones() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("not today")

    point = Point(1.0, [])
    point.inner = {"k": [0, threading.Lock()]}  # type: ignore[attr-defined]
    shared = [1]
    with pathlib.Path(__file__).open(encoding="utf-8") as file:
        found = dump(
            {
                "lock": threading.Lock(),
                "good": 1,
                "file": file,
                "gen": (i for i in ()),
                "bad": [shared, Refuses()],
                "x": [shared],
                "y": shared,
                "point": point,
            },
            Registry(),
        )
    failed = {each.name: each for each in found if isinstance(each, Unstorable)}
    assert set(failed) == {"lock", "file", "gen", "bad", "point"}
    assert failed["point"].reason == "TypeError: cannot pickle '_thread.lock' object (in point.inner['k'][1])"
    assert "_thread.lock" in failed["lock"].reason
    assert "open file" in failed["file"].reason
    assert failed["bad"].reason == "RuntimeError: not today (in bad[1])"
    assert failed["gen"].type == "generator"
    good = {each.names: each for each in found if isinstance(each, Dumped)}
    assert sorted(good) == [("good",), ("x", "y")]
    result = loaded(good)
    assert result["x"][0] is result["y"]


def test_deeply_nested_value_is_a_reason() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    (found,) = dump({"deep": value}, Registry())
    assert isinstance(found, Unstorable)
    while value:
        value = value[0]


def of_one_index() -> dict[str, Any]:
    heights = pd.Series([3, 5], index=pd.Index(["oak", "elm"]))
    table = pd.DataFrame({"h": heights, "w": [1, 2]})
    return {"heights": heights, "table": table, "others": [table.copy(), table["w"]], "apart": pd.DataFrame({"h": [1]})}


def test_an_index_is_stored_once_where_its_names_may_be_set_below() -> None:
    values = of_one_index()
    assert values["table"].index is values["heights"].index
    groups = [each for each in dump_together(values, {}, (AXES,), Registry()).dumped if isinstance(each, Dumped)]
    together = next(each for each in groups if "table" in each.names)
    assert "heights" in together.names
    assert ("apart",) in [each.names for each in groups]
    again = loaded({each.names: each for each in groups})
    again["heights"].index.names = ["kind"]
    assert again["table"].index.names == ["kind"]
    pd.testing.assert_frame_equal(again["table"].rename_axis(None), values["table"])


def test_elsewhere_frames_of_one_index_are_loaded_alone() -> None:
    values = of_one_index()
    together = dump_together({"table": values["table"]}, {"heights": values["heights"]}, ("*",), Registry())
    assert [each.names for each in together.dumped if isinstance(each, Dumped)] == [("table",)]
    assert (together.shares, together.joined) == ({AXES}, frozenset())
    joined = dump_together({"table": values["table"]}, {"heights": values["heights"]}, ("heights", AXES), Registry())
    assert (joined.shares, joined.joined) == ({"heights"}, {"heights"})
    assert not dump_together({"a": values["apart"]}, {"b": values["heights"]}, (), Registry()).shares


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("pop.index.names = ['k', 'n']", True),
        ("idx = df.columns\nidx.name = 'k'", True),
        ("df.index.set_names('k', inplace=True)", True),
        ("class A:\n    def __init__(self, name):\n        self.name = name\n        self.index = 3", False),
        ("s.name = 'total'", False),
        ("if df.index.name == 'k':\n    df = df.reset_index()", False),
        ("df.index = range(3)", False),
    ],
)
def test_cells_that_name_axes_are_told_by_their_text(source: str, named: bool) -> None:
    assert names_axes(source) is named


@pytest.mark.running
def test_a_step_that_names_an_index_later_on_finds_it_shared(tmp_path: pathlib.Path) -> None:
    cells = {
        "make": "%%step make\nimport pandas as pd\nheights = pd.Series([3, 5], index=pd.Index(['oak', 'elm']))",
        "build": "%%step build\ntable = pd.DataFrame({'h': heights, 'w': [1, 2]})",
        "name": "%%step name\nlength = len(heights)",
        "read": "%%step read\nnames = list(table.index.names)",
    }
    notebook = NotebookFile(tmp_path / "flow.ipynb", cells)
    assert nbflow.run(notebook.path, store=str(tmp_path / "store")).data.names == [None]
    notebook.edit("name", "%%step name\nheights.index.names = ['kind']")
    assert nbflow.run(notebook.path, store=str(tmp_path / "store")).data.names == ["kind"]
    again = nbflow.run(notebook.path, store=str(tmp_path / "store"))
    assert all(again[name].task.state == "reused" for name in cells)
