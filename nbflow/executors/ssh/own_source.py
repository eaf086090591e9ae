"""nbflow as it is installed here: what tells its code from another one's, and the wheel that carries it to a box."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import sys
import zipfile
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path

import msgspec

import nbflow

PACKAGE = Path(nbflow.__file__).parent

NOT_NEEDED = ("jupyterlab",)
"""Requirements that no worker has a use for."""


class SourceWheel(msgspec.Struct, frozen=True):
    """nbflow as it is installed here, as a wheel."""

    file: str
    data: bytes
    extras: tuple[str, ...]

    @property
    def environment(self) -> str:
        """The name of an environment that holds it."""
        digest = hashlib.sha256(self.data + ",".join(self.extras).encode()).hexdigest()[:12]
        return f"{sys.version_info.major}.{sys.version_info.minor}-{version('nbflow')}-{digest}"


@cache
def source_wheel() -> SourceWheel:
    """Return the wheel; the same bytes for the same files."""
    name = f"nbflow-{version('nbflow')}"
    files = {f"nbflow/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes() for path in _sources()}
    about = (distribution("nbflow").read_text("METADATA") or "").splitlines()
    head = [line for line in about[: about.index("") if "" in about else None] if not _is_left_out(line)]
    files[f"{name}.dist-info/METADATA"] = ("\n".join(head) + "\n").encode()
    files[f"{name}.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: nbflow\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = f"{name}.dist-info/RECORD"
    files[record] = "".join([*(_recorded(each, data) for each, data in files.items()), f"{record},,\n"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, data in files.items():
            archive.writestr(zipfile.ZipInfo(each, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    extras = tuple(extra for extra, module in {"s3": "s3fs"}.items() if importlib.util.find_spec(module))
    return SourceWheel(f"{name}-py3-none-any.whl", out.getvalue(), extras)


@cache
def source_id() -> str:
    """Return what tells nbflow's code from another one's, whatever version both bear."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    """Return the files that a worker may need: the front end is none of them."""
    below = (path for path in PACKAGE.rglob("*") if path.suffix == ".py" or path.name == "py.typed")
    return sorted(path for path in below if path.relative_to(PACKAGE).parts[0] not in {"labextension", "static"})


def _is_left_out(line: str) -> bool:
    return any(line.startswith(f"Requires-Dist: {name}") for name in NOT_NEEDED)


def _recorded(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"
