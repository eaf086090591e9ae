"""`nbflow card`: a task's, step's or run's card as one file that needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from nbflow import client
from nbflow.cli_exit import DONE
from nbflow.cli_runs import store_option
from nbflow.render import preview


@click.command()
@click.argument("name", metavar="RUN[/STEP[/ITEM]]")
@click.option("-o", "--output", "target", metavar="FILE", help="Write the card as one HTML file, which works offline.")
@click.option("--template", metavar="NAME", default="", help="A template that a package brings; for a single task.")
@store_option
def card(name: str, target: str | None, template: str, store: str | None) -> int:
    """Show or write the card of a task, a step or a run.

    Without -o it is printed as text.
    """
    found = client.card_at(name, template, store)
    if target is None:
        print(found.text)
        return DONE
    page = found.html
    try:
        Path(target).write_text(page, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{target} cannot be written: {error.strerror}") from None
    print(f"wrote {target} ({preview.size(len(page.encode()))})")
    return DONE
