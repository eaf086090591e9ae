"""`nbflow serve`: the runs of a datastore and their cards as pages on a local port, for whoever has the token.

It reads and never writes; nothing is unpickled. Each answer is one page that loads nothing: a list of runs, or the card
of a run, a step or a task. Only this machine can reach it, only requests with the token are answered, and only those
that name this very host: a page elsewhere that a browser has open gets nothing.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

from nbflow.errors import NbflowError, NotFoundError, OptionError
from nbflow.render import cards, html, listing
from nbflow.runs import client

HOST = "127.0.0.1"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
SHOWN = 200
"""Runs that the list holds."""


class CardServer(ThreadingHTTPServer):
    """Answers on a port of this machine; `token` is a part of each address."""

    daemon_threads = True

    def __init__(self, store: str | None, port: int = 0) -> None:
        """Listen on a port, 0 for a free one."""
        self.store = store
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Request)
        except OSError as error:
            raise OptionError(f"port {port} cannot be used: {error.strerror}", fix="name another --port") from None

    @property
    def url(self) -> str:
        """The address of the list of runs."""
        return f"http://{HOST}:{self.server_address[1]}/?token={self.token}"

    def link(self, path: str) -> str:
        """Return the address of a card on this server."""
        return f"/{quote(path)}?token={self.token}"

    def page(self, path: str) -> str:
        """Return the page at a path: the list of runs, or the card of `FLOW/RUN[/STEP[/ITEM]]`."""
        if not path:
            return self._runs()
        card = client.card_at(path, "", self.store)
        back = html.tag("p", html.tag("a", "all runs", href=self.link("")))
        return cards.document(path, "", f"{back}{card.body}")

    def _runs(self) -> str:
        now = time.time()
        runs = client.list_runs(self.store)
        rows = []
        for run in (client.row(each) for each in runs[:SHOWN]):
            name = f"{run.flow}/{run.run}"
            rows.append((
                html.tag("a", name, href=self.link(name)), html.state(run.status, listing.STATUS_MARKS[run.status]),
                listing.when(run.started_at, now), run.tasks, " ".join(run.tags), run.note,
            ))  # fmt: skip
        more = f"and {len(runs) - SHOWN:,} more" if len(runs) > SHOWN else ""
        table = html.table(("run", "status", "started", "tasks", "tags", "note"), rows) if rows else "no runs"
        return cards.document("Runs", more, str(table))


class _Request(BaseHTTPRequestHandler):
    server: CardServer
    server_version, sys_version = "nbflow", ""

    def do_GET(self) -> None:
        """Answer with a page, or with as little as can be said."""
        parts = urlsplit(self.path)
        token = (parse_qs(parts.query).get("token") or [""])[0]
        is_known = secrets.compare_digest(token.encode(), self.server.token.encode())
        if not is_known or self.headers.get("Host", "") != f"{HOST}:{self.server.server_address[1]}":
            self._answer(HTTPStatus.FORBIDDEN, "the address lacks the token that `nbflow serve` has printed")
            return
        try:
            page = self.server.page(unquote(parts.path).strip("/"))
        except NotFoundError as error:
            self._answer(HTTPStatus.NOT_FOUND, error.message)
        except NbflowError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, error.message)
        else:
            self._send(HTTPStatus.OK, page)

    def _answer(self, status: HTTPStatus, message: str) -> None:
        self._send(status, cards.document(status.phrase, "", str(html.tag("p", message))))

    def _send(self, status: HTTPStatus, page: str) -> None:
        content = page.encode("utf-8", errors="replace")
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has gone
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing: addresses hold the token."""
