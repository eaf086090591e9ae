"""Live classes and functions of `__main__` ↔ the definitions that made them: pickles name them, never hold them."""

from __future__ import annotations

import sys
import types
import typing
import weakref
from collections.abc import Mapping
from typing import Any

from nbflow import plugins
from nbflow.errors import OutdatedError
from nbflow.store.serialize.inspection import answered, attribute, is_a

NAMED_KINDS: tuple[type, ...] = (type, types.FunctionType, typing.TypeVar, typing.ParamSpec, typing.NewType)


class Registry:
    """What a kernel or worker has defined: one for each process, filled as definitions are executed or replayed.

    Objects of earlier versions are remembered (weakly): a value that still refers to one is stored as such, and
    refused where it is loaded, instead of silently becoming an instance of the newer class.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Any]] = {}
        self._cells: dict[str, str] = {}
        self._newest: dict[str, str] = {}
        self.kinds: set[type] = set()
        self._references: dict[int, tuple[str, str, Any]] = {}
        self.disordered: set[str] = set()  # names whose sets, as loaded, are iterated in another order than before
        self._serializers: tuple[tuple[str, plugins.Serializer], ...] | None = None

    def add(self, definition_id: str, objects: Mapping[str, Any], cell: str = "") -> None:
        """Note the names that a definition has just bound, with their values; `cell` is where it stands.

        Values that no pickle should name (modules, imported functions, constants) are left out here.
        """
        own = {name: value for name, value in objects.items() if is_defined_here(value)}
        self._objects[definition_id] = own
        self._cells[definition_id] = cell
        for name, value in own.items():
            self._newest[name] = definition_id
            self.kinds.add(type(value))
            key = id(value)
            self._references[key] = (definition_id, name, self._remember(key, value))

    def _remember(self, key: int, value: Any) -> Any:
        try:
            return weakref.ref(value, lambda _: self._references.pop(key, None))
        except TypeError:  # no weak references to it: kept alive
            return lambda: value

    def reference(self, value: Any) -> tuple[str, str] | None:
        """Return an object's (definition id, dotted name inside it), None when it is to be stored by value."""
        reference = self._lookup(value)
        if reference is not None:
            return reference
        is_own = is_a(value, NAMED_KINDS) and attribute(value, "__module__") == "__main__"
        qualname = attribute(value, "__qualname__") if is_own else None
        if not isinstance(qualname, str) or "." not in qualname or "<locals>" in qualname:
            return None
        root, *rest = qualname.split(".")
        for definition_id, name, remembered in tuple(self._references.values()):
            if name == root and _follow(remembered(), rest) is value:
                return definition_id, qualname
        return None

    def _lookup(self, value: Any) -> tuple[str, str] | None:
        entry = self._references.get(id(value))
        return (entry[0], entry[1]) if entry is not None and entry[2]() is value else None

    def cell_of(self, definition_id: str) -> str:
        """Return the cell that a definition stands in, an empty string when it is not known."""
        return self._cells.get(definition_id, "")

    def has(self, definition_id: str) -> bool:
        """Return whether that definition has been executed or replayed here."""
        return definition_id in self._objects

    def object(self, definition_id: str, qualname: str) -> Any:
        """Return the live class or function of a stored reference; raise OutdatedError when it is not here."""
        root, *rest = qualname.split(".")
        objects = self._objects.get(definition_id)
        if objects is None or root not in objects:
            raise self.outdated(definition_id, root)
        value = _follow(objects[root], rest)
        if value is None:
            raise self.outdated(definition_id, qualname)
        return value

    def outdated(self, definition_id: str, name: str, cell: str = "") -> OutdatedError:
        """Return the error for a value whose definition is not here; `cell` is where that used to stand."""
        newest = self._newest.get(name.partition(".")[0])
        cell = (self._cells.get(newest, "") if newest else "") or cell or self.cell_of(definition_id)
        change = "has been edited since" if newest else "is not defined here"
        return OutdatedError(
            f"the stored value uses {name!r}, which {change}",
            cell=cell or None,
            fix=f"run the step that made the value again, after the cell that defines {name!r}",
        )

    @property
    def serializers(self) -> tuple[tuple[str, plugins.Serializer], ...]:
        """The plugged-in serializers by name; looked up once."""
        if self._serializers is None:
            plugs = ((name, plugins.load("serializers", name)) for name in plugins.names("serializers"))
            self._serializers = tuple((name, plug() if isinstance(plug, type) else plug) for name, plug in plugs)
        return self._serializers


def is_defined_here(value: Any) -> bool:
    """Return whether what a definition binds was made in `__main__`: a class, function or alias, or one decorated.

    So is a class that a call has made and that is not where it says to be (`make_dataclass`), and a bare object, which
    is only there to be told apart from all others.
    """
    if type(value) is object:
        return True
    if is_a(value, NAMED_KINDS):
        return answered(lambda: value.__module__ == "__main__" or _is_nowhere(value), False)  # as where it has none
    own = attribute(value, "__dict__")
    if type(own) is dict and "__wrapped__" in own and own.get("__module__") == "__main__":
        return True
    return bool(
        attribute(type(value), "__module__") == "__main__"
    )  # an object that a decorator of the notebook has made


def _is_nowhere(value: Any) -> bool:
    """Return whether the module that a class names does not have it."""
    return is_a(value, type) and getattr(sys.modules.get(value.__module__), value.__name__, None) is not value


def _follow(value: Any, path: list[str]) -> Any:
    for part in path:
        value = attribute(value, part)
    return value
