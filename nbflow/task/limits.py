"""How much of the machine a task may use: threads of numeric libraries, and GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
TASK_VARIABLE = "NBFLOW_TASK"
"""Set in a task's process, so that what it starts can be told from what others start."""

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
NUMERIC = ("numpy", "scipy", "sklearn", "torch")


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def controller() -> Any:
    """Return what limits the thread pools of the libraries loaded by now, None without any; cheap when made ahead."""
    if not any(name in sys.modules for name in NUMERIC):
        return None
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
    except ImportError:
        return None
    return ThreadpoolController()


def set_threads(threads: int, own: Mapping[str, str | None], pools: Any = None) -> None:
    """Allow numeric libraries at most `threads` threads; 0: as many as the user's environment says, else all cores.

    `own` are the variables as they were before a supervisor set them to 1; `pools` is a `controller()`.
    """
    for name in THREAD_VARIABLES:
        value = str(threads) if threads else own.get(name)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    limit = threads or _number(own.get("OMP_NUM_THREADS")) or cores()
    pools = pools or controller()
    if pools is not None:
        pools.limit(limits=limit)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(limit)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def show_gpus(devices: Sequence[str]) -> None:
    """Show these GPUs, or none, to libraries that ask from now on."""
    os.environ[GPU_VARIABLE] = ",".join(devices)


@cache
def gpus() -> tuple[str, ...]:
    """Return the ids of the GPUs that this process may use; ask the machine once.

    `NBFLOW_GPUS=2` says how many there are; else CUDA_VISIBLE_DEVICES names them, or the driver does.
    """
    setting = os.environ.get("NBFLOW_GPUS", "")
    if setting.isdecimal():
        return tuple(map(str, range(int(setting))))
    visible = os.environ.get(GPU_VARIABLE)
    if visible is not None:
        return tuple(filter(None, (name.strip() for name in visible.split(","))))
    count = sum(each.name[6:].isdecimal() for each in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(map(str, range(count or _asked_of_driver())))


def _asked_of_driver() -> int:
    """Return how many devices `nvidia-smi` lists, for systems where they are no files."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.splitlines())


def memory() -> int | None:
    """Return the bytes of memory that this machine or container has, None where that cannot be told."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(place).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            size = min(size, int(text))
    return size
