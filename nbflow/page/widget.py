"""`nbflow.panel()`: the flow of this notebook as a widget in a cell, for every front end that shows anywidgets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nbflow.errors import NbflowError
from nbflow.page import commands
from nbflow.page.comm import pages_of, take_messages
from nbflow.page.messages import KernelMessage
from nbflow.page.publisher import Pages
from nbflow.render import dag, table

STATIC = Path(__file__).parents[1] / "static"
NOT_BUILT = (
    "export default { render({ el }) { el.textContent = "
    "'nbflow was installed without its front end; install the wheel, or run make frontend'; } }"
)


def _bundled(name: str, otherwise: str) -> str:
    """Return a file of the built front end, or what stands for it in an install without Node."""
    place = STATIC / name
    return place.read_text(encoding="utf-8") if place.exists() else otherwise


class Panel(anywidget.AnyWidget):
    """The panel: `snapshot` is what the page draws, commands and their answers are custom messages."""

    _esm = _bundled("widget.js", NOT_BUILT)
    _css = _bundled("panel.css", "")
    snapshot = traitlets.Dict().tag(sync=True)

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        super().__init__(snapshot=pages.snapshot())
        take_messages(self.comm, self._handle_msg)
        self.on_msg(self._receive)
        self._leave = pages.listen(self._tell)

    def _tell(self, message: KernelMessage) -> None:
        if message["kind"] == "snapshot":
            self.snapshot = dict(message)
        elif message["kind"] != "outputs":  # a widget has no cells
            self.send(message)

    def _receive(self, _: Any, command: Any, buffers: Any) -> None:
        del buffers
        self.send(commands.receive(self._pages, command))

    def close(self) -> None:
        """Take the panel out of the page."""
        self._leave()
        super().close()

    def __repr__(self) -> str:
        run, flow = self._pages.audience.run, self._pages.audience.flow
        if run is not None:
            return table.text(run, time.time())
        return dag.text(dag.of_flow(flow)) if flow is not None else "nbflow: no steps yet"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget, with the run's table or the graph for pages that show no widgets."""
        base = super()._repr_mimebundle_(**options)
        bundle: Mapping[str, Any] = (base[0] if isinstance(base, tuple) else base) or {}
        run, flow = self._pages.audience.run, self._pages.audience.flow
        text = {"text/plain": repr(self)}
        if run is not None:
            text["text/html"] = table.as_html(run, time.time())
        elif flow is not None:
            text["text/html"] = dag.as_html(dag.of_flow(flow))
        both = {**bundle, **text}
        return (both, base[1]) if isinstance(base, tuple) else both


def panel() -> Panel:
    """Show the flow of this notebook as a widget: live states, run, resume, cancel, parameters, logs and history.

    Raises NbflowError outside a kernel with nbflow loaded, and where nbflow was installed without its front end.
    """
    from IPython.core.getipython import get_ipython

    pages = pages_of(get_ipython())
    if pages is None:
        raise NbflowError("the panel needs a notebook with nbflow loaded", fix="run `%load_ext nbflow` first")
    if not (STATIC / "widget.js").exists():
        raise NbflowError("nbflow was installed without its front end", fix="install its wheel, or `make frontend`")
    return Panel(pages)
