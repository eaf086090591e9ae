"""Names that generated lines use: modules, builtins, helpers, marks; what the notebook itself calls so is avoided."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nbflow.exporters.spelling import Spelling
from nbflow.model import Flow

Helpers = Mapping[str, tuple[str, frozenset[str]]]
"""Name -> text, and the modules that it needs."""


class Words:
    """What a file's generated lines have asked for so far."""

    def __init__(self, flow: Flow, spelling: Spelling, helpers: Helpers) -> None:
        self.spelling, self.known = spelling, helpers
        self.modules: dict[str, str] = {}
        self.helpers: dict[str, str] = {}
        self.marks: dict[str, str] = {}
        own = {name for d in flow.definitions for name in d.names if d.origins.get(name) != name}
        data = {name for step in flow.steps for name in (*step.writes, *step.private, *step.targets)}
        self.bound = own | data | {parameter.name for parameter in flow.parameters}

    def module(self, name: str) -> str:
        """A module's name in; what it is called in the file out."""
        return self.modules.setdefault(name, f"{name}_module" if name in self.bound else name)

    def builtin(self, name: str) -> str:
        """A builtin function's name in; what it is called in the file out."""
        return f"{self.module('builtins')}.{name}" if name in self.bound else name

    def helper(self, name: str) -> str:
        """A helper's name in; what it is called in the file out."""
        for module in self.known[name][1]:
            self.module(module)
        return self.helpers.setdefault(name, f"{name}_of_item" if name in self.bound else name)

    def mark(self, name: str) -> str:
        """A name for what only generated lines keep in; the same, or one that nothing else bears, out."""
        if name not in self.marks:
            self.marks[name] = self.spelling.free(name)
        return self.marks[name]

    def imports(self) -> list[str]:
        """The import lines of all modules asked for out, sorted."""
        return [
            f"import {name}" + (f" as {called}" if called != name else "")
            for name, called in sorted(self.modules.items())
        ]

    def texts(self) -> list[str]:
        """The texts of all helpers asked for out, as they were given in."""
        return [self._text(name) for name in self.known if name in self.helpers]

    def _text(self, name: str) -> str:
        text, modules = self.known[name]
        text = re.sub(rf"\b{name}\b", self.helpers[name], text)
        for module in modules:
            text = re.sub(rf"\b{module}\.", f"{self.module(module)}.", text)
        return text
