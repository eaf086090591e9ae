"""What code asks nbflow about runs: answered, noted for the step that asks, and asked again before it is reused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from nbflow.errors import AmbiguousFlow, NotFoundError, StoreError
from nbflow.model import Asked, Question, Reason, RunStatus
from nbflow.store import flows
from nbflow.store.flows import StoredFlow, named_flow
from nbflow.store.index import RunSummary
from nbflow.store.location import Store, open_store
from nbflow.store.stored_run import StoredRun, find_run, summaries
from nbflow.task.context import current
from nbflow.task.observe.observer import unheard

CURRENT: Question = "current"
STATUS = " "
"""Before the status among the words that were asked with: no tag begins with a blank."""

CHANGES: dict[Question, str] = {
    "latest_run": "{of}/latest is another run now",
    "latest_successful_run": "the latest successful run of {of} is another one now",
    "runs": "the runs of {of}{words} are others now",
    "run": "what there is of run {of} has changed",
    "flow": "the store knows {of} now, or no longer",
    "tags": "the tags of {of} have changed",
    "status": "the run {of} has gone on",
    CURRENT: "current.{of}: {before} → {after}",
}
"""What is said when an answer is another one now."""


# ---------------------------------------------------------------- asked by code


def newest(store: Store, flow: str, status: RunStatus | None = None) -> RunSummary | None:
    """A flow and a status (None: any) in; its newest whole run with it out."""
    with unheard():
        found = _newest(store, flow, status)
    _note(store, "latest_run" if status is None else "latest_successful_run", flow, answer=found.run if found else "")
    return found


def runs_of(
    store: Store, flow: str, tags: Iterable[str] = (), status: RunStatus | str | None = None
) -> list[RunSummary]:
    """A flow, tags and a status (None: any) in; its runs that have all of them, newest first, out."""
    words = (*tags, *((STATUS + status,) if status is not None else ()))
    with unheard():
        found = _runs(store, flow, words)
    _note(store, "runs", flow, words, _digest(found))
    return found


def flow_of(store: Store, word: str) -> StoredFlow:
    """A flow's name, or its folder's, in; the flow that it names now out; NotFoundError or AmbiguousFlow for none."""
    try:
        with unheard():
            found = named_flow(store, word)
    except NotFoundError:
        _note(store, "flow", word, answer=str(False))
        raise
    _note(store, "flow", word, answer=found.folder)
    return found


def has_run(store: Store, flow: str, run: str) -> bool:
    """Whether a flow has a run of that id."""
    with unheard():
        found = any(place.run == run for place in flows.runs_of(store, named_flow(store, flow)))
    _note(store, "run", f"{flow}/{run}", answer=str(found))
    return found


def named(store: Store, name: str) -> StoredRun:
    """`ID`, `FLOW/ID` or `FLOW/latest` in; the run out; NotFoundError lists what there is."""
    flow, _, run = name.rpartition("/")
    latest = bool(flow) and run == "latest"
    what: Question = "latest_run" if latest else "run"
    of = flow if latest else name
    try:
        with unheard():
            found = find_run(store, name)
    except NotFoundError:
        _note(store, what, of, answer="" if latest else str(False))
        raise
    _note(store, what, of, answer=found.run if latest else str(True))
    return found


def tags_of(past: StoredRun) -> tuple[str, ...]:
    """A run in; its tags out, which may be others tomorrow."""
    with unheard():
        found = past.snapshot.tags
    _note(past.store, "tags", f"{past.flow}/{past.run}", answer=" ".join(found))
    return found


def watch_status(past: StoredRun) -> None:
    """Note that what a run is at this moment was asked, where it may still change."""
    if current.context is None:
        return
    with unheard():
        status = past.snapshot.status
    if status == "running":
        _note(past.store, "status", f"{past.flow}/{past.run}", answer=status)


def _note(store: Store, what: Question, of: str, words: tuple[str, ...] = (), answer: str = "") -> None:
    if current.context is not None:
        current.context.note(Asked(what=what, of=of, words=words, store=store.url, answer=answer))


# ---------------------------------------------------------------- asked again


def changed(asked: Iterable[Asked], store: Store, now: dict[str, str], own: str = "") -> Reason | None:
    """What a step asked, the store and what `current` says in a task like it now in; the first other answer out.

    `own`: the flow whose latest run is the one that is only planned yet.
    """
    for one in asked:
        answer = now.get(one.of, "") if one.what == CURRENT else _again(one, store, own)
        if answer != one.answer:
            words = f" with {', '.join(word.strip() for word in one.words)}" if one.words else ""
            text = CHANGES[one.what].format(of=one.of, words=words, before=one.answer, after=answer or "another one")
            return ("lookup", text)
    return None


def _again(asked: Asked, store: Store, own: str) -> str:
    """What was asked in; what the answer is now out."""
    if (
        asked.of == own
        and not asked.store
        and (asked.what == "latest_run" or (asked.what, asked.words) == ("runs", ()))
    ):
        return ""  # the run that is planned will be the latest
    try:
        place = open_store(asked.store) if asked.store else store
        match asked.what:
            case "latest_run" | "latest_successful_run":
                found = _newest(place, asked.of, None if asked.what == "latest_run" else "done")
                return found.run if found is not None else ""
            case "runs":
                return _digest(_runs(place, asked.of, asked.words))
            case "flow":
                return named_flow(place, asked.of).folder
            case "run":
                find_run(place, asked.of)
                return str(True)
            case "tags":
                return " ".join(find_run(place, _id(asked)).snapshot.tags)
            case _:
                return find_run(place, _id(asked)).snapshot.status
    except NotFoundError:
        return str(False) if asked.what in ("run", "flow") else ""
    except AmbiguousFlow:
        return "several"
    except StoreError:  # it is elsewhere, and cannot be reached now
        return "unreachable"


def _id(asked: Asked) -> str:
    """A question about one run in; the run's id out, under whatever name its flow is known now."""
    return asked.of.rpartition("/")[2]


def _newest(store: Store, flow: str, status: RunStatus | None) -> RunSummary | None:
    found = (one for one in summaries(store, named_flow(store, flow)) if one.is_whole and status in (None, one.status))
    return next(found, None)


def _runs(store: Store, flow: str, words: tuple[str, ...]) -> list[RunSummary]:
    tags = [word for word in words if not word.startswith(STATUS)]
    status = next((word.removeprefix(STATUS) for word in words if word.startswith(STATUS)), None)
    return [one for one in summaries(store, named_flow(store, flow), tags) if status in (None, one.status)]


def _digest(found: Iterable[RunSummary]) -> str:
    return hashlib.blake2b(" ".join(one.run for one in found).encode(), digest_size=16).hexdigest()
