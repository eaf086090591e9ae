"""Plain kernels without waiting for imports: one process that has loaded the usual libraries forks a kernel on request.

Each kernel is an ordinary ipykernel in a process of its own. `python nursery.py serve SOCKET` is that one process,
`python nursery.py ask SOCKET CONNECTION_FILE` is what jupyter_client starts and watches in a kernel's place.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

LIBRARIES = (
    "numpy pandas matplotlib.pyplot matplotlib_inline.backend_inline scipy.stats scipy.optimize sklearn.linear_model"
    " sklearn.ensemble sklearn.model_selection sklearn.preprocessing sklearn.pipeline sklearn.cluster sklearn.metrics"
    " ipykernel.kernelapp ipykernel.ipkernel cloudpickle asyncio"
).split()

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Exact numbers: sums in one order."""


class Nursery:
    """Kernels by fork; `manager()` gives a kernel manager for one of them, `close()` ends the process.

    A hash seed holds for all of them: it is drawn when a process starts.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._socket = folder / "nursery"
        settings = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONHASHSEED": str(seed)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(self._socket)],
            env={**os.environ, **ONE_THREAD, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not self._socket.exists():
            if self._process.poll() is not None:
                raise RuntimeError("the nursery did not start")
            time.sleep(0.02)

    def manager(self) -> Any:
        """A manager whose kernel is a fork of the nursery; not started yet."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

        manager = AsyncKernelManager()
        argv = [sys.executable, "-S", __file__, "ask", str(self._socket), "{connection_file}"]
        manager._kernel_spec = KernelSpec(argv=argv, language="python", display_name="forked")
        return manager

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def ask(place: str, connection_file: str, *options: str) -> None:
    """Stands for the kernel: lives as long as it does, and passes its own end on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        order = {
            "file": connection_file,
            "options": options,
            "folder": str(Path.cwd()),
            "environment": dict(os.environ),
        }
        connection.sendall(json.dumps(order).encode() + b"\n")
        connection.recv(1)  # nothing ever comes: it ends with the kernel


def serve(place: str) -> None:
    """Load the libraries, then fork a kernel for each connection."""
    import importlib
    import warnings

    warnings.simplefilter("ignore")
    for name in LIBRARIES:
        importlib.import_module(name)
    warnings.resetwarnings()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        while True:
            connection, _ = server.accept()
            with connection.makefile("rb") as lines:
                line = lines.readline()
            if not line.endswith(b"\n"):  # who asked has been ended meanwhile
                connection.close()
                continue
            order = json.loads(line)
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _be_kernel(connection, order)
                os._exit(0)
            connection.close()


def _be_kernel(connection: socket.socket, order: dict[str, Any]) -> None:
    import random

    import numpy as np
    from ipykernel.kernelapp import launch_new_instance

    def watch() -> None:
        connection.recv(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    random.seed()
    np.random.seed()  # noqa: NPY002  # forked kernels must not draw equal numbers
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    sys.path[0] = ""
    sys.argv = ["ipykernel_launcher", "-f", order["file"], *order["options"]]
    launch_new_instance()


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
