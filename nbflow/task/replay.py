"""Definitions and set-up of earlier cells, run again in a task's own `__main__` before its cell."""

from __future__ import annotations
import __future__

import ast
import contextlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nbflow.analysis.effects import made_by
from nbflow.model import Group, Ref, Replay, TaskFailure
from nbflow.store.serialize.registry import Registry
from nbflow.task.streams import silent
from nbflow.tracebacks import failure_of, raised_at, remember_lines

FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names[3:])
"""What `from __future__` sets for everything below it."""

Place = tuple[str, str, int]
"""Where a statement stands that is replayed: its id, cell and line."""

Load = Callable[[Group, frozenset[str]], Mapping[str, Any]]


def place_of(statement: Replay) -> Place:
    """Return where a statement stands."""
    return statement.id, statement.cell, statement.line


class ReplayFailed(Exception):
    """A definition or set-up statement raised; `failure` names its cell and line."""

    def __init__(self, failure: TaskFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class StoredInputs:
    """A task's inputs, loaded when first asked for, each group once: objects shared between names stay shared."""

    def __init__(self, groups: tuple[Group, ...], load: Load, behind: StoredInputs | None = None) -> None:
        """Take what loads groups; what a task before it in its process has loaded (`behind`) stays that object."""
        self._groups = groups
        self._load = load
        self.loaded: dict[tuple[str, tuple[str, ...]], Mapping[str, Any]] = {} if behind is None else behind.loaded

    def value(self, ref: Ref) -> Any:
        """Return the value of an input; raise whatever loading it raises."""
        group = self._groups[ref.group]
        place = (group.id, group.names)
        if place not in self.loaded:
            self.loaded[place] = self._load(group, frozenset(group.names))
        return self.loaded[place][ref.name]


def file_of(replay: Replay, position: int, code_name: str) -> str:
    """Return the file name of a replayed statement's code: that of the task's own cell, or of another cell."""
    return code_name if replay.position == position else f"cell {replay.position}"


def run(replay: Replay, file: str, shell: Any, inputs: StoredInputs, registry: Registry) -> None:
    """Run one definition or set-up statement in the shell's namespace; raise ReplayFailed when it raises.

    Names that it reads from elsewhere are bound just for it. What a set-up statement shows has been shown by its
    own cell already, so nothing is shown here.
    """
    namespace: dict[str, Any] = shell.user_ns
    remember_lines(file, replay.source, replay.line)
    shell.compile.cells[file] = file
    values = {name: inputs.value(ref) for name, ref in replay.binds.items()}
    before = {name: namespace[name] for name in values if name in namespace}
    namespace.update(values)
    try:
        if not put_made(replay.names, values, namespace):
            with silent(), _undisplayed(shell):
                _execute(replay, file, shell)
    except BaseException as error:  # the user's code
        if isinstance(error, KeyboardInterrupt) and not raised_at(error):
            raise
        raise ReplayFailed(failure_of(error, (file,), replay.cell)) from error
    finally:
        for name, value in values.items():
            if namespace.get(name) is value and name not in replay.names:
                del namespace[name]
        namespace.update({name: value for name, value in before.items() if name not in replay.names})
    if replay.kind == "definition":
        register(replay, namespace, registry)


def put_made(names: Iterable[str], values: Mapping[str, Any], namespace: dict[str, Any]) -> bool:
    """Bind what a definition that computes has made, where that is among the values that it reads; whether it is."""
    made = values.get(made_by(names))
    if made is not None:
        namespace.update(made.values)
    return made is not None


def register(replay: Replay, namespace: Mapping[str, Any], registry: Registry) -> None:
    """Register the classes and functions that a definition has bound under its id."""
    values = {name: namespace[name] for name in replay.names if name in namespace}
    registry.add(replay.id, values, replay.cell)


@contextlib.contextmanager
def _undisplayed(shell: Any) -> Iterator[None]:
    """Send what is displayed within the block nowhere."""
    from IPython.core.displaypub import CapturingDisplayPublisher  # who only looks up what was left needs no IPython

    publisher = shell.display_pub
    shell.display_pub = CapturingDisplayPublisher()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        shell.display_pub = publisher


def _execute(replay: Replay, file: str, shell: Any) -> None:
    """Transform (`%magic`, `!command`), compile with the cell's own line numbers, and run, awaits included."""
    text = shell.transform_cell(replay.source)
    tree = ast.increment_lineno(ast.parse(text, file, type_comments=False), replay.line - 1)
    flags = shell.compile.flags | (ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if replay.kind == "setup" else 0)
    with shell.builtin_trap:
        code = compile(tree, file, "exec", flags, dont_inherit=True)
        shell.compile.flags |= code.co_flags & FUTURE
        if code.co_flags & inspect.CO_COROUTINE:
            function = types.FunctionType(code, shell.user_global_ns)
            shell.loop_runner(function())
        else:
            exec(code, shell.user_global_ns, shell.user_ns)
