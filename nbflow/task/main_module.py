"""A task's `__main__`, and the names that its code has looked for in vain, which nothing in its text had shown."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any

SAYS = re.compile(
    r"(?:name|variable) '(\w+)' is not defined|Table with name (\w+) does not exist|relation '(\w+)' was not found"
    r"|(?:attribute|import name) '(\w+)' (?:on|from) (?:<module )?'__main__'|'__main__' has no attribute '(\w+)'"
)
"""What errors say of a name that is missing: Python's own, of pandas, duckdb and polars, and of `__main__`."""


class Main(types.ModuleType):
    """The main module of a task, which keeps the names that it was asked for and does not have."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__("__main__")
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError, as every module does for a name that it does not have."""
        if not name.startswith("_"):
            self.asked.add(name)
        raise AttributeError(f"module '__main__' has no attribute {name!r}", name=name, obj=self)


def missing_names(error: BaseException | None) -> Iterator[str]:
    """Yield the names that an error says to be missing, or one that it came from does."""
    followed = set[int]()
    while error is not None and id(error) not in followed:
        followed.add(id(error))
        if isinstance(error, NameError) and isinstance(error.name, str):
            yield error.name
        else:
            yield from (name for names in SAYS.findall(_text(error)) for name in names if name)
        error = error.__cause__ or error.__context__


def _text(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # of the user's own class
        return ""
