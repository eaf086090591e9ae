"""An attempt whose datastore the box does not reach: what it needs goes along with it, what it leaves comes back.

On the box a copy of the datastore stands for it, with the segments that tasks there have needed or made. The
datastore here stays the truth: log, result and record are written here as they come.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Sequence

import msgspec

from nbflow.errors import DamagedError, NbflowError
from nbflow.executors import wire
from nbflow.executors.local import unpublished
from nbflow.executors.remote import attempt_files
from nbflow.executors.remote.attempt_files import LiveEvent
from nbflow.executors.remote.task_files import WrittenFile
from nbflow.jsonable import to_json
from nbflow.model import Ended, Record, Segment, TaskFailure, TaskResult
from nbflow.store import artifacts, records
from nbflow.store.jsonl import ChunkWriter
from nbflow.store.location import Store, safe_name


def origin_of(store: Store) -> str:
    """Return the name of a datastore's copy on a box: this machine's name and the folder tell it from others."""
    return hashlib.sha256(f"{platform.node()}:{store.url}".encode()).hexdigest()[:16]


class CarriedAttempt:
    """What one attempt takes along, and brings back."""

    def __init__(self, url: str) -> None:
        """Take the URL of its spec; StoreError where that cannot be read."""
        self.files, self.spec = attempt_files.read_spec(url)
        self.path = f"{self.files.folder}/{attempt_files.SPEC}"
        self._log: ChunkWriter | None = None
        self._worker = ""
        self._lines = 0

    @property
    def store(self) -> Store:
        """The datastore here."""
        return self.files.store

    # ------------------------------------------------------------ on the way there

    def packed_files(self) -> dict[str, bytes]:
        """Return the files that the worker reads, by their paths in the datastore."""
        return {self.path: wire.pack(self.spec)} | {
            f"{records.result_folder(record.key)}/{safe_name(record.execution)}.json": to_json(record)
            for record in self._joined()
        }

    def segments(self) -> list[Segment]:
        """Return the segments that the worker reads, each once."""
        groups = [*self.spec.groups, *(group for record in self._joined() for group in record.groups)]
        files = (*self.spec.files, *(self.spec.environment.files if self.spec.environment is not None else ()))
        sent = (segment for file in files for segment in file.segments if segment.hash)
        return [*dict.fromkeys((*artifacts.segments_in(groups), *sent))]

    def _joined(self) -> Iterator[Record]:
        """Yield the records that a join opens when it is asked for what they hold."""
        for item in self.spec.joined or ():
            for key, execution in item.places:
                record = records.read_record(self.store, key, execution)
                if record is not None:
                    yield record

    def bytes_of(self, segment: Segment) -> memoryview | None:
        """Return a segment's bytes; None where it is gone: the worker finds that out as one here would."""
        try:
            return self.store.map_segments([segment])
        except DamagedError:
            return None

    # ------------------------------------------------------------ on the way back

    def note(self, event: LiveEvent) -> None:
        """Write a line of the worker's log into the datastore here; of several workers the first one's."""
        if isinstance(event.event, Ended):
            if self._log is not None:
                self._log.close()
            return
        if self._log is None:
            self._worker = event.worker
            self._log = self.files.writer(event.worker)
        if event.worker == self._worker and event.number == self._lines:
            self._lines += 1
            self._log.put(to_json(event.event))

    def missing(self, result: TaskResult, files: Sequence[WrittenFile]) -> list[Segment]:
        """Return the segments of a result, and of files that the task wrote, that the datastore here has not."""
        groups = result.record.groups if result.record is not None else ()
        wanted = dict.fromkeys((
            *artifacts.segments_in(groups),
            *(segment for file in files for segment in file.segments if segment.hash),
        ))  # fmt: skip
        return [each for each in wanted if not self.store.has_segment(each)]

    def judged(self, result: TaskResult, place: str) -> TaskResult:
        """Return a result as it counts here: what a task has asked about runs there, nobody there could answer."""
        asked = result.record.observations.asked if result.record is not None else ()
        wrong = next((each for each in asked if each.what != "current" and "://" not in each.store), None)
        if wrong is None:
            return result
        failure = TaskFailure(
            type="ExecutorError", cell=self.spec.cell,
            message=f"step {self.spec.step} asked about runs of {wrong.of or 'this flow'}, which {place} cannot see: "
            f"the datastore {self.store.url} lies on the notebook's machine",
            fix="run the step without --on, or choose a datastore that both reach: --store s3://…, or a shared folder",
        )  # fmt: skip
        return msgspec.structs.replace(result, record=None, failure=failure)

    def unpublished(self, result: TaskResult, error: NbflowError) -> TaskResult:
        """Return what a result comes to that the datastore here did not take."""
        return unpublished(self.spec, result, error)
