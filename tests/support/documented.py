"""Commands as the documentation writes them, and the place in which they are typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "decisions.md"))
INLINE = re.compile(r"`nbflow ([^`]+)`")


@dataclass(frozen=True)
class Documented:
    """A command line behind `nbflow`, and where it stands."""

    page: str
    line: int
    text: str
    is_block: bool

    def words(self, names: dict[str, str]) -> list[str]:
        """Its words, with those that stand for something replaced; what stands in brackets is left out."""
        text = re.sub(r"\[[^\]]*\]+", "", self.text.partition("  #")[0].partition(" # ")[0].partition(" | ")[0])
        return [names.get(word, _replaced(word, names)) for word in shlex.split(text)]


def _replaced(word: str, names: dict[str, str]) -> str:
    return "/".join(names.get(part, part) for part in word.split("/")) if "://" not in word else word


def commands() -> Iterator[Documented]:
    """Each command of the documentation, in order."""
    for page in PAGES:
        inside = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("```"):
                inside = not inside
            elif inside and line.startswith("nbflow "):
                yield Documented(page.name, number, line.removeprefix("nbflow "), is_block=True)
            elif not inside:
                for text in INLINE.findall(line):
                    yield Documented(page.name, number, text, is_block=False)


def cells_of(page: str) -> list[str]:
    """The blocks of a page that are cells, in order: those that are marked as `python`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


def flow_of(page: str) -> list[str]:
    """The cells of a page's first block, which stand below each other."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.split(r"\n\n(?=%%)", text.split("```\n")[1].strip())
