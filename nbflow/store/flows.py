"""Which flow a notebook is, and which flows a datastore holds: an id made at the first run, kept in the store.

`flows/<flow>-<id>/flow.json` holds the flow's name now, the paths that its notebook has had and its cells' ids. A
renamed or moved notebook is recognised by its cells and keeps its runs; a copy beside an original that still exists is
a flow of its own, and so is another notebook in the place of one that was renamed or deleted. The notebook itself says
nothing of it: a copy would say the same.

Folders of format 1 (`flows/<flow>/`, without a `flow.json`) are flows too; the first run that such a flow has now gives
it an id, and its old runs stay where they are.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from nbflow.errors import AmbiguousFlow, NbflowError, NotFoundError, nearest
from nbflow.flow.notebook import parse_document, read_notebook
from nbflow.jsonable import from_json
from nbflow.model import Cell, Frozen, Notebook, RunStarted
from nbflow.store import records
from nbflow.store.location import LocalStore, Store, is_safe, name_of, safe_name

WITH_ID = re.compile(r"-[0-9a-f]{8}$")

KEPT_PATHS = 20
"""Paths that a flow is known by, the newest ones."""


class RunPlace(NamedTuple):
    """Where a run lies: its flow's name now, the folder below `flows/`, the run's id."""

    flow: str
    folder: str
    run: str


class FlowFile(Frozen, frozen=True, kw_only=True):
    """What `flow.json` holds."""

    id: str
    name: str
    paths: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    host: str = ""
    earlier: tuple[str, ...] = ()


class StoredFlow(msgspec.Struct, frozen=True):
    """A flow as a datastore knows it."""

    folder: str
    name: str
    paths: tuple[str, ...] = ()  # the newest last; beside a local datastore they count from its folder
    cells: tuple[str, ...] = ()  # ids, or hashes of sources
    host: str = ""  # where it ran last
    earlier: tuple[str, ...] = ()  # folders of format 1 that hold its oldest runs
    id: str = ""  # "" for a folder of format 1

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders that hold its runs."""
        return (self.folder, *self.earlier)

    @property
    def label(self) -> str:
        """Where its notebook lies and what tells it from others of its name."""
        return f"{self.paths[-1] if self.paths else 'a notebook without a file'} ({self.folder})"


class SoughtFlow(msgspec.Struct, frozen=True):
    """A notebook as it is looked for: its flow's name, its path as the store would hold it, its cells, this host."""

    name: str
    path: str
    cells: tuple[str, ...]
    host: str
    sources: frozenset[str] = frozenset()  # hashes


# ---------------------------------------------------------------- the flows of a store


def stored_flows(store: Store) -> list[StoredFlow]:
    """Return the flows of a datastore, sorted by name; those of format 1 are among them."""
    folders = store.children("flows")
    files = store.read_many([_file(folder) for folder in folders])
    flows = {folder: _parse(folder, files.get(_file(folder), b"")) for folder in folders}
    current = [each for each in flows.values() if each is not None]
    folders_with_file = {folder for each in current for folder in each.folders}
    older = [StoredFlow(folder, _old_name(store, folder)) for folder in folders if folder not in folders_with_file]
    return sorted([*current, *older], key=lambda each: (each.name, each.folder))


def _old_name(store: Store, folder: str) -> str:
    """Return the flow's name for a folder without a `flow.json`.

    The folder's name says it in format 1. A long name is cut there, and where `flow.json` was lost the flow's id stands
    behind the name: then the folder's runs are asked.
    """
    if "~" in folder or WITH_ID.search(folder):
        for run in records.list_runs(store, folder):
            for event in records.read_events(store, folder, run):
                if isinstance(event, RunStarted):
                    return event.flow
    return name_of(folder)


def named_flow(store: Store, word: str) -> StoredFlow:
    """Return the flow that bears a name now, or has a folder of that name.

    Raise NotFoundError where there is none, and AmbiguousFlow where several bear the name: it lists their notebooks.
    """
    flows = stored_flows(store)
    namesakes = [each for each in flows if each.name == word]
    candidates = namesakes if len(namesakes) == 1 else [each for each in flows if each.folder == word] or namesakes
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        names = list(dict.fromkeys(each.name for each in flows))
        raise NotFoundError(
            f"there is no flow {word!r} in {store.url}{nearest(word, names)}",
            fix=f"flows: {', '.join(names) or 'none'}; another store is named by store=",
        )
    labelled = [_absolute(store, _completed(store, each)) for each in candidates]
    raise AmbiguousFlow(
        f"{len(candidates)} flows of {store.url} are named {word!r}: {', '.join(each.label for each in labelled)}",
        fix=f"write {' or '.join(each.folder for each in labelled)} instead of the name",
    )


def word_for(store: Store, flow: StoredFlow) -> str:
    """Return the word that names a flow alone: its name, or its folder's where other flows bear the name too."""
    return flow.name if sum(each.name == flow.name for each in stored_flows(store)) == 1 else flow.folder


def runs_of(store: Store, flow: StoredFlow) -> list[RunPlace]:
    """Return the places of a flow's runs, newest first."""
    places = [RunPlace(flow.name, folder, run) for folder in flow.folders for run in records.list_runs(store, folder)]
    return sorted(places, key=lambda place: place.run, reverse=True)


# ---------------------------------------------------------------- which one a notebook is


def find_flow(store: Store, notebook: Notebook) -> StoredFlow | None:
    """Return the flow that a notebook is, None where it has not run yet; nothing is written."""
    return _matched(store, _seen(store, notebook))


def claim_flow(store: Store, notebook: Notebook) -> StoredFlow:
    """Return the flow that a notebook is, made or brought up to date because the notebook is about to run.

    Several processes may do so at once: they come to the same flow.
    """
    sought = _seen(store, notebook)
    for number in itertools.count():
        flow = _matched(store, sought)
        if flow is not None and flow.id:
            return _updated(store, flow, sought, partial=notebook.path is None)
        identity = sha256(f"{sought.path or sought.name}\n{number}".encode(errors="surrogatepass")).hexdigest()[:8]
        folder = f"{safe_name(sought.name)}-{identity}"
        earlier = (flow.folder,) if flow is not None and flow.folder != folder else ()
        new_flow = StoredFlow(
            folder, sought.name, _joined((), sought.path), sought.cells, sought.host, earlier, identity
        )
        if store.create(_file(folder), _encode(new_flow)):
            return new_flow
        if _parse(folder, store.read_many([_file(folder)]).get(_file(folder), b"")) is None:  # damaged: made anew
            store.write(_file(folder), _encode(new_flow))
            return new_flow
        # Another process was as fast, which the next look finds; or a flow that began at this path has moved away.
    raise AssertionError("counting ends never")


def _matched(store: Store, sought: SoughtFlow) -> StoredFlow | None:
    def replaced(flow: StoredFlow) -> bool:
        return _is_other(store, flow, sought.cells, sought.sources)

    flows = stored_flows(store)
    here = _at_its_path(flows, sought, replaced)
    # what is known of a folder of format 1 has to be read from its newest run
    return here or match([_completed(store, each) for each in flows], sought, _lies(store), replaced)


def match(
    flows: Sequence[StoredFlow],
    sought: SoughtFlow,
    lies: Callable[[StoredFlow, str], bool],
    replaced: Callable[[StoredFlow], bool],
) -> StoredFlow | None:
    """Return which of some flows a notebook is, None where it is none.

    The flow at the notebook's path comes first, unless the notebook has `replaced` that flow's own; then one that was
    there before and is nowhere else now, then one whose notebook is gone and shares at least half of its cells: that
    notebook was renamed or moved. `lies` tells whether a flow's notebook is at a path.
    """
    if sought.path:
        here = _at_its_path(flows, sought, replaced)
        back = (
            each
            for each in flows
            if sought.path in each.paths[:-1] and not replaced(each) and not _elsewhere(each, sought, lies)
        )
        if here or (here := next(back, None)):
            return here
        orphans = [each for each in flows if _shared(each, sought) >= 0.5 and not _elsewhere(each, sought, lies)]
    else:  # a notebook without a file
        orphans = [
            each for each in flows if not each.paths and each.name == sought.name and _shared(each, sought) >= 0.5
        ]
    return max(orphans, key=lambda each: (_stem(each) == _stem_of(sought.path), _shared(each, sought)), default=None)


def _at_its_path(
    flows: Iterable[StoredFlow], sought: SoughtFlow, replaced: Callable[[StoredFlow], bool]
) -> StoredFlow | None:
    if not sought.path:
        return None
    here = (each for each in flows if each.paths[-1:] == (sought.path,) and _is_same(each, sought))
    return next((each for each in here if not replaced(each)), None)


def _is_same(flow: StoredFlow, sought: SoughtFlow) -> bool:
    """Return whether one path means one notebook: machines that share a datastore may each have a file there."""
    relative = not os.path.isabs(sought.path)  # noqa: PTH117  # a path of another system too
    return relative or flow.host == sought.host or not flow.cells or _shared(flow, sought) >= 0.5


def _elsewhere(flow: StoredFlow, sought: SoughtFlow, lies: Callable[[StoredFlow, str], bool]) -> bool:
    """Return whether the flow's notebook still lies in another place than the one that is looked for."""
    return any(lies(flow, path) for path in flow.paths if path != sought.path)


def _is_other(store: Store, flow: StoredFlow, cells: Iterable[str], sources: Iterable[str]) -> bool:
    """Return whether the notebook at a flow's own path is another one: the flow's was renamed or deleted.

    It has none of the ids of the flow's cells, and less than half of the sources that these had in the newest run:
    tools that convert notebooks give all cells new ids, and a notebook without ids is known by its path.
    """
    if {*map(_has_id, cells), *map(_has_id, flow.cells)} != {True} or {*cells} & {*flow.cells}:
        return False
    newest = next(iter(runs_of(store, flow)), None)
    if newest is None:
        return False
    try:
        text = records.read_notebook(store, newest.folder, newest.run)
        before = _sources(parse_document(text, name=flow.name, folder="", path=None).cells)
    except NbflowError:  # its run was killed before it had kept one, or it is damaged
        return False
    return len(before & {*sources}) < len(before) / 2


def _shared(flow: StoredFlow, sought: SoughtFlow) -> float:
    """Return which part of a flow's cells a notebook has too, from 0 to 1."""
    return len({*flow.cells} & {*sought.cells}) / len(flow.cells) if flow.cells else 0.0


def _stem(flow: StoredFlow) -> str:
    return _stem_of(flow.paths[-1]) if flow.paths else flow.name


def _stem_of(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]


# ---------------------------------------------------------------- what is recorded


def _seen(store: Store, notebook: Notebook) -> SoughtFlow:
    path = _recorded(store, notebook.path) if notebook.path else ""
    return SoughtFlow(notebook.name, path, marks(notebook.cells), socket.gethostname(), _sources(notebook.cells))


SOURCE = "source:"


def marks(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return what cells are recognised by: their ids, or hashes of their sources where they have none."""
    names = (cell.id if cell.id != str(cell.position) else _source_mark(cell) for cell in cells)
    return tuple(dict.fromkeys(filter(None, names)))


def _has_id(mark: str) -> bool:
    return not mark.startswith(SOURCE)


def _sources(cells: Iterable[Cell]) -> frozenset[str]:
    return frozenset(filter(None, map(_source_mark, cells)))


def _source_mark(cell: Cell) -> str:
    """Return a hash of a cell's source, an empty string for an empty cell."""
    text = cell.source.strip()
    return f"{SOURCE}{sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}" if text else ""


def _recorded(store: Store, path: str) -> str:
    """Return a notebook's path as the store holds it: relative where both may move together, lying side by side."""
    place = os.path.realpath(path)
    if not isinstance(store, LocalStore):
        return place
    folder = os.path.realpath(store.url)
    beside = os.path.dirname(folder)  # noqa: PTH120  # as above
    return os.path.relpath(place, folder) if place.startswith(f"{beside.rstrip(os.sep)}{os.sep}") else place


def _absolute(store: Store, flow: StoredFlow) -> StoredFlow:
    root = store.url if isinstance(store, LocalStore) else ""
    return msgspec.structs.replace(flow, paths=tuple(os.path.normpath(Path(root) / path) for path in flow.paths))


def _lies(store: Store) -> Callable[[StoredFlow, str], bool]:
    root = Path(store.url if isinstance(store, LocalStore) else ".")

    def lies(flow: StoredFlow, path: str) -> bool:
        place = root / path
        if not place.exists():
            return False
        try:
            cells = read_notebook(place).cells
        except NbflowError:  # whose it is cannot be said any more: the flow's, as it was
            return True
        return not _is_other(store, flow, marks(cells), _sources(cells))

    return lies


def _updated(store: Store, flow: StoredFlow, sought: SoughtFlow, *, partial: bool) -> StoredFlow:
    """Return a flow as it is now that its notebook runs again, written where that has changed.

    Of a notebook without a file only the cells that have run are known (`partial`): they are added to the others.
    """
    cells = tuple(dict.fromkeys((*flow.cells, *sought.cells))) if partial else sought.cells
    now = msgspec.structs.replace(
        flow, name=sought.name, paths=_joined(flow.paths, sought.path), cells=cells or flow.cells, host=sought.host
    )
    if now != flow:
        store.write(_file(flow.folder), _encode(now))
    return now


def _joined(paths: tuple[str, ...], path: str) -> tuple[str, ...]:
    return (*(each for each in paths if each != path), path)[-KEPT_PATHS:] if path else paths


def _completed(store: Store, flow: StoredFlow) -> StoredFlow:
    """Return a flow of format 1 with what its newest run says of its notebook, any other flow as it is."""
    if flow.id:
        return flow
    for run in records.list_runs(store, flow.folder):
        events = records.read_events(store, flow.folder, run)
        started = next((each for each in events if isinstance(each, RunStarted)), None)
        if started is None:
            continue
        path = started.notebook or ""
        try:
            text = records.read_notebook(store, flow.folder, run)
            cells = marks(parse_document(text, name=flow.name, folder=started.folder, path=path or None).cells)
        except NbflowError:  # its run was killed before it had kept one, or it is damaged
            cells = ()
        return msgspec.structs.replace(
            flow, paths=_joined((), _recorded(store, path) if path else ""), cells=cells, host=started.host
        )
    return flow


def _file(folder: str) -> str:
    return f"flows/{folder}/flow.json"


def _encode(flow: StoredFlow) -> bytes:
    fields: Mapping[str, object] = {name: getattr(flow, name) for name in FlowFile.__struct_fields__}
    return msgspec.json.encode(FlowFile(**fields))  # type: ignore[arg-type]


def _parse(folder: str, data: bytes) -> StoredFlow | None:
    file = from_json(data, FlowFile)
    if file is None:
        return None
    earlier = tuple(each for each in file.earlier if is_safe(each))  # whatever a file says
    return StoredFlow(folder, file.name, file.paths, file.cells, file.host, earlier, file.id)
