"""A value → its type, shape, size and a short preview, cheaply: nothing is converted, sorted or printed whole.

No `__repr__` that a notebook defines is called: it may be slow, endless, or say more than a preview should.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nbflow.flow.parameters import Config
from nbflow.store.serialize.inspection import answered
from nbflow.store.serialize.rebuild import Made

PREVIEW = 200
ITEMS = 6
DEPTH = 3
TEXT = 60
SIZED = (list, tuple, dict, set, frozenset, deque)
PLAIN_MODULES = frozenset("builtins datetime decimal fractions pathlib uuid zoneinfo ipaddress re enum".split())
"""Where a type's own `repr` is short and safe."""


class Description(NamedTuple):
    """What people are shown of a value; `nbytes` is approximate."""

    type: str
    shape: tuple[int, ...] | None
    nbytes: int
    preview: str


def describe(name: str, value: Any) -> Description:
    """Return a value's type, shape, bytes and a preview of at most 200 characters; never raises."""
    kind = answered(lambda: type_name(value), "object")
    try:
        return Description(kind, shape_of(value), nbytes_of(value), preview_of(value))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # properties and `__repr__` of the user's and libraries' objects may raise anything
        return Description(kind, None, 0, f"<{kind} {name}: {type(error).__name__}>")


def type_name(value: Any) -> str:
    """Return a value's type as people write it: `int`, `pandas.DataFrame`, `sklearn.svm.SVC`."""
    kind = type(value)
    if kind is Made:
        return "definition"
    module, name = str(kind.__module__), kind.__qualname__  # a module may be called anything, None for one
    if module in {"builtins", "__main__"}:
        return name
    parts = module.split(".")
    for end in range(1, len(parts)):
        prefix = ".".join(parts[:end])
        holder = sys.modules.get(prefix)
        if holder is not None and vars(holder).get(name) is kind:  # no getattr: lazy modules would import and warn
            return f"{prefix}.{name}"
    return f"{module}.{name}"


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return a value's shape, (length,) for a container, None for what has neither."""
    if isinstance(value, SIZED):
        return (len(value),)
    if type(value).__module__ in PLAIN_MODULES or type(value).__module__ == "__main__" or isinstance(value, type):
        return None
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(side, int) for side in shape):
        return None
    return tuple(shape)


def nbytes_of(value: Any) -> int:
    """Return roughly how many bytes of memory a value takes, for containers from a sample."""
    package = type(value).__module__.partition(".")[0]
    if package == "pandas":
        return _pandas_bytes(value)
    if package == "polars" and hasattr(value, "estimated_size"):
        return int(value.estimated_size())
    nbytes = None if package in {"builtins", "__main__"} else getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    size = sys.getsizeof(value, 64)
    if isinstance(value, SIZED) and value:
        size += _sampled(value)
    elif package not in PLAIN_MODULES and isinstance(getattr(value, "__dict__", None), dict):
        size += sum(nbytes_of(part) for part in itertools.islice(value.__dict__.values(), 50) if _is_leaf(part))
    return size


def _is_leaf(value: Any) -> bool:
    return not hasattr(value, "__dict__") or hasattr(value, "nbytes")


def _sampled(container: Any) -> int:
    """Return the bytes of a container's items, judged by the first few."""
    items = container.items() if isinstance(container, dict) else ((item,) for item in container)
    sample = list(itertools.islice(items, 8))
    per_item = sum(_item_bytes(part) for item in sample for part in item) / len(sample)
    return int(per_item * len(container))


def _item_bytes(item: Any) -> int:
    nbytes = getattr(item, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else sys.getsizeof(item, 64)


def _pandas_bytes(value: Any) -> int:
    blocks = getattr(getattr(value, "_mgr", None), "blocks", None)
    if blocks is None:
        nbytes = getattr(value, "nbytes", 0)
        return nbytes if isinstance(nbytes, int) else 0
    return sum(int(block.values.nbytes) for block in blocks) + int(getattr(value.index, "nbytes", 0))


# ---------------------------------------------------------------- previews


def preview_of(value: Any) -> str:
    """Return what a value looks like, in one line of at most 200 characters."""
    text = " ".join(_show(value, DEPTH).split())
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def _show(value: Any, depth: int) -> str:
    kind = type(value)
    if isinstance(value, str | bytes):
        return _show_text(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() < 4 * PREVIEW else f"an integer of {value.bit_length():,} bits"
    if kind in CONTAINERS:
        return _show_container(value, depth)
    if isinstance(value, type | types.FunctionType | types.ModuleType):
        return _show_named(value)
    if kind.__module__ in PLAIN_MODULES and not isinstance(value, (SIZED, bytearray)):
        return repr(value)[:PREVIEW]
    package = kind.__module__.partition(".")[0]
    if package in {"pandas", "polars"} and hasattr(value, "columns"):
        return _show_frame(value)
    if hasattr(value, "shape") and hasattr(value, "dtype") and package != "__main__":
        return _show_array(value)
    if package == "pandas":  # Timestamp, Interval, offsets
        return repr(value)[:PREVIEW]
    return _show_instance(value, depth)


def _show_text(value: str | bytes) -> str:
    limit = PREVIEW
    return repr(value[:limit]) + ("…" if len(value) > limit else "")


CONTAINERS: Mapping[type, tuple[str, str]] = types.MappingProxyType({
    list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("frozenset({", "})"),
    dict: ("{", "}"), Config: ("{", "}"), deque: ("deque([", "])"),
})  # fmt: skip


def _show_container(value: Any, depth: int) -> str:
    opening, closing = CONTAINERS[type(value)]
    if depth == 0 and value:
        return f"{opening}…{closing}"
    first = itertools.islice(value.items() if isinstance(value, dict) else value, ITEMS)
    if isinstance(value, dict):
        parts = [f"{_short(key, depth - 1)}: {_short(item, depth - 1)}" for key, item in first]
    else:
        parts = [_short(item, depth - 1) for item in first]
    if len(value) > ITEMS:
        parts.append(f"… {len(value):,} items")
    if not value and isinstance(value, set | frozenset):
        return f"{type(value).__name__}()"
    trailing = "," if type(value) is tuple and len(value) == 1 else ""
    return f"{opening}{', '.join(parts)}{trailing}{closing}"


def _short(value: Any, depth: int) -> str:
    text = _show(value, max(depth, 0))
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def _show_named(value: Any) -> str:
    if isinstance(value, types.FunctionType):
        code = value.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return f"{value.__qualname__}({', '.join(names)})"
    return f"{'class' if isinstance(value, type) else 'module'} {value.__name__}"


def _by(sides: Iterable[int]) -> str:
    return " × ".join(f"{side:,}" for side in sides)


def _show_frame(value: Any) -> str:
    labels = itertools.islice(value.columns, ITEMS + 1)
    dtypes = itertools.islice(value.dtypes, ITEMS + 1)
    parts = [f"{str(label)[:TEXT]} {dtype}" for label, dtype in zip(labels, dtypes, strict=False)]
    more = "…" if len(parts) > ITEMS else ""
    return f"{_by(value.shape)}: {', '.join(parts[:ITEMS])}{more}"


def _show_array(value: Any) -> str:
    name = getattr(value, "name", None)
    label = f"{str(name)[:TEXT]}: " if isinstance(name, str) and name else ""
    shape = tuple(value.shape)
    dtype = str(value.dtype).removeprefix("torch.")
    if not shape and dtype != "object":
        return _show_scalar(value)[:PREVIEW]
    head = f"{label}{dtype} × {_by(shape)}" if len(shape) == 1 else f"{label}{_by(shape)} {dtype}"
    if len(shape) == 1 and shape[0] <= 2 * ITEMS and hasattr(value, "tolist") and dtype != "object":
        return f"{head}: {_show_container(value.tolist(), 1)}"
    return head


def _show_scalar(value: Any) -> str:
    """Return a number of an array library as people write it: `11`, not `np.int64(11)`."""
    item = value.item() if type(value).__module__ == "numpy" else value
    return repr(item) if item is value or isinstance(item, bool | int | float | complex | str | bytes) else str(value)


def _show_instance(value: Any, depth: int) -> str:
    name = type(value).__qualname__.rpartition(".")[2]
    if isinstance(value, SIZED):
        return f"{name} of {len(value):,} items" if depth else f"{name}(…)"
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict):
        return f"{name}(…)" if type(value).__module__ == "__main__" else f"<{type_name(value)}>"
    public = [key for key in itertools.islice(attributes, 50) if isinstance(key, str) and not key.startswith("_")]
    if depth == 0 or not public:
        return f"{name}()" if not public else f"{name}(…)"
    parts = [f"{key}={_short(attributes[key], depth - 1)}" for key in public[:ITEMS]]
    more = ", …" if len(public) > ITEMS else ""
    return f"{name}({', '.join(parts)}{more})"
