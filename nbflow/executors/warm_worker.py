"""The process of a warm worker: small tasks of a fan-out one after another, each as if it were the first."""

from __future__ import annotations

import atexit
import contextvars
import gc
import mmap
import os
import threading
from functools import partial
from typing import NoReturn

from nbflow.executors import reset, wire
from nbflow.executors.worker import Process
from nbflow.model import TaskSpec
from nbflow.task import leftovers, limits, shell
from nbflow.task.execute import Kept, WarmShell
from nbflow.task.observe.modules import imports_of

MOST = 1000
"""Tasks after which a worker ends."""

LOOK_EVERY = 16
"""Tasks between two looks at the memory."""


def serve(orders: int, frames: int, number: int, stop: mmap.mmap, prepared: WarmShell) -> NoReturn:
    """Run the tasks that come through a pipe; ends when that is shut, after a failure, or when a task left something.

    Ending between tasks with status 0 says that the next one has not begun: it runs elsewhere.
    """
    try:
        os.environ[limits.TASK_VARIABLE] = str(number)
        worker = _Worker(orders, frames, stop, prepared)
        worker.run()
        worker.end()
    finally:
        # whatever it is that was raised between tasks: an interrupt that came late, or what a task has spoilt
        os._exit(0)


class _Worker:
    """What is known from task to task."""

    def __init__(self, orders: int, frames: int, stop: mmap.mmap, prepared: WarmShell) -> None:
        self.orders, self.stop = orders, stop
        self.process = Process(frames)
        self.context = contextvars.copy_context()
        self.prepared = prepared
        self.kept = prepared.kept = Kept()
        self.kept.imports.attach()  # before anything is compared: what stands in the way of settings stays
        shell.rehearse(prepared.shell)
        self.restored = reset.Restored(prepared.shell)
        self.watched: dict[str, reset.Watched] = {}  # source of the cell -> what was there before it
        self.memory = reset.resident()
        self.threads = frozenset(thread.ident or 0 for thread in threading.enumerate())
        self.hooks = atexit._ncallbacks()  # noqa: SLF001

    def run(self) -> None:
        """Run all tasks."""
        for count in range(1, MOST + 1):
            body = wire.read_frame(self.orders)
            if body is None or self.stop[0]:
                return
            order = wire.parse_order(body)
            if not isinstance(order, wire.SubmitTask):
                return
            if count > 1 and self.process.interrupts.heed():
                return
            if not self._run(order):
                return
            if count % LOOK_EVERY == 0 and reset.resident() - self.memory > reset.GROWTH:
                return

    def end(self) -> None:
        """End what definitions and set-up have left open."""
        if leftovers.anything(self.threads, self.hooks):
            leftovers.end("", "")

    def _run(self, order: wire.SubmitTask) -> bool:
        """Run one task; return whether another one may follow it in this process."""
        spec = wire.parse_spec(order.spec)
        if spec.source not in self.watched:
            # a cell that has not run here yet: what it imports is loaded before anything is compared
            reset.import_ahead(_modules(spec))
            # what is there now stays: looking through it after each task would cost more than the task
            gc.freeze()
        self.kept.replayed = lambda: self._look(spec)
        result = contextvars.copy_context().run(self.process.run, order, self.prepared)
        self.process.finish(result)
        left_running = any(finding.code == "left-running" for finding in result.findings)
        if result.failure is not None or left_running or self.kept.ended:
            return False
        self.restored.put_back()
        return not self.watched[spec.source].difference()

    def _look(self, spec: TaskSpec) -> None:
        """Take down what a cell that is new here must leave as it is; definitions and set-up have been replayed."""
        if spec.source not in self.watched:
            self.restored.see_plotting()
            self.kept.exit_hooks = atexit._ncallbacks()  # noqa: SLF001
            # outside the task's own context: what set-up has set there is made anew for each task
            look = partial(reset.Watched, self.prepared.shell, _modules(spec), "\n".join(_texts(spec)))
            self.watched[spec.source] = self.context.copy().run(look)


def _modules(spec: TaskSpec) -> list[str]:
    """Return the modules that a task's text imports."""
    return sorted({name for text in _texts(spec) for name in imports_of(text)})


def _texts(spec: TaskSpec) -> tuple[str, ...]:
    """Return what a task executes: its cell, and the definitions and set-up that are replayed for it."""
    return (spec.source, *(each.source for each in spec.replay))
