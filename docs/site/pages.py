"""Put the documentation's pages together for MkDocs: what lies in docs/, executed examples, commands and the interface.

`python docs/site/pages.py FOLDER` writes FOLDER/pages and FOLDER/mkdocs.yml. Nothing is loaded from elsewhere, neither
here nor by whoever reads the site.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbflow
import nbflow.errors
from nbflow.cli import app
from nbflow.cli.tutorial import examples

ROOT = Path(__file__).resolve().parents[2]

SECTIONS: Mapping[str, Sequence[str]] = {
    "Tutorial": ("quickstart.md",),
    "How to": (
        "loops.md", "parameters.md", "runs.md", "reuse.md", "cards.md", "panel.md", "remote.md", "packages.md",
        "export.md", "other-tools.md",
    ),
    "Questions": ("coming-from.md", "where-it-works.md", "datastore.md", "safety.md"),
    "Reference": ("options.md", "commands.md", "interface.md", "top-to-bottom.md", "glossary.md"),
    "Gallery": (),
    "Inside": ("ARCHITECTURE.md", "decisions.md", "soak.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
}  # fmt: skip
"""The site's menu; pages that are not there are left out of it."""

AT_ROOT = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")

CONFIG = """\
site_name: nbflow
site_description: Jupyter notebooks as flows
docs_dir: pages
use_directory_urls: false
theme:
  name: material
  font: false
  features: [navigation.sections, navigation.top, content.code.copy, search.suggest]
  palette:
    - {media: "(prefers-color-scheme: light)", scheme: default, toggle: {icon: material/weather-night, name: Dark}}
    - {media: "(prefers-color-scheme: dark)", scheme: slate, toggle: {icon: material/weather-sunny, name: Light}}
plugins:
  - search
  - mkdocstrings:
      handlers:
        python:
          paths: [PLACE]
          options: {show_source: false, show_root_heading: true, show_root_full_path: false, heading_level: 2,
                    show_if_no_docstring: false,
                    separate_signature: true, show_signature_annotations: true}
markdown_extensions: [tables, admonition, attr_list, md_in_html, pymdownx.superfences, pymdownx.details,
                      {toc: {permalink: true}}]
extra: {generator: false}
nav: NAV
"""


def write(target: Path, *, executed: bool = True) -> None:
    """Write all pages and the configuration; `executed`: the gallery's notebooks are run before."""
    pages = target / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    for page in (ROOT / "docs").glob("*.md"):
        (pages / page.name).write_text(linked(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in AT_ROOT:
        (pages / name).write_text(linked((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "images", pages / "images")
    (pages / "index.md").write_text(linked((ROOT / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
    (pages / "commands.md").write_text(commands(), encoding="utf-8")
    (pages / "interface.md").write_text(interface(), encoding="utf-8")
    gallery = [f"gallery/{name}" for name in write_gallery(pages / "gallery", executed=executed)]
    sections = {**SECTIONS, "Gallery": gallery}
    menu: list[Any] = ["index.md"]
    menu += [{name: [page for page in of if (pages / page).exists()]} for name, of in sections.items()]
    config = CONFIG.replace("PLACE", json.dumps(str(ROOT))).replace("NAV", json.dumps(menu))
    (target / "mkdocs.yml").write_text(config, encoding="utf-8")


def linked(text: str) -> str:
    """Return a page whose links lead to the site's pages; what the site has not is named without a link."""
    text = re.sub(r"\]\((?:\.\./)?examples/([\w-]+)\.ipynb\)", r"](gallery/\1.md)", text)
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, AT_ROOT))})", r"](\1", text)
    return re.sub(r"\[([^\]]+)\]\((?:\.\./|nbflow/|tests/|bench/)[^)]*\)", r"\1", text)


# ---------------------------------------------------------------- reference


def commands() -> str:
    """Return the page of commands, from the table that parses them."""
    parts = ["# Commands\n\nEach is `nbflow COMMAND` in a shell; most are `%flow COMMAND` in a notebook, too.\n"]
    for name, command in app.cli.commands.items():
        with command.make_context(f"nbflow {name}", [], resilient_parsing=True, max_content_width=96) as ctx:
            parts.append(f"## {name}\n\n```text\n{command.get_help(ctx)}\n```\n")
    return "\n".join(parts)


def interface() -> str:
    """Return the page of public names, whose docstrings mkdocstrings reads."""
    parts = ["# Python\n"]
    for name in sorted(nbflow.__all__, key=lambda name: (hasattr(nbflow.errors, name), name)):  # errors last
        value = getattr(nbflow, name)
        module = getattr(value, "__module__", "")
        if str(module).startswith("nbflow") and hasattr(value, "__qualname__"):
            parts.append(f"::: {module}.{value.__qualname__}\n")
    return "\n".join(parts)


# ---------------------------------------------------------------- gallery


def write_gallery(folder: Path, *, executed: bool) -> list[str]:
    """Write a page for each example, with what its cells show; return their names."""
    folder.mkdir()
    names = []
    for source in (path for path in examples() if path.suffix == ".ipynb"):
        document = json.loads((run(source, folder) if executed else source).read_text(encoding="utf-8"))
        target = folder / f"{source.stem}.md"
        target.write_text("\n\n".join(blocks(document, folder, source.stem)) + "\n", encoding="utf-8")
        names.append(target.name)
    return names


def run(source: Path, folder: Path) -> Path:
    """Run an example as it stands in a folder of its own; return the notebook with its outputs, failed ones too."""
    place = folder.parent.parent / "examples"
    shutil.copytree(source.parent, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".nbflow"))
    target = place / f"{source.stem}.executed"
    app.main(["run", str(place / source.name), "--write-to", str(target)])
    return target if target.exists() else source


def blocks(document: Mapping[str, Any], folder: Path, stem: str) -> Iterator[str]:
    """Return a notebook's cells and outputs as Markdown; pictures become files beside it."""
    if document["cells"][0]["cell_type"] != "markdown":
        yield f"# {stem}"
    for number, cell in enumerate(document["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield linked(source)
            continue
        yield f"````python\n{source}\n````"
        for place, output in enumerate(cell.get("outputs", ())):
            data = output.get("data", {})
            text = "".join(output.get("text") or data.get("text/plain") or output.get("traceback") or ())
            if "image/png" in data:
                name = f"{stem}-{number}-{place}.png"
                (folder / name).write_bytes(base64.b64decode("".join(data["image/png"])))
                yield f"![what the cell shows]({name})"
            elif text.strip():
                plain = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip()
                yield f"````text\n{plain}\n````"


if __name__ == "__main__":
    write(Path(sys.argv[1]).absolute())
