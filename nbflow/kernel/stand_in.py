"""A function that stands in for a method of the shell or its kernel, until it is taken out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class StandIn:
    """Puts a function into a method's place; `make` is given the method, which the function calls."""

    def __init__(self, owner: Any, method: str, make: Callable[[Any], Callable[..., Any]]) -> None:
        self._owner = owner
        self._method = method
        self._make = make
        self._function: Callable[..., Any] | None = None
        self._before: Any = None  # what somebody else had put there; the class's method otherwise

    def attach(self) -> None:
        """Put the function there; a second time changes nothing."""
        if self._function is None:
            self._before = vars(self._owner).get(self._method)
            self._function = self._make(getattr(self._owner, self._method))
            setattr(self._owner, self._method, self._function)

    def detach(self) -> None:
        """Leave the owner as it was; what somebody has put over the function since stays, and goes on calling it."""
        if self._function is not None and vars(self._owner).get(self._method) is self._function:
            if self._before is None:
                delattr(self._owner, self._method)
            else:
                setattr(self._owner, self._method, self._before)
        self._function = None
