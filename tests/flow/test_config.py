"""`%%config`: a file's values stand in the notebook's lines, frozen; options take them; options for all steps."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow import reference
from nbflow.cli import app
from nbflow.errors import OptionError, ParameterError, PlanError
from nbflow.flow.config import ConfigHeader, parse_config, parse_values, with_values
from nbflow.flow.graph import build_flow
from nbflow.flow.late_options import filled, parse_for_all, with_for_all
from nbflow.flow.notebook import document_of, parse_document, read_notebook
from nbflow.flow.options import parse_header
from nbflow.flow.parameters import Config, convert, gather_overrides, literal_values, source_of
from nbflow.kernel.document import Document
from nbflow.model import Flow, StepOptions
from nbflow.runs import launch
from nbflow.store.serialize.describe import preview_of
from tests.support.kernel import Kernel, NotebookFile

running = pytest.mark.running

TEXTS = {
    ".json": '{"limit": "30s", "depths": [2, 4], "model": {"layers": 3, "parts": [{"n": 1}]}}',
    ".toml": 'limit = "30s"\ndepths = [2, 4]\n[model]\nlayers = 3\nparts = [{n = 1}]\n',
    ".yaml": "limit: 30s\ndepths: [2, 4]\nmodel:\n  layers: 3\n  parts: [{n: 1}]\n",
}
VALUES = {"limit": "30s", "depths": [2, 4], "model": {"layers": 3, "parts": [{"n": 1}]}}


# ---------------------------------------------------------------- a file's text, the header, the lines


@pytest.mark.parametrize("suffix", TEXTS)
def test_each_format_gives_the_same_values(suffix: str) -> None:
    if suffix == ".yaml":
        pytest.importorskip("yaml")
    assert parse_values(TEXTS[suffix], suffix) == VALUES


@pytest.mark.parametrize(
    ("suffix", "text"), [(".json", "[1]"), (".json", "{"), (".toml", "= 1"), (".yml", "a: ["), ("", "x")]
)
def test_a_text_that_holds_no_values_is_refused(suffix: str, text: str) -> None:
    if suffix == ".yml":
        pytest.importorskip("yaml")
    with pytest.raises(ValueError, match=r"."):
        parse_values(text, suffix)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", ConfigHeader()),
        ("train.toml", ConfigHeader(file="train.toml")),
        ('"my values.json" --as settings', ConfigHeader(file="my values.json", name="settings")),
    ],
)
def test_the_header(rest: str, expected: ConfigHeader) -> None:
    assert parse_config(rest) == expected


@pytest.mark.parametrize("rest", ["a.toml b.toml", "--as x", "a.toml --as", "a.toml --as 1x", "a.toml --as _x", "'a"])
def test_another_header_is_refused(rest: str) -> None:
    with pytest.raises(OptionError, match="%%config"):
        parse_config(rest)


FILE = ConfigHeader(file="a.toml")
LINES: list[tuple[ConfigHeader, str, dict[str, Any]]] = [
    (ConfigHeader(), "\nlimit = 3\nmodel = {'n': 1}", {"limit": 3, "model": Config({"n": 1})}),
    (FILE, "\nlimit: str\ndepths: list[int] = [1]\nrate = 0.5", {"limit": "30s", "depths": [2, 4], "rate": 0.5}),
    (FILE, "\nmodel: dict", {"model": Config(VALUES["model"])}),
    (FILE, "\ndepths: tuple", {"depths": (2, 4)}),
    (ConfigHeader(file="a.toml", name="settings"), "\n# all of it\n", {"settings": Config(VALUES)}),
]


@pytest.mark.parametrize(("header", "body", "expected"), LINES, ids=str)
def test_lines_take_the_files_values(header: ConfigHeader, body: str, expected: dict[str, Any]) -> None:
    source = with_values(header, body, VALUES if header.file else {})
    assert source.count("\n") == body.count("\n")
    values = literal_values(source)
    assert values is not None
    assert (values, [type(value) for value in values.values()]) == (expected, [type(v) for v in expected.values()])


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (FILE, "\n", "does not say which values of a.toml"),
        (FILE, "\nlimt: str", "a.toml has no 'limt'; did you mean 'limit'"),
        (FILE, "\nlimit: int", "a.toml: limit = '30s': expected a whole number"),
        (ConfigHeader(), "\nlimit: int", "limit has no value"),
        (ConfigHeader(file="a.toml", name="all"), "\nlimit: str", "`--as all` gives all of a.toml one name"),
    ],
)
def test_what_a_file_does_not_give_is_said(header: ConfigHeader, body: str, message: str) -> None:
    with pytest.raises(OptionError, match=message.replace(".", r"\.")):
        with_values(header, body, VALUES if header.file else {})


# ---------------------------------------------------------------- tables


def test_a_table_is_a_frozen_dict_whose_keys_are_attributes() -> None:
    table = Config({**VALUES, "items": 7, "day": dt.date(2024, 1, 2)})
    assert (table.limit, table.model.layers, table.model.parts[0].n, table["items"]) == ("30s", 3, 1, 7)
    assert json.loads(json.dumps(table.model)) == VALUES["model"]
    for other in (
        pickle.loads(pickle.dumps(table)),
        copy.deepcopy(table),
        eval(source_of(table)),
        convert({**table}, "Config"),
    ):
        assert (type(other), type(other.model), other) == (Config, Config, table)
    assert preview_of(Config({"n": 1})) == "{'n': 1}"
    with pytest.raises(AttributeError, match="the config has no 'limits'; did you mean 'limit'"):
        table.limits


def test_a_table_that_is_given_from_outside_is_one_too() -> None:
    flow = flow_of("%%config\nmodel: dict = {'layers': 3}\nplain = 1")
    values = gather_overrides(flow.parameters, {"model": '{"layers": 4}', "plain": 2}, {}, {})
    assert (type(values["model"]), values) == (Config, {"model": {"layers": 4}, "plain": 2})
    with pytest.raises(ParameterError, match="expected a JSON object"):
        gather_overrides(flow.parameters, {"model": "3"}, {}, {})


def test_nothing_in_a_table_can_be_changed() -> None:
    table: Any = Config(VALUES)
    changes = [
        lambda: table.update(a=1), lambda: table.pop("limit"), lambda: setattr(table, "limit", 1), table.clear,
        lambda: table.__setitem__("limit", 1), lambda: table.__delitem__("limit"), lambda: table.__ior__({"a": 1}),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(TypeError, match="take a copy with dict"):
            change()
    assert (table, {**table, "limit": 1}["limit"]) == (VALUES, 1)


# ---------------------------------------------------------------- options that take values, options for all steps


def flow_of(*cells: str) -> Flow:
    text = document_of([(str(at), cell) for at, cell in enumerate(cells, start=1)], "options")
    return build_flow(parse_document(text, name="options", folder="/nowhere"))


PARAMETERS = "%%params\nlimit: str = '5s'\ntries: int = 2\nhosts = ['a', 'b']\nsettings = {'gpus': 1}"


def test_options_take_the_values_of_parameters() -> None:
    flow = flow_of(
        PARAMETERS, "%%step a --timeout {limit} --retry {tries} --gpu {settings[gpus]} --on ray://{hosts[1]}:1\nx = 1"
    )
    assert not flow.findings
    assert flow.step("a").options.timeout is None
    values = {"limit": "5s", "tries": 2, "hosts": ["a", "b"], "settings": {"gpus": 1}}
    assert filled(flow, values).step("a").options == StepOptions(timeout=5, retry=2, gpu=1, on="ray://b:1")


def test_braces_of_expressions_are_pythons_own() -> None:
    options = parse_header("a --if {limit} --foreach x in {1, 2}")[1]
    assert (options.condition, options.late) == ("{limit}", ())


def test_a_value_that_an_option_cannot_take_is_named() -> None:
    flow = flow_of(PARAMETERS, "%%step a --timeout {limit} --gpu {settings.gpus}\nx = 1")
    with pytest.raises(PlanError, match=r"--timeout \{limit\} of a is 'soon' in this run: .*no duration"):
        filled(flow, {"limit": "soon", "settings": Config({"gpus": 1})})
    with pytest.raises(PlanError, match=r"--gpu \{settings.gpus\} of a has no value"):
        filled(flow, {"limit": "5s", "settings": Config({"gpu": 1})})


def test_a_name_in_an_option_that_is_no_parameter_is_found() -> None:
    (finding,) = flow_of(PARAMETERS, "y = 2", "%%step a --timeout {limits}\nx = y").findings
    assert finding.message == "--timeout {limits} of a: 'limits' is no parameter; did you mean 'limit'?"
    with pytest.raises(OptionError, match="--here exclude each other"):
        parse_header("a --timeout {limit} --here")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["retry=2,card"], StepOptions(retry=2, card=True)),
        (["retry=2", "--timeout=90s"], StepOptions(retry=2, timeout=90)),
        (["retry-on=OSError,KeyError,card"], StepOptions(retry_on=("OSError", "KeyError"), card=True)),
        (["timeout={limit}"], StepOptions(late=(("timeout", "{limit}"),))),
    ],
)
def test_options_for_all_steps(words: list[str], expected: StepOptions) -> None:
    assert parse_for_all(words) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("retyr=2", "no option of a step; did you mean 'retry'"),
        ("foreach=x in y", "shapes the flow"),
        ("retry=lots", "no whole number"),
        ("card=1", "takes no value"),
        ("retry", "needs a value"),
    ],
)
def test_what_cannot_be_an_option_for_all_steps(word: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_for_all([word])


def test_a_steps_own_options_go_before_those_for_all() -> None:
    flow = flow_of(PARAMETERS, "%%step a --retry 1\nx = 1", "%%step b --timeout {limit}\ny = x")
    flow = with_for_all(flow, parse_for_all(["retry=3,timeout=9s,card"]))
    assert flow.step("a").options == StepOptions(retry=1, timeout=9, card=True)
    assert flow.step("b").options == StepOptions(retry=3, card=True, late=(("timeout", "{limit}"),))


# ---------------------------------------------------------------- whole notebooks

CELLS = {
    "load": "%load_ext nbflow",
    "lines": "%%config train.toml\nlimit: str\ndepths: list[int]\nrate = 0.5",
    "whole": "%%config train.toml --as settings",
    "fit": "%%step fit --timeout {limit}\nscore = max(depths) * rate * settings.model.layers",
    "name": "%%step name\ntitle = limit + '!'",
}


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookFile:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.toml").write_text(TEXTS[".toml"])
    return NotebookFile(tmp_path / "train.ipynb", CELLS)


def states(run: nbflow.Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps()}


def test_what_is_wrong_with_a_file_is_a_finding_at_its_cell(notebook: NotebookFile, tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    for text, message in ((None, "cannot be read"), ("limit =", "cannot be understood"), ("a = 1", "has no 'limit'")):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        found = [each for each in read_notebook(notebook.path).findings if each.cell == "lines"]
        assert [(each.level, message in each.message) for each in found] == [("error", True)], found


def test_an_edited_config_cell_without_an_id_is_the_notebooks_own(notebook: NotebookFile) -> None:
    notebook.edit("whole", "x = 1")
    document = Document(notebook.path, notebook.path.parent)
    document.refresh()
    assert document.note("%%config train.toml\nlimit: str\ndepths: list[int]", None) == "lines"


def test_a_value_that_is_assigned_below_is_found(notebook: NotebookFile) -> None:
    notebook.edit("name", "%%step name\nlimit = 3")
    assert "parameter-assigned" in {each.code for each in launch.check(notebook.path).findings}


@running
def test_a_files_values_belong_to_the_keys_of_what_reads_them(notebook: NotebookFile, tmp_path: Path) -> None:
    run = nbflow.run(notebook.path)
    assert run.successful, run.error
    plain = reference.run(notebook.path)
    assert (run.data.score, run.data.title) == (plain["score"], plain["title"]) == (6.0, "30s!")
    (tmp_path / "train.toml").write_text(TEXTS[".toml"].replace("layers = 3", "layers = 5"))
    second = nbflow.run(notebook.path)
    assert (states(second), second.data.score) == ({"fit": "done", "name": "reused"}, 10.0)
    reasons = [reason for _, reason in second["fit"].task.reasons]
    assert any("'layers': 3" in reason and "'layers': 5" in reason for reason in reasons), reasons
    third = nbflow.run(notebook.path, params={"rate": 1.0}, step_options="retry=1,card")
    assert (states(third), third.data.score) == ({"fit": "done", "name": "reused"}, 20.0)


@running
def test_an_executed_notebook_holds_what_was_given_and_not_what_the_file_says(
    notebook: NotebookFile, tmp_path: Path
) -> None:
    app.main(["run", str(notebook.path), "-p", "rate=2.0", "--write", str(tmp_path / "out.ipynb")])
    injected = [cell for cell in read_notebook(tmp_path / "out.ipynb").cells if cell.injected]
    assert [cell.source for cell in injected] == ["# Parameters\nrate = 2.0\n"]
    assert nbflow.run(tmp_path / "out.ipynb").data.score == 24.0


@running
def test_a_step_is_stopped_after_the_time_that_a_file_says(notebook: NotebookFile, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(TEXTS[".toml"].replace("30s", "200ms"))
    notebook.edit("fit", "%%step fit --timeout {limit}\nimport time\ntime.sleep(60)")
    run = nbflow.run(notebook.path)
    assert (run.status, "0.2 s" in run.error) == ("failed", True), run.error


@running
def test_by_hand_a_file_counts_as_it_is_when_its_cell_runs(notebook: NotebookFile, tmp_path: Path) -> None:
    with Kernel(notebook) as kernel:
        for name, source in CELLS.items():
            done = kernel.execute(source, name)
            assert done.status == "ok", done.text
        assert kernel.execute("score, title, type(settings).__name__").result == "(6.0, '30s!', 'Config')"
        (tmp_path / "train.toml").write_text(TEXTS[".toml"].replace("layers = 3", "layers = 50"))
        for name in ("whole", "fit"):
            assert kernel.execute(CELLS[name], name).status == "ok"
        assert kernel.execute("score, settings.model.layers").result == "(100.0, 50)"
        assert "reused" in kernel.execute("%flow run --with retry=1").text
        wrong = kernel.execute("settings.limit = '1s'")
        assert (wrong.ename, "take a copy" in wrong.evalue) == ("TypeError", True)
