"""Where the modules that code imports come from: the notebook's own folders, an installation, nowhere."""
# ruff: noqa: PTH112, PTH113, PTH118, PTH119, PTH120, PTH123
# Paths are text here, as modules have them.

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder

from nbflow.task.observe.environment import ABSENT, SITE, top_of

INSTALLED = "installed"
"""In place of a module's file: it comes from an installation."""

IMPORTS = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)|import[ \t]+([^\n#;]+))"
    r"|\b(?:find_spec|import_module|__import__)\(\s*['\"]([\w.]+)['\"]",
    re.MULTILINE,
)

MODULE = re.compile(r"\w+(?:\.\w+)*")


def imports_of(source: str) -> set[str]:
    """Return the names of modules that a source says it imports or looks for."""
    names: set[str] = set()
    for package, listed, asked in IMPORTS.findall(source):
        names |= {package, asked, *(each.split()[0] for each in listed.split(",") if each.strip())}
    return {name.strip(".") for name in names if MODULE.fullmatch(name.strip("."))}


@lru_cache(maxsize=1024)
def imports_in(path: str, identity: str) -> frozenset[str]:
    """Return the same of a source file; `identity` is the id of its content."""
    del identity
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return frozenset(imports_of(file.read()))
    except OSError:
        return frozenset()


def own_place(name: str, entries: Iterable[str]) -> str:
    """Return where an import finds a module in folders of the notebook's own, as Python looks for it; ABSENT if not.

    A package comes before a module of its name, and a folder without `__init__.py` after all other folders.
    """
    folders = [*entries]
    place = ABSENT
    for part in name.split("."):
        place = _place_in(part, folders)
        if place == ABSENT:
            return ABSENT
        folders = [os.path.dirname(place) if os.path.basename(place) == "__init__.py" else place]
    return place


def _place_in(part: str, folders: Iterable[str]) -> str:
    spare = ABSENT
    for folder in folders:
        whole = os.path.join(folder, part)
        files = (os.path.join(whole, "__init__.py"), *(whole + suffix for suffix in EXTENSION_SUFFIXES), whole + ".py")
        for file in files:
            if os.path.isfile(file):
                return file
        if not spare and os.path.isdir(whole):
            spare = whole
    return spare


def entries_of(places: Mapping[str, str], folder: str) -> list[str]:
    """Return the folders that modules are looked for in, `folder` first: those in which some of them were found."""
    entries = [folder]
    for name, place in places.items():
        if place in (ABSENT, INSTALLED):
            continue
        whole = os.path.join(folder, place)
        levels = name.count(".") + 1 + (os.path.basename(whole) == "__init__.py")
        for _ in range(levels):
            whole = os.path.dirname(whole)
        if whole not in entries:
            entries.append(whole)
    return entries


def places_of(names: Iterable[str], loaded: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return where each module that code looks for comes from; `loaded`: those of the notebook's own, with their files.

    What comes with Python has been loaded by a kernel before it sees the notebook; `__main__` is the notebook itself.
    """
    wanted = {name for name in names if top_of(name) not in sys.stdlib_module_names and name != "__main__"}
    wanted |= {part for name in loaded if name != "__main__" for part in _packages(name)}
    relative = {name: os.path.relpath(path, folder) for name, path in loaded.items() if name in wanted}
    entries = entries_of(relative, folder)
    places = {}
    for name in sorted(wanted):
        place = own_place(name, entries)
        if place != ABSENT:
            places[name] = os.path.relpath(place, folder)
        elif "." not in name:
            places[name] = INSTALLED if name in sys.modules or is_installed(name) else ABSENT
    return places


def _packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: at + 1]) for at in range(len(parts))]


def is_installed(name: str) -> bool:
    """Return whether an installation has a top-level module of this name."""
    return PathFinder.find_spec(name, [path for path in sys.path if any(site in path for site in SITE)]) is not None


def changed_place(places: Mapping[str, str], folder: str) -> tuple[str, str, str] | None:
    """Return the first module that would come from elsewhere now: its name, its place then and now."""
    entries = entries_of(places, folder)
    for name, place in places.items():
        now = own_place(name, entries)
        if now != ABSENT:
            now = os.path.relpath(now, folder)
        elif place == INSTALLED:
            continue  # which version of it is there is asked of the distributions
        elif place == ABSENT:
            now = INSTALLED if is_installed(name) else ABSENT
        if now != place:
            return name, place, now
    return None
