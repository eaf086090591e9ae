"""Arrays ↔ buffers without copies: NumPy of every layout, views that share memory, masked arrays, torch storages.

Nothing here imports NumPy or torch: whoever has such a value has imported them.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from nbflow.store.serialize.rebuild import (
    fill_own,
    make_array,
    make_masked,
    make_of_kind,
    make_part,
    make_region,
    make_storage,
    make_strided,
    make_tensor,
    make_view,
)

SMALL = 64 << 10
"""Buffers below this many bytes stay inside the stream."""

SIMPLE_KINDS = "biufcSUMm?"

ROOM = 16
"""An array that is taken from a larger one by itself gets this many times its size of memory at most."""


class Region:
    """A stretch of memory that several arrays look into, from address `low` to `high`; `owner` keeps it alive."""

    __slots__ = ("high", "low", "owner")

    def __init__(self, low: int, high: int, owner: Any) -> None:
        self.low = low
        self.high = high
        self.owner = owner

    def holds(self, array: Any) -> bool:
        """Return whether an array lies in the region, if in any of its owner's."""
        return bool(self.low <= array.__array_interface__["data"][0] < self.high)

    def reduction(self) -> tuple[Any, ...]:
        """Return how the region is pickled: its bytes, once."""
        memory = (ctypes.c_ubyte * (self.high - self.low)).from_address(self.low)
        memory.owner = self.owner  # type: ignore[attr-defined]  # the bytes live as long as whoever holds this view
        return make_region, (pickle.PickleBuffer(memory),)


def root_of(array: Any) -> Any:
    """Return the object that owns an array's memory, the array itself when that is its own."""
    owner = array
    ndarray = sys.modules["numpy"].ndarray
    while True:
        below = owner.base if isinstance(owner, ndarray) else owner.obj if isinstance(owner, memoryview) else None
        if below is None:
            return owner
        owner = below


def memory_key(root: Any) -> int:
    """Return a number for the owner of some memory that is the same for whatever else looks into that memory.

    With torch loaded that is the address: `torch.from_numpy(a)` and `a` have different owners of one memory.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return id(root)
    if isinstance(root, torch.Tensor) and root.device.type == "cpu":
        return int(root.untyped_storage().data_ptr())
    if isinstance(root, sys.modules["numpy"].ndarray):
        return int(root.__array_interface__["data"][0])
    return id(root)


def span(array: Any) -> tuple[int, int]:
    """Return the first address that an array reaches, and one past the last."""
    low = high = array.__array_interface__["data"][0]
    for count, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += (count - 1) * stride
        else:
            high += (count - 1) * stride
    return low, high + array.itemsize


def regions_of(arrays: Sequence[Any], owner: Any) -> list[Region]:
    """Return the stretches that more than one of some arrays of one owner reaches, none where none overlap."""
    spans = sorted((span(array) for array in arrays), key=lambda each: each[0])
    regions: list[Region] = []
    (low, high), is_shared = spans[0], False
    for start, end in spans[1:]:
        if start < high:
            high, is_shared = max(high, end), True
            continue
        if is_shared:
            regions.append(Region(low, high, owner))
        low, high, is_shared = start, end, False
    return [*regions, Region(low, high, owner)] if is_shared else regions


def reduce_array(array: Any) -> Any:
    """Return a reduction of a NumPy array with its memory as a buffer, or NotImplemented where NumPy's own serves."""
    # NumPy's own makes what it copies writable and lays it along the columns
    same_layout = array.flags.c_contiguous or (array.flags.f_contiguous and array.flags.writeable)
    if (array.nbytes < SMALL and same_layout) or array.dtype.hasobject:
        return NotImplemented
    numpy = sys.modules["numpy"]
    plain = array if type(array) is numpy.ndarray else numpy.asarray(array)
    flags = plain.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        low, high = span(plain)
        if high - low <= max(ROOM * plain.nbytes, SMALL):
            return _reduce_strided(plain, low)
        plain = plain.copy(order="K")  # in the order of its memory: sums add up in it
        if not (plain.flags.c_contiguous or plain.flags.f_contiguous):
            plain = plain.copy(order="C")
    order = "C" if plain.flags.c_contiguous else "F"
    flat = plain.ravel(order="K").view(numpy.uint8)
    layout = (pickle.PickleBuffer(flat), dtype_name(plain.dtype), plain.shape, order)
    return make_array, layout if array.flags.writeable else (*layout, False)


def _reduce_strided(array: Any, low: int) -> tuple[Any, ...]:
    """Return a reduction of an array with gaps, whose memory begins at `low`: what is between is left out.

    How far its elements lie apart stays as it is: sums and products of the same numbers differ with it.
    """
    numpy = sys.modules["numpy"]
    flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    start = array.__array_interface__["data"][0] - low
    layout = (dtype_name(array.dtype), array.shape, array.strides, start, bool(array.flags.writeable))
    return make_strided, (pickle.PickleBuffer(flat), *layout)


def reduce_view(array: Any, region: Region) -> Any:
    """Return a reduction of an array over the region that it lies in, so that all arrays in it stay one memory."""
    low = array.__array_interface__["data"][0]
    if array.dtype.hasobject:
        # Memory of objects is no bytes: the array that owns it is written once, and views are cut from that.
        root = region.owner
        if array is root:
            return NotImplemented
        start = root.__array_interface__["data"][0]
        return make_part, (root, array.shape, array.strides, low - start, bool(array.flags.writeable))
    layout = (region, dtype_name(array.dtype), array.shape, array.strides, low - region.low)
    return make_view, layout if array.flags.writeable else (*layout, False)


def has_memory(array: Any, root: Any) -> bool:
    """Return whether other arrays may look into an array's memory in a way that can be stored."""
    if not array.size:
        return False
    if not array.dtype.hasobject:
        return True
    plain = type(root) is sys.modules["numpy"].ndarray and array.dtype == root.dtype and array.dtype.kind == "O"
    return plain and bool(root.flags.c_contiguous or root.flags.f_contiguous)


def is_plain_view(kind: type) -> bool:
    """Return whether instances of a subclass of arrays are views of another kind that NumPy itself pickles."""
    plain = sys.modules["numpy"].ndarray
    own = ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__")
    return all(getattr(kind, name, None) is getattr(plain, name, None) for name in own)


def reduce_subclass(array: Any) -> tuple[Any, ...]:
    """Return a reduction of an array of a subclass (a matrix, records): a plain view, its kind, its attributes.

    NumPy's own copies the memory and forgets the attributes.
    """
    plain = array.view(sys.modules["numpy"].ndarray)
    attributes = getattr(array, "__dict__", None)
    return make_of_kind, (plain, type(array)), attributes or None, None, None, fill_own


def reduce_masked(array: Any) -> tuple[Any, ...]:
    """Return a reduction of a masked array's data and mask as arrays: NumPy's own copies both into the stream."""
    return make_masked, (array.data, array.mask, array.fill_value, array.hardmask)


def dtype_name(dtype: Any) -> Any:
    """Return a dtype's short name where that says everything, else the dtype itself."""
    plain = dtype.kind in SIMPLE_KINDS and dtype.fields is None and dtype.metadata is None and dtype.subdtype is None
    return dtype.str if plain else dtype


def reduce_dtype(dtype: Any) -> Any:
    """Return a reduction of a dtype after which equal dtypes are one object again, as they are before.

    NumPy's own makes a new object each time: what is stored after loading would differ from what was stored first.
    """
    name = "O" if dtype.isbuiltin == 1 and dtype.kind == "O" else dtype_name(dtype)
    return NotImplemented if name is dtype else (sys.modules["numpy"].dtype, (name,))


# ---------------------------------------------------------------- torch


def reduce_tensor(tensor: Any, storages: dict[int, Any]) -> Any:
    """Return a reduction of a tensor over its storage, which tensors may share, or NotImplemented."""
    torch = sys.modules["torch"]
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
    if not plain or tensor.is_conj() or tensor.is_neg() or type(tensor) not in {torch.Tensor, torch.nn.Parameter}:
        return NotImplemented
    own = tensor.untyped_storage()
    storage = storages.setdefault(own.data_ptr() or id(own), own)
    layout = (tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
    kind = "parameter" if type(tensor) is torch.nn.Parameter else "result" if tensor.grad_fn is not None else ""
    return make_tensor, (storage, tensor.dtype, *layout, tensor.requires_grad, kind, dict(tensor.__dict__))


def storage_bytes(storage: Any) -> Any:
    """Return the bytes of a torch storage as a NumPy array, None where it is not in main memory."""
    torch = sys.modules["torch"]
    if storage.device.type != "cpu":
        return None
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def reduce_storage(flat: Any, region: Region | None) -> tuple[Any, ...]:
    """Return a reduction of a storage's bytes, over the region that they lie in where there is one."""
    if region is not None:
        return make_storage, (region, flat.__array_interface__["data"][0] - region.low, flat.nbytes)
    return make_storage, (pickle.PickleBuffer(flat), 0, flat.nbytes)
