"""Steps with packages of their own: `--pip`, `--env` and the notebook's metadata, made from tiny wheels, offline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nbflow
from nbflow.errors import PlanError
from tests.support.kernel import Kernel, NotebookFile
from tests.support.wheels import make_wheel

pytestmark = pytest.mark.running

UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
OFFLINE = "--no-index --find-links wheels"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels beside the notebook, and a cache without environments."""
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "nbtiny", version)
    make_wheel(tmp_path / "wheels", "nbouter", "1.0", needs="nbtiny<2")
    return tmp_path / "wheels"


def notebook(folder: Path, options: str, head: str = "import os") -> Path:
    """Write a notebook whose step says which nbtiny it has, and what the packages of this Python are there."""
    body = (
        "import nbtiny, numpy, sys\nversion = nbtiny.VERSION\nwhere = sys.prefix\nones = numpy.ones(3)\nprint(version)"
    )
    cells = [head, "%%step before\nx = 20", f"%%step use {options}\n{body}\ny = x + 1", "%%step after\nz = y + 1"]
    return NotebookFile(folder / "flow.ipynb", {str(at): cell for at, cell in enumerate(cells)}).path


def test_a_step_runs_in_an_environment_that_is_made_once(wheels: Path, tmp_path: Path) -> None:
    path = notebook(tmp_path, f'--pip "nbtiny==1.0 {OFFLINE}"')
    first = nbflow.run(path)
    assert first.status == "done", first.error
    data = first.data
    assert (data.version, data.y, data.z, list(data.ones)) == ("1.0", 21, 22, [1, 1, 1])
    assert data.where.startswith(str(tmp_path / "cache" / "environments"))
    (environment,) = {each.name for each in Path(data.where).parent.iterdir() if not each.name.startswith(".")}
    assert Path(data.where).name == environment
    again = nbflow.run(path)
    assert {step.state for step in again.steps()} == {"reused"}
    assert nbflow.run(path, fresh=["use"]).data.where == data.where


def test_another_version_is_another_key_and_why_says_so(wheels: Path, tmp_path: Path) -> None:
    nbflow.run(notebook(tmp_path, f'--pip "nbtiny==1.0 {OFFLINE}"'))
    path = notebook(tmp_path, f'--pip "nbtiny==2.0 {OFFLINE}"')
    (row,) = [row for row in nbflow.plan(path).tasks if row.step == "use"]
    assert row.action == "run"
    assert row.reasons[0][0] == "environment"
    assert "nbtiny==2.0" in row.reasons[0][1]


FILES = {
    "requirements.txt": "# what it needs\n--no-index\n--find-links wheels\nnbouter==1.0  # brings nbtiny\n",
    "wheels.txt": "./wheels/nbtiny-1.0-py3-none-any.whl\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ["requirements.txt", "wheels.txt"])
def test_a_file_describes_it_and_its_content_counts(wheels: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    path = notebook(tmp_path, f"--env {name}")
    first = nbflow.run(path)
    assert first.status == "done", first.error
    assert first.data.version == "1.0"
    (tmp_path / name).write_text(FILES[name].replace("nbouter==1.0", "nbtiny==2.0").replace("tiny-1.0", "tiny-2.0"))
    (row,) = [row for row in nbflow.plan(path).tasks if row.step == "use"]
    assert (row.action, row.reasons[0]) == ("run", ("environment", f"--env {name}: what that asks for has changed"))


def test_a_project_lists_its_dependencies(wheels: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["nbouter"]\n'
    )
    run = nbflow.run(notebook(tmp_path, f'--env pyproject.toml --pip "{OFFLINE}"'))
    assert run.status == "done", run.error
    assert run.data.version == "1.0"


@pytest.mark.skipif(UV is None, reason="needs uv")
def test_a_lock_is_read_by_uv(wheels: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["nbouter"]\n'
        '[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n'
    )
    subprocess.run([str(UV), "lock", "-q", "--offline"], cwd=tmp_path, check=True)
    run = nbflow.run(notebook(tmp_path, "--env uv.lock"))
    assert run.status == "done", run.error
    assert run.data.version == "1.0"


def test_the_first_cells_metadata_is_every_steps_environment(wheels: Path, tmp_path: Path) -> None:
    wheel = wheels / "nbtiny-1.0-py3-none-any.whl"
    head = f'# /// script\n# requires-python = ">=3.11"\n# dependencies = ["nbtiny @ {wheel.as_uri()}"]\n# ///'
    run = nbflow.run(notebook(tmp_path, "", head=head))
    assert run.status == "done", run.error
    assert (run.data.version, run.data.z) == ("1.0", 22)


def test_metadata_that_this_python_meets_needs_no_environment(wheels: Path, tmp_path: Path) -> None:
    head = '# /// script\n# dependencies = ["numpy>=1", "nbformat[test]; python_version < \'3\'"]\n# ///'
    cells = {"head": head, "a": "%%step a\nimport sys\nwhere = sys.prefix"}
    run = nbflow.run(NotebookFile(tmp_path / "flow.ipynb", cells).path)
    assert run.status == "done", run.error
    assert not (tmp_path / "cache" / "environments").exists()


MICROMAMBA = f"""#!/bin/sh
# stands for micromamba, which has to be had from elsewhere: `create -q -y -p PREFIX -f FILE`
grep -q "python=3" "$7" || exit 1
{sys.executable} -m venv --without-pip "$5"
"""


def test_a_conda_environment_is_made_by_micromamba(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "micromamba"
    tool.parent.mkdir()
    tool.write_text(MICROMAMBA)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "environment.yml").write_text("dependencies: [python=3]\n")
    run = nbflow.run(notebook(tmp_path, f'--env environment.yml --pip "nbtiny==1.0 {OFFLINE}"'))
    assert run.status == "done", run.error
    assert run.data.version == "1.0"


def test_by_hand_metadata_that_the_kernel_lacks_sends_the_step_to_a_process(wheels: Path, tmp_path: Path) -> None:
    wheel = wheels / "nbtiny-1.0-py3-none-any.whl"
    cells = {
        "head": f'# /// script\n# dependencies = ["nbtiny @ {wheel.as_uri()}"]\n# ///\n%load_ext nbflow',
        "a": "%%step a\nimport nbtiny\nversion = nbtiny.VERSION",
    }
    with Kernel(NotebookFile(tmp_path / "hand.ipynb", cells)) as kernel:
        kernel.ok("head", "a")
        assert kernel.value("version") == "'1.0'"


def test_by_hand_it_is_the_same(wheels: Path, tmp_path: Path) -> None:
    cells = {
        "ext": "%load_ext nbflow",
        "a": f'%%step a --pip "nbtiny==1.0 {OFFLINE}"\nimport nbtiny\nversion = nbtiny.VERSION\nprint("there")',
        "b": "%%step b\nlonger = version + '.0'",
    }
    with Kernel(NotebookFile(tmp_path / "hand.ipynb", cells)) as kernel:
        assert "there\n" in kernel.ok("a").stdout
        kernel.ok("b")
        assert kernel.value("longer") == "'1.0.0'"


WRONG = {
    "no such file": ("--env nowhere.txt", "--env nowhere.txt: there is no such file"),
    "of no kind": ("--env flow.ipynb", "--env flow.ipynb: nobody knows how to read it"),
    "no TOML": ("--env broken.toml", "--env broken.toml: it is no TOML"),
    "another Python": ("--env old.toml", "--env old.toml asks for Python <3, and this is"),
    "conda without micromamba": ("--env environment.yml", "an environment.yml is made by micromamba"),
    "a lock alone": ("--env uv.lock", "only a uv.lock beside its pyproject.toml"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_before_anything_runs(
    case: str, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    (tmp_path / "broken.toml").write_text("project = [")
    (tmp_path / "old.toml").write_text('[project]\nname = "x"\nrequires-python = "<3"\ndependencies = []\n')
    (tmp_path / "environment.yml").write_text("dependencies: [python=3.11]\n")
    (tmp_path / "uv.lock").write_text("version = 1\n")
    options, message = WRONG[case]
    with pytest.raises(PlanError, match=message) as caught:
        nbflow.run(notebook(tmp_path, options))
    assert (caught.value.step, caught.value.fix is not None) == ("use", True)
    assert not (tmp_path / ".nbflow" / "results").exists()


def test_a_package_that_is_nowhere_fails_the_step_and_names_it(wheels: Path, tmp_path: Path) -> None:
    run = nbflow.run(notebook(tmp_path, f'--pip "nbnowhere==7 {OFFLINE}"'))
    assert run.status == "failed"
    error = run["use"].task.error
    assert error is not None
    assert error.message.startswith("--pip nbnowhere==7")
    assert "nbnowhere" in error.message.partition("could not be made: ")[2]
    assert run["before"].state == "done"
