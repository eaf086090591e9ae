"""Processes of this machine, as /proc has them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def processes_above(pid: int) -> list[int]:
    """The processes above one, as far as they can be told."""
    above = []
    with contextlib.suppress(OSError):
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            above.append(pid)
    return above
