"""What is wrong, or worth saying, about a flow: one small function for each problem, which words its finding."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from nbflow.analysis.cell import Analysis, analyse, parse_cell
from nbflow.analysis.effects import LIVE, PROCESS, STATES, dotted, owner_of, said_of_made
from nbflow.analysis.lines import header_line
from nbflow.errors import nearest
from nbflow.flow.fanouts import carried_names
from nbflow.flow.parameters import is_of, literal_of, read_parameters
from nbflow.model import Cell, Definition, Finding, Flow, OwnModule, Parameter, Record, Step, TaskFailure, Writer

CACHING = re.compile(r"^@(?:functools\.)?(?:lru_)?cache\b", re.MULTILINE)


class MissingName(msgspec.Struct, frozen=True):
    """A name that a step reads and that no cell above gives it."""

    name: str
    step: str
    cell: Cell
    sure: bool
    writes: frozenset[str]  # by the step itself
    starred: bool = False  # below a star import that nobody knows the names of


def grown(size: str, most: str, gain: str) -> Finding:
    """Report a datastore that holds more than its setting says, and what a clean-up would free."""
    return Finding(
        code="grown", level="note",
        message=f"the datastore holds {size} of values, more than {most};"
        f" `nbflow gc` would free {gain}; nothing is deleted by itself",
        fix="`nbflow gc --dry-run` says what would go; `%flow config size 100G` sets another size",
    )  # fmt: skip


def duplicate_step(name: str, first: Cell, second: Cell) -> Finding:
    """Report two cells that declare one name."""
    return Finding(
        code="duplicate-step", level="error", step=name, cell=second.id, line=1, name=name,
        message=f"cell {first.position} and cell {second.position} both declare the step {name!r}",
        fix="give one of them another name",
    )  # fmt: skip


def lost_run(run: str, steps: Sequence[str]) -> Finding:
    """Report that the process of the run before this one was killed; `steps` are the labels of what was running."""
    at = f" while {', '.join(steps)} {'was' if len(steps) == 1 else 'were'} running" if steps else ""
    return Finding(
        code="lost-run", level="note", name=run,
        message=f"the last run of this flow, {run}, broke off{at}: its process was killed; what had finished is reused",
    )  # fmt: skip


def unknown_steps(steps: Sequence[Step], resolve: Callable[[str], str]) -> list[Finding]:
    """Report names in `--after` and `--join` that no step has; `resolve` turns a word into a step's name."""
    names = [step.name for step in steps]
    return [
        Finding(
            code="missing-name", level="error", step=step.name, cell=step.cell, line=1, name=word,
            message=f"there is no step named {word!r}{nearest(word, names)}", fix=f"known steps: {', '.join(names)}",
        )
        for step in steps for word in (*step.options.after, *step.options.join) if resolve(word) not in names
    ]  # fmt: skip


def unstored(flow: Flow, reader: str, maker: str, name: str, why: str, obstacle: str) -> Finding:
    """Report a name that a step reads, its maker could not store, and for which the two cannot run in one process."""
    step = flow.step(reader)
    cell = flow.notebook.cells[step.position - 1]
    return Finding(
        code="unserializable", level="warning", step=step.name, cell=step.cell, line=line_of(cell, name), name=name,
        message=f"{step.label} reads {name!r}, which {flow.step(maker).label} could not store when it last ran "
        f"({why}), and the two cannot run together: {obstacle}",
        fix=f"make {name} in a %%setup cell, so that every step makes its own; or register a serializer for its type",
    )  # fmt: skip


def together(steps: Sequence[Step], names: Mapping[str, str]) -> Finding:
    """Say which steps run in one process, and what holds them together: names, each with why it cannot be stored."""
    first = steps[0]
    labels = ", ".join(step.label for step in steps)
    what = "; ".join(f"{worded(name)} ({why})" for name, why in names.items())
    return Finding(
        code="together", level="note", step=first.name, cell=first.cell, name=next(iter(names), None),
        message=f"{len(steps)} steps run together in one process, {labels}: no store can hold {what}",
    )  # fmt: skip


def missing_name(missing: MissingName, writers: Mapping[str, Sequence[Writer]], cells: Sequence[Cell]) -> Finding:
    """Report a name that only a cell below writes, or none at all."""
    name, cell = missing.name, missing.cell
    level: Literal["error", "warning"] = "error" if missing.sure else "warning"
    line = line_of(cell, name)
    later = [writer for writer in writers.get(name, ()) if writer.position > cell.position]
    if later:
        first = cells[later[0].position - 1]
        return Finding(
            code="later-only", level=level, step=missing.step, cell=cell.id, line=line, name=name,
            message=f"cell {cell.position} ({missing.step}) reads {name!r}, which only cell {first.position}"
            f"{f' ({first.name})' if first.name else ''} below it writes",
            fix=f"move cell {first.position} above cell {cell.position}, or rename one of the two",
        )  # fmt: skip
    private = next((other for other in cells[: cell.position - 1] if _keeps_to_itself(other, name)), None)
    if private is not None:
        return Finding(
            code="missing-name", level=level, step=missing.step, cell=cell.id, line=line, name=name,
            message=f"{missing.step} reads {name!r}, which is private to {private.name} (cell {private.position}): "
            "names that begin with _ stay in their step",
            fix=f"call it {name.lstrip('_')} in both cells, or make it in a plain cell",
        )  # fmt: skip
    names_above = [
        other for other, by in writers.items() if other != name and any(w.position < cell.position for w in by)
    ]
    return Finding(
        code="missing-name", level=level, step=missing.step, cell=cell.id, line=line, name=name,
        message=f"{missing.step} reads {name!r}, which no cell above writes{nearest(name, names_above)}",
        fix="define it in a cell above, or correct the name",
    )  # fmt: skip


def _keeps_to_itself(cell: Cell, name: str) -> bool:
    """Return whether a cell is a step that binds a name which none but itself may read."""
    return cell.kind == "step" and name.startswith("_") and name in analyse(cell.body).private


def duplicate_parameter(first: Parameter, second: Parameter, cells: Sequence[Cell]) -> Finding:
    """Report two `%%params` lines for one name."""
    places = {cell.id: cell.position for cell in cells}
    return Finding(
        code="duplicate-parameter", level="error", cell=second.cell, line=second.line, name=second.name,
        message=f"the parameter {second.name!r} is defined twice, in cell {places[first.cell]} and in cell "
        f"{places[second.cell]}",
        fix="keep one of the two lines",
    )  # fmt: skip


def parameters_of(
    cells: Sequence[Cell], writers: Mapping[str, Sequence[Writer]]
) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Return a notebook's parameters, and what is wrong with them."""
    parameters: dict[str, Parameter] = {}
    findings = []
    for cell in cells:
        for parameter in read_parameters(cell) if cell.kind == "params" else ():
            name = parameter.name
            if name in parameters and not cell.injected:
                findings.append(duplicate_parameter(parameters[name], parameter, cells))
                continue
            parameters[name] = given_again(parameters[name], parameter) if name in parameters else parameter
            below = [cells[w.position - 1] for w in writers.get(name, ()) if w.position > cell.position]
            others = [other for other in below if other.kind != "params" and name in analyse(other.body).writes]
            findings.extend(assigned_parameter(name, other) for other in others)
    return tuple(parameters.values()), findings


def given_again(declared: Parameter, injected: Parameter) -> Parameter:
    """Return a parameter with the value that another tool has given it, of the declared type where it can be."""
    value = literal_of(injected.default)
    kind = declared.annotation if value is None or is_of(value, declared.annotation) else injected.annotation
    return msgspec.structs.replace(injected, annotation=kind, help=declared.help)


def not_a_parameter(step: Step, option: str, name: str, parameters: Iterable[str]) -> Finding:
    """Report an option that takes the value of a name that is no parameter."""
    known = list(parameters)
    return Finding(
        code="missing-name", level="error", step=step.name, cell=step.cell, line=1, name=name,
        message=f"{option} of {step.label}: {name!r} is no parameter{nearest(name, known)}",
        fix=f"set {name} in a %%params or %%config cell; options know nothing that a step computes",
    )  # fmt: skip


def assigned_parameter(name: str, cell: Cell) -> Finding:
    """Report a cell below `%%params` that gives a parameter another value."""
    return Finding(
        code="parameter-assigned", level="error", step=cell.name, cell=cell.id, line=line_of(cell, name), name=name,
        message=f"cell {cell.position} assigns {name!r}, which is a parameter", fix="give the new value another name",
    )  # fmt: skip


def gave_up(step: Step) -> Finding:
    """Report an `--until` that was not true after its last turn."""
    return Finding(
        code="until", step=step.name, cell=step.cell, line=1,
        message=f"{step.label} stopped after {step.options.max} turns, and {step.options.until} is still false",
        fix="raise --max, or look at what the turns leave",
    )  # fmt: skip


def left_out(cell: Cell, line: int) -> Finding:
    """Report a plain cell with an effect below the last step: no run comes to it."""
    text = cell.body.split("\n")[line - 1].strip()
    return Finding(
        code="left-out", level="note", cell=cell.id, line=line,
        message=f"cell {cell.position} takes no part in runs: it stands below the last step ({clipped(text)})",
        fix="begin it with `%%step NAME` if runs should do it",
    )  # fmt: skip


class SetHere(msgspec.Struct, frozen=True):
    """A statement that sets something in a library, in its own process alone."""

    cell: Cell
    line: int
    package: str


def set_here(places: Iterable[SetHere], steps: Sequence[Step], definitions: Sequence[Definition]) -> Iterator[Finding]:
    """Report what is set in a library once, in one process, where steps below use that library."""
    first: dict[tuple[str, str], SetHere] = {}
    for place in places:
        first.setdefault((place.cell.id, place.package), place)
    for place in first.values():
        below = [step for step in steps if step.position > place.cell.position]
        origins = (o for step in below for order in step.definitions for o in definitions[order].origins.values())
        if place.package not in {origin.partition(".")[0] for origin in origins}:
            continue
        text = clipped(place.cell.body.split("\n")[place.line - 1].strip())
        yield Finding(
            code="set-once", level="warning", step=place.cell.name, cell=place.cell.id, line=place.line,
            message=f"`{text}` runs once, in a process of its own: steps below use {place.package} without what it "
            "has set", fix="begin its cell with %%setup, which every process runs, if it may be repeated; or make the "
            "call in the cell that needs it",
        )  # fmt: skip


def with_way_out(step: Step, failure: TaskFailure) -> TaskFailure:
    """Return the failure of a plain cell that nobody declared a step, with how a run does without it."""
    if not step.joins or failure.fix or failure.kind == "cancelled":
        return failure
    fix = f"correct the cell; or `%flow config ignore {step.position}`, if no run needs it"
    return msgspec.structs.replace(failure, fix=fix)


def clipped(text: str) -> str:
    """Return a line of code, cut where it is long."""
    return text if len(text) <= 60 else text[:57] + "..."


def mutated(step: Step, names: Sequence[str]) -> Finding:
    """Report a step that changed inputs in place, with the first call that got hold of one of them."""
    line, call = _first_call(step.source, names)
    listing = ", ".join(names)
    place = f" ({call})" if call else ""
    return Finding(
        code="mutation", level="note", step=step.name, cell=step.cell, line=line, name=names[0],
        message=f"{step.label} changes {listing} in place{place}: steps below read the changed value",
        fix=f"work on a copy of {listing}, or bind the result to a new name, to let later steps start earlier",
    )  # fmt: skip


def not_run_yet(step: Step, writer: Step, names: Collection[str]) -> Finding:
    """Report a step run by hand before one above it that may change what it reads."""
    listing = ", ".join(sorted(names))
    return Finding(
        code="mutation", level="warning", step=step.name, cell=step.cell, name=min(names),
        message=f"{writer.label} may change {listing} and has not run: {step.label} takes {listing} as it was before",
        fix=f"run {writer.label} first, or `%flow run {step.name}`",
    )  # fmt: skip


def elsewhere(flow: Flow, step: Step, names: Collection[str]) -> Iterator[Finding]:
    """Report a plain cell that runs on names as another cell than the one above has left them."""
    labels = {each.name: each.label for each in flow.steps}
    makers = {b.name: labels.get(b.sources[0].step or "") for b in step.bindings if b.name in names and b.sources}
    stale = sorted(name for name, label in makers.items() if label is not None and not name.startswith("<"))
    if stale:
        above = ", ".join(dict.fromkeys(filter(None, (makers[name] for name in stale))))
        yield Finding(
            code="source-differs", level="note", step=step.name, cell=step.cell, name=stale[0],
            message=f"{step.label} runs on {', '.join(stale)} as another cell has left it:"
            " in a run it gets another value",
            fix=f"run {above} again, then this cell",
        )  # fmt: skip


def overtaken(step: Step, writer: Step, files: Collection[str]) -> Finding:
    """Report a step run by hand that read files which a step below it has written meanwhile."""
    listing = ", ".join(sorted(files))
    return Finding(
        code="source-differs", level="warning", step=step.name, cell=step.cell, name=min(files),
        message=f"{step.label} read {listing} as {writer.label} below it has left it",
        fix=f"run again what writes {listing} above, or `%flow run {step.name}`",
    )  # fmt: skip


def out_of_turn(step: Step, above: Step, files: Collection[str]) -> Finding:
    """Report a step that touched files at the time when a step above it did: from the next run on it waits."""
    names = sorted("a data base" if name.startswith("<") else name for name in files)
    listing = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return Finding(
        code="file-order", level="warning", step=step.name, cell=step.cell, name=min(files),
        message=f"{step.label} touched {listing} before {above.label} above it had ended, which does too",
        fix=f"run again: from now on {step.label} waits for {above.label}; `--after {above.name}` says so beforehand",
    )  # fmt: skip


def too_early(step: Step, above: Step, files: Collection[str]) -> Finding:
    """Say that a step runs again which read files before a step above it had written them."""
    names = sorted("a data base" if name.startswith("<") else name for name in files)
    listing = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return Finding(
        code="file-order", level="note", step=step.name, cell=step.cell, name=min(files),
        message=f"{step.label} read {listing} before {above.label} above it had written it: it runs again, and waits "
        "for it from now on",
    )  # fmt: skip


def patched(step: Step, statement: Definition) -> Finding:
    """Report a step run by hand while a module is as a cell below it has set it."""
    text = statement.source.strip().split("\n")[0]
    return Finding(
        code="mutation", level="warning", step=step.name, cell=step.cell,
        message=f"`{text}` of cell {statement.position} below has run: {step.label} sees what it has set",
        fix=f"restart the kernel and run {step.label} first, or `%flow run {step.name}`",
    )  # fmt: skip


def added_again(step: Step, files: Collection[str]) -> Finding:
    """Report a step that was executed by hand once more, and has added to files for a second time."""
    listing = ", ".join(sorted(files))
    return Finding(
        code="source-differs", level="warning", step=step.name, cell=step.cell, name=min(files),
        message=f"{step.label} has added to {listing} once more: it holds more than a run leaves in it",
        fix=f"run again what writes {listing} above, then {step.label}; or `%flow run {step.name}`",
    )  # fmt: skip


def unforeseen(flow: Flow, step: Step, record: Record) -> frozenset[str]:
    """Return the names to which a step turned out to give new versions though nothing in its text says so.

    A name that no cell writes by its text (`globals()["n"] = 1`) counts where a step below reads it.
    """
    names = frozenset(record.changed) - set(step.writes)
    known = frozenset(name for name in names if name in flow.writers or name.startswith("<"))
    return known | {name for name in names - known if _is_missed(flow, step, name)}


def unserved(flow: Flow, step: Step, names: Iterable[str]) -> frozenset[str]:
    """Return those of the names that a step has looked for in vain which a cell above it gives, and it is not given."""
    given = {binding.name for binding in step.bindings}
    given |= {name for order in step.definitions for name in flow.definitions[order].names}
    above = {name for name in names if any(each.position < step.position for each in flow.writers.get(name, ()))}
    return frozenset(above - given)


def served_late(step: Step, names: Iterable[str]) -> Finding:
    """Report a step that has looked for names of cells above which nothing showed it would, and does not run again."""
    listing = ", ".join(sorted(names))
    return Finding(
        code="missing-name", level="warning", step=step.name, cell=step.cell, name=min(names),
        message=f"{step.label} has looked for {listing} of a cell above, which its text does not show",
        fix=f"run it again: it is given {listing} from now on; or name {listing} in the cell",
    )  # fmt: skip


def _is_missed(flow: Flow, step: Step, name: str) -> bool:
    """Return whether a step below another one reads a name that no cell writes by its text."""
    below = (other for other in flow.steps if other.position > step.position)
    return any(
        name in analyse(other.source).reads or any(name in flow.definitions[order].free for order in other.definitions)
        for other in below
    )


def discovered(step: Step, names: Collection[str], record: Record) -> Iterator[Finding]:
    """Report the names to which a step turned out to give new versions, and what it shares with steps below.

    Nothing is said of states: they travel with the flow.
    """
    shared = sorted({*names} & {*record.shares})
    inputs = {binding.name for binding in step.bindings}
    named = {name for name in names if not name.startswith("<")} - {*shared}
    new, changed = sorted(named - inputs), sorted(named & inputs)
    if changed:
        yield mutated(step, changed)
    if new:
        listing = ", ".join(new)
        yield Finding(
            code="mutation", level="note", step=step.name, cell=step.cell, name=new[0],
            message=f"{step.label} gives {listing} a new value, which its text does not show: steps below read it",
            fix="bind it in the cell, to let later steps start earlier",
        )  # fmt: skip
    if shared:
        listing = ", ".join(shared)
        yield Finding(
            code="sharing", level="note", step=step.name, cell=step.cell, name=shared[0],
            message=f"what {step.label} leaves shares objects with {listing}, and a step below changes one of them: "
            "they are kept together", fix="work on a copy, to let later steps start earlier",
        )  # fmt: skip


def worded(name: str) -> str:
    """Return what people call a name, or what stands for a state."""
    if (owner := owner_of(name)) is not None:
        return f"what {owner} keeps"
    if name == PROCESS:
        return "options of the process"
    if name == LIVE:
        return "what belongs to the process alone"
    return f"the state of {name.strip('<>')}" if name in STATES else said_of_made(name)


def _first_call(source: str, names: Sequence[str]) -> tuple[int | None, str]:
    tree = parse_cell(source)
    if tree is None:
        return None, ""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        inside = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
        if inside & set(names):
            return call.lineno, ast.unparse(call)[:60]
    return None, ""


def carried(steps: Sequence[Step]) -> list[Finding]:
    """Report each fan-out whose items hand something on to the next."""
    by_name = {step.name: step for step in steps}
    findings = []
    for head, names in carried_names(steps).items():
        listing = ", ".join(name.strip("<>") for name in names)
        own = next((name for name in names if not name.startswith("<")), None)
        apart = f"; or give what an item changes another name (`own = {own}.copy()`) to keep each item's own copy"
        findings.append(
            Finding(
                code="carried",
                level="note",
                step=head,
                cell=by_name[head].cell,
                line=1,
                name=names[0],
                message=f"the items of {head} run one after another, because each takes {listing} from the one before",
                fix="gather it in a step with --join to let them run side by side" + (apart if own else ""),
            )
        )
    return findings


def of_steps(steps: Sequence[Step], definitions: Sequence[Definition]) -> list[Finding]:
    """Report what concerns a flow's steps and definitions together."""
    return [
        *cycles(steps), *carried(steps), *unreachable(steps), *caches(steps, definitions), *destructors(definitions),
    ]  # fmt: skip


def destructors(definitions: Iterable[Definition]) -> Iterator[Finding]:
    """Report each class with a `__del__`: it runs in each step that has a copy of an object, or in none."""
    for definition in definitions:
        place = definition.source.find("def __del__(")
        if definition.kind == "definition" and place >= 0:
            name = definition.names[0] if definition.names else "a class"
            yield Finding(
                code="destructor", level="note", cell=definition.cell, name=name,
                line=definition.line + definition.source.count("\n", 0, place),
                message=f"{name}.__del__ runs where a step's own copy of an object goes, not once for the notebook's",
                fix=f"give {name} a method that does it, and call that where the notebook is done with the object",
            )  # fmt: skip


def caches(steps: Sequence[Step], definitions: Sequence[Definition]) -> list[Finding]:
    """Report functions that remember results (`lru_cache`) whose results or caches differ when they are called anew."""
    findings: list[Finding] = []
    for definition in definitions:
        if not CACHING.search(definition.source):
            continue
        users = [step for step in steps if definition.order in step.definitions and step.cell != definition.cell]
        acts = definition.free_writes or STATES.intersection(definition.free)
        for step in users:
            looks_at_cache = any(f"{name}.cache_" in step.source for name in definition.names)
            names = [name for name in step.writes if not name.startswith("<")] if looks_at_cache else []
            if looks_at_cache or (acts and len(users) > 1):
                findings.extend(_empty_cache(step, definition, name) for name in names or definition.names)
    return findings


def _empty_cache(step: Step, definition: Definition, name: str) -> Finding:
    cached = definition.names[0]
    return Finding(
        code="cache", level="warning", step=step.name, cell=step.cell, line=line_of_text(step.source, cached),
        name=name,
        message=f"{step.label} uses {cached}, which remembers its results (cell {definition.position}): each step "
        "begins with an empty cache, which in a plain run is filled",
        fix=f"call {cached} and look at its cache in one cell, or keep results in a dict",
    )  # fmt: skip


def made_anew(
    steps: Sequence[Step], definitions: Sequence[Definition], modules: Iterable[OwnModule]
) -> Iterator[Finding]:
    """Report what own modules make anew whenever they are imported, where several steps look at it."""
    for module, name in ((each.module, name) for each in modules for name in each.computed):
        users = [step for step in steps if _looks_at(step, definitions, module, name)]
        if len({user.together or user.name for user in users}) > 1:
            step = users[1]
            yield Finding(
                code="module-state", level="warning", step=step.name, cell=step.cell, name=f"{module}.{name}",
                line=line_of_text(step.source, name),
                message=f"{step.label} and {users[0].label} look at {name} of the module {module}, which is another "
                "one in each process: it is made while the module is imported",
                fix=f"take it in one cell (`{name} = {module}.{name}`), and use that name",
            )  # fmt: skip


def _looks_at(step: Step, definitions: Sequence[Definition], module: str, name: str) -> bool:
    replayed = [definitions[order] for order in (*step.definitions, *step.own_definitions)]
    text = "\n".join((step.source, *(each.source for each in replayed if not each.origins)))
    bound = {known: origin for each in replayed for known, origin in each.origins.items()}
    places = (
        known if origin == f"{module}.{name}" else f"{known}.{name}"
        for known, origin in bound.items() if origin in (module, f"{module}.{name}")
    )  # fmt: skip
    return any(re.search(rf"\b{re.escape(place)}\b", text) for place in places)


def unreachable(steps: Sequence[Step]) -> list[Finding]:
    """Report steps that no run can come to: a constant says so, or what they surely read has no maker."""
    never: dict[str, str] = {}
    for step in steps:
        inputs = (binding for binding in step.bindings if binding.sure and binding.sources)
        lost = next((each for each in inputs if all(source.step in never for source in each.sources)), None)
        if step.options.condition is not None and _is_nothing(step.options.condition):
            never[step.name] = f"its --if {step.options.condition} is never true"
        elif step.options.foreach is not None and _is_nothing(step.options.foreach.expr):
            never[step.name] = f"its --foreach goes over {step.options.foreach.expr}, which is empty"
        elif lost is not None:
            never[step.name] = f"it reads {lost.name!r} of {lost.sources[0].step}, which is never run"
    by_name = {step.name: step for step in steps}
    return [
        Finding(
            code="unreachable", level="warning", step=name, cell=by_name[name].cell, line=1,
            message=f"{by_name[name].label} is never run: {why}", fix="change the condition, or remove the step",
        )
        for name, why in never.items()
    ]  # fmt: skip


def _is_nothing(expression: str) -> bool:
    """Return whether an expression is a literal that counts as false: `False`, `0`, `[]`."""
    try:
        return not ast.literal_eval(expression.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def cycles(steps: Sequence[Step]) -> list[Finding]:
    """Report steps that wait for each other."""
    try:
        graphlib.TopologicalSorter({step.name: step.needs for step in steps}).prepare()
    except graphlib.CycleError as error:
        ring = [*error.args[1]]
        return [Finding(
            code="cycle", level="error", step=ring[0], name=None,
            message=f"these steps wait for each other: {' → '.join(ring)}",
            fix="remove one of their --after options",
        )]  # fmt: skip
    return []


def at_headers(findings: Sequence[Finding], cells: Sequence[Cell]) -> tuple[Finding, ...]:
    """Return findings with those at the first line of a cell whose header stands further down at the header's line.

    Above a header there are only empty lines and comments, so that nothing else is wrong there.
    """
    lines = {cell.id: line for cell in cells if (line := header_line(cell.source)) > 1}
    return tuple(
        msgspec.structs.replace(finding, line=lines[finding.cell])
        if finding.line == 1 and finding.cell in lines
        else finding
        for finding in findings
    )


def line_of(cell: Cell, name: str) -> int | None:
    """Return the first line of a cell that mentions a name."""
    return line_of_text(cell.body, name)


def line_of_text(source: str, name: str) -> int | None:
    """Return the first line of a text that mentions a name."""
    for at, line in enumerate(source.split("\n"), start=1):
        words = "".join(char if char.isalnum() or char == "_" else " " for char in line.split("#")[0]).split()
        if name in words:
            return at
    return None


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

FIX = "give the value in a %%params cell or read it from a file; or mark the steps with %%step and leave this cell out"
BARRED = frozenset({"hidden-state", "run-magic", "syntax"})
"""What the analysis says of a cell that cannot take part either."""

HIDING = frozenset({"star-import", "dynamic", "run-magic"})
"""After one of these a missing name may be there after all."""


def diagnosed(cell: Cell, analysis: Analysis, *, all_cells: bool) -> list[Finding]:
    """Return what the analysis found in a cell as findings."""
    barred = BARRED if all_cells else BARRED - HIDING if cell.kind in ("step", "params", "setup") else frozenset()
    return [
        Finding(
            code=problem.code, level="error" if problem.code in barred else "warning", step=cell.name, cell=cell.id,
            line=problem.line, name=problem.name or None, message=problem.message, fix=problem.hint or None,
        )
        for problem in analysis.diagnostics
    ]  # fmt: skip


def waiting(steps: Sequence[Step], definitions: Sequence[Definition], *, all_cells: bool) -> list[Finding]:
    """Report the steps that wait for a person: an error where every cell is a step, else a warning."""
    names = {name for step in steps for name in step.writes}
    names |= {name for definition in definitions if not definition.origins for name in definition.names}
    functions = [definition for definition in definitions if definition.kind == "definition"]
    bodies = {each.order: place for each in functions for place in places_that_wait(each.source, names)}
    reports = []
    for step in steps:
        places = [*places_that_wait(step.source, names), *_magics(step.source)]
        used = [(order, bodies[order]) for order in step.definitions if order in bodies]
        texts = [(line, f"{step.label}: {what}") for line, what in places]
        texts += [(None, f"{step.label} uses {definitions[o].names[0]}: {what}") for o, (_, what) in used]
        for line, text in texts[:1]:
            reports.append(Finding(
                code="interactive", level="error" if all_cells else "warning", step=step.name, cell=step.cell,
                line=line, message=f"{text}, and nobody is there in a run", fix=FIX,
            ))  # fmt: skip
    return reports


def places_that_wait(source: str, known: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines of calls that wait for a person, with what they wait for; names in `known` are bound anew."""
    if not any(word in source for word in ASKING):
        return
    tree = parse_cell(source)
    if tree is None:
        return
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        owner, _, name = dotted(node.func).rpartition(".")
        if name in ASKING and (OWNERS.match(owner) if owner else name in ALONE and name not in known):
            yield node.lineno, f"{owner}{'.' if owner else ''}{name}() {ASKING[name]}"


def _magics(source: str) -> Iterator[tuple[None, str]]:
    for magic in analyse(source).line_magics if "%" in source else ():
        if magic in MAGICS:
            yield None, f"%{magic} {MAGICS[magic]}"
