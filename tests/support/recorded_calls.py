"""What processes do to one folder, system call by system call: `sitecustomize` of the processes that are watched.

RECORDED names the folder, RECORDING the file to which a line is added for each call that has succeeded.
"""

import base64
import json
import os
from pathlib import Path

ROOT, LOG = os.environ.get("RECORDED", ""), os.environ.get("RECORDING", "")
REAL = {
    name: getattr(os, name)
    for name in ("open", "write", "close", "fsync", "replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir")
}
PLACES: dict[int, str] = {}  # descriptor -> what it was opened as


def _place(path, dir_fd=None):
    path = os.fsdecode(path)
    return path if dir_fd is None else f"{PLACES.get(dir_fd, '')}/{path}"


def _is_ours(place):
    return place == ROOT or place.startswith(f"{ROOT}/")


def _tell(call, **more):
    # opened each time: forked workers close what they do not know
    log = REAL["open"](LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    REAL["write"](log, json.dumps({"call": call, **more}).encode() + b"\n")
    REAL["close"](log)


def _open(path, flags, mode=0o777, *, dir_fd=None):
    descriptor = REAL["open"](path, flags, mode, dir_fd=dir_fd)
    PLACES.pop(descriptor, None)
    place = _place(path, dir_fd)
    if _is_ours(place):
        PLACES[descriptor] = place
        if flags & os.O_CREAT:
            _tell("create", place=place)
    return descriptor


def _write(descriptor, data):
    count = REAL["write"](descriptor, data)
    if descriptor in PLACES:
        _tell("write", place=PLACES[descriptor], data=base64.b64encode(bytes(data)[:count]).decode())
    return count


def _close(descriptor):
    PLACES.pop(descriptor, None)
    REAL["close"](descriptor)


def _fsync(descriptor):
    since = Path(LOG).stat().st_size if Path(LOG).exists() else 0  # what is done meanwhile need not be part of it
    REAL["fsync"](descriptor)
    if descriptor in PLACES:
        _tell("fsync", place=PLACES[descriptor], since=since)


def _moving(name):
    def call(source, target):
        REAL[name](source, target)
        if _is_ours(_place(target)):
            _tell("link" if name == "link" else "rename", source=_place(source), place=_place(target))

    return call


def _at(name, told):
    def call(path, *args, dir_fd=None, **more):
        REAL[name](path, *args, dir_fd=dir_fd, **more)
        if _is_ours(_place(path, dir_fd)):
            _tell(told, place=_place(path, dir_fd))

    return call


if ROOT and LOG:
    os.open, os.write, os.close, os.fsync = _open, _write, _close, _fsync
    os.replace, os.rename, os.link = _moving("replace"), _moving("rename"), _moving("link")
    os.unlink, os.remove, os.mkdir, os.rmdir = (
        _at("unlink", "unlink"), _at("remove", "unlink"), _at("mkdir", "mkdir"), _at("rmdir", "rmdir"),
    )  # fmt: skip
    os.supports_dir_fd.update((os.open, os.unlink, os.remove, os.mkdir, os.rmdir))
