"""Drivers in processes of their own, for tests that send steps elsewhere and let the driver die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbflow
from nbflow.model import Output, Started
from nbflow.plugins import Handle
from tests.support.waiting import eventually


def nbflow_command(*words: str) -> subprocess.Popen[str]:
    """`nbflow WORDS` in a process of its own, all that it says in one stream."""
    command = [sys.executable, "-m", "nbflow", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def pid_once_it_speaks(handle: Handle) -> int:
    """The process of a task that has shown something; it goes on."""
    pid = 0
    for event in handle.events():
        if isinstance(event, Started):
            pid = event.pid
        if isinstance(event, Output):
            break
    return pid


def killed_and_attached(driver: subprocess.Popen[str], store: str, ran: Path, go: Path) -> tuple[str, nbflow.Run, str]:
    """Kill the driver of a run of `flow` once its step has written `b` into `ran`, attach, and let the step go on.

    The id of the run that lost its driver, the run that took it up, and what attach said.
    """
    eventually(lambda: (ran.exists() and "b" in ran.read_text()) or driver.poll() is not None, 120)
    assert driver.poll() is None, driver.communicate()[0]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    lost = nbflow.Flow("flow", store=store).latest_run
    assert lost is not None
    eventually(lambda: nbflow.Run(f"flow/{lost.id}", store=store).status == "lost", 60)
    attach = nbflow_command("attach", f"flow/{lost.id}", "--store", store, "--json")
    eventually(lambda: len(nbflow.Flow("flow", store=store).runs()) == 2 or attach.poll() is not None, 120)
    go.touch()
    said, _ = attach.communicate(timeout=200)
    assert attach.returncode == 0, said
    taken_up = nbflow.Flow("flow", store=store).latest_run
    assert taken_up is not None
    return lost.id, taken_up, said
