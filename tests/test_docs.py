"""The documentation: links lead somewhere, every page stands in the site's menu, the site's pages are whole."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import nbflow
from nbflow.cli import app
from nbflow.cli.tutorial import examples
from tests.support.documented import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """What a page's headings are linked by."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_links_lead_somewhere() -> None:
    broken = []
    for page in (*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for place, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            target = page.parent / place
            if "://" in place:
                continue
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {place}{f'#{anchor}' if anchor else ''}")
    assert not broken


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "site" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_stands_in_the_menu(site: ModuleType) -> None:
    menu = {page for pages in site.SECTIONS.values() for page in pages}
    assert {page.name for page in PAGES} <= menu


def test_the_sites_pages_are_whole(site: ModuleType, tmp_path: Path) -> None:
    site.write(tmp_path, executed=False)
    pages = tmp_path / "pages"
    written = sorted(pages.rglob("*.md"))
    notebooks = [path.stem for path in examples() if path.suffix == ".ipynb"]
    assert sorted(page.stem for page in (pages / "gallery").glob("*.md")) == notebooks
    menu = json.loads((tmp_path / "mkdocs.yml").read_text().rpartition("\nnav: ")[2])
    listed = [menu[0], *(page for section in menu[1:] for of in section.values() for page in of)]
    assert sorted(listed) == sorted(str(page.relative_to(pages)) for page in written)
    commands = (pages / "commands.md").read_text()
    assert all(f"## {name}\n" in commands for name in app.cli.commands)
    interface = (pages / "interface.md").read_text()
    assert all(
        re.search(rf"^::: nbflow\..*\b{name}$", interface, re.MULTILINE) for name in ("Flow", "Run", "run", "plan")
    )
    assert nbflow.Flow.__doc__
    broken = [
        f"{page.name}: {place}"
        for page in written
        for place, _ in LINK.findall(re.sub(r"````.*?````", "", page.read_text(), flags=re.DOTALL))
        if "://" not in place and not (page.parent / place).exists()
    ]
    assert not broken
