"""A run as its cell shows it: the table in place, what tasks display below it, what they print folded by step."""

from __future__ import annotations

import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from nbflow.kernel import recorder
from nbflow.model import SETTLED, Snapshot, TaskId
from nbflow.render import cards, html, logs, preview, table
from nbflow.render.cards import MIME as CARD
from nbflow.render.components import Drawn

EVERY = 0.1
"""Seconds between two drawings."""
TICK = 0.5
"""Seconds between two drawings of the table in which nothing but the time has passed."""
MOST_DISPLAYS = 60
LARGEST_DISPLAY = 8_000_000
"""Characters of one display in the cell: the script that Plotly shows before its first figure is of 5 million."""
LARGEST_TEXT = 200_000
"""Characters that a step run by hand may print into its cell."""
TRACEBACKS = 3


class Screen(Protocol):
    """Where a run is shown; all calls come from the kernel's main thread."""

    def show(self, task: TaskId, output: Mapping[str, Any]) -> None:
        """Show a piece of what a task displays or prints, as nbformat has it."""

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Show the run as it is now."""


class Displays:
    """What tasks display, each in an output of its own that later updates reach, cleared ones used again."""

    def __init__(self, ip: Any, run: str) -> None:
        self._ip = ip
        self._run = run
        self._page = getattr(ip, "kernel", None) is not None
        self._slots: dict[TaskId, list[str]] = {}  # outputs of a task in order
        self._next: dict[TaskId, int] = {}  # of these, which one is free
        self._named: dict[tuple[TaskId, str], str] = {}  # the task's own display id -> output
        self._waiting: set[TaskId] = set()  # tasks whose next display clears the others
        self._count = 0
        self.left_out = 0

    def show(self, task: TaskId, output: Mapping[str, Any]) -> None:
        """Show a display, an update of one, or a clear."""
        kind = output["output_type"]
        if kind == "clear_output":
            self._waiting.add(task)
            if not output.get("wait"):
                self._clear(task)
            return
        data, metadata = self._fitting(task, output)
        name = str((output.get("transient") or {}).get("display_id") or "")
        if kind == "update_display_data":
            slot = self._named.get((task, name))
            if slot is not None:
                self._publish(slot, data, metadata, update=True)
            return
        if task in self._waiting:
            self._clear(task)
        slots = self._slots.setdefault(task, [])
        at = self._next.get(task, 0)
        fresh = at == len(slots)
        if fresh and self._count >= MOST_DISPLAYS:
            self.left_out += 1
            return
        if fresh:
            self._count += 1
            slots.append(f"nbflow-{self._run}-{uuid.uuid4().hex[:10]}")
        self._next[task] = at + 1
        if name:
            self._named[task, name] = slots[at]
        self._publish(slots[at], data, metadata, update=not fresh)

    def _clear(self, task: TaskId) -> None:
        self._waiting.discard(task)
        for slot in self._slots.get(task, ())[: self._next.get(task, 0)]:
            self._publish(slot, {"text/plain": ""}, {}, update=True)
        self._next[task] = 0

    def _fitting(self, task: TaskId, output: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = dict(output.get("data") or {}), dict(output.get("metadata") or {})
        size = len(msgspec.json.encode(data))
        if size <= LARGEST_DISPLAY:
            return data, metadata
        way = f"nbflow show {self._run}/{task.step}" + (f"/{preview.index(task.index)}" if task.index else "")
        text = preview.clip(str(data.get("text/plain", "")), 200)
        return {"text/plain": f"{text}\n[a display of {preview.size(size)} is left out here: {way}]"}, {}

    def _publish(self, slot: str, data: dict[str, Any], metadata: dict[str, Any], *, update: bool) -> None:
        if self._page:
            sys.stdout.flush()
            sys.stderr.flush()
            self._ip.display_pub.publish(data, metadata, transient={"display_id": slot}, update=update)
        elif not update and CARD not in data:
            print(data.get("text/plain", ""))


class InPlace:
    """One output that is drawn again and again."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._identity = f"nbflow-{uuid.uuid4().hex[:12]}"
        self._begun = False

    def draw(self, text: str, html: str) -> None:
        """Show this instead of what was there."""
        sys.stdout.flush()
        data = {"text/plain": text, "text/html": html}
        self._ip.display_pub.publish(data, {}, transient={"display_id": self._identity}, update=self._begun)
        self._begun = True


class RunScreen:
    """The screen of `%flow run`: a table, then each step's log and displays in the order in which they begin."""

    def __init__(self, ip: Any, run: str) -> None:
        self._page = getattr(ip, "kernel", None) is not None
        self._ip = ip
        self._run = run
        self._displays = Displays(ip, run)
        self._table = InPlace(ip)
        self._drawn: tuple[str, str] = ("", "")
        self._at = 0.0
        self._logs: dict[str, logs.Log] = {}
        self._blocks: dict[str, InPlace] = {}
        self._shown: dict[str, str] = {}
        self._snapshot: Snapshot | None = None
        self._above = ""  # whose output stands last

    def show(self, task: TaskId, output: Mapping[str, Any]) -> None:
        """Add text to the step's log, and show all else below it."""
        kind = output["output_type"]
        if kind in ("stream", "error"):
            log = self._logs.setdefault(task.step, logs.Log())
            text = "".join(output["text"]) if kind == "stream" else "\n".join(output.get("traceback") or ()) + "\n"
            log.add((task.index, str(output.get("name", ""))), text)
            return
        if kind == "clear_output" and task.step in self._logs:
            self._logs[task.step].clear(task.index)
        self._draw_logs()  # what was printed before stands above
        if kind in ("display_data", "execute_result") and CARD not in (output.get("data") or {}):
            self._caption(task)
        self._displays.show(task, output)

    def _caption(self, task: TaskId) -> None:
        """Say whose display comes next, where that is not to be seen from what stands above it."""
        label = self._label(task.step)
        name = f"{label}/{preview.index(task.index)}" if task.index else label
        if name != self._above and self._page:
            InPlace(self._ip).draw(f"{name}:", html.block(html.tag("b", name)))
        self._above = name

    def _label(self, step: str) -> str:
        return self._snapshot.labels.get(step) or step if self._snapshot is not None else step

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Draw the run where something has changed."""
        self._snapshot = snapshot
        now = time.time()
        if not self._page:
            if last:
                self._draw_logs()
                print(table.text(snapshot, now, known=known))
            return
        still = table.text(snapshot, None, known=known)
        if last or still != self._drawn[0] or time.monotonic() - self._at >= TICK:
            moving = table.text(snapshot, now, known=known)
            if (still, moving) != self._drawn or last:
                self._drawn, self._at = (still, moving), time.monotonic()
                self._table.draw(moving, table.as_html(snapshot, now, known=known))
        self._draw_logs(last=last)
        if last and self._displays.left_out:
            print(f"{self._displays.left_out} more displays: nbflow card {self._run} -o FILE")

    def _draw_logs(self, *, last: bool = False) -> None:
        for step, log in self._logs.items():
            over = last or self._is_over(step)
            text = log.text(step, over=over)
            mark = f"{over}{text}"
            if self._shown.get(step) == mark:
                continue
            self._shown[step] = mark
            if not self._page:
                print(text)
                continue
            label = self._label(step)
            if step not in self._blocks:
                self._above = label
            way = f"nbflow logs {self._run}/{step}"
            self._blocks.setdefault(step, InPlace(self._ip)).draw(text, log.as_html(label, way, over=over))

    def _is_over(self, step: str) -> bool:
        if self._snapshot is None:
            return False
        states = [view.state for view in self._snapshot.tasks if view.task.step == step]
        return bool(states) and all(state in SETTLED for state in states)


class StepScreen:
    """The screen of a single task run for a cell: as if it ran in the cell."""

    def __init__(self, ip: Any, run: str, step: str) -> None:
        self._ip = ip
        self._run = run
        self._step = step
        self._displays = Displays(ip, run)
        self._room = LARGEST_TEXT
        self._printed = False
        self._rest: deque[str] = deque(maxlen=200)

    def show(self, task: TaskId, output: Mapping[str, Any]) -> None:
        """Show an output as the cell's own, if the cell's own task displays it."""
        if task.step != self._step or output["output_type"] == "error":
            return  # errors are shown once it is known that no further attempt follows
        if output["output_type"] == "execute_result":
            recorder.show(self._ip, [dict(output)])  # the cell's own result, number and all
            return
        if output["output_type"] != "stream":
            self._displays.show(task, output)
            return
        text = "".join(output["text"])
        if self._room > 0:
            self._printed = True
            recorder.show(self._ip, [{**output, "text": text[: self._room]}])
        elif text:
            self._rest.append(text)
        self._room -= len(text)

    def update(self, snapshot: Snapshot, known: table.RunHints, *, last: bool) -> None:
        """Send what was printed; at the end of a text that was too long, show its last lines."""
        del snapshot, known
        if self._printed:  # the kernel's own streams would wait 0.2 s for more
            self._printed = False
            sys.stdout.flush()
            sys.stderr.flush()
        if last and self._rest:
            end = "".join(self._rest).splitlines()[-20:]
            print(f"\n[… {-self._room:,} characters more: nbflow logs {self._run}/{self._step}]")
            print("\n".join(end))
            self._rest.clear()


RATE = 2_000_000
"""Characters a second that may be sent: a page draws all of it again each time."""
LARGEST = 2_000_000
"""Characters that displays of tasks may take together."""


class BackgroundScreen:
    """The table, then what each step prints and displays, in one output: a cell that has ended gets no new ones.

    Displays stand as a card shows them, without scripts. Its calls come from the run's own thread.
    """

    def __init__(self, ip: Any, run: str) -> None:
        self._run = run
        self._place = InPlace(ip)
        # while the cell runs: later there is no place for an output any more
        self._place.draw(
            f"{run} starts", html.block(html.tag("code", run), html.tag("span", " starts", cls="nbflow-dim"))
        )
        self._logs: dict[str, logs.Log] = {}
        self._displays: dict[tuple[TaskId, str], Drawn] = {}
        self._count = 0
        self._room = LARGEST
        self._left_out = 0
        self._drawn = ""
        self._due = 0.0
        self._at = 0.0

    def show(self, task: TaskId, output: Mapping[str, Any]) -> None:
        """Add text to the step's log, and displays below it; one that is updated changes in its place."""
        kind = output["output_type"]
        if kind in ("stream", "error"):
            text = "".join(output["text"]) if kind == "stream" else "\n".join(output.get("traceback") or ()) + "\n"
            self._logs.setdefault(task.step, logs.Log()).add((task.index, str(output.get("name", ""))), text)
        elif kind == "clear_output":
            if task.step in self._logs:
                self._logs[task.step].clear(task.index)
            for key in [key for key in self._displays if key[0] == task]:
                self._room += len(self._displays.pop(key).html)
        else:
            self._display(task, output)

    def _display(self, task: TaskId, output: Mapping[str, Any]) -> None:
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
        printed = [log.text(step, over=_is_over(snapshot, step)) for step, log in self._logs.items()]
        return "\n".join([table.text(snapshot, now, known=known), *printed])

    def _step_blocks(self, snapshot: Snapshot, *, last: bool) -> list[html.Html]:
        blocks = []
        for step in dict.fromkeys([*self._logs, *(task.step for task, _ in self._displays)]):
            label = snapshot.labels.get(step) or step
            if step in self._logs:
                way = f"nbflow logs {self._run}/{step}"
                over = last or _is_over(snapshot, step)
                blocks.append(html.Html(self._logs[step].as_html(label, way, over=over)))
            for (task, _), part in self._displays.items():
                if task.step == step:
                    name = f"{label}/{preview.index(task.index)}" if task.index else label
                    caption = html.tag("b", name) if task.index or step not in self._logs else ""
                    blocks.append(html.tag("div", caption, html.Html(part.html), cls="nbflow-display"))
        if self._left_out:
            way = html.tag("code", f"nbflow card {self._run} -o FILE")
            blocks.append(html.tag("div", f"{self._left_out} more displays: ", way, cls="nbflow-dim"))
        return blocks


def _is_over(snapshot: Snapshot, step: str) -> bool:
    states = [view.state for view in snapshot.tasks if view.task.step == step]
    return bool(states) and all(state in SETTLED for state in states)
