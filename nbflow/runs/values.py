"""A past run's values: loaded from the datastore, with the definitions that they refer to replayed from the notebook.

Each run has a namespace of its own, in which its functions find their globals and its classes live, so that
`isinstance` holds between any two values of one run. A kernel that has executed the very same definition gives its
own class instead.
"""

from __future__ import annotations

import json
import linecache
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any, Protocol

from nbflow.analysis.cell import transform
from nbflow.analysis.effects import PROCESS, state_of
from nbflow.analysis.source import is_star_import
from nbflow.engine.earlier import graph_of, parameter_records
from nbflow.errors import DamagedError, NbflowError, NotFoundError, TaskError, nearest
from nbflow.flow.definitions import adds_method
from nbflow.flow.identity import future_flags
from nbflow.flow.loops import Loops, Sizes
from nbflow.flow.scope import closed, defined, gather
from nbflow.model import Binding, Definition, Flow, Group, Index, Record, TaskId, TaskView
from nbflow.store import artifacts
from nbflow.store.flows import RunPlace
from nbflow.store.location import Store, open_store
from nbflow.store.serialize.pickler import Registry
from nbflow.store.stored_run import StoredRun
from nbflow.task import process_state
from nbflow.task.definition_state import put_state
from nbflow.task.replay import put_made

_MAIN_LOCK = threading.RLock()
"""Held while `__main__` is a run's namespace: pickles and dataclasses look their module up by name."""


class Records(Protocol):
    """What is left of a run's tasks."""

    @property
    def sizes(self) -> Sizes:
        """How many items each fan-out had."""

    def of(self, task: TaskId) -> Record | None:
        """Return the record that stands for a task, or for the end of an --until; None where there is none."""

    def lost(self, task: TaskId) -> str:
        """Return what has become of a task's record where it has left one that cannot be read, else nothing."""

    def last(self, step: str) -> Record | None:
        """Return the record of a step's last task, None where it left none."""

    @property
    def emptied_at(self) -> float | None:
        """When a clean-up took values of the run, seconds since 1970; None where none did."""


class Values:
    """The values of one run; made once for each run, so that what is replayed is replayed once."""

    def __init__(
        self, store: Store, flow: Flow, records: Records, live: Registry | None = None,
        states: Mapping[str, Group] | None = None,
    ) -> None:  # fmt: skip
        """Take a run's parts; `states` hold what cells have set on definitions, where its end does not count."""
        self._store = store
        self._flow = flow
        self._records = records
        self._loops = Loops(flow)
        self._live = live
        self._states = states
        self._registry = Registry()
        self._module = types.ModuleType("__main__")
        self._by_id = {definition.id: definition for definition in reversed(flow.definitions)}
        self._made: dict[int, dict[str, Any]] = {}  # definition -> what it bound
        self._data: dict[str, Any] = {}  # names of data that functions read
        self._followed: set[str] = set()
        self._namespace["display"] = _display

    @property
    def _namespace(self) -> dict[str, Any]:
        return self._module.__dict__

    # ------------------------------------------------------------ values

    def load(self, record: Record, name: str) -> Any:
        """Return the value of an artifact of a record.

        Raises NotFoundError when there is none, it was not stored or a clean-up took it, OutdatedError when the
        notebook that is kept with the run lacks a definition, and whatever unpickling raises.
        """
        artifact = record.artifacts.get(name)
        if artifact is None:
            names = sorted(record.artifacts)
            raise NotFoundError(
                f"step {record.step} left no artifact {name!r}{nearest(name, names)}",
                fix=f"it left: {', '.join(names) or 'none'}",
            )
        if artifact.group < 0:
            raise NotFoundError(
                f"{name!r} of step {record.step} was not stored: {artifact.error or 'it could not be serialized'}"
            )
        try:
            return self.load_group(record.groups[artifact.group], name)
        except DamagedError:
            if self._records.emptied_at is None:
                raise
            at = time.strftime("%Y-%m-%d", time.localtime(self._records.emptied_at))
            raise NotFoundError(
                f"{name!r} of step {record.step} was removed by `nbflow gc` on {at}",
                fix="run the flow with that run's parameters again; `gc` leaves runs that have a tag as they are",
            ) from None

    @property
    def registry(self) -> Registry:
        """The classes and functions that have been replayed."""
        return self._registry

    def load_group(self, group: Group, name: str) -> Any:
        """Return the value of a name in a stored group, after replaying the definitions that it refers to."""
        with self._as_main():
            for reference in group.definitions:
                definition = self._by_id.get(reference.id)
                if definition is not None:
                    self._define(definition.order)
                    self._follow(self._used_by(definition))
            self._follow(group.free)
            return artifacts.load(self._store, [group], [name], self._registry)[name]

    def last(self, name: str) -> Any:
        """Return a name's last version in document order: an artifact, or a definition replayed.

        Raises NotFoundError when no cell of the run gave it a value.
        """
        for version in self._loops.versions(name, self._records.sizes):
            if isinstance(version, tuple):
                with self._as_main():
                    for order in version:
                        self._define(order)
                        self._follow(self._used_by(self._flow.definitions[order]))
                sources = [self._made[order] for order in sorted(version, reverse=True)]
                return next(each[name] for each in sources if name in each)
            record = self._records.of(version)
            if record is not None and name in record.artifacts:
                return self.load(record, name)
            if record is None and (reason := self._records.lost(version)):
                raise DamagedError(f"{name!r} cannot be loaded: {reason}")  # and not what it was before that step
        raise NotFoundError(f"no step of this run left {name!r}")

    def defined_in(self, step: str) -> frozenset[str]:
        """Return the names of the definitions that a step's own cell makes."""
        return frozenset(name for definition in self._own(step) for name in definition.names)

    def definition(self, step: str, name: str) -> Any:
        """Return the object that a definition in a step's cell makes, replayed."""
        order = max(definition.order for definition in self._own(step) if name in definition.names)
        with self._as_main():
            self._define(order)
            self._follow(self._used_by(self._flow.definitions[order]))
        return self._made[order][name]

    def _own(self, step: str) -> list[Definition]:
        cells = {one.cell for one in self._flow.steps if one.name == step}
        return [one for one in self._flow.definitions if one.cell in cells and one.kind == "definition"]

    def names(self) -> list[str]:
        """Return the public names that have a value, sorted; nothing is loaded."""
        names = []
        for name in self._flow.writers:
            if name.startswith(("_", "<")):
                continue
            if any(self._has(version, name) for version in self._loops.versions(name, self._records.sizes)):
                names.append(name)
        return sorted(names)

    def _has(self, version: TaskId | tuple[int, ...], name: str) -> bool:
        if isinstance(version, tuple):
            return True
        record = self._records.of(version)
        return record is not None and name in record.artifacts

    # ------------------------------------------------------------ definitions

    def _define(self, order: int) -> None:
        """Replay a definition, after all that it requires, in document order, each once."""
        # where nobody knows what a star import brings, any of those above may make a name that this one reads
        above = self._flow.definitions[:order]
        stars = (each.order for each in above if not each.names and is_star_import(each.source))
        needs = closed(self._flow.definitions, [order])
        methods = [each.order for each in self._methods if not needs.isdisjoint(each.requires)]
        for needed in sorted({*needs, *closed(self._flow.definitions, methods), *stars}):
            if needed not in self._made:
                definition = self._flow.definitions[needed]
                live = self._from_kernel(definition)
                self._made[needed] = live or self._replayed(definition)
                self._registry.add(definition.id, self._made[needed], definition.cell)
                self._settle_names()
                if live is None:  # the kernel's own have what the kernel's cells have set on them
                    self._put_state(self._made[needed])

    @cached_property
    def _methods(self) -> tuple[Definition, ...]:
        """The functions that decorators have made methods of classes: a class has them, whoever asks for it."""
        return tuple(each for each in self._flow.definitions if adds_method(each))

    def _put_state(self, made: Mapping[str, Any]) -> None:
        """Set on classes and functions what the run's cells have set on them, beside what their source says."""
        for name, value in made.items():
            if self._states is not None:
                group = self._states.get(state_of(name))
                if group is not None:
                    put_state(value, self.load_group(group, state_of(name)))
                continue
            for version in self._loops.versions(state_of(name), self._records.sizes):
                record = self._records.of(version) if isinstance(version, TaskId) else None
                if record is not None and state_of(name) in record.artifacts:
                    put_state(value, self.load(record, state_of(name)))
                    break

    def _from_kernel(self, definition: Definition) -> dict[str, Any] | None:
        """Return what a definition bound in this kernel, None where it has not been executed here."""
        if self._live is None or definition.kind != "definition" or not self._live.has(definition.id):
            return None
        values = {}
        for name in definition.names:
            try:
                values[name] = self._live.object(definition.id, name)
            except NbflowError:  # a name that no pickle refers to: an import, a constant
                return None
        return values

    def _replayed(self, definition: Definition) -> dict[str, Any]:
        """Return the names that a definition binds, with their values."""
        namespace = self._namespace
        for needed in sorted(definition.requires):
            namespace.update(self._made.get(needed, {}))
        binds = {name: value for binding in definition.binds for name, value in self._bound(binding)}
        if put_made(definition.names, binds, namespace):
            return {name: namespace[name] for name in definition.names if name in namespace}
        namespace.update(binds)
        file = f"{self._flow.name}: cell {definition.position}"
        _remember_lines(file, definition)
        flags = future_flags(each.source for each in self._flow.definitions[: definition.order])
        try:
            _execute(definition, file, namespace, flags)
        except ModuleNotFoundError:
            if not self._add_paths():
                raise
            _execute(definition, file, namespace, flags)
        return {name: namespace[name] for name in definition.names if name in namespace}

    def _add_paths(self) -> bool:
        """Look for modules where the notebook's cells have looked for them; whether that is anywhere else."""
        for version in self._loops.versions(PROCESS, self._records.sizes):
            record = self._records.of(version) if isinstance(version, TaskId) else None
            if record is not None and PROCESS in record.artifacts:
                before = list(sys.path)
                for change in self.load(record, PROCESS):
                    process_state.put(process_state.only(change, "sys.path"))
                return sys.path != before
        return False

    def _settle_names(self) -> None:
        """Give each name of the namespace its last version: data over definitions, later over earlier ones."""
        # Replaying a definition puts names in force that a later cell defines again, and functions keep this very
        # namespace as their globals. They must find what the end of the notebook has, whatever was replayed last.
        for order in sorted(self._made):
            self._namespace.update(self._made[order])
        self._namespace.update(self._data)

    # ------------------------------------------------------------ free names

    def _used_by(self, definition: Definition) -> tuple[str, ...]:
        """Return the names that a definition's bodies read, and those of its annotations that only definitions bear."""
        return (*definition.free, *defined(definition.hints, self._flow.writers, None))

    def _follow(self, names: tuple[str, ...]) -> None:
        """Bind the free names of functions in the namespace, as the end of the notebook has them."""
        queue = {name: False for name in names if name not in self._followed}
        if not queue:
            return
        self._followed |= queue.keys()
        try:
            need = gather(self._flow.writers, self._flow.definitions, queue)
            for order in sorted(need.definitions):
                self._define(order)
            for binding in need.bindings.values():
                for name, value in self._bound(binding):
                    self._data[name] = value
        except BaseException:  # the user's definitions run here; whatever broke off is tried again the next time
            self._followed -= queue.keys()
            raise
        self._settle_names()

    def _bound(self, binding: Binding) -> Iterator[tuple[str, Any]]:
        """Yield a binding's name and value from the nearest source that has one; nothing where none has."""
        for source in binding.sources:
            record = self._records.last(source.step) if source.step is not None else None
            artifact = record.artifacts.get(binding.name) if record is not None else None
            if record is not None and artifact is not None and artifact.group >= 0:
                yield binding.name, self.load(record, binding.name)
                return

    @contextmanager
    def _as_main(self) -> Iterator[None]:
        """Make `__main__` the run's namespace inside, and modules beside the notebook importable."""
        folder = self._flow.notebook.folder
        with _MAIN_LOCK:
            before = sys.modules["__main__"]
            sys.modules["__main__"] = self._module
            added = bool(folder) and folder not in sys.path
            path = list(sys.path)
            if added:
                sys.path.append(folder)
            try:
                yield
            finally:
                sys.modules["__main__"] = before
                sys.path[:] = path


def _execute(definition: Definition, file: str, namespace: dict[str, Any], flags: int) -> None:
    """Run a definition's statement in a namespace, its lines numbered as in its cell; TaskError when it raises."""
    code = compile("\n" * (definition.line - 1) + transform(definition.source), file, "exec", flags, dont_inherit=True)
    try:
        exec(code, namespace)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the user's code
        names = ", ".join(definition.names) or definition.kind
        raise TaskError(
            f"the definition of {names} cannot be replayed: {type(error).__name__}: {error}",
            cell=definition.cell,
            line=definition.line,
            fix="load the value in a kernel that has run the notebook",
        ) from error


def _remember_lines(file: str, definition: Definition) -> None:
    """Let tracebacks and `inspect.getsource` find the definition's text under the file name of its code."""
    entry = linecache.cache.get(file)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    text = [f"{line}\n" for line in definition.source.split("\n")]
    start = definition.line - 1
    lines += ["\n"] * (start + len(text) - len(lines))
    lines[start : start + len(text)] = text
    # without a time of change an entry is never checked against a file
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


def _display(*values: Any, **options: Any) -> Any:
    """Show values, where no kernel has bound the `display` that notebooks call."""
    from IPython.display import display

    return display(*values, **options)  # type: ignore[no-untyped-call]


def live_registry() -> Registry | None:
    """Return the registry of the kernel that runs here, None outside a kernel with nbflow loaded."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    loaded = getattr(shell, "nbflow_extension", None)  # level 14 puts its session there
    registry = getattr(loaded[0], "registry", None) if loaded else None
    return registry if isinstance(registry, Registry) else None


# ---------------------------------------------------------------- of stored runs


def values_of(run: StoredRun) -> Values:
    """Return a run's values, one object for each run in a process: `isinstance` holds between all values of a run."""
    return _values(run.store.url, run.place, run.document)


@lru_cache(maxsize=64)
def _values(url: str, place: RunPlace, document: str) -> Values:
    """Make a run's values, once for each text of its notebook: by hand a notebook grows while it runs."""
    del document
    run = StoredRun(open_store(url), place)
    flow = graph_of(run)
    return Values(run.store, flow, _Left(run, flow), live_registry())


def values_with(run: StoredRun, flow: Flow, states: Mapping[str, Group]) -> Values:
    """Return a run's values apart, for one task: with what cells had set on definitions when it began."""
    return Values(run.store, flow, _Left(run, flow), live_registry(), states)


WRITTEN = frozenset({"int", "float", "bool", "str", "NoneType"})
"""Types whose values JSON writes as they are."""


class StoredParameters(Mapping[str, Any]):
    """A run's parameters by name: what JSON has no word for is loaded when it is asked for by name, and only then."""

    def __init__(self, run: StoredRun) -> None:
        self._run = run
        self._texts = run.started.parameters
        self._loaded: dict[str, Any] = {}

    @cached_property
    def _stored(self) -> dict[str, Record]:
        """The records of those that are stored."""
        records = (self._run.given(key, execution) for key, execution in self._run.started.given)
        return {
            name: record
            for record in records if record is not None
            for name, artifact in record.artifacts.items() if artifact.group >= 0
        }  # fmt: skip

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._value(name)
        return self._loaded[name]

    def _value(self, name: str) -> Any:
        text = self._texts[name]
        record = self._stored.get(name)
        if record is not None and record.artifacts[name].type not in WRITTEN:
            return values_of(self._run).load(record, name)
        try:
            return json.loads(text)
        except ValueError:
            return text

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def shown(self) -> dict[str, str]:
        """Return what they look like; nothing is loaded."""
        return {name: self._shown(name, text) for name, text in self._texts.items()}

    def _shown(self, name: str, text: str) -> str:
        if name in self._loaded:
            return repr(self._loaded[name])
        if name in self._stored:
            return self._stored[name].artifacts[name].preview
        try:
            return repr(json.loads(text))
        except ValueError:
            return repr(text)


def parameters_of(run: StoredRun) -> StoredParameters:
    """Return a run's parameters by name with their real values."""
    return StoredParameters(run)


class _Left:
    """The records of a run's tasks, as its values are looked up."""

    def __init__(self, run: StoredRun, flow: Flow) -> None:
        self._run = run
        self._flow = flow

    @cached_property
    def _parameters(self) -> dict[str, Record]:
        return parameter_records(self._run, self._flow)

    @property
    def sizes(self) -> dict[tuple[str, Index], int]:
        """How many items each fan-out had, and how many turns each loop, as far as its tasks show."""
        sizes: dict[tuple[str, Index], int] = {}
        heads = {step.name: len(step.scope) for step in self._flow.steps if step.options.foreach is not None}
        for view in self._run.snapshot.tasks:
            if view.task.turn is not None:
                turns = (view.task.step, view.task.index)
                sizes[turns] = max(sizes.get(turns, 0), view.task.turn + 1)
            depth = heads.get(view.task.step, 0)
            if depth and len(view.task.index) == depth:
                place = (view.task.step, view.task.index[:-1])
                sizes[place] = max(sizes.get(place, 0), view.task.index[-1] + 1)
        return sizes

    def of(self, task: TaskId) -> Record | None:
        """Return the record of a task, or of the end of an --until."""
        view = self._view(task)
        return self._run.record(view) if view is not None else self._parameters.get(task.step)

    def lost(self, task: TaskId) -> str:
        """Return what has become of the task's record where it has left one that cannot be read."""
        view = self._view(task)
        return self._run.lost(view) if view is not None else ""

    def _view(self, task: TaskId) -> TaskView | None:
        views = [
            view for view in self._run.snapshot.tasks
            if (view.task.step, view.task.index) == (task.step, task.index) and task.turn in (None, view.task.turn)
        ]  # fmt: skip
        return max(views, key=lambda view: view.task.turn or 0, default=None)

    def last(self, step: str) -> Record | None:
        """Return the record of a step's last task."""
        return self._run.last_record(step) or self._parameters.get(step)

    @property
    def emptied_at(self) -> float | None:
        """When a clean-up took values of the run."""
        return self._run.emptied_at
