"""Modules of the notebook's own are compiled from their source whenever they are imported.

Python takes compiled code from `__pycache__` where the source has the second and the size that it had when it was
compiled. A module that was edited twice within a second, or whose time was set back, is then imported as it was; and
what a task saw of it, its file's content, would say otherwise.
"""

from __future__ import annotations

import types
from importlib.machinery import SourceFileLoader

from nbflow.task.observe.environment import origin_of

ORIGINAL = SourceFileLoader.get_code


def _get_code(self: SourceFileLoader, fullname: str) -> types.CodeType | None:
    """Return a module's code as the original does; compile the notebook's own from their source, and cache nothing."""
    path = self.get_filename(fullname)
    if origin_of(path) != "local":
        return ORIGINAL(self, fullname)
    code: types.CodeType = self.source_to_code(self.get_data(path), path)
    return code


def distrust() -> None:
    """Let this process import the notebook's own modules from their source from now on."""
    SourceFileLoader.get_code = _get_code  # type: ignore[method-assign,assignment]


def trust() -> None:
    """Let this process import as it did before."""
    SourceFileLoader.get_code = ORIGINAL  # type: ignore[method-assign]
