r"""A cell's source → the names that it reads, writes, changes and defines, without running it.

    analyse("y = [x for x in xs]\nimport re").reads    # frozenset({"xs"})

Source may hold IPython syntax, a `%%step` header and cell magics. What cannot be seen without running (`exec`, star
imports, `%run`) is a diagnostic. `lines`, `magics` and `source` turn the cell into Python, `walk` follows its paths
with `scopes`, `paths` and `calls`, and `result` has the types of the answer.
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from nbflow.analysis.magics import read_magic
from nbflow.analysis.paths import GONE, UNTOUCHED, Paths, is_bound, is_surely_bound
from nbflow.analysis.quoted import MAIN
from nbflow.analysis.result import (
    ADVICE,
    BUILTINS,
    MODULE_GLOBALS,
    NO_NAMES,
    Analysis,
    AssignedValue,
    Diagnostic,
    DiscardedCall,
    Pairs,
    Statement,
    StatementKind,
    is_hidden_state,
)
from nbflow.analysis.scopes import descend, dotted_name, import_pairs
from nbflow.analysis.source import (
    ParsedCell,
    Problem,
    compile_problem,
    normalise,
    parse_cell,
    read_cell,
    split_lines,
    transform,
)
from nbflow.analysis.walk import CellFacts, Walk, WalkContext
from nbflow.model import StarImport


def read_statements(cell: ParsedCell, context: WalkContext) -> tuple[Statement, ...]:
    """Return a cell's statements, each analysed by itself, in the context that all its walks share."""
    if cell.tree is None or cell.shape != "module":
        return ()
    nodes = cell.tree.body
    spans = [_span(node, cell) for node in nodes]
    python = [line.encode() for line in split_lines(cell.python)]
    statements = []
    for index, node in enumerate(nodes):
        line, end = spans[index]
        shared = (index > 0 and spans[index - 1][1] >= line) or (index + 1 < len(nodes) and spans[index + 1][0] <= end)
        text = _segment(node, python)
        source = text if shared else source_lines(cell, line, end)
        statement = _known_statement(node, text, context)
        statements.append(msgspec.structs.replace(statement, line=line, end_line=end, source=source))
    return tuple(statements)


_STATEMENTS: dict[tuple[str, bool, frozenset[tuple[str, str]]], tuple[Statement, dict[str, str]]] = {}
"""Statements that were read before: Python, what a walk over it goes by → the statement, the imports after it."""

MOST_STATEMENTS = 16_384


def _known_statement(node: ast.stmt, text: str, context: WalkContext) -> Statement:
    """Return a statement without its place; `text` is its Python.

    Of a cell that was edited only the edited statements are walked again. What a walk may find depends on the text, on
    the imports above in the cell, and on what the context shares. So what uses more of that is not kept: functions,
    whose bodies were read where the cell had other imports, star imports, and annotations that are text. Of a class the
    text lacks the decorators.
    """
    if context.postponed or "import" in text or isinstance(node, ast.ClassDef):
        return _read_statement(node, context)
    key = (text, context.forks, frozenset(context.origins.items()))
    if (known := _STATEMENTS.get(key)) is not None:
        context.origins.clear()
        context.origins.update(known[1])
        return known[0]
    context.asked = False
    statement = _read_statement(node, context)
    if not context.asked:
        if len(_STATEMENTS) >= MOST_STATEMENTS:
            _STATEMENTS.clear()
        _STATEMENTS[key] = (statement, dict(context.origins))
    return statement


def _segment(node: ast.stmt, lines: Sequence[bytes]) -> str:
    """Return what of a cell's Python a statement is: `ast.get_source_segment` splits all of it each time."""
    last = node.end_lineno or node.lineno
    if last == node.lineno:
        return lines[last - 1][node.col_offset : node.end_col_offset].decode()
    inner = lines[node.lineno : last - 1]
    return b"".join(
        [lines[node.lineno - 1][node.col_offset :], *inner, lines[last - 1][: node.end_col_offset]]
    ).decode()


def _span(node: ast.stmt, cell: ParsedCell) -> tuple[int, int]:
    """Return a statement's first line, decorators included, and its last line in the source."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    last = node.end_lineno or node.lineno
    joined = (cell.ends[line] for line in range(first, last + 1) if line in cell.ends) if cell.ends else ()
    return first, max([last, *joined])


def source_lines(cell: ParsedCell, line: int, end: int) -> str:
    """Return the text of a range of a cell's lines as written, without the indent that all share."""
    lines = cell.lines[line - 1 : end]
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())] if lines else ""
    return "".join(each.removeprefix(indent) for each in lines).rstrip()


def _read_statement(node: ast.stmt, context: WalkContext) -> Statement:
    walk = Walk(context)
    walk.diagnostics = {}  # judged with the whole cell in view
    walk.run([node])
    state, facts = walk.finish(), walk.facts
    deferred = NO_NAMES.union(*(body.loads for body in facts.functions))
    kind = kind_of(node)
    return Statement(
        line=0,
        end_line=0,
        source="",
        kind=kind,
        reads=frozenset(facts.reads | facts.expanded),
        deferred=frozenset(name for name in deferred - BUILTINS - MODULE_GLOBALS if not is_hidden_state(name)),
        deferred_writes=NO_NAMES.union(
            *(body.stores | body.drops | body.changed | body.possible for body in facts.functions)
        ),
        builtin_reads=frozenset(facts.builtin_reads) | (deferred & BUILTINS - MODULE_GLOBALS),
        hints=frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name)) & context.hints,
        writes=written_names(state, facts.changed),
        possible_writes=frozenset(facts.possible),
        deletes=deleted_names(state),
        value=_value_of(node),
        call=dotted_name(node.value.func) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None,
        imports=_imports_of(node, context.stars) if kind in {"import", "def", "class"} else (),
    )


def written_names(state: Paths, changed: set[str]) -> frozenset[str]:
    """Return the names written by the end of a walk, or changed in place; those that are unbound there are left out."""
    written = {name for name, slot in state.slots.items() if is_bound(slot) and name[0] > "\2"}
    return frozenset(written | {name for name in changed if name not in state.slots or state.slots[name].bits != GONE})


def deleted_names(state: Paths) -> frozenset[str]:
    """Return the names that are, or may be, unbound at the end of a walk."""
    return frozenset(name for name, slot in state.slots.items() if slot.bits & GONE and name[0] > "\2")


# ---------------------------------------------------------------- kinds


def kind_of(node: ast.stmt) -> StatementKind:
    """Return a statement's kind; `if` and `try` around nothing but definitions count as definitions."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "import"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "def"
    if isinstance(node, ast.ClassDef) or type(node).__name__ == "TypeAlias":
        return "class"
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return "assign"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return "magic" if read_magic(node.value) else "call"
    if isinstance(node, ast.If | ast.Try):
        return _kind_of_block(node)
    return "other"


def _kind_of_block(node: ast.If | ast.Try) -> StatementKind:
    kinds: set[StatementKind] = set()
    for inner in _statements_in(node):
        kind = kind_of(inner)
        if kind in {"import", "def", "class"}:
            kinds.add(kind)
        elif not _is_inert(inner):
            return "other"
    return "class" if "class" in kinds else "def" if "def" in kinds else "import" if kinds else "other"


def _statements_in(node: ast.If | ast.Try) -> list[ast.stmt]:
    if isinstance(node, ast.If):
        return [*node.body, *node.orelse]
    return [*node.body, *(each for handler in node.handlers for each in handler.body), *node.orelse, *node.finalbody]


def _is_inert(node: ast.stmt) -> bool:
    """Return whether a statement beside definitions has no weight: pass, raise, a literal or its assignment."""
    if isinstance(node, ast.Pass | ast.Raise):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    value = _value_of(node)
    return value is not None and value.kind == "literal"


def _imports_of(node: ast.stmt, stars: Mapping[str, Pairs]) -> tuple[tuple[str, str], ...]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return tuple(import_pairs(node, stars))
    if isinstance(node, ast.If | ast.Try):
        return tuple(pair for inner in _statements_in(node) for pair in _imports_of(inner, stars))
    return ()


# ---------------------------------------------------------------- values


def _value_of(node: ast.stmt) -> AssignedValue | None:
    """Return the value that a statement gives to plain names; None where it gives none."""
    match node:
        case ast.Assign(targets, value) if all(_is_plain(target) for target in targets):
            return classify(value)
        case ast.AnnAssign(ast.Name(), _, ast.expr() as value):
            return classify(value)
    return None


def _is_plain(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(_is_plain(each) for each in target.elts)
    return isinstance(target, ast.Name)


def classify(node: ast.expr) -> AssignedValue:
    """Return whether a right-hand side is a literal, a name, a call of a dotted name, or something else."""
    names = frozenset(part.id for part in descend(node) if isinstance(part, ast.Name))
    if isinstance(node, ast.Call):
        callee = dotted_name(node.func)
        simple = callee is not None and _is_simple_call(node)
        return AssignedValue("call" if simple else "other", callee, names)
    if not _is_operation(node):
        return AssignedValue("other", None, names)
    return AssignedValue("name" if names else "literal", None, names)


def _is_simple_call(node: ast.Call) -> bool:
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    return dotted_name(node.func) is not None and all(
        _is_simple_call(each) if isinstance(each, ast.Call) else _is_operation(each) for each in arguments
    )


def _is_operation(node: ast.AST) -> bool:
    """Return whether an expression is made of names, attributes, immutable literals and operators only."""
    match node:
        case ast.Constant() | ast.Name():
            return True
        case ast.Attribute(value):
            return _is_operation(value)
        case ast.Tuple(elements):
            return all(_is_operation(each) for each in elements)
        case ast.UnaryOp(_, operand):
            return _is_operation(operand)
        case ast.BinOp(left, _, right):
            return _is_operation(left) and _is_operation(right)
        case ast.BoolOp(_, values) | ast.JoinedStr(values):
            return all(_is_operation(each) for each in values)
        case ast.Compare(left, _, comparators):
            return _is_operation(left) and all(_is_operation(each) for each in comparators)
        case ast.Subscript(value, inner):
            return _is_operation(value) and _is_operation(inner)
        case ast.FormattedValue(value, _, spec):
            return _is_operation(value) and (spec is None or _is_operation(spec))
        case ast.Slice(lower, upper, step):
            return all(each is None or _is_operation(each) for each in (lower, upper, step))
    return False


__all__ = [
    "Analysis",
    "AssignedValue",
    "Diagnostic",
    "DiscardedCall",
    "Statement",
    "analyse",
    "normalise",
    "parse_cell",
    "transform",
]

_LAZY_ANNOTATIONS = sys.version_info >= (3, 14)  # PEP 649: evaluated on request


def analyse(source: str, *, postponed: bool = False, stars: tuple[StarImport, ...] = ()) -> Analysis:
    """Return what a cell takes from before it and leaves behind. Never raises, runs nothing.

    `postponed` tells that a cell above has `from __future__ import annotations`; `stars` what star imports bring.
    """
    return _known_analysis(source, postponed, stars)


# Behind `analyse`, as a cache tells an argument that is left out from its default: each cell was analysed twice.
@lru_cache(maxsize=32_768)
def _known_analysis(source: str, postponed: bool, stars: tuple[StarImport, ...]) -> Analysis:
    try:
        return _analyse(read_cell(source), postponed, stars)
    except (RecursionError, MemoryError):
        problem = Problem("syntax", 1, 0, "", "the code is nested too deeply to be analysed")
        return Analysis(diagnostics=(_diagnostic(problem),))


def _analyse(cell: ParsedCell, postponed: bool, stars: tuple[StarImport, ...]) -> Analysis:
    tree = cell.tree if cell.tree is not None else ast.Module([], [])
    context = _open_context(cell, tree, postponed, stars)
    walk = Walk(context)
    walk.place = (cell.magic_line, 0) if cell.magics else None
    walk.expand(cell.expansions)
    for name in cell.uses:
        walk.load(name)
    walk.place = None
    if cell.shape == "function":
        walk.call_surely(walk.summarise_block(tree.body, tree))
    else:
        walk.run(tree.body)
    if not walk.dead:
        for name in cell.binds:
            walk.bind(name)
    state = walk.finish()
    sure = frozenset(state.read)
    pending = [body for slot in state.slots.values() for body in slot.bodies]
    walk.resolve([*pending, *walk.loose], called=False)
    return _conclude(cell, walk, state, sure)


def _open_context(cell: ParsedCell, tree: ast.Module, postponed: bool, stars: tuple[StarImport, ...]) -> WalkContext:
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    postponed |= any(alias.name == "annotations" for node in futures for alias in node.names)
    return WalkContext(
        forks=":=" in cell.python,
        lazy_annotations=_LAZY_ANNOTATIONS,
        postponed=postponed,
        stars={star.module: star.pairs for star in stars},
    )


def _conclude(cell: ParsedCell, walk: Walk, state: Paths, sure: frozenset[str]) -> Analysis:
    facts = walk.facts
    writes, deletes = written_names(state, facts.changed), deleted_names(state)
    refused = compile_problem(cell)
    problems = (*cell.problems, refused) if refused is not None else cell.problems
    diagnostics = [*walk.diagnostics.values(), *map(_diagnostic, problems)]
    statements = read_statements(cell, walk.context) or _whole(cell, facts, writes)
    possible = frozenset(name for name in facts.possible if not is_hidden_state(name))
    python = cell.python if cell.tree is not None and cell.shape == "module" else ""
    if cell.shape == "function" and cell.tree is not None:
        python = transform("".join(cell.lines))
    return Analysis(
        reads=frozenset(facts.reads | facts.expanded) - {MAIN},
        writes=writes,
        may_mutate=possible | frozenset(name for name in facts.escapes if not is_hidden_state(name)),
        deletes=deletes,
        conditional=frozenset(name for name in writes | deletes if not _is_sure(name, state)),
        private=frozenset(name for name in writes if name.startswith("_")),
        definitions=writes & facts.definitions,
        diagnostics=tuple(sorted(diagnostics, key=lambda each: (each.line, each.column, each.code, each.name))),
        possible_writes=possible,
        sure_reads=sure,
        optional_reads=frozenset(facts.expanded - facts.reads),
        builtin_reads=frozenset(facts.builtin_reads),
        iterated=frozenset(facts.iterated),
        hints=frozenset(walk.context.hints),
        discarded_calls=tuple(facts.calls[place] for place in sorted(facts.calls)),
        body=python.strip("\n"),
        statements=statements,
        awaits=facts.awaits,
        line_magics=tuple(facts.magics),
        cell_magic=cell.magics[0][2:].partition(" ")[0] if cell.magics else None,
    )


def _is_sure(name: str, state: Paths) -> bool:
    """Return whether a name that is written or deleted is so on every path."""
    slot = state.slots.get(name, UNTOUCHED)
    if slot.bits & GONE:
        return slot.bits == GONE
    return name in state.changed or is_surely_bound(slot)


def _whole(cell: ParsedCell, facts: CellFacts, writes: frozenset[str]) -> tuple[Statement, ...]:
    """Return one statement for the cell magic of a cell whose body cannot be taken apart; none without a magic."""
    if not cell.magics or cell.shape == "module":
        return ()
    return (
        Statement(
            line=cell.magic_line,
            end_line=len(cell.lines),
            source=source_lines(cell, cell.magic_line, len(cell.lines)),
            kind="magic",
            reads=frozenset(facts.reads | facts.expanded),
            builtin_reads=frozenset(facts.builtin_reads),
            writes=writes,
            possible_writes=frozenset(facts.possible),
            deletes=NO_NAMES,
        ),
    )


def _diagnostic(problem: Problem) -> Diagnostic:
    return Diagnostic(problem.code, problem.line, problem.column, problem.name, problem.message, ADVICE[problem.code])
