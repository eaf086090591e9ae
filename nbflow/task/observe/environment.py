"""Files, folders, installed distributions and environment variables → ids that change exactly when they do."""
# ruff: noqa: PTH116, PTH117, PTH120, PTH123, PTH208
# Paths are text here: the audit hook and the modules give them so, thousands a task.

from __future__ import annotations

import functools
import os
import re
import secrets
import stat
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Literal

from blake3 import blake3

from nbflow.plugins import stamp
from nbflow.store.index_file import cache_folder

Origin = Literal["standard", "installed", "local", "none"]

ABSENT = ""
"""The id of a file or variable that is not there."""

SETTLED_NS = 50_000_000
"""A file changed less than this ago may change again within the clock's tick: its hash is not kept."""

LARGE = 1 << 20
OURS = str(Path(__file__).parents[2]) + os.sep
SITE = ("site-packages", "dist-packages")


# ---------------------------------------------------------------- files


def file_id(path: str) -> str:
    """Return the hash of a file's content; `ABSENT` when there is none or it cannot be read.

    Kept for as long as its times, size and inode stay the same; the system's own time of change cannot be set back.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # of the second kind: a name that no file can have
        return ABSENT
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device has no end
        return ABSENT
    facts = (status.st_mtime_ns, status.st_size, status.st_ino)
    try:
        if time.time_ns() - status.st_mtime_ns < SETTLED_NS:
            return _hash_file(path, *facts)
        return _kept_hash(path, *facts, status.st_ctime_ns)
    except OSError:
        return ABSENT


@functools.lru_cache(maxsize=10_000)
def _kept_hash(path: str, mtime: int, size: int, inode: int, changed: int) -> str:
    del changed
    return _hash_file(path, mtime, size, inode)


def _hash_file(path: str, mtime: int, size: int, inode: int) -> str:
    del mtime, inode
    digest = blake3()
    if size > LARGE:
        # one thread: a pool of the library's own does not survive a fork
        digest.update_mmap(path)
    else:
        with open(path, "rb") as file:
            digest.update(file.read())
    return f"b3:{digest.hexdigest(16)}"


def folder_id(path: str) -> str:
    """Return a hash of the names in a folder; `ABSENT` when there is none."""
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return ABSENT
    return f"b3:{blake3('/'.join(names).encode('utf-8', 'surrogateescape')).hexdigest(16)}"


def path_id(path: str) -> str:
    """Return the hash of a file's content, or of a folder's names where the path ends with a slash."""
    return folder_id(path) if path.endswith("/") else file_id(path)


# ---------------------------------------------------------------- variables


SECRET = re.compile(
    r"(?:^|_)(?:API_?)?(?:KEYS?|TOKENS?|SECRETS?|PASS|PASSWORDS?|PASSWD|PASSPHRASE|PW|CREDENTIALS?|AUTH|PAT|SALT|DSN"
    r"|COOKIES?)(?:_|$)|(?:APIKEY|SECRETKEY|ACCESSKEY|AUTHTOKEN|PASSWORD)", re.IGNORECASE,
)  # fmt: skip
"""In the names of variables that hold what nobody may know."""


def looks_secret(name: str) -> bool:
    """Return whether a variable's name says that it holds a secret: its value never enters a record."""
    return SECRET.search(name) is not None


def text_id(text: str | None, name: str = "") -> str:
    """Return the hash of a variable's value; `ABSENT` for none.

    That of a secret is made with a key of this user's own: whoever has the record cannot try out what it may be.
    """
    if text is None:
        return ABSENT
    data = text.encode("utf-8", "surrogateescape")
    if looks_secret(name):
        return f"own:{blake3(data, key=_own_key(str(cache_folder()))).hexdigest(16)}"
    return f"b3:{blake3(data).hexdigest(16)}"


@functools.lru_cache(maxsize=8)
def _own_key(folder: str) -> bytes:
    """Return this user's key, made when it is first asked for: with another one, what hangs on secrets is run again."""
    path = Path(folder) / "key"
    for _ in range(2):
        try:
            key = path.read_bytes()
            if len(key) == blake3.key_size:
                return key
            path.unlink()
        except FileNotFoundError:
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f"key-{secrets.token_hex(8)}")
        mine.touch(mode=0o600)
        mine.write_bytes(secrets.token_bytes(blake3.key_size))
        try:
            os.link(mine, path)  # several processes may make it at once: the first one's stands
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return path.read_bytes()


# ---------------------------------------------------------------- modules


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], os.path.dirname(os.__file__)}
    return tuple(os.path.realpath(folder) + os.sep for folder in folders)


@functools.lru_cache(maxsize=20_000)
def origin_of(path: str) -> Origin:
    """Return where the file of a module or of code comes from: "none" for what is no file, and for nbflow's own."""
    if not path or path.startswith(("<", OURS)):
        return "none"
    if not any(f"{os.sep}{site}{os.sep}" in path for site in SITE):
        real = os.path.realpath(path)
        if real.startswith(_standard_folders()) or path.startswith(_standard_folders()):
            return "standard"
        return "local" if os.path.isabs(path) else "none"
    return "installed"


def top_of(module: str) -> str:
    """Return the top-level name of a dotted module name."""
    return module.partition(".")[0]


def is_installed(top: str) -> bool:
    """Return whether a top-level module that has been imported comes with an installed distribution."""
    module = sys.modules.get(top)
    if module is None or top in sys.stdlib_module_names:
        return False
    path = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return origin_of(path if isinstance(path, str) else "") == "installed"


# ---------------------------------------------------------------- distributions


def version_of(distribution: str) -> str:
    """Return the installed version of a distribution; `ABSENT` when it is not installed."""
    return _version(distribution, stamp())


def _metadata() -> ModuleType:
    """Import `importlib.metadata` late: that takes longer than planning a small flow."""
    import importlib.metadata

    return importlib.metadata


@functools.lru_cache(maxsize=10_000)
def _version(distribution: str, stamp: tuple[tuple[str, int], ...]) -> str:
    del stamp
    try:
        return str(_metadata().version(distribution))
    except _metadata().PackageNotFoundError:
        return ABSENT


@functools.lru_cache(maxsize=10_000)
def distribution_of(top: str) -> str | None:
    """Return the name of the distribution that an installed top-level module comes with."""
    try:
        distribution = _metadata().distribution(top)
    except _metadata().PackageNotFoundError:
        return _search(top)
    return str(distribution.metadata["Name"])


def _search(top: str) -> str | None:
    """Look through every distribution's list of files: the name differs (`yaml` is PyYAML's)."""
    starts = re.compile(rf"^{re.escape(top)}(/|\.py,|\.[\w-]+\.so,|\.pyd,)", re.MULTILINE)
    for distribution in _metadata().distributions():
        if starts.search(distribution.read_text("RECORD") or ""):
            return str(distribution.metadata["Name"])
    return None


@functools.lru_cache(maxsize=10_000)
def needs_of(distribution: str) -> tuple[tuple[str, str], ...]:
    """Return what a distribution always needs, as (distribution, top-level module)."""
    try:
        lines = _metadata().requires(distribution) or []
    except _metadata().PackageNotFoundError:
        return ()
    needs = []
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        if name and "extra ==" not in line:
            needs.append((name[0], _top(name[0])))
    return tuple(needs)


def _top(distribution: str) -> str:
    try:
        text = _metadata().distribution(distribution).read_text("top_level.txt")
    except _metadata().PackageNotFoundError:
        text = None
    words = (text or "").split()
    return words[0] if words else distribution.replace("-", "_").lower()


def distributions_of(tops: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions behind top-level modules, and of those they need that are loaded."""
    versions: dict[str, str] = {}
    now = stamp()
    queue = [name for top in tops if is_installed(top) and (name := distribution_of(top)) is not None]
    while queue:
        name = queue.pop()
        if name not in versions:
            versions[name] = _version(name, now)
            queue += [need for need, top in needs_of(name) if top in sys.modules and _version(need, now)]
    return dict(sorted(versions.items()))
