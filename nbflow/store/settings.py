"""Settings of the notebooks of one folder, kept in `.nbflow/config.json` beside them: read, and written.

`store` is where their runs are kept, `size` how many bytes a datastore may hold before it is told of, `ignore` holds
for each notebook the ids of plain cells that no run may take.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nbflow.errors import OptionError, StoreError
from nbflow.flow.options import parse_size
from nbflow.model import Cell, Finding, Notebook
from nbflow.plain_files import read_text, write_whole
from nbflow.store import trust
from nbflow.store.interface import ABOUT, SETTINGS
from nbflow.store.local import LocalStore


def settings_path(folder: str | os.PathLike[str]) -> Path:
    """Return where the settings of a folder's notebooks lie."""
    return Path(folder) / ".nbflow" / SETTINGS


def read_settings(folder: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the settings of a folder's notebooks; StoreError where the file cannot be understood."""
    place = settings_path(folder)
    try:
        settings = json.loads(read_text(place))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:  # a file in the folder's place: told where the datastore is opened
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise StoreError(f"{place} cannot be understood: {error}", fix="correct or delete it") from None
    if not isinstance(settings, dict):
        raise StoreError(f"{place} cannot be understood: it is not a JSON object", fix="correct or delete it")
    return settings


def write_setting(folder: str | os.PathLike[str], name: str, value: Any) -> None:
    """Keep a setting of a folder's notebooks; UntrustedError where those that there are came with the folder."""
    place = settings_path(folder)
    store = LocalStore(str(place.parent.absolute()))
    store.require_trust()
    settings = read_settings(folder) if place.exists() else {}
    if not store.exists(ABOUT):  # settings alone are known by an id of their own
        settings = {**settings, "id": settings.get("id") or trust.new_identity()}
        trust.remember(store.url, str(settings["id"]))  # first: another process may read them at once
    write_whole(place, f"{json.dumps({**settings, name: value}, indent=2)}\n".encode())


MOST = "20G"
"""The size of a datastore from which on it is told of, where nothing else is set."""


def most_bytes(folder: str | os.PathLike[str]) -> int:
    """Return how many bytes a datastore may hold before it is told of; StoreError where the setting is no size."""
    size = read_settings(folder).get("size", MOST)
    try:
        return parse_size(str(size))
    except ValueError as error:
        place = settings_path(folder)
        raise StoreError(f"{place} cannot be understood: size: {error}", fix="correct or delete it") from None


# ---------------------------------------------------------------- cells that no run may take


def ignored(notebook: Notebook) -> frozenset[str]:
    """Return the ids of the notebook's cells that no run may take."""
    by_notebook = read_settings(notebook.folder).get("ignore")
    cells = by_notebook.get(notebook.name, ()) if isinstance(by_notebook, dict) else ()
    return frozenset(map(str, cells))


def ignore(notebook: Notebook, word: str) -> Cell:
    """Keep that no run may take a plain cell, named by its id or its position; OptionError where it is none."""
    cell = _plain_cell(notebook, word)
    by_notebook = read_settings(notebook.folder).get("ignore")
    entries = dict(by_notebook) if isinstance(by_notebook, dict) else {}
    write_setting(notebook.folder, "ignore", {**entries, notebook.name: sorted({*ignored(notebook), cell.id})})
    return cell


def _plain_cell(notebook: Notebook, word: str) -> Cell:
    word = word.removeprefix("cell:").removeprefix("cell").strip()
    matches = [cell for cell in notebook.cells if word in (cell.id, str(cell.position))]
    match = next((cell for cell in matches if cell.kind == "plain"), None)
    if match is not None:
        return match
    if matches:
        raise OptionError(
            f"cell {matches[0].position} is not a plain cell; only plain cells can be left out of the flow",
            fix="make it a plain cell, or delete it",
        )
    plain = ", ".join(str(cell.position) for cell in notebook.cells if cell.kind == "plain")
    raise OptionError(f"there is no cell {word!r}", fix=f"plain cells: {plain or 'none'}")


def without_ignored(notebook: Notebook) -> Notebook:
    """Return a notebook whose ignored cells take no part in its flow, each with a finding that says so.

    A file that cannot be understood is told of where the datastore is looked for.
    """
    try:
        names = ignored(notebook)
    except StoreError:
        return notebook
    left_out = [cell for cell in notebook.cells if cell.id in names and cell.kind == "plain"]
    if not left_out:
        return notebook
    cells = (
        msgspec.structs.replace(cell, kind="control", body="") if cell in left_out else cell for cell in notebook.cells
    )
    findings = (*notebook.findings, *(_ignored(notebook, cell) for cell in left_out))
    return msgspec.structs.replace(notebook, cells=tuple(cells), findings=findings)


def _ignored(notebook: Notebook, cell: Cell) -> Finding:
    return Finding(
        code="ignored", level="note", cell=cell.id, line=1,
        message=f"cell {cell.position} takes no part in runs: `%flow config ignore` left it out",
        fix=f"take {cell.id!r} out of {settings_path(notebook.folder)} to have it back",
    )  # fmt: skip
