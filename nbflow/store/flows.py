"""Which flow a notebook is, and which flows a datastore holds: an id made at the first run, kept in the store.

`flows/<flow>-<id>/flow.json` holds the flow's name now, the paths that its notebook has had and its cells' ids. A
renamed or moved notebook is recognised by its cells and keeps its runs; a copy beside an original that still exists is
a flow of its own. The notebook itself says nothing of it: a copy would say the same.

Folders of format 1 (`flows/<flow>/`, without a `flow.json`) are flows too; the first run that such a flow has now gives
it an id, and its old runs stay where they are.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from nbflow.errors import AmbiguousFlow, NbflowError, NotFoundError, nearest
from nbflow.flow.notebook import parse_document
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


@dataclass(frozen=True)
class StoredFlow:
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


@dataclass(frozen=True)
class SoughtFlow:
    """A notebook as it is looked for: its flow's name, its path as the store would hold it, its cells, this host."""

    name: str
    path: str
    cells: tuple[str, ...]
    host: str


# ---------------------------------------------------------------- the flows of a store


def stored_flows(store: Store) -> list[StoredFlow]:
    """A store in; its flows, those of format 1 too, by name, out."""
    folders = store.children("flows")
    files = store.read_many([_file(folder) for folder in folders])
    found = {folder: _parse(folder, files.get(_file(folder), b"")) for folder in folders}
    known = [each for each in found.values() if each is not None]
    taken = {folder for each in known for folder in each.folders}
    older = [StoredFlow(folder, _old_name(store, folder)) for folder in folders if folder not in taken]
    return sorted([*known, *older], key=lambda each: (each.name, each.folder))


def _old_name(store: Store, folder: str) -> str:
    """A folder without a `flow.json` in; the flow's name out.

    A folder of format 1 bears it; of a long one it holds the beginning only, and where the file is lost or damaged the
    flow's id stands behind it: then its runs say it.
    """
    if "~" in folder or WITH_ID.search(folder):
        for run in records.list_runs(store, folder):
            for event in records.read_events(store, folder, run):
                if isinstance(event, RunStarted):
                    return event.flow
    return name_of(folder)


def named_flow(store: Store, word: str) -> StoredFlow:
    """A flow's name, or its folder's, in; the flow that bears it now out.

    NotFoundError when there is none, AmbiguousFlow when two bear the name: it lists where their notebooks lie.
    """
    flows = stored_flows(store)
    bearing = [each for each in flows if each.name == word]
    found = bearing if len(bearing) == 1 else [each for each in flows if each.folder == word] or bearing
    if len(found) == 1:
        return found[0]
    if not found:
        names = list(dict.fromkeys(each.name for each in flows))
        raise NotFoundError(
            f"there is no flow {word!r} in {store.url}{nearest(word, names)}",
            fix=f"flows: {', '.join(names) or 'none'}; another store is named by store=",
        )
    known = [_absolute(store, _completed(store, each)) for each in found]
    raise AmbiguousFlow(
        f"{len(found)} flows of {store.url} are named {word!r}: {', '.join(each.label for each in known)}",
        fix=f"write {' or '.join(each.folder for each in known)} instead of the name",
    )


def word_for(store: Store, flow: StoredFlow) -> str:
    """A flow in; its name, or its folder's where others bear the name too, out."""
    return flow.name if sum(each.name == flow.name for each in stored_flows(store)) == 1 else flow.folder


def runs_of(store: Store, flow: StoredFlow) -> list[RunPlace]:
    """A flow in; where its runs lie, newest first, out."""
    found = [RunPlace(flow.name, folder, run) for folder in flow.folders for run in records.list_runs(store, folder)]
    return sorted(found, key=lambda place: place.run, reverse=True)


# ---------------------------------------------------------------- which one a notebook is


def find_flow(store: Store, notebook: Notebook) -> StoredFlow | None:
    """A notebook in; the flow that it is, None where it has not run yet, out. Nothing is written."""
    return _matched(store, _seen(store, notebook))


def claim_flow(store: Store, notebook: Notebook) -> StoredFlow:
    """A notebook that is about to run in; the flow that it is, made or kept up to date, out.

    Several processes may do so at once: they come to the same flow.
    """
    seen = _seen(store, notebook)
    for number in itertools.count():
        found = _matched(store, seen)
        if found is not None and found.id:
            return _updated(store, found, seen, partial=notebook.path is None)
        identity = sha256(f"{seen.path or seen.name}\n{number}".encode(errors="surrogatepass")).hexdigest()[:8]
        folder = f"{safe_name(seen.name)}-{identity}"
        earlier = (found.folder,) if found is not None and found.folder != folder else ()
        made = StoredFlow(folder, seen.name, _joined((), seen.path), seen.cells, seen.host, earlier, identity)
        if store.create(_file(folder), _encode(made)):
            return made
        if _parse(folder, store.read_many([_file(folder)]).get(_file(folder), b"")) is None:  # damaged: made anew
            store.write(_file(folder), _encode(made))
            return made
        # Another process was as fast, which the next look finds; or a flow that began at this path has moved away.
    raise AssertionError("counting ends never")


def _matched(store: Store, seen: SoughtFlow) -> StoredFlow | None:
    flows = stored_flows(store)
    known = _at_its_path(flows, seen)
    # what is known of a folder of format 1 has to be read from its newest run
    return known or match([_completed(store, each) for each in flows], seen, _exists(store))


def match(flows: Sequence[StoredFlow], seen: SoughtFlow, exists: Callable[[str], bool]) -> StoredFlow | None:
    """Flows and a notebook in; the one that the notebook is out; `exists`: whether a path leads to a file now."""
    if seen.path:
        here = _at_its_path(flows, seen)
        back = [each for each in flows if seen.path in each.paths[:-1] and not _elsewhere(each, seen, exists)]
        if here or back:
            return here or back[0]
        gone = [each for each in flows if not _elsewhere(each, seen, exists) and _shared(each, seen) >= 0.5]
    else:  # a notebook without a file
        gone = [each for each in flows if not each.paths and each.name == seen.name and _shared(each, seen) >= 0.5]
    return max(gone, key=lambda each: (_stem(each) == _stem_of(seen.path), _shared(each, seen)), default=None)


def _at_its_path(flows: Iterable[StoredFlow], seen: SoughtFlow) -> StoredFlow | None:
    if not seen.path:
        return None
    return next((each for each in flows if each.paths[-1:] == (seen.path,) and _is_same(each, seen)), None)


def _is_same(flow: StoredFlow, seen: SoughtFlow) -> bool:
    """Whether one path means one notebook: machines may share a datastore, and each have a file of that path."""
    relative = not os.path.isabs(seen.path)  # noqa: PTH117  # a path of another system too
    return relative or flow.host == seen.host or not flow.cells or _shared(flow, seen) >= 0.5


def _elsewhere(flow: StoredFlow, seen: SoughtFlow, exists: Callable[[str], bool]) -> bool:
    """Whether the flow's notebook still lies in another place than where it is looked for."""
    return any(exists(path) for path in flow.paths if path != seen.path)


def _shared(flow: StoredFlow, seen: SoughtFlow) -> float:
    """The part of a flow's cells that a notebook has too."""
    return len({*flow.cells} & {*seen.cells}) / len(flow.cells) if flow.cells else 0.0


def _stem(flow: StoredFlow) -> str:
    return _stem_of(flow.paths[-1]) if flow.paths else flow.name


def _stem_of(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]


# ---------------------------------------------------------------- what is recorded


def _seen(store: Store, notebook: Notebook) -> SoughtFlow:
    path = _recorded(store, notebook.path) if notebook.path else ""
    return SoughtFlow(notebook.name, path, marks(notebook.cells), socket.gethostname())


def marks(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Cells in; what they are known by, their ids or, where they have none, hashes of their sources, out."""
    found: dict[str, None] = {}
    for cell in cells:
        if cell.id != str(cell.position):
            found[cell.id] = None
        elif cell.source.strip():
            found[f"source:{sha256(cell.source.strip().encode(errors='surrogatepass')).hexdigest()[:16]}"] = None
    return tuple(found)


def _recorded(store: Store, path: str) -> str:
    """A notebook's path in; as the store holds it out: from the store's folder where both lie in one, and may move."""
    place = os.path.realpath(path)
    if not isinstance(store, LocalStore):
        return place
    folder = os.path.realpath(store.url)
    beside = os.path.dirname(folder)  # noqa: PTH120  # as above
    return os.path.relpath(place, folder) if place.startswith(f"{beside.rstrip(os.sep)}{os.sep}") else place


def _absolute(store: Store, flow: StoredFlow) -> StoredFlow:
    """A flow in; the same with its paths as people read them out."""
    root = store.url if isinstance(store, LocalStore) else ""
    return replace(flow, paths=tuple(os.path.normpath(Path(root) / path) for path in flow.paths))


def _exists(store: Store) -> Callable[[str], bool]:
    root = store.url if isinstance(store, LocalStore) else "."
    return lambda path: (Path(root) / path).exists()


def _updated(store: Store, flow: StoredFlow, seen: SoughtFlow, *, partial: bool) -> StoredFlow:
    """A flow whose notebook runs again in; the same as it is now, written where it has changed, out.

    Of a notebook without a file only those cells are known that have run: they are added to the others.
    """
    cells = tuple(dict.fromkeys((*flow.cells, *seen.cells))) if partial else seen.cells
    now = replace(flow, name=seen.name, paths=_joined(flow.paths, seen.path), cells=cells or flow.cells, host=seen.host)
    if now != flow:
        store.write(_file(flow.folder), _encode(now))
    return now


def _joined(paths: tuple[str, ...], path: str) -> tuple[str, ...]:
    return (*(each for each in paths if each != path), path)[-KEPT_PATHS:] if path else paths


def _completed(store: Store, flow: StoredFlow) -> StoredFlow:
    """A flow in; one of format 1 with what its newest run says of its notebook out."""
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
        return replace(flow, paths=_joined((), _recorded(store, path) if path else ""), cells=cells, host=started.host)
    return flow


def _file(folder: str) -> str:
    return f"flows/{folder}/flow.json"


def _encode(flow: StoredFlow) -> bytes:
    known: Mapping[str, object] = {name: getattr(flow, name) for name in FlowFile.__struct_fields__}
    return msgspec.json.encode(FlowFile(**known))  # type: ignore[arg-type]


def _parse(folder: str, data: bytes) -> StoredFlow | None:
    found = from_json(data, FlowFile)
    if found is None:
        return None
    earlier = tuple(each for each in found.earlier if is_safe(each))  # whatever a file says
    return StoredFlow(folder, found.name, found.paths, found.cells, found.host, earlier, found.id)
