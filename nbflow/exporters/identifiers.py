"""Names that generated lines use: modules, builtins, helpers, marks; names of the notebook's own are avoided."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Container, Iterable, Mapping

from nbflow.exporters.exporter import Notes
from nbflow.model import Flow


class Spelling:
    """Names that are in use so far, and those that must not be used."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.names: dict[str, str] = {}
        self.taken = {*taken, *keyword.kwlist}

    def renamed(self, names: Iterable[str], reserved: Container[str], notes: Notes, what: str, target: str) -> None:
        """Give names that the target has for itself another one, and note it."""
        for name in sorted(names):
            if name in reserved:
                new = self.names[name] = next(n for k in range(1, 99) if (n := name + "_" * k) not in self.taken)
                notes.changed(f"the {what} {name} is called {new}: {name} is {target}'s own", name=name)

    def of(self, name: str) -> str:
        """Return what a name of the notebook's data is called in the target."""
        return self.names.get(name, name)

    def free(self, word: str) -> str:
        """Return a name like a word that nothing else bears."""
        plain = re.sub(r"[^a-z0-9]+", "_", ascii_of(word).lower()).strip("_") or "step"
        plain = plain if plain[0].isalpha() else f"step_{plain}"
        names = [plain, f"{plain}_step", *(f"{plain}_step{number}" for number in range(2, 1000))]
        name = next(name for name in names if name not in self.taken)
        self.taken.add(name)
        return name


def class_name(word: str, kind: str) -> str:
    """Return a class's name made of a flow's name and a kind (`Flow`)."""
    words = [part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", ascii_of(word)) if part]
    return ("".join(words).removesuffix(kind).lstrip("0123456789") or "Notebook") + kind


def ascii_of(word: str) -> str:
    """Return text without accents and other letters."""
    return unicodedata.normalize("NFKD", word.replace("ß", "ss")).encode("ascii", "ignore").decode()


Helpers = Mapping[str, tuple[str, frozenset[str]]]
"""Name -> text, and the modules that it needs."""


class GeneratedImports:
    """What a file's generated lines have asked for so far."""

    def __init__(self, flow: Flow, spelling: Spelling, helpers: Helpers) -> None:
        self.spelling, self.all_helpers = spelling, helpers
        self.modules: dict[str, str] = {}
        self.helpers: dict[str, str] = {}
        self.marks: dict[str, str] = {}
        own = {name for d in flow.definitions for name in d.names if d.origins.get(name) != name}
        data = {name for step in flow.steps for name in (*step.writes, *step.private, *step.targets)}
        self.bound = own | data | {parameter.name for parameter in flow.parameters}

    def module(self, name: str) -> str:
        """Return what a module is called in the file."""
        return self.modules.setdefault(name, f"{name}_module" if name in self.bound else name)

    def builtin(self, name: str) -> str:
        """Return what a builtin function is called in the file."""
        return f"{self.module('builtins')}.{name}" if name in self.bound else name

    def helper(self, name: str) -> str:
        """Return what a helper is called in the file."""
        for module in self.all_helpers[name][1]:
            self.module(module)
        return self.helpers.setdefault(name, f"{name}_of_item" if name in self.bound else name)

    def mark(self, name: str) -> str:
        """Return a name for what only generated lines keep: the same, or one that nothing else bears."""
        if name not in self.marks:
            self.marks[name] = self.spelling.free(name)
        return self.marks[name]

    def imports(self) -> list[str]:
        """Return the import lines of all modules asked for, sorted."""
        return [
            f"import {name}" + (f" as {called}" if called != name else "")
            for name, called in sorted(self.modules.items())
        ]

    def texts(self) -> list[str]:
        """Return the texts of all helpers asked for, as they were passed in."""
        return [self._text(name) for name in self.all_helpers if name in self.helpers]

    def _text(self, name: str) -> str:
        text, modules = self.all_helpers[name]
        text = re.sub(rf"\b{name}\b", self.helpers[name], text)
        for module in modules:
            text = re.sub(rf"\b{module}\.", f"{self.module(module)}.", text)
        return text
