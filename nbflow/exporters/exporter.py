"""What every exporter takes and returns, and how it says what the target cannot hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from nbflow.errors import PlanError
from nbflow.model import Finding, Flow


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the flow runs in, read by the caller and handed in as data."""

    python: str = ""  # "3.11.7"
    distributions: Mapping[str, tuple[str, str]] = msgspec.field(default_factory=dict)  # module -> name, version
    modules: Mapping[str, str] = msgspec.field(default_factory=dict)  # helper modules beside the notebook: path -> text
    unstored: frozenset[str] = frozenset()  # names that the last run could not store, and that no step needs
    beside: bool = True  # whether the files come to lie in the notebook's folder


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants of the target: the main file's name, and words that the target knows (`kubernetes`)."""

    file: str
    words: tuple[str, ...] = ()


class ExportedFiles(dict[str, str]):
    """Files as path -> text, and in `findings` what the target loses ("warning") and changes ("note")."""

    def __init__(self, files: Mapping[str, str], findings: Iterable[Finding] = ()) -> None:
        super().__init__(files)
        self.findings = tuple(findings)


@runtime_checkable
class Exporter(Protocol):
    """A target; made without arguments."""

    def export(self, flow: Flow, environment: Environment, options: Options) -> Mapping[str, str]:
        """Return files as path -> text, `options.file` among them; `ExportedFiles` where something is lost or changed.

        Raises PlanError for a flow that the target cannot hold; its `findings` name everything that is refused.
        """


class Notes:
    """What an export refuses, loses and changes, in the order in which it is noticed; each thing once."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def refused(self, message: str, *, step: str | None = None, cell: str | None = None,
                line: int | None = None, name: str | None = None, fix: str | None = None) -> None:  # fmt: skip
        """Note something that the target has no way to say."""
        self._add(Finding(
            code="refused", level="error", message=message, step=step, cell=cell, line=line, name=name, fix=fix
        ))  # fmt: skip

    def lost(self, message: str, *, step: str | None = None, cell: str | None = None, name: str | None = None) -> None:
        """Note something that is left out."""
        self._add(Finding(code="left-out", level="warning", message=message, step=step, cell=cell, name=name))

    def changed(
        self, message: str, *, step: str | None = None, cell: str | None = None, name: str | None = None
    ) -> None:
        """Note something that goes by another name, or is said in another way."""
        self._add(Finding(code="changed", level="note", message=message, step=step, cell=cell, name=name))

    def _add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def raise_refused(self, target: str) -> None:
        """Raise PlanError when something was refused; it carries every finding."""
        errors = [finding for finding in self.findings if finding.level == "error"]
        if errors:
            first = errors[0]
            more = f" (and {len(errors) - 1} more: `--check` lists them)" if len(errors) > 1 else ""
            error = PlanError(
                f"{target} cannot hold this flow: {first.message}{more}",
                step=first.step, cell=first.cell, line=first.line, fix=first.fix,
            )  # fmt: skip
            error.findings = tuple(self.findings)
            raise error


def flow_problems(flow: Flow) -> tuple[Finding, ...]:
    """Return what keeps a flow from running anywhere: no exporter takes a flow that has such findings."""
    errors = tuple(finding for finding in flow.findings if finding.level == "error")
    if errors or any(step.kind == "step" for step in flow.steps):
        return errors
    return (Finding(
        code="refused", level="error", message="the notebook declares no step",
        fix="begin a cell with `%%step NAME`",
    ),)  # fmt: skip


class TextExporter(ABC):
    """An exporter that writes its text while it takes notes; `target` is what messages call it."""

    target = ""
    words: tuple[str, ...] = ()

    @abstractmethod
    def write(self, flow: Flow, options: Options, environment: Environment, notes: Notes) -> str:
        """Return the main file's text of a flow that can run; what cannot be said goes to the notes."""

    def export(self, flow: Flow, environment: Environment, options: Options) -> ExportedFiles:
        """Return a flow's file, and helper modules if it is to lie elsewhere; PlanError for what it cannot hold."""
        notes = Notes()
        notes.findings.extend(flow_problems(flow))
        for word in options.words:
            if word not in self.words:
                fix = f"known: {', '.join(self.words) or 'none'}"
                notes.refused(f"--with {word} is unknown to {self.target}", fix=fix)
        text = "" if notes.findings else self.write(flow, options, environment, notes)
        notes.raise_refused(self.target)
        modules = {} if environment.beside else environment.modules
        return ExportedFiles({**modules, options.file: text}, notes.findings)
