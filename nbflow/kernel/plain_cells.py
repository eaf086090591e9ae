"""Cells that are no steps, run by hand: names that wait are bound for them, what they change is followed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nbflow.analysis.cell import analyse
from nbflow.analysis.effects import PROCESS
from nbflow.engine.keys import as_replay
from nbflow.errors import NbflowError
from nbflow.flow import findings
from nbflow.kernel.flow_run import say
from nbflow.kernel.namespace import is_own
from nbflow.kernel.scratch_cells import VAGUE
from nbflow.kernel.task import KernelTask
from nbflow.kernel.workspace import Knowledge
from nbflow.model import MISSING, Cell, Reason, Replay, Step, TaskId
from nbflow.task import process_state, replay
from nbflow.task.definition_state import names_of
from nbflow.task.replay import Place, place_of

LOADING = re.compile(r"^%(?:re)?load_ext\s+nbflow\b")

LISTING = re.compile(r"^\s*%(?:who|whos|who_ls)\b", re.MULTILINE)
"""Magics that list all names."""


class PlainCells:
    """The plain cells of one kernel: they run as they always do, in the whole namespace."""

    def __init__(self, known: Knowledge) -> None:
        self.known = known
        self._task: KernelTask | None = None
        self._placed: KernelTask | None = None  # that the process was set for
        self._step: Step | None = None
        self._reasons: tuple[Reason, ...] = ()
        self._stack = contextlib.ExitStack()  # what holds while the cell runs

    def before(self, source: str, cell: Cell | None) -> None:
        """Bind what a cell that is no step reads, before it runs; watch it where the flow needs it."""
        self._task = self._placed = self._step = None
        self._stack = contextlib.ExitStack()
        if self.known.waiting:
            analysis = analyse(source)
            listed = self.known.waiting.names() if LISTING.search(source) else ()
            self.known.waiting.bind({*analysis.reads, *analysis.builtin_reads, *listed}, cell)
        if cell is not None and cell.kind == "plain":
            self._begin(cell)
        if self._task is None:
            self.known.kernel.process.taken = process_state.take()
            self._follow([as_replay(each) for each in self.known.flow().definitions if cell and each.cell == cell.id])

    def _begin(self, cell: Cell) -> None:
        """Watch a plain cell as a task of the flow, where it has all that one would have."""
        self._step = step = next((step for step in self.known.flow().steps if step.cell == cell.id), None)
        if step is None:
            self.known.scratch.before(cell, analyse(cell.body), self.known.flow(), self.known.store_url())
            return
        if VAGUE & {problem.code for problem in analyse(cell.body).diagnostics}:
            return
        try:
            identity = TaskId(step=step.name)
            prepared = self.known.upstream().prepare(identity, {})
            if prepared.action not in ("run", "reuse"):
                return
            task = self.known.task(identity, f"cell {step.position}")
            if PROCESS in step.writes:  # run once more, it finds the process as the cells above have left it
                self._placed = task
                task.bring_process()
            before = self.known.before(task)
            entered = task.is_entered(before)
        except NbflowError as error:
            say(error)
            return
        if not entered:
            stale = task.spec.inputs.keys() - before.values.keys()
            self.known.tell(findings.elsewhere(self.known.flow(), step, stale))
        if entered:
            self._task = task
            self._reasons = prepared.reasons
            self.known.recorder.start()
            task.watch()

    def begun(self, cell: Cell) -> None:
        """Follow the plain cell that loads nbflow from here on: it has begun already.

        What a call above the line that loads has read nobody has seen: its result counts once the cell is run again.
        """
        self._task = None
        self.known.kernel.process.taken = process_state.take()
        if not _acts_unseen(cell):
            self.known.scratch.before(cell, analyse(cell.body), self.known.flow(), self.known.store_url())

    def _follow(self, own: list[Replay]) -> None:
        """See after each statement what the cell has defined."""
        kernel = self.known.kernel
        names = names_of(own)
        if names:
            see = partial(kernel.definitions.see, names, kernel.ip.user_ns)
            self._stack.enter_context(kernel.statements.followed(see))

    def after(self, cell: Cell | None, before: Mapping[str, Any], *, succeeded: bool) -> None:
        """Give the names that a cell which is no step has changed new versions, now that it has ended."""
        task, placed = self._task, self._placed
        self._stack.close()
        namespace, ledger = self.known.ip.user_ns, self.known.ledger
        changed = {
            name for name, value in namespace.items() if before.get(name, MISSING) is not value and not is_own(name)
        }
        ledger.code_ran()
        ledger.sweep()
        analysis = analyse(cell.body) if cell is not None else None
        if analysis is not None:
            # what a task may have changed is compared: only what it binds is another version for certain
            possible = analysis.may_mutate if task is None else frozenset[str]()
            ledger.forget((analysis.writes | possible) - analysis.definitions)
        self.known.waiting.drop(changed)
        setup: list[Place] = []
        if cell is not None and cell.kind in ("plain", "setup"):
            setup = self._know_definitions(cell, changed, succeeded=succeeded)
        process = self.known.kernel.process
        if setup:
            process.ran(setup, process.taken)
        elif self._step is not None:
            process.see(process.taken)
        elif task is None:
            process.rebase(process.taken)
        if task is not None:
            self._finish(task, succeeded=succeeded)
            return
        if placed is not None and placed is not task:
            placed.leave(succeeded=False)
        if cell is not None and analysis is not None:
            self.known.scratch.after(cell, analysis, changed, succeeded=succeeded)

    def give_up(self) -> None:
        """Follow nothing of a cell any more: something went wrong after it had ended."""
        tasks, self._task, self._placed = (self._task, self._placed), None, None
        ends: list[Callable[[], object]] = [self._stack.close, self.known.recorder.stop]
        ends += [partial(task.leave, succeeded=False) for task in tasks if task is not None]
        for end in ends:
            with contextlib.suppress(Exception):  # it may be what went wrong
                end()

    def _know_definitions(self, cell: Cell, changed: set[str], *, succeeded: bool) -> list[Place]:
        """Put what a cell defines in force from now on; return the set-up statements that have run."""
        setup: list[Place] = []
        for definition in self.known.flow().definitions:
            if definition.cell != cell.id or not (succeeded or changed.intersection(definition.names)):
                continue
            binds = {bind.name: self.known.ledger.content_of(bind.name) for bind in definition.binds}
            statement = as_replay(definition)
            self.known.ledger.forget(name for name in definition.names if name in changed)
            self.known.know_replayed(statement, binds)
            if definition.kind == "definition":
                replay.register(statement, self.known.ip.user_ns, self.known.registry)
            else:
                setup.append(place_of(statement))
        return setup

    def _finish(self, task: KernelTask, *, succeeded: bool) -> None:
        shown = self.known.recorder.stop()
        outcome = task.leave(succeeded=succeeded)
        if outcome is None:
            return
        journal = self.known.journal()
        journal.announce(self.known.flow(), self.known.document.text)
        self.known.save(task, outcome, shown, self._reasons)


def _acts_unseen(cell: Cell) -> bool:
    """Return whether a statement that makes data calls something above the line that loads nbflow."""
    lines = cell.source.split("\n")
    loads = next((at for at, line in enumerate(lines, start=1) if LOADING.match(line)), len(lines) + 1)
    above = [each for each in analyse(cell.body).statements if each.line < loads]
    return any(
        each.kind == "magic" or (each.kind in ("assign", "call", "other") and "(" in each.source) for each in above
    )
