"""The public names: complete, sorted, loaded on first use."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nbflow
from nbflow import errors

HEAVY = "IPython anywidget click cloudpickle fsspec ipywidgets matplotlib msgspec numpy pandas rich".split()
SOURCE = Path(nbflow.__file__)


def _fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_all_is_sorted_and_without_doubles() -> None:
    assert nbflow.__all__ == sorted(set(nbflow.__all__))


def test_every_name_has_a_home_and_a_type() -> None:
    typed = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nbflow.")
        for alias in node.names
    }
    assert set(nbflow.__all__) == set(nbflow._HOME)
    assert set(nbflow.__all__) <= typed


def test_the_whole_exception_tree_is_public() -> None:
    tree = {name for name, thing in vars(errors).items() if inspect.isclass(thing) and issubclass(thing, Exception)}
    assert tree <= set(nbflow.__all__)


@pytest.mark.parametrize("name", nbflow.__all__)
def test_name_loads(name: str) -> None:
    thing = getattr(nbflow, name)
    assert thing is not None
    assert not inspect.ismodule(thing)
    assert name in dir(nbflow)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        nbflow.no_such_name


def test_names_survive_the_import_of_every_module() -> None:
    """No file bears a public object's name: importing it would replace the object."""
    for path in SOURCE.parent.glob("*.py"):
        assert path.stem not in nbflow.__all__


def test_version_is_package_json_s() -> None:
    import json

    package = json.loads((SOURCE.parent.parent / "package.json").read_text())
    assert nbflow.__version__ == package["version"]


@pytest.mark.running
def test_import_loads_nothing_heavy() -> None:
    found = _fresh(f"import sys, nbflow; print(*(m for m in {HEAVY} if m in sys.modules))")
    assert found == ""


@pytest.mark.running
@pytest.mark.parametrize("module", ["cli.app", "runs.launch", "runs.client"])
def test_the_command_line_loads_no_ipython(module: str) -> None:
    """It takes longer to import than all of nbflow, and only a process that runs cells needs it."""
    names = {*HEAVY, "importlib.metadata", "nbflow.executors.local", "nbflow.runs.integrity", "nbflow.runs.compare"}
    names -= {"click", "cloudpickle", "msgspec"}
    assert _fresh(f"import sys, nbflow.{module}; print(*(m for m in {sorted(names)} if m in sys.modules))") == ""


def test_extension_entry_points_are_there() -> None:
    assert callable(nbflow.load_ipython_extension)
    assert callable(nbflow.unload_ipython_extension)
