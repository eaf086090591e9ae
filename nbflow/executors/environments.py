"""Environments of steps, made on this machine once and kept: each is a Python that tasks are run in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from nbflow.engine.environments import MINOR, home_of, python_of
from nbflow.errors import ExecutorError
from nbflow.executors import environment_script
from nbflow.model import StepEnvironment
from nbflow.store.files import content_of
from nbflow.store.location import Store

LONGEST = 3600.0
"""Seconds after which what makes an environment is ended."""

LACKS = {
    environment_script.NO_UV: ("a uv.lock can be read by uv alone, which is not installed", "pip install uv"),
    environment_script.NO_CONDA: (
        "an environment.yml is made by micromamba, which is not installed",
        "install micromamba, or list the packages in a requirements.txt",
    ),
    environment_script.NO_PYTHON: (f"there is no Python {MINOR} for it", f"ask for Python {MINOR}, or install uv"),
    environment_script.NO_VENV: ("this Python cannot make environments", "install uv, or python3-venv"),
}


def made(environment: StepEnvironment, store: Store, tell: Callable[[str], None]) -> str:
    """Return the interpreter of an environment, which is made unless it is there; ExecutorError where that fails.

    Its files are in the datastore. `tell` is told that it is being made: that may take minutes.
    """
    python = python_of(environment)
    try:
        if not python.exists():
            with _alone(home_of(environment)):
                if not python.exists():
                    tell(f"{environment.label}: the environment is being made")
                    _make(environment, store)
    except OSError as error:
        raise _trouble(environment, 1, str(error)) from error
    return str(python)


def lacks(environment: StepEnvironment) -> ExecutorError | None:
    """Return what this machine lacks to make an environment, as far as that can be told without trying."""
    if python_of(environment).exists():
        return None
    missing = {"uv": ("uv", environment_script.NO_UV), "conda": ("micromamba", environment_script.NO_CONDA)}
    program, status = missing.get(environment.tool, ("", 0))
    return _trouble(environment, status, "") if program and shutil.which(program, path=_path()) is None else None


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let one process of this machine make an environment; others wait for it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(environment: StepEnvironment, store: Store) -> None:
    home = home_of(environment)
    script = environment_script.script(
        cache=shlex.quote(str(home.parent)), name=home.name, tool=environment.tool, python=_base(), minor=MINOR,
        arguments=environment.arguments, file=environment.files[0].path if environment.files else "",
        behind=_packages_here(),
    )  # fmt: skip
    files = {file.path: content_of(store, file) for file in environment.files}
    try:
        ended = subprocess.run(
            ["/bin/sh", "-c", script], input=environment_script.packed(files), capture_output=True, timeout=LONGEST,
            check=False, env={**os.environ, "PATH": _path()},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _trouble(environment, 1, f"it took longer than {LONGEST / 60:g} minutes") from None
    if ended.returncode:
        raise _trouble(environment, ended.returncode, ended.stderr.decode(errors="replace"))


def _trouble(environment: StepEnvironment, status: int, said: str) -> ExecutorError:
    if status in LACKS:
        what, fix = LACKS[status]
        return ExecutorError(f"{environment.label}: {what}", fix=fix)
    line = environment_script.last_line(said) or f"exit status {status}"
    return ExecutorError(
        f"{environment.label}: the environment could not be made: {line}",
        fix="correct what is asked for; `uv pip install` or `pip install` with the same words says more",
    )


def _path() -> str:
    """Return where programs are looked for: what pip has put beside this Python comes first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _base() -> str:
    """Return the interpreter that environments are made with: of a virtual environment, the one below it."""
    below = Path(sys.base_prefix) / "bin" / f"python{MINOR}"
    return str(below) if below.exists() else sys.executable


def _packages_here() -> list[str]:
    """Return the folders of this Python's packages, in the order in which it looks for them."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [folder for folder in dict.fromkeys(folders) if folder in sys.path]
