"""What a cell sets in its process that no other can be given is found by comparing the process with itself."""

from __future__ import annotations

import copyreg
import os

from nbflow.task import live_state
from nbflow.task.observe.lookups import watch_looks


def test_how_copyreg_takes_a_class_of_the_notebook_apart() -> None:
    own, library = (type("Quantity", (), {"__module__": module}) for module in ("__main__", "somewhere"))
    before = live_state.take({}, [])
    try:
        copyreg.pickle(library, lambda value: (type(value), ()))
        assert live_state.changes(before, live_state.take({}, [])) == ()
        copyreg.pickle(own, lambda value: (type(value), ()))
        assert live_state.changes(before, live_state.take({}, [])) == ("copyreg's way of __main__.Quantity",)
    finally:
        for kind in (own, library):
            copyreg.dispatch_table.pop(kind, None)


def test_what_watches_a_task_is_nothing_that_its_cell_has_set() -> None:
    cell = ("os.umask = os.umask",)
    before = live_state.take({"os": os}, cell)
    end = watch_looks(lambda *_: None, lambda *_: None)
    try:
        watched = live_state.take({"os": os}, cell)
    finally:
        end()
    assert live_state.changes(before, watched) == live_state.changes(watched, before) == ()
