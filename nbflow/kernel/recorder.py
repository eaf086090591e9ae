"""What a cell shows in the live kernel: recorded as it is sent, and shown again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nbflow.jsonable import jsonable
from nbflow.kernel.stand_in import StandIn
from nbflow.task.outputs import Outputs
from nbflow.tracebacks import text_of

_KINDS = frozenset({"stream", "display_data", "update_display_data", "execute_result", "clear_output", "error"})


class Recorder:
    """Everything that the kernel sends for one request at a time, in the order sent, from every thread.

    It stands at `Session.send`, the one layer that sees streams (sent by the IOPub thread) and displays alike.
    In an IPython without a kernel it records nothing.
    """

    def __init__(self, ip: Any) -> None:
        self._kernel = getattr(ip, "kernel", None)
        self._lock = threading.Lock()
        self._parent: str | None = None
        self._outputs: list[dict[str, Any]] = []
        self._stand_in = StandIn(self._kernel.session, "send", self._observed) if self._kernel is not None else None

    def attach(self) -> None:
        """Hear everything that the kernel sends from now on."""
        if self._stand_in is not None:
            self._stand_in.attach()

    def detach(self) -> None:
        """Leave the kernel's session as it was."""
        if self._stand_in is not None:
            self._stand_in.detach()

    def start(self) -> None:
        """Record what is sent for the request that runs now."""
        if self._kernel is not None:
            sys.stdout.flush()  # what was said before belongs to nobody
            sys.stderr.flush()
        with self._lock:
            self._outputs = []
            self._parent = self._request()

    def _request(self) -> str | None:
        if self._kernel is None:
            return None
        header = (self._kernel.get_parent() or {}).get("header") or {}
        return header.get("msg_id")

    def stop(self) -> Outputs:
        """Wait for what is under way and return the nbformat outputs since `start`."""
        outputs = Outputs()
        if self._parent is None:
            return outputs
        sys.stdout.flush()
        sys.stderr.flush()
        with self._lock:
            pieces, self._outputs, self._parent = self._outputs, [], None
        for output in pieces:
            outputs.add(output)
        return outputs

    def _observed(self, send: Any) -> Callable[..., Any]:
        def observe(stream: Any, kind: Any, content: Any = None, parent: Any = None, *args: Any, **options: Any) -> Any:
            sent = send(stream, kind, content, parent, *args, **options)
            if self._parent is not None:
                self._keep(kind, content, parent)
            return sent

        return observe

    def _keep(self, kind: Any, content: Any, parent: Any) -> None:
        if isinstance(kind, dict):  # a whole message
            content, header, kind = kind.get("content"), kind.get("parent_header"), kind["header"]["msg_type"]
        else:
            header = (parent or {}).get("header", parent)
        if kind in _KINDS and isinstance(content, dict) and header and header.get("msg_id") == self._parent:
            output = as_output(kind, content)  # now: a bundle is the user's own and may change
            with self._lock:
                if self._parent is not None:
                    self._outputs.append(output)


def as_output(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as an nbformat output; an update or a clear as an event of a task has it."""
    keys = "name text ename evalue traceback wait execution_count data metadata transient".split()
    parts = {key: content[key] for key in keys if key in content}
    try:
        return {"output_type": kind, **jsonable(parts)}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own objects; the page has been sent them
        note = f"[could not be kept: {type(error).__name__}: {text_of(error)}]"
        return {"output_type": kind, "data": {"text/plain": note}, "metadata": {}}


def show(ip: Any, outputs: Iterable[dict[str, Any]]) -> None:
    """Show recorded nbformat outputs as those of the cell that runs now."""
    for output in outputs:
        kind = output.get("output_type")
        if kind == "stream":
            stream = sys.stderr if output.get("name") == "stderr" else sys.stdout
            print(text_of_output(output["text"]), end="", file=stream)
        elif kind in ("display_data", "execute_result"):
            _publish(ip, kind, output.get("data") or {}, output.get("metadata") or {})
        elif kind == "error":
            print(
                "\n".join(output.get("traceback") or [f"{output.get('ename')}: {output.get('evalue')}"]),
                file=sys.stderr,
            )


def text_of_output(value: Any) -> str:
    """Return an output's text, which nbformat may have as lines."""
    return "".join(value) if isinstance(value, list) else str(value)


def _publish(ip: Any, kind: str, data: dict[str, Any], metadata: dict[str, Any]) -> None:
    kernel = getattr(ip, "kernel", None)
    if kernel is None:
        print(text_of_output(data.get("text/plain", "")))
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if kind == "display_data":
        ip.display_pub.publish(data=data, metadata=metadata)
        return
    content = {"data": data, "metadata": metadata, "execution_count": ip.execution_count}
    hook = ip.displayhook
    kernel.session.send(hook.pub_socket, "execute_result", content, parent=hook.parent_header, ident=hook.topic)
