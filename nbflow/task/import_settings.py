"""What installed modules set in the process while they are imported: variables, filters of warnings, loggers' levels.

It is nobody's doing: a second execution of a cell imports nothing, and a worker has imported it all before. No cell is
said to have changed it, wherever in the cell the import stands.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nbflow.task.observe.environment import origin_of
from nbflow.task.process_state import Taken

BOOTSTRAP = "<frozen importlib._bootstrap>"


class ImportSettings:
    """Follows what is set during imports, from `attach` to `detach`."""

    def __init__(self) -> None:
        self._variables: dict[str, str] = {}
        self._filters: list[Any] = []
        self._levels: dict[str, Any] = {}
        self._ends: list[Callable[[], None]] = []

    def attach(self) -> None:
        """Stand where variables and filters are set."""
        kind: Any = type(os.environ)
        set_variable, add_filter = kind.__setitem__, warnings._add_filter  # type: ignore[attr-defined]  # noqa: SLF001
        set_level = logging.Logger.setLevel

        def setting(environ: Any, name: str, value: str) -> None:
            set_variable(environ, name, value)
            if _is_importing():
                self._variables[name] = value
            else:
                self._variables.pop(name, None)

        def adding(*item: Any, append: bool) -> None:
            add_filter(*item, append=append)
            if _is_importing():
                self._filters.append(item)

        def levelling(logger: logging.Logger, level: int | str) -> None:
            set_level(logger, level)
            if _is_importing():
                self._levels[f"{logger.name} level"] = logger.level
            else:
                self._levels.pop(f"{logger.name} level", None)

        kind.__setitem__ = setting
        logging.Logger.setLevel = levelling  # type: ignore[method-assign, assignment]
        warnings._add_filter = adding  # type: ignore[attr-defined]  # noqa: SLF001
        self._ends = [
            lambda: setattr(kind, "__setitem__", set_variable), lambda: setattr(warnings, "_add_filter", add_filter),
            lambda: setattr(logging.Logger, "setLevel", set_level),
        ]  # fmt: skip

    def detach(self) -> None:
        """Leave the process as it was."""
        while self._ends:
            self._ends.pop()()

    def added(self, part: str, value: Any) -> Any:
        """Return what a part is to hold with what imports have set there."""
        return [*value, *self._filters] if part == "warnings" else value

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow imports within the block, unless they are followed already."""
        if self._ends:
            yield
            return
        self.attach()
        try:
            yield
        finally:
            self.detach()

    def without(self, taken: Taken) -> Taken:
        """Return what was taken of the process without what imports have set by themselves."""
        if not self._variables and not self._filters and not self._levels:
            return taken
        settings = dict(taken)
        if "environment" in settings:
            variables = settings["environment"]
            settings["environment"] = {n: v for n, v in variables.items() if self._variables.get(n) != v}
        if "loggers" in settings:
            settings["loggers"] = {n: v for n, v in settings["loggers"].items() if self._levels.get(n) != v}
        if "warnings" in settings:
            settings["warnings"] = {"": [each for each in settings["warnings"][""] if each not in self._filters]}
        return settings


def _is_importing() -> bool:
    """Return whether our caller was called by an installed module's own code, run because the module is imported."""
    frame = sys._getframe(2)  # noqa: SLF001  # frames are reached in no other way
    while frame.f_code.co_filename.endswith(("warnings.py", "_collections_abc.py", "os.py")) and frame.f_back:
        frame = frame.f_back
    file = frame.f_code.co_filename
    if origin_of(file) not in ("standard", "installed") and not file.startswith("<frozen"):
        return False
    above = frame.f_back
    while above is not None:
        if above.f_code.co_filename == BOOTSTRAP:
            return True
        above = above.f_back
    return False
