"""Frozen types in which the analysis of a cell answers, and the tables of names that it goes by."""

import builtins
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

StatementKind = Literal["import", "def", "class", "assign", "call", "magic", "other"]
ValueKind = Literal["literal", "name", "call", "other"]

NO_NAMES: frozenset[str] = frozenset()

Pairs = tuple[tuple[str, str], ...]
"""Names that an import binds, each with the full name of what it is."""

NO_STARS: Mapping[str, Pairs] = {}


class Diagnostic(msgspec.Struct, frozen=True):
    """Something in a cell that analysis cannot see through: code, place (line from 1, column from 0), name, advice."""

    code: str
    line: int
    column: int
    name: str
    message: str
    hint: str


class AssignedValue(msgspec.Struct, frozen=True):
    """The right-hand side of an assignment, as far as its shape tells."""

    kind: ValueKind
    callee: str | None
    names: frozenset[str]


class DiscardedCall(msgspec.Struct, frozen=True):
    """A call whose result is dropped: the root name of its callee, the dotted callee, the names passed on."""

    line: int
    root: str | None  # `model` of model.fit(X), `shuffle` of shuffle(x), None where the callee has no name
    callee: str | None  # "model.fit"; None where the callee is more than a dotted name
    is_method: bool  # an attribute of the root is called, not the root itself
    arguments: frozenset[str]


class Statement(msgspec.Struct, frozen=True):
    """One top-level statement of a cell: where it stands, what kind it is, what it reads and writes."""

    line: int
    end_line: int
    source: str  # as the user wrote it, decorators and IPython syntax included
    kind: StatementKind
    reads: frozenset[str] = NO_NAMES  # while the statement runs, names bound earlier in the cell included
    deferred: frozenset[str] = NO_NAMES  # by bodies made here, when they are called
    deferred_writes: frozenset[str] = NO_NAMES
    builtin_reads: frozenset[str] = NO_NAMES  # builtins that the statement or its bodies take
    hints: frozenset[str] = NO_NAMES  # names in annotations that are kept as text
    writes: frozenset[str] = NO_NAMES
    possible_writes: frozenset[str] = NO_NAMES
    deletes: frozenset[str] = NO_NAMES
    value: AssignedValue | None = None
    call: str | None = None
    imports: tuple[tuple[str, str], ...] = ()


class Analysis(msgspec.Struct, frozen=True):
    """What a cell takes from before it and leaves behind, found without running it."""

    reads: frozenset[str] = NO_NAMES
    writes: frozenset[str] = NO_NAMES
    may_mutate: frozenset[str] = NO_NAMES
    deletes: frozenset[str] = NO_NAMES
    conditional: frozenset[str] = NO_NAMES  # of writes and deletes: those that may not happen
    private: frozenset[str] = NO_NAMES
    definitions: frozenset[str] = NO_NAMES
    diagnostics: tuple[Diagnostic, ...] = ()
    possible_writes: frozenset[str] = NO_NAMES
    sure_reads: frozenset[str] = NO_NAMES
    optional_reads: frozenset[str] = NO_NAMES  # of reads: those seen only in `$name` or `{expr}` of a shell line
    builtin_reads: frozenset[str] = NO_NAMES  # builtins that an earlier cell may have replaced
    hints: frozenset[str] = NO_NAMES  # names in annotations that are kept as text: nobody reads them, some ask later
    iterated: frozenset[str] = NO_NAMES  # names that a loop runs over: changed if they are iterators
    discarded_calls: tuple[DiscardedCall, ...] = ()
    body: str = ""
    statements: tuple[Statement, ...] = ()
    awaits: bool = False
    line_magics: tuple[str, ...] = ()
    cell_magic: str | None = None


BUILTINS: frozenset[str] = frozenset(dir(builtins)) - {"_"} | {
    "display", "get_ipython", "exit", "quit", "__IPYTHON__", "aiter", "anext", "ExceptionGroup", "BaseExceptionGroup",
    "EncodingWarning", "PythonFinalizationError",
}  # fmt: skip

# What Python and IPython put into every module: never data of an earlier cell.
MODULE_GLOBALS: frozenset[str] = frozenset({
    "__name__", "__file__", "__doc__", "__builtins__", "__builtin__", "__spec__", "__loader__", "__package__",
    "__annotations__", "__dict__", "__class__", "__module__", "__qualname__", "__debug__", "__path__", "__cached__",
    "__classdict__", "__conditional_annotations__", "__firstlineno__", "__static_attributes__", "__type_params__",
})  # fmt: skip

_HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|In|Out|_[iod]h|_exit_code")


def is_hidden_state(name: str) -> bool:
    """Return whether IPython keeps its history of results or inputs under a name."""
    return name[0] in "_IO" and _HISTORY.fullmatch(name) is not None


# Calls of these look at their arguments and leave them as they are.
PURE_BUILTINS: frozenset[str] = frozenset({
    "len", "isinstance", "issubclass", "type", "id", "hash", "callable", "repr", "ascii", "hasattr", "range", "bool",
    "abs", "round", "chr", "ord", "hex", "bin", "oct", "format", "str", "int", "float", "complex",
})  # fmt: skip
EXEMPT_FUNCTIONS: frozenset[str] = frozenset({"print", "display", "pprint", "pp"})
EXEMPT_CALLS: frozenset[str] = frozenset({"time.sleep", "asyncio.sleep"})
EXEMPT_ROOTS: frozenset[str] = frozenset({
    "plt", "sns", "px", "alt", "logging", "logger", "log", "_logger", "_log", "LOGGER", "LOG", "warnings",
})  # fmt: skip
EXEMPT_MODULES: frozenset[str] = frozenset({
    "matplotlib", "seaborn", "plotly", "altair", "bokeh", "logging", "loguru", "structlog", "warnings", "pprint",
    "IPython",
})  # fmt: skip
PLOT_METHODS: frozenset[str] = frozenset({"plot", "hist", "boxplot"})

# Names that hold a module in nearly every notebook, for cells that do not import them themselves.
USUAL_MODULES: frozenset[str] = frozenset({
    "np", "pd", "pl", "plt", "sns", "tf", "nx", "xgb", "lgb", "torch", "scipy", "sklearn", "random", "os", "sys", "gc",
    "shutil", "json", "pickle", "joblib", "math", "time", "itertools", "functools",
})  # fmt: skip

# Decorators that keep the function for later and do not call it now.
INERT_DECORATORS: frozenset[str] = frozenset({
    "dataclass", "property", "staticmethod", "classmethod", "lru_cache", "cache", "cached_property", "wraps",
    "contextmanager", "asynccontextmanager", "abstractmethod", "total_ordering", "overload", "override", "final",
    "setter", "getter", "deleter", "singledispatch", "singledispatchmethod", "runtime_checkable", "define", "frozen",
    "njit", "jit", "vectorize", "no_grad", "inference_mode", "retry", "delayed", "task", "fixture", "unique",
})  # fmt: skip

ADVICE: Mapping[str, str] = {
    "syntax": "Correct the cell; until it parses, it has neither inputs nor outputs.",
    "star-import": "Import the names that you use, or the module itself.",
    "dynamic": "Use plain names, or say what the step takes and gives with --in and --out.",
    "hidden-state": "Give the value a name in the cell that makes it and use that name here.",
    "run-magic": "Put the code into this notebook or import it as a module; --in and --out say what it exchanges.",
}
