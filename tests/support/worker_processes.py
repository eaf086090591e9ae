"""The smallest engine: each worker is `nbflow worker SPEC --live` in a process of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from nbflow.executors.remote.engine import NodeRoom, WorkerOrder, WorkerState
from nbflow.model import StepOptions
from nbflow.task import limits


class WorkerProcesses:
    """An engine without a queue: two cores and two GPUs in name, of which nobody keeps count."""

    place = "processes"
    queues = False

    def __init__(self, *, is_live: bool = True, before: Sequence[str] = ()) -> None:
        """`before` is what each worker's command begins with."""
        self.is_live = is_live
        self.before = before
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.readers: list[threading.Thread] = []

    def connect(self) -> None:
        pass

    def nodes(self) -> Sequence[NodeRoom]:
        return [NodeRoom(name="here", cpu=2, gpu=2, memory=limits.memory())]

    def refuses(self, options: StepOptions) -> str:
        return ""

    def start(self, order: WorkerOrder, live: Callable[[bytes], None]) -> str:
        command = [*self.before, sys.executable, "-m", "nbflow", "worker", order.spec]
        if self.is_live:
            command.append("--live")
        devices = {limits.GPU_VARIABLE: ",".join(map(str, range(int(order.gpu))))} if order.gpu else {}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, **devices},
        )  # fmt: skip

        def read() -> None:
            assert process.stdout is not None
            with process.stdout as stream:
                while data := os.read(stream.fileno(), 1 << 16):
                    if self.is_live:
                        live(data)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self.readers.append(thread)
        worker = str(process.pid)
        self.workers[worker] = process
        return worker

    def look(self, ids: Sequence[str]) -> Mapping[str, WorkerState]:
        return {worker: self._state(worker) for worker in ids}

    def _state(self, worker: str) -> WorkerState:
        code = self.workers[worker].poll()
        if code is None:
            return WorkerState(state="running", where="here")
        return WorkerState(state="crashed" if code < 0 else "done", message=f"exit status {code}")

    def cancel(self, worker: str, *, hard: bool) -> None:
        process = self.workers[worker]
        if process.poll() is None:
            process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)

    def close(self) -> None:
        for process in self.workers.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for thread in self.readers:
            thread.join(10)
