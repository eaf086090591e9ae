"""How a process of ours is started: command line and environment, with nothing of the notebook's folder on its path."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from nbflow import limits

CODE = """\
import sys
try:
    import nbflow
except ImportError:
    sys.path.append(sys.argv[3])
import importlib
importlib.import_module(sys.argv[4]).main(int(sys.argv[1]), sys.argv[2])
"""
OWN = "NBFLOW_OWN_"

PIPE = 1 << 18
"""Bytes of the pipe that a reused worker's orders come through; the driver leaves at most half of that in it."""


def command(module: str, fd: int, preload: frozenset[str]) -> list[str]:
    """The module whose `main` it runs, its descriptor and the modules to import in; the command line out.

    `-P` keeps the working folder off the path: modules of the notebook's own must not be preloaded.
    """
    home = str(Path(__file__).parents[2])
    return [sys.executable, "-P", "-c", CODE, str(fd), ",".join(sorted(preload)), home, module]


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Our environment in; the process's out: one thread for numeric libraries, the user's wishes kept aside."""
    kept = {OWN + name: own[name] for name in limits.THREAD_VARIABLES if name in own}
    return {**own, **kept, **dict.fromkeys(limits.THREAD_VARIABLES, "1")}
