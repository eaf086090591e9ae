"""What `nbflow doctor` says: each part that nbflow needs or can use, whether it works, and what to do if not."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nbflow.errors import NbflowError
from nbflow.model import Frozen
from nbflow.render import preview
from nbflow.runs.place_trial import try_place
from nbflow.store.location import open_store, store_url

NEEDED = ("ipython", "ipykernel", "msgspec", "cloudpickle", "fsspec", "blake3", "nbformat", "click", "rich")
OPTIONAL: Mapping[str, str] = {
    "jupyterlab": "pip install jupyterlab",
    "anywidget": "pip install anywidget",
    "s3fs": "pip install 'nbflow[s3]', for stores on s3://",
    "ray": "pip install 'nbflow[ray]', for --on ray://",
    "distributed": "pip install 'nbflow[dask]', for --on dask://",
    "pyyaml": "pip install pyyaml, for parameter files in YAML",
}
"""Distribution → how to get it and what for."""

EXTENSION = "nbflow"


class Check(Frozen, frozen=True):
    """One line: a part, whether it works, what was found, what to do; a part that is not `needed` may be missing."""

    part: str
    works: bool
    found: str
    fix: str = ""
    needed: bool = True


def diagnose(
    store: str | None, folder: Path, environ: Mapping[str, str] = os.environ, on: str | None = None
) -> list[Check]:
    """Return the outcome of every check of a store (as `--store` gives it), a notebook's folder and the environment.

    `on` is the URL of another place where steps are to run.
    """
    return [
        _python(),
        *(_package(name) for name in NEEDED),
        _processes(),
        _store(store, folder),
        _kernel(environ),
        _extension(environ),
        _order(environ),
        *(_optional(name, fix) for name, fix in OPTIONAL.items()),
        *(_place(on, store, folder) if on is not None else ()),
    ]


def is_well(checks: Iterable[Check]) -> bool:
    """Return whether everything that is needed works."""
    return all(check.works for check in checks if check.needed)


def text(checks: Iterable[Check]) -> str:
    """Return a line for each check: `works` or `missing`, the part, what was found, what to do."""
    return "\n".join(preview.grid(_cells(check) for check in checks))


def _cells(check: Check) -> tuple[str, str, str]:
    word = "✓ works" if check.works else "✗ missing" if check.needed else "- missing"
    return word, check.part, check.found + (f" → {check.fix}" if check.fix else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _python() -> Check:
    works = sys.version_info >= (3, 11)
    version = (
        f"Python {platform.python_version()} on {platform.system()}, nbflow {_version('nbflow') or 'not installed'}"
    )
    return Check(part="python", works=works, found=version, fix="" if works else "use Python 3.11 or newer")


def _package(name: str) -> Check:
    version = _version(name)
    fix = "" if version else f"pip install {name}"
    return Check(part=name, works=version is not None, found=version or "not installed", fix=fix)


def _optional(name: str, fix: str) -> Check:
    installed = _version(name)
    text = installed or "not installed (optional)"
    return Check(part=name, works=installed is not None, found=text, fix="" if installed else fix, needed=False)


def _processes() -> Check:
    if hasattr(os, "fork"):
        return Check(part="processes", works=True, found=f"one process a task, forked; {os.cpu_count()} cores")
    return Check(part="processes", works=True, found=f"one process a task, started ahead; {os.cpu_count()} cores")


def _store(option: str | None, folder: Path) -> Check:
    try:
        url = store_url(option, folder)
        store = open_store(url)
        probe = f"probes/{secrets.token_hex(6)}"
        store.write(probe, b"nbflow doctor")
        store.delete(probe)
    except NbflowError as error:
        return Check(part="store", works=False, found=error.message, fix=error.fix or "choose another with --store")
    return Check(part="store", works=True, found=f"{url} is writable")


def _place(on: str, store: str | None, folder: Path) -> Iterator[Check]:
    for each in try_place(on, store_url(store, folder)):
        yield Check(part=each.part, works=each.works, found=each.found, fix=each.fix)


def _kernel(environ: Mapping[str, str]) -> Check:
    files = [place / "kernels" / "python3" / "kernel.json" for place in _jupyter_folders(environ)]
    spec = next((path for path in files if path.exists()), None)
    if spec is not None:
        return Check(part="kernel", works=True, found=f"python3, {spec.parent}")
    fix = "python -m ipykernel install --sys-prefix"
    return Check(part="kernel", works=False, found="no kernel named python3", fix=fix)


def _extension(environ: Mapping[str, str]) -> Check:
    places = [place / "labextensions" / EXTENSION / "package.json" for place in _jupyter_folders(environ)]
    file = next((path for path in places if path.exists()), None)
    if file is not None:
        return Check(part="labextension", works=True, found=str(file.parent), needed=False)
    return Check(
        part="labextension",
        works=False,
        found="not installed in this environment",
        fix="pip install nbflow in the environment that JupyterLab runs in; without it the saved file gives the order",
        needed=False,
    )


def _order(environ: Mapping[str, str]) -> Check:
    for name in ("JPY_SESSION_NAME", "__vsc_ipynb_file__"):
        if environ.get(name):
            return Check(part="document order", works=True, found=f"{name}: {environ[name]}")
    order = "`nbflow run` reads the file; a kernel: the live cells, else the saved file, else the order of execution"
    return Check(part="document order", works=True, found=order)


def _jupyter_folders(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders where Jupyter looks for kernels and extensions."""
    for place in filter(None, environ.get("JUPYTER_PATH", "").split(os.pathsep)):
        yield Path(place)
    yield Path(sys.prefix) / "share" / "jupyter"
    yield Path(environ.get("JUPYTER_DATA_DIR") or Path.home() / ".local" / "share" / "jupyter")
    yield from (Path("/usr/local/share/jupyter"), Path("/usr/share/jupyter"))
