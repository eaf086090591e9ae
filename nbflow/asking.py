"""Cells that wait for a person (`input()`, a debugger, a widget) or speak of what no run has: found before a run. Pure.

A task has nobody to ask. Taken as a step such a cell could only fail, maybe after hours, so it is named at once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence

from nbflow.analysis import Analysis, analyse, transform
from nbflow.effects import dotted
from nbflow.model import Cell, Definition, Finding, Step

ASKING = {
    "input": "waits for an answer at the keyboard",
    "getpass": "waits for a password at the keyboard",
    "breakpoint": "waits in the debugger",
    "set_trace": "waits in the debugger",
    "post_mortem": "waits in the debugger",
    "embed": "waits in another shell",
    "upload": "waits for a file to be picked",
    "ui_events": "waits for a widget",
    "run_ui_poll_loop": "waits for a widget",
    "ginput": "waits for clicks in a figure",
    "waitforbuttonpress": "waits for clicks in a figure",
    "mainloop": "waits in a window of its own",
}
"""The last name of a call -> what it waits for."""

ALONE = frozenset({"input", "breakpoint", "getpass", "set_trace", "ui_events"})
OWNERS = re.compile(
    r"^(builtins|getpass|pdb|ipdb|IPython(\.\w+)*|files|google\.colab\.files|plt|pyplot|turtle|root|fig)$"
)
MAGICS = {"debug": "waits in the debugger", "pdb": "waits in the debugger", "edit": "waits for an editor"}

FIX = "give the value in a %%params cell or read it from a file; or take the steps by %%step and leave this cell out"
BARRED = frozenset({"hidden-state", "run-magic", "syntax"})
"""What the analysis says of a cell that cannot take part either."""

HIDING = frozenset({"star-import", "dynamic", "run-magic"})
"""After one of these a missing name may be there after all."""


def diagnosed(cell: Cell, analysis: Analysis, *, all_cells: bool) -> list[Finding]:
    """A cell and its analysis in; what the analysis found there, as findings, out."""
    barred = BARRED if all_cells else BARRED - HIDING if cell.kind in ("step", "params", "setup") else frozenset()
    return [
        Finding(
            code=problem.code, level="error" if problem.code in barred else "warning", step=cell.name, cell=cell.id,
            line=problem.line, name=problem.name or None, message=problem.message, fix=problem.hint or None,
        )
        for problem in analysis.diagnostics
    ]  # fmt: skip


def waiting(steps: Sequence[Step], definitions: Sequence[Definition], *, all_cells: bool) -> list[Finding]:
    """Steps and definitions in; the steps that wait for a person, an error where each cell is one, out."""
    known = {name for step in steps for name in step.writes}
    known |= {name for definition in definitions if not definition.origins for name in definition.names}
    made = [definition for definition in definitions if definition.kind == "definition"]
    bodies = {each.order: place for each in made for place in places_that_wait(each.source, known)}
    found = []
    for step in steps:
        places = [*places_that_wait(step.source, known), *_magics(step.source)]
        used = [(order, bodies[order]) for order in step.definitions if order in bodies]
        texts = [(line, f"{step.label}: {what}") for line, what in places]
        texts += [(None, f"{step.label} uses {definitions[o].names[0]}: {what}") for o, (_, what) in used]
        for line, text in texts[:1]:
            found.append(Finding(
                code="interactive", level="error" if all_cells else "warning", step=step.name, cell=step.cell,
                line=line, message=f"{text}, and nobody is there in a run", fix=FIX,
            ))  # fmt: skip
    return found


def places_that_wait(source: str, known: Collection[str]) -> Iterator[tuple[int, str]]:
    """Code and names that are bound in; the lines of its calls that wait, with what they wait for, out."""
    if not any(word in source for word in ASKING):
        return
    try:
        tree = ast.parse(transform(source))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        owner, _, name = dotted(node.func).rpartition(".")
        if name in ASKING and (OWNERS.match(owner) if owner else name in ALONE and name not in known):
            yield node.lineno, f"{owner}{'.' if owner else ''}{name}() {ASKING[name]}"


def _magics(source: str) -> Iterator[tuple[None, str]]:
    for magic in analyse(source).line_magics if "%" in source else ():
        if magic in MAGICS:
            yield None, f"%{magic} {MAGICS[magic]}"
