"""What names share stays shared after loading, what they do not share is stored alone."""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import random
import re
import threading
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
