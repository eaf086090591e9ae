"""Where outputs go: into the cell that runs now, or under another cell through a page that can put them there."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from nbflow.kernel import recorder
from nbflow.model import TaskId
from nbflow.render import preview
from nbflow.render.cards import MIME as CARD

MOST_DISPLAYS = 60
LARGEST_DISPLAY = 8_000_000
"""Characters of one display in the cell: the script that Plotly shows before its first figure is of 5 million."""

Output = Mapping[str, Any]
"""A piece of what a task shows, as nbformat has it; updates and clears as the kernel's messages have them."""


class Sheet(Protocol):
    """What takes outputs one after another; `drawn` where they can change in their place."""

    drawn: bool

    def add(self, output: Output) -> None:
        """Show one more output, or change one that is there."""


class OwnCell:
    """The cell that runs now; where there is no page, its terminal."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self.drawn = getattr(ip, "kernel", None) is not None

    def add(self, output: Output) -> None:
        """Show an output as the cell's own."""
        kind = output["output_type"]
        if kind not in ("display_data", "update_display_data"):
            recorder.show(self._ip, [dict(output)])  # a result with the cell's number
            return
        data, update = output["data"], kind == "update_display_data"
        if self.drawn:
            sys.stdout.flush()
            sys.stderr.flush()
            transient = output.get("transient") or {}
            self._ip.display_pub.publish(data, output.get("metadata") or {}, transient=transient, update=update)
        elif not update and CARD not in data:
            print(data.get("text/plain", ""))


class StepCell:
    """The outputs of a step's cell; what is new of them is taken from time to time and sent to the page.

    Nothing is taken before it is opened: until then the cell keeps what it shows.
    """

    drawn = True

    def __init__(self, cell: str) -> None:
        self.cell = cell
        self.opened = False
        self._outputs: list[dict[str, Any]] = []
        self._named: dict[str, list[dict[str, Any]]] = {}  # display id -> outputs
        self._new: list[dict[str, Any]] = []
        self._whole = False
        self._clear_next = False

    def open(self) -> None:
        """Let the cell show these outputs from now on instead of those that it has."""
        self.opened = self._whole = True

    def repeat(self) -> None:
        """Give everything once more: another page puts it under the cell from now on."""
        self._whole = self.opened

    def add(self, output: Output) -> None:
        """Show an output under the cell."""
        kind = output["output_type"]
        if kind == "clear_output":
            self._clear_next = bool(output.get("wait"))
            if not self._clear_next:
                self._clear()
            return
        if kind == "update_display_data":
            for shown in self._named.get(_identity(output), ()):
                shown.update(data=output["data"], metadata=output.get("metadata") or {})
            self._new.append(dict(output))
            return
        if self._clear_next:
            self._clear()
        if kind == "stream":
            self._write(str(output.get("name", "stdout")), recorder.text_of_output(output["text"]))
            return
        shown = dict(output)
        self._outputs.append(shown)
        self._new.append(dict(output))
        if identity := _identity(output):
            self._named.setdefault(identity, []).append(shown)

    def _write(self, name: str, text: str) -> None:
        last = self._outputs[-1] if self._outputs else {}
        if last.get("output_type") == "stream" and last["name"] == name:
            last["text"] += text
        else:
            self._outputs.append({"output_type": "stream", "name": name, "text": text})
        self._new.append({"output_type": "stream", "name": name, "text": text})

    def _clear(self) -> None:
        self._outputs, self._named, self._new = [], {}, []
        self._clear_next, self._whole = False, self.opened

    def take(self) -> tuple[bool, list[dict[str, Any]]] | None:
        """Return whether it is the whole of the cell's outputs, and the outputs that are new; None for nothing."""
        if not self.opened or not (self._whole or self._new):
            return None
        whole, new = self._whole, self._new
        self._whole, self._new = False, []
        return (True, [dict(output) for output in self._outputs]) if whole else (False, new)


def _identity(output: Output) -> str:
    return str((output.get("transient") or {}).get("display_id") or "")


def display(data: Mapping[str, Any], identity: str = "", metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a display as an output; a later one of the same identity may take its place."""
    transient = {"transient": {"display_id": identity}} if identity else {}
    return {"output_type": "display_data", "data": dict(data), "metadata": dict(metadata or {}), **transient}


class InPlace:
    """One output that is drawn again and again."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._identity = f"nbflow-{uuid.uuid4().hex[:12]}"
        self._begun = False

    def draw(self, text: str, html: str) -> None:
        """Show this instead of what was there."""
        output = display({"text/plain": text, "text/html": html}, self._identity)
        self._sheet.add({**output, "output_type": "update_display_data"} if self._begun else output)
        self._begun = True


class Displays:
    """What tasks display, each in an output of its own that later updates reach, cleared ones used again."""

    def __init__(self, sheet: Sheet, run: str) -> None:
        self._sheet = sheet
        self._run = run
        self._slots: dict[TaskId, list[str]] = {}  # outputs of a task in order
        self._next: dict[TaskId, int] = {}  # of these, which one is free
        self._named: dict[tuple[TaskId, str], str] = {}  # the task's own display id -> output
        self._waiting: set[TaskId] = set()  # tasks whose next display clears the others
        self._count = 0
        self.left_out = 0

    def show(self, task: TaskId, output: Output) -> None:
        """Show a display, an update of one, or a clear."""
        kind = output["output_type"]
        if kind == "clear_output":
            self._waiting.add(task)
            if not output.get("wait"):
                self._clear(task)
            return
        data, metadata = fitting(self._run, task, output)
        name = _identity(output)
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

    def _publish(self, slot: str, data: dict[str, Any], metadata: dict[str, Any], *, update: bool) -> None:
        output = display(data, slot, metadata)
        self._sheet.add({**output, "output_type": "update_display_data"} if update else output)


def fitting(run: str, task: TaskId, output: Output) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a display's data and metadata; of one that is too large for a page, how to see it instead."""
    data, metadata = dict(output.get("data") or {}), dict(output.get("metadata") or {})
    size = len(msgspec.json.encode(data))
    if size <= LARGEST_DISPLAY:
        return data, metadata
    way = f"%flow show {run}/{task.step}" + (f"/{preview.index(task.index)}" if task.index else "")
    text = preview.clip(str(data.get("text/plain", "")), 200)
    return {"text/plain": f"{text}\n[a display of {preview.size(size)} is left out here: {way}]"}, {}


Deliver = Callable[[str, str, Mapping[str, tuple[bool, list[dict[str, Any]]]], bool], None]
"""Sends what steps show: a run, a client, for each cell what was taken of its outputs, whether that was the last."""


class CellPages:
    """Which pages put outputs under cells, by the client that they are for the kernel, and what is sent to them."""

    def __init__(self) -> None:
        self._clients: set[str] = set()
        self._send: Deliver | None = None
        self._run = ""
        self._move: Callable[[str], None] | None = None

    def deliver(self, send: Deliver) -> None:
        """Send by this what steps show."""
        self._send = send

    def arrived(self, client: str) -> None:
        """Count on a page that puts outputs under cells; a run that no page has shown to its end goes on there."""
        self._clients.add(client)
        if self._move is not None:
            self._move(client)

    def has(self, client: str) -> bool:
        """Return whether the page of this client puts outputs under cells."""
        return self._send is not None and client in self._clients

    def begin(self, run: str, move: Callable[[str], None]) -> None:
        """Tell by this from now on that another page has come: there is one run at a time."""
        self._run, self._move = run, move

    def placed(self, run: str) -> None:
        """Take note that a page shows all that the steps of a run have shown."""
        if run == self._run:
            self._move = None

    def send(self, run: str, client: str, cells: Iterable[StepCell], *, last: bool) -> None:
        """Send what is new of these cells' outputs; `last` when the run has ended."""
        news = {cell.cell: taken for cell in cells if (taken := cell.take()) is not None}
        if (news or last) and self._send is not None:
            self._send(run, client, news, last)
