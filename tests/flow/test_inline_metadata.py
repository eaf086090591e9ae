"""The block of PEP 723 in a notebook's first cell."""

from __future__ import annotations

import pytest

from nbflow.errors import PlanError
from nbflow.flow.inline_metadata import InlineMetadata, inline_metadata
from nbflow.model import Cell, Notebook

BLOCK = '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "pandas>=2",\n#   "numpy",\n# ]\n# ///\n'


def read(*sources: str) -> InlineMetadata:
    cells = tuple(Cell(id=f"c{at}", position=at, source=source) for at, source in enumerate(sources, 1))
    return inline_metadata(Notebook(name="n", folder="/", path=None, cells=cells))


@pytest.mark.parametrize("source", [BLOCK, f"import os\n{BLOCK}", BLOCK.rstrip("\n"), f"{BLOCK}\nx = 1"])
def test_the_block_is_read_wherever_it_stands_in_the_cell(source: str) -> None:
    assert read(source) == InlineMetadata(dependencies=("pandas>=2", "numpy"), python=">=3.11")


@pytest.mark.parametrize("sources", [(), ("x = 1",), ("x = 1", BLOCK), ("# /// script\n# dependencies = []",)])
def test_without_one_in_the_first_cell_nothing_is_asked_for(sources: tuple[str, ...]) -> None:
    assert read(*sources) == InlineMetadata()


WRONG = {
    "twice": (f"{BLOCK}\n{BLOCK}", "two `# /// script` blocks", 1),
    "no TOML": ("x = 1\n# /// script\n# dependencies = [\n# ///", "is no TOML", 2),
    "a text for a list": ('# /// script\n# dependencies = "pandas"\n# ///', "`dependencies` is a list of texts", 1),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_understood_is_named_with_its_line(case: str) -> None:
    source, message, line = WRONG[case]
    with pytest.raises(PlanError, match=message) as caught:
        read(source)
    assert (caught.value.cell, caught.value.line) == ("c1", line)
