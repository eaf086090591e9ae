"""IPython's magic and shell lines, as text or as the calls they are turned into → what they run, take and bind.

Behaviour as in IPython 8 and 9: core/magics/{execution,osm,script,namespace}.py and utils/text.py (DollarFormatter).
"""

import ast
import re
import string
from collections.abc import Iterator, Mapping
from itertools import pairwise

import msgspec

from nbflow.analysis.sql import tables_of, target_of


class LineMagic(msgspec.Struct, frozen=True):
    """One line magic or shell line: its name ("!" for the shell) and its dealings with the user's names."""

    name: str
    code: str = ""  # Python that it runs
    leaks: bool = True  # whether names that the code assigns stay in the namespace
    binds: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    expansions: tuple[ast.expr, ...] = ()
    diagnostic: tuple[str, str] | None = None  # code, message


# The options that take a value, of magics whose other words are Python code, and whether its names stay.
_CODE_MAGICS: Mapping[str, tuple[str, bool]] = {
    "time": ("", True),
    "timeit": ("nrpv", False),
    "prun": ("DlsT", True),
    "debug": ("b", True),
    "memit": ("rti", True),
    "mprun": ("fT", True),
    "lprun": ("fmDTuz", True),
    "pinstrument": ("", True),
}
_NO_EXPANSION = frozenset({"time", "timeit", "prun", "debug", "pinfo", "pinfo2", "psearch"})
_RUNS_FILES = frozenset({"run", "load", "loadpy", "rerun", "recall", "rep", "edit", "ed", "paste", "cpaste", "macro"})
_REBINDS = frozenset({"reset", "reset_selective", "xdel", "pylab", "cython"})
_SHELL_METHODS = frozenset({"system", "getoutput", "getoutput_split"})
_DOLLAR = re.compile(r"(.*?)\$(\$?[\w\.]+)(?=([^']*'[^']*')*[^']*$)")  # DollarFormatter's own pattern

AUTOMAGIC = frozenset(
    "pip conda mamba micromamba uv cd ls ll mkdir rmdir cp mv rm cat man history matplotlib load_ext reload_ext env"
    " set_env time timeit run autoreload pylab config pwd who whos".split()
)
"""Words that start a line magic without its %, where IPython finds such a line alone in a cell."""


def read_magic(node: ast.Call) -> LineMagic | None:
    """Return the magic or shell line that a call in transformed code stands for; None for any other call."""
    func = node.func
    if not (isinstance(func, ast.Attribute) and is_shell(func.value) and node.args):
        return None
    words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if len(words) != len(node.args):
        return None
    if func.attr in _SHELL_METHODS:
        return LineMagic("!", expansions=expansions(words[0]))
    if func.attr in {"run_line_magic", "magic"}:
        name, line = words if len(words) == 2 else words[0].partition(" ")[::2]
        return read_line(name.lstrip("%"), line)
    return None


def is_shell(node: ast.expr) -> bool:
    """Return whether an expression is `get_ipython()`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def read_line(name: str, line: str) -> LineMagic:
    """Return what a line magic does, by its name and the rest of its line."""
    if name in _CODE_MAGICS:
        return _read_code_magic(name, line)
    fields = () if name in _NO_EXPANSION else expansions(line)
    words = line.split()
    if name == "store":
        return _read_store(words)
    if name == "sql":
        tables = (ast.Name(table, ast.Load(), lineno=1, col_offset=0) for table in tables_of(line))
        return LineMagic(name, binds=target_of(line), expansions=(*fields, *tables))
    if name == "sc":
        target = line.partition("=")[0].split()
        return LineMagic(name, binds=identifiers(target[-1:]), expansions=fields)
    if name in _RUNS_FILES:
        what = f"%{name} runs or brings in code that stands elsewhere; its names are not known"
        return LineMagic(name, expansions=fields, diagnostic=("run-magic", what))
    if name in _REBINDS:
        what = f"%{name} binds or deletes names that the cell does not show"
        return LineMagic(name, expansions=fields, diagnostic=("dynamic", what))
    return LineMagic("!" if name in {"sx", "system"} else name, expansions=fields)


def _read_code_magic(name: str, line: str) -> LineMagic:
    options, code = split_options(line.strip(), _CODE_MAGICS[name][0])
    return LineMagic(
        name,
        code=code,
        leaks=_CODE_MAGICS[name][1],
        binds=identifiers([value for flag, value in options if name == "timeit" and flag == "v"]),
        uses=identifiers(
            [value.partition(".")[0] for flag, value in options if name in {"mprun", "lprun"} and flag == "f"]
        ),
    )


def _read_store(words: list[str]) -> LineMagic:
    names = identifiers([word for word in words if not word.startswith(("-", ">"))])
    if "-r" in words:
        what = "%store -r brings back names from another session"
        return LineMagic("store", binds=names, diagnostic=("run-magic", what))
    return LineMagic("store", uses=names if not any(word.startswith("-") for word in words) else ())


def split_options(line: str, with_value: str) -> tuple[list[tuple[str, str]], str]:
    """Return a magic's options as (letter, value) pairs, and the rest of its line.

    `with_value` holds the letters of the options that take a value.
    """
    options: list[tuple[str, str]] = []
    while match := re.match(r"(--[\w-]+)(?:\s+|$)|-([A-Za-z])", line):
        line = line[match.end() :]
        if match[1]:
            options.append((match[1], ""))
            continue
        value = ""
        if match[2] in with_value:
            word = re.match(r"\s*(\S+)\s*", line)
            value, line = (word[1], line[word.end() :]) if word else ("", line)
        elif line[:1].isalpha():
            line = "-" + line  # -qo is -q -o
        options.append((match[2], value))
        line = line.lstrip()
    return options, line


def long_option(line: str, *names: str) -> tuple[str, ...]:
    """Return the variables that a magic's line names after one of these options."""
    words = line.replace("=", " ").split()
    return identifiers([after for word, after in pairwise(words) if word in names])


def identifiers(words: list[str]) -> tuple[str, ...]:
    """Return the words that can be variables; `a,b` counts as two."""
    return tuple(part for word in words for part in word.split(",") if part.isidentifier())


def expansions(line: str) -> tuple[ast.expr, ...]:
    """Return the Python expressions of a shell or magic line's `{expr}` and `$name`; none where IPython gives up.

    IPython leaves the whole line as it is if one field cannot be evaluated, so one that does not parse ends them all.
    """
    if "{" not in line and "$" not in line:
        return ()
    try:
        return tuple(ast.parse(field.strip(), mode="eval").body for field in _fields(line))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _fields(line: str) -> Iterator[str]:
    for literal, field, _spec, _conversion in string.Formatter().parse(line):
        for match in _DOLLAR.finditer(literal):
            if not match[2].startswith("$"):
                yield match[2]
        if field is not None:
            yield field
