"""Where runs are looked for when no datastore is named: in the folder's own, then in those of the folders below it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from nbflow.errors import AmbiguousFlow, NotFoundError, OptionError, StoreError
from nbflow.store.location import LocalStore, Store, open_store, store_at, store_url

Found = TypeVar("Found")

DEPTH = 4
"""How many folders down datastores are looked for."""
MOST_FOLDERS = 5_000
"""How many folders are looked into, the nearest first."""
MOST_NAMED = 5
"""How many datastores are named in a message."""
PASSED_OVER = frozenset({"node_modules", "__pycache__", "site-packages"})


def stores_for(given: str | os.PathLike[str] | None, folder: Path) -> Iterator[Store]:
    """Return the datastores in which a command looks for runs, the folder's own first.

    One that is named (`given`, NBFLOW_STORE, `%flow config store`) is the only one. Raise StoreError where the first
    cannot be used; of those below, what cannot be used is passed over.
    """
    url = store_url(given, folder)
    yield open_store(url)
    if not _is_own(url, folder):
        return
    for below in _below(folder):
        try:
            store = open_store(below)
        except StoreError:
            continue
        yield store


def find(given: str | os.PathLike[str] | None, folder: Path, word: str, look: Callable[[Store], Found]) -> Found:
    """Return what `look` finds under a word in the folder's own datastore, else in those below.

    Raise NotFoundError, with where it was looked for, where it is in none, and AmbiguousFlow where it is in several of
    those below.
    """
    first: NotFoundError | None = None
    found: dict[str, Found] = {}
    places: list[str] = []
    for store in stores_for(given, folder):
        places.append(store.url)
        try:
            found[store.url] = look(store)
        except NotFoundError as error:
            first = first or error
        if places[0] in found:
            break
    if len(found) > 1:
        name = shown(next(iter(found)), folder)
        raise AmbiguousFlow(
            f"{word!r} is in {len(found)} datastores: {listing_of(found, folder)}",
            fix=f"name one: --store {name} (in Python store={name!r})",
        )
    for hit in found.values():
        return hit
    assert first is not None  # noqa: S101  # the folder's own was looked into
    if len(places) > 1:
        first.fix = f"{first.fix or 'name another run'}; looked in {listing_of(places, folder)}"
    raise first


def only_store(given: str | os.PathLike[str] | None, folder: Path) -> str:
    """Return the URL of the datastore that a command on a whole one means.

    Where none is named and the folder has none it is the one below; raise OptionError where several are.
    """
    url = store_url(given, folder)
    if not _is_own(url, folder) or _is_store(Path(url)):
        return url
    below = list(_below(folder))
    if len(below) > 1:
        raise OptionError(
            f"{len(below)} datastores lie below {folder}: {listing_of(below, folder)}",
            fix=f"name one: --store {shown(below[0], folder)}",
        )
    return below[0] if below else url


def store_words(url: str, folder: Path) -> str:
    """Return ` --store URL` where a command typed in a folder does not find a datastore by itself, else nothing."""
    own = store_url(None, folder)
    place = _local(url)
    if place is None or place == _local(own):
        return "" if url == own or place is not None else f" --store {shlex.quote(url)}"
    if _is_own(own, folder) and place in map(_local, _below(folder)):
        return ""
    return f" --store {shlex.quote(shown(url, folder))}"


def shown(url: str, folder: Path) -> str:
    """Return a datastore as people name it in a folder: relative where it lies below."""
    place = _local(url)
    if place is None or not place.is_relative_to(folder):
        return url
    return str(place.relative_to(folder))


def listing_of(urls: Iterable[str], folder: Path) -> str:
    """Return datastores as `.nbflow, examples/.nbflow and 3 more`."""
    names = [shown(url, folder) for url in urls]
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_own(url: str, folder: Path) -> bool:
    """Return whether nobody has named another datastore than the folder's own."""
    return url == str(folder / ".nbflow")


def _local(url: str) -> Path | None:
    store = store_at(url)
    return Path(store.url) if isinstance(store, LocalStore) else None


def _is_store(place: Path) -> bool:
    return os.path.isfile(place / "nbflow.json")  # noqa: PTH113  # false where it may not be read


def _below(folder: Path) -> Iterator[str]:
    """Return the datastores beside notebooks in the folders below, the nearest first; no link is followed."""
    level, count = [folder], 0
    for _ in range(DEPTH):
        deeper: list[Path] = []
        for place in level:
            count += 1
            if count > MOST_FOLDERS:
                return
            deeper += _folders(place)
        yield from (str(place / ".nbflow") for place in deeper if _is_store(place / ".nbflow"))
        level = deeper


def _folders(place: Path) -> list[Path]:
    """Return the folders in a folder that may hold a user's notebooks, sorted."""
    try:
        with os.scandir(place) as entries:
            names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    except OSError:  # not ours to read
        return []
    folders = (place / name for name in sorted(names) if not name.startswith(".") and name not in PASSED_OVER)
    return [each for each in folders if not os.path.exists(each / "pyvenv.cfg")]  # noqa: PTH110  # false where unreadable
