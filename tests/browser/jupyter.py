"""A real Jupyter server with JupyterLab and Notebook 7, and their pages as a person uses them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page, expect

NEWS = "@jupyterlab/apputils-extension:notification"
THEMES = "@jupyterlab/apputils-extension:themes"


class Server:
    """One server on the loopback, without a token, its folder and its settings all below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
        environment = {**os.environ, **{name: str(folder / where) for name, where in places.items()}}
        environment.update(JUPYTERLAB_SETTINGS_DIR=str(folder / "settings"), XDG_CACHE_HOME=str(folder / "cache"))
        environment.update(JUPYTERLAB_WORKSPACES_DIR=str(folder / "workspaces"))
        environment.pop("NBFLOW_STORE", None)
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0",
                    "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", "--ServerApp.password=",
                    "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={self.folder}",
                    "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                ],
                env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
            )  # fmt: skip
        self.address = self._wait()
        self.put(f"/lab/api/settings/{NEWS}", {"raw": '{"fetchNews": "false", "checkForUpdates": false}'})

    def _wait(self) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/lab", self.log.read_text())
            if found:
                address = f"http://127.0.0.1:{found[1]}"
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=5):
                    return address
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The server's answer to a request."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.address + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def put(self, path: str, body: Any) -> Any:
        return self.ask("PUT", path, body)

    def theme(self, *, dark: bool) -> None:
        """The theme of pages that are opened from now on."""
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.put(f"/lab/api/settings/{THEMES}", {"raw": json.dumps({"theme": name})})

    def write(self, name: str, sources: list[str], *, load: bool = True) -> str:
        """A notebook of code cells; loading nbflow is its first one; its path out."""
        cells = [nbformat.v4.new_code_cell(source) for source in (["%load_ext nbflow"] if load else []) + sources]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        document = nbformat.v4.new_notebook(cells=cells)
        document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(document, self.folder / name)
        return name

    def wait_for_kernel(self, name: str) -> None:
        """A page is connected to a notebook's kernel."""
        until = time.monotonic() + 40
        while time.monotonic() < until:
            found = [one["kernel"] for one in self.ask("GET", "/api/sessions") if one["path"] == name]
            if found and found[0]["connections"]:
                return
            time.sleep(0.1)
        raise AssertionError(f"no page connects to the kernel of {name}")

    def wait_until_idle(self, name: str) -> None:
        """A notebook's kernel is up, which a page sees only when it asks something of it."""
        until = time.monotonic() + 40
        while time.monotonic() < until:
            found = [one["kernel"] for one in self.ask("GET", "/api/sessions") if one["path"] == name]
            if found and found[0]["execution_state"] in ("idle", "starting"):
                return
            time.sleep(0.1)
        raise AssertionError(f"the kernel of {name} does not start")

    def begin_anew(self) -> None:
        """Kernels and stores outlive pages: each test begins without any."""
        for session in self.ask("GET", "/api/sessions"):
            self.ask("DELETE", f"/api/sessions/{session['id']}")
        shutil.rmtree(self.folder / ".nbflow", ignore_errors=True)

    def restart(self, name: str) -> None:
        """Another client restarts a notebook's kernel."""
        session = next(one for one in self.ask("GET", "/api/sessions") if one["path"] == name)
        self.ask("POST", f"/api/kernels/{session['kernel']['id']}/restart", {})

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class Notebook:
    """A notebook in a page of JupyterLab or Notebook 7."""

    def __init__(self, page: Page, server: Server, name: str, *, lab: bool = True) -> None:
        self.page, self.server, self.name, self.lab = page, server, name, lab
        workspace = f"w{time.monotonic_ns()}"
        path = f"/lab/workspaces/{workspace}/tree/{name}?reset" if lab else f"/notebooks/{name}"
        page.goto(server.address + path)
        self.ready()

    def ready(self, name: str | None = None) -> None:
        """The notebook is drawn and its kernel is there: the page calls itself idle before it is connected, too."""
        self.server.wait_for_kernel(name or self.name)
        expect(self.page.locator(".jp-Notebook:visible .jp-CodeCell").first).to_be_visible(timeout=40_000)
        self.page.wait_for_timeout(300)
        self.idle()

    def idle(self) -> None:
        """No cell runs, and the kernel is connected."""
        indicator = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator")
        expect(indicator).to_have_attribute("data-status", "idle", timeout=40_000)

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").nth(number)

    def run(self, number: int, *, wait: bool = True) -> None:
        """Run a cell with Control and Enter; its prompt has a number when this returns."""
        cell = self.cell(number)
        cell.locator(".cm-content").click()
        if "jp-mod-active" not in (cell.get_attribute("class") or ""):
            cell.locator(".cm-content").click()  # out of sight there was only a picture of its editor
        self.page.keyboard.press("Control+Enter")
        if wait:
            prompt = self.cell(number).locator(".jp-InputPrompt")
            expect(prompt).to_have_text(re.compile(r"\[\d+\]"), timeout=30_000)

    def type_anew(self, number: int, source: str) -> None:
        """Give a cell another text, as a person who selects all of it and types."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)

    def open_panel(self) -> Locator:
        """The sidebar, opened; the panel out."""
        panel = self.page.locator("#nbflow-panel")
        if not panel.is_visible():
            if self.lab:
                self.page.locator('.jp-SideBar .lm-TabBar-tab[data-id="nbflow-panel"]').click()
            else:
                self.page.keyboard.press("Control+Shift+C")
                self.page.locator(".lm-CommandPalette-input").fill("Flow of the Notebook")
                self.page.keyboard.press("Enter")
        expect(panel).to_be_visible()
        return panel
