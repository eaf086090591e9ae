"""The commands that `nbflow` and `%flow` share: each is performed for the face that it was typed into."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import click
import msgspec
from click import Option

from nbflow.errors import NotFoundError, OptionError
from nbflow.model import RunStatus
from nbflow.render import dag, json_lines, listing, preview, table
from nbflow.runs import client
from nbflow.runs.command_words import ALL_CELLS, ONLY, PLAN, STEP, Word
from nbflow.runs.display import artifact_text, facts_text
from nbflow.runs.face import DONE, FAILED, USAGE, Answer, Face
from nbflow.runs.printed import print_logs, tell, write_text
from nbflow.runs.run_options import RunOptions
from nbflow.store import search
from nbflow.store.index import RunSummary
from nbflow.store.location import LocalStore, open_store, question, store_at, store_url
from nbflow.store.trust import remember

# ---------------------------------------------------------------- the notebook, and runs of it


def run(face: Face, options: RunOptions, background: bool = False) -> Answer:
    """Run a notebook, reusing what has not changed."""
    return face.run(options, background=background)


def resume(face: Face, run: str | None, options: RunOptions, background: bool = False) -> Answer:
    """Run again what has failed.

    Without RUN it is the last run that did not end well. The parameters are that run's, the notebook is taken as it
    is now.
    """
    listed, places = _listed(face) if run is None else ((), "")
    last = client.last_failed(listed)
    past = client.Run(f"{last.flow}/{last.run}", face.store) if last is not None else None
    if past is not None and not isinstance(options.fresh, bool) and not _has_step(past, options.fresh[0]):
        # no step, so the word after `--fresh` is RUN
        run, options = options.fresh[0], msgspec.structs.replace(options, fresh=options.fresh[1:] or True)
    if run is not None:
        past = client.Run(face.path(run), face.store)
    if past is None:
        raise NotFoundError(f"no run has failed in {places}", fix="`nbflow runs --all` lists all runs")
    face.take_up(past)
    name = f"{past.flow}/{past.id}"
    options = msgspec.structs.replace(options, resume=name, all_cells=options.all_cells or past.metadata["all_cells"])
    face.tell(lambda: f"resume of {name}, {past.status}\n{table.plan_text(face.plan(options))}")
    return face.run(options, background=background)


def _has_step(run: client.Run, word: str) -> bool:
    return any(word in (step.name, step.label) for step in run.steps())


def plan(face: Face, options: RunOptions) -> Answer:
    """Say which steps would run, and why."""
    result = face.plan(options)
    return Answer(
        text=lambda: table.plan_text(result),
        lines=lambda: [json_lines.line("plan", time.time(), None, json_lines.plan(result))],
    )


def why(face: Face, step: str, options: RunOptions, cost: bool) -> Answer:
    """Say why a step would run or be reused.

    Names what changed: the line, input, parameter, file or package.
    """
    answer = face.why(step, options, cost=cost)
    return Answer(text=lambda: table.why_text(step, answer), lines=lambda: [json_lines.plain(answer)])


def check(face: Face, all_cells: bool) -> Answer:
    """Say what is wrong with a notebook."""
    from nbflow.runs import launch

    flow = launch.checked(face.flow(all_cells=all_cells), face.store)
    verdicts = json_lines.check(flow)
    if verdicts["ok"]:
        launch.check_flow(flow)  # a notebook without steps has no finding, and nothing to run either
    serious = sum(finding.level == "error" for finding in flow.findings)
    verdict = f"{serious} error{'s' if serious > 1 else ''}" if serious else "ok"
    steps = sum(step.kind != "params" for step in flow.steps)
    lines = [line for finding in flow.findings for line in table.finding_text(finding, flow.notebook.positions)]
    lines.append(f"{verdict}: {flow.name}, {steps} steps, {len(flow.parameters)} parameters")
    return Answer(
        text=lambda: "\n".join(lines), lines=lambda: [json_lines.plain(verdicts)], code=USAGE if serious else DONE
    )


def verify(face: Face, all_cells: bool, yes: bool) -> Answer:
    """Run a notebook plainly, twice, and as a flow, and compare all that they leave.

    The exit code is 1 where something differs. Everything runs in copies of the notebook's folder.
    """
    from nbflow.runs import verification

    options = RunOptions(store=face.store, all_cells=all_cells)
    verified = verification.verify_flow(face.flow(all_cells=all_cells), options, yes=yes)
    face.learn()
    return Answer(
        text=lambda: str(verified),
        lines=lambda: [json_lines.plain({"equal": verified.equal, **msgspec.to_builtins(verified)})],
        code=DONE if verified.equal else FAILED,
    )


def draw_dag(face: Face, all_cells: bool) -> Answer:
    """Draw steps and what they read from each other."""
    flow = face.flow(all_cells=all_cells)
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
    return Answer(
        text=lambda: dag.text(dag.of_flow(flow), width), html=lambda: dag.as_html(dag.of_flow(flow)),
        lines=lambda: [json_lines.plain(json_lines.dag(flow))],
    )  # fmt: skip


def export(
    face: Face, target: str, output: str | None, words: tuple[str, ...], check: bool, force: bool
) -> Answer:  # fmt: skip
    """Write a notebook as a script or for another tool."""
    from nbflow.runs import exporting

    place = None if output is None else face.folder / output
    exported = exporting.export_flow(face.flow(all_cells=False), target, place, words=words, check=check, force=force)
    findings = [msgspec.to_builtins(finding) for finding in exported.findings]
    content = {"ok": not exported.refused, "files": [str(file) for file in exported.files], "findings": findings}
    return Answer(
        text=lambda: repr(exported), lines=lambda: [json_lines.plain(content)],
        code=USAGE if exported.refused else DONE,
    )  # fmt: skip


# ---------------------------------------------------------------- runs that there are


def cancel(face: Face, run: str | None) -> None:
    """Ask a run to stop, wherever it runs."""
    if run is None:
        if not face.cancel():
            tell("no run is under way")
        return
    past = client.Run(face.path(run), face.store)
    ended = past.finished
    past.cancel()
    tell(f"{past.flow}/{past.id} " + (f"has ended already: {past.status}" if ended else "was asked to stop"))


def attach(face: Face, run: str | None) -> Answer:
    """Follow a run that goes on elsewhere.

    An interrupt ends the following, not the run. A run whose own process has gone is taken up where tasks of it were
    sent to other machines: what they have done counts, and what they do still is awaited.
    """
    past = client.Run(face.path(run), face.store)
    answer = face.follow(past)
    if past.status != "lost" or not past.was_elsewhere:
        return answer
    return resume(face, f"{past.flow}/{past.id}", RunOptions(on=past.metadata["on"]))


def runs(
    face: Face, tags: tuple[str, ...], flow: str | None, status: str | None, all_runs: bool
) -> Answer:  # fmt: skip
    """List runs of whole flows, newest first."""
    listed, places = _listed(face, flow, tags)
    looked_in = "" if face.live else f"looked in {places}"  # a notebook has one datastore
    summaries = [each for each in listed if status in (None, each.status)]
    shown = [each for each in summaries if all_runs or each.is_whole]
    more = listing.left_out(len(summaries) - len(shown)) if len(summaries) > len(shown) else ""
    rows, now = [client.row(summary) for summary in shown], time.time()
    title = ": ".join(filter(None, (flow or (rows[0].flow if rows else face.own()), more)))
    return Answer(
        text=lambda: "\n".join(filter(None, (listing.runs_text(rows, now), more, looked_in))),
        html=lambda: listing.runs_html(title, rows, now),
        lines=lambda: (json_lines.line("run", each.created_at, each.run, msgspec.to_builtins(each)) for each in shown),
    )


def _listed(face: Face, flow: str | None = None, tags: tuple[str, ...] = ()) -> tuple[Sequence[RunSummary], str]:
    """Return summaries of a flow's runs, newest first, and where they were looked for.

    It is the flow that is named, else the face's own, else all.
    """
    try:
        known = client.runs_by_store(face.store, flow or face.own(), tags)
    except NotFoundError:
        if flow is not None:
            raise
        known = [(store_url(face.store, face.folder.absolute()), [])]  # this notebook has not run yet
    places = search.listing_of((url for url, _ in known), Path.cwd())
    return client.newest_first(runs for _, runs in known), places


def show(face: Face, place: str | None, target: str | None) -> Answer | None:
    """Show a run, a step or an artifact's value."""
    past = client.locate(face.path(place), face.store)
    if target is not None:
        if not isinstance(past, client.Run):
            raise OptionError("--notebook needs a run, not a part of it", fix="name the run alone")
        write_text(target, past.notebook_with_outputs())
        tell(f"wrote {target}")
        return None
    if isinstance(past, client.Artifact):
        artifact = past

        def text() -> str:
            return "\n".join([artifact_text(artifact.manifest), *([str(artifact.value)] if artifact.stored else [])])

        return Answer(text=text, value=lambda: artifact.value)
    if isinstance(past, client.Run):
        run = past
        return Answer(
            text=lambda: f"{run!r}\n{facts_text(run.params.shown(), run.tags, run.metadata)}".rstrip("\n"),
            value=lambda: run,
        )
    part = past.task if isinstance(past, client.Step) and len(past) == 1 else past
    return Answer(text=lambda: repr(part), value=lambda: past)


def logs(face: Face, place: str, attempt: int | None, rank: int) -> None:
    """Print what a step printed and displayed.

    What it wrote to standard error goes there.
    """
    print_logs(face.path(place), attempt, face.store, rank)


def card(face: Face, place: str | None, target: str | None, template: str) -> Answer | None:
    """Show or write the card of a task, a step or a run."""
    shown = client.card_at(face.path(place), template, face.store)
    if target is None:
        return Answer(text=lambda: shown.text, value=lambda: shown)
    page = shown.html
    write_text(target, page)
    tell(f"wrote {target} ({preview.size(len(page.encode()))})")
    return None


def tag(face: Face, run: str | None, tags: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Add tags to a run, or take them off; show them."""
    past = client.Run(face.path(run), face.store)
    past.add_tag(*tags)
    past.remove_tag(*removed)
    tell(f"{past.flow}/{past.id}  {' '.join(f'#{each}' for each in past.tags) or 'no tags'}")


def diff(face: Face, before: str, after: str) -> Answer:
    """Say what differs between two runs.

    Parameters, steps, lines of code and artifacts, numbers beside each other; values are loaded only to show tables
    in a notebook.
    """
    from nbflow.runs import compare

    pair = [client.Run(face.path(word), face.store) for word in (before, after)]
    comparison = compare.compare(*pair, tables=face.live)
    return Answer(
        text=lambda: compare.text(comparison), html=lambda: compare.as_html(comparison),
        lines=lambda: [json_lines.plain(msgspec.to_builtins(comparison))],
    )  # fmt: skip


# ---------------------------------------------------------------- the datastore


def gc(face: Face, keep: int | None, most: int | None, dry_run: bool, force: bool) -> Answer:
    """Remove old runs, and what no kept run reaches."""
    from nbflow.runs import garbage
    from nbflow.store.settings import most_bytes

    store = open_store(search.only_store(face.store, face.folder.absolute()))
    most = most_bytes(face.folder.absolute()) if most is None else most
    cleaning = garbage.plan_cleaning(store, garbage.Policy(garbage.KEEP if keep is None else keep, most, force))
    if not dry_run:
        store.require_trust()
        garbage.clean(store, cleaning)
    return Answer(
        text=lambda: garbage.text(cleaning, done=not dry_run),
        lines=lambda: [json_lines.plain(garbage.as_object(cleaning))],
    )


def fsck(face: Face, mend: bool) -> Answer:
    """Read all of a datastore and say what is damaged.

    The exit code is 1 where something is, and was not repaired. Runs may go on meanwhile.
    """
    from nbflow.runs import integrity

    store = store_at(search.only_store(face.store, face.folder.absolute()))
    report = integrity.examine(store, _progress())
    if mend:
        store.require_trust()
        report = integrity.repair(store, report)
    return Answer(
        text=lambda: integrity.text(report), lines=lambda: [json_lines.plain(integrity.as_object(report))],
        code=FAILED if report.damaged else DONE,
    )  # fmt: skip


def trust(face: Face, place: str | None) -> Answer:
    """Trust a datastore that came with a folder, from now on.

    PLACE is a datastore, or a folder with one; without it, it is the one that belongs here. To read values of a
    datastore is to run code of whoever made it.
    """
    folder = face.folder.absolute()
    if place is not None:
        own = store_at(place)
        if isinstance(own, LocalStore) and (below := store_at(f"{own.url}/.nbflow")).children(""):
            own = below
        own.check_format()
        own.remember()
        return Answer(text=lambda: f"trusted from now on: {own.url}")
    places = []
    while (asked := question(lambda: open_store(store_url(face.store, folder)))) is not None:
        remember(asked.place, asked.identity)
        places.append(asked.place)
    url = open_store(store_url(face.store, folder)).url
    return Answer(text=lambda: f"trusted from now on: {', '.join(places)}" if places else f"{url} is trusted already")


def _progress() -> Callable[[int, int], None]:
    """Return what says on standard error how far the reading is: each second on a terminal, else each ten."""
    every = 1.0 if sys.stderr.isatty() else 10.0
    at = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal at
        if time.monotonic() - at >= every:
            at = time.monotonic()
            with contextlib.suppress(OSError):  # nobody reads it any more
                print(f"read {preview.size(done)} of {preview.size(total)}", file=sys.stderr, flush=True)

    return say


# ---------------------------------------------------------------- their words


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    from nbflow.flow.options import parse_size

    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def shared(*, live: bool) -> Mapping[str, tuple[Callable[..., Answer | None], tuple[click.Parameter, ...]]]:
    """Return each command's name, what performs it and its words; in a live notebook RUN may be left out.

    The word for the notebook itself, and what only one face has, is the face's to add.
    """
    whole = Word("run", "RUN", "run", required=not live)
    place = Word("place", "RUN[/STEP[/ITEM]][/NAME]", "run", required=not live)
    task = Word("place", "RUN[/STEP[/ITEM]]", "run", required=not live)
    return {
        "run": (run, (*PLAN, STEP, ONLY)),
        "resume": (resume, (Word("run", "RUN", required=False), *PLAN)),
        "plan": (plan, (*PLAN, STEP, ONLY)),
        "why": (why, (
            Word("step", "STEP", "step"), *PLAN,
            Option(["--cost"], is_flag=True, help="Say too what nbflow took beside the step's own time."),
        )),
        "check": (check, (ALL_CELLS,)),
        "dag": (draw_dag, (ALL_CELLS,)),
        "verify": (verify, (
            ALL_CELLS,
            Option(["--yes"], is_flag=True, help="Also where steps use the network, programs or data bases."),
        )),
        "export": (export, (
            Option(["--to", "target"], metavar="TARGET", required=True,
                   help="The tool to write for: script or metaflow."),
            Option(["-o", "--output"], metavar="PATH", help="The file to write, or a folder."),
            Option(["--with", "words"], multiple=True, metavar="WORD",
                   help="What the target takes: kubernetes, batch, pypi."),
            Option(["--check"], is_flag=True, help="Write nothing; say what would be lost or changed."),
            Option(["--force"], is_flag=True, help="Replace a file that no export has left so."),
        )),
        "cancel": (cancel, (whole,)),
        "attach": (attach, (whole,)),
        "runs": (runs, (
            Option(["--tag", "tags"], multiple=True, metavar="T", help="Only runs with this tag; again for others."),
            Option(["--flow"], metavar="FLOW", help="Only runs of this flow."),
            Option(["--status"], type=click.Choice(get_args(RunStatus))),
            Option(["--all", "all_runs"], is_flag=True, help="Also cells run by hand, and runs of some steps."),
        )),
        "show": (show, (
            place,
            Option(["--notebook", "target"], metavar="FILE", help="Write the run's notebook, with outputs, to FILE."),
        )),
        "logs": (logs, (
            Word("place", "[RUN/]STEP[/ITEM]" if live else "RUN/STEP[/ITEM]", "step"),
            Option(["--attempt"], type=click.IntRange(1), metavar="N", help="Not the last attempt but this one."),
            Option(["--rank"], type=click.IntRange(0), metavar="N", default=0,
                   help="The process of this rank of a step that runs on several --nodes."),
        )),
        "card": (card, (
            task,
            Option(["-o", "--output", "target"], metavar="FILE",
                   help="Write the card as one HTML file, which works offline."),
            Option(["--template"], metavar="NAME", default="",
                   help="A template that a package brings; for a single task."),
        )),
        "tag": (tag, (
            whole, Word("tags", "[TAG]...", nargs=-1, required=False),
            Option(["--remove", "removed"], multiple=True, metavar="TAG", help="Take a tag off; again for others."),
        )),
        "diff": (diff, (Word("before", "RUN", "run"), Word("after", "RUN", "second run"))),
        "trust": (trust, (Word("place", "PLACE", "folder", required=False),)),
        "gc": (gc, (
            Option(["--keep"], type=click.IntRange(0), metavar="N",
                   help="Runs of each flow that stay; default: 10. Tagged ones stay anyway."),
            Option(["--size", "most"], callback=_size, metavar="SIZE",
                   help="The most that the store may hold; default: the setting of this folder, 20G."),
            Option(["--dry-run"], is_flag=True, help="Only say what would go."),
            Option(["--force"], is_flag=True, help="Also what is younger than an hour: no run may be going on."),
        )),
        "fsck": (fsck, (
            Option(["--repair", "mend"], is_flag=True,
                   help="Move aside what is damaged; steps that it concerns run again."),
        )),
    }  # fmt: skip
