"""A run of the flow from the kernel: in a worker thread, drawn in the cell that asked for it, ended by an interrupt."""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from nbflow.engine.runner import Runner
from nbflow.errors import NbflowError, RunFailed
from nbflow.kernel.feed import Audience
from nbflow.kernel.screen import EVERY, RESTART, TRACEBACKS, Screen
from nbflow.model import Record, RunEvent, RunStatus, Snapshot, TaskChanged, TaskId, TaskOutput, TaskView
from nbflow.render import preview, table
from nbflow.store.index import Index
from nbflow.tracebacks import unforeseen

SETTLING = 10.0
"""Seconds that a cell waits for the end of a run whose table shows it as ended."""


class FlowRun:
    """One run on its way; `watch` is called from the runner's thread, all else belongs to the kernel's."""

    def __init__(self, ip: Any, audience: Audience) -> None:
        """Keep what tasks display for the screen that will show it: `wait` or `leave` says which."""
        self.ip = ip
        self.is_shown = True
        self.audience = audience
        self.runner: Runner | None = None
        self.error: BaseException | None = None
        self.known = table.RunHints()
        self.absorbed = False  # its records are known to the kernel
        self.shown: queue.SimpleQueue[TaskOutput | TaskId] = queue.SimpleQueue()  # pieces, and reused tasks
        self._screen: Screen | None = None
        self._seen: set[TaskId] = set()  # tasks whose outputs stand in the cell
        self._begun: dict[TaskId, TaskChanged] = {}  # how they began last
        self.snapshot: Snapshot | None = None
        self._over = threading.Event()
        self._left = threading.Event()  # nobody waits for it
        self._told = threading.Lock()
        self._names: dict[str, int] = {}  # the namespace when it began: name -> the object's id

    def watch(self, snapshot: Snapshot, event: RunEvent | TaskOutput | None) -> None:
        """Take the run as it is now, and what made it so."""
        self.snapshot = snapshot
        self.audience.see_run(snapshot, event)
        if not self.is_shown:
            return
        if isinstance(event, TaskOutput):
            self.shown.put(event)
        elif isinstance(event, TaskChanged) and event.state == "running":
            before = self._begun.get(event.task, event)
            self._begun[event.task] = event
            if before.attempt == event.attempt and before.execution != event.execution:
                self.shown.put(TaskOutput(task=event.task, output=RESTART))
        elif isinstance(event, TaskChanged) and event.state == "reused" and not event.task.part:
            self.shown.put(event.task)

    def start(self, runner: Runner) -> None:
        """Let a runner run; returns at once."""
        self.runner = runner
        self._names = {name: id(value) for name, value in self.ip.user_ns.items()}
        notebook = runner.flow.notebook
        self.known = table.RunHints(notebook=Path(notebook.path or "").name)
        threading.Thread(target=self._work, args=(runner,), name="nbflow-run", daemon=True).start()

    def bound_since(self) -> set[str]:
        """Return names that got another value while it ran: cells were run beside it."""
        return {name for name, value in self.ip.user_ns.items() if self._names.get(name) != id(value)}

    def _work(self, runner: Runner) -> None:
        index = Index(runner.lookup.store.url)
        try:
            self.known = msgspec.structs.replace(self.known, expected=index.durations(runner.place.folder))
            runner.run()
        except BaseException as error:  # in a thread of its own: raised by whoever waits for the run
            self.error = error
        finally:
            self._over.set()
            self._tell_end()
        if self.snapshot is not None:
            index.add_run(runner.place.folder, self.snapshot)

    def leave(self, screen: Screen | None) -> None:
        """Let it draw itself and say when it has ended: nobody waits for it any more."""
        self._screen = screen
        if screen is None:
            self.is_shown = False
            self.shown = queue.SimpleQueue()
        else:
            threading.Thread(target=self._draw_alone, args=(screen,), name="nbflow-screen", daemon=True).start()
        self._left.set()
        self._tell_end()

    def _draw_alone(self, screen: Screen) -> None:
        over = said = False
        while not over:
            over = self._over.wait(EVERY)
            try:
                self._draw(screen, last=over)
            except BaseException as error:  # nobody waits for this thread, and the run goes on
                if not said:
                    say(unforeseen(error, f"{self.name} could not be shown as it stands"))
                said = True

    def _tell_end(self) -> None:
        """Print one line below the cell that runs now or ran last."""
        if self._left.is_set() and self._over.is_set() and self._told.acquire(blocking=False):
            title = table.title(self.snapshot, time.time()) if self.snapshot is not None else self.name
            print(f"{title}; `%flow show {self.name}` shows it" if self.error is None else f"{title}: {self.error}")

    @property
    def name(self) -> str:
        """Its flow's name and its id."""
        return f"{self.runner.flow.name}/{self.runner.started.run}" if self.runner is not None else ""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def settle(self) -> bool:
        """Return whether it has ended; where its table says so already, wait for the last of its events to be stored.

        The table shows the end as soon as the last task has ended, and then the store is written: a cell that a person
        runs on seeing "done" must find what the run left. A store that hangs must not hold the cell for ever.
        """
        if self.status != "running":
            self._over.wait(SETTLING)
        return self.over

    @property
    def status(self) -> RunStatus:
        """How it stands."""
        return self.snapshot.status if self.snapshot is not None else "running"

    def wait(self, screen: Screen) -> None:
        """Draw until the run has ended; an interrupt cancels it, and is waited for. What broke the runner is raised."""
        self._screen = screen
        while True:
            try:
                over = self._over.wait(EVERY)
                self._draw(screen, last=over)
            except KeyboardInterrupt:
                self._cancel()
                continue
            if over:
                break
        if self.error is not None:
            raise self.error

    def records(self) -> list[tuple[TaskView, Record]]:
        """Return the tasks that have a record, in document order, then item order."""
        if self.runner is None or self.snapshot is None:
            return []
        pairs = [(view, self.runner.lookup.record(view.task)) for view in self.snapshot.tasks]
        return [(view, record) for view, record in pairs if record is not None]

    def finish(self) -> None:
        """Raise RunFailed for a run that did not succeed, after showing tracebacks that are not shown yet."""
        if self.snapshot is None or self.status == "done":
            return
        failures = [view.failure for view in self.snapshot.tasks if view.state == "failed" and view.failure is not None]
        if self._screen is not None and self._screen.tells_failures:
            failures = []
        for failure in failures[:TRACEBACKS]:
            print(failure.traceback, file=sys.stderr)
        if len(failures) > TRACEBACKS:
            print(f"{len(failures) - TRACEBACKS} more tasks failed: `%flow show {self.name}`", file=sys.stderr)
        raise failed(self.snapshot)

    def show_cards(self) -> None:
        """Show the cards of steps that were declared with `--card`."""
        from nbflow.runs.client import Run

        steps = [step.name for step in self.runner.flow.steps if step.options.card] if self.runner is not None else []
        if self.runner is None or not steps or self.snapshot is None or self._screen is None:
            return
        past = Run(self.name, store=self.runner.lookup.store.url)
        ran = {view.task.step for view in self.snapshot.tasks if view.state in ("done", "reused", "failed", "caught")}
        for name in steps:
            if name in ran:
                self._screen.show_card(name, past[name].card.bundle())

    def _cancel(self) -> None:
        if self.runner is not None:
            self.runner.cancel("interrupted")

    def _draw(self, screen: Screen, *, last: bool = False) -> None:
        snapshot = self.snapshot  # before the pieces: those of tasks that it calls settled are there
        try:
            while True:
                event = self.shown.get_nowait()
                if isinstance(event, TaskOutput):
                    self._seen.add(event.task)
                    screen.show(event.task, event.output)
                    continue
                if event in self._seen:
                    continue  # found again, as the flow was understood anew
                self._seen.add(event)
                record = self.runner.lookup.record(event) if self.runner is not None else None
                if record is not None:
                    screen.show_again(event, record.outputs)
        except queue.Empty:
            pass
        if last:
            saved = sum(record.elapsed for view, record in self.records() if view.state == "reused")
            self.known = msgspec.structs.replace(self.known, saved=saved)
        if snapshot is not None:
            screen.update(snapshot, self.known, last=last)


def failed(snapshot: Snapshot) -> RunFailed:
    """Return the error that names a run's first failed step."""
    for view in snapshot.tasks:
        if view.state != "failed" or view.failure is None:
            continue
        failure = view.failure
        place = "/".join(filter(None, (snapshot.run, view.task.step, preview.index(view.task.index))))
        return RunFailed(
            f"{snapshot.labels.get(view.task.step, view.task.step)} failed: {failure.type}: {failure.message}",
            step=view.task.step, cell=preview.cell(failure.cell, snapshot.cells) or None, line=failure.line,
            fix=failure.fix or f"`%flow load {place}` loads its inputs into this notebook; `%flow resume` goes on",
        )  # fmt: skip
    word = "was cancelled" if snapshot.status == "cancelled" else f"ended as {snapshot.status}"
    return RunFailed(f"the run {snapshot.run} {word}", fix="`%flow resume` goes on with what is left")


def say(error: NbflowError) -> None:
    """Show an error that must not stop the cell below it."""
    print("\n".join(error.report(in_notebook=True)), file=sys.stderr)
