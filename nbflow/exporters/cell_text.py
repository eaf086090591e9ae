"""A cell's text for a target that is plain Python: pieces, IPython's lines as Python, indentation, docstrings."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Collection

import msgspec

from nbflow.analysis.cell import Statement, analyse

DISPLAY_MAGICS = frozenset(
    "matplotlib config load_ext reload_ext unload_ext autoreload aimport precision xmode colors pprint alias pylab"
    " who whos pinfo pinfo2 history timeit pdb debug".split()
)
"""Line magics that change what a notebook shows and leave no value."""

_ASSIGNED = re.compile(r"^(?P<names>[A-Za-z_][\w, ]*?)\s*=\s*!(?P<command>.*)$", re.DOTALL)
_DOLLAR = re.compile(r"\$(\w+)")


class TextPiece(msgspec.Struct, frozen=True):
    """Statements of a cell that share lines, with the comments right above; `line` is the first statement's."""

    line: int
    end: int
    text: str
    statements: tuple[Statement, ...] = ()


def split_pieces(source: str) -> list[TextPiece]:
    """Return all lines of a cell as pieces, in order."""
    lines = source.split("\n")
    groups: list[list[Statement]] = []
    for statement in analyse(source).statements:
        if groups and statement.line <= groups[-1][-1].end_line:
            groups[-1].append(statement)
        else:
            groups.append([statement])
    pieces, begin = [], 1
    for group in groups:
        end = max(statement.end_line for statement in group)
        pieces.append(TextPiece(group[0].line, end, "\n".join(lines[begin - 1 : end]), tuple(group)))
        begin = end + 1
    rest = "\n".join(lines[begin - 1 :])
    return [*pieces, TextPiece(begin, len(lines), rest)] if rest.strip() else pieces


def plain_python(text: str, known: Collection[str]) -> tuple[str, str] | None:
    """Return a piece as plain Python with the module that it needs; None where there is no such thing.

    `known` are names of the notebook's: `$name` in a shell line is one of them or the shell's own.
    """
    if _parses(text):
        return text, ""
    comments, line = _split_comments(text)
    assigned = _ASSIGNED.match(line)
    if assigned:
        call = f"subprocess.run({_shell(assigned['command'], known)}, shell=True, capture_output=True, text=True)"
        return comments + f"{assigned['names']} = {call}.stdout.splitlines()", "subprocess"
    if line.startswith("!"):
        return comments + f"subprocess.run({_shell(line.lstrip('!'), known)}, shell=True, check=False)", "subprocess"
    if line.endswith("?") or line.startswith("?"):
        return comments.rstrip("\n"), ""
    name, _, rest = line.lstrip("%").partition(" ")
    if not line.startswith("%") or line.startswith("%%"):
        return None
    if name in DISPLAY_MAGICS:
        return comments.rstrip("\n"), ""
    if name == "time" and _parses(rest):
        return comments + rest, ""
    if name == "cd" and rest.strip():
        return comments + f"os.chdir({rest.strip()!r})", "os"
    return None


def environment_variables(text: str) -> dict[str, str]:
    """Return the variable that a `%env A=1` or `%set_env A 1` line sets, with its value; nothing for other lines."""
    match = re.match(r"^%(?:env|set_env)\s+(\w+)(?:\s*=\s*|\s+)(.+)$", _split_comments(text)[1].strip())
    return {match[1]: match[2].strip()} if match else {}


def is_for_show(text: str) -> bool:
    """Return whether a statement leaves nothing to execute: a magic that changes what is shown, or sets a variable."""
    return bool(environment_variables(text)) or plain_python(text, ()) == (_split_comments(text)[0].rstrip("\n"), "")


def _split_comments(text: str) -> tuple[str, str]:
    lines = text.split("\n")
    at = next((at for at, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return "".join(f"{line}\n" for line in lines[:at]), "\n".join(lines[at:]).strip()


def _shell(command: str, known: Collection[str]) -> str:
    """Return the Python text that makes a shell line: `{expression}` and `$name` are filled in as IPython does."""
    command = command.strip()
    template = _DOLLAR.sub(lambda m: f"{{{m[1]}}}" if m[1] in known else m[0], command)
    return f"f{template!r}" if "{" in template else repr(command)


def _parses(text: str) -> bool:
    try:
        compile(text, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


# ---------------------------------------------------------------- layout


def indent(text: str, width: int) -> str:
    """Return Python moved right, but for lines that begin within a string; empty lines stay empty."""
    inside = string_lines(text)
    return "\n".join(
        line if number in inside or not line.strip() else " " * width + line
        for number, line in enumerate(text.split("\n"), start=1)
    )


def string_lines(text: str) -> frozenset[int]:
    """Return the numbers of the lines of Python that begin within a string."""
    numbers: set[int] = set()
    opened: list[int] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = tokenize.tok_name[token.type]
            if kind == "FSTRING_START":
                opened.append(token.start[0])
            elif kind in ("STRING", "FSTRING_END"):
                first = opened.pop() if kind == "FSTRING_END" else token.start[0]
                numbers.update(range(first + 1, token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):
        return frozenset(numbers)
    return frozenset(numbers)


def docstring(markdown: str, width: int = 0) -> str:
    """Return Markdown as a docstring, headings without their marks; as comments where no docstring can hold it.

    Lines below the first are moved right by `width`; `indent` leaves them alone, for they begin within a string.
    """
    text = re.sub(r"(?m)^#+\s+", "", markdown.strip())
    if not text or '"""' in text or text.endswith(("\\", '"')):
        return as_comment(text)
    raw = "r" if "\\" in text else ""
    lines = [line and " " * width + line for line in text.split("\n")]
    end = f"\n{' ' * width}" if len(lines) > 1 else ""
    return raw + '"""' + "\n".join(lines).strip() + end + '"""'


def as_comment(markdown: str) -> str:
    """Return Markdown as comment lines."""
    return "\n".join(f"# {line}".rstrip() for line in markdown.strip().split("\n")) if markdown.strip() else ""


def show_last(source: str) -> str:
    """Return a cell's source with `print` around a last expression that is only shown.

    A call stays as it is: what it gives back may be None.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    last = tree.body[-1] if tree.body else None
    showable = ast.Name | ast.Attribute | ast.Subscript | ast.BinOp | ast.Compare | ast.JoinedStr | ast.Tuple
    if not isinstance(last, ast.Expr) or not isinstance(last.value, showable):
        return source
    lines = source.split("\n")
    value = last.value
    if source.rstrip().endswith(";"):
        return source
    end, column = (last.end_lineno or last.lineno) - 1, last.end_col_offset or 0
    raw = lines[end].encode()
    lines[end] = raw[:column].decode() + ")" + raw[column:].decode()
    lines[last.lineno - 1] = (
        f"{lines[last.lineno - 1][: value.col_offset]}print({lines[last.lineno - 1][value.col_offset :]}"
    )
    return "\n".join(lines)


def rename(expression: str, replace: Callable[[str], str]) -> str:
    """Return an expression with `replace(name)` for each name that it takes from outside."""

    class _Names(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            new = replace(node.id) if node.id not in own else node.id
            return node if new == node.id else ast.parse(new, mode="eval").body

    tree = ast.parse(expression, mode="eval")
    own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    own |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    changed = ast.unparse(_Names().visit(tree))
    return expression if changed == ast.unparse(ast.parse(expression, mode="eval")) else changed
