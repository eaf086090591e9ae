"""Commands on past and present runs: `runs`, `show`, `logs`, `cancel`, `attach`, `diff`, `gc`, `fsck` and others."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import click
import msgspec

from nbflow.cli import terminal
from nbflow.cli.exit_codes import DONE, FAILED, exit_code, interrupts
from nbflow.flow.options import parse_size
from nbflow.render import json_lines, listing, preview, table
from nbflow.runs import client, compare, garbage, integrity
from nbflow.runs.printed import print_logs, write_text
from nbflow.store.location import open_store, store_at, store_url
from nbflow.store.settings import most_bytes

store_option = click.option("--store", metavar="URL", help="The datastore: a folder or an fsspec URL.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, and nothing else.")


@click.command()
@click.option("--tag", "tags", multiple=True, metavar="T", help="Only runs with this tag; again for others.")
@click.option("--flow", metavar="FLOW", help="Only runs of this flow.")
@click.option("--status", type=click.Choice(["running", "done", "failed", "cancelled", "lost"]))
@click.option("--all", "all_runs", is_flag=True, help="Also cells run by hand, and runs of some steps only.")
@store_option
@json_option
def runs(
    tags: tuple[str, ...], flow: str | None, status: str | None, all_runs: bool, store: str | None, as_json: bool
) -> int:
    """List runs of whole flows, newest first."""
    summaries = [summary for summary in client.list_runs(store, flow, tags) if status in (None, summary.status)]
    listed = [summary for summary in summaries if all_runs or summary.is_whole]
    if as_json:
        for summary in listed:
            print(json_lines.line("run", summary.created_at, summary.run, msgspec.to_builtins(summary)))
        return DONE
    print(listing.runs_text([client.row(summary) for summary in listed], time.time()))
    if len(summaries) > len(listed):
        print(listing.left_out(len(summaries) - len(listed)))
    return DONE


@click.command()
@click.argument("name", metavar="RUN[/STEP[/ITEM]][/NAME]")
@click.option("--notebook", "target", metavar="FILE", help="Write the run's notebook, with outputs, to FILE.")
@store_option
def show(name: str, target: str | None, store: str | None) -> int:
    """Show a run, a step or an artifact's value."""
    place = client.locate(name, store)
    if isinstance(place, client.Step) and len(place) == 1:
        place = place.task
    if target is not None:
        if not isinstance(place, client.Run):
            raise click.UsageError("--notebook needs a run, not a part of it")
        write_text(target, place.notebook_with_outputs())
        print(f"wrote {target}")
    elif isinstance(place, client.Artifact):
        print(terminal.artifact_text(place.manifest))
        if place.stored:
            print(place.value)
    else:
        print(repr(place))
        if isinstance(place, client.Run):
            print(terminal.facts_text(place.params, place.tags, place.metadata))
    return DONE


@click.command()
@click.argument("name", metavar="RUN/STEP[/ITEM]")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Not the last attempt but this one.")
@store_option
def logs(name: str, attempt: int | None, store: str | None) -> int:
    """Print what a step printed and displayed.

    What it wrote to standard error goes there.
    """
    print_logs(name, attempt, store)
    return DONE


@click.command()
@click.argument("name", metavar="RUN")
@store_option
def cancel(name: str, store: str | None) -> int:
    """Ask a run to stop, wherever it runs."""
    past = client.Run(name, store)
    if past.finished:
        print(f"{past.flow}/{past.id} has ended already: {past.status}")
        return DONE
    past.cancel()
    print(f"{past.flow}/{past.id} was asked to stop")
    return DONE


@click.command()
@click.argument("name", metavar="RUN")
@store_option
@json_option
def attach(name: str, store: str | None, as_json: bool) -> int:
    """Follow a run that goes on elsewhere.

    Ctrl-C ends the following, not the run.
    """
    run = client.Run(name, store)
    stop = threading.Event()
    watcher = terminal.watcher(as_json, lambda: None)
    with interrupts(stop.set, f"the run goes on; `nbflow cancel {run.id}` ends it\n"), watcher:
        run.follow(watcher, stop)
    snapshot = run.snapshot
    if isinstance(watcher, terminal.JsonLines):
        watcher.finish(snapshot, run.store)
    else:
        terminal.tell(table.text(snapshot))
        if snapshot.status != "running":
            terminal.show_failures(snapshot)
    return DONE if snapshot.status == "running" else exit_code(snapshot)


@click.command()
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="RUN")
@store_option
@json_option
def diff(before: str, after: str, store: str | None, as_json: bool) -> int:
    """Say what differs between two runs.

    Parameters, steps, lines of code and artifacts, numbers beside each other; no value is loaded.
    """
    comparison = compare.compare(client.Run(before, store), client.Run(after, store))
    print(json_lines.plain(msgspec.to_builtins(comparison)) if as_json else compare.text(comparison))
    return DONE


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--keep", type=click.IntRange(0), default=garbage.KEEP, show_default=True, metavar="N",
              help="Runs of each flow that stay; tagged ones stay anyway.")  # fmt: skip
@click.option(
    "--size",
    "most",
    callback=_size,
    metavar="SIZE",
    help="The most that the store may hold; default: the setting of this folder, 20G.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--force", is_flag=True, help="Also what is younger than an hour: no run may be going on.")
@store_option
@json_option
def gc(keep: int, most: int | None, dry_run: bool, force: bool, store: str | None, as_json: bool) -> int:
    """Remove old runs, and what no kept run reaches."""
    opened = open_store(store_url(store, Path.cwd()))
    cleaning = garbage.plan_cleaning(
        opened, garbage.Policy(keep, most_bytes(Path.cwd()) if most is None else most, force)
    )
    if not dry_run:
        garbage.clean(opened, cleaning)
    print(json_lines.plain(garbage.as_object(cleaning)) if as_json else garbage.text(cleaning, done=not dry_run))
    return DONE


@click.command()
@click.option("--repair", "mend", is_flag=True, help="Move aside what is damaged; steps that it concerns run again.")
@store_option
@json_option
def fsck(mend: bool, store: str | None, as_json: bool) -> int:
    """Read all of a datastore and say what is damaged.

    Exit code 1 where something is, and was not repaired. Runs may go on meanwhile.
    """
    opened = store_at(store_url(store, Path.cwd()))
    report = integrity.examine(opened, _progress())
    if mend:
        report = integrity.repair(opened, report)
    print(json_lines.plain(integrity.as_object(report)) if as_json else integrity.text(report))
    return FAILED if report.damaged else DONE


def _progress() -> integrity.Told:
    """Return what says on standard error how far the reading is: each second on a terminal, else each ten."""
    every = 1.0 if sys.stderr.isatty() else 10.0
    at = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal at
        if time.monotonic() - at >= every:
            at = time.monotonic()
            terminal.tell(f"read {preview.size(done)} of {preview.size(total)}", sys.stderr)

    return told


@click.command()
@click.argument("name", metavar="RUN")
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option("--remove", "removed", multiple=True, metavar="TAG", help="Take a tag off; again for others.")
@store_option
def tag(name: str, tags: tuple[str, ...], removed: tuple[str, ...], store: str | None) -> int:
    """Add tags to a run, or take them off; show them."""
    run = client.Run(name, store)
    run.add_tag(*tags)
    run.remove_tag(*removed)
    print(f"{run.flow}/{run.id}  {' '.join(f'#{each}' for each in run.tags) or 'no tags'}")
    return DONE


@click.command()
@click.argument("name", metavar="RUN[/STEP[/ITEM]]")
@click.option("-o", "--output", "target", metavar="FILE", help="Write the card as one HTML file, which works offline.")
@click.option("--template", metavar="NAME", default="", help="A template that a package brings; for a single task.")
@store_option
def card(name: str, target: str | None, template: str, store: str | None) -> int:
    """Show or write the card of a task, a step or a run.

    Without -o it is printed as text.
    """
    card_shown = client.card_at(name, template, store)
    if target is None:
        print(card_shown.text)
        return DONE
    page = card_shown.html
    write_text(target, page)
    print(f"wrote {target} ({preview.size(len(page.encode()))})")
    return DONE
