"""`export --to script`: percent format that is read back as the notebook, with its keys, by nbflow and by Jupytext."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from nbflow.analysis.cell import normalise
from nbflow.exporters.exporter import Exporter
from nbflow.exporters.script import ScriptExporter
from nbflow.flow.notebook import read_notebook
from nbflow.flow.percent import comment_magics, read_percent, uncomment_magics
from nbflow.runs import exporting
from tests.conformance.exporter import ExporterConformance
from tests.support.exported import METAFLOW, write_notebook
from tests.support.places import ROOT

NOTEBOOKS = [*sorted((ROOT / "tests" / "notebooks").glob("*.ipynb")), *sorted((ROOT / "examples").glob("*.ipynb"))]
NOTEBOOKS = [path for path in NOTEBOOKS if "%%step" in path.read_text()]  # one of the examples knows nothing of steps

SOURCES = {
    "line magic": "%matplotlib inline\nx = 1",
    "shell": "!ls -l\nfiles = !ls {x}\nx, y = !echo 1",
    "help": "?print\nprint?\nx.y??",
    "in a block": "if x:\n    !ls\n    %time y = 1\nelse:\n    pass",
    "commented magics": "# %matplotlib inline\n# !ls\n# why?\n# # !twice",
    "a block's own comment": "if x:\n    pass  # !important\n    pass  # %time",
    "cell magic in Python": "%%time\nx = 1\n%cd ..",
    "cell magic of another language": "%%bash\necho 1\n\n# comment\n%notmagic",
    "written file": "%%writefile a.py\nprint('# hi')",
    "header": "%%step train --foreach x in [1, 2]\n%time y = x",
    "header and cell magic": "%%step sh\n%%bash\necho 1",
    "commented cell magic": "# %%bash\nx = 1",
    "in a text": 't = """\n%foo\n!bar\n# %%baz\n"""\n%time u = t',
    "in an f-string": 't = f"""\n%foo {1}\n"""',
    "modulo": "v = (x\n   %y)\nw = x % 2",
    "await": "await asyncio.sleep(0)",
    "Unicode": "größe = 'ü\"\\n'",
}


class TestScriptExporter(ExporterConformance):
    def exporter(self) -> Exporter:
        return ScriptExporter()

    def run(self, folder: Path) -> Mapping[str, Any]:
        done = run_script(folder / "barrels.py", "--store", str(folder / "store"))
        assert done.returncode == 0, done.stdout + done.stderr
        left = nbflow.Flow("barrels", store=str(folder / "store")).latest_run.data
        return {name: getattr(left, name) for name in ("levels", "note", "total", "said")}


def run_script(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(path), *(words if words and words[0] in ("plan", "check") else ("run", *words))]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_magics_are_comments_and_come_back(source: str) -> None:
    commented = comment_magics(source)
    compile(commented.replace("await ", ""), "cell", "exec")
    back = uncomment_magics(commented)
    first = source.split("\n")[0]
    assert back == (f"# {source}" if first.startswith("%%step") else source)


def test_a_header_and_the_command_line_are_no_cells() -> None:
    cells = read_percent(
        '# ---\n# jupyter:\n#   nbflow:\n#     flow: "a"\n# ---\n\n# %% tags=["active-py"]\nimport sys\n\n# %%\nx = 1\n'
    )
    assert [(cell.kind, cell.source) for cell in cells] == [("code", "x = 1")]


def test_empty_cells_with_an_id_keep_their_place() -> None:
    cells = read_percent('# %% id="a"\n\n# %% id="b"\nx = 1\n')
    assert [(cell.id, cell.source) for cell in cells] == [("a", ""), ("b", "x = 1")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_script_is_read_back_as_its_notebook(path: Path, tmp_path: Path) -> None:
    exporting.export(path, "script", tmp_path / "other.py")
    for beside in path.parent.glob("*.toml"):
        shutil.copy(beside, tmp_path)
    notebook, script = read_notebook(path), read_notebook(tmp_path / "other.py")
    assert script.name == notebook.name
    assert [(cell.id, cell.position, cell.kind, cell.name, cell.options) for cell in script.cells] == [
        (cell.id, cell.position, cell.kind, cell.name, cell.options) for cell in notebook.cells
    ]
    assert [normalise(cell.body) for cell in script.cells] == [normalise(cell.body) for cell in notebook.cells]
    assert [cell.markdown for cell in script.cells] == [cell.markdown for cell in notebook.cells]


def test_a_script_of_a_script_is_the_same(tmp_path: Path) -> None:
    path = ROOT / "examples" / "quickstart.ipynb"
    exporting.export(path, "script", tmp_path / "one.py")
    exporting.export(tmp_path / "one.py", "script", tmp_path / "two.py")
    one, two = (read_notebook(tmp_path / name) for name in ("one.py", "two.py"))
    assert [(cell.id, cell.source, cell.markdown) for cell in one.cells] == [
        (cell.id, cell.source, cell.markdown) for cell in two.cells
    ]


def test_a_comment_that_would_begin_a_cell_is_refused(tmp_path: Path) -> None:
    path = write_notebook(["%%step a\n# %% a mark\nx = 1"], tmp_path / "n.ipynb")
    with pytest.raises(nbflow.PlanError, match="begin a cell"):
        exporting.export(path, "script", tmp_path / "n.py")
    assert not (tmp_path / "n.py").exists()


def test_the_notebook_is_never_overwritten(tmp_path: Path) -> None:
    path = write_notebook(["%%step a\nx = 1"], tmp_path / "n.ipynb")
    with pytest.raises(nbflow.OptionError, match="itself"):
        exporting.export(path, "script", path)
    exporting.export(path, "script", tmp_path / "n.py")
    with pytest.raises(nbflow.OptionError, match="itself"):
        exporting.export(tmp_path / "n.py", "script", tmp_path / "n.py")


def test_what_was_changed_by_hand_is_not_replaced(tmp_path: Path) -> None:
    """An export may be repeated; a file that no export has left so stays, unless `force` says otherwise."""
    path, target = write_notebook(["%%step a\nx = 1"], tmp_path / "n.ipynb"), tmp_path / "n.py"
    exporting.export(path, "script", target)
    exporting.export(write_notebook(["%%step a\nx = 2"], path), "script", target)
    assert "x = 2" in target.read_text()
    target.write_text("mine")
    with pytest.raises(nbflow.OptionError, match="is not as an export has written it") as caught:
        exporting.export(path, "script", target)
    assert "--force" in (caught.value.fix or "")
    assert target.read_text() == "mine"
    exporting.export(path, "script", target, force=True)
    assert "x = 2" in target.read_text()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = write_notebook(["%%step a\nx = 1"], tmp_path / "n.ipynb")
    with pytest.raises(nbflow.OptionError, match="cannot be written") as caught:
        exporting.export(path, "script", path / "n.py")
    assert "-o" in (caught.value.fix or "")


@pytest.mark.export
def test_notebook_and_script_reuse_each_other(tmp_path: Path) -> None:
    cells = [
        "import os\n%config InlineBackend.figure_format = 'png'", "def twice(x):\n    return 2 * x", "",
        "%%params\nrate: float = 0.1", "%%step a\nx = twice(rate)\n%time y = x", "z = y + 1",
        "%%step b --foreach i in [1, 2]\nw = z * i",
        "%%step c --join b\nt = [one.w for one in inputs]\nos.getpid() > 0",
    ]  # fmt: skip
    path = write_notebook(cells, tmp_path / "made.ipynb")
    exporting.export(path, "script", tmp_path / "flow.py")
    store = str(tmp_path / "store")
    assert nbflow.run(path, store=store).successful
    done = run_script(tmp_path / "flow.py", "--store", store, "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["kind"], summary["status"], summary["flow"]) == ("summary", "done", "made"), (
        done.stdout + done.stderr
    )
    assert {state for state, count in summary["counts"].items() if count} == {"reused"}, summary
    done = run_script(tmp_path / "flow.py", "-p", "rate=0.2", "--store", store)
    assert done.returncode == 0, done.stdout + done.stderr
    again = nbflow.run(path, store=store, params={"rate": 0.2})
    states = {task.state for step in again.steps() for task in step.tasks}
    assert states == {"reused"}
    assert again.data.t == [1.4, 2.8]


@pytest.mark.export
def test_jupytext_reads_the_script_as_the_notebook(tmp_path: Path) -> None:
    """Cells, kinds and sources; what is active in scripts only is no code cell there."""
    path = ROOT / "tests" / "notebooks" / "magics_everywhere.ipynb"
    exporting.export(path, "script", tmp_path / "flow.py")
    code = "import jupytext, nbformat; nbformat.write(jupytext.read('flow.py'), 'back.ipynb')"
    subprocess.run([str(METAFLOW), "-W", "ignore", "-c", code], cwd=tmp_path, check=True, timeout=60)
    back, own = nbformat.read(tmp_path / "back.ipynb", as_version=4), nbformat.read(path, as_version=4)
    assert back.cells[0].cell_type == "raw"
    assert "run_script" in back.cells[0].source

    def plain(cell: Any) -> tuple[str, str]:
        source = cell.source.strip().replace("# %%step", "%%step").replace("# %%params", "%%params")
        return cell.cell_type, source.replace("# %%setup", "%%setup")

    assert [plain(cell) for cell in back.cells[1:]] == [plain(cell) for cell in own.cells if cell.source.strip()]
