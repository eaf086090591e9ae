"""Which runs go by themselves: once enough are beyond those that are kept, a process of its own cleans up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nbflow import cleaning, problems
from nbflow.identity import StoredFlow, runs_of
from nbflow.model import Finding
from nbflow.past import summaries
from nbflow.storage import Store

VARIABLE = "NBFLOW_KEEP"
"""How many runs of each flow stay; 0: all."""

SLACK = 5
"""Runs beyond those that are kept before a clean-up is worth it."""


@dataclass(frozen=True)
class Retention:
    """What is said when a run begins, and what is done when it has ended."""

    finding: Finding
    start: Callable[[], None]


def plan(store: Store, flow: StoredFlow, environment: Mapping[str, str]) -> Retention | None:
    """A store, a flow of which a run is about to begin, and the environment in; what goes afterwards, None: nothing."""
    keep = _keep(environment)
    if not keep or len(runs_of(store, flow)) < keep + SLACK:  # cheap: one listing
        return None
    ended = [run for run in summaries(store, flow) if run.is_whole]
    beyond = [run for run in ended[keep - 1 :] if not run.tags and run.status != "running"]
    if len(beyond) < SLACK:
        return None
    return Retention(problems.retention(len(beyond), keep), lambda: _start(store.url, keep))


def _keep(environment: Mapping[str, str]) -> int:
    text = environment.get(VARIABLE, "")
    return int(text) if text.isdigit() else cleaning.KEEP


def _start(url: str, keep: int) -> None:
    """`nbflow gc` in a process that belongs to nobody: the run is over, and nobody waits for this."""
    command = [sys.executable, "-P", "-m", "nbflow", "gc", "--store", url, "--keep", str(keep)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.name == "posix":
        # the shell ends at once, so that no ended process of ours is left behind
        command = ["/bin/sh", "-c", '"$@" &', "sh", *command]
        subprocess.run(command, check=False, start_new_session=True, **quiet)  # type: ignore[call-overload]
    else:
        subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
