"""ARCHITECTURE.md's layer table holds: imports go down, names say what they hold."""

from __future__ import annotations

import ast
import functools
import graphlib
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nbflow"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "labextension" not in path.parts)
FORBIDDEN = ("utils", "util", "common", "base", "manager", "handler", "helper", "helpers", "processor", "misc")

# Imported only when the user has them, inside functions: never a dependency.
GUESTS = set(
    "IPython ipykernel matplotlib matplotlib_inline numpy pandas polars psutil pyarrow "
    "scipy sklearn threadpoolctl torch yaml".split()
)


def _table(heading_cell: str) -> Iterator[list[str]]:
    """The rows of the Markdown table whose first heading is `heading_cell`."""
    inside = False
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == heading_cell:
            inside = True
        elif inside and not set(cells[0]) <= {"-"}:
            yield cells


LEVELS = {name: int(row[0]) for row in _table("level") for name in re.findall(r"`([^`]+)`", row[1])}
SPLITS = {
    pair
    for row in _table("each may import those after it")
    for pair in itertools.combinations(re.findall(r"`([^`]+)`", row[0]), 2)
}


def _entry(path: Path) -> str:
    """A file's name in the table: `graph`, or `storage/` for every file of that folder."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] + "/" if len(parts) > 1 else path.stem


def _module(path: Path) -> str:
    parts = ["nbflow", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in FILES}


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of nbflow that the file names in an import, anywhere in it: (line, dotted name)."""
    package = _module(path) if path.name == "__init__.py" else _module(path).rpartition(".")[0]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            within = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else base for name in within]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "nbflow")


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_file_is_in_the_table(path: Path) -> None:
    assert _entry(path) in LEVELS, f"add `{_entry(path)}` to the layer table of ARCHITECTURE.md, with one line on it"


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_imports_go_down(path: Path) -> None:
    mine = _entry(path)
    wrong = []
    for line, name in _imported(path):
        target = MODULES.get(name)
        if target is None:
            wrong.append(f"line {line}: {name} is no file of nbflow")
            continue
        theirs = _entry(target)
        same_folder = theirs == mine and mine.endswith("/")
        down = LEVELS.get(theirs, 99) < LEVELS.get(mine, 99)
        if not (down or same_folder or (mine, theirs) in SPLITS):
            wrong.append(
                f"line {line}: {mine} (level {LEVELS.get(mine)}) imports {theirs} (level {LEVELS.get(theirs)})"
            )
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    graph = {_module(path): {name for _, name in _imported(path)} - {_module(path)} for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()


def test_splits_stay_on_their_level_and_point_one_way() -> None:
    for importer, imported in SPLITS:
        assert LEVELS[importer] == LEVELS[imported], (importer, imported)
        assert (imported, importer) not in SPLITS, (importer, imported)


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_name_says_what_it_holds(path: Path) -> None:
    assert not set(path.stem.strip("_").split("_")) & set(FORBIDDEN)
    if path.parent == PACKAGE and path.name != "__init__.py":
        assert path.stem not in nbflow.__all__, f"importing nbflow.{path.stem} would replace the public object"


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_third_party_imports_are_declared(path: Path) -> None:
    """At the top of a file only dependencies; inside functions also extras and what the user may have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]

    def tops(lines: list[str]) -> set[str]:
        names = [re.match(r"[\w-]+", line)[0].replace("-", "_") for line in lines]  # type: ignore[index]
        return {name.removesuffix("_python").removesuffix("_py") for name in names} | {"nbflow"}

    declared = tops(project["dependencies"]) | {"IPython"}
    tree = _tree(path)
    at_top = {id(node) for node in tree.body}
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = {node.module.split(".")[0]}
        else:
            continue
        allowed = declared if id(node) in at_top else declared | tops(extras) | GUESTS
        wrong += [f"line {node.lineno}: {name}" for name in names - allowed - sys.stdlib_module_names]
    assert not wrong, "\n".join(wrong)
