"""What a cell sets in its process: folder, environment, paths, options, filters, counters; taken, compared, put back.

Set-up statements are replayed wherever they are known as such. What a cell sets in any other way (in a function, a
loop, a library) is found by comparing the process with itself, and travels to the steps below as changes.
"""

from __future__ import annotations

import decimal
import gc
import locale
import logging
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from nbflow.task import log_handlers

Taken = dict[str, dict[str, Any]]
"""Part of the process -> key -> value."""


Change = tuple[str, Taken, dict[str, tuple[str, ...]]]
"""What one step has set in the process: its name, what it set, and the keys that it took away, part by part.

It is stored, so it is made of Python's own types alone. The step is named and not its place, so that a cell put in
above it changes nothing.
"""

Changes = tuple[Change, ...]
"""What the steps above have set, in document order."""


class Part(msgspec.Struct, frozen=True):
    """One table of the process: how it is read, how a key is set and deleted; `module` must be loaded."""

    module: str
    read: Callable[[], dict[str, Any]]
    put: Callable[[str, Any], Any]
    drop: Callable[[str], Any]


def _whole(read: Callable[[], Any], put: Callable[[Any], Any], module: str = "sys") -> Part:
    """Return a part that is one value."""
    return Part(module, lambda: {"": read()}, lambda _, value: put(value), lambda _: None)


def _options(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables of options, as pandas has them, flat."""
    options: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            options |= _options(value, f"{prefix}{name}.")
        else:
            options[f"{prefix}{name}"] = value
    return options


def _pandas() -> dict[str, Any]:
    from pandas._config import config

    return _options(config._global_config)  # type: ignore[attr-defined]  # noqa: SLF001  # get_option warns for old names


def _set_pandas(name: str, value: Any) -> None:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.set_option(name, value)


def _matplotlib() -> dict[str, Any]:
    from matplotlib import rcParams

    return {name: value for name, value in dict.items(rcParams) if name not in BACKEND}


def _set_matplotlib(name: str, value: Any) -> None:
    from matplotlib import rcParams

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rcParams.update({name: value})  # type: ignore[misc, dict-item, unused-ignore]  # any name of `_matplotlib`


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001  # as `filterwarnings` does


def _numpy(name: str) -> Any:
    import numpy as np

    return getattr(np, name)


CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _context() -> dict[str, Any]:
    """Return the settings of decimal arithmetic; its signals by name."""
    context = decimal.getcontext()
    settings = {name: getattr(context, name) for name in CONTEXT}
    for kind, signals in (("traps", context.traps), ("flags", context.flags)):
        settings |= {f"{kind} {signal.__name__}": raised for signal, raised in signals.items()}
    return settings


def _set_context(name: str, value: Any) -> None:
    context = decimal.getcontext()
    kind, _, signal = name.partition(" ")
    if signal:
        getattr(context, kind)[getattr(decimal, signal)] = value
    else:
        setattr(context, name, value)


CATEGORIES = ("LC_COLLATE", "LC_CTYPE", "LC_MONETARY", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME")


def _locale() -> dict[str, str]:
    return {name: locale.setlocale(getattr(locale, name)) for name in CATEGORIES if hasattr(locale, name)}


def _umask() -> int:
    """Return the mask of new files' rights, which the system tells only in exchange for another one."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


DISPOSITIONS = (signal.SIG_DFL, signal.SIG_IGN)
"""What may be done with a signal besides calling a function of the process's own."""

getsignal: Callable[[int], Any] = vars(signal)["_signal"].getsignal
"""As `signal.getsignal`, which makes an enum of each answer."""

SIGNALS = tuple(name for name in ("SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM") if hasattr(signal, name))
"""Signals that neither a kernel nor a worker has a use for."""


def _signals() -> dict[str, int]:
    """Return the signals that are ignored, or end the process; those that call something stay where they are."""
    handlers = {name: getsignal(getattr(signal, name)) for name in SIGNALS}
    return {name: int(how) for name, how in handlers.items() if how in DISPOSITIONS and isinstance(how, int)}


def _set_signal(name: str, value: int) -> None:
    signal.signal(getattr(signal, name), signal.Handlers(value))


QUIET = {"level": logging.NOTSET, "disabled": False, "propagate": True}
"""How a logger is that nobody has set anything on."""


def _loggers() -> dict[str, Any]:
    """Return what is set on loggers, by logger and setting; of the root's handlers `logging.basicConfig` says all."""
    settings: dict[str, Any] = {" disable": logging.root.manager.disable, " level": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] not in SHELL_LOGGERS:
            own = vars(logger)
            settings |= {f"{name} {each}": own[each] for each in QUIET if own.get(each, QUIET[each]) != QUIET[each]}
            if handlers := log_handlers.described(logger):
                settings[f"{name} handlers"] = handlers
    return settings


def _set_logger(key: str, value: Any) -> None:
    name, _, setting = key.rpartition(" ")
    if setting == "disable":
        logging.disable(value)
    elif setting == "level":
        logging.getLogger(name or None).setLevel(value)
    elif setting == "handlers":
        log_handlers.put(logging.getLogger(name), value)
    else:
        setattr(logging.getLogger(name), setting, value)


def _drop_logger(key: str) -> None:
    _set_logger(key, QUIET.get(key.rpartition(" ")[2], ()))


def _sklearn() -> dict[str, Any]:
    from sklearn import get_config

    return dict(get_config())


def _set_sklearn(name: str, value: Any) -> None:
    from sklearn import set_config

    set_config(**{name: value})


def _colormaps() -> dict[str, Any]:
    """Return the colour maps that have been registered, by name."""
    from matplotlib import colormaps

    own: dict[str, Any] = colormaps._cmaps  # type: ignore[attr-defined]  # noqa: SLF001  # what it gives are copies
    return {name: own[name] for name in own.keys() - colormaps._builtin_cmaps}  # type: ignore[attr-defined]  # noqa: SLF001


def _drop_colormap(name: str) -> None:
    from matplotlib import colormaps

    colormaps.unregister(name)


def _set_collection(values: tuple[bool, tuple[int, int, int], int]) -> None:
    is_enabled, threshold, debug = values
    (gc.enable if is_enabled else gc.disable)()
    gc.set_threshold(*threshold)
    gc.set_debug(debug)


def _register_colormap(name: str, value: Any) -> None:
    from matplotlib import colormaps

    colormaps.register(value, name=name, force=True)


def _dummies() -> tuple[int, int]:
    """Return where sympy's counter of dummy symbols begins in this process, and how many it has counted."""
    dummy: Any = sys.modules["sympy.core.symbol"].Dummy
    return dummy._base_dummy_index, dummy._count  # noqa: SLF001


def _set_dummies(value: tuple[int, int]) -> None:
    dummy: Any = sys.modules["sympy.core.symbol"].Dummy
    dummy._base_dummy_index, dummy._count = value  # noqa: SLF001


def _environment() -> dict[str, str]:
    """Return the variables, read beside `os.environ`: whoever watches that must not take this for the cell's doing."""
    raw: Mapping[Any, Any] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
    variables = {_text(key): _text(value) for key, value in raw.items()}
    for name in PRIVATE:
        variables.pop(name, None)
    return variables


_text = lru_cache(maxsize=4096)(os.fsdecode)

SHELL_LOGGERS = frozenset({"asyncio", "tornado", "traitlets", "IPython", "ipykernel", "jupyter_client", "matplotlib"})
"""Loggers that a kernel and a worker set up each in its own way."""

PRIVATE = frozenset({"COLUMNS", "LINES", "PYTEST_CURRENT_TEST"})
BACKEND = frozenset({"backend", "backend_fallback", "interactive"})

PARTS: Mapping[str, Part] = {
    "folder": _whole(os.getcwd, os.chdir),
    "environment": Part(
        "sys", _environment,
        os.environ.__setitem__, lambda key: os.environ.pop(key, None),
    ),
    "sys.path": _whole(lambda: list(sys.path), lambda value: sys.path.__setitem__(slice(None), value)),
    "recursion limit": _whole(sys.getrecursionlimit, sys.setrecursionlimit),
    "warnings": _whole(lambda: list(warnings.filters), _set_filters),
    "decimal": Part("decimal", _context, _set_context, lambda _: None),
    "locale": Part(
        "locale", _locale, lambda name, value: locale.setlocale(getattr(locale, name), value), lambda _: None
    ),
    "new files' rights": _whole(_umask, os.umask),
    "time zone": _whole(lambda: time.tzname, lambda _: time.tzset()),
    "signals": Part("signal", _signals, _set_signal, lambda _: None),
    "garbage collection": _whole(
        lambda: (gc.isenabled(), gc.get_threshold(), gc.get_debug()), _set_collection
    ),
    "thread switching": _whole(sys.getswitchinterval, sys.setswitchinterval),
    "digits of integers": _whole(sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "socket timeout": _whole(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "loggers": Part("logging", _loggers, _set_logger, _drop_logger),
    "scikit-learn": Part("sklearn", _sklearn, _set_sklearn, lambda _: None),
    "colour maps": Part("matplotlib.cm", _colormaps, _register_colormap, _drop_colormap),
    "dummy symbols": _whole(_dummies, _set_dummies, "sympy.core.symbol"),
    "matplotlib": Part("matplotlib", _matplotlib, _set_matplotlib, lambda _: None),
    "pandas": Part("pandas", _pandas, _set_pandas, lambda _: None),
    "numpy errors": Part(
        "numpy", lambda: dict(_numpy("geterr")()), lambda key, value: _numpy("seterr")(**{key: value}), lambda _: None
    ),
    "numpy printing": Part(
        "numpy", lambda: {k: v for k, v in _numpy("get_printoptions")().items() if k != "override_repr"},
        lambda key, value: _numpy("set_printoptions")(**{key: value}), lambda _: None,
    ),
}  # fmt: skip


LISTS = frozenset({"sys.path", "warnings"})
"""Parts that are one list."""

ENVIRONMENT = "environment"

UNKEPT = None
"""In place of a variable's value in what is stored: it is a secret, which each process has of its own or not at all."""


def take() -> Taken:
    """Return the process as it is now, as far as libraries are loaded; takes well under a millisecond."""
    return {name: part.read() for name, part in PARTS.items() if part.module in sys.modules}


def changes(before: Taken, now: Taken, step: str, earlier: Changes, is_secret: Callable[[str, str], bool]) -> Changes:
    """Return what steps have set: those above (`earlier`), and one whose cell made `now` of what was `before`.

    What an import has set by itself is no change: a library that was not loaded before has nothing to compare with.
    Of variables that are a secret, by name and value, only the name is told.
    """
    new, removals = difference(before, now)
    if ENVIRONMENT in new:
        variables = new[ENVIRONMENT].items()
        new[ENVIRONMENT] = {name: UNKEPT if is_secret(name, value) else value for name, value in variables}
    return (*earlier, (step, new, removals)) if new or removals else earlier


def variables_of(change: Change) -> tuple[str, ...]:
    """Return the variables that a step has set or taken away, without those whose values are not kept."""
    _, settings, removals = change
    kept = (name for name, value in settings.get(ENVIRONMENT, {}).items() if value is not UNKEPT)
    return (*kept, *removals.get(ENVIRONMENT, ()))


def unkept_of(change: Change) -> tuple[str, ...]:
    """Return the variables that a step has set and whose values are not kept."""
    return tuple(name for name, value in change[1].get(ENVIRONMENT, {}).items() if value is UNKEPT)


def difference(before: Taken, now: Taken) -> tuple[Taken, dict[str, tuple[str, ...]]]:
    """Return what is set in `now` and was not `before`, and the keys that are gone, part by part.

    Of a list what was put in and taken out: the rest of it differs from one process to the next.
    """
    settings: Taken = {}
    removals: dict[str, tuple[str, ...]] = {}
    for name, values in now.items():
        was = before.get(name)
        if was is None or not differs(was, values):
            continue
        new = {key: value for key, value in values.items() if key not in was or differs(was[key], value)}
        keys = tuple(sorted(key for key in was if key not in values))
        if new:
            settings[name] = {k: _edit(was[k], v) if name in LISTS and k in was else v for k, v in new.items()}
        if keys:
            removals[name] = keys
    return settings, removals


def _edit(before: list[Any], now: list[Any]) -> Any:
    """Return how a list became another one: what stands in front now, what is gone, what stands behind."""
    rest = [each for each in before if each in now]
    for at in range(len(now) - len(rest) + 1):
        if rest and now[at : at + len(rest)] == rest:
            return (now[:at], [each for each in before if each not in now], now[at + len(rest) :])
    return now


def applied(part: str, value: Any, before: Any) -> Any:
    """Return what a key of a part holds once a change has set it, where it held `before`."""
    if part not in LISTS or not isinstance(value, tuple):
        return value
    front, removals, back = value
    return [*front, *(each for each in before if each not in removals), *back]


def put(change: Change) -> None:
    """Set in the process what one step has set."""
    _, settings, removals = change
    for name, values in settings.items():
        part = PARTS[name]
        if part.module not in sys.modules:
            __import__(part.module)
        there = part.read() if name in LISTS else {}
        for key, value in values.items():
            if name == ENVIRONMENT and value is UNKEPT:
                continue  # this process has it of its own, or a step that needs it asks for it with --secret
            part.put(key, applied(name, value, there.get(key)))
    for name, keys in removals.items():
        for key in keys:
            PARTS[name].drop(key)


def only(change: Change, part: str) -> Change:
    """Return of a change what it does to one part."""
    step, settings, removals = change
    return step, {k: v for k, v in settings.items() if k == part}, {k: v for k, v in removals.items() if k == part}


def differs(one: Any, other: Any) -> bool:
    """Return whether two values of one key are not the same."""
    if one is other:
        return False
    try:
        return bool(one != other)
    except KeyboardInterrupt:
        raise
    except BaseException:  # values of options may be anything
        return True
