"""What no audit event tells: variables looked up, modules looked for, paths asked for without being opened."""
# ruff: noqa: PTH116
# Paths are text here, as the code that is watched gives them.

from __future__ import annotations

import collections
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nbflow.task.observe.environment import ABSENT, text_id

FOLDER = "folder"
SEEN = "file of "
ADDED = "+"
"""Before the id of a file that was only added to."""

ALL = "*"
"""Among the variables: all of them were read, so that one more would have been read too."""

GIVEN = "set above"
"""In place of a variable's id: what it holds is the flow's own doing."""

SESSION = (
    "JPY_", "JUPYTER_", "IPYTHON", "NBFLOW_", "VSCODE_", "PYDEVD_", "KERNEL_", "PYTEST_", "TERM", "COLORTERM", "SSH_",
    "XDG_SESSION", "DBUS_SESSION", "WINDOWID", "INVOCATION_ID", "JOURNAL_STREAM", "SHLVL", "PWD", "OLDPWD", "COLUMNS",
    "LINES", "GPG_TTY", "TMUX", "STY", "WT_", "PARENT_PID", "CLICOLOR", "FORCE_COLOR", "PAGER", "GIT_PAGER",
    "MPLBACKEND",
)  # fmt: skip
"""How variables begin that a terminal, an editor or a kernel makes for one session: plain runs differ in them too."""


# ---------------------------------------------------------------- variables


def watch_environment(
    read: Callable[[str, str | None], None],
    written: Callable[[str], object],
    whole: Callable[[], None],
    explain: Callable[[str, KeyError], None],
) -> Callable[[], None]:
    """Call back for each variable looked up, for each one set or deleted, and where all are read; return what ends it.

    `explain` may say with a variable's KeyError why there is none.
    `os.environb` is of the same class, its names and values are bytes.
    """
    kind = type(os.environ)
    names = ("__getitem__", "__setitem__", "__delitem__", "__iter__", "__len__", "__repr__")
    originals = {name: kind.__dict__[name] for name in names}
    # variables that an iteration over all of them has named: looked up next and in that order, they are being copied
    copied: collections.deque[Any] = collections.deque()

    def get(self: Any, key: Any) -> Any:
        try:
            value = originals["__getitem__"](self, key)
        except KeyError as error:
            if isinstance(key, (str, bytes)):
                read(os.fsdecode(key), None)
                explain(os.fsdecode(key), error)
            raise
        if copied and copied[0] == key:
            copied.popleft()
            return value
        copied.clear()
        read(os.fsdecode(key), os.fsdecode(value))
        return value

    def put(self: Any, key: Any, value: Any) -> None:
        originals["__setitem__"](self, key, value)
        written(os.fsdecode(key))

    def remove(self: Any, key: Any) -> None:
        originals["__delitem__"](self, key)
        written(os.fsdecode(key))

    def iterate(self: Any) -> Iterator[Any]:
        whole()
        copied.clear()
        for key in originals["__iter__"](self):
            copied.append(key)
            yield key

    def size(self: Any) -> Any:
        whole()
        return originals["__len__"](self)

    def text(self: Any) -> Any:
        whole()
        return originals["__repr__"](self)

    for name, method in zip(names, (get, put, remove, iterate, size, text), strict=True):
        setattr(kind, name, method)

    def end() -> None:
        for name, method in originals.items():
            setattr(kind, name, method)

    return end


def all_variables(variables: Mapping[str, str], given: Iterable[str]) -> dict[str, str]:
    """Return the ids of all variables; `given` are those that the flow itself has set or taken away."""
    ids = {name: text_id(value, name) for name, value in variables.items() if not name.startswith(SESSION)}
    return ids | dict.fromkeys(given, GIVEN) | {ALL: ALL}


# ---------------------------------------------------------------- paths

Looked = Callable[[Any, os.stat_result | None, bool], None]
"""Takes a path, what is there (None: nothing), and whether a link was followed."""


LOOKS_AT_PATHS = ("stat", "lstat", "readlink", "access")
"""Functions of `os` that `watch_looks` stands before."""


def watch_looks(looked: Looked, asked: Callable[[Any, str, str], None]) -> Callable[[], None]:
    """Call back with each path asked for and what is there, and with other questions; return what ends the watch.

    `exists`, `is_file`, `getsize` and their like all end in `os.stat`; `resolve` and `is_symlink` in `os.lstat` and
    `os.readlink`.
    """
    originals = {name: getattr(os, name) for name in LOOKS_AT_PATHS}

    def look(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        return status_of("stat", path, options.get("follow_symlinks", True), arguments, options)

    def look_at_link(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        return status_of("lstat", path, False, arguments, options)

    def status_of(name: str, path: Any, follow: bool, arguments: Any, options: Any) -> os.stat_result:
        try:
            status: os.stat_result = originals[name](path, *arguments, **options)
        except (FileNotFoundError, NotADirectoryError):
            looked(path, None, follow)
            raise
        looked(path, status, follow)
        return status

    def read_link(path: Any, *arguments: Any, **options: Any) -> Any:
        target = originals["readlink"](path, *arguments, **options)
        looked(path, None, False)
        return target

    def access(path: Any, mode: int, *arguments: Any, **options: Any) -> bool:
        answer: bool = originals["access"](path, mode, *arguments, **options)
        asked(path, f"{ACCESS}{mode}", str(answer))
        return answer

    for name, function in zip(LOOKS_AT_PATHS, (look, look_at_link, read_link, access), strict=True):
        setattr(os, name, function)

    def end() -> None:
        for name, function in originals.items():
            setattr(os, name, function)

    return end


def seen_as(status: os.stat_result) -> str:
    """Return what those see of a path who ask `os.stat` about it and do not open it."""
    return FOLDER if stat.S_ISDIR(status.st_mode) else f"{SEEN}{status.st_size} bytes"


TIME, ENTRIES, ACCESS = "time", "entries", "access"


def answer(question: str, path: str) -> str:
    """Return what is said now to a question about a path: the time of a file, what is in a folder, what it permits."""
    try:
        if question == TIME:
            return str(os.stat(path).st_mtime_ns)
        if question == ENTRIES:
            return text_id("\n".join(sorted(_entry(each) for each in os.scandir(path))))
        return str(os.access(path, int(question.removeprefix(ACCESS))))
    except OSError:
        return ABSENT


def _entry(entry: os.DirEntry[str]) -> str:
    status = entry.stat(follow_symlinks=False)
    return f"{entry.name} {status.st_mode} {0 if entry.is_dir() else (status.st_size, status.st_mtime_ns)}"


# ---------------------------------------------------------------- modules


class ImportProbe:
    """Stands before the finders that import modules, and finds none: it is told what is looked for."""

    def __init__(self, sought: Callable[[str], None]) -> None:
        self._sought = sought

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Tell that a module is looked for; find none."""
        del path, target
        self._sought(name)


def watch_imports(sought: Callable[[str], None]) -> Callable[[], None]:
    """Call back with the name of each module that is looked for and not loaded; return what ends the watch."""
    probe: Any = ImportProbe(sought)
    sys.meta_path.insert(0, probe)

    def end() -> None:
        if probe in sys.meta_path:
            sys.meta_path.remove(probe)

    return end
