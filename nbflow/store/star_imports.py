"""What `from module import *` brings: asked of the module once, in a process of its own, and kept.

A module of the notebook's folder, or one that a cell writes with `%%writefile`, is read and not run. An installed one
is imported where nobody's work is in the way; its answer lies in the user's cache folder and holds for as long as the
files that it came from are the same. Of a module that is not here, or that some other code writes, nothing is known.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from nbflow.analysis.cell import Analysis, analyse
from nbflow.analysis.result import Pairs
from nbflow.analysis.source import parse_cell
from nbflow.model import Notebook, StarImport
from nbflow.plain_files import read_text
from nbflow.store.index_file import cache_folder

PATIENCE = 120
"""Seconds that a module may take to be imported."""

_WRITTEN = re.compile(r"\s*%%(?:writefile|file)[ \t]+(-a[ \t]+|--append[ \t]+)?[\"']?([^\"'\r\n]+?)[\"']?[ \t]*\r?\n")
_FAILED: set[tuple[str, str]] = set()  # modules that cannot be imported as they are: asked once in a process

Stamp = str
"""What tells whether a module is the one that was asked: its file with its time and size; for one of Python's, that."""


class Brought(msgspec.Struct, frozen=True):
    """The answer of a module, and what it holds for."""

    pairs: Pairs
    file: str  # the module's own
    stamp: Stamp  # of that file


def with_stars(notebook: Notebook) -> Notebook:
    """Return a notebook with what its star imports bring, as far as that can be known."""
    modules = dict.fromkeys(module for cell in notebook.cells for module in _starred(analyse(cell.body)))
    answers = ((module, _names(module, notebook)) for module in modules if module != "__main__")
    stars = tuple(StarImport(module, pairs) for module, pairs in answers if pairs is not None)
    return msgspec.structs.replace(notebook, stars=stars) if stars != notebook.stars else notebook


def _starred(analysis: Analysis) -> Iterator[str]:
    return (problem.name for problem in analysis.diagnostics if problem.code == "star-import")


def _names(module: str, notebook: Notebook) -> Pairs | None:
    texts = Texts(notebook)
    if texts.has(module):
        return texts.names(module)
    return None if module.startswith(".") else _installed(module)


# ---------------------------------------------------------------- modules that are read


class Texts:
    """The modules beside a notebook, and those that its cells write."""

    def __init__(self, notebook: Notebook) -> None:
        self.folder = Path(notebook.folder) if notebook.folder else None
        self.cells = [cell.body for cell in notebook.cells]
        self.open: set[str] = set()  # modules that are being read, against circles

    def has(self, module: str) -> bool:
        """Return whether a module is the notebook's own, there or still to be written."""
        return any(self._exists(place) or self._mentions(place) for place in _places(module))

    def names(self, module: str) -> Pairs | None:
        """Return what a module's text says that it brings; None where the text does not say."""
        if module in self.open:
            return None
        self.open.add(module)
        try:
            return next((self._read(module, place) for place in _places(module) if self._is_here(place)), None)
        finally:
            self.open.discard(module)

    def _exists(self, place: str) -> bool:
        return self.folder is not None and (self.folder / place).is_file()

    def _mentions(self, place: str) -> list[str]:
        name = place if place.endswith("/__init__.py") else place.rpartition("/")[2]
        mention = re.compile(rf"(?<!\w){re.escape(name)}\b")
        return [body for body in self.cells if name in body and mention.search(body)]

    def _is_here(self, place: str) -> bool:
        return self._exists(place) or bool(self._mentions(place))

    def _read(self, module: str, place: str) -> Pairs | None:
        text = self._text(place)
        return None if text is None else self._said(module, place, text)

    def text(self, module: str) -> str | None:
        """Return the text of a module of the notebook's own; None where nobody has it, or code may write it."""
        return next((self._text(place) for place in _places(module) if self._is_here(place)), None)

    def _text(self, place: str) -> str | None:
        """Return a module's text as it is when it is imported; None where code may write it that nobody has run."""
        text: str | None = None
        for body in self._mentions(place):
            match = _WRITTEN.match(body)
            if match is None or os.path.normpath(match[2]) != os.path.normpath(place):
                return None
            text = f"{text or ''}{body[match.end() :]}\n" if match[1] else f"{body[match.end() :]}\n"
        if text is not None or self.folder is None:
            return text
        with suppress(OSError, ValueError):
            return read_text(self.folder / place)
        return None

    def _said(self, module: str, place: str, text: str) -> Pairs | None:
        package = module if place.endswith("__init__.py") else module.rpartition(".")[0]
        stars = []
        for inner in _starred(analyse(text)):
            name = _absolute(inner, package)
            pairs = None if name is None else self.names(name) if self.has(name) else _installed(name)
            if pairs is None:
                return None
            stars.append(StarImport(inner, pairs))
        analysis = analyse(text, stars=tuple(stars))
        if analysis.diagnostics:  # names that its text does not show
            return None
        names = _listed(text) if "__all__" in text else [name for name in analysis.writes if name[0] != "_"]
        if names is None:
            return None
        origins = dict(pair for statement in analysis.statements for pair in statement.imports)
        known = {name: _absolute(origin, package) or "" for name, origin in origins.items()}
        return tuple((name, known.get(name) or f"{module}.{name}") for name in sorted({*names}))


def _places(module: str) -> tuple[str, str]:
    path = module.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


def _absolute(name: str, package: str) -> str | None:
    """Return the full name of what a module of a package calls `..name`; None where there is no such package."""
    if not name.startswith("."):
        return name
    with suppress(ImportError, ValueError):
        return importlib.util.resolve_name(name, package)
    return None


def _listed(text: str) -> list[str] | None:
    """Return what `__all__` is set to; None where that is more than one list of texts."""
    tree = parse_cell(text)
    places = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "__all__"] if tree else []
    for statement in tree.body if tree else ():
        if isinstance(statement, ast.Assign) and len(places) == 1 and statement.targets == places:
            with suppress(ValueError):
                return [str(name) for name in ast.literal_eval(statement.value)]
    return None


# ---------------------------------------------------------------- modules that are installed


def _installed(module: str) -> Pairs | None:
    """Return what an installed module brings; None where it is not installed here, or cannot be imported."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and module in sys.modules:
        return _brought(module).pairs
    package = _stamp_of_package(top)
    if package is None:
        return None
    word = sha256(f"{sys.version}\n{sys.prefix}\n{module}\n{package}".encode()).hexdigest()[:32]
    place = cache_folder() / "stars" / f"{word}.json"
    with suppress(OSError, msgspec.DecodeError):
        brought = msgspec.json.decode(place.read_bytes(), type=Brought)
        if brought.stamp == _stamp(brought.file):
            return brought.pairs
    if (module, package) in _FAILED:
        return None
    answer = _ask(module)
    if answer is None:
        _FAILED.add((module, package))
        return None
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            file.write(msgspec.json.encode(answer))
        Path(file.name).replace(place)
    return answer.pairs


def _stamp_of_package(name: str) -> Stamp | None:
    with suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(name)  # of a name without dots: imports nothing
        if spec is not None:
            return _stamp(spec.origin or "")
    return None


def _stamp(file: str) -> Stamp:
    with suppress(OSError):
        about = Path(file).stat()
        return f"{file} {about.st_mtime_ns} {about.st_size}"
    return file  # built in, or frozen


def _ask(module: str) -> Brought | None:
    """Import a module in a process and return what it says; None where that fails or takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        path = [place for place in sys.path if place]
        code = f"import sys; sys.path[:] = {path!r}; from {__name__} import answer; answer({module!r}, {str(answer)!r})"
        with suppress(OSError, subprocess.SubprocessError, msgspec.DecodeError):
            subprocess.run(
                [sys.executable, "-c", code], cwd=folder, timeout=PATIENCE, check=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            return msgspec.json.decode(answer.read_bytes(), type=Brought)
    return None


def answer(module: str, place: str) -> None:
    """Import a module and write what it brings to a file: the process that is asked runs this."""
    Path(place).write_bytes(msgspec.json.encode(_brought(module)))


def _brought(module: str) -> Brought:
    space: dict[str, Any] = {}
    exec(f"from {module} import *", space)
    space.pop("__builtins__", None)
    file = getattr(sys.modules[module], "__file__", None) or ""
    pairs = tuple((name, _origin(name, value, module)) for name, value in sorted(space.items()))
    return Brought(pairs, file, _stamp(file))


def _origin(name: str, value: Any, module: str, modules: Mapping[str, types.ModuleType] = sys.modules) -> str:
    """Return the name by which people know a value that a module hands on: `numpy` for `np`, `pathlib.Path`."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    with suppress(Exception):  # an object of the module's own may answer with anything
        home, known = str(value.__module__), str(value.__qualname__)
        top = home.partition(".")[0]
        if top != module.partition(".")[0]:
            return next(
                f"{place}.{known}" for place in (top, home) if getattr(modules.get(place), known, None) is value
            )
    return f"{module}.{name}"
