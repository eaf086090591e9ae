"""Cells that are no steps, run by hand: names that wait are bound for them, what they change is followed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nbflow import replay, serialize
from nbflow.analysis import analyse
from nbflow.errors import NbflowError
from nbflow.executors.kernel import KernelTask
from nbflow.flowrun import say
from nbflow.knowledge import Knowledge
from nbflow.model import Cell, Reason
from nbflow.namespace import MISSING, is_own
from nbflow.scratch import VAGUE
from nbflow.waiting import as_replay

LOADING = re.compile(r"^%(?:re)?load_ext\s+nbflow\b")


class PlainCells:
    """The plain cells of one kernel: they run as they always do, in the whole namespace."""

    def __init__(self, known: Knowledge) -> None:
        self.known = known
        self._task: KernelTask | None = None
        self._reasons: tuple[Reason, ...] = ()

    def before(self, source: str, cell: Cell | None) -> None:
        """A cell that is no step is about to run: what it reads is bound; where the flow needs it, it is watched."""
        self._task = None
        if self.known.waiting:
            self.known.waiting.bind(analyse(source).reads, cell)
        if cell is None or cell.kind != "plain":
            return
        step = next((step for step in self.known.flow().steps if step.cell == cell.id), None)
        if step is None:
            self.known.scratch.before(cell, analyse(cell.body), self.known.flow(), self.known.store_url())
            return
        if VAGUE & {problem.code for problem in analyse(cell.body).diagnostics}:
            return
        try:
            prepared = self.known.upstream().prepare(step.name)
            if prepared.action not in ("run", "reuse"):
                return
            task = self.known.task(step, f"cell {step.position}")
            before = self.known.before(task)
        except NbflowError as error:
            say(error)
            return
        definitions = {statement.id for statement in task.spec.replay}
        states = {name for name in task.spec.inputs if name.startswith("<")}
        if before.live == definitions and before.values.keys() | states == task.spec.inputs.keys():
            self._task = task
            self._reasons = prepared.reasons
            self.known.recorder.start()
            task.watch()

    def begun(self, cell: Cell) -> None:
        """The plain cell that loads nbflow has begun: it is followed from here on.

        What a call above the line that loads has read nobody has seen: its result counts once the cell is run again.
        """
        self._task = None
        if not _acts_unseen(cell):
            self.known.scratch.before(cell, analyse(cell.body), self.known.flow(), self.known.store_url())

    def after(self, cell: Cell | None, before: Mapping[str, Any], *, succeeded: bool) -> None:
        """A cell that is no step has ended: names that it changed hold new versions."""
        task = self._task
        namespace, ledger = self.known.ip.user_ns, self.known.ledger
        changed = {
            name for name, value in namespace.items() if before.get(name, MISSING) is not value and not is_own(name)
        }
        ledger.code_ran()
        ledger.sweep()
        analysis = analyse(cell.body) if cell is not None else None
        if analysis is not None:
            ledger.forget((analysis.writes | analysis.may_mutate) - analysis.definitions)
        self.known.waiting.drop(changed)
        if cell is not None and cell.kind in ("plain", "setup"):
            self._know_definitions(cell, changed, succeeded=succeeded)
        if task is not None:
            self._finish(task, succeeded=succeeded)
        elif cell is not None and analysis is not None:
            self.known.scratch.after(cell, analysis, changed, succeeded=succeeded)

    def give_up(self) -> None:
        """The cell has ended, but something went wrong after it: nothing of it is followed any more."""
        task, self._task = self._task, None
        ends: list[Callable[[], object]] = [self.known.recorder.stop]
        if task is not None:
            ends.append(partial(task.leave, succeeded=False))
        for end in ends:
            with contextlib.suppress(Exception):  # it may be what went wrong
                end()

    def _know_definitions(self, cell: Cell, changed: set[str], *, succeeded: bool) -> None:
        for definition in self.known.flow().definitions:
            if definition.cell != cell.id or not (succeeded or changed.intersection(definition.names)):
                continue
            binds = {bind.name: self.known.ledger.content_of(bind.name) for bind in definition.binds}
            statement = as_replay(definition)
            self.known.ledger.forget(name for name in definition.names if name in changed)
            self.known.know_replayed(statement, binds)
            if definition.kind == "definition":
                replay.register(statement, self.known.ip.user_ns, self.known.registry)

    def _finish(self, task: KernelTask, *, succeeded: bool) -> None:
        shown = self.known.recorder.stop()
        left = task.leave(succeeded=succeeded)
        if not succeeded:
            return
        journal = self.known.journal()
        journal.announce(self.known.flow(), self.known.document.text)
        dumped = serialize.dump(left.values, self.known.registry)
        self.known.save(task, left, dumped, shown, self._reasons)


def _acts_unseen(cell: Cell) -> bool:
    """Whether a statement that makes data calls something above the line that loads nbflow."""
    lines = cell.source.split("\n")
    loads = next((at for at, line in enumerate(lines, start=1) if LOADING.match(line)), len(lines) + 1)
    above = [each for each in analyse(cell.body).statements if each.line < loads]
    return any(
        each.kind == "magic" or (each.kind in ("assign", "call", "other") and "(" in each.source) for each in above
    )
