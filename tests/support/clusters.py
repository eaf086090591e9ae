"""Clusters on this machine, or on its hosts, that tests start: Ray's and Dask's."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.support.hosts import Host
from tests.support.servers import end_group, free_port
from tests.support.waiting import eventually


class ClusterProcesses:
    """Processes of an engine, each the leader of a group; a context manager that ends them with all that they started.

    They have the variables of the tests, and those that are given. The head is on a host, or this
    machine's loopback.
    """

    scheme: ClassVar[str]

    def __init__(self, folder: Path, head: Host | None = None, **variables: str) -> None:
        self.folder = folder
        self.head = head
        self.address = head.address if head is not None else "127.0.0.1"
        self.variables = {**os.environ, **variables}
        self.client_port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}:{self.client_port}"

    def log(self, number: int) -> str:
        """What a process has said; it has to live."""
        text = (self.folder / f"{self.scheme}-{number}.log").read_text()
        assert self.processes[number].poll() is None, text[-3000:]
        return text

    def stop(self) -> None:
        """End all of them."""
        for process in reversed(self.processes):
            end_group(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begin(self, host: Host | None, *words: str) -> subprocess.Popen[bytes]:
        """Start the engine's own program, which stands beside Python."""
        command = [
            *(host.command if host is not None else ()),
            str(Path(sys.executable).with_name(self.scheme)),
            *words,
        ]
        with (self.folder / f"{self.scheme}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process


class RayCluster(ClusterProcesses):
    """Ray on this machine: a head, and further nodes, each a `ray start --block` with processes of its own.

    The address that Ray binds to is the machine's own, or a host's. The folder's path has to be short: Ray puts sockets
    below it.
    """

    scheme = "ray"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip

    def __init__(self, folder: Path, head: Host | None = None, **variables: str) -> None:
        super().__init__(folder, head, **{**self.SETTINGS, **variables})
        self.port = free_port()

    def start(self, cpus: int = 2, gpus: int = 2) -> None:
        """Start the head, and wait until its client server answers."""
        self._node(
            self.head, "--head", f"--port={self.port}", f"--ray-client-server-port={self.client_port}",
            f"--temp-dir={self.folder / 'ray'}", "--include-dashboard=false", f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
        )  # fmt: skip
        eventually(self._answers, 120)

    def add(self, cpus: int = 2, on: Host | None = None) -> subprocess.Popen[bytes]:
        """Start another node; return its process, whose group is the node's."""
        head = self.address if self.head is not None else socket.gethostbyname(socket.gethostname())
        return self._node(on, f"--address={head}:{self.port}", f"--num-cpus={cpus}", "--num-gpus=0")

    def _node(self, host: Host | None, *words: str) -> subprocess.Popen[bytes]:
        address = [f"--node-ip-address={host.address}"] if host is not None else []
        return self._begin(
            host, "start", *address, *words, "--block", "--disable-usage-stats", "--object-store-memory=100000000",
            "--min-worker-port=0", "--max-worker-port=0",
        )  # fmt: skip

    def _answers(self) -> bool:
        self.log(0)
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.client_port), 1):
            return True
        return False


class DaskCluster(ClusterProcesses):
    """Dask: a scheduler, and workers with a nanny each, as `dask worker` starts them."""

    scheme = "dask"

    def start(self, *words: str) -> None:
        """Start the scheduler, and wait until it answers."""
        place = (f"--host={self.address}", f"--port={self.client_port}", "--no-dashboard")
        self._begin(self.head, "scheduler", *place, *words)
        eventually(lambda: "Scheduler at" in self.log(0))

    def add(self, *words: str, threads: int = 2, gpus: int = 2, on: Host | None = None) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until the scheduler has it; return the process that leads its group, a nanny."""
        self.variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(gpus)))
        number = len(self.processes)
        worker = self._begin(
            on, "worker", f"tcp://{self.address}:{self.client_port}", f"--nthreads={threads}",
            f"--resources=GPU={gpus}", "--memory-limit=0", "--local-directory", str(self.folder), "--no-dashboard",
            *words,
        )  # fmt: skip
        eventually(lambda: "Registered to" in self.log(number))
        return worker
