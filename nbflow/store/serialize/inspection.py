"""Questions to users' values that no answer of theirs can harm: a class may lie, an attribute may raise anything.

`isinstance` asks the value for its `__class__`, a mock or a proxy says what it stands for, and a lazy object may read a
data base or raise. What a value is goes by its type alone here.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_S = TypeVar("_S")
Kinds = type | types.UnionType | tuple[Any, ...]


def is_a(value: object, kinds: Kinds) -> bool:
    """Return whether a value's type is one of these or made from one; the value itself is not asked."""
    return issubclass(type(value), kinds)


def attribute(value: object, name: str, otherwise: _T | None = None) -> Any | _T:
    """Return what a value has under a name, `otherwise` where it has nothing or raises anything."""
    return answered(lambda: getattr(value, name, otherwise), otherwise)


def answered(ask: Callable[[], _T], otherwise: _S) -> _T | _S:
    """Return the answer to a question in which users' code may run, `otherwise` where it raises anything.

    Only an interrupt goes through: it is for the whole task.
    """
    try:
        return ask()
    except KeyboardInterrupt:
        raise
    except BaseException:  # the code of a value may raise SystemExit too, and nobody has asked for it
        return otherwise
