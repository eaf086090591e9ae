"""Every kind of datastore keeps the same promises; local folders keep them under kill, full disks and odd names too."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nbflow.errors import DamagedError, FormatError, NotFoundError, StoreError
from nbflow.model import FORMAT, Segment, Tagged
from nbflow.store import artifacts, records
from nbflow.store.interface import segment_path
from nbflow.store.location import LocalStore, Store, cache_folder, name_of, open_store, safe_name
from tests.support import servers

NAMES = [
    "a", "train 2", "../../etc/passwd", "/abs", "..", ".", "", "%", "%41", "a/b\\c", "q'\"`$;&|<>*?", "nul", "CON.txt",
    "line\nbreak\ttab\x00", "ümläut 漢字 🎉", "x" * 5000, "é" * 300, "end.", ".hidden", "~", "a~b", "\udc80", "cell:4",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))


class StoreConformance:
    """What any datastore must do; `store` is a fresh one, `reopen` opens it as another process would."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, url: str) -> Store:
        return open_store(url)

    def test_opening_writes_nothing_and_the_first_write_says_the_format(self, url: str, store: Store) -> None:
        assert store.list("") == []
        assert not store.exists("nbflow.json")
        store.write("a/b.txt", b"1")
        said = json.loads(store.read("nbflow.json"))
        assert (said["format"], len(said["id"])) == (FORMAT, 32)
        assert open_store(url).read("a/b.txt") == b"1"

    def test_newer_format_is_refused(self, url: str, store: Store) -> None:
        store.write("a", b"1")
        store.write("nbflow.json", b'{"format":%d,"later":1}' % (FORMAT + 1))
        with pytest.raises(FormatError, match=str(FORMAT + 1)) as caught:
            open_store(url)
        assert "upgrade" in (caught.value.fix or "")
        store.write("nbflow.json", b"torn{")
        with pytest.raises(StoreError, match=r"nbflow\.json"):
            open_store(url)

    def test_files(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            store.read("a/b")
        assert store.size("a/b") is None
        store.write("a/b", b"one")
        store.write("a/b", memoryview(b"three"))
        store.write("a/empty", b"")
        assert (store.read("a/b"), store.size("a/b"), store.read("a/empty")) == (b"three", 5, b"")
        store.delete("a/b")
        store.delete("a/b")
        assert not store.exists("a/b")

    def test_create_happens_once(self, store: Store) -> None:
        assert store.create("r/x.json", b"first")
        assert not store.create("r/x.json", b"second")
        assert store.read("r/x.json") == b"first"

    def test_create_keeps_its_promise_or_says_that_it_cannot(self, url: str, store: Store) -> None:
        assert store.creates_once() is not url.startswith("local://")
        assert store.list("") == []

    def test_create_happens_once_among_threads(self, store: Store) -> None:
        won: list[int] = []
        start = threading.Barrier(4)

        def race(number: int) -> None:
            start.wait()
            if store.create("r/race", b"%d" % number):
                won.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read("r/race") == b"%d" % won[0]

    def test_listing(self, store: Store) -> None:
        for path in ("f/a/1", "f/b/2", "f/b/c/3", "f/x", "fx/4"):
            store.write(path, path.encode())
        entries = store.list("f")
        assert [entry.path for entry in entries] == ["f/a/1", "f/b/2", "f/b/c/3", "f/x"]
        assert [entry.size for entry in entries] == [5, 5, 7, 3]
        assert all(abs(entry.mtime - time.time()) < 3600 for entry in entries)
        assert store.children("f") == ["a", "b", "x"]
        assert store.children("none") == store.list("none") == []
        assert set(store.children("")) == {"f", "fx", "nbflow.json"}
        assert store.read_many(["f/x", "none", "f/a/1"]) == {"f/x": b"f/x", "f/a/1": b"f/a/1"}
        assert store.read_many(["none"]) == store.read_many([]) == {}

    def test_any_name_becomes_a_safe_one(self, store: Store) -> None:
        for name in NAMES:
            store.write(f"flows/{safe_name(name)}/x", b"1")
        assert store.children("flows") == sorted(safe_name(name) for name in NAMES)
        assert [entry.path for entry in store.list("flows")] == sorted(f"flows/{safe_name(name)}/x" for name in NAMES)
        for name in NAMES:
            if "~" not in safe_name(name):
                assert name_of(safe_name(name)) == name

    def test_unsafe_paths_are_refused(self, store: Store) -> None:
        for path in ("../x", "a/../b", "/abs", "a//b", "a/./b", "", "a\\b", "a\nb", "a/", "a\x00"):
            for act in (store.read, store.delete, store.size, lambda each: store.write(each, b"")):
                with pytest.raises(ValueError, match="not a path"):
                    act(path)

    def test_segments(self, url: str, store: Store) -> None:
        data = [os.urandom(1 << 20), os.urandom(1 << 20), os.urandom(5000)]
        segments = [artifacts.save_segment(store, memoryview(piece)) for piece in data]
        zero = artifacts.save_segment(store, memoryview(bytes(1 << 20)))
        assert zero == Segment(hash="", length=1 << 20)
        assert artifacts.save_segment(store, memoryview(data[0])) == segments[0]
        assert all(store.has_segment(segment) for segment in segments)
        assert not store.has_segment(Segment(hash="b3:" + "0" * 40, length=3))
        other = open_store(url)
        memory = other.map_segments([segments[0], zero, *segments[1:]])
        expected = data[0] + bytes(1 << 20) + data[1] + data[2]
        assert memory == expected
        memory[:4] = b"edit"
        assert other.map_segments(segments[:1]) == data[0]
        assert bytes(other.map_segments(segments[2:])) == data[2]
        assert other.map_segments([]).nbytes == 0
        with pytest.raises(StoreError, match="missing") as caught:
            other.map_segments([segments[0], Segment(hash="b3:" + "1" * 40, length=3)])
        assert "--fresh" in (caught.value.fix or "")

    def test_other_bytes_are_never_handed_out(
        self, url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither on the machine that wrote them nor on another one; and they are written again where they are had."""
        data = os.urandom(100_000)
        segment = artifacts.save_segment(store, memoryview(data))
        path = segment_path(segment.hash)
        for number, damage in enumerate((data[:-1] + bytes([data[-1] ^ 16]), data[:100], b"")):
            monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / f"machine {number}"))
            store.write(path, damage)
            other = open_store(url)
            with pytest.raises(DamagedError, match="is damaged") as caught:
                other.map_segments([segment])
            assert segment.hash in caught.value.message
            assert "--fresh" in (caught.value.fix or "")
            assert not other.has_segment(segment)
            assert not open_store(url).has_segment(segment), "what was found out is remembered"
            assert artifacts.save_segment(open_store(url), memoryview(data)) == segment
            assert store.read(path) == data
            assert open_store(url).map_segments([segment]) == data

    def test_all_of_it_can_be_read_and_mended(self, url: str, store: Store) -> None:
        from nbflow.model import KeyParts, Record
        from nbflow.runs import integrity
        from nbflow.store import records
        from nbflow.store.serialize.pickler import Registry, dump

        groups, entries = artifacts.save(store, dump({"a": np.arange(50_000.0)}, Registry()))
        records.publish(store, Record(
            format=FORMAT, key="ab12", execution="r.s.0", flow="f", run="r", step="s", index=(), turn=None, attempt=1,
            created_at=1.0, elapsed=0.0, source="", parts=KeyParts(code="c"), groups=groups, artifacts=entries,
        ))  # fmt: skip
        assert integrity.examine(open_store(url), lambda done, total: None).flaws == ()
        path = max((entry for entry in store.list("segments")), key=lambda entry: entry.size).path
        store.write(path, b"other bytes")
        found = integrity.examine(open_store(url), lambda done, total: None)
        assert [flaw.path for flaw in found.damaged] == ["results/ab/ab12/r.s.0.json", path]
        assert {flaw.concerns for flaw in found.damaged} == {("f/r/s: a",)}
        assert not integrity.repair(open_store(url), found).damaged
        assert integrity.examine(open_store(url), lambda done, total: None).flaws == ()
        assert store.read(f"damaged/{path}") == b"other bytes"

    def test_bytes_are_verified_before_they_stand_for_new_ones(
        self, url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = os.urandom(100_000)
        segment = artifacts.save_segment(store, memoryview(data))
        store.write(segment_path(segment.hash), data[::-1])
        monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "another machine"))
        artifacts.save_segment(open_store(url), memoryview(data))
        assert store.read(segment_path(segment.hash)) == data

    def test_whole_values(self, url: str, store: Store) -> None:
        from nbflow.store.serialize.pickler import Registry, dump

        array = np.random.default_rng(0).random(500_000)
        groups, _ = artifacts.save(store, dump({"x": array, "y": {"k": array[:5]}, "z": 1}, Registry()))
        found = artifacts.load(open_store(url), groups, None, Registry())
        np.testing.assert_array_equal(found["x"], array)
        found["x"][0] = -1
        assert found["y"]["k"][0] == -1
        assert found["z"] == 1


class TestLocal(StoreConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "some folder" / ".nbflow")


class TestFileUrl(StoreConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return (tmp_path / "some folder").as_uri()


class TestReadingInsteadOfMapping(StoreConformance):
    @pytest.fixture
    def url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("NBFLOW_NO_MMAP", "1")
        return str(tmp_path / "store")


class TestMemory(StoreConformance):
    @pytest.fixture
    def url(self) -> Iterator[str]:
        name = uuid.uuid4().hex
        yield f"memory://{name}"
        import fsspec

        with contextlib.suppress(FileNotFoundError):
            fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


class TestDriverWithoutWholePuts(StoreConformance):
    """A driver that writes in place, as for sftp: files are written beside and moved."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"local://{tmp_path}/remote"


@pytest.mark.remote
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestS3(StoreConformance):
    @pytest.fixture
    def url(self, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
        import fsspec

        for name, value in s3_server.items():
            monkeypatch.setenv(name, value)
        bucket = f"bucket-{uuid.uuid4().hex[:8]}"
        fsspec.filesystem("s3").mkdir(bucket)
        return f"s3://{bucket}/team/store"

    def test_create_is_conditional_on_the_server(self, url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even a writer that did not see the other one's file loses."""
        late = open_store(url)
        store.create("r/x", b"first")
        monkeypatch.setattr(late, "exists", lambda _: False)
        assert not late.create("r/x", b"second")
        assert store.read("r/x") == b"first"

    def test_segments_are_fetched_once(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        segment = artifacts.save_segment(open_store(url), memoryview(os.urandom(100_000)))
        monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "other machine"))
        other = open_store(url)
        first = bytes(other.map_segments([segment]))
        other.delete(f"segments/b3/{segment.hash[3:5]}/{segment.hash[3:]}")
        assert bytes(other.map_segments([segment])) == first

    def test_forked_child_opens_its_own_connection(self, url: str, store: Store) -> None:
        store.write("a", b"1")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if store.read("a") == b"1" else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.remote
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestS3ThatFails(StoreConformance):
    """An S3 server that answers every third request with an error, whether it has done it or not."""

    @pytest.fixture
    def url(self, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        import fsspec

        with servers.faulty(s3_server["AWS_ENDPOINT_URL"]) as endpoint:
            for name, value in {**s3_server, "AWS_ENDPOINT_URL": endpoint}.items():
                monkeypatch.setenv(name, value)
            bucket = f"bucket-{uuid.uuid4().hex[:8]}"
            fsspec.filesystem("s3").mkdir(bucket)
            yield f"s3://{bucket}/team/store"


@pytest.mark.remote
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_written_while_a_store_is_away_is_there_once_it_is_back(
    s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    port = int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2])
    link = servers.Link(port)
    for name, value in {**s3_server, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{link.port}"}.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # of other servers
    fsspec.filesystem("s3").mkdir(bucket)
    store = open_store(f"s3://{bucket}/store")
    writer = records.EventWriter(store, "f", "r", "w")
    events = [Tagged(at=float(number), name=f"tag {number}", present=True) for number in range(3)]
    writer.put(events[0])
    writer.flush()
    link.drop()
    writer.put(events[1])
    with pytest.raises(StoreError) as caught:
        store.write("flows/other", b"1")
    assert caught.value.is_away
    writer.put(events[2])  # what could not be written yet is no error
    link = servers.Link(port, at=link.port)
    writer.close()
    assert records.read_events(store, "f", "r") == events
    link.close()


@pytest.mark.remote
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_with_errors_of_its_own_counts_as_away_and_one_that_refuses_does_not(
    s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    with servers.faulty(s3_server["AWS_ENDPOINT_URL"], every=1) as endpoint:
        for server, is_away in ((endpoint, True), (s3_server["AWS_ENDPOINT_URL"], False)):
            for name, value in {**s3_server, "AWS_ENDPOINT_URL": server}.items():
                monkeypatch.setenv(name, value)
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            with pytest.raises(StoreError) as caught:
                open_store("s3://no-such-bucket/store").write("flows/x", b"1")
            assert caught.value.is_away is is_away


# ---------------------------------------------------------------- what only local folders can be asked


def test_different_names_stay_different() -> None:
    assert len({safe_name(name) for name in NAMES}) == len(NAMES)
    assert len(safe_name("x" * 5000)) <= 180
    assert safe_name("x" * 5000) != safe_name("x" * 5001)


def as_nobody(tmp_path: Path, imports: str, code: str) -> str:
    """Run code in a child that has given its rights away, since root may do anything; what it printed."""
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        if parent.stat().st_mode & 0o077 == 0:
            parent.chmod(0o755)
    given_away = "import os\nos.setgid(65534); os.setuid(65534)\n" if os.geteuid() == 0 else ""
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}\n{given_away}{code}"], capture_output=True, text=True, check=False,
        env={**os.environ, "NBFLOW_CACHE": os.devnull},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.running
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to lose permission")
def test_unwritable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o755)
    imports = "from nbflow.store.location import open_store\nfrom nbflow.errors import StoreError"
    code = f"""
for act in (lambda s: s.write("a", b"1"), lambda s: s.create("a", b"1")):
    try:
        act(open_store({str(folder)!r}))
    except StoreError as error:
        print(error.message, "|", error.fix)
    else:
        raise SystemExit("written")
"""
    told = as_nobody(tmp_path, imports, code)
    assert told.count("permission denied") == 2
    assert "NBFLOW_STORE" in told


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write to"):
        open_store(tmp_path / "file").write("a", b"1")


@pytest.mark.running
def test_full_disk(tmp_path: Path) -> None:
    code = f"""
import resource, os
from nbflow.store.location import open_store
from nbflow.errors import StoreError
store = open_store({str(tmp_path / "s")!r})
store.write("small", b"1")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for act in (store.write, store.create):
    try:
        act("big", os.urandom(1 << 20))
    except StoreError as error:
        assert "no space" in error.message and "gc" in error.fix, error.message
    else:
        raise SystemExit("written")
assert not store.exists("big")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "s").rglob("*")) == ["nbflow.json", "small"]
    assert resource.RLIMIT_FSIZE is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_full_file_system(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        store = open_store(tmp_path / "s")
        with pytest.raises(StoreError, match="no space left"):
            artifacts.save_segment(store, memoryview(os.urandom(4 << 20)))
        assert [entry.path for entry in store.list("")] == ["nbflow.json"]
        assert not list(tmp_path.rglob(".tmp-*"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=False)


def test_unreachable_place_and_unknown_scheme() -> None:
    for url in ("http://127.0.0.1:1/store", "nosuchscheme://x"):
        with pytest.raises(StoreError) as caught:
            open_store(url)
        assert url.partition(":")[0] in caught.value.message
        assert caught.value.fix


WRITER = """
import os, sys
from nbflow.store.location import open_store
from nbflow.model import Segment
from nbflow.store.artifacts import save_segment
store = open_store(sys.argv[1])
number = 0
print("ready", flush=True)
while True:
    data = bytes([number % 251]) * (1 + number * 7919 % 300_000)
    store.write("w/same", data)
    store.create(f"w/{number % 50}-{os.getpid()}", data)
    save_segment(store, memoryview(os.urandom(200_000)))
    number += 1
"""


@pytest.mark.running
def test_killed_writers_leave_nothing_torn(tmp_path: Path) -> None:
    from blake3 import blake3

    rng = np.random.default_rng(0)
    folder = tmp_path / "s"
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(float(rng.random()) * 0.1)
            writer.send_signal(signal.SIGKILL)
        store = open_store(folder)
        for entry in store.list("w"):
            data = store.read(entry.path)
            assert data == data[:1] * len(data)
            assert (len(data) - 1) % 7919 == 0 or len(data) <= 300_000
        for entry in store.list("segments"):
            name = entry.path.rpartition("/")[2]
            assert blake3(store.read(entry.path)).hexdigest(20) == name
    assert isinstance(store, LocalStore)
    left = len(list(folder.rglob(".tmp-*")))
    assert store.remove_temporary(time.time() + 1) == left
    assert not list(folder.rglob(".tmp-*"))


def test_mapped_memory_outlives_its_file_and_is_given_back(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s")
    data = os.urandom(3 << 20)
    segments = [
        artifacts.save_segment(store, memoryview(data[at : at + (1 << 20)])) for at in range(0, 3 << 20, 1 << 20)
    ]
    before = _mappings()
    memory = store.map_segments(segments)
    for entry in store.list("segments"):
        store.delete(entry.path)
    assert memory == data
    view = np.frombuffer(memory, np.uint8)
    del memory
    view[-1] = 1
    assert view[:-1].tobytes() == data[:-1]
    assert sys.platform != "linux" or _mappings() > before
    del view
    assert _mappings() <= before


def _mappings() -> int:
    maps = Path("/proc/self/maps")
    return sum("segments/" in line for line in maps.read_text().splitlines()) if maps.exists() else 0


def test_damaged_segment_is_written_again_and_never_loaded(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s")
    data = os.urandom(400_000)
    segment = artifacts.save_segment(store, memoryview(data))
    place = Path(str(store.local_path(f"segments/b3/{segment.hash[3:5]}/{segment.hash[3:]}")))
    place.unlink()
    place.write_bytes(data[:100])
    with pytest.raises(StoreError, match="damaged"):
        store.map_segments([segment])
    assert artifacts.save_segment(store, memoryview(data)) == segment
    assert store.map_segments([segment]) == data


@pytest.mark.parametrize("damage", ["missing", "folder", "pipe", "nowhere", "loop"])
def test_a_segment_that_is_no_file_is_lost_at_once(damage: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / "s")
    segment = artifacts.save_segment(store, memoryview(os.urandom(400_000)))
    place = Path(str(store.local_path(segment_path(segment.hash))))
    place.unlink()
    make = {"folder": place.mkdir, "pipe": lambda: os.mkfifo(place), "nowhere": lambda: place.symlink_to("nowhere"),
            "loop": lambda: place.symlink_to(place.name)}  # fmt: skip
    make.get(damage, lambda: None)()
    assert not store.has_segment(segment)
    with pytest.raises(DamagedError, match=r"is missing|cannot be read"):
        store.map_segments([segment])
    assert store.read_many([segment_path(segment.hash), "nbflow.json"]).keys() == {"nbflow.json"}


@pytest.mark.running
def test_a_segment_that_may_not_be_read_is_lost_at_once(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s")
    segment = artifacts.save_segment(store, memoryview(os.urandom(400_000)))
    Path(str(store.local_path(segment_path(segment.hash)))).chmod(0)
    imports = """
from nbflow.errors import DamagedError
from nbflow.model import Segment
from nbflow.store.interface import segment_path
from nbflow.store.location import open_store
"""
    code = f"""
store = open_store({str(tmp_path / "s")!r})
segment = Segment(hash={segment.hash!r}, length={segment.length})
print(store.has_segment(segment))
try:
    store.map_segments([segment])
except DamagedError as error:
    print(error.message)
print(sorted(store.read_many([segment_path(segment.hash), "nbflow.json"])))
"""
    has, message, read = as_nobody(tmp_path, imports, code).splitlines()
    assert has == "False"
    assert re.search("is missing|cannot be read", message)
    assert read == "['nbflow.json']"


def test_a_segment_is_read_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark holds while the file looks as it did: bytes changed behind its back are what `fsck` is for."""
    data = os.urandom(400_000)
    segment = artifacts.save_segment(open_store(tmp_path / "s"), memoryview(data))
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "another machine"))
    assert open_store(tmp_path / "s").map_segments([segment]) == data
    place = tmp_path / "s" / segment_path(segment.hash)
    about = place.stat()
    with place.open("r+b") as file:
        file.write(b"other")
    os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert open_store(tmp_path / "s").map_segments([segment]) != data
    os.utime(place)
    with pytest.raises(DamagedError):
        open_store(tmp_path / "s").map_segments([segment])


def test_a_segment_that_is_counted_on_again_stays_verified(tmp_path: Path) -> None:
    segment = artifacts.save_segment(open_store(tmp_path / "s"), memoryview(os.urandom(400_000)))
    place = tmp_path / "s" / segment_path(segment.hash)
    os.utime(place, (1, 1))
    assert open_store(tmp_path / "s").has_segment(segment)  # read, as it is not as it was
    os.utime(place, (1, 1))
    store = open_store(tmp_path / "s")
    assert store.has_segment(segment)
    assert time.time() - place.stat().st_mtime < 60
    look = store.look(segment_path(segment.hash))
    assert look is not None
    assert store.verified.marks({segment.hash: look})[segment.hash].stamp == look.stamp


def test_cache_folder_follows_the_environment(tmp_path: Path) -> None:
    assert cache_folder({"NBFLOW_CACHE": str(tmp_path)}) == tmp_path
    if sys.platform == "linux":
        assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "nbflow"


@pytest.mark.running
def test_opening_a_local_store_imports_no_driver() -> None:
    code = """
import sys
from nbflow.store import artifacts, index, records
from nbflow.store.serialize import pickler
from nbflow.store.location import open_store
open_store("/nowhere")
heavy = {"fsspec", "numpy", "pandas", "s3fs", "polars", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
