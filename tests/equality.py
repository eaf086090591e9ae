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

DIFFERS, NO_EQUALITY = "differs", "no equality"

# Values that fitting measures instead of computing: two plain runs differ in them.
MEASURED = {"refit_time_", "mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time", "_stop_words_id"}

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


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # a user's repr may raise anything
        text = f"<repr raised {type(error).__name__}>"
    return f"{text if len(text) <= 200 else text[:197] + '...'} ({type(value).__qualname__})"


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
            return Difference(where, _show(a), _show(b))
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
            return Difference(where, _show(a), _show(b))
        return self._extra(a, b, where) if isinstance(a, int | str | bytes | bytearray) else None

    def _float(self, a: float, b: float, where: str) -> Difference | None:
        return None if _bits(a) == _bits(b) else Difference(where, _show(a), _show(b))

    def _complex(self, a: complex, b: complex, where: str) -> Difference | None:
        same = (_bits(a.real), _bits(a.imag)) == (_bits(b.real), _bits(b.imag))
        return None if same else Difference(where, _show(a), _show(b))

    def _enum(self, a: enum.Enum, b: enum.Enum, where: str) -> Difference | None:
        return self.first([(a.name, b.name, f"{where}.name"), (a.value, b.value, f"{where}.value")])

    def _memory_file(self, a: Any, b: Any, where: str) -> Difference | None:
        shown = [None if file.closed else (file.getvalue(), file.tell()) for file in (a, b)]
        return self.compare(shown[0], shown[1], f"the text and place of {where}")

    def _view(self, a: Any, b: Any, where: str) -> Difference | None:
        return self.compare([*a], [*b], f"the elements of {where}")

    # ------------------------------------------------------------ containers

    def _sequence(self, a: Any, b: Any, where: str) -> Difference | None:
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
                return Difference(f"an element of {where}", _show(x), _show(other))
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
            found = self._sequence(list(a), list(b), f"list({where})")
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
            return Difference(where, _show(a), _show(b))
        names = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount", "co_kwonlyargcount")
        return self.attributes(a, b, (*names, "co_posonlyargcount", "co_consts"), where)

    def _class(self, a: type, b: type, where: str) -> Difference | None:
        if not _from_a_cell(a) or _named(a) != _named(b):
            return Difference(where, _show(a), _show(b))
        left, right = (
            {key: thing for key, thing in vars(one).items() if key not in CLASS_NOISE and not _is_slot(thing)}
            for one in (a, b)
        )
        return self._sequence(a.__bases__, b.__bases__, f"{where}.__bases__") or self.compare(
            left, right, f"vars({where})"
        )

    def _builtin(self, a: Any, b: Any, where: str) -> Difference | None:
        if _named(a) != _named(b):
            return Difference(where, _show(a), _show(b))
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

    def _nothing(self, a: Any, _b: Any, where: str) -> Difference:
        return Difference(where, _show(a), "", NO_EQUALITY)

    def _by_state(self, a: Any, b: Any, where: str) -> Difference | None:
        """What pickle would take of an object: how it is made, from what, and its state."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                reduce = copyreg.dispatch_table.get(type(a), lambda value: value.__reduce_ex__(4))
                left, right = reduce(a), reduce(b)
        except Exception:  # whatever an object raises, it has told that it has no state to compare
            return self._nothing(a, b, where)
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


# ---------------------------------------------------------------- packages: each rule loads only where its values occur


def _of(*homes: str) -> Callable[[Any], bool]:
    """Whether a value's class, or one that it derives from, is `module:name`."""

    def matches(value: Any) -> bool:
        return any(f"{base.__module__}:{base.__qualname__}" in homes for base in type(value).__mro__)

    return matches


def _array(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    found = walk.compare(a.dtype, b.dtype, f"{where}.dtype") or walk.compare(a.shape, b.shape, f"{where}.shape")
    if found is not None:
        return found
    if hasattr(a, "mask"):
        import numpy as np

        left, right = np.ma.getmaskarray(a), np.ma.getmaskarray(b)
        found = _array(walk, left, right, f"{where}.mask")
        return found or _array(walk, np.asarray(a)[~left], np.asarray(b)[~right], where)
    if a.dtype.names:
        return next((one for n in a.dtype.names if (one := _array(walk, a[n], b[n], f"{where}[{n!r}]"))), None)
    if a.dtype.hasobject:
        return walk._sequence(list(a.flat), list(b.flat), f"{where}.flat")
    return _bytes(a, b, where)


def _bytes(a: Any, b: Any, where: str) -> Difference | None:
    """Numbers bit for bit, except that every NaN (and NaT) is one."""
    import numpy as np

    left, right = (np.ascontiguousarray(x).reshape(-1) for x in (a, b))
    kind = left.dtype.kind
    if kind == "c":
        left, right = (x.view(x.real.dtype) for x in (left, right))
    elif kind in "mM":
        left, right = (x.view("i8") for x in (left, right))
    elif kind == "V":
        left, right = (x.view("u1") for x in (left, right))
    same = left == right
    if kind in "fc":
        same = (same & (np.signbit(left) == np.signbit(right))) | (np.isnan(left) & np.isnan(right))
    wrong = np.flatnonzero(~same)
    if not len(wrong):
        return None
    first, more = int(wrong[0]), f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Difference(f"{where}.flat[{first}]{more}", _show(left[first]), _show(right[first]))


def _scalar(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    import numpy as np

    return _array(walk, np.asarray(a), np.asarray(b), where)


def _dtype(_walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    same = a == b and getattr(a, "metadata", None) == getattr(b, "metadata", None) and repr(a) == repr(b)
    return None if same else Difference(where, _show(a), _show(b))


def _generator(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    return walk.compare(a.bit_generator.state, b.bit_generator.state, f"{where}.bit_generator.state")


def _random_state(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    return walk.compare(a.get_state(legacy=False), b.get_state(legacy=False), f"{where}.get_state()")


def _frame(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    found = walk.attributes(a, b, ("index", "columns", "attrs"), where)
    if found is not None:
        return found
    columns = ((a.iloc[:, i], b.iloc[:, i], label) for i, label in enumerate(a.columns))
    return next((one for x, y, label in columns if (one := _column(walk, x, y, f"{where}[{label!r}]"))), None)


def _series(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    return walk.attributes(a, b, ("index", "name", "attrs"), where) or _column(walk, a, b, where)


def _column(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    return _extension(walk, a.array, b.array, where)


def _index(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    import pandas as pd

    found = walk.compare(list(a.names), list(b.names), f"{where}.names")
    if found is not None:
        return found
    if isinstance(a, pd.MultiIndex):
        if a.nlevels != b.nlevels:
            return Difference(f"{where}.nlevels", str(a.nlevels), str(b.nlevels))
        return walk.first((a.levels[i], b.levels[i], f"{where}.levels[{i}]") for i in range(a.nlevels)) or next(
            (one for i in range(a.nlevels) if (one := _array(walk, a.codes[i], b.codes[i], f"{where}.codes[{i}]"))),
            None,
        )
    if hasattr(a, "freq"):
        found = walk.compare(a.freqstr, b.freqstr, f"{where}.freqstr")
    return found or _extension(walk, a.array, b.array, where)


def _extension(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    """The array behind a column or an index."""
    import numpy as np

    if type(a) is not type(b):
        return Difference(where, type(a).__name__, type(b).__name__)
    found = _dtype(walk, a.dtype, b.dtype, f"{where}.dtype") or walk.compare(len(a), len(b), f"len({where})")
    if found is not None:
        return found
    if hasattr(a, "codes"):
        found = walk.compare(a.categories, b.categories, f"{where}.categories")
        return found or _array(walk, np.asarray(a.codes), np.asarray(b.codes), f"{where}.codes")
    if hasattr(a, "_ndarray") and a._ndarray.dtype.kind != "O":
        return _array(walk, a._ndarray, b._ndarray, where)
    gaps = _array(walk, np.asarray(a.isna()), np.asarray(b.isna()), f"{where}.isna()")
    return gaps or walk._sequence(list(a), list(b), where)


def _equals(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    """Polars and Arrow: the schema, then their own exact comparison, in which gaps are equal to gaps."""
    schema = "schema" if hasattr(a, "schema") else "dtype" if hasattr(a, "dtype") else "type"
    left, right = getattr(a, schema), getattr(b, schema)
    if str(left) != str(right):
        return Difference(f"{where}.{schema}", _show(left), _show(right))
    return None if a.equals(b) else Difference(where, _show(a), _show(b))


def _sparse(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    left, right = a.tocsr(copy=True), b.tocsr(copy=True)
    for one in (left, right):
        one.sum_duplicates()
    return walk.attributes(left, right, ("shape", "indptr", "indices", "data"), where)


def _tensor(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    for name in ("dtype", "device", "requires_grad", "shape"):
        if getattr(a, name) != getattr(b, name):
            return Difference(f"{where}.{name}", str(getattr(a, name)), str(getattr(b, name)))
    return _array(walk, a.detach().cpu().numpy(), b.detach().cpu().numpy(), where)


def render(figure: Any) -> bytes:
    """A matplotlib figure in, the pixels of its PNG out."""
    import matplotlib as mpl

    mpl.use("Agg", force=True)
    buffer = io.BytesIO()
    with mpl.rc_context({"savefig.dpi": 100, "figure.dpi": 100}):
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _figure(_walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    left, right = render(a), render(b)
    if left == right:
        return None
    return Difference(f"{where}, rendered", f"{len(left)} bytes of PNG", f"{len(right)} bytes of PNG")


def _artist(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    """A part of a figure: the same kind at the same place of equal figures."""
    figures = a.get_figure(root=True), b.get_figure(root=True)
    if None in figures:
        return walk._nothing(a, b, where)
    parted = walk.compare(*figures, f"the figure of {where}")  # which draws both: only then they have all their ticks
    place_a, place_b = (
        [x is part for x in figure.findobj()].index(True) for figure, part in zip(figures, (a, b), strict=True)
    )
    return parted or walk.compare(place_a, place_b, f"the place of {where}")


def _estimator(walk: _Walk, a: Any, b: Any, where: str) -> Difference | None:
    """Parameters and everything that fitting left; with the same of both, predictions are the same."""
    found = walk.compare(a.get_params(deep=False), b.get_params(deep=False), f"{where}.get_params()")
    return found or walk.compare(_computed(vars(a)), _computed(vars(b)), f"vars({where})")


def _computed(attributes: dict[str, Any]) -> dict[str, Any]:
    """What fitting computed, without the times that it measured."""
    rest = {name: value for name, value in attributes.items() if name not in MEASURED}
    if isinstance(rest.get("cv_results_"), dict):
        rest["cv_results_"] = _computed(rest["cv_results_"])
    return rest


def _is(*kinds: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_EXACT = _of(
    "builtins:int", "builtins:str", "builtins:bytes", "builtins:bytearray", "builtins:range", "builtins:slice",
    "builtins:NoneType", "builtins:ellipsis", "builtins:NotImplementedType",
    "datetime:date", "datetime:time", "datetime:timedelta", "datetime:tzinfo", "decimal:Decimal",
    "fractions:Fraction", "uuid:UUID", "pathlib:PurePath", "re:Pattern",
    "pandas._libs.missing:NAType", "pandas._libs.tslibs.offsets:BaseOffset", "pandas._libs.tslibs.nattype:NaTType",
    "pandas._libs.tslibs.period:Period", "pandas._libs.interval:Interval",
    "pandas:Period", "pandas:Interval",
)  # fmt: skip

Rule = Callable[[_Walk, Any, Any, str], Difference | None]
RULES: tuple[tuple[Callable[[Any], bool], Rule], ...] = (
    (_is(io.StringIO, io.BytesIO), _Walk._memory_file),
    (_is(type({}.keys()), type({}.values()), type({}.items())), _Walk._view),
    (_is(*WITHOUT_EQUALITY), _Walk._nothing),
    (_of("pandas.core.groupby.groupby:BaseGroupBy", "pandas.core.window.rolling:BaseWindow"), _Walk._nothing),
    (_is(enum.Enum), _Walk._enum),
    (_of("numpy:generic"), _scalar),
    (_is(float), _Walk._float),
    (_is(complex), _Walk._complex),
    (_EXACT, _Walk._exact),
    (_is(dict, types.MappingProxyType), _Walk._dict),
    (_is(list, tuple, deque), _Walk._sequence),
    (_is(set, frozenset), _Walk._set),
    (_is(types.FunctionType), _Walk._function),
    (_is(types.CodeType), _Walk._code),
    (_is(types.ModuleType), _Walk._module),
    (_is(types.BuiltinFunctionType, types.MethodWrapperType), _Walk._builtin),
    (_is(functools._lru_cache_wrapper), _Walk._wrapper),
    (_is(property, staticmethod, classmethod, functools.cached_property), _Walk._descriptor),
    (_is(functools.partial), _Walk._partial),
    (_is(type), _Walk._class),
    (_of("numpy:ndarray"), _array),
    (_of("numpy:dtype", "pandas.core.dtypes.base:ExtensionDtype", "pandas.api.extensions:ExtensionDtype"), _dtype),
    (_of("numpy.random._generator:Generator"), _generator),
    (_of("numpy.random.mtrand:RandomState"), _random_state),
    (_of("pandas.core.frame:DataFrame", "pandas:DataFrame"), _frame),
    (_of("pandas.core.series:Series", "pandas:Series"), _series),
    (_of("pandas.core.indexes.base:Index", "pandas:Index"), _index),
    (_of("pandas.core.arrays.base:ExtensionArray", "pandas.api.extensions:ExtensionArray"), _extension),
    (_of("polars.dataframe.frame:DataFrame", "polars.series.series:Series"), _equals),
    (_of("pyarrow.lib:Table", "pyarrow.lib:Array", "pyarrow.lib:ChunkedArray", "pyarrow.lib:RecordBatch"), _equals),
    (_of("scipy.sparse._base:_spbase"), _sparse),
    (_of("torch:Tensor", "torch._tensor:Tensor"), _tensor),
    (_of("matplotlib.figure:FigureBase"), _figure),
    (_of("matplotlib.artist:Artist"), _artist),
    (_of("sklearn.base:BaseEstimator"), _estimator),
)
"""What is compared how: the first rule that matches a value decides; `_by_state` for all others."""
