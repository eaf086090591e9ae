"""A value → a short text that changes when the value does: tells "unchanged" in memory, never a key in a store.

Memory is hashed where it lies; only what has no cheaper way is pickled, into a hash instead of a buffer.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import sys
import types
from collections.abc import Iterable
from typing import Any

import xxhash

from nbflow.store.serialize.inspection import answered, attribute, is_a
from nbflow.store.serialize.pickler import SCALARS, Pickler, Pickling, Sink, out_of_band
from nbflow.store.serialize.registry import Registry

UNSTABLE_PACKAGES = frozenset({"matplotlib"})
"""Drawing a figure changes its caches, so its pickle says nothing: it is told by what it shows."""

SHOWN = (
    "get_xydata", "get_offsets", "get_paths", "get_path", "get_bbox", "get_array", "get_text", "get_visible",
    "get_color", "get_facecolor", "get_edgecolor", "get_alpha", "get_label", "get_xlim", "get_ylim", "get_zorder",
    "get_linewidth", "get_linestyle", "get_marker", "get_markersize", "get_fontsize", "get_rotation", "get_xscale",
    "get_yscale", "get_aspect",
)  # fmt: skip
"""What an artist shows, as far as drawing it does not change the answer."""

CACHES = frozenset({"_stop_words_id"})
"""Attributes of scikit-learn's estimators that are set by a first prediction."""

LAID_OUT = frozenset({"XAxis", "YAxis", "Spine", "Legend", "Colorbar"})
"""Artists that are placed anew with every drawing: only their texts count."""


def fingerprint(value: Any, registry: Registry | None = None, *, by_value: bool = False) -> str | None:
    """Return a text that is the same as long as the value is, None when that cannot be told.

    Compare only texts made in one process. Takes about 0.1 s for 1 GB of arrays; never copies them. `by_value` makes
    the texts of two equal objects the same: which of an object's equal strings are one object depends on what its
    process had interned when it was loaded. It costs a call for every part of the value.
    """
    # the user's own __reduce__ and __getstate__ run here, and may raise anything
    return answered(lambda: _fingerprint(value, registry, by_value), None)


def _fingerprint(value: Any, registry: Registry | None, by_value: bool) -> str:
    kind = type(value)
    if kind in SCALARS:
        return _scalar(value)
    if is_a(value, types.ModuleType) or _is_function_in_c(value):
        return f"id:{id(value)}"
    if is_a(value, type) and (registry is None or not is_made(value, registry)):
        return f"id:{id(value)}"
    head = f"x:{kind.__module__}.{kind.__qualname__}"
    digest = xxhash.xxh3_128()
    if artists := _artists(value):
        digest.update(repr([*value]).encode() if is_a(value, dict) else b"")
        for artist in artists:
            _add_figure(artist, digest)
    elif not _add_array(value, digest):
        pickling, marking = Pickling(registry or Registry()), _ByValue if by_value else _Marking
        pickler = marking(pickling, _Sink(digest), {}, out_of_band(digest.update))
        try:
            pickler.dump(value)
        except Exception:  # as `pickler._try`: then as its class would have it pickled
            if not pickler.stateful:
                raise
            digest = xxhash.xxh3_128()
            pickler = marking(pickling, _Sink(digest), {}, out_of_band(digest.update))
            pickler.whole = False
            pickler.dump(value)
    return f"{head}:{digest.hexdigest()}"


def is_made(kind: type, registry: Registry) -> bool:
    """Return whether a class is data: no statement of the notebook defines it (`K = type("K", (), {})`)."""
    return attribute(kind, "__module__") == "__main__" and registry.reference(kind) is None


def holds_classes(value: Any, registry: Registry) -> bool:
    """Return whether a value holds a class that is data: loaded once more, it is the class that is here already."""
    pickler = _Marking(Pickling(registry), _Sink(xxhash.xxh3_128()), {}, out_of_band(lambda _: None))
    answered(lambda: pickler.dump(value), None)  # what cannot be pickled is no stored value
    return bool(pickler.made)


def _is_function_in_c(value: Any) -> bool:
    """Return whether a value is a function written in C; `row.append` is none, it changes with its object."""
    return is_a(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType | None)


def is_artist(value: Any) -> bool:
    """Return whether a value is a matplotlib figure or a part of one: all parts of a figure hold each other."""
    package = attribute(type(value), "__module__", "")
    return is_a(package, str) and package.partition(".")[0] in UNSTABLE_PACKAGES and hasattr(value, "get_children")


def show_as_drawn(values: Iterable[Any]) -> None:
    """Have figures among loaded values shown as where they were drawn: that has loaded the backend, which does it."""
    if any(map(holds_artists, values)):
        import matplotlib.pyplot as plt

        plt.draw_if_interactive()  # type: ignore[no-untyped-call]


def holds_artists(value: Any) -> bool:
    """Return whether a value is an artist, or an array, list or dict of nothing else."""
    return answered(lambda: bool(_artists(value)), False)  # what is answered where nothing is


def _artists(value: Any) -> list[Any]:
    """Return the artists that a value consists of, none where it holds anything else."""
    numpy = sys.modules.get("numpy")
    parts: Any = [value]
    if is_a(value, dict):
        parts = list(value.values())
    elif is_a(value, list | tuple):
        parts = value
    elif numpy is not None and is_a(value, numpy.ndarray):
        parts = value.ravel() if value.dtype.hasobject else []
    return list(parts) if all(map(is_artist, parts)) else []


class _Sink:
    """A file that only hashes what is written to it."""

    def __init__(self, digest: xxhash.xxh3_128) -> None:
        self._digest = digest

    def write(self, data: Any, /) -> int:
        """Hash bytes and return how many they are."""
        self._digest.update(data)
        return len(data) if isinstance(data, bytes) else memoryview(data).nbytes


class _Marking(Pickler):
    """Leaves out what scikit-learn's objects count and look up while they predict: it says nothing of what they are."""

    keeps_blocks = False

    def reducer_override(self, value: Any) -> Any:
        """Return how a part of the value is written."""
        if type(value).__module__.startswith("sklearn.") and (reduced := _uncounted(value)) is not None:
            return reduced
        return super().reducer_override(value)


def _uncounted(value: Any) -> Any:
    """Return the reduction of a tree or vectorizer without its counters and caches, None for anything else."""
    if hasattr(value, "get_tree_stats"):  # of neighbours: arrays, and numbers that are sizes and counters of queries
        state = value.__getstate__()
        return object, (), [each for each in state if not isinstance(each, int)]
    if CACHES.isdisjoint(getattr(value, "__dict__", ())):
        return None
    constructor, arguments, state, *_ = value.__reduce_ex__(5)
    return constructor, arguments, {key: each for key, each in state.items() if key not in CACHES}


class _ByValue(_Marking):
    """Writes each string as the place of its first equal, and its text at the end of all."""

    def __init__(self, pickling: Pickling, stream: Sink, *rest: Any) -> None:
        super().__init__(pickling, stream, *rest)
        self._stream = stream
        self._places: dict[str | bytes, int] = {}

    def persistent_id(self, value: Any) -> int | None:
        """Return where a part's text stands, None when the part is no text."""
        return self._places.setdefault(value, len(self._places)) if type(value) in {str, bytes} else None

    def dump(self, value: Any) -> None:
        """Write the value's stream, then its texts."""
        super().dump(value)
        self._stream.write(repr([*self._places]).encode(errors="surrogatepass"))


def _scalar(value: Any) -> str:
    if isinstance(value, str | bytes) and len(value) > 64:
        data = value.encode(errors="surrogatepass") if isinstance(value, str) else value
        return f"{type(value).__name__}:{len(data)}:{xxhash.xxh3_128_hexdigest(data)}"
    if isinstance(value, float) and not math.isnan(value):
        return f"float:{value.hex()}"
    if isinstance(value, int) and value.bit_length() > 4096:
        return f"int:{xxhash.xxh3_128_hexdigest(value.to_bytes(value.bit_length() // 8 + 1, 'big', signed=True))}"
    return f"{type(value).__name__}:{value!r}"


def _add_array(value: Any, digest: xxhash.xxh3_128) -> bool:
    """Add a plain NumPy array's memory to a hash, and return whether the value was such an array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.hasobject:
        return False
    digest.update(f"{value.dtype!r}{value.shape}{value.strides}".encode())
    if value.dtype.names is not None:
        # Without the padding between fields, which nobody sees and anything may fill.
        return all(_add_array(value[name], digest) for name in value.dtype.names)
    if not (value.flags.c_contiguous or value.flags.f_contiguous):
        # Row by row of the first axis: a copy of one row at a time instead of all.
        for row in value:
            digest.update(numpy.ascontiguousarray(row).view(numpy.uint8).data)
        return True
    if value.size:
        digest.update(value.ravel(order="K").view(numpy.uint8).data)
    return True


def _add_figure(value: Any, digest: xxhash.xxh3_128) -> None:
    """Add what a matplotlib artist and its parts show to a hash."""
    digest.update(type(value).__qualname__.encode())
    for name in SHOWN:
        getter = getattr(value, name, None)
        if getter is None:
            continue
        with contextlib.suppress(TypeError, AttributeError, ValueError):  # one that needs arguments or a canvas
            digest.update(pickle.dumps(_plain(getter()), 5))
    for part in value.get_children():
        if type(part).__name__ not in LAID_OUT:
            _add_figure(part, digest)
            continue
        label = getattr(part, "label", None)
        texts = [label] if label is not None else part.get_texts() if hasattr(part, "get_texts") else []
        digest.update(repr([text.get_text() for text in texts]).encode())
        for kind in ("major", "minor") if hasattr(part, "get_major_locator") else ():
            locator, form = getattr(part, kind).locator, getattr(part, kind).formatter
            ticks = [type(locator).__name__, getattr(locator, "locs", None), getattr(form, "seq", None)]
            digest.update(repr([ticks, getattr(part, f"_{kind}_tick_kw"), part.get_visible()]).encode())


def _plain(answer: Any) -> Any:
    """Return a form without caches of what an artist's getter answered."""
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in answer]
    vertices = getattr(answer, "vertices", None)
    if vertices is not None:
        return vertices.tobytes(), None if answer.codes is None else answer.codes.tobytes()
    if hasattr(answer, "bounds"):
        return tuple(answer.bounds)
    return answer.tobytes() if hasattr(answer, "tobytes") else str(answer)
