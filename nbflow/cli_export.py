"""`nbflow export`: a notebook written as a script, or for another tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from nbflow import exporting
from nbflow.render import lines

DONE, USAGE = 0, 2


@click.command()
@click.argument("notebook", metavar="NB")
@click.option("--to", "target", metavar="TARGET", required=True, help="The tool to write for: script or metaflow.")
@click.option("-o", "--output", metavar="PATH", help="The file to write, or a folder.")
@click.option("--with", "words", multiple=True, metavar="WORD", help="What the target takes: kubernetes, batch, pypi.")
@click.option("--check", is_flag=True, help="Write nothing; say what would be lost or changed.")
@click.option("--force", is_flag=True, help="Replace a file that no export has left so.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and nothing else.")
def export(
    notebook: str, target: str, output: str | None, words: Sequence[str], check: bool, force: bool, as_json: bool
) -> int:
    """Write a notebook as a script or for another tool."""
    done = exporting.export(notebook, target, output, words=words, check=check, force=force)
    if as_json:
        print(lines.plain(as_object(done)))
    else:
        print(done)
    return USAGE if done.refused else DONE


def as_object(done: exporting.Exported) -> dict[str, Any]:
    """An export in; `{ok, files, findings}` out."""
    findings = [msgspec.to_builtins(finding) for finding in done.findings]
    return {"ok": not done.refused, "files": [str(file) for file in done.files], "findings": findings}
