"""A cell's source with its header, cell magics and IPython syntax → the Python that runs, line for line, parsed."""

import ast
import re
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec

from nbflow.analysis.lines import header_of
from nbflow.analysis.magics import AUTOMAGIC, expansions, long_option, split_options
from nbflow.analysis.special_lines import replaced
from nbflow.analysis.sql import tables_of, target_of

if TYPE_CHECKING:
    from IPython.core.inputtransformer2 import TransformerManager


Shape = Literal["module", "function", "none"]

_STAR = re.compile(r"(?:^|[;:])[ \t]*from[ \t]+([.\w]+)[ \t]+import[ \t]*\*", re.MULTILINE)
_ONLY_STAR = re.compile(r"\s*from\s+[.\w]+\s+import\s*\*\s*(?:#.*)?")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_LINE_MAGIC = re.compile(r"%[A-Za-z_]\w*(?: [ ->@-\[\]-~]*)?\n", re.ASCII)  # no `?`, no backslash
_PROMPT = "In ["
_HELP = re.compile(r"%%\w+\?")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)

# Cell magics that run their body in the user's namespace.
_LEAKING = frozenset({
    "time", "capture", "prun", "debug", "memit", "snakeviz", "pyinstrument", "scalene", "heat", "wandb",
})  # fmt: skip
# Cell magics whose body is another language's, or another process's, Python.
_FOREIGN = frozenset({
    "bash", "sh", "script", "cmd", "perl", "ruby", "python", "python2", "python3", "pypy", "html", "HTML", "javascript",
    "js", "latex", "svg", "SVG", "markdown", "writefile", "file", "system", "sx", "!", "R", "julia", "octave", "cpp",
    "mermaid", "css", "node", "skip", "powershell", "pwsh", "ai", "sqlite", "zsh", "fish", "sql",
})  # fmt: skip


class Problem(msgspec.Struct, frozen=True):
    """Why a cell is not understood: diagnostic code, line from 1, column from 0, name, message."""

    code: str
    line: int
    column: int
    name: str
    message: str


class ParsedCell(msgspec.Struct, frozen=True):
    """A cell taken apart: the Python of its body (same line numbers as the source) and what the magics around it do."""

    lines: tuple[str, ...]
    python: str
    tree: ast.Module | None
    shape: Shape  # the body runs at module level, inside a function (%%timeit), or is not Python here
    ends: Mapping[int, int]  # line of a statement -> its last line in the source, where IPython joined lines
    magics: tuple[str, ...] = ()  # lines of the cell magics around the body, outermost first
    magic_line: int = 0
    binds: tuple[str, ...] = ()  # by the cell magics, after the body
    uses: tuple[str, ...] = ()
    expansions: tuple[ast.expr, ...] = ()
    problems: tuple[Problem, ...] = ()


class Parsed(msgspec.Struct, frozen=True):
    """Python for a piece of source: text with as many lines, tree or problem, ends of joined lines."""

    python: str
    tree: ast.Module | None
    ends: Mapping[int, int]
    problem: Problem | None = None


def star_modules(source: str) -> list[str]:
    """Return the modules of which a text takes all names: `math` for `from math import *`."""
    return _STAR.findall(source) if "*" in source and "import" in source else []


@lru_cache(maxsize=4096)
def holds(pattern: re.Pattern[str], source: str) -> bool:
    """Return whether code holds a pattern; looking through 100 lines takes up to a millisecond, so it is done once."""
    return pattern.search(source) is not None


def split_lines(source: str) -> list[str]:
    """Return the lines of a source as Python counts them, with their ends."""
    return _LINE.findall(source)


def is_star_import(source: str) -> bool:
    """Return whether a statement is an import of all names of a module, and nothing else."""
    return _ONLY_STAR.fullmatch(source) is not None


@lru_cache(maxsize=256)  # asked for by the analysis, by what makes keys, and by each that looks for one kind of node
def read_cell(source: str) -> ParsedCell:
    """Return a cell's body as Python, with what its header and cell magics mean. Never raises.

    Whoever asks again is given the same tree: it is only looked at.
    """
    source_lines = tuple(split_lines(source))
    lines = list(source_lines)
    header = header_of(lines)
    if header is not None:
        lines[: header.at + 1] = ["\n"] * (header.at + 1)
    wrapping = _Wrapping()
    while (first := _first_line(lines)) is not None and wrapping.shape == "module":
        text = lines[first].strip()
        if not text.startswith("%%") or _HELP.match(text):
            break
        name, _, line = text[2:].partition(" ")
        wrapping.add(name, line, first + 1)
        if name == "sql":
            wrapping.ask("".join([line, *lines[first + 1 :]]))
        if name in _LEAKING or name == "timeit":
            lines[first] = _code_of(name, line) + "\n"
    if wrapping.shape == "none":
        return _finish(source_lines, Parsed("", None, {}), wrapping)
    parsed = parse_python("".join(lines))
    if parsed.problem:
        wrapping.problems.append(parsed.problem)
    return _finish(source_lines, parsed, wrapping)


class _Wrapping:
    """The cell magics around a body, from the outermost in."""

    def __init__(self) -> None:
        self.shape: Shape = "module"
        self.magics: list[str] = []
        self.line = 0
        self.binds: list[str] = []
        self.uses: list[str] = []
        self.expansions: list[ast.expr] = []
        self.problems: list[Problem] = []

    def add(self, name: str, line: str, number: int) -> None:
        """Add the next cell magic by its name, the rest of its line and its line's number."""
        self.line = self.line or number
        self.magics.append(f"%%{name} {line}".rstrip())
        if name == "capture":
            self.binds += [word for word in line.split() if word.isidentifier()][:1]
            self.expansions += expansions(line)
        elif name == "timeit":
            self.shape = "function"
            self.binds += long_option(line, "-v")
        elif name in _LEAKING:
            pass
        else:
            self.shape = "none"
            self.expansions += expansions(line)
            self.binds += long_option(
                line, "--out", "--err", "--proc", *(("-o", "--output") if name in {"R", "sx", "system", "!"} else ())
            )
            self.uses += long_option(line, "-i", "--input") if name == "R" else ()
            if name not in _FOREIGN:
                what = f"%%{name} is not known; what its cell takes and binds cannot be seen"
                self.problems.append(Problem("dynamic", number, 0, f"%%{name}", what))

    def ask(self, text: str) -> None:
        """Add what a statement of SQL may take, and the name that it may bind."""
        self.expansions += [ast.Name(name, ast.Load(), lineno=1, col_offset=0) for name in tables_of(text)]
        self.binds += target_of(text)


def _code_of(name: str, line: str) -> str:
    """Return what stands as Python on a cell magic's own line: %%timeit's set-up, %%prun's first statement."""
    if name == "timeit":
        return split_options(line.strip(), "nrpv")[1]
    if name == "prun":
        return split_options(line.strip(), "DlsT")[1]
    return ""


def _finish(lines: tuple[str, ...], parsed: Parsed, wrapping: _Wrapping) -> ParsedCell:
    return ParsedCell(
        lines=lines,
        python=parsed.python,
        tree=parsed.tree,
        shape=wrapping.shape,
        ends=parsed.ends,
        magics=tuple(wrapping.magics),
        magic_line=wrapping.line,
        binds=tuple(wrapping.binds),
        uses=tuple(wrapping.uses),
        expansions=tuple(wrapping.expansions),
        problems=tuple(wrapping.problems),
    )


def _first_line(lines: list[str]) -> int | None:
    return next((index for index, line in enumerate(lines) if line.strip()), None)


def parse_python(text: str) -> Parsed:
    """Return source that may hold IPython syntax as Python with the same line numbers and its tree, or a problem.

    Text that already is Python is left alone: IPython's transformer leaves it alone too, and takes longer to see it.
    """
    try:
        return Parsed(text, _parse(text), {})
    except _PARSE_ERRORS as error:
        first = error
    if (called := _with_calls(text)) is not None:
        return called
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # IPython's own words on lines that it does not expect
            python, ends = _transform(text)
        return Parsed(python, _parse(python), ends)
    except _PARSE_ERRORS as error:
        word = text.split(maxsplit=1)[:1]
        if word and word[0] in AUTOMAGIC and len(text.strip().splitlines()) == 1:
            return parse_python(text.replace(word[0], "%" + word[0], 1))
        return Parsed(text, None, {}, _problem(error if isinstance(error, SyntaxError) else first, text))
    except Exception as error:  # IPython's transformer meets text that is neither Python nor its own
        return Parsed(text, None, {}, _problem(first, text, str(error)))


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user sees them when the cell runs
        return ast.parse(text)


def compile_problem(cell: ParsedCell) -> Problem | None:
    """Return what the compiler refuses in a cell that parses, such as `return` outside a function."""
    if cell.shape != "module" or cell.tree is None:
        return None
    python = cell.python
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(python, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except _PARSE_ERRORS as error:
        return _problem(error, python)
    return None


def _problem(error: BaseException, text: str, more: str = "") -> Problem:
    line, column = 1, 0
    message = str(error)
    if character := _NO_TEXT.search(text):
        before = text[: character.start()]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n") - 1
        message = "the source holds a character that is no text (a null byte or a lone surrogate)"
    elif isinstance(error, SyntaxError):
        line, column, message = error.lineno or 1, max((error.offset or 1) - 1, 0), error.msg or message
    elif isinstance(error, RecursionError | MemoryError):
        message = "the code is nested too deeply to be analysed"
    last = max(len(split_lines(text)), 1)
    return Problem("syntax", min(max(line, 1), last), column, "", message or more or "not Python")


@cache
def _manager() -> "TransformerManager":
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager()


def _with_calls(text: str) -> Parsed | None:
    """Return a source with the line magics that stand between its statements as the calls that IPython makes of them.

    None where there is none, or more that IPython has to read: a help text, a pasted prompt, a line that goes on in the
    next. To import IPython takes a quarter of a run in which everything is reused, and `%load_ext nbflow` stands in
    every notebook. Each call has to be a statement of its own, so that its magic is no line of a text or expression.
    """
    text = text if text.endswith("\n") else text + "\n"
    lines = text.splitlines(keepends=True)
    magics = [at for at, line in enumerate(lines) if _LINE_MAGIC.fullmatch(line)]
    if not magics or _PROMPT in text or text.count("\n") != len(lines):
        return None
    for at in magics:
        name, _, words = lines[at][1:].rstrip().partition(" ")
        lines[at] = f"get_ipython().run_line_magic({name!r}, {words!r})\n"
    called = "".join(lines)
    try:
        tree = _parse(called)
    except _PARSE_ERRORS:
        return None
    statements = {node.lineno for node in tree.body}
    return Parsed(called, tree, {}) if all(at + 1 in statements for at in magics) else None


def _transform(text: str) -> tuple[str, dict[int, int]]:
    """Return IPython's Python for a source, padded to the same line numbers, and the ends of joined lines."""
    manager = _manager()
    lines = (text if text.endswith("\n") else text + "\n").splitlines(keepends=True)
    total = len(lines)
    for cleanup in manager.cleanup_transforms:
        lines = cleanup(lines)  # type: ignore[operator]  # its list is typed as of objects
    top = total - len(lines)  # IPython drops leading empty lines
    for step in manager.line_transforms:
        lines = step(lines)
    lines, ends = replaced(lines, manager.token_transformers)
    return "\n" * top + "".join(lines), {top + line + 1: top + end + 1 for line, end in ends.items()}


def transform(source: str) -> str:
    """Return the Python that IPython runs for a cell, header blanked, with as many lines where Python allows.

    Bodies of cell magics that run in the user's namespace (%%time, %%capture) stand bare; other cell magics are the
    call that IPython makes of them. Source that is not Python comes back as it is.
    """
    return _as_run(source)[0]


def parse_cell(source: str) -> ast.Module | None:
    """Return the tree of the Python that IPython runs for a cell, or a part of one; None where it is not Python."""
    return _as_run(source)[1]


def _as_run(source: str) -> tuple[str, ast.Module | None]:
    cell = read_cell(source)
    if cell.shape == "module":
        return cell.python, cell.tree
    lines = list(cell.lines)
    for index in range(cell.magic_line - 1):
        lines[index] = "\n"
    parsed = parse_python("".join(lines))
    return parsed.python, parsed.tree


_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def normalise(source: str) -> str:
    """Return a cell's code without header, comments, layout and positions; what is not Python comes back stripped.

    The same in every process and for Python 3.11 to 3.14: fields without a value are left out, so those that a later
    version adds do not show.
    """
    cell = read_cell(source)
    if cell.tree is None:
        first = max(cell.magic_line - 1, 0)
        lines = cell.lines[first:] if cell.magics else cell.python.splitlines(keepends=True)
        return "".join(lines).strip()
    pieces: list[str] = []
    try:
        _dump(cell.tree, pieces)
        return "\n".join([*cell.magics, "".join(pieces)])
    except RecursionError:
        return cell.python.strip()


def _dump(value: object, pieces: list[str]) -> None:
    """Add the text of a tree, or of what stands in a field of one, piece by piece."""
    if isinstance(value, ast.Constant):
        pieces.append(_constant(value.value))
    elif isinstance(value, ast.AST):
        pieces.append(f"{type(value).__name__}(")
        for name in value._fields:
            field = getattr(value, name, None)
            if name in _LEFT_OUT or field is None or field == []:
                continue
            if name == "values" and isinstance(value, ast.JoinedStr):
                field = _with_joined_texts(field)
            pieces.append(f"{name}=")
            _dump(field, pieces)
            pieces.append(",")
        pieces.append(")")
    elif isinstance(value, list):
        pieces.append("[")
        for each in value:
            _dump(each, pieces)
            pieces.append(",")
        pieces.append("]")
    else:
        pieces.append(_constant(value))


def _constant(value: object) -> str:
    # repr refuses integers of more than 4300 digits
    return hex(value) if type(value) is int else repr(value)


def _with_joined_texts(values: list[ast.expr]) -> list[ast.expr]:
    """Return an f-string's parts with neighbouring texts as one, which Python 3.12 leaves apart."""
    parts: list[ast.expr] = []
    for value in values:
        match parts[-1:], value:
            case [ast.Constant(str(before))], ast.Constant(str(after)):
                parts[-1] = ast.Constant(before + after)
            case _, ast.Constant(""):
                pass
            case _:
                parts.append(value)
    return parts
