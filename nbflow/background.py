"""A run whose cell has ended, as that cell goes on to show it: one output, drawn again while anything changes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from nbflow import cards
from nbflow.card_parts import Drawn
from nbflow.model import SETTLED, Snapshot, TaskId
from nbflow.render import html, logs, preview, table
from nbflow.screen import TICK, InPlace

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
        """Text goes to the step's log, displays below it; one that is updated changes in its place."""
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
        shown = cards.shown_part(output)
        before = self._displays.get((task, name))
        if shown is None or (before is None and output["output_type"] == "update_display_data"):
            return
        grown = len(shown.html) - (len(before.html) if before is not None else 0)
        if grown > self._room:
            self._left_out += before is None
            return
        self._room -= grown
        self._displays[task, name] = shown

    def update(self, snapshot: Snapshot, known: table.Known, *, last: bool) -> None:
        """The run now in; drawn where something has changed, as often as its size allows."""
        now = time.monotonic()
        if not last and now < self._due:
            return
        still = self._text(snapshot, known, None) + "".join(part.html for part in self._displays.values())
        if not last and still == self._drawn and now - self._at < TICK:
            return
        self._drawn, self._at = still, now
        clock = time.time()
        below = [*self._step_blocks(snapshot, last=last)]
        shown = table.as_html(snapshot, clock, known, below=below)
        self._due = now + len(shown) / RATE
        self._place.draw(self._text(snapshot, known, clock), shown)

    def _text(self, snapshot: Snapshot, known: table.Known, now: float | None) -> str:
        printed = [log.text(step, over=_is_over(snapshot, step)) for step, log in self._logs.items()]
        return "\n".join([table.text(snapshot, now, known=known), *printed])

    def _step_blocks(self, snapshot: Snapshot, *, last: bool) -> list[html.Html]:
        found = []
        for step in dict.fromkeys([*self._logs, *(task.step for task, _ in self._displays)]):
            label = snapshot.labels.get(step) or step
            if step in self._logs:
                way = f"nbflow logs {self._run}/{step}"
                over = last or _is_over(snapshot, step)
                found.append(html.Html(self._logs[step].as_html(label, way, over=over)))
            for (task, _), part in self._displays.items():
                if task.step == step:
                    name = f"{label}/{preview.index(task.index)}" if task.index else label
                    caption = html.tag("b", name) if task.index or step not in self._logs else ""
                    found.append(html.tag("div", caption, html.Html(part.html), cls="nbflow-display"))
        if self._left_out:
            way = html.tag("code", f"nbflow card {self._run} -o FILE")
            found.append(html.tag("div", f"{self._left_out} more displays: ", way, cls="nbflow-dim"))
        return found


def _is_over(snapshot: Snapshot, step: str) -> bool:
    states = [view.state for view in snapshot.tasks if view.task.step == step]
    return bool(states) and all(state in SETTLED for state in states)
