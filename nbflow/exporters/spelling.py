"""Names that a target takes: lower-case letters, digits and underscores, each one once."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Container, Iterable

from nbflow.exporters.interface import Notes


class Spelling:
    """Names given out so far, and those that must not be given."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.names: dict[str, str] = {}
        self.taken = {*taken, *keyword.kwlist}

    def renamed(self, names: Iterable[str], reserved: Container[str], notes: Notes, what: str, target: str) -> None:
        """Give names that the target has for itself another one, and tell."""
        for name in sorted(names):
            if name in reserved:
                new = self.names[name] = next(n for k in range(1, 99) if (n := name + "_" * k) not in self.taken)
                notes.changed(f"the {what} {name} is called {new}: {name} is {target}'s own", name=name)

    def of(self, name: str) -> str:
        """A name of the notebook's data in; what it is called in the target out."""
        return self.names.get(name, name)

    def free(self, word: str) -> str:
        """A word in; a name like it that nothing else bears out."""
        plain = re.sub(r"[^a-z0-9]+", "_", ascii_of(word).lower()).strip("_") or "step"
        plain = plain if plain[0].isalpha() else f"step_{plain}"
        names = [plain, f"{plain}_step", *(f"{plain}_step{number}" for number in range(2, 1000))]
        found = next(name for name in names if name not in self.taken)
        self.taken.add(found)
        return found


def class_name(word: str, kind: str) -> str:
    """A flow's name and a kind (`Flow`) in; a class's name that ends with it out."""
    words = [part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", ascii_of(word)) if part]
    return ("".join(words).removesuffix(kind).lstrip("0123456789") or "Notebook") + kind


def ascii_of(word: str) -> str:
    """Text in; the same without accents and other letters out."""
    return unicodedata.normalize("NFKD", word.replace("ß", "ss")).encode("ascii", "ignore").decode()
