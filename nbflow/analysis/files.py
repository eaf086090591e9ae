"""Which files a statement may read and write, by its text; which steps wait for each other because of them. Pure.

A path is text in which `*` stands for what the text leaves open: `OUT / f"{name}.json"` is `*/*.json`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from nbflow.analysis.effects import calls_in, dotted, full_name

Paths = frozenset[str] | None
"""The files that are meant; None: any."""

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
    " listdir scandir walk getsize isfile isdir getmtime lexists islink samefile import_module reload run_path".split()
)
WRITING_ORIGINS = (
    "shutil.", "subprocess.", "os.system", "os.makedirs", "os.mkdir", "os.remove", "os.unlink", "os.rename",
    "os.replace", "os.rmdir", "os.removedirs", "os.symlink", "os.link", "os.truncate", "sqlite3.", "zipfile.",
    "tarfile.", "tempfile.", "logging.FileHandler", "shelve.", "dbm.",
)  # fmt: skip
READING_ORIGINS = ("glob.", "os.chdir", "os.path.exists", "os.stat", "fileinput.", "linecache.")
FOLDER_METHODS = frozenset(
    "mkdir rmdir iterdir glob rglob listdir scandir walk makedirs removedirs is_dir isdir".split()
)
"""What concerns a folder with all that is in it."""

SHELVES = ("shelve.open", "dbm.open", "dbm.dumb.open", "dbm.gnu.open", "dbm.ndbm.open", "numpy.memmap")
"""They open a file to write to it, unless a mode says otherwise."""

WHOLE_FOLDERS = ("shutil.", "os.rename", "os.replace", "os.symlink")
"""What takes folders as well as files."""

PATH_METHODS = frozenset(
    "write_text write_bytes read_text read_bytes mkdir unlink touch rmdir exists is_file is_dir iterdir stat".split()
)
TWO_PATHS = frozenset(
    {
        "os.symlink",
        "os.link",
        "shutil.copy",
        "shutil.copy2",
        "shutil.copyfile",
        "shutil.move",
        "os.rename",
        "os.replace",
    }
)
SHELL = re.compile(
    r"^\s*(?:[\w, ]+=\s*)?!|^\s*%%(?:writefile|file|bash|sh|script|system|sx|cmd|perl|ruby)\b", re.MULTILINE
)
CHANGE_FOLDER = re.compile(r"^\s*%cd\b", re.MULTILINE)
MODULE_FILE = re.compile(r"([A-Za-z_]\w*)\.py\b")


FILE_NAME = re.compile(r"[^\s*?<>|:{}%,;()]+\.[A-Za-z][A-Za-z0-9]{0,5}")
"""Text that looks like the name of a file: `a.xml`, `out/b.h5`."""

UNKNOWN = "*"


class Files(msgspec.Struct, frozen=True):
    """The files that code may read and write; those that it names without saying which; the modules it may write."""

    reads: Paths = frozenset()
    writes: Paths = frozenset()
    named: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()

    def __or__(self, other: Files) -> Files:
        if other is NO_FILES:  # most code has to do with none
            return self
        if self is NO_FILES:
            return other
        return Files(
            _both(self.reads, other.reads),
            _both(self.writes, other.writes),
            self.named | other.named,
            self.modules | other.modules,
        )

    @property
    def may_write(self) -> bool:
        """Whether any file may be written."""
        return self.writes is None or bool(self.writes)

    @property
    def touches(self) -> bool:
        """Whether any file is touched, as far as the text tells."""
        return self.reads is None or self.may_write or bool(self.reads or self.named)

    @property
    def written_out(self) -> Files:
        """The files that the text names to the letter, which no run has to show; of folders a run shows what counts."""
        return Files(reads=_written_out(self.reads), writes=_written_out(self.writes), modules=self.modules)

    @classmethod
    def all(cls, parts: Iterable[Files]) -> Files:
        """Return what code does whose parts do these."""
        files = NO_FILES
        for part in parts:
            files |= part
        return files


NO_FILES = Files()


def _written_out(paths: Paths) -> frozenset[str]:
    names = paths or frozenset[str]()
    return frozenset(path for path in names if UNKNOWN not in path and f"{path.rstrip('/')}/{UNKNOWN}" not in names)


def _both(one: Paths, other: Paths) -> Paths:
    return None if one is None or other is None else one | other


# ---------------------------------------------------------------- by the text


def file_uses(source: str, tree: ast.AST | None, origins: Mapping[str, str]) -> Files:
    """Return what a statement may do to files, bodies made in it included.

    `source` is the statement as written, `tree` its syntax tree (None where it has none), `origins` the imports above.
    """
    files = NO_FILES
    if SHELL.search(source):
        files |= Files(reads=None, writes=None)
    elif CHANGE_FOLDER.search(source):
        files |= Files(reads=None)
    for call, _ in calls_in(tree) if tree is not None else ():
        files |= _file_call(call, origins)
    if files.may_write:
        parts = [path.strip("./").partition("/") for path in files.writes or ()]
        packages = {root for root, below, _ in parts if below and root.isidentifier()}
        files |= Files(modules=frozenset(packages.union(MODULE_FILE.findall(source))))
    return files


def named_paths(tree: ast.AST) -> frozenset[str]:
    """Return every text of a statement that may be a path, put together where it is written in parts."""
    texts = {_text_of(node) for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.BinOp | ast.Call)}
    return frozenset(text for text in texts if text and UNKNOWN not in text and "\n" not in text)


def _file_call(call: ast.Call, origins: Mapping[str, str]) -> Files:
    func = call.func
    name = full_name(func, origins)
    last = func.attr if isinstance(func, ast.Attribute) else name.rpartition(".")[2]
    if name in SHELVES:
        return _opened(call, method=False, usual="c")
    if last == "open":
        functions = ("io.open", "gzip.open", "bz2.open", "lzma.open")
        return _opened(call, method=isinstance(func, ast.Attribute) and not name.endswith(functions))
    if name == "logging.basicConfig":
        places = [word.value for word in call.keywords if word.arg in ("filename", "handlers")]
        return Files(writes=_named(places, 1)) if places else NO_FILES
    if name.startswith(WRITING_ORIGINS):
        paths = _named(call.args, 2 if name in TWO_PATHS else 1)
        paths = _with_content(paths) if last in FOLDER_METHODS or name.startswith(WHOLE_FOLDERS) else paths
        return Files(reads=paths, writes=paths)
    if name.startswith(READING_ORIGINS):
        return Files(reads=None)
    if not isinstance(func, ast.Attribute) and name == last:
        return NO_FILES  # a plain function of the notebook's own: its body is looked at where it is defined
    writes = last in WRITING_METHODS
    if not writes and last not in READING_METHODS:
        return _mentioned(call)
    paths = _paths(call, last)
    paths = _with_content(paths) if last in FOLDER_METHODS else paths
    return Files(writes=paths) if writes else Files(reads=paths)


def _mentioned(call: ast.Call) -> Files:
    """Return the files that a call names of which nobody knows what it does: `ET.parse("a.xml")`."""
    values = (*call.args, *(keyword.value for keyword in call.keywords))
    texts = (value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))
    names = frozenset(text for text in texts if FILE_NAME.fullmatch(text))
    return Files(named=names) if names else NO_FILES


def _opened(call: ast.Call, *, method: bool, usual: str = "r") -> Files:
    """Return what `open(path, mode)` or `path.open(mode)` does; a mode that is not written out counts as writing."""
    place = 0 if method else 1
    modes = [word.value for word in call.keywords if word.arg in ("mode", "flag")] or call.args[place : place + 1]
    receiver = [call.func.value] if isinstance(call.func, ast.Attribute) and method else call.args
    paths = _named(receiver, 1)
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else None if modes else usual
    text = mode if isinstance(mode, str) else "a"
    reads = paths if not set(text) & set("wx") or "+" in text else frozenset[str]()
    return Files(reads=reads, writes=paths if set(text) & set("wax+cn") else frozenset())


def _paths(call: ast.Call, method: str) -> Paths:
    """Return the path that a method writes to or reads from, where it is written out: of a Path, the Path itself."""
    if method in PATH_METHODS and isinstance(call.func, ast.Attribute):
        return _named([call.func.value], 1)
    return _named(call.args, 1)


def _named(places: Sequence[ast.expr], count: int) -> Paths:
    """Return the paths that the first expressions name; None where nothing is known of one."""
    texts = [_text_of(place) for place in places[:count]]
    if len(texts) < count or UNKNOWN in texts:
        return None
    # what is named from the root, or from home, may be named from the folder elsewhere
    return frozenset(UNKNOWN + text.lstrip("~") if text.startswith(("/", "~")) else text for text in texts)


def _text_of(place: ast.expr) -> str:
    """Return the path of `"a/b"`, `Path("a", b)`, `Path("a") / "b"`, `f"a/{b}"`, `"a/" + b`, `os.path.join("a", b)`."""
    match place:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text_of(part) if isinstance(part, ast.Constant) else UNKNOWN for part in parts)
        case ast.Call(args=[inner], keywords=[]) if dotted(place.func).rpartition(".")[2] in (
            "Path",
            "PurePath",
            "str",
        ):
            return _text_of(inner)
        case ast.Call(args=[_, _, *_] as parts, keywords=[]) if dotted(place.func).endswith(("path.join", "Path")):
            return "/".join(map(_text_of, parts))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return f"{_text_of(left)}/{_text_of(right)}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text_of(left) + _text_of(right)
    return UNKNOWN


def _with_content(paths: Paths) -> Paths:
    """Return folders with all that is in them."""
    return None if paths is None else paths | {f"{path.rstrip('/')}/{UNKNOWN}" for path in paths}


# ---------------------------------------------------------------- which steps wait


class Waits(msgspec.Struct, frozen=True):
    """Steps above that a step has to wait for because of files; of some of them it reads what they may write."""

    order: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class Touches(msgspec.Struct):
    """The steps so far that touch files, in document order."""

    files: list[tuple[str, Files]] = msgspec.field(default_factory=list)

    def add(self, step: str, files: Files, imports: Collection[str]) -> Waits:
        """Add a step, its files and the modules that it imports; return what it has to wait for."""
        order, sources = [], []
        for other, before in self.files:
            importing = not before.modules.isdisjoint(imports)
            if importing or meet(before, files):
                order.append(other)
                if importing or _feeds(before, files):
                    sources.append(other)
        if files.touches:
            self.files.append((step, files))
        return Waits(tuple(order), tuple(sources))


def meet(one: Files, other: Files) -> bool:
    """Return whether two pieces of code may touch one file that one of them may write."""
    return (
        _overlap(one.writes, other.writes)
        or _overlap(one.writes, _both(other.reads, other.named))
        or _overlap(_both(one.reads, one.named), other.writes)
        or _overlap(one.named, _both(other.reads, other.named))
        or _overlap(one.reads, other.named)
    )


def common(one: Files, other: Files) -> frozenset[str]:
    """Return the files that two pieces of code were seen to touch and that one of them has written."""
    written, other_written = one.writes or frozenset(), other.writes or frozenset()
    return written & (other_written | (other.reads or frozenset())) | other_written & (one.reads or frozenset())


def _feeds(one: Files, other: Files) -> bool:
    """Return whether code reads what other code above it writes, as far as both name it."""
    written = (one.writes or frozenset[str]()) | one.named
    return _overlap(written, (other.reads or frozenset[str]()) | other.named)


def _overlap(one: Paths, other: Paths) -> bool:
    if one is None or other is None:
        return (one is None or bool(one)) and (other is None or bool(other))
    whole, other_whole = _whole(one), _whole(other)
    if not (whole.isdisjoint(_folders(other_whole)) and other_whole.isdisjoint(_folders(whole))):
        return True
    open_ended, other_open_ended = _open_ended(one), _open_ended(other)
    return any(_alike(a, b) for a in open_ended for b in other) or any(
        _alike(a, b) for a in one for b in other_open_ended
    )


Parts = tuple[str, ...]


def _whole(paths: frozenset[str]) -> frozenset[Parts]:
    return frozenset(_parts(path) for path in paths if UNKNOWN not in path)


def _open_ended(paths: frozenset[str]) -> frozenset[str]:
    return frozenset(path for path in paths if UNKNOWN in path)


def _folders(paths: frozenset[Parts]) -> set[Parts]:
    """Return paths with all folders above them."""
    return {path[:length] for path in paths for length in range(len(path) + 1)}


def _alike(one: str, other: str) -> bool:
    """Return whether two paths, of which one is not known to its end, may be the same."""
    (begin, end), (other_begin, other_end) = _ends(one), _ends(other)
    # The name of a file is told apart by how it begins, too: nobody fills a folder into `a_{n}.json`.
    name, other_name = (path.rpartition("/")[2].partition(UNKNOWN)[0] for path in (one, other))
    return (
        _begin_alike(begin, other_begin)
        and (end.endswith(other_end) or other_end.endswith(end))
        and _begin_alike(name, other_name)
    )


def _begin_alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _ends(path: str) -> tuple[str, str]:
    """Return what stands before the first unknown part of a path, and what stands behind the last."""
    text = "/".join(_parts(path))
    text = text if text.startswith(UNKNOWN) else f"/{text}"
    return text.partition(UNKNOWN)[0], text.rpartition(UNKNOWN)[2]


@lru_cache(maxsize=4096)
def _parts(path: str) -> Parts:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
