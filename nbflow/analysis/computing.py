"""Which calls give something else the next time: a definition that makes one when it is made is executed once. Pure.

Clocks, random numbers, files, sockets, child processes, iterators; methods of data, which they may change; functions of
the notebook and of its own modules that make such a call, or change what their module keeps. Functions of libraries
that stand in no table are taken to give the same again: `dataclass`, `njit`, `Column(Integer)`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping

from nbflow.analysis.effects import calls_in, dotted, full_name, generator_uses, random_uses
from nbflow.analysis.scopes import descend
from nbflow.analysis.touching import METHODS as LOOKS

BUILTINS = frozenset("next open input id".split())

ANEW = frozenset(
    # clocks
    "time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns time.process_time"
    " time.process_time_ns time.thread_time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today"
    " datetime.date.today pandas.Timestamp.now pandas.Timestamp.utcnow pandas.Timestamp.today pendulum.now"
    " pendulum.today arrow.now arrow.utcnow"
    # what is drawn or given out
    " uuid.uuid1 uuid.uuid4 os.urandom os.getpid os.getppid random.SystemRandom".split()
)
"""Functions, by their full names, that give something else whenever they are called."""

CALLS = ANEW | frozenset(
    "itertools.count"
    # files
    " io.open json.load pickle.load tomllib.load toml.load yaml.load yaml.safe_load joblib.load numpy.load"
    " numpy.loadtxt numpy.genfromtxt numpy.fromfile numpy.memmap csv.reader csv.DictReader gzip.open bz2.open lzma.open"
    " zipfile.ZipFile tarfile.open os.listdir os.scandir os.walk os.stat os.mkdir os.makedirs os.open"
    " os.path.exists os.path.isfile os.path.isdir os.path.getmtime os.path.getsize glob.glob glob.iglob shelve.open"
    " linecache.getline torch.load"
    # other processes and machines
    " os.system os.popen sqlite3.connect duckdb.connect getpass.getpass platform.node urllib.request.urlopen"
    " urllib.request.urlretrieve socket.socket socket.gethostname socket.create_connection".split()
)
"""These, and functions that may give something else the next time."""

PACKAGES = ("secrets.", "tempfile.", "shutil.", "subprocess.", "requests.", "httpx.", "pandas.read_", "polars.read_")
"""Beginnings of such names."""

ARGUMENTS: Mapping[str, int] = {
    "time.localtime": 1, "time.gmtime": 1, "time.ctime": 1, "time.strftime": 2, "random.Random": 1,
    "numpy.random.default_rng": 1, "numpy.random.RandomState": 1, "numpy.random.SeedSequence": 1,
}  # fmt: skip
"""Functions that give the same again once they are given so many arguments."""

METHODS = frozenset(
    "read_text read_bytes write_text write_bytes iterdir exists is_file is_dir mkdir touch unlink fetchone fetchall"
    " fetchmany readline readlines".split()
)
"""Methods of files, paths and connections."""

CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__", "__call__"})

Asked = Callable[[str], bool]


def computes_now(
    tree: ast.stmt,
    origins: Mapping[str, str],
    generators: frozenset[str],
    is_bound: Asked,
    computes: Asked,
    is_data: Asked,
) -> bool:
    """Return whether executing a definition makes a call that gives something else the next time.

    `is_bound` tells whether the notebook has bound a builtin's name, `computes` whether calling a name gives something
    else each time, `is_data` whether a name is data.
    """
    random = random_uses(tree, origins)
    if random.draws or random.seeds or generator_uses(tree, generators)[0]:
        return True
    decorators: list[ast.expr] = getattr(tree, "decorator_list", [])
    for call, inside in calls_in(tree):
        if inside:
            continue
        given = any(call is decorator for decorator in decorators)  # what the call gives is called, too
        if _differs(call.func, len(call.args) + len(call.keywords), origins, is_bound, computes):
            return True
        if _changes_data(call.func, is_data) or (given and computes(f"{full_name(call.func, origins)}()")):
            return True
    return any(_differs(each, 1, origins, is_bound, computes) for each in decorators if not isinstance(each, ast.Call))


def acting_names(
    tree: ast.stmt, origins: Mapping[str, str], is_bound: Asked, computes: Asked, acts: Callable[[ast.stmt], bool]
) -> Iterator[str]:
    """Yield the name of a function or class where calling it gives something else each time; of a class making one.

    With `()` behind it where calling what it gives does. `acts` tells of a body whether it counts in any case.
    """
    for suffix, part in (("", _called(tree, 1)), ("()", _called(tree, 2))):
        random = random_uses(part, origins)
        if acts(part) or random.late_draws or random.late_seeds or any(
            inside and _differs(call.func, len(call.args) + len(call.keywords), origins, is_bound, computes)
            for call, inside in calls_in(part)
        ):  # fmt: skip
            yield f"{getattr(tree, 'name', '')}{suffix}"


def computes_anew(tree: ast.stmt, origins: Mapping[str, str]) -> bool:
    """Return whether a statement gives something else whenever it is executed: what is read from a file does not."""
    random = random_uses(tree, origins)
    calls = (full_name(call.func, origins) for call, inside in calls_in(tree) if not inside)
    return bool(random.draws) or any(name in ANEW or name.startswith("secrets.") for name in calls)


def _called(tree: ast.stmt, depth: int) -> ast.stmt:
    """Return a function, or the constructors of a class, without the bodies that calling it so many times leaves out.

    A function that is made in a body runs with it where the body calls it.
    """
    if isinstance(tree, ast.ClassDef):
        made = [_called(each, depth) for each in tree.body if getattr(each, "name", "") in CONSTRUCTORS]
        return _with(tree, body=made or [ast.Pass()])
    if not isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
        return tree
    nodes = [node for statement in tree.body for node in descend(statement)]
    at_once = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    parts: list[ast.stmt] = []
    for each in tree.body:
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) or each.name in at_once:
            parts.append(each)
        else:
            parts.append(_with(each, body=[ast.Pass()]) if depth == 1 else _called(each, depth - 1))
    return _with(tree, body=parts)


def _with(tree: ast.stmt, **parts: object) -> ast.stmt:
    """Return a copy of a statement with other parts, at the same place."""
    made = type(tree)(**{**{name: getattr(tree, name) for name in tree._fields if hasattr(tree, name)}, **parts})
    return ast.fix_missing_locations(ast.copy_location(made, tree))


def _changes_data(function: ast.expr, is_data: Asked) -> bool:
    """Return whether a call may change data whose method it is."""
    root = dotted(function).partition(".")[0]
    return isinstance(function, ast.Attribute) and function.attr not in LOOKS and root != "" and is_data(root)


def _differs(function: ast.expr, given: int, origins: Mapping[str, str], is_bound: Asked, computes: Asked) -> bool:
    """Return whether calling a function, `given` so many arguments, gives something else each time."""
    name = full_name(function, origins)
    root = name.partition(".")[0]
    if isinstance(function, ast.Name) and function.id not in origins:
        return computes(function.id) or (function.id in BUILTINS and not is_bound(function.id))
    if name in ARGUMENTS:
        return given < ARGUMENTS[name]
    if root and (name in CALLS or name.startswith(PACKAGES) or computes(name)):
        return full_name(function, {}).partition(".")[0] in origins
    return isinstance(function, ast.Attribute) and function.attr in METHODS
