"""What a URL of the box under the desk may say, and what OpenSSH's words mean."""

from __future__ import annotations

import pytest

from nbflow.errors import PlanError
from nbflow.executors.ssh.connection import Address, Connection, parse_address

ADDRESSES = {
    "ssh://box": Address(host="box"),
    "ssh://Box": Address(host="Box"),
    "ssh://me@box:2222": Address(host="box", user="me", port=2222),
    "ssh://box?python=/opt/conda/bin/python": Address(host="box", python="/opt/conda/bin/python"),
    "ssh://box?python=~/envs/ml/bin/python": Address(host="box", python="~/envs/ml/bin/python"),
    "ssh://[::1]:22": Address(host="::1", port=22),
    "ssh://me%40work@box": Address(host="box", user="me@work"),
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address(url: str) -> None:
    assert parse_address(url) == ADDRESSES[url]


NONE = [
    "ssh:box", "ssh://", "ssh://box:port", "ssh://box/path", "ssh://-oProxyCommand=x", "ssh://-x@box", "ssh://a b",
    "ssh://box?cpu=3", "ssh://box?python", "ssh://box;rm", "ssh://$(x)",
]  # fmt: skip


@pytest.mark.parametrize("url", NONE)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(PlanError, match="--on ") as caught:
        parse_address(url)
    assert "ssh://HOST" in (caught.value.fix or "")


def test_a_password_is_neither_taken_nor_repeated() -> None:
    with pytest.raises(PlanError, match="a password has no place") as caught:
        parse_address("ssh://me:secret@box")
    assert "secret" not in str(caught.value)


def test_a_place_is_its_url_without_options() -> None:
    assert parse_address("ssh://me@box:22?python=/x").place == "ssh://me@box:22"
    assert parse_address("ssh://[::1]").place == "ssh://[::1]"


SAID = {
    "Host key verification failed.": "the host key of ssh://me@box is not known here",
    "No ED25519 host key is known for box and you have requested strict checking.": "is not known here",
    "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.": "another host key",
    "me@box: Permission denied (publickey).": r"does not let this user in: me@box: Permission denied \(publickey\)",
    "ssh: Could not resolve hostname box: Name or service not known": "there is no host of the name box",
    "ssh: connect to host box port 22: Connection refused": "nothing listens at ssh://me@box",
    "ssh: connect to host box port 22: No route to host": "there is no way to ssh://me@box: .* No route",
    "ssh: connect to host box port 22: Connection timed out": "there is no way to ssh://me@box: .* timed out",
    "cat: write error: No space left on device": "the disk of ssh://me@box is full",
    "kex_exchange_identification: read: Connection reset": "cannot be used: kex_exchange_identification",
    "": "ssh has ended without a word",
}


@pytest.mark.parametrize("said", SAID)
def test_what_openssh_says_is_one_message_with_a_fix(said: str) -> None:
    error = Connection(parse_address("ssh://me@box"), {}).trouble(said)
    with pytest.raises(type(error), match=SAID[said]):
        raise error
    assert error.fix
    assert "\n" not in error.message


def test_a_socket_has_a_short_path_that_no_other_address_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", "/" + "long/" * 40)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    sockets = {str(Connection(parse_address(url), {}).socket) for url in ("ssh://a", "ssh://b", "ssh://me@a")}
    assert len(sockets) == 3
    assert all(len(path) < 85 for path in sockets)
