"""A cell's top-level statements → definitions and set-up, which are replayed, and data, which travels."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from nbflow.analysis import Analysis, Statement, transform
from nbflow.model import CellKind

PieceKind = Literal["definition", "setup", "data"]

CONSTANT_CALLS = frozenset(
    "collections.namedtuple typing.NamedTuple typing.TypeVar typing.NewType typing.ParamSpec typing.TypedDict"
    " typing_extensions.TypedDict dataclasses.make_dataclass enum.Enum enum.IntEnum enum.StrEnum enum.Flag enum.IntFlag"
    " functools.partial functools.lru_cache functools.cache functools.singledispatch functools.cmp_to_key"
    " re.compile pathlib.Path pathlib.PurePath pathlib.PosixPath datetime.date datetime.datetime datetime.timedelta"
    " datetime.timezone datetime.time zoneinfo.ZoneInfo decimal.Decimal fractions.Fraction uuid.UUID"
    " operator.itemgetter operator.attrgetter operator.methodcaller importlib.import_module logging.getLogger"
    " numpy.dtype numpy.vectorize string.Template numpy.float32 numpy.float64 numpy.int32 numpy.int64".split()
)
"""Imported names whose call gives a class, a function, a module or an immutable constant."""

BUILTIN_CONSTANT_CALLS = frozenset("int float str bool complex bytes tuple frozenset range".split())

PROCESS_STATE = (
    "sys.path", "sys.setrecursionlimit", "sys.modules", "os.environ", "os.putenv", "os.chdir", "os.umask",
    "warnings.", "logging.", "locale.", "matplotlib.rcParams", "matplotlib.pyplot.rcParams", "matplotlib.style.",
    "matplotlib.pyplot.style.", "matplotlib.use", "matplotlib.rc", "matplotlib.pyplot.rc",
    "pandas.options", "pandas.set_option", "pandas.set_eng_float_format", "numpy.set_printoptions", "numpy.seterr",
    "socket.setdefaulttimeout", "decimal.getcontext", "decimal.setcontext",
)  # fmt: skip
"""What of the process is known to be state: replayed even where data goes into it."""

NO_SETUP = (
    "time.", "subprocess.", "shutil.", "requests.", "urllib.", "http.", "IPython.", "tqdm", "glob.", "pickle.", "json.",
    "joblib.dump", "gc.", "asyncio.", "os.", "pprint.", "timeit.", "unittest.", "doctest.", "cloudpickle.", "nbflow",
    "random.", "numpy.random.", "numpy.save", "numpy.testing.", "pandas.testing.", "csv.", "webbrowser.", "sqlite3.",
    "textwrap.", "traceback.", "heapq.", "bisect.", "cProfile.", "pdb.", "threading.", "multiprocessing.", "inspect.",
)  # fmt: skip
"""Imported things whose discarded calls act on files, the screen, the clock or their arguments, not on the process."""

PLOTTING = ("matplotlib.pyplot.", "pylab.", "seaborn.", "plotly.", "bokeh.", "altair.", "holoviews.")
PLOT_SETUP = frozenset(
    "use set_theme set set_style set_palette set_context"
    " rc rcdefaults ion ioff switch_backend output_notebook extension"
    " renderers register_theme".split()
)
SETUP_MAGICS = frozenset(
    "matplotlib config load_ext reload_ext autoreload aimport env"
    " set_env cd pylab precision xmode colors pprint alias".split()
)

RANDOM_STATES: Mapping[str, tuple[str, frozenset[str]]] = {
    "random.": ("<random>", frozenset({"seed", "setstate"})),
    "numpy.random.": ("<numpy.random>", frozenset({"seed", "set_state"})),
    "torch.": ("<torch>", frozenset({"manual_seed", "set_rng_state", "seed"})),
}
"""Import prefix -> the name that its global random state goes by, and the calls that seed it."""

_RANDOM_ROOTS = ("random", "numpy", "torch")
_NO_DRAW = frozenset(
    "Random SystemRandom getstate get_state default_rng Generator RandomState SeedSequence BitGenerator PCG64 PCG64DXSM"
    " MT19937 Philox SFC64".split()
)
_TORCH_DRAWS = frozenset(
    "rand randn randint randperm bernoulli multinomial normal poisson rand_like randn_like randint_like dropout".split()
)


@dataclass(frozen=True)
class Piece:
    """One top-level statement with what becomes of it; the name sets include random states."""

    kind: PieceKind
    statement: Statement
    reads: frozenset[str]
    free: frozenset[str]
    free_writes: frozenset[str]
    writes: frozenset[str]
    possible: frozenset[str]
    origins: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Surroundings:
    """What is known above a cell: imports by name, and whether a name is a definition there."""

    origins: Mapping[str, str]
    is_definition: Callable[[str], bool]


def split_cell(kind: CellKind, analysis: Analysis, around: Surroundings) -> tuple[Piece, ...]:
    """A cell's kind, analysis and surroundings in; its statements as pieces, in order, out."""
    origins = dict(around.origins)
    local: dict[str, bool] = {}  # bound above in this cell -> whether as a definition

    def defined(name: str) -> bool:
        return local.get(name, False) if name in local else name in origins or around.is_definition(name)

    pieces = []
    for statement in analysis.statements:
        tree = parse_statement(statement)
        piece_kind = _classify(kind, statement, tree, origins, defined)
        origins.update(statement.imports)
        for name in statement.writes:
            local[name] = piece_kind != "data"
            if name not in dict(statement.imports):
                origins.pop(name, None)
        pieces.append(_piece(piece_kind, statement, tree, origins))
    return _settle(pieces)


def parse_statement(statement: Statement) -> ast.stmt | None:
    """A statement in; its syntax tree, None where it is not Python by itself, out."""
    return _parse_text(statement.source)


@lru_cache(maxsize=8192)
def _parse_text(source: str) -> ast.stmt | None:
    """Kept by text: of a cell that was edited only the edited statements are parsed again."""
    try:
        body = ast.parse(transform(source)).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    return body[0] if len(body) == 1 else None


def _settle(pieces: list[Piece]) -> tuple[Piece, ...]:
    """An assignment is data after all when data statements of its cell write or change its name."""
    while True:
        data = frozenset[str]().union(*(p.writes | p.possible for p in pieces if p.kind == "data"))
        changed = [
            replace(piece, kind="data")
            if piece.kind == "definition" and piece.statement.kind == "assign" and piece.writes & data
            else piece
            for piece in pieces
        ]
        if changed == pieces:
            return tuple(pieces)
        pieces = changed


def _piece(kind: PieceKind, statement: Statement, tree: ast.stmt | None, origins: Mapping[str, str]) -> Piece:
    drawing = any(origin.startswith(_RANDOM_ROOTS) for origin in origins.values())
    seeds, draws, late = random_uses(statement, origins) if drawing else (frozenset(), frozenset(), frozenset())
    reads = frozenset(statement.reads) | draws
    possible = frozenset(statement.possible_writes)
    if tree is not None and _is_plotting(tree, origins):
        possible = frozenset()
    return Piece(
        kind=kind,
        statement=statement,
        reads=reads,
        free=frozenset(statement.deferred) | late,
        free_writes=frozenset(statement.deferred_writes) | late,
        writes=frozenset(statement.writes) | seeds | draws,
        possible=possible,
        origins=tuple(statement.imports),
    )


def _classify(
    cell: CellKind,
    statement: Statement,
    tree: ast.stmt | None,
    origins: Mapping[str, str],
    defined: Callable[[str], bool],
) -> PieceKind:
    """One statement in; the first rule that fits decides; data is what is left."""
    if statement.kind == "magic":
        name = (
            statement.source.strip().lstrip("%").split(None, 1)[0] if statement.source.strip().startswith("%") else ""
        )
        return "setup" if name in SETUP_MAGICS else "data"
    if statement.kind in ("import", "def", "class"):
        return "definition"
    if tree is None:
        return "data"
    if _is_setup(tree, statement.reads, origins, defined):
        return "setup"
    if cell == "plain" and statement.kind == "assign" and _is_constant(tree, origins, defined):
        return "definition"
    return "data"


# ---------------------------------------------------------------- definitions by assignment


def _is_constant(tree: ast.stmt, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    """`N = 10`, `F = g`, `Point = namedtuple(...)`: assignments that can be replayed instead of stored."""
    if isinstance(tree, ast.Assign):
        names_only = all(isinstance(target, ast.Name) for target in tree.targets)
        return names_only and _constant_value(tree.value, origins, defined)
    if isinstance(tree, ast.AnnAssign):
        return (
            isinstance(tree.target, ast.Name)
            and tree.value is not None
            and _constant_value(tree.value, origins, defined)
        )
    return False


def _constant_value(value: ast.expr, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    match value:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return defined(name)
        case ast.Attribute():
            root = dotted(value).split(".")[0]
            return bool(root) and defined(root)
        case ast.UnaryOp(operand=operand):
            return _constant_value(operand, origins, defined)
        case ast.BinOp(left=left, right=right):
            return _constant_value(left, origins, defined) and _constant_value(right, origins, defined)
        case ast.Tuple(elts=parts):
            return all(_constant_value(part, origins, defined) for part in parts)
        case ast.Subscript(value=base, slice=index):  # list[int], Optional[str]
            return _is_type_alias(base, origins) and _alias_part(index, origins, defined)
        case ast.JoinedStr(values=parts):
            return all(
                _constant_value(part.value, origins, defined) if isinstance(part, ast.FormattedValue) else True
                for part in parts
            )
        case ast.Call(func=function):
            return _constant_call(value, full_name(function, origins), origins, defined)
    return False


def _constant_call(call: ast.Call, callee: str, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    builtin = callee in BUILTIN_CONSTANT_CALLS and not defined(callee)
    if not builtin and callee not in CONSTANT_CALLS:
        return False
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(_plain_argument(argument, origins, defined) for argument in arguments)


def _plain_argument(value: ast.expr, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    """An argument that cannot change later: constants, definitions, and displays of such."""
    match value:
        case ast.List(elts=parts) | ast.Set(elts=parts):
            return all(_plain_argument(part, origins, defined) for part in parts)
        case ast.Dict(keys=keys, values=values):
            return all(_plain_argument(part, origins, defined) for part in [*keys, *values] if part is not None)
        case ast.Starred(value=inner):
            return _plain_argument(inner, origins, defined)
    return _constant_value(value, origins, defined)


def _is_type_alias(base: ast.expr, origins: Mapping[str, str]) -> bool:
    name = full_name(base, origins)
    return name in ("list", "dict", "tuple", "set", "frozenset", "type") or name.startswith(
        ("typing.", "collections.abc.")
    )


def _alias_part(value: ast.expr, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    if isinstance(value, ast.Tuple | ast.List):
        return all(_alias_part(part, origins, defined) for part in value.elts)
    if isinstance(value, ast.Name):
        return True  # a builtin type, or a definition; data here would make a class of a value
    return _constant_value(value, origins, defined)


# ---------------------------------------------------------------- set-up


def _is_setup(
    tree: ast.stmt, reads: frozenset[str], origins: Mapping[str, str], defined: Callable[[str], bool]
) -> bool:
    """Whether a statement only changes the state of the process."""
    if isinstance(tree, ast.If):
        inner = [*tree.body, *tree.orelse]
        return bool(inner) and all(_is_setup(part, _names(part), origins, defined) for part in inner)
    touched = _touched(tree, origins)
    if not touched:
        return False
    if any(_is_under(touched, prefix) for prefix in PROCESS_STATE):
        return True
    if not isinstance(tree, ast.Expr) and not isinstance(tree, ast.Assign | ast.AugAssign | ast.Delete):
        return False
    if any(_is_under(touched, prefix) for prefix in NO_SETUP):
        return False
    if any(touched.startswith(prefix) for prefix in PLOTTING):
        return touched.rsplit(".", 1)[-1] in PLOT_SETUP
    return all(defined(name) for name in reads if name not in _BUILTINS)


_BUILTINS = frozenset(dir(builtins))


def _names(tree: ast.AST) -> frozenset[str]:
    return frozenset(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )


def _touched(tree: ast.stmt, origins: Mapping[str, str]) -> str:
    """The imported thing whose state a statement changes, as `module.attribute`; "" when it is none."""
    match tree:
        case ast.Expr(value=ast.Call(func=function)):
            place: ast.expr = function
        case ast.Expr(value=ast.Await()):
            return ""
        case ast.Assign(targets=[(ast.Attribute() | ast.Subscript()) as target]):
            place = target
        case ast.AugAssign(target=(ast.Attribute() | ast.Subscript()) as target):
            place = target
        case ast.Delete(targets=[(ast.Attribute() | ast.Subscript()) as target]):
            place = target
        case _:
            return ""
    while isinstance(place, ast.Subscript):
        place = place.value
    root = dotted(place).split(".")[0]
    return full_name(place, origins) if root in origins else ""


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix if prefix.endswith(".") else f"{prefix}.")


def _is_plotting(tree: ast.stmt, origins: Mapping[str, str]) -> bool:
    """Whether a statement is one call into a plotting or logging library: such calls do not change what they show."""
    touched = _touched(tree, origins)
    return touched.startswith((*PLOTTING, "logging.", "IPython.display.", "pprint."))


# ---------------------------------------------------------------- names


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text, "" for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def full_name(node: ast.expr, origins: Mapping[str, str]) -> str:
    """A dotted expression in; the same with its root as it was imported, `np.random` as `numpy.random`, out."""
    root, dot, rest = dotted(node).partition(".")
    return f"{origins.get(root, root)}{dot}{rest}"


def random_uses(
    statement: Statement, origins: Mapping[str, str]
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """A statement in; random states that it seeds, draws from at once, and uses in bodies made here, out."""
    seeds: set[str] = set()
    draws: set[str] = set()
    late: set[str] = set()
    for callee, inside in _calls(statement.source):
        root, dot, rest = callee.partition(".")
        state, seeding = _random_call(f"{origins.get(root, root)}{dot}{rest}")
        if state:
            (late if inside else seeds if seeding else draws).add(state)
    return frozenset(seeds), frozenset(draws), frozenset(late)


@lru_cache(maxsize=8192)
def _calls(source: str) -> tuple[tuple[str, bool], ...]:
    """A statement's text in; the dotted names that it calls, each with whether a body made here does, out."""
    found: dict[tuple[str, bool], None] = {}

    def visit(node: ast.AST, inside: bool) -> None:
        inner = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Call) and (callee := dotted(node.func)):
            found[callee, inner] = None
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    tree = _parse_text(source)
    if tree is not None:
        visit(tree, inside=False)
    return tuple(found)


def _random_call(name: str) -> tuple[str, bool]:
    for prefix, (state, seeding) in RANDOM_STATES.items():
        if not name.startswith(prefix):
            continue
        call = name[len(prefix) :]
        if call in seeding:
            return state, True
        if prefix == "torch." and call.rsplit(".", 1)[-1] not in _TORCH_DRAWS:
            return "", False
        return ("", False) if ("." in call and prefix != "torch.") or call in _NO_DRAW else (state, False)
    return "", False
