"""ARCHITECTURE.md's layer table holds: imports go down, names say what they hold."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

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


FLOORS = {name: int(row[0]) for row in _table("floor") for name in re.findall(r"`([^`]+)`", row[1])}
PURE = ("analysis/", "flow/", "exporters/", "render/", "store/serialize/", "engine/state.py", "engine/events.py")
ACTING = {"flow/notebook.py"}
ACTS = {"open", "os", "pathlib", "socket", "subprocess", "tempfile", "shutil", "fsspec", "threading", "sqlite3"}
"""What pure files may not import, or call."""


STORED_RECORDS = {"Caught", "Failure"}
"""Records that users' steps hold as values: stored streams have them as the dataclasses that they are."""


def _entry(path: Path) -> str:
    """Return the package, or the file beside them, that a file belongs to, as the table has it."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _module(path: Path) -> str:
    parts = ["nbflow", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in FILES}


@functools.cache
def _imported(path: Path) -> tuple[tuple[int, str], ...]:
    """Every module of nbflow that the file names in an import, anywhere in it: (line, dotted name)."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    package = _module(path) if path.name == "__init__.py" else _module(path).rpartition(".")[0]
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            within = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else base for name in within]
        elif isinstance(node, ast.Call) and _called(node).endswith(("import_module", "__import__")):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "nbflow")


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return a file's imports and classes, and its calls that import."""
    calls = "import_module" in (text := path.read_text()) or "__import__" in text
    return tuple(_walk(_tree(path), calls=calls))


def _walk(node: ast.AST, *, calls: bool) -> Iterator[ast.AST]:
    """Yield statements within a node; its expressions too, which are most of it, if calls are looked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom | ast.ClassDef) or (calls and isinstance(child, ast.Call)):
            yield child
        if calls or not isinstance(child, ast.expr):
            yield from _walk(child, calls=calls)


def _called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_package_is_in_the_table() -> None:
    missing = {_entry(path) for path in FILES} - FLOORS.keys()
    assert not missing, f"add {sorted(missing)} to the table of packages in ARCHITECTURE.md, with one line on each"


def test_imports_go_down() -> None:
    wrong = []
    for path in FILES:
        mine = _entry(path)
        for line, name in _imported(path):
            place = f"{_ids(path)}:{line}"
            if name not in MODULES:
                wrong.append(f"{place}: {name} is no file of nbflow")
                continue
            theirs = _entry(MODULES[name])
            if theirs not in (mine, "__init__") and FLOORS.get(theirs, 99) >= FLOORS.get(mine, 99):
                floors = FLOORS.get(mine), FLOORS.get(theirs)
                wrong.append(f"{place}: {mine} imports {theirs}, floors {floors}")
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    graph = {_module(path): {name for _, name in _imported(path)} - {_module(path)} for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()


def test_no_two_types_bear_one_name() -> None:
    """What users read a run back with is called as what it shows: those names are public, and stand in `runs`."""
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(_ids(path))
    twice = {name: places for name, places in homes.items() if len(places) > 1 and name not in nbflow.__all__}
    assert not twice, "\n".join(f"{name}: {', '.join(places)}" for name, places in sorted(twice.items()))


def test_records_are_structs() -> None:
    """One kind of record: a dataclass is made by compiling text, which is half a millisecond of every start."""
    wrong = [
        f"{_ids(path)}: {node.name}"
        for path in FILES
        for node in _nodes(path)
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in node.decorator_list)
        if node.name not in STORED_RECORDS
    ]
    assert not wrong, f"make these msgspec.Struct: {wrong}"


def test_packages_hand_on_nothing() -> None:
    for path in FILES:
        if path.name == "__init__.py" and path.parent != PACKAGE and path.parent.name not in ("analysis", "cli"):
            body = _tree(path).body
            assert [type(node) for node in body] == [ast.Expr], f"{_ids(path)} is more than a docstring"


def test_names_say_what_files_hold() -> None:
    vague = [_ids(path) for path in FILES if set(path.stem.strip("_").split("_")) & set(FORBIDDEN)]
    assert not vague, f"name these by what they hold: {vague}"
    public = [_ids(path) for path in FILES if path.parent == PACKAGE and path.stem in nbflow.__all__]
    assert not public, f"importing one of these would replace the public object of its name: {public}"


def _packages(lines: list[str]) -> set[str]:
    """Return the names under which the distributions of these requirements are imported."""
    names = [re.match(r"[\w-]+", line)[0].replace("-", "_") for line in lines]  # type: ignore[index]
    return {name.removesuffix("_python").removesuffix("_py") for name in names} | {"nbflow"}


def test_third_party_imports_are_declared() -> None:
    """At the top of a file only dependencies; inside functions also extras and what the user may have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = _packages(project["dependencies"]) | {"IPython"}
    wrong = []
    for path in FILES:
        at_top = {id(node) for node in _tree(path).body}
        for node in _nodes(path):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = {node.module.split(".")[0]}
            else:
                continue
            allowed = declared if id(node) in at_top else declared | _packages(extras) | GUESTS
            wrong += [f"{_ids(path)}:{node.lineno}: {name}" for name in names - allowed - sys.stdlib_module_names]
    assert not wrong, "\n".join(wrong)
