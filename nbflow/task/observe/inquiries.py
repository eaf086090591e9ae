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
    "latest_run": "{of}/latest is a different run now",
    "latest_successful_run": "the latest successful run of {of} is a different run now",
    "runs": "the runs of {of}{words} are different now",
    "run": "what there is of run {of} has changed",
    "flow": "whether the store knows {of} has changed",
    "tags": "the tags of {of} have changed",
    "status": "the run {of} has gone on",
    CURRENT: "current.{of}: {before} → {after}",
}
"""What is said where an answer differs now, by question."""


# ---------------------------------------------------------------- asked by code


def newest(store: Store, flow: str, status: RunStatus | None = None) -> RunSummary | None:
    """Return a flow's newest whole run with a status (None: any)."""
    with unheard():
        summary = _newest(store, flow, status)
    _note(
        store, "latest_run" if status is None else "latest_successful_run", flow, answer=summary.run if summary else ""
    )
    return summary


def runs_of(
    store: Store, flow: str, tags: Iterable[str] = (), status: RunStatus | str | None = None
) -> list[RunSummary]:
    """Return a flow's runs that have all these tags and this status (None: any), newest first."""
    words = (*tags, *((STATUS + status,) if status is not None else ()))
    with unheard():
        matches = _runs(store, flow, words)
    _note(store, "runs", flow, words, _digest(matches))
    return matches


def flow_of(store: Store, word: str) -> StoredFlow:
    """Return the flow that a name, or a folder's name, stands for; raise NotFoundError or AmbiguousFlow for none."""
    try:
        with unheard():
            flow = named_flow(store, word)
    except NotFoundError:
        _note(store, "flow", word, answer=str(False))
        raise
    _note(store, "flow", word, answer=flow.folder)
    return flow


def has_run(store: Store, flow: str, run: str) -> bool:
    """Return whether a flow has a run of that id."""
    with unheard():
        exists = any(place.run == run for place in flows.runs_of(store, named_flow(store, flow)))
    _note(store, "run", f"{flow}/{run}", answer=str(exists))
    return exists


def named(store: Store, name: str) -> StoredRun:
    """Return the run named `ID`, `FLOW/ID` or `FLOW/latest`; raise NotFoundError, which lists what there is."""
    flow, _, run = name.rpartition("/")
    latest = bool(flow) and run == "latest"
    what: Question = "latest_run" if latest else "run"
    of = flow if latest else name
    try:
        with unheard():
            past = find_run(store, name)
    except NotFoundError:
        _note(store, what, of, answer="" if latest else str(False))
        raise
    _note(store, what, of, answer=past.run if latest else str(True))
    return past


def tags_of(past: StoredRun) -> tuple[str, ...]:
    """Return a run's tags, which may be others tomorrow."""
    with unheard():
        tags = past.snapshot.tags
    _note(past.store, "tags", f"{past.flow}/{past.run}", answer=" ".join(tags))
    return tags


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
    """Return why the first answer that would differ now does, None where all that a step asked is as it was.

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
    """Return the answer that a question gets now."""
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
                summary = _newest(place, asked.of, None if asked.what == "latest_run" else "done")
                return summary.run if summary is not None else ""
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
    """Return the run's id in a question about one run, under whatever name its flow is known now."""
    return asked.of.rpartition("/")[2]


def _newest(store: Store, flow: str, status: RunStatus | None) -> RunSummary | None:
    matches = (
        one for one in summaries(store, named_flow(store, flow)) if one.is_whole and status in (None, one.status)
    )
    return next(matches, None)


def _runs(store: Store, flow: str, words: tuple[str, ...]) -> list[RunSummary]:
    tags = [word for word in words if not word.startswith(STATUS)]
    status = next((word.removeprefix(STATUS) for word in words if word.startswith(STATUS)), None)
    return [one for one in summaries(store, named_flow(store, flow), tags) if status in (None, one.status)]


def _digest(runs: Iterable[RunSummary]) -> str:
    return hashlib.blake2b(" ".join(one.run for one in runs).encode(), digest_size=16).hexdigest()
