"""The rule as code: a notebook run top to bottom in a fresh namespace. Plain, sequential, no cache, no processes.

`--foreach` is a for loop around its body, `--if` an if, `--until` a do-until loop, `--catch` a try.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nbflow.flow.fanouts import own_names
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.flow.parameters import File, gather_overrides, override_source
from nbflow.model import Cell, Flow, Step
from nbflow.task.context import Caught
from nbflow.task.join import Inputs, JoinedItem, is_scalar, kept_entry
from nbflow.task.shell import Compiler, Shell, enter, make_shell, run_cell

_T = TypeVar("_T")

Watch = Callable[[Cell, dict[str, Any] | None], None]
"""Told of each output of a cell, and None when the cell has run."""

_SHELL_NAMES = frozenset({"In", "Out", "exit", "quit", "open", "get_ipython", "display", "inputs"})


def run(
    path: str | os.PathLike[str], params: Mapping[str, Any] | None = None, *, watch: Watch | None = None
) -> dict[str, Any]:
    """Run a notebook top to bottom; return every name that it leaves with its value, but modules and `_names`.

    `watch` is told of what the cells display; what they print goes to standard output. It is for a process of its own.

    Raises what a cell raises, NotebookError and ParameterError. The working directory is the notebook's folder
    while it runs, and `__main__` is a module of its own.
    """
    flow = build_flow(read_notebook(Path(path)))
    overrides = gather_overrides(flow.parameters, params or {}, {}, os.environ)
    with _place(flow.notebook.folder) as module:
        if watch is not None:  # the process is its own: what shows something finds its one shell
            shell = make_shell()
        else:
            shell = Shell()
            shell.compile = Compiler()
        enter(shell, module)
        plain = _Plain(flow, shell, overrides, watch)
        plain.block([cell for cell in flow.notebook.cells if cell.kind not in ("control", "empty")], ())
        return {name: value for name, value in module.__dict__.items() if _is_left(name, value)}


class _Plain:
    """Cells run one after another, fan-outs as loops."""

    def __init__(self, flow: Flow, shell: Shell, overrides: Mapping[str, Any], watch: Watch | None) -> None:
        self.flow, self.shell, self.overrides, self.watch = flow, shell, overrides, watch
        self.steps = {step.position: step for step in flow.steps}
        self.space: dict[str, Any] = shell.user_ns
        self.ran = 0
        self.own = own_names(flow.steps)
        self.bound: list[set[str]] = []  # what the items that run have bound
        self.seen: list[set[str]] = []  # and read
        self.failed = False  # the step that runs, and `--catch` caught it
        self.done: dict[str, list[JoinedItem]] = {}  # of each fan-out, its last time round
        self.excused: set[str] = set()  # names that a skipped or caught step, or a loop without items, would have bound
        joined = {name for step in flow.steps for name in step.options.join}
        self.branches: dict[str, dict[str, Any]] = {s.name: {} for s in flow.steps if s.name in joined and not s.scope}
        self.without: set[str] = set()  # fan-outs whose list was skipped

    def scope(self, cell: Cell) -> tuple[str, ...]:
        step = self.steps.get(cell.position)
        return step.scope if step is not None else ()

    def block(self, cells: Sequence[Cell], scope: tuple[str, ...]) -> None:
        """Run the cells of one body; a foreach's own body becomes a loop where the foreach stands."""
        looped: set[int] = set()
        for cell in cells:
            inner = self.scope(cell)
            if cell.position in looped:
                continue
            if len(inner) <= len(scope):
                if self.watch is not None:
                    self.shell.use(functools.partial(self.watch, cell))
                self.cell(cell)
                if self.watch is not None:
                    self.watch(cell, None)
                continue
            head = inner[: len(scope) + 1]
            body = [other for other in cells if self.scope(other)[: len(head)] == head]
            between = [other for other in self.between(cells, body, head) if other.position not in looped]
            looped.update(other.position for other in (*between, *body))
            self.block(between, scope)
            self.loop(self.flow.step(head[-1]), body, head)

    def between(self, cells: Sequence[Cell], body: Sequence[Cell], head: tuple[str, ...]) -> list[Cell]:
        """Return the cells that stand among a body's without belonging to it: the loop needs them done before."""
        inside = range(body[0].position, body[-1].position)
        others = [c for c in cells if c.position in inside and self.scope(c)[: len(head)] != head]
        loops = {self.scope(c)[: len(head)] for c in others if len(self.scope(c)) >= len(head)}
        return [c for c in cells if c in others or self.scope(c)[: len(head)] in loops]  # a loop is done as a whole

    def loop(self, head: Step, body: Sequence[Cell], scope: tuple[str, ...]) -> None:
        foreach = head.options.foreach
        assert foreach is not None  # noqa: S101  # only foreach steps open a scope
        entries = self.done[head.name] = []
        steps = [self.steps[cell.position] for cell in body]
        self.without.discard(head.name)
        inside = {name for step in steps for name in step.writes}
        if self.lost(self.flow.lists[head.name]):
            self.without.add(head.name)
            self.excused |= inside
            return
        own = self.own.get(head.name, frozenset())
        above = {name: self.space[name] for name in own if name in self.space}
        last: dict[str, Any] = {}
        items = [*self.evaluate(foreach.expr)]
        self.excused |= inside if not items else set()
        for index, item in enumerate(items):
            self.restore(own, above)
            self.bound.append(set())
            self.seen.append({*head.targets})
            self.space["__item"] = item
            self.run(f"{foreach.target} = __item", "the loop variable")
            del self.space["__item"]
            before = self.ran
            self.block(body, scope)
            last |= {name: self.space[name] for name in own & self.bound.pop()}
            names = self.seen.pop() | self.constants(steps)
            if self.ran == before:
                continue  # every step of the body was skipped
            values = {name: copy.deepcopy(self.space[name]) for name in names if name in self.space}
            entries.append(kept_entry(index, item, values))
        self.restore(own, above | last)

    def restore(self, names: Iterable[str], values: Mapping[str, Any]) -> None:
        """Put these names back as they were, without a value where they had none."""
        for name in names:
            self.space.pop(name, None)
        self.space.update(values)

    def constants(self, steps: Sequence[Step]) -> set[str]:
        """Return what a body reads that is a definition."""
        definitions = [self.flow.definitions[order] for step in steps for order in step.definitions]
        return {name for d in definitions if d.kind == "definition" and not d.origins for name in d.names}

    def columns(self, head: str, entry: JoinedItem) -> list[str]:
        """Return the names that the body writes and that fit into a table."""
        steps = (
            step for step in self.flow.steps if head in step.scope or (entry.is_branch and step.name == entry.item)
        )
        names = {name for step in steps for name in step.writes}
        return [name for name in entry.names() if name in names and is_scalar(getattr(entry, name))]

    def cell(self, cell: Cell) -> None:
        """Run one cell, with what its options say."""
        step = self.steps.get(cell.position)
        if cell.kind == "params":
            self.space.setdefault("File", File)
            self.run(override_source(cell.body, self.overrides), f"cell {cell.position}")
            return
        if step is None:  # it belongs to no step, and may be one that is meant to fail
            with contextlib.suppress(*([Exception] if cell.options.catch is not None else [])):
                self.run(cell.body, f"cell {cell.position}")
            return
        options, self.failed = step.options, False
        head = next((head for name in options.join for head in self.flow.step(name).scope[-1:]), "")
        if options.join:
            branches = [kept_entry(at, n, self.branches.get(n, {}), n) for at, n in enumerate(options.join)]
            entries = self.done[head] if head else branches
            self.space["inputs"] = Inputs(entries, lambda entry: self.columns(head, entry))
        if (
            self.lost(step)
            or head in self.without
            or (options.condition is not None and self.caught(step, lambda: self.holds(options.condition)) is False)
        ):
            self.excused |= {*step.writes}
            return  # skipped
        self.ran += 1
        if not self.failed:
            for _ in range(options.max if options.until is not None else 1):
                if self.turn(step):
                    break
        if step.name in self.branches:
            names = {binding.name for binding in step.bindings} | {*step.writes}
            self.branches[step.name] = {n: copy.deepcopy(self.space[n]) for n in names if n in self.space}

    def lost(self, step: Step) -> bool:
        """Return whether a step surely reads a name that nobody left, as its maker was skipped or caught."""
        return any(bind.sure and bind.name not in self.space and bind.name in self.excused for bind in step.bindings)

    def turn(self, step: Step) -> bool:
        """Run the cell once; return whether that was the last turn."""
        self.failed = False
        reads = {binding.name for binding in step.bindings}
        writes = {*step.writes} - reads - {*step.targets}
        above = {name: self.space.pop(name) for name in writes if name in self.space}
        self.caught(step, lambda: self.run(step.source, step.label))
        for bindings, lookups in zip(self.bound, self.seen, strict=True):
            bindings.update(writes & self.space.keys())
            lookups.update(reads | writes & self.space.keys())
        self.space.update({name: value for name, value in above.items() if name not in self.space})
        if self.failed:
            self.excused |= {*step.writes}
        else:
            self.tell(step.options.catch, None)
        return step.options.until is None or self.caught(step, lambda: self.holds(step.options.until)) is not False

    def caught(self, step: Step, work: Callable[[], _T]) -> _T | None:
        """Return what some work gives; with `--catch`, None where it fails: the name holds the first failure."""
        try:
            return work()
        except Exception as error:  # the user's code, as `try` around the cell would have it
            name = step.options.catch
            if name is None:
                raise
            if not self.failed:
                self.tell(name, Caught(type(error).__name__, str(error), traceback.format_exc()))
            self.failed = True
            return None

    def tell(self, name: str | None, caught: Caught | None) -> None:
        """Set what the name of a --catch holds."""
        if name is not None:
            self.space[name] = caught
            for names in self.seen:
                names.add(name)

    def holds(self, expression: str | None) -> bool:
        return bool(self.evaluate(expression or "True"))

    def evaluate(self, expression: str) -> Any:
        return eval(compile(expression, "option", "eval"), self.space)  # noqa: S307  # the user's own line

    def run(self, source: str, name: str) -> None:
        # %%capture asks for the process's one shell
        is_asked = "%%capture" in source and self.watch is None
        with _only(self.shell) if is_asked else contextlib.nullcontext():
            error = run_cell(self.shell, source, name, name).error
        if error is not None:
            raise error


def _is_left(name: str, value: Any) -> bool:
    if name.startswith("_") or name in _SHELL_NAMES:
        return False
    return not isinstance(value, types.ModuleType) and value is not File


@contextlib.contextmanager
def _only(shell: Shell) -> Iterator[Shell]:
    """Let `get_ipython` find this shell inside the block, whichever this process has outside."""
    kinds = [kind for kind in Shell.mro() if "_instance" in vars(kind) or kind is Shell]
    before = [(kind, vars(kind).get("_instance")) for kind in kinds]
    for kind in kinds:
        type.__setattr__(kind, "_instance", shell)  # traitlets' own place for a singleton
    try:
        yield shell
    finally:
        for kind, instance in before:
            type.__setattr__(kind, "_instance", instance)


@contextlib.contextmanager
def _place(folder: str) -> Iterator[types.ModuleType]:
    """Make the notebook's folder the working directory and first import place, and give it a `__main__` of its own."""
    module = types.ModuleType("__main__")
    before = sys.modules["__main__"], Path.cwd(), list(sys.path)
    sys.path.insert(0, folder)
    os.chdir(folder)
    try:
        yield module
    finally:
        sys.modules["__main__"] = before[0]
        os.chdir(before[1])
        sys.path[:] = before[2]
