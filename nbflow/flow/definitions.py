"""A cell's top-level statements → definitions and set-up, which are replayed, and data, which travels."""

from __future__ import annotations

import ast
import builtins
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Literal

import msgspec

from nbflow.analysis.cell import Analysis, Statement, analyse, parse_cell
from nbflow.analysis.computing import acting_names, computes_now
from nbflow.analysis.effects import (  # fmt: skip
    NO_DRAWS,
    PROCESS,
    STATES,
    Random,
    calls_in,
    dotted,
    full_name,
    generator_uses,
    made_by,
    made_generators,
    random_uses,
)
from nbflow.analysis.files import NO_FILES, Files, file_uses
from nbflow.analysis.scopes import descend
from nbflow.analysis.source import star_modules
from nbflow.flow.setup_calls import REGISTRATIONS, SETUP_CALLS
from nbflow.model import CellKind, Definition

PieceKind = Literal["definition", "setup", "data"]

CONSTANT_CALLS = frozenset(
    "collections.namedtuple typing.NamedTuple typing.TypeVar typing.NewType typing.ParamSpec typing.TypedDict"
    " typing_extensions.TypedDict dataclasses.make_dataclass enum.Enum enum.IntEnum enum.StrEnum enum.Flag enum.IntFlag"
    " functools.partial functools.lru_cache functools.cache functools.singledispatch functools.cmp_to_key"
    " re.compile pathlib.Path pathlib.PurePath pathlib.PosixPath datetime.date datetime.datetime datetime.timedelta"
    " datetime.timezone datetime.time zoneinfo.ZoneInfo fractions.Fraction uuid.UUID"
    " pydantic.create_model attrs.make_class attr.make_class"
    " operator.itemgetter operator.attrgetter operator.methodcaller importlib.import_module logging.getLogger"
    " numpy.dtype numpy.vectorize string.Template numpy.float32 numpy.float64 numpy.int32 numpy.int64".split()
)
"""Imported names whose call gives a class, a function, a module or an immutable constant."""

BUILTIN_CONSTANT_CALLS = frozenset("int float str bool complex bytes tuple frozenset range object".split())

CARRIED = (
    "sys.path", "sys.setrecursionlimit", "os.environ", "os.chdir", "warnings.filterwarnings", "warnings.simplefilter",
    "warnings.resetwarnings", "matplotlib.rcParams", "matplotlib.pyplot.rcParams", "matplotlib.rc",
    "matplotlib.pyplot.rc", "pandas.options", "pandas.set_option", "numpy.set_printoptions", "numpy.seterr",
    "decimal.getcontext", "decimal.setcontext", "locale.setlocale", "os.umask", "time.tzset",
    "socket.setdefaulttimeout", "gc.disable", "gc.enable", "gc.set_threshold", "sys.setswitchinterval",
    "sys.set_int_max_str_digits", "sklearn.set_config", "matplotlib.colormaps",
)  # fmt: skip
"""What of the process is found by comparing (`process_state.PARTS`): it is set once, and travels by value."""

CARRIED_MAGICS = frozenset({"cd", "env", "set_env"})

PROCESS_STATE = (
    "sys.modules", "os.putenv", "warnings.", "logging.", "locale.", "matplotlib.style.", "matplotlib.pyplot.style.",
    "matplotlib.use", "pandas.set_eng_float_format",
)  # fmt: skip
"""What of the process is known to be state and cannot be carried: replayed even where data goes into it."""

LOOKS = frozenset("get copy items keys values count index".split())
"""Methods of what is carried that change nothing."""

LOGGED = frozenset("debug info warning warn error exception critical fatal log".split())
"""Functions of `logging`, and methods of its loggers, that write a line and set nothing."""

OF_LOGGERS = frozenset("addHandler removeHandler setLevel addFilter removeFilter".split())
"""Methods that set something on a logger, which belongs to the process."""

WARNED = frozenset("warn warn_explicit showwarning formatwarning".split())
"""The same of `warnings`."""

CONFIGURING = re.compile(
    r"(?:set|enable|disable|register|unregister|use|configure|config|initialize|init_|install|apply|setup|activate"
    r"|deactivate)(?![a-z])|init_\w+$|patch_",
    re.IGNORECASE,
)
"""Names of calls that by their looks set something in a library: `tools.configure(…)`."""

SEEDING = re.compile(r"seed", re.IGNORECASE)
"""Names of calls that set a random state, which travels."""

WORD = re.compile(r"\w+")

PLOTTING = ("matplotlib.pyplot.", "pylab.", "seaborn.", "plotly.", "bokeh.", "altair.", "holoviews.")
SETUP_MAGICS = frozenset(
    "matplotlib config load_ext reload_ext autoreload aimport pylab precision xmode colors pprint alias".split()
)


class Piece(msgspec.Struct, frozen=True):
    """One top-level statement with what becomes of it; the name sets include random states."""

    kind: PieceKind
    statement: Statement
    reads: frozenset[str]
    free: frozenset[str]
    free_writes: frozenset[str]
    writes: frozenset[str]
    possible: frozenset[str]
    origins: tuple[tuple[str, str], ...] = ()
    changes: frozenset[str] = frozenset()  # of its writes: those that it changes without binding them
    random: Random = NO_DRAWS
    files: Files = NO_FILES
    registers: bool = False  # a definition that a library gets hold of: replayed whether or not it is used
    computes: frozenset[str] = frozenset()  # names whose call gives something else each time; with `()`: twice called
    acts: bool = False  # making it may change what a module of the notebook's own keeps


_NOTHING: frozenset[str] = frozenset()


class Surroundings(msgspec.Struct, frozen=True):
    """What stands above a cell, and what the notebook binds, as far as the cell has words for it: values alone."""

    origins: tuple[tuple[str, str], ...] = ()  # imports by name
    definitions: frozenset[str] = frozenset()  # names of definitions
    variables: frozenset[str] = frozenset()  # names that some function of the notebook binds anew
    hidden: frozenset[str] = frozenset()  # names of builtins that some cell binds
    generators: frozenset[str] = frozenset()  # names that hold generators of random numbers
    data: frozenset[str] = frozenset()  # names of data
    acting: frozenset[str] = frozenset()  # functions that write names when they are called
    computing: frozenset[str] = frozenset()  # names whose call gives something else each time, as `Piece.computes`
    modules: tuple[tuple[str, frozenset[str]], ...] = ()  # its own ones, each with the names that are no data
    replays_settings: bool = False  # what is set in the process counts as set-up, for who cannot carry it


class SplitCell(msgspec.Struct):
    """A cell's text with what became of it, by what stood around it."""

    analysis: Analysis
    words: frozenset[str]
    pieces: dict[tuple[CellKind, Surroundings], tuple[Piece, ...]] = msgspec.field(default_factory=dict)


_SPLIT: dict[int, SplitCell] = {}
"""By the analyses' ids: each entry keeps its analysis, so that no other one gets that id."""

MOST_SPLIT = 4096
MOST_AROUND = 4
"""Texts that are kept, and in how many surroundings each."""


def split_cell(
    kind: CellKind, analysis: Analysis, around: Callable[[frozenset[str]], Surroundings]
) -> tuple[Piece, ...]:
    """Return a cell's statements as pieces, in order; `around` says what surrounds a cell that has these words.

    A cell comes to the same pieces as long as what surrounds it is the same: of a notebook in which one cell was
    edited, those are split again that have words for what it defines.
    """
    known = _SPLIT.get(id(analysis))
    if known is None:
        if len(_SPLIT) >= MOST_SPLIT:
            _SPLIT.clear()
        known = _SPLIT[id(analysis)] = SplitCell(analysis, frozenset(_words(analysis)))
    key = kind, around(known.words)
    pieces = known.pieces.get(key)
    if pieces is None:
        if len(known.pieces) >= MOST_AROUND:
            known.pieces.clear()
        pieces = known.pieces[key] = _split(*key, analysis)
    return pieces


def _words(analysis: Analysis) -> Iterator[str]:
    """Yield every name that may stand in a cell."""
    for statement in analysis.statements:
        yield from WORD.findall(statement.source)
        if not statement.source.isascii():
            yield from WORD.findall(unicodedata.normalize("NFKC", statement.source))  # as Python has names
        for names in (statement.reads, statement.deferred, statement.deferred_writes, statement.builtin_reads):
            yield from names
        yield from statement.writes
        yield from statement.possible_writes


def _split(kind: CellKind, around: Surroundings, analysis: Analysis) -> tuple[Piece, ...]:
    origins = dict(around.origins)
    generators = around.generators
    local: dict[str, bool] = {}  # bound above in this cell -> whether as a definition

    acting = set[str]()  # functions of this cell whose bodies write names

    def defined(name: str) -> bool:
        return local.get(name, False) if name in local else name in origins or name in around.definitions

    def builtin(name: str) -> bool:
        return name in _BUILTINS and name not in local and name not in around.data and name not in around.definitions

    def acts(name: str) -> bool:
        if name in local:
            return not local[name] or name in acting
        return name not in origins and (name in around.data or name in around.acting)

    modules = dict(around.modules)

    def around_computes(name: str) -> bool:
        return name in around.computing or ("." in name and is_data_of(name, modules))

    computing = set[str]()  # of what is bound above in this cell: what gives something else each time it is called

    def computes(name: str) -> bool:
        return name in computing if name.partition("(")[0] in local else around_computes(name)

    def is_data(name: str) -> bool:
        return not local[name] if name in local else name in around.data

    def is_bound(name: str) -> bool:
        return name in local or name in around.data or defined(name)

    pieces: list[Piece] = []
    for statement in analysis.statements:
        tree = parse_statement(statement)
        sets = _sets(statement, tree, origins)
        if sets:
            piece_kind: PieceKind = "setup" if around.replays_settings else "data"
        else:
            piece_kind = _classify(kind, statement, tree, origins, defined, builtin)
        if piece_kind == "definition" and statement.kind == "assign":
            taken = any(map(is_bound, statement.builtin_reads))  # `dict` is what the notebook has made of it
            # what a module holds is what it held when it was asked: nobody knows what its file holds later
            taken = taken or (tree is not None and _takes_data(tree, origins, modules))
            piece_kind = "data" if taken or statement.writes & around.variables else piece_kind
        handed = frozenset(filter(acts, _decorators(tree)))
        made = tree if statement.kind in ("def", "class") else None
        if handed:
            piece_kind = "data"
        computed = (
            piece_kind == "definition" and made is not None and not around.replays_settings
            and computes_now(made, origins, generators, is_bound, computes, is_data)
        )  # fmt: skip
        if statement.kind == "def" and statement.deferred_writes:
            acting.update(statement.writes)
        origins.update(statement.imports)
        inside = changed_by_class(tree) if piece_kind == "definition" else frozenset[str]()
        for name in (
            statement.writes - inside if piece_kind != "setup" and not sets else ()
        ):  # set-up changes modules, it binds nothing
            local[name] = piece_kind != "data"
            if name not in dict(statement.imports):
                origins.pop(name, None)
        piece = _piece(piece_kind, statement, tree, origins)
        if inside:
            piece = msgspec.structs.replace(piece, writes=piece.writes - inside, changes=inside)
        if piece_kind == "data" and tree is not None and _sets_logger(tree):
            piece = msgspec.structs.replace(piece, writes=piece.writes | {PROCESS})
        if sets and piece_kind == "data":
            # what it sets is no name: neither the module nor its attribute is anybody's data
            piece = msgspec.structs.replace(piece, writes=frozenset({PROCESS}), changes=frozenset())
        generators = (generators - piece.writes) | made_generators(tree, origins)
        piece = msgspec.structs.replace(piece, free=piece.free | statement.builtin_reads & around.hidden)
        computing.difference_update(*({name, f"{name}()"} for name in statement.writes))
        anew = frozenset(acting_names(made, origins, is_bound, computes, lambda _: False) if made is not None else ())
        computing |= anew
        now, late = generator_uses(tree, generators)
        possible = piece.possible | now & piece.reads | handed
        free_writes = piece.free_writes | late & piece.free
        piece = msgspec.structs.replace(piece, possible=possible, free_writes=free_writes, computes=anew)
        if computed:
            asked = frozenset(
                name for name in map(partial(full_name, origins=origins), _called_now(made)) if "." in name
            )
            piece = msgspec.structs.replace(piece, acts=any(map(around_computes, asked)))
        pieces += _parted(piece, statement.writes - inside, tree, origins) if computed else [piece]
    return _settle(pieces)


def _parted(piece: Piece, names: frozenset[str], tree: ast.stmt | None, origins: Mapping[str, str]) -> Iterator[Piece]:
    """Yield a definition that computes as two pieces: what its cell does, once, and what is put in place below.

    The one makes a value, by name that of `made_by`; the other needs that, and the definitions that it is made from.
    """
    made = made_by(names)
    data = _piece("data", piece.statement, tree, origins)
    yield msgspec.structs.replace(
        data, writes=(data.writes - names) | {made}, possible=piece.possible, free=_NOTHING, acts=piece.acts
    )
    yield msgspec.structs.replace(
        piece, reads=(piece.reads - STATES) | {made}, writes=names, possible=_NOTHING, changes=_NOTHING,
        random=NO_DRAWS, files=NO_FILES,
    )  # fmt: skip


def _called_now(tree: ast.stmt | None) -> Iterator[ast.expr]:
    """Yield what making a definition calls, its decorators included."""
    for call, inside in calls_in(tree) if tree is not None else ():
        if not inside:
            yield call.func
    yield from (each for each in getattr(tree, "decorator_list", ()) if not isinstance(each, ast.Call))


def _takes_data(tree: ast.stmt, origins: Mapping[str, str], modules: Mapping[str, frozenset[str]]) -> bool:
    """Return whether an assignment takes what a module of the notebook's own, or a class there, holds as data."""
    places = (node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)) if modules else ()
    return any(is_data_of(full_name(node, origins), modules) for node in places)


def is_data_of(name: str, modules: Mapping[str, frozenset[str]]) -> bool:
    """Return whether a full name is that of data which a module of the notebook's own holds."""
    module = name
    while module and module not in modules:
        module = module.rpartition(".")[0]
    rest = name[len(module) + 1 :]
    return bool(module and rest) and rest not in modules[module]


@lru_cache(maxsize=32_768)
def changed_by_class(tree: ast.stmt | None) -> frozenset[str]:
    """Return the names whose objects a class's body may change when it is run: its cell does that, once."""
    if not isinstance(tree, ast.ClassDef) or not any(map(_acts, tree.body)):
        return frozenset()
    parts = {name: getattr(tree, name) for name in tree._fields}
    alone = ast.ClassDef(**{**parts, "bases": [], "keywords": [], "decorator_list": []})
    body = analyse(ast.unparse(alone))
    return (body.writes | body.may_mutate) - body.definitions


def _acts(statement: ast.stmt) -> bool:
    """Return whether a statement of a class's body does more than bind names of the class."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Pass):
        return False
    if isinstance(statement, ast.ClassDef):
        return any(map(_acts, statement.body))
    kinds = (ast.Call, ast.AugAssign, ast.Attribute, ast.Subscript)
    stores = (node for node in ast.walk(statement) if isinstance(node, kinds))
    return any(not isinstance(getattr(node, "ctx", None), ast.Load) for node in stores)


def parse_statement(statement: Statement) -> ast.stmt | None:
    """Return a statement's syntax tree; None where it is not Python by itself."""
    return parsed(statement.source)


def global_names(source: str) -> frozenset[str]:
    """Return the names that functions in a cell declare `global`."""
    if "global " not in source:
        return frozenset()
    tree = parse_cell(source)
    if tree is None:
        return frozenset()
    return frozenset(name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)


@lru_cache(maxsize=32_768)
def parsed(source: str) -> ast.stmt | None:
    """Return the syntax tree of one statement, None where its text is not one of Python.

    Kept by text: of a cell that was edited only the edited statements are parsed again, and what is kept by a tree
    holds for the others. Lines count from the statement's first.
    """
    tree = parse_cell(source)
    return tree.body[0] if tree is not None and len(tree.body) == 1 else None


def generators_after(pieces: tuple[Piece, ...], before: frozenset[str], origins: Mapping[str, str]) -> frozenset[str]:
    """Return the names of generators below a cell, from those above it."""
    for piece in pieces:
        before = (before - piece.writes) | made_generators(parse_statement(piece.statement), origins)
    return before


def _settle(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Turn assignments into data whose names data statements of the same cell write or change."""
    while True:
        data = frozenset[str]().union(*(p.writes | p.possible for p in pieces if p.kind == "data"))
        changed = [
            msgspec.structs.replace(piece, kind="data")
            if piece.kind == "definition" and piece.statement.kind == "assign" and piece.writes & data
            else piece
            for piece in pieces
        ]
        if changed == pieces:
            return tuple(pieces)
        pieces = changed


def _piece(kind: PieceKind, statement: Statement, tree: ast.stmt | None, origins: Mapping[str, str]) -> Piece:
    random = random_uses(tree, origins) if tree is not None else NO_DRAWS
    reads = frozenset(statement.reads) | random.draws
    writes = frozenset(statement.writes) if kind != "setup" else frozenset()
    possible = frozenset(statement.possible_writes)
    if tree is not None and _is_plotting(tree, origins):
        possible = frozenset()
    return Piece(
        kind=kind,
        statement=statement,
        reads=reads,
        free=frozenset(statement.deferred) | random.late_draws,
        free_writes=frozenset(statement.deferred_writes) | random.late_seeds,
        writes=writes | random.seeds | random.draws,
        possible=possible,
        origins=tuple(statement.imports),
        changes=writes - _bound_names(tree) - dict(statement.imports).keys() if tree is not None else frozenset(),
        random=random,
        files=file_uses(statement.source, tree, origins),
        registers=tree is not None and _registers(tree, origins),
    )


def _decorators(tree: ast.stmt | None) -> Iterator[str]:
    """Yield the names on which the decorators of a function are called: `app` of `@app.route("/")`."""
    if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
        for decorator in tree.decorator_list:
            yield dotted(decorator.func if isinstance(decorator, ast.Call) else decorator).partition(".")[0]


def _registers(tree: ast.stmt, origins: Mapping[str, str]) -> bool:
    """Return whether a decorator hands a definition to something: one of the table to a library, another to a class."""
    decorators = (d.func if isinstance(d, ast.Call) else d for d in getattr(tree, "decorator_list", ()))
    return any(full_name(decorator, origins) in REGISTRATIONS for decorator in decorators) or _is_method(tree)


def adds_method(definition: Definition) -> bool:
    """Return whether a definition is a function that its decorator makes a method of some class."""
    return definition.source.startswith("@") and any(map(_is_method, ast.parse(definition.source).body))


def _is_method(tree: ast.stmt) -> bool:
    """Return whether a function outside of any class is made a class's method by its decorator.

    Its first parameter says so: `@patch def fit(self: Learner)`, `@add_to_class(Learner) def fit(self)`. Instances and
    subclasses have the method too, in steps that name neither.
    """
    if not isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef) or not tree.decorator_list:
        return False
    first = next(iter((*tree.args.posonlyargs, *tree.args.args)), None)
    given = any(isinstance(decorator, ast.Call) and decorator.args for decorator in tree.decorator_list)
    return first is not None and first.arg in ("self", "cls") and (given or first.annotation is not None)


@lru_cache(maxsize=32_768)
def _bound_names(tree: ast.stmt) -> frozenset[str]:
    """Return the names that a statement may bind or delete, in whichever scope."""
    names: set[str] = set()
    for node in descend(tree):
        match node:
            case ast.Name(name):
                if not isinstance(node.ctx, ast.Load):
                    names.add(name)
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
            case ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.alias(name, alias):
                names.add((alias or name).split(".")[0])
            case ast.Global(declared):
                names.update(declared)
    return frozenset(names)


def _classify(
    cell: CellKind,
    statement: Statement,
    tree: ast.stmt | None,
    origins: Mapping[str, str],
    defined: Callable[[str], bool],
    builtin: Callable[[str], bool],
) -> PieceKind:
    """Return what becomes of a statement: the first rule that fits decides, data is what remains."""
    if statement.kind == "magic":
        return "setup" if _magic_of(statement) in SETUP_MAGICS else "data"
    if statement.kind == "import" and not statement.imports and star_modules(statement.source):
        return "setup"  # which names it brings nobody knows: every task below has them
    if statement.kind in ("import", "def", "class"):
        return "definition"
    if tree is None:
        return "data"
    if _is_setup(tree, statement.reads, origins, defined):
        return "setup"
    if cell == "plain" and statement.kind == "assign":
        own = {name: name for name in _names(tree) if builtin(name)}  # `NewType("UserId", int)`
        return "definition" if _is_constant(tree, {**own, **origins}, defined) else "data"
    return "data"


# ---------------------------------------------------------------- definitions by assignment


def _is_constant(tree: ast.stmt, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    """Return whether an assignment can be replayed instead of stored: `N = 10`, `F = g`, `P = namedtuple(...)`."""
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
            return defined(name) or name in origins or name == "__name__"  # the same in every task
        case ast.Attribute():
            return dotted(value).split(".")[0] in origins  # of a module: what a class holds may change
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
    """Return whether an argument cannot change later: constants, definitions, and displays of such."""
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


def _sets(statement: Statement, tree: ast.stmt | None, origins: Mapping[str, str]) -> bool:
    """Return whether a statement does nothing but set what comparing the process finds."""
    if statement.kind == "magic":
        return _magic_of(statement) in CARRIED_MAGICS
    return tree is not None and _sets_only(tree, origins)


def _sets_logger(tree: ast.stmt) -> bool:
    """Return whether a statement sets something on a logger, or on whatever has methods of those names."""
    calls = (call.func for call, inside in calls_in(tree) if not inside)
    return any(isinstance(function, ast.Attribute) and function.attr in OF_LOGGERS for function in calls)


def _magic_of(statement: Statement) -> str:
    """Return the name of a line magic, an empty string for `!command` and the like."""
    text = statement.source.strip()
    return text.lstrip("%").split(None, 1)[0] if text.startswith("%") and text.strip("%") else ""


def _sets_only(tree: ast.stmt, origins: Mapping[str, str]) -> bool:
    if isinstance(tree, ast.If):
        return all(_sets_only(part, origins) for part in (*tree.body, *tree.orelse))
    if _tells(tree, origins):
        return False
    setting = _touched(tree, origins) or _called_on(tree, origins)
    return setting.rpartition(".")[2] not in LOOKS and _is_under(setting, CARRIED)


def _is_setup(
    tree: ast.stmt, reads: frozenset[str], origins: Mapping[str, str], defined: Callable[[str], bool]
) -> bool:
    """Return whether a statement only changes the state of the process."""
    # Set-up is replayed in every task, so it must be harmless to repeat and need no data. Of calls only those of the
    # table are; any other one runs once, at its place. An assignment to a part of a module is, unless its value is made
    # by a call.
    if isinstance(tree, ast.If):
        inner = [*tree.body, *tree.orelse]
        return bool(inner) and all(_is_setup(part, _names(part), origins, defined) for part in inner)
    if _tells(tree, origins):
        return False
    setting = _touched(tree, origins) or _called_on(tree, origins)
    if _is_under(setting, PROCESS_STATE):
        return True
    if isinstance(tree, ast.Expr):
        replayed = _is_under(setting, SETUP_CALLS)
    else:
        replayed = bool(_touched(tree, origins)) and not _makes(tree, origins, defined)
    return replayed and all(defined(name) for name in reads if name not in _BUILTINS)


def _makes(tree: ast.stmt, origins: Mapping[str, str], defined: Callable[[str], bool]) -> bool:
    """Return whether an assignment's value comes from a call that may do more than give a constant."""
    value = getattr(tree, "value", None)
    return (
        any(
            not inside and not _constant_call(call, full_name(call.func, origins), origins, defined)
            for call, inside in calls_in(value)
        )
        if value is not None
        else False
    )


def sets_here(piece: Piece, origins: Mapping[str, str]) -> str:
    """Return what of a library a statement sets in its own process alone, as far as its text tells; "" for nothing.

    It is no set-up, so it runs once; and nobody knows what to compare, so it is not carried.
    """
    tree = parse_statement(piece.statement)
    if piece.kind != "data" or tree is None or PROCESS in piece.writes or _tells(tree, origins):
        return ""
    touched = _touched(tree, origins)
    if isinstance(tree, ast.Expr):
        last = touched.rpartition(".")[2]
        configures = CONFIGURING.match(last) is not None and not SEEDING.search(last)
        return touched if configures and not touched.startswith((*PLOTTING, "nbflow")) else ""
    return touched


def _tells(tree: ast.stmt, origins: Mapping[str, str]) -> bool:
    """Return whether a statement only writes a line to a log or warns: `logging.info(…)`, `warnings.warn(…)`."""
    match tree:
        case ast.Expr(value=ast.Call(func=function)):
            module, _, last = _touched(tree, origins).rpartition(".")
            logged = module.partition(".")[0] == "logging" or _called_on(tree, origins) == "logging.getLogger"
            method = function.attr if isinstance(function, ast.Attribute) else last
            return (logged and method in LOGGED) or (module == "warnings" and last in WARNED)
    return False


_BUILTINS = frozenset(dir(builtins))


def _names(tree: ast.AST) -> frozenset[str]:
    return frozenset(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )


def _touched(tree: ast.stmt, origins: Mapping[str, str]) -> str:
    """Return the imported thing whose state a statement changes, as `module.attribute`; "" for none."""
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


def _called_on(tree: ast.stmt, origins: Mapping[str, str]) -> str:
    """Return the imported function whose result a statement changes: `getcontext().prec = 10`; "" for none."""
    targets = tree.targets if isinstance(tree, ast.Assign) else [tree.value] if isinstance(tree, ast.Expr) else []
    place: ast.expr = targets[0].func if targets and isinstance(targets[0], ast.Call) else ast.Tuple([], ast.Load())
    place = targets[0] if len(targets) == 1 and isinstance(targets[0], ast.Attribute | ast.Subscript) else place
    while isinstance(place, ast.Attribute | ast.Subscript):
        place = place.value
    if not isinstance(place, ast.Call) or dotted(place.func).split(".")[0] not in origins:
        return ""
    return full_name(place.func, origins)


def _is_under(name: str, listed: tuple[str, ...]) -> bool:
    """Return whether a dotted name is one of those listed, or a part of one."""
    return name in listed or (name != "" and name.startswith(_prefixes(listed)))


@lru_cache(maxsize=8)
def _prefixes(listed: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(prefix if prefix.endswith(".") else f"{prefix}." for prefix in listed)


def _is_plotting(tree: ast.stmt, origins: Mapping[str, str]) -> bool:
    """Return whether a statement is one call into a plotting or logging library, which changes nothing it shows."""
    touched = _touched(tree, origins)
    return touched.startswith((*PLOTTING, "logging.", "IPython.display.", "pprint."))


OF_PROPERTIES = frozenset({"setter", "getter", "deleter"})
HEARS = re.compile(r"__init_subclass__|\bmetaclass\s*=|\(type\)|__set_name__")
"""A class with this in its source may be told of its subclasses."""


def attached_to(
    tree: ast.stmt | None,
    definitions: Sequence[Definition],
    family: Callable[[str], set[int]],
    *,
    listed: bool,
) -> Iterator[str]:
    """Yield the names that a definition leaves something with: a class it registers with, a function it extends.

    `family` returns the orders of all definitions that a name needs; `listed` tells that the notebook asks classes for
    their subclasses.
    """
    for decorator in getattr(tree, "decorator_list", []):
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        root, _, rest = dotted(function).partition(".")
        if rest and rest not in OF_PROPERTIES:
            yield root
    if not isinstance(tree, ast.ClassDef):
        return
    for base in (*tree.bases, *(keyword.value for keyword in tree.keywords)):
        above = [definitions[order] for order in family(dotted(base).partition(".")[0])]
        classes = [each for each in above if not each.origins and "class " in each.source]
        if listed or any(HEARS.search(each.source) for each in classes):
            yield from (name for each in classes for name in each.names)
