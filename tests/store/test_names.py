"""Names of every script and length: each notebook runs, is listed and found again, and is no trouble to the others."""

from __future__ import annotations

import os
import unicodedata
from hashlib import sha256
from pathlib import Path

import pytest

import nbflow
from nbflow.cli import app
from nbflow.flow.notebook import document_of
from nbflow.model import RunStarted, TaskId
from nbflow.runs import client
from nbflow.store import records
from nbflow.store.executions import PART, execution_id
from nbflow.store.flows import stored_flows
from nbflow.store.location import name_of, open_store, safe_name

CELLS = [("a", "%%step a\nx = 1"), ("b", "%%step b\ny = x + 1")]
NOTEBOOKS = [
    "Анализ продаж за третий квартал 2024", "第三季度销售数据分析报告二零二四年最终版修订稿", "四" * 80, "x" * 181,
    "y" * 240, "गुणवत्ता जाँच", "می‌خواهم", "👨‍👩‍👧 family", "🎉" * 20,
    "wide\u3000and narrow\u202fspaces", "%", "%%41", "~",
    "'quoted' \"twice\"", "a;b&c|d $HOME `x`", "nul", "CON", "Sales", "sales", "SALES",
    unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café"), "-x", "latest", " blank ", "a.b.c",
    "<b>bold", "sales~0123456789abcdef", "[x]*?",
]  # fmt: skip
UNUSABLE = ["line\nend", "tab\t", "escape\x1b[2J", "turned\u202eround", "  ", "...", "\udcff bytes"]


@pytest.fixture(autouse=True)
def folder(inner_folder: Path) -> Path:
    return inner_folder


def write(name: str, cells: list[tuple[str, str]] = CELLS) -> Path:
    place = Path(f"{name}.ipynb")
    place.write_text(document_of(cells, "").replace('"nbflow": {"flow": ""}', ""), encoding="utf-8")
    return place


def components(folder: Path) -> list[str]:
    return [name for _, folders, files in os.walk(folder) for name in (*folders, *files)]


# ---------------------------------------------------------------- notebooks


@pytest.mark.running
def test_all_of_them_in_one_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {name: nbflow.run(write(name)) for name in NOTEBOOKS}
    assert {run.flow: run.status for run in runs.values()} == dict.fromkeys(NOTEBOOKS, "done")
    assert {flow.name for flow in stored_flows(open_store(".nbflow"))} == set(NOTEBOOKS)
    for name, run in runs.items():
        assert client.Flow(name).latest_run.id == run.id
        assert client.Run(run.id).flow == name
        assert run.data.y == 2
    assert {step.state for step in nbflow.run(write(NOTEBOOKS[0]))} == {"reused"}
    longest = max(components(folder / ".nbflow"), key=lambda name: len(name.encode()))
    assert len(longest.encode()) <= 255
    capsys.readouterr()
    assert app.main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert all(name.strip() in listed for name in NOTEBOOKS if len(name) < 40)
    for words in (["gc"], ["gc", "--dry-run"], ["plan", f"{NOTEBOOKS[1]}.ipynb"], ["show", f"{NOTEBOOKS[0]}/latest/b"]):
        assert app.main(words) == 0, words
    assert app.main(["resume"]) == 2
    assert "no run has failed" in capsys.readouterr().err


@pytest.mark.running
def test_every_command_takes_such_a_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = NOTEBOOKS[0]
    place = str(write(name))
    run = nbflow.run(place, tags=["тег"])
    for words in (
        ["check", place], ["dag", place], ["plan", place], ["why", place, "b"], ["runs", "--tag", "тег"],
        ["show", f"{name}/{run.id}/b/y"], ["show", name + "/latest"], ["logs", f"{name}/latest/a"],
        ["card", f"{name}/latest/a", "-o", f"{name}.html"], ["tag", f"{name}/latest", "ещё"], ["run", place, "--json"],
        ["export", place, "--to", "script", "-o", "out.py"], ["export", place, "--to", "metaflow", "-o", "out/flow.py"],
        ["diff", run.id, f"{name}/latest"],
    ):  # fmt: skip
        assert app.main(words) == 0, (words, capsys.readouterr().err)
    assert Path(f"{name}.html").stat().st_size > 1000


@pytest.mark.running
def test_one_that_no_line_can_hold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("other")
    nbflow.run("other.ipynb")
    for name in UNUSABLE:
        place = write(name)
        for words in (["run", str(place)], ["check", str(place)], ["plan", str(place)], ["dag", str(place)]):
            assert app.main(words) == 2, name
            told = capsys.readouterr().err
            assert "cannot be a flow's name" in told
            assert "\x1b" not in told
        assert app.main(["run", "other.ipynb"]) == 0, name  # beside it all is well
        assert app.main(["runs"]) == 0
        place.unlink()


# ---------------------------------------------------------------- steps and parameters


@pytest.mark.running
def test_long_steps_and_steps_that_differ_little(folder: Path) -> None:
    names = ["ш" * 100, "四" * 100, "Load", "load", "LOAD", "s" * 100, "nul", "é", "Zählen"]
    cells = [(f"c{at}", f"%%step {name}\nv{at} = {at}\nprint({at})") for at, name in enumerate(names)]
    cells.append(("each", f"%%step {'е' * 99} --foreach i in range(3)\nw = i"))
    cells.append(("all", f"%%step Alle --join {'е' * 99}\ntotal = sum(each.w for each in inputs)"))
    run = nbflow.run(write("steps", [("p", f"%%params\n{'параметр' * 12} = 1"), *cells]))
    assert run.status == "done"
    assert [run[name].task.stdout for name in names] == [f"{at}\n" for at in range(len(names))]
    assert run.data.total == 3
    found = components(folder / ".nbflow")
    assert max(len(name.encode()) for name in found) <= 255
    logs = [each.name.casefold() for each in next((folder / ".nbflow").glob("flows/*/runs/*/logs")).iterdir()]
    assert len(set(logs)) == len(logs)  # also where a file system does not tell capitals from others
    assert {step.state for step in nbflow.run("steps.ipynb")} == {"reused"}
    assert app.main(["gc", "--keep", "1"]) == 0
    assert client.Flow("steps").latest_run.data.total == 3


def test_executions_are_names_already() -> None:
    run = "20261130-231352-931189160"
    for step in ("load", "Load", "ш" * 100, "nul", "a.b", "é", "x" * 100):
        for part in (False, True):
            name = execution_id(run, TaskId(step=step, index=(12, 7), part=part), 3, 2)
            assert len(safe_name(name)) <= 180
            assert safe_name(name) == name or ("%" in name and "~" not in name)
            assert name.partition(".")[0] == run
            assert (PART in name) is part


# ---------------------------------------------------------------- what was written before


def test_names_are_as_they_were() -> None:
    """Keys, executions and ids of stores that are there: their files are found where they lie."""
    assert safe_name("blake3:ab") == "blake3%3Aab"
    assert safe_name("20261130-1.load.0-1..2") == "20261130-1.load.0-1..2"
    assert safe_name("r.%D1%88..1") == "r.%25D1%2588..1"
    assert safe_name("vm-12.ab") == "vm-12.ab"
    hashed = sha256(b"z" * 190).hexdigest()[:32]
    assert safe_name("z" * 190) == f"{'z' * 147}~{hashed}"
    again = sha256(safe_name("z" * 190).encode()).hexdigest()[:32]
    assert safe_name(safe_name("z" * 190)) == f"{'z' * 147}~{again}"


@pytest.mark.running
def test_a_folder_of_the_first_format_with_a_long_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder holds a part of the name, cut within a letter: its first event holds all of it."""
    name = "Анализ продаж за третий квартал 2024"
    cut = "%D0%90%D0%BD%D0%B0%D0%BB%D0%B8%D0%B7%20%D0%BA%D0~1c730aa6b98505b3f37d8afd7f5192d3"
    assert name_of(cut).startswith("Анализ")
    write(name)
    store = open_store(".nbflow")
    started = RunStarted(run=records.new_run_id(), flow=name, at=1.0, notebook=str(folder / f"{name}.ipynb"))
    writer = records.EventWriter(store, cut, started.run, "vm-1")
    writer.put(started)
    writer.close()
    assert [flow.name for flow in stored_flows(store)] == [name]
    run = nbflow.run(f"{name}.ipynb")
    assert [each.id for each in client.Flow(name).runs()] == [run.id, started.run]
    (flow,) = stored_flows(store)
    assert flow.earlier == (cut,)
    assert app.main(["runs"]) == 0
