"""What a wheel holds, with and without a front end that Node has built."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nbflow.cli.tutorial import examples

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "hatch_build.py", "package.json", "README.md", "LICENSE")
BUILT = {"nbflow/labextension/package.json": "{}", "nbflow/static/widget.js": "1"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clone in which no front end was built."""
    place = tmp_path / "source"
    left_out = shutil.ignore_patterns("__pycache__", "labextension", "static")
    shutil.copytree(ROOT / "nbflow", place / "nbflow", ignore=left_out)
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns(".nbflow"))
    (place / "labextension").mkdir()
    shutil.copy(ROOT / "labextension" / "install.json", place / "labextension")
    for name in FILES:
        shutil.copy(ROOT / name, place)
    return place


def built(source: Path) -> tuple[set[str], str]:
    """The names in the wheel that is made where there is no Node, and what is said meanwhile."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=source, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        return set(content.namelist()), done.stdout + done.stderr


@pytest.mark.running
def test_without_node_one_line_says_what_is_left_out(source: Path) -> None:
    names, told = built(source)
    assert len([line for line in told.splitlines() if "without its JupyterLab sidebar and panel" in line]) == 1
    assert {f"nbflow/examples/{each.name}" for each in examples()} <= names
    assert not any("labextensions" in name for name in names)


@pytest.mark.running
def test_a_front_end_that_is_built_goes_into_the_wheel(source: Path) -> None:
    for name, text in BUILT.items():
        (source / name).parent.mkdir()
        (source / name).write_text(text)
    names, told = built(source)
    assert "without" not in told
    assert "nbflow/static/widget.js" in names
    place = ".data/data/share/jupyter/labextensions/nbflow/"
    assert {name.partition(place)[2] for name in names if place in name} >= {"package.json", "install.json"}
