"""How a process of ours is started: command line and environment, with nothing of the notebook's folder on its path."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from nbflow.task import limits

CODE = """\
import sys
sys.path.insert(0, sys.argv[3])
import nbflow
del sys.path[0]
import importlib
importlib.import_module(sys.argv[4]).main(int(sys.argv[1]), sys.argv[2])
"""
OWN = "NBFLOW_OWN_"

SEED_VARIABLE, SEED = "PYTHONHASHSEED", "0"
"""The seed of tasks where the user has set none: 0, as anybody would choose who sets one for a kernel."""

PIPE = 1 << 18
"""Bytes of the pipe that a reused worker's orders come through; the driver leaves at most half of that in it."""


def command(module: str, fd: int, preload: frozenset[str], python: str = sys.executable) -> list[str]:
    """Return the command line of a process that runs a module's `main`, in another Python than this one if so asked.

    `-P` keeps the working folder off the path: modules of the notebook's own must not be preloaded. nbflow is the one
    that runs here, whatever there is in that Python.
    """
    home = str(Path(__file__).parents[2])
    return [python, "-P", "-c", CODE, str(fd), ",".join(sorted(preload)), home, module]


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return a process's environment: one thread for numeric libraries, the user's wishes kept aside.

    All tasks have one hash seed, so that a set of texts is iterated in one order wherever it is loaded.
    """
    variables = {OWN + name: own[name] for name in limits.THREAD_VARIABLES if name in own}
    seed = {} if own.get(SEED_VARIABLE) else {SEED_VARIABLE: SEED, OWN + SEED_VARIABLE: ""}
    return {**own, **variables, **dict.fromkeys(limits.THREAD_VARIABLES, "1"), **seed}


def take_back() -> dict[str, str | None]:
    """Undo in this process what `environment` did; return the user's own variables for numeric libraries."""
    if os.environ.pop(OWN + SEED_VARIABLE, None) is not None:
        del os.environ[SEED_VARIABLE]
    return {name: os.environ.pop(OWN + name, None) for name in limits.THREAD_VARIABLES}
