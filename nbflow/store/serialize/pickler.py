"""Values ↔ buffers: pickle 5 with memory out of band, one stream for each group of names that share objects. No I/O.

What two names share must stay shared after loading, and what they do not share should be loaded alone. So each name
is pickled for itself first; picklers remember every object that they met, and names that met the same mutable object,
or arrays over the same memory, are pickled once more, together.
"""

from __future__ import annotations

import decimal
import enum
import io
import itertools
import pickle
import re
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import cloudpickle
import msgspec

from nbflow.model import DefinitionRef
from nbflow.store.serialize.arrays import (
    SMALL,
    Region,
    has_memory,
    is_plain_view,
    memory_key,
    reduce_array,
    reduce_dtype,
    reduce_masked,
    reduce_storage,
    reduce_subclass,
    reduce_tensor,
    reduce_view,
    regions_of,
    root_of,
    storage_bytes,
)
from nbflow.store.serialize.describe import Description, describe
from nbflow.store.serialize.frames import Boundary, reduce_content, reduce_pandas, reduce_polars
from nbflow.store.serialize.inspection import answered, is_a
from nbflow.store.serialize.objects import (
    KINDS_OF_ITERATORS,
    KINDS_OF_VIEWS,
    free_names,
    has_own_state,
    is_main_function,
    keeps_a_dict,
    reduce_cell,
    reduce_context,
    reduce_dict_iterator,
    reduce_dict_view,
    reduce_function,
    reduce_match,
    reduce_memory,
    reduce_node,
    reduce_proxy,
    reduce_whole,
)
from nbflow.store.serialize.rebuild import (
    Made,
    definition,
    fill_parser,
    fill_set,
    keeps,
    make_frozenset,
    make_mark,
    make_of_kind,
    plugged,
    take_dict,
)  # fmt: skip
from nbflow.store.serialize.registry import NAMED_KINDS, Registry
from nbflow.store.serialize.sets import FIXED_HASHES, Ordered, is_ordered
from nbflow.tracebacks import text_of

BUDGET = 0.2
"""Seconds that the search may take: it is only for the message."""

DEPTH = 5
PARTS = 200


def find_culprit(name: str, value: Any, fails: Callable[[Any], bool]) -> str:
    """Return the path to the innermost part of a named value that `fails` says cannot be pickled, as `model.layers[2]`.

    It is the name itself when no part of it fails alone, or the search takes too long.
    """
    end = time.monotonic() + BUDGET
    path = name
    for _ in range(DEPTH):
        for step, part in itertools.islice(_parts(value), PARTS):
            if time.monotonic() > end:
                return path
            if fails(part):
                path, value = path + step, part
                break
        else:
            return path
    return path


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value, each with the text that leads to it."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]" if isinstance(key, str | int) else "[…]", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type):
        yield from ((f".{key}", part) for key, part in vars(value).items())
        if hasattr(value, "__code__"):
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
            yield from ((f"'s {variable}", cell.cell_contents) for variable, cell in cells if cell != type(cell)())


__all__ = ["Dumped", "Pickler", "Pickling", "Registry", "Unstorable", "dump", "load", "out_of_band"]

SCALARS = frozenset({int, float, bool, complex, str, bytes, type(None)})
"""Types without parts that could be shared: no pickler of ours needed."""

IMMUTABLE = frozenset({
    *SCALARS, tuple, frozenset, range, slice, type(Ellipsis), type(NotImplemented), types.ModuleType,
    types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.MappingProxyType, Boundary, Region,
})  # fmt: skip

IMMUTABLE_MODULES = frozenset(
    "datetime decimal fractions pathlib re uuid zoneinfo ipaddress logging pyarrow numbers typing operator".split()
)
"""Modules whose instances never change, or are looked up by name when loaded."""


SETS = (pickle.EMPTY_SET, pickle.FROZENSET)
"""What begins or ends each set in a stream."""

TORCH_FIXED = frozenset({("torch", "dtype"), ("torch", "device"), ("torch", "layout"), ("torch", "Size")})
PANDAS_OWN = ("pandas._libs", "pandas.core.internals", "pandas.core.indexes")


class Dumped(msgspec.Struct, frozen=True):
    """Names that are stored together: their stream and buffers, and what they need to be loaded.

    `names` is sorted; the stream of one name holds its value, that of several a tuple of theirs. `buffers` look into
    the values' own memory: write them before the values may change.
    """

    names: tuple[str, ...]
    stream: bytes
    buffers: tuple[memoryview, ...] = ()
    definitions: tuple[DefinitionRef, ...] = ()
    free: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()  # classes that said themselves what is stored, as not all of it could be
    mapped: tuple[str, ...] = ()  # files that arrays look into: what they hold now is stored
    described: dict[str, Description] = msgspec.field(default_factory=dict)


class Unstorable(msgspec.Struct, frozen=True):
    """A name whose value cannot be stored, and why."""

    name: str
    type: str
    reason: str
    described: Description


def dump(
    values: Mapping[str, Any], registry: Registry, together: Sequence[frozenset[str]] = ()
) -> list[Dumped | Unstorable]:
    """Return the groups of named values that share objects, and the names that cannot be stored.

    Names that stand `together` are in one group in any case, where they can be stored. No array memory is copied (a
    non-contiguous array is). Never raises for what a value does while it is pickled.
    """
    described = {name: describe(name, value) for name, value in values.items()}
    results: list[Dumped | Unstorable] = []
    trials: list[_Trial] = []
    session = Pickling(registry, values.values())
    for name, value in values.items():
        if any(type(value) is kind for kind in SCALARS):  # by identity: a metaclass may have a hash of its own
            results.append(Dumped((name,), pickle.dumps(value, 5), described={name: described[name]}))
            continue
        trial = _try(session, (name,), value, {})
        if isinstance(trial, _Trial):
            trials.append(trial)
        else:
            results.append(Unstorable(name, described[name].type, _blame(session, name, value, trial), described[name]))
    for members, regions in _groups(trials, together):
        results.extend(_finish(session, members, regions, values, described))
    return results


def load(
    stream: bytes | memoryview, buffers: Iterable[Any], registry: Registry, names: Sequence[str]
) -> dict[str, Any]:
    """Return the names of one group that `dump` made, with their values.

    Runs what the stream says: only for streams that this user's own runs have written. Raise OutdatedError when a value
    refers to a definition that has not been replayed here. The registry is told whose sets have another order here.
    """
    unpickler = _Unpickler(io.BytesIO(stream), buffers, registry)
    value = unpickler.load()
    values = dict(zip(names, value, strict=True)) if len(names) > 1 else {names[0]: value}
    if unpickler.disordered:
        mine = {name for name, each in values.items() if any(each is other for other in unpickler.disordered)}
        registry.disordered |= mine or values.keys()
    return values


class Sink(Protocol):
    """Where a stream goes."""

    def write(self, data: Any, /) -> int:
        """Take bytes and return how many they are."""
        ...


class Pickling:
    """What the picklers of one `dump` share: which reducer serves a type, and torch's storages by address."""

    def __init__(self, registry: Registry, values: Iterable[Any] = ()) -> None:
        self.registry = registry
        self.dicts = {id(value) for value in values if type(value) is dict}  # one may be where an object keeps its own
        self.routes: dict[type, Callable[[Pickler, Any], Any] | None] = {}
        self.storages: dict[int, Any] = {}


class _Trial(msgspec.Struct):
    """Names that could be pickled, and the pickler, which keeps every object alive that it met."""

    names: tuple[str, ...]
    pickler: Pickler
    buffers: list[memoryview]
    stream: bytes


def _try(
    session: Pickling,
    names: tuple[str, ...],
    value: Any,
    regions: dict[int, list[Region]],
    kind: type[Pickler] | None = None,
) -> _Trial | str:
    """Return the trial of pickling a value, or the reason why it cannot be pickled.

    Objects are tried whole first, and then as their classes would have them pickled.
    """
    reason = ""
    for whole in (True, False):
        buffers: list[memoryview] = []
        stream = io.BytesIO()
        pickler = (kind or Pickler)(session, stream, regions, out_of_band(buffers.append))
        pickler.whole = whole
        try:
            pickler.dump(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's own __reduce__ and __getstate__ run here, and may raise anything
            reason = f"{type(error).__name__}: {text_of(error)}"
            if not pickler.stateful:
                break
        else:
            return _Trial(names, pickler, buffers, stream.getvalue())
    return reason


def _blame(session: Pickling, name: str, value: Any, reason: str) -> str:
    """Return the reason why a value cannot be pickled, with the part that is at fault."""
    fails = lambda part: isinstance(_try(session, (), part, {}), str)  # noqa: E731  # a question, asked below
    path = answered(lambda: find_culprit(name, value, fails), name)  # some objects answer no question at all
    return reason if path == name else f"{reason} (in {path})"


def out_of_band(receive: Callable[[memoryview], object]) -> Callable[[pickle.PickleBuffer], bool]:
    """Return a pickler's buffer callback: large memory goes to `receive`, small memory stays in the stream."""

    # A plain function: a method of the pickler would be a reference cycle that keeps whole arrays alive.
    def take(buffer: pickle.PickleBuffer) -> bool:
        memory = buffer.raw()
        if memory.nbytes < SMALL:
            return True
        receive(memory)
        return False

    return take


def _groups(
    trials: list[_Trial], together: Sequence[frozenset[str]]
) -> list[tuple[list[_Trial], dict[int, list[Region]]]]:
    """Return which trials must be stored together, each group with the memory that its arrays share."""
    parent = list(range(len(trials)))

    def find(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    # Names need one group only where a change of something that both met is seen through both: what never changes, an
    # interned text or a class, joins nobody. Arrays over one memory share no object, so their memory is compared too.
    memos = [trial.pickler.met() for trial in trials] if len(trials) > 1 else []
    owner: dict[int, int] = {}
    for place in sorted(range(len(memos)), key=lambda each: len(memos[each])):
        memo = memos[place]
        for key in memo.keys() & owner.keys():
            if find(owner[key]) != find(place) and (key in trials[place].pickler.made or _is_mutable(memo[key][1])):
                parent[find(owner[key])] = find(place)
        owner.update(dict.fromkeys(memo, place))
    for names in together:
        first, *others = [place for place, trial in enumerate(trials) if not names.isdisjoint(trial.names)] or [0]
        for place in others:
            parent[find(place)] = find(first)
    regions: dict[int, list[Region]] = {}
    for root, looks in _same_memory(trials):
        for region in regions_of([look.array for look in looks], root):
            within = [look for look in looks if region.holds(look.array)]
            if all(look.framed for look in within):
                continue  # pandas copies what frames share before one of them is written to
            regions.setdefault(memory_key(root), []).append(region)
            for look in within[1:]:
                parent[find(look.place)] = find(within[0].place)
    places_by_root: dict[int, list[int]] = {}
    for place in range(len(trials)):
        places_by_root.setdefault(find(place), []).append(place)
    groups = []
    for places in places_by_root.values():
        members = [trials[place] for place in places]
        keys = {key for each in members for key in (*each.pickler.roots, *each.pickler.framed)}
        groups.append((members, {key: regions[key] for key in keys & regions.keys()}))
    return groups


class _Look(msgspec.Struct, frozen=True):
    """An array that looks into some memory: whose trial met it, and whether a frame keeps it."""

    place: int
    array: Any
    framed: bool


def _same_memory(trials: list[_Trial]) -> list[tuple[Any, list[_Look]]]:
    """Return for each memory that an array looks into and others too: its owner, and the arrays."""
    memories: dict[int, tuple[Any, list[_Look]]] = {}
    for place, trial in enumerate(trials):
        for key, (root, arrays) in trial.pickler.roots.items():
            memories.setdefault(key, (root, []))[1].extend(_Look(place, array, framed=False) for array in arrays)
    for place, trial in enumerate(trials):
        for key in trial.pickler.framed.keys() & memories.keys():
            _, arrays = trial.pickler.framed[key]
            memories[key][1].extend(_Look(place, array, framed=True) for array in arrays)
    # An array under two names is one object, which the trials' memos tell; one that an index keeps is in no memo.
    unique = ((root, {(id(look.array), look.framed): look for look in looks}) for root, looks in memories.values())
    return [(root, [*looks.values()]) for root, looks in unique if len(looks) > 1]


def _finish(
    session: Pickling,
    members: list[_Trial],
    regions: dict[int, list[Region]],
    values: Mapping[str, Any],
    described: Mapping[str, Description],
) -> list[Dumped | Unstorable]:
    """Return what is stored of one group: the trial itself for a name alone, else one stream for all."""
    names = tuple(sorted(name for each in members for name in each.names))
    trial: _Trial | str = members[0]
    value = values[names[0]] if len(names) == 1 else tuple(values[name] for name in names)
    if len(names) > 1 or regions:
        trial = _try(session, names, value, regions)
    if isinstance(trial, str):
        return [Unstorable(name, described[name].type, trial, described[name]) for name in names]
    if _holds_sets(trial, value):
        ordered = _try(session, names, value, regions, _Ordering)
        trial = trial if isinstance(ordered, str) else ordered  # a frozenset that holds itself
    pickler = trial.pickler
    cell_of = session.registry.cell_of
    return [
        Dumped(
            names,
            trial.stream,
            tuple(trial.buffers),
            tuple(DefinitionRef(id=each, cell=cell_of(each)) for each in sorted(pickler.definitions)),
            tuple(sorted(pickler.free)),
            () if pickler.whole else tuple(sorted(pickler.stateful)),
            tuple(sorted(pickler.mapped)),
            described={name: described[name] for name in names},
        )
    ]


def _holds_sets(trial: _Trial, value: Any) -> bool:
    """Return whether a value has sets whose order needs care; its parts are looked at where it may have some."""
    if is_ordered(value):
        return True
    if type(value) in {set, frozenset} and set(map(type, value)) <= FIXED_HASHES:
        return False
    return any(each in trial.stream for each in SETS) and any(
        is_ordered(each) for _, each in trial.pickler.memo.copy().values()
    )


def _is_mutable(value: Any) -> bool:
    """Return whether whoever shares an object would see a change of it; True for one that does not answer."""
    return answered(lambda: _changes(value), True)  # as the docstring says


def _changes(value: Any) -> bool:
    kind = type(value)
    if kind in IMMUTABLE or is_a(value, (*NAMED_KINDS, enum.Enum)) or hasattr(value, "__qualname__"):
        return False
    if kind.__module__.partition(".")[0] in IMMUTABLE_MODULES or (kind.__module__, kind.__name__) in TORCH_FIXED:
        return False
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, (numpy.dtype, numpy.generic)):
        return False
    if pandas is not None and kind.__module__.startswith("pandas"):
        fixed = (pandas.Index, pandas.api.extensions.ExtensionDtype, pandas.offsets.BaseOffset)
        return not (isinstance(value, fixed) or kind.__module__.startswith(PANDAS_OWN))
    return True


# ---------------------------------------------------------------- pickling


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped
    """cloudpickle with references to definitions, late-bound functions and memory out of band."""

    keeps_blocks = True
    """Whether frames are written by their blocks; what only hashes its stream looks at what is in them."""

    def __init__(
        self, session: Pickling, stream: Sink, regions: dict[int, list[Region]], take: Callable[..., bool]
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=take)
        self.session = session
        self.regions = regions
        self.roots: dict[int, tuple[Any, list[Any]]] = {}  # memory -> its owner, the arrays that look into it
        self.framed: dict[int, tuple[Any, list[Any]]] = {}  # the same of arrays that frames keep to themselves
        self.definitions: set[str] = set()
        self.free: set[str] = set()
        self.first = True
        self.inside = 0
        self.guarded = 0
        self.hidden: list[int] = []
        self.made: set[int] = set()  # classes that are data, stored by value: what is set on them is seen by all
        self.making: set[str] = set()  # definitions whose classes and functions are stored as they are
        self.whole = True
        self.stateful: set[str] = set()  # classes met that say themselves what is pickled of them
        self.mapped: set[str] = set()  # files that arrays look into

    def met(self) -> dict[int, tuple[int, Any]]:
        """Return every object that others could share, by id, without the arrays that frames keep to themselves."""
        memo: dict[int, tuple[int, Any]] = self.memo.copy()
        for key in self.hidden:
            memo.pop(key, None)
        return memo

    def reducer_override(self, value: Any) -> Any:
        """Return an object's reduction, or NotImplemented for pickle's own way."""
        routes = self.session.routes
        kind = type(value)
        if kind not in routes:
            routes[kind] = _route(kind, self.session.registry)
        route = routes[kind]
        return NotImplemented if route is None else route(self, value)

    def named(self, value: Any) -> Any:
        """Return a reference to the definition of a class, function or alias, or its reduction where it has none."""
        reference = self.session.registry.reference(value)
        if reference is not None and reference[0] not in self.making:
            self.definitions.add(reference[0])
            # one text of its own: a name that other values hold too would be the same object, or not, by chance
            return definition, ("\n".join(reference),)
        if is_main_function(value):
            self.free |= free_names(value.__code__)
            return reduce_function(value)
        if type(value).__module__ == "__main__" and has_own_state(type(value)):
            return self.stated(value)
        reduced = super().reducer_override(value)
        if reduced is not NotImplemented and is_a(value, type) and value.__module__ != "builtins" and not self.making:
            self.made.add(id(value))
        return reduced

    def computed(self, value: Made) -> Any:
        """Return the reduction of what a definition has made: none of it refers to that definition."""
        self.making.add(value.identity)
        return Made, (value.identity, value.values)

    def array(self, value: Any) -> Any:
        """Return a NumPy array's reduction: over shared memory where several arrays look into it."""
        if self.inside:
            self.hidden.append(id(value))
        if not self.guarded and has_memory(value, root := root_of(value)):
            region = self.region(value, root)
            if region is not None:
                return reduce_view(value, region)
        return reduce_array(value)

    def in_file(self, value: Any) -> Any:
        """Return the reduction of an array that may look into a file: what it holds now, as an array of its kind."""
        if value._mmap is not None:  # noqa: SLF001  # results of computing with one have none
            self.mapped.add(str(value.filename or "a file"))
        return make_of_kind, (value.view(sys.modules["numpy"].ndarray), type(value))

    def storage(self, value: Any) -> Any:
        """Return a torch storage's reduction."""
        flat = storage_bytes(value)
        if flat is None:
            return NotImplemented
        return reduce_storage(flat, self.region(flat, flat.base) if flat.size else None)

    def region(self, array: Any, root: Any) -> Region | None:
        """Return the shared region that an array lies in, None when it is alone in the memory of its `root`."""
        key = memory_key(root)
        for region in self.regions.get(key, ()):
            if region.holds(array):
                return region
        arrays = self.framed if self.inside else self.roots
        arrays.setdefault(key, (root, []))[1].append(array)
        return None

    def mark(self, value: Boundary) -> Any:
        """Return the reduction of the mark where a frame's parts begin or end."""
        self.inside += value.step
        self.guarded += value.step if value.guarded else 0
        return make_mark, ()

    def pandas(self, value: Any) -> Any:
        """Return a pandas object's reduction."""
        pandas = sys.modules["pandas"]
        if self.inside and not isinstance(value, (pandas.DataFrame, pandas.Series)):
            self.hidden.append(id(value))
        if isinstance(value, pandas.DataFrame) and not self.keeps_blocks:
            return reduce_content(value)
        first, self.first = self.first, False
        return reduce_pandas(value, alone=first)

    def tensor(self, value: Any) -> Any:
        """Return a torch tensor's reduction."""
        return reduce_tensor(value, self.session.storages)

    def stated(self, value: Any) -> Any:
        """Return the reduction of an object whose class says what is pickled of it: whole, where that can be."""
        self.stateful.add(type(value).__qualname__)
        return reduce_whole(value) if self.whole else NotImplemented

    def with_dict(self, value: Any) -> Any:
        """Return the reduction of an object whose attributes a name holds too: `d = vars(box)`."""
        if self.session.dicts and id(attributes := vars(value)) in self.session.dicts:
            make, kind, state, *parts = value.__reduce_ex__(5)
            if state is attributes:
                return (make, kind, state, *parts, take_dict)
        return self.plugged(value)

    def plugged(self, value: Any) -> Any:
        """Return what the first plug-in that takes a value makes of it, NotImplemented where none does."""
        for name, serializer in self.session.registry.serializers:
            if serializer.can_write(value):
                meta, buffers = serializer.write(value)
                return plugged, (name, meta, [pickle.PickleBuffer(buffer) for buffer in buffers])
        return NotImplemented


class _Ordering(Pickler):
    """Writes sets by the order in which they are iterated; that costs a call for every part of the value."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self._ordered: dict[int, Ordered] = {}
        self._constants: set[int] = set()

    def persistent_id(self, value: Any) -> Ordered | None:
        """Return what writes a part of the value, None where pickle does."""
        kind = type(value)
        if kind is types.CodeType:
            # `x in {"a", "b"}` in the source of a function: nobody can iterate that
            self._constants |= {id(each) for each in value.co_consts if type(each) is frozenset}
        if kind is not set and kind is not frozenset:
            return None
        ordered = self._ordered.get(id(value))
        if ordered is None and id(value) not in self._constants and is_ordered(value):
            ordered = self._ordered[id(value)] = Ordered(value)
        return ordered


def _route(kind: type, registry: Registry) -> Callable[[Pickler, Any], Any] | None:
    """Return the pickler's method for a type's instances, None where pickle's own way is the right one."""
    if issubclass(kind, NAMED_KINDS) or kind in registry.kinds:
        return Pickler.named
    own = OWN_KINDS.get(kind)
    if own is not None:
        return own
    package = kind.__module__.partition(".")[0]
    if package == "__main__" and has_own_state(kind):
        return Pickler.stated
    library = sys.modules.get(package)
    if package == "numpy" and library is not None:
        if kind is library.ndarray:
            return Pickler.array
        if kind is library.memmap:
            return Pickler.in_file
        if issubclass(kind, library.dtype):
            return _alone(reduce_dtype)
        if kind is library.ma.MaskedArray:
            return _alone(reduce_masked)
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray") and issubclass(kind, numpy.ndarray):
        return _alone(reduce_subclass) if is_plain_view(kind) else None
    if package == "numpy":
        return None
    if package == "torch" and library is not None:
        if issubclass(kind, library.Tensor):
            return Pickler.tensor
        return Pickler.storage if kind is library.UntypedStorage else None
    if package == "polars" and library is not None and kind in {library.DataFrame, library.Series}:
        return _polars
    if package == "matplotlib" and hasattr(kind, "set_children"):  # a node of transforms
        return _alone(reduce_node)
    if package == "multiprocessing" and _is_shared(kind):
        return _shared
    parsers = sys.modules.get("argparse")
    if parsers is not None and issubclass(kind, parsers._AttributeHolder | parsers._ActionsContainer):  # noqa: SLF001
        return _parser
    pandas = sys.modules.get("pandas")
    if pandas is not None and issubclass(kind, _pandas_holders(pandas)):
        return Pickler.pandas
    if keeps_a_dict(kind):
        return Pickler.with_dict
    return Pickler.plugged if registry.serializers and package != "builtins" else None


def _pandas_holders(pandas: Any) -> tuple[type, ...]:
    if not hasattr(pandas, "Index"):  # being imported by another thread
        return ()
    return pandas.DataFrame, pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray


def _parser(_: Pickler, value: Any) -> Any:
    """Return the reduction of a parser of arguments, or a part of one, or what it has found.

    What it leaves out is marked by one text, which it knows by `is`.
    """
    reduced = value.__reduce_ex__(4)
    return (*reduced[:3], None, None, fill_parser) if len(reduced) == 5 and type(reduced[2]) is dict else NotImplemented


def _cell(_: Pickler, value: types.CellType) -> Any:
    return reduce_cell(value)


def _region(_: Pickler, value: Region) -> Any:
    return value.reduction()


def _ordered(_: Pickler, value: Ordered) -> Any:
    return value.reduction()


def _alone(reduce: Callable[[Any], Any]) -> Callable[[Pickler, Any], Any]:
    return lambda _, value: reduce(value)


def _polars(_: Pickler, value: Any) -> Any:
    return reduce_polars(value)


def _is_shared(kind: type) -> bool:
    """Return whether a type of multiprocessing's only names what its values mean: memory, or a manager's object."""
    managers = sys.modules.get("multiprocessing.managers")
    proxies = getattr(managers, "BaseProxy", ())
    return kind.__name__ in {"SharedMemory", "ShareableList"} or issubclass(kind, proxies)


def _shared(_: Pickler, value: Any) -> Any:
    # what pickle would store is a name; what it names ends with the process of the step
    raise TypeError(f"a {type(value).__name__} ends with its step and cannot be stored; copy what is in it")


def _open_file(_: Pickler, value: Any) -> Any:
    # cloudpickle would store the text of a file opened for reading as another type.
    raise TypeError(f"an open file ({getattr(value, 'name', '?')}) cannot be stored")


OWN_KINDS: Mapping[type, Callable[[Pickler, Any], Any]] = types.MappingProxyType({
    types.CellType: _cell,
    Region: _region,
    Ordered: _ordered,
    Boundary: Pickler.mark,
    Made: Pickler.computed,
    io.TextIOWrapper: _open_file,
    memoryview: _alone(reduce_memory),
    re.Match: _alone(reduce_match),
    types.MappingProxyType: _alone(reduce_proxy),
    decimal.Context: _alone(reduce_context),
    **dict.fromkeys(KINDS_OF_VIEWS, _alone(reduce_dict_view)),
    **dict.fromkeys(KINDS_OF_ITERATORS, _alone(reduce_dict_iterator)),
})  # fmt: skip


# ---------------------------------------------------------------- unpickling


MOVED: Mapping[str, str] = types.MappingProxyType({
    **dict.fromkeys(
        [f"nbflow.serialize{part}" for part in ("", "_arrays", "_frames", "_functions", "_parts", "_sets")],
        definition.__module__,
    ),
    "nbflow.card_parts": "nbflow.render.components",
    "nbflow.client": "nbflow.runs.client",
    "nbflow.context": "nbflow.task.context",
    "nbflow.parameters": "nbflow.flow.parameters",
    "nbflow.past_tasks": "nbflow.runs.tasks",
})  # fmt: skip
"""Where older streams have what is elsewhere now."""


class _Unpickler(pickle.Unpickler):
    """Finds definitions and plug-ins in the loading process's registry."""

    def __init__(self, stream: io.BytesIO, buffers: Iterable[Any], registry: Registry) -> None:
        super().__init__(stream, buffers=buffers)
        self._registry = registry
        self.disordered: list[Any] = []

    def find_class(self, module: str, name: str) -> Any:
        """Return what a stream calls by name."""
        module = MOVED.get(module, module)
        if module != definition.__module__:
            return super().find_class(module, name)
        match name:
            case "definition":
                return self._defined
            case "plugged":
                return self._plugged
            case "fill_set":
                return self._fill_set
            case "make_frozenset":
                return self._make_frozenset
            case _:
                return super().find_class(module, name)

    def persistent_load(self, value: Any) -> Any:
        """Return a set: for pickle it stands in the stream like something that is kept elsewhere."""
        return value

    def _fill_set(self, value: set[Any], state: Any) -> None:
        if not fill_set(value, state):
            self.disordered.append(value)

    def _make_frozenset(self, items: list[Any], way: Any) -> frozenset[Any]:
        value = make_frozenset(items, way)
        if not keeps(value, items):
            self.disordered.append(value)
        return value

    def _defined(self, reference: str, qualname: str | None = None) -> Any:
        """Return a class or function by its definition's id and its name; format 1 has them as two texts."""
        identity, _, name = reference.partition("\n")
        return self._registry.object(identity, qualname or name)

    def _plugged(self, name: str, meta: dict[str, Any], buffers: list[Any]) -> Any:
        for candidate, serializer in self._registry.serializers:
            if candidate == name:
                return serializer.read(meta, [memoryview(buffer) for buffer in buffers])
        raise pickle.UnpicklingError(
            f"the serializer {name!r} that wrote this value is not installed; install the package that brings it"
        )
