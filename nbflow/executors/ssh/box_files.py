"""What lies in the user's cache folder on the box: orders for workers, who is alive, copies of datastores.

Everything here can be removed while nothing runs; what is missing is sent again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from nbflow import plugins
from nbflow.executors.ssh.gpu_shares import is_locked
from nbflow.executors.ssh.own_source import source_id
from nbflow.jsonable import from_json, to_json
from nbflow.store.location import LocalStore, Store, cache_folder, open_store

OLD = 14 * 24 * 3600.0
"""Seconds after which orders and segments that nobody has used are removed."""

PASSING = ("SSH_", "XDG_SESSION_ID", "XDG_RUNTIME_DIR", "DBUS_", "SHLVL", "PWD", "OLDPWD", "_")
"""Variables that are another connection's own: workers are used again without regard to them."""


class WorkerOrderFile(msgspec.Struct, frozen=True):
    """What a worker on the box is to do: the URL of a spec as the box sees it."""

    spec: str
    gpu: float = 0.0
    is_carried: bool = False


class WorkerEnd(msgspec.Struct, frozen=True):
    """How a worker's order ended, "" without trouble."""

    trouble: str = ""


class BoxFiles:
    """The folder, and what stands in it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "box"
        self.workers = self.folder / "workers"
        self.idle = self.folder / "idle"
        self.gpus = self.folder / "gpus"

    def make(self) -> None:
        """Make the folders that others lie in, for this user alone."""
        for folder in (self.folder, self.workers, self.idle, self.folder / "orders", self.folder / "specs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # ------------------------------------------------------------ orders

    def order(self, worker: str) -> OrderFiles:
        """Return the files of an order."""
        return OrderFiles(self.folder / "orders" / worker)

    def latest(self, spec: str) -> Path:
        """Return the link to the last order with a spec."""
        return self.folder / "specs" / hashlib.sha256(spec.encode()).hexdigest()[:32]

    # ------------------------------------------------------------ workers

    def is_alive(self, token: str) -> bool:
        """Return whether a worker process lives: it holds a lock as long as it does."""
        return bool(token) and is_locked(self.workers / token)

    def birth(self, token: str) -> int:
        """Return the descriptor of a worker's lock, for it to inherit."""
        held = os.open(self.workers / token, os.O_RDWR | os.O_CREAT)
        fcntl.flock(held, fcntl.LOCK_EX)
        return held

    # ------------------------------------------------------------ datastores

    def copy_of(self, origin: str) -> Store:
        """Return this box's copy of a datastore that it does not reach; all copies share their segments."""
        folder = self.folder / "stores" / origin
        shared = self.folder / "segments"
        if not (folder / "segments").is_symlink():
            shared.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                (folder / "segments").symlink_to(shared)
        return open_store(folder).trust()

    def segments(self) -> Store:
        """Return the segments of all copies."""
        return LocalStore(str(self.folder), bare=True)

    def sweep(self) -> None:
        """Remove what nobody has used for long: orders, what copies of datastores hold, locks of the dead."""
        before = time.time() - OLD
        for part in ("orders", "specs", "stores", "segments"):
            for folder, folders, names in os.walk(self.folder / part, topdown=False):
                for name in (*names, *folders):
                    _remove_old(Path(folder) / name, before)
        for path in self.workers.iterdir():
            if not is_locked(path):
                path.unlink(missing_ok=True)


def _remove_old(path: Path, before: float) -> None:
    """Remove a file, a link, or a folder that is empty now, unless it is younger."""
    with contextlib.suppress(OSError):  # not empty, or gone meanwhile
        if path.lstat().st_mtime < before:
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                path.rmdir()


class OrderFiles:
    """The files of one order; `events` holds what its worker writes for whoever follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = folder / "events"

    def write(self, order: WorkerOrderFile) -> None:
        """Write what is to be done."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.folder / "order.json", to_json(order))

    def read(self) -> WorkerOrderFile | None:
        """Return what is to be done."""
        return from_json(_read(self.folder / "order.json"), WorkerOrderFile)

    def give(self, token: str) -> None:
        """Note which worker has it."""
        _write(self.folder / "token", token.encode())

    def token(self) -> str:
        """Return which worker has it, "" for none yet."""
        return _read(self.folder / "token").decode()

    def wait(self, reason: str) -> None:
        """Note for what its worker waits, "" once it has begun."""
        _write(self.folder / "waits", reason.encode())

    def reason(self) -> str:
        """Return for what its worker waits."""
        return _read(self.folder / "waits").decode()

    def refuse(self) -> None:
        """Note that nobody wants it any more."""
        _write(self.folder / "refused", b"")

    def is_refused(self) -> bool:
        """Return whether nobody wants it any more."""
        return (self.folder / "refused").exists()

    def end(self, end: WorkerEnd) -> None:
        """Note that its worker is through with it."""
        _write(self.folder / "end.json", to_json(end))

    def ended(self) -> WorkerEnd | None:
        """Return how it ended, None while nobody has said so."""
        return from_json(_read(self.folder / "end.json"), WorkerEnd)

    def size(self) -> int:
        """Return how many bytes of events there are."""
        try:
            return self.events.stat().st_size
        except OSError:
            return 0


def new_token(environ: Mapping[str, str] = os.environ) -> str:
    """Return a name for a new worker; up to the dash it says which orders the worker may take later."""
    return f"{kind_of(environ)}-{secrets.token_hex(6)}"


def kind_of(environ: Mapping[str, str] = os.environ) -> str:
    """Return what tells workers apart: their Python, its packages as they are now, nbflow, and their variables."""
    digest = hashlib.sha256(repr((sys.executable, plugins.stamp())).encode())
    for name, value in sorted(environ.items()):
        if not name.startswith(PASSING):
            digest.update(f"{name}={value}\0".encode(errors="surrogateescape"))
    digest.update(source_id().encode())
    return digest.hexdigest()[:12]


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
