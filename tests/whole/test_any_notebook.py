"""Whatever a notebook's file holds and whatever lies beside it: one message of ours or a plan, and no wait."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.analysis.cell import analyse
from nbflow.cli import app
from nbflow.flow.notebook import parse_document
from nbflow.store.location import open_store
from tests.support.kernel import Kernel, NotebookFile
from tests.support.mutants import ODD, broken_by, documents, sources, understand

pytestmark = pytest.mark.usefixtures("folder")

GOOD = "%%step a\nx = 1"
ALONE = (
    "%",
    "%%",
    "!",
    "?",
    "??",
    "%%%",
    "%%!",
    "%%step",
    "%%step ",
    "%%params",
    "%%setup",
    "\x00",
    "\\",
    "\ufeff",
    "'''",
)


def code(text: str = GOOD, **parts: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": text}
    return {**cell, **parts}


def text(*cells: Any, **parts: Any) -> str:
    return json.dumps({"cells": [code(), *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **parts})


def notebooks() -> dict[str, str]:
    """Notebooks by what is odd in them."""
    found = {f"only {source!r}": text(code(source, id="b")) for source in ALONE}
    for value in ODD:
        shown = repr(value)[:30]
        for part in ("id", "metadata", "source", "outputs", "cell_type"):
            found[f"{part} {shown}"] = text(code("y = 2", **{part: value}))
        for part in ("metadata", "nbformat"):
            found[f"the document's {part} {shown}"] = text(**{part: value})
        found |= {
            f"tags {shown}": text(code("y = 2", id="b", metadata={"tags": value})),
            f"a tag {shown}": text(code("y = 2", id="b", metadata={"tags": [value]})),
            f"a line {shown}": text(code(id="b", source=[value, "\n"])),
            f"cells {shown}": json.dumps({"cells": value, "metadata": {}, "nbformat": 4}),
            f"a cell {shown}": text(value),
            f"the flow's name {shown}": text(metadata={"nbflow": {"flow": value}}),
        }
    return {
        **found, "one id twice": text(code("y = x", id="a")), "deep": '{"cells": ' + "[" * 100_000,
        "deep metadata": text().replace('"metadata": {}', '"metadata": ' + '{"a":' * 5000 + "1" + "}" * 5000),
        "a long number": text().replace("5}", "9" * 5000 + "}"),
        "twice a key": '{"cells": [], "cells": 3, "nbformat": 4}',
    }  # fmt: skip


def told_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command, and see to it that it ends as commands do."""
    exit_code = app.main(words)
    seen = capsys.readouterr()
    assert exit_code in (0, 2), (words, seen.err)
    assert "itself failed" not in seen.err
    assert "Traceback" not in seen.err
    assert exit_code == 0 or seen.err.startswith("error: ") or (words[0] == "check" and "error: " in seen.out)
    return exit_code


@pytest.mark.running  # no process is started, but there are four hundred of them
def test_parts_of_any_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder / "odd.ipynb"
    ends = set()
    for name, held in notebooks().items():
        place.write_text(held, encoding="utf-8")
        try:
            ends |= {told_well([word, "odd.ipynb"], capsys) for word in ("check", "plan", "dag")}
            told_well(["export", "odd.ipynb", "--to", "script", "-o", "odd.py", "--force"], capsys)
        except AssertionError as error:
            raise AssertionError(name) from error
    assert ends == {0, 2}


@pytest.mark.running
def test_half_of_a_character_is_told_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "half.ipynb").write_text(text(code("%%step b\ny = 1\nz = '\ud800'", id="b")))
    assert app.main(["run", "half.ipynb"]) == 2
    assert "where: cell 2, line 3" in capsys.readouterr().err
    (folder / "half.ipynb").write_text(
        text({"cell_type": "markdown", "id": "\ud800", "source": "\ud800"}, code("y = x", id="b"))
    )
    assert nbflow.run("half.ipynb").successful  # in a text it harms nobody


def test_each_cell_has_an_id_of_its_own() -> None:
    for ids in itertools.product((None, "1", "2", "3", "q"), repeat=3):
        held = json.dumps({"cells": [code("x = 1", **({"id": i} if i else {})) for i in ids], "nbformat": 4})
        cells = parse_document(held, name="n", folder=".").cells
        assert len({cell.id for cell in cells}) == 3, ids
        assert all(cell.id == given for cell, given in zip(cells, ids, strict=True) if given and ids.count(given) == 1)


# ---------------------------------------------------------------- files that are none


@pytest.mark.running
def test_what_is_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.ipynb").write_text(text())
    (folder / "folder.ipynb").mkdir()
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "loop.ipynb").symlink_to("loop.ipynb")
    (folder / "gone.ipynb").symlink_to("nowhere")
    (folder / "utf16.ipynb").write_bytes(text().encode("utf-16"))
    (folder / "marked.ipynb").write_bytes(b"\xef\xbb\xbf" + text().encode())
    assert app.main(["run", "good.ipynb"]) == 0
    capsys.readouterr()
    for name in ("folder", "pipe", "loop", "gone", "utf16"):
        for words in (["check"], ["run"], ["plan"], ["dag"], ["export", "--to", "script", "-o", "o.py"]):
            assert told_well([words[0], f"{name}.ipynb", *words[1:]], capsys) == 2, (name, words)
    assert told_well(["run", "marked.ipynb"], capsys) == 0
    for words in (["runs"], ["gc"], ["plan", "good.ipynb"], ["run", "good.ipynb"]):
        assert told_well(words, capsys) == 0


@pytest.mark.running
@pytest.mark.parametrize("beside", ["helper.py", "table.csv", ".nbflow/config.json"])
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder"])
def test_what_is_no_file_beside_one(folder: Path, beside: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A module that it may import, a file parameter, settings."""
    declared = [code("%%params\ntable: File = 'table.csv'", id="p")] if beside == "table.csv" else []
    (folder / "good.ipynb").write_text(text(*declared, code("%%step c\nimport helper\ny = x", id="c")))
    place = folder / beside
    place.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "loop":
        place.symlink_to(place.name)
    else:
        place.mkdir()
    for words in (["check", "good.ipynb"], ["plan", "good.ipynb"], ["run", "good.ipynb"]):
        code_ = app.main(words)
        err = capsys.readouterr().err
        assert code_ in (0, 2, 3) or "No module named 'helper'" in err, err
        assert code_ <= 1 or err.startswith("error: ")
        assert "itself failed" not in err


@pytest.mark.running
def test_what_is_no_file_in_a_datastore(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "other"):
        (folder / f"{name}.ipynb").write_text(text(metadata={"n": name}))
        assert app.main(["run", f"{name}.ipynb"]) == 0
    store = folder / ".nbflow"
    flows = sorted((store / "flows").iterdir())
    os.mkfifo(store / "flows" / "pipe")
    (store / "flows" / "loop").symlink_to("loop")
    (store / "flows" / "line\nend").mkdir()
    (store / "flows" / os.fsdecode(b"\xff")).mkdir()
    for place in (*(store / "flows").glob("*/flow.json"), *store.glob("flows/*/runs/*/events/*")):
        if flows[0] in place.parents:
            place.unlink()
            os.mkfifo(place)
    for place in store.glob("results/*/*/*.json"):
        os.mkfifo(place.parent / "pipe.json")
        (place.parent / "loop.json").symlink_to("loop.json")
    capsys.readouterr()
    for words in (
        ["runs"], ["run", "other.ipynb"], ["plan", "good.ipynb"], ["gc", "--dry-run"], ["gc"], ["run", "good.ipynb"],
        ["resume"],
    ):  # fmt: skip
        told_well(words, capsys)
    assert {flow.name for flow in (store / "flows").iterdir() if flow.name.startswith("other")}
    assert open_store(store).children("flows") == sorted(set(open_store(store).children("flows")))


@pytest.mark.running
@pytest.mark.parametrize("spoilt", ["pipe", "deep", "types"])
def test_a_kernel_beside_such_a_file(folder: Path, spoilt: str) -> None:
    """Cells are run by hand all the same, and `%flow status` says why the file is not read."""
    cells = {"ext": "%load_ext nbflow", "a": GOOD, "p": "y = x + 1", "b": "%%step b\nz = y"}
    notebook = NotebookFile(folder / "flow.ipynb", cells)
    with Kernel(notebook) as kernel:
        notebook.path.unlink()
        if spoilt == "pipe":
            os.mkfifo(notebook.path)
        else:
            notebook.path.write_text(notebooks()["deep" if spoilt == "deep" else "the document's metadata []"])
        kernel.ok("a", "p", "b")
        assert kernel.value("z") == "2"
        told = kernel.execute("%flow status").text
        wanted = {"pipe": "no plain file", "deep": "nested too deeply", "types": "does not hold this cell yet"}
        assert wanted[spoilt] in told
        assert kernel.execute("%flow run").status == "ok"


# ---------------------------------------------------------------- at random


@pytest.mark.parametrize("seed", [1, 2])
def test_changed_notebooks(seed: int, folder: Path) -> None:
    made = documents(seed)
    assert [found for _ in range(60) if (found := broken_by(lambda held: understand(held, folder), next(made)))] == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_text_is_analysed(seed: int) -> None:
    made = sources(seed)
    assert [found for _ in range(80) if (found := broken_by(analyse, next(made)))] == []
