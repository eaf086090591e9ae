"""Vega-Lite specifications → what they say in words, and the data that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def words(spec: Mapping[str, Any]) -> str:
    """A specification in; its mark and fields in a line out."""
    mark = spec.get("mark", "")
    kind = mark.get("type", "") if isinstance(mark, Mapping) else str(mark)
    axes = [f"{name}: {one['field']}" for name, one in (spec.get("encoding") or {}).items() if "field" in (one or {})]
    return f"Vega-Lite chart ({', '.join(part for part in (kind, *axes) if part)}), shown as data"


def rows(spec: Mapping[str, Any]) -> Any:
    """A specification in; the rows that stand in it out, None where its data is elsewhere."""
    data = spec.get("data") or {}
    named = (spec.get("datasets") or {}).get(data.get("name"))
    return data.get("values") or named
