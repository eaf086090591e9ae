"""Parameters: text becomes typed values, every problem is told at once, a cell says what overrides it."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow import reference
from nbflow.errors import ParameterError
from nbflow.flow.notebook import document_of
from nbflow.flow.parameters import (
    File,
    convert,
    gather_overrides,
    is_constant,
    is_file,
    literal_values,
    override_source,
    read_parameters,
    with_file,
)
from nbflow.model import Cell, Parameter
from tests.support.kernel import Kernel, NotebookFile

running = pytest.mark.running


def declared(body: str) -> tuple[Parameter, ...]:
    """A params cell's body, its header line left out, as the notebook has it."""
    return tuple(read_parameters(Cell(id="p", position=1, source=f"%%params\n{body}", kind="params", body=f"\n{body}")))


# ---------------------------------------------------------------- text and values → typed values

CONVERTED: list[tuple[Any, str | None, Any]] = [
    ("3", "int", 3),
    (" 1_000 ", "int", 1000),
    (-2, "int", -2),
    ("0.5", "float", 0.5),
    (1, "float", 1.0),
    ("1e-3", "float", 0.001),
    ("inf", "float", math.inf),
    ("true", "bool", True),
    ("False", "bool", False),
    ('it\'s "so"\nand so', "str", 'it\'s "so"\nand so'),
    ("3", "str", "3"),
    ("", "str", ""),
    ("[1, 2]", "list", [1, 2]),
    ('["1", 2]', "list[int]", [1, 2]),
    ("[1, 2]", "tuple", (1, 2)),
    ("[1, 1]", "set", {1}),
    ('{"a": "1"}', "dict[str, int]", {"a": 1}),
    ("out/x", "Path", Path("out/x")),
    ("a.csv", "File", File("a.csv")),
    (Path("a.csv"), "nbflow.File", File("a.csv")),
    ("2024-02-29", "date", dt.date(2024, 2, 29)),
    ("2024-02-29", "datetime.date", dt.date(2024, 2, 29)),
    ("2024-02-29T12:30:00", "datetime", dt.datetime(2024, 2, 29, 12, 30)),
    ("none", "Optional[int]", None),
    ("7", "Optional[int]", 7),
    ("null", "int | None", None),
    ("7", "int | str", 7),
    ("x", "int | str", "x"),
    ("y", 'Literal["x", "y"]', "y"),
    ("2", "Literal[1, 2]", 2),
    (2, "typing.Literal[1, 2]", 2),
    ("3", "Annotated[int, 'how many']", 3),
    ("3", "'int'", 3),
    ("[1]", None, [1]),
    ("plain", None, "plain"),
    ('{"a": 1}', "Any", {"a": 1}),
    ("4", "MyOwnType", 4),
]


@pytest.mark.parametrize(("raw", "annotation", "value"), CONVERTED, ids=str)
def test_convert(raw: Any, annotation: str | None, value: Any) -> None:
    found = convert(raw, annotation)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("raw", "annotation", "message"),
    [
        ("x", "int", "whole number"),
        ("1.5", "int", "whole number"),
        (True, "int", "not bool"),
        (1.5, "int", "not float"),
        ("fast", "float", "expected a number"),
        (True, "float", "not bool"),
        ("yes", "bool", "true or false"),
        (1, "bool", "true or false"),
        (3, "str", "not int"),
        ("3", "list", "JSON list"),
        ('["a"]', "list[int]", "whole number"),
        ("[1]", "dict", "JSON object"),
        ("soon", "date", "isoformat"),
        ("z", 'Literal["x", "y"]', "one of 'x', 'y'"),
        (True, "Literal[1]", "one of 1"),
        ("x", "Optional[int]", "whole number"),
        (3, "Path", "path"),
    ],
    ids=str,
)
def test_convert_says_what_was_expected(raw: Any, annotation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(raw, annotation)


# ---------------------------------------------------------------- where values come from

BOTH = declared("lr: float = 0.1\nname: str = 'x'")


@pytest.mark.parametrize(
    ("given", "file", "environment", "expected"),
    [
        ({}, {}, {}, {}),
        ({}, {}, {"NBFLOW_PARAM_LR": "3"}, {"lr": 3.0}),
        ({}, {"lr": 2}, {"NBFLOW_PARAM_LR": "3"}, {"lr": 2.0}),
        ({"lr": "1"}, {"lr": 2}, {"NBFLOW_PARAM_LR": "3"}, {"lr": 1.0}),
        ({"name": "a"}, {"lr": 2}, {"NBFLOW_PARAM_OTHER": "3", "LR": "4"}, {"lr": 2.0, "name": "a"}),
    ],
)
def test_the_strongest_source_wins(
    given: dict[str, Any], file: dict[str, Any], environment: dict[str, str], expected: dict[str, Any]
) -> None:
    assert gather_overrides(BOTH, given, file, environment) == expected


def test_one_error_lists_every_problem() -> None:
    parameters = declared(
        "lr: float = 0.1\nn: int\ndata: File = 'a.csv'\nother: File = 'b.csv'\nday: date = date(1, 1, 1)"
    )
    with pytest.raises(ParameterError) as caught:
        gather_overrides(parameters, {"lr": "fast", "rl": 1, "day": "x"}, {}, {}, lambda path: path == "b.csv")
    message = caught.value.message
    parts = ("unknown parameter 'rl'; did you mean 'lr'", "lr = 'fast'", "'n' has no value", "'a.csv'", "day = 'x'")
    for part in parts:
        assert part in message, message
    assert "b.csv" not in message
    assert "lr: float" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("a: int = 1\nb: float = 1\nc: bool = True\nd: str = ''\ne: list[int] = [1]\nf: File = 'x'\ng: Any = 1", ""),
        ("a: int = None\nb: Optional[int] = None\nc: int | str = 'x'\nd: Literal['x', 'y'] = 'y'\ne: Mine = 3", ""),
        ("a: tuple[int, str] = (1, 'x')\nb: dict[str, int] = {'a': 1}\nc: 'list' = []\nd: Path = Path('x')", ""),
        ("a: int = 'x'", "the default of a is no int: 'x'"),
        ("a: int = True", "a is no int"),
        ("a: bool = 1", "a is no bool"),
        ("a: str = 3\nb: float = 'y'", "a is no str: 3; the default of b is no float"),
        ("a: list[int] = [1, 'x']", "a is no list"),
        ("a: dict[str, int] = {1: 1}", "a is no dict"),
        ("a: Literal['x', 'y'] = 'z'", "a is no Literal"),
        ("a: date = '2025-01-01'", "a is no date"),
        ("a: Path = 'out'", "a is no Path"),
        ("a: int | None = 'x'", "a is no int"),
    ],
)
def test_defaults_have_the_declared_type(body: str, wrong: str) -> None:
    if not wrong:
        assert gather_overrides(declared(body), {}, {}, {}) == {}
        return
    with pytest.raises(ParameterError, match=wrong):
        gather_overrides(declared(body), {}, {}, {})


# ---------------------------------------------------------------- the cell


@pytest.mark.parametrize(
    ("body", "helps"),
    [
        ("a: int = 1  # one\nb: int = 2", {"a": "one", "b": ""}),
        ("# of a\na: int = 1\nb: int = 2  # of b", {"a": "of a", "b": "of b"}),
        ("# first\n# second\na = 1", {"a": "first second"}),
        ("# far\n\na = 1", {"a": ""}),
        ("a = [  # head\n  1,\n]\nb = (\n  1\n)  # tail", {"a": "head", "b": "tail"}),
        ("a = '# no comment'\nb = 1", {"a": "", "b": ""}),
    ],
)
def test_help_comes_from_comments(body: str, helps: dict[str, str]) -> None:
    assert {parameter.name: parameter.help for parameter in declared(body)} == helps


def test_annotations_and_defaults_are_read() -> None:
    found = declared("import os\na: int\nb = 2\nc = os.cpu_count()\nd: list[int] = [1]\nprint(b)")
    assert [(one.name, one.annotation, one.default, one.line) for one in found] == [
        ("a", "int", None, 3), ("b", "int", "2", 4), ("c", None, "os.cpu_count()", 5), ("d", "list[int]", "[1]", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("\na: int = 1  # one\nb = a", {"a": 5}, "\na: int = 5\nb = a"),
        ("a = (\n  1\n)\nb = 2", {"a": [1]}, "a = [1]\n\n\nb = 2"),
        ("a = 1", {}, "a = 1"),
        ("a = 1", {"b": 2}, "a = 1"),
        ("a: int", {"a": 3}, "a: int = 3"),
        ("a: str = ''", {"a": 'it\'s\n"it"'}, "a: str = 'it\\'s\\n\"it\"'"),
        ("a: File = 'x'", {"a": File("y")}, "a: File = 'y'"),
        ("a: File", {"a": File("y")}, "a: File = __import__('nbflow').File('y')"),
        ("a: float = 1", {"a": math.inf}, "a: float = float('inf')"),
        ("a = (", {"a": 1}, "a = ("),
    ],
)
def test_override_source(source: str, values: dict[str, Any], expected: str) -> None:
    assert override_source(source, values) == expected
    assert override_source(source, values).count("\n") == source.count("\n")


@pytest.mark.parametrize(
    "value",
    [dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, 3), Path("a b"), File("a"), -0.0, {"a": [1, (2,)]}, None, {1}],
)
def test_an_override_is_an_expression_that_makes_the_value(value: Any) -> None:
    space: dict[str, Any] = {}
    exec(override_source("a = f()", {"a": value}), space)
    assert (type(space["a"]), space["a"]) == (type(value), value)


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("a: int = 1\nb = 'x'", {"a": 1, "b": "x"}),
        ("'''text'''\na = [1, {'b': None}]", {"a": [1, {"b": None}]}),
        ("a: File = 'x'", {"a": "x"}),
        ("a = 1 + 1", None),
        ("import os\na = 1", None),
        ("a: int", None),
        ("a, b = 1, 2", None),
        ("a = (", None),
    ],
)
def test_literal_values(source: str, values: dict[str, Any] | None) -> None:
    assert literal_values(source) == values


def test_files_are_told_by_their_annotation() -> None:
    kinds = {"File": True, "nbflow.File": True, "File | None": True, "Optional[File]": True, "str": False, "": False}
    for annotation, expected in kinds.items():
        assert is_file(declared(f"a{': ' if annotation else ''}{annotation} = None")[0]) is expected, annotation


def test_file_needs_no_import() -> None:
    assert with_file("\nä: File = File('x')  # File").splitlines()[1] == (
        "ä: __import__('nbflow').File = __import__('nbflow').File('x')  # File"
    )


def test_only_defaults_that_cannot_differ_are_constant() -> None:
    assert is_constant("a = Path('x') / 'y'\nb = date(2024, 1, 1)\nc = [1] * 3")
    assert not is_constant("a = date.today()")
    assert not is_constant("a = mine()")


# ---------------------------------------------------------------- real runs

TYPES = """from datetime import date
from pathlib import Path
from typing import Literal, Optional

class Scale:
    def __init__(self, by):
        self.by = by
    def __repr__(self):
        return f'Scale({self.by})'
"""
PARAMS = """%%params
data: File = 'a.csv'
day: date = date(2024, 1, 2)
out: Path = Path('out')
limit: Optional[int] = None
mode: Literal['fast', 'slow'] = 'fast'
lr: float = 0.1
scale = Scale(3)
total: float = lr * 10"""
CELLS = [
    TYPES,
    PARAMS,
    "%%step read\nwith open(data) as file:\n    rows = file.read().split()",
    "%%step scaled\nfound = [scale.by * len(rows), lr, total, mode, limit, str(out), day.isoformat()]",
]


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.csv").write_text("1 2 3")
    path = tmp_path / "demo.ipynb"
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(CELLS)), "demo"))
    return path


def states(run: nbflow.Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps()}


@running
def test_every_kind_of_parameter(notebook: Path, tmp_path: Path) -> None:
    run = nbflow.run(notebook)
    assert run.successful, run.error
    assert run.data.found == reference.run(notebook)["found"] == [9, 0.1, 1.0, "fast", None, "out", "2024-01-02"]
    given = {"day": "2025-03-04", "out": "x y", "limit": 4, "mode": "slow", "lr": 2, "data": "b.csv"}
    with pytest.raises(ParameterError, match=r"b\.csv"):
        nbflow.run(notebook, params=given)
    (tmp_path / "b.csv").write_text("1 2")
    other = nbflow.run(notebook, params=given)
    expected = [6, 2.0, 20.0, "slow", 4, "x y", "2025-03-04"]
    assert other.data.found == reference.run(notebook, given)["found"] == expected
    assert (other.params.day, other.params.out, other.params.lr) == (dt.date(2025, 3, 4), Path("x y"), 2.0)
    assert (other.file("data"), run.file("data")) == (b"1 2", b"1 2 3")


@running
def test_a_files_content_belongs_to_the_key(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for number, expected in ((1, "done"), (1, "reused"), (2, "done"), (1, "reused")):
        (tmp_path / "a.csv").write_text(f"{number} 2 3")
        run = nbflow.run(notebook)
        assert states(run)["read"] == expected
        assert run.file("data") == f"{number} 2 3".encode()
    assert states(run) == {"read": "reused", "scaled": "reused"}


@running
def test_a_plan_writes_no_content(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1 2 3 " * 100_000)
    assert [row.action for row in nbflow.plan(notebook).tasks] == ["run", "run"]
    assert not list((tmp_path / ".nbflow").glob("segments/*/*/*"))
    assert nbflow.run(notebook).file("data") == (tmp_path / "a.csv").read_bytes()
    assert [row.action for row in nbflow.plan(notebook).tasks] == ["reuse", "reuse"]


@running
@pytest.mark.parametrize(
    "text", ['it\'s "so"', "two\nlines\\n", "名前 ✓", " ", "'''", "{x} %s $HOME", "none", "3", "\t"]
)
def test_text_arrives_as_it_was_given(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "text.ipynb"
    path.write_text(document_of([("a", "%%params\nname: str = ''"), ("b", "%%step échо\nseen = name + '|'")], "text"))
    run = nbflow.run(path, params={"name": text})
    assert (run.data.seen, run.params.name) == (f"{text}|", text)
    assert nbflow.run(path, resume=run.id).data.seen == f"{text}|"


@running
def test_params_cells_by_hand(notebook: Path, tmp_path: Path) -> None:
    """In a kernel `File` needs no import, and the environment overrides as in a run."""
    (tmp_path / "b.csv").write_text("4 5")
    cells = {"load": "%load_ext nbflow", **{f"c{at}": cell for at, cell in enumerate(CELLS)}}
    environment = {"NBFLOW_PARAM_LR": "3", "NBFLOW_PARAM_DATA": "b.csv"}
    with Kernel(NotebookFile(notebook, cells), env=environment) as kernel:
        for name in ("c0", "c1", "c2", "c3"):
            done = kernel.execute(cells[name], name)
            assert done.status == "ok", done.text
        assert kernel.execute("found[:4]").result == "[6, 3.0, 30.0, 'fast']"
        assert kernel.execute("%flow run lr=5 data=a.csv").status == "ok"
        assert kernel.execute("found[:2]").result == "[9, 5.0]"
        wrong = kernel.execute("%flow run lr=fast rows=1")
        assert wrong.ename == "ParameterError"
        assert "unknown parameter 'rows'" in wrong.text


@running
def test_current_parameters_are_what_the_cell_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have their types, and belong to the key of a step that reads no name of theirs."""
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "all.ipynb"
    body = "lr: float = 0.5\nday: date = date(2025, 1, 2)\nout: Path = Path('o')\npair: tuple = (1, 2)"
    cells = {
        "load": "%load_ext nbflow",
        "p": f"%%params\nfrom datetime import date\nfrom pathlib import Path\n{body}",
        "a": "%%step a\nfrom nbflow import current\nseen = dict(current.parameters)\nlr_seen = current.parameters.lr",
        "b": "%%step b\nother = 1",
    }
    path.write_text(document_of(cells.items(), "all"))
    expected = {"lr": 0.5, "day": dt.date(2025, 1, 2), "out": Path("o"), "pair": (1, 2)}
    run = nbflow.run(path)
    assert run.data.seen == expected
    assert [type(value) for value in run.data.seen.values()] == [type(value) for value in expected.values()]
    second = nbflow.run(path, params={"lr": 2})
    assert (second.data.lr_seen, states(second)) == (2.0, {"a": "done", "b": "reused"})
    with Kernel(NotebookFile(path, cells), env={"NBFLOW_PARAM_LR": "3"}) as kernel:
        for name in cells:
            assert kernel.execute(cells[name], name).status == "ok"
        assert kernel.execute("lr_seen, seen['out'].name").result == "(3.0, 'o')"


@running
def test_files_and_environment_give_parameters(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "p.yaml").write_text("lr: 0.5\nday: 2025-03-04\nlimit: null\n")
    monkeypatch.setenv("NBFLOW_PARAM_LR", "9")
    monkeypatch.setenv("NBFLOW_PARAM_MODE", "slow")
    run = nbflow.run(notebook, params_file=tmp_path / "p.yaml", params={"limit": 3})
    assert run.data.found[1:] == [0.5, 5.0, "slow", 3, "out", "2025-03-04"]
    (tmp_path / "p.yaml").write_text("- 1\n")
    with pytest.raises(ParameterError, match="is no mapping of names to values"):
        nbflow.run(notebook, params_file=tmp_path / "p.yaml")


@running
def test_resume_takes_the_values_of_the_run_that_failed(notebook: Path) -> None:
    failing = notebook.read_text().replace("scale.by * len(rows)", "scale.by * len(rows) // (lr > 1)")
    notebook.write_text(failing)
    failed = nbflow.run(notebook, params={"day": "2025-03-04", "limit": "7"})
    assert failed.status == "failed"
    notebook.write_text(failing.replace("Scale(3)", "Scale(5)").replace("// (lr > 1)", ""))
    resumed = nbflow.run(notebook, resume=failed.id)
    assert resumed.successful, resumed.error
    assert resumed.data.found == [9, 0.1, 1.0, "fast", 7, "out", "2025-03-04"]  # Scale(3), as that run had it
    assert (resumed.origin, states(resumed)["read"]) == (failed.id, "reused")
    again = nbflow.run(notebook, resume=f"demo/{failed.id}", params={"limit": 8})
    assert again.data.found[4:] == [8, "out", "2025-03-04"]
    with pytest.raises(nbflow.errors.PlanError, match="the run cannot be resumed"):
        nbflow.run(notebook, resume="20200101-000000-abcdef")


@running
def test_computed_defaults_are_evaluated_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "clock.ipynb"
    cells = ["import time", "%%params\nnow: float = time.time()", "%%step keep\nseen = now"]
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "clock"))
    first, second = nbflow.run(path), nbflow.run(path)
    assert second.data.seen > first.data.seen
