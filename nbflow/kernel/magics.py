"""The way into IPython: `%%step`, `%%params`, `%%config` and `%%setup` lines become calls, `%flow` a line magic."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from nbflow.analysis.lines import MISPLACED, header_of, misplaced_header, outside_quotes
from nbflow.kernel.stand_in import StandIn

if TYPE_CHECKING:
    from nbflow.kernel.session import Session

ENTER = "nbflow_enter"
TURN = "nbflow_turn"


ASKED = re.compile(r"%flow\s+([\w-]+)\s*\?{1,2}")
"""`%flow run?`, which IPython would take for a question about `run`."""


def hoist(lines: list[str]) -> list[str]:
    """Return a cell's lines with its header as the first of them, or with a call that refuses it.

    It stands before IPython's own transformers, which drop empty lines and indentation: the lines below the header keep
    their numbers, those above it, which are empty or comments, become empty.
    """
    source = "".join(lines)
    if misplaced_header(source) is not None:
        return [_call(MISPLACED, source)]
    header = header_of(lines)
    if header is None or header.at == 0:
        return lines
    return [lines[header.at], *("\n" for _ in range(header.at)), *lines[header.at + 1 :]]


def transform(lines: list[str]) -> list[str]:
    """Return a cell's lines with a header line turned into a plain call, the body left in its place.

    The call resolves through `get_ipython()`, so nothing is added to the user's names. No side effects: IPython
    transforms cells for completeness checks and nested cells, too.
    """
    header = header_of(lines[:1])
    if header is None:
        asked = ASKED.fullmatch("".join(lines).strip())
        return [f"%flow help {asked[1]}\n"] if asked is not None else lines
    body = lines[1:]
    if _unbalanced(header.rest):
        # the rest of the header would be a syntax error in the body: the call says what is wrong with it
        return [_call(header.kind, header.rest.strip())]
    first = next((at for at, line in enumerate(body) if line.strip()), len(body))
    if first < len(body) and body[first].startswith("%%"):
        from IPython.core.inputtransformer2 import cell_magic

        body = [*body[:first], *cell_magic(body[first:])]  # type: ignore[no-untyped-call]
    return [_call(header.kind, header.rest.strip()), *body]


def _call(kind: str, header: str) -> str:
    return f"get_ipython().{ENTER}({kind!r}, {header!r})\n"


def _unbalanced(header: str) -> bool:
    """Return whether the header line ends inside brackets; quotes and their contents are skipped."""
    return sum((char in "([{") - (char in ")]}") for _, char in outside_quotes(header)) > 0


def entry_of(tree: ast.AST) -> ast.Call | None:
    """Return our call in the first statement of a cell's module, None where there is none."""
    body = getattr(tree, "body", None)
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return None
    call = body[0].value
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == ENTER:
        return call
    return None


def decides(ip: Any, session: Session) -> StandIn:
    """Return what stands in for the shell's `transform_ast`: there it is decided what of a cell runs here.

    IPython asks it after compiling and before anything of the cell has run. One of its `ast_transformers` would be
    called there too; but for the sake of those it goes through every node of every cell, plain ones included, which in
    a cell of 100 lines takes longer than all that we do.
    """

    def transformed(transform: Any) -> Callable[[ast.AST], ast.AST]:
        return lambda node: decide(session, transform(node))

    return StandIn(ip, "transform_ast", transformed)


def decide(session: Session, node: ast.AST) -> ast.AST:
    """Return what IPython runs of a cell's module: only our call where the task is reused or runs elsewhere.

    Never raise: the cell would fail outside of its own lines.
    """
    if not isinstance(node, ast.Module):
        return node
    call = entry_of(node)
    if call is None:
        said = session.tagged()
        if said is None:
            return node
        call = _insert_call(node, *said)
    kind, header = (ast.literal_eval(argument) for argument in call.args[:2])
    if not session.decide(kind, header, node):
        del node.body[1:]
    return node


def turns(ip: Any, session: Session) -> StandIn:
    """Return what stands in for the shell's `run_ast_nodes`, which runs a cell: an `--until` runs in turns.

    What ends a turn and begins the next is a statement of the cell, in its header's line: what goes wrong in it, and an
    interrupt, end the cell as they do anywhere else.
    """
    turn = ast.parse(f"get_ipython().{TURN}()").body

    def in_turns(run: Any) -> Callable[..., Any]:
        async def run_turns(nodes: list[ast.stmt], *args: Any, **options: Any) -> Any:
            raised = await run(nodes, *args, **options)
            if entry_of(ast.Module(nodes, [])) is None:
                return raised
            while not raised and session.in_turn:
                raised = await run(turn, *args, **{**options, "interactivity": "none"})
                if not raised and session.in_turn:
                    raised = await run(nodes[1:], *args, **options)
            return raised

        return run_turns

    return StandIn(ip, "run_ast_nodes", in_turns)


def _insert_call(node: ast.Module, kind: str, header: str) -> ast.Call:
    """Insert the call for a header that a cell's tags spell as the first statement, and return it."""
    statement = cast("ast.Expr", ast.parse(_call(kind, header)).body[0])
    node.body.insert(0, statement)
    return cast("ast.Call", statement.value)
