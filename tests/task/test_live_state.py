"""What a cell sets in its process that no other can be given is found by comparing the process with itself."""

from __future__ import annotations

import copyreg

from nbflow.task import live_state


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
