"""Servers on this machine that tests start: an S3 server, a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.waiting import eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def s3() -> Iterator[dict[str, str]]:
    """An S3 server; the variables with which a process finds it."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    code = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:

        def answers() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(endpoint, timeout=1):
                return True
            return False

        try:
            eventually(answers)
            yield {
                "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }  # fmt: skip
        finally:
            server.terminate()


class Link:
    """A way to a port of this machine that can be cut: what is sent then waits, and arrives once it is healed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.whole = threading.Event()
        self.whole.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.whole.clear()

    def heal(self) -> None:
        self.whole.set()

    def close(self) -> None:
        self.whole.set()
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self.listener.accept()
                there = socket.create_connection(("127.0.0.1", self.target))
                for ways in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=ways, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(1 << 16):
                self.whole.wait()
                sink.sendall(data)


class RayCluster:
    """Ray on this machine: a head, and further nodes, each a `ray start --block` with processes of its own.

    The address that Ray binds to is the machine's own; everything is ended with the test.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.variables = {
            **os.environ, **variables, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_AUTH_MODE": "disabled",
        }  # fmt: skip
        self.port, self.client_port = free_port(), free_port()
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"ray://127.0.0.1:{self.client_port}"

    def start(self, cpus: int = 2, gpus: int = 2) -> None:
        """Start the head, and wait until its client server answers."""
        self._node(
            "--head", f"--port={self.port}", f"--ray-client-server-port={self.client_port}",
            f"--temp-dir={self.folder}", "--include-dashboard=false", f"--num-cpus={cpus}", f"--num-gpus={gpus}",
        )  # fmt: skip
        eventually(self._answers, 120)

    def add(self, cpus: int = 2, **resources: int) -> subprocess.Popen[bytes]:
        """Start another node; return its process, whose group is the node's."""
        words = ",".join(f'"{name}": {number}' for name, number in resources.items())
        return self._node(
            f"--address={socket.gethostbyname(socket.gethostname())}:{self.port}", f"--num-cpus={cpus}",
            "--num-gpus=0", f"--resources={{{words}}}",
        )  # fmt: skip

    def _node(self, *words: str) -> subprocess.Popen[bytes]:
        command = [
            str(Path(sys.executable).with_name("ray")), "start", *words, "--block", "--disable-usage-stats",
            "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0",
        ]  # fmt: skip
        with (self.folder.parent / f"node-{len(self.nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                command, env=self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.nodes.append(node)
        return node

    def _answers(self) -> bool:
        assert self.nodes[0].poll() is None, (self.folder.parent / "node-0.log").read_text()[-3000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.client_port), 1):
            return True
        return False

    def stop(self) -> None:
        """End all nodes with all their processes."""
        for node in reversed(self.nodes):
            end_group(node)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)  # its workers see its end on their sockets
