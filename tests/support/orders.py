"""A notebook whose cells are executed by hand in some order: each shows what a plain kernel shows, top to bottom."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.support.by_hand import Start
from tests.support.kernel import Kernel
from tests.support.plain import plain_source

OURS = re.compile(r"^(?:reused |caught: |skipped: ).*\n?", re.MULTILINE)
"""Lines that nbflow prints under a step of its own accord."""


def differences(start: Start, cells: Mapping[str, str], order: str) -> list[str]:
    """Execute cells, by id and parted by spaces (`R` restarts the kernel, `F` is `%flow run`); what shows otherwise."""
    right = _plainly(start, cells)
    kernel = start(dict(cells))
    found = []
    for place, word in enumerate(order.split()):
        if word == "R":
            kernel.restart()
        elif word == "F":
            assert kernel.execute("%flow run", timeout=120).status == "ok"
        else:
            executed = kernel.run(word)
            shown = OURS.sub("", executed.stdout)
            if shown != right[word]:
                found.append(
                    f"{place} {word} shows {shown!r}, not {right[word]!r}; {executed.stderr}{executed.traceback}"
                )
    return found


def _plainly(start: Start, cells: Mapping[str, str]) -> dict[str, str]:
    kernel: Kernel = start(dict(cells), load=False)
    return {name: kernel.execute(plain_source(source)).stdout for name, source in cells.items()}
