"""What users' code hands over → JSON's own types and text that UTF-8 can hold, as Jupyter would send it."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

_SURROGATES = re.compile("[\ud800-\udfff]")
_T = TypeVar("_T")
_KEPT = (bytes, bytearray, memoryview)


def text(value: str) -> str:
    """Return a string's characters as a plain `str`, with U+FFFD for those that have no place in UTF-8.

    A subclass has its own ideas of what it is (`markupsafe.Markup`, a component of a card), and no encoder takes it.
    The names of files that are not UTF-8 have halves of surrogate pairs in Python.
    """
    exact = str.__str__(value)
    return exact if exact.isascii() else _SURROGATES.sub("\ufffd", exact)


def jsonable(value: Any) -> Any:
    """Return a MIME bundle, its metadata or a part of it as `dict`, `list`, `str`, `int`, `float`, `bool` and None.

    What stands in a notebook is what Jupyter makes of a value, so this does the same: keys and subclasses become text
    and numbers, bytes base64, infinite numbers their names. What Jupyter refuses becomes text. Integers of more than 64
    bits are rounded, as they are in a page. ValueError or RecursionError for a value that holds itself.
    """
    if isinstance(value, str):
        return text(value)
    with contextlib.suppress(TypeError, ValueError):  # other keys than text, or NaN: rare, and slower
        return _parsed(json.dumps(value, default=_plainer, allow_nan=False, ensure_ascii=False))
    return _parsed(json.dumps(_cleaned(value), ensure_ascii=False))


def _parsed(packed: str) -> Any:
    return json.loads(text(packed), parse_int=_whole)


def _whole(digits: str) -> int | float | str:
    number = int(digits)
    if -(2**63) <= number < 2**64:
        return number
    rounded = float(digits)
    return rounded if math.isfinite(rounded) else digits


def _plainer(value: Any) -> Any:
    """Return the next simpler form of what JSON does not know."""
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, _KEPT):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, enum.Enum):
        return value.value
    if callable(getattr(value, "tolist", None)):  # NumPy's arrays and numbers
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    return text(str(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else float.__repr__(value)
    if isinstance(value, dict):
        return {text(str(key)): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each) for each in value]
    return _cleaned(_plainer(value))


def exact(value: Any) -> Any:
    """Return a string or number of a subclass as one of the class itself."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"records hold no values of type {type(value).__name__}")


_JSON = msgspec.json.Encoder(enc_hook=exact).encode
_MSGPACK = msgspec.msgpack.Encoder(enc_hook=exact).encode


def to_json(value: Any) -> bytes:
    """Return a record or an event as JSON; names, types and previews in it may be text of any kind."""
    return _encoded(_JSON, value)


def from_json(data: bytes, kind: type[_T]) -> _T | None:
    """Return what a file of the store says, None where it is empty, torn, foreign or of another type: then it is none.

    Every file and line that is read from a store goes through here: what cannot be read counts as not there.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def to_msgpack(value: Any) -> bytes:
    """Return a message as msgpack; names, types and previews in it may be text of any kind."""
    return _encoded(_MSGPACK, value)


def _encoded(encode: Callable[[Any], bytes], value: Any) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError:
        return encode(readable(msgspec.to_builtins(value, builtin_types=_KEPT, enc_hook=exact)))


def readable(value: Any) -> Any:
    """Return a value of JSON's types with texts that UTF-8 can hold."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {readable(key): readable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [readable(each) for each in value]
    return value
