"""A run as it is shown: the table in place, what steps show below it in document order, or under their own cells."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nbflow.kernel import recorder
from nbflow.kernel.sheets import CellPages, Displays, InPlace, Output, OwnCell, Sheet, StepCell, display, fitting
from nbflow.model import SETTLED, Snapshot, Step, TaskFailure, TaskId, TaskState
from nbflow.render import cards, html, logs, preview, table
from nbflow.render.cards import MIME as CARD
from nbflow.render.components import Drawn

EVERY = 0.1
"""Seconds between two drawings."""
TICK = 0.5
"""Seconds between two drawings of the table in which nothing but the time has passed."""
LARGEST_TEXT = 200_000
"""Characters that a step of one task may print into its cell."""
TRACEBACKS = 3
RESTART: dict[str, Any] = {"output_type": "clear_output", "wait": True}
"""What stands between the outputs of a task whose first result did not count, and those of its second execution."""


class Screen(Protocol):
    """Where a run is shown; all calls come from one thread at a time."""

    tells_failures: bool
    """Whether it shows the tracebacks of tasks that failed."""

    def show(self, task: TaskId, output: Output) -> None:
        """Show a piece of what a task displays or prints."""

    def show_again(self, task: TaskId, outputs: Sequence[Output]) -> None:
        """Show what a task that is reused has shown when it ran."""

    def show_card(self, step: str, bundle: Mapping[str, Any]) -> None:
        """Show the card of a step, after the run."""

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Show the run as it is now."""


class RunTable:
    """The table of a run, drawn where something has changed."""

    def __init__(self, ip: Any) -> None:
        self._place = InPlace(OwnCell(ip))
        self._drawn: tuple[str, str] = ("", "")
        self._at = 0.0

    def begin(self, run: str) -> None:
        """Take its place in the cell of a run that goes on after it."""
        draw_start(self._place, run)

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Draw the run where something has changed."""
        now = time.time()
        still = table.text(snapshot, None, known=known)
        if last or still != self._drawn[0] or time.monotonic() - self._at >= TICK:
            moving = table.text(snapshot, now, known=known)
            if (still, moving) != self._drawn or last:
                self._drawn, self._at = (still, moving), time.monotonic()
                self._place.draw(moving, table.as_html(snapshot, now, known=known))


def draw_start(place: InPlace, run: str) -> None:
    """Say that a run starts while its cell runs: later there is no place for an output any more."""
    place.draw(f"{run} starts", html.block(html.tag("code", run), html.tag("span", " starts", cls="nbflow-dim")))


class ItemOutputs:
    """What a step shows whose tasks may be many: what they print as one log, then displays, each item's named."""

    def __init__(self, sheet: Sheet, run: str, step: str, *, above: str = "") -> None:
        """Show it on a sheet; `above` is a name that stands there already, so that a display needs no caption."""
        self._sheet = sheet
        self._run = run
        self._step = step
        self._above = above
        self._displays = Displays(sheet, run)
        self._log: logs.Log | None = None
        self._block = InPlace(sheet)
        self._shown = ""

    @property
    def left_out(self) -> int:
        """The number of displays that found no room."""
        return self._displays.left_out

    def show(self, task: TaskId, output: Output, label: str) -> None:
        """Add text to the log, and show all else below it."""
        kind = output["output_type"]
        if kind in ("stream", "error"):
            self._log = self._log or logs.Log()
            self._log.add((task.index, str(output.get("name", ""))), _printed(output))
            return
        if kind == "clear_output" and self._log is not None:
            self._log.clear(task.index)
        self.draw(label, over=False)  # what was printed before stands above
        if kind in ("display_data", "execute_result") and CARD not in (output.get("data") or {}):
            self._caption(task, label)
        self._displays.show(task, output)

    def _caption(self, task: TaskId, label: str) -> None:
        """Say whose display comes next, where that is not to be seen from what stands above it."""
        name = f"{label}/{preview.index(task.index)}" if task.index else label
        if name != self._above and self._sheet.drawn:
            InPlace(self._sheet).draw(f"{name}:", html.block(html.tag("b", name)))
        self._above = name

    def draw(self, label: str, *, over: bool) -> None:
        """Draw the log where it has changed; a terminal gets it once, when the step is over."""
        if self._log is None or not (over or self._sheet.drawn):
            return
        text = self._log.text(self._step, over=over)
        mark = f"{over}{text}"
        if mark == self._shown:
            return
        if not self._shown:
            self._above = label
        self._shown = mark
        if self._sheet.drawn:
            self._block.draw(text, self._log.as_html(label, f"%flow logs {self._run}/{self._step}", over=over))
        else:
            self._sheet.add({"output_type": "stream", "name": "stdout", "text": f"{text}\n"})


def _printed(output: Output) -> str:
    if output["output_type"] == "error":
        return "\n".join(output.get("traceback") or ()) + "\n"
    return recorder.text_of_output(output["text"])


class TaskOutputs:
    """What a step of one task shows under its own cell: as if it ran there."""

    def __init__(self, sheet: Sheet, run: str, step: str) -> None:
        self._sheet = sheet
        self._run = run
        self._step = step
        self._room = LARGEST_TEXT
        self._rest: deque[str] = deque(maxlen=200)

    def show(self, task: TaskId, output: Output) -> None:
        """Show an output, of a text that is too long its beginning."""
        kind = output["output_type"]
        if kind == "stream":
            text = recorder.text_of_output(output["text"])
            if self._room > 0:
                self._sheet.add({**output, "text": text[: self._room]})
            elif text:
                self._rest.append(text)
            self._room -= len(text)
        elif kind != "error":  # shown once it is known that no further attempt follows
            data = kind in ("display_data", "update_display_data")
            fits = dict(zip(("data", "metadata"), fitting(self._run, task, output), strict=True)) if data else {}
            self._sheet.add({**output, **fits})

    def end(self) -> None:
        """Show the last lines of a text that was too long."""
        if not self._rest:
            return
        end = "\n".join("".join(self._rest).splitlines()[-20:])
        self._rest.clear()
        note = f"\n[… {-self._room:,} characters more: %flow logs {self._run}/{self._step}]\n"
        self._sheet.add({"output_type": "stream", "name": "stdout", "text": f"{note}{end}\n"})


class RunScreen:
    """The screen of `%flow run` without a page that puts outputs under cells: the table, then what steps show.

    It stands in document order: a step's outputs come when all steps above it are over. Those of a reused one are
    folded.
    """

    tells_failures = False

    def __init__(self, ip: Any, run: str) -> None:
        self._ip = ip
        self._run = run
        self._sheet = OwnCell(ip)
        self._table = RunTable(ip)
        self._steps: dict[str, ItemOutputs] = {}
        self._coming: dict[str, deque[tuple[TaskId, Output]]] = {}
        self._again: dict[str, list[tuple[TaskId, Output]]] = {}
        self._passed: set[str] = set()  # steps that are over, and so are those above them

    def show(self, task: TaskId, output: Output) -> None:
        """Keep it until its step's turn."""
        self._coming.setdefault(task.step, deque()).append((task, output))

    def show_again(self, task: TaskId, outputs: Sequence[Output]) -> None:
        """Keep it until its step's turn."""
        self._again.setdefault(task.step, []).extend((task, output) for output in outputs)

    def show_card(self, step: str, bundle: Mapping[str, Any]) -> None:
        """Show a card below everything else."""
        del step
        self._ip.display_pub.publish(bundle, {})

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Draw the table, and what steps show whose turn it is; a terminal has the table at the end."""
        if self._sheet.drawn:
            self._table.update(snapshot, known, last=last)
        settled = _settled(snapshot)
        for step in snapshot.steps:
            if step in self._passed and not (step in self._coming or step in self._again):
                continue
            label = snapshot.labels.get(step) or step
            over = last or step in settled
            self._show_step(step, label, over=over)
            if not over and step not in self._passed:
                break
            self._passed.add(step)
        if not last:
            return
        if not self._sheet.drawn:
            print(table.text(snapshot, time.time(), known=known))
        if left_out := sum(each.left_out for each in self._steps.values()):
            print(f"{left_out} more displays: %flow card {self._run} -o FILE")

    def _show_step(self, step: str, label: str, *, over: bool) -> None:
        outputs = self._steps.setdefault(step, ItemOutputs(self._sheet, self._run, step))
        for task, output in self._coming.pop(step, ()):
            outputs.show(task, output, label)
        outputs.draw(label, over=over)
        if over and (again := self._again.pop(step, None)):
            text, page = folded(self._run, step, label, again)
            InPlace(self._sheet).draw(text, page)


def folded(run: str, step: str, label: str, again: Sequence[tuple[TaskId, Output]]) -> tuple[str, str]:
    """Return what a reused step has shown, as a line of text and as a block that a click unfolds."""
    log: logs.Log | None = None
    parts: list[html.Html] = []
    for task, output in again:
        if output["output_type"] in ("stream", "error"):
            log = log or logs.Log()
            log.add((task.index, str(output.get("name", ""))), _printed(output))
        elif (part := cards.shown_part(output)) is not None:
            name = html.tag("b", f"{label}/{preview.index(task.index)}") if task.index else ""
            parts.append(html.tag("div", name, html.Html(part.html), cls="nbflow-display"))
    said = [f"printed {log.lines}"] if log else []
    said += [f"showed {len(parts)} display{'s' if len(parts) > 1 else ''}"] if parts else []
    words = f"reused; {' and '.join(said)} when it ran"
    body = log.body(f"%flow logs {run}/{step}") if log else ""
    head = html.tag("summary", html.tag("b", label), " ", html.tag("span", words, cls="nbflow-dim"))
    text = f"{label}: {words} (%flow show {run}/{step})"
    return text, html.block(html.tag("details", head, body, *parts, cls="nbflow-folded"))


class StepScreen:
    """The screen of a single task run for a cell: as if it ran in the cell."""

    tells_failures = False

    def __init__(self, ip: Any, run: str, step: str) -> None:
        self._ip = ip
        self._step = step
        sheet = OwnCell(ip)
        self._outputs = TaskOutputs(sheet, run, step)
        self._displays = Displays(sheet, run)
        self._printed = False

    def show(self, task: TaskId, output: Output) -> None:
        """Show an output as the cell's own, if the cell's own task displays it."""
        if task.step != self._step:
            return
        if output is RESTART:
            sys.stdout.flush()
            sys.stderr.flush()
            self._ip.display_pub.clear_output(wait=True)
        elif output["output_type"] in ("stream", "execute_result", "error"):
            self._printed = True
            self._outputs.show(task, output)
        else:
            self._displays.show(task, output)  # the cell may show more than this task's: it is not cleared

    def show_again(self, task: TaskId, outputs: Sequence[Output]) -> None:
        """Show what the cell showed when it ran."""
        for output in outputs:
            self.show(task, output)

    def show_card(self, step: str, bundle: Mapping[str, Any]) -> None:
        """Show a card as the cell's last output."""
        del step
        self._ip.display_pub.publish(bundle, {})

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Send what was printed; at the end of a text that was too long, show its last lines."""
        del snapshot, known
        if last:
            self._outputs.end()
        if self._printed:  # the kernel's own streams would wait 0.2 s for more
            self._printed = False
            sys.stdout.flush()
            sys.stderr.flush()


class StepCells:
    """What each step shows under its own cell, through the page of one client."""

    def __init__(self, pages: CellPages, client: str, run: str, steps: Iterable[Step]) -> None:
        self._pages = pages
        self._client = self._shown_by = client
        self._run = run
        self._labels: dict[str, str] = {}
        self._cells: dict[str, StepCell] = {}
        self._outputs: dict[str, TaskOutputs | ItemOutputs] = {}
        self._over: set[str] = set()
        self._ended = False
        for step in steps:
            if step.kind != "params":
                self._labels[step.name] = step.label
                cell = self._cells[step.name] = StepCell(step.cell)
                self._outputs[step.name] = (
                    ItemOutputs(cell, run, step.name, above=step.label)
                    if step.scope
                    else TaskOutputs(cell, run, step.name)
                )
        pages.begin(run, self._move)

    def _move(self, client: str) -> None:
        """Go on in another page, which gets everything: with the next drawing, or at once where the run has ended."""
        self._client = client
        if self._ended:
            self._send(last=True)

    def _send(self, *, last: bool) -> None:
        if self._shown_by != self._client:
            self._shown_by = self._client
            for cell in self._cells.values():
                cell.repeat()
        self._pages.send(self._run, self._client, self._cells.values(), last=last)

    def show(self, task: TaskId, output: Output) -> None:
        """Show an output of a task under its step's cell, once the step has begun."""
        outputs = self._outputs.get(task.step)
        if isinstance(outputs, ItemOutputs):
            outputs.show(task, output, self._labels[task.step])
        elif outputs is not None:
            outputs.show(task, output)

    def card(self, step: str, bundle: Mapping[str, Any]) -> None:
        """Show a step's card below what it has shown."""
        if step in self._cells:
            self._cells[step].add(display(bundle))
            self._send(last=True)

    def update(self, snapshot: Snapshot, *, last: bool) -> None:
        """Send what is new: a step's cell changes when one of its tasks begins, or is settled without having begun."""
        states: dict[str, set[TaskState]] = {}
        for view in snapshot.tasks:
            states.setdefault(view.task.step, set()).add(view.state)
        for step, cell in self._cells.items():
            seen = states.get(step, set())
            over = bool(seen) and (last or seen <= SETTLED)
            if not cell.opened and ("running" in seen or (over and seen & SHOWN)):
                cell.open()
            if step in self._over:
                continue
            outputs = self._outputs[step]
            if isinstance(outputs, ItemOutputs):
                outputs.draw(self._labels[step], over=over)
            if over:
                self._over.add(step)
                self._end(step, snapshot)
        self._ended = last
        self._send(last=last)

    def _end(self, step: str, snapshot: Snapshot) -> None:
        outputs = self._outputs[step]
        if isinstance(outputs, TaskOutputs):
            outputs.end()
        for view in snapshot.tasks:
            if view.task.step == step and view.state == "failed" and view.failure is not None:
                self._cells[step].add(as_error(view.failure))
                return


SHOWN: frozenset[TaskState] = frozenset({"done", "reused", "failed", "caught", "skipped"})
"""States in which a step's cell shows what this run has of it; what never began leaves its cell as it is."""


def as_error(failure: TaskFailure) -> dict[str, Any]:
    """Return a task's failure as the output of a cell that raised it."""
    lines = failure.traceback.splitlines() or [f"{failure.type}: {failure.message}"]
    return {"output_type": "error", "ename": failure.type, "evalue": failure.message, "traceback": lines}


class CellsScreen:
    """The screen of a run where a page puts outputs under cells: there, and the table alone in the run's own cell."""

    tells_failures = True

    def __init__(self, run_table: RunTable | None, cells: StepCells) -> None:
        """Show the run in its cell by a table, if it has one."""
        self._table = run_table
        self._cells = cells

    def show(self, task: TaskId, output: Output) -> None:
        """Show an output under its step's cell."""
        self._cells.show(task, output)

    def show_again(self, task: TaskId, outputs: Sequence[Output]) -> None:
        """Have the cell show what its step showed when it ran; the page changes nothing where it does so already."""
        for output in outputs:
            self._cells.show(task, output)

    def show_card(self, step: str, bundle: Mapping[str, Any]) -> None:
        """Show a card under its step's cell."""
        self._cells.card(step, bundle)

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Draw the table, and send what is new under the cells."""
        if self._table is not None:
            self._table.update(snapshot, known, last=last)
        self._cells.update(snapshot, last=last)


RATE = 2_000_000
"""Characters a second that may be sent: a page draws all of it again each time."""
LARGEST = 2_000_000
"""Characters that displays of tasks may take together."""


class BackgroundScreen:
    """The screen of a run that goes on after its cell, without a page that puts outputs under cells.

    The table, then what each step prints and displays, in one output: a cell that has ended gets no new ones.

    Displays stand as a card shows them, without scripts.
    """

    tells_failures = False

    def __init__(self, ip: Any, run: str) -> None:
        self._run = run
        self._place = InPlace(OwnCell(ip))
        draw_start(self._place, run)
        self._again: dict[str, list[tuple[TaskId, Output]]] = {}
        self._logs: dict[str, logs.Log] = {}
        self._displays: dict[tuple[TaskId, str], Drawn] = {}
        self._count = 0
        self._room = LARGEST
        self._left_out = 0
        self._drawn = ""
        self._due = 0.0
        self._at = 0.0

    def show(self, task: TaskId, output: Output) -> None:
        """Add text to the step's log, and displays below it; one that is updated changes in its place."""
        kind = output["output_type"]
        if kind in ("stream", "error"):
            log = self._logs.setdefault(task.step, logs.Log())
            log.add((task.index, str(output.get("name", ""))), _printed(output))
        elif kind == "clear_output":
            if task.step in self._logs:
                self._logs[task.step].clear(task.index)
            for key in [key for key in self._displays if key[0] == task]:
                self._room += len(self._displays.pop(key).html)
        else:
            self._display(task, output)

    def show_again(self, task: TaskId, outputs: Sequence[Output]) -> None:
        """Show folded what a reused task has shown."""
        self._again.setdefault(task.step, []).extend((task, output) for output in outputs)

    def show_card(self, step: str, bundle: Mapping[str, Any]) -> None:
        """Leave a card out: the cell has ended."""

    def _display(self, task: TaskId, output: Output) -> None:
        self._count += 1
        name = str((output.get("transient") or {}).get("display_id") or self._count)
        part = cards.shown_part(output)
        before = self._displays.get((task, name))
        if part is None or (before is None and output["output_type"] == "update_display_data"):
            return
        grown = len(part.html) - (len(before.html) if before is not None else 0)
        if grown > self._room:
            self._left_out += before is None
            return
        self._room -= grown
        self._displays[task, name] = part

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Draw the run where something has changed, as often as its size allows."""
        now = time.monotonic()
        if not last and now < self._due:
            return
        still = self._text(snapshot, known, None) + "".join(part.html for part in self._displays.values())
        if not last and still == self._drawn and now - self._at < TICK:
            return
        self._drawn, self._at = still, now
        clock = time.time()
        below = [*self._step_blocks(snapshot, last=last)]
        page = table.as_html(snapshot, clock, known, below=below)
        self._due = now + len(page) / RATE
        self._place.draw(self._text(snapshot, known, clock), page)

    def _text(self, snapshot: Snapshot, known: table.RunHints, now: float | None) -> str:
        settled = _settled(snapshot)
        printed = [log.text(step, over=step in settled) for step, log in self._logs.items()]
        return "\n".join([table.text(snapshot, now, known=known), *printed])

    def _step_blocks(self, snapshot: Snapshot, *, last: bool) -> list[html.Html]:
        blocks = []
        settled = _settled(snapshot)
        showing = {*self._logs, *self._again, *(task.step for task, _ in self._displays)}
        for step in (each for each in snapshot.steps if each in showing):
            label = snapshot.labels.get(step) or step
            if step in self._logs:
                way = f"%flow logs {self._run}/{step}"
                over = last or step in settled
                blocks.append(html.Html(self._logs[step].as_html(label, way, over=over)))
            for (task, _), part in self._displays.items():
                if task.step == step:
                    name = f"{label}/{preview.index(task.index)}" if task.index else label
                    caption = html.tag("b", name) if task.index or step not in self._logs else ""
                    blocks.append(html.tag("div", caption, html.Html(part.html), cls="nbflow-display"))
            if again := self._again.get(step):
                blocks.append(html.Html(folded(self._run, step, label, again)[1]))
        if self._left_out:
            way = html.tag("code", f"%flow card {self._run} -o FILE")
            blocks.append(html.tag("div", f"{self._left_out} more displays: ", way, cls="nbflow-dim"))
        return blocks


def _settled(snapshot: Snapshot) -> set[str]:
    """Return the steps whose tasks are all settled; one whose tasks are not known yet is not."""
    steps = {view.task.step for view in snapshot.tasks}
    return steps - {view.task.step for view in snapshot.tasks if view.state not in SETTLED}
