"""A real sshd on this machine's loopback: a host key, a user's key and a client's configuration of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nbflow.executors.ssh.connection import Connection
from tests.support.hosts import Host
from tests.support.servers import free_port
from tests.support.waiting import eventually

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ROOT = Path(__file__).resolve().parents[2]


def is_installed() -> bool:
    return bool(shutil.which("ssh")) and Path(SSHD).exists()


class SshServer:
    """The box under the desk. Its sessions have a cache folder of their own, and this tree's nbflow.

    With `hidden` folders it sees those empty, as another machine would.
    """

    def __init__(
        self, folder: Path, port: int, hidden: tuple[Path, ...] = (), size: str = "64m", host: Host | None = None,
        **variables: str,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.host = host  # where it runs; on this machine's loopback without one
        self.address = host.address if host is not None else "127.0.0.1"
        self.port = port
        self.hidden = hidden
        self.size = size  # of what stands in their place
        self.cache = folder / "box-cache"
        self.config = folder / "config"
        self.variables = {
            "NBFLOW_CACHE": str(self.cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1", "NO_COLOR": "1", **variables,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The box, with the Python that the tests run in."""
        return f"ssh://box?python={sys.executable}"

    @property
    def environ(self) -> Mapping[str, str]:
        """What a process needs to find the box."""
        return {"NBFLOW_SSH": f"ssh -F {self.config}"}

    def make(self) -> None:
        """Write keys and configurations."""
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True)
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        known = " ".join((self.folder / "host.pub").read_text().split()[:2])
        (self.folder / "known").write_text(f"[{self.address}]:{self.port} {known}\n")
        settings = " ".join(f"{name}={value}" for name, value in self.variables.items())
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress {self.address}\nHostKey {self.folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nMaxStartups 100\nMaxSessions 100\nSetEnv {settings}\n"
        )
        self.config.write_text(
            f"Host box stranger elsewhere\n  HostName {self.address}\n  Port {self.port}\n  User {getpass.getuser()}\n"
            f"  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
            f"Host box elsewhere\n  IdentityFile {self.folder}/user\n"
            f"Host stranger\n  IdentityFile {self.folder}/stranger\n"
            f"Host elsewhere\n  UserKnownHostsFile /dev/null\n"
            f"Host *\n  UserKnownHostsFile {self.folder}/known\n  GlobalKnownHostsFile /dev/null\n"
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        if self.hidden:
            covered = " && ".join(f"mount -t tmpfs -o size={self.size} none '{path}'" for path in self.hidden)
            command = ["unshare", "--mount", "sh", "-c", f'{covered} && exec "$@"', "sh", *command]
        if self.host is not None:
            command = [*self.host.command, *command]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()[-2000:]
            return (
                subprocess.run(
                    ["ssh", "-F", str(self.config), "box", "true"], capture_output=True, check=False
                ).returncode
                == 0
            )

        eventually(answers, 30)

    def cut(self, connection: Connection) -> None:
        """End the connection that everything shares, as a network does that goes away."""
        command = connection.command("", "-O", "check")
        match = re.search(r"pid=(\d+)", subprocess.run(command, capture_output=True, text=True, check=True).stderr)
        assert match is not None
        os.kill(int(match.group(1)), signal.SIGKILL)

    def leave(self) -> None:
        """End it; sessions and workers go on."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """End it, and the workers that have outlived their sessions."""
        self.leave()
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def workers(self) -> list[int]:
        """The workers' processes, as far as their files tell."""
        pids = []
        for path in (self.cache / "box" / "workers").glob("*"):
            with contextlib.suppress(OSError, ValueError):
                pids.append(int(path.read_text()))
        return pids


def _can_hide() -> bool:
    """Return whether this user may give a process mounts of its own."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


hiding = pytest.mark.skipif(not _can_hide(), reason="needs the right to mount, as root in a container has it")


@contextlib.contextmanager
def serving(
    folder: Path, hidden: tuple[Path, ...] = (), size: str = "64m", host: Host | None = None, **variables: str
) -> Iterator[SshServer]:
    """A box for as long as the block lasts, under the name that its configuration gives it."""
    server = SshServer(folder, free_port(), hidden, size, host, **variables)
    server.make()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environ.items():
            patch.setenv(name, value)
        try:
            server.start()
            yield server
        finally:
            server.stop()
