"""Arrays ↔ buffers without copies: NumPy of every layout, views that share memory, masked arrays, torch storages.

Nothing here imports NumPy or torch: whoever has such a value has imported them.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from nbflow.store.serialize.rebuild import make_array, make_masked, make_region, make_storage, make_tensor, make_view

SMALL = 64 << 10
"""Buffers below this many bytes stay inside the stream."""

SIMPLE_KINDS = "biufcSUMm?"


class Region:
    """A stretch of memory that several arrays look into, from address `low` to `high`; `owner` keeps it alive."""

    __slots__ = ("high", "low", "owner")

    def __init__(self, low: int, high: int, owner: Any) -> None:
        self.low = low
        self.high = high
        self.owner = owner

    def reduction(self) -> tuple[Any, ...]:
        """How the region is pickled: its bytes, once."""
        memory = (ctypes.c_ubyte * (self.high - self.low)).from_address(self.low)
        memory.owner = self.owner  # type: ignore[attr-defined]  # the bytes live as long as whoever holds this view
        return make_region, (pickle.PickleBuffer(memory),)


def root_of(array: Any) -> Any:
    """An array in; the object that owns its memory, itself when that is its own, out."""
    owner = array
    ndarray = sys.modules["numpy"].ndarray
    while True:
        below = owner.base if isinstance(owner, ndarray) else owner.obj if isinstance(owner, memoryview) else None
        if below is None:
            return owner
        owner = below


def memory_key(root: Any) -> int:
    """What owns some memory in; a number that is the same for whatever else looks into that memory out.

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
    """An array in; the first and one past the last address that it reaches out."""
    low = high = array.__array_interface__["data"][0]
    for count, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += (count - 1) * stride
        else:
            high += (count - 1) * stride
    return low, high + array.itemsize


def regions_of(arrays: Sequence[Any], owner: Any) -> list[Region]:
    """Arrays that share one owner in; the stretches that more than one of them reaches out, empty when none overlap."""
    spans = sorted((span(array) for array in arrays), key=lambda each: each[0])
    found: list[Region] = []
    (low, high), shared = spans[0], False
    for start, end in spans[1:]:
        if start < high:
            high, shared = max(high, end), True
            continue
        if shared:
            found.append(Region(low, high, owner))
        low, high, shared = start, end, False
    return [*found, Region(low, high, owner)] if shared else found


def reduce_array(array: Any) -> Any:
    """A NumPy array in; a reduction with its memory as a buffer, or NotImplemented when NumPy's own serves, out."""
    # NumPy's own makes what it copies writable and lays it along the columns
    kept = array.flags.c_contiguous or (array.flags.f_contiguous and array.flags.writeable)
    if (array.nbytes < SMALL and kept) or array.dtype.hasobject:
        return NotImplemented
    numpy = sys.modules["numpy"]
    plain = array if type(array) is numpy.ndarray else numpy.asarray(array)
    flags = plain.flags
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    if not (flags.c_contiguous or flags.f_contiguous):
        plain = plain.copy(order="K")  # in the order of its memory: sums add up in it
        if not (plain.flags.c_contiguous or plain.flags.f_contiguous):
            plain = plain.copy(order="C")
        order = "C" if plain.flags.c_contiguous else "F"
    flat = plain.ravel(order="K").view(numpy.uint8)
    layout = (pickle.PickleBuffer(flat), dtype_name(plain.dtype), plain.shape, order)
    return make_array, layout if array.flags.writeable else (*layout, False)


def reduce_view(array: Any, region: Region) -> tuple[Any, ...]:
    """An array and the region that it lies in, in; a reduction that keeps them one memory out."""
    low = array.__array_interface__["data"][0]
    layout = (region, dtype_name(array.dtype), array.shape, array.strides, low - region.low)
    return make_view, layout if array.flags.writeable else (*layout, False)


def reduce_masked(array: Any) -> tuple[Any, ...]:
    """A masked array in; a reduction of its data and mask as arrays out (NumPy's own copies both into the stream)."""
    return make_masked, (array.data, array.mask, array.fill_value, array.hardmask)


def dtype_name(dtype: Any) -> Any:
    """A dtype in; its short name where that says everything, else the dtype itself, out."""
    plain = dtype.kind in SIMPLE_KINDS and dtype.fields is None and dtype.metadata is None and dtype.subdtype is None
    return dtype.str if plain else dtype


def reduce_dtype(dtype: Any) -> Any:
    """A dtype in; a reduction after which equal ones are one object again, as they are before, out.

    NumPy's own makes a new object each time: what is stored after loading would differ from what was stored first.
    """
    name = "O" if dtype.isbuiltin == 1 and dtype.kind == "O" else dtype_name(dtype)
    return NotImplemented if name is dtype else (sys.modules["numpy"].dtype, (name,))


# ---------------------------------------------------------------- torch


def reduce_tensor(tensor: Any, storages: dict[int, Any]) -> Any:
    """A tensor in; a reduction over its storage, shared between tensors that share it, or NotImplemented, out."""
    torch = sys.modules["torch"]
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
    if not plain or tensor.is_conj() or tensor.is_neg() or type(tensor) not in {torch.Tensor, torch.nn.Parameter}:
        return NotImplemented
    found = tensor.untyped_storage()
    storage = storages.setdefault(found.data_ptr() or id(found), found)
    layout = (tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
    kind = "parameter" if type(tensor) is torch.nn.Parameter else "result" if tensor.grad_fn is not None else ""
    return make_tensor, (storage, tensor.dtype, *layout, tensor.requires_grad, kind, dict(tensor.__dict__))


def storage_bytes(storage: Any) -> Any:
    """A torch storage in main memory in; its bytes as a NumPy array, None where it lies elsewhere, out."""
    torch = sys.modules["torch"]
    if storage.device.type != "cpu":
        return None
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def reduce_storage(flat: Any, region: Region | None) -> tuple[Any, ...]:
    """A storage's bytes, and the region that they lie in, in; a reduction out."""
    if region is not None:
        return make_storage, (region, flat.__array_interface__["data"][0] - region.low, flat.nbytes)
    return make_storage, (pickle.PickleBuffer(flat), 0, flat.nbytes)
