"""Begin runs and plans of a notebook, or say what is wrong with it; no kernel is needed."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from nbflow import plugins
from nbflow.engine import certificates, claims, environments, facts, forecast, known_files, state
from nbflow.engine.lookup import Lookup, RunFacts
from nbflow.engine.resources import Room, never, within
from nbflow.engine.runner import Runner, Spent, Understand, Watch
from nbflow.errors import NotebookError, OptionError, PlanError, StoreError, nearest
from nbflow.flow.graph import build_flow
from nbflow.flow.late_options import filled, parse_for_all, with_for_all
from nbflow.flow.notebook import read_notebook
from nbflow.flow.options import check_tag
from nbflow.flow.reach import folded
from nbflow.flow.spans import cells_of, steps_of_rows
from nbflow.flow.subflow import preload_of, with_ancestors, without_params
from nbflow.flow.together import with_together
from nbflow.model import (
    Change,
    Finding,
    Flow,
    Plan,
    PlannedPlace,
    PlanTask,
    RunStarted,
    Step,
    TaskId,
)
from nbflow.plugins import Executor
from nbflow.render import rows
from nbflow.runs import client, garbage, place_plan
from nbflow.runs.parameters import Given, Wish, as_text, evaluate, read_params_file
from nbflow.runs.run_options import PathLike, RunOptions
from nbflow.runs.single_step import Pins, last_results
from nbflow.store import location, records, stored_run
from nbflow.store.flows import claim_flow
from nbflow.store.index import Index
from nbflow.store.location import Store
from nbflow.store.own_modules import with_modules
from nbflow.store.settings import most_bytes, without_ignored
from nbflow.task import secrets

# ---------------------------------------------------------------- the public doors


def run(
    path: PathLike,
    *,
    params: Mapping[str, Any] | None = None,
    on: str = "local",
    store: str | None = None,
    workers: int | None = None,
    fresh: bool | Sequence[str] = False,
    steps: Sequence[str] | None = None,
    tags: Iterable[str] = (),
    resume: str | None = None,
    only: str | None = None,
    again: Sequence[str] = (),
    step_options: Sequence[str] | str = (),
    all_cells: bool = False,
    params_file: PathLike | None = None,
    verified: bool = False,
    watch: Watch | None = None,
    cancel: threading.Event | None = None,
) -> client.Run:
    """Run a notebook as a flow and return its Run, also when it failed.

    `path` is an .ipynb, or a percent-format .py; `fresh` is True for all steps, or names of steps that are not to be
    reused; `steps` are run with their ancestors; `resume` is a run's id, whose parameters are then used; `only` is one
    step that runs alone, on what the last run (or the one to resume) left of the steps above it; `again` names steps
    with `--once` that may begin although an earlier run began them; `step_options` are options for all steps, as
    behind `--with`: `"retry=2,card"`; `verified` raises PlanError unless `verify` has found this code equal with these
    packages. Raises NotebookError, ParameterError, PlanError or StoreError only before anything ran.
    """
    return run_notebook(path, _options(locals()), watch=watch, cancel=cancel)


def plan(
    path: PathLike,
    *,
    params: Mapping[str, Any] | None = None,
    on: str = "local",
    store: str | None = None,
    workers: int | None = None,
    fresh: bool | Sequence[str] = False,
    steps: Sequence[str] | None = None,
    tags: Iterable[str] = (),
    resume: str | None = None,
    only: str | None = None,
    again: Sequence[str] = (),
    step_options: Sequence[str] | str = (),
    all_cells: bool = False,
    params_file: PathLike | None = None,
    verified: bool = False,
) -> Plan:
    """Return what `run` with the same arguments would do; nothing runs and nothing is written.

    Raises NotebookError, ParameterError, PlanError or StoreError as `run` does.
    """
    return plan_notebook(path, _options(locals()))


def _options(arguments: Mapping[str, Any]) -> RunOptions:
    """Return what the arguments of `run` and `plan`, which are called as its fields, ask of a run."""
    wishes = {name: arguments[name] for name in RunOptions.__struct_fields__}
    words = wishes["step_options"]
    return RunOptions(**{
        **wishes, "params": wishes["params"] or {}, "tags": tuple(wishes["tags"]),
        "step_options": (words,) if isinstance(words, str) else tuple(words),
    })  # fmt: skip


# ---------------------------------------------------------------- the same with options that are built already


def run_notebook(
    path: PathLike, options: RunOptions, *, watch: Watch | None = None, cancel: threading.Event | None = None
) -> client.Run:
    """Run a notebook as a flow and return its Run, as `run` does.

    `watch` is called from the runner's thread with each change; `cancel`, when set from elsewhere, stops the run.
    """
    with Executors(options.on) as executors:
        runner = begin(load_flow(path, all_cells=options.all_cells), options, executors, watch=watch)
        _run_until(runner, cancel)
    return client.Run(stored_run.StoredRun(runner.lookup.store, runner.place))


def plan_notebook(path: PathLike, options: RunOptions) -> Plan:
    """Return what `run_notebook` with the same options would do; nothing runs and nothing is written."""
    with Executors(options.on) as executors:
        return plan_flow(load_flow(path, all_cells=options.all_cells), options, executors)


def check(path: PathLike, *, all_cells: bool = False) -> Flow:
    """Return a notebook's Flow with every finding that can be known before a run, in document order."""
    return checked(load_flow(path, all_cells=all_cells))


def checked(flow: Flow, store: str | None = None) -> Flow:
    """Return a flow with what earlier runs in its datastore have shown as findings, too."""
    with contextlib.suppress(StoreError):  # what they have shown is left out then
        opened = location.open_store(location.store_url(store, flow.notebook.folder))
        opened.require_trust()
        return facts.checked(flow, opened)
    return flow


def why(path: PathLike, step: str, options: RunOptions | None = None, *, cost: bool = False) -> dict[str, Any]:
    """Return whether a step of a notebook would run or be reused, and what changed.

    The keys are "action" ("run" or "reuse") and "reasons", a list of {code, what, before, after}; with `cost` also
    "elapsed" and "costs", in seconds.
    """
    options = options or RunOptions()
    with Executors(options.on) as executors:
        return why_flow(load_flow(path, all_cells=options.all_cells), step, options, executors, cost=cost)


# ---------------------------------------------------------------- parts that the kernel's session uses too


class Executors:
    """The executors of one or more runs by URL, made when first needed, closed together."""

    def __init__(self, on: str = "local", variables: Callable[[], Mapping[str, str]] | None = None) -> None:
        """Take the run's place, and the variables of its tasks where they are not this process's own."""
        self.on = on
        self.variables = variables or (lambda: os.environ)
        self._made: dict[str, Executor] = {}
        self._lock = threading.Lock()

    def get(self, url: str | None = None) -> Executor:
        """Return the executor for a URL, None for the run's own; raise PlanError for a scheme that nobody serves."""
        url = url or self.on
        with self._lock:
            if url not in self._made:
                self._made[url] = executor = self._factory(url)(url)
                if isinstance(executor, plugins.SupportsEnvironment):
                    executor.inherit(self.variables)
            return self._made[url]

    def check(self, flow: Flow) -> None:
        """Raise PlanError for a place that nobody serves or that lacks what a step asks for; nothing runs.

        ExecutorError for one that cannot be reached.
        """
        for url, steps in self.places(flow).items():
            self._factory(url)
            if url == "local":
                _check_tools(flow, steps)
            elif isinstance(executor := self.get(url), plugins.SupportsChecks):
                executor.check(steps)

    def admit(self, flow: Flow, lookup: Lookup) -> tuple[Finding, ...]:
        """Return what differs where steps run; raise StoreError or ExecutorError where their tasks could not run."""
        findings: list[Finding] = []
        for url, steps in self.places(flow).items():
            if url != "local" and isinstance(executor := self.get(url), plugins.SupportsChecks):
                # the packages of the others are those of an environment, which is made there
                plain = [step for step in steps if environments.environment_for(flow.notebook, step) is None]
                modules = {*preload_of(flow, plain)}.union(*map(lookup.imported, plain))
                findings += executor.admit(lookup.store.url, sorted(modules), flow.notebook.folder)
                if isinstance(executor, plugins.SupportsFiles) and executor.wants_files(flow.notebook.folder):
                    findings += known_files.beyond(flow, steps, url)
        return tuple(findings)

    def local(self, url: str | None = None) -> Executor:  # noqa: ARG002  # called as `get` is
        """Return the executor of this machine: parameters are evaluated where the notebook is."""
        return self.get("local")

    def places(self, flow: Flow) -> dict[str, list[Step]]:
        """Return the steps of each place where a flow's tasks run."""
        places: dict[str, list[Step]] = {self.on: []}
        for step in flow.steps:
            if step.kind != "params":
                places.setdefault(step.options.on or self.on, []).append(step)
        return places

    def prepare(self, flow: Flow) -> None:
        """Have what the flow's tasks start from before there is one: importing its packages may take seconds."""
        executor = self.get()
        if isinstance(executor, plugins.SupportsPreparation):
            executor.prepare(preload_of(flow))

    def slots(self, url: str | None = None) -> int:
        """Return the number of cores of a place, None for the run's own."""
        executor = self.get(url)
        return executor.slots() if isinstance(executor, plugins.SupportsCapacity) else os.cpu_count() or 1

    def others(self, flow: Flow, workers: int | None) -> dict[str, int]:
        """Return the cores of each other place that steps name, at most `workers` each."""
        return {url: workers or self.slots(url) for url in self.places(flow) if url != self.on}

    def room(self, flow: Flow) -> Room:
        """Return the GPUs and memory of the run's own executor; raise PlanError where a step asks it for more."""
        asking = [step for step in flow.steps if step.options.gpu or step.options.memory or step.options.nodes > 1]
        if not any((step.options.on or self.on) == self.on for step in asking):
            return Room()
        executor = self.get()
        if not isinstance(executor, plugins.SupportsRoom):
            return Room()
        room = Room(executor.gpus(), executor.memory())
        for step in asking:
            why = never(step.options, room) if (step.options.on or self.on) == self.on else ""
            if why:
                fix = "ask for less, or run the step where there is more: --on ray://…"
                raise PlanError(f"{step.label}: {why}", step=step.name, cell=step.cell, line=1, fix=fix)
        return room

    def within_limits(self, flow: Flow) -> Flow:
        """Return a flow whose steps ask for no more than the run's own executor has, where their amounts are limits."""
        if not any(step.options.at_most for step in flow.steps):
            return flow
        executor = self.get()
        room = Room(executor.gpus(), executor.memory()) if isinstance(executor, plugins.SupportsRoom) else Room()
        return msgspec.structs.replace(flow, steps=tuple(
            msgspec.structs.replace(step, options=within(step.options, room, self.slots())) for step in flow.steps
        ))  # fmt: skip

    def close(self) -> None:
        """End everything that was started."""
        with self._lock:
            for executor in self._made.values():
                executor.close()
            self._made.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _factory(url: str) -> Any:
        try:
            return plugins.load("executors", url.partition(":")[0])
        except OptionError as error:
            raise PlanError(f"--on {url}: {error.message}", fix=error.fix) from None


def plan_flow(flow: Flow, options: RunOptions, executors: Executors) -> Plan:
    """Return what a run of a flow with these options would do."""
    ready = _prepare(flow, options, executors, run=None)
    tasks, findings = forecast.rows(ready.flow, ready.lookup), ready.flow.findings
    steps = executors.places(ready.flow)
    planned: tuple[PlannedPlace, ...] = ()
    if any(url != "local" for url, sent in steps.items() if sent):
        findings = (*findings, *executors.admit(ready.flow, ready.lookup))
        planned = place_plan.planned_places(ready.flow, ready.lookup, tasks, steps, executors)
    return Plan(
        flow=ready.flow.name, tasks=rows.of_plan(tasks, ready.flow.steps), findings=findings, places=planned,
        labels={step.name: step.label for step in ready.flow.steps}, cells=ready.flow.notebook.positions,
        verified=ready.verified,
    )  # fmt: skip


class Unasked(Executors):
    """The executors of a plan that nobody waits for: no place is asked, and nothing is started."""

    def get(self, url: str | None = None) -> Executor:
        """Raise PlanError: what would be executed stays unknown."""
        raise PlanError(f"nothing is executed at {url or self.on} for a plan", fix="run the flow")

    def check(self, flow: Flow) -> None:
        """Check nothing."""

    def room(self, flow: Flow) -> Room:
        """Return no room: nobody waits for it."""
        del flow
        return Room()


def why_flow(flow: Flow, step: str, options: RunOptions, executors: Executors, *, cost: bool = False) -> dict[str, Any]:
    """Return whether a step of a flow would run or be reused, and what changed, as `why` gives it."""
    ready = _prepare(flow, msgspec.structs.replace(options, steps=None, resume=None, only=None), executors, run=None)
    notes = [finding.message for finding in ready.flow.findings if finding.code == "parameters"]
    return {**why_in(ready.flow, ready.lookup, step, cost=cost), **({"notes": notes} if notes else {})}


def load_flow(path: PathLike, *, all_cells: bool = False) -> Flow:
    """Return the Flow of a notebook; raise NotebookError when it cannot be read."""
    return build_flow(with_modules(without_ignored(read_notebook(Path(path)))), all_cells=all_cells)


def begin(flow: Flow, options: RunOptions, executors: Executors, *, watch: Watch | None = None) -> Runner:
    """Return a Runner that is checked and ready to `run()` a flow.

    Raises PlanError, ParameterError or StoreError for everything that can be known before anything runs.
    """
    tags = tuple(check_tag(tag) for tag in options.tags)
    only, steps = options.only, options.steps
    ready = _prepare(flow, msgspec.structs.replace(options, tags=tags), executors, run=records.new_run_id)
    run_id, parameters = ready.lookup.facts.run, ready.parameters
    steps_run = ready.flow.steps if only is None else [ready.flow.step(find_step(only, flow.steps))]
    secrets.refuse_missing(step for step in steps_run if (step.options.on or executors.on) == "local")
    words = (steps or ()) if only is None else (only,)
    started = run_started(
        ready.flow, run_id, parameters={name: as_text(value) for name, value in parameters.values.items()},
        asked=tuple(find_steps(words, flow.steps)), given=parameters.places,
        tags=tags, origin=ready.lookup.facts.origin, on=executors.on, verified=ready.verified,
    )  # fmt: skip
    slots = options.workers or executors.slots()
    claims.check_store(ready.lookup.store, ready.flow.steps)
    differences = executors.admit(ready.flow, ready.lookup)
    entry = claim_flow(ready.lookup.store, flow.notebook)
    lost_runs = stored_run.lost_before(ready.lookup.store, entry)
    large = garbage.grown(ready.lookup.store, most_bytes(flow.notebook.folder))
    more = (*differences, *(finding for finding in (lost_runs, large) if finding is not None))
    announced = msgspec.structs.replace(ready.flow, findings=(*ready.flow.findings, *more)) if more else ready.flow
    return Runner(
        announced,
        ready.lookup,
        entry,
        started,
        executors.get,
        slots,
        watch,
        ready.understand,
        executors.room(ready.flow),
        executors.others(ready.flow, options.workers),
    )


class PreparedRun(msgspec.Struct, frozen=True):
    """A flow with values for its parameters, its look-up, and the way to build it anew when a run finds more out."""

    flow: Flow
    lookup: Lookup
    parameters: Given
    understand: Understand
    verified: float = 0.0


def _prepare(
    flow: Flow, options: RunOptions, executors: Executors, *, run: Callable[[Store], str] | None
) -> PreparedRun:
    """Check everything that may be wrong before a run and evaluate parameters; `run` makes its id, None for a plan."""
    fresh, only, resume = options.fresh, options.only, options.resume
    words = options.steps if only is None else (only,)
    targets = None if words is None else find_steps(words, flow.steps)
    check_flow(flow, targets)
    for_all = parse_for_all(options.step_options)
    url = location.store_url(options.store, flow.notebook.folder)
    store = location.open_store(url)
    store.require_trust()
    if options.verified and (why := certificates.refusal(store, flow)):
        name = Path(flow.notebook.path).name if flow.notebook.path else flow.name
        raise PlanError(f"{name} has no certificate: {why}", fix=f"`nbflow verify {name}` makes one where all is equal")
    certificate = certificates.certificate_of(store, flow)
    run_id = run(store) if run is not None else ""
    known = facts.known_of(flow, store)
    if known.changed or known.seen or known.asked:
        flow = facts.understood(flow, known)
        check_flow(flow, targets)
    flow = executors.within_limits(with_for_all(flow, for_all))
    _check_options(flow, executors)
    chosen = frozenset(find_steps(fresh, flow.steps)) if not isinstance(fresh, bool) else fresh

    def understand(found: facts.Known, spent: Spent) -> Flow:
        now = known.also(found)
        rebuilt = build_flow(
            flow.notebook, all_cells=flow.all_cells, changed=now.changed, seen=now.seen, asked=now.asked
        )
        rebuilt = filled(executors.within_limits(with_for_all(rebuilt, for_all)), parameters.values)
        rest = without_params(rebuilt if targets is None else with_ancestors(rebuilt, targets))
        return with_together(rest, now.unstored, spent)

    part = flow if targets is None else with_ancestors(flow, targets)
    pins = Pins() if only is None else last_results(store, part, targets or (), resume)
    wish = Wish(options.params, read_params_file(options.params_file), pins.run or resume)
    part, parameters = evaluate(part, store, wish, executors.local, run_id)
    origin = stored_run.find_run(store, resume).run if resume is not None and only is None else None
    run_facts = RunFacts(
        run=run_id, store_url=store.url, values=parameters.values, tags=tuple(options.tags), origin=origin,
        fresh=pins.steps or chosen, pinned=pins.records, only=only is not None, whole=words is None,
        variables=executors.variables, again=frozenset(find_steps(options.again, flow.steps)),
        early=known.early, seen=known.seen,
    )  # fmt: skip
    if any(step.options.late for step in part.steps):
        part = filled(part, parameters.values)
        _check_options(part, executors)
    if only is None:
        part = with_together(part, known.unstored)
    verified = certificate.at if certificate is not None else 0.0
    return PreparedRun(part, Lookup(part, store, run_facts, parameters.records), parameters, understand, verified)


def _check_tools(flow: Flow, steps: Iterable[Step]) -> None:
    """Raise PlanError for a step whose environment needs a program to make it that is not here."""
    from nbflow.executors import environments as made  # few flows ask for an environment

    for step in steps:
        source = environments.environment_for(flow.notebook, step)
        trouble = made.lacks(source.environment) if source is not None else None
        if trouble is not None:
            raise PlanError(trouble.message, step=step.name, cell=step.cell, line=1, fix=trouble.fix)


def check_flow(flow: Flow, targets: Sequence[str] | None = None) -> None:
    """Raise PlanError for the first finding that keeps a flow from running, with the number of others.

    Of a run up to the `targets`, only what keeps these and their ancestors from running.
    """
    errors = [finding for finding in flow.findings if finding.level == "error"]
    if targets is not None and errors:
        names = {None, *(step.name for step in with_ancestors(flow, targets).steps)}
        errors = [finding for finding in errors if finding.step in names]
    if errors and errors[0].code == "missing-name":
        # a cell that does not parse writes nothing: it may well be the reason
        errors = [*(f for f in flow.findings if f.code == "syntax" and f not in errors), *errors]
    if errors:
        raise as_error(errors)
    if not any(step.kind != "params" for step in flow.steps):
        raise NotebookError(
            "the notebook declares no step" if flow.notebook.cells else "the notebook has no code cells",
            fix="begin a cell with `%%step NAME`, or use --all-cells to take every cell as a step",
        )


def as_error(findings: Sequence[Finding]) -> PlanError:
    """Return the first of some findings of level error as a PlanError that carries all of them."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more: `nbflow check` lists them)" if len(findings) > 1 else ""
    error = PlanError(first.message + more, step=first.step, cell=first.cell, line=first.line, fix=first.fix)
    error.findings = tuple(findings)
    return error


def _check_options(flow: Flow, executors: Executors) -> None:
    """Raise PlanError for a step whose options nobody can honour, as far as they are known."""
    environments.check(flow)
    executors.check(flow)
    executors.room(flow)


def find_step(word: str, steps: Sequence[Step]) -> str:
    """Return the name of a step as people write it (`train`, `cell:ab12`, `cell 3`, a label), or raise PlanError."""
    for step in steps:
        number = f"cell {step.position}"
        if word in (step.name, step.label) or (step.kind == "cell" and word in (number, f"cell:{step.position}")):
            return step.name
    names = [step.name for step in steps if step.kind != "params"]
    raise PlanError(f"there is no step named {word!r}{nearest(word, names)}", fix=f"known steps: {', '.join(names)}")


def find_steps(words: Iterable[str], steps: Sequence[Step]) -> list[str]:
    """Return the nodes of steps as people write them: one for each cell of a step, or only that of `cell:ID`."""
    alone = {f"cell:{step.cell}": (step.name,) for step in steps}
    return [name for word in words for name in alone.get(word) or cells_of(steps, find_step(word, steps))]


def _run_until(runner: Runner, cancel: threading.Event | None) -> None:
    """Run here; `cancel`, when set from elsewhere, stops the run."""
    ended = threading.Event()

    def wait() -> None:
        while not ended.wait(0.05):
            if cancel is not None and cancel.is_set():
                runner.cancel()
                return

    if cancel is not None:
        threading.Thread(target=wait, daemon=True, name="nbflow cancel").start()
    try:
        runner.run()
    finally:
        ended.set()
    Index(runner.lookup.store.url).add_run(runner.place.folder, state.snapshot(runner.state))


# ---------------------------------------------------------------- plans


def why_in(flow: Flow, lookup: Lookup, word: str, *, cost: bool = False) -> dict[str, Any]:
    """Return a step's action and what changed, as `why` does, from a flow with its look-up."""
    name = find_step(word, flow.steps)
    # A fan-out has a row for each item. One item that runs makes the step run, and so it is the one to be explained.
    cells = cells_of(flow.steps, name)
    tasks = [row for row in forecast.rows(flow, lookup) if row.step in cells]
    for row in sorted(tasks, key=lambda row: row.action == "reuse")[:1]:
        changes: tuple[Change, ...] = tuple(Change(code=code, what=what) for code, what in row.reasons)
        if row.action == "run" and row.reasons and row.reasons[0][0] != "fresh":
            try:
                detailed = lookup.changes(TaskId(step=row.step, index=row.index or ()))
            except KeyError:
                detailed = ()
            whats = {change.what for change in detailed}
            changes = (*detailed, *(change for change in changes if change.what not in whats))
        reasons = [{"code": c.code, "what": c.what, "before": c.before, "after": c.after} for c in changes]
        return {"action": row.action, "reasons": reasons, **(_costs(lookup, tasks) if cost else {})}
    raise PlanError(f"{word} is not part of the flow")


def _costs(lookup: Lookup, rows: Sequence[PlanTask]) -> dict[str, Any]:
    """Return the seconds of a step's last execution, and those that nbflow took beside it."""
    previous = [lookup.previous(TaskId(step=row.step, index=row.index or ())) for row in rows]
    ran = [record for record in previous if record is not None]
    names = dict.fromkeys(name for record in ran for name in record.costs)
    costs = {name: round(sum(record.costs.get(name, 0.0) for record in ran), 6) for name in names}
    return {"elapsed": round(sum(record.elapsed for record in ran), 6), "costs": costs}


def run_started(flow: Flow, run: str, **about: Any) -> RunStarted:
    """Return a run's first event: who began it, where and from which commit."""
    return RunStarted(
        run=run, flow=flow.name, at=time.time(), notebook=flow.notebook.path, folder=flow.notebook.folder,
        user=_user(), host=socket.gethostname(), pid=os.getpid(), commit=git_commit(flow.notebook.folder),
        steps=tuple(step.name for step in flow.steps), labels={step.name: step.label for step in flow.steps},
        cells=flow.notebook.positions, loops=loop_variables(flow),
        folded=folded(flow), rows=steps_of_rows(flow.steps), edges=flow.edges, all_cells=flow.all_cells, **about,
    )  # fmt: skip


def loop_variables(flow: Flow) -> dict[str, str]:
    """Return what the innermost loop around each step calls its item."""
    loops = {step.name: step.options.foreach.target for step in flow.steps if step.options.foreach is not None}
    return {step.name: loops[step.scope[-1]] for step in flow.steps if step.scope and step.scope[-1] in loops}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid, as in many containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def git_commit(folder: str) -> str:
    """Return the commit that a folder's work tree is at, with `+` where files differ; "" outside git."""
    if not _in_work_tree(folder):
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--dirty=+"],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _in_work_tree(folder: str) -> bool:
    """Return whether a `.git` stands above: asking git itself costs a process."""
    place = Path(folder).resolve()
    return any((above / ".git").exists() for above in (place, *place.parents))
