"""What `%flow` understands: one function a sub-command, each given the session and its words."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from nbflow.errors import OptionError, nearest
from nbflow.flow.options import parse_size
from nbflow.kernel.document import ORIGINS
from nbflow.model import RunStatus
from nbflow.render import dag, listing, table
from nbflow.runs.run_options import RunOptions
from nbflow.store import settings
from nbflow.store.flows import find_flow, word_for

if TYPE_CHECKING:
    from nbflow.kernel.session import Session


class CommandWords(msgspec.Struct):
    """A command line's words, sorted: what stands by itself, options with their values, parameters."""

    plain: list[str] = msgspec.field(default_factory=list)
    options: dict[str, list[str]] = msgspec.field(default_factory=dict)
    params: dict[str, str] = msgspec.field(default_factory=dict)

    def option(self, name: str) -> str | None:
        """Return the last value given to an option, None when it was not given."""
        return self.options[name][-1] if name in self.options else None

    def number(self, name: str) -> int | None:
        """Return that value as a number; raise OptionError where it is none."""
        word = self.option(name)
        try:
            return int(word) if word else None
        except ValueError:
            raise OptionError(f"--{name} {word}: not a number", fix=f"write --{name} 4") from None


FLAGS = ("background", "all", "all-cells", "dry-run", "force", "cell", "check", "cost", "repair")
SHORT = {"-p": "--param", "-o": "--output"}


def parse(words: list[str], command: str, known: tuple[str, ...]) -> CommandWords:
    """Return the words behind a sub-command, sorted; raise OptionError for an option that it does not know."""
    result = CommandWords()
    queue = [SHORT.get(word, word) for word in words]
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            name, equals, value = word.partition("=")
            if equals and name.isidentifier():
                result.params[name] = value
            else:
                result.plain.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name not in known:
            raise OptionError(
                f"%flow {command} has no option --{name}{nearest(name, known)}",
                fix=f"known options: {', '.join('--' + each for each in known) or 'none'}",
            )
        if name in FLAGS or (
            name == "fresh" and not equals and (not queue or queue[0].startswith("-") or "=" in queue[0])
        ):
            result.options.setdefault(name, []).append(value)
            continue
        if not equals:
            if not queue:
                raise OptionError(f"--{name} needs a value")
            value = queue.pop(0)
        if name == "param":
            key, _, text = value.partition("=")
            result.params[key] = text
        else:
            result.options.setdefault(name, []).append(value)
    return result


def perform(session: Session, line: str) -> Any:
    """Do what stands behind `%flow` and return what is to be shown."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise OptionError(f"the line cannot be read: {error}", fix="close the quotes") from None
    if not words:
        return show_commands()
    name, *rest = words
    if name not in COMMANDS:
        raise OptionError(
            f"%flow has no {name!r}{nearest(name, COMMANDS)}", fix=f"known: {', '.join(sorted(COMMANDS))}"
        )
    command = COMMANDS[name]
    session.known.flush()
    return command.perform(session, parse(rest, name, command.options))


# ---------------------------------------------------------------- runs


def run(session: Session, words: CommandWords) -> Any:
    """`%flow run [STEP …] [name=value …]`: the whole flow, or these steps with all that they need."""
    options = up_to_steps(*run_options(session, words))
    return drawn_already(session.run_flow(options, background="background" in words.options))


def run_options(session: Session, words: CommandWords) -> tuple[RunOptions, list[str]]:
    """Return what a command's options ask of a run, and the words that stand by themselves.

    A word after `--fresh` is its step only where it names one, or where other words stand by themselves.
    """
    fresh, plain = words.options.get("fresh"), list(words.plain)
    named = [name for name in fresh or () if name]
    if named and not plain and named[-1] not in {step.name for step in session.flow().steps}:
        plain.append(named.pop())
    options = RunOptions(
        fresh=(named or True) if fresh is not None else False, params=words.params, params_file=words.option("params"),
        on=words.option("on") or "local", workers=words.number("workers"), steps=words.options.get("step"),
        only=words.option("only"), again=words.options.get("again", ()), tags=words.options.get("tag", ()),
        all_cells="all-cells" in words.options,
    )  # fmt: skip
    return options, plain


def up_to_steps(options: RunOptions, steps: list[str]) -> RunOptions:
    """Return options of a run up to these steps, too."""
    return msgspec.structs.replace(options, steps=[*steps, *(options.steps or ())] or None)


def drawn_already(run: Any) -> Any:
    """Return a run whose table stands in the cell so that the cell does not draw it once more as its result."""
    if run is not None:

        def once() -> None:
            del run._ipython_display_

        run._ipython_display_ = once
    return run


def resume(session: Session, words: CommandWords) -> Any:
    """`%flow resume [RUN]`: run again with the parameters of that run, the last failed one by default."""
    from nbflow.runs import client

    options, plain = run_options(session, words)
    if plain:
        past = named_run(session, plain[0])
    else:
        store = session.known.store()
        entry = find_flow(store, session.flow().notebook)
        runs = client.list_runs(store.url, entry.folder) if entry is not None else ()
        failed = client.last_failed(runs)
        if failed is None:
            raise OptionError("no run has failed", fix="`%flow run` runs the flow")
        past = client.Run(failed.run, store.url)
    name = f"{past.flow}/{past.id}"
    options = msgspec.structs.replace(options, resume=name, all_cells=options.all_cells or past.metadata["all_cells"])
    print(f"resume of {name}, {past.status}\n{table.plan_text(session.plan(options))}")
    return drawn_already(session.run_flow(options, background="background" in words.options))


def cancel(session: Session, words: CommandWords) -> None:
    """`%flow cancel [RUN]`: end the run that goes on in the background, or ask one elsewhere to stop."""
    if words.plain:
        past = named_run(session, words.plain[0])
        over = past.finished
        past.cancel()
        print(f"{past.flow}/{past.id} " + (f"has ended already: {past.status}" if over else "was asked to stop"))
    elif not session.cancel():
        print("no run is under way")


# ---------------------------------------------------------------- what is known before a run


def check(session: Session, words: CommandWords) -> None:
    """`%flow check [--all-cells]`: everything that is wrong with the notebook as a flow."""
    flow = session.check(all_cells="all-cells" in words.options)
    for finding in flow.findings:
        print("\n".join(table.finding_text(finding)))
    errors = sum(finding.level == "error" for finding in flow.findings)
    steps = sum(step.kind != "params" for step in flow.steps)
    print(f"{flow.name}: {steps} steps, {errors} errors, {len(flow.findings) - errors} other findings")


def draw_dag(session: Session, words: CommandWords) -> Any:
    """`%flow dag [--all-cells]`: the steps and what flows between them."""
    graph = dag.of_flow(session.flow(all_cells="all-cells" in words.options))
    return ShownText(dag.text(graph), dag.as_html(graph))


def plan(session: Session, words: CommandWords) -> Any:
    """`%flow plan [STEP …]`: what `%flow run` with the same words would execute and reuse, and why."""
    return ShownText(table.plan_text(session.plan(up_to_steps(*run_options(session, words)))))


def why(session: Session, words: CommandWords) -> Any:
    """`%flow why STEP [--cost]`: whether a step would run, what changed, and what nbflow took beside it."""
    options, steps = run_options(session, words)
    if not steps:
        raise OptionError("%flow why needs a step", fix="write `%flow why STEP`")
    answer = session.why(steps[0], options, cost="cost" in words.options)
    return ShownText(table.why_text(steps[0], answer))


# ---------------------------------------------------------------- what was


def show(session: Session, words: CommandWords) -> Any:
    """`%flow show RUN[/STEP[/ITEM]][/NAME] [--notebook FILE]`: a run, a step, a task, a value; a run's notebook."""
    from nbflow.runs import client, printed

    past = client.locate(path_of(session, words), store=session.known.store().url)
    target = words.option("notebook")
    if target is None:
        return getattr(past, "value", past)
    if not isinstance(past, client.Run):
        raise OptionError("--notebook needs a run, not a part of it", fix="write `%flow show RUN --notebook FILE`")
    printed.write_text(target, past.notebook_with_outputs())
    print(f"wrote {target}")
    return None


def logs(session: Session, words: CommandWords) -> None:
    """`%flow logs [RUN/]STEP[/ITEM] [--attempt N]`: what a step of a run printed; without RUN, of the last one."""
    from nbflow.runs import printed

    if not words.plain:
        raise OptionError("%flow logs needs a step", fix="write `%flow logs STEP`, or `%flow logs RUN/STEP`")
    printed.print_logs(path_of(session, words), words.number("attempt"), session.known.store().url)


def path_of(session: Session, words: CommandWords) -> str:
    """Return what names a run or a part of it: `latest/…` and a step's name mean this flow's last run."""
    path = words.plain[0] if words.plain else "latest"
    first = path.partition("/")[0]
    if first == "latest":
        return f"{flow_word(session)}/{path}"
    return f"{flow_word(session)}/latest/{path}" if first in {step.name for step in session.flow().steps} else path


def flow_word(session: Session) -> str:
    """Return what names this notebook's flow in its datastore, where another one may bear the same name."""
    store, flow = session.known.store(), session.flow()
    entry = find_flow(store, flow.notebook)
    return word_for(store, entry) if entry is not None else flow.name


def card(session: Session, words: CommandWords) -> Any:
    """`%flow card RUN/STEP[/ITEM] [--template NAME] [--output FILE]`: the card of a task, a step or a run."""
    from nbflow.runs import client, printed

    store = session.known.store().url
    shown_card = client.card_at(path_of(session, words), words.option("template") or "", store)
    target = words.option("output")
    if target is None:
        return shown_card
    printed.write_text(target, shown_card.html)
    print(f"wrote {target}")
    return None


def load_inputs(session: Session, words: CommandWords) -> None:
    """`%flow load RUN/STEP[/ITEM]`: what a past task was given becomes names of this notebook, to debug its cell."""
    from nbflow.kernel.load_task import revisit

    task = find_task(session, words)
    task_inputs = revisit(session.known, task.spec())
    print(f"{task.name}: {task.summary}")
    print(f"loaded {', '.join(task_inputs.inputs) or 'nothing'}")
    if task_inputs.definitions:
        print(f"defined {', '.join(task_inputs.definitions)}")
    if "cell" in words.options:
        session.ip.set_next_input(task_inputs.source)


def find_task(session: Session, words: CommandWords) -> Any:
    """Return the task that `RUN/STEP[/ITEM]` names; of several items the first that failed."""
    from nbflow.runs import client

    if not words.plain:
        raise OptionError("%flow load needs a task", fix="write `%flow load RUN/STEP`, or `latest/STEP/ITEM`")
    path = words.plain[0]
    path = f"{flow_word(session)}/{path}" if path.startswith("latest/") else path
    past: Any = client.locate(path, store=session.known.store().url)
    if isinstance(past, client.Step):
        failed = [task for task in past.tasks if task.state == "failed"]
        return failed[0] if failed else past.task
    if not isinstance(past, client.Task):
        raise OptionError(f"{words.plain[0]!r} names no task", fix="write RUN/STEP or RUN/STEP/ITEM")
    return past


def tag(session: Session, words: CommandWords) -> None:
    """`%flow tag RUN TAG … [--remove TAG]`: tags of a run."""
    run = named_run(session, words.plain[0] if words.plain else "latest")
    run.add_tag(*words.plain[1:])
    run.remove_tag(*words.options.get("remove", ()))
    print(f"{run.flow}/{run.id}  {' '.join(f'#{each}' for each in run.tags) or 'no tags'}")


def named_run(session: Session, name: str) -> Any:
    """Return the run that a word names; `latest` and plain ids are this flow's."""
    from nbflow.runs import client

    return client.Run(name if "/" in name else f"{flow_word(session)}/{name}", store=session.known.store().url)


def diff(session: Session, words: CommandWords) -> Any:
    """`%flow diff RUN RUN`: what differs between two runs."""
    from nbflow.runs import compare

    if len(words.plain) != 2:
        raise OptionError("%flow diff needs two runs", fix="write `%flow diff RUN RUN`; `%flow runs` lists them")
    comparison = compare.compare(*(named_run(session, name) for name in words.plain), tables=True)
    return ShownText(compare.text(comparison), compare.as_html(comparison))


def attach(session: Session, words: CommandWords) -> None:
    """`%flow attach RUN`: follow a run that goes on elsewhere; an interrupt ends the following, not the run."""
    session.follow(named_run(session, words.plain[0] if words.plain else "latest"))


def gc(session: Session, words: CommandWords) -> Any:
    """`%flow gc [--keep N] [--size SIZE] [--dry-run] [--force]`: remove old runs and what no kept run reaches."""
    from nbflow.runs import garbage

    keep, size = words.option("keep"), words.option("size")
    try:
        policy = garbage.Policy(
            garbage.KEEP if keep is None else int(keep),
            settings.most_bytes(session.flow().notebook.folder) if size is None else parse_size(size),
            "force" in words.options,
        )  # fmt: skip
    except ValueError as error:
        raise OptionError(f"%flow gc: {error}") from None
    store = session.known.store()
    cleaning = garbage.plan_cleaning(store, policy)
    if "dry-run" not in words.options:
        garbage.clean(store, cleaning)
    return ShownText(garbage.text(cleaning, done="dry-run" not in words.options))


def fsck(session: Session, words: CommandWords) -> Any:
    """`%flow fsck [--repair]`: read all of the datastore and say what is damaged; move it aside."""
    from nbflow.runs import integrity

    store = session.known.store()
    report = integrity.examine(store, lambda _, __: None)
    return ShownText(integrity.text(integrity.repair(store, report) if "repair" in words.options else report))


def runs(session: Session, words: CommandWords) -> Any:
    """`%flow runs [--tag T] [--status S] [--flow FLOW] [--all]`: runs; with --all of some steps and by hand, too."""
    from nbflow.runs import client

    other, status = words.option("flow"), words.option("status")
    if status is not None and status not in get_args(RunStatus):
        known = ", ".join(get_args(RunStatus))
        raise OptionError(f"--status {status}: no run has such a status", fix=f"write one of: {known}")
    name, word = other or session.flow().name, other or flow_word(session)
    summaries = client.list_runs(session.known.store().url, word, words.options.get("tag", ()))
    summaries = [summary for summary in summaries if status in (None, summary.status)]
    listed = [summary for summary in summaries if "all" in words.options or summary.is_whole]
    more = listing.left_out(len(summaries) - len(listed)) if len(summaries) > len(listed) else ""
    rows, now = [client.row(summary) for summary in listed], time.time()
    text = "\n".join(filter(None, (listing.runs_text(rows, now), more)))
    return ShownText(text, listing.runs_html(f"{name}: {more}" if more else name, rows, now))


def status(session: Session, words: CommandWords) -> Any:
    """`%flow status`: the run that goes on or was last, the document in use, and what names wait or are bound."""
    del words
    return ShownText("\n".join(session.status()))


# ---------------------------------------------------------------- settings


def config(session: Session, words: CommandWords) -> None:
    """`%flow config [notebook PATH | store URL | size SIZE | ignore CELL]`: notebook, its runs' place, its cells."""
    if not words.plain:
        print("\n".join(session.settings()))
        return
    name, value = words.plain[0], " ".join(words.plain[1:])
    if not value or name not in ("notebook", "store", "size", "ignore"):
        what = "%flow config sets `notebook PATH`, `store URL`, `size SIZE` or `ignore CELL`"
        raise OptionError(what, fix="write one of the four")
    if name == "notebook":
        session.use_notebook(Path(value))
    elif name == "store":
        session.use_store(value)
        settings.write_setting(session.flow().notebook.folder, "store", value)
    elif name == "size":
        try:
            parse_size(value)
        except ValueError as error:
            raise OptionError(f"%flow config size: {error}", fix="write a size, such as `50G`") from None
        settings.write_setting(session.flow().notebook.folder, "size", value)
    else:
        print(f"cell {session.ignore(value).position} takes no part in runs from now on")


def doctor(session: Session, words: CommandWords) -> None:
    """`%flow doctor`: what is installed and works, as seen from this kernel."""
    del words
    print(
        f"document: {ORIGINS[session.document.origin]}"
        + (f" ({session.document.path})" if session.document.path else "")
    )
    if session.document.problem:
        print(f"  {session.document.problem}")
    print(f"python: {sys.version.split()[0]}, process {os.getpid()}")
    print("\n".join(session.settings()))


def export(session: Session, words: CommandWords) -> Any:
    """`%flow export --to TARGET -o PATH [--check] [--force]`: the notebook as a script, or for another tool."""
    from nbflow.runs import exporting

    target = words.option("to")
    if target is None:
        raise OptionError("%flow export needs --to", fix="write `%flow export --to metaflow -o flow.py`")
    flow, wished = session.flow(), tuple(words.options.get("with", ()))
    place = words.option("output")
    output = None if place is None else Path(flow.notebook.folder) / place
    check, force = "check" in words.options, "force" in words.options
    return exporting.export_flow(flow, target, output, words=wished, check=check, force=force)


# ---------------------------------------------------------------- showing


class ShownText:
    """Text for terminals and saved notebooks, and HTML where there is a page."""

    def __init__(self, text: str, html: str = "") -> None:
        self.text = text
        self.html = html

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str | None:
        return self.html or None


def show_commands() -> ShownText:
    """Return a line for each command that `%flow` knows."""
    return ShownText("\n".join(_doc(command) for command in COMMANDS.values()))


def _doc(command: Command) -> str:
    return (command.perform.__doc__ or "").split("\n")[0]


class Command(msgspec.Struct, frozen=True):
    """A sub-command: what it does and the options that it takes."""

    perform: Callable[[Session, CommandWords], Any]
    options: tuple[str, ...] = ()


ASKED = ("param", "params", "on", "workers", "fresh", "again", "all-cells", "tag")
"""Options that say what a run would be."""
UP_TO = ("step", "only")

COMMANDS: Mapping[str, Command] = {
    "run": Command(run, (*ASKED, *UP_TO, "background")),
    "resume": Command(resume, (*ASKED, "background")),
    "cancel": Command(cancel),
    "check": Command(check, ("all-cells",)),
    "dag": Command(draw_dag, ("all-cells",)),
    "plan": Command(plan, (*ASKED, *UP_TO)),
    "why": Command(why, (*ASKED, "cost")),
    "show": Command(show, ("notebook",)),
    "logs": Command(logs, ("attempt",)),
    "card": Command(card, ("template", "output")),
    "load": Command(load_inputs, ("cell",)),
    "tag": Command(tag, ("remove",)),
    "diff": Command(diff),
    "attach": Command(attach),
    "fsck": Command(fsck, ("repair",)),
    "gc": Command(gc, ("keep", "size", "dry-run", "force")),
    "runs": Command(runs, ("tag", "status", "flow", "all")),
    "status": Command(status),
    "export": Command(export, ("to", "output", "with", "check", "force")),
    "config": Command(config),
    "doctor": Command(doctor),
}
"""Every sub-command by its name."""
