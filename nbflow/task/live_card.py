"""`card`: what a step's code shows of itself while it runs, drawn in place, stored with the task's outputs."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

from nbflow.render import components as parts
from nbflow.render.cards import NAME, Card
from nbflow.task.context import current

EVERY = 0.15
"""Seconds between two drawings of a card, at least."""
SHARE = 0.05
"""Of a task's time that drawing may take."""
RATE = 2_000_000
"""Characters a second that a card may send."""


class Board:
    """One card of the running task; parts are anything that a card can show, see `nbflow.render.components`."""

    def __init__(self, name: str, title: str, step: str, run: str) -> None:
        self._lock = threading.RLock()
        self._name = name
        self._title = title
        self._step, self._run = step, run
        self._parts: dict[str, parts.Component] = {}
        self._identity = f"nbflow-card-{uuid.uuid4().hex[:12]}"
        self._shown = False
        self._stale = False
        self._due = 0.0
        self._timer: threading.Timer | None = None

    def append(self, part: Any, id: str | None = None) -> Any:  # noqa: A002
        """Add a part below the others, or in place of that with the same `id`; return the component that shows it."""
        component = parts.component_of(part).watched(self._change)
        with self._lock:
            self._parts[id if id is not None else uuid.uuid4().hex] = component
        self._change()
        return component

    def extend(self, found: Iterable[Any]) -> None:
        """Add several parts."""
        for part in found:
            self.append(part)

    def clear(self) -> None:
        """Take out all parts."""
        with self._lock:
            self._parts.clear()
        self._change()

    @property
    def components(self) -> dict[str, parts.Component]:
        """Its parts by the ids that they were given, in order."""
        return dict(self._parts)

    # ------------------------------------------------------------ drawing

    def _change(self) -> None:
        """Draw what is new now, or as soon as the last drawing is long enough ago."""
        with self._lock:
            self._stale = True
            wait = self._due - time.monotonic()
            if wait <= 0:
                self._draw(live=True)
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._draw_late)
                self._timer.daemon = True
                self._timer.start()

    def _draw_late(self) -> None:
        with self._lock:
            self._timer = None
            if self._stale:
                self._draw(live=True)

    def settle(self) -> None:
        """Draw the card as it stays, once the task's code is over."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._shown:
                self._draw(live=False)

    def _draw(self, *, live: bool) -> None:
        self._stale = False
        start = time.monotonic()
        bundle = self._card().bundle(live=live)
        _publish(bundle, {NAME: self._name}, self._identity, update=self._shown)
        self._shown = True
        took = time.monotonic() - start
        size = sum(len(text) for text in bundle.values() if isinstance(text, str))
        self._due = time.monotonic() + max(EVERY, took / SHARE, size / RATE)

    def _card(self) -> Card:
        contents = [part.drawn for part in self._parts.values()]
        return Card(self._title, contents, name=self._name, step=self._step, run=self._run, subtitle=self._name)

    def __repr__(self) -> str:
        return self._card().text

    def __len__(self) -> int:
        return len(self._parts)

    def __bool__(self) -> bool:
        return True


class Boards:
    """`from nbflow import card`: the running task's card, and by name as many more of them as it likes.

    `card.append(part)`, `card.extend(parts)`, `card.clear()`, `card["errors"].append(part)`; a part is a component
    (`card.Table(df)` and others) or anything that one can show: text, data frames, figures, exceptions.
    In a plain cell the card is shown and not kept.
    """

    Artifact, Chart, Code, Error, Image = parts.Artifact, parts.Chart, parts.Code, parts.Error, parts.Image
    Grid, HTML, JSON, Markdown, Progress = parts.Grid, parts.HTML, parts.JSON, parts.Markdown, parts.Progress
    Section, Table, Timeline, ValueBox, YAML = parts.Section, parts.Table, parts.Timeline, parts.ValueBox, parts.YAML

    def __init__(self) -> None:
        self._boards: dict[str, Board] = {}
        self._task: object = None
        self._lock = threading.Lock()

    def _board(self, name: str) -> Board:
        with self._lock:
            context = current.context
            # a plain cell has no context: there its number says when a new one has begun
            task = context if context is not None else getattr(_shell(), "execution_count", None)
            if self._task is not task and self._task != task:
                self._boards = {}
                self._task = task
                if context is not None:
                    context.closing.append(self.settle)
            if name not in self._boards:
                title = context.task if context is not None else "card"
                run = f"{context.flow}/{context.run}" if context is not None else ""
                self._boards[name] = Board(name, title, context.step if context is not None else "", run)
            return self._boards[name]

    def __getitem__(self, name: str) -> Board:
        return self._board(name)

    def append(self, part: Any, id: str | None = None) -> Any:  # noqa: A002
        """Add a part to the task's card, or replace that with the same `id`; return the component that shows it."""
        return self._board("").append(part, id)

    def extend(self, found: Iterable[Any]) -> None:
        """Add several parts to the task's card."""
        self._board("").extend(found)

    def clear(self) -> None:
        """Take all parts out of the task's card."""
        self._board("").clear()

    @property
    def components(self) -> dict[str, parts.Component]:
        """The parts of the task's card by the ids that they were given, in order."""
        return self._board("").components

    def settle(self) -> None:
        """Draw the task's cards as they stay, once its code is over."""
        for board in tuple(self._boards.values()):
            board.settle()

    def __repr__(self) -> str:
        return repr(self._board(""))

    def __reduce__(self) -> str:
        return "card"


def _shell() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _publish(bundle: dict[str, Any], metadata: dict[str, Any], identity: str, *, update: bool) -> None:
    """Publish a card as any display: in a worker it goes to the task's outputs, in the kernel to the page."""
    shell = _shell()
    if shell is not None:
        shell.display_pub.publish(bundle, metadata, transient={"display_id": identity}, update=update)


card = Boards()
