"""Servers on this machine that tests start, and what stands between them and a client."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.waiting import eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def s3(address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """An S3 server at an address of this machine; the variables with which a process finds it."""
    port = free_port()
    endpoint = f"http://{address}:{port}"
    code = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "-H", address, "-p", str(port)]
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


@contextlib.contextmanager
def faulty(endpoint: str, *, every: int = 3, slow: float = 0.0) -> Iterator[str]:
    """An HTTP server in front of another one, whose every third answer is an error; every other error is a lie.

    Then the request was done all the same, as when an answer is lost on its way. Of a conditional write nobody could
    tell afterwards whose it was: those fail honestly. Answers take up to `slow` seconds.
    """
    numbers = itertools.count(1)
    host, _, port = endpoint.partition("://")[2].partition(":")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            number = next(numbers)
            time.sleep(slow * (number % 5) / 4)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fails = number % every == 0
            if not fails or (number % (2 * every) == 0 and "If-None-Match" not in self.headers):
                status, headers, data = self.forward(body)
            if fails:
                status, headers = 500, [("Content-Type", "application/xml")]
                data = b"<Error><Code>InternalError</Code></Error>"
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                    self.send_header(name, value)
            length = (
                dict(headers).get("Content-Length", "0") if self.command == "HEAD" and not fails else str(len(data))
            )
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            with contextlib.closing(http.client.HTTPConnection(host, int(port))) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                return response.status, response.getheaders(), response.read()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()


class Link:
    """A way to a port of this machine that can be cut: what is sent then waits, and arrives once it is healed."""

    def __init__(self, port: int, at: int = 0) -> None:
        """Lead to a port, from one that is free or from `at`."""
        self.target = port
        self.whole = threading.Event()
        self.whole.set()
        self.ends: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", at))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.whole.clear()

    def heal(self) -> None:
        self.whole.set()

    def close(self) -> None:
        self.whole.set()
        self.listener.close()

    def drop(self) -> None:
        """Break off what goes on, and listen no more."""
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.close()
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self.listener.accept()
                there = socket.create_connection(("127.0.0.1", self.target))
                self.ends += (here, there)
                for ways in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=ways, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(1 << 16):
                self.whole.wait()
                self.passes(data)
                sink.sendall(data)

    def passes(self, data: bytes) -> None:
        """Take notice of what goes through, in either direction."""


class CountingLink(Link):
    """A way to an HTTP server of this machine; what goes through it is counted."""

    def __init__(self, port: int) -> None:
        self.total = self.requests = 0
        super().__init__(port)

    def passes(self, data: bytes) -> None:
        self.total += len(data)
        self.requests += data.count(b" HTTP/1.1\r\n")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)  # its workers see its end on their sockets


def new_store(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """A store in a new bucket of a server, with a segment cache below a folder that is not the workers'."""
    import fsspec

    monkeypatch.setenv("NBFLOW_CACHE", str(folder / "cache"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}/store"
