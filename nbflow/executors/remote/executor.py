"""Tasks on an engine, behind the protocol that all executors share: specs go out, events come back, nothing twice."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import msgspec

from nbflow.engine import known_files
from nbflow.engine.threads import Carriers
from nbflow.errors import ExecutorError, NbflowError, PlanError, StoreError
from nbflow.executors.remote import attempt_files, probe, task_files
from nbflow.executors.remote.attempt_files import AttemptFiles
from nbflow.executors.remote.engine import CarriesSegments, Engine, FollowsWorkers, NodeRoom, WorkerOrder, WorkerState
from nbflow.executors.remote.handle import SILENCE, RemoteHandle
from nbflow.executors.remote.task_files import SentFiles
from nbflow.model import Finding, Segment, Step, StepOptions, TaskFailure, TaskResult, TaskSpec
from nbflow.store.interface import patiently
from nbflow.store.location import Store, open_store

ASK_EVERY = 0.5
"""Seconds between two questions to the engine."""

READ_EVERY, READ_FOLDER_EVERY = 2.0, 0.5
"""Seconds between two looks at the datastore for a task of which nothing comes live: by requests, and in a folder."""

START_EVERY, START_FOR = 5.0, 300.0
"""Seconds between two tries to start a worker on a place that has been reached before, and seconds until it fails."""

ANSWER_IN = 5.0
"""Seconds that an engine may take to answer before the datastore is looked at without it."""

READ_IN, READERS = 2.0, 16
"""Seconds that looking into the datastore may take before tasks are judged without it, and tasks looked for at once."""

MOST_ROUNDS = 10
"""Times that a task may come to files that nobody knew of, and is run again with them."""

QUEUE = 1000
"""Tasks at once where the engine has a queue of its own, or nobody knows how many fit."""


class RemoteExecutor:
    """Tasks on one engine; safe to call from several threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._handles: dict[str, RemoteHandle] = {}  # by what the engine calls their workers
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}
        self._admitted: dict[tuple[str, probe.Question], tuple[Finding, ...]] = {}
        self._unseen: set[str] = set()  # folders that workers do not see
        self._sent = SentFiles()
        self._unstarted: list[RemoteHandle] = []  # their place could not be reached
        self._start_at = 0.0
        self._read_at: dict[str, float] = {}
        self._readings: dict[str, _StoreLook] = {}  # that have not come to an end
        self._asking: threading.Event | None = None  # set once the engine has answered
        self._away: ExecutorError | None = None
        self._answered_at = time.monotonic()
        self._told_away = False
        self._wake = threading.Event()
        self._closed = False
        self._watcher: threading.Thread | None = None
        self._carriers = Carriers("nbflow remote")

    # ------------------------------------------------------------ before a run

    def check(self, steps: Sequence[Step]) -> None:
        """Reach the place; raise ExecutorError where that fails, PlanError for a step that no machine there can run."""
        self.engine.connect()
        nodes = self.engine.nodes()
        for step in steps:
            why = self.engine.refuses(step.options) or never(step.options, nodes)
            if why:
                raise PlanError(
                    f"{step.label}: {self.engine.place}: {why}", step=step.name, cell=step.cell, line=1,
                    fix="ask for less, or run the step where there is more: --on URL",
                )  # fmt: skip

    def admit(self, store: str, modules: Sequence[str], folder: str) -> tuple[Finding, ...]:
        """Return how workers differ from here; raise StoreError or ExecutorError where tasks there could not run."""
        question = probe.Question(
            modules=tuple(dict.fromkeys(name.partition(".")[0] for name in modules)), folder=folder
        )
        if (store, question) in self._admitted:
            return self._admitted[store, question]
        scheme = store.partition("://")[0]
        if scheme == "memory":
            raise StoreError(
                f"the datastore {store} is seen by this process only; workers on {self.engine.place} cannot reach it",
                fix="choose one that both reach: --store s3://…, or a shared folder",
            )
        self.engine.connect()
        findings: tuple[Finding, ...] = ()
        if not self.engine.queues:
            with probe.marked(question) as marked:
                facts = probe.ask(self.engine, self._store(store), marked)
            if not facts.sees_folder:
                self._unseen.add(folder)
            travelling = () if facts.sees_folder else probe.beside(question.modules, folder)
            ours = probe.versions([name for name in question.modules if name not in travelling], folder)
            findings = probe.compare(facts, ours, self.engine.place)
        elif "://" in store:  # nobody can be asked; where the datastore is a shared folder the notebook's is one too
            self._unseen.add(folder)
        self._admitted[store, question] = findings
        return findings

    def wants_files(self, folder: str) -> bool:
        """Return whether workers do not see the notebook's folder."""
        return folder in self._unseen

    def describe(self) -> str:
        """Return in a few words what there is, for `nbflow doctor`; ExecutorError where it cannot be reached."""
        self.engine.connect()
        nodes = self.engine.nodes()
        if not nodes:
            return "reached; what it has is not known"
        cores, gpus = sum(node.cpu for node in nodes), sum(node.gpu for node in nodes)
        count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
        return (
            f"{count}, {cores:g} cores, {gpus:g} GPUs; the largest: {max(node.cpu for node in nodes):g} cores, "
            f"{max(node.gpu for node in nodes):g} GPUs"
        )

    def upload(self, store: str, segments: Sequence[Segment]) -> int:
        """Return how many bytes of these segments would be sent, to the datastore or by the engine to its workers."""
        each = [segment for segment in dict.fromkeys(segments) if segment.hash]
        lacking = self.engine.lacking(store, each) if isinstance(self.engine, CarriesSegments) else None
        if lacking is None:
            lacking = [segment for segment in each if not self._store(store).has_segment(segment)]
        return sum(segment.length for segment in lacking)

    def too_small(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Return a line on each machine that some of these steps do not fit on."""
        lines = []
        for node in self.engine.nodes():
            labels = [step.label for step in steps if not _fits(step.options, node)]
            if labels:
                has = f"{node.cpu:g} cores, {node.gpu:g} GPUs"
                lines.append(f"{node.name or self.engine.place} ({has}) is too small for {', '.join(labels)}")
        return tuple(lines)

    def try_worker(self, store: str) -> str:
        """Return what a worker says that has just read and written a datastore, for `nbflow doctor`.

        Raise StoreError or ExecutorError where it could not.
        """
        self.engine.connect()
        began = time.monotonic()
        facts = probe.ask(self.engine, self._store(store))
        took = time.monotonic() - began
        probe.compare(facts, {}, self.engine.place)
        way = f"values travel between it and {store}" if facts.is_carried else f"it read and wrote {store}"
        return f"{facts.host}: Python {facts.python}, nbflow {facts.nbflow}; {way} ({took:.1f} s in all)"

    def slots(self) -> int:
        """Return how many tasks of one core each fit at the same time."""
        self.engine.connect()
        nodes = () if self.engine.queues else self.engine.nodes()
        return max(1, int(sum(node.cpu for node in nodes))) if nodes else QUEUE

    # ------------------------------------------------------------ tasks

    def submit(self, spec: TaskSpec) -> RemoteHandle:
        """Start one attempt; ExecutorError when the place cannot be used."""
        if self._closed:
            raise ExecutorError("the executor is closed")
        self.engine.connect()
        spec = msgspec.structs.replace(spec, threads=int(spec.options.cpu or 0))  # 0: as many as the worker may use
        try:
            spec = self._with_files(spec, spec.reads)
            handle = self._taken_up(spec) or self._started(spec)
        except StoreError as error:
            raise ExecutorError(error.message, fix=error.fix) from error
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="nbflow remote", daemon=True)
                self._watcher.start()
        return handle

    def _started(self, spec: TaskSpec) -> RemoteHandle:
        files = AttemptFiles.of(self._store(spec.store), spec)
        handle = RemoteHandle(spec, files, self, self.engine.place)
        patiently(lambda: files.write_spec(spec))
        try:
            self.start(handle)
        except ExecutorError as error:  # the place was reached before this run: it may be back in a moment
            handle.hold_up(error)
            with self._lock:
                self._unstarted.append(handle)
        return handle

    def _with_files(self, spec: TaskSpec, paths: Iterable[str]) -> TaskSpec:
        """Return a task with files below the notebook's folder, which are in the datastore then."""
        return msgspec.structs.replace(spec, files=self._sent.packed(self._store(spec.store), spec.folder, paths))

    def completes(self, handle: RemoteHandle, result: TaskResult) -> TaskResult | None:
        """Run a task again that has looked for files in vain which are here: they are sent. Return how it ends else.

        None where it runs again. One that has done something beyond its own folder is not executed twice: it fails.
        """
        spec = handle.spec
        if not self.wants_files(spec.folder) or (result.failure is not None and result.failure.kind != "error"):
            return result
        sent = [file.path for file in spec.files]
        seen = [each.observations for each in (result, *result.then)]
        missing = dict.fromkeys(path for each in seen for path in known_files.missing_files(spec.folder, each, sent))
        withheld = [path for each in seen for path in known_files.withheld_files(spec.folder, each)]
        if withheld and result.failure is not None:
            fix = f"{', '.join(withheld)} holds secrets and is not sent: declare what is needed by --secret NAME"
            result = msgspec.structs.replace(result, failure=msgspec.structs.replace(result.failure, fix=fix))
        if not missing:
            return result
        if any(map(task_files.has_effect, seen)) or handle.completed >= MOST_ROUNDS:
            return _not_completed(spec, result, [*missing], self.engine.place)
        again = msgspec.structs.replace(spec, execution=f"{spec.execution}+{handle.completed + 1}")
        with self._lock:
            self._handles.pop(handle.worker_id, None)
        handle.begin_again(again, AttemptFiles.of(self._store(spec.store), again), [*missing])
        self._carriers.run(partial(self._start_completed, handle, [*sent, *missing]))
        return None

    def _start_completed(self, handle: RemoteHandle, paths: Sequence[str]) -> None:
        try:
            handle.spec = self._with_files(handle.spec, paths)
            handle.files.write_spec(handle.spec)
            self.start(handle)
        except StoreError as error:
            handle.give_up(error)
        except ExecutorError as error:
            handle.hold_up(error)
            with self._lock:
                self._unstarted.append(handle)

    def _taken_up(self, spec: TaskSpec) -> RemoteHandle | None:
        """Return the handle of the worker that runs this very task for a run whose driver has gone, None without one.

        One that has ended without a result is started anew; what it has left as a result counts.
        """
        before = attempt_files.earlier(self._store(spec.store), spec)
        if before is None:
            return None
        files, submitted = before
        started = files.worker()
        if started is None or started.place != self.engine.place:
            return None
        result = files.result()
        if result is not None and result.result.record is None:
            return None
        handle = RemoteHandle(submitted, files, self, self.engine.place, keeps_log=False)
        handle.worker_id = started.worker
        if result is None and isinstance(self.engine, FollowsWorkers):
            self.engine.follow(_order(handle), started.worker, handle.feed)
        state = self.engine.look([started.worker]).get(started.worker)
        if result is None and (state is None or state.state not in {"waiting", "running"}):
            return None
        with self._lock:
            self._handles[started.worker] = handle
        return handle

    def start(self, handle: RemoteHandle) -> None:
        """Start a worker for the attempt, the first or another one; ExecutorError when it is refused."""
        worker = self.engine.start(_order(handle), handle.feed)
        with self._lock:
            self._handles.pop(handle.worker_id, None)
            handle.worker_id = worker
            self._handles[worker] = handle
        self._carriers.run(partial(self._note, handle, worker))

    def _note(self, handle: RemoteHandle, worker: str) -> None:
        with contextlib.suppress(StoreError):  # only whoever takes the run up would miss it
            handle.files.write_worker(self.engine.place, worker)

    def stop(self, handle: RemoteHandle, *, hard: bool) -> None:
        """End the worker: by a mark in the datastore and out of the queue, or killed."""

        def end() -> None:
            if not hard:
                with contextlib.suppress(NbflowError):  # the store is away: the engine's way is left
                    handle.files.ask_cancel(handle.grace)
            if handle.worker_id:
                with contextlib.suppress(NbflowError):  # asked again while the task has not ended
                    self.engine.cancel(handle.worker_id, hard=hard)
            self._wake.set()

        self._carriers.run(end)

    def close(self) -> None:
        """End everything that it started."""
        with self._lock:
            self._closed = True
            handles = list(self._handles.values())
        for handle in handles:
            handle.cancel(0.0)
        until = time.monotonic() + 10.0
        while self._handles and time.monotonic() < until:
            time.sleep(0.05)
        self._wake.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(5.0)
        self._carriers.close()
        self.engine.close()

    def _store(self, url: str) -> Store:
        with self._lock:
            if url not in self._stores:
                self._stores[url] = open_store(url).trust()
            return self._stores[url]

    # ------------------------------------------------------------ the thread that watches

    def _watch(self) -> None:
        while not (self._closed and not self._handles):
            if self._unstarted and time.monotonic() >= self._start_at:
                self._start_again()
            with self._lock:
                handles = dict(self._handles)
            if handles:
                self._look(handles)
            with self._lock:
                for worker in [worker for worker, handle in self._handles.items() if handle.over.is_set()]:
                    del self._handles[worker]
                    self._read_at.pop(worker, None)
                    self._readings.pop(worker, None)
            self._wake.wait(ASK_EVERY if handles or self._unstarted else 5.0 * ASK_EVERY)
            self._wake.clear()

    def _start_again(self) -> None:
        """Try once more to start workers of tasks that were submitted while the place could not be reached."""
        with self._lock:
            handles, self._unstarted = self._unstarted, []
        for handle in handles:
            if handle.over.is_set():
                continue
            try:
                self.engine.connect()
                self.start(handle)
            except ExecutorError as error:
                handle.hold_up(error, longest=START_FOR)
                with self._lock:
                    self._unstarted.append(handle)
        self._start_at = time.monotonic() + START_EVERY

    def _ask(self, workers: list[str]) -> dict[str, WorkerState] | None:
        """Return how workers stand, None where the engine cannot be asked or takes long to answer.

        What runs goes on meanwhile, and the datastore says what becomes of it.
        """
        if self._asking is not None and not self._asking.is_set():
            return None
        answered, answers = threading.Event(), []

        def ask() -> None:
            try:
                self.engine.connect()
                answers.append(dict(self.engine.look(workers)))
            except ExecutorError as error:
                self._away = error
            finally:
                answered.set()

        self._asking = answered
        self._carriers.run(ask)
        answered.wait(ANSWER_IN)
        return answers[0] if answers else None

    def _tell_away(self, handles: Mapping[str, RemoteHandle], *, is_away: bool) -> None:
        """Tell the user once that the place does not answer, and once that it does again."""
        now = time.monotonic()
        if not is_away:
            self._answered_at = now
        if is_away is self._told_away or (is_away and now - self._answered_at < SILENCE):
            return
        self._told_away = is_away
        message, fix = f"{self.engine.place} answers again", None
        if is_away:
            message = f"{self.engine.place} has not answered for {SILENCE:g} s"
            message += f": {self._away.message}" if self._away is not None else ""
            fix = "wait: what runs there goes on, and what it finishes counts; `nbflow cancel RUN` ends the run"
        next(iter(handles.values())).notice(Finding(code="silent-worker", message=message, fix=fix))

    def _look(self, handles: dict[str, RemoteHandle]) -> None:
        """Ask the engine of all workers at once, and look into the datastore where nothing comes live."""
        answer = self._ask(list(handles))
        states = answer or {}
        self._tell_away(handles, is_away=answer is None)
        now = time.monotonic()
        for worker, handle in handles.items():
            state = states.get(worker)
            waits = state is not None and state.state == "waiting" and not handle.heard
            every = READ_EVERY if "://" in handle.files.store.url else READ_FOLDER_EVERY
            due = handle.quiet > every and now - self._read_at.get(worker, 0.0) > every
            if _has_ended(state) or (due and not waits):
                self._read(worker, handle)
        until = time.monotonic() + READ_IN
        for worker, handle in handles.items():
            state = states.get(worker)
            reading = self._readings.get(worker)
            is_read, trouble = False, None
            if reading is not None and reading.over.wait(max(0.0, until - time.monotonic())):
                trouble = self._readings.pop(worker).trouble
                is_read = trouble is None
            try:
                # what an engine says has ended counts by what stands in the datastore, once that has been read
                handle.see(state if is_read or not _has_ended(state) else None)
            except NbflowError as error:
                trouble = error
            if trouble is not None and _has_ended(state) and handle.quiet > 60.0:
                handle.give_up(trouble)

    def _read(self, worker: str, handle: RemoteHandle) -> None:
        """Begin to look into the datastore for a task: one that is away holds up nobody else, and is told."""
        if worker in self._readings or len(self._readings) >= READERS:
            return
        reading = self._readings[worker] = _StoreLook()
        self._read_at[worker] = time.monotonic()

        def read() -> None:
            try:
                handle.read()
            except NbflowError as error:
                reading.trouble = error
            finally:
                reading.over.set()

        self._carriers.run(read)


class _StoreLook:
    """A look into the datastore for one task."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.trouble: NbflowError | None = None


def _has_ended(state: WorkerState | None) -> bool:
    return state is not None and state.state not in {"waiting", "running"}


def _order(handle: RemoteHandle) -> WorkerOrder:
    """Return the worker that an attempt asks for."""
    spec = handle.spec
    options = StepOptions() if spec.evaluate is not None else spec.options
    return WorkerOrder(
        name=f"{spec.flow}/{spec.execution}", spec=handle.files.url, cpu=options.cpu or 1.0, gpu=options.gpu,
        memory=options.memory, nodes=options.nodes,
    )  # fmt: skip


def _not_completed(spec: TaskSpec, result: TaskResult, missing: Sequence[str], place: str) -> TaskResult:
    """Return what a result comes to that was made without files that are here, and cannot be made again."""
    names = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
    failure = TaskFailure(
        type="FileNotFoundError", cell=spec.cell,
        message=f"step {spec.step} looked for {names} on {place}, which does not see the notebook's folder; it had an "
        "effect elsewhere before, and is not executed twice",
        fix="write the file's name into the cell, or give it as a File parameter: it is sent along then",
    )  # fmt: skip
    return msgspec.structs.replace(result, record=None, failure=failure, then=())


def never(options: StepOptions, nodes: Sequence[NodeRoom]) -> str:
    """Return why no machine can run a step, "" when one can, or nobody knows."""
    large_enough = sum(_fits(options, node) for node in nodes)
    if not nodes or large_enough >= options.nodes:
        return ""
    if large_enough:
        return f"{options.nodes} nodes are wanted; {large_enough} of {len(nodes)} has what the step asks for on each"
    most_gpus = max(node.gpu for node in nodes)
    if options.gpu > most_gpus:
        has = f"the largest has {most_gpus:g}" if most_gpus else "none has any"
        return f"no node has {options.gpu:g} GPU{'s' if options.gpu != 1 else ''}; {has}"
    most_cores = max(node.cpu for node in nodes)
    if (options.cpu or 1.0) > most_cores:
        return f"no node has {options.cpu or 1:g} cores; the largest has {most_cores:g}"
    memories = [node.memory for node in nodes if node.memory is not None]
    if memories and (options.memory or 0) > max(memories):
        return f"no node has {(options.memory or 0) / 1e9:.3g} GB of memory; the largest has {max(memories) / 1e9:.3g}"
    return "no node has all that it asks for at once (--cpu, --gpu, --memory)"


def _fits(options: StepOptions, node: NodeRoom) -> bool:
    return (
        (options.cpu or 1.0) <= node.cpu
        and options.gpu <= node.gpu
        and (node.memory is None or (options.memory or 0) <= node.memory)
    )
