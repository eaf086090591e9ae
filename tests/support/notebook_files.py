"""Notebook files of a few cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nbflow.flow.notebook import document_of


def write_cells(path: Path, cells: Mapping[str, str]) -> Path:
    """Write code cells by id as a notebook whose flow bears the file's name; return its path."""
    path.write_text(document_of(cells.items(), path.stem), encoding="utf-8")
    return path
