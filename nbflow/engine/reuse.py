"""Whether what an execution was seen to depend on still holds: the first thing that does not, in one sentence."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from nbflow.analysis.effects import AXES, is_made
from nbflow.engine.keys import AHEAD, parts_of
from nbflow.flow.findings import worded
from nbflow.model import (
    FORMAT,
    Change,
    KeyParts,
    Observations,
    Reason,
    Record,
)
from nbflow.task.observe.environment import ABSENT, file_id, path_id, text_id, version_of
from nbflow.task.observe.lookups import (
    ADDED,
    ALL,
    ENTRIES,
    FOLDER,
    GIVEN,
    SEEN,
    TIME,
    all_variables,
    answer,
    seen_as,
)
from nbflow.task.observe.modules import INSTALLED, changed_place
from nbflow.task.observe.paths import LINK

OUTSIDE = frozenset({"socket", "subprocess", "database"})
"""What an execution may have changed other things by."""

LOOKS = {TIME: "the time of", ENTRIES: "what is in"}

# ruff: noqa: PTH110, PTH114, PTH115, PTH116, PTH117, PTH118
# Paths are text here, as they were observed: thousands a look-up.


def holds(
    observations: Observations,
    folder: str,
    variables: Mapping[str, str],
    rewritten: Collection[str] = (),
    version: Callable[[str], str | None] = version_of,
) -> Reason | None:
    """Return why what an execution in the notebook's folder depended on no longer holds, None where it does.

    `variables`: the environment that a task begins with. `rewritten`: files that steps above have written just
    now. What was added to one of those then is lost. `version`: gives a distribution's version where the task would
    run, None where nobody here can tell.
    """
    return (
        _files_hold(observations.files, folder)
        or _looks_hold(observations.looks, folder)
        or _imports_hold(observations.imports, folder)
        or _written_hold(observations.written, folder, rewritten)
        or _packages_hold(observations.distributions, version)
        or _variables_hold(observations.environment, variables)
        or _kernel_holds(observations.kernel)
    )


def _kernel_holds(names: Collection[str]) -> Reason | None:
    if not names:
        return None
    return ("input", f"it read {', '.join(names)} as only a kernel had it")


def _files_hold(files: dict[str, str], folder: str) -> Reason | None:
    for name, identity in files.items():
        now = _now(_join(folder, name), identity)
        if now != identity:
            points = identity.startswith(LINK) and now.startswith(LINK)
            change = "leads elsewhere" if points else _change(identity, now)
            return ("file", f"{name} {change}")
    return None


def _change(before: str, now: str) -> str:
    return "is there now" if before == ABSENT else "is gone" if now == ABSENT else "has changed"


def _looks_hold(looks: Mapping[str, str], folder: str) -> Reason | None:
    for look, said in looks.items():
        question, _, name = look.partition(" ")
        if answer(question, _join(folder, name)) != said:
            return ("file", f"{LOOKS.get(question, 'what may be done with')} {name} has changed")
    return None


def _imports_hold(imports: Mapping[str, str], folder: str) -> Reason | None:
    change = changed_place(imports, folder)
    if change is None:
        return None
    name, before, now = change
    if now == INSTALLED:
        return ("package", f"{name} is installed now")
    code = "file"
    if before == INSTALLED:
        return (code, f"{now} is there now: it comes before the installed {name}")
    return (code, f"the module {name} comes from {now} now" if now else f"the module {name} is gone")


def _now(path: str, identity: str) -> str:
    """Return what a path is now, in the terms of what was known of it."""
    if identity.startswith(LINK):
        return f"{LINK}{os.readlink(path)}" if os.path.islink(path) else ABSENT if not os.path.exists(path) else SEEN
    if identity != FOLDER and not identity.startswith(SEEN):
        return path_id(path)
    try:
        return seen_as(os.stat(path))
    except OSError:
        return ABSENT


def _written_hold(files: dict[str, str], folder: str, rewritten: Collection[str]) -> Reason | None:
    for name, identity in files.items():
        path = _join(folder, name)
        there = os.path.exists(path)
        if identity == FOLDER and there:
            continue
        if identity == ABSENT and there:
            return ("file", f"{name}, which it removed, is there again")
        if identity != ABSENT and not there:
            return ("file", f"{name}, which it {'made' if identity == FOLDER else 'wrote'}, is gone")
        grown = identity.startswith(ADDED) and name not in rewritten
        if there and not grown and file_id(path) != identity.removeprefix(ADDED):
            return ("file", f"{name}, which it wrote, has changed")
    return None


def _packages_hold(distributions: dict[str, str], version: Callable[[str], str | None]) -> Reason | None:
    for name, before in distributions.items():
        now = version(name)
        if now is not None and now != before:
            return ("package", f"{name} {before} → {now}" if now else f"{name} {before} is no longer installed")
    return None


def _variables_hold(observed: Mapping[str, str], variables: Mapping[str, str]) -> Reason | None:
    if ALL in observed:
        name = next((name for name in sorted(all_variables(variables, ())) if name not in observed), None)
        if name is not None:
            return ("environment", f"{name} is set now, and it read all variables")
    for name, identity in observed.items():
        now = identity if identity in (ALL, GIVEN) else text_id(variables.get(name), name)
        if now != identity:
            change = "is set now" if identity == ABSENT else "is no longer set" if now == ABSENT else "has changed"
            return ("environment", f"{name} {change}")
    return None


def _join(folder: str, name: str) -> str:
    return name if os.path.isabs(name) else os.path.join(folder, name)


class Choice(msgspec.Struct, frozen=True):
    """The record that stands for a task, or None, with the reasons."""

    record: Record | None
    reasons: tuple[Reason, ...]


class Wishes(msgspec.Struct, frozen=True):
    """What the user said about reuse of one task."""

    fresh: bool = False
    no_cache: bool = False
    expires: float | None = None
    required: frozenset[str] = frozenset()
    tracked: tuple[str, ...] = ()  # names that are changed below: what shares objects with them is stored with them
    empty: bool = False  # an execution that left nothing may be reused too: a list without items
    silent: bool = False  # the same where it did nothing outside either: a plain cell that changes nothing
    now: float = 0.0


def choose(records: Sequence[Record], wishes: Wishes, holds: Callable[[Observations], Reason | None]) -> Choice:
    """Return the newest record of a task's key whose observations still hold; `records` come newest first."""
    if wishes.fresh:
        return Choice(None, (("fresh", "run again because --fresh asked for it"),))
    if wishes.no_cache:
        return Choice(None, (("no-cache", "never reused: --no-cache"),))
    refusals: list[Reason] = []
    for record in records:
        refusal = _refusal(record, wishes) or apart(record, wishes.tracked) or holds(record.observations)
        if refusal is None:
            age = describe_age((wishes.now or time.time()) - record.created_at)
            return Choice(record, (("reused", f"{age}, from {record.run}"), *_undone(record)))
        refusals.append(refusal)
    return Choice(None, tuple(refusals[:1]))


def _undone(record: Record) -> tuple[Reason, ...]:
    """Return what is to be said of a reused execution that left nothing but what it did elsewhere."""
    if OUTSIDE.isdisjoint(record.observations.volatile) or any(each.group >= 0 for each in record.artifacts.values()):
        return ()
    return (("effect", "what it did outside is not done again: with --no-cache it is, in each run"),)


def apart(record: Record, tracked: Sequence[str]) -> Reason | None:
    """Return why a record cannot stand for its task for names that a step below may change, None where it can.

    What it left shares objects with such an input, and the two were stored apart.
    """
    if AXES in tracked and AXES in record.shares:
        return ("input", "what it left shares an index, whose names a step below sets")
    names = [name for name in record.shares if name not in record.artifacts and name != AXES]
    if not names or ("*" not in tracked and set(tracked).isdisjoint(record.shares)):
        return None
    return ("input", f"{', '.join(names)} shares objects with what it left, which a step below changes")


def _refusal(record: Record, wishes: Wishes) -> Reason | None:
    age = (wishes.now or time.time()) - record.created_at
    if wishes.expires is not None and age > wishes.expires:
        return ("expired", f"older than --expires: {describe_age(age)}")
    if wishes.expires is not None and age < -AHEAD:
        return ("expired", "its age is not known: the clock of the machine that made it was ahead")
    # That nothing is left is the very result of a condition that did not hold: what follows asks about the others.
    if record.skipped is not None:
        return None
    if record.caught:
        return ("failed", f"it failed in {record.run}, and was caught")
    if (
        not wishes.empty
        and not (wishes.silent and not has_effect(record.observations))
        and not record.outputs
        and not any(artifact.group >= 0 for artifact in record.artifacts.values())
    ):
        return ("no-output", "it left nothing that could be reused: no artifact, nothing shown")
    names = [name for name in sorted(wishes.required) if name in record.artifacts and record.artifacts[name].group < 0]
    if names:
        return ("no-output", f"{', '.join(names)} was not stored by the earlier execution")
    return None


def has_effect(observations: Observations) -> bool:
    """Return whether an execution was seen to do anything outside its process: what must not be done twice."""
    return bool(observations.written) or not OUTSIDE.isdisjoint(observations.volatile)


def describe_age(seconds: float) -> str:
    """Return an age as text: `3 h old`."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} old"
    return f"{seconds:.0f} s old" if seconds >= 0.5 else "just now"


def changes(parts: KeyParts, source: str, previous: Record | None) -> tuple[Change, ...]:
    """Return what differs between a task now and the record that stood for it last time."""
    if previous is None:
        return (Change(code="new", what="it has not run before"),)
    older = Change(code="new", what="an older nbflow ran it: its results are read, not reused")
    more = differences(previous.parts, previous.source, parts, source)
    return (older, *more) if previous.format != FORMAT else more


def differences(old: KeyParts, before: str, parts: KeyParts, source: str) -> tuple[Change, ...]:
    """Return what differs between a task's parts and source then and now."""
    changes: list[Change] = []
    if parts.code != old.code:
        changes.append(_code_change(before, source))
    changes.extend(_definition_changes(old, parts))
    if parts.setup != old.setup:
        changes.append(Change(code="code", what="the set-up above it changed"))
    changes.extend(_named("parameter", old.parameters, parts.parameters))
    changes.extend(_named("input", old.inputs, parts.inputs))
    if parts.item != old.item:
        changes.append(Change(code="input", what="the item changed"))
    if parts.environment != old.environment:
        what = _environment_change(old.environment, parts.environment)
        changes.append(Change(code="environment", what=what, before=old.environment, after=parts.environment))
    if parts.options.get("along") != old.options.get("along"):
        changes.append(Change(code="input", what="other names share objects with its inputs now"))
    if parts.options.get("out") != old.options.get("out"):
        changes.append(
            Change(
                code="code", what="--out changed", before=old.options.get("out", ""), after=parts.options.get("out", "")
            )
        )
    changes.extend(_named("file", old.files, parts.files))
    return tuple(changes)


def _environment_change(before: str, now: str) -> str:
    """Return what is another one: the machine with its Python, or the packages that the step asks for."""
    (*machine, packages), (*machine_before, packages_before) = parts_of(now), parts_of(before)
    if machine != machine_before:
        return "Python or the machine changed"
    label, label_before = packages.rpartition(" (")[0], packages_before.rpartition(" (")[0]
    if not label:
        return "it asks for no packages of its own now"
    return f"{label}: what that asks for has changed" if label == label_before else f"it asks for {label} now"


def _code_change(before: str, after: str) -> Change:
    """Return the first line that differs between two sources."""
    old, new = before.split("\n"), after.split("\n")
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            was, now = "\n".join(old[i1:i2]), "\n".join(new[j1:j2])
            if not was.strip() and not now.strip():
                continue
            return Change(code="code", what=f"line {j1 + 1} changed", before=was, after=now)
    return Change(code="code", what="the cell's code changed")


def _definition_changes(old: KeyParts, new: KeyParts) -> list[Change]:
    # An id is `name@hash`: the same name with another hash is an edit, not one definition gone and another new.
    was = {identity: label for label, identity in old.definitions.items()}
    now = {identity: label for label, identity in new.definitions.items()}
    removals = {identity.partition("@")[0]: label for identity, label in was.items() if identity not in now}
    changes = []
    for identity, label in now.items():
        if identity not in was:
            name = identity.partition("@")[0]
            what = f"{label} changed" if name in removals else f"{label} is used now"
            removals.pop(name, None)
            changes.append(Change(code="code", what=what))
    changes.extend(Change(code="code", what=f"{label} is no longer used") for label in removals.values())
    if not changes and list(old.definitions.values()) != list(new.definitions.values()):
        changes.append(Change(code="code", what="the order of the definitions above it changed"))
    return changes


def _named(code: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    changes: list[Change] = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        before, after = (_shown(code, side.get(name)) for side in (old, new))
        label = _label(name)
        if name not in old:
            what = f"{label} is read now"
        elif name not in new:
            what = f"{label} is no longer read"
        else:
            what = f"{label}: {before} → {after}" if code == "parameter" else f"{label} changed"
        if what not in {change.what for change in changes}:
            changes.append(Change(code=code, what=what, before=before, after=after))
    return changes


def _label(name: str) -> str:
    """Return what people call an input, which may be one of a definition."""
    data, *definition = name.split(" while defining ")
    return worded(data) if is_made(data) else " while defining ".join([worded(data), *definition])


def _shown(code: str, text: str | None) -> str:
    if text is None:
        return ""
    return text.rpartition("#")[0] if code == "parameter" else text


def as_reasons(changes: Sequence[Change]) -> tuple[Reason, ...]:
    """Return changes as (code, what) pairs."""
    return tuple((change.code, change.what) for change in changes)
