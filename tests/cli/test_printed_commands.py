"""Commands that nbflow prints and that its documentation shows work where they stand."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nbflow.cli import app
from nbflow.flow.notebook import document_of
from nbflow.runs import client
from tests.support import documented
from tests.support.documented import ROOT, Documented, commands

PRINTED = re.compile(r"nbflow ((?:show|resume|cancel|attach|card|logs|runs|why)\b[^`\n]*)")
DEMO = ["%%params\nlr: float = 0.1", "%%step load\nxs = [1, 2, 3]", "%%step fit\nbest = max(xs) * lr\nbest"]
FAILING = [
    "%%params\nlr: float = 0.1",
    "%%step load\nxs = [0]",
    "%%step pay --once\npaid = len(xs)",
    "%%step fit\ny = lr / xs[0]",
]
ANALYSIS = documented.cells_of("README.md")
"""What the first page shows, pasted."""


def write(path: Path, cells: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document_of(((f"{path.stem}{number}", source) for number, source in enumerate(cells, 1)), ""))
    return path


# ---------------------------------------------------------------- what is printed


@pytest.mark.running
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "flow.ipynb"], ""),
        (["run", "below/deeper/flow.ipynb"], ""),
        (["run", "../elsewhere/flow.ipynb"], "../elsewhere/.nbflow"),
        (["run", "flow.ipynb", "--store", "kept here"], "kept here"),
        (["run", "failing.ipynb"], ""),
        (["run", "below/failing.ipynb"], ""),
    ],
)
def test_what_a_run_prints_works_where_it_is_printed(
    words: list[str], named: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = folder / "here"
    for place in (here, here / "below", here / "below" / "deeper", folder / "elsewhere"):
        write(place / "flow.ipynb", DEMO)
        write(place / "failing.ipynb", FAILING)
    monkeypatch.chdir(here)
    app.main(words)
    told = capsys.readouterr()
    printed = PRINTED.findall(told.out + told.err)
    assert printed
    for line in printed:
        assert (os.path.realpath(named) in line or named in line) if named else "--store" not in line
        app.main(shlex.split(line))
        told = capsys.readouterr()
        assert "error: there is no" not in told.err
        assert "there is no" not in told.err, told.err


@pytest.mark.running
def test_runs_of_notebooks_below_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = app.main(["run", str(write(folder / "a" / "first.ipynb", DEMO))])
    two = app.main(["run", str(write(folder / "b" / "c" / "failing.ipynb", FAILING))])
    assert (one, two) == (0, 1)
    app.main(["run", str(write(folder / ".hidden" / "third.ipynb", DEMO))])
    capsys.readouterr()
    assert app.main(["runs"]) == 0
    told = capsys.readouterr().out
    assert [flow for flow in ("failing", "first", "third") if f"{flow}/" in told] == ["failing", "first"]
    assert told.index("failing/") < told.index("first/")  # the newest first
    assert told.splitlines()[-1] == "looked in .nbflow, a/.nbflow, b/c/.nbflow"
    assert app.main(["show", "first/latest/fit/best"]) == 0
    assert "0.3" in capsys.readouterr().out
    assert client.Flow("first").latest_run is not None
    assert app.main(["resume"]) == 1  # the failed one, below
    assert "failing" in capsys.readouterr().out
    assert app.main(["show", "nothing/latest"]) == 2
    assert "looked in .nbflow, a/.nbflow, b/c/.nbflow" in capsys.readouterr().err
    assert app.main(["gc", "--dry-run"]) == 2  # which of them?
    assert "--store a/.nbflow" in capsys.readouterr().err
    shutil.rmtree(folder / "b")
    assert app.main(["gc", "--dry-run"]) == 0
    shutil.copytree(folder / "a", folder / "copied")
    assert app.main(["show", "first/latest"]) == 2
    assert "is in 2 datastores: a/.nbflow, copied/.nbflow" in capsys.readouterr().err
    monkeypatch.setenv("NBFLOW_STORE", str(folder / "other"))
    assert app.main(["show", "first/latest"]) == 2  # the one that is named is the only one


@pytest.mark.running
def test_words_of_a_run_name_cells_and_items_as_people_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By number, never by id; an item by its loop's variable; what is waited for; ages first; the error last."""
    sources = [
        "import json\nimport numpy as np", "%%params\nmost: int = 9", "%%step load\nbest = np.int64(11)",
        "%%step fit --foreach depth in [2, 4]\nassert depth < most, 'too deep'\nprint(best)",
    ]  # fmt: skip
    text = document_of(
        ((f"d95d42f0-d484-448d-b1d6-05dac0f1d16{number}", source) for number, source in enumerate(sources)), "flow"
    )
    (folder / "flow.ipynb").write_text(text)
    assert app.main(["run", "flow.ipynb"]) == 0
    told = capsys.readouterr().out
    assert told.index("starting workers (importing numpy)…") < told.index("load  running")
    assert "fit/1 depth=4 | 11" in told
    assert app.main(["show", "flow/latest/load"]) == 0
    assert re.search(r"best +numpy.int64 +8 B +11$", capsys.readouterr().out, re.MULTILINE)
    assert app.main(["run", "flow.ipynb", "-p", "most=3"]) == 1
    seen = capsys.readouterr()
    assert re.search(r"↺ load +reused +(\d+ s old|just now), from \d", seen.out)
    assert "AssertionError: too deep (cell 4, line 2)" in seen.out
    assert seen.err.splitlines()[-2:] == [
        "error: fit/1 depth=4 failed: AssertionError: too deep", "  where: step fit, cell 4, line 2",
    ]  # fmt: skip
    for words in (
        ["show", "flow/latest"],
        ["show", "flow/latest/fit"],
        ["card", "flow/latest"],
        ["plan", "flow.ipynb"],
    ):
        assert app.main(words) == 0
        told = capsys.readouterr().out
        assert "d95d42f0" not in told
    (folder / "flow.ipynb").write_text(text.replace("%%step load", "%%step load --nope"))
    assert app.main(["run", "flow.ipynb"]) == 2
    assert "cell 3, line 1" in capsys.readouterr().err


# ---------------------------------------------------------------- what the documentation shows

ELSEWHERE = re.compile(
    r"ray://|dask://|ssh://|slurm://|s3://|--on URL|--rank|SPEC|--template|^tutorial|^serve"
    r"|^card analysis/latest/train/2"
)
"""What needs another machine, a plug-in or a browser: only its words are checked."""
ALONE = frozenset({"runs", "resume", "fsck", "gc", "doctor"})
"""Commands that mean something without another word."""


def lacks_a_word(command: click.Command, words: list[str]) -> bool:
    try:
        with contextlib.suppress(click.exceptions.Exit):  # --help
            command.make_context(words[0], words[1:], obj=app.CommandLine())
    except click.MissingParameter:
        return True
    return False


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A folder with the notebooks of the documentation, which have run; what its words stand for."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("documented")
        patch.setenv("NBFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("NBFLOW_STORE", raising=False)
        patch.chdir(folder)
        write(folder / "analysis.ipynb", ANALYSIS)
        write(folder / "train.ipynb", [ANALYSIS[0], f"{ANALYSIS[1]}\nlimit: str = '90s'", *ANALYSIS[2:]])
        write(folder / "flow.ipynb", documented.flow_of("docs/coming-from.md"))
        write(folder / "failing.ipynb", FAILING)
        write(folder / "reports" / "spring.ipynb", DEMO)
        (folder / "examples").mkdir()
        text = (ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")
        (folder / "examples" / "quickstart.ipynb").write_text(text.replace("trees: int = 1000", "trees: int = 5"))
        assert app.main(["run", "analysis.ipynb"]) == 0
        assert app.main(["run", "failing.ipynb"]) == 1
        run = client.Flow("analysis").latest_run
        assert run is not None
        yield {
            "NB": "analysis.ipynb", "NOTEBOOK": "analysis.ipynb", "RUN": f"analysis/{run.id}", "STEP": "fit",
            "ITEM": "1", "NAME": "error", "FILE": "written", "TAG": "kept",
        }  # fmt: skip


@pytest.mark.running
@pytest.mark.parametrize(
    "command", [pytest.param(each, id=f"{each.page}:{each.line}:{each.text[:20]}") for each in commands()]
)
def test_documented_commands(
    command: Documented, workplace: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.words(workplace)
    known = app.cli.commands[words[0]]
    if not command.is_block and command.text not in ALONE and lacks_a_word(known, words):
        return  # its name, or its name with an option, stands for the command
    if ELSEWHERE.search(command.text):
        known.make_context(words[0], words[1:], obj=app.CommandLine())
        return
    resumes_what_fails = words[0] == "resume" and "RUN" not in command.text
    assert app.main(words) == int(resumes_what_fails), capsys.readouterr()
