"""Files below the notebook's folder that a step is known to read: by its text, and by what it has read before."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from nbflow.analysis.files import named_paths
from nbflow.model import Finding, Flow, Observations, Step
from nbflow.task.observe.environment import ABSENT, file_id, folder_id
from nbflow.task.observe.modules import INSTALLED, entries_of, imports_in, imports_of, own_place

MANY = 10_000
"""Files of one folder beyond which nobody guesses that a step wants them all."""


def sources_of(flow: Flow, step: Step) -> list[str]:
    """Return the text of a step, and of what is replayed before it."""
    options = [text for text in (step.options.condition, step.options.until) if text]
    return [step.source, *options, *(flow.definitions[order].source for order in step.definitions)]


def known_files(
    folder: str, sources: Iterable[str], values: Mapping[str, Any], seen: Sequence[Observations]
) -> tuple[str, ...]:
    """Return the paths of files that exist below a folder and that code with these texts is known to read.

    `values` are parameters, of which those count that the code names; `seen` is what was observed of it before.
    """
    texts = [*sources]
    paths = {path for text in texts for path in _written(text)}
    words = {word for text in texts for word in _identifiers(text)}
    paths |= {os.fspath(value) for name, value in values.items() if name in words and isinstance(value, str | Path)}
    paths |= {path for each in seen for path in (*each.files, *each.written)}
    modules = {name for text in texts for name in imports_of(text)}
    for each in seen:
        modules |= each.imports.keys()
    places = {name: place for each in seen for name, place in each.imports.items()}
    found = {*_files_of(folder, paths), *_modules(folder, modules, places)}
    return tuple(sorted(found))


def is_withheld(path: str) -> bool:
    """Return whether a file is one that holds secrets: it never enters a datastore."""
    name = PurePath(path).name
    return name.startswith(".env") or name in (".netrc", ".pgpass") or name.endswith((".pem", ".key"))


def missing_files(folder: str, seen: Observations, sent: Iterable[str]) -> tuple[str, ...]:
    """Return files that exist below a folder and were looked for in vain where only those that were `sent` are."""
    vain = {path for path, identity in seen.files.items() if identity == ABSENT}
    vain |= {look.partition(" ")[2] for look, said in seen.looks.items() if not said or said == "False"}
    listed = {
        path for path, identity in seen.files.items()
        if path.endswith("/") and identity != folder_id(os.path.join(folder, path))  # noqa: PTH118
    }  # fmt: skip
    modules = {name for name, place in seen.imports.items() if place in (ABSENT, INSTALLED)}
    vain -= seen.written.keys()
    listed |= {f"{path}/" for path in vain if not path.endswith("/")}  # of what is a folder here
    found = {*_files_of(folder, vain), *_content(folder, listed)}
    found |= {*_modules(folder, modules, seen.imports)}
    return tuple(sorted(found - {*sent}))


def withheld_files(folder: str, seen: Observations) -> tuple[str, ...]:
    """Return files with secrets that exist in a folder and were looked for in vain where they are not sent."""
    vain = (path for path, identity in seen.files.items() if identity == ABSENT and is_below(path))
    return tuple(path for path in vain if is_withheld(path) and (Path(folder) / path).is_file())


def beyond(flow: Flow, steps: Iterable[Step], place: str) -> list[Finding]:
    """Return a finding for each step that names files beyond the notebook's folder: those do not travel to a place."""
    findings = []
    for step in steps:
        texts = {path for source in sources_of(flow, step) for path in _written(source)}
        files = sorted(path for path in texts if _is_beyond(flow.notebook.folder, path))
        if files:
            findings.append(Finding(
                code="file-elsewhere", step=step.name, cell=step.cell,
                message=f"{step.label} names {', '.join(files[:3])}{' and others' if len(files) > 3 else ''}, which "
                f"lies beyond the notebook's folder as it is named: it is not sent to {place}",
                fix="name a file below the folder from there (data/x.csv), read it in a step here, or use a URL",
            ))  # fmt: skip
    return findings


def _is_beyond(folder: str, path: str) -> bool:
    return "/" in path and not is_below(path) and not path.startswith("/dev/") and _is_file(folder, path)


def is_below(path: str) -> bool:
    """Return whether a path leads below the folder that it counts from, as it is written."""
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts


@lru_cache(maxsize=1024)
def _written(source: str) -> frozenset[str]:
    tree = _parsed(source)
    return named_paths(tree) if tree is not None else frozenset()


@lru_cache(maxsize=1024)
def _identifiers(source: str) -> frozenset[str]:
    tree = _parsed(source)
    nodes = ast.walk(tree) if tree is not None else ()
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))


def _parsed(source: str) -> ast.AST | None:
    """Return a cell's syntax tree, without its lines for IPython."""
    lines = ("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError):
        return None


def _files_of(folder: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield those of some paths that are files below a folder; of a folder that was looked through, its files."""
    for path in paths:
        if path.endswith("/"):
            yield from _content(folder, [path])
        elif len(path) < 1000 and is_below(path) and _is_file(folder, path):
            yield PurePath(path).as_posix()


def _is_file(folder: str, path: str) -> bool:
    try:
        return (Path(folder) / path).is_file() and not is_withheld(path)
    except (OSError, ValueError):  # a text that no file can be named by
        return False


def _content(folder: str, listed: Iterable[str]) -> Iterator[str]:
    """Yield the files right in some folders; not those of the notebook's own, where everything else stands too."""
    for path in listed:
        if not is_below(path) or PurePath(path) == PurePath():
            continue
        try:
            names = sorted(os.listdir(Path(folder) / path))  # noqa: PTH208  # names, as `folder_id` has them
        except OSError:
            continue
        for name in names[:MANY]:
            if _is_file(folder, f"{path}{name}"):
                yield f"{path}{name}"


def _modules(folder: str, names: Iterable[str], places: Mapping[str, str]) -> Iterator[str]:
    """Yield the source files of modules that stand below a folder, and of those that they import."""
    entries = entries_of(places, folder)
    queue, known = [*names], set()
    while queue:
        name = queue.pop()
        place = own_place(name, entries)
        if place == ABSENT or place in known:
            continue
        known.add(place)
        for file in _sources(Path(place)):
            path = os.path.relpath(file, folder)
            if is_below(path):
                yield PurePath(path).as_posix()
                queue += imports_in(str(file), file_id(str(file))) if file.suffix == ".py" else ()
        queue += [name.rpartition(".")[0]] if "." in name else []


def _sources(place: Path) -> Iterator[Path]:
    """Yield a module's file; of a package all its modules, since they import each other by relative names."""
    root = place.parent if place.name == "__init__.py" else place
    if not root.is_dir():
        yield place
        return
    yield from (path for path in sorted(root.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
