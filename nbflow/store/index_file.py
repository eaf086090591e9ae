"""The sqlite file of a datastore in the user's cache folder: it spares reading again what has been read before.

Nothing in it is true by itself: it is made from the store, may be deleted at any time, and is made anew when damaged.
Several processes may use it at once.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nbflow.store.trust import home_folder

if TYPE_CHECKING:
    import sqlite3

LAYOUT = 4

SCHEMA = (
    "CREATE TABLE runs (folder TEXT, run TEXT, created REAL, stamp INTEGER, summary BLOB, PRIMARY KEY (folder, run))",
    "CREATE TABLE durations (folder TEXT, step TEXT, at REAL, seconds REAL)",
    "CREATE INDEX by_step ON durations (folder, step, at)",
    "CREATE TABLE marks (name TEXT PRIMARY KEY, at REAL, told INTEGER)",
    "CREATE TABLE segments (hash TEXT PRIMARY KEY, stamp TEXT, whole INTEGER) WITHOUT ROWID",
    f"PRAGMA user_version = {LAYOUT}",
)

_T = TypeVar("_T")


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for what can always be made again: NBFLOW_CACHE, else the system's own."""
    if environ.get("NBFLOW_CACHE"):
        return Path(environ["NBFLOW_CACHE"])
    if sys.platform == "win32" and environ.get("LOCALAPPDATA"):
        return Path(environ["LOCALAPPDATA"]) / "nbflow" / "cache"
    if sys.platform == "darwin":
        return home_folder("NBFLOW_CACHE") / "Library" / "Caches" / "nbflow"
    return Path(environ.get("XDG_CACHE_HOME") or home_folder("NBFLOW_CACHE") / ".cache") / "nbflow"


def is_index(path: object) -> bool:
    """Return whether a database is an index of nbflow's own: what is read in it is nobody's input."""
    return isinstance(path, str | Path) and Path(path).parent == cache_folder() / "index"


class IndexFile:
    """The file of one store; whoever uses it can do without it, only slower."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        name = sha256(url.encode()).hexdigest()[:24]
        self.path = (folder or cache_folder()) / "index" / f"{name}.sqlite"
        self._lock = threading.Lock()

    def use(self, act: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Return what is done with the file, or `otherwise` when it cannot be used even after being made anew."""
        import sqlite3  # workers that store nothing large do without

        with self._lock:
            for last in (False, True):
                try:
                    with closing(self._connect()) as db, db:
                        db.execute("BEGIN")
                        return act(db)
                except sqlite3.OperationalError as error:
                    # Locked for long, a read-only folder, a full disk: go without. A missing table is damage.
                    if last:
                        return otherwise
                    if "unable to open" in str(error):
                        with suppress(OSError):
                            self.path.parent.mkdir(parents=True, exist_ok=True)
                    elif "no such table" in str(error):
                        self.remove()
                    else:
                        return otherwise
                except (sqlite3.DatabaseError, OSError):
                    if last:
                        return otherwise
                    self.remove()
        return otherwise

    def remove(self) -> None:
        """Remove the file: it is made anew when it is used next."""
        for suffix in ("", "-journal"):
            with suppress(OSError):  # absent, or in use on Windows: the next attempt finds out
                self.path.with_name(self.path.name + suffix).unlink()

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = OFF")  # what a power cut damages is made anew
            if _layout(db) != LAYOUT:
                _create(db)
        except BaseException:  # whatever broke it off, an interrupt included: the file is not left open
            db.close()
            raise
        return db


def _layout(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _create(db: sqlite3.Connection) -> None:
    import sqlite3

    db.execute("BEGIN IMMEDIATE")
    layout = _layout(db)
    if layout not in {0, LAYOUT}:
        raise sqlite3.DatabaseError(f"layout {layout}")
    for statement in SCHEMA if layout == 0 else ():
        db.execute(statement)
    db.execute("COMMIT")
