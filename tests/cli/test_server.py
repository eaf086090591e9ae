"""`nbflow serve`: pages for whoever has the token, on this machine; `nbflow tutorial`: the examples."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.cli import app
from nbflow.cli.server import HOST, CardServer
from nbflow.cli.tutorial import FIRST, examples
from nbflow.flow.notebook import read_notebook
from tests.support.stored import StoredRun

NASTY = "<script>alert(1)</script>"


@pytest.fixture
def server(folder: Path) -> Iterator[CardServer]:
    made = StoredRun(folder, ["%%step a\nprint('x')\nxs = [1, 2]", f"%%step b\ns = {NASTY!r}"], tags=(NASTY[:6],))
    record = made.execute("a")
    made.execute("b")
    made.log(record.execution, {"output_type": "stream", "name": "stdout", "text": f"out {NASTY}\n"})
    made.end()
    with CardServer(made.store.url) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: CardServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def test_runs_and_their_cards_as_pages_that_load_nothing(server: CardServer) -> None:
    status, page, headers = ask(server, f"/?token={server.token}")
    assert status == 200
    assert headers["Referrer-Policy"] == "no-referrer"
    (link,) = set(re.findall(r'href="(/demo/[^"]+)"', page))
    status, card, _ = ask(server, link.replace("&amp;", "&"))
    assert status == 200
    assert "out" in card
    for text in (page, card):
        assert "Content-Security-Policy" in text
        assert NASTY not in text
        assert not re.search(r"(?:src|href)=.(?:https?:)?//", text)
    part = link.replace("?token", "/a?token")
    assert ask(server, part)[0] == 200
    assert ask(server, link.replace("/demo/", "/nothing/"))[0] == 404


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/demo/latest", "/..%2f..%2fetc/passwd?token=x"])
def test_without_the_token_nothing_is_said(server: CardServer, path: str) -> None:
    status, page, _ = ask(server, path)
    assert status == 403
    assert "demo" not in page


def test_a_page_elsewhere_that_has_found_the_port_gets_nothing(server: CardServer) -> None:
    """A name that someone lets lead here is another host to a browser."""
    assert ask(server, f"/?token={server.token}", Host="evil.example")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_it_only_reads(server: CardServer, method: str) -> None:
    assert ask(server, f"/?token={server.token}", method)[0] == 501


@pytest.mark.running
def test_the_command_says_where_it_is_and_ends_with_an_interrupt(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nbflow", "serve"], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert re.fullmatch(rf"http://{re.escape(HOST)}:\d+/\?token=[\w-]{{20,}}", url)
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


# ---------------------------------------------------------------- the tutorial


def test_the_tutorial_writes_the_examples_and_replaces_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["tutorial", "mine", "--no-open"]) == 0
    told = capsys.readouterr().out
    names = [each.name for each in examples()]
    assert FIRST in names
    assert sorted(each.name for each in (folder / "mine").iterdir()) == names
    assert f"{len(names)} files written" in told
    assert "jupyter lab mine/quickstart.ipynb" in told
    assert read_notebook(folder / "mine" / FIRST).cells
    (folder / "mine" / FIRST).write_text(json.dumps({"mine": True}))
    assert app.main(["tutorial", "mine", "--no-open"]) == 0
    assert json.loads((folder / "mine" / FIRST).read_text()) == {"mine": True}
    assert f"{len(names)} were there already" in capsys.readouterr().out
    (folder / "file").write_text("")
    assert app.main(["tutorial", "file", "--no-open"]) == 2
