"""A datastore's URL → the datastore. Folders use plain system calls, every other URL fsspec: nothing else touches it.

Paths in a datastore are relative, with `/`, and never made of raw names: `safe_name` first. A file appears under its
name whole or not at all.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from nbflow.errors import UntrustedError
from nbflow.store.index_file import cache_folder
from nbflow.store.interface import FileEntry, Store, hashed_name, is_safe, name_of, safe_name
from nbflow.store.local import LocalStore
from nbflow.store.remote import RemoteStore
from nbflow.store.settings import read_settings

__all__ = [
    "FileEntry",
    "LocalStore",
    "RemoteStore",
    "Store",
    "cache_folder",
    "hashed_name",
    "is_safe",
    "name_of",
    "open_store",
    "question",
    "safe_name",
    "store_at",
    "store_url",
]


def store_url(
    given: str | os.PathLike[str] | None, folder: str | os.PathLike[str], environ: Mapping[str, str] = os.environ
) -> str:
    """Return the folder or URL of the datastore for the notebooks of a folder.

    That is the one `given`, else NBFLOW_STORE, else what `%flow config store` wrote to `.nbflow/config.json` beside the
    notebook (a relative path counts from that folder), else that `.nbflow` itself. Raise StoreError when config.json
    cannot be understood, UntrustedError where it came with the folder and nobody has said to trust it.
    """
    if given is not None and os.fspath(given):
        return os.fspath(given)
    if environ.get("NBFLOW_STORE"):
        return environ["NBFLOW_STORE"]
    setting = read_settings(folder).get("store")
    if setting:
        store_at(Path(folder) / ".nbflow").require_trust()  # a cloned folder sends nobody elsewhere
        place = os.path.expanduser(str(setting))  # noqa: PTH111  # a URL would lose a slash as a Path
        return place if "://" in place else str(Path(folder) / place)
    return str(Path(folder) / ".nbflow")


def open_store(url: str | os.PathLike[str]) -> Store:
    """Return the datastore at a folder or URL; it is made on the first write.

    Raise FormatError when a newer nbflow wrote it, StoreError when it cannot be reached.
    """
    store = store_at(url)
    store.check_format()
    return store


def question(find: Callable[[], Store]) -> UntrustedError | None:
    """Return what its user has to answer before a datastore that is looked for here is used, None where nothing is.

    That is whether they trust it or, before that, the settings which name it.
    """
    try:
        find().require_trust()
    except UntrustedError as error:
        return error
    return None


def store_at(url: str | os.PathLike[str]) -> Store:
    """Return the datastore at a folder or URL, whatever it says of itself."""
    text = os.fspath(url)
    scheme, separator, rest = text.partition("://")
    mapped = os.environ.get("NBFLOW_NO_MMAP") != "1"
    store: Store
    if separator and scheme != "file":
        store = RemoteStore(text, cache_folder(), mapped=mapped)
    else:
        folder = urllib.parse.unquote(rest) if separator else text
        store = LocalStore(str(Path(folder).expanduser().absolute()), mapped=mapped)
    return store
