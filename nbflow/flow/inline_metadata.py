"""Inline script metadata (PEP 723) in the first cell: the packages and the Python that a notebook asks for."""

from __future__ import annotations

import re

from nbflow.errors import PlanError
from nbflow.model import Frozen, Notebook

BLOCK = re.compile(r"(?m)^# /// script[ \t]*$\n(?P<content>(?:^#(?:| .*)$\n)+)^# ///[ \t]*$")


class InlineMetadata(Frozen, frozen=True, kw_only=True):
    """What the block asks for: requirements as pip reads them, and versions of Python, "" for any."""

    dependencies: tuple[str, ...] = ()
    python: str = ""


NONE = InlineMetadata()


def inline_metadata(notebook: Notebook) -> InlineMetadata:
    """Return what the first cell's block says; PlanError where it cannot be understood."""
    first = notebook.cells[0] if notebook.cells else None
    blocks = [*BLOCK.finditer(f"{first.source}\n")] if first is not None else []
    if first is None or not blocks:
        return NONE
    if len(blocks) > 1:
        raise PlanError("two `# /// script` blocks stand in one cell", cell=first.id, line=1, fix="keep one of them")
    import tomllib  # most notebooks have no such block

    lines = blocks[0]["content"].splitlines()
    text = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
    line = first.source[: blocks[0].start()].count("\n") + 1
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(
            f"the `# /// script` block is no TOML: {error}", cell=first.id, line=line, fix="correct the block"
        ) from None
    dependencies, python = table.get("dependencies", []), table.get("requires-python", "")
    if (
        not isinstance(python, str)
        or not isinstance(dependencies, list)
        or not all(isinstance(each, str) for each in dependencies)
    ):
        raise PlanError(
            "the `# /// script` block: `dependencies` is a list of texts, `requires-python` a text",
            cell=first.id, line=line, fix='write `# dependencies = ["pandas>=2"]`',
        )  # fmt: skip
    return InlineMetadata(dependencies=tuple(dependencies), python=python)
