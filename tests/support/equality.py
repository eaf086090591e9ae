"""What *equal* means (DESIGN, section 1), as code: two values in, the first difference or None out.

Same type, and exact for numbers, strings and containers; frames by values, dtypes and index; figures by their rendered
pixels; estimators by parameters and everything that fitting left; functions by their source: code, defaults and
closed-over values, not attributes set on them. A value of a kind that has no equality (a generator, an open file, a
lock) gives a Difference that says so: it is listed, never passed over.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import inspect
import io
import itertools
import math
import struct
import types
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import equality_packages as rules
from tests.support.difference import DIFFERS, NO_EQUALITY, Difference, of, show

# A generator, coroutine or async generator, or what waits on one: their place in the code is no value.
WITHOUT_EQUALITY = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.FrameType,
    types.TracebackType,
    io.IOBase,
)

KIND_OF_CODE = (
    inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
)


@dataclass(frozen=True)
class Comparison:
    """Two namespaces compared: names equal, names that differ, names without an equality, names on one side only."""

    equal: tuple[str, ...] = ()
    differences: Mapping[str, Difference] = field(default_factory=dict)
    without: Mapping[str, Difference] = field(default_factory=dict)
    only_left: tuple[str, ...] = ()
    only_right: tuple[str, ...] = ()


def equal(a: Any, b: Any, where: str = "value") -> Difference | None:
    """Two values in, the first difference out, None when they are equal."""
    return _Walk().compare(a, b, where)


def compare(left: Mapping[str, Any], right: Mapping[str, Any]) -> Comparison:
    """Two namespaces in, every name accounted for out."""
    both = sorted(left.keys() & right.keys())
    found = {name: difference for name in both if (difference := equal(left[name], right[name], name)) is not None}
    return Comparison(
        equal=tuple(name for name in both if name not in found),
        differences={name: one for name, one in found.items() if one.kind == DIFFERS},
        without={name: one for name, one in found.items() if one.kind == NO_EQUALITY},
        only_left=tuple(sorted(left.keys() - right.keys())),
        only_right=tuple(sorted(right.keys() - left.keys())),
    )


def _named(thing: Any) -> tuple[str, str]:
    return getattr(thing, "__module__", "") or "", getattr(thing, "__qualname__", getattr(thing, "__name__", ""))


def same_type(a: Any, b: Any) -> bool:
    """Whether the types are one; two loads of a class that was defined in a cell count as one."""
    first, second = type(a), type(b)
    return first is second or (_from_a_cell(first) and _named(first) == _named(second))


def _from_a_cell(thing: type) -> bool:
    """Whether a class has no importable home: it was made in a notebook, or within a function."""
    return thing.__module__ == "__main__" or "<locals>" in thing.__qualname__


def _bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("d", value)


class _Walk:
    """One comparison: remembers the pairs that it is inside of, so that circles end."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], tuple[Any, Any]] = {}

    def compare(self, a: Any, b: Any, where: str) -> Difference | None:
        if not same_type(a, b):
            return Difference(where, show(a), show(b))
        if a is b and not isinstance(a, WITHOUT_EQUALITY):
            return None
        pair = (id(a), id(b))
        if pair in self.seen:
            return None
        self.seen[pair] = (a, b)  # kept alive, so that the ids stay theirs
        for matches, rule in RULES:
            if matches(a):
                return rule(self, a, b, where)
        return self._by_state(a, b, where)

    def first(self, pairs: Iterable[tuple[Any, Any, str]]) -> Difference | None:
        return next((found for a, b, where in pairs if (found := self.compare(a, b, where)) is not None), None)

    def attributes(self, a: Any, b: Any, names: Sequence[str], where: str) -> Difference | None:
        return self.first((getattr(a, name), getattr(b, name), f"{where}.{name}") for name in names)

    # ------------------------------------------------------------ plain values

    def _exact(self, a: Any, b: Any, where: str) -> Difference | None:
        same = a == b and repr(a) == repr(b)
        same = same and all(getattr(a, name, None) == getattr(b, name, None) for name in ("fold", "unit"))
        if not same:
            return Difference(where, show(a), show(b))
        return self._extra(a, b, where) if isinstance(a, int | str | bytes | bytearray) else None

    def _float(self, a: float, b: float, where: str) -> Difference | None:
        return None if _bits(a) == _bits(b) else Difference(where, show(a), show(b))

    def _complex(self, a: complex, b: complex, where: str) -> Difference | None:
        same = (_bits(a.real), _bits(a.imag)) == (_bits(b.real), _bits(b.imag))
        return None if same else Difference(where, show(a), show(b))

    def _enum(self, a: enum.Enum, b: enum.Enum, where: str) -> Difference | None:
        return self.first([(a.name, b.name, f"{where}.name"), (a.value, b.value, f"{where}.value")])

    def _memory_file(self, a: Any, b: Any, where: str) -> Difference | None:
        shown = [None if file.closed else (file.getvalue(), file.tell()) for file in (a, b)]
        return self.compare(shown[0], shown[1], f"the text and place of {where}")

    def _view(self, a: Any, b: Any, where: str) -> Difference | None:
        return self.compare([*a], [*b], f"the elements of {where}")

    # ------------------------------------------------------------ containers

    def sequence(self, a: Any, b: Any, where: str) -> Difference | None:
        if len(a) != len(b):
            return Difference(f"len({where})", str(len(a)), str(len(b)))
        found = self.first((x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
        if found is None and isinstance(a, deque):
            found = self.compare(a.maxlen, b.maxlen, f"{where}.maxlen")
        return found or self._extra(a, b, where)

    def _partners(self, a: Iterable[Any], b: Iterable[Any], where: str) -> Difference | list[tuple[Any, Any]]:
        """Each element of `a` with the element of `b` that is equal to it, types included, or what has none."""
        rest = {id(y): y for y in b}
        by_hash: dict[Any, Any] = {y: y for y in rest.values()}
        pairs = []
        for x in a:
            guess = by_hash.get(x)
            candidates = itertools.chain([guess] if id(guess) in rest else [], rest.values())
            match = next((y for y in candidates if _Walk().compare(x, y, where) is None), _NOTHING)
            if match is _NOTHING:
                other = guess if guess is not None or None in by_hash else _NOTHING
                return Difference(f"an element of {where}", show(x), show(other))
            del rest[id(match)]
            pairs.append((x, match))
        return pairs

    def _set(self, a: Any, b: Any, where: str) -> Difference | None:
        if len(a) != len(b):
            return Difference(f"len({where})", str(len(a)), str(len(b)))
        pairs = self._partners(a, b, where)
        return pairs if isinstance(pairs, Difference) else self._extra(a, b, where)

    def _dict(self, a: Any, b: Any, where: str) -> Difference | None:
        """Order counts only where it counts for Python: in an OrderedDict."""
        if len(a) != len(b):
            return Difference(f"len({where})", str(len(a)), str(len(b)))
        if isinstance(a, OrderedDict):
            found = self.sequence(list(a), list(b), f"list({where})")
            if found is not None:
                return found
        pairs = self._partners(a, b, f"the keys of {where}")
        if isinstance(pairs, Difference):
            return pairs
        found = self.first((a[x], b[y], f"{where}[{x!r}]") for x, y in pairs)
        if found is None and isinstance(a, defaultdict):
            found = self.compare(a.default_factory, b.default_factory, f"{where}.default_factory")
        return found or self._extra(a, b, where)

    def _extra(self, a: Any, b: Any, where: str) -> Difference | None:
        """Attributes of a container whose class is a subclass with a `__dict__`."""
        if not getattr(a, "__dict__", None) and not getattr(b, "__dict__", None):
            return None
        return self.compare(vars(a), vars(b), f"vars({where})")

    # ------------------------------------------------------------ code

    def _function(self, a: types.FunctionType, b: types.FunctionType, where: str) -> Difference | None:
        names = ("__name__", "__defaults__", "__kwdefaults__", "__doc__")
        found = self._code(a.__code__, b.__code__, f"{where}.__code__") or self.attributes(a, b, names, where)
        if found is not None:
            return found
        return self._cells(a, b, where)

    def _cells(self, a: types.FunctionType, b: types.FunctionType, where: str) -> Difference | None:
        pairs = zip(a.__code__.co_freevars, a.__closure__ or (), b.__closure__ or (), strict=True)
        return self.first((_content(x), _content(y), f"{where}'s {name}") for name, x, y in pairs)

    def _code(self, a: types.CodeType, b: types.CodeType, where: str) -> Difference | None:
        """Same code, wherever it stands: file name and line numbers are no part of it."""
        if a.co_flags & KIND_OF_CODE != b.co_flags & KIND_OF_CODE:
            return Difference(where, show(a), show(b))
        names = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount", "co_kwonlyargcount")
        return self.attributes(a, b, (*names, "co_posonlyargcount", "co_consts"), where)

    def _class(self, a: type, b: type, where: str) -> Difference | None:
        if not _from_a_cell(a) or _named(a) != _named(b):
            return Difference(where, show(a), show(b))
        left, right = (
            {key: thing for key, thing in vars(one).items() if key not in CLASS_NOISE and not _is_slot(thing)}
            for one in (a, b)
        )
        return self.sequence(a.__bases__, b.__bases__, f"{where}.__bases__") or self.compare(
            left, right, f"vars({where})"
        )

    def _builtin(self, a: Any, b: Any, where: str) -> Difference | None:
        if _named(a) != _named(b):
            return Difference(where, show(a), show(b))
        owner_a, owner_b = getattr(a, "__self__", None), getattr(b, "__self__", None)
        return None if inspect.ismodule(owner_a) else self.compare(owner_a, owner_b, f"{where}.__self__")

    def _module(self, a: types.ModuleType, b: types.ModuleType, where: str) -> Difference | None:
        return self.compare(a.__name__, b.__name__, f"{where}.__name__")

    def _descriptor(self, a: Any, b: Any, where: str) -> Difference | None:
        names = [name for name in ("fget", "fset", "fdel", "__func__", "func", "attrname") if hasattr(a, name)]
        return self.attributes(a, b, names, where)

    def _partial(self, a: Any, b: Any, where: str) -> Difference | None:
        return self.attributes(a, b, ("func", "args", "keywords"), where) or self.compare(
            vars(a), vars(b), f"vars({where})"
        )

    def _wrapper(self, a: Any, b: Any, where: str) -> Difference | None:
        """functools.lru_cache: the function and the limits; what is cached is no part of the value."""
        return self.compare(a.cache_parameters(), b.cache_parameters(), f"{where}.cache_parameters()") or self.compare(
            a.__wrapped__, b.__wrapped__, f"{where}.__wrapped__"
        )

    # ------------------------------------------------------------ any other object

    def nothing(self, a: Any, _b: Any, where: str) -> Difference:
        return Difference(where, show(a), "", NO_EQUALITY)

    def _by_state(self, a: Any, b: Any, where: str) -> Difference | None:
        """What pickle would take of an object: how it is made, from what, and its state."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                reduce = copyreg.dispatch_table.get(type(a), lambda value: value.__reduce_ex__(4))
                left, right = reduce(a), reduce(b)
        except Exception:  # whatever an object raises, it has told that it has no state to compare
            return self.nothing(a, b, where)
        if isinstance(left, str) or isinstance(right, str):
            return self.compare(left, right, f"{where}.__reduce_ex__()")
        left, right = (_listed(made) for made in (left, right))
        if len(left) > 2 and isinstance(left[2], dict) and len(right) > 2:
            found = self.compare(left[2], right[2], f"vars({where})")
            if found is not None:
                return found
        parts = enumerate(zip(left, right, strict=True))
        return self.first((x, y, f"{where}.__reduce_ex__()[{i}]") for i, (x, y) in parts)


_NOTHING = type("nothing", (), {"__repr__": lambda _self: "nothing equal"})()

CLASS_NOISE = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__firstlineno__",
    "__static_attributes__",
    "_abc_impl",
    "__abstractmethods__",
    "__slotnames__",
    "__dataclass_params__",
    "__dataclass_fields__",
    "__annotate__",
    # look-up tables of enums, which grow when combinations are first used
    "_value2member_map_",
    "_hashable_values_",
    "_unhashable_values_",
    "_unhashable_values_map_",
}


def _is_slot(thing: Any) -> bool:
    return isinstance(thing, types.MemberDescriptorType | types.GetSetDescriptorType)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _listed(made: tuple[Any, ...]) -> list[Any]:
    """What `__reduce_ex__` gave, with iterators of elements and items written out."""
    parts = [*made, *[None] * (6 - len(made))]
    return [*parts[:3], None if parts[3] is None else list(parts[3]), None if parts[4] is None else list(parts[4])]


def _is(*kinds: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_EXACT = of(
    "builtins:int", "builtins:str", "builtins:bytes", "builtins:bytearray", "builtins:range", "builtins:slice",
    "builtins:NoneType", "builtins:ellipsis", "builtins:NotImplementedType",
    "datetime:date", "datetime:time", "datetime:timedelta", "datetime:tzinfo", "decimal:Decimal",
    "fractions:Fraction", "uuid:UUID", "pathlib:PurePath", "re:Pattern",
    "pandas._libs.missing:NAType", "pandas._libs.tslibs.offsets:BaseOffset", "pandas._libs.tslibs.nattype:NaTType",
    "pandas._libs.tslibs.period:Period", "pandas._libs.interval:Interval",
    "pandas:Period", "pandas:Interval",
)  # fmt: skip

Rule = Callable[[Any, Any, Any, str], Difference | None]
RULES: tuple[tuple[Callable[[Any], bool], Rule], ...] = (
    (_is(io.StringIO, io.BytesIO), _Walk._memory_file),
    (_is(type({}.keys()), type({}.values()), type({}.items())), _Walk._view),
    (_is(*WITHOUT_EQUALITY), _Walk.nothing),
    (of("pandas.core.groupby.groupby:BaseGroupBy", "pandas.core.window.rolling:BaseWindow"), _Walk.nothing),
    (_is(enum.Enum), _Walk._enum),
    (of("numpy:generic"), rules.compare_scalar),
    (_is(float), _Walk._float),
    (_is(complex), _Walk._complex),
    (_EXACT, _Walk._exact),
    (_is(dict, types.MappingProxyType), _Walk._dict),
    (_is(list, tuple, deque), _Walk.sequence),
    (_is(set, frozenset), _Walk._set),
    (_is(types.FunctionType), _Walk._function),
    (_is(types.CodeType), _Walk._code),
    (_is(types.ModuleType), _Walk._module),
    (_is(types.BuiltinFunctionType, types.MethodWrapperType), _Walk._builtin),
    (_is(functools._lru_cache_wrapper), _Walk._wrapper),
    (_is(property, staticmethod, classmethod, functools.cached_property), _Walk._descriptor),
    (_is(functools.partial), _Walk._partial),
    (_is(type), _Walk._class),
    (of("numpy:ndarray"), rules.compare_array),
    (
        of("numpy:dtype", "pandas.core.dtypes.base:ExtensionDtype", "pandas.api.extensions:ExtensionDtype"),
        rules.compare_dtype,
    ),
    (of("numpy.random._generator:Generator"), rules.compare_generator),
    (of("numpy.random.mtrand:RandomState"), rules.compare_random_state),
    (of("pandas.core.frame:DataFrame", "pandas:DataFrame"), rules.compare_frame),
    (of("pandas.core.series:Series", "pandas:Series"), rules.compare_series),
    (of("pandas.core.indexes.base:Index", "pandas:Index"), rules.compare_index),
    (of("pandas.core.arrays.base:ExtensionArray", "pandas.api.extensions:ExtensionArray"), rules.compare_extension),
    (of("polars.dataframe.frame:DataFrame", "polars.series.series:Series"), rules.compare_equals),
    (
        of("pyarrow.lib:Table", "pyarrow.lib:Array", "pyarrow.lib:ChunkedArray", "pyarrow.lib:RecordBatch"),
        rules.compare_equals,
    ),
    (of("scipy.sparse._base:_spbase"), rules.compare_sparse),
    (of("torch:Tensor", "torch._tensor:Tensor"), rules.compare_tensor),
    (of("matplotlib.figure:FigureBase"), rules.compare_figure),
    (of("matplotlib.artist:Artist"), rules.compare_artist),
    (of("sklearn.base:BaseEstimator"), rules.compare_estimator),
    (rules.is_tree_of_neighbours, rules.compare_tree),
)
"""What is compared how: the first rule that matches a value decides; `_by_state` for all others."""
