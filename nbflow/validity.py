"""Whether what an execution was seen to depend on still holds: the first thing that does not, in one sentence."""
# ruff: noqa: PTH110, PTH116, PTH117, PTH118
# Paths are text here, as they were observed: thousands a look-up.

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from nbflow.environment import ABSENT, file_id, path_id, text_id, version_of
from nbflow.model import Observations, Reason
from nbflow.watches import ADDED, FOLDER, SEEN, seen_as


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
