"""Steps with `--once`: who may begin an execution, told by a file that only one of all who try can make.

A claim is made before the task's first line and never taken back: whoever made it may have been killed at any point
after it. `claims/<ab>/<key>/<number>.json`: the next number is only made when the user has asked for another time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from nbflow.engine import reuse
from nbflow.errors import NotFoundError, StoreError
from nbflow.jsonable import from_json
from nbflow.model import Ended, Frozen, Record, Started, Step, TaskEvent, TaskFailure, TaskResult, TaskSpec
from nbflow.store import records
from nbflow.store.flows import RunPlace
from nbflow.store.location import Store, safe_name
from nbflow.store.stored_run import StoredRun

EVERY = 0.2
"""Seconds between two looks at what another run executes."""

LOOKS = 50
"""How often a claim is tried before what has taken its name counts as none: a link, say."""


class Claim(Frozen, frozen=True, kw_only=True):
    """One time that an execution was begun, and how it ended as far as its run could say."""

    key: str
    number: int
    execution: str
    flow: str
    folder: str
    run: str
    at: float
    ended: Literal["", "done", "failed"] = ""

    @property
    def place(self) -> RunPlace:
        """The run that made it."""
        return RunPlace(self.flow, self.folder, self.run)


# ---------------------------------------------------------------- made and read


def check_store(store: Store, steps: Sequence[Step]) -> None:
    """Raise StoreError where a step asks for `--once` and the datastore cannot promise it."""
    once = next((step for step in steps if step.options.once), None)
    if once is not None and not store.creates_once():
        raise StoreError(
            f"--once needs a datastore in which only one of several writers can make a file, and {store.url} cannot"
            " promise that",
            step=once.name, cell=once.cell, line=1,
            fix="use a folder or a bucket with conditional writes (--store), or leave --once out",
        )  # fmt: skip


def last_claim(store: Store, key: str) -> Claim | None:
    """Return the newest claim on a task's key, None where it never began."""
    folder = _folder(key)
    names = [name for name in store.children(folder) if name.endswith(".json")]
    if not names:
        return None
    path = f"{folder}/{names[-1]}"
    claim = from_json(store.read_many([path]).get(path, b""), Claim)
    if claim is not None and claim.key == key:
        return claim
    # That there is a file says that the step has begun, whatever has become of what it held.
    number = names[-1].partition(".")[0]
    return Claim(
        key=key, number=int(number) if number.isdecimal() else 0, execution="", flow="", folder="", run="", at=0.0,
        ended="failed",
    )  # fmt: skip


def claim(store: Store, spec: TaskSpec, place: RunPlace, *, again: bool) -> Claim:
    """Claim a task that is about to begin; return the claim that counts: this run's own, or another one.

    `again`: the user has asked for another time, whatever an earlier run began.
    """
    for _ in range(LOOKS):
        last = last_claim(store, spec.key)
        if last is not None and (not again or last.run == place.run or is_under_way(store, last)):
            return last
        number = 1 if last is None else last.number + 1
        own = Claim(
            key=spec.key, number=number, execution=spec.execution, flow=place.flow, folder=place.folder, run=place.run,
            at=time.time(),
        )  # fmt: skip
        if store.create(_path(own), msgspec.json.encode(own)):
            return own
        time.sleep(EVERY)  # another one has taken the name, and may still be writing
    raise StoreError(
        f"{_folder(spec.key)} in the datastore {store.url} holds something that is no claim",
        fix="remove what is no plain file there",
    )


def end(store: Store, claim: Claim, how: Literal["done", "failed"]) -> None:
    """Say how the execution ended, for those who wait for it."""
    store.write(_path(claim), msgspec.json.encode(msgspec.structs.replace(claim, ended=how)))


def is_under_way(store: Store, claim: Claim) -> bool:
    """Return whether the execution goes on: it has not ended, and its run lives."""
    return not claim.ended and _lives(store, claim)


def _lives(store: Store, claim: Claim) -> bool:
    try:
        return StoredRun(store, claim.place).snapshot.status == "running"
    except NotFoundError:  # removed since, or killed before it had begun
        return False


def _folder(key: str) -> str:
    return f"claims/{safe_name(key[:2])}/{safe_name(key)}"


def _path(claim: Claim) -> str:
    return f"{_folder(claim.key)}/{claim.number:06}.json"


# ---------------------------------------------------------------- asked, or waited for


def asks(store: Store, step: Step, claim: Claim, *, by_hand: bool = False) -> TaskFailure:
    """Return the failure that says that a step has begun before, and how it is executed once more."""
    has_result = any(record.execution == claim.execution for record in records.find(store, claim.key))
    age = reuse.describe_age(time.time() - claim.at)
    if is_under_way(store, claim):
        what, fix = f"{claim.run} executes it now", f"wait for its end: `nbflow attach {claim.run}`"
    elif has_result:
        what = f"it was executed in {claim.run}, {age}"
        fix = f"`{{}} --fresh {step.name} --again {step.name}` executes it once more"
    else:
        when = f"in {claim.run}, {age}," if claim.run else "(the file that says when cannot be read)"
        what = f"it began {when} and left no result"
        fix = f"see whether it did its work; `{{}} --again {step.name}` executes it once more"
    word = f"%flow run {step.name}" if by_hand else "nbflow run NB" if has_result else "nbflow resume"
    return TaskFailure(
        type="BegunBefore", message=f"--once: {what}", cell=step.cell.partition("#")[0], line=1, fix=fix.format(word)
    )


class Awaited:
    """A handle for a task that another run, or another task of the same key, has begun: it gives that one's record."""

    def __init__(self, store: Store, step: Step, claim: Claim) -> None:
        self._store = store
        self._step = step
        self._claim = claim
        self._cancelled = False

    def events(self) -> Iterator[TaskEvent]:
        """Give its end, once the other execution has ended."""
        began = time.monotonic()
        yield Started(pid=0, at=time.time())
        result = self._look()
        while result is None:
            time.sleep(EVERY)
            result = self._look()
        yield Ended(result=msgspec.structs.replace(result, elapsed=time.monotonic() - began))

    def cancel(self, grace: float) -> None:
        """Stop waiting; the other execution is left alone."""
        del grace
        self._cancelled = True

    def _look(self) -> TaskResult | None:
        """Return the result, None while there is none."""
        if self._cancelled:
            failure = TaskFailure(type="Cancelled", message="the task was cancelled", kind="cancelled")
            return TaskResult(failure=failure)
        lives = self._claim.ended != "failed" and _lives(self._store, self._claim)
        record = self._record()  # looked for last: it is there before its run ends
        if record is not None:
            return TaskResult(record=record)
        if lives:
            self._claim = last_claim(self._store, self._claim.key) or self._claim
            return None
        return TaskResult(failure=asks(self._store, self._step, self._claim))

    def _record(self) -> Record | None:
        matches = records.find(self._store, self._claim.key)
        return next((record for record in matches if record.execution == self._claim.execution), None)
