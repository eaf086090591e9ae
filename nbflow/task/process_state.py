"""What a cell sets in its process: folder, environment, paths, options, filters; taken, compared and put back.

Set-up statements are replayed wherever they are known as such. What a cell sets in any other way (in a function, a
loop, a library) is found by comparing the process with itself, and travels to the steps below as changes.
"""

from __future__ import annotations

import decimal
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

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


def _set_context(values: dict[str, Any]) -> None:
    context = decimal.getcontext()
    context.prec, context.rounding = values["prec"], values["rounding"]


def _environment() -> dict[str, str]:
    """Return the variables, read beside `os.environ`: whoever watches that must not take this for the cell's doing."""
    raw: Mapping[Any, Any] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
    variables = {_text(key): _text(value) for key, value in raw.items()}
    for name in PRIVATE:
        variables.pop(name, None)
    return variables


_text = lru_cache(maxsize=4096)(os.fsdecode)

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
    "decimal": _whole(
        lambda: {"prec": decimal.getcontext().prec, "rounding": decimal.getcontext().rounding}, _set_context
    ),
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


def take() -> Taken:
    """Return the process as it is now, as far as libraries are loaded; takes well under a millisecond."""
    return {name: part.read() for name, part in PARTS.items() if part.module in sys.modules}


def changes(before: Taken, now: Taken, step: str, earlier: Changes = ()) -> Changes:
    """Return what steps have set: those above (`earlier`), and one whose cell made `now` of what was `before`.

    What an import has set by itself is no change: a library that was not loaded before has nothing to compare with.
    """
    new, removals = difference(before, now)
    return (*earlier, (step, new, removals)) if new or removals else earlier


def difference(before: Taken, now: Taken) -> tuple[Taken, dict[str, tuple[str, ...]]]:
    """Return what is set in `now` and was not `before`, and the keys that are gone, part by part.

    Of a list what was put in and taken out: the rest of it differs from one process to the next.
    """
    settings: Taken = {}
    removals: dict[str, tuple[str, ...]] = {}
    for name, values in now.items():
        was = before.get(name)
        if was is None:
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
