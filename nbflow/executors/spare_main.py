"""The process of a spare worker: imports, waits for its one task, runs it and ends."""

from __future__ import annotations

import _thread
import contextlib
import importlib
import itertools
import os
import select
import signal
import socket
from typing import NoReturn

from nbflow.executors import worker
from nbflow.executors.spawn import take_back
from nbflow.task import limits, shell
from nbflow.task.execute import WarmShell
from nbflow.task.observe import observer


def main(fd: int, preload: str) -> NoReturn:
    """Wait for the one task and run it; the process ends with it, or with the driver at the other end of `fd`."""
    out, err = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    for place in (1, 2):
        # what imports say is not the task's
        os.dup2(null, place)
    own = take_back()
    made = shell.make_shell()  # before the imports: some libraries look at it then
    for name in filter(None, preload.split(",")):
        with contextlib.suppress(Exception):  # the task's own import will say what is wrong
            importlib.import_module(name)
    prepared = WarmShell(made, limits.controller(), own)
    for _ in itertools.chain(shell.warming(prepared.shell), observer.warming()):
        if select.select([fd], [], [], 0)[0]:
            break
    order = worker.await_order(fd)
    worker.take_output(out, err)
    # a thread that no list of threads shows, and the only one that hears of the driver's end while the task computes
    _thread.start_new_thread(_end_with_driver, (fd,))
    worker.run(order, fd, prepared)


def _end_with_driver(fd: int) -> None:
    driver = socket.socket(fileno=os.dup(fd))
    with contextlib.suppress(OSError):
        driver.recv(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
