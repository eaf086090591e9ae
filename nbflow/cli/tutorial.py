"""`nbflow tutorial [FOLDER]`: the examples as notebooks of one's own, and the first of them open in JupyterLab."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from nbflow.errors import NotFoundError, OptionError
from nbflow.runs.face import DONE, FAILED, Answer

FIRST = "quickstart.ipynb"
NEEDS = {"pandas": "pandas", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
"""What the first example imports, by module, and what each is called where it is installed from."""


@click.command()
@click.argument("folder", metavar="[FOLDER]", default="nbflow-tutorial", type=click.Path(path_type=Path))
@click.option("--no-open", "is_quiet", is_flag=True, help="Only write them; do not start JupyterLab.")
def tutorial(folder: Path, is_quiet: bool) -> Answer:
    """Write the examples into a folder and open the first one in JupyterLab.

    A file that is there already stays as it is.
    """
    written, there = write(folder)
    print(f"{folder}: {len(written)} files written" + (f", {len(there)} were there already" if there else ""))
    missing = [name for module, name in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"{FIRST} uses {', '.join(missing)}: pip install {' '.join(missing)}")
    command = [sys.executable, "-m", "jupyterlab", str(folder / FIRST)]
    if is_quiet:
        print(f"open it with: jupyter lab {shlex.quote(str(folder / FIRST))}")
        return Answer(code=DONE)
    return Answer(code=DONE if subprocess.run(command, check=False).returncode == 0 else FAILED)


def write(folder: Path) -> tuple[list[str], list[str]]:
    """Write the examples into a folder; return the names that were written, and those that were there."""
    written, there = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in examples():
            target = folder / source.name
            if target.exists():
                there.append(source.name)
                continue
            shutil.copyfile(source, target)
            written.append(source.name)
    except OSError as error:
        raise OptionError(f"{folder} cannot be written: {error.strerror}", fix="name another folder") from None
    return written, there


def examples() -> list[Path]:
    """Return the examples and the files that they read: an installed nbflow holds them, a clone has them beside it."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples", package.parent / "examples"):
        found = [path for path in sorted(place.glob("*")) if path.suffix in {".ipynb", ".toml"}]
        if found:
            return found
    raise NotFoundError("this nbflow was installed without its examples", fix="pip install --force-reinstall nbflow")
