"""What `--pip` and `--env` ask for: which files belong to it, and whether this Python meets it."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from nbflow.engine.environments import EnvironmentSource, environment_of, is_met
from nbflow.model import Notebook, StepOptions
from tests.support.wheels import make_wheel

MSGSPEC = importlib.metadata.version("msgspec")


def asked(folder: Path, *pip: str, env: str | None = None) -> EnvironmentSource:
    notebook = Notebook(name="n", folder=str(folder), path=None, cells=())
    source = environment_of(notebook, StepOptions(pip=pip, env=env))
    assert source is not None
    return source


NAMED = {
    "requirements alone": (("msgspec==1", "x[y]>=2; python_version>'3'"), set()),
    "a wheel": (("./wheels/a-1-py3-none-any.whl[extra]",), {"wheels/a-1-py3-none-any.whl"}),
    "a wheel by its URL": (("a @ file:wheels/a-1-py3-none-any.whl",), {"wheels/a-1-py3-none-any.whl"}),
    "a folder of wheels": (("a", "--find-links", "wheels"), {"wheels/a-1-py3-none-any.whl"}),
    "the same in one word": (("a", "--find-links=wheels"), {"wheels/a-1-py3-none-any.whl"}),
    "a file, and what that names": (("-r", "more.txt"), {"more.txt", "deep/limits.txt", "wheels/a-1-py3-none-any.whl"}),
    "source": (("./lib",), {"lib/pyproject.toml", "lib/mine.py"}),
    "an index": (("a", "--index-url", "https://example.org/simple"), set()),
    "beyond the folder": (("../elsewhere.whl",), set()),
}


@pytest.mark.parametrize("case", NAMED)
def test_files_that_requirements_name_belong_to_them(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    make_wheel(folder / "wheels", "a", "1")
    make_wheel(tmp_path, "elsewhere", "1")
    (folder / "deep").mkdir()
    (folder / "more.txt").write_text("a  # a comment\n-c deep/limits.txt\n--find-links=wheels\n")
    (folder / "deep" / "limits.txt").write_text("a<2\n")
    (folder / "lib" / "__pycache__").mkdir(parents=True)
    for name in ("pyproject.toml", "mine.py", "__pycache__/mine.pyc"):
        (folder / "lib" / name).write_text("")
    words, files = NAMED[case]
    assert {*asked(folder, *words).files} == files


def test_an_environment_is_known_by_words_and_content(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x==1\n")
    first = asked(tmp_path, env="a.txt").environment
    assert asked(tmp_path, env="a.txt").environment == first
    assert asked(tmp_path, "y", env="a.txt").environment.id != first.id
    (tmp_path / "a.txt").write_text("x==2\n")
    assert asked(tmp_path, env="a.txt").environment.id != first.id


MET = {
    f"msgspec=={MSGSPEC}": True,
    "msgspec": True,
    "MsgSpec>=0.1": True,
    "msgspec<0.1": False,
    "nbnowhere": False,
    "nbnowhere; python_version < '3'": True,
    "fsspec[nbnowhere]": True,
    "--no-index": False,
    "msgspec @ https://example.org/msgspec.whl": False,
}


@pytest.mark.parametrize("requirement", MET)
def test_a_python_that_has_it_all_needs_no_environment(requirement: str, tmp_path: Path) -> None:
    assert is_met(asked(tmp_path, requirement).environment) is MET[requirement]


def test_this_python_is_in_its_own_range(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nrequires-python = "=={sys.version_info.major}.{sys.version_info.minor}.*"\n'
        'dependencies = ["msgspec"]\n'
    )
    assert asked(tmp_path, env="pyproject.toml").environment.arguments == ("msgspec",)
