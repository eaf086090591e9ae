"""A datastore that has grown large is told of once, with what `nbflow gc` would take. Nothing goes by itself."""

from __future__ import annotations

import time

from nbflow import cleaning, problems
from nbflow.index import Index
from nbflow.model import Finding
from nbflow.render import preview
from nbflow.storage import LocalStore, Store

EVERY = 600.0
"""Seconds between two looks at how large a datastore in a folder is."""

ELSEWHERE = 86_400.0
"""The same for one that is far away."""

MARK = "size"


def grown(store: Store, most: int) -> Finding | None:
    """Return what is to be said of a store that holds more than `most` bytes.

    It is said once: the user's index knows it, until the store has become smaller than that. Values are most of what a
    store holds, so that only their bytes are counted, and seldom.
    """
    index = Index(store.url)
    at, told = index.mark(MARK)
    now = time.time()
    if 0 <= now - at < (EVERY if isinstance(store, LocalStore) else ELSEWHERE):
        return None
    nbytes = sum(entry.size for entry in store.list("segments"))
    index.put_mark(MARK, now, nbytes > most)
    if nbytes <= most or told:
        return None
    gain = cleaning.plan_cleaning(store, cleaning.Policy(most=most)).nbytes
    return problems.grown(*map(preview.size, (nbytes, most, gain)))
