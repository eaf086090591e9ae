"""Steps that one process runs in order, as they share what cannot travel between two. Pure.

A group holds every step on a path between two of its steps: such a step reads what one of them leaves and makes what
another one reads, so that it must run between them. Steps keep their names, options and rows; the first of a group
stands for it where tasks are ordered and started.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import msgspec

from nbflow.analysis.cell import parse_cell
from nbflow.flow import findings
from nbflow.flow.ancestors import Ancestors
from nbflow.model import Finding, Flow, Frozen, Step, StepOptions

NOTHING_SPENT: Mapping[str, tuple[str, ...]] = MappingProxyType({})
PLAIN = StepOptions()
ALONE = ("join", "until", "timeout", "memory", "once", "nodes", "pip", "env", "on", "serial", "workers", "secret")
"""Options by which a step needs a process, or a place in the order of tasks, of its own."""

OPENED = frozenset(
    "open io.open gzip.open bz2.open lzma.open zipfile.ZipFile tarfile.open tempfile.TemporaryFile"
    " tempfile.NamedTemporaryFile sqlite3.connect duckdb.connect shelve.open socket.socket socket.create_connection"
    " threading.Lock threading.RLock threading.Condition threading.Event threading.Semaphore threading.Thread"
    " subprocess.Popen csv.reader csv.writer csv.DictReader csv.DictWriter os.scandir contextvars.ContextVar".split()
)
"""Calls whose value belongs to the process that made it."""

FOLDERS = frozenset({"tempfile.TemporaryDirectory", "TemporaryDirectory"})
"""Calls that make a folder which goes with their value: paths made from that are of use while the process lives."""

PATHS = frozenset({"Path", "PurePath", "join", "joinpath", "fspath", "str", "with_name", "with_suffix", "format"})
"""Calls that make a path of a path, by the last part of their names."""

FROM_FOLDER = "what is in a temporary folder that goes with the process"
IN_FOLDERS = frozenset({FROM_FOLDER, *(f"what {name}() gives" for name in FOLDERS)})
NOTHING_GIVEN: Mapping[str, str] = MappingProxyType({})

LAST_NAMES = sorted({name.rpartition(".")[2] for name in OPENED | FOLDERS})
LIKELY = re.compile(rf"\bfor\b|\b(?:{'|'.join(LAST_NAMES)})\(")
"""What stands in a text that may make such a value: most cells need not be parsed again."""


class Bond(Frozen, frozen=True, kw_only=True):
    """Why two steps cannot be parted: `reader` reads `name` of `maker`, which has no stored form."""

    maker: str
    reader: str
    name: str
    why: str


def with_together(
    flow: Flow, unstored: Mapping[str, Mapping[str, str]], spent: Mapping[str, tuple[str, ...]] = NOTHING_SPENT
) -> Flow:
    """Return a flow whose steps know with which others they run, and what is to be said of it.

    `unstored` says of steps which names they could not store, and why; what their text shows is added to it. `spent`
    are steps that have had an effect in this run, each with those that it ran together with: that stays so, as any
    other process would have to execute it again.
    """
    steps = {step.name: step for step in flow.steps}
    groups = _Groups(flow, spent)
    notes: list[Finding] = []
    for bond in bonds(flow, unstored):
        obstacle = groups.join(bond)
        if obstacle is not None and bond.maker in unstored:
            notes.append(findings.unstored(flow, bond.reader, bond.maker, bond.name, bond.why, obstacle))
    if not groups.of:
        return msgspec.structs.replace(flow, findings=(*flow.findings, *notes)) if notes else flow
    notes += groups.notes()
    joined = (_joined(step, groups, steps) for step in flow.steps)
    return msgspec.structs.replace(flow, steps=tuple(joined), findings=(*flow.findings, *notes))


def bonds(flow: Flow, unstored: Mapping[str, Mapping[str, str]]) -> Iterator[Bond]:
    """Yield for each name that a step reads, and its nearest writer cannot store, what holds the two together."""
    known = {step.name: {**unstored.get(step.name, {}), **bound_to_process(step.source)} for step in flow.steps}
    for step in flow.steps:
        inside: dict[str, str] = {}  # names of temporary folders, and of what has been made from those
        for binding in step.bindings:
            maker = next((source.step for source in binding.sources if source.step is not None), None)
            why = known.get(maker, {}).get(binding.name) if maker is not None else None
            if maker is not None and why is not None:
                yield Bond(maker=maker, reader=step.name, name=binding.name, why=why)
                inside |= {binding.name: why} if why in IN_FOLDERS else {}
                if binding.name in step.writes and not re.search(rf"\b{binding.name}\s*=(?!=)", step.source):
                    known[step.name].setdefault(binding.name, why)  # changed in place, it is the same object still
        if inside:
            known[step.name] |= bound_to_process(step.source, inside)


def bound_to_process(source: str, given: Mapping[str, str] = NOTHING_GIVEN) -> dict[str, str]:
    """Return the names that a cell's own statements bind to what belongs to its process, each with what that is.

    `given` are names of temporary folders, and of what has been made from those, in cells above.
    """
    if not given and not LIKELY.search(source):
        return {}
    tree = parse_cell(source)
    names: dict[str, str] = {}
    inside = {*given}
    for statement in tree.body if tree is not None else ():
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            what = _kind_of(statement.value)
            if not what and _is_path_in(statement.value, inside):
                what = FROM_FOLDER
            for target in targets:
                if isinstance(target, ast.Name):
                    names.pop(target.id, None)
                    names |= {target.id: what} if what else {}
                    inside = inside | {target.id} if what in IN_FOLDERS else inside - {target.id}
    return names


def _is_path_in(value: ast.expr, folders: AbstractSet[str]) -> bool:
    """Return whether an expression makes a path from one of these names: what is read from there may travel."""
    nodes = [*ast.walk(value)]
    calls = [ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)]
    return PATHS.issuperset(calls) and any(isinstance(node, ast.Name) and node.id in folders for node in nodes)


def _kind_of(value: ast.expr) -> str:
    if isinstance(value, ast.GeneratorExp):
        return "a generator"
    if isinstance(value, ast.Call) and (name := ast.unparse(value.func)) in OPENED | FOLDERS:
        return f"what {name}() gives"
    return ""


class _Groups:
    """The groups so far: step -> the names of its group, in document order."""

    def __init__(self, flow: Flow, spent: Mapping[str, tuple[str, ...]]) -> None:
        self.flow = flow
        self.spent = spent
        self.of = {name: group for group in spent.values() for name in group}
        self.steps = {step.name: step for step in flow.steps}
        self.bonds: list[Bond] = []
        self._ancestors = Ancestors()
        for step in flow.steps:
            self._ancestors.add(step.name, self._ancestors.reached((*step.needs, *step.ordered)))

    def join(self, bond: Bond) -> str | None:
        """Take two steps into one group, with all between them; return what is in the way, None where nothing is."""
        names = self._closed(frozenset({bond.maker, bond.reader}))
        obstacle = self._obstacle(names)
        if obstacle is None:
            ordered = tuple(step.name for step in self.flow.steps if step.name in names)
            self.of.update(dict.fromkeys(ordered, ordered))
            self.bonds.append(bond)
        return obstacle

    def _closed(self, names: frozenset[str]) -> frozenset[str]:
        """Return steps with their groups, and with all that stands on a path between two of them."""
        while True:
            groups = names.union(other for name in names for other in self.of.get(name, ()))
            more = self._ancestors.between(groups)
            if more == names:
                return names
            names = more

    def _obstacle(self, names: Iterable[str]) -> str | None:
        members = [step for step in self.flow.steps if step.name in names]
        first, group = members[0], tuple(step.name for step in members)
        for step in members:
            if self.spent.get(step.name, group) != group:
                return f"{step.label} has had an effect in this run already; they do in the next one"
            if step.scope != first.scope:
                return f"{step.label} and {first.label} are not in the same fan-out"
            if step.options.foreach is not None and step is not first:
                return f"{step.label} begins a fan-out"
            for option in ALONE:
                if getattr(step.options, option) != getattr(PLAIN, option):
                    return f"{step.label} has --{option.replace('_', '-')}"
        return None

    def notes(self) -> list[Finding]:
        """Return what is to be said of each group, at its first step."""
        groups: dict[tuple[str, ...], dict[str, str]] = {}
        for bond in self.bonds:
            groups.setdefault(self.of[bond.maker], {})[bond.name] = bond.why
        return [findings.together([self.steps[name] for name in group], names) for group, names in groups.items()]


def _joined(step: Step, groups: _Groups, steps: Mapping[str, Step]) -> Step:
    """Return a step that knows its group: the first one waits for all that the others need."""
    group = groups.of.get(step.name)
    if group is None:
        return step
    if step.name != group[0]:
        return msgspec.structs.replace(step, together=group)
    members = [steps[name] for name in group]
    needs = {name for member in members for name in member.needs} - {*group}
    ordered = {name for member in members for name in member.ordered} - {*group}
    sources = {name for member in members for name in member.file_sources} - {*group}
    return msgspec.structs.replace(
        step, together=group, needs=tuple(sorted(needs)), ordered=tuple(sorted(ordered)),
        file_sources=tuple(sorted(sources)),
        options=_largest([member.options for member in members]),
    )  # fmt: skip


def _largest(options: list[StepOptions]) -> StepOptions:
    """Return a first step's options with the most that any step of its group asks for."""
    cpu, gpu = (max(getattr(each, name) or 0 for each in options) or None for name in ("cpu", "gpu"))
    return msgspec.structs.replace(options[0], cpu=cpu, gpu=gpu or 0, retry=max(each.retry for each in options))
