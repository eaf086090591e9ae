"""Addresses of clusters: read from `--on URL`, and tried before an engine's own client waits for half a minute."""

from __future__ import annotations

import re
import socket
import urllib.parse

from nbflow.errors import ExecutorError, PlanError

REACH = 5.0
"""Seconds in which a host has to answer at all."""


def parse_address(url: str, scheme: str, port: int) -> tuple[str, int]:
    """Return host and port of `scheme://host:port`; PlanError for anything else."""
    try:
        parts = urllib.parse.urlsplit(url)
        given = parts.port
    except ValueError:
        parts, given = urllib.parse.urlsplit(""), None
    if parts.scheme != scheme or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise PlanError(
            f"--on {re.sub(r'//[^/@]*@', '//***@', url)}: not a {scheme.title()} address",
            fix=f"write {scheme}://HOST:{port}",
        )
    return parts.hostname, given or port


def reach(host: str, port: int, place: str, fix: str) -> None:
    """Ask whether anybody listens at all; ExecutorError where nobody does."""
    try:
        socket.create_connection((host, port), REACH).close()
    except OSError as error:
        raise ExecutorError(f"nothing answers at {place}: {error.strerror or error}", fix=fix) from error
