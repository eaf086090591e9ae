"""`nbflow worker SPEC`: run one task for a notebook elsewhere. Engines call it; a person does to see what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from nbflow.cli.exit_codes import interrupts
from nbflow.model import TaskResult
from nbflow.runs.face import CANCELLED, DONE, FAILED, Answer
from nbflow.store.location import open_store


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option("--live", "is_live", is_flag=True, help="Write events to standard output too, as an engine reads them.")
@click.option("--devices", help="GPUs that the task may use, such as 0,1; without it those that it asks for.")
@click.option("--lost-by", default="", help="What has ended the worker if it is told to end; else it was cancelled.")
def worker(spec: str, is_live: bool, devices: str | None, lost_by: str) -> Answer:
    """Run one task for a notebook elsewhere.

    SPEC is the URL or path of the task's spec in a datastore, or `-` for a spec on standard input.
    """
    from nbflow.executors.local import LocalExecutor
    from nbflow.executors.remote import probe, task_worker

    live = _live() if is_live else lambda _: None
    if probe.is_question(spec):
        probe.answer(spec)
        return Answer()
    url = _stored(sys.stdin.buffer.read()) if spec == "-" else spec
    stop = task_worker.Stop(lost_by)
    executor = LocalExecutor(lane="single")
    try:
        with interrupts(stop.set, "ending the task; once more to kill it\n"):
            gpus = devices.split(",") if devices else None
            return Answer(code=_code(task_worker.run(url, executor, live, stop, gpus)))
    finally:
        executor.close()


def _live() -> Callable[[bytes], None]:
    """Return what writes to standard output, which nothing else does from now on."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def live(data: bytes) -> None:
        nonlocal out
        try:
            out.write(data)
        except (OSError, ValueError):  # nobody reads any more: the datastore has everything
            out.close()

    return live


def _stored(data: bytes) -> str:
    """Put a spec where its datastore has specs; return its URL."""
    from nbflow.executors.remote import attempt_files

    spec = attempt_files.parse_spec(data, "on standard input")
    files = attempt_files.AttemptFiles.of(open_store(spec.store).trust(), spec)
    files.write_spec(spec)
    return files.url


def _code(result: TaskResult) -> int:
    if result.failure is None:
        return DONE
    return CANCELLED if result.failure.kind == "cancelled" else FAILED
