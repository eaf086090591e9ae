"""The live kernel: the one owner of what is known about it, driven by IPython's hooks and the cells' first lines."""

from __future__ import annotations

import ast
import atexit
import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from nbflow.analysis.cell import analyse
from nbflow.analysis.lines import MISPLACED, header_of, misplaced_header
from nbflow.errors import NbflowError, OptionError, PlanError
from nbflow.flow.notebook import RawCell, read_notebook, split_header
from nbflow.flow.options import parse_header
from nbflow.flow.parameters import gather_overrides, override_source
from nbflow.kernel.document import ORIGINS, Document, find_path
from nbflow.kernel.feed import Audience
from nbflow.kernel.flow_run import FlowRun, say
from nbflow.kernel.namespace import running_elsewhere, waiting_elsewhere
from nbflow.kernel.plain_cells import PlainCells
from nbflow.kernel.recorder import Recorder
from nbflow.kernel.screen import BackgroundScreen, CellsScreen, RunScreen, RunTable, Screen, StepCells
from nbflow.kernel.sheets import CellPages
from nbflow.kernel.step_cells import CellDecision, KernelLane
from nbflow.kernel.task import KernelTask
from nbflow.kernel.workspace import Knowledge
from nbflow.model import Cell, Finding, Flow, Plan, RunEvent, Snapshot, Step, TaskOutput
from nbflow.render import table
from nbflow.runs.run_options import RunOptions
from nbflow.store import location, settings
from nbflow.store.serialize.registry import Registry
from nbflow.task.bytecode import distrust, trust
from nbflow.task.observe.observer import HOOK
from nbflow.tracebacks import unforeseen

if TYPE_CHECKING:
    from nbflow.runs.client import Run


class Request(msgspec.Struct):
    """One cell that runs, seen from its first hook to its last."""

    source: str
    cell: str | None  # its id in the document
    info: Any = None  # IPython's ExecutionInfo; None for a silent request
    names: Mapping[str, Any] = msgspec.field(default_factory=dict)  # the namespace before it
    tree: ast.Module | None = None
    decision: CellDecision | None = None
    problem: NbflowError | None = None  # why nbflow was not ready for it
    message: str | None = None  # the id of the page's request
    task: KernelTask | None = None


class Session:
    """One kernel with nbflow loaded."""

    def __init__(self, ip: Any) -> None:
        self.ip = ip
        self.registry = Registry()
        in_order = getattr(ip, "kernel", None) is not None
        self.document = Document(find_path(ip.user_ns, os.environ), Path.cwd(), in_order=in_order)
        self.recorder = Recorder(ip)
        self.audience = Audience()
        self.cell_pages = CellPages()
        self.known = Knowledge(ip, self.document, self.registry, self.recorder, self.audience)
        self.lane = KernelLane(self.known)
        self.plain = PlainCells(self.known)
        self._stacks: dict[int, list[Any]] = {}
        self._request: Request | None = None
        self._prepared = False
        self._ending_turn = False
        self._run: FlowRun | None = None
        self._hooks: dict[str, Callable[..., None]] = {
            "pre_run_cell": self.before_cell,
            "post_execute": self.after_execute,
            "post_run_cell": self.after_cell,
        }
        self._shown: set[tuple[str, str, str]] = set()

    # ------------------------------------------------------------ in and out of IPython

    def hooks(self) -> dict[str, Callable[..., None]]:
        """Return IPython's events and what of ours belongs to each."""
        return self._hooks

    def attach(self) -> None:
        """Begin to record what cells show; the cell that loads nbflow counts as begun."""
        self.recorder.attach()
        distrust()
        self.known.kernel.statements.stand_in.attach()
        self.known.kernel.process.imports.attach()
        atexit.register(self.close)
        self._catch_up()

    def _catch_up(self) -> None:
        """Count what was typed before our hooks were there: the cell that loads nbflow, and those before it.

        The latter only where nothing but the history knows them: a client that tells of no notebook (nbclient,
        papermill) runs each cell once, in order.
        """
        typed = [str(source) for source in self.ip.history_manager.input_hist_raw[1:]]
        begun = self._running_source(typed[-1] if typed else None)
        if begun is not None and typed and typed[-1].strip() == begun.strip():
            typed.pop()
        metadata = self._metadata()
        self.document.refresh()
        if self.document.origin == "executed" and metadata.get("cellId") is None:
            self._count([source for source in typed if source.strip()])
        if begun is None or threading.current_thread() is not threading.main_thread():
            return
        info = SimpleNamespace(raw_cell=begun)
        self._stacks[threading.get_ident()] = [info]
        tags = tuple(map(str, metadata.get("tags") or ()))
        identity = self.document.note(begun, metadata.get("cellId"), tags)
        cell = self._cell(identity)
        self._request = Request(source=begun, cell=identity, info=info, names=self._names_without(cell))
        if cell is not None and cell.kind == "plain":
            self.plain.begun(cell)

    def _running_source(self, newest: str | None) -> str | None:
        """Return what the cell that runs now holds; a terminal loads nbflow by what was typed last."""
        if getattr(self.ip, "kernel", None) is None:
            return newest
        parent = self.ip.kernel.get_parent() or {}
        is_request = (parent.get("header") or {}).get("msg_type") == "execute_request"
        content = parent.get("content") or {}
        # a silent request, and what a page asks for beside the history, is no cell
        is_kept = is_request and not content.get("silent") and content.get("store_history", True)
        return str(content.get("code", "")) if is_kept else None

    def _count(self, sources: Iterable[str]) -> None:
        """Count cells that were run before, in order; what is no Python had no effect."""
        python = [each for each in sources if "syntax" not in {problem.code for problem in analyse(each).diagnostics}]
        for identity in [self.document.note(source, None) for source in python]:
            cell = self._cell(identity)
            if cell is not None and cell.kind in ("plain", "setup"):
                self.plain.after(cell, self._names_without(cell), succeeded=True)

    def _names_without(self, cell: Cell | None) -> dict[str, Any]:
        """Return the namespace as it was before a cell that has begun, as far as its text tells what it writes."""
        written = analyse(cell.body).writes if cell is not None else frozenset[str]()
        return {name: value for name, value in self.ip.user_ns.items() if name not in written}

    def close(self) -> None:
        """Write what is left and leave the kernel as it was."""
        atexit.unregister(self.close)
        self.recorder.detach()
        trust()
        self.known.kernel.statements.stand_in.detach()
        self.known.kernel.process.imports.detach()
        self.known.close()

    def update_document(self, cells: Iterable[tuple[str, str, tuple[str, ...]]]) -> None:
        """Take the front end's code cells (id, source, tags) in their order as the document from now on."""
        self.document.update_live(RawCell(identity, source, tags) for identity, source, tags in cells)

    # ------------------------------------------------------------ hooks

    def before_cell(self, info: Any) -> None:
        """Bind what a cell that is about to run needs and is not bound yet, and note what it finds."""
        stack = self._stacks.setdefault(threading.get_ident(), [])
        stack.append(info)
        if len(stack) > 1 or threading.current_thread() is not threading.main_thread():
            return
        if self._request is not None:
            self._finish(None)  # a cell whose end was never told
        self._request = self._begin(info.raw_cell, getattr(info, "cell_id", None), info)

    def after_execute(self) -> None:
        """End a request; silent ones get no other hook.

        Widgets' messages end with this event, too, in threads of their own and while an awaiting cell runs.
        """
        request = self._request
        if self._ending_turn:
            return
        if request is not None and request.info is None and request.message == self._message():
            self._finish(None)

    def after_cell(self, result: Any) -> None:
        """Keep what a cell has left, whatever happened in it."""
        stack = self._stacks.get(threading.get_ident(), [])
        if not stack or (result is not None and not _belongs(result, stack[-1])):
            return  # an empty cell: it had no beginning
        info = stack.pop()
        if not stack:
            self._stacks.pop(threading.get_ident(), None)
        if self._request is not None and self._request.info is info:
            self._finish(result)
            self._prepare()
        HOOK.note_modules()

    def _prepare(self) -> None:
        """Have workers made ready behind the first cell after which the notebook is known to have steps.

        That is the one that loads nbflow, where the notebook was saved or a page tells of it. A terminal's steps run
        here: it has them when it asks.
        """
        if not self._prepared and getattr(self.ip, "kernel", None) is not None:
            with suppress(NbflowError):  # said by whatever needs the notebook
                self._prepared = self.lane.prepare()

    def _begin(self, source: str, cell_id: str | None, info: Any) -> Request:
        request = Request(source=source, cell=None, info=info, message=self._message())
        try:
            self._get_ready(request, cell_id)
        except Exception as error:  # whatever it is: the cell runs all the same, and a step says it
            request.problem = unforeseen(error, "nbflow is not ready for this cell")
        return request

    def _get_ready(self, request: Request, cell_id: str | None) -> None:
        self.known.settle()
        if self._run is not None and self._run.settle():
            self.known.absorb(self._run)  # it went on in the background
        metadata = self._metadata()
        self.document.forget(metadata.get("deletedCells") or ())
        tags = tuple(map(str, metadata.get("tags") or ()))
        source = request.source
        request.cell = self.document.note(source, cell_id, tags)
        cell = self._cell(request.cell)
        if cell is None or cell.kind in ("plain", "setup", "control", "empty"):
            try:
                self.plain.before(source, cell)
            except NbflowError as error:  # the cell is none of ours: it runs all the same
                say(error)
        asked = (self._parent().get("content") or {}).get("user_expressions") or {}
        if asked and self.known.waiting:
            self.known.waiting.bind(name for text in asked.values() for name in analyse(str(text)).reads)
        request.names = dict(self.ip.user_ns)

    def _parent(self) -> Mapping[str, Any]:
        """Return the page's request that is being answered in this thread."""
        kernel = getattr(self.ip, "kernel", None)
        return (kernel.get_parent() if kernel is not None else None) or {}

    def _metadata(self) -> Mapping[str, Any]:
        return self._parent().get("metadata") or {}

    def _message(self) -> str | None:
        return (self._parent().get("header") or {}).get("msg_id")

    def _cell(self, identity: str | None) -> Cell | None:
        if identity is None:
            return None
        return next((cell for cell in self.document.notebook().cells if cell.id == identity), None)

    # ------------------------------------------------------------ a step's first line

    def tagged(self) -> tuple[str, str] | None:
        """Return the header that the running cell's tags stand for, its kind and what it says; None where none does."""
        request = self._request
        if request is None or request.decision is not None or len(self._stacks.get(threading.get_ident(), [])) != 1:
            return None
        cell = self._cell(request.cell)
        if cell is None or split_header(cell.source)[0] is not None:
            return None
        if cell.kind in ("step", "params"):
            return cell.kind, cell.name or ""
        return ("step", "") if cell.kind == "control" and self._errors(cell) else None

    def decide(self, kind: str, header: str, tree: ast.Module) -> bool:
        """Decide before anything of a cell has run whether its body runs here; never raise.

        What is to be done, errors included, waits for `enter`.
        """
        try:
            decision = self._decide(kind, header, tree)
        except Exception as error:  # raised here, in IPython's transformer, it would take the transformer away
            decision = CellDecision(error=error)
        request = self._request
        if request is not None and request.decision is None:
            request.decision = decision
        else:
            self._refused = decision
        return decision.in_place

    def _decide(self, kind: str, header: str, tree: ast.Module) -> CellDecision:
        if self._request is None:
            self._request = self._begin(self._source(kind, header), self._metadata().get("cellId"), None)
        request = self._request
        if request.decision is not None or len(self._stacks.get(threading.get_ident(), [])) > 1:
            raise PlanError(f"`%%{kind}` inside another cell's code cannot run", fix="run it as a cell of its own")
        if threading.current_thread() is not threading.main_thread():
            raise PlanError("a step cannot run in a subshell", fix="run it when the other cell has ended")
        if request.problem is not None:
            raise request.problem
        cell = self._cell(request.cell)
        if kind == MISPLACED:
            raise _refused(header, cell)
        if cell is not None and kind != "setup":
            self._tell_findings(cell)
        if kind == "step":
            parse_header(header, cell=request.cell)
        if kind == "setup" or cell is None:
            return CellDecision(in_place=True)
        flow = self.known.flow()
        step = next((step for step in flow.steps if step.cell == cell.id), None)
        if step is None:
            return CellDecision(in_place=True)
        if step.kind == "params":
            _override(tree, step, flow)
        request.tree = tree
        return self.lane.decide(step)

    def _source(self, kind: str, header: str) -> str:
        """Return a silent request's source: no hook tells it."""
        return str((self._parent().get("content") or {}).get("code") or f"%%{kind} {header}")

    def _errors(self, cell: Cell) -> list[Finding]:
        return [f for f in self.known.flow().findings if f.cell == cell.id and f.level == "error"]

    def _tell_findings(self, cell: Cell) -> None:
        """Raise what is an error in this cell, and show its warnings once."""
        mine = [finding for finding in self.known.flow().findings if finding.cell == cell.id]
        errors = self._errors(cell)
        if errors:
            first = errors[0]
            raise PlanError(first.message, step=first.step, cell=_place(cell), line=first.line, fix=first.fix)
        for finding in mine:
            mark = (cell.id, finding.code, finding.message)
            if finding.level == "warning" and mark not in self._shown:
                self._shown.add(mark)
                self.say(finding)

    def say(self, finding: Finding) -> None:
        """Show a finding under the cell."""
        line = f", line {finding.line}" if finding.line else ""
        print(f"nbflow: {finding.message} ({finding.code}{line})", file=sys.stderr)

    def enter(self, kind: str, header: str) -> None:
        """Do what was decided, or raise what was wrong: this call stands in a header line's place."""
        __tracebackhide__ = True
        del kind, header  # the decision was made when they were seen first
        request = self._request
        decision = self._refused or (request.decision if request is not None else None)
        self._refused = None
        if decision is None or request is None:
            raise PlanError(
                "a step was entered without being planned", fix="run `%reload_ext nbflow`, then the cell again"
            )
        if decision.error is not None:
            raise decision.error
        file = sys._getframe(1).f_code.co_filename  # noqa: SLF001  # the cell's own frame
        _restore_line(file, request.source)
        if decision.step is None:
            return
        if decision.task is None:
            self.lane.elsewhere(decision.step)
        else:
            self._go_on(request, decision.step, decision, file)

    def _go_on(self, request: Request, step: Step, decision: CellDecision, file: str) -> None:
        __tracebackhide__ = True
        if decision.reuse:
            self.lane.reuse(step, decision)
        if decision.skipped:
            self.lane.skip(step, decision)
        elif decision.in_place:
            self._enter_here(request, step, decision, file)

    @property
    def in_turn(self) -> bool:
        """Whether the statements of the running cell are to be asked, once they have run, whether they run again."""
        return self._request is not None and self._request.task is not None and self._request.task.has_turns

    def turn(self) -> None:
        """End a turn after a step's statements, and begin another one unless it was the last.

        What the user's own `--until` raises makes this turn a failure: the cell ends with it, as with any of its lines.
        """
        __tracebackhide__ = True
        request = self._request
        if request is None or request.task is None:
            return
        task = request.task
        self._show_figures()
        task.ask()
        self._end_turn(request, task)
        following = self.lane.follow(task)
        if following is not None and following.step is not None:
            self._go_on(request, following.step, following, task.spec.code_name)

    def _show_figures(self) -> None:
        """Show a turn's figures with it: libraries show them where IPython says that a cell has been executed."""
        self._ending_turn = True
        try:
            self.ip.events.trigger("post_execute")
        finally:
            self._ending_turn = False

    def _end_turn(self, request: Request, task: KernelTask) -> None:
        __tracebackhide__ = True
        try:
            problem = self.lane.finish(task, succeeded=True, error=None)
        except BaseException as error:  # of ours, of the store, of the user's objects; or an interrupt
            problem = self.lane.give_up(task, error)
            request.task = None
            if problem is None:
                raise
            raise problem from None
        request.task = None
        if problem is not None:
            raise problem

    def _enter_here(self, request: Request, step: Step, decision: CellDecision, file: str) -> None:
        namespace = self.ip.user_ns
        waiting = waiting_elsewhere(namespace)
        reason = running_elsewhere(namespace) or (waiting if waiting and _awaits(request.tree) else "")
        if reason:
            self.say(_shared(step, reason))
        request.task = self.lane.start(step, decision, file)
        __tracebackhide__ = True
        self.lane.enter(request.task, isolated=not reason)

    _refused: CellDecision | None = None

    # ------------------------------------------------------------ after a cell

    def _finish(self, result: Any) -> None:
        """End the outermost cell of the main thread. What goes wrong from here on is told in it, never raised."""
        request, self._request = self._request, None
        if request is None:
            return
        failed = _error_of(result) if result is not None else None
        succeeded = failed is None if result is not None else bool(self.ip.last_execution_succeeded)
        if request.cell is not None:
            self.document.ended(request.cell, succeeded=succeeded)
        try:
            problem = self._keep(request, failed, succeeded=succeeded)
        except BaseException as error:  # of ours, of the store, of the user's objects while they are looked at
            problem = self._give_up(request, error)
        self.known.let_go()
        if problem is not None:
            self._fail(result, problem)

    def _keep(self, request: Request, failed: BaseException | None, *, succeeded: bool) -> NbflowError | None:
        """Keep what a cell left; return what makes it a failure after all."""
        if request.task is not None:
            return self.lane.finish(request.task, succeeded=succeeded, error=failed)
        if request.problem is not None and request.decision is None:
            raise request.problem
        if request.decision is None or request.decision.step is None:
            cell = self._cell(request.cell)
            meant = cell is not None and cell.options.catch is not None and isinstance(failed, Exception)
            self.plain.after(cell, request.names, succeeded=succeeded or meant)
        return None

    def _give_up(self, request: Request, error: BaseException) -> NbflowError | None:
        """Give up after an error of ours behind a cell: a step has failed, any other cell has run as it would have."""
        if request.task is not None:
            return self.lane.give_up(request.task, error)
        self.plain.give_up()
        say(unforeseen(error, "what this cell left is not known to nbflow"))
        return None

    def _fail(self, result: Any, error: NbflowError) -> None:
        """Make the reply of a cell whose results cannot be used an error, so that Run All stops."""
        if result is not None and result.error_in_exec is None:
            result.error_in_exec = error
        self.ip.last_execution_succeeded = False
        self.ip.showtraceback((type(error), error, None))

    # ------------------------------------------------------------ what others ask

    def flow(self, *, all_cells: bool = False) -> Flow:
        """Return the flow of the notebook as it is now."""
        self.document.refresh()
        return self.known.whole_flow(all_cells=True) if all_cells else self.known.flow()

    def run_flow(self, options: RunOptions, *, background: bool = False) -> Run | None:
        """Run the flow and return its Run; None for one that goes on in the background.

        Raises RunFailed when it did not succeed, and whatever `launch.begin` raises before anything ran.
        """
        run = self._start_run(options)
        if background:
            print(f"{run.name} runs in the background: `%flow status` shows it")
            run.leave(self._screen_behind(run))
            return None
        cells = self._step_cells(run, self._client())
        run.wait(RunScreen(self.ip, run.name) if cells is None else CellsScreen(RunTable(self.ip), cells))
        return self._end(run)

    def run_beside(self, options: RunOptions, client: str) -> None:
        """Start a run that no cell has asked for, but a client's page, which may show under cells what steps show."""
        run = self._start_run(options)
        cells = self._step_cells(run, client)
        run.leave(CellsScreen(None, cells) if cells is not None else None)

    def _client(self) -> str:
        """Return the client whose request is being answered."""
        return str((self._parent().get("header") or {}).get("session", ""))

    def _step_cells(self, run: FlowRun, client: str) -> StepCells | None:
        """Return what puts the outputs of a run under its cells, None where the client's page cannot."""
        if not self.cell_pages.has(client) or run.runner is None:
            return None
        return StepCells(self.cell_pages, client, run.name, run.runner.flow.steps)

    def _screen_behind(self, run: FlowRun) -> Screen | None:
        """Return the screen of a run that goes on after the cell that runs now; None without a page."""
        if getattr(self.ip, "kernel", None) is None:
            return None
        cells = self._step_cells(run, self._client())
        if cells is None:
            return BackgroundScreen(self.ip, run.name)
        run_table = RunTable(self.ip)
        run_table.begin(run.name)
        return CellsScreen(run_table, cells)

    def _start_run(self, options: RunOptions) -> FlowRun:
        """Start a run and return it; raise whatever `launch.begin` raises before anything ran."""
        from nbflow.runs.launch import begin

        self._refuse_second()
        self.document.refresh()
        self.known.flush()
        executors = self.known.executors(options.on)
        flow = self.known.whole_flow(all_cells=options.all_cells)
        run = FlowRun(self.ip, self.audience)
        runner = begin(flow, self._in_store(options), executors, watch=run.watch)
        self._run = run
        run.start(runner)
        return run

    def _in_store(self, options: RunOptions) -> RunOptions:
        """Return options with the datastore that this kernel uses."""
        return msgspec.structs.replace(options, store=self.known.store_option)

    def _refuse_second(self) -> None:
        if self._run is not None and not self._run.settle():
            raise PlanError("a run is under way", fix="wait for it (`%flow status`), or end it with `%flow cancel`")

    def _end(self, run: FlowRun) -> Run:
        from nbflow.runs.client import Run

        self.known.absorb(run)
        run.show_cards()
        run.finish()
        return Run(run.name, store=self.known.store().url)

    @property
    def in_cell(self) -> bool:
        """Whether a cell runs now."""
        return self._request is not None

    @property
    def is_running(self) -> bool:
        """Whether a run goes on in the background."""
        return self._run is not None and not self._run.over

    def cancel(self) -> bool:
        """End the run that goes on in the background; whether there was one."""
        if self._run is None or self._run.over or self._run.runner is None:
            return False
        self._run.runner.cancel()
        return True

    def follow(self, past: Run) -> None:
        """Draw a run that goes on elsewhere until it has ended or an interrupt says that it is enough."""
        screen = RunScreen(self.ip, f"{past.flow}/{past.id}")

        def watch(snapshot: Snapshot, event: RunEvent | TaskOutput | None) -> None:
            if isinstance(event, TaskOutput):
                screen.show(event.task, event.output)
            elif event is None:
                screen.update(snapshot, table.RunHints(), last=snapshot.status != "running")

        try:
            past.follow(watch)
        except KeyboardInterrupt:
            print(f"the run goes on; `%flow cancel {past.flow}/{past.id}` ends it")

    def plan(self, options: RunOptions) -> Plan:
        """Return what `run_flow` with these options would do."""
        from nbflow.runs.launch import plan_flow

        self.known.flush()
        flow, executors = self.flow(all_cells=options.all_cells), self.known.executors(options.on)
        return plan_flow(flow, self._in_store(options), executors)

    def glance(self, flow: Flow) -> Plan:
        """Return what a run of a flow would do by what is in the store, without asking or executing anything.

        It may be called from any thread. PlanError where a parameter would have to be computed.
        """
        from nbflow.runs.launch import Unasked, plan_flow

        unasked = Unasked("local", self.known.kernel.process.environment)
        return plan_flow(flow, self._in_store(RunOptions()), unasked)

    def why(self, step: str, options: RunOptions, *, cost: bool = False) -> dict[str, Any]:
        """Return whether a step would run, and what changed, as `launch.why` does."""
        from nbflow.runs.launch import why_flow

        self.known.flush()
        flow, executors = self.flow(all_cells=options.all_cells), self.known.executors(options.on)
        return why_flow(flow, step, self._in_store(options), executors, cost=cost)

    def status(self) -> list[str]:
        """Return how the run is, where the document comes from, and which names wait to be read."""
        lines = []
        if self._run is not None and self._run.snapshot is not None:
            lines.append(table.text(self._run.snapshot))
        lines += self.settings()
        lines += [
            f"{finding.message} (cell {finding.cell})"
            for finding in self.flow().findings
            if finding.code == "source-differs"
        ]
        if self.known.waiting:
            lines.append(f"loaded when a cell reads them: {', '.join(self.known.waiting.names())}")
        steps = {name: entry.step for name, entry in self.known.ledger.names().items() if entry.step}
        lines += [f"{name}: of {step}" for name, step in sorted(steps.items())]
        return lines

    def settings(self) -> list[str]:
        """Return the document and the datastore in use, and the size from which on that is reported."""
        path = f" ({self.document.path})" if self.document.path is not None else ""
        problem = f"; {self.document.problem}" if self.document.problem else ""
        lines = [f"document order: {ORIGINS[self.document.origin]}{path}{problem}"]
        folder = self.flow().notebook.folder
        size = settings.read_settings(folder).get("size", settings.MOST)
        return [*lines, f"datastore: {location.store_url(self.known.store_option, folder)}, reported beyond {size}"]

    def use_notebook(self, path: Path) -> None:
        """Make this kernel belong to another notebook from now on."""
        read_notebook(path)  # says what is wrong with it
        self.document.follow(path.absolute())

    def ignore(self, word: str) -> Cell:
        """Keep that no run may take a plain cell; return the cell."""
        cell = settings.ignore(self.document.notebook(), word)
        self.known.understand_anew()
        return cell

    def use_store(self, url: str) -> None:
        """Use another datastore from now on."""
        self.known.use_store(url)


def _belongs(result: Any, info: Any) -> bool:
    """Return whether a result is that of the cell on top: IPython makes a new info for a cell that was broken off."""
    return result.info is info or str(result.info.raw_cell).rstrip("\n") == str(info.raw_cell).rstrip("\n")


def _error_of(result: Any) -> BaseException | None:
    error: BaseException | None = (
        result.error_before_exec if result.error_before_exec is not None else result.error_in_exec
    )
    return error


def _awaits(tree: ast.Module | None) -> bool:
    queue: list[ast.AST] = [*tree.body] if tree is not None else []
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            queue.extend(ast.iter_child_nodes(node))
    return False


def _override(tree: ast.Module, step: Step, flow: Flow) -> None:
    """Let a params cell use `File` without an import, and what the environment says instead of a default."""
    values = gather_overrides(flow.parameters, {}, {}, os.environ)
    tree.body[1:] = ast.parse(override_source(step.source, values)).body


def _place(cell: Cell) -> str:
    return f"cell {cell.position}"


def _shared(step: Step, reason: str) -> Finding:
    return Finding(
        code="left-running", step=step.name, cell=step.cell,
        message=f"{reason}: the names of other cells stay visible in {step.name}",
    )  # fmt: skip


def _refused(source: str, cell: Cell | None) -> OptionError:
    """Return the error for a header that stands where none may be, before anything of its cell has run."""
    misplaced = misplaced_header(source)
    assert misplaced is not None  # noqa: S101  # the transformer has found it
    return OptionError(
        misplaced.why, cell=_place(cell) if cell is not None else None, line=misplaced.number, fix=misplaced.fix
    )


def _restore_line(file: str, source: str) -> None:
    """Let tracebacks and `inspect` show the user's lines up to the header, it as a comment, instead of our call."""
    entry = linecache.cache.get(file)
    if entry is None or len(entry) != 4 or not entry[2]:
        return
    lines = list(entry[2])
    at = next((at for at, line in enumerate(lines) if line.startswith("get_ipython().nbflow_enter(")), None)
    header = header_of(own := source.split("\n"))
    if at is None or header is None:
        return
    shown = [*own[: header.at], header.line if header.line.startswith("#") else f"#{header.line}"]
    lines[at : at + len(shown)] = [f"{line}\n" for line in shown]
    linecache.cache[file] = (sum(map(len, lines)), None, lines, entry[3])
