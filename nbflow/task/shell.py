"""Run one cell in an IPython shell of a worker: outputs are emitted in nbformat, the error is returned."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import importlib
import importlib.util
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from IPython.core import page
from IPython.core.compilerop import CachingCompiler
from IPython.core.display_trap import DisplayTrap
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.inputtransformer2 import leading_empty_lines, leading_indent
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any as AnyTrait
from traitlets.config import Config

from nbflow.jsonable import jsonable
from nbflow.tracebacks import text_of, without_ours

Emit = Callable[[dict[str, Any]], None]

NO_INPUT = "input() has nobody to ask in a step's process; declare the value in %%params or read it from a file"
INLINE = "module://matplotlib_inline.backend_inline"
COLOURS = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
VARIABLES = frozenset({*COLOURS, "MPLBACKEND"})
"""Environment variables that a shell sets for commands and libraries."""

LATE_IMPORTS = (
    "IPython.core.logger",
    "bdb",
    "asyncio",
    "ctypes",
    "stack_data",
    "executing",
    "asttokens",
    "pure_eval",
    "pexpect",
)
"""What IPython imports at the first error, await and `!`: 100 ms each when it happens in a task."""


class CellResult(msgspec.Struct, frozen=True):
    """How a cell ended: `error` is None, or what it raised (SystemExit and KeyboardInterrupt included)."""

    error: BaseException | None = None


class Compiler(CachingCompiler):
    """IPython's compiler, which gives the task's cell the name that its document knows it by."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[str, str] = {}  # source text -> file name
        self.cells: dict[str, str] = {}  # file name -> what a traceback calls it

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """Return the file name of a cell's code."""
        name = self.names.get(raw_code)
        return name if name is not None else str(super().get_code_name(raw_code, transformed_code, number))

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        """Return the label and name that a code's file has in tracebacks."""
        if name in self.cells:
            label, _, rest = self.cells[name].partition(" ")
            return (label, rest) if rest else ("Cell", label)
        default: tuple[str, str] | None = super().format_code_name(name)
        return default


class Publisher(DisplayPublisher):  # type: ignore[misc,unused-ignore]
    """`display` and `clear_output` as nbformat outputs."""

    emit = AnyTrait()

    def publish(  # type: ignore[override,unused-ignore]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *_: Any,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **__: Any,
    ) -> None:
        """Emit a MIME bundle after what was printed before it."""
        _flush()
        metadata = metadata or {}
        self._validate_data(data, metadata)  # type: ignore[no-untyped-call]
        kind = "update_display_data" if update else "display_data"
        output = {"output_type": kind, "data": shown(data), "metadata": jsonable(metadata)}
        if transient:
            output["transient"] = jsonable(transient)
        self.emit(output)

    def clear_output(self, wait: bool = False) -> None:
        """Forget what the cell has shown, at once or when something new is shown."""
        _flush()
        self.emit({"output_type": "clear_output", "wait": wait})


class ResultHook(DisplayHook):  # type: ignore[misc,unused-ignore]
    """A cell's last expression as an `execute_result`."""

    emit = AnyTrait()

    def start_displayhook(self) -> None:
        """Begin a result."""
        self.output: dict[str, Any] = {"output_type": "execute_result"}

    def write_output_prompt(self) -> None:
        """Write the number of the result."""
        self.output["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Take the value's MIME bundle and metadata."""
        self.output["data"] = shown(format_dict)
        self.output["metadata"] = jsonable(md_dict or {})

    def finish_displayhook(self) -> None:
        """Emit the result, unless there is nothing to show."""
        _flush()
        if self.output.get("data"):
            self.emit(self.output)


class KernelOfTask(msgspec.Struct, frozen=True):
    """What code finds that asks the shell for its kernel: that there is one."""

    shell: Any
    implementation: str = "ipython"


class Shell(InteractiveShell):  # type: ignore[misc,unused-ignore]
    """An IPython without history file, terminal or event loop, whose outputs go to `emit`.

    Code that asks whether it is in a notebook looks at the shell's class, its module and its `kernel`: it finds what it
    finds in Jupyter's own kernel.
    """

    kernel = AnyTrait()

    def __init__(self, **options: Any) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        config.HistoryManager.hist_file = ":memory:"
        super().__init__(config=config, **options)  # type: ignore[no-untyped-call]
        # IPython's own end-of-process hook empties the namespace under threads that still run
        atexit.unregister(self.atexit_operations)
        cleanup = self.input_transformer_manager.cleanup_transforms
        cleanup[cleanup.index(leading_empty_lines)] = keep_empty_lines
        self.kernel = KernelOfTask(self)

    in_loop = False
    """Whether cells run within a running event loop, as all of them do in a kernel."""

    def should_run_async(self, raw_cell: str, **options: Any) -> bool:
        """Return whether a cell runs in the event loop: where it awaits, and where its code may ask for one."""
        if super().should_run_async(raw_cell, **options):
            return True
        asyncio = sys.modules.get("asyncio")
        if not self.in_loop or asyncio is None:
            return self.in_loop
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False  # a cell that a cell runs

    emit: Emit = staticmethod(lambda _: None)

    def use(self, emit: Emit) -> None:
        """Send outputs to `emit` from now on."""
        self.emit = emit
        for part in (self.display_pub, self.displayhook):
            part.set_trait("emit", emit)

    @contextlib.contextmanager
    def after_statements(self, call: Callable[[], None]) -> Iterator[None]:
        """Call `call` after each top-level statement of a cell within the block."""
        before, self._after = self._after, call
        try:
            yield
        finally:
            self._after = before

    _after: Callable[[], None] | None = None

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> bool:
        """Run one statement's code; return whether it raised."""
        raised = bool(await super().run_code(code_obj, result, async_=async_))  # type: ignore[no-untyped-call]
        if self._after is not None:
            self._after()
        return raised

    def init_display_pub(self) -> None:
        """Send displays to `emit`."""
        self.display_pub = Publisher(parent=self, shell=self, emit=self.emit)  # type: ignore[no-untyped-call]

    def init_displayhook(self) -> None:
        """Send results to `emit`."""
        self.displayhook = ResultHook(  # type: ignore[no-untyped-call]
            parent=self, shell=self, cache_size=self.cache_size, emit=self.emit
        )
        self.display_trap = DisplayTrap(hook=self.displayhook)  # type: ignore[no-untyped-call]

    def init_sys_modules(self) -> None:
        """Do nothing: each task's module goes into `sys.modules`, the shell's own does not."""

    def init_environment(self) -> None:
        """Set colours and pagers as a Jupyter kernel has them, so that commands print the same."""
        os.environ.update(COLOURS)
        os.environ.setdefault("MPLBACKEND", INLINE)

    def init_virtualenv(self) -> None:
        """Do nothing: the process was started by the right interpreter already."""

    def init_hooks(self) -> None:
        """Drop what a front end would show in its pager (`len?`): that is no output."""
        super().init_hooks()  # type: ignore[no-untyped-call]
        self.set_hook("show_in_pager", page.as_hook(lambda *_, **__: None), 99)  # type: ignore[no-untyped-call]

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: no event loop of a user interface runs in a worker."""

    def ask_exit(self) -> None:
        """End the cell, as `exit` and `quit` do."""
        raise SystemExit(0)

    def _tee(self, channel: str) -> Any:
        """Do nothing: IPython 9 would keep a second copy of all output, which the supervisor has already."""
        del channel
        return contextlib.nullcontext()

    def _get_exc_info(self, exc_tuple: Any = None) -> Any:
        kind, value, trace = super()._get_exc_info(exc_tuple)  # type: ignore[no-untyped-call]
        trace = without_ours(trace)
        if value is not None:
            value.__traceback__ = trace
        return kind, value, trace

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        _flush()
        lines = [str(line) for line in ([stb] if isinstance(stb, str) else stb)]
        error = {"ename": etype.__name__, "evalue": text_of(evalue), "traceback": lines}
        self.emit({"output_type": "error", **jsonable(error)})


Shell.__name__ = Shell.__qualname__ = "ZMQInteractiveShell"
Shell.__module__ = "ipykernel.zmqshell"


def keep_empty_lines(lines: list[str]) -> list[str]:
    """Return a cell's lines without common indent; keep empty ones at the top, so that lines keep their numbers.

    Above a `%%magic`, which IPython knows in the first line only, they have to go.
    """
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    if lines and lines[first].startswith("%%"):
        return lines[first:]
    rest: list[str] = leading_indent(lines[first:])  # type: ignore[no-untyped-call]
    return [*("\n" for _ in lines[:first]), *rest]


# From here on a shell is Any: most of IPython's own methods have no types.


def make_shell() -> Shell:
    """Return the process's one shell, which `display` and `get_ipython` find. About 0.2 s with IPython's import."""
    shell: Shell = Shell.instance()
    if not isinstance(shell.compile, Compiler):
        shell.compile = Compiler()
    builtins.input = _no_input
    builtins.get_ipython = shell.get_ipython  # type: ignore[attr-defined]  # for libraries that are imported outside of cells, too
    # advice on how to leave an interactive session, which this is not
    warnings.filterwarnings("ignore", message="To exit: use", category=UserWarning)
    return shell


def warming(shell: Any) -> Iterator[None]:
    """Pay ahead, in a process that tasks are forked from, for the first cell, error, await and `!` of a task.

    In pieces, so that whoever does this can look at something else in between.
    """
    for name in LATE_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
        yield
    rehearse(shell)
    yield
    try:
        raise ValueError
    except ValueError as error:
        shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)


ASKS_LOOP = re.compile(r"asyncio|anyio|create_task|ensure_future|get_running_loop|get_event_loop")
"""What stands in code that may ask for the running event loop."""


def suit(shell: Any, sources: Iterable[str]) -> None:
    """Make a process look to some code as a kernel does, as far as the code may look: that costs time."""
    text = "\n".join(sources)
    shell.in_loop = ASKS_LOOP.search(text) is not None
    if "ipykernel" in text:  # `"ipykernel" in sys.modules`
        with contextlib.suppress(ImportError):
            importlib.import_module("ipykernel")


def kernel_words() -> list[str]:
    """Return what `sys.argv` holds in a kernel."""
    spec = importlib.util.find_spec("ipykernel_launcher")
    program = spec.origin if spec is not None and spec.origin else "ipykernel_launcher.py"
    return [program, "-f", "kernel.json"]


def rehearse(shell: Any) -> None:
    """Run a cell of no effect, so that what the first cell of a process costs is paid before a task comes."""
    enter(shell, types.ModuleType("__main__"))
    shell.run_cell("1", store_history=False, silent=True)


def enter(shell: Any, module: types.ModuleType) -> None:
    """Make the shell's cells run in this module from now on, as `__main__`."""
    shell.user_module, shell.user_ns = shell.prepare_user_module(module)
    shell.ns_table.update(user_global=module.__dict__, user_local=module.__dict__)
    shell.user_ns_hidden = {}
    shell.init_user_ns()
    shell.execution_count = 1
    sys.modules["__main__"] = module
    _show_figures()


def _show_figures() -> None:
    """Tell matplotlib of our backend where it was imported before our variable stood in the environment."""
    matplotlib = sys.modules.get("matplotlib")
    settings = getattr(matplotlib, "rcParams", None)
    if settings is None or os.environ.get("MPLBACKEND") != INLINE:
        return
    if not isinstance(dict.__getitem__(settings, "backend"), str):  # not chosen yet: asking rcParams would choose it
        settings["backend"] = INLINE


def run_cell(shell: Any, source: str, file: str, title: str = "") -> CellResult:
    """Run one cell's source as Jupyter would: emit its outputs, return the error it ended with.

    `file` is the file name of its code, `title` ("step train") what tracebacks call it.
    """
    shell.compile.names[source] = file
    shell.compile.cells[file] = title or file
    result = shell.run_cell(source, store_history=True)
    _flush()
    return CellResult(result.error_before_exec or result.error_in_exec)


def shown(data: dict[str, Any]) -> Any:
    """Return what a page can show of a MIME bundle: a widget's model ends with its process, its text stays."""
    return jsonable({mime: value for mime, value in data.items() if mime != WIDGET})


def _flush() -> None:
    """Flush the streams, which may be whatever the cell has put there."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _no_input(_: object = "", /) -> str:
    raise StdinNotImplementedError(NO_INPUT)
