"""Which calls give something else the next time: a definition that makes one when it is made is executed once. Pure.

Clocks, random numbers, files, sockets, child processes, iterators; functions of the notebook that make such a call.
Functions of libraries that stand in no table are taken to give the same again: `dataclass`, `njit`, `Column(Integer)`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from nbflow.analysis.effects import calls_in, full_name, generator_uses, random_uses

BUILTINS = frozenset("next open input id".split())

CALLS = frozenset(
    # clocks
    "time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns time.process_time"
    " time.process_time_ns time.thread_time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today"
    " datetime.date.today pandas.Timestamp.now pandas.Timestamp.utcnow pandas.Timestamp.today pendulum.now"
    " pendulum.today arrow.now arrow.utcnow"
    # what is drawn or given out
    " uuid.uuid1 uuid.uuid4 os.urandom os.getpid os.getppid random.SystemRandom itertools.count"
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
"""Functions by their full names."""

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
    tree: ast.stmt, origins: Mapping[str, str], generators: frozenset[str], is_bound: Asked, computes: Asked
) -> bool:
    """Return whether executing a definition makes a call that gives something else the next time.

    `is_bound` tells whether the notebook has bound a builtin's name, `computes` whether calling a name gives something
    else each time.
    """
    random = random_uses(tree, origins)
    if random.draws or random.seeds or generator_uses(tree, generators)[0]:
        return True
    return any(not inside and _differs(call, origins, is_bound, computes) for call, inside in calls_in(tree))


def computes_when_called(tree: ast.stmt, origins: Mapping[str, str], is_bound: Asked, computes: Asked) -> bool:
    """Return whether calling what a statement defines makes such a call: of a class what makes an object counts."""
    if isinstance(tree, ast.ClassDef):
        made = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name in CONSTRUCTORS]
        return any(computes_when_called(each, origins, is_bound, computes) for each in made)
    random = random_uses(tree, origins)
    if random.late_draws or random.late_seeds:
        return True
    return any(inside and _differs(call, origins, is_bound, computes) for call, inside in calls_in(tree))


def _differs(call: ast.Call, origins: Mapping[str, str], is_bound: Asked, computes: Asked) -> bool:
    name = full_name(call.func, origins)
    root = name.partition(".")[0]
    if isinstance(call.func, ast.Name) and call.func.id not in origins:
        return computes(call.func.id) or (call.func.id in BUILTINS and not is_bound(call.func.id))
    if name in ARGUMENTS:
        return len(call.args) + len(call.keywords) < ARGUMENTS[name]
    if root and (name in CALLS or name.startswith(PACKAGES)):
        return full_name(call.func, {}).partition(".")[0] in origins
    return isinstance(call.func, ast.Attribute) and call.func.attr in METHODS
