"""The first place where two values part, and what the rules that look for it may ask of the walk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

DIFFERS, NO_EQUALITY = "differs", "no equality"


@dataclass(frozen=True)
class Difference:
    """The first place where two values part: `where` in the value, what stands on either side, and of which sort."""

    where: str
    left: str
    right: str
    kind: str = DIFFERS

    def __str__(self) -> str:
        if self.kind == NO_EQUALITY:
            return f"at {self.where}: no equality for {self.left}"
        return f"at {self.where}: {self.left} != {self.right}"


class Walk(Protocol):
    """What a rule may ask of the walk that calls it: each gives the first difference, or None."""

    def compare(self, a: Any, b: Any, where: str) -> Difference | None: ...

    def first(self, pairs: Iterable[tuple[Any, Any, str]]) -> Difference | None: ...

    def attributes(self, a: Any, b: Any, names: Sequence[str], where: str) -> Difference | None: ...

    def sequence(self, a: Any, b: Any, where: str) -> Difference | None: ...

    def nothing(self, a: Any, b: Any, where: str) -> Difference: ...


def show(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # a user's repr may raise anything
        text = f"<repr raised {type(error).__name__}>"
    return f"{text if len(text) <= 200 else text[:197] + '...'} ({type(value).__qualname__})"


def of(*homes: str) -> Callable[[Any], bool]:
    """Whether a value's class, or one that it derives from, is `module:name`."""

    def matches(value: Any) -> bool:
        return any(f"{base.__module__}:{base.__qualname__}" in homes for base in type(value).__mro__)

    return matches
