"""What a command knows of the face that it was typed into, a shell or a live notebook, and the answer that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from nbflow.model import Flow, Plan
from nbflow.runs.run_options import RunOptions

if TYPE_CHECKING:
    from nbflow.runs.client import Run

DONE, FAILED, USAGE, UNUSABLE, CANCELLED = 0, 1, 2, 3, 130
"""Success; a step failed; wrong words, notebook, parameters or plan; store or executor unusable; cancelled."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer whose forms are made when they are shown: as text, on a page, as lines of JSON, as a Python object."""

    text: Callable[[], str] | None = None
    html: Callable[[], str] | None = None
    lines: Callable[[], Iterable[str]] | None = None
    value: Callable[[], Any] | None = None
    code: int = DONE


class Face(Protocol):
    """Where words are typed, a shell or a live notebook, and all that the two do in different ways."""

    live: bool
    """Whether it is a notebook, in which HTML can be seen."""

    @property
    def store(self) -> str | None:
        """The datastore that was named; None for the one that belongs to the folder."""

    @property
    def folder(self) -> Path:
        """What paths count from, and whose settings hold."""

    def own(self) -> str | None:
        """Return the word for the flow that is meant where none is named; None where all are."""

    def path(self, word: str | None) -> str:
        """Return what a word, or none, names: a run, or a part of one."""

    def flow(self, *, all_cells: bool) -> Flow:
        """Return the notebook's flow."""

    def plan(self, options: RunOptions) -> Plan:
        """Return what a run would do."""

    def why(self, step: str, options: RunOptions, *, cost: bool) -> dict[str, Any]:
        """Return whether a step would run, and what changed."""

    def run(self, options: RunOptions, *, background: bool) -> Answer:
        """Run the flow, and show the run."""

    def tell(self, text: Callable[[], str]) -> None:
        """Show a person what is about to happen."""

    def take_up(self, past: Run) -> None:
        """Take the notebook and the datastore of an earlier run."""

    def follow(self, past: Run) -> Answer:
        """Show a run that goes on elsewhere until it has ended."""

    def learn(self) -> None:
        """Take note that more is known of the notebook's code than before."""

    def cancel(self) -> bool:
        """End its own run that goes on in the background; whether there was one."""
