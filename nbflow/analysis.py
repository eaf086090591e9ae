r"""A cell's source → the names that it reads, writes, changes and defines, without running it.

    analyse("y = [x for x in xs]\nimport re").reads    # frozenset({"xs"})

Source may hold IPython syntax, a `%%step` header and cell magics. What cannot be seen without running (`exec`, star
imports, `%run`) is a diagnostic. The parts, each importing only from those before it: `analysis_facts` (types and
tables), `_magics`, `_cells` (source to Python), `_scopes`, `_state`, `_calls`, `_names`, `_expressions`, `_blocks`,
`_flow` (the walk), `_statements`, `_normal`.
"""

import ast
import sys
from functools import lru_cache

from nbflow.analysis_cells import Cell, Problem, read_cell, transform
from nbflow.analysis_facts import (
    ADVICE,
    NO_NAMES,
    Analysis,
    Diagnostic,
    DiscardedCall,
    Statement,
    Value,
    is_hidden_state,
)
from nbflow.analysis_flow import Flow
from nbflow.analysis_names import Facts, Session
from nbflow.analysis_normal import normalise
from nbflow.analysis_state import GONE, UNTOUCHED, State, is_surely_bound
from nbflow.analysis_statements import deleted_names, read_statements, source_lines, written_names

__all__ = ["Analysis", "Diagnostic", "DiscardedCall", "Statement", "Value", "analyse", "normalise", "transform"]

_LAZY_ANNOTATIONS = sys.version_info >= (3, 14)  # PEP 649: evaluated on request


@lru_cache(maxsize=4096)
def analyse(source: str, *, postponed: bool = False) -> Analysis:
    """A cell's source in; what it takes from before it and leaves behind out. Never raises, runs nothing.

    `postponed`: a cell above has `from __future__ import annotations`.
    """
    try:
        return _analyse(read_cell(source), postponed)
    except (RecursionError, MemoryError):
        problem = Problem("syntax", 1, 0, "", "the code is nested too deeply to be analysed")
        return Analysis(diagnostics=(_diagnostic(problem),))


def _analyse(cell: Cell, postponed: bool) -> Analysis:
    tree = cell.tree if cell.tree is not None else ast.Module([], [])
    session = _open_session(cell, tree, postponed)
    flow = Flow(session)
    flow.place = (cell.magic_line, 0) if cell.magics else None
    flow.expand(cell.expansions)
    for name in cell.uses:
        flow.load(name)
    flow.place = None
    if cell.shape == "function":
        flow.call_surely(flow.summarise_block(tree.body, tree))
    else:
        flow.run(tree.body)
    if not flow.dead:
        for name in cell.binds:
            flow.bind(name)
    state = flow.finish()
    sure = frozenset(state.read)
    pending = [body for slot in state.slots.values() for body in slot.bodies]
    flow.resolve([*pending, *flow.loose], called=False)
    return _conclude(cell, flow, state, sure)


def _open_session(cell: Cell, tree: ast.Module, postponed: bool) -> Session:
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    postponed |= any(alias.name == "annotations" for node in futures for alias in node.names)
    return Session(forks=":=" in cell.python, lazy_annotations=_LAZY_ANNOTATIONS, postponed=postponed)


def _conclude(cell: Cell, flow: Flow, state: State, sure: frozenset[str]) -> Analysis:
    facts = flow.facts
    writes, deletes = written_names(state, facts.changed), deleted_names(state)
    diagnostics = [*flow.diagnostics.values(), *(_diagnostic(problem) for problem in cell.problems)]
    statements = read_statements(cell, flow.session) or _whole(cell, facts, writes)
    possible = frozenset(name for name in facts.possible if not is_hidden_state(name))
    python = cell.python if cell.tree is not None and cell.shape == "module" else ""
    if cell.shape == "function" and cell.tree is not None:
        python = transform("".join(cell.lines))
    return Analysis(
        reads=frozenset(facts.reads | facts.expanded),
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
        hints=frozenset(flow.session.hints),
        discarded_calls=tuple(facts.calls[place] for place in sorted(facts.calls)),
        body=python.strip("\n"),
        statements=statements,
        awaits=facts.awaits,
        line_magics=tuple(facts.magics),
        cell_magic=cell.magics[0][2:].partition(" ")[0] if cell.magics else None,
    )


def _is_sure(name: str, state: State) -> bool:
    """A name written or deleted in, whether that happens on every path."""
    slot = state.slots.get(name, UNTOUCHED)
    if slot.bits & GONE:
        return slot.bits == GONE
    return name in state.changed or is_surely_bound(slot)


def _whole(cell: Cell, facts: Facts, writes: frozenset[str]) -> tuple[Statement, ...]:
    """A cell whose body is not ours to take apart in; one statement for its cell magic out, if it has one."""
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
