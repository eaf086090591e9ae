"""A small front end for tests: a real kernel beside a notebook file, cells executed by id as Jupyter sends them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jupyter_client.manager import KernelManager

from tests.support.waiting import eventually

LOAD = "%load_ext nbflow"
OUTPUTS = {"stream", "display_data", "update_display_data", "execute_result", "clear_output", "error"}


@dataclass
class Executed:
    """What one execution sent back: the reply and the outputs in order."""

    reply: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def status(self) -> str:
        return str(self.reply.get("status", "none"))

    @property
    def ename(self) -> str:
        return str(self.reply.get("ename", ""))

    @property
    def evalue(self) -> str:
        return str(self.reply.get("evalue", ""))

    def stream(self, name: str) -> str:
        return "".join(
            m["content"]["text"] for m in self.left if m["msg_type"] == "stream" and m["content"]["name"] == name
        )

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.stream("stderr")

    @property
    def result(self) -> str:
        """The text of the cell's last expression, an empty string when nothing was shown."""
        for message in self.messages:
            if message["msg_type"] == "execute_result":
                return str(message["content"]["data"]["text/plain"])
        return ""

    @property
    def left(self) -> list[dict[str, Any]]:
        """The messages that a page still shows: a clear takes all before it away."""
        cleared = [at for at, message in enumerate(self.messages) if message["msg_type"] == "clear_output"]
        return self.messages[cleared[-1] + 1 if cleared else 0 :]

    @property
    def displayed(self) -> list[dict[str, Any]]:
        kinds = {"display_data", "update_display_data", "execute_result"}
        return [m["content"]["data"] for m in self.messages if m["msg_type"] in kinds]

    @property
    def text(self) -> str:
        """All that a reader of the cell sees, as plain text."""
        parts = []
        for message in self.messages:
            content = message["content"]
            if message["msg_type"] == "stream":
                parts.append(content["text"])
            elif message["msg_type"] == "error":
                parts.append("\n".join(content["traceback"]))
            elif "data" in content:
                parts.append(content["data"].get("text/plain", ""))
        return "\n".join(parts)

    @property
    def traceback(self) -> str:
        """The error as it is shown, without colours."""
        import re

        for message in self.messages:
            if message["msg_type"] == "error":
                return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(message["content"]["traceback"]))
        return ""


class NotebookFile:
    """A notebook on disk whose cells are edited by id, in order."""

    def __init__(self, path: Path, cells: dict[str, str]) -> None:
        self.path = path
        self.cells = dict(cells)
        self.tags: dict[str, list[str]] = {}
        self.save()

    def edit(self, cell_id: str, source: str) -> None:
        self.cells[cell_id] = source
        self.save()

    def insert(self, cell_id: str, source: str, before: str) -> None:
        """A new cell, put above another one."""
        items = list(self.cells.items())
        items.insert([name for name, _ in items].index(before), (cell_id, source))
        self.cells = dict(items)
        self.save()

    def save(self) -> None:
        cells: list[dict[str, Any]] = [
            {
                "cell_type": "code", "id": name, "metadata": {"tags": self.tags[name]} if name in self.tags else {},
                "execution_count": None, "outputs": [], "source": source,
            }
            for name, source in self.cells.items()
        ]  # fmt: skip
        document = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        temporary = self.path.with_suffix(".saving")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self.path)


class Kernel:
    """A kernel whose session belongs to a notebook file; a context manager that ends it."""

    def __init__(
        self,
        notebook: NotebookFile,
        *,
        load: bool = True,
        python: str = sys.executable,
        env: dict[str, str] | None = None,
    ) -> None:
        self.notebook = notebook
        self.load = load
        self.python = python
        self.env = {
            **os.environ,
            "JPY_SESSION_NAME": str(notebook.path),
            "IPYTHONDIR": str(notebook.path.parent / ".ipython"),
            **(env or {}),
        }
        self.start()

    def start(self) -> None:
        self.manager = KernelManager(kernel_name="python3")
        spec = self.manager.kernel_spec
        assert spec is not None
        spec.argv[:] = [self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(cwd=str(self.notebook.path.parent), env=self.env)
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        eventually(self._answers)
        if self.load:
            assert self.execute(LOAD).status == "ok"

    def _answers(self) -> bool:
        """Ask the kernel who it is; whether an answer came on both channels. What comes late belongs to no request."""
        assert self.manager.is_alive(), "the kernel ended before it answered"
        self.client.kernel_info()
        with contextlib.suppress(queue.Empty):
            self.client.get_shell_msg(timeout=1)
            self.client.get_iopub_msg(timeout=0.2)
            return True
        return False

    def restart(self) -> None:
        """A fresh kernel for the same notebook, as Restart does."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer does, and a new kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.start()

    def send(
        self, code: str, cell_id: str | None = None, *, silent: bool = False, metadata: dict[str, Any] | None = None
    ) -> str:
        """An execute request on its way; its message id."""
        content = {
            "code": code, "silent": silent, "store_history": not silent, "user_expressions": {}, "allow_stdin": True,
            "stop_on_error": False,
        }  # fmt: skip
        known = {"cellId": cell_id} if cell_id is not None else {}
        message = self.client.session.msg("execute_request", content, metadata={**known, **(metadata or {})})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def collect(self, message_id: str, *, timeout: float = 60.0, answers: tuple[str, ...] = ()) -> Executed:
        """All that belongs to a request, up to its reply and the idle status; input requests are answered in turn."""
        executed = Executed()
        end = time.monotonic() + timeout
        replies = iter(answers)
        idle = False
        while not (idle and executed.reply):
            if time.monotonic() > end:
                raise TimeoutError(f"no end after {timeout} s; so far: {executed.text}")
            idle = self._read_output(message_id, executed) or idle
            self._answer(replies)
            if idle and not executed.reply:
                self._read_reply(message_id, executed)
        return executed

    def _read_output(self, message_id: str, executed: Executed) -> bool:
        try:
            message = self.client.get_iopub_msg(timeout=0.1)
        except queue.Empty:
            return False
        if message["parent_header"].get("msg_id") != message_id:
            return False
        if message["msg_type"] in OUTPUTS:
            executed.messages.append({"msg_type": message["msg_type"], "content": message["content"]})
        return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")

    def _read_reply(self, message_id: str, executed: Executed) -> None:
        try:
            reply = self.client.get_shell_msg(timeout=1)
        except queue.Empty:
            return
        if reply["parent_header"].get("msg_id") == message_id:
            executed.reply = reply["content"]

    def _answer(self, replies: Any) -> None:
        try:
            request = self.client.get_stdin_msg(timeout=0)
        except queue.Empty:
            return
        if request["msg_type"] == "input_request":
            self.client.input(next(replies))

    def execute(
        self, code: str, cell_id: str | None = None, *, silent: bool = False, timeout: float = 60.0,
        answers: tuple[str, ...] = (), metadata: dict[str, Any] | None = None,
    ) -> Executed:  # fmt: skip
        """Any code, as a cell or without one."""
        began = time.perf_counter()
        executed = self.collect(
            self.send(code, cell_id, silent=silent, metadata=metadata), timeout=timeout, answers=answers
        )
        executed.seconds = time.perf_counter() - began
        return executed

    def run(self, cell_id: str, *, timeout: float = 60.0) -> Executed:
        """A cell of the notebook, by its id."""
        return self.execute(self.notebook.cells[cell_id], cell_id, timeout=timeout)

    def ok(self, *cell_ids: str) -> Executed:
        """Cells that must succeed, in turn; what the last one sent."""
        executed = Executed()
        for cell_id in cell_ids:
            executed = self.run(cell_id)
            assert executed.status == "ok", f"{cell_id}: {executed.text}"
        return executed

    def value(self, expression: str) -> str:
        """The repr of an expression, read by a cell that belongs to no document."""
        executed = self.execute(f"print(repr(({expression})))")
        assert executed.status == "ok", executed.text
        return executed.stdout.strip()

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
