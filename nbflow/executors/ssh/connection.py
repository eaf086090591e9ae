"""The user's own OpenSSH: an address → commands on the box through one connection, and errors that say what to do.

Keys, jump hosts, names and ports come from the user's configuration; nothing here knows a secret.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shlex
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar, cast

import msgspec

from nbflow.errors import ExecutorError, PlanError
from nbflow.executors import wire
from nbflow.executors.ssh import messages
from nbflow.executors.ssh.messages import BoxFacts, EventBytes, Reply, Request, SegmentPart
from nbflow.store.location import cache_folder

COMMAND = "NBFLOW_SSH"
"""A variable with the command to use instead of `ssh`, as in `ssh -F config`."""

OPTIONS = {
    "BatchMode": "yes",  # a notebook has nowhere to type a password
    "ConnectTimeout": "10", "ServerAliveInterval": "5", "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes", "RequestTTY": "no", "RemoteCommand": "none", "PermitLocalCommand": "no",
    "LogLevel": "ERROR",
}  # fmt: skip

KEPT = "120"
"""Seconds that a connection stays open after its last use, for the next run."""

SOCKET_NAME = 80
"""Characters of a socket's path at most: a system allows 104, and OpenSSH adds some while it makes one."""

LONGEST = 60.0
"""Seconds that the box may take until its desk speaks."""

FAILED = 255
"""The exit status with which OpenSSH says that there is no connection."""

_T = TypeVar("_T")

TROUBLES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{place} shows another host key than before: it was set up anew, or somebody stands between",
        "if you know why, `ssh-keygen -R {host}` forgets the old key; then `ssh {target}` once",
    ),
    (
        r"Host key verification failed|authenticity of host|host key is known for",
        "the host key of {place} is not known here",
        "connect once in a terminal, `ssh {target}`, and compare the key that it shows",
    ),
    (
        r"Permission denied|Too many authentication failures|no mutual signature",
        "{place} does not let this user in: {said}",
        "make `ssh -o BatchMode=yes {target} true` work in a terminal: ssh-add, or key and user in ~/.ssh/config",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        "there is no host of the name {host}",
        "correct the name, or give it an address in ~/.ssh/config",
    ),
    (
        r"Connection refused",
        "nothing listens at {place}",
        "see that sshd runs there, and on this port: ssh://HOST:PORT",
    ),
    (
        r"No route to host|Network is unreachable|timed out|Operation timed out",
        "there is no way to {place}: {said}",
        "see that it is switched on and that this network leads there (VPN, ProxyJump in ~/.ssh/config)",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "the disk of {place} is full: {said}",
        "free some space there; nbflow keeps its things in ~/.cache/nbflow",
    ),
)
"""What OpenSSH says, what that means, and what to do."""


class Address(msgspec.Struct, frozen=True):
    """`ssh://[user@]host[:port][?python=PATH]`."""

    host: str
    user: str = ""
    port: int | None = None
    python: str = ""

    @property
    def target(self) -> str:
        """The words after `ssh`, as a person would write them."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"

    @property
    def place(self) -> str:
        """The URL without options."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}:{self.port}" if self.port else f"ssh://{user}{host}"


def parse_address(url: str) -> Address:
    """Return what a URL names; PlanError for anything but `ssh://[user@]host[:port][?python=PATH]`."""
    fix = "write ssh://HOST, ssh://USER@HOST:PORT or ssh://HOST?python=PATH"
    try:
        parts = urllib.parse.urlsplit(url)
        port, host, user = parts.port, parts.hostname or "", urllib.parse.unquote(parts.username or "")
        query = dict(urllib.parse.parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise PlanError(f"--on {without_password(url)}: not an SSH address", fix=fix) from None
    if parts.password is not None:
        raise PlanError(f"--on {without_password(url)}: a password has no place in a URL", fix=f"use a key; {fix}")
    named = parts.netloc.rpartition("@")[2].partition(":")[0]  # as it is written: ~/.ssh/config tells cases apart
    host = host if named.lower() != host else named
    plain = re.fullmatch(r"[\w.:%-]+", host) and re.fullmatch(r"[\w.+\\@-]*", user)
    if parts.scheme != "ssh" or not plain or host.startswith("-") or user.startswith("-") or parts.path.strip("/"):
        raise PlanError(f"--on {url}: not an SSH address", fix=fix)
    if query.keys() - {"python"}:
        raise PlanError(f"--on {url}: unknown: {', '.join(sorted(query.keys() - {'python'}))}", fix=fix)
    return Address(host=host, user=user, port=port, python=query.get("python", ""))


def without_password(url: str) -> str:
    """Return a URL without what may stand before its host."""
    return re.sub(r"//[^/@]*@", "//***@", url)


class Connection:
    """One box as OpenSSH reaches it; commands share one connection where the system can do that."""

    def __init__(self, address: Address, environ: Mapping[str, str] = os.environ) -> None:
        self.address = address
        self._words = shlex.split(environ.get(COMMAND, "")) or ["ssh"]
        self.socket = _socket_path([*self._words, address.place]) if os.name == "posix" else None

    def command(self, remote: str = "", *options: str, master: str = "no") -> list[str]:
        """Return the local command that has the box's shell run a line."""
        address = self.address
        words = [*self._words, "-T", *options]
        settings = dict(OPTIONS)
        if self.socket is not None:
            settings |= {"ControlMaster": master, "ControlPath": str(self.socket), "ControlPersist": KEPT}
        for name, value in settings.items():
            words += ["-o", f"{name}={value}"]
        words += ["-p", str(address.port)] if address.port else []
        words += ["-l", address.user] if address.user else []
        return [*words, "--", address.host, *([remote] if remote else [])]

    def open(self) -> None:
        """Have the connection that the others share; ExecutorError says why there is none."""
        if self.socket is None or self._is_shared():
            return
        # one at a time: OpenSSH's second master finds the socket taken, and stays for ever without one
        with _alone(self.socket.with_suffix(".lock")):
            if self._is_shared():
                return
            with contextlib.suppress(OSError):  # of one that has ended without tidying up
                self.socket.unlink()
            code, said = self._run(self.command("", "-N", "-f", master="yes"))
        if code:
            raise self.trouble(said)

    def _is_shared(self) -> bool:
        return self._run(self.command("", "-O", "check"))[0] == 0

    def run(self, script: str, data: bytes = b"", longest: float = 600.0) -> tuple[int, str]:
        """Return the exit status of a shell script there, and what it wrote; ExecutorError without a connection."""
        code, said = self._run(self.command(shell_line(script)), data, longest)
        if code == FAILED:
            raise self.trouble(said)
        return code, said

    def _run(self, words: Sequence[str], data: bytes = b"", longest: float = 60.0) -> tuple[int, str]:
        # a file, not a pipe: a connection that stays open would keep the pipe open, too
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
                )
            except OSError as error:
                raise no_client(error) from error
            try:
                process.communicate(data, timeout=longest)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                said.write(f"no answer within {longest:g} s: timed out".encode())
            said.seek(0)
            return (process.returncode or 0) % 256, said.read().decode(errors="replace").strip()

    def channel(self, script: str) -> Channel:
        """Return the two ends of a script there."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # the channel's, closed with it
        try:
            process = subprocess.Popen(
                self.command(shell_line(script)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise no_client(error) from error
        return Channel(process, errors)

    def trouble(self, said: str) -> ExecutorError:
        """Return why there is no connection, from what OpenSSH has said of it."""
        address = self.address
        lines = [line for line in said.splitlines() if line.strip()]
        words = {
            "place": address.place,
            "host": address.host,
            "target": address.target,
            "said": lines[-1] if lines else "",
        }
        for pattern, message, fix in TROUBLES:
            if re.search(pattern, said):
                return ExecutorError(message.format(**words), fix=fix.format(**words))
        return ExecutorError(
            f"{address.place} cannot be used: {words['said'] or 'ssh has ended without a word'}",
            fix=f"`ssh -o BatchMode=yes {address.target} true` has to work in a terminal",
        )


def no_client(error: OSError) -> ExecutorError:
    """Return what is wrong where OpenSSH's client does not start."""
    return ExecutorError(f"ssh cannot be started: {error}", fix=f"install OpenSSH's client, or name it in {COMMAND}")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes and threads from doing the same meanwhile."""
    import fcntl  # not on Windows, where nothing is shared

    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def shell_line(script: str) -> str:
    """Return a line that has any login shell, fish and csh too, hand a script to sh."""
    return f"exec sh -c {shlex.quote(script)}"


def _socket_path(words: Sequence[str]) -> Path | None:
    """Return where the shared connection's socket lies: short, and nobody else's; None where there is no such place."""
    name = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = [cache_folder() / "ssh", *([Path(runtime) / "nbflow"] if runtime else [])]
    for place in (*places, Path(tempfile.gettempdir()) / f"nbflow-{os.getuid()}"):
        if len(str(place / name)) > SOCKET_NAME:
            continue
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = place.lstat()
        except OSError:
            continue
        if about.st_uid == os.getuid() and place.is_dir() and not place.is_symlink():
            place.chmod(0o700)
            return place / name
    return None


class Channel:
    """A desk at the other end of a connection: requests go out, reports come in."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process = process
        self._errors = errors
        self._in, self._out = cast("tuple[IO[bytes], IO[bytes]]", (process.stdin, process.stdout))
        self._writer = wire.FrameWriter(self._in.fileno())
        self._waiting: dict[int, _Awaited] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._reader: threading.Thread | None = None
        self._rest = b""
        self.is_open = True

    def greeting(self) -> str | None:
        """Return the version of Python that the box greets with, None when it ends without a greeting."""
        data = b""
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            ready, _, _ = select.select([self._out], [], [], until - time.monotonic())
            piece = os.read(self._out.fileno(), 1 << 16) if ready else b""
            if not piece:
                return None
            data += piece
            before, found, after = data.partition(messages.GREETING)
            line, ended, rest = after.partition(b"\n")
            if found and ended:
                self._rest = rest
                return line.decode(errors="replace").strip()
            data = (before[-len(messages.GREETING) :] + found + after) if len(before) > 1 << 20 else data
        return None

    def said(self) -> tuple[int, str]:
        """Return the exit status and what came as errors, once it has ended or been ended."""
        self._end()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        self.close()
        return self.process.returncode % 256, said

    def listen(self, take: Callable[[BoxFacts | EventBytes | SegmentPart], None], ended: Callable[[], None]) -> None:
        """Take what the desk says, from now on and until the connection ends; answers go to whoever waits for them."""

        def read() -> None:
            self._read(take)
            ended()

        self._reader = threading.Thread(target=read, name="nbflow ssh", daemon=True)
        self._reader.start()

    def _read(self, take: Callable[[BoxFacts | EventBytes | SegmentPart], None]) -> None:
        assembler = wire.Assembler()
        data = self._rest
        try:
            while True:
                for body in assembler.feed(data):
                    report = messages.parse_box_report(body)
                    if isinstance(report, Reply):
                        with self._lock:
                            awaited = self._waiting.pop(report.number, None)
                        if awaited is not None:
                            awaited.answer(report)
                    else:
                        take(report)
                data = os.read(self._out.fileno(), 1 << 18)
                if not data:
                    return
        except (OSError, ValueError, msgspec.MsgspecError):
            return
        finally:
            self.is_open = False
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            for awaited in waiting.values():
                awaited.answer(None)

    def send(self, request: Request) -> None:
        """Send what needs no answer; ExecutorError when the connection is cut."""
        try:
            self._writer.send(request)
        except (OSError, ValueError) as error:
            self.is_open = False
            raise cut() from error

    def ask(self, request: Callable[[int], Request], kind: type[_T], longest: float = 60.0) -> _T:
        """Return the answer to a request; ExecutorError when the desk refuses it or the connection is cut."""
        awaited = _Awaited()
        with self._lock:
            self._number += 1
            number = self._number
            self._waiting[number] = awaited
            if not self.is_open:
                raise cut()
        self.send(request(number))
        reply = awaited.wait(longest)
        if reply is None:
            raise cut()
        if reply.error:
            raise ExecutorError(reply.error, fix=reply.fix)
        return messages.unpacked(reply.value, kind)

    def close(self) -> None:
        """End the connection; what runs on the box goes on."""
        self._end()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(5.0)
        self._out.close()
        self._errors.close()

    def _end(self) -> None:
        self.is_open = False
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class ConnectionCut(ExecutorError):
    """The way to the box is gone; what runs there goes on."""


def cut() -> ConnectionCut:
    """Return the error of a connection that has ended."""
    return ConnectionCut("the connection is cut", fix="wait: nbflow connects again by itself, and nothing is lost")


class _Awaited:
    """An answer that somebody waits for."""

    def __init__(self) -> None:
        self._come = threading.Event()
        self._reply: Reply | None = None

    def answer(self, reply: Reply | None) -> None:
        self._reply = reply
        self._come.set()

    def wait(self, longest: float) -> Reply | None:
        self._come.wait(longest)
        return self._reply
