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
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def controller() -> Any:
    """What sets the thread pools of the libraries that are loaded by now, or None; made ahead it costs nothing."""
    if not any(name in sys.modules for name in NUMERIC):
        return None
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
    except ImportError:
        return None
    return ThreadpoolController()


def set_threads(threads: int, own: Mapping[str, str | None], pools: Any = None) -> None:
    """At most `threads` threads in numeric libraries, 0 for as many as the user's environment says or all cores.

    `own` are the variables as they were before a supervisor set them to 1; `pools` is a `controller()`.
    """
    for name in THREAD_VARIABLES:
        value = str(threads) if threads else own.get(name)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    wanted = threads or _number(own.get("OMP_NUM_THREADS")) or cores()
    pools = pools or controller()
    if pools is not None:
        pools.limit(limits=wanted)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(wanted)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def show_gpus(devices: Sequence[str]) -> None:
    """These GPUs, or none, are all that libraries find that ask from now on."""
    os.environ[GPU_VARIABLE] = ",".join(devices)


@cache
def gpus() -> tuple[str, ...]:
    """The ids of the GPUs that this process may use; asked of the machine once.

    `NBFLOW_GPUS=2` says how many there are; else CUDA_VISIBLE_DEVICES names them, or the driver does.
    """
    told = os.environ.get("NBFLOW_GPUS", "")
    if told.isdecimal():
        return tuple(map(str, range(int(told))))
    visible = os.environ.get(GPU_VARIABLE)
    if visible is not None:
        return tuple(filter(None, (name.strip() for name in visible.split(","))))
    found = sum(each.name[6:].isdecimal() for each in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(map(str, range(found or _asked_of_driver())))


def _asked_of_driver() -> int:
    """Where the devices are no files: what `nvidia-smi` lists."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in told.splitlines())


def memory() -> int | None:
    """Bytes of memory that this machine, or the container that we are in, has; None where that cannot be told."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(place).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            found = min(found, int(text))
    return found
