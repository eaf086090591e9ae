"""Ask a worker who it is and whether it reaches the datastore: before a run, and for `nbflow doctor --on`."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from nbflow.errors import ExecutorError, NotFoundError, StoreError
from nbflow.executors.remote.engine import Engine, WorkerOrder
from nbflow.jsonable import from_json, to_json
from nbflow.model import Frozen
from nbflow.store.location import Store, open_store

QUESTION = "question.json"
ANSWER = "answer.json"
LONGEST = 60.0
"""Seconds that a worker may take to answer before the place counts as unusable."""


class Question(Frozen, frozen=True, kw_only=True):
    """What a worker is asked: which versions it has of these distributions."""

    distributions: tuple[str, ...] = ()


class WorkerFacts(Frozen, frozen=True, kw_only=True):
    """What a worker is; of the distributions that were asked for the versions, "" where one is missing."""

    host: str
    pid: int
    python: str
    nbflow: str
    distributions: dict[str, str]
    gpus: str = ""


def is_question(url: str) -> bool:
    """Return whether a worker's spec is a question instead of a task."""
    return url.rpartition("/")[2] == QUESTION


def answer(url: str) -> WorkerFacts:
    """Answer the question at a URL, into the datastore that it lies in; StoreError when that cannot be reached."""
    root, _, rest = url.rpartition("/probes/")
    folder = f"probes/{rest.rpartition('/')[0]}"
    store = open_store(root)
    question = from_json(store.read_many([path := f"{folder}/{QUESTION}"]).get(path, b""), Question)
    if question is None:
        raise NotFoundError(f"the worker on {socket.gethostname()} finds no {path} in {store.url}")
    own = WorkerFacts(
        host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), nbflow=_version("nbflow"),
        distributions={name: _version(name) for name in question.distributions},
        gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    )  # fmt: skip
    store.write(f"{folder}/{ANSWER}", to_json(own))
    return own


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def ask(engine: Engine, store: Store, distributions: Sequence[str] = (), longest: float = LONGEST) -> WorkerFacts:
    """Return what a worker of an engine says of itself through a datastore.

    Raise StoreError where the worker cannot reach the datastore, ExecutorError where none answers.
    """
    folder = f"probes/{secrets.token_hex(8)}"
    store.write(f"{folder}/{QUESTION}", to_json(Question(distributions=tuple(distributions))))
    try:
        order = WorkerOrder(name="nbflow probe", spec=f"{store.url}/{folder}/{QUESTION}", cpu=0.01)
        return _await(engine, engine.start(order, lambda _: None), store, f"{folder}/{ANSWER}", longest)
    finally:
        store.delete(f"{folder}/{QUESTION}")
        store.delete(f"{folder}/{ANSWER}")


def _await(engine: Engine, worker: str, store: Store, path: str, longest: float) -> WorkerFacts:
    until = time.monotonic() + longest
    wait = 0.02
    while True:
        state = engine.look([worker]).get(worker)
        over = state is not None and state.state not in {"waiting", "running"}
        if over:
            found = from_json(store.read_many([path]).get(path, b""), WorkerFacts)
            if found is not None:
                return found
            raise StoreError(
                f"a worker on {engine.place} does not reach the datastore {store.url}: "
                f"{(state.message if state is not None else '') or 'its answer is not there'}",
                fix="choose a datastore that the notebook's machine and the workers both reach: --store s3://…, or a "
                "shared folder; `nbflow doctor --on URL` tries it",
            )
        if time.monotonic() > until:
            engine.cancel(worker, hard=True)
            why = f": {state.message}" if state is not None and state.message else ""
            raise ExecutorError(
                f"no worker on {engine.place} has answered within {longest:g} s{why}",
                fix="see whether it has a free core; `nbflow doctor --on URL` tries it again",
            )
        time.sleep(wait)
        wait = min(0.5, wait * 1.5)


def compare(answer: WorkerFacts, place: str) -> None:
    """Raise ExecutorError where a worker's Python or nbflow is another one than here."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    theirs = ".".join(answer.python.split(".")[:2])
    if theirs != ours:
        raise ExecutorError(
            f"{place}: the workers have Python {theirs}, this notebook has {ours}: compiled code and pickled functions "
            "do not travel between them",
            fix=f"start the workers with Python {ours}, or the notebook with {theirs}",
        )
    mine = _version("nbflow")
    if answer.nbflow != mine:
        raise ExecutorError(
            f"{place}: the workers have nbflow {answer.nbflow or '(not installed)'}, this notebook has {mine}",
            fix=f"pip install nbflow=={mine} on the workers",
        )
