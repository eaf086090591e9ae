"""Which datastores this user trusts: those that they have made here, and those that they have said so of.

A datastore is code, for reading a pickle runs it. One that came with a folder (cloned, unpacked, copied, moved) is not
known by its random id and its place, and is looked at without unpickling until its owner says so once.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import urllib.parse
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from nbflow.errors import StoreError, UntrustedError

EVERYWHERE = frozenset({"1", "all", "*"})
"""Values of NBFLOW_TRUST by which every datastore is trusted, as on machines that only build."""

MOST_KEPT = 500
"""Places that are kept before those that have gone are forgotten."""

LONG_AGO = 30 * 86_400.0
"""Seconds for which a place is kept that is not there: one that is being made now, a disk that is not plugged in."""


def home_folder(variable: str) -> Path:
    """Return the user's home; StoreError, which names the variable to set instead, where the system knows of none."""
    try:
        return Path.home()
    except RuntimeError:  # a container's user without a name, and HOME is not set
        raise StoreError(
            "this user has no home folder", fix=f"name a folder to be used instead in {variable}"
        ) from None


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for what nobody can make again: NBFLOW_STATE, else the system's own; StoreError without one."""
    if environ.get("NBFLOW_STATE"):
        return Path(environ["NBFLOW_STATE"])
    if sys.platform == "win32" and environ.get("LOCALAPPDATA"):
        return Path(environ["LOCALAPPDATA"]) / "nbflow" / "state"
    if sys.platform == "darwin":
        return home_folder("NBFLOW_STATE") / "Library" / "Application Support" / "nbflow"
    return Path(environ.get("XDG_STATE_HOME") or home_folder("NBFLOW_STATE") / ".local" / "state") / "nbflow"


def new_identity() -> str:
    """Return a random id for a datastore that is being made."""
    return secrets.token_hex(16)


def is_known(place: str, identity: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the user has made what lies at a folder or URL and has this id, or has said to trust it."""
    allowed = environ.get("NBFLOW_TRUST", "")
    if allowed in EVERYWHERE:
        return True
    if any(_location(each) == _location(place) for each in allowed.split(os.pathsep if "://" not in allowed else ",")):
        return True
    try:
        return _entry(place, identity, environ).exists()
    except (OSError, StoreError):  # a state folder that cannot be looked into, or none: nothing is known
        return False


def remember(place: str, identity: str, environ: Mapping[str, str] = os.environ) -> None:
    """Trust what lies at a folder or URL, while it has this id; StoreError where that cannot be kept."""
    entry = _entry(place, identity, environ)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        entry.touch(mode=0o600)
        entry.write_text(json.dumps({"place": _location(place), "id": identity}), encoding="utf-8")
        _forget_gone(entry.parent)
    except OSError as error:
        raise StoreError(
            f"that {place} is trusted cannot be kept in {entry.parent}: {error.strerror}",
            fix="make that folder writable, or name another one in NBFLOW_STATE",
        ) from None


def forget(place: str, identity: str, environ: Mapping[str, str] = os.environ) -> None:
    """Trust this no longer."""
    with suppress(OSError, StoreError):
        _entry(place, identity, environ).unlink()


def _forget_gone(folder: Path) -> None:
    """Forget folders that have not been there for long, once there are many."""
    entries = list(folder.glob("*.json"))
    for entry in entries if len(entries) > MOST_KEPT else ():
        with suppress(OSError, ValueError, TypeError, KeyError):
            if time.time() - entry.stat().st_mtime < LONG_AGO:
                continue
            place = json.loads(entry.read_text(encoding="utf-8"))["place"]
            if "://" not in place and not Path(place).exists():
                entry.unlink()


def untrusted(place: str, identity: str) -> UntrustedError:
    """Return the error for a datastore that the user has neither made nor said to trust."""
    error = UntrustedError(
        f"the datastore {place} was not made by you at this place, and what it holds may run code when it is read",
        fix=f"if you trust whoever made it: nbflow trust {place} (%flow trust; for CI NBFLOW_TRUST={place})",
    )
    error.place, error.identity = place, identity
    return error


def _entry(place: str, identity: str, environ: Mapping[str, str]) -> Path:
    """Return the file that says so: one for each id, as several processes may make a datastore at the same moment."""
    mark = sha256(f"{_location(place)}\0{identity}".encode(errors="surrogatepass")).hexdigest()[:32]
    return state_folder(environ) / "trusted" / f"{mark}.json"


def _location(place: str) -> str:
    """Return a folder or URL so that it is the same however it is written."""
    if "://" in place and not place.startswith("file://"):
        return place.rstrip("/")
    path = urllib.parse.unquote(place.removeprefix("file://")) if place.startswith("file://") else place
    return os.path.realpath(os.path.expanduser(path)) if path else ""  # noqa: PTH111
