"""`%load_ext nbflow`: the magics, transformers and hooks go into an IPython, and out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbflow.errors import OptionError

if TYPE_CHECKING:
    from nbflow.kernel.session import Session
from nbflow.kernel.magics import ENTER, TURN, decides, hoist, transform, turns

_KEY = "nbflow_extension"  # the attribute of the shell that holds what is loaded

MISPLACED = ("step", "%step", "params", "%params", "%config", "setup", "%setup")
"""Line magics that say where a header belongs: IPython looks up `%%step` below the first line as the line magic
`%step`. `%config` is its own."""


HEADERS = ("step", "params", "setup")
"""Header lines about which `%%step?` asks; `%%config?` is IPython's."""


def load(ip: Any) -> None:
    """Put the magics, transformers and hooks into an IPython; a second time changes nothing."""
    if getattr(ip, _KEY, None) is not None:
        return
    from nbflow.kernel.completion import Completion
    from nbflow.kernel.session import Session
    from nbflow.page.comm import attach

    session = Session(ip)
    ip.input_transformer_manager.cleanup_transforms.insert(0, hoist)
    ip.input_transformer_manager.line_transforms.insert(0, transform)
    stand_ins = [decides(ip, session), turns(ip, session)]
    for stand_in in stand_ins:
        stand_in.attach()
    setattr(ip, ENTER, session.enter)
    setattr(ip, TURN, session.turn)
    for event, hook in session.hooks().items():
        ip.events.register(event, hook)
    ip.register_magic_function(session_magic(session), "line", "flow")
    for name in MISPLACED:
        ip.register_magic_function(misplaced(name.lstrip("%")), "line", name)
    for kind in HEADERS:
        ip.register_magic_function(header_help(kind), "cell", kind)
    completion = Completion(session)
    completion.attach()
    session.attach()
    setattr(ip, _KEY, (session, stand_ins, completion, attach(session)))


def unload(ip: Any) -> None:
    """Take out what `load` put in; without it nothing happens."""
    loaded = getattr(ip, _KEY, None)
    if loaded is None:
        return
    session, stand_ins, completion, leave_pages = loaded
    leave_pages()
    completion.detach()
    for stand_in in stand_ins:
        stand_in.detach()
    ip.input_transformer_manager.cleanup_transforms.remove(hoist)
    ip.input_transformer_manager.line_transforms.remove(transform)
    for event, hook in session.hooks().items():
        ip.events.unregister(event, hook)
    for name in ("flow", *MISPLACED):
        ip.magics_manager.magics["line"].pop(name, None)
    for kind in HEADERS:
        ip.magics_manager.magics["cell"].pop(kind, None)
    session.close()
    delattr(ip, ENTER)
    delattr(ip, TURN)
    delattr(ip, _KEY)


def misplaced(word: str) -> Any:
    """Return the line magic that says where a `%%step`, `%%params`, `%%config` or `%%setup` line belongs.

    IPython comes to it only where no transformer of ours has seen the cell: in the one that loads nbflow.
    """

    def magic(line: str) -> None:
        header = f"%%{word} {line}".rstrip()
        raise OptionError(
            f"`{header}` stands below code: only empty lines and comments may be above it",
            fix=f"put `{header}` and what belongs to it into a cell of its own",
        )

    magic.__doc__ = f"`%%{word}` belongs at the top of a cell."
    return magic


def header_help(kind: str) -> Any:
    """Return the cell magic whose help says what a header line makes of its cell; no cell comes to it."""

    class Help:
        """What stands in the help: read when it is asked for."""

        @property
        def __doc__(self) -> str:  # type: ignore[override]
            from nbflow.kernel.reference import header_text

            return header_text(kind)

        def __call__(self, line: str, cell: str) -> None:
            del cell
            misplaced(kind)(line)

    return Help()


def session_magic(session: Session) -> Any:
    """Return the function behind `%flow`."""

    def flow(line: str) -> Any:
        """Perform `%flow run`, `%flow check`, `%flow why STEP`, …; `%flow` alone lists the commands."""
        from nbflow.kernel.commands import perform_line

        return perform_line(session, line)

    return flow
