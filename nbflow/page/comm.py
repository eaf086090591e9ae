"""The two comms with a page: `nbflow.events`, on which the kernel speaks, and `nbflow.control`, on which pages do.

Two, since ipykernel 7.4 hands a page's message to the thread that last published on the same comm: one channel that
also carried a running cell's progress would keep its own cancel waiting until the cell has ended. On the control comm
the kernel publishes acknowledgements only, from inside the handler, and the routing is put right where it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from nbflow.kernel.session import Session
from nbflow.page import commands
from nbflow.page.messages import CONTROL, EVENTS, KernelMessage
from nbflow.page.publisher import Pages

_KEY = "_nbflow_pages"


class Comms:
    """The comms of one kernel. One events comm serves all its pages: what is published there, each of them hears."""

    def __init__(self, manager: Any, pages: Pages) -> None:
        self._manager = manager
        self._pages = pages
        self._events: Any = None
        self._lock = threading.Lock()
        manager.register_target(CONTROL, self._accept)
        self._leave = pages.listen(self._publish)
        self._open()

    def close(self) -> None:
        """Say that nbflow is gone, and listen no more."""
        self._leave()
        self._manager.unregister_target(CONTROL, self._accept)
        events, self._events = self._events, None
        if events is not None:
            events.close()

    def _open(self) -> None:
        import comm

        with self._lock:
            if self._events is None:
                self._events = comm.create_comm(target_name=EVENTS, data={})
                self._events.on_close(self._lost)

    def _lost(self, _: Any) -> None:
        """Open the channel again for the next page: a front end that does not know the target has closed it for all."""
        self._events = None

    def _publish(self, message: KernelMessage) -> None:
        events = self._events
        if events is not None:
            events.send(message)

    def _accept(self, control: Any, _: Any) -> None:
        """Serve the channel that a page opens."""

        def receive(message: Any) -> None:
            content = message.get("content")
            command = content.get("data") if isinstance(content, dict) else None
            if isinstance(command, dict) and command.get("kind") == "hello":
                self._pages.guard(self._open)
            control.send(commands.receive(self._pages, command))

        take_messages(control, receive)


def take_messages(comm: Any, receive: Callable[[Any], None]) -> None:
    """Give a comm's messages to `receive`, in the thread that the page asks for, and let no cell notice them.

    `comm` fires IPython's `pre_execute` and `post_execute` around each message that it hands to an `on_msg` callback,
    as if a cell ran, and in the thread of the message. Matplotlib shows and closes all figures at `post_execute`: those
    of the cell that is still running in the main thread would be gone before it has drawn them. So `receive` stands
    where the message comes in, in front of all that.

    ipykernel 7.4 sends messages to the thread that last published on the comm instead of the one that the page names:
    for a widget, and for a channel whose first commands came before its page had a thread, the main one, which waits
    for the running cell. Other versions have no such routing.
    """
    comm.handle_msg = receive
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default  # noqa: ARG005, SLF001 - called by place


def attach(session: Session) -> Callable[[], None]:
    """Serve a session's pages from now on; return a function that ends it. Nothing happens without a kernel."""
    ip = session.ip
    manager = getattr(getattr(ip, "kernel", None), "comm_manager", None)
    main = main_thread()
    if manager is None or main is None:
        return lambda: None
    pages = Pages(session, main)
    comms = Comms(manager, pages)
    setattr(ip, _KEY, pages)

    def look(_: Any = None) -> None:
        pages.look()

    ip.events.register("post_run_cell", look)
    pages.start()

    def leave() -> None:
        ip.events.unregister("post_run_cell", look)
        comms.close()
        pages.close()
        with contextlib.suppress(AttributeError):
            delattr(ip, _KEY)

    return leave


def pages_of(ip: Any) -> Pages | None:
    """Return the pages of an IPython's kernel, None where nbflow is not loaded or there is no kernel."""
    loaded = getattr(ip, _KEY, None)
    return loaded if isinstance(loaded, Pages) else None


def main_thread() -> Callable[[Callable[[], None]], None] | None:
    """Return what calls a function in this thread once its cell has ended; None where no event loop runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None

    def call(work: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(work)

    return call
