"""What an execution depends on, seen while it runs, and whether that still holds.

Files come from Python's audit hook. A library that opens files in compiled code (polars, Arrow) escapes it; so every
string in the cell that names a file counts too, and so do the files that values say they read. Environment variables
count when the nearest frame outside the standard library is the user's: what libraries look up for themselves is their
distribution's business. Reading the whole environment reads each variable, and that there are no others.
"""
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH114, PTH116, SLF001
# Paths are text here: the audit hook gives them so. Frames are only reached by `_getframe`.

from __future__ import annotations

import itertools
import logging
import os
import re
import stat
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import msgspec

from nbflow.analysis.source import holds
from nbflow.model import Asked, Observations, TaskSpec
from nbflow.store.index_file import is_index
from nbflow.store.serialize.inspection import attribute, is_a
from nbflow.task.bytecode import distrust
from nbflow.task.context import Context, current
from nbflow.task.observe import lookups
from nbflow.task.observe.environment import (
    ABSENT,
    OURS,
    distributions_of,
    file_id,
    is_installed,
    origin_of,
    path_id,
    text_id,
    top_of,
)
from nbflow.task.observe.lookups import (
    ADDED,
    ENTRIES,
    FOLDER,
    TIME,
    all_variables,
    answer,
    seen_as,
    watch_environment,
    watch_imports,
    watch_looks,
)
from nbflow.task.observe.modules import imports_in, imports_of, places_of
from nbflow.task.observe.paths import LINK, counts_for_all, is_inside, is_temporary, links_on, whole_path
from nbflow.task.observe.subprocesses import WORDS, Programs, named_files, named_folders, paths_in

SOCKET_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
PROCESS_EVENTS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.forkpty")
TRANSPARENT = ("IPython", "pexpect", "ptyprocess")
"""Packages that start processes on the user's word: `!command`."""

START_UP = ("sitecustomize", "usercustomize")
CLOCK = re.compile(
    r"\.(?:now|utcnow|today)\s*\(|\btime\.(?:time|time_ns|ctime|asctime|localtime|gmtime|strftime)\s*\("
    r"|(?<![\w.])time\s*\(\s*\)"
)
"""Reading the time of day, which no audit event tells; timers such as `perf_counter` measure and decide nothing."""

ZONE = re.compile(r"time|date|zone|tz|now|today|cron|calendar", re.IGNORECASE)
"""Code in which times of day may be those of the local zone: compiled code looks up TZ, which no event tells."""

LOOKING = ("genericpath.py", "posixpath.py", "ntpath.py", "pathlib.py", "_local.py", "_abc.py", "pathlib/__init__.py")
"""Files of the standard library through which a path is asked for on the user's word."""

ASKING = (
    *LOOKING, "os.py", "_collections_abc.py", "string.py", "string/__init__.py", "collections/__init__.py", "copy.py",
    "configparser.py", "shutil.py", "getpass.py",
)  # fmt: skip
"""The same for variables."""

SEARCHING = ("importlib/__init__.py", "importlib/util.py", "pkgutil.py")
"""The same for modules."""

READING = (
    *LOOKING,
    "codecs.py",
    "io.py",
    "tempfile.py",
    "shutil.py",
    "fileinput.py",
    "linecache.py",
    "json/__init__.py",
)
"""The same for files that count only where the user opens them."""

NOBODY = ("\0",)
"""The same for what only the user's own call counts for."""

NAMES_OF_LOOKS = frozenset({"stat", "lstat", "getmtime", "getatime", "getctime"})
"""What of a file the user may have asked for the time with; `exists`, `is_file`, `getsize` and so on do not tell it."""

COMPILED_READERS = frozenset({"polars", "pyarrow", "duckdb", "deltalake", "lance", "datafusion"})
"""Packages that read folders in compiled code."""


class Hook:
    """The process's one audit hook, which cannot be taken out again: idle unless an observer listens."""

    def __init__(self) -> None:
        self.listener: Callable[[str, tuple[Any, ...]], None] | None = None
        self.foreign: set[str] = set()  # names of loaded modules that are known not to be local
        self._installed = False
        self._loaded = (0, "")
        self._local: tuple[str, ...] = ()  # names of modules
        self._sources: dict[str, tuple[Any, str]] = {}  # module -> its spec, and its source's id when it was new

    def install(self) -> None:
        """Have it there, once."""
        if not self._installed:
            self._installed = True
            tempfile.gettempdir()  # decided here: asked first inside the hook, it may wait for itself
            sys.addaudithook(self._call)
            distrust()

    def local_modules(self) -> dict[str, str]:
        """Return the loaded modules that are the notebook's own; look through all only when one was loaded."""
        loaded = (len(sys.modules), next(reversed(sys.modules)))
        if loaded != self._loaded:
            self._loaded, self._local = loaded, tuple(local_modules(list(sys.modules)))
        return local_modules(self._local)

    def source_id(self, name: str, path: str, since: int) -> str:
        """Return the id of what was loaded from a module's source file, which the file may hold no longer.

        One that is new here, and whose file was changed after `since` (ns), may have been loaded before or after that.
        """
        spec = getattr(sys.modules.get(name), "__spec__", None)  # another one after a reload
        source = self._sources.get(name)
        if source is None or source[0] is not spec:
            source = spec, file_id(path) if _changed_at(path) < since else "changed-while-read"
            self._sources[name] = source
        return source[1]

    def note_modules(self) -> None:
        """Take down what modules of the notebook's own hold that were loaded just now."""
        for name, path in self.local_modules().items():
            self.source_id(name, path, sys.maxsize)

    def _call(self, event: str, arguments: tuple[Any, ...]) -> None:
        listener = self.listener
        if listener is not None:
            listener(event, arguments)


HOOK = Hook()


@contextmanager
def unheard() -> Iterator[None]:
    """Let nothing within the block count: it is our own work."""
    before, HOOK.listener = HOOK.listener, None
    try:
        yield
    finally:
        HOOK.listener = before


class Observer:
    """Watches one task between `start` and `stop`."""

    def __init__(
        self,
        spec: TaskSpec,
        ours: frozenset[str] = frozenset(),
        *,
        fresh: bool = False,
        before_effect: Callable[[str], None] | None = None,
    ) -> None:
        """Leave out `ours`, variables that a worker sets; `fresh`: no module of the notebook's own is loaded yet.

        `before_effect` is called before the cell does anything outside its process, with what that is.

        Looking at every loaded module would copy thousands of memory pages in a forked process, 0.2 s with pandas.
        """
        self.spec = spec
        self.fresh = fresh
        self.ours = ours | {*spec.secrets, *spec.withheld}
        self.folder = _real(spec.folder)
        self.read: dict[str, tuple[int, int] | None] = {}  # path -> (mtime, size) when opened; None: absent
        self.written: dict[str, bool] = {}  # path -> whether it was only added to
        self.removed: set[str] = set()
        self.programs = Programs(self.folder)
        self.known: dict[str, str] = {}  # path -> id, where it had to be taken before the file changed
        self.variables: dict[str, str] = {}
        # secrets that it does not get -> the step above that has set it, "" where another step declares it
        self.refused: dict[str, str] = dict.fromkeys(spec.withheld, "")
        self.asked_in_vain: set[str] = set()  # of those
        self.volatile: set[str] = set()
        self._own_files = {spec.code_name, *(f"cell {each.position}" for each in spec.replay)}
        self._set: set[str] = set()
        self._last_module = ""
        self._started_ns = 0
        self._busy = threading.local()
        self.seen: dict[str, str] = {}  # path that was asked for and not opened -> what was there
        self.looks: dict[tuple[str, str], str] = {}  # other questions about paths -> what was said
        self.links: dict[str, str] = {}
        self.sought: set[str] = set()  # modules
        self.whole = False  # all variables were read
        self._read_back: set[str] = set()  # of what was written
        self._passing: set[str] = set()  # folders that were made where all is soon gone
        self._folders: set[str] = set()  # that were made
        self._ends: list[Callable[[], None]] = []
        self._before_effect = before_effect or (lambda _: None)
        self._context: Context | None = None
        self._handlers: dict[str, Callable[..., None]] = {
            "open": self._on_open,
            "os.listdir": self._on_list,
            "os.scandir": self._on_scan,
            "os.mkdir": self._on_mkdir,
            "os.rename": self._on_rename,
            "os.remove": self._on_remove,
            "sqlite3.connect": self._on_database,
            **dict.fromkeys(SOCKET_EVENTS, self._on_socket),
            **dict.fromkeys(PROCESS_EVENTS, self._on_process),
        }

    # ------------------------------------------------------------ begin and end

    def start(self) -> None:
        """Watch from now on."""
        HOOK.install()
        self._last_module = next(reversed(sys.modules))
        self._started_ns = time.time_ns()
        self._context = current.context
        self._ends = [
            watch_environment(
                self._called(self._on_variable), self._set.add, self._called(self._on_whole_environment),
                self._explain,
            ),
            watch_looks(self._called(self._on_look), self._called(self._on_question)),
            watch_imports(self._called(self._on_search)),
        ]  # fmt: skip
        HOOK.listener = self._hear

    def given(self, variables: Iterable[str]) -> None:
        """Leave out variables that the steps above have set: those are inputs."""
        self._set.update(variables)

    @property
    def own_variables(self) -> frozenset[str]:
        """The variables that the flow itself has set: those of the steps above, and the task's own."""
        return frozenset(self._set)

    def paused(self) -> AbstractContextManager[None]:
        """Let nothing within the block count: it is our own work."""
        return unheard()

    def stop(self, namespace: dict[str, Any] | None = None) -> Observations:
        """End the watch; return what was seen of a task that ran in this namespace."""
        HOOK.listener = None
        if not self._ends:
            return Observations()
        while self._ends:
            self._ends.pop()()
        sources = [self.spec.source, *(each.source for each in self.spec.replay)]
        namespace = namespace or {}
        new = self.new_modules()
        local = local_modules(new) if self.fresh else HOOK.local_modules()
        tops = {name for name in new if "." not in name}
        spaces = (sys.modules[name].__dict__ for name in local if name in sys.modules)
        imports = self._named(sources, local.values())
        names = touched([namespace, *spaces]) | {top_of(name) for name in imports}
        self._see_strings(sources, named_folders if COMPILED_READERS & names else named_files)
        self._see_values(namespace)
        if any(holds(CLOCK, source) for source in sources):
            self.volatile.add("clock")
        if any(holds(ZONE, source) for source in sources):
            self._note_variable("TZ", os.environ.get("TZ"))
        for path in local.values():
            self._note_links(path)
        ids = {path: self._read_id(path) for path in self.read if path not in self.written or path in self.known}
        # What it has looked for in vain and then made is no input where it has read it back: that is what it went on
        # with. Where it has not, another execution would find it, and go another way.
        made = self._read_back | self._folders | {path for path in self.written if _is_below(path, self._folders)}
        ids = {
            path: identity
            for path, identity in (self.seen | ids).items()
            if identity not in (ABSENT, FOLDER) or path not in made
        }
        files = {self._name(path): identity for path, identity in ids.items()}
        files |= {self._name(path): HOOK.source_id(name, path, self._started_ns) for name, path in local.items()}
        files |= {self._name(path): LINK + target for path, target in self.links.items()}
        plain = {name: _file_of(name) or path for name, path in local.items()}
        return Observations(
            files=dict(sorted(files.items())),
            distributions=distributions_of(tops | names),
            environment=dict(sorted(self._environment().items())),
            looks={f"{word} {self._name(path)}": said for (word, path), said in sorted(self.looks.items())},
            imports=places_of(imports | self.sought, plain, self.folder),
            written=self.written_now(),
            modules=tuple(sorted(filter(is_installed, tops))),
            volatile=tuple(sorted(self.volatile)),
            asked=self._asked(),
        )

    def written_now(self) -> dict[str, str]:
        """Return the files that the task has written or removed, each with what it holds now."""
        return {
            self._name(path): self._written_id(path)
            for path in sorted({*self.written, *self.removed})
            if self._is_left(path)
        }

    def _asked(self) -> tuple[Asked, ...]:
        """Return what the code asked nbflow itself; of its own store without the place, which may move."""
        questions = [*self._context.asked] if self._context is not None else []
        own = self.spec.store
        return tuple(msgspec.structs.replace(one, store="") if one.store == own else one for one in questions)

    def reads_now(self) -> tuple[str, ...]:
        """Return the files that the task has read or asked for so far."""
        paths = {*self.read, *self.seen, *(path for _, path in self.looks)}
        return tuple(sorted(map(self._name, paths)))

    def new_modules(self) -> list[str]:
        """Return the modules loaded since the start: `sys.modules` keeps the order of loading."""
        return list(itertools.takewhile(lambda name: name != self._last_module, reversed(sys.modules)))

    def add_volatile(self, what: str) -> None:
        """Note why another execution would not do the same."""
        self.volatile.add(what)

    def _called(self, handler: Callable[..., None]) -> Callable[..., None]:
        """Return what hands a call on to a handler, with its frame, unless it is our own work that has called."""

        def call(*arguments: Any) -> None:
            if HOOK.listener is None or getattr(self._busy, "now", False):
                return
            self._busy.now = True
            try:
                frame = sys._getframe(1)
                while frame.f_back is not None and frame.f_code.co_filename == lookups.__file__:
                    frame = frame.f_back
                handler(frame, *arguments)
            finally:
                self._busy.now = False

        return call

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        handler = self._handlers.get(event)
        if handler is None or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            handler(*arguments)
        finally:
            self._busy.now = False

    # ------------------------------------------------------------ files

    def _on_open(self, path: Any, mode: Any, flags: Any) -> None:
        full = self._full(path)
        if full is None or not isinstance(flags, int):
            return
        access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        if access == os.O_RDONLY and self._is_fleeting(full):
            return
        if not self._counts(full, sys._getframe(2), READING):
            return
        self._note_links(path)
        if access == os.O_RDONLY:
            self._note_read(full)
            return
        if not self._is_scratch(full):
            self._before_effect(self._name(full))
        if access == os.O_RDWR and not flags & (os.O_TRUNC | os.O_EXCL):
            self._note_read(full)
        self._note_written(full, added=bool(flags & os.O_APPEND))
        del mode

    def _counts(self, full: str, frame: types.FrameType | None, through: tuple[str, ...]) -> bool:
        """Return whether a path counts that was opened or asked for within these files' code."""
        return counts_for_all(full, self.folder) or self._by_user(frame, through)

    def _note_links(self, path: Any) -> None:
        for link, target in links_on(os.fsdecode(path), self.folder):
            self.links.setdefault(link, target)

    def _note_read(self, path: str) -> None:
        if path in self.written:
            self._read_back.add(path)
        if path in self.written or path in self.read:
            return
        try:
            status = os.stat(path)
        except OSError:
            self.read[path] = None
            return
        if not os.path.isdir(path):
            self.read[path] = (status.st_mtime_ns, status.st_size)

    def _note_written(self, path: str, *, added: bool) -> None:
        if path in self.read and path not in self.written:
            self.known.setdefault(path, self._read_id(path))
        self.written[path] = added and self.written.get(path, True)
        self._read_back.discard(path)

    def _on_list(self, path: Any, *_: Any) -> None:
        self._list(path, sys._getframe(3))

    def _list(self, path: Any, frame: types.FrameType) -> None:
        # Python's import looks into every folder of the path: that is not the user's
        if "importlib" in frame.f_code.co_filename or _is_ours(frame):
            return
        full = self._full("." if path is None else path)
        if full is not None and (not is_temporary(full) or is_inside(full, self.folder)):
            self._note_links("." if path is None else path)
            self.read.setdefault(full.rstrip("/") + "/", (0, 0))
            self.known.setdefault(full.rstrip("/") + "/", path_id(full.rstrip("/") + "/"))

    def _on_database(self, path: Any = None, *_: Any) -> None:
        if path != ":memory:" and not is_index(path):
            self._before_effect("a data base")
            self.volatile.add("database")

    def _on_mkdir(self, path: Any, *_: Any) -> None:
        full = self._full(path)
        if full is not None and self._is_scratch(full):
            self._passing.add(full)
        elif full is not None:
            self._before_effect(self._name(full))
            self._folders.add(full)

    def _is_scratch(self, full: str) -> bool:
        """Return whether a path lies where all is soon gone."""
        return is_temporary(full) and not is_inside(full, self.folder)

    def _on_scan(self, path: Any, *_: Any) -> None:
        """Note also the sizes and times of what is in a folder: its entries tell them without another event."""
        frame = sys._getframe(3)
        self._list(path, frame)
        full = self._full("." if path is None else path)
        if full is not None and not _is_ours(frame) and self._by_user(frame, NOBODY):
            self.looks.setdefault((ENTRIES, full), answer(ENTRIES, full))

    def _on_look(self, frame: types.FrameType, path: Any, status: os.stat_result | None, follow: bool) -> None:
        word = self._word(frame)
        full = self._full(path) if word is not None else None
        if full is None or self._is_fleeting(full):
            return
        self._note_links(path)
        if not follow and os.path.islink(path):
            return  # what is there is the link
        if full not in self.read and full not in self.written:
            if status is None:
                self.read[full] = None
            else:
                self.seen.setdefault(full, seen_as(status))
        if status is not None and stat.S_ISREG(status.st_mode) and word in NAMES_OF_LOOKS and full not in self.written:
            self.looks.setdefault((TIME, full), str(status.st_mtime_ns))

    def _on_question(self, frame: types.FrameType, path: Any, question: str, said: str) -> None:
        full = self._full(path) if self._word(frame) is not None else None
        if full is not None and full not in self.written and not self._is_fleeting(full):
            self._note_links(path)
            self.looks.setdefault((question, full), said)

    def _is_fleeting(self, full: str) -> bool:
        """Return whether a path has been made by the task itself, or meanwhile, where all is soon gone."""
        return self._is_scratch(full) and _changed_at(full) >= self._started_ns

    def _word(self, frame: types.FrameType | None) -> str | None:
        """Return the name of what the user has called to ask about a path, None where the user has not asked."""
        word = "stat"
        while frame is not None:
            file = frame.f_code.co_filename
            origin = origin_of(file)
            if file in self._own_files or file.startswith("<ipython-input") or origin == "local":
                return word
            if not file.endswith(LOOKING) and (origin != "none" or file.startswith(OURS)):
                return None
            word = frame.f_code.co_name
            frame = frame.f_back
        return None

    def _on_rename(self, old: Any, new: Any, *_: Any) -> None:
        source, target = self._full(old), self._full(new)
        for full in (source, target):
            if full is not None and not self._is_scratch(full):
                self._before_effect(self._name(full))
        if source is not None and self.written.pop(source, None) is None and os.path.isfile(source):
            self.removed.add(source)
        if source is not None and target is not None and os.path.isfile(source):
            self._note_written(target, added=False)

    def _on_remove(self, path: Any, *_: Any) -> None:
        full = self._full(path)
        if full is not None and not self._is_scratch(full):
            self._before_effect(self._name(full))
        if full is not None and self.written.pop(full, None) is None and os.path.isfile(full):
            self.removed.add(full)

    def _full(self, path: Any) -> str | None:
        """Return the whole path of what was opened, None when it does not count."""
        if isinstance(path, int) or path is None:
            return None
        try:
            text = os.fsdecode(path)
        except (TypeError, ValueError):
            return None
        return whole_path(text, self.folder, self.spec.store)

    def _name(self, path: str) -> str:
        inside = path.startswith(self.folder + os.sep)
        return path[len(self.folder) + 1 :].replace(os.sep, "/") if inside else path

    def _read_id(self, path: str) -> str:
        """Return the id of what was read from a file: that of no content at all when the file has changed since."""
        if path in self.known:
            return self.known[path]
        opened = self.read[path]
        if opened is None:
            return ABSENT
        try:
            status = os.stat(path)
        except OSError:
            return "changed-while-read"
        return file_id(path) if (status.st_mtime_ns, status.st_size) == opened else "changed-while-read"

    def _is_left(self, path: str) -> bool:
        """Return whether it tells anything that a path was written, or else removed."""
        if path not in self.written:
            return not os.path.exists(path)
        if is_temporary(path) and not is_inside(path, self.folder) and not os.path.exists(path):
            return False
        return path.endswith("/") or not os.path.isdir(path)

    def _written_id(self, path: str) -> str:
        """Return what a written or removed file holds now, marked when it was only added to: logs grow."""
        if path.endswith("/"):
            return FOLDER
        return f"{ADDED if self.written.get(path) else ''}{file_id(path)}"

    def _see_strings(self, sources: list[str], named: Callable[..., Iterable[str]]) -> None:
        """Find files that the cell or its programs name, and those that programs wrote: the audit hook sees none."""
        changes, removals = self.programs.changes()
        self.written |= dict.fromkeys(filter(None, map(self._full, changes - self.written.keys())), False)
        self.removed |= {full for full in map(self._full, removals) if full is not None}
        words = self.programs.words
        if self.programs.started:
            words |= {word for word in WORDS.findall(self.spec.source) if "*" not in word}
        logs = open_logs()
        for path in named(sources, self.folder, words):
            if _real(path) not in logs:
                self._see_named(path)

    def _see_named(self, path: str) -> None:
        """Note a file or folder that is only known by its name."""
        full = whole_path(path, self.folder, self.spec.store)
        if full is None:
            return
        if os.path.isdir(full):
            if full not in self._folders and not any(_is_below(file, [full]) for file in self.written):
                self.read.setdefault(full + "/", (0, 0))
                self.known.setdefault(full + "/", path_id(full + "/"))
            return
        if full in self.read or full in self.written:
            return
        self._note_links(path)
        # Nobody tells whether a named file was read or written: its time does.
        status = os.stat(full)
        if status.st_mtime_ns >= self._started_ns:
            self.written[full] = False
        else:
            self.read[full] = (status.st_mtime_ns, status.st_size)

    def _see_values(self, namespace: dict[str, Any]) -> None:
        """Find files that values read when they are used, in compiled code, and folders that they name."""
        for value in list(namespace.values()):
            for path in filter(os.path.exists, paths_in(value, self.folder)):
                self._see_named(path)
            if self._passing and is_a(value, str | PurePath):
                full = os.path.realpath(value)
                if full in self._passing and os.path.isdir(full):
                    self.written[full + "/"] = False

    # ------------------------------------------------------------ modules, variables, acts

    def _named(self, sources: list[str], local: Iterable[str]) -> set[str]:
        """Return the names of modules that the cell, what was replayed and local modules import."""
        names = {name for source in sources for name in imports_of(source)}
        return names.union(*(imports_in(path, file_id(path)) for path in local))

    def _on_variable(self, frame: types.FrameType, name: str, value: str | None) -> None:
        if name not in self.variables and self._by_user(frame, ASKING):
            self._note_variable(name, value)

    def _explain(self, name: str, error: KeyError) -> None:
        """Say with a variable's KeyError that it is a secret, which the step has not declared."""
        if name in self.refused and HOOK.listener is not None:
            self.asked_in_vain.add(name)
            setter = self.refused[name]
            why = f"what {setter} has set it to is not kept" if setter else "another step declares it"
            error.add_note(f"{name} is a secret: {why}, and {self.spec.code_name} does not declare it")
            error.fix = self.fix_for(name)  # type: ignore[attr-defined]  # told with the failure

    def fix_for(self, name: str) -> str:
        """Return how the step comes by a secret."""
        known = self.spec.step if not self.spec.step.startswith("cell:") else "NAME"
        export = f"export {name}=… and " if self.refused[name] else ""
        return f"{export}declare it: %%step {known} --secret {name}"

    def _note_variable(self, name: str, value: str | None) -> None:
        if name not in self._set and name not in self.ours:
            self.variables.setdefault(name, text_id(value, name))

    def _on_whole_environment(self, frame: types.FrameType) -> None:
        self.whole = self.whole or self._by_user(frame, ASKING)

    def _environment(self) -> dict[str, str]:
        """Return the ids of the variables that were read, of all of them where they were read as a whole."""
        if not self.whole:
            return self.variables
        variables = {name: value for name, value in os.environ.items() if name not in self.ours}
        return all_variables(variables, self._set | self.ours) | self.variables

    def _on_search(self, frame: types.FrameType, name: str) -> None:
        if name not in self.sought and self._by_user(frame, SEARCHING):
            self.sought.add(name)

    def _by_user(
        self, frame: types.FrameType | None, through: tuple[str, ...] = (), *, otherwise: bool = False
    ) -> bool:
        """Return whether the nearest frame outside `through`, the standard library and nbflow is the user's."""
        # From the inside outwards. With `through`, the files that may lie between the user and what is watched, the
        # first frame beyond them decides: a library that looks something up does so for itself. Without, the user may
        # stand further out behind the standard library, but not behind an installed package.
        while frame is not None:
            file = frame.f_code.co_filename
            if file in self._own_files or file.startswith("<ipython-input"):
                return True
            origin = origin_of(file)
            if through:
                if not file.endswith(through) and origin != "none":
                    return origin == "local"
            elif origin == "local":
                return True
            elif origin == "installed" and not any(f"{os.sep}{name}{os.sep}" in file for name in TRANSPARENT):
                return False
            frame = frame.f_back
        return otherwise

    def _on_socket(self, *arguments: Any) -> None:
        # a name is the address of a socket on this machine: pools and managers talk through those
        address = arguments[-1]
        if not isinstance(address, (str, bytes)) or not os.fsdecode(address).startswith(("/", "\0")):
            self._before_effect("the network")
            self.volatile.add("socket")

    def _on_process(self, *arguments: Any) -> None:
        # `%%bash` starts its program in a thread of its own
        alone = threading.current_thread() is not threading.main_thread()
        if self._by_user(sys._getframe(2), otherwise=alone):
            self._before_effect("files, by a program")
            self.volatile.add("subprocess")
            self.programs.start(*arguments)


def _is_ours(frame: types.FrameType) -> bool:
    """Return whether nbflow itself has called, as it looks for datastores: that is not the user's."""
    return frame.f_code.co_filename.startswith(OURS)


def local_modules(names: Iterable[str]) -> dict[str, str]:
    """Return those of the loaded modules that are neither installed, standard nor ours, with their source files."""
    modules = {}
    foreign = HOOK.foreign
    for name in set(names) - foreign:
        module = sys.modules.get(name)
        path = getattr(module, "__file__", None)
        if name not in START_UP and isinstance(path, str) and path.endswith(".py") and origin_of(path) == "local":
            modules[name] = _real(path)
        else:
            foreign.add(name)
    return modules


def open_logs() -> frozenset[str]:
    """Return the files that handlers of `logging` write to: set-up names them, and nobody has read them for that."""
    handlers = (reference() for reference in [*logging._handlerList])  # type: ignore[attr-defined]
    return frozenset(_real(each.baseFilename) for each in handlers if isinstance(each, logging.FileHandler))


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _real(path: str) -> str:
    return os.path.realpath(path)


def _file_of(name: str) -> str | None:
    """Return the file of a loaded module under the name by which it was found, links and all."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else None


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path != folder and is_inside(path, folder) for folder in folders)


def warming() -> Iterator[None]:
    """Look at what is loaded once, in a process that tasks are forked from: they find it looked up. In pieces."""
    HOOK.install()
    yield
    for name in list(sys.modules):
        if "." not in name:
            distributions_of([name])
            yield


def touched(namespaces: list[dict[str, Any]]) -> set[str]:
    """Return the top-level modules that the values in namespaces, or the values' types, come from."""
    tops: set[str] = set()
    for namespace in namespaces:
        for value in list(namespace.values()):
            kind = type(value)
            is_definition = issubclass(kind, (type, types.FunctionType))
            own = attribute(
                value, "__name__" if issubclass(kind, types.ModuleType) else "__module__" if is_definition else ""
            )
            tops.add(top_of(own if type(own) is str else str(attribute(kind, "__module__", ""))))
    return tops
