"""What the browser tests share: Chromium, pages whose console must stay empty, screenshots where they are wanted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.jupyter import Notebook, Server

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SHOTS = os.environ.get("NBFLOW_SCREENSHOTS", "")
"""A folder for screenshots; without it none are taken."""

Shoot = Callable[[Page, str], None]
expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium."""
    path = os.environ.get("NBFLOW_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("there is no Chromium: `make browser` installs it, or NBFLOW_CHROMIUM names one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


OF_NOTEBOOK = [
    "Menu entry for command '.*' is duplicated",
    "yjs#509",
    "reading 'schema'",
    "'filebrowser:open-path' not registered",
]
"""What Notebook 7 says on the console by itself, nbflow's extension switched off."""


class Console:
    """What pages said on their consoles; anything but what is allowed fails the test."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.allowed: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.lines.append(f"error: {error}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.lines.append(f"{message.type}: {message.text}")

    def check(self) -> None:
        bad = [line for line in self.lines if not any(re.search(one, line) for one in self.allowed)]
        assert not bad, "\n".join(bad)


@pytest.fixture
def console() -> Iterator[Console]:
    """The console of the test's pages, checked when the test has passed."""
    found = Console()
    yield found
    found.check()


@pytest.fixture
def shoot() -> Shoot:
    """Take a screenshot of a page under a name, where NBFLOW_SCREENSHOTS names a folder."""

    def take(page: Page, name: str) -> None:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))

    return take


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh browser profile."""
    made = chromium.new_context(viewport={"width": 1280, "height": 860})
    made.set_default_timeout(20_000)
    yield made
    made.close()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Jupyter server with JupyterLab and Notebook 7."""
    server = Server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.close()


@pytest.fixture
def server(jupyter: Server) -> Iterator[Server]:
    """The server, without kernels and stores of earlier tests."""
    yield jupyter
    jupyter.begin_anew()


@pytest.fixture
def notebook(server: Server, context: BrowserContext, console: Console) -> Callable[..., Notebook]:
    """Open a notebook: `notebook("a.ipynb", [sources], lab=…)`."""

    def make(
        name: str,
        sources: list[str],
        *,
        lab: bool = True,
        load: bool = True,
        dark: bool = False,
        write: Callable[[str], object] | None = None,
        watch: Callable[[Page], object] = lambda _: None,
    ) -> Notebook:
        server.theme(dark=dark)
        page = context.new_page()
        watch(page)
        console.watch(page)
        console.allowed = [] if lab else OF_NOTEBOOK
        if write is None:
            server.write(name, sources, load=load)
        else:
            write(name)
        return Notebook(page, server, name, lab=lab)

    return make
