"""Which paths count for a task, whose word they are opened on, and the links on the way to them."""
# ruff: noqa: PTH100, PTH114, PTH115, PTH118, PTH120
# Paths are text here: the audit hook gives them so, thousands a task.

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import lru_cache

from nbflow.task.observe.environment import origin_of

LINK = "link to "
"""Before what a link says, in place of a file's id."""

IGNORED_PARTS = ("/__pycache__/", "/.ipynb_checkpoints/", "/site-packages/", "/dist-packages/", "/.nbflow/")
SYSTEM_ROOTS = ("/etc/", "/usr/", "/lib/", "/lib64/", "/opt/", "/run/", "/var/lib/")
"""What libraries read there (time zones, certificates) comes with the system; what the user reads there counts."""

CACHES = ("/matplotlib/", "/fontconfig/", "/fontlist-", "/.ipython/", "/.jupyter/", "/.config/", "/.cache/")
"""What libraries keep for themselves; what the user reads there counts."""

SHELL_FILES = "ipykernel_"
"""In the names of the files that a kernel keeps its cells' code under."""


def whole_path(path: str, folder: str, store: str) -> str | None:
    """Return the whole path of what was opened, behind all links; None for what never counts, such as the datastore."""
    full = os.path.realpath(path)
    slashed = full.replace(os.sep, "/")
    place = store.removeprefix("file://")
    if "://" not in place and (full + os.sep).startswith(os.path.realpath(place) + os.sep):
        return None
    if any(part in slashed + "/" for part in IGNORED_PARTS) or (slashed + "/").startswith(ignored_roots(folder)):
        return None
    # Before the standard library and the temporary folder are left out: the notebook's own folder may lie in either.
    if is_inside(full, folder):
        return full
    if is_temporary(full) and SHELL_FILES in full:
        return None
    return None if origin_of(full) in ("standard", "none") else full


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path is a folder or lies in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_temporary(path: str) -> bool:
    """Return whether a path lies in the system's folder for what is soon gone."""
    return is_inside(path, _temporary())


@lru_cache(maxsize=1)
def _temporary() -> str:
    return os.path.realpath(tempfile.gettempdir())


def counts_for_all(path: str, folder: str) -> bool:
    """Return whether a path counts whoever asks for it; any other counts where the user asks for it."""
    slashed = path.replace(os.sep, "/")
    return is_inside(path, folder) or not (slashed.startswith(SYSTEM_ROOTS) or any(part in slashed for part in CACHES))


@lru_cache(maxsize=64)
def ignored_roots(folder: str) -> tuple[str, ...]:
    """Return the beginnings of paths that belong to the machine and to Python's installation.

    `python -m venv .` makes the notebook's own folder a part of the installation: there only what an installation
    consists of is left out.
    """
    roots = ["/proc/", "/sys/", "/dev/"]
    for prefix in {os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}:
        if not is_inside(folder, prefix):
            roots.append(prefix.rstrip("/") + "/")
            continue
        variables = dict.fromkeys(("base", "platbase", "installed_base", "installed_platbase"), prefix)
        places = {path for name, path in sysconfig.get_paths(vars=variables).items() if name != "data"}
        own = (f"{prefix}/{name}" for name in ("share/jupyter", "share/man", "etc/jupyter", "pyvenv.cfg"))
        roots += [os.path.realpath(place) + "/" for place in (*places, *own)]
    return tuple(roots)


def links_on(path: str, folder: str) -> Iterator[tuple[str, str]]:
    """Give the links that a path leads over, each with what it says; those above the notebook's folder belong to it."""
    whole = os.path.abspath(path)
    if os.path.realpath(whole) == whole:
        return
    pending, seen = [whole], set()
    while pending:
        place = pending.pop()
        for part in _parts(place, folder):
            if part in seen or not os.path.islink(part):
                continue
            seen.add(part)
            target = os.readlink(part)
            yield part, target
            pending.append(os.path.join(os.path.dirname(part), target))


def _parts(path: str, folder: str) -> Iterator[str]:
    """Give a path's folders and the path itself, outermost first, without what the notebook's folder lies in."""
    whole = os.path.abspath(path)
    at = len(folder) if is_inside(whole, folder) else 0
    while (at := whole.find(os.sep, at + 1)) != -1:
        yield whole[:at]
    if whole != folder:
        yield whole
