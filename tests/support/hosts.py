"""Several hosts on one machine: network namespaces at a bridge, with links that can be cut.

The bridge is in the network of the process that makes them, which has to have one of its own that holds nothing else:
`unshare --net python -m pytest …`, as `make soak` does. So nothing of the machine's own network is touched.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = "10.77.0.1"
"""The address of this process itself, at the bridge."""


def has_own_network() -> bool:
    """Return whether this process is in a network of its own, with nothing in it but its loopback."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines] == ["lo"] and bool(shutil.which("ip"))


@dataclass(frozen=True)
class Host:
    """One of the hosts."""

    address: str
    pid: int  # of the process that keeps its network
    link: str  # what its cable is called at the bridge

    @property
    def command(self) -> list[str]:
        """What a command begins with that is to run there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def cut(self) -> None:
        """Pull its cable: nothing goes there or comes from there."""
        ip("link", "set", self.link, "down")

    def heal(self) -> None:
        """Put it in again."""
        ip("link", "set", self.link, "up")


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[dict[str, Host]]:
    """Hosts by their names, for as long as the block lasts; they reach each other and this process."""
    with contextlib.ExitStack() as stack:
        ip("link", "set", "lo", "up")
        ip("link", "add", "bridge0", "type", "bridge")
        stack.callback(ip, "link", "del", "bridge0")
        ip("addr", "add", f"{HERE}/24", "dev", "bridge0")
        ip("link", "set", "bridge0", "up")
        made = {}
        for number, name in enumerate(names, 2):
            keeper = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo up; exec cat"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)  # fmt: skip
            stack.callback(keeper.kill)
            assert keeper.stdout is not None
            keeper.stdout.readline()
            host = Host(f"10.77.0.{number}", keeper.pid, f"to-{name}")
            ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            ip("link", "set", host.link, "master", "bridge0", "up")
            for words in (
                ("addr", "add", f"{host.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"), ("route", "add", "default", "via", HERE),
            ):  # fmt: skip
                subprocess.run([*host.command, "ip", *words], check=True)
            made[name] = host
        yield made


def ip(*words: str) -> None:
    """Change this process's network."""
    subprocess.run(["ip", *words], check=True)
