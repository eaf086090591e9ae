"""Notebooks that run in stages: first, once more, and after each edit of what they look at; a plain kernel each time.

After every stage the flow's values, reused or not, are compared with those of a plain kernel in a copy of the folder
as it was when the stage began.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.runs.client import Run
from tests.support.nursery import Nursery
from tests.support.plain import execute, plain_source


@dataclass
class Project:
    """A notebook's folder: where edits are made."""

    folder: Path
    cells: list[str]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def notebook(self) -> Path:
        return self.folder / "staged.ipynb"

    @property
    def outside(self) -> Path:
        """A folder beside it, on which nothing but links of the project's lead."""
        return self.folder.parent / "outside"

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def link(self, name: str, target: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).symlink_to(target)

    def edit(self, cell: int, old: str, new: str) -> None:
        assert old in self.cells[cell]
        self.cells[cell] = self.cells[cell].replace(old, new)

    def swap(self, one: int, other: int) -> None:
        self.cells[one], self.cells[other] = self.cells[other], self.cells[one]

    def set(self, name: str, value: str | None) -> None:
        """Set an environment variable for all that runs from now on; None: take it away."""
        if value is None:
            self.variables.pop(name, None)
            os.environ.pop(name, None)
        else:
            self.variables[name] = os.environ[name] = value


Edit = Callable[[Project], object]


@dataclass(frozen=True)
class Staged:
    """One notebook: cells, the names to compare, files and variables, and edits, each of which changes a name."""

    cells: tuple[str, ...]
    names: str
    edits: tuple[Edit, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    again: str = "reused"  # how every step stands once nothing has changed; "" where the cells themselves change things

    def make(self, folder: Path) -> Project:
        """Return its folder, as it is before the first stage."""
        project = Project(folder, [*self.cells])
        folder.mkdir(parents=True)
        project.outside.mkdir()
        (project.outside / "data.txt").write_text("one")
        for name, text in self.files.items():
            project.write(name, text)
        for name, target in self.links.items():
            project.link(name, target)
        for name, value in self.variables.items():
            project.set(name, value)
        return project


def plain_values(project: Project, names: list[str], place: Path, nursery: Nursery) -> dict[str, str]:
    """Return the reprs of names after a plain run of the notebook, in a copy of its folder."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(project.folder, place / "copy", symlinks=True, ignore=shutil.ignore_patterns(".nbflow"))
    shutil.copytree(project.outside, place / "outside")
    ask = f"import json as _json\nprint(_json.dumps({{n: repr(globals().get(n, 'MISSING')) for n in {names!r}}}))"
    sources = [*map(plain_source, project.cells), ask]
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    execute(document, place / "copy", manager=nursery.manager())
    values: dict[str, str] = json.loads(document.cells[-1].outputs[0].text)
    return values


def flow_values(run: Run, names: list[str]) -> dict[str, str]:
    """Return the reprs of names as a run has left them."""
    assert run.successful, run.error
    return {name: repr(getattr(run.data, name, "MISSING")) for name in names}


def run_flow(project: Project) -> Run:
    """Run the notebook as it is now, every cell of it."""
    project.notebook.write_text(document_of([(f"c{n}", source) for n, source in enumerate(project.cells)], "staged"))
    return nbflow.run(project.notebook, all_cells=True)
