"""A datastore behind fsspec: the only file that touches it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nbflow.errors import DamagedError, NotFoundError, StoreError
from nbflow.model import Segment
from nbflow.plain_files import TEMPORARY
from nbflow.store.interface import Entries, FileEntry, Names, Store, check_path, segment_path
from nbflow.store.local import LocalStore
from nbflow.store.verified import Look, SegmentMark, hash_of

WHOLE_PUTS = frozenset("s3 s3a gs gcs az abfs abfss adl oci oss memory".split())
"""Protocols whose single put is seen whole or not at all; elsewhere a file is written beside and moved."""


class RemoteStore(Store):
    """Any other URL, through fsspec; segments are kept in a local folder once they have been read or written."""

    def __init__(self, url: str, cache: Path, *, mapped: bool = True) -> None:
        super().__init__(url.rstrip("/"), mapped=mapped)
        self._scheme = url.partition("://")[0]
        self._cache = LocalStore(str(cache), mapped=mapped, bare=True)
        self._opened: tuple[int, Any, str] | None = None

    def _open(self) -> tuple[Any, str]:
        """Return the fsspec file system and the root in it; a forked child opens its own: it has no event loop."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                import fsspec

                system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            except (
                Exception
            ) as error:  # the drivers raise errors of their own, an ImportError when one is not installed
                raise self.trouble("open", error) from error
            self._opened = (os.getpid(), system, root.rstrip("/"))
        return self._opened[1:]

    def _at(self, path: str) -> tuple[Any, str]:
        system, root = self._open()
        return system, f"{root}/{check_path(path)}"

    def trouble(self, action: str, error: BaseException, path: str = "") -> StoreError:
        """Return the StoreError for what was tried and the error that it met; it says whether the place is away."""
        trouble = super().trouble(action, error, path)
        trouble.is_away = _is_away(error)
        return trouble

    def local_path(self, path: str) -> str | None:  # noqa: ARG002  # the answer is the same for all
        """Return None: the file lies elsewhere."""
        return None

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        system, place = self._at(path)
        try:
            return bytes(system.cat_file(place))
        except FileNotFoundError as error:
            raise NotFoundError(f"{path} is not in the datastore {self.url}") from error
        except Exception as error:  # botocore, aiohttp, ssh and others each raise their own
            raise self.trouble("read from", error, path) from error

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those files that there are, fetched at once."""
        if not paths:
            return {}
        system, root = self._open()
        try:
            answers = system.cat([f"{root}/{check_path(path)}" for path in paths], on_error="return")
        except Exception as error:  # as above
            raise self.trouble("read from", error) from error
        if not isinstance(answers, dict):
            answers = {f"{root}/{paths[0]}": answers}
        contents = {}
        for path in paths:
            data = answers.get(f"{root}/{path}", FileNotFoundError())
            if isinstance(data, FileNotFoundError):
                continue
            if isinstance(data, Exception):
                raise self.trouble("read from", data, path) from data
            contents[path] = bytes(data)
        return contents

    def size(self, path: str) -> int | None:
        """Return a file's length in bytes, None when there is no such file."""
        system, place = self._at(path)
        try:
            return int(system.info(place)["size"])
        except FileNotFoundError:
            return None
        except Exception as error:  # as above
            raise self.trouble("read from", error, path) from error

    def _put(self, path: str, data: bytes | memoryview) -> None:
        system, place = self._at(path)
        try:
            if self._scheme in WHOLE_PUTS:
                system.pipe_file(place, bytes(data))
                return
            folder = place.rpartition("/")[0]
            temporary = f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"
            system.makedirs(folder, exist_ok=True)
            system.pipe_file(temporary, bytes(data))
            system.mv(temporary, place)
        except Exception as error:  # as above
            raise self.trouble("write to", error, path) from error

    def _create(self, path: str, data: bytes | memoryview) -> bool:
        system, place = self._at(path)
        if self.exists(path):
            return False
        if self._scheme not in WHOLE_PUTS:
            return self._claim(path, data)
        try:
            system.pipe_file(place, bytes(data), mode="create")
        except (TypeError, ValueError, NotImplementedError):  # a driver, or a server, without conditional puts
            self._put(path, data)
        except Exception as error:  # as above
            if _is_taken(error):
                return False
            raise self.trouble("write to", error, path) from error
        return True

    def creates_once(self) -> bool:
        """Return whether the place refuses to write over what is there, which is tried with a file of its own."""
        if self._scheme not in WHOLE_PUTS:
            return False
        system, place = self._at(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            system.pipe_file(place, b"1", mode="create")
            system.pipe_file(place, b"2", mode="create")
        except (TypeError, ValueError, NotImplementedError):  # as in `_create`
            return False
        except Exception as error:  # botocore, aiohttp and others each raise their own
            if _is_taken(error):
                return True
            raise self.trouble("write to", error) from error
        else:
            return False
        finally:
            with contextlib.suppress(Exception):  # never written, or removed by whoever tidies up
                system.rm_file(place)

    def _claim(self, path: str, data: bytes | memoryview) -> bool:
        """Do as `_create` where a put is not seen whole: whoever makes a mark beside the file may write it."""
        system, place = self._at(path)
        folder, _, name = place.rpartition("/")
        mark = f"{folder}/{TEMPORARY}claim-{name}"
        try:
            system.makedirs(folder, exist_ok=True)
            # `pipe_file(mode="create")` looks first and writes then: two may find nothing there
            system.open(mark, "xb").close()
        except FileExistsError:
            return False
        except Exception as error:  # as above
            raise self.trouble("write to", error, path) from error
        try:
            if self.exists(path):
                return False
            self._put(path, data)
            return True
        finally:
            system.rm_file(mark)

    def list(self, prefix: str) -> Entries:
        """Return every file below a folder."""
        system, root = self._open()
        place = self._at(prefix)[1] if prefix else root
        try:
            files = system.find(place, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:  # as above
            raise self.trouble("read from", error, prefix) from error
        entries = (
            FileEntry(path.removeprefix(root).lstrip("/"), int(about.get("size") or 0), _mtime(about))
            for path, about in files.items()
        )
        return sorted(entry for entry in entries if f"/{TEMPORARY}" not in f"/{entry.path}")

    def children(self, prefix: str) -> Names:
        """Return the names right below a folder."""
        system, root = self._open()
        place = self._at(prefix)[1] if prefix else root
        try:
            names = {item["name"].rstrip("/").rpartition("/")[2] for item in system.ls(place, detail=True)}
        except FileNotFoundError:
            return []
        except Exception as error:  # as above
            raise self.trouble("read from", error, prefix) from error
        return sorted(name for name in names if name and not name.startswith(TEMPORARY))

    def delete(self, path: str) -> None:
        """Remove a file, if there is one."""
        system, place = self._at(path)
        try:
            system.rm_file(place)
        except FileNotFoundError:
            return
        except Exception as error:  # as above
            raise self.trouble("write to", error, path) from error

    def write_segment(self, segment: Segment, data: bytes | memoryview) -> None:
        """Put a segment's bytes under its hash, and keep them here: the next step often reads them on this machine."""
        self.write(segment_path(segment.hash), data)
        self._cache.write_segment(segment, data)

    def look(self, path: str) -> Look | None:
        """Return how a file stands, None where there is none."""
        system, place = self._at(path)
        try:
            about = system.info(place)
        except FileNotFoundError:
            return None
        except Exception as error:  # as above
            raise self.trouble("read from", error, path) from error
        size = int(about.get("size") or 0)
        return Look(size, f"{size} {about.get('ETag') or _mtime(about)}")

    def _is_whole(self, segment: Segment, look: Look, *, is_new: bool, verify: bool) -> bool:
        """Return whether a segment is whole; to verify it, it is fetched, unless a verified copy lies here."""
        del look, is_new
        if verify and not self._cache.has_segment(segment):
            try:
                self._fetch_one(segment)
            except DamagedError:
                return False
        return True

    def map_segments(self, segments: Sequence[Segment]) -> memoryview:
        """Return the bytes of segments in a row, from their copies here, which are made where there are none."""
        distinct = [each for each in dict.fromkeys(segments) if each.hash]
        self._fetch(distinct)
        try:
            return self._cache.map_segments(segments)
        except DamagedError:  # the copy here is, or has just been cleared away
            self._fetch(distinct)
            return self._cache.map_segments(segments)

    def _fetch(self, segments: Sequence[Segment]) -> None:
        missing = [each for each in segments if not self._cache.has_segment(each)]
        if len(missing) > 1:
            with ThreadPoolExecutor(min(8, len(missing)), "nbflow-fetch") as pool:
                list(pool.map(self._fetch_one, missing))
        elif missing:
            self._fetch_one(missing[0])

    def _fetch_one(self, segment: Segment) -> None:
        """Make a local copy of a segment; raise DamagedError where it is not what its name says, and remember that."""
        path = segment_path(segment.hash)
        try:
            data = self.read(path)
        except NotFoundError as error:
            raise self.broken(segment, "is missing") from error
        if hash_of(data) != segment.hash:
            look = self.look(path)
            if look is not None:
                self.verified.put({segment.hash: SegmentMark(look.stamp, whole=False)})
            raise self.broken(segment, "is damaged: its bytes are not what they were")
        self._cache.write_segment(segment, data)


AWAY = {
    "ConnectionError", "TimeoutError", "ClientConnectionError", "EndpointConnectionError", "ConnectTimeoutError",
    "ReadTimeoutError", "ConnectionClosedError",
}  # fmt: skip
"""What Python, aiohttp and botocore call a server that cannot be reached, or does not answer in time."""


SERVER_FAILED = 500
"""The first status of an answer that says that the server has failed, not whoever asked it."""


def _is_away(error: BaseException | None) -> bool:
    """Return whether an error, or what it came from, says that the server is away, or not in order at the moment."""
    while error is not None:
        if any(kind.__name__ in AWAY for kind in type(error).__mro__) or _status(error) >= SERVER_FAILED:
            return True
        error = error.__cause__
    return False


def _status(error: BaseException) -> int:
    """Return the status of the answer that an error of botocore or aiohttp tells of, 0 for other errors."""
    response = getattr(error, "response", None)
    about = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status = about.get("HTTPStatusCode") or getattr(error, "status", 0)
    return status if isinstance(status, int) else 0


def _is_taken(error: Exception) -> bool:
    """Return whether a conditional put was refused because there is such a file."""
    refused = ("PreconditionFailed", "ConditionalRequestConflict")
    return isinstance(error, FileExistsError) or any(word in repr(error) for word in refused)


def _mtime(about: Mapping[str, Any]) -> float:
    """Return when a file was last written (seconds since 1970) by what fsspec says of it, 0 where it does not."""
    moment = about.get("LastModified") or about.get("mtime") or about.get("updated") or about.get("created") or 0
    return float(moment.timestamp()) if hasattr(moment, "timestamp") else float(moment)
