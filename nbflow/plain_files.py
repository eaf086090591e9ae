"""Files beside a notebook, read as what they say they are: a pipe would be waited for, a link may lead to itself.

What is written appears whole or not at all.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

TEMPORARY = ".tmp-"
"""What the name of a file begins with that is being written: nobody else takes it for one of the folder's."""


def read_text(place: str | os.PathLike[str]) -> str:
    """Return the text of a plain file in UTF-8, a mark of its byte order left out.

    OSError where it cannot be read or is no plain file, UnicodeDecodeError where it is no such text.
    """
    descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, encoding="utf-8-sig") as file:  # noqa: PTH123  # opened already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(place))
        return file.read()


def is_plain(place: str | os.PathLike[str]) -> bool:
    """Return whether a plain file lies at a place, or a link leads to one."""
    try:
        return stat.S_ISREG(Path(place).stat().st_mode)
    except (OSError, ValueError):
        return False


def write_whole(target: Path, data: bytes) -> None:
    """Write a file that appears under its name whole or not at all, with the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.replace(target)
