"""`inputs` of a join: the items of a fan-out, or branches, in order, each name loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, overload

from nbflow.errors import DamagedError, nearest
from nbflow.model import JoinItem, Manifest, Record, Ref
from nbflow.store import artifacts, records
from nbflow.store.location import Store
from nbflow.store.serialize.inspection import attribute, is_a
from nbflow.store.serialize.registry import Registry

SCALARS = frozenset({"int", "float", "bool", "str", "complex", "NoneType", "datetime.date", "datetime.datetime"})


class JoinedItem:
    """One item: `.item`, `.index`, and every name as the item left it, read or written in whichever step.

    A branch is told by its step's name, which is its `.item`.
    """

    def __init__(
        self, index: int, item: Callable[[], Any], names: Callable[[], Mapping[str, Callable[[], Any]]],
        branch: str = "",
    ) -> None:  # fmt: skip
        self._index = index
        self._branch = branch
        self._item = item
        self._names = names
        self._loaded: dict[str, Any] = {}

    @property
    def index(self) -> int:
        """Its place among all items, from 0."""
        return self._index

    @property
    def item(self) -> Any:
        """The value that the loop variable had."""
        return self._item()

    @property
    def is_branch(self) -> bool:
        """Whether it is what one step left, not an item of a fan-out."""
        return bool(self._branch)

    def names(self) -> list[str]:
        """Every name that it has, sorted."""
        return sorted(self._names())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._loaded:
            loaders = self._names()
            if name not in loaders:
                what = self._branch or f"item {self._index}"
                known = ", ".join(sorted(loaders)) or "nothing"
                raise AttributeError(f"{what} has no {name!r}{nearest(name, loaders)}; it has {known}")
            self._loaded[name] = loaders[name]()
        return self._loaded[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._names()})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the item with all its values: the records that it was loaded from may be removed one day."""
        values = {name: getattr(self, name) for name in self.names()}
        return (kept_entry, (self._index, self.item, values, *filter(None, [self._branch])))

    def __repr__(self) -> str:
        return f"<{self._branch or f'item {self._index}'}: {', '.join(self.names())}>"


def kept_entry(index: int, item: Any, values: dict[str, Any], branch: str = "") -> JoinedItem:
    """Return an item, or a branch, that holds its values in memory."""
    return JoinedItem(index, partial(_same, item), partial(_constants, values), branch)


def _same(value: Any) -> Any:
    return value


def _constants(values: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    return {name: partial(_same, value) for name, value in values.items()}


class Inputs(Sequence[JoinedItem]):
    """The items of a fan-out that are done, in item order; or branches, each an attribute too (`inputs.left`)."""

    def __init__(
        self, entries: Sequence[JoinedItem], scalars: Callable[[JoinedItem], Sequence[str]] | None = None
    ) -> None:
        self._entries = list(entries)
        self._scalars = scalars

    @overload
    def __getitem__(self, place: int) -> JoinedItem: ...
    @overload
    def __getitem__(self, place: slice) -> Inputs: ...
    @overload
    def __getitem__(self, place: str) -> JoinedItem: ...
    def __getitem__(self, place: int | slice | str) -> JoinedItem | Inputs:
        if isinstance(place, str):
            return getattr(self, place)  # type: ignore[no-any-return]  # one of its entries
        if isinstance(place, slice):
            return Inputs(self._entries[place], self._scalars)
        return self._entries[place]

    def __getattr__(self, name: str) -> JoinedItem:
        """Return the branch of that step's name."""
        if name.startswith("__"):
            raise AttributeError(name)
        branches = {each.item: each for each in self._entries if each.is_branch}
        if name in branches:
            return branches[name]
        what = f"the branches {', '.join(branches)}" if branches else "items: inputs[0], inputs[1], …"
        raise AttributeError(f"inputs has no {name!r}{nearest(name, branches)}; it has {what}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(each.item for each in self._entries if each.is_branch)})

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[JoinedItem]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"<inputs: {len(self)} {'branches' if any(each.is_branch for each in self) else 'items'}>"

    def frame(self) -> Any:
        """Return a pandas DataFrame with a row for each item and a column for each name that holds numbers or text.

        The frame's index is the items' own; nothing else is loaded.
        """
        import pandas as pd

        rows = []
        for entry in self._entries:
            names = (
                self._scalars(entry) if self._scalars else [n for n in entry.names() if is_scalar(getattr(entry, n))]
            )
            rows.append({name: getattr(entry, name) for name in names})
        return pd.DataFrame(rows, index=pd.Index([entry.index for entry in self._entries], name="index"))


def is_scalar(value: Any) -> bool:
    """Return whether a value fits into one cell of a table."""
    numpy_scalar = attribute(type(value), "__module__") == "numpy" and attribute(value, "ndim", 1) == 0
    return value is None or is_a(value, int | float | str | complex) or numpy_scalar


class _Stored:
    """An item, or a branch, whose values lie in the store."""

    def __init__(
        self,
        entry: JoinItem,
        value_of: Callable[[Ref], Any],
        store: Store,
        registry: Registry,
        constants: Mapping[str, Any],
    ) -> None:
        self.entry, self.value_of, self.store, self.registry = entry, value_of, store, registry
        self.constants = constants
        self.label = entry.name or f"item {entry.index}"

    @cached_property
    def written(self) -> Mapping[str, tuple[Record, Manifest]]:
        """Return each name with the record of the last task of the body that wrote it."""
        manifests: dict[str, tuple[Record, Manifest]] = {}
        for key, execution in self.entry.places:
            record = records.read_record(self.store, key, execution)
            if record is None:
                raise DamagedError(f"what {self.label} has left is missing or damaged", fix="run the flow once more")
            manifests.update(
                (name, (record, artifact)) for name, artifact in record.artifacts.items() if not name.startswith("<")
            )
        return manifests

    def names(self) -> Mapping[str, Callable[[], Any]]:
        """Return how each name is loaded."""
        loaders = _constants(self.constants)
        loaders.update((name, partial(self.value_of, ref)) for name, ref in self.entry.reads.items())
        loaders.update((name, self._loader(name)) for name in self.written)
        return loaders

    def _loader(self, name: str) -> Callable[[], Any]:
        def load() -> Any:
            record, artifact = self.written[name]
            if artifact.group < 0:
                raise AttributeError(f"{name} of {self.label} was not stored: {artifact.error}")
            return artifacts.load(self.store, (record.groups[artifact.group],), [name], self.registry)[name]

        return load

    def scalars(self) -> list[str]:
        """Return the names that fit into a table, told by their types alone."""
        return [
            name for name, (_, artifact) in sorted(self.written.items())
            if artifact.type in SCALARS
            or (artifact.type.startswith("numpy.") and not artifact.shape and "array" not in artifact.type)
        ]  # fmt: skip


def open_inputs(
    items: Sequence[JoinItem],
    value_of: Callable[[Ref], Any],
    store: Store,
    registry: Registry,
    constants: Mapping[str, Any],
) -> Inputs:
    """Return the `inputs` of a join from the items in its spec; read nothing before it is asked for."""
    stored = {entry.index: _Stored(entry, value_of, store, registry, constants) for entry in items}
    entries = [
        JoinedItem(
            entry.index, partial(value_of, entry.item) if entry.item is not None else partial(_same, entry.name),
            stored[entry.index].names, entry.name,
        )
        for entry in items
    ]  # fmt: skip
    return Inputs(entries, lambda entry: stored[entry.index].scalars())
