"""How much of the machine a task may use: threads of numeric libraries, and GPUs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
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


def hide_gpus() -> None:
    """No GPU for libraries that ask from now on."""
    os.environ[GPU_VARIABLE] = ""
