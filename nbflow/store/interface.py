"""What every datastore offers, wherever it lies, and which names and paths may stand in one."""

from __future__ import annotations

import errno
import re
import threading
import time
import unicodedata
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple, Self, TypeVar

import msgspec

from nbflow.errors import DamagedError, FormatError, NotFoundError, StoreError
from nbflow.model import FORMAT, Segment
from nbflow.store import trust
from nbflow.store.verified import Look, SegmentMark, Verified, hash_of

Written = TypeVar("Written")

ABOUT = "nbflow.json"
SETTINGS = "config.json"
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


PATIENCE, AGAIN = 300.0, 1.0
"""Seconds that what has been made is kept for a store that is away, and seconds between two tries to write it."""


def patiently(write: Callable[[], Written]) -> Written:
    """Write what must not be lost; where the store elsewhere is away, wait for it. Raise StoreError in the end."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return write()
        except StoreError as error:
            if not error.is_away or time.monotonic() > until:
                raise
        time.sleep(AGAIN)


class FileEntry(NamedTuple):
    """One file of a listing; `mtime` in seconds since 1970, 0 when the store does not say."""

    path: str
    size: int
    mtime: float


class About(msgspec.Struct):
    """What a datastore says of itself."""

    format: int
    id: str = ""  # random; older ones have none


Entries = list[FileEntry]
Names = list[str]


def identity_of(settings: bytes) -> str:
    """Return the id that settings have where no datastore lies beside them, "" for none."""
    try:
        said = msgspec.json.decode(settings)
    except (ValueError, RecursionError):
        return ""
    identity = said.get("id") if isinstance(said, dict) else None
    return identity if isinstance(identity, str) else ""


def safe_name(name: str) -> str:
    """Return a file name for a text that every file system and object store takes; no two texts have the same.

    ASCII is undone by `name_of` unless it is so long that its end is replaced by a hash; of other scripts the letters
    that fit are kept to be read, and the hash of the whole tells them apart: a percent sign and two digits for each
    byte would make three times as much of them. What this function has made stays as it is, with numbers behind it too.
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
    """Return a file name for any text: what can be read of it, as much as fits everywhere, and its hash."""
    text = unicodedata.normalize("NFC", name)
    readable = "".join(each if each in "_-+=@, " or unicodedata.category(each)[0] in "LMN" else "-" for each in text)
    readable = readable.encode()[:READABLE_BYTES].decode(errors="ignore").strip(" -")
    return f"{readable or 'name'}~{sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


def name_of(file_name: str) -> str:
    """Return the text that `safe_name` made a file name of; of one with a hash, what can be read. Never raises."""
    return "" if file_name == "%" else urllib.parse.unquote(file_name, errors="replace")


def is_safe(part: str) -> bool:
    """Return whether a text may stand between two slashes of a datastore's path."""
    return part not in {".", ".."} and SAFE_PATH.fullmatch(part) is not None


def check_path(path: str) -> str:
    """Return a relative path as it is; raise ValueError when it could leave the datastore."""
    for part in path.split("/"):
        if not is_safe(part):
            raise ValueError(f"not a path inside a datastore: {path!r}")
    return path


def segment_path(segment_hash: str) -> str:
    """Return the path of the segment with an `algo:hex` hash."""
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
        self._trusted = False
        self._said: About | None = None  # what it says of itself, once that was read

    # -- what a kind of place provides

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return a file's bytes; raise NotFoundError when there is none."""

    @abstractmethod
    def _put(self, path: str, data: bytes | memoryview) -> None:
        """Write a whole file, over an older one."""

    @abstractmethod
    def _create(self, path: str, data: bytes | memoryview) -> bool:
        """Write a whole file unless there is one; return whether it was written."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Return a file's length in bytes, None when there is no such file."""

    @abstractmethod
    def list(self, prefix: str) -> Entries:
        """Return every file below a folder, sorted by path; none when there is no such folder."""

    @abstractmethod
    def children(self, prefix: str) -> Names:
        """Return the names right below a folder, of files and folders, sorted."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file, if there is one; memory that is mapped from it stays valid."""

    @abstractmethod
    def local_path(self, path: str) -> str | None:
        """Return where a file lies on this machine, None when it lies elsewhere."""

    def settle(self, paths: Sequence[str] = ()) -> bool:  # noqa: ARG002  # a store elsewhere keeps what it has taken
        """Return when these files, or all results of this process where none are named, outlive a power cut.

        The answer is False where there was nothing to do: none of these files is new, or no result has been written.
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
        """Return whether `create` keeps its promise when several processes call it at the same moment."""

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        return self.size(path) is not None

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those files that there are and that can be read."""
        contents = {}
        for path in paths:
            try:
                contents[path] = self.read(path)
            except NotFoundError:
                continue
        return contents

    def check_format(self) -> None:
        """Raise FormatError when a newer nbflow wrote this datastore; one of an older format is left as it is."""
        self._about()

    def _about(self) -> About | None:
        """Return what the datastore says of itself, None where it says nothing."""
        if self._said is not None:
            return self._said
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
        self._said = about
        return about

    def mend_format(self) -> None:
        """Say of a datastore whose own word is damaged that it is of this format: its records say theirs each."""
        self._make(self._put)

    # -- whose it is

    def trust(self) -> Self:
        """Trust this datastore in this process: whoever named it has been asked."""
        self._trusted = True
        return self

    def remember(self) -> None:
        """Trust this datastore from now on, in every process of this user."""
        trust.remember(self.url, self._identity() or "")
        self._trusted = True

    def forget(self) -> None:
        """Trust this datastore no longer: it goes away."""
        trust.forget(self.url, self._identity() or "")

    @property
    def is_trusted(self) -> bool:
        """Whether this user has made the datastore, or has said to trust it; so is a place where there is none yet."""
        if not self._trusted:
            identity = self._identity()
            self._trusted = identity is None or trust.is_known(self.url, identity)
        return self._trusted

    def require_trust(self) -> None:
        """Raise UntrustedError unless the user trusts this datastore."""
        if not self.is_trusted:
            raise trust.untrusted(self.url, self._identity() or "")

    def _identity(self) -> str | None:
        """Return the id of what lies here, "" for what has none, None where there is nothing."""
        said = self._own_word()
        if said is None and self.children(""):
            # another process may have made it since we looked for its word, which it writes first
            said = self._own_word() or ""
        return said

    def _own_word(self) -> str | None:
        """Return the id that a datastore, or settings without one, say that they have; None where they say nothing."""
        about = self._about()
        if about is not None:
            return about.id
        data = self.read_many([SETTINGS]).get(SETTINGS)
        return identity_of(data) if data is not None else None

    def _begin(self) -> None:
        """Say before the first write which format this datastore has; one of an older format has this one from now on.

        What it holds stays: everything written since stands beside it, and each record says its own format.
        """
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                self.require_trust()
                about = self._about()
                if about is None:
                    self._make(self._create)
                elif about.format < FORMAT:
                    self._said = About(FORMAT, about.id)
                    self._put(ABOUT, msgspec.json.encode(self._said))
                self._ready = True

    def _make(self, write: Callable[[str, bytes], object]) -> None:
        """Write what a datastore of this user's says of itself."""
        identity = trust.new_identity()
        with suppress(StoreError):  # a home that cannot be written to: it is trusted here, and elsewhere asked for
            trust.remember(self.url, identity)  # first: another process may see it at once
        if write(ABOUT, msgspec.json.encode(About(FORMAT, identity))) is False:
            trust.forget(self.url, identity)
        self._ready = self._trusted = True

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
        """Return whether the store holds a segment, whole.

        It is read where it is not as it was when this machine wrote or read it; with `verify` also where this machine
        has done neither.
        """
        look = self.look(segment_path(segment.hash))
        if look is None or look.size != segment.length:
            return False
        mark = self.verified.marks({segment.hash: look}).get(segment.hash)
        if mark is not None and mark.stamp == look.stamp:
            return mark.whole
        return self._is_whole(segment, look, is_new=mark is None, verify=verify)

    def _is_whole(self, segment: Segment, look: Look, *, is_new: bool, verify: bool) -> bool:
        """Return whether a segment of the right length is whole, of which this machine's marks do not say it."""
        if is_new and not verify:
            return True
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
        """Return the StoreError for what was tried ("read from", "write to", "open") and the error that it met."""
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
