"""A notebook → files for another tool: reads what the exporter has to know, calls it, writes what it gives."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from nbflow import plugins
from nbflow.analysis.cell import analyse
from nbflow.errors import NbflowError, NotebookError, OptionError, PlanError
from nbflow.exporters.exporter import Environment, ExportedFiles, Exporter, Options
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.flow.spans import in_one_cell
from nbflow.model import Finding, Flow
from nbflow.plain_files import is_plain, read_text
from nbflow.runs import client
from nbflow.store import location
from nbflow.store.flows import find_flow
from nbflow.store.own_modules import with_modules
from nbflow.store.settings import without_ignored
from nbflow.task.observe.environment import distribution_of, version_of

PathLike = str | os.PathLike[str]


class Exported(msgspec.Struct, frozen=True):
    """What an export wrote, and what was lost or changed on the way; with `check` nothing is written."""

    files: tuple[Path, ...]
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether the target cannot hold the flow."""
        return any(finding.level == "error" for finding in self.findings)

    def __repr__(self) -> str:
        lines = [*(line for finding in self.findings for line in told(finding)), *map(str, self.files)]
        return "\n".join(lines) or "nothing is lost or changed"


def export(
    path: PathLike, target: str, output: PathLike | None = None, *, words: Sequence[str] = (), check: bool = False,
    force: bool = False,
) -> Exported:  # fmt: skip
    """Write a notebook as files of another tool; return what was written and what changed.

    `output` is the main file's path, or a folder that is there. A file that is there, and is not as an earlier export
    left it, is replaced only with `force`. Raises NotebookError and PlanError (which lists everything that the target
    cannot hold) before anything is written; with `check` nothing is raised but for a notebook that cannot be read, and
    nothing is written.
    """
    flow = build_flow(with_modules(without_ignored(read_notebook(Path(path)))))
    return export_flow(flow, target, output, words=words, check=check, force=force)


def _as_exported(flow: Flow) -> Flow:
    """Return a flow as it means the same where nobody compares what cells have changed.

    Plain cells change whatever they may change, and what cells set in the process is set by each step anew. A step is
    one cell.
    """
    understand = partial(build_flow, in_one_cell(flow.notebook), all_cells=flow.all_cells, replays_settings=True)
    first = understand()
    doubtful = {step.name: frozenset(step.escapes) for step in first.steps if step.joins}
    return understand(changed=doubtful) if doubtful else first


def export_flow(
    flow: Flow, target: str, output: PathLike | None = None, *, words: Sequence[str] = (), check: bool = False,
    force: bool = False,
) -> Exported:  # fmt: skip
    """Write a flow that has been read already, as the kernel's session has it, in the same way."""
    flow = _as_exported(flow)
    exporter: Exporter = plugins.load("exporters", target)()
    place = _place(flow, output, check=check)
    environment = read_environment(flow, beside=place.parent.resolve() == Path(flow.notebook.folder).resolve())
    options = Options(file=place.name, words=tuple(words))
    try:
        files = exporter.export(flow, environment, options)
    except PlanError as error:
        if not check:
            raise
        return Exported((), error.findings or (_refusal(error),))
    findings = files.findings if isinstance(files, ExportedFiles) else ()
    if check:
        return Exported((), findings)
    texts = {place.parent / name: text for name, text in files.items()}
    try:
        _write(texts, location.cache_folder() / "exports", force=force)
    except OSError as error:
        raise OptionError(
            f"{error.filename or place} cannot be written: {error.strerror}", fix="name another place after -o"
        ) from None
    return Exported(tuple(texts), findings)


def _refusal(error: PlanError) -> Finding:
    return Finding(code="refused", level="error", message=error.message, step=error.step, cell=error.cell,
                   line=error.line, fix=error.fix)  # fmt: skip


def _write(texts: Mapping[Path, str], known: Path, *, force: bool) -> None:
    """Write files; raise OptionError before that where one is there that no export has left so.

    `known` is a folder with a file for each exported one, which holds the hash of what was written: work on it by hand
    is not lost.
    """
    marks = {file: known / _hash(str(file.resolve())) for file in texts}
    for file, text in texts.items():
        there = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else text
        mark = marks[file].read_text() if marks[file].is_file() else ""
        if not force and there != text and mark != _hash(there):
            raise OptionError(
                f"{file} exists already, and is not as an export has written it",
                fix="add --force, or name another file after -o",
            )
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        with contextlib.suppress(OSError):  # a cache: without it the next export asks for --force
            known.mkdir(parents=True, exist_ok=True)
            marks[file].write_text(_hash(text))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()


def usual_place(flow: Flow, target: str) -> Path:
    """Return where a notebook's export goes when nobody says it: beside the notebook, with the target in its name."""
    return Path(flow.notebook.folder) / f"{_word(flow)}_{target}.py"


def in_words(exported: Exported) -> str:
    """Return what an export wrote and what is to be known of it in one line."""
    files = ", ".join(file.name for file in exported.files)
    count = len(exported.findings)
    findings = "; ".join(finding.message for finding in exported.findings[:3])
    return f"wrote {files}" + (f". {count} finding{'s' if count > 1 else ''}: {findings}" if count else "")


def _word(flow: Flow) -> str:
    return re.sub(r"\W+", "_", flow.name).strip("_") or "flow"


def _place(flow: Flow, output: PathLike | None, *, check: bool) -> Path:
    """Return where the main file goes; raise OptionError where nothing says it, or it would replace the notebook."""
    default = _word(flow)
    if output is None:
        if not check:
            raise OptionError("no output file was given", fix=f"add `-o {default}.py`")
        return Path(flow.notebook.folder) / f"{default}.py"
    place = Path(output)
    place = place / f"{default}.py" if place.is_dir() else place
    if flow.notebook.path is not None and place.resolve() == Path(flow.notebook.path).resolve():
        raise OptionError(f"{str(output)!r} is the notebook itself", fix="name another file after -o")
    return place


def read_environment(flow: Flow, *, beside: bool = True) -> Environment:
    """Return Python's version, the distributions that a flow's cells import, and the helper modules beside it."""
    distributions: dict[str, tuple[str, str]] = {}
    modules: dict[str, str] = {}
    waiting = [origin for definition in flow.definitions for origin in definition.origins.values()]
    visited: set[str] = set()
    folder = Path(flow.notebook.folder)
    while waiting:
        top = waiting.pop().partition(".")[0]
        if top in visited:
            continue
        visited.add(top)
        local = _read_modules(folder, top)
        modules.update(local)
        for text in local.values():
            waiting += [origin for statement in analyse(text).statements for _, origin in statement.imports]
        distribution = None if local else distribution_of(top)
        if distribution is not None:
            distributions[top] = (distribution, version_of(distribution))
    return Environment(
        unstored=_unstored(flow), python=platform.python_version(), distributions=dict(sorted(distributions.items())),
        modules=dict(sorted(modules.items())), beside=beside,
    )  # fmt: skip


def _unstored(flow: Flow) -> frozenset[str]:
    """Return names that a flow's last run here could not store and no step reads; none without a run."""
    try:
        store = location.open_store(location.store_url(None, flow.notebook.folder))
        entry = find_flow(store, flow.notebook)
        last = client.Flow(entry.folder, store.url).latest_run if entry is not None else None
        tasks = [task for step in last.steps() for task in step.tasks] if last is not None else []
        names = {name for task in tasks for name, artifact in task.artifacts.items() if not artifact.stored}
    except NbflowError:
        return frozenset()
    return frozenset(names - {name for edge in flow.edges for name in edge.names})


def _read_modules(folder: Path, top: str) -> dict[str, str]:
    """Return the files beside the notebook that a module is made of, with their text."""
    single = folder / f"{top}.py"
    files = [single] if single.is_file() else sorted((folder / top).rglob("*.py")) if (folder / top).is_dir() else []
    files = [file for file in files if is_plain(file)]
    try:
        return {file.relative_to(folder).as_posix(): read_text(file) for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise NotebookError(
            f"the helper module {top} cannot be read: {error}", fix="save it as text in UTF-8"
        ) from None


def told(finding: Finding) -> list[str]:
    """Return a finding as the lines that a person reads."""
    word = {"error": "refused", "warning": "lost", "note": "changed"}[finding.level]
    where = f"step {finding.step}" if finding.step else f"cell {finding.cell}" if finding.cell else ""
    if where and finding.line is not None:
        where += f", line {finding.line}"
    lines = [f"{word}: {finding.message}" + (f" ({where})" if where else "")]
    return [*lines, f"  fix: {finding.fix}"] if finding.fix else lines
