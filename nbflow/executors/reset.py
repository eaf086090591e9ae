"""The state of a process that runs one task after another: put back after each, or a reason to run no more.

What a task may leave behind is of three kinds. Some of it is made anew for each task (`__main__`, definitions and
set-up, streams, entropy, context variables, modules of the notebook's own). Some is put back here. All else is only
looked at: where it is not as it was, the process ends, and the next task runs in a fresh one.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextlib
import gc
import importlib.util
import locale
import logging
import operator
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nbflow.task.observe import observer
from nbflow.task.observe.environment import origin_of
from nbflow.task.observe.lookups import LOOKS_AT_PATHS, ImportProbe

SIGNALS = tuple(sorted(signal.valid_signals()))
LIMITS = tuple(sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")}))
WORD = re.compile(r"\w+")
HEAP_TYPE = 1 << 9
COMPARED = 10_000
"""Members of a module's dictionary or list that are compared one by one; of larger ones only the number."""
_SYS = (
    "last_type last_value last_traceback last_exc stdout stderr argv path modules displayhook path_importer_cache"
    " filters meta_path"
)
VOLATILE = {
    "sys": frozenset(_SYS.split()), "warnings": frozenset(_SYS.split()),
    "time": frozenset(("tzname", "timezone", "altzone", "daylight")), "os": LOOKS_AT_PATHS,
}  # fmt: skip
"""Names in modules that a cell sets by merely running, that are put back, or that a probe or an observer looks at."""

KNOWN = frozenset({"nbflow", "matplotlib", "__main__"})
"""Packages whose attributes come late; what matters of them is put back."""

PLOTTING = ("matplotlib", "IPython")

GROWTH = 256 << 20
"""Bytes by which the process may grow."""


class Restored:
    """What is put back after each task."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._environment = dict(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001
        self._path = list(sys.path)
        self._filters: list[Any] = list(warnings.filters)
        self._last_module = next(reversed(sys.modules))
        self._zone = time.tzname
        self._plot: dict[str, Any] | None = None

    def put_back(self) -> None:
        """Put everything back as it was, and let the last task's objects go: what those say in dying nobody hears."""
        sys.stdout = sys.stderr = None
        self._environ()
        sys.path[:] = self._path
        os.chdir(os.sep)
        # known as changed, so that a warning is shown once in each task and not once in all
        filters: Any = warnings.filters
        filters[:] = self._filters
        warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001
        self._forget_local_modules()
        self._plotting()
        self._forget()
        gc.collect()

    def _environ(self) -> None:
        now = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
        for name in now.keys() - self._environment.keys():
            del os.environ[os.fsdecode(name)]
        for name, value in self._environment.items():
            if now.get(name) != value:
                os.environ[os.fsdecode(name)] = os.fsdecode(value)
        if time.tzname != self._zone:
            time.tzset()

    def _forget_local_modules(self) -> None:
        """Forget modules of the notebook's own: each task imports them anew."""
        new = []
        for name in reversed(sys.modules):
            if name == self._last_module:
                break
            new.append(name)
        if not new:
            return
        own = {id(sys.modules.get(name)) for name in observer.local_modules(new)}
        for name in [name for name in new if id(sys.modules.get(name)) in own]:
            del sys.modules[name]
        self._last_module = next(reversed(sys.modules))

    def see_plotting(self) -> None:
        """Take down matplotlib's settings once it may have been loaded: those are put back."""
        matplotlib = sys.modules.get("matplotlib")
        if self._plot is None and matplotlib is not None:
            self._plot = dict(matplotlib.rcParams)

    def _plotting(self) -> None:
        if self._plot is None:
            return
        helpers = sys.modules.get("matplotlib._pylab_helpers")
        if helpers is not None and helpers.Gcf.figs:
            helpers.Gcf.destroy_all()
        settings = sys.modules["matplotlib"].rcParams
        if dict(settings) != self._plot:
            dict.update(settings, self._plot)

    def _forget(self) -> None:
        """Forget what IPython and Python keep of the last cell: its values, its text, its error."""
        shell = self._shell
        shell.user_ns.clear()
        hook, history = shell.displayhook, shell.history_manager
        for name in ("_", "__", "___"):
            setattr(hook, name, "")
        for name in ("_i", "_ii", "_iii", "_i00"):
            setattr(history, name, "")
        history.input_hist_parsed[:] = [""]
        history.input_hist_raw[:] = [""]
        history.output_hist.clear()
        history.output_hist_reprs.clear()
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        shell.last_execution_result = None
        shell.last_execution_succeeded = True


class Watched:
    """What a task must leave as it found it; taken when its definitions and set-up have been replayed."""

    def __init__(self, shell: Any, modules: Iterable[str], text: str) -> None:
        """Take down what is there: of `modules`, which the task's text imports, what the text names by some word."""
        self._probes: dict[str, Callable[[], Any]] = {**PROBES, "IPython": lambda: _hooks_of(shell)}
        self._modules, self._owners = _named(modules, frozenset(WORD.findall(text)))
        self._seen = {name: probe() for name, probe in self._probes.items()}
        self._attributes = {name: _attributes(name, owner) for name, owner in self._owners.items()}
        self._contents = {name: _contents(attributes) for name, attributes in self._attributes.items()}

    def difference(self) -> str:
        """Return what is not as it was, in a word; "" when all is."""
        for name, probe in self._probes.items():
            if probe() != self._seen[name]:
                return name
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                return name
        for name, owner in self._owners.items():
            if not self._same(name, owner):
                return name
        return ""

    def _same(self, name: str, owner: Any) -> bool:
        before, now = self._attributes[name], _attributes(name, owner)
        if len(before) == len(now) and before.keys() == now.keys():
            return all(map(operator.is_, before.values(), now.values())) and self._contains_the_same(name, now)
        # submodules that were imported meanwhile show in their packages
        added = {key for key in now.keys() - before.keys() if isinstance(now[key], types.ModuleType)}
        if now.keys() - added != before.keys() or any(now[key] is not value for key, value in before.items()):
            return False
        self._attributes[name] = now
        return self._contains_the_same(name, now)

    def _contains_the_same(self, name: str, now: Mapping[str, Any]) -> bool:
        before = self._contents[name]
        return all(len(now[key]) == size and (copy is None or _alike(copy, now[key])) for key, size, copy in before)


def _named(modules: Iterable[str], words: frozenset[str]) -> tuple[dict[str, types.ModuleType], dict[str, Any]]:
    """Return the modules that a text imports or speaks of, by name; those and what of them it names too, by path.

    A cell changes what it names: `json.JSONEncoder.default = f` holds the words for the module and for the class.
    """
    names = ["sys", "builtins", *modules, *sorted(words & sys.modules.keys())]
    found = {name: sys.modules[name] for name in names if name in sys.modules and name.partition(".")[0] not in KNOWN}
    owners: dict[str, Any] = {}
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [*found.items()]
    while queue:
        path, owner = queue.pop()
        if id(owner) in seen or path.partition(".")[0] in KNOWN:
            continue
        seen.add(id(owner))
        owners[path] = owner
        inner = [(key, value) for key, value in _attributes(path, owner).items() if key in words]
        queue += [(_path(path, key, value), value) for key, value in inner if _can_change(value)]
    return found, owners


def _can_change(value: Any) -> bool:
    """Return whether something can be set on an object; on classes that are not made by a `class` statement nothing."""
    return bool(value.__flags__ & HEAP_TYPE) if isinstance(value, type) else hasattr(value, "__dict__")


def _path(owner: str, key: str, value: Any) -> str:
    return value.__name__ if isinstance(value, types.ModuleType) else f"{owner}.{key}"


def _attributes(name: str, owner: Any) -> dict[str, Any]:
    attributes: Any = vars(owner)
    if name in VOLATILE:
        attributes = {key: value for key, value in attributes.items() if key not in VOLATILE[name]}
    if name in {"sys", "warnings"}:
        return dict(attributes)
    # what begins with an underscore libraries fill in when they are first used, but for a class's special methods
    is_class = isinstance(owner, type)
    return {
        key: value for key, value in attributes.items()
        if key[:1] != "_" or (is_class and key[-2:] == "__" and key != "__slotnames__")
    }  # fmt: skip


def _contents(values: Mapping[str, Any]) -> list[tuple[str, int, Any]]:
    """Return of each list, dictionary and set its name, its length and, unless it is large, what it holds."""
    return [
        (key, len(value), value.copy() if len(value) <= COMPARED else None)
        for key, value in values.items() if type(value) in {dict, list, set}
    ]  # fmt: skip


def _alike(before: Any, now: Any) -> bool:
    """Return whether two containers of one kind and length hold the same objects."""
    if type(before) is set:
        return not before ^ now
    if type(before) is list:
        return all(map(operator.is_, before, now))
    return all(key in now and now[key] is value for key, value in before.items())


def import_ahead(names: Iterable[str]) -> None:
    """Import these modules unless they are the notebook's own: what they are at first must be known."""
    for name in names:
        if name in sys.modules:
            continue
        with contextlib.suppress(Exception):  # the task's own import will say what is wrong
            spec = importlib.util.find_spec(name.partition(".")[0])
            if spec is not None and (spec.origin is None or origin_of(spec.origin) != "local"):
                importlib.import_module(name)


# ---------------------------------------------------------------- what is watched


def _descriptors() -> tuple[Any, ...]:
    """Return where 0, 1 and 2 lead, and the lowest free number, which is another one when something was left open."""
    free = os.dup(0)
    os.close(free)
    return free, *((status.st_dev, status.st_ino) for status in map(os.fstat, (0, 1, 2)))


def _umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


def _signals() -> tuple[Any, ...]:
    return *map(signal.getsignal, SIGNALS), signal.getitimer(signal.ITIMER_REAL), signal.pthread_sigmask(0, ())


def _threads() -> frozenset[int | None]:
    return frozenset(thread.ident for thread in threading.enumerate())


def _interpreter() -> tuple[Any, ...]:
    return (
        sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile(),
        [id(finder) for finder in sys.meta_path if not isinstance(finder, ImportProbe)],  # ours, for a task at a time
        [*map(id, sys.path_hooks)], gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks),
        id(threading.excepthook), threading.stack_size(), len(sys.warnoptions), sys.get_int_max_str_digits(),
    )  # fmt: skip


def _system() -> tuple[Any, ...]:
    """Return what the system lets this process have."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset()
    return *map(resource.getrlimit, LIMITS), os.nice(0), cores


def _logging() -> tuple[Any, ...]:
    entries = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(logger for logger in entries if isinstance(logger, logging.Logger))]
    settings = [
        (logger.level, len(logger.filters), [*map(id, logger.handlers)], logger.disabled, logger.propagate)
        for logger in loggers
        if logger.level or logger.handlers or logger.filters or logger.disabled or not logger.propagate
    ]
    return logging.root.manager.disable, settings


def _loop() -> Any:
    """Return the event loop, which exists once a cell has awaited something."""
    helpers = sys.modules.get("IPython.core.async_helpers")
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    return id(getattr(helpers, "_asyncio_event_loop", None)), id(policy)


def _pools() -> tuple[Any, ...]:
    """Return whether pools of `concurrent.futures` have been ended for good."""
    names = (("thread", "_shutdown"), ("process", "_global_shutdown"))
    return tuple(getattr(sys.modules.get(f"concurrent.futures.{name}"), flag, False) for name, flag in names)


def _numpy() -> Any:
    numpy = sys.modules.get("numpy")
    return None if numpy is None else (numpy.geterr(), repr(numpy.get_printoptions()), numpy.geterrcall())


def _pandas() -> Any:
    config = sys.modules.get("pandas._config.config")
    kinds = (getattr(sys.modules.get("pandas"), name, None) for name in ("DataFrame", "Series", "Index"))
    accessors = [len(vars(kind)) for kind in kinds if kind is not None]
    return None if config is None else (repr(config._global_config), accessors)  # noqa: SLF001


def _sklearn() -> Any:
    sklearn = sys.modules.get("sklearn")
    return None if sklearn is None or not hasattr(sklearn, "get_config") else sklearn.get_config()


def _torch() -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "is_grad_enabled"):
        return None
    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()


PROBES: dict[str, Callable[[], Any]] = {
    "open files": _descriptors,
    "the umask": _umask,
    "signal handlers": _signals,
    "threads": _threads,
    "the interpreter's settings": _interpreter,
    "the system's limits": _system,
    "the locale": lambda: locale.setlocale(locale.LC_ALL),
    "logging": _logging,
    "the event loop": _loop,
    "pools": _pools,
    "exit hooks": atexit._ncallbacks,  # noqa: SLF001
    "the sockets' time limit": socket.getdefaulttimeout,
    "built-in names": lambda: len(vars(builtins)),
    "NumPy's settings": _numpy,
    "pandas' options": _pandas,
    "torch's settings": _torch,
    "scikit-learn's settings": _sklearn,
    "matplotlib": lambda: "matplotlib" in sys.modules,
}
"""Each by what it is called; those of a library are None until it is loaded."""


def _hooks_of(shell: Any) -> tuple[Any, ...]:
    events = {
        # plotting adds its own at the first figure; all that they do is to show and to close
        name: [id(callback) for callback in callbacks if not getattr(callback, "__module__", "").startswith(PLOTTING)]
        for name, callbacks in shell.events.callbacks.items()
    }
    manager = shell.input_transformer_manager
    return (
        events, len(shell.ast_transformers), len(manager.cleanup_transforms), len(manager.line_transforms),
        len(manager.token_transformers), [len(kind) for kind in shell.magics_manager.magics.values()],
        len(shell.input_transformers_post), shell.custom_exceptions, shell.xmode if hasattr(shell, "xmode") else "",
        len(shell.display_formatter.formatters), shell.InteractiveTB.mode, shell.ast_node_interactivity,
        [_printers(formatter) for formatter in shell.display_formatter.formatters.values()],
    )  # fmt: skip


def _printers(formatter: Any) -> tuple[Any, ...]:
    """Return what a formatter does with kinds of values; plotting adds its own at the first figure."""
    kinds = {**formatter.type_printers, **formatter.deferred_printers, **formatter.singleton_printers}
    own = {kind: do for kind, do in kinds.items() if not getattr(kind, "__module__", "").startswith(PLOTTING)}
    return own, getattr(formatter, "float_precision", ""), getattr(formatter, "pprint", True)


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
