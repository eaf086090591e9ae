"""What programs that a cell starts (`!command`, `subprocess`) do to files: the folder before them and after them.

Nobody tells what another process opens. What it has written is seen by comparing the notebook's folder with itself;
what it may have read are the files that the command and the cell name.
"""
# ruff: noqa: PTH111, PTH112, PTH113, PTH118, PTH120, PTH207
# Paths are text, as the audit hook gives them.

from __future__ import annotations

import glob
import itertools
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from nbflow.store.serialize.inspection import answered, attribute

STRINGS = re.compile(r"""(?:"((?:[^"\\\n]|\\.)+)"|'((?:[^'\\\n]|\\.)+)')""")
WORDS = re.compile(r"[^\s'\"`;|&<>(){}=,:$]+")
SCANS = re.compile(r'"inner":"([^"]*)"')
"""The files of a lazy frame, in the text of its plan."""

MOST_MATCHES = 1000
MOST_FILES = 5000
"""So many files are looked at; in a larger folder what programs write is not seen."""

Facts = tuple[int, int]
"""A file's time of change and size."""


class Programs:
    """The programs of one task: what they were told, and the folder as it was before the first of them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._before: dict[str, Facts] | None = None
        self._texts: list[str] = []

    def start(self, *arguments: Any) -> None:
        """Take down that a program is about to start with these arguments."""
        if self._before is None:
            self._before = files_below(self._folder)
        for argument in arguments:
            parts = argument if isinstance(argument, list | tuple) else [argument]
            self._texts += [os.fsdecode(part) for part in parts if isinstance(part, str | bytes)]

    @property
    def words(self) -> set[str]:
        """The words of all that they were told."""
        return {word for text in self._texts for word in WORDS.findall(text)}

    @property
    def started(self) -> bool:
        """Whether there was any."""
        return self._before is not None

    def changes(self) -> tuple[set[str], set[str]]:
        """Return the files that have been written since the first program started, and those that are gone."""
        before = self._before
        if before is None or len(before) >= MOST_FILES:
            return set(), set()
        now = files_below(self._folder)
        return {path for path, facts in now.items() if before.get(path) != facts}, before.keys() - now.keys()


def files_below(folder: str) -> dict[str, Facts]:
    """Return the files in a folder and below, each with its time and size; hidden folders are left out."""
    files: dict[str, Facts] = {}
    folders = [folder]
    while folders and len(files) < MOST_FILES:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith((".", "__")):
                    folders.append(entry.path)
                continue
            try:
                status = entry.stat()
            except OSError:
                continue
            files[entry.path] = (status.st_mtime_ns, status.st_size)
    return files


def named_files(sources: Iterable[str], folder: str, words: Iterable[str] = ()) -> Iterator[str]:
    """Give the files that `words` or strings in the code name."""
    yield from filter(os.path.isfile, _named(sources, folder, words))


def named_folders(sources: Iterable[str], folder: str, words: Iterable[str] = ()) -> Iterator[str]:
    """Give the same, and what is in the folders that strings in the code name, with those folders."""
    for path in _named(sources, folder, words):
        if os.path.isfile(path):
            yield path
        elif os.path.isdir(path) and not folder.startswith(path):
            yield path
            yield from itertools.islice(files_below(path), MOST_MATCHES)


def _named(sources: Iterable[str], folder: str, words: Iterable[str]) -> Iterator[str]:
    texts = {a or b for source in sources for a, b in STRINGS.findall(source)} | {*words}
    for text in texts:
        if len(text) > 300 or "\\" in text or "://" in text:
            continue
        path = os.path.join(folder, os.path.expanduser(text))
        yield from glob.glob(path)[:MOST_MATCHES] if "*" in text else [path]


def paths_in(value: Any, folder: str) -> Iterator[str]:
    """Give the files and folders that a value reads when it is used: an Arrow dataset, a lazy frame of polars."""
    kind = type(value)
    package = str(attribute(kind, "__module__", "")).partition(".")[0]
    paths: list[str] = []
    if package == "pyarrow" and kind.__name__.endswith("Dataset"):
        paths = [str(path) for path in attribute(value, "files") or ()]
    elif package == "polars" and kind.__name__ == "LazyFrame":
        paths = SCANS.findall(answered(lambda: _plan_of(value), ""))
    for path in paths:
        whole = os.path.join(folder, path)
        if "*" in path:
            yield os.path.dirname(whole)
        yield from glob.glob(whole)[:MOST_MATCHES] if "*" in path else [whole]


def _plan_of(frame: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may be written in another way one day: then no file is found
        return str(frame.serialize(format="json"))
