"""`slurm://partition?gres=gpu:1&time=1:00:00`: tasks as jobs of Slurm, through its own commands on a login node.

Tasks that are submitted together and ask for the same are one job array. Nothing comes live: what a task shows is read
in the datastore, a folder that the nodes mount or a store in the cloud.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from nbflow.errors import ExecutorError, PlanError, nearest
from nbflow.executors.remote.engine import NodeRoom, WorkerOrder, WorkerState
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.model import Frozen, StepOptions

TOGETHER = 0.3
"""Seconds without another task after which those that wait are submitted as one array."""

ARRAY = 1000
"""Tasks in one array at most: Slurm's own limit is 1001 unless a site has set another."""

LONGEST = 30.0
"""Seconds that one of Slurm's commands may take."""

AGAIN = 5.0
"""Seconds between two tries to submit while Slurm's controller does not answer."""

OVERHEAD = 256
"""Megabytes of memory that a worker needs beside its task."""

PASSED_ON = ("account", "constraint", "gres", "qos", "reservation", "time")
"""Words of an address that are options of sbatch."""

RUNNING = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT"}
WAITING = {"PENDING", "CONFIGURING", "SUSPENDED", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
ENDS: Mapping[str, tuple[str, str]] = {
    "COMPLETED": ("done", ""),
    "OUT_OF_MEMORY": ("memory", "more than --memory, or than the partition gives"),
    "TIMEOUT": ("crashed", "its time was over: ask for more with ?time=H:MM:SS"),
    "DEADLINE": ("crashed", "its time was over"),
    "PREEMPTED": ("crashed", "it was preempted by another job"),
    "NODE_FAIL": ("lost", "its node failed"),
    "BOOT_FAIL": ("crashed", "its node did not start"),
    "CANCELLED": ("refused", "its job was cancelled with scancel"),
}  # fmt: skip
"""Slurm's last states → a worker's, with words."""

REASONS = {
    "None": "",  # Slurm has not looked at it yet
    "Resources": "waits for free nodes (Resources)",
    "Priority": "other jobs are before it (Priority)",
}  # fmt: skip
"""Why jobs wait, in words; others as Slurm has them."""

REQUEUED = 75
"""Exit status of a job that Slurm has begun a second time: tasks begin once."""


def executor(url: str) -> RemoteExecutor:
    """Return the executor for `slurm://[partition][?option=…]`; PlanError for another form."""
    return RemoteExecutor(SlurmEngine(url))


class SlurmAddress(Frozen, frozen=True, kw_only=True):
    """What `slurm://…` says: a partition, options of sbatch, the Python of the nodes."""

    partition: str
    options: Mapping[str, str]
    python: str

    @property
    def place(self) -> str:
        """Its name for people."""
        return f"slurm://{self.partition}"


def parse_slurm(url: str) -> SlurmAddress:
    """Return what an address says; PlanError for a word that none of them has."""
    parts = urllib.parse.urlsplit(url)
    words = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    known = (*PASSED_ON, "python")
    for word in words:
        if word not in known:
            raise PlanError(f"--on {url}: no option {word!r}{nearest(word, known)}", fix=f"known: {', '.join(known)}")
    if parts.scheme != "slurm" or parts.path.strip("/") or "@" in parts.netloc or ":" in parts.netloc:
        raise PlanError(f"--on {url}: not a Slurm address", fix="write slurm://PARTITION?time=1:00:00")
    python = words.pop("python", sys.executable)
    return SlurmAddress(partition=parts.netloc, options=words, python=python)


class Job(Frozen, frozen=True, kw_only=True):
    """One task of an array, as Slurm lists it."""

    id: str  # 12_3
    state: str
    reason: str = ""
    where: str = ""


class JobArray(msgspec.Struct):
    """Tasks that are submitted together."""

    token: str
    orders: list[WorkerOrder | None]  # None: cancelled before
    touched: float
    is_sent: bool = False
    trouble: str = ""  # why it is not submitted yet
    refusal: str = ""


class SlurmEngine:
    """One partition of a Slurm cluster."""

    queues = True

    def __init__(self, url: str) -> None:
        self.address = parse_slurm(url)
        self.place = self.address.place
        self._nodes: list[NodeRoom] | None = None
        self._lock = threading.Lock()
        self._arrays: dict[str, JobArray] = {}
        self._open: dict[tuple[float, float, int | None], JobArray] = {}  # by what their tasks ask for
        self._ids: dict[str, str] = {}  # worker -> job, as last seen
        self._courier: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = threading.Event()

    # ------------------------------------------------------------ the engine

    def connect(self) -> None:
        """Ask for the partition's nodes; ExecutorError says what is wrong."""
        if self._nodes is not None:
            return
        if shutil.which("sbatch") is None:
            raise ExecutorError(
                f"{self.place}: there is no sbatch on this machine",
                fix="start the notebook on a login node of the cluster",
            )
        chosen = (f"--partition={self.address.partition}",) if self.address.partition else ()
        nodes = _parse_nodes(_slurm("sinfo", "--noheader", "--Node", *chosen, "--format=%n|%c|%m|%G"))
        if not nodes:
            known = sorted(set(_slurm("sinfo", "--noheader", "--format=%R").split()))
            raise ExecutorError(
                f"{self.place}: there is no such partition{nearest(self.address.partition, known)}",
                fix=f"known: {', '.join(known) or 'none'}",
            )
        self._nodes = nodes

    def nodes(self) -> Sequence[NodeRoom]:
        """Return the partition's nodes."""
        return self._nodes or []

    def refuses(self, options: StepOptions) -> str:
        """Return what there is no way for."""
        if options.nodes > 1:
            return f"--nodes {options.nodes}: jobs of several nodes are not started here; Ray has them"
        if options.gpu % 1:
            return f"Slurm gives whole GPUs (--gpu {options.gpu:g})"
        return ""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        """Have a worker submitted with those that come beside it; return its id at once."""
        del live  # what it says stands in the datastore
        shape = (order.cpu, order.gpu, order.memory)
        with self._lock:
            array = self._open.get(shape)
            if array is None or len(array.orders) == ARRAY:
                array = self._open[shape] = JobArray(secrets.token_hex(4), [], 0.0)
                self._arrays[array.token] = array
            array.orders.append(order)
            array.touched = time.monotonic()
            worker = f"{array.token}_{len(array.orders) - 1}"
            if self._courier is None:
                self._courier = threading.Thread(target=self._carry, name="nbflow slurm courier", daemon=True)
                self._courier.start()
        self._wake.set()
        return worker

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        """Return how workers stand: one question for all, and one more for those that the queue has forgotten."""
        states: dict[str, WorkerState] = {}
        asked = []
        with self._lock:
            for worker in ids:
                array = self._arrays.get(worker.partition("_")[0])
                state = None if array is None else _unsent(array, int(worker.partition("_")[2]))
                if state is None:
                    asked.append(worker)
                else:
                    states[worker] = state
        if not asked:
            return states
        jobs = self._queue()
        missing = [worker for worker in asked if worker not in jobs]
        if missing:
            jobs |= _accounted({worker.partition("_")[0] for worker in missing})
        for worker in asked:
            job = jobs.get(worker)
            if job is None:
                states[worker] = WorkerState(state="lost", message="Slurm no longer knows its job")
            else:
                self._ids[worker] = job.id
                states[worker] = self._state(worker, job)
        return states

    def cancel(self, worker: str, *, hard: bool) -> None:
        """Take a worker out of the queue, or kill its job."""
        token, _, number = worker.partition("_")
        with self._lock:
            array = self._arrays.get(token)
            if array is not None and not array.is_sent:
                array.orders[int(number)] = None
                return
        if worker not in self._ids:
            self.look([worker])
        job = self._ids.get(worker)
        if job is None:
            return
        if hard:
            _slurm("scancel", "--quiet", "--signal=KILL", "--full", job)
        _slurm("scancel", "--quiet", *(() if hard else ("--state=PENDING",)), job)

    def close(self) -> None:
        """Submit nothing more."""
        self._closed.set()
        self._wake.set()
        if self._courier is not None:
            self._courier.join(5.0)

    # ------------------------------------------------------------ what Slurm says

    def _queue(self) -> dict[str, Job]:
        """Return this user's jobs of nbflow, those that have ended a moment ago included."""
        rows = _slurm(
            "squeue",
            "--noheader",
            f"--user={getpass.getuser()}",
            "--array",
            "--states=all",
            "--format=%j|%F|%K|%T|%r|%N",
        )
        jobs = {}
        for name, array, number, state, reason, where in _rows(rows, 6):
            if name.startswith("nbflow-"):
                jobs[f"{name.split('-')[1]}_{number}"] = Job(
                    id=f"{array}_{number}", state=state, reason=reason, where=where
                )
        return jobs

    def _state(self, worker: str, job: Job) -> WorkerState:
        if job.state in RUNNING:
            return WorkerState(state="running", where=job.where)
        if job.state in WAITING:
            return WorkerState(state="waiting", message=REASONS.get(job.reason, f"Slurm says {job.reason}"))
        state, message = ENDS.get(job.state, ("crashed", ""))
        if state == "crashed" and not message:
            message = self._last_words(worker) or f"Slurm says: {job.state}, {job.reason}"
        return msgspec.convert({"state": state, "message": message, "where": job.where}, WorkerState)

    def _last_words(self, worker: str) -> str:
        """Return the last line that a worker wrote to its own output, where the datastore is a folder."""
        token, _, number = worker.partition("_")
        array = self._arrays.get(token)
        order = array.orders[int(number)] if array is not None else None
        if order is None:
            return ""
        try:
            lines = (Path(order.spec).parent / "slurm.out").read_text(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    # ------------------------------------------------------------ the thread that submits

    def _carry(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                waiting = [array for array in self._arrays.values() if not array.is_sent]
                due = []
                for shape, array in [*self._open.items()]:
                    if time.monotonic() - array.touched >= TOGETHER or len(array.orders) == ARRAY:
                        del self._open[shape]
                due = [array for array in waiting if array not in self._open.values()]
            for array in due:
                self._submit(array)
            self._wake.wait(AGAIN if not waiting or any(array.trouble for array in due) else TOGETHER / 3)
            self._wake.clear()

    def _submit(self, array: JobArray) -> None:
        with self._lock:
            orders = list(enumerate(array.orders))
        wanted = [(number, order) for number, order in orders if order is not None]
        try:
            if wanted and not (array.trouble and self._is_there(array.token)):
                job = _slurm("sbatch", *self._options(array.token, wanted), text=self._script(wanted)).partition(";")[0]
                self._drop(job.strip(), array, [number for number, _ in wanted])
        except ExecutorError as error:
            array.trouble = error.message
            if not re.search(r"contact slurm controller|timed out|refused|temporarily", error.message, re.IGNORECASE):
                array.refusal = error.message
        else:
            array.trouble = ""
        array.is_sent = not array.trouble or bool(array.refusal)

    def _drop(self, job: str, array: JobArray, sent: Sequence[int]) -> None:
        """Take those out of the queue that were cancelled while they were submitted."""
        with self._lock:
            array.is_sent = True
            dropped = [f"{job}_{number}" for number in sent if array.orders[number] is None]
        if dropped:
            with contextlib.suppress(ExecutorError):  # the mark in the datastore ends what begins
                _slurm("scancel", "--quiet", *dropped)

    def _is_there(self, token: str) -> bool:
        """Return whether an array was submitted by a command that did not hear the answer."""
        return any(worker.startswith(f"{token}_") for worker in self._queue())

    def _options(self, token: str, orders: Sequence[tuple[int, WorkerOrder]]) -> Iterable[str]:
        order = orders[0][1]
        flow = re.sub(r"[^\w.]", "_", order.name.partition("/")[0])
        yield from ("--parsable", "--no-requeue", "--output=/dev/null", f"--job-name=nbflow-{token}-{flow}")
        yield f"--array={','.join(str(number) for number, _ in orders)}"
        yield f"--cpus-per-task={math.ceil(order.cpu)}"
        if self.address.partition:
            yield f"--partition={self.address.partition}"
        if order.memory:
            yield f"--mem={math.ceil(order.memory / 1e6) + OVERHEAD}M"
        options = dict(self.address.options)
        if order.gpu:
            kind = options.get("gres", "gpu:1").rpartition(":")[0] or "gpu"
            options["gres"] = f"{kind}:{order.gpu:g}"
        for name, value in options.items():
            yield f"--{name}={value}"

    def _script(self, orders: Sequence[tuple[int, WorkerOrder]]) -> str:
        """Return what each task of an array does: a worker with the spec of its number, once."""
        specs = "\n".join(f"{number}) spec={shlex.quote(order.spec)} ;;" for number, order in orders)
        return f"""#!/bin/sh
case $SLURM_ARRAY_TASK_ID in
{specs}
esac
case $spec in *://*) ;; *) exec >"${{spec%/*}}/slurm.out" 2>&1 ;; esac
if [ "${{SLURM_RESTART_COUNT:-0}}" != 0 ]; then
  echo "Slurm has begun the job again: a task begins once, and --retry decides"
  exit {REQUEUED}
fi
exec {shlex.quote(self.address.python)} -m nbflow worker "$spec" --devices "${{CUDA_VISIBLE_DEVICES:-}}" \\
  --lost-by "Slurm has ended its job, which was preempted or cancelled, or whose time was over"
"""


def _unsent(array: JobArray, number: int) -> WorkerState | None:
    """Return how a worker stands that Slurm has not got, None for others."""
    if array.refusal:
        return WorkerState(state="refused", message=array.refusal)
    if array.orders[number] is None:
        return WorkerState(state="cancelled", message="cancelled before it was submitted")
    return None if array.is_sent else WorkerState(state="waiting", message=array.trouble or "is being submitted")


def _accounted(tokens: Iterable[str]) -> dict[str, Job]:
    """Return jobs that the queue has forgotten; none where the cluster keeps no accounts."""
    try:
        rows = _slurm(
            "sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-30days", "--array",
            "--format=JobName,JobID,State,NodeList", f"--user={getpass.getuser()}",
        )  # fmt: skip
    except ExecutorError:
        return {}
    wanted = set(tokens)
    jobs = {}
    for name, job, state, where in _rows(rows, 4):
        token = name.split("-")[1] if name.startswith("nbflow-") else ""
        if token in wanted:
            word = state.split()[0] if state else ""  # `CANCELLED by 1000`
            jobs[f"{token}_{job.rpartition('_')[2]}"] = Job(id=job, state=word, where=where)
    return jobs


def _rows(text: str, fields: int) -> Iterable[list[str]]:
    rows = (line.split("|") for line in text.splitlines())
    return (row for row in rows if len(row) == fields)


def _parse_nodes(text: str) -> list[NodeRoom]:
    return [
        NodeRoom(name=name, cpu=float(cores), gpu=_gpus(gres), memory=int(memory) * 1_000_000)
        for name, cores, memory, gres in _rows(text, 4)
    ]


def _gpus(gres: str) -> float:
    """Return how many GPUs `gpu:2`, `gpu:a100:4(S:0-1),…` tell of."""
    return float(sum(int(count) for count in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres)))


def _slurm(*command: str, text: str | None = None) -> str:
    """Return what one of Slurm's commands says; ExecutorError with its own words where it fails."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LONGEST, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExecutorError(f"{command[0]}: {error}", fix="see whether Slurm's commands work in a terminal") from error
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise ExecutorError(f"{words[:300]}", fix="see whether Slurm's commands work in a terminal")
    return done.stdout
