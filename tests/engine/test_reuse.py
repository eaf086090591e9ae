"""Reuse that is never wrong: whatever a result hangs on is edited, one thing at a time, and the plan must see it.

One run is stored; every edit is made to a copy of its folder and only planned, so that a case costs milliseconds. The
edits that must be seen are then run once, all together, and compared with the oracle.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import nbflow
from nbflow import reference
from nbflow.flow.notebook import document_of
from tests.support.equality import equal

pytestmark = pytest.mark.running

CELLS = {
    "imports": "import json\nimport os\nfrom pathlib import Path\n\nimport stamped\nfrom tools import area, shapes",
    "base": "class Base:\n    unit = 'cm'\n\n    def label(self):\n        return self.unit",
    "class": "class Box(Base):\n    limit = 3\n\n    def __init__(self, side):\n        self.side = side\n\n"
    "    def volume(self):\n        return min(self.side, self.limit) ** 3",
    "twice": "def twice(function):\n    def inner(*args):\n        return 2 * function(*args)\n    return inner",
    "near": "def near(x):\n    return x + 1",
    "middle": "def middle(x):\n    return near(x) * 2",
    "far": "@twice\ndef far(x, by=10):\n    return middle(x) * by",
    "maker": "def maker(power):\n    return lambda x: x ** power",
    "limits": "LIMIT = 100",
    "setup": "%%setup\nos.environ.setdefault('DEMO_SETUP', 'one')",
    "params": "%%params\nlr: float = 0.5\nunused: int = 1",
    "plain": "start = 1",
    "s_flag": "%%step s_flag\nflag = os.path.isdir('parts') and os.path.exists('data.csv')",
    "s_far": "%%step s_far\nfar_value = far(start)",
    "s_box": "%%step s_box\nbox = Box(2)\nvolume = box.volume()\nlabel = box.label()",
    "s_limit": "%%step s_limit\nlimited = min(LIMIT, 1000)",
    "s_maker": "%%step s_maker\nsquare = maker(2)(3)",
    "s_module": "%%step s_module\nmeasured = area(2)",
    "s_package": "%%step s_package\nversion = stamped.VERSION",
    "s_file": "%%step s_file\nrows = Path('data.csv').read_text().split()",
    "s_folder": "%%step s_folder\nparts = sorted(p.read_text() for p in Path('parts').glob('*.txt'))",
    "s_absent": "%%step s_absent\nextra = Path('extra.txt').read_text() if Path('extra.txt').exists() else 'none'",
    "s_cached": "%%step s_cached\nfolder = Path('made') / 'deep'\nfolder.mkdir(parents=True, exist_ok=True)\n"
    "if not (folder / 'cached.txt').exists():\n    (folder / 'cached.txt').write_text('1')\n"
    "cached = (folder / 'cached.txt').read_text()",
    "s_env": "%%step s_env\nmode = os.environ.get('DEMO_MODE', 'plain')",
    "s_lr": "%%step s_lr\nrate = lr * 2",
    "s_out": "%%step s_out\nPath('out.json').write_text(json.dumps(measured))\nwritten = True",
    "s_list": "%%step s_list --foreach word in rows\nlength = len(word)",
    "s_join": "%%step s_join --join s_list\nlengths = [each.length for each in inputs]",
    "s_end": "%%step s_end\nsummary = (far_value, volume, limited, lengths)",
}
STEPS = {name for name in CELLS if name.startswith("s_")}
TOOLS = {
    "tools/__init__.py": "",
    "tools/area.py": "from tools.units import factor\n\n\ndef area(x):\n    return x * x * factor()\n",
    "tools/units.py": "def factor():\n    return 3\n",
    "tools/shapes.py": "from tools.area import area\n",
}


@dataclass
class Project:
    """A folder with a notebook, its helper modules and data, and its store."""

    folder: Path

    @property
    def notebook(self) -> Path:
        return self.folder / "demo.ipynb"

    def write(self, cells: dict[str, str]) -> None:
        self.notebook.write_text(document_of(cells.items(), "demo"))

    def edit(self, cell: str, old: str, new: str) -> None:
        assert old in CELLS[cell]
        self.write(CELLS | {cell: CELLS[cell].replace(old, new)})

    def replace(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    def runs(self) -> set[str]:
        """The steps that the plan would run."""
        rows = nbflow.plan(self.notebook).tasks
        assert {row.step for row in rows} >= STEPS
        return {row.step for row in rows if row.action == "run"}

    def codes(self, step: str) -> set[str]:
        return {code for row in nbflow.plan(self.notebook).tasks if row.step == step for code, _ in row.reasons}


def make(folder: Path) -> Project:
    project = Project(folder)
    files = {
        **TOOLS,
        "tools/__init__.py": "from tools.area import area\n",
        "data.csv": "a bb ccc\n",
        "parts/1.txt": "1",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    install(folder, "1.0")
    project.write(CELLS)
    return project


def install(folder: Path, version: str) -> None:
    """The distribution `stamped`, as pip would install it or bring it to another version."""
    site = folder / "lib" / "site-packages"
    shutil.rmtree(site, ignore_errors=True)
    info = site / f"stamped-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stamped\nVersion: {version}\n")
    (info / "RECORD").write_text("stamped.py,,\n")
    (site / "stamped.py").write_text(f"VERSION = {version!r}\n")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after a whole run."""
    project = make(tmp_path_factory.mktemp("reuse") / "project")
    with pytest.MonkeyPatch.context() as patch:
        circumstances(patch, project.folder)
        run = nbflow.run(project.notebook)
        assert run.successful, run.error
        assert project.runs() == set(), nbflow.plan(project.notebook)
    return project


def circumstances(patch: pytest.MonkeyPatch, folder: Path) -> None:
    site = str(folder / "lib" / "site-packages")
    patch.setattr(sys, "path", [site, *sys.path])
    patch.setenv("PYTHONPATH", os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]))
    patch.setenv("NBFLOW_CACHE", str(folder.parent / "cache"))
    patch.setenv("NBFLOW_TRUST", str(folder / ".nbflow"))  # a copy
    for name in ("NBFLOW_STORE", "DEMO_MODE", "DEMO_SETUP"):
        patch.delenv(name, raising=False)


@pytest.fixture
def project(ran: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, times of files included, to be edited."""
    folder = tmp_path / "project"
    shutil.copytree(ran.folder, folder)
    circumstances(monkeypatch, folder)
    return Project(folder)


def same_size_and_time(project: Project) -> None:
    path = project.folder / "data.csv"
    nbflow.plan(project.notebook)  # this process has seen the file
    status = path.stat()
    with path.open("r+") as file:
        file.write("z")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


SEEN: dict[str, tuple[Callable[[Project], object], str, str]] = {
    "function": (lambda p: p.edit("far", "* by", "+ by"), "s_far", "code"),
    "function two calls away": (lambda p: p.edit("near", "x + 1", "x + 2"), "s_far", "code"),
    "decorator": (lambda p: p.edit("twice", "2 *", "3 *"), "s_far", "code"),
    "default argument": (lambda p: p.edit("far", "by=10", "by=20"), "s_far", "code"),
    "closure": (lambda p: p.edit("maker", "x ** power", "x + power"), "s_maker", "code"),
    "class attribute": (lambda p: p.edit("class", "limit = 3", "limit = 1"), "s_box", "code"),
    "method": (lambda p: p.edit("class", "** 3", "** 2"), "s_box", "code"),
    "base class": (lambda p: p.edit("base", "'cm'", "'mm'"), "s_box", "code"),
    "constant": (lambda p: p.edit("limits", "100", "7"), "s_limit", "code"),
    "cell": (lambda p: p.edit("s_maker", "(3)", "(4)"), "s_maker", "code"),
    "plain cell": (lambda p: p.edit("plain", "= 1", "= 2"), "s_far", "code"),
    "helper module": (lambda p: p.replace("tools/area.py", "x * x", "x + x"), "s_module", "file"),
    "module that a helper imports": (lambda p: p.replace("tools/units.py", "3", "4"), "s_module", "file"),
    "package version": (lambda p: install(p.folder, "2.0"), "s_package", "package"),
    "package gone": (lambda p: shutil.rmtree(p.folder / "lib"), "s_package", "package"),
    "data file": (lambda p: p.replace("data.csv", "bb", "bbbb"), "s_file", "file"),
    "data file of the same size and time": (same_size_and_time, "s_file", "file"),
    "data file gone": (lambda p: (p.folder / "data.csv").unlink(), "s_file", "file"),
    "one file more in a folder": (lambda p: (p.folder / "parts" / "2.txt").write_text("2"), "s_folder", "file"),
    "file looked for that is there now": (lambda p: (p.folder / "extra.txt").write_text("x"), "s_absent", "file"),
    "folder asked for that is gone": (lambda p: shutil.rmtree(p.folder / "parts"), "s_flag", "file"),
    "file asked for that is gone": (lambda p: (p.folder / "data.csv").unlink(), "s_flag", "file"),
    "file that it made where there was none": (lambda p: shutil.rmtree(p.folder / "made"), "s_cached", "file"),
    "environment variable": (lambda _: os.environ.update(DEMO_MODE="fast"), "s_env", "environment"),
    "parameter's default": (lambda p: p.edit("params", "0.5", "0.25"), "s_lr", "parameter"),
    "file that it wrote gone": (lambda p: (p.folder / "out.json").unlink(), "s_out", "file"),
    "file that it wrote changed": (lambda p: (p.folder / "out.json").write_text("{}"), "s_out", "file"),
    "set-up": (lambda p: p.edit("setup", "'one'", "'two'"), "s_far", "code"),
    "list of a foreach": (lambda p: p.edit("s_list", "in rows", "in rows[1:]"), "s_join", "input"),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_a_result_hangs_on_is_seen(name: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    edit, step, code = SEEN[name]
    monkeypatch.setenv("DEMO_MODE", "plain")
    monkeypatch.delenv("DEMO_MODE")  # put back after the test, whatever the edit does
    edit(project)
    runs = project.runs()
    assert step in runs
    assert code in project.codes(step), project.codes(step)
    if name != "set-up":
        assert len(runs) < len(STEPS), "what has nothing to do with it is reused"


def lines_between(project: Project) -> None:
    cells = {
        name: source.replace("\n", "\n\n# a remark\n") for name, source in CELLS.items() if "%%params" not in source
    }
    project.write({**CELLS, **{name: text for name, text in cells.items() if not text.startswith("%%")}})


def comments_in_steps(project: Project) -> None:
    project.write(
        {name: f"{source}  # a remark\n\n# the end\n" if name in STEPS else source for name, source in CELLS.items()}
    )


def moved(project: Project) -> None:
    order = [*CELLS]
    order.insert(order.index("s_box"), order.pop(order.index("s_env")))
    order.insert(0, order.pop(order.index("limits")))
    project.write({name: CELLS[name] for name in order})


SAME: dict[str, Callable[[Project], object]] = {
    "comments and blank lines in definitions": lines_between,
    "comments in steps": comments_in_steps,
    "moved cells": moved,
    "renamed step": lambda p: p.edit("s_limit", "%%step s_limit", "%%step limit_of_it"),
    "another layout": lambda p: p.edit("s_far", "far(start)", "far( start )"),
    "other quotes": lambda p: p.edit("base", "'cm'", '"cm"'),
    "a cell that nothing needs": lambda p: p.write({**CELLS, "scratch": "scratch = 17\nprint(scratch)"}),
    "a function that nothing calls": lambda p: p.write({"more": "def more():\n    return 1", **CELLS}),
    "touched file": lambda p: os.utime(p.folder / "data.csv"),
    "file rewritten as it was": lambda p: (p.folder / "data.csv").write_text("a bb ccc\n"),
    "another file in the folder of data": lambda p: (p.folder / "notes.md").write_text("x"),
    "environment variable that nobody reads": lambda _: os.environ.update(DEMO_SETUP_OTHER="1"),
    "parameter that a step does not read": lambda p: p.edit("params", "unused: int = 1", "unused: int = 2"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_matter_is_reused(name: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_SETUP_OTHER", "0")
    monkeypatch.delenv("DEMO_SETUP_OTHER")
    SAME[name](project)
    rows = nbflow.plan(project.notebook).tasks
    assert [row for row in rows if row.action == "run"] == []


def test_all_edits_at_once_give_what_a_plain_run_gives(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the first run is left where it would be wrong; what is untouched is still reused."""
    cells = dict(CELLS)
    for cell, old, new in (
        ("near", "x + 1", "x + 2"), ("twice", "2 *", "3 *"), ("class", "limit = 3", "limit = 1"),
        ("base", "'cm'", "'mm'"), ("params", "0.5", "0.25"), ("maker", "x ** power", "x + power"),
    ):  # fmt: skip
        cells[cell] = cells[cell].replace(old, new)
    project.write(cells)
    project.replace("tools/units.py", "3", "4")
    same_size_and_time(project)
    (project.folder / "extra.txt").write_text("x")
    run = nbflow.run(project.notebook)
    assert run.successful, run.error
    monkeypatch.chdir(project.folder)
    monkeypatch.syspath_prepend(project.folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in {"tools", "stamped"}]:
        monkeypatch.delitem(sys.modules, name)
    expected = reference.run(project.notebook)
    kept = {"far_value", "volume", "label", "limited", "square", "measured", "version", "rows", "parts", "extra"}
    kept |= {"mode", "rate", "lengths", "summary"}
    assert {name: found for name in kept if (found := equal(getattr(run.data, name), expected[name]))} == {}
    assert {step.name for step in run.steps() if step.state == "reused"} >= {
        "s_limit",
        "s_package",
        "s_folder",
        "s_env",
    }
