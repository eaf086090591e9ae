"""Whether what an execution was seen to depend on still holds: the first thing that does not, in one sentence."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from nbflow.analysis.effects import AXES
from nbflow.engine.keys import AHEAD
from nbflow.model import (
    FORMAT,
    Change,
    KeyParts,
    Observations,
    Reason,
    Record,
)
from nbflow.task.observe.environment import ABSENT, file_id, path_id, text_id, version_of
from nbflow.task.observe.lookups import ADDED, FOLDER, SEEN, seen_as

# ruff: noqa: PTH110, PTH116, PTH117, PTH118
# Paths are text here, as they were observed: thousands a look-up.


def holds(
    observations: Observations, folder: str, variables: Mapping[str, str], rewritten: Collection[str] = ()
) -> Reason | None:
    """Return why what an execution in the notebook's folder depended on no longer holds, None where it does.

    `variables`: the environment that a task begins with. `rewritten`: files that steps above have written just
    now. What was added to one of those then is lost.
    """
    return (
        _files_hold(observations.files, folder)
        or _written_hold(observations.written, folder, rewritten)
        or _packages_hold(observations.distributions)
        or _variables_hold(observations.environment, variables)
        or _kernel_holds(observations.kernel)
    )


def _kernel_holds(names: Collection[str]) -> Reason | None:
    if not names:
        return None
    return ("input", f"{', '.join(names)} was as a kernel had it, and not as its file has it")


def _files_hold(files: dict[str, str], folder: str) -> Reason | None:
    for name, known in files.items():
        now = _now(_join(folder, name), known)
        if now != known:
            change = "is there now" if known == ABSENT else "is gone" if now == ABSENT else "has changed"
            return ("file", f"{name} {change}")
    return None


def _now(path: str, known: str) -> str:
    """A path and what was known of it in; the same of it as it is now out."""
    if known != FOLDER and not known.startswith(SEEN):
        return path_id(path)
    try:
        return seen_as(os.stat(path))
    except OSError:
        return ABSENT


def _written_hold(files: dict[str, str], folder: str, rewritten: Collection[str]) -> Reason | None:
    for name, known in files.items():
        path = _join(folder, name)
        there = os.path.exists(path)
        if known == ABSENT and there:
            return ("file", f"{name}, which it removed, is there again")
        if known != ABSENT and not there:
            return ("file", f"{name}, which it wrote, is gone")
        grown = known.startswith(ADDED) and name not in rewritten
        if there and not grown and file_id(path) != known.removeprefix(ADDED):
            return ("file", f"{name}, which it wrote, has changed")
    return None


def _packages_hold(distributions: dict[str, str]) -> Reason | None:
    for name, known in distributions.items():
        now = version_of(name)
        if now != known:
            return ("package", f"{name} {known} → {now}" if now else f"{name} {known} is no longer installed")
    return None


def _variables_hold(observed: Mapping[str, str], variables: Mapping[str, str]) -> Reason | None:
    for name, known in observed.items():
        now = text_id(variables.get(name))
        if now != known:
            change = "is set now" if known == ABSENT else "is no longer set" if now == ABSENT else "has changed"
            return ("environment", f"{name} {change}")
    return None


def _join(folder: str, name: str) -> str:
    return name if os.path.isabs(name) else os.path.join(folder, name)


@dataclass(frozen=True)
class Choice:
    """The record that stands for a task, or None, with the reasons."""

    record: Record | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Wishes:
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
    """The records under a task's key, newest first, in; the newest whose observations still hold out."""
    if wishes.fresh:
        return Choice(None, (("fresh", "run again because --fresh asked for it"),))
    if wishes.no_cache:
        return Choice(None, (("no-cache", "never reused: --no-cache"),))
    refusals: list[Reason] = []
    for record in records:
        refusal = _refusal(record, wishes) or apart(record, wishes.tracked) or holds(record.observations)
        if refusal is None:
            age = describe_age((wishes.now or time.time()) - record.created_at)
            return Choice(record, (("reused", f"from {record.run}, {age}"),))
        refusals.append(refusal)
    return Choice(None, tuple(refusals[:1]))


def apart(record: Record, tracked: Sequence[str]) -> Reason | None:
    """A record and the names that a step below may change in; why it cannot stand for its task, None where it can.

    What it left shares objects with such an input, and the two were stored apart.
    """
    if AXES in tracked and AXES in record.shares:
        return ("input", "what it left shares an index, whose names a step below sets")
    lost = [name for name in record.shares if name not in record.artifacts and name != AXES]
    if not lost or ("*" not in tracked and set(tracked).isdisjoint(record.shares)):
        return None
    return ("input", f"{', '.join(lost)} shares objects with what it left, which a step below changes")


def _refusal(record: Record, wishes: Wishes) -> Reason | None:
    age = (wishes.now or time.time()) - record.created_at
    if wishes.expires is not None and age > wishes.expires:
        return ("expired", f"older than --expires: {describe_age(age)}")
    if wishes.expires is not None and age < -AHEAD:
        return ("expired", "its age is not known: the clock of the machine that made it was ahead")
    if record.skipped is not None:
        return None
    if record.caught:
        return ("failed", f"it failed in {record.run}, and was caught")
    if (
        not wishes.empty
        and not (wishes.silent and _did_nothing(record.observations))
        and not record.outputs
        and not any(artifact.group >= 0 for artifact in record.artifacts.values())
    ):
        return ("no-output", "it left nothing that could be reused: no artifact, nothing shown")
    lost = [name for name in sorted(wishes.required) if name in record.artifacts and record.artifacts[name].group < 0]
    if lost:
        return ("no-output", f"{', '.join(lost)} was not stored by the earlier execution")
    return None


def _did_nothing(seen: Observations) -> bool:
    """Return whether an execution was not seen to do anything outside its process."""
    return not seen.written and {"socket", "subprocess", "database"}.isdisjoint(seen.volatile)


def describe_age(seconds: float) -> str:
    """Seconds in; `3 h old` out."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} old"
    return f"{max(seconds, 0):.0f} s old"


def changes(parts: KeyParts, source: str, previous: Record | None) -> tuple[Change, ...]:
    """A task's parts now, its source, and the record that stood for it last time in; what differs out."""
    if previous is None:
        return (Change(code="new", what="it has not run before"),)
    older = Change(code="new", what="an older nbflow ran it: its results are read, not reused")
    found = differences(previous.parts, previous.source, parts, source)
    return (older, *found) if previous.format != FORMAT else found


def differences(old: KeyParts, before: str, parts: KeyParts, source: str) -> tuple[Change, ...]:
    """A task's parts and source then and now in; what differs out."""
    found: list[Change] = []
    if parts.code != old.code:
        found.append(_code_change(before, source))
    found.extend(_definition_changes(old, parts))
    if parts.setup != old.setup:
        found.append(Change(code="code", what="the set-up above it changed"))
    found.extend(_named("parameter", old.parameters, parts.parameters))
    found.extend(_named("input", old.inputs, parts.inputs))
    if parts.item != old.item:
        found.append(Change(code="input", what="the item changed"))
    if parts.environment != old.environment:
        what = "Python or the machine changed"
        found.append(Change(code="environment", what=what, before=old.environment, after=parts.environment))
    if parts.options.get("along") != old.options.get("along"):
        found.append(Change(code="input", what="other names share objects with its inputs now"))
    if parts.options.get("out") != old.options.get("out"):
        found.append(
            Change(
                code="code", what="--out changed", before=old.options.get("out", ""), after=parts.options.get("out", "")
            )
        )
    found.extend(_named("file", old.files, parts.files))
    return tuple(found)


def _code_change(before: str, after: str) -> Change:
    """The first line that differs between two sources."""
    old, new = before.split("\n"), after.split("\n")
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            was, now = "\n".join(old[i1:i2]), "\n".join(new[j1:j2])
            if not was.strip() and not now.strip():
                continue
            return Change(code="code", what=f"line {j1 + 1} changed", before=was, after=now)
    return Change(code="code", what="the cell's code changed")


def _definition_changes(old: KeyParts, new: KeyParts) -> list[Change]:
    was = {identity: label for label, identity in old.definitions.items()}
    now = {identity: label for label, identity in new.definitions.items()}
    gone = {identity.partition("@")[0]: label for identity, label in was.items() if identity not in now}
    found = []
    for identity, label in now.items():
        if identity not in was:
            name = identity.partition("@")[0]
            what = f"{label} changed" if name in gone else f"{label} is used now"
            gone.pop(name, None)
            found.append(Change(code="code", what=what))
    found.extend(Change(code="code", what=f"{label} is no longer used") for label in gone.values())
    if not found and list(old.definitions.values()) != list(new.definitions.values()):
        found.append(Change(code="code", what="the order of the definitions above it changed"))
    return found


def _named(code: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    found = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        before, after = (_shown(code, side.get(name)) for side in (old, new))
        if name not in old:
            what = f"{name} is read now"
        elif name not in new:
            what = f"{name} is no longer read"
        else:
            what = f"{name}: {before} → {after}" if code == "parameter" else f"{name} changed"
        found.append(Change(code=code, what=what, before=before, after=after))
    return found


def _shown(code: str, text: str | None) -> str:
    if text is None:
        return ""
    return text.rpartition("#")[0] if code == "parameter" else text


def as_reasons(found: Sequence[Change]) -> tuple[Reason, ...]:
    """Changes in; (code, what) pairs out."""
    return tuple((change.code, change.what) for change in found)
