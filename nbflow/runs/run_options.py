"""What a person may ask of a run: one frozen type, which Python callers, the command line and `%flow` all build."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

PathLike = str | os.PathLike[str]


class RunOptions(msgspec.Struct, frozen=True):
    """What a person may ask of a run, of a plan, or of the reason why a step would run; each field may be left out."""

    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Values of parameters by name; text is read as the parameter's type."""
    params_file: PathLike | None = None
    """A YAML or JSON file with values of parameters; `params` go before it."""
    on: str = "local"
    """Where steps run that do not say it themselves: the URL of an executor."""
    store: str | None = None
    """The datastore's folder or URL; None for the one that is set, else `.nbflow` beside the notebook."""
    workers: int | None = None
    """Tasks at once; None for as many as the executor has cores."""
    fresh: bool | Sequence[str] = False
    """True where nothing may be reused, or the steps that may not."""
    steps: Sequence[str] | None = None
    """Steps to run, with all that they need; None for all."""
    only: str | None = None
    """One step to run alone, on what the last run (or `resume`) left of the steps above it."""
    again: Sequence[str] = ()
    """Steps with `--once` that may begin although an earlier run began them."""
    tags: Sequence[str] = ()
    """Words that the run can be found by."""
    resume: str | None = None
    """The run whose parameters are used."""
    step_options: Sequence[str] = ()
    """Options of steps that all of them are to have, `retry=2,card`; a step's own go before them."""
    all_cells: bool = False
    """Whether every cell that computes is a step."""
    verified: bool = False
    """Whether it is refused unless a verification has found this code, with these packages, equal to the notebook."""
