"""What a cell sets in its process that no other process can be given: handlers, patches, what own modules keep.

It is compared by identity before and after the cell. Steps below then run in the same process.
"""

from __future__ import annotations

import copyreg
import logging
import re
import signal
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from nbflow.analysis.source import holds
from nbflow.model import Finding, TaskSpec
from nbflow.store.serialize.inspection import answered, attribute, is_a
from nbflow.task import log_handlers
from nbflow.task.observe.environment import origin_of, top_of
from nbflow.task.process_state import DISPOSITIONS, SHELL_LOGGERS, SIGNALS, getsignal

Taken = Mapping[str, Any]
"""What it is, as people would call it -> the object that stands there."""

FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)
SETTING = re.compile(r"\.\w+\s*[-+*/|]?=(?!=)|\bsetattr\b|\bpatch\b|\bdel\b")
PLAIN = (str, int, float, bool, tuple, list, dict, set)
SHELL = frozenset({"IPython", "ipykernel", "nbflow", "builtins", "traitlets"})


HANDLERS = {f"the handler of {name}": getattr(signal, name) for name in SIGNALS}


class Live(msgspec.Struct, frozen=True):
    """Stands for what a step has set in its process alone: it has no stored form."""

    what: tuple[str, ...]

    def __reduce__(self) -> Any:
        """Raise TypeError: this is the whole meaning of it."""
        raise TypeError(f"{', '.join(self.what)} belongs to the process that has set it")


def take(namespace: Mapping[str, Any], sources: Iterable[str]) -> Taken:
    """Return what stands in the process now where cells may put something of their own.

    Modules are looked through where the code sets an attribute of anything: they hold thousands of names.
    """
    # one that calls nothing travels by value
    taken: dict[str, Any] = {
        place: None if (how := getsignal(number)) in DISPOSITIONS else how for place, number in HANDLERS.items()
    }
    taken |= {f"sys.{name}": getattr(sys, name) for name in ("stdout", "stderr", "stdin")}
    if (numpy := sys.modules.get("numpy")) is not None:
        taken["the handler of numpy's errors"] = numpy.geterrcall()
    if (sqlite := sys.modules.get("sqlite3")) is not None:
        taken |= {_adapter(key[0]): each for key, each in [*sqlite.adapters.items()]}
        taken |= {f"sqlite's converter of {key}": each for key, each in [*sqlite.converters.items()]}
    ways = [(kind, reduce) for kind, reduce in [*copyreg.dispatch_table.items()] if "__main__" in _homes(kind, reduce)]
    taken |= {"copyreg's way of nothing": ()} | {f"copyreg's way of {_name(kind)}": reduce for kind, reduce in ways}
    taken["a handler of no logger"] = ()
    taken |= {f"a handler of the logger {logger.name}": log_handlers.strange(logger) for logger in _own_loggers()}
    for event, callbacks in _events():
        taken |= {f"a callback of IPython's {event}": tuple(callbacks)}
    if not any(holds(SETTING, source) for source in sources):
        return taken
    for owner in _owners(namespace):
        taken |= {f"{_name(owner)}.{name}": value for name, value in _public(owner)}
        if is_a(owner, types.ModuleType):
            classes = {id(value): value for _, value in _public(owner) if is_a(value, type) and _is_of(value, owner)}
            for each in classes.values():
                taken |= {f"{_name(each)}.{name}": value for name, value in _public(each)}
    return taken


def changes(before: Taken, now: Taken) -> tuple[str, ...]:
    """Return what has been put somewhere between two times; what a library does to itself is not a cell's doing.

    Of a library that was not loaded before there is nothing to compare with.
    """
    new = {
        name: value for name, value in now.items()
        if value is not None
        and not (before[name] is value or before[name] == value if name in before else _is_own(name, value))
        and not (_is_watch(value) or _is_watch(before.get(name)))
    }  # fmt: skip
    if not new:
        return ()
    known = {_place(name) for name in before}
    return tuple(
        name for name, value in new.items()
        if _place(name) in known
        and not (
            _is_patch(name)
            and (is_a(value, types.ModuleType) or is_a(before.get(name), PLAIN) or _is_own(name, value))
        )
    )  # fmt: skip


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> str:
    return f"sqlite's adapter of {_name(kind)}"


def _homes(*values: Any) -> set[Any]:
    """Return the modules that things come from."""
    return {attribute(value, "__module__") for value in values}


def _place(name: str) -> str:
    """Return where something is put: a module or class, sqlite, a list of callbacks."""
    return name.rpartition(".")[0] if _is_patch(name) else name.partition(" of ")[0]


def _is_patch(name: str) -> bool:
    return " " not in name and not name.startswith("sys.")


def _is_watch(value: Any) -> bool:
    """Return whether it is a function with which a task is watched while it runs: `os.stat`, `os.access`."""
    return is_a(value, types.FunctionType) and str(attribute(value, "__module__", "")).startswith("nbflow.")


def _is_own(name: str, value: Any) -> bool:
    """Return whether a library has put something of its own there, or a library that is new here has anything."""
    if not _is_patch(name):
        return is_a(value, tuple) and not value  # no callbacks
    module = str(attribute(value, "__module__", "") or "") if is_a(value, FUNCTIONS) else ""
    return top_of(module) == top_of(name) or (not module and not is_a(value, PLAIN)) or name.partition(".")[0] == module


def _events() -> list[tuple[str, list[Callable[..., Any]]]]:
    shell = sys.modules.get("IPython.core.interactiveshell")
    live = attribute(attribute(shell, "InteractiveShell"), "_instance")
    callbacks: Mapping[str, list[Any]] = attribute(attribute(live, "events"), "callbacks") or {}
    # what libraries register for themselves (pyplot flushes its figures) each process registers anew
    return [
        (event, [each for each in functions if attribute(each, "__module__") == "__main__"])
        for event, functions in callbacks.items()
    ]


def _own_loggers() -> list[logging.Logger]:
    """Return the loggers that are no library's."""
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    return [each for each in loggers if top_of(each.name) not in sys.modules and top_of(each.name) not in SHELL_LOGGERS]


def _owners(namespace: Mapping[str, Any]) -> Iterator[Any]:
    """Give the modules and classes that names of the notebook stand for and that come from elsewhere."""
    seen = set()
    for value in list(namespace.values()):
        if not is_a(value, types.ModuleType | type) or id(value) in seen:
            continue
        seen.add(id(value))
        module = value if is_a(value, types.ModuleType) else sys.modules.get(str(attribute(value, "__module__", "")))
        name = str(attribute(module, "__name__", ""))
        file = attribute(module, "__file__") or ""
        if top_of(name) not in SHELL and name != "__main__" and (not file or origin_of(str(file)) != "local"):
            yield value


def _public(owner: Any) -> Iterable[tuple[str, Any]]:
    values: Mapping[str, Any] = answered(lambda: dict(vars(owner)), {})
    return [(name, value) for name, value in values.items() if not name.startswith("_")]


def _is_of(kind: Any, module: Any) -> bool:
    return top_of(str(attribute(kind, "__module__", ""))) == top_of(module.__name__)


def _name(owner: Any) -> str:
    if is_a(owner, types.ModuleType):
        return str(owner.__name__)
    return f"{attribute(owner, '__module__', '')}.{attribute(owner, '__qualname__', owner)}"


def finding(spec: TaskSpec, what: Iterable[str]) -> Finding:
    """Return what is to be said where a cell has set something in its process, and no step below finds it."""
    who = spec.code_name if spec.step.startswith("cell:") else spec.step
    names = ", ".join(what)
    return Finding(
        code="process-state", level="warning", step=spec.step, cell=spec.cell, name=names.partition(", ")[0],
        message=f"{who} sets {names}, which belongs to its process: steps in other processes do not have it",
        fix="set it in a %%setup cell, which each step repeats",
    )  # fmt: skip
