"""File parameters: their content is kept with the run and belongs to the key of every step that reads them."""

from __future__ import annotations

import errno
import mmap
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nbflow.engine.keys import task_key
from nbflow.errors import NotFoundError, ParameterError
from nbflow.flow.parameters import is_file
from nbflow.model import Flow, Manifest, Record
from nbflow.plain_files import is_plain
from nbflow.store import artifacts
from nbflow.store.location import Store
from nbflow.store.serialize.describe import Description, describe
from nbflow.store.serialize.pickler import Dumped
from nbflow.store.serialize.registry import Registry
from nbflow.store.verified import hash_of


def with_content(flow: Flow, record: Record, values: Mapping[str, Any], store: Store | None) -> Record:
    """Return a record of parameters with the content of its file parameters.

    The content is in the store when this returns; without a store it is only hashed, as a plan needs it.
    Raises ParameterError, which names every file that cannot be read.
    """
    problems: list[str] = []
    dumped: dict[str, Dumped] = {}
    for parameter in flow.parameters:
        path = values.get(parameter.name)
        if parameter.name not in record.artifacts or not is_file(parameter) or not isinstance(path, str | Path):
            continue
        try:
            dumped[parameter.name] = _content(_entry(parameter.name), Path(flow.notebook.folder) / path)
        except OSError as error:
            problems.append(f"{parameter.name} = {str(path)!r}: {error.strerror}")
    if problems:
        raise ParameterError("; ".join(problems), fix="correct the path: it starts at the notebook's folder")
    if not dumped:
        return record
    contents = list(dumped.values())
    groups, entries = artifacts.identify(contents) if store is None else artifacts.save(store, contents)
    start = len(_plain_groups(record))
    entries = {name: msgspec.structs.replace(entry, group=entry.group + start) for name, entry in entries.items()}
    manifests = {name: _named(record, name, values[name], entries[_entry(name)]) for name in dumped}
    parts = msgspec.structs.replace(record.parts, files={name: entries[_entry(name)].content_id for name in dumped})
    return msgspec.structs.replace(
        record, key=task_key(parts), parts=parts, groups=(*_plain_groups(record), *groups),
        artifacts={**record.artifacts, **entries, **manifests},
    )  # fmt: skip


def read_file(record: Record, name: str, store: Store) -> bytes:
    """Return the content that a file parameter had in a run, from the record of its parameters."""
    if _entry(name) not in record.artifacts:
        raise NotFoundError(f"the parameter {name!r} is no file", fix="declare it as `NAME: File`")
    return bytes(artifacts.load(store, record.groups, [_entry(name)], Registry())[_entry(name)])


def _entry(name: str) -> str:
    """Return the name of a file parameter's content in the record, which no variable can have."""
    return f"<file {name}>"


def _plain_groups(record: Record) -> tuple[Any, ...]:
    """Return the groups of a record without the content of files."""
    return tuple(group for group in record.groups if not group.names[0].startswith("<file "))


def _content(name: str, path: Path) -> Dumped:
    """Return a file's bytes as they are stored, mapped rather than read."""
    if path.exists() and not is_plain(path):  # opening a pipe would wait for a writer
        raise IsADirectoryError(errno.EISDIR, "it is no plain file", str(path))
    with path.open("rb") as file:
        length = path.stat().st_size
        view: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if length else b""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(pickle.PickleBuffer(view), 5, buffer_callback=buffers.append)
    about = Description("bytes", None, length, f"{length:,} bytes")
    return Dumped((name,), stream, tuple(buffer.raw() for buffer in buffers), described={name: about})


def _named(record: Record, name: str, value: Any, content: Manifest) -> Manifest:
    """Return a file parameter as one that differs when its file's content does."""
    path = record.artifacts[name]
    own = artifacts.content_id(record.groups[path.group], name)
    identity = hash_of(f"{own}\0{content.content_id}".encode())
    preview = f"{describe(name, value).preview} ({content.preview}, {content.content_id.rpartition(':')[2][:8]})"
    return msgspec.structs.replace(path, content_id=identity, preview=preview)
