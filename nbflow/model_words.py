"""The words that every type uses: states, kinds, places, and the frozen base."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FORMAT = 2
"""Version of the datastore's layout and of the task key; a newer one is refused, an older one is not reused."""

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING"})()
"""Stands for a name without a value; None is a value."""

CellKind = Literal["step", "params", "setup", "plain", "control", "empty"]
StepKind = Literal["step", "cell", "params"]
Joins = Literal["", "possible", "effect"]
"""Why a plain cell is part of a flow: a step needs what it makes; it may change what one reads; it has an effect."""

TaskState = Literal["pending", "queued", "running", "done", "reused", "failed", "caught", "skipped", "cancelled"]
RunStatus = Literal["running", "done", "failed", "cancelled", "lost"]
SETTLED: frozenset[str] = frozenset({"done", "reused", "failed", "caught", "skipped", "cancelled"})
WORST_FIRST: tuple[TaskState, ...] = (
    "failed", "cancelled", "running", "queued", "pending", "caught", "skipped", "done", "reused",
)  # fmt: skip

NO_TASKS: dict[RunStatus, TaskState] = {
    "running": "pending", "done": "done", "failed": "cancelled", "cancelled": "cancelled", "lost": "cancelled",
}  # fmt: skip
"""How a step without tasks stands in a run: a fan-out, over an empty list, or whose list was never known."""

Index = tuple[int, ...]
"""The place of a task in its step's fan-outs, outermost first; () outside a foreach."""

Reason = tuple[str, str]
"""(code, what): why a task runs or is reused."""


class Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every type here: immutable, keyword-only, defaults left out of JSON."""
