"""Ask a worker who it is and whether it reaches the datastore: before a run, and for `nbflow doctor --on`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import msgspec

from nbflow.errors import ExecutorError, NotFoundError, StoreError
from nbflow.executors.remote.engine import Engine, WorkerOrder
from nbflow.jsonable import from_json, to_json
from nbflow.model import Finding, Frozen
from nbflow.store.location import Store, open_store

QUESTION = "question.json"
ANSWER = "answer.json"
LONGEST = 60.0
"""Seconds that a worker may take to answer before the place counts as unusable."""


class Question(Frozen, frozen=True, kw_only=True):
    """What a worker is asked: which of these modules it has, in the notebook's folder or installed."""

    modules: tuple[str, ...] = ()
    folder: str = ""
    mark: str = ""  # a file in the folder, for the moment


class WorkerFacts(Frozen, frozen=True, kw_only=True):
    """What a worker is; of the modules that were asked for the versions: "" where one has none, None where missing."""

    host: str
    pid: int
    python: str
    nbflow: str
    modules: dict[str, str | None]
    gpus: str = ""
    sees_folder: bool = False  # the notebook's
    is_carried: bool = False  # it does not see the datastore: the engine carries values there and back


def is_question(url: str) -> bool:
    """Return whether a worker's spec is a question instead of a task."""
    return url.rpartition("/")[2] == QUESTION


def answer(url: str) -> WorkerFacts:
    """Answer the question at a URL, into the datastore that it lies in; StoreError when that cannot be reached."""
    root, _, rest = url.rpartition("/probes/")
    folder = f"probes/{rest.rpartition('/')[0]}"
    store = open_store(root).trust()
    own = own_facts(question_of(store, folder))
    put_answer(store, folder, own)
    return own


def question_of(store: Store, folder: str) -> Question:
    """Return the question in a folder of a datastore; NotFoundError where none can be read."""
    question = from_json(store.read_many([path := f"{folder}/{QUESTION}"]).get(path, b""), Question)
    if question is None:
        raise NotFoundError(f"the worker on {socket.gethostname()} finds no {path} in {store.url}")
    return question


def put_answer(store: Store, folder: str, facts: WorkerFacts) -> None:
    """Answer the question in a folder of a datastore."""
    store.write(f"{folder}/{ANSWER}", to_json(facts))


def own_facts(question: Question) -> WorkerFacts:
    """Return what this process is as a worker, and what it has of the modules that were asked for."""
    return WorkerFacts(
        host=socket.gethostname(), pid=os.getpid(), python=platform.python_version(), nbflow=_version("nbflow"),
        modules=versions(question.modules, question.folder),
        sees_folder=bool(question.mark) and (Path(question.folder) / question.mark).is_file(),
        gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    )  # fmt: skip


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def versions(modules: Sequence[str], folder: str) -> dict[str, str | None]:
    """Return what there is here of some top-level modules: a version, "" where one has none, None where it is missing.

    Nothing is imported for it.
    """
    homes = packages_distributions() if modules else {}
    distributions = {name: homes[name][0] for name in modules if homes.get(name)}
    return {
        name: (_version(distributions[name]) if name in distributions else "") if _is_there(name, folder) else None
        for name in modules
    }


def beside(modules: Sequence[str], folder: str) -> tuple[str, ...]:
    """Return those of some modules that stand in a folder."""
    return tuple(name for name in modules if folder and PathFinder.find_spec(name, [folder]) is not None)


def requirements(modules: Sequence[str]) -> tuple[str, ...]:
    """Return what pip would be given to have modules as they are here."""
    homes = packages_distributions()
    names = dict.fromkeys(homes[name][0] for name in modules if homes.get(name))
    return tuple(f"{name}=={_version(name)}" for name in names)


def _is_there(module: str, folder: str) -> bool:
    if beside([module], folder):
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def ask(engine: Engine, store: Store, question: Question = Question(), longest: float = LONGEST) -> WorkerFacts:  # noqa: B008  # frozen
    """Return what a worker of an engine says of itself through a datastore.

    Raise StoreError where the worker cannot reach the datastore, ExecutorError where none answers.
    """
    folder = f"probes/{secrets.token_hex(8)}"
    store.write(f"{folder}/{QUESTION}", to_json(question))
    try:
        order = WorkerOrder(name="nbflow probe", spec=f"{store.url}/{folder}/{QUESTION}", cpu=0.01)
        return _await(engine, engine.start(order, lambda _: None), store, f"{folder}/{ANSWER}", longest)
    finally:
        store.delete(f"{folder}/{QUESTION}")
        store.delete(f"{folder}/{ANSWER}")


@contextlib.contextmanager
def marked(question: Question) -> Iterator[Question]:
    """Ask also whether a worker sees the very folder, not another one of its path: by a file that stands in it.

    Where none can be written nobody can tell, and the folder counts as another one.
    """
    mark = Path(question.folder) / f".nbflow-{secrets.token_hex(8)}"
    is_made = False
    with contextlib.suppress(OSError):
        if question.folder:
            mark.touch(exist_ok=False)
            is_made = True
    try:
        yield msgspec.structs.replace(question, mark=mark.name if is_made else "")
    finally:
        if is_made:
            mark.unlink(missing_ok=True)


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
            if state is not None and state.state == "refused":
                raise ExecutorError(
                    f"{engine.place}: {state.message}",
                    fix="`nbflow doctor --on URL` tries it again once that is mended",
                )
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


def compare(facts: WorkerFacts, ours: Mapping[str, str | None], place: str) -> tuple[Finding, ...]:
    """Return what differs between a worker and here and may make a difference; ExecutorError where nothing can run.

    `ours` are the versions of the modules that the worker was asked for.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    theirs = ".".join(facts.python.split(".")[:2])
    if theirs != python:
        raise ExecutorError(
            f"{place}: the workers have Python {theirs}, this notebook has {python}: compiled code and pickled "
            "functions do not travel between them",
            fix=f"start the workers with Python {python}, or the notebook with {theirs}",
        )
    if facts.nbflow != _version("nbflow"):
        raise ExecutorError(
            f"{place}: the workers have nbflow {facts.nbflow or '(not installed)'}, this notebook has "
            f"{_version('nbflow')}",
            fix=f"pip install nbflow=={_version('nbflow')} on the workers",
        )
    missing = [name for name, their in facts.modules.items() if their is None and ours.get(name) is not None]
    if missing:
        wanted = " ".join(requirements(missing))
        raise ExecutorError(
            f"{place}: the workers lack {', '.join(missing)}, which the steps there import",
            fix=f'`pip install {wanted}` on the workers, or `--pip "{wanted}"` on the steps'
            if wanted
            else "install that on the workers",
        )
    return tuple(
        Finding(
            code="versions-differ", level="note",
            message=f"{name} is {ours[name]} here and {their} on {place}: what steps give there may differ, and is not "
            "reused here",
            fix=f'`--pip "{" ".join(requirements([name])) or name}"` on the steps there, or one version in both places',
        )
        for name, their in facts.modules.items()
        if their and ours.get(name) and their != ours[name]
    )  # fmt: skip
