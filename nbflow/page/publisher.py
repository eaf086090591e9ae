"""One kernel's pages: what they are told, and at which rate. How it gets there is the comms' business."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

from nbflow.errors import NbflowError, UntrustedError
from nbflow.jsonable import readable
from nbflow.kernel.document import ORIGINS
from nbflow.kernel.session import Session
from nbflow.model import SETTLED, Flow, Notebook
from nbflow.page.marks import Planner
from nbflow.page.messages import (
    PROTOCOL,
    AckMessage,
    CellOutputs,
    ChangeMessage,
    KernelMessage,
    OutputsMessage,
    SnapshotMessage,
)
from nbflow.page.snapshot import PageRun, page
from nbflow.store.location import open_store, question, store_url
from nbflow.store.serialize.inspection import answered
from nbflow.store.trust import remember
from nbflow.tracebacks import unforeseen

EVERY = 0.1
"""Seconds between two messages; a page that takes long to make waits ten times as long as that took."""
REPEAT = 2.0
"""Seconds between two whole snapshots while something runs."""
REMEMBERED = 50
"""Errors that are told only once each."""
EMPTY = Flow(name="", notebook=Notebook(name="", folder="", path=None, cells=()), steps=(), definitions=())

Send = Callable[[KernelMessage], None]
Main = Callable[[Callable[[], None]], None]


class Pages:
    """Tells every page of a kernel what changes, from a thread of its own.

    `main` calls a function in the kernel's main thread, when no cell runs: the session belongs to that thread.
    """

    def __init__(self, session: Session, main: Main) -> None:
        self.session = session
        self.audience = session.audience
        self.id = uuid.uuid4().hex[:12]
        self._main = main
        self._seq = 0
        self._receivers: list[Send] = []
        self._last: SnapshotMessage | None = None
        self._last_whole = 0.0
        self._want_whole = False
        self._printed: set[str] = set()
        self._wake = threading.Event()
        self._planner = Planner(self._wake.set)
        self._planned: Any = None  # what the newest plan was made of
        self._watched = False  # whether a page has come
        self._untrusted = ""  # the datastore that pages ask about
        self._examined: Flow | None = None  # when it was found out
        self._closed = threading.Event()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._leave = self.audience.watch(self._wake.set)
        session.cell_pages.deliver(self._show_in_cells)
        self._thread = threading.Thread(target=self._work, name="nbflow-pages", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()
        self._main(self.look)

    def close(self) -> None:
        """Tell nothing any more."""
        self._leave()
        self._planner.close()
        self._closed.set()
        self._wake.set()

    def listen(self, send: Send) -> Callable[[], None]:
        """Call `send` with every message, from any thread; return a function that ends it."""
        self._receivers.append(send)

        def leave() -> None:
            if send in self._receivers:
                self._receivers.remove(send)

        return leave

    def look(self) -> None:
        """Understand the notebook again where it has changed; in the main thread only."""
        if self._untrusted:
            self._wake.set()  # the cell that has just run may have said to trust it
        try:
            self.audience.see_flow(self.session.flow())
        except NbflowError:
            return  # shown where the user asks for it; the pages keep what they have
        except Exception as error:  # in a hook of IPython's, after every cell
            self._say(error)

    # ------------------------------------------------------------ telling

    def snapshot(self) -> SnapshotMessage:
        """Return everything that pages draw from, as it is now."""
        run, hand = self.audience.run, self.audience.by_hand
        message = page(
            self.flow,
            PageRun(snapshot=run) if run is not None else None,
            PageRun(snapshot=hand, by_hand=True) if hand is not None else None,
            order=ORIGINS[self.session.document.origin],
            busy=self.audience.busy,
            planned=self._planner.marks,
        )
        return cast("SnapshotMessage", {**message, **self.stamp()})

    @property
    def flow(self) -> Flow:
        """The notebook as it stands; an empty one before it was looked at."""
        return self.audience.flow or EMPTY

    @property
    def store(self) -> str:
        """The URL of the datastore in use."""
        return store_url(self.session.known.store_option, self.flow.notebook.folder)

    def stamp(self) -> dict[str, Any]:
        """Return what every snapshot says of itself."""
        return {"session": self.id, "seq": self._seq, "now": time.time(), "untrusted": self._untrusted}

    def _work(self) -> None:
        while not self._closed.is_set():
            self._try(self._wait)
            began = time.perf_counter()
            while not self._jobs.empty():
                self._try(self._jobs.get())
            self._try(self._examine)
            self._try(self._plan)
            self._try(self._tell_news)
            self._closed.wait(max(EVERY, 10 * (time.perf_counter() - began)))

    def _wait(self) -> None:
        self._wake.wait(REPEAT if self.audience.busy else None)
        self._wake.clear()

    def _examine(self) -> None:
        """Find out whose the datastore in use is, again for each flow and as long as nobody trusts it."""
        flow = self.audience.flow
        if self._watched and flow is not None and (flow is not self._examined or self._untrusted):
            self._examined, asked = flow, None
            with contextlib.suppress(NbflowError):  # what else is wrong with it is told where it is needed
                asked = self._question()
            self._untrusted = asked.place if asked is not None else ""

    def _question(self) -> UntrustedError | None:
        """Return what its user has to answer before the datastore is used."""
        return question(lambda: open_store(self.store))

    def _plan(self) -> None:
        """Have a plan made where the notebook, or what has been executed here, is not what the last one was made of."""
        flow, run, hand = self.audience.flow, self.audience.run, self.audience.by_hand
        if not self._watched or flow is None or (run is not None and run.status == "running"):
            return
        by_hand = hand.tasks if hand is not None else ()
        settled = tuple((view.task, view.state, view.attempt) for view in by_hand if view.state in SETTLED)
        now = (flow, run.run if run is not None else "", settled)
        before = self._planned
        if before is None or before[0] is not flow or before[1:] != now[1:]:
            self._planned = now
            self._planner.ask(self.session.glance, flow)

    def _tell_news(self) -> None:
        """Send what is new since the last message: a change where that says it, else a snapshot."""
        new, last = self.snapshot(), self._last
        if last is None or self._want_whole or not _only_states_differ(last, new):
            self._tell_whole(new)
            return
        steps = [step for step, before in zip(new["steps"], last["steps"], strict=True) if step != before]
        if steps or new["run"] != last["run"] or new["busy"] != last["busy"]:
            base, self._seq = self._seq, self._seq + 1
            self._last = {**new, "seq": self._seq}
            self._send(ChangeMessage(
                nbflow=PROTOCOL, kind="change", session=self.id, seq=self._seq, base=base, now=new["now"],
                busy=new["busy"], run=new["run"], steps=steps,
                workers={step["name"]: word for step in steps if (word := new["workers"].get(step["name"]))},
            ))  # fmt: skip
        if new["busy"] and time.monotonic() - self._last_whole >= REPEAT:
            self._tell_whole(new)

    def _tell_whole(self, new: SnapshotMessage) -> None:
        self._seq += 1
        self._last, self._last_whole, self._want_whole = {**new, "seq": self._seq}, time.monotonic(), False
        self._send(self._last)

    def _send(self, message: KernelMessage) -> None:
        for send in tuple(self._receivers):
            try:
                send(message)
            except UnicodeError:  # a cell, a name or a value holds half of a character
                self._send_readable(send, message)
            except BaseException as error:  # this page's channel is broken: the others hear all the same
                self._print(error)

    def _send_readable(self, send: Send, message: KernelMessage) -> None:
        try:
            send(readable(message))
        except BaseException as error:  # as above
            self._print(error)

    def _try(self, work: Callable[[], None]) -> None:
        """Do something for pages; whatever it raises, there are others to be told of other things."""
        try:
            work()
        except BaseException as error:  # nobody waits for this thread: the pages show it, and it must not end
            self._say(error)

    def _say(self, error: BaseException) -> None:
        """Tell the pages of an error that is nobody's answer."""
        problem = unforeseen(error, "nbflow could not tell this page what is new")
        if self._print(error):
            self.answer("refused", "", text=problem.message, fix=problem.fix or "")

    def _print(self, error: BaseException) -> bool:
        """Put an error on the terminal of the kernel, each only once; whether it is a new one."""
        told = answered(lambda: "".join(traceback.format_exception(error)), f"{type(error).__name__}\n")
        if told in self._printed:
            return False
        self._printed = {*self._printed, told} if len(self._printed) < REMEMBERED else {told}
        with contextlib.suppress(Exception):  # a terminal that has gone, or cannot write it
            print(told, end="", file=sys.__stderr__, flush=True)
        return True

    # ------------------------------------------------------------ for commands

    def repeat(self) -> None:
        """Tell everything anew, soon: a page has come."""
        self._want_whole = self._watched = True
        self._examined = None
        self._wake.set()

    def trust(self, place: str) -> None:
        """Trust the datastore that a page has asked about; NbflowError where another one is in question by now."""
        asked = self._question()
        if asked is None or asked.place != place:
            raise NbflowError(f"nobody has to say whether {place} is trusted", fix="reload the page")
        remember(asked.place, asked.identity)
        self.understand_anew()
        self.repeat()

    def understand_anew(self) -> None:
        """Read the notebook again, with what the datastore has learnt of it."""
        self._planned = None

        def read() -> None:
            self.session.known.understand_anew()
            self.look()

        self.main(read)

    def main(self, work: Callable[[], None]) -> None:
        """Have something done in the kernel's main thread, when no cell runs."""
        self._main(lambda: self._try(work))

    def guard(self, work: Callable[[], None]) -> None:
        """Do something at once; what it raises is told, and harms nobody else."""
        self._try(work)

    def later(self, work: Callable[[], None]) -> None:
        """Have something done by the thread that tells: what reads the store."""
        self._jobs.put(work)
        self._wake.set()

    def answer(self, kind: str, reply_to: str, **content: Any) -> None:
        """Tell what a command asked for."""
        message = {
            "nbflow": PROTOCOL, "kind": kind, "session": self.id, "seq": self._seq, "reply_to": reply_to, **content
        }  # fmt: skip
        self._send(cast("KernelMessage", message))

    def _show_in_cells(
        self, run: str, client: str, cells: Mapping[str, tuple[bool, list[dict[str, Any]]]], last: bool
    ) -> None:
        """Tell a client's page what steps show; in the order of the calls, from whatever thread."""
        self._send(OutputsMessage(
            nbflow=PROTOCOL, kind="outputs", session=self.id, seq=self._seq, client=client, run=run, last=last,
            cells=[CellOutputs(cell=cell, whole=whole, outputs=outputs) for cell, (whole, outputs) in cells.items()],
        ))  # fmt: skip

    def acknowledge(self, reply_to: str, text: str, fix: str, *, ok: bool) -> AckMessage:
        """Return the message that answers a command."""
        return AckMessage(
            nbflow=PROTOCOL, kind="ack", session=self.id, seq=self._seq, reply_to=readable(reply_to), ok=ok,
            text=readable(text), fix=readable(fix),
        )  # fmt: skip


VARIABLE = frozenset({"steps", "workers", "run", "busy", "seq", "now"})


def _only_states_differ(last: SnapshotMessage, new: SnapshotMessage) -> bool:
    """Return whether a change message can say what is new."""
    same = all(last[name] == new[name] for name in new if name not in VARIABLE)  # type: ignore[literal-required]
    return same and [step["name"] for step in last["steps"]] == [step["name"] for step in new["steps"]]
