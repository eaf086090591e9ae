r"""A notebook → a percent-format .py: a notebook for Jupytext and VS Code, and a command line of its own.

`# %%` begins a cell, `# %% [markdown]` a text cell; ids and tags stand in the same line. Magics, `!` and `?` lines are
comments, so that the file is valid Python: `# %matplotlib inline`; within a block `pass  # !ls`; a line that was such
a comment already gets a second `# `. `notebook.parse_percent` reads all of it back, as Jupytext does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nbflow.errors import NotebookError
from nbflow.exporters.exporter import Environment, Notes, Options, TextExporter
from nbflow.flow.notebook import read_document
from nbflow.flow.percent import MARKER, comment_magics
from nbflow.jsonable import text
from nbflow.model import Flow

ENTRY = """\
# %% tags=["active-py"]
if __name__ == "__main__" and "get_ipython" not in globals():
    from nbflow.cli import run_script

    raise SystemExit(run_script(__file__))
"""
"""The command line: first, so that nothing of the notebook runs before it; `active-py` makes it no notebook's cell."""


HEADER = """\
---
jupyter:
  jupytext:
    text_representation:
      extension: .py
      format_name: percent
  kernelspec:
    display_name: Python 3
    language: python
    name: python3
  nbflow:
    flow: {name}
---
"""
"""Jupytext's header, and the flow's name, which is not the file's."""


class ScriptExporter(TextExporter):
    """`--to script`: the whole notebook, scratch cells and text included."""

    target = "a script"

    def write(self, flow: Flow, options: Options, environment: Environment, notes: Notes) -> str:
        """Return the script of a flow."""
        del options, environment
        _note_markers(flow, notes)
        ids = iter(flow.notebook.cells)
        cells = ((cell, next(ids).id if cell.get("cell_type") == "code" else cell.get("id")) for cell in _cells(flow))
        return "\n".join([_header(flow), ENTRY, *(_block(cell, identity) for cell, identity in cells)])


def _header(flow: Flow) -> str:
    """Return the head of a flow's script, a comment."""
    name = json.dumps(flow.name, ensure_ascii=False)
    lines = HEADER.format(name=name).splitlines()
    return "".join(f"# {line}\n" for line in lines)


def _cells(flow: Flow) -> Iterator[dict[str, Any]]:
    """Return the document's cells in order, text cells too; of a script, its code cells with the text above them."""
    try:
        document = read_document(flow.notebook.document, flow.name)
    except NotebookError:
        for cell in flow.notebook.cells:
            if cell.markdown:
                yield {"cell_type": "markdown", "source": cell.markdown}
            yield {"cell_type": "code", "source": cell.source, "id": cell.id}
        return
    for cell in document["cells"]:
        yield {**cell, "source": text(cell["source"])}


def _block(cell: dict[str, Any], identity: str | None) -> str:
    """Return the lines of one cell of a notebook's JSON, with the marker above."""
    kind, source = cell["cell_type"], cell["source"]
    words = [] if kind == "code" else [f"[{kind}]"]
    if identity:
        words.append(f'id="{identity}"')
    tags = cell.get("metadata", {}).get("tags")
    if tags:
        words.append(f"tags={json.dumps(tags)}")
    body = comment_magics(source) if kind == "code" else "\n".join(f"# {line}".rstrip() for line in source.split("\n"))
    marker = " ".join(["# %%", *words])
    return f"{marker}\n{body}\n" if body.strip() else f"{marker}\n"


def _note_markers(flow: Flow, notes: Notes) -> None:
    """Refuse lines that would begin a cell of their own."""
    for cell in flow.notebook.cells:
        for at, line in enumerate(comment_magics(cell.source).split("\n"), start=1):
            if MARKER.match(line):
                notes.refused(
                    f"line {at} of cell {cell.position} would begin a cell of its own: {line.strip()[:40]!r}",
                    cell=cell.id, line=at, fix="write the comment with another mark than `# %%`",
                )  # fmt: skip
