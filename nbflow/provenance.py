"""A run's first event: who began it, where, and from which commit."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from nbflow.model import Flow, RunStarted
from nbflow.reach import folded


def run_started(flow: Flow, run: str, **about: Any) -> RunStarted:
    """A flow and a run's id in; its first event, with who, where and from which commit, out."""
    return RunStarted(
        run=run, flow=flow.name, at=time.time(), notebook=flow.notebook.path, folder=flow.notebook.folder,
        user=_user(), host=socket.gethostname(), pid=os.getpid(), commit=git_commit(flow.notebook.folder),
        steps=tuple(step.name for step in flow.steps), labels={step.name: step.label for step in flow.steps},
        folded=folded(flow), edges=flow.edges, all_cells=flow.all_cells, **about,
    )  # fmt: skip


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid, as in many containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def git_commit(folder: str) -> str:
    """A folder in; the commit that its work tree is at, `+` behind it when files differ, "" outside git, out."""
    if not _in_work_tree(folder):
        return ""
    try:
        found = subprocess.run(
            ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--dirty=+"],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _in_work_tree(folder: str) -> bool:
    """Whether a `.git` stands above: asking git itself costs a process."""
    place = Path(folder).resolve()
    return any((above / ".git").exists() for above in (place, *place.parents))
