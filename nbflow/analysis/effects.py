"""What a statement does besides binding names: draws of random numbers, files read and written. Pure.

These go by names of their own, which no variable can have: `<numpy.random>` is NumPy's global state.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from nbflow.analysis.scopes import dotted_name

RANDOM_STATES: Mapping[str, tuple[str, frozenset[str]]] = {
    "random.": ("<random>", frozenset({"seed", "setstate"})),
    "numpy.random.": ("<numpy.random>", frozenset({"seed", "set_state"})),
    "torch.": ("<torch>", frozenset({"manual_seed", "set_rng_state", "seed"})),
}
"""Import prefix -> the name that its global random state goes by, and the calls that seed it."""

STATES = frozenset(name for name, _ in RANDOM_STATES.values())

AXES = "<axes>"
"""Stands among names that a step below may change for the names of indexes, which frames and series share."""

NAMING = re.compile(r"(?<!\bself)\.names?\s*=(?!=)|\.set_names\(")
AXIS = re.compile(r"\.(?:index|columns|axes|levels)\b")

PROCESS = "<process>"
"""What a cell has set in its process besides its set-up statements: options, folder, environment."""

_NO_DRAW = frozenset(
    "Random SystemRandom getstate get_state default_rng Generator RandomState SeedSequence BitGenerator PCG64 PCG64DXSM"
    " MT19937 Philox SFC64".split()
)
_TORCH_DRAWS = frozenset(
    "rand randn randint randperm bernoulli multinomial normal poisson rand_like randn_like randint_like dropout".split()
)

WRITING_METHODS = frozenset(
    "write_text write_bytes mkdir unlink touch rmdir savefig save savez savez_compressed savetxt tofile extractall"
    " to_csv to_json to_excel to_parquet to_pickle to_feather to_hdf to_html to_sql to_stata to_markdown to_latex"
    " to_xml write_csv write_parquet write_json write_ipc sink_csv sink_parquet write_image write_html copyfile"
    " save_model urlretrieve imsave dump symlink_to hardlink_to".split()
)
READING_METHODS = frozenset(
    "read_text read_bytes exists is_file is_dir iterdir glob rglob stat load loadtxt genfromtxt fromfile memmap imread"
    " read_csv read_table read_json read_excel read_parquet read_pickle read_feather read_hdf read_html read_sql"
    " read_sql_query read_sql_table read_stata read_xml read_fwf read_ipc scan_csv scan_parquet scan_ipc load_model"
    " listdir scandir walk getsize isfile isdir getmtime import_module reload run_path".split()
)
WRITING_ORIGINS = (
    "shutil.", "subprocess.", "os.system", "os.makedirs", "os.mkdir", "os.remove", "os.unlink", "os.rename",
    "os.replace", "os.rmdir", "os.removedirs", "os.symlink", "os.link", "os.truncate", "sqlite3.", "zipfile.",
    "tarfile.", "tempfile.", "logging.basicConfig", "logging.FileHandler", "shelve.", "dbm.",
)  # fmt: skip
READING_ORIGINS = ("glob.", "os.chdir", "os.path.exists", "os.stat", "fileinput.", "linecache.")
PATH_METHODS = frozenset(
    "write_text write_bytes read_text read_bytes mkdir unlink touch rmdir exists is_file is_dir iterdir stat".split()
)
TWO_PATHS = frozenset({"shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.move", "os.rename", "os.replace"})
SHELL = re.compile(
    r"^\s*(?:[\w, ]+=\s*)?!|^\s*%%(?:writefile|file|bash|sh|script|system|sx|cmd|perl|ruby)\b", re.MULTILINE
)
CHANGE_FOLDER = re.compile(r"^\s*%cd\b", re.MULTILINE)
MODULE_FILE = re.compile(r"([A-Za-z_]\w*)\.py\b")


class Random(msgspec.Struct, frozen=True):
    """Random states that a statement seeds and draws from at once, and that bodies made in it do when called."""

    seeds: frozenset[str] = frozenset()
    draws: frozenset[str] = frozenset()
    late_seeds: frozenset[str] = frozenset()
    late_draws: frozenset[str] = frozenset()


class Files(msgspec.Struct, frozen=True):
    """Whether code may read or write files; which, where all of them are named; the modules that it may write."""

    reads: bool = False
    writes: bool = False
    paths: frozenset[str] | None = frozenset()  # None: any
    modules: frozenset[str] = frozenset()

    def __or__(self, other: Files) -> Files:
        paths = None if self.paths is None or other.paths is None else self.paths | other.paths
        return Files(self.reads or other.reads, self.writes or other.writes, paths, self.modules | other.modules)

    @classmethod
    def all(cls, parts: Iterable[Files]) -> Files:
        """Return what code does whose parts do these."""
        files = cls()
        for part in parts:
            files |= part
        return files


NO_DRAWS = Random()
NO_FILES = Files()


# ---------------------------------------------------------------- names


def state_of(name: str) -> str:
    """Return the name that stands for what cells set on a class or function: `<of Account>`."""
    return f"<of {name}>"


def owner_of(name: str) -> str | None:
    """Return the class or function that a name of `state_of` stands for; None for any other name."""
    return name[4:-1] if name.startswith("<of ") else None


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` as text, "" for any other expression."""
    return dotted_name(node) or ""


def full_name(node: ast.expr, origins: Mapping[str, str]) -> str:
    """Return a dotted expression with its root as it was imported: `numpy.random` for `np.random`."""
    root, dot, rest = dotted(node).partition(".")
    return f"{origins.get(root, root)}{dot}{rest}"


@lru_cache(maxsize=8192)
def calls_in(tree: ast.AST) -> tuple[tuple[ast.Call, bool], ...]:
    """Return every call below a node, with whether it stands in the body of a function made there."""
    calls: list[tuple[ast.Call, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Call):
            calls.append((node, inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, inside=False)
    return tuple(calls)


# ---------------------------------------------------------------- random states


def random_uses(tree: ast.AST, origins: Mapping[str, str]) -> Random:
    """Return which global random states a statement uses, and how."""
    states: dict[tuple[bool, bool], set[str]] = {}
    for call, inside in calls_in(tree):
        state, seeding = _random_call(full_name(call.func, origins))
        if state:
            states.setdefault((inside, seeding), set()).add(state)
    return Random(
        seeds=frozenset(states.get((False, True), ())),
        draws=frozenset(states.get((False, False), ())),
        late_seeds=frozenset(states.get((True, True), ())),
        late_draws=frozenset(states.get((True, False), ())),
    )


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


GENERATORS = frozenset({
    "numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.Generator", "random.Random",
    "torch.Generator",
})  # fmt: skip
"""What makes a generator of random numbers: every use of one changes it."""


def made_generators(tree: ast.AST | None, origins: Mapping[str, str]) -> frozenset[str]:
    """Return the names that a statement binds to generators of random numbers."""
    if not isinstance(tree, ast.Assign) or not isinstance(tree.value, ast.Call):
        return frozenset()
    is_generator = full_name(tree.value.func, origins) in GENERATORS
    return frozenset(target.id for target in tree.targets if is_generator and isinstance(target, ast.Name))


def generator_uses(tree: ast.AST | None, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the generators that a statement draws from or passes on, at once and in bodies made there."""
    uses: dict[bool, set[str]] = {False: set(), True: set()}
    for call, inside in calls_in(tree) if tree is not None and names else ():
        values = [call.func.value] if isinstance(call.func, ast.Attribute) else []
        values += [*call.args, *(keyword.value for keyword in call.keywords)]
        uses[inside] |= {part.id for part in values if isinstance(part, ast.Name)} & names
    return frozenset(uses[False]), frozenset(uses[True])


# ---------------------------------------------------------------- files


def file_uses(source: str, tree: ast.AST | None, origins: Mapping[str, str]) -> Files:
    """Return what a statement may do to files, bodies made in it included.

    `source` is the statement as written, `tree` its syntax tree (None where it has none), `origins` the imports above.
    """
    files = Files()
    if SHELL.search(source):
        files |= Files(reads=True, writes=True, paths=None)
    elif CHANGE_FOLDER.search(source):
        files |= Files(reads=True, paths=None)
    for call, _ in calls_in(tree) if tree is not None else ():
        files |= _file_call(call, origins)
    if files.writes:
        parts = [path.strip("./").partition("/") for path in files.paths or ()]
        packages = {root for root, below, _ in parts if below and root.isidentifier()}
        files |= Files(modules=frozenset(packages.union(MODULE_FILE.findall(source))))
    return files


def _file_call(call: ast.Call, origins: Mapping[str, str]) -> Files:
    func = call.func
    name = full_name(func, origins)
    last = func.attr if isinstance(func, ast.Attribute) else name.rpartition(".")[2]
    if last == "open":
        functions = ("io.open", "gzip.open", "bz2.open", "lzma.open")
        return _opened(call, method=isinstance(func, ast.Attribute) and not name.endswith(functions))
    if name.startswith(WRITING_ORIGINS):
        return Files(reads=True, writes=True, paths=_named(call.args, 2 if name in TWO_PATHS else 1))
    if name.startswith(READING_ORIGINS):
        return Files(reads=True, paths=None)
    if not isinstance(func, ast.Attribute) and name == last:
        return Files()  # a plain function of the notebook's own: its body is looked at where it is defined
    writes = last in WRITING_METHODS
    if not writes and last not in READING_METHODS:
        return Files()
    return Files(reads=True, writes=writes, paths=_paths(call, last))


def _opened(call: ast.Call, *, method: bool) -> Files:
    """Return what `open(path, mode)` or `path.open(mode)` does; a mode that is not written out counts as writing."""
    place = 0 if method else 1
    modes = [word.value for word in call.keywords if word.arg == "mode"] or call.args[place : place + 1]
    receiver = [call.func.value] if isinstance(call.func, ast.Attribute) and method else call.args
    paths = _named(receiver, 1)
    if not modes:
        return Files(reads=True, paths=paths)
    text = modes[0].value if isinstance(modes[0], ast.Constant) else "w"
    writing = not isinstance(text, str) or bool(set(text) & set("wax+"))
    return Files(reads=True, writes=writing, paths=paths)


def _paths(call: ast.Call, method: str) -> frozenset[str] | None:
    """Return the path that a method writes to or reads from, where it is written out: of a Path, the Path itself."""
    if method in PATH_METHODS and isinstance(call.func, ast.Attribute):
        return _named([call.func.value], 1)
    return _named(call.args, 1)


def _named(places: Sequence[ast.expr], count: int) -> frozenset[str] | None:
    """Return the paths that the first expressions name; None where one cannot be told."""
    texts = [_text_of(place) for place in places[:count]]
    if len(texts) < count or any(text is None or "*" in text or "~" in text or text.startswith("/") for text in texts):
        return None
    return frozenset(text for text in texts if text is not None)


def _text_of(place: ast.expr) -> str | None:
    """Return the path of `"a/b"`, `Path("a/b")` or `Path("a") / "b"`; None for anything else."""
    match place:
        case ast.Constant(value=str(text)):
            return text
        case ast.Call(args=[inner], keywords=[]) if dotted(place.func).rpartition(".")[2] in ("Path", "PurePath"):
            return _text_of(inner)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            above, below = _text_of(left), _text_of(right)
            return None if above is None or below is None else f"{above}/{below}"
    return None


def names_axes(source: str) -> bool:
    """Return whether a cell may name an index's levels in place: whatever has that index has the name then."""
    return bool(NAMING.search(source) and AXIS.search(source))


class Touches(msgspec.Struct):
    """The steps so far that touch files, in document order."""

    files: list[tuple[str, Files]] = msgspec.field(default_factory=list)

    def add(self, step: str, files: Files, imports: Collection[str]) -> tuple[str, ...]:
        """Add a step, its files and the modules that it imports; return the steps above that it has to wait for."""
        steps = []
        for other, before in self.files:
            importing = not before.modules.isdisjoint(imports)
            if importing or ((files.writes or before.writes) and _meet(files, before)):
                steps.append(other)
        if files.reads or files.writes:
            self.files.append((step, files))
        return tuple(steps)


def _meet(one: Files, other: Files) -> bool:
    """Return whether two pieces of code may touch one file."""
    if not (one.reads or one.writes) or not (other.reads or other.writes):
        return False
    if one.paths is None or other.paths is None:
        return True
    return any(_related(a, b) for a in one.paths for b in other.paths)


def _related(one: str, other: str) -> bool:
    """Return whether two paths are the same, or one is a folder above the other."""
    short, long = sorted((_parts(one), _parts(other)), key=len)
    return long[: len(short)] == short


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
