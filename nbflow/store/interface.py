"""What every datastore offers, wherever it lies, and which names and paths may stand in one."""

from __future__ import annotations

import errno
import re
import threading
import unicodedata
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from nbflow.errors import DamagedError, FormatError, NotFoundError, StoreError
from nbflow.model import FORMAT, Segment
from nbflow.store.verified import Look, SegmentMark, Verified, hash_of

ABOUT = "nbflow.json"
TEMPORARY = ".tmp-"
LONGEST_NAME = 180
READABLE_BYTES = 80
"""Of a name in another script than ASCII so many bytes of UTF-8 are kept; its hash tells it from others."""

MADE_BYTES = 180
MADE = re.compile(
    r"(?!\.)[^~/\\<>:\"|?*\x00-\x1f\x7f\ud800-\udfff]+~[0-9a-f]{16}(?:%5B%5D)?(?:[.-][A-Za-z0-9.-]*[A-Za-z0-9-])?"
)
"""What a name with a hash looks like, with the numbers that may follow it: it is safe as it is."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
RESERVED_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
SAFE_PATH = re.compile(r"[^/\\\x00-\x1f\x7f\ud800-\udfff]+")


class FileEntry(NamedTuple):
    """One file of a listing; `mtime` in seconds since 1970, 0 when the store does not say."""

    path: str
    size: int
    mtime: float


class About(msgspec.Struct):
    """What a datastore says of itself."""

    format: int


Entries = list[FileEntry]
Names = list[str]


def safe_name(name: str) -> str:
    """Any text in; a file name that every file system and object store takes, different for different texts, out.

    ASCII is undone by `name_of` unless it is so long that its end is replaced by a hash; of other scripts the letters
    that fit are kept to be read, and the hash of the whole tells them apart: a percent sign and two digits for each
    byte would make three times as much of them. What it has made stays as it is, numbers joined to it too.
    """
    if MADE.fullmatch(name) and len(name.encode()) <= MADE_BYTES and not _is_reserved(name):
        return name
    if not name.isascii():
        return hashed_name(name)
    quoted = urllib.parse.quote(name, safe=" +=@,", errors="surrogatepass").replace("~", "%7E").replace(" ", "%20")
    if not quoted:
        return "%"
    if quoted[0] == "." or _is_reserved(quoted):
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    if quoted[-1] == ".":
        quoted = f"{quoted[:-1]}%2E"
    if len(quoted) <= LONGEST_NAME:
        return quoted
    return f"{quoted[: LONGEST_NAME - 33]}~{sha256(name.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _is_reserved(name: str) -> bool:
    return name.lower().partition(".")[0] in RESERVED_NAMES


def hashed_name(name: str) -> str:
    """Any text in; what can be read of it, of its bytes so many as fit everywhere, and its hash out."""
    text = unicodedata.normalize("NFC", name)
    kept = "".join(each if each in "_-+=@, " or unicodedata.category(each)[0] in "LMN" else "-" for each in text)
    kept = kept.encode()[:READABLE_BYTES].decode(errors="ignore").strip(" -")
    return f"{kept or 'name'}~{sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


def name_of(file_name: str) -> str:
    """What `safe_name` gave in; the text, of one with a hash what can be read, out. Never raises."""
    return "" if file_name == "%" else urllib.parse.unquote(file_name, errors="replace")


def is_safe(part: str) -> bool:
    """Whether a text may stand between two slashes of a datastore's path."""
    return part not in {".", ".."} and SAFE_PATH.fullmatch(part) is not None


def check_path(path: str) -> str:
    """A relative path in; the same out; ValueError when it could leave the datastore."""
    for part in path.split("/"):
        if not is_safe(part):
            raise ValueError(f"not a path inside a datastore: {path!r}")
    return path


def segment_path(segment_hash: str) -> str:
    """A segment's `algo:hex` in; its path out."""
    algorithm, _, digest = segment_hash.partition(":")
    return check_path(f"segments/{algorithm}/{digest[:2]}/{digest}")


class Store(ABC):
    """A datastore. Every method may be called from several threads; StoreError when the place cannot be used."""

    url: str

    def __init__(self, url: str, *, mapped: bool) -> None:
        self.url = url
        self.mapped = mapped
        self.verified = Verified(url)
        self._ready = False
        self._lock = threading.Lock()

    # -- what a kind of place provides

    @abstractmethod
    def read(self, path: str) -> bytes:
        """A path in, its bytes out; NotFoundError when there is none."""

    @abstractmethod
    def _put(self, path: str, data: bytes | memoryview) -> None:
        """Write a whole file, over an older one."""

    @abstractmethod
    def _create(self, path: str, data: bytes | memoryview) -> bool:
        """Write a whole file unless there is one; whether it was written."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """A path in; its length in bytes, None when there is none, out."""

    @abstractmethod
    def list(self, prefix: str) -> Entries:
        """A folder in; every file below it, sorted by path, out; empty when there is no such folder."""

    @abstractmethod
    def children(self, prefix: str) -> Names:
        """A folder in; the names right below it, files and folders, sorted, out."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file, if there is one; memory that is mapped from it stays valid."""

    @abstractmethod
    def local_path(self, path: str) -> str | None:
        """A path in; where the file lies on this machine, None when it lies elsewhere, out."""

    def settle(self, paths: Sequence[str] = ()) -> bool:  # noqa: ARG002  # a store elsewhere keeps what it has taken
        """Return when these files, or, where none are named, all results of this process, outlive a power cut.

        False where nothing had to be done for that: none of these files is new, or no result has been written.
        """
        return False

    # -- what is the same everywhere

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a whole file; readers see the older one or the new one, never a part."""
        self._begin()
        self._put(check_path(path), data)

    def create(self, path: str, data: bytes | memoryview) -> bool:
        """Write a whole file unless there is one; False when there is: of several writers exactly one gets True."""
        self._begin()
        return self._create(check_path(path), data)

    @abstractmethod
    def creates_once(self) -> bool:
        """Whether `create` keeps its promise when several processes call it at the same moment."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.size(path) is not None

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those files that there are and that can be read."""
        found = {}
        for path in paths:
            try:
                found[path] = self.read(path)
            except NotFoundError:
                continue
        return found

    def check_format(self) -> None:
        """FormatError when a newer nbflow wrote this datastore; one of an older format is left as it is."""
        self._ready = self._found_format() == FORMAT

    def _found_format(self) -> int | None:
        """The format of what is there, None where nothing is."""
        try:
            about = msgspec.json.decode(self.read(ABOUT), type=About)
        except NotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{self.url} has an {ABOUT} that cannot be read: {error}",
                fix="`nbflow fsck --repair` writes it anew, or choose another folder with --store",
            ) from error
        if about.format > FORMAT:
            raise FormatError(
                f"the datastore {self.url} has format {about.format}; this nbflow reads up to {FORMAT}",
                fix="upgrade nbflow, or choose another datastore with --store",
            )
        return about.format

    def mend_format(self) -> None:
        """Say of a datastore whose own word is damaged that it is of this format: its records say theirs each."""
        self._put(ABOUT, msgspec.json.encode(About(FORMAT)))
        self._ready = True

    def _begin(self) -> None:
        """Before the first write: say which format this is; a store of an older one is of this one from now on.

        What it holds stays: everything written since stands beside it, and each record says its own format.
        """
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                about = msgspec.json.encode(About(FORMAT))
                if not self._create(ABOUT, about) and (self._found_format() or FORMAT) < FORMAT:
                    self._put(ABOUT, about)
                self._ready = True

    # -- segments: immutable bytes under their hash

    @abstractmethod
    def look(self, path: str) -> Look | None:
        """Return how a file stands, None where there is none that can be read."""

    @abstractmethod
    def map_segments(self, segments: Sequence[Segment]) -> memoryview:
        """Return the bytes of segments in a row, as writable memory that no one else sees.

        DamagedError when one is missing, cannot be read, or is not what its name says: each is hashed unless this
        machine has done so since it was written.
        """

    def has_segment(self, segment: Segment, *, verify: bool = False) -> bool:
        """Whether the store holds that segment, whole.

        It is read where it is not as it was when this machine wrote or read it; with `verify` also where this machine
        has done neither.
        """
        look = self.look(segment_path(segment.hash))
        if look is None or look.size != segment.length:
            return False
        mark = self.verified.marks({segment.hash: look}).get(segment.hash)
        if mark is not None and mark.stamp == look.stamp:
            return mark.whole
        if mark is None and not verify:
            return True
        return self._verify(segment, look)

    def _verify(self, segment: Segment, look: Look) -> bool:
        """Whether a segment's bytes are what its name says: they are read."""
        data = self.read_many([path := segment_path(segment.hash)]).get(path)
        whole = data is not None and hash_of(data) == segment.hash
        self.verified.put({segment.hash: SegmentMark(look.stamp, whole)})
        return whole

    def write_segment(self, segment: Segment, data: bytes | memoryview) -> None:
        """Put a segment's bytes under its hash; no work is saved when it is there already: ask first."""
        path = segment_path(segment.hash)
        self.write(path, data)
        look = self.look(path)
        if look is not None:
            self.verified.put({segment.hash: SegmentMark(look.stamp, whole=True)})

    def broken(self, segment: Segment, what: str) -> DamagedError:
        """Return the error for a segment that `is missing`, `is damaged` or `cannot be read`."""
        return DamagedError(
            f"segment {segment.hash} {what} in {self.url}",
            fix="run the step that made it again with --fresh STEP; `nbflow fsck --repair` clears all such things away",
        )

    def trouble(self, action: str, error: BaseException, path: str = "") -> StoreError:
        """What was tried and the error it met in; the StoreError to raise out."""
        place = f"{self.url}: {path}" if path else self.url
        number = getattr(error, "errno", None)
        if number in FULL:
            return StoreError(
                f"cannot {action} the datastore {place}: no space left ({error})",
                fix="free some space, run `nbflow gc`, or choose another datastore with --store",
            )
        if number in REFUSED or isinstance(error, PermissionError):
            return StoreError(
                f"cannot {action} the datastore {place}: permission denied ({error})",
                fix="make it writable, or choose another datastore with --store or NBFLOW_STORE",
            )
        if number in {errno.ENOTDIR, errno.EEXIST}:
            return StoreError(
                f"cannot {action} the datastore {place}: a file is in the way ({error})",
                fix="choose a folder, with --store or NBFLOW_STORE",
            )
        return StoreError(
            f"cannot {action} the datastore {place}: {type(error).__name__}: {error}",
            fix="check that the place exists and can be reached, or choose another with --store",
        )
