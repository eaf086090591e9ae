"""Tags of cells: what those of nbflow, papermill, nbclient and Kale say of a cell without a header of its own. Pure.

A notebook of another tool means what it means there where that is what it means run top to bottom: a tag makes a cell a
step, parameters or nothing, and never gives it another value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from nbflow.errors import OptionError
from nbflow.flow.options import parse_header, parse_size
from nbflow.model import Frozen, StepOptions

RAISED = "_raised"
"""What holds the error of a cell that is tagged `raises-exception`: a name that is no artifact's."""

METRICS = "pipeline-metrics"
KALE = frozenset({"imports", "functions", "pipeline-parameters", METRICS})
"""Tags that only Kale has; so has it `block:NAME`."""

INJECTED = "injected-parameters"
"""The tag of a cell with the parameters of the run that has written the notebook; papermill's word."""

PARAMETERS = frozenset({"parameters", INJECTED, "pipeline-parameters"})
SKIPPED = "skip-execution"


class TaggedCell(Frozen, frozen=True, kw_only=True):
    """What a cell's tags make of it; `kind` is "" where they leave it what its text says."""

    kind: Literal["", "step", "params", "control"] = ""
    name: str = ""
    options: StepOptions = StepOptions()
    injected: bool = False
    gathers: bool = False  # it belongs to the step of its name wherever above that stands


class Tags(msgspec.Struct):
    """A notebook's tags, read cell by cell in order."""

    is_kale: bool
    above: str = ""  # the Kale step that cells without a tag belong to

    @classmethod
    def over(cls, tags: Iterable[Sequence[str]]) -> Tags:
        """Return what reads a notebook whose cells have these tags."""
        return cls(is_kale=any(tag in KALE or tag.startswith("block:") for each in tags for tag in each))

    def read(self, tags: Sequence[str], cell: str, *, empty: bool) -> TaggedCell:
        """Return what the tags of the next cell say; OptionError where one cannot be read."""
        if SKIPPED in tags or (self.is_kale and "skip" in tags):
            return TaggedCell(kind="control")
        declared = next((tag[5:] for tag in tags if tag.startswith("step:")), "")
        declared = declared or next((tag[6:] for tag in tags if tag.startswith("block:")), "")
        if self.is_kale:
            declared = self._kale(declared, tags, empty=empty)
        if declared:
            name, options = parse_header(declared, cell=cell)
            options = self.with_options(options, tags)
            return TaggedCell(kind="step", name=name, options=options, gathers=self.is_kale)
        if PARAMETERS.intersection(tags):
            return TaggedCell(kind="params", injected=INJECTED in tags)
        return TaggedCell(options=self.with_options(StepOptions(), tags))

    def _kale(self, declared: str, tags: Sequence[str], *, empty: bool) -> str:
        """Return the step that a cell of Kale's is: one without a tag belongs to the step above it."""
        if METRICS in tags:
            declared = METRICS
        if KALE.intersection(tags) - {METRICS}:
            self.above = ""
        if declared:
            self.above = declared.split()[0]
        return declared or ("" if empty else self.above)

    def with_options(self, options: StepOptions, tags: Sequence[str]) -> StepOptions:
        """Return a cell's options with those that its tags stand for."""
        more: dict[str, Any] = {}
        previous = [tag[5:] for tag in tags if tag.startswith("prev:")]
        if previous:
            more["after"] = (*options.after, *previous)
        if "raises-exception" in tags and options.catch is None:
            more["catch"] = RAISED
        if self.is_kale:
            more |= _limits(tags)
            more |= {"no_cache": True} if "cache:disabled" in tags else {}
            more |= {"card": True} if "report:enabled" in tags else {}
        return msgspec.structs.replace(options, **more) if more else options


def _limits(tags: Iterable[str]) -> Mapping[str, Any]:
    """Return the amounts that Kale's `limit:` tags name, as Kubernetes writes them; others mean nothing here."""
    amounts: dict[str, Any] = {}
    for tag in tags:
        word, _, rest = tag.partition(":")
        kind, _, amount = rest.rpartition(":")
        if word != "limit" or not kind:
            continue
        try:
            if kind == "memory":
                amounts["memory"] = parse_size(amount)
            elif kind == "cpu":
                amounts["cpu"] = float(amount.removesuffix("m")) / (1000 if amount.endswith("m") else 1)
            elif kind.endswith("/gpu"):
                amounts["gpu"] = float(amount)
        except ValueError:
            raise OptionError(
                f"the tag {tag!r} says no amount",
                fix="write `limit:cpu:2`, `limit:memory:4Gi`, `limit:nvidia.com/gpu:1`",
            ) from None
    return {**amounts, "at_most": True} if amounts else {}
