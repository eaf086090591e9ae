"""Broken notebooks and circumstances: one clear message with place and fix, the exit code, no traceback of ours."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import NbflowError, NotebookError, ParameterError, PlanError, StoreError
from nbflow.flow.notebook import document_of
from nbflow.model import FORMAT
from nbflow.store.location import open_store

pytestmark = pytest.mark.usefixtures("folder")

GOOD = ["%%step a\nx = 1", "%%step b\ny = x + 1"]


def cells(*sources: str) -> str:
    """The text of a notebook with these cells."""
    return document_of(((f"c{number}", source) for number, source in enumerate(sources, 1)), "broken")


def raw(*entries: dict[str, Any], **document: Any) -> str:
    """The text of a notebook as someone else may have written it."""
    found = [
        {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], **entry} for entry in entries
    ]
    return json.dumps({"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **document})


@dataclass(frozen=True)
class Broken:
    """A file that is no runnable notebook, and what has to be said of it."""

    name: str
    text: str | bytes | None
    message: str
    where: str = ""
    fix: str = ""
    error: type[NbflowError] = NotebookError


NOTEBOOKS = [
    Broken("not JSON", "x = 1\n", r"is not a notebook: it is not JSON", fix="Jupyter"),
    Broken("half of a JSON", cells(*GOOD)[:60], r"is not JSON", fix="Jupyter"),
    Broken("empty file", "", r"the file is empty", fix="Jupyter"),
    Broken("only white space", " \n\t\n", r"the file is empty", fix="Jupyter"),
    Broken("JSON of another kind", "[1, 2]", r"JSON but not a notebook", fix="ipynb"),
    Broken("cells are no list", '{"cells": 3, "nbformat": 4}', r"its cells are no list", fix="Jupyter"),
    Broken("a cell is no cell", '{"cells": [3], "nbformat": 4, "metadata": {}}', r"a cell that is no cell"),
    Broken("unknown format", '{"worksheets": 3, "nbformat": 3}', r"notebook format that cannot be read", fix="current"),
    Broken("no cells", cells(), r"has no code cells", fix="%%step NAME"),
    Broken("no steps", cells("x = 1", "print(x)"), r"declares no step", fix="%%step NAME"),
    Broken("binary file", bytes(range(256)) * 9, r"is not text in UTF-8", fix="save"),
    Broken("missing file", None, r"there is no notebook '.*broken.ipynb'", fix="path|folder"),
    Broken(
        "syntax error", cells(GOOD[0], "%%step b\ny = x +"), r"invalid syntax", "step b, cell c2, line 2", "parses",
        PlanError,
    ),
    Broken(
        "syntax error in a plain cell", cells("z = (", "%%step a\nx = z"), r"never closed", "cell c1, line 1",
        "Correct", PlanError,
    ),
    Broken(
        "unknown option", cells("%%step a --froeach i in y\nx = 1"), r"--froeach; did you mean 'foreach'",
        "step a, cell c1, line 1", "known options: .*--foreach", PlanError,
    ),
    Broken(
        "option without its value", cells("%%step a --retry\nx = 1"), r"--retry", "step a, cell c1, line 1", ".",
        PlanError,
    ),
    Broken(
        "an option that binds a name", cells("%%step a --if (n := 3) > 2\nx = n"), r"would bind n",
        "step a, cell c1, line 1", ".", PlanError,
    ),
    Broken("bad step name", cells("%%step a/../b\nx = 1"), r"'a/../b' cannot be", "cell c1, line 1", "use", PlanError),
    Broken("no step name", cells("%%step\nx = 1"), r"name", "cell c1, line 1", ".", PlanError),
    Broken(
        "one name for two steps", cells(*GOOD, "%%step a\ny = 2"), r"cell 1 and cell 3 both declare the step 'a'",
        "step a, cell c3, line 1", "another name", PlanError,
    ),
    Broken(
        "one parameter in two cells", cells("%%params\nlr: float = 0.1", "%%params\nlr: float = 0.2", GOOD[0]),
        r"'lr' is defined twice, in cell 1 and in cell 2", "cell c2, line 2", "keep one", PlanError,
    ),
    Broken(
        "a parameter assigned below", cells("%%params\nlr: float = 0.1", "%%step a\nlr = 2"), r"lr", "step a, cell c2",
        ".", PlanError,
    ),
    Broken(
        "a later name", cells("%%step a\nx = y", "%%step b\ny = 1"),
        r"cell 1 \(a\) reads 'y', which only cell 2 \(b\) below it writes", "step a, cell c1, line 2", "move cell 2",
        PlanError,
    ),
    Broken(
        "--after nobody", cells(GOOD[0], "%%step b --after aa\ny = 1"), r"no step named 'aa'; did you mean 'a'",
        "step b, cell c2, line 1", "known steps: a, b", PlanError,
    ),
    Broken("--join nobody", cells(GOOD[0], "%%step b --join q\ny = 1"), r"q", "step b, cell c2", ".", PlanError),
    Broken(
        "--join of a fan-out and of none",
        cells(GOOD[0], "%%step f --foreach i in [1, 2]\nz = i", "%%step b --join f,a\ny = 1"),
        r"a is in no fan-out", "step b, cell 3", ".", PlanError
    ),
    Broken(
        "a circle", cells("%%step a --after b\nx = 1", "%%step b\ny = x"), r"b", "step a|step b", ".", PlanError
    ),
    Broken(
        "a parameter without a value", cells("%%params\nlr: float", "%%step a\nx = lr"), r"'lr' has no value", "",
        "lr: float", ParameterError,
    ),
    Broken("nowhere to run", cells("%%step a --on nowhere://x\nx = 1"), r"nowhere", "", ".", PlanError),
]  # fmt: skip


def write(folder: Path, text: str | bytes | None) -> Path:
    """What a notebook's file holds in, None for no file; its path out."""
    path = folder / "broken.ipynb"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(err: str) -> None:
    """What was written to standard error in; fails unless it is one message of ours."""
    first, *rest = err.splitlines()
    assert first.startswith("error: "), err
    assert len(first) > len("error: "), err
    assert len(rest) <= 2, err
    assert [line[:9] for line in rest] in (["  fix: "], ["  where: ", "  fix: "]) or all(
        re.match(r"  (where|fix): \S", line) for line in rest
    ), err
    assert "Traceback" not in err
    assert "nbflow itself failed" not in err
    assert not re.search(r"nbflow/\w+\.py", err), err


@pytest.mark.parametrize("broken", NOTEBOOKS, ids=lambda broken: broken.name)
def test_notebooks_on_the_command_line(broken: Broken, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, broken.text)
    assert app.main(["run", "broken.ipynb"]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    told(seen.err)
    assert re.search(broken.message, seen.err), seen.err
    where = re.sub(r"cell c(\d)", r"cell \1", broken.where)  # as people count them, not by their ids
    assert re.search(f"  where: .*({where})" if where else "", seen.err), seen.err
    assert re.search(f"  fix: .*({broken.fix})" if broken.fix else "", seen.err), seen.err
    assert not (folder / ".nbflow" / "flows").exists()


@pytest.mark.parametrize("broken", NOTEBOOKS, ids=lambda broken: broken.name)
def test_notebooks_in_python(broken: Broken, folder: Path) -> None:
    path = write(folder, broken.text)
    with pytest.raises(broken.error, match=broken.message) as caught:
        nbflow.run(path)
    assert caught.value.fix
    assert "\n".join(caught.value.report()).startswith("error: ")


def test_a_folder_instead_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "some.ipynb").mkdir()
    assert app.main(["run", "some.ipynb"]) == 2
    err = capsys.readouterr().err
    told(err)
    assert "is a folder" in err
    with pytest.raises(NotebookError, match="is a folder"):
        nbflow.run(folder)


def test_other_commands_say_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "x = 1\n")
    for words in (["check"], ["plan"], ["dag"], ["why"]):
        more = ["a"] if words == ["why"] else []
        assert app.main([*words, "broken.ipynb", *more]) == 2
        told(capsys.readouterr().err)


# ---------------------------------------------------------------- datastores that cannot be used


def newer(folder: Path) -> str:
    place = folder / "store"
    place.mkdir()
    (place / "nbflow.json").write_text('{"format": 99}')
    return str(place)


def garbled(folder: Path) -> str:
    place = folder / "store"
    place.mkdir()
    (place / "nbflow.json").write_text("{")
    return str(place)


def a_file(folder: Path) -> str:
    (folder / "store").write_text("mine")
    return str(folder / "store")


def below_a_file(folder: Path) -> str:
    (folder / "file").write_text("mine")
    return str(folder / "file" / "store")


STORES: list[tuple[Callable[[Path], str], str, str]] = [
    (newer, rf"has format 99; this nbflow reads up to {FORMAT}", "upgrade"),
    (garbled, r"nbflow.json that cannot be read", "choose another"),
    (a_file, r"a file is in the way", "choose a folder"),
    (below_a_file, r"a file is in the way", "choose a folder"),
    (lambda folder: "/proc/nbflow", r"cannot write to the datastore /proc/nbflow", "check|choose"),
    (lambda folder: "nowhere://bucket/x", r"nowhere", "choose another"),
]


@pytest.mark.parametrize(("make", "message", "fix"), STORES)
def test_datastores(
    make: Callable[[Path], str], message: str, fix: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = write(folder, cells(*GOOD)), make(folder)
    assert app.main(["run", "broken.ipynb", "--store", store]) == 3
    seen = capsys.readouterr()
    told(seen.err)
    assert re.search(message, seen.err), seen.err
    assert re.search(f"  fix: .*({fix})", seen.err), seen.err
    with pytest.raises(StoreError, match=message):
        nbflow.run(path, store=store)


@contextmanager
def somebody_else() -> Iterator[Path]:
    """A folder that this process may read but not write."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "cache").mkdir(mode=0o777)
        (place / "store").mkdir(mode=0o555)
        (place / "store").chmod(0o555)
        (place / "broken.ipynb").write_text(cells(*GOOD))
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield place
        finally:
            if root:
                os.seteuid(0)


def test_a_datastore_that_may_not_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with somebody_else() as place:
        monkeypatch.chdir(place)
        code = app.main(["run", str(place / "broken.ipynb"), "--store", str(place / "store")])
        err = capsys.readouterr().err
        assert code == 3, err
        told(err)
        assert "permission denied" in err
        assert "make it writable" in err
        monkeypatch.undo()


# ---------------------------------------------------------------- no space left


LARGE = [
    "%%step small\nx = 1",
    "%%step large\nimport os\nprint('made')\ny = os.urandom(3_000_000)",
    "%%step after\nz = len(y) + x",
]


def shell(words: Sequence[str], limit: int | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, whose files may grow to `limit` bytes."""

    def lower() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "nbflow", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, preexec_fn=lower, check=False, **more)


@pytest.mark.running
def test_no_space_for_a_result(folder: Path) -> None:
    write(folder, cells(*LARGE))
    done = shell(["run", "broken.ipynb", "--store", "store"], limit=1_000_000)
    assert done.returncode in (1, 3), done.stderr
    assert "no space left" in done.stdout + done.stderr
    assert "free some space" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    segments = [entry for entry in open_store(folder / "store").list("segments") if entry.size > 0]
    assert segments == [], "what could not be written whole is not there"
    again = shell(["run", "broken.ipynb", "--store", "store", "--json"])
    states = {(line["step"], line["state"]) for line in map(json.loads, again.stdout.splitlines()) if "state" in line}
    assert {("small", "reused"), ("large", "done"), ("after", "done")} <= states, again.stderr
    assert shell(["runs", "--store", "store"]).returncode == 0
    assert shell(["show", "broken/latest/z", "--store", "store"]).stdout.strip().endswith("3000001")


@pytest.mark.running
def test_no_space_from_the_start(folder: Path) -> None:
    write(folder, cells(*LARGE))
    done = shell(["run", "broken.ipynb", "--store", "store"], limit=0)
    assert done.returncode == 3, done.stderr
    told(done.stderr)
    assert "no space left" in done.stderr


def fill(path: Path) -> None:
    """A file that takes all the space that is left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.running
def test_a_disk_that_fills_up(folder: Path) -> None:
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        write(folder, cells(*LARGE))
        done = shell(["run", "broken.ipynb", "--store", str(place / "store")])
        assert done.returncode in (1, 3), done.stderr
        assert "no space left" in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert shell(["runs", "--store", str(place / "store")]).returncode == 0
        fill(place / "filler")
        full = shell(["run", "broken.ipynb", "--store", str(place / "store")])
        assert full.returncode == 3, full.stdout + full.stderr
        assert "no space left" in full.stderr
        assert "Traceback" not in full.stdout + full.stderr
        (place / "filler").unlink()
        assert shell(["runs", "--store", str(place / "store")]).returncode == 0
    finally:
        subprocess.run(["umount", str(place)], check=True)


# ---------------------------------------------------------------- odd, but not broken


@pytest.mark.running
def test_a_relative_datastore_is_where_it_was_named(folder: Path) -> None:
    path = write(folder, cells("%%step a\nimport os\nx = os.urandom(100_000)", "%%step b\ny = len(x)"))
    run = nbflow.run(path, store="there")
    assert run.successful
    assert run.data.y == len(run.data.x) == 100_000
    assert open_store(folder / "there").list("segments")


@pytest.mark.running
@pytest.mark.parametrize("ids", [(None, None, None), ("q", "q", "q"), ("q", None, "q")], ids=str)
def test_cells_without_ids_of_their_own(ids: tuple[str | None, ...], folder: Path) -> None:
    sources = ("%%step a\nx = 1", "z = [x]", "%%step b\ny = z")
    entries = [{"source": source, **({"id": name} if name else {})} for source, name in zip(sources, ids, strict=True)]
    path = write(folder, raw(*entries, nbformat_minor=4))
    run = nbflow.run(path, store="store")
    assert run.successful, run.error
    assert run.data.y == [1]
    assert {task.state for step in nbflow.run(path, store="store").steps() for task in step.tasks} == {"reused"}


@pytest.mark.running
def test_a_notebook_of_version_3(folder: Path) -> None:
    cell = {"cell_type": "code", "language": "python", "metadata": {}, "outputs": [], "input": ["%%step a\n", "x = 1"]}
    text = json.dumps(
        {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [cell], "metadata": {}}]}
    )
    assert nbflow.run(write(folder, text), store="store").data.x == 1


@pytest.mark.running
def test_two_thousand_cells(folder: Path) -> None:
    chain = [f"%%step s{number}\nx{number} = x{number - 1} + 1" for number in range(1, 20)]
    scratch = [f"w{number} = {number}\nprint(w{number})" for number in range(1980)]
    path = write(folder, cells("%%step s0\nx0 = 0", *scratch[:990], *chain, *scratch[990:]))
    run = nbflow.run(path, store="store")
    assert run.data.x19 == 19
    assert len(run.steps()) == 20
